"""Arguments of a call → inputs of the graph and tables of its list sizes (`bind`); outputs → the user's structures
(`unbind`, from `unbinding.py`).

Everything here is plain Python on shapes, done once per call. Data is looked at only to compare tables of lengths that
are known on the CPU, and not under `torch.compile`, which takes padded tensors, `ragged`, packed and jagged lists
whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..compiler import types
from ..compiler.errors import DeviceError, DtypeError, ShapeError, SizeError, StructureError
from ..compiler.ir import Graph
from ..compiler.program import Entry, Port
from ..compiler.sizes import flat_size, total_of
from ..compiler.types import DType, f32, is_namedtuple
from .binding_names import argument, expected_shape, show_port, show_value
from .binding_sizes import Level, Seen, fit, settle
from .binding_trees import open_forest, pad_forest
from .dtypes import torch_dtype
from .flat_lists import Flat, is_nested, unwrap
from .forest import Forest
from .layout import flat_sizes
from .ragged import Ragged
from .unbinding import unbind

__all__ = ["Bound", "bind", "unbind"]


@dataclass
class Bound:
    """The arguments of one call, ready for a graph.

    Attributes:
        tensors: one per data input of the graph, in their order, padded: [list axes…, *shape]; lists of the sizes in
            `layouts` without padding: [total, …].
        tables: per declared list size, int64 lengths with one dim per axis in its `over`; None where no list is ragged.
        extents: per declared list size (and the batch), the longest.
        forms: how the lists of a size came in, for those that leave as they came: absent for padded tensors.
        layouts: how the lists of a size lie, of those that are not padded.
    """

    tensors: list[Tensor]
    tables: dict[str, Tensor | None] = field(default_factory=dict)
    extents: dict[str, int] = field(default_factory=dict)
    forms: dict[str, Level] = field(default_factory=dict)
    layouts: dict[str, Flat] = field(default_factory=dict)

    @property
    def flat(self) -> tuple[str, ...]:
        """The sizes whose lists are not padded."""
        return tuple(sorted(self.layouts))

    def table_list(self, graph: Graph) -> list[Tensor | None]:
        """The tables of the sizes that a graph declares and does not take as inputs, in that order; see
        `executable.Executable.tables`."""
        out: list[Tensor | None] = []
        for size in graph.sizes:
            if size.input is None:
                out.append(self.tables.get(size.name))
                if size.name in self.layouts:
                    out += self.layouts[size.name].tables()[1:]
        return out


def bind(
    entry: Entry,
    arguments: Sequence[Any],
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    unpadded: Callable[[torch.device], bool] | None = None,
) -> Bound:
    """Read the arguments of a call.

    Arguments:
        entry: the entry point that is called.
        arguments: one per declared type; a single product may also be given as its parts. Arrays: [batch, *shape]
            (without batch: [*shape]). Lists: a padded tensor [batch, time, *shape], `Ragged`, `PackedSequence` or
            jagged nested tensor; lists of products: a product of such, or one `Ragged` that holds a product. Grids:
            [batch, *extents, *shape]. Trees: a `Forest`, or a list of nested tuples ``(value, [children])`` as
            `forest` takes it (where the type has kinds, a node's value is the pair ``(kind, value)``). Numbers and
            NumPy arrays are converted; a number serves all examples.
        dtype: the float dtype of the model's parameters, where it is not the declared one (after ``.double()``).
        device: where numbers and NumPy arrays go; left out, where the first tensor is.
        unpadded: whether packed and jagged lists stay as they are on a device, where the program allows it; left out,
            they are padded.

    Returns:
        A `Bound`. Lists of one size that are padded differently get zeros up to the longest.

    Raises:
        StructureError: another number of arguments, another product, a list where an array is declared.
        ShapeError, DtypeError, DeviceError: a tensor of another rank, static shape or dtype than declared; two devices.
        SizeError: batches differ, lists that must have one length do not. Lengths that lie on a device only (jagged
            lists on a GPU) are not compared, as that would wait for it.
        TreeError: trees of another arity or other kinds than declared.
        WindowError: a window is larger than its padded input.

    Example:
        >>> entry = trace_entry("main", ff.fold(step, init=ff.zeros(4)), (ff.Seq(ff.f32[3]),))
        >>> bind(entry, (ragged([torch.ones(5, 3), torch.ones(2, 3)]),)).tables
        {'B': None, 'T': tensor([5, 2])}
    """
    reader = _Reader(entry, dtype, device if device is not None else _device(arguments))
    ports, values = entry.inputs, list(arguments)
    if len(ports) == 1 and ports[0].kind == "product" and len(values) == len(ports[0].parts) != 1:
        values = [types.rebuild(ports[0].product, iter(values))]
    if len(ports) != len(values):
        raise StructureError(
            f"{entry.name} takes {len(ports)} argument{'s' * (len(ports) != 1)}, got {len(values)}. Its type is "
            f"{entry.signature}"
        )
    for number, (port, value) in enumerate(zip(ports, values, strict=True)):
        reader.read(port, value, argument(number, len(ports)), ("B",) if entry.batched else (), None)
    sizes = settle(entry, reader.seen)
    extents = sizes.extents
    bound = Bound([], {}, extents, sizes.forms)
    for size in entry.graph.sizes:
        level = sizes.levels.get(size.name)
        bound.tables[size.name] = None if level is None else fit(level.table, [extents[name] for name in size.over])
    if unpadded is not None and unpadded(reader.device):
        bound.layouts = _layouts(entry.graph, sizes.forms)
        extents.update({total_of(name).name: layout.total for name, layout in bound.layouts.items()})
    flat = {name: "B" for name in bound.layouts}
    for tensor, axes, form in zip(reader.tensors, reader.axes, reader.forms, strict=True):
        if not isinstance(tensor, Tensor):  # a number, for every example
            if "B" not in extents:
                raise ShapeError(
                    f"{entry.name} was given numbers alone, so the batch is not known. Give tensors [batch]"
                )
            made = torch.full((), tensor.value, dtype=tensor.dtype, device=reader.device)
            bound.tensors.append(made.expand(extents["B"]))
            continue
        name = flat_size(axes, flat)
        known = [size.evaluate(extents.__getitem__) if size.names() <= extents.keys() else None for size in axes]
        if name is not None and form is not None:
            bound.tensors.append(fit(_arranged(tensor, form, bound.layouts[name], name), [None, *known[2:]]))
            continue
        tensor = fit(tensor if form is None else form.pad(tensor), known)
        bound.tensors.append(tensor if name is None else bound.layouts[name].take(tensor))
    return bound


def _layouts(graph: Graph, forms: Mapping[str, Level]) -> dict[str, Flat]:
    """How lists lie that stay as they came: those of the sizes that allow it, whose first list is packed or jagged."""
    given = {name: level.flat for name, level in forms.items() if level.flat is not None}
    allowed = flat_sizes(graph) if given else ()
    return {name: flat for name, flat in given.items() if name in allowed}


def _arranged(values: Tensor, form: Flat, wanted: Flat, name: str) -> Tensor:
    """The values of one list as they lie in another one of the same lengths."""
    if form.total != wanted.total:
        raise SizeError(
            f"lists of one length ({name}) hold {wanted.total} and {form.total} elements in all. Give them equal "
            "lengths"
        )
    return values if wanted.like(form) else wanted.rearrange(values, form)


def _device(value: Any) -> torch.device | None:
    """Where the first tensor of the arguments lies."""
    if isinstance(value, (Tensor, Ragged, Forest)):
        return value.device
    if isinstance(value, PackedSequence):
        return value.data.device
    if isinstance(value, Mapping):
        value = tuple(value.values())
    # Trees written as nested tuples may be long, and hold numbers.
    if isinstance(value, (tuple, list)) and len(value) <= 64:
        for part in value:
            found = _device(part)
            if found is not None:
                return found
    return None


class _Number(NamedTuple):
    """A number given where each example has a scalar."""

    value: Any
    dtype: torch.dtype


class _Reader:
    """Collects the tensors of a call, in the order of the graph's data inputs, and what they show of list sizes."""

    def __init__(self, entry: Entry, dtype: torch.dtype | None, device: torch.device | None):
        self.entry, self.device = entry, device if device is not None else torch.device("cpu")
        self.default: DType = f32 if entry.stored.bits == 16 else entry.stored
        self.dtype = dtype if dtype is not None else torch_dtype(entry.stored)
        self.first = len(entry.parameters) + entry.seeded
        self.tensors: list[Tensor | _Number] = []
        self.forms: list[Flat | None] = []
        self.axes: list[tuple[Any, ...]] = []
        self.seen: dict[str, list[Seen]] = {}
        self.anchor: str | None = None
        self.lenient = False

    def read(self, port: Port, value: Any, place: str, axes: tuple[str, ...], levels: tuple[Level, ...] | None) -> None:
        """Read one argument or a part of it.

        Arguments:
            port: its declared structure.
            value: what was given.
            place: what messages call it.
            axes: the names of the axes in front, of the batch and of enclosing lists.
            levels: lengths along all axes but the first, where an enclosing list came with lengths.
        """
        if port.kind == "tree":
            self._tree(port, value, place, axes)
            return
        unwrapped = unwrap(value, place)
        if unwrapped is not None:
            given, depth = len(unwrapped.lengths), len(axes) + _list_depth(port) - 1
            if levels is not None or given > depth:
                raise StructureError(
                    f"{place} takes {show_port(port, axes)}, got {show_value(value)}, which is {given} "
                    f"list{'s' * (given > 1)} deep. Give the data as a tensor, or declare it as ff.Seq(…)"
                )
            host = unwrapped.host or (None,) * given
            levels = tuple(Level(t, h, unwrapped.flat) for t, h in zip(unwrapped.lengths, host))
            value = unwrapped.data
        if port.kind == "product":
            self._product(port, value, place, axes, levels)
        elif port.kind == "list":
            inner = (*axes, *map(str, port.sizes))
            if port.grid and levels is not None and len(levels) >= len(axes):
                raise StructureError(
                    f"{place} takes {show_port(port, axes)}, got {show_value(value)} with lengths. A grid is "
                    "rectangular: give a tensor"
                )
            self.read(port.parts[0], value, place, inner, levels)
        else:
            self._array(port, value, place, axes, levels or ())

    def _product(self, port: Port, value: Any, place: str, axes: tuple[str, ...], levels: Any) -> None:
        model = port.product
        if isinstance(model, Mapping):
            fits = isinstance(value, Mapping) and set(value) == set(model)
            parts = [(f"{place}[{key!r}]", value[key]) for key in model] if fits else []
        else:
            fits = isinstance(value, (tuple, list)) and len(value) == len(model)
            names = [f".{n}" for n in model._fields] if is_namedtuple(model) else [f"[{i}]" for i in range(len(model))]
            parts = [(f"{place}{name}", part) for name, part in zip(names, value, strict=True)] if fits else []
        if not fits:
            raise StructureError(
                f"{place} takes {show_port(port, axes)}, got {show_value(value)}. Give its parts in that structure"
            )
        for part, (name, item) in zip(port.parts, parts, strict=True):
            self.read(part, item, name, axes, levels)

    def _array(self, port: Port, value: Any, place: str, axes: tuple[str, ...], levels: tuple[Level, ...]) -> None:
        parameter = self.entry.graph.body.parameters[self.first + port.leaf]
        dtype, shape = self._declared(port), tuple(port.type.shape)
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, (bool, int, float)):
            self._convertible({bool: "b", int: "i", float: "f"}[type(value)], dtype, place)
            if shape or len(axes) > self.entry.batched:
                raise ShapeError(f"{place} takes a tensor {expected_shape(axes, shape)}; got the number {value}")
            number = _Number(value, dtype)
            made = number if axes else torch.full((), value, dtype=dtype, device=self.device)
            self._append(made, parameter.type.axes)
            return
        if isinstance(value, np.ndarray):
            self._convertible(value.dtype.kind, dtype, place)
            value = torch.from_numpy(np.array(value, order="C")).to(self.device, dtype)
        if not isinstance(value, Tensor) or is_nested(value):
            hint = ". Lists of different lengths are given with ff.ragged(…)" if isinstance(value, list) else ""
            raise StructureError(f"{place} takes {show_port(port, axes)}, got {show_value(value)}{hint}")
        expected = expected_shape(axes, shape)
        flat = levels[0].flat if levels else None
        extents = value.shape if flat is None else (flat.rows.size(0), flat.longest, *value.shape[1:])
        if len(extents) != len(axes) + len(shape):
            hint = " (ff.f32[8] is the type of one example; a batch stands in front)" if self.entry.batched else ""
            raise ShapeError(
                f"{place} takes a tensor of rank {len(axes) + len(shape)}, {expected}; got one of rank {len(extents)}, "
                f"{list(extents)}{hint}"
            )
        if tuple(extents[len(axes) :]) != shape:
            raise ShapeError(f"{place} takes a tensor {expected}; got {list(extents)}")
        for axis, name in enumerate(axes):
            level = levels[axis - 1] if 0 < axis <= len(levels) else None
            self.seen.setdefault(name, []).append(Seen(place, extents[axis], level))
        self._append(self._converted(value, dtype, place), parameter.type.axes, place, flat)

    def _append(
        self, tensor: Tensor | _Number, axes: tuple[Any, ...], place: str | None = None, form: Flat | None = None
    ) -> None:
        if place is not None and isinstance(tensor, Tensor):
            if self.anchor is None:
                self.anchor, self.device = place, tensor.device
            elif tensor.device != self.device:
                raise DeviceError(
                    f"{self.anchor} lies on {self.device}, but {place} on {tensor.device}. Move them to one device "
                    "with .to(device)"
                )
        self.tensors.append(tensor)
        self.forms.append(form)
        self.axes.append(axes)

    def _converted(self, value: Tensor, dtype: torch.dtype, place: str) -> Tensor:
        """A tensor in its declared dtype.

        Raises:
            DtypeError: conversion would change what it means; integers of any width are converted.
        """
        found = value.dtype
        if found == dtype:
            return value
        whole = not found.is_floating_point and not found.is_complex and found != torch.bool
        if whole and not dtype.is_floating_point and dtype != torch.bool:
            return value.to(dtype)
        if dtype.is_floating_point and (
            self.lenient  # numbers written in a tree
            or (found.is_floating_point and torch.is_autocast_enabled(value.device.type))  # as torch's own layers do
        ):
            return value.to(dtype)
        raise DtypeError(f"{place} takes {dtype}, got {found}. Convert it with x.to({dtype}), or the model with .to")

    def _convertible(self, kind: str, dtype: torch.dtype, place: str) -> None:
        """Refuse numbers and NumPy arrays (of a NumPy kind) that would lose what they mean."""
        taken = "biuf" if dtype.is_floating_point else "b" if dtype == torch.bool else "iu"
        if kind not in taken:
            named = {"b": "truth values", "i": "whole numbers", "u": "whole numbers", "f": "floats"}.get(
                kind, "no numbers"
            )
            raise DtypeError(f"{place} takes {dtype}, got {named}. Convert them yourself if you mean that")

    def _tree(self, port: Port, value: Any, place: str, axes: tuple[str, ...]) -> None:
        """A forest: parent, slot, height, root and kind, then the values of the nodes."""
        batched, written = self.entry.batched, not isinstance(value, Forest)
        forest = open_forest(port.tree, value, place, batched, self.dtype, self.device)
        made = pad_forest(forest, batched)
        first = self.first + port.leaf
        nodes, arity = map(str, port.sizes)
        for tensor, parameter in zip(made.tables, self.entry.graph.body.parameters[first:]):
            self._append(tensor, parameter.type.axes, place)
        for name, extent, level in (
            *((axis, len(forest), None) for axis in axes),
            (nodes, made.longest, made.nodes),
            (arity, made.widest, made.arity),
        ):
            self.seen.setdefault(name, []).append(Seen(place, extent, level))
        values = made.values if len(forest) else self._no_values(port.parts[0])
        self.lenient = written
        levels = None if made.nodes is None else (made.nodes,)
        self.read(port.parts[0], values, f"the node value of {place}", (*axes, nodes), levels)
        self.lenient = False

    def _no_values(self, port: Port) -> Any:
        """The values of an empty forest, which has none to take shapes from."""
        if port.kind == "product":
            return types.rebuild(port.product, map(self._no_values, port.parts))
        if port.kind == "list":
            return self._no_values(port.parts[0])
        dtype = self._declared(port)
        shape = (*(0 for _ in port.type.axes), *port.type.shape)
        return torch.zeros((0, *shape), dtype=dtype, device=self.device)

    def _declared(self, port: Port) -> torch.dtype:
        declared = self.entry.graph.body.parameters[self.first + port.leaf].type.dtype
        return self.dtype if declared == self.default else torch_dtype(declared)


def _list_depth(port: Port) -> int:
    """How many list axes stand in a port, where it nests deepest."""
    inner = max([0, *map(_list_depth, port.parts)])
    return inner + len(port.sizes) if port.kind == "list" else inner
