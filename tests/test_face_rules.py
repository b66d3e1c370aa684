"""The rules of the language's description, each with a program that would break if it did not hold."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils import _pytree as pytree

import foldfuse as ff

from .harness import error, rows_of

ROWS, LENGTH = 3, 4


# ---------------------------------------------------------------- what a test says: a program and its plain counterpart
def drawn(type_, rng, lead=(ROWS,)):
    """A batch of random arguments of a type."""
    if isinstance(type_, ff.Rep):
        return drawn(type_.type, rng, lead)
    if isinstance(type_, ff.Seq):
        return drawn(type_.element, rng, (*lead, LENGTH))
    if isinstance(type_, ff.Grid):
        return drawn(type_.element, rng, (*lead, LENGTH, LENGTH + 1, LENGTH + 2)[: len(lead) + type_.dims])
    if isinstance(type_, dict):
        return {name: drawn(part, rng, lead) for name, part in type_.items()}
    if isinstance(type_, tuple):
        parts = [drawn(part, rng, lead) for part in type_]
        return type(type_)(*parts) if hasattr(type_, "_fields") else tuple(parts)
    dtype, shape = getattr(type_, "dtype", type_), getattr(type_, "shape", ())
    if dtype is ff.bool:
        return torch.from_numpy(rng.random((*lead, *shape)) < 0.5)
    if not dtype.is_float:
        return torch.from_numpy(rng.integers(0, 3, (*lead, *shape)))
    return torch.from_numpy(rng.standard_normal((*lead, *shape))).requires_grad_()


def agrees(program, plain, *types, parameters=None, tolerance=1e-10, **call):
    """Assert that a compiled program, its plain torch evaluation and its oracle are a plain function of one example,
    and that the gradients of the inputs are too."""
    model = program if isinstance(program, ff.Model) else ff.compile(program, *types)
    model = model.double().eval()
    with torch.no_grad():
        for name, value in (parameters or {}).items():
            model.get_parameter(name).copy_(value)
    arguments = [drawn(type_, np.random.default_rng(i)) for i, type_ in enumerate(types)]
    sources = [x for x in pytree.tree_leaves(arguments) if x.is_floating_point()]
    examples = [pytree.tree_map(lambda x, row=row: x[row], arguments) for row in range(ROWS)]
    expected = [pytree.tree_leaves(plain(*example)) for example in examples]
    expected = [[torch.as_tensor(y) for y in row] for row in expected]
    wanted = pulled(expected, sources)
    for run in (model, model.eager, model.reference):
        found = rows_of(run(*arguments, **call), ROWS)
        assert [len(row) for row in found] == [len(row) for row in expected]
        for row, want in zip(found, expected):
            for x, y in zip(row, want):
                assert error(x.detach(), y.detach()) <= tolerance
        if run != model.reference:
            for x, y in zip(pulled(found, sources), wanted):
                assert error(x, y) <= 10 * tolerance
    return model


def pulled(rows, sources):
    """The gradients of a fixed combination of the float results."""
    total = sum((y * torch.cos(torch.arange(y.numel()).reshape(y.shape) + i)).sum() for row in rows for i, y in enumerate(row) if y.requires_grad)
    if not sources or not isinstance(total, torch.Tensor):
        return [torch.zeros_like(x) for x in sources]
    found = torch.autograd.grad(total, sources, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(sources, found)]


vector, matrix, numbers = ff.f32[3], ff.f32[4, 3], ff.Seq(ff.f32)
vectors = ff.Seq(ff.f32[3])


# ---------------------------------------------------------------- expressions
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
    agrees(lambda xs, ys: xs + ys * 2 - 1 / (ys * ys + 1), lambda xs, ys: xs + ys * 2 - 1 / (ys * ys + 1), vectors, vectors)
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


# ---------------------------------------------------------------- torch inside of a step
def test_torch_functions_in_a_step():
    def program(xs):
        step = lambda h, x: F.silu(torch.cat((h, x))).reshape(2, 3).sum(dim=0) - torch.tanh(torch.exp(-x) * h)
        return ff.scan(step, init=ff.zeros(3))(xs)

    def plain(xs):
        h, out = torch.zeros(3, dtype=torch.float64), []
        for x in xs:
            h = F.silu(torch.cat((h, x))).reshape(2, 3).sum(dim=0) - torch.tanh(torch.exp(-x) * h)
            out.append(h)
        return torch.stack(out)

    agrees(program, plain, vectors)


def test_torch_losses_in_a_program():
    agrees(F.cross_entropy, F.cross_entropy, vector, ff.i64)
    agrees(F.cross_entropy, F.cross_entropy, matrix, ff.i64[4])
    agrees(F.mse_loss, F.mse_loss, vector, vector)
    agrees(F.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits, vector, vector)
    agrees(
        lambda x, y: F.nll_loss(F.log_softmax(x, -1), y), lambda x, y: F.nll_loss(F.log_softmax(x, -1), y), matrix, ff.i64[4]
    )


class Cell(nn.Module):
    """A user's own cell: layers, a bare parameter, a buffer, methods of tensors."""

    def __init__(self):
        super().__init__()
        self.gates = nn.Linear(6, 6)
        self.norm = nn.LayerNorm(3)
        self.scale = nn.Parameter(torch.tensor([0.5, 1.0, 2.0]))
        self.register_buffer("shift", torch.tensor([0.1, 0.2, 0.3]))

    def forward(self, h, x):
        z, n = self.gates(torch.cat([h, x], dim=-1)).chunk(2, dim=-1)
        z = z.sigmoid()
        return self.norm((1 - z) * h + z * n.tanh()) * self.scale + self.shift


