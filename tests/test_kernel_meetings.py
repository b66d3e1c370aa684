"""Where programs meet for reductions over an axis that is spread over them."""

from __future__ import annotations

from typing import Any

import pytest

import foldfuse as ff
from foldfuse.compiler.ir import Graph
from foldfuse.kernels.axes import Axes, analyse
from foldfuse.kernels.flat import FlatScan, flatten
from foldfuse.kernels.meetings import awaited_reductions, cut_reductions, made_in, reductions_behind

from .cells import CELLS, MORE_CELLS, graphs

KEYS, VALUES, D = 3, 5, 2


def loop_of(graph: Graph) -> tuple[FlatScan, Axes]:
    """The loop of a graph that has one, and the axis classes of the program."""
    program = flatten(graph)
    (loop,) = (item for item in program.items if isinstance(item, FlatScan))
    return loop, analyse(program.items)


def awaited(graph: Graph) -> dict[int, bool]:
    """Per extent of a carry, whether a step waits for what it reduces over it."""
    loop, axes = loop_of(graph)
    (carry,) = loop.carries
    classes = {carry.dims[d]: axes.of(carry, d) for d in range(len(loop.levels), len(carry.dims))}
    return {extent: awaited_reductions([loop], axes, {number}) for extent, number in classes.items()}


def memory(step: Any, *widths: int) -> tuple[Any, ...]:
    lists = tuple(ff.f32[n] for n in widths)
    return ff.scan(step, init=ff.zeros(KEYS, VALUES)), ff.Seq(lists)


def delta(S: Any, p: Any) -> Any:
    q, k, v = p
    S = S + k[:, None] * (v - k @ S)
    return S, q @ S


def test_a_delta_rule_waits_for_sums_over_keys_alone() -> None:
    compiled = graphs(*memory(delta, KEYS, KEYS, VALUES), memory="recompute")
    assert awaited(compiled.forward) == awaited(compiled.backward) == {KEYS: True, VALUES: False}


def test_lists_of_the_caller_are_waited_for() -> None:
    """Around a loop there is no other one: what programs contribute to its lists would be as long as these."""
    compiled = graphs(*memory(delta, KEYS, KEYS, VALUES), memory="save")
    assert awaited(compiled.backward) == {KEYS: True, VALUES: True}


def test_what_a_step_reads_again_is_waited_for() -> None:
    def normed(S: Any, p: Any) -> Any:
        S, read = delta(S, p)
        return S / ff.sqrt(1.0 + ff.sum(S * S)), read

    compiled = graphs(*memory(normed, KEYS, KEYS, VALUES), memory="recompute")
    assert awaited(compiled.forward) == {KEYS: True, VALUES: True}


@pytest.mark.parametrize("cell", ["lstm", "layer_norm_lstm", "elman"])
def test_a_step_with_weights_waits(cell: str) -> None:
    loop, axes = loop_of(graphs(*(CELLS | MORE_CELLS)[cell](6)).forward)
    units = {axes.of(carry, len(loop.levels)) for carry in loop.carries}
    assert awaited_reductions([loop], axes, units)
    # A product with weights is no reduction of which each program would exchange its own.
    assert cut_reductions([loop], axes, units) == (cell == "layer_norm_lstm")


def test_a_product_with_a_matrix_of_the_step_is_taken_apart() -> None:
    loop, axes = loop_of(graphs(*memory(delta, KEYS, KEYS, VALUES)).forward)
    keys, values = (axes.of(loop.carries[0], len(loop.levels) + d) for d in range(2))
    assert cut_reductions([loop], axes, {keys}) and not cut_reductions([loop], axes, {values})


def test_what_follows_on_a_reduction_comes_behind_the_loop_with_it() -> None:
    """The gradient of a key is a sum of two reductions."""
    loop, axes = loop_of(graphs(*MORE_CELLS["gated_delta"](7), memory="recompute").backward)
    made = made_in([loop])
    inner = [item for item in loop.items if isinstance(item, FlatScan)]
    behind = [reductions_behind(scan, made.__contains__, lambda item: True) for scan in inner]
    found = [reductions for lists in behind for reductions in lists.values()]
    assert found and all(value.maker.reduced for reductions in found for value in reductions)
    # With nothing taken apart there is nothing to come behind.
    assert not any(reductions_behind(scan, made.__contains__, lambda item: False) for scan in inner)
