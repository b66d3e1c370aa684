"""What the compiler did with a program, for a person to read: `model.explain()`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from ..compiler.errors import Source
from ..compiler.ir import Equation, Graph, Lambda
from ..compiler.laws.law import RECURRENT, Firing, Refusal
from ..compiler.pipeline import Compiled
from ..compiler.program import Entry
from ..compiler.types import ListType

__all__ = ["MEANINGS", "explain", "fired", "kept_bytes", "loops", "place", "table", "times", "work"]

MEANINGS = {
    "input hoist": "what needs no carry is computed before the loop, for all elements at once",
    "output sink": "what does not feed the carry is computed after the loop, for all elements at once",
    "accumulator sink": "a sum over steps, a weight's gradient above all, is one matrix product after the loop",
    "a carry that is only a sum": "a running total leaves the loop",
    "a scan without a carry is a map": "a loop that carries nothing runs for all elements at once",
    "invariants out of loops": "what is the same in every step is computed once",
    "steady terms of a sum": "terms that need no carry are added first, so that they can leave the loop",
    "contraction of a concatenation": "a product with joined vectors is a sum of products with each of them",
    "slice of a contraction": "a packed product is computed part by part, where the parts are used",
    "map fusion": "neighbouring maps became one",
    "contractions side by side": "several small matrix products became one large one",
    "contraction under a map": "a product over a list was put into a map, to join others",
    "contraction out of a switch": "a product in a branch is computed for all nodes at once",
    "sum over nodes of a sum over children": "a sum over all children is one matrix product over the nodes",
}
"""The laws that move work, in plain words. The others tidy up."""

_PLACES = 6  # shown for a law
_DETAILS = 4  # shown for a place
_WIDTH = 72  # of a shown line of the user's program


def explain(entry: Entry, compiled: Compiled, memory: str, brief: bool = False) -> str:
    """The report of one entry point.

    Arguments:
        entry: the traced entry point.
        compiled: its optimised graphs.
        memory: the residual choice.
        brief: leave out the places in the user's program.

    Returns:
        A text: the type; forward and backward, what each loop does in a step, which laws moved work where, and which
        were in question and did not apply, and why; what is kept for the backward pass.
    """
    lines = [entry.signature]
    lines += ["", "forward", *_graph_lines(compiled.forward, brief)]
    if compiled.backward is None or not compiled.backward.body.results:
        return "\n".join([*lines, "", "backward", "  there is none: no output has a derivative"])
    lines += ["", "backward", *_graph_lines(compiled.backward, brief)]
    lines += ["", f'kept from forward to backward (memory="{memory}")', *_kept_lines(compiled)]
    return "\n".join(lines)


def fired(graphs: Iterable[Graph]) -> Counter[str]:
    """How often each law was applied."""
    return Counter(note.law for graph in graphs for note in graph.notes if isinstance(note, Firing))


def _graph_lines(graph: Graph, brief: bool) -> list[str]:
    refusals = [] if brief else _refusal_lines(graph.notes)
    return [*_loop_lines(graph.body, brief), *_law_lines(graph.notes, brief), *refusals]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under their names, each as wide as it must be."""
    cells = [tuple(head), *map(tuple, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    cells.insert(1, tuple("-" * width for width in widths[:-1]) + ("-" * len(head[-1]),))
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells)


# --- places in the user's program -------------------------------------------------------------------------------------


def place(source: Source | None) -> str:
    """A user's line, its file relative to the working directory where it lies below it."""
    if source is None:
        return "made by the compiler"
    below = source.file.startswith(os.getcwd() + os.sep)
    file = os.path.relpath(source.file) if below else source.file
    text = source.text
    return f"{file}:{source.line}" + (f"   {text if len(text) <= _WIDTH else text[: _WIDTH - 1] + '…'}" if text else "")


def times(count: int) -> str:
    """How often something is there, in front of it; nothing where it is there once."""
    return f"{count} × " if count > 1 else ""


def _grouped(notes: Sequence[tuple[Source | None, str]]) -> list[str]:
    """Lines for notes: each place once, below it what happened there, equal things counted."""
    places: dict[str, Counter[str]] = {}
    for source, text in notes:
        places.setdefault(place(source), Counter())[text] += 1
    lines = []
    for shown, found in list(places.items())[:_PLACES]:
        lines.append(f"      {shown}")
        lines += [f"        {times(count)}{text}" for text, count in found.most_common(_DETAILS)]
        if len(found) > _DETAILS:
            lines.append(f"        and {sum(n for _, n in found.most_common()[_DETAILS:])} more here")
    if len(places) > _PLACES:
        lines.append(f"      and at {len(places) - _PLACES} other places")
    return lines


# --- laws -------------------------------------------------------------------------------------------------------------


def _law_lines(notes: Sequence[object], brief: bool) -> list[str]:
    by_law: dict[str, list[Firing]] = {}
    for note in notes:
        if isinstance(note, Firing):
            by_law.setdefault(note.law, []).append(note)
    moving = [law for law in MEANINGS if law in by_law]
    lines = ["  laws that moved work" if moving else "  no law moved work"]
    for law in moving:
        lines.append(f"    {law}: {MEANINGS[law]}")
        lines += [] if brief else _grouped([(note.where, note.detail) for note in by_law[law]])
    tidying = {law: len(found) for law, found in by_law.items() if law not in MEANINGS}
    if tidying and not brief:
        lines.append("  laws that tidied up")
        lines += _wrapped([f"{law} ({count})" for law, count in sorted(tidying.items(), key=lambda item: -item[1])])
    return lines


def _refusal_lines(notes: Sequence[object]) -> list[str]:
    by_law: dict[str, list[Refusal]] = {}
    for note in notes:
        if isinstance(note, Refusal):
            by_law.setdefault(note.law, []).append(note)
    lines = ["  laws that were in question and did not apply"] if by_law else []
    for law, found in by_law.items():
        lines += [f"    {law}", *_grouped([(note.where, note.reason) for note in found])]
    return lines


def _wrapped(items: Sequence[str], indent: str = "    ", width: int = 112) -> list[str]:
    lines = [indent]
    for position, item in enumerate(items):
        item += "," if position < len(items) - 1 else ""
        if len(lines[-1]) + len(item) > width and lines[-1] != indent:
            lines.append(indent)
        lines[-1] += item if lines[-1] == indent else f" {item}"
    return lines


# --- loops ------------------------------------------------------------------------------------------------------------


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
    """The operations of a body, those in the bodies within it too (under the loop's name, ``map/add``)."""
    counted: Counter[str] = Counter()
    for equation in body.equations:
        counted[equation.op] += 1
        for inner in equation.bodies:
            counted.update({f"{equation.op}/{op}": n for op, n in work(inner).items()})
    return counted


def _work_text(body: Lambda) -> str:
    """The operations of a step in a line: matrix products first, with their shapes; what only copies is left out."""
    counted: Counter[str] = Counter()

    def count(inner: Lambda, prefix: str) -> None:
        for equation in inner.equations:
            if equation.op == "contract":
                shapes = " with ".join("×".join(map(str, v.type.shape)) or "number" for v in equation.inputs)
                counted[f"{prefix}contract {shapes}"] += 1
            elif equation.op not in ("constant", "broadcast") and not equation.bodies:
                counted[prefix + equation.op] += 1
            for nested in equation.bodies:
                count(nested, f"{prefix}{equation.op}: ")

    count(body, "")
    ordered = sorted(counted, key=lambda op: ("contract" not in op, -counted[op], op))
    return ", ".join(times(counted[op]) + op for op in ordered) or "nothing"


def _loop_lines(body: Lambda, brief: bool) -> list[str]:
    found: Counter[tuple[str, tuple[str, ...]]] = Counter()
    for around, equation in loops(body):
        text = " in ".join((f"{equation.op} over {equation.attributes['size']}", *reversed(around)))
        steps = [_work_text(inner) for inner in equation.bodies]
        found[text if brief else f"{text}   {place(equation.source)}", tuple(steps)] += 1
    lines = []
    for (text, steps), count in found.items():
        lines.append(f"  {times(count)}{text}")
        for step in steps:
            first, *more = _wrapped(step.split(", "), "      ")
            lines += [f"    each step: {first.strip()}", *more]
    return lines or ["  no loop with a carry"]


# --- residuals --------------------------------------------------------------------------------------------------------


def kept_bytes(compiled: Compiled) -> list[tuple[ListType, int]]:
    """The type of each residual, and its bytes for one element of its lists."""
    found = []
    for type_ in compiled.residual_types:
        size = max(1, type_.dtype.bits // 8)
        for n in type_.shape:
            size *= n
        found.append((type_, size))
    return found


def _kept_lines(compiled: Compiled) -> list[str]:
    kinds: Counter[ListType] = Counter()
    totals: Counter[str] = Counter()
    for type_, size in kept_bytes(compiled):
        kinds[type_] += 1
        totals[" · ".join(map(str, type_.axes))] += size
    if not kinds:
        return ["  nothing but inputs"]
    lines = [f"  {count:>3} × {type_}" for type_, count in kinds.items()]
    sums = [f"{n:,} · {axes}" if axes else f"{n:,}" for axes, n in totals.items()]
    return [*lines, f"  in all {' + '.join(sums)} bytes"]
