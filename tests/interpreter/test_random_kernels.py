"""Random programs on their kernels; ``python tests/random_programs.py --kernels --count 3000`` tries many."""

from __future__ import annotations

import pytest

from foldfuse.kernels import operations

from ..random_kernels import RAN, setting
from ..random_programs import generate
from ..random_properties import Checks, NotFinite
from ..random_shrinking import shrunk
from ..random_terms import Array, Choices, Length, List, Program


@pytest.mark.parametrize("seed", range(100))
def test_random_programs(seed: int) -> None:
    program = generate(Choices.seeded(seed), seed, fuel=8)
    try:
        failures = Checks(program, kernels=True).run()
    except NotFinite:
        return
    if failures:
        smallest, failure = shrunk(program, failures[0], seconds=20)
        pytest.fail(f"{smallest}\n# {failure}\n# {setting(seed)}\n# the whole program:\n{program}", pytrace=False)


FOUND = {
    300213: "a slice of a spread axis, read behind a barrier of the program alone",
    300638: "a loop over segments whose lists nobody reads",
    300879: "one row in a tile of two: both stored it",
    301004: "a loop that varies with the rows by the length of a list inside of it only",
    301371: "an index that is a loop's own number",
    400873: "a choice in a map where nobody asks which rows are live",
    401021: "a loop of no steps between a first carry and the last one",
    401579: "parts of packed products of two ranks, counted together",
    402392: "a list whose length varies with the one row that there is",
    402727: "a loop in a step that varies with none of the rows: all of them wrote to one place",
    403564: "lists without elements in a step: they were read",
    501594: "segments of a loop in a step, inside of loops over the same size",
}
"""Seeds that once failed, and on what."""


@pytest.mark.parametrize("seed", FOUND)
def test_programs_that_once_failed(seed: int) -> None:
    assert not Checks(generate(Choices.seeded(seed), seed), second=False, kernels=True).run()


LINEAR = """\
import foldfuse as ff


def program(xs):
    W = ff.param((2, 2), "W")
    return ff.scan(lambda h, x: 0.5 * (h @ W) + x, init=ff.zeros(2))(xs)


types = (ff.Seq(ff.f32[2]),)
"""


def test_programs_run_on_kernels() -> None:
    """What is compared comes from kernels: a program has those that its setting asks for, values and gradients."""
    for seed in range(40):
        before = RAN.copy()
        checks = Checks(Program(LINEAR, (List(Length(1), Array((2,))),), (), seed), kernels=True)
        assert not checks.run() and checks.held[-2:] == ["kernels, forward", "kernels, backward"]
        passed = RAN - before
        assert passed["graphs"] == 2 and not passed["graphs without kernels"]
        strategy = setting(seed).request.force or "resident"
        assert passed[f"{strategy} kernels"] == 2


def test_a_wrong_kernel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where kernels add in the place of multiplying, the program fails, and shrinks."""
    monkeypatch.setitem(operations.INFIX, "mul", "+")
    program = Program(LINEAR, (List(Length(1), Array((2,))),), (), 3)
    failures = Checks(program, kernels=True).run()
    assert failures and {failure.property for failure in failures} <= {"kernels, forward", "kernels, backward"}
    smallest, failure = shrunk(program, failures[0], seconds=5)
    assert len(smallest.source) <= len(LINEAR) and failure.property == failures[0].property