def scanned(cell, h, xs):
    out = []
    for x in xs:
        h = cell(h, x)
        out.append(h)
    return torch.stack(out)


def double(module):
    return {name: value.detach().double() for name, value in module.state_dict().items()}


def test_modules_as_steps_and_their_names():
    torch.manual_seed(0)
    cell = Cell()
    model = ff.compile(ff.scan(cell, init=ff.zeros(3)), vectors)
    assert set(model.state_dict()) == {f"cell.{name}" for name in cell.state_dict()}
    assert set(dict(model.named_buffers())) == {"cell.shift"}
    # The parameters are the module's own: one optimiser, one set of values.
    assert all(model.get_parameter(f"cell.{name}") is p for name, p in cell.named_parameters())
    start = torch.zeros(3, dtype=torch.float64)
    agrees(model, lambda xs: scanned(cell, start, xs), vectors)


def test_torch_layers_in_a_step():
    torch.manual_seed(0)
    embed, linear, norm = nn.Embedding(3, 4, padding_idx=1), nn.Linear(4, 3), nn.LayerNorm(3)
    program = ff.map(lambda i: norm(linear(embed(i))))
    model = ff.compile(program, ff.Seq(ff.i64))
    assert set(model.state_dict()) == {"embed.weight", "linear.weight", "linear.bias", "norm.weight", "norm.bias"}
    agrees(model, lambda i: norm(linear(embed(i))), ff.Seq(ff.i64))
    whole = nn.Sequential(nn.Linear(3, 5), nn.GELU(), nn.Dropout(0.5), nn.Linear(5, 2)).double().eval()
    agrees(ff.compile(whole, vector), whole, vector)


def test_recurrent_cells_of_torch_in_a_step():
    torch.manual_seed(0)
    lstm, gru, rnn = nn.LSTMCell(3, 5), nn.GRUCell(5, 4), nn.RNNCell(4, 2)

    def step(carry, x):
        (h, c), g, r = carry
        h, c = lstm(x, (h, c))
        g = gru(h, g)
        r = rnn(g, r)
        return ((h, c), g, r), r

    model = ff.compile(ff.scan(step, init=((ff.zeros(5), ff.zeros(5)), ff.zeros(4), ff.zeros(2))), vectors)
    assert {name.split(".")[0] for name in model.state_dict()} == {"lstm", "gru", "rnn"}

    def plain(xs):
        zeros = lambda n: torch.zeros(1, n, dtype=torch.float64)
        (h, c), g, r, out = (zeros(5), zeros(5)), zeros(4), zeros(2), []
        for x in xs:
            h, c = lstm(x[None], (h, c))
            g = gru(h, g)
            r = rnn(g, r)
            out.append(r[0])
        return torch.stack(out)

    agrees(model, plain, vectors)


