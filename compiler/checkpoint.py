"""Checkpointing: a long scan as a scan over segments, each a scan of its own.

``scan k = join . scan (scan k) . split``. Marked `checkpoint`, the outer scan keeps its carries only, and its backward
step
runs the inner scan again: what is kept falls from every step's values to one carry per segment and one segment's values
(Griewank & Walther, *Evaluating Derivatives*, ch. 12, with one level).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from .builder import Builder
from .ir import Equation, Graph, Lambda, Value, sub_equations
from .sizes import Named, Size
from .types import ListType

SEGMENT = 32


def for_memory(graph: Graph, memory: str) -> Graph:
    """The graph as a residual choice wants it: every scan in segments for "recompute", those with a heavy carry for
    "auto".
    """
    if memory == "save":
        return graph
    return checkpointed(graph, (lambda equation: True) if memory == "recompute" else carries_dominate)


def is_checkpointable(equation: Equation) -> bool:
    """Whether an equation is a scan whose number of steps is known before it runs."""
    a = equation.attributes
    return equation.op == "scan" and not a.get("stop", False) and not a.get("checkpoint", False) and not equation.binds


def _varying(graph: Graph) -> set[str]:
    """The axes (as text) that some list size varies over: a loop over one of them enters that size's table, and loops
    over segments would not."""
    over = {axis for declaration in graph.sizes for axis in declaration.over}
    for equation in sub_equations(graph.body):
        over.update(str(axis) for _, index in equation.binds for axis in equation.outputs[index].type.axes)
    return over


def carries_dominate(equation: Equation) -> bool:
    """Whether a scan's carries outweigh what it reads and writes per step: a matrix carry with vectors around it."""
    a = equation.attributes
    first = a["captured"] + a["carries"]
    carried = sum(map(_weight, (v.type for v in equation.inputs[a["captured"] : first])))
    around = [v.type.element for v in (*equation.inputs[first:], *equation.outputs[a["carries"] :])]
    return any(len(v.type.shape) > 1 for v in equation.inputs[a["captured"] : first]) and carried > sum(
        map(_weight, around)
    )


def _weight(type_: ListType) -> int:
    return math.prod(type_.shape) if not type_.axes else 0


def checkpointed(graph: Graph, choose: Callable[[Equation], bool], length: int = SEGMENT) -> Graph:
    """A graph whose chosen scans run in segments.

    Arguments:
        graph: a normalised program.
        choose: which scans (of those whose length is known before they run).
        length: steps per segment.
    """
    taken = {name for equation in sub_equations(graph.body) for name, _ in equation.binds} | {
        d.name for d in graph.sizes
    }
    counter = [sum(name.startswith("segment") for name in taken)]
    before = counter[0]
    varying = _varying(graph)

    def rewrite(body: Lambda, inside: bool) -> Lambda:
        b = Builder()
        table: dict[Value, Value] = {}
        for p in body.parameters:
            table[p] = p
            b.parameters.append(p)
            b.defined.add(p)
        for equation in body.equations:
            inputs = tuple(table[v] for v in equation.inputs)
            b.source = equation.source
            alone = str(equation.attributes.get("size")) not in varying
            if not inside and alone and is_checkpointable(equation) and choose(equation):
                counter[0] += 1
                outputs = _segmented(b, replace(equation, inputs=inputs), length, counter[0])
            else:
                deeper = inside or equation.op in ("scan", "tree_up", "tree_down", "reduce_with", "switch")
                outputs = tuple(Value(v.type, v.name) for v in equation.outputs)
                bodies = tuple(rewrite(inner, deeper) for inner in equation.bodies)
                b.equations.append(replace(equation, inputs=inputs, outputs=outputs, bodies=bodies))
                b.defined.update(outputs)
            table.update(zip(equation.outputs, outputs, strict=True))
        return Lambda(body.parameters, tuple(b.equations), tuple(table[v] for v in body.results))

    body = rewrite(graph.body, False)
    return graph.with_body(body) if counter[0] > before else graph


def _segmented(b: Builder, equation: Equation, length: int, number: int) -> tuple[Value, ...]:
    a = equation.attributes
    captured, carries, size = a["captured"], a["carries"], a["size"]
    first = captured + carries
    inner_size: Size = Named(f"segment{number}")
    split = {"size": size, "length": length, "inner": inner_size}
    _, *lists = b.emit("split", equation.inputs[first:], split, (), ((str(inner_size), 0),))
    outer_size = size.quotient(length - 1, length)
    step = Builder(b)
    step.source = equation.source
    constants = [step.parameter(v.type, v.name) for v in equation.inputs[:captured]]
    carry = [step.parameter(v.type, v.name) for v in equation.inputs[captured:first]]
    segments = [step.parameter(v.type.element, v.name) for v in lists]
    results = step.emit("scan", (*constants, *carry, *segments), {**a, "size": inner_size}, equation.bodies)
    body, _ = step.close(results)
    attributes = {**a, "size": outer_size, "checkpoint": True}
    outputs = b.emit(
        "scan", (*equation.inputs[:captured], *equation.inputs[captured:first], *lists), attributes, (body,)
    )
    joined = [b("join", v, size=size, length=length) for v in outputs[carries:]]
    for new, old in zip((*outputs[:carries], *joined), equation.outputs, strict=True):
        new.name = old.name
    return (*outputs[:carries], *joined)
