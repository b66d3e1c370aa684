"""Combinators inside each other, reductions over a list, and products of every kind."""

from __future__ import annotations

from typing import NamedTuple

import torch

import foldfuse as ff

from .face import dense, dense_shapes, gru_shapes, zeros
from .record import Program, floats, prefixed, tokens, under
from .recurrences import elman, gru, plain_elman, plain_gru

V, D, H, WIDE = 7, 3, 5, 40
ELMAN = {"W": (D, H), "U": (H, H), "b": (H,)}


# ---------------------------------------------------------------- lists of lists
def words_of_characters():
    with ff.scope("spell"):
        word = ff.map(ff.embedding(V, D, name="emb")) >> ff.fold(gru(H, D), init=ff.zeros(H))
    with ff.scope("read"):
        read = ff.scan(gru(H, H), init=ff.zeros(H))
    return {"main": (ff.map(word) >> read, ff.Seq(ff.Seq(ff.i64)))}


def plain_words_of_characters(p, words):
    """Ling et al., Finding function in form (2015): an encoder of characters below an encoder of words."""
    spell, read = under(p, "spell"), under(p, "read")
    state, states = zeros(H), []
    for word in words:
        h = zeros(H)
        for character in word:
            h, _ = plain_gru(spell, h, spell["emb.weight"][character])
        state, _ = plain_gru(read, state, h)
        states.append(state)
    return torch.stack(states)


WORDS = {"spell.emb.weight": (V, D), **prefixed("spell", gru_shapes(H, D)), **prefixed("read", gru_shapes(H, H))}


def scan_in_map():
    inside = ff.scan(elman(H, D), init=ff.zeros(H))
    return {"main": (ff.map(inside), ff.Seq(ff.Seq(ff.f32[D])))}


def plain_scan_in_map(p, rows):
    """An Elman net along every inner list."""
    return torch.stack([plain_elman_states(p, zeros(H), row) for row in rows])


def plain_elman_states(p, h, row):
    states = []
    for x in row:
        h, _ = plain_elman(p, h, x)
        states.append(h)
    return torch.stack(states)


def scan_in_scan():
    inner = elman(H, D)

    def outer(h, row):  # the state runs through the rows, one after another
        return ff.scan(inner, init=h, final=True)(row)

    return {"main": (ff.scan(outer, init=ff.zeros(H), final=True), ff.Seq(ff.Seq(ff.f32[D])))}


def plain_scan_in_scan(p, rows):
    """One Elman net over all elements of all rows."""
    h, found = zeros(H), []
    for row in rows:
        found.append(plain_elman_states(p, h, row))
        h = found[-1][-1]
    return h, torch.stack(found)


def loop_apart():
    """A loop in the step of a loop in a map, of which no element of the map is read."""

    def main(xs):
        def inner(g, _):
            g = ff.tanh(g @ ff.param((D, D), "U") + xs[-1])
            return g, g

        def each(x):
            def step(h, _):
                gs = ff.scan(inner, init=ff.param((D,), "first"))(xs)
                return ff.tanh(h @ ff.param((D, D), "W") + ff.sum(gs) + x), h

            return ff.scan(step, init=ff.zeros(D))(xs)

        return ff.map(each)(xs)

    return {"main": (main, ff.Seq(ff.f32[D]))}


def plain_loop_apart(p, xs):
    rows = []
    for x in xs:
        h, states = zeros(D), []
        for _ in xs:
            g, total = p["first"], zeros(D)
            for _ in xs:
                g = torch.tanh(g @ p["U"] + xs[-1])
                total = total + g
            states.append(h)
            h = torch.tanh(h @ p["W"] + total + x)
        rows.append(torch.stack(states))
    return torch.stack(rows)


