"""Naming a value: representations and taps."""

from __future__ import annotations

from typing import Any

from .. import types
from ..errors import TraceError
from ..expression import require
from ..scope import is_tracing
from ..trace import traced
from ..types import Rep
from ..values import NamedProduct, TracedArray, TracedList, TracedTree


def introduce(rep: Rep, value: Any) -> Any:
    """``Word(x)``: name a value.

    Raises:
        RepresentationError: the value is not of the type that the name stands for.
    """
    if not is_tracing():
        raise TraceError(f"{rep.name}(…) names a value of a program; call it inside of one")
    value = traced(value)
    if isinstance(value, TracedArray):
        value = TracedArray(value.value)
    require(value, types.strip(rep.type) if not isinstance(rep.type, Rep) else rep.type, f"what {rep.name}(…) names")
    if isinstance(value, TracedArray):
        return TracedArray(value.value, rep)
    if isinstance(value, TracedList):
        return TracedList(value._sizes, value.content, value.grid, rep, value.static_length)
    if isinstance(value, TracedTree):
        return TracedTree(
            value.tables, value.root, value.kind, value.size, value.arity_size, value.type, value.content, rep
        )
    return NamedProduct(rep, value.content if isinstance(value, NamedProduct) else value)
