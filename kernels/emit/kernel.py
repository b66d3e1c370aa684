"""Loop tree → Triton text: loops, barriers, the function around them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ..barriers import barrier_between_tiles, needs_grid
from ..expressions import Axis, Expression, subterms
from ..flat import FlatProgram, FlatValue
from ..kernel import Account, Argument, Kernel, Tiles, collected
from ..loop_tree import Barrier, Loop, Stage, Tree
from ..operations import BYTES
from ..placement import Placement
from ..tiles import Tile, TileDim, combine, one_bit
from .stages import StageWriter
from .writer import Numerics, Scope


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
    writers = [KernelWriter(*pair, name, program, ragged, numerics) for pair in zip(trees, placements, strict=True)]
    listed = any(writer.listed for writer in writers)
    looped = bool(trees[0].rows) and (listed or any(map(needs_grid, trees)))
    for branch, writer in enumerate(writers):
        if first is None:
            first = writer
        else:
            writer.share(first)
        bodies.append(writer.body(branch, len(trees), looped))
        cooperative |= writer.uses_grid
    arguments = (*first.pointers.values(), *first.sizes.values())
    most = placement.at_once if listed else None
    grid = [Tiles(tuple(a.extent for a in trees[0].rows), placement.rows, most)]
    third = max(len(trees), placement.groups)
    if placement.programs > 1 or third > 1:
        grid.append(Tiles((placement.programs,)))
    if third > 1:
        grid.append(Tiles((third,)))
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


def grid_barrier(items: Sequence[Stage | Loop | Barrier]) -> Barrier | None:
    """The barrier of the grid that items begin with, if they do."""
    first = items[0] if items else None
    return first if isinstance(first, Barrier) and first.kind == "grid" else None


def _branched(bodies: Sequence[Sequence[str]]) -> list[str]:
    """Bodies of programs that stand side by side on the third axis of the grid."""
    if len(bodies) == 1:
        return list(bodies[0])
    lines = []
    for branch, body in enumerate(bodies):
        lines.append(f"    if tl.program_id(2) == {branch}:")
        lines.extend(f"    {line}" for line in body)
    return lines


class KernelWriter(StageWriter):
    """Writes a kernel."""

    def __init__(self, *arguments: object):
        super().__init__(*arguments)
        self.uses_grid = False
        self.branch, self.branches = 0, 1
        self.arrivals = "arrivals"
        # The barriers at which this program has arrived before.
        self.arrived: set[Barrier] = set()

    def share(self, other: KernelWriter) -> None:
        """Write into the function of another one: its arguments, names and helpers are this one's too."""
        self.taken, self.pointers, self.sizes, self.helpers = other.taken, other.pointers, other.sizes, other.helpers
        other.stored |= self.stored
        self.read, self.stores, self.operations, self.barriers = (
            other.read, other.stores, other.operations, other.barriers
        )  # fmt: skip

    def body(self, branch: int, branches: int, looped: bool) -> list[str]:
        """The lines of the function, or of one of several that stand side by side; `looped` if there may be fewer
        programs than tiles of rows."""
        self.branch, self.branches = branch, branches
        top = Scope([], 1)
        self.scopes = [top]
        self.arrivals = self.fresh("arrivals")
        head = self.open_tiles() if looped else None
        own = self.scope
        self.bind_rows()
        begin = len(own.lines)
        self.run_items(self.tree.items, None)
        between = barrier_between_tiles(self.tree, self.placement, self.listed) if self.listed else None
        if between is not None:
            self.barrier(Barrier(between))
        if self.uses_grid:
            own.lines.insert(begin, "    " * own.indent + f"{self.arrivals} = 0")
        return [*top.lines, head, *own.lines] if head is not None else top.lines

    def open_tiles(self) -> str:
        """Open a loop over tiles of rows, and give its head: programs that wait for each other all run at once, and
        programs whose lists lie in memory are as many as there is memory for, so there may be fewer of them than tiles.
        What no tile decides, such as weights, stands before the loop."""
        count, total = self.placement.rows, self.row_count()
        tiles = self.assign("tiles", Tile(f"({total} + {count - 1}) // {count}" if count > 1 else total))
        self.tile = self.fresh("tile")
        if self.listed:
            self.bind_place()
        self.scopes = [*self.scopes, Scope([], 2)]
        return f"    for {self.tile} in range(tl.program_id(0), {tiles.text}, tl.num_programs(0)):"

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

    def run_items(
        self, items: Sequence[Stage | Loop | Barrier], alive: Tile | None, after: Barrier | None = None
    ) -> dict[FlatValue, str]:
        """Write items; the names of the next values of carries in registers.

        Arguments:
            items: in order.
            alive: the rows that have not ended.
            after: the barrier of the grid that comes after them, if one does.
        """
        following: dict[FlatValue, str] = {}
        for place, item in enumerate(items):
            if isinstance(item, Barrier):
                if item.kind == "grid":
                    # Memory answers while the programs meet.
                    for term in self.early(items[place + 1 :]):
                        self.evaluate(term)
                self.barrier(item)
            elif isinstance(item, Stage):
                barrier = grid_barrier(items[place + 1 :]) if place + 1 < len(items) else after
                following.update(self.run_stage(item, alive, barrier=barrier))
            else:
                self.run_loop(item, alive)
        if after is not None and not (items and isinstance(items[-1], Stage)):
            self.arrive(after)
        return following

    def arrive(self, barrier: Barrier) -> None:
        """Write that this program has come to a barrier, for which it will wait later."""
        self.helpers.add("arrive")
        self.arrived.add(barrier)
        self.write(f"{self.arrivals} += {self.placement.programs}")
        self.write(f"arrive({self.counter()})")

    def barrier(self, barrier: Barrier) -> None:
        """Write a barrier. The programs that share a tile of rows count their arrivals on one counter, which only
        counts up."""
        if barrier.kind == "program":
            self.write("tl.debug_barrier()")
            return
        self.barriers.append(tuple(s.trips for s in self.scopes if s.axis is not None) or (1,))
        if barrier in self.arrived:
            self.helpers.add("await_arrivals")
            self.write(f"await_arrivals({self.counter()}, {self.arrivals})")
            return
        self.helpers.add("grid_barrier")
        self.write(f"{self.arrivals} += {self.placement.programs}")
        self.write(f"grid_barrier({self.counter()}, {self.arrivals})")

    def counter(self) -> str:
        """The text of the pointer to what counts the arrivals of the programs that share this tile of rows."""
        self.uses_grid = True
        tiles = Tiles(tuple(a.extent for a in self.tree.rows), self.placement.rows)
        third, place = self.branches, str(self.branch)
        if self.placement.groups > 1:
            third, place = self.placement.groups, "tl.program_id(2)"
        pointer = self.pointer("counter", "barrier", extent=(tiles, third), written=True)
        if third == 1:
            return f"{pointer} + {self.tile}"
        return f"{pointer} + (tl.full((), 0, tl.int64) + {self.tile}) * {third} + {place}"

    def run_loop(self, loop: Loop, around: Tile | None) -> None:
        """Write a sequential loop: the first carries, the steps, and where the last carries are then."""
        scan = loop.scan
        halves = any(s.parity is scan for s in self.tree.storage.values())
        self.halves[scan] = ("0", "0")
        # A program comes to the barrier of the first step before the loop, to that of any other in the step before it.
        meeting = grid_barrier(loop.items)
        for place, item in enumerate(loop.initial):
            if isinstance(item, Barrier):
                self.barrier(item)
            else:
                last = place + 1 == len(loop.initial)
                barrier = meeting if last else grid_barrier(loop.initial[place + 1 :])
                self.run_stage(item, None, first=True, barrier=barrier)
        if meeting is not None and meeting not in self.arrived:
            self.arrive(meeting)
        length = self.length_of(loop.size)
        if length is not None and not length.text.isidentifier():
            length = self.assign("length", length)
        steps = self.size(loop.size) if length is None else length.text
        if length is not None and length.dims:
            # A tile of rows stops where its longest row does.
            steps = self.assign("steps", Tile(f"tl.max({length.text}, 0)")).text
        elif length is not None:
            # All rows have one length: none of them ends before the loop does.
            length = None
        step = self.fresh("step")
        head = f"for {step} in range(0, {steps}):"
        body = Scope([], self.scope.indent + 1, loop.axis, self.padded(loop.size))
        self.scopes = [*self.scopes, body]
        base, self.base = self.base, len(self.scopes) - 1
        start, sign = (f"{steps} - 1", "-") if loop.reverse else ("0", "+")
        t = self.assign(loop.axis.name, Tile(f"tl.full((), {start}, tl.int64) {sign} {step}"))
        self.open_axis(loop.axis)
        self.axis_tile[loop.axis], self.axis_mask[loop.axis] = t, None
        self.settle(loop.axis, self.base)
        if halves:
            half = self.assign("half", Tile(f"(tl.full((), 0, tl.int64) + {step}) & 1"))
            self.halves[scan] = (half.text, f"(1 - {half.text})")
        alive = around
        if length is not None:
            alive = self.assign("alive", one_bit(combine("<", t, length)))
            alive = alive if around is None else self.assign("alive", combine("&", around, alive))
            # In rows that have ended, elements of the step are not read.
            self.axis_mask[loop.axis] = alive
        self.scope_known.clear()
        for carry in loop.registers:
            self.held[carry] = (self.held[carry][0], self.base)
        ahead = self.prefetch(loop, step, steps, length)
        self.hand_on(self.run_items(loop.items, alive, meeting), alive)
        for name, following in ahead:
            self.write(f"{name} = {following}")
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

    def early(self, items: Sequence[Stage | Loop | Barrier]) -> list[Expression]:
        """The loads of a step that need not wait for anything: elements of lists that lie there before the kernel runs,
        up to the next barrier of the grid, as many as registers have room for."""
        found: dict[Expression, None] = {}
        room = self.placement.early * 32 * self.placement.warps
        for item in items:
            if isinstance(item, Loop) or (isinstance(item, Barrier) and item.kind == "grid"):
                break
            if isinstance(item, Barrier):
                continue
            for term in subterms(root.expression for root in item.roots):
                if term.op == "load" and term not in found and self.unordered(term):
                    size = prod(self.placement.block(a) for a in term.axes if a.role == "own")
                    size *= self.placement.rows if any(a.role == "row" for a in term.axes) else 1
                    if size <= room and self.find(term) is None:
                        room -= size
                        found[term] = None
        return list(found)

    def unordered(self, term: Expression) -> bool:
        """Whether a load depends on the step and on nothing that the kernel writes, and needs no loop of blocks."""
        storage = self.tree.storage[term.extra]
        return (
            storage.kind == "buffer"
            and storage.buffer not in self.written
            and any(a.role == "step" for a in term.axes)
            and all(a.role in ("row", "step") or (a.role == "own" and self.placement.once(a)) for a in term.axes)
            and not any(self.reads_memory(i) for i in term.arguments)
        )

    def reads_memory(self, term: Expression) -> bool:
        return term.op in ("load", "reduce", "length") or any(self.reads_memory(a) for a in term.arguments)

    def prefetch(self, loop: Loop, step: str, steps: str, length: Tile | None) -> list[tuple[str, str]]:
        """Write the loads of the step after this one at the beginning of a step, so that memory answers while a step is
        computed; those of the first step stand before the loop.

        Arguments:
            loop: whose body is open.
            step: the text of how many steps came before this one.
            steps: the text of how many there are, `length` in each row where they differ.

        Returns:
            The names of the elements of a step, and of those of the step after it.
        """
        terms = self.early(loop.items) if "row" in self.dims else []
        terms = [t for t in terms if any(a.role == "row" for a in t.axes) and loop.axis in t.axes]
        if not terms:
            return []
        axis, body = loop.axis, self.scopes
        now, live = self.axis_tile[axis], self.axis_mask[axis]
        self.scopes = body[:-1]
        first = f"tl.full((), {f'{steps} - 1' if loop.reverse else '0'}, tl.int64)"
        self.bind_step(axis, f"{axis.name}_first", first, "0", steps, length)
        here = self.loads_at_step(terms, axis, [self.hint_of(term.extra) for term in terms])
        self.scopes = body
        index = f"{now.text} {'-' if loop.reverse else '+'} 1"
        self.bind_step(axis, f"{axis.name}_next", index, f"({step} + 1)", steps, length)
        after = self.loads_at_step(terms, axis, [f"{tile.text}_next" for tile in here])
        self.axis_tile[axis], self.axis_mask[axis] = now, live
        self.scope.known.update(zip(terms, here))
        # Both together load the elements of every step once.
        self.read += [(BYTES[term.extra.dtype], *self.times(term.axes)) for term in terms]
        return [(tile.text, following.text) for tile, following in zip(here, after)]

    def bind_step(self, axis: Axis, name: str, index: str, before: str, steps: str, length: Tile | None) -> None:
        """Bind the axis of a loop to the step with as many before it, which may not come: in all rows, or in those that
        have ended."""
        self.axis_tile[axis] = self.assign(name, Tile(index))
        self.settle(axis, len(self.scopes) - 1)
        row = self.axis_tile[self.tree.rows[-1]]
        # A tile, as a scalar condition does not combine with one.
        there = Tile(f"{row.text} * 0 + {before} < {steps}", row.dims)
        if length is not None:
            there = combine("&", there, combine("<", self.axis_tile[axis], length))
        self.axis_mask[axis] = self.assign("there", one_bit(there))

    def loads_at_step(self, terms: Sequence[Expression], axis: Axis, hints: Sequence[str]) -> list[Tile]:
        """Write loads of the step that the axis of a loop is bound to, and give their tiles."""
        tiles = []
        for term, hint in zip(terms, hints, strict=True):
            for other in sorted(term.axes, key=lambda a: a.name):
                if not self.bound(other):
                    self.bind_once(other)
            pointer, offset = self.address(term.extra, term.arguments, False)
            tiles.append(self.assign(hint, self.load_text(pointer, offset, self.mask_of(term.axes), term.extra.dtype)))
        # Indices that are written for this step are no other step's.
        for scope in self.scopes:
            scope.known = {k: v for k, v in scope.known.items() if axis not in k.axes}
        return tiles

    def hand_on(self, following: dict[FlatValue, str], alive: Tile | None) -> None:
        """Write what the carries in registers are in the next step: rows that have ended keep theirs."""
        updates = {}
        for carry, after in following.items():
            name = self.held[carry][0]
            if after != name:
                updates[name] = after
        # A name that one update reads and another one writes is kept first.
        for name in [n for n in updates if n in updates.values()]:
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
