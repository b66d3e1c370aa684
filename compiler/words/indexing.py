"""Subscripts and computed indices, of arrays and of lists."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import types
from ..errors import AxisError, DtypeError, IndexRangeError, StructureError
from ..scope import current
from ..trace import leaves, map_list, plain, with_leaves
from ..types import i64
from ..values import Traced, TracedArray, TracedList, Unknown, type_of
from .elementwise import add, equal, greater_equal, less, logical_and, multiply, where
from .lifting import cast_to, emit, lifted, word
from .shapes import axis_of, expand_dims, require_array


def index_array(x: Any, key: Any) -> Any:
    """``x[key]``: whole numbers, slices, None, Ellipsis, and computed indices, which broadcast together."""
    keys = list(key) if isinstance(key, tuple) else [key]
    rank, used = len(x.shape), sum(k is not None and k is not Ellipsis for k in keys)
    if used > rank:
        raise AxisError(
            f"{used} indices for an array of rank {rank}; steps are written per example, without a batch axis"
        )
    at = next((i for i, k in enumerate(keys) if k is Ellipsis), None)
    if at is not None:
        keys[at : at + 1] = [slice(None)] * (rank - used)
    else:
        keys += [slice(None)] * (rank - used)
    starts, stops, strides, flips, shape, axis = [], [], [], [], [], 0
    computed: dict[int, TracedArray] = {}
    for k in keys:
        if k is None:
            shape.append(1)
            continue
        n = x.shape[axis]
        if isinstance(k, slice):
            start, stop, step = k.indices(n)
            count = len(range(start, stop, step))
            if step < 0:
                start, stop, step = (start + (count - 1) * step, start + 1, -step) if count else (0, 0, 1)
                flips.append(axis)
            shape.append(count)
            starts, stops, strides = [*starts, start], [*stops, max(start, stop)], [*strides, step]
        elif isinstance(k, (int, np.integer)) and not isinstance(k, bool):
            if not -n <= k < n:
                raise IndexRangeError(f"the index {k} is out of range for an axis of {n} in {x.value.type}")
            starts, stops, strides = [*starts, int(k) % n], [*stops, int(k) % n + 1], [*strides, 1]
        else:
            if isinstance(k, (list, tuple, np.ndarray)) and np.asarray(k).dtype.kind in "iu":
                wrong = np.asarray(k)[(np.asarray(k) < -n) | (np.asarray(k) >= n)]
                if wrong.size:
                    raise IndexRangeError(
                        f"the index {wrong.flat[0]} is out of range for an axis of {n} in {x.value.type}"
                    )
                k = np.asarray(k) % n
            index = k if isinstance(k, str) else plain(k)
            if not isinstance(index, TracedArray) or index.dtype.kind != "int":
                shown = types.show(type_of(index)) if isinstance(index, Traced) else repr(k)
                raise DtypeError(f"an index is a whole number, a slice, None or a computed ff.i64; got {shown}")
            computed[len(shape)] = cast_to(index, i64)
            shape.append(n)
            starts, stops, strides = [*starts, 0], [*stops, n], [*strides, 1]
        axis += 1
    if starts != [0] * rank or stops != list(x.shape) or any(s != 1 for s in strides):
        x = emit("slice", x, starts=tuple(starts), stops=tuple(stops), strides=tuple(strides))
    if flips:
        x = emit("flip", x, axes=tuple(flips))
    if x.shape != tuple(shape):
        x = emit("reshape", x, shape=tuple(shape))
    if not computed:
        return x
    if len(computed) == 1:
        ((axis, index),) = computed.items()
        return emit("gather", x, index, axis=axis)
    return _gather_together(x, computed)


def _gather_together(x: TracedArray, indices: dict[int, TracedArray]) -> TracedArray:
    """``x[i, j]`` with several computed indices: their axes become one, at the first of them, or in front where they do
    not lie together."""
    first, last, rank = min(indices), max(indices), len(x.shape)
    at = first if last - first == len(indices) - 1 else 0
    others = [d for d in range(rank) if d not in indices]
    x = emit("transpose", x, permutation=(*others[:at], *indices, *others[at:]))
    extents = x.shape[at : at + len(indices)]
    total = math.prod(extents)
    x = emit("reshape", x, shape=(*x.shape[:at], total, *x.shape[at + len(indices) :]))
    place, stride = None, total
    for n, index in zip(extents, indices.values(), strict=True):
        stride = stride // n if n else 0
        # An index out of range must not fall on another element of the joined axis.
        inside = logical_and(greater_equal(index, 0), less(index, n))
        part = where(inside, multiply(index, stride), total)
        place = part if place is None else add(place, part)
    return emit("gather", x, place, axis=at)


def index_list(xs: TracedList, key: Any) -> Any:
    """``xs[i]``: an element of a list, from the end where i is negative; a list of indices gives a list."""
    if len(xs._sizes) != 1:
        raise StructureError("a grid is not indexed; use ff.map over it, or take its windows with ff.window_map")
    if isinstance(key, slice) or key is None or key is Ellipsis or isinstance(key, tuple):
        raise StructureError(
            "a list is indexed by one number; slices of lists are written with ff.window_map(…, padding=…) or ff.shift"
        )
    size, scope = xs.sizes[0], current()
    if isinstance(key, (int, np.integer)):
        index = TracedArray(scope.index_constant(int(key)))
        if key < 0:
            index = add(TracedArray(scope.length(size)), index)
    else:
        index = plain(key)
        if isinstance(index, TracedList):
            return map_list(index, lambda i: index_list(xs, i))
        require_array(index, "the index of a list")
        if not isinstance(index, Unknown) and (index.shape or index.dtype.kind != "int"):
            raise DtypeError(f"the index of a list is one whole number, ff.i64; got {types.show(type_of(index))}")
        index = cast_to(index, i64)
    values = [scope("element", v, index.value) for v in leaves(xs.content)]
    return with_leaves(xs.content, iter(values))


def _whole(index: TracedArray, name: str) -> TracedArray:
    """An index as i64.

    Raises:
        DtypeError: it does not hold whole numbers.
    """
    if index.dtype.kind != "int":
        raise DtypeError(f"{name} takes whole numbers as index, ff.i64; got {types.show(type_of(index))}")
    return cast_to(index, i64)


@word
def take(x: Any, index: Any, axis: int = 0) -> Any:
    """Rows of a table (along an axis) at computed indices."""
    return lifted(
        lambda a, i: (
            Unknown()
            if isinstance(a, Unknown) or isinstance(i, Unknown)
            else emit("gather", a, _whole(i, "ff.take"), axis=axis_of(axis, len(a.shape)))
        ),
        (x, index),
        "ff.take",
    )


@word
def take_along_axis(x: Any, index: Any, axis: int) -> Any:
    """One element per index along an axis, NumPy's `take_along_axis`."""
    return lifted(
        lambda a, i: emit("gather_along", a, _whole(i, "ff.take_along_axis"), axis=axis_of(axis, len(a.shape))),
        (x, index),
        "ff.take_along_axis",
    )


@word
def one_hot(index: Any, classes: int) -> Any:
    """A vector of `classes` with a one at each index."""
    return lifted(
        lambda i: (
            i
            if isinstance(i, Unknown)
            else cast_to(equal(expand_dims(i, -1), np.arange(classes)), current().program.float_dtype)
        ),
        (index,),
        "ff.one_hot",
    )
