"""Laws about values that are the same: computed once, entering a loop once, leaving it once."""

from __future__ import annotations

from ..ir import Equation, Lambda, Value
from .law import LOOPS, Scope, constant_number, law, makers, moved, renamed
from .loop import Loop, Port
from .sweep import Sweep

COMMON = "common subexpressions"


@law(COMMON)
def common_subexpressions(body: Lambda, scope: Scope) -> Lambda:
    """let x = f(a), y = f(a) = let x = y = f(a), where operation, inputs, attributes and bodies are the same but for
    the names of values (and the order of a commutative operation's inputs), and f determines no list size."""
    return Sweep(body, scope, (), COMMON).run()


def _substituted(loop: Loop, table: dict[Value, Value]) -> None:
    """Replace values in a loop's body."""
    loop.equations = [renamed(e, table) for e in loop.equations]
    for port in loop.results:
        if port.inner is not None:
            port.inner = table.get(port.inner, port.inner)


@law("one parameter for one input")
def same_inputs(body: Lambda, scope: Scope) -> Lambda:
    """loop (λ x x'. f) a a = loop (λ x. f[x' := x]) a, for captured values and for lists."""
    out, changed = [], False
    for equation in body.equations:
        if equation.op == "switch":
            equation, again = _switch_inputs(equation, scope)
            changed |= again
        elif equation.op in LOOPS and len(set(equation.inputs)) < len(equation.inputs):
            loop = Loop(equation)
            seen: dict[tuple[str, Value], Value] = {}
            table: dict[Value, Value] = {}
            kept: list[Port] = []
            for port in loop.inputs:
                if port.role == "captured" or (port.role in ("list", "kid") and loop.op != "reduce_with"):
                    key = (port.role, port.outer)
                    if key in seen:
                        table[port.inner] = seen[key]
                        continue
                    seen[key] = port.inner
                kept.append(port)
            if table:
                loop.inputs = kept
                _substituted(loop, table)
                equation, changed = loop.equation(), True
                scope.fired("one parameter for one input", equation, f"{len(table)} inputs of {loop.op} stood twice")
        out.append(equation)
    return Lambda(body.parameters, tuple(out), body.results) if changed else body


def _switch_inputs(equation: Equation, scope: Scope) -> tuple[Equation, bool]:
    index, *captured = equation.inputs
    first = {value: i for i, value in reversed(list(enumerate(captured)))}
    if len(first) == len(captured):
        return equation, False
    kept = sorted(first.values())
    bodies = []
    for body in equation.bodies:
        table = {p: body.parameters[first[v]] for p, v in zip(body.parameters, captured, strict=True)}
        bodies.append(
            Lambda(
                tuple(body.parameters[i] for i in kept),
                tuple(renamed(e, table) for e in body.equations),
                tuple(table.get(v, v) for v in body.results),
            )
        )
    scope.fired("one parameter for one input", equation, f"{len(captured) - len(kept)} inputs of switch stood twice")
    inputs = (index, *(captured[i] for i in kept))
    return Equation(
        "switch", inputs, equation.outputs, equation.attributes, tuple(bodies), equation.binds, equation.source
    ), True


@law("one output for one value")
def same_outputs(body: Lambda, scope: Scope) -> Lambda:
    """loop (λ x. (y, y)) = (z, z) where z = loop (λ x. y). Emitted carries are left alone otherwise: the list of h
    before each step beside the list of h after it is one list read at two places, which is for the planner to see."""
    table: dict[Value, Value] = {}
    out = []
    for equation in body.equations:
        equation = renamed(equation, table)
        if equation.op in LOOPS and len(set(equation.bodies[0].results)) < len(equation.bodies[0].results):
            loop = Loop(equation)
            seen: dict[tuple[str, Value], Value] = {}
            kept = []
            for port in loop.results:
                key = (port.role, port.inner)
                if loop.op == "tree_up" and port.role == "output":
                    key = ("carry", port.inner) if ("carry", port.inner) in seen else key
                if port.role != "stop" and port.outer is not None and (port.role != "carry" or loop.op == "tree_up"):
                    if port.role != "carry" and key in seen and port.outer not in loop.bound:
                        table[port.outer] = seen[key]
                        continue
                    seen.setdefault(key, port.outer)
                kept.append(port)
            if len(kept) < len(loop.results):
                scope.fired(
                    "one output for one value",
                    equation,
                    f"{len(loop.results) - len(kept)} outputs of {loop.op} were given twice",
                )
                loop.results = kept
                equation = loop.equation()
        out.append(equation)
    if not table:
        return body
    return Lambda(body.parameters, tuple(out), tuple(table.get(v, v) for v in body.results))


@law("handed on unchanged")
def handed_on(body: Lambda, scope: Scope) -> Lambda:
    """map (λ x. x) xs = xs; a loop's output that is an element of a list is that list; one that is a captured value is
    the list that repeats it; a carry that every step hands on unchanged is captured, and its last value is its
    first."""
    table: dict[Value, Value] = {}
    out: list[Equation] = []
    for equation in body.equations:
        equation = renamed(equation, table)
        if equation.op in LOOPS and equation.op != "reduce_with":
            changed = _hand_on(equation, table, out, scope)
            equation = equation if changed is None else changed
        out.append(equation)
    if not table:
        return body
    return Lambda(body.parameters, tuple(out), tuple(table.get(v, v) for v in body.results))


