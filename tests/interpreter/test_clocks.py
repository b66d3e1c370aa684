"""Vector clocks by hand: what a release hands out, and when an acquire takes it over."""

from __future__ import annotations

import numpy as np
import pytest

from .clocks import Clocks

COUNTER, OTHER = 0x1000, 0x2000


def arrive(clocks: Clocks, program: int, counter: int = COUNTER) -> None:
    clocks.barrier(program)
    clocks.atomic(program, counter, acquires=False, releases=True)


def leave(clocks: Clocks, program: int, counter: int = COUNTER) -> None:
    clocks.atomic(program, counter, acquires=True, releases=False)
    clocks.barrier(program)


def before(clocks: Clocks, first: int, second: int, time: int) -> bool:
    """Whether an access of one program at a time happens before what another program does now."""
    return bool(time < clocks.horizon(second)[first])


def test_programs_start_unordered_and_a_debug_barrier_orders_one_program():
    clocks = Clocks(2)
    assert not before(clocks, 0, 0, 1) and not before(clocks, 0, 1, 1)
    clocks.barrier(0)
    assert before(clocks, 0, 0, 1) and not before(clocks, 0, 0, 2)
    assert not before(clocks, 0, 1, 1) and not before(clocks, 1, 1, 1)


def test_a_grid_barrier_orders_what_came_before_it():
    clocks = Clocks(3)
    arrive(clocks, 0)
    arrive(clocks, 1)
    leave(clocks, 1)
    assert before(clocks, 0, 1, 1)
    # What program 0 does after its arrival, and what program 2 has done, are not ordered.
    assert not before(clocks, 0, 1, 2) and not before(clocks, 2, 1, 1)
    assert not before(clocks, 1, 0, 1)


def test_other_threads_learn_of_an_acquire_at_the_debug_barrier():
    clocks = Clocks(2)
    arrive(clocks, 0)
    clocks.atomic(1, COUNTER, acquires=True, releases=False)
    assert not before(clocks, 0, 1, 1)
    clocks.barrier(1)
    assert before(clocks, 0, 1, 1)


def test_a_release_does_not_stand_for_other_threads_without_a_debug_barrier():
    clocks = Clocks(2)
    clocks.atomic(0, COUNTER, acquires=False, releases=True)
    leave(clocks, 1)
    assert not before(clocks, 0, 1, 1)


@pytest.mark.parametrize("release", [True, False])
@pytest.mark.parametrize("acquire", [True, False])
def test_both_sides_need_their_memory_order(release, acquire):
    clocks = Clocks(2)
    clocks.barrier(0)
    clocks.atomic(0, COUNTER, acquires=False, releases=release)
    clocks.atomic(1, COUNTER, acquires=acquire, releases=False)
    clocks.barrier(1)
    assert before(clocks, 0, 1, 1) == (release and acquire)


def test_counters_are_independent_and_orders_chain():
    clocks = Clocks(3)
    arrive(clocks, 0)
    leave(clocks, 2, OTHER)
    assert not before(clocks, 0, 2, 1)
    leave(clocks, 1)
    arrive(clocks, 1, OTHER)
    leave(clocks, 2, OTHER)
    assert before(clocks, 0, 2, 1) and before(clocks, 1, 2, 1)


def test_a_thread_hands_on_what_it_has_just_acquired():
    clocks = Clocks(3)
    arrive(clocks, 0)
    clocks.atomic(1, COUNTER, acquires=True, releases=False)
    clocks.atomic(1, OTHER, acquires=False, releases=True)
    leave(clocks, 2, OTHER)
    assert before(clocks, 0, 2, 1)


def test_what_is_handed_out_stays_as_it_was():
    clocks = Clocks(2)
    arrive(clocks, 0)
    for _ in range(3):
        clocks.barrier(0)
    assert np.array_equal(clocks.horizon(0), [5, 0])
    leave(clocks, 1)
    assert np.array_equal(clocks.horizon(1), [2, 2])
