"""How fast a forest is linearised into levels: nodes per second, for forests of several shapes.

Each repeat gets a forest that was never seen, so that the first call does the work; a second call on an equal forest
shows what its cache gives.

    foldfuse bench forest
"""

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

import foldfuse as ff

from . import report

# A shape gives, for nodes at these places within their trees (0 at the root), the place of each one's parent.
Shape = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def random(place: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return for each node a parent drawn from the nodes before it."""
    return (generator.random(len(place)) * place).astype(np.int64)


def binary(place: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the parents in a complete binary tree, level by level from its root."""
    return (place - 1) // 2


def chain(place: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the node before: as many levels as a tree has nodes."""
    return place - 1


def star(place: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the root for every other node: the widest fan."""
    return np.zeros_like(place)


# Title, shape, and nodes in each tree (None: all in one tree).
FORESTS: tuple[tuple[str, Shape, int | None], ...] = (
    ("one random tree", random, None),
    ("one binary tree", binary, None),
    ("random trees of 128", random, 128),
    ("binary trees of 127", binary, 127),
    ("chains of 1,000", chain, 1000),
    ("stars of 1,000", star, 1000),
    ("single nodes", star, 1),
)


def make(
    shape: Shape, nodes: int, size: int, shuffle: bool, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return a forest as `ff.forest` takes it: each node's parent within its tree, -1 at a root, and the trees' sizes.

    Args:
        shape: gives the parents.
        nodes: how many there are in all.
        size: how many there are in a tree; the last tree has what is left.
        shuffle: puts the nodes of every tree in random order, so that parents no longer stand before their children.
        generator: for the shape and the order.
    """
    tree, place = np.divmod(np.arange(nodes), size)
    parents = np.where(place == 0, -1, shape(place, generator))
    if shuffle:
        # Sorted by tree first and a random number second, node i of the new order is node order[i] of the old one.
        order = np.lexsort((generator.random(nodes), tree))
        moved = np.empty(nodes, dtype=np.int64)
        moved[order] = place
        parents = np.where(parents < 0, -1, moved[tree * size + parents])[order]
    return parents, np.bincount(tree)


def measure(title: str, shape: Shape, size: int | None, shuffle: bool, nodes: int, repeats: int) -> dict[str, object]:
    """Return one row: the median time and rate of a new forest, and the rate of an equal forest given once more.

    Args:
        title: the row's name.
        shape: the trees' shape.
        size: nodes in a tree, or None for one tree.
        shuffle: whether the nodes stand in random order.
        nodes: nodes in all; one more in every repeat, since some shapes would otherwise come again.
        repeats: how many forests are measured.
    """
    generator = np.random.default_rng(0)
    new, again = [], []
    for count in range(nodes, nodes + repeats):
        parents, sizes = make(shape, count, size or count, shuffle, generator)
        for times in (new, again):
            # A copy: what comes again in use is an equal array, seldom the same object.
            given = parents.copy()
            started = time.perf_counter()
            ff.forest(parents=given, sizes=sizes)
            times.append((time.perf_counter() - started) / count)
    return {
        "forest": title,
        "node_order": "random" if shuffle else "parents first",
        "nodes": nodes,
        "seconds": statistics.median(new) * nodes,
        "nodes_per_second": 1 / statistics.median(new),
        "nodes_per_second_again": 1 / statistics.median(again),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every forest in two orders of its nodes, print the table and write the JSON file.

    Args:
        arguments: the command line; the program's own where left out.
    """
    parser = report.parser("forest", __doc__)
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args(arguments)

    rows = [
        measure(title, shape, size, shuffle, given.nodes, given.repeats)
        for title, shape, size in FORESTS
        for shuffle in ((False,) if size == 1 else (False, True))  # a single node has but one order
    ]
    report.finish("forest", given, {"forests linearised into levels": rows})


if __name__ == "__main__":
    main()
