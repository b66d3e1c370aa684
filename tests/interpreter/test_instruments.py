"""Programs side by side: a right kernel with grid barriers is right in every order, and each fault of it shows."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from foldfuse.kernels.device import grid_barrier

from .addresses import Recorder, recorded_addresses
from .memory import Traffic
from .schedules import Deadlock, in_order, shuffled_schedules

GROUPS, PROGRAMS, BLOCK, STEPS = 2, 4, 8, 5
WIDTH = PROGRAMS * BLOCK


@triton.jit
def relaxed_barrier(counter, arrivals):
    """A grid barrier that orders no memory: programs meet, and yet may not see what the others wrote."""
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="relaxed")
    while tl.atomic_add(counter, 0, sem="relaxed") < arrivals:
        pass
    tl.debug_barrier()


@triton.jit
def count_only(counter, arrivals):
    """A grid barrier without its debug barriers: on a GPU one thread of the program waits, the others run on."""
    tl.atomic_add(counter, 1, sem="release")
    while tl.atomic_add(counter, 0, sem="acquire") < arrivals:
        pass


@triton.jit
def recurrence(
    inputs, states, outputs, counters, steps, BUFFERS: tl.constexpr, ARRIVALS: tl.constexpr, BARRIER: tl.constexpr
):
    """h[j] = tanh(h[j] / 2 + h[j + 1] + x[j]) over a ring of 4 × 8 columns, one group of programs per row.

    States are exchanged through memory [BUFFERS, 2, 32]; the row's counter is where its programs meet.
    """
    group = tl.program_id(0)
    columns = tl.program_id(1) * 8 + tl.arange(0, 8)
    following = (columns + 1) % 32
    for step in range(steps):
        source = states + (step % BUFFERS) * 64 + group * 32
        target = states + ((step + 1) % BUFFERS) * 64 + group * 32
        own, neighbour = tl.load(source + columns), tl.load(source + following)
        x = tl.load(inputs + step * 64 + group * 32 + columns)
        # tanh(z) = 2 sigmoid(2 z) - 1
        state = 2 * tl.sigmoid(2 * (own / 2 + neighbour + x)) - 1
        tl.store(target + columns, state)
        tl.store(outputs + step * 64 + group * 32 + columns, state)
        if BARRIER == "whole":
            grid_barrier(counters + group, ARRIVALS * (step + 1))
        elif BARRIER == "relaxed":
            relaxed_barrier(counters + group, ARRIVALS * (step + 1))
        elif BARRIER == "count only":
            count_only(counters + group, ARRIVALS * (step + 1))
        else:
            tl.debug_barrier()


def run_recurrence(buffers: int = 2, arrivals: int = PROGRAMS, barrier: str = "whole") -> tuple[torch.Tensor, float]:
    """One launch: its outputs [steps, groups, columns], and how far they are from torch's."""
    inputs = torch.randn(STEPS, GROUPS, WIDTH, generator=torch.Generator().manual_seed(3))
    states = torch.full((buffers, GROUPS, WIDTH), float("nan"))
    states[0] = 0.25
    outputs = torch.full((STEPS, GROUPS, WIDTH), float("nan"))
    counters = torch.zeros(GROUPS, dtype=torch.int32)
    recurrence[(GROUPS, PROGRAMS)](inputs, states, outputs, counters, STEPS, buffers, arrivals, barrier)
    state, expected = torch.full((GROUPS, WIDTH), 0.25), []
    for x in inputs:
        state = torch.tanh(state / 2 + state.roll(-1, 1) + x)
        expected.append(state)
    error = (outputs - torch.stack(expected)).abs().nan_to_num(nan=float("inf")).max().item()
    return outputs, error


def kinds(recorder: Recorder) -> set[tuple[str, str]]:
    return {(finding.kind, finding.buffer) for finding in recorder.findings}


@pytest.mark.parametrize("seed", range(20))
def test_a_right_kernel_is_right_and_clean_in_every_order(seed):
    with shuffled_schedules(seed), recorded_addresses() as recorder:
        _, error = run_recurrence()
    assert error < 1e-6
    recorder.check()


