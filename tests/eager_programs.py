"""Hand-built graphs on lists for the tests of the eager evaluator: a program per combinator and nesting, ragged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from foldfuse.compiler import combinators, primitives
from foldfuse.compiler.builder import Builder
from foldfuse.compiler.combinators.segments import segment_count
from foldfuse.compiler.ir import Graph, SizeDeclaration, verify
from foldfuse.compiler.sizes import Constant, Named
from foldfuse.compiler.types import array, f64, i64

_ = (combinators, primitives)  # their records must be in the table
B, T, S, C, U = (Named(name) for name in "BTSCU")


@dataclass
class Program:
    """A graph and one call of it: arguments as nested lists of arrays, tables as nested lists of numbers."""

    graph: Graph
    arguments: list[Any]
    tables: dict[str, Any]


def graph(name: str, b: Builder, outputs: Any, sizes: Any) -> Graph:
    body, _ = b.close(list(outputs))
    names = [v.name for v in body.parameters]
    made = Graph(name, body, tuple(names), tuple(f"out_{i}" for i in range(len(body.results))), sizes)
    verify(made)
    return made


def rows(rng: Any, lengths: Any, *shape: int) -> Any:
    """Lists of random arrays, with the nesting of `lengths`."""
    if isinstance(lengths, int):
        return [rng.normal(size=shape) for _ in range(lengths)]
    return [rows(rng, n, *shape) for n in lengths]


BATCH_TIME = (SizeDeclaration("B"), SizeDeclaration("T", ("B",)))


def scan(i: Builder, size: Any, init: Any, lists: Any, step: Any, reverse: bool = False) -> Any:
    """A scan whose step is a Python function of (inner, carries, elements) → (carries, outputs)."""
    inner = Builder(i)
    carries = [inner.parameter(v.type, "h") for v in init]
    elements = [inner.parameter(v.type.element, "x") for v in lists]
    new, outputs = step(inner, carries, elements)
    body, captured = inner.close([*new, *outputs])
    attributes = {"captured": len(captured), "carries": len(init), "size": size, "reverse": reverse}
    return i.emit("scan", (*captured, *init, *lists), attributes, (body,))


def recurrent(i: Builder, W: Any, x: Any, reverse: bool = False) -> Any:
    def step(inner: Builder, carry: Any, element: Any) -> Any:
        h = inner("tanh", inner("add", inner("contract", carry[0], W, spec="i,ij->j"), element[0]))
        return [h], [inner("mul", h, element[0])]

    return scan(i, x.type.axes[0], [i.constant(0.1, f64, x.type.shape)], [x], step, reverse)


def rnn(rng: Any, lengths: Any = (4, 2, 0), reverse: bool = False) -> Program:
    b = Builder()
    W = b.parameter(array(f64, 3, 3), "W")
    xs = b.parameter(array(f64, 3).listed(B, T), "xs")
    outs = b.map(B, [xs], lambda i, x: recurrent(i, W, x, reverse))
    made = graph("rnn", b, outs, BATCH_TIME)
    return Program(
        made, [rng.normal(size=(3, 3)), rows(rng, list(lengths), 3)], {"B": len(lengths), "T": list(lengths)}
    )


def two_layers(rng: Any) -> Program:
    """A left and a right scan of one weight, over one another's outputs, and their elementwise sum."""
    b = Builder()
    W = b.parameter(array(f64, 3, 3), "W")
    xs = b.parameter(array(f64, 3).listed(B, T), "xs")

    def row(i: Builder, x: Any) -> Any:
        _, left = recurrent(i, W, x)
        last, right = recurrent(i, W, left, reverse=True)
        (both,) = i.map(T, [left, right], lambda e, p, q: [e("add", p, q)])
        return [last, i.reduce("sum", both), both]

    return Program(
        graph("two_layers", b, b.map(B, [xs], row), BATCH_TIME),
        [rng.normal(size=(3, 3)), rows(rng, [1, 5, 3], 3)],
        {"B": 3, "T": [1, 5, 3]},
    )


