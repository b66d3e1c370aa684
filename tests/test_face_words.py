"""Expressions, and NumPy's and torch's words on traced values: what the language's description says of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import foldfuse as ff

from .agreement import agrees, matrix, numbers, vector, vectors


def test_expressions_are_called_and_functions_are_expressions():
    residual = lambda f: lambda x: x + f(x)
    agrees(residual(ff.tanh >> (lambda v: 2 * v)), lambda x: x + 2 * torch.tanh(x), vector)
    agrees(ff.expression(lambda v: v * 3) >> ff.tanh, lambda x: torch.tanh(3 * x), vector)


def test_a_step_closes_over_values_of_an_outer_function():
    def program(scale, xs):
        total = ff.sum(xs)
        return ff.scan(lambda h, x: ff.tanh(h * scale + x - total), init=scale)(xs)

    def plain(scale, xs):
        h, out = scale, []
        for x in xs:
            h = torch.tanh(h * scale + x - xs.sum(0))
            out.append(h)
        return torch.stack(out)

    agrees(program, plain, vector, vectors)


def test_and_binds_weaker_than_compose():
    program = ff.tanh & ff.exp >> ff.sin
    agrees(program, lambda x: (torch.tanh(x), torch.sin(torch.exp(x))), vector)
    agrees((ff.tanh & ff.exp) >> (lambda p: p[0] - p[1]), lambda x: torch.tanh(x) - torch.exp(x), vector)
    agrees(ff.tanh & (lambda v: v + 1), lambda x: (torch.tanh(x), x + 1), vector)


def test_operators_lift_over_lists_and_grids():
    mixed = lambda xs, ys: xs + ys * 2 - 1 / (ys * ys + 1)
    agrees(mixed, mixed, vectors, vectors)
    agrees(lambda xs, s: xs * s, lambda xs, s: xs * s, vectors, ff.f32)
    agrees(lambda xs, v: ff.maximum(xs, v), lambda xs, v: torch.maximum(xs, v.expand(4, 3)), vectors, vector)
    grid = ff.Grid(ff.f32[3], 2)
    agrees(lambda a, b: ff.tanh(a - b), lambda a, b: torch.tanh(a - b), grid, grid)
    nested = ff.Seq(ff.Seq(ff.f32))
    model = ff.compile(lambda xs: ff.tanh(xs) + xs, nested).double()
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    assert torch.allclose(model(x), torch.tanh(x) + x)
    with pytest.raises(ff.SizeError):
        ff.compile(lambda xs, ys: xs + ys, numbers, numbers)(torch.ones(2, 3), torch.ones(2, 4))


REDUCTIONS = {
    "sum": lambda xs: xs.sum(0),
    "mean": lambda xs: xs.mean(0),
    "max": lambda xs: xs.amax(0),
    "logsumexp": lambda xs: torch.logsumexp(xs, 0),
    "softmax": lambda xs: torch.softmax(xs, 0),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_of_lists(name):
    reduce, plain = getattr(ff, name), REDUCTIONS[name]
    agrees(reduce, plain, vectors)

    def program(xs):
        def step(h, x):
            found = reduce(xs * (h + x))
            return ff.tanh(ff.sum(found) if name == "softmax" else found)

        return ff.scan(step, init=ff.zeros(3))(xs)

    def step(xs, h, x):
        found = plain(xs * (h + x))
        return torch.tanh(found.sum(0) if name == "softmax" else found)

    def looped(xs):
        h, out = torch.zeros(3, dtype=torch.float64), []
        for x in xs:
            h = step(xs, h, x)
            out.append(h)
        return torch.stack(out)

    agrees(program, looped, vectors)


SUBSCRIPTS = {
    "x[1]": lambda x: x[1],
    "x[-1]": lambda x: x[-1],
    "x[1, 2]": lambda x: x[1, 2],
    "x[..., 0]": lambda x: x[..., 0],
    "x[:, None]": lambda x: x[:, None],
    "x[None, 1:3, ::2]": lambda x: x[None, 1:3, ::2],
    "x[-3:]": lambda x: x[-3:],
    "x[1:1]": lambda x: x[1:1],
    "x[[0, 2]]": lambda x: x[[0, 2]],
    "x[:, [2, 0, 0]]": lambda x: x[:, [2, 0, 0]],
    "x[np.array([[0, 1], [3, 0]])]": lambda x: x[np.array([[0, 1], [3, 0]])],
    "x[..., np.array([-1])]": lambda x: x[..., np.array([-1])],
    "x[np.array([0, 1]), np.array([2, 0])]": lambda x: x[np.array([0, 1]), np.array([2, 0])],
    "x[np.array([[0], [3]]), [2, 0, 1]]": lambda x: x[np.array([[0], [3]]), [2, 0, 1]],
    "x[[0, 1], None, [2, 0]]": lambda x: x[[0, 1], None, [2, 0]],
    "x[1:, None][[0, 1], :, [2, 0]]": lambda x: x[1:, None][[0, 1], :, [2, 0]],
}


@pytest.mark.parametrize("text", SUBSCRIPTS)
def test_indexing_follows_numpy(text):
    agrees(SUBSCRIPTS[text], SUBSCRIPTS[text], matrix)


def test_reversed_slices_follow_numpy():
    agrees(lambda x: x[::-1], lambda x: x.flip(0), matrix)
    agrees(lambda x: x[::-2, 1], lambda x: x[:, 1].flip(0)[::2], matrix)


def test_traced_indices():
    agrees(lambda x, i: x[i], lambda x, i: x[i], matrix, ff.i64)
    agrees(lambda x, i: x[i], lambda x, i: x[i], matrix, ff.i64[5])
    agrees(lambda x, i: x[:, i], lambda x, i: x[:, i], matrix, ff.i64)
    agrees(lambda x, i, j: x[i, j], lambda x, i, j: x[i, j], matrix, ff.i64[5], ff.i64)
    outside = ff.compile(lambda x, i: x[i, i], matrix, ff.i64)
    with pytest.raises(ff.IndexRangeError):
        outside(torch.zeros(1, 4, 3), torch.tensor([3]))


SHAPES = [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((1, 2, 3), (5, 3, 4)),
    ((6, 1, 2, 3), (5, 3, 4)),
    ((5, 2, 3), (3,)),
    ((3,), (5, 3, 4)),
]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_matmul_follows_numpy(shapes):
    left, right = (ff.f32[shape] for shape in shapes)
    agrees(lambda x, y: x @ y, lambda x, y: x @ y, left, right)


EINSUMS = [
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("ij,jk", (2, 3), (3, 4)),
    ("ji,jk->ki", (2, 3), (2, 4)),
    ("bij,bjk->bik", (5, 2, 3), (5, 3, 4)),
    ("...ij,...jk->...ik", (5, 2, 3), (3, 4)),
    ("ii->i", (3, 3)),
    ("ii", (3, 3)),
    ("ij->", (2, 3)),
    ("i,j->ij", (2,), (3,)),
    ("ij,kj,lj->ikl", (2, 3), (4, 3), (5, 3)),
    ("ij,j->j", (2, 3), (3,)),
]


@pytest.mark.parametrize("case", EINSUMS, ids=lambda case: case[0])
def test_einsum_follows_numpy(case):
    spec, *shapes = case
    agrees(
        lambda *arrays: ff.einsum(spec, *arrays),
        lambda *arrays: torch.einsum(spec, *arrays),
        *(ff.f32[shape] for shape in shapes),
    )


def test_broadcasting_follows_numpy():
    agrees(lambda x, y: x[:, None] * y - x[:, None], lambda x, y: x[:, None] * y - x[:, None], ff.f32[4], ff.f32[3])
    agrees(lambda x, y: ff.where(x > y, x, y * 2), lambda x, y: torch.where(x > y, x, y * 2), ff.f32[4, 1], ff.f32[3])
    with pytest.raises(ff.ShapeError, match="of one example"):
        ff.compile(lambda x, y: x + y, ff.f32[4], ff.f32[3])


AXES = {
    "sum": lambda x, d: x.sum(d),
    "mean": lambda x, d: x.mean(d),
    "max": lambda x, d: x.amax(d),
    "min": lambda x, d: x.amin(d),
    "prod": lambda x, d: x.prod(d),
    "var": lambda x, d: x.var(d, correction=0),
    "std": lambda x, d: x.std(d, correction=0),
    "norm": lambda x, d: torch.linalg.vector_norm(x, dim=d),
    "logsumexp": lambda x, d: torch.logsumexp(x, d),
    "softmax": lambda x, d: torch.softmax(x, d),
    "log_softmax": lambda x, d: torch.log_softmax(x, d),
    "argmax": lambda x, d: x.argmax(d),
    "cumsum": lambda x, d: x.cumsum(d),
    "cumprod": lambda x, d: x.cumprod(d),
    "sort": lambda x, d: x.sort(d).values,
    "argsort": lambda x, d: x.argsort(d),
    "squeeze": lambda x, d: x.squeeze(d),
    "flip": lambda x, d: x.flip(d),
    "expand_dims": lambda x, d: x.unsqueeze(d),
}


@pytest.mark.parametrize("name", AXES)
def test_axis_and_dim_both_work(name):
    word, plain = getattr(ff, name), AXES[name]
    agrees(lambda x: (word(x, axis=0), word(x, axis=-1)), lambda x: (plain(x, 0), plain(x, -1)), matrix)
    agrees(lambda x: (word(x, dim=0), word(x, dim=-1)), lambda x: (plain(x, 0), plain(x, -1)), matrix)


PARTS = {
    "concat": (lambda x, **at: ff.concat(x, 2 * x, **at), lambda x, d: torch.cat((x, 2 * x), d)),
    "stack": (lambda x, **at: ff.stack(x, 2 * x, **at), lambda x, d: torch.stack((x, 2 * x), d)),
    "chunk": (lambda x, **at: ff.chunk(x, 2, **at), lambda x, d: torch.chunk(x, 2, d)),
    "split": (lambda x, **at: ff.split(x, [1, 3], **at), lambda x, d: torch.split(x, [1, 3], d)),
    "roll": (lambda x, **at: ff.roll(x, 1, **at), lambda x, d: torch.roll(x, 1, d)),
    "take": (lambda x, **at: ff.take(x, np.array([1, 0]), **at), lambda x, d: x.index_select(d, torch.tensor([1, 0]))),
    "repeat": (lambda x, **at: ff.repeat(x, 2, **at), lambda x, d: x.repeat_interleave(2, d)),
}


@pytest.mark.parametrize("name", [name for name in PARTS if hasattr(ff, name)])
def test_axis_and_dim_of_words_with_parts(name):
    word, plain = PARTS[name]
    for axis in (0, -1):
        agrees(lambda x, axis=axis: word(x, axis=axis), lambda x, axis=axis: plain(x, axis), ff.f32[4, 4])
        agrees(lambda x, axis=axis: word(x, dim=axis), lambda x, axis=axis: plain(x, axis), ff.f32[4, 4])


def test_the_batch_is_invisible():
    with pytest.raises(ff.AxisError, match="per example"):
        ff.compile(lambda x: ff.sum(x, axis=1), ff.f32[3])
    batch_norm = lambda xs: (xs - ff.mean(xs)) / ff.sqrt(ff.mean((xs - ff.mean(xs)) ** 2) + 1e-5)
    model = ff.compile(batch_norm, ff.Seq(ff.f32[3]), batched=False).double()
    x = torch.randn(7, 3, dtype=torch.float64)
    assert torch.allclose(model(x), F.batch_norm(x, None, None, training=True))
    with pytest.raises(ff.AxisError, match="batched=False"):
        ff.compile(nn.BatchNorm1d(5), ff.f32[3, 5])
