"""``tree_up`` and ``tree_down``: bodies applied along a tree, from the leaves to the root and back.

A tree is a list axis of nodes (size N) with three lists of numbers: `parent` (-1 for the root), `slot` (the place among
its siblings) and `height` (0 for a leaf). Within a body, K is the size of the node's list of children.

- `tree_up`. Inputs: parent, slot, height, captured values, own lists (one element per node), kid lists (per node too,
  but delivered to the parent's body, as a list of K). Body: captured, own elements, the children's results (lists of
  K), kid lists → results, own outputs, kid outputs (lists of K). Outputs: every node's results, own outputs, kid
  outputs put back at the children (zero at the root). Attributes: `captured`, `own`, `states` (the number of results),
  `emitted` (of own outputs), `size` (N), `arity` (K).
- `tree_down`. Inputs: parent, slot, height, captured, the root's states, own lists, kid lists. Body: captured, states,
  own, kid lists → the children's states (lists of K), own outputs, kid outputs. Outputs: own outputs, kid outputs.

Each is the other's transpose: the cotangent of a result travels down, that of a state travels up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..builder import Builder
from ..errors import CarryError, ShapeError
from ..ir import Lambda, Value
from ..records import Attributes, Combinator, register
from ..types import ListType, array, i64
from .map import check_parameters, elements
from .reduce import zeros
from .scan import round_the_loop

TABLES = 3  # parent, slot, height


def _check_tables(name: str, types: Sequence[ListType], attributes: Attributes) -> None:
    for type_ in types[:TABLES]:
        if type_ != array(i64).listed(attributes["size"]):
            raise ShapeError(f"{name} takes parent, slot and height as i64 lists of its nodes; got {type_}")


def _kid_elements(name: str, types: Sequence[ListType], attributes: Attributes) -> tuple[ListType, ...]:
    return tuple(t.listed(attributes["arity"]) for t in elements(name, types, attributes["size"]))


def _kid_outputs(results: Sequence[ListType], attributes: Attributes) -> tuple[ListType, ...]:
    return tuple(t.listed(attributes["size"]) for t in elements("a tree", results, attributes["arity"]))


def _infer_up(types: Sequence[ListType], attributes: Attributes, bodies: Sequence[Any]) -> tuple[ListType, ...]:
    a, (body,) = attributes, bodies
    _check_tables("tree_up", types, a)
    captured, own = TABLES + a["captured"], TABLES + a["captured"] + a["own"]
    results = tuple(v.type for v in body.results)
    states = results[: a["states"]]
    expected = (
        *types[TABLES:captured],
        *elements("tree_up", types[captured:own], a["size"]),
        *(t.listed(a["arity"]) for t in states),
        *_kid_elements("tree_up", types[own:], a),
    )
    found = tuple(v.type for v in body.parameters)
    first = a["captured"] + a["own"]
    for i, (given, taken) in enumerate(zip(states, found[first : first + len(states)], strict=False)):
        if given.listed(a["arity"]) != taken:
            raise CarryError(
                f"a node gives a result of {given} where it takes its children's as {taken.element} (leaf {i})"
            )
    check_parameters("tree_up", expected, body)
    own_outputs = results[a["states"] : a["states"] + a["emitted"]]
    kid_outputs = _kid_outputs(results[a["states"] + a["emitted"] :], a)
    return (*(t.listed(a["size"]) for t in (*states, *own_outputs)), *kid_outputs)


def _infer_down(types: Sequence[ListType], attributes: Attributes, bodies: Sequence[Any]) -> tuple[ListType, ...]:
    a, (body,) = attributes, bodies
    _check_tables("tree_down", types, a)
    captured = TABLES + a["captured"]
    states, own = captured + a["states"], captured + a["states"] + a["own"]
    check_parameters(
        "tree_down",
        (
            *types[TABLES:states],
            *elements("tree_down", types[states:own], a["size"]),
            *_kid_elements("tree_down", types[own:], a),
        ),
        body,
    )
    results = tuple(v.type for v in body.results)
    for given, taken in zip(results[: a["states"]], types[captured:states], strict=True):
        if given != taken.listed(a["arity"]):
            raise CarryError(f"a node gives its children states of {given} where they take {taken}")
    own_outputs = results[a["states"] : a["states"] + a["emitted"]]
    kid_outputs = _kid_outputs(results[a["states"] + a["emitted"] :], a)
    return (*(t.listed(a["size"]) for t in own_outputs), *kid_outputs)


def _children(parent: Sequence[Any], slot: Sequence[Any]) -> list[list[int]]:
    """Each node's children in order."""
    kids: list[list[int]] = [[] for _ in parent]
    for node in sorted(range(len(parent)), key=lambda n: int(slot[n])):
        if parent[node] >= 0:
            kids[int(parent[node])].append(node)
    return kids


