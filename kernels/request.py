"""What kernels are wanted for: the chip, the batch, the numerics, and what a test or a user asks for."""

from __future__ import annotations

from dataclasses import dataclass, field

from .emit import Numerics
from .targets import Target, target

STRATEGIES = ("resident", "streamed", "cooperative")

BATCHES = (32, 512)
"""Up to how many rows a batch is small, and up to how many it is of middle size: each kind has kernels of its own."""
_TYPICAL = (32, 128, 8192)
LEANEST = 4
"""How often a kernel that spills is planned again."""
READ_AGAIN = 3
"""From which time on it reads weights again in every step."""


def typical_rows(rows: int) -> int:
    """The number of rows that kernels for a batch of this many rows are planned for: one of three.

    Example:
        >>> typical_rows(100)
        128
    """
    return _TYPICAL[sum(rows > most for most in BATCHES)]


@dataclass(frozen=True)
class Request:
    """What kernels are wanted for.

    Attributes:
        target: the name of the chip.
        numerics: how contractions are computed.
        force: the strategy that scans get where it can hold them; None leaves it to the cost model.
        strict: whether a scan that this strategy cannot hold is an error.
        vendor: whether contractions outside of loops go to the vendor's library.
        block: the most elements of an axis, and rows, that are computed at once; None leaves it to the strategy.
        tiles: for how many tiles of rows at once there is memory where a step makes lists over segments; None: for as
            many as run at once, and where blocks are asked for one, so that tiles follow on each other.
        rows: for how many rows scans are planned, see `typical_rows`.
        lean: how often the compiler has found that the kernel spills registers: it gets more threads first, then holds
            less ahead, or fewer rows where no tensor core needs them, and in the end reads weights again in every step.
    """

    target: str = "sm_90"
    numerics: Numerics = field(default_factory=Numerics)
    force: str | None = None
    strict: bool = False
    vendor: bool = True
    block: int | None = None
    tiles: int | None = None
    rows: int = _TYPICAL[0]
    lean: int = 0

    @property
    def chip(self) -> Target:
        return target(self.target)
