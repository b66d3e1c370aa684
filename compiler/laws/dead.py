"""Laws about what nobody reads."""

from __future__ import annotations

from collections.abc import Iterable

from ..ir import Equation, Lambda, Value, live_equations
from ..records import RECORDS
from .law import LOOPS, Scope, law, size_names
from .loop import Loop


@law("dead code")
def dead_code(body: Lambda, scope: Scope) -> Lambda:
    """let x = e in f = f, where f does not use x and no type names a size that e determines; a loop's or switch's
    output that nobody reads is not computed, an input that its body does not read is not passed, and a carry that only
    feeds itself is no carry. `fold = last . scan` is the case of a scan of which only the last carry is read."""
    needed = set(body.results)
    names: set[str] = set()
    binding = any(e.binds for e in body.equations)
    if binding:
        names.update(_type_names(body.results))
    kept: list[Equation] = []
    changed = False
    for equation in reversed(body.equations):
        bound = {equation.outputs[i] for name, i in equation.binds if name in names}
        live = [v in needed or v in bound for v in equation.outputs]
        if not any(live):
            changed = True
            if getattr(RECORDS[equation.op], "cost", "loop") != "free":
                scope.fired("dead code", equation, f"{equation.op} is read by nobody")
            continue
        if equation.bodies:
            trimmed = _trimmed(equation, live, scope)
            changed |= trimmed is not equation
            equation = trimmed
        kept.append(equation)
        needed.update(equation.inputs)
        if binding:
            names |= size_names(equation, scope)
    return Lambda(body.parameters, tuple(kept[::-1]), body.results) if changed else body


def _type_names(values: Iterable[Value]) -> set[str]:
    return {name for v in values for axis in v.type.axes for name in axis.names()}


def _trimmed(equation: Equation, live: list[bool], scope: Scope) -> Equation:
    """An equation without what is not read of it."""
    if all(live) and all(inner in scope.tight for inner in equation.bodies):
        return equation
    out = _trim_switch(equation, live) if equation.op == "switch" else _trim_loop(equation, live)
    scope.tight.update(out.bodies)
    if out is not equation:
        fewer = len(equation.outputs) - len(out.outputs)
        if fewer:
            scope.fired("dead code", equation, f"{fewer} outputs of {equation.op} are read by nobody")
    return out


def _trim_switch(equation: Equation, live: list[bool]) -> Equation:
    kept_results = [i for i, alive in enumerate(live) if alive]
    bodies = []
    read: set[int] = set()
    for body in equation.bodies:
        results = tuple(body.results[i] for i in kept_results)
        equations = tuple(live_equations(body.equations, results))
        used = {v for e in equations for v in e.inputs} | set(results)
        read |= {i for i, p in enumerate(body.parameters) if p in used}
        bodies.append(Lambda(body.parameters, equations, results))
    if all(live) and len(read) == len(equation.inputs) - 1:
        return equation
    bodies = [Lambda(tuple(b.parameters[i] for i in sorted(read)), b.equations, b.results) for b in bodies]
    return Equation(
        "switch",
        (equation.inputs[0], *(equation.inputs[1 + i] for i in sorted(read))),
        tuple(equation.outputs[i] for i in kept_results),
        equation.attributes,
        tuple(bodies),
        equation.binds,
        equation.source,
    )


def _trim_loop(equation: Equation, live: list[bool]) -> Equation:
    assert equation.op in LOOPS
    loop = Loop(equation)
    alive = {v for v, use in zip(equation.outputs, live, strict=True) if use}
    wanted = [p for p in loop.results if p.role == "stop" or p.outer in alive or p.outer in loop.bound]
    carries = loop.leaving("carry")
    entering = loop.role("state") if loop.op == "tree_up" else loop.role("carry")
    if loop.op == "reduce_with":
        wanted = list(loop.results)
    while True:
        equations = live_equations(loop.equations, [p.inner for p in wanted])
        used = {v for e in equations for v in e.inputs} | {p.inner for p in wanted}
        more = [c for c, p in zip(carries, entering, strict=True) if p.inner in used and c not in wanted]
        if not more:
            break
        wanted += more
    dropped_carries = [p for c, p in zip(carries, entering, strict=True) if c not in wanted]
    keep_lists = loop.op == "reduce_with"
    inputs = [
        p
        for p in loop.inputs
        if p.role == "table"
        or (
            p not in dropped_carries
            if p.role in ("carry", "state")
            else p.inner in used or (keep_lists and p.role == "list")
        )
    ]
    if len(inputs) == len(loop.inputs) and len(wanted) == len(loop.results):
        return equation
    loop.inputs = inputs
    loop.results = [p for p in loop.results if p in wanted]
    loop.equations = equations
    return loop.equation()


LAWS = (dead_code,)
