"""``scan``: one equation for fold, scan and unfold.

Inputs: captured values, initial carries, lists. Body: captured, carries, elements → carries, [stop,] outputs.
Outputs: last carries, [count,] lists of outputs. Attributes: `captured`, `carries`, `size`, `reverse`, and where the
body decides when to stop, `stop=True` and `bound` (the most steps, or None): `size` is then a name that the equation
binds to its count, and there are no lists. A reverse scan runs from the last element to the first; its outputs keep
their index.

`checkpoint=True` marks a scan over segments (see `checkpoint`): its backward step computes the step again, and no law
takes that out of the loop.

The adjoint is a scan in the other direction whose carries are the cotangents of the carries. A captured value is never
a
carry of it: each step emits its cotangent, the sum stands outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..builder import Builder
from ..errors import CarryError, ShapeError, UnboundedError
from ..ir import Lambda
from ..records import Attributes, Combinator, register
from ..types import ListType, array, boolean, i64
from .map import check_parameters, cotangents, elements

UNBOUNDED_LIMIT = 65_536


def _infer(types: Sequence[ListType], attributes: Attributes, bodies: Sequence[Any]) -> tuple[ListType, ...]:
    (body,), captured, carries, size = bodies, attributes["captured"], attributes["carries"], attributes["size"]
    stop = attributes.get("stop", False)
    first = captured + carries
    check_parameters("scan", (*types[:first], *elements("scan", types[first:], size)), body)
    results = tuple(v.type for v in body.results)
    for i, (given, taken) in enumerate(zip(results, types[captured:first], strict=False)):
        if given != taken:
            raise CarryError(f"the step gives a carry of {given} where it takes {taken} (leaf {i})")
    outputs = results[carries:]
    if stop:
        if types[first:]:
            raise ShapeError("a scan that decides when to stop takes no lists")
        if not outputs or outputs[0] != array(boolean):
            raise ShapeError(f"the stopping flag is one bool; got {outputs[:1]}")
        outputs = outputs[1:]
    count = (array(i64),) if stop else ()
    return (*results[:carries], *count, *(t.listed(size) for t in outputs))


def _evaluate(run: Callable[..., Any], equation: Any, inputs: Sequence[Any], sizes: Any) -> Sequence[Any]:
    a, (body,) = equation.attributes, equation.bodies
    captured, carries, size = a["captured"], a["carries"], a["size"]
    constants, carry, lists = (
        inputs[:captured],
        list(inputs[captured : captured + carries]),
        inputs[captured + carries :],
    )
    if a.get("stop", False):
        rows, limit = [], a["bound"] if a["bound"] is not None else UNBOUNDED_LIMIT
        while len(rows) < limit:
            results = run(body, (*constants, *carry), sizes.enter(size, len(rows)))
            carry = list(results[:carries])
            rows.append(results[carries + 1 :])
            if bool(results[carries]):
                break
        else:
            if a["bound"] is None:
                raise never_stopped(equation)
        return [*carry, len(rows), *([row[j] for row in rows] for j in range(len(body.results) - carries - 1))]
    steps = range(sizes.value(size))
    outputs: list[list[Any]] = [[None] * len(steps) for _ in body.results[carries:]]
    for t in reversed(steps) if a["reverse"] else steps:
        results = run(body, (*constants, *carry, *(xs[t] for xs in lists)), sizes.enter(size, t))
        carry = list(results[:carries])
        for column, value in zip(outputs, results[carries:], strict=True):
            column[t] = value
    return [*carry, *outputs]


def never_stopped(equation: Any) -> UnboundedError:
    """The error for a predicate that did not stop an unfold."""
    return UnboundedError(
        f"the predicate of unfold did not stop it within {UNBOUNDED_LIMIT} steps; give max_length=, or mend the "
        "predicate",
        equation.source,
    )


def round_the_loop(
    d: Any, body: Lambda, needs: Sequence[bool], useful: Sequence[bool], first: int, states: int
) -> tuple[list[bool], list[bool]]:
    """Which states of a recursion take part in differentiation and which can have a cotangent: fixpoints round a loop.

    Arguments:
        d: the differentiator.
        body: the step; its first `states` results are the new states.
        needs, useful: per parameter and per result, as known from outside.
        first: the index of the first state among the parameters.
        states: how many.
    """
    needs, useful = list(needs), list(useful)
    changed = True
    while changed:
        active = d.active_results(body, needs)
        changed = False
        for j in range(states):
            if active[j] and not needs[first + j]:
                needs[first + j] = changed = True
    changed = True
    while changed:
        reached = d.influential_parameters(body, needs, useful)
        changed = False
        for j in range(states):
            if reached[first + j] and not useful[j]:
                useful[j] = changed = True
    return needs, useful


def _augment(d: Any, b: Any, equation: Any, needs: Sequence[bool], useful: Sequence[bool]) -> Any:
    a, (body,), inputs = equation.attributes, equation.bodies, equation.inputs
    captured, carries, size = a["captured"], a["carries"], a["size"]
    first = captured + carries
    needs, useful = round_the_loop(d, body, needs, useful, captured, carries)
    # A checkpointed scan keeps its carries only: the backward step runs the step again.
    pullback = d.vjp(body, needs, useful, save=not a.get("checkpoint", False))
    # A carry that the backward step reads is emitted as it was before the step.
    kept_carries = [i for i in pullback.kept if captured <= i < first]
    forward = pullback.forward
    forward = Lambda(
        forward.parameters, forward.equations, (*forward.results, *(forward.parameters[i] for i in kept_carries))
    )
    outputs = b.emit("scan", inputs, a, (forward,), pullback.binds(equation))
    count = len(body.results)  # the stopping flag becomes the count, so the numbers agree
    residuals = outputs[count : count + pullback.residuals]
    before = dict(zip(kept_carries, outputs[count + pullback.residuals :], strict=True))
    # Also a carry that the step does not hand on: the first one is still read, or given back by an empty list.
    ct_carries = [j for j in range(carries) if useful[j] and needs[captured + j]]

    def pull(b: Any, cts: Sequence[Any]) -> list[Any]:
        inner = Builder(b)
        inner.source = equation.source
        kept_captured = [i for i in pullback.kept if i < captured]
        constants = [inner.parameter(inputs[i].type, inputs[i].name) for i in kept_captured]
        carry = [inner.parameter(outputs[j].type, "ct") for j in ct_carries]
        list_values = [
            *(before[i] if i < first else inputs[i] for i in pullback.kept if i >= captured),
            *residuals,
            *cotangents(b, cts, outputs, [j for j in pullback.useful if j >= carries]),
        ]
        element = [inner.parameter(v.type.element, v.name) for v in list_values]
        arriving = [ct for ct, j in zip(carry, ct_carries, strict=True) if j in pullback.useful]
        split = len(element) - len([j for j in pullback.useful if j >= carries])
        pulled = dict(
            zip(
                pullback.reached,
                inner.inline(pullback.backward, (*constants, *element[:split], *arriving, *element[split:])),
                strict=True,
            )
        )
        ct_next = [pulled.get(captured + j) or inner.filled(0.0, outputs[j].type) for j in ct_carries]
        emitted = [i for i in pullback.reached if not captured <= i < first]
        step, outer = inner.close((*ct_next, *(pulled[i] for i in emitted)))
        initial = cotangents(b, cts, outputs, ct_carries)
        results = b.emit(
            "scan",
            (*outer, *(inputs[i] for i in kept_captured), *initial, *list_values),
            {
                **({"checkpoint": True} if a.get("checkpoint") else {}),
                "captured": len(outer) + len(kept_captured),
                "carries": len(ct_carries),
                "size": size,
                "reverse": not a["reverse"],
            },
            (step,),
        )
        out: list[Any] = [None] * len(inputs)
        for j, ct in zip(ct_carries, results, strict=False):
            out[captured + j] = ct
        for i, ct in zip(emitted, results[len(ct_carries) :], strict=True):
            out[i] = b.reduce("sum", ct) if i < captured else ct
        return out

    return outputs[:count], pull


register(Combinator("scan", _infer, _evaluate, _augment))
