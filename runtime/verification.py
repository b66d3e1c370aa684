"""`verify`: every evaluator of a model against the oracle, values and gradients, on random inputs."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..compiler.ir import Graph, sub_equations
from ..compiler.program import Entry, Port
from ..compiler.types import rebuild
from .forest import forest
from .module import Model
from .ragged import Ragged, ragged

VALUES, GRADIENTS, DIFFERENCES = 1e-9, 1e-8, 1e-5
_STEP = 1e-5


@dataclass(frozen=True)
class Row:
    """One comparison: the largest relative error found and the largest allowed."""

    entry: str
    evaluator: str
    what: str
    error: float
    allowed: float

    @property
    def ok(self) -> bool:
        return bool(self.error <= self.allowed)


def verify(model: Model, batch: int = 3, length: int = 7, seed: int = 0) -> list[Row]:
    """Compare the evaluators of a model with the oracle.

    Arguments:
        model: a compiled model; it is not changed (a float64 copy is used, in evaluation mode).
        batch: rows of the random inputs.
        length: the longest list; rows differ in length.
        seed: of the random inputs.

    Returns:
        A `Row` per entry point, evaluator and thing compared: values of the plain torch evaluation and of the optimised
        graphs with the oracle's; the adjoint's gradients with torch's autograd through the plain evaluation, and along a
        random direction with central differences of the oracle.
    """
    model = copy.deepcopy(model).double().eval()
    rows: list[Row] = []
    for name in model.entries:
        generator = np.random.default_rng(seed)
        entry = model._entry(name).evaluation
        arguments = random_arguments(entry, batch, length, generator)
        rows += _compare(model, name, arguments, generator)
    return rows


def _compare(model: Model, name: str, arguments: Sequence[Any], generator: np.random.Generator) -> list[Row]:
    expected = _flat(model.reference(*arguments, entry=name, seed=1))
    rows = []
    results = {}
    for evaluator, run in (("plain torch", model.eager), ("optimised", model)):
        results[evaluator] = [x for x in _flat(run(*arguments, entry=name, seed=1))]
        rows.append(Row(name, evaluator, "values", _largest(results[evaluator], expected), VALUES))
    floats = [y for y in results["optimised"] if y.is_floating_point() and y.requires_grad]
    sources = [*model.parameters(), *(x for x in _flat(arguments) if x.is_floating_point())]
    if not floats or not sources:
        return rows
    weights = [torch.as_tensor(generator.normal(size=tuple(y.shape))) for y in expected]
    gradients = {}
    for evaluator, found in results.items():
        total = sum((y * w).sum() for y, w in zip(found, weights) if y.is_floating_point() and y.requires_grad)
        pulled = torch.autograd.grad(total, sources, allow_unused=True)
        gradients[evaluator] = [torch.zeros_like(x) if g is None else g for g, x in zip(pulled, sources)]
    rows.append(
        Row(name, "adjoint", "gradients (torch autograd)", _largest(gradients["optimised"], gradients["plain torch"]), GRADIENTS)
    )
    directions = [torch.as_tensor(generator.normal(size=tuple(x.shape))) for x in sources]
    slope = sum(float((g * d).sum()) for g, d in zip(gradients["optimised"], directions))
    ends = []
    for sign in (1.0, -1.0):
        with torch.no_grad():
            for x, d in zip(sources, directions):
                x.add_(d, alpha=sign * _STEP)
            found = _flat(model.reference(*arguments, entry=name, seed=1))
            for x, d in zip(sources, directions):
                x.sub_(d, alpha=sign * _STEP)
        ends.append(sum(float((y * w).sum()) for y, w in zip(found, weights) if y.is_floating_point()))
    difference = (ends[0] - ends[1]) / (2 * _STEP)
    error = abs(slope - difference) / max(1.0, abs(difference))
    rows.append(Row(name, "adjoint", "gradients (differences of the oracle)", error, DIFFERENCES))
    return rows


def _largest(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest relative error, ‖found − expected‖ / ‖expected‖; infinite where shapes or non-finite places differ."""
    largest = 0.0
    for x, y in zip(found, expected, strict=True):
        x, y = x.detach().double(), y.detach().double()
        if x.shape != y.shape or not torch.equal(torch.isfinite(x), torch.isfinite(y)):
            return float("inf")
        keep = torch.isfinite(y)
        norm = float(torch.linalg.vector_norm(y[keep]))
        largest = max(largest, float(torch.linalg.vector_norm(x[keep] - y[keep])) / max(norm, 1e-12 if norm else 1.0))
    return largest