def _hand_on(equation: Equation, table: dict[Value, Value], out: list[Equation], scope: Scope) -> Equation | None:
    inner = equation.bodies[0]
    if not any(v in inner.parameters for v in inner.results):
        return None
    loop = Loop(equation)
    lists = {p.inner: p.outer for p in loop.role("list")}
    captured = {p.inner: p.outer for p in loop.role("captured")}
    carries = {p.inner: p for p in loop.role("carry")}
    before = len(table)
    names = []
    if loop.op == "scan":
        for port, result in zip(loop.role("carry"), loop.leaving("carry"), strict=True):
            if result.inner is port.inner:
                table[result.outer] = port.outer
                loop.results.remove(result)
                port.role = "captured"
                captured[port.inner] = port.outer
                del carries[port.inner]
                names.append("a carry")
    for result in loop.leaving("output"):
        if result.outer in loop.bound:
            continue
        if result.inner in lists:
            table[result.outer] = lists[result.inner]
            names.append("an element")
        elif result.inner in captured and loop.op != "map" and not equation.attributes.get("stop"):
            names.append("a captured value")
            value, element = captured[result.inner], Value(result.inner.type, result.inner.name)
            copies = Value(result.outer.type, result.outer.name)
            repeat = Lambda((element,), (), (element,))
            out.append(
                Equation("map", (value,), (copies,), {"size": loop.size, "captured": 1}, (repeat,), (), equation.source)
            )
            table[result.outer] = copies
        else:
            continue
        loop.results.remove(result)
    if len(table) == before:
        return None
    scope.fired("handed on unchanged", equation, f"{', '.join(names)} of {loop.op}")
    return loop.equation()


@law("a list that repeats one value")
def repeated_element(body: Lambda, scope: Scope) -> Lambda:
    """loop (λ x. f) (map (λ. c) ()) = loop (λ c. f) where c is captured: an element that is the same in every step."""
    made = makers(body.equations)
    out: list[Equation] = []
    changed = False
    for equation in body.equations:
        if equation.op in LOOPS and equation.op != "reduce_with":
            loop = Loop(equation)
            count = 0
            for port in loop.role("list"):
                value = _repeated(made.get(port.outer), port.outer, loop, out)
                if value is not None:
                    port.role, port.outer = "captured", value
                    count += 1
            if count:
                equation, changed = loop.equation(), True
                scope.fired(
                    "a list that repeats one value", equation, f"{count} lists of {loop.op} became captured values"
                )
        out.append(equation)
    return Lambda(body.parameters, tuple(out), body.results) if changed else body


def _repeated(maker: Equation | None, value: Value, loop: Loop, out: list[Equation]) -> Value | None:
    """The value that a list repeats, computed outside of the loop if it is a constant."""
    if maker is None or maker.op != "map" or maker.attributes["size"] != loop.size:
        return None
    body, captured = maker.bodies[0], maker.attributes["captured"]
    result = body.results[maker.outputs.index(value)]
    if result in body.parameters[:captured]:
        return maker.inputs[body.parameters.index(result)]
    constant = next((e for e in body.equations if e.op == "constant" and result in e.outputs), None)
    if constant is None:
        return None
    table: dict[Value, Value] = {}
    out.extend(moved((constant,), table))
    return table[result]


@law("constants stand where they are used")
def constants_inside(body: Lambda, scope: Scope) -> Lambda:
    """let c = constant in loop (λ c'. f) c = loop (λ. let c' = constant in f), for a constant filled with one number: a
    body that knows its constants can be simplified."""
    numbers = {e.output: e for e in body.equations if constant_number(e) is not None}
    if not numbers:
        return body
    out, changed = [], False
    for equation in body.equations:
        if equation.bodies and any(v in numbers for v in equation.inputs):
            again = _constants_into(equation, numbers)
            if again is not equation:
                changed = True
                scope.fired("constants stand where they are used", equation, f"into {equation.op}")
            equation = again
        out.append(equation)
    return Lambda(body.parameters, tuple(out), body.results) if changed else body


def _constants_into(equation: Equation, numbers: dict[Value, Equation]) -> Equation:
    if equation.op == "switch":
        at = [i for i, v in enumerate(equation.inputs) if i and v in numbers]
        if not at:
            return equation
        bodies = []
        for inner in equation.bodies:
            table: dict[Value, Value] = {}
            copies = []
            for i in at:
                copies += moved((numbers[equation.inputs[i]],), table)
                table[inner.parameters[i - 1]] = table[equation.inputs[i]]
            bodies.append(
                Lambda(
                    tuple(p for i, p in enumerate(inner.parameters) if i + 1 not in at),
                    (*copies, *(renamed(e, table) for e in inner.equations)),
                    tuple(table.get(v, v) for v in inner.results),
                )
            )
        inputs = tuple(v for i, v in enumerate(equation.inputs) if i not in at)
        return Equation(
            "switch", inputs, equation.outputs, equation.attributes, tuple(bodies), equation.binds, equation.source
        )
    loop = Loop(equation)
    constants = [p for p in loop.role("captured") if p.outer in numbers]
    if not constants:
        return equation
    table, copies = {}, []
    for port in constants:
        copies += moved((numbers[port.outer],), table)
        table[port.inner] = table[port.outer]
        loop.inputs.remove(port)
    _substituted(loop, table)
    loop.equations[:0] = copies
    return loop.equation()


LAWS = (same_inputs, same_outputs, handed_on, repeated_element, constants_inside)