def positions():
    """A step that makes much of its own number: what it makes is the same in every row."""
    encode, mix, step_back = ff.param((1, WIDE), "encode"), ff.param((WIDE, D), "mix"), ff.param((D, D), "U")

    def step(h, element):
        i, x = element
        # So much wider than what it is made of that it is made in the step.
        position = ff.tanh(ff.reshape(0.1 * ff.cast(i, ff.f32), 1) @ encode)
        h = ff.tanh(h @ step_back + ff.softmax(ff.softmax(position) @ mix) * x)
        return h, h

    return {"main": (lambda xs: ff.scan(step, init=ff.zeros(D))(ff.zip(ff.indices(xs), xs)), ff.Seq(ff.f32[D]))}


def plain_positions(p, xs):
    h, states = zeros(D), []
    for i, x in enumerate(xs):
        position = torch.tanh(torch.full((1,), 0.1 * i, dtype=torch.float64) @ p["encode"])
        h = torch.tanh(h @ p["U"] + torch.softmax(torch.softmax(position, 0) @ p["mix"], 0) * x)
        states.append(h)
    return torch.stack(states)


def rows_and_sums():
    """A step that reads its row in every step of a loop over as many elements as there are rows."""

    def main(rows):
        sums = ff.map(lambda row: ff.sum(row))(rows)

        def step(h, row):
            def inner(g, total):
                return 0.5 * g + ff.sum(ff.map(lambda v: ff.tanh(v * g))(row)) - ff.tanh(total + g)

            g = ff.fold(inner, init=h)(sums)
            return ff.tanh(g), g

        return ff.scan(step, init=0.1)(rows)

    return {"main": (main, ff.Seq(ff.Seq(ff.f32)))}


def plain_rows_and_sums(p, rows):
    h, out = torch.full((), 0.1, dtype=torch.float64), []
    for row in rows:
        g = h
        for other in rows:
            g = 0.5 * g + torch.tanh(row * g).sum() - torch.tanh(other.sum() + g)
        out.append(g)
        h = torch.tanh(g)
    return torch.stack(out)


def map_in_scan():
    with ff.scope("state"):
        cell = gru(H, H)
    look = ff.dense(H, name="look")

    def step(h, row):
        seen = ff.mean(ff.map(lambda x: ff.tanh(look(x) * h))(row))
        return cell(h, seen)

    return {"main": (ff.scan(step, init=ff.param((H,), "start")), ff.Seq(ff.Seq(ff.f32[D])))}


def plain_map_in_scan(p, rows):
    """Each step looks at a list through its own state."""
    h, states = p["start"], []
    for row in rows:
        seen = torch.stack([torch.tanh(dense(p, "look", x) * h) for x in row]).mean(dim=0)
        h, _ = plain_gru(under(p, "state"), h, seen)
        states.append(h)
    return torch.stack(states)


def fold_in_scan():
    with ff.scope("inner"):
        inner = elman(H, D)
    mix = ff.dense(H, name="mix")

    def program(xs):
        def step(h, x):  # every step reads the whole list again
            return ff.tanh(mix(ff.concat(ff.fold(inner, init=h)(xs), x)))

        return ff.scan(step, init=ff.zeros(H))(xs)

    return {"main": (program, ff.Seq(ff.f32[D]))}


def plain_fold_in_scan(p, xs):
    """A loop over the list inside a loop over the same list."""
    h, states = zeros(H), []
    for x in xs:
        for y in xs:
            h, _ = plain_elman(under(p, "inner"), h, y)
        h = torch.tanh(dense(p, "mix", torch.cat((h, x))))
        states.append(h)
    return torch.stack(states)


# ---------------------------------------------------------------- reductions over a list
def self_attention():
    q, k, v = (ff.dense(H, name=name) for name in "qkv")

    def attention(xs):
        keys, values = ff.map(k)(xs), ff.map(v)(xs)

        def look(x):
            query = q(x)
            weights = ff.softmax(ff.map(lambda key: ff.sum(key * query) / H**0.5)(keys))
            return ff.sum(weights * values)

        return ff.map(look)(xs)

    return {"main": (attention, ff.Seq(ff.f32[D]))}


