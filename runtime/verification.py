"""`verify`: the evaluators and the kernels of a model against the oracle, values and gradients, on random inputs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..compiler.errors import DerivativeError, EmptyError, FoldfuseError, IndexRangeError, LaunchError, WindowError
from ..compiler.records import RECORDS, Primitive
from ..kernels.request import Request
from . import fused
from .forest import Forest
from .launch import counts
from .module import Model
from .ragged import Ragged
from .random_input import class_count, random_arguments

__all__ = ["Row", "verify", "verify_kernels"]

VALUES, GRADIENTS, DIFFERENCES = 1e-9, 1e-8, 1e-5
STEPS = (1e-5, 1e-6, 1e-7)
"""Of the differences: the first serves smooth programs, the others those that amplify."""
DIRECTIONS = 3
"""Along one of them alone, a gradient that is wrong by a thousandth passes once in some hundred draws: what is wrong
may lie across it."""
LONGEST = 64
"""No program is tried on longer lists than this to find lengths that its windows fit into."""

Leaves = dict[str, Tensor]


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        entry: the entry point.
        what: what is compared: values or gradients, and of which evaluator.
        against: what they are compared with.
        error: the largest relative error of one tensor, ‖found − expected‖ / ‖expected‖; None where nothing was
            compared.
        allowed: the largest that is taken for rounding.
        where: the output, parameter or input with the largest error; or why nothing was compared.
    """

    entry: str
    what: str
    against: str
    error: float | None
    allowed: float
    where: str

    @property
    def ok(self) -> bool:
        """Whether the error is within the allowed one (also where nothing was compared)."""
        return self.error is None or bool(self.error <= self.allowed)


def verify(model: Model, batch: int = 3, length: int = 7, seed: int = 0, entry: str | None = None) -> list[Row]:
    """Compare the evaluators of a model with the oracle, on random inputs and its own parameters, in float64.

    Values of the plain torch evaluation and of the optimised graphs are compared with the oracle's. Gradients of the
    optimised graphs, for one random cotangent, are compared with torch's autograd through the plain evaluation, tensor
    by tensor, and along random directions with central differences of the oracle.

    Arguments:
        model: a compiled model. It is not changed: a float64 copy is used, in evaluation mode.
        batch: rows.
        length: the longest list; rows differ in length. A program whose windows need longer lists gets them.
        seed: of the inputs, and of the program's own randomness.
        entry: an entry point; all when left out.

    Returns:
        A `Row` per comparison, up to four for an entry point.

    Raises:
        FoldfuseError: the program cannot run on any input that was tried.

    Example:
        >>> all(row.ok for row in verify(model))
        True
    """
    model = copy.deepcopy(model).double().eval()
    return [
        row
        for name in (model.entries if entry is None else (entry,))
        for row in _Comparison(model, name, batch, length, seed).rows()
    ]


def verify_kernels(
    model: Model,
    batch: int,
    length: int,
    seed: int,
    entry: str | None,
    device: torch.device,
    strategies: Sequence[str | None],
) -> list[Row]:
    """Compare the kernels of a model with the oracle, and their gradients with torch's autograd, in float64.

    Arguments:
        model, batch, length, seed, entry: as of `verify`.
        device: where the kernels run: a CUDA device, or the CPU in a process where Triton's interpreter is on.
        strategies: what recurrences are forced to, one after the other; None leaves it to the planner.

    Returns:
        For an entry point up to two rows per strategy: strategies that make the same kernels are compared once. One
        that does not hold the program, or does not fit the device, is a row that says so.
    """
    model = copy.deepcopy(model).double().eval()
    return [
        row
        for name in (model.entries if entry is None else (entry,))
        for row in _Comparison(model, name, batch, length, seed).kernel_rows(device, strategies)
    ]


