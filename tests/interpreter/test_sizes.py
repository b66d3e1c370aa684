"""Odd sizes: lengths of 0, 1, 63 and 1000, one row and several tiles of rows, widths that are no power of two.

Values and every gradient against plain torch, as everywhere; large offsets by the text (`offsets`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest

import foldfuse as ff
from foldfuse.kernels.kernel import Kernel
from foldfuse.kernels.request import Request

from ..programs import Program
from ..programs.record import floats
from ..programs.recurrences import (
    D,
    delta_rule,
    elman,
    gru,
    heads_einsum,
    lstm,
    plain_delta_rule,
    plain_elman,
    plain_gru,
    plain_heads_einsum,
    plain_layer_norm_lstm,
    plain_lstm,
    recurrence,
)
from .kernel_harness import STRATEGIES, agrees_under, attention_decoder
from .offsets import narrow_products

KEYS = 3
"""The height of the delta rule's matrix."""


def lstms(width: int, norm: bool = False) -> list[Program]:
    shapes = {"W": (D, 4 * width), "U": (width, 4 * width), "b": (4 * width,)}
    if not norm:
        return recurrence("lstm", lambda: lstm(width, D), partial(pair, width), plain_lstm, shapes)
    for i, size in enumerate((4 * width, width)):
        shapes |= {f"layer_norm_{i}.weight": (size,), f"layer_norm_{i}.bias": (size,)}
    step = lambda: lstm(width, D, norm=ff.layer_norm)
    return recurrence("layer_norm_lstm", step, partial(pair, width), plain_layer_norm_lstm, shapes)


def pair(width: int, words):
    return words.zeros(width), words.zeros(width)


def elmans(width: int) -> list[Program]:
    shapes = {"W": (D, width), "U": (width, width), "b": (width,)}
    return recurrence("elman", lambda: elman(width, D), lambda w: w.zeros(width), plain_elman, shapes)


def grus(width: int) -> list[Program]:
    shapes = {"W": (D, 3 * width), "U": (width, 3 * width), "b": (3 * width,), "bu": (3 * width,)}
    return recurrence("gru", lambda: gru(width, D), lambda w: w.zeros(width), plain_gru, shapes)


def multi_head(width: int) -> list[Program]:
    shapes = {"W": (D, 2, width), "U": (2, width, width), "b": (2, width)}
    step = lambda: heads_einsum(2, width, D)
    return recurrence("heads", step, lambda w: w.zeros(2, width), plain_heads_einsum, shapes)


def delta_rules(width: int) -> list[Program]:
    def inputs(rng: np.random.Generator, length: int) -> tuple[np.ndarray, ...]:
        return floats(rng, length, KEYS), floats(rng, length, KEYS), floats(rng, length, width), floats(rng, length)

    types = (ff.f32[KEYS], ff.f32[KEYS], ff.f32[width], ff.f32)
    init = lambda w: w.zeros(KEYS, width)
    return recurrence("delta_rule", lambda: delta_rule, init, plain_delta_rule, {}, types=types, inputs=inputs)


def decoders(width: int) -> list[Program]:
    return [attention_decoder(width)]


STEPS = {
    "lstm": lstms,
    "gru": grus,
    "layer_norm_lstm": partial(lstms, norm=True),
    "multi_head": multi_head,
    "delta_rule": delta_rules,
    "attention_decoder": decoders,
}
WIDTHS = (1, 7, 24, 33)
# Rows: one, an odd number, more than a tile has. With one length, and with one each.
BATCHES = ((2,), (3, 3, 3), (0, 2, 1), (2,) * 17, (*range(3),) * 6)


def cases() -> list[tuple[Program, str, tuple[int, ...]]]:
    """Every step at every width under every strategy, the batches and the four forms of a loop taking turns."""
    found = []
    for number, (step, width, strategy) in enumerate(product(STEPS, WIDTHS, STRATEGIES)):
        if width > 1 or strategy != "cooperative":
            programs = STEPS[step](width)
            program = programs[number % len(programs)]
            program = replace(program, name=f"{program.name}.{width}")
            found.append((program, strategy, BATCHES[number % len(BATCHES)]))
    return found


def agrees(program: Program, strategy: str, lengths: tuple[int, ...], block: int | None = None) -> list[Kernel]:
    """Assert that a program under a strategy agrees at rows of these lengths; its kernels."""
    trace = agrees_under(program, Request(force=strategy, block=block), len(set(lengths)) > 1, lengths)
    assert not trace.evaluated and {kernel.strategy for kernel in trace.scans} == {strategy}
    return trace.kernels


@pytest.mark.parametrize(
    ("program", "strategy", "lengths"),
    [pytest.param(*case, id=f"{case[0].name}-{case[1]}-{len(case[2])}") for case in cases()],
)
def test_widths_and_batches(program: Program, strategy: str, lengths: tuple[int, ...]) -> None:
    agrees(program, strategy, lengths, block=16 if strategy == "streamed" else None)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_width_of_one_hundred(strategy: str) -> None:
    agrees(lstms(100)[0], strategy, (2,))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("step", STEPS)
def test_no_step_at_all(step: str, strategy: str) -> None:
    for program in STEPS[step](7):
        agrees(program, strategy, (0, 0))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_sixty_three_steps(strategy: str) -> None:
    agrees(grus(7)[0], strategy, (63,))
    agrees(lstms(7)[3], strategy, (63, 1, 8))


def test_a_thousand_steps() -> None:
    agrees(elmans(7)[1], "resident", (1000,))
    agrees(elmans(7)[2], "resident", (1000, 63))


# --- offsets ----------------------------------------------------------------------------------------------------------


def test_a_product_that_is_not_cast_is_seen() -> None:
    kernels = agrees(elmans(7)[0], "resident", (1, 1))
    for kernel in kernels:
        narrow = replace(kernel, source=kernel.source.replace(".to(tl.int64)", ""))
        assert any("program_id(0)" in product for product in narrow_products(narrow))
