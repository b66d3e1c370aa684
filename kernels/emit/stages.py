"""Stages in generated text: what one computes, in loops over blocks, and where it goes."""

from __future__ import annotations

from dataclasses import replace

from ..barriers import loaded_values, written_values
from ..expressions import Expression
from ..flat import FlatValue
from ..loop_tree import Barrier, Root, Stage, Storage, Store
from ..operations import BYTES
from ..tiles import Tile, TileDim, broadcast, combine, union
from .reductions import ReductionWriter
from .writer import Scope, shape


class StageWriter(ReductionWriter):
    """Writes stages."""

    def __init__(self, *arguments: object):
        super().__init__(*arguments)
        # The stores that stand behind an arrival at a barrier, and the buffers that are both written and read.
        self.later: list[str] | None = None
        self.shared = written_values(self.tree) & loaded_values(self.tree)

    def arrive(self, barrier: Barrier) -> None:
        """Write that this program has come to a barrier."""
        raise NotImplementedError

    def run_stage(
        self, stage: Stage, alive: Tile | None, first: bool = False, barrier: Barrier | None = None
    ) -> dict[FlatValue, str]:
        """Write a stage, in loops over the blocks of its axes; the names of the next values of carries in registers.

        Arguments:
            stage: the stage.
            alive: the rows that have not ended.
            first: whether it makes first carries.
            barrier: the barrier of the grid that comes after it: the stage arrives there when it has stored what other
                programs read.
        """
        following: dict[FlatValue, str] = {}
        outer, base = self.scopes, self.base
        self.scopes = [*outer, Scope(outer[-1].lines, outer[-1].indent)]
        self.base = len(self.scopes) - 1
        self.made_here = {r.value for r in stage.roots if r.value in self.tree.own}
        self.computed = {}
        self.scope_known.clear()
        self.count_uses(stage)
        axes = [a for a in stage.axes if a.extent != 1]
        looped = [a for a in axes if not self.placement.once(a)]
        opened = [self.open_blocks(a) for a in looped]
        for axis in axes:
            if axis not in looped and not self.bound(axis):
                self.bind_once(axis)
        if looped:
            self.base = len(self.scopes) - 1
        self.later = [] if barrier is not None and not looped else None
        for root in stage.roots:
            self.run_root(root, stage, alive, following, first)
        for axis in looped:
            self.unbind(axis)
        self.close_blocks(opened)
        later, self.later = self.later, None
        if barrier is not None:
            self.arrive(barrier)
        for line in later or ():
            self.write(line)
        # What a row's elements come to, such as their mean, later stages of the step need not sum up again: each value
        # is written by one stage of a step, and before it is read.
        numbers = {t: x for t, x in self.scopes[len(outer)].known.items() if t.op == "reduce" and self.of_rows(t)}
        outer[-1].known.update(numbers)
        self.scopes, self.base = outer, base
        return following

    def of_rows(self, term: Expression) -> bool:
        """Whether a term is one number a row."""
        return all(a.role in ("row", "step") for a in term.axes)

    def count_uses(self, stage: Stage) -> None:
        self.uses = {}
        self.reductions = list(dict.fromkeys(r for root in stage.roots for r in root.expression.reductions))
        todo = [root.expression for root in stage.roots]
        for term in todo:
            self.uses[term] = self.uses.get(term, 0) + 1
        seen: set[Expression] = set()
        while todo:
            term = todo.pop()
            if term in seen:
                continue
            seen.add(term)
            for argument in term.arguments:
                if term.op == "reduce":
                    argument = self.arena.rename(argument, self.alike(argument, term.extra[1]))
                self.uses[argument] = self.uses.get(argument, 0) + 1
                todo.append(argument)

    def stage_dims(self, stage: Stage) -> tuple[TileDim, ...]:
        dims = [self.dims["row"]] if "row" in self.dims else []
        for axis in stage.axes:
            if axis.extent != 1:
                dims.extend(self.axis_tile[axis].dims)
        return tuple(sorted(dims, key=lambda d: d.order))

    def run_root(
        self, root: Root, stage: Stage, alive: Tile | None, following: dict[FlatValue, str], first: bool
    ) -> None:
        dims = self.stage_dims(stage)
        dtype = root.expression.dtype
        tile = self.evaluate(root.expression)
        if root.value is not None and root.value in self.made_here:
            if not tile.text.isidentifier():
                tile = self.assign(root.value.name, tile)
                self.scope.known[root.expression] = tile
            self.computed[root.value] = tile
        for store in root.stores:
            storage = self.tree.storage.get(store.value)
            if storage is None:
                continue
            if storage.kind == "register" and not store.result:
                self.keep(root, store, tile, dims, dtype, following, first)
                continue
            self.store(store, tile, dims, dtype, alive)

    def keep(
        self,
        root: Root,
        store: Store,
        tile: Tile,
        dims: tuple[TileDim, ...],
        dtype: str,
        following: dict[FlatValue, str],
        first: bool,
    ) -> None:
        value = store.value
        if not store.following and not first:
            full = broadcast(tile, dims)
            if not full.text.isidentifier():
                full = self.assign(value.name, full)
            self.held[value] = (full.text, self.base)
            return
        if tile.dims != dims:
            if tile.dims:
                tile = broadcast(tile, dims)
            else:
                tile = Tile(self.filled(tile, dims, value.dtype), dims)
        if first:
            name = self.fresh(value.name)
            self.write(f"{name} = {tile.text}")
            self.held[value] = (name, len(self.scopes) - 2)
            return
        if not tile.text.isidentifier():
            tile = self.assign(f"{value.name}_next", tile)
            self.scope.known[root.expression] = tile
        following[value] = tile.text

    def store(self, store: Store, tile: Tile, dims: tuple[TileDim, ...], dtype: str, alive: Tile | None) -> None:
        value = store.value
        storage = self.tree.storage[value]
        if store.result:
            storage = Storage("buffer", value)
            pointer, offset = self.pointer("buffer", value), self.offset(store.indices, value.dims)
        else:
            pointer, offset = self.address(value, store.indices, store.following)
        if storage.kind == "buffer":
            key = ("buffer", storage.buffer)
            self.pointers[key] = replace(self.pointers[key], written=True)
        axes = {a for i in store.indices for a in i.axes}
        mask = self.mask_of(axes)
        if storage.kind == "buffer":
            for live in (self.row_mask, alive):
                if live is not None and (mask is None or live.text not in mask.text):
                    mask = live if mask is None else combine("&", mask, live)
        elif alive is not None and store.following:
            old_pointer, old = self.address(value, store.indices, False)
            before = self.assign(
                f"{value.name}_before", self.load_text(old_pointer, old, self.mask_of(axes), value.dtype)
            )
            self.read.append((BYTES[value.dtype], *self.times(axes)))
            used = union((alive, tile, before))
            tile = Tile(f"tl.where({alive.at(used)}, {tile.at(used)}, {before.at(used)})", used)
        stored = (BYTES[value.dtype], *self.times(axes))
        private = dict(storage.private)
        counts = self.placement.alike(axes)
        alike = [axis for axis in counts if axis not in private]
        if alike:
            stored = (*stored[: -len(counts)], *(counts[axis] for axis in private))
            # What all programs compute alike is stored by one. The mask is made a tile: a scalar does not combine with
            # one.
            first = dims[:1]
            zeros = f"tl.full({shape(first)}, 0, tl.int32) + " if first else ""
            single = Tile(f"({zeros}{' + '.join(f'tl.program_id({axis})' for axis in alike)}) == 0", first)
            mask = single if mask is None else combine("&", mask, single)
        self.stores.append(stored)
        where = (
            f"{pointer} + {broadcast(offset, dims).text}"
            if offset.dims or not dims
            else f"{pointer} + tl.full({shape(dims)}, {offset.text}, tl.int64)"
        )
        value_text = broadcast(tile, dims).text if tile.dims else tile.text
        if not tile.dims and dims:
            value_text = self.filled(tile, dims, value.dtype)
        end = "" if mask is None else f", mask={mask.at(dims)}"
        line = f"tl.store({where}, {value_text}{end})"
        if self.later is not None and storage.kind == "buffer" and storage.buffer not in self.shared:
            self.later.append(line)
        else:
            self.write(line)
