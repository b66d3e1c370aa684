"""Which values of a forward body are kept for its backward body.

The backward body reads some values (the frontier). Each is kept, or computed again from others that are kept, back to
equations that must not run twice. What is kept is the cheapest set that does this, a minimum vertex cut between those
equations and the frontier; of equal cuts the one nearest to the frontier, which computes least again. It is the choice
of rematerialisation by cuts: Jain et al., *Checkmate*, 2020; here exact, since one body has no schedule to choose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from .ir import Equation, Value
from .network import INFINITE, SINK, SOURCE, Network

LIST_WEIGHT = 64
"""A list counts as this many elements, its length being known per call only."""


def weight(value: Value) -> int:
    """What it costs to keep a value, in bytes."""
    type_ = value.type
    return max(1, math.prod(type_.shape)) * LIST_WEIGHT ** len(type_.axes) * max(1, type_.dtype.bits // 8)


def kept(forward: Sequence[Equation], frontier: Iterable[Value], again: Callable[[Equation], bool]) -> list[Value]:
    """The values to keep.

    Arguments:
        forward: the equations of the forward body, in order.
        frontier: the values that the backward body reads; parameters of the body among them cost nothing.
        again: whether an equation may be computed again.

    Returns:
        Values, in the order in which they are made.
    """
    maker = {v: e for e in forward for v in e.outputs}
    order = {v: i for i, v in enumerate(maker)}
    read = [v for v in dict.fromkeys(frontier) if v in maker]
    saved = {v for v in read if not again(maker[v])}
    for component in _components([v for v in read if v not in saved], maker, saved, again):
        saved |= _cut(component, set(read), maker, saved, again)
    return sorted(saved, key=order.__getitem__)


def _components(
    read: Sequence[Value], maker: dict[Value, Equation], saved: set[Value], again: Callable[[Equation], bool]
) -> list[set[Value]]:
    """The values from which the read ones can be computed, in parts that share none."""
    owner: dict[Value, int] = {}
    parts: dict[int, set[Value]] = {}
    for number, root in enumerate(read):
        parts[number] = set()
        waiting = [root]
        while waiting:
            value = waiting.pop()
            if value in owner:
                other = owner[value]
                if other != number:
                    for moved in parts.pop(other):
                        owner[moved] = number
                        parts[number].add(moved)
                continue
            owner[value] = number
            parts[number].add(value)
            if again(maker[value]):
                waiting.extend(v for v in maker[value].inputs if v in maker and v not in saved)
    return list(parts.values())


def _cut(
    component: set[Value],
    read: set[Value],
    maker: dict[Value, Equation],
    saved: set[Value],
    again: Callable[[Equation], bool],
) -> set[Value]:
    network = Network()
    found = False
    for value in component:
        network.edge(("in", value), ("out", value), weight(value))
        if value in read:
            network.edge(("out", value), SINK, INFINITE)
        if again(maker[value]):
            for source in maker[value].inputs:
                if source in component:
                    network.edge(("out", source), ("in", value), INFINITE)
        else:
            network.edge(SOURCE, ("in", value), INFINITE)
            found = True
    if not found:
        return set()
    behind = network.sink_side()
    return {v for v in component if ("in", v) not in behind and ("out", v) in behind}
