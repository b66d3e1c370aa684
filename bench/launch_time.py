"""What a launch, and a whole call, costs the host.

In the place of the compiled kernels stands code that does nothing, so that what is left is the host's own work: first
that of a launch, which checks tensors, collects addresses and looks up what follows from the sizes. Where the sizes
change at each launch, as those of ragged batches do, that is worked out anew. Then that of a whole call of an LSTM on
one row and one step, on CPU tensors: arguments are bound, memory is allocated, kernels are launched, and torch's own
operators, which are a part of it, do their little work. Choosing the device is left out where there is none.

Where there is a CUDA device, such calls are timed on it too, torch's own LSTM beside them, and CUDA graphs of both;
until the call returns, and until the device is done.

    foldfuse bench launch-time
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import SimpleNamespace
from unittest.mock import patch

import torch
from torch import Tensor

from foldfuse.compiler.sizes import Named
from foldfuse.kernels.kernel import Argument, Kernel, Tiles
from foldfuse.kernels.request import Request
from foldfuse.runtime import compat, fused
from foldfuse.runtime.launch import Launcher

from . import report
from .device_time import spread
from .recurrence_cells import CELLS
from .recurrence_peers import PRECISIONS, Peer, captured, foldfuse, library, problem
from .recurrence_runs import PASSES, PEER_TABLE, Configuration, Row, measure

BUFFERS = (2, 8, 16)
CALLS = 20
"""How many calls follow one another before the device is waited for: no more than its queue holds."""
PEERS: Mapping[str, Peer] = {
    "foldfuse": foldfuse,
    "foldfuse_graph": captured(foldfuse),
    "nn": library,
    "nn_graph": captured(library),
}


# --- what does nothing ------------------------------------------------------------------------------------------------


class Idle:
    """Compiled code that does nothing, on any device, found as a launcher finds what was compiled for one."""

    interpreted = False

    def __init__(self, kernel: Kernel, device: torch.device):
        self.kernel = kernel
        # As many programs of a cooperative kernel as there may be.
        self.forms = {(device.index, frozenset()): SimpleNamespace(compiled=self, capacity=2**31 - 1)}

    def runs_on(self, device: torch.device) -> bool:
        return True

    def form(self, index: int | None, misaligned: frozenset[str]) -> SimpleNamespace:
        return self.forms[index, misaligned]

    def __getitem__(self, grid: tuple[int, int, int]) -> Callable[..., None]:
        return self.run

    def run(self, *arguments: int) -> None:
        pass


def choosing_devices() -> AbstractContextManager[object]:
    """Where there is no CUDA device, let choosing one do nothing."""
    chosen = nullcontext()
    return chosen if torch.cuda.is_available() else patch.object(torch.cuda, "device", lambda index: chosen)


@contextmanager
def idle_kernels(target_name: str = "sm_90") -> Iterator[None]:
    """Run programs on CPU tensors as on kernels for a GPU, all of which do nothing: results are what memory held."""
    launchers: dict[Kernel, Launcher] = {}

    def launch(kernel: Kernel, *given: Mapping[str, object]) -> None:
        launcher = launchers.get(kernel)
        if launcher is None:
            launcher = launchers[kernel] = Launcher(kernel, Idle(kernel, torch.device("cpu")))
        launcher(*given)

    request = Request(target_name)
    with choosing_devices(), patch.object(fused, "launch", launch):
        with patch.object(fused, "current_request", lambda device: request):
            yield


# --- the host's own work ----------------------------------------------------------------------------------------------


def microseconds(run: Callable[[], object], calls: int, repeats: int) -> Row:
    """Return the time of a call among so many that follow one another, from that many repeats."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        for _ in range(calls):
            run()
        times.append(1e6 * (time.perf_counter() - started) / calls)
    # In the first, Python and torch have yet to see what comes again.
    return spread(times[1:], "us")


def kernel_of(buffers: int) -> Kernel:
    """Return the description of a kernel with so many buffers, over a batch of lists."""
    names = [f"buffer_{number}" for number in range(buffers)]
    arguments = [Argument(name, "buffer", "f32", written=name == names[-1]) for name in names]
    arguments += [Argument(f"size_{size}", "size", "i32", size=size) for size in ("B", "T")]
    return Kernel("idle", "", tuple(arguments), (Tiles((Named("B"),), 16), Tiles((Named("T"),), 64)))


