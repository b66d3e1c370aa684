"""torch's activations."""

from __future__ import annotations

from typing import Any

from .. import words as f
from ..errors import StructureError
from ..layers import dropout
from ..trace import traced
from .table import define


@define("gelu")
def _gelu(input: Any, approximate: str = "none") -> Any:
    return f.gelu(input, approximate)


@define("elu")
def _elu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    return f.elu(input, alpha)


@define("leaky_relu")
def _leaky_relu(input: Any, negative_slope: float = 0.01, inplace: bool = False) -> Any:
    return f.leaky_relu(input, negative_slope)


@define("relu6")
def _relu6(input: Any, inplace: bool = False) -> Any:
    return f.clip(input, 0.0, 6.0)


@define("hardtanh")
def _hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Any:
    return f.clip(input, min_val, max_val)


@define("hardsigmoid")
def _hardsigmoid(input: Any, inplace: bool = False) -> Any:
    return f.clip(f.add(f.divide(input, 6.0), 0.5), 0.0, 1.0)


@define("mish")
def _mish(input: Any, inplace: bool = False) -> Any:
    return f.multiply(input, f.tanh(f.softplus(input)))


@define("glu")
def _glu(input: Any, dim: int = -1) -> Any:
    left, right = f.chunk(input, 2, axis=dim)
    return f.multiply(left, f.sigmoid(right))


@define("softplus")
def _softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    return f.divide(f.softplus(f.multiply(input, beta)), beta)


@define("dropout")
def _dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    return dropout(p)(input) if training else traced(input)


@define("normalize")
def _normalize(input: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> Any:
    if p != 2:
        raise StructureError("torch's normalize has a meaning in a program for p=2 only")
    return f.divide(input, f.maximum(f.norm(input, axis=dim, keepdims=True), eps))


@define("cosine_similarity")
def _cosine(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    product = f.sum_(f.multiply(x1, x2), axis=dim)
    return f.divide(product, f.multiply(f.maximum(f.norm(x1, axis=dim), eps), f.maximum(f.norm(x2, axis=dim), eps)))


@define("selu")
def _selu(input: Any, inplace: bool = False) -> Any:
    return f.multiply(1.0507009873554805, f.elu(input, 1.6732632423543772))


@define("celu")
def _celu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    return f.add(f.relu(input), f.minimum(0.0, f.multiply(alpha, f.expm1(f.divide(f.minimum(input, 0.0), alpha)))))


@define("prelu")
def _prelu(input: Any, weight: Any) -> Any:
    return f.where(f.greater(input, 0), input, f.multiply(weight, input))


@define("hardswish")
def _hardswish(input: Any, inplace: bool = False) -> Any:
    return f.multiply(input, f.divide(f.clip(f.add(input, 3.0), 0.0, 6.0), 6.0))


@define("softsign")
def _softsign(input: Any) -> Any:
    return f.divide(input, f.add(1.0, f.abs_(input)))


@define("tanhshrink")
def _tanhshrink(input: Any) -> Any:
    return f.subtract(input, f.tanh(input))


@define("threshold")
def _threshold(input: Any, threshold: float, value: float, inplace: bool = False) -> Any:
    return f.where(f.greater(input, threshold), input, value)
