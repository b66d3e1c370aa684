"""Axes whose elements never meet, such as heads: each element has programs of its own, and what lacks the axis is
computed by all of them alike, each for itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import foldfuse as ff
from foldfuse.kernels.kernel import total
from foldfuse.kernels.request import Request

from ..programs import Program
from ..programs.record import floats
from .kernel_harness import agrees_under, named
from .test_account import moved

HEADS, WIDTH, D = 3, 5, 2


def beside_the_heads(width: int, apart: bool) -> Program:
    """A step with a carry that has heads, normalised in each of them, and one that has not; both are emitted.

    Arguments:
        width: of a head.
        apart: whether the gradient of the one does not reach the other: it is a sum over the heads.
    """
    shapes = {"W": (D, HEADS, width), "U": (HEADS, width, width), "V": (D, width), "M": (D, D)}

    def build() -> dict[str, tuple]:
        W, U, V, M = (ff.param(shape, name) for name, shape in shapes.items())

        def step(carry: Any, x: Any) -> Any:
            h, m = carry
            m = ff.tanh(m @ M + x)
            near = ff.stop_gradient(m) if apart else m
            g = ff.einsum("d,dkn->kn", x, W) + (h[:, None, :] @ U)[:, 0, :] + near @ V
            middle = g - ff.mean(g, axis=-1)[:, None]
            h = ff.tanh(middle / ff.sqrt(ff.mean(middle * middle, axis=-1) + 0.1)[:, None]) * ff.sum(near)
            return (h, m), (h, m)

        return {"main": (ff.scan(step, init=(ff.zeros(HEADS, width), ff.zeros(D))), ff.Seq(ff.f32[D]))}

    def plain(p: dict[str, torch.Tensor], xs: torch.Tensor) -> Any:
        h, m = torch.zeros(HEADS, width, dtype=torch.float64), torch.zeros(D, dtype=torch.float64)
        hs, ms = [], []
        for x in xs:
            m = torch.tanh(m @ p["M"] + x)
            near = m.detach() if apart else m
            g = torch.einsum("d,dkn->kn", x, p["W"]) + torch.einsum("kn,knm->km", h, p["U"]) + near @ p["V"]
            middle = g - g.mean(-1, keepdim=True)
            h = torch.tanh(middle / torch.sqrt((middle * middle).mean(-1, keepdim=True) + 0.1)) * near.sum()
            hs.append(h)
            ms.append(m)
        if not hs:
            return torch.zeros(0, HEADS, width, dtype=torch.float64), torch.zeros(0, D, dtype=torch.float64)
        return torch.stack(hs), torch.stack(ms)

    return Program("separate.beside_the_heads", build, plain, lambda rng, n: (floats(rng, n, D),), shapes)


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize(
    ("memory", "lengths"), [("save", (2, 2)), ("save", (0, 2, 1)), ("recompute", (0, 2, 1))], ids=str
)
@pytest.mark.parametrize("strategy", ["streamed", "cooperative"])
def test_each_head_has_programs_of_its_own(strategy: str, memory: str, lengths: tuple[int, ...], apart: bool) -> None:
    program, ragged = beside_the_heads(WIDTH, apart), len(set(lengths)) > 1
    trace = agrees_under(program, Request(force=strategy, block=2), ragged, lengths, memory=memory)
    assert not trace.evaluated
    programs = -(-WIDTH // 2) if strategy == "cooperative" else 1
    grids = [tuple(axis.extents for axis in kernel.grid[1:]) for kernel in trace.scans]
    assert grids[0] == ((programs,), (HEADS,))
    # The backward of heads that read one carry, or one weight whose gradient is taken in the loop, sums over them.
    assert all(grid == grids[0] for grid in grids) == (apart and memory == "save")
    assert all(kernel.cooperative == (strategy == "cooperative") for kernel in trace.scans)


@pytest.mark.parametrize("strategy", ["streamed", "cooperative"])
def test_loops_in_loops(strategy: str) -> None:
    trace = agrees_under(
        named("recurrences.heads_matmul.scan"), Request(force=strategy, block=2), True, (2, 0, 1), memory="recompute"
    )
    assert not trace.evaluated and len(trace.scans) > 1
    assert all(len(kernel.grid) == 3 for kernel in trace.scans)


@pytest.mark.parametrize("strategy", ["streamed", "cooperative"])
def test_the_account_is_what_is_moved(strategy: str) -> None:
    launches = moved(beside_the_heads(WIDTH, apart=True), Request(force=strategy, block=2), (2, 2, 2))
    assert any(len(each.kernel.grid) == 3 for each in launches)
    for each in launches:
        account, lookup = each.kernel.account, each.sizes.__getitem__
        assert total(account.read, lookup) == each.read.total(), each.kernel.source
        assert total(account.written, lookup) == each.written.total(), each.kernel.source