def measure_launch(buffers: int, changing: bool, device: torch.device, launches: int, repeats: int) -> Row:
    """Return one row: the time of a launch.

    Args:
        buffers: how many tensors the kernel takes.
        changing: whether each launch has a length that no launch before it had.
        device: where the tensors lie.
        launches: how many follow one another.
        repeats: how often that is measured.
    """
    kernel = kernel_of(buffers)
    given: dict[str, Tensor] = {
        each.name: torch.zeros(4, device=device) for each in kernel.arguments if each.kind == "buffer"
    }
    launcher = Launcher(kernel, Idle(kernel, given["buffer_0"].device))
    sizes = {"B": 16, "T": 1024}

    def same() -> None:
        launcher(given, sizes, {})

    def other() -> None:
        sizes["T"] += 1
        launcher(given, sizes, {})

    with choosing_devices():
        found = microseconds(other if changing else same, launches, repeats)
    return {"buffers": buffers, "sizes": "new at each launch" if changing else "the same", **found}


def measure_idle_calls(hidden: int, calls: int, repeats: int) -> list[Row]:
    """Return a row for each pass of an LSTM on one row and one step, its kernels doing nothing, and one for torch's."""
    given = problem(CELLS["lstm"], hidden, 1, 1, torch.float32, "cpu")
    rows = []
    for name, backward in PASSES.items():
        with idle_kernels():
            found = microseconds(foldfuse(given, backward).run, calls, repeats)
        rows.append({"pass": name, "of": "foldfuse", **found})
        rows.append({"pass": name, "of": "nn", **microseconds(library(given, backward).run, calls, repeats)})
    return rows


# --- on a device ------------------------------------------------------------------------------------------------------


def until_returned(run: Callable[[], object], repeats: int) -> list[float]:
    """Return the milliseconds of a call until it returns, while the device works on those before it."""
    times = []
    for _ in range(repeats + 1):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(CALLS):
            run()
        times.append(1e3 * (time.perf_counter() - started) / CALLS)
    return times[1:]


def until_done(run: Callable[[], object], repeats: int) -> list[float]:
    """Return the milliseconds of a call until the device is done with it."""
    times = []
    for _ in range(repeats + 1):
        torch.cuda.synchronize()
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - started))
    return times[1:]


def measure_calls(hidden: int, repeats: int, device: torch.device) -> list[Row]:
    """Return a row for each peer, pass and way to time it, for an LSTM on one row and one step; none of a wrong one."""
    configuration = Configuration(CELLS["lstm"], PRECISIONS["f32"], hidden, 1, 1)
    ways = {"it returns": until_returned, "the device is done": until_done}
    return [
        {"until": words, "pass": row["pass"], "peer": row["peer"], **in_microseconds(row), "status": row["status"]}
        for words, timing in ways.items()
        for table, row in measure(configuration, PEERS, device, repeats, timing)
        if table == PEER_TABLE
    ]


def in_microseconds(row: Row) -> Row:
    """Return the times of a row, which are in milliseconds, in microseconds."""
    times = {name: value for name, value in row.items() if name == "ms" or name.endswith("_ms")}
    return {name[:-2] + "us": None if value is None else 1e3 * value for name, value in times.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables and write the JSON file.

    Args:
        arguments: the command line; the program's own where left out.

    Returns:
        The exit status: 0; 1 where a peer was wrong or failed on the device.
    """
    parser = report.parser("launch-time", __doc__)
    parser.add_argument("--calls", type=report.positive, default=1000, help="in a row (default: %(default)s)")
    parser.add_argument("--repeats", type=report.positive, default=15, help="default: %(default)s")
    parser.add_argument("--hidden", type=report.positive, default=64, help="of the LSTM (default: %(default)s)")
    given = parser.parse_args(arguments)
    if compat.interpreting():
        parser.error("unset TRITON_INTERPRET: it is compiled kernels whose launches are measured")

    torch.set_num_threads(1)  # arrays are small, and threads that wait disturb what is measured
    on_device = torch.cuda.is_available() and compat.has_triton()
    device = torch.device("cuda", torch.cuda.current_device()) if on_device else torch.device("cpu")
    tables = {
        "a launch, the kernel doing nothing": [
            measure_launch(buffers, changing, device, given.calls, given.repeats)
            for changing in (False, True)
            for buffers in BUFFERS
        ]
    }
    if compat.has_triton():
        rows = measure_idle_calls(given.hidden, max(1, given.calls // 10), given.repeats)
        tables["a call of an LSTM on the CPU, B = 1, T = 1, the kernels doing nothing"] = rows
    wrong = []
    if on_device:
        rows = measure_calls(given.hidden, given.repeats, device)
        tables[f"a call of an LSTM on {device}, B = 1, T = 1"] = rows
        wrong = [row for row in rows if row["status"] != "ok"]
    report.finish("launch_time", given, tables)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
