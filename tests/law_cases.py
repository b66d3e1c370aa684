"""Programs on which a law fires, and programs on which it must not: what `test_laws` tries."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from foldfuse.compiler.builder import Builder
from foldfuse.compiler.ir import Graph
from foldfuse.compiler.types import bf16, f64, i64

from .law_programs import WIDTH, Bench, T, cut, scan, switch, vector

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
