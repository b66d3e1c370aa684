"""Elementwise primitives: the output has the inputs' shape; broadcasting is made explicit before them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import DtypeError, ShapeError
from ..records import Attributes, Primitive, Refusal, Sample, register
from ..types import DType, ListType, array, boolean, f32, f64, i64


def no_lists(name: str, types: Sequence[ListType]) -> None:
    """Primitives take arrays; only combinators touch lists."""
    for type_ in types:
        if type_.axes:
            raise ShapeError(f"{name} takes arrays, not a list of {type_.element}: put it inside ff.map")


def _same(
    name: str, kinds: str, output: DType | None = None
) -> Callable[[Sequence[ListType], Attributes], tuple[ListType, ...]]:
    def infer(types: Sequence[ListType], attributes: Attributes) -> tuple[ListType, ...]:
        no_lists(name, types)
        first = types[0]
        for type_ in types:
            if type_ != first:
                raise ShapeError(f"{name} takes arrays of one dtype and shape; got {' and '.join(map(str, types))}")
        if first.dtype.kind[0] not in kinds:
            raise DtypeError(f"{name} does not take {first.dtype}; cast it with ff.cast")
        return (first if output is None else first.with_dtype(output),)

    return infer


def _pair(kinds: str) -> tuple[Refusal, ...]:
    """A binary primitive refuses two shapes, and a dtype that it has no meaning for."""
    wrong = {"f": array(i64, 3), "fi": array(boolean, 3), "b": array(f32, 3), "fib": None}[kinds]
    shapes = Refusal((array(f32, 3), array(f32, 4)), {}, ShapeError, "one dtype and shape")
    return (shapes,) if wrong is None else (shapes, Refusal((wrong, wrong), {}, DtypeError, "cast it"))


def unary(
    name: str,
    numpy: Callable[[Any], Any],
    adjoint: Callable[..., Any] | None,
    kinds: str = "f",
    domain: tuple[float, float] = (-2.0, 2.0),
    output: DType | None = None,
) -> None:
    """Register an elementwise primitive of one input; ``adjoint(b, x, y, ct)`` builds the input's cotangent."""

    def rule(b: Any, equation: Any, cts: Sequence[Any]) -> Sequence[Any]:
        return (adjoint(b, equation.inputs[0], equation.output, cts[0]),)

    dtypes = {"f": f64, "i": i64, "b": boolean}
    wrong = {"f": array(i64, 3), "fi": array(boolean, 3), "b": array(f32, 3), "fib": None}[kinds]
    register(
        Primitive(
            name,
            _same(name, kinds, output),
            numpy,
            rule if adjoint else None,
            "elementwise",
            samples=tuple(
                Sample((array(dtypes[k], *shape),), domain=domain) for k in kinds for shape in ((), (3,), (2, 3))
            ),
            refusals=() if wrong is None else (Refusal((wrong,), {}, DtypeError, "cast it"),),
        )
    )


def binary(
    name: str,
    numpy: Callable[[Any, Any], Any],
    adjoint: Callable[..., Any] | None,
    kinds: str = "fi",
    domain: tuple[float, float] = (-2.0, 2.0),
    output: DType | None = None,
) -> None:
    """Register an elementwise primitive of two inputs; ``adjoint(b, x, y, z, ct)`` gives both cotangents."""

    def rule(b: Any, equation: Any, cts: Sequence[Any]) -> Sequence[Any]:
        return adjoint(b, *equation.inputs, equation.output, cts[0])

    dtypes = {"f": f64, "i": i64, "b": boolean}
    samples = tuple(
        Sample((array(dtypes[k], *shape), array(dtypes[k], *shape)), domain=domain)
        for k in kinds
        if not (k == "i" and domain[0] > 0)
        for shape in ((), (3,), (2, 3))
    )
    register(
        Primitive(
            name,
            _same(name, kinds, output),
            numpy,
            rule if adjoint else None,
            "elementwise",
            samples=samples,
            refusals=_pair(kinds),
        )
    )


def _constant(b: Any, like: Any, value: float) -> Any:
    return b.constant(value, like.type.dtype, like.type.shape)


def _masked(b: Any, mask: Any, ct: Any) -> Any:
    """The cotangent where the mask holds, zero elsewhere (selected, never multiplied: NaN must not leak)."""
    return b("select", mask, ct, _constant(b, ct, 0.0))


_erf = np.frompyfunc(math.erf, 1, 1)


def _numpy_erf(x: Any) -> Any:
    x = np.asarray(x)
    return np.asarray(_erf(x), dtype=x.dtype) if x.ndim else x.dtype.type(math.erf(float(x)))


def _numpy_sigmoid(x: Any) -> Any:
    # Two branches, so that neither exponential overflows.
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0 / (1.0 + small), small / (1.0 + small)).astype(np.asarray(x).dtype)


