"""Precision: which dtype a program computes in, and which its contractions take their operands in. Put there before
differentiation, so that the adjoint rounds where the program does.

Carries and accumulators are in the compute dtype whatever the operands are: rounding a carry of h + 0.001 (x - h) to
bf16 in each of 5,000 steps ends at 0.25, not at 0.993. The scheme is that of Micikevicius et al., *Mixed precision
training* (2018).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .ir import Equation, Graph, Lambda, Value, infer
from .laws.law import LOOPS, OpenBuilder
from .laws.loop import Loop
from .types import DType, ListType, f32, promote

# Operations whose float inputs may differ in dtype: each input stands for itself.
_INDEPENDENT = frozenset(
    ("map", "scan", "tree_up", "tree_down", "switch", "iota", "length", "constant", "split", "uniform", "fold_seed")
)


def with_precision(
    graph: Graph, compute: DType = f32, operand: DType | None = None, boundary: bool = False, default: DType = f32
) -> Graph:
    """The same program in another precision.

    A cast that the user pinned (``ff.cast``) keeps its dtype; where a pinned value meets one of the compute dtype, the
    narrower is cast to the wider. A carry keeps the compute dtype: what a step gives for it is cast back.

    Arguments:
        graph: a program (not an adjoint).
        compute: the dtype in place of the default one: f64 for ``.double()``.
        operand: the dtype that the operands of contractions are rounded to (autocast, or a module in half precision);
            results and sums stay in `compute`. None rounds nothing.
        boundary: whether float inputs and outputs are of the `operand` dtype, cast at entry and exit.
        default: the dtype that the program was written in.

    Returns:
        A graph of the same inputs, outputs and sizes.

    Example:
        >>> with_precision(graph, f64).body.parameters[0].type
        f64[3, 4]
    """
    changed = _Precision(default, compute, operand)
    if compute is default and operand is None and not boundary:
        return graph
    edge = operand if boundary and operand is not None else compute
    b = OpenBuilder()
    parameters = []
    arguments = []
    for value in graph.body.parameters:
        own = edge if value.type.dtype is default else value.type.dtype
        parameter = Value(value.type.with_dtype(own), value.name)
        parameters.append(parameter)
        arguments.append(_cast(b, parameter, compute) if value.type.dtype is default else parameter)
    table = dict(zip(graph.body.parameters, arguments, strict=True))
    changed.equations(graph.body.equations, table, b)
    results = []
    for value in graph.body.results:
        result = table[value]
        results.append(_cast(b, result, edge) if value.type.dtype is default else result)
    return graph.with_body(Lambda(tuple(parameters), tuple(b.equations), tuple(results)))


def _cast(b: OpenBuilder, value: Value, dtype: DType) -> Value:
    """A value, under its list axes, in another dtype."""
    if value.type.dtype is dtype:
        return value
    out = b.lift("cast", value, dtype=dtype, pinned=False)
    out.name = value.name
    return out


class _Precision:
    """One change of precision.

    Arguments:
        default, compute, operand: see `with_precision`.
    """

    def __init__(self, default: DType, compute: DType, operand: DType | None):
        self.default, self.compute, self.operand = default, compute, operand

    def _type(self, type_: ListType) -> ListType:
        return type_.with_dtype(self.compute) if type_.dtype is self.default else type_

    def _attributes(self, equation: Equation) -> Mapping[str, Any]:
        a = equation.attributes
        if equation.op == "cast" and a["pinned"]:
            return a
        return {name: self.compute if value is self.default else value for name, value in a.items()}

    def equations(self, equations: Sequence[Equation], table: dict[Value, Value], b: OpenBuilder) -> None:
        """Append equations in the new precision; `table` maps old values to new ones."""
        for equation in equations:
            b.source = equation.source
            inputs = [table[v] for v in equation.inputs]
            outputs = self._equation(equation, inputs, b)
            for old, new in zip(equation.outputs, outputs, strict=True):
                new.name = new.name or old.name
                table[old] = new

    def _equation(self, equation: Equation, inputs: list[Value], b: OpenBuilder) -> Sequence[Value]:
        op, attributes = equation.op, self._attributes(equation)
        if op in LOOPS:
            return self._loop(equation, inputs, b)
        if op == "switch":
            return self._switch(equation, inputs, b)
        if op not in _INDEPENDENT:
            inputs = self._agree(inputs, b)
        if op == "contract" and self.operand is not None and inputs[0].type.dtype is self.compute:
            inputs = [_cast(b, v, self.operand) for v in inputs]
            attributes = {**attributes, "dtype": attributes.get("dtype") or self.compute}
        return self._emit(equation, inputs, attributes, equation.bodies, b)

    def _agree(self, inputs: list[Value], b: OpenBuilder) -> list[Value]:
        """Float inputs in the widest dtype among them."""
        floats = [v.type.dtype for v in inputs if v.type.dtype.is_float]
        if len(set(floats)) < 2:
            return inputs
        widest = floats[0]
        for dtype in floats[1:]:
            widest = promote(widest, dtype)
        return [_cast(b, v, widest) if v.type.dtype.is_float else v for v in inputs]

    def _emit(
        self,
        equation: Equation,
        inputs: Sequence[Value],
        attributes: Mapping[str, Any],
        bodies: Sequence[Lambda],
        b: OpenBuilder,
    ) -> tuple[Value, ...]:
        types = infer(equation.op, tuple(v.type for v in inputs), attributes, bodies)
        outputs = tuple(Value(t, old.name) for t, old in zip(types, equation.outputs, strict=True))
        b.equations.append(
            Equation(equation.op, tuple(inputs), outputs, attributes, tuple(bodies), equation.binds, equation.source)
        )
        return outputs

    def _body(self, body: Lambda, types: Sequence[ListType], targets: Sequence[DType | None]) -> Lambda:
        """A body whose parameters have the given types and whose results are cast to the given dtypes."""
        b = OpenBuilder()
        parameters = tuple(Value(t, p.name) for t, p in zip(types, body.parameters, strict=True))
        table = dict(zip(body.parameters, parameters, strict=True))
        self.equations(body.equations, table, b)
        results = []
        for value, target in zip(body.results, targets, strict=True):
            result = table[value]
            results.append(result if target is None else _cast(b, result, target))
        return Lambda(parameters, tuple(b.equations), tuple(results))

    def _loop(self, equation: Equation, inputs: list[Value], b: OpenBuilder) -> Sequence[Value]:
        loop = Loop(equation)
        given = dict(zip((id(p) for p in loop.inputs if p.outer is not None), inputs, strict=True))
        entering: list[Value] = []
        types: list[ListType] = []
        for port in loop.inputs:
            value = given.get(id(port))
            tied = port.role in ("carry", "state") or (port.role == "list" and loop.op == "reduce_with")
            if value is not None and tied:
                # What goes round the loop has one dtype, whatever it starts from.
                value = _cast(b, value, self._type(port.outer.type).dtype)
            if value is not None:
                entering.append(value)
            if port.inner is not None:
                own = self._type(port.inner.type) if tied else port.inner.type.with_dtype(value.type.dtype)
                types.append(own)
        targets = [self._type(p.inner.type).dtype if p.role == "carry" else None for p in loop.results]
        body = self._body(equation.bodies[0], types, targets)
        return self._emit(equation, entering, equation.attributes, (body,), b)

    def _switch(self, equation: Equation, inputs: list[Value], b: OpenBuilder) -> Sequence[Value]:
        types = [v.type for v in inputs[1:]]
        targets = [self._type(v.type).dtype for v in equation.bodies[0].results]
        bodies = [self._body(body, types, targets) for body in equation.bodies]
        return self._emit(equation, inputs, equation.attributes, bodies, b)
