"""Small graphs for the tests of the laws: a workbench to write them on, random ones, arguments for any graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from foldfuse.compiler import combinators, primitives
from foldfuse.compiler.builder import Builder
from foldfuse.compiler.ir import Graph, Lambda, SizeDeclaration, Value, map_types, sub_equations, verify
from foldfuse.compiler.sizes import Named
from foldfuse.compiler.types import ListType, array, f32, f64, i64
from foldfuse.runtime.reference import SizeTable

_ = (combinators, primitives)  # their records must be in the table
B, T, S, N, K = map(Named, "BTSNK")
WIDTH = 3


class Bench:
    """A graph under construction, all in f64; `b` is its builder."""

    def __init__(self) -> None:
        self.b = Builder()

    def array(self, *shape: int, name: str = "x") -> Value:
        return self.b.parameter(array(f64, *shape), name)

    def list(self, *shape: int, sizes: Sequence[Named] = (T,), name: str = "xs") -> Value:
        return self.b.parameter(array(f64, *shape).listed(*sizes), name)

    def indices(self, *shape: int, sizes: Sequence[Named] = (T,)) -> Value:
        return self.b.parameter(array(i64, *shape).listed(*sizes), "index")

    def graph(
        self, *results: Value, sizes: Sequence[SizeDeclaration] = (SizeDeclaration("T"), SizeDeclaration("S"))
    ) -> Graph:
        body, _ = self.b.close(results)
        names = tuple(f"{v.name}{i}" for i, v in enumerate(body.parameters))
        made = Graph("small", body, names, tuple(f"y{i}" for i in range(len(results))), tuple(sizes))
        verify(made)
        return made


def scan(
    b: Builder, init: Sequence[Value], lists: Sequence[Value], step: Callable[..., Any], **options: Any
) -> tuple[Value, ...]:
    """A scan over T whose step is ``(builder, carries, elements) -> (carries, outputs)``."""
    inner = Builder(b)
    carries = [inner.parameter(v.type, "h") for v in init]
    elements = [inner.parameter(v.type.element, "x") for v in lists]
    after, outputs = step(inner, carries, elements)
    body, captured = inner.close([*after, *outputs])
    attributes = {"captured": len(captured), "carries": len(init), "size": T, "reverse": False, **options}
    binds = ((str(attributes["size"]), len(init)),) if options.get("stop") else ()
    return b.emit("scan", (*captured, *init, *lists), attributes, (body,), binds)


def switch(
    b: Builder, index: Value, captured: Sequence[Value], branches: Sequence[Callable[..., Any]]
) -> tuple[Value, ...]:
    """A switch whose branches are ``(builder, *captured) -> results``."""
    bodies = []
    for branch in branches:
        inner = Builder()
        parameters = [inner.parameter(v.type, v.name) for v in captured]
        bodies.append(inner.close(branch(inner, *parameters))[0])
    return b.emit("switch", (index, *captured), {}, bodies)


def vector(b: Builder, number: float, width: int = WIDTH) -> Value:
    """A constant vector."""
    return b.constant(number, f64, (width,))


def cut(b: Builder, x: Value, start: int, stop: int) -> Value:
    """A slice along the last axis."""
    shape = x.type.shape
    starts = (*(0 for _ in shape[1:]), start)
    return b("slice", x, starts=starts, stops=(*shape[:-1], stop), strides=(1,) * len(shape))


# --- arguments and comparison --------------------------------------------------------------------------------------


def in_double(graph: Graph) -> Graph:
    """A graph with every f32 an f64."""
    body = map_types(graph.body, lambda t: t.with_dtype(f64) if t.dtype is f32 else t, lambda a: f64 if a is f32 else a)
    return graph.with_body(body)


def random_tables(graph: Graph, rng: np.random.Generator, least: int = 0, most: int = 4) -> dict[str, Any]:
    """A value for each declared size, of two rows and ragged otherwise."""
    tables: dict[str, Any] = {}
    over: dict[str, tuple[str, ...]] = {}

    def table(axes: Sequence[str], sizes: SizeTable) -> Any:
        if not axes:
            return int(rng.integers(least, most + 1))
        return [table(axes[1:], sizes.enter(Named(axes[0]), i)) for i in range(sizes.value(Named(axes[0])))]

    for declaration in graph.sizes:
        if declaration.input is None:
            own = 2 if declaration.name == "B" else table(declaration.over, SizeTable(tables, over))
            tables[declaration.name], over[declaration.name] = own, declaration.over
    return tables


def random_value(type_: ListType, sizes: SizeTable, rng: np.random.Generator) -> Any:
    """A random value of a type; integers are 0 or 1."""
    if type_.axes:
        count = sizes.value(type_.axes[0])
        return [random_value(type_.element, sizes.enter(type_.axes[0], i), rng) for i in range(count)]
    if type_.dtype.is_float:
        return np.asarray(0.5 * rng.standard_normal(type_.shape))
    return np.asarray(rng.integers(0, 2, type_.shape), type_.dtype.numpy)


def random_arguments(graph: Graph, rng: np.random.Generator, tables: dict[str, Any]) -> list[Any]:
    """An argument for each input."""
    sizes = SizeTable(tables, {d.name: d.over for d in graph.sizes})
    return [random_value(v.type, sizes, rng) for v in graph.body.parameters]


def random_like(value: Any, rng: np.random.Generator) -> Any:
    """Random arrays in the nesting of a value."""
    return [random_like(v, rng) for v in value] if isinstance(value, list) else rng.standard_normal(np.shape(value))


def assert_close(left: Any, right: Any, where: str = "", tolerance: float = 1e-9) -> None:
    """Two results, lists and all, are equal but for rounding."""
    if isinstance(left, list):
        assert len(left) == len(right), where
        for i, (x, y) in enumerate(zip(left, right)):
            assert_close(x, y, f"{where}[{i}]", tolerance)
    else:
        np.testing.assert_allclose(np.asarray(right), np.asarray(left), rtol=tolerance, atol=tolerance, err_msg=where)


# --- looking at graphs ---------------------------------------------------------------------------------------------


def loops(graph: Graph, *ops: str) -> list[Any]:
    """The equations of these operations, wherever they stand."""
    return [e for e in sub_equations(graph.body) if e.op in ops]


def counts(body: Lambda) -> Counter[str]:
    """How many equations of each operation there are in a body; constants do not count."""
    return Counter(e.op for e in sub_equations(body) if e.op != "constant")


def matrices(graph: Graph) -> Iterator[str]:
    """What is stored per step or summed per step with two or more axes: matrix gradients, if any."""
    for e in sub_equations(graph.body):
        values = e.outputs if e.op in ("map", "scan", "tree_up", "tree_down") else e.inputs if e.op == "reduce" else ()
        for value in values:
            if value.type.axes and sum(n > 1 for n in value.type.shape) >= 2:
                yield f"{e.op} {value.type}"


# --- random programs -------------------------------------------------------------------------------------------------


class RandomProgram:
    """A random well-typed program: maps, scans, reductions and contractions over ragged lists of vectors.

    Arguments:
        choose: ``choose(n)`` gives a number below n; the program is a function of these numbers.
    """

    def __init__(self, choose: Callable[[int], int]):
        self.choose = choose

    def pick(self, values: Sequence[Value]) -> Value:
        return values[self.choose(len(values))]

    def arrays(self, b: Builder, vectors: list[Value], matrices: Sequence[Value], steps: int) -> list[Value]:
        """Vectors computed from vectors by a few random operations."""
        vectors = list(vectors)
        for _ in range(steps):
            x, y = self.pick(vectors), self.pick(vectors)
            W = self.pick(matrices)
            kind = self.choose(12)
            if kind < 4:
                value = b(("add", "mul", "sub", "maximum")[kind], x, y)
            elif kind < 6:
                value = b(("tanh", "neg")[kind - 4], x)
            elif kind == 6:
                value = b("contract", x, W, spec="i,ij->j")
            elif kind == 7:
                both = b("concatenate", x, y, axis=0)
                tall = b("concatenate", W, W, axis=0)
                value = b("contract", both, tall, spec="i,ij->j")
            elif kind == 8:
                wide = b("contract", x, b("concatenate", W, W, axis=1), spec="i,ij->j")
                half = self.choose(2) * WIDTH
                value = b("add", cut(b, wide, half, half + WIDTH), y)
            elif kind == 9:
                value = b("contract", b("contract", x, y, spec="i,j->ij"), W, spec="ij,jk->ik")
                value = b("reduce_sum", value, axes=(0,))
            elif kind == 10:
                value = b.broadcast(b("reduce_sum", x, axes=(0,)), (WIDTH,), ())
            else:
                value = b("add" if self.choose(2) else "mul", x, vector(b, float(self.choose(3))))
            vectors.append(value)
        return vectors

    def example(self, b: Builder, xs: Value, v: Value, matrices: Sequence[Value], steps: int) -> list[Value]:
        """Lists and vectors of one example."""
        lists, vectors, big = [xs], [v], []
        for _ in range(steps):
            kind = self.choose(5)
            if kind < 2:
                chosen = [self.pick(lists) for _ in range(1 + self.choose(2))]
                lists += self.mapped(b, chosen, vectors, matrices)
            elif kind < 4:
                last, *outs = self.scanned(b, self.pick(lists), self.pick(vectors), vectors, matrices)
                vectors.append(last)
                lists += outs
            elif self.choose(3):
                vectors.append(b.reduce("sum", self.pick(lists)))
            else:
                x, y = self.pick(lists), self.pick(lists)
                (outer,) = b.map(T, [x, y], lambda i, p, q: [i("neg", i("contract", p, q, spec="i,j->ij"))])
                big.append(b.reduce("sum", outer))
        return [self.pick(lists), self.pick(vectors), *big[-1:]]

    def mapped(
        self, b: Builder, lists: Sequence[Value], vectors: Sequence[Value], matrices: Sequence[Value]
    ) -> list[Value]:
        captured = self.pick(vectors)
        count = 1 + self.choose(4)

        def body(inner: Builder, *elements: Value) -> list[Value]:
            return self.arrays(inner, [*elements, inner.use(captured)], matrices, count)[-1 - self.choose(2) :]

        return list(b.map(T, list(lists), body))

    def scanned(
        self, b: Builder, xs: Value, init: Value, vectors: Sequence[Value], matrices: Sequence[Value]
    ) -> tuple[Value, ...]:
        captured = self.pick(vectors)
        count = 1 + self.choose(5)

        def step(inner: Builder, carries: Sequence[Value], elements: Sequence[Value]) -> Any:
            found = self.arrays(inner, [*carries, *elements, inner.use(captured)], matrices, count)
            after = (
                inner("tanh", inner("add", found[-1], carries[0]))
                if self.choose(2)
                else inner("add", carries[0], found[-1])
            )
            return [after], [self.pick(found), after]

        return scan(b, [init], [xs], step, reverse=bool(self.choose(2)))

    def graph(self, steps: int = 4, ragged: bool = True) -> Graph:
        """The program under a map over the batch, in which the lists may differ in length."""
        bench = Bench()
        weights = [bench.array(WIDTH, WIDTH, name="W"), bench.array(WIDTH, WIDTH, name="U")]
        xs, v = bench.list(WIDTH, sizes=(B, T)), bench.list(WIDTH, sizes=(B,), name="v")
        outputs = bench.b.map(B, [xs, v], lambda inner, x, y: self.example(inner, x, y, weights, steps))
        return bench.graph(*outputs, sizes=(SizeDeclaration("B"), SizeDeclaration("T", ("B",) if ragged else ())))
