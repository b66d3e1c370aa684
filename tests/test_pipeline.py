"""The passes as a whole: what is left in the loops of real recurrences, precision, and what compiling costs."""

from __future__ import annotations

import numpy as np
import pytest

import foldfuse as ff
from foldfuse.compiler.adjoint import differentiate
from foldfuse.compiler.errors import VerificationError
from foldfuse.compiler.ir import Graph, live_equations, sub_equations, verify
from foldfuse.compiler.laws import Firing, Refusal
from foldfuse.compiler.parser import parse
from foldfuse.compiler.pipeline import PASSES, compile_graph, normalise
from foldfuse.compiler.precision import with_precision
from foldfuse.compiler.program import trace_entry
from foldfuse.compiler.types import bf16, f32, f64
from foldfuse.runtime.reference import evaluate

from .counting import calls
from .law_programs import (
    assert_close,
    counts,
    in_double,
    loops,
    matrices,
    random_arguments,
    random_like,
    random_tables,
)
from .programs import PROGRAMS
from .programs import recurrences as cells

D, H = 3, 5
STEPS = {
    "elman": lambda: (cells.elman(H, D), ff.zeros(H)),
    "lstm": lambda: (cells.lstm(H, D), cells.rest(H)),
    "lstm_sliced": lambda: (cells.lstm_sliced(H, D), cells.rest(H)),
    "lstm_concat": lambda: (cells.lstm_concat(H, D), cells.rest(H)),
    "layer_norm_lstm": lambda: (cells.lstm(H, D, ff.layer_norm), cells.rest(H)),
    "gru": lambda: (cells.gru(H, D), ff.zeros(H)),
}


def recurrence(name: str, **options) -> Graph:
    step, init = STEPS[name]()
    return trace_entry(name, ff.scan(step, init=init, **options), [ff.Seq(ff.f32[D])]).graph


def compiled(graph: Graph, **options):
    needs = [v.type.dtype.is_float for v in graph.body.parameters]
    return compile_graph(graph, needs, check=True, **options)


# --- the recurrent core -----------------------------------------------------------------------------------------------

