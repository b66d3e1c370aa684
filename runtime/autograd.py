"""Programs under torch's autograd: a thin function round the operator, whose backward is the same function again.

The backward pass runs the adjoint program through `evaluate`'s own way, so derivatives of every order exist, and they
compose with `torch.func` and `torch.compile`. Residuals are outputs of the function and accept cotangents: a second
derivative flows through them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..compiler.errors import DerivativeError, SizeError
from ..compiler.sizes import ROWS_OF, TIMES_OF
from . import operators
from .dynamo import one_call
from .executable import Executable, executable
from .layout import Layout
from .recording import Recording, batched, record

__all__ = ["Evaluate", "evaluate"]


class Evaluate(torch.autograd.Function):
    """Runs a recorded program. Arguments of `apply`: the recording, the extents that the inputs do not show (by name),
    the number of inputs, the inputs, the tables."""

    @staticmethod
    def forward(
        recording: Recording, extents: Mapping[str, int], count: int, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        program, inputs, tables = recording.program, tensors[:count], tensors[count:]
        hidden = program.hidden_extents(inputs, tables, extents)
        return tuple(operators.evaluate(inputs, tables, hidden, program.text))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        recording, extents, count, *tensors = inputs
        ctx.mark_non_differentiable(*(y for y, d in zip(output, recording.differentiable, strict=True) if not d))
        ctx.set_materialize_grads(False)
        ctx.recording, ctx.count = recording, count
        if any(recording.differentiable):
            ctx.extents = recording.program.extents(tensors[:count], output, extents)
            ctx.save_for_backward(*tensors, *(output[j] for j in recording.saved))

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        recording, count = ctx.recording, ctx.count
        for needed, planned in zip(ctx.needs_input_grad[3 : 3 + count], recording.needs, strict=True):
            if needed and not planned:
                raise DerivativeError(
                    f"a gradient of {recording.program.graph.name} is asked for that its call did not prepare: an "
                    "input was made to require gradients under a transform that hides it"
                )
        nothing = (None,) * len(ctx.needs_input_grad)
        adjoint = recording.adjoint(tuple(ct is not None for ct in cotangents))
        if adjoint is None:
            return nothing
        saved = ctx.saved_tensors
        names = recording.program.tables
        given = dict(zip(names, saved[count : count + len(names)], strict=True))
        outputs = dict(zip(recording.saved, saved[count + len(names) :], strict=True))
        values = _apply(
            adjoint.program,
            [
                *(saved[i] for i in adjoint.kept),
                *(outputs[j] for j in adjoint.outputs),
                *(cotangents[j] for j in adjoint.arriving),
            ],
            [given[name] for name in adjoint.program.tables],
            None,
            ctx.extents,
        )
        gradients: list[Tensor | None] = list(nothing)
        for index, value in zip(adjoint.reached, values, strict=True):
            gradients[3 + index] = value
        return tuple(gradients)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise DerivativeError(
            "foldfuse has no forward-mode derivatives (torch.func.jvp, jacfwd, hessian, torch.autograd.forward_ad). "
            "Use reverse mode: torch.func.grad, vjp, jacrev, or .backward(); for a Hessian, jacrev of jacrev"
        )

    @staticmethod
    def vmap(
        info: Any, in_dims: Sequence[Any], recording: Recording, extents: Mapping[str, int], count: int, *tensors: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        dims = in_dims[3:]
        own = tuple(d is not None for d in dims)
        moved = [t if d is None else t.movedim(d, 0) for t, d in zip(tensors, dims, strict=True)]
        given, inputs = recording.program, moved[:count]
        lengths = dict(zip(given.tables, zip(moved[count:], own[count:], strict=True), strict=True))
        # One list more around rows and lists: they are padded for it.
        layouts = _layouts(given, lengths, extents)
        for i, name in enumerate(map(given.flat_lists, given.graph.body.parameters)):
            if name is not None:
                inputs[i] = layouts[name].pad(inputs[i]) if not own[i] else _inside(layouts[name].pad, inputs[i], 1)
        tables = [lengths[name] for name in given.padded.tables]
        program, name = batched(given.padded, own[:count], tuple(varies for _, varies in tables))
        # The order of the tables is that of the declarations, and the new size stands first.
        outputs = _apply(
            program, inputs, [None, *(table for table, _ in tables)], recording.memory,
            {**extents, name: info.batch_size},
        )  # fmt: skip
        outputs = tuple(
            y if flat is None else _inside(layouts[flat].take, y, 2)
            for y, flat in zip(outputs, map(given.flat_lists, given.graph.body.results), strict=True)
        )
        return outputs, (0,) * len(outputs)


def _layouts(
    program: Executable, tables: Mapping[str, tuple[Tensor | None, bool]], extents: Mapping[str, int]
) -> dict[str, Layout]:
    """How the flat lists of a program under `vmap` lie.

    Arguments:
        program: the program.
        tables: per table, the table and whether it varies with the new axis.
        extents: the extents of sizes.
    """
    prefixes = ("", ROWS_OF, TIMES_OF)
    if any(tables[prefix + name][1] for name in program.flat for prefix in prefixes):
        raise SizeError(
            "torch.func.vmap runs over the lengths of packed or jagged lists. Give padded tensors with their lengths"
        )
    return program.layouts({name: table for name, (table, _) in tables.items()}, extents)


def _inside(change: Callable[[Tensor], Tensor], x: Tensor, dims: int) -> Tensor:
    """What a function of a tensor's first dim, or first dims, makes of those behind the first one."""
    changed = change(x.movedim(0, dims))
    return changed.movedim(3 - dims, 0)


