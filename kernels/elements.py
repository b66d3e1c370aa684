"""What one element of an equation's output is: for each operation, a function of the output's indices.

``element(arena, equation, indices, operand, reduced) -> Expression``: `indices` are those of the output's own
dimensions (list axes first, then shape), ``operand(j, indices)`` gives an element of input j at such indices, `reduced`
are the axes that the equation sums (or maximises …) over, of the extents that `reduced_extents` says.

An index that may leave an operand is clamped: where it does, another element is selected.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..compiler.primitives.contraction import split
from .expressions import Arena, Axis, Dimension, Expression, dimension, span

Operand = Callable[[int, Sequence[Expression]], Expression]
Element = Callable[[Arena, Any, Sequence[Expression], Operand, Sequence[Axis]], Expression]

ELEMENTS: dict[str, Element] = {}
REDUCED: dict[str, Callable[[Any], list[Dimension]]] = {}

ELEMENTWISE = frozenset(
    """neg abs sign exp expm1 log log1p sqrt rsqrt sin cos arctan tanh sigmoid erf floor ceil round is_finite
    logical_not add sub mul div power maximum minimum remainder arctan2 floor_divide integer_remainder eq ne lt le gt ge
    logical_and logical_or select fold_seed""".split()
)


def reduced_extents(equation: Any) -> list[Dimension]:
    """The extents of the axes that an equation reduces over."""
    return REDUCED[equation.op](equation) if equation.op in REDUCED else []


def own_dimensions(type_: Any) -> list[Dimension]:
    """The dimensions of a value inside the maps around it: list axes, then shape."""
    return [dimension(d) for d in (*type_.axes, *type_.shape)]


def element(op: str) -> Callable[[Element], Element]:
    """Register what an element of an operation's output is."""

    def add(function: Element) -> Element:
        ELEMENTS[op] = function
        return function

    return add


def _dtype(equation: Any) -> str:
    return equation.output.type.dtype.name