def test_functions_without_a_meaning_are_named():
    with pytest.raises(ff.StructureError, match="fft_fft"):
        ff.compile(lambda x: torch.fft.fft(x), vector)


# ---------------------------------------------------------------- types
class State(NamedTuple):
    h: object
    c: object


def test_products_are_tuples_namedtuples_and_dicts():
    types = State(ff.f32[3], (ff.i64, {"a": ff.f32[2], "b": ff.bool}))

    def program(s):
        count, d = s.c
        return {"out": State(s.h * 2, d["a"] + count), "on": d["b"]}, (count,)

    model = agrees(
        program,
        lambda s: ({"out": State(s.h * 2, s.c[1]["a"] + s.c[0]), "on": s.c[1]["b"]}, (s.c[0],)),
        types,
    )
    found, (count,) = model(drawn(types, np.random.default_rng(0)))
    assert isinstance(found["out"], State) and found["on"].dtype is torch.bool and count.dtype is torch.int64


def test_a_namedtuple_is_a_carry():
    def step(s, x):
        h = ff.tanh(s.h + x)
        return State(h=h, c=s.c + h)

    def plain(xs):
        h, c, out = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), []
        for x in xs:
            h = torch.tanh(h + x)
            c = c + h
            out.append((h, c))
        return torch.stack([h for h, _ in out]), torch.stack([c for _, c in out])

    model = agrees(ff.scan(step, init=State(ff.zeros(3), ff.zeros(3))), plain, vectors)
    assert isinstance(model(torch.zeros(1, 2, 3, dtype=torch.float64)), State)


def test_dtypes_of_arrays():
    x = {ff.f64: torch.float64, ff.f32: torch.float32, ff.bf16: torch.bfloat16, ff.f16: torch.float16}
    x |= {ff.i32: torch.int32, ff.i64: torch.int64}
    for declared, dtype in x.items():
        model = ff.compile(lambda v: v + v, declared[3])
        out = model(torch.ones(2, 3, dtype=dtype))
        assert out.dtype is dtype and (out == 2).all()
    out = ff.compile(lambda v: ~v, ff.bool[3])(torch.zeros(2, 3, dtype=torch.bool))
    assert out.dtype is torch.bool and out.all()


def test_representations():
    word, state, other = ff.Rep("Word", ff.f32[3]), ff.Rep("State", ff.f32[2]), ff.Rep("Other", ff.f32[3])
    encode = (ff.dense(2, name="encode") >> state).typed(word, state)
    model = ff.compile(encode, word)
    assert model.signature == "main: Word → State"
    for argument in (ff.f32[3], other):
        with pytest.raises(ff.RepresentationError, match="Word"):
            ff.compile(encode, argument)
    with pytest.raises(ff.RepresentationError, match="State"):
        # A primitive gives an unnamed value.
        ff.compile((encode >> ff.tanh).typed(word, state), word)
    # A word names a value; a primitive sees through the name.
    model = ff.compile(lambda x: encode(word(x)) * 2, ff.f32[3])
    assert model.signature == "main: f32[3] → f32[2]"


def test_the_dtype_of_a_type_is_a_default():
    model = ff.compile(lambda x: ff.dense(2)(x), ff.f32[3])
    assert model(torch.ones(1, 3)).dtype is torch.float32
    assert model.double()(torch.ones(1, 3).double()).dtype is torch.float64
    assert model.bfloat16()(torch.ones(1, 3).bfloat16()).dtype is torch.bfloat16
    declared = ff.compile(lambda x: ff.dense(2)(x), ff.f64[3])
    assert next(declared.parameters()).dtype is torch.float64


def test_cast_pins():
    model = ff.compile(lambda x: ff.cast(ff.cast(x, ff.f32) * 1.0, ff.f64), ff.f64[3])
    x = torch.rand(2, 3, dtype=torch.float64)
    assert torch.equal(model(x), x.float().double())
    rounding = ff.compile(lambda x: x - ff.cast(x, ff.bf16), ff.f32[3]).double()
    assert torch.allclose(rounding(x), x - x.bfloat16().double())
    assert rounding(x).abs().max() > 0


