"""Carries rounded once: where a step takes a carry only to round it to half precision for a contraction, the rounded
value is carried beside it.

``scan (k . round) = scan k'`` whose carry is ``(s, round s)``: the numbers are the same, and what programs exchange, or
read block by block, is half as wide.
"""

from __future__ import annotations

from dataclasses import replace

from .flat import FlatEquation, FlatScan, FlatValue, Item, Reference


def with_rounded_carries(scan: FlatScan) -> FlatScan:
    """A scan whose steps find their carries rounded.

    Example:
        >>> [c.dtype for c in with_rounded_carries(scan).carries]
        ['f32', 'f32', 'bf16']
    """
    items: list[Item] = []
    carries, initial, following, last = list(scan.carries), list(scan.initial), list(scan.following), list(scan.last)
    for item in scan.items:
        if isinstance(item, FlatScan):
            items.append(with_rounded_carries(item))
            continue
        if not (isinstance(item, FlatEquation) and rounds_carry(item, scan)):
            items.append(item)
            continue
        place = scan.carries.index(item.operands[0].value)
        carries.append(item.output)
        initial.append(_rounded(item, scan.initial[place]))
        following.append(_rounded(item, scan.following[place]))
        last.append(replace(item.output, maker=None, role="last"))
    made = replace(
        scan,
        carries=tuple(carries),
        initial=tuple(initial),
        following=tuple(following),
        last=tuple(last),
        items=(*items, *(r.value.maker for r in following[len(scan.carries) :])),
    )
    return made


def rounds_carry(item: FlatEquation, scan: FlatScan) -> bool:
    """Whether an equation rounds a carry of a scan to half precision."""
    return (
        item.equation.op == "cast"
        and item.output.dtype in ("f16", "bf16")
        and item.operands[0].value in scan.carries
        and len(item.output.lead) == len(scan.levels)
    )


def _rounded(item: FlatEquation, reference: Reference) -> Reference:
    """What the equation makes of another value of its operand's type."""
    lead = tuple(level for level in reference.lead if level.axis is None)
    own = item.output.dims[len(item.output.lead) :]
    value = FlatValue(item.output.name, item.output.dtype, (*(x.size for x in lead), *own), lead)
    value.height = reference.value.height
    value.maker = FlatEquation(item.equation, (reference,), value)
    return Reference(value, lead)
