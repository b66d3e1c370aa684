"""Outputs of a graph → the user's structures: lists leave in the form in which they came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..compiler import types
from ..compiler.program import Entry, Port
from ..compiler.sizes import Named, Size
from .flat_lists import Flat
from .ragged import Ragged
from .tree_input import first_array, map_product

if TYPE_CHECKING:
    from .binding import Bound

__all__ = ["unbind"]


class _Table(NamedTuple):
    """The lengths of lists of one size: int64, one dim per axis in `over`; the form they came in."""

    lengths: Tensor
    over: tuple[str, ...]
    host: Tensor | None
    flat: Flat | None


def unbind(entry: Entry, outputs: Sequence[Tensor], bound: Bound) -> Any:
    """Give the outputs of a call their structure.

    Arguments:
        entry: the entry point that was called.
        outputs: what its graph gave, padded: [list axes…, *shape]; padding is zero. Lists of the sizes in
            `bound.layouts` as these say.
        bound: the arguments, as `bind` read them.

    Returns:
        The result's structure. An array is a tensor [batch, *shape]. A list of an input's own size leaves as that input
        came: as a padded tensor, as a `Ragged` that shares its lengths, a `PackedSequence`, or a jagged nested tensor
        with its very offsets. A list of another size is a padded tensor where no lengths are involved, otherwise a
        `Ragged`: of derived lengths (windows), of counts (a list that decides when to stop), of numbers of nodes (the
        results at all nodes of trees: a row per tree, in the order of the forest). A list of products is a product of
        lists, but one `Ragged` that holds a product. Without a batch there are no rows: a list that decides when to
        stop is cut to its length, which waits for the device.

    Example:
        >>> bound = bind(entry, arguments)
        >>> result = unbind(entry, eager.run(entry.graph, [*held, *bound.tensors], bound.tables), bound)
    """
    return _Writer(entry, outputs, bound).write(entry.output, (Named("B"),) if entry.batched else ())


class _Writer:
    """Builds the structure of one call's result."""

    def __init__(self, entry: Entry, outputs: Sequence[Tensor], bound: Bound):
        self.outputs, self.batched, self.layouts = outputs, entry.batched, bound.layouts
        self.tables: dict[str, _Table] = {}
        for size in entry.graph.sizes:
            table, form = bound.tables.get(size.name), bound.forms.get(size.name)
            if table is not None and form is not None:
                # The user's own tensor, where it did not have to be fitted.
                own = form.table.shape == table.shape
                lengths, host = (form.table, form.host) if own else (table, None)
                self.tables[size.name] = _Table(lengths, size.over, host, form.flat)
        for name, index in entry.counts:
            axes = entry.graph.body.results[index].type.axes
            self.tables[name] = _Table(outputs[index], tuple(map(str, axes)), None, None)

    def write(self, port: Port, axes: tuple[Size, ...]) -> Any:
        """A part of the result; `axes` are those of the batch and of enclosing lists."""
        if port.kind == "product":
            return types.rebuild(port.product, iter([self.write(part, axes) for part in port.parts]))
        if port.kind == "array":
            return self._list(self.outputs[port.leaf], axes)
        axes = (*axes, *port.sizes)
        element = port.parts[0]
        if element.kind == "product" and _arrays_only(element) and self._depth(axes) and self._flat(axes) is None:
            return self._list(self._product(element), axes)
        return self.write(element, axes)

    def _product(self, port: Port) -> Any:
        if port.kind == "array":
            return self.outputs[port.leaf]
        return types.rebuild(port.product, map(self._product, port.parts))

    def _depth(self, axes: Sequence[Size]) -> int:
        """How many axes behind the first it takes to reach the last ragged one."""
        ragged = [k for k, size in enumerate(axes) if k and size.names() & self.tables.keys()]
        return max(ragged, default=0)

    def _flat(self, axes: Sequence[Size]) -> Flat | None:
        """The packed or jagged form of lists under these axes, if they have one."""
        if self._depth(axes) != 1 or not isinstance(axes[1], Named):
            return None
        return self.tables[axes[1].name].flat

    def _list(self, data: Any, axes: Sequence[Size]) -> Any:
        """A tensor (or a product of them) under list axes, in the form of the lists."""
        if axes and not self.batched and axes[0].names() & self.tables.keys():
            length = int(axes[0].evaluate(lambda name: self.tables[name].lengths))
            data = map_product(lambda x: x[:length], data)
        depth, flat = self._depth(axes), self._flat(axes)
        layout = self.layouts.get(str(axes[1])) if len(axes) > 1 else None
        if layout is not None and flat is None:
            data = map_product(layout.pad, data)
        if not depth:
            return data
        if flat is not None:
            return flat.restore(data) if layout is None else flat.wrap(data)
        first = first_array(data)
        made = [self._lengths(axes[: k + 1], first) for k in range(1, depth + 1)]
        hosts = tuple(host for _, host in made if host is not None)
        return Ragged(data, [table for table, _ in made], hosts if len(hosts) == depth else None)

    def _lengths(self, axes: Sequence[Size], data: Tensor) -> tuple[Tensor, Tensor | None]:
        """The lengths along the last of the axes, one dim per axis in front of it; and on the CPU, where they are the
        user's own."""
        *outer, size = axes
        shape = data.shape[: len(outer)]
        if not size.names() & self.tables.keys():
            return torch.full(shape, data.size(len(outer)), dtype=torch.int64, device=data.device), None
        over = tuple(map(str, outer))

        def lookup(name: str) -> Tensor:
            table = self.tables[name]
            if table.over == over:
                return table.lengths
            places = [over.index(axis) for axis in table.over]
            return table.lengths.reshape([n if k in places else 1 for k, n in enumerate(shape)]).expand(shape)

        own = isinstance(size, Named) and self.tables[size.name].over == over
        return size.evaluate(lookup), self.tables[size.name].host if own else None


def _arrays_only(port: Port) -> bool:
    return port.kind == "array" or (port.kind == "product" and all(map(_arrays_only, port.parts)))
