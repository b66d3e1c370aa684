"""`model.warmup`: what it makes ready is what a call and its backward pass use, and it refuses what a call refuses."""

from __future__ import annotations

from itertools import count

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

import foldfuse as ff
from foldfuse.kernels.request import Request
from foldfuse.runtime import fused, warmup
from foldfuse.runtime.launch import Counts, counts

H, D = 4, 3
_NUMBERS = count()


def gru(n: int, d: int):
    W, U, b = ff.param((d, 3 * n), "W"), ff.param((n, 3 * n), "U"), ff.param((3 * n,), "b")

    def step(h, x):
        wz, wr, wn = ff.chunk(x @ W + b, 3)
        uz, ur, un = ff.chunk(h @ U, 3)
        z, r = ff.sigmoid(wz + uz), ff.sigmoid(wr + ur)
        return z * h + (1 - z) * ff.tanh(wn + r * un)

    return step


@pytest.fixture
def model(tmp_path, monkeypatch) -> ff.Model:
    """A recurrence whose kernels no other test has loaded: their text holds a number of its own."""
    monkeypatch.setenv("FOLDFUSE_CACHE", str(tmp_path))
    step, number = gru(H, D), 1 / (2 + next(_NUMBERS))
    return ff.compile(ff.scan(lambda h, x: step(h, x) * number, init=ff.zeros(H)), ff.Seq(ff.f32[D]))


def spent(action) -> Counts:
    """What an action launched and compiled."""
    before = counts()
    action()
    return counts() - before


def train(model: ff.Model, x) -> None:
    out = model(x)
    (out if isinstance(out, torch.Tensor) else out.data).sum().backward()


@pytest.mark.parametrize("form", ["tensor", "tuple", "size", "list"])
def test_after_it_nothing_is_compiled(model, form):
    x = torch.randn(2, 5, D)
    given = {"tensor": x, "tuple": (2, 5, D), "size": x.shape, "list": [2, 5, D]}[form]
    made = spent(lambda: model.warmup(given))
    assert made.compiles and not made.launches
    run = spent(lambda: train(model, x))
    assert run.launches["scan"] == 2 and not run.compiles
    again = spent(lambda: train(model, torch.randn(3, 9, D)))
    assert again.launches["scan"] == 2 and not again.compiles, "another batch and length"


def test_without_it_a_call_compiles(model):
    assert spent(lambda: train(model, torch.randn(2, 5, D))).compiles


def test_a_call_without_gradients_is_another_program(model):
    x = torch.randn(2, 5, D)

    def look() -> None:
        with torch.no_grad():
            model(x)

    assert spent(lambda: model.warmup(x, backward=False)).compiles
    run = spent(look)
    assert run.launches and not run.compiles
    assert spent(lambda: train(model, x)).compiles, "it keeps residuals, and has a backward pass"


def test_inputs_that_require_gradients(model):
    x = torch.randn(2, 5, D, requires_grad=True)
    model.warmup(x)
    assert not spent(lambda: train(model, x)).compiles and x.grad is not None


def test_ragged_lists_are_another_program(model):
    x = ff.ragged(torch.randn(3, 5, D), [5, 0, 2])
    model.warmup((3, 5, D))
    padded = spent(lambda: model.warmup(x))
    assert padded.compiles, "ragged kernels read lengths"
    assert not spent(lambda: train(model, x)).compiles


@pytest.mark.parametrize("form", ["packed", "jagged"])
def test_lists_without_padding(model, form):
    def lists(*lengths: int):
        rows = [torch.randn(n, D) for n in lengths]
        if form == "packed":
            return pack_sequence(rows, enforce_sorted=False)
        return torch.nested.as_nested_tensor(rows, layout=torch.jagged)

    def train(x) -> None:
        y = model(x)
        (y.data if form == "packed" else y.values()).sum().backward()

    made = spent(lambda: model.warmup(lists(3, 1, 2)))
    assert made.compiles and not made.launches
    for lengths in ((3, 1, 2), (2, 7, 1, 4)):
        run = spent(lambda lengths=lengths: train(lists(*lengths)))
        assert run.launches["scan"] == 2 and not run.compiles, "another batch and other lengths"


def test_the_strategy_that_is_asked_for(model):
    with fused.requested(Request(force="streamed")):
        model.warmup((2, 5, D))
        assert not spent(lambda: train(model, torch.randn(2, 5, D))).compiles
    assert spent(lambda: train(model, torch.randn(2, 5, D))).compiles


