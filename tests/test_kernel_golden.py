"""Golden texts of kernels: read them as a person would, and read each difference.

``FOLDFUSE_UPDATE_GOLDEN=1 pytest tests/test_kernel_golden.py`` writes them anew.
"""

from __future__ import annotations

import pytest

from foldfuse.kernels.kernel import Kernel
from foldfuse.kernels.request import Request
from foldfuse.runtime import fused

from .cells import CELLS, graphs
from .golden import check_golden

TEXTS = {
    "lstm_resident_forward": ("lstm", 16, "resident", "forward"),
    "lstm_resident_backward": ("lstm", 16, "resident", "backward"),
    "gru_resident_forward": ("gru", 16, "resident", "forward"),
    "gru_resident_backward": ("gru", 16, "resident", "backward"),
    "lstm_cooperative_forward": ("lstm", 256, "cooperative", "forward"),
    "attention_decoder_forward": ("attention_decoder", 64, "resident", "forward"),
}
"""By name: the cell, its width, the strategy, the pass; contractions take bf16."""


def text(kernel: Kernel) -> str:
    """A kernel as a person reads it: where it comes from, what it is launched with, its module."""
    header = [f"# {line}".rstrip() for line in kernel.header.splitlines()]
    grid = ", ".join(f"({' × '.join(map(str, axis.extents))}) / {axis.block}" for axis in kernel.grid)
    arguments = [
        f"#   {argument.name}: {argument.kind}, {argument.dtype}{', written' * argument.written}"
        for argument in kernel.arguments
    ]
    launch = f"# grid {grid}; {kernel.warps} warps, {kernel.stages} stages{', cooperative' * kernel.cooperative}"
    return "\n".join([*header, launch, *arguments, "", kernel.source])


@pytest.mark.parametrize("name", TEXTS)
def test_text(name: str) -> None:
    cell, width, strategy, which = TEXTS[name]
    graph = getattr(graphs(*CELLS[cell](width), operands="bf16"), which)
    made = fused.plan(graph, Request("sm_90", force=strategy, strict=True), frozenset())
    assert isinstance(made, fused.Fused)
    (loop,) = (kernel.kernel for kernel in made.kernels if kernel.kernel.name.startswith("scan"))
    check_golden(f"kernels/{name}.txt", text(loop))


@pytest.mark.parametrize(("cell", "width"), [("layer_norm_lstm", 24), ("delta_rule", 100)])
def test_texts_do_not_vary(cell: str, width: int) -> None:
    """Names, order and the choice of blocks come from the program alone, not from where its parts lie in memory."""
    once, again = (
        [
            step.kernel.source
            for graph in (compiled.forward, compiled.backward)
            for step in fused.plan(graph, Request(), frozenset()).kernels
        ]
        for compiled in (graphs(*CELLS[cell](width)) for _ in range(2))
    )
    assert once == again