# ---------------------------------------------------------------- combinators
def test_zip_unzip_and_shift():
    def program(xs, ys, first):
        left, right = ff.unzip(ff.map(lambda p: (p[0] - p[1], p[0] * p[1]))(ff.zip(xs, ys)))
        return left, ff.shift(right, first)

    def plain(xs, ys, first):
        return xs - ys, torch.cat((first[None], (xs * ys)[:-1]))

    agrees(program, plain, vectors, vectors, vector)
    agrees(lambda ys: ff.shift(ys, 2), lambda ys: torch.cat((torch.tensor([2]), ys[:-1])), ff.Seq(ff.i64))


def running(step, h, xs):
    out = []
    for x in xs:
        h, y = step(h, x)
        out.append(y)
    return h, torch.stack(out)


def test_a_step_gives_a_carry_or_a_carry_and_an_output():
    zero = torch.zeros(3, dtype=torch.float64)
    alone = lambda h, x: torch.tanh(h + x)
    agrees(ff.scan(lambda h, x: ff.tanh(h + x), init=ff.zeros(3)), lambda xs: scanned(alone, zero, xs), vectors)
    pair = lambda h, x: ((h + x).tanh(), h.sum() * x)
    agrees(ff.scan(pair, init=ff.zeros(3)), lambda xs: running(pair, zero, xs)[1], vectors)
    agrees(ff.fold(pair, init=ff.zeros(3)), lambda xs: running(pair, zero, xs)[0], vectors)
    agrees(ff.scan(pair, init=ff.zeros(3), final=True), lambda xs: running(pair, zero, xs), vectors)
    with pytest.raises(ff.CarryError, match=r"carry\[1\]"):
        ff.compile(ff.scan(lambda c, x: (c[0], c[1][:2]), init=(ff.zeros(3), ff.zeros(3))), vectors)


def test_reverse_keeps_places():
    step = lambda h, x: ((h + x).tanh(), h - x)
    zero = torch.zeros(3, dtype=torch.float64)

    def plain(xs):
        last, ys = running(step, zero, xs.flip(0))
        return last, ys.flip(0)

    agrees(ff.scan(step, init=ff.zeros(3), reverse=True, final=True), plain, vectors)


def test_forms_of_init():
    step = lambda h, x: h * x + h
    total = lambda start: lambda xs: scanned(step, start, xs)
    one = torch.ones(3, dtype=torch.float64)
    agrees(ff.scan(step, init=ff.ones(3)), total(one), vectors)
    agrees(ff.scan(step, init=np.ones(3)), total(one), vectors)
    agrees(ff.fold(lambda h, x: h + ff.sum(x), init=0.0), lambda xs: xs.sum(), vectors)
    start = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    parameter = ff.param((3,), "start")
    model = agrees(ff.scan(step, init=parameter), total(start), vectors, parameters={"start": start})
    assert set(model.state_dict()) == {"start"}
    agrees(lambda s, xs: ff.scan(step, init=s)(xs), lambda s, xs: total(s)(xs), vector, vectors)
    agrees(ff.scan(step), lambda p: total(p[0])(p[1]), (vector, vectors))
    agrees(ff.fold(step), lambda p: total(p[0])(p[1])[-1], (vector, vectors))
    sizes_only = ff.scan(step, init=lambda x: ff.zeros_like(x) + 1)
    agrees(sizes_only, total(one), vectors)
    with pytest.raises(ff.StructureError, match="sizes"):
        ff.compile(ff.scan(step, init=lambda x: x * 2), vectors)


def test_unfold():
    step = lambda s: ((s * 1.5).sin(), s.sum())

    def plain(s, count):
        out = []
        for _ in range(count):
            s, y = step(s)
            out.append(y)
        return torch.stack(out)

    agrees(ff.unfold(step, length=5), lambda s: plain(s, 5), vector)
    agrees(lambda s: ff.unfold(step, init=s, length=5), lambda s: plain(s, 5), vector)


