"""The list sizes of one call: what the arguments show of each, whether they agree, and what the graph is given.

Where lists of one length are padded to different extents, the longest is taken and the others get zeros: so no table
ever points behind the tensor that it belongs to, whatever lengths lie on a device and cannot be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..compiler.combinators.window import check_windows
from ..compiler.errors import SizeError
from ..compiler.ir import Equation, Graph, sub_equations
from ..compiler.program import Entry, Port
from ..compiler.sizes import Named, Size
from .dynamo import constant_result
from .flat_lists import Flat

__all__ = ["Level", "Seen", "Sizes", "fit", "settle"]


class Level(NamedTuple):
    """The lengths of the lists at one depth: the table, the table on the CPU where it is known there, and the form of
    the list where it is packed or jagged."""

    table: Tensor
    host: Tensor | None
    flat: Flat | None


class Seen(NamedTuple):
    """What one argument shows of a size: the extent of its tensor, and its lengths where it is ragged."""

    place: str
    extent: int
    level: Level | None


class Sizes(NamedTuple):
    """The sizes of a call, by name: the longest; the lengths where lists are ragged; how the first argument that has
    the size came in (absent: padded)."""

    extents: dict[str, int]
    levels: dict[str, Level]
    forms: dict[str, Level]


def fit(tensor: Tensor, extents: Sequence[int | None]) -> Tensor:
    """A tensor with its first axes cut, or padded with zeros, to the given extents; None leaves an axis as it is."""
    spread: list[int] = []
    for axis, extent in enumerate(extents):
        found = tensor.size(axis)
        if extent is not None and found > extent:
            tensor = tensor.narrow(axis, 0, extent)
        spread += [0, extent - found if extent is not None and found < extent else 0]
    if not any(spread):
        return tensor
    spread = [0, 0] * (tensor.dim() - len(extents)) + [n for pair in _pairs(spread)[::-1] for n in pair]
    return pad(tensor, spread)


def _pairs(numbers: list[int]) -> list[list[int]]:
    return [numbers[i : i + 2] for i in range(0, len(numbers), 2)]


def settle(entry: Entry, seen: Mapping[str, Sequence[Seen]]) -> Sizes:
    """One extent and at most one table for every size that the graph declares.

    Arguments:
        entry: the entry point that is called.
        seen: per name, what the arguments show, in their order.

    Raises:
        SizeError: arguments that must agree do not. WindowError: a window is larger than its padded input.
    """
    for name, group in seen.items():
        for other in group[1:]:
            _check_equal(name, group[0], other)
    for left, right, where in entry.graph.checks:
        _check_pair(left, right, where, seen)
    sizes = Sizes({}, {}, {})
    names = _declared_names(entry.graph, entry.inputs, entry)
    for declaration in entry.graph.sizes:
        # Names that the program made one stand in the order of the arguments.
        group = [each for name in names.get(declaration.name, ()) for each in seen.get(name, ())]
        if not group:
            continue
        sizes.extents[declaration.name] = max(each.extent for each in group)
        level = next((each.level for each in group if each.level is not None), None)
        if level is None:
            continue
        if level.table.dim() != len(declaration.over):
            raise SizeError(
                f"lists of the size {declaration.name} stand at several depths, {group[0].place} among them, so they "
                "cannot be ragged. Give padded tensors, or declare the sizes under different names"
            )
        sizes.levels[declaration.name] = level
        if group[0].level is not None:
            sizes.forms[declaration.name] = group[0].level
    for equation in _windows(entry.graph, _arities(entry.inputs)):
        check_windows(equation, lambda size: size.evaluate(sizes.extents.__getitem__))
    return sizes


# --- agreement --------------------------------------------------------------------------------------------------------


def _value(seen: Seen) -> Any:
    """A size as it can be compared: an int, a table on the CPU, or None where it lies on a device only."""
    return seen.extent if seen.level is None else seen.level.host


def _difference(left: Any, right: Any) -> tuple[str, int, int] | None:
    """Where two sizes differ, and how: None where they agree, or cannot be compared without waiting for a device."""
    if left is None or right is None or left is right:
        return None
    if not isinstance(left, Tensor) and not isinstance(right, Tensor):
        return ("", left, right) if left != right else None
    if torch.compiler.is_compiling():
        return None
    left, right = torch.as_tensor(left), torch.as_tensor(right)
    if left.dim() == right.dim():
        # Tables of lists that are padded differently further out: behind the end of those there are no lists.
        shape = [max(pair) for pair in zip(left.shape, right.shape, strict=True)]
        left, right = fit(left, shape), fit(right, shape)
    left, right = torch.broadcast_tensors(left, right)
    wrong = (left != right).nonzero()
    if not len(wrong):
        return None
    at = tuple(wrong[0].tolist())
    row = f" in row {at[0]}" + "".join(f", inner list {i}" for i in at[1:])
    return row, int(left[at]), int(right[at])


def _check_equal(name: str, first: Seen, other: Seen) -> None:
    found = _difference(_value(first), _value(other))
    if found is None:
        return
    where, left, right = found
    if name == "B":
        raise SizeError(
            f"{first.place} holds {left} examples, {other.place} {right}. Give all arguments the same batch (the first "
            "axis)"
        )
    raise SizeError(
        f"{first.place} and {other.place} are lists of one length ({name}), but have {left} and {right} "
        f"elements{where}. Give them equal lengths"
    )


def _check_pair(left: Size, right: Size, where: str, seen: Mapping[str, Sequence[Seen]]) -> None:
    """Two sizes that the program made one."""
    if not (left.names() | right.names()) <= seen.keys():
        return  # the program determines one itself
    if any(_value(seen[name][0]) is None for name in left.names() | right.names()):
        return
    found = _difference(*(size.evaluate(lambda name: _value(seen[name][0])) for size in (left, right)))
    if found is None:
        return
    row, *numbers = found
    described = []
    for size, number in zip((left, right), numbers, strict=True):
        places = " and ".join(seen[name][0].place for name in sorted(size.names()))
        derived = "" if isinstance(size, Named) or not places else f" (as {size})"
        described.append(f"{number} from {places}{derived}" if places else f"{number} in the program")
    raise SizeError(
        f"{where} takes lists of one length, but got {' and '.join(described)}{row}. Give them equal lengths"
    )


# --- what an entry says about its sizes -------------------------------------------------------------------------------


def _declared_names(graph: Graph, ports: Sequence[Port], entry: Entry) -> dict[str, list[str]]:
    """Per declared size, the names that inputs have for it."""
    first = len(entry.parameters) + entry.seeded
    found: dict[str, list[str]] = {"B": ["B"]} if entry.batched else {}

    def visit(port: Port, axes: tuple[str, ...]) -> None:
        if port.kind in ("list", "tree"):
            if port.kind == "tree":
                axes = (*axes, str(port.sizes[0]))
                for size in port.sizes:
                    found.setdefault(str(size), []).append(str(size))
            else:
                axes = (*axes, *map(str, port.sizes))
        if port.kind == "array":
            resolved = graph.body.parameters[first + port.leaf].type.axes[entry.batched :]
            for name, size in zip(axes, resolved, strict=True):
                names = found.setdefault(str(size), [])
                if name not in names:
                    names.append(name)
        for part in port.parts:
            visit(part, axes)

    for port in ports:
        visit(port, ())
    return found


def _arities(ports: Sequence[Port]) -> frozenset[str]:
    """The names of the sizes of lists of children: windows over them are as short as the trees are."""
    own = frozenset(str(port.sizes[1]) for port in ports if port.kind == "tree")
    return own.union(*(_arities(port.parts) for port in ports))


_WINDOWS: WeakKeyDictionary[Graph, tuple[Equation, ...]] = WeakKeyDictionary()


@constant_result
def _windows(graph: Graph, arities: frozenset[str]) -> tuple[Equation, ...]:
    """The window equations of a graph over lists whose sizes the inputs determine."""
    if graph not in _WINDOWS:
        known = {size.name for size in graph.sizes} - arities
        _WINDOWS[graph] = tuple(
            equation
            for equation in sub_equations(graph.body)
            if equation.op == "view" and frozenset().union(*(s.names() for s in equation.inputs[0].type.axes)) <= known
        )
    return _WINDOWS[graph]
