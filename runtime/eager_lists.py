"""Combinators without bodies in torch: reductions, making lists and taking them apart, windows and segments.

For each name a function of (equation, depth, prepare) makes ``(context, inputs) -> outputs``. What lies in padding is
never multiplied by zero but replaced by `where`, so that a NaN there cannot leak.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..compiler.combinators.resize import different
from ..compiler.combinators.window import span
from ..compiler.errors import EmptyError, IndexRangeError
from .eager_contraction import HALVES
from .eager_operations import safe_index, select_rows
from .eager_shapes import common_lead, trailing, widened, with_lead
from .eager_sizes import Environment

Run = Callable[[Any, Sequence[Tensor]], Sequence[Tensor]]

# --- reductions -------------------------------------------------------------------------------------------------------


def _lowest(dtype: torch.dtype) -> Any:
    return float("-inf") if dtype.is_floating_point else torch.iinfo(dtype).min


def _highest(dtype: torch.dtype) -> Any:
    return float("inf") if dtype.is_floating_point else torch.iinfo(dtype).max


_REDUCTIONS: dict[str, tuple[Callable[[torch.dtype], Any], Callable[[Tensor, int], Tensor]]] = {
    "sum": (lambda dtype: 0, lambda x, dim: x.sum(dim, dtype=x.dtype)),
    "prod": (lambda dtype: 1, lambda x, dim: x.prod(dim, dtype=x.dtype)),
    "max": (_lowest, lambda x, dim: x.amax(dim)),
    "min": (_highest, lambda x, dim: x.amin(dim)),
}


def _reduce(equation: Any, depth: int, prepare: Any) -> Run:
    op, size = equation.attributes["op"], equation.types[0].axes[0]
    neutral, reduce = _REDUCTIONS[op]

    def run(context: Any, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        (xs,), sizes = inputs, context.sizes
        if op in ("max", "min"):
            if context.check:
                _refuse_empty(context, size, f"{op} over an empty list has no value", equation)
            if sizes.maximum(size) == 0:  # no row is live: zeros of the right shape
                return [xs.sum(depth, dtype=xs.dtype)]
        mask = sizes.mask(size)
        if mask is not None:
            xs = torch.where(trailing(mask, xs.dim()), xs, xs.new_full((), neutral(xs.dtype)))
        return [reduce(xs, depth)]

    return run


def _refuse_empty(context: Any, size: Any, message: str, equation: Any) -> None:
    """Raise where a live row's list is empty."""
    lengths = context.sizes.lengths(size)
    if lengths is None:
        none_empty = context.sizes.maximum(size) > 0
        bad = (
            None
            if none_empty
            else torch.ones((1,) * context.sizes.depth, dtype=torch.bool, device=context.sizes.device)
        )
    else:
        bad = lengths == 0
    if bad is not None and bool((bad if context.live is None else bad & context.live).any()):
        raise EmptyError(message, equation.source)


# --- making lists and taking them apart -------------------------------------------------------------------------------