def test_products_and_entry_points(tmp_path, monkeypatch):
    monkeypatch.setenv("FOLDFUSE_CACHE", str(tmp_path))
    fold = ff.fold(gru(H, D), init=ff.zeros(H))
    record = {"left": ff.f32[H], "right": ff.Seq(ff.f32[D]), "n": ff.i64}
    both = lambda r: r["left"] * ff.cast(r["n"], ff.f32) + fold(r["right"])
    pair = lambda p: p[0] + fold(p[1])
    model = ff.compile({"record": (both, record), "pair": (pair, (ff.f32[H], ff.Seq(ff.f32[D])))})
    model.warmup({"left": (2, H), "right": (2, 6, D), "n": (2,)})
    given = {"left": torch.randn(2, H), "right": torch.randn(2, 6, D), "n": torch.tensor([1, 2])}
    assert not spent(lambda: model(given).sum().backward()).compiles
    for form in (((2, H), (2, 6, D)),), ((2, H), torch.randn(2, 6, D)):
        model.warmup(*form, entry="pair")
    call = lambda: model(torch.randn(2, H), torch.randn(2, 6, D), entry="pair").sum().backward()
    assert not spent(call).compiles


def test_trees_and_several_outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("FOLDFUSE_CACHE", str(tmp_path))
    W = ff.param((D, H), "W")
    model = ff.compile(ff.cata(lambda x, kids: ff.tanh(x @ W + ff.sum(kids)), every=True), ff.Tree(ff.f32[D]))
    trees = ff.forest(parents=[[-1, 0, 0], [-1]], values=torch.randn(4, D))
    model.warmup(trees)
    assert not spent(lambda: train(model, trees)).compiles
    model = ff.compile(ff.scan(gru(H, D), init=ff.zeros(H), final=True), ff.Seq(ff.f32[D]))
    model.warmup((2, 5, D))
    assert not spent(lambda: sum(y.sum() for y in model(torch.randn(2, 5, D))).backward()).compiles


def test_what_has_no_derivative_is_warmed_up_forward():
    model = ff.compile(ff.map(lambda x: x + 11), ff.Seq(ff.i64))
    model.warmup((2, 5))
    assert not spent(lambda: model(torch.ones(2, 5, dtype=torch.int64))).compiles


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (((2, 5),), ff.ShapeError, "rank 3"),
        (((2, 5, D + 1),), ff.ShapeError, r"got \[2, 5, 4\]"),
        (((2, -5, D),), ff.ShapeError, r"no negative extents; got \(2, -5, 3\)"),
        (((2, 5, D), (2,)), ff.StructureError, "takes 1 argument, got 2"),
        ((), ff.StructureError, "takes 1 argument, got 0"),
        ((2,), ff.ShapeError, "got the number 2"),
        (("2 5",), ff.StructureError, "takes"),
        (((2.0, 5.0, 3.0),), ff.StructureError, "takes"),
        ((torch.ones(2, 5, D, dtype=torch.float64),), ff.DtypeError, "float64"),
    ],
)
def test_what_a_call_refuses_it_refuses(model, arguments, error, says):
    with pytest.raises(error, match=says):
        model.warmup(*arguments)


def test_a_forest_has_no_shape():
    model = ff.compile(ff.cata(lambda x, kids: x + ff.sum(kids)), ff.Tree(ff.f32[D]))
    with pytest.raises(ff.FoldfuseError):
        model.warmup((2, 5, D))


def test_running_once_leaves_no_trace(model, monkeypatch):
    """What a warm-up on a CUDA device does after it compiled: here the kernels are interpreted."""
    given = []
    monkeypatch.setattr(warmup, "make_ready", lambda *arguments: given.append(arguments))
    x = torch.randn(2, 5, D, requires_grad=True)
    model.warmup(x)
    ((program, inputs, tables, memory, extents, backward),) = given
    before = torch.get_rng_state()
    run = spent(lambda: warmup.run_once(program, inputs, tables, memory, extents, backward))
    assert run.launches["scan"] == 2
    assert torch.equal(torch.get_rng_state(), before)
    assert x.grad is None and all(parameter.grad is None for parameter in model.parameters())
    run = spent(lambda: warmup.run_once(program, inputs, tables, memory, extents, False))
    assert run.launches["scan"] == 1
