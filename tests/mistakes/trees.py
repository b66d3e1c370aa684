"""Trees that are none, and folds that do not fit them."""

import torch

import foldfuse as ff

from .case import mistake

total = ff.cata(lambda x, kids: x + ff.sum(kids))


def parents(*rows, **keywords):
    """A forest of one tree of numbers."""
    return ff.forest(parents=[list(rows)], values=[torch.ones(len(rows))], **keywords)


@mistake(ff.TreeError, "cycl", "1")
def cyclic():
    return ff.forest(parents=[[-1, 2, 1]], values=[torch.ones(3)])  # here


@mistake(ff.TreeError, "7", "0 to 2")
def dangling():
    return ff.forest(parents=[[-1, 0, 7]], values=[torch.ones(3)])  # here


@mistake(ff.TreeError, "second root")
def two_roots():
    return ff.forest(parents=[[-1, 0, -1]], values=[torch.ones(3)])  # here


@mistake(ff.TreeError, "root")
def no_root():
    return ff.forest(parents=[[1, 0]], values=[torch.ones(2)])  # here


@mistake(ff.TreeError, "1 -> 1")
def its_own_parent():
    return ff.forest(parents=[[-1, 1]], values=[torch.ones(2)])  # here


class Node:
    def __init__(self, value, *children):
        self.value, self.children = value, list(children)


@mistake(ff.TreeError, "cycl")
def cyclic_objects():
    node = Node(1.0)
    node.children.append(node)
    return ff.forest([node], children=lambda n: n.children, value=lambda n: n.value)  # here


@mistake(ff.TreeError, "3 children", "2", "arity=2")
def arity():
    left_right = ff.cata(lambda x, kids: x + kids[0] + kids[1], leaf=lambda x: x)
    net = ff.compile(left_right, ff.Tree(ff.f32, arity=2))
    return net([(1.0, [2.0, 3.0, 4.0])])  # here


@mistake(ff.IndexRangeError, "index 2", "2")
def child_beyond_the_arity():
    third = ff.cata(lambda x, kids: x + kids[2], leaf=lambda x: x)  # here
    net = ff.compile(third, ff.Tree(ff.f32, arity=2))
    return net([(1.0, [2.0, 3.0])])


@mistake(ff.IndexRangeError, "index 1", "list of 1")
def child_beyond_the_children():
    second = ff.cata(lambda x, kids: x + kids[1], leaf=lambda x: x)  # here
    net = ff.compile(second, ff.Tree(ff.f32))
    return net([(1.0, [2.0])])


@mistake(ff.EmptyError, "empty list")
def child_of_a_leaf():
    first = ff.cata(lambda x, kids: x + kids[0])  # here
    net = ff.compile(first, ff.Tree(ff.f32))
    return net([(1.0, [2.0])])


@mistake(ff.EmptyError, "max over an empty list")
def maximum_over_the_children_of_a_leaf():
    deepest = ff.cata(lambda x, kids: x + ff.max(kids))  # here
    net = ff.compile(deepest, ff.Tree(ff.f32))
    return net([(1.0, [2.0])])


@mistake(ff.TreeError, "arity 2", "leaf=")
def leaf_left_out():
    both = ff.cata(lambda x, kids: x + kids[0] + kids[1])  # here
    return ff.compile(both, ff.Tree(ff.f32, arity=2))


@mistake(ff.TraceError, "arity=", "leaf=")
def children_unpacked_without_a_leaf():
    def node(x, kids):
        left, right = kids  # here
        return x + left + right

    return ff.compile(ff.cata(node), ff.Tree(ff.f32))


@mistake(ff.TreeError, "cannot be inferred", "leaf=")
def result_of_children_alone():
    largest = ff.cata(lambda x, kids: kids[0])  # here
    return ff.compile(largest, ff.Tree(ff.f32))


@mistake(ff.TraceError, "shape", "leaf=")
def shape_of_an_unknown_result():
    grown = ff.cata(lambda x, kids: x + ff.sum(ff.map(lambda k: k * k.shape[0])(kids)))  # here
    return ff.compile(grown, ff.Tree(ff.f32[2]))


