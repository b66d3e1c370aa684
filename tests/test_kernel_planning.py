"""From a graph to kernels: the flat program, what is computed together, loop trees, and the choice of a placement."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

import foldfuse as ff
from foldfuse.compiler.errors import StrategyError
from foldfuse.compiler.ir import Graph
from foldfuse.compiler.sizes import Named
from foldfuse.kernels.barriers import needs_grid
from foldfuse.kernels.estimate import WRITTEN
from foldfuse.kernels.flat import FlatOpaque, FlatScan, FlatValue, Item, Unsupported, flatten
from foldfuse.kernels.kernel import total
from foldfuse.kernels.loop_tree import Barrier, Loop, Tree
from foldfuse.kernels.partition import EvaluatorStep, KernelStep, partition
from foldfuse.kernels.proposals import PROPOSALS, Proposal, Steps
from foldfuse.kernels.request import STRATEGIES, Request, typical_rows
from foldfuse.runtime import fused

from .cells import CELLS, MORE_CELLS, graphs
from .programs import PROGRAMS, recurrences

# --- the flat program -------------------------------------------------------------------------------------------------

vectors = ff.Seq(ff.f32[3])


def dims(value: FlatValue) -> str:
    return f"{value.dtype}[{', '.join(map(str, value.dims))}]"


def operations(items: Sequence[Item]) -> list[str]:
    return [item.equation.op for item in items]


def test_maps_are_dimensions() -> None:
    double_tanh = lambda xs: ff.map(lambda v: ff.tanh(v) + 1.0)(ff.map(lambda v: v * 2.0)(xs))
    program = flatten(graphs(double_tanh, vectors).forward)
    arithmetic = [item for item in program.items if item.equation.op != "constant"]
    assert operations(arithmetic) == ["mul", "tanh", "add"]
    assert {dims(item.output) for item in arithmetic} == {"f32[B, T, 3]"}
    assert [str(level.size) for level in program.outputs[0].lead] == ["B", "T"]


def test_nested_maps_are_more_dimensions() -> None:
    W = ff.param((3, 4), "W")
    words = lambda sentences: ff.map(lambda sentence: ff.map(lambda v: ff.tanh(v @ W))(sentence))(sentences)
    program = flatten(graphs(words, ff.Seq(vectors)).forward)
    product, squashed = program.items
    assert operations(program.items) == ["contract", "tanh"]
    assert dims(product.output) == "f32[B, T, T1, 4]"
    # The matrix varies with no map, and the element with all three.
    element, matrix = product.operands
    assert (len(element.lead), len(matrix.lead)) == (3, 0)
    assert squashed.operands[0].value is product.output


def test_what_does_not_vary_with_a_map_has_no_dimension_for_it() -> None:
    shifted = lambda v, xs: ff.map(lambda x: x + ff.exp(v))(xs)
    program = flatten(graphs(shifted, ff.f32[3], vectors).forward)
    exponential = next(item for item in program.items if item.equation.op == "exp")
    assert dims(exponential.output) == "f32[B, 3]"


def test_a_scan_keeps_its_step() -> None:
    program = flatten(graphs(*CELLS["lstm"](4)).forward)
    (scan,) = (item for item in program.items if isinstance(item, FlatScan))
    assert [dims(carry) for carry in scan.carries] == ["f32[B, 4]", "f32[B, 4]"]
    assert dims(scan.outputs[0]) == "f32[B, T, 4]" and not scan.reverse
    assert scan.level.axis.role == "step" and str(scan.level.size) == "T"
    assert {level.size for level in scan.levels} == {Named("B")}
    # The backward runs the other way.
    (back,) = (i for i in flatten(graphs(*CELLS["lstm"](4)).backward).items if isinstance(i, FlatScan))
    assert back.reverse


def test_checkpoints_are_segments_of_a_list() -> None:
    program = flatten(graphs(*CELLS["delta_rule"](8)).forward)
    ((inner, (size, length)),) = program.segments.items()
    assert str(size) == "T" and length > 1
    outer = next(item for item in program.items if isinstance(item, FlatScan))
    # A loop over segments holds a loop over the elements of one; nothing is copied to cut the list.
    (within,) = (item for item in outer.items if isinstance(item, FlatScan))
    assert str(within.level.size) == inner and str(outer.level.size) == str(size.quotient(length - 1, length))


def test_a_list_whose_length_the_data_decides_is_refused() -> None:
    halving = ff.unfold(lambda h: (h * 0.5, h), until=lambda h: ff.sum(h) < 1.0)
    with pytest.raises(Unsupported, match="length that the data decides"):
        flatten(graphs(halving, ff.f32[3]).forward)


def test_what_no_kernel_is_made_of_stays_whole() -> None:
    pooled = ff.window_map(lambda w: ff.sum(w), 2)
    program = flatten(graphs(pooled, vectors).forward)
    (opaque,) = (item for item in program.items if isinstance(item, FlatOpaque))
    assert opaque.equation.op == "view" and "view" in opaque.reason


# --- kernels and evaluations ------------------------------------------------------------------------------------------


def steps(graph: Graph, vendor: bool = True) -> list[str]:
    """The steps of a graph: of a kernel, how many loops and other values it makes; of an evaluation, why."""
    out = []
    for step in partition(flatten(graph), vendor).steps:
        if isinstance(step, KernelStep):
            out.append(f"kernel of {len(step.group.scans)} loops and {len(step.group.targets)} values")
        else:
            out.append(f"{step.item.equation.op}: {step.reason}")
    return out


LIBRARY = "contract: a matrix product: the vendor's library"


def test_a_recurrence_is_a_product_and_a_kernel() -> None:
    assert steps(graphs(*CELLS["lstm"](4)).forward) == [LIBRARY, "kernel of 1 loops and 0 values"]


def test_without_the_vendors_library_products_are_kernels() -> None:
    made = steps(graphs(*CELLS["lstm"](4)).forward, vendor=False)
    assert made == ["kernel of 0 loops and 1 values", "kernel of 1 loops and 0 values"]


def test_arithmetic_is_one_kernel() -> None:
    long = lambda xs: ff.map(lambda v: ff.softmax(ff.tanh(v) * 2.0 + ff.exp(-v)))(xs)
    assert steps(graphs(long, vectors).forward) == ["kernel of 0 loops and 1 values"]


def test_a_sum_over_the_batch_is_the_librarys() -> None:
    b = ff.param((3,), "b")
    made = steps(graphs(lambda xs: ff.map(lambda v: ff.tanh(v + b))(xs), vectors).backward)
    assert made[-1] == "reduce: a sum over the outermost list: the vendor's library"


@pytest.mark.parametrize("flat", [False, True], ids=["padded", "flat"])
@pytest.mark.parametrize("cell", ["lstm", "peephole"])
def test_gradients_of_parameters_keep_all_programs_busy(cell: str, flat: bool) -> None:
    """What is summed over a list is made for all elements side by side, and no kernel runs along a row alone."""
    graph = graphs(*(CELLS | MORE_CELLS)[cell](4)).backward
    made = partition(flatten(graph.with_flat(("T",) if flat else ()))).steps
    rows = [s.group.rows for s in made if isinstance(s, KernelStep) and not s.group.scans]
    assert rows == ([(Named("B"), Named("T"))] if cell == "peephole" else [])
    sums = [s.item.reduced for s in made if isinstance(s, EvaluatorStep) and s.item.equation.op == "reduce"]
    whole, one = (Named("B"), Named("T")), (Named("B"),)
    assert set(sums) == ({whole} if flat else {one, (Named("T"),)})


def test_windows_are_evaluated() -> None:
    made = steps(graphs(ff.window_map(lambda w: ff.tanh(ff.sum(w)), 2), vectors).forward)
    assert made[0].startswith("view: no kernels are made of view") and made[1].startswith("kernel")


def test_what_is_packed_for_a_product_is_emitted_into_the_pack() -> None:
    parts = partition(flatten(graphs(*CELLS["lstm"](4)).backward))
    (group,) = (s.group for s in parts.steps if isinstance(s, KernelStep) and s.group.scans)
    aliases = [parts.aliases[output] for output in group.scans[0].outputs]
    # The four gates' gradients lie side by side: one product over all steps takes them.
    (pack,) = {alias.buffer for alias in aliases}
    assert dims(pack) == "f32[B, T, 16]"
    assert sorted((alias.dim, alias.offset) for alias in aliases) == [(2, 0), (2, 4), (2, 8), (2, 12)]
    assert not any(pack in s.group.targets for s in parts.steps if isinstance(s, KernelStep))


def test_two_cheap_folds_over_one_list_are_one_loop() -> None:
    def both(xs: Any) -> Any:
        smooth = ff.fold(lambda s, x: 0.9 * s + 0.1 * x, init=ff.zeros(3))(xs)
        top = ff.fold(lambda s, x: ff.maximum(0.5 * s, x), init=ff.zeros(3))(xs)
        return smooth, top

    (group,) = (s.group for s in partition(flatten(graphs(both, vectors).forward)).steps)
    (scan,) = group.scans
    assert len(scan.carries) == 2


def test_a_cheap_fold_joins_one_that_waits_for_a_product() -> None:
    program = next(p for p in PROGRAMS if p.name == "nestings.two_folds")
    kernels = [
        s for s in partition(flatten(graphs(*program.build()["main"]).forward)).steps if isinstance(s, KernelStep)
    ]
    loops = [s.group for s in kernels if s.group.scans]
    assert len(loops) == 1 and len(loops[0].scans) == 1, "a banana split"


def test_two_directions_are_side_by_side() -> None:
    def both(xs: Any) -> Any:
        left, right = (
            ff.scan(recurrences.lstm(4, 3), init=recurrences.rest(4), reverse=reverse)(xs) for reverse in (False, True)
        )
        return left, right

    compiled = graphs(both, vectors)
    for graph in (compiled.forward, compiled.backward):
        (group,) = (s.group for s in partition(flatten(graph)).steps if isinstance(s, KernelStep) and s.group.scans)
        assert [scan.reverse for scan in group.scans] in ([False, True], [True, False])


def test_a_weight_is_rounded_once_a_call() -> None:
    parts = partition(flatten(graphs(*CELLS["lstm"](16), operands="bf16").forward))
    rounded = [v for s in parts.steps if isinstance(s, KernelStep) for v in s.group.targets if v.dtype == "bf16"]
    assert any(value.dims[:1] == (16,) for value in rounded)


# --- loop trees -------------------------------------------------------------------------------------------------------


def proposals(graph: Graph, strategy: str, rows: int = 16, **request: Any) -> list[Proposal]:
    """What a strategy proposes for the one loop of a graph, with tiles of some number of rows."""
    parts = partition(flatten(graph))
    (group,) = (s.group for s in parts.steps if isinstance(s, KernelStep) and s.group.scans)
    return list(PROPOSALS[strategy](Steps(parts, group), Request(**request), rows))


def tree(graph: Graph, strategy: str, **request: Any) -> Tree:
    """The loop tree of the first proposal."""
    (made,) = proposals(graph, strategy, **request)[0].trees
    return made


def meetings(made: Tree, kind: str = "grid") -> int:
    """The barriers of a kind in a step of the outermost loop."""
    (loop,) = (item for item in made.items if isinstance(item, Loop))
    return sum(isinstance(item, Barrier) and item.kind == kind for item in loop.items)


def kinds(made: Tree) -> dict[str, int]:
    """How many values lie in registers and in scratch memory."""
    (loop,) = (item for item in made.items if isinstance(item, Loop))
    found = [made.storage[carry].kind for carry in loop.scan.carries]
    return {kind: found.count(kind) for kind in ("register", "scratch")}


def test_a_resident_lstm_is_one_stage() -> None:
    compiled = graphs(*CELLS["lstm"](16), operands="bf16")
    for graph in (compiled.forward, compiled.backward):
        made = tree(graph, "resident")
        (loop,) = made.items[:1]
        assert len(loop.items) == 1 and kinds(made) == {"register": 2, "scratch": 0}


def test_a_cooperative_lstm_exchanges_what_it_multiplies() -> None:
    compiled = graphs(*CELLS["lstm"](256), operands="bf16")
    forward, backward = tree(compiled.forward, "cooperative"), tree(compiled.backward, "cooperative")
    # h and c stay where they are; what the others read is h, rounded.
    assert kinds(forward) == {"register": 2, "scratch": 1}
    assert [value.dtype for value, place in forward.storage.items() if place.kind == "scratch"] == ["bf16"] * 2
    # Both cotangents stay; the gates' gradients go through the lists that they are emitted in.
    assert kinds(backward) == {"register": 2, "scratch": 0}
    assert not any(storage.kind == "scratch" for storage in backward.storage.values())


BARRIERS = {
    "lstm": (1, 1),
    "gru": (1, 1),
    "gru_first": (2, 2),
    "linear_attention": (0, 0),
    # Two layers of normalisation and a product: what each sums is exchanged at one barrier.
    "layer_norm_lstm": (3, 3),
}
"""The barriers of a step, forward and backward, of a cooperative kernel."""


@pytest.mark.parametrize("cell", BARRIERS)
def test_barriers_of_a_step(cell: str) -> None:
    compiled = graphs(*CELLS[cell](64), operands="bf16", memory="save")
    made = [tree(graph, "cooperative") for graph in (compiled.forward, compiled.backward)]
    assert tuple(map(meetings, made)) == BARRIERS[cell]


def test_programs_exchange_numbers_of_what_they_sum() -> None:
    """A packed axis lies on the programs as its parts do: only sums and what is multiplied are exchanged."""
    compiled = graphs(*CELLS["layer_norm_lstm"](256), operands="bf16", memory="save")
    for graph in (compiled.forward, compiled.backward):
        (proposal, *_) = proposals(graph, "cooperative")
        (made,) = proposal.trees
        exchanged = {place.buffer for place in made.storage.values() if place.kind == "scratch"}
        numbers = [value for value in exchanged if value.dtype == "f32"]
        assert numbers and all(value.dims[1:] == (proposal.placement.programs,) for value in numbers)
        assert all(value.dims[1:] == (256,) for value in exchanged if value.dtype == "bf16")


def test_lists_of_every_program_are_for_small_batches() -> None:
    """What all programs compute alike, and what they contribute to sums, is a list for each of them where rows are
    few."""
    parts = partition(flatten(graphs(*CELLS["attention_decoder"](256), operands="bf16").forward))
    (group,) = (s.group for s in parts.steps if isinstance(s, KernelStep) and s.group.scans)
    for rows, spacious in ((32, True), (128, True), (8192, False)):
        (proposal, *_) = PROPOSALS["cooperative"](Steps(parts, group), Request(rows=rows), 16)
        (made,) = proposal.trees
        scratch = [place for place in made.storage.values() if place.kind == "scratch"]
        assert any(place.private for place in scratch) == spacious
        contributed = [place.buffer.dims[1:] for place in scratch]
        assert ((Named("S"), proposal.placement.programs) in contributed) == spacious


def test_independent_units_never_meet() -> None:
    n = 64
    compiled = graphs(ff.scan(recurrences.indrnn(n, n), init=ff.zeros(n)), ff.Seq(ff.f32[n]))
    for graph in (compiled.forward, compiled.backward):
        for strategy in ("resident", "cooperative"):
            for proposal in proposals(graph, strategy):
                assert not needs_grid(proposal.trees[0]) and not meetings(proposal.trees[0], "program")
        # A free axis lies on the grid, also where one program would hold it.
        assert any(proposal.placement.programs > 1 for proposal in proposals(graph, "resident"))


def test_a_plain_fold_has_no_barrier() -> None:
    compiled = graphs(ff.fold(lambda s, x: 0.5 * s + ff.tanh(x), init=ff.zeros(8)), ff.Seq(ff.f32[8]))
    for graph in (compiled.forward, compiled.backward):
        for strategy in STRATEGIES:
            made = tree(graph, strategy)
            assert meetings(made) == meetings(made, "program") == 0 and kinds(made) == {"register": 1, "scratch": 0}


def test_independent_cuts_share_a_barrier() -> None:
    """Two products of one carry with two matrices need what one needs."""

    def step(h: Any, x: Any) -> Any:
        return ff.tanh(x + h @ ff.param((64, 64), "U")) * ff.sigmoid(h @ ff.param((64, 64), "V"))

    compiled = graphs(ff.scan(step, init=ff.zeros(64)), ff.Seq(ff.f32[64]))
    assert meetings(tree(compiled.forward, "cooperative")) == 1


# --- the choice -------------------------------------------------------------------------------------------------------


def planned(graph: Graph, **request: Any) -> fused.Fused:
    made = fused.plan(graph, Request(**request), frozenset())
    assert isinstance(made, fused.Fused), made
    return made


def loops(made: fused.Fused) -> list[fused.PlannedKernel]:
    return [kernel for kernel in made.kernels if kernel.kernel.name.startswith("scan")]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("cell", CELLS)
def test_a_strategy_can_be_asked_for(cell: str, strategy: str) -> None:
    compiled = graphs(*CELLS[cell](16))
    for graph in (compiled.forward, compiled.backward):
        (loop,) = loops(planned(graph, force=strategy, strict=True))
        assert loop.kernel.strategy == loop.choice.placement.strategy == strategy
        assert loop.kernel.why == "as asked for"


def test_a_strategy_that_cannot_hold_a_step_says_what_is_missing() -> None:
    graph = graphs(*CELLS["lstm"](1024), operands="bf16").forward
    with pytest.raises(StrategyError, match="bytes of shared memory, of 232,448"):
        planned(graph, force="resident", strict=True)
    numbers = graphs(ff.scan(lambda s, x: 0.5 * s + ff.tanh(s * x), init=ff.zeros(())), ff.Seq(ff.f32)).forward
    with pytest.raises(StrategyError, match="cooperative: its carries have no dimension"):
        planned(numbers, force="cooperative", strict=True)
    # Where it is a wish, another strategy takes its place, and says so.
    (loop,) = loops(planned(numbers, force="cooperative"))
    assert loop.kernel.strategy == "streamed" and loop.kernel.why.startswith("cooperative not: ")


WIDTHS = (16, 24, 64, 100, 128, 256, 512, 1024)
CHOICES = {
    "sm_90": ("resident", "resident", "resident", *["cooperative"] * 5),
    "gfx942": ("resident", "resident", "resident", *["cooperative"] * 5),
}
"""What the cost model chooses for an LSTM in bf16, by width."""


@pytest.mark.parametrize("target", CHOICES)
def test_the_choice_for_an_lstm(target: str) -> None:
    found = []
    for width in WIDTHS:
        compiled = graphs(*CELLS["lstm"](width), operands="bf16")
        (forward,), (backward,) = (
            loops(planned(graph, target=target)) for graph in (compiled.forward, compiled.backward)
        )
        assert forward.kernel.strategy == backward.kernel.strategy
        found.append(forward.kernel.strategy)
    assert tuple(found) == CHOICES[target]
    # Of the last and widest, what the others would take or lack.
    assert "streamed" in forward.kernel.why and "resident not: its weights and tiles" in forward.kernel.why


def test_a_kernel_that_spills_is_planned_again() -> None:
    graph = graphs(*CELLS["lstm"](64), operands="bf16").forward
    (first,) = loops(planned(graph))

    def until(lean: int) -> fused.PlannedKernel:
        """The kernel where all that are less lean spill, each less than the one before."""
        made, seen = planned(graph), {}

        def spilled(kernel: Any) -> int:
            return max(0, lean - seen.setdefault(kernel.key, len(seen))) if kernel.name == "scan" else 0

        made.settle(spilled)
        return loops(made)[0]

    assert until(0).kernel.key == first.kernel.key
    leaner = [until(lean).choice for lean in (1, 2)]
    budgets = [c.placement.early + c.placement.waiting for c in (first.choice, *leaner)]
    assert budgets == sorted(set(budgets), reverse=True)
    # More threads have more registers together.
    assert [c.placement.warps for c in leaner] == [8, 8]
    # Of those that all spill, the one that does least; of equals, the first.
    last = until(10).choice.placement
    assert (last.early, last.waiting, last.resident) == (4, 0, False)
    made = planned(graph)
    made.settle(lambda kernel: 8)
    assert loops(made)[0].kernel.key == first.kernel.key


def test_tiles_grow_with_the_batch() -> None:
    """A wide LSTM's programs are so many that a larger batch takes larger tiles."""
    graph = graphs(*CELLS["lstm"](512), operands="bf16").forward
    placements = [loops(planned(graph, rows=typical_rows(rows)))[0].choice.placement for rows in (16, 100, 5000)]
    assert [p.strategy for p in placements[:2]] == ["cooperative", "cooperative"]
    assert [p.rows for p in placements] == [16, 32, 64]
    # A narrow one has programs to spare.
    graph = graphs(*CELLS["lstm"](64), operands="bf16").forward
    placements = [loops(planned(graph, rows=typical_rows(rows)))[0].choice.placement for rows in (16, 100)]
    assert [(p.strategy, p.rows) for p in placements] == [("resident", 16)] * 2


