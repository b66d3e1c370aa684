"""Where a loop tree needs barriers.

The tree is run in thought for a few steps, keeping what was read and written since the last barrier. A read after a
write, a write after a read or a write after a write of one location by another stage puts a barrier before the stage
that comes second: among the threads of a program where both touch elements of that program alone, among the programs
of the grid otherwise. What a step writes lies in another half of its scratch than what the step before wrote,
so the locations are (value, half); and where an index is that of a loop, its steps have locations of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from .expressions import Axis, Expression, subterms
from .flat import FlatScan, FlatValue
from .loop_tree import Barrier, Loop, Stage, Storage, Tree
from .placement import MEETING, Placement

ALONE = (0, 0)
"""The owner of what no other program touches."""
STEPS = ((0, 0), (1, 1), (2, 2), (3, 3), (1, 0), (2, 0), (3, 0))
"""The numbers of steps that loops are run in thought, and loops inside of them: every pairing of halves occurs, and
that a loop runs not at all."""


@dataclass(frozen=True)
class Access:
    """One access of a stage.

    Attributes:
        value, storage: what is accessed.
        write: whether it is written.
        owner: what tells the program whose elements are touched: the dimension that lies on the programs, and how many
            of its elements each has; `ALONE` where no other program has the value; None where elements of several are
            touched. Accesses of one owner are of one program.
        steps: per index, the loop whose step it is, None where it is another index.
        following: whether it is the next value of a carry.
    """

    value: FlatValue
    storage: Storage
    write: bool
    owner: tuple[int, int] | None
    steps: tuple[Axis | None, ...]
    following: bool = False


def own_tile(axes: Sequence[Axis], term: Expression) -> bool:
    """Whether a load is of a value at the very elements where its stage computes it, over these axes."""
    first = len(term.arguments) - len(axes)
    own = zip(term.arguments[first:], axes, strict=True)
    return all(i.axis is a or (a.extent == 1 and i.op == "number") for i, a in own) and all(
        i.op == "number" or (i.axis is not None and i.axis.role in ("row", "step")) for i in term.arguments[:first]
    )


def accesses(tree: Tree, placement: Placement) -> dict[Stage, list[Access]]:
    """The accesses of each stage to memory that the kernel writes and reads."""
    shared = written_values(tree) & loaded_values(tree)
    return {stage: _accesses(tree, placement, stage, shared) for stage, _ in tree.stages()}


def _accesses(tree: Tree, placement: Placement, stage: Stage, shared: Container[FlatValue]) -> list[Access]:
    """Those of one stage, to some values."""
    out: dict[Access, None] = {}
    made: set[FlatValue] = set()

    def steps(indices: tuple[Expression, ...]) -> tuple[Axis | None, ...]:
        return tuple(i.axis if i.axis is not None and i.axis.role == "step" else None for i in indices)

    def owner(indices: tuple[Expression, ...], storage: Storage) -> tuple[int, int] | None:
        # Programs of other elements of a separate axis touch none of these.
        if not placement.grid or MEETING in dict(storage.private):
            return ALONE
        for d, i in enumerate(indices):
            if i.axis is not None and placement.spread(i.axis) and not placement.separates(i.axis):
                return d, placement.block(i.axis)
        return None

    for root in stage.roots:
        for term in subterms([root.expression]):
            if term.op == "load":
                storage = tree.storage[term.extra]
                if storage.kind == "register" or storage.buffer not in shared:
                    continue
                if term.extra in made and own_tile(tree.own[term.extra], term):
                    continue
                out[Access(term.extra, storage, False, owner(term.arguments, storage), steps(term.arguments))] = None
        if root.value in tree.own:
            made.add(root.value)
        for store in root.stores:
            storage = tree.storage.get(store.value)
            if storage is None or store.result or storage.buffer not in shared:
                continue
            whose, at = owner(store.indices, storage), steps(store.indices)
            out[Access(store.value, storage, True, whose, at, store.following)] = None
    return list(out)


def written_values(tree: Tree) -> set[FlatValue]:
    """The buffers that a kernel writes."""
    out = set()
    for stage, _ in tree.stages():
        for root in stage.roots:
            for store in root.stores:
                storage = tree.storage.get(store.value)
                if storage is not None and storage.buffer is not None and not store.result:
                    out.add(storage.buffer)
    return out


def loaded_values(tree: Tree) -> set[FlatValue]:
    """The buffers that a kernel reads."""
    values = {v for stage, _ in tree.stages() for root in stage.roots for v in root.expression.loads}
    return {tree.storage[v].buffer for v in values if tree.storage[v].buffer is not None}


@dataclass(frozen=True)
class _Pending:
    """An access since the last grid barrier: whether it wrote, whose elements, at which steps of its loops, and whether
    a program barrier came after it."""

    write: bool
    owner: tuple[int, int] | None
    at: tuple[int | None, ...]
    settled: bool = False

    def meets(self, at: tuple[int | None, ...]) -> bool:
        """Whether an access at these steps may touch the same element."""
        return len(at) != len(self.at) or all(i is None or j is None or i == j for i, j in zip(at, self.at))


class _Run:
    """One run in thought; stops at the first stage that needs a barrier which is not there.

    Arguments:
        tree: what runs.
        known: the accesses of its stages.
        before: the barriers.
        steps: of loops, and of loops inside of them.
        tiles: how many tiles of rows run, one after another.
        listed: what of one tile lies where that of another one does.
        between: the barrier between tiles.
    """

    def __init__(
        self,
        tree: Tree,
        known: Mapping[Stage, list[Access]],
        before: Mapping[Stage, str],
        steps: tuple[int, int],
        tiles: int = 1,
        listed: Collection[FlatValue] = (),
        between: str | None = None,
    ):
        self.tree, self.known, self.before, self.steps = tree, known, before, steps
        self.tiles, self.listed, self.between = tiles, listed, between
        self.tile = 0
        self.pending: dict[tuple, list[_Pending]] = {}
        self.position: dict[FlatScan, int] = {}
        self.index: dict[Axis, int] = {}

    def location(self, access: Access) -> tuple:
        storage = access.storage
        if storage.kind == "buffer":
            step = self.position.get(storage.step, 0) if storage.step is not None else None
            return (storage.buffer, storage.shift, step, self.tile)
        half = self.position.get(storage.parity, 0) if storage.parity is not None else 0
        if access.following:
            half += 1
        return (storage.buffer, half % 2, None if storage.buffer in self.listed else self.tile)

    def at(self, access: Access) -> tuple[int | None, ...]:
        """The steps of an access's loops."""
        return tuple(None if axis is None else self.index.get(axis) for axis in access.steps)

    def events(self, items: list, inner: bool = False) -> Iterator[Stage]:
        steps = self.steps[inner]
        for item in items:
            if isinstance(item, Stage):
                yield item
            elif isinstance(item, Loop):
                self.position[item.scan] = 0
                yield from (each for each in item.initial if isinstance(each, Stage))
                for step in range(steps):
                    self.position[item.scan] = step
                    self.index[item.axis] = steps - 1 - step if item.reverse else step
                    yield from self.events(item.items, inner=True)
                self.position[item.scan] = steps

    def missing(self) -> tuple[Stage, str] | None:
        """A stage before which a barrier is missing, and its kind."""
        for tile in range(self.tiles):
            self.tile = tile
            if tile:
                self.pass_barrier(self.between)
            for stage in self.events(self.tree.items):
                self.pass_barrier(self.before.get(stage))
                needed = self.needed(stage)
                if needed is not None:
                    return stage, needed
                for access in self.known[stage]:
                    made = _Pending(access.write, access.owner, self.at(access))
                    self.pending.setdefault(self.location(access), []).append(made)
        return None

    def pass_barrier(self, kind: str | None) -> None:
        if kind == "grid":
            self.pending = {}
        elif kind == "program":
            # Orders a program's accesses among themselves; those of other programs stay pending.
            self.pending = {place: [replace(x, settled=True) for x in found] for place, found in self.pending.items()}

    def needed(self, stage: Stage) -> str | None:
        kind = None
        for access in self.known[stage]:
            for other in self.pending.get(self.location(access), ()):
                if (other.write or access.write) and other.meets(self.at(access)):
                    if access.owner is None or other.owner != access.owner:
                        return "grid"
                    if not other.settled:
                        kind = "program"
        return kind


