"""What foldfuse says about mistakes: the class of the error, what the message tells, the user's line that it names."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings

import pytest
import torch

import foldfuse as ff

from .mistakes import CASES, Case

# List axes of the IR, such as f32[B, T | 3]; objects of Python's; code of foldfuse's.
NOTATION = re.compile(r"\[[^]]* \||\|\]|Traced|<function|0x|<locals>")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_mistake_has_its_own_clear_error(case: Case) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of nested tensors and of its old vmap
        with pytest.raises(ff.FoldfuseError) as caught:
            case.make()
    error = caught.value
    message, _, place = str(error).rpartition("\n  in ")
    assert type(error) is case.error, str(error)
    for part in case.says:
        assert part in message
    assert not NOTATION.search(re.sub(r"<tests\..*?>", "", message)), message
    assert error.source is not None
    assert error.source.file == case.make.__code__.co_filename, str(error)
    assert error.source.text.endswith("# here"), str(error)
    assert place == f"{error.source.file}:{error.source.line}: {error.source.text}"


def test_every_kind_of_error_is_a_class_of_its_own() -> None:
    raised = {case.error for case in CASES}
    offered = {
        value for value in vars(ff).values() if isinstance(value, type) and issubclass(value, ff.FoldfuseError)
    } - {ff.FoldfuseError}
    # Defects of foldfuse, damaged texts, a machine without Triton and a GPU that a kernel does not run on are no
    # mistakes in a program.
    of_machines = {ff.MissingTriton, ff.LaunchError, ff.CaptureError, ff.TargetError, ff.StrategyError}
    assert offered - raised == {ff.VerificationError, ff.ParseError, *of_machines}


def test_duplicate_parameters_name_both_lines() -> None:
    with ff.scope("left"):
        first, first_line = ff.param((3,), "W"), sys._getframe().f_lineno
        second, second_line = ff.param((3,), "W"), sys._getframe().f_lineno
    with pytest.raises(ff.ParameterError) as caught:
        ff.compile(lambda x: x * first + second, ff.f32[3])
    assert f"{__file__}:{first_line}" in str(caught.value)
    assert f"{__file__}:{second_line}" in str(caught.value)


def test_composed_representations_name_the_line_of_the_composition() -> None:
    word, sound = ff.Rep("Word", ff.f32[4]), ff.Rep("Sound", ff.f32[4])
    read = (ff.tanh >> word).typed(word, word)
    hear = ff.dense(2).typed(sound, ff.f32[2])
    both, line = read >> hear, sys._getframe().f_lineno
    with pytest.raises(ff.RepresentationError, match=r"dense\(2\) is declared as Sound.*is Word") as caught:
        ff.compile(both, word)
    assert caught.value.source.line == line
    assert caught.value.source.text.startswith("both, line = read >> hear")


def test_a_window_is_too_large_for_a_row_of_a_ragged_list() -> None:
    model = ff.compile(ff.window_map(lambda w: ff.sum(w, axis=0), 3), ff.Seq(ff.f32))
    found = model(ff.ragged(torch.arange(8.0).reshape(2, 4), [4, 2]))
    assert [row.tolist() for row in found.unpad()] == [[3.0, 6.0], []]


@pytest.mark.parametrize("evaluate", ["__call__", "eager", "reference"])
def test_every_evaluator_refuses_and_names_the_line(evaluate: str) -> None:
    table, line = ff.map(ff.embedding(4, 3)), sys._getframe().f_lineno
    model = ff.compile(table >> ff.expression(lambda xs: ff.mean(xs)), ff.Seq(ff.i64))
    with pytest.raises(ff.IndexRangeError, match="index 4") as caught:
        getattr(model, evaluate)(torch.tensor([[1, 4]]))
    assert caught.value.source.line == line
    with pytest.raises(ff.EmptyError, match="mean") as caught:
        getattr(model, evaluate)(ff.ragged(torch.ones(2, 3, dtype=torch.int64), [2, 0]))
    assert caught.value.source.line == line + 1


def test_a_failed_call_leaves_the_model_as_it_was() -> None:
    model = ff.compile(ff.map(ff.embedding(4, 2)) >> ff.fold(lambda s, x: s + x, init=ff.zeros(2)), ff.Seq(ff.i64))
    before = model(torch.tensor([[1, 3]]))
    with pytest.raises(ff.IndexRangeError):
        model(torch.tensor([[1, 4]]))
    assert torch.equal(model(torch.tensor([[1, 3]])), before)


WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None  # importing it raises ImportError
import torch, foldfuse as ff
model = ff.compile(ff.fold(lambda s, x: s * x, init=1.0), ff.Seq(ff.f32))
xs = torch.ones(2, 3, requires_grad=True)
model(xs).sum().backward()
assert model(xs).tolist() == [1.0, 1.0] and xs.grad.tolist() == [[1.0] * 3] * 2
assert {kernel.direction for kernel in model.kernels} == {"forward", "backward"}, model.kernels
assert "import triton" in model.code(kernels=True) and "triton" not in model.code()
assert "kernels, as planned for sm_90" in model.explain()
assert not any(name.startswith("triton.") for name in sys.modules)
"""


def test_without_triton_programs_run_on_the_cpu_and_kernels_are_planned() -> None:
    ran = subprocess.run([sys.executable, "-c", WITHOUT_TRITON], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert issubclass(ff.MissingTriton, ImportError)
