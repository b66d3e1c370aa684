"""The command line as a user meets it: verify, explain, compile, benchmarks, and what it says to a mistake."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import foldfuse as ff
from foldfuse.bench import BENCHMARKS, forest
from foldfuse.compiler.laws import LAWS
from foldfuse.kernels.resources import Resources
from foldfuse.runtime import cli, compat, fused, kernel_report, kernel_verification, report, verification

FILE = str(Path(__file__).parent / "data" / "programs.py")
RIGHT = (
    "encoder", "model", "translator", "pooling", "wide_window", "trees", "words_of_characters", "records", "straight",
    "selected", "counting",
)  # fmt: skip


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = cli.main(arguments)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


# --- verify -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RIGHT)
def test_verify(capsys, name):
    status, out, err = run(capsys, "verify", f"{FILE}:{name}", "--no-kernels")
    assert (status, err) == (0, "")
    head, table, verdict = out.split("\n\n")
    assert "→" in head
    assert "WRONG" not in table and "ok" in table
    assert verdict.strip().endswith("comparisons are within what is allowed")


def test_a_wrong_comparison_is_shown_and_is_the_exit_status(capsys, monkeypatch):
    rows = [
        verification.Row("main", "values, optimised", "oracle", 0.5, 1e-9, "result"),
        verification.Row("main", "values, plain torch", "oracle", 1e-16, 1e-9, "result"),
        verification.Row("main", "gradients, optimised", "torch autograd", float("nan"), 1e-8, "W"),
    ]
    monkeypatch.setattr(cli, "verify", lambda *arguments: rows)
    status, out, _ = run(capsys, "verify", f"{FILE}:encoder", "--no-kernels")
    assert status == 1
    assert [("WRONG" in line, " ok " in line) for line in out.splitlines()[4:7]] == [
        (True, False), (False, True), (True, False),
    ]  # fmt: skip
    assert "1 of 3 comparisons" in out


def test_settings_reach_the_comparison(capsys, monkeypatch):
    given = []
    monkeypatch.setattr(cli, "verify", lambda model, *rest: given.append(rest) or [])
    monkeypatch.setattr(cli, "kernel_rows", lambda model, *rest: given.append(rest) or ([], "they ran"))
    run(capsys, "verify", f"{FILE}:translator", "--batch", "2", "--length", "9", "--seed", "5", "--entry", "loss")
    assert given == [(2, 9, 5, "loss"), (f"{FILE}:translator", (2, 9, 5, "loss"))]


@pytest.mark.skipif(not compat.has_triton(), reason="needs Triton")
def test_verify_runs_the_kernels(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("FOLDFUSE_CACHE", str(tmp_path))
    monkeypatch.setattr(kernel_verification.torch.cuda, "is_available", lambda: False)
    status, out, err = run(capsys, "verify", f"{FILE}:translator", "--length", "4")
    assert (status, err) == (0, "")
    compared = [line.split()[:3] for line in out.splitlines() if ", kernels" in line and " ok" in line]
    assert compared == [
        ["loss", what, "kernels,"] for _ in kernel_verification.INTERPRETED for what in ("values,", "gradients,")
    ]
    assert any(line.startswith("sample  values, kernels ") and "there are none" in line for line in out.splitlines())
    assert "kernels ran in Triton's interpreter, resident and streamed; cooperative ones" in out


def test_verify_without_triton_says_so(capsys, monkeypatch):
    monkeypatch.setattr(compat, "has_triton", lambda: False)
    status, out, _ = run(capsys, "verify", f"{FILE}:counting")
    assert status == 0 and "kernels were not run: Triton is not installed here" in out and ", kernels" not in out


@pytest.mark.skipif(not compat.has_triton(), reason="needs Triton")
def test_a_process_of_the_interpreter_that_fails_is_wrong(capsys, monkeypatch):
    monkeypatch.setattr(kernel_verification.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(kernel_verification, "_CHILD", "raise ValueError('no interpreter')")
    status, out, _ = run(capsys, "verify", f"{FILE}:counting")
    assert status == 1
    (row,) = [line for line in out.splitlines() if "WRONG" in line]
    assert row.endswith("its process ended with 1: ValueError: no interpreter")


# --- explain ----------------------------------------------------------------------------------------------------------


def test_explain(capsys, monkeypatch):
    monkeypatch.chdir(Path(FILE).parent)
    status, out, err = run(capsys, "explain", "programs.py:encoder")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "main: Seq(f32[3]) → Seq(f32[2])"
    assert [line for line in lines if line and line[0] != " "][1:] == [
        "forward", "backward", 'kept from forward to backward (memory="auto")',
        "kernels, as planned for sm_90 (H100 SXM), f32, contractions in ieee",
    ]  # fmt: skip
    assert "input hoist: what needs no carry" in out and "accumulator sink: a sum over steps" in out
    assert any(line.strip().startswith("programs.py:") for line in lines), "files below the working directory are short"
    assert str(Path(FILE).parent) not in out
    assert "each step: " in out and " B · T bytes" in out
    assert re.search(r"^    forward_\d_scan: ", out, re.MULTILINE)


def test_explain_shows_every_entry_point_or_one(capsys):
    _, out, _ = run(capsys, "explain", f"{FILE}:translator")
    assert "loss: Seq(i64)" in out and "sample: Seq(i64)" in out
    assert "backward\n  there is none" in out, "a sample has no derivative"
    _, out, _ = run(capsys, "explain", f"{FILE}:translator", "--entry", "sample")
    assert "loss: Seq(i64)" not in out and "sample: Seq(i64)" in out


def test_explain_prints_graphs(capsys):
    _, short, _ = run(capsys, "explain", f"{FILE}:encoder")
    _, long, _ = run(capsys, "explain", f"{FILE}:encoder", "--ir")
    model = cli.load(f"{FILE}:encoder")
    assert long.startswith(short.rstrip()) and str(model.graph()) in long and model.code() in long
    assert "@triton.jit" not in long
    _, long, _ = run(capsys, "explain", f"{FILE}:encoder", "--kernels")
    assert long.startswith(short.rstrip()) and model.code(kernels=True) in long
    _, long, _ = run(capsys, "explain", f"{FILE}:counting", "--ir")
    assert "None" not in long


def stack(layers: int) -> ff.Model:
    width, expression = 8, None
    for number in range(layers):
        with ff.scope(f"layer{number}"):
            W, U = ff.param((width, 4 * width), "W"), ff.param((width, 4 * width), "U")
            b = ff.param((4 * width,), "b")

        def step(carry, x, W=W, U=U, b=b):
            h, c = carry
            i, f, g, o = ff.chunk(x @ W + h @ U + b, 4)
            c = ff.sigmoid(f) * c + ff.sigmoid(i) * ff.tanh(g)
            h = ff.sigmoid(o) * ff.tanh(c)
            return (h, c), h

        layer = ff.scan(step, init=(ff.zeros(width), ff.zeros(width)))
        expression = layer if expression is None else expression >> layer
    return ff.compile(expression, ff.Seq(ff.f32[width]))


def test_a_deep_stack_is_as_readable_as_one_layer():
    one, deep = stack(1).explain().splitlines(), stack(16).explain().splitlines()
    assert len(deep) <= len(one) + 6 < 100
    assert any(line.startswith("  16 × scan over T in map over B") for line in deep)
    assert max(map(len, deep)) < 250


def test_no_place_stands_twice_under_a_law():
    for part in stack(4).explain().split("\n    ")[1:]:
        places = [line for line in part.splitlines() if line.startswith("  ") and ".py:" in line]
        assert len(places) == len(set(places))


def test_bytes_kept_are_those_of_the_residuals():
    model = stack(1)
    compiled = model.compiled()
    residuals = compiled.forward.body.results[1:]
    assert len(residuals) == len(report.kept_bytes(compiled)) > 0
    total = sum(4 * v.type.shape[0] for v in residuals)
    assert f"\n  in all {total:,} · B · T bytes\n" in model.explain()


def test_every_explained_law_is_a_law():
    assert set(report.MEANINGS) <= {law.name for law in LAWS}


# --- compile ----------------------------------------------------------------------------------------------------------

FITS = Resources(40, 128, 1024, 0, 0, 0, 0, 3, 0, 0.5)
SPILLS = Resources(255, 128, 1024, 200, 64, 12, 0, 0, 0, 0.5)


def raising(error):
    """A function that raises an error, whatever it is given."""

    def function(*arguments, **rest):
        raise error

    return function


@pytest.fixture
def answers(monkeypatch):
    """What the compiler says of every kernel: at first that it fits. Compiling takes seconds, and is tested once."""
    given = {"all": FITS}
    every = lambda plans, patience: {k.kernel.key: given["all"] for p in plans for k in p.kernels}
    monkeypatch.setattr(kernel_report, "resources", every)
    # Those that are planned in the place of one that spills.
    again = lambda kernels, targets, *rest: {(k, target): given["all"] for k in kernels for target in targets}
    monkeypatch.setattr(kernel_report, "compile_many", again)
    return given


@pytest.mark.skipif(not compat.has_triton(), reason="needs Triton")
def test_compile(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.py").write_text(
        "import foldfuse as ff\nstep = lambda h, x: ff.tanh(0.5 * h + x)\n"
        "model = (ff.scan(step, init=ff.zeros(8)), ff.Seq(ff.f32[8]))\n"
    )
    status, out, err = run(capsys, "compile", "models.py:model", "--target", "sm_80")
    assert (status, err) == (0, "")
    folder = tmp_path / "model_sm_80"
    listing = json.loads((folder / "resources.json").read_text())
    planned = cli.load("models.py:model").planned(target="sm_80")
    assert {each.name for each in folder.iterdir()} == {
        "resources.json", *(f"{each.name}.py" for each in planned.kernels)
    }  # fmt: skip
    for each, listed in zip(planned.kernels, listing["kernels"], strict=True):
        assert (folder / listed["file"]).read_text() == each.text
        assert listed["resources"]["registers"] > 0 and listed["faults"] == []
    assert f"{len(planned.kernels)} kernels and resources.json are in model_sm_80" in out
    assert "forward_1_scan" in out and "for sm_80 (A100 SXM 80 GB), f32, contractions in ieee" in out
    assert {each.name for each in tmp_path.iterdir()} - {"__pycache__"} == {"model_sm_80", "models.py"}


def test_places_are_the_users(capsys, tmp_path, answers):
    """What nobody wrote, such as a sum over the batch, has no place: what calls the command line is none."""
    _, out, _ = run(capsys, "compile", f"{FILE}:encoder", "--out", str(tmp_path / "kernels"))
    assert "a sum over the outermost list" in out and f"{Path(FILE).name}:" in out
    assert Path(__file__).name not in out


def test_compile_hands_its_options_on(capsys, tmp_path, answers):
    out_folder = str(tmp_path / "kernels")
    options = ["--strategy", "streamed", "--dtype", "bf16", "--no-backward", "--target", "gfx942"]
    status, out, _ = run(capsys, "compile", f"{FILE}:encoder", "--out", out_folder, *options)
    assert status == 0 and "for gfx942 (Instinct MI300X), bf16 (computed in f32)" in out
    listing = json.loads((tmp_path / "kernels" / "resources.json").read_text())
    assert {each["direction"] for each in listing["kernels"]} == {"forward"}
    assert {each["strategy"] for each in listing["kernels"]} <= {"streamed", "pointwise"}
    _, out, _ = run(capsys, "compile", f"{FILE}:encoder", "--out", out_folder, "--tf32")
    assert "contractions in tf32" in out


def test_compile_names_kernels_of_several_entry_points(capsys, tmp_path, answers):
    folder = tmp_path / "kernels"
    status, out, _ = run(capsys, "compile", f"{FILE}:translator", "--out", str(folder))
    assert status == 0 and "sample, forward: by torch's own operators\n    all of it: " in out
    assert len(list(folder.glob("loss_forward_*_scan.py"))) == 2
    assert cli._labels(("a-b", "c")) == ["a_b", "c"]
    assert cli._labels(("a-b", "a_b")) == ["entry_1", "entry_2"]


def test_compile_says_what_does_not_fit(capsys, tmp_path, answers):
    for answer, said in ((SPILLS, "64 bytes spilled by each thread"), ("error: no", "does not compile: error: no")):
        answers["all"] = answer
        status, out, _ = run(capsys, "compile", f"{FILE}:encoder", "--out", str(tmp_path / "kernels"))
        assert status == 1 and said in out and "not fit for sm_90: forward_1_" in out
        assert (tmp_path / "kernels" / "resources.json").is_file()


def test_compile_replaces_only_what_it_wrote(capsys, tmp_path, answers):
    folder = tmp_path / "kernels"
    command = ("compile", f"{FILE}:encoder", "--out", str(folder))
    folder.mkdir()
    assert run(capsys, *command)[0] == 0, "an empty folder is written into"
    assert run(capsys, *command, "--no-backward")[0] == 0
    assert not list(folder.glob("backward_*"))
    (folder / "notes.txt").write_text("mine")
    status, out, err = run(capsys, *command)
    assert (status, out) == (2, "") and "holds notes.txt, which this command did not write" in err
    assert (folder / "notes.txt").read_text() == "mine" and list(folder.glob("forward_*"))
    status, _, err = run(capsys, "compile", f"{FILE}:encoder", "--out", str(folder / "notes.txt"))
    assert status == 2 and "is no folder" in err


@pytest.mark.parametrize(
    ("out", "message"), [("there/kernels", "no folder can be made in"), ("file/kernels", "no folder can be made in")]
)
def test_compile_where_nothing_can_be_written(capsys, tmp_path, answers, out, message):
    (tmp_path / "file").write_text("")
    status, printed, err = run(capsys, "compile", f"{FILE}:encoder", "--out", str(tmp_path / out))
    assert (status, printed) == (2, "") and message in err and "--out" in err


def test_compile_leaves_nothing_behind_when_it_fails(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(fused, "plan", raising(ff.StrategyError("no strategy holds this step")))
    (tmp_path / "models.py").write_text(
        "import foldfuse as ff\nmodel = (ff.scan(lambda h, x: ff.sin(h * x), init=ff.zeros(3)), ff.Seq(ff.f32[3]))\n"
        "done = (ff.unfold(lambda n: (n + 1, n), until=lambda n: n > 3.0, max_length=9), ff.i64)\n"
    )
    command = ("compile", f"{tmp_path}/models.py:model", "--out", str(tmp_path / "kernels"))
    status, out, err = run(capsys, *command)
    assert (status, out) == (2, "") and "StrategyError: no strategy holds this step" in err
    monkeypatch.undo()
    monkeypatch.setattr(kernel_report, "compile_many", raising(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        cli.main(command)
    status, out, err = run(capsys, "compile", f"{tmp_path}/models.py:done", "--out", str(tmp_path / "kernels"))
    assert (status, out) == (2, "") and "no kernel is made of this program: " in err
    assert {each.name for each in tmp_path.iterdir()} - {"__pycache__"} == {"models.py"}


def test_compile_refuses_tf32_where_nothing_is_f32(capsys, tmp_path):
    options = ("--tf32", "--dtype", "bf16", "--out", str(tmp_path / "kernels"))
    status, _, err = run(capsys, "compile", f"{FILE}:encoder", *options)
    assert status == 2 and "--tf32 is about contractions of f32" in err


def test_compile_without_triton(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(kernel_report, "compile_many", raising(ff.MissingTriton("kernels need Triton")))
    status, out, err = run(capsys, "compile", f"{FILE}:encoder", "--out", str(tmp_path / "kernels"))
    assert (status, out) == (2, "") and "MissingTriton" in err and not list(tmp_path.iterdir())


# --- bench ------------------------------------------------------------------------------------------------------------


def test_bench_lists_what_there_is(capsys):
    status, out, err = run(capsys, "bench")
    assert (status, err) == (0, "")
    lines = out.split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in lines] == list(BENCHMARKS)
    for line, module in zip(lines, BENCHMARKS.values(), strict=True):
        document = importlib.import_module(f"foldfuse.bench.{module}").__doc__
        assert line.split(maxsplit=1)[1] == document.splitlines()[0]
    folder = Path(cli.__file__).parent.parent / "bench"
    runnable = {each.stem for each in folder.glob("*.py") if "\nif __name__ ==" in each.read_text()}
    assert runnable == set(BENCHMARKS.values()), "every benchmark is listed"


@pytest.mark.parametrize(("given", "status"), [(None, 0), (0, 0), (1, 1), (2, 2)])
def test_bench_hands_on_the_options_and_the_status(capsys, monkeypatch, given, status):
    seen = []
    monkeypatch.setattr(forest, "main", lambda arguments: seen.append(arguments) or given)
    assert run(capsys, "bench", "forest", "--nodes", "7", "-h")[0] == status
    assert run(capsys, "bench", "forest")[0] == status
    assert seen == [["--nodes", "7", "-h"], []]


def test_bench_runs_one(capsys, tmp_path):
    status, out, err = run(capsys, "bench", "forest", "--nodes", "50", "--repeats", "1", "--output", str(tmp_path))
    (file,) = tmp_path.iterdir()
    assert (status, err) == (0, "") and f"written: {file}" in out
    assert json.loads(file.read_text())["settings"] == {"nodes": 50, "repeats": 1}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_says_how_it_is_called(capsys, name):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bench", name, "--help"])
    out = capsys.readouterr().out
    assert stopped.value.code == 0 and out.startswith(f"usage: foldfuse bench {name} ") and "--output" in out


def test_bench_of_what_there_is_not(capsys):
    status, out, err = run(capsys, "bench", "convolutions")
    assert (status, out) == (2, "") and "there is no benchmark 'convolutions'; there are recurrences, " in err
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bench", "--quick"])
    assert stopped.value.code == 2 and "usage: foldfuse" in capsys.readouterr().err


def test_benchmarks_are_imported_when_one_is_run():
    program = "import sys, foldfuse.runtime.cli; print([n for n in sys.modules if n.startswith('foldfuse.bench')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


# --- targets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("programs.py", "write FILE:NAME"),
        (FILE + ":", "write FILE:NAME"),
        (":model", "write FILE:NAME"),
        ("nowhere.py:model", "there is no file nowhere.py"),
        (FILE + ":encodr", "has no encodr; it has encoder, model, translator"),
        (FILE + ":number", "is a int: name a compiled model"),
        (FILE + ":with_arguments", "is a function of size"),
        (FILE + ":bare", "its input types are not known"),
        (FILE + ":mistaken", "CarryError"),
    ],
)
@pytest.mark.parametrize("command", ["verify", "explain", "compile"])
def test_a_bad_target(capsys, command, target, message):
    status, out, err = run(capsys, command, target)
    assert status == 2 and out == "" and err.startswith("foldfuse: ") and message in err


def test_an_unknown_entry_point(capsys):
    status, _, err = run(capsys, "explain", f"{FILE}:translator", "--entry", "write")
    assert status == 2 and "no entry point 'write'; it has loss, sample" in err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["verify"],
        ["verify", "a.py:b", "--batch", "0"],
        ["measure", "a.py:b"],
        ["compile", "a.py:b", "--target", "sm_75"],
        ["compile", "a.py:b", "--strategy", "fast"],
        ["compile", "a.py:b", "--dtype", "f8"],
    ],
)
def test_a_wrong_command(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2 and "usage: foldfuse" in capsys.readouterr().err


def test_a_file_may_import_its_neighbours(capsys, tmp_path):
    (tmp_path / "neighbour_of_models.py").write_text("width = 3\n")
    text = "import foldfuse as ff\nfrom neighbour_of_models import width\nmodel = (ff.tanh, ff.f32[width])\n"
    (tmp_path / "models.py").write_text(text)
    before = list(sys.path)
    assert run(capsys, "verify", f"{tmp_path}/models.py:model", "--no-kernels")[0] == 0
    assert sys.path == before
    sys.modules.pop("neighbour_of_models")


def test_an_error_of_the_file_is_shown_as_python_shows_it(tmp_path):
    (tmp_path / "broken.py").write_text("model = 1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        cli.main(["verify", f"{tmp_path}/broken.py:model"])


def test_as_a_program(tmp_path):
    (tmp_path / "models.py").write_text("import foldfuse as ff\nmodel = ff.compile(ff.tanh, ff.f32[3])\n")
    command = [sys.executable, "-m", "foldfuse.runtime.cli", "verify", "models.py:model", "--no-kernels"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "4 of 4 comparisons" in done.stdout, done.stderr
