"""Programs for the laws about loops, contractions, sums and trees; they join the tables of `law_cases`."""

from __future__ import annotations

import numpy as np

from foldfuse.compiler.builder import Builder
from foldfuse.compiler.ir import SizeDeclaration
from foldfuse.compiler.pipeline import normalise
from foldfuse.compiler.types import array, bf16, f32, f64, i64

from .law_cases import W2, fires, mapped, stays, unfolding
from .law_programs import WIDTH, K, N, S, T, cut, loops, scan, switch, vector

# --- loops ------------------------------------------------------------------------------------------------------------


def recurrence(p, step, lists=1, **options):
    xs = [p.list(WIDTH, name=f"xs{i}") for i in range(lists)]
    return p.graph(*scan(p.b, [vector(p.b, 0.5)], xs, step, **options))


@fires("steady terms of a sum")
def bias_added_last(p):
    v = p.array(WIDTH)
    return recurrence(p, lambda b, c, e: ([b("tanh", b("add", b("add", e[0], c[0]), v))], []))


@stays("steady terms of a sum")
def steady_first(p):
    v = p.array(WIDTH)
    return recurrence(p, lambda b, c, e: ([b("tanh", b("add", b("add", e[0], v), c[0]))], []))


@fires("invariants out of loops")
def invariant_product(p):
    v = p.array(WIDTH)
    return recurrence(p, lambda b, c, e: ([b("tanh", b("add", c[0], b("exp", v)))], [b("mul", e[0], b("exp", v))]))


@stays("invariants out of loops")
def gather_that_may_raise(p):
    table, index = p.array(4, WIDTH), p.b.parameter(array(i64), "i")
    return mapped(p, lambda b, x: [b("add", x, b("gather", table, index, axis=0)), b("add", x, vector(b, 2.0))])


@stays("invariants out of loops")
def length_of_a_ragged_list(p):
    xs = p.list(WIDTH, sizes=(S, T))
    long = lambda b: b("cast", b.length(T), dtype=f64, pinned=False)
    (ys,) = p.b.map(S, [xs], lambda b, x: [b("mul", b("reduce_sum", b.reduce("sum", x), axes=(0,)), long(b))])
    return p.graph(ys, sizes=(SizeDeclaration("S"), SizeDeclaration("T", ("S",))))


@stays("invariants out of loops")
def invariant_in_a_branch(p):
    v, index = p.array(WIDTH), p.b.parameter(array(i64), "i")
    return p.graph(*switch(p.b, index, [v], [lambda b, v: [b("exp", v)], lambda b, v: [v]]))


@fires("input hoist")
def projected_input(p):
    W, U = p.array(WIDTH, WIDTH, name="W"), p.array(WIDTH, WIDTH, name="U")

    def step(b, c, e):
        x, h = b("contract", e[0], W, spec="i,ij->j"), b("contract", c[0], U, spec="i,ij->j")
        return [b("tanh", b("add", x, h))], [b("exp", e[0])]

    return recurrence(p, step, reverse=True)


@stays("input hoist")
def nothing_of_the_element_alone(p):
    return recurrence(p, lambda b, c, e: ([b("tanh", b("add", c[0], e[0]))], []))


@stays("input hoist")
def narrow_input(p):
    xs, W = p.list(1), p.array(1, 40, name="W")
    step = lambda b, c, e: ([b("tanh", b("add", c[0], b("contract", e[0], W, spec="i,ij->j")))], [])
    return p.graph(*scan(p.b, [vector(p.b, 0.5, 40)], [xs], step))


@stays("input hoist")
def step_that_stops_itself(p):
    return unfolding(p)


@fires("output sink")
def outer_product(p):
    def step(b, c, e):
        after = b("tanh", b("add", c[0], e[0]))
        return [after], [b("contract", c[0], after, spec="i,j->ij")]

    return recurrence(p, step)


@stays("output sink")
def matrix_carry(p):
    xs = p.list(8)

    def step(b, c, e):
        after = b("add", c[0], b("contract", e[0], e[0], spec="i,j->ij"))
        return [b("tanh", after)], [b("contract", after, e[0], spec="ij,j->i")]

    return p.graph(*scan(p.b, [p.b.constant(0.0, f64, (8, 8))], [xs], step))


