"""Making lists and taking them apart: ``iota``, ``length``, ``element``/``scatter_element``, ``stack``/``unstack``.

``length`` with the attribute `positive` refuses an empty list: a mean divides by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import DtypeError, EmptyError, IndexRangeError, ShapeError
from ..records import Attributes, Combinator, register
from ..sizes import Constant
from ..types import ListType, array, i64
from .reduce import zeros

Run = Callable[..., Any]


def _infer_iota(types: Sequence[ListType], attributes: Attributes, bodies: Sequence[Any]) -> tuple[ListType, ...]:
    return (array(i64).listed(attributes["size"]),)


def _evaluate_iota(run: Run, equation: Any, inputs: Sequence[Any], sizes: Any) -> Sequence[Any]:
    return [[np.int64(i) for i in range(sizes.value(equation.attributes["size"]))]]


def _infer_length(types: Sequence[ListType], attributes: Attributes, bodies: Sequence[Any]) -> tuple[ListType, ...]:
    return (array(i64),)


def _evaluate_length(run: Run, equation: Any, inputs: Sequence[Any], sizes: Any) -> Sequence[Any]:
    count = sizes.value(equation.attributes["size"])
    if count == 0 and equation.attributes.get("positive"):
        raise EmptyError("a mean is taken of an empty list", equation.source)
    return [np.int64(count)]


register(Combinator("iota", _infer_iota, _evaluate_iota, None))
register(Combinator("length", _infer_length, _evaluate_length, None))


def _infer_element(types: Sequence[ListType], attributes: Attributes, bodies: Sequence[Any]) -> tuple[ListType, ...]:
    xs, index = types
    if not xs.axes:
        raise ShapeError(f"indexing a list takes a list; got {xs}")
    if index != array(i64):
        raise DtypeError(f"the index of a list is one i64; got {index}")
    return (xs.element,)


def _evaluate_element(run: Run, equation: Any, inputs: Sequence[Any], sizes: Any) -> Sequence[Any]:
    xs, index = inputs
    if not xs:
        raise EmptyError("an element is taken of an empty list", equation.source)
    if not 0 <= index < len(xs):
        raise IndexRangeError(f"the index {int(index)} is out of range for a list of {len(xs)}", equation.source)
    return [xs[int(index)]]


def _augment_element(d: Any, b: Any, equation: Any, needs: Sequence[bool], useful: Sequence[bool]) -> Any:
    xs, index = equation.inputs
    outputs = b.emit("element", (xs, index))
    return outputs, lambda b, cts: [b("scatter_element", cts[0], index, size=xs.type.axes[0]), None]


def _infer_scatter(types: Sequence[ListType], attributes: Attributes, bodies: Sequence[Any]) -> tuple[ListType, ...]:
    if types[1] != array(i64):
        raise DtypeError(f"the index of a list is one i64; got {types[1]}")
    return (types[0].listed(attributes["size"]),)


def _evaluate_scatter(run: Run, equation: Any, inputs: Sequence[Any], sizes: Any) -> Sequence[Any]:
    value, index = inputs
    size = equation.attributes["size"]
    out = zeros(equation.output.type, sizes)
    if not 0 <= index < sizes.value(size):
        raise IndexRangeError(f"the index {int(index)} is out of range for a list of {len(out)}", equation.source)
    out[int(index)] = value
    return [out]


def _augment_scatter(d: Any, b: Any, equation: Any, needs: Sequence[bool], useful: Sequence[bool]) -> Any:
    value, index = equation.inputs
    outputs = b.emit("scatter_element", (value, index), equation.attributes)
    return outputs, lambda b, cts: [b("element", cts[0], index), None]


register(Combinator("element", _infer_element, _evaluate_element, _augment_element))
register(Combinator("scatter_element", _infer_scatter, _evaluate_scatter, _augment_scatter))


def _infer_unstack(types: Sequence[ListType], attributes: Attributes, bodies: Sequence[Any]) -> tuple[ListType, ...]:
    (own,) = types
    if own.axes or not own.shape:
        raise ShapeError(f"an array of rank 1 or more becomes a list along its first axis; got {own}")
    return (ListType(own.dtype, (Constant(own.shape[0]),), own.shape[1:]),)


def _infer_stack(types: Sequence[ListType], attributes: Attributes, bodies: Sequence[Any]) -> tuple[ListType, ...]:
    (own,) = types
    if len(own.axes) != 1 or not isinstance(own.axes[0], Constant):
        raise ShapeError(f"a list becomes an array where its size is a constant and its elements are arrays; got {own}")
    return (array(own.dtype, own.axes[0].value, *own.shape),)


def _linear(name: str, transposed: str) -> Callable[..., Any]:
    def augment(d: Any, b: Any, equation: Any, needs: Sequence[bool], useful: Sequence[bool]) -> Any:
        return b.emit(name, equation.inputs), lambda b, cts: [b(transposed, cts[0])]

    return augment


register(
    Combinator("unstack", _infer_unstack, lambda run, e, inputs, sizes: [list(inputs[0])], _linear("unstack", "stack"))
)
register(
    Combinator(
        "stack",
        _infer_stack,
        lambda run, e, inputs, sizes: [
            np.reshape(np.asarray(inputs[0], e.output.type.dtype.numpy), e.output.type.shape)
        ],
        _linear("stack", "unstack"),
    )
)
