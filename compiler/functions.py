"""NumPy's and torch's words on traced values: elementwise functions, shapes, indexing, contractions, reductions.

Every function lifts over lists of one size; the reductions reduce a list.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from . import types
from .errors import AxisError, DtypeError, IndexRangeError, ShapeError, SizeError, StructureError, TraceError
from .expression import Expression
from .parameters import Parameter
from .primitives.structure import check_axis
from .sizes import Constant
from .trace import (
    NamedProduct,
    Traced,
    TracedArray,
    TracedList,
    TracedTree,
    Unknown,
    current,
    leaves,
    list_structure,
    map_all,
    map_list,
    plain,
    traced,
    type_of,
    unify_lists,
    with_leaves,
)
from .types import DType, boolean, i64, promote

WORDS: dict[str, Expression] = {}


def word(function: Callable[..., Any]) -> Expression:
    """Make a function a public word: an expression, found by its name from torch's functions too."""
    name = function.__name__.rstrip("_")
    WORDS[name] = Expression(function, name)
    return WORDS[name]


# --- lifting ----------------------------------------------------------------------------------------------------------


def lifted(function: Callable[..., Any], arguments: Sequence[Any], where: str) -> Any:
    """Apply a function of arrays; over the elements where an argument is a list."""
    arguments = [plain(a) for a in arguments]
    lists = [a for a in arguments if isinstance(a, TracedList)]
    if not lists:
        for a in arguments:
            if not isinstance(a, (TracedArray, Unknown)):
                raise StructureError(f"{where} takes arrays; got {types.show(type_of(a))}. Apply it to the parts")
        return function(*arguments)
    deepest = max(lists, key=_depth)
    lists = [a for a in lists if _depth(a) == _depth(deepest)]
    unify_lists(lists, where)

    def element(*elements: Any) -> Any:
        found = iter(elements)
        return lifted(function, [next(found) if any(a is x for x in lists) else a for a in arguments], where)

    return map_all(lists[0], element, *lists[1:])


def _depth(xs: TracedList) -> int:
    inner = xs.content
    return len(xs._sizes) + (_depth(inner) if isinstance(inner, TracedList) else 0)


def emit(op: str, *inputs: TracedArray, **attributes: Any) -> TracedArray:
    """Append a primitive to the body being traced."""
    return TracedArray(current()(op, *(x.value for x in inputs), **attributes))


def _weak(value: Any) -> bool:
    """A bare number takes the dtype of what it stands beside."""
    return isinstance(value, (bool, int, float)) and not isinstance(value, np.generic)


def _aligned(arguments: Sequence[Any], dtype: DType | None = None) -> list[Any]:
    """Arrays of one dtype and one shape from what stands in an elementwise operation."""
    found = [a for a in arguments if not _weak(a) and not isinstance(a, Unknown)]
    if not found and any(isinstance(a, Unknown) for a in arguments):
        return []
    arrays = [traced(a) for a in found]
    common = dtype
    for a in arrays:
        common = a.dtype if common is None else promote(common, a.dtype)
    if common is not None and not common.is_float and any(isinstance(a, float) for a in arguments):
        common = current().program.float_dtype
    if common is boolean and any(_weak(a) and not isinstance(a, bool) for a in arguments):
        common = i64
    full = []
    for a in arguments:
        if isinstance(a, Unknown):
            a = traced(0.0)
        a = traced(a, common)
        full.append(cast_to(a, common) if common is not None else a)
    shape = _broadcast_shape([a.shape for a in full])
    return [TracedArray(current().broadcast(a.value, shape)) for a in full]


def _broadcast_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ShapeError(
            f"shapes {' and '.join(map(str, shapes))} do not broadcast together (shapes are those of one example, without a batch axis)"
        ) from None


def cast_to(x: TracedArray, dtype: DType) -> TracedArray:
    """An unpinned cast; nothing when the dtype is right."""
    return x if x.dtype is dtype else emit("cast", x, dtype=dtype, pinned=False)


def _floats(arguments: Sequence[Any]) -> list[Any]:
    full = _aligned(arguments)
    if full and not full[0].dtype.is_float:
        full = [cast_to(x, current().program.float_dtype) for x in full]
    return full


def elementwise(op: str, arguments: Sequence[Any], where: str, floats: bool = False, dtype: DType | None = None) -> Any:
    """An elementwise primitive with NumPy's broadcasting and promotion, lifted over lists."""
    if all(map(_weak, arguments)):
        arguments = [traced(a) for a in arguments]

    def apply(*arrays: Any) -> Any:
        # Bare numbers were left as they are, so that they take the arrays' dtype.
        found = iter(arrays)
        mixed = [a if _weak(a) else next(found) for a in arguments]
        full = _floats(mixed) if floats else _aligned(mixed, dtype)
        return emit(op, *full) if full else Unknown()

    return lifted(apply, [a for a in arguments if not _weak(a)], where)


def _unary(name: str, op: str | None = None, floats: bool = True, doc: str = "") -> Expression:
    def function(x: Any) -> Any:
        return elementwise(op or name, (x,), f"ff.{name}", floats)

    function.__name__ = name
    function.__doc__ = f"{doc or name} of each element; lifts over lists and grids."
    return word(function)


exp, expm1, log, log1p = _unary("exp"), _unary("expm1"), _unary("log"), _unary("log1p")
sqrt, rsqrt, sin, cos = _unary("sqrt"), _unary("rsqrt"), _unary("sin"), _unary("cos")
arctan, tanh, sigmoid, erf = _unary("arctan"), _unary("tanh"), _unary("sigmoid"), _unary("erf")
floor, ceil, round_ = _unary("floor"), _unary("ceil"), _unary("round")
abs_, sign, negative = _unary("abs", floats=False), _unary("sign", floats=False), _unary("negative", "neg", floats=False)
isfinite = _unary("isfinite", "is_finite")
logical_not = _unary("logical_not", floats=False)


def _binary(name: str, op: str | None = None, floats: bool = False) -> Expression:
    def function(x: Any, y: Any) -> Any:
        return elementwise(op or name, (x, y), f"ff.{name}", floats)

    function.__name__ = name
    function.__doc__ = f"{name} of two values, NumPy's broadcasting; lifts over lists and grids of one size."
    return word(function)


