"""The kernels of recurrences, compiled ahead of time for GPUs that need not be there: nothing spills, no limit of a
target is passed, and products run on tensor cores where the dtype has them.

The tests take a selection in which every two values of the factors meet at least once; `compile_recurrences` compiles
the whole product. The kernels of all other programs of the corpus compile too.
"""

from __future__ import annotations

import json
from dataclasses import fields, replace
from itertools import combinations
from pathlib import Path
from unittest import mock

import pytest

from foldfuse.kernels.kernel import Kernel
from foldfuse.kernels.request import Request
from foldfuse.kernels.resources import Resources
from foldfuse.runtime import fused

from . import ahead_of_time, compile_recurrences
from .ahead_of_time import TARGETS
from .cells import graphs
from .compile_recurrences import Case, Record, compiled, covering, every, faults, loop_of, planned
from .legs import outside_leg_b
from .programs import PROGRAMS


def test_the_selection_meets_every_pair() -> None:
    chosen = covering(every())
    for left, right in combinations(fields(Case), 2):
        met = {(getattr(case, left.name), getattr(case, right.name)) for case in chosen}
        assert met == {(getattr(case, left.name), getattr(case, right.name)) for case in every()}
    # 8 cells meet 7 widths.
    assert 56 <= len(chosen) <= 60


@outside_leg_b
def test_the_kernels_of_recurrences_fit() -> None:
    chosen = covering(every())
    wrong = []
    for name in TARGETS:
        mine = [case for case in chosen if case.target == name]
        for case, made in zip(mine, compiled([loop_of(planned(case)) for case in mine], name, 2)):
            wrong += [f"{case}: {fault}" for fault in faults(case, *made)]
    assert not wrong, "\n".join(wrong)


@outside_leg_b
def test_the_kernels_of_other_programs_compile() -> None:
    """What the interpreter runs, a compiler may still refuse: a third of the texts, to save minutes."""
    kernels: dict[Kernel, None] = {}
    for program in PROGRAMS:
        if program.family == "recurrences":
            continue
        made = graphs(*program.build()[program.entry])
        for graph in (made.forward, made.backward):
            planned = graph and fused.plan(graph, Request(), frozenset(d.name for d in graph.sizes if d.over))
            if isinstance(planned, fused.Fused):
                kernels.update(dict.fromkeys(each.kernel for each in planned.kernels))
    some = [kernel for kernel in kernels if int(kernel.key, 16) % 3 == 0]
    assert len(some) > 100 and len(ahead_of_time.compiled(some, ("sm_90",))) == len(some)


@outside_leg_b
def test_what_is_on_record_is_not_compiled_again(tmp_path: Path) -> None:
    case = Case("elman", 16, "bf16", "sm_90", "forward")
    path = tmp_path / "folder" / "record.jsonl"
    first = compile_recurrences.results(case, pointwise=False, force=None, path=path)
    written = path.read_text()
    assert not first[0]["wrong"] and first[0]["registers"] > 0 and len(written.splitlines()) == 1

    again = Record(path)
    with mock.patch.object(compile_recurrences, "compile_many", side_effect=AssertionError("compiled again")):
        ((kernel, found),) = compiled([loop_of(planned(case))], case.target, 1, again)
    assert isinstance(found, Resources) and found.registers == first[0]["registers"]
    assert path.read_text() == written
    # Other options, another target or another compiler make another kernel.
    with mock.patch.object(compile_recurrences, "compile_many", side_effect=KeyError) as compiles:
        for other, name in ((replace(kernel, warps=2 * kernel.warps), "sm_90"), (kernel, "sm_80")):
            with pytest.raises(KeyError):
                again.resources([other], name, 1)
        again.compiler = "another"
        with pytest.raises(KeyError):
            again.resources([kernel], "sm_90", 1)
    assert compiles.call_count == 3


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spills = Resources(255, 128, 0, 64, 64, 8, 0, 0, 0, 1.0)
    answers = lambda kernels, names, *_: {(kernel, name): spills for kernel in kernels for name in names}
    out = tmp_path / "out.json"
    options = "--cells elman --widths 16 --dtypes bf16 --targets sm_90 --processes 1".split()
    with mock.patch.object(compile_recurrences, "compile_many", side_effect=answers):
        assert compile_recurrences.main([*options, "--out", str(out)]) == 1
    printed = capsys.readouterr().out
    assert printed.count("WRONG elman") == 2 and "64 bytes spilled" in printed and "no tensor core is used" in printed
    rows = json.loads(out.read_text())["kernels"]
    assert [(row["which"], row["spilled"], len(row["wrong"])) for row in rows] == [
        ("forward", 64, 2),
        ("backward", 64, 2),
    ]
