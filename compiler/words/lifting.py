"""How words act: arrays aligned to one dtype and shape, lists lifted over."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import types
from ..errors import ShapeError, StructureError
from ..expression import Expression
from ..scope import current
from ..trace import map_all, plain, traced, unify_lists
from ..types import DType, boolean, i64, promote
from ..values import TracedArray, TracedList, Unknown, type_of

WORDS: dict[str, Expression] = {}
TORCH_NAMES = {"dim": "axis", "dims": "axis", "keepdim": "keepdims"}


def word(function: Callable[..., Any]) -> Expression:
    """Make a function a public word: an expression, found by its name from torch's functions too. What it calls axis=
    and keepdims=, as NumPy does, is also taken under torch's names."""
    name = function.__name__.rstrip("_")
    WORDS[name] = Expression(_under_both_names(function), name)
    return WORDS[name]


def _under_both_names(function: Callable[..., Any]) -> Callable[..., Any]:
    own = inspect.signature(function).parameters
    renamed = {torch: ours for torch, ours in TORCH_NAMES.items() if ours in own and torch not in own}
    if not renamed:
        return function

    @functools.wraps(function)
    def renaming(*arguments: Any, **keywords: Any) -> Any:
        return function(*arguments, **{renamed.get(name, name): value for name, value in keywords.items()})

    return renaming


def lifted(function: Callable[..., Any], arguments: Sequence[Any], where: str) -> Any:
    """Apply a function of arrays; over the elements where an argument is a list."""
    arguments = [plain(a) for a in arguments]
    lists = [a for a in arguments if isinstance(a, TracedList)]
    if not lists:
        for a in arguments:
            if not isinstance(a, (TracedArray, Unknown)):
                raise StructureError(f"{where} takes arrays; got {types.show(type_of(a))}. Apply it to the parts")
        return function(*arguments)
    deepest = max(lists, key=_depth)
    lists = [a for a in lists if _depth(a) == _depth(deepest)]
    alike = unify_lists(lists, where)

    def element(*elements: Any) -> Any:
        found = iter(elements)
        return lifted(function, [next(found) if any(a is x for x in lists) else a for a in arguments], where)

    return map_all(alike[0], element, *alike[1:])


def _depth(xs: TracedList) -> int:
    inner = xs.content
    return len(xs._sizes) + (_depth(inner) if isinstance(inner, TracedList) else 0)


def emit(op: str, *inputs: TracedArray, **attributes: Any) -> TracedArray:
    """Append a primitive to the body being traced."""
    return TracedArray(current()(op, *(x.value for x in inputs), **attributes))


def is_number(value: Any) -> bool:
    """A bare number takes the dtype of what it stands beside."""
    return isinstance(value, (bool, int, float)) and not isinstance(value, np.generic)


def aligned(arguments: Sequence[Any], dtype: DType | None = None) -> list[Any]:
    """Arrays of one dtype and one shape from what stands in an elementwise operation."""
    found = [a for a in arguments if not is_number(a) and not isinstance(a, Unknown)]
    if not found and any(isinstance(a, Unknown) for a in arguments):
        return []
    arrays = [traced(a) for a in found]
    common = dtype
    for a in arrays:
        common = a.dtype if common is None else promote(common, a.dtype)
    if common is not None and not common.is_float and any(isinstance(a, float) for a in arguments):
        common = current().program.float_dtype
    if common is boolean and any(is_number(a) and not isinstance(a, bool) for a in arguments):
        common = i64
    full = []
    for a in arguments:
        if isinstance(a, Unknown):
            a = traced(0.0)
        a = traced(a, common)
        full.append(cast_to(a, common) if common is not None else a)
    shape = broadcast_shape([a.shape for a in full])
    return [TracedArray(current().broadcast(a.value, shape)) for a in full]


def broadcast_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ShapeError(
            f"shapes {' and '.join(map(str, shapes))} do not broadcast together (shapes are those of one example, "
            "without a batch axis)"
        ) from None


def cast_to(x: TracedArray, dtype: DType) -> TracedArray:
    """An unpinned cast; nothing when the dtype is right."""
    return x if x.dtype is dtype else emit("cast", x, dtype=dtype, pinned=False)


def aligned_floats(arguments: Sequence[Any]) -> list[Any]:
    full = aligned(arguments)
    if full and not full[0].dtype.is_float:
        full = [cast_to(x, current().program.float_dtype) for x in full]
    return full


def elementwise(op: str, arguments: Sequence[Any], where: str, floats: bool = False, dtype: DType | None = None) -> Any:
    """An elementwise primitive with NumPy's broadcasting and promotion, lifted over lists."""
    if all(map(is_number, arguments)):
        arguments = [traced(a) for a in arguments]

    def apply(*arrays: Any) -> Any:
        # Bare numbers were left as they are, so that they take the arrays' dtype.
        found = iter(arrays)
        mixed = [a if is_number(a) else next(found) for a in arguments]
        full = aligned_floats(mixed) if floats else aligned(mixed, dtype)
        return emit(op, *full) if full else Unknown()

    return lifted(apply, [a for a in arguments if not is_number(a)], where)
