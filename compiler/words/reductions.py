"""Reductions of arrays and lists, softmax and losses, choices, sorting, running sums."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import types
from ..errors import AxisError, DtypeError, EmptyError, ShapeError, StructureError
from ..expression import Expression
from ..scope import current
from ..trace import leaves, map_all, plain, with_leaves
from ..types import boolean, i64
from ..values import TracedArray, TracedList, TracedTree, Unknown, type_of
from .elementwise import (
    add,
    divide,
    exp,
    greater,
    isfinite,
    log,
    multiply,
    negative,
    sqrt,
    square,
    stop_gradient,
    subtract,
    where,
)
from .indexing import take_along_axis
from .lifting import WORDS, cast_to, emit, lifted, word
from .shapes import axis_of, expand_dims, on_arrays, require_array, reshape, slice_axis


def axes_of(axis: Any, rank: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(rank))
    return tuple(sorted(axis_of(a, rank) for a in (axis if isinstance(axis, (tuple, list)) else (axis,))))


def over_list(xs: TracedList, function: Callable[[Any, Any], Any], axis: Any, name: str) -> Any:
    """Reduce every leaf of a list over all of the list's axes, with a function of (scope, value)."""
    if axis is not None:
        raise AxisError(
            f"ff.{name} of a list reduces the list and takes no axis=; inside ff.map it reduces an element's axes"
        )
    scope = current()
    values = []
    for value in leaves(xs.content):
        for _ in xs._sizes:
            value = function(scope, value)
        values.append(value)
    return with_leaves(xs.content, iter(values), keep_reps=False)


