"""Reductions in generated text: over whole axes, in loops of blocks, block after block; contractions among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import prod

from ..expressions import Axis, Expression, subterms
from ..operations import BYTES, HALVES, TYPES, cast, computed, neutral, widened
from ..tiles import Tile, TileDim, broadcast, call, combine, union
from .terms import TermWriter
from .writer import permutation, shape

HINTS = {"sum": "total", "max": "greatest", "min": "least", "argmax": "position"}


class ReductionWriter(TermWriter):
    """Writes reductions.

    Attributes:
        reductions: those of the stage, inner before outer.
        blocks: per axis, its blocks where they are written one after another.
    """

    def __init__(self, *arguments: object):
        super().__init__(*arguments)
        self.reductions: list[Expression] = []
        self.blocks: dict[Axis, list[Axis]] = {}

    def reduce(self, term: Expression) -> Tile:
        axes = [a for a in term.extra[1] if a.extent != 1]
        looped = [a for a in axes if not self.placement.once(a) and not self.bound(a)]
        if not looped:
            for axis in axes:
                if not self.bound(axis):
                    self.bind_once(axis)
            tile = self.reduced_tile(term, axes)
            tile = self.assign(self.reduction_hint(term), tile)
            self.scope.known[term] = tile
            return tile
        members = self.bundle(term)
        for member in members:
            for inner in member.reductions:
                if inner is not member and all(self.bound(a) or self.placement.once(a) for a in inner.axes):
                    self.evaluate(inner)
        # What is resident is named block by block; other reductions loop.
        if self.placement.unrolled and term.extra[2] and all(isinstance(a.extent, int) for a in looped):
            return self.reduce_unrolled(term, members, axes, looped)
        return self.reduce_in_loop(term, members, axes, looped)

    def reduction_hint(self, term: Expression) -> str:
        return "dot" if term.extra[2] else HINTS.get(term.extra[0], term.extra[0])

    def bundle(self, term: Expression) -> list[Expression]:
        """The reductions of the stage that one loop over the same axes can make together with `term`."""
        out = [term]
        scope = self.scope_of(term)
        for other in self.reductions:
            if other is term or other.extra[1] != term.extra[1] or self.find(other) is not None:
                continue
            if self.placement.unrolled and other.extra[2] != term.extra[2]:
                continue
            if not all(self.bound(a) for a in other.axes) or self.scope_of(other) != scope:
                continue
            if any(v in self.made_here and v not in self.computed for v in other.loads):
                continue
            if any(a in b.reductions or b in a.reductions for a, b in ((other, x) for x in out)):
                continue
            nested = [r for r in other.reductions if r is not other and self.find(r) is None]
            if any(r.extra[1] == term.extra[1] for r in nested):
                continue
            out.append(other)
        return out

    # --- over blocks --------------------------------------------------------------------------------------------------

    def reduce_in_loop(
        self, term: Expression, members: Sequence[Expression], axes: Sequence[Axis], looped: Sequence[Axis]
    ) -> Tile:
        accumulators: dict[Expression, tuple[str, tuple[TileDim, ...]]] = {}
        positions: dict[Expression, str] = {}
        for member in members:
            operation = member.extra[0]
            dims = self.result_dims(member)
            held = computed(member.arguments[0].dtype if operation == "argmax" else member.dtype)
            start = neutral(operation, held)
            extent = shape(dims)
            name = self.assign(self.reduction_hint(member), Tile(f"tl.full({extent}, {start}, {TYPES[held]})", dims))
            accumulators[member] = (name.text, dims)
            if operation == "argmax":
                where = self.assign("position", Tile(f"tl.full({extent}, 0, tl.int64)", dims))
                positions[member] = where.text
        stack = self.scopes
        opened = [self.open_blocks(axis) for axis in looped]
        for axis in axes:
            if axis not in looped and not self.bound(axis):
                self.bind_once(axis)
        for member in members:
            name, dims = accumulators[member]
            self.accumulate(member, name, dims, axes, positions.get(member))
        for axis in looped:
            self.unbind(axis)
        self.close_blocks(opened)
        self.scopes = stack
        for member, (name, dims) in accumulators.items():
            tile = Tile(positions.get(member, name), dims)
            if member.dtype in HALVES:
                tile = self.assign(self.reduction_hint(member), cast(tile, "f32", member.dtype))
            self.scope.known[member] = tile
        return self.scope.known[term]

    def result_dims(self, term: Expression) -> tuple[TileDim, ...]:
        """The dimensions of the tile that a reduction over blocks accumulates in."""
        dims = {d for axis in term.axes for d in self.axis_tile[axis].dims}
        return tuple(sorted(dims, key=lambda d: d.order))

    def accumulate(
        self, member: Expression, name: str, dims: tuple[TileDim, ...], axes: Sequence[Axis], position: str | None
    ) -> None:
        operation = member.extra[0]
        if operation == "argmax":
            value, index = self.argmax_tile(member, axes)
            better = self.assign(
                "better",
                Tile(
                    f"({value.at(dims)} > {name}) | (({value.at(dims)} != {value.at(dims)}) & ({name} == {name}))", dims
                ),
            )
            self.write(f"{position} = tl.where({better.text}, {index.at(dims)}, {position})")
            self.write(f"{name} = tl.where({better.text}, {value.at(dims)}, {name})")
            return
        tile = self.reduced_tile(member, axes)
        part = broadcast(tile, dims).text if tile.dims != dims else tile.text
        if operation == "sum":
            self.write(f"{name} += {part}")
        elif operation == "prod":
            self.write(f"{name} *= {part}")
        else:
            helper = "maximum" if operation == "max" else "minimum"
            self.helpers.add(helper)
            self.write(f"{name} = {helper}({name}, {part})")

    def reduce_unrolled(
        self, term: Expression, members: Sequence[Expression], axes: Sequence[Axis], looped: Sequence[Axis]
    ) -> Tile:
        """A reduction whose blocks are written one after another."""
        for axis in axes:
            if axis not in looped and not self.bound(axis):
                self.bind_once(axis)
        totals: dict[Expression, Tile] = {}
        blocks = [dict(zip(looped, chunks, strict=True)) for chunks in product(*(self.chunks(a) for a in looped))]
        room = 0
        for place, names in enumerate(blocks):
            if room <= 0:
                room = self.load_blocks(members, blocks[place:])
            here = [names.get(a, a) for a in axes]
            for member in members:
                operation, _, contraction = member.extra
                arguments = [self.arena.rename(a, names) for a in member.arguments]
                part = self.arena.reduce(operation, here, arguments, member.dtype, contraction)
                tile = self.reduced_tile(part, here)
                if member in totals:
                    tile = self.joined(operation, totals[member], tile)
                totals[member] = self.assign(self.reduction_hint(member), tile)
            room -= 1
        self.scope.known.update(totals)
        return totals[term]

    def load_blocks(self, members: Sequence[Expression], blocks: Sequence[dict[Axis, Axis]]) -> int:
        """Write what blocks load that rows vary with, for as many blocks as registers hold: their loads then wait for
        memory once, not one after another.

        Returns:
            How many blocks these are, at least one.
        """
        room = self.placement.waiting * 32 * self.placement.warps
        for count, names in enumerate(blocks):
            terms = subterms((self.arena.rename(a, names) for m in members for a in m.arguments), reduced=False)
            varying = [t for t in terms if t.op == "load" and any(a.role == "row" for a in t.axes)]
            loads = [term for term in varying if self.is_memory(term)]
            for term in loads:
                size = prod(self.placement.block(a) for a in term.axes if a.role in ("own", "reduced"))
                room -= self.placement.rows * size * BYTES[term.dtype] // 4
            if room < 0 and count:
                return count
            for term in loads:
                self.evaluate(term)
        return len(blocks)

    def joined(self, operation: str, left: Tile, right: Tile) -> Tile:
        if operation in ("sum", "prod"):
            return combine("+" if operation == "sum" else "*", left, right)
        helper = "maximum" if operation == "max" else "minimum"
        self.helpers.add(helper)
        return call(helper, (left, right))

    def chunks(self, axis: Axis) -> list[Axis]:
        """The blocks of an axis, each as an axis of its own, bound before everything else."""
        if axis not in self.blocks:
            block, made = self.placement.block(axis), []
            for start in range(0, axis.extent, block):
                made.append(replace(axis, name=f"{axis.name}_{start}"))
                stack, self.scopes = self.scopes, self.scopes[:1]
                self.bind(made[-1], str(start), exact=start + block <= axis.extent)
                self.scopes = stack
            self.blocks[axis] = made
        return self.blocks[axis]

    # --- of a tile ----------------------------------------------------------------------------------------------------

    def reduced_tile(self, term: Expression, axes: Sequence[Axis]) -> Tile:
        operation, _, contraction = term.extra
        self.operations.append((2 if contraction else 1, *self.times({*term.axes, *axes})))
        if contraction:
            return self.contraction(term, axes)
        (body,) = term.arguments
        if operation == "argmax":
            return self.argmax_tile(term, axes)[1]
        held = computed(term.dtype)
        tile = widened(self.operand(body, axes), body.dtype)
        tile = self.masked(body, tile, axes, neutral(operation, held))
        over = [self.axis_tile[a].dims[0] for a in self.tiled(axes)]
        dims = tuple(sorted({*tile.dims, *over}, key=lambda d: d.order))
        tile = broadcast(tile, dims)
        out = self.collapse(operation, tile, over)
        return cast(out, held, term.dtype) if term.dtype in ("f16", "bf16") else out

    def operand(self, term: Expression, axes: Sequence[Axis]) -> Tile:
        """What is reduced, along the axes that stages compute: what a program holds whole is computed once."""
        names = self.alike(term, axes)
        if not names:
            return self.evaluate(term)
        tile = self.evaluate(self.arena.rename(term, names))
        for axis in names:
            if not self.bound(axis):
                self.bind_once(axis)
        back = {
            self.axis_tile[new].dims[0]: self.axis_tile[old].dims[0]
            for old, new in names.items()
            if self.axis_tile[old].dims
        }
        dims = tuple(back.get(d, d) for d in tile.dims)
        ordered = tuple(sorted(dims, key=lambda d: d.order))
        if ordered == dims:
            return Tile(tile.text, dims)
        return Tile(f"tl.permute({tile.text}, {permutation(dims, ordered)})", ordered)

    def alike(self, term: Expression, axes: Sequence[Axis]) -> dict[Axis, Axis]:
        """The axes along which the term is computed already, in the place of those that it is reduced over."""
        names: dict[Axis, Axis] = {}
        # An axis that the term itself sums over is no name for another one.
        inner = {axis for reduction in term.reductions for axis in reduction.extra[1]}
        for axis in axes:
            for other in self.tree.alike.get((axis.axis_class, axis.extent), ()):
                if other is axis:
                    break
                taken = term.axes | inner | set(names.values())
                if other not in taken and self.interchangeable(axis, other):
                    names[axis] = other
                    break
        names = {old: new for old, new in names.items() if old in term.axes}
        return names

    def interchangeable(self, axis: Axis, other: Axis) -> bool:
        """Whether a tile along one of two axes of a class is one along the other."""
        whole = self.placement.whole if other.role == "own" else self.placement.once
        return whole(axis) and whole(other) and self.placement.block(axis) == self.placement.block(other)

    def tiled(self, axes: Sequence[Axis]) -> list[Axis]:
        return [a for a in axes if self.axis_tile[a].dims]

    def masked(self, term: Expression, tile: Tile, axes: Sequence[Axis], fill: str) -> Tile:
        """A tile with the reduction's identity where an axis that is reduced has ended."""
        masks = [a for a in axes if self.axis_mask[a] is not None]
        if not masks or (
            term.op == "load" and set(masks) <= term.axes and fill in ("0", "0.0") and self.is_memory(term)
        ):
            return tile
        mask = self.mask_of(masks)
        dims = union((tile, mask))
        out = Tile(f"tl.where({mask.at(dims)}, {tile.at(dims)}, {fill})", dims)
        # A number beside a half-precision tile widens it.
        return Tile(f"{out.text}.to({TYPES[term.dtype]})", dims) if term.dtype in HALVES else out

    def is_memory(self, term: Expression) -> bool:
        return self.tree.storage[term.extra].kind != "register" and term.extra not in self.computed

    def collapse(self, operation: str, tile: Tile, over: Sequence[TileDim]) -> Tile:
        """A tile reduced over some of its dimensions."""
        dims, text = list(tile.dims), tile.text
        for d in sorted(over, key=lambda d: -d.order):
            place = dims.index(d)
            if operation == "sum":
                text = f"tl.sum({text}, {place})"
            else:
                helper = f"reduce_{operation}"
                self.helpers.add(helper)
                text = f"{helper}({text}, {place})"
            dims.remove(d)
        return Tile(text, tuple(dims))

    def argmax_tile(self, term: Expression, axes: Sequence[Axis]) -> tuple[Tile, Tile]:
        """The greatest element of the block, and its index along the whole axis."""
        (body,) = term.arguments
        (axis,) = axes if axes else (None,)
        if axis is None:
            return self.evaluate(body), Tile("0")
        held = computed(body.dtype)
        tile = self.masked(body, widened(self.evaluate(body), body.dtype), axes, neutral("argmax", held))
        if not self.axis_tile[axis].dims:
            return tile, Tile(f"{self.axis_tile[axis].text}")
        over = self.axis_tile[axis].dims[0]
        dims = tuple(sorted({*tile.dims, over}, key=lambda d: d.order))
        tile = self.assign("candidates", broadcast(tile, dims))
        place = dims.index(over)
        rest = tuple(d for d in dims if d is not over)
        self.helpers.update(("reduce_max", "argmax"))
        value = self.assign("greatest", Tile(f"reduce_max({tile.text}, {place})", rest))
        start = f" + {self.starts[axis]}" if self.starts[axis] else ""
        return value, Tile(f"argmax({tile.text}, {place}).to(tl.int64){start}", rest)

    # --- contractions -------------------------------------------------------------------------------------------------

    def contraction(self, term: Expression, axes: Sequence[Axis]) -> Tile:
        left, right = term.arguments
        a, b = self.operand(left, axes), self.operand(right, axes)
        over = [self.axis_tile[x].dims[0] for x in self.tiled(axes)]
        held = computed(term.dtype)
        zero = "0.0" if held in ("f32", "f64") else "0"
        a, b = self.masked(left, a, axes, zero), self.masked(right, b, axes, zero)
        rest_a = [d for d in a.dims if d not in over]
        rest_b = [d for d in b.dims if d not in over]
        if rest_b and (not rest_a or rest_b[0].order < rest_a[0].order):
            left, right, a, b, rest_a, rest_b = right, left, b, a, rest_b, rest_a
        m, n, k = (_count(d) for d in (rest_a, rest_b, over))
        floats = held in ("f32", "f64")
        full = all(d in a.dims and d in b.dims for d in over)
        if floats and full and over and not set(rest_a) & set(rest_b) and min(m, n, k) >= 16:
            return self.dot(term, left, right, a, b, rest_a, rest_b, over)
        a, b = cast(a, left.dtype, held), cast(b, right.dtype, held)
        product = combine("*", a, b)
        dims = tuple(sorted({*product.dims, *over}, key=lambda d: d.order))
        out = self.collapse("sum", broadcast(product, dims), over)
        return cast(out, held, term.dtype)

    def dot(
        self,
        term: Expression,
        left: Expression,
        right: Expression,
        a: Tile,
        b: Tile,
        rest_a: Sequence[TileDim],
        rest_b: Sequence[TileDim],
        over: Sequence[TileDim],
    ) -> Tile:
        m, n, k = _count(rest_a), _count(rest_b), _count(over)
        first = self.matrix(a, (*rest_a, *over), f"[{m}, {k}]", len(rest_a) == len(over) == 1)
        second = self.matrix(b, (*over, *rest_b), f"[{k}, {n}]", len(rest_b) == len(over) == 1)
        held = computed(term.dtype)
        if left.dtype in HALVES and self.numerics.interpreted:
            first, second = f"{first}.to(tl.float32)", f"{second}.to(tl.float32)"
        options = (
            f', input_precision="{self.numerics.precision}"' if left.dtype == "f32" else ', input_precision="ieee"'
        )
        out = f", out_dtype={TYPES[held]}"
        text = f"tl.dot({first}, {second}{options}{out})"
        dims = (*rest_a, *rest_b)
        if len(dims) != 2:
            text = f"tl.reshape({text}, {shape(dims)})"
        tile = Tile(text, dims)
        ordered = tuple(sorted(dims, key=lambda d: d.order))
        if ordered != dims:
            tile = Tile(f"tl.permute({text}, {permutation(dims, ordered)})", ordered)
        return cast(tile, held, term.dtype)

    def matrix(self, tile: Tile, order: Sequence[TileDim], shape: str, flat: bool) -> str:
        """A tile as a matrix whose dimensions are in the given order."""
        text = tile.atom
        if tuple(order) != tile.dims:
            if len(order) == 2:
                text = f"tl.trans({tile.text})"
            else:
                text = f"tl.permute({tile.text}, {permutation(tile.dims, order)})"
        return text if flat else f"tl.reshape({text}, {shape})"


def _count(dims: Sequence[TileDim]) -> int:
    return prod(d.size for d in dims)
