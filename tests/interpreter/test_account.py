"""What a kernel says that it moves is what it moves, and a resident kernel moves everything once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from unittest import mock

import pytest
import torch

from foldfuse.kernels.kernel import Kernel, total
from foldfuse.kernels.request import Request
from foldfuse.runtime import fused
from foldfuse.runtime.launch import launch

from .. import harness
from ..programs import Program
from .addresses import recorded_addresses
from .kernel_harness import STRATEGIES, attention_decoder, model_of, named, traced

ROWS, STEPS = 17, 3
"""Two tiles of rows."""
PROGRAMS = {
    "lstm": named("recurrences.lstm.scan"),
    "gru": named("recurrences.gru.fold"),
    "two_products": named("recurrences.gru_first.fold.reverse"),
    "layer_norm_lstm": named("recurrences.layer_norm_lstm.scan"),
    "sum": named("recurrences.cumulative_sum.scan"),
    "attention_decoder": attention_decoder(5),
}


@dataclass(frozen=True)
class Moved:
    """One launch, and the bytes that it loaded and stored, by argument.

    Attributes:
        kernel: what was launched.
        tensors: its buffers.
        sizes: the extents of the call.
        read, written: bytes, each access counted; counters of barriers are left out.
        distinct: bytes read, each byte once.
    """

    kernel: Kernel
    tensors: Mapping[str, torch.Tensor]
    sizes: Mapping[str, int]
    read: Counter
    written: Counter
    distinct: Counter


def moved(program: Program, request: Request, lengths: tuple[int, ...]) -> list[Moved]:
    """All launches of a forward and a backward pass."""
    found = []

    def noting(kernel: Kernel, buffers: Mapping, sizes: Mapping, tables: Mapping) -> None:
        with recorded_addresses() as recorder:
            launch(kernel, buffers, sizes, tables)
        counters = {argument.name for argument in kernel.arguments if argument.kind == "counter"}
        read, written = (
            Counter({name: traffic.total for name, traffic in side.items() if traffic.total and name not in counters})
            for side in (recorder.bytes_read, recorder.bytes_written)
        )
        distinct = Counter({name: traffic.unique for name, traffic in recorder.bytes_read.items()})
        found.append(Moved(kernel, dict(buffers), dict(sizes), read, written, distinct))

    batch = harness.examples(replace(program, lengths=lengths), True)
    with mock.patch.object(fused, "launch", noting), fused.requested(request), traced() as trace:
        harness.model_run(model_of(program), program, batch, len(set(lengths)) > 1)
    assert trace.scans and len(found) == len(trace.kernels)
    return found


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_account_is_what_is_moved(name: str, strategy: str) -> None:
    block = {"streamed": 4, "cooperative": 2}.get(strategy)
    for each in moved(PROGRAMS[name], Request(force=strategy, block=block), (STEPS,) * ROWS):
        account, lookup = each.kernel.account, each.sizes.__getitem__
        assert total(account.read, lookup) == each.read.total(), each.kernel.source
        assert total(account.written, lookup) == each.written.total(), each.kernel.source


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_ragged_call_moves_no_more_than_the_account(name: str) -> None:
    for each in moved(PROGRAMS[name], Request(force="resident"), (2, 0, 3)):
        account, lookup = each.kernel.account, each.sizes.__getitem__
        assert total(account.read, lookup) >= each.read.total() - table_bytes(each)
        assert total(account.written, lookup) >= each.written.total()


def table_bytes(each: Moved) -> int:
    """The bytes read from tables of lengths."""
    tables = {argument.name for argument in each.kernel.arguments if argument.kind == "lengths"}
    return sum(count for name, count in each.read.items() if name in tables)


@pytest.mark.parametrize("name", ["lstm", "gru", "two_products", "sum"])
def test_a_resident_kernel_moves_everything_once(name: str) -> None:
    """Lists and results once, weights once for each tile of rows."""
    loops = [each for each in moved(PROGRAMS[name], Request(force="resident"), (STEPS,) * ROWS) if is_loop(each)]
    assert loops
    for each in loops:
        tiles = each.kernel.programs(each.sizes)[0]
        # A step without weights takes its rows one at a time.
        assert tiles == (ROWS if name == "sum" else 2)
        for argument in each.kernel.arguments:
            if argument.kind == "buffer":
                tensor = each.tensors[argument.name]
                times = 1 if tensor.shape[:1] == (ROWS,) else tiles
                # Of a pack that another kernel reads too, a part may do.
                bytes_ = tensor.nbytes if argument.written else each.distinct[argument.name]
                assert 0 < bytes_ <= tensor.nbytes
                assert (each.written if argument.written else each.read)[argument.name] == times * bytes_, argument.name
                assert not (each.read if argument.written else each.written)[argument.name]


def is_loop(each: Moved) -> bool:
    return each.kernel.name == "scan"
