"""Programs for the command line, one of each kind of input."""

from __future__ import annotations

import foldfuse as ff

H, D, V, END = 4, 3, 6, 0


def gru(n, d):
    W, U, b = ff.param((d, 3 * n), "W"), ff.param((n, 3 * n), "U"), ff.param((3 * n,), "b")

    def step(h, x):
        wz, wr, wn = ff.chunk(x @ W + b, 3)
        uz, ur, un = ff.chunk(h @ U, 3)
        z, r = ff.sigmoid(wz + uz), ff.sigmoid(wr + ur)
        return z * h + (1 - z) * ff.tanh(wn + r * un)

    return step


encoder = (ff.scan(gru(H, D), init=ff.zeros(H)) >> ff.map(ff.dense(2)), ff.Seq(ff.f32[D]))

model = ff.compile(ff.fold(gru(H, D), init=ff.zeros(H)), ff.Seq(ff.f32[D]))


def translator():
    """Two entry points on one parameter set: the likelihood of a text, and a text that decides when it ends."""
    with ff.scope("encoder"):
        encode = ff.map(ff.embedding(V, D)) >> ff.fold(gru(H, D), init=ff.zeros(H))
    with ff.scope("decoder"):
        embed, cell, scores = ff.embedding(V, D), gru(H, D), ff.dense(V)

    def speak(h, y):
        h = cell(h, embed(y))
        return h, scores(h)

    def loss(source, target):
        logits = ff.scan(speak, init=encode(source))(ff.shift(target, END))
        return ff.sum(ff.map(lambda pair: ff.cross_entropy(*pair))(ff.zip(logits, target)))

    talk = ff.unfold(ff.feedback(speak, ff.sample(temperature=0.9)), until=lambda y: y == END, max_length=5)
    text = ff.Seq(ff.i64)
    return {"loss": (loss, text, text), "sample": (encode >> (lambda h: (h, END)) >> talk, text)}


pooling = (
    ff.conv(3, (3, 3), padding="same") >> ff.relu >> ff.max_pool((2, 2)) >> (lambda grid: ff.mean(grid)),
    ff.Grid(ff.f32[2], 2),
)

wide_window = (ff.window_map(lambda w: ff.sum(w, axis=0), 12), ff.Seq(ff.f32[D]))


def trees():
    W, U = ff.param((D, H), "W"), ff.param((H, H), "U")
    node = lambda x, kids: ff.tanh(x @ W + ff.sum(kids) @ U)
    return ff.cata(node, every=True), ff.Tree(ff.f32[D])


words_of_characters = (ff.map(ff.fold(gru(H, D), init=ff.zeros(H))), ff.Seq(ff.Seq(ff.f32[D])))

records = (
    lambda record: {"sum": record["left"] + ff.sum(record["right"]), "count": record["n"] + 1},
    {"left": ff.f32[D], "right": ff.Seq(ff.f32[D]), "n": ff.i64},
)

straight = (lambda x: ff.straight_through(ff.greedy)(x) * ff.param((V,), "w"), ff.f32[V])

selected = (lambda xs, index: xs[index], ff.Seq(ff.f32[D]), ff.i64)

counting = (lambda xs: ff.sum(ff.map(lambda x: x + 1)(xs)), ff.Seq(ff.i64))


def with_arguments(size):
    """Not a program: the command line cannot know the size."""
    return gru(size, size)


bare = ff.fold(gru(H, D), init=ff.zeros(H))

number = 3

mistaken = (ff.fold(lambda h, x: ff.concat(h, x), init=ff.zeros(H)), ff.Seq(ff.f32[D]))
