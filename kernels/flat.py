"""The flat program: a nest of maps as equations on arrays whose first dimensions are the enclosing list axes.

`map f . map g` and nests of maps disappear: an equation under maps over B and T has an output of dimensions
``(B, T, own…)``, and says for each operand which of these *levels* index it. Scans stay, each with a flat body. What
the kernels do not do yet (trees, windows, switches, lists of data-dependent length) stays as an opaque equation, which
the runtime evaluates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

import numpy as np

from ..compiler.ir import Equation, Graph, Lambda, Value, mentioned_sizes, sub_equations
from ..compiler.sizes import Named, Size, flat_size
from .elements import ELEMENTS, own_dimensions, reduced_extents, uniform_constant
from .expressions import Axis, Dimension, dimension


@dataclass(eq=False)
class Level:
    """One enclosing loop.

    Attributes:
        size: how often it runs.
        depth: how many loops are around it.
        axis: of a sequential loop, its index; None for a map, whose index is one of a kernel's rows.
    """

    size: Dimension
    depth: int
    axis: Axis | None = None


@dataclass(eq=False)
class FlatValue:
    """A value of the flat program.

    Attributes:
        name: for generated text; several values may have one.
        dtype: the IR's name of its dtype.
        dims: the extents: levels first, then its own list axes and shape.
        lead: the levels of its first dimensions.
        maker: what defines it; None for inputs, tables and carries.
        role: "input", "table", "value", "carry", "last" (a last carry), "output" (the list of a scan's outputs).
        table: of a table, its elements.
    """

    name: str
    dtype: str
    dims: tuple[Dimension, ...]
    lead: tuple[Level, ...] = ()
    maker: FlatEquation | FlatScan | FlatOpaque | None = None
    role: str = "value"
    table: np.ndarray | None = None
    height: int = 0

    def __repr__(self) -> str:
        return f"<{self.name}: {self.dtype}[{', '.join(map(str, self.dims))}]>"


@dataclass(frozen=True)
class Reference:
    """A use of a value: the levels that index its first dimensions."""

    value: FlatValue
    lead: tuple[Level, ...] = ()


@dataclass(eq=False)
class FlatEquation:
    """One equation: ``output[levels…, own…]`` as `elements` says.

    Attributes:
        equation: as it stands in the program.
        operands, output: what it takes and makes.
        reduced: the extents of the axes that it reduces over.
        loops: the sequential loops that it varies with besides its operands: a length may.
    """

    equation: Any
    operands: tuple[Reference, ...]
    output: FlatValue
    reduced: tuple[Dimension, ...] = ()
    loops: tuple[Level, ...] = ()


@dataclass(eq=False)
class FlatScan:
    """A scan over flat values.

    Attributes:
        equation: the equation that it was.
        levels: the maps around it that its carries vary with.
        level: its own loop.
        carries, initial, following: per carry its value in the step, where it starts, what the step gives for it.
        items: the step.
        last: the last carries.
        emitted, outputs: per output what the step emits and the list of it.
        reverse: whether it runs from the last element to the first.
        joined: of a scan that runs with others in one loop, the others' levels and the own ones that they are now.
    """

    equation: Any
    levels: tuple[Level, ...]
    level: Level
    carries: tuple[FlatValue, ...] = ()
    initial: tuple[Reference, ...] = ()
    following: tuple[Reference, ...] = ()
    items: tuple[Item, ...] = ()
    last: tuple[FlatValue, ...] = ()
    emitted: tuple[Reference, ...] = ()
    outputs: tuple[FlatValue, ...] = ()
    reverse: bool = False
    joined: Mapping[Level, Level] = field(default_factory=dict)


@dataclass(eq=False)
class FlatOpaque:
    """An equation that no kernel is made of, under its maps.

    Attributes:
        equation: as it stands in the program.
        operands: its inputs.
        levels: the maps around it that its outputs vary with.
        outputs: its outputs.
        reason: why, for `explain`.
    """

    equation: Equation
    operands: tuple[Reference, ...]
    levels: tuple[Level, ...]
    outputs: tuple[FlatValue, ...]
    reason: str


Item = FlatEquation | FlatScan | FlatOpaque

ARRANGED = frozenset("cast slice transpose reshape flip stop_gradient tap stack unstack".split())
"""Operations that give the elements of one operand, rounded or in another order."""


@dataclass
class FlatProgram:
    """A whole program.

    Attributes:
        graph: where it comes from.
        inputs: the graph's inputs, in order.
        items: in an order in which they can be computed.
        outputs: the graph's outputs, in order.
        over: per named list size, the names of the sizes of the lists that its lengths vary with.
        segments: per size of a segment that a `split` makes, the size of the list and the length of all segments but
            the last.
        flat: per size whose lists are stored without padding, the size that it varies with.
        inner: the sizes of segments, those too whose lengths are given with the lists.
    """

    graph: Graph
    inputs: tuple[FlatValue, ...]
    items: tuple[Item, ...]
    outputs: tuple[FlatValue, ...]
    over: Mapping[str, tuple[str, ...]]
    segments: Mapping[str, tuple[Size, int]] = field(default_factory=dict)
    flat: Mapping[str, str] = field(default_factory=dict)
    inner: frozenset[str] = frozenset()


class Unsupported(Exception):
    """A program that the kernels do not hold; the reason is for `explain`."""


def flatten(graph: Graph) -> FlatProgram:
    """The flat program of a graph.

    Raises:
        Unsupported: the graph makes lists whose length its data decides.

    Example:
        >>> [type(item).__name__ for item in flatten(compiled.forward).items]
        ['FlatEquation', 'FlatEquation', 'FlatScan']
    """
    equations = list(sub_equations(graph.body))
    segments = {e.attributes["inner"].name for e in equations if e.op == "split"}
    for equation in equations:
        if any(name not in segments for name, _ in equation.binds):
            raise Unsupported(f"{equation.op} makes lists of a length that the data decides")
    return _Flattening(graph).program()


class _Flattening:
    def __init__(self, graph: Graph):
        self.graph = graph
        self.over = {d.name: d.over for d in graph.sizes}
        self.segments: dict[str, tuple[Size, int]] = {}
        # In a step: the levels of the maps that it runs under.
        self.rows: tuple[Level, ...] = ()

    def program(self) -> FlatProgram:
        graph = self.graph
        inputs = []
        for name, value in zip(graph.input_names, graph.body.parameters, strict=True):
            flat = self.value(value, (), role="input", name=name)
            inputs.append(flat)
        table = {v: Reference(f) for v, f in zip(graph.body.parameters, inputs, strict=True)}
        items: list[Item] = []
        self.body(graph.body, table, (), items, sequential=False)
        outputs = []
        for value in graph.body.results:
            reference = table[value]
            outputs.append(reference.value)
        inner = frozenset(e.attributes["inner"].name for e in sub_equations(graph.body) if e.op == "split")
        made = tuple(over_elements(item, graph.flat) for item in items)
        return FlatProgram(graph, tuple(inputs), made, tuple(outputs), self.over, self.segments, graph.flat, inner)

    def value(
        self, value: Value, lead: Sequence[Level], maker: Any = None, role: str = "value", name: str = ""
    ) -> FlatValue:
        dims = (*(level.size for level in lead), *own_dimensions(value.type))
        return FlatValue(text_name(value.name or name), value.type.dtype.name, dims, tuple(lead), maker, role)

    # --- bodies -------------------------------------------------------------------------------------------------------

    def body(
        self,
        body: Lambda,
        table: dict[Value, Reference],
        levels: tuple[Level, ...],
        items: list[Item],
        sequential: bool,
    ) -> None:
        """Append the equations of a body; `table` says what its values are."""
        for equation in body.equations:
            if equation.op == "map":
                self.map(equation, table, levels, items, sequential)
            elif equation.op in ("scan", "reduce_with") and not equation.attributes.get("stop"):
                self.scan(equation, table, levels, items, sequential)
            elif equation.op == "length":
                self.length(equation, table, levels, items)
            elif equation.op == "split":
                self.split(equation, table, levels, items)
            elif equation.op == "constant" and uniform_constant(equation) is None:
                flat = self.value(equation.output, (), role="table")
                flat.table = np.broadcast_to(equation.attributes["value"], equation.output.type.shape)
                table[equation.output] = Reference(flat)
            elif equation.op in ELEMENTS and (equation.op == "contract" or self.takes_arrays(equation)):
                self.equation(equation, table, levels, items)
            else:
                self.opaque(equation, table, items, sequential, f"no kernels are made of {equation.op} yet")

    def takes_arrays(self, equation: Equation) -> bool:
        return equation.op != "resize" or not any(v.type.axes for v in equation.inputs)

    def together(
        self, lead: tuple[Level, ...], sizes: Iterable[Dimension], levels: tuple[Level, ...]
    ) -> tuple[Level, ...]:
        """Levels, and those of the maps that the lengths of lists of these sizes vary with."""
        over = {o for n in sizes if not isinstance(n, int) for name in n.names() for o in self.over.get(name, ())}
        found = {*lead, *(x for x in levels if x.axis is None and str(x.size) in over)}
        return tuple(sorted(found, key=lambda level: level.depth))

    def equation(
        self, equation: Equation, table: dict[Value, Reference], levels: tuple[Level, ...], items: list[Item]
    ) -> None:
        operands = tuple(table[v] for v in equation.inputs)
        reduced = tuple(reduced_extents(equation))
        lead = self.together(spatial(operands), reduced, levels)
        flat = self.value(equation.output, lead)
        flat.maker = FlatEquation(equation, operands, flat, reduced)
        flat.height = len(reduced) + max((r.value.height for r in operands), default=0)
        items.append(flat.maker)
        table[equation.output] = Reference(flat, lead)

    def split(
        self, equation: Equation, table: dict[Value, Reference], levels: tuple[Level, ...], items: list[Item]
    ) -> None:
        """A list in segments: no copy, another way to index it. The counts follow from the list's length."""
        a = equation.attributes
        name = a["inner"].name
        if name not in self.over:
            self.segments[name] = (a["size"], a["length"])
        count, *lists = equation.outputs
        length = Equation("segment_lengths", (), (count,), a)
        self.length(length, table, levels, items)
        for value, output in zip(equation.inputs, lists, strict=True):
            self.equation(Equation("split", (value,), (output,), a), table, levels, items)

    def length(
        self, equation: Equation, table: dict[Value, Reference], levels: tuple[Level, ...], items: list[Item]
    ) -> None:
        size = equation.attributes["size"]
        over = {n for name in size.names() for n in self.over.get(name, ())}
        around = [level for level in levels if str(level.size) in over]
        lead = tuple(level for level in around if level.axis is None)
        flat = self.value(equation.output, lead)
        flat.maker = FlatEquation(equation, (), flat, loops=tuple(level for level in around if level.axis is not None))
        items.append(flat.maker)
        table[equation.output] = Reference(flat, lead)

    def opaque(
        self, equation: Equation, table: dict[Value, Reference], items: list[Item], sequential: bool, reason: str
    ) -> None:
        if sequential:
            raise Unsupported(reason)
        operands = tuple(table[v] for v in equation.inputs)
        names = {n for r in operands for d in r.value.dims if not isinstance(d, int) for n in d.names()}
        if not (names | mentioned_sizes([equation])).isdisjoint(self.segments):
            raise Unsupported(f"{equation.op} runs over segments of a list: {reason}")
        lead = spatial(operands)
        maker = FlatOpaque(equation, operands, lead, (), reason)
        maker.outputs = tuple(self.value(v, lead, maker) for v in equation.outputs)
        items.append(maker)
        table.update({v: Reference(f, lead) for v, f in zip(equation.outputs, maker.outputs, strict=True)})

    def map(
        self,
        equation: Equation,
        table: dict[Value, Reference],
        levels: tuple[Level, ...],
        items: list[Item],
        sequential: bool,
    ) -> None:
        (body,), captured = equation.bodies, equation.attributes["captured"]
        level = Level(dimension(equation.attributes["size"]), len(levels))
        inner = {}
        for i, (parameter, value) in enumerate(zip(body.parameters, equation.inputs, strict=True)):
            reference = table[value]
            inner[parameter] = reference if i < captured else Reference(reference.value, (*reference.lead, level))
        self.body(body, inner, (*levels, level), items, sequential)
        for output, result in zip(equation.outputs, body.results, strict=True):
            reference = inner[result]
            if not reference.lead or reference.lead[-1] is not level:
                reference = self.repeated(output, reference, (*levels, level), items)
            table[output] = Reference(reference.value, reference.lead[:-1])

    def repeated(self, output: Value, reference: Reference, levels: tuple[Level, ...], items: list[Item]) -> Reference:
        """A value that does not vary with the innermost map, as the list of copies that the map gives."""
        level = levels[-1]
        lead = self.together((*(x for x in reference.lead if x.axis is None), level), (level.size,), levels)
        element = Value(output.type.element, output.name)
        flat = self.value(element, lead)
        flat.maker = FlatEquation(Equation("stop_gradient", (element,), (element,)), (reference,), flat)
        flat.height = reference.value.height
        items.append(flat.maker)
        return Reference(flat, lead)

    # --- scans --------------------------------------------------------------------------------------------------------

    def scan(
        self,
        equation: Equation,
        table: dict[Value, Reference],
        levels: tuple[Level, ...],
        items: list[Item],
        sequential: bool,
    ) -> None:
        segments, rows = dict(self.segments), self.rows
        try:
            made = self.flat_scan(equation, table, levels, sequential)
        except Unsupported as refusal:
            # What is evaluated as a whole cuts its lists itself.
            self.segments, self.rows = segments, rows
            self.opaque(equation, table, items, sequential, str(refusal))
            return
        items.append(made)
        for output, flat in zip(equation.outputs, (*made.last, *made.outputs), strict=True):
            table[output] = Reference(flat, made.levels)

    def flat_scan(
        self, equation: Equation, table: dict[Value, Reference], levels: tuple[Level, ...], sequential: bool
    ) -> FlatScan:
        a, (body,) = equation.attributes, equation.bodies
        captured, carries = a["captured"], a["carries"]
        first = captured + carries
        operands = [table[v] for v in equation.inputs]
        size = dimension(a["size"])
        # What a step does with a list varies with the list's length, whatever it reads of it.
        sizes = (size, *map(Named, sorted(mentioned_sizes(body.equations))))
        # A loop inside of a step runs for each row that the step runs for: what it hands on is a row's own.
        lead = self.together((*self.rows, *spatial(operands)), sizes, levels)
        around = [x.depth for x in levels if x.axis is not None]
        if around and any(x.depth > min(around) for x in lead):
            raise Unsupported("a loop runs for each element of a list inside of a step")
        level = Level(size, len(levels), Axis("t" if not sequential else "s", size, "step"))
        scan = FlatScan(equation, lead, level, reverse=a.get("reverse", False))
        inner: dict[Value, Reference] = {}
        carried = []
        for i, (parameter, reference) in enumerate(zip(body.parameters, operands, strict=True)):
            if i < captured:
                inner[parameter] = reference
            elif i < first:
                # A carry is called what the step calls its next value.
                named = Value(parameter.type, body.results[i - captured].name or parameter.name)
                carried.append(self.value(named, lead, role="carry"))
                inner[parameter] = Reference(carried[-1], lead)
            else:
                inner[parameter] = Reference(reference.value, (*reference.lead, level))
        inside: list[Item] = []
        rows, self.rows = self.rows, lead
        self.body(body, inner, (*levels, level), inside, sequential=True)
        self.rows = rows
        results = [inner[v] for v in body.results]
        scan.carries, scan.initial = tuple(carried), tuple(operands[captured:first])
        scan.following, scan.emitted = tuple(results[:carries]), tuple(results[carries:])
        scan.items = tuple(inside)
        scan.last = tuple(self.value(v, lead, scan, "last") for v in equation.outputs[:carries])
        scan.outputs = tuple(self.value(v, lead, scan, "output") for v in equation.outputs[carries:])
        return scan


def over_elements(item: Item, flat: Mapping[str, str]) -> Item:
    """An item, or, where it is a sum over the rows of sums over lists that are stored without padding, one sum over all
    of their elements: rows alone would keep few programs busy with long lists.

    Arguments:
        item: of a flat program.
        flat: per size whose lists are stored without padding, the size that it varies with.
    """
    if not _sums(item) or item.output.lead:
        return item
    inner = item.operands[0].value.maker
    if not _sums(inner) or len(inner.output.lead) != 1:
        return item
    value = inner.operands[0].value
    name = flat_size(value.dims, flat)
    if name is None or (item.reduced, inner.reduced) != (value.dims[:1], (Named(name),)):
        return item
    whole = Value(inner.equation.inputs[0].type.listed(value.dims[0]), value.name)
    equation = replace(item.equation, inputs=(whole,))
    item.output.maker = replace(item, equation=equation, operands=(Reference(value),), reduced=value.dims[:2])
    return item.output.maker


def _sums(item: object) -> TypeGuard[FlatEquation]:
    """Whether an item is a sum over a list."""
    return (
        isinstance(item, FlatEquation) and item.equation.op == "reduce" and item.equation.attributes["op"] == "sum"
    )


def text_name(hint: str) -> str:
    """A name as generated text can have it."""
    hint = "".join(c if c.isalnum() else "_" for c in hint).strip("_") or "value"
    return f"v{hint}" if hint[0].isdigit() else hint


def spatial(references: Iterable[Reference]) -> tuple[Level, ...]:
    """The levels of maps that references vary with, outermost first."""
    found = {level for reference in references for level in reference.lead if level.axis is None}
    return tuple(sorted(found, key=lambda level: level.depth))


def origin(value: FlatValue) -> FlatValue:
    """What a value is a part, a rounding or another arrangement of: of a slice of a weight, the weight."""
    while isinstance(value.maker, FlatEquation) and value.maker.equation.op in ARRANGED:
        value = value.maker.operands[0].value
    return value


def rounds(value: FlatValue) -> bool:
    """Whether a value is another one rounded to half precision."""
    maker = value.maker
    return isinstance(maker, FlatEquation) and maker.equation.op == "cast" and value.dtype in ("f16", "bf16")
