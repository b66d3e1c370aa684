"""Why normalising ends: what every law about loops makes smaller."""

from __future__ import annotations

from ..ir import Equation, Lambda, Value
from ..records import RECORDS, Primitive
from .batching import is_batched
from .contraction import joined_count, steady_values
from .law import COPIES, LOOPS, RECURRENT, numel


def measure(body: Lambda) -> tuple[int, ...]:
    """What the laws about loops make smaller, in lexicographic order, once dead code is gone.

    1. contractions with a joined operand, where a law takes it apart;
    2. slices, in recurrent steps, of what the carry has a part in;
    3. contractions whose output is a list that a map could make;
    4. equations that compute, each weighted by 4 for every map around it and by 16 for every recurrent loop;
    5. the same for all equations but constants and broadcasts;
    6. sums, in recurrent steps, of what the carry has a part in;
    7. values that loops hand on unchanged, and lists that repeat one value;
    8. elements that are summed by reductions of lists;
    9. equations and their inputs and outputs.

    Laws about single equations build only what is smaller than what they replace. A law may leave work for an earlier
    entry of the tuple (a sum taken out of an inner map can put a joined operand into a step), but only by moving an
    equation out of a loop, which the nesting bounds.
    """
    totals = [0] * 9

    def visit(inner: Lambda, weight: int, recurrent: bool, steady: set[Value]) -> bool:
        computes = False
        made = {v: e for e in inner.equations for v in e.outputs}
        for e in inner.equations:
            record = RECORDS[e.op]
            free = isinstance(record, Primitive) and record.cost == "free"
            unsteady = recurrent and not all(v in steady for v in e.inputs)
            totals[0] += joined_count(e) if e.op in LOOPS else 0
            totals[1] += unsteady and e.op == "slice"
            totals[2] += is_batched(e)
            inside = []
            for body in e.bodies:
                again = e.op in RECURRENT
                known = steady_values(e) if again else set()
                inside.append(visit(body, weight * (16 if again else 4), recurrent or again, known))
            arithmetic = any(inside) if e.op == "map" else not free
            computes |= arithmetic
            copies = e.op in COPIES or (e.op == "map" and all(x.op in COPIES for x in e.bodies[0].equations))
            totals[3] += weight * arithmetic
            totals[4] += weight * (not copies)
            totals[5] += unsteady and e.op == "add"
            totals[6] += _handed(e, made)
            totals[7] += numel(e.inputs[0]) if e.op == "reduce" else 0
            totals[8] += 1 + len(e.inputs) + len(e.outputs) if e.op != "constant" else 0
        return computes

    visit(body, 1, False, set())
    return tuple(totals)


def _handed(e: Equation, made: dict[Value, Equation]) -> int:
    """How many values a loop hands on unchanged, or reads from a list that repeats them."""
    if e.op not in LOOPS or e.op == "reduce_with":
        return 0
    (body,) = e.bodies
    captured = set(body.parameters[: e.attributes["captured"]]) if e.op == "map" else set()
    count = sum(v in body.parameters and v not in captured for v in body.results)
    for value in e.inputs:
        maker = made.get(value)
        if maker is not None and maker.op == "map":
            (inner,) = maker.bodies
            count += all(x.op == "constant" for x in inner.equations)
    return count
