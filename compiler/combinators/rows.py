"""``accumulate_rows``: rows of updates added up at computed indices, over any number of lists.

Inputs: updates ``dtype[A… | I…, row…]`` and indices ``i64[A… | I…]`` with the same list axes ``A…``. Attribute `size`.
Output: an array ``dtype[size, row…]``; its row r is the sum of all updates whose index is r.

It is what the gradient of a table of rows (an embedding) becomes: the sum over a list of a `scatter_add` per element,
of which no element makes a table of its own. Its adjoint selects rows under maps over the same lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import DtypeError, IndexRangeError, ShapeError
from ..records import Attributes, Combinator, register
from ..types import ListType, array


def _infer(types: Sequence[ListType], attributes: Attributes, bodies: Sequence[Any]) -> tuple[ListType, ...]:
    updates, index = types
    if index.dtype.kind != "int":
        raise DtypeError(f"accumulate_rows takes whole numbers as index; got {index}. Declare it as ff.i64")
    if updates.axes != index.axes or updates.shape[: len(index.shape)] != index.shape:
        raise ShapeError(f"the updates {updates} of accumulate_rows do not fit its index {index}")
    return (array(updates.dtype, attributes["size"], *updates.shape[len(index.shape) :]),)


def _leaves(updates: Any, index: Any, depth: int) -> Iterator[tuple[Any, Any]]:
    if depth == 0:
        yield updates, index
        return
    for update, at in zip(updates, index, strict=True):
        yield from _leaves(update, at, depth - 1)


def _evaluate(run: Callable[..., Any], equation: Any, inputs: Sequence[Any], sizes: Any) -> Sequence[Any]:
    size, type_ = equation.attributes["size"], equation.output.type
    total = np.zeros(type_.shape, type_.dtype.numpy)
    for update, index in _leaves(*inputs, len(equation.types[0].axes)):
        bad = np.asarray(index)[(np.asarray(index) < 0) | (np.asarray(index) >= size)]
        if bad.size:
            raise IndexRangeError(
                f"the index {int(bad.flat[0])} is out of range for a table of {size}; indices run from 0 to {size - 1}",
                equation.source,
            )
        np.add.at(total, index, update)
    return [total]


def _augment(d: Any, b: Any, equation: Any, needs: Sequence[bool], useful: Sequence[bool]) -> Any:
    updates, index = equation.inputs
    outputs = b.emit("accumulate_rows", (updates, index), equation.attributes)

    def select(b: Any, table: Any, at: Any) -> Any:
        if not at.type.axes:
            return b("gather", table, at, axis=0)
        (rows,) = b.map(at.type.axes[0], [at], lambda inner, element: [select(inner, table, element)])
        return rows

    return outputs, lambda b, cts: [select(b, cts[0], index), None]


register(Combinator("accumulate_rows", _infer, _evaluate, _augment))
