"""Barriers are where they must be: without any one of them, something is found.

A barrier is taken out of a generated kernel's text, and the kernel runs again on the memory that it was given in its
program. Under shuffled schedules and the address recorder that is a deadlock, a finding or a wrong result.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from unittest import mock

import pytest
import torch

from foldfuse.kernels.kernel import Kernel
from foldfuse.kernels.request import Request
from foldfuse.runtime import fused
from foldfuse.runtime.launch import launch

from .. import harness
from ..programs import Program
from .addresses import Recorder
from .hooks import Access, InstrumentError, installed
from .kernel_harness import attention_decoder, model_of, named, shortened, traced
from .poison import poisoned_empty
from .schedules import Deadlock, shuffled_schedules
from .test_meeting_behind import read_across
from .test_sizes import lstms

SEEDS = range(3)
STEPS = {
    "lstm": shortened(named("recurrences.lstm.scan")),
    "gru": shortened(named("recurrences.gru_first.scan")),
    "layer_norm_lstm": shortened(named("recurrences.layer_norm_lstm.scan")),
    # Its programs have as many columns each: their sums of squares are around their own means.
    "layer_norm_lstm_of_six": shortened(lstms(6, norm=True)[0]),
    "attention_decoder": attention_decoder(5),
    # Programs meet behind a loop, and in the backward behind those of each segment.
    "read_across": read_across(),
}
REQUESTS = {
    "streamed": Request(force="streamed", block=4),
    "cooperative": Request(force="cooperative", block=2),
}
MEMORY = {"read_across": "recompute"}
by_step = pytest.mark.parametrize("step", STEPS)
by_strategy = pytest.mark.parametrize("strategy", REQUESTS)


@dataclass(frozen=True)
class Launched:
    """A launch that can be repeated: the kernel, and what lay in its buffers before and after.

    Attributes:
        kernel: as it was generated.
        before, after: by argument name.
        sizes, lengths: as `launch` takes them.
    """

    kernel: Kernel
    before: Mapping[str, torch.Tensor]
    after: Mapping[str, torch.Tensor]
    sizes: Mapping[str, int]
    lengths: Mapping[str, torch.Tensor]

    def fault(self, kernel: Kernel, seed: int, at: Collection[str] = ("atomic",)) -> str | None:
        """What is wrong when another kernel runs in the place of this one; None if nothing is.

        Arguments:
            kernel: to run.
            seed, at: of `shuffled_schedules`.
        """
        buffers = {name: value.clone() for name, value in self.before.items()}
        recorder = Strict()
        with shuffled_schedules(seed, at), installed(recorder), poisoned_empty(recorder):
            try:
                launch(kernel, buffers, self.sizes, self.lengths)
            except (Deadlock, Found) as found:
                return str(found)
        for name, value in buffers.items():
            if not torch.allclose(value, self.after[name], rtol=1e-12, atol=1e-12, equal_nan=True):
                return f"a wrong {name}"
        return None


class Found(InstrumentError):
    """The recorder has found something, and the launch need not go on."""


class Strict(Recorder):
    """A recorder that ends the launch with the first finding."""

    def accessed(self, access: Access, changed: bool) -> None:
        super().accessed(access, changed)
        if self.findings:
            raise Found(str(self.findings[0]))


def launches(program: Program, request: Request, ragged: bool = False, memory: str = "auto") -> list[Launched]:
    """The launches of the loops over time in a forward and a backward pass."""
    found = []

    def noting(kernel: Kernel, buffers: Mapping, sizes: Mapping, lengths: Mapping) -> None:
        before = {name: value.clone() for name, value in buffers.items()}
        launch(kernel, buffers, sizes, lengths)
        if kernel.name.startswith("scan"):
            after = {name: value.clone() for name, value in buffers.items()}
            found.append(Launched(kernel, before, after, dict(sizes), dict(lengths)))

    # More rows than a tile has: the lists of tiles may lie in the same memory.
    longest = program.lengths[-1]
    lengths = (*program.lengths, 1, longest, longest) if ragged else (longest,) * 5
    batch = harness.examples(replace(program, lengths=lengths), True)
    with mock.patch.object(fused, "launch", noting), fused.requested(request), traced() as trace:
        harness.model_run(model_of(program, memory), program, batch, ragged)
    assert len(found) == len(trace.scans) == 2
    return found


BARRIER = re.compile(
    r"^( *)(arrivals \+= \d+\n *(?:grid_barrier|arrive)\(.*\)|await_arrivals\(.*\)|tl\.debug_barrier\(\))$",
    re.MULTILINE,
)


def without_one(kernel: Kernel) -> Iterator[tuple[str, Kernel]]:
    """The kernel without each one of its barriers, and what was taken out."""
    for barrier in BARRIER.finditer(kernel.source):
        line = kernel.source.count("\n", 0, barrier.start()) + 1
        text = f"{kernel.source[: barrier.start()]}{barrier[1]}pass{kernel.source[barrier.end() :]}"
        yield f"{barrier[2]} at line {line}", replace(kernel, source=text)


@pytest.mark.parametrize("ragged", [False, True], ids=["padded", "ragged"])
@by_strategy
@by_step
def test_without_any_one_barrier_something_is_found(step: str, strategy: str, ragged: bool) -> None:
    for launched in launches(STEPS[step], REQUESTS[strategy], ragged, MEMORY.get(step, "auto")):
        assert launched.fault(launched.kernel, 0) is None
        mutants = list(without_one(launched.kernel))
        assert mutants
        for barrier, mutant in mutants:
            assert any(launched.fault(mutant, seed) for seed in SEEDS), f"without {barrier}:\n{launched.kernel.source}"


@pytest.mark.parametrize("step", ["gru", "attention_decoder"])
def test_barriers_hold_in_every_order(step: str) -> None:
    for launched in launches(STEPS[step], REQUESTS["cooperative"]):
        assert launched.kernel.cooperative
        for seed in range(20):
            assert launched.fault(launched.kernel, seed) is None
        for seed in range(3):
            assert launched.fault(launched.kernel, seed, at=("atomic", "barrier", "memory")) is None


@pytest.mark.parametrize("step", ["elman", "lstm", "gru", "gru_first", "mgu", "peephole", "slstm", "indrnn"])
@pytest.mark.parametrize("form", ["scan", "fold.reverse"])
def test_a_step_that_one_program_holds_has_no_barrier(step: str, form: str) -> None:
    """Its carries stay in registers: no memory is written and read again."""
    compiled = model_of(named(f"recurrences.{step}.{form}")).compiled()
    for graph in (compiled.forward, compiled.backward):
        planned = fused.plan(graph, Request(force="resident"), frozenset({"T"}))
        (loop,) = (each.kernel for each in planned.kernels if each.kernel.name == "scan")
        assert "barrier" not in loop.source
        assert not [argument.name for argument in loop.arguments if argument.kind in ("scratch", "counter")]
