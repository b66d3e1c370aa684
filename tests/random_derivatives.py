"""Derivatives of a random program: by the adjoint, by torch, by differences, and second ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from foldfuse.compiler.adjoint import Pullback, differentiate
from foldfuse.compiler.ir import verify
from foldfuse.compiler.types import ListType

from .random_inputs import Call, leaves, mapped, padded, same

STEP = 1e-5
"""The first step of differences."""


def torch_gradient(call: Call, cotangents: Sequence[Any], second: bool) -> tuple[list[Any], Any]:
    """The gradients of Σ ⟨output, cotangent⟩ by torch, per input (None for whole numbers); with `second`, what torch's
    double backward needs."""
    inputs, _ = call.tensors()
    inputs = [x.requires_grad_() if x.is_floating_point() else x for x in inputs]
    outputs = call.eager(inputs)
    given = []
    for y, ct, type_ in zip(outputs, cotangents, call.outputs, strict=True):
        if type_.dtype.is_float:
            weight = torch.nan_to_num(padded(ct, type_, y.shape[: len(type_.axes)]))
            given.append(weight.requires_grad_())
        else:
            given.append(None)
    total = sum(((y * w).sum() for y, w in zip(outputs, given) if w is not None), torch.zeros((), dtype=torch.float64))
    floats = [x for x in inputs if x.is_floating_point()]
    if total.requires_grad:
        found = iter(torch.autograd.grad(total, floats, create_graph=second, allow_unused=True))
    else:
        found = iter([None] * len(floats))
    gradients = [next(found) if x.is_floating_point() else None for x in inputs]
    filled = [torch.zeros_like(x) if g is None and x.is_floating_point() else g for g, x in zip(gradients, inputs)]
    return filled, (inputs, given)


class Adjoint:
    """The forward graph with residuals and the backward graph of a program, evaluated by the reference."""

    def __init__(
        self, call: Call, values: Sequence[Any], cotangents: Sequence[Any], needs: Sequence[bool], memory: str
    ):
        self.call, self.cotangents, self.needs = call, cotangents, needs
        forward, backward, self.pullback = differentiate(call.graph, needs, memory=memory)
        verify(forward, "adjoint (forward)")
        verify(backward, "adjoint (backward)")
        self.forward = call.with_graph(forward)
        self.outputs = self.forward.reference()
        count = len(values)
        same("outputs of the forward graph", self.outputs[:count], values, call.outputs)
        self.residuals = self.outputs[count:]
        self.backward = replace(
            call,
            graph=backward,
            arguments=[
                *(call.arguments[i] for i in self.pullback.kept),
                *self.residuals,
                *(cotangents[j] for j in self.pullback.useful),
            ],
        )
        self.gradients = self.backward.reference()

    def check_gradient(self, expected: Sequence[Any]) -> None:
        """The gradients are torch's; inputs that are not reached have none."""
        check_gradients(self.call, self.pullback, self.gradients, expected)

    def check_differences(self, generator: np.random.Generator) -> None:
        """The slope along a random direction is that of central differences of the reference."""
        call = self.call
        directions = [
            mapped(lambda v: generator.normal(size=np.shape(v)), len(t.axes), v) if need else None
            for v, t, need in zip(call.arguments, call.inputs, self.needs)
        ]
        slope, size = 0.0, 0.0
        for i, gradient in zip(self.pullback.reached, self.gradients):
            depth = len(call.inputs[i].axes)
            for g, d in zip(leaves(gradient, depth), leaves(directions[i], depth), strict=True):
                slope, size = slope + float(np.sum(g * d)), size + float(np.sum(np.abs(g * d)))
        errors = []
        # A step may jump over the edge of a comparison; a smaller one does not.
        for step in (STEP, STEP / 7, STEP / 50):
            ends = [self._moved(directions, sign * step) for sign in (1, -1)]
            errors.append(abs((ends[0] - ends[1]) / (2 * step) - slope) / (1 + size))
            if errors[-1] <= 1e-6:
                return
        raise AssertionError(f"the slope is {slope}, the differences are off by {errors} of it")

    def _moved(self, directions: Sequence[Any], step: float) -> float:
        call = self.call
        arguments = [
            mapped(lambda v, e: v + step * e, len(t.axes), v, d) if d is not None else v
            for v, d, t in zip(call.arguments, directions, call.inputs)
        ]
        total = 0.0
        outputs = replace(call, arguments=arguments).reference()
        for y, ct, type_ in zip(outputs, self.cotangents, call.outputs):
            if type_.dtype.is_float:
                depth = len(type_.axes)
                total += sum(float(np.sum(a * b)) for a, b in zip(leaves(y, depth), leaves(ct, depth), strict=True))
        return total

    def check_second(self, first: Sequence[Any], graph: tuple[Any, Any]) -> None:
        """The gradients of Σ ⟨gradient, u⟩, through the backward graph and through the residuals, are torch's."""
        call, pullback, backward = self.call, self.pullback, self.backward
        generator = np.random.default_rng(17)
        u = [
            mapped(lambda v: generator.normal(size=np.shape(v)), len(t.axes), v)
            for v, t in zip(self.gradients, backward.outputs)
        ]
        again = Adjoint(backward, self.gradients, u, [t.dtype.is_float for t in backward.inputs], "auto")
        pulled = dict(zip(again.pullback.reached, again.gradients))
        kept, residuals = len(pullback.kept), pullback.residuals
        into = [pulled.get(kept + i) for i in range(residuals)]
        zero = lambda v: np.zeros(np.shape(v))
        count = len(call.outputs)
        through = [
            mapped(zero, len(t.axes), v) if j < count or into[j - count] is None else into[j - count]
            for j, (v, t) in enumerate(zip(self.outputs, self.forward.outputs))
        ]
        chained = Adjoint(self.forward, self.outputs, through, self.needs, "auto")
        totals: dict[int, list[Any]] = {i: [] for i, need in enumerate(self.needs) if need}
        for at, i in enumerate(pullback.kept):
            if at in pulled:
                totals[i].append(pulled[at])
        for i, value in zip(chained.pullback.reached, chained.gradients):
            totals[i].append(value)
        found = [
            mapped(lambda v, *parts: np.asarray(sum(parts, np.zeros(np.shape(v)))), len(t.axes), v, *totals[i])
            if need
            else None
            for i, (v, t, need) in enumerate(zip(call.arguments, call.inputs, self.needs))
        ]
        inputs, given = graph
        weights = {
            i: torch.nan_to_num(padded(w, t, x.shape[: len(t.axes)]))
            for i, w, t, x in zip(pullback.reached, u, backward.outputs, (inputs[i] for i in pullback.reached))
        }
        total = sum(((first[i] * w).sum() for i, w in weights.items()), torch.zeros((), dtype=torch.float64))
        floats = [x for x in inputs if x.is_floating_point()]
        cotangents = [given[j] for j in pullback.useful]
        wanted = [*floats, *cotangents]
        expected: list[Any] = [None] * len(wanted)
        if total.requires_grad:
            expected = list(torch.autograd.grad(total, wanted, allow_unused=True))
        expected = [torch.zeros_like(x) if g is None else g for g, x in zip(expected, wanted)]
        types = [t for t, need in zip(call.inputs, self.needs) if need]
        compare_padded("by input", [f for f in found if f is not None], expected[: len(floats)], types, 1e-6)
        by_cotangent = [
            pulled.get(kept + residuals + at) or mapped(zero, len(call.outputs[j].axes), self.cotangents[j])
            if len(call.outputs[j].axes)
            else pulled.get(kept + residuals + at, zero(self.cotangents[j]))
            for at, j in enumerate(pullback.useful)
        ]
        compare_padded(
            "by cotangent", by_cotangent, expected[len(floats) :], [call.outputs[j] for j in pullback.useful], 1e-6
        )


def check_gradients(call: Call, pullback: Pullback, gradients: Sequence[Any], expected: Sequence[Any]) -> None:
    """Gradients of the reached inputs against torch's for all."""
    found = dict(zip(pullback.reached, gradients))
    for i, (type_, g) in enumerate(zip(call.inputs, expected)):
        if i in found:
            compare_padded(f"by {call.graph.input_names[i]}", [found[i]], [g], [type_])
        elif g is not None:
            assert not g.any(), f"{call.graph.input_names[i]} is not reached, but torch's gradient is {g.tolist()}"


def compare_padded(
    what: str,
    found: Sequence[Any],
    expected: Sequence[torch.Tensor],
    types: Sequence[ListType],
    tolerance: float = 1e-8,
) -> None:
    """Nested lists against padded tensors. The gradient at padding is zero."""
    same(what, [g.detach() for g in expected], found, types, tolerance)
