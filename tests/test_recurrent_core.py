"""What is left inside the loops after the laws, for every recurrence of the corpus: the recurrent core.

The golden text lists the operations per step, forward and backward; the tests hold what must be true of each: the loop
reads no input through a weight, and no gradient of a weight is emitted or carried by it.
"""

from __future__ import annotations

from collections import Counter

import pytest

import foldfuse as ff
from foldfuse.compiler.ir import Lambda
from foldfuse.runtime.report import loops, work

from .golden import check_golden
from .programs import PROGRAMS, Program

RECURRENCES = [p for p in PROGRAMS if p.family == "recurrences" and p.name.split(".")[-1] in ("scan", "fold")]
by_recurrence = pytest.mark.parametrize("program", RECURRENCES, ids=lambda program: program.name)


def compiled(program: Program, memory: str = "auto"):
    return ff.compile(program.build(), memory=memory).compiled(program.entry)


def scans(body: Lambda):
    return [equation for _, equation in loops(body) if equation.op == "scan"]


def line(counted: Counter[str]) -> str:
    return ", ".join(f"{op} × {n}" for op, n in sorted(counted.items())) or "nothing"


def test_the_cores_are_as_recorded() -> None:
    lines = []
    for program in RECURRENCES:
        found = compiled(program)
        lines.append(program.name)
        for which, graph in (("forward ", found.forward), ("backward", found.backward)):
            cores = [line(work(equation.bodies[0])) for equation in scans(graph.body)]
            lines += [f"  {which}  {core}" for core in cores or ["no loop"]]
    check_golden("recurrent_cores.txt", "\n".join(lines) + "\n")


ELEMENTWISE = ("crf_forward",)
"""Recurrences whose derivative by a matrix is itself elementwise in it: there is no pair of vectors to emit."""


def is_weight_shaped(shape: tuple[int, ...], program: Program) -> bool:
    """Whether an array could be a matrix's gradient, or a packed part of one, either way round."""
    shape = tuple(n for n in shape if n != 1)
    if len(shape) < 2:
        return False
    weights = [w for name, w in program.shapes.items() if name.split(".")[-1] not in ("b", "bias")]
    matrices = [w for w in (tuple(n for n in w if n != 1) for w in weights) if len(w) >= 2]
    pairs = {shape[-2:], shape[-2:][::-1]}
    return any(w[-2] == m and w[-1] % n == 0 and len(shape) >= len(w) for w in matrices for m, n in pairs)


@by_recurrence
def test_no_gradient_of_a_matrix_is_emitted_or_carried(program: Program) -> None:
    if program.name.split(".")[1] in ELEMENTWISE:
        pytest.skip("its derivative by the matrix is elementwise")
    for memory in ("save", "auto"):
        found = compiled(program, memory)
        carried_forward = {
            v.type.shape
            for e in scans(found.forward.body)
            for v in e.inputs[e.attributes["captured"] : e.attributes["captured"] + e.attributes["carries"]]
        }
        for equation in scans(found.backward.body):
            a = equation.attributes
            carried = [v.type.shape for v in equation.inputs[a["captured"] : a["captured"] + a["carries"]]]
            emitted = [v.type.shape for v in equation.bodies[0].results[a["carries"] :]]
            for shape in (*carried, *emitted):
                # A carry of the step itself may be a matrix; its cotangent is one too.
                assert shape in carried_forward or not is_weight_shaped(shape, program)


@by_recurrence
def test_nothing_of_the_input_is_contracted_inside(program: Program) -> None:
    """A contraction inside a forward loop depends on the carry: what depends on the element alone was hoisted."""
    for equation in scans(compiled(program).forward.body):
        (body,) = equation.bodies
        a = equation.attributes
        if a.get("checkpoint"):
            continue
        recurrent = set(body.parameters[a["captured"] : a["captured"] + a["carries"]])
        for inner in body.equations:
            if any(v in recurrent for v in inner.inputs):
                recurrent.update(inner.outputs)
            elif inner.op == "contract":
                raise AssertionError(f"{inner.types} does not depend on the carry")


@by_recurrence
def test_what_leaves_the_loop_feeds_the_carry_or_is_read_in_it(program: Program) -> None:
    """Every contraction inside a loop, forward and backward, feeds a carry: the rest was sunk."""
    found = compiled(program)
    for graph in (found.forward, found.backward):
        for equation in scans(graph.body):
            (body,) = equation.bodies
            a = equation.attributes
            needed = set(body.results[: a["carries"]])
            states = body.parameters[a["captured"] : a["captured"] + a["carries"]]
            matrix_carries = {v.type.shape for v in states if len(v.type.shape) > 1}
            for inner in reversed(body.equations):
                if any(v in needed for v in inner.outputs):
                    needed.update(inner.inputs)
                elif inner.op == "contract":
                    # To take a product with a matrix carry out of the loop would mean to emit the matrix.
                    shapes = {type_.shape for type_ in inner.types}
                    assert shapes & matrix_carries, f"a contraction of {inner.types} feeds no carry"