def test_an_until_keeps_the_element_that_stops_it():
    program = ff.unfold(lambda s: (s - 1, s), until=lambda y: y == 0, max_length=5)
    found = ff.compile(program, ff.i64)(torch.tensor([0, 3, 9]))
    assert [row.tolist() for row in found] == [[0], [3, 2, 1, 0], [9, 8, 7, 6, 5]]
    endless = ff.compile(ff.unfold(lambda s: (s - 1, s), until=lambda y: y == 0), ff.i64)
    assert [row.tolist() for row in endless(torch.tensor([1, 2]))] == [[1, 0], [2, 1, 0]]


def speaker():
    table, mixing, scoring = ff.embedding(7, 4, name="table"), ff.dense(4, name="mix"), ff.dense(7, name="score")

    def speak(h, y):
        h = ff.tanh(mixing(h) + table(y))
        return h, scoring(h)

    return speak


def test_teacher_forcing_is_a_scan_of_the_step_that_generates():
    speak = speaker()
    generate = ff.unfold(ff.feedback(speak, ff.greedy), length=6)
    teach = lambda h, ys: ff.scan(speak, init=h)(ff.shift(ys, 1))
    model = ff.compile(
        {"generate": (lambda h: generate((h, 1)), ff.f32[4]), "teach": (teach, ff.f32[4], ff.Seq(ff.i64))}
    ).double()
    h = torch.randn(3, 4, dtype=torch.float64)
    said = model(h)
    assert torch.equal(model(h, said, entry="teach").argmax(-1), said)


@pytest.mark.parametrize("choose", [ff.sample(), ff.sample(0.5), ff.sample(2.0, top_k=3)], ids=str)
def test_sampling_has_a_seed_per_call(choose):
    program = ff.unfold(ff.feedback(speaker(), choose), length=20)
    model = ff.compile(lambda h: program((h, 1)), ff.f32[4]).double()
    h = torch.randn(4, 4, dtype=torch.float64)
    said = model(h, seed=5)
    assert torch.equal(said, model.eager(h, seed=5)) and np.array_equal(said, model.reference(h, seed=5))
    assert not torch.equal(said, model(h, seed=6)) and torch.equal(said, model(h, seed=torch.tensor(5)))
    torch.manual_seed(1)
    first, second = model(h), model(h)
    torch.manual_seed(1)
    assert torch.equal(first, model(h)) and not torch.equal(first, second)
    assert not torch.equal(*model(h[:1].expand(2, 4), seed=5))  # rows differ


def test_top_k_of_one_is_greedy():
    speak = speaker()
    entries = {
        name: (lambda h, choose=choose: ff.unfold(ff.feedback(speak, choose), length=9)((h, 1)), ff.f32[4])
        for name, choose in (("greedy", ff.greedy), ("one", ff.sample(1.0, 1)))
    }
    model = ff.compile(entries)
    h = torch.randn(3, 4)
    assert torch.equal(model(h), model(h, entry="one"))


def test_windows_hold_their_channels_last():
    def plain(xs):
        padded = F.pad(xs, (0, 0, 2, 0), value=-1.0)
        return torch.stack([padded[i : i + 3 : 2].amax(0) for i in range(0, 4, 2)])

    program = ff.window_map(lambda w: ff.max(w, axis=0), 2, stride=2, dilation=2, padding="causal", fill=-1)
    agrees(program, plain, vectors)


def test_reduce_takes_an_associative_operation():
    agrees(ff.reduce(ff.maximum, -np.inf), lambda xs: xs.amax(0), vectors)
    affine = lambda p, q: (p[0] * q[0], p[1] * q[0] + q[1])

    def plain(xs):
        a, b = torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        for x in xs:
            a, b = affine((a, b), (x, x))
        return a, b

    program = ff.map(lambda x: (x, x)) >> ff.reduce(affine, (ff.ones(3), ff.zeros(3)))
    agrees(program, plain, vectors)