class _Comparison:
    """The comparisons for one entry point."""

    def __init__(self, model: Model, name: str, batch: int, length: int, seed: int):
        self.model, self.name, self.seed = model, name, seed
        self.generator = np.random.default_rng(seed)
        self.arguments = self._fitting(batch, length)
        self.sources: Leaves = {**dict(model.named_parameters()), **_inputs(self.arguments)}

    def _fitting(self, batch: int, length: int) -> list[Any]:
        """Arguments that the program takes: lists no shorter than its windows and selections need."""
        entry = self.model._entry(self.name).evaluation
        shortest, classes = 0, class_count(entry.graph)
        while True:
            made = random_arguments(entry, batch, max(length, shortest), self.generator, shortest, classes)
            try:
                with torch.no_grad():
                    self._run(self.model.eager, made)
                return made
            except (WindowError, EmptyError):
                shortest = max(1, 2 * shortest)
                if shortest > LONGEST:
                    raise
            except IndexRangeError:
                # An index into a list: every list is to have that many elements.
                if shortest < 2 <= length:
                    shortest, classes = 2, min(classes, 2)
                elif classes > 1:
                    classes = 1
                else:
                    raise

    def _run(self, evaluator: Callable[..., Any], arguments: Sequence[Any] | None = None) -> Leaves:
        arguments = self.arguments if arguments is None else arguments
        found = _leaves(evaluator(*arguments, entry=self.name, seed=self.seed), "result")
        return {name: tensor.cpu() for name, tensor in found}

    def rows(self) -> list[Row]:
        with _held_in_differences() as held:
            expected = self._run(self.model.reference)
            plain, optimised = self._run(self.model.eager), self._run(self.model)
            rows = [
                self._row("values, plain torch", "oracle", plain, expected, VALUES),
                self._row("values, optimised", "oracle", optimised, expected, VALUES),
            ]
            return rows + self._gradient_rows(plain, optimised, expected, held)

    def _row(self, what: str, against: str, found: Leaves, expected: Leaves, allowed: float) -> Row:
        return Row(self.name, what, against, allowed=allowed, **_largest(found, expected))

    def _gradient_rows(self, plain: Leaves, optimised: Leaves, expected: Leaves, held: _Held) -> list[Row]:
        what, by_autograd, by_differences = "gradients, optimised", "torch autograd", "finite differences"

        def nothing(why: str) -> list[Row]:
            return [Row(self.name, what, by_autograd, None, GRADIENTS, why)]

        shapes = [{name: y.shape for name, y in found.items()} for found in (plain, optimised, expected)]
        if shapes[0] != shapes[2] or shapes[1] != shapes[2]:
            return nothing("the results differ in structure")
        differentiable = [name for name, y in plain.items() if y.requires_grad]
        if not differentiable:
            return nothing("no output has a derivative")
        weights = self._weights(expected)
        pull = lambda found: self._pulled(sum((found[name] * weights[name]).sum() for name in differentiable))
        try:
            wanted, gradients = pull(plain), pull(optimised)
        except DerivativeError as error:
            return nothing(str(error).split("\n")[0])
        # Torch carries what it computes for padding through its derivatives, where 0 · NaN is NaN.
        lost = [name for name, g in wanted.items() if _finite(gradients[name]) and not _finite(g)]
        if lost:
            rows = [Row(self.name, what, by_autograd, None, GRADIENTS, f"torch's gradient of {lost[0]} is NaN")]
        else:
            rows = [self._row(what, by_autograd, gradients, wanted, GRADIENTS)]
        if not all(map(_finite, gradients.values())):
            return [*rows, Row(self.name, what, by_differences, None, DIFFERENCES, "gradients are not finite here")]
        total = lambda found: sum(float((found[name] * weights[name]).sum()) for name in differentiable)
        error, where = 0.0, "all together"
        for _ in range(DIRECTIONS):
            directions = self._weights(self.sources)
            along = self._difference_error(gradients, directions, total, held)
            error = error if along <= error else along  # NaN where it is NaN
            if not error <= DIFFERENCES:
                alone = {
                    name: self._difference_error({name: gradients[name]}, {name: direction}, total, held)
                    for name, direction in directions.items()
                }
                where = max(alone, key=alone.__getitem__)
                break
        return [*rows, Row(self.name, what, by_differences, error, DIFFERENCES, where)]

    def _weights(self, leaves: Leaves) -> Leaves:
        """A random number for every element: a cotangent of outputs, a direction to move parameters and inputs in."""
        return {name: torch.as_tensor(self.generator.normal(size=tuple(x.shape))) for name, x in leaves.items()}

    def _pulled(self, total: Any, sources: Leaves | None = None) -> Leaves:
        sources = self.sources if sources is None else sources
        found = torch.autograd.grad(total, list(sources.values()), allow_unused=True)
        return {
            name: (torch.zeros_like(x) if g is None else g.detach()).cpu()
            for (name, x), g in zip(sources.items(), found, strict=True)
        }

    # --- kernels ------------------------------------------------------------------------------------------------------

    def kernel_rows(self, device: torch.device, strategies: Sequence[str | None]) -> list[Row]:
        """The rows of `verify_kernels`."""
        expected, plain = self._run(self.model.reference), self._run(self.model.eager)
        weights = self._weights(expected)
        differentiable = [name for name, y in plain.items() if y.requires_grad]
        pull = lambda found, sources: self._pulled(
            sum((found[name] * weights[name]).sum() for name in differentiable), sources
        )
        try:
            wanted = pull(plain, None) if differentiable else {}
        except DerivativeError:
            differentiable, wanted = [], {}
        # Torch carries what it computes for padding through its derivatives, where 0 · NaN is NaN.
        wanted = {name: g for name, g in wanted.items() if _finite(g)}
        target, rows = fused.target_of(device).name, []
        made: set[frozenset[str]] = set()
        for strategy in strategies:
            what = f"kernels, {strategy or 'as planned'}"
            try:
                planned = self.model.planned(self.name, target, strategy, backward=bool(differentiable))
                keys = frozenset(each.kernel.key for each in planned.kernels)
                if not keys:
                    why = "; ".join(dict.fromkeys(step.reason for step in planned.evaluated))
                    return [Row(self.name, "values, kernels", "oracle", None, VALUES, f"there are none: {why}")]
                if keys in made:
                    continue
                made.add(keys)
                what = f"kernels, {' and '.join(_strategies(planned.kernels))}"
                values, gradients = self._by_kernels(device, Request(target, force=strategy), pull if wanted else None)
            except FoldfuseError as error:
                rows.append(Row(self.name, f"values, {what}", "oracle", None, VALUES, error.message.split("\n")[0]))
                continue
            except Exception as error:
                # Whatever else ends a kernel is a defect, which the other rows should not hide.
                why = f"{type(error).__name__}: {error}".split("\n")[0]
                rows.append(Row(self.name, f"values, {what}", "oracle", float("inf"), VALUES, why))
                continue
            rows.append(self._row(f"values, {what}", "oracle", values, expected, VALUES))
            if wanted:
                gradients = {name: gradients[name] for name in wanted}
                rows.append(self._row(f"gradients, {what}", "torch autograd", gradients, wanted, GRADIENTS))
        return rows

    def _by_kernels(
        self, device: torch.device, request: Request, pull: Callable[[Leaves, Leaves], Leaves] | None
    ) -> tuple[Leaves, Leaves]:
        """Values and gradients of the model on a device, by the kernels of a request."""
        model = copy.deepcopy(self.model).to(device)
        # Gradients reach the inputs where they were made, on the CPU.
        arguments = [_on(device, argument) for argument in self.arguments]
        sources = {**dict(model.named_parameters()), **_inputs(self.arguments)}
        # The request holds for this thread, so the backward pass must not run in another.
        before = counts()
        with fused.requested(request), torch.autograd.set_multithreading_enabled(False):
            values = self._run(model, arguments)
            gradients = pull(values, sources) if pull is not None else {}
        if not (counts() - before).launches:
            raise LaunchError(f"no kernel was launched: tensors on {device} are evaluated in this process")
        return values, gradients

    def _difference_error(
        self, gradients: Leaves, directions: Leaves, total: Callable[[Leaves], float], held: _Held
    ) -> float:
        """How far the slope along the directions is from that of the oracle, relative to its size."""
        products = torch.cat([(gradients[name] * d).reshape(-1) for name, d in directions.items()])
        slope, size = float(products.sum()), float(torch.linalg.vector_norm(products))
        errors = []
        for step in STEPS:
            ends = [total(self._moved(directions, sign * step, held)) for sign in (1.0, -1.0)]
            difference = (ends[0] - ends[1]) / (2 * step)
            errors.append(abs(slope - difference) / max(abs(difference), size, 1e-3))
            if errors[-1] <= DIFFERENCES:
                break
        return min(errors)

    def _moved(self, directions: Leaves, step: float, held: _Held) -> Leaves:
        """What the oracle gives with parameters and inputs moved along the directions."""
        before = {name: self.sources[name].detach().clone() for name in directions}
        try:
            with torch.no_grad():
                for name, direction in directions.items():
                    self.sources[name].add_(direction, alpha=step)
                held.replay()
                return self._run(self.model.reference)
        finally:
            with torch.no_grad():
                for name, value in before.items():
                    self.sources[name].copy_(value)


