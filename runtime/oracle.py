"""The oracle behind `model.reference`: padded tensors to nested lists of arrays, the reference evaluator, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..compiler.ir import Graph
from ..compiler.program import Entry, Port
from ..compiler.sizes import Size
from ..compiler.types import ListType, is_namedtuple
from .dtypes import torch_dtype
from .forest import Forest
from .ragged import Ragged
from .reference import SizeTable, evaluate


def doubled(value: Any) -> Any:
    """A structure of arguments in float64, detached, on the CPU."""
    if isinstance(value, Tensor):
        if value.is_nested:
            return value.detach().cpu().to(torch.float64) if value.is_floating_point() else value.cpu()
        value = value.detach().cpu()
        return value.double() if value.is_floating_point() else value
    if isinstance(value, np.ndarray):
        return torch.as_tensor(value.astype(np.float64) if value.dtype.kind == "f" else value)
    if isinstance(value, float):
        return torch.tensor(value, dtype=torch.float64)
    if isinstance(value, Ragged):
        value = value.to("cpu")
        return Ragged(doubled(value.data), value.lengths)
    if isinstance(value, Forest):
        return replace(value, values=doubled(value.values))
    if isinstance(value, torch.nn.utils.rnn.PackedSequence):
        return value.cpu().double() if value.data.is_floating_point() else value.cpu()
    if is_namedtuple(value):
        return type(value)(*map(doubled, value))
    if isinstance(value, Mapping):
        return {key: doubled(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(map(doubled, value))
    return value


def size_table(graph: Graph, tables: Mapping[str, Tensor | None], extents: Mapping[str, int]) -> SizeTable:
    """The sizes of a call as the reference evaluator reads them."""
    found: dict[str, Any] = {}
    known = SizeTable(found, {d.name: d.over for d in graph.sizes})
    for declaration in graph.sizes:
        table = tables.get(declaration.name)
        if table is not None:
            found[declaration.name] = table.tolist()
        else:
            found[declaration.name] = _constant_table(extents[declaration.name], declaration.over, known, extents)
    return known


def _constant_table(value: int, over: Sequence[str], sizes: SizeTable, extents: Mapping[str, int]) -> Any:
    if not over:
        return value
    return [_constant_table(value, over[1:], sizes, extents) for _ in range(extents[over[0]])]


def to_lists(value: np.ndarray, axes: Sequence[Size], sizes: SizeTable) -> Any:
    """A padded array as nested lists of the lengths that the sizes say."""
    if not axes:
        return value
    return [to_lists(value[i], axes[1:], sizes.enter(axes[0], i)) for i in range(sizes.value(axes[0]))]


def to_padded(value: Any, type_: ListType, extents: Mapping[str, int]) -> Tensor:
    """Nested lists of arrays as one padded tensor, zeros as padding."""
    depth = len(type_.axes)
    longest = [0] * depth

    def measure(nested: Any, level: int) -> None:
        if level < depth:
            longest[level] = max(longest[level], len(nested))
            for part in nested:
                measure(part, level + 1)

    measure(value, 0)
    for level, size in enumerate(type_.axes):
        if size.names() <= set(extents):
            longest[level] = max(longest[level], int(size.evaluate(lambda name: extents[name])))
    out = np.zeros((*longest, *type_.shape), type_.dtype.numpy)

    def fill(nested: Any, at: tuple[int, ...]) -> None:
        if len(at) == depth:
            out[at] = nested
            return
        for i, part in enumerate(nested):
            fill(part, (*at, i))

    fill(value, ())
    return torch.as_tensor(out).to(torch_dtype(type_.dtype))


def evaluate_padded(
    graph: Graph, inputs: Sequence[Tensor], tables: Mapping[str, Any], extents: Mapping[str, int]
) -> list[Tensor]:
    """Run the reference evaluator on padded tensors.

    Arguments:
        graph: any graph.
        inputs: a tensor per input, [list axes …, *shape].
        tables: per declared size, its table of lengths or None where it is rectangular.
        extents: per declared size, its largest value.

    Returns:
        A padded tensor per output.
    """
    sizes = size_table(graph, tables, extents)
    arguments = [
        to_lists(x.detach().cpu().numpy(), value.type.axes, sizes)
        for x, value in zip(inputs, graph.body.parameters, strict=True)
    ]
    outputs = evaluate(graph, arguments, sizes.tables)
    return [to_padded(y, value.type, extents) for y, value in zip(outputs, graph.body.results, strict=True)]


def to_numpy(value: Any) -> Any:
    """A structure of results as NumPy arrays; ragged ones keep their lengths."""
    if isinstance(value, Tensor):
        return value.detach().numpy() if not value.is_nested else [row.detach().numpy() for row in value.unbind()]
    if isinstance(value, Ragged):
        return value
    if is_namedtuple(value) and not isinstance(value, torch.nn.utils.rnn.PackedSequence):
        return type(value)(*map(to_numpy, value))
    if isinstance(value, Mapping):
        return {key: to_numpy(part) for key, part in value.items()}
    return tuple(map(to_numpy, value)) if type(value) is tuple else value


def tapped_entry(entry: Entry, graph: Graph) -> Entry:
    """An entry whose result is the dict of a graph's tapped values (the outputs after the program's own)."""
    first = len(entry.graph.body.results)
    names = graph.output_names[first:]
    values = graph.body.results[first:]
    ports = []
    for i, value in enumerate(values):
        axes = value.type.axes[1:] if entry.batched else value.type.axes
        port = Port("array", ListType(value.type.dtype, axes, value.type.shape), first + i)
        for size in reversed(axes):
            port = Port("list", sizes=(size,), parts=(port,))
        ports.append(port)
    return replace(entry, graph=graph, output=Port("product", parts=tuple(ports), product=dict.fromkeys(names)))
