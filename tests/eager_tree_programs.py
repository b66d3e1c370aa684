"""Hand-built graphs on trees for the tests of the eager evaluator, each with a forest of trees of several sizes."""

from __future__ import annotations

from typing import Any

import numpy as np

from foldfuse.compiler.builder import Builder
from foldfuse.compiler.ir import SizeDeclaration
from foldfuse.compiler.sizes import Named
from foldfuse.compiler.types import array, f64, i64

from .eager_programs import B, Program, graph, rows

N, K = Named("N"), Named("K")


def tables_of(parents: list[int]) -> tuple[list[int], list[int], list[int]]:
    """Slots, heights and arities of a tree in any order of its nodes."""
    slot, arity, height = [0] * len(parents), [0] * len(parents), [0] * len(parents)
    for node, parent in enumerate(parents):
        if parent >= 0:
            slot[node] = arity[parent]
            arity[parent] += 1
    for node in range(len(parents)):
        at, h = node, 0
        while parents[at] >= 0:
            at, h = parents[at], h + 1
            height[at] = max(height[at], h)
    return slot, height, arity


def random_tree(rng: Any, nodes: int, spread: int = 4) -> list[int]:
    """Parents of a random tree, its nodes in random order."""
    order = rng.permutation(nodes)
    parents = [-1] * nodes
    for i in range(1, nodes):
        parents[order[i]] = int(order[max(0, i - 1 - int(rng.integers(0, spread)))])
    return parents


def tree(rng: Any, forests: list[list[int]] | None = None, kinds: bool = False) -> Program:
    """A child-sum cell with gates per child; every node's result, and the sum over the nodes."""
    if forests is None:
        forests = [random_tree(rng, 7), [-1], [-1, 0, 0, 0], [], [1, 2, -1]]
    b = Builder()
    W = b.parameter(array(f64, 2, 2), "W")
    tables = [b.parameter(array(i64).listed(B, N), name) for name in ("parent", "slot", "height")]
    xs = b.parameter(array(f64, 2).listed(B, N), "xs")

    def node(i: Builder) -> Any:
        inner = Builder(i)
        x, kids = inner.parameter(array(f64, 2), "x"), inner.parameter(array(f64, 2).listed(K), "kids")
        (gated,) = inner.map(
            K,
            [kids],
            lambda e, k: [e("mul", k, e("sigmoid", e("add", x, e("contract", k, W, spec="i,ij->j"))))],
        )
        if not kinds:
            result = inner("tanh", inner("add", x, inner.reduce("sum", gated)))
        else:
            leaf, inside = Builder(), Builder()
            p = leaf.parameter(array(f64, 2)), leaf.parameter(gated.type)
            q = inside.parameter(array(f64, 2)), inside.parameter(gated.type)
            bodies = (
                leaf.close([leaf("sin", p[0])])[0],
                inside.close([inside("add", q[0], inside.reduce("max", q[1]))])[0],
            )
            some = inner("gt", inner.length(K), inner.constant(0, i64))
            (result,) = inner.emit("switch", (inner("cast", some, dtype=i64, pinned=False), x, gated), {}, bodies)
        return inner.close([result, inner("mul", result, x)])

    def row(i: Builder, parent: Any, slot: Any, height: Any, x: Any) -> Any:
        body, captured = node(i)
        attributes = {"captured": len(captured), "own": 1, "states": 1, "emitted": 1, "size": N, "arity": K}
        # The builder puts captured values first, as the body has them.
        states, emitted = i.emit("tree_up", (parent, slot, height, *captured, x), attributes, (body,))
        return [states, i.reduce("sum", emitted)]

    outs = b.map(B, [*tables, xs], row)
    sizes = (SizeDeclaration("B"), SizeDeclaration("N", ("B",)), SizeDeclaration("K", ("B", "N")))
    columns = [tables_of(parents) for parents in forests]
    numbers = lambda lists: [[np.int64(n) for n in column] for column in lists]
    counts = [len(parents) for parents in forests]
    return Program(
        graph("tree", b, outs, sizes),
        [
            rng.normal(size=(2, 2)),
            numbers(forests),
            numbers([c[0] for c in columns]),
            numbers([c[1] for c in columns]),
            rows(rng, counts, 2),
        ],
        {"B": len(forests), "N": counts, "K": [c[2] for c in columns]},
    )


