"""Trees as arguments: what a program declares of them is checked, and their tables and values are padded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..compiler.errors import TreeError
from ..compiler.types import Tree
from .binding_names import show_value
from .binding_sizes import Level
from .forest import Forest, forest
from .tree_input import Product, map_product, place

__all__ = ["PaddedTrees", "open_forest", "pad_forest"]


class PaddedTrees(NamedTuple):
    """A forest as a graph takes it.

    Attributes:
        tables: parent, slot, height [batch, nodes], root [batch] and, in a forest with kinds, kind [batch, nodes]; of a
            single tree without the batch.
        values: the values of the nodes, [batch, nodes, ...].
        longest, widest: the most nodes of a tree, the most children of a node.
        nodes: the number of nodes of each tree; None for a single one.
        arity: the number of children of each node.
    """

    tables: tuple[Tensor, ...]
    values: Product
    longest: int
    widest: int
    nodes: Level | None
    arity: Level


def open_forest(
    declared: Tree, value: Any, name: str, batched: bool, dtype: torch.dtype, device: torch.device
) -> Forest:
    """The forest that was given, or one made of the nested tuples that were given.

    Arguments:
        declared: the type of the trees.
        value: a `Forest`, a list of nested tuples, or without a batch one of them.
        name: what messages call it.
        batched: whether a batch of trees is expected, otherwise a single one.
        dtype: the program's float dtype.
        device: where values that are written as numbers go.

    Raises:
        TreeError: it is neither; its arity, kinds or number of trees are not as declared; it has no values.
    """
    if not isinstance(value, Forest):
        if batched and not isinstance(value, list):
            raise TreeError(
                f"{name} takes trees, got {show_value(value)}. Give ff.forest(…), or a list of nested tuples"
            )
        value = _written(value if batched else [value], declared, dtype).to(device)
    elif not batched and len(value) != 1:
        raise TreeError(f"{name} takes one tree, got a forest of {len(value)}. Compile with batched=True for many")
    if value.values is None:
        raise TreeError(f"{name} has no values at its nodes. Give value= (or values=) to ff.forest")
    _check_arity(declared, value, name)
    return _with_kinds(declared, value, name)


def _written(trees: list[Any], declared: Tree, dtype: torch.dtype) -> Forest:
    exact = dtype == torch.float64 != torch.get_default_dtype()

    def value(subject: Any) -> Any:
        subject = subject[1] if declared.kinds else subject
        # Python's floats would take torch's default dtype, and lose digits.
        return map_product(lambda x: np.float64(x) if isinstance(x, float) else x, subject) if exact else subject

    if declared.kinds:
        return forest(trees, value=value, kind=lambda subject: subject[0], kinds=declared.kinds)
    return forest(trees, value=value if exact else None)


def _check_arity(declared: Tree, trees: Forest, name: str) -> None:
    if declared.arity is None:
        return
    wrong = np.flatnonzero((trees.arity != 0) & (trees.arity != declared.arity))
    if wrong.size:
        node = int(wrong[0])
        raise TreeError(
            f"{place(trees.sizes, node)} of {name} has {int(trees.arity[node])} children. Expected {declared.arity}, "
            f"or none at a leaf, for it is declared as ff.Tree(…, arity={declared.arity}); leave arity= out to take any"
        )


def _with_kinds(declared: Tree, trees: Forest, name: str) -> Forest:
    """The forest with its kinds numbered as the program numbers them."""
    if bool(declared.kinds) != (trees.kind is not None):
        has, expected = ("no kinds", f"kinds={declared.kinds}") if declared.kinds else ("kinds", "none")
        raise TreeError(
            f"{name} has {has}, the program declares {expected}. Give kind= to ff.forest exactly where the type is "
            "ff.Tree(…, kinds=…)"
        )
    if trees.kind is None or trees.kinds == declared.kinds:
        return trees
    places = np.array(
        [declared.kinds.index(kind) if kind in declared.kinds else -1 for kind in trees.kinds], dtype=np.int64
    )
    numbers = places[trees.kind]
    unknown = np.flatnonzero(numbers < 0)
    if unknown.size:
        node = int(unknown[0])
        raise TreeError(
            f"{place(trees.sizes, node)} of {name} is of the kind {trees.kinds[int(trees.kind[node])]!r}. Expected one "
            f"of {', '.join(map(repr, declared.kinds))}; add it to kinds= of the type, or mend the tree"
        )
    return replace(trees, kind=numbers, kinds=declared.kinds, _kind_on_device={})


def pad_forest(trees: Forest, batched: bool) -> PaddedTrees:
    """The tables and values of a forest, padded to its largest tree; of a single tree without the batch.

    An empty forest has no values to take shapes from: its values are left as they are.
    """
    padded, topology = trees.padded(), trees.topology
    count, longest = topology.padded_shape
    tables = (padded.parent, padded.slot, padded.height, padded.root, *(() if padded.kind is None else (padded.kind,)))
    values, arity = trees.padded_values() if count else trees.values, padded.arity
    nodes: Level | None = Level(padded.sizes, torch.tensor(topology.sizes, device="cpu"), None)
    if not batched:
        tables, arity, nodes = tuple(table[0] for table in tables), arity[0], None
        values = map_product(lambda x: x[0], values)
    return PaddedTrees(tables, values, longest, int(topology.arity.max(initial=0)), nodes, Level(arity, None, None))
