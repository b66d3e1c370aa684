"""`warmup`: what a call needs is made before the call, so that a CUDA graph can capture it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from ..compiler.errors import CaptureError, DerivativeError, ShapeError
from ..compiler.program import Entry, Port
from ..compiler.types import f32
from . import fused
from .autograd import evaluate
from .dtypes import torch_dtype
from .executable import Executable
from .launch import prepare
from .recording import record

__all__ = ["examples", "make_ready", "run_once"]


def examples(
    entry: Entry, arguments: Sequence[Any], dtype: torch.dtype | None, device: torch.device | None
) -> list[Any]:
    """Arguments of a call in which shapes became tensors of zeros, which take no memory.

    Arguments:
        entry: the entry point.
        arguments: as of a call; where an array, a padded list or a grid is declared, also its shape: a `torch.Size`, a
            tuple or a list of whole numbers.
        dtype: the float dtype of the parameters, where it is not the declared one.
        device: where the zeros lie.

    Returns:
        One per given argument. Whatever else does not fit is left to `binding.bind`, which says what is wrong.

    Raises:
        ShapeError: a shape has a negative extent.
    """
    ports, first = entry.inputs, len(entry.parameters) + entry.seeded
    if len(ports) == 1 and ports[0].kind == "product" and len(arguments) == len(ports[0].parts) != 1:
        ports = ports[0].parts
    default = f32 if entry.stored.bits == 16 else entry.stored
    stored = torch_dtype(entry.stored) if dtype is None else dtype

    def example(port: Port, value: Any) -> Any:
        while port.kind == "list":
            port = port.parts[0]
        if port.kind == "array":
            declared = entry.graph.body.parameters[first + port.leaf].type.dtype
            return _zeros(value, stored if declared == default else torch_dtype(declared), device)
        if port.kind == "product" and isinstance(port.product, Mapping) and isinstance(value, Mapping):
            parts = dict(zip(port.product, port.parts))
            return {key: example(parts[key], part) if key in parts else part for key, part in value.items()}
        if port.kind == "product" and isinstance(value, (tuple, list)) and len(value) == len(port.parts):
            made = [example(part, given) for part, given in zip(port.parts, value)]
            return type(value)(*made) if hasattr(value, "_fields") else type(value)(made)
        return value

    if len(ports) != len(arguments):
        return list(arguments)
    return [example(port, value) for port, value in zip(ports, arguments)]


def _zeros(value: Any, dtype: torch.dtype, device: torch.device | None) -> Any:
    """The zeros of a shape; anything else as it is."""
    if not isinstance(value, (tuple, list)) or not all(type(extent) is int for extent in value):
        return value
    if any(extent < 0 for extent in value):
        raise ShapeError(f"a shape has no negative extents; got {tuple(value)}")
    return torch.zeros((), dtype=dtype, device=device).expand(tuple(value))


def make_ready(
    program: Executable,
    inputs: Sequence[Tensor],
    tables: Sequence[Tensor | None],
    memory: str,
    extents: Mapping[str, int],
    backward: bool,
) -> None:
    """Make the programs of a call, and compile their kernels for the device of its tensors.

    Arguments:
        program: what is called.
        inputs: the tensors of the call, of which only dtypes, devices and whether they require gradients are read.
        tables: per name in `program.tables` the lengths, or None where no list is ragged.
        memory: the residual choice.
        extents: the extents of lists, of which it matters how large the batch is.
        backward: whether the call is differentiated: it then keeps residuals, and the adjoint runs after it.

    Raises:
        LaunchError: a kernel needs more than the device has.
        CaptureError: a CUDA graph is being captured already.
    """
    needs = tuple(backward and x.requires_grad and f for x, f in zip(inputs, program.floats, strict=True))
    recording = record(program, needs, memory)
    given = dict(zip(program.tables, tables, strict=True))
    programs = [recording.program]
    # Whoever asks for gradients that do not exist is told so by the backward pass.
    with suppress(DerivativeError):
        outputs = range(len(recording.differentiable))
        adjoint = recording.adjoint(tuple(index < recording.outputs for index in outputs))
        if adjoint is not None:
            programs.append(adjoint.program)
    device = inputs[0].device if inputs else torch.device("cpu")
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise CaptureError("a CUDA graph is being captured, which is too late to warm up: do it before the capture")
    for each in programs:
        ragged = frozenset(name for name in each.tables if given.get(name) is not None)
        kernels = fused.of(each, device, ragged, extents)
        for planned in kernels.kernels if kernels is not None else ():
            prepare(planned.kernel, device)


def run_once(
    program: Executable,
    inputs: Sequence[Tensor],
    tables: Sequence[Tensor | None],
    memory: str,
    extents: Mapping[str, int],
    backward: bool,
) -> None:
    """Run a call and its backward pass, and drop what comes of it: no parameter's `grad` changes.

    The vendor's library and the tables of a program are set up for a device when they are first used there, which no
    capture may hold.

    Arguments:
        program, inputs, tables, memory, extents, backward: as of `make_ready`.
    """
    with torch.set_grad_enabled(backward):
        outputs = [y for y in evaluate(program.text, inputs, tables, memory, extents) if y.requires_grad]
    if outputs:
        sources = [x for x in inputs if x.requires_grad]
        torch.autograd.grad(outputs, sources, [torch.zeros_like(y) for y in outputs], allow_unused=True)