def _flat(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, np.ndarray):
        return [torch.as_tensor(value)]
    if isinstance(value, Ragged):
        return [x for row in value.unpad() for x in _flat(row)]
    if isinstance(value, Mapping):
        return [x for part in value.values() for x in _flat(part)]
    if hasattr(value, "values") and hasattr(value, "topology"):
        return _flat(value.values)
    return [x for part in value for x in _flat(part)]


# --- random inputs ----------------------------------------------------------------------------------------------------


def class_count(graph: Graph) -> int:
    """The smallest table that a computed index selects from: random whole numbers stay below it."""
    least = 4
    found = [e.inputs[0].type.shape[e.attributes["axis"]] for e in sub_equations(graph.body) if e.op in ("gather", "gather_along")]
    return max(1, min(found)) if found else least


def random_arguments(entry: Entry, batch: int, length: int, generator: np.random.Generator) -> list[Any]:
    """Random arguments for an entry point in float64: rows of different lengths, random trees.

    Arguments:
        entry: the traced entry point.
        batch: rows.
        length: the longest list.
        generator: where the numbers come from.
    """
    maker = _Maker(entry, batch if entry.batched else None, length, generator)
    return [maker.make(port) for port in entry.inputs]


class _Maker:
    def __init__(self, entry: Entry, batch: int | None, length: int, generator: np.random.Generator):
        self.batch, self.length, self.generator = batch, length, generator
        self.classes = class_count(entry.graph)
        # Lists that a program zips have one length: all sizes that it makes equal share one draw.
        self.groups: dict[str, str] = {}
        for left, right, _ in entry.graph.checks:
            for name in left.names() | right.names():
                self.groups[name] = min(left.names() | right.names())
        self.lengths: dict[str, Any] = {}

    def leaf(self, type_: Any, lead: tuple[int, ...]) -> Tensor:
        shape = (*lead, *type_.shape)
        if type_.dtype.is_float:
            return torch.as_tensor(self.generator.normal(size=shape)).requires_grad_()
        if type_.dtype.kind == "bool":
            return torch.as_tensor(self.generator.random(shape) < 0.5)
        return torch.as_tensor(self.generator.integers(0, self.classes, shape))

    def make(self, port: Port) -> Any:
        lead = () if self.batch is None else (self.batch,)
        if port.kind == "array":
            return self.leaf(port.type, lead)
        if port.kind == "product":
            return rebuild(port.product, iter([self.make(part) for part in port.parts]))
        if port.kind == "tree":
            return self.trees(port)
        return self.list(port, lead)

    def list(self, port: Port, lead: tuple[int, ...]) -> Any:
        sizes, inner = [], port
        rectangular = port.grid or self.batch is None
        depth = 0
        while inner.kind == "list":
            sizes += list(inner.sizes)
            rectangular |= inner.grid
            depth += 1
            inner = inner.parts[0]
        lead = (*lead, *(self.length for _ in sizes))
        data = self.product(inner, lead)
        if rectangular or depth > 2:
            return data
        tables = []
        for level, size in enumerate(sizes):
            key = self.groups.get(str(size), str(size))
            if key not in self.lengths:
                drawn = self.generator.integers(1, self.length + 1, lead[: level + 1])
                drawn.flat[:1] = self.length
                self.lengths[key] = torch.as_tensor(drawn)
            tables.append(self.lengths[key])
        if len(tables) > 1:
            # Beyond a row's length there is nothing to have a length.
            alive = torch.arange(self.length) < tables[0][:, None]
            tables[1] = torch.where(alive, tables[1], 0)
        return ragged(data, *tables)

    def product(self, port: Port, lead: tuple[int, ...]) -> Any:
        if port.kind == "product":
            return rebuild(port.product, iter([self.product(part, lead) for part in port.parts]))
        return self.leaf(port.type, lead)

    def trees(self, port: Port) -> Any:
        assert port.tree is not None
        parents = [self.tree(port.tree.arity) for _ in range(self.batch or 1)]
        total = sum(map(len, parents))
        kinds = {}
        if port.tree.kinds:
            kinds = {"kinds": port.tree.kinds, "kind": self.generator.integers(0, len(port.tree.kinds), total)}
        return forest(parents=parents, values=self.product(port.parts[0], (total,)), **kinds)

    def tree(self, arity: int | None) -> np.ndarray:
        """A random tree's parents: each node under an earlier one, or, of a fixed arity, children given to random leaves."""
        if arity is None:
            return np.array([-1, *(int(self.generator.integers(0, i)) for i in range(1, self.length))])
        parents, leaves = [-1], [0]
        while arity and len(parents) + arity <= max(self.length, 1 + arity):
            node = leaves.pop(int(self.generator.integers(0, len(leaves))))
            leaves += range(len(parents), len(parents) + arity)
            parents += [node] * arity
        return np.array(parents)
