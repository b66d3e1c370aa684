"""One configuration of the recurrences: what foldfuse plans for it, and every peer checked and then timed."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

import foldfuse as ff
from foldfuse.kernels.targets import Target
from foldfuse.runtime import fused
from foldfuse.runtime.kernel_plan import Planned
from foldfuse.runtime.launch import counts

from .device_time import spread
from .recurrence_cells import Cell, loop
from .recurrence_peers import Found, Peer, Precision, Problem, error, errors, problem, reference, worst

Row = dict[str, object]
Timing = Callable[[Callable[[], object], int], Sequence[float]]
"""Gives the milliseconds of so many runs."""

PASSES = {"forward": False, "forward+backward": True}
CHECKED_STEPS = 32
"""Over how many steps gradients are compared: longer ones differ in half precision even where all is right, as a sum
over the steps that is kept in half precision, which torch's loop does, loses digits with its length."""

PEER_TABLE, OUTCOME_TABLE = "every peer", "foldfuse beside the others"
_EMPTY = dict.fromkeys(
    ("ms", "least_ms", "lower_quartile_ms", "upper_quartile_ms", "us_per_step", "kernel_launches", "error_of_values",
     "error_of_gradients", "status", "what")
)  # fmt: skip


_CHOICE = ("launches", "torch_operations", "forward_scan", "backward_scan", "why")


class DeviceLost(Exception):
    """The device answers nothing more in this process, after an error on it."""


@dataclass(frozen=True)
class Configuration:
    """What is measured at one time: a recurrence in one precision, of one size."""

    cell: Cell
    precision: Precision
    hidden: int
    batch: int
    length: int

    @property
    def facts(self) -> Row:
        """The first columns of its rows."""
        names = ("cell", "dtype", "H", "B", "T")
        return dict(zip(names, (self.cell.name, self.precision.name, self.hidden, self.batch, self.length)))

    def __str__(self) -> str:
        return f"{self.cell.name} {self.precision.name} H={self.hidden} B={self.batch} T={self.length}"


# --- what foldfuse does -----------------------------------------------------------------------------------------------


def planned(configuration: Configuration, target_name: str, backward: bool) -> Planned:
    """Return foldfuse's plan of a configuration for a GPU, which need not be there.

    Raises:
        FoldfuseError: no strategy holds it.
    """
    hidden, precision = configuration.hidden, configuration.precision
    model = ff.compile(configuration.cell.layer(hidden, hidden), ff.Seq(ff.f32[hidden]))
    return model.planned(
        target=target_name, dtype=precision.planned, tf32=precision.tf32, backward=backward, batch=configuration.batch
    )


def placement(plan: Planned, direction: str) -> str:
    """Return strategy and placement of the recurrent kernels of a direction, in words."""
    scans = [each for each in plan.kernels if each.direction == direction and each.kernel.name == "scan"]
    words = [f"{each.strategy}, {each.programs} of {each.rows} rows and {each.kernel.warps} warps" for each in scans]
    words += [f"by torch: {s.reason}" for s in plan.evaluated if s.direction == direction and not s.operation]
    return "; ".join(words) or "–"


def choice(plan: Planned) -> Row:
    """Return the columns about a plan: launches and torch's operations in a call, strategies, placements, reasons."""
    made = (
        sum(each.launches for each in plan.kernels),
        sum(step.count for step in plan.evaluated),
        placement(plan, "forward"),
        placement(plan, "backward"),
        {each.direction: each.why for each in plan.kernels if each.kernel.name == "scan"},
    )
    return dict(zip(_CHOICE, made, strict=True))


def floors(configuration: Configuration, backward: bool, chip: Target) -> Row:
    """Return the fewest bytes and operations of a call, and the time of each at the peak rates of a chip.

    Steps wait for one another, which these times leave out.
    """
    cell, hidden, precision = configuration.cell, configuration.hidden, configuration.precision
    rows = configuration.batch * configuration.length
    moved = cell.elements(hidden, hidden, rows, backward) * precision.dtype.itemsize
    operations = cell.operations(hidden, hidden, backward) * rows
    rate = chip.rates["tf32" if precision.tf32 else precision.planned]
    return {
        "bytes": moved,
        "operations": operations,
        "floor_of_bytes_ms": 1e3 * moved / chip.bandwidth,
        "floor_of_operations_ms": 1e3 * operations / rate,
        "floors_of": chip.chip,
    }


# --- measuring --------------------------------------------------------------------------------------------------------


def first_line(failure: BaseException) -> str:
    """Return the kind of an error and the first line that it says."""
    lines = str(failure).strip().splitlines()
    return f"{type(failure).__name__}: {lines[0]}" if lines else type(failure).__name__