def _evaluate_up(run: Callable[..., Any], equation: Any, inputs: Sequence[Any], sizes: Any) -> Sequence[Any]:
    a, (parent, slot, height) = equation.attributes, inputs[:TABLES]
    captured, own = TABLES + a["captured"], TABLES + a["captured"] + a["own"]
    kids, results = _children(parent, slot), [None] * len(parent)
    columns = _output_columns(equation, sizes)
    emitted = a["states"] + a["emitted"]
    for node in sorted(range(len(parent)), key=lambda n: int(height[n])):
        arguments = (
            *inputs[TABLES:captured],
            *(xs[node] for xs in inputs[captured:own]),
            *([results[kid][j] for kid in kids[node]] for j in range(a["states"])),
            *([xs[kid] for kid in kids[node]] for xs in inputs[own:]),
        )
        out = run(equation.bodies[0], arguments, sizes.enter(a["size"], node))
        results[node] = out[: a["states"]]
        _store(columns, out, node, kids[node], emitted)
    return columns


def _evaluate_down(run: Callable[..., Any], equation: Any, inputs: Sequence[Any], sizes: Any) -> Sequence[Any]:
    a, (parent, slot, height) = equation.attributes, inputs[:TABLES]
    captured = TABLES + a["captured"]
    first, own = captured + a["states"], captured + a["states"] + a["own"]
    kids = _children(parent, slot)
    states = [inputs[captured:first] if parent[n] < 0 else [None] * a["states"] for n in range(len(parent))]
    columns = _output_columns(equation, sizes)
    for node in sorted(range(len(parent)), key=lambda n: -int(height[n])):
        arguments = (
            *inputs[TABLES:captured],
            *states[node],
            *(xs[node] for xs in inputs[first:own]),
            *([xs[kid] for kid in kids[node]] for xs in inputs[own:]),
        )
        out = run(equation.bodies[0], arguments, sizes.enter(a["size"], node))
        for place, kid in enumerate(kids[node]):
            states[kid] = [out[j][place] for j in range(a["states"])]
        _store(columns, out[a["states"] :], node, kids[node], a["emitted"])
    return columns


def _output_columns(equation: Any, sizes: Any) -> list[Any]:
    return [zeros(v.type, sizes) for v in equation.outputs]


def _store(columns: list[Any], out: Sequence[Any], node: int, kids: Sequence[int], own: int) -> None:
    """Own outputs at the node, kid outputs at its children."""
    for j, (column, value) in enumerate(zip(columns, out, strict=True)):
        if j < own:
            column[node] = value
        else:
            for place, kid in enumerate(kids):
                column[kid] = value[place]


# --- adjoints ---------------------------------------------------------------------------------------------------------


def _partition(residuals: Sequence[Any], arity: Any) -> tuple[list[int], list[int]]:
    """Residuals kept at the node, and those that are one per child (kept at the children: no padding to the widest
    node).
    """
    own, kid = [], []
    for i, value in enumerate(residuals):
        (kid if value.type.axes and value.type.axes[0] == arity else own).append(i)
    return own, kid


def _residual_binds(pullback: Any, count: int, own: Sequence[int], first: int) -> tuple[tuple[str, int], ...]:
    """Where the counts of sizes that a node's body determines stand among the outputs: they are kept at the node."""
    return tuple((name, first + own.index(index - count)) for name, index in pullback.counts)


class _Transpose:
    """The backward recursion of a tree equation: collects inputs by role, builds the body, sorts the results out."""

    def __init__(self, b: Builder, equation: Any):
        self.b, self.equation = b, equation
        self.inner = Builder(b)
        self.inner.source = equation.source
        self.roles: dict[str, list[tuple[Any, Any]]] = {"captured": [], "states": [], "own": [], "kid": []}

    def take(self, role: str, value: Any, element: ListType) -> Any:
        """A parameter of the body for an input of the given role."""
        parameter = Value(element, value.name if value is not None else "")
        self.inner.defined.add(parameter)
        self.roles[role].append((value, parameter))
        return parameter

    def emit(self, op: str, states: Sequence[Any], own: Sequence[Any], kid: Sequence[Any]) -> tuple[Any, ...]:
        a = self.equation.attributes
        order = [
            self.roles[r]
            for r in (("captured", "own", "states", "kid") if op == "tree_up" else ("captured", "states", "own", "kid"))
        ]
        self.inner.parameters = [p for group in order for _, p in group]
        body, outer = self.inner.close((*states, *own, *kid))
        inputs = [
            *self.equation.inputs[:TABLES],
            *outer,
            *(value for group in order for value, _ in group if value is not None),
        ]
        attributes = {
            "captured": len(outer) + len(self.roles["captured"]),
            "own": len(self.roles["own"]),
            "states": len(states),
            "emitted": len(own),
            "size": a["size"],
            "arity": a["arity"],
        }
        return self.b.emit(op, inputs, attributes, (body,))


