"""Equations between programs as a user writes them: both sides are compiled and give the same values and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import foldfuse as ff

from .harness import error


def step() -> Any:
    W, U = ff.param((3, 4), "W"), ff.param((4, 4), "U")
    return lambda h, x: ff.tanh(x @ W + h @ U)


def run(expression: Any, *types: Any, on: Any) -> list[torch.Tensor]:
    """Values, then gradients of every parameter, of a program with drawn parameters."""
    model = ff.compile(expression, *types).double()
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(torch.as_tensor(np.random.default_rng(i).normal(size=tuple(p.shape)) * 0.5))
    y = model(*on)
    y = torch.cat([row.reshape(-1) for row in y.unpad()]) if isinstance(y, ff.Ragged) else y
    total = (y * torch.cos(torch.arange(y.numel()).reshape(y.shape))).sum()
    return [y, *torch.autograd.grad(total, list(model.parameters()))] if list(model.parameters()) else [y]


def agree(left: list[torch.Tensor], right: list[torch.Tensor]) -> None:
    for x, y in zip(left, right, strict=True):
        assert error(x, y) <= 1e-10


SEQ = ff.Seq(ff.f32[3])


def rows(*lengths: int) -> ff.Ragged:
    return ff.ragged([torch.as_tensor(np.random.default_rng(n).normal(size=(n, 3))) for n in lengths])


@pytest.mark.parametrize("reverse", [False, True])
def test_fold_is_the_last_of_scan(reverse: bool) -> None:
    def last(xs: Any) -> Any:
        return ff.scan(step(), init=ff.zeros(4), reverse=reverse, final=True)(xs)[0]

    agree(
        run(ff.fold(step(), init=ff.zeros(4), reverse=reverse), SEQ, on=[rows(5, 1, 3)]),
        run(last, SEQ, on=[rows(5, 1, 3)]),
    )


def test_the_last_output_of_a_scan_is_its_carry() -> None:
    agree(
        run(ff.fold(step(), init=ff.zeros(4)), SEQ, on=[rows(5, 1, 3)]),
        run(ff.scan(step(), init=ff.zeros(4)) >> (lambda hs: hs[-1]), SEQ, on=[rows(5, 1, 3)]),
    )


def test_fold_is_cata_on_a_chain() -> None:
    """A list is a tree whose every node has one child: the fold from the left starts at the only leaf."""
    values = [torch.as_tensor(np.random.default_rng(n).normal(size=(n, 3))) for n in (5, 1, 3)]

    def node(k: Any) -> Any:
        def run_node(x: Any, kids: Any) -> Any:
            return k(ff.sum(kids), x)  # the sum of no children is the initial carry, zeros

        return run_node

    # The chain's root is the last element; each element's child is the one before it.
    forest = ff.forest(parents=[np.array([*range(1, len(v)), -1]) for v in values], values=torch.cat(values))
    agree(
        run(ff.fold(step(), init=ff.zeros(4)), SEQ, on=[ff.ragged(values)]),
        run(ff.cata(node(step())), ff.Tree(ff.f32[3]), on=[forest]),
    )


def test_scan_is_every_result_of_cata_on_a_chain() -> None:
    values = [torch.as_tensor(np.random.default_rng(n).normal(size=(n, 3))) for n in (4, 1)]
    forest = ff.forest(parents=[np.array([*range(1, len(v)), -1]) for v in values], values=torch.cat(values))
    k = step()
    agree(
        run(ff.scan(step(), init=ff.zeros(4)), SEQ, on=[ff.ragged(values)]),
        run(ff.cata(lambda x, kids: k(ff.sum(kids), x), every=True), ff.Tree(ff.f32[3]), on=[forest]),
    )


def test_map_of_map_is_one_map() -> None:
    def f() -> Any:
        return ff.dense(5, name="f") >> ff.tanh

    def g() -> Any:
        return ff.dense(2, name="g") >> ff.sigmoid

    agree(
        run(ff.map(f()) >> ff.map(g()), SEQ, on=[rows(4, 0, 2)]), run(ff.map(f() >> g()), SEQ, on=[rows(4, 0, 2)])
    )


def test_reverse_scan_is_a_scan_of_the_reversed_list() -> None:
    agree(
        run(ff.scan(step(), init=ff.zeros(4), reverse=True), SEQ, on=[rows(4, 1, 2)]),
        run(lambda xs: ff.reverse(ff.scan(step(), init=ff.zeros(4))(ff.reverse(xs))), SEQ, on=[rows(4, 1, 2)]),
    )


def test_reduce_is_a_fold_for_an_associative_operation() -> None:
    def affine(p: Any, q: Any) -> Any:
        return q[0] * p[0], q[0] * p[1] + q[1]

    pair = ff.Seq((ff.f32, ff.f32))
    on = [(torch.rand(3, 6, dtype=torch.float64), torch.rand(3, 6, dtype=torch.float64))]
    agree(
        run(ff.reduce(affine, (1.0, 0.0)) >> (lambda p: p[0] + 3 * p[1]), pair, on=on),
        run(ff.fold(affine, init=(1.0, 0.0)) >> (lambda p: p[0] + 3 * p[1]), pair, on=on),
    )


def test_windows_of_one_are_a_map() -> None:
    f = ff.dense(4, name="f")
    agree(
        run(ff.map(ff.dense(4, name="f")), SEQ, on=[rows(4, 2)]),
        run(ff.window_map(lambda w: f(w[0]), 1), SEQ, on=[rows(4, 2)]),
    )


def test_teacher_forcing_scores_what_the_unfold_says() -> None:
    """The likelihood of a generated list under `scan` is the sum of what `unfold` said of each of its own choices."""
    V, H, BOS, EOS = 5, 4, 0, 1

    def pieces() -> Any:
        emb, out, cell = ff.embedding(V, 3, name="emb"), ff.dense(V, name="out"), step()

        def speak(h: Any, y: Any) -> Any:
            h = cell(h, emb(y))
            return h, out(h)

        return speak

    speak = pieces()
    start = ff.dense(H, name="start")
    said = ff.unfold(ff.feedback(speak, ff.sample(1.0)), until=lambda y: y == EOS, max_length=9)

    def free(z: Any) -> Any:
        return said((start(z), BOS))

    def likelihood(z: Any, ys: Any) -> Any:
        logits = ff.scan(speak, init=start(z))(ff.shift(ys, BOS))
        return ff.sum(ff.map(lambda p: -ff.cross_entropy(*p))(ff.zip(logits, ys)))

    def own_likelihood(z: Any) -> Any:
        def scoring(carry: Any) -> Any:
            (h, y), total = carry
            h, logits = speak(h, y)
            y = ff.sample(1.0)(logits)
            score = -ff.cross_entropy(logits, y)
            return ((h, y), total + score), (y, score)

        ys, scores = ff.unzip(
            ff.unfold(scoring, init=((start(z), BOS), 0.0), until=lambda p: p[0] == EOS, max_length=9)
        )
        return ys, ff.sum(scores)

    text = ff.Seq(ff.i64)
    model = ff.compile(
        {"free": (free, ff.f32[2]), "own": (own_likelihood, ff.f32[2]), "forced": (likelihood, ff.f32[2], text)}
    ).double()
    z = torch.as_tensor(np.random.default_rng(0).normal(size=(6, 2)))
    ys, own = model(z, entry="own", seed=5)
    forced = model(z, ys, entry="forced")
    assert len({len(row) for row in ys.unpad()}) > 1
    assert error(forced, own) <= 1e-12
    assert error(
        torch.stack(torch.autograd.grad(forced.sum(), [model.get_parameter("U")])),
        torch.stack(torch.autograd.grad(own.sum(), [model.get_parameter("U")])),
    ) <= 1e-10
    # And the plain feedback of the same step, with the same draws, says the same lists.
    for row, again in zip(ys.unpad(), model(z, entry="free", seed=5).unpad(), strict=True):
        assert torch.equal(row, again)