@fires("a carry that is only a sum")
def accumulated_carry(p):
    xs = p.list(WIDTH)

    def step(b, c, e):
        h = b("tanh", b("add", c[0], e[0]))
        return [h, b("add", b("mul", h, e[0]), c[1])], []

    return p.graph(*scan(p.b, [vector(p.b, 0.5), vector(p.b, 1.0)], [xs], step, reverse=True))


@stays("a carry that is only a sum")
def sum_that_is_read(p):
    return recurrence(p, lambda b, c, e: ([b("add", c[0], e[0])], [c[0]]))


@stays("a carry that is only a sum")
def sum_until(p):
    return unfolding(p)


@fires("a scan without a carry is a map")
def no_carry(p):
    xs = p.list(WIDTH)
    return p.graph(*scan(p.b, [], [xs], lambda b, c, e: ([], [b("exp", e[0])]), reverse=True))


@stays("a scan without a carry is a map")
def with_a_carry(p):
    return recurrence(p, lambda b, c, e: ([b("mul", c[0], e[0])], []))


@fires("map fusion")
def chain_of_maps(p):
    xs = p.list(WIDTH)
    values = [xs]
    for _ in range(5):
        values += p.b.map(T, [values[-1]], lambda b, x: [b("tanh", x)])
    (other,) = p.b.map(T, [xs, values[2]], lambda b, x, y: [b("mul", x, y)])
    graph = p.graph(values[-1], values[2], other)
    assert len(loops(normalise(graph), "map")) == 1
    return graph


@stays("map fusion")
def list_captured_as_a_whole(p):
    xs = p.list(WIDTH)
    (ys,) = p.b.map(T, [xs], lambda b, x: [b("exp", x)])
    (zs,) = p.b.map(T, [xs], lambda b, x: [b("mul", x, b.reduce("sum", ys))])
    return p.graph(zs)


@stays("map fusion")
def scan_in_between(p):
    xs = p.list(WIDTH)
    (ys,) = p.b.map(T, [xs], lambda b, x: [b("exp", x)])
    step = lambda b, c, e: ([b("tanh", b("add", c[0], e[0]))], [c[0]])
    _, hs = scan(p.b, [vector(p.b, 0.0)], [ys], step)
    return p.graph(*p.b.map(T, [ys, hs], lambda b, y, h: [b("mul", y, h)]))


@stays("map fusion")
def other_sizes(p):
    xs, ys = p.list(WIDTH), p.list(WIDTH, sizes=(S,))
    return p.graph(*p.b.map(T, [xs], lambda b, x: [b("exp", x)]), *p.b.map(S, [ys], lambda b, x: [b("exp", x)]))


# --- contractions -----------------------------------------------------------------------------------------------------


@fires("contraction along an axis of one element")
def matrix_of_one_row(p):
    """What ``(x[:, None, :] @ U)[:, 0, :]`` is, a product for each head; on the right too, and through casts."""
    U, V = p.array(2, 3, 4, name="U"), p.array(4, 3, name="V")

    def body(b, x):
        heads = b("reshape", b("slice", x, starts=(0,), stops=(2,), strides=(1,)), shape=(2, 1))
        x = b("concatenate", heads, heads, heads, axis=1)
        row = b("cast", b("reshape", x, shape=(2, 1, 3)), dtype=f64, pinned=True)
        product = b("reshape", b("contract", row, U, spec="aik,akj->aij"), shape=(2, 4))
        column = b("reshape", b("reduce_sum", x, axes=(0,)), shape=(3, 1, 1))
        return [product, b("reshape", b("contract", V, column, spec="jk,kio->oji"), shape=(4,))]

    return mapped(p, body)


@stays("contraction along an axis of one element")
def matrices_of_one_row(p):
    """Both have the axis, it was there before, the reshapes do more than to add and to take it away, or it is read."""
    W = p.array(1, 1, WIDTH, name="W")

    def body(b, x):
        row = b("reshape", x, shape=(1, WIDTH))
        both = b("contract", row, row, spec="ik,ik->i")
        before = b("contract", W, x, spec="ijk,k->ij")
        split = b("reshape", b("concatenate", x, x, axis=0), shape=(WIDTH, 2, 1))
        other = b("reshape", b("contract", split, x, spec="kjo,k->jo"), shape=(1, 2))
        read = b("contract", row, b("add", x, x), spec="ik,k->i")
        single = [b("reshape", value, shape=()) for value in (both, before, read)]
        return [*single, other, b("tanh", read)]

    return mapped(p, body)


