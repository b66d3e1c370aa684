"""Sums over an axis of matrix states that no step reads: programs that share the axis meet behind the loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch

import foldfuse as ff
from foldfuse.compiler.sizes import Named
from foldfuse.kernels import proposals
from foldfuse.kernels.kernel import Kernel, total
from foldfuse.kernels.request import Request
from foldfuse.runtime import fused

from ..programs import Program
from ..programs.record import floats
from .kernel_harness import agrees_under, model_of, named
from .test_account import moved

KEYS, VALUES = 4, 5
REQUEST = Request(force="cooperative", block=2)


def read_across(keys: int = KEYS, values: int = VALUES, largest: bool = False) -> Program:
    """A delta rule whose state is read along the axis that its recurrence does not sum over.

    Arguments:
        keys, values: the sizes of the state.
        largest: whether its largest elements are read, not its product with a vector.
    """

    def build() -> dict[str, tuple]:
        def step(S: Any, p: Any) -> Any:
            k, v, r = p
            S = 0.9 * S + k[:, None] * (v - k @ S)
            return S, ff.max(S * r, axis=1) if largest else S @ r

        lists = (ff.f32[keys], ff.f32[values], ff.f32[values])
        return {"main": (ff.scan(step, init=ff.zeros(keys, values)), ff.Seq(lists))}

    def plain(p: dict[str, torch.Tensor], steps: Sequence[tuple[torch.Tensor, ...]]) -> torch.Tensor:
        S, read = torch.zeros(keys, values, dtype=torch.float64), []
        for k, v, r in zip(*steps, strict=True):
            S = 0.9 * S + k[:, None] * (v - k @ S)
            read.append((S * r).max(1).values if largest else S @ r)
        return torch.stack(read) if read else torch.zeros(0, keys, dtype=torch.float64)

    inputs = lambda rng, n: ((floats(rng, n, keys), floats(rng, n, values), floats(rng, n, values)),)
    return Program("meeting_behind.read_across", build, plain, inputs, {})


def barriers(kernel: Kernel, steps: int) -> int:
    """How many barriers among programs a program passes in so many steps of a row."""
    sizes = {"T": steps, "S": steps, "B": 1}
    return total(kernel.account.barriers, lambda name: sizes.get(name, min(steps, 32)))


@pytest.mark.parametrize("memory", ["save", "recompute"])
@pytest.mark.parametrize("lengths", [(2, 2), (0, 3, 1)], ids=["padded", "ragged"])
@pytest.mark.parametrize("name", ["delta_rule", "gated_delta"])
def test_gradients_of_keys(name: str, lengths: tuple[int, ...], memory: str) -> None:
    program, ragged = named(f"recurrences.{name}.scan"), len(set(lengths)) > 1
    trace = agrees_under(program, REQUEST, ragged, lengths, memory=memory)
    assert not trace.evaluated
    (backward,) = (kernel for kernel in trace.scans if kernel.cooperative)
    # As many for each segment, however many steps it has; without segments, one in every step.
    assert (barriers(backward, 32) == barriers(backward, 1) > 0) == (memory == "recompute")


@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("memory", ["save", "recompute"])
@pytest.mark.parametrize("lengths", [(2, 2), (0, 3, 1), (0, 0)], ids=["padded", "ragged", "empty"])
def test_what_is_read_across(lengths: tuple[int, ...], memory: str, largest: bool) -> None:
    trace = agrees_under(read_across(largest=largest), REQUEST, len(set(lengths)) > 1, lengths, memory=memory)
    assert not trace.evaluated
    together = [kernel for kernel in trace.scans if kernel.cooperative]
    # What is read of states that are kept needs no loop.
    assert len(together) == (1 if memory == "save" else 2)
    assert all((barriers(kernel, 32) == barriers(kernel, 1)) == (memory == "recompute") for kernel in together)


@pytest.mark.parametrize("largest", [False, True])
def test_lists_of_the_caller_are_no_longer_than_they_are(largest: bool) -> None:
    """A loop around which there is none: its programs meet in every step."""
    compiled = model_of(read_across(largest=largest), "save").compiled()
    planned = fused.plan(compiled.backward, REQUEST, frozenset())
    (loop,) = (each.kernel for each in planned.kernels if each.kernel.name == "scan")
    assert barriers(loop, 32) - barriers(loop, 1) == 31
    scratch = [argument.extent for argument in loop.arguments if argument.kind == "scratch"]
    assert scratch and all(Named("T") not in extent for extent in scratch)


def test_more_steps_than_a_segment() -> None:
    agrees_under(read_across(3, 3), REQUEST, True, (40, 33))


@pytest.mark.parametrize("strategy", ["resident", "cooperative"])
@pytest.mark.parametrize("lengths", [(2, 2), (0, 3, 1)], ids=["padded", "ragged"])
@pytest.mark.parametrize("name", ["delta_rule", "heads_matmul"])
def test_lists_one_element_at_a_time(name: str, lengths: tuple[int, ...], strategy: str) -> None:
    """As tiles of large states have them."""
    usual = proposals._sized

    def one(steps: Any, placement: Any, request: Any) -> Any:
        return usual(steps, replace(placement, list_block=1), request)

    program, ragged = named(f"recurrences.{name}.scan"), len(set(lengths)) > 1
    # Its own block, so that no plan is kept of it or found for it.
    request = Request(force=strategy, block=1)
    with mock.patch.object(proposals, "_sized", one):
        trace = agrees_under(program, request, ragged, lengths, memory="recompute")
    assert not trace.evaluated and any(", 1):" in kernel.source for kernel in trace.scans)


@pytest.mark.parametrize("program", [read_across(), named("recurrences.delta_rule.scan")], ids=lambda p: p.name)
def test_the_account_is_what_is_moved(program: Program) -> None:
    for each in moved(program, REQUEST, (2, 2, 2)):
        account, lookup = each.kernel.account, each.sizes.__getitem__
        assert total(account.read, lookup) == each.read.total(), each.kernel.source
        assert total(account.written, lookup) == each.written.total(), each.kernel.source