def place_barriers(tree: Tree, placement: Placement) -> None:
    """Insert the barriers that a tree needs, in place.

    Example:
        >>> place_barriers(tree, placement)
        >>> [type(item).__name__ for item in loop.items]
        ['Barrier', 'Stage']
    """
    before: dict[Stage, str] = {}
    runs, known = _numbers_of_steps(tree), accesses(tree, placement)
    for steps in runs:
        while (found := _Run(tree, known, before, steps).missing()) is not None:
            stage, kind = found
            before[stage] = kind
    # Barriers that later ones made needless are taken out again.
    for stage in list(before):
        fewer = {s: k for s, k in before.items() if s is not stage}
        if all(_Run(tree, known, fewer, steps).missing() is None for steps in runs):
            before = fewer

    def insert(items: list) -> list:
        out = []
        for item in items:
            if isinstance(item, Loop):
                item.items = insert(item.items)
                item.initial = insert(item.initial)
            elif item in before:
                out.append(Barrier(before[item]))
            out.append(item)
        return out

    tree.items = insert(tree.items)


def barrier_between_tiles(tree: Tree, placement: Placement, listed: Collection[FlatValue]) -> str | None:
    """The kind of the barrier that programs need from one tile of rows to the next one whose values lie where those of
    the first did; None where they need none.

    Arguments:
        tree: with its barriers.
        placement: what it was built for.
        listed: what lies in memory that the tiles share.
    """
    before: dict[Stage, str] = {}

    def note(items: Sequence[Stage | Loop | Barrier]) -> None:
        for place, item in enumerate(items):
            if isinstance(item, Barrier):
                before[items[place + 1]] = item.kind
            elif isinstance(item, Loop):
                note(item.initial)
                note(item.items)

    note(tree.items)
    known = accesses(tree, placement)

    def serves(kind: str | None) -> bool:
        runs = (_Run(tree, known, before, steps, 2, listed, kind) for steps in _numbers_of_steps(tree))
        return all(run.missing() is None for run in runs)

    return next(kind for kind in (None, "program", "grid") if serves(kind))


def _numbers_of_steps(tree: Tree) -> list[tuple[int, int]]:
    nested = any(isinstance(item, Loop) for loop in tree.loops() for item in loop.items)
    return [steps for steps in STEPS if nested or steps[0] == steps[1]]


def needs_grid(tree: Tree) -> bool:
    """Whether a tree has barriers among the programs of the grid."""

    def go(items: list) -> bool:
        return any(
            (isinstance(i, Barrier) and i.kind == "grid") or (isinstance(i, Loop) and (go(i.items) or go(i.initial)))
            for i in items
        )

    return go(tree.items)
