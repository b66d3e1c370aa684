"""Laws that move work out of a loop to after it: what does not feed the carry, and carries that are only sums."""

from __future__ import annotations

from ..ir import Equation, Lambda, Value
from .cut import equations_that_leave
from .law import COPIES, Scope, cone, law, makers, moved, renamed, users
from .loop import Loop, Port


@law("output sink")
def output_sink(body: Lambda, scope: Scope) -> Lambda:
    """scan (λ s x. (k s x, g(s, x))) = map g . scan (λ s x. (k s x, frontier)): what does not feed the carry (the
    stopping flag, a tree's results or its kid outputs) becomes a map after the loop, whose inputs the loop emits. What
    leaves is chosen by a minimum cut: an equation that stays costs its work, a value that is emitted costs its size, an
    element costs nothing. So the operands of an outer product leave, and a matrix carry is not emitted for a product
    with a vector. Out of a checkpointed scan no loop moves: its segment computes its values again."""
    out: list[Equation] = []
    changed = False
    for equation in body.equations:
        sunk = _sunk(equation, scope) if equation.op in ("scan", "tree_up", "tree_down") else None
        if sunk is None:
            out.append(equation)
        else:
            out.extend(sunk)
            changed = True
    return Lambda(body.parameters, tuple(out), body.results) if changed else body


def _sunk(equation: Equation, scope: Scope) -> tuple[Equation, Equation] | None:
    inner = equation.bodies[0]
    loop = Loop(equation)
    made = makers(inner.equations)
    core = cone([p.inner for p in loop.leaving("carry", "stop", "kid")], made)
    if len(core) == len(inner.equations):
        return None
    outputs = [p for p in loop.leaving("output") if p.outer not in loop.bound]
    wanted = {p.inner for p in outputs}
    stays = core | cone([p.inner for p in loop.leaving("output") if p.outer in loop.bound], made)
    candidates = [e for e in inner.equations if e not in stays]
    # Constants and broadcasts of what is captured are made again on the other side.
    captured = {p.inner for p in loop.role("captured")}
    again: list[Equation] = []
    for e in inner.equations:
        if e.op in COPIES and all(v in captured for v in e.inputs):
            captured.update(e.outputs)
            again.append(e)
    candidates = [e for e in candidates if e not in again]
    if equation.attributes.get("checkpoint"):
        candidates = _without_loops(candidates, inner)
    if not candidates or any(e.binds for e in candidates):
        return None
    free = captured | {p.inner for p in loop.role("list")}
    if loop.op == "tree_up":
        free |= {p.inner for p in loop.leaving("carry")}
    leaving = equations_that_leave(candidates, wanted, free, _fixed(loop) - wanted)
    if not leaving:
        return None
    return _split(loop, [e for e in inner.equations if e in leaving or e in again], leaving, outputs, scope)


def _without_loops(candidates: list[Equation], body: Lambda) -> list[Equation]:
    """Those of the equations that have no bodies and whose results no loop that stays reads."""
    kept = {e for e in candidates if not e.bodies}
    read_by = users(body)
    while True:
        stuck = {e for e in kept if any(u is not None and u not in kept for v in e.outputs for u in read_by.get(v, ()))}
        if not stuck:
            return [e for e in candidates if e in kept]
        kept -= stuck


def _fixed(loop: Loop) -> set[Value]:
    """Values that cannot become a list over the loop's size: their types name sizes that are known inside only."""
    bound = {name for e in loop.equations for name, _ in e.binds}
    if loop.arity is not None:
        bound |= loop.arity.names()
    if not bound:
        return set()
    values = [*(p.inner for p in loop.inputs if p.inner is not None), *(v for e in loop.equations for v in e.outputs)]
    return {v for v in values if any(axis.names() & bound for axis in v.type.axes)}


