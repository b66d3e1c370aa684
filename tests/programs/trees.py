"""Trees: one node function for every node, from the leaves to the root."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

import foldfuse as ff

from .face import any_tree, dense, dense_shapes, zeros
from .record import Program, floats, loop
from .recurrences import elman, plain_elman

D, H = 3, 5


# ---------------------------------------------------------------- trees to try
def binary_tree(rng: np.random.Generator, nodes: int, value: Callable | None = None) -> tuple:
    """A random tree whose inner nodes have two children; `nodes` is made odd."""
    value = value or (lambda: floats(rng, D))
    inner = (nodes - 1) // 2
    if inner == 0:
        return value(), []
    left = int(rng.integers(0, inner))
    return value(), [binary_tree(rng, 2 * left + 1, value), binary_tree(rng, 2 * (inner - 1 - left) + 1, value)]


def chain(rng: np.random.Generator, nodes: int) -> tuple:
    """A tree in which every node has at most one child."""
    tree = (floats(rng, D), [])
    for _ in range(nodes - 1):
        tree = (floats(rng, D), [tree])
    return tree


def visit(tree: tuple, node: Callable, leaf: Callable | None = None, found: list | None = None):
    """The result at the root; `found` gathers all results in input order, a node before its children."""
    value, kids = tree
    place = len(found) if found is not None else 0
    if found is not None:
        found.append(None)
    results = [visit(kid, node, leaf, found) for kid in kids]
    result = leaf(value) if leaf is not None and not kids else node(value, results)
    if found is not None:
        found[place] = result
    return result


# ---------------------------------------------------------------- the programs
def tree_rnn():
    emb = ff.dense(H, name="emb")
    W, b = ff.param((2 * H, H), "W"), ff.param((H,), "b")

    def node(x, kids):
        left, right = kids
        return ff.tanh(ff.concat(left, right) @ W + b)

    return {"main": (ff.cata(node, leaf=emb >> ff.tanh), ff.Tree(ff.f32[D], arity=2))}


def plain_tree_rnn(p, tree):
    """Socher et al., Parsing natural scenes and natural language with recursive neural networks (2011)."""
    return visit(
        tree,
        lambda x, kids: torch.tanh(torch.cat(kids) @ p["W"] + p["b"]),
        lambda x: torch.tanh(dense(p, "emb", x)),
    )


def word_tree():
    emb = ff.embedding(7, H, name="emb")
    W = ff.param((2 * H, H), "W")

    def node(x, kids):
        left, right = kids
        return ff.tanh(ff.concat(left, right) @ W + emb(x))

    return {"main": (ff.cata(node, leaf=emb), ff.Tree(ff.i64, arity=2))}


def plain_word_tree(p, tree):
    """A TreeRNN with a symbol at every node."""
    emb = p["emb.weight"]
    return visit(tree, lambda x, kids: torch.tanh(torch.cat(kids) @ p["W"] + emb[x]), lambda x: emb[x])


def binary_tree_lstm(every):
    W, b = ff.param((D, 3 * H), "W"), ff.param((5 * H,), "b")
    U = ff.param((2 * H, 5 * H), "U")

    def leaf(x):
        i, o, u = ff.chunk(x @ W + b[: 3 * H], 3)
        c = ff.sigmoid(i) * ff.tanh(u)
        return ff.sigmoid(o) * ff.tanh(c), c

    def node(_, kids):
        (hl, cl), (hr, cr) = kids
        i, o, u, fl, fr = ff.chunk(ff.concat(hl, hr) @ U + b, 5)
        c = ff.sigmoid(i) * ff.tanh(u) + ff.sigmoid(fl) * cl + ff.sigmoid(fr) * cr
        return ff.sigmoid(o) * ff.tanh(c), c

    return {"main": (ff.cata(node, leaf=leaf, every=every), ff.Tree(ff.f32[D], arity=2))}


def plain_binary_tree_lstm(every, p, tree):
    """Tai, Socher, Manning (2015): the N-ary TreeLSTM with N = 2, words at the leaves (the constituency form)."""

    def leaf(x):
        i, o, u = torch.split(x @ p["W"] + p["b"][: 3 * H], H)
        c = torch.sigmoid(i) * torch.tanh(u)
        return torch.sigmoid(o) * torch.tanh(c), c

    def node(_, kids):
        (hl, cl), (hr, cr) = kids
        i, o, u, fl, fr = torch.split(hl @ p["U"][:H] + hr @ p["U"][H:] + p["b"], H)
        c = torch.sigmoid(i) * torch.tanh(u) + torch.sigmoid(fl) * cl + torch.sigmoid(fr) * cr
        return torch.sigmoid(o) * torch.tanh(c), c

    found: list = []
    root = visit(tree, node, leaf, found)
    return tuple(torch.stack(parts) for parts in zip(*found, strict=True)) if every else root


def tree_gru():
    W, b = ff.param((D, 3 * H), "W"), ff.param((3 * H,), "b")
    U, Ur, Uh = ff.param((H, H), "U"), ff.param((H, H), "Ur"), ff.param((H, H), "Uh")

    def node(x, kids):
        xz, xr, xh = ff.chunk(x @ W + b, 3)
        total = ff.sum(kids)
        z = ff.sigmoid(xz + total @ U)
        kept = ff.sum(ff.map(lambda h: ff.sigmoid(xr + h @ Ur) * h)(kids))
        return (1 - z) * total + z * ff.tanh(xh + kept @ Uh)

    return {"main": (ff.cata(node), ff.Tree(ff.f32[D]))}


def plain_tree_gru(p, tree):
    """The child-sum TreeGRU: a reset gate per child, one update gate (Kokkinos and Potamianos, 2017)."""

    def node(x, kids):
        z, r, h = torch.split(x @ p["W"] + p["b"], H)
        total, kept = zeros(H), zeros(H)
        for kid in kids:
            total = total + kid
            kept = kept + torch.sigmoid(r + kid @ p["Ur"]) * kid
        z = torch.sigmoid(z + total @ p["U"])
        return (1 - z) * total + z * torch.tanh(h + kept @ p["Uh"])

    return visit(tree, node)


def matrix_vector():
    n = 3
    W, WM = ff.param((2 * n, n), "W"), ff.param((n, 2 * n), "WM")

    def node(_, kids):
        (a, A), (b, B) = kids
        return ff.tanh(ff.concat(B @ a, A @ b) @ W), WM @ ff.concat(A, B, axis=0)

    return {"main": (ff.cata(node, leaf=lambda x: x), ff.Tree((ff.f32[n], ff.f32[n, n]), arity=2))}


def plain_matrix_vector(p, tree):
    """Socher et al., Semantic compositionality through recursive matrix-vector spaces (2012)."""

    def node(_, kids):
        (a, A), (b, B) = kids
        return torch.tanh(torch.cat((B @ a, A @ b)) @ p["W"]), p["WM"] @ torch.cat((A, B))

    return visit(tree, node, lambda x: x)


def kinds():
    W, b = ff.param((2 * H, H), "W"), ff.param((H,), "b")
    lift = ff.dense(H, name="lift")

    def number(x, kids):
        return ff.tanh(lift(x))

    def add(x, kids):
        return ff.tanh(ff.sum(kids)) + 0.1 * lift(x)

    def mul(x, kids):
        return ff.tanh(ff.concat(ff.sum(kids), lift(x)) @ W + b)

    steps = {"number": number, "add": add, "mul": mul}
    return {"main": (ff.cata(steps), ff.Tree(ff.f32[D], kinds=("number", "add", "mul")))}


def plain_kinds(p, tree):
    """A step per kind of node (the grammar of an expression)."""
    (kind, x), kids = tree
    total = sum((plain_kinds(p, kid) for kid in kids), zeros(H))
    x = dense(p, "lift", x)
    if kind == "number":
        return torch.tanh(x)
    if kind == "add":
        return torch.tanh(total) + 0.1 * x
    return torch.tanh(torch.cat((total, x)) @ p["W"] + p["b"])


def kinds_tree(rng: np.random.Generator, nodes: int) -> tuple:
    def name(tree):
        value, kids = tree
        kind = str(rng.choice(["add", "mul"])) if kids else "number"
        return (kind, value), [name(kid) for kid in kids]

    return name(any_tree(rng, nodes))


def pooled():
    W = ff.param((H, H), "W")
    lift = ff.dense(H, name="lift")

    def node(x, kids):
        return ff.tanh(lift(x) + ff.max(kids) @ W + ff.mean(kids))

    return {"main": (ff.cata(node, leaf=lift), ff.Tree(ff.f32[D]))}


def plain_pooled(p, tree):
    """The maximum and the mean of the children's results."""

    def node(x, kids):
        kids = torch.stack(kids)
        return torch.tanh(dense(p, "lift", x) + kids.amax(dim=0) @ p["W"] + kids.mean(dim=0))

    return visit(tree, node, lambda x: dense(p, "lift", x))