def attention(rng: Any) -> Program:
    """A reduction over an encoder's list in each step of a scan: softmax weights and their sum."""
    b = Builder()
    keys = b.parameter(array(f64, 3).listed(B, S), "keys")
    xs = b.parameter(array(f64, 3).listed(B, T), "xs")

    def row(i: Builder, ks: Any, x: Any) -> Any:
        def step(e: Builder, carry: Any, element: Any) -> Any:
            q = e("add", carry[0], element[0])
            (scores,) = e.map(S, [ks], lambda f, k: [f("contract", k, q, spec="i,i->")])
            top = e.reduce("max", scores)
            (weights,) = e.map(S, [scores], lambda f, s: [f("exp", f("sub", s, top))])
            total = e.reduce("sum", weights)
            (parts,) = e.map(S, [weights, ks], lambda f, w, k: [f("mul", f.broadcast(f("div", w, total), (3,)), k)])
            h = e("tanh", e("add", e.reduce("sum", parts), q))
            return [h], [h]

        return scan(i, T, [i.constant(0.0, f64, (3,))], [x], step)

    sizes = (SizeDeclaration("B"), SizeDeclaration("S", ("B",)), SizeDeclaration("T", ("B",)))
    return Program(
        graph("attention", b, b.map(B, [keys, xs], row), sizes),
        [rows(rng, [2, 4, 1], 3), rows(rng, [3, 0, 5], 3)],
        {"B": 3, "S": [2, 4, 1], "T": [3, 0, 5]},
    )


def dot_attention(rng: Any) -> Program:
    """Contractions that run over list axes."""
    b = Builder()
    keys = b.parameter(array(f64, 3).listed(B, S), "keys")
    xs = b.parameter(array(f64, 3).listed(B, T), "xs")

    def row(i: Builder, ks: Any, x: Any) -> Any:
        scores = i("contract", x, ks, spec="ti,si->ts")
        return [
            i("contract", scores, ks, spec="ts,si->ti"),
            i("contract", x, x, spec="ti,tj->ij"),
            i.reduce("sum", scores),
        ]

    sizes = (SizeDeclaration("B"), SizeDeclaration("S", ("B",)), SizeDeclaration("T", ("B",)))
    return Program(
        graph("dot_attention", b, b.map(B, [keys, xs], row), sizes),
        [rows(rng, [2, 4], 3), rows(rng, [3, 1], 3)],
        {"B": 2, "S": [2, 4], "T": [3, 1]},
    )


def characters(rng: Any) -> Program:
    """Words of characters: a fold in a map in a fold, lengths of the inner lists over (B, S)."""
    b = Builder()
    W = b.parameter(array(f64, 3, 3), "W")
    xs = b.parameter(array(f64, 3).listed(B, S, C), "xs")

    def row(i: Builder, sentence: Any) -> Any:
        (words,) = i.map(S, [sentence], lambda e, word: [recurrent(e, W, word)[0]])
        last, states = recurrent(i, W, words, reverse=True)

        def each(e: Builder, word: Any, state: Any) -> Any:
            (marked,) = e.map(C, [word], lambda f, c: [f("mul", c, state)])
            return [marked, e.length(C)]

        return [last, *i.map(S, [sentence, states], each)]

    lengths = [[2, 0, 3], [], [1]]
    sizes = (SizeDeclaration("B"), SizeDeclaration("S", ("B",)), SizeDeclaration("C", ("B", "S")))
    return Program(
        graph("characters", b, b.map(B, [xs], row), sizes),
        [rng.normal(size=(3, 3)), rows(rng, lengths, 3)],
        {"B": 3, "S": [3, 0, 1], "C": lengths},
    )


def products(rng: Any) -> Program:
    """Products of ragged lists, one of them with a zero."""
    b = Builder()
    xs = b.parameter(array(f64, 2).listed(B, T), "xs")
    outs = b.map(B, [xs], lambda i, x: [i.reduce("prod", x)])
    values = rows(rng, [3, 0, 2], 2)
    values[0][1] = np.array([0.0, 1.5])
    return Program(graph("products", b, outs, BATCH_TIME), [values], {"B": 3, "T": [3, 0, 2]})


def scanned_words(rng: Any) -> Program:
    """An inner list whose length changes from step to step of the outer scan."""
    b = Builder()
    W = b.parameter(array(f64, 3, 3), "W")
    xs = b.parameter(array(f64, 3).listed(B, S, C), "xs")

    def row(i: Builder, sentence: Any) -> Any:
        def step(e: Builder, carry: Any, element: Any) -> Any:
            last, states = recurrent(e, W, element[0])
            h = e("tanh", e("add", carry[0], e("add", last, e.reduce("sum", states))))
            return [h], [h, states]

        return scan(i, S, [i.constant(0.0, f64, (3,))], [sentence], step, reverse=True)

    lengths = [[2, 0, 3], [], [1, 4]]
    sizes = (SizeDeclaration("B"), SizeDeclaration("S", ("B",)), SizeDeclaration("C", ("B", "S")))
    return Program(
        graph("scanned_words", b, b.map(B, [xs], row), sizes),
        [rng.normal(size=(3, 3)), rows(rng, lengths, 3)],
        {"B": 3, "S": [3, 0, 2], "C": lengths},
    )


