"""Contractions in torch: any einsum of two operands as one matrix product, without expanding what an outer loop shares.

Each leading dim (an enclosing loop) is told apart at run time: where both operands vary it is a batch axis, where one
does it is a free axis of that one, so that a weight under a batch stays a matrix and the product one GEMM.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..compiler.primitives.contraction import split
from .eager_shapes import trailing
from .eager_sizes import Environment

HALVES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class _Arrangement:
    """How one pattern of varying leading dims becomes ``[batch, m, k] @ [batch, k, n]``.

    The dims lists hold positions in the operands; None stands for the identity permutation.
    """

    left_order: tuple[int, ...] | None
    right_order: tuple[int, ...] | None
    batch: tuple[int, ...]  # positions in left
    left_free: tuple[int, ...]
    right_free: tuple[int, ...]
    contracted: tuple[int, ...]  # positions in left
    output_order: tuple[int, ...] | None
    constant: int  # leading dims that neither operand varies with


def _unless_identity(order: Sequence[int]) -> tuple[int, ...] | None:
    return None if list(order) == list(range(len(order))) else tuple(order)


def _arrange(depth: int, spec: str, left_varies: Sequence[bool], right_varies: Sequence[bool]) -> _Arrangement:
    left_labels, right_labels, output_labels = split(spec)
    lead = list(range(depth))
    left = {**{d: d for d in lead}, **{label: depth + i for i, label in enumerate(left_labels)}}
    right = {**{d: d for d in lead}, **{label: depth + i for i, label in enumerate(right_labels)}}
    both = [d for d in lead if left_varies[d] and right_varies[d]]
    neither = [d for d in lead if not left_varies[d] and not right_varies[d]]
    batch = both + [c for c in output_labels if c in left_labels and c in right_labels]
    left_free = [d for d in lead if left_varies[d] and not right_varies[d]] + [
        c for c in output_labels if c not in right_labels
    ]
    right_free = [d for d in lead if right_varies[d] and not left_varies[d]] + [
        c for c in output_labels if c not in left_labels
    ]
    contracted = [c for c in left_labels if c in right_labels and c not in output_labels]
    # Dims of one element that the other operand varies with stand first, where a reshape absorbs them.
    left_ones = [d for d in lead if d not in batch and d not in left_free]
    right_ones = [d for d in lead if d not in batch and d not in right_free]
    made = [*neither, *batch, *left_free, *right_free]
    return _Arrangement(
        _unless_identity([left[a] for a in (*left_ones, *batch, *left_free, *contracted)]),
        _unless_identity([right[a] for a in (*right_ones, *batch, *contracted, *right_free)]),
        tuple(left[a] for a in batch),
        tuple(left[a] for a in left_free),
        tuple(right[a] for a in right_free),
        tuple(left[a] for a in contracted),
        _unless_identity([made.index(a) for a in (*lead, *output_labels)]),
        len(neither),
    )


def _multiply(plan: _Arrangement, left: Tensor, right: Tensor) -> Tensor:
    left_shape, right_shape = left.shape, right.shape
    batch = [left_shape[i] for i in plan.batch]
    free = [left_shape[i] for i in plan.left_free], [right_shape[i] for i in plan.right_free]
    b, m, n = math.prod(batch), math.prod(free[0]), math.prod(free[1])
    k = math.prod([left_shape[i] for i in plan.contracted])
    if plan.left_order is not None:
        left = left.permute(plan.left_order)
    if plan.right_order is not None:
        right = right.permute(plan.right_order)
    if not plan.contracted:
        out = left.reshape(b, m, 1) * right.reshape(b, 1, n)
    elif plan.batch:
        left, right = left.reshape(b, m, k), right.reshape(b, k, n)
        # CUDA has no matrix product of integers.
        whole = left.is_cuda and not left.is_floating_point()
        out = (left.unsqueeze(-1) * right.unsqueeze(1)).sum(2, dtype=left.dtype) if whole else torch.bmm(left, right)
    else:
        left, right = left.reshape(m, k), right.reshape(k, n)
        whole = left.is_cuda and not left.is_floating_point()
        out = (left.unsqueeze(-1) * right).sum(1, dtype=left.dtype) if whole else torch.mm(left, right)
    out = out.reshape([1] * plan.constant + batch + free[0] + free[1])
    return out if plan.output_order is None else out.permute(plan.output_order)


def contraction(spec: str, depth: int, dtype: torch.dtype | None) -> Callable[[Tensor, Tensor], Tensor]:
    """The function of a contraction.

    Arguments:
        spec: labels, ``"ij,jk->ik"``; they cover the dims after the lead.
        depth: the number of leading dims.
        dtype: of the result; the operands' when None. Half precision operands are multiplied in float32 where the
            result is wider or on a CPU, so that only the operands are rounded, never the sum.

    Returns:
        ``(left, right) -> result`` on tensors of dims (lead…, labels…) whose leading dims have their full extent or 1.
    """
    arrangements: dict[tuple[tuple[bool, ...], tuple[bool, ...]], _Arrangement] = {}

    def contract(left: Tensor, right: Tensor) -> Tensor:
        pattern = tuple([n != 1 for n in left.shape[:depth]]), tuple([n != 1 for n in right.shape[:depth]])
        plan = arrangements.get(pattern)
        if plan is None:
            plan = arrangements[pattern] = _arrange(depth, spec, *pattern)
        result = dtype or left.dtype
        if left.dtype in HALVES and (result is not left.dtype or not left.is_cuda):
            left, right = left.float(), right.float()
        elif result.itemsize > left.dtype.itemsize:
            left, right = left.to(result), right.to(result)
        out = _multiply(plan, left, right)
        return out if out.dtype is result else out.to(result)

    return contract


def mask_operand(sizes: Environment, operand: Tensor, axes: Sequence, wanted: Sequence[int]) -> Tensor:
    """An operand of a contraction over ragged lists with zeros in the padding of the contracted axes."""
    mask = sizes.list_mask(axes, wanted)
    if mask is None:
        return operand
    return torch.where(trailing(mask, operand.dim()), operand, operand.new_zeros(()))
