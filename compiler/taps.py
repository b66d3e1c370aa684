"""Taps: marks on inner values that `model.record` shows.

`without_taps` drops them; `with_taps_as_outputs` carries every tapped value out through the combinators that enclose
it: one list axis per loop, as any other output of a loop.
"""

from __future__ import annotations

from dataclasses import replace

from .errors import StructureError
from .ir import Equation, Graph, Lambda, Value, sub_equations


def has_taps(graph: Graph) -> bool:
    """Whether a graph holds a tap."""
    return any(equation.op == "tap" for equation in sub_equations(graph.body))


def without_taps(graph: Graph) -> Graph:
    """The graph without its taps."""
    return graph.with_body(_without(graph.body)) if has_taps(graph) else graph


def _without(body: Lambda) -> Lambda:
    table: dict[Value, Value] = {}
    equations = []
    for equation in body.equations:
        inputs = tuple(table.get(v, v) for v in equation.inputs)
        if equation.op == "tap":
            table[equation.output] = inputs[0]
        else:
            equations.append(replace(equation, inputs=inputs, bodies=tuple(map(_without, equation.bodies))))
    return Lambda(body.parameters, tuple(equations), tuple(table.get(v, v) for v in body.results))


def with_taps_as_outputs(graph: Graph) -> Graph:
    """The graph with every tapped value as a further output, named by its tap (numbered where a name comes again).

    Raises:
        StructureError: a tap stands where its values are not one per element: in a reduction's operation, in a branch
            of a
            switch, or where lists have a size of their own.
    """
    body, tapped = _expose(graph.body)
    names: list[str] = []
    for name, _ in tapped:
        count = sum(known == name or known.startswith(f"{name}.") for known in names)
        names.append(f"{name}.{count}" if count else name)
    results = (*body.results, *(value for _, value in tapped))
    return replace(
        graph, body=Lambda(body.parameters, body.equations, results), output_names=(*graph.output_names, *names)
    )


def _expose(body: Lambda) -> tuple[Lambda, list[tuple[str, Value]]]:
    tapped: list[tuple[str, Value]] = []
    table: dict[Value, Value] = {}
    equations: list[Equation] = []
    for equation in body.equations:
        inputs = tuple(table.get(v, v) for v in equation.inputs)
        if equation.op == "tap":
            table[equation.output] = inputs[0]
            tapped.append((equation.attributes["name"], inputs[0]))
            continue
        inner = [_expose(b) for b in equation.bodies]
        found = [pair for _, pairs in inner for pair in pairs]
        if not found:
            equations.append(replace(equation, inputs=inputs, bodies=tuple(b for b, _ in inner)))
            continue
        new, values = _carry_out(replace(equation, inputs=inputs, bodies=tuple(b for b, _ in inner)), found)
        equations.append(new)
        tapped.extend(values)
    return Lambda(body.parameters, tuple(equations), tuple(table.get(v, v) for v in body.results)), tapped


def _carry_out(equation: Equation, found: list[tuple[str, Value]]) -> tuple[Equation, list[tuple[str, Value]]]:
    """A combinator whose body's tapped values are further outputs."""
    if equation.op not in ("map", "scan", "tree_up", "tree_down"):
        raise StructureError(
            f"a tap stands inside of {equation.op}, where it has no value per element", equation.source
        )
    (body,) = equation.bodies
    values = tuple(v for _, v in found)
    counts = {name for e in body.equations for name, _ in e.binds} & {
        n for v in values for s in v.type.axes for n in s.names()
    }
    if counts:
        raise StructureError("a tap marks a list whose size is determined inside of the step", equation.source)
    outputs = tuple(Value(v.type.listed(equation.attributes["size"]), name) for name, v in found)
    attributes = dict(equation.attributes)
    at_body, at_equation = len(body.results), len(equation.outputs)
    if equation.op.startswith("tree"):
        # Own outputs stand before what is put back at the children.
        kept = attributes["emitted"]
        attributes["emitted"] = kept + len(values)
        at_body = attributes["states"] + kept
        at_equation = at_body if equation.op == "tree_up" else kept
    body = Lambda(body.parameters, body.equations, (*body.results[:at_body], *values, *body.results[at_body:]))
    new = replace(
        equation,
        outputs=(*equation.outputs[:at_equation], *outputs, *equation.outputs[at_equation:]),
        attributes=attributes,
        bodies=(body,),
        binds=tuple((n, i if i < at_equation else i + len(values)) for n, i in equation.binds),
    )
    return new, [(name, value) for (name, _), value in zip(found, outputs, strict=True)]


__all__ = ["has_taps", "with_taps_as_outputs", "without_taps"]
