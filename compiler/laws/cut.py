"""Where to cut a loop's body in two: the equations that leave it, chosen by what the cut costs.

A minimum cut of the graph of equations and values (project selection: Picard, *Maximal closure of a graph*, 1976),
found by augmenting paths (Edmonds & Karp, 1972).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Hashable, Sequence

from ..ir import Equation, Value
from .law import numel, work

STORE = 4
"""What it costs to store an element of a list and read it again, in multiply-adds."""

_INFINITE = 1 << 60
_SOURCE, _SINK = "source", "sink"


class _Network:
    """Capacities of a flow network, as residuals."""

    def __init__(self) -> None:
        self.residual: dict[Hashable, dict[Hashable, int]] = {}

    def edge(self, a: Hashable, b: Hashable, capacity: int) -> None:
        forward = self.residual.setdefault(a, {})
        forward[b] = forward.get(b, 0) + capacity
        self.residual.setdefault(b, {}).setdefault(a, 0)

    def _reached(self, goal: Hashable | None) -> dict[Hashable, Hashable]:
        parents: dict[Hashable, Hashable] = {_SOURCE: _SOURCE}
        queue = deque([_SOURCE])
        while queue:
            node = queue.popleft()
            for other, capacity in self.residual.get(node, {}).items():
                if capacity > 0 and other not in parents:
                    parents[other] = node
                    if other == goal:
                        return parents
                    queue.append(other)
        return parents

    def source_side(self) -> set[Hashable]:
        """The smallest source side of a minimum cut."""
        while True:
            parents = self._reached(_SINK)
            if _SINK not in parents:
                return set(parents)
            path = [_SINK]
            while path[-1] != _SOURCE:
                path.append(parents[path[-1]])
            steps = list(zip(path[1:], path, strict=False))
            amount = min(self.residual[a][b] for a, b in steps)
            for a, b in steps:
                self.residual[a][b] -= amount
                self.residual[b][a] += amount


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
    network = _Network()
    made = {v: e for e in candidates for v in e.outputs}
    crossing = {v for e in candidates for v in e.inputs} | set(wanted)
    for value in crossing:
        capacity = _INFINITE if value in fixed else 0 if value in free else STORE * numel(value)
        network.edge(("in", value), ("out", value), capacity)
        if value not in made:
            network.edge(_SOURCE, ("in", value), _INFINITE)
        if value in wanted:
            network.edge(("out", value), _SINK, _INFINITE)
    for equation in candidates:
        network.edge(equation, _SINK, work(equation))
        for value in equation.inputs:
            network.edge(("out", value), equation, _INFINITE)
            if value in made:
                network.edge(equation, made[value], _INFINITE)
        for value in equation.outputs:
            if value in crossing:
                network.edge(equation, ("in", value), _INFINITE)
    kept = network.source_side()
    return {e for e in candidates if e not in kept}
