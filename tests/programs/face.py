"""The programs that the documentation shows, as they stand there, with the pieces that it leaves to the user."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

import foldfuse as ff

from .record import Program, floats, loop, prefixed, tokens, under
from .recurrences import attend, gru, lstm, plain_attend, plain_gru, plain_lstm, rest
from .windows import pad, plain_conv

V, D, H, C = 7, 3, 5, 3  # vocabulary, embedding, carry, classes
BOS, EOS = 0, 1
Text = ff.Seq(ff.i64)


def lstm_shapes(n, d):
    return {"W": (d, 4 * n), "U": (n, 4 * n), "b": (4 * n,)}


def gru_shapes(n, d):
    return {"W": (d, 3 * n), "U": (n, 3 * n), "b": (3 * n,), "bu": (3 * n,)}


def dense_shapes(name, d, n):
    return {f"{name}.weight": (d, n), f"{name}.bias": (n,)}


def zeros(*shape):
    return torch.zeros(shape, dtype=torch.float64)


def dense(p, name, x):
    """An affine map."""
    return x @ p[f"{name}.weight"] + p[f"{name}.bias"]


# ---------------------------------------------------------------- tagger
def both_ways(name, n, d):
    with ff.scope(name):
        with ff.scope("left"):
            left = ff.scan(lstm(n, d), init=rest(n))
        with ff.scope("right"):
            right = ff.scan(lstm(n, d), init=rest(n), reverse=True)
    return (left & right) >> ff.zip >> ff.map(lambda p: ff.concat(*p))


def tagger():
    tag = (
        ff.map(ff.embedding(V, D))
        >> both_ways("one", H, D)
        >> ff.map(ff.dropout(0.1))
        >> both_ways("two", H, 2 * H)
        >> ff.map(ff.dense(C) >> ff.log_softmax)
    )
    return {"main": (tag, Text)}


def plain_both_ways(p, xs):
    """Schuster and Paliwal, Bidirectional recurrent neural networks (1997)."""
    start = zeros(H), zeros(H)
    left = loop(partial(plain_lstm, under(p, "left")), start, xs)[1]
    right = loop(partial(plain_lstm, under(p, "right")), start, xs, reverse=True)[1]
    return torch.cat((left, right), dim=1)


def plain_tagger(p, words):
    """A bidirectional LSTM tagger of two layers (Graves and Schmidhuber, 2005)."""
    xs = p["embedding_0.weight"][words]
    xs = plain_both_ways(under(p, "two"), plain_both_ways(under(p, "one"), xs))
    return torch.log_softmax(dense(p, "dense_0", xs), dim=1)


TAGGER = {
    "embedding_0.weight": (V, D),
    **prefixed("one.left", lstm_shapes(H, D)),
    **prefixed("one.right", lstm_shapes(H, D)),
    **prefixed("two.left", lstm_shapes(H, 2 * H)),
    **prefixed("two.right", lstm_shapes(H, 2 * H)),
    **dense_shapes("dense_0", 2 * H, C),
}


# ---------------------------------------------------------------- sequence to sequence
MAX_LENGTH = 40


def seq2seq():
    with ff.scope("enc"):
        enc = ff.map(ff.embedding(V, D)) >> ff.fold(gru(H, D), init=ff.zeros(H))
    with ff.scope("dec"):
        emb, cell, out = ff.embedding(V, D), gru(H, D), ff.dense(V)

    def speak(h, y):
        h = cell(h, emb(y))
        return h, out(h)

    def loss(src, tgt):
        logits = ff.scan(speak, init=enc(src))(ff.shift(tgt, BOS))
        return ff.sum(ff.map(lambda p: ff.cross_entropy(*p))(ff.zip(logits, tgt)))

    sample = (
        enc
        >> (lambda h: (h, BOS))
        >> ff.unfold(ff.feedback(speak, ff.greedy), until=lambda y: y == EOS, max_length=MAX_LENGTH)
    )
    return {"loss": (loss, Text, Text), "sample": (sample, Text)}


SEQ2SEQ = {
    "enc.embedding_0.weight": (V, D),
    **prefixed("enc", gru_shapes(H, D)),
    "dec.embedding_0.weight": (V, D),
    **prefixed("dec", gru_shapes(H, D)),
    **prefixed("dec", dense_shapes("dense_0", H, V)),
}


def plain_encode(p, src):
    """The last state of a GRU over the source."""
    return loop(partial(plain_gru, p), zeros(H), p["embedding_0.weight"][src])[0]


def plain_speak(p, h, y):
    """One word: the state reads the last word and scores the next."""
    h, _ = plain_gru(p, h, p["embedding_0.weight"][y])
    return h, dense(p, "dense_0", h)


def plain_seq2seq_loss(p, src, tgt):
    """Sutskever, Vinyals, Le, Sequence to sequence learning (2014), with GRUs, taught by the right words."""
    h, total, previous = plain_encode(under(p, "enc"), src), zeros(), torch.tensor(BOS)
    for word in tgt:
        h, logits = plain_speak(under(p, "dec"), h, previous)
        total = total + F.cross_entropy(logits, word)
        previous = word
    return total


def plain_seq2seq_sample(p, src):
    """The same net, which says its most likely word and hears it, until it says the end."""
    h, y, said = plain_encode(under(p, "enc"), src), torch.tensor(BOS), []
    while len(said) < MAX_LENGTH:
        h, logits = plain_speak(under(p, "dec"), h, y)
        y = logits.argmax()
        said.append(y)
        if y == EOS:
            break
    return torch.stack(said)


def source_and_target(rng, length):
    return tokens(rng, length + 1, V), tokens(rng, length, V)


# ---------------------------------------------------------------- attention decoder
def luong_decoder():
    with ff.scope("mem"):
        mem = ff.map(ff.embedding(V, D)) >> ff.scan(gru(H, D), init=ff.zeros(H), final=True)
    with ff.scope("dec"):
        emb, cell = ff.embedding(V, D), gru(H, D + H)
    att, mix, out = ff.dense(H, name="att"), ff.dense(H, name="mix"), ff.dense(V, name="out")

    def luong(src, tgt):
        last, keys = mem(src)

        def step(s, y):
            h, feed = s
            h = cell(h, ff.concat(emb(y), feed))
            q = att(h)
            a = ff.softmax(ff.map(lambda k: ff.sum(k * q))(keys))
            feed = ff.tanh(mix(ff.concat(ff.sum(a * keys), h)))
            return (h, feed), out(feed)

        return ff.scan(step, init=(last, ff.zeros(H)))(ff.shift(tgt, BOS))

    return {"main": (luong, Text, Text)}


def plain_luong(p, src, tgt):
    """Luong, Pham, Manning, Effective approaches to attention-based translation (2015), with input feeding."""
    mem, dec = under(p, "mem"), under(p, "dec")
    h, keys = loop(partial(plain_gru, mem), zeros(H), mem["embedding_0.weight"][src])
    feed, previous, scores = zeros(H), torch.tensor(BOS), []
    for word in tgt:
        h, _ = plain_gru(dec, h, torch.cat((dec["embedding_0.weight"][previous], feed)))
        weights = torch.softmax(keys @ dense(p, "att", h), dim=0)
        feed = torch.tanh(dense(p, "mix", torch.cat((weights @ keys, h))))
        scores.append(dense(p, "out", feed))
        previous = word
    return torch.stack(scores) if scores else zeros(0, V)


LUONG = {
    "mem.embedding_0.weight": (V, D),
    **prefixed("mem", gru_shapes(H, D)),
    "dec.embedding_0.weight": (V, D),
    **prefixed("dec", gru_shapes(H, D + H)),
    **dense_shapes("att", H, H),
    **dense_shapes("mix", 2 * H, H),
    **dense_shapes("out", H, V),
}


# ---------------------------------------------------------------- selective state space block
E, N = 5, 2  # inner width and states per channel


def mamba_block():
    norm, inp, outp = ff.layer_norm(name="norm"), ff.dense(2 * E, name="inp"), ff.dense(D, name="outp")
    A, K, skip = ff.param((E, N), "A"), ff.param((4, E), "K"), ff.param((E,), "skip")
    rate, mixing = ff.dense(E, name="rate"), ff.dense(2 * N, name="mixing")

    def inner(u):
        b, c = ff.chunk(mixing(u), 2)
        return ff.softplus(rate(u)), b, c

    def ssm(h, u):
        dt, b, c = inner(u)
        h = ff.exp(-dt[:, None] * ff.exp(A)) * h + (dt * u)[:, None] * b
        return h, ff.sum(h * c, axis=1) + skip * u

    def mamba(xs):
        u, z = ff.unzip(ff.map(norm >> inp >> (lambda v: ff.chunk(v, 2)))(xs))
        u = ff.window_map(lambda w: ff.silu(ff.sum(w * K, axis=0)), 4, padding="causal")(u)
        return xs + ff.map(outp)(ff.scan(ssm, init=ff.zeros(E, N))(u) * ff.map(ff.silu)(z))

    return {"main": (mamba, ff.Seq(ff.f32[D]))}


def plain_mamba(p, xs):
    """Gu and Dao, Mamba: linear-time sequence modeling with selective state spaces (2023)."""
    both = dense(p, "inp", F.layer_norm(xs, (D,), p["norm.weight"], p["norm.bias"]))
    u, z = both[:, :E], both[:, E:]
    padded = pad(u, (4,), 1, "causal")
    h, ys = zeros(E, N), []
    for t in range(len(xs)):
        v = F.silu((padded[t : t + 4] * p["K"]).sum(dim=0))
        dt = F.softplus(dense(p, "rate", v))
        b, c = torch.split(dense(p, "mixing", v), N)
        h = torch.exp(-torch.exp(p["A"]) * dt.unsqueeze(1)) * h + torch.outer(dt * v, b)
        ys.append(xs[t] + dense(p, "outp", (h @ c + p["skip"] * v) * F.silu(z[t])))
    return torch.stack(ys) if ys else xs.new_zeros(0, D)


MAMBA = {
    "norm.weight": (D,),
    "norm.bias": (D,),
    **dense_shapes("inp", D, 2 * E),
    **dense_shapes("outp", E, D),
    "A": (E, N),
    "K": (4, E),
    "skip": (E,),
    **dense_shapes("rate", E, E),
    **dense_shapes("mixing", E, 2 * N),
}


# ---------------------------------------------------------------- convolutional LSTM, residual block
def convlstm(n, k):  # a window map inside a scan
    gates = ff.conv(4 * n, (k, k), padding="same")
    rest = ff.map(lambda _: ff.zeros(n))
    pair = lambda a, b: ff.map(lambda p: ff.concat(*p))(ff.zip(a, b))

    def step(carry, x):
        h, c = carry
        i, f, g, o = ff.chunk(gates(pair(x, h)), 4)
        c = ff.sigmoid(f) * c + ff.sigmoid(i) * ff.tanh(g)
        return ff.sigmoid(o) * ff.tanh(c), c

    return ff.scan(step, init=lambda frame: (rest(frame), rest(frame)))


def plain_convlstm(p, frames):
    """Shi et al., Convolutional LSTM network (2015), without peepholes; each output is the pair of h and c."""
    h = c = zeros(*frames.shape[1:3], 3)
    hs, cs = [], []
    for x in frames:
        gates = plain_conv(p, torch.cat((x, h), dim=2), padding="same")
        i, f, g, o = torch.split(gates, 3, dim=2)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        hs.append(h)
        cs.append(c)
    return torch.stack(hs), torch.stack(cs)


residual = lambda f: lambda x: ff.relu(x + f(x))


def residual_block():
    block = residual(
        ff.conv(6, (3, 3), padding="same")
        >> ff.group_norm(3)
        >> ff.relu
        >> ff.conv(6, (3, 3), padding="same")
        >> ff.group_norm(3)
    )
    return {"main": (block, ff.Grid(ff.f32[6], 2))}


def plain_group_norm(p, name, x):
    """Wu and He, Group normalization (2018), of a picture with three groups of channels."""
    y = F.group_norm(x.movedim(-1, 0)[None], 3, p[f"{name}.weight"], p[f"{name}.bias"])
    return y[0].movedim(0, -1)


def plain_residual_block(p, x):
    """He et al., Deep residual learning (2015)."""
    y = torch.relu(plain_group_norm(p, "group_norm_0", plain_conv(p, x, padding="same")))
    return torch.relu(x + plain_group_norm(p, "group_norm_1", plain_conv(p, y, padding="same", name="conv_1")))


# ---------------------------------------------------------------- child-sum TreeLSTM
def child_sum(every):
    W, b = ff.param((D, 4 * H), "W"), ff.param((4 * H,), "b")
    U, Uf = ff.param((H, 3 * H), "U"), ff.param((H, H), "Uf")

    def node(x, kids):
        wi, wo, wu, wf = ff.chunk(x @ W + b, 4)
        ui, uo, uu = ff.chunk(ff.sum(ff.map(lambda r: r[0])(kids)) @ U, 3)
        c = ff.sigmoid(wi + ui) * ff.tanh(wu + uu) + ff.sum(ff.map(lambda r: ff.sigmoid(wf + r[0] @ Uf) * r[1])(kids))
        return ff.sigmoid(wo + uo) * ff.tanh(c), c

    return {"main": (ff.cata(node, every=every), ff.Tree(ff.f32[D]))}


CHILD_SUM = {"W": (D, 4 * H), "b": (4 * H,), "U": (H, 3 * H), "Uf": (H, H)}


# ---------------------------------------------------------------- fast weights, a step that learns
def attention():
    return {"main": (ff.scan(attend, init=ff.zeros(3, 5)), ff.Seq((ff.f32[3], ff.f32[3], ff.f32[5])))}


def mse(W, p):
    x, y = p
    return ff.mean((x @ W - y) ** 2)


def learner(W, p):
    W = W - 0.1 * ff.grad(mse)(W, p)
    return W, p[0] @ W


def learning():
    W = ff.param((D, 2), "W")
    return {"main": (ff.scan(learner, init=W), ff.Seq((ff.f32[D], ff.f32[2])))}


def plain_learning(p, pairs):
    """Sun et al., Learning to (learn at test time) (2024), the linear case: a step of descent per element."""
    W, ys = p["W"], []
    for x, y in zip(*pairs, strict=True):
        error = x @ W - y
        W = W - 0.1 * (2 / len(y)) * torch.outer(x, error)
        ys.append(x @ W)
    return torch.stack(ys)


# ---------------------------------------------------------------- neural Turing machine
SLOTS, CELL = 5, 3


def head(M, prev, k, beta, gate, s, gamma):
    w = ff.softmax(beta * (M @ k) / (ff.norm(M, axis=1) * ff.norm(k) + 1e-6))
    w = gate * w + (1 - gate) * prev
    w = (s[0] * ff.roll(w, 1) + s[1] * w + s[2] * ff.roll(w, -1)) ** gamma
    return w / ff.sum(w)


def turing():
    with ff.scope("control"):
        cell = gru(H, D + CELL)
    key, settings, erase, add = (
        ff.dense(n, name=name) for n, name in ((CELL, "key"), (6, "settings"), (CELL, "erase"), (CELL, "add"))
    )
    M0, w0 = ff.param((SLOTS, CELL), "M0"), ff.param((SLOTS,), "w0")

    def step(carry, x):
        M, w, read, h = carry
        h = cell(h, ff.concat(x, read))
        s = settings(h)
        w = head(M, w, ff.tanh(key(h)), ff.softplus(s[0]), ff.sigmoid(s[1]), ff.softmax(s[3:]), 1 + ff.softplus(s[2]))
        M = M * (1 - w[:, None] * ff.sigmoid(erase(h))) + w[:, None] * ff.tanh(add(h))
        read = w @ M
        return (M, w, read, h), read

    def machine(xs):
        return ff.scan(step, init=(M0, ff.softmax(w0), ff.zeros(CELL), ff.zeros(H)))(xs)

    return {"main": (machine, ff.Seq(ff.f32[D]))}


def plain_turing(p, xs):
    """Graves, Wayne, Danihelka, Neural Turing machines (2014): one head, which writes and then reads."""
    M, w, read, h = p["M0"], torch.softmax(p["w0"], dim=0), zeros(CELL), zeros(H)
    reads = []
    for x in xs:
        h, _ = plain_gru(under(p, "control"), h, torch.cat((x, read)))
        k = torch.tanh(dense(p, "key", h))
        s = dense(p, "settings", h)
        beta, gate, gamma, shift = F.softplus(s[0]), torch.sigmoid(s[1]), 1 + F.softplus(s[2]), torch.softmax(s[3:], 0)
        similar = torch.stack([(row @ k) / (row.norm() * k.norm() + 1e-6) for row in M])
        w = gate * torch.softmax(beta * similar, dim=0) + (1 - gate) * w
        moved = [shift[0] * w[i - 1] + shift[1] * w[i] + shift[2] * w[(i + 1) % SLOTS] for i in range(SLOTS)]
        w = torch.stack(moved) ** gamma
        w = w / w.sum()
        M = M * (1 - torch.outer(w, torch.sigmoid(dense(p, "erase", h)))) + torch.outer(
            w, torch.tanh(dense(p, "add", h))
        )
        read = w @ M
        reads.append(read)
    return torch.stack(reads) if reads else zeros(0, CELL)


TURING = {
    **prefixed("control", gru_shapes(H, D + CELL)),
    **dense_shapes("key", H, CELL),
    **dense_shapes("settings", H, 6),
    **dense_shapes("erase", H, CELL),
    **dense_shapes("add", H, CELL),
    "M0": (SLOTS, CELL),
    "w0": (SLOTS,),
}


# ---------------------------------------------------------------- many inputs, many tasks, one representation
FACE = 5
Face = ff.Rep("Face", ff.f32[FACE])
RGB, Grey = ff.Rep("RGB", ff.Grid(ff.f32[3], 2)), ff.Rep("Grey", ff.Grid(ff.f32[1], 2))


def faces():
    with ff.scope("rgb"):
        rgb = ff.conv(4, (3, 3), padding="same") >> ff.relu >> ff.mean >> ff.dense(FACE) >> ff.tanh >> Face
    with ff.scope("grey"):
        grey = ff.conv(3, (3, 3), padding="same") >> ff.relu >> ff.mean >> ff.dense(FACE) >> ff.tanh >> Face
    age, sex = ff.dense(1, name="age"), ff.dense(2, name="sex") >> ff.log_softmax
    heads = age & sex
    return {"rgb": (rgb.typed(RGB, Face) >> heads, RGB), "grey": (grey.typed(Grey, Face) >> heads, Grey)}


def plain_faces(kind, p, picture):
    """Two encoders into one representation, and two tasks read from it (Caruana, Multitask learning, 1997)."""
    own = under(p, kind)
    features = torch.relu(plain_conv(own, picture, padding="same")).mean(dim=(0, 1))
    face = torch.tanh(dense(own, "dense_0", features))
    return dense(p, "age", face), torch.log_softmax(dense(p, "sex", face), dim=0)


FACES = {
    **{"rgb.conv_0.weight": (3, 3, 3, 4), "rgb.conv_0.bias": (4,)},
    **prefixed("rgb", dense_shapes("dense_0", 4, FACE)),
    **{"grey.conv_0.weight": (3, 3, 1, 3), "grey.conv_0.bias": (3,)},
    **prefixed("grey", dense_shapes("dense_0", 3, FACE)),
    **dense_shapes("age", FACE, 1),
    **dense_shapes("sex", FACE, 2),
}


# ---------------------------------------------------------------- language model with carried state
def language_model():
    emb, cell, out = ff.embedding(V, D, name="emb"), gru(H, D), ff.dense(V, name="out")

    def lm(xs, ys, state):
        state, hs = ff.scan(cell, init=state, final=True)(ff.map(emb)(xs))
        return ff.sum(ff.map(lambda p: ff.cross_entropy(out(p[0]), p[1]))(ff.zip(hs, ys))), state

    return {"main": (lm, Text, Text, ff.f32[H])}


def plain_language_model(p, xs, ys, h):
    """Mikolov et al., Recurrent neural network based language model (2010), with a GRU."""
    total = zeros()
    for x, y in zip(xs, ys, strict=True):
        h, _ = plain_gru(p, h, p["emb.weight"][x])
        total = total - torch.log_softmax(dense(p, "out", h), dim=0)[y]
    return total, h


def plain_child_sum(every, p, tree):
    """Tai, Socher, Manning, Improved semantic representations from tree-structured LSTMs (2015): the child-sum form."""
    found = []  # the results in input order: a node before its children

    def visit(tree):
        x, kids = tree
        place = len(found)
        found.append(None)
        results = [visit(kid) for kid in kids]
        h = sum((r[0] for r in results), zeros(H))
        wi, wo, wu, wf = torch.split(x @ p["W"] + p["b"], H)
        ui, uo, uu = torch.split(h @ p["U"], H)
        c = torch.sigmoid(wi + ui) * torch.tanh(wu + uu)
        for hk, ck in results:
            c = c + torch.sigmoid(wf + hk @ p["Uf"]) * ck
        found[place] = torch.sigmoid(wo + uo) * torch.tanh(c), c
        return found[place]

    root = visit(tree)
    return tuple(torch.stack(parts) for parts in zip(*found, strict=True)) if every else root


def any_tree(rng: np.random.Generator, nodes: int, width: int = D) -> tuple:
    """A tree of `nodes` nodes, each hung below a random earlier one."""
    parents = [int(rng.integers(0, i)) for i in range(1, nodes)]
    made: list[tuple] = [(floats(rng, width), []) for _ in range(nodes)]
    for child, parent in enumerate(parents, start=1):
        made[parent][1].append(made[child])
    return made[0]


# ---------------------------------------------------------------- the records
def text_pair(rng, length):
    return tokens(rng, length, V), tokens(rng, length, V), floats(rng, H)


PROGRAMS = (
    Program("face.tagger", tagger, plain_tagger, lambda rng, n: (tokens(rng, n, V),), TAGGER, lengths=(0, 1, 5)),
    Program(
        "face.seq2seq.loss",
        seq2seq,
        plain_seq2seq_loss,
        source_and_target,
        SEQ2SEQ,
        lengths=(0, 1, 5),
        entry="loss",
        second=True,
    ),
    Program(
        "face.seq2seq.sample",
        seq2seq,
        plain_seq2seq_sample,
        lambda rng, n: (tokens(rng, n, V),),
        SEQ2SEQ,
        entry="sample",
        unused=frozenset(SEQ2SEQ),
    ),
    Program("face.luong", luong_decoder, plain_luong, source_and_target, LUONG, lengths=(0, 1, 5), second=True),
    Program(
        "face.mamba",
        mamba_block,
        plain_mamba,
        lambda rng, n: (floats(rng, n, D),),
        MAMBA,
        lengths=(0, 1, 6),
        second=True,
    ),
    Program(
        "face.convlstm",
        lambda: {"main": (convlstm(3, 3), ff.Seq(ff.Grid(ff.f32[2], 2)))},
        plain_convlstm,
        lambda rng, n: (floats(rng, n, 5, 3, 2),),
        {"conv_0.weight": (3, 3, 5, 12), "conv_0.bias": (12,)},
        lengths=(1, 3),
    ),
    Program(
        "face.residual_block",
        residual_block,
        plain_residual_block,
        lambda rng, n: (floats(rng, n, 3, 6),),
        {
            **{f"conv_{i}.{name}": shape for i in (0, 1) for name, shape in (("weight", (3, 3, 6, 6)), ("bias", (6,)))},
            **{f"group_norm_{i}.{name}": (6,) for i in (0, 1) for name in ("weight", "bias")},
        },
        lengths=(3, 5),
        ragged=False,
    ),
    *(
        Program(
            f"face.child_sum{'.every' if every else ''}",
            partial(child_sum, every),
            partial(plain_child_sum, every),
            lambda rng, n: (any_tree(rng, n),),
            CHILD_SUM,
            lengths=(2, 1, 7),
            second=True,
        )
        for every in (True, False)
    ),
    Program(
        "face.attend",
        attention,
        lambda p, qkv: loop(partial(plain_attend, p), zeros(3, 5), qkv)[1],
        lambda rng, n: ((floats(rng, n, 3), floats(rng, n, 3), floats(rng, n, 5)),),
        {},
        lengths=(0, 1, 5),
        second=True,
    ),
    Program(
        "face.learner",
        learning,
        plain_learning,
        lambda rng, n: ((floats(rng, n, D), floats(rng, n, 2)),),
        {"W": (D, 2)},
        second=True,
    ),
    Program(
        "face.turing", turing, plain_turing, lambda rng, n: (floats(rng, n, D),), TURING, lengths=(0, 1, 4), second=True
    ),
    *(
        Program(
            f"face.faces.{kind}",
            faces,
            partial(plain_faces, kind),
            lambda rng, n, channels=channels: (floats(rng, n, 4, channels),),
            FACES,
            lengths=(3, 5),
            ragged=False,
            entry=kind,
            unused=frozenset(name for name in FACES if name.startswith(other)),
        )
        for kind, other, channels in (("rgb", "grey", 3), ("grey", "rgb", 1))
    ),
    Program(
        "face.language_model",
        language_model,
        plain_language_model,
        text_pair,
        {"emb.weight": (V, D), **gru_shapes(H, D), **dense_shapes("out", H, V)},
        lengths=(0, 1, 5),
        second=True,
    ),
)