@pytest.mark.parametrize("width", [16, 128])
def test_the_memory_of_lists_does_not_grow_with_the_batch(width: int) -> None:
    """A state of 128 × 128 of each step of a segment is two megabytes a row."""
    graph = graphs(*CELLS["delta_rule"](width), operands="bf16").backward
    for rows in (16, 100, 5000):
        kernel = loops(planned(graph, rows=typical_rows(rows)))[0].kernel
        scratch = [a.extent for a in kernel.arguments if a.kind == "scratch" and Named("segment1") in a.extent]

        def elements(batch: int, scratch: list = scratch) -> int:
            lookup = {"B": batch, "segment1": 32, "T": 4096}.__getitem__
            return sum(total((extent,), lookup) for extent in scratch)

        assert scratch and elements(1) < elements(10_000) == elements(20_000)
        # As many tiles run at once as there is memory for.
        assert kernel.programs({"B": 20_000})[0] == kernel.grid[0].most


def test_a_matrix_state_is_spread_where_its_programs_need_not_meet() -> None:
    """The gradients of keys are sums over the values, which no step reads: the programs meet behind a segment."""
    loop = loops(planned(graphs(*CELLS["delta_rule"](128), operands="bf16").backward))[0]
    placement = loop.choice.placement
    assert (placement.strategy, placement.rows, placement.partial) == ("cooperative", 1, True)
    # A program holds all keys of its values.
    assert sorted(placement.own.values()) == [1, 32] and placement.programs == 4
    assert all(Named("segment1") not in trips for trips in loop.kernel.account.barriers)
    # What is estimated is a turn of the outermost loop.
    assert loop.choice.why.startswith("a segment of 32 rows is estimated at")