@mistake(ff.CarryError, "ff.cata takes the result of a child as f32[2]", "a node gives f32")
def node_of_another_type_than_leaf():
    fold = ff.cata(lambda x, kids: ff.sum(x) + ff.sum(ff.sum(kids)), leaf=lambda x: x)  # here
    return ff.compile(fold, ff.Tree(ff.f32[2]))


@mistake(ff.TreeError, "['add', 'mul']", "['add', 'neg']", "one step per kind")
def kinds_of_cata():
    fold = ff.cata({"add": lambda x, kids: x, "mul": lambda x, kids: x})  # here
    return ff.compile(fold, ff.Tree(ff.f32, kinds=("add", "neg")))


@mistake(ff.TreeError, "one step per kind", "no kinds")
def one_step_for_a_tree_with_kinds():
    fold = ff.cata({"add": lambda x, kids: x})  # here
    return ff.compile(fold, ff.Tree(ff.f32))


@mistake(ff.TreeError, "'pow'", "'add', 'neg'")
def kind_of_a_node():
    fold = ff.cata({"add": lambda x, kids: x + ff.sum(kids), "neg": lambda x, kids: -x})
    net = ff.compile(fold, ff.Tree(ff.f32, kinds=("add", "neg")))
    return net([(("add", 1.0), [(("pow", 2.0), [])])])  # here


@mistake(ff.TreeError, "no kinds", "kind=")
def forest_without_kinds():
    fold = ff.cata({"add": lambda x, kids: x + ff.sum(kids), "neg": lambda x, kids: -x})
    net = ff.compile(fold, ff.Tree(ff.f32, kinds=("add", "neg")))
    return net(parents(-1, 0))  # here


@mistake(ff.TreeError, "no values", "values=")
def forest_without_values():
    net = ff.compile(total, ff.Tree(ff.f32))
    return net(ff.forest(parents=[[-1, 0]]))  # here


@mistake(ff.TreeError, "takes trees", "a tensor [2, 3]", "ff.forest")
def tensor_instead_of_trees():
    net = ff.compile(total, ff.Tree(ff.f32))
    return net(torch.ones(2, 3))  # here


@mistake(ff.ShapeError, "[batch, nodes, 3]", "[1, 2, 4]")
def shape_of_the_values():
    net = ff.compile(total, ff.Tree(ff.f32[3]))
    return net(ff.forest(parents=[[-1, 0]], values=[torch.ones(2, 4)]))  # here


@mistake(ff.TreeError, "forest was given", "forest(trees)")
def forest_of_nothing():
    return ff.forest()  # here


@mistake(ff.TreeError, "2", "3")
def number_of_values():
    return ff.forest(parents=[[-1, 0, 0]], values=[torch.ones(2)])  # here


@mistake(ff.StructureError, "ff.cata folds a tree", "Seq(f32)")
def fold_of_a_list():
    fold = ff.cata(lambda x, kids: x)  # here
    return ff.compile(fold, ff.Seq(ff.f32))


@mistake(ff.StructureError, "tree inside of a list")
def trees_in_a_list():
    return ff.compile(ff.map(total), ff.Seq(ff.Tree(ff.f32)))  # here


@mistake(ff.StructureError, "node(x)", "2 arguments")
def node_of_one_parameter():
    def node(x):
        return x

    fold = ff.cata(node)  # here
    return ff.compile(fold, ff.Tree(ff.f32))


@mistake(ff.TreeError, "tree 0", "no node at all", "a root")
def tree_without_nodes():
    return ff.forest(parents=[[]], values=[torch.ones(0)])  # here


@mistake(ff.TreeError, "takes one tree", "forest of 0")
def empty_forest_where_a_tree_is_needed():
    net = ff.compile(total, ff.Tree(ff.f32), batched=False)
    return net(ff.forest(parents=[], values=[]))  # here
