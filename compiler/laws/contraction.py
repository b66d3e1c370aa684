"""Laws that give a recurrent step its contractions in canonical form.

The canonical form of a packed weight (the gates of an LSTM side by side in one matrix):

- outside of the recurrence, one contraction with the whole matrix, whose result is sliced (``x_t W`` becomes one
  product over all steps, since the input hoist comes before the slicing);
- inside, no operand is joined and no result is cut: one contraction per part of the carry and per part of the weight,
  each once. The parts of the weight are invariants, cut before the loop.

A value whose whole axis is also needed (layer norm over all gates) is not cut: the contraction stays packed, once.
"""

from __future__ import annotations

from itertools import pairwise

from ..ir import Equation, Lambda, Value, infer
from .law import RECURRENT, Scope, law, makers, users, with_bodies
from .loop import Loop
from .sweep import Sweep, single

CONCAT = "contraction of a concatenation"
SLICE = "slice of a contraction"
ONE = "contraction along an axis of one element"
_ELEMENTWISE = frozenset(
    (
        "add",
        "sub",
        "mul",
        "div",
        "neg",
        "maximum",
        "minimum",
        "tanh",
        "sigmoid",
        "exp",
        "cast",
        "abs",
        "sqrt",
        "rsqrt",
        "select",
    )
)


def _labels(spec: str) -> tuple[list[str], str]:
    operands, output = spec.split("->")
    return operands.split(","), output


@law(CONCAT)
def contraction_of_a_concatenation(body: Lambda, scope: Scope) -> Lambda:
    """contract(concatenate a b, W) = contract(a, W_a) + contract(b, W_b), where the joined axis is contracted and W_a,
    W_b are the slices of W along it; and the same on the right. In the step of a recurrence, or where one of the parts
    is a constant or captured and another is not: elsewhere one contraction is the better one."""
    made = makers(body.equations)
    if not any(_joined(e, made) for e in body.equations):
        return body

    captured = set(body.parameters[: scope.captured])

    def rewrite(s: Sweep, e: Equation) -> Value | None:
        found = _joined(e, s.made)
        if found is None or not (scope.recurrent or _partly_steady(e.inputs[found[0]], s.made, captured)):
            return None
        side, label, axis = found
        parts = s.made[e.inputs[side]].inputs
        other = e.inputs[1 - side]
        place = _labels(e.attributes["spec"])[0][1 - side].index(label)
        total, at = None, 0
        for part in parts:
            width = part.type.shape[axis]
            starts = tuple(at if d == place else 0 for d in range(len(other.type.shape)))
            stops = tuple(at + width if d == place else n for d, n in enumerate(other.type.shape))
            cut = s.emit("slice", other, starts=starts, stops=stops, strides=(1,) * len(starts))
            operands = (part, cut) if side == 0 else (cut, part)
            term = s.emit("contract", *operands, **e.attributes)
            total = term if total is None else s.emit("add", total, term)
            at += width
        return total

    return Sweep(body, scope, (single(CONCAT, "contract")(rewrite),)).run()


def _joined(e: Equation, made: dict[Value, Equation]) -> tuple[int, str, int] | None:
    """Which operand of a contraction is a concatenation along a contracted label, the label, and its axis."""
    if e.op != "contract" or any(v.type.axes for v in e.inputs):
        return None
    labels, output = _labels(e.attributes["spec"])
    for side in (0, 1):
        maker = made.get(e.inputs[side])
        if maker is not None and maker.op == "concatenate":
            label = labels[side][maker.attributes["axis"]]
            if label not in output and label in labels[1 - side]:
                return side, label, maker.attributes["axis"]
    return None


def _partly_steady(value: Value, made: dict[Value, Equation], captured: set[Value]) -> bool:
    """Whether some parts of a concatenation, but not all, are captured or constant."""
    steady = [v in captured or (v in made and made[v].op == "constant") for v in made[value].inputs]
    return any(steady) and not all(steady)


