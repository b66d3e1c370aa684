"""Forests: every input form against every other and against a recursive check, the errors, the cache, the gradients."""

from __future__ import annotations

import ast
import copy
import doctest
import pickle
import re
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foldfuse.compiler.errors import TreeError
from foldfuse.runtime import forest as forest_module
from foldfuse.runtime.forest import Forest, cache_clear, cache_info, forest

# ---------------------------------------------------------------- a tree as (value, [children]), and the simple check

TREES = st.recursive(
    st.tuples(st.integers(-9, 9), st.just([])),
    lambda children: st.tuples(st.integers(-9, 9), st.lists(children, min_size=1, max_size=4)),
    max_leaves=12,
)


def flatten(tree):
    """Pre-order rows (value, parent, slot, arity, height) by plain recursion."""
    rows = []

    def visit(node, parent, slot):
        index = len(rows)
        rows.append(None)
        value, children = node
        heights = [visit(child, index, position) for position, child in enumerate(children)]
        height = 1 + max(heights, default=-1)
        rows[index] = (value, parent, slot, len(children), height)
        return height

    visit(tree, -1, 0)
    return rows


def as_object(tree):
    value, children = tree
    return SimpleNamespace(value=value, children=[as_object(child) for child in children])


def parents_of(trees):
    return [[row[1] for row in flatten(tree)] for tree in trees]


def columns(made: Forest) -> list[tuple]:
    return list(zip(made.parent.tolist(), made.slot.tolist(), made.arity.tolist(), made.height.tolist(), strict=True))


def check(made: Forest, trees) -> None:
    rows = [flatten(tree) for tree in trees]
    flat = [row for tree in rows for row in tree]
    assert len(made) == len(trees)
    assert made.sizes.tolist() == [len(tree) for tree in rows]
    assert made.root.tolist() == [0] * len(trees)
    assert columns(made) == [row[1:] for row in flat]
    assert made.values.tolist() == [row[0] for row in flat]


def chain(depth: int) -> np.ndarray:
    return np.arange(-1, depth)


# ---------------------------------------------------------------- the input forms agree


@settings(max_examples=80, deadline=None)
@given(st.lists(TREES, max_size=5))
def test_every_form_agrees_with_recursion(trees):
    parents = parents_of(trees)
    values = [np.array([row[0] for row in flatten(tree)]) for tree in trees]
    flat_values = np.concatenate([np.zeros(0, dtype=np.int64), *values])
    sizes = [len(array) for array in parents]
    check(forest(trees), trees)
    objects = [as_object(tree) for tree in trees]
    check(forest(objects, children=lambda node: node.children, value=lambda node: node.value), trees)
    check(forest(parents=parents, values=values), trees)
    check(forest(parents=[torch.tensor(array) for array in parents], values=flat_values), trees)
    flat = np.array([number for array in parents for number in array], dtype=np.int32)
    check(forest(parents=flat, sizes=sizes, values=torch.from_numpy(flat_values)), trees)


