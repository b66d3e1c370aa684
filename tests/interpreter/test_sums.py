"""Sums that the programs of a tile take together: values and every gradient, where programs have as many elements each
(a sum of squares is then one around each program's own mean) and where they have not."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch

import foldfuse as ff
from foldfuse.kernels.expansion import Expansion
from foldfuse.kernels.request import Request
from foldfuse.runtime.fused import Fused

from ..programs import Program
from ..programs.record import floats
from .kernel_harness import agrees_under
from .test_sizes import lstms

REQUEST = Request(force="cooperative", block=2)


def together(program: Program, lengths: tuple[int, ...], **options: Any) -> int:
    """Assert that a program agrees; how often a sum of squares was taken around a program's own mean."""
    trace = agrees_under(program, REQUEST, len(set(lengths)) > 1, lengths, **options)
    assert not trace.evaluated and all(kernel.cooperative for kernel in trace.scans)
    usual = Expansion.around_their_mean
    with mock.patch.object(Expansion, "around_their_mean", autospec=True, side_effect=usual) as own:
        # Planned once more: the plans that ran may have been made before, and kept.
        again = [Fused(graph.program, REQUEST, graph.ragged) for graph in trace.graphs]
    assert [k.kernel.key for graph in again for k in graph.kernels] == [kernel.key for kernel in trace.kernels]
    return own.call_count


@pytest.mark.parametrize("lengths", [(2, 2), (0, 3, 1)], ids=["padded", "ragged"])
@pytest.mark.parametrize("width", [5, 6])
@pytest.mark.parametrize("form", range(4))
def test_layers_of_normalisation(form: int, width: int, lengths: tuple[int, ...]) -> None:
    assert bool(together(lstms(width, norm=True)[form], lengths)) == (width == 6)


@pytest.mark.parametrize("width", [5, 6])
def test_layers_of_normalisation_computed_again(width: int) -> None:
    """The step's forward runs a second time, in a loop inside of a loop over segments."""
    together(lstms(width, norm=True)[0], (2, 1), memory="recompute")


def measured(width: int) -> Program:
    """A step that measures one vector from a number of each element of a list: what is squared has fewer lists around
    it than what it is measured from; and softmax weights over the spread axis."""
    shapes = {"U": (width, width)}

    def build() -> dict[str, tuple]:
        U = ff.param(shapes["U"], "U")

        def program(keys: Any, xs: Any) -> Any:
            def step(h: Any, x: Any) -> Any:
                y = ff.tanh(h + x)
                middle = ff.mean(y)
                spread = ff.map(lambda key: ff.tanh(ff.mean(ff.square(y - ff.mean(key + y)))))(keys)
                h = ff.tanh(h @ U + 0.1 * ff.sum(spread) + middle * ff.softmax(y))
                return h, h * ff.var(y)

            return ff.scan(step, init=ff.zeros(width))(xs)

        return {"main": (program, ff.Seq(ff.f32[width], "S"), ff.Seq(ff.f32[width], "T"))}

    def plain(p: dict[str, torch.Tensor], keys: torch.Tensor, xs: torch.Tensor) -> torch.Tensor:
        h, out = torch.zeros(width, dtype=torch.float64), []
        for x in xs:
            y = torch.tanh(h + x)
            spread = torch.tanh(((y - (keys + y).mean(1, keepdim=True)) ** 2).mean(1))
            h = torch.tanh(h @ p["U"] + 0.1 * spread.sum() + y.mean() * torch.softmax(y, 0))
            out.append(h * y.var(unbiased=False))
        return torch.stack(out) if out else torch.zeros(0, width, dtype=torch.float64)

    inputs = lambda rng, length: (floats(rng, 2 + length % 2, width), floats(rng, length, width))
    return Program("sums.measured", build, plain, inputs, shapes)


@pytest.mark.parametrize("lengths", [(2, 2), (0, 3, 1)], ids=["padded", "ragged"])
@pytest.mark.parametrize("width", [5, 6])
def test_what_is_measured_from_more(width: int, lengths: tuple[int, ...]) -> None:
    together(measured(width), lengths)
