"""Steps that change their carry, or take and give something else than a step does."""

from typing import NamedTuple

import foldfuse as ff

from .case import mistake


class Memory(NamedTuple):
    h: object
    c: object


numbers = ff.Seq(ff.f32[3])


@mistake(ff.CarryError, "fold(step)", "takes carry[1].h as f32[3]", "gives f32[6]")
def shape_of_a_leaf():
    def step(carry, x):
        count, memory = carry
        return count + 1, Memory(ff.concat(memory.h, x), memory.c)

    return ff.compile(ff.fold(step, init=(0.0, Memory(ff.zeros(3), ff.zeros(3)))), numbers)  # here


@mistake(ff.CarryError, "scan(step)", "carry[0]", "i64", "f32", "0.0")
def dtype_of_a_leaf():
    def step(carry, x):
        total, h = carry
        return total + ff.sum(x), h

    return ff.compile(ff.scan(step, init=(0, ff.zeros(3))), numbers)  # here


@mistake(ff.CarryError, "carry['h'] as f32[3]", "gives f32")
def leaf_of_a_dict():
    def step(carry, x):
        return {"h": ff.sum(x), "c": carry["c"]}

    return ff.compile(ff.fold(step, init={"h": ff.zeros(3), "c": 0.0}), numbers)  # here


@mistake(ff.CarryError, "scan(step)", "(f32[3], f32[3], f32[3])", "(f32[3], f32[3])", "(carry, output)")
def number_of_parts():
    def step(carry, x):
        h, c = carry
        return h + x, c, h

    return ff.compile(ff.scan(step, init=(ff.zeros(3), ff.zeros(3))), numbers)  # here


@mistake(ff.CarryError, "fold(<lambda>)", "f32[3]", "(f32[3], f32[3])")
def part_of_the_carry():
    cell = ff.fold(lambda s, x: s[0] + x, init=(ff.zeros(3), ff.zeros(3)))  # here
    return ff.compile(cell, numbers)


@mistake(ff.CarryError, "unfold(<lambda>)", "the carry as f32[3]", "gives f32[4]")
def shape_in_an_unfold():
    grow = lambda s: (ff.concat(s, ff.zeros(1)), s)
    return ff.compile(ff.unfold(grow, length=3), ff.f32[3])  # here


@mistake(ff.StructureError, "step(s)", "2 arguments", "f32[3]", "unpack")
def too_few_parameters():
    def step(s):
        return s

    return ff.compile(ff.fold(step, init=ff.zeros(3)), numbers)  # here


@mistake(ff.StructureError, "step(h, c, x)", "2 arguments", "(f32[3], f32[3])", "unpack")
def too_many_parameters():
    def step(h, c, x):
        return (h, c), h

    return ff.compile(ff.scan(step, init=(ff.zeros(3), ff.zeros(3))), numbers)  # here


@mistake(ff.StructureError, "1 argument", "(a, b)")
def parameters_of_a_map():
    return ff.compile(ff.zip >> ff.map(lambda a, b: a + b), numbers, numbers)  # here


@mistake(ff.StructureError, "ff.fold takes a function", "3")
def no_function():
    return ff.fold(3, init=0.0)  # here


@mistake(ff.StructureError, "ff.fold runs over a list", "f32[3]")
def over_an_array():
    total = ff.fold(lambda s, x: s + x, init=0.0)  # here
    return ff.compile(total, ff.f32[3])


@mistake(ff.StructureError, "without init=", "(init, list)", "Seq(f32[3])")
def without_init():
    total = ff.fold(lambda s, x: s + x)  # here
    return ff.compile(total, numbers)


@mistake(ff.StructureError, "only the sizes", "init=")
def init_reads_values():
    total = ff.fold(lambda s, x: s + x, init=lambda x: x * 2)  # here
    return ff.compile(total, numbers)


@mistake(ff.StructureError, "(state, logits)", "f32[3]")
def feedback_without_logits():
    speak = ff.feedback(lambda s, y: s, ff.greedy)  # here
    return ff.compile(lambda s: ff.unfold(speak, length=3)((s, 0)), ff.f32[3])


@mistake(ff.StructureError, "ff.feedback", "(state, last output)", "f32[3]")
def feedback_without_the_last_output():
    speak = ff.feedback(lambda s, y: (s, s), ff.greedy)  # here
    return ff.compile(ff.unfold(speak, length=3), ff.f32[3])


@mistake(ff.CarryError, "one branch of ff.switch gives the result as f32[3]", "another gives f32")
def branches_of_a_switch():
    def program(x):
        return ff.switch(0, [lambda: x, lambda: ff.sum(x)])  # here

    return ff.compile(program, ff.f32[3])


@mistake(ff.DtypeError, "index of ff.switch", "f32", "ff.where")
def condition_of_a_switch():
    return ff.compile(lambda x: ff.switch(x, [lambda: x, lambda: -x]), ff.f32)  # here


@mistake(ff.SizeError, "scan(<lambda>)", "carry", "never equal")
def size_of_a_list_in_the_carry():
    means = ff.window_map(lambda w: ff.mean(w, axis=0), 3)

    def program(frames, xs):
        return ff.scan(lambda s, _: means(s), init=xs)(frames)  # here

    return ff.compile(program, numbers, numbers)


@mistake(ff.StructureError, "ff.switch", "one branch or more")
def switch_without_branches():
    return ff.compile(lambda x: ff.switch(0, []), ff.f32[3])  # here


@mistake(ff.CarryError, "the operation of ff.reduce takes", "f32[3]", "gives f32")
def result_of_a_reduction():
    return ff.compile(ff.reduce(lambda a, b: ff.sum(a + b), ff.zeros(3)), numbers)  # here


@mistake(ff.ShapeError, "the identity of ff.reduce", "f32[2]", "f32[3]")
def identity_of_a_reduction():
    return ff.compile(ff.reduce(lambda a, b: a + b, ff.zeros(2)), numbers)  # here
