"""Barriers of loop trees: enough of them, and none too many.

A tree is run in thought here too, but on single elements: which program touches which element of which buffer, in which
stage of which step. Two accesses of one element are in order if a barrier stands between them that both parties pass.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

import foldfuse as ff
from foldfuse.kernels.expressions import Axis, Expression
from foldfuse.kernels.flat import FlatScan, FlatValue, Unsupported, flatten
from foldfuse.kernels.groups import Group
from foldfuse.kernels.loop_tree import Barrier, Loop, Stage, Store, Tree
from foldfuse.kernels.partition import KernelStep, Partition, partition
from foldfuse.kernels.placement import MEETING, SEPARATE, Placement
from foldfuse.kernels.proposals import PROPOSALS, Steps
from foldfuse.kernels.request import STRATEGIES, Request

from .cells import CELLS, graphs
from .programs import PROGRAMS

Items = list[Stage | Loop | Barrier]

STEPS = (3, 3)
"""How often loops run, and loops inside of them: each half of a double buffer is written again."""
RUNS = (STEPS, (0, 0), (3, 0))
"""Loops may also run not at all."""
LISTS = 3
"""How long lists are."""


# --- trees ------------------------------------------------------------------------------------------------------------


def loops_of(graph: Any) -> Iterator[tuple[Partition, Group]]:
    """The kernels with loops of a graph."""
    parts = partition(flatten(graph))
    for step in parts.steps:
        if isinstance(step, KernelStep) and step.group.scans:
            yield parts, step.group


def trees(graph: Any, strategy: str, block: int | None = None) -> Iterator[tuple[Tree, Placement]]:
    """The loop trees, barriers in place, of the loops of a graph under each placement that a strategy proposes."""
    for parts, group in loops_of(graph):
        for scan in group.scans:
            alone = Group(group.rows, (), (scan,), group.available, group.wanted)
            try:
                for proposal in PROPOSALS[strategy](Steps(parts, alone), Request(block=block), block or 16):
                    (tree,) = proposal.trees
                    yield tree, proposal.placement
            except Unsupported:
                continue


def barriers(items: Iterable[Any]) -> list[Barrier]:
    """The barriers in items, in order."""
    found = []
    for item in items:
        if isinstance(item, Barrier):
            found.append(item)
        elif isinstance(item, Loop):
            found += barriers(item.initial) + barriers(item.items)
    return found


# --- a run in thought -------------------------------------------------------------------------------------------------

Element = tuple[Any, ...]
"""A buffer, the half of it, the programs whose own copy it is, indices."""


@dataclass
class Touched:
    """What was done with an element since the programs last met: by which program, in which stage instance of which
    stretch between barriers, and whether it was written."""

    accesses: list[tuple[int, int, int, bool]] = field(default_factory=list)

    def conflict(self, program: int, stretch: int, instance: int, write: bool) -> str:
        for other, then, stage, wrote in self.accesses:
            if not (write or wrote):
                continue
            if other != program:
                return f"programs {other} and {program}"
            if then == stretch and stage != instance:
                return f"threads of program {program}"
        return ""


class Run:
    """A run of a tree without one of its barriers.

    Attributes:
        conflicts: what is not in order.
    """

    def __init__(self, tree: Tree, placement: Placement, without: Barrier | None = None, steps: Sequence[int] = STEPS):
        self.tree, self.placement, self.without, self.steps, self.depth = tree, placement, without, steps, 0
        self.position: dict[Axis, int] = {}
        self.halves: dict[FlatScan, tuple[int, int]] = {}
        self.touched: dict[Element, Touched] = {}
        self.groups: dict[Element, dict[int, bool]] = {}
        self.stretch = self.instance = 0
        self.conflicts: list[str] = []
        self.written = {self.buffer(store) for stage, _ in tree.stages() for r in stage.roots for store in r.stores}
        self.items(tree.items)

    def buffer(self, store: Store) -> FlatValue | None:
        """Where a store goes in memory that the kernel may read again."""
        storage = self.tree.storage.get(store.value)
        return None if storage is None or store.result else storage.buffer

    def items(self, items: Sequence[Any]) -> None:
        for item in items:
            if isinstance(item, Barrier):
                self.barrier(item)
            elif isinstance(item, Stage):
                self.stage(item)
            else:
                self.loop(item)

    def barrier(self, barrier: Barrier) -> None:
        if barrier is not self.without:
            self.stretch += 1
            if barrier.kind == "grid":
                self.touched = {}

    def loop(self, loop: Loop) -> None:
        scan, steps = loop.scan, self.steps[min(self.depth, 1)]
        self.halves[scan] = (0, 0)
        self.items(loop.initial)
        self.depth += 1
        for step in range(steps):
            self.position[loop.axis] = steps - 1 - step if loop.reverse else step
            self.halves[scan] = (step % 2, 1 - step % 2)
            self.items(loop.items)
        self.depth -= 1
        self.halves[scan] = (steps % 2, steps % 2)

    # --- a stage ------------------------------------------------------------------------------------------------------

    def stage(self, stage: Stage) -> None:
        self.instance += 1
        loads, stores = self.loads(stage), [store for root in stage.roots for store in root.stores]
        programs = self.placement.programs
        for program in range(programs * self.placement.groups):
            reads = {
                element for load in loads for element in self.elements(load.extra, load.arguments, load.axes, program)
            }
            writes: set[Element] = set()
            for store in stores:
                if self.buffer(store) is not None:
                    axes = frozenset().union(*(index.axes for index in store.indices))
                    # Where programs compute an element alike and have no copy of it, the first of them writes it.
                    private, place = dict(self.tree.storage[store.value].private), self.place(program)
                    if not any(place[axis] for axis in self.placement.alike(axes) if axis not in private):
                        writes |= self.elements(store.value, store.indices, axes, program, store.following)
            self.note(reads & writes, "read and written in one stage")
            for element, write in itertools.chain(((e, False) for e in reads), ((e, True) for e in writes)):
                touched = self.touched.setdefault(element, Touched())
                self.note({element}, touched.conflict(program, self.stretch, self.instance, write))
                # Programs of several elements of a separate axis never meet.
                groups = self.groups.setdefault(element, {})
                groups[program // programs] = groups.get(program // programs, False) or write
                self.note({element}, "groups of programs" if len(groups) > 1 and any(groups.values()) else "")
                touched.accesses.append((program, self.stretch, self.instance, write))

    def note(self, elements: set[Element], what: str) -> None:
        if elements and what:
            buffer, *place = min(elements, key=str)
            self.conflicts.append(f"{buffer} at {place}: {what}")

    def loads(self, stage: Stage) -> list[Expression]:
        """The loads of a stage of memory that the kernel writes."""
        found: dict[Expression, None] = {}
        made: set[tuple[FlatValue, tuple[Expression, ...]]] = set()
        for root in stage.roots:
            seen: set[Expression] = set()
            todo = [root.expression]
            while todo:
                term = todo.pop()
                if term in seen:
                    continue
                seen.add(term)
                todo += term.arguments
                # What the stage has computed at these very indices is at hand.
                if term.op == "load" and (term.extra, term.arguments) not in made:
                    if self.tree.storage[term.extra].buffer in self.written - {None}:
                        found[term] = None
            made.update((store.value, store.indices) for store in root.stores if not store.following)
        return list(found)

    def elements(
        self,
        value: FlatValue,
        indices: Sequence[Expression],
        axes: Iterable[Axis],
        program: int,
        following: bool = False,
    ) -> set[Element]:
        """The elements of a value in memory at indices, as one program runs over the axes."""
        storage = self.tree.storage[value]
        half = None
        if storage.kind == "scratch" and storage.parity is not None:
            half = self.halves[storage.parity][following]
        ranges = {axis: self.range(axis, program) for axis in axes}
        found = set()
        for places in itertools.product(*ranges.values()):
            at = dict(zip(ranges, places))
            index = [self.index(term, at) for term in indices]
            if storage.kind == "buffer" and storage.step is not None:
                index.insert(len(storage.step.levels), self.position[storage.step.level.axis])
            if storage.kind == "buffer" and storage.shift is not None:
                index[storage.shift[0]] += storage.shift[1]
            place = self.place(program)
            found.add((storage.buffer, half, tuple(place[axis] for axis, _ in storage.private), *index))
        return found

    def place(self, program: int) -> dict[int, int]:
        """Where a program stands on the axes of the grid."""
        return {MEETING: program % self.placement.programs, SEPARATE: program // self.placement.programs}

    def range(self, axis: Axis, program: int) -> Iterable[int]:
        if axis.role == "row":
            return (0,)
        if axis.role == "step":
            return (self.position[axis],)
        extent = axis.extent if isinstance(axis.extent, int) else LISTS
        if not self.placement.spread(axis):
            return range(extent)
        first = self.place(program)[SEPARATE if self.placement.separates(axis) else MEETING]
        block, stride = self.placement.block(axis), self.placement.block(axis) * self.placement.sharers(axis)
        return [i for start in range(first * block, extent, stride) for i in range(start, min(start + block, extent))]

    def index(self, term: Expression, at: dict[Axis, int]) -> Any:
        """The number that an index is; one that the data decides may be any, and stands for all of them."""
        if term.op == "axis":
            return at[term.extra]
        if term.op == "number":
            return term.extra
        arguments = [self.index(argument, at) for argument in term.arguments]
        return {
            "plus": lambda i, j: i + j,
            "times": lambda i, j: i * j,
            "quotient": lambda i, j: i // j,
            "remainder_index": lambda i, j: i % j,
            "clamp": lambda i, low, high: min(max(i, low), high),
        }[term.op](*arguments)


# --- tests ------------------------------------------------------------------------------------------------------------


def check(tree: Tree, placement: Placement) -> int:
    """Assert that a tree's barriers are enough and that each is needed; how many there are."""
    found = barriers(tree.items)
    for steps in RUNS:
        conflicts = Run(tree, placement, steps=steps).conflicts
        assert not conflicts, f"{steps} steps: {conflicts[0]}"
    for number, barrier in enumerate(found):
        needed = any(Run(tree, placement, barrier, steps).conflicts for steps in RUNS)
        assert needed, f"barrier {number} ({barrier.kind}) orders nothing"
    return len(found)


