"""A batch of trees: the input of tree models, and its linearisation.

Trees come in as nested tuples, as Python objects or as parent arrays (`forest`), and are held as flat arrays over all
nodes (`Forest`). The linearisation (slots, arities, heights, levels) is vectorised: for N nodes and depth D it is
O(N log D) by pointer doubling, so that a chain costs no more calls into NumPy than a bush does.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from ..compiler.errors import TreeError
from . import tree_input

# ---------------------------------------------------------------- linearisation


class PaddedForest(NamedTuple):
    """A forest's topology as int64 tensors on one device; padding is -1 in `parent` and 0 elsewhere."""

    parent: torch.Tensor  # [B, Nmax]
    slot: torch.Tensor  # [B, Nmax]
    arity: torch.Tensor  # [B, Nmax]
    height: torch.Tensor  # [B, Nmax]
    kind: torch.Tensor | None  # [B, Nmax]; None in a forest without kinds
    root: torch.Tensor  # [B]
    sizes: torch.Tensor  # [B]


@dataclass(frozen=True, eq=False)
class Topology:
    """The shape of a forest, without values: read-only int64 arrays over all nodes, tree after tree."""

    parent: np.ndarray  # [total], within the tree, -1 at the root
    slot: np.ndarray  # [total]
    arity: np.ndarray  # [total]
    height: np.ndarray  # [total]
    root: np.ndarray  # [B], within the tree
    sizes: np.ndarray  # [B]
    order: np.ndarray  # [total], flat node indices by height
    level_offsets: np.ndarray  # [levels + 1]
    position: np.ndarray  # [total], tree * Nmax + node
    _on_device: dict[torch.device, tuple[PaddedForest, torch.Tensor]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for array in vars(self).values():
            if isinstance(array, np.ndarray):
                array.flags.writeable = False

    @property
    def padded_shape(self) -> tuple[int, int]:
        return len(self.sizes), int(self.sizes.max(initial=0))

    def pad(self, flat: np.ndarray, fill: int, device: torch.device) -> torch.Tensor:
        """Flat [total] to [B, Nmax] on `device`."""
        padded = np.full(self.padded_shape, fill, dtype=np.int64)
        padded.reshape(-1)[self.position] = flat
        return _plain_tensor(padded, device)

    def padded(self, device: torch.device) -> tuple[PaddedForest, torch.Tensor]:
        """The padded arrays (without kinds), and `position` [total], on `device`; made once."""
        found = self._on_device.get(device)
        if found is None:
            slot, arity, height = (self.pad(array, 0, device) for array in (self.slot, self.arity, self.height))
            root, sizes, position = (_plain_tensor(array, device) for array in (self.root, self.sizes, self.position))
            found = PaddedForest(self.pad(self.parent, -1, device), slot, arity, height, None, root, sizes), position
            if type(position) is torch.Tensor:  # under a tracer it may be a fake, which must not outlive the trace
                self._on_device[device] = found
        return found


def _plain_tensor(array: np.ndarray, device: torch.device) -> torch.Tensor:
    # Kept for later calls, and a tensor made in inference mode could not be used in a backward pass there.
    with torch.inference_mode(False):
        return torch.from_numpy(array.copy()).to(device)


def _stable_order(keys: np.ndarray) -> np.ndarray:
    """Stable argsort of integers >= 0: NumPy sorts 16-bit keys by radix, so take 16 bits at a time."""
    order = np.argsort(keys.astype(np.uint16), kind="stable")
    for shift in range(16, int(keys.max(initial=0)).bit_length(), 16):
        order = order[np.argsort((keys[order] >> shift).astype(np.uint16), kind="stable")]
    return order


def _heights(above: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Heights by pointer doubling: after round k every node knows its descendants fewer than 2^k steps below.

    A node leaves the work once 2^k steps up pass its root, so N nodes of depth at most D take O(N log D).
    """
    height = np.zeros(len(above), dtype=np.int64)
    ancestor = above.copy()
    active = np.flatnonzero(above >= 0)
    steps, longest = 1, int(sizes.max(initial=0))
    while active.size:
        if steps >= longest:  # an ancestor further up than the tree has nodes
            _refuse_cycle(above, sizes, int(active[0]))
        target = ancestor[active]
        np.maximum.at(height, target, height[active] + steps)
        further = ancestor[target]
        ancestor[active] = further
        active = active[further >= 0]
        steps *= 2
    return height


def _refuse_cycle(above: np.ndarray, sizes: np.ndarray, node: int) -> None:
    """Name the cycle that `node` runs into."""
    for _ in range(int(sizes.max())):
        node = int(above[node])  # now surely on the cycle itself, not on a path into it
    cycle = [node]
    while int(above[cycle[-1]]) != node:
        cycle.append(int(above[cycle[-1]]))
    start = min(cycle)  # only the names matter, and the smallest reads best
    tree = int(np.searchsorted(np.cumsum(sizes), start, side="right"))
    offset = int(sizes[:tree].sum())
    turn = cycle.index(start)
    names = [str(index - offset) for index in (cycle[turn:] + cycle[:turn])]
    shown = " -> ".join(names[:8] + ["..."] * (len(names) > 8) + names[:1])
    raise TreeError(
        f"tree {tree}, node {names[0]}: the parents are cyclic: {shown}. Expected every path of parents to end at the "
        "root; break the cycle by giving one of these nodes a parent on the root's side"
    )


def _linearise(parent: np.ndarray, sizes: np.ndarray) -> Topology:
    """Check the parents and work out everything that follows from them."""
    empty = np.flatnonzero(sizes == 0)
    if empty.size:
        raise TreeError(
            f"tree {int(empty[0])}, no node at all: expected at least a root. Drop the tree from the batch, or give it "
            "one node with parent -1"
        )
    count, total = len(sizes), len(parent)
    offsets = np.cumsum(sizes) - sizes
    offset = np.repeat(offsets, sizes)
    wrong = np.flatnonzero((parent < -1) | (parent >= np.repeat(sizes, sizes)))
    if wrong.size:
        index = int(wrong[0])
        size = int(sizes[np.searchsorted(offsets, index, side="right") - 1])
        raise TreeError(
            f"{tree_input.place(sizes, index)}: its parent {int(parent[index])} is out of range. Expected 0 to "
            f"{size - 1}, or -1 at the root; parents count from 0 within each tree, not over the batch"
        )
    root = np.flatnonzero(parent == -1)
    if len(root) != count or (root < offsets).any() or (root >= offsets + sizes).any():
        _refuse_roots(root, sizes, offsets)
    # From here on parents are flat indices; -1 stays -1.
    above = parent + offset
    above[root] = -1
    arity = np.bincount(above + 1, minlength=total + 1)[1:]
    # Siblings, in input order, are neighbours once nodes are sorted by parent; the roots come first.
    by_parent = _stable_order(above + 1)
    first = np.cumsum(arity) - arity + count
    slot = np.zeros(total, dtype=np.int64)
    children = by_parent[count:]
    slot[children] = np.arange(count, total) - first[above[children]]
    height = _heights(above, sizes)
    node = np.arange(total) - offset
    return Topology(
        parent=parent,
        slot=slot,
        arity=arity,
        height=height,
        root=root - offsets,
        sizes=sizes,
        order=_stable_order(height),
        level_offsets=np.concatenate([[0], np.cumsum(np.bincount(height))]).astype(np.int64),
        position=np.repeat(np.arange(count) * int(sizes.max(initial=0)), sizes) + node,
    )


def _refuse_roots(root: np.ndarray, sizes: np.ndarray, offsets: np.ndarray) -> None:
    tree_of_root = np.searchsorted(offsets, root, side="right") - 1
    counts = np.bincount(tree_of_root, minlength=len(sizes))
    tree = int(np.flatnonzero(counts != 1)[0])
    if counts[tree] == 0:
        raise TreeError(
            f"tree {tree}, nodes 0 to {int(sizes[tree]) - 1}: no root, for no parent is -1. Expected exactly one; give "
            "the topmost node the parent -1"
        )
    names = [int(index) for index in (root - offsets[tree_of_root])[tree_of_root == tree]]
    raise TreeError(
        f"tree {tree}, node {names[1]}: a second root (node {names[0]} has parent -1 too). Expected exactly one; make "
        "two trees of it, or put a common root above them"
    )


# ---------------------------------------------------------------- the cache


class CacheInfo(NamedTuple):
    """Counts of the linearisation cache since the process began or `cache_clear` was called."""

    hits: int
    misses: int
    entries: int
    nodes: int


class _TopologyCache:
    """The most recently used topologies by a hash of their content, bounded in entries and in nodes.

    The lock guards the table only: two threads that miss together both linearise, and the first result is kept.
    """

    def __init__(self, entries: int, nodes: int) -> None:
        self._entries, self._nodes = entries, nodes
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        with self._lock:
            self._table: OrderedDict[bytes, Topology] = OrderedDict()
            self._hits = self._misses = self._held = 0

    def info(self) -> CacheInfo:
        with self._lock:
            return CacheInfo(self._hits, self._misses, len(self._table), self._held)

    def topology(self, parent: np.ndarray, sizes: np.ndarray) -> Topology:
        digest = hashlib.blake2b(len(sizes).to_bytes(8, "little"), digest_size=32)
        digest.update(sizes.tobytes())
        digest.update(parent.tobytes())
        key = digest.digest()
        with self._lock:
            found = self._table.get(key)
            if found is not None:
                self._hits += 1
                self._table.move_to_end(key)
                return found
            self._misses += 1
        made = _linearise(parent, sizes)
        with self._lock:
            if key in self._table:
                return self._table[key]
            if len(parent) <= self._nodes:
                self._table[key] = made
                self._held += len(parent)
            while len(self._table) > self._entries or self._held > self._nodes:
                _, dropped = self._table.popitem(last=False)
                self._held -= len(dropped.parent)
        return made


_cache = _TopologyCache(entries=64, nodes=1 << 22)


def cache_info() -> CacheInfo:
    """Hits, misses, entries and nodes of the linearisation cache (at most 64 entries and 4,194,304 nodes)."""
    return _cache.info()


def cache_clear() -> None:
    """Empty the linearisation cache and its counts. Forests in use keep their arrays."""
    _cache.clear()


# ---------------------------------------------------------------- Forest


@dataclass(frozen=True, eq=False, repr=False)
class Forest:
    """A batch of B trees with `total` nodes. Immutable; made by `forest`.

    The arrays are NumPy int64 and read-only, over all nodes in input order, tree after tree: within a tree the order
    of the parent array, or pre-order with children in order for nested tuples and objects.

    Attributes:
        topology: the arrays below in one object, shared by forests of the same shape.
        values: a tensor [total, ...], or a tuple or dict of such; None in a forest without values.
        kind: int64 [total], each node's position in `kinds`; None in a forest without kinds.
        kinds: the kind names; empty in a forest without kinds.
    """

    topology: Topology
    values: tree_input.Product | None = None
    kind: np.ndarray | None = None
    kinds: tuple = ()
    _kind_on_device: dict[torch.device, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind is not None:
            self.kind.flags.writeable = False

    @property
    def parent(self) -> np.ndarray:
        """int64 [total]: each node's parent as an index within its tree, -1 at the root."""
        return self.topology.parent

    @property
    def slot(self) -> np.ndarray:
        """int64 [total]: each node's position among its siblings, in input order; 0 at the root."""
        return self.topology.slot

    @property
    def arity(self) -> np.ndarray:
        """int64 [total]: each node's number of children."""
        return self.topology.arity

    @property
    def height(self) -> np.ndarray:
        """int64 [total]: 0 at a leaf, else one more than the highest child."""
        return self.topology.height

    @property
    def root(self) -> np.ndarray:
        """int64 [B]: each tree's root as an index within the tree."""
        return self.topology.root

    @property
    def sizes(self) -> np.ndarray:
        """int64 [B]: each tree's number of nodes."""
        return self.topology.sizes

    @property
    def device(self) -> torch.device:
        """Where the values are; the CPU in a forest without values."""
        array = tree_input.first_array(self.values)
        return torch.device("cpu") if array is None else array.device

    def levels(self) -> tuple[np.ndarray, np.ndarray]:
        """The level linearisation: children always stand in an earlier level than their parent.

        Returns:
            `order`, int64 [total]: flat node indices sorted by height, in input order within a level.
            `offsets`, int64 [levels + 1]: level h is `order[offsets[h]:offsets[h + 1]]`.
        Example:
            >>> order, offsets = forest([(1, [2, (3, [4])])]).levels()
            >>> order.tolist(), offsets.tolist()
            ([1, 3, 2, 0], [0, 2, 3, 4])
        """
        return self.topology.order, self.topology.level_offsets

    def padded(self, device: torch.device | str | None = None) -> PaddedForest:
        """The topology as rectangular tensors, made once per device and topology.

        Arguments:
            device: where; by default where the values are.
        Returns:
            `PaddedForest` of int64 tensors: `parent`, `slot`, `arity`, `height`, `kind` [B, Nmax] (padding: -1 in
            `parent`, 0 elsewhere; `kind` is None in a forest without kinds), `root` [B] and `sizes` [B]. They are
            shared with later calls: do not write into them.
        """
        where = self._where(device)
        padded, _ = self.topology.padded(where)
        if self.kind is None:
            return padded
        kind = self._kind_on_device.get(where)
        if kind is None:
            kind = self.topology.pad(self.kind, 0, where)
            if type(kind) is torch.Tensor:
                self._kind_on_device[where] = kind
        return padded._replace(kind=kind)

    def padded_values(self) -> tree_input.Product | None:
        """The values as tensors [B, Nmax, ...] with zeros as padding, differentiable in `values`."""
        return tree_input.map_product(self._pad, self.values)

    def unpad(self, padded: torch.Tensor) -> torch.Tensor:
        """The inverse of padding: [B, Nmax, ...] to [total, ...] in input order, differentiable.

        Raises:
            TreeError: the tensor does not begin with [B, Nmax].
        """
        shape = self.topology.padded_shape
        if tuple(padded.shape[:2]) != shape:
            raise TreeError(
                f"unpad was given a tensor of shape {list(padded.shape)}. Expected {list(shape)} first: {shape[0]} "
                f"trees of at most {shape[1]} nodes; give results that were computed from this forest"
            )
        _, position = self.topology.padded(padded.device)
        return padded.flatten(0, 1).index_select(0, position)

    def to(self, device: torch.device | str) -> Forest:
        """This forest with its values on `device`; the NumPy arrays stay on the host and are shared."""
        moved = tree_input.map_product(lambda flat: flat.to(device), self.values)
        return replace(self, values=moved)

    def __len__(self) -> int:
        return len(self.sizes)

    def __repr__(self) -> str:
        values = tree_input.map_product(
            lambda flat: f"{str(flat.dtype).removeprefix('torch.')}{list(flat.shape)}", self.values
        )
        levels = len(self.topology.level_offsets) - 1
        kinds = f", kinds={len(self.kinds)}" if self.kind is not None else ""
        return f"Forest(trees={len(self)}, nodes={len(self.parent)}, levels={levels}{kinds}, values={values})"

    def _pad(self, flat: torch.Tensor) -> torch.Tensor:
        count, longest = self.topology.padded_shape
        _, position = self.topology.padded(flat.device)
        room = flat.new_zeros((count * longest, *flat.shape[1:]))
        return room.index_copy(0, position, flat).unflatten(0, (count, longest))

    def _where(self, device: torch.device | str | None) -> torch.device:
        # "cuda" and "cuda:0" are one device and must be one cache entry: ask a tensor where it really is.
        return self.device if device is None else torch.empty(0, device=device).device


def forest(
    trees: Iterable | None = None,
    *,
    children: Callable[[Any], Iterable] | None = None,
    value: Callable[[Any], tree_input.Product] | None = None,
    kind: Callable[[Any], Any] | Sequence | np.ndarray | torch.Tensor | None = None,
    kinds: Iterable | None = None,
    parents: Sequence | np.ndarray | torch.Tensor | None = None,
    values: tree_input.Product | None = None,
    sizes: Sequence[int] | np.ndarray | torch.Tensor | None = None,
    leaf_value: Callable[[Any], tree_input.Product] | None = None,
) -> Forest:
    """A batch of trees from nested tuples, from Python objects, or from parent arrays.

    **Nested tuples**: `forest(trees)`. A tuple is an inner node or leaf `(value, children)`: exactly two entries, the
    second a list or tuple of trees, whatever the first is. Anything else but a list or None is a leaf and its own
    value. So `(1, (2, 3))` has the two leaves 2 and 3 below it, and a leaf whose value is a tuple is `((a, b), [])`.
    `(None, children)` has no value: zeros are used. `value=` and `kind=`, if given, are called with the value as
    written, so that words may be looked up: `value=vocabulary.__getitem__`.

    **Values only at the leaves**: `forest(trees, leaf_value=f)`. Non-empty tuples and lists of any length are inner
    nodes, `(left, right)`, with zeros for a value; anything else is a leaf with the value `f(leaf)`. `kind=` is called
    with the leaf, and with None at inner nodes.

    **Objects**: `forest(trees, children=f, value=g)`. `f(node)` gives the child nodes, `g(node)` the value (None at an
    inner node: zeros); `leaf_value=` takes the place of `value=` at the leaves. Without either there are no values. An
    object with children may stand only once in a tree; leaves, and nodes that are numbers, strings or tuples, may
    stand at several places and are a node at each.

    **Parent arrays**: `forest(parents=[[-1, 0, 0], ...], values=v)`, or a flat array with `sizes=`. Nodes may come in
    any order.

    Arguments:
        trees: a list (any iterable, but for nested tuples not a tuple) of trees.
        children: node -> iterable of nodes.
        value: node, or written value -> a number, array or tensor, or a tuple or dict of such, alike at every node.
        kind: node, or written value -> a hashable kind name. Beside `parents`: integer positions in `kinds`, laid
            out like `parents`.
        kinds: the kind names in order. By default the names by first appearance in this batch, so give them where
            several batches go to one model. Beside `parents`, by default 0, 1, ... up to the largest.
        parents: for each node the index of its parent within the tree, -1 at the root.
        values: with `parents`: [total, ...], or a list of one [nodes, ...] per tree, or a tuple or dict of such.
            Tensors stay in the autograd graph.
        sizes: the number of nodes of each tree of a flat `parents`.
        leaf_value: leaf -> value, where only leaves have one.
    Returns:
        A `Forest`. Python integers become int64, floats torch's default dtype; arrays keep theirs (promoted where
        nodes differ). No trees at all make a forest of length 0 (values read from trees are then `zeros(0)`).
    Raises:
        TreeError: cycles, shared nodes, parents out of range, no root or two, a tree without nodes, a kind that is
            not listed, values that do not fit together, or arguments of two input forms at once.

    The linearisation of the most recent topologies is kept (64 of them, 4 million nodes in all, by content), so an
    epoch over the same batches linearises once; see `cache_info`. Any number of threads may call this.

    Example:
        >>> forest([(1.0, [2.0, (3.0, [4.0])]), 5.0])
        Forest(trees=2, nodes=5, levels=3, values=float32[5])
        >>> forest([((1, 2), 3)], leaf_value=float).parent.tolist()
        [-1, 0, 1, 1, 0]
        >>> forest(parents=[[1, -1, 1]], values=torch.ones(3, 8)).root.tolist()
        [1]
    """
    _refuse_mixed(trees, parents, {"children": children, "value": value, "leaf_value": leaf_value}, values, sizes)
    if kinds is not None and kind is None:
        raise TreeError("kinds= is given without kind=. Expected kind= to say which node is of which kind; add it")
    if parents is not None:
        parent, counts = tree_input.read_parents(parents, sizes)
        topology = _cache.topology(parent, counts)
        numbers, names = (None, ()) if kind is None else tree_input.numbered_kinds(kind, kinds, counts)
        return Forest(topology, tree_input.read_values(values, counts), numbers, names)
    if not isinstance(trees, Iterable) or (children is None and isinstance(trees, tuple)):
        raise TreeError(
            f"forest was given a {type(trees).__name__} for its trees. Expected a list of trees; for a single tree "
            "write forest([tree])"
        )
    if children is not None:
        nodes = tree_input.walk(trees, tree_input.open_object(children), shared=False)
        found = tree_input.node_values(nodes, value, leaf_value or value)
    elif leaf_value is not None:
        nodes = tree_input.walk(trees, tree_input.open_bare, shared=True)
        found = tree_input.node_values(nodes, None, leaf_value)
    else:
        nodes = tree_input.walk(trees, tree_input.open_tuple, shared=True)

        def written(subject: Any) -> Any:
            return subject if subject is None or value is None else value(subject)

        found = tree_input.node_values(nodes, written, written)
    numbers, names = (None, ()) if kind is None else tree_input.named_kinds(kind, kinds, nodes)
    return Forest(_cache.topology(nodes.parent, nodes.sizes), found, numbers, names)


def _refuse_mixed(trees: Any, parents: Any, for_trees: dict[str, Any], values: Any, sizes: Any) -> None:
    if (trees is None) == (parents is None):
        given = "neither trees nor parents=" if trees is None else "both trees and parents="
        raise TreeError(f"forest was given {given}. Expected one of them: forest(trees) or forest(parents=...)")
    extra = [name for name, argument in for_trees.items() if argument is not None]
    if parents is not None and extra:
        raise TreeError(f"{extra[0]}= belongs to trees, not to parents=. Give the values of all nodes as values=")
    if trees is not None and (values is not None or sizes is not None):
        raise TreeError("values= and sizes= belong to parents=. Expected value= (a function) beside trees; use that")
    if for_trees["children"] is None and for_trees["value"] is not None and for_trees["leaf_value"] is not None:
        raise TreeError("value= and leaf_value= exclude each other without children=: bare inner nodes have no value")