add, subtract, multiply, divide = _binary("add"), _binary("subtract", "sub"), _binary("multiply", "mul"), _binary("divide", "div", True)
maximum, minimum, arctan2 = _binary("maximum"), _binary("minimum"), _binary("arctan2", floats=True)
equal, not_equal, less, less_equal = _binary("equal", "eq"), _binary("not_equal", "ne"), _binary("less", "lt"), _binary("less_equal", "le")
greater, greater_equal = _binary("greater", "gt"), _binary("greater_equal", "ge")
logical_and, logical_or = _binary("logical_and"), _binary("logical_or")


@word
def power(x: Any, y: Any) -> Any:
    """``x ** y``. A whole exponent of up to 4 is multiplied out, so that it is right for negative x."""
    if isinstance(y, (int, float)) and y == 2:
        return multiply(x, x)
    if isinstance(y, int) and not isinstance(y, bool) and 0 <= y <= 4:
        result = traced(x) if y else add(multiply(x, 0), 1)
        for _ in range(y - 1):
            result = multiply(result, x)
        return result
    if isinstance(y, (int, float)) and y in (0.5, -0.5, -1):
        return {0.5: sqrt, -0.5: rsqrt, -1: lambda v: divide(1.0, v)}[y](x)
    return elementwise("power", (x, y), "ff.power", True)


@word
def remainder(x: Any, y: Any) -> Any:
    """``x % y`` with the sign of y, as Python and NumPy have it."""
    return _division(x, y, "remainder", "integer_remainder", "ff.remainder")


@word
def floor_divide(x: Any, y: Any) -> Any:
    """``x // y``."""

    def apply(a: Any, b: Any) -> Any:
        full = _aligned((a, b))
        if not full:
            return Unknown()
        return floor(emit("div", *full)) if full[0].dtype.is_float else emit("floor_divide", *full)

    return lifted(apply, (_keep(x), _keep(y)), "ff.floor_divide")


def _keep(x: Any) -> Any:
    return traced(x)


def _division(x: Any, y: Any, floating: str, whole: str, where: str) -> Any:
    def apply(a: Any, b: Any) -> Any:
        full = _aligned((a, b))
        return (emit(floating if full[0].dtype.is_float else whole, *full)) if full else Unknown()

    if isinstance(x, int) or isinstance(y, int):
        other = plain(y if isinstance(x, int) else x)
        if isinstance(other, TracedArray):
            x, y = traced(x, other.dtype), traced(y, other.dtype)
    return lifted(apply, (traced(x), traced(y)), where)


@word
def where(condition: Any, x: Any, y: Any) -> Any:
    """Elements of x where the condition holds, of y elsewhere; what is not chosen never leaks (not even NaN)."""

    def apply(*arrays: Any) -> Any:
        found = iter(arrays)
        mask = next(found)
        mixed = [a if _weak(a) else next(found) for a in (x, y)]
        full = _aligned(mixed)
        if not full:
            return Unknown()
        if isinstance(mask, Unknown):
            mask = traced(True)
        if mask.dtype is not boolean:
            raise DtypeError(f"the condition of ff.where is bool; got {mask.dtype}. Compare it, as in x > 0")
        shape = _broadcast_shape([mask.shape, full[0].shape])
        spread = [TracedArray(current().broadcast(a.value, shape)) for a in (mask, *full)]
        return emit("select", *spread)

    return lifted(apply, [condition, *(a for a in (x, y) if not _weak(a))], "ff.where")


@word
def relu(x: Any) -> Any:
    """``max(x, 0)``."""
    return where(greater(x, 0), x, 0.0)


@word
def silu(x: Any) -> Any:
    """``x · sigmoid(x)``."""
    return multiply(x, sigmoid(x))


@word
def gelu(x: Any, approximate: str = "none") -> Any:
    """``x · Φ(x)`` (Hendrycks & Gimpel 2016); ``approximate="tanh"`` as in torch."""
    if approximate == "tanh":
        inner = multiply(math.sqrt(2 / math.pi), add(x, multiply(0.044715, power(x, 3))))
        return multiply(multiply(0.5, x), add(1.0, tanh(inner)))
    return multiply(multiply(0.5, x), add(1.0, erf(multiply(x, math.sqrt(0.5)))))


@word
def softplus(x: Any) -> Any:
    """``log(1 + exp x)``, without overflow."""
    return add(relu(x), log1p(exp(negative(abs_(x)))))


@word
def logsigmoid(x: Any) -> Any:
    """``log sigmoid(x)``, without overflow."""
    return negative(softplus(negative(x)))


@word
def elu(x: Any, alpha: float = 1.0) -> Any:
    """``x`` where positive, ``alpha (exp x − 1)`` elsewhere."""
    return where(greater(x, 0), x, multiply(alpha, expm1(minimum(x, 0))))


@word
def leaky_relu(x: Any, negative_slope: float = 0.01) -> Any:
    """``x`` where positive, ``negative_slope · x`` elsewhere."""
    return where(greater(x, 0), x, multiply(negative_slope, x))


@word
def clip(x: Any, min: Any = None, max: Any = None) -> Any:
    """x held between bounds, either of which may be None."""
    x = x if min is None else maximum(x, min)
    return x if max is None else minimum(x, max)


@word
def square(x: Any) -> Any:
    """``x · x``."""
    return multiply(x, x)


@word
def cast(x: Any, dtype: DType) -> Any:
    """Change the dtype and pin it: `.double()`, `.to()` and autocast leave it alone.

    Arguments:
        x: arrays, or lists of them.
        dtype: ``ff.f32``, ``ff.i64`` …
    """
    if not isinstance(dtype, DType):
        raise DtypeError(f"ff.cast takes a dtype such as ff.f32; got {dtype!r}")
    return lifted(lambda a: a if isinstance(a, Unknown) else emit("cast", a, dtype=dtype, pinned=dtype.is_float), (x,), "ff.cast")


@word
def stop_gradient(x: Any) -> Any:
    """x, through which no derivative passes."""
    return lifted(lambda a: a if isinstance(a, Unknown) else emit("stop_gradient", a), (x,), "ff.stop_gradient")


# --- constants --------------------------------------------------------------------------------------------------------


def _shape(shape: tuple[Any, ...]) -> tuple[int, ...]:
    shape = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    for n in shape:
        if not isinstance(n, (int, np.integer)):
            raise ShapeError(f"a shape is whole numbers; got {shape}")
    return tuple(map(int, shape))


def _numpy_dtype(dtype: DType | None) -> Any:
    return np.float64 if dtype is None else dtype.numpy


