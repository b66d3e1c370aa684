"""Graphs built by hand, one for each construct of the IR, and what tests compare them by."""

from __future__ import annotations

import math

import numpy as np

from foldfuse.compiler import combinators, primitives
from foldfuse.compiler.adjoint import differentiate
from foldfuse.compiler.builder import Builder
from foldfuse.compiler.ir import Graph, SizeDeclaration, verify
from foldfuse.compiler.sizes import Constant, Named, Quotient
from foldfuse.compiler.types import array, f32, f64, i64

_ = (combinators, primitives)  # their records must be in the table
B, T, N, K, M = map(Named, "BTNKM")


def graph(name, b, results, outputs, sizes, checks=()):
    body, _ = b.close(results)
    made = Graph(name, body, tuple(v.name for v in body.parameters), tuple(outputs), tuple(sizes), tuple(checks))
    verify(made)
    return made


def rnn():
    """A recurrent network over ragged lists: a scan under a map."""
    b = Builder()
    W, xs = b.parameter(array(f64, 3, 3), "W"), b.parameter(array(f64, 3).listed(B, T), "xs")

    def example(outer, x):
        step = Builder(outer)
        h, e = step.parameter(array(f64, 3), "h"), step.parameter(array(f64, 3), "x")
        (after,) = step.emit("tanh", [step("add", step("contract", h, W, spec="i,ij->j"), e)], names=["h"])
        body, captured = step.close([after, after])
        attributes = {"captured": len(captured), "carries": 1, "size": T, "reverse": False}
        return outer.emit(
            "scan", (*captured, outer.constant(0.0, f64, (3,)), x), attributes, (body,), names=["last", "hs"]
        )

    return graph(
        "rnn", b, b.map(B, [xs], example), ("last", "hs"), (SizeDeclaration("B"), SizeDeclaration("T", ("B",)))
    )


def generator():
    """An unfold that stops itself: its counts bind a size, per row of the batch."""
    b = Builder()
    starts = b.parameter(array(f64).listed(B), "start")
    example = Builder(b)
    start = example.parameter(array(f64), "start")
    step = Builder(example)
    h = step.parameter(array(f64), "h")
    after = step("mul", h, step.constant(2.0, f64))
    body, _ = step.close([after, step("gt", after, step.constant(9.0, f64)), after])
    unfold = {"captured": 0, "carries": 1, "size": T, "reverse": False, "stop": True, "bound": 7}
    made = example.emit("scan", [start], unfold, (body,), (("T", 1),), ["last", "count", "ys"])
    body, _ = example.close(made)
    made = b.emit("map", [starts], {"size": B, "captured": 0}, (body,), (("T", 1),), ["last", "count", "ys"])
    return graph("generator", b, [made[0], made[2]], ("last", "ys"), (SizeDeclaration("B"),))


def tree():
    """A tree network with a sum over its children."""
    b = Builder()
    tables = [b.parameter(array(i64).listed(N), name) for name in ("parent", "slot", "height")]
    U, xs = b.parameter(array(f64, 2, 2), "U"), b.parameter(array(f64, 2).listed(N), "values")
    node = Builder(b)
    captured = node.use(U)
    x, kids = node.parameter(array(f64, 2), "x"), node.parameter(array(f64, 2).listed(K), "kids")
    total = node("contract", node.reduce("sum", kids), captured, spec="i,ij->j")
    body, outer = node.close([node("tanh", node("add", x, total))])
    attributes = {"captured": 1, "own": 1, "states": 1, "emitted": 0, "size": N, "arity": K}
    made = b.emit("tree_up", (*tables, *outer, xs), attributes, (body,), names=["every"])
    return graph("tree", b, made, ("every",), (SizeDeclaration("N"), SizeDeclaration("K", ("N",))))


def windows():
    """Windows of a grid, a step per kind of window, and segments of a list."""
    b = Builder()
    image, kind = b.parameter(array(f64, 2).listed(M, M.plus(1)), "image"), b.parameter(array(i64), "kind")
    both = {"window": (2, 3), "stride": (1, 2), "dilation": (1, 1), "low": (0, 1), "high": (0, 1), "fill": -math.inf}
    view = b("view", image, **both)
    first, second = view.type.axes

    def row(outer, windows):
        def column(inner, window):
            branches = []
            for op in ("neg", "abs"):
                branch = Builder()
                w = branch.parameter(window.type, "w")
                branches.append(branch.close([branch(op, w)])[0])
            (chosen,) = inner.emit("switch", (kind, window), {}, branches)
            return [inner("reduce_max", chosen, axes=(0, 1))]

        return outer.map(second, [windows], column)

    (pooled,) = b.map(first, [view], row)
    counts, segments = b.emit("split", [pooled], {"size": first, "length": 2, "inner": Named("S")}, (), (("S", 0),))
    joined = b("join", segments, size=first, length=2)
    checks = ((M.plus(1), Quotient(M, 2, 1).quotient(-1, 1), "two sizes"),)
    return graph(
        "windows", b, [pooled, counts, joined], ("pooled", "counts", "joined"), (SizeDeclaration("M"),), checks
    )


