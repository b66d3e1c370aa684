"""Calls whose arguments do not fit the types."""

import numpy as np
import torch

import foldfuse as ff

from .case import mistake

_MODELS = {}


def model(*types, program=None):
    """A model that gives its inputs' sums, made once per types."""
    if (types, program) not in _MODELS:
        total = program or (lambda *xs: tuple(ff.sum(x) for x in xs))
        _MODELS[types, program] = ff.compile(total, *types)
    return _MODELS[types, program]


@mistake(ff.StructureError, "takes 2 arguments, got 1", "f32[3]")
def too_few():
    net = model(ff.f32[3], ff.f32[4])
    return net(torch.ones(2, 3))  # here


@mistake(ff.StructureError, "takes 1 argument, got 2")
def too_many():
    net = model(ff.f32[3])
    return net(torch.ones(2, 3), torch.ones(2, 3))  # here


@mistake(ff.StructureError, "no entry point 'smaple'", "'loss', 'sample'")
def unknown_entry_point():
    net = ff.compile({"loss": (ff.tanh, ff.f32), "sample": (ff.exp, ff.f32)})
    return net(torch.ones(2), entry="smaple")  # here


@mistake(ff.ShapeError, "rank 2", "[batch, 3]", "rank 1", "[3]")
def without_a_batch():
    net = model(ff.f32[3])
    return net(torch.ones(3))  # here


@mistake(ff.ShapeError, "rank 3", "[batch, time, 3]", "rank 2")
def list_without_a_batch():
    net = model(ff.Seq(ff.f32[3]))
    return net(torch.ones(5, 3))  # here


@mistake(ff.ShapeError, "the second argument", "[batch, 4]", "[2, 5]")
def static_shape():
    net = model(ff.f32[3], ff.f32[4])
    return net(torch.ones(2, 3), torch.ones(2, 5))  # here


@mistake(ff.DtypeError, "torch.float32", "torch.float64", "x.to(torch.float32)")
def dtype():
    net = ff.compile(ff.dense(2), ff.f32[3])
    return net(torch.ones(2, 3, dtype=torch.float64))  # here


@mistake(ff.DtypeError, "torch.float32", "torch.int64")
def whole_numbers_for_floats():
    net = model(ff.f32[3])
    return net(torch.ones(2, 3, dtype=torch.int64))  # here


@mistake(ff.DtypeError, "torch.int64", "torch.float32")
def floats_for_whole_numbers():
    net = model(ff.i64[3])
    return net(torch.ones(2, 3))  # here


@mistake(ff.DtypeError, "torch.float32", "torch.complex64")
def complex_numbers():
    net = model(ff.f32[3])
    return net(torch.ones(2, 3, dtype=torch.complex64))  # here


@mistake(ff.DeviceError, "the second argument", "meta", "cpu", ".to(")
def two_devices():
    net = model(ff.f32[3], ff.f32[4])
    return net(torch.ones(2, 3), torch.ones(2, 4, device="meta"))  # here


@mistake(ff.DeviceError, "meta", "cpu", ".to(")
def another_device_than_the_parameters():
    W = ff.param((3,), "W")
    net = ff.compile(lambda x: x * W, ff.f32[3])
    return net(torch.ones(2, 3, device="meta"))  # here


@mistake(ff.SizeError, "2 examples", "3", "same batch")
def two_batches():
    net = model(ff.f32[3], ff.f32[4])
    return net(torch.ones(2, 3), torch.ones(3, 4))  # here


@mistake(ff.StructureError, "a tuple of 2", "a tensor [2, 3]")
def product():
    net = ff.compile(lambda p, x: p[0] + p[1] + x, (ff.f32[3], ff.f32[3]), ff.f32[3])
    return net(torch.ones(2, 3), torch.ones(2, 3))  # here


@mistake(ff.StructureError, "'h'", "'c'")
def keys_of_a_dict():
    net = ff.compile(lambda d: d["h"] + d["c"], {"h": ff.f32[3], "c": ff.f32[3]})
    return net({"h": torch.ones(2, 3), "k": torch.ones(2, 3)})  # here


@mistake(ff.StructureError, "a tensor [batch, time, 3]", "a list of 2", "ff.ragged")
def list_of_tensors():
    net = model(ff.Seq(ff.f32[3]))
    return net([torch.ones(4, 3), torch.ones(2, 3)])  # here


@mistake(ff.StructureError, "a Ragged", "a tensor [batch, 3]")
def ragged_for_an_array():
    net = model(ff.f32[3])
    return net(ff.ragged(torch.ones(2, 5, 3), [1, 2]))  # here


@mistake(ff.StructureError, "a tensor [batch, 3]", "a str")
def no_tensor():
    net = model(ff.f32[3])
    return net("abc")  # here


@mistake(ff.StructureError, "a tensor [batch, 3]", "a NoneType")
def none():
    net = model(ff.f32[3])
    return net(None)  # here


@mistake(ff.DtypeError, "torch.int64", "floats")
def numpy_dtype():
    net = model(ff.i64[3])
    return net(np.ones((2, 3)))  # here


@mistake(ff.ShapeError, "numbers alone", "[batch]")
def numbers_alone():
    net = model(ff.f32)
    return net(1.0)  # here


@mistake(ff.StructureError, "seed=", "whole number", "'yes'")
def seed():
    net = ff.compile(lambda x: x + ff.uniform(3), ff.f32[3])
    return net(torch.ones(2, 3), seed="yes")  # here


@mistake(ff.StructureError, "seed=", "whole number", "1.5")
def seed_of_a_float():
    net = ff.compile(lambda x: x + ff.uniform(3), ff.f32[3])
    return net(torch.ones(2, 3), seed=1.5)  # here


@mistake(ff.StructureError, "ff.tap")
def record_without_taps():
    net = model(ff.f32[3])
    return net.record(torch.ones(2, 3))  # here


@mistake(ff.StructureError, "eps is a number; got <traced f32[4]>", "layer_norm()(x)")
def a_layer_made_of_its_argument():
    step = lambda h, x: ff.tanh(ff.layer_norm(h + x))  # here
    return ff.compile(ff.scan(step, init=ff.zeros(4)), ff.Seq(ff.f32[4]))