def zeros(*shape: Any, dtype: DType | None = None) -> np.ndarray:
    """An array of zeros: ``zeros(3, 4)`` or ``zeros((3, 4))``. It has the program's float dtype unless one is given."""
    return np.zeros(_shape(shape), _numpy_dtype(dtype))


def ones(*shape: Any, dtype: DType | None = None) -> np.ndarray:
    """An array of ones."""
    return np.ones(_shape(shape), _numpy_dtype(dtype))


def full(shape: Any, value: float, dtype: DType | None = None) -> np.ndarray:
    """An array filled with one number (of the program's float dtype for a float, i64 for a whole number)."""
    return np.full(_shape((shape,)), value, None if dtype is None else dtype.numpy)


def eye(n: int, m: int | None = None, dtype: DType | None = None) -> np.ndarray:
    """The identity matrix."""
    return np.eye(n, m, dtype=_numpy_dtype(dtype))


def arange(*bounds: int, dtype: DType | None = None) -> np.ndarray:
    """Whole numbers (or floats) from start to stop by step, as NumPy has it; static."""
    return np.arange(*bounds) if dtype is None else np.arange(*bounds, dtype=dtype.numpy)


def linspace(start: float, stop: float, count: int) -> np.ndarray:
    """`count` numbers from start to stop, both included."""
    return np.linspace(start, stop, count)


def _like(x: Any, value: float) -> Any:
    def fill(a: Any) -> Any:
        if isinstance(a, Unknown):
            return a
        return TracedArray(current().constant(value, a.dtype, a.shape))

    x = plain(x)
    if isinstance(x, TracedList):
        return map_all(x, lambda element: _like(element, value))
    if isinstance(x, (tuple, Mapping)):
        parts = [_like(part, value) for part in (x.values() if isinstance(x, Mapping) else x)]
        return dict(zip(x, parts, strict=True)) if isinstance(x, Mapping) else types.rebuild(x, iter(parts))
    return fill(x)


@word
def zeros_like(x: Any) -> Any:
    """Zeros in the structure of x (lists, grids and products too), of which only types and sizes are read."""
    return _like(x, 0)


@word
def ones_like(x: Any) -> Any:
    """Ones in the structure of x."""
    return _like(x, 1)


# --- shapes -----------------------------------------------------------------------------------------------------------


def axis_of(axis: Any, rank: int) -> int:
    """A non-negative axis.

    Raises:
        AxisError: it is out of range.
    """
    if not isinstance(axis, (int, np.integer)):
        raise AxisError(f"an axis is a whole number; got {axis!r}")
    if not -rank <= axis < rank:
        check_axis(int(axis), rank)
        raise AxisError(f"axis {axis} is out of range for an array of rank {rank}; steps are written per example, without a batch axis")
    return int(axis) % rank


def _either(axis: Any, dim: Any) -> Any:
    return dim if axis is None else axis


def _on_array(function: Callable[[TracedArray], Any], x: Any, name: str) -> Any:
    return lifted(lambda a: a if isinstance(a, Unknown) else function(a), (x,), name)


