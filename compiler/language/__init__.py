"""The combinators that a user writes. Each is an expression; its meaning is the IR that it appends."""

from .choices import greedy, sample, straight_through, uniform
from .derivatives import grad, value_and_grad
from .lists import as_element, indices, length, map, reduce, reverse, shift
from .naming import introduce
from .recurrences import feedback, fold, matched, scan, unfold
from .trees import cata, has_unknown, switch, tap
from .windows import window_map, windows

__all__ = [
    "as_element",
    "cata",
    "feedback",
    "fold",
    "grad",
    "greedy",
    "has_unknown",
    "indices",
    "introduce",
    "length",
    "map",
    "matched",
    "reduce",
    "reverse",
    "sample",
    "scan",
    "shift",
    "straight_through",
    "switch",
    "tap",
    "unfold",
    "uniform",
    "value_and_grad",
    "window_map",
    "windows",
]
