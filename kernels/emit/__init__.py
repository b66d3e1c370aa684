"""Loop tree → Triton text."""

from .kernel import emit
from .writer import ORDER_OF, Numerics

__all__ = ["ORDER_OF", "Numerics", "emit"]