def odd():
    """Names, sizes and attributes that a printer may stumble over."""
    b = Builder()
    sizes = [Named(name) for name in ("f32", "a size", "None", "over", "x.y", 'it\'s "|]"', "size", "s0")]
    values = [b.parameter(array(f32).listed(size), f"layers.{i}.W") for i, size in enumerate(sizes)]
    values += [
        b.parameter(array(f32), name)
        for name in ("h", "h", "h.1", "", "", "0", "as", "%", "é", "a\nb", "'", '"', "\\", "\ud83d\ude00")
    ]
    taps = np.array([1.5, -0.0, math.nan, math.inf, 1e-300, 0.1])
    for value in (
        taps,
        np.arange(100, dtype=np.int32).reshape(4, 25),
        np.array([True, False]),
        np.zeros((0, 3), np.float16),
    ):
        values.append(b.constant(value, f64))
    values += [b("iota", size=size) for size in (*sizes, Constant(4), Quotient(Constant(4), 1, 2))]
    body, _ = b.close(values)
    names = tuple(v.name for v in body.parameters)
    declared = tuple(SizeDeclaration(size.name, ("(f32//2)", "B")[:i], i or None) for i, size in enumerate(sizes))
    checks = ((sizes[0], Quotient(sizes[1], 0, 1), "zip of\n'xs'"),)
    return Graph(
        "odd name",
        body,
        (*names[:-2], "in[0].h", "a b"),
        tuple(f"out {i}" for i in range(len(values))),
        declared,
        checks,
    )


def adjoints(program):
    forward, backward, _ = differentiate(program, [v.type.dtype.is_float for v in program.body.parameters])
    return forward, backward


PROGRAMS = {made.name: made for make in (rnn, generator, tree, windows) for made in (make(),)}
GRAPHS = dict(PROGRAMS)
for name, program in PROGRAMS.items():
    GRAPHS[f"{name}_forward"], GRAPHS[f"{name}_adjoint"] = adjoints(program)
GRAPHS["rnn_second"] = adjoints(GRAPHS["rnn_adjoint"])[1]
GRAPHS["odd"] = odd()

ARGUMENTS = {
    "rnn": ([np.eye(3) / 2, [np.ones((4, 3)), np.ones((0, 3)), np.full((2, 3), 0.3)]], {"B": 3, "T": [4, 0, 2]}),
    "generator": ([[np.float64(x) for x in (1, 5, 0)]], {"B": 3}),
    "tree": ([[2, 2, -1], [0, 1, 0], [0, 0, 1], np.eye(2), np.arange(6.0).reshape(3, 2)], {"N": 3, "K": [0, 0, 2]}),
    "windows": ([np.arange(40.0).reshape(4, 5, 2), np.int64(1)], {"M": 4}),
}


def same(left, right):
    """Whether two values are equal, types and bits included; of NaN there is one."""
    if isinstance(left, np.ndarray):
        if type(right) is not np.ndarray or left.dtype != right.dtype or left.shape != right.shape:
            return False
        numbers = left == left
        return np.array_equal(numbers, right == right) and left[numbers].tobytes() == right[numbers].tobytes()
    if isinstance(left, (tuple, list)):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and (left == right or repr(left) == repr(right))


def same_lambda(left, right):
    def numbered(body):
        table = {v: i for i, v in enumerate((*body.parameters, *(v for e in body.equations for v in e.outputs)))}
        values = [(v.type, v.name) for v in table]
        uses = [table[v] for e in body.equations for v in e.inputs], [table[v] for v in body.results]
        shape = [(e.op, len(e.inputs), len(e.outputs), e.binds) for e in body.equations]
        return values, uses, shape, len(body.parameters)

    def equation(a, b):
        attributes = a.attributes.keys() == b.attributes.keys() and all(
            same(a.attributes[k], b.attributes[k]) for k in a.attributes
        )
        return attributes and len(a.bodies) == len(b.bodies) and all(map(same_lambda, a.bodies, b.bodies))

    return numbered(left) == numbered(right) and all(map(equation, left.equations, right.equations))
