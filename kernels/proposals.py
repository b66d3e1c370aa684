"""The placements that each strategy proposes for a group, with their loop trees, as large as a program can hold.

The loop tree of a placement says what a program holds and what a step reads, so that `estimate` can tell what the
target lacks and how long a step takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

from ..compiler.primitives.contraction import split
from .axes import Axes, analyse
from .barriers import needs_grid, place_barriers
from .carries import with_rounded_carries
from .estimate import Estimate, estimate
from .expressions import Dimension
from .flat import FlatEquation, FlatScan, FlatValue, Unsupported
from .groups import Group, members
from .loop_tree import Tree
from .meetings import awaited_reductions, cut_classes, cut_reductions
from .partition import Partition
from .placement import DOT, PROGRAM, WAITING, Placement, power_of_two
from .request import BATCHES, READ_AGAIN, Request
from .scheduling import Builder
from .sums import with_independent_sums


@dataclass(frozen=True)
class Proposal:
    """A placement and the loop trees of it: one for each of the scans that stand side by side on the grid."""

    placement: Placement
    trees: tuple[Tree, ...]
    estimate: Estimate

    def turns(self, request: Request) -> int:
        """How often a multiprocessor runs a program for a batch, one after another."""
        place = self.placement
        programs = -(-request.rows // place.rows) * place.programs * place.groups * len(self.trees)
        return -(-programs // request.chip.multiprocessors)

    def seconds(self, request: Request) -> float:
        """Seconds of a step of a batch."""
        return self.turns(request) * self.estimate.step


class Steps:
    """A group, in one of the forms that strategies give it, and its loop trees.

    Attributes:
        group: what is computed.
        axes: its axis classes.
        alone: whether nothing else is computed on the grid.
    """

    def __init__(self, parts: Partition, group: Group, alone: bool = True):
        self.parts, self.group, self.alone = parts, group, alone
        self.axes = analyse(members(group))
        self._builder = Builder(group, self.axes, parts.aliases, parts.over)

    def tree(self, placement: Placement) -> Tree:
        """The loop tree under a placement, with its barriers."""
        tree = self._builder.tree(placement)
        place_barriers(tree, placement)
        return tree

    @cached_property
    def narrowed(self) -> Steps:
        """With carries that a step only rounds carried rounded too."""
        scans = tuple(map(with_rounded_carries, self.group.scans))
        return Steps(self.parts, replace(self.group, scans=scans), self.alone)

    @cached_property
    def apart(self) -> Steps | None:
        """With sums over the spread axis that wait for as few others as can be; None where there are no such sums."""
        scans = self.group.scans
        if self.spread is None or not cut_reductions(scans, self.axes, {self.spread}):
            return None
        over = cut_classes(scans, self.axes, {self.spread})
        scans = tuple(with_independent_sums(scan, self.axes, over) for scan in scans)
        return Steps(self.parts, replace(self.group, scans=scans), self.alone)

    @cached_property
    def spread(self) -> int | None:
        """The class of the largest dimension of the carries."""
        return _spread(self.group, self.axes, set(self.axes.extents))

    def separate(self, request: Request) -> int | None:
        """The class that numbers products of matrices which never meet, such as heads; None where there is no such, or
        where others stand beside it on the grid, or values are stored that lack it."""
        own = [{self.axes.of(value, d) for d in range(len(value.dims))} for value in self.group.targets]
        found = _batched(self.group, self.axes, request) & self.axes.free() - {self.spread}
        return _spread(self.group, self.axes, set.intersection(found, *own)) if self.alone else None


# --- strategies -------------------------------------------------------------------------------------------------------


def _resident(steps: Steps, request: Request, rows: int) -> Iterator[Proposal]:
    """One program owns its rows for all steps, everything on the chip; an axis that is nowhere cut lies on the grid."""
    group, axes = steps.group, steps.axes
    yield _sized(steps, Placement("resident", rows=rows, resident=True), request)
    free = _spread(group, axes, axes.free())
    if free is not None and request.block is None:
        extent = axes.extents[free]
        for block in (1, 32):
            if block < extent:
                spread = {"own": {free: block}, "grid": frozenset((free,)), "programs": -(-extent // block)}
                yield _sized(steps, Placement("resident", rows=rows, resident=True, **spread), request)


def _streamed(steps: Steps, request: Request, rows: int) -> Iterator[Proposal]:
    """One program owns its rows, block by block."""
    steps = steps.narrowed
    group, axes = steps.group, steps.axes
    exact = request.numerics.precision == "ieee" and not _halves(group)
    for block in (request.block,) if request.block else (32,) if exact else (64, 32):
        blocks = {c: block for c, n in axes.extents.items() if isinstance(n, int)}
        reduced = {c: min(block, 32) for c in blocks} if exact else blocks
        own = {**blocks, **dict.fromkeys(_batched(group, axes, request), 1)}
        placement = Placement("streamed", rows=rows, own=own, reduced=reduced, summed=_summed(axes, request))
        yield _sized(steps, replace(placement, **_separated(steps, request)), request)


def _cooperative(steps: Steps, request: Request, rows: int) -> Iterator[Proposal]:
    """Several programs own rows together, each a part of an axis."""
    for placement in _meeting_behind(steps, request, rows):
        yield _sized(steps, placement, request)
    steps = steps.narrowed
    if steps.spread is None:
        raise Unsupported("its carries have no dimension to be spread over programs")
    fits = False
    if steps.apart is not None:
        # One number a program is less to read than all elements, which costs more than another barrier.
        for placement in _over_programs(steps.apart, request, rows):
            if placement.programs > 1:
                numbered = {"grid": placement.grid | {PROGRAM}, "own": {**placement.own, PROGRAM: 1}}
                proposal = _sized(steps.apart, replace(placement, partial=True, **numbered), request)
                fits |= not proposal.estimate.lacks(request.chip)
                yield proposal
    if not fits:
        for placement in _over_programs(steps, request, rows):
            yield _sized(steps, placement, request)


def _over_programs(steps: Steps, request: Request, rows: int) -> Iterator[Placement]:
    """Placements that spread the largest dimension of the carries over programs."""
    group, axes, spread = steps.group, steps.axes, steps.spread
    extent = axes.extents[spread]
    exact = request.numerics.precision == "ieee" and not _halves(group)
    # Blocks of operands that are read again in every step: what a warp's registers hold beside the sums.
    wide = 64 if _halves(group) else 32
    # Tensor cores take sixteen rows; exact products take registers for each.
    rows = max(1, rows >> max(0, request.lean - 1)) if exact else rows
    ints = {c: n for c, n in axes.extents.items() if isinstance(n, int)}
    separated = _separated(steps, request)
    for block in sorted({request.block or 16, min(request.block or 16, max(1, power_of_two(extent) // 4))}):
        programs = -(-extent // block)
        if programs * separated.get("groups", 1) > request.chip.multiprocessors:
            separated = {}
        if programs > request.chip.multiprocessors:
            continue
        own = {**dict.fromkeys(_batched(group, axes, request) - {spread}, 1), spread: block}
        # Fewer elements than programs are rather computed by all of them.
        companions = [c for c in _companions(group, axes, spread) if axes.extents[c] >= programs]
        for other in companions:
            own[other] = power_of_two(-(-axes.extents[other] // programs))
        # Blocks that are loaded together wait once, and take registers and shared memory.
        kinds = ((True, WAITING), (True, WAITING // 4), (False, 0))
        # Blocks that are written one after another, as resident ones are, tempt the compiler to hold many of them.
        for resident, waiting in kinds[-1:] if exact or request.lean >= READ_AGAIN else kinds:
            yield Placement(
                "cooperative",
                rows=rows,
                own=own,
                reduced=dict.fromkeys(ints, 32 if exact else 2 * wide if resident else wide),
                summed=_summed(axes, request),
                resident=resident,
                unrolled=resident,
                grid=frozenset((spread, *companions)),
                programs=programs,
                exchanged=True,
                spacious=request.rows <= BATCHES[-1],
                waiting=waiting,
                **separated,
            )


def _meeting_behind(steps: Steps, request: Request, rows: int) -> Iterator[Placement]:
    """Placements that spread an axis of the carries over programs and hold everything else on the chip, where a step
    reads nothing that is summed over this axis: the programs meet behind the loop, not in every step. The matrix states
    of a delta rule are such, with the keys' gradients as sums over the values' axis."""
    group, axes = steps.group, steps.axes
    carried = [(scan, carry) for scan in group.scans for carry in scan.carries]
    found = {axes.of(carry, d) for scan, carry in carried for d in range(len(scan.levels), len(carry.dims))}
    for number in sorted(found - axes.free() - {None}):
        extent = axes.extents[number]
        if not isinstance(extent, int) or awaited_reductions(group.scans, axes, {number}):
            continue
        for block in (request.block,) if request.block else (64, 32, 16, 8):
            programs = -(-extent // block)
            if 1 < programs <= request.chip.multiprocessors:
                yield Placement(
                    "cooperative",
                    rows=rows,
                    own={number: block, PROGRAM: 1},
                    resident=True,
                    grid=frozenset((number, PROGRAM)),
                    programs=programs,
                    exchanged=True,
                    partial=True,
                    spacious=request.rows <= BATCHES[-1],
                )


def _separated(steps: Steps, request: Request) -> dict[str, int]:
    """What of a placement gives each element of a separate class programs of its own."""
    number = steps.separate(request)
    return {} if number is None else {"separate": number, "groups": steps.axes.extents[number]}


SUMMED = 512
"""The most elements that are summed, or compared, at once: there is no matrix product whose operands they are."""


def _summed(axes: Axes, request: Request) -> dict[int, int]:
    """The blocks of what is summed, where an axis need not be whole."""
    return {c: request.block or SUMMED for c, n in axes.extents.items() if isinstance(n, int)}


def _companions(group: Group, axes: Axes, spread: int) -> list[int]:
    """The other classes of what a step contracts to that can be spread too: no value has two of them."""
    values = [v for scan in group.scans for v in _made(scan)]
    classes = [{axes.of(v, d) for d in range(len(v.dims))} for v in values]
    chosen = [spread]
    for value in values:
        if not (isinstance(value.maker, FlatEquation) and value.maker.equation.op == "contract"):
            continue
        for d in range(len(value.lead), len(value.dims)):
            number = axes.of(value, d)
            if number is None or number in chosen or not isinstance(value.dims[d], int) or value.dims[d] < 2:
                continue
            if not any(number in found and not found.isdisjoint(chosen) for found in classes):
                chosen.append(number)
    return chosen[1:]


def _made(scan: FlatScan) -> Iterator[FlatValue]:
    """The values of a step."""
    yield from scan.carries
    for item in scan.items:
        if isinstance(item, FlatScan):
            yield from _made(item)
        else:
            yield item.output


PROPOSALS: Mapping[str, Callable] = {"resident": _resident, "streamed": _streamed, "cooperative": _cooperative}


def _halves(group: Group) -> bool:
    """Whether the contractions of a step take operands of half precision."""
    return any(
        item.operands[0].value.dtype in ("f16", "bf16")
        for scan in group.scans
        for item in scan.items
        if not isinstance(item, FlatScan) and item.equation.op == "contract"
    )


def _batched(group: Group, axes: Axes, request: Request) -> set[int]:
    """The classes that number products of matrices, such as heads: one at a time, they are tensor cores' work."""
    least = min(DOT, request.block or DOT)
    found = set()
    for scan in group.scans:
        for value in _made(scan):
            maker = value.maker
            if not (isinstance(maker, FlatEquation) and maker.equation.op == "contract" and maker.reduced):
                continue
            if all(reference.lead for reference in maker.operands) or not _wide(maker.reduced, least):
                continue
            left, right, output = split(maker.equation.attributes["spec"])
            both = [output.index(c) for c in output if c in left and c in right]
            rest = [n for d, n in enumerate(value.dims[len(value.lead) :]) if d not in both]
            if both and rest and _wide(rest, least):
                found.update(axes.of(value, len(value.lead) + d) for d in both)
    return found - {None}


