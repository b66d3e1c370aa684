"""``view``: the windows of a grid, and ``overlap_add``, its adjoint. ``window_map f = map f . view``.

`view` takes a list under d axes whose elements are arrays and gives, for each place of the window, an array
``[size…, *element]``. Attributes, one entry per dimension: `window`, `stride`, `dilation`, `low` and `high` (elements
of padding; negative ones crop), and one number `fill`. `overlap_add` adds windows back in place; attribute `sizes`: the
grid's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import ShapeError, WindowError
from ..records import Attributes, Combinator, register
from ..sizes import Size
from ..types import ListType
from .reduce import zeros


def span(window: int, dilation: int) -> int:
    """How many elements of the grid a window reaches over."""
    return dilation * (window - 1) + 1


def window_count(size: Size, window: int, stride: int, dilation: int, low: int, high: int) -> Size:
    """The number of places of a window along one dimension."""
    return size.quotient(low + high - span(window, dilation) + stride, stride)


def _settings(attributes: Attributes) -> list[tuple[int, int, int, int, int]]:
    return list(zip(*(attributes[k] for k in ("window", "stride", "dilation", "low", "high")), strict=True))


def check_windows(equation: Any, extent: Callable[[Size], int]) -> None:
    """Refuse a window that is larger than its padded input.

    Raises:
        WindowError: it is, in the dimension that the message names.
    """
    sizes = equation.inputs[0].type.axes if equation.op == "view" else equation.attributes["sizes"]
    for d, (size, (window, _, dilation, low, high)) in enumerate(
        zip(sizes, _settings(equation.attributes), strict=False)
    ):
        reach, available = span(window, dilation), extent(size) + low + high
        if reach > available and not (extent(size) == 0 and low + high >= reach - 1):
            raise WindowError(
                f"a window of {window}{f' with dilation {dilation}' if dilation > 1 else ''} reaches over {reach} "
                "elements, but "
                f"dimension {d} has only {available} with its padding. Use a smaller window, or padding='same' or "
                "'causal'",
                equation.source,
            )


def _infer_view(types: Sequence[ListType], attributes: Attributes, bodies: Sequence[Any]) -> tuple[ListType, ...]:
    (own,), settings = types, _settings(attributes)
    if len(own.axes) != len(settings):
        raise ShapeError(f"a window of {len(settings)} dimensions takes a grid of {len(settings)}; got {own}")
    axes = tuple(window_count(size, *s) for size, s in zip(own.axes, settings, strict=True))
    return (ListType(own.dtype, axes, (*attributes["window"], *own.shape)),)


def _places(attributes: Attributes, counts: Sequence[int], extents: Sequence[int]) -> Any:
    """For each window and each place in it, the index in the grid, or None where it is padding."""
    for at in itertools.product(*map(range, counts)):
        for within in itertools.product(*map(range, attributes["window"])):
            where = tuple(
                i * stride + k * dilation - low
                for i, k, stride, dilation, low in zip(
                    at, within, attributes["stride"], attributes["dilation"], attributes["low"], strict=True
                )
            )
            yield at, within, where if all(0 <= w < n for w, n in zip(where, extents, strict=True)) else None


def _at(nested: Any, where: Sequence[int]) -> Any:
    for index in where:
        nested = nested[index]
    return nested


def _evaluate_view(run: Callable[..., Any], equation: Any, inputs: Sequence[Any], sizes: Any) -> Sequence[Any]:
    a, (xs,), own = equation.attributes, inputs, equation.types[0]
    counts = [sizes.value(size) for size in equation.output.type.axes]
    extents = [sizes.value(size) for size in own.axes]
    out = np.full((*counts, *equation.output.type.shape), a["fill"], own.dtype.numpy)
    for at, within, where in _places(a, counts, extents):
        if where is not None:
            out[at + within] = _at(xs, where)
    return [_nest(out, len(counts))]


def _nest(values: np.ndarray, depth: int) -> Any:
    return [_nest(v, depth - 1) for v in values] if depth else values


def _augment_view(d: Any, b: Any, equation: Any, needs: Sequence[bool], useful: Sequence[bool]) -> Any:
    (xs,), a = equation.inputs, equation.attributes
    outputs = b.emit("view", (xs,), a)
    attributes = {**{k: a[k] for k in ("window", "stride", "dilation", "low", "high")}, "sizes": xs.type.axes}
    return outputs, lambda b, cts: [b("overlap_add", cts[0], **attributes)]


def _infer_overlap_add(
    types: Sequence[ListType], attributes: Attributes, bodies: Sequence[Any]
) -> tuple[ListType, ...]:
    (own,), sizes, settings = types, attributes["sizes"], _settings(attributes)
    axes = tuple(window_count(size, *s) for size, s in zip(sizes, settings, strict=True))
    d = len(settings)
    if own.axes != axes or own.shape[:d] != tuple(attributes["window"]):
        raise ShapeError(f"overlap_add takes the windows of a grid of {sizes}; got {own}")
    return (ListType(own.dtype, tuple(sizes), own.shape[d:]),)


def _evaluate_overlap_add(run: Callable[..., Any], equation: Any, inputs: Sequence[Any], sizes: Any) -> Sequence[Any]:
    a, (windows,) = equation.attributes, inputs
    counts = [sizes.value(size) for size in equation.types[0].axes]
    out = zeros(equation.output.type, sizes)
    for at, within, where in _places(a, counts, [sizes.value(size) for size in a["sizes"]]):
        if where is not None:
            row = _at(out, where[:-1])
            row[where[-1]] = row[where[-1]] + _at(windows, at)[within]
    return [out]


def _augment_overlap_add(d: Any, b: Any, equation: Any, needs: Sequence[bool], useful: Sequence[bool]) -> Any:
    (xs,), a = equation.inputs, equation.attributes
    outputs = b.emit("overlap_add", (xs,), a)
    attributes = {**{k: a[k] for k in ("window", "stride", "dilation", "low", "high")}, "fill": 0}
    return outputs, lambda b, cts: [b("view", cts[0], **attributes)]


register(Combinator("view", _infer_view, _evaluate_view, _augment_view))
register(Combinator("overlap_add", _infer_overlap_add, _evaluate_overlap_add, _augment_overlap_add))
