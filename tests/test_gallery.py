"""Every example of the gallery, run with three steps of training, and the page that shows what they measured."""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import json
import math
import symtable
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
KEYS = {"idea", "expression", "result", "baseline", "beats", "measured", "signature", "steps", "seconds"}
LINES, MODEL_LINES = 84, 25
MARK = "EXPRESSION = "
"""What stands right below a model: its expression, as the page shows it."""


@pytest.fixture
def gallery(monkeypatch):
    """The runner, imported as the examples import each other: from their own folder."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield importlib.import_module("gallery")
    torch.set_num_threads(threads)


def source(name: str) -> str:
    return (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")


def names() -> list[str]:
    return sorted(path.stem for path in EXAMPLES.glob("*.py") if f"\n{MARK}" in source(path.stem))


def used(table: symtable.SymbolTable) -> set[str]:
    """The names of the module and of Python that a block uses, with the functions inside of it."""
    outermost = table.get_type() == "module"
    own = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced()}
    own = own if outermost else {name for name in own if table.lookup(name).is_global()}
    return own.union(*map(used, table.get_children()))


def model(name: str) -> tuple[int, symtable.SymbolTable]:
    """The last line of an example's model, which stands above the mark, and the names down to there."""
    text = source(name).partition(f"\n{MARK}")[0].rstrip()
    return text.count("\n") + 1, symtable.symtable(text + "\n", name, "exec")


def defined(name: str) -> set[str]:
    """The names that an example's model defines."""
    return {symbol.get_name() for symbol in model(name)[1].get_symbols() if symbol.is_assigned()}


@pytest.mark.parametrize("name", names())
def test_is_short_and_begins_with_its_model(name: str) -> None:
    assert len(source(name).splitlines()) <= LINES
    last, above = model(name)
    assert last <= MODEL_LINES
    imported = {symbol.get_name() for symbol in above.get_symbols() if symbol.is_imported()}
    assert used(above) <= imported | defined(name) | set(dir(builtins)), "a part of the model stands below it"
    elsewhere = {part for part in used(above) & imported - {"ff", "torch"} if not part.isupper()}
    assert elsewhere <= set().union(*map(defined, names())), "a part of the model is hidden in a shared module"
    (run,) = (part for part in symtable.symtable(source(name), name, "exec").get_children() if part.get_name() == "run")
    assert used(run) & defined(name), "what runs is not the model"


@pytest.mark.parametrize("name", names())
def test_runs_small(gallery, monkeypatch, tmp_path, name: str) -> None:
    if draws := importlib.util.find_spec("matplotlib") is not None:
        monkeypatch.setattr(importlib.import_module("pictures"), "FOLDER", tmp_path)
    told = gallery.measure(name, steps=3, picture=draws)
    assert told.keys() - {"shown"} == KEYS
    assert str(gallery.ROOT) not in told.get("shown", "")  # where the checkout lies is not for the page
    assert told["idea"][-1] in ".?" and len(told["idea"]) <= 130
    assert all(isinstance(told[key], str) and told[key] for key in ("expression", "result", "baseline", "signature"))
    assert isinstance(told["beats"], bool)
    assert told["measured"] and all(math.isfinite(value) for value in told["measured"].values())
    assert told["steps"] == 3
    if draws and (gallery.DOCS / "pictures" / f"{name}.png").exists():
        from matplotlib.image import imread

        drawn = imread(tmp_path / f"{name}.png")
        assert drawn.shape[0] > 200 and drawn.std() > 0.02  # something stands on it


def test_every_example_is_listed(gallery) -> None:
    assert names() == sorted(gallery.TITLES)


def test_the_page_shows_what_was_measured(gallery) -> None:
    figures = json.loads(gallery.FIGURES.read_text(encoding="utf-8"))
    assert figures.keys() - {"environment"} == gallery.TITLES.keys()
    assert gallery.PAGE.read_text(encoding="utf-8") == gallery.page(figures)


def test_a_small_run_writes_nothing(gallery, monkeypatch, capsys) -> None:
    written = gallery.PAGE.read_bytes(), gallery.FIGURES.read_bytes()
    told = {"result": "half", "baseline": "a third", "beats": True, "measured": {}, "signature": "a → b"}
    monkeypatch.setattr(gallery, "measure", lambda name, steps, picture: {**told, "seconds": 0.0})
    assert gallery.main(["--only", "tagger", "--steps", "1"]) == 0
    assert "half" in capsys.readouterr().out
    assert (gallery.PAGE.read_bytes(), gallery.FIGURES.read_bytes()) == written


def test_a_failing_example_is_told_and_the_others_run(gallery, monkeypatch, capsys) -> None:
    ran = []

    def measure(name, steps, picture):
        ran.append(name)
        raise RuntimeError("no such data")

    monkeypatch.setattr(gallery, "measure", measure)
    assert gallery.main(["--only", "tagger", "tree_net", "--steps", "1"]) == 1
    assert ran == ["tagger", "tree_net"]
    assert "failed: tagger, tree_net" in capsys.readouterr().err
