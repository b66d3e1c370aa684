"""What a user sees of the kernels without a GPU: what is planned, its text and tables; nothing here compiles."""

from __future__ import annotations

import ast
import json

import pytest
import torch

import foldfuse as ff
from foldfuse.compiler.sizes import Named, Quotient
from foldfuse.kernels.kernel import Account, Tiles
from foldfuse.kernels.resources import Resources
from foldfuse.runtime import compat, fused, kernel_plan, kernel_report
from foldfuse.runtime.launch import counts

B, T = Named("B"), Named("T")
FITS = Resources(40, 128, 1024, 0, 0, 0, 0, 3, 0, 0.5)
SPILLS = Resources(255, 128, 1024, 200, 64, 12, 0, 0, 0, 0.5)


def lstm(n: int, d: int):
    W, U, b = ff.param((d, 4 * n), "W"), ff.param((n, 4 * n), "U"), ff.param((4 * n,), "b")

    def step(carry, x):
        h, c = carry
        i, f, g, o = ff.chunk(x @ W + h @ U + b, 4)
        c = ff.sigmoid(f) * c + ff.sigmoid(i) * ff.tanh(g)
        h = ff.sigmoid(o) * ff.tanh(c)
        return (h, c), h

    return ff.scan(step, init=(ff.zeros(n), ff.zeros(n)))


def recurrence(n: int = 32, layers: int = 1) -> ff.Model:
    expression = ff.map(lambda x: x)
    for number in range(layers):
        with ff.scope(f"layer{number}"):
            expression = expression >> lstm(n, n)
    return ff.compile(expression, ff.Seq(ff.f32[n]))


def scans(planned: kernel_plan.Planned) -> list[kernel_plan.KernelRecord]:
    return [each for each in planned.kernels if each.kernel.name == "scan"]


# --- plans ------------------------------------------------------------------------------------------------------------


def test_a_recurrence_is_one_kernel_forward_and_one_backward():
    model = recurrence()
    assert [(each.direction, each.launches) for each in scans(model.planned())] == [("forward", 1), ("backward", 1)]
    names = [each.name for each in model.kernels]
    assert len(set(names)) == len(names) and {"forward_1_scan"} <= set(names)
    for each in model.kernels:
        (function,) = [n for n in ast.parse(each.text).body if isinstance(n, ast.FunctionDef)]
        assert function.name == each.kernel.name
        assert [a.arg for a in function.args.args] == [a.name for a in each.kernel.arguments]
        assert each.why and each.rows == each.kernel.grid[0].block


@pytest.mark.parametrize("strategy", ["resident", "streamed", "cooperative"])
def test_a_forced_strategy(strategy):
    planned = recurrence().planned(strategy=strategy, dtype="bf16")
    assert {each.strategy for each in scans(planned)} == {strategy}
    assert planned.title == "sm_90 (H100 SXM), bf16 (computed in f32)"


def test_the_numbers_of_a_plan():
    model = recurrence()
    (forward, _) = scans(model.planned(strategy="streamed"))
    assert 'input_precision="ieee"' in forward.text and "tf32" not in forward.text and "bfloat16" not in forward.text
    (forward, _) = scans(model.planned(strategy="streamed", tf32=True))
    assert 'input_precision="tf32"' in forward.text
    assert "bfloat16" in scans(model.planned(strategy="streamed", dtype="bf16"))[0].text
    assert model.planned(dtype="f64").numbers == "f64" and model.planned(dtype="f16").numbers.startswith("f16")
    assert model.double().planned().numbers == "f64" and model.bfloat16().planned().numbers.startswith("bf16")


def test_contractions_run_in_tf32_where_torch_is_set_to():
    model = recurrence()
    assert model.planned().title == "sm_90 (H100 SXM), f32, contractions in ieee"
    before = torch.backends.cuda.matmul.fp32_precision
    try:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        assert model.planned().title == "sm_90 (H100 SXM), f32, contractions in tf32"
        assert model.planned(tf32=False).title.endswith("ieee")
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def test_another_target():
    planned = recurrence().planned(target="gfx942")
    assert planned.target == "gfx942" and "Instinct MI300X" in planned.title
    assert "a step of 32 rows is estimated at" in scans(planned)[0].why


def test_equal_layers_are_one_record_forward():
    forward = [each for each in scans(recurrence(8, layers=3).planned()) if each.direction == "forward"]
    assert [each.launches for each in forward] == [3]