def _elementwise(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
    return arena.make(e.op, [operand(j, indices) for j in range(len(e.inputs))], None, _dtype(e))


for _name in ELEMENTWISE:
    ELEMENTS[_name] = _elementwise


@element("cast")
def _cast(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
    value, dtype = operand(0, indices), _dtype(e)
    if value.dtype == dtype:
        return value
    if value.op == "number" and value.extra in (-1, 0, 1):
        # Exact in every dtype.
        return arena.number(_NUMBER.get(dtype, float)(value.extra), dtype)
    return arena.make("cast", [value], None, dtype)


_NUMBER: dict[str, Callable[[Any], Any]] = {"bool": bool, "i32": int, "i64": int}


for _name in ("stop_gradient", "tap", "resize", "stack", "unstack"):
    # `stack` and `unstack` only say whether a dimension is called a list.
    ELEMENTS[_name] = lambda arena, e, indices, operand, reduced: operand(0, indices)


# --- movement ---------------------------------------------------------------------------------------------------------


@element("broadcast")
def _broadcast(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
    own = e.inputs[0].type.shape
    zero = arena.number(0)
    return operand(0, [zero if n == 1 else indices[d] for n, d in zip(own, e.attributes["dims"], strict=True)])


@element("transpose")
def _transpose(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
    permutation = e.attributes["permutation"]
    return operand(0, [indices[permutation.index(d)] for d in range(len(permutation))])


@element("flip")
def _flip(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
    shape, axes = e.inputs[0].type.shape, e.attributes["axes"]
    turned = [arena.plus(arena.times(i, -1), n - 1) if d in axes else i for d, (i, n) in enumerate(zip(indices, shape))]
    return operand(0, turned)


@element("slice")
def _slice(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
    a = e.attributes
    moved = [arena.plus(arena.times(i, s), start) for i, start, s in zip(indices, a["starts"], a["strides"])]
    return operand(0, moved)


@element("reshape")
def _reshape(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
    return operand(0, reshaped(arena, indices, e.output.type.shape, e.inputs[0].type.shape))


def reshaped(
    arena: Arena, indices: Sequence[Expression], given: Sequence[int], wanted: Sequence[int]
) -> list[Expression]:
    """The indices in an array of shape `wanted` of the element at `indices` of the same elements in shape `given`.

    Dimensions are grouped where both shapes have a boundary, so that what is not merged or split keeps its index.
    """
    out: list[Expression] = []
    i = j = 0
    if math.prod(given) == 0:
        return [arena.number(0)] * len(wanted)
    while i < len(given) or j < len(wanted):
        left, right = [], []
        count, other = 1, 1
        while True:
            if i < len(given) and (count <= other and not (count == other and left)):
                count *= given[i]
                left.append(i)
                i += 1
            elif j < len(wanted) and (other < count or not right):
                other *= wanted[j]
                right.append(j)
                j += 1
            elif count == other:
                break
            elif i < len(given):
                count *= given[i]
                left.append(i)
                i += 1
            else:
                break
        if not right:
            continue
        flat = arena.number(0)
        for d in left:
            flat = arena.sum(arena.times(flat, given[d]), indices[d])
        big = [d for d in left if given[d] != 1]
        parts = []
        rest = other
        for d in right:
            rest //= wanted[d]
            if wanted[d] == 1:
                parts.append(arena.number(0))
            elif len(big) == 1 and given[big[0]] == wanted[d]:
                parts.append(indices[big[0]])
            else:
                part = arena.quotient(flat, rest)
                parts.append(part if wanted[d] * rest == other else arena.remainder(part, wanted[d]))
        out.extend(parts)
    return out


@element("pad")
def _pad(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
    shape, a = e.inputs[0].type.shape, e.attributes
    inside: list[Expression] = []
    moved = []
    if 0 in shape:
        return arena.number(_zero(_dtype(e)), _dtype(e))
    for i, n, low, high, interior in zip(indices, shape, a["low"], a["high"], a["interior"], strict=True):
        j = arena.plus(i, -low)
        width = (n - 1) * (interior + 1) + 1
        least, greatest = span(j) or (-low, width + high - 1)
        if least >= width or greatest < 0:
            return arena.number(_zero(_dtype(e)), _dtype(e))
        if least < 0:
            inside.append(arena.make("ge", (j, arena.number(0)), None, "bool"))
        if greatest >= width:
            inside.append(arena.make("lt", (j, arena.number(width)), None, "bool"))
        if least < 0 or greatest >= width:
            j = arena.clamp(j, 0, width - 1)
        if interior:
            left = arena.remainder(j, interior + 1)
            inside.append(arena.make("eq", (left, arena.number(0)), None, "bool"))
            j = arena.quotient(j, interior + 1)
        moved.append(j)
    value = operand(0, moved)
    zero = arena.number(_zero(_dtype(e)), _dtype(e))
    for condition in inside:
        value = arena.make("select", (condition, value, zero), None, _dtype(e))
    return value


def _zero(dtype: str) -> Any:
    return False if dtype == "bool" else 0 if dtype in ("i32", "i64") else 0.0


@element("concatenate")
def _concatenate(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
    axis, start, value = e.attributes["axis"], 0, None
    i = indices[axis]
    low, high = span(i) or (None, None)
    for k, part in enumerate(e.inputs):
        n = part.type.shape[axis]
        if low is not None and start <= low and high < start + n:
            # Whatever the index is, it lies in this one.
            return operand(k, [*indices[:axis], arena.plus(i, -start), *indices[axis + 1 :]])
        if n:
            own = arena.clamp(arena.plus(i, -start), 0, n - 1)
            piece = operand(k, [*indices[:axis], own, *indices[axis + 1 :]])
            if value is None:
                value = piece
            else:
                here = arena.make("ge", (i, arena.number(start)), None, "bool")
                value = arena.make("select", (here, piece, value), None, _dtype(e))
        start += n
    return value if value is not None else arena.number(_zero(_dtype(e)), _dtype(e))


@element("constant")
def _constant(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
    number = uniform_constant(e)
    if number is None:
        raise ValueError("a constant of unlike elements is a table; its elements are loaded")
    return arena.number(number, _dtype(e))


def uniform_constant(equation: Any) -> Any:
    """The number that fills a constant, or None where its elements differ."""
    value = np.asarray(equation.attributes["value"])
    if value.size == 0:
        return _zero(equation.attributes["dtype"].name)
    first = value.reshape(-1)[0]
    same = value.size == 1 or bool((value == first).all()) or (first != first and bool((value != value).all()))
    number = first.item() if same else None
    if number is None:
        return None
    dtype = equation.attributes["dtype"]
    return bool(number) if dtype.name == "bool" else float(number) if dtype.is_float else int(number)


# --- selection --------------------------------------------------------------------------------------------------------


def _position(arena: Arena, index: Expression, extent: int) -> Expression:
    """A number of the program as an index that stays within a table."""
    return arena.clamp(arena.make("as_index", [index], None, "index"), 0, max(extent - 1, 0))


def _as_number(arena: Arena, index: Expression, dtype: str = "i64") -> Expression:
    return arena.make("from_index", [index], None, dtype)


@element("gather")
def _gather(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
    axis, (table, index) = e.attributes["axis"], e.inputs
    middle = indices[axis : axis + len(index.type.shape)]
    position = _position(arena, operand(1, middle), table.type.shape[axis])
    return operand(0, [*indices[:axis], position, *indices[axis + len(middle) :]])


@element("scatter_add")
def _scatter_add(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
    axis = e.attributes["axis"]
    over = [arena.axis(r) for r in reduced]
    update = operand(0, [*indices[:axis], *over, *indices[axis + 1 :]])
    here = arena.make("eq", (operand(1, over), _as_number(arena, indices[axis], _index_dtype(e))), None, "bool")
    value = arena.make("select", (here, update, arena.number(_zero(_dtype(e)), _dtype(e))), None, _dtype(e))
    return arena.reduce("sum", reduced, (value,), _dtype(e)) if reduced else value


def _index_dtype(e: Any) -> str:
    return e.inputs[1].type.dtype.name


REDUCED["scatter_add"] = lambda e: list(e.inputs[1].type.shape)


@element("gather_along")
def _gather_along(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
    axis = e.attributes["axis"]
    position = _position(arena, operand(1, indices), e.inputs[0].type.shape[axis])
    return operand(0, [*indices[:axis], position, *indices[axis + 1 :]])


@element("scatter_along")
def _scatter_along(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
    axis = e.attributes["axis"]
    at = [*indices[:axis], arena.axis(reduced[0]), *indices[axis + 1 :]]
    here = arena.make("eq", (operand(1, at), _as_number(arena, indices[axis], _index_dtype(e))), None, "bool")
    zero = arena.number(_zero(_dtype(e)), _dtype(e))
    return arena.reduce(
        "sum", reduced, (arena.make("select", (here, operand(0, at), zero), None, _dtype(e)),), _dtype(e)
    )


REDUCED["scatter_along"] = lambda e: [e.inputs[1].type.shape[e.attributes["axis"]]]


# --- contraction and reduction ----------------------------------------------------------------------------------------


@element("contract")
def _contract(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
    left, right, output = split(e.attributes["spec"])
    at = dict(zip(output, indices, strict=True))
    at.update(zip(contracted_labels(e), (arena.axis(r) for r in reduced), strict=True))
    factors = (operand(0, [at[c] for c in left]), operand(1, [at[c] for c in right]))
    dtype = _dtype(e)
    if not reduced:
        return arena.make(
            "mul", [f if f.dtype == dtype else arena.make("cast", [f], None, dtype) for f in factors], None, dtype
        )
    return arena.reduce("sum", reduced, factors, dtype, contraction=True)


def contracted_labels(e: Any) -> list[str]:
    """The labels that a contraction sums over, in the order of its reduced axes."""
    left, right, output = split(e.attributes["spec"])
    return [c for c in left if c in right and c not in output]


def _contracted_extents(e: Any) -> list[Dimension]:
    left, _, _ = split(e.attributes["spec"])
    extents = dict(zip(left, own_dimensions(e.inputs[0].type), strict=True))
    return [extents[c] for c in contracted_labels(e)]


REDUCED["contract"] = _contracted_extents


REDUCTIONS = {
    "reduce_sum": "sum", "reduce_max": "max", "reduce_min": "min", "reduce_prod": "prod", "sum_of_squares": "sum",
}  # fmt: skip
"""Equations that reduce axes of an array, and what they reduce by."""
JOINED = {"sum": "add", "max": "maximum", "min": "minimum", "prod": "mul"}
"""What joins two parts of a reduction."""


def _along(arena: Arena, e: Any, indices: Sequence[Expression], reduced: Sequence[Axis]) -> list[Expression]:
    """The indices of an element that is reduced."""
    rest, over = iter(indices), iter(reduced)
    return [arena.axis(next(over)) if d in e.attributes["axes"] else next(rest) for d in range(_rank(e))]


def _rank(e: Any) -> int:
    return len(e.inputs[0].type.shape)


def _axis_reduction(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
    value = operand(0, _along(arena, e, indices, reduced))
    return arena.reduce(REDUCTIONS[e.op], reduced, (value,), _dtype(e)) if reduced else value


def _sum_of_squares(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
    # An operation of the kernels' own, see `sums`: of distances from a number that the elements share.
    value = operand(0, _along(arena, e, indices, reduced))
    distance = arena.make("sub", (value, operand(1, indices)), None, _dtype(e))
    return arena.reduce("sum", reduced, (arena.make("mul", (distance, distance), None, _dtype(e)),), _dtype(e))


for _name in REDUCTIONS:
    ELEMENTS[_name] = _sum_of_squares if _name == "sum_of_squares" else _axis_reduction
    REDUCED[_name] = lambda e: [e.inputs[0].type.shape[d] for d in e.attributes["axes"]]


@element("argmax")
def _argmax(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
    axis = e.attributes["axis"]
    value = operand(0, [*indices[:axis], arena.axis(reduced[0]), *indices[axis:]])
    return arena.reduce("argmax", reduced, (value,), "i64")


REDUCED["argmax"] = lambda e: [e.inputs[0].type.shape[e.attributes["axis"]]]


@element("argsort")
def _argsort(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
    # Each element's rank is how many stand before it; the element of rank p is found by comparing ranks.
    axis = e.attributes["axis"]
    at = lambda i: operand(0, [*indices[:axis], i, *indices[axis + 1 :]])
    mine, other = arena.axis(reduced[0]), arena.axis(reduced[1])
    left, right = at(other), at(mine)
    lower = arena.make("lt", (left, right), None, "bool")
    same = arena.make("eq", (left, right), None, "bool")
    if left.dtype not in ("i32", "i64"):
        # NaN stands last, as NumPy sorts.
        nan = lambda x: arena.make("ne", (x, x), None, "bool")
        lower = arena.make(
            "logical_or",
            (
                lower,
                arena.make(
                    "logical_and", (nan(right), arena.make("logical_not", (nan(left),), None, "bool")), None, "bool"
                ),
            ),
            None,
            "bool",
        )
        same = arena.make(
            "logical_or", (same, arena.make("logical_and", (nan(left), nan(right)), None, "bool")), None, "bool"
        )
    earlier = arena.make("lt", (other, mine), None, "bool")
    before = arena.make("logical_or", (lower, arena.make("logical_and", (same, earlier), None, "bool")), None, "bool")
    rank = arena.reduce("sum", reduced[1:], (arena.make("cast", [before], None, "i64"),), "i64")
    here = arena.make("eq", (rank, _as_number(arena, indices[axis])), None, "bool")
    chosen = arena.make("select", (here, _as_number(arena, mine), arena.number(0, "i64")), None, "i64")
    return arena.reduce("sum", reduced[:1], (chosen,), "i64")


REDUCED["argsort"] = lambda e: [e.inputs[0].type.shape[e.attributes["axis"]]] * 2


def _cumulative(operation: str, neutral: float) -> Element:
    def cumulative(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
        a, dtype = e.attributes, _dtype(e)
        i, r = indices[a["axis"]], arena.axis(reduced[0])
        compare = ("gt" if a["exclusive"] else "ge") if a["reverse"] else ("lt" if a["exclusive"] else "le")
        inside = arena.make(compare, (r, i), None, "bool")
        value = operand(0, [*indices[: a["axis"]], r, *indices[a["axis"] + 1 :]])
        number = arena.number(int(neutral) if dtype in ("i32", "i64") else neutral, dtype)
        return arena.reduce(operation, reduced, (arena.make("select", (inside, value, number), None, dtype),), dtype)

    return cumulative


for _name, _operation, _neutral in (("cumulative_sum", "sum", 0.0), ("cumulative_product", "prod", 1.0)):
    ELEMENTS[_name] = _cumulative(_operation, _neutral)
    REDUCED[_name] = lambda e: [e.inputs[0].type.shape[e.attributes["axis"]]]


# --- randomness -------------------------------------------------------------------------------------------------------


@element("uniform")
def _uniform(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
    lane = arena.number(0)
    for i, n in zip(indices, e.attributes["shape"], strict=True):
        lane = arena.sum(arena.times(lane, n), i)
    return arena.make("uniform", (operand(0, ()), _as_number(arena, lane)), None, _dtype(e))


# --- lists ------------------------------------------------------------------------------------------------------------


@element("reduce")
def _reduce(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
    value = operand(0, [*(arena.axis(r) for r in reduced), *indices])
    return arena.reduce(e.attributes["op"], reduced, (value,), _dtype(e))


REDUCED["reduce"] = lambda e: [dimension(e.inputs[0].type.axes[0])]


@element("iota")
def _iota(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
    return _as_number(arena, indices[0])


@element("element")
def _element(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
    size = dimension(e.inputs[0].type.axes[0])
    position = arena.make("as_index", [operand(1, ())], None, "index")
    if isinstance(size, int):
        position = arena.clamp(position, 0, size - 1)
    return operand(0, [position, *indices])


@element("scatter_element")
def _scatter_element(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
    here = arena.make("eq", (operand(1, ()), _as_number(arena, indices[0])), None, "bool")
    zero = arena.number(_zero(_dtype(e)), _dtype(e))
    return arena.make("select", (here, operand(0, indices[1:]), zero), None, _dtype(e))


@element("split")
def _split(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
    segment, place, *rest = indices
    return operand(0, [arena.sum(arena.times(segment, e.attributes["length"]), place), *rest])


@element("join")
def _join(arena: Arena, e: Any, indices: Any, operand: Operand, reduced: Any) -> Expression:
    length, (i, *rest) = e.attributes["length"], indices
    return operand(0, [arena.quotient(i, length), arena.remainder(i, length), *rest])
