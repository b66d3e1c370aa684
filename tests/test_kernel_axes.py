"""The axis analysis: which dimensions are one axis, which axes are free, where the others are cut.

An axis is free where its elements never meet. That is tried on numbers, without the analysis: an element of the inputs
is changed, and what else changes is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

import foldfuse as ff
from foldfuse.compiler.pipeline import compile_graph
from foldfuse.compiler.program import trace_entry
from foldfuse.compiler.records import RECORDS, Primitive
from foldfuse.compiler.types import DTYPES, f64
from foldfuse.kernels.axes import Axes, analyse
from foldfuse.kernels.expressions import Dimension
from foldfuse.kernels.flat import FlatEquation, FlatScan, FlatValue, Item, Level, Reference, Unsupported, flatten
from foldfuse.kernels.groups import Group, members
from foldfuse.kernels.partition import KernelStep, partition

from .cells import CELLS, graphs
from .programs import PROGRAMS
from .random_programs import generate
from .random_properties import compiled
from .random_terms import Choices

WIDTH = 8


def groups(graph: Any) -> list[Group]:
    """What a graph's kernels with a loop compute."""
    steps = partition(flatten(graph)).steps
    return [step.group for step in steps if isinstance(step, KernelStep) and step.group.scans]


def only(found: Iterable[Any]) -> Any:
    (one,) = found
    return one


# --- the steps of the design, by name ---------------------------------------------------------------------------------


class Step:
    """The analysis of the one loop of a program, or of its pullback.

    Attributes:
        axes: the analysis.
        scan: the loop.
    """

    def __init__(self, *program: Any, which: str = "forward", memory: str = "save"):
        compiled = graphs(*program, memory=memory)
        self.group = only(groups(getattr(compiled, which)))
        self.axes = analyse(members(self.group))
        self.scan = only(self.group.scans)

    def of(self, carry: int, dim: int) -> int:
        """The class of a dimension of a carry, rows left out."""
        found = self.axes.of(self.scan.carries[carry], len(self.scan.levels) + dim)
        assert found is not None
        return found

    def cuts(self, axis: int, exchanged: bool = True) -> set[str]:
        """The operations that cut an axis where its elements are computed in the step, or where they lie in memory."""
        return {
            cut.equation.equation.op
            for cut in self.axes.cuts
            if cut.axis_class == axis and cut.exchanged == exchanged and cut.equation is not None
        }


def test_lstm() -> None:
    step = Step(*CELLS["lstm"](WIDTH))
    hidden = step.of(0, 0)
    # h and c are one axis: the gates are computed from one and combined with the other.
    assert step.of(1, 0) == hidden and step.axes.extents[hidden] == WIDTH
    assert "contract" in step.cuts(hidden)
    rows = step.axes.of(step.scan.carries[0], 0)
    assert rows in step.axes.free()


def test_layer_norm_lstm() -> None:
    step = Step(*CELLS["layer_norm_lstm"](WIDTH))
    hidden = step.of(0, 0)
    # The product, and the mean and variance of the cell.
    assert {"contract", "reduce_sum"} <= step.cuts(hidden)
    packed = {axis for axis, extent in step.axes.extents.items() if extent == 4 * WIDTH}
    assert any("reduce_sum" in step.cuts(axis) for axis in packed)


def test_block_diagonal_lstm() -> None:
    step = Step(*CELLS["heads"](WIDTH))
    heads, hidden = step.of(0, 0), step.of(0, 1)
    assert step.axes.extents[heads] == 4 and step.axes.extents[hidden] == WIDTH // 4
    assert heads in step.axes.free()
    assert "contract" in step.cuts(hidden)


@pytest.mark.parametrize("cell", ["delta_rule", "linear_attention"])
def test_matrix_memory(cell: str) -> None:
    step = Step(*CELLS[cell](WIDTH), memory="auto")
    keys, values = step.of(0, 0), step.of(0, 1)
    # Each column of the memory is a memory of its own; its rows are summed over, to read it.
    assert values in step.axes.free()
    assert step.cuts(keys) == {"contract"}


