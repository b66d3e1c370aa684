"""What must hold of every program: the evaluators agree, before and after the laws, on values and derivatives.

All in float64, on a batch of one to three examples with lists of different lengths; what lies in padding is poisoned
where tensors are padded.
"""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from foldfuse.compiler.adjoint import Pullback, differentiate
from foldfuse.compiler.ir import Graph, verify
from foldfuse.compiler.laws import LAWS
from foldfuse.compiler.parameters import Parameter
from foldfuse.compiler.pipeline import compile_graph, normalise
from foldfuse.compiler.precision import with_precision
from foldfuse.compiler.program import trace_entry
from foldfuse.compiler.sizes import Size
from foldfuse.compiler.text import parse, show
from foldfuse.compiler.types import ListType, array, f32, f64, i64
from foldfuse.runtime import eager
from foldfuse.runtime.forest import forest
from foldfuse.runtime.reference import evaluate

from .random_terms import LONGEST, Array, Class, Grid, Length, List, Product, Program, Tree

POISON = {"float": float("nan"), "int": -1_000_003, "bool": True}
STEP = 1e-5
MEMORY = ("auto", "save", "recompute")


class NotFinite(Exception):
    """The program's values overflow: nothing can be compared."""


@dataclass(frozen=True)
class Failure:
    """A property that does not hold: its name, and what was found."""

    property: str
    detail: str

    def __str__(self) -> str:
        return f"{self.property}: {self.detail}"


# --- inputs -----------------------------------------------------------------------------------------------------------


class Inputs:
    """Random inputs of a traced program, as nested lists, with the tables of lengths.

    Arguments:
        types: the types of the arguments, as the generator made them.
        ports: the ports of the traced entry.
        generator: where numbers come from.

    Attributes:
        data: one value per data input.
        tables: per size name, its table.
    """

    def __init__(self, types: Sequence[Any], ports: Sequence[Any], generator: np.random.Generator):
        self.generator = generator
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
            heights, widths = (
                self.tables.setdefault(size.name, self.lengths(length, rows))
                for size, length in zip(port.sizes, type_.lengths, strict=True)
            )
            places = [[[None] * w for _ in range(h)] for h, w in zip(heights, widths, strict=True)]
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
        cut = lambda flat: [[np.int64(n) for n in flat[a:b]] for a, b in zip(ends[:-1], ends[1:], strict=True)]
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


def same(what: str, found: Sequence[Any], expected: Sequence[Any], types: Sequence[ListType], tolerance: float = 1e-8) -> None:
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


# --- properties -------------------------------------------------------------------------------------------------------


def compiled(program: Program) -> tuple[Any, Sequence[Any]]:
    """The program's function and the types of its inputs. The source can be found by tracebacks."""
    name = f"<random program {abs(hash(program.source))}>"
    linecache.cache[name] = (len(program.source), None, program.source.splitlines(keepends=True), name)
    namespace: dict[str, Any] = {"__name__": "random_program"}
    exec(compile(program.source, name, "exec"), namespace)
    return namespace["program"], namespace["types"]


def prepared(program: Program) -> Call:
    """A program traced in float64, with random inputs."""
    function, types = compiled(program)
    entry = trace_entry("main", function, types)
    verify(entry.graph, "tracing")
    graph = with_precision(entry.graph, f64, None, default=f32)
    verify(graph, "precision")
    generator = np.random.default_rng(program.seed)
    inputs = Inputs(program.types, entry.inputs, generator)
    owned = [
        generator.uniform(-1.0, 1.0, v.type.shape)
        for v, p in zip(graph.body.parameters, entry.parameters)
        if isinstance(p, Parameter)
    ]
    seed = [np.int64(generator.integers(0, 1000))] if entry.seeded else []
    data = [inputs.data[i] for i in range(len(inputs.data))]
    declared = {d.name for d in graph.sizes}
    tables = {name: table for name, table in inputs.tables.items() if name in declared}
    return Call(graph, [*owned, *seed, *data], tables, int(generator.integers(0, 2)))


