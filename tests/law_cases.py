"""Programs on which a law fires, and programs on which it must not: what `test_laws` tries."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from foldfuse.compiler.builder import Builder
from foldfuse.compiler.ir import Graph, SizeDeclaration
from foldfuse.compiler.pipeline import normalise
from foldfuse.compiler.types import array, bf16, f32, f64, i64

from .law_programs import WIDTH, Bench, K, N, S, T, cut, loops, scan, switch, vector

Program = Callable[[Bench], Graph]
POSITIVE: dict[str, list[Program]] = {}
NEGATIVE: dict[str, list[Program]] = {}
W2 = 2 * WIDTH


def fires(name: str) -> Callable[[Program], Program]:
    return lambda program: POSITIVE.setdefault(name, []).append(program) or program


def stays(name: str) -> Callable[[Program], Program]:
    return lambda program: NEGATIVE.setdefault(name, []).append(program) or program


# --- single equations -------------------------------------------------------------------------------------------------


def mapped(p: Bench, body, *extra) -> Graph:
    """A graph that maps a body over xs."""
    xs = p.list(WIDTH)
    return p.graph(*p.b.map(T, [xs, *extra], body))


@fires("neutral element")
def adding_zero(p):
    return mapped(p, lambda b, x: [b("mul", b("add", vector(b, 0.0), x), vector(b, 1.0)), b("sub", vector(b, 0.0), x)])


@stays("neutral element")
def multiplying_by_zero(p):
    return mapped(p, lambda b, x: [b("mul", x, vector(b, 0.0)), b("div", vector(b, 1.0), x)])


@fires("signs")
def double_negation(p):
    return mapped(p, lambda b, x: [b("neg", b("neg", x)), b("add", b("neg", x), x), b("sub", x, b("neg", x))])


@stays("signs")
def negated_product(p):
    return mapped(p, lambda b, x: [b("mul", b("neg", x), x)])


@fires("identity")
def copies_to_itself(p):
    return mapped(
        p,
        lambda b, x: [
            b("reshape", x, shape=(WIDTH,)),
            b("transpose", x, permutation=(0,)),
            cut(b, x, 0, WIDTH),
            b("cast", x, dtype=f64, pinned=False),
            b("select", b("gt", x, vector(b, 0.0)), x, x),
        ],
    )


@stays("identity")
def pinned_cast(p):
    return mapped(p, lambda b, x: [b("cast", x, dtype=f64, pinned=True), b("flip", x, axes=(0,))])


@fires("inverse pair")
def there_and_back(p):
    return mapped(
        p,
        lambda b, x: [
            b("reshape", b("reshape", x, shape=(WIDTH, 1)), shape=(1, WIDTH)),
            b("flip", b("flip", x, axes=(0,)), axes=(0,)),
            b("stack", b("unstack", x)),
        ],
    )


@stays("inverse pair")
def flips_of_two_axes(p):
    x = p.array(2, 3)
    return p.graph(p.b("flip", p.b("flip", x, axes=(0,)), axes=(1,)))


@fires("a constant of equal elements")
def zeros_as_array(p):
    return mapped(p, lambda b, x: [b("add", x, b("constant", value=np.zeros(WIDTH), dtype=f64, shape=(WIDTH,)))])


@stays("a constant of equal elements")
def unequal_or_signed_zeros(p):
    some = [np.arange(3.0), np.array([0.0, -0.0, 0.0]), np.array([np.nan, np.nan, np.nan])]
    return mapped(p, lambda b, x: [b("constant", value=v, dtype=f64, shape=(WIDTH,)) for v in some])


@fires("copies of a constant")
def broadcast_constant(p):
    return mapped(p, lambda b, x: [b("mul", x, b("neg", b.broadcast(b.constant(2.0, f64), (WIDTH,), ())))])


@stays("copies of a constant")
def rounded_constant(p):
    return mapped(p, lambda b, x: [b("cast", vector(b, 0.1), dtype=bf16, pinned=False), b("exp", vector(b, 2.0))])


@fires("broadcast of a broadcast")
def two_broadcasts(p):
    return mapped(p, lambda b, x: [b.broadcast(b.broadcast(x, (2, WIDTH)), (4, 2, WIDTH))])


@stays("broadcast of a broadcast")
def one_broadcast(p):
    return mapped(p, lambda b, x: [b.broadcast(x, (2, WIDTH))])


@fires("slice of a copy")
def slices(p):
    def body(b, x):
        both = b("concatenate", x, b("neg", x), axis=0)
        padded = b("pad", x, low=(1,), high=(2,), interior=(0,))
        return [
            cut(b, cut(b, both, 1, 5), 0, 2),
            cut(b, both, 3, 5),
            cut(b, padded, 1, 3),
            cut(b, b.broadcast(x, (2, 3)), 1, 2),
        ]

    return mapped(p, body)


@stays("slice of a copy")
def slice_across_parts(p):
    def body(b, x):
        both = b("concatenate", x, b("neg", x), axis=0)
        padded = b("pad", x, low=(1,), high=(2,), interior=(0,))
        return [cut(b, both, 1, 5), cut(b, padded, 0, 3), cut(b, b("tanh", x), 0, 1)]

    return mapped(p, body)


@fires("sum of padded parts")
def parts_of_a_packed_value(p):
    def body(b, x):
        left = b("pad", x, low=(0,), high=(WIDTH,), interior=(0,))
        return [b("add", b("pad", b("neg", x), low=(WIDTH,), high=(0,), interior=(0,)), left)]

    return mapped(p, body)


@stays("sum of padded parts")
def overlapping_parts(p):
    def body(b, x):
        left = b("pad", x, low=(0,), high=(2,), interior=(0,))
        return [b("add", b("pad", x, low=(2,), high=(0,), interior=(0,)), left), b("sub", left, left)]

    return mapped(p, body)


@fires("concatenation of a concatenation")
def nested_joins(p):
    return mapped(p, lambda b, x: [b("concatenate", b("concatenate", x, x, axis=0), x, axis=0)])


@stays("concatenation of a concatenation")
def joins_of_two_axes(p):
    x = p.array(2, 3)
    return p.graph(p.b("concatenate", p.b("concatenate", x, x, axis=0), p.b("concatenate", x, x, axis=0), axis=1))


@fires("contraction of a transpose")
def transposed_weight(p):
    W = p.array(4, WIDTH, name="W")
    return mapped(p, lambda b, x: [b("contract", x, b("transpose", W, permutation=(1, 0)), spec="i,ij->j")])


@stays("contraction of a transpose")
def transposed_result(p):
    W = p.array(WIDTH, 4, name="W")
    outer = lambda b, x: b("contract", x, b("contract", x, W, spec="i,ij->j"), spec="i,j->ij")
    return mapped(p, lambda b, x: [b("transpose", outer(b, x), permutation=(1, 0))])


# --- sharing and dead code --------------------------------------------------------------------------------------------


@fires("common subexpressions")
def twice_the_same(p):
    xs = p.list(WIDTH)
    double = lambda b, x: [b("tanh", b("add", x, b("neg", x)))]
    swapped = lambda b, x: [b("tanh", b("add", b("neg", x), x))]
    return p.graph(*p.b.map(T, [xs], double), *p.b.map(T, [xs], double), *p.b.map(T, [xs], swapped))


@stays("common subexpressions")
def almost_the_same(p):
    return mapped(p, lambda b, x: [b("mul", x, vector(b, 0.0)), b("mul", x, vector(b, -0.0)), b("exp", x)])


@fires("dead code")
def dead_carry_and_output(p):
    xs = p.list(WIDTH)

    def step(b, carries, elements):
        h, unused = carries
        return [b("tanh", b("add", h, elements[0])), b("exp", unused)], [b("neg", h)]

    last, _, _ = scan(p.b, [vector(p.b, 0.5), vector(p.b, 0.1)], [xs, xs], step)
    p.b("exp", last)
    return p.graph(last)


@fires("dead code")
def dead_switch_output(p):
    x = p.array(WIDTH)
    index = p.b("cast", p.b("gt", p.b("reduce_sum", x, axes=(0,)), p.b.constant(0.0, f64)), dtype=i64, pinned=False)
    first, _ = switch(
        p.b, index, [x, vector(p.b, 2.0)], [lambda b, x, y: [b("neg", x), y], lambda b, x, y: [x, b("mul", x, y)]]
    )
    return p.graph(first)


@stays("dead code")
def carry_that_feeds_another(p):
    xs = p.list(WIDTH)
    step = lambda b, c, e: ([b("add", c[0], c[1]), b("mul", c[1], e[0])], [])
    return p.graph(scan(p.b, [vector(p.b, 0.5), vector(p.b, 0.1)], [xs], step)[0])


@stays("dead code")
def size_that_a_type_names(p):
    return unfolding(p)


def unfolding(p):
    """Numbers until one passes a bound: a scan whose count binds a size."""
    start = p.array()

    def step(b, carries, _):
        after = b("add", carries[0], b.constant(1.0, f64))
        return [after], [b("gt", after, b.constant(3.0, f64)), after]

    _, _, numbers = scan(p.b, [start], [], step, stop=True, bound=8)
    return p.graph(numbers, sizes=())


@fires("one parameter for one input")
def one_list_twice(p):
    xs, v = p.list(WIDTH), p.array(WIDTH)
    inner = Builder()
    types = [v.type, v.type, xs.type.element, xs.type.element]
    a, c, x, y = (inner.parameter(t) for t in types)
    body, _ = inner.close([inner("add", inner("mul", a, x), inner("sub", c, y))])
    return p.graph(*p.b.emit("map", [v, v, xs, xs], {"size": T, "captured": 2}, (body,)))


@stays("one parameter for one input")
def two_lists(p):
    xs, ys = p.list(WIDTH), p.list(WIDTH, name="ys")
    return p.graph(*p.b.map(T, [xs, ys], lambda b, x, y: [b("add", x, y)]))


@fires("one output for one value")
def one_value_twice(p):
    xs = p.list(WIDTH)

    def step(b, c, e):
        after = b("tanh", b("add", c[0], e[0]))
        return [after], [after, after]

    return p.graph(*scan(p.b, [vector(p.b, 0.0)], [xs], step))


@stays("one output for one value")
def before_and_after(p):
    xs = p.list(WIDTH)

    def step(b, c, e):
        after = b("tanh", b("add", c[0], e[0]))
        return [after], [after, c[0]]

    return p.graph(*scan(p.b, [vector(p.b, 0.0)], [xs], step))


@fires("handed on unchanged")
def constant_carry(p):
    xs, v = p.list(WIDTH), p.array(WIDTH)
    step = lambda b, c, e: ([b("tanh", b("add", c[0], c[1])), c[1]], [e[0], c[1], b("neg", c[0])])
    return p.graph(*scan(p.b, [vector(p.b, 0.5), v], [xs], step, reverse=True))


@fires("handed on unchanged")
def identity_map(p):
    return mapped(p, lambda b, x: [x, b("neg", x)])


@stays("handed on unchanged")
def swapped_carries(p):
    xs = p.list(WIDTH)
    step = lambda b, c, e: ([c[1], c[0]], [b("mul", c[0], e[0])])
    return p.graph(*scan(p.b, [vector(p.b, 0.5), vector(p.b, 0.1)], [xs], step))


@fires("a list that repeats one value")
def repeated_list(p):
    xs, v = p.list(WIDTH), p.array(WIDTH)
    copies, zeros = p.b.repeat(v, T), p.b.filled(0.5, xs.type)
    step = lambda b, c, e: ([b("tanh", b("add", b("add", c[0], e[2]), b("mul", e[0], e[1])))], [c[0]])
    return p.graph(*scan(p.b, [vector(p.b, 0.5)], [xs, copies, zeros], step))


@stays("a list that repeats one value")
def list_of_its_own(p):
    xs = p.list(WIDTH)
    (ys,) = p.b.map(T, [xs], lambda b, x: [b("neg", x)])
    step = lambda b, c, e: ([b("tanh", b("add", c[0], e[0]))], [])
    return p.graph(*scan(p.b, [vector(p.b, 0.5)], [ys], step))


@fires("constants stand where they are used")
def captured_constant(p):
    one = vector(p.b, 1.0)
    return mapped(p, lambda b, x: [b("mul", x, one)])


@stays("constants stand where they are used")
def captured_array(p):
    table = p.b.constant(np.arange(3.0), f64)
    return mapped(p, lambda b, x: [b("mul", x, table)])


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
