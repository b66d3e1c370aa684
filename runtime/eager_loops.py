"""The combinators on lists in torch: map, scan, reduce, views, segments, switch, and making and taking apart of lists.

For each name a function of (equation, depth, prepare) makes ``(context, inputs) -> outputs``; `prepare(body, depth)` compiles
a body for a number of leading dims. A map turns the outermost list axis into one more leading dim, so its body runs once for
all elements. A scan steps in Python; under ragged lengths a finished row keeps its carry. What lies in padding is never
multiplied by zero but replaced by `where`, so that a NaN there cannot leak.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..compiler.combinators.scan import UNBOUNDED_LIMIT, never_stopped
from ..compiler.combinators.window import span
from ..compiler.errors import EmptyError, IndexRangeError
from ..compiler.types import ListType
from .eager_contraction import HALVES
from .eager_operations import common_lead, safe_index, select_rows, torch_dtype, trailing
from .eager_sizes import Environment, Extent, flatten_lead, take_rows

Run = Callable[[Any, Sequence[Tensor]], Sequence[Tensor]]


def empty(type_: ListType, sizes: Environment) -> Tensor:
    """Zeros of a type, with leading dims of 1."""
    extents = [sizes.maximum(axis) for axis in type_.axes]
    return torch.zeros((*(1,) * sizes.depth, *extents, *type_.shape), dtype=torch_dtype(type_.dtype), device=sizes.device)


def widened(value: Tensor, dim: int, extent: int) -> Tensor:
    """A value that may have size 1 in a dim, with its full extent there."""
    if value.size(dim) == extent:
        return value
    shape = list(value.shape)
    shape[dim] = extent
    return value.expand(shape)


def even(values: Sequence[Tensor], first: int) -> Sequence[Tensor]:
    """Tensors whose lists (dims from `first` on) may have been made to several maxima, padded at the end to one."""
    shapes = [v.shape[first:] for v in values]
    if all(shape == shapes[0] for shape in shapes):
        return values
    target = [max(column) for column in zip(*shapes, strict=True)]
    widths = [[w for n, m in zip(reversed(target), reversed(shape), strict=True) for w in (0, n - m)] for shape in shapes]
    return [pad(v, w) if any(w) else v for v, w in zip(values, widths, strict=True)]


def alike(values: Sequence[Tensor], depth: int) -> Sequence[Tensor]:
    """Tensors made one by one, brought to one shape: leading dims expanded, lists of several maxima padded at the end."""
    first = values[0].shape
    if all(v.shape == first for v in values):
        return values
    lead = common_lead([v.shape for v in values], depth)
    return [v.expand(*lead, *v.shape[depth:]) for v in even(values, depth)]


# --- map --------------------------------------------------------------------------------------------------------------


def _map(equation: Any, depth: int, prepare: Any) -> Run:
    body = prepare(equation.bodies[0], depth + 1)
    size, captured = equation.attributes["size"], equation.attributes["captured"]

    def run(context: Any, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        sizes, live = context.sizes, context.live
        maximum = sizes.maximum(size)
        if body.reads_live(context):
            mask = sizes.mask(size)
            if mask is None and maximum == 0:
                mask = torch.zeros((*(1,) * depth, 0), dtype=torch.bool, device=sizes.device)
            live = None if live is None else live.unsqueeze(-1)
            live = mask if live is None else live if mask is None else live & mask
        arguments = [v.unsqueeze(depth) for v in inputs[:captured]]
        arguments.extend(inputs[captured:])
        results = body(context.inside(sizes.enter(size), live), arguments)
        return [widened(r, depth, maximum) for r in results]

    return run


# --- scan -------------------------------------------------------------------------------------------------------------


def _keep_finished(active: Sequence[Tensor] | Tensor, new: Sequence[Tensor], old: Sequence[Tensor]) -> list[Tensor]:
    """The carries after a step: those of rows that took it, the old ones elsewhere."""
    return [torch.where(trailing(active, n.dim()), n, o) for n, o in zip(new, old, strict=True)]


def _scan(equation: Any, depth: int, prepare: Any) -> Run:
    if equation.attributes.get("stop", False):
        return _until(equation, depth, prepare)
    body, a = prepare(equation.bodies[0], depth), equation.attributes
    size, captured, reverse = a["size"], a["captured"], a.get("reverse", False)
    first = captured + a["carries"]
    carries, emitted = a["carries"], len(equation.bodies[0].results) - a["carries"]

    def run(context: Any, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        sizes = context.sizes
        steps = sizes.maximum(size)
        carry = list(inputs[captured:first])
        if steps == 0:
            return [*carry, *(empty(v.type, sizes) for v in equation.outputs[carries:])]
        constants = list(inputs[:captured])
        columns = [xs.unbind(depth) for xs in inputs[first:]]
        lengths = sizes.lengths(size)
        if lengths is not None:
            # Before the shortest row ends no mask is needed; without a host copy of the lengths, from the start.
            shortest = int(lengths.min()) if context.check and lengths.numel() else 0
            active = (trailing(torch.arange(steps, device=sizes.device), 1 + depth) < lengths).unbind(0)
        else:
            shortest, active = steps, ()
        reads_live = body.reads_live(context)
        collected: list[list[Any]] = [[None] * steps for _ in range(emitted)]
        for t in range(steps - 1, -1, -1) if reverse else range(steps):
            ragged = t >= shortest
            live = context.live
            if ragged and reads_live:
                live = active[t] if live is None else active[t] & live
            results = body(context.inside(sizes.at(size, t), live), [*constants, *carry, *[column[t] for column in columns]])
            carry = _keep_finished(active[t], results[:carries], carry) if ragged else results[:carries]
            for out, value in zip(collected, results[carries:]):
                out[t] = value
        return [*carry, *(torch.stack(list(alike(out, depth)), depth) for out in collected)]

    return run


def _until(equation: Any, depth: int, prepare: Any) -> Run:
    """A scan whose rows stop by themselves: runs until all have, or to the bound."""
    body, a = prepare(equation.bodies[0], depth), equation.attributes
    captured, carries, bound, size = a["captured"], a["carries"], a["bound"], a["size"]
    limit = UNBOUNDED_LIMIT if bound is None else bound

    def run(context: Any, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        sizes = context.sizes
        constants, carry = list(inputs[:captured]), list(inputs[captured:])
        done = None if context.live is None else ~context.live
        count = torch.zeros((1,) * depth, dtype=torch.int64, device=sizes.device)
        rows: list[Sequence[Tensor]] = []
        synchronise = context.check or bound is None
        while not (synchronise and done is not None and bool(done.all())):
            if len(rows) == limit:
                if bound is None:
                    raise never_stopped(equation)
                break
            active = None if done is None else ~done
            results = body(context.inside(sizes.at(size, len(rows)), active), [*constants, *carry])
            new, stop = results[:carries], results[carries]
            carry = new if active is None else _keep_finished(active, new, carry)
            count = count + (1 if active is None else active)
            rows.append(results[carries + 1 :])
            done = stop if done is None else done | stop
        if not rows:
            nothing = sizes.bind(size.name, Extent(bound or 0))
            return [*carry, count, *(empty(v.type, nothing) for v in equation.outputs[carries + 1 :])]
        if bound is not None:
            # Dead positions repeat the last step: garbage like any padding, but of values that the program takes.
            rows.extend([rows[-1]] * (bound - len(rows)))
        return [*carry, count, *(torch.stack(list(alike(column, depth)), depth) for column in zip(*rows, strict=True))]

    return run


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
        bad = None if none_empty else torch.ones((1,) * context.sizes.depth, dtype=torch.bool, device=context.sizes.device)
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
    size = equation.attributes["size"]

    def run(context: Any, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        lengths = context.sizes.lengths(size)
        if lengths is None:
            lengths = torch.full((1,) * depth, context.sizes.maximum(size), dtype=torch.int64, device=context.sizes.device)
        return [lengths]

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
    """Per dimension (window, stride, dilation); the padding as `torch.nn.functional.pad` takes it; the number of dimensions."""
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


# --- switch -----------------------------------------------------------------------------------------------------------


def _switch(equation: Any, depth: int, prepare: Any) -> Run:
    """Where the host may look at the index, each branch runs on the rows that chose it; otherwise every branch runs on all
    rows and `where` selects."""
    at_depth = [prepare(body, depth) for body in equation.bodies]
    on_rows = [prepare(body, 1) for body in equation.bodies] if depth else at_depth
    kinds = len(at_depth)

    def refuse(index: int, count: int) -> Exception:
        return IndexRangeError(f"the index {index} is out of range for {count} kinds", equation.source)

    def run(context: Any, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        index, captured = safe_index(context, inputs[0], kinds, refuse), inputs[1:]
        if kinds == 1:
            return at_depth[0](context, captured)
        if not context.check:
            return _selected(context, index, captured)
        if context.live is not None:
            index = torch.where(context.live, index, torch.zeros_like(index))
        chosen = index.unique().tolist()
        if len(chosen) <= 1:
            return at_depth[chosen[0] if chosen else 0](context, captured)
        return _grouped(context, index, captured, chosen)

    def _selected(context: Any, index: Tensor, captured: Sequence[Tensor]) -> Sequence[Tensor]:
        out: list[Tensor] = []
        for kind, body in enumerate(at_depth):
            taken = index == kind
            live = context.live
            results = body(context.inside(context.sizes, taken if live is None else taken & live), captured)
            out = results if not kind else [torch.where(trailing(taken, r.dim()), r, o) for r, o in zip(results, out, strict=True)]
        return out

    def _grouped(context: Any, index: Tensor, captured: Sequence[Tensor], chosen: Sequence[int]) -> Sequence[Tensor]:
        live = () if context.live is None else (context.live,)
        lead = common_lead([v.shape for v in (index, *live, *captured)], depth)
        flat_index = index.expand(lead).reshape(-1)
        flat = [flatten_lead(v, depth, lead) for v in captured]
        flat_live = context.live.expand(lead).reshape(-1) if live else None
        parts, order, count = [], [], flat_index.numel()
        for kind in chosen:
            body, rows = on_rows[kind], (flat_index == kind).nonzero().squeeze(1)
            sizes = context.sizes.rows(lead, rows, body.names)
            inner = context.inside(sizes, None if flat_live is None else flat_live.index_select(0, rows))
            results = body(inner, [take_rows(v, rows, count) for v in flat])
            parts.append([widened(r, 0, rows.numel()) for r in results])
            order.append(rows)
        back = torch.cat(order).argsort()
        columns = [torch.cat(even(part, 1)) for part in zip(*parts, strict=True)]
        return [column.index_select(0, back).reshape(*lead, *column.shape[1:]) for column in columns]

    return run


COMBINATORS: dict[str, Callable[[Any, int, Any], Run]] = {
    "map": _map,
    "scan": _scan,
    "reduce": _reduce,
    "reduce_with": _scan,
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
    "switch": _switch,
}
