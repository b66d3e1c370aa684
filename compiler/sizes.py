"""Sizes of lists: names bound once per call, constants, and sizes derived from them.

A size is one of
- `Named("T")`: bound by an input's extent (or by a table of lengths), or by the equation that makes the list;
- `Constant(n)`;
- `Quotient(base, offset, divisor)`: ``max(0, (base + offset) // divisor)``, the size that windows and segments derive.

Sizes are compared structurally. `Sizes` is the union-find that `zip` and `map` unify them in while a program is traced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import SizeError


class Size:
    """The number of elements of a list; see the module's docstring."""

    def plus(self, offset: int) -> Size:
        """This size with `offset` added (clipped at zero when evaluated)."""
        return self.quotient(offset, 1)

    def quotient(self, offset: int, divisor: int) -> Size:
        """``max(0, (self + offset) // divisor)`` in its simplest form."""
        if divisor == 1 and offset == 0:
            return self
        return Quotient(self, offset, divisor)

    def evaluate(self, lookup: Callable[[str], object]) -> object:
        """The size's value, given the values of its names (integers, or arrays of lengths with `clip(min=0)`)."""
        raise NotImplementedError

    def names(self) -> frozenset[str]:
        """The names that this size depends on."""
        raise NotImplementedError


@dataclass(frozen=True)
class Named(Size):
    name: str

    def evaluate(self, lookup: Callable[[str], object]) -> object:
        return lookup(self.name)

    def names(self) -> frozenset[str]:
        return frozenset((self.name,))

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Constant(Size):
    value: int

    def evaluate(self, lookup: Callable[[str], object]) -> object:
        return self.value

    def quotient(self, offset: int, divisor: int) -> Size:
        return Constant(max(0, (self.value + offset) // divisor))

    def names(self) -> frozenset[str]:
        return frozenset()

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class Quotient(Size):
    base: Size
    offset: int
    divisor: int

    def evaluate(self, lookup: Callable[[str], object]) -> object:
        value = (self.base.evaluate(lookup) + self.offset) // self.divisor
        return max(0, value) if isinstance(value, int) else value.clip(min=0)

    def quotient(self, offset: int, divisor: int) -> Size:
        # A clipped size must not be lifted above zero again, so only shrinking offsets merge.
        if self.divisor == 1 and (self.offset >= 0 or offset <= 0) and self.offset + offset != 0:
            return Quotient(self.base, self.offset + offset, divisor)
        if self.divisor == 1 and self.offset >= 0 and self.offset + offset == 0:
            return self.base.quotient(0, divisor)
        return super().quotient(offset, divisor)

    def names(self) -> frozenset[str]:
        return self.base.names()

    def __str__(self) -> str:
        sum_ = f"({self.base}{self.offset:+d})" if self.offset else str(self.base)
        return sum_ if self.divisor == 1 else f"({sum_}//{self.divisor})"


# --- storage ----------------------------------------------------------------------------------------------------------

ROWS_OF, TIMES_OF, TOTAL_OF = "rows of ", "times of ", "total of "
"""In front of the name of a flat size: where the list of each row begins, i64 of an entry per row; where each place in
a list stands from there, i64 of an entry per place (left out where that is the place itself); how many elements there
are."""


def total_of(name: str) -> Named:
    """The number of elements of all lists of a flat size."""
    return Named(TOTAL_OF + name)


def flat_size(dims: Sequence[object], flat: Mapping[str, str]) -> str | None:
    """The flat size whose lists a tensor of these dims holds without padding; None where it is an ordinary tensor.

    Arguments:
        dims: sizes and numbers, lists in front.
        flat: per flat size, the size that it varies with.
    """
    if len(dims) < 2 or not isinstance(dims[0], Named) or not isinstance(dims[1], Named):
        return None
    return dims[1].name if flat.get(dims[1].name) == dims[0].name else None


def stored(dims: Sequence[Any], flat: Mapping[str, str]) -> tuple[Any, ...]:
    """The dims that a tensor has in memory: rows and the places of flat lists in them are one dim.

    Example:
        >>> stored((Named("B"), Named("T"), 4), {"T": "B"})
        (Named(name='total of T'), 4)
    """
    name = flat_size(dims, flat)
    return tuple(dims) if name is None else (total_of(name), *dims[2:])


# --- unification ------------------------------------------------------------------------------------------------------


def unclipped_difference(left: Size, right: Size) -> int | None:
    """``left - right`` when it is the same for every large enough value of the names, otherwise None."""

    def affine(size: Size) -> tuple[Size | None, int]:
        if isinstance(size, Constant):
            return None, size.value
        if isinstance(size, Quotient) and size.divisor == 1:
            base, offset = affine(size.base)
            return base, offset + size.offset
        return size, 0

    (left_base, left_offset), (right_base, right_offset) = affine(left), affine(right)
    return left_offset - right_offset if left_base == right_base else None


@dataclass
class Sizes:
    """Sizes made equal while a program is traced.

    Only a name that an input binds gives way to another size, and only to one that is known wherever the name is: the
    name's lists are then of that size from the start. Other pairs stay two sizes; the caller relabels one of the lists
    (`resize`), which checks them where it runs.

    Attributes:
        over: per name that an input binds, the axes (as text) of the lists around it.
        mapping: from a name that gave way to the size that stands for it.
        checks: pairs that must prove equal when a call binds the names, and the expression that made them so.
        counters: how often each hint was used for a name.
    """

    over: dict[str, tuple[str, ...]] = field(default_factory=dict)
    mapping: dict[str, Size] = field(default_factory=dict)
    checks: list[tuple[Size, Size, str]] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)

    def fresh(self, hint: str) -> Named:
        """A new name."""
        count = self.counters.get(hint, 0)
        self.counters[hint] = count + 1
        return Named(f"{hint}{count}" if count else hint)

    def resolve(self, size: Size) -> Size:
        """The size that stands for `size`."""
        if isinstance(size, Named):
            return self.resolve(self.mapping[size.name]) if size.name in self.mapping else size
        if isinstance(size, Quotient):
            base = self.resolve(size.base)
            return size if base == size.base else self.resolve(base.quotient(size.offset, size.divisor))
        return size

    def merge(self, left: Size, right: Size, where: str) -> bool:
        """Make two sizes one, if one of them is an input's name that can give way.

        Returns:
            Whether the two are one size now; a call checks it.

        Raises:
            SizeError: the sizes can never be equal.
        """
        left, right = self.resolve(left), self.resolve(right)
        if left == right:
            return True
        difference = unclipped_difference(left, right)
        if difference is not None:
            raise SizeError(
                f"{where}: a list of size {left} stands beside one of size {right}, and these are never equal "
                f"(they differ by {abs(difference)}). Pad the shorter one or drop elements of the longer one"
            )
        for name, other in ((right, left), (left, right)):
            if self._gives_way(name, other):
                self.checks.append((name, other, where))
                self.mapping[name.name] = other
                return True
        return False

    def _gives_way(self, name: Size, other: Size) -> bool:
        if not isinstance(name, Named) or name.name not in self.over or name.name in other.names():
            return False
        around = self.over[name.name]
        return all(n in self.over and self.over[n] == around[: len(self.over[n])] for n in other.names())
