"""Lists: lengths, sizes that differ, empty ones where a value is needed."""

import torch

import foldfuse as ff

from .case import mistake

numbers = ff.Seq(ff.f32)


# --- lengths ----------------------------------------------------------------------------------------------------------


@mistake(ff.SizeError, "row 1", "length 6", "longer than the data", "0 to 5")
def length_beyond_the_data():
    return ff.ragged(torch.ones(2, 5, 3), [2, 6])  # here


@mistake(ff.SizeError, "row 0", "length -1", "negative")
def negative_length():
    return ff.ragged(torch.ones(2, 5, 3), torch.tensor([-1, 2]))  # here


@mistake(ff.SizeError, "[2]", "[3]")
def number_of_lengths():
    return ff.ragged(torch.ones(2, 5, 3), [1, 2, 3])  # here


@mistake(ff.SizeError, "[2]", "[]")
def one_length_for_all():
    return ff.ragged(torch.ones(2, 5, 3), 4)  # here


@mistake(ff.SizeError, "whole numbers", "torch.float32")
def lengths_of_floats():
    return ff.ragged(torch.ones(2, 5, 3), torch.tensor([1.0, 2.0]))  # here


@mistake(ff.SizeError, "row 1", "true again after it was false")
def mask_with_a_hole():
    mask = torch.tensor([[True, True, False], [True, False, True]])
    return ff.ragged(torch.ones(2, 3), mask)  # here


@mistake(ff.SizeError, "[2, 5]", "[2, 4]")
def shape_of_a_mask():
    return ff.ragged(torch.ones(2, 5, 3), torch.ones(2, 4, dtype=torch.bool))  # here


@mistake(ff.SizeError, "no row with elements")
def no_rows():
    return ff.ragged([])  # here


@mistake(ff.ShapeError, "row 1", "[4]", "[3]")
def rows_of_two_shapes():
    return ff.ragged([torch.ones(2, 3), torch.ones(2, 4)])  # here


@mistake(ff.DtypeError, "row 1", "torch.int64", "torch.float32")
def rows_of_two_dtypes():
    return ff.ragged([torch.ones(2), torch.ones(2, dtype=torch.int64)])  # here


@mistake(ff.DeviceError, "row 1", "meta", "cpu")
def rows_on_two_devices():
    return ff.ragged([torch.ones(2), torch.ones(2, device="meta")])  # here


@mistake(ff.StructureError, "without lengths", "ff.ragged(x, lengths)")
def tensor_without_lengths():
    return ff.ragged(torch.ones(2, 5))  # here


# --- sizes that differ ------------------------------------------------------------------------------------------------


def together():
    return ff.compile(lambda xs, ys: ff.sum(xs * ys), numbers, numbers)


@mistake(ff.SizeError, "ff.multiply", "5 from the first argument", "4 from the second", "equal lengths")
def padded_lists_of_two_lengths():
    net = together()
    return net(torch.ones(2, 5), torch.ones(2, 4))  # here


@mistake(ff.SizeError, "row 1", "3 from the first argument", "2 from the second", "equal lengths")
def ragged_lists_of_two_lengths():
    net = together()
    return net(ff.ragged(torch.ones(2, 5), [5, 3]), ff.ragged(torch.ones(2, 5), [5, 2]))  # here


@mistake(ff.SizeError, "row 1", "equal lengths")
def ragged_beside_padded():
    net = together()
    return net(ff.ragged(torch.ones(2, 5), [5, 3]), torch.ones(2, 5))  # here


@mistake(ff.SizeError, "(T)", "5", "4")
def named_sizes_that_differ():
    net = ff.compile(lambda xs, ys: ff.sum(xs) + ff.sum(ys), ff.Seq(ff.f32, "T"), ff.Seq(ff.f32, "T"))
    return net(torch.ones(2, 5), torch.ones(2, 4))  # here


@mistake(ff.SizeError, "ff.zip", "never equal", "differ by 2")
def sizes_that_never_agree():
    means = ff.window_map(lambda w: ff.mean(w, axis=0), 3)
    return ff.compile(lambda xs: ff.zip(xs, means(xs)), numbers)  # here


@mistake(ff.SizeError, "3", "4")
def unfolds_of_two_lengths():
    count = lambda n: ff.unfold(lambda s: (s + 1, s), length=n)
    return ff.compile(lambda x: count(3)(x) + count(4)(x), ff.f32)  # here


@mistake(ff.SizeError, "3")
def list_beside_an_unfold():
    net = ff.compile(lambda x, ys: ff.unfold(lambda s: (s + 1, s), length=3)(x) + ys, ff.f32, numbers)
    return net(torch.ones(2), torch.ones(2, 4))  # here


@mistake(ff.StructureError, "Seq(Seq(f32))", "Grid(f32, 2)")
def list_beside_a_grid():
    return ff.compile(lambda xs, ys: xs + ys, ff.Seq(numbers), ff.Grid(ff.f32, 2))  # here


@mistake(ff.StructureError, "ff.zip takes lists", "f32[3]")
def zip_of_an_array():
    return ff.compile(lambda xs, y: ff.zip(xs, y), numbers, ff.f32[3])  # here