def _wide(extents: Sequence[Dimension], least: int) -> bool:
    """Whether a matrix product has as many elements along these dimensions as a tensor core takes."""
    return all(isinstance(n, int) for n in extents) and prod(extents) >= least


def _spread(group: Group, axes: Axes, allowed: set[int]) -> int | None:
    """Of the classes allowed, that of the largest dimension of the carries."""
    best: tuple[int, int] | None = None
    for scan in group.scans:
        for carry in scan.carries:
            classes = [axes.of(carry, d) for d in range(len(scan.levels), len(carry.dims))]
            for number in classes:
                extent = axes.extents.get(number) if number is not None else None
                if number in allowed and isinstance(extent, int) and extent > 1:
                    if best is None or extent > best[0]:
                        best = (extent, number)
    return best[1] if best else None


# --- tiles ------------------------------------------------------------------------------------------------------------


def _sized(steps: Steps, placement: Placement, request: Request) -> Proposal:
    """A placement whose tiles are as large as a program can hold: blocks are halved, the largest first; and the number
    of warps that its tiles want."""
    early, waiting = placement.early >> request.lean, placement.waiting >> request.lean
    placement = replace(placement, early=early, waiting=waiting)
    count = steps.group.rows
    if count and all(isinstance(n, int) for n in count):
        # Where there is one row, no index says which it is.
        placement = replace(placement, rows=min(placement.rows, power_of_two(prod(count))))
    least = _fewest_rows(steps.group, placement, request)
    while True:
        tree = steps.tree(placement)
        if needs_grid(tree) and not placement.exchanged:
            raise Unsupported("programs that were to be independent need one another")
        made = estimate(tree, placement, request)
        if made.largest <= LARGEST_TILE and made.fits(request.chip):
            break
        smaller = _halved(placement, made, least)
        if smaller is None:
            break
        placement = smaller
    if placement.programs > 1 and not needs_grid(tree):
        placement = replace(placement, exchanged=False)
    warps = made.warps(request.chip)
    if warps != placement.warps:
        placement = replace(placement, warps=warps)
        made = estimate(tree, placement, request)
    return Proposal(placement, (tree,), made)


