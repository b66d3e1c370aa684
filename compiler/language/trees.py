"""Folding trees: `cata` and `switch`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import types, words
from ..errors import DtypeError, StructureError, TreeError
from ..expression import Expression, call, check_function, of_one, show_function
from ..ir import Lambda, Value
from ..scope import Scope, current
from ..trace import leaf_paths, leaves, list_structure, plain, same_shape_of_structure, traced, with_leaves
from ..types import array, i64
from ..values import NamedProduct, TracedArray, TracedList, TracedTree, Unknown, type_of
from .recurrences import Comparison, matched


def cata(node: Any, leaf: Any = None, every: bool = False) -> Expression:
    """Fold a tree from its leaves to its root.

    Arguments:
        node: (value, results of the children) → result; a dict of such functions, one per node kind, for a tree with
            kinds.
            The children's results are a list; with a fixed arity they unpack (``left, right = kids``).
        leaf: value → result, for nodes without children. Without it a leaf is a node whose list of children is empty.
        every: give every node's result, as a list in input order, instead of the root's.

    Returns:
        An expression ``Tree[a] → r``, or ``Tree[a] → [r]``.

    Raises:
        CarryError: a node's result differs in type from its children's.
        TreeError: the node kinds of the tree and of `node` differ.

    Example:
        >>> total = cata(lambda x, kids: x + sum(kids))
    """
    steps = node if isinstance(node, Mapping) else {"": node}
    for step in steps.values():
        check_function(step, "ff.cata")
    if leaf is not None:
        check_function(leaf, "ff.cata")

    def apply(tree: Any) -> Any:
        tree = plain(tree)
        if not isinstance(tree, TracedTree):
            raise StructureError(f"ff.cata folds a tree; what stands there is {types.show(type_of(tree))}")
        if isinstance(node, Mapping):
            if set(steps) != set(tree.type.kinds):
                raise TreeError(
                    f"ff.cata has steps for the kinds {sorted(steps)}, the tree has "
                    f"{list(tree.type.kinds) or 'no kinds'}; give one step per kind, "
                    "and declare the kinds in ff.Tree(…, kinds=(…))"
                )
            ordered = [steps[kind] for kind in tree.type.kinds]
        else:
            ordered = list(steps.values())
        if tree.type.arity is not None and leaf is None and tree.type.arity > 0:
            raise TreeError(
                f"a tree of fixed arity {tree.type.arity} has leaves, which have no children: give ff.cata a leaf= "
                "function"
            )
        results = _run_cata(tree, ordered, leaf)
        if every:
            return results
        values = [current()("element", v, tree.root) for v in leaves(results.content)]
        return with_leaves(results.content, iter(values))

    names = show_function(node) if not isinstance(node, Mapping) else "{" + ", ".join(steps) + "}"
    return of_one(apply, f"cata({names})")


_OF_NODE = Comparison("ff.cata takes", "but a node gives", "result of a child")


def _run_cata(tree: TracedTree, steps: Sequence[Any], leaf: Any) -> TracedList:
    scope = current()
    result = _result_structure(tree, steps, leaf)
    own = list(leaves(tree.content))
    if tree.kind is not None:
        own.append(tree.kind)

    def index(inner: Scope) -> Value:
        own.append(scope.iota(tree.size))
        return inner.parameter(array(i64), "node")

    inner = Scope(scope, scope.program, index)
    element = with_leaves(
        tree.content, iter([inner.parameter(v.type.element, v.name or "x") for v in leaves(tree.content)])
    )
    kind = inner.parameter(array(i64), "kind") if tree.kind is not None else None
    flat = leaves(result)
    parameters = [Value(v.type.listed(tree.arity_size), "kids") for v in flat]
    inner.defined.update(parameters)
    kids = _children(tree, result, parameters)
    with inner.active():
        given = matched(_node_result(inner, tree, steps, leaf, element, kids, kind), result, _OF_NODE)
    results = [inner.use(v) for v in leaves(given)]
    # The index, if it was asked for, was appended to the own elements; the children's results stand after all of them.
    inner.parameters = [*inner.parameters, *parameters]
    body, captured = inner.close(results)
    attributes = {
        "captured": len(captured),
        "own": len(own),
        "states": len(flat),
        "emitted": 0,
        "size": tree.size,
        "arity": tree.arity_size,
    }
    outputs = scope.emit(
        "tree_up", (*tree.tables, *captured, *own), attributes, (body,), names=[v.name for v in results]
    )
    return list_structure(tree.size, given, outputs)


def _children(tree: TracedTree, result: Any, values: Sequence[Value]) -> TracedList:
    return TracedList(
        (tree.arity_size,), with_leaves(result, iter(values), keep_reps=False), static_length=tree.type.arity
    )


def _node_result(
    inner: Scope, tree: TracedTree, steps: Sequence[Any], leaf: Any, element: Any, kids: Any, kind: Value | None
) -> Any:
    """What a node gives: its step, chosen by kind, or the leaf's where there are no children."""
    branches: list[Callable[[], Any]] = [lambda step=step: call(step, element, kids) for step in steps]
    if leaf is not None:
        branches = [lambda: call(leaf, element), *branches]
    if len(branches) == 1:
        return traced(branches[0]())
    index = TracedArray(kind) if len(steps) > 1 and kind is not None else TracedArray(inner.index_constant(0))
    if leaf is not None:
        inside = words.greater(TracedArray(inner.length(tree.arity_size)), 0)
        index = words.where(inside, words.add(index, 1), 0)
    return _switch(index, branches, _OF_NODE)


