"""One pass over a body for all laws about single equations, and common subexpressions: hash-consing.

Every equation is looked at once, in order, with its inputs already replaced; a law gives the value that stands for its
output, which it may have to build. The technique is that of global value numbering (Alpern, Wegman & Zadeck,
*Detecting equality of variables in programs*, 1988) without phi functions: there are none in this IR.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import Source
from ..ir import Equation, Lambda, Value, infer
from .law import COPIES, Law, Scope, constant_number, renamed

COMMUTATIVE = frozenset(("add", "mul", "maximum", "minimum", "eq", "ne", "logical_and", "logical_or"))
Rewrite = Callable[["Sweep", Equation], "Value | None"]


def frozen(attribute: Any) -> Any:
    """An attribute as a key that tells apart what differs in meaning (-0.0 from 0.0, 1 from True)."""
    if isinstance(attribute, np.ndarray):
        return (attribute.dtype.str, attribute.shape, attribute.tobytes())
    if isinstance(attribute, (bool, float)):
        return repr(attribute)
    if isinstance(attribute, tuple):
        return tuple(map(frozen, attribute))
    return attribute


def attributes_key(equation: Equation) -> tuple[Any, ...]:
    if not equation.attributes:
        return ()
    return tuple((name, frozen(equation.attributes[name])) for name in sorted(equation.attributes))


def lambda_key(body: Lambda, scope: Scope) -> int:
    """A number that two bodies share exactly when they are the same but for the names of their values."""
    known = scope.keys.get(body)
    if known is not None:
        return known
    numbers: dict[Value, int] = {value: i for i, value in enumerate(body.parameters)}
    parts: list[Any] = [tuple(v.type for v in body.parameters)]
    for equation in body.equations:
        parts.append(
            (
                equation.op,
                tuple(numbers[v] for v in equation.inputs),
                attributes_key(equation),
                tuple(lambda_key(inner, scope) for inner in equation.bodies),
                equation.binds,
            )
        )
        for value in equation.outputs:
            numbers[value] = len(numbers)
    parts.append(tuple(numbers[v] for v in body.results))
    key = scope.interned.setdefault(tuple(parts), len(scope.interned))
    scope.keys[body] = key
    return key


class Sweep:
    """One pass over one body.

    Arguments:
        body, scope: what is rewritten, and where it stands.
        laws: the laws about single equations.
        share: whether equal equations become one, and what that law is called.
    """

    def __init__(self, body: Lambda, scope: Scope, laws: Sequence[Law], share: str | None = None):
        self.body = body
        self.scope = scope
        self.rules: dict[str, list[Law]] = {}
        for law in laws:
            for op in law.ops:
                self.rules.setdefault(op, []).append(law)
        self.share = share
        self.equations: list[Equation] = []
        self.made: dict[Value, Equation] = {}
        self.known: dict[Any, tuple[Value, ...]] = {}
        self.table: dict[Value, Value] = {}
        self.order: dict[Value, int] = {}
        self.source: Source | None = None
        self.changed = False

    def run(self) -> Lambda:
        """The body rewritten, or the same object."""
        for value in self.body.parameters:
            self.order[value] = len(self.order)
        for equation in self.body.equations:
            current = renamed(equation, self.table)
            self.changed |= current is not equation
            self.source = current.source
            outputs = self._place(current)
            for old, new in zip(equation.outputs, outputs, strict=True):
                if old is not new:
                    self.table[old] = new
                    self.changed = True
                    if old.name and not new.name:
                        new.name = old.name
        if not self.changed:
            return self.body
        results = tuple(self.table.get(v, v) for v in self.body.results)
        return Lambda(self.body.parameters, tuple(self.equations), results)

    def _place(self, equation: Equation) -> tuple[Value, ...]:
        for law in self.rules.get(equation.op, ()):
            assert law.rewrite is not None
            value = law.rewrite(self, equation)
            if value is not None:
                self.scope.fired(law.name, equation, f"{equation.op} of {equation.output.type}")
                return (value,)
        if self.share is not None and not equation.binds:
            key = self._key(equation)
            known = self.known.get(key)
            if known is not None:
                if known and equation.op not in COPIES:
                    self.scope.fired(self.share, equation, f"{equation.op} of {known[0].type} is computed once")
                return known
            self.known[key] = equation.outputs
        self.equations.append(equation)
        for value in equation.outputs:
            self.made[value] = equation
            self.order[value] = len(self.order)
        return equation.outputs

    def _key(self, equation: Equation) -> Any:
        inputs = tuple(self.order[v] for v in equation.inputs)
        if equation.op in COMMUTATIVE:
            inputs = tuple(sorted(inputs))
        bodies = tuple(lambda_key(b, self.scope) for b in equation.bodies)
        return equation.op, inputs, attributes_key(equation), bodies

    # --- what a law may ask and build -------------------------------------------------------------------------------

    def maker(self, value: Value, op: str | None = None) -> Equation | None:
        """The equation that makes a value, if its operation is `op`."""
        equation = self.made.get(value)
        return equation if equation is not None and (op is None or equation.op == op) else None

    def number(self, value: Value) -> float | int | bool | None:
        """The number that fills a value, where it is a constant."""
        return constant_number(self.made.get(value))

    def emit(self, op: str, *inputs: Value, **attributes: Any) -> Value:
        """A value built in this pass, itself subject to the laws."""
        (type_,) = infer(op, tuple(v.type for v in inputs), attributes, ())
        (value,) = self._place(Equation(op, inputs, (Value(type_),), attributes, (), (), self.source))
        return value


def single(name: str, *ops: str) -> Callable[[Rewrite], Law]:
    """Make a law about one equation of a function; its docstring is the equation."""

    def make(rewrite: Rewrite) -> Law:
        held: list[Law] = []

        def apply(body: Lambda, scope: Scope) -> Lambda:
            return Sweep(body, scope, held).run()

        held.append(Law(name, " ".join((rewrite.__doc__ or "").split()), apply, rewrite, ops))
        return held[0]

    return make
