"""Arrays whose shapes, axes or dtypes do not fit."""

import numpy as np

import foldfuse as ff

from .case import mistake


@mistake(ff.ShapeError, "(3,)", "(4,)", "do not broadcast together", "one example")
def broadcast():
    return ff.compile(lambda x, y: x + y, ff.f32[3], ff.f32[4])  # here


@mistake(ff.ShapeError, "f32[3] @ f32[4, 5]", "3", "4")
def matmul():
    W = ff.param((4, 5), "W")

    def program(x):
        return ff.tanh(x @ W)  # here

    return ff.compile(program, ff.f32[3])


@mistake(ff.ShapeError, "@ takes vectors and matrices", "*")
def matmul_of_a_number():
    return ff.compile(lambda x: x @ x, ff.f32)  # here


@mistake(ff.ShapeError, "f32[2, 3, 4] @ f32[5, 4, 6]", "(2,)", "(5,)", "batch")
def matmul_of_batches():
    return ff.compile(lambda x, y: x @ y, ff.f32[2, 3, 4], ff.f32[5, 4, 6])  # here


@mistake(ff.ShapeError, "'i,i->'", "3", "4")
def einsum_extents():
    return ff.compile(lambda x, y: ff.einsum("i,i->", x, y), ff.f32[3], ff.f32[4])  # here


@mistake(ff.ShapeError, "'ij->i'", "'ij'", "f32[3]", "one example")
def einsum_rank():
    return ff.compile(lambda x: ff.einsum("ij->i", x), ff.f32[3])  # here


@mistake(ff.ShapeError, "2 operands", "1 is given")
def einsum_operands():
    return ff.compile(lambda x: ff.einsum("i,j->ij", x), ff.f32[3])  # here


@mistake(ff.ShapeError, "'i->j'", "output")
def einsum_output():
    return ff.compile(lambda x: ff.einsum("i->j", x), ff.f32[3])  # here


@mistake(ff.ShapeError, "f32[6]", "(4, 2)")
def reshape():
    return ff.compile(lambda x: x.reshape(4, 2), ff.f32[6])  # here


@mistake(ff.ShapeError, "f32[6]", "(4, -1)")
def reshape_with_a_free_axis():
    return ff.compile(lambda x: x.reshape(4, -1), ff.f32[6])  # here


@mistake(ff.ShapeError, "10", "4 equal chunks")
def chunk():
    return ff.compile(lambda x: ff.chunk(x, 4)[0], ff.f32[10])  # here


@mistake(ff.ShapeError, "whole number", "0")
def chunk_into_none():
    return ff.compile(lambda x: ff.chunk(x, 0), ff.f32[10])  # here


@mistake(ff.ShapeError, "[3, 4]", "10")
def split():
    return ff.compile(lambda x: ff.split(x, [3, 4])[0], ff.f32[10])  # here


@mistake(ff.ShapeError, "f32[2, 3]", "f32[4, 4]", "axis")
def concat():
    return ff.compile(lambda x, y: ff.concat(x, y, axis=0), ff.f32[2, 3], ff.f32[4, 4])  # here


@mistake(ff.ShapeError, "ff.stack", "(3,)", "(4,)")
def stack():
    return ff.compile(lambda x, y: ff.stack(x, y), ff.f32[3], ff.f32[4])  # here


@mistake(ff.ShapeError, "f32[3]", "(2,)")
def broadcast_to():
    return ff.compile(lambda x: ff.broadcast_to(x, 2), ff.f32[3])  # here


@mistake(ff.ShapeError, "k from 1 to 3", "5")
def top_k():
    return ff.compile(lambda x: ff.top_k(x, 5), ff.f32[3])  # here


@mistake(ff.ShapeError, "cross_entropy", "f32[5]", "i64[2]")
def cross_entropy():
    return ff.compile(lambda x, y: ff.cross_entropy(x, y), ff.f32[5], ff.i64[2])  # here


@mistake(ff.DtypeError, "cross_entropy", "ff.i64", "f32")
def cross_entropy_of_floats():
    return ff.compile(lambda x, y: ff.cross_entropy(x, y), ff.f32[5], ff.f32)  # here


@mistake(ff.AxisError, "axis 1", "rank 1", "per example")
def axis():
    return ff.compile(lambda x: ff.sum(x, axis=1), ff.f32[3])  # here


@mistake(ff.AxisError, "axis -3", "rank 2", "per example")
def negative_axis():
    return ff.compile(lambda x: ff.softmax(x, dim=-3), ff.f32[3, 4])  # here


