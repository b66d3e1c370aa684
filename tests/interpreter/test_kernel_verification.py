"""`verify_kernels`: right kernels are found right under every strategy, wrong ones wrong; what cannot run says so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import foldfuse as ff
from foldfuse.runtime import fused, verification
from foldfuse.runtime.cli import load
from foldfuse.runtime.verification import verify_kernels

from ..test_cli import FILE, RIGHT

CPU = torch.device("cpu")
STRATEGIES = ("resident", "streamed", "cooperative")


def verified(model: ff.Model, strategies=STRATEGIES, entry: str | None = None) -> list[verification.Row]:
    return verify_kernels(model, 3, 5, 0, entry, CPU, strategies)


@pytest.mark.parametrize("name", RIGHT)
def test_right_kernels(name):
    rows = verified(load(f"{FILE}:{name}"), STRATEGIES[:2])
    assert rows and all(row.ok for row in rows), rows
    assert any(row.error is not None for row in rows)


def test_every_strategy_is_compared():
    rows = verified(load(f"{FILE}:encoder"))
    assert [row.what for row in rows] == [
        f"{what}, kernels, {strategy}" for strategy in STRATEGIES for what in ("values", "gradients")
    ]
    assert all(row.ok and row.error is not None for row in rows), rows


def test_strategies_that_make_the_same_kernels_are_compared_once():
    rows = verified(load(f"{FILE}:records"))
    assert [row.what for row in rows] == ["values, kernels, pointwise", "gradients, kernels, pointwise"]


def test_a_model_is_left_as_it_was():
    model = load(f"{FILE}:model").train()
    verified(model)
    assert model.training and all(p.grad is None and p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize(("number", "wrong"), [(0, {"values", "gradients"}), (1, {"gradients"})])
def test_wrong_kernels(monkeypatch, number, wrong):
    """The first program that runs is the forward one, the second its adjoint."""
    run, ran = fused.Fused.run, []

    def scaled(self, *arguments):
        ran.append(self)
        return [v * 1.001 if len(ran) == number + 1 else v for v in run(self, *arguments)]

    monkeypatch.setattr(fused.Fused, "run", scaled)
    rows = verified(load(f"{FILE}:model"), ("resident",))
    assert {row.what.split(",")[0] for row in rows if not row.ok} == wrong and len(ran) == 2


def test_an_exception_is_a_wrong_row(monkeypatch):
    def fail(*arguments):
        raise RuntimeError("shared memory is on fire\nmore")

    monkeypatch.setattr(fused.Fused, "run", fail)
    (row,) = verified(load(f"{FILE}:model"), ("resident",))
    assert not row.ok and row.where == "RuntimeError: shared memory is on fire"


def test_what_a_strategy_does_not_hold_is_no_comparison(monkeypatch):
    def plan(graph, request, ragged, right=fused.plan):
        if request.force == "cooperative":
            raise ff.StrategyError("it is too large")
        return right(graph, request, ragged)

    monkeypatch.setattr(fused, "plan", plan)
    W = ff.param((9, 9), "W")
    rows = verified(ff.compile(ff.scan(lambda h, x: ff.tanh(h @ W + x), init=ff.zeros(9)), ff.Seq(ff.f32[9])))
    assert [(row.what, row.where) for row in rows if row.error is None] == [
        ("values, kernels, cooperative", "it is too large")
    ]
    assert all(row.ok for row in rows)


def test_kernels_that_are_not_launched_are_not_taken_for_right(monkeypatch):
    monkeypatch.setattr(fused, "of", lambda *arguments: None)
    rows = verified(load(f"{FILE}:model"), ("resident",))
    assert [(row.error, "no kernel was launched" in row.where) for row in rows] == [(None, True)]


def test_rows_say_what_they_compare():
    rows = verified(load(f"{FILE}:translator"), ("resident",), "sample")
    assert [replace(row, where="") for row in rows] == [
        verification.Row("sample", "values, kernels", "oracle", None, verification.VALUES, "")
    ]
    assert rows[0].where.startswith("there are none: ")
