"""`ff.compile` and types."""

import torch

import foldfuse as ff

from .case import mistake


@mistake(ff.StructureError, "program", "no types", "ff.compile(f, ff.f32[3])")
def without_types():
    def program(x):
        return x

    return ff.compile(program)  # here


@mistake(ff.StructureError, "tanh", "no types", "ff.compile(f, ff.f32[3])")
def word_without_types():
    return ff.compile(ff.tanh)  # here


@mistake(ff.StructureError, "program(x, y)", "1 argument", "'y'")
def one_type_for_two_parameters():
    def program(x, y):
        return x + y

    return ff.compile(program, ff.f32)  # here


@mistake(ff.StructureError, "3 is not a type", "ff.f32[64]")
def no_type():
    return ff.compile(ff.tanh, 3)  # here


@mistake(ff.StructureError, "is not a type", "ff.f32[64]")
def torch_dtype():
    return ff.compile(ff.tanh, torch.float32)  # here


@mistake(ff.StructureError, "is not a type", "ff.f32[64]")
def tensor_as_a_type():
    return ff.compile(ff.tanh, torch.ones(3))  # here


@mistake(ff.StructureError, "is not a type", "tuple")
def list_as_a_type():
    return ff.compile(ff.zip, [ff.f32, ff.f32])  # here


@mistake(ff.StructureError, "'main'", "function or an expression", "the class Cell", "an object")
def class_instead_of_a_function():
    class Cell:
        pass

    return ff.compile(Cell, ff.f32)  # here


@mistake(ff.StructureError, "'main'", "function or an expression", "3")
def no_program():
    return ff.compile(3, ff.f32)  # here


@mistake(ff.StructureError, "entry point", "'loss'", "(expression, *types)")
def entry_without_types():
    return ff.compile({"loss": ff.tanh})  # here


@mistake(ff.StructureError, "one entry point or more")
def no_entries():
    return ff.compile({})  # here


@mistake(ff.StructureError, "each holds its own types", "'loss'")
def types_beside_entries():
    return ff.compile({"loss": (ff.tanh, ff.f32)}, ff.f32)  # here


@mistake(ff.StructureError, "memory=", "'recompute'", "'none'")
def memory():
    return ff.compile(ff.tanh, ff.f32, memory="none")  # here


@mistake(ff.StructureError, "gives nothing", "at least one array")
def nothing_returned():
    return ff.compile(lambda x: (), ff.f32)  # here


@mistake(ff.StructureError, "a tree is not returned", "every=True")
def tree_returned():
    return ff.compile(lambda t: t, ff.Tree(ff.f32))  # here


@mistake(ff.StructureError, "one dimension or more", "0")
def grid_without_dimensions():
    return ff.Grid(ff.f32, 0)  # here


@mistake(ff.StructureError, "ff.Seq", "is not a type")
def list_of_no_type():
    return ff.Seq("words")  # here


@mistake(ff.TreeError, "arity", "-1")
def tree_of_negative_arity():
    return ff.compile(ff.cata(lambda x, kids: x), ff.Tree(ff.f32, arity=-1))  # here


@mistake(ff.TreeError, "kinds", "'leaf'", "twice")
def tree_with_a_kind_twice():
    steps = {"leaf": lambda x, kids: x}
    return ff.compile(ff.cata(steps), ff.Tree(ff.f32, kinds=("leaf", "leaf")))  # here


@mistake(ff.StructureError, "f >> g takes a function", "3")
def composed_with_a_number():
    return ff.tanh >> 3  # here


@mistake(ff.StructureError, "f & g takes a function", "3")
def fanned_out_with_a_number():
    return ff.tanh & 3  # here


@mistake(ff.TraceError, "compiled model", "inside of a program", "compiled from")
def compiled_inside_of_a_program():
    return ff.compile(lambda x: ff.compile(ff.tanh, ff.f32)(x), ff.f32)  # here
