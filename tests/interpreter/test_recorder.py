"""The recorder and the poison, on kernels written by hand: right ones pass, and each fault is found."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from .addresses import Recorder, recorded_addresses
from .memory import Traffic
from .poison import poisoned_empty
from .schedules import shuffled_schedules


def kinds(recorder: Recorder) -> set[tuple[str, str]]:
    return {(finding.kind, finding.buffer) for finding in recorder.findings}


@triton.jit
def reverse_through_memory(inputs, scratch, outputs, BARRIER: tl.constexpr):
    lanes = tl.arange(0, 16)
    tl.store(scratch + lanes, tl.load(inputs + lanes))
    if BARRIER:
        tl.debug_barrier()
    tl.store(outputs + lanes, tl.load(scratch + 15 - lanes))


@pytest.mark.parametrize("barrier", [True, False])
def test_reading_back_at_other_lanes_needs_a_debug_barrier(barrier):
    inputs, outputs = torch.arange(16.0), torch.zeros(16)
    with recorded_addresses() as recorder:
        reverse_through_memory[(1,)](inputs, torch.zeros(16), outputs, barrier)
    assert torch.equal(outputs, inputs.flip(0))
    assert kinds(recorder) == (set() if barrier else {("read after write", "scratch")})
    if not barrier:
        assert recorder.findings[0].places == 16
        with pytest.raises(AssertionError, match="no debug barrier between"):
            recorder.check()


@triton.jit
def shift(values, steps, BUFFERS: tl.constexpr, READ_BARRIER: tl.constexpr):
    """Rotate 16 values by one place per step, through one buffer or two."""
    lanes = tl.arange(0, 16)
    for step in range(steps):
        moved = tl.load(values + (step % BUFFERS) * 16 + (lanes + 1) % 16)
        if READ_BARRIER:
            tl.debug_barrier()
        tl.store(values + ((step + 1) % BUFFERS) * 16 + lanes, moved)
        tl.debug_barrier()


@pytest.mark.parametrize(
    ("buffers", "read_barrier", "found"),
    [(1, False, {("write after read", "values")}), (1, True, set()), (2, False, set())],
)
def test_writing_what_is_still_read_needs_a_barrier_or_a_second_buffer(buffers, read_barrier, found):
    values = torch.arange(32.0)
    with recorded_addresses() as recorder:
        shift[(1,)](values, 3, buffers, read_barrier)
    assert torch.equal(values[16 * (3 % buffers) :][:16], torch.arange(16.0).roll(-3))
    assert kinds(recorder) == found


@triton.jit
def store_again(values, steps, SHIFT: tl.constexpr):
    lanes = tl.arange(0, 16)
    for step in range(steps):
        tl.store(values + (lanes + step * SHIFT) % 16, lanes + step)


def test_a_store_repeated_by_the_same_lanes_is_in_order():
    with recorded_addresses() as recorder:
        store_again[(1,)](torch.zeros(16, dtype=torch.int32), 3, 0)
    recorder.check()
    with recorded_addresses() as recorder:
        store_again[(1,)](torch.zeros(16, dtype=torch.int32), 3, 1)
    assert kinds(recorder) == {("write after write", "values")}


def test_programs_that_write_one_place_are_found():
    with recorded_addresses() as recorder:
        store_again[(2,)](torch.zeros(16, dtype=torch.int32), 1, 0)
    (finding,) = recorder.findings
    assert (finding.kind, finding.programs, finding.places) == ("write after write", ((0, 0, 0), (1, 0, 0)), 16)
    # Two launches are in order.
    with recorded_addresses() as recorder:
        for _ in range(2):
            store_again[(1,)](torch.zeros(16, dtype=torch.int32), 1, 0)
    recorder.check()


@triton.jit
def crowd(values, SAME: tl.constexpr):
    lanes = tl.arange(0, 16)
    tl.store(values + lanes // 4, lanes * 0.0 if SAME else lanes * 1.0)


@pytest.mark.parametrize("same", [True, False])
def test_lanes_of_one_store_must_agree(same):
    with recorded_addresses() as recorder:
        crowd[(1,)](torch.zeros(4), same)
    assert kinds(recorder) == (set() if same else {("lanes that disagree", "values")})


@triton.jit
def add_up(inputs, totals, READ: tl.constexpr):
    lanes = tl.program_id(0) * 8 + tl.arange(0, 8)
    tl.atomic_add(totals + lanes % 4, tl.load(inputs + lanes))
    if READ:
        tl.store(inputs + lanes, tl.load(totals + lanes % 4))


def test_atomics_are_in_order_among_themselves_only():
    inputs, totals = torch.ones(32), torch.zeros(4)
    with shuffled_schedules(2), recorded_addresses() as recorder:
        add_up[(4,)](inputs, totals, False)
    assert torch.equal(totals, torch.full((4,), 8.0))
    recorder.check()
    with shuffled_schedules(2), recorded_addresses() as recorder:
        add_up[(4,)](inputs, totals, True)
    assert ("read after write", "totals") in kinds(recorder)


@triton.jit
def copy(inputs, outputs, count, BLOCK: tl.constexpr):
    lanes = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = lanes < count
    tl.store(outputs + lanes, tl.load(inputs + lanes, mask=mask, other=0.0), mask=mask)


def test_reading_what_nothing_wrote_is_found():
    scratch, outputs = torch.zeros(24), torch.zeros(24)
    with recorded_addresses() as recorder:
        recorder.uninitialised(scratch)
        copy[(3,)](torch.ones(24), scratch, 20, 8)
        copy[(3,)](scratch, outputs, 20, 8)
        recorder.check()
        copy[(3,)](scratch, outputs, 23, 8)
    assert kinds(recorder) == {("uninitialised read", "inputs")}
    assert (recorder.findings[0].offset, recorder.findings[0].places) == (80, 3)
    assert outputs[20:23].isnan().all()
    with recorded_addresses() as recorder:
        recorder.uninitialised(scratch)
        scratch.zero_()
        copy[(3,)](scratch, outputs, 24, 8)
    recorder.check()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.int32, torch.bool])
def test_fresh_buffers_are_poison(dtype):
    original = torch.empty, torch.Tensor.new_empty
    with poisoned_empty():
        fresh = [
            torch.empty(3, 5, dtype=dtype),
            torch.zeros(2, dtype=dtype).new_empty(4),
            torch.empty_like(torch.zeros(2, 3, dtype=dtype)),
            torch.empty_strided((2, 3), (1, 2), dtype=dtype),
        ]
    assert (torch.empty, torch.Tensor.new_empty) == original
    for tensor in fresh:
        assert tensor.dtype == dtype
        bad = tensor.isnan() if dtype.is_floating_point else tensor.bool() & (tensor.long() % 2 == 1)
        assert bad.all()


def test_fresh_buffers_register_themselves(recorder):
    scratch, outputs = torch.empty(16), torch.empty(16)
    copy[(2,)](torch.ones(16), scratch, 16, 8)
    copy[(2,)](scratch, outputs, 16, 8)
    assert torch.equal(outputs, torch.ones(16))


def test_reading_a_fresh_buffer_is_found():
    outputs = torch.zeros(16)
    with recorded_addresses() as recorder, poisoned_empty(recorder):
        copy[(2,)](torch.empty(16), outputs, 16, 8)
    assert kinds(recorder) == {("uninitialised read", "inputs")}
    assert outputs.isnan().all()


def test_accesses_outside_of_the_arguments_are_found():
    block = torch.zeros(64)
    with recorded_addresses() as recorder:
        copy[(2,)](block[16:30], block[32:48], 16, 8)
    assert kinds(recorder) == {("outside", "inputs")}
    assert (recorder.findings[0].places, recorder.findings[0].offset) == (2, 56)


def test_views_of_one_tensor_are_one_buffer():
    block = torch.arange(24.0)
    with recorded_addresses() as recorder:
        copy[(2,)](block[:16], block[8:], 16, 8)
    assert ("read after write", "inputs+outputs") in kinds(recorder)


@triton.jit
def gather_bytes(values, outputs):
    """Reads 16 bytes as four words after writing them as bytes."""
    lanes = tl.arange(0, 16)
    tl.store(values.to(tl.pointer_type(tl.int8)) + lanes, lanes.to(tl.int8))
    tl.store(outputs + tl.arange(0, 4), tl.load(values + tl.arange(0, 4)))


def test_accesses_of_different_widths_meet():
    with recorded_addresses() as recorder:
        gather_bytes[(1,)](torch.zeros(4, dtype=torch.int32), torch.zeros(4, dtype=torch.int32))
    (finding,) = recorder.findings
    assert (finding.kind, finding.buffer, finding.places) == ("read after write", "values", 16)


def test_bytes_are_counted_by_argument():
    with recorded_addresses() as recorder:
        for _ in range(2):
            copy[(3,)](torch.ones(20), torch.zeros(20), 20, 8)
        crowd[(1,)](torch.zeros(4), True)
    assert recorder.bytes_read["inputs"] == recorder.bytes_written["outputs"] == Traffic(160, 160)
    assert recorder.bytes_written["inputs"] == Traffic(0, 0)
    assert recorder.bytes_written["values"] == Traffic(64, 16)
