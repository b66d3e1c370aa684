"""Lists of different lengths: `Ragged`, made by `ragged`.

A padded tensor [rows, longest, ...] beside int64 tables of lengths, outermost first. What lies in the padding is never
read. Torch's own forms of such lists are in `flat_lists.py`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..compiler.errors import DeviceError, DtypeError, ShapeError, SizeError, StructureError
from .tree_input import first_array, map_product

__all__ = ["Ragged", "ragged"]

Product = Any
"""A tensor, or a tuple, NamedTuple or dict of products."""


class Ragged:
    """Rows of different lengths as a padded tensor and tables of lengths. Made by `ragged`; not changed afterwards.

    Attributes:
        data: [rows, longest, ...], or a product of such tensors. What lies in the padding may be anything.
        lengths: int64 tables where the data is: [rows] the length of each row; for lists of lists then [rows, longest],
            the length of each inner list; and so on.
        host: the tables on the CPU where they are known there, else None. By them two lists are compared without
            waiting for a device.
    """

    def __init__(self, data: Product, lengths: Sequence[Tensor], host: tuple[Tensor, ...] | None = None):
        self.data, self.lengths = data, tuple(lengths)
        self.host = self.lengths if host is None and self.lengths[0].device.type == "cpu" else host

    @property
    def device(self) -> torch.device:
        """Where the lengths are, and the data."""
        return self.lengths[0].device

    def to(self, *targets: Any, device: Any = None, dtype: torch.dtype | None = None) -> Ragged:
        """Move or convert, as `Tensor.to` does. A float dtype is that of the float tensors, an integer dtype that of
        the integer tensors; lengths stay int64.

        Example:
            >>> ragged([torch.ones(2)]).to("cpu", torch.float64).data.dtype
            torch.float64
        """
        for target in targets:
            device, dtype = (device, target) if isinstance(target, torch.dtype) else (target, dtype)

        def move(x: Tensor) -> Tensor:
            converts = dtype is not None and x.dtype != torch.bool and x.is_floating_point() == dtype.is_floating_point
            return x.to(device=device, dtype=dtype if converts else x.dtype)

        return Ragged(map_product(move, self.data), [table.to(device=device) for table in self.lengths], self.host)

    def unpad(self) -> list[Any]:
        """The rows as tensors [length, ...] (or products of them), lists of lists as nested lists. Differentiable.

        Waits for the device where the lengths are not known on the CPU.
        """
        return [row.unpad() if isinstance(row, Ragged) else row for row in self]

    def __len__(self) -> int:
        return self.lengths[0].size(0)

    def __iter__(self) -> Iterator[Any]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, row: Any) -> Any:
        """One row: a tensor [length, ...] or a product of them; of lists of lists a `Ragged`. Several rows, by a slice,
        a list or a tensor of indices, or a bool per row: a `Ragged`, padded to its own longest row.

        Raises:
            IndexError: there is no such row.
        """
        if isinstance(row, (slice, list)) or (isinstance(row, Tensor) and row.dim()):
            return self._rows(torch.as_tensor(row) if isinstance(row, list) else row)
        row = range(len(self))[operator.index(row)]
        length = int((self.host or self.lengths)[0][row])
        data = map_product(lambda x: x[row, :length], self.data)
        inner = [table[row, :length] for table in self.lengths[1:]]
        if not inner:
            return data
        return Ragged(data, inner, None if self.host is None else tuple(table[row, :length] for table in self.host[1:]))

    def _rows(self, rows: slice | Tensor) -> Ragged:
        tables = [table[rows] for table in self.lengths]
        host = (
            None
            if self.host is None
            else [table[rows.cpu() if isinstance(rows, Tensor) else rows] for table in self.host]
        )
        longest = [int(table.max()) if table.numel() else 0 for table in host or tables]

        def cut(x: Tensor, places: Sequence[int]) -> Tensor:
            for dim, extent in enumerate(places):
                x = x.narrow(1 + dim, 0, min(extent, x.size(1 + dim)))
            return x

        data = map_product(lambda x: cut(x[rows], longest), self.data)
        cut_tables = [cut(table, longest[:level]) for level, table in enumerate(tables)]
        cut_host = None if host is None else tuple(cut(table, longest[:level]) for level, table in enumerate(host))
        return Ragged(data, cut_tables, cut_host)

    def __repr__(self) -> str:
        shown = map_product(lambda x: f"{str(x.dtype).removeprefix('torch.')}{list(x.shape)}", self.data)
        tables = [table.tolist() if table.numel() <= 16 else "…" for table in self.host or self.lengths]
        return f"Ragged({shown}, lengths={', '.join(map(str, tables))})"


def ragged(x: Any, lengths: Any = None, *inner: Any) -> Ragged:
    """A batch of lists of different lengths.

    Arguments:
        x: a padded tensor [rows, longest, ...], or a product (tuple, NamedTuple, dict) of such tensors for lists that
            share their lengths. Without `lengths`, a Python list of rows instead: a tensor [length, ...] each, a
            product of such tensors, a list of numbers, or, for lists of lists, a list of such.
        lengths: whole numbers [rows]; or a bool mask [rows, longest], true at each row's first elements; for lists of
            lists a list of tables, or a mask [rows, longest, longest inner]. There, inner lists without elements at the
            end of a row count as padding.
        inner: for lists of lists, the lengths [rows, longest] of the inner lists, and so on inwards. In the padding
            they may be anything.

    Returns:
        A `Ragged`. Lengths are checked here, once, and lie where the data is; a later call does not look at them again.
        With lengths on a device this waits for it; under `torch.compile` lengths are not checked.

    Raises:
        SizeError: a length is negative or beyond the data, a table has the wrong shape or is not of whole numbers, a
            mask has a gap, there are no rows to take a shape from.
        ShapeError, DtypeError, DeviceError: the rows of a Python list do not fit together.
        StructureError: `x` is neither padded tensors with lengths nor a list of rows.

    Example:
        >>> ragged(torch.zeros(2, 5, 3), [4, 2])
        Ragged(float32[2, 5, 3], lengths=[4, 2])
        >>> ragged([torch.ones(2), torch.ones(1)]).data.tolist()
        [[1.0, 1.0], [1.0, 0.0]]
    """
    if lengths is None:
        if not isinstance(x, list):
            raise StructureError(
                f"ff.ragged was given a {type(x).__name__} without lengths. Give a padded tensor and its lengths or "
                "mask, ff.ragged(x, lengths), or a list with a tensor for each row"
            )
        return _from_rows(x)
    data = map_product(torch.as_tensor, x)
    leaves = _leaves(data)
    if not leaves:
        raise StructureError("ff.ragged was given a product without tensors. Give at least one padded tensor")
    tables = _tables(lengths, inner)
    if tables[0].dtype == torch.bool:
        if len(tables) > 1:
            raise SizeError("ff.ragged takes one mask, over all levels of lists. Give a single mask, or lengths")
        levels = tables[0].dim() - 1
    else:
        levels = len(tables)
    shape = _common_shape(leaves, levels + 1)
    if tables[0].dtype == torch.bool:
        tables = _from_mask(tables[0], shape)
    return Ragged(data, *_checked(tables, shape, leaves[0].device))


# --- lengths ----------------------------------------------------------------------------------------------------------


def _leaves(data: Product) -> list[Tensor]:
    found: list[Tensor] = []
    map_product(found.append, data)
    return found


def _tables(lengths: Any, inner: Sequence[Any]) -> list[Tensor]:
    """The tables, or the one mask, as tensors."""
    if isinstance(lengths, (list, tuple)) and not inner and len(lengths) and np.ndim(_plain(lengths[0])):
        first = _plain(lengths[0])
        if np.asarray(first).dtype != np.bool_:  # nested lists of bools are a mask
            lengths, inner = lengths[0], lengths[1:]
    try:
        tables = [torch.as_tensor(table) for table in (lengths, *inner)]
    except (TypeError, ValueError, RuntimeError) as error:
        raise SizeError(f"lengths are whole numbers, one per row; got {lengths!r} ({error})") from error
    # An empty Python list has no dtype of its own.
    tables = [
        table.long() if isinstance(given, list) and not table.numel() else table
        for given, table in zip((lengths, *inner), tables)
    ]
    for level, table in enumerate(tables):
        if table.is_floating_point() or table.is_complex() or (table.dtype == torch.bool and level):
            raise SizeError(
                f"lengths are whole numbers, a mask is bool; got {table.dtype}. Convert with .long() or .bool()"
            )
    return tables


def _plain(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else value


def _common_shape(leaves: Sequence[Tensor], dims: int) -> tuple[int, ...]:
    for leaf in leaves:
        if leaf.dim() < dims:
            raise SizeError(
                f"lengths of {dims - 1} level{'s' * (dims > 2)} belong to a tensor of {dims} or more dimensions; the "
                f"data is {list(leaf.shape)}. Give padded data [rows, longest, …]"
            )
        if leaf.shape[:dims] != leaves[0].shape[:dims]:
            raise SizeError(
                f"lists that share their lengths are padded alike; got {list(leaves[0].shape)} and {list(leaf.shape)}"
            )
        if leaf.device != leaves[0].device:
            raise DeviceError(f"the data lies on {leaves[0].device} and on {leaf.device}. Move it to one with .to")
    return tuple(leaves[0].shape[:dims])


def _at(index: Tensor) -> str:
    """A place in a table, as a user names it."""
    row, *inner = index.tolist()
    return f"row {row}" + "".join(f", inner list {i}" for i in inner)


def _from_mask(mask: Tensor, shape: tuple[int, ...]) -> list[Tensor]:
    """The tables of lengths of a mask."""
    if tuple(mask.shape) != shape or mask.dim() < 2:
        raise SizeError(f"a mask has the first axes of the data, {list(shape)}; got {list(mask.shape)}")
    if not torch.compiler.is_compiling():
        gaps = (mask[..., 1:] & ~mask[..., :-1]).any(-1)
        if gaps.any():
            raise SizeError(
                f"{_at(gaps.nonzero()[0])}: the mask is true again after it was false. Expected it true at the first "
                "elements only; move the elements that count to the front"
            )
    tables = [mask.sum(-1)]
    while tables[0].dim() > 1:
        exists = tables[0] > 0
        place = torch.arange(1, exists.size(-1) + 1, device=mask.device)
        # A leading zero, because a maximum over no inner lists at all is none.
        last = torch.nn.functional.pad(exists * place, (1, 0)).amax(-1)
        tables.insert(0, last)
    return tables


def _checked(
    tables: Sequence[Tensor], shape: tuple[int, ...], device: torch.device
) -> tuple[list[Tensor], tuple[Tensor, ...] | None]:
    """The tables as int64 where the data is, and on the CPU."""
    for level, table in enumerate(tables):
        if tuple(table.shape) != shape[: level + 1]:
            raise SizeError(
                f"the lengths of level {level + 1} have one entry for each list, {list(shape[: level + 1])}; got "
                f"{list(table.shape)}"
            )
    tables = [table.to(torch.int64) for table in tables]
    if torch.compiler.is_compiling():
        return [table.to(device) for table in tables], None
    host: list[Tensor] = []
    live = torch.ones(shape[:1], dtype=torch.bool, device="cpu")
    for level, table in enumerate(tables):
        here, extent = table.detach().cpu(), shape[level + 1]
        wrong = ((here < 0) | (here > extent)) & live
        if wrong.any():
            index = wrong.nonzero()[0]
            length = int(here[tuple(index)])
            what = "is negative" if length < 0 else f"is longer than the data, which has {extent} elements there"
            raise SizeError(
                f"{_at(index)}: the length {length} {what}. Expected 0 to {extent}; give each row's own length, or the "
                "data that the lengths belong to"
            )
        if not bool((here[~live] == 0).all()):  # so that tables that mean the same are the same
            here = torch.where(live, here, 0)
            tables[level] = here
        host.append(here)
        live = live.unsqueeze(-1) & (torch.arange(extent, device="cpu") < here.unsqueeze(-1))
    return [table.to(device) for table in tables], tuple(host)


# --- rows -------------------------------------------------------------------------------------------------------------


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float, np.generic)) or (isinstance(value, Tensor) and value.dim() == 0)


def _is_list_of_lists(value: Any) -> bool:
    return isinstance(value, list) and any(not _is_number(part) for part in value)


def _from_rows(rows: list[Any]) -> Ragged:
    data, tables = _padded_rows(rows)
    return Ragged(data, tables, tuple(table.cpu() for table in tables))


def _padded_rows(rows: list[Any]) -> tuple[Product, list[Tensor]]:
    """Padded data and tables of a list of rows; lists of lists as a list of all inner lists, grouped again."""
    if any(_is_list_of_lists(row) for row in rows):
        for number, row in enumerate(rows):
            if not isinstance(row, list) or (row and _is_number(row[0])):
                raise StructureError(
                    f"row {number} is no list of lists, as others are: {type(row).__name__}. Give rows of one kind"
                )
        data, tables = _padded_rows([part for row in rows for part in row])
        counts = [len(row) for row in rows]

        def group(x: Tensor) -> Tensor:
            return pad_sequence(x.split(counts), batch_first=True)

        outer = torch.tensor(counts, dtype=torch.int64, device=tables[0].device)
        return map_product(group, data), [outer, *map(group, tables)]
    columns = _columns(rows)
    lengths = [len(row) for row in _leaf_column(columns)]
    data = map_product(lambda column: _pad_column(column.rows, lengths), columns)
    leaf = first_array(data)
    return data, [torch.tensor(lengths, dtype=torch.int64, device=leaf.device)]


class _Column:
    """The rows of one leaf of a product."""

    def __init__(self, rows: list[Tensor]):
        self.rows = rows


def _columns(rows: list[Any]) -> Product:
    """A list of products as a product of columns."""
    model = next((row for row in rows if not (isinstance(row, list) and not row)), None)
    if model is None:
        raise SizeError(
            "ff.ragged was given no row with elements, so the shape of an element is not known. Give a padded tensor "
            "and lengths: ff.ragged(torch.zeros(0, 0, 8), torch.zeros(0, dtype=torch.int64))"
        )
    rows = [_like(model, row, number) for number, row in enumerate(rows)]
    if isinstance(model, Mapping):
        return {key: _columns([row[key] for row in rows]) for key in model}
    if isinstance(model, tuple):
        made = [_columns([row[i] for row in rows]) for i in range(len(model))]
        return type(model)(*made) if hasattr(model, "_fields") else tuple(made)
    return _Column(rows)


def _like(model: Any, row: Any, number: int) -> Any:
    """A row that has the structure of another one; a row without elements is made from it."""
    if isinstance(row, list) and not row:
        return map_product(lambda x: _row(x, number)[:0], model)
    if isinstance(model, (Mapping, tuple)):
        fits = type(row) is type(model) and len(row) == len(model)
        if not fits or (isinstance(model, Mapping) and set(row) != set(model)):
            raise StructureError(f"row {number} is not the same product as the first one. Give rows of one structure")
        return row
    return _row(row, number)


def _row(row: Any, number: int) -> Tensor:
    try:
        row = torch.as_tensor(row)
    except (TypeError, ValueError, RuntimeError) as error:
        raise StructureError(f"row {number} is a {type(row).__name__}, which is no tensor ({error})") from error
    if row.dim() == 0:
        raise ShapeError(f"row {number} is a number. Expected a list: a tensor [length, …]")
    return row


def _leaf_column(columns: Product) -> list[Tensor]:
    found = first_array(columns)
    if found is None:
        raise StructureError("ff.ragged was given rows without tensors. Give a tensor [length, …] for each row")
    return found.rows


def _pad_column(rows: list[Tensor], lengths: list[int]) -> Tensor:
    first = rows[0]
    for number, row in enumerate(rows):
        if row.shape[1:] != first.shape[1:]:
            raise ShapeError(
                f"row {number} has elements of shape {list(row.shape[1:])}, row 0 of {list(first.shape[1:])}. Rows "
                "differ in length only"
            )
        if row.dtype != first.dtype:
            raise DtypeError(f"row {number} is {row.dtype}, row 0 {first.dtype}. Convert them to one dtype with .to")
        if row.device != first.device:
            raise DeviceError(f"row {number} lies on {row.device}, row 0 on {first.device}. Move them to one with .to")
        if len(row) != lengths[number]:
            raise SizeError(f"row {number} has parts of {lengths[number]} and {len(row)} elements. Expected one length")
    return pad_sequence(rows, batch_first=True)
