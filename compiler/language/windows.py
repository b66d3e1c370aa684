"""Windows of lists and grids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import types
from ..errors import StructureError, WindowError
from ..expression import Expression, call, check_function, of_one, show_function
from ..scope import current
from ..trace import leaves, map_all, require_elements, with_leaves
from ..values import TracedList, type_of


def _per_dimension(value: Any, dims: int, name: str, least: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * dims
    if len(values) != dims:
        raise WindowError(f"{name}= has {len(values)} entries for {dims} dimension{'s' * (dims > 1)}")
    if any(not isinstance(v, (int, np.integer)) or isinstance(v, bool) or v < least for v in values):
        raise WindowError(f"{name}= is whole numbers of at least {least}; got {value!r}")
    return tuple(int(v) for v in values)


def _padding(padding: Any, spans: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    dims, given = len(spans), padding
    if padding == "valid":
        return (0,) * dims, (0,) * dims
    if padding == "same":
        low = tuple((span - 1) // 2 for span in spans)
        return low, tuple(span - 1 - before for span, before in zip(spans, low, strict=True))
    if padding == "causal":
        return tuple(span - 1 for span in spans), (0,) * dims
    if isinstance(padding, (int, np.integer)):
        padding = (int(padding),) * dims
    if isinstance(padding, (tuple, list)):
        if dims == 1 and len(padding) == 2 and not any(isinstance(p, (tuple, list)) for p in padding):
            padding = (padding,)
        pairs = [tuple(p) if isinstance(p, (tuple, list)) else (p, p) for p in padding]
        if len(pairs) == dims and all(len(p) == 2 and _are_counts(p) for p in pairs):
            return tuple(int(p[0]) for p in pairs), tuple(int(p[1]) for p in pairs)
    raise WindowError(
        "padding= is 'valid', 'same', 'causal', a number, or (before, after) per dimension, not negative; got "
        f"{given!r}"
    )


def _are_counts(numbers: Sequence[Any]) -> bool:
    return all(isinstance(n, (int, np.integer)) and n >= 0 for n in numbers)


def windows(
    xs: Any, size: Any, stride: Any = 1, dilation: Any = 1, padding: Any = "valid", fill: float = 0
) -> TracedList:
    """The windows of a list or grid: each an array ``[size…, *element]``; see `window_map`."""
    xs = require_elements(xs, "ff.window_map")
    dims = len(xs._sizes)
    window = _per_dimension(size, dims, "size", 1)
    steps, gaps = _per_dimension(stride, dims, "stride", 1), _per_dimension(dilation, dims, "dilation", 1)
    if not isinstance(fill, (int, float, np.number)):
        raise WindowError(f"fill= is a number; got {fill!r}")
    low, high = _padding(padding, [g * (w - 1) + 1 for g, w in zip(gaps, window, strict=True)])
    if any(
        n >= w for n, w in zip(high, [g * (w - 1) + 1 for g, w in zip(gaps, window, strict=True)], strict=True)
    ) and np.isinf(fill):
        raise WindowError(
            "with this padding a window may lie in the padding alone, whose maximum is no number; pad less than a "
            "window"
        )
    scope, views = current(), []
    for value in leaves(xs.content):
        if len(value.type.axes) != dims:
            raise StructureError(f"ff.window_map takes grids of arrays; {types.show(type_of(xs))} holds lists")
        views.append(scope("view", value, window=window, stride=steps, dilation=gaps, low=low, high=high, fill=fill))
    sizes = views[0].type.axes
    return TracedList(sizes, with_leaves(xs.content, iter(views)), xs.grid)


def window_map(
    f: Any, size: Any, stride: Any = 1, dilation: Any = 1, padding: Any = "valid", fill: float = 0
) -> Expression:
    """Apply a function to every window of a list or grid.

    Arguments:
        f: a window, an array ``[size…, channels]`` (``[size…, *element]``), to a result.
        size: the window's extent, a number or one per dimension.
        stride: from one window to the next.
        dilation: from one element of a window to the next.
        padding: "valid" (none), "same" (as many windows as elements at stride 1, the odd one after), "causal" (all
            before),
            a number, or (before, after) per dimension.
        fill: what padding holds.

    Returns:
        An expression ``Grid[a] → Grid[b]``.

    Raises:
        WindowError: a setting has no meaning; (in the call) a window is larger than its padded input.

    Example:
        >>> smooth = window_map(lambda w: mean(w, axis=0), 3, padding="same")
    """
    check_function(f, "ff.window_map")

    def apply(xs: Any) -> Any:
        return map_all(windows(xs, size, stride, dilation, padding, fill), lambda window: call(f, window))

    return of_one(apply, f"window_map({show_function(f)}, {size})")
