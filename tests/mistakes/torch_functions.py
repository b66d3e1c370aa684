"""torch's functions and modules in a step that cannot stand there."""

import torch
import torch.nn.functional as F
from torch import nn

import foldfuse as ff

from .case import mistake


@mistake(ff.StructureError, "torch's fft_fft", "no meaning", "ff's functions")
def function_without_a_meaning():
    return ff.compile(lambda x: torch.fft.fft(x), ff.f32[4])  # here


@mistake(ff.StructureError, "torch's kthvalue", "no meaning")
def another_function_without_a_meaning():
    return ff.compile(lambda x: torch.kthvalue(x, 2), ff.f32[4])  # here


@mistake(ff.StructureError, "torch's conv1d", "ff.conv")
def convolution():
    layer = nn.Conv1d(3, 4, 2)
    return ff.compile(lambda x: layer(x), ff.f32[3, 5])  # here


@mistake(ff.StructureError, "torch's max_pool2d", "ff.max_pool")
def pool():
    return ff.compile(lambda x: F.max_pool2d(x, 2), ff.f32[3, 4, 4])  # here


@mistake(ff.AxisError, "batch statistics", "layer_norm", "batched=False")
def batch_norm():
    layer = nn.BatchNorm1d(4)
    return ff.compile(lambda x: layer(x), ff.f32[2, 4])  # here


@mistake(ff.StructureError, "takes arrays", "ff.cross_entropy")
def loss_of_lists():
    return ff.compile(lambda x, y: F.cross_entropy(x, y), ff.Seq(ff.f32[5]), ff.Seq(ff.i64))  # here


@mistake(ff.TraceError, "nn.LSTM", "nn.LSTMCell")
def recurrent_module():
    layer = nn.LSTM(3, 4)
    return ff.compile(lambda x: layer(x), ff.f32[5, 3])  # here


@mistake(ff.StructureError, "'big'", "'none', 'mean' or 'sum'")
def reduction():
    return ff.compile(lambda x, y: F.mse_loss(x, y, reduction="big"), ff.f32[3], ff.f32[3])  # here


@mistake(ff.StructureError, "out=")
def result_written_into_a_tensor():
    return ff.compile(lambda x: torch.tanh(x, out=torch.zeros(3)), ff.f32[3])  # here


@mistake(ff.StructureError, "torch's round", "these arguments: it got an unexpected keyword argument 'decimals'")
def argument_without_a_meaning():
    return ff.compile(lambda x: torch.round(x, decimals=2), ff.f32[3])  # here


@mistake(ff.StructureError, "torch's softmax", "dtype=", "ff.cast")
def dtype_of_the_result():
    return ff.compile(lambda x: F.softmax(x, 0, dtype=torch.float64), ff.f32[3])  # here


@mistake(ff.StructureError, "norm of order 1")
def order_of_a_norm():
    return ff.compile(lambda x: torch.linalg.vector_norm(x, ord=1), ff.f32[3])  # here


@mistake(ff.ShapeError, "layer_norm", "(5,)", "(1,)")
def shape_of_a_normalisation():
    norm = nn.LayerNorm(5)
    return ff.compile(lambda x: norm(x), ff.f32[1])  # here


@mistake(ff.AxisError, "axis 1", "rank 1", "per example")
def axis():
    return ff.compile(lambda x: torch.softmax(x, dim=1), ff.f32[3])  # here
