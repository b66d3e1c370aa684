"""Recurrences: each step as a scan and as a fold, left and reverse."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import foldfuse as ff

from .record import MODULE, Program, floats, loop, under

D, H = 3, 5  # widths of an element and of a carry
HEADS, WIDE = 2, 3  # heads, and the width of one
K, V = 3, 5  # key and value widths of the matrix memories


# ---------------------------------------------------------------- the steps, as a user of foldfuse writes them
def rest(n):
    return ff.zeros(n), ff.zeros(n)


def identity():
    return lambda v: v


def elman(n, d):
    W, U, b = ff.param((d, n), "W"), ff.param((n, n), "U"), ff.param((n,), "b")
    return lambda h, x: ff.tanh(x @ W + h @ U + b)


def lstm(n, d, norm=identity):  # norm=ff.layer_norm gives the layer-norm LSTM
    W = ff.param((d, 4 * n), "W")
    U = ff.param((n, 4 * n), "U")
    b = ff.param((4 * n,), "b")
    inner, cell = norm(), norm()

    def step(carry, x):
        h, c = carry
        i, f, g, o = ff.chunk(inner(x @ W + h @ U) + b, 4)
        c = ff.sigmoid(f) * c + ff.sigmoid(i) * ff.tanh(g)
        h = ff.sigmoid(o) * ff.tanh(cell(c))
        return (h, c), h

    return step


def lstm_sliced(n, d):
    W, U, b = ff.param((d, 4 * n), "W"), ff.param((n, 4 * n), "U"), ff.param((4 * n,), "b")

    def step(carry, x):
        h, c = carry
        i = ff.sigmoid(x @ W[:, :n] + h @ U[:, :n] + b[:n])
        f = ff.sigmoid(x @ W[:, n : 2 * n] + h @ U[:, n : 2 * n] + b[n : 2 * n])
        g = ff.tanh(x @ W[:, 2 * n : 3 * n] + h @ U[:, 2 * n : 3 * n] + b[2 * n : 3 * n])
        o = ff.sigmoid(x @ W[:, 3 * n :] + h @ U[:, 3 * n :] + b[3 * n :])
        c = f * c + i * g
        h = o * ff.tanh(c)
        return (h, c), h

    return step


def lstm_concat(n, d):
    W, b = ff.param((n + d, 4 * n), "W"), ff.param((4 * n,), "b")

    def step(carry, x):
        h, c = carry
        gates = ff.concat(h, x) @ W + b
        i, f, g, o = gates[:n], gates[n : 2 * n], gates[2 * n : 3 * n], gates[3 * n :]
        c = ff.sigmoid(f) * c + ff.sigmoid(i) * ff.tanh(g)
        h = ff.sigmoid(o) * ff.tanh(c)
        return (h, c), h

    return step


def lstm_torch_words(n, d):
    W, b = ff.param((n + d, 4 * n), "W"), ff.param((4 * n,), "b")

    def step(carry, x):
        h, c = carry
        i, f, g, o = torch.chunk(F.linear(torch.cat((h, x)), W.T, b), 4, dim=-1)
        c = f.sigmoid() * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * c.tanh()
        return (h, c), h

    return step


def peephole(n, d):
    W, U, b = ff.param((d, 4 * n), "W"), ff.param((n, 4 * n), "U"), ff.param((4 * n,), "b")
    pi, pf, po = ff.param((n,), "pi"), ff.param((n,), "pf"), ff.param((n,), "po")

    def step(carry, x):
        h, c = carry
        i, f, g, o = ff.chunk(x @ W + h @ U + b, 4)
        c = ff.sigmoid(f + pf * c) * c + ff.sigmoid(i + pi * c) * ff.tanh(g)
        h = ff.sigmoid(o + po * c) * ff.tanh(c)
        return (h, c), h

    return step


def gru(n, d):
    W, U = ff.param((d, 3 * n), "W"), ff.param((n, 3 * n), "U")
    b, bu = ff.param((3 * n,), "b"), ff.param((3 * n,), "bu")

    def step(h, x):
        xr, xz, xn = ff.chunk(x @ W + b, 3)
        hr, hz, hn = ff.chunk(h @ U + bu, 3)
        r, z = ff.sigmoid(xr + hr), ff.sigmoid(xz + hz)
        return (1 - z) * ff.tanh(xn + r * hn) + z * h

    return step


def gru_first(n, d):
    W, U, b = ff.param((d, 3 * n), "W"), ff.param((n, 2 * n), "U"), ff.param((3 * n,), "b")
    Uc = ff.param((n, n), "Uc")

    def step(h, x):
        a = x @ W + b
        r, z = ff.chunk(ff.sigmoid(a[: 2 * n] + h @ U), 2)
        return (1 - z) * h + z * ff.tanh(a[2 * n :] + (r * h) @ Uc)  # a matrix product after a matrix product

    return step


def mgu(n, d):
    W, U, b = ff.param((d, 2 * n), "W"), ff.param((n, n), "U"), ff.param((2 * n,), "b")
    Uc = ff.param((n, n), "Uc")

    def step(h, x):
        xf, xc = ff.chunk(x @ W + b, 2)
        f = ff.sigmoid(xf + h @ U)
        return (1 - f) * h + f * ff.tanh(xc + (f * h) @ Uc)

    return step


def slstm(n, d):
    W, U, b = ff.param((d, 4 * n), "W"), ff.param((n, 4 * n), "U"), ff.param((4 * n,), "b")

    def step(carry, x):
        h, c, s, m = carry
        i, f, z, o = ff.chunk(x @ W + h @ U + b, 4)
        top = ff.maximum(f + m, i)
        keep, take = ff.exp(f + m - top), ff.exp(i - top)
        c = keep * c + take * ff.tanh(z)
        s = keep * s + take
        h = ff.sigmoid(o) * c / s
        return (h, c, s, top), h

    return step


def heads_einsum(heads, n, d):
    W, U, b = ff.param((d, heads, n), "W"), ff.param((heads, n, n), "U"), ff.param((heads, n), "b")
    return lambda h, x: ff.tanh(ff.einsum("d,dkn->kn", x, W) + ff.einsum("kn,knm->km", h, U) + b)


def heads_matmul(heads, n, d):
    W, U, b = ff.param((heads, d, 4 * n), "W"), ff.param((heads, n, 4 * n), "U"), ff.param((heads, 4 * n), "b")

    def step(carry, x):
        h, c = carry  # [heads, n]
        gates = (h[:, None, :] @ U)[:, 0, :] + ff.matmul(x, W) + b
        i, f, g, o = ff.chunk(gates, 4, axis=-1)
        c = ff.sigmoid(f) * c + ff.sigmoid(i) * ff.tanh(g)
        h = ff.sigmoid(o) * ff.tanh(c)
        return (h, c), h

    return step


def attend(S, p):
    q, k, v = p
    S = S + k[:, None] * v
    return S, q @ S


def delta_rule(S, p):
    q, k, v, beta = p
    k = k / (ff.norm(k) + 1e-6)
    S = S + ff.sigmoid(beta) * k[:, None] * (v - k @ S)
    return S, q @ S


def gated_delta(S, p):
    q, k, v, gate = p
    k = k / ff.sqrt(ff.sum(k * k) + 1e-6)
    S = ff.sigmoid(gate[0]) * S
    S = S + ff.sigmoid(gate[1]) * ff.einsum("k,v->kv", k, v - ff.einsum("k,kv->v", k, S))
    return S, ff.einsum("k,kv->v", q, S)


def indrnn(n, d):
    W, u, b = ff.param((d, n), "W"), ff.param((n,), "u"), ff.param((n,), "b")
    return lambda h, x: ff.relu(x @ W + u * h + b)


def min_gru(n, d):
    W, b = ff.param((d, 2 * n), "W"), ff.param((2 * n,), "b")

    def step(h, x):  # neither the gate nor the candidate reads the carry
        z, c = ff.chunk(x @ W + b, 2)
        z = ff.sigmoid(z)
        return (1 - z) * h + z * c

    return step


def three_carries(n, d):
    W, U, b = ff.param((d, n), "W"), ff.param((n, n), "U"), ff.param((n,), "b")

    def step(carry, x):
        h, top, mean = carry
        h = ff.tanh(x @ W + h @ U + 0.1 * top + b)
        top = ff.maximum(top, h)
        mean = 0.9 * mean + 0.1 * h
        return (h, top, mean), (top - mean, ff.max(h))

    return step


def crf_forward(n):
    transitions = ff.param((n, n), "transitions")
    return lambda alpha, x: ff.logsumexp(alpha[:, None] + transitions, axis=0) + x


class OwnCell(nn.Module):
    """A cell that somebody wrote for torch, with layers, a parameter of its own and functions of torch."""

    def __init__(self, n: int, d: int) -> None:
        super().__init__()
        self.take = nn.Linear(d, n)
        self.keep = nn.Linear(n, 2 * n, bias=False)
        self.norm = nn.LayerNorm(n)
        self.scale = nn.Parameter(torch.ones(n))

    def forward(self, h, x):
        gate, value = self.keep(h).chunk(2, dim=-1)
        value = F.silu(self.take(x) + value)
        gate = torch.sigmoid(gate)
        return self.norm(gate * value + (1 - gate) * h) * self.scale


# ---------------------------------------------------------------- the same steps in plain torch
def plain_elman(p, h, x):
    """Elman, Finding structure in time (1990)."""
    h = torch.tanh(x @ p["W"] + h @ p["U"] + p["b"])
    return h, h


def plain_lstm(p, carry, x):
    """Hochreiter and Schmidhuber, Long short-term memory (1997), with the forget gate of Gers et al. (2000)."""
    h, c = carry
    i, f, g, o = torch.split(x @ p["W"] + h @ p["U"] + p["b"], h.shape[-1], dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return (h, c), h


def plain_lstm_concat(p, carry, x):
    """The LSTM with one matrix over the concatenation of carry and element."""
    h, _ = carry
    n = h.shape[0]
    return plain_lstm({"U": p["W"][:n], "W": p["W"][n:], "b": p["b"]}, carry, x)


def plain_layer_norm_lstm(p, carry, x):
    """The LSTM with the gates normalised, and the cell on its way out (after Ba, Kiros, Hinton, 2016)."""
    h, c = carry
    gates = x @ p["W"] + h @ p["U"]
    gates = F.layer_norm(gates, gates.shape, p["layer_norm_0.weight"], p["layer_norm_0.bias"]) + p["b"]
    i, f, g, o = torch.split(gates, h.shape[0])
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(F.layer_norm(c, c.shape, p["layer_norm_1.weight"], p["layer_norm_1.bias"]))
    return (h, c), h


def plain_peephole(p, carry, x):
    """Gers and Schmidhuber, Recurrent nets that time and count (2000)."""
    h, c = carry
    i, f, g, o = torch.split(x @ p["W"] + h @ p["U"] + p["b"], h.shape[0])
    i, f = torch.sigmoid(i + p["pi"] * c), torch.sigmoid(f + p["pf"] * c)
    c = f * c + i * torch.tanh(g)
    h = torch.sigmoid(o + p["po"] * c) * torch.tanh(c)
    return (h, c), h


def plain_gru(p, h, x):
    """Cho et al., Learning phrase representations (2014), in the form that cuDNN and torch compute."""
    n = h.shape[0]
    a, e = x @ p["W"] + p["b"], h @ p["U"] + p["bu"]
    r = torch.sigmoid(a[:n] + e[:n])
    z = torch.sigmoid(a[n : 2 * n] + e[n : 2 * n])
    new = torch.tanh(a[2 * n :] + r * e[2 * n :])
    h = (1 - z) * new + z * h
    return h, h


def plain_gru_first(p, h, x):
    """The GRU as Chung et al. (2014) print it: the reset gate acts before the matrix."""
    n = h.shape[0]
    a = x @ p["W"] + p["b"]
    r = torch.sigmoid(a[:n] + h @ p["U"][:, :n])
    z = torch.sigmoid(a[n : 2 * n] + h @ p["U"][:, n:])
    h = (1 - z) * h + z * torch.tanh(a[2 * n :] + (r * h) @ p["Uc"])
    return h, h


def plain_mgu(p, h, x):
    """Zhou et al., Minimal gated unit for recurrent neural networks (2016)."""
    n = h.shape[0]
    f = torch.sigmoid(x @ p["W"][:, :n] + h @ p["U"] + p["b"][:n])
    candidate = torch.tanh(x @ p["W"][:, n:] + (f * h) @ p["Uc"] + p["b"][n:])
    h = (1 - f) * h + f * candidate
    return h, h


def plain_slstm(p, carry, x):
    """Beck et al., xLSTM (2024): the sLSTM with an exponential forget gate, and its stabiliser state."""
    h, c, s, m = carry
    i, f, z, o = torch.split(x @ p["W"] + h @ p["U"] + p["b"], h.shape[0])
    new_m = torch.maximum(f + m, i)
    i, f = torch.exp(i - new_m), torch.exp(f + m - new_m)
    c = f * c + i * torch.tanh(z)
    s = f * s + i
    h = torch.sigmoid(o) * (c / s)
    return (h, c, s, new_m), h


def plain_heads_einsum(p, h, x):
    """An Elman net whose recurrent matrix is block diagonal, one block per head."""
    rows = [torch.tanh(x @ p["W"][:, k] + h[k] @ p["U"][k] + p["b"][k]) for k in range(h.shape[0])]
    return torch.stack(rows), torch.stack(rows)


def plain_heads_matmul(p, carry, x):
    """Independent LSTMs side by side: an LSTM whose recurrent matrix is block diagonal."""
    heads = range(carry[0].shape[0])
    parts = [
        plain_lstm({name: p[name][k] for name in ("W", "U", "b")}, (carry[0][k], carry[1][k]), x)[0] for k in heads
    ]
    h, c = (torch.stack([part[j] for part in parts]) for j in (0, 1))
    return (h, c), h


def plain_attend(p, S, element):
    """Katharopoulos et al., Transformers are RNNs (2020), with neither feature map nor normaliser."""
    q, k, v = element
    S = S + torch.outer(k, v)
    return S, S.T @ q


def plain_delta_rule(p, S, element):
    """Schlag, Irie, Schmidhuber, Linear transformers are secretly fast weight programmers (2021)."""
    q, k, v, beta = element
    k = k / (torch.linalg.vector_norm(k) + 1e-6)
    S = S + torch.sigmoid(beta) * torch.outer(k, v - S.T @ k)
    return S, S.T @ q


def plain_gated_delta(p, S, element):
    """Yang, Kautz, Hatamizadeh, Gated delta networks (2024)."""
    q, k, v, gate = element
    k = k / torch.sqrt((k * k).sum() + 1e-6)
    S = torch.sigmoid(gate[0]) * S
    S = S + torch.sigmoid(gate[1]) * torch.outer(k, v - S.T @ k)
    return S, S.T @ q


def plain_indrnn(p, h, x):
    """Li et al., Independently recurrent neural network (2018)."""
    h = torch.relu(x @ p["W"] + p["u"] * h + p["b"])
    return h, h


def plain_min_gru(p, h, x):
    """Feng et al., Were RNNs all we needed? (2024): the minGRU."""
    n = h.shape[0]
    z = torch.sigmoid(x @ p["W"][:, :n] + p["b"][:n])
    h = (1 - z) * h + z * (x @ p["W"][:, n:] + p["b"][n:])
    return h, h


def plain_three_carries(p, carry, x):
    """An Elman net that also keeps the running maximum and a running mean of its state."""
    h, top, mean = carry
    h = torch.tanh(x @ p["W"] + h @ p["U"] + 0.1 * top + p["b"])
    top = torch.maximum(top, h)
    mean = 0.9 * mean + 0.1 * h
    return (h, top, mean), (top - mean, h.max())


def plain_crf_forward(p, alpha, x):
    """The forward recursion of a linear-chain CRF, Lafferty et al. (2001): log-sum-exp over the previous label."""
    scores = [torch.logsumexp(alpha + p["transitions"][:, j], dim=0) for j in range(alpha.shape[0])]
    alpha = torch.stack(scores) + x
    return alpha, alpha


def plain_cumulative_sum(p, s, x):
    """The running sum."""
    return s + x, s + x


def plain_lstm_cell(p, carry, x):
    """`nn.LSTMCell`, run by torch."""
    carry = torch.func.functional_call(nn.LSTMCell(D, H), under(p, MODULE), (x, carry))
    return carry, carry


def plain_gru_cell(p, h, x):
    """`nn.GRUCell`, run by torch."""
    h = torch.func.functional_call(nn.GRUCell(D, H), under(p, MODULE), (x, h))
    return h, h


def plain_own_cell(p, h, x):
    """The user's own module, run by torch."""
    h = torch.func.functional_call(OwnCell(H, D), under(p, MODULE), (h, x))
    return h, h


