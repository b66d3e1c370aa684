"""What one launch computes: the values that it stores, its loops, and what lies in memory before it runs."""

from __future__ import annotations

from dataclasses import dataclass

from .expressions import Dimension
from .flat import FlatEquation, FlatScan, FlatValue, Item


@dataclass(frozen=True)
class Alias:
    """A value that lies inside of another: along dimension `dim`, from `offset` on."""

    buffer: FlatValue
    dim: int
    offset: int


@dataclass(frozen=True)
class Group:
    """What one kernel computes.

    Attributes:
        rows: the list axes whose elements are independent: the iteration space of the grid.
        targets: values made by equations, to be stored.
        scans: scans whose levels are the rows.
        available: values that lie in memory before the kernel runs.
        wanted: of the scans' last carries and lists, those to be stored.
    """

    rows: tuple[Dimension, ...]
    targets: tuple[FlatValue, ...]
    scans: tuple[FlatScan, ...]
    available: frozenset[FlatValue]
    wanted: frozenset[FlatValue]


def members(group: Group) -> list[Item]:
    """The items of a kernel: its scans, and what it computes by itself of what lies in memory."""
    found: dict[Item, None] = {}
    seen: set[FlatValue] = set()

    def need(value: FlatValue) -> None:
        if value in seen or value in group.available or not isinstance(value.maker, FlatEquation):
            return
        seen.add(value)
        for reference in value.maker.operands:
            need(reference.value)
        found[value.maker] = None

    def inside(scan: FlatScan) -> None:
        made = {carry for carry in scan.carries}
        seen.update(made)
        for item in scan.items:
            seen.update((item.output,) if isinstance(item, FlatEquation) else (*item.last, *item.outputs))
        for item in scan.items:
            if isinstance(item, FlatScan):
                inside(item)
            else:
                for reference in item.operands:
                    need(reference.value)
        for reference in (*scan.initial, *scan.following, *scan.emitted):
            need(reference.value)

    for value in group.targets:
        need(value)
    for scan in group.scans:
        inside(scan)
        found[scan] = None
    return list(found)