@settings(max_examples=80, deadline=None)
@given(st.lists(TREES, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_parent_arrays_in_any_node_order(trees, random):
    """A permuted forest has the permuted columns; slots follow the order of the input."""
    for tree in trees:
        rows = flatten(tree)
        order = list(range(len(rows)))
        random.shuffle(order)  # new node j is old node order[j]
        new = {old: index for index, old in enumerate(order)}
        parents = [new.get(rows[old][1], -1) for old in order]
        made = forest(parents=[parents, [-1]])
        assert made.root.tolist() == [new[0], 0]
        assert made.arity[:-1].tolist() == [rows[old][3] for old in order]
        assert made.height[:-1].tolist() == [rows[old][4] for old in order]
        for parent in range(len(rows)):
            siblings = [index for index, above in enumerate(parents) if above == parent]
            assert made.slot[siblings].tolist() == list(range(len(siblings)))


@settings(max_examples=60, deadline=None)
@given(st.lists(TREES, max_size=4))
def test_levels(trees):
    made = forest(trees)
    order, offsets = made.levels()
    assert sorted(order.tolist()) == list(range(len(made.parent)))
    level = np.empty(len(order), dtype=np.int64)
    for height in range(len(offsets) - 1):
        nodes = order[offsets[height] : offsets[height + 1]]
        assert nodes.size and (np.diff(nodes) > 0).all(), "input order within a level, and no level is empty"
        level[nodes] = height
    assert offsets[-1] == len(order) and (level == made.height).all()


def test_tuples_by_the_rule():
    made = forest([(1, (2, (3, [4]))), 5, (6, [])])
    assert made.sizes.tolist() == [4, 1, 1]
    assert made.parent.tolist() == [-1, 0, 0, 2, -1, -1]
    assert made.values.tolist() == [1, 2, 3, 4, 5, 6]
    shared = (7, [])
    assert forest([(1, [shared, shared])]).sizes.tolist() == [3], "an equal tuple is a node at each place"
    twice = (8, [shared])
    assert forest([(1, [twice, twice])]).parent.tolist() == [-1, 0, 1, 0, 3]


def test_values_as_written_are_looked_up():
    vocabulary = {"s": 1.0, "a": 2.0, "b": 3.0}
    made = forest([("s", ["a", (None, ["b"])])], value=vocabulary.__getitem__, kind=lambda word: word in ("a", "b"))
    assert made.values.tolist() == [1.0, 2.0, 0.0, 3.0]
    assert made.kinds == (False, True) and made.kind.tolist() == [0, 1, 0, 1]


def test_values_only_at_the_leaves():
    made = forest([((1, 2), [3, 4, 5]), 6], leaf_value=lambda leaf: np.full(2, leaf, dtype=np.float32))
    assert made.arity.tolist() == [2, 2, 0, 0, 3, 0, 0, 0, 0]
    assert made.values[:, 0].tolist() == [0, 0, 1, 2, 0, 3, 4, 5, 6]
    node = SimpleNamespace(down=[SimpleNamespace(down=[], word=4)])
    kept = forest([node], children=lambda each: each.down, leaf_value=lambda each: each.word)
    assert kept.values.tolist() == [0, 4]
    both = forest([node], children=lambda each: each.down, value=lambda each: 9, leaf_value=lambda each: each.word)
    assert both.values.tolist() == [9, 4]


def test_python_syntax_trees():
    sources = ["x = y + z * (a - b)", "def f(n):\n  return f(n - 1) + [i for i in range(n)]"]
    trees = [ast.parse(source) for source in sources]
    names: dict = {}
    made = forest(
        trees,
        children=ast.iter_child_nodes,
        value=lambda node: names.setdefault(type(node), len(names)),
        kind=type,
    )
    expected = []
    for tree in trees:
        order = []

        def visit(node, order=order):
            order.append(node)
            for child in ast.iter_child_nodes(node):
                visit(child)

        visit(tree)
        expected.append(order)
    assert made.sizes.tolist() == [len(order) for order in expected]
    assert [made.kinds[k] for k in made.kind] == [type(node) for order in expected for node in order]
    assert made.arity.tolist() == [len(list(ast.iter_child_nodes(n))) for order in expected for n in order]


def test_plain_values_as_nodes():
    """The call tree of the naive Fibonacci: equal integers are nodes at each of their places."""
    made = forest([8, 8], children=lambda n: (n - 1, n - 2) if n > 1 else (), value=lambda n: n)
    assert made.sizes.tolist() == [67, 67] and made.height.max() == 7


def test_trees_from_a_generator():
    made = forest((n, []) for n in range(4))
    assert made.values.tolist() == [0, 1, 2, 3]


# ---------------------------------------------------------------- values


def test_python_numbers_and_arrays_keep_their_dtypes():
    assert forest([(1, [True])]).values.dtype == torch.int64
    assert forest([(1, [2.5])]).values.dtype == torch.get_default_dtype()
    assert forest([(True, [False])]).values.dtype == torch.bool
    assert forest([(np.float64(1), [np.float32(2)])]).values.dtype == torch.float64
    mixed = forest([(np.ones(2, np.float16), [torch.ones(2), (None, [np.ones(2, np.float16)])])])
    assert mixed.values.dtype == torch.float32 and mixed.values.sum(1).tolist() == [2, 2, 0, 2]


def test_products_at_the_nodes():
    leaf = {"word": 3, "pair": (1.0, np.ones(2, np.float32))}
    made = forest([(None, [leaf, ({"pair": (2.0, np.zeros(2, np.float32)), "word": 4}, [leaf])])])
    assert made.values["word"].tolist() == [0, 3, 4, 3]
    assert made.values["pair"][0].tolist() == [0, 1, 2, 1] and made.values["pair"][1].shape == (4, 2)
    assert made.padded_values()["pair"][1].shape == (1, 4, 2)
    assert made.to("cpu").values["word"].tolist() == [0, 3, 4, 3]


def test_products_beside_parents():
    values = {"x": [np.ones((2, 3)), np.zeros((1, 3))], "y": (torch.arange(3), np.arange(3.0))}
    made = forest(parents=[[-1, 0], [-1]], values=values)
    assert made.values["x"].shape == (3, 3) and made.values["x"].dtype == torch.float64
    assert made.values["y"][0].tolist() == [0, 1, 2] and made.values["y"][1].tolist() == [0, 1, 2]


def test_no_values():
    made = forest(parents=[[-1, 0]])
    assert made.values is None and made.padded_values() is None and made.to("cpu").values is None
    assert forest([SimpleNamespace()], children=lambda node: []).values is None


def test_the_forest_does_not_change_with_the_users_arrays():
    parent, values, sizes = np.array([-1, 0]), np.ones(2), np.array([2])
    made = forest(parents=parent, sizes=sizes, values=values)
    parent[:], values[:], sizes[:] = 9, 9, 9
    assert made.parent.tolist() == [-1, 0] and made.values.tolist() == [1, 1] and made.sizes.tolist() == [2]
    for array in (made.parent, made.slot, made.arity, made.height, made.root, made.sizes, *made.levels()):
        assert array.dtype == np.int64
        with pytest.raises(ValueError):
            array[:] = 0
    with pytest.raises(AttributeError):
        made.values = None


# ---------------------------------------------------------------- padding and gradients


def test_padded():
    made = forest(parents=[[-1, 0, 0, 1], [1, -1]], kind=[[0, 1, 1, 0], [1, 0]], kinds=["a", "b"])
    padded = made.padded("cpu")
    assert padded.parent.tolist() == [[-1, 0, 0, 1], [1, -1, -1, -1]]
    assert padded.slot.tolist() == [[0, 0, 1, 0], [0, 0, 0, 0]]
    assert padded.arity.tolist() == [[2, 1, 0, 0], [0, 1, 0, 0]]
    assert padded.height.tolist() == [[2, 1, 0, 0], [0, 1, 0, 0]]
    assert padded.kind.tolist() == [[0, 1, 1, 0], [1, 0, 0, 0]]
    assert padded.root.tolist() == [0, 1] and padded.sizes.tolist() == [4, 2]
    assert all(tensor.dtype == torch.int64 for tensor in padded)
    again = made.padded(torch.device("cpu"))
    assert all(first is second for first, second in zip(padded, again, strict=True)), "made once per device"
    assert forest(parents=[[-1]]).padded().kind is None


@settings(max_examples=40, deadline=None)
@given(st.lists(TREES, max_size=4))
def test_pad_and_unpad(trees):
    made = forest(trees)
    padded = made.padded_values()
    longest = max(made.sizes.tolist(), default=0)
    assert padded.shape == (len(trees), longest)
    for tree, row in zip(trees, padded.tolist(), strict=True):
        nodes = [row[0] for row in flatten(tree)]
        assert row == nodes + [0] * (longest - len(nodes))
    assert made.unpad(padded).tolist() == made.values.tolist()


def test_gradient_through_padded_values():
    flat = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    parents = [[-1, 0, 0, 1], [1, -1]]

    def padded(values):
        made = forest(parents=parents, values=values)
        out = made.padded_values()
        assert out.shape == (2, 4, 2) and out[1, 2:].abs().sum() == 0
        return out * out

    assert torch.autograd.gradcheck(padded, flat)
    assert torch.autograd.gradgradcheck(padded, flat)
    assert torch.autograd.gradcheck(lambda x: forest(parents=parents).unpad(x), padded(flat).detach().requires_grad_())


def test_gradient_of_values_per_tree_and_per_node():
    first, second = torch.randn(2, 3, requires_grad=True), torch.randn(1, 3, requires_grad=True)
    forest(parents=[[-1, 0], [-1]], values=[first, second]).padded_values().sum().backward()
    assert first.grad.tolist() == [[1] * 3] * 2 and second.grad.tolist() == [[1] * 3]
    node = torch.randn(3, requires_grad=True)
    forest([(None, [node, node])]).padded_values().sum().backward()
    assert node.grad.tolist() == [2, 2, 2]


def test_padding_made_in_inference_mode_serves_training():
    cache_clear()
    with torch.inference_mode():
        forest(parents=[[-1, 0], [-1]], values=torch.ones(3)).padded_values()
    values = torch.ones(3, requires_grad=True)
    forest(parents=[[-1, 0], [-1]], values=values).padded_values().sum().backward()
    assert values.grad.tolist() == [1, 1, 1]


# ---------------------------------------------------------------- sizes: none, one, very deep


def test_empty_forest():
    for made in (forest([]), forest(parents=[], values=[]), forest(parents=[], sizes=[], values=torch.zeros(0, 4))):
        assert len(made) == 0 and made.parent.size == 0 and made.values.shape[0] == 0
        order, offsets = made.levels()
        assert order.size == 0 and offsets.tolist() == [0]
        assert made.padded().parent.shape == (0, 0) and made.padded().root.shape == (0,)
        assert made.padded_values().shape == (0, 0, *made.values.shape[1:])
        assert made.unpad(torch.zeros(0, 0, 5)).shape == (0, 5)
        assert "trees=0" in repr(made)
    assert forest([], children=list).values is None


def test_single_leaves():
    made = forest([1.0, torch.tensor(2.0), (3.0, [])])
    assert columns(made) == [(-1, 0, 0, 0)] * 3 and made.values.tolist() == [1, 2, 3]
    assert made.levels()[1].tolist() == [0, 3]


@pytest.mark.parametrize("depth", [1000, 100_000])
def test_chains(depth):
    tree, node = (depth, []), SimpleNamespace(value=depth, children=[])
    for value in range(depth - 1, -1, -1):
        tree, node = (value, [tree]), SimpleNamespace(value=value, children=[node])
    nested = forest([tree, 7])
    objects = forest([node], children=lambda each: each.children, value=lambda each: each.value)
    arrays = forest(parents=[chain(depth)], values=np.arange(depth + 1))
    while node.children:  # let the objects go one by one: their own destructor is recursive
        node = node.children.pop()
    for made in (nested, objects, arrays):
        assert made.height[: depth + 1].tolist() == list(range(depth, -1, -1))
        assert made.values[: depth + 1].tolist() == list(range(depth + 1))
    backwards = forest(parents=[np.append(np.arange(1, depth + 1), -1)])
    assert backwards.root.tolist() == [depth] and (backwards.height == np.arange(depth + 1)).all()


def test_wide_and_many():
    star = forest(parents=[np.append(-1, np.zeros(200_000, dtype=np.int64))])
    assert star.arity[0] == 200_000 and (star.slot[1:] == np.arange(200_000)).all()
    many = forest(parents=np.tile(chain(1), 70_000), sizes=np.full(70_000, 2))
    assert (many.height.reshape(-1, 2) == [1, 0]).all() and (many.root == 0).all()
    random = np.random.default_rng(0)
    parent = np.append(-1, random.integers(0, np.arange(1, 150_000)))
    made = forest(parents=[parent])
    height = np.zeros(150_000, dtype=np.int64)
    for node in range(149_999, 0, -1):
        height[parent[node]] = max(height[parent[node]], height[node] + 1)
    assert (made.height == height).all()


# ---------------------------------------------------------------- kinds


def test_kinds_by_function():
    def kind(node):
        return "leaf" if not node.children else "inner"

    tree = as_object((1, [(2, []), (3, [(4, [])])]))
    made = forest([tree], children=lambda node: node.children, kind=kind, kinds=["leaf", "inner"])
    assert made.kinds == ("leaf", "inner") and made.kind.tolist() == [1, 0, 1, 0] and made.kind.dtype == np.int64
    assert forest([tree], children=lambda node: node.children, kind=kind).kinds == ("inner", "leaf")
    assert "kinds=2" in repr(made)
    assert made.to("cpu").kinds == made.kinds
    assert forest([1]).kind is None and forest([1]).kinds == ()


def test_kinds_by_number():
    flat = forest(parents=[[-1, 0], [-1]], kind=torch.tensor([2, 0, 1]))
    assert flat.kinds == (0, 1, 2) and flat.kind.tolist() == [2, 0, 1]
    per_tree = forest(parents=[[-1, 0], [-1]], kind=[[1, 0], np.array([1])], kinds=("x", "y"))
    assert per_tree.kinds == ("x", "y") and per_tree.kind.tolist() == [1, 0, 1]


# ---------------------------------------------------------------- errors


def cyclic_tuple():
    children: list = []
    children.append((1, [(2, children)]))
    return children[0]


def cyclic_object():
    node = as_object((1, [(2, [])]))
    node.children[0].children.append(node)
    return node


def sharing_object():
    node = as_object((1, [(2, [(3, [])]), (4, [])]))
    node.children[1].children.append(node.children[0])
    return node


def raises_at(name: str):
    def function(node):
        raise KeyError(name)

    return function


below = {"children": lambda node: node.children}
ERRORS = {
    "cycle in tuples": (lambda: forest([5, cyclic_tuple()]), "tree 1, node 2.*cyclic.*already node 0.*break the cycle"),
    "cycle in objects": (lambda: forest([cyclic_object()], **below), "tree 0, node 2.*cyclic.*already node 0"),
    "cycle in bare lists": (lambda: forest([[cyc := [], cyc.append(cyc)][:1]], leaf_value=int), "cyclic"),
    "shared object": (lambda: forest([sharing_object()], **below), "tree 0, node 4.*shared.*as node 1.*put a copy"),
    "list for a tree": (lambda: forest([1, (2, [[3]])]), "tree 1, node 1.*list.*Write"),
    "tuple of one": (lambda: forest([(1,)]), r"tree 0, node 0.*expected \(value, children\)"),
    "children no list": (lambda: forest([(1, 2)]), r"expected \(value, children\)"),
    "leaf None": (lambda: forest([1, (2, [None])]), "tree 1, node 1: a leaf has no value"),
    "empty tuple": (lambda: forest([((), 1)], leaf_value=int), "tree 0, node 1.*empty tuple.*leave the node out"),
    "children None": (
        lambda: forest([0], children=lambda node: None),
        "tree 0, node 0.*children= gave None.*empty one",
    ),
    "child None": (lambda: forest([0], children=lambda node: [None]), "tree 0, node 1.*Leave absent children out"),
    "children raises": (lambda: forest([0], children=raises_at("x")), "tree 0, node 0.*children= raised KeyError"),
    "value raises": (lambda: forest([1, (2, [3])], value={1: 1, 2: 1}.__getitem__), "tree 1, node 1.*value= raised"),
    "leaf_value raises": (lambda: forest([(1, 2)], leaf_value=raises_at("x")), "tree 0, node 1.*leaf_value= raised"),
    "kind raises": (lambda: forest([1], kind=raises_at("x")), "tree 0, node 0.*kind= raised"),
    "one tree, tuple": (lambda: forest((1, [2])), r"Expected a list of trees.*forest\(\[tree\]\)"),
    "one tree, object": (lambda: forest(ast.parse("1"), children=ast.iter_child_nodes), r"write\s+forest\(\[tree\]\)"),
    "word for a value": (lambda: forest([(1, ["two"])]), "tree 0, node 1.*'two'.*str.*value="),
    "array of objects": (lambda: forest([np.array(["a"])]), "tree 0, node 0.*not a number"),
    "shapes differ": (lambda: forest([np.ones(2), (np.ones(2), [np.ones(3)])]), r"tree 1, node 1.*shape \[3\].*\[2\]"),
    "structures differ": (lambda: forest([({"a": 1}, [{"b": 1}])]), "tree 0, node 1.*not built like"),
    "tuple, number": (lambda: forest([((1, 2), [3])]), "tree 0, node 1.*not built like"),
    "number too large": (lambda: forest([1, (2, [1 << 80])]), "tree 1, node 1.*does not fit"),
    "parent too large": (lambda: forest(parents=[[-1], [-1, 2]]), "tree 1, node 1: its parent 2.*0 to 1.*within each"),
    "parent below -1": (lambda: forest(parents=[[-1, 0, -2]]), "tree 0, node 2: its parent -2 is out of range"),
    "two roots": (lambda: forest(parents=[[-1, 0], [-1, 0, -1]]), "tree 1, node 2: a second root.*node 0.*exactly one"),
    "no root": (lambda: forest(parents=[[-1, 0], [1, 2, 0]]), "tree 1, nodes 0 to 2: no root.*exactly one"),
    "root balance": (lambda: forest(parents=[[-1, -1], [1, 0]]), "tree 0, node 1: a second root"),
    "cyclic parents": (
        lambda: forest(parents=[[-1, 0], [-1, 4, 0, 1, 3, 1]]),
        "tree 1, node 1: .*cyclic: 1 -> 4 -> 3 -> 1.*break the cycle",
    ),
    "own parent": (lambda: forest(parents=[[-1, 1]]), "tree 0, node 1: .*cyclic: 1 -> 1"),
    "long cycle": (
        lambda: forest(parents=[np.concatenate([[-1, 50_000], np.arange(1, 50_000)])]),
        r"tree 0, node 1: .*cyclic: 1 -> 50000 -> 49999 -> .*\.\.\. -> 1",
    ),
    "no nodes": (lambda: forest(parents=[[-1], []]), "tree 1, no node at all.*Drop the tree"),
    "no nodes, sizes": (lambda: forest(parents=[-1], sizes=[1, 0]), "tree 1, no node at all"),
    "flat without sizes": (lambda: forest(parents=np.array([-1, 0])), "sizes= is not given.*one parent array per tree"),
    "flat list without sizes": (lambda: forest(parents=[-1, 0]), "tree 0: its parent array.*give sizes="),
    "sizes add up": (lambda: forest(parents=[-1, 0], sizes=[1]), "1 nodes, and parents= has 2"),
    "sizes negative": (
        lambda: forest(parents=[-1, 0], sizes=[3, -1]),
        r"sizes= is \[3, -1\].*number of nodes of each tree",
    ),
    "float parents": (lambda: forest(parents=[np.array([-1.0, 0.0])]), "tree 0.*float64.*integers"),
    "ragged parents": (lambda: forest(parents=[[[-1], [0, 1]]]), "tree 0.*integers"),
    "rows of values": (lambda: forest(parents=[[-1, 0]], values=np.ones(3)), r"shape \[3\].*each of the 2 nodes"),
    "lists of values": (lambda: forest(parents=[[-1], [-1]], values=[np.ones(1)]), "1 arrays for 2 trees"),
    "rows per tree": (lambda: forest(parents=[[-1], [-1]], values=[[1], [1, 2]]), r"tree 1: values= .*\[2\].*\[1\]"),
    "values no array": (lambda: forest(parents=[[-1]], values=[{"a": 1}]), "tree 0: values=.*no numeric array"),
    "kind unlisted": (lambda: forest([(1, [2])], kind=str, kinds=["1"]), "tree 0, node 1: kind= gave '2'.*one of"),
    "kind not hashable": (lambda: forest([1], kind=lambda node: []), "tree 0, node 0.*hashable"),
    "kinds twice": (lambda: forest([1], kind=str, kinds=["1", "1"]), "names a kind twice"),
    "kinds not hashable": (lambda: forest([1], kind=str, kinds=[[]]), "not hashable"),
    "kinds alone": (lambda: forest([1], kinds=["1"]), "kinds= is given without kind="),
    "kind out of range": (lambda: forest(parents=[[-1, 0]], kind=[0, 2], kinds="ab"), "tree 0, node 1: kind 2.*0 to 1"),
    "kind length": (lambda: forest(parents=[[-1, 0]], kind=[0]), "1 entries for 2 nodes"),
    "kind layout": (lambda: forest(parents=[[-1, 0]], kind=[[0]]), "same layout as parents="),
    "kind function": (lambda: forest(parents=[[-1]], kind=str), "function beside parents="),
    "nothing": (lambda: forest(), "neither trees nor parents="),
    "two forms": (lambda: forest([1], parents=[[-1]]), "both trees and parents="),
    "children beside parents": (lambda: forest(parents=[[-1]], children=list), "children= belongs to trees"),
    "values beside trees": (lambda: forest([1], values=[1]), "belong to parents="),
    "value and leaf_value": (lambda: forest([1], value=int, leaf_value=int), "exclude each other"),
    "unpad": (lambda: forest([1, 2]).unpad(torch.ones(2, 3)), r"\[2, 3\]. Expected \[2, 1\]"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_the_place_and_the_fix(name):
    call, message = ERRORS[name]
    with pytest.raises(TreeError) as caught:
        call()
    assert re.search(message, str(caught.value)), str(caught.value)


# ---------------------------------------------------------------- the cache


def test_cache_hit():
    cache_clear()
    first = forest(parents=[[-1, 0, 0], [-1]])
    assert cache_info() == (0, 1, 1, 4)
    second = forest(parents=np.array([-1, 0, 0, -1]), sizes=[3, 1], values=torch.ones(4))
    assert cache_info() == (1, 1, 1, 4) and second.topology is first.topology
    assert forest([(1, [2, 3]), 4]).topology is first.topology, "one cache for all input forms"
    assert second.padded().parent is first.padded().parent
    assert forest(parents=[[-1], [-1, 0, 0]]).topology is not first.topology
    assert forest(parents=[-1, -1, 0, 0], sizes=[1, 3]).topology is not first.topology
    assert forest(parents=[[-1, 0, 1], [-1]]).topology is not first.topology
    cache_clear()
    assert cache_info() == (0, 0, 0, 0)


def test_cache_is_bounded_and_forgets_the_oldest(monkeypatch):
    monkeypatch.setattr(forest_module, "_cache", forest_module._TopologyCache(entries=3, nodes=100))
    for depth in range(5):
        forest(parents=[chain(depth)])
    assert cache_info().entries == 3
    forest(parents=[chain(2)])
    assert cache_info().hits == 1, "the oldest that is still held"
    forest(parents=[chain(5)])
    forest(parents=[chain(2)])
    assert cache_info().hits == 2, "use keeps an entry"
    forest(parents=[chain(89)])
    assert cache_info().nodes <= 100
    forest(parents=[chain(500)])
    assert cache_info().nodes <= 100, "larger than the whole cache: not kept"


def test_a_refused_forest_is_not_cached():
    cache_clear()
    for _ in range(2):
        with pytest.raises(TreeError):
            forest(parents=[[0]])
    assert cache_info().entries == 0


def test_many_threads(monkeypatch):
    monkeypatch.setattr(forest_module, "_cache", forest_module._TopologyCache(entries=4, nodes=10_000))
    failures = []

    def work(seed):
        random = np.random.default_rng(seed)
        for _ in range(200):
            depth = int(random.integers(1, 12))
            if forest(parents=[chain(depth)]).height.max() != depth:
                failures.append(depth)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    info = cache_info()
    assert not failures and info.hits + info.misses == 1600 and info.entries <= 4


# ---------------------------------------------------------------- the object itself


def test_repr_and_copies():
    made = forest([(1.0, [2.0, (3.0, [4.0])]), 5.0])
    assert repr(made) == "Forest(trees=2, nodes=5, levels=3, values=float32[5])"
    for twin in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):
        assert columns(twin) == columns(made) and twin.values.tolist() == made.values.tolist()


def test_to_and_device():
    made = forest(parents=[[-1, 0]], values=(torch.ones(2), torch.zeros(2, 3)))
    moved = made.to("meta")
    assert made.device.type == "cpu" and moved.device.type == "meta" and moved.topology is made.topology
    assert [tensor.device.type for tensor in moved.values] == ["meta", "meta"]
    assert moved.padded_values()[1].shape == (1, 2, 3)


def test_examples_in_the_docstrings():
    assert doctest.testmod(forest_module).failed == 0
