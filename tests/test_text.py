"""The text of the IR: printing and parsing go round on every construct, keys see structure, errors name the line."""

from __future__ import annotations

import dataclasses
import re
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy

from foldfuse.compiler.builder import Builder
from foldfuse.compiler.errors import ParseError, Source
from foldfuse.compiler.ir import Equation, Graph, Lambda, SizeDeclaration, Value, map_sizes, sub_equations, verify
from foldfuse.compiler.sizes import Constant, Named, Quotient
from foldfuse.compiler.text import excerpt, key, parse, parse_lambda, show, show_lambda
from foldfuse.compiler.types import DTYPES, ListType, array, f32, f64
from foldfuse.runtime.reference import evaluate

from .counting import calls
from .golden import check_golden
from .hand_built import ARGUMENTS, GRAPHS, PROGRAMS, B, T, graph, rnn, same, same_lambda

# --- round trip -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRAPHS)
def test_round_trip(name):
    original = GRAPHS[name]
    text = show(original)
    parsed = parse(text)
    assert show(parsed) == text
    assert same_lambda(original.body, parsed.body)
    fields = ("name", "input_names", "output_names", "sizes", "checks")
    assert all(getattr(original, field) == getattr(parsed, field) for field in fields)
    assert key(parsed) == key(original)
    assert str(original) == text and str(original.body) == show_lambda(original.body)
    assert show_lambda(parse_lambda(show_lambda(original.body))) == show_lambda(original.body)
    if name != "odd":
        verify(parsed)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_parsed_program_means_the_same(name):
    arguments, tables = ARGUMENTS[name]
    for made in (PROGRAMS[name], GRAPHS[f"{name}_forward"]):
        assert same(evaluate(made, arguments, tables), evaluate(parse(show(made)), arguments, tables))


@pytest.mark.parametrize("name", ["rnn", "rnn_adjoint", "generator_adjoint", "tree", "windows"])
def test_golden(name):
    check_golden(f"ir_{name}.txt", show(GRAPHS[name]))


def test_types_are_written_as_messages_write_them():
    for size in (
        T,
        Constant(3),
        T.plus(-2),
        T.plus(1).quotient(0, 2),
        T.quotient(0, 2).plus(3),
        T.plus(-2).quotient(3, 2).plus(1),
    ):
        for type_ in (array(f32).listed(size), array(f32, 2, 3).listed(B, size)):
            assert f"%x: {type_}\n" in show(Graph("g", Lambda((Value(type_, "x"),), (), ()), ("x",), ()))


def test_values_keep_their_names():
    values = tuple(Value(array(f32), name) for name in ("h", "h", "", "h.1", "cell.h", "", "cell.0.h", "a b", "a b"))
    words = re.findall(r"(%.*?):", show_lambda(Lambda(values, (), ())))
    assert words == ["%h", "%h.1", "%0", "%'h.1'", "%cell.h", "%1", "%cell.0.h", "%'a b'", "%'a b'.1"]


def test_sources_are_comments():
    marked = rnn()
    for equation in sub_equations(marked.body):
        equation.source = Source(__file__, 1)
    text = show(marked, sources=True)
    assert text.count("  -- ") == 6 and f"{__file__}:1: " in text and "text of the IR" in text
    assert show(parse(text)) == show(marked) == show(rnn())


def test_what_has_no_text_is_refused():
    equation = Equation("constant", (), (Value(array(f32)),), {"value": [1.0]})
    broken = Graph("g", Lambda((), (equation,), ()), (), ())
    with pytest.raises(TypeError, match="list has no text"):
        show(broken)
    assert "value=<[1.0]>" in excerpt(broken, equation)


# --- random programs --------------------------------------------------------------------------------------------------

characters = st.text(st.characters(), max_size=6)
words = st.sampled_from(("h", "c", "h.1", "layer.0", "", "x", "f32")) | characters
whole = st.integers(-(2**70), 2**70)
sizes = st.recursive(
    st.builds(Named, words) | st.builds(Constant, st.integers(-3, 40)),
    lambda base: st.builds(Quotient, base, st.integers(-4, 4), st.integers(1, 4)),
    max_leaves=5,
)
arrays = st.sampled_from(("bool", "int8", "uint64", "int64", "float16", "float32", "float64", "complex64")).flatmap(
    lambda dtype: hypothesis_numpy.arrays(
        dtype, hypothesis_numpy.array_shapes(min_dims=0, min_side=0, max_side=9), fill=st.nothing()
    )
)
scalars = whole | st.floats() | st.booleans() | st.none() | characters | sizes | st.sampled_from(tuple(DTYPES.values()))
attributes = st.recursive(scalars, lambda part: st.lists(part, max_size=3).map(tuple), max_leaves=6) | arrays


