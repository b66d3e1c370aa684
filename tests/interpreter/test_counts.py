"""How many kernels a program is, and of how many texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import foldfuse as ff
from foldfuse.kernels.request import Request
from foldfuse.runtime import fused
from foldfuse.runtime.launch import counts

from .. import harness
from ..programs import PROGRAMS, Program
from ..programs.recurrences import lstm, rest
from .kernel_harness import STRATEGIES, Trace, model_of, named, shortened, traced

RECURRENCES = [shortened(program) for program in PROGRAMS if program.family == "recurrences"]


def launched(model: ff.Model, program: Program, ragged: bool = False) -> tuple[Counter, Counter, Trace, Trace]:
    """By kernel name, the launches of a forward and of a backward pass; and what each pass ran."""
    batch = harness.examples(program, ragged)
    start = counts()
    with traced() as forward:
        output = model(*harness.arguments(model, program, batch, ragged), entry=program.entry, seed=1)
    middle = counts()
    with traced() as backward:
        harness.differentiated(harness.rows_of(output, len(batch)), dict(model.named_parameters()), batch)
    end = counts()
    return (middle - start).launches, (end - middle).launches, forward, backward


# The last carry of these is a sum over the list, or a product of two lists: no loop is left.
SUMS = ("attend.fold", "attend.fold.reverse", "cumulative_sum.fold", "cumulative_sum.fold.reverse")


@pytest.mark.parametrize("program", RECURRENCES, ids=lambda program: program.name)
def test_a_recurrence_is_one_kernel_each_way(program: Program) -> None:
    forward, backward, *_ = launched(model_of(program), program)
    loops = int(program.name.removeprefix("recurrences.") not in SUMS)
    assert forward["scan"] == loops and backward["scan"] == loops
    assert set(forward | backward) <= {"scan", "pointwise"}


# By program and pass: launches of recurrent kernels, of other kernels, and steps that torch's library does.
STATED = {
    "recurrences.elman.fold": ((1, 0, 1), (1, 0, 5)),
    "recurrences.lstm.scan": ((1, 0, 1), (1, 0, 5)),
    "recurrences.lstm.fold": ((1, 0, 1), (1, 0, 5)),
    "recurrences.gru.scan": ((1, 1, 1), (1, 2, 11)),
    "recurrences.layer_norm_lstm.scan": ((1, 0, 1), (1, 5, 11)),
    "nestings.map_in_scan": ((1, 0, 0), (1, 2, 14)),
    "face.luong": ((2, 5, 4), (2, 8, 36)),
}


@pytest.mark.parametrize("name", STATED)
def test_all_launches_are_stated(name: str) -> None:
    program = named(name)
    *passes, forward, backward = launched(model_of(program), program)
    found = []
    for launches, trace in zip(passes, (forward, backward)):
        evaluated = sum(len(graph.steps) - len(graph.kernels) for graph in trace.graphs)
        assert not trace.evaluated and launches.total() == len(trace.kernels)
        found.append((launches["scan"], launches["pointwise"], evaluated))
    assert tuple(found) == STATED[name]


@pytest.mark.parametrize("force", STRATEGIES)
@pytest.mark.parametrize("name", ["recurrences.gru.scan", "nestings.map_in_scan"])
def test_no_size_compiles_a_kernel(name: str, force: str) -> None:
    program = named(name)
    model = model_of(program)
    with fused.requested(Request(force=force)):
        harness.model_run(model, program, *of_sizes(program, 3, 2))
        before = counts()
        for batch, time in ((1, 2), (2, 1), (17, 3), (3, 0), (5, 4)):
            harness.model_run(model, program, *of_sizes(program, batch, time))
    passed = counts() - before
    assert passed.launches["scan"] >= 8 and not passed.compiles


def of_sizes(program: Program, batch: int, time: int) -> tuple[list[tuple], bool]:
    """Examples of one length, and that they are not ragged."""
    return harness.examples(replace(program, lengths=(time,) * batch), True), False


def layers(width: int, count: int) -> Any:
    """A stack of equal LSTMs."""
    stacked: Callable[[Any], Any] = ff.map(lambda x: x)
    for i in range(count):
        with ff.scope(f"layer{i}"):
            stacked = stacked >> ff.scan(lstm(width, width), init=rest(width))
    return stacked


@pytest.mark.parametrize("force", STRATEGIES)
def test_equal_layers_are_one_text_each_way(force: str) -> None:
    model = ff.compile(layers(6, 8), ff.Seq(ff.f32[6])).double()
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    with fused.requested(Request(force=force)), traced() as forward:
        y = model(x)
    with fused.requested(Request(force=force)), traced() as backward:
        y.square().sum().backward()
    assert len(forward.scans) == len(backward.scans) == 8
    assert len({kernel.key for kernel in forward.scans}) == 1
    assert len({kernel.key for kernel in backward.scans}) == 1