def test_what_no_kernel_does_is_said():
    planned = recurrence().planned()
    (projection,) = [step for step in planned.evaluated if step.direction == "forward"]
    assert projection.operation == "contract f32[B, T | 32] with f32[32, 128]" and projection.count == 1
    assert "vendor's library" in projection.reason
    total = sum(step.count for step in planned.evaluated if step.direction == "backward")
    assert total >= 3, "gradients of x, W and U"


def test_a_direction_that_is_evaluated_as_a_whole():
    counts = ff.unfold(lambda n: (n + 1, n), until=lambda n: n > 3.0, max_length=9)
    planned = ff.compile(counts, ff.f32).planned()
    assert not [each for each in planned.kernels if each.direction == "forward"]
    (whole,) = [step for step in planned.evaluated if step.direction == "forward"]
    assert whole.operation == "" and "a length that the data decides" in whole.reason
    assert f"    all of it: {whole.reason}" in kernel_report.lines(planned)


def test_without_a_backward_direction():
    plan = recurrence().planned(backward=False)
    assert {each.direction for each in plan.kernels} == {"forward"} and plan.no_backward == "not asked for"
    written = lambda p: sum(a.written for a in p.kernels[0].kernel.arguments)
    assert written(plan) < written(recurrence().planned()), "residuals are not kept"
    integers = ff.compile(ff.map(lambda x: x + 1), ff.Seq(ff.i64)).planned()
    assert len(integers.kernels) == 1 and integers.no_backward == "no output has a derivative"


def test_the_mode_of_the_model_decides_what_is_planned():
    model = ff.compile(ff.map(ff.dropout(0.5) >> ff.tanh), ff.Seq(ff.f32[8]))
    training = model.planned()
    assert model.eval().planned().kernels[0].text != training.kernels[0].text


def test_entry_points_are_planned_each():
    model = ff.compile({"one": (ff.tanh, ff.f32[3]), "two": (lstm(8, 8), ff.Seq(ff.f32[8]))})
    assert model.kernels == model.planned("one").kernels and not scans(model.planned("one"))
    assert scans(model.planned("two"))


def test_mistakes_are_named():
    model = recurrence()
    with pytest.raises(ff.TargetError, match="no target is called 'sm_75'"):
        model.planned(target="sm_75")
    with pytest.raises(ff.StructureError, match=r"strategy= is one of 'resident', .*; got 'fast'"):
        model.planned(strategy="fast")
    with pytest.raises(ff.StructureError, match=r"dtype= is one of 'f32', .*; got 'f8'"):
        model.planned(dtype="f8")
    with pytest.raises(ff.StructureError, match="no entry point 'second'"):
        model.planned("second")


def test_explain_says_that_no_strategy_holds(monkeypatch):
    def plan(graph, request, ragged):
        raise ff.StrategyError(f"no strategy holds this step on {request.target}: it is too large")

    monkeypatch.setattr(fused, "plan", plan)
    model = recurrence(7)
    with pytest.raises(ff.StrategyError, match="too large"):
        model.planned()
    text = model.explain()
    assert text.endswith("\n\nkernels\n  there are none: no strategy holds this step on sm_90: it is too large")
    assert text.startswith("main: Seq(f32[7])")


def test_warming_up_on_a_cpu_compiles_nothing():
    model, before = recurrence(), counts()
    model.warmup((2, 5, 32))
    model.warmup(torch.zeros(2, 5, 32), backward=False)
    assert not (counts() - before).compiles or compat.interpreting()
    with pytest.raises(ff.ShapeError, match="rank 3"):
        model.warmup((2, 5))


# --- text -------------------------------------------------------------------------------------------------------------


def test_the_text_of_all_kernels():
    model = recurrence()
    text = model.code(kernels=True)
    for each in model.kernels:
        assert f"# {each.name}: {each.strategy}, {each.programs}\n\n{each.text.strip()}\n" in text
    assert "triton" not in model.code()
    ast.parse(text)


def test_explain_has_a_line_for_every_kernel():
    model = recurrence()
    text = model.explain()
    section = text[text.index("\nkernels, as planned for sm_90 (H100 SXM), f32, contractions in ieee") :]
    for each in model.kernels:
        assert f"    {each.name}: {each.strategy}, {each.rows} rows a program, {each.programs}" in section
        assert each.why in section
    assert f"{__file__}:" in section.replace("tests/test_kernel_report.py", __file__)
    brief = model.explain(brief=True)
    assert ".py:" not in brief[brief.index("\nkernels, ") :]
    launches = sum(each.launches for each in model.kernels if each.direction == "backward")
    assert f"  backward: {launches} launch{'es' * (launches != 1)}; " in section


