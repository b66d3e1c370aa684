"""Parameters: names, shapes, initial values."""

import numpy as np
import torch

import foldfuse as ff

from .case import mistake


@mistake(ff.ParameterError, "two parameters are called 'left.W'", "first = ff.param", "ff.scope", "tie")
def one_name_twice():
    with ff.scope("left"):
        first = ff.param((3,), "W")
        second = ff.param((3,), "W")  # here
    return ff.compile(lambda x: x * first + second, ff.f32[3])


@mistake(ff.ParameterError, "two parameters are called 'cell.weight'")
def one_layer_name_twice():
    first = ff.dense(3, name="cell")
    second = ff.dense(3, name="cell")  # here
    return ff.compile(first >> second, ff.f32[3])


@mistake(ff.ParameterError, "'left'", "scope", "left.W")
def name_of_a_scope():
    left = ff.param((3,), "left")
    with ff.scope("left"):
        inner = ff.param((3,), "W")  # here
    return ff.compile(lambda x: x * left + inner, ff.f32[3])


@mistake(ff.ParameterError, "'forward'", "attribute", "Choose another name")
def name_of_a_method():
    forward = ff.param((3,), "forward")  # here
    return ff.compile(lambda x: x * forward, ff.f32[3])


@mistake(ff.ParameterError, "'train'", "attribute", "Choose another name")
def scope_with_the_name_of_a_method():
    with ff.scope("train"):
        W = ff.param((3,), "W")  # here
    return ff.compile(lambda x: x * W, ff.f32[3])


@mistake(ff.ParameterError, "without dots", "'a.b'")
def name_with_a_dot():
    return ff.param((3,), "a.b")  # here


@mistake(ff.ParameterError, "scope", "''")
def scope_without_a_name():
    with ff.scope(""):  # here
        pass


@mistake(ff.ShapeError, "whole numbers", "'W'")
def shape_of_no_numbers():
    return ff.param((3, "n"), "W")  # here


@mistake(ff.ShapeError, "'W'", "(4,)", "(3,)")
def initial_value_of_another_shape():
    return ff.param((3,), "W", init=np.zeros(4))  # here


@mistake(ff.ShapeError, "'W'", "(3, 3)", "(3,)")
def initial_function_of_another_shape():
    W = ff.param((3,), "W", init=lambda t: torch.eye(3))  # here
    return ff.compile(lambda x: x * W, ff.f32[3])


@mistake(ff.ParameterError, "init= of", "'W'", "'ones'")
def initial_value_of_no_kind():
    W = ff.param((3,), "W", init="ones")  # here
    return ff.compile(lambda x: x * W, ff.f32[3])


@mistake(ff.ShapeError, "inputs of two sizes", "(3, 2)", "(2, 2)", "second layer")
def layer_used_on_two_sizes():
    layer = ff.dense(2)

    def program(x):
        y = layer(x)
        return layer(y)  # here

    return ff.compile(program, ff.f32[3])


@mistake(ff.ShapeError, "inputs of two sizes", "second layer")
def layer_composed_with_itself():
    layer = ff.dense(2)  # here
    twice = layer >> layer
    return ff.compile(twice, ff.f32[3])


@mistake(ff.ParameterError, "computed under autograd", "input of the program")
def tensor_computed_under_autograd():
    weight = torch.ones(3, requires_grad=True) * 2
    return ff.compile(lambda x: x * weight, ff.f32[3])  # here


@mistake(ff.StructureError, "torch.complex64")
def tensor_without_a_meaning():
    weight = torch.ones(3, dtype=torch.complex64)
    return ff.compile(lambda x: x * weight, ff.f32[3])  # here
