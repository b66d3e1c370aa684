"""The primitives: one record each, grouped by what they do."""

from . import contraction, elementwise, indexing, random, reduction, structure

__all__ = ["contraction", "elementwise", "indexing", "random", "reduction", "structure"]
