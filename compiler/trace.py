"""Tracing: structures of traced values, and a user's functions run on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from . import types
from .errors import DtypeError, StructureError
from .ir import Value
from .parameters import Parameter
from .scope import Scope, current, is_tensor
from .sizes import Size
from .types import DType, from_numpy, i64, is_namedtuple
from .values import NamedProduct, Traced, TracedArray, TracedList, TracedTree, Unknown, type_of


def leaves(structure: Any) -> list[Value]:
    """The IR values of a structure, in order."""
    if isinstance(structure, TracedArray):
        return [structure.value]
    if isinstance(structure, (TracedList, NamedProduct)):
        return leaves(structure.content)
    if isinstance(structure, TracedTree):
        kind = [structure.kind] if structure.kind is not None else []
        return [*structure.tables, structure.root, *kind, *leaves(structure.content)]
    if isinstance(structure, Unknown):
        return []
    parts = structure.values() if isinstance(structure, Mapping) else structure
    return [value for part in parts for value in leaves(part)]


def with_leaves(structure: Any, values: Iterator[Value], keep_reps: bool = True) -> Any:
    """The same structure over other values."""
    rep = getattr(structure, "rep", None) if keep_reps and isinstance(structure, Traced) else None
    if isinstance(structure, TracedArray):
        return TracedArray(next(values), rep)
    if isinstance(structure, TracedList):
        content = with_leaves(structure.content, values, keep_reps)
        return TracedList(structure._sizes, content, structure.grid, rep, structure.static_length)
    if isinstance(structure, NamedProduct):
        content = with_leaves(structure.content, values, keep_reps)
        return NamedProduct(structure.rep, content) if keep_reps and structure.rep else content
    if isinstance(structure, TracedTree):
        tables, root = [next(values) for _ in structure.tables], next(values)
        kind = next(values) if structure.kind is not None else None
        content = with_leaves(structure.content, values, keep_reps)
        return TracedTree(tables, root, kind, structure.size, structure.arity_size, structure.type, content, rep)
    if isinstance(structure, Unknown):
        return structure
    if is_namedtuple(structure):
        return type(structure)(*[with_leaves(part, values, keep_reps) for part in structure])
    if isinstance(structure, Mapping):
        return {name: with_leaves(part, values, keep_reps) for name, part in structure.items()}
    return tuple(with_leaves(part, values, keep_reps) for part in structure)


def traced(value: Any, dtype: DType | None = None) -> Any:
    """A structure of traced values from what a user wrote: numbers, arrays, parameters and tensors become traced.

    Arguments:
        value: any product of traced values, parameters, numbers, NumPy arrays, torch tensors.
        dtype: the dtype of numbers; the program's float for floats and i64 for whole numbers when left out.

    Raises:
        StructureError: something else stands there.
    """
    if isinstance(value, Traced):
        return value
    if isinstance(value, Parameter):
        return TracedArray(current().program.parameter(value))
    if isinstance(value, (bool, int, float, np.generic, np.ndarray)):
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise DtypeError(
                f"arrays of {array.dtype} have no meaning in a program: write floats, whole numbers or bools"
            )
        kind = from_numpy(array.dtype)
        chosen = current().program.float_dtype if kind.is_float else kind
        if dtype is not None and not (chosen.is_float and not dtype.is_float):
            chosen = dtype
        return TracedArray(current().constant(array if array.ndim else array.item(), chosen))
    if is_tensor(value):
        return TracedArray(current().program.tensor(value))
    if is_namedtuple(value):
        return type(value)(*[traced(part) for part in value])
    if isinstance(value, (tuple, list)):
        return tuple(traced(part) for part in value)
    if isinstance(value, Mapping):
        return {name: traced(part) for name, part in value.items()}
    shown = getattr(value, "__name__", repr(value)) if callable(value) else repr(value)
    hint = "; a function is called first, as in f(x)" if callable(value) else ""
    hint = "; a function without a return gives None" if value is None else hint
    raise StructureError(
        f"{shown} is no value of a program: write arrays, numbers, lists, tuples and dicts of them{hint}"
    )


def plain(value: Any) -> Any:
    """A traced structure seen through its outermost name."""
    value = traced(value)
    return value.content if isinstance(value, NamedProduct) else value


def leaf_paths(structure: Any) -> list[str]:
    """A path such as ``[1].h`` per leaf value, in the order of `leaves`."""
    if isinstance(structure, (TracedArray, TracedTree)):
        return [""] * len(leaves(structure))
    if isinstance(structure, (TracedList, NamedProduct)):
        return leaf_paths(structure.content)
    if isinstance(structure, Unknown):
        return []
    if is_namedtuple(structure):
        return [f".{name}{path}" for name, part in structure._asdict().items() for path in leaf_paths(part)]
    if isinstance(structure, Mapping):
        return [f"[{name!r}]{path}" for name, part in structure.items() for path in leaf_paths(part)]
    return [f"[{i}]{path}" for i, part in enumerate(structure) for path in leaf_paths(part)]


def same_shape_of_structure(left: Any, right: Any) -> bool:
    """Whether two traced structures nest alike (tuples, dicts, lists and arrays at the same places)."""
    left = left.content if isinstance(left, NamedProduct) else left
    right = right.content if isinstance(right, NamedProduct) else right
    if isinstance(left, Unknown) or isinstance(right, Unknown):
        return True
    if isinstance(left, TracedList):
        if not isinstance(right, TracedList) or len(left._sizes) != len(right._sizes):
            return False
        return same_shape_of_structure(left.content, right.content)
    if isinstance(left, Traced) or isinstance(right, Traced):
        return type(left) is type(right)
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return list(left) == list(right) and all(same_shape_of_structure(left[k], right[k]) for k in left)
    if isinstance(left, tuple) and isinstance(right, tuple):
        return len(left) == len(right) and all(map(same_shape_of_structure, left, right))
    return False


def element_structure(xs: TracedList, values: Sequence[Value]) -> Any:
    """The structure of an element of a list, over the given values (which have lost the outermost axis)."""
    if len(xs._sizes) > 1:
        return TracedList(xs._sizes[1:], with_leaves(xs.content, iter(values)), xs.grid)
    return with_leaves(xs.content, iter(values))


def list_structure(size: Size, element: Any, values: Sequence[Value], grid: bool = False) -> TracedList:
    """The list of elements of the given structure, over the given values (which have gained an outermost axis). A grid
    of grid rows is one grid."""
    element = with_leaves(element, iter(values))
    if grid and isinstance(element, TracedList) and element.grid and element.rep is None:
        return TracedList((size, *element._sizes), element.content, True)
    return TracedList((size,), element, grid)


def map_list(xs: TracedList, function: Callable[..., Any], *others: TracedList) -> TracedList:
    """Apply a function of structures to the elements of lists of one size: the outermost axis only."""
    scope = current()
    size = xs.sizes[0]
    lists = [leaves(each) for each in (xs, *others)]
    flat = [v for group in lists for v in group]

    def index(inner: Scope) -> Value:
        flat.append(scope.iota(size))
        return inner.parameter(types.array(i64), "index")

    inner = Scope(scope, scope.program, index)
    inner.enter(size, flat)
    elements = []
    for each, values in zip((xs, *others), lists, strict=True):
        parameters = [inner.parameter(v.type.element, v.name) for v in values]
        elements.append(element_structure(each, parameters))
    with inner.active():
        result = traced(function(*elements))
        results = [inner.use(v) for v in leaves(result)]
    outputs = scope.map_lambda(scope.program.sizes.resolve(size), flat, inner, results)
    return list_structure(size, result, outputs, xs.grid)


def map_all(xs: TracedList, function: Callable[..., Any], *others: TracedList) -> TracedList:
    """Apply a function to every element of a list, or to every element of a grid through all its dimensions."""
    if len(xs._sizes) == 1:
        return map_list(xs, function, *others)
    return map_list(xs, lambda row, *rows: map_all(row, function, *rows), *others)


def unify_lists(lists: Sequence[TracedList], where: str) -> list[TracedList]:
    """Lists of one size, that of the first: sizes are merged, or the list is relabelled by a checked `resize`."""
    first, *others = lists
    out = [first]
    for other in others:
        if len(other._sizes) != len(first._sizes):
            raise StructureError(
                f"{where}: {types.show(type_of(first))} stands beside {types.show(type_of(other))}; "
                "lists and grids pair with their like"
            )
        out.append(_of_sizes(other, first, where))
    return out


def _of_sizes(xs: TracedList, like: TracedList, where: str) -> TracedList:
    scope = current()
    merged = [scope.program.merge(a, b, where) for a, b in zip(like.sizes, xs.sizes, strict=True)]
    if all(merged):
        return xs
    values = [scope("resize", v, sizes=like.sizes) for v in leaves(xs.content)]
    return TracedList(like.sizes, with_leaves(xs.content, iter(values)), xs.grid, xs.rep, xs.static_length)


def require_elements(xs: Any, what: str, dims: int | None = None) -> TracedList:
    """Refuse what is not a list.

    Raises:
        StructureError: it is something else.
    """
    xs = plain(xs)
    if not isinstance(xs, TracedList):
        raise StructureError(
            f"{what} runs over a list (ff.Seq or ff.Grid), but what stands there is {types.show(type_of(xs))}"
        )
    if dims is not None and len(xs._sizes) != dims:
        raise StructureError(
            f"{what} runs over a list of {dims} dimension{'s' * (dims > 1)}; a {types.show(type_of(xs))} has "
            f"{len(xs._sizes)}"
        )
    return xs
