"""What a law is, and what it sees: the scope of a body, its reports, and questions about equations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..builder import Builder
from ..errors import Source
from ..ir import Equation, Lambda, Value
from ..records import RECORDS, Combinator
from ..sizes import Size

LOOPS = ("map", "scan", "reduce_with", "tree_up", "tree_down")
RECURRENT = ("scan", "reduce_with", "tree_up", "tree_down")
# These check their input and may raise: they are never run where the program would not have run them.
MAY_RAISE = frozenset(
    (
        "gather",
        "gather_along",
        "scatter_add",
        "scatter_along",
        "element",
        "scatter_element",
        "accumulate_rows",
        "switch",
    )
    + ("view", "overlap_add")
)
# They only copy: to run them again costs nothing but room.
COPIES = frozenset(("constant", "broadcast"))


@dataclass(frozen=True)
class Firing:
    """A law that was applied: its name, the user's line, and what changed."""

    law: str
    where: Source | None
    detail: str

    def __str__(self) -> str:
        return f"{self.law}: {self.detail}" + (f"  [{self.where}]" if self.where else "")


@dataclass(frozen=True)
class Refusal:
    """A law that could have been meant to apply and was not: its name, the user's line, and why."""

    law: str
    where: Source | None
    reason: str

    def __str__(self) -> str:
        return f"{self.law} did not apply: {self.reason}" + (f"  [{self.where}]" if self.where else "")


@dataclass
class Scope:
    """Where a body stands, and what is shared by one run over a program.

    Attributes:
        over: per list size that is known here, the enclosing axes (as text) that it varies with.
        recurrent: whether the body is the step of a loop with a carry, or a branch of one.
        captured: how many of the body's parameters are the same in every step.
        firings: the laws applied so far.
        refusals: the laws that did not apply to the bodies as they are.
        keys, interned: structural keys of lambdas.
        names: the list sizes that lambdas name.
        tight: lambdas all of whose parameters and results are known to be used.
    """

    over: dict[str, tuple[str, ...]] = field(default_factory=dict)
    recurrent: bool = False
    captured: int = 0
    firings: list[Firing] = field(default_factory=list)
    refusals: dict[Refusal, None] = field(default_factory=dict)
    keys: dict[Lambda, int] = field(default_factory=dict)
    interned: dict[Any, int] = field(default_factory=dict)
    names: dict[Lambda, frozenset[str]] = field(default_factory=dict)
    tight: set[Lambda] = field(default_factory=set)

    def fired(self, law: str, equation: Equation | None, detail: str) -> None:
        self.firings.append(Firing(law, None if equation is None else equation.source, detail))

    def refused(self, law: str, equation: Equation | None, reason: str) -> None:
        self.refusals[Refusal(law, None if equation is None else equation.source, reason)] = None

    def inside(self, equation: Equation) -> Scope:
        """The scope of an equation's bodies."""
        recurrent = equation.op in RECURRENT or (equation.op == "switch" and self.recurrent)
        return replace(self, recurrent=recurrent, captured=equation.attributes.get("captured", 0), refusals={})

    def binding(self, equations: Iterable[Equation]) -> Scope:
        """This scope with the sizes that the equations determine."""
        bound = {name: tuple(map(str, e.outputs[index].type.axes)) for e in equations for name, index in e.binds}
        return replace(self, over={**self.over, **bound}) if bound else self

    def varies(self, names: Iterable[str], size: Size) -> bool:
        """Whether one of the sizes differs between the elements of a list of `size`."""
        axis = str(size)
        return any(axis in self.over.get(name, (axis,)) for name in names)


@dataclass(frozen=True)
class Law:
    """An equation between programs, used from left to right.

    Attributes:
        name: what reports call it.
        equation: the equation and its side condition, in words.
        apply: ``(body, scope) -> body``: one pass over the equations of one body (nested bodies are passed over by the
            pipeline, inner before outer); gives the very same object when nothing changed.
        rewrite: for a law about a single equation, ``(sweep, equation) -> value | None``, so that many such laws share
            one pass; None for the others.
        ops: for a law about a single equation, the operations that it begins with.
    """

    name: str
    equation: str
    apply: Callable[[Lambda, Scope], Lambda]
    rewrite: Callable[[Any, Equation], Value | None] | None = None
    ops: tuple[str, ...] = ()


def law(name: str) -> Callable[[Callable[[Lambda, Scope], Lambda]], Law]:
    """Make a law of a function over a body; its docstring is the equation."""

    def make(apply: Callable[[Lambda, Scope], Lambda]) -> Law:
        return Law(name, " ".join((apply.__doc__ or "").split()), apply)

    return make


class OpenBuilder(Builder):
    """A builder whose equations may use any value: they are put into a body that defines them."""

    def can_use(self, value: Value) -> bool:
        return True

    def use(self, value: Value) -> Value:
        return value


# --- questions -------------------------------------------------------------------------------------------------------


