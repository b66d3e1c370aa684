"""Indices outside of the axis, table or list that they select from."""

import torch

import foldfuse as ff

from .case import mistake


@mistake(ff.IndexRangeError, "index 3", "axis of 3")
def static():
    return ff.compile(lambda x: x[3], ff.f32[3])  # here


@mistake(ff.IndexRangeError, "index -4", "axis of 3")
def static_and_negative():
    return ff.compile(lambda x: x[-4], ff.f32[3])  # here


@mistake(ff.IndexRangeError, "index 5", "axis of 3")
def static_list_of_indices():
    return ff.compile(lambda x: x[[0, 5]], ff.f32[3])  # here


@mistake(ff.DtypeError, "an index is a whole number", "f32")
def float_as_an_index():
    return ff.compile(lambda x, i: x[i], ff.f32[3], ff.f32)  # here


@mistake(ff.DtypeError, "an index is a whole number", "'h'")
def name_as_an_index():
    return ff.compile(lambda x: x["h"], ff.f32[3])  # here


@mistake(ff.IndexRangeError, "out of range")
def two_computed_indices():
    net = ff.compile(lambda x, i: x[i, i], ff.f32[3, 4], ff.i64)  # here
    return net(torch.ones(2, 3, 4), torch.tensor([0, 3]))


@mistake(ff.DtypeError, "whole number", "f32")
def embedding_of_floats():
    return ff.compile(ff.embedding(10, 4), ff.f32)  # here


@mistake(ff.IndexRangeError, "index 10", "table of 10", "0 to 9")
def token_beyond_the_table():
    read = ff.map(ff.embedding(10, 4))  # here
    net = ff.compile(read, ff.Seq(ff.i64))
    return net(torch.tensor([[1, 2], [3, 10]]))


@mistake(ff.IndexRangeError, "index -1", "table of 10", "0 to 9")
def negative_token():
    read = ff.map(ff.embedding(10, 5))  # here
    net = ff.compile(read, ff.Seq(ff.i64))
    return net(torch.tensor([[1, 2], [3, -1]]))


@mistake(ff.IndexRangeError, "index 3")
def computed():
    net = ff.compile(lambda x, i: x[i], ff.f32[3], ff.i64)  # here
    return net(torch.ones(2, 3), torch.tensor([0, 3]))


@mistake(ff.IndexRangeError, "index 5")
def target_beyond_the_classes():
    net = ff.compile(lambda x, y: ff.cross_entropy(x, y), ff.f32[5], ff.i64)  # here
    return net(torch.ones(2, 5), torch.tensor([0, 5]))


@mistake(ff.IndexRangeError, "index 4", "list of 4")
def element_beyond_a_list():
    net = ff.compile(lambda xs, i: xs[i], ff.Seq(ff.f32), ff.i64)  # here
    return net(torch.ones(2, 4), torch.tensor([0, 4]))


@mistake(ff.IndexRangeError, "index 2", "list of 2")
def element_beyond_a_row():
    net = ff.compile(lambda xs, i: xs[i], ff.Seq(ff.f32[2]), ff.i64)  # here
    return net(ff.ragged(torch.ones(2, 4, 2), [4, 2]), torch.tensor([3, 2]))


@mistake(ff.IndexRangeError, "index 3", "list of 2")
def static_index_beyond_a_row():
    net = ff.compile(lambda xs: xs[3], ff.Seq(ff.f32))  # here
    return net(ff.ragged(torch.ones(2, 4), [4, 2]))


@mistake(ff.StructureError, "slices of lists", "ff.window_map")
def slice_of_a_list():
    return ff.compile(lambda xs: xs[1:], ff.Seq(ff.f32))  # here


@mistake(ff.StructureError, "a grid is not indexed", "ff.map", "map over it")
def element_of_a_grid():
    return ff.compile(lambda xs: xs[1], ff.Grid(ff.f32, 2))  # here


@mistake(ff.DtypeError, "the index of a list is one whole number", "f32")
def float_as_an_index_of_a_list():
    return ff.compile(lambda xs, i: xs[i], ff.Seq(ff.f32), ff.f32)  # here


@mistake(ff.IndexRangeError, "index 2", "2")
def branch_beyond_the_branches():
    net = ff.compile(lambda x, i: ff.switch(i, [lambda: x, lambda: -x]), ff.f32, ff.i64)  # here
    return net(torch.ones(2), torch.tensor([0, 2]))


@mistake(ff.AxisError, "axis 2", "rank 2")
def axis_of_take():
    return ff.compile(lambda x, i: ff.take(x, i, axis=2), ff.f32[3, 3], ff.i64)  # here
