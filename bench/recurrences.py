"""LSTM and GRU on a CUDA GPU: foldfuse beside cuDNN and a loop in a CUDA graph, forward and backward.

For every configuration the peers run in one process, one after another, on the same weights and inputs: foldfuse's
compiled scan, the input's projection included; the same in a CUDA graph; `torch.nn`'s module ("nn"); and a plain loop
over the steps, in a CUDA graph. No peer is timed before it is right: values and gradients over the first steps, and the
values over the whole length, are compared with a loop in float64. Times are medians by the device's events, and nothing
is compiled in what is timed: all kernels are compiled first, side by side.

    foldfuse bench recurrences --quick
    foldfuse bench recurrences --dry-run --target sm_80

The file is written anew after each configuration. The exit status is 1 where a peer was wrong, failed or did not end,
and 2 where nothing can be measured.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from threading import Timer

import torch

import foldfuse as ff
from foldfuse.kernels.targets import TARGETS, target
from foldfuse.runtime import compat, fused

from . import report
from .compile_ahead import compile_into_cache
from .device_time import milliseconds
from .recurrence_cells import CELLS
from .recurrence_peers import PEERS, PRECISIONS, Peer, in_precision
from .recurrence_runs import (
    OUTCOME_TABLE,
    PASSES,
    PEER_TABLE,
    Configuration,
    DeviceLost,
    Row,
    Timing,
    dry_rows,
    measure,
    planned,
)

LEFT_TABLE = "left out"
ALL = {"hidden": [64, 128, 256, 512, 768, 1024], "batch": [16, 64], "repeats": 20, "budget": None}
QUICK = {"hidden": [128, 768], "batch": [16], "repeats": 10, "budget": 240.0}
# The columns that are printed; the file has all of them.
SHOWN = (
    "cell", "dtype", "H", "B", "T", "pass", *(f"{name}_ms" for name in PEERS), "us_per_step", "best_peer", "ratio",
    "graph_ratio", "forward_scan", "backward_scan",
)  # fmt: skip
SHOWN_DRY = (
    "cell", "dtype", "H", "B", "T", "pass", "launches", "torch_operations", "floor_of_bytes_ms",
    "floor_of_operations_ms", "forward_scan", "backward_scan",
)  # fmt: skip


# --- the command line -------------------------------------------------------------------------------------------------


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the parsed command line, what is left out filled in."""
    parser = report.parser("recurrences", __doc__)
    parser.add_argument("--cells", nargs="+", choices=tuple(CELLS), default=list(CELLS))
    dtypes = {"choices": tuple(PRECISIONS), "default": ["f16", "bf16"]}
    parser.add_argument("--dtypes", nargs="+", help="default: f16 bf16; f32 is exact, tf32 is not", **dtypes)
    parser.add_argument("--hidden", nargs="+", type=report.positive, metavar="H", help=_default("hidden"))
    parser.add_argument("--batch", nargs="+", type=report.positive, metavar="B", help=_default("batch"))
    parser.add_argument("--length", type=report.positive, default=1024, metavar="T", help="steps (default: 1024)")
    parser.add_argument("--repeats", type=report.positive, help=f"runs that are counted; {_default('repeats')}")
    parser.add_argument(
        "--budget", type=float, metavar="SECONDS", help=f"start nothing after this time; {_default('budget')}"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="give up where one configuration takes longer, as a kernel that waits for ever does (default: 300)",
    )
    parser.add_argument(
        "--workers",
        type=report.positive,
        default=_processors(),
        help="processes that compile kernels before all else; 1: each when it is first run (default: %(default)s)",
    )
    parser.add_argument("--quick", action="store_true", help="a small part of it, for about four minutes")
    parser.add_argument("--dry-run", action="store_true", help="show what foldfuse would do; needs no GPU")
    parser.add_argument("--target", choices=tuple(TARGETS), help="the GPU of a dry run (default: sm_90)")
    given = parser.parse_args(arguments)
    if given.target and not given.dry_run:
        parser.error("--target is for --dry-run: what is measured is the GPU that is there")
    for name, value in (QUICK if given.quick else ALL).items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    return given


def _default(name: str) -> str:
    return f"default: {_words(ALL[name])}; with --quick {_words(QUICK[name])}"


