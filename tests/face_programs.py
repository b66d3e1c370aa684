"""The programs of the language's description, line for line as they are printed there.

Above the ruled line stands what the description leaves to its reader: sizes, a GRU "like lstm", layers, parameters, an
error.
"""

import foldfuse as ff

from .programs.face import BOS, EOS, C, D, E, H, N, V
from .programs.recurrences import gru

e, n, X = E, N, 64  # inner width and states of the state space block; width of the representation

with ff.scope("mem"):
    mem = ff.map(ff.embedding(V, D)) >> ff.scan(gru(H, D), init=ff.zeros(H), final=True)
att, mix = ff.dense(H, name="att"), ff.dense(H, name="mix")

norm, inp, outp = ff.layer_norm(name="norm"), ff.dense(2 * e, name="inp"), ff.dense(D, name="outp")
A, K, skip = ff.param((e, n), "A"), ff.param((4, e), "K"), ff.param((e,), "skip")
rate, mixing = ff.dense(e, name="rate"), ff.dense(2 * n, name="mixing")
inner = lambda u: (ff.softplus(rate(u)), *ff.chunk(mixing(u), 2))

W, b, U, Uf = ff.param((D, 4 * H), "W"), ff.param((4 * H,), "b"), ff.param((H, 3 * H), "U"), ff.param((H, H), "Uf")

mse = lambda W, p: ff.mean((p[0] @ W - p[1]) ** 2)

RGB, Grey = ff.Rep("RGB", ff.Grid(ff.f32[3], 2)), ff.Rep("Grey", ff.Grid(ff.f32[1], 2))
see = lambda channels: ff.conv(channels, (3, 3), padding="same") >> ff.relu >> ff.mean >> ff.dense(X) >> ff.tanh
with ff.scope("rgb"):
    rgb = see(4) >> (lambda x: Face(x))
with ff.scope("grey"):
    grey = see(3) >> (lambda x: Face(x))
age, sex = ff.dense(1, name="age"), ff.dense(2, name="sex") >> ff.log_softmax

with ff.scope("dec"):  # the attention decoder's own, of another width than the names that it is written with
    attentive = {"emb": ff.embedding(V, D), "cell": gru(H, D + H), "out": ff.dense(V)}

# ----------------------------------------------------------------------------------------------------------------------
rest = lambda n: (ff.zeros(n), ff.zeros(n))
def lstm(n, d, norm=lambda: lambda v: v):                      # norm=ff.layer_norm gives the layer-norm LSTM
    W = ff.param((d, 4*n), "W"); U = ff.param((n, 4*n), "U"); b = ff.param((4*n,), "b"); inner, cell = norm(), norm()
    def step(carry, x):
        h, c = carry
        i, f, g, o = ff.chunk(inner(x @ W + h @ U) + b, 4)
        c = ff.sigmoid(f) * c + ff.sigmoid(i) * ff.tanh(g)
        h = ff.sigmoid(o) * ff.tanh(cell(c))
        return (h, c), h
    return step

def both_ways(name, n, d):
    with ff.scope(name):
        with ff.scope("left"):  left = ff.scan(lstm(n, d), init=rest(n))
        with ff.scope("right"): right = ff.scan(lstm(n, d), init=rest(n), reverse=True)
    return (left & right) >> ff.zip >> ff.map(lambda p: ff.concat(*p))
tagger = (ff.map(ff.embedding(V, D)) >> both_ways("one", H, D) >> ff.map(ff.dropout(.1))
          >> both_ways("two", H, 2*H) >> ff.map(ff.dense(C) >> ff.log_softmax))

# sequence to sequence: one step, trained by scan, generating by unfold (gru like lstm: (h, x) → h)
with ff.scope("enc"): enc = ff.map(ff.embedding(V, D)) >> ff.fold(gru(H, D), init=ff.zeros(H))
with ff.scope("dec"): emb, cell, out = ff.embedding(V, D), gru(H, D), ff.dense(V)
def speak(h, y): h = cell(h, emb(y)); return h, out(h)
def loss(src, tgt):
    logits = ff.scan(speak, init=enc(src))(ff.shift(tgt, BOS))
    return ff.sum(ff.map(lambda p: ff.cross_entropy(*p))(ff.zip(logits, tgt)))
