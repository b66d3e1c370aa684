"""Which placement a kernel gets on a target: the choice among what the strategies propose, and the kernel of it.

Where the programs of a batch are more than the chip's multiprocessors they take turns. Of the placements that fit, the
one is chosen whose turns together take the least time for a batch of as many rows as the request says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..compiler.errors import StrategyError
from ..compiler.laws.law import Firing
from .emit import emit
from .estimate import LATENCY, Estimate
from .flat import FlatScan, FlatValue, Unsupported, origin
from .groups import Group
from .kernel import Kernel
from .partition import Partition
from .placement import Placement, power_of_two
from .proposals import PROPOSALS, Proposal, Steps, pointwise, takes_weights
from .request import STRATEGIES, Request

MOST_RESIDENT = 16
"""About how many warps of kernels with loops a multiprocessor holds: each takes many registers."""
LARGEST_ROWS = 64
"""The most rows of a tile."""


@dataclass(frozen=True)
class Choice:
    """A placement, what it needs and takes as estimated, and why it was chosen."""

    placement: Placement
    estimate: Estimate
    why: str


def plan_kernel(
    parts: Partition, group: Group, request: Request, ragged: frozenset[str]
) -> tuple[Kernel, dict[str, FlatValue], Choice]:
    """The kernel of a group, the values in its buffers, and the choice of its placement.

    Raises:
        StrategyError: the strategy that was asked for cannot hold the step, or none can.
    """
    if group.scans:
        proposal, why = _scan(parts, group, request)
    else:
        proposal, why = pointwise(parts, group, request), "no sequential axis"
    placement = _at_once(proposal, request)
    name = "scan" if group.scans else "pointwise"
    kernel, buffers = emit(proposal.trees, placement, name, parts.program, ragged, request.numerics)
    # What a loop holds for all steps is worth more than a second program beside it.
    registers = request.chip.registers_per_thread if group.scans and request.chip.backend == "cuda" else None
    kernel = replace(kernel, why=why, header=header(parts, kernel, buffers, why, placement), registers=registers)
    return kernel, buffers, Choice(placement, proposal.estimate, why)


def _at_once(proposal: Proposal, request: Request) -> Placement:
    """The placement of a proposal with the number of tiles that there is memory for: about as many as run at once."""
    place = proposal.placement
    resident = request.chip.multiprocessors * max(1, MOST_RESIDENT // place.warps)
    usual = 1 if request.block else max(1, resident // (place.programs * place.groups * len(proposal.trees)))
    count = request.tiles or usual
    return replace(place, at_once=count, branches=tuple(replace(each, at_once=count) for each in place.branches))


def header(
    parts: Partition, kernel: Kernel, buffers: Mapping[str, FlatValue], why: str, placement: Placement
) -> str:
    """Where a kernel comes from: the program's names and types of what it reads and writes, the laws applied."""
    lines = [f"{kernel.name} of {parts.program.graph.name}: {kernel.strategy}, {why}"]
    for argument in kernel.arguments:
        if argument.name in buffers:
            value = buffers[argument.name]
            dims = ", ".join(map(str, value.dims))
            source = origin(value)
            name = value.name if source is value else f"of {source.name}"
            lines.append(f"  {argument.name}: {name}, {value.dtype}[{dims}]{', written' * argument.written}")
    laws = sorted({note.law for note in parts.program.graph.notes if isinstance(note, Firing)})
    if placement.partial or any(branch.partial for branch in placement.branches):
        lines.append("  what is summed over programs: each sums its own elements, and they exchange these numbers")
    return "\n".join([*lines, *([f"  laws: {'; '.join(laws)}"] if laws else [])])


# --- scans ------------------------------------------------------------------------------------------------------------


