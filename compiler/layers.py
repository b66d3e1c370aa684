"""Layers: functions with parameters of their own, whose input size is read from the first input."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import numpy as np

from . import language, words
from .errors import ShapeError, StructureError
from .expression import Expression
from .parameters import Owner, Parameter
from .scope import current
from .trace import plain, traced
from .types import show
from .values import TracedArray, TracedList, Unknown, type_of


class Layer(Expression):
    """An expression with parameters. The same object used twice is tied; its parameters are attributes."""

    def __init__(self, kind: str, name: str | None, description: str, function: Any):
        self.owner = Owner(kind, name)
        super().__init__(function, description)

    def parameter(
        self, name: str, shape: tuple[int, ...] | None, init: Any = None, fan_in: int | None = None
    ) -> Parameter:
        return Parameter(shape, name, init, owner=self.owner, fan_in=fan_in)


def _check_count(call: str, what: str, value: Any) -> None:
    """Refuse what is no size where a layer is made: what it is applied to, most likely."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ShapeError(
            f"{call}: {what} is a whole number, 1 or more; got {value!r}. {call} makes a layer, which is then applied:"
            f" {call}(x)"
        )


def dense(features: int, bias: bool = True, name: str | None = None) -> Layer:
    """``x @ weight + bias`` on the last axis.

    Arguments:
        features: size of the result's last axis.
        bias: whether there is one.
        name: the layer's name in its scope; numbered (``dense_0``) when left out.

    Returns:
        A layer: array [..., n] → array [..., features]; lifts over lists. Parameters ``weight`` [n, features],
            ``bias``.

    Raises:
        ShapeError: `features` is no whole number from 1 on.

    Example:
        >>> classify = fold(cell, init=zeros(64)) >> dense(10)
    """
    _check_count("dense(features)", "features", features)

    def apply(x: Any) -> Any:
        return words.lifted(on_array, (x,), layer.name)

    def on_array(x: Any) -> Any:
        if isinstance(x, Unknown):
            return traced(np.zeros(features))
        if not x.shape:
            raise ShapeError(
                f"{layer.name} takes a vector (or more axes), not a number; write x[None] for a vector of one"
            )
        layer.weight.settle((x.shape[-1], features), x.shape[-1])
        y = words.matmul(x, layer.weight)
        if not bias:
            return y
        layer.bias.fan_in = x.shape[-1]
        return words.add(y, layer.bias)

    layer = Layer("dense", name, f"dense({features})", apply)
    layer.weight = layer.parameter("weight", None)
    if bias:
        layer.bias = layer.parameter("bias", (features,))
    return layer


def embedding(count: int, features: int, name: str | None = None) -> Layer:
    """Rows of a table.

    Arguments:
        count: how many rows, so indices run from 0 to ``count - 1``.
        features: size of a row.

    Returns:
        A layer: whole numbers [...] → array [..., features]; lifts over lists. Parameter ``weight`` [count, features],
        normally distributed at first, as torch's.

    Raises:
        ShapeError: `count` or `features` is no whole number from 1 on.
    """
    _check_count("embedding(count, features)", "count", count)
    _check_count("embedding(count, features)", "features", features)

    def apply(x: Any) -> Any:
        return words.lifted(on_array, (x,), layer.name)

    def on_array(index: Any) -> Any:
        return traced(np.zeros(features)) if isinstance(index, Unknown) else words.take(layer.weight, index)

    layer = Layer("embedding", name, f"embedding({count}, {features})", apply)
    layer.weight = layer.parameter("weight", (count, features), "normal")
    return layer