@pytest.mark.parametrize(
    ("terms", "text"),
    [
        ((), "0"),
        (((4, B, T, 64),), "256 · B · T"),
        (((4, B, 64), (128, 64, 4), (B, 4)), "260 · B + 32,768"),
        (((4, Quotient(T, -2, 2)),), "4 · ((T-2)//2)"),
        (((16, Tiles((B, T), 128)), (B, 0)), "16 · ⌈B·T/128⌉"),
        (((1, T), (1,)), "T + 1"),
    ],
)
def test_formulas(terms, text):
    assert kernel_report.formula(terms) == text


@pytest.mark.parametrize(
    ("tiles", "text"),
    [
        (Tiles((B,), 16), "⌈B/16⌉"),
        (Tiles((B, 3, T), 8), "⌈3·B·T/8⌉"),
        (Tiles((B, T)), "B·T"),
        (Tiles((100,), 16), "7"),
        (Tiles((B,), 16, 264), "min(⌈B/16⌉, 264)"),
        (Tiles(()), "1"),
    ],
)
def test_axes_of_a_grid(tiles, text):
    assert kernel_plan.tiles_text(tiles) == text


def test_an_account_is_shown_as_formulas():
    record = recurrence().kernels[0]
    account = Account(((4, B, T, 32), (4096, 4)), ((4, B, T, 8),), ((2, B, T, 512),), ((2, T),))
    for changed, shown in ((account, True), (Account(), False)):
        object.__setattr__(record.kernel, "account", changed)
        planned = kernel_plan.Planned("main", recurrence().planned().request, "f32", (record,), ())
        text = "\n".join(kernel_report.lines(planned))
        assert ("a launch reads 128 · B · T + 16,384 bytes and writes 32 · B · T bytes" in text) is shown
        assert ("it does 1,024 · B · T operations; a program passes 2 · T barriers" in text) is shown


# --- resources --------------------------------------------------------------------------------------------------------


def found(planned: kernel_plan.Planned, answer: Resources | str) -> dict[str, Resources | str]:
    return {each.kernel.key: answer for each in planned.kernels}


def test_the_table_of_resources():
    planned = recurrence().planned()
    lines = kernel_report.resource_table([planned], found(planned, FITS)).splitlines()
    for line, each in zip(lines[2:], planned.kernels):
        assert line.split()[:2] == [each.name, each.strategy] and each.grid in line
        assert line.split()[-6:] == [str(each.kernel.warps), "40", "1,024", "0", "3", "yes"]
    text = "\n".join(lines)
    assert "over the limits" not in text and "main, forward: by torch's own operators" in text
    assert all(each.why in text for each in planned.kernels)


def test_what_does_not_fit_and_what_does_not_compile():
    planned = recurrence().planned()
    first, *others = planned.kernels
    answers = {**found(planned, SPILLS), first.kernel.key: "Traceback\n  line\nValueError: arange's range\n\n"}
    text = kernel_report.resource_table([planned], answers)
    assert f"  {first.name}: does not compile: ValueError: arange's range\n" in text
    assert f"  {others[0].name}: 64 bytes spilled by each thread (12 accesses" in text
    assert [line.split()[-1] for line in text.splitlines()[2 : 2 + len(planned.kernels)]] == ["no"] * (1 + len(others))


def test_kernels_of_one_text_are_named():
    one = recurrence().planned()
    text = kernel_report.resource_table([one.labelled("a"), one.labelled("b")], found(one, FITS))
    assert "of one text\n  b_forward_1_scan is a_forward_1_scan\n" in text


def test_the_listing_for_programs():
    planned = recurrence().planned(target="sm_80", tf32=True)
    files = {each.kernel.key: f"{each.name}.py" for each in planned.kernels}
    listing = json.loads(kernel_report.as_json([planned], found(planned, SPILLS), files))
    assert (listing["target"], listing["numbers"], listing["precision"]) == ("sm_80", "f32", "tf32")
    assert [each["name"] for each in listing["kernels"]] == [each.name for each in planned.kernels]
    first = listing["kernels"][0]
    assert first["resources"]["registers"] == 255 and "spilled" in first["faults"][0]
    assert first["grid"] == [kernel_plan.tiles_text(axis) for axis in planned.kernels[0].kernel.grid]
    assert "B · T" in first["account"]["bytes read"]
    assert listing["evaluated"][0]["operation"].startswith("contract")