def plain_self_attention(p, xs):
    """Vaswani et al., Attention is all you need (2017): one head, no mask."""
    q, k, v = (dense(p, name, xs) for name in "qkv")
    return torch.softmax(q @ k.T / H**0.5, dim=1) @ v


def statistics():
    def every(xs):
        return ff.sum(xs), ff.mean(xs), ff.max(xs), ff.logsumexp(xs), ff.softmax(xs), ff.log_softmax(xs)

    return {"main": (every, ff.Seq(ff.f32[D]))}


def plain_statistics(p, xs):
    """Every reduction over a list of vectors, element by element."""
    return xs.sum(0), xs.mean(0), xs.amax(0), xs.logsumexp(0), xs.softmax(0), xs.log_softmax(0)


def lifted():
    def program(xs, ys):
        return (xs + ys) * 2 - ff.tanh(xs) / (1 + ys * ys) + ff.exp(-abs(xs))

    return {"main": (lambda pairs: program(*ff.unzip(pairs)), ff.Seq((ff.f32[D], ff.f32[D])))}


def plain_lifted(p, pairs):
    """Elementwise arithmetic on lists."""
    xs, ys = pairs
    return (xs + ys) * 2 - torch.tanh(xs) / (1 + ys * ys) + torch.exp(-xs.abs())


def reduce_affine():
    def op(first, second):  # composition of the maps x -> a x + b
        (a, b), (c, d) = first, second
        return a * c, c * b + d

    return {"main": (ff.reduce(op, (ff.ones(D), ff.zeros(D))), ff.Seq((ff.f32[D], ff.f32[D])))}


def plain_reduce_affine(p, pairs):
    """Blelloch, Prefix sums and their applications (1990): affine maps compose."""
    a, b = torch.ones(D, dtype=torch.float64), zeros(D)
    for c, d in zip(*pairs, strict=True):
        a, b = a * c, c * b + d
    return a, b


def reduce_matrices():
    def rotation(x):
        return ff.stack([ff.concat(x[:1], x[1:2]), ff.concat(x[1:2], x[2:3])]) * 0.5

    product = ff.reduce(lambda a, b: a @ b, ff.eye(2))
    return {"main": (ff.map(rotation) >> product, ff.Seq(ff.f32[3]))}


def plain_reduce_matrices(p, xs):
    """A product of matrices: associative, not commutative."""
    total = torch.eye(2, dtype=torch.float64)
    for a, b, c in xs:
        total = total @ torch.stack((torch.stack((a, b)), torch.stack((b, c)))) * 0.5
    return total


def two_folds():
    with ff.scope("a"):
        first = ff.fold(elman(H, D), init=ff.zeros(H))
    with ff.scope("b"):
        second = ff.fold(lambda s, x: ff.maximum(s, x), init=ff.full((D,), -1e3))
    return {"main": (first & second >> ff.tanh, ff.Seq(ff.f32[D]))}


def plain_two_folds(p, xs):
    """Two folds over one list (the banana split of Meijer, Fokkinga and Paterson, 1991)."""
    h, top = zeros(H), zeros(D) - 1e3
    for x in xs:
        h, _ = plain_elman(under(p, "a"), h, x)
        top = torch.maximum(top, x)
    return h, torch.tanh(top)


def stacked():
    def residual(f):
        return lambda xs: xs + f(xs)

    net = ff.map(ff.dense(H, name="in"))
    for layer in range(3):
        with ff.scope(f"layer{layer}"):
            net = net >> residual(ff.scan(elman(H, H), init=ff.zeros(H), reverse=layer == 1))
    return {"main": (net, ff.Seq(ff.f32[D]))}


def plain_stacked(p, xs):
    """Three Elman layers with residuals, the middle one from right to left."""
    xs = dense(p, "in", xs)
    for layer in range(3):
        h, states = zeros(H), [None] * len(xs)
        order = reversed(range(len(xs))) if layer == 1 else range(len(xs))
        for t in order:
            h, states[t] = plain_elman(under(p, f"layer{layer}"), h, xs[t])
        xs = xs + torch.stack(states)
    return xs


