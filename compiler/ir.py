"""The IR: typed, functional, single assignment; a nest of combinators.

`Equation` is ``outputs = op{attributes}(inputs) bodies``; a body is a closed `Lambda` (what it captures are its first
parameters); a `Graph` is a lambda with named inputs and declared list sizes. Nothing is changed in place: a pass makes
new equations and shares what it did not touch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .errors import FoldfuseError, Source, VerificationError
from .records import RECORDS, Combinator
from .sizes import Size
from .types import ListType


@dataclass(eq=False)
class Value:
    """A value, assigned once: a parameter of a lambda or an output of an equation.

    Attributes:
        type: its type.
        name: the user's name for it where one is known; printed, of no meaning.
    """

    type: ListType
    name: str = ""

    def __repr__(self) -> str:
        return f"<{self.name or 'value'}: {self.type}>"


@dataclass(eq=False)
class Equation:
    """One application of an operation.

    Attributes:
        op: name of its record.
        inputs, outputs: values.
        attributes: static arguments of the operation (numbers, strings, tuples, sizes, dtypes, NumPy arrays).
        bodies: the lambdas of a combinator.
        binds: list sizes that this equation determines, each with the index of the i64 output that holds it.
        source: where the user wrote it.
    """

    op: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    bodies: tuple[Lambda, ...] = ()
    binds: tuple[tuple[str, int], ...] = ()
    source: Source | None = None

    @property
    def output(self) -> Value:
        (output,) = self.outputs
        return output

    @property
    def types(self) -> tuple[ListType, ...]:
        return tuple(value.type for value in self.inputs)


@dataclass(eq=False)
class Lambda:
    """A function of the IR; its equations use its parameters and each other's outputs, nothing else."""

    parameters: tuple[Value, ...]
    equations: tuple[Equation, ...]
    results: tuple[Value, ...]

    def __str__(self) -> str:
        from .text import show_lambda

        return show_lambda(self)


@dataclass(frozen=True)
class SizeDeclaration:
    """A list size bound by the inputs of a graph.

    Attributes:
        name: its name.
        over: the sizes (as text) of the enclosing lists that it may vary with; its table of lengths has these axes.
        input: the index of the i64 input that holds the table, where one does (the adjoint of a program that determines
            a size itself); otherwise a call gives the size beside the inputs.
        flat: whether lists of the size, right behind the axis that it varies with, are stored without padding: see
            `sizes.stored`. It says how tensors lie in memory, nothing about what is computed.
    """

    name: str
    over: tuple[str, ...] = ()
    input: int | None = None
    flat: bool = False


@dataclass(eq=False)
class Graph:
    """A whole program, or the adjoint of one.

    Attributes:
        name: the entry point's name.
        body: what is computed.
        input_names, output_names: a name per parameter and per result of the body.
        sizes: the sizes that the inputs bind, outer before inner.
        checks: pairs of sizes that must be equal in every call, with the expression that made them so.
        notes: what the passes report (laws fired and refused), for `explain`.
    """

    name: str
    body: Lambda
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    sizes: tuple[SizeDeclaration, ...] = ()
    checks: tuple[tuple[Size, Size, str], ...] = ()
    notes: list[Any] = field(default_factory=list)

    def with_body(self, body: Lambda) -> Graph:
        return replace(self, body=body)

    def with_flat(self, names: Collection[str]) -> Graph:
        """This graph with the lists of these sizes, and of no others, stored without padding."""
        return replace(self, sizes=tuple(replace(d, flat=d.name in names) for d in self.sizes))

    @property
    def flat(self) -> dict[str, str]:
        """Per size whose lists are stored without padding, the size that it varies with."""
        return {d.name: d.over[0] for d in self.sizes if d.flat}

    def __str__(self) -> str:
        from .text import show

        return show(self)


def infer(
    op: str, types: Sequence[ListType], attributes: Mapping[str, Any], bodies: Sequence[Lambda]
) -> tuple[ListType, ...]:
    """Output types of an equation."""
    record = RECORDS[op]
    if isinstance(record, Combinator):
        return record.infer(types, attributes, bodies)
    return record.infer(types, attributes)


def sub_equations(body: Lambda) -> Iterator[Equation]:
    """All equations of a body and of the bodies in it, outer before inner."""
    for equation in body.equations:
        yield equation
        for inner in equation.bodies:
            yield from sub_equations(inner)


def substitute(body: Lambda) -> Lambda:
    """A copy of a body with new values throughout (so that one lambda can stand in two places)."""
    table: dict[Value, Value] = {}

    def fresh(value: Value) -> Value:
        table[value] = Value(value.type, value.name)
        return table[value]

    parameters = tuple(map(fresh, body.parameters))
    equations = []
    for equation in body.equations:
        inputs = tuple(table[v] for v in equation.inputs)
        equations.append(
            replace(
                equation,
                inputs=inputs,
                outputs=tuple(map(fresh, equation.outputs)),
                bodies=tuple(map(substitute, equation.bodies)),
            )
        )
    return Lambda(parameters, tuple(equations), tuple(table[v] for v in body.results))


def map_types(
    body: Lambda, change: Callable[[ListType], ListType], change_attribute: Callable[[Any], Any] = lambda a: a
) -> Lambda:
    """A copy of a body with every type changed (and every attribute)."""
    table: dict[Value, Value] = {}

    def fresh(value: Value) -> Value:
        table[value] = Value(change(value.type), value.name)
        return table[value]

    parameters = tuple(map(fresh, body.parameters))
    equations = []
    for equation in body.equations:
        equations.append(
            Equation(
                equation.op,
                tuple(table[v] for v in equation.inputs),
                tuple(map(fresh, equation.outputs)),
                {name: change_attribute(a) for name, a in equation.attributes.items()},
                tuple(map_types(b, change, change_attribute) for b in equation.bodies),
                equation.binds,
                equation.source,
            )
        )
    return Lambda(parameters, tuple(equations), tuple(table[v] for v in body.results))


