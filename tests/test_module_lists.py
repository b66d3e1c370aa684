"""Lists in and out of a compiled model: padded, ragged, packed, jagged; empty ones; strides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

import foldfuse as ff

from .test_module import D, H, data, gradients, model, relative, same

LENGTHS = [4, 6, 1, 3]
SORTED = [6, 4, 3, 1]


def as_form(form, rows):
    if form == "padded":
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    if form == "ragged":
        return ff.ragged(rows)
    if form == "packed":
        return pack_sequence(rows)
    if form == "unsorted":
        return pack_sequence(rows, enforce_sorted=False)
    return torch.nested.nested_tensor_from_jagged(
        torch.cat(rows), torch.tensor([0, *np.cumsum([len(row) for row in rows])])
    )


def to_rows(form, value, lengths):
    if form in ("packed", "unsorted"):
        padded, lengths = pad_packed_sequence(value, batch_first=True)
        return [row[:n] for row, n in zip(padded, lengths)]
    if form == "ragged":
        return value.unpad()
    return [row[:n] for row, n in zip(value.unbind(), lengths)]


@pytest.mark.parametrize("form", ["padded", "ragged", "packed", "unsorted", "jagged"])
def test_lists_leave_as_they_came(form):
    m = model()
    lengths = [6] * 4 if form == "padded" else SORTED if form == "packed" else LENGTHS
    rows = [data(1, n, seed=n)[0].requires_grad_() for n in lengths]
    weights = [torch.linspace(-1, 1, n * H).reshape(n, H) for n in lengths]
    out = m(as_form(form, rows))
    assert type(out) is type(as_form(form, rows))
    total = sum((y * w).sum() for y, w in zip(to_rows(form, out, lengths), weights))
    total = total + m(as_form(form, rows), entry="last").sum()
    alone = sum((m(row[None])[0] * w).sum() + m(row[None], entry="last").sum() for row, w in zip(rows, weights))
    assert relative(total, alone) <= 1e-6
    wanted = [*m.parameters(), *rows]
    for x, y in zip(torch.autograd.grad(total, wanted), torch.autograd.grad(alone, wanted)):
        assert relative(x, y) <= 1e-5


def test_jagged_lists_share_their_offsets():
    m = ff.compile(ff.scan(lambda h, x: ff.tanh(h + x), init=ff.zeros(D)), ff.Seq(ff.f32[D]))
    values = torch.randn(6, D, requires_grad=True)
    nested = torch.nested.nested_tensor_from_jagged(values, torch.tensor([0, 4, 6]))
    residual = nested + m(nested)
    assert m(nested).offsets() is nested.offsets()
    residual.values().sum().backward()
    assert (values.grad - 1).norm() > 0


def test_padding_is_neither_read_nor_written():
    m = model()
    x = data()
    dirty = x.clone()
    dirty[0, 4:], dirty[2, 1:], dirty[3, 3:] = float("nan"), float("inf"), 1e9
    dirty.requires_grad_()
    out = m(ff.ragged(dirty, LENGTHS)).data
    assert torch.equal(out, m(ff.ragged(x, torch.tensor(LENGTHS))).data) and (out[2, 1:] == 0).all()
    out.sum().backward()
    assert dirty.grad.isfinite().all() and (dirty.grad[2, 1:] == 0).all()
    assert all(p.grad.isfinite().all() for p in (m.W, m.U, m.b))


@pytest.mark.parametrize("batch, time", [(0, 6), (4, 0), (0, 0)])
def test_empty_batches_and_lists(batch, time):
    m = model()
    x = data(batch, time).requires_grad_()
    out, last = m(x), m(x, entry="last")
    assert out.shape == (batch, time, H) and last.shape == (batch, 2)
    (out.sum() + last.sum()).backward()
    assert x.grad.shape == x.shape and (m.W.grad == 0).all() and m.get_parameter("out.bias").grad.eq(batch).all()


def test_lists_that_are_all_empty():
    m = model()
    x = data(3, 5).requires_grad_()
    out = m(ff.ragged(x, [0, 0, 0]))
    assert (out.data == 0).all() and out.unpad()[0].shape == (0, H)
    total = out.data.sum() + m(ff.ragged(x, [0, 0, 0]), entry="last").sum()
    total.backward()
    assert (x.grad == 0).all() and (m.W.grad == 0).all()


def test_strides_do_not_matter():
    m = model()
    x = data(4, 6)
    expected = gradients(m, x)
    spread = torch.randn(6, 8, D)[:, ::2].transpose(0, 1)
    spread.copy_(x)
    assert not spread.is_contiguous()
    same(gradients(m, spread), expected, 1e-6)
    with torch.no_grad():
        m.W = nn.Parameter(m.W.t().contiguous().t())
    same(gradients(m, x), expected, 1e-6)
    # `.sum()` hands in a gradient of stride 0, a transposed loss one that is not contiguous.
    scale = torch.linspace(-1, 1, 4 * 6 * H).reshape(H, 6, 4)
    turned = gradients(m, x, loss=lambda y: (y.transpose(0, 2) * scale).sum())
    plain = gradients(m, x, loss=lambda y: (y * scale.transpose(0, 2).contiguous()).sum())
    same(turned, plain, 1e-6)
    ones = gradients(m, x, loss=lambda y: (y * torch.ones(y.shape, dtype=y.dtype)).sum())
    same(gradients(m, x, loss=lambda y: y.sum()), ones, 1e-6)
    expanded = data(1, 6).expand(4, 6, D)
    assert relative(m(expanded), m(expanded.contiguous())) == 0