class Checks:
    """The properties of one program.

    Arguments:
        program: the program.
        second: whether second derivatives are looked at.
        laws: whether each law is tried alone.
        only: the one property that is looked at, besides those that it builds on.
    """

    def __init__(self, program: Program, second: bool = True, laws: bool = True, only: str | None = None):
        self.program, self.second, self.laws, self.only = program, second, laws, only
        self.failures: list[Failure] = []
        self.held: list[str] = []

    def holds(self, name: str, check: Callable[[], Any]) -> Any:
        """Try a property; its result, None where it fails."""
        if self.only not in (None, name) and not name.startswith(("trace", "reference", "torch", "adjoint")):
            return None
        try:
            result = check()
        except NotFinite:
            raise
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            at = next((f for f in reversed(frames) if "random_p" not in f.filename), frames[-1])
            place = "" if isinstance(error, AssertionError) and "random_p" in frames[-1].filename else f" [{at.filename}:{at.lineno}]"
            self.failures.append(Failure(name, f"{type(error).__name__}: {str(error)[:1500]}{place}"))
            return None
        self.held.append(name)
        return True if result is None else result

    def run(self) -> list[Failure]:
        """All properties; those that do not hold.

        Raises:
            NotFinite: the program overflows.
        """
        call = self.holds("trace", lambda: prepared(self.program))
        if call is None:
            return self.failures
        values = self.holds("reference", call.reference)
        if values is None:
            return self.failures
        if not all(np.isfinite(v).all() for v, t in zip(values, call.outputs) for v in leaves(v, len(t.axes))):
            raise NotFinite
        self.holds("text", lambda: round_trip(call.graph))
        self.holds("eager", lambda: same("eager", call.eager(), values, call.outputs))
        self.rewritten(call, values, "program")
        self.derivatives(call, values)
        return self.failures

    def rewritten(self, call: Call, values: Sequence[Any], what: str) -> None:
        """The laws, together and each alone, change no value."""

        def all_laws() -> None:
            graph = normalise(call.graph)
            verify(graph, "normalise")
            made = call.with_graph(graph)
            same("reference", made.reference(), values, call.outputs)
            same("eager", made.eager(), values, call.outputs)

        self.holds(f"laws, {what}", all_laws)

        def one_law(law: Any) -> None:
            graph = normalise(call.graph, laws=(law,))
            if graph.body is not call.graph.body:
                verify(graph, law.name)
                same("reference", call.with_graph(graph).reference(), values, call.outputs)

        for law in LAWS if self.laws else ():
            self.holds(f"law {law.name}, {what}", lambda law=law: one_law(law))

    # --- derivatives --------------------------------------------------------------------------------------------------

    def derivatives(self, call: Call, values: Sequence[Any]) -> None:
        """The adjoint against torch's and against differences, before and after the laws."""
        needs = [t.dtype.is_float for t in call.inputs]
        if not any(needs) or not any(t.dtype.is_float for t in call.outputs):
            return
        generator = np.random.default_rng(self.program.seed + 1)
        draw = lambda v: generator.normal(size=np.shape(v))
        cotangents = [mapped(draw, len(t.axes), v) for v, t in zip(values, call.outputs)]
        expected = self.holds("torch gradient", lambda: torch_gradient(call, cotangents, self.second))
        for memory in MEMORY:
            adjoint = self.holds(f"adjoint ({memory})", lambda: Adjoint(call, values, cotangents, needs, memory))
            if adjoint is None:
                continue
            if expected is not None:
                self.holds(f"gradient ({memory})", lambda: adjoint.check_gradient(expected[0]))
            if memory != "auto":
                continue
            self.holds("differences", lambda: adjoint.check_differences(generator))
            for name, part, outputs in (
                ("forward", adjoint.forward, adjoint.outputs), ("backward", adjoint.backward, adjoint.gradients)
            ):
                self.holds(f"text, {name}", lambda part=part: round_trip(part.graph))
                self.holds(
                    f"eager, {name}", lambda part=part, outputs=outputs: same("eager", part.eager(), outputs, part.outputs)
                )
                self.rewritten(part, outputs, name)
            if self.second and expected is not None:
                self.holds("second derivatives", lambda: adjoint.check_second(expected[0], expected[1]))
        self.holds("pipeline", lambda: pipeline(call, values, cotangents, needs, expected and expected[0]))


def round_trip(graph: Graph) -> None:
    """Printing, parsing and printing again gives the same text."""
    text = show(graph)
    parsed = parse(text)
    verify(parsed, "parsing")
    assert show(parsed) == text, "the text changes when it is parsed and printed"


