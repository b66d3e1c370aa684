"""Laws that move work out of a loop to before it: invariants, and what depends on the elements alone."""

from __future__ import annotations

from collections.abc import Iterable

from ..ir import Equation, Lambda, Value
from ..sizes import Size
from .law import COPIES, LOOPS, Scope, cone, law, makers, may_raise, moved, numel, size_names, users
from .loop import Loop, Port, new_map

NARROW = 32
"""How many times wider than its element a contraction's result must be to stay in the loop: reading the wide list in
every step then costs more than the contraction of the narrow one."""


def frontier(loop: Loop, outside: set[Equation], extra: Iterable[Value] = ()) -> tuple[list[Value], set[Equation]]:
    """What a loop must be given when some of its equations run outside of it.

    Constants and broadcasts at the border stay in the loop, so that what crosses it is small.

    Arguments:
        loop: the loop.
        outside: equations that may move; closed under what they depend on.
        extra: values wanted besides those that the rest of the loop reads.

    Returns:
        The values that cross the border, in order, and the equations that make them.
    """
    made = makers(loop.equations)
    waiting = [v for e in loop.equations if e not in outside for v in e.inputs]
    waiting += [p.inner for p in loop.results if p.inner is not None]
    waiting += extra
    crossing: dict[Value, None] = {}
    seen: set[Value] = set()
    while waiting:
        value = waiting.pop()
        maker = made.get(value)
        if value in seen or maker is None or maker not in outside:
            continue
        seen.add(value)
        if maker.op in COPIES and _enlarges(maker):
            waiting.extend(maker.inputs)
        else:
            crossing[value] = None
    order = {v: i for i, e in enumerate(loop.equations) for v in e.outputs}
    ordered = sorted(crossing, key=order.__getitem__)
    return ordered, cone(ordered, made)


def _enlarges(equation: Equation) -> bool:
    return equation.op == "constant" or numel(equation.inputs[0]) < numel(equation.output)


def _bound_inside(loop: Loop) -> set[str]:
    return {name for e in loop.equations for name, _ in e.binds}


def _movable(equation: Equation, bound: set[str], scope: Scope, size: Size) -> bool:
    """Whether an equation means the same outside of the loop as far as list sizes go."""
    if equation.binds:
        return False
    names = size_names(equation, scope)
    return not names or not (names & bound or scope.varies(names, size))


@law("steady terms of a sum")
def steady_terms(body: Lambda, scope: Scope) -> Lambda:
    """in a recurrent step, (x + s) + y = (x + y) + s, where x and y are made of captured values and elements and s is
    not: the steady terms of a sum are added first, so that they can leave the loop."""
    out: list[Equation] = []
    changed = False
    for equation in body.equations:
        if equation.op in ("scan", "tree_up", "tree_down") and any(e.op == "add" for e in equation.bodies[0].equations):
            again = _steadied(equation, scope)
            changed |= again is not equation
            equation = again
        out.append(equation)
    return Lambda(body.parameters, tuple(out), body.results) if changed else body


def _steadied(equation: Equation, scope: Scope) -> Equation:
    loop = Loop(equation)
    captured = {p.inner for p in loop.role("captured")}
    steady = captured | {p.inner for p in loop.role("list")}
    for e in loop.equations:
        if all(v in captured for v in e.inputs):
            captured.update(e.outputs)
        if all(v in steady for v in e.inputs):
            steady.update(e.outputs)
    made = makers(loop.equations)
    use = users(loop.body)

    def terms(value: Value, root: bool) -> list[Value]:
        e = made.get(value)
        if e is None or e.op != "add" or value in steady or not (root or len(use[value]) == 1):
            return [value]
        return [t for v in e.inputs for t in terms(v, False)]

    replaced: dict[Equation, list[Equation]] = {}
    for e in loop.equations:
        if e.op != "add" or e.output in steady:
            continue
        readers = use.get(e.output, [])
        if len(readers) == 1 and readers[0] is not None and readers[0].op == "add":
            continue
        parts = terms(e.output, True)
        fixed = sorted((v for v in parts if v in steady), key=lambda v: v not in captured)
        if len(fixed) < 2:
            continue
        ordered = [*fixed, *(v for v in parts if v not in steady)]
        chain, total = [], ordered[0]
        for i, term in enumerate(ordered[1:]):
            last = i == len(ordered) - 2
            result = e.output if last else Value(e.output.type)
            chain.append(Equation("add", (total, term), (result,), {}, (), (), e.source))
            total = result
        replaced[e] = chain
        scope.fired(
            "steady terms of a sum", e, f"{len(fixed)} of {len(parts)} terms of {e.output.type} are added first"
        )
    if not replaced:
        return equation
    loop.equations = [x for e in loop.equations for x in replaced.get(e, (e,))]
    return loop.equation()


@law("invariants out of loops")
def invariants(body: Lambda, scope: Scope) -> Lambda:
    """loop (λ x. f(g(c), x)) = let y = g(c) in loop (λ x. f(y, x)), where c is captured and g can neither raise nor
    depend on a list size that differs between the elements; constants, and broadcasts at the border, stay inside. Not
    out of a switch."""
    out: list[Equation] = []
    changed = False
    for equation in body.equations:
        if equation.op in LOOPS:
            again = _invariants_of(equation, scope, out)
            changed |= again is not equation
            equation = again
        out.append(equation)
    return Lambda(body.parameters, tuple(out), body.results) if changed else body


