"""torch's layers: what `nn` modules call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import words as f
from ..errors import AxisError, ShapeError, StructureError
from ..layers import normalise
from ..trace import plain, traced
from ..values import TracedList
from .table import TABLE, define


@define("linear")
def _linear(input: Any, weight: Any, bias: Any = None) -> Any:
    y = f.matmul(input, f.transpose(weight))
    return y if bias is None else f.add(y, bias)


@define("bilinear")
def _bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Any:
    y = f.einsum("i,oij,j->o", input1, weight, input2)
    return y if bias is None else f.add(y, bias)


@define("embedding")
def _embedding(input: Any, weight: Any, padding_idx: Any = None, max_norm: Any = None, *_: Any, **__: Any) -> Any:
    if max_norm is not None:
        raise StructureError(
            "nn.Embedding with max_norm changes its weight in the forward pass, which a program cannot"
        )
    if padding_idx is not None:
        # Torch gives the padding row no gradient.
        row = f.equal(f.arange(traced(weight).shape[0]), padding_idx % traced(weight).shape[0])
        weight = f.where(f.expand_dims(row, 1), f.stop_gradient(weight), weight)
    return f.take(weight, input)


def _normalised_axes(input: Any, shape: Any, name: str) -> tuple[int, ...]:
    """The last axes, which must have the shape that torch's normalisation was made for."""
    x = plain(input)
    while isinstance(x, TracedList):
        x = x.content
    if tuple(x.shape[-len(shape) :]) != tuple(shape):
        raise ShapeError(f"torch's {name} was made for arrays whose last axes are {tuple(shape)}; got {x.shape}")
    return tuple(range(-len(shape), 0))


@define("layer_norm")
def _layer_norm(
    input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Any:
    axes = _normalised_axes(input, normalized_shape, "layer_norm")
    y = f.lifted(lambda x: normalise(x, axes, eps), (input,), "layer_norm")
    y = y if weight is None else f.multiply(y, weight)
    return y if bias is None else f.add(y, bias)


@define("rms_norm")
def _rms_norm(input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Any:
    axes = _normalised_axes(input, normalized_shape, "rms_norm")
    eps = np.finfo(np.float32).eps if eps is None else eps
    y = f.multiply(input, f.rsqrt(f.add(f.mean(f.square(input), axis=axes, keepdims=True), float(eps))))
    return y if weight is None else f.multiply(y, weight)


@define("batch_norm", "instance_norm")
def _batch_norm(*_: Any, **__: Any) -> Any:
    raise AxisError(
        "batch statistics run over the batch, which steps do not see: a program is the meaning of one example. Use "
        "layer_norm or "
        "group_norm, compile with batched=False, or put torch's batch norm between compiled parts"
    )


@define("lstm_cell")
def _lstm_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
    h, c = hx
    gates = f.add(_linear(input, w_ih, b_ih), _linear(h, w_hh, b_hh))
    i, z, g, o = f.chunk(gates, 4)
    c = f.add(f.multiply(f.sigmoid(z), c), f.multiply(f.sigmoid(i), f.tanh(g)))
    return f.multiply(f.sigmoid(o), f.tanh(c)), c


@define("gru_cell")
def _gru_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
    r_x, z_x, n_x = f.chunk(_linear(input, w_ih, b_ih), 3)
    r_h, z_h, n_h = f.chunk(_linear(hx, w_hh, b_hh), 3)
    r, z = f.sigmoid(f.add(r_x, r_h)), f.sigmoid(f.add(z_x, z_h))
    n = f.tanh(f.add(n_x, f.multiply(r, n_h)))
    return f.add(f.multiply(f.subtract(1.0, z), n), f.multiply(z, hx))


def _rnn_cell(activation: Any) -> Callable[..., Any]:
    return lambda input, hx, w_ih, w_hh, b_ih=None, b_hh=None: activation(
        f.add(_linear(input, w_ih, b_ih), _linear(hx, w_hh, b_hh))
    )


TABLE["rnn_tanh_cell"], TABLE["rnn_relu_cell"] = _rnn_cell(f.tanh), _rnn_cell(f.relu)