LARGEST_TILE = 16_384
"""The most elements of one tile: beyond it registers run out whatever the number of warps."""


REDUCED_TILE = 4096
"""The most elements of a tile that is reduced, in kernels without a loop over time: several such are read at once."""


def _fewest_rows(group: Group, placement: Placement, request: Request) -> int:
    """The fewest rows that a tile may be halved to: where tensor cores multiply, they are left with their sixteen."""
    exact = request.numerics.precision == "ieee" and not _halves(group)
    return min(placement.rows, DOT) if takes_weights(group) and not exact else 1


def takes_weights(group: Group) -> bool:
    """Whether a step multiplies by matrices that all rows share."""
    return any(
        item.equation.op == "contract" and item.reduced and any(not reference.lead for reference in item.operands)
        for scan in group.scans
        for item in scan.items
        if isinstance(item, FlatEquation)
    )


def _halved(placement: Placement, made: Estimate, least: int) -> Placement | None:
    """The placement with the largest block of the largest tile halved; None where none has more than `least` elements,
    or rows. Lists may have fewer: no tensor core runs over them."""
    axes = [
        a
        for a in made.largest_axes
        if a.role in ("own", "reduced") and placement.block(a) > (least if isinstance(a.extent, int) else 1)
    ]
    if placement.resident and not placement.unrolled:
        # What is whole stays whole; a list never is.
        axes = [a for a in axes if not isinstance(a.extent, int)]
    if axes:
        # By name in the end: a plan does not depend on the order of a set.
        axis = max(axes, key=lambda a: (placement.block(a), a.role == "reduced", a.name))
        name = placement.table(axis)
        table = dict(getattr(placement, name))
        if axis.axis_class is None or not isinstance(axis.extent, int):
            return (
                replace(placement, list_block=max(1, placement.list_block // 2)) if placement.list_block > 1 else None
            )
        if not placement.spread(axis) or axis.role == "reduced":
            table[axis.axis_class] = placement.block(axis) // 2
            return replace(placement, **{name: table})
    if placement.rows > least and any(a.role == "row" for a in made.largest_axes):
        return replace(placement, rows=placement.rows // 2)
    return None


def pointwise(parts: Partition, group: Group, request: Request) -> Proposal:
    """The placement of a group without a loop: rows and blocks of what it stores."""
    steps = Steps(parts, group)
    axes = steps.axes
    own: dict[int, int] = {}
    widest = 1
    for value in group.targets:
        count = 1
        for d in range(len(value.dims) - 1, len(group.rows) - 1, -1):
            n, number = value.dims[d], axes.of(value, d)
            if isinstance(n, int) and number is not None:
                block = max(1, min(power_of_two(n), (request.block or 256) // count))
                own[number] = min(own.get(number, block), block)
                count *= block
        widest = max(widest, count)
    rows = max(1, min(128, 2048 // widest))
    rows = min(rows, power_of_two(request.block)) if request.block else rows
    reduced = {
        c: request.block or 32 for c, n in axes.extents.items() if isinstance(n, int) and (n > 64 or request.block)
    }
    placement = Placement("pointwise", rows=rows, own=own, reduced=reduced, summed=reduced)
    made = _sized(steps, placement, request)
    while made.estimate.largest > REDUCED_TILE and made.placement.rows > 1:
        # Fewer rows are more programs: blocks of what is reduced lie side by side in memory.
        placement = replace(placement, rows=made.placement.rows // 2)
        made = _sized(steps, placement, request)
    return made
