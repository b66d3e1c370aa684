"""What a generated kernel is: its text, its arguments in order, its grid.

A kernel is data. It is made by `emit`, compiled ahead of time by `resources`, launched by the runtime; nothing here
imports torch or triton.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

from ..compiler.sizes import Size


@dataclass(frozen=True)
class Argument:
    """One argument of a kernel, in the order of the function's signature.

    Attributes:
        name: its name in the text.
        kind: "buffer" (a pointer to a value that is read or written), "scratch" (a pointer to memory of the launch,
            uninitialised), "counter" (a pointer to i32 zeros for grid barriers), "lengths" (a pointer to the i64 table
            of a ragged size) or "size" (a number: the extent of padded lists of a named size).
        dtype: the IR's name of the element type ("f32", "bf16", "i64", "bool" …); "i32" for sizes.
        extent: of a scratch or counter, the number of elements: factors, each a number, a size, or a `Tiles`.
        size: the name of the list size that a "size" or "lengths" argument is of.
        written: whether the kernel writes it.
    """

    name: str
    kind: str
    dtype: str
    extent: tuple[int | Size | Tiles, ...] = ()
    size: str = ""
    written: bool = False


@dataclass(frozen=True)
class Tiles:
    """The number of tiles of `block` that cover a product of extents, or `most` where they are more: one axis of a
    grid."""

    extents: tuple[int | Size, ...]
    block: int = 1
    most: int | None = None

    def count(self, lookup: Callable[[str], int]) -> int:
        total = prod(e if isinstance(e, int) else int(e.evaluate(lookup)) for e in self.extents)
        tiles = -(-total // self.block)
        return tiles if self.most is None else min(tiles, self.most)


Factors = tuple[int | Size | Tiles, ...]
"""A product: of numbers, list sizes and numbers of tiles."""


@dataclass(frozen=True)
class Account:
    """What a launch does, as sums of products; where lists are ragged, the most that it does.

    Attributes:
        read, written: bytes that loads and stores name, padding left out.
        operations: arithmetic on elements; a multiply-add of a contraction is two.
        barriers: barriers among programs of the grid that a program passes.

    Example:
        >>> total(kernel.account.read, {"B": 16, "T": 100}.__getitem__)
        104960
    """

    read: tuple[Factors, ...] = ()
    written: tuple[Factors, ...] = ()
    operations: tuple[Factors, ...] = ()
    barriers: tuple[Factors, ...] = ()


def total(terms: tuple[Factors, ...], lookup: Callable[[str], int]) -> int:
    """A sum of products, given the extents of the named sizes."""

    def value(factor: int | Size | Tiles) -> int:
        if isinstance(factor, Tiles):
            return factor.count(lookup)
        return factor if isinstance(factor, int) else int(factor.evaluate(lookup))

    return sum(prod(map(value, factors)) for factors in terms)


def collected(terms: Iterable[Factors]) -> tuple[Factors, ...]:
    """A sum with equal products taken together: one number in front of each."""
    found: dict[Factors, int] = {}
    for factors in terms:
        number = prod(f for f in factors if isinstance(f, int))
        rest = tuple(sorted((f for f in factors if not isinstance(f, int)), key=str))
        found[rest] = found.get(rest, 0) + number
    return tuple((number, *rest) for rest, number in found.items())


@dataclass(frozen=True, eq=False)
class Kernel:
    """A generated kernel.

    Attributes:
        name: the name of its function.
        source: the text of a module that defines it: imports, one ``@triton.jit`` function.
        header: comments above it that say where it comes from; no part of its identity.
        arguments: in order.
        grid: one to three axes.
        warps, stages: launch options.
        registers: how many registers a thread may have; None leaves it to the compiler, which would rather spill a few
            than hold fewer programs at once.
        cooperative: whether all programs of the grid must run at once (it has grid barriers).
        strategy: "pointwise", "contract", "resident", "streamed" or "cooperative".
        account: what a launch costs.
        why: how the strategy was chosen, for `explain`.
    """

    name: str
    source: str
    arguments: tuple[Argument, ...]
    grid: tuple[Tiles, ...]
    warps: int = 4
    stages: int = 2
    registers: int | None = None
    cooperative: bool = False
    strategy: str = "pointwise"
    header: str = ""
    account: Account = field(default_factory=Account)
    why: str = ""

    @cached_property
    def key(self) -> str:
        """A hash of everything that decides the machine code: the text, the types of its arguments, the options."""
        types = " ".join(f"{a.kind}:{a.dtype}" for a in self.arguments)
        options = f"{self.warps} {self.stages} {self.registers} {self.cooperative} {types}"
        return hashlib.sha256(f"{options}\n{self.source}".encode()).hexdigest()[:32]

    def programs(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The grid of a launch, given the extents of the named sizes."""
        return tuple(axis.count(sizes.__getitem__) for axis in self.grid)