LSTM_FORWARD = {"contract": 4, "add": 5, "sigmoid": 3, "tanh": 2, "mul": 3}
LSTM_BACKWARD = {"contract": 4, "add": 5, "mul": 11}
CORES = {
    "elman": ({"contract": 1, "add": 1, "tanh": 1}, {"contract": 1, "add": 1, "mul": 1}),
    "lstm": (LSTM_FORWARD, LSTM_BACKWARD),
    "lstm_sliced": (LSTM_FORWARD, LSTM_BACKWARD),
    "lstm_concat": (LSTM_FORWARD, LSTM_BACKWARD),
    "gru": (
        {"contract": 3, "add": 5, "sigmoid": 2, "sub": 1, "mul": 3, "tanh": 1},
        {"contract": 3, "add": 4, "sub": 1, "mul": 9},
    ),
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", CORES)
def test_recurrent_core(name, reverse):
    made = compiled(recurrence(name, reverse=reverse))
    forward, backward = CORES[name]
    (step,) = loops(made.forward, "scan")
    assert dict(counts(step.bodies[0])) == forward
    (step,) = loops(made.backward, "scan")
    assert dict(counts(step.bodies[0])) == backward


@pytest.mark.parametrize("name", STEPS)
def test_no_matrix_gradient_in_a_loop(name):
    made = compiled(recurrence(name))
    assert list(matrices(made.forward)) == []
    assert list(matrices(made.backward)) == []
    products = [e for e in made.backward.body.equations if e.op == "contract"]
    weights = sum(len(v.type.shape) == 2 for v in made.backward.body.results)
    assert 1 <= len(products) <= 2 * weights
    for e in products:
        assert [len(v.type.axes) for v in e.inputs] == [2, 2], (
            "a matrix gradient is one contraction over batch and steps"
        )


@pytest.mark.parametrize("name", ["lstm", "gru", "layer_norm_lstm"])
def test_projection_is_one_product(name):
    made = compiled(recurrence(name))
    wide = [e for e in sub_equations(made.forward.body) if e.op == "contract" and e.output.type.shape[0] > H]
    hoisted = [e for e in wide if e.inputs[0].type.shape == (D,)]
    assert len(hoisted) == 1


def test_layer_norm_keeps_its_packed_contraction():
    made = compiled(recurrence("layer_norm_lstm"))
    for graph in (made.forward, made.backward):
        (step,) = loops(graph, "scan")
        assert counts(step.bodies[0])["contract"] == 1
    (refusal,) = {n.reason for n in made.notes if isinstance(n, Refusal) and n.law == "slice of a contraction"}
    assert "reduce_sum needs its whole axis" in refusal


def test_concatenated_weight_has_one_gradient_product():
    made = compiled(recurrence("lstm_concat"))
    (product,) = [e for e in made.backward.body.equations if e.op == "contract"]
    assert product.output.type.shape == (H + D, 4 * H)


def test_embedding_gradient_makes_no_table_per_step():
    program = ff.map(ff.embedding(7, D)) >> ff.scan(cells.elman(H, D), init=ff.zeros(H))
    graph = trace_entry("words", program, [ff.Seq(ff.i64)]).graph
    made = compiled(graph)
    assert loops(made.backward, "accumulate_rows") and not loops(made.backward, "scatter_add")
    assert list(matrices(made.backward)) == []


def test_notes_say_what_happened_where():
    made = compiled(recurrence("lstm"))
    fired = [n for n in made.notes if isinstance(n, Firing)]
    assert {"input hoist", "slice of a contraction", "accumulator sink", "output sink", "map fusion"} <= {
        n.law for n in fired
    }
    assert any(n.where is not None and n.where.file == cells.__file__ for n in fired)


# --- meaning ----------------------------------------------------------------------------------------------------------


# Two trees, of five and of three nodes, whose inner nodes have two children each.
TREE_TABLES = {"B": 2, "N": [5, 3], "K": [[2, 2, 0, 0, 0], [2, 0, 0]]}
TREE_INPUTS = {
    "parent": [[-1, 0, 0, 1, 1], [-1, 0, 0]],
    "slot": [[0, 0, 1, 0, 1], [0, 0, 1]],
    "height": [[2, 1, 0, 0, 0], [1, 0, 0]],
    "root": [0, 0],
}


def call_of(graph: Graph, rng: np.random.Generator):
    """Tables and arguments for a graph, random but for its trees."""
    if "parent" not in graph.input_names:
        tables = random_tables(graph, rng, least=2)
        return tables, random_arguments(graph, rng, tables)
    whole = lambda rows: [whole(r) for r in rows] if isinstance(rows, list) else np.int64(rows)
    arguments = random_arguments(graph, rng, TREE_TABLES)
    fixed = {name: whole(rows) for name, rows in TREE_INPUTS.items()}
    return TREE_TABLES, [fixed.get(name, value) for name, value in zip(graph.input_names, arguments)]


def check_meaning(graph: Graph, memory: str) -> None:
    """Values and gradients of the compiled program are those of the traced one and of its adjoint."""
    rng = np.random.default_rng(3)
    tables, arguments = call_of(graph, rng)
    needs = [v.type.dtype.is_float for v in graph.body.parameters]
    plain = differentiate(graph, needs, memory=memory)
    made = compiled(graph, memory=memory, default=f64)
    assert normalise(made.forward).body is made.forward.body
    outputs = len(graph.body.results)
    expected, found = evaluate(plain[0], arguments, tables), evaluate(made.forward, arguments, tables)
    for i in range(outputs):
        assert_close(expected[i], found[i], f"output {i}", 1e-7)
    assert len(found) - outputs == made.pullback.residuals == len(made.residual_types)
    cts = [random_like(y, rng) for y in expected[:outputs]]

    def gradients(backward, pullback, residuals):
        given = [*(arguments[i] for i in pullback.kept), *residuals, *(cts[j] for j in pullback.useful)]
        return dict(zip(pullback.reached, evaluate(backward, given, tables), strict=True))

    left = gradients(plain[1], plain[2], expected[outputs:])
    right = gradients(made.backward, made.pullback, found[outputs:])
    assert list(left) == list(right)
    for i, value in left.items():
        assert_close(value, right[i], graph.input_names[i], 1e-7)


@pytest.mark.parametrize("memory", ["save", "recompute"])
@pytest.mark.parametrize("name", STEPS)
def test_values_and_gradients_stay(name, memory):
    check_meaning(in_double(recurrence(name)), memory)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.name)