def switch(index: Any, branches: Sequence[Callable[[], Any]]) -> Any:
    """One of several branches, chosen by a computed index.

    Arguments:
        index: an i64 number from 0 to ``len(branches) - 1``.
        branches: functions without arguments that give results of one type; each closes over what it reads.

    Returns:
        The chosen branch's result. The others are not evaluated for their effect on errors or gradients.

    Raises:
        CarryError: the branches' types differ.

    Example:
        >>> y = switch(kind, [lambda: tanh(x), lambda: relu(x)])
    """
    if not branches:
        raise StructureError("ff.switch takes one branch or more")
    for branch in branches:
        check_function(branch, "ff.switch")
    index = words.require_array(plain(index), "the index of ff.switch")
    if index.shape or index.dtype.kind != "int":
        raise DtypeError(
            f"the index of ff.switch is one whole number, ff.i64; got {types.show(type_of(index))}. Between two "
            "values, "
            "ff.where(condition, a, b) chooses"
        )
    return _switch(index, branches, Comparison("one branch of ff.switch gives", "but another gives"))


def _switch(index: TracedArray, branches: Sequence[Callable[[], Any]], told: Comparison) -> Any:
    scope = current()
    index = words.cast_to(index, i64)
    built, results = [], []
    for branch in branches:
        inner = Scope(scope, scope.program)
        with inner.active():
            result = traced(branch()) if not results else matched(traced(branch()), results[0], told)
            found = [inner.use(v) for v in leaves(result)]
        results.append(result)
        built.append((inner, found))
    outer = list(dict.fromkeys(v for inner, _ in built for v in inner.captures))
    bodies = []
    for inner, found in built:
        parameters = tuple(inner.captures.get(v) or Value(v.type, v.name) for v in outer)
        bodies.append(Lambda(parameters, tuple(inner.equations), tuple(found)))
    outputs = scope.emit("switch", (index.value, *outer), {}, bodies)
    return with_leaves(results[0], iter(outputs))


def _result_structure(tree: TracedTree, steps: Sequence[Any], leaf: Any) -> Any:
    """The structure and types of a node's result, found by tracing into a scope that is thrown away: from the leaf's
    result, or, without one, by giving the children an unknown type and tracing until the result's type stands still."""
    scope = current()
    result: Any = Unknown()
    for _ in range(4):
        trial = Scope(scope, scope.program, lambda inner: inner.parameter(array(i64), "node"))
        element = with_leaves(
            tree.content, iter([trial.parameter(v.type.element, v.name) for v in leaves(tree.content)])
        )
        with trial.active():
            if leaf is not None:
                found = traced(call(leaf, element))
            else:
                flat = leaves(result)
                parameters = [trial.parameter(v.type.listed(tree.arity_size), "kids") for v in flat]
                found = traced(call(steps[0], element, _children(tree, result, parameters)))
        if has_unknown(found):
            if same_shape_of_structure(found, result) and not isinstance(result, Unknown):
                break
            result = found
            continue
        if leaf is not None or (
            same_shape_of_structure(found, result)
            and [v.type for v in leaves(found)] == [v.type for v in leaves(result)]
        ):
            return found
        result = found
    if has_unknown(result):
        raise TreeError(
            "the type of a node's result cannot be inferred from its children's alone; give ff.cata a leaf= function"
        )
    return result


def has_unknown(structure: Any) -> bool:
    if isinstance(structure, Unknown):
        return True
    if isinstance(structure, (TracedList, NamedProduct)):
        return has_unknown(structure.content)
    if isinstance(structure, Mapping):
        return any(has_unknown(part) for part in structure.values())
    return isinstance(structure, tuple) and any(has_unknown(part) for part in structure)


def tap(value: Any, name: str) -> Any:
    """Mark an inner value, so that ``model.record(…)`` shows it under this name; the value itself.

    Arguments:
        value: arrays, or products of them.
        name: what it is called in the record.
    """
    structure = traced(value)
    names = leaf_paths(structure)
    tapped = [current()("tap", v, name=f"{name}{path}") for v, path in zip(leaves(structure), names, strict=True)]
    return with_leaves(structure, iter(tapped))
