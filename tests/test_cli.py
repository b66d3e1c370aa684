"""The command line as a user meets it: verify and explain on files, and what it says to a mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import foldfuse as ff
from foldfuse.compiler.laws import LAWS
from foldfuse.runtime import cli, report, verification

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
    status, out, err = run(capsys, "verify", f"{FILE}:{name}")
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
    status, out, _ = run(capsys, "verify", f"{FILE}:encoder")
    assert status == 1
    assert [("WRONG" in line, " ok " in line) for line in out.splitlines()[4:7]] == [
        (True, False), (False, True), (True, False),
    ]  # fmt: skip
    assert "1 of 3 comparisons" in out


def test_settings_reach_the_comparison(capsys, monkeypatch):
    given = []
    monkeypatch.setattr(cli, "verify", lambda model, *rest: given.append(rest) or [])
    run(capsys, "verify", f"{FILE}:translator", "--batch", "2", "--length", "9", "--seed", "5", "--entry", "loss")
    assert given == [(2, 9, 5, "loss")]


# --- explain ----------------------------------------------------------------------------------------------------------


def test_explain(capsys, monkeypatch):
    monkeypatch.chdir(Path(FILE).parent)
    status, out, err = run(capsys, "explain", "programs.py:encoder")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "main: Seq(f32[3]) → Seq(f32[2])"
    assert [line for line in lines if line and line[0] != " "][1:] == [
        "forward", "backward", 'kept from forward to backward (memory="auto")',
    ]  # fmt: skip
    assert "input hoist: what needs no carry" in out and "accumulator sink: a sum over steps" in out
    assert any(line.strip().startswith("programs.py:") for line in lines), "files below the working directory are short"
    assert str(Path(FILE).parent) not in out
    assert "each step: " in out and "bytes" in lines[-1]


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
    assert len(deep) <= len(one) + 6 < 80
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
    assert model.explain().splitlines()[-1] == f"  in all {total:,} · B · T bytes"


def test_every_explained_law_is_a_law():
    assert set(report.MEANINGS) <= {law.name for law in LAWS}


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
@pytest.mark.parametrize("command", ["verify", "explain"])
def test_a_bad_target(capsys, command, target, message):
    status, out, err = run(capsys, command, target)
    assert status == 2 and out == "" and err.startswith("foldfuse: ") and message in err


def test_an_unknown_entry_point(capsys):
    status, _, err = run(capsys, "explain", f"{FILE}:translator", "--entry", "write")
    assert status == 2 and "no entry point 'write'; it has loss, sample" in err


@pytest.mark.parametrize("arguments", [[], ["verify"], ["verify", "a.py:b", "--batch", "0"], ["measure", "a.py:b"]])
def test_a_wrong_command(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2 and "usage: foldfuse" in capsys.readouterr().err


def test_a_file_may_import_its_neighbours(capsys, tmp_path):
    (tmp_path / "neighbour_of_models.py").write_text("width = 3\n")
    text = "import foldfuse as ff\nfrom neighbour_of_models import width\nmodel = (ff.tanh, ff.f32[width])\n"
    (tmp_path / "models.py").write_text(text)
    before = list(sys.path)
    assert run(capsys, "verify", f"{tmp_path}/models.py:model")[0] == 0
    assert sys.path == before
    sys.modules.pop("neighbour_of_models")


def test_an_error_of_the_file_is_shown_as_python_shows_it(tmp_path):
    (tmp_path / "broken.py").write_text("model = 1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        cli.main(["verify", f"{tmp_path}/broken.py:model"])


def test_as_a_program(tmp_path):
    (tmp_path / "models.py").write_text("import foldfuse as ff\nmodel = ff.compile(ff.tanh, ff.f32[3])\n")
    command = [sys.executable, "-m", "foldfuse.runtime.cli", "verify", "models.py:model"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "4 of 4 comparisons" in done.stdout, done.stderr