unary("neg", np.negative, lambda b, x, y, ct: b("neg", ct), "fi")
unary("abs", np.abs, lambda b, x, y, ct: b("mul", ct, b("sign", x)), "fi")
unary("sign", np.sign, lambda b, x, y, ct: None, "fi")
unary("exp", np.exp, lambda b, x, y, ct: b("mul", ct, y))
unary("expm1", np.expm1, lambda b, x, y, ct: b("mul", ct, b("add", y, _constant(b, y, 1.0))))
unary("log", np.log, lambda b, x, y, ct: b("div", ct, x), domain=(0.1, 3.0))
unary("log1p", np.log1p, lambda b, x, y, ct: b("div", ct, b("add", x, _constant(b, x, 1.0))), domain=(-0.5, 3.0))
unary("sqrt", np.sqrt, lambda b, x, y, ct: b("div", b("mul", ct, _constant(b, y, 0.5)), y), domain=(0.1, 3.0))
unary(
    "rsqrt",
    lambda x: 1.0 / np.sqrt(x),
    lambda b, x, y, ct: b("mul", b("mul", ct, _constant(b, y, -0.5)), b("mul", y, b("mul", y, y))),
    domain=(0.1, 3.0),
)
unary("sin", np.sin, lambda b, x, y, ct: b("mul", ct, b("cos", x)))
unary("cos", np.cos, lambda b, x, y, ct: b("neg", b("mul", ct, b("sin", x))))
unary("arctan", np.arctan, lambda b, x, y, ct: b("div", ct, b("add", _constant(b, x, 1.0), b("mul", x, x))))
unary("tanh", np.tanh, lambda b, x, y, ct: b("mul", ct, b("sub", _constant(b, y, 1.0), b("mul", y, y))))
unary("sigmoid", _numpy_sigmoid, lambda b, x, y, ct: b("mul", ct, b("mul", y, b("sub", _constant(b, y, 1.0), y))))
unary(
    "erf",
    _numpy_erf,
    lambda b, x, y, ct: b(
        "mul", ct, b("mul", _constant(b, x, 2.0 / math.sqrt(math.pi)), b("exp", b("neg", b("mul", x, x))))
    ),
)
unary("floor", np.floor, lambda b, x, y, ct: None)
unary("ceil", np.ceil, lambda b, x, y, ct: None)
unary("round", np.round, lambda b, x, y, ct: None)
unary("is_finite", np.isfinite, None, output=boolean)
unary("logical_not", np.logical_not, None, "b")

binary("add", np.add, lambda b, x, y, z, ct: (ct, ct))
binary("sub", np.subtract, lambda b, x, y, z, ct: (ct, b("neg", ct)))
binary("mul", np.multiply, lambda b, x, y, z, ct: (b("mul", ct, y), b("mul", ct, x)))
binary(
    "div",
    np.divide,
    lambda b, x, y, z, ct: ((d := b("div", ct, y)), b("neg", b("mul", d, z))),
    "f",
    domain=(0.5, 2.0),
)


def _power_adjoint(b: Any, x: Any, y: Any, z: Any, ct: Any) -> Any:
    one, zero = _constant(b, y, 1.0), _constant(b, y, 0.0)
    # x^0 = 1 for every x: its slope is 0, also at x = 0 where 0 * 0^-1 would be NaN.
    flat = b("eq", y, zero)
    slope = b("mul", y, b("power", x, b("select", flat, one, b("sub", y, one))))
    # log x stands only where x > 0: 0^y has slope 0 in y for y > 0.
    positive = b("gt", x, zero)
    logarithm = b("select", positive, b("log", b("select", positive, x, one)), zero)
    return b("mul", ct, b("select", flat, zero, slope)), b("mul", ct, b("mul", z, logarithm))


binary("power", np.power, _power_adjoint, "f", domain=(0.3, 2.0))


def _extremum_adjoint(compare: str) -> Callable[..., Any]:
    def adjoint(b: Any, x: Any, y: Any, z: Any, ct: Any) -> Any:
        # Equal arguments share the cotangent in halves, as torch.maximum does.
        half = b("mul", ct, _constant(b, ct, 0.5))
        equal = b("eq", x, y)
        left = b("select", equal, half, _masked(b, b(compare, x, y), ct))
        right = b("select", equal, half, _masked(b, b(compare, y, x), ct))
        return left, right

    return adjoint


binary("maximum", np.maximum, _extremum_adjoint("gt"))
binary("minimum", np.minimum, _extremum_adjoint("lt"))
binary(
    "remainder",
    np.remainder,
    lambda b, x, y, z, ct: (ct, b("neg", b("mul", ct, b("floor", b("div", x, y))))),
    "f",
    domain=(0.5, 2.0),
)
binary(
    "arctan2",
    np.arctan2,
    lambda b, x, y, z, ct: (
        (s := b("div", ct, b("add", b("mul", x, x), b("mul", y, y)))) and b("mul", s, y),
        b("neg", b("mul", s, x)),
    ),
    "f",
    domain=(0.5, 2.0),
)


