"""The loop tree: a kernel before it is text.

A tree has row axes (tiles of rows are programs of the grid), and a block of items that run one after another: stages,
sequential loops with a block of their own, barriers. A *stage* computes elements over one domain: tiles of rows times
blocks of its own axes. Everything in a stage that needs no other place's elements stays in registers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

from .expressions import Arena, Axis, Dimension, Expression
from .flat import FlatScan, FlatValue


@dataclass(frozen=True)
class Storage:
    """Where a value lies while a kernel runs.

    Attributes:
        kind: "register" (a tile that its program keeps), "buffer" (a value of the program, `value`'s own or, where a
            scan emits it, the list of it), "scratch" (memory of the launch).
        buffer: the value whose memory it is; of scratch, the value itself.
        parity: the loop whose step says which of two halves of a scratch is meant: what one step writes, another
            program may still read.
        step: of an emitted value, the loop whose index stands behind the rows.
        delayed: of a carry, whose next value goes to the other half.
        shift: of a part of a larger buffer, the dimension along which it lies and where it begins.
        private: of scratch that programs of a tile of rows compute alike, along which axes of the grid, and how many
            these are along each: every one has a copy of its own, and need not meet the others to read it.
        rows: of scratch, how many of its first dimensions are rows of the kernel, where these are not all: tiles of
            rows that it does not vary with have copies of their own, as they may be in other steps.
    """

    kind: str
    buffer: FlatValue | None = None
    parity: FlatScan | None = None
    step: FlatScan | None = None
    delayed: bool = False
    shift: tuple[int, int] | None = None
    private: tuple[tuple[int, int], ...] = ()
    rows: int | None = None

    @property
    def copies(self) -> int:
        """How many copies there are of it."""
        return prod(count for _, count in self.private)


@dataclass(frozen=True)
class Store:
    """Where a root's element goes: a buffer at indices, or the storage of a value in the kernel."""

    value: FlatValue
    indices: tuple[Expression, ...]
    following: bool = False
    """Whether it is the next value of a carry."""
    result: bool = False
    """Whether it is a last carry, handed to the caller."""


@dataclass(eq=False)
class Root:
    """One value that a stage computes.

    Attributes:
        value: the value, if it is one of the program; None for a first carry or a copy.
        axes: its own axes (behind the rows).
        expression: its element.
        stores: where it goes.
        carry: the carry that it is the next (or first) value of, if it stays in registers.
    """

    value: FlatValue | None
    axes: tuple[Axis, ...]
    expression: Expression
    stores: list[Store] = field(default_factory=list)
    carry: list[FlatValue] = field(default_factory=list)


@dataclass(eq=False)
class Stage:
    """Roots over one domain."""

    axes: tuple[Axis, ...]
    roots: list[Root]


@dataclass(eq=False)
class Barrier:
    """A barrier: "program" among the threads of a program, "grid" among the programs that share a tile of rows."""

    kind: str


@dataclass(eq=False)
class Loop:
    """A sequential loop.

    Attributes:
        scan: the scan, or several joined to one.
        items: its body.
        initial: the stages that set the first carries.
        registers: the carries that stay in registers.
    """

    scan: FlatScan
    items: list[Stage | Loop | Barrier]
    initial: list[Stage | Barrier]
    registers: list[FlatValue]

    @property
    def axis(self) -> Axis:
        return self.scan.level.axis

    @property
    def size(self) -> Dimension:
        return self.scan.level.size

    @property
    def reverse(self) -> bool:
        return self.scan.reverse


@dataclass(eq=False)
class Tree:
    """A kernel.

    Attributes:
        arena: of its expressions.
        rows: the row axes.
        items: what runs.
        storage: per value that is loaded or stored, where it lies.
        own: per storage in registers, the axes of the tile.
        alike: per axis class and extent, the axes that run over it, that of stages first: what a program computes along
            one of them serves along the others.
        lists: per size whose lists are of several lengths, the sizes of the lists that these stand in, outermost first,
            each with the row or loop over them; None where a stage's own axis runs over them.
    """

    arena: Arena
    rows: tuple[Axis, ...]
    items: list[Stage | Loop | Barrier]
    storage: dict[FlatValue, Storage]
    own: dict[FlatValue, tuple[Axis, ...]]
    alike: dict[tuple[int | None, Dimension], list[Axis]] = field(default_factory=dict)
    lists: dict[str, tuple[tuple[str, Axis | None], ...]] = field(default_factory=dict)

    def stages(self) -> Iterator[tuple[Stage, tuple[Loop, ...]]]:
        """All stages, each with the loops around it."""
        yield from _stages(self.items, ())

    def loops(self) -> Iterator[Loop]:
        """All loops, outer before inner."""
        yield from _loops(self.items)


def _stages(items: list, around: tuple[Loop, ...]) -> Iterator[tuple[Stage, tuple[Loop, ...]]]:
    for item in items:
        if isinstance(item, Stage):
            yield item, around
        elif isinstance(item, Loop):
            yield from _stages(item.initial, around)
            yield from _stages(item.items, (*around, item))


def _loops(items: list) -> Iterator[Loop]:
    for item in items:
        if isinstance(item, Loop):
            yield item
            yield from _loops(item.items)
