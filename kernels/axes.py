"""Which dimensions of a program's values are one axis, which of these are free, and where the others are cut.

Dimensions are unified through every equation that keeps an index as it is, through carries and through what a loop
emits. A class of dimensions that some equation contracts, reduces, cumulates, slices, permutes within or selects from
is *cut* there: elements of it need one another. A class that is nowhere cut is *free*: its elements never meet (the
heads of a block-diagonal recurrence, the units of an IndRNN, the value columns of a delta-rule state), so a grid may
run over it without exchange.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .elements import ELEMENTS
from .expressions import Arena, Axis, Dimension, Expression
from .flat import FlatEquation, FlatScan, FlatValue, Item, Reference


@dataclass(frozen=True)
class Cut:
    """Where elements of an axis need one another.

    Attributes:
        axis_class: the axis.
        value: the operand whose elements are read at other places.
        equation: the equation that reads them, or that makes the value in which an axis stands twice.
        exchanged: whether the operand is computed in the step (otherwise each reader can load what it needs).
    """

    axis_class: int
    value: FlatValue
    equation: FlatEquation | None
    exchanged: bool


@dataclass
class Axes:
    """The axis classes of a set of items.

    Attributes:
        extents: per class, its extent.
        cuts: all of them.
    """

    extents: dict[int, Dimension] = field(default_factory=dict)
    cuts: list[Cut] = field(default_factory=list)
    _of: dict[tuple[int, int], int] = field(default_factory=dict)
    _reduced: dict[tuple[int, int], int] = field(default_factory=dict)

    def of(self, value: FlatValue, dim: int) -> int | None:
        """The class of a dimension of a value; None where nothing in the items reads it."""
        return self._of.get((id(value), dim))

    def reduced(self, equation: FlatEquation, slot: int) -> int | None:
        """The class of an axis that an equation reduces over."""
        return self._reduced.get((id(equation), slot))

    def free(self) -> set[int]:
        """The classes that are nowhere cut."""
        return set(self.extents) - {cut.axis_class for cut in self.cuts}


class _Classes:
    """Union-find over dimensions."""

    def __init__(self) -> None:
        self.parent: dict[object, object] = {}

    def find(self, key: object) -> object:
        root = key
        while self.parent.setdefault(root, root) != root:
            root = self.parent[root]
        while self.parent[key] != root:
            self.parent[key], key = root, self.parent[key]
        return root

    def union(self, left: object, right: object) -> None:
        left, right = self.find(left), self.find(right)
        if left != right:
            self.parent[left] = right


def analyse(items: Iterable[Item], results: Iterable[FlatValue] = ()) -> Axes:
    """The axis classes of items (with what they read), of a kernel or of a whole program.

    Arguments:
        items: equations and scans.
        results: further values whose dimensions shall have a class.

    Example:
        >>> axes = analyse(program.items)
        >>> [axes.extents[c] for c in axes.free()]
        [Named(name='B'), 4]
    """
    work = _Analysis()
    work.items(tuple(items), inside=None)
    for value in results:
        for dim in range(len(value.dims)):
            work.classes.find((id(value), dim))
            work.values[id(value)] = value
    return work.axes()


class _Analysis:
    def __init__(self) -> None:
        self.classes = _Classes()
        self.values: dict[int, FlatValue] = {}
        self.cut: list[tuple[object, FlatValue, FlatEquation, bool]] = []
        self.slots: dict[tuple[int, int], Dimension] = {}

    def items(self, items: Sequence[Item], inside: frozenset[FlatValue] | None) -> None:
        """Add items; `inside` are the values that the steps around them make, None outside of loops."""
        made = None if inside is None else set(inside)
        for item in items:
            if isinstance(item, FlatEquation):
                self.equation(item, made or set())
                if made is not None:
                    made.add(item.output)
            elif isinstance(item, FlatScan):
                self.scan(item, frozenset(made or ()))

    def scan(self, scan: FlatScan, inside: frozenset[FlatValue]) -> None:
        count = len(scan.levels)
        for carry, first, after, last in zip(scan.carries, scan.initial, scan.following, scan.last, strict=True):
            for other in (first, after, Reference(last, scan.levels)):
                self.same(carry, scan.levels, other, len(carry.dims) - count)
        for emitted, output in zip(scan.emitted, scan.outputs, strict=True):
            # The list has one more dimension, that of the loop, behind its levels.
            own = len(output.dims) - count - 1
            for d in range(own):
                self.unify((output, count + 1 + d), (emitted.value, len(emitted.lead) + d))
        self.items(scan.items, inside | frozenset(scan.carries))

    def same(self, value: FlatValue, lead: Sequence, other: Reference, own: int) -> None:
        for d in range(own):
            self.unify((value, len(lead) + d), (other.value, len(other.lead) + d))

    def unify(self, left: tuple[FlatValue, int], right: tuple[FlatValue, int]) -> None:
        for value, _ in (left, right):
            self.values[id(value)] = value
        self.classes.union((id(left[0]), left[1]), (id(right[0]), right[1]))

    def equation(self, item: FlatEquation, made: set[FlatValue]) -> None:
        arena = Arena()
        output = item.output
        lead = len(output.lead)
        own = [Axis(f"o{d}", n, "own") for d, n in enumerate(output.dims)]
        reduced = [Axis(f"r{s}", n, "reduced") for s, n in enumerate(item.reduced)]
        key: dict[Axis, object] = {a: (id(output), d) for d, a in enumerate(own)}
        key.update({a: (id(item), "reduced", s) for s, a in enumerate(reduced)})
        self.values[id(output)] = output
        for s, n in enumerate(item.reduced):
            self.slots[(id(item), s)] = n
        at = dict(zip(output.lead, own))

        def operand(j: int, indices: Sequence[Expression]) -> Expression:
            reference = item.operands[j]
            value = reference.value
            self.values[id(value)] = value
            for d, level in enumerate(reference.lead):
                if level in at:
                    self.classes.union((id(value), d), key[at[level]])
            for d, index in enumerate(indices, len(reference.lead)):
                place = (id(value), d)
                axis = index.axis
                if axis is not None and axis.extent == value.dims[d]:
                    self.classes.union(place, key[axis])
                    if axis.role == "reduced":
                        self.cut.append((place, value, item, value in made))
                elif index.op != "number" or value.dims[d] != 1:
                    # A computed index: whatever stands there may be needed anywhere.
                    self.cut.append((place, value, item, value in made))
                    for other in index.axes:
                        self.cut.append((key[other], value, item, value in made))
            return arena.load(value, (*(arena.number(0) for _ in reference.lead), *indices), value.dtype)

        if item.equation.op not in ELEMENTS:
            return
        ELEMENTS[item.equation.op](arena, item.equation, [arena.axis(a) for a in own[lead:]], operand, reduced)

    def axes(self) -> Axes:
        made = Axes()
        numbers: dict[object, int] = {}

        def number(key: object, extent: Dimension) -> int:
            root = self.classes.find(key)
            if root not in numbers:
                numbers[root] = len(numbers)
                made.extents[numbers[root]] = extent
            return numbers[root]

        for value in self.values.values():
            for dim, extent in enumerate(value.dims):
                made._of[(id(value), dim)] = number((id(value), dim), extent)
        for (item, slot), extent in self.slots.items():
            made._reduced[(item, slot)] = number((item, "reduced", slot), extent)
        for value in self.values.values():
            own = [made._of[(id(value), dim)] for dim in range(len(value.dims))]
            for double in {c for c in own if own.count(c) > 1}:
                # Each of its elements stands beside each of the others.
                made.cuts.append(Cut(double, value, value.maker, False))
        for place, value, equation, exchanged in self.cut:
            root = self.classes.find(place)
            if root in numbers:
                made.cuts.append(Cut(numbers[root], value, equation, exchanged))
        return made