def one_tree(rng: Any) -> Program:
    """One tree without a batch, shared by a map over rows that scale its elements."""
    b = Builder()
    tables = [b.parameter(array(i64).listed(N), name) for name in ("parent", "slot", "height")]
    xs = b.parameter(array(f64, 2).listed(N), "xs")
    scales = b.parameter(array(f64, 2).listed(B), "scales")

    def run(i: Builder, scale: Any) -> Any:
        inner = Builder(i)
        x, kids = inner.parameter(array(f64, 2), "x"), inner.parameter(array(f64, 2).listed(K), "kids")
        result = inner(
            "tanh", inner("add", inner("mul", x, scale) if scale is not None else x, inner.reduce("sum", kids))
        )
        body, captured = inner.close([result])
        attributes = {"captured": len(captured), "own": 1, "states": 1, "emitted": 0, "size": N, "arity": K}
        return i.emit("tree_up", (*tables, *captured, xs), attributes, (body,))

    outs = (*run(b, None), *b.map(B, [scales], run))
    parents = random_tree(rng, 6)
    slot, height, arity = tables_of(parents)
    numbers = lambda values: [np.int64(n) for n in values]
    sizes = (SizeDeclaration("B"), SizeDeclaration("N"), SizeDeclaration("K", ("N",)))
    return Program(
        graph("one_tree", b, outs, sizes),
        [numbers(parents), numbers(slot), numbers(height), rows(rng, 6, 2), rows(rng, 3, 2)],
        {"B": 3, "N": 6, "K": arity},
    )


def downward(rng: Any) -> Program:
    """A state handed from the root to the leaves, each child by its place; own and kid lists and outputs."""
    forests = [random_tree(rng, 6), [-1], [], [-1, 0, 0, 2]]
    b = Builder()
    W = b.parameter(array(f64, 2, 2), "W")
    tables = [b.parameter(array(i64).listed(B, N), name) for name in ("parent", "slot", "height")]
    xs = b.parameter(array(f64, 2).listed(B, N), "xs")
    roots = b.parameter(array(f64, 2).listed(B), "roots")

    def row(i: Builder, parent: Any, slot: Any, height: Any, x: Any, root: Any) -> Any:
        inner = Builder(i)
        state, own = inner.parameter(array(f64, 2), "state"), inner.parameter(array(f64, 2), "own")
        kids = inner.parameter(array(f64, 2).listed(K), "kids")
        mixed = inner("tanh", inner("add", own, inner("contract", state, W, spec="i,ij->j")))
        (handed,) = inner.map(K, [kids], lambda e, k: [e("add", k, mixed)])
        (out,) = inner.map(K, [kids], lambda e, k: [e("mul", k, state)])
        body, captured = inner.close([handed, mixed, out])
        attributes = {"captured": len(captured), "own": 1, "states": 1, "emitted": 1, "size": N, "arity": K}
        return i.emit("tree_down", (parent, slot, height, *captured, root, x, x), attributes, (body,))

    outs = b.map(B, [*tables, xs, roots], row)
    sizes = (SizeDeclaration("B"), SizeDeclaration("N", ("B",)), SizeDeclaration("K", ("B", "N")))
    columns = [tables_of(parents) for parents in forests]
    numbers = lambda lists: [[np.int64(n) for n in column] for column in lists]
    counts = [len(parents) for parents in forests]
    return Program(
        graph("downward", b, outs, sizes),
        [
            rng.normal(size=(2, 2)),
            numbers(forests),
            numbers([c[0] for c in columns]),
            numbers([c[1] for c in columns]),
            rows(rng, counts, 2),
            rows(rng, len(forests), 2),
        ],
        {"B": len(forests), "N": counts, "K": [c[2] for c in columns]},
    )


TREE_PROGRAMS = {
    "tree": tree,
    "tree_kinds": lambda rng: tree(rng, kinds=True),
    "tree_chain": lambda rng: tree(rng, [[*range(1, 30), -1], [*range(1, 12), -1]]),
    "tree_star": lambda rng: tree(rng, [[-1] + [0] * 9, [-1, 0]]),
    "tree_empty": lambda rng: tree(rng, [[], []]),
    "one_tree": one_tree,
    "downward": downward,
}