def without_payload(value):
    """A value with every NaN the same: text does not hold a NaN's bits."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return np.where(np.isnan(value), np.array(np.nan, value.dtype), value)
    return value


@settings(deadline=None)
@given(
    st.dictionaries(words.filter(lambda name: name != "captured"), attributes, max_size=3),
    words,
    sizes,
    st.none() | words,
)
def test_round_trip_of_any_attribute_name_and_size(given_attributes, name, size, bound):
    value = Value(ListType(f32, (size, size.plus(1)), (2, 0)), name)
    binds = () if bound is None else ((bound, 0),)
    equation = Equation("op", (value, value), (Value(value.type, name),), given_attributes, (), binds)
    declared = (SizeDeclaration(name, (name, str(size)), None if bound is None else 3),)
    original = Graph(name, Lambda((value,), (equation,), (value,)), (name,), (name,), declared, ((size, size, name),))
    parsed = parse(show(original))
    assert show(parsed) == show(original) and key(parsed) == key(original)
    (read,) = parsed.body.equations
    assert read.attributes.keys() == given_attributes.keys() and read.binds == binds
    assert parsed.checks == original.checks and parsed.sizes == declared and parsed.input_names == (name,)
    assert read.inputs[0].type == value.type and read.outputs[0].name == name
    for attribute, expected in given_attributes.items():
        assert same(without_payload(expected), without_payload(read.attributes[attribute]))


@st.composite
def programs(draw):
    """Well-typed programs of primitives, maps and scans over lists of T vectors of three."""
    vector = array(f64, 3)

    def pick(pool, axes):
        return draw(st.sampled_from([v for v in pool if len(v.type.axes) == axes]))

    def grow(b, pool, depth):
        of = partial(pick, pool)
        for _ in range(draw(st.integers(1, 4))):
            op = draw(
                st.sampled_from(
                    ("tanh", "add", "mul", "constant", "slice", "sum", "map", "scan")[: None if depth else 5]
                )
            )
            if op in ("add", "mul"):
                made = b.emit(op, (of(0), of(0)), names=[draw(words)])
            elif op == "tanh":
                made = b.emit(op, (of(0),), names=[draw(words)])
            elif op == "constant":
                made = (b.constant(draw(hypothesis_numpy.arrays("float64", 3)), f64),)
            elif op == "slice":
                made = (
                    b(
                        "pad",
                        b("slice", of(0), starts=(1,), stops=(3,), strides=(1,)),
                        low=(0,),
                        high=(1,),
                        interior=(0,),
                    ),
                )
            elif op == "sum":
                made = (b.reduce("sum", of(1)),)
            elif op == "map":
                made = b.map(T, [of(1), of(1)], lambda inner, x, y: [grow(inner, [x, y, of(0), of(1)], depth - 1)])
            else:
                step = Builder(b)
                h, x = step.parameter(vector, draw(words)), step.parameter(vector, draw(words))
                body, captured = step.close([grow(step, [h, x, of(0), of(1)], depth - 1), x])
                scan = {"captured": len(captured), "carries": 1, "size": T, "reverse": draw(st.booleans())}
                made = b.emit("scan", (*captured, of(0), of(1)), scan, (body,))
            pool.extend(made)
        return draw(st.sampled_from([v for v in pool if not v.type.axes]))

    b = Builder()
    pool = [b.parameter(vector, draw(words)), b.parameter(vector.listed(T), draw(words))]
    result = grow(b, pool, 2)
    return graph("random", b, [result, *pool[:1]], (draw(words), draw(words)), (SizeDeclaration("T"),))


def renamed(body):
    """A copy without names, its list sizes called otherwise, and its attributes in another order."""
    table = {}

    def copy(value):
        return table.setdefault(value, Value(value.type))

    def equation(e):
        attributes = dict(reversed(e.attributes.items()))
        bodies = tuple(map(renamed, e.bodies))
        return dataclasses.replace(
            e,
            inputs=tuple(map(copy, e.inputs)),
            outputs=tuple(map(copy, e.outputs)),
            attributes=attributes,
            bodies=bodies,
        )

    return Lambda(
        tuple(map(copy, body.parameters)), tuple(map(equation, body.equations)), tuple(map(copy, body.results))
    )


@settings(deadline=None, max_examples=60)
@given(programs())
def test_round_trip_of_random_programs(original):
    text = show(original)
    parsed = parse(text)
    verify(parsed)
    assert show(parsed) == text and same_lambda(original.body, parsed.body)
    arguments, tables = [np.ones(3), [np.full(3, t / 4) for t in range(3)]], {"T": 3}
    assert same(evaluate(original, arguments, tables), evaluate(parsed, arguments, tables))
    assert key(parsed) == key(original)
    assert key(renamed(original.body)) == key(original.body)


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_sees_no_names():
    original = GRAPHS["generator_adjoint"]
    other = {"B": "rows", "T": "f32"}
    change = lambda size: Named(other[size.name]) if isinstance(size, Named) else size
    body = map_sizes(renamed(original.body), change)
    sizes = tuple(SizeDeclaration(other[d.name], tuple(other[o] for o in d.over), d.input) for d in original.sizes)
    inputs = tuple(f"i{i}" for i in range(len(original.input_names)))
    outputs = tuple(f"o{i}" for i in range(len(original.output_names)))
    assert key(Graph("other", body, inputs, outputs, sizes, original.checks, ["a report"])) == key(original)
    assert re.fullmatch(r"[0-9a-f]{64}", key(original))


def test_a_key_sees_structure():
    variants = [
        "graph f { size T size U input %x: f32[T |] input %y: f32[U |] output o = %x }",
        "graph f { size T size U input %x: f32[T |] input %y: f32[U |] output o = %y }",
        "graph f { size T size U input %x: f32[T |] input %y: f32[T |] output o = %x }",
        "graph f { size T size U over T input %x: f32[T |] input %y: f32[U |] output o = %x }",
        "graph f { size T size U from 1 input %x: f32[T |] input %y: f32[U |] output o = %x }",
        "graph f { size T size U check T == U because '' input %x: f32[T |] input %y: f32[U |] output o = %x }",
        *(
            f"graph f {{ %x: f32[] = op(value={value}) output o = %x }}"
            for value in ("1", "1.0", "True", "'1'", "(1,)", "#1")
        ),
        *(
            f"graph f {{ %x: f32[] = op(value=array({dtype}, (1,), 1)) output o = %x }}"
            for dtype in ("int32", "int64", "float32")
        ),
    ]
    assert len({key(parse(variant)) for variant in variants}) == len(variants)


# --- excerpts and errors ----------------------------------------------------------------------------------------------


def test_excerpt():
    original = GRAPHS["rnn"]
    (scan,) = (e for e in sub_equations(original.body) if e.op == "scan")
    window = excerpt(original, scan.bodies[0].equations[1], context=1).split("\n")
    lines = show(original).split("\n")
    assert len(window) == 3 and window[1].startswith("> ") and window[1].endswith("%1: f64[3] = add(%0, %x)")
    for line in window:
        number, text = re.match(r"[> ] +(\d+) \| (.*)", line).groups()
        assert lines[int(number) - 1] == text
    with pytest.raises(ValueError, match="not part of"):
        excerpt(original, Equation("neg", (), ()))


def test_excerpt_of_an_ill_formed_graph():
    lost = Equation("neg", (Value(array(f32), "h"),), (Value(array(f32)),))
    assert excerpt(Graph("g", Lambda((), (lost,), ()), (), ()), lost) == (
        "  1 | graph g {\n  2 |\n> 3 |   %0: f32[] = neg(?h)\n  4 |\n  5 | }"
    )


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "expected 'graph', found the end of the text"),
        ("graph", 1, "the name of a graph"),
        ("graph g {\n  input %x: f8[3]\n}", 2, "a type such as"),
        ("graph g {\n  input %x: f32[T, | 3]\n}", 2, "a type such as"),
        ("graph g {\n  input %x: 'f[32]'\n}", 2, "a type such as"),
        ("graph g {\n  input %x f32[3]\n}", 2, "':' and the type of %x"),
        ("graph g {\n  input %x: f32[3]\n  input %x: f32[3]\n}", 3, "%x is assigned twice"),
        ("graph g {\n  input %x: f32[3]\n  %x: f32[3] = neg(%x)\n}", 3, "%x is assigned twice"),
        (
            "graph g {\n  input %x: f32[3]\n\n  %y: f32[3] = neg(%z)\n}",
            4,
            "a value defined before in this body, found %z",
        ),
        ("graph g {\n  %y: f32[3] = neg(%y)\n}", 2, "a value defined before"),
        (
            "graph g {\n  input %x: f32[]\n  %y: f32[] = f(%x)\n  fn () {\n    return %x\n  }\n}",
            5,
            "a value defined before",
        ),
        ("graph g {\n  input %x: f32[3]\n  %y: f32[3] = neg(axis=1, %x)\n}", 3, "values stand before attributes"),
        ("graph g {\n  %y: f32[3] = neg(axis 1)\n}", 2, "'=' after the name of an attribute"),
        ("graph g {\n  %y: f32[3] = neg(axis=)\n}", 2, "an attribute's value"),
        ("graph g {\n  %y: f32[3] = neg(axis=(1))\n}", 2, "a tuple of one is written with a comma"),
        ("graph g {\n  %y: f32[3] = neg(axis=(T))\n}", 2, "an offset such as"),
        ("graph g {\n  %y: f32[3] = neg(axis='a)\n}", 2, "a string"),
        ("graph g {\n  %y: f32[3] = neg(axis='\\N{x}')\n}", 2, "a string, found '"),
        ("graph g {\n  %y: f32[3] = neg(axis=-)\n}", 2, "a number"),
        ("graph g {\n  %y: f32[3] = neg(axis=1, axis=1)\n}", 2, "given twice"),
        ("graph g {\n  %y: f32[3] = neg(x=array(object, (1,), 1))\n}", 2, "a numeric NumPy dtype"),
        (
            "graph g {\n  %y: f32[3] = neg(x=array(int8, (2,), 1))\n}",
            2,
            "the elements of an array of int8 of shape (2,)",
        ),
        ("graph g {\n  %y: f32[3] = neg(x=array(int8, (2,), base64 'A'))\n}", 2, "the elements of an array"),
        (
            "graph g {\n  %y: f32[3] = f(captured=1) fn [%x: f32[]]() { return }\n}",
            2,
            "captured parameters in brackets only",
        ),
        ("graph g {\n  %y: f32[3] neg()\n}", 2, "'=' or ',' after an output"),
        ("graph g {\n  %y: f32[3] = f() fn () {\n  }\n}", 3, "'return' or an equation"),
        ("graph g {\n  size T over\n}", 3, "the size of an enclosing list"),
        ("graph g {\n  check T = U because ''\n}", 2, "'==' between the sizes of a check"),
        ("graph g {\n  output y\n}", 3, "'=' after the name of an output"),
        ("graph g {\n  output y = 1\n}", 2, "a value such as %h"),
        ("graph g {\n  nonsense\n}", 2, "an equation or an output"),
        ("graph g {\n}\ngraph h {}", 3, "the end of the text"),
        ("graph g {", 1, "found the end of the text"),
    ],
)
def test_parse_errors(text, line, message):
    with pytest.raises(ParseError) as caught:
        parse(text)
    assert str(caught.value).startswith(f"line {line}: ") and message in str(caught.value)


@settings(deadline=None)
@given(st.data())
def test_no_damaged_text_surprises_the_parser(data):
    text = show(data.draw(st.sampled_from(tuple(GRAPHS.values()))))
    at = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 12))
    inserted = data.draw(st.sampled_from(("", "(", ")", "'", "%", "1", "[", "]", "{", "}", "--", ",", "T", "#", "//")))
    try:
        parsed = parse(text[:at] + inserted + text[at + length :])
    except ParseError:
        return
    assert show(parse(show(parsed))) == show(parsed)


# --- work -------------------------------------------------------------------------------------------------------------


def test_work_is_linear():
    def chain(length):
        b = Builder()
        value = b.parameter(array(f32, 3), "x")
        for _ in range(length):
            (value,) = b.emit("neg", [value], names=["h"])
        return graph("chain", b, [value], ("y",), ())

    def work(program):
        return calls(lambda: key(parse(show(program))))

    # Quadratic work would be 64 times as much.
    assert work(chain(4_000)) < 1.5 * 8 * work(chain(500))
