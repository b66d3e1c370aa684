"""From flat items to expressions: which values of a launch are kept, and the others computed where they are read.

What a root needs is expanded into its expression until it meets a value that is in memory or is worth keeping: a value
is *kept* where its elements are needed at other places than they are computed and computing them again would repeat a
contraction. That depends on which axes a program holds whole and how others lie on the programs of the grid, and on
nothing else of a placement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from itertools import product

from .axes import Axes
from .contributions import Contributions, operation_of
from .elements import ELEMENTS, JOINED, REDUCTIONS
from .expressions import Arena, Axis, Dimension, Expression
from .flat import FlatEquation, FlatScan, FlatValue, Level, Reference, Unsupported, rounds
from .groups import Group
from .loop_tree import Root, Store
from .operations import HALVES
from .parts import Parts, packs
from .placement import PROGRAM, Placement

FREE = frozenset(
    "broadcast transpose flip slice reshape pad concatenate constant cast stop_gradient tap stack unstack".split()
)
"""Operations that move elements: computing one again costs nothing."""

REPEATED = 8
"""How much elementwise work on one element is rather repeated by every reader than kept and waited for."""

PACKED = 4
"""How much of it is repeated at the places of a pack that other operands fill."""

_SLOW = frozenset("exp expm1 log log1p sin cos arctan arctan2 tanh sigmoid erf power uniform fold_seed".split())


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


class Expansion(Contributions):
    """The values of a launch as expressions.

    Arguments:
        group: what is computed.
        axes: the axis classes of the program.
        placement: a placement.
        over: per size whose lists are of several lengths, the sizes of the lists that these vary with.

    Attributes:
        rows: the row axes.
        pool: the axes that expressions have.
        kept: the values of steps that are kept.
        roots: per step what it computes; None for what is computed outside of steps. `initial`: per loop its first
            carries.

    Raises:
        Unsupported: a step needs what no placement holds.
    """

    def __init__(self, group: Group, axes: Axes, placement: Placement, over: Mapping[str, tuple[str, ...]]):
        super().__init__()
        self.group, self.axes, self.placement, self.over = group, axes, placement, over
        self.arena = Arena()
        self.rows = tuple(Axis(_row_name(n, d), n, "row") for d, n in enumerate(group.rows))
        self.row_index = tuple(map(self.arena.axis, self.rows))
        self.row_of: dict[Level, Axis] = {}
        self.steps: dict[Level, Axis] = {}
        self.around: dict[str, tuple[Axis, ...]] = {}
        self.block_of: dict[FlatValue, FlatScan | None] = {}
        self.carries: set[FlatValue] = set()
        for scan in group.scans:
            if len(scan.levels) != len(self.rows):
                raise Unsupported("a scan under other maps than its neighbours")
            self.row_of.update(zip(scan.levels, self.rows, strict=True))
            self.scope(scan)
        packed = packs(group.scans, axes, placement.grid) if placement.partial else {}
        self.parts = Parts(axes, self.arena, packed, self.block_of)
        self.kept: dict[FlatValue, None] = {}
        self.demanded: dict[FlatValue, None] = {}
        self.patterns: dict[FlatValue, set[tuple[int, ...]]] = {}
        self.memo: dict[tuple, tuple[Expression, bool]] = {}
        self.found = False
        self.pool: dict[tuple, Axis] = {}
        self.names = {"own": 0, "reduced": 0}
        if placement.partial:
            for scan in group.scans:
                self.meet_behind(scan)
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

    def scope(self, scan: FlatScan, around: tuple[Axis, ...] = ()) -> None:
        """Note in which scan's step each value is made, what its levels are, and the loops around it."""
        self.steps[scan.level] = scan.level.axis
        self.around.setdefault(str(scan.level.size), around)
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
                self.scope(item, (*around, scan.level.axis))

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
        names = () if isinstance(extent, int) else extent.names()
        return tuple(dict.fromkeys(a for name in names for _, a in self.lists_over(name) if a is not None))

    def lists_over(self, name: str) -> tuple[tuple[str, Axis | None], ...]:
        """The sizes of the lists that the lists of a size stand in, outermost first, each with the row or loop over
        them; None where there is none. Of several loops over one size it is the outer one: no program runs over a list
        of lists inside of a loop over itself. Only the lists of a segment are cut by the loop right around it."""
        outers = self.over.get(name, ())
        every = list(dict.fromkeys((*self.rows, *self.steps.values())))
        found: dict[int, Axis | None] = {}
        if outers and not outers[-1].isidentifier():
            inner = (*reversed(self.around.get(name, ())), *every)
            found[len(outers) - 1] = next((a for a in inner if str(a.extent) == outers[-1]), None)
        for place, outer in enumerate(outers):
            if found.get(place) is None:
                found[place] = next((a for a in every if str(a.extent) == outer and a not in found.values()), None)
        return tuple((outer, found[place]) for place, outer in enumerate(outers))

    def axis_class(self, value: FlatValue, dim: int) -> int | None:
        """The class of a dimension of a value."""
        value = self.partial_of.get(value, value)
        if value in self.parted_of:
            # A list of what programs contribute to a value.
            reduction, output = self.parted_of[value]
            if dim <= len(output.lead):
                return self.parts.axis_class(output, dim)
            value, dim = reduction, dim - 1
        if dim == len(value.dims):
            return PROGRAM
        return self.parts.axis_class(self.list_of.get(value, value), dim)

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
        value = self.behind.get(value, value)
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
        if value in self.emitted:
            return self.computed_behind(*self.emitted[value], indices)
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
                own = [self.arena.plus(i, first.get(i.axis, 0)) for i in own]
                return self.at(reference.value, self.indices_of(reference, level_index, own), inside)

            return ELEMENTS[operation](self.arena, equation, list(indices[lead:]), operand, reduced)

        count = self.share(part) if partial else None
        operation = equation.op if count is None else "reduce_sum"
        parts = [element(dict(zip(reduced, chosen, strict=True))) for chosen in product(*starts)]
        if count is not None:
            parts = self.around_their_mean(parts, count)
        join = JOINED[operation_of(item)]
        return reduce(lambda x, y: self.arena.make(join, (x, y), None, value.dtype), parts)

    def indices_of(
        self, reference: Reference, levels: Mapping[Level, Expression], own: Sequence[Expression]
    ) -> tuple[Expression, ...]:
        """The indices of an element of an operand: of the levels of what reads it, and its own."""
        return (*(levels[x] if x in levels else self.index_of(x) for x in reference.lead), *own)

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
            if scan is None and value not in self.group.targets and 0 not in value.dims:
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
            if output in self.behind:
                continue
            whole = self.block_of.get(emitted.value) is not scan or self.loaded(emitted.value)
            for part in (emitted.value,) if whole else self.parts.all(emitted.value):
                made, own = root(Reference(part, emitted.lead))
                _, index = self.parts.whole(part, self.place(part, emitted.lead)[1])
                own_index = index[len(index) - len(own) :]
                made.stores.append(Store(output, (*rows, self.arena.axis(scan.level.axis), *own_index)))
        for reduction, parted in self.parted.items():
            if self.block_of[reduction] is scan:
                made, own = root(Reference(self.partial(reduction), reduction.lead))
                index = (*rows, self.arena.axis(scan.level.axis), *map(self.arena.axis, own))
                made.stores.append(Store(parted, index))
        for value in self.kept:
            if self.block_of.get(value) is scan and 0 not in value.dims:
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


def _row_name(extent: Dimension, place: int) -> str:
    name = str(extent).lower()
    return name if name.isidentifier() else f"row_{place}"
