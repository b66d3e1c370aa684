"""Primitives that move elements without arithmetic: constants, broadcast, reshape, transpose, slice, pad,
concatenate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import AxisError, DtypeError, ShapeError
from ..records import Attributes, Primitive, Refusal, Sample, register
from ..types import ListType, array, f32, f64, i64
from .elementwise import no_lists


def check_axis(axis: int, rank: int) -> None:
    """Refuse an axis that an array of this rank does not have."""
    if not 0 <= axis < rank:
        raise AxisError(
            f"axis {axis} is out of range for an array of rank {rank}; steps are written per example, without a "
            "batch axis"
        )


# --- constant ---------------------------------------------------------------------------------------------------------


def _infer_constant(types: Sequence[ListType], attributes: Attributes) -> tuple[ListType, ...]:
    return (array(attributes["dtype"], *attributes["shape"]),)


def _numpy_constant(value: Any, dtype: Any, shape: tuple[int, ...]) -> Any:
    return np.broadcast_to(np.asarray(value, dtype=dtype.numpy), shape)


register(
    Primitive(
        "constant",
        _infer_constant,
        _numpy_constant,
        None,
        "free",
        samples=(
            Sample((), {"value": 1.5, "dtype": f64, "shape": (2, 3)}),
            Sample((), {"value": np.arange(3), "dtype": i64, "shape": (3,)}),
        ),
    )
)


# --- broadcast --------------------------------------------------------------------------------------------------------


def _infer_broadcast(types: Sequence[ListType], attributes: Attributes) -> tuple[ListType, ...]:
    no_lists("broadcast", types)
    (own,), shape, dims = types, attributes["shape"], attributes["dims"]
    if len(dims) != len(own.shape) or list(dims) != sorted(set(dims)) or any(not 0 <= d < len(shape) for d in dims):
        raise ShapeError(f"cannot broadcast {own} to shape {shape}: its axes do not map to {dims}")
    for n, d in zip(own.shape, dims, strict=True):
        if n not in (1, shape[d]):
            raise ShapeError(f"cannot broadcast {own} to shape {shape}: {n} does not fit {shape[d]}")
    return (own.with_shape(*shape),)


def _numpy_broadcast(x: Any, shape: tuple[int, ...], dims: tuple[int, ...]) -> Any:
    x = np.asarray(x)
    aligned = [1] * len(shape)
    for n, d in zip(x.shape, dims, strict=True):
        aligned[d] = n
    return np.broadcast_to(x.reshape(aligned), shape)


def _broadcast_adjoint(b: Any, equation: Any, cts: Sequence[Any]) -> Sequence[Any]:
    own, (shape, dims) = equation.types[0].shape, (equation.attributes["shape"], equation.attributes["dims"])
    summed = tuple(d for d in range(len(shape)) if d not in dims or (own[dims.index(d)] == 1 and shape[d] != 1))
    ct = b("reduce_sum", cts[0], axes=summed) if summed else cts[0]
    return (ct if ct.type.shape == own else b("reshape", ct, shape=own),)


register(
    Primitive(
        "broadcast",
        _infer_broadcast,
        _numpy_broadcast,
        _broadcast_adjoint,
        "free",
        samples=(
            Sample((array(f64, 3),), {"shape": (2, 3), "dims": (1,)}),
            Sample((array(f64, 2),), {"shape": (2, 3), "dims": (0,)}),
            Sample((array(f64, 2, 1),), {"shape": (2, 3), "dims": (0, 1)}),
            Sample((array(f64),), {"shape": (2, 3), "dims": ()}),
        ),
        refusals=(Refusal((array(f32, 3),), {"shape": (2, 4), "dims": (1,)}, ShapeError, "does not fit"),),
    )
)


# --- reshape, transpose, flip -----------------------------------------------------------------------------------------


def _infer_reshape(types: Sequence[ListType], attributes: Attributes) -> tuple[ListType, ...]:
    no_lists("reshape", types)
    if math.prod(types[0].shape) != math.prod(attributes["shape"]):
        raise ShapeError(f"cannot reshape {types[0]} to {attributes['shape']}: the number of elements differs")
    return (types[0].with_shape(*attributes["shape"]),)


register(
    Primitive(
        "reshape",
        _infer_reshape,
        lambda x, shape: np.reshape(x, shape),
        lambda b, equation, cts: (b("reshape", cts[0], shape=equation.types[0].shape),),
        "free",
        samples=(Sample((array(f64, 2, 3),), {"shape": (3, 2)}), Sample((array(f64),), {"shape": (1, 1)})),
        refusals=(Refusal((array(f32, 3),), {"shape": (2, 2)}, ShapeError, "differs"),),
    )
)


def _infer_transpose(types: Sequence[ListType], attributes: Attributes) -> tuple[ListType, ...]:
    no_lists("transpose", types)
    permutation = attributes["permutation"]
    if sorted(permutation) != list(range(len(types[0].shape))):
        raise AxisError(f"{permutation} is not a permutation of the axes of {types[0]}; steps are written per example")
    return (types[0].with_shape(*(types[0].shape[p] for p in permutation)),)


register(
    Primitive(
        "transpose",
        _infer_transpose,
        lambda x, permutation: np.transpose(x, permutation),
        lambda b, equation, cts: (
            b("transpose", cts[0], permutation=tuple(int(i) for i in np.argsort(equation.attributes["permutation"]))),
        ),
        "free",
        samples=(Sample((array(f64, 2, 3, 4),), {"permutation": (2, 0, 1)}),),
        refusals=(Refusal((array(f32, 3),), {"permutation": (1, 0)}, AxisError, "permutation"),),
    )
)


def _infer_flip(types: Sequence[ListType], attributes: Attributes) -> tuple[ListType, ...]:
    no_lists("flip", types)
    for axis in attributes["axes"]:
        check_axis(axis, len(types[0].shape))
    return (types[0],)


register(
    Primitive(
        "flip",
        _infer_flip,
        lambda x, axes: np.flip(x, axes),
        lambda b, equation, cts: (b("flip", cts[0], axes=equation.attributes["axes"]),),
        "free",
        samples=(Sample((array(f64, 2, 3),), {"axes": (1,)}),),
        refusals=(Refusal((array(f32, 3),), {"axes": (1,)}, AxisError, "out of range"),),
    )
)


# --- slice and pad: each the other's adjoint --------------------------------------------------------------------------


def _infer_slice(types: Sequence[ListType], attributes: Attributes) -> tuple[ListType, ...]:
    no_lists("slice", types)
    shape = types[0].shape
    bounds = list(zip(attributes["starts"], attributes["stops"], attributes["strides"], strict=True))
    if len(bounds) != len(shape) or any(
        not (0 <= a <= z <= n and s > 0) for (a, z, s), n in zip(bounds, shape, strict=True)
    ):
        raise ShapeError(f"cannot slice {types[0]} by {bounds}")
    return (types[0].with_shape(*(max(0, -(-(z - a) // s)) for a, z, s in bounds)),)


def _numpy_slice(x: Any, starts: Any, stops: Any, strides: Any) -> Any:
    return np.asarray(x)[tuple(map(slice, starts, stops, strides))]


def _slice_adjoint(b: Any, equation: Any, cts: Sequence[Any]) -> Sequence[Any]:
    a, own = equation.attributes, equation.types[0].shape
    interior = tuple(s - 1 for s in a["strides"])
    covered = [(n - 1) * s + 1 if n else 0 for n, s in zip(cts[0].type.shape, a["strides"], strict=True)]
    high = tuple(n - start - c for n, start, c in zip(own, a["starts"], covered, strict=True))
    return (b("pad", cts[0], low=a["starts"], high=high, interior=interior),)


register(
    Primitive(
        "slice",
        _infer_slice,
        _numpy_slice,
        _slice_adjoint,
        "free",
        samples=(
            Sample((array(f64, 5, 4),), {"starts": (1, 0), "stops": (5, 2), "strides": (2, 1)}),
            Sample((array(f64, 6),), {"starts": (2,), "stops": (4,), "strides": (1,)}),
            Sample((array(f64, 3),), {"starts": (1,), "stops": (1,), "strides": (1,)}),
        ),
        refusals=(
            Refusal((array(f32, 3),), {"starts": (0,), "stops": (4,), "strides": (1,)}, ShapeError, "cannot slice"),
        ),
    )
)


def _infer_pad(types: Sequence[ListType], attributes: Attributes) -> tuple[ListType, ...]:
    no_lists("pad", types)
    shape = types[0].shape
    if not len(shape) == len(attributes["low"]) == len(attributes["high"]) == len(attributes["interior"]):
        raise ShapeError(f"padding of {types[0]} takes one entry per axis")
    if min((*attributes["low"], *attributes["high"], *attributes["interior"]), default=0) < 0:
        raise ShapeError("padding is not negative; slice instead")
    spread = [n + (n - 1) * i if n else 0 for n, i in zip(shape, attributes["interior"], strict=True)]
    return (
        types[0].with_shape(
            *(a + n + z for a, n, z in zip(attributes["low"], spread, attributes["high"], strict=True))
        ),
    )


def _numpy_pad(x: Any, low: Any, high: Any, interior: Any) -> Any:
    x = np.asarray(x)
    spread = [n + (n - 1) * i if n else 0 for n, i in zip(x.shape, interior, strict=True)]
    out = np.zeros([a + n + z for a, n, z in zip(low, spread, high, strict=True)], x.dtype)
    out[tuple(slice(a, a + n, i + 1) for a, n, i in zip(low, spread, interior, strict=True))] = x
    return out


def _pad_adjoint(b: Any, equation: Any, cts: Sequence[Any]) -> Sequence[Any]:
    a, own = equation.attributes, equation.types[0].shape
    stops = tuple(
        lo + ((n - 1) * (i + 1) + 1 if n else 0) for lo, n, i in zip(a["low"], own, a["interior"], strict=True)
    )
    return (b("slice", cts[0], starts=a["low"], stops=stops, strides=tuple(i + 1 for i in a["interior"])),)


register(
    Primitive(
        "pad",
        _infer_pad,
        _numpy_pad,
        _pad_adjoint,
        "free",
        samples=(
            Sample((array(f64, 2, 3),), {"low": (1, 0), "high": (0, 2), "interior": (2, 0)}),
            Sample((array(f64, 3),), {"low": (1,), "high": (1,), "interior": (0,)}),
        ),
        refusals=(Refusal((array(f32, 3),), {"low": (-1,), "high": (0,), "interior": (0,)}, ShapeError, "negative"),),
    )
)


# --- concatenate ------------------------------------------------------------------------------------------------------


def _infer_concatenate(types: Sequence[ListType], attributes: Attributes) -> tuple[ListType, ...]:
    no_lists("concat", types)
    axis, first = attributes["axis"], types[0]
    check_axis(axis, len(first.shape))
    for type_ in types:
        if type_.dtype is not first.dtype:
            raise DtypeError(f"concat takes arrays of one dtype; got {' and '.join(map(str, types))}")
        if len(type_.shape) != len(first.shape) or any(
            n != m for d, (n, m) in enumerate(zip(type_.shape, first.shape, strict=True)) if d != axis
        ):
            raise ShapeError(
                f"concat along axis {axis} takes arrays that agree in the other axes; got "
                f"{' and '.join(map(str, types))}"
            )
    shape = list(first.shape)
    shape[axis] = sum(t.shape[axis] for t in types)
    return (first.with_shape(*shape),)


def _concatenate_adjoint(b: Any, equation: Any, cts: Sequence[Any]) -> Sequence[Any]:
    axis, shape, start, out = equation.attributes["axis"], equation.output.type.shape, 0, []
    for type_ in equation.types:
        stop = start + type_.shape[axis]
        starts = tuple(start if d == axis else 0 for d in range(len(shape)))
        stops = tuple(stop if d == axis else n for d, n in enumerate(shape))
        out.append(b("slice", cts[0], starts=starts, stops=stops, strides=(1,) * len(shape)))
        start = stop
    return out


register(
    Primitive(
        "concatenate",
        _infer_concatenate,
        lambda *xs, axis: np.concatenate(xs, axis),
        _concatenate_adjoint,
        "free",
        samples=(
            Sample((array(f64, 2, 3), array(f64, 2, 1), array(f64, 2, 2)), {"axis": 1}),
            Sample((array(f64, 2),), {"axis": 0}),
        ),
        refusals=(
            Refusal((array(f32, 2), array(f32, 2, 2)), {"axis": 0}, ShapeError, "agree"),
            Refusal((array(f32, 2), array(f64, 2)), {"axis": 0}, DtypeError, "one dtype"),
            Refusal((array(f32, 2),), {"axis": 1}, AxisError, "per example"),
        ),
    )
)
