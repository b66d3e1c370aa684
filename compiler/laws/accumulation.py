"""The accumulator sink: a sum over steps of products is one contraction over steps.

A list of which only the sum is wanted is not made where the sum can be taken of something smaller, or where it is a
contraction of two lists. With the output sink before it, no matrix gradient is accumulated or stored per step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..builder import Builder
from ..ir import Equation, Lambda, Value
from ..types import DType
from .law import OpenBuilder, Scope, law, makers, renamed, users
from .loop import Loop, Port

NAME = "accumulator sink"
_LINEAR = frozenset(("neg", "reshape", "transpose", "slice", "pad", "flip", "broadcast", "reduce_sum"))


@dataclass(frozen=True)
class _Exported:
    """A value of a body seen from outside of the loops: a list under the loops that it varies with.

    Attributes:
        value: it, outside.
        loops: which of the loops (0 is the one summed over) its outermost axes are, in order.
    """

    value: Value
    loops: tuple[int, ...]


class _Level:
    """The body of a loop on the way to the summed value.

    Attributes:
        varying: its values that differ from step to step of this loop.
        from_around: its values that differ from step to step of the loop around this one.
        summed: its values that differ between the elements that are summed (steps of the outermost loop).
        bound: the list sizes that it determines.
    """

    def __init__(self, equation: Equation, around: _Level | None = None):
        self.equation = equation
        self.loop = Loop(equation)
        self.made = makers(self.loop.equations)
        self.captured = {p.inner: p.outer for p in self.loop.role("captured")}
        self.lists = {p.inner: p.outer for p in self.loop.role("list")}
        self.varying = set(self.lists)
        for e in self.loop.equations:
            if any(v in self.varying for v in e.inputs) or (not e.inputs and e.op != "constant"):
                self.varying.update(e.outputs)
        self.bound = {name for e in self.loop.equations for name, _ in e.binds}
        self.from_around = set() if around is None else self._following(around.varying)
        self.summed = self.varying if around is None else self._following(around.summed)
        self.elements = {p.outer: p.inner for p in self.loop.leaving("output")}
        self.given = {inner: outer for outer, inner in self.elements.items()}

    def _following(self, outer: set[Value]) -> set[Value]:
        """The values that depend on some of the values around the loop."""
        found = {inner for inner, value in (*self.captured.items(), *self.lists.items()) if value in outer}
        for e in self.loop.equations:
            if any(v in found for v in e.inputs):
                found.update(e.outputs)
        return found

    def give(self, value: Value) -> Value:
        """The list of a value of the body."""
        known = self.given.get(value)
        if known is None:
            known = self.given[value] = Value(value.type.listed(self.loop.size), value.name)
            self.loop.results.append(Port("output", known, value))
        return known


class _Sum:
    """The sum of a value of nested maps over the outermost of them, taken outside.

    Arguments:
        b: builds what stands outside.
        outermost: the map whose elements are summed; several sums may share it.
    """

    def __init__(self, b: Builder, outermost: _Level):
        self.b = b
        self.levels = [outermost]

    # --- is it worth while? -----------------------------------------------------------------------------------------

    def gains(self, value: Value, depth: int = 0) -> bool:
        """Whether summing outside turns up a contraction (or rows accumulated, or something smaller to sum)."""
        level = self.levels[depth]
        e = level.made.get(value)
        if e is None or value not in level.varying or not self._varies(value, depth):
            return False
        if e.op == "contract":
            # A sum taken before the contraction must not be taken in 16 bits.
            exact = self._sums(e.inputs, depth) or e.inputs[0].type.dtype.bits > 16
            return exact and self._can_export(e.inputs, depth)
        if e.op == "broadcast":
            return True
        if e.op == "cast":
            return _narrows(e) and self.gains(e.inputs[0], depth)
        if e.op == "reduce_sum" and self._product(e, depth) is not None:
            return True
        if e.op in _LINEAR:
            return self.gains(e.inputs[0], depth)
        if e.op in ("add", "sub"):
            return self._sums(e.inputs, depth) and any(self.gains(v, depth) for v in e.inputs)
        if e.op == "mul":
            if self._product(e, depth) is not None:
                return True
            factor = self._factor(e, depth)
            return factor is not None and self.gains(factor[0], depth)
        if e.op == "div":
            return (
                not self._varies(e.inputs[1], depth)
                and self._can_export(e.inputs[1:], depth)
                and self.gains(e.inputs[0], depth)
            )
        if e.op == "concatenate":
            return self._sums(e.inputs, depth) and any(self.gains(v, depth) for v in e.inputs)
        if e.op in ("scatter_add", "accumulate_rows"):
            return depth == 0 and e.attributes.get("axis", 0) == 0 and self._can_export(e.inputs, depth)
        if e.op == "map":
            return self._enter(e, value, depth, lambda result: self.gains(result, depth + 1))
        return False

    def _enter(self, e: Equation, value: Value, depth: int, action: Callable[[Value], Any]) -> Any:
        """Do something with the element of a map's output."""
        self.levels.append(_Level(e, self.levels[depth]))
        try:
            return action(e.bodies[0].results[e.outputs.index(value)])
        finally:
            self.levels.pop()

    def _varies(self, value: Value, depth: int) -> bool:
        """Whether a value differs between the elements that are summed."""
        return value in self.levels[depth].summed

    def _sums(self, values: Sequence[Value], depth: int) -> bool:
        """Whether each of the values can be summed by itself."""
        return all(self._varies(v, depth) for v in values) and self._can_export(values, depth)

    def _can_export(self, values: Sequence[Value], depth: int) -> bool:
        """Whether values can be seen from outside: no type names a size known inside only, and what does not vary is
        captured."""
        for value in values:
            level = self.levels[depth]
            if any(axis.names() & level.bound for axis in value.type.axes):
                return False
            if value in level.captured:
                if depth and not self._can_export((level.captured[value],), depth - 1):
                    return False
            elif value in level.lists:
                if depth and not self._can_export((level.lists[value],), depth - 1):
                    return False
            elif value not in level.varying:
                e = level.made[value]
                if e.op not in ("constant", "broadcast") or not self._can_export(e.inputs, depth):
                    return False
            elif depth and (value not in level.from_around or any(l.bound for l in self.levels)):
                # What is the same in every step of the loop around is for the law of invariants to take out.
                return False
        return True

    def _factor(self, e: Equation, depth: int) -> tuple[Value, Value] | None:
        """The varying factor of a product and the one that is the same in every summed element."""
        for varying, fixed in (e.inputs, e.inputs[::-1]):
            if self._varies(varying, depth) and not self._varies(fixed, depth) and self._can_export((fixed,), depth):
                return varying, fixed
        return None

    def _product(self, e: Equation, depth: int) -> tuple[str, Value, Value] | None:
        """A product of broadcasts, summed or not, as a contraction: its spec and operands."""
        level = self.levels[depth]
        axes: tuple[int, ...] = ()
        summed = e
        if e.op == "reduce_sum":
            axes, summed = e.attributes["axes"], level.made.get(e.inputs[0])
            if summed is None or summed.op != "mul":
                return None
        names = "abcdefghijkl"[: len(summed.output.type.shape)]
        labels, operands = [], []
        for value in summed.inputs:
            maker = level.made.get(value)
            own = names
            if maker is not None and maker.op == "broadcast":
                (x,), dims = maker.inputs, maker.attributes["dims"]
                if x.type.shape == tuple(summed.output.type.shape[d] for d in dims):
                    value, own = x, "".join(names[d] for d in dims)
            labels.append(own)
            operands.append(value)
        output = "".join(n for d, n in enumerate(names) if d not in axes)
        places = all((n in labels[0]) + (n in labels[1]) + (n in output) >= 2 for n in names)
        if not places or (labels[0] == labels[1] == output) or not summed.output.type.dtype.is_float:
            return None
        if not all(self._varies(v, depth) for v in operands) or not self._can_export(operands, depth):
            return None
        return f"{','.join(labels)}->{output}", operands[0], operands[1]

    # --- building ---------------------------------------------------------------------------------------------------

    def export(self, value: Value, depth: int) -> _Exported:
        """A value of a body, outside."""
        level = self.levels[depth]
        if value in level.captured:
            outer, own = level.captured[value], False
        elif value in level.lists:
            outer, own = level.lists[value], True
        elif value not in level.varying:
            e = level.made[value]
            inputs = [self.export(v, depth) for v in e.inputs]
            return self.under(e.op, inputs, e.attributes)
        else:
            outer, own = level.give(value), True
            self._put_back(depth)
        if depth == 0:
            return _Exported(outer, (0,) if own else ())
        seen = self.export(outer, depth - 1)
        return _Exported(seen.value, (*seen.loops, depth) if own else seen.loops)

    def _put_back(self, depth: int) -> None:
        """Enter a changed inner loop into the body that it stands in."""
        if depth == 0:
            return
        level, around = self.levels[depth], self.levels[depth - 1]
        changed = level.loop.equation()
        around.loop.equations = [changed if e is level.equation else e for e in around.loop.equations]
        level.equation = changed
        for value in changed.outputs:
            around.made[value] = changed
            around.varying.add(value)

    def under(self, op: str, inputs: Sequence[_Exported], attributes: Any) -> _Exported:
        """An operation on arrays under the loops that its inputs vary with."""
        loops = tuple(sorted({i for x in inputs for i in x.loops}))
        value = self._lifted(self.b, op, [(x.value, x.loops) for x in inputs], attributes, loops)
        return _Exported(value, loops)

    def _lifted(self, b: Builder, op: str, inputs: list, attributes: Any, loops: tuple[int, ...]) -> Value:
        if not loops:
            return b(op, *(v for v, _ in inputs), **attributes)
        first, *rest = loops
        listed = [(v, own) for v, own in inputs if first in own]

        def element(inner: Builder, *values: Value) -> list[Value]:
            found = iter(values)
            arguments = [(next(found), own[1:]) if first in own else (v, own) for v, own in inputs]
            return [self._lifted(inner, op, arguments, attributes, tuple(rest))]

        (out,) = b.map(self.levels[first].loop.size, [v for v, _ in listed], element)
        return out

    def total(self, value: Value, depth: int = 0) -> _Exported:
        """The sum of a value over the outermost loop."""
        level = self.levels[depth]
        e = level.made.get(value)
        if e is None or not self.gains(value, depth):
            return self._plain(value, depth)
        if e.op == "contract":
            labels, output = e.attributes["spec"].split("->")
            if not self._sums(e.inputs, depth):
                operands = [self.export(v, depth) for v in e.inputs]
                return self.under("contract", [self._summed(x) if 0 in x.loops else x for x in operands], e.attributes)
            return self._contract(*labels.split(","), output, *e.inputs, e.attributes.get("dtype"), depth)
        if e.op in ("mul", "reduce_sum") and (product := self._product(e, depth)) is not None:
            spec, left, right = product
            labels, output = spec.split("->")
            return self._contract(*labels.split(","), output, left, right, None, depth)
        if e.op in _LINEAR or e.op == "cast":
            return self.under(e.op, [self.total(e.inputs[0], depth)], e.attributes)
        if e.op in ("add", "sub", "concatenate"):
            return self.under(e.op, [self.total(v, depth) for v in e.inputs], e.attributes)
        if e.op == "mul":
            varying, fixed = self._factor(e, depth)
            return self.under("mul", [self.total(varying, depth), self.export(fixed, depth)], {})
        if e.op == "div":
            return self.under("div", [self.total(e.inputs[0], depth), self.export(e.inputs[1], depth)], {})
        if e.op in ("scatter_add", "accumulate_rows"):
            return self._rows(e, depth)
        return self._enter(e, value, depth, lambda result: self.total(result, depth + 1))

    def _plain(self, value: Value, depth: int) -> _Exported:
        exported = self.export(value, depth)
        return _Exported(self.b.reduce("sum", exported.value), exported.loops[1:])

    def _summed(self, x: _Exported) -> _Exported:
        return _Exported(self.b.reduce("sum", x.value), x.loops[1:])

    def _contract(
        self, left: str, right: str, output: str, x: Value, y: Value, dtype: DType | None, depth: int
    ) -> _Exported:
        """The sum of a contraction of two varying operands: one contraction over the summed axis too."""
        a, z = self.export(x, depth), self.export(y, depth)
        fresh = iter(c for c in "tuvwxyzTUVWXYZBCDEFGHIJKLMNOPQRS" if c not in left + right + output)
        name = {i: next(fresh) for i in sorted({*a.loops, *z.loops})}
        lists = tuple(i for i in sorted(name) if i != 0)
        left = "".join(name[i] for i in a.loops) + left
        right = "".join(name[i] for i in z.loops) + right
        spec = f"{left},{right}->{''.join(name[i] for i in lists)}{output}"
        attributes = {"spec": spec} if dtype is None else {"spec": spec, "dtype": dtype}
        return _Exported(self.b("contract", a.value, z.value, **attributes), lists)

    def _rows(self, e: Equation, depth: int) -> _Exported:
        updates, index = (self.export(v, depth) for v in e.inputs)
        if 0 not in index.loops:
            updates = self._summed(updates)
        elif 0 not in updates.loops:
            copies = self.b.repeat(updates.value, self.levels[0].loop.size)
            updates = _Exported(copies, (0,))
        return _Exported(self.b("accumulate_rows", updates.value, index.value, size=e.attributes["size"]), ())