def unfold(rng: Any, bound: int | None = 6) -> Program:
    """An unfold that stops where a counter passes a limit of the row; then a map and sums over what it made."""
    b = Builder()
    W = b.parameter(array(f64, 3, 3), "W")
    limits = b.parameter(array(i64).listed(B), "limits")
    starts = b.parameter(array(f64, 3).listed(B), "starts")

    def row(i: Builder, limit: Any, start: Any) -> Any:
        inner = Builder(i)
        h, n = inner.parameter(array(f64, 3), "h"), inner.parameter(array(i64), "n")
        new = inner("tanh", inner("contract", h, W, spec="i,ij->j"))
        count = inner("add", n, inner.constant(1, i64))
        body, captured = inner.close([new, count, inner("ge", count, limit), new])
        attributes = {
            "captured": len(captured),
            "carries": 2,
            "size": U,
            "reverse": False,
            "stop": True,
            "bound": bound,
        }
        last, _, steps, made = i.emit(
            "scan", (*captured, start, i.constant(0, i64)), attributes, (body,), binds=(("U", 2),)
        )
        (squares,) = i.map(U, [made], lambda e, x: [e("mul", x, x)])
        return [last, steps, made, i.reduce("sum", squares), i.reduce("max", made)]

    inner = Builder(b)
    inputs = [inner.parameter(v.type.element, v.name) for v in (limits, starts)]
    results = [inner.use(v) for v in row(inner, *inputs)]
    body, captured = inner.close(results)
    outs = b.emit(
        "map", (*captured, limits, starts), {"size": B, "captured": len(captured)}, (body,), binds=(("U", 1),)
    )
    return Program(
        graph("unfold", b, outs, (SizeDeclaration("B"),)),
        [rng.normal(size=(3, 3)), [np.int64(n) for n in (3, 1, 5)], rows(rng, 3, 3)],
        {"B": 3},
    )


def convolution(rng: Any, padding: tuple[int, int] = (2, 1), stride: int = 2, dilation: int = 2) -> Program:
    """A one-dimensional convolution of ragged lists and a maximum over its windows."""
    b = Builder()
    W = b.parameter(array(f64, 2, 3, 4), "W")
    xs = b.parameter(array(f64, 3).listed(B, T), "xs")
    settings = dict(window=(2,), stride=(stride,), dilation=(dilation,), low=padding[:1], high=padding[1:])

    def row(i: Builder, x: Any) -> Any:
        windows = i("view", x, fill=0.5, **settings)
        size = windows.type.axes[0]
        (out,) = i.map(size, [windows], lambda e, w: [e("contract", w, W, spec="kc,kcd->d")])
        return [out, i("overlap_add", windows, sizes=(T,), **settings), i.reduce("sum", out)]

    return Program(
        graph("convolution", b, b.map(B, [xs], row), BATCH_TIME),
        [rng.normal(size=(2, 3, 4)), rows(rng, [5, 3, 6], 3)],
        {"B": 3, "T": [5, 3, 6]},
    )


def image(rng: Any) -> Program:
    """A two-dimensional window map in a scan over frames."""
    b = Builder()
    W = b.parameter(array(f64, 3, 3, 2, 2), "W")
    xs = b.parameter(array(f64, 2).listed(B, T, S, C), "xs")
    settings = dict(window=(3, 3), stride=(1, 1), dilation=(1, 1), low=(1, 1), high=(1, 1))

    def row(i: Builder, x: Any) -> Any:
        def step(e: Builder, carry: Any, element: Any) -> Any:
            windows = e("view", carry[0], fill=0.0, **settings)

            def cell(f: Builder, w: Any, p: Any) -> Any:
                return [f("tanh", f("add", f("contract", w, W, spec="klc,klcd->d"), p))]

            def line(f: Builder, ws: Any, ps: Any) -> Any:
                return f.map(C, [ws, ps], cell)

            (new,) = e.map(S, [windows, element[0]], line)
            return [new], [e.reduce("sum", new)]

        return scan(i, T, [i.filled(0.1, array(f64, 2).listed(S, C))], [x], step)

    sizes = (*BATCH_TIME, SizeDeclaration("S", ("B",)), SizeDeclaration("C", ("B",)))
    frames = [[rows(rng, [c] * s, 2) for _ in range(t)] for t, s, c in ((2, 3, 2), (3, 1, 4))]
    tables = {"B": 2, "T": [2, 3], "S": [3, 1], "C": [2, 4]}
    return Program(graph("image", b, b.map(B, [xs], row), sizes), [rng.normal(size=(3, 3, 2, 2)), frames], tables)