def test_corpus_keeps_its_meaning(program):
    function, *types = program.build()[program.entry]
    check_meaning(in_double(trace_entry(program.entry, function, types).graph), "auto")


def test_residuals_are_kept_once():
    xs = ff.Seq(ff.f32[D])
    square = ff.map(lambda x: ff.tanh(x * x) * ff.sum(x))
    graph = trace_entry("square", square, [xs]).graph
    made = compiled(graph, memory="save")
    outputs = len(graph.body.results)
    residuals = made.forward.body.results[outputs:]
    assert len(set(residuals)) == len(residuals)
    assert not set(residuals) & set(made.forward.body.parameters)
    read = {v for e in sub_equations(made.backward.body) for v in e.inputs} | set(made.backward.body.results)
    assert set(made.backward.body.parameters) <= read


def test_without_gradients_there_is_no_backward_graph():
    graph = recurrence("elman")
    made = compile_graph(graph, [False] * len(graph.body.parameters))
    assert made.backward is None and made.pullback is None and made.residual_types == ()
    assert list(made.seconds) == [step.name for step in PASSES]


# --- precision --------------------------------------------------------------------------------------------------------


def dtypes(graph: Graph) -> set:
    values = [v for e in sub_equations(graph.body) for v in (*e.inputs, *e.outputs)]
    return {v.type.dtype for v in values if v.type.dtype.is_float}


def test_double_precision_everywhere():
    graph = with_precision(normalise(recurrence("layer_norm_lstm")), f64)
    verify(graph)
    assert dtypes(graph) == {f64}


def test_pinned_casts_stay():
    def step(h, x):
        rounded = ff.cast(ff.tanh(h + x), ff.f32)
        return h * 0.5 + rounded

    graph = trace_entry("pinned", ff.scan(step, init=ff.zeros(D)), [ff.Seq(ff.f32[D])]).graph
    double = with_precision(normalise(graph), f64)
    verify(double)
    (loop,) = loops(double, "scan")
    assert loop.outputs[0].type.dtype is f64
    casts = [(e.inputs[0].type.dtype, e.output.type.dtype) for e in sub_equations(loop.bodies[0]) if e.op == "cast"]
    assert casts == [(f64, f32), (f32, f64)]


@pytest.mark.parametrize("boundary", [False, True])
@pytest.mark.parametrize("name", ["elman", "lstm", "gru", "layer_norm_lstm"])
def test_sixteen_bit_operands(name, boundary):
    graph = recurrence(name)
    made = compiled(graph, operand_dtype=bf16, boundary=boundary)
    for g in (made.forward, made.backward):
        for e in sub_equations(g.body):
            if e.op == "contract":
                assert {v.type.dtype for v in e.inputs} == {bf16} and e.output.type.dtype is f32
            if e.op == "scan":
                first = e.attributes["captured"]
                carries = e.inputs[first : first + e.attributes["carries"]]
                assert {v.type.dtype for v in carries} == {f32}
    edge = bf16 if boundary else f32
    assert {v.type.dtype for v in graph.body.parameters} == {f32}
    assert {v.type.dtype for v in made.forward.body.parameters} == {edge}
    assert made.forward.body.results[0].type.dtype is edge
    assert {v.type.dtype for v in made.backward.body.results} == {edge}
    rng = np.random.default_rng(0)
    tables = random_tables(graph, rng, 3)
    arguments = random_arguments(graph, rng, tables)
    exact, rounded = evaluate(graph, arguments, tables)[0], evaluate(made.forward, arguments, tables)[0]
    assert_close(exact, rounded, "", 0.03)


