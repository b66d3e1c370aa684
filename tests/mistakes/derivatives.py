"""Derivatives that do not exist or are not offered."""

import torch

import foldfuse as ff

from .case import mistake


@mistake(ff.DerivativeError, "one float number", "f32[3]")
def of_a_vector():
    return ff.compile(ff.grad(lambda x: x * 2), ff.f32[3])  # here


@mistake(ff.DerivativeError, "one float number", "i64")
def of_a_whole_number():
    return ff.compile(ff.grad(lambda x: ff.argmax(x)), ff.f32[3])  # here


@mistake(ff.DerivativeError, "first argument", "i64", "only floats")
def by_a_whole_number():
    return ff.compile(lambda n: ff.grad(lambda m: m * 2.0)(n), ff.i64)  # here


@mistake(ff.StructureError, "ff.grad takes a function", "3")
def of_no_function():
    return ff.grad(3)  # here


@mistake(ff.StructureError, "ff.grad", "argument")
def by_nothing():
    return ff.compile(lambda x: ff.grad(lambda: 1.0)(), ff.f32)  # here


@mistake(ff.DerivativeError, "no forward-mode", "torch.func.jvp", "reverse mode")
def forward_mode():
    model = ff.compile(lambda x: ff.sum(ff.tanh(x)), ff.f32[3])
    x = torch.ones(2, 3)
    return torch.func.jvp(model, (x,), (x,))  # here


@mistake(ff.DerivativeError, "old vmap", "torch.func.vmap")
def old_vmap():
    model = ff.compile(lambda x: ff.sum(ff.exp(x)), ff.f32[3])
    return torch.autograd.functional.jacobian(model, torch.ones(2, 3), vectorize=True)  # here
