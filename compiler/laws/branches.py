"""What a recurrent step emits from the branches of a switch, and from the children of a node, as operands instead of
products."""

from __future__ import annotations

from ..ir import Equation, Lambda, Value
from .law import RECURRENT, OpenBuilder, Scope, cone, constant_number, law, makers, numel, renamed, users
from .loop import Loop, Port

SWITCH = "contraction out of a switch"
KIDS = "sum over nodes of a sum over children"
_LINEAR = frozenset(("neg", "reshape", "transpose", "slice", "pad", "flip", "cast"))


@law(SWITCH)
def contraction_out_of_a_switch(body: Lambda, scope: Scope) -> Lambda:
    """switch i (a · b, 0) = switch i (a, 0) · switch i (b, 0): a product that a step emits and a branch computes leaves
    the branch, its operands being zero in the other branches; through sums, joins and what only copies; the rows of a
    scatter_add too. Side condition: the result does not feed the step's carry, and is larger than its operands (the
    gradient of a weight)."""
    out: list[Equation] = []
    changed = False
    for equation in body.equations:
        if equation.op in RECURRENT and any(e.op == "switch" for e in equation.bodies[0].equations):
            again = _opened(equation, scope)
            changed |= again is not equation
            equation = again
        out.append(equation)
    return Lambda(body.parameters, tuple(out), body.results) if changed else body


def _opened(equation: Equation, scope: Scope) -> Equation:
    loop = Loop(equation)
    made = makers(loop.equations)
    core = cone([p.inner for p in loop.leaving("carry", "stop", "kid")], made)
    feeding = {v for e in core for v in e.inputs} | {p.inner for p in loop.leaving("carry", "stop", "kid")}
    table: dict[Value, Value] = {}
    out: list[Equation] = []
    for e in loop.equations:
        if e.op != "switch":
            out.append(renamed(e, table))
            continue
        opening = _Opening(renamed(e, table))
        for j, value in enumerate(e.outputs):
            if value not in feeding and opening.gains(j):
                table[value] = opening.open(j)
                scope.fired(SWITCH, e, f"{value.type} is made of its operands outside")
        out.extend(opening.equations())
    if not table:
        return equation
    loop.equations = out
    for port in loop.results:
        port.inner = table.get(port.inner, port.inner)
    return loop.equation()


class _Opening:
    """A switch from whose branches results are taken out.

    Arguments:
        equation: the switch.
    """

    def __init__(self, equation: Equation):
        self.equation = equation
        self.b = OpenBuilder()
        self.b.source = equation.source
        self.made = [makers(body.equations) for body in equation.bodies]
        self.results = [list(body.results) for body in equation.bodies]
        self.outputs = list(equation.outputs)
        self.added: list[list[Equation]] = [[] for _ in equation.bodies]
        self.exported: dict[tuple[int, Value], Value] = {}
        self.opened: set[int] = set()

    def gains(self, j: int) -> bool:
        """Whether each branch's result is zero or made of products that are larger than their operands."""
        kinds = [self._products(i, self.results[i][j]) for i in range(len(self.made))]
        return None not in kinds and any(kinds)

    def _products(self, i: int, value: Value) -> bool | None:
        """True if products are found, False if the value is zero, None if it is something else."""
        e = self.made[i].get(value)
        if e is None:
            return None
        if constant_number(e) == 0:
            return False
        if e.op == "contract":
            larger = numel(e.output) > sum(numel(v, 1) for v in e.inputs)
            captured = self.equation.bodies[i].parameters
            listed = any(v.type.axes and v in captured for v in e.inputs)
            return True if larger and not listed else None
        if e.op == "scatter_add":
            return True
        if e.op in _LINEAR:
            return self._products(i, e.inputs[0])
        if e.op in ("add", "sub", "concatenate"):
            kinds = [self._products(i, v) for v in e.inputs]
            return None if None in kinds else any(kinds)
        return None

    def open(self, j: int) -> Value:
        """The result outside of the switch."""
        total = None
        for i in range(len(self.made)):
            part = self._outside(i, self.results[i][j])
            if part is not None:
                total = part if total is None else self.b("add", total, part)
        assert total is not None
        self.opened.add(j)
        return total

    def _outside(self, i: int, value: Value) -> Value | None:
        """A branch's value, zero wherever another branch was taken; None where it is zero anyhow."""
        e = self.made[i][value]
        if constant_number(e) == 0:
            return None
        if e.op == "contract":
            return self.b("contract", self._operand(i, e.inputs[0]), self._operand(i, e.inputs[1]), **e.attributes)
        if e.op == "scatter_add":
            return self.b("scatter_add", self._operand(i, e.inputs[0]), self._operand(i, e.inputs[1]), **e.attributes)
        parts = [self._outside(i, v) for v in e.inputs]
        if all(p is None for p in parts):
            return None
        filled = [self.b.filled(0.0, v.type) if p is None else p for p, v in zip(parts, e.inputs, strict=True)]
        return self.b(e.op, *filled, **e.attributes)

    def _operand(self, i: int, value: Value) -> Value:
        """An operand of a product: a new output of the switch, zero in the other branches."""
        if (i, value) in self.exported:
            return self.exported[i, value]
        outer = Value(value.type, value.name)
        for k, results in enumerate(self.results):
            if k == i:
                results.append(value)
            else:
                zero = OpenBuilder()
                results.append(zero.filled(0.0 if value.type.dtype.is_float else 0, value.type))
                self.added[k] += zero.equations
        self.outputs.append(outer)
        self.exported[i, value] = outer
        return outer

    def equations(self) -> list[Equation]:
        """The switch with its new outputs, and what stands after it."""
        if not self.opened:
            return [self.equation]
        e = self.equation
        kept = [j for j in range(len(self.outputs)) if j not in self.opened]
        bodies = tuple(
            Lambda(body.parameters, (*body.equations, *added), tuple(results[j] for j in kept))
            for body, added, results in zip(e.bodies, self.added, self.results, strict=True)
        )
        outputs = tuple(self.outputs[j] for j in kept)
        return [Equation("switch", e.inputs, outputs, e.attributes, bodies, e.binds, e.source), *self.b.equations]