def test_a_sum_is_not_written_out_in_many_blocks() -> None:
    """The compiler would take minutes for what comes out."""
    loop = loops(planned(graphs(*CELLS["delta_rule"](1024), operands="bf16").backward))[0]
    assert 1 <= loop.choice.estimate.written <= WRITTEN
    assert len(loop.kernel.source.splitlines()) < 400


def test_rows_that_no_tensor_core_needs_are_given_up_first() -> None:
    rows_of = lambda graph, **request: loops(planned(graph, **request))[0].choice.placement.rows
    graph = graphs(*MORE_CELLS["gated_delta"](16)).backward
    assert rows_of(graph) == 1
    assert rows_of(graph, rows=8192) > 1 == rows_of(graph, rows=8192, lean=3)
    # A product with weights takes sixteen.
    assert rows_of(graphs(*CELLS["lstm"](16), operands="bf16").backward) == 16


def test_the_kinds_of_batch() -> None:
    assert [typical_rows(rows) for rows in (0, 1, 32, 33, 512, 513, 10**6)] == [32, 32, 32, 128, 128, 8192, 8192]
    # Rows are all that a scan runs over at once: here the words of all sentences.
    words = ff.map(ff.fold(lambda h, x: ff.tanh(h + x), init=ff.zeros(3)))
    program = flatten(graphs(words, ff.Seq(vectors)).forward)
    assert fused.batch_rows(program, {"B": 5, "T": 10, "T1": 7}) == 50
    assert fused.batch_rows(program, {"B": 5}) == 0


def test_equal_layers_are_one_text() -> None:
    expression = None
    for _ in range(LAYERS):
        layer = ff.scan(recurrences.lstm(8, 8), init=recurrences.rest(8))
        expression = layer if expression is None else expression >> layer
    compiled = graphs(expression, ff.Seq(ff.f32[8]))
    for graph in (compiled.forward, compiled.backward):
        made = loops(planned(graph))
        assert len(made) == LAYERS
        assert len({loop.kernel.source for loop in made}) == len({loop.kernel.key for loop in made}) == 1


LAYERS = 64


def test_planning_needs_no_triton() -> None:
    program = """
import sys
sys.modules["triton"] = None
import foldfuse as ff
from foldfuse.kernels.request import Request
from foldfuse.kernels.targets import TARGETS
from foldfuse.runtime import fused

W = ff.param((4, 4), "W")
graph = ff.compile(ff.scan(lambda h, x: ff.tanh(x + h @ W), init=ff.zeros(4)), ff.Seq(ff.f32[4])).graph()
for name in TARGETS:
    made = fused.plan(graph, Request(name), frozenset())
    assert [kernel.kernel.name for kernel in made.kernels] == ["scan"], made
"""
    subprocess.run([sys.executable, "-c", program], check=True)
