"""Programs run by kernels: the steps of a partition one after another, on the tensors of a call.

What a kernel does is decided once per program, numerics, set of ragged sizes and kind of batch (small, middle, large:
`kernels.strategy.BATCHES`); otherwise no batch or length makes another kernel. Steps that no kernel is made of are
evaluated by the eager evaluator between the launches, under the maps they stand in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..compiler.errors import StrategyError
from ..compiler.ir import Graph
from ..compiler.sizes import ROWS_OF, TIMES_OF, Named, Size, flat_size, stored, total_of
from ..compiler.types import ListType
from ..kernels.emit import ORDER_OF, Numerics
from ..kernels.expressions import Dimension
from ..kernels.flat import FlatOpaque, FlatProgram, FlatScan, FlatValue, Unsupported, flatten
from ..kernels.groups import Group
from ..kernels.kernel import Kernel
from ..kernels.partition import EvaluatorStep, KernelStep, Partition, evaluated, partition
from ..kernels.request import LEANEST, Request, typical_rows
from ..kernels.strategy import Choice, plan_kernel
from ..kernels.targets import TARGETS, Target, target
from . import compat, eager, stepwise
from .call_precision import tf32_chosen
from .dtypes import DTYPES
from .dynamo import constant_result
from .eager_sizes import Environment, Extent
from .flat_bodies import Alone, alone
from .launch import launch, spilled
from .layout import Layout, flat_sizes, over_elements
from .stepwise import PlannedLoop

__all__ = ["Fused", "PlannedKernel", "PlannedLoop", "current_request", "has_kernels", "of", "plan", "requested", "run"]


@dataclass(frozen=True)
class PlannedKernel:
    """A kernel in a program.

    Attributes:
        kernel: the kernel.
        buffers: the values that lie in its buffers.
        choice: its placement, and why.
        again: plans it anew, leaner by so much.
        trips: of a kernel in a loop of the host, how often it runs.
    """

    kernel: Kernel
    buffers: Mapping[str, FlatValue]
    choice: Choice
    again: Callable[[int], PlannedKernel]
    trips: Size | None = None


@dataclass(frozen=True)
class PlannedEvaluation(Alone):
    """Equations for the evaluator.

    Attributes:
        reason: why no kernel is made of them.
        pads: whether packed and jagged lists are padded for them.
    """

    reason: str = ""
    pads: bool = False


def _kernels(step: PlannedKernel | PlannedEvaluation | PlannedLoop) -> tuple[PlannedKernel, ...]:
    if isinstance(step, PlannedKernel):
        return (step,)
    if isinstance(step, PlannedLoop):
        return tuple(replace(k, trips=step.size) for k in step.step.kernels)
    return ()


def _planned_kernel(parts: Partition, group: Group, request: Request, ragged: frozenset[str]) -> PlannedKernel:
    def again(lean: int) -> PlannedKernel:
        return PlannedKernel(*plan_kernel(parts, group, replace(request, lean=lean), ragged), again)

    return again(request.lean)


def settled(planned: PlannedKernel, spilled: Callable[[Kernel], int]) -> PlannedKernel:
    """A kernel, or of the leaner ones in its place the one that spills least; see `Fused.settle`."""
    best, least = planned, spilled(planned.kernel)
    for lean in range(1, LEANEST + 1):
        if not least:
            break
        try:
            other = planned.again(lean)
        except StrategyError:
            # No leaner kernel holds the step.
            break
        found = spilled(other.kernel) if other.kernel.key != best.kernel.key else least
        if found < least:
            best, least = other, found
    return best


class Fused:
    """A program as launches and evaluations.

    Arguments:
        program: the flat program.
        request: for what target, with what numerics and strategies.
        ragged: the list sizes that have tables, and the further tables of flat ones.

    Attributes:
        steps: in order.
        kernels: those of the steps that are kernels.
        tables: the tables of lengths, and orders of rows, that they read.
    """

    def __init__(self, program: FlatProgram, request: Request, ragged: frozenset[str]):
        self.program = program
        self.ragged = ragged
        parts = partition(program, request.vendor, ragged)
        self.aliases = parts.aliases
        self.steps: list[PlannedKernel | PlannedEvaluation | PlannedLoop] = []
        for step in parts.steps:
            if isinstance(step, KernelStep):
                self.steps.append(_planned_kernel(parts, step.group, request, ragged))
            else:
                self.steps.append(self._between(step, request))
        self._gather()
        self._tables: dict[torch.device, dict[FlatValue, Tensor]] = {}

    def _gather(self) -> None:
        self.kernels = tuple(k for s in self.steps for k in _kernels(s))
        self.tables = {a.size for k in self.kernels for a in k.kernel.arguments if a.kind == "lengths"}
        self._released = self._releases()

    def settle(self, spilled: Callable[[Kernel], int]) -> None:
        """Plan the kernels that spill registers again, leaner, as long as that helps: what a compiler makes of a kernel
        no estimate knows.

        Arguments:
            spilled: compiles a kernel, and says how much of its registers it spills.
        """
        for place, step in enumerate(self.steps):
            if isinstance(step, PlannedLoop):
                step.step.settle(spilled)
            elif isinstance(step, PlannedKernel):
                self.steps[place] = settled(step, spilled)
        self._gather()

    def _between(self, step: EvaluatorStep, request: Request) -> PlannedEvaluation | PlannedLoop:
        """What runs between kernels: a loop whose step has kernels, if it is one, or an evaluation."""
        item = step.item
        if isinstance(item, FlatOpaque) and item.equation.op == "scan" and not item.equation.attributes.get("stop"):
            loop = stepwise.plan_loop(item, self.program, lambda graph: plan(graph, request, self.ragged))
            if loop is not None:
                return loop
        made = alone(item, self.program.flat)
        unpadded = dict.fromkeys(flat_sizes(self.program.graph), "B")
        lists = any(flat_size(value.dims, unpadded) for value in (*made.operands, *made.outputs))
        kernel = evaluated(item, unpadded, self.program.segments, request.vendor) is None
        pads = lists and not kernel and alone(item, unpadded).flat is None
        return PlannedEvaluation(made.body, made.operands, made.outputs, made.flat, step.reason, pads)

    def _reads(self, step: PlannedKernel | PlannedEvaluation | PlannedLoop) -> set[FlatValue]:
        values = set(step.buffers.values()) if isinstance(step, PlannedKernel) else {*step.operands, *step.outputs}
        return {self.aliases[v].buffer if v in self.aliases else v for v in values}

    def _releases(self) -> list[tuple[FlatValue, ...]]:
        """Per step, the values that nothing reads after it."""
        kept = {*self.program.outputs, *self.program.inputs}
        kept |= {self.aliases[v].buffer for v in kept if v in self.aliases}
        out = []
        for step in reversed(self.steps):
            values = self._reads(step) - kept
            out.append(tuple(values))
            kept |= values
        return out[::-1]

    def run(
        self,
        inputs: Sequence[Tensor],
        lengths: Mapping[str, Tensor],
        sizes: Environment,
        extents: Mapping[str, int],
        layouts: Mapping[str, Layout] | None = None,
    ) -> list[Tensor]:
        """The outputs.

        Arguments:
            inputs: one contiguous tensor per input of the program.
            lengths: per ragged size its table, i64, contiguous, of dims (axes that it varies with…), and other tables.
            sizes: the sizes as the evaluator knows them.
            extents: per named size, the extent of padded lists; per flat size, the number of elements too.
            layouts: per flat size, how its lists lie.
        """
        layouts = layouts or {}
        device = sizes.device
        values: dict[FlatValue, Tensor] = dict(zip(self.program.inputs, inputs, strict=True))
        values.update(self._constants(device))
        for step, released in zip(self.steps, self._released, strict=True):
            if isinstance(step, PlannedKernel):
                buffers = {name: self._buffer(value, values, extents, device) for name, value in step.buffers.items()}
                launch(step.kernel, buffers, extents, lengths)
            else:
                operands = [self._read(v, values, extents, device) for v in step.operands]
                results = self._between_launches(step, operands, lengths, sizes, extents, layouts)
                for value, result in zip(step.outputs, results, strict=True):
                    shape = self._shape(value, extents)
                    result = result.expand(shape) if tuple(result.shape) != shape else result
                    values[value] = result.contiguous()
            for value in released:
                values.pop(value, None)
        return [self._read(v, values, extents, device) for v in self.program.outputs]

    def _between_launches(
        self,
        step: PlannedEvaluation | PlannedLoop,
        operands: Sequence[Tensor],
        lengths: Mapping[str, Tensor],
        sizes: Environment,
        extents: Mapping[str, int],
        layouts: Mapping[str, Layout],
    ) -> Sequence[Tensor]:
        """The outputs of a step that is no launch. What does not run over the elements of flat lists is given padded
        ones, as the evaluator knows them."""
        if isinstance(step, PlannedEvaluation) and step.flat is not None:
            made = eager.prepare(step.body, 0)
            elements = over_elements(sizes, step.flat, self.program.flat[step.flat], layouts[step.flat], made.names)
            return made(eager.Context(elements, None, False), operands)
        flat = lambda value: flat_size(value.dims, self.program.flat)
        operands = [
            x if name is None else layouts[name].pad(x, extents[name])
            for x, name in zip(operands, map(flat, step.operands), strict=True)
        ]
        if isinstance(step, PlannedLoop):
            results = step.run(operands, lengths, sizes, extents)
        else:
            results = eager.prepare(step.body, 0)(eager.Context(sizes, None, False), operands)
        return [
            x if name is None else layouts[name].take(x.expand(_extents(value.dims, extents)))
            for x, value, name in zip(results, step.outputs, map(flat, step.outputs), strict=True)
        ]

    def _shape(self, value: FlatValue, extents: Mapping[str, int]) -> tuple[int, ...]:
        return _extents(stored(value.dims, self.program.flat), extents)

    def _buffer(
        self, value: FlatValue, values: dict[FlatValue, Tensor], extents: Mapping[str, int], device: torch.device
    ) -> Tensor:
        found = values.get(value)
        if found is None:
            # What lies behind the end of a list is written by nobody.
            uneven = self.ragged | self.program.segments.keys()
            dims = stored(value.dims, self.program.flat)
            padded = any(isinstance(n, Size) and not uneven.isdisjoint(n.names()) for n in dims)
            make = torch.zeros if padded else torch.empty
            found = make(self._shape(value, extents), dtype=DTYPES[value.dtype], device=device)
            values[value] = found
        return found

    def _read(
        self, value: FlatValue, values: dict[FlatValue, Tensor], extents: Mapping[str, int], device: torch.device
    ) -> Tensor:
        if 0 in value.dims:
            # Nobody computes what has no elements.
            return self._buffer(value, values, extents, device)
        alias = self.aliases.get(value)
        if alias is None:
            return values[value]
        size = value.dims[alias.dim]
        dim = alias.dim - (len(value.dims) - len(stored(value.dims, self.program.flat)))
        return values[alias.buffer].narrow(dim, alias.offset, size)

    def _constants(self, device: torch.device) -> dict[FlatValue, Tensor]:
        if device not in self._tables:
            found: dict[FlatValue, Tensor] = {}
            for step in self.steps:
                values = step.buffers.values() if isinstance(step, PlannedKernel) else step.operands
                for value in values:
                    if value.role == "table" and value not in found:
                        dtype = DTYPES[value.dtype]
                        found[value] = torch.tensor(value.table.tolist(), dtype=dtype, device=device).reshape(
                            value.dims
                        )
            for value in self.program.outputs:
                if value.role == "table" and value not in found:
                    dtype = DTYPES[value.dtype]
                    found[value] = torch.tensor(value.table.tolist(), dtype=dtype, device=device).reshape(value.dims)
            self._tables[device] = found
        return self._tables[device]


def _extents(dims: Sequence[Dimension], extents: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(n if isinstance(n, int) else int(n.evaluate(extents.__getitem__)) for n in dims)


# Of the process and not of a thread: autograd runs backward passes in threads of its own.
_requested: list[Request] = []


@contextmanager
def requested(request: Request) -> Iterator[None]:
    """Plan kernels as a request says, in all threads, also for CPU tensors where Triton's interpreter is on.

    Example:
        >>> with requested(Request(force="streamed")):
        ...     model(x)
    """
    _requested.append(request)
    try:
        yield
    finally:
        _requested.pop()


def current_request(device: torch.device) -> Request | None:
    """What kernels are wanted for on a device; None where programs are evaluated."""
    interpreted = device.type == "cpu" and compat.interpreting()
    if not interpreted and (device.type != "cuda" or not compat.has_triton()):
        return None
    numerics = Numerics("tf32" if tf32_chosen() else "ieee", interpreted)
    if _requested:
        return replace(_requested[-1], numerics=numerics)
    return Request(target_of(device).name, numerics)


def target_of(device: torch.device) -> Target:
    """The target that stands for a device."""
    if device.type != "cuda":
        return target("sm_90")
    if torch.version.hip:
        return target("gfx942")
    major, minor = torch.cuda.get_device_capability(device)
    known = [t for t in TARGETS.values() if t.backend == "cuda"]
    older = [t for t in known if t.architecture <= major * 10 + minor]
    return max(older, key=lambda t: t.architecture) if older else min(known, key=lambda t: t.architecture)


def of(program: Any, device: torch.device, ragged: frozenset[str], extents: Mapping[str, int]) -> Fused | None:
    """The kernels of a program on a device; None where it is evaluated.

    Arguments:
        program: an `executable.Executable`, which keeps what is made.
        device: of its tensors.
        ragged: the sizes whose tables the call gives.
        extents: per named size, the extent of padded lists: the kernels are those for such a batch.
    """
    request = current_request(device)
    if request is None:
        return None
    flat = program.once("flat program", lambda: _flattened(program.graph))
    if isinstance(flat, str):
        return None
    request = replace(request, rows=typical_rows(batch_rows(flat, extents)))
    held = {d.name for d in program.graph.sizes if d.input is not None}

    def make() -> Fused | str:
        planned = _planned(flat, request, ragged | held)
        if isinstance(planned, Fused) and not request.numerics.interpreted:
            planned.settle(lambda kernel: spilled(kernel, device))
        return planned

    made = program.once(("kernels", request, ragged), make)
    return None if isinstance(made, str) else made


def batch_rows(program: FlatProgram, extents: Mapping[str, int]) -> int:
    """How many rows the scan of a program with the most rows has; 0 where there is none, or its extents are unknown."""
    most = 0
    for item in program.items:
        if isinstance(item, FlatScan) or (isinstance(item, FlatOpaque) and item.equation.op == "scan"):
            sizes = [level.size for level in item.levels]
            names = {n for size in sizes if isinstance(size, Size) for n in size.names()}
            if names <= extents.keys():
                most = max(most, prod(s if isinstance(s, int) else s.evaluate(extents.__getitem__) for s in sizes))
    return most


@constant_result
def has_kernels(device: torch.device) -> bool:
    """Whether programs run as kernels on a device."""
    return current_request(device) is not None


def run(
    kernels: Fused, inputs: Sequence[Tensor], tables: Mapping[str, Tensor], maxima: Mapping[str, int]
) -> list[Tensor]:
    """Run a program on its kernels.

    Arguments:
        kernels: of the program.
        inputs, tables, maxima: those of `eager.run`, all declared sizes among the last; of flat sizes, stored as they
            are, with their further tables and numbers of elements.
    """
    graph, flat = kernels.program.graph, kernels.program.flat
    sizes = eager.environment(graph, inputs, tables, maxima, inputs[0].device)
    for name, (size, length) in kernels.program.segments.items():
        sizes = with_segments(sizes, name, size, length)
    layouts = {name: Layout.given(name, tables, maxima) for name in flat}
    extents = {name: extent.maximum for name, extent in sizes.extents.items()}
    extents.update({total_of(name).name: layout.total for name, layout in layouts.items()})
    lengths = {}
    for name, table in tables.items():
        if name.startswith((ROWS_OF, TIMES_OF)):
            # The first entry is read before a loop whether or not it has steps.
            lengths[name] = table.contiguous() if table.numel() else table.new_zeros(1)
    for declaration in graph.sizes:
        if declaration.name in kernels.ragged:
            table = sizes.extents[declaration.name].lengths
            if declaration.input is None:
                axes: Sequence[Size] = [Named(axis) for axis in declaration.over]
            else:
                axes = graph.body.parameters[declaration.input].type.axes
            over = [sizes.maximum(axis) for axis in axes] if table.dim() else []
            lengths[declaration.name] = table.expand(over).contiguous()
            if f"{ORDER_OF}{declaration.name}" in kernels.tables:
                order = torch.argsort(lengths[declaration.name], descending=True, stable=True)
                lengths[f"{ORDER_OF}{declaration.name}"] = order
    outputs = kernels.run(inputs, lengths, sizes, extents, layouts)
    if not kernels.ragged and not kernels.program.segments:
        return outputs
    made = []
    for value, result in zip(outputs, graph.body.results, strict=True):
        type_, name, here = result.type, flat_size(result.type.axes, flat), sizes
        if name is not None:
            type_ = ListType(type_.dtype, stored(type_.axes, flat), type_.shape)
            wanted = {n for axis in type_.axes for n in axis.names()}
            here = over_elements(sizes, name, flat[name], layouts[name], wanted)
        made.append(eager.zero_padding(value, type_, here))
    return made


def with_segments(sizes: Environment, name: str, size: Size, length: int) -> Environment:
    """The sizes and that of the segments of a list."""
    count = size.quotient(length - 1, length)
    starts = torch.arange(sizes.maximum(count), device=sizes.device) * length
    extents = [sizes.extents[n] for n in size.names()]
    lengths = [e.lengths for e in extents if e.lengths is not None]
    if lengths:
        total = size.evaluate(lambda n: sizes.extents[n].lengths)
        over, rest = extents[0].over, total.unsqueeze(-1) - starts
    else:
        over, rest = (), sizes.maximum(size) - starts
    return sizes.bind(name, Extent(length, rest.clamp(0, length), (*over, str(count))))


def plan(graph: Graph, request: Request, ragged: frozenset[str]) -> Fused | str:
    """How a graph is run by kernels, or why it is not."""
    return _planned(_flattened(graph), request, ragged)


def _planned(flat: FlatProgram | str, request: Request, ragged: frozenset[str]) -> Fused | str:
    try:
        return flat if isinstance(flat, str) else Fused(flat, request, ragged)
    except Unsupported as refusal:
        return str(refusal)


def _flattened(graph: Graph) -> FlatProgram | str:
    """The flat program of a graph, or why there is none."""
    try:
        return flatten(graph)
    except Unsupported as refusal:
        return str(refusal)
