"""The contraction of two operands (einsum), the one primitive that may also run over list axes.

Labels cover an operand's list axes, then its shape. Every label stands in at least two of (left, right, output) and at
most once in each, so that the adjoint of a contraction is a contraction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import DtypeError, ShapeError
from ..records import Attributes, Primitive, Refusal, Sample, register
from ..sizes import Size
from ..types import ListType, array, boolean, f32, f64, i64


def split(spec: str) -> tuple[str, str, str]:
    """The labels of left, right and output of ``"ij,jk->ik"``."""
    operands, output = spec.split("->")
    left, right = operands.split(",")
    return left, right, output


def _infer(types: Sequence[ListType], attributes: Attributes) -> tuple[ListType, ...]:
    left, right, output = split(attributes["spec"])
    sizes: dict[str, Size | int] = {}
    for labels, type_ in zip((left, right), types, strict=True):
        extents = (*type_.axes, *type_.shape)
        if len(labels) != len(extents) or len(set(labels)) != len(labels):
            raise ShapeError(
                f"the labels {labels!r} of {attributes['spec']!r} do not name the axes of {type_} once each"
            )
        for label, extent in zip(labels, extents, strict=True):
            if sizes.setdefault(label, extent) != extent:
                raise ShapeError(
                    f"{attributes['spec']!r} contracts axes that differ: {sizes[label]} and {extent} in {types[0]} "
                    f"and {types[1]}"
                )
    for label in sizes:
        if (label in left) + (label in right) + (label in output) < 2:
            raise ShapeError(
                f"the label {label!r} of {attributes['spec']!r} stands in one place only; sum that axis first"
            )
    if types[0].dtype is not types[1].dtype or types[0].dtype is boolean:
        raise DtypeError(f"a contraction takes two operands of one numeric dtype; got {types[0]} and {types[1]}")
    lists = [sizes[label] for label in output if isinstance(sizes[label], Size)]
    arrays = [sizes[label] for label in output if not isinstance(sizes[label], Size)]
    if [sizes[label] for label in output] != [*lists, *arrays]:
        raise ShapeError(f"the list axes of {attributes['spec']!r} come first in its output")
    return (ListType(attributes.get("dtype") or types[0].dtype, tuple(lists), tuple(arrays)),)


def _numpy(left: Any, right: Any, spec: str, dtype: Any = None) -> Any:
    out = np.einsum(spec, left, right)
    return out if dtype is None else out.astype(dtype.numpy)


def _adjoint(b: Any, equation: Any, cts: Sequence[Any]) -> Sequence[Any]:
    left, right, output = split(equation.attributes["spec"])
    x, y = equation.inputs
    ct = cts[0]
    if ct.type.dtype is not x.type.dtype:
        ct = b.lift("cast", ct, dtype=x.type.dtype, pinned=False)
    dtype = {"dtype": equation.attributes["dtype"]} if equation.attributes.get("dtype") else {}

    def pull(spec: str, a: Any, z: Any, of: Any) -> Any:
        out = b("contract", a, z, spec=spec, **dtype)
        return out if out.type.dtype is of.type.dtype else b.lift("cast", out, dtype=of.type.dtype, pinned=False)

    return pull(f"{output},{right}->{left}", ct, y, x), pull(f"{left},{output}->{right}", x, ct, y)


register(
    Primitive(
        "contract",
        _infer,
        _numpy,
        _adjoint,
        "contract",
        samples=(
            Sample((array(f64, 3), array(f64, 3, 4)), {"spec": "i,ij->j"}),
            Sample((array(f64, 2, 3), array(f64, 3, 4)), {"spec": "ij,jk->ik"}),
            Sample((array(f64, 5, 2, 3), array(f64, 5, 3)), {"spec": "bij,bj->bi"}),
            Sample((array(f64, 2), array(f64, 3)), {"spec": "i,j->ij"}),
            Sample((array(f64, 2, 3), array(f64, 2, 3)), {"spec": "ij,ij->"}),
            Sample((array(i64, 2), array(i64, 2)), {"spec": "i,i->"}),
        ),
        refusals=(
            Refusal((array(f32, 3), array(f32, 4, 2)), {"spec": "i,ij->j"}, ShapeError, "differ"),
            Refusal((array(f32, 3), array(f64, 3)), {"spec": "i,i->"}, DtypeError, "one numeric dtype"),
            Refusal((array(f32, 3), array(f32, 2)), {"spec": "i,j->i"}, ShapeError, "sum that axis first"),
        ),
    )
)