def torch_gradient(call: Call, cotangents: Sequence[Any], second: bool) -> tuple[list[Any], Any]:
    """The gradients of Σ ⟨output, cotangent⟩ by torch, per input (None for whole numbers); with `second`, what torch's
    double backward needs."""
    inputs, _ = call.tensors()
    inputs = [x.requires_grad_() if x.is_floating_point() else x for x in inputs]
    outputs = call.eager(inputs)
    given = []
    for y, ct, type_ in zip(outputs, cotangents, call.outputs, strict=True):
        if type_.dtype.is_float:
            weight = torch.nan_to_num(padded(ct, type_, y.shape[: len(type_.axes)]))
            given.append(weight.requires_grad_())
        else:
            given.append(None)
    total = sum(((y * w).sum() for y, w in zip(outputs, given) if w is not None), torch.zeros((), dtype=torch.float64))
    floats = [x for x in inputs if x.is_floating_point()]
    if total.requires_grad:
        found = iter(torch.autograd.grad(total, floats, create_graph=second, allow_unused=True))
    else:
        found = iter([None] * len(floats))
    gradients = [next(found) if x.is_floating_point() else None for x in inputs]
    filled = [torch.zeros_like(x) if g is None and x.is_floating_point() else g for g, x in zip(gradients, inputs)]
    return filled, (inputs, given)


class Adjoint:
    """The forward graph with residuals and the backward graph of a program, evaluated by the reference."""

    def __init__(self, call: Call, values: Sequence[Any], cotangents: Sequence[Any], needs: Sequence[bool], memory: str):
        self.call, self.cotangents, self.needs = call, cotangents, needs
        forward, backward, self.pullback = differentiate(call.graph, needs, memory=memory)
        verify(forward, "adjoint (forward)")
        verify(backward, "adjoint (backward)")
        self.forward = call.with_graph(forward)
        self.outputs = self.forward.reference()
        count = len(values)
        same("outputs of the forward graph", self.outputs[:count], values, call.outputs)
        self.residuals = self.outputs[count:]
        self.backward = replace(
            call,
            graph=backward,
            arguments=[
                *(call.arguments[i] for i in self.pullback.kept), *self.residuals, *(cotangents[j] for j in self.pullback.useful)
            ],
        )
        self.gradients = self.backward.reference()

    def check_gradient(self, expected: Sequence[Any]) -> None:
        """The gradients are torch's; inputs that are not reached have none."""
        check_gradients(self.call, self.pullback, self.gradients, expected)

    def check_differences(self, generator: np.random.Generator) -> None:
        """The slope along a random direction is that of central differences of the reference."""
        call = self.call
        directions = [
            mapped(lambda v: generator.normal(size=np.shape(v)), len(t.axes), v) if need else None
            for v, t, need in zip(call.arguments, call.inputs, self.needs)
        ]
        slope, size = 0.0, 0.0
        for i, gradient in zip(self.pullback.reached, self.gradients):
            depth = len(call.inputs[i].axes)
            for g, d in zip(leaves(gradient, depth), leaves(directions[i], depth), strict=True):
                slope, size = slope + float(np.sum(g * d)), size + float(np.sum(np.abs(g * d)))
        errors = []
        # A step may jump over the edge of a comparison; a smaller one does not.
        for step in (STEP, STEP / 7, STEP / 50):
            ends = [self._moved(directions, sign * step) for sign in (1, -1)]
            errors.append(abs((ends[0] - ends[1]) / (2 * step) - slope) / (1 + size))
            if errors[-1] <= 1e-6:
                return
        raise AssertionError(f"the slope is {slope}, the differences are off by {errors} of it")

    def _moved(self, directions: Sequence[Any], step: float) -> float:
        call = self.call
        arguments = [
            mapped(lambda v, e: v + step * e, len(t.axes), v, d) if d is not None else v
            for v, d, t in zip(call.arguments, directions, call.inputs)
        ]
        total = 0.0
        outputs = replace(call, arguments=arguments).reference()
        for y, ct, type_ in zip(outputs, self.cotangents, call.outputs):
            if type_.dtype.is_float:
                depth = len(type_.axes)
                total += sum(float(np.sum(a * b)) for a, b in zip(leaves(y, depth), leaves(ct, depth), strict=True))
        return total

    def check_second(self, first: Sequence[Any], graph: tuple[Any, Any]) -> None:
        """The gradients of Σ ⟨gradient, u⟩, through the backward graph and through the residuals, are torch's."""
        call, pullback, backward = self.call, self.pullback, self.backward
        generator = np.random.default_rng(17)
        u = [mapped(lambda v: generator.normal(size=np.shape(v)), len(t.axes), v) for v, t in zip(self.gradients, backward.outputs)]
        again = Adjoint(backward, self.gradients, u, [t.dtype.is_float for t in backward.inputs], "auto")
        pulled = dict(zip(again.pullback.reached, again.gradients))
        kept, residuals = len(pullback.kept), pullback.residuals
        into = [pulled.get(kept + i) for i in range(residuals)]
        zero = lambda v: np.zeros(np.shape(v))
        count = len(call.outputs)
        through = [
            mapped(zero, len(t.axes), v) if j < count or into[j - count] is None else into[j - count]
            for j, (v, t) in enumerate(zip(self.outputs, self.forward.outputs))
        ]
        chained = Adjoint(self.forward, self.outputs, through, self.needs, "auto")
        totals: dict[int, list[Any]] = {i: [] for i, need in enumerate(self.needs) if need}
        for at, i in enumerate(pullback.kept):
            if at in pulled:
                totals[i].append(pulled[at])
        for i, value in zip(chained.pullback.reached, chained.gradients):
            totals[i].append(value)
        found = [
            mapped(lambda v, *parts: np.asarray(sum(parts, np.zeros(np.shape(v)))), len(t.axes), v, *totals[i]) if need else None
            for i, (v, t, need) in enumerate(zip(call.arguments, call.inputs, self.needs))
        ]
        inputs, given = graph
        weights = {i: torch.nan_to_num(padded(w, t, x.shape[: len(t.axes)]))
                   for i, w, t, x in zip(pullback.reached, u, backward.outputs, (inputs[i] for i in pullback.reached))}
        total = sum(((first[i] * w).sum() for i, w in weights.items()), torch.zeros((), dtype=torch.float64))
        floats = [x for x in inputs if x.is_floating_point()]
        cotangents = [given[j] for j in pullback.useful]
        wanted = [*floats, *cotangents]
        expected: list[Any] = [None] * len(wanted)
        if total.requires_grad:
            expected = list(torch.autograd.grad(total, wanted, allow_unused=True))
        expected = [torch.zeros_like(x) if g is None else g for g, x in zip(expected, wanted)]
        types = [t for t, need in zip(call.inputs, self.needs) if need]
        compare_padded("by input", [f for f in found if f is not None], expected[: len(floats)], types, 1e-6)
        by_cotangent = [
            pulled.get(kept + residuals + at) or mapped(zero, len(call.outputs[j].axes), self.cotangents[j])
            if len(call.outputs[j].axes) else pulled.get(kept + residuals + at, zero(self.cotangents[j]))
            for at, j in enumerate(pullback.useful)
        ]
        compare_padded(
            "by cotangent", by_cotangent, expected[len(floats) :], [call.outputs[j] for j in pullback.useful], 1e-6
        )


