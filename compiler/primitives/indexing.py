"""Selection by computed indices: rows of a table, and along an axis. Each selection's adjoint is a scatter and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import DtypeError, IndexRangeError, ShapeError
from ..records import Attributes, Primitive, Refusal, Sample, register
from ..types import ListType, array, f32, f64
from .elementwise import no_lists
from .structure import check_axis


def _check_index(name: str, type_: ListType) -> None:
    if type_.dtype.kind != "int":
        raise DtypeError(f"{name} takes whole numbers as index; got {type_}. Declare it as ff.i64")


def _check_range(index: Any, size: int) -> None:
    bad = np.asarray(index)[(np.asarray(index) < 0) | (np.asarray(index) >= size)]
    if bad.size:
        raise IndexRangeError(
            f"the index {int(bad.flat[0])} is out of range for a table of {size}; indices run from 0 to {size - 1}"
        )


# --- gather: rows of a table; scatter_add: its adjoint ----------------------------------------------------------------


def _infer_gather(types: Sequence[ListType], attributes: Attributes) -> tuple[ListType, ...]:
    no_lists("indexing", types)
    table, index = types
    check_axis(attributes["axis"], len(table.shape))
    _check_index("indexing", index)
    axis = attributes["axis"]
    return (table.with_shape(*table.shape[:axis], *index.shape, *table.shape[axis + 1 :]),)


def _numpy_gather(table: Any, index: Any, axis: int) -> Any:
    _check_range(index, table.shape[axis])
    return np.take(table, index, axis)


def _infer_scatter(types: Sequence[ListType], attributes: Attributes) -> tuple[ListType, ...]:
    no_lists("indexing", types)
    updates, index = types
    axis, size = attributes["axis"], attributes["size"]
    _check_index("indexing", index)
    if updates.shape[axis : axis + len(index.shape)] != index.shape:
        raise ShapeError(f"updates of {updates} do not fit the index {index} at axis {axis}")
    return (updates.with_shape(*updates.shape[:axis], size, *updates.shape[axis + len(index.shape) :]),)


def _numpy_scatter(updates: Any, index: Any, axis: int, size: int) -> Any:
    index, updates = np.asarray(index), np.asarray(updates)
    _check_range(index, size)
    flat = updates.reshape(*updates.shape[:axis], index.size, *updates.shape[axis + index.ndim :])
    out = np.zeros((*flat.shape[:axis], size, *flat.shape[axis + 1 :]), updates.dtype)
    np.add.at(np.moveaxis(out, axis, 0), index.reshape(-1), np.moveaxis(flat, axis, 0))
    return out


register(
    Primitive(
        "gather",
        _infer_gather,
        _numpy_gather,
        lambda b, equation, cts: (
            b(
                "scatter_add",
                cts[0],
                equation.inputs[1],
                axis=equation.attributes["axis"],
                size=equation.types[0].shape[equation.attributes["axis"]],
            ),
            None,
        ),
        "free",
        samples=(
            Sample((array(f64, 4, 3), np.array(2)), {"axis": 0}),
            Sample((array(f64, 4, 3), np.array([[0, 2], [1, 1]])), {"axis": 1}),
        ),
        refusals=(
            Refusal((array(f32, 4, 3), array(f32)), {"axis": 0}, DtypeError, "ff.i64"),
            Refusal((array(f32), array(f32)), {"axis": 0}, IndexError, "per example"),
        ),
    )
)
register(
    Primitive(
        "scatter_add",
        _infer_scatter,
        _numpy_scatter,
        lambda b, equation, cts: (b("gather", cts[0], equation.inputs[1], axis=equation.attributes["axis"]), None),
        "elementwise",
        samples=(
            Sample((array(f64, 3), np.array(2)), {"axis": 0, "size": 4}),
            Sample((array(f64, 4, 2, 2), np.array([[0, 2], [1, 1]])), {"axis": 1, "size": 3}),
        ),
        refusals=(Refusal((array(f32, 3), array(f32)), {"axis": 0, "size": 4}, DtypeError, "ff.i64"),),
    )
)


# --- gather_along: one index per element; scatter_along: its adjoint --------------------------------------------------


def _infer_gather_along(types: Sequence[ListType], attributes: Attributes) -> tuple[ListType, ...]:
    no_lists("take_along_axis", types)
    table, index = types
    axis = attributes["axis"]
    check_axis(axis, len(table.shape))
    _check_index("take_along_axis", index)
    if len(index.shape) != len(table.shape) or any(
        n != m for d, (n, m) in enumerate(zip(index.shape, table.shape, strict=True)) if d != axis
    ):
        raise ShapeError(
            f"take_along_axis takes an index that agrees with the array in the other axes; got {table} and {index}"
        )
    return (table.with_shape(*index.shape),)


def _numpy_gather_along(table: Any, index: Any, axis: int) -> Any:
    _check_range(index, table.shape[axis])
    return np.take_along_axis(table, index, axis)


def _infer_scatter_along(types: Sequence[ListType], attributes: Attributes) -> tuple[ListType, ...]:
    no_lists("take_along_axis", types)
    updates, index = types
    _check_index("take_along_axis", index)
    if updates.shape != index.shape:
        raise ShapeError(f"updates and index have one shape; got {updates} and {index}")
    shape = list(updates.shape)
    shape[attributes["axis"]] = attributes["size"]
    return (updates.with_shape(*shape),)


def _numpy_scatter_along(updates: Any, index: Any, axis: int, size: int) -> Any:
    _check_range(index, size)
    shape = list(updates.shape)
    shape[axis] = size
    out = np.zeros(shape, updates.dtype)
    where = list(np.indices(index.shape))
    where[axis] = index
    np.add.at(out, tuple(where), updates)
    return out


register(
    Primitive(
        "gather_along",
        _infer_gather_along,
        _numpy_gather_along,
        lambda b, equation, cts: (
            b(
                "scatter_along",
                cts[0],
                equation.inputs[1],
                axis=equation.attributes["axis"],
                size=equation.types[0].shape[equation.attributes["axis"]],
            ),
            None,
        ),
        "free",
        samples=(Sample((array(f64, 2, 3), np.array([[0, 2], [1, 1]])), {"axis": 1}),),
        refusals=(
            Refusal((array(f32, 3), array(f32, 3)), {"axis": 0}, DtypeError, "ff.i64"),
            Refusal((array(f32, 3), array(f32, 3, 1)), {"axis": 0}, DtypeError, "ff.i64"),
        ),
    )
)
register(
    Primitive(
        "scatter_along",
        _infer_scatter_along,
        _numpy_scatter_along,
        lambda b, equation, cts: (
            b("gather_along", cts[0], equation.inputs[1], axis=equation.attributes["axis"]),
            None,
        ),
        "elementwise",
        samples=(Sample((array(f64, 2, 2), np.array([[0, 2], [1, 1]])), {"axis": 1, "size": 3}),),
        refusals=(Refusal((array(f32, 3), array(f32, 3)), {"axis": 0, "size": 3}, DtypeError, "ff.i64"),),
    )
)
