"""Reading trees: nested tuples, Python objects and parent arrays become flat arrays over all nodes.

Everything here walks the user's own data, so it is plain Python and never recurses over the depth of a tree.
What the arrays mean, and the linearisation of them, is in `forest.py`.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import torch

from ..compiler.errors import TreeError

Product = Any
"""A number, array or tensor, or a tuple, NamedTuple or dict of products."""

# Identity says nothing about these: Python shares small integers, strings and constant tuples as it likes.
_PLAIN_TYPES = (bool, int, float, complex, str, bytes, tuple, frozenset)
_NUMBERS = (bool, int, float)
_NO_NUMBER = (TypeError, ValueError, RuntimeError, OverflowError)  # what torch and NumPy raise, by version and input
_CLOSING = -2  # stands where a parent index would, when the walk leaves a node


def place(sizes: Sequence[int] | np.ndarray, index: int) -> str:
    """`"tree 3, node 7"` for a flat node index."""
    ends = np.cumsum(sizes)
    tree = int(np.searchsorted(ends, index, side="right"))
    return f"tree {tree}, node {index - int(ends[tree]) + int(sizes[tree])}"


def map_product(function: Callable[[Any], Any], product: Product) -> Product:
    """Apply `function` to every array of a product and keep the structure; no product at all (None) stays None."""
    if isinstance(product, dict):
        return {key: map_product(function, part) for key, part in product.items()}
    if isinstance(product, tuple):
        return _like(product, [map_product(function, part) for part in product])
    return None if product is None else function(product)


def first_array(product: Product) -> Any:
    """The first array of a product, or None where it has none."""
    found: list[Any] = []
    map_product(found.append, product)
    return found[0] if found else None


def _like(model: tuple, parts: list) -> tuple:
    return type(model)(*parts) if hasattr(model, "_fields") else tuple(parts)


# ---------------------------------------------------------------- walking nested tuples and objects


class Nodes(NamedTuple):
    """The nodes of a batch in pre-order, tree after tree."""

    subjects: list  # what `value=` and `kind=` are called with
    childless: list[bool]
    parent: np.ndarray  # int64, within the tree
    sizes: np.ndarray  # int64, one per tree


class _Refused(Exception):
    """A node is not what its input form allows; `walk` adds the place and makes a TreeError of it."""


def open_tuple(node: Any) -> tuple[Any, Sequence]:
    """The rule for `(value, children)`: the value written at a node, and its children."""
    if isinstance(node, tuple):
        if len(node) == 2 and isinstance(node[1], list | tuple):
            return node
        raise _Refused(
            f"{reprlib.repr(node)} is not a tree: expected (value, children), a tuple of two whose second entry is a "
            "list or tuple of trees. Write (value, [child, ...]); a leaf whose value is a tuple is (value, []); trees "
            "with values only at their leaves are read with leaf_value="
        )
    if isinstance(node, list):
        raise _Refused(
            f"the list {reprlib.repr(node)} stands where a tree was expected. Write (value, [child, ...]) for an inner "
            "node, and a number, array or tensor for a leaf"
        )
    return node, ()


def open_bare(node: Any) -> tuple[Any, Sequence]:
    """The rule under `leaf_value=`: tuples and lists are inner nodes without a value, all else is a leaf."""
    if not isinstance(node, list | tuple):
        return node, ()
    if not node:
        raise _Refused(
            f"an empty {type(node).__name__} is neither a leaf nor an inner node. Expected at least one child: "
            "leave the node out, or put a leaf there"
        )
    return None, node


def open_object(children: Callable[[Any], Iterable]) -> Callable[[Any], tuple[Any, Sequence]]:
    """The rule for objects: the node itself, and what `children(node)` gives."""

    def opened(node: Any) -> tuple[Any, Sequence]:
        if node is None:
            raise _Refused("a node is None. Leave absent children out of what children= gives")
        found = children(node)
        if not isinstance(found, Iterable):
            raise _Refused(
                f"children= gave {reprlib.repr(found)} for {reprlib.repr(node)}: expected an iterable of nodes. "
                "Give an empty one for a leaf"
            )
        return node, list(found)

    return opened


def walk(trees: Iterable, opened: Callable[[Any], tuple[Any, Sequence]], shared: bool) -> Nodes:
    """Walk every tree in pre-order, children in order, on a stack of our own.

    Arguments:
        trees: the roots.
        opened: node -> (what stands at it, its children); called once per visit.
        shared: whether one object with children may stand at two places of a tree (each place is then its own node).
    Returns:
        `Nodes` over all trees.
    Raises:
        TreeError: a node on its own path, a shared node where that is not allowed, or what `opened` refuses.
    """
    subjects: list = []
    childless: list[bool] = []
    parent: list[int] = []
    sizes: list[int] = []
    for tree, root in enumerate(trees):
        start = len(subjects)
        # Identities are good for as long as their objects live: `stack` holds those on the path, `subjects` all others
        # that `seen` is asked about.
        path: dict[int, int] = {}  # identity of every open ancestor -> its node
        seen: dict[int, int] = {}  # identity of every node with children -> the node where it stood last
        stack: list[tuple[Any, int]] = [(root, -1)]
        while stack:
            node, above = stack.pop()
            if above == _CLOSING:
                del path[id(node)]
                continue
            index = len(subjects) - start
            try:
                subject, children = opened(node)
            except _Refused as error:
                raise TreeError(f"tree {tree}, node {index} (in pre-order): {error}") from None
            except Exception as error:
                raise TreeError(
                    f"tree {tree}, node {index} (in pre-order): children= raised {type(error).__name__}: {error} for "
                    f"{reprlib.repr(node)}. Expected an iterable of nodes; make children= handle this node"
                ) from error
            subjects.append(subject)
            childless.append(not children)
            parent.append(above)
            if not children:  # a leaf closes no cycle, and may stand anywhere: Python's own `ast` shares its leaves
                continue
            key = id(node)
            if key in path:
                raise TreeError(
                    f"tree {tree}, node {index} (in pre-order): {reprlib.repr(node)} is cyclic: it is already node "
                    f"{path[key]} on its own path from the root. Expected a tree; break the cycle, for example by "
                    "leaving links to parents out of the children"
                )
            if not shared and key in seen and not isinstance(node, _PLAIN_TYPES):
                raise TreeError(
                    f"tree {tree}, node {index} (in pre-order): {reprlib.repr(node)} is shared: it already stands in "
                    f"this tree as node {seen[key]}. Expected one parent per node; put a copy at the second place"
                )
            seen[key] = path[key] = index
            stack.append((node, _CLOSING))
            stack.extend((child, index) for child in reversed(children))
        sizes.append(len(subjects) - start)
    return Nodes(subjects, childless, np.array(parent, dtype=np.int64), np.array(sizes, dtype=np.int64))


def call_each(function: Callable[[Any], Any], subjects: Iterable, where: Callable[[int], str], name: str) -> list:
    """`function` of every subject; what it raises becomes a TreeError that names the node."""
    results: list = []
    try:
        for subject in subjects:
            results.append(function(subject))
    except Exception as error:
        raise TreeError(
            f"{where(len(results))}: {name}= raised {type(error).__name__}: {error}. "
            f"Expected it to give a result for every node; make {name}= handle this one"
        ) from error
    return results


def node_values(nodes: Nodes, inner: Callable[[Any], Any] | None, leaf: Callable[[Any], Any] | None) -> Product | None:
    """The values of walked nodes as a product of tensors [total, ...]; a missing value (None) is zeros.

    Arguments:
        nodes: the walked nodes.
        inner, leaf: the value at an inner node and at a leaf; None: no value there.
    """
    if inner is None and leaf is None:
        return None

    def where(index: int) -> str:
        return place(nodes.sizes, index)

    def missing(_: Any) -> None:
        return None

    if inner is leaf:
        found = call_each(inner, nodes.subjects, where, "value")
    else:
        pick = (leaf or missing, inner or missing)
        pairs = zip(nodes.subjects, nodes.childless, strict=True)
        name = "leaf_value" if inner is None else "value= or leaf_value"
        found = call_each(lambda pair: pick[0 if pair[1] else 1](pair[0]), pairs, where, name)
    return _stack(found, nodes.childless, where) if found else torch.zeros(0)


def _stack(values: list, childless: list[bool], where: Callable[[int], str]) -> Product:
    for index, value in enumerate(values):
        if value is None and childless[index]:
            raise TreeError(
                f"{where(index)}: a leaf has no value (None). Expected a number, an array or a tensor; only inner "
                "nodes may go without one (zeros are used there)"
            )
    model_index = next(index for index, value in enumerate(values) if value is not None)  # a tree has a leaf
    model = values[model_index]
    if not isinstance(model, dict | tuple):
        return _stack_arrays(values, model_index, where)
    keys = list(model) if isinstance(model, dict) else range(len(model))
    for index, value in enumerate(values):
        if value is None:
            continue
        same = type(value) is type(model) and len(value) == len(keys)
        if not same or (isinstance(model, dict) and value.keys() != model.keys()):
            raise TreeError(
                f"{where(index)}: the value {reprlib.repr(value)} is not built like the value of {where(model_index)}, "
                f"{reprlib.repr(model)}. Expected one structure at every node; give every node the same parts"
            )
    parts = [_stack([value if value is None else value[key] for value in values], childless, where) for key in keys]
    return dict(zip(keys, parts, strict=True)) if isinstance(model, dict) else _like(model, parts)


def _stack_arrays(values: list, model_index: int, where: Callable[[int], str]) -> torch.Tensor:
    types = {type(value) for value in values} - {type(None)}
    if types <= set(_NUMBERS):  # the common case, without a tensor per node
        dtype = torch.get_default_dtype() if float in types else torch.int64 if int in types else torch.bool
        try:
            return torch.tensor([0 if value is None else value for value in values], dtype=dtype)
        except _NO_NUMBER:
            wrong = next(index for index, value in enumerate(values) if not _fits(value, dtype))
        raise TreeError(
            f"{where(wrong)}: the value {reprlib.repr(values[wrong])} does not fit {dtype}. Expected numbers within "
            "its range; give a smaller number, or a float"
        )
    tensors = [None if value is None else _tensor(value, where, index) for index, value in enumerate(values)]
    model = tensors[model_index]
    for index, tensor in enumerate(tensors):
        if tensor is not None and (tensor.shape != model.shape or tensor.device != model.device):
            raise TreeError(
                f"{where(index)}: the value has shape {list(tensor.shape)} on {tensor.device}, that of "
                f"{where(model_index)} {list(model.shape)} on {model.device}. Expected one shape and device at every "
                "node; give every node a value of the same shape"
            )
    dtype = reduce(torch.promote_types, {tensor.dtype for tensor in tensors if tensor is not None})
    zeros = torch.zeros(model.shape, dtype=dtype, device=model.device)
    return torch.stack([zeros if tensor is None else tensor.to(dtype) for tensor in tensors])


def _fits(value: Any, dtype: torch.dtype) -> bool:
    try:
        torch.tensor(value or 0, dtype=dtype)
    except _NO_NUMBER:
        return False
    return True


def _tensor(value: Any, where: Callable[[int], str], index: int) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    try:
        if isinstance(value, np.ndarray | np.generic):
            return torch.from_numpy(np.array(value))  # a copy: the forest must not change with the user's array
        if isinstance(value, _NUMBERS):
            return torch.tensor(value)
    except _NO_NUMBER:
        pass
    raise TreeError(
        f"{where(index)}: the value {reprlib.repr(value)} ({type(value).__name__}) is not a number, a numeric array or "
        "a tensor, nor a tuple or dict of such. Turn it into one with value=, for example value=vocabulary.__getitem__"
    )


# ---------------------------------------------------------------- reading parent arrays


def _integers(array: Any, what: str) -> np.ndarray:
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu().numpy()
    try:
        found = np.asarray(array)
    except ValueError:  # lists of unequal lengths
        found = np.array(None)
    if found.size == 0 and isinstance(array, list | tuple) and not array:
        return np.empty(0, dtype=np.int64)  # NumPy calls an empty list floats
    if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        raise TreeError(
            f"{what} has dtype {found.dtype} and shape {list(found.shape)}. Expected a one-dimensional array of "
            "integers; for one flat array over all trees give sizes= too, and for a single tree write parents=[parents]"
        )
    return found.astype(np.int64)  # always a copy


def _one_per_tree(array: Any) -> bool:
    return isinstance(array, list | tuple) and not all(isinstance(entry, int | np.integer) for entry in array)


def read_parents(parents: Any, sizes: Any) -> tuple[np.ndarray, np.ndarray]:
    """`parents=` and `sizes=` as (flat int64 parents, int64 sizes), both copies."""
    if sizes is None:
        if isinstance(parents, list | tuple):
            arrays = [_integers(array, f"tree {tree}: its parent array") for tree, array in enumerate(parents)]
        else:
            raise TreeError(
                f"parents= is a {type(parents).__name__} and sizes= is not given. Expected a list with one parent "
                "array per tree; or give sizes= with the flat array; for a single tree write parents=[parents]"
            )
        counts = np.array([len(array) for array in arrays], dtype=np.int64)
        return (np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int64)), counts
    flat, counts = _integers(parents, "parents="), _integers(sizes, "sizes=")
    if (counts < 0).any() or int(counts.sum()) != len(flat):
        raise TreeError(
            f"sizes= is {reprlib.repr(counts.tolist())}, {int(counts.sum())} nodes, and parents= has {len(flat)}. "
            "Expected the number of nodes of each tree, in order; check that every tree is counted once"
        )
    return flat, counts


def read_values(values: Product, sizes: np.ndarray) -> Product | None:
    """`values=` as a product of tensors [total, ...]; tensors keep their place in the autograd graph."""
    if isinstance(values, dict):
        return {key: read_values(part, sizes) for key, part in values.items()}
    if isinstance(values, tuple):
        return _like(values, [read_values(part, sizes) for part in values])
    if values is None:
        return None
    total = int(sizes.sum())
    if not isinstance(values, list):
        tensor = _value_array(values, "values=")
        if tensor.ndim == 0 or len(tensor) != total:
            raise TreeError(
                f"values= has shape {list(tensor.shape)}. Expected one row for each of the {total} nodes, tree after "
                "tree; a list holds one array per tree"
            )
        return tensor
    if len(values) != len(sizes):
        raise TreeError(f"values= lists {len(values)} arrays for {len(sizes)} trees. Expected one array per tree")
    tensors = [_value_array(array, f"tree {tree}: values=") for tree, array in enumerate(values)]
    for tree, tensor in enumerate(tensors):
        if tensor.ndim == 0 or len(tensor) != sizes[tree] or tensor.shape[1:] != tensors[0].shape[1:]:
            raise TreeError(
                f"tree {tree}: values= has shape {list(tensor.shape)}. Expected "
                f"{[int(sizes[tree]), *tensors[0].shape[1:]]}: one row per node of this tree, rows as in tree 0"
            )
        if tensor.device != tensors[0].device:
            raise TreeError(
                f"tree {tree}: values= is on {tensor.device}, that of tree 0 on {tensors[0].device}. "
                "Expected one device; move them together first"
            )
    return torch.cat(tensors) if tensors else torch.zeros(0)


def _value_array(array: Any, what: str) -> torch.Tensor:
    if isinstance(array, torch.Tensor):
        return array
    try:
        return torch.from_numpy(np.array(array)) if isinstance(array, np.ndarray) else torch.tensor(array)
    except _NO_NUMBER as error:
        raise TreeError(
            f"{what} is {reprlib.repr(array)}, which is no numeric array: {error}. Expected a tensor or array of "
            "[nodes, ...], a list of one per tree, or a tuple or dict of such"
        ) from error


# ---------------------------------------------------------------- kinds


def kind_table(kinds: Iterable | None) -> dict[Any, int] | None:
    """Kind name -> its position, or None where `kinds=` was not given."""
    if kinds is None:
        return None
    names = list(kinds)
    try:
        table = {name: position for position, name in enumerate(names)}
    except TypeError as error:
        raise TreeError(f"kinds= holds a name that is not hashable: {error}. Use strings or classes") from error
    if len(table) != len(names):
        raise TreeError(f"kinds= names a kind twice: {reprlib.repr(names)}. Expected each once; drop the repetition")
    return table


def named_kinds(kind: Callable[[Any], Any], kinds: Iterable | None, nodes: Nodes) -> tuple[np.ndarray, tuple]:
    """`kind=` as a function: (int64 positions [total], kind names); without `kinds=`, names by first appearance."""
    table, fixed = kind_table(kinds), kinds is not None
    table = {} if table is None else table
    positions = np.empty(len(nodes.subjects), dtype=np.int64)
    names = call_each(kind, nodes.subjects, lambda index: place(nodes.sizes, index), "kind")
    for index, name in enumerate(names):
        try:
            position = table.get(name)
        except TypeError as error:
            raise TreeError(
                f"{place(nodes.sizes, index)}: kind= gave {reprlib.repr(name)}: {error}. Expected a hashable name"
            ) from error
        if position is None:
            if fixed:
                raise TreeError(
                    f"{place(nodes.sizes, index)}: kind= gave {reprlib.repr(name)}. Expected one of "
                    f"{reprlib.repr(list(table))}; add it to kinds=, or map it to one of these"
                )
            position = table[name] = len(table)
        positions[index] = position
    return positions, tuple(table)


def numbered_kinds(kind: Any, kinds: Iterable | None, sizes: np.ndarray) -> tuple[np.ndarray, tuple]:
    """`kind=` beside `parents=`: integer positions in `kinds=`, flat or one array per tree."""
    table = kind_table(kinds)
    if callable(kind):
        raise TreeError("kind= is a function beside parents=. Expected integer positions in kinds=, one per node")
    if _one_per_tree(kind):
        arrays = [_integers(array, f"tree {tree}: its kind array") for tree, array in enumerate(kind)]
        if [len(array) for array in arrays] != sizes.tolist():
            raise TreeError(
                "kind= does not list one array per tree with one entry per node. Expected lengths "
                f"{reprlib.repr(sizes.tolist())}; give kind= the same layout as parents="
            )
        flat = np.concatenate(arrays)
    else:
        flat = _integers(kind, "kind=")
    if len(flat) != sizes.sum():
        raise TreeError(f"kind= has {len(flat)} entries for {int(sizes.sum())} nodes. Expected one per node")
    count = int(flat.max(initial=-1)) + 1 if table is None else len(table)
    wrong = np.flatnonzero((flat < 0) | (flat >= count))
    if wrong.size:
        raise TreeError(
            f"{place(sizes, int(wrong[0]))}: kind {int(flat[wrong[0]])} is out of range. Expected a position in "
            f"kinds=, 0 to {count - 1}; number the kinds as kinds= lists them"
        )
    return flat, tuple(range(count)) if table is None else tuple(table)
