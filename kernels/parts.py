"""Packed axes in parts: where one axis holds several of another one's elements side by side, such as the gates of an
LSTM, and that other one is spread over programs, a program owns its elements of every part.

``x[g * m + j] = x_g[j]`` with j < m: a value along the packed axis is as many values along the other one. A reduction
over the packed axis is one over each part: ``sum_i f(i) = sum_g sum_j f(g * m + j)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

from .axes import Axes
from .elements import REDUCTIONS
from .expressions import Arena, Dimension, Expression
from .flat import FlatEquation, FlatScan, FlatValue, Item


def equations(items: Iterable[Item]) -> Iterable[FlatEquation]:
    """The equations of steps, those of loops inside of them too."""
    for item in items:
        if isinstance(item, FlatScan):
            yield from equations(item.items)
        elif isinstance(item, FlatEquation):
            yield item


def packs(scans: Iterable[FlatScan], axes: Axes, spread: Iterable[int]) -> dict[int, int]:
    """Per class of packed axes, the class of their parts: that of an axis of `spread`. A packed axis is one over which
    the steps reduce, and which they cut into, or put together from, values along the other one."""
    spread = frozenset(spread)
    steps = list(equations(scans))
    reduced = {
        axes.reduced(item, s) for item in steps if item.equation.op in REDUCTIONS for s in range(len(item.reduced))
    }
    found: dict[int, int] = {}
    for item in steps:
        a, output = item.equation.attributes, item.output
        if item.equation.op == "slice":
            whole = item.operands[0].value
            pairs = [(whole, output, start, d) for d, start in enumerate(a["starts"]) if a["strides"][d] == 1]
        elif item.equation.op == "concatenate":
            starts, start = [], 0
            for reference in item.operands:
                starts.append(start)
                start += reference.value.dims[len(reference.lead) + a["axis"]]
            pairs = [(output, r.value, start, a["axis"]) for r, start in zip(item.operands, starts, strict=True)]
        else:
            continue
        for whole, part, start, d in pairs:
            whole_dim, part_dim = len(whole.lead) + d, len(part.lead) + d
            packed, inner = axes.of(whole, whole_dim), axes.of(part, part_dim)
            extents = whole.dims[whole_dim], part.dims[part_dim]
            if (
                packed in reduced
                and inner in spread
                and packed != inner
                and all(isinstance(n, int) for n in extents)
                and extents[0] % extents[1] == 0
                and start % extents[1] == 0
            ):
                found[packed] = inner
    return found


class Parts:
    """The parts of the values of steps.

    Attributes:
        axes: the axis classes of the program.
        packs: per class of packed axes, that of their parts.
        block_of: per value, the loop in whose step it is made; parts are added.
    """

    def __init__(self, axes: Axes, arena: Arena, packs: dict[int, int], block_of: dict[FlatValue, FlatScan | None]):
        self.axes, self.arena, self.packs, self.block_of = axes, arena, packs, block_of
        # Of a part, the value that it is of, and where it begins along the dimensions that it is a part along.
        self._of: dict[FlatValue, tuple[FlatValue, dict[int, int]]] = {}
        self._made: dict[tuple, FlatValue] = {}

    def extent(self, axis_class: int | None, extent: Dimension) -> int | None:
        """The extent of the parts of a packed axis; None where an axis is none."""
        inner = self.axes.extents.get(self.packs.get(axis_class))
        if not isinstance(inner, int) or not isinstance(extent, int) or inner == 1 or extent % inner:
            return None
        return inner

    def axis_class(self, value: FlatValue, dim: int) -> int | None:
        """The class of a dimension of a value, or of a part of one."""
        whole, starts = self._of.get(value, (value, {}))
        number = self.axes.of(whole, dim)
        return self.packs[number] if dim in starts else number

    def take(self, value: FlatValue, indices: Sequence[Expression]) -> tuple[FlatValue, Sequence[Expression]]:
        """The part in which an element of a value lies, and the indices there; the value itself where no part is asked
        for."""
        starts: dict[int, int] = {}
        inside = list(indices)
        for d, index in enumerate(indices):
            first, axis = (index.arguments[0], index.arguments[0].axis) if index.op == "plus" else (index, index.axis)
            extent = self.extent(self.axes.of(value, d), value.dims[d]) if axis is not None else None
            start = index.arguments[1].extra if index.op == "plus" and index.arguments[1].op == "number" else 0
            if extent is not None and axis.extent == extent and start % extent == 0:
                starts[d], inside[d] = start, first
        return (self.part(value, starts), inside) if starts else (value, indices)

    def part(self, value: FlatValue, starts: dict[int, int]) -> FlatValue:
        """The part of a value that begins at these elements."""
        key = (value, tuple(starts.items()))
        if key not in self._made:
            dims = list(value.dims)
            for d in starts:
                dims[d] = self.extent(self.axes.of(value, d), value.dims[d])
            made = FlatValue(value.name, value.dtype, tuple(dims), value.lead, value.maker, value.role)
            made.height = value.height
            self._made[key], self._of[made] = made, (value, starts)
            self.block_of[made] = self.block_of.get(value)
        return self._made[key]

    def whole(self, value: FlatValue, indices: Sequence[Expression]) -> tuple[FlatValue, list[Expression]]:
        """The value that a part is of, and where its element at these indices lies there."""
        whole, starts = self._of.get(value, (value, {}))
        return whole, [self.arena.plus(i, starts.get(d, 0)) for d, i in enumerate(indices)]

    def all(self, value: FlatValue) -> list[FlatValue]:
        """The parts that a value consists of; itself where it is not packed."""
        places: list[list[tuple[int, int]]] = []
        for d, n in enumerate(value.dims):
            extent = self.extent(self.axes.of(value, d), n)
            if extent is not None:
                places.append([(d, start) for start in range(0, n, extent)])
        return [self.part(value, dict(chosen)) for chosen in product(*places)] if places else [value]
