"""Python where a traced value has no number yet."""

import math

import numpy as np

import foldfuse as ff

from .case import mistake

numbers = ff.Seq(ff.f32)


@mistake(ff.TraceError, "`if`", "ff.where(condition, a, b)")
def branch():
    def program(x):
        if x > 0:  # here
            return x
        return -x

    return ff.compile(program, ff.f32)


@mistake(ff.TraceError, "`while`", "until= of ff.unfold")
def loop():
    def step(s, x):
        while s < x:  # here
            s = s + 1
        return s

    return ff.compile(ff.fold(step, init=0.0), numbers)


@mistake(ff.TraceError, "`and`", "ff.logical_and")
def both():
    return ff.compile(lambda x: ff.where(x > 0 and x < 1, x, 0.0), ff.f32)  # here


@mistake(ff.TraceError, "`not`", "ff.logical_not")
def negated():
    return ff.compile(lambda x: ff.where(not x, x, 0.0), ff.f32)  # here


@mistake(ff.TraceError, "no number yet")
def float_of():
    return ff.compile(lambda x: float(x) + x, ff.f32)  # here


@mistake(ff.TraceError, "no number yet")
def int_of():
    return ff.compile(lambda x: int(x) + x, ff.f32)  # here


@mistake(ff.TraceError, "no number yet")
def item():
    return ff.compile(lambda x: x.item() + x, ff.f32)  # here


@mistake(ff.TraceError, "no number yet")
def as_a_range():
    return ff.compile(lambda n: sum(range(n)), ff.i64)  # here


@mistake(ff.TraceError, "no number yet")
def as_an_index_of_a_python_list():
    return ff.compile(lambda n: [1, 2, 3][n], ff.i64)  # here


@mistake(ff.TraceError, "no number yet", "ff.exp")
def math_function():
    return ff.compile(lambda x: math.exp(x), ff.f32)  # here


@mistake(ff.TraceError, "NumPy", "ff.exp")
def numpy_function():
    return ff.compile(lambda x: np.exp(x), ff.f32[3])  # here


@mistake(ff.TraceError, "NumPy")
def numpy_array():
    return ff.compile(lambda x: np.asarray(x), ff.f32[3])  # here


@mistake(ff.TraceError, "Python loop", "ff.map", "ff.scan")
def loop_over_a_list():
    def program(xs):
        total = 0.0
        for x in xs:  # here
            total = total + x
        return total

    return ff.compile(program, numbers)


@mistake(ff.TraceError, "Python loop", "ff.cata")
def loop_over_a_tree():
    return ff.compile(lambda t: [x for x in t], ff.Tree(ff.f32))  # here


@mistake(ff.TraceError, "len()", "ff.length(xs)")
def length_of_a_list():
    return ff.compile(lambda xs: ff.sum(xs) / len(xs), numbers)  # here


@mistake(ff.StructureError, "a number", "Python loop")
def loop_over_a_number():
    return ff.compile(lambda x: [y for y in x], ff.f32)  # here


@mistake(ff.TraceError, "belongs to another step or program", "carry")
def leaked_out_of_a_step():
    kept = []

    def step(s, x):
        kept.append(s * x)
        return s + x

    def program(xs):
        total = ff.fold(step, init=0.0)(xs)
        return total + kept[0]  # here

    return ff.compile(program, numbers)


@mistake(ff.TraceError, "belongs to another step or program")
def leaked_into_another_program():
    kept = []
    ff.compile(lambda x: kept.append(x) or x, ff.f32)
    return ff.compile(lambda x: x + kept[0], ff.f32)  # here


@mistake(ff.TraceError, "belongs to another step or program")
def leaked_as_a_result():
    kept = []
    ff.compile(lambda x: kept.append(x) or x, ff.f32)
    return ff.compile(lambda x: kept[0], ff.f32)  # here


@mistake(ff.TraceError, "outside of one", "ff.compile")
def leaked_out_of_the_program():
    kept = []
    ff.compile(lambda x: kept.append(x) or x, ff.f32)
    return kept[0] + 1  # here


@mistake(ff.TraceError, "outside of one", "ff.compile")
def parameter_outside_of_a_program():
    W = ff.param((3, 3), "W")
    return W @ W  # here


@mistake(ff.ParameterError, "no truth value")
def truth_of_a_parameter():
    return bool(ff.param((3,), "b"))  # here


@mistake(ff.TraceError, "fold(<lambda>) is called outside of a program", "ff.compile")
def combinator_outside_of_a_program():
    total = ff.fold(lambda s, x: s + x, init=0.0)
    return total([1.0, 2.0])  # here


@mistake(ff.TraceError, "outside of", "ff.compile")
def word_outside_of_a_program():
    return ff.tanh(0.5)  # here


@mistake(ff.TraceError, "outside of", "ff.compile")
def layer_outside_of_a_program():
    return ff.dense(3)(np.ones(3))  # here


@mistake(ff.TraceError, "cannot be changed", "ff.where")
def assignment_to_an_element():
    def program(x):
        x[0] = 1.0  # here
        return x

    return ff.compile(program, ff.f32[3])