def _reduction(name: str, op: str, list_op: str, doc: str, one_axis: bool = False) -> Expression:
    def function(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        x = plain(x)
        if isinstance(x, Unknown):
            return x
        if isinstance(x, TracedList):
            if any(v.type.dtype is boolean for v in leaves(x.content)):
                x = map_all(x, lambda element: cast_to(element, i64))
            return over_list(x, lambda scope, value: scope.reduce(list_op, value), axis, name)
        require_array(x, f"ff.{name}")
        if x.dtype is boolean:
            x = cast_to(x, i64)
        axes = axes_of(axis, len(x.shape))
        if not axes:
            return x
        shape = tuple(1 if d in axes else n for d, n in enumerate(x.shape))
        if one_axis:
            for a in reversed(axes):
                x = emit(op, x, axes=(a,))
        else:
            x = emit(op, x, axes=axes)
        return emit("reshape", x, shape=shape) if keepdims else x

    function.__name__ = name
    function.__doc__ = doc
    return word(function)


sum_ = _reduction(
    "sum", "reduce_sum", "sum", "The sum of a list's elements; of an array's over all axes, or those named."
)
max_ = _reduction(
    "max", "reduce_max", "max", "The largest element, of a list elementwise. Equal ones share the gradient."
)
min_ = _reduction("min", "reduce_min", "min", "The smallest element, of a list elementwise.")
prod = _reduction("prod", "reduce_prod", "prod", "The product of a list's elements, or of an array's.", one_axis=True)
amax, amin = Expression(max_.function, "amax"), Expression(min_.function, "amin")
WORDS.update(amax=amax, amin=amin)


def length(xs: Any) -> TracedArray:
    """The number of elements of a list, as an i64 number."""
    xs = plain(xs)
    if isinstance(xs, TracedTree):
        return TracedArray(current().length(xs.size))
    if not isinstance(xs, TracedList):
        raise StructureError(f"ff.length takes a list; got {types.show(type_of(xs))}")
    count = TracedArray(current().length(xs.sizes[0]))
    for size in xs.sizes[1:]:
        count = multiply(count, TracedArray(current().length(size)))
    return count


@word
def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The mean of a list's elements (an error where it is empty), or of an array's."""
    x = plain(x)
    if isinstance(x, Unknown):
        return x
    if isinstance(x, TracedList):
        total, scope = sum_(x, axis), current()
        count = TracedArray(scope("length", size=x.sizes[0], positive=True))
        for size in x.sizes[1:]:
            count = multiply(count, TracedArray(scope("length", size=size, positive=True)))
        parts = [divide(TracedArray(v), count) for v in leaves(total)]
        return with_leaves(total, iter([p.value for p in parts]))
    require_array(x, "ff.mean")
    count = math.prod(x.shape[d] for d in axes_of(axis, len(x.shape)))
    if not count:
        raise EmptyError(f"ff.mean over an empty axis of {types.show(type_of(x))} has no value")
    return divide(sum_(x, axis, keepdims=keepdims), float(count))


@word
def var(
    x: Any,
    axis: Any = None,
    correction: int = 0,
    keepdims: bool = False,
    unbiased: bool | None = None,
) -> Any:
    """The variance: the mean square of what is left when the mean is taken away; `correction` is subtracted from the
    count.
    """
    correction = correction if unbiased is None else int(unbiased)
    x = plain(x)
    if isinstance(x, TracedList):
        return mean(square(subtract(x, mean(x, axis))), axis)
    count = math.prod(x.shape[d] for d in axes_of(axis, len(x.shape)))
    centred = subtract(x, mean(x, axis, keepdims=True))
    return divide(sum_(square(centred), axis, keepdims=keepdims), float(max(0, count - correction)))


@word
def std(x: Any, axis: Any = None, correction: int = 0, keepdims: bool = False) -> Any:
    """The square root of the variance."""
    return sqrt(var(x, axis, correction, keepdims))


@word
def norm(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The Euclidean norm; its gradient at zero is zero, as torch has it."""
    total = sum_(square(x), axis, keepdims=keepdims)
    positive = greater(total, 0)
    return where(positive, sqrt(where(positive, total, 1.0)), 0.0)


def _default_last(x: Any, axis: Any) -> Any:
    return -1 if axis is None and isinstance(x, TracedArray) else axis


def _no_axis(x: Any, axis: Any, name: str) -> None:
    """A list is reduced as a whole.

    Raises:
        AxisError: an axis is named.
    """
    if isinstance(x, TracedList) and axis is not None:
        raise AxisError(f"ff.{name} of a list runs over the list and takes no axis=; inside ff.map it has an element's")


@word
def logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """``log Σ exp x``, without overflow: over a list, or over an array's axis (the last when left out)."""
    x = plain(x)
    axis = _default_last(x, axis)
    if isinstance(x, Unknown):
        return x
    _no_axis(x, axis, "logsumexp")
    if isinstance(x, TracedList):
        top = _finite(stop_gradient(max_(x)))
        return add(log(sum_(exp(subtract(x, top)))), top)
    x = as_float(x)
    top = _finite(stop_gradient(max_(x, axis, keepdims=True)))
    out = add(log(sum_(exp(subtract(x, top)), axis, keepdims=True)), top)
    if keepdims:
        return out
    axes = axes_of(axis, len(x.shape))
    return emit("reshape", out, shape=tuple(n for d, n in enumerate(x.shape) if d not in axes))


def as_float(x: Any) -> Any:
    return x if x.dtype.is_float else cast_to(x, current().program.float_dtype)


def _finite(top: Any) -> Any:
    """A maximum that may be -inf (nothing allowed by a mask) counts as zero, so that it is not subtracted from
    itself.
    """
    return where(isfinite(top), top, 0.0)


@word
def softmax(x: Any, axis: Any = None) -> Any:
    """``exp x / Σ exp x``, over a list, or over an array's axis (the last when left out)."""
    x = plain(x)
    axis = _default_last(x, axis)
    if isinstance(x, Unknown):
        return x
    _no_axis(x, axis, "softmax")
    if isinstance(x, TracedList):
        raised = exp(subtract(x, stop_gradient(max_(x))))
        return divide(raised, sum_(raised))
    x = as_float(x)
    raised = exp(subtract(x, stop_gradient(max_(x, axis, keepdims=True))))
    return divide(raised, sum_(raised, axis, keepdims=True))


@word
def log_softmax(x: Any, axis: Any = None) -> Any:
    """``x − log Σ exp x``."""
    x = plain(x)
    axis = _default_last(x, axis)
    if isinstance(x, Unknown):
        return x
    _no_axis(x, axis, "log_softmax")
    return subtract(x, logsumexp(x) if isinstance(x, TracedList) else logsumexp(x, axis, keepdims=True))


@word
def cross_entropy(logits: Any, target: Any) -> Any:
    """The negative log likelihood of a class under logits.

    Arguments:
        logits: arrays [..., classes].
        target: whole numbers [...], the classes.

    Returns:
        A float per target; lists element by element (nothing is summed or averaged over them).
    """

    def apply(x: Any, y: Any) -> Any:
        if isinstance(x, Unknown) or isinstance(y, Unknown):
            return Unknown()
        if y.dtype.kind != "int":
            raise DtypeError(f"the target of cross_entropy is a class, ff.i64; got {types.show(type_of(y))}")
        if x.shape[:-1] != y.shape or not x.shape:
            raise ShapeError(
                f"cross_entropy takes logits [..., classes] and targets [...] of one example; got {x.value.type} and "
                f"{y.value.type}"
            )
        likelihood = log_softmax(x, axis=-1)
        chosen = emit("gather_along", likelihood, expand_dims(cast_to(y, i64), -1), axis=len(x.shape) - 1)
        return negative(emit("reshape", chosen, shape=y.shape))

    return lifted(apply, (logits, target), "ff.cross_entropy")


def _choice(name: str, prepare: Callable[[Any], Any]) -> Expression:
    def function(x: Any, axis: Any = None) -> Any:

        def apply(a: TracedArray) -> Any:
            if axis is None and len(a.shape) != 1:
                a = reshape(a, -1)
            return emit("argmax", prepare(a), axis=axis_of(0 if axis is None else axis, len(a.shape)))

        return on_arrays(apply, x, f"ff.{name}")

    function.__name__ = name
    which = "largest" if name == "argmax" else "smallest"
    function.__doc__ = (
        f"The index of the {which} element along an axis (of all when left out); the first of equal ones."
    )
    return word(function)


argmax, argmin = _choice("argmax", lambda a: a), _choice("argmin", negative)


@word
def argsort(x: Any, axis: int = -1, descending: bool = False) -> Any:
    """Indices that sort along an axis; equal elements keep their order."""
    return on_arrays(
        lambda a: emit("argsort", negative(a) if descending else a, axis=axis_of(axis, len(a.shape))), x, "ff.argsort"
    )


@word
def sort(x: Any, axis: int = -1, descending: bool = False) -> Any:
    """x sorted along an axis."""
    return take_along_axis(x, argsort(x, axis, descending), axis)


@word
def top_k(x: Any, k: int, axis: int = -1) -> Any:
    """The k largest elements along an axis, largest first, and their indices."""

    def apply(a: TracedArray) -> Any:
        d = axis_of(axis, len(a.shape))
        if not 0 < k <= a.shape[d]:
            raise ShapeError(f"top_k of an axis of {a.shape[d]} takes k from 1 to {a.shape[d]}; got {k}")
        index = slice_axis(argsort(a, d, descending=True), d, 0, k)
        return take_along_axis(a, index, d), index

    return apply(require_array(plain(x), "ff.top_k"))


def _cumulative(name: str, op: str) -> Expression:
    def function(x: Any, axis: Any = None) -> Any:
        return on_arrays(
            lambda a: emit(
                op,
                a,
                axis=axis_of(0 if axis is None and len(a.shape) == 1 else axis, len(a.shape)),
                reverse=False,
                exclusive=False,
            ),
            x,
            f"ff.{name}",
        )

    function.__name__ = name
    function.__doc__ = (
        f"The running {'sum' if name == 'cumsum' else 'product'} along an axis; along a list it is a scan."
    )
    return word(function)


cumsum, cumprod = _cumulative("cumsum", "cumulative_sum"), _cumulative("cumprod", "cumulative_product")


@word
def tril(x: Any, k: int = 0) -> Any:
    """The lower triangle of a matrix, zeros above the k-th diagonal."""
    return on_arrays(lambda a: where(np.tril(np.ones(a.shape[-2:], bool), k), a, 0), x, "ff.tril")


@word
def triu(x: Any, k: int = 0) -> Any:
    """The upper triangle of a matrix, zeros below the k-th diagonal."""
    return on_arrays(lambda a: where(np.triu(np.ones(a.shape[-2:], bool), k), a, 0), x, "ff.triu")