def test_trees():
    node = lambda x, kids: ff.tanh(x + ff.sum(kids))
    leaf = lambda x: x * 2
    trees = [(torch.tensor(1.0), [(torch.tensor(2.0), []), (torch.tensor(-1.0), [(torch.tensor(0.5), [])])])]
    without = np.tanh(1 + np.tanh(2) + np.tanh(-1 + np.tanh(0.5)))
    with_leaf = np.tanh(1 + 4 + np.tanh(-1 + 1.0))
    model = ff.compile({"node": (ff.cata(node), ff.Tree(ff.f32)), "leaf": (ff.cata(node, leaf), ff.Tree(ff.f32))})
    assert np.allclose(model(trees).item(), without) and np.allclose(model(trees, entry="leaf").item(), with_leaf)
    every = ff.compile(ff.cata(node, every=True), ff.Tree(ff.f32))(trees)
    assert every[0].shape == (4,) and np.allclose(every[0][0].item(), without)


def test_the_gradient_is_an_expression():
    loss = lambda w, x: ff.sum(ff.tanh(w * x) ** 2)

    def plain(w, x):
        w = w.detach().requires_grad_() if not w.requires_grad else w
        (g,) = torch.autograd.grad((torch.tanh(w * x) ** 2).sum(), w, create_graph=True)
        return g

    agrees(ff.grad(loss), plain, vector, vector)


# ---------------------------------------------------------------- parameters
def test_initial_values():
    def program(x):
        return x @ ff.param((100, 50), "drawn") + sum(parameters[name][0] for name in ("number", "array", "filled"))

    parameters = {
        "number": ff.param((2, 50), "number", init=0.25),
        "array": ff.param((2, 50), "array", init=np.arange(100.0).reshape(2, 50)),
        "filled": ff.param((2, 50), "filled", init=nn.init.orthogonal_),
    }
    torch.manual_seed(4)
    model = ff.compile(program, ff.f32[100])
    found = model.state_dict()
    assert found["drawn"].abs().max() <= 0.1 and 0.055 < found["drawn"].std() < 0.06
    assert (found["number"] == 0.25).all() and found["array"].flatten().tolist() == list(range(100))
    assert torch.allclose(found["filled"] @ found["filled"].T, torch.eye(2), atol=1e-5)
    torch.manual_seed(4)
    assert torch.equal(found["drawn"], ff.compile(program, ff.f32[100]).state_dict()["drawn"])


def test_buffers():
    model = ff.compile(lambda x: x * ff.buffer(np.array([1.0, 2.0]), "scale"), ff.f32[2])
    assert not list(model.parameters()) and set(model.state_dict()) == {"scale"}
    assert model(torch.ones(1, 2)).tolist() == [[1.0, 2.0]]
    assert model.double().scale.dtype is torch.float64
    table = ff.compile(lambda x: x[ff.buffer(np.array([1, 0]), "order")], ff.f32[2]).double()
    assert table.order.dtype is torch.int64 and table(torch.tensor([[1.0, 2.0]]).double()).tolist() == [[2.0, 1.0]]


def test_scopes_numbers_and_ties():
    with ff.scope("left"):
        first, second, named = ff.dense(3), ff.dense(3), ff.dense(3, name="named")
        with ff.scope("deep"):
            inner, w = ff.dense(3), ff.param((3,), "w")
    outside = ff.dense(3)
    program = first >> second >> named >> inner >> (lambda x: x * w) >> outside >> first
    model = ff.compile(program, ff.f32[3])
    layers = {name.rsplit(".", 1)[0] for name in model.state_dict() if not name.endswith("w")}
    assert layers == {"left.dense_0", "left.dense_1", "left.named", "left.deep.dense_0", "dense_0"}
    assert "left.deep.w" in model.state_dict()
    tied = ff.compile(first >> ff.tanh >> first, ff.f32[3])
    assert set(tied.state_dict()) == {"left.dense_0.weight", "left.dense_0.bias"}


def test_two_parameters_of_one_name_are_refused():
    with pytest.raises(ff.ParameterError, match="two parameters"):
        ff.compile(lambda x: x * ff.param((3,), "w") + ff.param((3,), "w"), ff.f32[3])


