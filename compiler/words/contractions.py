"""Contractions: `@`, `einsum`, and what is written with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..scope import current
from ..types import boolean, promote
from ..values import TracedArray, Unknown
from .constants import zeros
from .lifting import cast_to, emit, lifted, word


@word
def matmul(x: Any, y: Any) -> Any:
    """``x @ y``: vectors, matrices, and batches of matrices, as NumPy has it; lifts over lists."""
    return lifted(_matmul, (x, y), "@")


def _matmul(x: Any, y: Any) -> Any:
    if isinstance(x, Unknown) or isinstance(y, Unknown):
        if isinstance(y, TracedArray) and len(y.shape) == 2:
            return matmul(zeros(y.shape[0]), y)
        if isinstance(x, TracedArray) and len(x.shape) == 2:
            return matmul(x, zeros(x.shape[1]))
        return Unknown()
    if not x.shape or not y.shape:
        raise ShapeError("@ takes vectors and matrices, not numbers; multiply with *")
    if x.shape[-1] != y.shape[-2 if len(y.shape) > 1 else 0]:
        raise ShapeError(
            f"{x.value.type} @ {y.value.type}: the axes that are summed over have {x.shape[-1]} and "
            f"{y.shape[-2 if len(y.shape) > 1 else 0]} elements (shapes are those of one example). Transpose or "
            "reshape one"
        )
    try:
        np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except ValueError:
        raise ShapeError(
            f"{x.value.type} @ {y.value.type}: the axes in front of the matrices, {x.shape[:-2]} and {y.shape[:-2]}, "
            "do not "
            "broadcast together (shapes are those of one example, without a batch axis)"
        ) from None
    batch = "abcdefgh"
    x_lead, y_lead = max(0, len(x.shape) - 2), max(0, len(y.shape) - 2)
    lead = batch[: max(x_lead, y_lead)]
    x_labels = lead[len(lead) - x_lead :] + ("ik" if len(x.shape) > 1 else "k")
    y_labels = lead[len(lead) - y_lead :] + ("kj" if len(y.shape) > 1 else "k")
    out = lead + ("i" if len(x.shape) > 1 else "") + ("j" if len(y.shape) > 1 else "")
    x, x_labels = _drop_ones(x, x_labels, y, y_labels, lead)
    y, y_labels = _drop_ones(y, y_labels, x, x_labels, lead)
    return einsum(f"{x_labels},{y_labels}->{out}", x, y)


def _drop_ones(
    x: TracedArray, labels: str, other: TracedArray, other_labels: str, lead: str
) -> tuple[TracedArray, str]:
    """Drop batch axes of one that the other has in full: they broadcast."""
    extents = dict(zip(other_labels, other.shape, strict=True))
    kept = [
        not (label in lead and n == 1 and extents.get(label, 1) != 1) for label, n in zip(labels, x.shape, strict=True)
    ]
    if all(kept):
        return x, labels
    shape = tuple(n for n, keep in zip(x.shape, kept, strict=True) if keep)
    return emit("reshape", x, shape=shape), "".join(label for label, keep in zip(labels, kept, strict=True) if keep)


@word
def einsum(spec: str, *operands: Any) -> Any:
    """Contraction by labels, ``einsum("hij,hj->hi", U, h)``; ``...`` stands for further axes. Lifts over lists."""
    if len(operands) == 1 and isinstance(operands[0], (tuple, list)):
        operands = tuple(operands[0])
    return lifted(lambda *arrays: _einsum(spec.replace(" ", ""), arrays), operands, "ff.einsum")


def _einsum(spec: str, arrays: Sequence[Any]) -> Any:
    if any(isinstance(a, Unknown) for a in arrays):
        return Unknown()
    inputs, _, output = spec.partition("->")
    labels = inputs.split(",")
    if len(labels) != len(arrays):
        raise ShapeError(
            f"einsum {spec!r} names {len(labels)} operands; {len(arrays)} {'is' if len(arrays) == 1 else 'are'} given"
        )
    if "..." in spec:
        labels, output = _expand_ellipsis(spec, labels, output, arrays)
    elif "->" not in spec:
        output = "".join(sorted(c for c in set(inputs) if inputs.count(c) == 1 and c.isalpha()))
    extents: dict[str, int] = {}
    for names, a in zip(labels, arrays, strict=True):
        if len(names) != len(a.shape):
            raise ShapeError(f"einsum {spec!r}: {names!r} does not fit {a.value.type}; shapes are those of one example")
        for label, n in zip(names, a.shape, strict=True):
            if extents.setdefault(label, n) != n:
                raise ShapeError(
                    f"einsum {spec!r}: the axis {label!r} is {extents[label]} in one operand and {n} in another"
                )
    if set(output) - set(extents) or len(set(output)) != len(output):
        raise ShapeError(f"einsum {spec!r}: the output names axes that the operands do not have, or one twice")
    left, left_labels = _diagonal(arrays[0], labels[0])
    for i in range(1, len(arrays)):
        right, right_labels = _diagonal(arrays[i], labels[i])
        later = set(output).union(*labels[i + 1 :]) if i + 1 < len(labels) else set(output)
        left, left_labels = _sum_labels(left, left_labels, later | set(right_labels))
        right, right_labels = _sum_labels(right, right_labels, later | set(left_labels))
        common = promote(left.dtype, right.dtype)
        kept = "".join(c for c in dict.fromkeys(left_labels + right_labels) if c in later)
        kept = output if i + 1 == len(arrays) else kept
        left = emit(
            "contract", cast_to(left, common), cast_to(right, common), spec=f"{left_labels},{right_labels}->{kept}"
        )
        left_labels = kept
    left, left_labels = _sum_labels(left, left_labels, set(output))
    if left_labels != output:
        left = emit("transpose", left, permutation=tuple(left_labels.index(c) for c in output))
    return left


def _expand_ellipsis(spec: str, labels: list[str], output: str, arrays: Sequence[TracedArray]) -> tuple[list[str], str]:
    spare = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in spec]
    counts = [
        len(a.shape) - len(names.replace("...", "")) if "..." in names else 0
        for names, a in zip(labels, arrays, strict=True)
    ]
    most = max(counts)
    free = "".join(spare[:most])
    out = [names.replace("...", free[most - count :]) for names, count in zip(labels, counts, strict=True)]
    if "->" not in spec:
        joined = "".join(out)
        return out, free + "".join(sorted(c for c in set(joined) if joined.count(c) == 1 and c not in free))
    return out, output.replace("...", free)


def _diagonal(a: TracedArray, labels: str) -> tuple[TracedArray, str]:
    """A label that stands twice in an operand: its diagonal."""
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            n, rank = a.shape[i], len(a.shape)
            mask = current().broadcast(current().constant(np.eye(n, dtype=bool), boolean), a.shape, (i, j))
            none = current().constant(0, a.dtype, a.shape)
            a = emit("reduce_sum", emit("select", TracedArray(mask), a, TracedArray(none)), axes=(j,))
            labels = labels[:j] + labels[j + 1 :]
            assert len(labels) == rank - 1
    return a, labels


def _sum_labels(a: TracedArray, labels: str, wanted: set[str]) -> tuple[TracedArray, str]:
    axes = tuple(i for i, label in enumerate(labels) if label not in wanted)
    return (emit("reduce_sum", a, axes=axes), "".join(c for c in labels if c in wanted)) if axes else (a, labels)


@word
def dot(x: Any, y: Any) -> Any:
    """The inner product of two vectors."""
    return matmul(x, y)


@word
def outer(x: Any, y: Any) -> Any:
    """The outer product of two vectors."""
    return einsum("i,j->ij", x, y)