def check_gradients(call: Call, pullback: Pullback, gradients: Sequence[Any], expected: Sequence[Any]) -> None:
    """Gradients of the reached inputs against torch's for all."""
    found = dict(zip(pullback.reached, gradients))
    for i, (type_, g) in enumerate(zip(call.inputs, expected)):
        if i in found:
            compare_padded(f"by {call.graph.input_names[i]}", [found[i]], [g], [type_])
        elif g is not None:
            assert not g.any(), f"{call.graph.input_names[i]} is not reached, but torch's gradient is {g.tolist()}"


def compare_padded(
    what: str, found: Sequence[Any], expected: Sequence[torch.Tensor], types: Sequence[ListType], tolerance: float = 1e-8
) -> None:
    """Nested lists against padded tensors. The gradient at padding is zero."""
    same(what, [g.detach() for g in expected], found, types, tolerance)


def pipeline(
    call: Call, values: Sequence[Any], cotangents: Sequence[Any], needs: Sequence[bool], expected: Sequence[Any] | None
) -> None:
    """The whole way from a program to optimised forward and backward graphs."""
    made = compile_graph(call.graph, needs, default=f64, check=True)
    forward = call.with_graph(made.forward)
    outputs = forward.reference()
    count = len(values)
    same("outputs", outputs[:count], values, call.outputs)
    same("outputs, eager", forward.eager(), outputs, forward.outputs)
    if made.backward is None or made.pullback is None:
        return
    pullback = made.pullback
    arguments = [*(call.arguments[i] for i in pullback.kept), *outputs[count:], *(cotangents[j] for j in pullback.useful)]
    backward = replace(call, graph=made.backward, arguments=arguments)
    gradients = backward.reference()
    same("gradients, eager", backward.eager(), gradients, backward.outputs)
    if expected is not None:
        check_gradients(call, pullback, gradients, expected)


_ = Size
