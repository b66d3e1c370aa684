"""Lists of tuples and tuples of lists: `zip`, `unzip`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from .. import types
from ..errors import StructureError, TraceError
from ..trace import plain, unify_lists
from ..values import NamedProduct, TracedList, Unknown, type_of, unpacked_into
from .lifting import word


@word
def zip_(*lists: Any) -> TracedList:
    """Lists of one size as a list of tuples: ``[a], [b] → [(a, b)]``.

    Raises:
        StructureError: something is no list. SizeError: the sizes can never agree (otherwise each call checks them).
    """
    if len(lists) == 1:
        inner = plain(lists[0])
        if isinstance(inner, tuple):
            lists = inner
    lists = tuple(plain(xs) for xs in lists)
    for xs in lists:
        if not isinstance(xs, TracedList):
            raise StructureError(f"ff.zip takes lists; got {types.show(type_of(xs))}")
    alike = unify_lists(lists, "ff.zip")
    return TracedList(alike[0].sizes, tuple(xs.content for xs in alike), alike[0].grid)


@word
def unzip(xs: Any) -> Any:
    """A list of tuples as a tuple of lists: ``[(a, b)] → ([a], [b])``."""
    xs = plain(xs)
    content = xs.content if isinstance(xs, TracedList) else None
    content = content.content if isinstance(content, NamedProduct) else content
    if isinstance(content, Unknown):
        return _UnknownParts(xs)
    if isinstance(content, Mapping):
        return {name: TracedList(xs._sizes, part, xs.grid) for name, part in content.items()}
    if not isinstance(content, tuple):
        raise StructureError(f"ff.unzip takes a list of tuples; got {types.show(type_of(xs))}")
    return (
        types.rebuild(content, iter([]))
        if not content
        else _retuple(content, [TracedList(xs._sizes, part, xs.grid) for part in content])
    )


class _UnknownParts:
    """The lists of a list of tuples whose number is not known yet: what a tree's node unzips in the first trace."""

    def __init__(self, xs: TracedList):
        self.xs = xs

    def __getitem__(self, index: Any) -> TracedList:
        return TracedList(self.xs._sizes, Unknown(), self.xs.grid)

    def __iter__(self) -> Iterator[TracedList]:
        count = unpacked_into(sys._getframe(1))
        if count is None:
            raise TraceError("the type of a node's result cannot be inferred here; give ff.cata a leaf= function")
        return iter([self[place] for place in range(count)])


def _retuple(like: Any, parts: list[Any]) -> Any:
    return type(like)(*parts) if types.is_namedtuple(like) else tuple(parts)