@fires("contraction of a concatenation")
def joined_carry_and_element(p):
    W = p.array(W2, WIDTH, name="W")

    def step(b, c, e):
        joined = b("concatenate", c[0], e[0], axis=0)
        return [b("tanh", b("contract", joined, W, spec="i,ij->j"))], [b("contract", W, joined, spec="ij,i->j")]

    return recurrence(p, step)


@fires("contraction of a concatenation")
def joined_with_a_captured_value(p):
    W, v = p.array(W2, WIDTH, name="W"), p.array(WIDTH)
    return mapped(p, lambda b, x: [b("contract", b("concatenate", x, v, axis=0), W, spec="i,ij->j")])


@stays("contraction of a concatenation")
def joined_elements_of_a_map(p):
    W, ys = p.array(W2, WIDTH, name="W"), p.list(WIDTH, name="ys")
    return mapped(p, lambda b, x, y: [b("contract", b("concatenate", x, y, axis=0), W, spec="i,ij->j")], ys)


@stays("contraction of a concatenation")
def joined_along_the_free_axis(p):
    W = p.array(WIDTH, WIDTH, name="W")

    def step(b, c, e):
        wide = b("contract", c[0], b("concatenate", W, W, axis=1), spec="i,ij->j")
        return [b("tanh", b("add", cut(b, wide, 0, WIDTH), e[0]))], []

    return recurrence(p, step)


def packed(p, read):
    """A step with a packed contraction, of which `read` makes the next carry."""
    U, v = p.array(WIDTH, W2, name="U"), p.array(W2, name="b")

    def step(b, c, e):
        gates = b("add", b("contract", c[0], U, spec="i,ij->j"), v)
        return [b("tanh", b("add", read(b, gates), e[0]))], []

    return recurrence(p, step)


@fires("slice of a contraction")
def packed_gates(p):
    return packed(p, lambda b, g: b("mul", b("sigmoid", cut(b, g, 0, WIDTH)), cut(b, g, WIDTH, W2)))


@stays("slice of a contraction")
def whole_axis_is_needed(p):
    mean = lambda b, g: b.broadcast(b("reduce_sum", g, axes=(0,)), (WIDTH,), ())
    return packed(p, lambda b, g: b("mul", b("sub", cut(b, g, 0, WIDTH), mean(b, g)), cut(b, g, WIDTH, W2)))


@stays("slice of a contraction")
def overlapping_slices(p):
    return packed(p, lambda b, g: b("mul", cut(b, g, 0, WIDTH), cut(b, g, 1, WIDTH + 1)))


@stays("slice of a contraction")
def packed_outside_of_a_loop(p):
    W = p.array(WIDTH, W2, name="W")

    def body(b, x):
        wide = b("contract", x, W, spec="i,ij->j")
        return [cut(b, wide, 0, WIDTH), cut(b, wide, WIDTH, W2)]

    return mapped(p, body)


@fires("contractions side by side")
def parts_of_a_gradient(p):
    xs, ys, zs = p.list(WIDTH), p.list(WIDTH, name="ys"), p.list(2, name="zs")
    parts = [p.b("contract", xs, v, spec="ti,tj->ij") for v in (ys, zs)]
    return p.graph(p.b("concatenate", *parts, axis=1))


@stays("contractions side by side")
def other_operands(p):
    xs, ys = p.list(WIDTH), p.list(WIDTH, name="ys")
    return p.graph(p.b("concatenate", *(p.b("contract", v, v, spec="ti,tj->ij") for v in (xs, ys)), axis=1))


@fires("contraction under a map")
def batched_contraction(p):
    xs, W = p.list(WIDTH), p.array(WIDTH, 4, name="W")
    both = p.b("contract", xs, W, spec="ti,ij->tj")
    return p.graph(both, p.b("contract", xs, xs, spec="ti,ti->t"))