RECURRENCES = [p for p in PROGRAMS if p.family == "recurrences" and p.name.endswith((".scan", ".fold.reverse"))]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("program", RECURRENCES, ids=lambda p: p.name)
def test_recurrence(program: Any, strategy: str) -> None:
    compiled = graphs(*program.build()["main"])
    for graph in (compiled.forward, compiled.backward):
        for tree, placement in trees(graph, strategy, block=2):
            check(tree, placement)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("cell", "width"), [("layer_norm_lstm", 8), ("heads", 32), ("attention_decoder", 8)])
def test_cell(cell: str, width: int, strategy: str) -> None:
    compiled = graphs(*CELLS[cell](width), operands="bf16")
    for graph in (compiled.forward, compiled.backward):
        found = [check(*each) for each in trees(graph, strategy, block=4)]
        # A resident program has all of a row.
        assert found and (sum(found) > 0 or (cell, strategy) == ("heads", "resident"))


def test_a_slice_of_an_axis_has_other_owners() -> None:
    """Two axes are spread, in blocks of two and of one: an element of a slice of the one belongs to another program
    than the element of the whole."""

    def program(xs: Any, ys: Any) -> Any:
        def outer(h: Any, x: Any) -> Any:
            inner = lambda c, y: ff.tanh(ff.concat(y, h) @ ff.param((4, 3), "W") + c)
            return ff.tanh(h * ff.fold(inner, init=ff.sin(x))(ys)[:2])

        return ff.scan(outer, init=ff.zeros(2))(xs)

    compiled = graphs(program, ff.Seq(ff.f32[3], "T"), ff.Seq(ff.f32[2], "S"))
    found = list(trees(compiled.forward, "cooperative", block=2))
    assert any(len(placement.grid) > 1 for _, placement in found)
    for tree, placement in found:
        check(tree, placement)


