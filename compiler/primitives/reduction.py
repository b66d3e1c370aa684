"""Reductions and scans along the axes of one array, and the choice of an extreme element."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import DtypeError, EmptyError, ShapeError
from ..records import Attributes, Primitive, Refusal, Sample, register
from ..types import ListType, array, boolean, f32, f64, i64
from .elementwise import no_lists
from .structure import check_axis


def _infer_reduction(name: str, empty_ok: bool) -> Callable[[Sequence[ListType], Attributes], tuple[ListType, ...]]:
    def infer(types: Sequence[ListType], attributes: Attributes) -> tuple[ListType, ...]:
        no_lists(name, types)
        (own,), axes = types, attributes["axes"]
        for axis in axes:
            check_axis(axis, len(own.shape))
        if list(axes) != sorted(set(axes)):
            raise ShapeError(f"{name} takes each axis once, in order; got {axes}")
        if own.dtype is boolean:
            raise DtypeError(f"{name} does not take bool; cast it with ff.cast")
        if not empty_ok and any(own.shape[axis] == 0 for axis in axes):
            raise EmptyError(f"{name} over an empty axis of {own} has no value")
        return (own.with_shape(*(n for d, n in enumerate(own.shape) if d not in axes)),)

    return infer


def spread(b: Any, value: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    """A reduced value broadcast back over the reduced axes."""
    return b.broadcast(value, shape, tuple(d for d in range(len(shape)) if d not in axes))


_SAMPLES = (
    Sample((array(f64, 2, 3),), {"axes": (1,)}),
    Sample((array(f64, 2, 3),), {"axes": (0, 1)}),
    Sample((array(i64, 4),), {"axes": (0,)}),
)
_REFUSALS = (
    Refusal((array(f32, 3),), {"axes": (1,)}, IndexError, "per example"),
    Refusal((array(boolean, 3),), {"axes": (0,)}, DtypeError, "cast"),
)

register(
    Primitive(
        "reduce_sum",
        _infer_reduction("sum", True),
        lambda x, axes: np.sum(x, axes, dtype=x.dtype),
        lambda b, equation, cts: (spread(b, cts[0], equation.types[0].shape, equation.attributes["axes"]),),
        "reduce",
        samples=_SAMPLES,
        refusals=_REFUSALS,
    )
)


def _extremum_adjoint(b: Any, equation: Any, cts: Sequence[Any]) -> Sequence[Any]:
    (x,), axes, shape = equation.inputs, equation.attributes["axes"], equation.types[0].shape
    dtype = x.type.dtype
    # Ties share the cotangent evenly, as torch.amax does.
    hit = b("eq", x, spread(b, equation.output, shape, axes))
    count = b("reduce_sum", b("cast", hit, dtype=dtype, pinned=False), axes=axes)
    share = spread(b, b("div", cts[0], count), shape, axes)
    return (b("select", hit, share, b.constant(0.0, dtype, shape)),)


for _name, _numpy in (("reduce_max", np.max), ("reduce_min", np.min)):
    register(
        Primitive(
            _name,
            _infer_reduction(_name[7:], False),
            lambda x, axes, _numpy=_numpy: _numpy(x, axes),
            _extremum_adjoint,
            "reduce",
            samples=_SAMPLES,
            refusals=(*_REFUSALS, Refusal((array(f32, 0),), {"axes": (0,)}, EmptyError, "empty")),
        )
    )


def _product_adjoint(b: Any, equation: Any, cts: Sequence[Any]) -> Sequence[Any]:
    # The product of all others, as products from the left and from the right: right where elements are zero.
    (x,), axes, shape = equation.inputs, equation.attributes["axes"], equation.types[0].shape
    (axis,) = axes
    before = b("cumulative_product", x, axis=axis, reverse=False, exclusive=True)
    after = b("cumulative_product", x, axis=axis, reverse=True, exclusive=True)
    return (b("mul", spread(b, cts[0], shape, axes), b("mul", before, after)),)


def _infer_product(types: Sequence[ListType], attributes: Attributes) -> tuple[ListType, ...]:
    if len(attributes["axes"]) != 1:
        raise ShapeError("prod reduces one axis at a time")
    return _infer_reduction("prod", True)(types, attributes)


register(
    Primitive(
        "reduce_prod",
        _infer_product,
        lambda x, axes: np.prod(x, axes, dtype=x.dtype),
        _product_adjoint,
        "reduce",
        samples=(_SAMPLES[0], _SAMPLES[2]),
        refusals=_REFUSALS,
    )
)


def _infer_cumulative(types: Sequence[ListType], attributes: Attributes) -> tuple[ListType, ...]:
    no_lists("cumsum", types)
    check_axis(attributes["axis"], len(types[0].shape))
    if types[0].dtype is boolean:
        raise DtypeError("a cumulative sum does not take bool; cast it with ff.cast")
    return (types[0],)


def _cumulative(operation: Callable[..., Any], neutral: int) -> Callable[..., Any]:
    def numpy(x: Any, axis: int, reverse: bool, exclusive: bool) -> Any:
        x = np.flip(x, axis) if reverse else x
        out = operation(x, axis, dtype=x.dtype)
        if exclusive and x.shape[axis]:
            first = np.full_like(np.take(out, [0], axis), neutral)
            out = np.concatenate([first, np.delete(out, -1, axis)], axis)
        return np.flip(out, axis) if reverse else out

    return numpy


_CUMULATIVE_SAMPLES = tuple(
    Sample((array(f64, 2, 4),), {"axis": axis, "reverse": reverse, "exclusive": exclusive})
    for axis in (0, 1)
    for reverse in (False, True)
    for exclusive in (False, True)
)
_CUMULATIVE_REFUSALS = (
    Refusal((array(f32, 3),), {"axis": 1, "reverse": False, "exclusive": False}, IndexError, "per example"),
    Refusal((array(boolean, 3),), {"axis": 0, "reverse": False, "exclusive": False}, DtypeError, "cast"),
)


def _cumulative_sum_adjoint(b: Any, equation: Any, cts: Sequence[Any]) -> Sequence[Any]:
    a = equation.attributes
    return (b("cumulative_sum", cts[0], axis=a["axis"], reverse=not a["reverse"], exclusive=a["exclusive"]),)


register(
    Primitive(
        "cumulative_sum",
        _infer_cumulative,
        _cumulative(np.cumsum, 0),
        _cumulative_sum_adjoint,
        "reduce",
        samples=_CUMULATIVE_SAMPLES,
        refusals=_CUMULATIVE_REFUSALS,
    )
)


def _cumulative_product_adjoint(b: Any, equation: Any, cts: Sequence[Any]) -> Sequence[Any]:
    # d y_j / d x_i = product of x_k over k <= j (k < j when exclusive), k != i: an n by n table of masked products,
    # so that zeros among the elements are right.
    (x,), a = equation.inputs, equation.attributes
    shape, dtype, axis = x.type.shape, x.type.dtype, a["axis"]
    rank, n = len(shape), shape[a["axis"]]
    position = np.arange(n)[::-1] if a["reverse"] else np.arange(n)
    inside = position[None, :] < position[:, None] if a["exclusive"] else position[None, :] <= position[:, None]
    used = inside[:, None, :] & ~np.eye(n, dtype=bool)[None, :, :]  # [j, i, k]
    last = tuple(d for d in range(rank) if d != axis) + (axis,)
    x_last = b("transpose", x, permutation=last)
    ct_last = b("transpose", cts[0], permutation=last)
    lead = x_last.type.shape[:-1]
    table = (*lead, n, n, n)
    factors = b.broadcast(x_last, table, (*range(len(lead)), len(lead) + 2))
    mask = b.broadcast(b.constant(used, boolean), table, tuple(range(len(lead), len(lead) + 3)))
    slope = b("reduce_prod", b("select", mask, factors, b.constant(1.0, dtype, table)), axes=(len(lead) + 2,))
    on = b.broadcast(b.constant(inside, boolean), slope.type.shape, (len(lead), len(lead) + 1))
    weighted = b("mul", slope, b.broadcast(ct_last, slope.type.shape, (*range(len(lead)), len(lead))))
    total = b("reduce_sum", b("select", on, weighted, b.constant(0.0, dtype, slope.type.shape)), axes=(len(lead),))
    return (b("transpose", total, permutation=tuple(int(i) for i in np.argsort(last))),)


register(
    Primitive(
        "cumulative_product",
        _infer_cumulative,
        _cumulative(np.cumprod, 1),
        _cumulative_product_adjoint,
        "reduce",
        samples=_CUMULATIVE_SAMPLES,
        refusals=_CUMULATIVE_REFUSALS,
    )
)


def _infer_choice(name: str) -> Callable[[Sequence[ListType], Attributes], tuple[ListType, ...]]:
    def infer(types: Sequence[ListType], attributes: Attributes) -> tuple[ListType, ...]:
        no_lists(name, types)
        (own,), axis = types, attributes["axis"]
        check_axis(axis, len(own.shape))
        if own.shape[axis] == 0:
            raise EmptyError(f"{name} over an empty axis of {own} has no value")
        kept = own.shape if name == "argsort" else (n for d, n in enumerate(own.shape) if d != axis)
        return (own.with_dtype(i64).with_shape(*kept),)

    return infer


_CHOICE_REFUSALS = (
    Refusal((array(f32, 3),), {"axis": 1}, IndexError, "per example"),
    Refusal((array(f32, 0),), {"axis": 0}, EmptyError, "empty"),
)
_CHOICE_SAMPLES = (Sample((array(f64, 2, 5),), {"axis": 1}), Sample((array(f64, 4),), {"axis": 0}))

register(
    Primitive(
        "argmax",
        _infer_choice("argmax"),
        lambda x, axis: np.argmax(x, axis).astype(np.int64),
        None,
        "reduce",
        samples=_CHOICE_SAMPLES,
        refusals=_CHOICE_REFUSALS,
    )
)
register(
    Primitive(
        "argsort",
        _infer_choice("argsort"),
        lambda x, axis: np.argsort(x, axis, kind="stable").astype(np.int64),
        None,
        "reduce",
        samples=_CHOICE_SAMPLES,
        refusals=_CHOICE_REFUSALS,
    )
)
