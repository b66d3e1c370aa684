"""The primitives in torch: for each name a function of (equation, depth) that makes its meaning on tensors.

A tensor has dims (lead…, shape…) with `depth` leading dims, each of full extent or 1 where the value does not vary
with that loop. Everything is functional and differentiable by torch where the primitive is, and keeps the size 1 dims.
What is made is ``(*tensors) -> tensor``, or ``(context, *tensors) -> tensor`` for the names in `CONTEXTUAL`, which
read sizes or live rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..compiler.errors import IndexRangeError
from ..compiler.primitives.random import FIRST, GOLDEN, SECOND
from .dtypes import torch_dtype
from .eager_contraction import HALVES, contraction, mask_operand
from .eager_shapes import common_lead, trailing, with_lead

Build = Callable[[Any, int], Callable[..., Tensor]]


def make_constant(equation: Any, depth: int, device: torch.device) -> Tensor:
    """The tensor of a constant; a large one that repeats a number takes no memory."""
    value, dtype, shape = (equation.attributes[k] for k in ("value", "dtype", "shape"))
    # A cached constant must serve calls that record derivatives also when the first one came in inference mode.
    with torch.inference_mode(False):
        tensor = torch.from_numpy(np.array(value, dtype.numpy)).to(device, torch_dtype(dtype))
        tensor = tensor.reshape((1,) * depth + tuple(np.shape(value) or (1,) * len(shape)))
        tensor = tensor.expand((1,) * depth + tuple(shape))
        return tensor.contiguous() if math.prod(shape) <= 65_536 else tensor


# --- elementwise ------------------------------------------------------------------------------------------------------


def _sign(x: Tensor) -> Tensor:
    return torch.where(x.isnan(), x, torch.sign(x)) if x.is_floating_point() else torch.sign(x)


def _whole_division(
    divide: Callable[[Tensor, Tensor], Tensor], by_minus_one: Callable[[Tensor], Tensor]
) -> Callable[..., Tensor]:
    """Division of integers as NumPy does it, since padding may hold anything: by zero gives 0, by -1 wraps."""

    def run(x: Tensor, y: Tensor) -> Tensor:
        zero, minus = y == 0, y == -1
        out = divide(x, torch.where(zero | minus, torch.ones_like(y), y))
        return torch.where(zero, torch.zeros_like(out), torch.where(minus, by_minus_one(x), out))

    return run


_ELEMENTWISE: dict[str, Callable[..., Tensor]] = {
    **{
        name: getattr(torch, name)
        for name in ("neg", "abs", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "sin", "cos")
    },
    **{
        name: getattr(torch, name)
        for name in ("arctan", "tanh", "sigmoid", "erf", "floor", "ceil", "round", "logical_not")
    },
    **{
        name: getattr(torch, name)
        for name in ("add", "sub", "mul", "div", "maximum", "minimum", "remainder", "arctan2")
    },
    **{name: getattr(torch, name) for name in ("eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or")},
    "power": torch.pow,
    "is_finite": torch.isfinite,
    "sign": _sign,
    "select": torch.where,
    "stop_gradient": Tensor.detach,
    "tap": lambda x: x,
    "floor_divide": _whole_division(lambda x, y: torch.div(x, y, rounding_mode="floor"), torch.neg),
    "integer_remainder": _whole_division(torch.remainder, torch.zeros_like),
}


def _cast(equation: Any, depth: int) -> Callable[..., Tensor]:
    dtype = torch_dtype(equation.attributes["dtype"])
    return lambda x: x.to(dtype)


# --- structure --------------------------------------------------------------------------------------------------------


def _broadcast(equation: Any, depth: int) -> Callable[..., Tensor]:
    shape, dims, own = equation.attributes["shape"], equation.attributes["dims"], equation.types[0].shape
    aligned = [1] * len(shape)
    for n, d in zip(own, dims, strict=True):
        aligned[d] = n
    aligned, shape = tuple(aligned), tuple(shape)
    return lambda x: x.reshape(x.shape[:depth] + aligned).expand(x.shape[:depth] + shape)


def _reshape(equation: Any, depth: int) -> Callable[..., Tensor]:
    shape = tuple(equation.attributes["shape"])
    return lambda x: x.reshape(x.shape[:depth] + shape)


def _transpose(equation: Any, depth: int) -> Callable[..., Tensor]:
    order = (*range(depth), *(depth + p for p in equation.attributes["permutation"]))
    return lambda x: x.permute(order)


def _flip(equation: Any, depth: int) -> Callable[..., Tensor]:
    dims = tuple(depth + axis for axis in equation.attributes["axes"])
    return lambda x: x.flip(dims)


def _slice(equation: Any, depth: int) -> Callable[..., Tensor]:
    starts, stops, strides = (equation.attributes[k] for k in ("starts", "stops", "strides"))
    own = equation.types[0].shape
    cut = [d for d in range(len(own)) if (starts[d], stops[d], strides[d]) != (0, own[d], 1)]
    if len(cut) == 1 and strides[cut[0]] == 1:
        (axis,) = cut
        dim, start, count = depth + axis, starts[axis], stops[axis] - starts[axis]
        return lambda x: x.narrow(dim, start, count)
    where = (*(slice(None),) * depth, *map(slice, starts, stops, strides))
    return lambda x: x[where]


def _pad(equation: Any, depth: int) -> Callable[..., Tensor]:
    low, high, interior = (tuple(equation.attributes[k]) for k in ("low", "high", "interior"))
    shape = equation.output.type.shape
    spread = [n + (n - 1) * i if n else 0 for n, i in zip(equation.types[0].shape, interior, strict=True)]
    if not any(interior):
        widths = [w for pair in zip(reversed(low), reversed(high), strict=True) for w in pair]
        return lambda x: torch.nn.functional.pad(x, widths)
    where = (..., *(slice(a, a + n, i + 1) for a, n, i in zip(low, spread, interior, strict=True)))

    def run(x: Tensor) -> Tensor:
        out = x.new_zeros(x.shape[:depth] + shape)
        out[where] = x
        return out

    return run


def _concatenate(equation: Any, depth: int) -> Callable[..., Tensor]:
    dim = equation.attributes["axis"] - len(equation.output.type.shape)

    def run(*xs: Tensor) -> Tensor:
        leads = {x.shape[:depth] for x in xs}
        if len(leads) > 1:
            lead = common_lead([x.shape for x in xs], depth)
            xs = tuple(with_lead(x, lead, depth) for x in xs)
        return torch.cat(xs, dim)

    return run


# --- reductions -------------------------------------------------------------------------------------------------------


def _reduction(reduce: Callable[[Tensor, tuple[int, ...]], Tensor]) -> Build:
    def build(equation: Any, depth: int) -> Callable[..., Tensor]:
        dims = tuple(depth + axis for axis in equation.attributes["axes"])
        # torch takes "no axes" for "all axes".
        return (lambda x: reduce(x, dims)) if dims else (lambda x: x)

    return build


def _cumulative(operation: Callable[..., Tensor], neutral: int) -> Build:
    def build(equation: Any, depth: int) -> Callable[..., Tensor]:
        a = equation.attributes
        dim, reverse, exclusive = depth + a["axis"], a["reverse"], a["exclusive"]

        def run(x: Tensor) -> Tensor:
            x = x.flip(dim) if reverse else x
            if exclusive and x.size(dim):
                first = torch.full_like(x.narrow(dim, 0, 1), neutral)
                x = torch.cat((first, x.narrow(dim, 0, x.size(dim) - 1)), dim)
            out = operation(x, dim, dtype=x.dtype)
            return out.flip(dim) if reverse else out

        return run

    return build


def _choice(choose: Callable[[Tensor, int], Tensor]) -> Build:
    def build(equation: Any, depth: int) -> Callable[..., Tensor]:
        dim = depth + equation.attributes["axis"]
        return lambda x: choose(x.to(torch.uint8) if x.dtype is torch.bool else x, dim)

    return build


# --- selection by index -----------------------------------------------------------------------------------------------


def safe_index(context: Any, index: Tensor, count: int | Tensor, refuse: Callable[[int, int], Exception]) -> Tensor:
    """An index clamped to its range; where a live row has one out of range, an error.

    Arguments:
        context: where the evaluation stands (`live` rows, and whether to `check`).
        index: integers of dims (lead…, shape…).
        count: the number of elements, or a tensor of numbers that broadcasts against `index`.
        refuse: makes the error from (index, count).
    """
    if not context.check:
        return (
            index.clamp(min=0).minimum(count - 1).clamp(min=0)
            if isinstance(count, Tensor)
            else index.clamp(0, max(count - 1, 0))
        )
    bad = (index < 0) | (index >= count)
    if not bool(bad.any()):
        return index
    live = bad if context.live is None else bad & trailing(context.live, bad.dim())
    if bool(live.any()):
        shown = torch.broadcast_to(index, live.shape)[live][0]
        counts = torch.broadcast_to(count, live.shape)[live][0] if isinstance(count, Tensor) else count
        raise refuse(int(shown), int(counts))
    return torch.where(bad, torch.zeros_like(index), index)


def _range_error(equation: Any) -> Callable[[int, int], Exception]:
    return lambda index, count: IndexRangeError(
        f"the index {index} is out of range for a table of {count}; indices run from 0 to {count - 1}", equation.source
    )


def select_rows(table: Tensor, index: Tensor, depth: int) -> Tensor:
    """Rows of tables: ``out[lead, i…, rest] = table[lead, index[lead, i…], rest]``, tables of size 1 leads never
    expanded.

    Arguments:
        table: dims (lead…, n, rest…).
        index: dims (lead…, i…), all in range (of a table with elements).
    """
    lead, count, rest = table.shape[:depth], table.size(depth), table.shape[depth + 1 :]
    if count == 0:
        return table.new_zeros((*common_lead([table.shape, index.shape], depth), *index.shape[depth:], *rest))
    tables = math.prod(lead)
    index = index.long()
    if tables != 1:
        index = index + trailing(torch.arange(tables, device=index.device).mul(count).reshape(lead), index.dim())
    return table.reshape((tables * count, *rest)).index_select(0, index.reshape(-1)).reshape((*index.shape, *rest))


def _gather(equation: Any, depth: int) -> Callable[..., Tensor]:
    axis, (table_type, index_type) = equation.attributes["axis"], equation.types
    refuse, count = _range_error(equation), table_type.shape[axis]
    first, width, last = depth, len(index_type.shape), len(table_type.shape) - axis - 1
    # (lead, index, before, after) → (lead, before, index, after)
    places = [*range(first), *range(first + width, first + width + axis), *range(first, first + width)]
    places += range(first + width + axis, first + width + axis + last)

    def run(context: Any, table: Tensor, index: Tensor) -> Tensor:
        index = safe_index(context, index, count, refuse)
        if axis == 0:
            return select_rows(table, index, depth)
        return select_rows(table.movedim(depth + axis, depth), index, depth).permute(places)

    return run


def _scatter_add(equation: Any, depth: int) -> Callable[..., Tensor]:
    axis, size, refuse = equation.attributes["axis"], equation.attributes["size"], _range_error(equation)
    width, rank = len(equation.types[1].shape), len(equation.types[0].shape)
    # (lead, before, index, after) → (lead, index, before, after)
    places = [*range(depth), *range(depth + axis, depth + axis + width), *range(depth, depth + axis)]
    places += range(depth + axis + width, depth + rank)

    def run(context: Any, updates: Tensor, index: Tensor) -> Tensor:
        index = safe_index(context, index, size, refuse).long()
        lead = common_lead([updates.shape, index.shape], depth)
        updates = updates.permute(places) if axis else updates
        rest, dtype = updates.shape[depth + width :], updates.dtype
        updates = with_lead(updates, lead, depth).to(torch.float32 if dtype in HALVES else dtype)
        tables = math.prod(lead)
        if tables != 1:
            index = index + trailing(torch.arange(tables, device=index.device).mul(size).reshape(lead), index.dim())
        elements = math.prod(index.shape)
        if size == 0:
            return updates.new_zeros((*lead, *equation.output.type.shape), dtype=dtype)
        out = updates.new_zeros((tables * size, *rest)).index_add(
            0, index.reshape(-1), updates.reshape((elements, *rest))
        )
        return out.to(dtype).reshape((*lead, size, *rest)).movedim(depth, depth + axis)

    return run


def _gather_along(equation: Any, depth: int) -> Callable[..., Tensor]:
    axis, refuse = equation.attributes["axis"], _range_error(equation)
    count = equation.types[0].shape[axis]

    def run(context: Any, table: Tensor, index: Tensor) -> Tensor:
        index = safe_index(context, index, count, refuse).long()
        lead = common_lead([table.shape, index.shape], depth)
        table = with_lead(table, lead, depth)
        return table.gather(depth + axis, with_lead(index, lead, depth))

    return run


def _scatter_along(equation: Any, depth: int) -> Callable[..., Tensor]:
    axis, size, refuse = equation.attributes["axis"], equation.attributes["size"], _range_error(equation)
    shape = equation.output.type.shape

    def run(context: Any, updates: Tensor, index: Tensor) -> Tensor:
        index = safe_index(context, index, size, refuse).long()
        lead = common_lead([updates.shape, index.shape], depth)
        updates, dtype = with_lead(updates, lead, depth), updates.dtype
        updates = updates.float() if dtype in HALVES else updates
        out = updates.new_zeros((*lead, *shape))
        return out.scatter_add(depth + axis, with_lead(index, lead, depth), updates).to(dtype)

    return run


# --- contraction ------------------------------------------------------------------------------------------------------


def _contract(equation: Any, depth: int) -> Callable[..., Tensor]:
    spec, dtype = equation.attributes["spec"], equation.attributes.get("dtype")
    product = contraction(spec, depth, dtype and torch_dtype(dtype))
    operands, output = spec.split("->")
    ragged = []
    for labels, type_ in zip(operands.split(","), equation.types, strict=True):
        ragged.append([i for i in range(len(type_.axes)) if labels[i] not in output])
    if not any(ragged):
        return lambda context, left, right: product(left, right)
    left_axes, right_axes = (type_.axes for type_ in equation.types)

    def run(context: Any, left: Tensor, right: Tensor) -> Tensor:
        left = mask_operand(context.sizes, left, left_axes, ragged[0])
        return product(left, mask_operand(context.sizes, right, right_axes, ragged[1]))

    return run


# --- randomness -------------------------------------------------------------------------------------------------------


def _signed(value: int) -> int:
    """A 64-bit pattern as the i64 that has it."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _shift(z: Tensor, bits: int) -> Tensor:
    """A right shift that fills with zeros."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's finaliser modulo 2^64, in i64."""
    z = (z ^ _shift(z, 30)) * _signed(FIRST)
    z = (z ^ _shift(z, 27)) * _signed(SECOND)
    return z ^ _shift(z, 31)


