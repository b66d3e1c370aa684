"""The oracle: a NumPy float64 evaluator of the un-optimised IR, one example at a time, in plain loops.

It shares no code with laws, adjoint, eager evaluator or kernels: an operation means what its record's `numpy` (or
`evaluate`) says. Lists are Python lists, arrays NumPy arrays; a list's length is its own, there is no padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..compiler.errors import FoldfuseError, SizeError
from ..compiler.ir import Graph, Lambda
from ..compiler.records import RECORDS, Primitive
from ..compiler.sizes import Size
from ..compiler.types import ListType

__all__ = ["SizeTable", "evaluate", "run"]


@dataclass(frozen=True)
class SizeTable:
    """The sizes known where a body is evaluated.

    Attributes:
        tables: per name, an integer, or nested lists of integers with one level per axis in `over`.
        over: per name, the axes (as text) that the table still varies with, outermost first.
    """

    tables: Mapping[str, Any]
    over: Mapping[str, tuple[str, ...]]

    def value(self, size: Size) -> int:
        """A size here, as a number."""

        def lookup(name: str) -> int:
            if name not in self.tables:
                raise SizeError(f"the size {name} is not known")
            return int(self.tables[name])

        return int(size.evaluate(lookup))

    def enter(self, size: Size, index: int) -> SizeTable:
        """The sizes inside element `index` of a loop over `size`."""
        axis = str(size)
        inside = [name for name, over in self.over.items() if over[:1] == (axis,)]
        if not inside:
            return self
        tables, over = dict(self.tables), dict(self.over)
        for name in inside:
            tables[name], over[name] = tables[name][index], over[name][1:]
        return SizeTable(tables, over)

    def bind(self, name: str, table: Any, over: tuple[str, ...]) -> SizeTable:
        """These sizes and one more."""
        return SizeTable({**self.tables, name: table}, {**self.over, name: over})


def run(body: Lambda, arguments: Sequence[Any], sizes: SizeTable) -> tuple[Any, ...]:
    """Evaluate a body.

    Arguments:
        body: the lambda.
        arguments: an array per parameter, under Python lists for its list axes.
        sizes: the sizes known here.

    Returns:
        A value per result.
    """
    values = dict(zip(body.parameters, arguments, strict=True))
    for equation in body.equations:
        record = RECORDS[equation.op]
        inputs = [values[v] for v in equation.inputs]
        try:
            if isinstance(record, Primitive):
                # NumPy warns where an intermediate overflows; the result says so itself.
                with np.errstate(all="ignore"):
                    outputs: Sequence[Any] = [_primitive(record, equation, inputs, sizes)]
            else:
                outputs = record.evaluate(run, equation, inputs, sizes)
        except FoldfuseError as error:
            raise error.at(equation.source) from None
        for name, index in equation.binds:
            over = tuple(map(str, equation.outputs[index].type.axes))
            sizes = sizes.bind(name, outputs[index], over)
        values.update(zip(equation.outputs, outputs, strict=True))
    return tuple(values[v] for v in body.results)


def _primitive(record: Primitive, equation: Any, inputs: Sequence[Any], sizes: SizeTable) -> Any:
    if not any(v.type.axes for v in equation.inputs):
        return record.numpy(*inputs, **equation.attributes)
    # A contraction over list axes: what lies beyond a list's end adds nothing to a sum.
    arrays = [_padded(x, v.type) for x, v in zip(inputs, equation.inputs, strict=True)]
    extents: dict[str, int] = {}
    for x, v in zip(arrays, equation.inputs, strict=True):
        for d, size in enumerate(v.type.axes):
            extents[str(size)] = max(extents.get(str(size), 0), x.shape[d])
    for i, (x, v) in enumerate(zip(arrays, equation.inputs, strict=True)):
        arrays[i] = _grown(x, (*(extents[str(size)] for size in v.type.axes), *v.type.shape))
    return _trimmed(record.numpy(*arrays, **equation.attributes), equation.output.type, sizes)


def _padded(nested: Any, type_: ListType) -> np.ndarray:
    """Nested lists of arrays as one array, zeros beyond the end of a list."""
    if not type_.axes:
        return np.asarray(nested, type_.dtype.numpy)
    rows = [_padded(x, type_.element) for x in nested]
    if not rows:
        return np.zeros((0,) * len(type_.axes) + type_.shape, type_.dtype.numpy)
    longest = tuple(max(row.shape[d] for row in rows) for d in range(rows[0].ndim))
    return np.stack([_grown(row, longest) for row in rows])


def _grown(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An array with zeros appended along its axes."""
    out = np.zeros(shape, values.dtype)
    out[tuple(map(slice, values.shape))] = values
    return out


def _trimmed(values: np.ndarray, type_: ListType, sizes: SizeTable) -> Any:
    """An array as nested lists of the lengths that the sizes say; what no operand reaches (a sum over an empty list) is
    zero."""
    if not type_.axes:
        return values if values.shape == type_.shape else np.zeros(type_.shape, values.dtype)
    nothing = np.zeros((0,) * (len(type_.axes) - 1) + type_.shape, values.dtype)
    return [
        _trimmed(values[i] if i < len(values) else nothing, type_.element, sizes.enter(type_.axes[0], i))
        for i in range(sizes.value(type_.axes[0]))
    ]


def evaluate(graph: Graph, arguments: Sequence[Any], tables: Mapping[str, Any] | None = None) -> tuple[Any, ...]:
    """Evaluate a graph.

    Arguments:
        graph: any graph, optimised or not, a program or an adjoint.
        arguments: one per input; a list axis is a Python list (or an array's leading axis, all of whose rows count).
        tables: per declared size, its value or table of lengths (nested lists over the axes it varies with).

    Returns:
        A value per output, lists as Python lists.
    """
    tables = dict(tables or {})
    for declaration in graph.sizes:
        if declaration.input is not None:
            tables[declaration.name] = arguments[declaration.input]
    over = {d.name: d.over for d in graph.sizes}
    missing = [d.name for d in graph.sizes if d.name not in tables]
    if missing:
        raise SizeError(f"the size {missing[0]} of {graph.name} is not given")
    return run(graph.body, arguments, SizeTable(tables, over))
