"""Elementwise words: operators, activations, casts, selections."""

from __future__ import annotations

import math
from typing import Any

from ..errors import DtypeError
from ..expression import Expression
from ..scope import current
from ..trace import plain, traced
from ..types import DType, boolean
from ..values import TracedArray, Unknown
from .lifting import aligned, broadcast_shape, elementwise, emit, is_number, lifted, word


def unary(name: str, op: str | None = None, floats: bool = True, doc: str = "") -> Expression:
    def function(x: Any) -> Any:
        return elementwise(op or name, (x,), f"ff.{name}", floats)

    function.__name__ = name
    function.__doc__ = f"{doc or name} of each element; lifts over lists and grids."
    return word(function)


exp, expm1, log, log1p = unary("exp"), unary("expm1"), unary("log"), unary("log1p")
sqrt, rsqrt, sin, cos = unary("sqrt"), unary("rsqrt"), unary("sin"), unary("cos")
arctan, tanh, sigmoid, erf = unary("arctan"), unary("tanh"), unary("sigmoid"), unary("erf")
floor, ceil, round_ = unary("floor"), unary("ceil"), unary("round")
abs_, sign, negative = (
    unary("abs", floats=False),
    unary("sign", floats=False),
    unary("negative", "neg", floats=False),
)
isfinite = unary("isfinite", "is_finite")
logical_not = unary("logical_not", floats=False)


def binary(name: str, op: str | None = None, floats: bool = False) -> Expression:
    def function(x: Any, y: Any) -> Any:
        return elementwise(op or name, (x, y), f"ff.{name}", floats)

    function.__name__ = name
    function.__doc__ = f"{name} of two values, NumPy's broadcasting; lifts over lists and grids of one size."
    return word(function)


add, subtract, multiply, divide = (
    binary("add"),
    binary("subtract", "sub"),
    binary("multiply", "mul"),
    binary("divide", "div", True),
)
maximum, minimum, arctan2 = binary("maximum"), binary("minimum"), binary("arctan2", floats=True)
equal, not_equal, less, less_equal = (
    binary("equal", "eq"),
    binary("not_equal", "ne"),
    binary("less", "lt"),
    binary("less_equal", "le"),
)
greater, greater_equal = binary("greater", "gt"), binary("greater_equal", "ge")
logical_and, logical_or = binary("logical_and"), binary("logical_or")


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
        full = aligned((a, b))
        if not full:
            return Unknown()
        return floor(emit("div", *full)) if full[0].dtype.is_float else emit("floor_divide", *full)

    return lifted(apply, (_keep(x), _keep(y)), "ff.floor_divide")


def _keep(x: Any) -> Any:
    return traced(x)


def _division(x: Any, y: Any, floating: str, whole: str, where: str) -> Any:
    def apply(a: Any, b: Any) -> Any:
        full = aligned((a, b))
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
        mixed = [a if is_number(a) else next(found) for a in (x, y)]
        full = aligned(mixed)
        if not full:
            return Unknown()
        if isinstance(mask, Unknown):
            mask = traced(True)
        if mask.dtype is not boolean:
            raise DtypeError(f"the condition of ff.where is bool; got {mask.dtype}. Compare it, as in x > 0")
        shape = broadcast_shape([mask.shape, full[0].shape])
        spread = [TracedArray(current().broadcast(a.value, shape)) for a in (mask, *full)]
        return emit("select", *spread)

    return lifted(apply, [condition, *(a for a in (x, y) if not is_number(a))], "ff.where")


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
    # Written with max(x, 0) and |x| its parts have a kink at 0 where the whole has slope 1/2: so the branches are
    # chosen by the sign, and each is smooth through 0.
    positive = greater(x, 0)
    near = where(positive, negative(x), x)
    return add(where(positive, x, 0.0), log1p(exp(near)))


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
    return lifted(
        lambda a: a if isinstance(a, Unknown) else emit("cast", a, dtype=dtype, pinned=dtype.is_float), (x,), "ff.cast"
    )


@word
def stop_gradient(x: Any) -> Any:
    """x, through which no derivative passes."""
    return lifted(lambda a: a if isinstance(a, Unknown) else emit("stop_gradient", a), (x,), "ff.stop_gradient")
