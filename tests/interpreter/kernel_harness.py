"""Running programs on their generated kernels in the interpreter, under instruments, and seeing which kernels ran."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock
from zlib import crc32

import numpy as np
import torch
from torch.utils import _pytree as pytree

import foldfuse as ff
from foldfuse.kernels.kernel import Kernel
from foldfuse.kernels.request import Request
from foldfuse.runtime import eager, fused

from .. import cells, harness
from ..programs import PROGRAMS, Program
from ..programs.record import floats
from ..programs.recurrences import D
from .addresses import recorded_addresses
from .hooks import Access, Instrument, InstrumentError, Launch, installed
from .memory import extent
from .offsets import narrow_products
from .poison import poisoned_empty
from .schedules import shuffled_schedules

STRATEGIES = ("resident", "streamed", "cooperative")


def named(name: str) -> Program:
    """A program of the corpus."""
    (found,) = (program for program in PROGRAMS if program.name == name)
    return found


def shortened(program: Program) -> Program:
    """A program with lists of three elements where the corpus has five: each half of a double buffer is still written
    again, and the interpreter's time is that of its steps."""
    if program.family == "recurrences":
        return replace(program, lengths=tuple(min(n, 3) for n in program.lengths))
    return program


def model_of(program: Program, memory: str = "auto", dtype: torch.dtype = torch.float64) -> ff.Model:
    """The model of a program of the corpus."""
    return harness.compiled(program, memory=memory).to(dtype)


# --- what ran ---------------------------------------------------------------------------------------------------------


@dataclass
class Trace:
    """What a block ran.

    Attributes:
        graphs: the programs that ran as kernels, in order.
        evaluated: how many programs ran on the evaluator as a whole.
    """

    graphs: list[fused.Fused] = field(default_factory=list)
    evaluated: int = 0

    @property
    def kernels(self) -> list[Kernel]:
        return [planned.kernel for graph in self.graphs for planned in graph.kernels]

    @property
    def scans(self) -> list[Kernel]:
        """The kernels with a loop over time."""
        return [kernel for kernel in self.kernels if kernel.name.startswith("scan")]


@contextmanager
def traced() -> Iterator[Trace]:
    """Keep book of the programs that run in the block."""
    trace = Trace()
    run_kernels, evaluate = fused.Fused.run, eager.run

    def kernels(graph: fused.Fused, *arguments: Any, **keywords: Any) -> Any:
        trace.graphs.append(graph)
        return run_kernels(graph, *arguments, **keywords)

    def evaluated(*arguments: Any, **keywords: Any) -> Any:
        trace.evaluated += 1
        return evaluate(*arguments, **keywords)

    with mock.patch.object(fused.Fused, "run", kernels), mock.patch.object(eager, "run", evaluated):
        yield trace


# --- running under instruments ----------------------------------------------------------------------------------------


class Guard(Instrument):
    """Stops a launch before it touches memory outside of its tensors: that ends the process, or worse, does not."""

    def started(self, launch: Launch) -> None:
        self.launch = launch
        self.extents = sorted(extent(tensor) for tensor in launch.tensors.values() if tensor.numel())

    def accessing(self, access: Access) -> None:
        addresses = access.addresses
        if not addresses.size:
            return
        inside = np.zeros(addresses.size, bool)
        for start, stop in self.extents:
            inside |= (addresses >= start) & (addresses + access.width <= stop)
        if not inside.all():
            count, site = np.count_nonzero(~inside), self.launch.site(sys._getframe())
            what = f"{access.operation} of {count} elements outside of its tensors"
            raise InstrumentError(f"kernel {self.launch.kernel}: {what} at {site}")


@contextmanager
def instruments(name: str) -> Iterator[None]:
    """Shuffled schedules, addresses recorded, fresh buffers poisoned; what the recorder finds is an error.

    Arguments:
        name: whose hash is the schedule's seed.
    """
    with ExitStack() as stack:
        stack.enter_context(shuffled_schedules(crc32(name.encode())))
        recorder = stack.enter_context(recorded_addresses())
        stack.enter_context(poisoned_empty(recorder))
        stack.enter_context(installed(Guard()))
        yield
    recorder.check()


