"""The combinators of the IR: one file per loop primitive, closed under transposition."""

from . import lists, map, reduce, resize, rows, scan, segments, switch, tree, window

__all__ = ["lists", "map", "reduce", "resize", "rows", "scan", "segments", "switch", "tree", "window"]