def _split(
    loop: Loop, moving: list[Equation], leaving: set[Equation], outputs: list[Port], scope: Scope
) -> tuple[Equation, Equation]:
    gone = {v for e in leaving for v in e.outputs}
    made_outside = {v for e in moving for v in e.outputs}
    after = Loop(
        Equation("map", (), (), {"size": loop.size, "captured": 0}, (Lambda((), (), ()),), (), loop.template.source)
    )
    for port in outputs:
        if port.inner in gone:
            after.results.append(Port("output", port.outer, port.inner))
            loop.results.remove(port)
    captured = {p.inner: p.outer for p in loop.role("captured")}
    needed = cone([p.inner for p in after.results], makers(moving))
    moving = [e for e in moving if e in needed]
    table: dict[Value, Value] = {}
    for e in moving:
        for v in e.inputs:
            if v not in made_outside and v not in table:
                table[v] = after.capture(captured[v]) if v in captured else after.take(loop.give(v))
    after.equations = moved(moving, table)
    for port in after.results:
        port.inner = table[port.inner]
    loop.equations = [e for e in loop.equations if e not in leaving]
    names = ", ".join(sorted({e.op for e in moving if e in leaving}))
    scope.fired("output sink", loop.template, f"{names} after {loop.op} over {loop.size}")
    return loop.equation(), after.equation()


@law("a carry that is only a sum")
def running_sum(body: Lambda, scope: Scope) -> Lambda:
    """the last carry of scan (λ s x. s + f(x)) from s0 = s0 + reduce sum (map f xs), where nothing else reads the
    carry; f may read other carries. A scan that decides when to stop keeps its carries."""
    out: list[Equation] = []
    table: dict[Value, Value] = {}
    for equation in body.equations:
        equation = renamed(equation, table)
        split = (
            _summed(equation, scope, table) if equation.op == "scan" and not equation.attributes.get("stop") else None
        )
        out.extend((equation,) if split is None else split)
    if not table:
        return body
    return Lambda(body.parameters, tuple(out), tuple(table.get(v, v) for v in body.results))


def _summed(equation: Equation, scope: Scope, table: dict[Value, Value]) -> list[Equation] | None:
    inner = equation.bodies[0]
    first = equation.attributes["captured"]
    carries = inner.parameters[first : first + equation.attributes["carries"]]
    made = makers(inner.equations)
    sums = [
        i
        for i, carry in enumerate(carries)
        if (e := made.get(inner.results[i])) is not None
        and e.op == "add"
        and carry in e.inputs
        and e.inputs[0] is not e.inputs[1]
    ]
    if not sums:
        return None
    uses = users(inner)
    loop = Loop(equation)
    entering, leaving = loop.role("carry"), loop.leaving("carry")
    after: list[Equation] = []
    for i in sums:
        carry, result = entering[i], leaving[i]
        e = made[result.inner]
        if len(uses[carry.inner]) > 1 or len(uses[result.inner]) > 1:
            continue
        (term,) = (v for v in e.inputs if v is not carry.inner)
        terms = loop.give(term)
        total, last = Value(result.outer.type), Value(result.outer.type, result.outer.name)
        after.append(Equation("reduce", (terms,), (total,), {"op": "sum"}, (), (), e.source))
        after.append(Equation("add", (carry.outer, total), (last,), {}, (), (), e.source))
        loop.inputs.remove(carry)
        loop.results.remove(result)
        loop.equations.remove(e)
        table[result.outer] = last
        scope.fired("a carry that is only a sum", e, f"the sum of {term.type} over {loop.size} stands after the scan")
    return [loop.equation(), *after] if after else None


@law("a scan without a carry is a map")
def scan_without_carry(body: Lambda, scope: Scope) -> Lambda:
    """scan (λ x. f x) xs = map f xs, where there is no carry and nothing decides when to stop."""
    out: list[Equation] = []
    changed = False
    for equation in body.equations:
        a = equation.attributes
        if equation.op == "scan" and not a["carries"] and not a.get("stop"):
            attributes = {"size": a["size"], "captured": a["captured"]}
            equation = Equation(
                "map", equation.inputs, equation.outputs, attributes, equation.bodies, equation.binds, equation.source
            )
            scope.fired("a scan without a carry is a map", equation, f"over {a['size']}")
            changed = True
        out.append(equation)
    return Lambda(body.parameters, tuple(out), body.results) if changed else body


LAWS = (output_sink, running_sum, scan_without_carry)
