"""Random programs: every evaluator and every rewriting gives the same values, gradients and second derivatives.

A few programs are tried here; ``python tests/random_programs.py --count 3000`` tries many.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from foldfuse.compiler.ir import sub_equations

from .random_programs import generate
from .random_properties import Checks, Failure, NotFinite, prepared
from .random_shrinking import shrunk
from .random_terms import Array, Choices, Length, List, Program

# Sixty programs, the same ones every time; shrinking is worth its time where a person waits for it.
FEW = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Random programs with the seed of their inputs."""
    seed = draw(st.integers(0, 1000))
    return generate(Choices(lambda n: draw(st.integers(0, n - 1))), seed, fuel=8)


def check(program: Program, second: bool, laws: bool) -> None:
    """Fail with the program's source and what does not hold of it."""
    try:
        failures = Checks(program, second, laws).run()
    except NotFinite:
        return
    if failures:
        smallest, failure = shrunk(program, failures[0], seconds=20)
        others = "".join(f"\n# also {f}" for f in failures[1:])
        pytest.fail(f"{smallest}\n# {failure}\n# the whole program:\n{program}{others}", pytrace=False)


@FEW
@given(programs())
def test_values_and_derivatives(program: Program) -> None:
    check(program, second=program.seed % 3 == 0, laws=False)


@pytest.mark.parametrize("seed", range(12))
def test_each_law_alone(seed: int) -> None:
    check(generate(Choices.seeded(seed), seed, fuel=8), second=False, laws=True)


def test_a_program_is_made_of_its_choices() -> None:
    for seed in range(20):
        made = generate(Choices.seeded(seed), seed)
        assert generate(Choices.replayed(made.choices), seed).source == made.source


def test_the_simplest_choices_make_a_small_program() -> None:
    assert len(generate(Choices.replayed(()), 0).source.splitlines()) < 25


def test_programs_use_the_language() -> None:
    """Of two hundred programs some hold each combinator, and some nest loops three deep."""
    used: set[str] = set()
    text = ""
    for seed in range(200):
        program = generate(Choices.seeded(seed), seed)
        used |= {e.op for e in sub_equations(prepared(program).graph.body)} if seed % 4 == 0 else set()
        text += program.source
    words = "map fold scan unfold reduce window_map cata grad zip unzip shift reverse feedback switch softmax einsum"
    assert not [word for word in words.split() if f"ff.{word}(" not in text]
    assert {"map", "scan", "view", "tree_up", "reduce", "reduce_with", "contract", "gather", "select"} <= used


def test_a_wrong_gradient_is_found() -> None:
    """A program whose derivative is not that of its value fails, and shrinks."""
    source = (
        "import foldfuse as ff\nW = ff.param((2,), 'W')\n\n\ndef program(xs):\n"
        "    ys = ff.map(lambda x: ff.tanh(x * W))(xs)\n    return ff.sum(ys) * ff.stop_gradient(ff.sum(ys))\n\n\n"
        "types = (ff.Seq(ff.f32[2]),)\n"
    )
    program = Program(source, (List(Length(1), Array((2,))),), (), 3)
    failures = Checks(program, second=False, laws=False).run()
    assert [f.property for f in failures] == ["differences"]
    smallest, failure = shrunk(program, failures[0], seconds=5)
    assert failure.property == "differences" and len(smallest.source) < len(source)
    assert isinstance(failure, Failure)
