"""``map``: a body applied to each element of lists of one size.

Inputs: captured values, then lists. Body: captured values, then elements → elements of the output lists.
The adjoint is a map; a captured value's cotangent is the sum over the elements of what each emits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import ShapeError
from ..records import Attributes, Combinator, register
from ..types import ListType


def check_parameters(name: str, expected: Sequence[ListType], body: Any) -> None:
    """A body's parameters have the types that its inputs give them."""
    found = tuple(v.type for v in body.parameters)
    if tuple(expected) != found:
        raise ShapeError(f"the body of {name} takes {found}, its inputs give {tuple(expected)}")


def elements(name: str, lists: Sequence[ListType], size: Any) -> tuple[ListType, ...]:
    """Element types of lists that must all have `size` outermost."""
    for type_ in lists:
        if not type_.axes or type_.axes[0] != size:
            raise ShapeError(f"{name} runs over lists of size {size}; got {type_}")
    return tuple(t.element for t in lists)


def _infer(types: Sequence[ListType], attributes: Attributes, bodies: Sequence[Any]) -> tuple[ListType, ...]:
    (body,), size, captured = bodies, attributes["size"], attributes["captured"]
    check_parameters("map", (*types[:captured], *elements("map", types[captured:], size)), body)
    return tuple(v.type.listed(size) for v in body.results)


def _evaluate(run: Callable[..., Any], equation: Any, inputs: Sequence[Any], sizes: Any) -> Sequence[Any]:
    captured, size = equation.attributes["captured"], equation.attributes["size"]
    rows = []
    for index in range(sizes.value(size)):
        element = [xs[index] for xs in inputs[captured:]]
        rows.append(run(equation.bodies[0], (*inputs[:captured], *element), sizes.enter(size, index)))
    return [[row[j] for row in rows] for j in range(len(equation.outputs))]


def cotangents(b: Any, cts: Sequence[Any], outputs: Sequence[Any], useful: Sequence[int]) -> list[Any]:
    """The cotangents of the useful outputs, zeros where none arrived."""
    return [cts[j] if cts[j] is not None else b.filled(0.0, outputs[j].type) for j in useful]


def _augment(d: Any, b: Any, equation: Any, needs: Sequence[bool], useful: Sequence[bool]) -> Any:
    captured, size = equation.attributes["captured"], equation.attributes["size"]
    pullback = d.vjp(equation.bodies[0], needs, useful)
    inputs = equation.inputs
    outputs = b.emit("map", inputs, equation.attributes, (pullback.forward,), pullback.binds(equation))
    count = len(equation.bodies[0].results)
    residuals = outputs[count:]

    def pull(b: Any, cts: Sequence[Any]) -> list[Any]:
        kept = [inputs[i] for i in pullback.kept]
        kept_captured = sum(i < captured for i in pullback.kept)
        pulled = b.emit(
            "map",
            (*kept, *residuals, *cotangents(b, cts, outputs, pullback.useful)),
            {"size": size, "captured": kept_captured},
            (pullback.backward,),
        )
        result: list[Any] = [None] * len(inputs)
        for i, ct in zip(pullback.reached, pulled, strict=True):
            result[i] = b.reduce("sum", ct) if i < captured else ct
        return result

    return outputs[:count], pull


register(Combinator("map", _infer, _evaluate, _augment))
