"""What random programs are made of: choices, types with the lengths of lists, terms, bodies of source text.

A generator asks `Choices` for every decision. Choices come from a seed, from a recorded list (to shrink a program that
fails) or from hypothesis; the smallest choice is always the simplest one, so that all three shrink towards small
programs.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

Option = TypeVar("Option")

LONGEST = 4
"""No list of an input is longer."""


class Choices:
    """Decisions, each a whole number below a bound; what was decided is kept in `taken`.

    Arguments:
        below: ``n -> a number from 0 to n - 1``.
    """

    def __init__(self, below: Callable[[int], int]):
        self._below = below
        self.taken: list[int] = []

    @classmethod
    def seeded(cls, seed: int) -> Choices:
        """Random choices."""
        return cls(random.Random(seed).randrange)

    @classmethod
    def replayed(cls, values: Sequence[int]) -> Choices:
        """Recorded choices, and the simplest ones after them."""
        given = iter(values)
        return cls(lambda n: min(next(given, 0), n - 1))

    def below(self, n: int) -> int:
        """A number from 0 to n - 1."""
        if n <= 1:
            return 0
        self.taken.append(self._below(n))
        return self.taken[-1]

    def between(self, low: int, high: int) -> int:
        """A number from low to high, both included."""
        return low + self.below(high - low + 1)

    def pick(self, options: Sequence[Option]) -> Option:
        """One of several."""
        return options[self.below(len(options))]

    def chance(self, percent: int) -> bool:
        """True so many times out of a hundred; False is the simpler."""
        return self.below(100) >= 100 - percent

    def weighted(self, options: Sequence[tuple[int, Option]]) -> Option:
        """One of several, each as often as its weight says; weight 0 never."""
        at = self.below(sum(weight for weight, _ in options))
        for weight, option in options:
            if at < weight:
                return option
            at -= weight
        raise AssertionError("a choice lies below the sum of the weights")


# --- lengths and types ------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Length:
    """The length of a list, known by identity: two lists pair when their lengths are one object.

    Attributes:
        least: the smallest value it may take; raised by what the program needs (`require`).
        most: the largest value that can be required of it.
        source: of which other length it is made, and ``n -> what n asks of that one``.
        known: whether it is known beforehand.
        inner: whether it is the source itself, as it is called inside of a loop.
    """

    least: int = 0
    most: int = LONGEST
    source: tuple[Length, Callable[[int], int]] | None = None
    known: bool = False
    inner: bool = False

    def reaches(self, n: int) -> bool:
        """Whether the length can be required to be at least n."""
        if n <= self.least:
            return True
        return self.source[0].reaches(self.source[1](n)) if self.source else n <= self.most

    def require(self, n: int) -> None:
        """Let the length be at least n."""
        if n > self.least:
            self.least = n
            if self.source:
                self.source[0].require(self.source[1](n))

    @property
    def key(self) -> Any:
        """What the length is called outside of all loops; lengths known beforehand are called by their value."""
        if self.source is not None and self.inner:
            return self.source[0].key
        return self.least if self.known else self

    @classmethod
    def fixed(cls, n: int) -> Length:
        """A length known beforehand."""
        return cls(n, n, known=True)

    def renamed(self) -> Length:
        """Another object for it: inside of a loop it is the length of one element."""
        return Length(self.least, self.most, (self, lambda n: n), self.known, inner=True)


@dataclass(frozen=True)
class Array:
    """A float array of a static shape."""

    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Class:
    """A whole number from 0 to count - 1."""

    count: int


@dataclass(frozen=True)
class List:
    """A list."""

    length: Length
    element: Any


@dataclass(frozen=True)
class Grid:
    """A grid of two dimensions, of float arrays."""

    lengths: tuple[Length, Length]
    element: Array


@dataclass(frozen=True)
class Product:
    """Several values. `form` is "tuple", "dict" or the name of a NamedTuple of the program."""

    parts: tuple[Any, ...]
    form: str = "tuple"
    fields: tuple[str, ...] = ()

    def access(self, text: str) -> list[str]:
        """The text of each part of a product of this type."""
        if self.form == "tuple":
            return [f"{text}[{i}]" for i in range(len(self.parts))]
        return [
            f"{text}[{name!r}]".replace("'", '"') if self.form == "dict" else f"{text}.{name}" for name in self.fields
        ]

    def make(self, parts: Sequence[str]) -> str:
        """The text of a product of these parts."""
        if self.form == "tuple":
            return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
        if self.form == "dict":
            return "{" + ", ".join(f'"{name}": {part}' for name, part in zip(self.fields, parts, strict=True)) + "}"
        return f"{self.form}({', '.join(f'{name}={part}' for name, part in zip(self.fields, parts, strict=True))})"


@dataclass(frozen=True)
class Tree:
    """A tree with a value at each node."""

    length: Length
    element: Any
    arity: int | None = None
    kinds: tuple[str, ...] = ()


def renamed(type_: Any, names: dict[Length, Length]) -> Any:
    """A type with other lengths; those that are not in the table stay."""
    if isinstance(type_, List):
        return List(names.get(type_.length, type_.length), renamed(type_.element, names))
    if isinstance(type_, Grid):
        return Grid(tuple(names.get(n, n) for n in type_.lengths), type_.element)
    if isinstance(type_, Product):
        return Product(tuple(renamed(part, names) for part in type_.parts), type_.form, type_.fields)
    return type_


def lengths_in(type_: Any) -> Iterator[Length]:
    """The lengths of the lists in a type."""
    if isinstance(type_, List):
        yield type_.length
        yield from lengths_in(type_.element)
    elif isinstance(type_, Grid):
        yield from type_.lengths
    elif isinstance(type_, Product):
        for part in type_.parts:
            yield from lengths_in(part)


def is_flat(type_: Any) -> bool:
    """Whether a type holds no lists."""
    return isinstance(type_, (Array, Class)) or (isinstance(type_, Product) and all(map(is_flat, type_.parts)))


# --- terms and bodies -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Term:
    """An expression of the program.

    Attributes:
        text: its source.
        type: its type.
        bound: its floats are no larger than about this.
    """

    text: str
    type: Any
    bound: float = 1.0

    @property
    def atom(self) -> str:
        """The text as it stands beside an operator."""
        depth = 0
        for at, sign in enumerate(self.text):
            depth += (sign in "([{") - (sign in ")]}")
            if depth == 0 and (sign == " " or (sign in "-" and at == 0)):
                return f"({self.text})"
        return self.text


@dataclass
class Body:
    """The body of a function of the program: its lines, and what can be named in it.

    Attributes:
        parent: the body around it.
        terms: what is bound here, the latest last.
        lines: its source, without indentation.
        depth: how many functions stand around it.
    """

    parent: Body | None = None
    terms: list[Term] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    @property
    def depth(self) -> int:
        return 0 if self.parent is None else self.parent.depth + 1

    def visible(self, kind: type | tuple[type, ...], test: Callable[[Any], bool] = lambda type_: True) -> list[Term]:
        """The terms of a kind of type, the nearest and latest first."""
        found = [t for t in reversed(self.terms) if isinstance(t.type, kind) and test(t.type)]
        return found if self.parent is None else [*found, *self.parent.visible(kind, test)]

    def add(self, term: Term) -> None:
        """Make a term visible, and the parts of it if it is a product."""
        self.terms.append(term)
        if isinstance(term.type, Product):
            for text, part in zip(term.type.access(term.text), term.type.parts, strict=True):
                self.add(Term(text, part, term.bound))


@dataclass(frozen=True)
class Program:
    """A random program.

    Attributes:
        source: Python source that defines `program` and `types`.
        types: the types of its inputs.
        choices: the decisions that it was made of.
        seed: of the inputs' values.
    """

    source: str
    types: tuple[Any, ...]
    choices: tuple[int, ...]
    seed: int

    def __repr__(self) -> str:
        return f"\n{self.source}\n# input values: seed {self.seed}\n"


class Names:
    """Fresh names: a hint and a number."""

    def __init__(self) -> None:
        self.counts: dict[str, Iterator[int]] = {}

    def fresh(self, hint: str) -> str:
        number = next(self.counts.setdefault(hint, itertools.count()))
        return f"{hint}{number}" if number else hint
