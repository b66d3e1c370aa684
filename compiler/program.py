"""From an expression and the types of its inputs to a graph: what `ff.compile` traces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from . import types
from .errors import FoldfuseError, StructureError, TreeError
from .expression import call, show_function
from .ir import Equation, Graph, Lambda, SizeDeclaration, Value, live_equations, map_sizes, verify
from .parameters import Parameter
from .scope import Program, Scope
from .sizes import Constant, Named, Size
from .trace import leaves, traced, with_leaves
from .types import DType, array, f32, i64
from .values import NamedProduct, TracedArray, TracedList, TracedTree, type_of


@dataclass(eq=False)
class Entry:
    """One entry point, traced.

    Attributes:
        name: its name.
        graph: the un-optimised graph. Inputs: parameters and closed-over tensors, the seed if one is used, then the
            data.
        parameters: per parameter input, the `Parameter`, or (name, torch tensor) for one that a step closes over.
        seeded: whether the seed is an input (after the parameters).
        inputs: per argument, the structure of its leaves (see `Port`).
        output: the structure of the result.
        signature: types of the arguments and of the result, as the user wrote them.
        batched: whether the batch is an outer list of every data input.
        mode_matters: whether the program differs between training and evaluation (it drops out).
        stored: the float dtype of its parameters.
        counts: per size of the result's lists that the program determines itself, its name and the index of the graph's
            output that holds the lengths. These outputs stand behind the result's own and in no port.
    """

    name: str
    graph: Graph
    parameters: list[Any]
    seeded: bool
    inputs: tuple[Any, ...]
    output: Any
    signature: str
    batched: bool
    mode_matters: bool = False
    stored: DType = f32
    counts: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Port:
    """The structure of an input or output, without values: a tree of ports whose leaves number the graph's inputs
    (or outputs) among the data.

    Attributes:
        kind: "array", "list", "tree", "product".
        type: an array's IR type within one example (list axes included).
        leaf: an array's index among the data inputs (or the outputs).
        sizes: a list's sizes; a tree's node size and arity size.
        grid: whether a list is a grid.
        parts: the element structure of a list or tree (one), or the parts of a product.
        product: an empty product of the same nesting, for `types.rebuild`.
        tree: a tree's type; its parent, slot, height, root and kind are the leaves from `leaf` on.
    """

    kind: str
    type: Any = None
    leaf: int = -1
    sizes: tuple[Size, ...] = ()
    grid: bool = False
    parts: tuple[Port, ...] = ()
    product: Any = None
    tree: types.Tree | None = None


_BATCH = Named("B")


class _Inputs:
    """Makes the data inputs of a graph from declared types."""

    def __init__(self, program: Program, batched: bool):
        self.program, self.batched = program, batched
        self.declarations: list[SizeDeclaration] = [SizeDeclaration("B")] if batched else []
        if batched:
            program.sizes.counters["B"] = 1
        self.values: list[Value] = []
        self.named: dict[str, Named] = {}

    def size(self, hint: str, axes: tuple[Size, ...] | None, name: str | None = None) -> Named:
        """A size that an input binds, varying with the batch and the given axes; with None it is one number per
        call.
        """
        if name is not None and name in self.named:
            return self.named[name]
        size = self.program.sizes.fresh(name or hint)
        if name is not None:
            self.named[name] = size
        over = () if axes is None else ((str(_BATCH),) if self.batched else ()) + tuple(map(str, axes))
        self.declarations.append(SizeDeclaration(size.name, over))
        self.program.sizes.over[size.name] = over
        return size

    def leaf(self, type_: Any, hint: str) -> Value:
        full = type_.listed(_BATCH) if self.batched else type_
        self.values.append(self.program.root.parameter(full, hint))
        return Value(type_, hint)

    def make(self, type_: Any, axes: tuple[Size, ...], hint: str) -> tuple[Any, Port]:
        """The traced structure of a type within one example, and its port; `values` collects the graph's parameters."""
        if isinstance(type_, types.Rep):
            structure, port = self.make(type_.type, axes, hint)
            if isinstance(structure, tuple) or isinstance(structure, Mapping):
                return NamedProduct(type_, structure), port
            structure.rep = type_
            return structure, port
        if isinstance(type_, DType):
            type_ = types.Array(type_)
        if isinstance(type_, types.Array):
            at = len(self.values)
            # A half dtype is how a model is stored; carries and sums are computed in f32 (see `precision`).
            if type_.dtype.is_float and type_.dtype.bits == 16:
                type_ = types.Array(f32, type_.shape)
            value = self.leaf(types.ListType(type_.dtype, axes, type_.shape), hint)
            return TracedArray(value), Port("array", value.type, at)
        if isinstance(type_, types.Seq):
            size = self.size("T", axes, type_.size)
            content, port = self.make(type_.element, (*axes, size), hint)
            return TracedList((size,), content), Port("list", sizes=(size,), parts=(port,))
        if isinstance(type_, types.Grid):
            sizes: tuple[Size, ...] = ()
            # A grid is rectangular, and all grids of one argument have one extent.
            for d in range(type_.dims):
                sizes = (*sizes, self.size("XYZ"[d] if type_.dims <= 3 else f"X{d}", None))
            content, port = self.make(type_.element, (*axes, *sizes), hint)
            return TracedList(sizes, content, True), Port("list", sizes=sizes, grid=True, parts=(port,))
        if isinstance(type_, types.Tree):
            return self.tree(type_, axes, hint)
        parts = type_.values() if isinstance(type_, Mapping) else type_
        made = [self.make(part, axes, hint) for part in parts]
        structure = (
            dict(zip(type_, [m[0] for m in made], strict=True))
            if isinstance(type_, Mapping)
            else types.rebuild(_flat(type_), iter([m[0] for m in made]))
        )
        return structure, Port("product", parts=tuple(m[1] for m in made), product=_flat(type_))

    def tree(self, type_: types.Tree, axes: tuple[Size, ...], hint: str) -> tuple[Any, Port]:
        if type_.arity is not None and (not isinstance(type_.arity, int) or type_.arity < 0):
            raise TreeError(f"arity= of ff.Tree is a whole number, not negative; got {type_.arity!r}")
        if len(set(type_.kinds)) != len(type_.kinds):
            raise TreeError(f"kinds= of ff.Tree names a kind twice: {type_.kinds}. Name each once")
        if axes:
            raise StructureError(
                "a tree inside of a list or tree is not offered; give the trees as a batch (ff.forest)"
            )
        size = self.size("N", axes)
        # How many children a node has varies with the node.
        arity = self.size("K", (*axes, size))
        at = len(self.values)
        nodes = (*axes, size)
        tables = [self.leaf(types.ListType(i64, nodes, ()), name) for name in ("parent", "slot", "height")]
        root = self.leaf(types.ListType(i64, axes, ()), "root")
        kind = self.leaf(types.ListType(i64, nodes, ()), "kind") if type_.kinds else None
        content, port = self.make(type_.element, nodes, hint)
        structure = TracedTree(tables, root, kind, size, arity, type_, content)
        return structure, Port("tree", leaf=at, sizes=(size, arity), parts=(port,), tree=type_)