def tied():
    step = gru(H, H)
    twice = ff.scan(step, init=ff.zeros(H)) >> ff.scan(step, init=ff.zeros(H), reverse=True)
    layer = ff.dense(H, name="layer")
    return {"main": (ff.map(layer) >> twice >> ff.map(lambda h: ff.tanh(h @ layer.weight.T)), ff.Seq(ff.f32[D]))}


def plain_tied(p, xs):
    """One step in two loops, and one matrix on both sides (Press and Wolf, 2017)."""
    xs = dense(p, "layer", xs)
    h, up = zeros(H), []
    for x in xs:
        h, _ = plain_gru(p, h, x)
        up.append(h)
    h, down = zeros(H), []
    for x in reversed(up):
        h, _ = plain_gru(p, h, x)
        down.insert(0, torch.tanh(h @ p["layer.weight"].T))
    return torch.stack(down)


# ---------------------------------------------------------------- products
class Held(NamedTuple):
    """A carry with names."""

    h: object
    count: object


def named_carry():
    W = ff.param((D, D), "W")

    def step(s, x):
        s = Held(h=ff.tanh(s.h @ W + x), count=s.count + 1.0)
        return s, s.h / s.count

    return {"main": (ff.scan(step, init=Held(ff.zeros(D), 0.0)), ff.Seq(ff.f32[D]))}


def plain_named_carry(p, xs):
    """A state, shared out over the steps so far."""
    h, ys = zeros(D), []
    for t, x in enumerate(xs, start=1):
        h = torch.tanh(h @ p["W"] + x)
        ys.append(h / t)
    return torch.stack(ys)


def dict_carry():
    W = ff.param((D, D), "W")

    def step(s, x):
        slow = 0.9 * s["slow"] + 0.1 * s["fast"]
        return {"fast": ff.tanh(s["fast"] @ W + x["drive"] - slow), "slow": slow}

    def program(xs):
        last = ff.fold(step, init={"fast": ff.zeros(D), "slow": ff.zeros(D)})(xs)
        return last["fast"], last["slow"]

    return {"main": (program, ff.Seq({"drive": ff.f32[D], "unread": ff.f32}))}


def plain_dict_carry(p, xs):
    """A fast state and its slow shadow."""
    fast, slow = zeros(D), zeros(D)
    for x in xs["drive"]:
        slow, fast = 0.9 * slow + 0.1 * fast, torch.tanh(fast @ p["W"] + x - (0.9 * slow + 0.1 * fast))
    return fast, slow


def shifted():
    first = ff.param((D,), "first")
    return {"main": (lambda xs: xs - 0.5 * ff.shift(xs, first), ff.Seq(ff.f32[D]))}


def plain_shifted(p, xs):
    """Each element less half of the one before it."""
    return xs - 0.5 * torch.stack([p["first"], *xs[:-1]])


def gradient():
    W = ff.param((D, D), "W")

    def energy(x):
        return ff.logsumexp(x @ W) + 0.5 * ff.sum(x * x)

    def descend(x, _):
        return x - 0.1 * ff.grad(energy)(x)

    return {"main": (lambda x, xs: ff.scan(descend, init=x)(xs), ff.f32[D], ff.Seq(ff.f32[D]))}


def plain_gradient(p, x, xs):
    """Descent on an energy (Ramsauer et al., Hopfield networks is all you need, 2020)."""
    states = []
    for _ in xs:
        x = x - 0.1 * (torch.softmax(x @ p["W"], dim=0) @ p["W"].T + x)
        states.append(x)
    return torch.stack(states)


def nested(rng, length):
    """A list of lists of three."""
    return (floats(rng, length, 3, D),)


def vectors(rng, length):
    return (floats(rng, length, D),)


def pairs(rng, length):
    return ((floats(rng, length, D), floats(rng, length, D)),)


