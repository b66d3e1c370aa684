"""Windows that do not fit, and settings without a meaning."""

import torch

import foldfuse as ff

from .case import mistake

numbers = ff.Seq(ff.f32[2])
total = lambda w: ff.sum(w, axis=0)


@mistake(ff.WindowError, "window of 5", "only 4", "smaller window")
def larger_than_the_list():
    sums = ff.window_map(total, 5)  # here
    net = ff.compile(sums, numbers)
    return net(torch.ones(2, 4, 2))


@mistake(ff.WindowError, "window of 3 with dilation 2", "5 elements", "only 4")
def dilated_beyond_the_list():
    sums = ff.window_map(total, 3, dilation=2)  # here
    net = ff.compile(sums, numbers)
    return net(torch.ones(2, 4, 2))


@mistake(ff.WindowError, "window of 7", "only 6")
def larger_than_the_padded_list():
    sums = ff.window_map(total, 7, padding=1)  # here
    net = ff.compile(sums, numbers)
    return net(torch.ones(2, 4, 2))


@mistake(ff.WindowError, "window of 3", "dimension 1", "only 2")
def larger_than_the_grid():
    layer = ff.conv(3, (2, 3))  # here
    net = ff.compile(layer, ff.Grid(ff.f32[2], 2))
    return net(torch.ones(2, 4, 2, 2))


@mistake(ff.WindowError, "window of 5", "only 4")
def larger_than_every_row():
    sums = ff.window_map(total, 5, stride=2)  # here
    net = ff.compile(sums, numbers)
    return net(ff.ragged(torch.ones(2, 4, 2), [4, 3]))


@mistake(ff.WindowError, "size=", "at least 1", "0")
def size_of_zero():
    return ff.compile(ff.window_map(total, 0), numbers)  # here


@mistake(ff.WindowError, "size=", "whole numbers", "2.5")
def size_of_a_float():
    return ff.compile(ff.window_map(total, 2.5), numbers)  # here


@mistake(ff.WindowError, "size=", "2 entries", "1 dimension")
def size_of_two_dimensions():
    return ff.compile(ff.window_map(total, (2, 2)), numbers)  # here


@mistake(ff.WindowError, "stride=", "at least 1", "0")
def stride_of_zero():
    return ff.compile(ff.window_map(total, 2, stride=0), numbers)  # here


@mistake(ff.WindowError, "dilation=", "at least 1", "-1")
def negative_dilation():
    return ff.compile(ff.window_map(total, 2, dilation=-1), numbers)  # here


@mistake(ff.WindowError, "padding=", "'valid', 'same', 'causal'", "'full'")
def padding_of_an_unknown_name():
    return ff.compile(ff.window_map(total, 2, padding="full"), numbers)  # here


@mistake(ff.WindowError, "padding=", "-1")
def negative_padding():
    return ff.compile(ff.window_map(total, 2, padding=-1), numbers)  # here


@mistake(ff.WindowError, "padding=", "1.5")
def padding_of_a_float():
    return ff.compile(ff.window_map(total, 2, padding=(1.5, 1)), numbers)  # here


@mistake(ff.WindowError, "fill=", "'zero'")
def fill_of_no_number():
    return ff.compile(ff.window_map(total, 2, padding="same", fill="zero"), numbers)  # here


@mistake(ff.WindowError, "padding alone", "pad less")
def maximum_of_padding_alone():
    return ff.compile(ff.max_pool(2, padding=2), numbers)  # here


@mistake(ff.StructureError, "ff.window_map runs over a list", "f32[3, 2]")
def over_an_array():
    return ff.compile(ff.window_map(total, 2), ff.f32[3, 2])  # here


@mistake(ff.StructureError, "Seq(Seq(f32[2]))", "lists")
def over_a_list_of_lists():
    return ff.compile(ff.window_map(total, 2), ff.Seq(numbers))  # here


@mistake(ff.StructureError, "conv(3, (2, 2))", "window of 2 dimensions", "Seq(f32[2])")
def convolution_of_two_dimensions_over_a_list():
    return ff.compile(ff.conv(3, (2, 2)), numbers)  # here


@mistake(ff.StructureError, "channels last", "Seq(f32)")
def convolution_without_channels():
    return ff.compile(ff.conv(3, 2), ff.Seq(ff.f32))  # here


@mistake(ff.StructureError, "conv(3, 2)", "list or grid", "f32[4, 2]")
def convolution_of_an_array():
    return ff.compile(ff.conv(3, 2), ff.f32[4, 2])  # here


@mistake(ff.ShapeError, "2 channels", "3 groups")
def groups():
    return ff.compile(ff.conv(3, 2, groups=3), numbers)  # here


@mistake(ff.ShapeError, "groups", "0")
def no_groups():
    return ff.compile(ff.conv(3, 2, groups=0), numbers)  # here