def _flat(type_: Any) -> Any:
    """A product of one level, its parts replaced by placeholders."""
    if types.is_namedtuple(type_):
        return type(type_)(*[None] * len(type_))
    return dict.fromkeys(type_) if isinstance(type_, Mapping) else (None,) * len(type_)


def port_of(structure: Any, counter: list[int]) -> Port:
    """The port of a result's structure; leaves are numbered in the order of `leaves`."""
    if isinstance(structure, NamedProduct):
        return port_of(structure.content, counter)
    if isinstance(structure, TracedArray):
        counter[0] += 1
        return Port("array", structure.value.type, counter[0] - 1)
    if isinstance(structure, TracedList):
        return Port("list", sizes=structure._sizes, grid=structure.grid, parts=(port_of(structure.content, counter),))
    if isinstance(structure, TracedTree):
        raise StructureError("a tree is not returned; give the node values with ff.cata(…, every=True)")
    parts = structure.values() if isinstance(structure, Mapping) else structure
    return Port("product", parts=tuple(port_of(part, counter) for part in parts), product=_flat(structure))


def _map_port(port: Port, change: Any) -> Port:
    type_ = port.type.map_sizes(change) if port.type is not None else None
    return replace(
        port, type=type_, sizes=tuple(map(change, port.sizes)), parts=tuple(_map_port(p, change) for p in port.parts)
    )


def float_of(type_: Any) -> DType | None:
    """The first float dtype in a type."""
    if isinstance(type_, DType):
        return type_ if type_.is_float else None
    if isinstance(type_, types.Array):
        return type_.dtype if type_.dtype.is_float else None
    if isinstance(type_, types.Rep):
        return float_of(type_.type)
    if isinstance(type_, (types.Seq, types.Grid, types.Tree)):
        return float_of(type_.element)
    for part in type_.values() if isinstance(type_, Mapping) else type_:
        found = float_of(part)
        if found is not None:
            return found
    return None


