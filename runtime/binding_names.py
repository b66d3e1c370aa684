"""What the messages of `binding` call arguments, what was declared for them and what was given."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..compiler.program import Port
from ..compiler.types import is_namedtuple

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_GRIDS = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}


def argument(number: int, count: int) -> str:
    """How messages name an argument, counted from 0, of `count`."""
    if count == 1:
        return "the argument"
    return f"the {_ORDINALS[number]} argument" if number < len(_ORDINALS) else f"argument number {number + 1}"


def expected_shape(axes: Sequence[str], shape: Sequence[int]) -> str:
    """A tensor's axes as a user thinks of them.

    Example:
        >>> expected_shape(("B", "T"), (8,))
        '[batch, time, 8]'
    """
    grids = [name for name in axes if re.fullmatch(r"[XYZ]\d*", name)]
    shown = []
    for name in axes:
        if name == "B":
            shown.append("batch")
        elif name in grids and len(grids) in _GRIDS:
            shown.append(_GRIDS[len(grids)][grids.index(name)])
        elif re.fullmatch(r"T\d*", name):
            depth = sum(s.startswith("time") for s in shown)
            shown.append(f"time {depth + 1}" if depth else "time")
        else:
            shown.append("nodes" if re.fullmatch(r"N\d*", name) else name)
    return f"[{', '.join((*shown, *map(str, shape)))}]"


def show_port(port: Port, axes: Sequence[str]) -> str:
    """What is declared, as the tensors that are to be given."""
    if port.kind == "array":
        return f"a tensor {expected_shape(axes, port.type.shape)}"
    if port.kind == "list":
        return show_port(port.parts[0], (*axes, *map(str, port.sizes)))
    if port.kind == "tree":
        return "trees"
    parts = [show_port(part, axes) for part in port.parts]
    if isinstance(port.product, Mapping):
        return "a dict {" + ", ".join(f"{k!r}: {part}" for k, part in zip(port.product, parts, strict=True)) + "}"
    name = type(port.product).__name__ if is_namedtuple(port.product) else f"a tuple of {len(parts)}"
    return f"{name} ({', '.join(parts)})"


def show_value(value: Any) -> str:
    """What was given, in a few words."""
    if isinstance(value, Tensor):
        layout = "a nested tensor" if value.is_nested else "a tensor"
        return f"{layout} {list(value.shape)}"
    if isinstance(value, torch.nn.utils.rnn.PackedSequence):
        return "a PackedSequence"
    if isinstance(value, Mapping):
        return f"a dict with {', '.join(map(repr, value)) or 'nothing'}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
