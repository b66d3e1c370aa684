"""Equations of a flat program as bodies of their own: under the maps that they stand in, over their operands."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..compiler.builder import Builder
from ..compiler.ir import Lambda, Value
from ..compiler.sizes import Constant, Size
from ..kernels.flat import FlatEquation, FlatOpaque, FlatValue, Level

__all__ = ["alone", "list_size", "under_maps"]

Emit = Callable[[Builder, Sequence[Value]], Sequence[Value]]


def list_size(level: Level) -> Size:
    """The size of a level's lists."""
    return Constant(level.size) if isinstance(level.size, int) else level.size


def alone(item: FlatEquation | FlatOpaque) -> tuple[Lambda, tuple[FlatValue, ...], tuple[FlatValue, ...]]:
    """An equation as a body.

    Returns:
        The body, the values that it takes, those that it gives.
    """
    equation = item.equation
    opaque = isinstance(item, FlatOpaque)
    levels, outputs = (item.levels, item.outputs) if opaque else (item.output.lead, (item.output,))
    b = Builder()
    b.source = equation.source
    operands: dict[tuple[FlatValue, tuple[Level, ...]], Value] = {}
    references: list[tuple[Value, tuple[Level, ...]]] = []
    for value, reference in zip(equation.inputs, item.operands, strict=True):
        key = (reference.value, reference.lead)
        if key not in operands:
            operands[key] = b.parameter(value.type.listed(*map(list_size, reference.lead)), reference.value.name)
        references.append((operands[key], reference.lead))
    emit = lambda inner, values: inner.emit(equation.op, values, equation.attributes, equation.bodies)
    body, _ = b.close(under_maps(b, levels, references, emit))
    return body, tuple(v for v, _ in operands), tuple(outputs)


def under_maps(
    b: Builder, levels: Sequence[Level], references: Sequence[tuple[Value, tuple[Level, ...]]], emit: Emit
) -> Sequence[Value]:
    """What `emit` makes of values, under maps.

    Arguments:
        b: the builder around the maps.
        levels: the maps, outermost first.
        references: the values, each with the levels that it is a list over.
        emit: given the innermost builder and the elements there.
    """
    if not levels:
        return emit(b, [v for v, _ in references])
    level = levels[0]
    lists = [v for v, lead in references if lead and lead[0] is level]

    def body(inner: Builder, *elements: Value) -> Sequence[Value]:
        inner.source = b.source
        rest = iter(elements)
        inside = [(next(rest), lead[1:]) if lead and lead[0] is level else (v, lead) for v, lead in references]
        return under_maps(inner, levels[1:], inside, emit)

    return b.map(list_size(level), lists, body)
