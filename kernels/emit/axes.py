"""Axes in generated text: rows, blocks, lengths of ragged lists, masks."""

from __future__ import annotations

from collections.abc import Sequence

from ...compiler.errors import VerificationError
from ...compiler.sizes import ROWS_OF, TIMES_OF, Constant, Named, Quotient, Size, flat_size, total_of
from ..expressions import Axis, Dimension, Expression, dimension
from ..flat import Unsupported
from ..kernel import Tiles
from ..placement import MEETING, SEPARATE
from ..tiles import Tile, broadcast, combine, one_bit, union
from .writer import ORDER_OF, Scope, Writer, shape

_NOTHING = object()


class AxisWriter(Writer):
    """Binds axes to tiles of indices, each in the scope where it begins to be known."""

    def __init__(self, *arguments: object):
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.axis_tile: dict[Axis, Tile] = {}
        self.axis_mask: dict[Axis, Tile | None] = {}
        self.axis_scope: dict[Axis, int] = {}
        self.axis_home: dict[Axis, Scope] = {}
        self.shadowed: dict[Axis, list[list[tuple[dict, object]]]] = {}
        self.starts: dict[Axis, str | None] = {}
        self.scope_known: dict[tuple[Expression, int, int, int], int] = {}
        self.row_mask: Tile | None = None
        # The first row of a tile, and of its place in the memory for lists: of what varies with no row.
        self.first_row = self.first_place = Tile("0")
        # What tells the tile of rows: a program's place on the grid, or that of a loop over several tiles.
        self.tile = "tl.program_id(0)"
        self.sorted_by = self.ragged_steps()

    def ragged_steps(self) -> str | None:
        """The ragged size that the outermost loop runs over, if it varies with the rows: a row may end early."""
        for loop in self.tree.loops():
            size = dimension(loop.size)
            rows = tuple(str(a.extent) for a in self.tree.rows)
            if isinstance(size, Named) and size.name in self.ragged and self.over[size.name] == rows and len(rows) == 1:
                return size.name
            break
        return None

    def bind_rows(self) -> None:
        rows = self.tree.rows
        if not rows:
            return
        count = self.placement.rows
        looped = self.tile != "tl.program_id(0)"
        program = f"(tl.full((), 0, tl.int64) + {self.tile})" if looped else f"{self.tile}.to(tl.int64)"
        known = len(self.scopes) - 1
        if count == 1:
            row = self.assign("row", Tile(program))
        else:
            d = self.dim("row", count)
            row = self.assign("row", Tile(f"{program} * {count} + tl.arange(0, {count})", (d,)))
        if any(place.rows == 0 for place in self.tree.storage.values()):
            self.first_row = row if count == 1 else self.assign("first_row", Tile(f"{program} * {count}"))
        inside = self.assign("row_mask", Tile(f"{row.text} < {self.row_count()}", row.dims)) if count > 1 else None
        if inside is not None and self.sorted_by is not None:
            # Rows of like length share a tile, which stops where its longest row does.
            order = self.pointer("lengths", f"{ORDER_OF}{self.sorted_by}")
            row = self.assign("row", self.load_text(order, row, inside, "i64"))
        rest = row
        for axis in reversed(rows):
            if axis is rows[0]:
                index = rest if len(rows) == 1 else self.assign(axis.name, rest)
            else:
                extent = self.size(axis.extent)
                index = self.assign(axis.name, Tile(f"{rest.atom} % {extent}", row.dims))
                rest = Tile(f"{rest.atom} // {extent}", row.dims)
            self.axis_tile[axis] = index
            self.settle(axis, known)
        self.row_mask = inside
        for axis in rows:
            self.axis_mask[axis] = inside
        for axis in rows:
            length = self.length_of(axis.extent)
            if length is not None:
                live = combine("<", self.axis_tile[axis], length)
                live = one_bit(live) if self.row_mask is None else combine("&", self.row_mask, live)
                self.row_mask = self.assign("live", live)
        # A row that is not there is not read either: in the last segment of a list it lies behind the list's end.
        for axis in rows:
            self.axis_mask[axis] = self.row_mask

    def bind_place(self) -> None:
        """Write where in the memory for lists this program has those of its rows, and how many rows there is memory
        for."""
        count = self.placement.rows
        number, every = (f"(tl.full((), 0, tl.int64) + tl.{of}(0))" for of in ("program_id", "num_programs"))
        lanes = f"{number} * {count} + tl.arange(0, {count})"
        one = Tile(number) if count == 1 else Tile(lanes, (self.dim("row", count),))
        self.place = self.assign("place", one)
        if any(place.rows == 0 for place in self.tree.storage.values()):
            self.first_place = self.place if count == 1 else self.assign("first_place", Tile(f"{number} * {count}"))
        self.places = self.assign("places", Tile(every if count == 1 else f"{every} * {count}"))

    def row_count(self) -> str:
        """The text of the number of rows."""
        factors = [self.size(a.extent) for a in self.tree.rows]
        sizes = [place for place, a in enumerate(self.tree.rows) if not isinstance(a.extent, int)]
        if sizes and len(factors) > 1:
            # One factor is 64 bits wide, and so is every product with a list size: offsets may pass 2^31.
            size = factors[sizes[0]]
            factors[sizes[0]] = f"{size if size.isidentifier() else f'({size})'}.to(tl.int64)"
        return " * ".join(factors)

    def unbind(self, axis: Axis) -> None:
        """Forget an axis whose loop has ended: it is again that of an open loop before which lines looped too."""
        for table, before in self.shadowed[axis].pop():
            if before is _NOTHING:
                table.pop(axis, None)
            else:
                table[axis] = before
        self.scope_known.clear()

    def open_blocks(self, axis: Axis) -> tuple[str, Scope]:
        """Open a loop over the blocks of an axis; its head and its body."""
        block, extent = self.placement.block(axis), self.size(axis.extent)
        start = self.fresh(f"{axis.name}_start")
        first, stride = "0", block * self.placement.sharers(axis)
        if self.placement.spread(axis):
            # An axis that is separate has one block a program, and no loop.
            first = f"tl.program_id(1) * {block}"
        head = f"for {start} in range({first}, {extent}, {stride}):"
        trips = Tiles((axis.extent,), stride)
        body = Scope([], self.scope.indent + 1, axis, trips)
        self.scopes = [*self.scopes, body]
        self.open_axis(axis)
        self.bind(axis, start)
        return head, body

    def close_blocks(self, opened: list[tuple[str, Scope]]) -> None:
        """Close loops, the last one first."""
        for head, body in reversed(opened):
            self.scopes = self.scopes[:-1]
            self.write(head)
            self.scope.lines.extend(body.lines or ["    " * body.indent + "pass"])

    def open_axis(self, axis: Axis) -> None:
        """Keep what an axis was before a loop binds it."""
        tables = (self.axis_tile, self.axis_mask, self.axis_scope, self.axis_home, self.starts)
        self.shadowed.setdefault(axis, []).append([(table, table.get(axis, _NOTHING)) for table in tables])

    def settle(self, axis: Axis, place: int) -> None:
        """Note in which of the open scopes an axis is known."""
        self.axis_scope[axis], self.axis_home[axis] = place, self.scopes[place]

    def bound(self, axis: Axis) -> bool:
        """Whether an axis is known where the next line is written: what stands before a loop knows nothing of it."""
        place = self.axis_scope.get(axis)
        return place is not None and place < len(self.scopes) and self.scopes[place] is self.axis_home[axis]

    def bind(self, axis: Axis, start: str | None, exact: bool | None = None) -> None:
        """Bind an axis in the innermost scope: a whole tile, or the block that begins at `start`."""
        block = self.placement.block(axis)
        self.settle(axis, len(self.scopes) - 1)
        self.scope_known.clear()
        self.starts[axis] = start
        wide = not isinstance(axis.extent, int)
        if block == 1 and start is not None:
            self.axis_tile[axis], self.axis_mask[axis] = Tile(start), None
            length = self.length_of(axis.extent)
            if length is not None:
                live = one_bit(combine("<", Tile(start), length))
                self.axis_mask[axis] = self.assign(f"{axis.name}_live", live)
            return
        if block == 1:
            self.axis_tile[axis], self.axis_mask[axis] = Tile("0"), None
            return
        d = self.dim(axis, block)
        text = f"tl.arange(0, {block})" if start is None else f"{start} + tl.arange(0, {block})"
        if wide:
            text = f"({text}).to(tl.int64)"
        name = self.assign(axis.name, Tile(text, (d,)))
        self.axis_tile[axis] = name
        if exact is None:
            exact = isinstance(axis.extent, int) and axis.extent % block == 0 and (start is None or self.fits(axis))
        mask = None
        if not exact:
            mask = self.assign(f"{axis.name}_mask", Tile(f"{name.text} < {self.size(axis.extent)}", (d,)))
        self.axis_mask[axis] = mask
        length = self.length_of(axis.extent)
        if length is not None:
            self.axis_mask[axis] = self.assign(f"{axis.name}_live", combine("<", name, length))

    def bind_once(self, axis: Axis) -> None:
        """Bind an axis that needs no loop of blocks, in the outermost scope."""
        if self.bound(axis):
            return
        if not self.placement.once(axis):
            raise VerificationError(f"{axis!r} of kernel {self.name} is read outside of the loop over its blocks")
        stack, self.scopes = self.scopes, self.scopes[:1]
        start = None
        if axis.role == "own" and self.placement.spread(axis):
            number = SEPARATE if self.placement.separates(axis) else MEETING
            block, program = self.placement.block(axis), f"tl.program_id({number})"
            start = f"{program} * {block}" if block > 1 else program
        self.bind(axis, start)
        self.scopes = stack

    def fits(self, axis: Axis) -> bool:
        """Whether the blocks of an axis end where the axis ends."""
        block = self.placement.block(axis)
        if axis.role == "own" and self.placement.spread(axis) and self.placement.once(axis):
            return block * self.placement.sharers(axis) == axis.extent
        return axis.extent % block == 0

    def mask_of(self, axes: Sequence[Axis] | frozenset[Axis]) -> Tile | None:
        masks: dict[str, Tile] = {}
        for axis in axes:
            mask = self.axis_mask.get(axis)
            if mask is not None:
                masks[mask.text] = mask
        out = None
        for mask in sorted(masks.values(), key=lambda m: (m.dims[0].order if m.dims else -1, m.text)):
            out = mask if out is None else combine("&", out, mask)
        return out

    # --- lengths ------------------------------------------------------------------------------------------------------

    def length_of(self, extent: Dimension) -> Tile | None:
        """The length of a ragged size in the rows here; None where it is not ragged."""
        extent = dimension(extent)
        if isinstance(extent, int) or not any(n in self.ragged or n in self.segments for n in extent.names()):
            return None
        return self.evaluate_size(extent)

    def evaluate_size(self, size: Size) -> Tile:
        if isinstance(size, Constant):
            return Tile(str(size.value))
        if isinstance(size, Quotient):
            base = self.evaluate_size(size.base)
            moved = combine("+", base, Tile(str(size.offset))) if size.offset else base
            if size.offset < 0:
                # Clipped before the division: Triton divides towards zero.
                moved = Tile(f"tl.maximum({moved.text}, 0)", moved.dims)
            return combine("//", moved, Tile(str(size.divisor))) if size.divisor != 1 else moved
        assert isinstance(size, Named)
        if size.name in self.segments:
            return self.segment_length(size.name)
        if size.name not in self.ragged:
            return Tile(self.size(size))
        axes: list[Axis] = []
        for outer, axis in self.tree.lists[size.name]:
            axes.append(self.axis_over(size.name, outer, axis, axes))
        key = self.arena.make("lengths", tuple(self.arena.axis(a) for a in axes), size.name, "i64")
        scope = max((self.axis_scope[a] for a in axes), default=0)
        for s in self.scopes:
            if key in s.known:
                return s.known[key]
        pointer = self.pointer("lengths", size.name)
        offset = self.offset([self.arena.axis(a) for a in axes], [a.extent for a in axes])
        mask = self.mask_of(axes)
        text = self.load_text(pointer, offset, mask, "i64")
        tile = self.assign(f"{size.name}_length", text, scope)
        self.scopes[scope].known[key] = tile
        return tile

    def axis_over(self, name: str, outer: str, axis: Axis | None, taken: Sequence[Axis] = ()) -> Axis:
        """The axis over the lists of one size that the lists of another one stand in: a row or loop, or else a stage's
        own.

        Arguments:
            name: of the size.
            outer, axis: one of its entries in the tree's `lists`.
            taken: the axes over the lists further out.
        """
        if axis in self.axis_tile:
            return axis
        bound = next((a for a in self.axis_tile if str(a.extent) == outer and a not in taken), None)
        if bound is None:
            raise Unsupported(f"the lengths of {name} vary with {outer}, over which the kernel has no rows")
        return bound

    def segment_length(self, name: str) -> Tile:
        """The length of the segment here: the last one is shorter."""
        size, length = self.segments[name]
        segment = self.axis_over(name, *self.tree.lists[name][-1])
        start = Tile(f"{self.axis_tile[segment].atom} * {length}", self.axis_tile[segment].dims)
        rest = combine("-", self.evaluate_size(size), start)
        return Tile(f"tl.maximum(tl.minimum({rest.text}, {length}), 0)", rest.dims)

    # --- addresses ----------------------------------------------------------------------------------------------------

    def offset(
        self, indices: Sequence[Expression], extents: Sequence[Dimension], first: Tile | None = None
    ) -> Tile:
        """The offset of an element of a contiguous array; of flat lists, by their tables. `first` is the index along a
        dimension in front of these."""
        out = first
        flat = flat_size(extents, self.flat) if first is None else None
        if flat is not None:
            out = self.flat_offset(flat, indices[0], indices[1])
            indices, extents = indices[2:], extents[2:]
        for index, extent in zip(indices, extents, strict=True):
            tile = self.index(index)
            if out is not None:
                scaled = out if extent == 1 else combine("*", out, Tile(self.size(extent)))
                out = scaled if tile.text == "0" else combine("+", scaled, tile)
            elif tile.text != "0":
                out = tile
        return out or Tile("0")

    def load_text(self, pointer: str, offset: Tile, mask: Tile | None, dtype: str) -> Tile:
        where = pointer if offset.text == "0" else f"{pointer} + {offset.text}"
        if mask is None:
            return Tile(f"tl.load({where})", offset.dims)
        dims = union((offset, mask)) if offset.dims or mask.dims else ()
        if dims and dims != offset.dims:
            # A mask may not have more elements than its pointers.
            where = (
                f"{pointer} + {broadcast(offset, dims).text}"
                if offset.dims
                else f"{pointer} + tl.full({shape(dims)}, {offset.text}, tl.int64)"
            )
        other = "0" if dtype in ("i32", "i64", "bool", "index") else "0.0"
        return Tile(f"tl.load({where}, mask={mask.at(dims)}, other={other})", dims)

    def flat_offset(self, name: str, row: Expression, time: Expression) -> Tile:
        """Where a place in the list of a row lies among the elements of all lists of a flat size."""
        out = self.evaluate(self.arena.make("entry", (row,), f"{ROWS_OF}{name}", "index"))
        if f"{TIMES_OF}{name}" in self.ragged:
            # A step that does not come is asked for too, and a mask over rows would make a tile of one number.
            within = self.arena.make("within", (time,), Named(name), "index")
            out = combine("+", out, self.evaluate(self.arena.make("entry", (within,), f"{TIMES_OF}{name}", "index")))
        else:
            out = combine("+", out, self.index(time))
        if time.axis is None:
            # In rows that have ended, a computed place may lie behind all lists.
            last = f"{self.size(total_of(name))} - 1"
            out = Tile(f"tl.maximum(tl.minimum({out.text}, {last}), 0)", out.dims)
        return out

    def index(self, term: Expression) -> Tile:
        """The tile of an index."""
        raise NotImplementedError

    def evaluate(self, term: Expression) -> Tile:
        """The tile of a term."""
        raise NotImplementedError