@law(ONE)
def contraction_along_one_element(body: Lambda, scope: Scope) -> Lambda:
    """reshape(contract(reshape x, y)) = contract(x, y) where the inner reshape only adds axes of one element that y has
    not, and the outer takes them away again; through casts of x, and the same on the right. Side condition: all that
    reads the contraction is such a reshape: elsewhere the axes would only be taken away and added again."""
    made = makers(body.equations)
    short = {e: found for e in body.equations if e.op == "contract" and (found := _shortened(e, made)) is not None}
    if not short:
        return body
    use = users(body)

    def rewrite(s: Sweep, e: Equation) -> Value | None:
        found = short.get(s.made.get(e.inputs[0]))
        if found is None or any(u is None or u.op != "reshape" for u in use[e.inputs[0]]):
            return None
        inputs, spec, attributes, shape = found
        if any(u.output.type.shape != shape for u in use[e.inputs[0]]):
            return None
        operands = []
        for value, casts in inputs:
            for cast in casts:
                value = s.emit("cast", value, **cast)
            operands.append(value)
        return s.emit("contract", *operands, **{**attributes, "spec": spec})

    return Sweep(body, scope, (single(ONE, "reshape")(rewrite),)).run()


def _shortened(
    e: Equation, made: dict[Value, Equation]
) -> tuple[list[tuple[Value, list[dict]]], str, dict, tuple[int, ...]] | None:
    """A contraction without the axes of one element that reshapes of its operands add and no other operand has: of each
    operand the value and the casts on the way, the spec, the attributes, and the shape. None where there are none."""
    if any(v.type.axes for v in e.inputs):
        return None
    labels, output = _labels(e.attributes["spec"])
    dropped: set[str] = set()
    inputs: list[tuple[Value, list[dict]]] = []
    for i, value in enumerate(e.inputs):
        others = "".join(labels[:i] + labels[i + 1 :])
        casts, inner = [], value
        while (maker := made.get(inner)) is not None and maker.op == "cast":
            casts.insert(0, maker.attributes)
            inner = maker.inputs[0]
        single = {c for c, n in zip(labels[i], value.type.shape, strict=True) if n == 1 and c not in others}
        shape = tuple(n for c, n in zip(labels[i], value.type.shape, strict=True) if c not in single)
        if single and maker is not None and maker.op == "reshape" and maker.inputs[0].type.shape == shape:
            inputs.append((maker.inputs[0], casts))
            dropped |= single
        else:
            inputs.append((value, []))
    if not dropped:
        return None
    without = lambda text: "".join(c for c in text if c not in dropped)
    shape = tuple(n for c, n in zip(output, e.output.type.shape, strict=True) if c not in dropped)
    return inputs, f"{','.join(map(without, labels))}->{without(output)}", e.attributes, shape


@law(SLICE)
def slice_of_a_contraction(body: Lambda, scope: Scope) -> Lambda:
    """slice(contract(h, W)) = contract(h, slice W), in the step of a recurrence, where the sliced axis belongs to one
    operand that is captured; through elementwise operations on the way: slice(f(x, y)) = f(slice x, slice y). Side
    condition: the packed value is read through slices only, which lie apart from each other, so that no part is
    computed twice."""
    out: list[Equation] = []
    changed = False
    for equation in body.equations:
        if equation.op in RECURRENT:
            bodies = tuple(_unpacked(inner, equation, scope) for inner in equation.bodies)
            if bodies != equation.bodies:
                equation, changed = with_bodies(equation, bodies), True
        out.append(equation)
    return Lambda(body.parameters, tuple(out), body.results) if changed else body