def trace_entry(
    name: str, function: Any, argument_types: Sequence[Any], batched: bool = True, training: bool = False
) -> Entry:
    """Trace one entry point.

    Arguments:
        name: its name.
        function: an expression, or any function of as many traced values as there are types.
        argument_types: the types of its inputs, of one example.
        batched: whether the batch is an outer list of every input.
        training: whether dropout drops.

    Returns:
        The traced `Entry`.

    Raises:
        FoldfuseError: whatever is wrong with the program, naming the user's line.
    """
    if batched and not argument_types:
        raise StructureError(
            f"{show_function(function)} is compiled with no types of arguments. Write one for each, as in "
            "ff.compile(f, ff.f32[3]); a program without arguments takes batched=False"
        )
    for type_ in argument_types:
        types.check_type(type_)
    floats = [found for found in map(float_of, argument_types) if found is not None]
    stored = floats[0] if floats else f32
    program = Program(f32 if stored.bits == 16 else stored, training)
    inputs = _Inputs(program, batched)
    made = [
        inputs.make(type_, (), f"x{i}" if len(argument_types) > 1 else "x") for i, type_ in enumerate(argument_types)
    ]
    root = program.root

    def index(inner: Scope) -> Value:
        inputs.values.append(root.iota(_BATCH))
        return inner.parameter(array(i64), "row")

    scope = Scope(root, program, index) if batched else root
    arguments = []
    data = list(inputs.values)
    elements = [scope.parameter(v.type.element, v.name) for v in data] if batched else data
    at = 0
    for structure, _ in made:
        count = len(leaves(structure))
        arguments.append(with_leaves(structure, iter(elements[at : at + count])))
        at += count
    with scope.active():
        result = traced(call(function, *arguments))
        results = [scope.use(v) for v in leaves(result)]
        output_type = type_of(result)
    if not results:
        raise StructureError(f"{show_function(function)} gives nothing: an entry point returns at least one array")
    if batched:
        # Size tables of trees are read through the parameters, so data that the body does not use keeps its place.
        outputs = root.map_lambda(_BATCH, inputs.values, scope, results)
    else:
        outputs = tuple(results)
    output = _map_port(port_of(result, [0]), program.sizes.resolve)
    signature = f"{name}: {' → '.join(types.show(t) for t in (*argument_types, output_type))}"
    entry = _finish(name, program, inputs, made, data, outputs, output, signature, batched)
    return replace(entry, stored=stored)


def _finish(
    name: str,
    program: Program,
    inputs: _Inputs,
    made: Sequence[Any],
    data: list[Value],
    outputs: Sequence[Value],
    output: Port,
    signature: str,
    batched: bool,
) -> Entry:
    resolve = program.sizes.resolve
    shown, (outputs, counts) = len(outputs), _with_counts(program.root.equations, outputs, output)
    owned = list(program.parameters.values())
    seed = [program.seed] if program.seed is not None else []
    body = Lambda((*owned, *seed, *data), tuple(live_equations(program.root.equations, outputs)), tuple(outputs))
    body = map_sizes(body, resolve) if program.sizes.mapping else body
    parameters = [key if isinstance(key, Parameter) else program.tensors[key] for key in program.parameters]
    names = [p.name if isinstance(p, Parameter) else p[0] for p in parameters]
    declared = [d for d in inputs.declarations if resolve(Named(d.name)) == Named(d.name)]
    # A name that became another size is still bound by its input, to be checked against it.
    merged = [d for d in inputs.declarations if resolve(Named(d.name)) != Named(d.name)]
    rename = {d.name: str(resolve(Named(d.name))) for d in merged}
    declared = [replace(d, over=tuple(rename.get(o, o) for o in d.over)) for d in declared]
    checks = tuple((resolve(left), resolve(right), where) for left, right, where in program.sizes.checks)
    merged_checks = tuple((Named(d.name), resolve(Named(d.name)), _where(program, d.name)) for d in merged)
    graph = Graph(
        name,
        body,
        (*names, *(["seed"] if seed else []), *(v.name for v in data)),
        (*(f"y{i}" if shown > 1 else "y" for i in range(shown)), *(f"count_{name}" for name, _ in counts)),
        tuple(declared),
        tuple(c for c in (*checks, *merged_checks) if c[0] != c[1] and not isinstance(c[0], Constant)),
    )
    verify(graph, "tracing")
    ports = tuple(port for _, port in made)
    return Entry(
        name, graph, parameters, bool(seed), ports, output, signature, batched, program.mode_matters, counts=counts
    )


def _with_counts(
    equations: Sequence[Equation], outputs: Sequence[Value], output: Port
) -> tuple[tuple[Value, ...], tuple[tuple[str, int], ...]]:
    """The outputs and, behind them, the lengths of the result's lists that the program determines itself; and where
    each such size is found among them."""
    wanted, results, counts = _size_names(output), list(outputs), []
    for equation in equations:
        for name, index in equation.binds:
            if name in wanted:
                counts.append((name, len(results)))
                results.append(equation.outputs[index])
    return tuple(results), tuple(counts)


def _size_names(port: Port) -> frozenset[str]:
    """The names of the list sizes that stand in a port."""
    own = frozenset(name for size in port.sizes for name in size.names())
    return own.union(*map(_size_names, port.parts))


def _where(program: Program, name: str) -> str:
    for left, right, where in program.sizes.checks:
        if name in left.names() | right.names():
            return where
    return "the program"


__all__ = ["Entry", "FoldfuseError", "Port", "float_of", "trace_entry"]
