"""Random inputs of a program, and graphs called with them: nested lists for the reference, padded tensors for torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from foldfuse.compiler.ir import Graph, sub_equations
from foldfuse.compiler.sizes import Named
from foldfuse.compiler.types import ListType, array, i64
from foldfuse.runtime import eager
from foldfuse.runtime.forest import forest
from foldfuse.runtime.reference import evaluate

from .random_terms import LONGEST, Array, Class, Grid, Length, List, Product, Tree

POISON = {"float": float("nan"), "int": -1_000_003, "bool": True}


# --- inputs -----------------------------------------------------------------------------------------------------------


class Inputs:
    """Random inputs of a traced program, as nested lists, with the tables of lengths.

    Arguments:
        types: the types of the arguments, as the generator made them.
        ports: the ports of the traced entry.
        fixed: names of sizes that are the same in every example.
        generator: where numbers come from.

    Attributes:
        data: one value per data input.
        tables: per size name, its table.
    """

    def __init__(
        self, types: Sequence[Any], ports: Sequence[Any], fixed: Collection[str], generator: np.random.Generator
    ):
        self.fixed, self.generator = fixed, generator
        self.batch = int(generator.integers(1, 4))
        self.tables: dict[str, Any] = {"B": self.batch}
        self.known: dict[Length, Any] = {}
        self.data: dict[int, Any] = {}
        for type_, port in zip(types, ports, strict=True):
            self.draw(type_, port, [None] * self.batch)

    def each(self, rows: Any, make: Callable[[Any], Any]) -> Any:
        """A value in place of each leaf of nested lists."""
        return [self.each(row, make) for row in rows] if isinstance(rows, list) else make(rows)

    def lengths(self, length: Length, rows: Any) -> Any:
        """The table of a length; one and the same for all lists of it."""
        if length not in self.known:
            low = length.least
            self.known[length] = self.each(rows, lambda _: int(self.generator.integers(low, max(low, LONGEST) + 1)))
        return self.known[length]

    def draw(self, type_: Any, port: Any, rows: Any) -> None:
        """Values of a type for every place in nested lists."""
        if isinstance(type_, Array):
            self.data[port.leaf] = self.each(rows, lambda _: self.generator.uniform(-1.5, 1.5, type_.shape))
        elif isinstance(type_, Class):
            self.data[port.leaf] = self.each(rows, lambda _: self.generator.integers(0, type_.count))
        elif isinstance(type_, Product):
            for part, own in zip(type_.parts, port.parts, strict=True):
                self.draw(part, own, rows)
        elif isinstance(type_, List):
            table = self.tables[port.sizes[0].name] = self.lengths(type_.length, rows)
            self.draw(type_.element, port.parts[0], self.each(table, lambda n: [None] * n))
        elif isinstance(type_, Grid):
            extents = []
            for size, length in zip(port.sizes, type_.lengths, strict=True):
                table = self.lengths(length, rows)
                fixed = size.name in self.fixed
                extents.append([table[0]] * len(table) if fixed else table)
                self.tables[size.name] = table[0] if fixed else table
            places = [[[None] * w for _ in range(h)] for h, w in zip(*extents, strict=True)]
            self.draw(type_.element, port.parts[0], places)
        else:
            self.trees(type_, port)

    def trees(self, type_: Tree, port: Any) -> None:
        """A random tree in each row."""
        parents = [self.parents(type_.arity) for _ in range(self.batch)]
        total = sum(map(len, parents))
        kind = self.generator.integers(0, len(type_.kinds), total) if type_.kinds else None
        kinds = {"kinds": type_.kinds, "kind": kind} if type_.kinds else {}
        trees = forest(parents=[np.array(p) for p in parents], values=np.zeros(total), **kinds)
        ends = np.cumsum([0, *trees.sizes])
        cut = lambda flat: [[np.int64(n) for n in flat[a:b]] for a, b in pairwise(ends)]
        nodes, arity = port.sizes
        self.tables[nodes.name] = [int(n) for n in trees.sizes]
        self.tables[arity.name] = [[int(n) for n in row] for row in cut(trees.arity)]
        leaves = [cut(trees.parent), cut(trees.slot), cut(trees.height), [np.int64(r) for r in trees.root]]
        leaves += [cut(trees.kind)] if type_.kinds else []
        self.data.update({port.leaf + i: leaf for i, leaf in enumerate(leaves)})
        self.draw(type_.element, port.parts[0], [[None] * int(n) for n in trees.sizes])

    def parents(self, arity: int | None) -> list[int]:
        """The parents of a random tree's nodes, the root's -1."""
        if arity is None:
            return [-1, *(int(self.generator.integers(0, i)) for i in range(1, int(self.generator.integers(1, 6))))]
        parents, leaves = [-1], [0]
        for _ in range(int(self.generator.integers(0, 3))):
            node = leaves.pop(int(self.generator.integers(0, len(leaves))))
            leaves += range(len(parents), len(parents) + arity)
            parents += [node] * arity
        return parents


# --- between nested lists and padded tensors --------------------------------------------------------------------------


def measured(value: Any, depth: int) -> list[int]:
    """The largest extents of nested lists."""
    if not depth:
        return []
    inner = [measured(v, depth - 1) for v in value]
    return [len(value), *(max(column) for column in zip(*inner, strict=True))] if inner else [0] * depth


def padded(value: Any, type_: ListType, extents: Sequence[int]) -> torch.Tensor:
    """Nested lists as a tensor whose padding is poisoned."""
    out = np.full((*extents, *type_.shape), POISON[type_.dtype.kind], type_.dtype.numpy)

    def fill(nested: Any, at: tuple[int, ...]) -> None:
        if len(at) == len(type_.axes):
            out[at] = nested
        else:
            for i, part in enumerate(nested):
                fill(part, (*at, i))

    fill(value, ())
    return torch.from_numpy(out)


def mapped(function: Callable[..., Any], depth: int, *values: Any) -> Any:
    """A function of the arrays in nested lists."""
    if not depth:
        return function(*values)
    return [mapped(function, depth - 1, *parts) for parts in zip(*values, strict=True)]


def leaves(value: Any, depth: int) -> Iterator[Any]:
    """The arrays in nested lists."""
    if depth:
        for part in value:
            yield from leaves(part, depth - 1)
    else:
        yield value


def most(graph: Graph, name: str) -> int | None:
    """The largest value of a size that an equation makes, where it is known before the call."""
    for equation in sub_equations(graph.body):
        a = equation.attributes
        if equation.op == "split" and a["inner"] == Named(name):
            return a["length"]
        if equation.op == "scan" and a.get("stop") and a["size"] == Named(name):
            return a["bound"]
    return None


@dataclass
class Call:
    """A graph with its arguments.

    Attributes:
        graph: a program or an adjoint.
        arguments: a value per input, nested lists of arrays.
        tables: per declared size that no input holds, its table.
        extra: how much padding there is beyond the longest list.
    """

    graph: Graph
    arguments: Sequence[Any]
    tables: Mapping[str, Any]
    extra: int = 0

    @property
    def inputs(self) -> list[ListType]:
        return [v.type for v in self.graph.body.parameters]

    @property
    def outputs(self) -> list[ListType]:
        return [v.type for v in self.graph.body.results]

    def reference(self) -> list[Any]:
        """The outputs as the reference evaluator gives them."""
        return list(evaluate(self.graph, self.arguments, dict(self.tables)))

    def extents(self) -> dict[str, int]:
        """How far lists are padded, per declared size."""
        extents: dict[str, int] = {}
        for declared in self.graph.sizes:
            depth = len(declared.over)
            table = self.tables[declared.name] if declared.input is None else self.arguments[declared.input]
            found = [int(n) for n in leaves(table, depth)]
            extents[declared.name] = max(found, default=0) + (self.extra if depth else 0)
            if declared.input is not None:
                # The graph makes the size too, and pads what it makes to the most that there can be.
                extents[declared.name] = most(self.graph, declared.name) or extents[declared.name]
        return extents

    def tensors(self) -> tuple[list[torch.Tensor], dict[str, Any]]:
        """The arguments and tables as padded tensors."""
        extents = self.extents()
        extent = lambda size: int(size.evaluate(extents.__getitem__))
        inputs = [
            padded(value, type_, [extent(size) for size in type_.axes])
            for value, type_ in zip(self.arguments, self.inputs, strict=True)
        ]
        tables: dict[str, Any] = {}
        for declared in self.graph.sizes:
            if declared.input is None:
                depth, table = len(declared.over), self.tables[declared.name]
                shape = [extents[name] if name in extents else None for name in declared.over]
                tables[declared.name] = padded(table, array(i64).listed(*[None] * depth), shape) if depth else table
        return inputs, tables

    def eager(self, inputs: Sequence[torch.Tensor] | None = None) -> list[torch.Tensor]:
        """The outputs as the torch evaluator gives them, padded."""
        made, tables = self.tensors()
        return eager.run(self.graph, made if inputs is None else inputs, tables, maxima=self.extents())

    def with_graph(self, graph: Graph) -> Call:
        return replace(self, graph=graph)


# --- comparisons ------------------------------------------------------------------------------------------------------


def same(
    what: str, found: Sequence[Any], expected: Sequence[Any], types: Sequence[ListType], tolerance: float = 1e-8
) -> None:
    """Nested lists (or padded tensors) hold the values of nested lists; padding is zero."""
    assert len(found) == len(expected), f"{what}: {len(found)} values for {len(expected)}"
    for i, (x, y, type_) in enumerate(zip(found, expected, types, strict=True)):
        _same(f"{what}, value {i} ({type_})", x, y, len(type_.axes), tolerance)


def _same(what: str, found: Any, expected: Any, depth: int, tolerance: float) -> None:
    if depth:
        tensor = isinstance(found, torch.Tensor)
        assert len(found) == len(expected) or (tensor and len(found) > len(expected)), (
            f"{what}: {len(found)} elements in place of {len(expected)}"
        )
        for x, y in zip(found, expected):
            _same(what, x, y, depth - 1, tolerance)
        assert not tensor or not found[len(expected) :].any(), f"{what}: the padding is not zero"
        return
    x = found.detach().numpy() if isinstance(found, torch.Tensor) else np.asarray(found)
    y = np.asarray(expected)
    assert x.shape == y.shape, f"{what}: shape {x.shape} in place of {y.shape}"
    if y.dtype.kind != "f":
        assert np.array_equal(x, y), f"{what}: {x.tolist()} in place of {y.tolist()}"
        return
    error = np.abs(x - y) / (1 + np.abs(y))
    assert x.size == 0 or error.max() <= tolerance, (
        f"{what}: off by {error.max():.2e}\nfound    {x.tolist()}\nexpected {y.tolist()}"
    )