def _narrows(e: Equation) -> bool:
    """Whether a cast goes to a float dtype with no more bits: the sum before it is then the more exact one."""
    before, after = e.inputs[0].type.dtype, e.output.type.dtype
    return before.is_float and after.is_float and after.bits <= before.bits


@law(NAME)
def accumulator_sink(body: Lambda, scope: Scope) -> Lambda:
    """reduce sum (map (λ. a · b)) = contract over the list axis too, where both operands vary; contract(reduce sum a,
    b) where b is the same in every element; pushed through what is linear (sums, differences, scaling by what is the
    same, negation, reshape, transpose, slice, pad, concatenate, broadcast, sums over axes, a narrowing cast) and
    through maps in the element, whose axes stay; a product of broadcasts is an outer product; a sum of scatter_add is
    accumulate_rows. Side condition: the list is read by its sum alone, and something in it becomes a contraction,
    accumulated rows or smaller."""
    sums = [e for e in body.equations if e.op == "reduce" and e.attributes["op"] == "sum"]
    if not sums:
        return body
    made = makers(body.equations)
    use = users(body)
    after: dict[Equation, list[Equation]] = {}
    levels: dict[Equation, _Level] = {}
    changed: set[Equation] = set()
    table: dict[Value, Value] = {}
    for e in sums:
        maker = made.get(e.inputs[0])
        if maker is None or maker.op != "map":
            continue
        level = levels.get(maker)
        if level is None:
            level = levels[maker] = _Level(maker)
        b = OpenBuilder()
        b.source = e.source
        total = _Sum(b, level)
        element = level.elements[e.inputs[0]]
        if not total.gains(element):
            continue
        if len(use[e.inputs[0]]) > 1:
            scope.refused(NAME, e, f"the list {e.inputs[0].type} is read elsewhere too")
            continue
        result = total.total(element).value
        result.name = result.name or e.output.name
        table[e.output] = result
        changed.add(maker)
        after[e] = b.equations
        scope.fired(NAME, e, f"the sum over {maker.attributes['size']} of {e.output.type} is taken of its operands")
    if not after:
        return body
    out: list[Equation] = []
    for e in body.equations:
        out.extend(renamed(x, table) for x in after.get(e, (levels[e].loop.equation() if e in changed else e,)))
    return Lambda(body.parameters, tuple(out), tuple(table.get(v, v) for v in body.results))


LAWS = (accumulator_sink,)