@stays("contraction under a map")
def kept_inner_axis(p):
    xs, v = p.list(WIDTH, sizes=(T, S)), p.list(WIDTH, name="v")
    return p.graph(p.b("contract", xs, v, spec="tsi,ti->s"))


# --- sums -------------------------------------------------------------------------------------------------------------


def summed(p, body, *lists):
    """The sum over T of a map."""
    (values,) = p.b.map(T, list(lists), body)
    return p.graph(p.b.reduce("sum", values))


@fires("accumulator sink")
def sum_of_outer_products(p):
    outer = lambda b, x, y: b("contract", x, y, spec="i,j->ij")
    return summed(
        p, lambda b, x, y: [b("neg", b("transpose", outer(b, x, y), permutation=(1, 0)))], p.list(3), p.list(4)
    )


@fires("accumulator sink")
def sum_of_projections(p):
    W, v = p.array(WIDTH, 4, name="W"), p.array(4)
    return summed(p, lambda b, x: [b("mul", b("contract", x, W, spec="i,ij->j"), v)], p.list(WIDTH))


@fires("accumulator sink")
def sum_of_scaled_rows(p):
    scale = lambda b, a, x: [b("mul", b.broadcast(a, (WIDTH,), ()), x)]
    return summed(p, scale, p.list(), p.list(WIDTH))


@fires("accumulator sink")
def sum_of_joined_parts(p):
    def body(b, x, y):
        outer = b("contract", x, y, spec="i,j->ij")
        dot = b("reduce_sum", b("mul", x, y), axes=(0,))
        return [
            b(
                "concatenate",
                outer,
                b("pad", b.broadcast(dot, (1, WIDTH), ()), low=(0, 0), high=(1, 0), interior=(0, 0)),
                axis=0,
            )
        ]

    return summed(p, body, p.list(WIDTH), p.list(WIDTH))


@fires("accumulator sink")
def sum_of_rows_of_a_table(p):
    index = p.indices()
    return summed(p, lambda b, x, i: [b("scatter_add", x, i, axis=0, size=5)], p.list(WIDTH), index)


@fires("accumulator sink")
def sum_through_an_inner_map(p):
    xs, v = p.list(WIDTH, sizes=(T, S)), p.list(WIDTH, name="v")
    U = p.array(WIDTH, 2, name="U")

    def body(b, x, y):
        inner = lambda i, e: [
            i("contract", i("mul", e, i.use(y)), U, spec="i,ij->j"),
            i("reduce_sum", i("mul", e, y), axes=(0,)),
        ]
        return b.map(S, [x], inner)

    first, second = p.b.map(T, [xs, v], body)
    return p.graph(p.b.reduce("sum", first), p.b.reduce("sum", second))


@fires("accumulator sink")
def nested_sums(p):
    xs, ys = p.list(WIDTH, sizes=(S, T)), p.list(WIDTH, sizes=(S, T), name="ys")
    outer = lambda i, x, y: [i("contract", x, y, spec="i,j->ij")]

    def body(b, x, y):
        (products,) = b.map(T, [x, y], outer)
        return [b.reduce("sum", products)]

    (sums,) = p.b.map(S, [xs, ys], body)
    graph = p.graph(p.b.reduce("sum", sums), sizes=(SizeDeclaration("S"), SizeDeclaration("T", ("S",))))
    assert [e.op for e in normalise(graph).body.equations] == ["contract"]
    return graph


@stays("accumulator sink")
def sum_of_elementwise(p):
    return summed(p, lambda b, x, y: [b("exp", b("mul", x, y))], p.list(WIDTH), p.list(WIDTH))


@stays("accumulator sink")
def list_read_elsewhere(p):
    outer = lambda b, x, y: [b("contract", x, y, spec="i,j->ij")]
    (values,) = p.b.map(T, [p.list(3), p.list(4)], outer)
    return p.graph(p.b.reduce("sum", values), values)


@stays("accumulator sink")
def sum_in_sixteen_bits(p):
    xs, W = p.b.parameter(array(bf16, 3).listed(T), "xs"), p.b.parameter(array(bf16, 3, 4), "W")
    (values,) = p.b.map(T, [xs], lambda b, x: [b("contract", x, W, spec="i,ij->j", dtype=f32)])
    return p.graph(p.b.reduce("sum", values))