def _invariants_of(equation: Equation, scope: Scope, out: list[Equation]) -> Equation:
    inner = equation.bodies[0]
    loop = None
    known = set(inner.parameters[: equation.attributes["captured"]])
    outside: set[Equation] = set()
    bound: set[str] = set()
    for e in inner.equations:
        if all(v in known for v in e.inputs):
            if loop is None:
                loop = Loop(equation)
                bound = _bound_inside(loop)
            if e.op == "constant" or (_movable(e, bound, scope, loop.size) and not may_raise(e)):
                known.update(e.outputs)
                outside.add(e)
    if loop is None or not outside:
        return equation
    crossing, moving = frontier(loop, outside)
    if not crossing:
        return equation
    table: dict[Value, Value] = {p.inner: p.outer for p in loop.role("captured")}
    out.extend(moved([e for e in loop.equations if e in moving], table))
    _drop(loop, crossing)
    for value in crossing:
        loop.capture(table[value], value)
    scope.fired(
        "invariants out of loops", equation, f"{', '.join(sorted(_ops(moving)))} out of {loop.op} over {loop.size}"
    )
    return loop.equation()


def _ops(equations: Iterable[Equation]) -> set[str]:
    return {e.op for e in equations if e.op not in COPIES} or {e.op for e in equations}


def _drop(loop: Loop, given: list[Value]) -> None:
    """Remove the equations whose results are now given from outside, and what only they needed."""
    present = set(given)
    needed = {p.inner for p in loop.results}
    kept = []
    for e in reversed(loop.equations):
        if any(v in needed and v not in present for v in e.outputs) or e.binds:
            kept.append(e)
            needed.update(e.inputs)
    loop.equations = kept[::-1]


@law("input hoist")
def input_hoist(body: Lambda, scope: Scope) -> Lambda:
    """scan k' s (x) = scan k s (map g x) where k'(s, x) = k(s, g x): what depends on the elements (a tree's own
    elements) and captured values alone becomes a map before the loop. A contraction whose result is more than 32 times
    wider than the element that it reads stays, as do broadcasts at the border. An output that needs nothing else leaves
    the loop too. Not out of a checkpointed scan, whose step computes again what was not kept."""
    out: list[Equation] = []
    changed = False
    for equation in body.equations:
        if equation.attributes.get("checkpoint"):
            scope.refused("input hoist", equation, "a segment computes its values again, so that they need not be kept")
        elif equation.op in ("scan", "tree_up", "tree_down") and not equation.attributes.get("stop"):
            hoisted = _hoisted(equation, scope)
            if hoisted is not None:
                before, equation = hoisted
                out.append(before)
                changed = True
        out.append(equation)
    return Lambda(body.parameters, tuple(out), body.results) if changed else body


def _hoisted(equation: Equation, scope: Scope) -> tuple[Equation, Equation] | None:
    loop = Loop(equation)
    captured, lists = loop.role("captured"), loop.role("list")
    elements = {p.inner for p in lists}
    known = elements | {p.inner for p in captured}
    varying = set(elements)
    outside: set[Equation] = set()
    bound = _bound_inside(loop)
    for e in loop.equations:
        if not all(v in known for v in e.inputs) or e.binds or (bound and size_names(e, scope) & bound):
            continue
        if e.op == "contract" and _too_narrow(e, varying):
            scope.refused(
                "input hoist", e, f"the result {e.output.type} is much wider than the element that it is made of"
            )
            continue
        outside.add(e)
        known.update(e.outputs)
        if any(v in varying for v in e.inputs):
            varying.update(e.outputs)
    crossing, _ = frontier(loop, outside)
    crossing = [v for v in crossing if v in varying]
    if not crossing:
        return None
    moving = cone(crossing, makers(loop.equations))
    table: dict[Value, Value] = {}
    inputs = [Port(p.role, p.outer, Value(p.inner.type, p.inner.name)) for p in (*captured, *lists)]
    table.update((p.inner, q.inner) for p, q in zip((*captured, *lists), inputs, strict=True))
    equations = moved([e for e in loop.equations if e in moving], table)
    used = {v for e in equations for v in e.inputs}
    results = [Port("output", Value(v.type.listed(loop.size), v.name), table[v]) for v in crossing]
    before = new_map(
        loop.size,
        [p for p in inputs if p.role == "captured" and p.inner in used],
        [p for p in inputs if p.role == "list" and p.inner in used],
        equations,
        results,
        equation,
    )
    _drop(loop, crossing)
    for value, port in zip(crossing, results, strict=True):
        loop.inputs.append(Port("list", port.outer, value))
    scope.fired("input hoist", equation, f"{', '.join(sorted(_ops(moving)))} before {loop.op} over {loop.size}")
    return before, loop.equation()


def _too_narrow(equation: Equation, varying: set[Value]) -> bool:
    return all(numel(equation.output) > NARROW * numel(v) for v in equation.inputs if v in varying) and any(
        v in varying for v in equation.inputs
    )


LAWS = (steady_terms, invariants, input_hoist)