def attentive():
    Q = ff.param((D, H), "Q")
    lift = ff.dense(H, name="lift")

    def node(x, kids):
        weights = ff.softmax(ff.map(lambda h: ff.sum(h * (x @ Q)))(kids))
        return ff.tanh(lift(x) + ff.sum(weights * kids))

    return {"main": (ff.cata(node, leaf=lift), ff.Tree(ff.f32[D]))}


def plain_attentive(p, tree):
    """A node attends to its children."""

    def node(x, kids):
        kids = torch.stack(kids)
        return torch.tanh(dense(p, "lift", x) + torch.softmax(kids @ (x @ p["Q"]), dim=0) @ kids)

    return visit(tree, node, lambda x: dense(p, "lift", x))


def ordered():
    step = elman(H, H)
    lift = ff.dense(H, name="lift")

    def node(x, kids):  # a fold over the children, in their order
        return ff.fold(step, init=ff.tanh(lift(x)))(kids)

    return {"main": (ff.cata(node), ff.Tree(ff.f32[D]))}


def plain_ordered(p, tree):
    """An Elman net reads a node's children from left to right."""

    def node(x, kids):
        h = torch.tanh(dense(p, "lift", x))
        for kid in kids:
            h, _ = plain_elman(p, h, kid)
        return h

    return visit(tree, node)