def outcome(
    program: Program,
    batch: list[tuple],
    request: Request,
    ragged: bool = False,
    memory: str = "auto",
    dtype: torch.dtype = torch.float64,
) -> tuple[harness.Run, Trace]:
    """Values and gradients of a program by the kernels of a request, under all instruments, and what ran."""
    model = model_of(program, memory, dtype)
    with fused.requested(request), traced() as trace, instruments(program.name):
        found = harness.model_run(model, program, batch, ragged)
    return found, trace


def agrees_under(
    program: Program, request: Request, ragged: bool = False, lengths: tuple[int, ...] = (), **more: Any
) -> Trace:
    """Assert that a program on its kernels agrees with its plain counterpart, values and every gradient in float64.

    Arguments:
        program: one of the corpus.
        request: what kernels are wanted.
        ragged: whether the batch has rows of several lengths.
        lengths: of the rows; the program's own if left out.
        more: as for `outcome`.

    Returns:
        What ran.
    """
    batch = harness.examples(replace(program, lengths=lengths), True) if lengths else harness.examples(program, ragged)
    found, trace = outcome(program, batch, request, ragged, **more)
    harness.compare(found, harness.plain_run(program, batch))
    for kernel in trace.kernels:
        assert not narrow_products(kernel), f"{kernel.name} multiplies in 32 bits: {narrow_products(kernel)}"
    return trace


# --- other dtypes -----------------------------------------------------------------------------------------------------


def rounded(program: Program, dtype: torch.dtype) -> Program:
    """A program whose plain counterpart, in float64, takes the values that its parameters have in a dtype."""

    def plain(parameters: dict[str, torch.Tensor], *example: Any) -> Any:
        return program.plain({name: _round(value, dtype) for name, value in parameters.items()}, *example)

    return replace(program, plain=plain)


def examples_in(program: Program, ragged: bool, dtype: torch.dtype) -> tuple[list[tuple], list[tuple]]:
    """Examples whose floats are of a dtype, and the same ones in float64."""

    def cast(to: torch.dtype) -> Callable[[Any], Any]:
        def leaf(value: Any) -> Any:
            if not (isinstance(value, torch.Tensor) and value.is_floating_point()):
                return value
            return value.detach().to(dtype).to(to).requires_grad_()

        return leaf

    batch = harness.examples(program, ragged)
    narrow, wide = (pytree.tree_map(cast(to), batch) for to in (dtype, torch.float64))
    return narrow, wide


def _round(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return value.to(dtype).to(value.dtype)


# --- second derivatives -----------------------------------------------------------------------------------------------


def second_derivatives(outputs: Sequence[torch.Tensor], sources: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The gradient of a fixed random mixture of the gradients of a fixed random mixture of outputs."""

    def mixed(values: Sequence[torch.Tensor], seed: int) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for i, value in enumerate(values):
            if value.is_floating_point() and value.requires_grad:
                generator = torch.Generator().manual_seed(100 * seed + i)
                total = total + (value * torch.randn(value.shape, generator=generator, dtype=value.dtype)).sum()
        return total

    first = torch.autograd.grad(mixed(outputs, 1), sources, create_graph=True, materialize_grads=True)
    return list(torch.autograd.grad(mixed(first, 2), sources, materialize_grads=True))


# --- a recurrence whose step reads a whole list -----------------------------------------------------------------------


def attention_decoder(width: int, memory: int = 3) -> Program:
    """A decoder after Luong, Pham and Manning (2015): each step attends to a list that stands beside the loop.

    Arguments:
        width: of the state and of the vectors of the list that is read.
        memory: the length of that list.
    """
    shapes = {"W": (2 * width + D, width), "Q": (width, width)}

    def plain(p: dict[str, torch.Tensor], keys: torch.Tensor, xs: torch.Tensor) -> torch.Tensor:
        h = seen = torch.zeros(width, dtype=torch.float64)
        out = []
        for x in xs:
            h = torch.tanh(torch.cat((h, seen, x)) @ p["W"])
            seen = torch.softmax(keys @ (h @ p["Q"]), dim=0) @ keys
            out.append(seen)
        return torch.stack(out) if out else torch.zeros(0, width, dtype=torch.float64)

    def inputs(rng: Any, length: int) -> tuple:
        return floats(rng, memory + length % 2, width), floats(rng, length, D)

    build = lambda: {"main": cells.attention_decoder(width, D)}
    return Program("recurrences.attention_decoder", build, plain, inputs, shapes, lengths=(0, 1, 3))
