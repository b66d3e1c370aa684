"""Every example of the gallery, run with three steps of training, and the page that shows what they measured."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
KEYS = {"idea", "expression", "result", "baseline", "beats", "measured", "signature", "steps", "seconds"}


@pytest.fixture
def gallery(monkeypatch):
    """The runner, imported as the examples import each other: from their own folder."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield importlib.import_module("gallery")
    torch.set_num_threads(threads)


def names() -> list[str]:
    return sorted(path.stem for path in EXAMPLES.glob("*.py") if "\nEXPRESSION = " in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", names())
def test_runs_small(gallery, name: str) -> None:
    told = gallery.measure(name, steps=3)
    assert told.keys() == KEYS
    assert told["idea"][-1] in ".?" and len(told["idea"]) <= 130
    assert all(isinstance(told[key], str) and told[key] for key in ("expression", "result", "baseline", "signature"))
    assert isinstance(told["beats"], bool)
    assert told["measured"] and all(math.isfinite(value) for value in told["measured"].values())
    assert told["steps"] == 3


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
