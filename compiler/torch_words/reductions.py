"""torch's reductions, choices and orderings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .. import words as f
from ..errors import StructureError
from .table import TABLE, define

for _name, _word in (("sum", f.sum_), ("mean", f.mean), ("prod", f.prod), ("amax", f.amax), ("amin", f.amin)):
    TABLE[_name] = lambda input, dim=None, keepdim=False, _word=_word, **_: _word(input, dim=dim, keepdim=keepdim)


class Chosen(NamedTuple):
    """Elements and where they stand: what torch's `max`, `sort` and `topk` along an axis give."""

    values: Any
    indices: Any


def _extreme(word: Any, choice: Any) -> Callable[..., Any]:
    def meaning(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
        if dim is None:
            return word(input)
        if not isinstance(dim, int):
            return (f.maximum if word is f.max_ else f.minimum)(input, dim)
        index = choice(input, dim)
        value = f.take_along_axis(input, f.expand_dims(index, dim), dim)
        if keepdim:
            return Chosen(value, f.expand_dims(index, dim))
        return Chosen(f.squeeze(value, dim), index)

    return meaning


TABLE["max"], TABLE["min"] = _extreme(f.max_, f.argmax), _extreme(f.min_, f.argmin)


@define("var")
def _var(
    input: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: int | None = None
) -> Any:
    return f.var(input, dim=dim, correction=int(unbiased) if correction is None else correction, keepdim=keepdim)


@define("std")
def _std(
    input: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: int | None = None
) -> Any:
    return f.sqrt(_var(input, dim, unbiased, keepdim, correction=correction))


@define("norm", "linalg_norm", "linalg_vector_norm", "vector_norm")
def _norm(input: Any, p: Any = 2, dim: Any = None, keepdim: bool = False, *, ord: Any = None, **_: Any) -> Any:
    p = p if ord is None else ord
    if p not in (2, 2.0, "fro", None):
        raise StructureError(f"torch's norm of order {p} has no meaning in a program; write it with ff.sum and powers")
    return f.norm(input, dim=dim, keepdims=keepdim)


@define("logsumexp")
def _logsumexp(input: Any, dim: Any, keepdim: bool = False) -> Any:
    return f.logsumexp(input, dim=dim, keepdim=keepdim)


@define("softmax")
def _softmax(input: Any, dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    return f.softmax(input, dim=dim)


@define("log_softmax")
def _log_softmax(input: Any, dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    return f.log_softmax(input, dim=dim)


@define("argmax")
def _argmax(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    out = f.argmax(input, dim=dim)
    return f.expand_dims(out, dim) if keepdim else out


@define("argmin")
def _argmin(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    out = f.argmin(input, dim=dim)
    return f.expand_dims(out, dim) if keepdim else out


@define("cumsum")
def _cumsum(input: Any, dim: int, **_: Any) -> Any:
    return f.cumsum(input, dim=dim)


@define("cumprod")
def _cumprod(input: Any, dim: int, **_: Any) -> Any:
    return f.cumprod(input, dim=dim)


@define("sort")
def _sort(input: Any, dim: int = -1, descending: bool = False, stable: bool = True) -> Any:
    index = f.argsort(input, axis=dim, descending=descending)
    return Chosen(f.take_along_axis(input, index, dim), index)


@define("topk")
def _topk(input: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    if not largest:
        value, index = f.top_k(f.negative(input), k, dim)
        return Chosen(f.negative(value), index)
    return Chosen(*f.top_k(input, k, dim))


@define("gather")
def _gather(input: Any, dim: int, index: Any, **_: Any) -> Any:
    return f.take_along_axis(input, index, dim)


@define("index_select")
def _index_select(input: Any, dim: int, index: Any) -> Any:
    return f.take(input, index, dim)


@define("getitem")
def _getitem(input: Any, key: Any) -> Any:
    return f.subscript(input, key)