def _augment_up(d: Any, b: Any, equation: Any, needs: Sequence[bool], useful: Sequence[bool]) -> Any:
    a, (body,), inputs = equation.attributes, equation.bodies, equation.inputs
    captured, states, own = a["captured"], a["states"], a["own"]
    state_parameter = captured + own
    body_needs = [*needs[TABLES : TABLES + state_parameter], *[False] * states, *needs[TABLES + state_parameter :]]
    body_needs, useful = round_the_loop(d, body, body_needs, useful, state_parameter, states)
    pullback = d.vjp(body, body_needs, useful)
    count, first_kid = len(body.results), states + a["emitted"]
    forward, residuals = pullback.forward, pullback.forward.results[count:]
    own_residuals, kid_residuals = _partition(residuals, a["arity"])
    results = (
        *forward.results[:first_kid],
        *(residuals[i] for i in own_residuals),
        *forward.results[first_kid:count],
        *(residuals[i] for i in kid_residuals),
    )
    forward = Lambda(forward.parameters, forward.equations, results)
    binds = _residual_binds(pullback, count, own_residuals, first_kid)
    emitted = b.emit("tree_up", inputs, {**a, "emitted": a["emitted"] + len(own_residuals)}, (forward,), binds)
    outputs = (*emitted[:first_kid], *emitted[first_kid + len(own_residuals) : count + len(own_residuals)])
    kept_own = dict(zip(own_residuals, emitted[first_kid:], strict=False))
    kept_kid = dict(zip(kid_residuals, emitted[count + len(own_residuals) :], strict=True))
    ct_states = [j for j in pullback.useful if j < states]

    def pull(b: Any, cts: Sequence[Any]) -> list[Any]:
        back = _Transpose(b, equation)
        inner = back.inner
        # A node's result has the cotangent that its parent hands down and the one from outside.
        total = {}
        for j in ct_states:
            element = outputs[j].type.element
            handed = back.take("states", b.filled(0.0, element), element)
            total[j] = handed if cts[j] is None else inner.add(handed, back.take("own", cts[j], element))
        arguments = []
        for i in pullback.kept:
            if i < captured:
                arguments.append(back.take("captured", inputs[TABLES + i], inputs[TABLES + i].type))
            elif i < state_parameter:
                arguments.append(back.take("own", inputs[TABLES + i], inputs[TABLES + i].type.element))
            elif i < state_parameter + states:
                arguments.append(back.take("kid", outputs[i - state_parameter], body.parameters[i].type))
            else:
                arguments.append(back.take("kid", inputs[TABLES + i - states], body.parameters[i].type))
        for i, value in enumerate(residuals):
            role, source = ("own", kept_own[i]) if i in kept_own else ("kid", kept_kid[i])
            arguments.append(back.take(role, source, value.type))
        for j in pullback.useful:
            if j < states:
                arguments.append(total[j])
            else:
                value = cts[j] if cts[j] is not None else b.filled(0.0, outputs[j].type)
                arguments.append(back.take("own" if j < first_kid else "kid", value, body.results[j].type))
        pulled = dict(zip(pullback.reached, inner.inline(pullback.backward, arguments), strict=True))
        down = [
            pulled.get(state_parameter + j) or inner.filled(0.0, body.parameters[state_parameter + j].type)
            for j in ct_states
        ]
        own_out = [i for i in pullback.reached if i < state_parameter]
        kid_out = [i for i in pullback.reached if i >= state_parameter + states]
        values = back.emit("tree_down", down, [pulled[i] for i in own_out], [pulled[i] for i in kid_out])
        out: list[Any] = [None] * len(inputs)
        for i, ct in zip((*own_out, *kid_out), values, strict=True):
            at = TABLES + (i if i < state_parameter else i - states)
            out[at] = b.reduce("sum", ct) if i < captured else ct
        return out

    return outputs, pull


