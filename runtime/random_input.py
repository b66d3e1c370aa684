"""Random arguments for an entry point: rows of different lengths, trees of different shapes, indices within range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..compiler.ir import Graph, sub_equations
from ..compiler.program import Entry, Port
from ..compiler.sizes import Named, Size
from ..compiler.types import rebuild
from .forest import Forest, forest
from .ragged import Ragged

__all__ = ["class_count", "random_arguments"]

_CLASSES = 4


def class_count(graph: Graph) -> int:
    """How many whole numbers an input may hold, so that every table that a computed index selects from has that many
    rows: the smallest such table."""
    tables = [
        equation.inputs[0].type.shape[equation.attributes["axis"]]
        for equation in sub_equations(graph.body)
        if equation.op in ("gather", "gather_along")
    ]
    return max(1, min(tables, default=_CLASSES))


def random_arguments(
    entry: Entry, rows: int, longest: int, generator: np.random.Generator, shortest: int = 1, classes: int | None = None
) -> list[Any]:
    """Random arguments in float64, float ones requiring gradients.

    Arguments:
        entry: the traced entry point.
        rows: the batch.
        longest: the length of the longest list. Lists of different sizes have different longest lengths.
        generator: where the numbers come from.
        shortest: the least length of a list.
        classes: whole numbers are below it; left out, it is `class_count`.

    Returns:
        An argument per input. Lists that may differ in length from row to row are `Ragged`; trees are a `Forest`.

    Example:
        >>> random_arguments(model.compiled_entry, 3, 7, np.random.default_rng(0))
        [Ragged(float64[3, 7, 64], lengths=[7, 2, 5])]
    """
    classes = class_count(entry.graph) if classes is None else classes
    return _Drawing(entry, rows, longest, shortest, classes, generator).arguments()


class _Drawing:
    """One draw of all the arguments of a call; see `random_arguments`."""

    def __init__(
        self, entry: Entry, rows: int, longest: int, shortest: int, classes: int, generator: np.random.Generator
    ):
        self.entry, self.rows = entry, rows
        self.longest, self.shortest, self.classes, self.generator = longest, shortest, classes, generator
        self.same: dict[str, str] = {}
        self.fixed: dict[str, Size] = {}
        for left, right, _ in entry.graph.checks:
            self._equal(left, right)
        self.extents: dict[str, int] = {}
        self.tables: dict[str, Tensor | None] = {}

    def arguments(self) -> list[Any]:
        lead = ("B",) if self.entry.batched else ()
        self.extents["B"] = self.rows
        return [self._argument(port, lead) for port in self.entry.inputs]

    # --- sizes --------------------------------------------------------------------------------------------------------

    def _equal(self, left: Size, right: Size) -> None:
        """Note that a program takes two sizes to be one."""
        if isinstance(left, Named) and isinstance(right, Named):
            first, second = self._root(left.name), self._root(right.name)
            if first != second:
                self.same[second] = first
        elif isinstance(left, Named):
            self.fixed[self._root(left.name)] = right
        elif isinstance(right, Named):
            self.fixed[self._root(right.name)] = left

    def _root(self, name: str) -> str:
        while name in self.same:
            name = self.same[name]
        return name

    def _extent(self, name: str) -> int:
        """The longest list of a size."""
        name = self._root(name)
        if name not in self.extents:
            if name in self.fixed:
                self.extents[name] = int(self.fixed[name].evaluate(self._extent))
            else:
                self.extents[name] = max(self.shortest, self.longest - (len(self.extents) - 1) % max(1, self.longest))
        return self.extents[name]

    def _table(self, axes: Sequence[str]) -> Tensor:
        """The lengths of the lists along the last axis: one per element of those in front."""
        name = self._root(axes[-1])
        shape = [self._extent(axis) for axis in axes[:-1]]
        if name not in self.tables:
            if name in self.fixed:
                known = lambda other: self.tables.get(self._root(other), self._extent(other))
                lengths = torch.as_tensor(self.fixed[name].evaluate(known)).expand(shape).clone()
            else:
                lengths = torch.as_tensor(self.generator.integers(self.shortest, self._extent(name) + 1, shape))
                lengths.view(-1)[:1] = self._extent(name)
            if len(axes) > 2:
                outer = self._table(axes[:-1])
                # Behind the end of the outer list there is nothing to have a length.
                lengths[torch.arange(shape[-1]) >= outer.unsqueeze(-1)] = 0
            self.tables[name] = lengths
        return self.tables[name]

    # --- arguments ----------------------------------------------------------------------------------------------------

    def _argument(self, port: Port, axes: tuple[str, ...], rectangular: bool = False) -> Any:
        """An argument, or a part of one under list axes.

        Arguments:
            port: its structure.
            axes: the names of the axes in front.
            rectangular: whether a grid stands around it, so that nothing in it has lengths of its own.
        """
        if port.kind == "tree":
            return self._trees(port)
        if port.kind == "list":
            return self._argument(port.parts[0], (*axes, *map(str, port.sizes)), rectangular or port.grid)
        if port.kind == "product":
            return rebuild(port.product, iter([self._argument(part, axes, rectangular) for part in port.parts]))
        data = self._leaf(port.type, [self._extent(axis) for axis in axes])
        if len(axes) < 2 or rectangular:
            return data
        return Ragged(data, [self._table(axes[: depth + 1]) for depth in range(1, len(axes))])

    def _leaf(self, type_: Any, lead: Sequence[int]) -> Tensor:
        shape = (*lead, *type_.shape)
        if type_.dtype.is_float:
            return torch.as_tensor(self.generator.normal(size=shape)).requires_grad_()
        if type_.dtype.kind == "bool":
            return torch.as_tensor(self.generator.random(shape) < 0.5)
        return torch.as_tensor(self.generator.integers(0, self.classes, shape))

    def _trees(self, port: Port) -> Forest:
        assert port.tree is not None
        parents = [self._parents(port.tree.arity) for _ in range(self.rows if self.entry.batched else 1)]
        total = sum(map(len, parents))
        kinds: dict[str, Any] = {}
        if port.tree.kinds:
            kinds = {"kinds": port.tree.kinds, "kind": self.generator.integers(0, len(port.tree.kinds), total)}
        return forest(parents=parents, values=self._node_values(port.parts[0], (total,)), **kinds)

    def _node_values(self, port: Port, lead: tuple[int, ...]) -> Any:
        if port.kind == "product":
            return rebuild(port.product, iter([self._node_values(part, lead) for part in port.parts]))
        if port.kind == "list":
            return self._node_values(port.parts[0], (*lead, *(self._extent(str(size)) for size in port.sizes)))
        return self._leaf(port.type, lead)

    def _parents(self, arity: int | None) -> np.ndarray:
        """A random tree: each node under an earlier one, or, of a fixed arity, all children given to random leaves."""
        nodes = int(self.generator.integers(1, self.longest + 1))
        if arity is None:
            return np.array([-1, *(int(self.generator.integers(0, i)) for i in range(1, nodes))])
        parents, leaves = [-1], [0]
        while arity and len(parents) < nodes:
            node = leaves.pop(int(self.generator.integers(0, len(leaves))))
            leaves += range(len(parents), len(parents) + arity)
            parents += [node] * arity
        return np.array(parents)
