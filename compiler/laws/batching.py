"""Contractions over lists: one that makes a list is a map of contractions, several side by side are one."""

from __future__ import annotations

from ..builder import Builder
from ..ir import Equation, Lambda, Value
from .law import OpenBuilder, Scope, law, makers, users


@law("contraction under a map")
def contraction_under_a_map(body: Lambda, scope: Scope) -> Lambda:
    """contract(a, b) whose output is a list over n = map over n of a contraction, where n is the outermost axis of
    every operand
    that has it: so that it can join other maps over n."""
    out: list[Equation] = []
    changed = False
    for e in body.equations:
        mapped = _mapped(e)
        out.extend((e,) if mapped is None else mapped)
        if mapped is not None:
            scope.fired("contraction under a map", e, f"{e.attributes['spec']} over {e.output.type.axes[0]}")
            changed = True
    return Lambda(body.parameters, tuple(out), body.results) if changed else body


def is_batched(e: Equation) -> bool:
    """Whether a contraction's output is a list over an axis that is the outermost of every operand that has it."""
    if e.op != "contract" or not e.output.type.axes:
        return False
    operands, output = e.attributes["spec"].split("->")
    return not any(output[0] in own[1:] for own in operands.split(","))


def _mapped(e: Equation) -> list[Equation] | None:
    if not is_batched(e):
        return None
    operands, output = e.attributes["spec"].split("->")
    labels, name = operands.split(","), output[0]
    b = OpenBuilder()
    b.source = e.source
    lists = [v for v, own in zip(e.inputs, labels, strict=True) if own[:1] == name]
    spec = f"{','.join(own.lstrip(name) for own in labels)}->{output[1:]}"

    def element(inner: Builder, *values: Value) -> list[Value]:
        found = iter(values)
        arguments = [next(found) if own[:1] == name else v for v, own in zip(e.inputs, labels, strict=True)]
        return [inner("contract", *arguments, **{**e.attributes, "spec": spec})]

    (made,) = b.map(e.output.type.axes[0], lists, element)
    (equation,) = b.equations
    return [Equation("map", equation.inputs, e.outputs, equation.attributes, equation.bodies, (), e.source)]


@law("contractions side by side")
def contractions_side_by_side(body: Lambda, scope: Scope) -> Lambda:
    """concatenate (contract(a, b), contract(a, c)) = contract(a, concatenate b c), along an axis that a has not,
    outside of a
    recurrent step: one large product (the gradient of a packed weight) for several small ones."""
    if scope.recurrent:
        return body
    made = makers(body.equations)
    use = users(body)
    out: list[Equation] = []
    changed = False
    for e in body.equations:
        joined = _side_by_side(e, made, use) if e.op == "concatenate" else None
        out.extend((e,) if joined is None else joined)
        if joined is not None:
            scope.fired("contractions side by side", e, f"{len(e.inputs)} contractions become one of {e.output.type}")
            changed = True
    return Lambda(body.parameters, tuple(out), body.results) if changed else body


def _side_by_side(
    e: Equation, made: dict[Value, Equation], use: dict[Value, list[Equation | None]]
) -> list[Equation] | None:
    parts = [made.get(v) for v in e.inputs]
    if any(p is None or p.op != "contract" or len(use[p.output]) > 1 for p in parts):
        return None
    first = parts[0]
    if len({p.attributes["spec"] for p in parts}) > 1 or len({p.attributes.get("dtype") for p in parts}) > 1:
        return None
    operands, output = first.attributes["spec"].split("->")
    labels, label = operands.split(","), output[e.attributes["axis"]]
    for side in (0, 1):
        same = all(p.inputs[1 - side] is first.inputs[1 - side] for p in parts)
        axes = first.inputs[side].type.axes
        if not same or label in labels[1 - side] or any(p.inputs[side].type.axes != axes for p in parts):
            continue
        b = OpenBuilder()
        b.source = e.source
        axis = labels[side].index(label) - len(axes)
        joined = b.lift("concatenate", *(p.inputs[side] for p in parts), axis=axis)
        inputs = (joined, first.inputs[1]) if side == 0 else (first.inputs[0], joined)
        return [*b.equations, Equation("contract", inputs, e.outputs, first.attributes, (), (), e.source)]
    return None


LAWS = (contraction_under_a_map, contractions_side_by_side)