def segments(rng: Any) -> Program:
    """A fold written as a fold over segments."""
    b = Builder()
    W = b.parameter(array(f64, 3, 3), "W")
    xs = b.parameter(array(f64, 3).listed(B, T), "xs")
    inner = Builder(b)
    x = inner.parameter(xs.type.element, "x")
    attributes = {"size": T, "length": 2, "inner": U}
    counts, parts = inner.emit("split", (x,), attributes, binds=(("U", 0),))
    segment = segment_count(T, 2)

    def step(e: Builder, carry: Any, element: Any) -> Any:
        def small(f: Builder, c: Any, y: Any) -> Any:
            h = f("tanh", f("add", f("contract", c[0], W, spec="i,ij->j"), y[0]))
            return [h], [h]

        last, states = scan(e, U, [carry[0]], [element[0]], small)
        return [last], [states]

    last, states = scan(inner, segment, [inner.constant(0.0, f64, (3,))], [parts], step)
    joined = inner("join", states, size=T, length=2)
    body, captured = inner.close([last, joined, counts])
    outs = b.emit("map", (*captured, xs), {"size": B, "captured": len(captured)}, (body,), binds=(("U", 2),))
    return Program(
        graph("segments", b, outs, BATCH_TIME),
        [rng.normal(size=(3, 3)), rows(rng, [5, 2, 0, 3], 3)],
        {"B": 4, "T": [5, 2, 0, 3]},
    )


def lists(rng: Any) -> Program:
    """iota, length, element, scatter_element, stack, unstack, a traced reduction."""
    b = Builder()
    xs = b.parameter(array(f64, 3).listed(B, T), "xs")
    at = b.parameter(array(i64).listed(B), "at")

    def row(i: Builder, x: Any, index: Any) -> Any:
        chosen = i("element", x, index)
        put = i("scatter_element", chosen, index, size=T)
        inner = Builder(i)
        left, right = inner.parameter(array(f64, 3), "left"), inner.parameter(array(f64, 3), "right")
        body, _ = inner.close([inner("maximum", left, inner("mul", right, inner.constant(1.5, f64, (3,))))])
        attributes = {"captured": 0, "carries": 1, "size": T}
        (folded,) = i.emit("reduce_with", (i.constant(-9.0, f64, (3,)), x), attributes, (body,))
        numbers = i.iota(T)
        (scaled,) = i.map(
            T, [x, numbers], lambda e, v, n: [e("mul", v, e.broadcast(e("cast", n, dtype=f64, pinned=False), (3,)))]
        )
        pieces = i("unstack", chosen)
        (twice,) = i.map(Constant(3), [pieces], lambda e, p: [e("add", p, p)])
        return [put, folded, scaled, i("stack", twice), i.length(T), i.reduce("min", x)]

    return Program(
        graph("lists", b, b.map(B, [xs, at], row), BATCH_TIME),
        [rows(rng, [4, 1, 3], 3), [np.int64(2), np.int64(0), np.int64(1)]],
        {"B": 3, "T": [4, 1, 3]},
    )


def embedding(rng: Any) -> Program:
    """Rows of a table by ragged indices, a choice and a gather along an axis, all in a list of lists."""
    b = Builder()
    E = b.parameter(array(f64, 5, 3), "E")
    words = b.parameter(array(i64).listed(B, T), "words")

    def word(e: Builder, w: Any) -> Any:
        v = e("gather", E, w, axis=0)
        order = e("argsort", v, axis=0)
        column = e("gather", E, e("argmax", v, axis=0), axis=1)
        return [e("gather_along", v, order, axis=0), column, e("tanh", v)]

    outs = b.map(B, [words], lambda i, ws: i.map(T, [ws], word))
    indices = [[np.int64(n) for n in rng.integers(0, 5, size=k)] for k in (3, 0, 2)]
    return Program(
        graph("embedding", b, outs, BATCH_TIME), [rng.normal(size=(5, 3)), indices], {"B": 3, "T": [3, 0, 2]}
    )


