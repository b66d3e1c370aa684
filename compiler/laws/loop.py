"""One view of all loop combinators: what their inputs, parameters, results and outputs are to them.

| role | input | parameter | result | output |
|---|---|---|---|---|
| table | a tree's parent, slot, height | | | |
| captured | a value used in every step | itself | | |
| carry | first; a root's state | carry | next; children's states | last carry; `tree_up`: all results |
| list | a list over the loop's size | its element | | |
| state | | `tree_up`: the children's results | | |
| kid | a list over the nodes | its elements at the children | | |
| stop | | | stopping flag | count of steps |
| output | | | an element | the list of these |
| kid (result) | | | one per child | the list of these at the children |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..ir import Equation, Lambda, Value
from ..sizes import Size

_INPUT_ORDER = {"table": 0, "captured": 1, "carry": 2, "list": 3, "state": 4, "kid": 5}
_RESULT_ORDER = {"carry": 0, "stop": 1, "output": 2, "kid": 3}


@dataclass(eq=False)
class Port:
    """A place where a value enters or leaves a loop.

    Attributes:
        role: see the module's table.
        outer: the input or output, None where there is none.
        inner: the parameter or result, None where there is none.
    """

    role: str
    outer: Value | None
    inner: Value | None


class Loop:
    """A loop equation taken apart, to be changed and put together again.

    Arguments:
        equation: an application of map, scan, reduce_with, tree_up or tree_down.
    """

    def __init__(self, equation: Equation):
        a, (body,) = equation.attributes, equation.bodies
        self.template = equation
        self.op, self.size, self.equations = equation.op, a["size"], list(body.equations)
        self.inputs: list[Port] = []
        self.results: list[Port] = []
        tree = equation.op in ("tree_up", "tree_down")
        up = equation.op == "tree_up"
        carries = 0 if up or equation.op == "map" else a["states"] if tree else a["carries"]
        tables, captured = 3 if tree else 0, a["captured"]
        lists = a["own"] if tree else len(equation.inputs) - captured - carries
        kids = len(equation.inputs) - tables - captured - carries - lists
        states = a["states"] if up else 0
        outer: list[Value | None] = list(equation.inputs)
        roles = ["table"] * tables + ["captured"] * captured + ["carry"] * carries + ["list"] * lists + ["kid"] * kids
        parameters: list[Value | None] = [None] * tables + list(body.parameters)
        if states:
            at = tables + captured + lists
            roles[at:at], outer[at:at] = ["state"] * states, [None] * states
        self.inputs = [Port(*port) for port in zip(roles, outer, parameters, strict=True)]
        results = list(body.results)
        leading = a["states"] if tree else carries
        stop = 1 if a.get("stop") else 0
        emitted = a["emitted"] if tree else len(results) - leading - stop
        roles = ["carry"] * leading + ["stop"] * stop + ["output"] * emitted
        roles += ["kid"] * (len(results) - len(roles))
        hidden = leading if equation.op == "tree_down" else 0
        outputs: list[Value | None] = [None] * hidden + list(equation.outputs)
        self.results = [Port(*port) for port in zip(roles, outputs, results, strict=True)]
        self.bound = {equation.outputs[index]: name for name, index in equation.binds}

    def role(self, *roles: str) -> list[Port]:
        """The entering ports of these roles, in order."""
        return [port for port in self.inputs if port.role in roles]

    def leaving(self, *roles: str) -> list[Port]:
        """The leaving ports of these roles, in order."""
        return [port for port in self.results if port.role in roles]

    @property
    def arity(self) -> Size | None:
        """A tree's size of a node's list of children."""
        return self.template.attributes.get("arity")

    def capture(self, outer: Value, inner: Value | None = None) -> Value:
        """The parameter for a captured value: an existing one, or a new one."""
        if inner is None:
            for port in self.inputs:
                if port.role == "captured" and port.outer is outer:
                    assert port.inner is not None
                    return port.inner
            inner = Value(outer.type, outer.name)
        self.inputs.append(Port("captured", outer, inner))
        return inner

    def take(self, outer: Value) -> Value:
        """The parameter for an element of a list: an existing one, or a new one."""
        for port in self.inputs:
            if port.role == "list" and port.outer is outer:
                assert port.inner is not None
                return port.inner
        inner = Value(outer.type.element, outer.name)
        self.inputs.append(Port("list", outer, inner))
        return inner

    def give(self, inner: Value) -> Value:
        """The output list of a value of the body: an existing one, or a new one."""
        for port in self.results:
            if port.role == "output" and port.inner is inner:
                assert port.outer is not None
                return port.outer
        for port in self.inputs:
            if port.role == "list" and port.inner is inner:
                assert port.outer is not None
                return port.outer
        if self.op == "tree_up":
            for port in self.results:
                if port.role == "carry" and port.inner is inner:
                    assert port.outer is not None
                    return port.outer
        outer = Value(inner.type.listed(self.size), inner.name)
        self.results.append(Port("output", outer, inner))
        return outer

    @property
    def body(self) -> Lambda:
        """The body as it is now."""
        inputs = sorted(self.inputs, key=lambda port: _INPUT_ORDER[port.role])
        results = sorted(self.results, key=lambda port: _RESULT_ORDER[port.role])
        return Lambda(
            tuple(p.inner for p in inputs if p.inner is not None),
            tuple(self.equations),
            tuple(p.inner for p in results if p.inner is not None),
        )

    def equation(self) -> Equation:
        """The loop put together again."""
        inputs = sorted(self.inputs, key=lambda port: _INPUT_ORDER[port.role])
        results = sorted(self.results, key=lambda port: _RESULT_ORDER[port.role])
        count = {role: sum(p.role == role for p in inputs) for role in _INPUT_ORDER}
        attributes = {**self.template.attributes, "captured": count["captured"]}
        if self.op in ("scan", "reduce_with"):
            attributes["carries"] = count["carry"]
        if self.op in ("tree_up", "tree_down"):
            attributes["own"] = count["list"]
            attributes["states"] = sum(p.role == "carry" for p in results)
            attributes["emitted"] = sum(p.role == "output" for p in results)
        outputs = tuple(p.outer for p in results if p.outer is not None)
        binds = tuple((self.bound[v], i) for i, v in enumerate(outputs) if v in self.bound)
        return Equation(
            self.op,
            tuple(p.outer for p in inputs if p.outer is not None),
            outputs,
            attributes,
            (self.body,),
            binds,
            self.template.source,
        )


def new_map(
    size: Size,
    captured: Sequence[Port],
    lists: Sequence[Port],
    equations: Sequence[Equation],
    results: Sequence[Port],
    like: Equation,
) -> Equation:
    """A map equation made of its ports."""
    body = Lambda(
        tuple(p.inner for p in (*captured, *lists) if p.inner is not None),
        tuple(equations),
        tuple(p.inner for p in results if p.inner is not None),
    )
    return Equation(
        "map",
        tuple(p.outer for p in (*captured, *lists) if p.outer is not None),
        tuple(p.outer for p in results if p.outer is not None),
        {"size": size, "captured": len(captured)},
        (body,),
        (),
        like.source,
    )