def numel(value: Value, list_size: int = 64) -> int:
    """The number of elements of a value; a list's size is taken to be `list_size` where it is not a constant."""
    total = 1
    for n in value.type.shape:
        total *= n
    for axis in value.type.axes:
        extent = axis.evaluate(lambda name: list_size)
        total *= max(1, int(extent))
    return total


def size_names(equation: Equation, scope: Scope) -> frozenset[str]:
    """The list sizes that an equation names: in its attributes, its types and its bodies."""
    names: set[str] = set()
    for value in (*equation.inputs, *equation.outputs):
        for axis in value.type.axes:
            names |= axis.names()
    for attribute in equation.attributes.values():
        for part in attribute if isinstance(attribute, tuple) else (attribute,):
            if isinstance(part, Size):
                names |= part.names()
    for body in equation.bodies:
        names |= body_names(body, scope)
    return frozenset(names)


def body_names(body: Lambda, scope: Scope) -> frozenset[str]:
    """The list sizes that a body names."""
    known = scope.names.get(body)
    if known is None:
        names: set[str] = set()
        for value in body.parameters:
            for axis in value.type.axes:
                names |= axis.names()
        for equation in body.equations:
            names |= size_names(equation, scope)
        known = scope.names[body] = frozenset(names)
    return known


def may_raise(equation: Equation) -> bool:
    """Whether running the equation more often than the program says could raise, or never end."""
    if equation.op in MAY_RAISE or equation.attributes.get("stop"):
        return True
    if equation.op == "reduce" and equation.attributes["op"] in ("max", "min"):
        return True
    if equation.op == "length" and equation.attributes.get("positive"):
        return True
    return any(may_raise(inner) for body in equation.bodies for inner in body.equations)


def work(equation: Equation) -> int:
    """An estimate of an equation's multiply-adds (0 for what only copies)."""
    if equation.bodies:
        size = equation.attributes.get("size")
        steps = 1 if size is None else max(1, int(size.evaluate(lambda name: 64)))
        return steps * sum(work(e) for body in equation.bodies for e in body.equations)
    record = RECORDS[equation.op]
    if isinstance(record, Combinator):
        return sum(map(numel, equation.inputs))
    if equation.op == "contract":
        extents: dict[str, int] = {}
        operands = equation.attributes["spec"].split("->")[0].split(",")
        for labels, value in zip(operands, equation.inputs, strict=True):
            sizes = [int(axis.evaluate(lambda name: 64)) for axis in value.type.axes]
            extents.update(zip(labels, (*sizes, *value.type.shape), strict=True))
        total = 1
        for n in extents.values():
            total *= n
        return total
    if record.cost == "free":
        return 0
    return max((numel(v) for v in (*equation.inputs, *equation.outputs)), default=0)


def makers(equations: Iterable[Equation]) -> dict[Value, Equation]:
    """The equation that makes each value."""
    return {value: equation for equation in equations for value in equation.outputs}


def users(body: Lambda) -> dict[Value, list[Equation | None]]:
    """The equations that use each value; None stands for the body's results."""
    table: dict[Value, list[Equation | None]] = {}
    for equation in body.equations:
        for value in equation.inputs:
            table.setdefault(value, []).append(equation)
    for value in body.results:
        table.setdefault(value, []).append(None)
    return table


def constant_number(equation: Equation | None) -> float | int | bool | None:
    """The number that fills a constant, or None."""
    if equation is None or equation.op != "constant" or isinstance(equation.attributes["value"], np.ndarray):
        return None
    return equation.attributes["value"]


def renamed(equation: Equation, table: dict[Value, Value]) -> Equation:
    """An equation with other inputs (the same object where none changes)."""
    inputs = tuple(table.get(v, v) for v in equation.inputs)
    return equation if inputs == equation.inputs else with_inputs(equation, inputs)


def with_inputs(equation: Equation, inputs: tuple[Value, ...]) -> Equation:
    return Equation(
        equation.op, inputs, equation.outputs, equation.attributes, equation.bodies, equation.binds, equation.source
    )


def with_bodies(equation: Equation, bodies: tuple[Lambda, ...]) -> Equation:
    return Equation(
        equation.op, equation.inputs, equation.outputs, equation.attributes, bodies, equation.binds, equation.source
    )


def moved(equations: Iterable[Equation], table: dict[Value, Value]) -> list[Equation]:
    """Copies of equations for another body: their inputs looked up in the table, their outputs new (and entered)."""
    out = []
    for equation in equations:
        outputs = tuple(Value(v.type, v.name) for v in equation.outputs)
        out.append(
            Equation(
                equation.op,
                tuple(table.get(v, v) for v in equation.inputs),
                outputs,
                equation.attributes,
                equation.bodies,
                equation.binds,
                equation.source,
            )
        )
        table.update(zip(equation.outputs, outputs, strict=True))
    return out


def cone(values: Iterable[Value], made: dict[Value, Equation]) -> set[Equation]:
    """The equations that the values depend on."""
    found: set[Equation] = set()
    waiting = [made[v] for v in values if v in made]
    while waiting:
        equation = waiting.pop()
        if equation in found:
            continue
        found.add(equation)
        waiting.extend(made[v] for v in equation.inputs if v in made)
    return found
