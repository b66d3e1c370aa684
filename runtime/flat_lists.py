"""Torch's own forms of lists of different lengths, packed and jagged, as padded tensors and back.

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
from .ragged import Product, Ragged

__all__ = ["Flat", "Unwrapped", "is_nested", "unwrap"]


@dataclass(frozen=True)
class Flat:
    """How the rows of a packed or jagged list lie in its one tensor of values [total, ...].

    Attributes:
        row, time: int64[total], where each value belongs.
        rows: the number of rows.
        wrap: makes the user's form of a tensor of values.
    """

    row: Tensor
    time: Tensor
    rows: int
    wrap: Callable[[Tensor], Any]

    def pad(self, values: Tensor, longest: int) -> Tensor:
        """Values as [rows, longest, ...], zeros as padding. Differentiable."""
        room = values.new_zeros((self.rows * longest, *values.shape[1:]))
        return room.index_copy(0, self.row * longest + self.time, values).unflatten(0, (self.rows, longest))

    def restore(self, padded: Tensor) -> Any:
        """A padded tensor [rows, longest, ...] in the user's form. Differentiable."""
        return self.wrap(padded.flatten(0, 1).index_select(0, self.row * padded.size(1) + self.time))


class Unwrapped(NamedTuple):
    """A ragged list as all forms are read: `Ragged` gives what it holds, the others one padded tensor."""

    data: Product
    lengths: tuple[Tensor, ...]
    host: tuple[Tensor, ...] | None
    flat: Flat | None


def is_nested(value: Any) -> bool:
    """Whether a value is a nested tensor, of any layout."""
    return isinstance(value, Tensor) and value.is_nested


def unwrap(value: Any, place: str) -> Unwrapped | None:
    """A ragged list of any form as padded data and lengths; None where the value is no ragged list.

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
    # The sizes of a packed sequence's steps lie on the CPU, so the places are computed there.
    count_to = lambda n: torch.arange(n, device=counts.device)
    time = torch.repeat_interleave(count_to(longest), counts, output_size=total)
    rank = count_to(total) - (counts.cumsum(0) - counts)[time]
    lengths = (counts > count_to(rows).unsqueeze(-1)).sum(-1)
    row, host = rank.to(device), None if device.type != "cpu" else lengths
    if order is not None and inverse is not None:
        row, lengths = order[row], lengths.to(device)[inverse]
        host = lengths if host is not None else None
    elif host is None:
        host = lengths
    lengths = lengths.to(device)
    flat = Flat(row, time.to(device), rows, lambda made: PackedSequence(made, counts, order, inverse))
    return Unwrapped(flat.pad(values, longest), (lengths,), None if host is None else (host,), flat)


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
    row = torch.repeat_interleave(torch.arange(rows, device=values.device), lengths, output_size=total)
    time = torch.arange(total, device=values.device) - offsets[row]

    def wrap(made: Tensor) -> Tensor:
        # The very offsets of the input, by which torch knows that two nested tensors have one shape.
        return torch.nested.nested_tensor_from_jagged(made, offsets, min_seqlen=shortest, max_seqlen=longest)

    flat = Flat(row, time, rows, wrap)
    host = (lengths,) if lengths.device.type == "cpu" else None
    return Unwrapped(flat.pad(values, bound), (lengths,), host, flat)


def _held(number: Tensor | None) -> int | None:
    # A jagged tensor keeps a number that it knows as the extent of an empty tensor. Read there, and not through its
    # own property, the number has a source that Dynamo can guard when it becomes symbolic.
    return None if number is None else number.size(0)
