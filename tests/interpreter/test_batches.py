"""Batches of every kind: more tiles of rows than programs that run at once, and kernels for each kind of batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import foldfuse as ff
from foldfuse.kernels.request import BATCHES, Request
from foldfuse.runtime import launch as launching
from foldfuse.runtime.launch import counts

from ..programs.recurrences import lstm, rest
from .hooks import Instrument, Launch, installed
from .kernel_harness import STRATEGIES, agrees_under, attention_decoder, named, shortened, traced
from .test_sizes import lstms

STEPS = {
    "lstm": shortened(named("recurrences.lstm.scan")),
    "gru": shortened(named("recurrences.gru_first.fold.reverse")),
    "layer_norm_lstm": shortened(named("recurrences.layer_norm_lstm.scan")),
    "attention_decoder": attention_decoder(5),
}
# Two rows to a tile and three programs to a group: five rows are three tiles.
REQUEST = Request(force="cooperative", block=2)
LENGTHS = {"padded": (2,) * 5, "ragged": (0, 3, 1, 3, 2)}


class Grids(Instrument):
    """Keeps the grids of the launches."""

    def __init__(self) -> None:
        self.found: dict[str, set[tuple[int, ...]]] = {}

    def started(self, launch: Launch) -> None:
        self.found.setdefault(launch.kernel, set()).add(tuple(launch.grid))


@pytest.mark.parametrize("layout", LENGTHS)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("step", STEPS)
def test_fewer_groups_of_programs_than_tiles(
    step: str, groups: int, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each group takes its tiles one after another; values and gradients are those of one group a tile."""
    monkeypatch.setattr(launching, "_INTERPRETED_PROGRAMS", 3 * groups + 2)
    grids = Grids()
    with installed(grids):
        trace = agrees_under(STEPS[step], REQUEST, layout == "ragged", LENGTHS[layout])
    assert all(kernel.cooperative for kernel in trace.scans)
    assert grids.found["scan"] == {(groups, 3, 1)}


@pytest.mark.parametrize("layout", LENGTHS)
@pytest.mark.parametrize("tiles", [1, 2])
def test_lists_of_several_tiles_at_once(tiles: int, layout: str) -> None:
    """There is memory for the lists over segments of one tile, or of two, and there are three."""
    grids, request = Grids(), replace(REQUEST, tiles=tiles)
    with installed(grids):
        agrees_under(lstms(5, norm=True)[0], request, layout == "ragged", LENGTHS[layout], memory="recompute")
    assert {grid[0] for grid in grids.found["scan"]} == {tiles}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["nestings.loop_apart", "nestings.positions"])
def test_what_varies_with_no_row_is_made_for_each_tile(name: str, strategy: str) -> None:
    """Tiles of rows that make the same are not always in the same step: each has its own memory for it."""
    grids, request = Grids(), Request(force=strategy, block=2, tiles=5)
    for memory in ("auto", "recompute"):
        with installed(grids):
            agrees_under(named(name), request, False, (3,) * 5, memory=memory)
        assert max(grid[0] for grid in grids.found["scan"]) > 1


def test_a_kind_of_batch_has_its_own_kernels_and_no_more() -> None:
    """Within a kind nothing is compiled anew; another kind may have other tiles, and gives the same numbers."""
    torch.manual_seed(0)
    model = ff.compile(ff.scan(lstm(6, 3), init=rest(6)), ff.Seq(ff.f32[3])).double()
    x = torch.randn(BATCHES[0] + 3, 2, 3, dtype=torch.float64)
    small, larger = model(x[: BATCHES[0]]), model(x)
    assert torch.allclose(small, larger[: BATCHES[0]], rtol=1e-12, atol=1e-12)
    before = counts()
    for rows in (1, 2, 17, BATCHES[0], BATCHES[0] + 1, BATCHES[0] + 2):
        assert model(x[:rows]).shape == (rows, 2, 6)
    assert not (counts() - before).compiles


def test_the_kernels_of_a_batch_are_those_planned_for_it() -> None:
    model = ff.compile(ff.scan(lstm(6, 3), init=rest(6)), ff.Seq(ff.f32[3])).double()
    planned = {}
    for rows in (BATCHES[0], BATCHES[0] + 1):
        with traced() as trace, torch.no_grad():
            model(torch.randn(rows, 1, 3, dtype=torch.float64))
        (graph,) = trace.graphs
        (loop,) = (kernel for kernel in graph.kernels if kernel.kernel.name == "scan")
        planned[rows] = loop.choice.why
    assert ["of 32 rows" in why for why in planned.values()] == [True, False]
    assert ["of 128 rows" in why for why in planned.values()] == [False, True]