class _Held:
    """The values of `stop_gradient` in one run of the oracle, in the order in which they come up."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.at: int | None = None

    def replay(self) -> None:
        """From here on, give the values of the first run."""
        self.at = 0

    def __call__(self, x: Any) -> Any:
        if self.at is None:
            self.values.append(x)
            return x
        self.at += 1
        return self.values[self.at - 1]


@contextmanager
def _held_in_differences() -> Iterator[_Held]:
    """A derivative takes what `stop_gradient` gives for constant, so differences of the oracle must hold it constant
    too: while this is open, the oracle gives the values of its first run again."""
    held, record = _Held(), RECORDS["stop_gradient"]
    assert isinstance(record, Primitive)
    RECORDS["stop_gradient"] = replace(record, numpy=held)
    try:
        yield held
    finally:
        RECORDS["stop_gradient"] = record


def _strategies(kernels: Sequence[Any]) -> list[str]:
    """The strategies of the recurrent kernels; where there are none, "pointwise"."""
    found = sorted({each.strategy for each in kernels} - {"pointwise"})
    return found or ["pointwise"]


def _on(device: torch.device, value: Any) -> Any:
    """An argument on a device."""
    if isinstance(value, (Tensor, Ragged, Forest)):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _on(device, part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        parts = [_on(device, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _largest(found: Leaves, expected: Leaves) -> dict[str, Any]:
    """The largest relative error and its place; infinite where structures, shapes or non-finite places differ."""
    if found.keys() != expected.keys():
        return {"error": float("inf"), "where": "the structure of the result"}
    errors = {name: _error(found[name], expected[name]) for name in found}
    where = max(errors, key=errors.__getitem__)
    return {"error": errors[where], "where": where}


def _error(found: Tensor, expected: Tensor) -> float:
    x, y = found.detach().double(), expected.detach().double()
    if x.shape != y.shape or not torch.equal(torch.isfinite(x), torch.isfinite(y)):
        return float("inf")
    finite = torch.isfinite(y)
    norm = float(torch.linalg.vector_norm(y[finite]))
    distance = float(torch.linalg.vector_norm(x[finite] - y[finite]))
    return distance / (norm if norm > 1e-8 else 1.0)


def _finite(x: Tensor) -> bool:
    return bool(torch.isfinite(x).all())


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a result by their place in it; a ragged list row by row."""
    if isinstance(value, (Tensor, np.ndarray)):
        yield path, torch.as_tensor(value)
    elif isinstance(value, Ragged):
        yield from _leaves(value.unpad(), path)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(part, f"{path}[{key!r}]")
    else:
        for i, part in enumerate(value):
            yield from _leaves(part, f"{path}[{i}]")


def _inputs(arguments: Sequence[Any]) -> Leaves:
    """The float tensors of arguments, which gradients reach, by their place."""
    found: Leaves = {}

    def collect(value: Any, path: str) -> None:
        if isinstance(value, Tensor):
            if value.is_floating_point():
                found[path] = value
        elif isinstance(value, Ragged):
            collect(value.data, path)
        elif isinstance(value, Forest):
            collect(value.values, path)
        elif isinstance(value, Mapping):
            for key, part in value.items():
                collect(part, f"{path}[{key!r}]")
        elif isinstance(value, (tuple, list)):
            for i, part in enumerate(value):
                collect(part, f"{path}[{i}]")

    for number, argument in enumerate(arguments):
        collect(argument, f"input {number}" if len(arguments) > 1 else "the input")
    return found
