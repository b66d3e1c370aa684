"""`verify`: what is right is found right, whatever goes wrong is found wrong, and where; the inputs that it draws."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

import foldfuse as ff
from foldfuse.compiler.ir import Equation, Graph, Lambda
from foldfuse.compiler.records import RECORDS
from foldfuse.runtime import eager_operations, module
from foldfuse.runtime.cli import load
from foldfuse.runtime.ragged import Ragged
from foldfuse.runtime.random_input import class_count, random_arguments
from foldfuse.runtime.verification import verify

from .harness import compiled
from .programs import PROGRAMS
from .test_cli import FILE, RIGHT

VALUES = ("values, plain torch", "values, optimised")
AUTOGRAD, DIFFERENCES = "torch autograd", "finite differences"
FAMILIES = [next(p for p in PROGRAMS if p.family == family) for family in dict.fromkeys(p.family for p in PROGRAMS)]


@pytest.mark.parametrize("program", FAMILIES, ids=lambda program: program.name)
def test_programs_of_the_corpus_are_right(program):
    rows = verify(compiled(program))
    assert rows and all(row.ok for row in rows), rows


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_kind_of_input(name, seed):
    rows = verify(load(f"{FILE}:{name}"), seed=seed)
    assert all(row.ok for row in rows), rows
    assert sum(row.error is not None for row in rows) >= 2


def test_lists_that_are_empty_in_padding_have_derivatives():
    program = next(p for p in PROGRAMS if p.name == "nestings.map_in_scan")
    rows = verify(compiled(program))
    assert [row.ok and row.error is not None for row in rows] == [True] * 4, rows


def test_a_mean_of_nothing_is_refused_where_it_is_taken_only():
    add_mean = lambda keys, xs: ff.fold(lambda h, x: h + x + ff.mean(keys), init=ff.zeros(2))(xs)
    model = ff.compile(add_mean, ff.Seq(ff.f32[2]), ff.Seq(ff.f32[2]))
    keys = ff.ragged(torch.ones(2, 3, 2), [3, 0])
    for evaluate in (model, model.eager, model.reference):
        found = evaluate(keys, ff.ragged(torch.ones(2, 2, 2), [2, 0]))
        assert torch.equal(torch.as_tensor(found), torch.tensor([[4.0, 4.0], [0.0, 0.0]]))
        with pytest.raises(ff.EmptyError, match="mean"):
            evaluate(keys, ff.ragged(torch.ones(2, 2, 2), [2, 1]))


# --- what is wrong is found wrong -------------------------------------------------------------------------------------


def small(width: int) -> ff.Model:
    """A model whose text no other test makes: programs that are ready to run are kept by their text."""
    torch.manual_seed(0)
    W = ff.param((width, width), "W")
    step = lambda h, x: ff.tanh(h @ W + x) * ff.sigmoid(x)
    return ff.compile(ff.scan(step, init=ff.zeros(width)), ff.Seq(ff.f32[width]))


def wrong(rows) -> set[str]:
    """What is found wrong: of gradients, what they are compared with."""
    return {row.against if row.what.startswith("gradients") else row.what for row in rows if not row.ok}


def test_a_wrong_torch_meaning(monkeypatch):
    monkeypatch.setitem(eager_operations.OPERATIONS, "tanh", lambda equation, depth: lambda x: torch.tanh(x) * 1.001)
    # The adjoint reads the result, so its gradients are not those of torch's autograd either.
    rows = verify(small(5))
    assert wrong(rows) == {*VALUES, AUTOGRAD, DIFFERENCES}, rows


def test_a_wrong_adjoint(monkeypatch):
    right = RECORDS["tanh"]
    scaled = lambda b, e, cotangents: [b("neg", ct) for ct in right.adjoint(b, e, cotangents)]
    monkeypatch.setitem(RECORDS, "tanh", replace(right, adjoint=scaled))
    rows = verify(small(6))
    assert wrong(rows) == {AUTOGRAD, DIFFERENCES}, rows
    assert {row.where for row in rows if not row.ok} <= {"W", "the input"}


def test_a_wrong_oracle(monkeypatch):
    monkeypatch.setitem(RECORDS, "tanh", replace(RECORDS["tanh"], numpy=lambda x: np.tanh(x) + 0.001 * x))
    rows = verify(small(7))
    assert wrong(rows) == {*VALUES, DIFFERENCES}, rows


def test_a_slope_that_is_no_number(monkeypatch):
    """Where the oracle overflows beside the point that is tried, the comparison fails: it is no error of 0."""
    monkeypatch.setattr("foldfuse.runtime.verification._Comparison._difference_error", lambda *given: float("nan"))
    assert wrong(verify(small(8))) == {DIFFERENCES}


def test_a_wrong_law(monkeypatch):
    right = module.normalise

    def change(body: Lambda) -> Lambda:
        equations = tuple(
            Equation(
                "sigmoid" if e.op == "tanh" else e.op,
                e.inputs,
                e.outputs,
                e.attributes,
                tuple(map(change, e.bodies)),
                e.binds,
                e.source,
            )
            for e in body.equations
        )
        return Lambda(body.parameters, equations, body.results)

    def normalise(graph: Graph, *rest) -> Graph:
        graph = right(graph, *rest)
        return replace(graph, body=change(graph.body))

    monkeypatch.setattr(module, "normalise", normalise)
    rows = verify(small(8))
    assert wrong(rows) == {"values, optimised", AUTOGRAD, DIFFERENCES}
    assert {row.where for row in rows if row.what == "values, optimised"} <= {f"result[{i}]" for i in range(3)}


def test_a_wrong_sample(monkeypatch):
    model = load(f"{FILE}:translator")
    run = type(model).eager
    shifted = lambda self, *arguments, seed=None, **rest: run(self, *arguments, seed=seed + 1, **rest)
    monkeypatch.setattr(type(model), "eager", shifted)
    found = {row.entry for row in verify(model, batch=8) if not row.ok}
    assert found == {"sample"}


def test_results_of_other_lengths_are_wrong(monkeypatch):
    run = ff.Model.eager

    def shorter(self, *arguments, **rest):
        made = run(self, *arguments, **rest)
        return Ragged(made.data, [(made.lengths[0] - 1).clamp(min=0)])

    monkeypatch.setattr(ff.Model, "eager", shorter)
    rows = verify(small(9))
    assert rows[0].error == float("inf") and not rows[0].ok
    assert rows[-1].where == "the results differ in structure"


# --- what it leaves alone, what it says -------------------------------------------------------------------------------


def test_a_model_is_left_as_it_was():
    model = small(4).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert all(row.ok for row in verify(model))
    assert model.training and all(p.grad is None and p.dtype == torch.float32 for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_without_a_derivative_nothing_is_compared():
    rows = verify(ff.compile(ff.map(lambda x: x + 1), ff.Seq(ff.i64)))
    assert [row.error is None for row in rows] == [False, False, True] and rows[-1].ok
    assert rows[-1].where == "no output has a derivative"


def test_what_is_not_differentiated_is_held_in_differences():
    program = lambda x: ff.stop_gradient(ff.exp(x)) * x
    rows = verify(ff.compile(program, ff.f32[3]))
    assert [row.ok for row in rows] == [True] * 4 and rows[-1].against == DIFFERENCES


def test_one_entry_point():
    assert {row.entry for row in verify(load(f"{FILE}:translator"), entry="sample")} == {"sample"}


def test_a_program_that_takes_no_input_that_was_tried():
    far = ff.compile(ff.window_map(lambda w: ff.sum(w, axis=0), 100), ff.Seq(ff.f32[1]))
    with pytest.raises(ff.WindowError):
        verify(far)


# --- inputs -----------------------------------------------------------------------------------------------------------


def drawn(function: Callable, *types, rows: int = 4, longest: int = 6, batched: bool = True, **rest) -> list:
    entry = ff.compile(function, *types, batched=batched)._entry(None).evaluation
    return random_arguments(entry, rows, longest, np.random.default_rng(0), **rest)


def test_lists_differ_in_length_and_zipped_ones_do_not():
    pair = lambda xs, ys: ff.map(lambda p: p[0] + p[1])(ff.zip(xs, ys))
    xs, ys = drawn(pair, ff.Seq(ff.f32[2]), ff.Seq(ff.f32[2]))
    assert len(set(xs.lengths[0].tolist())) > 1 and max(xs.lengths[0]) == 6 == xs.data.shape[1]
    assert torch.equal(xs.lengths[0], ys.lengths[0])
    xs, ys = drawn(lambda xs, ys: (ff.sum(xs), ff.sum(ys)), ff.Seq(ff.f32[2]), ff.Seq(ff.f32[2]))
    assert xs.data.shape[1] != ys.data.shape[1]


def test_a_list_zipped_with_one_of_fixed_length_has_that_length():
    program = lambda xs: xs + ff.unfold(lambda s: (s + 1, s), init=ff.zeros(2), length=3)
    (xs,) = drawn(program, ff.Seq(ff.f32[2]))
    assert xs.lengths[0].tolist() == [3] * 4


def test_inner_lists_and_grids():
    (xs,) = drawn(ff.map(lambda row: ff.sum(row)), ff.Seq(ff.Seq(ff.f32)))
    outer, inner = xs.lengths
    dead = torch.arange(xs.data.shape[1]) >= outer[:, None]
    assert dead.any() and (inner[dead] == 0).all() and len(set(inner[~dead].tolist())) > 1
    (grid,) = drawn(ff.map(ff.tanh), ff.Grid(ff.f32[2], 2))
    assert isinstance(grid, torch.Tensor) and grid.shape[1] != grid.shape[2]


def test_whole_numbers_stay_within_the_smallest_table():
    big, small_table = ff.embedding(9, 2), ff.embedding(3, 2)
    program = ff.map(lambda i: big(i) + small_table(i))
    (xs,) = drawn(program, ff.Seq(ff.i64), rows=20)
    assert set(xs.data.unique().tolist()) == {0, 1, 2}
    assert class_count(ff.compile(program, ff.Seq(ff.i64)).graph()) == 3


def test_trees_of_a_fixed_arity_and_of_any():
    any_tree = lambda x, kids: x + ff.sum(kids)
    (trees,) = drawn(ff.cata(any_tree), ff.Tree(ff.f32[2]), rows=6)
    assert len(trees) == 6 and len(set(trees.arity.tolist())) > 2
    pair = lambda x, kids: x + kids[0] + kids[1]
    (trees,) = drawn(ff.cata(pair, leaf=lambda x: x), ff.Tree(ff.f32[2], arity=2), rows=6)
    assert set(trees.arity.tolist()) == {0, 2}


def test_without_a_batch():
    (xs,) = drawn(ff.map(ff.tanh), ff.Seq(ff.f32[2]), batched=False)
    assert isinstance(xs, torch.Tensor) and xs.shape == (6, 2)
    assert all(row.ok for row in verify(ff.compile(ff.map(ff.tanh), ff.Seq(ff.f32[2]), batched=False)))


def test_nothing_of_the_command_line_stays_imported():
    load(f"{FILE}:encoder")
    assert "programs" not in sys.modules