@mistake(ff.AxisError, "whole number", "'rows'")
def axis_of_no_number():
    return ff.compile(lambda x: ff.mean(x, axis="rows"), ff.f32[3])  # here


@mistake(ff.AxisError, "2 indices", "rank 1", "per example")
def too_many_indices():
    return ff.compile(lambda x: x[0, 1], ff.f32[3])  # here


@mistake(ff.AxisError, "takes no axis", "ff.map")
def axis_of_a_list():
    return ff.compile(lambda xs: ff.sum(xs, axis=0), ff.Seq(ff.f32[3]))  # here


@mistake(ff.AxisError, "(0, 0)", "permutation")
def transpose_with_an_axis_twice():
    return ff.compile(lambda x: ff.transpose(x, 0, 0), ff.f32[3, 4])  # here


@mistake(ff.DtypeError, "ff.where is bool", "f32", "x > 0")
def condition_of_numbers():
    return ff.compile(lambda x: ff.where(x, x, 0.0), ff.f32[3])  # here


@mistake(ff.DtypeError, "ff.cast takes a dtype", "'float32'")
def cast_to_no_dtype():
    return ff.compile(lambda x: ff.cast(x, "float32"), ff.f32[3])  # here


@mistake(ff.StructureError, "ff.tanh takes arrays", "(f32[3], f32[3])")
def product_where_an_array_belongs():
    return ff.compile(lambda x: ff.tanh((x, x)), ff.f32[3])  # here


@mistake(ff.StructureError, "no value of a program", "'abc'")
def no_value():
    return ff.compile(lambda x: x + "abc", ff.f32[3])  # here


@mistake(ff.StructureError, "None is no value of a program", "without a return")
def step_without_return():
    def program(x):
        ff.tanh(x)

    return ff.compile(program, ff.f32[3])  # here


@mistake(ff.ShapeError, "dense", "takes a vector", "x[None]")
def layer_on_a_number():
    return ff.compile(ff.dense(3), ff.f32)  # here


@mistake(ff.ShapeError, "features is a whole number", "f32[3]", "dense(features)(x)")
def layer_made_of_its_argument():
    return ff.compile(lambda x: ff.dense(x, 4), ff.f32[3])  # here


@mistake(ff.ShapeError, "count is a whole number", "f32[3]", "embedding(count, features)(x)")
def table_made_of_its_argument():
    return ff.compile(lambda x: ff.embedding(x, 4), ff.f32[3])  # here


@mistake(ff.ShapeError, "features is a whole number", "2.5")
def half_a_feature():
    return ff.dense(2.5)  # here


@mistake(ff.ShapeError, "size is a whole number", "0", "max_pool(size)(x)")
def empty_windows():
    return ff.max_pool((2, 0))  # here


@mistake(ff.ShapeError, "groups is a whole number", "0")
def no_groups():
    return ff.group_norm(0)  # here


@mistake(ff.ShapeError, "features is a whole number", "f32[3]", "conv(features, size)(x)")
def convolution_made_of_its_argument():
    return ff.compile(lambda x: ff.conv(x, 3), ff.f32[3])  # here


@mistake(ff.ShapeError, "10 channels", "4 groups")
def group_norm():
    return ff.compile(ff.group_norm(4), ff.f32[10])  # here


@mistake(ff.ShapeError, "dropout", "in [0, 1)", "1.5")
def dropout():
    return ff.dropout(1.5)  # here


@mistake(ff.ShapeError, "whole numbers", "ff.f32[3, 4]", "2.5")
def shape_of_a_type():
    return ff.f32[2.5]  # here


@mistake(ff.ShapeError, "whole numbers", "-1")
def negative_extent():
    return ff.compile(lambda x: x + ff.zeros(-1), ff.f32[3])  # here


@mistake(ff.ShapeError, "f32[6]", "(-2, -3)")
def reshape_to_negative_extents():
    return ff.compile(lambda x: x.reshape(-2, -3), ff.f32[6])  # here


@mistake(ff.UnknownNameError, "f32[3]", "'log_2'", "ff's functions")
def method_that_does_not_exist():
    return ff.compile(lambda x: x.log_2(), ff.f32[3])  # here


@mistake(ff.StructureError, "tanh(x)", "too many positional arguments")
def arguments_of_a_word():
    return ff.compile(lambda x: ff.tanh(x, x), ff.f32[3])  # here


@mistake(ff.DtypeError, "complex")
def complex_constant():
    return ff.compile(lambda x: x + np.ones(3, complex), ff.f32[3])  # here
