"""The list sizes known where the eager evaluator runs a body: maxima as numbers, lengths as tensors.

Inside nested maps a value is one tensor of dims (lead…, list axes…, shape…), `lead` being the axes of the enclosing
loops. A list is padded to its size's *maximum*; a ragged size has besides it a tensor of *lengths*, of dims (lead…,
over…), where `over` are the axes that it varies with and that were not entered yet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..compiler.errors import SizeError
from ..compiler.sizes import Size
from ..compiler.types import ListType
from .dtypes import torch_dtype
from .eager_shapes import flatten_lead, take_rows


class Extent:
    """What is known of one named size.

    Attributes:
        lengths: i64, dims (lead…, over…), size 1 where it does not vary; None when every list has the maximum.
        over: axes, as text, that `lengths` still varies with, outermost first.
    """

    __slots__ = ("_maximum", "lengths", "over")

    def __init__(self, maximum: int | None, lengths: Tensor | None = None, over: tuple[str, ...] = ()):
        self._maximum, self.lengths, self.over = maximum, lengths, over

    @property
    def maximum(self) -> int:
        """The extent of padded lists; read from the lengths (a device synchronisation) where nothing else says it."""
        if self._maximum is None:
            self._maximum = int(self.lengths.max()) if self.lengths.numel() else 0
        return self._maximum

    def with_lengths(self, lengths: Tensor, over: tuple[str, ...]) -> Extent:
        return Extent(self._maximum, lengths, over)


class Environment:
    """The sizes known at one nesting depth. Immutable; what is derived from it is computed once.

    Arguments:
        extents: per name, what is known.
        depth: the number of leading dims here.
        device: where masks are made.
    """

    def __init__(self, extents: Mapping[str, Extent], depth: int, device: torch.device):
        self.extents, self.depth, self.device = extents, depth, device
        self._known: dict[Any, Any] = {}

    def _once(self, key: Any, compute: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]

    def _extent(self, name: str) -> Extent:
        if name not in self.extents:
            raise SizeError(f"the size {name} is not known")
        return self.extents[name]

    def maximum(self, size: Size) -> int:
        """The extent of padded lists of this size."""
        return self._once(("maximum", size), lambda: int(size.evaluate(lambda name: self._extent(name).maximum)))

    def empty(self, type_: ListType) -> Tensor:
        """Zeros of a type, with leading dims of 1."""
        extents = [self.maximum(axis) for axis in type_.axes]
        shape = (*(1,) * self.depth, *extents, *type_.shape)
        return torch.zeros(shape, dtype=torch_dtype(type_.dtype), device=self.device)

    def lengths(self, size: Size) -> Tensor | None:
        """The lengths here, i64 of dims (lead…), or None when the size is not ragged.

        Raises:
            SizeError: the size still varies with a list that was not entered.
        """
        return self._once(("lengths", size), lambda: self._lengths(size))

    def _lengths(self, size: Size) -> Tensor | None:
        def lookup(name: str) -> Tensor:
            extent = self._extent(name)
            if extent.over:
                raise SizeError(f"the size {name} varies over {', '.join(extent.over)}, which stands outside of it")
            return extent.lengths

        if all(self._extent(name).lengths is None for name in size.names()):
            return None
        return size.evaluate(lookup)

    def mask(self, size: Size) -> Tensor | None:
        """Which positions of a list are live: bool of dims (lead…, maximum), or None when all are."""
        return self._once(("mask", size), lambda: self._mask(size))

    def _mask(self, size: Size) -> Tensor | None:
        lengths = self.lengths(size)
        if lengths is None:
            return None
        return torch.arange(self.maximum(size), device=self.device) < lengths.unsqueeze(-1)

    def list_mask(self, axes: Sequence[Size], wanted: Collection[int] | None = None) -> Tensor | None:
        """Which elements of nested lists are live.

        Arguments:
            axes: the list axes, outermost first.
            wanted: indices of the axes that count; all when left out.

        Returns:
            bool of dims (lead…, axes…), size 1 where it does not vary; None when all are live.
        """
        key = ("lists", tuple(axes), None if wanted is None else tuple(sorted(wanted)))
        return self._once(key, lambda: self._list_mask(axes, wanted))

    def _list_mask(self, axes: Sequence[Size], wanted: Collection[int] | None) -> Tensor | None:
        environment, out = self, None
        for index, axis in enumerate(axes):
            mask = environment.mask(axis) if wanted is None or index in wanted else None
            out = None if out is None else out.unsqueeze(-1)
            if mask is not None:
                out = mask if out is None else out & mask
            environment = environment.enter(axis)
        return out

    def enter(self, size: Size) -> Environment:
        """The sizes inside a map over lists of this size: its axis becomes the last leading dim."""
        return self._once(("enter", size), lambda: self._enter(size))

    def _enter(self, size: Size) -> Environment:
        axis, inside = str(size), {}
        for name, extent in self.extents.items():
            if extent.lengths is None:
                inside[name] = extent
            elif extent.over[:1] == (axis,):
                inside[name] = extent.with_lengths(extent.lengths, extent.over[1:])
            else:
                inside[name] = extent.with_lengths(extent.lengths.unsqueeze(self.depth), extent.over)
        return Environment(inside, self.depth + 1, self.device)

    def at(self, size: Size, index: int) -> Environment:
        """The sizes in step `index` of a scan over lists of this size: no leading dim is added."""
        axis = str(size)
        varying = [n for n, e in self.extents.items() if e.lengths is not None and e.over[:1] == (axis,)]
        if not varying:
            return self
        extents = dict(self.extents)
        for name in varying:
            extent = extents[name]
            # Tables of one entry serve every step. The maximum stays that of all steps: their lists are stacked.
            lengths = extent.lengths.select(self.depth, min(index, extent.lengths.size(self.depth) - 1))
            extents[name] = Extent(extent.maximum, lengths, extent.over[1:])
        return Environment(extents, self.depth, self.device)

    def bind(self, name: str, extent: Extent) -> Environment:
        """These sizes and one more."""
        return Environment({**self.extents, name: extent}, self.depth, self.device)

    def rows(
        self, extents: Sequence[int], rows: Tensor, names: Iterable[str], nodes: tuple[str, int, Tensor] | None = None
    ) -> Environment:
        """The sizes where the leading dims were flattened to one axis and rows of it taken.

        Arguments:
            extents: the full extents of the leading dims.
            rows: i64[rows], positions along the flattened axis.
            names: the sizes that matter.
            nodes: in a tree, the text and maximum of its axis of nodes, and i64[rows], positions along the flattened
                axis of (lead…, nodes): tables that vary with the nodes are entered too.
        """
        taken, count = {}, math.prod(extents)
        for name in names:
            extent = self.extents.get(name)
            if extent is None or extent.lengths is None:
                if extent is not None:
                    taken[name] = extent
            elif nodes is not None and extent.over[:1] == (nodes[0],):
                axis, maximum, positions = nodes
                lengths = extent.lengths
                full = lengths.expand((*lengths.shape[: self.depth], maximum, *lengths.shape[self.depth + 1 :]))
                flat = flatten_lead(full, self.depth, extents, keep=1)
                taken[name] = Extent(extent.maximum, flat.index_select(0, positions), extent.over[1:])
            else:
                flat = flatten_lead(extent.lengths, self.depth, extents)
                taken[name] = Extent(extent.maximum, take_rows(flat, rows, count), extent.over)
        return Environment(taken, 1, self.device)