def _scan(parts: Partition, group: Group, request: Request) -> tuple[Proposal, str]:
    chip, found, refused = request.chip, {}, {}
    alone = len(group.scans) == 1
    steps = [Steps(parts, replace(group, scans=(scan,)), alone) for scan in group.scans]
    wanted = (request.force,) if request.force else STRATEGIES
    if request.force and not request.strict:
        wanted += tuple(n for n in ("streamed", "resident") if n != request.force)
    for name in wanted:
        if found and (request.force or _needless(found, request)):
            break
        try:
            best: Proposal | None = None
            for rows in _row_tiles(group, request):
                for proposal in _side_by_side(steps, request, name, rows):
                    lacks = proposal.estimate.lacks(chip)
                    if lacks and (request.strict or not request.force):
                        refused.setdefault(name, lacks)
                    elif best is None or proposal.seconds(request) < best.seconds(request):
                        best = proposal
                if best is None or best.turns(request) == 1:
                    # Larger tiles make fewer programs, which these need not be.
                    break
            if best is not None:
                found[name] = best
        except Unsupported as refusal:
            refused[name] = str(refusal)
    if not found:
        raise StrategyError(
            f"no strategy holds this step on {chip.name} ({chip.chip}): "
            + "; ".join(f"{name}: {why}" for name, why in refused.items())
            + ". Narrow the step, compute its contractions in half precision, or run it with model.eager",
            group.scans[0].equation.source,
        )
    name = min(found, key=lambda n: found[n].seconds(request))
    if request.force:
        return found[
            name
        ], "as asked for" if name == request.force else f"{request.force} not: {refused[request.force]}"
    others = [f"{n} {_microseconds(p.seconds(request))}" for n, p in found.items() if n != name]
    others += [f"{n} not: {why}" for n, why in refused.items() if n not in found]
    taken = _microseconds(found[name].seconds(request))
    beside = f" ({'; '.join(others)})" if others else ""
    what = "segment" if _runs_over_segments(parts, group) else "step"
    return found[name], f"a {what} of {request.rows} rows is estimated at {taken}{beside}"


def _runs_over_segments(parts: Partition, group: Group) -> bool:
    """Whether the steps of the outermost loops are segments of a list, which a loop inside of them runs over."""
    inner = [item for scan in group.scans for item in scan.items if isinstance(item, FlatScan)]
    return any(str(scan.level.size) in parts.program.inner for scan in inner)


def _row_tiles(group: Group, request: Request) -> Iterator[int]:
    """The numbers of rows that tiles may have, the smallest first."""
    # A matrix product of a tensor core has sixteen rows or more; where there is none, rows only take registers.
    weights = takes_weights(group)
    rows, most = (16, LARGEST_ROWS) if weights else (1, max(1, LARGEST_ROWS >> 2 * request.lean))
    if request.block:
        yield min(rows, power_of_two(request.block))
        return
    while rows <= most:
        yield rows
        rows *= 2


def _side_by_side(steps: Sequence[Steps], request: Request, name: str, rows: int) -> Iterator[Proposal]:
    """The proposals of a strategy for scans that share a grid: all of them under one placement."""
    if len(steps) == 1:
        yield from PROPOSALS[name](steps[0], request, rows)
        return
    for proposals in zip(*(PROPOSALS[name](each, request, rows) for each in steps)):
        forms = {(p.placement.rows, p.placement.programs, p.placement.resident) for p in proposals}
        if len(forms) == 1:
            slowest = max(proposals, key=lambda p: p.estimate.step)
            warps = max(p.placement.warps for p in proposals)
            placements = [replace(p.placement, warps=warps) for p in proposals]
            placement = replace(placements[0], branches=tuple(placements))
            yield Proposal(placement, tuple(t for p in proposals for t in p.trees), slowest.estimate)


def _needless(found: Mapping[str, Proposal], request: Request) -> bool:
    """Whether no other strategy can be faster than what was found: one program that holds everything on the chip reads
    no weight again, and several meet at a barrier in every step."""
    least = min(proposal.seconds(request) for proposal in found.values())
    return "resident" in found and least <= request.chip.barrier + 2 * LATENCY


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:.2g} µs"