def _words(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "none" if value is None else f"{value:g}"


def _processors() -> int:
    """How many processes may compile at once; each takes the memory that importing torch takes."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, 16)


def configurations(given: argparse.Namespace) -> list[Configuration]:
    """Return what is to be measured, small batches first."""
    return [
        Configuration(CELLS[cell], PRECISIONS[dtype], hidden, batch, given.length)
        for batch, hidden, dtype, cell in product(given.batch, given.hidden, given.dtypes, given.cells)
    ]


def refusal(given: argparse.Namespace) -> str | None:
    """Return why nothing can be measured here; None where it can."""
    if not torch.cuda.is_available():
        return "torch finds no CUDA device, and a CPU's time says nothing of a kernel; --dry-run needs none"
    if not compat.has_triton():
        return "Triton is not installed here, and without it there are no kernels: pip install triton"
    if compat.interpreting():
        return "unset TRITON_INTERPRET: Triton is to compile the kernels"
    try:
        given.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"no folder can be made at {given.output}: {error.strerror}; name another with --output"
    return None


# --- running ----------------------------------------------------------------------------------------------------------


def run(
    given: argparse.Namespace, peers: Mapping[str, Peer], device: torch.device, timing: Timing, started: float
) -> dict[str, list[Row]]:
    """Measure all configurations while there is time, and write the file after each.

    Arguments:
        given: the parsed command line.
        peers: what is compared, by name.
        device: where it runs.
        timing: gives the milliseconds of runs.
        started: when the time began to count, by `time.monotonic`.

    Returns:
        The rows by table. What was not measured stands in one of its own, with the reason.
    """
    tables: dict[str, list[Row]] = {OUTCOME_TABLE: [], PEER_TABLE: [], LEFT_TABLE: []}
    waiting = configurations(given)
    reason = f"the {given.budget:g} seconds were used up" if given.budget else ""
    while waiting and (given.budget is None or time.monotonic() - started < given.budget):
        configuration = waiting.pop(0)
        try:
            with in_precision(configuration.precision), patience(given, tables, configuration, waiting):
                for name, row in measure(configuration, peers, device, given.repeats, timing):
                    tables[name].append(row)
                    print(progress(row), flush=True)
        except DeviceLost as lost:
            reason = f"the device is of no use after an error: {lost}"
            break
        finally:
            write(given, tables)
    tables[LEFT_TABLE] += [{**each.facts, "reason": reason} for each in waiting]
    write(given, tables)
    return tables


def write(given: argparse.Namespace, tables: Mapping[str, list[Row]]) -> str:
    """Write the file as it is now, and return its name."""
    return str(report.write("recurrences", report.settings(given), tables, given.output))


@contextmanager
def patience(
    given: argparse.Namespace, tables: dict[str, list[Row]], now: Configuration, waiting: Sequence[Configuration]
) -> Iterator[None]:
    """End this process where a configuration takes longer than it may, all rows so far written.

    A kernel whose programs wait for one another for ever cannot be stopped from the process that launched it.
    """

    def end() -> None:
        why = f"{now} did not end in {given.patience:g} seconds"
        rows = [{**now.facts, "reason": why}, *({**each.facts, "reason": f"after {why}"} for each in waiting)]
        tables[LEFT_TABLE] += rows
        print(f"foldfuse: {why}; what was measured is in {write(given, tables)}", file=sys.stderr, flush=True)
        os._exit(1)

    timer = Timer(given.patience, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def progress(row: Row) -> str:
    """Return a row as one line, printed when it is there."""
    head = f"{row['cell']} {row['dtype']} H={row['H']} B={row['B']} {row['pass']}"
    if "peer" not in row:
        ratios = {"foldfuse": row["ratio"], "its graph": row["graph_ratio"]}
        told = [f"{who} {ratio:.2f}" for who, ratio in ratios.items() if ratio is not None]
        return f"{head}: {', '.join(told)} of the time of {row['best_peer']}" if told else f"{head}: nothing to compare"
    if row["status"] == "ok":
        return f"{head}, {row['peer']}: {row['ms']:.3f} ms, {row['us_per_step']:.2f} µs a step"
    return f"{head}, {row['peer']}: {row['status']}: {row['what']}"


def ahead(given: argparse.Namespace, target_name: str) -> None:
    """Compile the kernels of all configurations, where several processes may."""
    if given.workers < 2:
        return
    kernels = []
    for configuration in configurations(given):
        for backward in PASSES.values():
            # What is refused is refused again, with its reason, where it is measured.
            try:
                kernels += [each.kernel for each in planned(configuration, target_name, backward).kernels]
            except ff.FoldfuseError:
                continue
    started = time.monotonic()
    compiled = compile_into_cache(kernels, target_name, given.workers)
    print(f"{compiled} kernels compiled in {time.monotonic() - started:.0f} s by {given.workers} processes", flush=True)


def finish(given: argparse.Namespace, tables: Mapping[str, list[Row]]) -> int:
    """Print the outcome, what was wrong and what was left out; return the exit status."""
    chosen: Callable[[Row, Sequence[str]], Row] = lambda row, names: {name: row.get(name) for name in names}
    print(f"\n{OUTCOME_TABLE}\n{report.table([chosen(row, SHOWN) for row in tables[OUTCOME_TABLE]])}")
    wrong = [row for row in tables[PEER_TABLE] if row["status"] != "ok"]
    if wrong:
        print("\nnot timed\n" + "\n".join(map(progress, wrong)))
    if tables[LEFT_TABLE]:
        print(f"\n{LEFT_TABLE}\n{report.table(tables[LEFT_TABLE])}")
    print(f"\nwritten: {write(given, tables)}")
    return 1 if wrong else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables and write the JSON file.

    Args:
        arguments: the command line; the program's own where left out.

    Returns:
        The exit status: 0; 1 where a peer was wrong or failed; 2 where nothing can be measured.
    """
    started, given = time.monotonic(), options(arguments)
    if given.dry_run:
        chip = target(given.target or "sm_90")
        rows = [row for each in configurations(given) for row in dry_rows(each, chip)]
        print(f"as planned for {chip.name} ({chip.chip}); floors are at its peak rates")
        print(report.table([{name: row[name] for name in SHOWN_DRY} for row in rows]))
        return 0
    why = refusal(given)
    if why is not None:
        print(f"foldfuse: {why}", file=sys.stderr)
        return 2
    device = torch.device("cuda", torch.cuda.current_device())
    ahead(given, fused.target_of(device).name)
    return finish(given, run(given, PEERS, device, milliseconds, started))


if __name__ == "__main__":
    raise SystemExit(main())