def conv(
    features: int,
    size: Any,
    stride: Any = 1,
    dilation: Any = 1,
    padding: Any = "valid",
    groups: int = 1,
    bias: bool = True,
    name: str | None = None,
) -> Layer:
    """A convolution, written with `window_map`: the window contracted with a weight.

    Arguments:
        features: channels of the result.
        size, stride, dilation, padding: as for `window_map`.
        groups: into how many groups the channels fall, each contracted by itself; as many as channels is depthwise.
        bias: whether there is one.

    Returns:
        A layer: Grid of [channels] → Grid of [features]. Parameters ``weight`` [size…, channels / groups, features],
            ``bias``.

    Raises:
        ShapeError: `features` or a size is no whole number from 1 on; the channels or features do not divide into the
            groups.
    """
    _check_count("conv(features, size)", "features", features)
    for extent in size if isinstance(size, (tuple, list)) else (size,):
        _check_count("conv(features, size)", "size", extent)
    spatial = tuple(size) if isinstance(size, (tuple, list)) else None

    def apply(xs: Any) -> Any:
        xs = plain(xs)
        if not isinstance(xs, TracedList):
            raise StructureError(f"{layer.name} takes a list or grid of channels; got {show(type_of(xs))}")
        dims = len(xs.sizes)
        extent = spatial or (size,) * dims
        if len(extent) != dims:
            raise StructureError(f"{layer.name} has a window of {len(extent)} dimensions; got {show(type_of(xs))}")
        if not isinstance(xs.content, TracedArray) or len(xs.content.shape) != 1:
            raise StructureError(f"{layer.name} takes a grid of vectors (channels last); got {show(type_of(xs))}")
        channels = xs.content.shape[0]
        if not isinstance(groups, int) or groups < 1:
            raise ShapeError(f"{layer.name}: groups= is a whole number, 1 or more; got {groups!r}")
        if channels % groups or features % groups:
            raise ShapeError(
                f"{layer.name}: {channels} channels and {features} features do not divide into {groups} groups"
            )
        fan_in = math.prod(extent) * channels // groups
        layer.weight.settle((*extent, channels // groups, features), fan_in)
        if bias:
            layer.bias.fan_in = fan_in
        return language.window_map(
            lambda window: contract(window, extent, channels), extent, stride, dilation, padding
        )(xs)

    def contract(window: Any, extent: tuple[int, ...], channels: int) -> Any:
        labels = "ijk"[: len(extent)]
        if groups == 1:
            y = words.einsum(f"{labels}c,{labels}cn->n", window, layer.weight)
        else:
            grouped = words.reshape(window, *extent, groups, channels // groups)
            weight = words.reshape(layer.weight, *extent, channels // groups, groups, features // groups)
            y = words.reshape(words.einsum(f"{labels}gc,{labels}cgn->gn", grouped, weight), features)
        return words.add(y, layer.bias) if bias else y

    layer = Layer("conv", name, f"conv({features}, {size})", apply)
    layer.weight = layer.parameter("weight", None)
    if bias:
        layer.bias = layer.parameter("bias", (features,))
    return layer


def max_pool(size: Any, stride: Any = None, dilation: Any = 1, padding: Any = "valid") -> Expression:
    """The largest element of each window; `stride` is the window's size when left out.

    Raises:
        ShapeError: a size is no whole number from 1 on.
    """
    return _pool("max_pool", lambda w, axes: words.max_(w, axis=axes), size, stride, dilation, padding, -np.inf)


def avg_pool(size: Any, stride: Any = None, padding: Any = "valid") -> Expression:
    """The mean of each window, padding counted as zeros; `stride` is the window's size when left out.

    Raises:
        ShapeError: a size is no whole number from 1 on.
    """
    return _pool("avg_pool", lambda w, axes: words.mean(w, axis=axes), size, stride, 1, padding, 0)


def _pool(name: str, reduce: Any, size: Any, stride: Any, dilation: Any, padding: Any, fill: float) -> Expression:
    for extent in size if isinstance(size, (tuple, list)) else (size,):
        _check_count(f"{name}(size)", "size", extent)

    def apply(xs: Any) -> Any:
        dims = len(plain(xs).sizes) if isinstance(plain(xs), TracedList) else 1
        axes = tuple(range(dims))
        return language.window_map(
            lambda w: reduce(w, axes), size, size if stride is None else stride, dilation, padding, fill
        )(xs)

    return Expression(apply, f"{name}({size})")


def layer_norm(eps: float = 1e-5, name: str | None = None) -> Layer:
    """Normalise the last axis to mean 0 and variance 1, then scale and shift (Ba et al. 2016).

    Returns:
        A layer: array [..., n] → array [..., n]; lifts over lists. Parameters ``weight`` (ones) and ``bias`` (zeros)
            [n].

    Raises:
        StructureError: `eps` is no number.
    """
    _check_epsilon("layer_norm()", eps)

    def on_array(x: Any) -> Any:
        if isinstance(x, Unknown):
            return x
        layer.weight.settle(x.shape[-1:])
        layer.bias.settle(x.shape[-1:])
        return words.add(words.multiply(normalise(x, -1, eps), layer.weight), layer.bias)

    layer = Layer("layer_norm", name, "layer_norm()", lambda x: words.lifted(on_array, (x,), "layer_norm"))
    layer.weight, layer.bias = layer.parameter("weight", None, 1.0), layer.parameter("bias", None, 0.0)
    return layer


def _check_epsilon(call: str, eps: Any) -> None:
    """Refuse what is no number where a layer is made: what it is applied to, most likely."""
    if isinstance(eps, bool) or not isinstance(eps, Real):
        raise StructureError(f"eps is a number; got {eps!r}. {call} makes a layer, which is then applied: {call}(x)")


def normalise(x: Any, axis: Any, eps: float) -> Any:
    """An array with the mean taken away and divided by the standard deviation along axes."""
    centred = words.subtract(x, words.mean(x, axis=axis, keepdims=True))
    variance = words.mean(words.square(centred), axis=axis, keepdims=True)
    return words.multiply(centred, words.rsqrt(words.add(variance, eps)))


def rms_norm(eps: float = 1e-6, name: str | None = None) -> Layer:
    """Divide the last axis by its root mean square, then scale (Zhang & Sennrich 2019). Parameter ``weight`` (ones).

    Raises:
        StructureError: `eps` is no number.
    """
    _check_epsilon("rms_norm()", eps)

    def on_array(x: Any) -> Any:
        if isinstance(x, Unknown):
            return x
        layer.weight.settle(x.shape[-1:])
        scale = words.rsqrt(words.add(words.mean(words.square(x), axis=-1, keepdims=True), eps))
        return words.multiply(words.multiply(x, scale), layer.weight)

    layer = Layer("rms_norm", name, "rms_norm()", lambda x: words.lifted(on_array, (x,), "rms_norm"))
    layer.weight = layer.parameter("weight", None, 1.0)
    return layer


def group_norm(groups: int, eps: float = 1e-5, name: str | None = None) -> Layer:
    """Normalise each group of channels, over the group and, of a list or grid, over all its places (Wu & He 2018).

    Returns:
        A layer: Grid of [channels] → the same, or array [channels] → the same. Parameters ``weight`` (ones), ``bias``
            (zeros).

    Raises:
        StructureError: `eps` is no number.
        ShapeError: `groups` is no whole number from 1 on; the channels do not divide into the groups.
    """
    _check_epsilon("group_norm(groups)", eps)
    _check_count("group_norm(groups)", "groups", groups)

    def apply(x: Any) -> Any:
        x = plain(x)
        if isinstance(x, Unknown):
            return x
        content = x.content if isinstance(x, TracedList) else x
        if not isinstance(content, TracedArray) or len(content.shape) != 1:
            raise StructureError(f"group_norm takes channels, or a grid of them; got {show(type_of(x))}")
        channels = content.shape[0]
        if channels % groups:
            raise ShapeError(f"group_norm: {channels} channels do not divide into {groups} groups")
        layer.weight.settle((channels,))
        layer.bias.settle((channels,))
        parted = words.reshape(x, groups, channels // groups)
        over = (
            (lambda v: words.mean(words.mean(v), axis=-1))
            if isinstance(x, TracedList)
            else (lambda v: words.mean(v, axis=-1))
        )
        centred = words.subtract(parted, words.expand_dims(over(parted), -1))
        scale = words.rsqrt(words.add(over(words.square(centred)), eps))
        scaled = words.reshape(words.multiply(centred, words.expand_dims(scale, -1)), channels)
        return words.add(words.multiply(scaled, layer.weight), layer.bias)

    layer = Layer("group_norm", name, f"group_norm({groups})", apply)
    layer.weight, layer.bias = layer.parameter("weight", None, 1.0), layer.parameter("bias", None, 0.0)
    return layer


def dropout(p: float) -> Expression:
    """Zero elements with probability p and scale the rest by 1 / (1 − p), in training; nothing in `eval()`.

    The mask depends on the call's seed, the row and the place in the enclosing loops. A mask made outside of a scan and
    closed over is the same at every step: ``mask = dropout(p)(ones(n))``.

    Raises:
        ShapeError: p is not in [0, 1).
    """
    if not isinstance(p, (int, float)) or not 0 <= p < 1:
        raise ShapeError(
            f"dropout's probability is in [0, 1); got {p!r}. dropout(p) makes a layer, which is then applied:"
            " dropout(p)(x)"
        )

    def on_array(x: Any) -> Any:
        current().program.mode_matters |= p > 0
        if isinstance(x, Unknown) or p == 0 or not current().program.training:
            return x
        keep = words.greater_equal(language.uniform(*x.shape), p)
        return words.where(keep, words.divide(x, 1.0 - p), 0.0)

    return Expression(lambda x: words.lifted(on_array, (x,), "dropout"), f"dropout({p})")