def _uniform(equation: Any, depth: int) -> Callable[..., Tensor]:
    shape, dtype = tuple(equation.attributes["shape"]), torch_dtype(equation.attributes["dtype"])

    def run(seed: Tensor) -> Tensor:
        lanes = torch.arange(1, math.prod(shape) + 1, device=seed.device).mul(_signed(GOLDEN)).reshape(shape)
        bits = _mix(trailing(seed, depth + len(shape)) + lanes)
        # All 24 bits of the result are exact in float32.
        wide = torch.float64 if dtype is torch.float64 else torch.float32
        return (_shift(bits, 41).to(wide) * 2.0**-23 + 2.0**-24).to(dtype)

    return run


def _plain(function: Callable[..., Tensor]) -> Build:
    return lambda equation, depth: function


OPERATIONS: dict[str, Build] = {
    **{name: _plain(function) for name, function in _ELEMENTWISE.items()},
    "cast": _cast,
    "broadcast": _broadcast,
    "reshape": _reshape,
    "transpose": _transpose,
    "flip": _flip,
    "slice": _slice,
    "pad": _pad,
    "concatenate": _concatenate,
    "reduce_sum": _reduction(lambda x, dims: x.sum(dims, dtype=x.dtype)),
    "reduce_max": _reduction(torch.amax),
    "reduce_min": _reduction(torch.amin),
    "reduce_prod": _reduction(lambda x, dims: x.prod(dims[0], dtype=x.dtype)),
    "cumulative_sum": _cumulative(torch.cumsum, 0),
    "cumulative_product": _cumulative(torch.cumprod, 1),
    "argmax": _choice(lambda x, dim: x.argmax(dim)),
    "argsort": _choice(lambda x, dim: x.argsort(stable=True, dim=dim)),
    "fold_seed": _plain(lambda seed, counter: _mix(seed + (counter + 1) * _signed(GOLDEN))),
    "uniform": _uniform,
}
CONTEXTUAL: dict[str, Build] = {
    "gather": _gather,
    "scatter_add": _scatter_add,
    "gather_along": _gather_along,
    "scatter_along": _scatter_along,
    "contract": _contract,
}
