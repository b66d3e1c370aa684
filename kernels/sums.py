"""Sums over a cut axis that wait for one another, as sums that do not.

Programs that share a tile of rows meet once for every sum that they take of what another sum is part of. Where the
earlier sum only scales or moves what is summed, the programs need not wait for it:

    sum_i (a_i * s + b_i) = (sum_i a_i) * s + sum_i b_i
    sum_i (x_i - u)^2     = sum_p (sum_(i in p) (x_i - m_p)^2 + n_p (m_p - u)^2)

for s and u that are alike for all i. In the second, p is a program, n_p the number of its elements and m_p their mean
(Chan, Golub and LeVeque, *Updating formulae and a pairwise algorithm for computing sample variances*, 1979); u need not
be known until the programs have met. It becomes the operation `sum_of_squares`, which `expansion` takes apart so.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from ..compiler.ir import Equation, Value
from ..compiler.types import ListType
from .axes import Axes
from .elements import ELEMENTWISE, REDUCTIONS, reduced_extents, uniform_constant
from .flat import FlatEquation, FlatScan, FlatValue, Item, Reference

TERMS = 8
"""The most sums that one becomes."""


@dataclass(frozen=True)
class _Term:
    """A part of a sum: elements, or ones where there are none, and what all of them are multiplied or divided by."""

    elements: Reference | None
    factors: tuple[tuple[str, Reference | None], ...] = ()

    def times(self, op: str, factor: Reference | None = None) -> _Term:
        return _Term(self.elements, (*self.factors, (op, factor)))


def with_independent_sums(scan: FlatScan, axes: Axes, over: Container[int]) -> FlatScan:
    """A scan whose sums wait for as few others as can be.

    Arguments:
        scan: a scan.
        axes: its axis classes.
        over: the classes that are spread over programs, and the packed ones of them: only sums over these wait.

    Example:
        >>> [item.equation.op for item in with_independent_sums(scan, axes, {0}).items if item.reduced]
        ['contract', 'reduce_sum', 'sum_of_squares']
    """
    return _Sums(axes, over).scan(scan)


class _Sums:
    def __init__(self, axes: Axes, over: Container[int]):
        self.axes, self.over = axes, over
        # What stands in the place of values of the scan that was given.
        self.renamed: dict[FlatValue, FlatValue] = {}
        self.items: list[Item] = []
        self.depths: dict[FlatValue, int] = {}
        self.sums: dict[tuple, Reference] = {}
        self.uniform: dict[tuple, bool] = {}

    def scan(self, scan: FlatScan) -> FlatScan:
        # A sum that a loop takes is not there behind it.
        around, known = self.items, self.sums
        self.items, self.sums = [], dict(known)
        initial = tuple(map(self.reference, scan.initial))
        for item in scan.items:
            if isinstance(item, FlatScan):
                self.items.append(self.scan(item))
            elif isinstance(item, FlatEquation):
                self.equation(item)
            else:
                self.items.append(item)
        made = replace(
            scan,
            initial=initial,
            following=tuple(map(self.reference, scan.following)),
            emitted=tuple(map(self.reference, scan.emitted)),
            items=tuple(self.items),
        )
        self.items, self.sums = around, known
        return made

    def reference(self, reference: Reference) -> Reference:
        return Reference(self.renamed.get(reference.value, reference.value), reference.lead)

    def equation(self, item: FlatEquation) -> None:
        operands = tuple(map(self.reference, item.operands))
        output = item.output
        if any(new.value is not old.value for new, old in zip(operands, item.operands, strict=True)):
            output = replace(item.output)
            output.maker = FlatEquation(item.equation, operands, output, item.reduced, item.loops)
            self.renamed[item.output] = output
        cut = any(self.axes.reduced(item, s) in self.over for s in range(len(item.reduced)))
        summed = cut and item.equation.op == "reduce_sum" and output.dtype in ("f32", "f64")
        made = self.independent(item, operands[0]) if summed else None
        if made is not None:
            self.renamed[item.output] = made.value
            return
        self.items.append(output.maker)
        before = max((self.depth(r) for r in operands), default=0)
        self.depths[output] = before + (cut and item.equation.op in REDUCTIONS)
        if summed:
            self.sums[self.key(item, operands[0])] = Reference(output, output.lead)

    def depth(self, reference: Reference) -> int:
        """How many sums over cut axes, one of another, a value needs within a step."""
        return self.depths.get(reference.value, 0)

    def key(self, item: FlatEquation, elements: Reference) -> tuple:
        return (elements, item.equation.attributes["axes"])

    # --- one sum ------------------------------------------------------------------------------------------------------

    def independent(self, item: FlatEquation, elements: Reference) -> Reference | None:
        """A sum as others that wait for fewer; None where there are no such."""
        square = self.square(item, elements)
        if square is not None:
            return square
        terms = self.terms(elements, item.equation.attributes["axes"])
        deepest = max((self.depth(t.elements) for t in terms if t.elements is not None), default=0)
        if deepest >= self.depth(elements) or len(terms) > TERMS:
            return None
        total: Reference | None = None
        for term in terms:
            part = self.sum_of(item, term.elements)
            for op, factor in term.factors:
                part = self.emit(item, op, [part] if factor is None else [part, self.number(item, factor)])
            total = part if total is None else self.emit(item, "add", [total, part])
        return total

    def square(self, item: FlatEquation, elements: Reference) -> Reference | None:
        """A sum of squares of distances from what is alike for all elements; None where it is no such, or waits for
        nothing."""
        axes = item.equation.attributes["axes"]
        product = self.within(elements, ("mul",))
        if product is None or product.operands[0] != product.operands[1]:
            return None
        difference = self.within(product.operands[0], ("sub",))
        if difference is None:
            return None
        x, u = difference.operands
        if not self.alike(u, axes) or self.depth(x) >= self.depth(u):
            return None
        return self.emit(item, "sum_of_squares", [x, self.number(item, u), self.sum_of(item, x)], axes=axes)

    def terms(self, elements: Reference, axes: Sequence[int]) -> list[_Term]:
        """What is summed as terms that wait for less; where these are more than `TERMS`, some of them."""
        if self.alike(elements, axes):
            return [_Term(None, (("mul", elements),))]
        item = self.within(elements, ("add", "sub", "neg", "mul", "div")) if self.depth(elements) else None
        if item is None:
            return [_Term(elements)]
        op, operands = item.equation.op, item.operands
        if op == "neg":
            return [term.times("neg") for term in self.terms(operands[0], axes)]
        left, right = operands
        if op in ("add", "sub"):
            first = self.terms(left, axes)
            if len(first) > TERMS:
                return first
            second = self.terms(right, axes)
            return [*first, *(second if op == "add" else [term.times("neg") for term in second])]
        if self.alike(right, axes):
            return [term.times(op, right) for term in self.terms(left, axes)]
        if op == "mul" and self.alike(left, axes):
            return [term.times(op, left) for term in self.terms(right, axes)]
        return [_Term(elements)]

    def within(self, reference: Reference, operations: Sequence[str]) -> FlatEquation | None:
        """The equation that makes a value, where it is one of these operations and the value is used as it is made."""
        value, maker = reference.value, reference.value.maker
        made = value in self.depths and isinstance(maker, FlatEquation) and reference.lead == value.lead
        return maker if made and maker.equation.op in operations else None

    def alike(self, reference: Reference, axes: Sequence[int]) -> bool:
        """Whether all elements along these axes are one number."""
        key = (reference, tuple(axes))
        if key not in self.uniform:
            self.uniform[key] = self._alike(reference, axes)
        return self.uniform[key]

    def _alike(self, reference: Reference, axes: Sequence[int]) -> bool:
        maker = reference.value.maker
        shape = reference.value.dims[len(reference.lead) :]
        if all(shape[d] == 1 for d in axes):
            return True
        if not isinstance(maker, FlatEquation):
            return False
        equation = maker.equation
        if equation.op == "broadcast":
            own, dims = equation.inputs[0].type.shape, equation.attributes["dims"]
            return all(d not in dims or own[dims.index(d)] == 1 for d in axes)
        if equation.op == "constant":
            return uniform_constant(equation) is not None
        return equation.op in ELEMENTWISE and all(self.alike(r, axes) for r in maker.operands)

    # --- new equations ------------------------------------------------------------------------------------------------

    def sum_of(self, item: FlatEquation, elements: Reference | None) -> Reference:
        """The sum of elements along the axes of another sum; their number where there are none."""
        axes = item.equation.attributes["axes"]
        if elements is None:
            shape = item.equation.inputs[0].type.shape
            return self.constant(item, float(prod(shape[d] for d in axes)))
        key = self.key(item, elements)
        if key not in self.sums:
            self.sums[key] = self.emit(item, "reduce_sum", [elements], axes=axes)
        return self.sums[key]

    def number(self, item: FlatEquation, reference: Reference) -> Reference:
        """What is alike along the axes of a sum, without them."""
        axes, type_ = item.equation.attributes["axes"], item.equation.output.type
        whole = reference.value.dims[len(reference.lead) :]
        stops = tuple(1 if d in axes else n for d, n in enumerate(whole))
        first = self.emit(
            item, "slice", [reference], type_.with_shape(*stops), starts=(0,) * len(whole), stops=stops,
            strides=(1,) * len(whole),
        )  # fmt: skip
        return self.emit(item, "reshape", [first], shape=type_.shape)

    def constant(self, item: FlatEquation, number: float) -> Reference:
        type_ = item.equation.output.type
        return self.emit(item, "constant", [], value=np.asarray(number), dtype=type_.dtype, shape=type_.shape)

    def emit(
        self,
        item: FlatEquation,
        op: str,
        operands: Sequence[Reference],
        type_: ListType | None = None,
        **attributes: object,
    ) -> Reference:
        """A new equation beside a sum, with the sum's levels."""
        given, lead = item.output, item.output.lead
        type_ = type_ or item.equation.output.type
        own = [ListType(type_.dtype, (), tuple(r.value.dims[len(r.lead) :])) for r in operands]
        equation = Equation(
            op, tuple(map(Value, own)), (Value(type_, given.name),), attributes, source=item.equation.source
        )
        value = FlatValue(given.name, given.dtype, (*given.dims[: len(lead)], *type_.shape), lead)
        reduced = tuple(reduced_extents(equation))
        value.maker = FlatEquation(equation, tuple(operands), value, reduced)
        value.height = len(reduced) + max((r.value.height for r in operands), default=0)
        self.items.append(value.maker)
        self.depths[value] = max(map(self.depth, operands), default=0) + (op in REDUCTIONS)
        if op == "sum_of_squares":
            # It waits for what the distances are from only when the programs have met.
            self.depths[value] = max(self.depth(operands[0]) + 1, self.depth(operands[1]))
        return Reference(value, lead)