def test_a_right_kernel_is_right_when_programs_give_way_everywhere():
    for seed in range(3):
        with shuffled_schedules(seed, at=("atomic", "barrier", "memory")), recorded_addresses() as recorder:
            _, error = run_recurrence()
        assert error < 1e-6
        recorder.check()


def test_a_seed_repeats_its_order_and_seeds_differ():
    def wrong_result(seed: int) -> torch.Tensor:
        with shuffled_schedules(seed, at=("memory",)):
            return run_recurrence(barrier="none")[0].nan_to_num(nan=9.0)

    results = [wrong_result(seed) for seed in range(4)]
    assert all(torch.equal(result, wrong_result(seed)) for seed, result in enumerate(results[:2]))
    assert any(not torch.equal(results[0], result) for result in results[1:])


@pytest.mark.parametrize("scheduled", [in_order, lambda: shuffled_schedules(0), lambda: shuffled_schedules(1)])
def test_a_missing_barrier_is_wrong_and_found(scheduled):
    with scheduled(), recorded_addresses() as recorder:
        _, error = run_recurrence(barrier="none")
    assert error > 1e-3
    found = kinds(recorder)
    assert ("read after write", "states") in found or ("write after read", "states") in found
    assert all(buffer == "states" for _, buffer in found)
    with pytest.raises(AssertionError, match=r"`states` of kernel `recurrence`.*no grid barrier") as error:
        recorder.check()
    assert "test_instruments.py" in str(error.value) and "tl.load(source" in str(error.value)


def test_one_buffer_is_written_while_others_read_it():
    with shuffled_schedules(0), recorded_addresses() as recorder:
        run_recurrence(buffers=1)
    # Also within each program: the load and the store of a step have no debug barrier between them.
    same = [f.programs[0] == f.programs[1] for f in recorder.findings if f.kind == "write after read"]
    assert True in same and False in same
    wrong = 0
    for seed in range(5):
        with shuffled_schedules(seed):
            wrong += run_recurrence(buffers=1)[1] > 1e-3
    assert wrong > 0


@pytest.mark.parametrize("barrier", ["count only", "relaxed"])
def test_a_grid_barrier_needs_its_debug_barriers_and_its_memory_order(barrier):
    with shuffled_schedules(0), recorded_addresses() as recorder:
        _, error = run_recurrence(barrier=barrier)
    # In the interpreter a program has one thread, and memory one order: the values are right.
    assert error < 1e-6
    assert ("read after write", "states") in kinds(recorder)


@pytest.mark.parametrize("scheduled", [in_order, lambda: shuffled_schedules(5)])
def test_too_many_arrivals_are_a_deadlock(scheduled):
    with scheduled(), pytest.raises(Deadlock) as error:
        run_recurrence(arrivals=PROGRAMS + 1)
    text = str(error.value)
    assert "kernel `recurrence`: 8 of its 8 programs wait" in text
    assert "atomic_add(counter, 0" in text and "(called at device.py:" in text and "(0, 3, 0)" in text


def test_too_few_arrivals_let_programs_through():
    findings = 0
    for seed in range(5):
        with shuffled_schedules(seed), recorded_addresses() as recorder:
            run_recurrence(arrivals=PROGRAMS - 1)
        findings += bool(recorder.findings)
    assert findings > 0


@triton.jit
def leaves_early(counters, arrivals):
    if tl.program_id(0) != 2:
        grid_barrier(counters, arrivals)


def test_a_program_that_skips_the_barrier_is_a_deadlock():
    with shuffled_schedules(1), pytest.raises(Deadlock, match="3 of its 4 programs wait"):
        leaves_early[(4,)](torch.zeros(1, dtype=torch.int32), 4)


def test_a_deadlock_leaves_nothing_behind():
    with shuffled_schedules(1), pytest.raises(Deadlock):
        run_recurrence(arrivals=PROGRAMS + 1)
    with shuffled_schedules(1):
        assert run_recurrence()[1] < 1e-6


@triton.jit
def fails(outputs, counters):
    if tl.program_id(0) == 1:
        tl.static_assert(tl.program_id(0) == 0, "the second program fails")
    grid_barrier(counters, 3)


