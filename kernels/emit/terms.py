"""Terms in generated text: each written in the outermost scope where everything that it reads is known, once."""

from __future__ import annotations

from collections.abc import Sequence

from ...compiler.sizes import ROWS_OF, flat_size, stored
from ..barriers import own_tile, written_values
from ..expressions import Expression
from ..flat import FlatScan, FlatValue
from ..kernel import Tiles
from ..operations import BYTES, HALVES, TYPES, apply, cast, number, widened
from ..tiles import Tile, combine
from .axes import AxisWriter
from .writer import permutation

FREE = frozenset(("cast", "from_index", "as_index", "length", "clamp", "entry", "within"))
"""Terms that are no arithmetic."""
LONG = 64
"""The longest vector that is kept in registers through a loop."""
WIDTH = 96
"""The longest expression that is written within another one."""


class TermWriter(AxisWriter):
    """Writes terms.

    Attributes:
        held: per value that stays in registers, the name of its tile and the scope that it is known in.
        computed: the values that the stage has computed so far, `made_here` all that it will.
        uses: how often the stage's terms use each other.
        halves: per loop, the texts of the half of a scratch that a step reads, and of the other.
        base: the innermost scope of a stage: what reads memory that the kernel writes stays in it.
    """

    def __init__(self, *arguments: object):
        super().__init__(*arguments)
        self.held: dict[FlatValue, tuple[str, int]] = {}
        self.computed: dict[FlatValue, Tile] = {}
        self.made_here: set[FlatValue] = set()
        self.uses: dict[Expression, int] = {}
        self.written = written_values(self.tree)
        self.halves: dict[FlatScan, tuple[str, str]] = {}
        self.base = 0

    def scope_of(self, term: Expression) -> int:
        """The outermost scope where everything that a term reads is known."""
        key = (term, self.base, len(self.scopes), len(self.axis_scope))
        found = self.scope_known.get(key)
        if found is None:
            found = max((self.axis_scope[a] for a in term.axes if self.bound(a)), default=0)
            if term.op == "load":
                found = max(found, self.load_scope(term.extra), self.base if self.pinned(term) else 0)
            for argument in term.arguments:
                found = max(found, self.scope_of(argument))
            self.scope_known[key] = found
        return found

    def load_scope(self, value: FlatValue) -> int:
        storage = self.tree.storage[value]
        if storage.kind == "register":
            return self.held[value][1] if value in self.held else self.base
        return self.base if storage.buffer in self.written else 0

    def pinned(self, term: Expression) -> bool:
        """Whether a load stays in the innermost loop although it does not change there: registers would be full of it.

        That is a weight which is not resident, and a long vector; what a matrix product takes lies in shared memory.
        """
        if any(a.role == "row" for a in term.axes):
            return False
        blocks = [self.placement.block(a) for a in term.axes if a.role != "step" and self.placement.block(a) > 1]
        if len(blocks) > 1:
            return not self.placement.resident
        return sum(blocks) > LONG

    def find(self, term: Expression) -> Tile | None:
        for scope in reversed(self.scopes):
            if term in scope.known:
                return scope.known[term]
        return None

    def evaluate(self, term: Expression) -> Tile:
        """The tile of a term."""
        if term.op == "number":
            return Tile(number(term.extra, term.dtype))
        if term.op == "axis":
            if not self.bound(term.extra):
                self.bind_once(term.extra)
            return self.axis_tile[term.extra]
        found = self.find(term)
        if found is not None:
            return found
        for axis in sorted(term.axes, key=lambda a: a.name):
            if not self.bound(axis):
                self.bind_once(axis)
        if term.op == "load":
            return self.load(term)
        scope = self.scope_of(term)
        stack = self.scopes
        self.scopes = stack[: scope + 1]
        try:
            if term.op == "reduce":
                return self.reduce(term)
            tile = self.elementwise(term)
            if term.dtype != "index" and term.op not in FREE:
                self.operations.append(self.times(term.axes) or (1,))
            if not tile.dims and len(tile.text) < 24 and term.op not in ("cast",):
                return tile
            if self.uses.get(term, 2) > 1 or len(tile.text) > WIDTH or scope < len(stack) - 1:
                tile = self.assign(self.hint(term), tile)
                self.scope.known[term] = tile
            return tile
        finally:
            self.scopes = stack

    def elementwise(self, term: Expression) -> Tile:
        if term.op == "length":
            tile = self.evaluate_size(term.extra)
            narrow = any(a.name == tile.text for a in self.sizes.values())
            return Tile(f"{tile.text}.to(tl.int64)") if narrow else tile
        if term.op == "entry":
            (index,) = term.arguments
            mask = None if index.op == "within" else self.mask_of(index.axes)
            return self.load_text(self.pointer("lengths", term.extra), self.index(index), mask, "i64")
        tiles = [self.evaluate(a) for a in term.arguments]
        if term.op == "cast":
            (source,) = term.arguments
            tile = self.typed(tiles[0], source.dtype) if source.op == "number" else tiles[0]
            return cast(tile, source.dtype, term.dtype)
        if term.op == "within":
            return Tile(f"tl.maximum(tl.minimum({tiles[0].text}, {self.size(term.extra)} - 1), 0)", tiles[0].dims)
        if term.op == "clamp":
            return self.index(term)
        if term.op in ("as_index", "from_index"):
            if tiles[0].text.lstrip("-").isdigit():
                return tiles[0]
            counted = not tiles[0].text.isidentifier() or tiles[0].text in self.starts.values()
            if not tiles[0].dims and counted:
                # A number made of numbers, or a loop's, may be Python's own, which has no `to`.
                tiles = [Tile(f"tl.full((), 0, tl.int64) + {tiles[0].atom}")]
            return Tile(
                f"{tiles[0].atom}.to({TYPES[term.dtype] if term.op == 'from_index' else 'tl.int64'})", tiles[0].dims
            )
        tiles = [widened(tile, a.dtype) for tile, a in zip(tiles, term.arguments, strict=True)]
        tile, helper = apply(term.op, tiles, term.dtype)
        if helper is not None:
            self.helpers.add(helper)
        if term.op == "uniform":
            return cast(tile, "f32", term.dtype)
        return cast(tile, "f32", term.dtype) if term.dtype in HALVES else tile

    def index(self, term: Expression) -> Tile:
        if term.op == "clamp":
            inner, low, high = (self.index(a) for a in term.arguments)
            return Tile(f"tl.minimum(tl.maximum({inner.text}, {low.text}), {high.text})", inner.dims)
        return self.evaluate(term)

    def hint(self, term: Expression) -> str:
        if term.op in ("plus", "times") and term.arguments[0].axis is not None and term.arguments[1].op == "number":
            name, number = self.axis_tile[term.arguments[0].axis].text, term.arguments[1].extra
            if name.isidentifier() and number >= 0:
                return f"{name}_{number}" if term.op == "plus" else f"{name}_by_{number}"
        if term.op == "entry":
            return "start" if term.extra.startswith(ROWS_OF) else "moved"
        return {"add": "total", "mul": "product", "select": "chosen", "sub": "difference"}.get(term.op, term.op)

    # --- loads --------------------------------------------------------------------------------------------------------

    def load(self, term: Expression) -> Tile:
        value = term.extra
        storage = self.tree.storage[value]
        if value in self.made_here and own_tile(self.tree.own[value], term):
            made = self.computed.get(value)
            if made is not None:
                return made
        if storage.kind == "register":
            return self.relabelled(value, term)
        scope = self.scope_of(term)
        stack = self.scopes
        self.scopes = stack[: scope + 1]
        pointer, offset = self.address(value, term.arguments, False)
        axes = term.axes
        if storage.step is not None and flat_size(storage.buffer.dims, self.flat) is not None:
            # Behind the end of a row there lies another one.
            axes |= {storage.step.level.axis}
        elif storage.kind == "scratch" and value.role == "output" and storage.parity is not None:
            # In rows that have ended, the loop inside of the step made no list.
            axes |= {storage.parity.level.axis}
        tile = self.load_text(pointer, offset, self.mask_of(axes), value.dtype)
        self.read.append((BYTES[value.dtype], *self.times(term.axes)))
        tile = self.assign(self.hint_of(value), tile)
        self.scope.known[term] = tile
        self.scopes = stack
        return tile

    def relabelled(self, value: FlatValue, term: Expression) -> Tile:
        """A held tile under the axes of a use, which may stand in another order: a matrix is also read transposed."""
        axes, (name, _) = self.tree.own[value], self.held[value]
        # Of each dimension, what it was when the tile was made, and what it is now.
        dims = [(self.dims["row"], self.dims["row"])] if "row" in self.dims else []
        indices = term.arguments[len(term.arguments) - len(axes) :] if axes else ()
        for axis, index in zip(axes, indices, strict=True):
            if self.placement.block(axis) > 1:
                dims.append((self.axis_tile[axis].dims[0], self.axis_tile[index.axis].dims[0]))
        now = tuple(label for _, label in sorted(dims, key=lambda pair: pair[0].order))
        ordered = tuple(sorted(now, key=lambda d: d.order))
        return Tile(name if now == ordered else f"tl.permute({name}, {permutation(now, ordered)})", ordered)

    def address(self, value: FlatValue, indices: Sequence[Expression], following: bool) -> tuple[str, Tile]:
        """The pointer and the offset of an element of a value in memory."""
        storage = self.tree.storage[value]
        if storage.kind == "buffer":
            buffer = storage.buffer
            if storage.step is not None:
                rows = len(storage.step.levels)
                indices = (*indices[:rows], self.arena.axis(storage.step.level.axis), *indices[rows:])
            if storage.shift is not None:
                dim, start = storage.shift
                indices = (*indices[:dim], self.arena.plus(indices[dim], start), *indices[dim + 1 :])
            return self.pointer("buffer", buffer), self.offset(indices, buffer.dims)
        buffer, extents = storage.buffer, tuple(a.extent for a in self.tree.rows)
        halves, copies = (2,) if storage.parity is not None else (), (storage.copies,) if storage.private else ()
        varying = len(extents) if storage.rows is None else storage.rows
        own, at = buffer.dims[varying:], indices[varying:]
        if buffer in self.listed:
            tiles = Tiles(extents, self.placement.rows, self.placement.at_once)
            dims, counts = (tiles, self.placement.rows, *own), (self.places.text, *own)
            offset = self.offset(at, own, self.place if varying else self.first_place)
        elif storage.rows is None:
            dims = counts = stored(buffer.dims, self.flat)
            offset = self.offset(indices, buffer.dims)
        else:
            dims = counts = (*extents, *own)
            rows = (*map(self.arena.axis, self.tree.rows), *at)
            offset = self.offset(rows, dims) if varying else self.offset(at, own, self.first_row)
        pointer = self.pointer("scratch", buffer, extent=(*halves, *copies, *dims), written=True)
        current, after = ("0", "0") if storage.parity is None else self.halves[storage.parity]
        copy = after if following else current
        if storage.private:
            program = self.number_among(storage.private)
            atom = f"({program})" if " " in program else program
            copy = f"{atom}.to(tl.int64)" if copy == "0" else f"({copy} * {storage.copies} + {program})"
        if copy == "0":
            return pointer, offset
        factors = [copy, *(n if isinstance(n, str) else self.size(n) for n in counts if n != 1)]
        return pointer, combine("+", Tile(" * ".join(factors)), offset)

    def number_among(self, programs: Sequence[tuple[int, int]]) -> str:
        """The text of a program's number among those along some axes of the grid."""
        text = ""
        for axis, count in programs:
            text = f"{text} * {count} + tl.program_id({axis})" if text else f"tl.program_id({axis})"
        return text

    def reduce(self, term: Expression) -> Tile:
        """The tile of a reduction."""
        raise NotImplementedError
