"""Building IR: a `Builder` appends equations to one body; what a body uses from outside becomes a captured
parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .errors import Source, TraceError, user_source
from .ir import Equation, Lambda, Value, infer
from .sizes import Size
from .types import DType, ListType, i64

Result = Any


class Builder:
    """Appends equations to one body.

    A value that a parent's body defines may be used directly: the builder makes a captured parameter for it
    (`captures` maps the outer value to the parameter, in order of first use).

    Arguments:
        parent: the builder of the enclosing body, or None for a graph.
        locate: whether equations record the user's line.
    """

    def __init__(self, parent: Builder | None = None, locate: bool = False):
        self.parent = parent
        self.locate = locate
        self.source: Source | None = None
        self.equations: list[Equation] = []
        self.parameters: list[Value] = []
        self.captures: dict[Value, Value] = {}
        self.defined: set[Value] = set()

    # --- values -----------------------------------------------------------------------------------------------------

    def parameter(self, type_: ListType, name: str = "") -> Value:
        """A new parameter of the body."""
        value = Value(type_, name)
        self.parameters.append(value)
        self.defined.add(value)
        return value

    def can_use(self, value: Value) -> bool:
        """Whether the value is defined here or in an enclosing body."""
        return (
            value in self.defined or value in self.captures or (self.parent is not None and self.parent.can_use(value))
        )

    def use(self, value: Value) -> Value:
        """The value as this body sees it: itself, or the captured parameter for it.

        Raises:
            TraceError: it belongs to no enclosing body (it leaked out of a step).
        """
        if value in self.defined:
            return value
        if value in self.captures:
            return self.captures[value]
        if self.parent is None or not self.parent.can_use(value):
            raise TraceError(
                f"the value {value.name or value.type} belongs to another step or program: it was kept from an "
                "earlier call. "
                "Pass it as part of the carry or the output instead"
            )
        self.parent.use(value)
        inner = Value(value.type, value.name)
        self.captures[value] = inner
        self.defined.add(inner)
        return inner

    def emit(
        self,
        op: str,
        inputs: Sequence[Value],
        attributes: Mapping[str, Any] | None = None,
        bodies: Sequence[Lambda] = (),
        binds: tuple[tuple[str, int], ...] = (),
        names: Sequence[str] = (),
    ) -> tuple[Value, ...]:
        """Append an equation; its output types are inferred."""
        attributes = attributes or {}
        used = tuple(map(self.use, inputs))
        types = infer(op, tuple(v.type for v in used), attributes, bodies)
        outputs = tuple(Value(t, names[i] if i < len(names) else "") for i, t in enumerate(types))
        source = (user_source() if self.locate else None) or self.source
        self.equations.append(Equation(op, used, outputs, attributes, tuple(bodies), binds, source))
        self.defined.update(outputs)
        return outputs

    def __call__(self, op: str, /, *inputs: Value, **attributes: Any) -> Value:
        """Append an equation of one output: ``b("add", x, y)``."""
        (output,) = self.emit(op, inputs, attributes)
        return output

    def maker(self, value: Value) -> Equation | None:
        """The equation of this body that makes a value; None where it comes from outside."""
        return next((e for e in reversed(self.equations) if value in e.outputs), None)

    def close(self, results: Sequence[Value]) -> tuple[Lambda, tuple[Value, ...]]:
        """The lambda built so far and the outer values that its first parameters stand for."""
        results = tuple(map(self.use, results))
        return Lambda((*self.captures.values(), *self.parameters), tuple(self.equations), results), tuple(self.captures)

    def inline(self, body: Lambda, arguments: Sequence[Value]) -> tuple[Value, ...]:
        """Append a lambda's equations with its parameters replaced by the arguments."""
        table = dict(zip(body.parameters, map(self.use, arguments), strict=True))
        for equation in body.equations:
            outputs = tuple(Value(v.type, v.name) for v in equation.outputs)
            table.update(zip(equation.outputs, outputs, strict=True))
            self.equations.append(
                Equation(
                    equation.op,
                    tuple(table[v] for v in equation.inputs),
                    outputs,
                    equation.attributes,
                    equation.bodies,
                    equation.binds,
                    equation.source,
                )
            )
            self.defined.update(outputs)
        return tuple(table[v] for v in body.results)

    # --- arrays -----------------------------------------------------------------------------------------------------

    def constant(self, value: Any, dtype: DType, shape: tuple[int, ...] = ()) -> Value:
        """A constant: one number filling `shape`, or an array."""
        if isinstance(value, np.ndarray) and value.ndim:
            return self("constant", value=value, dtype=dtype, shape=value.shape)
        number = value.item() if isinstance(value, (np.ndarray, np.generic)) else value
        return self("constant", value=number, dtype=dtype, shape=tuple(shape))

    def filled(self, value: float, like: ListType) -> Value:
        """A value of the given type, list axes too, filled with one number."""
        if not like.axes:
            return self.constant(value, like.dtype, like.shape)
        # From the outermost axis inwards: the sizes of inner lists may vary with the outer ones.
        (filled,) = self.map(like.axes[0], [], lambda inner: [inner.filled(value, like.element)])
        return filled

    def repeat(self, value: Value, size: Size) -> Value:
        """A list of `size` copies."""
        (copies,) = self.map(size, [], lambda inner: [value])
        return copies

    def lift(self, op: str, /, *inputs: Value, **attributes: Any) -> Value:
        """An elementwise operation, under as many maps as its first input has list axes."""
        if not inputs[0].type.axes:
            return self(op, *inputs, **attributes)
        (output,) = self.map(
            inputs[0].type.axes[0], list(inputs), lambda inner, *elements: [inner.lift(op, *elements, **attributes)]
        )
        return output

    def add(self, left: Value | None, right: Value | None) -> Value | None:
        """The sum of two cotangents, either of which may be a symbolic zero (None)."""
        if left is None or right is None:
            return right if left is None else left
        return self.lift("add", left, right)

    def broadcast(self, value: Value, shape: tuple[int, ...], dims: tuple[int, ...] | None = None) -> Value:
        """Broadcast an array, NumPy's way (aligned at the right) when `dims` is left out."""
        own = value.type.shape
        if own == tuple(shape):
            return value
        if dims is None:
            dims = tuple(range(len(shape) - len(own), len(shape)))
        return self("broadcast", value, shape=tuple(shape), dims=tuple(dims))

    # --- lists ------------------------------------------------------------------------------------------------------

    def map(self, size: Size, lists: Sequence[Value], body: Callable[..., Iterable[Value]]) -> tuple[Value, ...]:
        """``map``: apply a body, given as a Python function of (inner builder, *elements), to each element.

        Lists that the body does not use are dropped.
        """
        inner = Builder(self, self.locate)
        inner.source = self.source
        elements = [inner.parameter(v.type.element, v.name) for v in lists]
        results = [inner.use(v) for v in body(inner, *elements)]
        return self.map_lambda(size, lists, inner, results)

    def map_lambda(
        self, size: Size, lists: Sequence[Value], inner: Builder, results: Sequence[Value]
    ) -> tuple[Value, ...]:
        """Close an inner builder as the body of a `map` equation here."""
        used = {v for equation in inner.equations for v in equation.inputs} | set(results)
        kept = [i for i, p in enumerate(inner.parameters) if p in used]
        inner.parameters = [inner.parameters[i] for i in kept]
        counts = inner.result_counts(results)
        body, captured = inner.close((*results, *counts.values()))
        return self.emit(
            "map",
            (*captured, *(lists[i] for i in kept)),
            {"size": size, "captured": len(captured)},
            (body,),
            tuple((name, len(results) + i) for i, name in enumerate(counts)),
            names=[v.name for v in results],
        )[: len(results)]

    def result_counts(self, results: Sequence[Value]) -> dict[str, Value]:
        """The counts of the sizes that this body determines and its results' types name: a combinator over the body has
        to hand them on."""
        named = {name for v in results for size in v.type.axes for name in size.names()}
        return {name: e.outputs[i] for e in self.equations for name, i in e.binds if name in named}

    def reduce(self, op: str, value: Value) -> Value:
        """Reduce the outermost list axis with a named operation (sum, max, min, prod)."""
        return self("reduce", value, op=op)

    def iota(self, size: Size) -> Value:
        """The list of indices 0, 1, … of a size."""
        return self("iota", size=size)

    def length(self, size: Size) -> Value:
        """A size as a number."""
        return self("length", size=size)

    def index_constant(self, value: int) -> Value:
        return self.constant(value, i64)
