"""Torch inside of a step just works: functions, methods, layers, cells, a user's own modules."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import foldfuse as ff

from .agreement import agrees, matrix, vector, vectors


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
    likelihood = lambda x, y: F.nll_loss(F.log_softmax(x, -1), y)
    agrees(likelihood, likelihood, matrix, ff.i64[4])


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


class Decaying(nn.Module):
    """A cell that computes with its parameters before it meets a value."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor([-1.0, 0.0, 1.0]))
        self.weight = nn.Parameter(torch.randn(3, 3))
        self.register_buffer("mask", torch.ones(3, 3).tril())
        self.dropout = nn.Dropout(0.5)

    def forward(self, h, x):
        scale = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
        return self.dropout(torch.exp(-self.rate.exp()) * h + x @ (self.weight * self.mask).T / scale)


@pytest.mark.parametrize("learned", [True, False])
def test_what_a_module_computes_of_its_parameters_is_part_of_the_program(learned):
    torch.manual_seed(0)
    cell = Decaying().requires_grad_(learned)
    model = ff.compile(ff.scan(cell, init=ff.zeros(3)), vectors)
    # A tensor made in the step belongs to the model once, although the step is traced for training and evaluation.
    assert len(model.state_dict()) == 4 and {f"cell.{name}" for name in cell.state_dict()} < set(model.state_dict())
    start = torch.zeros(3, dtype=torch.float64)
    agrees(model, lambda xs: scanned(cell.eval(), start, xs), vectors)
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    if learned:
        found = torch.autograd.grad(model(x).square().sum(), [cell.rate, cell.weight])
        plain = sum(scanned(cell, start, row).square().sum() for row in x)
        for left, right in zip(found, torch.autograd.grad(plain, [cell.rate, cell.weight])):
            assert torch.allclose(left, right)
    before = model(x)
    with torch.no_grad():
        cell.rate.add_(1.0)
    assert not torch.allclose(model(x), before)
    assert torch.allclose(model(x)[0], scanned(cell, start, x[0]))


def test_modules_of_a_loop_are_numbered():
    layers = [nn.Linear(3, 3) for _ in range(3)]

    def program(v):
        for layer in layers:
            v = torch.tanh(layer(v))
        return v

    model = ff.compile(program, vector)
    names = [f"{layer}.{part}" for layer in ("layer", "layer_1", "layer_2") for part in ("weight", "bias")]
    assert list(model.state_dict()) == names
    agrees(model, program, vector)


def test_tied_weights_of_a_module():
    embed = nn.Embedding(3, 4)
    model = ff.compile(lambda i: embed(i) @ embed.weight.T, ff.i64)
    assert list(model.state_dict()) == ["embed.weight"]
    agrees(model, lambda i: embed(i) @ embed.weight.T, ff.i64)


METHODS = {
    "sum": lambda x: x.sum(-1, True),
    "mean": lambda x: x.mean(-1, keepdim=True),
    "std": lambda x: x.std(-1),
    "var": lambda x: x.var(0, unbiased=False) + x.var(0),
    "max": lambda x: x.max(-1)[0] + x.max(dim=-1)[0] - x.max(),
    "transpose": lambda x: x.transpose(0, 1),
    "chunk": lambda x: x.chunk(2)[1],
    "split": lambda x: x.split(3, dim=0)[1],
    "sort": lambda x: x.sort(dim=0)[0],
    "topk": lambda x: x.topk(2)[0],
    "expand": lambda x: x.unsqueeze(1).expand(-1, 2, -1),
    "view": lambda x: x.view(2, -1).flatten() * x.size(0) * x.numel() * x.dim(),
    "mm": lambda x: x.mm(x.t()),
    "to": lambda x: (x > 0).to(x.dtype) * x + (x > 0).type_as(x),
    "log1p": lambda x: x.exp().log1p().clamp(min=0.5),
    "add": lambda x: x.add(x, alpha=2).sub(1, alpha=3),
}


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_those_of_tensors(name):
    agrees(METHODS[name], METHODS[name], ff.f32[4, 4])


def test_methods_with_numpys_keywords_are_numpys():
    agrees(lambda x: x.max(axis=0) + x.var(axis=0), lambda x: x.amax(0) + x.var(0, correction=0), matrix)
    agrees(lambda x: x.max(axis=0, keepdims=True), lambda x: x.amax(0, keepdim=True), matrix)
    agrees(lambda x: x.transpose(), lambda x: x.T, matrix)


def test_functions_without_a_meaning_are_named():
    with pytest.raises(ff.StructureError, match="fft_fft"):
        ff.compile(lambda x: torch.fft.fft(x), vector)