def test_independent_units() -> None:
    from .programs.recurrences import indrnn

    step = Step(ff.scan(indrnn(WIDTH, WIDTH), init=ff.zeros(WIDTH)), ff.Seq(ff.f32[WIDTH]))
    assert step.of(0, 0) in step.axes.free()
    # The element's matrix product has left the loop: the step has no cut at all.
    assert not step.axes.cuts


def test_softmax_over_slots() -> None:
    slots = ff.scan(lambda w, x: ff.softmax(w + x), init=ff.zeros(WIDTH))
    step = Step(slots, ff.Seq(ff.f32[WIDTH]))
    assert step.cuts(step.of(0, 0)) == {"reduce_max", "reduce_sum"}


def test_addressing_of_a_turing_machine() -> None:
    program = only(p for p in PROGRAMS if p.name == "face.turing")
    step = Step(*program.build()["main"])
    (memory, weights, read, hidden) = step.scan.carries
    rows = len(step.scan.levels)
    slots, cells = (step.axes.of(memory, rows + d) for d in (0, 1))
    assert step.axes.of(weights, rows) == slots
    assert step.axes.of(read, rows) == cells
    assert step.axes.of(hidden, rows) not in (slots, cells)
    # Content and reading contract, the softmax reduces, the shift takes neighbours.
    assert {"contract", "reduce_max", "reduce_sum", "slice"} <= step.cuts(slots)
    assert "contract" in step.cuts(cells)


def test_a_product_after_a_product() -> None:
    step = Step(*CELLS["gru_first"](WIDTH))
    hidden = step.of(0, 0)
    exchanged = [
        cut.value
        for cut in step.axes.cuts
        if cut.axis_class == hidden and cut.exchanged and cut.equation and cut.equation.equation.op == "contract"
    ]
    # The carry by both gates' matrices, and the carry times the reset gate, which needs the first product.
    (carry,) = step.scan.carries
    assert exchanged.count(carry) == 2
    (other,) = (value for value in exchanged if value is not carry)
    assert other.maker.equation.op == "mul"


def test_attention_over_a_list() -> None:
    step = Step(*CELLS["attention_decoder"](WIDTH))
    listed = only(axis for axis, extent in step.axes.extents.items() if str(extent) == "S")
    # The softmax reduces over the list, and the weighted sum contracts it.
    assert step.cuts(listed) == {"reduce", "contract"}
    assert "contract" in step.cuts(listed, exchanged=False), "the list itself lies beside the loop"


def test_what_is_loaded_is_not_exchanged() -> None:
    # A slice of a matrix of weights is made of what lies in memory: whoever needs another part of it loads that.
    step = Step(*CELLS["gru_first"](WIDTH))
    assert all(cut.value.lead for cut in step.axes.cuts if cut.exchanged)


def test_an_outer_product_of_a_carry_with_itself() -> None:
    def covariance(S: Any, x: Any) -> Any:
        return 0.9 * S + x[:, None] * x

    step = Step(ff.scan(covariance, init=ff.zeros(WIDTH, WIDTH)), ff.Seq(ff.f32[WIDTH]))
    # Row i of the carry needs every element of x, which is the class of its rows and of its columns.
    assert step.of(0, 0) not in step.axes.free()


def test_the_backward_has_the_axes_of_the_forward() -> None:
    step = Step(*CELLS["heads"](WIDTH), which="backward")
    heads, hidden = step.of(0, 0), step.of(0, 1)
    assert heads in step.axes.free() and step.cuts(hidden)


# --- an independent definition ----------------------------------------------------------------------------------------

ROWS, LENGTH = 2, 3
SEEDS = 40

Along = Callable[[FlatValue], int | None]
Change = Callable[[FlatValue, np.ndarray], None]


