"""Scalar expressions: one element of a value as a function of its indices.

A kernel computes elements. `Expression` is an interned term over index variables: two equal terms of one `Arena` are
one object, so that common subexpressions are found by identity. What a term loads is an element of a *materialised*
value; everything between is arithmetic. The idea is that of Halide's pure functions (Ragan-Kelley et al., 2013).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..compiler.sizes import Constant, Size

Dimension = int | Size
"""The extent of one dimension of a value: a number, or a list size."""


def dimension(size: Dimension) -> Dimension:
    """An extent in its simplest form: a constant size is a number."""
    return size.value if isinstance(size, Constant) else size


@dataclass(eq=False)
class Axis:
    """An index variable.

    Attributes:
        name: as generated text calls it.
        extent: how far it runs: a number, or a list size.
        role: "row" (a list axis of the iteration space), "step" (the index of a sequential loop), "own" (a dimension of
            what a stage computes) or "reduced".
        axis_class: the class of `axes` that it belongs to, None where it has none.
        slot: how many dimensions of the same value in front of it have this class.
        over: the axes that its extent varies with: that of an inner list does.
        contracted: of a reduced one, whether a product of matrices runs over it, and no sum, maximum … of elements.
    """

    name: str
    extent: Dimension
    role: str
    axis_class: int | None = None
    slot: int = 0
    over: tuple[Axis, ...] = ()
    contracted: bool = False

    def __repr__(self) -> str:
        return f"<{self.role} {self.name}: {self.extent}>"


class Expression:
    """A term: an operation, its arguments, what else it says, the dtype of the element.

    Attributes:
        op: "axis", "number", "load", "length", "reduce", or the name of an elementwise operation.
        arguments: terms.
        extra: of an axis, the `Axis`; of a number, its value; of a load, the value that is read; of a length, the size;
            of a reduction, (operation, axes, whether it is a contraction).
        dtype: the IR's name of the dtype; "index" for indices.
        axes: the axes that it varies with.
        loads: the values that it loads, in order of first use.
        reductions: the reductions in it, inner before outer.
    """

    __slots__ = ("arguments", "axes", "dtype", "extra", "loads", "op", "reductions")

    def __init__(self, op: str, arguments: tuple[Expression, ...], extra: Any, dtype: str):
        self.op, self.arguments, self.extra, self.dtype = op, arguments, extra, dtype
        self.axes: frozenset[Axis] = frozenset().union(*(a.axes for a in arguments))
        loads: dict[Any, None] = {}
        reductions: dict[Expression, None] = {}
        for argument in arguments:
            loads.update(dict.fromkeys(argument.loads))
            reductions.update(dict.fromkeys(argument.reductions))
        if op == "axis":
            self.axes = frozenset((extra,))
        elif op == "load":
            loads[extra] = None
        elif op == "reduce":
            # Where it ends may vary with more than what it reads.
            self.axes = (self.axes - frozenset(extra[1])).union(*(axis.over for axis in extra[1]))
            reductions[self] = None
        self.loads, self.reductions = tuple(loads), tuple(reductions)

    @property
    def axis(self) -> Axis | None:
        """The axis that this term is the index of, if it is one."""
        return self.extra if self.op == "axis" else None

    def __repr__(self) -> str:
        if self.op == "axis":
            return self.extra.name
        if self.op == "number":
            return str(self.extra)
        extra = "" if self.extra is None else f"{{{self.extra}}}"
        return f"{self.op}{extra}({', '.join(map(repr, self.arguments))})"


def subterms(terms: Iterable[Expression], reduced: bool = True) -> Iterator[Expression]:
    """Terms and all that they are made of, each once, in the order of their text.

    Arguments:
        terms: where to begin.
        reduced: whether to go into what is reduced, too.
    """
    todo, seen = list(terms)[::-1], set()
    while todo:
        term = todo.pop()
        if term not in seen:
            seen.add(term)
            yield term
            if reduced or term.op != "reduce":
                todo.extend(reversed(term.arguments))


def span(index: Expression) -> tuple[int, int] | None:
    """The least and the greatest number that an index can be; None where that is not known."""
    if index.op == "number":
        return index.extra, index.extra
    if index.axis is not None:
        return (0, index.axis.extent - 1) if isinstance(index.axis.extent, int) else None
    if index.op in ("plus", "times"):
        left, right = map(span, index.arguments)
        if left is None or right is None:
            return None
        if index.op == "plus":
            return left[0] + right[0], left[1] + right[1]
        corners = [a * b for a in left for b in right]
        return min(corners), max(corners)
    return None


class Arena:
    """Makes expressions, each once."""

    def __init__(self) -> None:
        self._terms: dict[Any, Expression] = {}
        self._renamed: dict[Any, Expression] = {}

    def make(self, op: str, arguments: Iterable[Expression] = (), extra: Any = None, dtype: str = "f32") -> Expression:
        """The term of an operation."""
        arguments = tuple(arguments)
        kind = type(extra) if op == "number" else None
        key = (op, tuple(map(id, arguments)), repr(extra) if op == "number" else extra, kind, dtype)
        found = self._terms.get(key)
        if found is None:
            found = self._terms[key] = Expression(op, arguments, extra, dtype)
        return found

    def number(self, value: Any, dtype: str = "index") -> Expression:
        """A number of a dtype."""
        return self.make("number", (), value, dtype)

    def axis(self, axis: Axis) -> Expression:
        """The index of an axis; 0 where it has one element only."""
        return self.number(0) if axis.extent == 1 else self.make("axis", (), axis, "index")

    def load(self, value: Any, indices: Sequence[Expression], dtype: str) -> Expression:
        """An element of a materialised value."""
        return self.make("load", indices, value, dtype)

    def reduce(
        self, operation: str, axes: Sequence[Axis], body: Sequence[Expression], dtype: str, contraction: bool = False
    ) -> Expression:
        """A reduction over axes; of a contraction, `body` is the two operands."""
        return self.make("reduce", body, (operation, tuple(axes), contraction), dtype)

    # --- index arithmetic ---------------------------------------------------------------------------------------------

    def plus(self, index: Expression, offset: int) -> Expression:
        """An index moved by a number."""
        if index.op == "number":
            return self.number(index.extra + offset)
        if index.op == "plus" and index.arguments[1].op == "number":
            return self.plus(index.arguments[0], index.arguments[1].extra + offset)
        return index if offset == 0 else self.make("plus", (index, self.number(offset)), None, "index")

    def sum(self, left: Expression, right: Expression) -> Expression:
        """The sum of two indices."""
        if right.op == "number":
            return self.plus(left, right.extra)
        return self.plus(right, left.extra) if left.op == "number" else self.make("plus", (left, right), None, "index")

    def times(self, index: Expression, factor: int) -> Expression:
        """An index times a number."""
        if index.op == "number":
            return self.number(index.extra * factor)
        return index if factor == 1 else self.make("times", (index, self.number(factor)), None, "index")

    def quotient(self, index: Expression, divisor: int) -> Expression:
        """An index divided by a number, rounded down."""
        if index.op == "number":
            return self.number(index.extra // divisor)
        return index if divisor == 1 else self.make("quotient", (index, self.number(divisor)), None, "index")

    def remainder(self, index: Expression, divisor: int) -> Expression:
        """An index modulo a number."""
        if divisor == 1:
            return self.number(0)
        if index.op == "number":
            return self.number(index.extra % divisor)
        return self.make("remainder_index", (index, self.number(divisor)), None, "index")

    def clamp(self, index: Expression, low: int, high: int) -> Expression:
        """An index kept within [low, high]."""
        if index.op == "number":
            return self.number(min(max(index.extra, low), high))
        return self.make("clamp", (index, self.number(low), self.number(high)), None, "index")

    # --- renaming -----------------------------------------------------------------------------------------------------

    def rename(self, term: Expression, names: dict[Axis, Axis]) -> Expression:
        """A term with other axes in the place of its free ones."""
        if not any(axis in names for axis in term.axes):
            return term
        key = (id(term), tuple(sorted((id(a), id(b)) for a, b in names.items() if a in term.axes)))
        found = self._renamed.get(key)
        if found is None:
            if term.op == "axis":
                found = self.axis(names[term.extra])
            else:
                arguments = [self.rename(a, names) for a in term.arguments]
                found = self.make(term.op, arguments, term.extra, term.dtype)
            self._renamed[key] = found
        return found
