"""The combinators with bodies in torch: map, scan (fold and unfold too), reductions with a traced operation, switch.

For each name a function of (equation, depth, prepare) makes ``(context, inputs) -> outputs``; `prepare(body, depth)`
compiles a body for a number of leading dims. A map turns the outermost list axis into one more leading dim, so its
body runs once for all elements. A scan steps in Python; under ragged lengths a finished row keeps its carry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..compiler.combinators.scan import UNBOUNDED_LIMIT, never_stopped
from ..compiler.errors import IndexRangeError
from .eager_lists import Run
from .eager_operations import safe_index
from .eager_shapes import alike, common_lead, even, flatten_lead, take_rows, trailing, widened
from .eager_sizes import Extent

# --- map --------------------------------------------------------------------------------------------------------------


def _map(equation: Any, depth: int, prepare: Any) -> Run:
    body = prepare(equation.bodies[0], depth + 1)
    size, captured = equation.attributes["size"], equation.attributes["captured"]

    def run(context: Any, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        sizes, live = context.sizes, context.live
        maximum = sizes.maximum(size)
        if not body.reads_live(context):
            # Nothing inside asks for it, and it has not the dims of what stands there.
            live = None
        else:
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
            return [*carry, *(sizes.empty(v.type) for v in equation.outputs[carries:])]
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
            results = body(
                context.inside(sizes.at(size, t), live), [*constants, *carry, *[column[t] for column in columns]]
            )
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
            return [*carry, count, *(nothing.empty(v.type) for v in equation.outputs[carries + 1 :])]
        if bound is not None:
            # Dead positions repeat the last step: garbage like any padding, but of values that the program takes.
            rows.extend([rows[-1]] * (bound - len(rows)))
        return [*carry, count, *(torch.stack(list(alike(column, depth)), depth) for column in zip(*rows, strict=True))]

    return run


# --- switch -----------------------------------------------------------------------------------------------------------


def _switch(equation: Any, depth: int, prepare: Any) -> Run:
    """Where the host may look at the index, each branch runs on the rows that chose it; otherwise every branch runs on
    all rows and `where` selects."""
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
            out = (
                results
                if not kind
                else [torch.where(trailing(taken, r.dim()), r, o) for r, o in zip(results, out, strict=True)]
            )
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
        return [column.index_select(0, back).reshape((*lead, *column.shape[1:])) for column in columns]

    return run


LOOPS: dict[str, Callable[[Any, int, Any], Run]] = {
    "map": _map,
    "scan": _scan,
    "reduce_with": _scan,
    "switch": _switch,
}
