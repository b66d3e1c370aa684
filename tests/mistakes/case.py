"""What a case is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import foldfuse as ff


@dataclass(frozen=True)
class Case:
    """A mistake.

    Attributes:
        name: what it is called in the tests' names.
        make: makes it.
        error: the class of the error.
        says: what the message must contain.
    """

    name: str
    make: Callable[[], object]
    error: type[ff.FoldfuseError]
    says: tuple[str, ...]


CASES: list[Case] = []


def mistake(error: type[ff.FoldfuseError], *says: str) -> Callable[[Callable[[], object]], Callable[[], object]]:
    """Enter a function that makes a mistake."""

    def enter(make: Callable[[], object]) -> Callable[[], object]:
        subject = make.__module__.rsplit(".", 1)[-1]
        CASES.append(Case(f"{subject}-{make.__name__}", make, error, says))
        return make

    return enter