@pytest.mark.parametrize("name", STEPS)
def test_only_operands_are_rounded(name):
    """What a product gives is not rounded on its way back, and a weight's gradient is as many products as without."""
    half, single = compiled(recurrence(name), operand_dtype=bf16), compiled(recurrence(name))
    for graph in (half.forward, half.backward):
        for loop in loops(graph, "scan"):
            casts = [e.output.type.dtype for e in sub_equations(loop.bodies[0]) if e.op == "cast"]
            assert set(casts) <= {bf16}
    products = lambda made: sum(e.op == "contract" for e in sub_equations(made.backward.body))
    # The two parts of a concatenated weight are rounded apart, and so are their gradients taken.
    assert products(half) == products(single) + (name == "lstm_concat")


# --- cost -------------------------------------------------------------------------------------------------------------


def work(layers: int) -> int:
    program = ff.scan(cells.lstm(H, D), init=cells.rest(H))
    for layer in range(layers - 1):
        with ff.scope(f"layer{layer}"):
            program = program >> ff.scan(cells.lstm(H, H), init=cells.rest(H))
    graph = trace_entry("stack", program, [ff.Seq(ff.f32[D])]).graph
    return calls(lambda: compile_graph(graph, [True] * len(graph.body.parameters)))


def test_compiling_is_linear_in_layers():
    # Quadratic work would be 64 times as much.
    assert work(16) < 1.5 * 8 * work(2)


COUNT = """graph count {
  size T
  input %x: f32[T | 2]

  %start: f32[2] = constant(value=0.0, dtype=f32, shape=(2,))
  %n: i64[((T+31)//32) |] binds segment = split(size=T, length=32, inner=segment)
  %h: f32[2] = scan(%start, carries=1, size=((T+31)//32), reverse=False) fn [](%h: f32[2]) {
    %last: f32[2] = scan(%h, carries=1, size=segment, reverse=False) fn [](%c: f32[2]) {
      %next: f32[2] = tanh(%c)
      return %next
    }
    return %last
  }

  output y = %h
}
"""


def test_what_makes_a_size_is_kept_where_a_loop_runs_over_it_only():
    """A loop over segments takes no element of them: nothing but its size speaks of what cuts them."""
    body = parse(COUNT).body
    assert [e.op for e in live_equations(body.equations, body.results)] == ["constant", "split", "scan"]
    made = normalise(parse(COUNT))
    verify(made, "normalise")
    assert any(e.op == "split" for e in sub_equations(made.body))


def test_a_loop_over_an_unknown_size_is_no_program():
    cut = "\n".join(line for line in COUNT.splitlines() if "split" not in line)
    with pytest.raises(VerificationError, match="the size segment in size of scan is bound by nothing"):
        verify(parse(cut), "the test")


def test_packed_products_of_two_ranks():
    """Two products of a step are taken in parts, a vector and a matrix: each law's note counts its own."""

    def step(carry, x):
        h, m = carry
        i, f = ff.chunk(ff.concat(h, x) @ ff.param((4, 4), "W"), 2)
        return ff.tanh(i) * ff.sigmoid(f), ff.tanh((m @ ff.param((2, 3), "V"))[:, :2])

    graph = trace_entry("ranks", ff.scan(step, init=(ff.zeros(2), ff.zeros(1, 2))), [ff.Seq(ff.f32[2])]).graph
    notes = [n.detail for n in compiled(graph).forward.notes if isinstance(n, Firing) and " of f32[" in n.detail]
    assert any("2 parts of f32[4]" in note for note in notes), notes
    assert any("1 part of f32[1, 3]" in note for note in notes), notes
