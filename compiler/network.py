"""Minimum cuts of small networks, by augmenting paths (Edmonds & Karp, 1972)."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

INFINITE = 1 << 60
SOURCE, SINK = "source", "sink"


class Network:
    """Capacities of a flow network between `SOURCE` and `SINK`; what is stored is the residual."""

    def __init__(self) -> None:
        self.residual: dict[Hashable, dict[Hashable, int]] = {}

    def edge(self, a: Hashable, b: Hashable, capacity: int) -> None:
        """Add capacity from a to b."""
        forward = self.residual.setdefault(a, {})
        forward[b] = forward.get(b, 0) + capacity
        self.residual.setdefault(b, {}).setdefault(a, 0)

    def _reached(self, goal: Hashable | None) -> dict[Hashable, Hashable]:
        parents: dict[Hashable, Hashable] = {SOURCE: SOURCE}
        queue: deque[Hashable] = deque([SOURCE])
        while queue:
            node = queue.popleft()
            for other, capacity in self.residual.get(node, {}).items():
                if capacity > 0 and other not in parents:
                    parents[other] = node
                    if other == goal:
                        return parents
                    queue.append(other)
        return parents

    def _saturate(self) -> dict[Hashable, Hashable]:
        while True:
            parents = self._reached(SINK)
            if SINK not in parents:
                return parents
            path: list[Hashable] = [SINK]
            while path[-1] != SOURCE:
                path.append(parents[path[-1]])
            steps = list(zip(path[1:], path, strict=False))
            amount = min(self.residual[a][b] for a, b in steps)
            for a, b in steps:
                self.residual[a][b] -= amount
                self.residual[b][a] += amount

    def source_side(self) -> set[Hashable]:
        """The smallest source side of a minimum cut."""
        return set(self._saturate())

    def sink_side(self) -> set[Hashable]:
        """The smallest sink side of a minimum cut: of equal cuts the one nearest to the sink."""
        self._saturate()
        backwards: dict[Hashable, list[Hashable]] = {}
        for a, edges in self.residual.items():
            for b, capacity in edges.items():
                if capacity > 0:
                    backwards.setdefault(b, []).append(a)
        found: set[Hashable] = {SINK}
        queue: deque[Hashable] = deque([SINK])
        while queue:
            for other in backwards.get(queue.popleft(), ()):
                if other not in found:
                    found.add(other)
                    queue.append(other)
        return found
