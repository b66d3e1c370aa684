"""Generation: a step that hears what it said."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F

import foldfuse as ff

from .face import BOS, dense, dense_shapes, gru_shapes, zeros
from .record import Program, floats, prefixed, tokens, under
from .recurrences import gru, lstm, plain_gru, plain_lstm

V, D, H = 7, 3, 5
STEPS = 6
END = 2  # the symbols up to this one all end a text: texts then end at different lengths
Text = ff.Seq(ff.i64)


# ---------------------------------------------------------------- numbers
def numbers():
    """One step: taught by `scan`, free by `unfold` of a fixed length."""
    cell, out = lstm(H, D), ff.dense(D, name="out")

    def speak(s, y):
        s, h = cell(s, y)
        return s, ff.tanh(out(h))

    def start(v):
        return v, ff.zeros(H)

    def taught(v, xs):
        return ff.scan(speak, init=start(v))(xs)

    def free(v, x):
        return ff.unfold(ff.feedback(speak, lambda y: y), init=(start(v), x), length=STEPS)

    return {"taught": (taught, ff.f32[H], ff.Seq(ff.f32[D])), "free": (free, ff.f32[H], ff.f32[D])}


NUMBERS = {"W": (D, 4 * H), "U": (H, 4 * H), "b": (4 * H,), **dense_shapes("out", H, D)}


def plain_numbers_step(p, s, y):
    s, h = plain_lstm(p, s, y)
    return s, torch.tanh(dense(p, "out", h))


def plain_taught(p, v, xs):
    """The LSTM reads given numbers."""
    s, ys = (v, zeros(H)), []
    for x in xs:
        s, y = plain_numbers_step(p, s, x)
        ys.append(y)
    return torch.stack(ys) if ys else zeros(0, D)


def plain_free(p, v, y):
    """The LSTM reads its own numbers (Graves, Generating sequences with recurrent neural networks, 2013)."""
    s, ys = (v, zeros(H)), []
    for _ in range(STEPS):
        s, y = plain_numbers_step(p, s, y)
        ys.append(y)
    return torch.stack(ys)


def orbit():
    A = ff.param((3, 3), "A")

    def step(x):
        x = ff.tanh(x @ A)
        return x, ff.sum(x * x)

    return {"main": (ff.unfold(step, length=STEPS), ff.f32[3])}


def plain_orbit(p, x):
    """A map, iterated."""
    ys = []
    for _ in range(STEPS):
        x = torch.tanh(x @ p["A"])
        ys.append((x * x).sum())
    return torch.stack(ys)


def halting():
    W, u = ff.param((3, 3), "W"), ff.param((3,), "u")

    def step(carry):
        x, spent = carry
        x = ff.tanh(2 * x @ W)
        spent = spent + ff.sigmoid(2 * ff.sum(x * u))
        return (x, spent), (x, spent)

    return {
        "main": (
            lambda x: ff.unfold(step, init=(x, 0.0), until=lambda y: y[1] > 2, max_length=8),
            ff.f32[3],
        )
    }


def plain_halting(p, x):
    """Steps until the halting scores pass a bound; each row stops for itself (after Graves, 2016)."""
    xs, scores, spent = [], [], zeros()
    while len(xs) < 8:
        x = torch.tanh(2 * (x @ p["W"]))
        spent = spent + torch.sigmoid(2 * (x @ p["u"]))
        xs.append(x)
        scores.append(spent)
        if spent > 2:
            break
    return torch.stack(xs), torch.stack(scores)


def summed_halting():
    (expression, *types) = halting()["main"]

    def ponder(x):
        xs, scores = ff.unzip(expression(x))
        return ff.mean(xs), ff.max(scores)

    return {"main": (ponder, *types)}


def plain_summed_halting(p, x):
    """Reductions over a list whose length the data decide."""
    xs, scores = plain_halting(p, x)
    return xs.mean(dim=0), scores.max()


# ---------------------------------------------------------------- words
def speaker(choose, **stop):
    with ff.scope("dec"):
        emb, cell, out = ff.embedding(V, D, name="emb"), gru(H, D), ff.dense(V, name="out")

    def speak(h, y):
        h = cell(h, emb(y))
        return h, out(h)

    return {"main": (lambda h: ff.unfold(ff.feedback(speak, choose), init=(h, BOS), **stop), ff.f32[H])}


SPEAKER = {
    "dec.emb.weight": (V, D),
    **prefixed("dec", gru_shapes(H, D)),
    **prefixed("dec", dense_shapes("out", H, V)),
}


def plain_speak(p, h, y):
    """One word of the decoder: the new state and the scores."""
    dec = under(p, "dec")
    h, _ = plain_gru(dec, h, dec["emb.weight"][y])
    return h, dense(dec, "out", h)


def plain_speaker(stop, steps, p, h):
    """The most likely word, again and again."""
    y, said = torch.tensor(BOS), []
    while len(said) < steps:
        h, logits = plain_speak(p, h, y)
        y = logits.argmax()
        said.append(y)
        if stop and y <= END:
            break
    return torch.stack(said)


def likelihoods():
    """What the free net said, with its log-probabilities, and the same words scored by teacher forcing."""
    with ff.scope("dec"):
        emb, cell, out = ff.embedding(V, D, name="emb"), gru(H, D), ff.dense(V, name="out")

    def speak(h, y):
        h = cell(h, emb(y))
        return h, out(h)

    def saying(s):
        h, y = s
        h, logits = speak(h, y)
        y = ff.greedy(logits)
        return (h, y), (y, -ff.cross_entropy(logits, y))

    def both(h):
        said, scores = ff.unzip(ff.unfold(saying, init=(h, BOS), until=lambda y: y[0] <= END, max_length=STEPS))
        logits = ff.scan(speak, init=h)(ff.shift(said, BOS))
        taught = ff.map(lambda p: -ff.cross_entropy(*p))(ff.zip(logits, said))
        return said, ff.sum(scores), ff.sum(taught)

    return {"main": (both, ff.f32[H])}


def plain_likelihoods(p, h):
    """The two sums are one number."""
    said = plain_speaker(True, STEPS, p, h)
    total, y = zeros(), torch.tensor(BOS)
    for word in said:
        h, logits = plain_speak(p, h, y)
        total = total + torch.log_softmax(logits, dim=0)[word]
        y = word
    return said, total, total


def straight_through():
    """Trainable through the choice: the word forward, the softmax backward."""
    with ff.scope("dec"):
        cell, out = gru(H, V), ff.dense(V, name="out")

    def choose(logits):
        soft = ff.softmax(logits)
        hard = ff.where(ff.arange(V) == ff.argmax(logits), 1.0, 0.0)
        return soft + (hard - soft).detach()

    def speak(h, y):
        h = cell(h, y)
        return h, out(h)

    return {"main": (ff.unfold(ff.feedback(speak, choose), length=4), (ff.f32[H], ff.f32[V]))}


def plain_straight_through(p, start):
    """Bengio, Léonard, Courville, Estimating or propagating gradients through stochastic neurons (2013)."""
    dec, (h, y) = under(p, "dec"), start
    said = []
    for _ in range(4):
        h, _ = plain_gru(dec, h, y)
        logits = dense(dec, "out", h)
        soft = torch.softmax(logits, dim=0)
        hard = F.one_hot(logits.argmax(), V).to(soft.dtype)
        y = soft + (hard - soft).detach()
        said.append(y)
    return torch.stack(said)


def autoencoder():
    with ff.scope("enc"):
        enc = ff.map(ff.embedding(V, D, name="emb")) >> ff.fold(gru(H, D), init=ff.zeros(H))
    with ff.scope("dec"):
        cell, out = gru(H, V), ff.dense(V, name="out")

    def speak(h, y):
        h = cell(h, y)
        return h, ff.softmax(out(h))

    def guess(xs):  # each output is a mixture of words, and so trains without a teacher
        return ff.unfold(ff.feedback(speak, lambda y: y), init=(enc(xs), ff.zeros(V)), length=STEPS)

    return {"main": (guess, Text)}


def plain_autoencoder(p, xs):
    """A fold handed on to an unfold: the vector between encoder and decoder."""
    enc, dec = under(p, "enc"), under(p, "dec")
    h, y, ys = zeros(H), zeros(V), []
    for x in xs:
        h, _ = plain_gru(enc, h, enc["emb.weight"][x])
    for _ in range(STEPS):
        h, _ = plain_gru(dec, h, y)
        y = torch.softmax(dense(dec, "out", h), dim=0)
        ys.append(y)
    return torch.stack(ys)


def state(rng, length):
    return (3 * floats(rng, H),)


def spoken(name, choose, stop, **settings):
    return Program(
        f"unfolds.{name}",
        lambda: speaker(choose(), **settings),
        partial(plain_speaker, stop, settings.get("max_length") or settings["length"]),
        state,
        SPEAKER,
        unused=frozenset(SPEAKER),
    )


PROGRAMS = (
    Program(
        "unfolds.taught",
        numbers,
        plain_taught,
        lambda rng, n: (floats(rng, H), floats(rng, n, D)),
        NUMBERS,
        lengths=(0, 1, 5),
        entry="taught",
    ),
    Program(
        "unfolds.free",
        numbers,
        plain_free,
        lambda rng, n: (floats(rng, H), floats(rng, D)),
        NUMBERS,
        entry="free",
        second=True,
    ),
    Program("unfolds.orbit", orbit, plain_orbit, lambda rng, n: (floats(rng, 3),), {"A": (3, 3)}, second=True),
    Program(
        "unfolds.halting",
        halting,
        plain_halting,
        lambda rng, n: (floats(rng, 3),),
        {"W": (3, 3), "u": (3,)},
        second=True,
    ),
    Program(
        "unfolds.summed_halting",
        summed_halting,
        plain_summed_halting,
        lambda rng, n: (floats(rng, 3),),
        {"W": (3, 3), "u": (3,)},
    ),
    spoken("greedy.length", lambda: ff.greedy, False, length=STEPS),
    spoken("greedy.until", lambda: ff.greedy, True, until=lambda y: y <= END, max_length=20),
    spoken("top_one", lambda: ff.sample(temperature=0.7, top_k=1), True, until=lambda y: y <= END, max_length=20),
    Program("unfolds.likelihoods", likelihoods, plain_likelihoods, state, SPEAKER),
    Program(
        "unfolds.straight_through",
        straight_through,
        plain_straight_through,
        lambda rng, n: ((floats(rng, H), floats(rng, V)),),
        {**prefixed("dec", gru_shapes(H, V)), **prefixed("dec", dense_shapes("out", H, V))},
    ),
    Program(
        "unfolds.autoencoder",
        autoencoder,
        plain_autoencoder,
        lambda rng, n: (tokens(rng, n, V),),
        {
            "enc.emb.weight": (V, D),
            **prefixed("enc", gru_shapes(H, D)),
            **prefixed("dec", gru_shapes(H, V)),
            **prefixed("dec", dense_shapes("out", H, V)),
        },
        lengths=(0, 1, 5),
        second=True,
    ),
)