def _unpacked(body: Lambda, loop: Equation, scope: Scope) -> Lambda:
    if not any(e.op == "slice" for e in body.equations):
        return body
    captured = set(body.parameters[: loop.attributes["captured"]])
    made = makers(body.equations)
    use = users(body)
    steady = steady_values(loop)
    reach = _reached(body, captured)
    done: set[Value] = set()
    replace: dict[Equation, tuple[int, dict[Value, Equation]]] = {}
    for e in body.equations:
        if e.op != "contract" or e.output in done:
            continue
        for axis in range(len(e.output.type.shape)):
            members = _packed(e, axis, captured, made, use, reach, steady, scope)
            if members is not None:
                done.update(members)
                cuts = {u for v in members for u in use.get(v, ()) if u is not None and u.op == "slice"}
                replace.update((cut, (axis, members)) for cut in cuts)
                count = len({_interval(cut, axis) for cut in cuts})
                scope.fired(SLICE, e, f"{count} part{'s' * (count != 1)} of {e.output.type}")
                break
    if not replace:
        return body
    return _rebuilt(body, replace, done)


def _reached(body: Lambda, captured: set[Value]) -> set[Value]:
    """Results of contractions with a captured operand, and what elementwise operations make of them."""
    reach: set[Value] = set()
    for e in body.equations:
        if e.op == "contract":
            if any(v in captured for v in e.inputs):
                reach.add(e.output)
        elif e.op in _ELEMENTWISE and any(v in reach for v in e.inputs):
            reach.add(e.output)
    return reach


def _interval(cut: Equation, axis: int) -> tuple[int, int]:
    return cut.attributes["starts"][axis], cut.attributes["stops"][axis]


def _cuts_only(e: Equation, axis: int) -> bool:
    """Whether a slice cuts this axis alone, without stride."""
    a = e.attributes
    whole = all(
        d == axis or (lo == 0 and hi == n)
        for d, (lo, hi, n) in enumerate(zip(a["starts"], a["stops"], e.inputs[0].type.shape, strict=True))
    )
    return whole and all(n == 1 for n in a["strides"])


def _divisible(e: Equation, axis: int, captured: set[Value]) -> bool:
    """Whether one captured operand of a contraction, and it alone, has the output's axis."""
    labels, output = _labels(e.attributes["spec"])
    label = output[len(e.output.type.axes) + axis]
    owners = [i for i in (0, 1) if label in labels[i]]
    return len(owners) == 1 and e.inputs[owners[0]] in captured and not e.inputs[owners[0]].type.axes


def _packed(
    start: Equation,
    axis: int,
    captured: set[Value],
    made: dict[Value, Equation],
    use: dict[Value, list[Equation | None]],
    reach: set[Value],
    steady: set[Value],
    scope: Scope,
) -> dict[Value, Equation] | None:
    """The values that are cut together with a contraction's result, or None where it cannot be cut."""
    if start.output.type.axes or not _divisible(start, axis, captured):
        return None
    members: dict[Value, Equation] = {}
    intervals: set[tuple[int, int]] = set()
    waiting = [start.output]
    obstacle: Equation | str | None = None
    while waiting:
        value = waiting.pop()
        if value in members:
            continue
        maker = members[value] = made[value]
        for user in use.get(value, ()):
            if user is None:
                obstacle = "it is handed on as a whole"
            elif user.op == "slice":
                if _cuts_only(user, axis):
                    intervals.add(_interval(user, axis))
                else:
                    obstacle = user
            elif user.op in _ELEMENTWISE:
                waiting.append(user.output)
            else:
                obstacle = user
        if maker.op in _ELEMENTWISE:
            # A contraction that reaches the same slices is cut with it.
            for v in maker.inputs:
                if v in reach and (made[v].op != "contract" or _divisible(made[v], axis, captured)):
                    waiting.append(v)
    if not intervals:
        return None
    others = {v for maker in members.values() if maker.op in _ELEMENTWISE for v in maker.inputs} - set(members)
    if obstacle is None and not others <= steady:
        obstacle = "another operand would be cut in its place"
    if obstacle is not None:
        reason = obstacle if isinstance(obstacle, str) else f"{obstacle.op} needs its whole axis"
        scope.refused(SLICE, start, f"{start.output.type} stays packed in the step: {reason}")
        return None
    ordered = sorted(intervals)
    if any(later[0] < earlier[1] for earlier, later in pairwise(ordered)):
        scope.refused(SLICE, start, f"the slices of {start.output.type} overlap")
        return None
    return members


