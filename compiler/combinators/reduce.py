"""Reductions of a list: ``reduce`` with a named operation, ``reduce_with`` with a traced associative one.

``reduce`` strips the outermost list axis; what is reduced may itself be lists. ``reduce_with`` takes captured values,
the identity, then lists; its body takes captured values, left, right → result. It differentiates as the scan that it
equals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import DtypeError, EmptyError, ShapeError
from ..records import RECORDS, Attributes, Combinator, register
from ..types import ListType, boolean
from .map import check_parameters, elements

OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "sum": np.add,
    "prod": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}
NEUTRAL = {"sum": 0, "prod": 1}


def _infer(types: Sequence[ListType], attributes: Attributes, bodies: Sequence[Any]) -> tuple[ListType, ...]:
    (own,) = types
    if attributes["op"] not in OPERATIONS:
        raise ShapeError(f"no list reduction is called {attributes['op']}")
    if not own.axes:
        raise ShapeError(f"{attributes['op']} over a list takes a list; got {own}")
    if own.dtype is boolean:
        raise DtypeError(f"{attributes['op']} does not take bool; cast it with ff.cast")
    return (own.element,)


def zeros(type_: ListType, sizes: Any, value: float = 0) -> Any:
    """A value of the reference evaluator filled with one number: nested Python lists of arrays."""
    if not type_.axes:
        return np.full(type_.shape, value, type_.dtype.numpy)
    return [zeros(type_.element, sizes.enter(type_.axes[0], i), value) for i in range(sizes.value(type_.axes[0]))]


def combine(operation: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
    """An elementwise operation on nested Python lists of arrays."""
    if isinstance(left, list):
        return [combine(operation, x, y) for x, y in zip(left, right, strict=True)]
    return operation(left, right)


def _evaluate(run: Callable[..., Any], equation: Any, inputs: Sequence[Any], sizes: Any) -> Sequence[Any]:
    op, (xs,) = equation.attributes["op"], inputs
    if op in NEUTRAL:
        total = zeros(equation.output.type, sizes, NEUTRAL[op])
    elif xs:
        total, xs = xs[0], xs[1:]
    else:
        raise EmptyError(f"{op} over an empty list has no value", equation.source)
    for x in xs:
        total = combine(OPERATIONS[op], total, x)
    return [total]


def _augment(d: Any, b: Any, equation: Any, needs: Sequence[bool], useful: Sequence[bool]) -> Any:
    op, (xs,) = equation.attributes["op"], equation.inputs
    size = xs.type.axes[0]
    if op == "prod":
        return _as_scan(d, b, equation, needs, useful)
    outputs = b.emit("reduce", (xs,), equation.attributes)

    def pull(b: Any, cts: Sequence[Any]) -> list[Any]:
        if op == "sum":
            return [b.repeat(cts[0], size)]
        # Ties share the cotangent evenly, as torch.amax does.
        dtype = xs.type.dtype

        def hit(inner: Any, x: Any) -> list[Any]:
            return [inner.lift("cast", inner.lift("eq", x, outputs[0]), dtype=dtype, pinned=False)]

        (hits,) = b.map(size, [xs], hit)
        share = b.lift("div", cts[0], b.reduce("sum", hits))
        none = b.filled(0.0, share.type)
        (ct,) = b.map(size, [xs], lambda inner, x: [inner.lift("select", inner.lift("eq", x, outputs[0]), share, none)])
        return [ct]

    return outputs, pull


def _as_scan(d: Any, b: Any, equation: Any, needs: Sequence[bool], useful: Sequence[bool]) -> Any:
    """A product: the fold that it equals."""
    (xs,) = equation.inputs
    one = b.filled(1.0, xs.type.element)
    inner = type(b)(b)
    inner.source = equation.source
    carry, x = inner.parameter(one.type), inner.parameter(xs.type.element)
    body, _ = inner.close([inner.lift("mul", carry, x)])
    attributes = {"captured": 0, "carries": 1, "size": xs.type.axes[0], "reverse": False}
    fold = _Application((one, xs), attributes, (body,), equation.source)
    outputs, pull = RECORDS["scan"].augment(d, b, fold, [False, *needs], useful)
    return outputs, lambda b, cts: [pull(b, cts)[1]]


class _Application:
    """What `augment` reads of an equation that stands for another."""

    def __init__(self, inputs: Any, attributes: Any, bodies: Any, source: Any):
        self.inputs, self.attributes, self.bodies, self.binds, self.source = inputs, attributes, bodies, (), source


def _infer_with(types: Sequence[ListType], attributes: Attributes, bodies: Sequence[Any]) -> tuple[ListType, ...]:
    (body,), captured, carries = bodies, attributes["captured"], attributes["carries"]
    identity = tuple(types[captured : captured + carries])
    lists = elements("reduce", types[captured + carries :], attributes["size"])
    check_parameters("reduce", (*types[:captured], *identity, *lists), body)
    results = tuple(v.type for v in body.results)
    if not results == identity == lists:
        raise ShapeError(
            f"the operation of reduce gives {results}; its identity is {identity} and the elements are {lists}"
        )
    return identity


def _evaluate_with(run: Callable[..., Any], equation: Any, inputs: Sequence[Any], sizes: Any) -> Sequence[Any]:
    a = equation.attributes
    captured, carries = a["captured"], a["carries"]
    constants, total, lists = inputs[:captured], inputs[captured : captured + carries], inputs[captured + carries :]
    for t in range(sizes.value(a["size"])):
        total = run(equation.bodies[0], (*constants, *total, *(xs[t] for xs in lists)), sizes.enter(a["size"], t))
    return total


def _augment_with(d: Any, b: Any, equation: Any, needs: Sequence[bool], useful: Sequence[bool]) -> Any:
    fold = _Application(equation.inputs, {**equation.attributes, "reverse": False}, equation.bodies, equation.source)
    return RECORDS["scan"].augment(d, b, fold, needs, useful)


register(Combinator("reduce", _infer, _evaluate, _augment))
register(Combinator("reduce_with", _infer_with, _evaluate_with, _augment_with))
