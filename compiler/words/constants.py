"""Constants: arrays of zeros, ones and counts; structures like another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import types
from ..errors import ShapeError
from ..scope import current
from ..trace import map_all, plain
from ..types import DType
from ..values import TracedArray, TracedList, Unknown
from .lifting import word


def shape_of(shape: tuple[Any, ...]) -> tuple[int, ...]:
    shape = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    for n in shape:
        if not isinstance(n, (int, np.integer)):
            raise ShapeError(f"a shape is whole numbers; got {shape}")
    return tuple(map(int, shape))


def numpy_dtype(dtype: DType | None) -> Any:
    return np.float64 if dtype is None else dtype.numpy


def extents_of(shape: tuple[Any, ...]) -> tuple[int, ...]:
    """The shape of an array that is made.

    Raises:
        ShapeError: an extent is no whole number, or negative.
    """
    found = shape_of(shape)
    if any(n < 0 for n in found):
        raise ShapeError(f"a shape is whole numbers, not negative; got {found}")
    return found


def zeros(*shape: Any, dtype: DType | None = None) -> np.ndarray:
    """An array of zeros: ``zeros(3, 4)`` or ``zeros((3, 4))``. It has the program's float dtype unless one is given."""
    return np.zeros(extents_of(shape), numpy_dtype(dtype))


def ones(*shape: Any, dtype: DType | None = None) -> np.ndarray:
    """An array of ones."""
    return np.ones(extents_of(shape), numpy_dtype(dtype))


def full(shape: Any, value: float, dtype: DType | None = None) -> np.ndarray:
    """An array filled with one number (of the program's float dtype for a float, i64 for a whole number)."""
    return np.full(extents_of((shape,)), value, None if dtype is None else dtype.numpy)


def eye(n: int, m: int | None = None, dtype: DType | None = None) -> np.ndarray:
    """The identity matrix."""
    return np.eye(*extents_of((n, n if m is None else m)), dtype=numpy_dtype(dtype))


def arange(*bounds: int, dtype: DType | None = None) -> np.ndarray:
    """Whole numbers (or floats) from start to stop by step, as NumPy has it; static."""
    return np.arange(*bounds) if dtype is None else np.arange(*bounds, dtype=dtype.numpy)


def linspace(start: float, stop: float, count: int) -> np.ndarray:
    """`count` numbers from start to stop, both included."""
    return np.linspace(start, stop, count)


def filled_like(x: Any, value: float) -> Any:
    def fill(a: Any) -> Any:
        if isinstance(a, Unknown):
            return a
        return TracedArray(current().constant(value, a.dtype, a.shape))

    x = plain(x)
    if isinstance(x, TracedList):
        return map_all(x, lambda element: filled_like(element, value))
    if isinstance(x, (tuple, Mapping)):
        parts = [filled_like(part, value) for part in (x.values() if isinstance(x, Mapping) else x)]
        return dict(zip(x, parts, strict=True)) if isinstance(x, Mapping) else types.rebuild(x, iter(parts))
    return fill(x)


@word
def zeros_like(x: Any) -> Any:
    """Zeros in the structure of x (lists, grids and products too), of which only types and sizes are read."""
    return filled_like(x, 0)


@word
def ones_like(x: Any) -> Any:
    """Ones in the structure of x."""
    return filled_like(x, 1)
