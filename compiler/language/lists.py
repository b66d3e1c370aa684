"""Combinators of lists: map, shift, reverse, reduce."""

from __future__ import annotations

from typing import Any

from .. import types, words
from ..errors import DtypeError, ShapeError, StructureError
from ..expression import Expression, call, check_function, of_one, show_function
from ..scope import Scope, current
from ..trace import leaves, map_all, map_list, plain, require_elements, same_shape_of_structure, traced, with_leaves
from ..values import TracedArray, TracedList, TracedTree, type_of
from .recurrences import Comparison, matched


def map(f: Any) -> Expression:
    """Apply a function to every element of a list, of a grid (through all its dimensions), or to every node value of a
    tree.

    Arguments:
        f: element → result, an expression or any function of a traced value.

    Returns:
        An expression ``[a] → [b]``.

    Example:
        >>> embed = map(embedding(256, 32))
    """
    check_function(f, "ff.map")

    def apply(xs: Any) -> Any:
        xs = plain(xs)
        if isinstance(xs, TracedTree):
            nodes = map_list(TracedList((xs.size,), xs.content), lambda x: call(f, x))
            return TracedTree(xs.tables, xs.root, xs.kind, xs.size, xs.arity_size, xs.type, nodes.content)
        return map_all(require_elements(xs, "ff.map"), lambda x: call(f, x))

    return of_one(apply, f"map({show_function(f)})")


def shift(xs: Any, first: Any) -> Any:
    """A list moved one place to the right: `first`, then all elements of xs but the last.

    Arguments:
        xs: a list.
        first: a value of the element's type (a number, a parameter, a traced value).

    Returns:
        A list of the same size (an empty one stays empty).

    Example:
        >>> logits = scan(step, init=h)(shift(target, BOS))     # teacher forcing
    """
    xs = require_elements(xs, "ff.shift", 1)
    scope, size = current(), xs.sizes[0]
    first = as_element(first, xs, "ff.shift")
    index = TracedList((size,), TracedArray(scope.iota(size)))
    views = []
    for value in leaves(xs.content):
        if value.type.element.axes:
            raise StructureError("ff.shift moves lists of arrays, not lists of lists")
        window = scope("view", value, window=(1,), stride=(1,), dilation=(1,), low=(1,), high=(-1,), fill=0)
        views.append(window)
    moved = TracedList((size,), with_leaves(xs.content, iter(views)))
    firsts = leaves(first)

    def choose(window: Any, i: Any) -> Any:
        at_start = words.equal(i, 0)
        chosen = []
        for value, start in zip(leaves(window), firsts, strict=True):
            element = words.index_array(TracedArray(value), 0)
            chosen.append(words.where(at_start, TracedArray(start), element).value)
        return with_leaves(window, iter(chosen))

    return map_list(moved, choose, index)


def as_element(value: Any, xs: TracedList, where: str) -> Any:
    """A value in the structure, dtypes and shapes of a list's elements; a number stands for an array of that number."""
    value = traced(value)
    expected = leaves(xs.content)
    if not same_shape_of_structure(value, xs.content) or len(leaves(value)) != len(expected):
        raise StructureError(
            f"{where}: {types.show(type_of(value))} stands where an element, {types.show(type_of(xs.content))}, belongs"
        )
    out = []
    for given, like in zip(leaves(value), expected, strict=True):
        element = like.type.element
        x = TracedArray(given)
        if given.type.dtype is not element.dtype:
            if given.type.dtype.is_float and not element.dtype.is_float:
                raise DtypeError(f"{where}: a value of {given.type.dtype} stands where one of {element.dtype} belongs")
            x = words.cast_to(x, element.dtype)
        if not x.shape:
            x = words.broadcast_to(x, *element.shape)
        if x.shape != element.shape:
            raise ShapeError(f"{where}: {given.type} stands where {element} belongs")
        out.append(x.value)
    return with_leaves(value, iter(out))


def length(xs: Any) -> TracedArray:
    """The number of elements of a list or grid, or of nodes of a tree, as an i64 number."""
    return words.length(xs)


def indices(xs: Any) -> TracedList:
    """The list 0, 1, … of the size of a list."""
    size = require_elements(xs, "ff.indices", 1).sizes[0]
    value = current().iota(size)
    return TracedList((size,), TracedArray(value))


def reverse(xs: Any) -> Any:
    """A list from its last element to its first."""
    xs = require_elements(xs, "ff.reverse", 1)
    last = words.subtract(length(xs), 1)
    return map_list(indices(xs), lambda i: words.index_list(xs, words.subtract(last, i)))


def reduce(op: Any, identity: Any) -> Expression:
    """Reduce a list with an associative operation.

    Arguments:
        op: (left, right) → result, associative; it may be evaluated in any bracketing, in the list's order.
        identity: what leaves the other argument of `op` unchanged; the result for an empty list.

    Returns:
        An expression ``[a] → a``.

    Example:
        >>> compose_affine = reduce(lambda p, q: (q[0] * p[0], q[0] * p[1] + q[1]), (1.0, 0.0))
    """
    check_function(op, "ff.reduce")

    def apply(xs: Any) -> Any:
        xs = require_elements(xs, "ff.reduce", 1)
        scope, size = current(), xs.sizes[0]
        start = as_element(identity, xs, "the identity of ff.reduce")
        inner = Scope(scope, scope.program)
        left = with_leaves(start, iter([inner.parameter(v.type, "left") for v in leaves(start)]), keep_reps=False)
        right = with_leaves(xs.content, iter([inner.parameter(v.type.element, "right") for v in leaves(xs.content)]))
        with inner.active():
            result = matched(
                traced(call(op, left, right)), left, Comparison("the operation of ff.reduce takes", "but gives")
            )
        body, captured = inner.close(leaves(result))
        attributes = {"captured": len(captured), "carries": len(leaves(start)), "size": size}
        outputs = scope.emit("reduce_with", (*captured, *leaves(start), *leaves(xs.content)), attributes, (body,))
        return with_leaves(result, iter(outputs), keep_reps=False)

    return of_one(apply, f"reduce({show_function(op)})")
