"""Tiles in generated text: a piece of text and the tile dimensions that it has.

All tiles of a kernel keep their dimensions in one order, so that two of them are aligned by inserting dimensions of one
element where one lacks what the other has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_ATOM = re.compile(r"^[A-Za-z_]\w*$|^\d+(\.\d+)?$")


@dataclass(eq=False)
class TileDim:
    """A dimension of tiles.

    Attributes:
        size: how many elements, a power of two.
        order: its place among a kernel's dimensions.
    """

    size: int
    order: int


@dataclass(frozen=True)
class Tile:
    """A tile in generated text.

    Attributes:
        text: an expression.
        dims: its dimensions, in order; none for a scalar.
    """

    text: str
    dims: tuple[TileDim, ...] = ()

    @property
    def shape(self) -> str:
        return "[" + ", ".join(str(d.size) for d in self.dims) + "]"

    @property
    def atom(self) -> str:
        """The text, in parentheses where something stands beside it."""
        return self.text if _ATOM.match(self.text) or closed(self.text) else f"({self.text})"

    def at(self, dims: Sequence[TileDim]) -> str:
        """The text as a tile that broadcasts over `dims`."""
        if not self.dims or tuple(dims) == self.dims:
            return self.atom
        index = ", ".join(":" if d in self.dims else "None" for d in dims)
        return f"{self.atom}[{index}]"

    def within(self, dims: Sequence[TileDim]) -> str:
        """Like `at`, where dimensions of one element in front may be left out."""
        return self.at(dims)


def closed(text: str) -> bool:
    """Whether a text is one call, subscript or pair of parentheses, so that an operator may stand beside it."""
    if not text or text[-1] not in ")]":
        return False
    depth = 0
    for i, c in enumerate(text):
        if c in "([":
            depth += 1
        elif c in ")]":
            depth -= 1
            if depth == 0 and i != len(text) - 1 and text[i + 1] not in "[(.":
                return False
        elif depth == 0 and not (c.isalnum() or c in "_."):
            return False
    return depth == 0


def union(tiles: Iterable[Tile]) -> tuple[TileDim, ...]:
    """The dimensions of tiles together, in order."""
    found = {d for tile in tiles for d in tile.dims}
    return tuple(sorted(found, key=lambda d: d.order))


def combine(operator: str, left: Tile, right: Tile) -> Tile:
    """Two tiles under an infix operator."""
    dims = union((left, right))
    return Tile(f"{left.at(dims)} {operator} {right.at(dims)}", dims)


def one_bit(condition: Tile) -> Tile:
    """A condition that may be spread over a tile: Triton's interpreter gives a comparison of two numbers the dtype of
    these where it becomes a tile, which is no mask then."""
    return condition if condition.dims else Tile(f"True & ({condition.text})")


def call(function: str, tiles: Sequence[Tile], *rest: str) -> Tile:
    """A function of tiles."""
    dims = union(tiles)
    arguments = [_bare(tile.at(dims)) for tile in tiles]
    return Tile(f"{function}({', '.join((*arguments, *rest))})", dims)


def _bare(text: str) -> str:
    if text.startswith("(") and text.endswith(")"):
        depth = 0
        for i, c in enumerate(text):
            depth += (c == "(") - (c == ")")
            if depth == 0 and i != len(text) - 1:
                return text
        return text[1:-1]
    return text


def broadcast(tile: Tile, dims: Sequence[TileDim]) -> Tile:
    """A tile at its full shape over `dims`."""
    if tile.dims == tuple(dims):
        return tile
    shape = "[" + ", ".join(str(d.size) for d in dims) + "]"
    return Tile(f"tl.broadcast_to({_bare(tile.at(dims))}, {shape})", tuple(dims)) if dims else tile