@word
def reshape(x: Any, *shape: Any) -> Any:
    """x in another shape; one entry may be -1."""
    shape = _shape(shape)

    def apply(a: TracedArray) -> TracedArray:
        total, given = math.prod(a.shape), math.prod(n for n in shape if n != -1)
        if list(shape).count(-1) > 1 or (-1 in shape and (given == 0 or total % given)):
            raise ShapeError(f"cannot reshape {a.value.type} to {shape}")
        return emit("reshape", a, shape=tuple(total // given if n == -1 else n for n in shape))

    return _on_array(apply, x, "ff.reshape")


@word
def transpose(x: Any, *axes: Any) -> Any:
    """x with its axes permuted; reversed when none are given."""
    axes = tuple(axes[0]) if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes

    def apply(a: TracedArray) -> TracedArray:
        rank = len(a.shape)
        order = tuple(axis_of(i, rank) for i in axes) if axes else tuple(range(rank))[::-1]
        return emit("transpose", a, permutation=order)

    return _on_array(apply, x, "ff.transpose")


@word
def swapaxes(x: Any, first: int, second: int) -> Any:
    """x with two axes exchanged."""

    def apply(a: TracedArray) -> TracedArray:
        order = list(range(len(a.shape)))
        i, j = axis_of(first, len(order)), axis_of(second, len(order))
        order[i], order[j] = order[j], order[i]
        return emit("transpose", a, permutation=tuple(order))

    return _on_array(apply, x, "ff.swapaxes")


@word
def expand_dims(x: Any, axis: int) -> Any:
    """x with an axis of one inserted."""

    def apply(a: TracedArray) -> TracedArray:
        at = axis_of(axis, len(a.shape) + 1)
        return emit("reshape", a, shape=(*a.shape[:at], 1, *a.shape[at:]))

    return _on_array(apply, x, "ff.expand_dims")


@word
def squeeze(x: Any, axis: Any = None, dim: Any = None) -> Any:
    """x without its axes of one (or without those named)."""
    axis = _either(axis, dim)

    def apply(a: TracedArray) -> TracedArray:
        rank = len(a.shape)
        chosen = range(rank) if axis is None else [axis_of(i, rank) for i in (axis if isinstance(axis, tuple) else (axis,))]
        return emit("reshape", a, shape=tuple(n for d, n in enumerate(a.shape) if not (d in chosen and n == 1)))

    return _on_array(apply, x, "ff.squeeze")


@word
def broadcast_to(x: Any, *shape: Any) -> Any:
    """x broadcast to a shape; -1 keeps an axis."""
    shape = _shape(shape)

    def apply(a: TracedArray) -> TracedArray:
        own = (1,) * (len(shape) - len(a.shape)) + a.shape
        target = tuple(m if n == -1 else n for n, m in zip(shape, own, strict=False))
        if _broadcast_shape([a.shape, target]) != target:
            raise ShapeError(f"cannot broadcast {a.value.type} to {target}")
        return TracedArray(current().broadcast(a.value, target))

    return _on_array(apply, x, "ff.broadcast_to")


@word
def flip(x: Any, axis: Any = None, dims: Any = None) -> Any:
    """x reversed along an axis (all axes when none is given)."""
    axis = _either(axis, dims)

    def apply(a: TracedArray) -> TracedArray:
        rank = len(a.shape)
        axes = range(rank) if axis is None else (axis if isinstance(axis, (tuple, list)) else (axis,))
        return emit("flip", a, axes=tuple(sorted(axis_of(i, rank) for i in axes)))

    return _on_array(apply, x, "ff.flip")


@word
def roll(x: Any, shift: int, axis: Any = None, dims: Any = None) -> Any:
    """x rotated along an axis: element i moves to i + shift. Without an axis a vector rotates; other arrays name one."""
    axis = _either(axis, dims)

    def apply(a: TracedArray) -> TracedArray:
        if axis is None and len(a.shape) != 1:
            raise AxisError("ff.roll of an array of rank 2 or more names its axis")
        d = axis_of(0 if axis is None else axis, len(a.shape))
        n = a.shape[d]
        by = shift % n if n else 0
        return concat(_slice(a, d, n - by, n), _slice(a, d, 0, n - by), axis=d) if by else a

    return _on_array(apply, x, "ff.roll")


def _slice(a: TracedArray, axis: int, start: int, stop: int, stride: int = 1) -> TracedArray:
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
    return concat(*[expand_dims(a, axis) for a in arrays], axis=axis)


def _stack_list(xs: TracedList) -> Any:
    if len(xs._sizes) != 1 or not isinstance(xs.sizes[0], Constant):
        raise SizeError(f"a list becomes an array where its size is known; the size of this one is {xs.sizes[0]}, known per call only")
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
def chunk(x: Any, chunks: int, axis: int = -1, dim: Any = None) -> Any:
    """x cut into equal pieces along an axis (the last when left out).

    Raises:
        ShapeError: the axis does not divide into so many pieces.
    """
    axis = axis if dim is None else dim
    x = plain(x)
    if isinstance(x, TracedList):
        return unzip(map_all(x, lambda element: chunk(element, chunks, axis)))
    if isinstance(x, Unknown):
        return tuple(Unknown() for _ in range(chunks))
    d = axis_of(axis, len(_array(x, "ff.chunk").shape))
    n = x.shape[d]
    if n % chunks:
        raise ShapeError(f"an axis of {n} does not divide into {chunks} equal chunks")
    return tuple(_slice(x, d, i * n // chunks, (i + 1) * n // chunks) for i in range(chunks))


@word
def split(x: Any, sizes: Any, axis: int = -1, dim: Any = None) -> Any:
    """x cut along an axis into pieces of the given sizes (or all of one size)."""
    axis = axis if dim is None else dim
    x = _array(plain(x), "ff.split")
    d = axis_of(axis, len(x.shape))
    n = x.shape[d]
    parts = list(sizes) if isinstance(sizes, (tuple, list)) else [min(sizes, n - i) for i in range(0, n, sizes)]
    if sum(parts) != n:
        raise ShapeError(f"pieces of {parts} do not make up an axis of {n}")
    starts = np.cumsum([0, *parts])
    return tuple(_slice(x, d, int(a), int(z)) for a, z in zip(starts[:-1], starts[1:], strict=True))


def _array(x: Any, name: str) -> Any:
    if not isinstance(x, (TracedArray, Unknown)):
        raise StructureError(f"{name} takes an array; got {types.show(type_of(x))}")
    return x


# --- indexing ---------------------------------------------------------------------------------------------------------


def index_array(x: Any, key: Any) -> Any:
    """``x[key]``: whole numbers, slices, None, Ellipsis, and one computed index."""
    keys = list(key) if isinstance(key, tuple) else [key]
    rank, used = len(x.shape), sum(k is not None and k is not Ellipsis for k in keys)
    if used > rank:
        raise AxisError(f"{used} indices for an array of rank {rank}; steps are written per example, without a batch axis")
    if Ellipsis in [k for k in keys if not isinstance(k, Traced)]:
        at = next(i for i, k in enumerate(keys) if k is Ellipsis)
        keys[at : at + 1] = [slice(None)] * (rank - used)
    else:
        keys += [slice(None)] * (rank - used)
    starts, stops, strides, flips, shape, computed, axis = [], [], [], [], [], None, 0
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
            if computed is not None:
                raise StructureError("one computed index stands in a subscript; take the others first, or flatten the axes")
            if isinstance(k, (list, tuple, np.ndarray)) and np.asarray(k).dtype.kind in "iu":
                k = np.where(np.asarray(k) < 0, np.asarray(k) + n, k)
                if np.any((k < 0) | (k >= n)):
                    raise IndexRangeError(f"an index is out of range for an axis of {n} in {x.value.type}")
            index = plain(k)
            if not isinstance(index, TracedArray) or index.dtype.kind != "int":
                shown = types.show(type_of(index)) if isinstance(index, Traced) else repr(k)
                raise DtypeError(f"an index is a whole number, a slice, None or a computed ff.i64; got {shown}")
            computed = (axis, len(shape), index)
            shape.append(n)
            starts, stops, strides = [*starts, 0], [*stops, n], [*strides, 1]
        axis += 1
    if starts != [0] * rank or stops != list(x.shape) or any(s != 1 for s in strides):
        x = emit("slice", x, starts=tuple(starts), stops=tuple(stops), strides=tuple(strides))
    if flips:
        x = emit("flip", x, axes=tuple(flips))
    if x.shape != tuple(shape):
        x = emit("reshape", x, shape=tuple(shape))
    return x if computed is None else emit("gather", x, cast_to(computed[2], i64), axis=computed[1])


def index_list(xs: TracedList, key: Any) -> Any:
    """``xs[i]``: an element of a list, from the end where i is negative; a list of indices gives a list."""
    if len(xs._sizes) != 1:
        raise StructureError("a grid is not indexed; map over it, or take its windows with ff.window_map")
    if isinstance(key, slice) or key is None or key is Ellipsis or isinstance(key, tuple):
        raise StructureError("a list is indexed by one number; slices of lists are written with ff.window_map(…, padding=…) or ff.shift")
    size, scope = xs.sizes[0], current()
    if isinstance(key, (int, np.integer)):
        index = TracedArray(scope.index_constant(int(key)))
        if key < 0:
            index = add(TracedArray(scope.length(size)), index)
    else:
        index = plain(key)
        if isinstance(index, TracedList):
            return map_list(index, lambda i: index_list(xs, i))
        index = cast_to(_array(index, "an index"), i64)
        if index.shape or index.dtype.kind != "int":
            raise DtypeError(f"the index of a list is one whole number; got {index.value.type}")
    values = [scope("element", v, index.value) for v in leaves(xs.content)]
    return with_leaves(xs.content, iter(values))


@word
def take(x: Any, index: Any, axis: int = 0) -> Any:
    """Rows of a table (along an axis) at computed indices."""
    return lifted(
        lambda a, i: Unknown() if isinstance(a, Unknown) or isinstance(i, Unknown) else emit("gather", a, cast_to(i, i64), axis=axis_of(axis, len(a.shape))),
        (x, index),
        "ff.take",
    )


@word
def take_along_axis(x: Any, index: Any, axis: int) -> Any:
    """One element per index along an axis, NumPy's `take_along_axis`."""
    return lifted(lambda a, i: emit("gather_along", a, cast_to(i, i64), axis=axis_of(axis, len(a.shape))), (x, index), "ff.take_along_axis")


@word
def one_hot(index: Any, classes: int) -> Any:
    """A vector of `classes` with a one at each index."""
    return lifted(
        lambda i: i if isinstance(i, Unknown) else cast_to(equal(expand_dims(i, -1), np.arange(classes)), current().program.float_dtype),
        (index,),
        "ff.one_hot",
    )


# --- contractions -----------------------------------------------------------------------------------------------------


@word
def matmul(x: Any, y: Any) -> Any:
    """``x @ y``: vectors, matrices, and batches of matrices, as NumPy has it; lifts over lists."""
    return lifted(_matmul, (x, y), "@")


def _matmul(x: Any, y: Any) -> Any:
    if isinstance(x, Unknown) or isinstance(y, Unknown):
        if isinstance(y, TracedArray) and len(y.shape) == 2:
            return matmul(zeros(y.shape[0]), y)
        if isinstance(x, TracedArray) and len(x.shape) == 2:
            return matmul(x, zeros(x.shape[1]))
        return Unknown()
    if not x.shape or not y.shape:
        raise ShapeError("@ takes vectors and matrices, not numbers; multiply with *")
    if x.shape[-1] != y.shape[-2 if len(y.shape) > 1 else 0]:
        raise ShapeError(f"{x.value.type} @ {y.value.type}: {x.shape[-1]} does not fit {y.shape[-2 if len(y.shape) > 1 else 0]}")
    batch = "abcdefgh"
    x_lead, y_lead = max(0, len(x.shape) - 2), max(0, len(y.shape) - 2)
    lead = batch[: max(x_lead, y_lead)]
    x_labels = lead[len(lead) - x_lead :] + ("ik" if len(x.shape) > 1 else "k")
    y_labels = lead[len(lead) - y_lead :] + ("kj" if len(y.shape) > 1 else "k")
    out = lead + ("i" if len(x.shape) > 1 else "") + ("j" if len(y.shape) > 1 else "")
    x, x_labels = _drop_ones(x, x_labels, y, y_labels, lead)
    y, y_labels = _drop_ones(y, y_labels, x, x_labels, lead)
    return einsum(f"{x_labels},{y_labels}->{out}", x, y)


def _drop_ones(x: TracedArray, labels: str, other: TracedArray, other_labels: str, lead: str) -> tuple[TracedArray, str]:
    """Drop batch axes of one that the other has in full: they broadcast."""
    extents = dict(zip(other_labels, other.shape, strict=True))
    kept = [not (label in lead and n == 1 and extents.get(label, 1) != 1) for label, n in zip(labels, x.shape, strict=True)]
    if all(kept):
        return x, labels
    shape = tuple(n for n, keep in zip(x.shape, kept, strict=True) if keep)
    return emit("reshape", x, shape=shape), "".join(label for label, keep in zip(labels, kept, strict=True) if keep)


@word
def einsum(spec: str, *operands: Any) -> Any:
    """Contraction by labels, ``einsum("hij,hj->hi", U, h)``; ``...`` stands for further axes. Lifts over lists."""
    if len(operands) == 1 and isinstance(operands[0], (tuple, list)):
        operands = tuple(operands[0])
    return lifted(lambda *arrays: _einsum(spec.replace(" ", ""), arrays), operands, "ff.einsum")


def _einsum(spec: str, arrays: Sequence[Any]) -> Any:
    if any(isinstance(a, Unknown) for a in arrays):
        return Unknown()
    inputs, _, output = spec.partition("->")
    labels = inputs.split(",")
    if len(labels) != len(arrays):
        raise ShapeError(f"einsum {spec!r} names {len(labels)} operands; {len(arrays)} are given")
    if "..." in spec:
        labels, output = _expand_ellipsis(spec, labels, output, arrays)
    elif "->" not in spec:
        output = "".join(sorted(c for c in set(inputs) if inputs.count(c) == 1 and c.isalpha()))
    extents: dict[str, int] = {}
    for names, a in zip(labels, arrays, strict=True):
        if len(names) != len(a.shape):
            raise ShapeError(f"einsum {spec!r}: {names!r} does not fit {a.value.type}; shapes are those of one example")
        for label, n in zip(names, a.shape, strict=True):
            if extents.setdefault(label, n) != n:
                raise ShapeError(f"einsum {spec!r}: the axis {label!r} is {extents[label]} in one operand and {n} in another")
    if set(output) - set(extents) or len(set(output)) != len(output):
        raise ShapeError(f"einsum {spec!r}: the output names axes that the operands do not have, or one twice")
    left, left_labels = _diagonal(arrays[0], labels[0])
    for i in range(1, len(arrays)):
        right, right_labels = _diagonal(arrays[i], labels[i])
        later = set(output).union(*labels[i + 1 :]) if i + 1 < len(labels) else set(output)
        left, left_labels = _sum_labels(left, left_labels, later | set(right_labels))
        right, right_labels = _sum_labels(right, right_labels, later | set(left_labels))
        common = promote(left.dtype, right.dtype)
        kept = "".join(c for c in dict.fromkeys(left_labels + right_labels) if c in later)
        kept = output if i + 1 == len(arrays) else kept
        left = emit("contract", cast_to(left, common), cast_to(right, common), spec=f"{left_labels},{right_labels}->{kept}")
        left_labels = kept
    left, left_labels = _sum_labels(left, left_labels, set(output))
    if left_labels != output:
        left = emit("transpose", left, permutation=tuple(left_labels.index(c) for c in output))
    return left


def _expand_ellipsis(spec: str, labels: list[str], output: str, arrays: Sequence[TracedArray]) -> tuple[list[str], str]:
    spare = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in spec]
    counts = [len(a.shape) - len(names.replace("...", "")) if "..." in names else 0 for names, a in zip(labels, arrays, strict=True)]
    most = max(counts)
    free = "".join(spare[:most])
    out = [names.replace("...", free[most - count :]) for names, count in zip(labels, counts, strict=True)]
    if "->" not in spec:
        joined = "".join(out)
        return out, free + "".join(sorted(c for c in set(joined) if joined.count(c) == 1 and c not in free))
    return out, output.replace("...", free)


def _diagonal(a: TracedArray, labels: str) -> tuple[TracedArray, str]:
    """A label that stands twice in an operand: its diagonal."""
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            n, rank = a.shape[i], len(a.shape)
            mask = current().broadcast(current().constant(np.eye(n, dtype=bool), boolean), a.shape, (i, j))
            none = current().constant(0, a.dtype, a.shape)
            a = emit("reduce_sum", emit("select", TracedArray(mask), a, TracedArray(none)), axes=(j,))
            labels = labels[:j] + labels[j + 1 :]
            assert len(labels) == rank - 1
    return a, labels


def _sum_labels(a: TracedArray, labels: str, wanted: set[str]) -> tuple[TracedArray, str]:
    axes = tuple(i for i, label in enumerate(labels) if label not in wanted)
    return (emit("reduce_sum", a, axes=axes), "".join(c for c in labels if c in wanted)) if axes else (a, labels)


@word
def dot(x: Any, y: Any) -> Any:
    """The inner product of two vectors."""
    return matmul(x, y)


@word
def outer(x: Any, y: Any) -> Any:
    """The outer product of two vectors."""
    return einsum("i,j->ij", x, y)


# --- reductions -------------------------------------------------------------------------------------------------------


def _axes(axis: Any, rank: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(rank))
    return tuple(sorted(axis_of(a, rank) for a in (axis if isinstance(axis, (tuple, list)) else (axis,))))


def over_list(xs: TracedList, function: Callable[[Any, Any], Any], axis: Any, name: str) -> Any:
    """Reduce every leaf of a list over all of the list's axes, with a function of (scope, value)."""
    if axis is not None:
        raise AxisError(f"ff.{name} of a list reduces the list and takes no axis=; inside ff.map it reduces an element's axes")
    scope = current()
    values = []
    for value in leaves(xs.content):
        for _ in xs._sizes:
            value = function(scope, value)
        values.append(value)
    return with_leaves(xs.content, iter(values), keep_reps=False)


def _reduction(name: str, op: str, list_op: str, doc: str, one_axis: bool = False) -> Expression:
    def function(x: Any, axis: Any = None, dim: Any = None, keepdims: bool = False, keepdim: bool = False) -> Any:
        axis = _either(axis, dim)
        x = plain(x)
        if isinstance(x, Unknown):
            return x
        if isinstance(x, TracedList):
            if any(v.type.dtype is boolean for v in leaves(x.content)):
                x = map_all(x, lambda element: cast_to(element, i64))
            return over_list(x, lambda scope, value: scope.reduce(list_op, value), axis, name)
        _array(x, f"ff.{name}")
        if x.dtype is boolean:
            x = cast_to(x, i64)
        axes = _axes(axis, len(x.shape))
        if not axes:
            return x
        shape = tuple(1 if d in axes else n for d, n in enumerate(x.shape))
        if one_axis:
            for a in reversed(axes):
                x = emit(op, x, axes=(a,))
        else:
            x = emit(op, x, axes=axes)
        return emit("reshape", x, shape=shape) if keepdims or keepdim else x

    function.__name__ = name
    function.__doc__ = doc
    return word(function)


sum_ = _reduction("sum", "reduce_sum", "sum", "The sum of a list's elements; of an array's over all axes, or those named.")
max_ = _reduction("max", "reduce_max", "max", "The largest element, of a list elementwise. Equal ones share the gradient.")
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
def mean(x: Any, axis: Any = None, dim: Any = None, keepdims: bool = False, keepdim: bool = False) -> Any:
    """The mean of a list's elements (an error where it is empty), or of an array's."""
    axis = _either(axis, dim)
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
    total = sum_(x, axis, keepdims=keepdims or keepdim)
    return divide(total, float(math.prod(x.shape[d] for d in _axes(axis, len(x.shape)))))


@word
def var(x: Any, axis: Any = None, dim: Any = None, correction: int = 0, keepdims: bool = False, keepdim: bool = False, unbiased: bool | None = None) -> Any:
    """The variance: the mean square of what is left when the mean is taken away; `correction` is subtracted from the count."""
    axis = _either(axis, dim)
    correction = correction if unbiased is None else int(unbiased)
    x = plain(x)
    if isinstance(x, TracedList):
        return mean(square(subtract(x, mean(x, axis))), axis)
    keep = keepdims or keepdim
    count = math.prod(x.shape[d] for d in _axes(axis, len(x.shape)))
    centred = subtract(x, mean(x, axis, keepdims=True))
    return divide(sum_(square(centred), axis, keepdims=keep), float(max(0, count - correction)))


@word
def std(x: Any, axis: Any = None, dim: Any = None, correction: int = 0, keepdims: bool = False) -> Any:
    """The square root of the variance."""
    return sqrt(var(x, axis, dim, correction, keepdims))


@word
def norm(x: Any, axis: Any = None, dim: Any = None, keepdims: bool = False) -> Any:
    """The Euclidean norm."""
    return sqrt(sum_(square(x), _either(axis, dim), keepdims=keepdims))


def _default_last(x: Any, axis: Any) -> Any:
    return -1 if axis is None and isinstance(x, TracedArray) else axis


@word
def logsumexp(x: Any, axis: Any = None, dim: Any = None, keepdims: bool = False, keepdim: bool = False) -> Any:
    """``log Σ exp x``, without overflow: over a list, or over an array's axis (the last when left out)."""
    x = plain(x)
    axis = _default_last(x, _either(axis, dim))
    if isinstance(x, Unknown):
        return x
    if isinstance(x, TracedList):
        top = _finite(stop_gradient(max_(x)))
        return add(log(sum_(exp(subtract(x, top)))), top)
    x = _float_array(x)
    top = _finite(stop_gradient(max_(x, axis, keepdims=True)))
    out = add(log(sum_(exp(subtract(x, top)), axis, keepdims=True)), top)
    if keepdims or keepdim:
        return out
    axes = _axes(axis, len(x.shape))
    return emit("reshape", out, shape=tuple(n for d, n in enumerate(x.shape) if d not in axes))


def _float_array(x: Any) -> Any:
    return x if x.dtype.is_float else cast_to(x, current().program.float_dtype)


def _finite(top: Any) -> Any:
    """A maximum that may be -inf (nothing allowed by a mask) counts as zero, so that it is not subtracted from itself."""
    return where(isfinite(top), top, 0.0)


@word
def softmax(x: Any, axis: Any = None, dim: Any = None) -> Any:
    """``exp x / Σ exp x``, over a list, or over an array's axis (the last when left out)."""
    x = plain(x)
    axis = _default_last(x, _either(axis, dim))
    if isinstance(x, Unknown):
        return x
    if isinstance(x, TracedList):
        raised = exp(subtract(x, stop_gradient(max_(x))))
        return divide(raised, sum_(raised))
    x = _float_array(x)
    raised = exp(subtract(x, stop_gradient(max_(x, axis, keepdims=True))))
    return divide(raised, sum_(raised, axis, keepdims=True))


@word
def log_softmax(x: Any, axis: Any = None, dim: Any = None) -> Any:
    """``x − log Σ exp x``."""
    x = plain(x)
    axis = _default_last(x, _either(axis, dim))
    if isinstance(x, Unknown):
        return x
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
            raise DtypeError(f"the target of cross_entropy is a class, ff.i64; got {y.value.type}")
        if x.shape[:-1] != y.shape or not x.shape:
            raise ShapeError(f"cross_entropy takes logits [..., classes] and targets [...] of one example; got {x.value.type} and {y.value.type}")
        likelihood = log_softmax(x, axis=-1)
        chosen = emit("gather_along", likelihood, expand_dims(cast_to(y, i64), -1), axis=len(x.shape) - 1)
        return negative(emit("reshape", chosen, shape=y.shape))

    return lifted(apply, (logits, target), "ff.cross_entropy")


def _choice(name: str, prepare: Callable[[Any], Any]) -> Expression:
    def function(x: Any, axis: Any = None, dim: Any = None) -> Any:
        axis = _either(axis, dim)

        def apply(a: TracedArray) -> Any:
            if axis is None and len(a.shape) != 1:
                a = reshape(a, -1)
            return emit("argmax", prepare(a), axis=axis_of(0 if axis is None else axis, len(a.shape)))

        return _on_array(apply, x, f"ff.{name}")

    function.__name__ = name
    function.__doc__ = f"The index of the {'largest' if name == 'argmax' else 'smallest'} element along an axis (of all when left out); the first of equal ones."
    return word(function)


argmax, argmin = _choice("argmax", lambda a: a), _choice("argmin", negative)


@word
def argsort(x: Any, axis: int = -1, dim: Any = None, descending: bool = False) -> Any:
    """Indices that sort along an axis; equal elements keep their order."""
    axis = axis if dim is None else dim
    return _on_array(lambda a: emit("argsort", negative(a) if descending else a, axis=axis_of(axis, len(a.shape))), x, "ff.argsort")


@word
def sort(x: Any, axis: int = -1, dim: Any = None, descending: bool = False) -> Any:
    """x sorted along an axis."""
    return take_along_axis(x, argsort(x, axis, dim, descending), axis if dim is None else dim)


@word
def top_k(x: Any, k: int, axis: int = -1) -> Any:
    """The k largest elements along an axis, largest first, and their indices."""

    def apply(a: TracedArray) -> Any:
        d = axis_of(axis, len(a.shape))
        if not 0 < k <= a.shape[d]:
            raise ShapeError(f"top_k of an axis of {a.shape[d]} takes k from 1 to {a.shape[d]}; got {k}")
        index = _slice(argsort(a, d, descending=True), d, 0, k)
        return take_along_axis(a, index, d), index

    return apply(_array(plain(x), "ff.top_k"))


def _cumulative(name: str, op: str) -> Expression:
    def function(x: Any, axis: Any = None, dim: Any = None) -> Any:
        axis = _either(axis, dim)
        return _on_array(
            lambda a: emit(op, a, axis=axis_of(0 if axis is None and len(a.shape) == 1 else axis, len(a.shape)), reverse=False, exclusive=False),
            x,
            f"ff.{name}",
        )

    function.__name__ = name
    function.__doc__ = f"The running {'sum' if name == 'cumsum' else 'product'} along an axis; along a list it is a scan."
    return word(function)


cumsum, cumprod = _cumulative("cumsum", "cumulative_sum"), _cumulative("cumprod", "cumulative_product")


@word
def tril(x: Any, k: int = 0) -> Any:
    """The lower triangle of a matrix, zeros above the k-th diagonal."""
    return _on_array(lambda a: where(np.tril(np.ones(a.shape[-2:], bool), k), a, 0), x, "ff.tril")


@word
def triu(x: Any, k: int = 0) -> Any:
    """The upper triangle of a matrix, zeros below the k-th diagonal."""
    return _on_array(lambda a: where(np.triu(np.ones(a.shape[-2:], bool), k), a, 0), x, "ff.triu")


# --- products of lists ------------------------------------------------------------------------------------------------


@word
def zip_(*lists: Any) -> TracedList:
    """Lists of one size as a list of tuples: ``[a], [b] → [(a, b)]``.

    Raises:
        StructureError: something is no list. SizeError: the sizes can never agree (otherwise each call checks them).
    """
    if len(lists) == 1:
        inner = plain(lists[0])
        if isinstance(inner, tuple):
            lists = inner
    lists = tuple(plain(xs) for xs in lists)
    for xs in lists:
        if not isinstance(xs, TracedList):
            raise StructureError(f"ff.zip takes lists; got {types.show(type_of(xs))}")
    unify_lists(lists, "ff.zip")
    first = lists[0]
    return TracedList(first.sizes, tuple(xs.content for xs in lists), first.grid)


@word
def unzip(xs: Any) -> Any:
    """A list of tuples as a tuple of lists: ``[(a, b)] → ([a], [b])``."""
    xs = plain(xs)
    content = xs.content if isinstance(xs, TracedList) else None
    content = content.content if isinstance(content, NamedProduct) else content
    if isinstance(content, Mapping):
        return {name: TracedList(xs._sizes, part, xs.grid) for name, part in content.items()}
    if not isinstance(content, tuple):
        raise StructureError(f"ff.unzip takes a list of tuples; got {types.show(type_of(xs))}")
    return types.rebuild(content, iter([])) if not content else _retuple(content, [TracedList(xs._sizes, part, xs.grid) for part in content])


def _retuple(like: Any, parts: list[Any]) -> Any:
    return type(like)(*parts) if types.is_namedtuple(like) else tuple(parts)


# --- operators and methods --------------------------------------------------------------------------------------------


def _getitem(x: Any, key: Any) -> Any:
    x = plain(x)
    if isinstance(x, TracedList):
        return index_list(x, key)
    if isinstance(x, Unknown):
        return Unknown()
    return index_array(_array(x, "indexing"), key)


def _iterate(x: Any) -> Any:
    x = plain(x)
    if isinstance(x, TracedList):
        size = x.sizes[0]
        count = x.static_length if x.static_length is not None else size.value if isinstance(size, Constant) else None
        if count is None or len(x._sizes) != 1:
            raise TraceError("a list is not walked by a Python loop, since its length is known per call only; use ff.map, ff.fold or ff.scan")
        return iter([index_list(x, i) for i in range(count)])
    if isinstance(x, TracedTree):
        raise TraceError("a tree is not walked by a Python loop; use ff.cata")
    if not x.shape:
        raise StructureError("a number is not iterated")
    return iter([index_array(x, i) for i in range(x.shape[0])])


def _length_of(x: Any) -> int:
    x = plain(x)
    if isinstance(x, TracedArray) and x.shape:
        return x.shape[0]
    if isinstance(x, TracedList) and x.static_length is not None:
        return x.static_length
    raise TraceError("len() of a list is known per call only; ff.length(xs) gives it as a traced number")


def _reflected(function: Any) -> Callable[[Any, Any], Any]:
    return lambda self, other: function(other, self)


def _operator(function: Any) -> Callable[..., Any]:
    return lambda self, *others, **keywords: function(self, *others, **keywords)


_OPERATORS: dict[str, Any] = {
    "__add__": add, "__sub__": subtract, "__mul__": multiply, "__truediv__": divide, "__pow__": power, "__mod__": remainder,
    "__floordiv__": floor_divide, "__matmul__": matmul, "__lt__": less, "__le__": less_equal, "__gt__": greater,
    "__ge__": greater_equal, "__eq__": equal, "__ne__": not_equal, "__neg__": negative, "__abs__": abs_, "__getitem__": _getitem,
    "__iter__": _iterate, "__len__": _length_of, "__invert__": logical_not, "__and__": logical_and, "__or__": logical_or,
    "__pos__": Expression(lambda x: x, "pos"),
}  # fmt: skip
_REFLECTED = {"__radd__": add, "__rsub__": subtract, "__rmul__": multiply, "__rtruediv__": divide, "__rpow__": power,
              "__rmod__": remainder, "__rfloordiv__": floor_divide, "__rmatmul__": matmul, "__rand__": logical_and, "__ror__": logical_or}  # fmt: skip

for _class in (TracedArray, TracedList, Unknown):
    for _name, _function in _OPERATORS.items():
        if not (_class is Unknown and _name in ("__iter__", "__len__")):
            setattr(_class, _name, _operator(_function))
    for _name, _function in _REFLECTED.items():
        setattr(_class, _name, _reflected(_function))
    _class.__hash__ = object.__hash__  # type: ignore[method-assign]
for _name, _function in _OPERATORS.items():
    if _name not in ("__eq__", "__ne__"):  # a parameter is a key of dictionaries
        setattr(Parameter, _name, _operator(_function))
for _name, _function in _REFLECTED.items():
    setattr(Parameter, _name, _reflected(_function))

METHODS: dict[str, Any] = {
    "sum": sum_, "mean": mean, "max": max_, "min": min_, "prod": prod, "var": var, "std": std, "norm": norm, "reshape": reshape,
    "transpose": transpose, "swapaxes": swapaxes, "squeeze": squeeze, "clip": clip, "clamp": clip, "exp": exp, "log": log,
    "sqrt": sqrt, "rsqrt": rsqrt, "tanh": tanh, "sigmoid": sigmoid, "relu": relu, "abs": abs_, "square": square, "softmax": softmax,
    "log_softmax": log_softmax, "logsumexp": logsumexp, "argmax": argmax, "argmin": argmin, "cumsum": cumsum, "cumprod": cumprod,
    "dot": dot, "matmul": matmul, "chunk": chunk, "roll": roll, "flip": flip, "pow": power, "add": add, "sub": subtract,
    "mul": multiply, "div": divide, "neg": negative, "sin": sin, "cos": cos, "round": round_, "floor": floor, "ceil": ceil,
    "expand_dims": expand_dims, "astype": cast, "broadcast_to": broadcast_to, "detach": stop_gradient, "amax": amax, "amin": amin,
}  # fmt: skip
for _class in (TracedArray, TracedList, Parameter):
    for _name, _function in METHODS.items():
        if not hasattr(_class, _name):
            setattr(_class, _name, _operator(_function))


def _rank(x: Any) -> int:
    return len(x.shape)


def _transposed(x: Any) -> Any:
    return transpose(x)


for _class in (TracedArray, Parameter):
    _class.T = property(_transposed)
    _class.mT = property(lambda x: swapaxes(x, -1, -2))
    _class.ndim = property(_rank)
    _class.dim = lambda self: len(self.shape)
    _class.size = lambda self, axis=None: self.shape if axis is None else self.shape[axis_of(axis, len(self.shape))]
    _class.view = lambda self, *shape: reshape(self, *shape)
    _class.unsqueeze = lambda self, dim: expand_dims(self, dim)
    _class.permute = lambda self, *axes: transpose(self, *axes)
    _class.t = lambda self: transpose(self)
    _class.contiguous = lambda self, *_, **__: self
    _class.flatten = lambda self, start_dim=0, end_dim=-1: flatten(self, start_dim, end_dim)
    _class.item = lambda self: float(self)


@word
def flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Axes from `start_dim` to `end_dim` made one."""

    def apply(a: TracedArray) -> TracedArray:
        rank = len(a.shape)
        if not rank:
            return reshape(a, 1)
        i, j = axis_of(start_dim, rank), axis_of(end_dim, rank)
        return reshape(a, *a.shape[:i], math.prod(a.shape[i : j + 1]), *a.shape[j + 1 :])

    return _on_array(apply, x, "ff.flatten")


