"""What the compiler did with a program, for a person to read: `model.explain()`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..compiler.adjoint import residual_types
from ..compiler.ir import Equation, Graph, Lambda
from ..compiler.laws.law import Firing, Refusal
from ..compiler.pipeline import Compiled
from ..compiler.program import Entry
from ..compiler.types import ListType

RECURRENT = ("scan", "reduce_with", "tree_up", "tree_down")
_SHOWN = 6  # places listed per law


def explain(entry: Entry, compiled: Compiled, memory: str) -> str:
    """The report of one entry point.

    Arguments:
        entry: the traced entry point.
        compiled: its optimised graphs.
        memory: the residual choice.

    Returns:
        A text: the type; the laws that fired, and those in question that did not and why; what each loop still does per
        step, forward and backward; what is kept for the backward pass.
    """
    lines = [entry.signature, ""]
    lines += _laws("forward", compiled.forward)
    lines += _laws("backward", compiled.backward)
    lines += ["inside the loops, forward (per step)", *_loop_lines(compiled.forward.body), ""]
    lines += ["inside the loops, backward (per step)", *_loop_lines(compiled.backward.body), ""]
    lines += kept(compiled, memory)
    return "\n".join(lines)


def fired(graphs: Iterable[Graph]) -> Counter[str]:
    """How often each law was applied."""
    return Counter(note.law for graph in graphs for note in graph.notes if isinstance(note, Firing))


def _laws(which: str, graph: Graph) -> list[str]:
    firings: dict[str, list[Firing]] = {}
    refusals: dict[str, list[Refusal]] = {}
    for note in graph.notes:
        if isinstance(note, Firing):
            firings.setdefault(note.law, []).append(note)
        elif isinstance(note, Refusal):
            refusals.setdefault(note.law, []).append(note)
    lines = [f"laws applied, {which}"]
    for law, notes in firings.items():
        lines.append(f"  {law} × {len(notes)}")
        lines += _places((note.detail, note.where) for note in notes)
    if not firings:
        lines.append("  none")
    if refusals:
        lines.append(f"laws that did not apply, {which}")
        for law, notes in refusals.items():
            lines.append(f"  {law}")
            lines += _places((note.reason, note.where) for note in notes)
    return [*lines, ""]


def _places(notes: Iterable[tuple[str, Any]]) -> list[str]:
    counted = Counter(f"{text}" + (f"   [{where}]" if where else "") for text, where in notes)
    lines = [f"    {text}" + (f"  (× {count})" if count > 1 else "") for text, count in counted.most_common(_SHOWN)]
    if len(counted) > _SHOWN:
        lines.append(f"    … and {len(counted) - _SHOWN} places more")
    return lines


def loops(body: Lambda, around: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Equation]]:
    """Every loop with a carry in a body, with the loops around it (as text), outer before inner."""
    for equation in body.equations:
        here = around
        if "size" in equation.attributes and equation.bodies:
            here = (*around, f"{equation.op} over {equation.attributes['size']}")
            if equation.op in RECURRENT:
                yield around, equation
        for inner in equation.bodies:
            yield from loops(inner, here)


def work(body: Lambda) -> Counter[str]:
    """The operations of a body, those in the bodies within it too (under the loop's name)."""
    counted: Counter[str] = Counter()
    for equation in body.equations:
        counted[equation.op] += 1
        for inner in equation.bodies:
            counted.update({f"{equation.op}/{op}": n for op, n in work(inner).items()})
    return counted


def _loop_lines(body: Lambda) -> list[str]:
    lines = []
    for around, equation in loops(body):
        place = f" in {' in '.join(reversed(around))}" if around else ""
        where = f"   [{equation.source}]" if equation.source else ""
        lines.append(f"  {equation.op} over {equation.attributes['size']}{place}{where}")
        counted = work(equation.bodies[0])
        lines.append("    " + (", ".join(f"{op} × {n}" for op, n in sorted(counted.items())) or "nothing"))
    return lines or ["  there is no loop with a carry"]


def element_bytes(type_: ListType) -> int:
    """Bytes of one array of a type, without its list axes."""
    size = max(1, type_.dtype.bits // 8)
    for n in type_.shape:
        size *= n
    return size


def kept_bytes(compiled: Compiled) -> list[tuple[ListType, int]]:
    """The type of each residual, and its bytes per element of its lists."""
    return [(type_, element_bytes(type_)) for type_ in residual_types(compiled.pullback)]


def kept(compiled: Compiled, memory: str) -> list[str]:
    """The lines on what is kept between the forward and the backward pass."""
    lines = [f'kept for the backward pass (memory="{memory}")']
    totals: dict[str, int] = {}
    for type_, size in kept_bytes(compiled):
        axes = " · ".join(map(str, type_.axes))
        lines.append(f"  {type_}: {size} bytes{f' · {axes}' if axes else ''}")
        totals[axes] = totals.get(axes, 0) + size
    if not totals:
        return [*lines, "  nothing"]
    return [*lines, "  in all " + " + ".join(f"{n} · {axes}" if axes else str(n) for axes, n in totals.items()) + " bytes"]


def sizes_bytes(compiled: Compiled, extents: Mapping[str, int]) -> int:
    """The bytes kept in a call of the given sizes."""
    total = 0
    for type_, size in kept_bytes(compiled):
        for axis in type_.axes:
            size *= int(axis.evaluate(lambda name: extents[name]))
        total += size
    return total
