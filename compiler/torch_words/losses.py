"""torch's losses, and what stands near them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import words as f
from ..errors import ShapeError, StructureError
from ..trace import plain, traced
from ..types import DTYPES
from ..values import TracedList
from .table import TABLE, define


def _reduced(loss: Any, reduction: str) -> Any:
    if reduction not in ("none", "mean", "sum"):
        raise StructureError(f"reduction is 'none', 'mean' or 'sum'; got {reduction!r}")
    return {"none": lambda x: x, "mean": f.mean, "sum": f.sum_}[reduction](loss)


@define("cross_entropy")
def _cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    x, y = plain(input), plain(target)
    if isinstance(x, TracedList) or isinstance(y, TracedList):
        raise StructureError(
            "torch's cross_entropy takes arrays; for lists use ff.map, or ff.cross_entropy, which lifts"
        )
    if weight is not None or label_smoothing or y.dtype.is_float or len(x.shape) > 2:
        raise StructureError(
            "cross_entropy in a program takes logits [C] or [N, C] and class targets, without weight or label smoothing"
        )
    if len(x.shape) != len(y.shape) + 1:
        raise ShapeError(
            f"cross_entropy takes logits [C] or [N, C] and targets [] or [N] of one example; got {x.shape} and "
            f"{y.shape}"
        )
    kept = f.not_equal(y, ignore_index)
    loss = f.where(kept, f.cross_entropy(x, f.where(kept, y, 0)), 0.0)
    if reduction == "mean":
        return f.divide(f.sum_(loss), f.cast_to(f.sum_(kept), loss.dtype))
    return _reduced(loss, reduction)


@define("nll_loss", "nll_loss_nd")
def _nll_loss(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    x, y = plain(input), plain(target)
    if weight is not None or len(x.shape) > 2:
        raise StructureError("nll_loss in a program takes log-probabilities [C] or [N, C], without weight")
    chosen = f.take_along_axis(x, f.expand_dims(y, -1), -1)
    return _reduced(f.negative(f.reshape(chosen, *y.shape)), reduction)


@define("mse_loss")
def _mse_loss(
    input: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean", weight: Any = None
) -> Any:
    return _reduced(f.square(f.subtract(input, target)), reduction)


@define("l1_loss")
def _l1_loss(
    input: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean", weight: Any = None
) -> Any:
    return _reduced(f.abs_(f.subtract(input, target)), reduction)


@define("binary_cross_entropy_with_logits")
def _bce(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    pos_weight: Any = None,
) -> Any:
    if weight is not None or pos_weight is not None:
        raise StructureError(
            "binary_cross_entropy_with_logits in a program takes no weights; multiply the losses of reduction='none'"
        )
    return _reduced(f.subtract(f.softplus(input), f.multiply(input, target)), reduction)


@define("one_hot")
def _one_hot(tensor: Any, num_classes: int = -1) -> Any:
    if num_classes < 1:
        raise ShapeError("one_hot in a program names its num_classes")
    return f.cast_to(f.one_hot(tensor, num_classes), DTYPES["i64"])


@define("scaled_dot_product_attention")
def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: Any = None,
    enable_gqa: bool = False,
) -> Any:
    if dropout_p or enable_gqa:
        raise StructureError("scaled_dot_product_attention in a program has neither dropout nor grouped queries")
    q, k = traced(query), traced(key)
    scores = f.multiply(f.matmul(q, f.swapaxes(k, -1, -2)), scale or 1.0 / math.sqrt(q.shape[-1]))
    if is_causal:
        scores = f.where(np.tril(np.ones(scores.shape[-2:], bool)), scores, -np.inf)
    if attn_mask is not None:
        mask = traced(attn_mask)
        scores = f.where(mask, scores, -np.inf) if mask.dtype.kind == "bool" else f.add(scores, mask)
    return f.matmul(f.softmax(scores, -1), value)


@define("is_floating_point")
def _is_floating_point(input: Any) -> bool:
    return traced(input).dtype.is_float


@define("numel")
def _numel(input: Any) -> int:
    return math.prod(traced(input).shape)


@define("pad")
def _pad(input: Any, pad: Any, mode: str = "constant", value: float | None = None) -> Any:
    if mode != "constant" or value not in (None, 0, 0.0):
        raise StructureError("pad in a program fills with zeros")
    x = traced(input)
    low, high = [0] * len(x.shape), [0] * len(x.shape)
    for i in range(len(pad) // 2):
        low[-1 - i], high[-1 - i] = pad[2 * i], pad[2 * i + 1]
    return f.emit("pad", x, low=tuple(low), high=tuple(high), interior=(0,) * len(x.shape))


for _name in (
    "conv1d",
    "conv2d",
    "conv3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
):

    def _convolution(*_: Any, _name: str = _name, **__: Any) -> Any:
        raise StructureError(
            f"torch's {_name} sees the batch and channels first; write ff.conv, ff.max_pool or ff.window_map over a "
            "grid"
        )

    TABLE[_name] = _convolution


@define("smooth_l1_loss")
def _smooth_l1(
    input: Any,
    target: Any,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Any:
    away = f.abs_(f.subtract(input, target))
    near = f.divide(f.multiply(0.5, f.square(away)), beta)
    return _reduced(f.where(f.less(away, beta), near, f.subtract(away, 0.5 * beta)), reduction)


@define("huber_loss")
def _huber(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None) -> Any:
    if weight is not None:
        raise StructureError("huber_loss in a program takes no weights; multiply the losses of reduction='none'")
    away = f.abs_(f.subtract(input, target))
    far = f.multiply(delta, f.subtract(away, 0.5 * delta))
    return _reduced(f.where(f.less(away, delta), f.multiply(0.5, f.square(away)), far), reduction)


@define("kl_div")
def _kl_div(
    input: Any,
    target: Any,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Any:
    if reduction == "batchmean":
        raise StructureError("kl_div in a program sees one example; write reduction='sum' and average outside")
    if log_target:
        return _reduced(f.multiply(f.exp(target), f.subtract(target, input)), reduction)
    positive = f.greater(target, 0)
    safe = f.where(positive, target, 1.0)
    return _reduced(
        f.subtract(f.where(positive, f.multiply(target, f.log(safe)), 0.0), f.multiply(target, input)), reduction
    )