def test_an_error_in_a_program_ends_the_launch():
    with shuffled_schedules(0), pytest.raises(Exception, match="the second program fails"):
        fails[(3,)](torch.zeros(1), torch.zeros(1, dtype=torch.int32))


@triton.jit
def signals(values, flags, outputs):
    """Program 0 hands a value to program 1 by a compare-and-swap; program 2 waits by volatile loads."""
    program = tl.program_id(0)
    if program == 0:
        tl.store(values, 7.0)
        tl.debug_barrier()
        tl.atomic_cas(flags, 0, 1, sem="release")
    elif program == 1:
        while tl.atomic_cas(flags, 1, 2, sem="acquire") == 0:
            pass
        tl.debug_barrier()
        tl.store(outputs, tl.load(values))
    else:
        while tl.load(flags, volatile=True) < 2:
            pass


@pytest.mark.parametrize("seed", range(4))
def test_programs_may_wait_by_other_means(seed):
    outputs = torch.zeros(1)
    with shuffled_schedules(seed), recorded_addresses() as recorder:
        signals[(3,)](torch.zeros(1), torch.zeros(1, dtype=torch.int32), outputs)
    assert outputs.item() == 7
    # A volatile load orders nothing, and is no atomic: the flag itself is then read while it is written.
    assert {buffer for _, buffer in kinds(recorder)} <= {"flags"}


@triton.jit
def race(flags, tickets, order):
    """Program 0 waits for the flag that program 1 raises long before its end; both then take a ticket."""
    program = tl.program_id(0)
    if program == 0:
        while tl.atomic_add(flags, 0) == 0:
            pass
    else:
        for _ in range(20):
            tl.atomic_add(flags, 1)
    tl.store(order + program, tl.atomic_add(tickets, 1))


def test_a_program_that_has_waited_goes_on_before_the_others_end():
    def first_to_end() -> int:
        order = torch.zeros(2, dtype=torch.int32)
        race[(2,)](torch.zeros(1, dtype=torch.int32), torch.zeros(1, dtype=torch.int32), order)
        return order.tolist().index(0)

    with in_order():
        assert first_to_end() == 1
    for seed in range(10):
        with shuffled_schedules(seed):
            assert first_to_end() == 0


@triton.jit
def polls(flags):
    tl.atomic_poll(flags, 1)


def test_what_is_not_followed_is_refused():
    with in_order(), pytest.raises(Exception, match=r"tl\.atomic_poll.*do not follow"):
        polls[(1,)](torch.zeros(1, dtype=torch.int32))
    with pytest.raises(ValueError, match="not at loads"), shuffled_schedules(0, at=("loads",)):
        pass


def test_the_exchange_is_counted():
    with in_order(), recorded_addresses() as recorder:
        run_recurrence()
    # Each state is read twice in every step, from one of two buffers.
    assert recorder.bytes_read["states"] == Traffic(2 * STEPS * GROUPS * WIDTH * 4, 2 * GROUPS * WIDTH * 4)
    assert recorder.bytes_written["outputs"] == Traffic(*[STEPS * GROUPS * WIDTH * 4] * 2)
    # A counter takes one arrival of each program in each step, and at least one look.
    assert recorder.bytes_written["counters"].total >= 2 * STEPS * GROUPS * PROGRAMS * 4


def test_the_fixture_runs_every_schedule(schedule, recorder):
    assert schedule in ("in order", 1, 2)
    assert run_recurrence()[1] < 1e-6


@triton.jit
def halve(x_pointer, y_pointer, COUNT: tl.constexpr):
    places = tl.arange(0, COUNT)
    tl.store(y_pointer + places, tl.load(x_pointer + places).to(tl.bfloat16))


def test_numbers_are_rounded_to_the_nearest() -> None:
    # Ties to the even neighbour, both signs, infinities, what rounds up to infinity, denormals.
    special = [1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, float("inf"), -float("inf"), 3.4e38, 1e-40, 0.0]
    x = torch.cat((torch.tensor(special), torch.randn(56, generator=torch.Generator().manual_seed(0))))
    y = torch.empty(64, dtype=torch.bfloat16)
    halve[(1,)](x, y, 64)
    assert torch.equal(y, x.to(torch.bfloat16))