def branches(rng: Any) -> Program:
    """A switch in a scan and one outside of it; a branch is only defined on the rows that take it."""
    b = Builder()
    W = b.parameter(array(f64, 3, 3), "W")
    xs = b.parameter(array(f64, 3).listed(B, T), "xs")
    kinds = b.parameter(array(i64).listed(B, T), "kinds")

    def bodies() -> Any:
        made = []
        for kind in range(3):
            e = Builder()
            w, h, x = (e.parameter(t, n) for t, n in ((W.type, "w"), (array(f64, 3), "h"), (array(f64, 3), "x")))
            if kind == 0:
                out = e("tanh", e("add", e("contract", h, w, spec="i,ij->j"), x))
            elif kind == 1:
                out = e("sin", e("mul", h, x))
            else:
                out = e("log", e("add", e("mul", x, x), e.constant(0.1, f64, (3,))))
            made.append(e.close([out])[0])
        return made

    def row(i: Builder, x: Any, kind: Any) -> Any:
        def step(e: Builder, carry: Any, element: Any) -> Any:
            (h,) = e.emit("switch", (element[1], W, carry[0], element[0]), {}, bodies())
            return [h], [h]

        last, states = scan(i, T, [i.constant(0.2, f64, (3,))], [x, kind], step)
        (mapped,) = i.map(T, [x, kind, states], lambda e, v, k, h: e.emit("switch", (k, W, h, v), {}, bodies()))
        return [last, mapped]

    lengths = [4, 0, 5, 2]
    kind_rows = [[np.int64(n) for n in rng.integers(0, 3, size=k)] for k in lengths]
    return Program(
        graph("branches", b, b.map(B, [xs, kinds], row), BATCH_TIME),
        [rng.normal(size=(3, 3)), rows(rng, lengths, 3), kind_rows],
        {"B": 4, "T": lengths},
    )


def stopping_flag_per_step(rng: Any) -> Program:
    """An unfold in each step of a scan: the executed steps differ from step to step."""
    b = Builder()
    limits = b.parameter(array(i64).listed(B, T), "limits")
    inner = Builder(b)
    limit_list = inner.parameter(limits.type.element, "limits")
    step = Builder(inner)
    h, limit = step.parameter(array(f64, 2), "h"), step.parameter(array(i64), "limit")
    body = Builder(step)
    g, n = body.parameter(array(f64, 2), "g"), body.parameter(array(i64), "n")
    new, count = body("sin", g), body("add", n, body.constant(1, i64))
    stop, captured = body.close([new, count, body("ge", count, limit), new])
    attributes = {"captured": len(captured), "carries": 2, "size": U, "reverse": False, "stop": True, "bound": None}
    start = step("add", h, step.constant(0.7, f64, (2,)))
    last, _, steps, made = step.emit(
        "scan", (*captured, start, step.constant(0, i64)), attributes, (stop,), binds=(("U", 2),)
    )
    total = step("add", last, step.reduce("sum", made))
    outer, captured = step.close([total, steps, made])
    init = inner.constant(0.3, f64, (2,))
    attributes = {"captured": len(captured), "carries": 1, "size": T, "reverse": False}
    results = inner.emit("scan", (*captured, init, limit_list), attributes, (outer,), binds=(("U", 1),))
    mapped, captured = inner.close(results)
    outs = b.emit("map", (*captured, limits), {"size": B, "captured": len(captured)}, (mapped,), binds=(("U", 1),))
    numbers = [[np.int64(n) for n in row] for row in ([2, 5, 1], [], [3, 3])]
    made = graph("stopping_flag_per_step", b, outs, BATCH_TIME)
    return Program(made, [numbers], {"B": 3, "T": [3, 0, 2]})


PROGRAMS = {
    "rnn": rnn,
    "rnn_reverse": lambda rng: rnn(rng, reverse=True),
    "rnn_equal": lambda rng: rnn(rng, (3, 3)),
    "rnn_one_step": lambda rng: rnn(rng, (1,)),
    "rnn_no_rows": lambda rng: rnn(rng, ()),
    "rnn_no_steps": lambda rng: rnn(rng, (0, 0)),
    "two_layers": two_layers,
    "attention": attention,
    "dot_attention": dot_attention,
    "characters": characters,
    "products": products,
    "scanned_words": scanned_words,
    "unfold": unfold,
    "unfold_unbounded": lambda rng: unfold(rng, None),
    "unfold_cut": lambda rng: unfold(rng, 3),
    "stopping_flag_per_step": stopping_flag_per_step,
    "convolution": convolution,
    "convolution_valid": lambda rng: convolution(rng, (0, 0), 1, 1),
    "convolution_cropped": lambda rng: convolution(rng, (-1, -1), 1, 1),
    "image": image,
    "segments": segments,
    "lists": lists,
    "embedding": embedding,
    "branches": branches,
}