# ---------------------------------------------------------------- nn.Module cells as steps
def lstm_cell_step():
    cell = nn.LSTMCell(D, H)
    return lambda carry, x: cell(x, carry)


def gru_cell_step():
    cell = nn.GRUCell(D, H)
    return lambda h, x: cell(x, h)


def own_step():
    cell = OwnCell(H, D)
    return lambda h, x: cell(h, x)


# ---------------------------------------------------------------- the records
def vectors(rng: np.random.Generator, length: int) -> tuple[np.ndarray, ...]:
    return (floats(rng, length, D),)


def queries_keys_values(rng: np.random.Generator, length: int) -> tuple[np.ndarray, ...]:
    return floats(rng, length, K), floats(rng, length, K), floats(rng, length, V)


def module_shapes(module: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    return {f"{MODULE}.{name}": tuple(value.shape) for name, value in module().named_parameters()}


def recurrence(
    name: str,
    step: Callable[[], Callable],
    init: Callable[[], Any],
    plain_step: Callable,
    shapes: dict[str, tuple[int, ...]],
    types: tuple | None = None,
    inputs: Callable[[np.random.Generator, int], tuple] = vectors,
    **more: Any,
) -> list[Program]:
    """The four programs of one step: scan and fold, left and reverse.

    Args:
        name: of the step.
        step: makes the step of foldfuse, with fresh parameters.
        init: makes the first carry, a constant; run with torch too, it is what the plain loop starts with.
        plain_step: `(parameters, carry, element) -> (carry, output)` in plain torch.
        shapes: of the parameters.
        types: the types of the lists; several lists are zipped. A list of vectors when left out.
        inputs: as in `Program`.
        more: further fields of `Program`.
    """

    def build(combinator, reverse):
        expression = getattr(ff, combinator)(step(), init=init(ff), reverse=reverse)
        if types is None:
            return {"main": (expression, ff.Seq(ff.f32[D]))}
        return {"main": (lambda *lists: expression(ff.zip(*lists)), *(ff.Seq(a) for a in types))}

    def plain(combinator, reverse, parameters, *lists):
        carry = init(torch64)
        elements = lists[0] if types is None else lists
        last, outputs = loop(partial(plain_step, parameters), carry, elements, reverse)
        return last if combinator == "fold" else outputs

    return [
        Program(
            name=f"recurrences.{name}.{combinator}{'.reverse' if reverse else ''}",
            build=partial(build, combinator, reverse),
            plain=partial(plain, combinator, reverse),
            inputs=inputs,
            shapes=shapes,
            **{"lengths": (0, 1, 5), **more},
        )
        for combinator in ("scan", "fold")
        for reverse in (False, True)
    ]


class torch64:
    """`zeros` and `full` in float64, so that one `init` serves foldfuse and plain torch."""

    @staticmethod
    def zeros(*shape):
        return torch.zeros(shape, dtype=torch.float64)

    @staticmethod
    def full(shape, value):
        return torch.full(shape, value, dtype=torch.float64)


def vector(w):
    return w.zeros(H)


def pair(w):
    return w.zeros(H), w.zeros(H)


PACKED = {"W": (D, 4 * H), "U": (H, 4 * H), "b": (4 * H,)}
CONCAT = {"W": (H + D, 4 * H), "b": (4 * H,)}
NORMS = {
    "layer_norm_0.weight": (4 * H,),
    "layer_norm_0.bias": (4 * H,),
    "layer_norm_1.weight": (H,),
    "layer_norm_1.bias": (H,),
}
GRU = {"W": (D, 3 * H), "U": (H, 3 * H), "b": (3 * H,), "bu": (3 * H,)}


def with_gates(*gate_shape: int) -> Callable[[np.random.Generator, int], tuple]:
    return lambda rng, length: (*queries_keys_values(rng, length), floats(rng, length, *gate_shape))


def programs() -> tuple[Program, ...]:
    qkv = (ff.f32[K], ff.f32[K], ff.f32[V])
    groups = [
        recurrence(
            "elman", lambda: elman(H, D), vector, plain_elman, {"W": (D, H), "U": (H, H), "b": (H,)}, second=True
        ),
        recurrence("lstm", lambda: lstm(H, D), pair, plain_lstm, PACKED, second=True),
        recurrence("lstm_sliced", lambda: lstm_sliced(H, D), pair, plain_lstm, PACKED, second=True),
        recurrence("lstm_concat", lambda: lstm_concat(H, D), pair, plain_lstm_concat, CONCAT),
        recurrence("lstm_torch_words", lambda: lstm_torch_words(H, D), pair, plain_lstm_concat, CONCAT),
        recurrence(
            "layer_norm_lstm",
            lambda: lstm(H, D, norm=ff.layer_norm),
            pair,
            plain_layer_norm_lstm,
            {**PACKED, **NORMS},
            second=True,
        ),
        recurrence(
            "peephole",
            lambda: peephole(H, D),
            pair,
            plain_peephole,
            {**PACKED, "pi": (H,), "pf": (H,), "po": (H,)},
            second=True,
        ),
        recurrence("gru", lambda: gru(H, D), vector, plain_gru, GRU, second=True),
        recurrence(
            "gru_first",
            lambda: gru_first(H, D),
            vector,
            plain_gru_first,
            {"W": (D, 3 * H), "U": (H, 2 * H), "b": (3 * H,), "Uc": (H, H)},
            second=True,
        ),
        recurrence(
            "mgu",
            lambda: mgu(H, D),
            vector,
            plain_mgu,
            {"W": (D, 2 * H), "U": (H, H), "b": (2 * H,), "Uc": (H, H)},
            second=True,
        ),
        recurrence(
            "slstm",
            lambda: slstm(H, D),
            lambda w: (w.zeros(H), w.zeros(H), w.zeros(H), w.full((H,), -5.0)),
            plain_slstm,
            PACKED,
        ),
        recurrence(
            "heads_einsum",
            lambda: heads_einsum(HEADS, WIDE, D),
            lambda w: w.zeros(HEADS, WIDE),
            plain_heads_einsum,
            {"W": (D, HEADS, WIDE), "U": (HEADS, WIDE, WIDE), "b": (HEADS, WIDE)},
            second=True,
        ),
        recurrence(
            "heads_matmul",
            lambda: heads_matmul(HEADS, WIDE, D),
            lambda w: (w.zeros(HEADS, WIDE), w.zeros(HEADS, WIDE)),
            plain_heads_matmul,
            {"W": (HEADS, D, 4 * WIDE), "U": (HEADS, WIDE, 4 * WIDE), "b": (HEADS, 4 * WIDE)},
        ),
        recurrence(
            "attend",
            lambda: attend,
            lambda w: w.zeros(K, V),
            plain_attend,
            {},
            types=qkv,
            inputs=queries_keys_values,
            second=True,
        ),
        recurrence(
            "delta_rule",
            lambda: delta_rule,
            lambda w: w.zeros(K, V),
            plain_delta_rule,
            {},
            types=(*qkv, ff.f32),
            inputs=with_gates(),
            second=True,
        ),
        recurrence(
            "gated_delta",
            lambda: gated_delta,
            lambda w: w.zeros(K, V),
            plain_gated_delta,
            {},
            types=(*qkv, ff.f32[2]),
            inputs=with_gates(2),
            second=True,
        ),
        recurrence("indrnn", lambda: indrnn(H, D), vector, plain_indrnn, {"W": (D, H), "u": (H,), "b": (H,)}),
        recurrence(
            "min_gru",
            lambda: min_gru(H, D),
            vector,
            plain_min_gru,
            {"W": (D, 2 * H), "b": (2 * H,)},
            second=True,
        ),
        recurrence(
            "three_carries",
            lambda: three_carries(H, D),
            lambda w: (w.zeros(H), w.full((H,), -1.0), w.zeros(H)),
            plain_three_carries,
            {"W": (D, H), "U": (H, H), "b": (H,)},
        ),
        recurrence(
            "crf_forward",
            lambda: crf_forward(D),
            lambda w: w.zeros(D),
            plain_crf_forward,
            {"transitions": (D, D)},
            second=True,
        ),
        recurrence("cumulative_sum", lambda: lambda s, x: s + x, lambda w: w.zeros(D), plain_cumulative_sum, {}),
        recurrence(
            "lstm_cell_module",
            lstm_cell_step,
            pair,
            plain_lstm_cell,
            module_shapes(lambda: nn.LSTMCell(D, H)),
            module=lambda: nn.LSTMCell(D, H),
        ),
        recurrence(
            "gru_cell_module",
            gru_cell_step,
            vector,
            plain_gru_cell,
            module_shapes(lambda: nn.GRUCell(D, H)),
            module=lambda: nn.GRUCell(D, H),
        ),
        recurrence(
            "own_module",
            own_step,
            vector,
            plain_own_cell,
            module_shapes(lambda: OwnCell(H, D)),
            module=lambda: OwnCell(H, D),
        ),
    ]
    return tuple(program for group in groups for program in group) + tuple(starts())


# ---------------------------------------------------------------- where a loop starts and what it gives
def starts() -> list[Program]:
    """The forms of `init`, and `final=True`."""
    shapes = {"W": (D, H), "U": (H, H), "b": (H,)}

    def learned():
        start = ff.param((H,), "start")
        return {"main": (ff.scan(elman(H, D), init=start), ff.Seq(ff.f32[D]))}

    def as_input():
        return {"main": (lambda h, xs: ff.scan(elman(H, D))((h, xs)), ff.f32[H], ff.Seq(ff.f32[D]))}

    def as_input_fold():
        step = elman(H, D)
        return {"main": (ff.fold(step), (ff.f32[H], ff.Seq(ff.f32[D])))}

    def traced():
        step, first = elman(H, D), ff.dense(H, name="first")
        return {"main": (lambda v, xs: ff.scan(step, init=ff.tanh(first(v)))(xs), ff.f32[D], ff.Seq(ff.f32[D]))}

    def by_element():
        return {"main": (ff.scan(lambda s, x: 0.5 * s + x * x, init=ff.zeros_like), ff.Seq(ff.f32[D]))}

    def final(reverse):
        expression = ff.scan(lstm(H, D), init=rest(H), final=True, reverse=reverse)
        return {"main": (expression, ff.Seq(ff.f32[D]))}

    def plain_final(reverse, p, xs):
        zero = torch64.zeros(H)
        return loop(partial(plain_lstm, p), (zero, zero), xs, reverse)

    def plain_from(p, h, xs):
        """Elman from a given state."""
        return loop(partial(plain_elman, p), h, xs)[1]

    def plain_traced(p, v, xs):
        """Elman from a state that a layer computes."""
        return plain_from(p, torch.tanh(v @ p["first.weight"] + p["first.bias"]), xs)

    def given(rng, length):
        return floats(rng, H), floats(rng, length, D)

    def decay(s, x):
        return 0.5 * s + x * x, 0.5 * s + x * x

    return [
        Program(
            "recurrences.init_learned",
            learned,
            lambda p, xs: plain_from(p, p["start"], xs),
            vectors,
            {**shapes, "start": (H,)},
            lengths=(0, 1, 5),
            second=True,
        ),
        Program(
            "recurrences.init_is_input",
            as_input,
            plain_from,
            given,
            shapes,
            lengths=(0, 1, 5),
            second=True,
        ),
        Program(
            "recurrences.init_is_input_of_fold",
            as_input_fold,
            lambda p, both: loop(partial(plain_elman, p), *both)[0],
            lambda rng, length: (given(rng, length),),
            shapes,
            lengths=(0, 1, 5),
        ),
        Program(
            "recurrences.init_traced",
            traced,
            plain_traced,
            lambda rng, length: (floats(rng, D), floats(rng, length, D)),
            {**shapes, "first.weight": (D, H), "first.bias": (H,)},
            second=True,
        ),
        Program(
            "recurrences.init_by_element",
            by_element,
            lambda p, xs: loop(decay, torch64.zeros(D), xs)[1],
            vectors,
            {},
        ),
        *(
            Program(
                f"recurrences.final{'.reverse' if reverse else ''}",
                partial(final, reverse),
                partial(plain_final, reverse),
                vectors,
                PACKED,
                lengths=(0, 1, 5),
            )
            for reverse in (False, True)
        ),
    ]


PROGRAMS = programs()
