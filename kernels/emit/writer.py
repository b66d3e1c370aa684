"""The text of a kernel while it is written: scopes, names, arguments."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ...compiler.sizes import ROWS_OF, TIMES_OF, Named, Quotient, flat_size, total_of
from ..expressions import Axis, Dimension, Expression, dimension
from ..flat import FlatProgram, FlatValue, origin
from ..kernel import Argument, Factors, Tiles
from ..loop_tree import Tree
from ..operations import DEVICE, HALVES, HELPERS, TYPES, computed
from ..placement import Placement
from ..tiles import Tile, TileDim

ORDER = {"row": 0, "own": 1_000, "reduced": 2_000}
"""Where dimensions of tiles stand: rows in front, reduced axes behind."""


@dataclass(frozen=True)
class Numerics:
    """How contractions are computed.

    Attributes:
        precision: "ieee" or "tf32", of f32 operands.
        interpreted: whether the text is for Triton's interpreter, whose half-precision arithmetic is wrong: operands
            are widened there.
    """

    precision: str = "ieee"
    interpreted: bool = False


@dataclass(eq=False)
class Scope:
    """A stretch of text in which names stay known; of a loop, with its axis and how often it runs."""

    lines: list[str]
    indent: int
    axis: Axis | None = None
    trips: Dimension | Tiles = 1
    known: dict[Expression, Tile] = field(default_factory=dict)


ORDER_OF = "order of "
"""In front of the name of a ragged size: the table of its rows, the longest first."""

_TABLES = {ORDER_OF: "order", ROWS_OF: "rows", TIMES_OF: "times"}


class Writer:
    """The lines written so far, and the arguments that they need.

    Arguments:
        tree: the loop tree, with its barriers.
        placement: the placement that it was built for.
        name: of the function.
        program: where it comes from, for its list sizes.
        ragged: the sizes that have a table of lengths, and the other tables that there are.
        numerics: how contractions are computed.
    """

    def __init__(
        self,
        tree: Tree,
        placement: Placement,
        name: str,
        program: FlatProgram,
        ragged: frozenset[str],
        numerics: Numerics,
    ):
        self.tree, self.placement, self.name, self.arena = tree, placement, name, tree.arena
        self.over, self.segments, self.ragged, self.numerics = program.over, program.segments, ragged, numerics
        self.flat, self.inner = program.flat, program.inner
        self.scopes: list[Scope] = []
        reserved = ("tl", "triton", "float", "range", name, *DEVICE.values(), *HELPERS, *keyword.kwlist)
        self.taken: set[str] = set(reserved)
        self.pointers: dict[tuple[str, object], Argument] = {}
        self.sizes: dict[str, Argument] = {}
        self.helpers: set[str] = set()
        self.stored = {x.value for stage, _ in tree.stages() for root in stage.roots for x in root.stores}
        self.stored |= {s.buffer for s in map(tree.storage.get, self.stored) if s is not None and s.buffer is not None}
        self.listed = self.lists_in_memory()
        self.dims: dict[Axis | str, TileDim] = {}
        self.read: list[Factors] = []
        self.stores: list[Factors] = []
        self.operations: list[Factors] = []
        self.barriers: list[Factors] = []

    def lists_in_memory(self) -> frozenset[FlatValue]:
        """The lists over a segment that a step makes, and that do not stay on the chip: each program has memory for
        those of one tile of rows, whatever the batch. Other lists of a step are as long as lists of the caller."""
        rows = len(self.tree.rows)
        return frozenset(
            place.buffer
            for place in self.tree.storage.values()
            if rows
            and place.kind == "scratch"
            and place.parity is not None
            and any(
                isinstance(n, Named) and n.name in self.inner
                for n in place.buffer.dims[rows if place.rows is None else place.rows :]
            )
            and flat_size(place.buffer.dims, self.flat) is None
        )

    # --- lines --------------------------------------------------------------------------------------------------------

    @property
    def scope(self) -> Scope:
        return self.scopes[-1]

    def write(self, text: str, scope: int | None = None) -> None:
        into = self.scopes[-1 if scope is None else scope]
        into.lines.append("    " * into.indent + text)

    def fresh(self, hint: str) -> str:
        name, count = hint, 1
        while name in self.taken:
            count += 1
            name = f"{hint}_{count}"
        self.taken.add(name)
        return name

    def assign(self, hint: str, tile: Tile, scope: int | None = None) -> Tile:
        name = self.fresh(hint)
        self.write(f"{name} = {tile.text}", scope)
        return Tile(name, tile.dims)

    # --- account ------------------------------------------------------------------------------------------------------

    def times(self, axes: Iterable[Axis], scope: int | None = None) -> Factors:
        """For how many elements of these axes the line that is written next runs, over all programs of a launch."""
        axes = set(axes)
        if any(a.role == "row" for a in axes):
            # A tile of several kinds of rows is one of all of them.
            axes.update(self.tree.rows)
        axes = {a for a in axes if a.extent != 1}
        factors: list[int | Dimension | Tiles] = [self.padded(a.extent) for a in axes]
        for name, outer in self.flat.items():
            if Named(name) in factors and Named(outer) in factors:
                factors.remove(Named(name))
                factors[factors.index(Named(outer))] = total_of(name)
        for loop in self.scopes[1 : None if scope is None else scope + 1]:
            if loop.axis is not None and loop.axis not in axes:
                factors.append(loop.trips)
        if self.tree.rows and not any(a.role == "row" for a in axes):
            # What stands before a loop over tiles is done once by each program.
            before = self.listed and (len(self.scopes) == 1 or scope == 0)
            most = self.placement.at_once if before else None
            factors.append(Tiles(tuple(a.extent for a in self.tree.rows), self.placement.rows, most))
        factors.extend(self.placement.alike(axes).values())
        return tuple(factors)

    # --- arguments ----------------------------------------------------------------------------------------------------

    def size(self, extent: Dimension) -> str:
        """The text of an extent: of padded lists, where it is a list size."""
        extent = dimension(extent)
        if isinstance(extent, int):
            return str(extent)
        if isinstance(extent, Quotient):
            base = self.size(extent.base)
            moved = f"({base} + {extent.offset})" if extent.offset > 0 else f"({base} - {-extent.offset})"
            inner = moved if extent.offset else base
            inner = inner if extent.divisor == 1 else f"({inner} // {extent.divisor})"
            return f"tl.maximum({inner}, 0)" if extent.offset < 0 else inner
        assert isinstance(extent, Named)
        if extent.name in self.segments:
            return str(self.segments[extent.name][1])
        if extent.name not in self.sizes:
            hint = extent.name.replace(" ", "_")
            self.sizes[extent.name] = Argument(self.fresh(hint), "size", "i32", size=extent.name)
        return self.sizes[extent.name].name

    def padded(self, extent: Dimension) -> Dimension:
        """The extent that lists of a size are padded to."""
        extent = dimension(extent)
        if isinstance(extent, Named) and extent.name in self.segments:
            return self.segments[extent.name][1]
        return extent

    def pointer(self, kind: str, value: FlatValue | str, **more: object) -> str:
        """The name of a pointer argument: to a value's buffer or scratch, to a size's lengths, to counters."""
        key = (kind, value)
        if key not in self.pointers:
            if isinstance(value, str):
                hint, dtype = value, "i32" if kind == "counter" else "i64"
                if kind == "lengths":
                    hint = f"{value}_lengths"
                    for prefix, what in _TABLES.items():
                        if value.startswith(prefix):
                            hint = f"{value.removeprefix(prefix)}_{what}"
                more.setdefault("size", value)
            else:
                hint, dtype = self.hint_of(value), value.dtype
                hint = f"{hint}_scratch" if kind == "scratch" else hint
            self.pointers[key] = Argument(self.fresh(f"{hint}_pointer"), kind, dtype, **more)  # type: ignore[arg-type]
        return self.pointers[key].name

    def hint_of(self, value: FlatValue) -> str:
        """What a value is called in the text.

        Layers that are alike give one text: a name is the user's own where the step has it, a weight's, or that of a
        role; never one that depends on where in the program the kernel stands.
        """
        lists = any(not isinstance(n, int) for n in value.dims)
        if not lists and value not in self.stored:
            value = origin(value)
        if value.role in ("input", "table") and not lists:
            return re.sub(r"_?\d+$", "", value.name) or "weight"
        if value in self.stored:
            return value.name if value.name != "value" else "y"
        return "x" if value.role in ("input", "output", "last") or lists else value.name

    # --- tiles --------------------------------------------------------------------------------------------------------

    def dim(self, axis: Axis | str, size: int) -> TileDim:
        order = {"row": 0, "own": 1_000, "reduced": 2_000}[axis.role if isinstance(axis, Axis) else axis]
        key = axis
        if key not in self.dims:
            self.dims[key] = TileDim(size, order + len(self.dims))
        return self.dims[key]

    def filled(self, tile: Tile, dims: Sequence[TileDim], dtype: str) -> str:
        """The text of a tile of one number."""
        full = f"tl.full({shape(dims)}, {tile.text}, {TYPES[computed(dtype)]})"
        return f"{full}.to({TYPES[dtype]})" if dtype in HALVES else full

    def typed(self, tile: Tile, dtype: str) -> Tile:
        """A number as a scalar of a dtype."""
        return Tile(f"tl.full((), {tile.text}, {TYPES[computed(dtype)]})")


def shape(dims: Sequence[TileDim]) -> str:
    """The text of a tile's shape."""
    return "(" + ", ".join(str(d.size) for d in dims) + ("," if len(dims) == 1 else "") + ")"


def permutation(given: Sequence[TileDim], wanted: Sequence[TileDim]) -> str:
    """The text of the permutation that brings dimensions into the wanted order."""
    return "(" + ", ".join(str(list(given).index(d)) for d in wanted) + ")"