class Run:
    """Flat items computed in NumPy, equation by equation, each by its record's own meaning.

    Arguments:
        items: what is computed.
        inputs: an array per value that no item makes.
        change: called with each value that an equation made, to change it in place.

    Attributes:
        values: per value that was computed, its last array; of a scan's carries too.
    """

    def __init__(self, items: Sequence[Item], inputs: Mapping[FlatValue, np.ndarray], change: Change = lambda *_: None):
        self.change = change
        self.values: dict[FlatValue, np.ndarray] = dict(inputs)
        self.step: dict[Level, int] = {}
        self.joined: dict[Level, Level] = {}
        self.items(items)

    def items(self, items: Iterable[Item]) -> None:
        for item in items:
            if isinstance(item, FlatEquation):
                self.equation(item)
            else:
                assert isinstance(item, FlatScan)
                self.scan(item)

    def read(self, reference: Reference, at: Mapping[Level, int]) -> np.ndarray:
        return self.values[reference.value][tuple(at.get(x, self.step.get(x, 0)) for x in reference.lead)]

    def places(self, lead: Sequence[Level]) -> Iterator[dict[Level, int]]:
        """Every place under some maps."""
        for place in np.ndindex(*(count(level.size) for level in lead)):
            yield dict(zip(lead, place))

    def equation(self, item: FlatEquation) -> None:
        value, equation = item.output, item.equation
        out = np.empty([count(n) for n in value.dims], DTYPES[value.dtype].numpy)
        for at in self.places(value.lead):
            operands = [self.read(reference, at) for reference in item.operands]
            out[tuple(at.values())] = meaning(equation, operands)
        self.change(value, out)
        self.values[value] = out

    def scan(self, scan: FlatScan) -> None:
        steps = count(scan.level.size)
        lead = [count(level.size) for level in scan.levels]

        def take(value: FlatValue, reference: Reference) -> np.ndarray:
            own = [count(n) for n in value.dims[len(lead) :]]
            out = np.empty((*lead, *own), DTYPES[value.dtype].numpy)
            for at in self.places(scan.levels):
                out[tuple(at.values())] = self.read(reference, at)
            return out

        state = [take(carry, first) for carry, first in zip(scan.carries, scan.initial, strict=True)]
        for value in scan.outputs:
            self.values[value] = np.zeros([count(n) for n in value.dims], DTYPES[value.dtype].numpy)
        for t in reversed(range(steps)) if scan.reverse else range(steps):
            self.step[scan.level] = t
            self.step.update({other: t for other, own in scan.joined.items() if own is scan.level})
            self.values.update(zip(scan.carries, state, strict=True))
            self.items(scan.items)
            for value, emitted in zip(scan.outputs, scan.emitted, strict=True):
                for at in self.places(scan.levels):
                    self.values[value][(*at.values(), t)] = self.read(emitted, at)
            state = [take(carry, after) for carry, after in zip(scan.carries, scan.following, strict=True)]
        self.values.update(zip(scan.last, state, strict=True))


def count(extent: Dimension) -> int:
    """An extent as a number: a batch of two, lists of three."""
    if isinstance(extent, int):
        return extent
    return int(extent.evaluate(lambda name: ROWS if name == "B" else LENGTH))


def meaning(equation: Any, operands: Sequence[np.ndarray]) -> Any:
    """What an equation gives, its list axes as dimensions of arrays."""
    op, a = equation.op, equation.attributes
    if op == "contract":
        return np.einsum(a["spec"], *operands)
    if isinstance(RECORDS[op], Primitive):
        return RECORDS[op].numpy(*operands, **a)
    reductions = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}
    return {
        "reduce": lambda x: reductions[a["op"]].reduce(x, axis=0),
        "stack": lambda x: x,
        "unstack": lambda x: x,
        "iota": lambda: np.arange(count(a["size"])),
        "length": lambda: count(a["size"]),
        "element": lambda x, i: x[i],
        "scatter_element": lambda x, i: np.stack([x if j == i else 0 * x for j in range(count(a["size"]))]),
    }[op](*operands)


def inputs_of(items: Sequence[Item]) -> list[FlatValue]:
    """The values that items read and none of them makes."""
    made: set[FlatValue] = set()
    read: dict[FlatValue, None] = {}

    def go(items: Iterable[Item]) -> None:
        for item in items:
            if isinstance(item, FlatEquation):
                read.update((r.value, None) for r in item.operands)
                made.add(item.output)
            elif isinstance(item, FlatScan):
                made.update((*item.carries, *item.last, *item.outputs))
                read.update((r.value, None) for r in (*item.initial, *item.following, *item.emitted))
                go(item.items)

    go(items)
    return [value for value in read if value not in made]


