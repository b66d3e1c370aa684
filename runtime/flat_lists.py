"""Torch's own forms of lists of different lengths, packed and jagged: their values, how these lie, and back.

Both hold the elements of all rows in one tensor of values [total, ...]; they differ in its order. Everything here is
tensor operations, so it is differentiable and `torch.compile` takes it whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..compiler.errors import StructureError
from .layout import Layout
from .ragged import Product, Ragged

__all__ = ["Flat", "Unwrapped", "is_nested", "unwrap"]


@dataclass
class Flat(Layout):
    """A packed or jagged list: how its rows lie in its one tensor of values [total, ...].

    Attributes:
        wrap: makes the user's form of a tensor of values.
        order: of a packed list, the batch sizes and the order of its rows; None of a jagged one.
    """

    wrap: Callable[[Tensor], Any]
    order: tuple[Tensor, Tensor | None] | None = None

    def restore(self, padded: Tensor) -> Any:
        """A padded tensor [rows, longest, ...] in the user's form. Differentiable."""
        return self.wrap(self.take(padded))

    def like(self, other: Flat) -> bool:
        """Whether lists of the same lengths are known to lie alike in two forms."""
        if self is other or (self.order is None and other.order is None):
            return True
        if self.order is None or other.order is None or self.order[1] is not other.order[1]:
            return False
        mine, others = self.order[0], other.order[0]
        return mine is others or (not torch.compiler.is_compiling() and torch.equal(mine, others))


class Unwrapped(NamedTuple):
    """A ragged list as all forms are read: `Ragged` gives the padded tensors that it holds, the others their values."""

    data: Product
    lengths: tuple[Tensor, ...]
    host: tuple[Tensor, ...] | None
    flat: Flat | None


def is_nested(value: Any) -> bool:
    """Whether a value is a nested tensor, of any layout."""
    return isinstance(value, Tensor) and value.is_nested


def unwrap(value: Any, place: str) -> Unwrapped | None:
    """A ragged list of any form as data and lengths; None where the value is no ragged list.

    Arguments:
        value: `Ragged`, `PackedSequence`, jagged nested tensor, or anything else.
        place: what a message calls it.

    Raises:
        StructureError: a nested tensor of another layout, or one whose ragged axis is not the second.
    """
    if isinstance(value, Ragged):
        return Unwrapped(value.data, value.lengths, value.host, None)
    if isinstance(value, PackedSequence):
        return _unpack(value)
    if is_nested(value):
        return _unjag(value, place)
    return None


def _unpack(packed: PackedSequence) -> Unwrapped:
    values, counts, order, inverse = packed
    longest, total, device = counts.size(0), values.size(0), values.device
    rows = int(counts[0]) if inverse is None else inverse.size(0)
    # The sizes of a packed sequence's steps lie on the CPU, so its tables are computed there.
    count_to = lambda n: torch.arange(n, device=counts.device)
    # A row is as long as there are steps with more rows than stand before it; these become fewer.
    lengths = longest - torch.searchsorted(counts.flip(0), count_to(rows), right=True)
    place, host = count_to(rows).to(device), None if device.type != "cpu" else lengths
    if order is not None and inverse is not None:
        place, lengths = inverse, lengths.to(device)[inverse]
        host = lengths if host is not None else None
    elif host is None:
        host = lengths
    lengths = lengths.to(device)
    times = (counts.cumsum(0) - counts).to(device)
    wrap = lambda made: PackedSequence(made, counts, order, inverse)
    flat = Flat(lengths, place, times, longest, total, wrap, (counts, order))
    return Unwrapped(values, (lengths,), None if host is None else (host,), flat)


def _unjag(nested: Tensor, place: str) -> Unwrapped:
    if nested.layout != torch.jagged:
        raise StructureError(
            f"{place} is a nested tensor of layout {nested.layout}. Make it with layout=torch.jagged, or use ff.ragged"
        )
    if nested._ragged_idx != 1:
        raise StructureError(
            f"{place} is a nested tensor whose axis {nested._ragged_idx} is ragged. Expected the second one, "
            "[batch, time, …]; transpose it back"
        )
    if nested.lengths() is not None:
        nested = nested.contiguous()  # values between the rows, as torch.nested.narrow leaves them
    values, offsets = nested.values(), nested.offsets()
    lengths = offsets.diff().to(torch.int64)
    total, rows = values.size(0), offsets.size(0) - 1
    longest, shortest = _held(nested._max_seqlen_tensor), _held(nested._min_seqlen_tensor)
    if longest is not None:
        bound = longest
    elif torch.compiler.is_compiling():
        bound = total  # the length of the longest row is data, which a compiled program does not wait for
    else:
        bound = int(lengths.max()) if rows else 0

    def wrap(made: Tensor) -> Tensor:
        # The very offsets of the input, by which torch knows that two nested tensors have one shape.
        return torch.nested.nested_tensor_from_jagged(made, offsets, min_seqlen=shortest, max_seqlen=longest)

    flat = Flat(lengths, offsets[:-1].to(torch.int64), None, bound, total, wrap)
    host = (lengths,) if lengths.device.type == "cpu" else None
    return Unwrapped(values, (lengths,), host, flat)


def _held(number: Tensor | None) -> int | None:
    # A jagged tensor keeps a number that it knows as the extent of an empty tensor. Read there, and not through its
    # own property, the number has a source that Dynamo can guard when it becomes symbolic.
    return None if number is None else number.size(0)