@stays("accumulator sink")
def greatest_instead_of_sum(p):
    (values,) = p.b.map(T, [p.list(3), p.list(4)], lambda b, x, y: [b("contract", x, y, spec="i,j->ij")])
    return p.graph(p.b.reduce("max", values))


# --- trees ------------------------------------------------------------------------------------------------------------

TREE_SIZES = (SizeDeclaration("N"), SizeDeclaration("K", ("N",)))
TREE = {"N": 5, "K": [2, 2, 0, 0, 0]}
TABLES = [[np.int64(v) for v in row] for row in ([-1, 0, 0, 1, 1], [0, 0, 1, 0, 1], [2, 1, 0, 0, 0])]


def tree(p, node, emitted):
    """A tree_up over N whose `node` is ``(builder, x, kids, index) -> (result, *own outputs)``."""
    tables = [p.b.parameter(array(i64).listed(N), name) for name in ("parent", "slot", "height")]
    xs, kinds = p.list(WIDTH, sizes=(N,)), p.b.parameter(array(i64).listed(N), "kind")
    inner = Builder(p.b)
    x, kind = inner.parameter(array(f64, WIDTH), "x"), inner.parameter(array(i64), "kind")
    kids = inner.parameter(array(f64, WIDTH).listed(K), "kids")
    body, outer = inner.close(node(inner, x, kids, kind))
    a = {"captured": len(outer), "own": 2, "states": 1, "emitted": emitted, "size": N, "arity": K}
    return p.b.emit("tree_up", (*tables, *outer, xs, kinds), a, (body,))


def sum_of_kids(b, x, kids):
    return b("tanh", b("add", x, b.reduce("sum", kids)))


@fires("contraction out of a switch")
def product_in_a_branch(p):
    def node(b, x, kids, kind):
        h = sum_of_kids(b, x, kids)
        none = lambda i, x, h: [i("neg", h), i.constant(0.0, f64, (W2, WIDTH))]

        def some(i, x, h):
            outer = i("contract", x, i("tanh", h), spec="i,j->ij")
            return [h, i("concatenate", outer, i("contract", h, x, spec="i,j->ij"), axis=0)]

        return switch(b, kind, [x, h], [none, some])

    _, products = tree(p, node, 1)
    return p.graph(p.b.reduce("sum", products), sizes=TREE_SIZES)


@stays("contraction out of a switch")
def product_that_feeds_the_carry(p):
    def node(b, x, kids, kind):
        h = sum_of_kids(b, x, kids)
        first = lambda i, x, h: [i("contract", x, h, spec="i,j->ij")]
        (outer,) = switch(b, kind, [x, h], [first, lambda i, x, h: [i.constant(0.0, f64, (WIDTH, WIDTH))]])
        return [b("contract", h, outer, spec="i,ij->j")]

    return p.graph(*tree(p, node, 0), sizes=TREE_SIZES)


@fires("sum over nodes of a sum over children")
def product_of_children(p):
    def node(b, x, kids, kind):
        (terms,) = b.map(K, [kids], lambda i, k: [i("tanh", i("add", k, x))])
        return [sum_of_kids(b, x, kids), b("neg", b("contract", kids, terms, spec="ki,kj->ij"))]

    _, products = tree(p, node, 1)
    return p.graph(p.b.reduce("sum", products), sizes=TREE_SIZES)


@stays("sum over nodes of a sum over children")
def product_of_children_per_node(p):
    def node(b, x, kids, kind):
        return [sum_of_kids(b, x, kids), b("contract", kids, kids, spec="ki,kj->ij")]

    return p.graph(*tree(p, node, 1), sizes=TREE_SIZES)


@fires("output sink")
def outer_product_of_a_node(p):
    def node(b, x, kids, kind):
        h = sum_of_kids(b, x, kids)
        return [h, b("contract", h, x, spec="i,j->ij")]

    return p.graph(*tree(p, node, 1), sizes=TREE_SIZES)


@fires("input hoist")
def projection_of_a_node(p):
    W = p.array(WIDTH, WIDTH, name="W")
    node = lambda b, x, kids, kind: [sum_of_kids(b, b("contract", x, W, spec="i,ij->j"), kids)]
    return p.graph(*tree(p, node, 0), sizes=TREE_SIZES)