def _augment_down(d: Any, b: Any, equation: Any, needs: Sequence[bool], useful: Sequence[bool]) -> Any:
    a, (body,), inputs = equation.attributes, equation.bodies, equation.inputs
    captured, states = a["captured"], a["states"]
    first_own, first_kid_parameter = captured + states, captured + states + a["own"]
    body_useful = [False] * states + list(useful)
    body_needs, body_useful = round_the_loop(d, body, needs[TABLES:], body_useful, captured, states)
    pullback = d.vjp(body, body_needs, body_useful)
    count, first_kid = len(body.results), states + a["emitted"]
    forward, residuals = pullback.forward, pullback.forward.results[count:]
    own_residuals, kid_residuals = _partition(residuals, a["arity"])
    kept_states = [i for i in pullback.kept if captured <= i < first_own]
    results = (
        *forward.results[:first_kid],
        *(residuals[i] for i in own_residuals),
        *(forward.parameters[i] for i in kept_states),
        *forward.results[first_kid:count],
        *(residuals[i] for i in kid_residuals),
    )
    forward = Lambda(forward.parameters, forward.equations, results)
    extra = len(own_residuals) + len(kept_states)
    binds = _residual_binds(pullback, count, own_residuals, a["emitted"])
    emitted = b.emit("tree_down", inputs, {**a, "emitted": a["emitted"] + extra}, (forward,), binds)
    own_end = a["emitted"]
    outputs = (*emitted[:own_end], *emitted[own_end + extra : count - states + extra])
    kept_own = dict(zip(own_residuals, emitted[own_end:], strict=False))
    state_lists = dict(zip(kept_states, emitted[own_end + len(own_residuals) :], strict=False))
    kept_kid = dict(zip(kid_residuals, emitted[count - states + extra :], strict=True))
    # Also a state that a node does not hand on: the root's is still read.
    ct_states = [
        j for j in range(states) if body_needs[captured + j] and (body_useful[j] or captured + j in pullback.reached)
    ]

    def pull(b: Any, cts: Sequence[Any]) -> list[Any]:
        back = _Transpose(b, equation)
        inner = back.inner
        # The children's results of the recursion upward are the cotangents of the states that they were handed.
        handed = {j: back.take("states", None, body.results[j].type) for j in ct_states}
        arguments = []
        for i in pullback.kept:
            if i < captured:
                arguments.append(back.take("captured", inputs[TABLES + i], inputs[TABLES + i].type))
            elif i < first_own:
                arguments.append(back.take("own", state_lists[i], body.parameters[i].type))
            else:
                role = "own" if i < first_kid_parameter else "kid"
                arguments.append(back.take(role, inputs[TABLES + i], body.parameters[i].type))
        for i, value in enumerate(residuals):
            role, source = ("own", kept_own[i]) if i in kept_own else ("kid", kept_kid[i])
            arguments.append(back.take(role, source, value.type))
        for j in pullback.useful:
            if j < states:
                arguments.append(handed[j])
            else:
                value = cts[j - states] if cts[j - states] is not None else b.filled(0.0, outputs[j - states].type)
                arguments.append(back.take("own" if j < first_kid else "kid", value, body.results[j].type))
        pulled = dict(zip(pullback.reached, inner.inline(pullback.backward, arguments), strict=True))
        up = [pulled.get(captured + j) or inner.filled(0.0, body.parameters[captured + j].type) for j in ct_states]
        own_out = [i for i in pullback.reached if i < captured or first_own <= i < first_kid_parameter]
        kid_out = [i for i in pullback.reached if i >= first_kid_parameter]
        values = back.emit("tree_up", up, [pulled[i] for i in own_out], [pulled[i] for i in kid_out])
        out: list[Any] = [None] * len(inputs)
        parent = inputs[0]
        for j, ct in zip(ct_states, values, strict=False):
            if needs[TABLES + captured + j]:
                out[TABLES + captured + j] = _at_root(b, parent, ct, a["size"])
        for i, ct in zip((*own_out, *kid_out), values[len(ct_states) :], strict=True):
            out[TABLES + i] = b.reduce("sum", ct) if i < captured else ct
        return out

    return outputs, pull


def _at_root(b: Any, parent: Any, values: Any, size: Any) -> Any:
    """The root's element of a list over the nodes."""
    zero = b.filled(0.0, values.type.element)

    def choose(inner: Any, p: Any, x: Any) -> list[Any]:
        root = inner("lt", p, inner.index_constant(0))
        return [select(inner, root, x, zero)]

    (chosen,) = b.map(size, [parent, values], choose)
    return b.reduce("sum", chosen)


def select(b: Any, condition: Any, chosen: Any, other: Any) -> Any:
    """One of two values (lists too) by a single bool."""
    if chosen.type.axes:
        (out,) = b.map(chosen.type.axes[0], [chosen, other], lambda inner, x, y: [select(inner, condition, x, y)])
        return out
    return b("select", b.broadcast(condition, chosen.type.shape, ()), chosen, other)


register(Combinator("tree_up", _infer_up, _evaluate_up, _augment_up))
register(Combinator("tree_down", _infer_down, _evaluate_down, _augment_down))
