"""``split`` a list into segments and ``join`` them: what checkpointing a long scan is written with.

``split(xs)``, attributes `length` and `inner`: a list of ceil(T / length) lists, all of `length` but the last. The
second output counts each segment's elements and binds the name `inner`. ``join`` is its inverse and its adjoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..records import Attributes, Combinator, register
from ..sizes import Named, Size
from ..types import ListType, array, i64


def segment_count(size: Size, length: int) -> Size:
    """The number of segments of a list of this size."""
    return size.quotient(length - 1, length)


def _infer_split(types: Sequence[ListType], attributes: Attributes, bodies: Sequence[Any]) -> tuple[ListType, ...]:
    size, length, inner = attributes["size"], attributes["length"], attributes["inner"]
    count = segment_count(size, length)
    out = []
    for type_ in types:
        if not type_.axes or type_.axes[0] != size:
            raise ShapeError(f"split takes lists of size {size}; got {type_}")
        out.append(type_.element.listed(count, inner))
    return (array(i64).listed(count), *out)


def _evaluate_split(run: Callable[..., Any], equation: Any, inputs: Sequence[Any], sizes: Any) -> Sequence[Any]:
    length, total = equation.attributes["length"], sizes.value(equation.attributes["size"])
    starts = range(0, total, length)
    return [
        [np.int64(min(length, total - s)) for s in starts],
        *([xs[s : s + length] for s in starts] for xs in inputs),
    ]


def _augment_split(d: Any, b: Any, equation: Any, needs: Sequence[bool], useful: Sequence[bool]) -> Any:
    a = equation.attributes
    outputs = b.emit("split", equation.inputs, a, (), equation.binds)

    def pull(b: Any, cts: Sequence[Any]) -> list[Any]:
        return [None if ct is None else b("join", ct, size=a["size"], length=a["length"]) for ct in cts[1:]]

    return outputs, pull


def _infer_join(types: Sequence[ListType], attributes: Attributes, bodies: Sequence[Any]) -> tuple[ListType, ...]:
    (own,), size, length = types, attributes["size"], attributes["length"]
    if len(own.axes) < 2 or own.axes[0] != segment_count(size, length) or not isinstance(own.axes[1], Named):
        raise ShapeError(f"join takes the segments of a list of size {size}; got {own}")
    return (own.element.element.listed(size),)


def _augment_join(d: Any, b: Any, equation: Any, needs: Sequence[bool], useful: Sequence[bool]) -> Any:
    (xs,), a = equation.inputs, equation.attributes
    outputs = b.emit("join", (xs,), a)

    def pull(b: Any, cts: Sequence[Any]) -> list[Any]:
        attributes = {"size": a["size"], "length": a["length"], "inner": xs.type.axes[1]}
        # The counts were bound where the segments were made; binding them again gives the same numbers.
        _, pulled = b.emit("split", (cts[0],), attributes)
        return [pulled]

    return outputs, pull


register(Combinator("split", _infer_split, _evaluate_split, _augment_split))
register(
    Combinator(
        "join",
        _infer_join,
        lambda run, e, inputs, sizes: [[x for segment in inputs[0] for x in segment]],
        _augment_join,
    )
)
