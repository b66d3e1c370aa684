"""Sums that wait for one another, and the same sums made to wait for fewer: the step before and after gives the same
numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import foldfuse as ff
from foldfuse.kernels.axes import analyse
from foldfuse.kernels.elements import REDUCTIONS
from foldfuse.kernels.flat import FlatEquation, FlatScan, FlatValue, flatten
from foldfuse.kernels.sums import with_independent_sums

from .cells import graphs
from .test_kernel_elements import elements

WIDTH = 6
Step = Callable[[Any, Any], Any]


def scan_of(step: Step, width: int = WIDTH) -> FlatScan:
    """The loop of a step over vectors, flat."""
    graph = graphs(ff.scan(step, init=ff.zeros(width)), ff.Seq(ff.f32[width])).forward
    (scan,) = (item for item in flatten(graph).items if isinstance(item, FlatScan))
    return scan


def rewritten(scan: FlatScan) -> FlatScan:
    """The loop with the axis of its carry spread."""
    axes = analyse((scan,))
    spread = axes.of(scan.carries[0], len(scan.levels))
    return with_independent_sums(scan, axes, {spread})


def operations(scan: FlatScan) -> list[str]:
    return [item.equation.op for item in scan.items if isinstance(item, FlatEquation)]


def waits(scan: FlatScan) -> int:
    """How many times the programs of a step meet for its sums."""
    depth: dict[FlatValue, int] = {}
    for item in scan.items:
        needs = [depth.get(reference.value, 0) for reference in item.operands]
        if item.equation.op == "sum_of_squares":
            depth[item.output] = max(needs[0] + 1, needs[1])
        else:
            depth[item.output] = max(needs, default=0) + (item.equation.op in REDUCTIONS)
    return max((depth.get(reference.value, 0) for reference in (*scan.following, *scan.emitted)), default=0)


def evaluated(scan: FlatScan, given: dict[FlatValue, np.ndarray]) -> list[np.ndarray]:
    """What a step hands on and emits, each equation by itself."""
    values = dict(given)

    def value(reference: Any) -> np.ndarray:
        if reference.value not in values:
            shape = reference.value.dims[len(reference.lead) :]
            values[reference.value] = np.random.default_rng(len(values)).normal(size=shape).astype(np.float32)
        return values[reference.value]

    for carry in scan.carries:
        values.setdefault(carry, np.random.default_rng(7).normal(size=carry.dims[len(carry.lead) :]).astype(np.float32))
    for item in scan.items:
        values[item.output] = elements(item.equation, [value(reference) for reference in item.operands])
    return [value(reference) for reference in (*scan.following, *scan.emitted)]


def agree(scan: FlatScan, made: FlatScan) -> None:
    rng = np.random.default_rng(3)
    outside = {r.value for item in scan.items for r in item.operands} - {item.output for item in scan.items}
    given = {
        value: rng.normal(size=tuple(n for n in value.dims if isinstance(n, int))).astype(np.float32)
        for value in sorted(outside, key=lambda value: value.name)
    }
    for x, y in zip(evaluated(scan, given), evaluated(made, given), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5)


# Per name a step, how often its programs meet for sums as it is written, and how often they need to.
STEPS: dict[str, tuple[Step, int, int]] = {
    "variance": (lambda h, x: (x - ff.mean(x + h)) * ff.rsqrt(ff.var(x + h) + 1.0), 2, 1),
    "scaled": (lambda h, x: x * ff.sum(h * ff.sum(x * h)), 2, 1),
    "scaled and moved": (lambda h, x: h + ff.sum(x * ff.sum(h * x) - h * 0.5), 2, 1),
    "negated and divided": (lambda h, x: x + h * ff.sum(-(x / (2.0 + ff.sum(h * h)))), 2, 1),
    "a chain": (lambda h, x: x + h * ff.sum(x * ff.sum(x + ff.sum(h))), 3, 1),
    "of another axis": (lambda h, x: h * ff.sum(x * ff.sum(x * ff.sum(h))), 3, 3),
    "bent": (lambda h, x: x * ff.sum(ff.tanh(h * ff.sum(x * h))), 2, 2),
    "scaled by elements": (lambda h, x: x * ff.sum(h * (x - ff.sum(h)) * (h + ff.sum(x))), 2, 2),
    "one": (lambda h, x: ff.tanh(x + ff.sum(h * x)), 1, 1),
    "greatest": (lambda h, x: x + ff.sum(ff.exp(h - ff.max(h))), 2, 2),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_waits_for_fewer_sums_and_gives_the_same(name: str) -> None:
    step, before, after = STEPS[name]
    scan = scan_of(step)
    made = rewritten(scan)
    assert (waits(scan), waits(made)) == (before, after)
    if before == after:
        assert operations(made) == operations(scan)
    agree(scan, made)


def test_nothing_is_done_for_sums_that_nobody_waits_for() -> None:
    step, *_ = STEPS["variance"]
    scan = scan_of(step)
    made = with_independent_sums(scan, analyse((scan,)), frozenset())
    assert operations(made) == operations(scan)


def test_the_scan_that_was_given_is_left_as_it_was() -> None:
    step, *_ = STEPS["scaled and moved"]
    scan = scan_of(step)
    makers = {item.output: item for item in scan.items}
    rewritten(scan)
    assert all(value.maker is item for value, item in makers.items())


def random_step(seed: int) -> Step:
    """A step of sums of sums, scaled, moved, negated, bent."""

    def step(h: Any, x: Any) -> Any:
        rng = np.random.default_rng(seed)
        vectors, numbers = [h, x], [ff.sum(h * x) / WIDTH]
        vector = lambda: vectors[rng.integers(len(vectors))]
        number = lambda: numbers[rng.integers(len(numbers))]
        for _ in range(8):
            kind = rng.integers(8)
            if kind == 0:
                vectors.append(vector() + vector())
            elif kind == 1:
                vectors.append(vector() - number())
            elif kind == 2:
                vectors.append(-vector() / (1.5 + number() * number()))
            elif kind == 3:
                vectors.append(vector() * number())
            elif kind == 4:
                vectors.append(ff.tanh(vector() * vector()))
            elif kind == 5:
                numbers.append(ff.var(vector()))
            else:
                numbers.append(ff.sum(vector()) / WIDTH)
        return ff.tanh(vectors[-1] + sum(numbers))

    return step


SEEDS = range(40)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_steps(seed: int) -> None:
    scan = scan_of(random_step(seed))
    made = rewritten(scan)
    assert waits(made) <= waits(scan)
    agree(scan, made)


def test_many_random_steps_wait_for_fewer() -> None:
    scans = [scan_of(random_step(seed)) for seed in SEEDS]
    assert sum(waits(rewritten(scan)) < waits(scan) for scan in scans) >= len(SEEDS) // 4


def test_a_sum_of_very_many_terms_stays_one() -> None:
    """Its terms double with every line."""

    def step(h: Any, x: Any) -> Any:
        y = h * ff.sum(h * x)
        for i in range(30):
            y = (y + h * i) - (y * 0.5 + x * y * 0.0 + h)
        return ff.tanh(h + ff.sum(y))

    scan = scan_of(step)
    agree(scan, rewritten(scan))


def test_a_sum_inside_of_a_loop_is_not_used_behind_it() -> None:
    """The loop inside may run not at all, and what it sums is not there then."""

    def program(xs: Any, ys: Any) -> Any:
        def outer(h: Any, x: Any) -> Any:
            v = ff.tanh(h + x)
            inner = ff.fold(lambda s, y: ff.tanh(s + ff.sum(v * ff.sum(v * s) + s * y)) * ff.tanh(v), init=h)(ys)
            return ff.tanh(inner + ff.sum(v * ff.sum(v * inner)))

        return ff.scan(outer, init=ff.zeros(WIDTH))(xs)

    graph = graphs(program, ff.Seq(ff.f32[WIDTH], "T"), ff.Seq(ff.f32, "S")).forward
    (scan,) = (item for item in flatten(graph).items if isinstance(item, FlatScan))
    made = rewritten(scan)
    (inside,) = (item for item in made.items if isinstance(item, FlatScan))
    hidden = {item.output for item in inside.items}
    read = {r.value for item in made.items if isinstance(item, FlatEquation) for r in item.operands}
    assert any(item.equation.op == "reduce_sum" for item in inside.items) and not read & hidden
