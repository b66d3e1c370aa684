"""Operators and methods of traced values and parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..errors import StructureError, TraceError
from ..expression import Expression
from ..parameters import Parameter
from ..sizes import Constant
from ..trace import plain
from ..values import TracedArray, TracedList, TracedTree, Unknown
from .contractions import dot, matmul
from .elementwise import (
    abs_,
    add,
    cast,
    ceil,
    clip,
    cos,
    divide,
    equal,
    exp,
    floor,
    floor_divide,
    greater,
    greater_equal,
    less,
    less_equal,
    log,
    logical_and,
    logical_not,
    logical_or,
    multiply,
    negative,
    not_equal,
    power,
    relu,
    remainder,
    round_,
    rsqrt,
    sigmoid,
    sin,
    sqrt,
    square,
    stop_gradient,
    subtract,
    tanh,
)
from .indexing import index_array, index_list
from .lifting import word
from .reductions import (
    amax,
    amin,
    argmax,
    argmin,
    cumprod,
    cumsum,
    log_softmax,
    logsumexp,
    max_,
    mean,
    min_,
    norm,
    prod,
    softmax,
    std,
    sum_,
    var,
)
from .shapes import (
    axis_of,
    broadcast_to,
    chunk,
    expand_dims,
    flip,
    on_arrays,
    require_array,
    reshape,
    roll,
    squeeze,
    swapaxes,
    transpose,
)


def subscript(x: Any, key: Any) -> Any:
    x = plain(x)
    if isinstance(x, TracedList):
        return index_list(x, key)
    if isinstance(x, Unknown):
        return Unknown()
    return index_array(require_array(x, "indexing"), key)


def iterate(x: Any) -> Any:
    x = plain(x)
    if isinstance(x, TracedList):
        size = x.sizes[0]
        count = x.static_length if x.static_length is not None else size.value if isinstance(size, Constant) else None
        if count is None or len(x._sizes) != 1:
            raise TraceError(
                "a list is not walked by a Python loop or unpacked, since its length is known per call only; use "
                "ff.map, ff.fold "
                "or ff.scan. The children of a tree unpack where ff.Tree(…, arity=) is declared and ff.cata has a leaf="
            )
        return iter([index_list(x, i) for i in range(count)])
    if isinstance(x, TracedTree):
        raise TraceError("a tree is not walked by a Python loop; use ff.cata")
    if not x.shape:
        raise StructureError("a number is not walked by a Python loop or unpacked; only arrays of rank 1 or more are")
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
    "__add__": add,
    "__sub__": subtract,
    "__mul__": multiply,
    "__truediv__": divide,
    "__pow__": power,
    "__mod__": remainder,
    "__floordiv__": floor_divide,
    "__matmul__": matmul,
    "__lt__": less,
    "__le__": less_equal,
    "__gt__": greater,
    "__ge__": greater_equal,
    "__eq__": equal,
    "__ne__": not_equal,
    "__neg__": negative,
    "__abs__": abs_,
    "__getitem__": subscript,
    "__iter__": iterate,
    "__len__": _length_of,
    "__invert__": logical_not,
    "__and__": logical_and,
    "__or__": logical_or,
    "__pos__": Expression(lambda x: x, "pos"),
}
_REFLECTED = {
    "__radd__": add,
    "__rsub__": subtract,
    "__rmul__": multiply,
    "__rtruediv__": divide,
    "__rpow__": power,
    "__rmod__": remainder,
    "__rfloordiv__": floor_divide,
    "__rmatmul__": matmul,
    "__rand__": logical_and,
    "__ror__": logical_or,
}

for _class in (TracedArray, TracedList, TracedTree, Unknown):
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
    "sum": sum_,
    "mean": mean,
    "max": max_,
    "min": min_,
    "prod": prod,
    "var": var,
    "std": std,
    "norm": norm,
    "reshape": reshape,
    "transpose": transpose,
    "swapaxes": swapaxes,
    "squeeze": squeeze,
    "clip": clip,
    "clamp": clip,
    "exp": exp,
    "log": log,
    "sqrt": sqrt,
    "rsqrt": rsqrt,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "relu": relu,
    "abs": abs_,
    "square": square,
    "softmax": softmax,
    "log_softmax": log_softmax,
    "logsumexp": logsumexp,
    "argmax": argmax,
    "argmin": argmin,
    "cumsum": cumsum,
    "cumprod": cumprod,
    "dot": dot,
    "matmul": matmul,
    "chunk": chunk,
    "roll": roll,
    "flip": flip,
    "pow": power,
    "add": add,
    "sub": subtract,
    "mul": multiply,
    "div": divide,
    "neg": negative,
    "sin": sin,
    "cos": cos,
    "round": round_,
    "floor": floor,
    "ceil": ceil,
    "expand_dims": expand_dims,
    "astype": cast,
    "broadcast_to": broadcast_to,
    "detach": stop_gradient,
    "amax": amax,
    "amin": amin,
}
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

    return on_arrays(apply, x, "ff.flatten")