def _integer_division(name: str, numpy: Callable[[Any, Any], Any]) -> None:
    register(
        Primitive(
            name,
            _same(name, "i"),
            numpy,
            None,
            "elementwise",
            samples=(Sample((array(i64, 3), np.array([2, 3, 5]))),),
            refusals=(Refusal((array(f32, 3), array(f32, 3)), {}, DtypeError, "cast it"),),
        )
    )


_integer_division("floor_divide", np.floor_divide)
_integer_division("integer_remainder", np.remainder)
for _name, _numpy in (("eq", np.equal), ("ne", np.not_equal)):
    binary(_name, _numpy, None, "fib", output=boolean)
for _name, _numpy in (("lt", np.less), ("le", np.less_equal), ("gt", np.greater), ("ge", np.greater_equal)):
    binary(_name, _numpy, None, "fi", output=boolean)
for _name, _numpy in (("logical_and", np.logical_and), ("logical_or", np.logical_or)):
    binary(_name, _numpy, None, "b")


def _infer_select(types: Sequence[ListType], attributes: Attributes) -> tuple[ListType, ...]:
    no_lists("where", types)
    condition, chosen, other = types
    if condition.dtype is not boolean:
        raise DtypeError(f"the condition of where is bool; got {condition.dtype}")
    if chosen != other or condition.shape != chosen.shape:
        raise ShapeError(
            f"where takes three arrays of one shape, the last two of one dtype; got {', '.join(map(str, types))}"
        )
    return (chosen,)


register(
    Primitive(
        "select",
        _infer_select,
        np.where,
        lambda b, equation, cts: (
            None,
            _masked(b, equation.inputs[0], cts[0]),
            b("select", equation.inputs[0], _constant(b, cts[0], 0.0), cts[0]),
        ),
        "elementwise",
        samples=(Sample((array(boolean, 2, 3), array(f64, 2, 3), array(f64, 2, 3))),),
        refusals=(
            Refusal((array(f32, 3), array(f32, 3), array(f32, 3)), {}, DtypeError, "condition"),
            Refusal((array(boolean, 2), array(f32, 3), array(f32, 3)), {}, ShapeError, "one shape"),
        ),
    )
)


def _cast(value: Any, dtype: DType, pinned: bool) -> Any:
    value = np.asarray(value)
    if dtype.name == "bf16":
        # Round to nearest even on the upper 16 bits; NaN keeps its payload's upper half.
        bits = value.astype(np.float32).view(np.uint32)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
        return np.where(np.isnan(value), np.float32(np.nan), rounded.view(np.float32)).astype(np.float32)
    return value.astype(dtype.numpy)


def _cast_adjoint(b: Any, equation: Any, cts: Sequence[Any]) -> Sequence[Any]:
    (value,) = equation.inputs
    if not (value.type.dtype.is_float and equation.output.type.dtype.is_float):
        return (None,)
    pinned = equation.attributes["pinned"]
    maker = None if pinned else b.maker(cts[0])
    if maker is not None and maker.op == "cast" and not maker.attributes["pinned"]:
        # What rounds an operand rounds no cotangent on its way back: the parts of a packed product would each be
        # rounded before they are added.
        if maker.inputs[0].type.dtype is value.type.dtype:
            return (maker.inputs[0],)
    return (b("cast", cts[0], dtype=value.type.dtype, pinned=pinned),)


def _infer_cast(types: Sequence[ListType], attributes: Attributes) -> tuple[ListType, ...]:
    no_lists("cast", types)
    return (types[0].with_dtype(attributes["dtype"]),)


register(
    Primitive(
        "cast",
        _infer_cast,
        _cast,
        _cast_adjoint,
        "free",
        samples=(
            Sample((array(i64, 3),), {"dtype": f64, "pinned": False}),
            Sample((array(f64, 2, 3),), {"dtype": f32, "pinned": True}),
            Sample((array(f64, 3),), {"dtype": i64, "pinned": False}),
            Sample((array(boolean, 3),), {"dtype": f64, "pinned": False}),
        ),
    )
)


def _infer_identity(types: Sequence[ListType], attributes: Attributes) -> tuple[ListType, ...]:
    return (types[0],)


register(
    Primitive(
        "stop_gradient",
        _infer_identity,
        lambda x: x,
        lambda b, equation, cts: (None,),
        "free",
        samples=(Sample((array(f64, 3),)),),
    )
)


# A mark that `record` reads and the first pass drops.
register(
    Primitive(
        "tap",
        _infer_identity,
        lambda x, name: x,
        lambda b, equation, cts: (cts[0],),
        "free",
        samples=(Sample((array(f64, 3),), {"name": "gate"}),),
    )
)