def chained():
    step = elman(H, D)

    def node(x, kids):
        return step(ff.sum(kids), x)

    return {"main": (ff.cata(node), ff.Tree(ff.f32[D]))}


def plain_chained(p, tree):
    """A fold is what a tree of single children computes: the leaf is read first."""
    values = []
    while True:
        value, kids = tree
        values.append(value)
        if not kids:
            break
        (tree,) = kids
    return loop(partial(plain_elman, p), zeros(H), torch.stack(values[::-1]))[0]


def annotated():
    W = ff.param((D, H), "W")
    U = ff.param((H, H), "U")
    out = ff.dense(2, name="out")
    up = ff.cata(lambda x, kids: ff.tanh(x @ W + ff.sum(kids) @ U), every=True)
    return {"main": (up >> ff.map(out), ff.Tree(ff.f32[D]))}


def plain_annotated(p, tree):
    """Scores at every node, as for sentiment (Socher et al., 2013)."""
    found: list = []
    visit(tree, lambda x, kids: torch.tanh(x @ p["W"] + sum(kids, zeros(H)) @ p["U"]), None, found)
    return dense(p, "out", torch.stack(found))


def trees_of(make: Callable) -> Callable:
    return lambda rng, nodes: (make(rng, nodes),)


TREE_LSTM = {"W": (D, 3 * H), "b": (5 * H,), "U": (2 * H, 5 * H)}
LIFT = dense_shapes("lift", D, H)
ELMAN = {"W": (D, H), "U": (H, H), "b": (H,)}

PROGRAMS = (
    Program(
        "trees.tree_rnn",
        tree_rnn,
        plain_tree_rnn,
        trees_of(binary_tree),
        {**dense_shapes("emb", D, H), "W": (2 * H, H), "b": (H,)},
        lengths=(3, 1, 9),
        second=True,
    ),
    Program(
        "trees.word_tree",
        word_tree,
        plain_word_tree,
        trees_of(lambda rng, nodes: binary_tree(rng, nodes, lambda: np.asarray(rng.integers(0, 7)))),
        {"emb.weight": (7, H), "W": (2 * H, H)},
        lengths=(3, 1, 9),
    ),
    *(
        Program(
            f"trees.binary_tree_lstm{'.every' if every else ''}",
            partial(binary_tree_lstm, every),
            partial(plain_binary_tree_lstm, every),
            trees_of(binary_tree),
            TREE_LSTM,
            lengths=(3, 1, 9),
            second=True,
        )
        for every in (False, True)
    ),
    Program(
        "trees.tree_gru",
        tree_gru,
        plain_tree_gru,
        trees_of(any_tree),
        {"W": (D, 3 * H), "b": (3 * H,), "U": (H, H), "Ur": (H, H), "Uh": (H, H)},
        lengths=(2, 1, 7),
        second=True,
    ),
    Program(
        "trees.matrix_vector",
        matrix_vector,
        plain_matrix_vector,
        trees_of(lambda rng, nodes: binary_tree(rng, nodes, lambda: (floats(rng, 3), floats(rng, 3, 3)))),
        {"W": (6, 3), "WM": (3, 6)},
        lengths=(3, 1, 9),
        second=True,
    ),
    Program(
        "trees.kinds",
        kinds,
        plain_kinds,
        trees_of(kinds_tree),
        {**LIFT, "W": (2 * H, H), "b": (H,)},
        lengths=(2, 1, 9),
    ),
    Program("trees.pooled", pooled, plain_pooled, trees_of(any_tree), {**LIFT, "W": (H, H)}, lengths=(2, 1, 7)),
    Program(
        "trees.attentive", attentive, plain_attentive, trees_of(any_tree), {**LIFT, "Q": (D, H)}, lengths=(4, 1, 7)
    ),
    Program(
        "trees.ordered", ordered, plain_ordered, trees_of(any_tree), {**LIFT, **ELMAN, "W": (H, H)}, lengths=(2, 1, 7)
    ),
    Program("trees.chain", chained, plain_chained, trees_of(chain), ELMAN, lengths=(2, 1, 6), second=True),
    Program(
        "trees.annotated",
        annotated,
        plain_annotated,
        trees_of(any_tree),
        {"W": (D, H), "U": (H, H), **dense_shapes("out", H, 2)},
        lengths=(2, 1, 7),
    ),
)
