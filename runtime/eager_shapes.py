"""Shapes of the eager evaluator's tensors: dims (lead…, list axes…, shape…).

The leading dims are the axes of the enclosing loops. Each has its full extent, or 1 where a value does not vary with
that loop; what stands together is brought to one shape only where torch asks for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import pad


def common_lead(shapes: Sequence[Sequence[int]], depth: int) -> list[int]:
    """The full extents of the leading dims of values that stand together."""
    return [next((shape[d] for shape in shapes if shape[d] != 1), 1) for d in range(depth)]


def trailing(mask: Tensor, rank: int) -> Tensor:
    """A tensor with dims of size 1 added behind until it has `rank` dims."""
    return mask.reshape(mask.shape + (1,) * (rank - mask.dim()))


def with_lead(value: Tensor, extents: Sequence[int], depth: int) -> Tensor:
    """A value with its leading dims at their full extents."""
    return value.expand((*extents, *value.shape[depth:]))


def flatten_lead(value: Tensor, depth: int, extents: Sequence[int], keep: int = 0) -> Tensor:
    """Make one axis of the `depth` leading dims and `keep` dims after them; size 1 when the value varies with none.

    Arguments:
        value: dims (lead…, rest…).
        extents: the full extents of the leading dims.
        keep: dims after the lead that join the one axis (they have their full extents).
    """
    lead, rest = value.shape[:depth], value.shape[depth + keep :]
    if not keep and all(n == 1 for n in lead):
        return value.reshape((1, *rest))
    if tuple(lead) != tuple(extents):
        value = with_lead(value, extents, depth)
    return value.reshape((math.prod(value.shape[: depth + keep]), *rest))


def take_rows(value: Tensor, rows: Tensor, count: int) -> Tensor:
    """Rows of a value of one leading axis; a value that does not vary with it stays as it is."""
    return value if value.size(0) == 1 and count != 1 else value.index_select(0, rows)


def widened(value: Tensor, dim: int, extent: int) -> Tensor:
    """A value that may have size 1 in a dim, with its full extent there."""
    if value.size(dim) == extent:
        return value
    shape = list(value.shape)
    shape[dim] = extent
    return value.expand(shape)


def even(values: Sequence[Tensor], first: int) -> Sequence[Tensor]:
    """Tensors whose lists (dims from `first` on) may have been made to several maxima, padded at the end to one."""
    shapes = [v.shape[first:] for v in values]
    if all(shape == shapes[0] for shape in shapes):
        return values
    target = [max(column) for column in zip(*shapes, strict=True)]
    widths = [
        [w for n, m in zip(reversed(target), reversed(shape), strict=True) for w in (0, n - m)] for shape in shapes
    ]
    return [pad(v, w) if any(w) else v for v, w in zip(values, widths, strict=True)]


def alike(values: Sequence[Tensor], depth: int) -> Sequence[Tensor]:
    """Tensors made one by one, brought to one shape: leading dims expanded, lists padded at the end."""
    first = values[0].shape
    if all(v.shape == first for v in values):
        return values
    lead = common_lead([v.shape for v in values], depth)
    return [with_lead(v, lead, depth) for v in even(values, depth)]
