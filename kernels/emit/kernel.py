"""Loop tree → Triton text: stages, loops, barriers, the function around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..expressions import Expression
from ..flat import FlatProgram, FlatValue
from ..kernel import Account, Argument, Kernel, Tiles, collected
from ..loop_tree import Barrier, Loop, Root, Stage, Storage, Store, Tree
from ..operations import BYTES
from ..placement import Placement
from ..tiles import Tile, TileDim, broadcast, combine, union
from .reductions import ReductionWriter
from .writer import Numerics, Scope, shape


def emit(
    trees: Sequence[Tree],
    placement: Placement,
    name: str,
    program: FlatProgram,
    ragged: frozenset[str],
    numerics: Numerics,
) -> tuple[Kernel, dict[str, FlatValue]]:
    """The kernel of loop trees that stand side by side on the grid, usually of one.

    Arguments:
        trees: with their barriers.
        placement: the placement that they were built for.
        name: of the function.
        program: where they come from, for its list sizes.
        ragged: the sizes that have a table of lengths.
        numerics: how contractions are computed.

    Returns:
        The kernel, and per argument that is a buffer the value that lies in it.
    """
    placements = placement.branches or (placement,)
    first: KernelWriter | None = None
    bodies, cooperative = [], False
    for branch, (tree, own) in enumerate(zip(trees, placements, strict=True)):
        writer = KernelWriter(tree, own, name, program, ragged, numerics)
        if first is None:
            first = writer
        else:
            writer.share(first)
        bodies.append(writer.body(branch, len(trees)))
        cooperative |= writer.uses_grid
    arguments = (*first.pointers.values(), *first.sizes.values())
    grid = [Tiles(tuple(a.extent for a in trees[0].rows), placement.rows)]
    if placement.programs > 1 or len(trees) > 1:
        grid.append(Tiles((placement.programs,)))
    if len(trees) > 1:
        grid.append(Tiles((len(trees),)))
    kernel = Kernel(
        name=name,
        source=first.module(_branched(bodies), arguments),
        arguments=arguments,
        grid=tuple(grid),
        warps=placement.warps,
        stages=placement.stages,
        cooperative=cooperative,
        strategy=placement.strategy,
        account=Account(*(collected(getattr(first, kind)) for kind in ("read", "stores", "operations", "barriers"))),
    )
    return kernel, {a.name: value for (kind, value), a in first.pointers.items() if kind == "buffer"}


def _branched(bodies: Sequence[Sequence[str]]) -> list[str]:
    """Bodies of programs that stand side by side on the third axis of the grid."""
    if len(bodies) == 1:
        return list(bodies[0])
    lines = []
    for branch, body in enumerate(bodies):
        lines.append(f"    if tl.program_id(2) == {branch}:")
        lines.extend(f"    {line}" for line in body)
    return lines


class KernelWriter(ReductionWriter):
    """Writes a kernel."""

    def __init__(self, *arguments: object):
        super().__init__(*arguments)
        self.uses_grid = False
        self.branch, self.branches = 0, 1
        self.arrivals = "arrivals"

    def share(self, other: KernelWriter) -> None:
        """Write into the function of another one: its arguments, names and helpers are this one's too."""
        self.taken, self.pointers, self.sizes, self.helpers = other.taken, other.pointers, other.sizes, other.helpers
        other.stored |= self.stored
        self.read, self.stores, self.operations, self.barriers = (
            other.read, other.stores, other.operations, other.barriers
        )  # fmt: skip

    def body(self, branch: int, branches: int) -> list[str]:
        """The lines of the function, or of one of several that stand side by side."""
        self.branch, self.branches = branch, branches
        top = Scope([], 1)
        self.scopes = [top]
        self.arrivals = self.fresh("arrivals")
        self.bind_rows()
        begin = len(top.lines)
        self.run_items(self.tree.items, None)
        if self.uses_grid:
            top.lines.insert(begin, f"    {self.arrivals} = 0")
        return top.lines

    def module(self, body: Sequence[str], arguments: Sequence[Argument]) -> str:
        """The text of the module."""
        sizes = [a.name for a in arguments if a.kind == "size"]
        lines = ["import triton", "import triton.language as tl", ""]
        if self.helpers:
            lines += [f"from foldfuse.kernels.device import {', '.join(sorted(self.helpers))}", ""]
        lines += [
            "",
            f"@triton.jit(do_not_specialize={sizes!r})" if sizes else "@triton.jit",
            f"def {self.name}(",
            *(f"    {a.name}," for a in arguments),
            "):",
            *body,
            "",
        ]
        return "\n".join(lines)

    # --- blocks -------------------------------------------------------------------------------------------------------

    def run_items(self, items: Sequence[Stage | Loop | Barrier], alive: Tile | None) -> dict[FlatValue, str]:
        """Write items; the names of the next values of carries in registers."""
        following: dict[FlatValue, str] = {}
        for item in items:
            if isinstance(item, Barrier):
                self.barrier(item)
            elif isinstance(item, Stage):
                following.update(self.run_stage(item, alive))
            else:
                self.run_loop(item, alive)
        return following

    def barrier(self, barrier: Barrier) -> None:
        """Write a barrier. The programs that share a tile of rows count their arrivals on one counter, which only
        counts up."""
        if barrier.kind == "program":
            self.write("tl.debug_barrier()")
            return
        self.helpers.add("grid_barrier")
        tiles = Tiles(tuple(a.extent for a in self.tree.rows), self.placement.rows)
        pointer = self.pointer("counter", "barrier", extent=(tiles, self.branches), written=True)
        self.uses_grid = True
        self.barriers.append(tuple(s.trips for s in self.scopes if s.axis is not None) or (1,))
        own = "tl.program_id(0)"
        if self.branches > 1:
            own = f"{own} * {self.branches} + {self.branch}"
        self.write(f"{self.arrivals} += {self.placement.programs}")
        self.write(f"grid_barrier({pointer} + {own}, {self.arrivals})")

    def run_loop(self, loop: Loop, around: Tile | None) -> None:
        """Write a sequential loop: the first carries, the steps, and where the last carries are then."""
        scan = loop.scan
        halves = any(s.parity is scan for s in self.tree.storage.values())
        self.halves[scan] = ("0", "0")
        for item in loop.initial:
            if isinstance(item, Barrier):
                self.barrier(item)
            else:
                self.run_stage(item, None, first=True)
        length = self.length_of(loop.size)
        if length is not None and not length.text.isidentifier():
            length = self.assign("length", length)
        steps = self.size(loop.size)
        if length is not None:
            # A tile of rows stops where its longest row does.
            steps = self.assign("steps", Tile(f"tl.max({length.text}, 0)" if length.dims else length.text)).text
        step = self.fresh("step")
        head = f"for {step} in range(0, {steps}):"
        body = Scope([], self.scope.indent + 1, loop.axis, self.padded(loop.size))
        self.scopes = [*self.scopes, body]
        base, self.base = self.base, len(self.scopes) - 1
        start, sign = (f"{steps} - 1", "-") if loop.reverse else ("0", "+")
        t = self.assign(loop.axis.name, Tile(f"tl.full((), {start}, tl.int64) {sign} {step}"))
        self.axis_tile[loop.axis], self.axis_mask[loop.axis] = t, None
        self.axis_scope[loop.axis] = self.base
        if halves:
            half = self.assign("half", Tile(f"(tl.full((), 0, tl.int64) + {step}) & 1"))
            self.halves[scan] = (half.text, f"(1 - {half.text})")
        alive = around
        if length is not None:
            alive = self.assign("alive", combine("<", t, length))
            alive = alive if around is None else self.assign("alive", combine("&", around, alive))
        self.scope_known.clear()
        for carry in loop.registers:
            self.held[carry] = (self.held[carry][0], self.base)
        self.hand_on(self.run_items(loop.items, alive), alive)
        self.scopes, self.base = self.scopes[:-1], base
        self.unbind(loop.axis)
        self.write(head)
        self.scope.lines.extend(body.lines)
        for carry, last in zip(scan.carries, scan.last, strict=True):
            if self.tree.storage[carry].kind == "register":
                self.held[last] = (self.held[carry][0], len(self.scopes) - 1)
        if halves:
            last_half = self.assign("half", Tile(f"(tl.full((), 0, tl.int64) + {steps}) & 1")).text
            self.halves[scan] = (last_half, last_half)

    def hand_on(self, following: dict[FlatValue, str], alive: Tile | None) -> None:
        """Write what the carries in registers are in the next step: rows that have ended keep theirs."""
        updates = {}
        for carry, after in following.items():
            name = self.held[carry][0]
            if after != name:
                updates[name] = after
        # A name that one update reads and another one writes is kept first.
        for name in set(updates) & set(updates.values()):
            kept = self.assign(f"{name}_before", Tile(name)).text
            updates = {n: kept if after == name else after for n, after in updates.items()}
        for carry in following:
            name = self.held[carry][0]
            after = updates.pop(name, None)
            if after is None:
                continue
            if alive is not None:
                dims = self.carry_dims(carry)
                after = f"tl.where({alive.at(dims)}, {after}, {name})"
            self.write(f"{name} = {after}")

    def carry_dims(self, carry: FlatValue) -> tuple[TileDim, ...]:
        dims = [self.dims["row"]] if "row" in self.dims else []
        for axis in self.tree.own[carry]:
            if axis.extent != 1 and self.placement.block(axis) > 1:
                dims.append(self.axis_tile[axis].dims[0])
        return tuple(sorted(dims, key=lambda d: d.order))

    # --- stages -------------------------------------------------------------------------------------------------------

    def run_stage(self, stage: Stage, alive: Tile | None, first: bool = False) -> dict[FlatValue, str]:
        """Write a stage, in loops over the blocks of its axes; the names of the next values of carries in registers."""
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
        for root in stage.roots:
            self.run_root(root, stage, alive, following, first)
        for axis in looped:
            self.unbind(axis)
        self.close_blocks(opened)
        self.scopes, self.base = outer, base
        return following

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
        if self.placement.programs > 1 and not any(a.role == "own" and self.placement.spread(a) for a in axes):
            stored = stored[:-1]
            # What all programs compute alike is stored by one. The mask is made a tile: a scalar does not combine with
            # one.
            first = dims[:1]
            zeros = f"tl.full({shape(first)}, 0, tl.int32) + " if first else ""
            single = Tile(f"({zeros}tl.program_id(1)) == 0", first)
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
        self.write(f"tl.store({where}, {value_text}{end})")