PROGRAMS = (
    Program(
        "nestings.words_of_characters",
        words_of_characters,
        plain_words_of_characters,
        lambda rng, n: (tokens(rng, 3 * n, V).reshape(n, 3),),
        WORDS,
    ),
    Program(
        "nestings.words_of_characters.ragged",
        words_of_characters,
        plain_words_of_characters,
        lambda rng, n: ([tokens(rng, int(rng.integers(1, 5)), V) for _ in range(n)],),
        WORDS,
    ),
    Program("nestings.scan_in_map", scan_in_map, plain_scan_in_map, nested, ELMAN, second=True),
    Program("nestings.scan_in_scan", scan_in_scan, plain_scan_in_scan, nested, ELMAN, second=True),
    Program(
        "nestings.map_in_scan",
        map_in_scan,
        plain_map_in_scan,
        nested,
        {**prefixed("state", gru_shapes(H, H)), **dense_shapes("look", D, H), "start": (H,)},
        second=True,
    ),
    Program(
        "nestings.loop_apart",
        loop_apart,
        plain_loop_apart,
        vectors,
        {"W": (D, D), "U": (D, D), "first": (D,)},
        lengths=(1, 3),
    ),
    Program(
        "nestings.positions",
        positions,
        plain_positions,
        vectors,
        {"encode": (1, WIDE), "mix": (WIDE, D), "U": (D, D)},
        lengths=(1, 3),
    ),
    Program(
        "nestings.rows_and_sums",
        rows_and_sums,
        plain_rows_and_sums,
        lambda rng, n: ([floats(rng, 1 + (3 * k) % 4) for k in range(n)],),
        {},
        lengths=(3, 4),
    ),
    Program(
        "nestings.fold_in_scan",
        fold_in_scan,
        plain_fold_in_scan,
        vectors,
        {**prefixed("inner", ELMAN), **dense_shapes("mix", H + D, H)},
        lengths=(1, 4),
    ),
    Program(
        "nestings.self_attention",
        self_attention,
        plain_self_attention,
        vectors,
        {name: shape for part in "qkv" for name, shape in dense_shapes(part, D, H).items()},
        second=True,
    ),
    Program("nestings.statistics", statistics, plain_statistics, vectors, {}),
    Program("nestings.lifted", lifted, plain_lifted, pairs, {}),
    Program("nestings.reduce_affine", reduce_affine, plain_reduce_affine, pairs, {}, lengths=(0, 1, 5), second=True),
    Program(
        "nestings.reduce_matrices", reduce_matrices, plain_reduce_matrices, vectors, {}, lengths=(0, 1, 5), second=True
    ),
    Program("nestings.two_folds", two_folds, plain_two_folds, vectors, prefixed("a", ELMAN)),
    Program(
        "nestings.stacked",
        stacked,
        plain_stacked,
        vectors,
        {
            **dense_shapes("in", D, H),
            **{
                name: shape
                for layer in range(3)
                for name, shape in prefixed(f"layer{layer}", {"W": (H, H), "U": (H, H), "b": (H,)}).items()
            },
        },
        second=True,
    ),
    Program(
        "nestings.tied", tied, plain_tied, vectors, {**gru_shapes(H, H), **dense_shapes("layer", D, H)}, second=True
    ),
    Program("nestings.named_carry", named_carry, plain_named_carry, vectors, {"W": (D, D)}, second=True),
    Program(
        "nestings.dict_carry",
        dict_carry,
        plain_dict_carry,
        lambda rng, n: ({"drive": floats(rng, n, D), "unread": floats(rng, n)},),
        {"W": (D, D)},
        lengths=(0, 2, 5),
    ),
    Program("nestings.shifted", shifted, plain_shifted, vectors, {"first": (D,)}),
    Program(
        "nestings.gradient",
        gradient,
        plain_gradient,
        lambda rng, n: (floats(rng, D), floats(rng, n, D)),
        {"W": (D, D)},
        second=True,
    ),
)