# Torch reads the signature of `forward` at every call, which costs more than the rest of the function.
Evaluate.forward.__signature__ = inspect.signature(Evaluate.forward)


def _apply(
    program: Executable,
    inputs: Sequence[Tensor],
    tables: Sequence[Tensor | None],
    memory: str | None,
    extents: Mapping[str, int],
) -> tuple[Tensor, ...]:
    """Run a program, prepared for the gradients that may be asked for.

    It goes through the function also where no gradient is, so that a transform of `torch.func` meets `vmap` and `jvp`.
    """
    # An exported program holds the operator alone, which has no use for residuals.
    if torch.is_grad_enabled() and not torch.compiler.is_exporting():
        needs = tuple(x.requires_grad and f for x, f in zip(inputs, program.floats, strict=True))
    else:
        needs = (False,) * len(inputs)
    recording = record(program, needs, memory)
    return Evaluate.apply(recording, extents, len(inputs), *inputs, *tables)[: recording.outputs]


@one_call
def _evaluate(text: str, memory: str, names: tuple[str, ...], count: int, *values: Any) -> tuple[Tensor, ...]:
    """`evaluate` with flat arguments, which Dynamo puts into its graph as one call: it does not look inside."""
    given, inputs, tables = values[: len(names)], values[len(names) : len(names) + count], values[len(names) + count :]
    return _apply(executable(text), inputs, tables, memory, dict(zip(names, given)))


def evaluate(
    program_text: str,
    inputs: Sequence[Tensor],
    tables: Sequence[Tensor | None],
    memory: str = "auto",
    extents: Mapping[str, int] | None = None,
) -> tuple[Tensor, ...]:
    """Run a program, differentiably.

    Arguments:
        program_text: the printed graph of the program, in normal form or not.
        inputs: a tensor per input, of dims (list axes…, shape…) padded to the longest, on one device, of any strides.
        tables: per declared list size, i64 lengths of one dim per axis in its `over`, or None where no list of that
            size is ragged.
        memory: what is kept for the backward pass, see `compiler.adjoint.Differentiator`.
        extents: the extents of padded lists of sizes that no input shows (the arity of trees). Left out, an extent is
            the greatest length in its table, which waits for the device and cannot be compiled by `torch.compile`.

    Returns:
        A tensor per output, of dims (list axes…, shape…); behind the end of a list it is zero.

    Raises:
        DeviceError: the tensors lie on several devices.
        DerivativeError: forward mode, or a gradient through an operation that has none.
        FoldfuseError: whatever the evaluator refuses.

    Example:
        >>> last, states = evaluate(show(graph), [weights, padded], [None, lengths])
    """
    extents = extents or {}
    return _evaluate(program_text, memory, tuple(extents), len(inputs), *extents.values(), *inputs, *tables)
