"""Where to cut a loop's body in two: the equations that leave it, chosen by what the cut costs.

A minimum cut of the graph of equations and values (project selection: Picard, *Maximal closure of a graph*, 1976).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..ir import Equation, Value
from ..network import INFINITE, SINK, SOURCE, Network
from .law import numel, work

STORE = 4
"""What it costs to store an element of a list and read it again, in multiply-adds."""


def equations_that_leave(
    candidates: Sequence[Equation], wanted: Collection[Value], free: Collection[Value], fixed: Collection[Value]
) -> set[Equation]:
    """Which of the equations after a loop's core leave the loop.

    An equation that stays costs its work; a value that crosses from the loop to what left it costs `STORE` per element.
    Of equal choices the one that moves most is taken.

    Arguments:
        candidates: equations that do not feed the loop's carry, in order.
        wanted: the values that the loop emits.
        free: values that cross at no cost (captured values, elements, what is stored anyhow).
        fixed: values that cannot cross.

    Returns:
        The candidates that leave.
    """
    network = Network()
    made = {v: e for e in candidates for v in e.outputs}
    crossing = {v for e in candidates for v in e.inputs} | set(wanted)
    for value in crossing:
        capacity = INFINITE if value in fixed else 0 if value in free else STORE * numel(value)
        network.edge(("in", value), ("out", value), capacity)
        if value not in made:
            network.edge(SOURCE, ("in", value), INFINITE)
        if value in wanted:
            network.edge(("out", value), SINK, INFINITE)
    for equation in candidates:
        network.edge(equation, SINK, work(equation))
        for value in equation.inputs:
            network.edge(("out", value), equation, INFINITE)
            if value in made:
                network.edge(equation, made[value], INFINITE)
        for value in equation.outputs:
            if value in crossing:
                network.edge(equation, ("in", value), INFINITE)
    kept = network.source_side()
    return {e for e in candidates if e not in kept}