def _rebuilt(body: Lambda, replace: dict[Equation, tuple[int, dict[Value, Equation]]], done: set[Value]) -> Lambda:
    """The body with each slice computed from slices of the operands."""
    out: list[Equation] = []
    table: dict[Value, Value] = {}
    parts: dict[tuple[Value, tuple[int, int]], Value] = {}

    def emit(op: str, inputs: tuple[Value, ...], attributes: dict, like: Equation) -> Value:
        (type_,) = infer(op, tuple(v.type for v in inputs), attributes, ())
        value = Value(type_)
        out.append(Equation(op, inputs, (value,), attributes, (), (), like.source))
        return value

    def cut(value: Value, axis: int, place: tuple[int, int], like: Equation) -> Value:
        shape = value.type.shape
        starts = tuple(place[0] if d == axis else 0 for d in range(len(shape)))
        stops = tuple(place[1] if d == axis else n for d, n in enumerate(shape))
        return emit(
            "slice", (table.get(value, value),), {"starts": starts, "stops": stops, "strides": (1,) * len(shape)}, like
        )

    def part(value: Value, axis: int, place: tuple[int, int], members: dict[Value, Equation], like: Equation) -> Value:
        key = (value, place)
        if key in parts:
            return parts[key]
        maker = members.get(value)
        if maker is None:
            result = cut(value, axis, place, like)
        elif maker.op == "contract":
            labels, output = _labels(maker.attributes["spec"])
            label = output[axis]
            owner = 0 if label in labels[0] else 1
            sliced = cut(maker.inputs[owner], labels[owner].index(label), place, maker)
            other = table.get(maker.inputs[1 - owner], maker.inputs[1 - owner])
            inputs = (sliced, other) if owner == 0 else (other, sliced)
            result = emit("contract", inputs, dict(maker.attributes), maker)
        else:
            inputs = tuple(part(v, axis, place, members, maker) for v in maker.inputs)
            result = emit(maker.op, inputs, dict(maker.attributes), maker)
        parts[key] = result
        return result

    for e in body.equations:
        if e in replace:
            axis, members = replace[e]
            table[e.output] = part(e.inputs[0], axis, _interval(e, axis), members, e)
        elif not (len(e.outputs) == 1 and e.output in done):
            out.append(
                Equation(
                    e.op, tuple(table.get(v, v) for v in e.inputs), e.outputs, e.attributes, e.bodies, e.binds, e.source
                )
            )
    return Lambda(body.parameters, tuple(out), tuple(table.get(v, v) for v in body.results))


def steady_values(loop: Equation) -> set[Value]:
    """The values of a loop's body that captured values and elements alone determine."""
    view = Loop(loop)
    steady = {p.inner for p in view.role("captured", "list")}
    for e in view.equations:
        if all(v in steady for v in e.inputs):
            steady.update(e.outputs)
    return steady


def joined_count(loop: Equation) -> int:
    """How many contractions in a loop's body have an operand that `contraction_of_a_concatenation` takes apart."""
    (body,) = loop.bodies
    made = makers(body.equations)
    captured = set(body.parameters[: loop.attributes["captured"]])
    for e in body.equations:
        if all(v in captured for v in e.inputs):
            captured.update(e.outputs)
    found = [(e, _joined(e, made)) for e in body.equations]
    return sum(
        joined is not None and (loop.op in RECURRENT or _partly_steady(e.inputs[joined[0]], made, captured))
        for e, joined in found
    )


LAWS = (contraction_of_a_concatenation, slice_of_a_contraction)
