"""One element of what each operation gives, as kernels compute it, against the operation's meaning in NumPy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from foldfuse.compiler import combinators, primitives
from foldfuse.compiler.ir import Equation, Value, infer
from foldfuse.compiler.records import RECORDS, Primitive
from foldfuse.compiler.sizes import Constant, Named, Size
from foldfuse.compiler.types import DTYPES, ListType, array, f32, f64, i32, i64
from foldfuse.kernels.elements import ELEMENTS, own_dimensions, reduced_extents, reshaped, uniform_constant
from foldfuse.kernels.expressions import Arena, Axis, Dimension, Expression

from .test_eager_primitives import SAMPLES, application, draw

_ = (combinators, primitives)  # their records must be in the table

WITHOUT_ELEMENTS = {
    "map": "a level of the flat program",
    "scan": "a loop of the flat program",
    "reduce_with": "a loop of the flat program",
    "length": "a number of the launch",
    "accumulate_rows": "evaluated: windows",
    "view": "evaluated: windows",
    "overlap_add": "evaluated: windows",
    "switch": "evaluated: node kinds",
    "tree_up": "evaluated: trees",
    "tree_down": "evaluated: trees",
}
"""The records that no element function is written for, and what becomes of them."""

REDUCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "sum": lambda x, y: x + y,
    "prod": lambda x, y: x * y,
    "max": np.maximum,
    "min": np.minimum,
}
INDEX: dict[str, Callable[..., int]] = {
    "plus": lambda i, j: i + j,
    "times": lambda i, j: i * j,
    "quotient": lambda i, j: i // j,
    "remainder_index": lambda i, j: i % j,
    "clamp": lambda i, low, high: min(max(i, low), high),
    "as_index": int,
}


class Evaluator:
    """The number that an expression is: axes stand for indices, loads for elements of arrays, reductions for loops.

    Arguments:
        operands: the arrays that are loaded from; a load says which, by number.
        outside: whether elements behind the end of an operand may be read.
    """

    def __init__(self, operands: Sequence[np.ndarray], outside: bool):
        self.operands, self.outside = operands, outside

    def __call__(self, term: Expression, at: dict[Axis, int]) -> Any:
        if term.op == "axis":
            return at[term.extra]
        if term.op == "number":
            return term.extra if term.dtype == "index" else DTYPES[term.dtype].numpy.type(term.extra)
        if term.op == "reduce":
            return self.reduction(term, at)
        arguments = [self(argument, at) for argument in term.arguments]
        if term.op == "load":
            return self.load(term, arguments)
        if term.op in INDEX and term.dtype == "index":
            return INDEX[term.op](*arguments)
        if term.op == "from_index":
            return DTYPES[term.dtype].numpy.type(arguments[0])
        if term.op == "uniform":
            seed, lane = arguments
            return RECORDS["uniform"].numpy(seed, (int(lane) + 1,), DTYPES[term.dtype])[lane]
        attributes = {"dtype": DTYPES[term.dtype], "pinned": False} if term.op == "cast" else {}
        return RECORDS[term.op].numpy(*map(np.asarray, arguments), **attributes)

    def load(self, term: Expression, indices: Sequence[int]) -> Any:
        values = self.operands[term.extra]
        assert len(indices) == values.ndim
        if all(0 <= i < n for i, n in zip(indices, values.shape)):
            return values[tuple(indices)]
        assert self.outside, f"{term} reads {tuple(indices)} of an array of shape {values.shape}"
        return values.dtype.type(0)

    def reduction(self, term: Expression, at: dict[Axis, int]) -> Any:
        operation, axes, contraction = term.extra
        total, best = None, -1
        for place in itertools.product(*(range(axis.extent) for axis in axes)):
            inner = {**at, **dict(zip(axes, place))}
            parts = [self(argument, inner) for argument in term.arguments]
            value = parts[0] * parts[1] if contraction else parts[0]
            if operation == "argmax":
                # NaN is the greatest, the first of equals wins.
                if total is None or value > total or (value != value and total == total):
                    total, best = value, place[0]
            else:
                total = value if total is None else REDUCTIONS[operation](total, value)
        if operation == "argmax":
            return np.int64(best)
        if total is None:
            total = {"sum": 0, "prod": 1}[operation]
        return DTYPES[term.dtype].numpy.type(total)


def elements(equation: Equation, operands: Sequence[np.ndarray], outside: bool = False) -> np.ndarray:
    """What an equation gives, each element by itself.

    Arguments:
        equation: the equation.
        operands: its inputs as arrays, the lists first.
        outside: whether elements behind the end of an operand may be read.
    """
    dims = [
        n if isinstance(n, int) else int(n.evaluate(SIZES.__getitem__)) for n in own_dimensions(equation.output.type)
    ]
    arena = Arena()
    own = [Axis(f"i{d}", n, "own") for d, n in enumerate(dims)]
    reduced = [Axis(f"r{d}", number(n), "reduced") for d, n in enumerate(reduced_extents(equation))]

    def operand(j: int, indices: Sequence[Expression]) -> Expression:
        return arena.load(j, indices, equation.inputs[j].type.dtype.name)

    term = ELEMENTS[equation.op](arena, equation, [arena.axis(axis) for axis in own], operand, reduced)
    assert term.dtype == equation.output.type.dtype.name
    assert term.axes <= set(own)
    evaluate = Evaluator(operands, outside)
    out = np.empty(dims, equation.output.type.dtype.numpy)
    with np.errstate(all="ignore"):
        for place in np.ndindex(*dims):
            out[place] = evaluate(term, dict(zip(own, place)))
    return out


SIZES = {"T": 5, "S": 3, "N": 2}
"""The extents of the list sizes in these tests."""


def number(extent: Dimension) -> int:
    return extent if isinstance(extent, int) else int(extent.evaluate(SIZES.__getitem__))


def equation_of(name: str, /, *types: ListType, **attributes: Any) -> Equation:
    """An application of an operation."""
    inputs = tuple(map(Value, types))
    return Equation(name, inputs, tuple(map(Value, infer(name, types, attributes, ()))), attributes)


# --- the records ------------------------------------------------------------------------------------------------------


def test_every_record_is_written_or_named() -> None:
    assert set(RECORDS) - set(ELEMENTS) == set(WITHOUT_ELEMENTS)
    assert set(ELEMENTS) - set(RECORDS) == {"sum_of_squares"}, "what the kernels add is tried in test_kernel_sums"
    assert not {name for name in WITHOUT_ELEMENTS if isinstance(RECORDS[name], Primitive)}


@pytest.mark.parametrize("name, index", SAMPLES)
def test_sample(name: str, index: int) -> None:
    record = RECORDS[name]
    sample = record.samples[index]
    (equation,) = application(name, types_of(sample.inputs), sample.attributes).equations
    if name == "constant" and len(np.unique(sample.attributes["value"])) > 1:
        # Unlike elements lie in memory, as a table.
        assert uniform_constant(equation) is None
        with pytest.raises(ValueError, match="table"):
            elements(equation, [])
        return
    rng = np.random.default_rng(index)
    for _ in range(3):
        operands = [draw(rng, given, sample.domain) for given in sample.inputs]
        with np.errstate(all="ignore"):
            expected = np.asarray(record.numpy(*operands, **sample.attributes))
        found = elements(equation, operands)
        assert found.shape == expected.shape and found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def types_of(inputs: Sequence[Any]) -> tuple[ListType, ...]:
    named = {np.dtype(bool): "bool", np.dtype(np.int64): "i64"}
    return tuple(t if isinstance(t, ListType) else array(DTYPES[named[np.asarray(t).dtype]], *t.shape) for t in inputs)


# --- what the samples leave out ---------------------------------------------------------------------------------------

MORE = {
    "slice of everything": ("slice", [(6, 4)], {"starts": (0, 0), "stops": (6, 4), "strides": (1, 1)}),
    "slice with strides": ("slice", [(7, 5)], {"starts": (6, 1), "stops": (7, 5), "strides": (1, 3)}),
    "flip of both axes": ("flip", [(3, 4)], {"axes": (0, 1)}),
    "pad of three axes": ("pad", [(2, 1, 3)], {"low": (0, 2, 1), "high": (1, 0, 0), "interior": (0, 3, 2)}),
    "pad by nothing": ("pad", [(2, 3)], {"low": (0, 0), "high": (0, 0), "interior": (0, 0)}),
    "pad of an empty array": ("pad", [(0, 2)], {"low": (1, 0), "high": (1, 1), "interior": (0, 0)}),
    "concatenation with an empty part": ("concatenate", [(2, 0), (2, 3), (2, 0), (2, 1)], {"axis": 1}),
    "concatenation of five": ("concatenate", [(1, 2), (2, 2), (3, 2), (1, 2), (2, 2)], {"axis": 0}),
    "transposition of four axes": ("transpose", [(2, 3, 4, 2)], {"permutation": (3, 1, 0, 2)}),
    "broadcast in the middle": ("broadcast", [(2, 1, 3)], {"shape": (2, 4, 5, 3), "dims": (0, 2, 3)}),
    "sum of an empty axis": ("reduce_sum", [(3, 0)], {"axes": (1,)}),
    "product of an empty axis": ("reduce_prod", [(0, 3)], {"axes": (0,)}),
    "sum over nothing": ("reduce_sum", [(2, 3)], {"axes": ()}),
    "maximum of outer axes": ("reduce_max", [(3, 2, 4)], {"axes": (0, 2)}),
    "product of heads": ("contract", [(2, 3), (2, 3, 4)], {"spec": "kn,knm->km"}),
    "product over two axes": ("contract", [(2, 3, 4), (4, 5, 3)], {"spec": "aij,jbi->ab"}),
    "product in another dtype": ("contract", [(3,), (3, 2)], {"spec": "i,ij->j", "dtype": f32}),
    "argmax of a middle axis": ("argmax", [(2, 4, 3)], {"axis": 1}),
    "argsort of a first axis": ("argsort", [(5, 2)], {"axis": 0}),
}
"""Further applications of primitives to arrays of float64: operation, shapes, attributes."""


@pytest.mark.parametrize("name", MORE)
def test_more(name: str) -> None:
    op, shapes, attributes = MORE[name]
    equation = equation_of(op, *(array(f64, *shape) for shape in shapes), **attributes)
    operands = [np.random.default_rng(i).standard_normal(shape) for i, shape in enumerate(shapes)]
    expected = RECORDS[op].numpy(*operands, **attributes)
    rounding = 1e-6 if "dtype" in attributes else 1e-12
    np.testing.assert_allclose(elements(equation, operands), expected, rtol=rounding, atol=1e-14)


def test_ties_and_what_is_no_number() -> None:
    values = np.array([[1.0, 3.0, 3.0, -1.0], [np.nan, 5.0, np.nan, 1.0], [-np.inf, -np.inf, -np.inf, -np.inf]])
    for op in ("argmax", "argsort"):
        equation = equation_of(op, array(f64, 3, 4), axis=1)
        np.testing.assert_array_equal(elements(equation, [values]), RECORDS[op].numpy(values, axis=1))


def test_an_index_out_of_range_reads_inside() -> None:
    # What the program says is in range is not looked at again; whatever stands there must be memory of the table.
    table, index = np.arange(6.0).reshape(3, 2), np.array([-7, 5, 1])
    equation = equation_of("gather", array(f64, 3, 2), array(i64, 3), axis=0)
    np.testing.assert_array_equal(elements(equation, [table, index]), table[[0, 2, 1]])
    equation = equation_of("gather_along", array(f64, 3, 2), array(i64, 1, 2), axis=0)
    np.testing.assert_array_equal(elements(equation, [table, np.array([[9, -9]])]), [[4.0, 1.0]])


def test_indices_of_either_width() -> None:
    for dtype in (i32, i64):
        index = np.array([2, 0, 2], dtype.numpy)
        equation = equation_of("scatter_add", array(f64, 3), array(dtype, 3), axis=0, size=4)
        np.testing.assert_array_equal(elements(equation, [np.array([1.0, 2.0, 4.0]), index]), [2, 0, 5, 0])


SHAPES = {
    count: [
        shape
        for rank in range(5)
        for shape in itertools.product((1, 2, 3, 4, 6), repeat=rank)
        if math.prod(shape) == count
    ]
    for count in (1, 4, 12)
}


@pytest.mark.parametrize("count", SHAPES)
def test_reshape(count: int) -> None:
    values = np.arange(float(count))
    pairs = list(itertools.product(SHAPES[count], repeat=2))
    for given, wanted in itertools.islice(pairs, 0, None, 1 + len(pairs) // 400):
        equation = equation_of("reshape", array(f64, *given), shape=wanted)
        operand = values.reshape(given)
        np.testing.assert_array_equal(elements(equation, [operand]), operand.reshape(wanted))


def test_reshape_keeps_the_indices_of_what_it_keeps() -> None:
    arena = Arena()
    batch, wide, last = (arena.axis(Axis(name, n, "own")) for name, n in (("a", 4), ("b", 6), ("c", 5)))
    first, high, low, end = reshaped(arena, (batch, wide, last), (4, 6, 5), (4, 2, 3, 5))
    assert first is batch and end is last
    assert (high.op, low.op) == ("quotient", "remainder_index")
    assert reshaped(arena, (batch, wide), (4, 6), (1, 4, 1, 6))[1::2] == [batch, wide]


def test_an_empty_reshape() -> None:
    equation = equation_of("reshape", array(f64, 0, 3), shape=(3, 0))
    assert elements(equation, [np.empty((0, 3))]).shape == (3, 0)


# --- lists ------------------------------------------------------------------------------------------------------------

T, S = Named("T"), Named("S")


class _Sizes:
    """List sizes as `Combinator.evaluate` asks for them; none varies with an index."""

    def value(self, size: Size) -> int:
        return number(size)

    def enter(self, size: Size, index: int) -> _Sizes:
        return self


def nested(values: np.ndarray, type_: ListType) -> Any:
    """An array as nested Python lists of arrays."""
    if not type_.axes:
        return values
    return [nested(part, type_.element) for part in values]


LISTS: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    **{f"reduce {op}": ("reduce", (array(f64, 2).listed(T),), {"op": op}) for op in ("sum", "prod", "max", "min")},
    "reduce lists of lists": ("reduce", (array(f64, 2).listed(T, S),), {"op": "sum"}),
    "reduce numbers": ("reduce", (array(i64).listed(T),), {"op": "max"}),
    "iota": ("iota", (), {"size": T}),
    "iota of a constant": ("iota", (), {"size": Constant(4)}),
    "element": ("element", (array(f64, 2).listed(T), np.int64(3)), {}),
    "element of lists": ("element", (array(f64).listed(T, S), np.int64(0)), {}),
    "element of a constant list": ("element", (array(f64, 2).listed(Constant(4)), np.int64(3)), {}),
    "scatter_element": ("scatter_element", (array(f64, 2), np.int64(4)), {"size": T}),
    "scatter_element of a list": ("scatter_element", (array(f64).listed(S), np.int64(1)), {"size": T}),
    "stack": ("stack", (array(f64, 2).listed(Constant(3)),), {}),
    "unstack": ("unstack", (array(f64, 3, 2),), {}),
    "contraction of lists": ("contract", (array(f64, 2).listed(T), array(f64, 3).listed(T)), {"spec": "ti,tj->ij"}),
    "contraction under lists": ("contract", (array(f64, 2).listed(T), array(f64, 2, 3)), {"spec": "ti,ij->tj"}),
}


@pytest.mark.parametrize("name", LISTS)
def test_list(name: str) -> None:
    op, inputs, attributes = LISTS[name]
    types = tuple(t if isinstance(t, ListType) else array(i64) for t in inputs)
    equation = equation_of(op, *types, **attributes)
    rng = np.random.default_rng(1)

    def drawn(given: Any) -> np.ndarray:
        if not isinstance(given, ListType):
            return np.asarray(given)
        shape = tuple(map(number, own_dimensions(given)))
        if given.dtype is i64:
            return rng.integers(-5, 5, shape)
        return rng.standard_normal(shape)

    operands = [drawn(given) for given in inputs]
    if op == "contract":
        expected = np.einsum(attributes["spec"], *operands)
    else:
        lists = [nested(values, type_) for values, type_ in zip(operands, types)]
        (made,) = RECORDS[op].evaluate(None, equation, lists, _Sizes())
        expected = np.asarray(made)
    found = elements(equation, operands)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_segments() -> None:
    values = np.arange(10.0).reshape(5, 2)
    attributes = {"size": T, "length": 2, "inner": Named("N")}
    counts, split = infer("split", (array(f64, 2).listed(T),), attributes, ())
    taken = Equation("split", (Value(array(f64, 2).listed(T)),), (Value(split),), attributes)
    segments = elements(taken, [values], outside=True)
    assert segments.shape == (3, 2, 2)
    # The last of three segments of a list of five has one element; what stands behind it is nobody's.
    np.testing.assert_array_equal(segments.reshape(6, 2)[:5], values)
    joined = equation_of("join", split, size=T, length=2)
    np.testing.assert_array_equal(elements(joined, [segments]), values)
    assert counts == array(i64).listed(split.axes[0])