sample = enc >> (lambda h: (h, BOS)) >> ff.unfold(ff.feedback(speak, ff.greedy), until=lambda y: y == EOS, max_length=40)
Text = ff.Seq(ff.i64); model = ff.compile({"loss": (loss, Text, Text), "sample": (sample, Text)})

# attention decoder (mem: another encoder with final=True; att, mix: dense): a reduction over a list inside a step
def luong(src, tgt):
    last, keys = mem(src)
    def step(s, y):
        h, feed = s; h = cell(h, ff.concat(emb(y), feed)); q = att(h)
        a = ff.softmax(ff.map(lambda k: ff.sum(k * q))(keys))
        feed = ff.tanh(mix(ff.concat(ff.sum(a * keys), h))); return (h, feed), out(feed)
    return ff.scan(step, init=(last, ff.zeros(H)))(ff.shift(tgt, BOS))

# selective state space block (inner(u) → dt, b, c; norm, inp, outp layers; A [e, n], K [4, e], skip [e] parameters)
def ssm(h, u):
    dt, b, c = inner(u); h = ff.exp(-dt[:, None] * ff.exp(A)) * h + (dt * u)[:, None] * b
    return h, ff.sum(h * c, axis=1) + skip * u
def mamba(xs):
    u, z = ff.unzip(ff.map(norm >> inp >> (lambda v: ff.chunk(v, 2)))(xs))
    u = ff.window_map(lambda w: ff.silu(ff.sum(w * K, axis=0)), 4, padding="causal")(u)
    return xs + ff.map(outp)(ff.scan(ssm, init=ff.zeros(e, n))(u) * ff.map(ff.silu)(z))

def convlstm(n, k):                                            # a window map inside a scan
    gates = ff.conv(4*n, (k, k), padding="same"); rest = ff.map(lambda _: ff.zeros(n))
    pair = lambda a, b: ff.map(lambda p: ff.concat(*p))(ff.zip(a, b))
    def step(carry, x):
        h, c = carry; i, f, g, o = ff.chunk(gates(pair(x, h)), 4)
        c = ff.sigmoid(f) * c + ff.sigmoid(i) * ff.tanh(g); return ff.sigmoid(o) * ff.tanh(c), c
    return ff.scan(step, init=lambda frame: (rest(frame), rest(frame)))
residual = lambda f: lambda x: ff.relu(x + f(x))
block = residual(ff.conv(64, (3, 3), padding="same") >> ff.group_norm(8) >> ff.relu >> ff.conv(64, (3, 3), padding="same") >> ff.group_norm(8))

def node(x, kids):                                             # child-sum TreeLSTM: ff.cata(node, every=True)
    wi, wo, wu, wf = ff.chunk(x @ W + b, 4); ui, uo, uu = ff.chunk(ff.sum(ff.map(lambda r: r[0])(kids)) @ U, 3)
    c = ff.sigmoid(wi + ui) * ff.tanh(wu + uu) + ff.sum(ff.map(lambda r: ff.sigmoid(wf + r[0] @ Uf) * r[1])(kids))
    return ff.sigmoid(wo + uo) * ff.tanh(c), c

def attend(S, p): q, k, v = p; S = S + k[:, None] * v; return S, q @ S             # linear attention
def learner(W, p): W = W - .1 * ff.grad(mse)(W, p); return W, p[0] @ W             # a step that learns
def head(M, prev, k, beta, gate, s, gamma):                                         # neural Turing machine addressing
    w = ff.softmax(beta * (M @ k) / (ff.norm(M, axis=1) * ff.norm(k) + 1e-6)); w = gate * w + (1 - gate) * prev
    w = (s[0] * ff.roll(w, 1) + s[1] * w + s[2] * ff.roll(w, -1)) ** gamma; return w / ff.sum(w)

Face = ff.Rep("Face", ff.f32[64])                                                    # many inputs, many tasks, one representation
heads = age & sex
model = ff.compile({"rgb": (rgb.typed(RGB, Face) >> heads, RGB), "grey": (grey.typed(Grey, Face) >> heads, Grey)})

def lm(xs, ys, state):                                         # language model with carried state (truncated back-propagation)
    state, hs = ff.scan(cell, init=state, final=True)(ff.map(emb)(xs))
    return ff.sum(ff.map(lambda p: ff.cross_entropy(out(p[0]), p[1]))(ff.zip(hs, ys))), state
# and the ordinary torch loop round it: AdamW, autocast, clip_grad_norm_, DDP, state_dict, torch.save