@law(KIDS)
def sum_over_children(body: Lambda, scope: Scope) -> Lambda:
    """the sum over the nodes of a tree of contract(a, b) over a node's children = contract(a, b) over the nodes, where
    a and b are
    lists over the children: each child's elements are put back at the child, and every node but the root is a child
    once (what is put back is zero at the root). Side condition: nothing else reads the sums per node."""
    made = makers(body.equations)
    use = users(body)
    table: dict[Value, Value] = {}
    loops: dict[Equation, Loop] = {}
    after: dict[Equation, list[Equation]] = {}
    for e in body.equations:
        if e.op != "reduce" or e.attributes["op"] != "sum":
            continue
        maker = made.get(e.inputs[0])
        if maker is None or maker.op not in ("tree_up", "tree_down") or len(use[e.inputs[0]]) > 1:
            continue
        loop = loops.get(maker) or Loop(maker)
        b = OpenBuilder()
        b.source = e.source
        element = next((p.inner for p in loop.leaving("output") if p.outer is e.inputs[0]), None)
        total = None if element is None else _over_nodes(loop, makers(loop.equations), element, b)
        if total is None:
            continue
        loops[maker] = loop
        table[e.output] = total
        after[e] = b.equations
        scope.fired(KIDS, e, f"{e.output.type} is one contraction over {loop.size}")
    if not table:
        return body
    out: list[Equation] = []
    for e in body.equations:
        out.extend(renamed(x, table) for x in after.get(e, (loops[e].equation() if e in loops else e,)))
    return Lambda(body.parameters, tuple(out), tuple(table.get(v, v) for v in body.results))


def _over_nodes(loop: Loop, made: dict[Value, Equation], value: Value, b: OpenBuilder) -> Value | None:
    """The sum over the nodes of a value that is made of contractions over the children, or None."""
    e = made.get(value)
    if e is None:
        return None
    if e.op == "contract":
        operands, output = e.attributes["spec"].split("->")
        labels = operands.split(",")
        listed = all(v.type.axes == (loop.arity,) for v in e.inputs)
        if not listed or labels[0][0] != labels[1][0] or labels[0][0] in output:
            return None
        lists = [_at_the_children(loop, v, i == 0) for i, v in enumerate(e.inputs)]
        return b("contract", *lists, **e.attributes)
    if e.op in _LINEAR or e.op in ("add", "sub", "concatenate"):
        if not _made_of_children(loop, made, value):
            return None
        return b(e.op, *(_over_nodes(loop, made, v, b) for v in e.inputs), **e.attributes)
    return None


def _made_of_children(loop: Loop, made: dict[Value, Equation], value: Value) -> bool:
    e = made.get(value)
    if e is None:
        return False
    if e.op == "contract":
        operands, output = e.attributes["spec"].split("->")
        labels = operands.split(",")
        listed = all(v.type.axes == (loop.arity,) for v in e.inputs)
        return listed and labels[0][0] == labels[1][0] and labels[0][0] not in output
    return e.op in (*_LINEAR, "add", "sub", "concatenate") and all(_made_of_children(loop, made, v) for v in e.inputs)


def _at_the_children(loop: Loop, value: Value, zero_at_root: bool) -> Value:
    """The list over the nodes of a value of the children: where it came from, or a new output that is zero at the
    root."""
    if not zero_at_root:
        for port in loop.role("kid"):
            if port.inner is value:
                return port.outer
        for port, result in zip(loop.role("state"), loop.leaving("carry"), strict=False):
            if port.inner is value and result.outer is not None:
                return result.outer
    for port in loop.leaving("kid"):
        if port.inner is value:
            return port.outer
    outer = Value(value.type.element.listed(loop.size), value.name)
    loop.results.append(Port("kid", outer, value))
    return outer


LAWS = (contraction_out_of_a_switch, sum_over_children)
