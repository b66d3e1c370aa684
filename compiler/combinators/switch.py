"""``switch``: one of several bodies, chosen by an index (node kinds; a leaf or a node).

Inputs: the index (i64), then captured values, all of which every body takes. The adjoint is a switch on the same index
whose bodies recompute their branch: a branch's inner values exist only where it was taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..builder import Builder
from ..errors import CarryError, DtypeError, IndexRangeError
from ..records import Attributes, Combinator, register
from ..types import ListType, array, i64
from .map import check_parameters, cotangents


def _infer(types: Sequence[ListType], attributes: Attributes, bodies: Sequence[Any]) -> tuple[ListType, ...]:
    if types[0] != array(i64):
        raise DtypeError(f"the index of a switch is one i64; got {types[0]}")
    results = tuple(v.type for v in bodies[0].results)
    for body in bodies:
        check_parameters("switch", types[1:], body)
        if tuple(v.type for v in body.results) != results:
            raise CarryError(
                f"every branch gives the same types; got {results} and {tuple(v.type for v in body.results)}"
            )
    return results


def _evaluate(run: Callable[..., Any], equation: Any, inputs: Sequence[Any], sizes: Any) -> Sequence[Any]:
    index = int(inputs[0])
    if not 0 <= index < len(equation.bodies):
        raise IndexRangeError(f"the index {index} is out of range for {len(equation.bodies)} kinds", equation.source)
    return run(equation.bodies[index], inputs[1:], sizes)


def _augment(d: Any, b: Any, equation: Any, needs: Sequence[bool], useful: Sequence[bool]) -> Any:
    index, *captured = equation.inputs
    pullbacks = [d.vjp(body, needs[1:], useful, save=False) for body in equation.bodies]
    outputs = b.emit("switch", equation.inputs, {}, equation.bodies)
    reached = sorted({i for pullback in pullbacks for i in pullback.reached})
    arriving = sorted({j for pullback in pullbacks for j in pullback.useful})

    def pull(b: Any, cts: Sequence[Any]) -> list[Any]:
        branches = []
        values = [*captured, *cotangents(b, cts, outputs, arriving)]
        for pullback in pullbacks:
            inner = Builder()
            inner.source = equation.source
            parameters = [inner.parameter(v.type, v.name) for v in values]
            ct = dict(zip(arriving, parameters[len(captured) :], strict=True))
            arguments = [*(parameters[i] for i in pullback.kept), *(ct[j] for j in pullback.useful)]
            pulled = dict(zip(pullback.reached, inner.inline(pullback.backward, arguments), strict=True))
            branches.append(inner.close([pulled.get(i) or inner.filled(0.0, captured[i].type) for i in reached])[0])
        results = b.emit("switch", (index, *values), {}, branches)
        out: list[Any] = [None] * len(equation.inputs)
        for i, ct_value in zip(reached, results, strict=True):
            out[1 + i] = ct_value
        return out

    return outputs, pull


register(Combinator("switch", _infer, _evaluate, _augment))
