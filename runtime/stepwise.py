"""Loops that no kernel holds, such as a convolution in a recurrence: the host runs a step's kernels again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..compiler.builder import Builder
from ..compiler.ir import Graph
from ..compiler.pipeline import normalise
from ..compiler.sizes import Size, flat_size
from ..kernels.flat import FlatOpaque, FlatProgram, FlatValue, Level
from .dtypes import DTYPES
from .eager_shapes import trailing
from .eager_sizes import Environment
from .flat_bodies import list_size, under_maps
from .layout import flat_sizes

__all__ = ["PlannedLoop", "plan_loop"]


@dataclass(frozen=True)
class PlannedLoop:
    """A scan that the host runs.

    Attributes:
        step: the `fused.Fused` of one step: (captured, carries, elements) → (carries, outputs), over all rows at once.
        operands: the scan's inputs, `leads` the levels that each is a list over.
        outputs: its last carries and lists.
        levels: the maps around it.
        captured, carries: how many of its inputs are these.
        size: how often it runs; `reverse`: from the last element to the first.
        reason: why no kernel holds it.
        source: the place in the user's program.
        pads: whether packed and jagged lists are padded for it.
    """

    step: Any
    operands: tuple[FlatValue, ...]
    leads: tuple[int, ...]
    outputs: tuple[FlatValue, ...]
    levels: tuple[Level, ...]
    captured: int
    carries: int
    size: Size
    reverse: bool
    reason: str
    source: Any = None
    pads: bool = False

    def run(
        self, operands: Sequence[Tensor], lengths: Mapping[str, Tensor], sizes: Environment, extents: Mapping[str, int]
    ) -> list[Tensor]:
        """The last carries and the lists; the other arguments are those of `fused.Fused.run`."""
        first, depth = self.captured + self.carries, len(self.levels)
        inside = sizes
        for level in self.levels:
            inside = inside.enter(list_size(level))
        steps, rows = sizes.maximum(self.size), [sizes.maximum(list_size(level)) for level in self.levels]
        live = inside.lengths(self.size)
        carry = []
        for tensor, lead in zip(operands[self.captured : first], self.leads[self.captured : first], strict=True):
            # A first carry that does not vary with all maps is one for each row from the first step on.
            own = tensor.shape[lead:]
            shape = (*rows, *own)
            carry.append(
                tensor.reshape((*tensor.shape[:lead], *(1,) * (depth - lead), *own)).expand(shape).contiguous()
            )
        lists = [self.empty(value, sizes) for value in self.outputs[self.carries :]]
        for t in reversed(range(steps)) if self.reverse else range(steps):
            pairs = zip(operands[first:], self.leads[first:], strict=True)
            elements = [tensor.select(lead, t).contiguous() for tensor, lead in pairs]
            results = self.step.run([*operands[: self.captured], *carry, *elements], lengths, sizes, extents)
            alive = None if live is None else live > t
            after = results[: self.carries]
            if alive is not None:
                after = [
                    torch.where(trailing(alive, new.dim()), new, old) for new, old in zip(after, carry, strict=True)
                ]
            carry = [x.contiguous() for x in after]
            for place, value in enumerate(results[self.carries :]):
                if alive is not None:
                    value = torch.where(trailing(alive, value.dim()), value, value.new_zeros(()))
                lists[place].select(depth, t).copy_(value)
        return [*carry, *lists]

    def empty(self, value: FlatValue, sizes: Environment) -> Tensor:
        """The list of an output, all of it padding yet."""
        shape = [n if isinstance(n, int) else sizes.maximum(n) for n in value.dims]
        return torch.zeros(shape, dtype=DTYPES[value.dtype], device=sizes.device)


def plan_loop(item: FlatOpaque, program: FlatProgram, plan: Callable[[Graph], Any]) -> PlannedLoop | None:
    """The loop of a scan, or None where the evaluator runs it as a whole: a step has no kernel, makes lists whose sizes
    vary with the loop, or its first carries and elements are lists over other maps than the scan.

    Arguments:
        item: the scan.
        program: it stands in.
        plan: makes the `fused.Fused` of a graph, or says why not.
    """
    a, equation = item.equation.attributes, item.equation
    (body,), captured, carries, size = equation.bodies, a["captured"], a["carries"], a["size"]
    first = captured + carries
    if any(str(size) in over for over in program.over.values()):
        return None
    leads = [reference.lead for reference in item.operands]
    if any(lead != item.levels[: len(lead)] for lead in leads[captured:]):
        return None
    b = Builder()
    b.source = equation.source
    references = []
    for i, (parameter, reference) in enumerate(zip(body.parameters, item.operands, strict=True)):
        lead = item.levels if captured <= i < first else reference.lead
        references.append((b.parameter(parameter.type.listed(*map(list_size, lead)), parameter.name), lead))
    results = under_maps(b, item.levels, references, lambda inner, values: inner.inline(body, values))
    made, _ = b.close(results)
    names = tuple(f"in_{i}" for i in range(len(made.parameters)))
    # A step is given one element of each list, and what it captures with padding.
    sizes = program.graph.with_flat(()).sizes
    graph = Graph("step", made, names, tuple(f"out_{i}" for i in range(len(results))), sizes)
    if any(d.input is not None for d in graph.sizes):
        return None
    unpadded = dict.fromkeys(flat_sizes(program.graph), "B")
    step = plan(normalise(graph))
    if isinstance(step, str) or not step.kernels:
        return None
    return PlannedLoop(
        step,
        tuple(r.value for r in item.operands),
        tuple(len(lead) for lead in leads),
        item.outputs,
        item.levels,
        captured,
        carries,
        size,
        a["reverse"],
        item.reason,
        equation.source,
        any(flat_size(value.dims, unpadded) for value in (*(r.value for r in item.operands), *item.outputs)),
    )