@pytest.mark.parametrize("cell", ["lstm", "gru", "gru_first"])
def test_a_resident_step_without_moved_indices_needs_none(cell: str) -> None:
    compiled = graphs(*CELLS[cell](16), operands="bf16")
    for graph in (compiled.forward, compiled.backward):
        ((tree, placement),) = trees(graph, "resident")
        assert not barriers(tree.items) and not Run(tree, placement).conflicts


def test_what_the_run_finds() -> None:
    """The check itself: programs that exchange a carry need a grid barrier, and a program barrier is not enough."""
    ((tree, placement), *_) = trees(graphs(*CELLS["lstm"](16)).forward, "cooperative", block=4)
    (barrier,) = barriers(tree.items)
    assert barrier.kind == "grid" and placement.programs == 4
    assert any("programs" in found for found in Run(tree, placement, barrier).conflicts)
    barrier.kind = "program"
    assert any("programs" in found for found in Run(tree, placement).conflicts)
    # One program that goes block by block has its own threads to wait for.
    ((tree, placement), *_) = trees(graphs(*CELLS["lstm"](16)).forward, "streamed", block=4)
    (barrier,) = barriers(tree.items)
    assert barrier.kind == "program" and placement.programs == 1
    assert "threads" in Run(tree, placement, barrier).conflicts[0]
