"""From flat items and a placement to a loop tree.

What a root needs is expanded into its expression until it meets a value that is in memory or is worth keeping: a value
is *kept* where its elements are needed at other places than they are computed and computing them again would repeat a
contraction. Whether a kept value stays in registers or goes through memory follows from its uses and the placement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import product
from math import prod

from ..compiler.sizes import Size
from .axes import Axes
from .elements import ELEMENTS
from .expressions import Arena, Axis, Dimension, Expression
from .flat import FlatEquation, FlatScan, FlatValue, Item, Level, Reference, Unsupported
from .loop_tree import Loop, Root, Stage, Storage, Store, Tree
from .operations import HALVES
from .parts import JOINED, REDUCTIONS, Parts, packs
from .placement import PROGRAM, Placement


@dataclass(frozen=True)
class Alias:
    """A value that lies inside of another: along dimension `dim`, from `offset` on."""

    buffer: FlatValue
    dim: int
    offset: int


FREE = frozenset(
    "broadcast transpose flip slice reshape pad concatenate constant cast stop_gradient tap stack unstack".split()
)
"""Operations that move elements: computing one again costs nothing."""


REPEATED = 8
"""How much elementwise work on one element is rather repeated by every reader than kept and waited for."""

PACKED = 4
"""How much of it is repeated at the places of a pack that other operands fill."""

_SLOW = frozenset("exp expm1 log log1p sin cos arctan arctan2 tanh sigmoid erf power uniform fold_seed".split())


def rounds(value: FlatValue) -> bool:
    """Whether a value is another one rounded to half precision."""
    maker = value.maker
    return isinstance(maker, FlatEquation) and maker.equation.op == "cast" and value.dtype in ("f16", "bf16")


def work(term: Expression, axes: Iterable[Axis]) -> int:
    """The elementwise operations in a term that are done anew for each element of `axes`; a slow one counts three."""
    axes = set(axes)
    seen: set[Expression] = set()
    total, todo = 0, [term]
    while todo:
        part = todo.pop()
        if part in seen or part.axes.isdisjoint(axes) or part.dtype == "index":
            continue
        seen.add(part)
        if part.op not in ("load", "axis", "number", "cast", "from_index"):
            total += 3 if part.op in _SLOW else 1
        todo.extend(part.arguments)
    return total


@dataclass(frozen=True)
class Group:
    """What one kernel computes.

    Attributes:
        rows: the list axes whose elements are independent: the iteration space of the grid.
        targets: values made by equations, to be stored.
        scans: scans whose levels are the rows.
        available: values that lie in memory before the kernel runs.
        wanted: of the scans' last carries and lists, those to be stored.
    """

    rows: tuple[Dimension, ...]
    targets: tuple[FlatValue, ...]
    scans: tuple[FlatScan, ...]
    available: frozenset[FlatValue]
    wanted: frozenset[FlatValue]


def members(group: Group) -> list[Item]:
    """The items of a kernel: its scans, and what it computes by itself of what lies in memory."""
    found: dict[Item, None] = {}
    seen: set[FlatValue] = set()

    def need(value: FlatValue) -> None:
        if value in seen or value in group.available or not isinstance(value.maker, FlatEquation):
            return
        seen.add(value)
        for reference in value.maker.operands:
            need(reference.value)
        found[value.maker] = None

    def inside(scan: FlatScan) -> None:
        made = {carry for carry in scan.carries}
        seen.update(made)
        for item in scan.items:
            seen.update((item.output,) if isinstance(item, FlatEquation) else (*item.last, *item.outputs))
        for item in scan.items:
            if isinstance(item, FlatScan):
                inside(item)
            else:
                for reference in item.operands:
                    need(reference.value)
        for reference in (*scan.initial, *scan.following, *scan.emitted):
            need(reference.value)

    for value in group.targets:
        need(value)
    for scan in group.scans:
        inside(scan)
        found[scan] = None
    return list(found)


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


class _Scheduler:
    def __init__(
        self,
        group: Group,
        axes: Axes,
        placement: Placement,
        aliases: Mapping[FlatValue, Alias],
        over: Mapping[str, tuple[str, ...]],
    ):
        self.aliases, self.over = aliases, over
        self.group, self.axes, self.placement = group, axes, placement
        self.arena = Arena()
        self.rows = tuple(Axis(_row_name(n, d), n, "row") for d, n in enumerate(group.rows))
        self.row_index = tuple(map(self.arena.axis, self.rows))
        self.row_of: dict[Level, Axis] = {}
        self.steps: dict[Level, Axis] = {}
        self.block_of: dict[FlatValue, FlatScan | None] = {}
        self.carries: set[FlatValue] = set()
        for scan in group.scans:
            if len(scan.levels) != len(self.rows):
                raise Unsupported("a scan under other maps than its neighbours")
            self.row_of.update(zip(scan.levels, self.rows, strict=True))
            self.scope(scan)
        packed = packs(group.scans, axes, placement.grid) if placement.partial else {}
        self.parts = Parts(axes, self.arena, packed, self.block_of)
        # Per reduction that programs take together, what each of them contributes; and back.
        self.partials: dict[FlatValue, FlatValue] = {}
        self.partial_of: dict[FlatValue, FlatValue] = {}
        self.kept: dict[FlatValue, None] = {}
        self.demanded: dict[FlatValue, None] = {}
        self.patterns: dict[FlatValue, set[tuple[int, ...]]] = {}
        self.memo: dict[tuple, tuple[Expression, bool]] = {}
        self.found = False
        self.pool: dict[tuple, Axis] = {}
        self.names = {"own": 0, "reduced": 0}
        self.expand()

    def expand(self) -> None:
        """Find what is kept, and the roots of every block."""
        while True:
            self.memo, self.patterns = {}, {}
            self.roots: dict[FlatScan | None, list[Root]] = {}
            self.collect()
            new = [v for v in self.demanded if v not in self.kept]
            if not new:
                break
            self.kept.update(dict.fromkeys(new))
        self.expanded = self.roots, self.initial

    def serves(self, placement: Placement) -> bool:
        """Whether the roots are those of another placement too."""
        own = self.placement
        if (own.grid, own.programs, own.partial) != (placement.grid, placement.programs, placement.partial):
            return False
        return all(
            (own.whole(a), own.once(a), own.spread(a)) == (placement.whole(a), placement.once(a), placement.spread(a))
            and (not own.spread(a) or own.block(a) == placement.block(a))
            for a in self.pool.values()
        )

    def scope(self, scan: FlatScan) -> None:
        """Note in which scan's step each value is made, and what its levels are."""
        self.steps[scan.level] = scan.level.axis
        for other, own in scan.joined.items():
            if own.axis is not None:
                self.steps[other] = own.axis
            else:
                self.row_of[other] = self.row_of[own]
        for carry in scan.carries:
            self.block_of[carry] = scan
            self.carries.add(carry)
        for item in scan.items:
            if isinstance(item, FlatEquation):
                self.block_of.setdefault(item.output, scan)
            elif isinstance(item, FlatScan):
                for value in (*item.last, *item.outputs):
                    self.block_of[value] = scan
                if any(level not in self.row_of for level in item.levels):
                    raise Unsupported("a loop runs for each element of a list inside of a step")
                self.scope(item)

    # --- axes ---------------------------------------------------------------------------------------------------------

    def axis(self, role: str, extent: Dimension, axis_class: int | None, slot: int, contracted: bool = False) -> Axis:
        key = (role, extent, axis_class, slot, contracted)
        if key not in self.pool:
            letters = "jiefg" if role == "own" else "klmn"
            count = self.names[role]
            self.names[role] += 1
            name = letters[count] if count < len(letters) else f"{letters[0]}{count}"
            self.pool[key] = Axis(name, extent, role, axis_class, slot, self.varying(extent), contracted)
        return self.pool[key]

    def varying(self, extent: Dimension) -> tuple[Axis, ...]:
        """The rows and loops that an extent varies with."""
        names = set() if isinstance(extent, int) else {o for n in extent.names() for o in self.over.get(n, ())}
        return tuple(a for a in (*self.rows, *self.steps.values()) if str(a.extent) in names)

    def axis_class(self, value: FlatValue, dim: int) -> int | None:
        """The class of a dimension of a value."""
        if value in self.partial_of:
            value = self.partial_of[value]
            if dim == len(value.dims):
                return PROGRAM
        return self.parts.axis_class(value, dim)

    def own_axes(self, value: FlatValue, first: int) -> tuple[Axis, ...]:
        """Axes for the dimensions of a value from `first` on."""
        out, used = [], {}
        for d in range(first, len(value.dims)):
            number = self.axis_class(value, d)
            key = (number, value.dims[d])
            out.append(self.axis("own", value.dims[d], number, used.get(key, 0)))
            used[key] = used.get(key, 0) + 1
        return tuple(out)

    def index_of(self, level: Level) -> Expression:
        return self.arena.axis(self.steps[level] if level in self.steps else self.row_of[level])

    def place(self, value: FlatValue, lead: Sequence[Level]) -> tuple[tuple[Axis, ...], tuple[Expression, ...]]:
        """The own axes and the indices at which a stage computes a value."""
        index: list[Expression] = []
        own: list[Axis] = []
        used: dict = {}
        for d, n in enumerate(value.dims):
            level = lead[d] if d < len(lead) else None
            if level is not None and (level in self.steps or level in self.row_of):
                index.append(self.index_of(level))
                continue
            number = self.axis_class(value, d)
            slot = used.get((number, n), 0)
            used[(number, n)] = slot + 1
            own.append(self.axis("own", n, number, slot))
            index.append(self.arena.axis(own[-1]))
        return tuple(own), tuple(index)

    # --- expressions --------------------------------------------------------------------------------------------------

    def at(self, value: FlatValue, indices: Sequence[Expression], use: str = "") -> Expression:
        """An element of a value.

        Arguments:
            value: the value.
            indices: of the element.
            use: "contracted" where it is an operand of a contraction, "rounded" where a value rounded from it is, which
                is what would be kept, "partial" where it is computed for a program's part of a reduction, after which
                all programs meet; otherwise "".
        """
        if self.parts.packs and self.block_of.get(value) is not None and isinstance(value.maker, FlatEquation):
            value, indices = self.parts.take(value, indices)
        if self.loaded(value):
            return self.arena.load(value, indices, value.dtype)
        key = (value, tuple(map(id, indices)), use)
        if key not in self.memo:
            around, self.found = self.found, False
            made = self.definition(value, indices, use)
            # Of values one in another the innermost is kept first: the others may then cost little.
            if not self.found and use != "rounded":
                self.check(value, indices, made, use)
            self.memo[key] = (made, self.found)
            self.found = self.found or around
        made, found = self.memo[key]
        self.found = self.found or found
        return made

    def loaded(self, value: FlatValue) -> bool:
        """Whether a value is read from where it lies, not computed."""
        lies = value in self.kept or value in self.carries or value in self.group.available
        return lies or not isinstance(value.maker, FlatEquation)

    def definition(self, value: FlatValue, indices: Sequence[Expression], use: str = "") -> Expression:
        """What an element of a value is, one equation deep."""
        partial = value in self.partial_of
        if partial:
            # The last index is the program's own: it says which elements these are.
            value, indices, use = self.partial_of[value], indices[:-1], "partial"
        part = value
        value, indices = self.parts.whole(value, indices)
        item = value.maker
        lead = len(value.lead)
        level_index = dict(zip(value.lead, indices))
        equation = item.equation
        inside = use if equation.op in FREE or use == "partial" else ""
        if equation.op == "contract":
            inside = "contracted"
        elif use in ("contracted", "rounded") and rounds(value):
            inside = "rounded"
        around = (*indices[:lead], *map(self.index_of, item.loops))
        if equation.op == "length":
            return self.arena.make("length", around, equation.attributes["size"], "i64")
        if equation.op == "segment_lengths":
            length, size = equation.attributes["length"], equation.attributes["size"]
            whole = self.arena.make("length", around, size, "i64")
            start = self.arena.make("from_index", [self.arena.times(indices[lead], length)], None, "i64")
            rest = self.arena.make("sub", (whole, start), None, "i64")
            return self.arena.make("minimum", (rest, self.arena.number(length, "i64")), None, "i64")
        if 0 in item.reduced:
            neutral = 1 if equation.op == "reduce_prod" or equation.attributes.get("op") == "prod" else 0
            return self.arena.number(neutral if value.dtype in ("i32", "i64") else float(neutral), value.dtype)
        reduced, starts = self.reduced_axes(item, value)
        if (cut := self.cut(part, reduced)) is not None:
            if not partial:
                return self.exchanged(part, indices, reduced)
            reduced[cut] = self.axis("own", reduced[cut].extent, reduced[cut].axis_class, 0)

        def element(first: Mapping[Axis, int]) -> Expression:
            """The equation's, over the part of packed axes that begins at `first`."""

            def operand(j: int, own: Sequence[Expression]) -> Expression:
                reference = item.operands[j]
                outer = [level_index[x] if x in level_index else self.index_of(x) for x in reference.lead]
                own = [self.arena.plus(i, first.get(i.axis, 0)) for i in own]
                return self.at(reference.value, (*outer, *own), inside)

            return ELEMENTS[operation](self.arena, equation, list(indices[lead:]), operand, reduced)

        count = self.share(part) if partial else None
        operation = equation.op if count is None else "reduce_sum"
        parts = [element(dict(zip(reduced, chosen, strict=True))) for chosen in product(*starts)]
        if count is not None:
            parts = self.around_their_mean(parts, count)
        join = JOINED[REDUCTIONS.get(equation.op, "sum")]
        return reduce(lambda x, y: self.arena.make(join, (x, y), None, value.dtype), parts)

    def reduced_axes(self, item: FlatEquation, value: FlatValue) -> tuple[list[Axis], list[range]]:
        """The axes that an equation reduces over, and where the parts of each begin: a packed axis has several."""
        contracted = item.equation.op == "contract"
        splits = (contracted or item.equation.op in REDUCTIONS) and value.dtype not in HALVES
        axes, starts = [], []
        for s, n in enumerate(item.reduced):
            number = self.axes.reduced(item, s)
            extent = self.parts.extent(number, n) if splits else None
            if extent is not None:
                number = self.parts.packs[number]
            axes.append(self.axis("reduced", extent or n, number, value.height - s, contracted))
            starts.append(range(0, n if extent else 1, extent or 1))
        return axes, starts

    def cut(self, value: FlatValue, reduced: Sequence[Axis]) -> int | None:
        """Which of the axes that a value of a step reduces over is spread over the programs that share a tile of rows,
        so that each program reduces its own elements and they exchange the results; None where it is not done so."""
        place = self.placement
        if not place.partial or self.block_of.get(value) is None or value.dtype in HALVES:
            return None
        if value.maker.equation.op not in REDUCTIONS:
            return None
        if any(self.axis_class(value, d) in place.grid for d in range(len(value.dims))):
            return None
        found = [s for s, axis in enumerate(reduced) if axis.axis_class in place.grid]
        if len(found) != 1:
            return None
        axis = reduced[found[0]]
        return found[0] if place.once(self.axis("own", axis.extent, axis.axis_class, 0)) else None

    def exchanged(self, value: FlatValue, indices: Sequence[Expression], reduced: Sequence[Axis]) -> Expression:
        """A reduction of what the programs contribute to it."""
        item, make = value.maker, self.arena.make
        program = self.axis("reduced", self.placement.programs, PROGRAM, reduced[0].slot)
        number = self.contribution(value, indices, program)
        count = self.share(value)
        if count is not None:
            # The sum of squares in a program is that around the mean there (see `sums`).
            around = self.at(item.operands[1].value, indices)
            total = self.contribution(item.operands[2].value, indices, program)
            size = self.arena.number(float(count), value.dtype)
            distance = make("sub", (make("div", (total, size), None, value.dtype), around), None, value.dtype)
            square = make("mul", (distance, distance), None, value.dtype)
            number = make("add", (number, make("mul", (size, square), None, value.dtype)), None, value.dtype)
        return self.arena.reduce(REDUCTIONS[item.equation.op], (program,), (number,), value.dtype)

    def contribution(self, value: FlatValue, indices: Sequence[Expression], program: Axis) -> Expression:
        """What a program contributes to a reduction."""
        partial = self.partials.get(value)
        if partial is None:
            dims = (*value.dims, self.placement.programs)
            partial = replace(value, name=f"{value.name}_partial", dims=dims)
            self.partials[value], self.partial_of[partial] = partial, value
            self.block_of[partial] = self.block_of[value]
        if partial not in self.kept:
            self.demand(partial)
        return self.arena.load(partial, (*indices, self.arena.axis(program)), value.dtype)

    def share(self, value: FlatValue) -> int | None:
        """Of a sum of squares, how many elements each program has; None where they have more or less, and for any other
        value."""
        item = value.maker
        if item.equation.op != "sum_of_squares":
            return None
        reduced, starts = self.reduced_axes(item, value)
        axis = reduced[self.cut(value, reduced)]
        own = self.axis("own", axis.extent, axis.axis_class, 0)
        if self.placement.block(own) * self.placement.programs != axis.extent:
            return None
        others = prod(a.extent for a in reduced if a is not axis)
        return self.placement.block(own) * others * prod(map(len, starts))

    def around_their_mean(self, sums: Sequence[Expression], count: int) -> list[Expression]:
        """Of sums of a program's elements, the sums of the squares of their distances from the mean of all of them."""
        arena, dtype = self.arena, sums[0].dtype
        total = reduce(lambda x, y: arena.make("add", (x, y), None, dtype), sums)
        mean = arena.make("div", (total, arena.number(float(count), dtype)), None, dtype)
        made = []
        for term in sums:
            operation, axes, _ = term.extra
            distance = arena.make("sub", (term.arguments[0], mean), None, dtype)
            made.append(arena.reduce(operation, axes, (arena.make("mul", (distance, distance), None, dtype),), dtype))
        return made

    def check(self, value: FlatValue, indices: Sequence[Expression], made: Expression, use: str) -> None:
        """Demand that a value is kept where computing it at these indices would repeat work."""
        contracted = use == "contracted"
        free = value.maker.equation.op in FREE and not (contracted and rounds(value))
        if free or made.op in ("load", "number", "length"):
            return
        foreign = {
            i.axis
            for i in indices
            if i.axis is not None and i.axis.role == "reduced" and not self.placement.whole(i.axis)
        }
        moved = {
            a for i, n in zip(indices, value.dims, strict=True) if i.axis is None or i.axis.extent != n for a in i.axes
        }
        if foreign and any(not r.axes.isdisjoint(foreign) for r in made.reductions):
            self.demand(value)
        elif (
            foreign
            and self.block_of.get(value) is not None
            and self.varies(made)
            and (contracted or work(made, foreign) > REPEATED)
        ):
            self.demand(value)
        elif (
            self.packed(indices)
            and self.block_of.get(value) is not None
            and self.varies(made)
            and work(made, moved) > PACKED
        ):
            # A part of a pack is asked for at every place of the pack.
            self.demand(value)
        elif (
            use == "partial"
            and self.block_of.get(value) is not None
            and self.varies(made)
            and (any(r.extra[2] for r in made.reductions) or work(made, made.axes) > REPEATED)
        ):
            # The stages behind the barrier need it again.
            self.demand(value)
        elif moved and any(r.extra[2] and not r.axes.isdisjoint(moved) for r in made.reductions):
            patterns = self.patterns.setdefault(value, set())
            patterns.add(tuple(map(id, indices)))
            if len(patterns) > 1:
                self.demand(value)

    def packed(self, indices: Sequence[Expression]) -> bool:
        """Whether an index is kept within an operand: where it would leave it, another operand's element is taken."""
        return any(i.op == "clamp" or (i.op != "axis" and self.packed(i.arguments)) for i in indices)

    def demand(self, value: FlatValue) -> None:
        """Keep a value of a step. One that a launch without loops computes is computed where it is read: its elements
        may belong to rows of other programs."""
        if self.block_of.get(value) is None:
            return
        self.demanded[value] = None
        self.found = True

    def varies(self, term: Expression) -> bool:
        """Whether a term is computed anew in each step."""
        return any(a.role == "step" for a in term.axes) or any(self.block_of.get(v) is not None for v in term.loads)

    # --- roots --------------------------------------------------------------------------------------------------------

    def tree(self, placement: Placement) -> Tree:
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
        return Tree(self.arena, self.rows, items, storage, own, first)

    def collect(self) -> None:
        """The roots of every block, for the values that are kept now."""
        self.initial: dict[FlatScan, list[Root]] = {}
        top = self.roots.setdefault(None, [])
        count = len(self.rows)
        for value in self.group.targets:
            if 0 in value.dims:
                continue
            own = self.own_axes(value, count)
            index = (*self.row_index, *map(self.arena.axis, own))
            root = Root(value, own, self.definition_or_load(value, index))
            root.stores.append(Store(value, index))
            top.append(root)
        for scan in self.group.scans:
            self.collect_scan(scan)
            for value in scan.last:
                if value in self.group.wanted and 0 not in value.dims:
                    own, index = self.place(value, scan.levels)
                    root = Root(None, own, self.arena.load(value, index, value.dtype))
                    root.stores.append(Store(value, index, result=True))
                    top.append(root)
        for value in self.kept:
            scan = self.block_of.get(value)
            if scan is None and value not in self.group.targets:
                own = self.own_axes(value, count)
                index = (*self.row_index, *map(self.arena.axis, own))
                top.append(Root(value, own, self.definition_or_load(value, index), [Store(value, index)]))

    def definition_or_load(self, value: FlatValue, index: Sequence[Expression]) -> Expression:
        if value in self.kept or not self.loaded(value):
            return self.definition(value, index)
        return self.arena.load(value, index, value.dtype)

    def collect_scan(self, scan: FlatScan) -> None:
        roots = self.roots.setdefault(scan, [])
        by_value: dict[FlatValue, Root] = {}

        def root(reference: Reference) -> tuple[Root, tuple[Axis, ...]]:
            value = reference.value
            if value in by_value:
                return by_value[value], by_value[value].axes
            own, index = self.place(value, reference.lead)
            made_here = self.block_of.get(value) is scan and (value in self.kept or not self.loaded(value))
            expression = self.definition(value, index) if made_here else self.at(value, index)
            made = Root(value if made_here else None, own, expression)
            if made_here:
                by_value[value] = made
            roots.append(made)
            return made, own

        rows = tuple(self.index_of(level) for level in scan.levels)
        for carry, after in zip(scan.carries, scan.following, strict=True):
            if 0 in carry.dims:
                # Nothing is computed for what has no elements.
                continue
            made, own = root(after)
            made.stores.append(Store(carry, (*rows, *map(self.arena.axis, own)), following=True))
            made.carry.append(carry)
        for emitted, output in zip(scan.emitted, scan.outputs, strict=True):
            if 0 in output.dims or not (output in self.group.wanted or self.block_of.get(output) is not None):
                continue
            whole = self.block_of.get(emitted.value) is not scan or self.loaded(emitted.value)
            for part in (emitted.value,) if whole else self.parts.all(emitted.value):
                made, own = root(Reference(part, emitted.lead))
                _, index = self.parts.whole(part, self.place(part, emitted.lead)[1])
                own_index = index[len(index) - len(own) :]
                made.stores.append(Store(output, (*rows, self.arena.axis(scan.level.axis), *own_index)))
        for value in self.kept:
            if self.block_of.get(value) is scan:
                made, _ = root(Reference(value, value.lead))
                _, index = self.place(value, value.lead)
                made.stores.append(Store(value, index))
        first = self.initial.setdefault(scan, [])
        for carry, reference in zip(scan.carries, scan.initial, strict=True):
            if 0 in carry.dims:
                continue
            own, index = self.place(carry, scan.levels)
            outer = tuple(self.index_of(level) for level in reference.lead)
            expression = self.at(reference.value, (*outer, *map(self.arena.axis, own)))
            first.append(Root(None, own, expression, [Store(carry, index)], [carry]))
        for item in scan.items:
            if isinstance(item, FlatScan):
                self.collect_scan(item)

    def all_roots(self) -> Iterable[Root]:
        for roots in (*self.roots.values(), *self.initial.values()):
            yield from roots

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
                    storage[carry] = Storage("scratch", carry, parity=scan, delayed=True)
                    storage[last] = Storage("scratch", carry, parity=scan)
            for output in scan.outputs:
                if self.block_of.get(output) is not None and output in loads:
                    # A list inside a step: its own steps write it, later stages of the outer step read it.
                    storage[output] = Storage("scratch", output, parity=self.block_of[output])
                elif output in self.group.wanted:
                    storage[output] = Storage("buffer", output)
        for value in self.kept:
            scan = self.block_of.get(value)
            axes, _ = self.place(value, value.lead) if scan is not None else (self.own_axes(value, len(self.rows)), ())
            own[value] = axes
            if scan is not None and self.in_registers(axes, loads.get(value, set())):
                storage[value] = Storage("register")
                continue
            emitted = self.emitted_as(scan, value) if scan is not None else None
            if emitted is not None:
                storage[value] = Storage("buffer", emitted, step=scan)
            elif scan is None and value in self.group.targets:
                storage[value] = Storage("buffer", value)
            else:
                storage[value] = Storage("scratch", value, parity=scan)
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
                    if axes not in stages:
                        stages[axes] = Stage(axes, [])
                        items.append(stages[axes])
                    stages[axes].roots.append(root)
            for stage in stages.values():
                stage.roots = self.ordered(stage.roots, maker)
            for other in inner:
                if level[other] == depth:
                    items.append(self.loop(other, storage, own))
        return items

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


def _row_name(extent: Dimension, place: int) -> str:
    name = str(extent).lower()
    return name if name.isidentifier() else f"row_{place}"


def mentioned(dims: Iterable[Dimension]) -> set[str]:
    """The names of the list sizes among extents."""
    return {name for n in dims if isinstance(n, Size) for name in n.names()}
