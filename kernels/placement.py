"""Placements: which axis of a loop tree is tiled how.

A placement maps the rows to tiles, each axis that a stage computes over to one block or a loop of blocks, each axis
that is reduced likewise, and at most two axis classes to the programs of the grid: one whose elements need one another,
and one whose elements never meet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .expressions import Axis

DOT = 16
"""The fewest rows, columns and depth of a matrix product."""
PROGRAM = -1
"""The class of the axis whose indices are the programs that share a tile of rows."""
MEETING, SEPARATE = 1, 2
"""The axes of the grid behind that of the tiles of rows: of programs that may need one another, and of those that never
meet."""
EARLY = 32
"""How many registers of a thread hold what is loaded before it is needed."""
WAITING = 64
"""How many registers of a thread hold blocks that are loaded together."""


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << max(0, n - 1).bit_length()


@dataclass(frozen=True)
class Placement:
    """How a loop tree is laid on a grid.

    Attributes:
        strategy: its name.
        rows: how many rows a program owns, a power of two.
        own: per axis class, the block in which a stage computes it; an axis whose block covers it is *whole*.
        reduced: per axis class, the block in which matrix products run over it; `summed`, that of other reductions.
        grid: the axis classes whose blocks are spread over the programs that share a tile of rows; no value has two.
        programs: over how many.
        separate: a class whose elements never meet: each has programs of its own, along the third axis of the grid.
        groups: how many elements that class has.
        exchanged: whether these programs need one another (the class is cut): then they meet at grid barriers.
        partial: whether a reduction over an axis that is spread is taken in each program first, and these then exchange
            one number each; otherwise each program reduces all elements, which are exchanged.
        spacious: whether the batch is so small that every program may have a list of its own in the memory of a launch.
        resident: whether what a loop reads in every step is loaded before it.
        warps, stages: launch options.
        unrolled: whether the blocks of reduced axes are written out one after another, so that what is resident can be
            named block by block.
        list_block: the block of axes whose extent is a list size.
        early, waiting: how many registers of a thread hold what is loaded before it is needed, and blocks that are
            loaded together.
        at_once: where a step makes lists over segments that do not stay on the chip, for how many tiles of rows there
            is memory for them: a group of programs takes several tiles, one after another.
        branches: where several loop trees stand side by side on the grid, the placement of each.
    """

    strategy: str
    rows: int = 16
    own: Mapping[int, int] = field(default_factory=dict)
    reduced: Mapping[int, int] = field(default_factory=dict)
    summed: Mapping[int, int] = field(default_factory=dict)
    grid: frozenset[int] = frozenset()
    programs: int = 1
    separate: int | None = None
    groups: int = 1
    exchanged: bool = False
    partial: bool = False
    spacious: bool = True
    resident: bool = False
    warps: int = 4
    stages: int = 2
    unrolled: bool = False
    list_block: int = 16
    early: int = EARLY
    waiting: int = WAITING
    at_once: int = 1
    branches: tuple[Placement, ...] = ()

    def block(self, axis: Axis) -> int:
        """The number of elements of an axis that are computed, or reduced, at once."""
        table = getattr(self, self.table(axis))
        if not isinstance(axis.extent, int):
            return table.get(axis.axis_class, self.list_block)
        whole = power_of_two(axis.extent)
        return min(table.get(axis.axis_class, whole), whole)

    def table(self, axis: Axis) -> str:
        """Which of the tables of blocks an axis is in."""
        return "own" if axis.role != "reduced" else "reduced" if axis.contracted else "summed"

    def spread(self, axis: Axis) -> bool:
        """Whether the blocks of an axis lie on the programs of the grid: of two that a value has, the first do."""
        return axis.slot == 0 and axis.role == "own" and (axis.axis_class in self.grid or self.separates(axis))

    def separates(self, axis: Axis) -> bool:
        """Whether each element of an axis has programs of its own."""
        return self.separate is not None and axis.axis_class == self.separate

    def sharers(self, axis: Axis) -> int:
        """Over how many programs an axis is spread."""
        return (self.groups if self.separates(axis) else self.programs) if self.spread(axis) else 1

    def alike(self, axes: Iterable[Axis]) -> dict[int, int]:
        """Along which axes of the grid the programs that share a tile of rows compute a value over these axes alike,
        and how many these are."""
        spread = {self.separates(axis) for axis in axes if self.spread(axis)}
        counts = {
            MEETING: self.programs if False not in spread else 1,
            SEPARATE: self.groups if True not in spread else 1,
        }
        return {axis: count for axis, count in counts.items() if count > 1}

    def once(self, axis: Axis) -> bool:
        """Whether a program handles an axis without a loop of blocks."""
        if axis.role in ("row", "step"):
            return True
        if not isinstance(axis.extent, int):
            return False
        if self.spread(axis):
            return self.block(axis) * self.sharers(axis) >= axis.extent
        return self.block(axis) >= axis.extent

    def whole(self, axis: Axis) -> bool:
        """Whether a program holds, in one tile, all elements that are computed along an axis."""
        return (
            self.once(axis) and not self.spread(axis) and not (axis.role == "reduced" and axis.axis_class in self.grid)
        )