def test_dropout():
    model = ff.compile(ff.dropout(0.5), ff.f32[1000])
    x = torch.ones(4, 1000)
    out = model(x, seed=1)
    assert set(out.unique().tolist()) == {0.0, 2.0} and 0.4 < (out == 0).float().mean() < 0.6
    assert torch.equal(out, model(x, seed=1)) and not torch.equal(out, model(x, seed=2))
    assert torch.equal(out, model.eager(x, seed=1))
    torch.manual_seed(0)
    first, second = model(x), model(x)
    torch.manual_seed(0)
    assert torch.equal(first, model(x)) and not torch.equal(first, second)
    assert torch.equal(model.eval()(x), x) and np.array_equal(model.reference(x), x)


def test_a_mask_made_outside_of_a_scan_is_variational():
    def variational(xs):
        mask = ff.dropout(0.5)(ff.ones(50))
        return ff.scan(lambda h, x: (h, x * mask), init=0.0)(xs)

    x = torch.ones(2, 6, 50)
    same = ff.compile(variational, ff.Seq(ff.f32[50]))(x, seed=1)
    assert (same == same[:, :1]).all() and not torch.equal(same[0], same[1])
    fresh = ff.compile(ff.scan(lambda h, x: (h, ff.dropout(0.5)(x)), init=0.0), ff.Seq(ff.f32[50]))(x, seed=1)
    assert not (fresh == fresh[:, :1]).all()


# ---------------------------------------------------------------- compiling and calling
def test_several_entry_points_have_one_parameter_set():
    shared, only = ff.dense(3, name="shared"), ff.dense(2, name="only")
    model = ff.compile({"a": (shared >> ff.tanh, ff.f32[3]), "b": (ff.map(shared >> only), ff.Seq(ff.f32[3]))})
    assert set(model.state_dict()) == {f"{layer}.{part}" for layer in ("shared", "only") for part in ("weight", "bias")}
    x = torch.randn(2, 3)
    assert torch.equal(model(x), model(x, entry="a"))
    assert torch.allclose(model(x), torch.tanh(F.linear(x, model.shared.weight.T, model.shared.bias)))
    assert model(x[None], entry="b").shape == (1, 2, 2)
    seen = []
    model.register_forward_hook(lambda module, arguments, output: seen.append(output.shape))
    model(x[None], entry="b")
    assert seen == [(1, 2, 2)]
    with pytest.raises(ff.StructureError, match="'a', 'b'"):
        model(x, entry="c")


def test_what_a_model_tells():
    model = ff.compile({"one": (ff.map(ff.dense(2)), ff.Seq(ff.f32[3])), "two": (ff.tanh, ff.f32[3])})
    assert model.signature == "one: Seq(f32[3]) → Seq(f32[2])\ntwo: f32[3] → f32[3]"
    assert model.kernels == ()
    assert "contract" in model.code() and "tanh" in model.code("two")
    assert "one: Seq(f32[3])" in model.explain() and model.explain("two")
    assert "Seq(f32[3])" in repr(model)


def test_taps():
    def step(h, x):
        gate = ff.tap(ff.sigmoid(h + x), "gate")
        h = gate * x
        return h, ff.tap(h.sum(), "total")

    plain = ff.scan(step, init=ff.zeros(3))
    model = ff.compile(plain, vectors).double()
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    found = model.record(x)
    assert set(found) == {"gate", "total"} and found["gate"].shape == (2, 4, 3)
    assert torch.allclose(found["total"], model(x))
    lists = model.record(ff.ragged(x, [4, 2]))
    assert torch.allclose(lists["gate"].unpad()[1], found["gate"][1, :2])
    with pytest.raises(ff.StructureError, match=r"ff\.tap"):
        ff.compile(ff.tanh, vector).record(torch.ones(1, 3))


def test_without_a_batch():
    layer = ff.dense(2, name="layer")
    alone = ff.compile(ff.map(layer) >> ff.sum, vectors, batched=False).double()
    batched = ff.compile(ff.map(layer) >> ff.sum, vectors).double()
    batched.load_state_dict(alone.state_dict())
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.allclose(alone(x), batched(x[None])[0])
    assert np.allclose(alone.reference(x), alone(x).detach())
    alone(x).sum().backward()
    assert x.grad is not None
