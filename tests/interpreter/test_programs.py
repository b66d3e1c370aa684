"""The corpus on generated kernels: values and every gradient against plain torch, under each strategy and all
instruments (shuffled schedules, recorded addresses, poisoned buffers)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from foldfuse.kernels.request import Request
from foldfuse.runtime import fused

from .. import harness
from ..programs import PROGRAMS, Program, draw_parameters
from .kernel_harness import (
    STRATEGIES,
    Trace,
    agrees_under,
    examples_in,
    instruments,
    model_of,
    named,
    outcome,
    rounded,
    second_derivatives,
    shortened,
    traced,
)

by_layout = pytest.mark.parametrize("ragged", [False, True], ids=["padded", "ragged"])
RECURRENCES = [shortened(program) for program in PROGRAMS if program.family == "recurrences"]
OTHERS = [program for program in PROGRAMS if program.family != "recurrences"]

REQUESTS = {
    "resident": Request(force="resident"),
    # So small that most of the corpus, five wide, is in two blocks.
    "streamed": Request(force="streamed", block=4),
    "cooperative": Request(force="cooperative", block=2),
}
# Steps in which no column needs what another one has: programs that own columns have nothing to tell each other.
ALONE = ("attend", "indrnn", "min_gru", "cumulative_sum", "init_by_element")


# The last carry of these is a sum over the list, or a product of two lists: no loop is left.
SUMS = ("attend.fold", "attend.fold.reverse", "cumulative_sum.fold", "cumulative_sum.fold.reverse")


def identified(programs: list[Program]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("program", programs, ids=lambda program: program.name)


def is_clean(trace: Trace, strategy: str) -> None:
    """All loops over time ran as kernels of one strategy, and nothing was evaluated as a whole."""
    assert not trace.evaluated
    assert trace.scans and {kernel.strategy for kernel in trace.scans} == {strategy}


@by_layout
@pytest.mark.parametrize("strategy", STRATEGIES)
@identified(RECURRENCES)
def test_recurrences(program: Program, strategy: str, ragged: bool) -> None:
    trace = agrees_under(program, REQUESTS[strategy], ragged)
    if program.name.removeprefix("recurrences.") in SUMS:
        assert not trace.scans
        return
    is_clean(trace, strategy)
    met = any(kernel.cooperative for kernel in trace.scans)
    alone = program.name.split(".")[1] in ALONE
    assert met == (strategy == "cooperative" and not alone)


@by_layout
@identified(OTHERS)
def test_other_programs(program: Program, ragged: bool) -> None:
    """Under every strategy, if there is a loop over time whose strategy could differ."""
    if ragged and not program.ragged:
        pytest.skip("rows of several lengths make no sense")
    for strategy in STRATEGIES:
        trace = agrees_under(program, REQUESTS[strategy], ragged)
        if not trace.scans:
            break
        if strategy != "cooperative":
            assert {kernel.strategy for kernel in trace.scans} == {strategy}


# --- choices that change the graphs, not the strategy -----------------------------------------------------------------

SAMPLE = ("recurrences.lstm.scan", "recurrences.gru_first.fold.reverse", "face.luong", "nestings.self_attention")


@pytest.mark.parametrize("name", [*SAMPLE, "face.residual_block", "windows.contraction", "nestings.tied"])
def test_contractions_as_kernels(name: str) -> None:
    """Without the vendor's library, matrix products outside of loops are kernels too."""
    program = shortened(named(name))
    trace = agrees_under(program, Request(vendor=False))
    reasons = {step.reason for graph in trace.graphs for step in graph.steps if step not in graph.kernels}
    assert not any("matrix product" in reason for reason in reasons)


@pytest.mark.parametrize("memory", ["save", "recompute"])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    "name", ["recurrences.lstm.scan", "recurrences.gated_delta.fold", "recurrences.layer_norm_lstm.fold"]
)
def test_residuals(name: str, strategy: str, memory: str) -> None:
    program = shortened(named(name))
    is_clean(agrees_under(program, REQUESTS[strategy], True, memory=memory), strategy)


# --- other dtypes -----------------------------------------------------------------------------------------------------

# On contractive steps; where the dynamics amplify, as a layer norm of small numbers does, no worse than twice what
# plain torch makes of the same program in the same dtype. The interpreter takes no product in half precision,
# but operands and results are rounded to it.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}


@by_layout
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("step", ["lstm.scan", "gru.fold", "layer_norm_lstm.scan.reverse", "delta_rule.scan"])
def test_dtypes(step: str, strategy: str, dtype: torch.dtype, ragged: bool) -> None:
    program = shortened(named(f"recurrences.{step}"))
    narrow, wide = examples_in(program, ragged, dtype)
    found, trace = outcome(program, narrow, REQUESTS[strategy], ragged, dtype=dtype)
    is_clean(trace, strategy)
    assert all(leaf.dtype is dtype for row in found.outputs for leaf in row)
    expected = harness.plain_run(rounded(program, dtype), wide)
    plain = harness.plain_run(in_dtype(program, dtype), narrow)
    allowed = max(TOLERANCES[dtype], 2 * farthest(plain, expected))
    harness.compare(found, expected, allowed, allowed)


class Narrow(TorchFunctionMode):
    """What plain torch would compute in double precision is computed in another dtype."""

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, function: Any, types: Any, arguments: tuple = (), keywords: Any = None) -> Any:
        double = lambda x: isinstance(x, torch.Tensor) and x.dtype is torch.float64
        made = function(*arguments, **(keywords or {}))
        return pytree.tree_map(lambda x: x.to(self.dtype) if double(x) else x, made)


def in_dtype(program: Program, dtype: torch.dtype) -> Program:
    """A program whose plain counterpart computes everything in a dtype."""

    def plain(parameters: dict[str, torch.Tensor], *example: Any) -> Any:
        with Narrow(dtype):
            return program.plain({name: value.to(dtype) for name, value in parameters.items()}, *example)

    return replace(program, plain=plain)


def farthest(found: harness.Run, expected: harness.Run) -> float:
    """The largest relative error of a value or gradient."""
    pairs = [
        *((x, y) for row, want in zip(found.outputs, expected.outputs) for x, y in zip(row, want)),
        *((found.parameters[name], y) for name, y in expected.parameters.items()),
        *zip(found.inputs, expected.inputs),
    ]
    return max(harness.error(x.double(), y) for x, y in pairs)


# --- second derivatives -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["recurrences.lstm.fold", "recurrences.gru_first.scan", "recurrences.attend.scan"])
def test_second_derivatives(name: str, strategy: str) -> None:
    program = shortened(named(name))
    batch = harness.examples(program, True)
    inputs = [leaf for leaf in pytree.tree_leaves(batch) if leaf.is_floating_point()]
    parameters = {key: value.requires_grad_() for key, value in draw_parameters(program.shapes).items()}
    rows = [pytree.tree_leaves(program.plain(parameters, *example)) for example in batch]
    expected = second_derivatives([leaf for row in rows for leaf in row], [*parameters.values(), *inputs])

    model = model_of(program)
    with fused.requested(REQUESTS[strategy]), traced() as trace, instruments(name):
        output = model(*harness.arguments(model, program, batch, True), entry=program.entry)
        rows = harness.rows_of(output, len(batch))
        sources = [*(model.get_parameter(key) for key in parameters), *inputs]
        found = second_derivatives([leaf for row in rows for leaf in row], sources)
    is_clean(trace, strategy)
    for value, want in zip(found, expected, strict=True):
        assert harness.error(value, want) <= 1e-8
