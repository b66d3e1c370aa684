"""From the expanded roots of a launch and a placement to a loop tree: where each value lies, and what runs when.

Whether a kept value stays in registers or goes through memory follows from its uses and the placement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from .axes import Axes
from .expansion import Expansion
from .expressions import Axis, Dimension, Expression
from .flat import FlatScan, FlatValue
from .groups import Alias, Group
from .loop_tree import Loop, Root, Stage, Storage, Tree
from .placement import SEPARATE, Placement


class Builder:
    """Builds the loop trees of a group, under one placement after another.

    Which values are kept, and the expressions of the others, follow from which axes a program holds whole: placements
    that agree there share them.

    Arguments:
        group: what is computed.
        axes: the axis classes of the program.
        aliases: the values that lie inside of others.
        over: per size whose lists are of several lengths, the sizes of the lists that these vary with.

    Example:
        >>> Builder(group, analyse(members(group))).tree(Placement("streamed")).items
        [Loop(...)]
    """

    def __init__(
        self,
        group: Group,
        axes: Axes,
        aliases: Mapping[FlatValue, Alias] | None = None,
        over: Mapping[str, tuple[str, ...]] | None = None,
    ):
        self.group, self.axes, self.aliases, self.over = group, axes, aliases or {}, over or {}
        self._schedulers: list[_Scheduler] = []

    def tree(self, placement: Placement) -> Tree:
        """The loop tree under a placement.

        Raises:
            Unsupported: a step needs what no placement holds.
        """
        for scheduler in self._schedulers:
            if scheduler.serves(placement):
                return scheduler.tree(placement)
        scheduler = _Scheduler(self.group, self.axes, placement, self.aliases, self.over)
        self._schedulers.append(scheduler)
        return scheduler.tree(placement)


class _Scheduler(Expansion):
    """Loop trees of one expansion.

    Arguments:
        aliases: the values that lie inside of others; the rest as of `Expansion`.
    """

    def __init__(
        self,
        group: Group,
        axes: Axes,
        placement: Placement,
        aliases: Mapping[FlatValue, Alias],
        over: Mapping[str, tuple[str, ...]],
    ):
        super().__init__(group, axes, placement, over)
        self.aliases, self.expanded = aliases, (self.roots, self.initial)

    def serves(self, placement: Placement) -> bool:
        """Whether the roots are those of another placement too."""
        own = self.placement
        form = lambda p: (p.grid, p.programs, p.separate, p.groups, p.partial, p.spacious)
        if form(own) != form(placement):
            return False
        return all(
            (own.whole(a), own.once(a), own.spread(a)) == (placement.whole(a), placement.once(a), placement.spread(a))
            and (not own.spread(a) or own.block(a) == placement.block(a))
            for a in self.pool.values()
        )

    def tree(self, placement: Placement) -> Tree:
        """The loop tree under a placement that this expansion serves."""
        self.placement = placement
        # Which stores are left is the tree's own.
        self.roots, self.initial = (
            {scan: [replace(root, stores=list(root.stores)) for root in roots] for scan, roots in table.items()}
            for table in self.expanded
        )
        storage, own = self.storage()
        for root in self.all_roots():
            # A list that a step emits and nothing reads has no place.
            root.stores = [x for x in root.stores if x.value in storage]
            # What is exchanged through the list that it is emitted in is stored once.
            place = lambda x: (storage[x.value].buffer, storage[x.value].shift)
            exchanged = [place(x) for x in root.stores if x.value in self.kept]
            root.stores = [x for x in root.stores if x.value in self.kept or x.following or place(x) not in exchanged]
        items = self.schedule(None, self.group.scans, storage, own)
        first: dict[tuple[int | None, Dimension], list[Axis]] = {}
        for (role, _, _, slot, _), axis in sorted(self.pool.items(), key=lambda item: (item[0][0], item[0][3])):
            if role == "reduced" or slot == 0:
                first.setdefault((axis.axis_class, axis.extent), []).append(axis)
        lists = {name: self.lists_over(name) for name in self.over}
        return Tree(self.arena, self.rows, items, storage, own, first, lists)

    # --- storage ------------------------------------------------------------------------------------------------------

    def storage(self) -> tuple[dict[FlatValue, Storage], dict[FlatValue, tuple[Axis, ...]]]:
        """Where each value lies that is loaded or stored."""
        loads: dict[FlatValue, set[tuple[Expression, ...]]] = {}
        seen: set[Expression] = set()

        def walk(term: Expression) -> None:
            if term in seen:
                return
            seen.add(term)
            if term.op == "load":
                loads.setdefault(term.extra, set()).add(term.arguments)
            for argument in term.arguments:
                walk(argument)

        for root in self.all_roots():
            walk(root.expression)
        storage: dict[FlatValue, Storage] = {}
        own: dict[FlatValue, tuple[Axis, ...]] = {}
        for scan in self.scans():
            for carry, last in zip(scan.carries, scan.last, strict=True):
                axes, _ = self.place(carry, scan.levels)
                uses = loads.get(carry, set()) | loads.get(last, set())
                own[carry] = own[last] = axes
                if 0 in carry.dims:
                    storage[carry] = storage[last] = Storage("scratch", carry)
                elif self.in_registers(axes, uses):
                    storage[carry] = storage[last] = Storage("register")
                else:
                    private = self.copies(axes)
                    storage[carry] = Storage("scratch", carry, parity=scan, delayed=True, private=private)
                    storage[last] = Storage("scratch", carry, parity=scan, private=private)
            for output in scan.outputs:
                if self.block_of.get(output) is not None and output in loads:
                    # A list inside a step: its own steps write it, later stages of the outer step read it.
                    groups = self.copies(self.own_axes(output, len(self.rows)), programs=False)
                    storage[output] = Storage("scratch", output, parity=self.block_of[output], private=groups)
                elif output in self.group.wanted:
                    storage[output] = Storage("buffer", output)
        for parted in self.parted.values():
            storage[parted] = Storage("scratch", parted, parity=self.block_of[parted])
        for value in self.kept:
            scan = self.block_of.get(value)
            axes, _ = self.place(value, value.lead) if scan is not None else (self.own_axes(value, len(self.rows)), ())
            own[value] = axes
            if scan is not None and self.in_registers(axes, loads.get(value, set())):
                storage[value] = Storage("register")
                continue
            # A list that the caller gets is one, and programs that never meet cannot read what others write there.
            alone = SEPARATE in dict(self.copies(axes))
            emitted = None if scan is None or alone else self.emitted_as(scan, value)
            if emitted is not None:
                storage[value] = Storage("buffer", emitted, step=scan)
            elif scan is None and value in self.group.targets:
                storage[value] = Storage("buffer", value)
            else:
                rows = None if scan is None else sum(level in self.row_of for level in value.lead)
                rows = None if rows == len(self.rows) else rows
                storage[value] = Storage("scratch", value, parity=scan, private=self.copies(axes), rows=rows)
        for value in (*self.group.targets, *self.group.wanted):
            if value.role != "last":
                storage.setdefault(value, Storage("buffer", value))
        for value in loads:
            storage.setdefault(value, Storage("buffer", value))
        for value, place in storage.items():
            alias = self.aliases.get(place.buffer) if place.kind == "buffer" else None
            if alias is not None:
                storage[value] = replace(place, buffer=alias.buffer, shift=(alias.dim, alias.offset))
        return storage, own

    def copies(self, axes: Iterable[Axis], programs: bool = True) -> tuple[tuple[int, int], ...]:
        """Along which axes of the grid, and for how many, each program has a copy of what it computes alike over these
        axes: always where programs never meet, and where they do if there is room for it."""
        programs = programs and self.placement.exchanged and self.placement.spacious
        alike = self.placement.alike(axes)
        return tuple((axis, count) for axis, count in alike.items() if axis == SEPARATE or programs)

    def scans(self) -> Iterable[FlatScan]:
        def go(scans: Iterable[FlatScan]) -> Iterable[FlatScan]:
            for scan in scans:
                yield scan
                yield from go(i for i in scan.items if isinstance(i, FlatScan))

        return go(self.group.scans)

    def emitted_as(self, scan: FlatScan, value: FlatValue) -> FlatValue | None:
        """The list that a scan emits a value in, if it is one that the kernel stores: no second copy is kept."""
        for reference, output in zip(scan.emitted, scan.outputs, strict=True):
            whole = len(reference.lead) == len(value.lead) == len(scan.levels)
            if reference.value is value and whole and output in self.group.wanted:
                return output
        return None

    def in_registers(self, axes: Sequence[Axis], uses: Iterable[tuple[Expression, ...]]) -> bool:
        """Whether a tile over `axes` serves all uses."""
        if not all(self.placement.once(a) for a in axes):
            return False
        for use in uses:
            for axis, index in zip(axes, use[len(use) - len(axes) :], strict=True):
                if axis.extent == 1 and index.op == "number":
                    continue
                other = index.axis
                if other is None or other.role in ("row", "step") or other.extent != axis.extent:
                    return False
                same = other is axis or (other.axis_class == axis.axis_class and self.placement.spread(other))
                if self.placement.spread(axis):
                    if not same:
                        return False
                elif not self.placement.whole(other) or self.placement.block(other) != self.placement.block(axis):
                    return False
        return True

    # --- order --------------------------------------------------------------------------------------------------------

    def schedule(
        self,
        scan: FlatScan | None,
        inner: Sequence[FlatScan],
        storage: dict[FlatValue, Storage],
        own: dict[FlatValue, tuple[Axis, ...]],
    ) -> list[Stage | Loop]:
        """The items of a block, in order."""
        roots = self.roots.get(scan, [])
        maker: dict[FlatValue, Root] = {r.value: r for r in roots if r.value is not None and r.value in self.kept}
        loop_of = {v: s for s in inner for v in (*s.last, *s.outputs)}
        loop_of.update((parted, s) for r, parted in self.parted.items() for s in inner if self.block_of[r] is s)
        level: dict[Root | FlatScan, int] = {}

        def level_of(node: Root | FlatScan) -> int:
            if node in level:
                return level[node]
            level[node] = 0
            needs: set[FlatValue] = set()
            if isinstance(node, Root):
                needs = set(node.expression.loads)
            else:
                for r in self.inside(node):
                    needs.update(r.expression.loads)
            found = 0
            for value in needs:
                if value in maker and maker[value] is not node:
                    other = maker[value]
                    together = (
                        isinstance(node, Root) and wide(other.axes) == wide(node.axes) and self.own_use(node, value)
                    )
                    found = max(found, level_of(other) + (0 if together else 1))
                elif value in loop_of and loop_of[value] is not node:
                    found = max(found, level_of(loop_of[value]) + 1)
            level[node] = found
            return found

        for node in (*roots, *inner):
            level_of(node)
        items: list[Stage | Loop] = []
        for depth in sorted(set(level.values())):
            stages: dict[tuple[Axis, ...], Stage] = {}
            for root in roots:
                if level[root] == depth:
                    axes = wide(root.axes)
                    stages.setdefault(axes, Stage(axes, [])).roots.append(root)
            for stage in stages.values():
                stage.roots = self.ordered(stage.roots, maker)
            # One barrier serves all that programs contribute before it.
            items.extend(sorted(stages.values(), key=self.joins))
            for other in inner:
                if level[other] == depth:
                    items.append(self.loop(other, storage, own))
        return items

    def joins(self, stage: Stage) -> bool:
        """Whether a stage reads what several programs contributed to a reduction."""
        return any(v in self.partial_of or v in self.parted_of for r in stage.roots for v in r.expression.loads)

    def own_use(self, root: Root, value: FlatValue) -> bool:
        """Whether a root reads a kept value only where the value's own stage computes it."""
        _, index = (
            self.place(value, value.lead)
            if self.block_of.get(value) is not None
            else ((), (*self.row_index, *map(self.arena.axis, self.own_axes(value, len(self.rows)))))
        )
        found = True
        seen: set[Expression] = set()

        def walk(term: Expression) -> None:
            nonlocal found
            if term in seen or value not in term.loads:
                return
            seen.add(term)
            if term.op == "load" and term.extra is value and term.arguments != index:
                found = False
            for argument in term.arguments:
                walk(argument)

        walk(root.expression)
        return found

    def inside(self, scan: FlatScan) -> Iterable[Root]:
        """The roots in a scan's step and before it."""
        yield from self.initial[scan]
        yield from self.roots[scan]
        for item in scan.items:
            if isinstance(item, FlatScan):
                yield from self.inside(item)

    def ordered(self, roots: Sequence[Root], maker: dict[FlatValue, Root]) -> list[Root]:
        """The roots of a stage, each after those that it reads."""
        out: list[Root] = []

        def visit(root: Root) -> None:
            if root in out:
                return
            for value in root.expression.loads:
                other = maker.get(value)
                if other is not None and other is not root and other in roots:
                    visit(other)
            out.append(root)

        for root in roots:
            visit(root)
        return out

    def loop(self, scan: FlatScan, storage: dict[FlatValue, Storage], own: dict[FlatValue, tuple[Axis, ...]]) -> Loop:
        inner = [i for i in scan.items if isinstance(i, FlatScan)]
        items = self.schedule(scan, inner, storage, own)
        stages: dict[tuple[Axis, ...], Stage] = {}
        for root in self.initial[scan]:
            stages.setdefault(wide(root.axes), Stage(wide(root.axes), [])).roots.append(root)
        registers = [c for c in scan.carries if storage[c].kind == "register"]
        return Loop(scan, items, list(stages.values()), registers)


def wide(axes: Iterable[Axis]) -> tuple[Axis, ...]:
    """The axes of more than one element: the others keep no stages apart."""
    return tuple(a for a in axes if a.extent != 1)
