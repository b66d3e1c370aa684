"""torch's functions that move elements or change dtypes."""

from __future__ import annotations

import math
from typing import Any

from .. import words as f
from ..errors import ShapeError
from ..scope import current
from ..trace import plain, traced
from ..types import DTYPES, DType
from .table import TABLE, define


@define("cat", "concat", "concatenate")
def _cat(tensors: Any, dim: int = 0) -> Any:
    return f.concat(*tensors, axis=dim)


@define("stack")
def _stack(tensors: Any, dim: int = 0) -> Any:
    return f.stack(*tensors, axis=dim)


@define("hstack")
def _hstack(tensors: Any) -> Any:
    return f.concat(*tensors, axis=0 if len(plain(tensors[0]).shape) == 1 else 1)


@define("chunk")
def _chunk(input: Any, chunks: int, dim: int = 0) -> Any:
    n = plain(input).shape[f.axis_of(dim, len(plain(input).shape))]
    return f.split(input, -(-n // chunks), axis=dim)


@define("split")
def _split(tensor: Any, split_size_or_sections: Any, dim: int = 0) -> Any:
    return f.split(tensor, split_size_or_sections, axis=dim)


@define("unbind")
def _unbind(input: Any, dim: int = 0) -> Any:
    return tuple(f.iterate(f.swapaxes(input, 0, dim) if dim else input))


@define("reshape", "view")
def _reshape(input: Any, *shape: Any) -> Any:
    return f.reshape(input, *shape)


@define("transpose", "swapaxes", "swapdims")
def _transpose(input: Any, dim0: int, dim1: int) -> Any:
    return f.swapaxes(input, dim0, dim1)


@define("permute")
def _permute(input: Any, *dims: Any) -> Any:
    return f.transpose(input, *dims)


@define("t", "adjoint")
def _t(input: Any) -> Any:
    return f.transpose(input)


@define("unsqueeze")
def _unsqueeze(input: Any, dim: int) -> Any:
    return f.expand_dims(input, dim)


@define("squeeze")
def _squeeze(input: Any, dim: Any = None) -> Any:
    return f.squeeze(input, dim)


@define("flatten")
def _flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    return f.flatten(input, start_dim, end_dim)


@define("broadcast_to", "expand")
def _expand(input: Any, *shape: Any) -> Any:
    return f.broadcast_to(input, *shape)


@define("flip")
def _flip(input: Any, *dims: Any) -> Any:
    return f.flip(input, tuple(dims[0]) if isinstance(dims[0], (tuple, list)) else dims)


@define("roll")
def _roll(input: Any, shifts: int, dims: Any = None) -> Any:
    return f.roll(input, shifts, dims)


@define("tril")
def _tril(input: Any, diagonal: int = 0) -> Any:
    return f.tril(input, diagonal)


@define("triu")
def _triu(input: Any, diagonal: int = 0) -> Any:
    return f.triu(input, diagonal)


@define("zeros_like")
def _zeros_like(input: Any, **_: Any) -> Any:
    return f.zeros_like(input)


@define("ones_like")
def _ones_like(input: Any, **_: Any) -> Any:
    return f.ones_like(input)


@define("full_like")
def _full_like(input: Any, fill_value: float, **_: Any) -> Any:
    return f.filled_like(input, fill_value)


@define("detach", "clone", "contiguous")
def _same(input: Any, **_: Any) -> Any:
    return traced(input)


TABLE["detach"] = lambda input: f.stop_gradient(input)


@define("float")
def _float(input: Any) -> Any:
    return f.cast_to(traced(input), current().program.float_dtype)


@define("type_as")
def _type_as(input: Any, other: Any) -> Any:
    return f.cast_to(traced(input), traced(other).dtype)


@define("to", "type")
def _to(input: Any, *arguments: Any, dtype: Any = None, **_: Any) -> Any:
    for given in (dtype, *arguments):
        if isinstance(given, DType):
            return f.cast(input, given)
        name = str(given).rsplit(".", 1)[-1]
        known = {
            "float32": "f32",
            "float64": "f64",
            "float16": "f16",
            "bfloat16": "bf16",
            "int64": "i64",
            "int32": "i32",
            "bool": "bool",
        }
        if name in known:
            return f.cast(input, DTYPES[known[name]])
    return traced(input)


@define("repeat", "tile")
def _repeat(input: Any, *sizes: Any) -> Any:
    counts = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
    x = traced(input)
    shape = (1,) * (len(counts) - len(x.shape)) + x.shape
    if len(counts) < len(shape):
        counts = (1,) * (len(shape) - len(counts)) + tuple(counts)
    paired = [n for pair in zip(counts, shape) for n in pair]
    apart = f.reshape(x, *[n for size in shape for n in (1, size)])
    return f.reshape(f.broadcast_to(apart, *paired), *[count * n for count, n in zip(counts, shape)])


@define("narrow")
def _narrow(input: Any, dim: int, start: int, length: int) -> Any:
    x = traced(input)
    d = f.axis_of(dim, len(x.shape))
    if not (0 <= start and length >= 0 and start + length <= x.shape[d]):
        raise ShapeError(f"narrow takes {length} from {start} of an axis of {x.shape[d]}")
    return f.slice_axis(x, d, start, start + length)


@define("select")
def _select(input: Any, dim: int, index: Any) -> Any:
    d = f.axis_of(dim, len(plain(input).shape))
    return f.subscript(input, (*(slice(None) for _ in range(d)), index))


@define("unflatten")
def _unflatten(input: Any, dim: int, sizes: Any) -> Any:
    shape = plain(input).shape
    d = f.axis_of(dim, len(shape))
    inferred = math.prod(n for n in sizes if n != -1)
    return f.reshape(input, *shape[:d], *(shape[d] // inferred if n == -1 else n for n in sizes), *shape[d + 1 :])


@define("movedim", "moveaxis")
def _movedim(input: Any, source: Any, destination: Any) -> Any:
    rank = len(plain(input).shape)
    sources, targets = (x if isinstance(x, (tuple, list)) else (x,) for x in (source, destination))
    sources, targets = [f.axis_of(x, rank) for x in sources], [f.axis_of(x, rank) for x in targets]
    order = [d for d in range(rank) if d not in sources]
    for target, moved in sorted(zip(targets, sources)):
        order.insert(target, moved)
    return f.transpose(input, *order)


@define("expand_as", "view_as", "reshape_as")
def _expand_as(input: Any, other: Any) -> Any:
    shape = plain(other).shape
    same = math.prod(shape) == math.prod(plain(input).shape)
    return f.reshape(input, *shape) if same else f.broadcast_to(input, *shape)
