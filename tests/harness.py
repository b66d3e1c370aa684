"""Running a program of the corpus in foldfuse beside its plain counterpart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

import foldfuse as ff

from .programs import Program, as_tensors, draw_parameters


def compiled(program: Program, **options: Any) -> ff.Model:
    """The program's model in float64 and evaluation mode, with the corpus's parameters."""
    model = ff.compile(program.build(), **options).double().eval()
    found = {name: tuple(value.shape) for name, value in model.named_parameters()}
    assert found == {name: tuple(shape) for name, shape in program.shapes.items()}
    with torch.no_grad():
        for name, value in draw_parameters(program.shapes).items():
            model.get_parameter(name).copy_(value)
    return model


def examples(program: Program, ragged: bool) -> list[tuple]:
    """A batch of examples as tensors, float leaves requiring gradients: of every length, or three of one length."""
    lengths = program.lengths if ragged else (program.lengths[-1],) * 3
    batch = [as_tensors(program.inputs(np.random.default_rng(7 + i), n)) for i, n in enumerate(lengths)]
    for leaf in pytree.tree_leaves(batch):
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
            leaf.requires_grad_()
    return batch


def batched(port: Any, rows: list[Any], ragged: bool) -> Any:
    """One argument of a call from its value in each example."""
    if port.kind == "tree":
        return rows
    if port.kind == "product":
        keys = list(port.product) if isinstance(port.product, Mapping) else range(len(port.parts))
        parts = [batched(part, [row[key] for row in rows], ragged) for part, key in zip(port.parts, keys)]
        return dict(zip(keys, parts)) if isinstance(port.product, Mapping) else tuple(parts)
    if port.kind == "list" and not port.grid and (ragged or isinstance(rows[0], list)):
        return ff.ragged(rows)
    return pytree.tree_map(lambda *leaves: torch.stack(leaves), *rows)


def arguments(model: ff.Model, program: Program, batch: list[tuple], ragged: bool) -> list[Any]:
    ports = model._entry(program.entry).evaluation.inputs
    return [batched(port, [example[i] for example in batch], ragged) for i, port in enumerate(ports)]


def rows_of(output: Any, count: int) -> list[list[torch.Tensor]]:
    """The leaves of a result, example by example."""
    if isinstance(output, ff.Ragged):
        return [list(_leaves(row)) for row in output.unpad()]
    if isinstance(output, (torch.Tensor, np.ndarray)):
        return [[torch.as_tensor(row)] for row in output]
    parts = list(output.values()) if isinstance(output, Mapping) else list(output)
    columns = [rows_of(part, count) for part in parts]
    return [[leaf for column in columns for leaf in column[i]] for i in range(count)]


def _leaves(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _leaves(part)
    elif _alike(value):
        yield torch.stack(value)
    else:
        for part in value:
            yield from _leaves(part)


def _alike(value: Any) -> bool:
    """Whether rows of a list have one shape, so that they can stand as one array."""
    if not (isinstance(value, list) and value and isinstance(value[0], torch.Tensor)):
        return False
    return len({x.shape for x in value}) == 1


@dataclass
class Run:
    """Results of one evaluation: leaves per example, and gradients of parameters and float inputs by a fixed "
    "cotangent."""

    outputs: list[list[torch.Tensor]]
    parameters: dict[str, torch.Tensor]
    inputs: list[torch.Tensor]


def differentiated(
    outputs: list[list[torch.Tensor]], parameters: Mapping[str, torch.Tensor], batch: list[tuple]
) -> Run:
    """Pull a fixed random cotangent back."""
    sources = [x for x in pytree.tree_leaves(batch) if isinstance(x, torch.Tensor) and x.is_floating_point()]
    total: Any = 0.0
    for i, row in enumerate(outputs):
        for j, y in enumerate(row):
            if y.is_floating_point() and y.requires_grad:
                weight = np.random.default_rng(100 * i + j).standard_normal(tuple(y.shape))
                total = total + (y * torch.as_tensor(weight)).sum()
    wanted = [*parameters.values(), *sources]
    pulled = [None] * len(wanted)
    if isinstance(total, torch.Tensor):
        pulled = torch.autograd.grad(total, wanted, allow_unused=True)
    gradients = [torch.zeros_like(x) if g is None else g for g, x in zip(pulled, wanted)]
    named = dict(zip(parameters, gradients))
    detached = [[y.detach() for y in row] for row in outputs]
    return Run(detached, named, gradients[len(parameters) :])


def plain_run(program: Program, batch: list[tuple]) -> Run:
    """The plain counterpart, example by example."""
    parameters = {name: value.requires_grad_() for name, value in draw_parameters(program.shapes).items()}
    outputs = [pytree.tree_leaves(program.plain(parameters, *example)) for example in batch]
    return differentiated(outputs, parameters, batch)


def model_run(model: ff.Model, program: Program, batch: list[tuple], ragged: bool, evaluator: str = "call") -> Run:
    """The compiled model (`call`) or its plain torch evaluation (`eager`) on the batch."""
    run = model if evaluator == "call" else model.eager
    output = run(*arguments(model, program, batch, ragged), entry=program.entry, seed=1)
    return differentiated(rows_of(output, len(batch)), dict(model.named_parameters()), batch)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """‖found − expected‖ / ‖expected‖."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    if not found.is_floating_point():
        return float(not torch.equal(found, expected.to(found.dtype)))
    found, expected = found.detach(), expected.detach()
    norm = torch.linalg.vector_norm(expected)
    return float(torch.linalg.vector_norm(found - expected) / (norm if norm > 1e-8 else 1.0))


def compare(found: Run, expected: Run, values: float = 1e-9, gradients: float = 1e-8) -> None:
    """Assert that two runs agree, leaf by leaf."""
    for i, (row, want) in enumerate(zip(found.outputs, expected.outputs, strict=True)):
        for j, (x, y) in enumerate(zip(row, want, strict=True)):
            assert error(x, y) <= values, f"output {j} of example {i}: {error(x, y):.1e}"
    for name, y in expected.parameters.items():
        off = error(found.parameters[name], y)
        assert off <= gradients, f"gradient of {name}: {off:.1e}"
    for i, (x, y) in enumerate(zip(found.inputs, expected.inputs, strict=True)):
        assert error(x, y) <= gradients, f"gradient of input leaf {i}: {error(x, y):.1e}"