def drawn(value: FlatValue, rng: np.random.Generator) -> np.ndarray:
    shape = [count(n) for n in value.dims]
    if value.table is not None:
        return np.asarray(value.table)
    if value.dtype == "bool":
        return rng.random(shape) < 0.5
    if value.dtype in ("i32", "i64"):
        return rng.integers(0, 2, shape).astype(DTYPES[value.dtype].numpy)
    return rng.uniform(0.2, 1.5, shape) * rng.choice((-1.0, 1.0), shape)


def meeting(items: Sequence[Item], along: Along, extent: int, seed: int = 0) -> str:
    """Where elements of an axis meet, as numbers show it; empty, if they do nowhere.

    All that stands at one place along the axis, inputs and what is computed, is changed: nothing that stands elsewhere
    may change. Each place has its turn.

    Arguments:
        items: what is computed.
        along: the first dimension of a value that lies along the axis: who owns a place owns the elements there.
        extent: of the axis.
        seed: of the inputs and of the changes.
    """
    rng = np.random.default_rng(seed)
    inputs = {value: drawn(value, rng) for value in inputs_of(items)}
    with np.errstate(all="ignore"):
        before = Run(items, inputs).values
        for place in range(extent):
            there = lambda value, place=place: (
                None if along(value) is None else (slice(None),) * along(value) + (place,)
            )

            def change(value: FlatValue, held: np.ndarray, there: Any = there) -> None:
                if there(value) is not None and np.issubdtype(held.dtype, np.floating) and value.table is None:
                    held[there(value)] *= rng.uniform(0.5, 0.9, held[there(value)].shape)

            changed = {value: held.copy() for value, held in inputs.items()}
            for value, held in changed.items():
                change(value, held)
            after = Run(items, changed, change).values
            for value in before.keys() - inputs.keys():
                differs = ~np.isclose(before[value], after[value], rtol=1e-9, atol=1e-12, equal_nan=True)
                if there(value) is not None:
                    differs[there(value)] = False
                if differs.any():
                    return f"{value} changes elsewhere than at {place} of {extent}"
    return ""


def along_class(axes: Axes, axis: int) -> Along:
    return lambda value: next((d for d in range(len(value.dims)) if axes.of(value, d) == axis), None)


def along_rows(value: FlatValue) -> int | None:
    return next((d for d, n in enumerate(value.dims) if str(n) == "B"), None)


def in_double(*program: Any) -> Any:
    graph = trace_entry("main", program[0], program[1:]).graph
    needs = [value.type.dtype.is_float for value in graph.body.parameters]
    return compile_graph(graph, needs, memory="save", float_dtype=f64)


RECURRENCES = [
    p
    for p in PROGRAMS
    if (p.family == "recurrences" and p.name.endswith((".scan", ".fold.reverse"))) or p.name == "face.turing"
]


def tried(group: Group) -> Iterator[tuple[bool, str]]:
    """For each axis of a kernel whether the analysis says that it is free, and where its elements meet."""
    items = members(group)
    axes = analyse(items, group.targets)
    rows = {str(n) for n in group.rows} | {str(scan.level.size) for scan in group.scans}
    for axis, extent in axes.extents.items():
        if count(extent) > 1 and str(extent) not in rows:
            yield axis in axes.free(), meeting(items, along_class(axes, axis), count(extent))


@pytest.mark.parametrize("which", ["forward", "backward"])
@pytest.mark.parametrize("program", RECURRENCES, ids=lambda p: p.name)
def test_free_axes_are_those_that_never_meet(program: Any, which: str) -> None:
    compiled = in_double(*program.build()["main"])
    for group in groups(getattr(compiled, which)):
        assert not meeting(members(group), along_rows, ROWS)
        for free, met in tried(group):
            assert free == (not met), met or "an axis is cut whose elements never meet"


@pytest.mark.parametrize("seed", range(SEEDS))
def test_free_axes_of_random_programs_never_meet(seed: int) -> None:
    function, types = compiled(generate(Choices.seeded(seed), seed, fuel=8))
    made = in_double(function, *types)
    for graph in (made.forward, made.backward):
        try:
            steps = partition(flatten(graph)).steps
        except Unsupported:
            continue  # lists of a length that the data decides: evaluated
        for step in steps:
            if isinstance(step, KernelStep):
                for free, met in tried(step.group):
                    assert not (free and met), met
