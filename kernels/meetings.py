"""Where programs that share a tile of rows meet for what steps reduce over an axis that is spread over them: in the
step, for what each of them reduces or for all that is reduced; or behind a loop inside of a step, where its own steps
do not wait for the reduction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache

from ..compiler.primitives.contraction import split
from .axes import Axes
from .elements import ELEMENTWISE, REDUCTIONS, contracted_labels
from .flat import FlatEquation, FlatScan, FlatValue, Reference
from .parts import equations, packs

MOVES = frozenset("broadcast transpose reshape cast constant stop_gradient tap".split())
"""Operations that can follow on a reduction behind a loop, as elementwise ones can."""


def cut_classes(scans: Iterable[FlatScan], axes: Axes, spread: Iterable[int]) -> frozenset[int]:
    """Classes that are spread over programs, and the packed ones of them."""
    spread = frozenset(spread)
    return spread | packs(scans, axes, spread).keys()


def reduced_apart(item: FlatEquation, slot: int, made: Callable[[FlatValue], bool]) -> bool:
    """Whether programs that share an axis which an equation reduces over rather exchange what each of them reduces than
    what is reduced: always but for contractions, and of these for one with an operand that a step makes and that has
    all axes of the result beside this one. Those of a matrix and a vector of a step are such; those with weights are
    not, as the vector that they take is smaller than the sums of each program.

    Arguments:
        item: an equation of a step.
        slot: which of its reduced axes.
        made: whether a step makes a value.
    """
    if item.equation.op != "contract":
        return item.equation.op in REDUCTIONS
    left, right, output = split(item.equation.attributes["spec"])
    needed = {*output, contracted_labels(item.equation)[slot]}
    return any(
        made(reference.value) and needed <= set(labels) and set(item.output.lead) <= set(reference.lead)
        for labels, reference in zip((left, right), item.operands, strict=True)
    )


def made_in(scans: Iterable[FlatScan]) -> set[FlatValue]:
    """The values that steps make, and their carries."""
    found: set[FlatValue] = set()
    for scan in scans:
        found.update(scan.carries)
        inner = [item for item in scan.items if isinstance(item, FlatScan)]
        found.update(item.output for item in scan.items if isinstance(item, FlatEquation))
        found.update(value for item in inner for value in (*item.last, *item.outputs))
        found |= made_in(inner)
    return found


def cut_reductions(scans: Sequence[FlatScan], axes: Axes, spread: Iterable[int]) -> bool:
    """Whether steps reduce over an axis that is spread over programs, or over a packed one of such, so that the
    programs exchange what each reduces."""
    over, made = cut_classes(scans, axes, spread), made_in(scans)
    return any(
        axes.reduced(item, s) in over and reduced_apart(item, s, made.__contains__)
        for item in equations(scans)
        for s in range(len(item.reduced))
    )


def reductions_behind(
    scan: FlatScan, made: Callable[[FlatValue], bool], apart: Callable[[FlatEquation], bool]
) -> dict[int, frozenset[FlatValue]]:
    """The lists of a loop that can be computed behind it from reductions that programs take apart: the step does not
    wait for these, and only what is done to each element by itself comes after them.

    Arguments:
        scan: the loop.
        made: whether a value is made in a step, of this loop or of one around it.
        apart: whether programs take a reduction apart.

    Returns:
        Per place among what the loop emits, the reductions.
    """
    awaited: set[FlatValue] = set()
    makers = {item.output: item for item in scan.items if isinstance(item, FlatEquation)}

    def cone(value: FlatValue, found: set[FlatValue]) -> None:
        if value not in found:
            found.add(value)
            for reference in makers[value].operands if value in makers else ():
                cone(reference.value, found)

    def inside(step: FlatScan) -> Iterator[Reference]:
        yield from (*step.initial, *step.following, *step.emitted)
        for item in step.items:
            yield from inside(item) if isinstance(item, FlatScan) else item.operands

    inner = [reference for item in scan.items if isinstance(item, FlatScan) for reference in inside(item)]
    for reference in (*scan.following, *inner):
        cone(reference.value, awaited)

    @cache
    def leaves(value: FlatValue) -> frozenset[FlatValue] | None:
        item = makers.get(value)
        if item is None or value in awaited:
            return None if made(value) else frozenset()
        if item.reduced:
            return frozenset((value,)) if apart(item) else None
        if item.loops or item.equation.op not in ELEMENTWISE | MOVES:
            return None
        found = [leaves(reference.value) for reference in item.operands]
        return None if None in found else frozenset().union(*found)

    behind = {}
    for place, reference in enumerate(scan.emitted):
        found = leaves(reference.value) if reference.lead == reference.value.lead else None
        if found:
            behind[place] = found
        else:
            cone(reference.value, awaited)
    # What a list that stays in the loop is computed from is there for the others too.
    return {place: found for place, found in behind.items() if found.isdisjoint(awaited)}


def awaited_reductions(scans: Sequence[FlatScan], axes: Axes, spread: Iterable[int]) -> bool:
    """Whether a step without loops of its own waits for what it reduces over an axis that is spread over programs, or
    gives it to the caller."""
    over, made = cut_classes(scans, axes, spread), made_in(scans)

    def cut(item: FlatEquation) -> bool:
        return any(axes.reduced(item, s) in over for s in range(len(item.reduced)))

    def go(scan: FlatScan, around: bool) -> bool:
        inner = [item for item in scan.items if isinstance(item, FlatScan)]
        if inner:
            return any(go(item, True) for item in inner)
        found = reductions_behind(scan, made.__contains__, cut).values() if around else ()
        return any(cut(item) and item.output not in frozenset().union(*found) for item in equations([scan]))

    return any(go(scan, False) for scan in scans)