def measure(
    configuration: Configuration, peers: Mapping[str, Peer], device: torch.device, repeats: int, timing: Timing
) -> Iterator[tuple[str, Row]]:
    """Check and time every peer, forward, and forward and backward.

    Arguments:
        configuration: what is measured.
        peers: by name; the names of foldfuse's own begin with "foldfuse".
        device: where they run.
        repeats: how many runs of each are counted.
        timing: gives their milliseconds.

    Returns:
        The names of tables, and a row of each, as they come: for every pass a row for each peer, also for one that
        fails, and then one of foldfuse beside the others.

    Raises:
        DeviceLost: an error left the device of no use to this process. What came before it stands.
    """
    for name, backward in PASSES.items():
        facts = {**configuration.facts, "pass": name}
        found: dict[str, Row] = {}
        try:
            given, expected, whole = _expected(configuration, backward, device)
        except Exception as failure:
            yield PEER_TABLE, {**facts, "peer": "reference", **_EMPTY, **_failure(failure)}
            _recover(device)
            continue
        for peer_name, peer in peers.items():
            try:
                allowed = configuration.precision.allowed
                row = measure_peer(peer, given, expected, whole, backward, allowed, repeats, timing)
            except Exception as failure:
                row = _failure(failure)
            found[peer_name] = row = {**facts, "peer": peer_name, **_EMPTY, **row}
            yield PEER_TABLE, row
            _recover(device)
        yield OUTCOME_TABLE, {**facts, **outcome(found), **about(configuration, backward, fused.target_of(device))}


def _failure(failure: Exception) -> Row:
    return {"status": "failed", "what": first_line(failure)}


def _expected(configuration: Configuration, backward: bool, device: torch.device) -> tuple[Problem, Found, Tensor]:
    """The problem, what its first steps give, and its output over the whole length."""
    cell, precision = configuration.cell, configuration.precision
    sizes = (configuration.hidden, configuration.batch, configuration.length)
    given = problem(cell, *sizes, precision.dtype, device)
    double = given.double()
    with torch.no_grad():
        whole = loop(cell, double.weights, double.x)
    return given, reference(given.first(CHECKED_STEPS), backward), whole


def _recover(device: torch.device) -> None:
    """Give back what a peer held: the next one may need it."""
    gc.collect()
    if device.type == "cuda":
        try:
            torch.cuda.synchronize(device)
            torch.cuda.empty_cache()
        except RuntimeError as failure:
            raise DeviceLost(first_line(failure)) from failure


def measure_peer(
    peer: Peer,
    given: Problem,
    expected: Found,
    whole: Tensor,
    backward: bool,
    allowed: float,
    repeats: int,
    timing: Timing,
) -> Row:
    """Return the columns of one peer: its errors and, only if it is right, its times.

    Arguments:
        peer: the peer.
        given: the problem, of the whole length.
        expected: what its first steps give.
        whole: its output over the whole length.
        backward: whether gradients are computed too.
        allowed: the largest relative error of what is right.
        repeats: how many runs are counted.
        timing: gives their milliseconds.
    """
    short = peer(given.first(CHECKED_STEPS), backward)
    gradients = errors(short.read(short.run()), expected)
    values = {"y": gradients.pop("y")}
    ready, before = peer(given, backward), counts()
    results = ready.run()
    launches = sum((counts() - before).launches.values())
    values["y over the whole length"] = error(ready.read(results)["y"], whole)
    row: Row = {
        "kernel_launches": launches,
        "error_of_values": _number(worst(values)[1]),
        "error_of_gradients": _number(worst(gradients)[1]) if gradients else None,
    }
    name, most = worst({**values, **gradients})
    if not most <= allowed:
        kind = "" if name.startswith("y") else "the gradient of "
        return {**row, "status": "WRONG", "what": f"{kind}{name} is off by {most:.1e}; {allowed:.0e} is allowed"}
    times = spread(timing(ready.run, repeats), "ms")
    return {**row, **times, "us_per_step": 1e3 * times["ms"] / len(whole), "status": "ok"}


def _number(value: float) -> float | None:
    # JSON has no word for what is no number.
    return value if isfinite(value) else None


def outcome(found: Mapping[str, Row]) -> Row:
    """Return the columns of foldfuse beside the others: the times, and how its own compare with the best of theirs.

    Arguments:
        found: the rows of the peers, by name.

    Returns:
        "…_ms" of every peer, "best_peer" of the others, "ratio" and "graph_ratio": the times of foldfuse and of its
        graph over the best peer's, below 1 where foldfuse is faster; None where there is no such time.
    """
    times = {name: row["ms"] for name, row in found.items()}
    others = {name: ms for name, ms in times.items() if ms is not None and not name.startswith("foldfuse")}
    best = min(others, key=others.__getitem__, default=None)

    def ratio(name: str) -> float | None:
        own = times.get(name)
        return None if own is None or best is None else own / others[best]

    return {
        **{f"{name}_ms": ms for name, ms in times.items()},
        "us_per_step": found["foldfuse"]["us_per_step"] if "foldfuse" in found else None,
        "best_peer": best,
        "ratio": ratio("foldfuse"),
        "graph_ratio": ratio("foldfuse_graph"),
    }


def about(configuration: Configuration, backward: bool, chip: Target) -> Row:
    """Return the columns of what foldfuse does on a GPU, or why it refuses, and of the floors."""
    try:
        made = choice(planned(configuration, chip.name, backward))
    except ff.FoldfuseError as refusal:
        made = {**dict.fromkeys(_CHOICE), "forward_scan": f"refused: {first_line(refusal)}"}
    return {**made, **floors(configuration, backward, chip)}


def dry_rows(configuration: Configuration, chip: Target) -> list[Row]:
    """Return what foldfuse would do on a GPU that need not be there: a row for each pass."""
    return [
        {**configuration.facts, "pass": name, **about(configuration, backward, chip)}
        for name, backward in PASSES.items()
    ]
