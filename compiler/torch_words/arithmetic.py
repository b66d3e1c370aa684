"""torch's elementwise and contracting functions."""

from __future__ import annotations

from typing import Any

from .. import words as f
from ..trace import plain
from .table import TABLE, define, plain_word

for _name in (
    "exp",
    "expm1",
    "log",
    "log1p",
    "sqrt",
    "rsqrt",
    "sin",
    "cos",
    "tanh",
    "sigmoid",
    "erf",
    "floor",
    "ceil",
    "sign",
    "relu",
    "silu",
    "softplus",
    "logsigmoid",
    "isfinite",
    "logical_not",
    "square",
    "dot",
    "outer",
):
    TABLE[_name] = plain_word(f.WORDS[_name])
for _names, _word in (
    (("abs", "absolute"), f.abs_),
    (("neg", "negative"), f.negative),
    (("round",), f.round_),
    (("arctan", "atan"), f.arctan),
    (("multiply", "mul"), f.multiply),
    (("divide", "div", "true_divide", "truediv"), f.divide),
    (("pow", "power"), f.power),
    (("maximum",), f.maximum),
    (("minimum",), f.minimum),
    (("atan2", "arctan2"), f.arctan2),
    (("remainder", "mod"), f.remainder),
    (("floor_divide", "floordiv"), f.floor_divide),
    (("eq", "equal"), f.equal),
    (("ne", "not_equal"), f.not_equal),
    (("lt", "less"), f.less),
    (("le", "less_equal"), f.less_equal),
    (("gt", "greater"), f.greater),
    (("ge", "greater_equal"), f.greater_equal),
    (("logical_and", "and", "bitwise_and"), f.logical_and),
    (("logical_or", "or", "bitwise_or"), f.logical_or),
    (("matmul", "mm", "mv", "bmm"), f.matmul),
    (("where",), f.where),
    (("invert", "bitwise_not"), f.logical_not),
):
    for _name in _names:
        TABLE[_name] = plain_word(_word)
for _name, _word in (
    ("radd", f.add),
    ("rsub", f.subtract),
    ("rmul", f.multiply),
    ("rdiv", f.divide),
    ("rtruediv", f.divide),
    ("rmatmul", f.matmul),
    ("rpow", f.power),
):
    TABLE[_name] = lambda input, other, _word=_word: _word(other, input)


@define("add", "iadd")
def _add(input: Any, other: Any, *, alpha: float = 1) -> Any:
    return f.add(input, other if alpha == 1 else f.multiply(other, alpha))


@define("sub", "subtract", "isub")
def _sub(input: Any, other: Any, *, alpha: float = 1) -> Any:
    return f.subtract(input, other if alpha == 1 else f.multiply(other, alpha))


@define("addmm")
def _addmm(input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    return f.add(f.multiply(input, beta), f.multiply(f.matmul(mat1, mat2), alpha))


@define("einsum")
def _einsum(equation: str, *operands: Any) -> Any:
    return f.einsum(equation, *operands)


@define("clamp", "clip")
def _clamp(input: Any, min: Any = None, max: Any = None) -> Any:
    return f.clip(input, min, max)


@define("clamp_min")
def _clamp_min(input: Any, min: Any) -> Any:
    return f.maximum(input, min)


@define("addmv")
def _addmv(input: Any, mat: Any, vec: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    return f.add(f.multiply(input, beta), f.multiply(f.matmul(mat, vec), alpha))


@define("addcmul")
def _addcmul(input: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> Any:
    return f.add(input, f.multiply(value, f.multiply(tensor1, tensor2)))


@define("addcdiv")
def _addcdiv(input: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> Any:
    return f.add(input, f.multiply(value, f.divide(tensor1, tensor2)))


@define("lerp")
def _lerp(input: Any, end: Any, weight: Any) -> Any:
    return f.add(input, f.multiply(weight, f.subtract(end, input)))


@define("masked_fill")
def _masked_fill(input: Any, mask: Any, value: Any) -> Any:
    return f.where(mask, value, input)


@define("reciprocal")
def _reciprocal(input: Any) -> Any:
    return f.divide(1.0, input)


@define("isnan")
def _isnan(input: Any) -> Any:
    return f.not_equal(input, input)


@define("tensordot")
def _tensordot(a: Any, b: Any, dims: Any = 2) -> Any:
    ranks = [len(plain(x).shape) for x in (a, b)]
    pairs = ([*range(ranks[0] - dims, ranks[0])], [*range(dims)]) if isinstance(dims, int) else dims
    left, right = ([f.axis_of(d, rank) for d in axes] for axes, rank in zip(pairs, ranks))
    labels = "abcdefghijklmnopqrstuvwxyz"
    first, second = list(labels[: ranks[0]]), list(labels[ranks[0] : sum(ranks)])
    for d, e in zip(left, right):
        second[e] = first[d]
    shared = {first[d] for d in left}
    out = [c for c in (*first, *second) if c not in shared]
    return f.einsum(f"{''.join(first)},{''.join(second)}->{''.join(out)}", a, b)