def _iota(equation: Any, depth: int, prepare: Any) -> Run:
    size = equation.attributes["size"]

    def run(context: Any, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        maximum = context.sizes.maximum(size)
        return [torch.arange(maximum, device=context.sizes.device).reshape((1,) * depth + (maximum,))]

    return run


def _length(equation: Any, depth: int, prepare: Any) -> Run:
    size, positive = equation.attributes["size"], equation.attributes.get("positive", False)

    def run(context: Any, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        if positive and context.check:
            _refuse_empty(context, size, "a mean is taken of an empty list", equation)
        lengths = context.sizes.lengths(size)
        if lengths is None:
            lengths = torch.full(
                (1,) * depth, context.sizes.maximum(size), dtype=torch.int64, device=context.sizes.device
            )
        # In padding lists are empty; the derivative of a division by zero there would not vanish but be NaN.
        return [lengths.clamp(min=1) if positive else lengths]

    return run


def _list_range(equation: Any) -> Callable[[int, int], Exception]:
    def refuse(index: int, count: int) -> Exception:
        if count == 0 and equation.op == "element":
            return EmptyError("an element is taken of an empty list", equation.source)
        return IndexRangeError(f"the index {index} is out of range for a list of {count}", equation.source)

    return refuse


def _count(sizes: Environment, size: Any) -> int | Tensor:
    lengths = sizes.lengths(size)
    return sizes.maximum(size) if lengths is None else lengths


def _element(equation: Any, depth: int, prepare: Any) -> Run:
    size, refuse = equation.types[0].axes[0], _list_range(equation)

    def run(context: Any, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        xs, index = inputs
        return [select_rows(xs, safe_index(context, index, _count(context.sizes, size), refuse), depth)]

    return run


def _scatter_element(equation: Any, depth: int, prepare: Any) -> Run:
    size, refuse = equation.attributes["size"], _list_range(equation)

    def run(context: Any, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        value, index = inputs
        maximum = context.sizes.maximum(size)
        index = safe_index(context, index, _count(context.sizes, size), refuse)
        hit = torch.arange(maximum, device=context.sizes.device) == index.unsqueeze(-1)
        value = value.unsqueeze(depth)
        return [widened(torch.where(trailing(hit, value.dim()), value, value.new_zeros(())), depth, maximum)]

    return run


def _same(equation: Any, depth: int, prepare: Any) -> Run:
    """A list of a constant size is laid out like an array with that axis."""
    return lambda context, inputs: inputs


# --- windows ----------------------------------------------------------------------------------------------------------


def _window_settings(equation: Any) -> tuple[list[tuple[int, int, int]], list[int], int]:
    """Per dimension (window, stride, dilation); the padding as torch's `pad` takes it; how many dimensions."""
    a = equation.attributes
    d = len(a["window"])
    rest = len(equation.types[0].shape) - (d if equation.op == "overlap_add" else 0)
    widths = [0, 0] * rest + [w for pair in zip(reversed(a["low"]), reversed(a["high"]), strict=True) for w in pair]
    return list(zip(a["window"], a["stride"], a["dilation"], strict=True)), widths, d


def _view(equation: Any, depth: int, prepare: Any) -> Run:
    (own,), fill, out = equation.types, equation.attributes["fill"], equation.output.type
    settings, widths, d = _window_settings(equation)
    rank = len(own.shape)
    first_rest, first_window = depth + d, depth + d + rank
    order = [*range(first_rest), *range(first_window, first_window + d), *range(first_rest, first_window)]

    def run(context: Any, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        (xs,), sizes = inputs, context.sizes
        counts = [sizes.maximum(size) for size in out.axes]
        if 0 in counts:
            return [xs.new_zeros((*xs.shape[:depth], *counts, *out.shape))]
        mask = sizes.list_mask(own.axes)
        if mask is not None:
            xs = torch.where(trailing(mask, xs.dim()), xs, xs.new_full((), fill))
        if any(widths):
            xs = pad(xs, widths, value=fill)
        for i, (window, stride, dilation) in enumerate(settings):
            xs = xs.unfold(depth + i, span(window, dilation), stride)[..., ::dilation]
        return [xs.permute(order)]

    return run


def _overlap_add(equation: Any, depth: int, prepare: Any) -> Run:
    (own,), grid, out = equation.types, equation.attributes["sizes"], equation.output.type
    settings, widths, d = _window_settings(equation)
    crop = [-w for w in widths]

    def run(context: Any, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        (xs,), sizes = inputs, context.sizes
        extents = [sizes.maximum(size) for size in grid]
        counts = xs.shape[depth : depth + d]
        if 0 in counts:
            return [xs.new_zeros((*xs.shape[:depth], *extents, *out.shape))]
        mask = sizes.list_mask(own.axes)
        if mask is not None:
            xs = torch.where(trailing(mask, xs.dim()), xs, xs.new_zeros(()))
        lows, highs = equation.attributes["low"], equation.attributes["high"]
        padded = [n + low + high for n, low, high in zip(extents, lows, highs, strict=True)]
        wide = torch.float32 if xs.dtype in HALVES else xs.dtype
        total = xs.new_zeros((*xs.shape[:depth], *padded, *out.shape), dtype=wide)
        for place in torch.cartesian_prod(*(torch.arange(w) for w, _, _ in settings)).reshape(-1, d).tolist():
            where: list[Any] = [slice(None)] * depth
            for k, n, (_, stride, dilation) in zip(place, counts, settings, strict=True):
                where.append(slice(k * dilation, k * dilation + (n - 1) * stride + 1, stride))
            total[tuple(where)] += xs[(..., *place, *(slice(None),) * len(out.shape))]
        return [(pad(total, crop) if any(crop) else total).to(xs.dtype)]

    return run


# --- segments ---------------------------------------------------------------------------------------------------------


def _split(equation: Any, depth: int, prepare: Any) -> Run:
    size, length = equation.attributes["size"], equation.attributes["length"]
    (segments,) = equation.outputs[0].type.axes

    def run(context: Any, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        sizes = context.sizes
        count, maximum = sizes.maximum(segments), sizes.maximum(size)
        starts = torch.arange(count, device=sizes.device) * length
        lengths = sizes.lengths(size)
        total = torch.full((1,) * depth, maximum, device=sizes.device) if lengths is None else lengths
        out = [(total.unsqueeze(-1) - starts).clamp(0, length)]
        for xs in inputs:
            widths = [0, 0] * (xs.dim() - depth - 1) + [0, count * length - maximum]
            xs = pad(xs, widths) if widths[-1] else xs
            out.append(xs.unflatten(depth, (count, length)))
        return out

    return run


def _join(equation: Any, depth: int, prepare: Any) -> Run:
    size = equation.attributes["size"]

    def run(context: Any, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        (xs,) = inputs
        # All segments but a list's last are full, so its elements stand together at the front.
        return [xs.flatten(depth, depth + 1).narrow(depth, 0, context.sizes.maximum(size))]

    return run


# --- rows -------------------------------------------------------------------------------------------------------------


def _accumulate_rows(equation: Any, depth: int, prepare: Any) -> Run:
    axes, size = equation.types[0].axes, equation.attributes["size"]
    row = equation.outputs[0].type.shape[1:]

    def refuse(index: int, count: int) -> Exception:
        message = f"the index {index} is out of range for a table of {count}; indices run from 0 to {count - 1}"
        return IndexRangeError(message, equation.source)

    def run(context: Any, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        updates, index = inputs
        mask = context.sizes.list_mask(axes)
        if mask is not None:
            updates = torch.where(trailing(mask, updates.dim()), updates, updates.new_zeros(()))
            index = torch.where(trailing(mask, index.dim()), index, torch.zeros_like(index))
        index = safe_index(context, index, size, refuse)
        lead = common_lead([updates.shape, index.shape], depth)
        updates, index = with_lead(updates, lead, depth), with_lead(index, lead, depth)
        tables, places = math.prod(lead), math.prod(index.shape[depth:])
        offsets = torch.arange(tables, device=index.device).unsqueeze(-1) * size
        rows = (index.reshape(tables, places) + offsets).reshape(-1)
        total = updates.new_zeros((tables * size, *row))
        return [total.index_add(0, rows, updates.reshape(tables * places, *row)).reshape((*lead, size, *row))]

    return run


# --- another name for a size -----------------------------------------------------------------------------------------


def _resize(equation: Any, depth: int, prepare: Any) -> Run:
    old, new = equation.types[0].axes, equation.attributes["sizes"]

    def run(context: Any, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        (xs,), sizes = inputs, context.sizes
        if context.check:
            _refuse_different(context, old[: len(new)], new, equation)
        for d, size in enumerate(new):
            extent, found = sizes.maximum(size), xs.size(depth + d)
            if extent < found:
                xs = xs.narrow(depth + d, 0, extent)
            elif extent > found:
                xs = pad(xs, [0, 0] * (xs.dim() - depth - d - 1) + [0, extent - found])
        return [xs]

    return run


def _refuse_different(context: Any, old: Sequence[Any], new: Sequence[Any], equation: Any) -> None:
    """Raise where a live row's lists prove to be of two lengths."""
    sizes = context.sizes
    for left, right in zip(old, new):
        found, wanted = _count(sizes, left), _count(sizes, right)
        if isinstance(found, int) and isinstance(wanted, int):
            if found != wanted:
                raise different(equation, found, wanted)
        else:
            bad = torch.as_tensor(found != wanted)
            bad = bad if context.live is None else bad & context.live
            if bool(bad.any()):
                at = tuple(bad.nonzero()[0].tolist())
                pair = [int(torch.broadcast_to(torch.as_tensor(n), bad.shape)[at]) for n in (found, wanted)]
                raise different(equation, *pair)


LISTS: dict[str, Callable[[Any, int, Any], Run]] = {
    "reduce": _reduce,
    "resize": _resize,
    "accumulate_rows": _accumulate_rows,
    "iota": _iota,
    "length": _length,
    "element": _element,
    "scatter_element": _scatter_element,
    "stack": _same,
    "unstack": _same,
    "view": _view,
    "overlap_add": _overlap_add,
    "split": _split,
    "join": _join,
}
