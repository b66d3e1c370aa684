"""Equations of a flat program as bodies of their own: under the maps that they stand in, over their operands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ..compiler.builder import Builder
from ..compiler.ir import Equation, Lambda, Value, mentioned_sizes
from ..compiler.primitives.contraction import split
from ..compiler.sizes import Constant, Named, Size, flat_size, stored, total_of
from ..compiler.types import ListType
from ..kernels.flat import FlatEquation, FlatOpaque, FlatValue, Level

__all__ = ["Alone", "alone", "list_size", "under_maps"]

Emit = Callable[[Builder, Sequence[Value]], Sequence[Value]]


def list_size(level: Level) -> Size:
    """The size of a level's lists."""
    return Constant(level.size) if isinstance(level.size, int) else level.size


@dataclass(frozen=True)
class Alone:
    """An equation as a body.

    Attributes:
        body: what is computed.
        operands, outputs: the values that it takes, and those that it gives.
        flat: the flat size over whose elements it runs; None where it takes and gives padded lists.
    """

    body: Lambda
    operands: tuple[FlatValue, ...]
    outputs: tuple[FlatValue, ...]
    flat: str | None = None


@dataclass(frozen=True)
class _Standing:
    """An equation, the types of its inputs, and the maps that it stands in: its own, and those of each input."""

    equation: Equation
    types: tuple[ListType, ...]
    levels: tuple[Level, ...]
    leads: tuple[tuple[Level, ...], ...]


def alone(item: FlatEquation | FlatOpaque, flat: Mapping[str, str]) -> Alone:
    """An equation as a body: over the elements of flat lists, where all that it takes and gives are such.

    Arguments:
        item: the equation.
        flat: per flat size, the size that it varies with.
    """
    opaque = isinstance(item, FlatOpaque)
    levels, outputs = (item.levels, item.outputs) if opaque else (item.output.lead, (item.output,))
    types = tuple(v.type for v in item.equation.inputs)
    standing = _Standing(item.equation, types, tuple(levels), tuple(r.lead for r in item.operands))
    found = None
    for name, outer in flat.items():
        merged = _over_elements(standing, name, outer)
        if merged is not None:
            standing, found = merged, name
            break
    equation = standing.equation
    b = Builder()
    b.source = equation.source
    operands: dict[tuple[FlatValue, tuple[Level, ...]], Value] = {}
    references: list[tuple[Value, tuple[Level, ...]]] = []
    for type_, lead, reference in zip(standing.types, standing.leads, item.operands, strict=True):
        key = (reference.value, reference.lead)
        if key not in operands:
            operands[key] = b.parameter(type_.listed(*map(list_size, lead)), reference.value.name)
        references.append((operands[key], lead))
    emit = lambda inner, values: inner.emit(equation.op, values, equation.attributes, equation.bodies)
    body, _ = b.close(under_maps(b, standing.levels, references, emit))
    return Alone(body, tuple(v for v, _ in operands), tuple(outputs), found)


def _over_elements(standing: _Standing, name: str, outer: str) -> _Standing | None:
    """An equation with one axis in the place of rows and the lists of a flat size in them; None where it has only one
    of the two somewhere, or none of them anywhere."""
    total, equation, attributes = total_of(name), standing.equation, dict(standing.equation.attributes)
    merged: dict[Level, Level] = {}

    def levels(given: tuple[Level, ...]) -> tuple[Level, ...]:
        for d, (row, time) in enumerate(pairwise(given)):
            if (row.size, time.size) == (Named(outer), Named(name)):
                level = merged.setdefault(time, Level(total, row.depth))
                return (*given[:d], level, *given[d + 2 :])
        return given

    def type_of(given: ListType) -> ListType:
        return ListType(given.dtype, stored(given.axes, {name: outer}), given.shape)

    if equation.op == "contract":
        spec = _merged_labels(equation, name, outer)
        if spec is None:
            return None
        attributes["spec"] = spec
    made = _Standing(
        replace(equation, attributes=attributes),
        tuple(map(type_of, standing.types)),
        levels(standing.levels),
        tuple(map(levels, standing.leads)),
    )
    left = {n for type_ in made.types for axis in type_.axes for n in axis.names()}
    left |= {n for lead in (made.levels, *made.leads) for level in lead for n in list_size(level).names()}
    left |= {n for v in equation.outputs for n in _names(type_of(v.type))}
    inside = mentioned_sizes([replace(equation, inputs=(), outputs=())])
    if {name, outer} & (left | inside) or total.name not in left:
        return None
    return made


def _names(type_: ListType) -> set[str]:
    return {n for axis in type_.axes for n in axis.names()}


def _merged_labels(equation: Equation, name: str, outer: str) -> str | None:
    """The labels of a contraction with one in the place of those of rows and of the lists in them; None where one of
    these stands alone."""
    texts = split(equation.attributes["spec"])
    types = [v.type for v in (*equation.inputs, *equation.outputs)]
    pairs = {text[:2] for text, type_ in zip(texts, types, strict=True) if flat_size(type_.axes, {name: outer})}
    for pair in pairs:
        if any((pair[0] in text or pair[1] in text) and not text.startswith(pair) for text in texts):
            return None
        texts = [text.replace(pair, pair[0]) if text.startswith(pair) else text for text in texts]
    left, right, output = texts
    return f"{left},{right}->{output}"


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