def map_sizes(body: Lambda, change: Callable[[Size], Size]) -> Lambda:
    """A copy of a body with every list size changed, in types and attributes."""

    def attribute(a: Any) -> Any:
        if isinstance(a, Size):
            return change(a)
        if isinstance(a, tuple):
            return tuple(map(attribute, a))
        return a

    return map_types(body, lambda type_: type_.map_sizes(change), attribute)


def live_equations(equations: Sequence[Equation], results: Iterable[Value]) -> list[Equation]:
    """The equations that the results depend on, in order. The maker of a size that a kept one speaks of is kept too."""
    makers: dict[str, Equation] = {name: e for e in equations for name, _ in e.binds}
    needed: set[Value] = set(results)
    needed_makers: set[int] = set()

    def speaks_of(names: Iterable[str]) -> None:
        needed_makers.update(id(makers[name]) for name in names if name in makers)

    if makers:
        speaks_of(name for value in needed for size in value.type.axes for name in size.names())
    kept = []
    for equation in reversed(equations):
        if id(equation) in needed_makers or any(v in needed for v in equation.outputs):
            kept.append(equation)
            needed.update(equation.inputs)
            if makers:
                speaks_of(mentioned_sizes((equation,)))
    return kept[::-1]


def mentioned_sizes(equations: Iterable[Equation]) -> set[str]:
    """The names of the list sizes that equations speak of, in types and attributes, the bodies in them too."""
    sizes: set[Size] = set()

    def attribute(a: Any) -> None:
        if isinstance(a, Size):
            sizes.add(a)
        elif isinstance(a, tuple):
            for part in a:
                attribute(part)

    def body(inner: Lambda) -> None:
        for value in inner.parameters:
            sizes.update(value.type.axes)
        go(inner.equations)

    def go(some: Iterable[Equation]) -> None:
        for equation in some:
            for value in (*equation.inputs, *equation.outputs):
                sizes.update(value.type.axes)
            for a in equation.attributes.values():
                attribute(a)
            for inner in equation.bodies:
                body(inner)

    go(equations)
    return {name for size in sizes for name in size.names()}


def verify(graph: Graph, after: str = "") -> None:
    """Check that a graph is well formed: values defined before use and once, types as the records infer them,
    every list size bound.

    Raises:
        VerificationError: it is not; the message shows the equation and names the pass.
    """
    where = f" after {after}" if after else ""
    if len(graph.input_names) != len(graph.body.parameters) or len(graph.output_names) != len(graph.body.results):
        raise VerificationError(f"graph {graph.name}{where}: names and values differ in number")
    for d in graph.sizes:
        if d.flat and (len(d.over) != 1 or d.input is not None or any(d.name in other.over for other in graph.sizes)):
            raise VerificationError(f"the size {d.name} of {graph.name}{where} cannot be flat: it is no list of a row")
    _verify_body(graph.body, frozenset(d.name for d in graph.sizes), where)


def _sizes_in(attributes: Mapping[str, Any]) -> Iterator[tuple[str, Size]]:
    """The list sizes among attributes, and in tuples of them, each with its attribute's name."""
    for name, given in attributes.items():
        for part in given if isinstance(given, tuple) else (given,):
            if isinstance(part, Size):
                yield name, part


def _verify_body(body: Lambda, sizes: frozenset[str], where: str) -> None:
    defined: set[Value] = set()

    def define(value: Value) -> None:
        if value in defined:
            raise VerificationError(f"{value!r} is assigned twice{where}")
        defined.add(value)

    def check_sizes(value: Value) -> None:
        for size in value.type.axes:
            unbound = size.names() - sizes
            if unbound:
                raise VerificationError(f"the size {sorted(unbound)[0]} of {value!r} is bound by nothing{where}")

    for value in body.parameters:
        define(value)
        check_sizes(value)
    for equation in body.equations:
        for value in equation.inputs:
            if value not in defined:
                raise VerificationError(
                    f"{value!r} is used in {equation.op} but not defined{where} ({equation.source})"
                )
        if equation.op not in RECORDS:
            raise VerificationError(f"no record is called {equation.op}{where}")
        sizes = sizes | {name for name, _ in equation.binds}
        for attribute, size in _sizes_in(equation.attributes):
            if unbound := size.names() - sizes:
                raise VerificationError(
                    f"the size {sorted(unbound)[0]} in {attribute} of {equation.op} is bound by nothing{where}"
                )
        for inner in equation.bodies:
            _verify_body(inner, sizes, where)
        try:
            types = infer(equation.op, equation.types, equation.attributes, equation.bodies)
        except (FoldfuseError, ValueError, KeyError, IndexError) as error:
            raise VerificationError(f"{equation.op} is ill typed{where}: {error} (inputs {equation.types})") from error
        if types != tuple(v.type for v in equation.outputs):
            raise VerificationError(
                f"{equation.op}{dict(equation.attributes)} gives {types}{where}, but its outputs are declared "
                f"{tuple(v.type for v in equation.outputs)}"
            )
        for value in equation.outputs:
            define(value)
            check_sizes(value)
        for name, index in equation.binds:
            if not 0 <= index < len(types) or types[index].dtype.name != "i64":
                raise VerificationError(f"{equation.op} binds {name} to output {index}, which is no count{where}")
    for value in body.results:
        if value not in defined:
            raise VerificationError(f"the result {value!r} is not defined{where}")
