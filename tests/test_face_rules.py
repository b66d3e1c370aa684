"""The rules of the language's description, each with a program that would break if it did not hold."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import foldfuse as ff

from .agreement import agrees, drawn, vector, vectors


# ---------------------------------------------------------------- types
class State(NamedTuple):
    h: object
    c: object


def test_products_are_tuples_namedtuples_and_dicts():
    types = State(ff.f32[3], (ff.i64, {"a": ff.f32[2], "b": ff.bool}))

    def program(s):
        count, d = s.c
        return {"out": State(s.h * 2, d["a"] + count), "on": d["b"]}, (count,)

    model = agrees(
        program,
        lambda s: ({"out": State(s.h * 2, s.c[1]["a"] + s.c[0]), "on": s.c[1]["b"]}, (s.c[0],)),
        types,
    )
    found, (count,) = model(drawn(types, np.random.default_rng(0)))
    assert isinstance(found["out"], State) and found["on"].dtype is torch.bool and count.dtype is torch.int64


def test_a_namedtuple_is_a_carry():
    def step(s, x):
        h = ff.tanh(s.h + x)
        return State(h=h, c=s.c + h)

    def plain(xs):
        h, c, out = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), []
        for x in xs:
            h = torch.tanh(h + x)
            c = c + h
            out.append((h, c))
        return torch.stack([h for h, _ in out]), torch.stack([c for _, c in out])

    model = agrees(ff.scan(step, init=State(ff.zeros(3), ff.zeros(3))), plain, vectors)
    assert isinstance(model(torch.zeros(1, 2, 3, dtype=torch.float64)), State)


def test_dtypes_of_arrays():
    x = {ff.f64: torch.float64, ff.f32: torch.float32, ff.bf16: torch.bfloat16, ff.f16: torch.float16}
    x |= {ff.i32: torch.int32, ff.i64: torch.int64}
    for declared, dtype in x.items():
        model = ff.compile(lambda v: v + v, declared[3])
        out = model(torch.ones(2, 3, dtype=dtype))
        assert out.dtype is dtype and (out == 2).all()
    out = ff.compile(lambda v: ~v, ff.bool[3])(torch.zeros(2, 3, dtype=torch.bool))
    assert out.dtype is torch.bool and out.all()


def test_representations():
    word, state, other = ff.Rep("Word", ff.f32[3]), ff.Rep("State", ff.f32[2]), ff.Rep("Other", ff.f32[3])
    encode = (ff.dense(2, name="encode") >> state).typed(word, state)
    model = ff.compile(encode, word)
    assert model.signature == "main: Word → State"
    for argument in (ff.f32[3], other):
        with pytest.raises(ff.RepresentationError, match="Word"):
            ff.compile(encode, argument)
    with pytest.raises(ff.RepresentationError, match="State"):
        # A primitive gives an unnamed value.
        ff.compile((encode >> ff.tanh).typed(word, state), word)
    # A word names a value; a primitive sees through the name.
    model = ff.compile(lambda x: encode(word(x)) * 2, ff.f32[3])
    assert model.signature == "main: f32[3] → f32[2]"


def test_the_dtype_of_a_type_is_a_default():
    model = ff.compile(lambda x: ff.dense(2)(x), ff.f32[3])
    assert model(torch.ones(1, 3)).dtype is torch.float32
    assert model.double()(torch.ones(1, 3).double()).dtype is torch.float64
    assert model.bfloat16()(torch.ones(1, 3).bfloat16()).dtype is torch.bfloat16
    declared = ff.compile(lambda x: ff.dense(2)(x), ff.f64[3])
    assert next(declared.parameters()).dtype is torch.float64


def test_cast_pins():
    model = ff.compile(lambda x: ff.cast(ff.cast(x, ff.f32) * 1.0, ff.f64), ff.f64[3])
    x = torch.rand(2, 3, dtype=torch.float64)
    assert torch.equal(model(x), x.float().double())
    rounding = ff.compile(lambda x: x - ff.cast(x, ff.bf16), ff.f32[3]).double()
    assert torch.allclose(rounding(x), x - x.bfloat16().double())
    assert rounding(x).abs().max() > 0


# ---------------------------------------------------------------- combinators
def test_zip_unzip_and_shift():
    def program(xs, ys, first):
        left, right = ff.unzip(ff.map(lambda p: (p[0] - p[1], p[0] * p[1]))(ff.zip(xs, ys)))
        return left, ff.shift(right, first)

    def plain(xs, ys, first):
        return xs - ys, torch.cat((first[None], (xs * ys)[:-1]))

    agrees(program, plain, vectors, vectors, vector)
    agrees(lambda ys: ff.shift(ys, 2), lambda ys: torch.cat((torch.tensor([2]), ys[:-1])), ff.Seq(ff.i64))


def scanned(step, h, xs):
    out = []
    for x in xs:
        h = step(h, x)
        out.append(h)
    return torch.stack(out)


def running(step, h, xs):
    out = []
    for x in xs:
        h, y = step(h, x)
        out.append(y)
    return h, torch.stack(out)


def test_a_step_gives_a_carry_or_a_carry_and_an_output():
    zero = torch.zeros(3, dtype=torch.float64)
    alone = lambda h, x: torch.tanh(h + x)
    agrees(ff.scan(lambda h, x: ff.tanh(h + x), init=ff.zeros(3)), lambda xs: scanned(alone, zero, xs), vectors)
    pair = lambda h, x: ((h + x).tanh(), h.sum() * x)
    agrees(ff.scan(pair, init=ff.zeros(3)), lambda xs: running(pair, zero, xs)[1], vectors)
    agrees(ff.fold(pair, init=ff.zeros(3)), lambda xs: running(pair, zero, xs)[0], vectors)
    agrees(ff.scan(pair, init=ff.zeros(3), final=True), lambda xs: running(pair, zero, xs), vectors)
    with pytest.raises(ff.CarryError, match=r"carry\[1\]"):
        ff.compile(ff.scan(lambda c, x: (c[0], c[1][:2]), init=(ff.zeros(3), ff.zeros(3))), vectors)


def test_reverse_keeps_places():
    step = lambda h, x: ((h + x).tanh(), h - x)
    zero = torch.zeros(3, dtype=torch.float64)

    def plain(xs):
        last, ys = running(step, zero, xs.flip(0))
        return last, ys.flip(0)

    agrees(ff.scan(step, init=ff.zeros(3), reverse=True, final=True), plain, vectors)


def test_forms_of_init():
    step = lambda h, x: h * x + h
    total = lambda start: lambda xs: scanned(step, start, xs)
    one = torch.ones(3, dtype=torch.float64)
    agrees(ff.scan(step, init=ff.ones(3)), total(one), vectors)
    agrees(ff.scan(step, init=np.ones(3)), total(one), vectors)
    agrees(ff.fold(lambda h, x: h + ff.sum(x), init=0.0), lambda xs: xs.sum(), vectors)
    start = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    parameter = ff.param((3,), "start")
    model = agrees(ff.scan(step, init=parameter), total(start), vectors, parameters={"start": start})
    assert set(model.state_dict()) == {"start"}
    agrees(lambda s, xs: ff.scan(step, init=s)(xs), lambda s, xs: total(s)(xs), vector, vectors)
    agrees(ff.scan(step), lambda p: total(p[0])(p[1]), (vector, vectors))
    agrees(ff.fold(step), lambda p: total(p[0])(p[1])[-1], (vector, vectors))
    sizes_only = ff.scan(step, init=lambda x: ff.zeros_like(x) + 1)
    agrees(sizes_only, total(one), vectors)
    with pytest.raises(ff.StructureError, match="sizes"):
        ff.compile(ff.scan(step, init=lambda x: x * 2), vectors)


def test_unfold():
    step = lambda s: ((s * 1.5).sin(), s.sum())

    def plain(s, count):
        out = []
        for _ in range(count):
            s, y = step(s)
            out.append(y)
        return torch.stack(out)

    agrees(ff.unfold(step, length=5), lambda s: plain(s, 5), vector)
    agrees(lambda s: ff.unfold(step, init=s, length=5), lambda s: plain(s, 5), vector)


def test_an_until_keeps_the_element_that_stops_it():
    program = ff.unfold(lambda s: (s - 1, s), until=lambda y: y == 0, max_length=5)
    found = ff.compile(program, ff.i64)(torch.tensor([0, 3, 9]))
    assert [row.tolist() for row in found] == [[0], [3, 2, 1, 0], [9, 8, 7, 6, 5]]
    endless = ff.compile(ff.unfold(lambda s: (s - 1, s), until=lambda y: y == 0), ff.i64)
    assert [row.tolist() for row in endless(torch.tensor([1, 2]))] == [[1, 0], [2, 1, 0]]


def speaker():
    table, mixing, scoring = ff.embedding(7, 4, name="table"), ff.dense(4, name="mix"), ff.dense(7, name="score")

    def speak(h, y):
        h = ff.tanh(mixing(h) + table(y))
        return h, scoring(h)

    return speak


def test_teacher_forcing_is_a_scan_of_the_step_that_generates():
    speak = speaker()
    generate = ff.unfold(ff.feedback(speak, ff.greedy), length=6)
    teach = lambda h, ys: ff.scan(speak, init=h)(ff.shift(ys, 1))
    model = ff.compile(
        {"generate": (lambda h: generate((h, 1)), ff.f32[4]), "teach": (teach, ff.f32[4], ff.Seq(ff.i64))}
    ).double()
    h = torch.randn(3, 4, dtype=torch.float64)
    said = model(h)
    assert torch.equal(model(h, said, entry="teach").argmax(-1), said)


@pytest.mark.parametrize("choose", [ff.sample(), ff.sample(0.5), ff.sample(2.0, top_k=3)], ids=str)
def test_sampling_has_a_seed_per_call(choose):
    program = ff.unfold(ff.feedback(speaker(), choose), length=20)
    model = ff.compile(lambda h: program((h, 1)), ff.f32[4]).double()
    h = torch.randn(4, 4, dtype=torch.float64)
    said = model(h, seed=5)
    assert torch.equal(said, model.eager(h, seed=5)) and np.array_equal(said, model.reference(h, seed=5))
    assert not torch.equal(said, model(h, seed=6)) and torch.equal(said, model(h, seed=torch.tensor(5)))
    torch.manual_seed(1)
    first, second = model(h), model(h)
    torch.manual_seed(1)
    assert torch.equal(first, model(h)) and not torch.equal(first, second)
    assert not torch.equal(*model(h[:1].expand(2, 4), seed=5))  # rows differ


def test_top_k_of_one_is_greedy():
    speak = speaker()
    entries = {
        name: (lambda h, choose=choose: ff.unfold(ff.feedback(speak, choose), length=9)((h, 1)), ff.f32[4])
        for name, choose in (("greedy", ff.greedy), ("one", ff.sample(1.0, 1)))
    }
    model = ff.compile(entries)
    h = torch.randn(3, 4)
    assert torch.equal(model(h), model(h, entry="one"))


def test_windows_hold_their_channels_last():
    def plain(xs):
        padded = F.pad(xs, (0, 0, 2, 0), value=-1.0)
        return torch.stack([padded[i : i + 3 : 2].amax(0) for i in range(0, 4, 2)])

    program = ff.window_map(lambda w: ff.max(w, axis=0), 2, stride=2, dilation=2, padding="causal", fill=-1)
    agrees(program, plain, vectors)


def test_reduce_takes_an_associative_operation():
    agrees(ff.reduce(ff.maximum, -np.inf), lambda xs: xs.amax(0), vectors)
    affine = lambda p, q: (p[0] * q[0], p[1] * q[0] + q[1])

    def plain(xs):
        a, b = torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        for x in xs:
            a, b = affine((a, b), (x, x))
        return a, b

    program = ff.map(lambda x: (x, x)) >> ff.reduce(affine, (ff.ones(3), ff.zeros(3)))
    agrees(program, plain, vectors)


def test_trees():
    node = lambda x, kids: ff.tanh(x + ff.sum(kids))
    leaf = lambda x: x * 2
    trees = [(torch.tensor(1.0), [(torch.tensor(2.0), []), (torch.tensor(-1.0), [(torch.tensor(0.5), [])])])]
    without = np.tanh(1 + np.tanh(2) + np.tanh(-1 + np.tanh(0.5)))
    with_leaf = np.tanh(1 + 4 + np.tanh(-1 + 1.0))
    model = ff.compile({"node": (ff.cata(node), ff.Tree(ff.f32)), "leaf": (ff.cata(node, leaf), ff.Tree(ff.f32))})
    assert np.allclose(model(trees).item(), without) and np.allclose(model(trees, entry="leaf").item(), with_leaf)
    every = ff.compile(ff.cata(node, every=True), ff.Tree(ff.f32))(trees)
    assert every[0].shape == (4,) and np.allclose(every[0][0].item(), without)


def test_the_gradient_is_an_expression():
    loss = lambda w, x: ff.sum(ff.tanh(w * x) ** 2)

    def plain(w, x):
        w = w.detach().requires_grad_() if not w.requires_grad else w
        (g,) = torch.autograd.grad((torch.tanh(w * x) ** 2).sum(), w, create_graph=True)
        return g

    agrees(ff.grad(loss), plain, vector, vector)


# ---------------------------------------------------------------- parameters
def test_initial_values():
    def program(x):
        return x @ ff.param((100, 50), "drawn") + sum(parameters[name][0] for name in ("number", "array", "filled"))

    parameters = {
        "number": ff.param((2, 50), "number", init=0.25),
        "array": ff.param((2, 50), "array", init=np.arange(100.0).reshape(2, 50)),
        "filled": ff.param((2, 50), "filled", init=nn.init.orthogonal_),
    }
    torch.manual_seed(4)
    model = ff.compile(program, ff.f32[100])
    found = model.state_dict()
    assert found["drawn"].abs().max() <= 0.1 and 0.055 < found["drawn"].std() < 0.06
    assert (found["number"] == 0.25).all() and found["array"].flatten().tolist() == list(range(100))
    assert torch.allclose(found["filled"] @ found["filled"].T, torch.eye(2), atol=1e-5)
    torch.manual_seed(4)
    assert torch.equal(found["drawn"], ff.compile(program, ff.f32[100]).state_dict()["drawn"])


def test_buffers():
    model = ff.compile(lambda x: x * ff.buffer(np.array([1.0, 2.0]), "scale"), ff.f32[2])
    assert not list(model.parameters()) and set(model.state_dict()) == {"scale"}
    assert model(torch.ones(1, 2)).tolist() == [[1.0, 2.0]]
    assert model.double().scale.dtype is torch.float64
    table = ff.compile(lambda x: x[ff.buffer(np.array([1, 0]), "order")], ff.f32[2]).double()
    assert table.order.dtype is torch.int64 and table(torch.tensor([[1.0, 2.0]]).double()).tolist() == [[2.0, 1.0]]


def test_scopes_numbers_and_ties():
    with ff.scope("left"):
        first, second, named = ff.dense(3), ff.dense(3), ff.dense(3, name="named")
        with ff.scope("deep"):
            inner, w = ff.dense(3), ff.param((3,), "w")
    outside = ff.dense(3)
    program = first >> second >> named >> inner >> (lambda x: x * w) >> outside >> first
    model = ff.compile(program, ff.f32[3])
    layers = {name.rsplit(".", 1)[0] for name in model.state_dict() if not name.endswith("w")}
    assert layers == {"left.dense_0", "left.dense_1", "left.named", "left.deep.dense_0", "dense_0"}
    assert "left.deep.w" in model.state_dict()
    tied = ff.compile(first >> ff.tanh >> first, ff.f32[3])
    assert set(tied.state_dict()) == {"left.dense_0.weight", "left.dense_0.bias"}


def test_two_parameters_of_one_name_are_refused():
    with pytest.raises(ff.ParameterError, match="two parameters"):
        ff.compile(lambda x: x * ff.param((3,), "w") + ff.param((3,), "w"), ff.f32[3])


def test_dropout():
    model = ff.compile(ff.dropout(0.5), ff.f32[1000])
    x = torch.ones(4, 1000)
    out = model(x, seed=1)
    assert set(out.unique().tolist()) == {0.0, 2.0} and 0.4 < (out == 0).float().mean() < 0.6
    assert torch.equal(out, model(x, seed=1)) and not torch.equal(out, model(x, seed=2))
    assert torch.equal(out, model.eager(x, seed=1))
    torch.manual_seed(0)
    first, second = model(x), model(x)
    torch.manual_seed(0)
    assert torch.equal(first, model(x)) and not torch.equal(first, second)
    assert torch.equal(model.eval()(x), x) and np.array_equal(model.reference(x), x)


def test_a_mask_made_outside_of_a_scan_is_variational():
    def variational(xs):
        mask = ff.dropout(0.5)(ff.ones(50))
        return ff.scan(lambda h, x: (h, x * mask), init=0.0)(xs)

    x = torch.ones(2, 6, 50)
    same = ff.compile(variational, ff.Seq(ff.f32[50]))(x, seed=1)
    assert (same == same[:, :1]).all() and not torch.equal(same[0], same[1])
    fresh = ff.compile(ff.scan(lambda h, x: (h, ff.dropout(0.5)(x)), init=0.0), ff.Seq(ff.f32[50]))(x, seed=1)
    assert not (fresh == fresh[:, :1]).all()


# ---------------------------------------------------------------- compiling and calling
def test_several_entry_points_have_one_parameter_set():
    shared, only = ff.dense(3, name="shared"), ff.dense(2, name="only")
    model = ff.compile({"a": (shared >> ff.tanh, ff.f32[3]), "b": (ff.map(shared >> only), ff.Seq(ff.f32[3]))})
    assert set(model.state_dict()) == {f"{layer}.{part}" for layer in ("shared", "only") for part in ("weight", "bias")}
    x = torch.randn(2, 3)
    assert torch.equal(model(x), model(x, entry="a"))
    assert torch.allclose(model(x), torch.tanh(F.linear(x, model.shared.weight.T, model.shared.bias)))
    assert model(x[None], entry="b").shape == (1, 2, 2)
    seen = []
    model.register_forward_hook(lambda module, arguments, output: seen.append(output.shape))
    model(x[None], entry="b")
    assert seen == [(1, 2, 2)]
    with pytest.raises(ff.StructureError, match="'a', 'b'"):
        model(x, entry="c")


def test_what_a_model_tells():
    model = ff.compile({"one": (ff.map(ff.dense(2) >> ff.tanh), ff.Seq(ff.f32[3])), "two": (ff.tanh, ff.f32[3])})
    assert model.signature == "one: Seq(f32[3]) → Seq(f32[2])\ntwo: f32[3] → f32[3]"
    assert {k.direction for k in model.kernels} == {"forward", "backward"}
    assert "contract" in model.code() and "tanh" in model.code("two")
    assert "one: Seq(f32[3])" in model.explain() and model.explain("two")
    assert "Seq(f32[3])" in repr(model)


def test_taps():
    def step(h, x):
        gate = ff.tap(ff.sigmoid(h + x), "gate")
        h = gate * x
        return h, ff.tap(h.sum(), "total")

    plain = ff.scan(step, init=ff.zeros(3))
    model = ff.compile(plain, vectors).double()
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    found = model.record(x)
    assert set(found) == {"gate", "total"} and found["gate"].shape == (2, 4, 3)
    assert torch.allclose(found["total"], model(x))
    lists = model.record(ff.ragged(x, [4, 2]))
    assert torch.allclose(lists["gate"].unpad()[1], found["gate"][1, :2])
    with pytest.raises(ff.StructureError, match=r"ff\.tap"):
        ff.compile(ff.tanh, vector).record(torch.ones(1, 3))


def test_without_a_batch():
    layer = ff.dense(2, name="layer")
    alone = ff.compile(ff.map(layer) >> ff.sum, vectors, batched=False).double()
    batched = ff.compile(ff.map(layer) >> ff.sum, vectors).double()
    batched.load_state_dict(alone.state_dict())
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.allclose(alone(x), batched(x[None])[0])
    assert np.allclose(alone.reference(x), alone(x).detach())
    alone(x).sum().backward()
    assert x.grad is not None