@mistake(ff.StructureError, "ff.unzip takes a list of tuples", "Seq(f32)")
def unzip_of_numbers():
    return ff.compile(lambda xs: ff.unzip(xs), numbers)  # here


@mistake(ff.StructureError, "ff.unzip takes a list of tuples", "f32[3]")
def unzip_of_an_array():
    return ff.compile(lambda x: ff.unzip(x), ff.f32[3])  # here


@mistake(ff.StructureError, "ff.shift", "(f32, f32)", "f32")
def shift_by_another_structure():
    return ff.compile(lambda xs: ff.shift(xs, (0.0, 0.0)), numbers)  # here


@mistake(ff.DtypeError, "ff.shift", "f32", "i64")
def shift_by_another_dtype():
    return ff.compile(lambda xs: ff.shift(xs, 0.5), ff.Seq(ff.i64))  # here


@mistake(ff.ShapeError, "ff.shift", "f32[2]", "f32[3]")
def shift_by_another_shape():
    return ff.compile(lambda xs: ff.shift(xs, ff.zeros(2)), ff.Seq(ff.f32[3]))  # here


@mistake(ff.SizeError, "known per call only", "ff.stack")
def list_made_an_array():
    return ff.compile(lambda xs: ff.stack(xs), numbers)  # here


@mistake(ff.StructureError, "ff.length takes a list", "f32[3]")
def length_of_an_array():
    return ff.compile(lambda x: ff.length(x), ff.f32[3])  # here


@mistake(ff.StructureError, "ff.map runs over a list", "f32[3]", "ff.Seq")
def map_of_an_array():
    double = ff.map(lambda x: 2 * x)  # here
    return ff.compile(double, ff.f32[3])


# --- empty lists ------------------------------------------------------------------------------------------------------


def reduced(function, *types):
    return ff.compile(function, *(types or (ff.Seq(ff.f32[2]),)))


@mistake(ff.EmptyError, "max over an empty list")
def max_of_an_empty_list():
    net = ff.compile(lambda xs: ff.max(xs), ff.Seq(ff.f32[2]))  # here
    return net(torch.ones(3, 0, 2))


@mistake(ff.EmptyError, "min over an empty list")
def min_of_an_empty_row():
    net = ff.compile(lambda xs: ff.min(xs), ff.Seq(ff.f32[2]))  # here
    return net(ff.ragged(torch.ones(3, 4, 2), [4, 0, 1]))


@mistake(ff.EmptyError, "mean", "empty list")
def mean_of_an_empty_row():
    net = ff.compile(lambda xs: ff.mean(xs), ff.Seq(ff.f32[2]))  # here
    return net(ff.ragged(torch.ones(3, 4, 2), [4, 0, 1]))


@mistake(ff.EmptyError, "mean", "empty list")
def mean_of_an_empty_list():
    net = ff.compile(lambda xs: ff.mean(xs), ff.Seq(ff.f32[5]))  # here
    return net(torch.ones(2, 0, 5))


@mistake(ff.EmptyError, "empty list")
def last_of_an_empty_row():
    net = ff.compile(lambda xs: xs[-1], ff.Seq(ff.f32[2]))  # here
    return net(ff.ragged(torch.ones(3, 4, 2), [4, 0, 1]))


@mistake(ff.EmptyError, "empty list")
def first_of_an_empty_row():
    net = ff.compile(lambda xs: xs[0], ff.Seq(ff.f32[2]))  # here
    return net(ff.ragged(torch.ones(3, 4, 2), [4, 0, 1]))


@mistake(ff.EmptyError, "empty list")
def first_of_an_empty_list():
    net = ff.compile(lambda xs: xs[0], ff.Seq(ff.f32[7]))  # here
    return net(torch.ones(2, 0, 7))


@mistake(ff.EmptyError, "empty list")
def softmax_over_an_empty_memory():
    def program(query, memory):
        weights = ff.softmax(ff.map(lambda k: ff.sum(k * query))(memory))  # here
        return ff.sum(weights * memory)

    net = ff.compile(program, ff.f32[2], ff.Seq(ff.f32[2]))
    return net(torch.ones(2, 2), ff.ragged(torch.ones(2, 4, 2), [4, 0]))


@mistake(ff.EmptyError, "empty list")
def softmax_over_an_empty_memory_inside_a_step():
    def program(queries, memory):
        def step(s, q):
            weights = ff.softmax(ff.map(lambda k: ff.sum(k * q))(memory))  # here
            return s + ff.sum(weights * memory)

        return ff.fold(step, init=ff.zeros(2))(queries)

    net = ff.compile(program, ff.Seq(ff.f32[2]), ff.Seq(ff.f32[2]))
    return net(torch.ones(2, 3, 2), ff.ragged(torch.ones(2, 4, 2), [4, 0]))


@mistake(ff.EmptyError, "empty axis", "f32[0]")
def max_of_an_empty_array():
    return ff.compile(lambda x: ff.max(x), ff.f32[0])  # here


@mistake(ff.EmptyError, "empty axis", "f32[0]")
def mean_of_an_empty_array():
    return ff.compile(lambda x: ff.mean(x), ff.f32[0])  # here


@mistake(ff.EmptyError, "empty axis", "f32[0]")
def argmax_of_an_empty_array():
    return ff.compile(lambda x: ff.argmax(x), ff.f32[0])  # here
