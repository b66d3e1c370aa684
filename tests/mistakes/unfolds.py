"""Unfolds: how they end, and what they choose."""

import torch

import foldfuse as ff

from .case import mistake

count = lambda s: (s + 1, s)


@mistake(ff.SizeError, "either length= or until=", "neither")
def without_an_end():
    return ff.unfold(count)  # here


@mistake(ff.SizeError, "either length= or until=", "both")
def two_ends():
    return ff.unfold(count, length=3, until=lambda y: y > 3)  # here


@mistake(ff.SizeError, "length=", "whole number", "-1")
def negative_length():
    return ff.unfold(count, length=-1)  # here


@mistake(ff.SizeError, "length=", "whole number", "2.5")
def length_of_a_float():
    return ff.unfold(count, length=2.5)  # here


@mistake(ff.SizeError, "length=", "known when the program is compiled", "until=")
def computed_length():
    return ff.compile(lambda n: ff.unfold(count, init=0.0, length=n), ff.i64)  # here


@mistake(ff.SizeError, "max_length=", "belongs to until=")
def max_length_beside_length():
    return ff.unfold(count, length=3, max_length=4)  # here


@mistake(ff.UnboundedError, "did not stop", "max_length=")
def never_stops():
    forever = ff.unfold(count, until=lambda y: y < 0)  # here
    net = ff.compile(forever, ff.f32)
    return net(torch.zeros(2))


@mistake(ff.UnboundedError, "did not stop", "max_length=")
def one_row_never_stops():
    half = ff.unfold(lambda s: (s, s), until=lambda y: y > 0)  # here
    net = ff.compile(half, ff.f32)
    return net(torch.tensor([1.0, -1.0]))


@mistake(ff.StructureError, "until= gives one bool", "f32", "y == EOS")
def predicate_that_gives_a_number():
    until = ff.unfold(count, until=lambda y: y - 3)  # here
    return ff.compile(until, ff.f32)


@mistake(ff.StructureError, "until= gives one bool", "bool[3]")
def predicate_of_a_vector():
    until = ff.unfold(count, until=lambda y: y > 3)  # here
    return ff.compile(until, ff.f32[3])


@mistake(ff.StructureError, "until= of ff.unfold takes a function", "5")
def predicate_that_is_no_function():
    return ff.unfold(count, until=5)  # here


@mistake(ff.StructureError, "init= of ff.unfold", "value, not a function")
def init_as_a_function():
    return ff.compile(lambda x: ff.unfold(count, init=lambda _: 0.0, length=3), ff.f32)  # here


@mistake(ff.StructureError, "inside the step of another one", "length=")
def inside_of_another():
    def outer(s):
        inner = ff.unfold(count, until=lambda y: y > s)(s)
        return s + 1, inner

    return ff.compile(ff.unfold(outer, until=lambda ys: ff.sum(ys) > 3), ff.f32)  # here


@mistake(ff.ShapeError, "temperature", "greater than 0", "0")
def temperature():
    return ff.sample(temperature=0)  # here


@mistake(ff.ShapeError, "temperature", "greater than 0", "-1")
def negative_temperature():
    return ff.sample(-1)  # here


@mistake(ff.ShapeError, "top_k", "1 or more", "0")
def top_k():
    return ff.sample(top_k=0)  # here


@mistake(ff.ShapeError, "vector of logits", "f32[2, 3]")
def logits_of_rank_two():
    return ff.compile(ff.sample(), ff.f32[2, 3])  # here


@mistake(ff.ShapeError, "ff.greedy", "vector of logits", "f32")
def greedy_of_a_number():
    return ff.compile(lambda x: ff.greedy(x), ff.f32)  # here
