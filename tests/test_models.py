"""Every program of the corpus, compiled: values and every gradient against plain torch, padded and ragged; the plain
evaluation and the oracle beside it; second derivatives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.utils import _pytree as pytree

from .harness import arguments, compare, compiled, error, examples, model_run, plain_run, rows_of
from .programs import PROGRAMS, Program

by_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
FORMS = [pytest.param(False, id="padded"), pytest.param(True, id="ragged")]


@by_program
@pytest.mark.parametrize("ragged", FORMS)
def test_against_plain_torch(program: Program, ragged: bool) -> None:
    if ragged and not program.ragged:
        pytest.skip("its examples have one size")
    model = compiled(program)
    batch = examples(program, ragged)
    compare(model_run(model, program, batch, ragged), plain_run(program, batch))


@by_program
def test_against_the_oracle(program: Program) -> None:
    model = compiled(program)
    batch = examples(program, program.ragged)
    call = arguments(model, program, batch, program.ragged)
    expected = rows_of(model.reference(*call, entry=program.entry, seed=1), len(batch))
    for evaluate in (model, model.eager):
        found = rows_of(evaluate(*call, entry=program.entry, seed=1), len(batch))
        for row, want in zip(found, expected, strict=True):
            for x, y in zip(row, want, strict=True):
                assert error(x.detach(), y) <= 1e-9


@by_program
@pytest.mark.parametrize("memory", ["save", "recompute"])
def test_memory_choices_change_no_gradient(program: Program, memory: str) -> None:
    batch = examples(program, program.ragged)
    found = model_run(compiled(program, memory=memory), program, batch, program.ragged)
    compare(found, plain_run(program, batch))


@pytest.mark.parametrize("program", [p for p in PROGRAMS if p.second], ids=lambda program: program.name)
def test_second_derivatives(program: Program) -> None:
    model = compiled(program)
    batch = examples(program, program.ragged)[:2]
    inputs = [x for x in pytree.tree_leaves(batch) if isinstance(x, torch.Tensor) and x.is_floating_point()]
    wanted = [*model.parameters(), *inputs]

    def weighed(values: list[torch.Tensor], wave: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor | float:
        return sum((y * wave(torch.arange(y.numel()).reshape(y.shape) + 1.0)).sum() for y in values)

    def curvature(evaluate) -> list[torch.Tensor]:
        call = arguments(model, program, batch, program.ragged)
        outputs = [y for row in rows_of(evaluate(*call, entry=program.entry, seed=1), len(batch)) for y in row]
        total = weighed([y for y in outputs if y.requires_grad], torch.cos)
        first = torch.autograd.grad(total, wanted, create_graph=True, allow_unused=True)
        again = weighed([g for g in first if g is not None], torch.sin)
        if not (isinstance(again, torch.Tensor) and again.requires_grad):
            return [torch.zeros_like(x) for x in wanted]
        second = torch.autograd.grad(again, wanted, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(wanted, second)]

    found, expected = curvature(model), curvature(model.eager)
    assert len(found) == len(expected)
    for x, y in zip(found, expected):
        assert error(x, y) <= 1e-7
