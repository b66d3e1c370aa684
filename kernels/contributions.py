"""What each of the programs that share an axis contributes to a reduction over it, and the reduction of that.

A value is reduced in each program over the elements that it has. What it makes of them is *kept*, beside that of the
others, and what reads the reduction reduces these numbers: in the step, behind a barrier, or, where the steps of a loop
do not wait for it, behind the loop (see `meetings`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from math import prod

from .elements import ELEMENTS, REDUCTIONS
from .expressions import Arena, Axis, Dimension, Expression
from .flat import FlatEquation, FlatScan, FlatValue, Level, Reference
from .meetings import reduced_apart, reductions_behind
from .operations import HALVES
from .parts import Parts
from .placement import PROGRAM, Placement


class Contributions:
    """The part of `expansion.Expansion` that says how programs share reductions: it gives the rest.

    Attributes:
        partials: per reduction that programs take together, what each of them contributes; `partial_of`: back.
        parted: per reduction for which programs meet behind the loop, the list of what they contribute.
        parted_of: back: of such a list, the reduction, and a list of the loop.
        behind: per list that is computed from such, the value that its readers take in its place.
        emitted: of such a value, the loop and what a step of it would emit; `list_of`: the list.
    """

    arena: Arena
    rows: tuple[Axis, ...]
    placement: Placement
    parts: Parts
    kept: dict[FlatValue, None]
    block_of: dict[FlatValue, FlatScan | None]

    def __init__(self) -> None:
        self.partials: dict[FlatValue, FlatValue] = {}
        self.partial_of: dict[FlatValue, FlatValue] = {}
        self.parted: dict[FlatValue, FlatValue] = {}
        self.parted_of: dict[FlatValue, tuple[FlatValue, FlatValue]] = {}
        self.behind: dict[FlatValue, FlatValue] = {}
        self.emitted: dict[FlatValue, tuple[FlatScan, FlatValue]] = {}
        self.list_of: dict[FlatValue, FlatValue] = {}

    # --- what the expansion gives -------------------------------------------------------------------------------------

    def at(self, value: FlatValue, indices: Sequence[Expression], use: str = "") -> Expression:
        """An element of a value."""
        raise NotImplementedError

    def axis(self, role: str, extent: Dimension, axis_class: int | None, slot: int, contracted: bool = False) -> Axis:
        """An axis, one for all that are alike."""
        raise NotImplementedError

    def axis_class(self, value: FlatValue, dim: int) -> int | None:
        """The class of a dimension of a value."""
        raise NotImplementedError

    def demand(self, value: FlatValue) -> None:
        """Keep a value of a step."""
        raise NotImplementedError

    def indices_of(
        self, reference: Reference, levels: Mapping[Level, Expression], own: Sequence[Expression]
    ) -> tuple[Expression, ...]:
        """The indices of an element of an operand."""
        raise NotImplementedError

    def reduced_axes(self, item: FlatEquation, value: FlatValue) -> tuple[list[Axis], list[range]]:
        """The axes that an equation reduces over, and where the parts of each begin."""
        raise NotImplementedError

    # --- in a step ----------------------------------------------------------------------------------------------------

    def cut(self, value: FlatValue, reduced: Sequence[Axis], behind: bool = False) -> int | None:
        """Which of the axes that a value of a step reduces over is spread over the programs that share a tile of rows,
        so that each program reduces its own elements and they exchange the results; None where it is not done so."""
        place = self.placement
        if not place.partial or self.block_of.get(value) is None or value.dtype in HALVES:
            return None
        if any(self.axis_class(value, d) in place.grid for d in range(len(value.dims))):
            return None
        found = [s for s, axis in enumerate(reduced) if axis.axis_class in place.grid]
        behind = behind or value in self.parted
        if len(found) != 1 or not (behind or reduced_apart(value.maker, found[0], self.made)):
            return None
        # What a contraction is taken of in parts is larger than these are.
        lists = any(not isinstance(n, int) for n in value.dims[len(self.rows) :])
        if lists and not place.spacious and value.maker.equation.op != "contract":
            return None
        axis = reduced[found[0]]
        return found[0] if place.once(self.axis("own", axis.extent, axis.axis_class, 0)) else None

    def made(self, value: FlatValue) -> bool:
        """Whether a step makes a value."""
        return self.block_of.get(value) is not None

    def exchanged(self, value: FlatValue, indices: Sequence[Expression], reduced: Sequence[Axis]) -> Expression:
        """A reduction of what the programs contribute to it."""
        item, make = value.maker, self.arena.make
        program = self.axis("reduced", self.placement.programs, PROGRAM, reduced[0].slot)
        number = self.contribution(value, indices, program)
        count = self.share(value)
        if count is not None:
            # The sum of squares in a program is that around the mean there (see `sums`).
            levels, own = dict(zip(value.lead, indices)), indices[len(value.lead) :]
            around, total = (self.indices_of(reference, levels, own) for reference in item.operands[1:])
            around = self.at(item.operands[1].value, around)
            total = self.contribution(item.operands[2].value, total, program)
            size = self.arena.number(float(count), value.dtype)
            distance = make("sub", (make("div", (total, size), None, value.dtype), around), None, value.dtype)
            square = make("mul", (distance, distance), None, value.dtype)
            number = make("add", (number, make("mul", (size, square), None, value.dtype)), None, value.dtype)
        return self.arena.reduce(operation_of(item), (program,), (number,), value.dtype)

    def contribution(self, value: FlatValue, indices: Sequence[Expression], program: Axis) -> Expression:
        """What a program contributes to a reduction."""
        partial = self.partial(value)
        if partial not in self.kept:
            self.demand(partial)
        return self.arena.load(partial, (*indices, self.arena.axis(program)), value.dtype)

    def partial(self, value: FlatValue) -> FlatValue:
        """The value of what each program contributes to a reduction."""
        if value not in self.partials:
            dims = (*value.dims, self.placement.programs)
            partial = replace(value, name=f"{value.name}_partial", dims=dims)
            self.partials[value], self.partial_of[partial] = partial, value
            self.block_of[partial] = self.block_of[value]
        return self.partials[value]

    def share(self, value: FlatValue) -> int | None:
        """Of a sum of squares, how many elements each program has; None where they have more or less, and for any other
        value."""
        item = value.maker
        if item.equation.op != "sum_of_squares":
            return None
        reduced, starts = self.reduced_axes(item, value)
        axis = reduced[self.cut(value, reduced)]
        own = self.axis("own", axis.extent, axis.axis_class, 0)
        if self.placement.block(own) * self.placement.programs != axis.extent:
            return None
        others = prod(a.extent for a in reduced if a is not axis)
        return self.placement.block(own) * others * prod(map(len, starts))

    def around_their_mean(self, sums: Sequence[Expression], count: int) -> list[Expression]:
        """Of sums of a program's elements, the sums of the squares of their distances from the mean of all of them."""
        arena, dtype = self.arena, sums[0].dtype
        total = reduce(lambda x, y: arena.make("add", (x, y), None, dtype), sums)
        mean = arena.make("div", (total, arena.number(float(count), dtype)), None, dtype)
        made = []
        for term in sums:
            operation, axes, _ = term.extra
            distance = arena.make("sub", (term.arguments[0], mean), None, dtype)
            made.append(arena.reduce(operation, axes, (arena.make("mul", (distance, distance), None, dtype),), dtype))
        return made

    # --- behind a loop ------------------------------------------------------------------------------------------------

    def meet_behind(self, around: FlatScan) -> None:
        """Have the loops inside of a step emit what programs contribute to reductions that their own steps do not wait
        for: the programs meet behind such a loop, not in every step of it. With f done to each element by itself, and
        the inner reduction over the elements of one program:

        ``scan (emitting f (reduce op xs)) = map (f . reduce op) . scan (emitting (map (reduce op) xs))``

        Lists of the caller are not made so: they may be long, and each program would have one of its own.
        """
        for scan in around.items:
            if isinstance(scan, FlatScan):
                self.meet_behind(scan)
                self.emit_contributions(scan)

    def emit_contributions(self, scan: FlatScan) -> None:
        """Do so for one loop."""
        for place, reductions in reductions_behind(scan, self.made, self.taken_apart).items():
            value, output = scan.emitted[place].value, scan.outputs[place]
            if any(len(self.parts.all(each)) > 1 for each in (value, *reductions)):
                continue
            for reduction in reductions:
                if reduction not in self.parted:
                    levels = len(scan.levels)
                    own = reduction.dims[levels:]
                    dims = (*output.dims[: levels + 1], *own, self.placement.programs)
                    self.parted[reduction] = replace(reduction, name=f"{reduction.name}_partial", dims=dims, maker=None)
                    self.parted_of[self.parted[reduction]] = reduction, output
                    self.block_of[self.parted[reduction]] = self.block_of[output]
            made = replace(output, role="value", maker=value.maker, height=value.height + 1)
            self.behind[output], self.emitted[made], self.list_of[made] = made, (scan, value), output
            self.block_of[made] = self.block_of[output]

    def taken_apart(self, item: FlatEquation) -> bool:
        """Whether programs take a reduction apart, each over its elements."""
        if item.equation.op == "sum_of_squares" or item.output.lead != self.block_of[item.output].levels:
            return False
        return self.cut(item.output, self.reduced_axes(item, item.output)[0], behind=True) is not None

    def computed_behind(self, scan: FlatScan, value: FlatValue, indices: Sequence[Expression]) -> Expression:
        """An element of a list, of what its programs contributed to it in the steps of a loop.

        Arguments:
            scan, value: the loop, and what its step would emit.
            indices: of the element in the list.
        """
        count = len(scan.levels)
        levels = {**dict(zip(scan.levels, indices)), scan.level: indices[count]}

        found: dict[tuple, Expression] = {}

        def element(value: FlatValue, own: Sequence[Expression]) -> Expression:
            key = (value, tuple(map(id, own)))
            if key not in found:
                found[key] = computed(value, own)
            return found[key]

        def computed(value: FlatValue, own: Sequence[Expression]) -> Expression:
            if value in self.parted:
                program = self.axis("reduced", self.placement.programs, PROGRAM, value.height)
                place = (*indices[: count + 1], *own, self.arena.axis(program))
                number = self.arena.load(self.parted[value], place, value.dtype)
                return self.arena.reduce(operation_of(value.maker), (program,), (number,), value.dtype)
            item = value.maker

            def operand(j: int, own: Sequence[Expression]) -> Expression:
                reference = item.operands[j]
                if self.block_of.get(reference.value) is scan:
                    return element(reference.value, own)
                return self.at(reference.value, self.indices_of(reference, levels, own))

            return ELEMENTS[item.equation.op](self.arena, item.equation, list(own), operand, ())

        return element(value, indices[count + 1 :])


def operation_of(item: FlatEquation) -> str:
    """What an equation reduces by."""
    return REDUCTIONS.get(item.equation.op, "sum")
