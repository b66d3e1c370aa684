"""Words that move elements: reshape, transpose, concat, chunk, stack."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import types
from ..errors import AxisError, ShapeError, SizeError, StructureError
from ..primitives.structure import check_axis
from ..scope import current
from ..sizes import Constant
from ..trace import leaves, list_structure, map_all, plain, with_leaves
from ..types import promote
from ..values import TracedArray, TracedList, Unknown, type_of
from .constants import shape_of
from .lifting import cast_to, emit, lifted, word
from .products import unzip


def axis_of(axis: Any, rank: int) -> int:
    """A non-negative axis.

    Raises:
        AxisError: it is out of range.
    """
    if not isinstance(axis, (int, np.integer)):
        raise AxisError(f"an axis is a whole number; got {axis!r}")
    if not -rank <= axis < rank:
        check_axis(int(axis), rank)
        raise AxisError(
            f"axis {axis} is out of range for an array of rank {rank}; steps are written per example, without a batch "
            "axis"
        )
    return int(axis) % rank


def on_arrays(function: Callable[[TracedArray], Any], x: Any, name: str) -> Any:
    return lifted(lambda a: a if isinstance(a, Unknown) else function(a), (x,), name)


@word
def reshape(x: Any, *shape: Any) -> Any:
    """x in another shape; one entry may be -1."""
    shape = shape_of(shape)

    def apply(a: TracedArray) -> TracedArray:
        total, given = math.prod(a.shape), math.prod(n for n in shape if n != -1)
        if list(shape).count(-1) > 1 or min(shape, default=0) < -1 or (-1 in shape and (given == 0 or total % given)):
            raise ShapeError(f"cannot reshape {a.value.type} to {shape}: the number of elements differs")
        return emit("reshape", a, shape=tuple(total // given if n == -1 else n for n in shape))

    return on_arrays(apply, x, "ff.reshape")


@word
def transpose(x: Any, *axes: Any) -> Any:
    """x with its axes permuted; reversed when none are given."""
    axes = tuple(axes[0]) if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes

    def apply(a: TracedArray) -> TracedArray:
        rank = len(a.shape)
        order = tuple(axis_of(i, rank) for i in axes) if axes else tuple(range(rank))[::-1]
        return emit("transpose", a, permutation=order)

    return on_arrays(apply, x, "ff.transpose")


@word
def swapaxes(x: Any, first: int, second: int) -> Any:
    """x with two axes exchanged."""

    def apply(a: TracedArray) -> TracedArray:
        order = list(range(len(a.shape)))
        i, j = axis_of(first, len(order)), axis_of(second, len(order))
        order[i], order[j] = order[j], order[i]
        return emit("transpose", a, permutation=tuple(order))

    return on_arrays(apply, x, "ff.swapaxes")


@word
def expand_dims(x: Any, axis: int) -> Any:
    """x with an axis of one inserted."""

    def apply(a: TracedArray) -> TracedArray:
        at = axis_of(axis, len(a.shape) + 1)
        return emit("reshape", a, shape=(*a.shape[:at], 1, *a.shape[at:]))

    return on_arrays(apply, x, "ff.expand_dims")


@word
def squeeze(x: Any, axis: Any = None) -> Any:
    """x without its axes of one (or without those named)."""

    def apply(a: TracedArray) -> TracedArray:
        rank = len(a.shape)
        chosen = (
            range(rank) if axis is None else [axis_of(i, rank) for i in (axis if isinstance(axis, tuple) else (axis,))]
        )
        return emit("reshape", a, shape=tuple(n for d, n in enumerate(a.shape) if not (d in chosen and n == 1)))

    return on_arrays(apply, x, "ff.squeeze")


@word
def broadcast_to(x: Any, *shape: Any) -> Any:
    """x broadcast to a shape; -1 keeps an axis."""
    shape = shape_of(shape)

    def apply(a: TracedArray) -> TracedArray:
        own = (1,) * (len(shape) - len(a.shape)) + a.shape
        target = tuple(m if n == -1 else n for n, m in zip(shape, own, strict=False))
        fits = len(a.shape) <= len(target) and all(n in (1, m) for n, m in zip(own, target, strict=False))
        if not fits:
            raise ShapeError(
                f"cannot broadcast {a.value.type} to {target}: an axis of one, or a new one, grows; others do not"
            )
        return TracedArray(current().broadcast(a.value, target))

    return on_arrays(apply, x, "ff.broadcast_to")


@word
def flip(x: Any, axis: Any = None) -> Any:
    """x reversed along an axis (all axes when none is given)."""

    def apply(a: TracedArray) -> TracedArray:
        rank = len(a.shape)
        axes = range(rank) if axis is None else (axis if isinstance(axis, (tuple, list)) else (axis,))
        return emit("flip", a, axes=tuple(sorted(axis_of(i, rank) for i in axes)))

    return on_arrays(apply, x, "ff.flip")


@word
def roll(x: Any, shift: int, axis: Any = None) -> Any:
    """x rotated along an axis: element i moves to i + shift. Without an axis a vector rotates; other arrays name
    one.
    """

    def apply(a: TracedArray) -> TracedArray:
        if axis is None and len(a.shape) != 1:
            raise AxisError("ff.roll of an array of rank 2 or more names its axis")
        d = axis_of(0 if axis is None else axis, len(a.shape))
        n = a.shape[d]
        by = shift % n if n else 0
        return concat(slice_axis(a, d, n - by, n), slice_axis(a, d, 0, n - by), axis=d) if by else a

    return on_arrays(apply, x, "ff.roll")


def slice_axis(a: TracedArray, axis: int, start: int, stop: int, stride: int = 1) -> TracedArray:
    rank = len(a.shape)
    return emit(
        "slice",
        a,
        starts=tuple(start if d == axis else 0 for d in range(rank)),
        stops=tuple(stop if d == axis else n for d, n in enumerate(a.shape)),
        strides=tuple(stride if d == axis else 1 for d in range(rank)),
    )


@word
def concat(*arrays: Any, axis: int = -1) -> Any:
    """Arrays one after the other along an axis (the last when left out); lists of one size: element by element."""
    if len(arrays) == 1 and isinstance(plain(arrays[0]), tuple):
        arrays = tuple(plain(arrays[0]))

    def apply(*parts: Any) -> Any:
        known = [p for p in parts if not isinstance(p, Unknown)]
        if len(known) < len(parts):
            return Unknown()
        common = known[0].dtype
        for part in known[1:]:
            common = promote(common, part.dtype)
        at = axis_of(axis, len(known[0].shape))
        return emit("concatenate", *(cast_to(p, common) for p in known), axis=at)

    if not arrays:
        raise StructureError("ff.concat takes one array or more")
    return lifted(apply, arrays, "ff.concat")


@word
def stack(*arrays: Any, axis: int = 0) -> Any:
    """Arrays of one shape as one array with a new axis; a list of constant size becomes an array."""
    if len(arrays) == 1 and isinstance(plain(arrays[0]), tuple):
        arrays = tuple(plain(arrays[0]))
    elif len(arrays) == 1 and isinstance(plain(arrays[0]), TracedList):
        return _stack_list(plain(arrays[0]))
    shapes = [a.shape for a in map(plain, arrays) if isinstance(a, TracedArray)]
    if len(set(shapes)) > 1:
        raise ShapeError(f"ff.stack takes arrays of one shape; got {' and '.join(map(str, dict.fromkeys(shapes)))}")
    return concat(*[expand_dims(a, axis) for a in arrays], axis=axis)


def _stack_list(xs: TracedList) -> Any:
    if len(xs._sizes) != 1 or not isinstance(xs.sizes[0], Constant):
        raise SizeError(
            f"ff.stack makes an array of a list whose size is known; the size of this one, {xs.sizes[0]}, is known per "
            "call "
            "only. Reduce the list, or map over it"
        )
    values = [current()("stack", v) for v in leaves(xs.content)]
    return with_leaves(xs.content, iter(values))


@word
def unstack(x: Any) -> TracedList:
    """An array as a list along its first axis."""
    x = plain(x)
    if not isinstance(x, TracedArray):
        raise StructureError(f"ff.unstack takes an array; got {types.show(type_of(x))}")
    if not x.shape:
        raise AxisError("ff.unstack takes an array of rank 1 or more; got a number")
    value = current()("unstack", x.value)
    return list_structure(Constant(x.shape[0]), TracedArray(value), [value])


@word
def chunk(x: Any, chunks: int, axis: int = -1) -> Any:
    """x cut into equal pieces along an axis (the last when left out).

    Raises:
        ShapeError: the axis does not divide into so many pieces.
    """
    x = plain(x)
    if not isinstance(chunks, (int, np.integer)) or chunks < 1:
        raise ShapeError(f"ff.chunk takes a whole number of chunks, 1 or more; got {chunks!r}")
    if isinstance(x, TracedList):
        return unzip(map_all(x, lambda element: chunk(element, chunks, axis)))
    if isinstance(x, Unknown):
        return tuple(Unknown() for _ in range(chunks))
    d = axis_of(axis, len(require_array(x, "ff.chunk").shape))
    n = x.shape[d]
    if n % chunks:
        raise ShapeError(
            f"an axis of {n} does not divide into {chunks} equal chunks; ff.split(x, sizes) makes unequal ones"
        )
    return tuple(slice_axis(x, d, i * n // chunks, (i + 1) * n // chunks) for i in range(chunks))


@word
def split(x: Any, sizes: Any, axis: int = -1) -> Any:
    """x cut along an axis into pieces of the given sizes (or all of one size)."""
    x = require_array(plain(x), "ff.split")
    d = axis_of(axis, len(x.shape))
    n = x.shape[d]
    given = tuple(sizes) if isinstance(sizes, (tuple, list)) else (sizes,)
    least = 0 if isinstance(sizes, (tuple, list)) else 1
    if not all(isinstance(size, (int, np.integer)) and size >= least for size in given):
        raise ShapeError(f"ff.split takes the sizes of the pieces, whole numbers; got {sizes!r}")
    parts = list(given) if isinstance(sizes, (tuple, list)) else [min(sizes, n - i) for i in range(0, n, sizes)]
    if sum(parts) != n:
        raise ShapeError(f"pieces of {parts} do not make up an axis of {n}")
    starts = np.cumsum([0, *parts])
    return tuple(slice_axis(x, d, int(a), int(z)) for a, z in itertools.pairwise(starts))


def require_array(x: Any, name: str) -> Any:
    if not isinstance(x, (TracedArray, Unknown)):
        raise StructureError(f"{name} takes an array; got {types.show(type_of(x))}")
    return x
