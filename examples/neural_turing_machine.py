"""A network with a memory: the carry of a scan is a small memory beside the state of the network that reads and writes it.

The copy task: read random vectors of bits, and after a mark give them back in order. Trained on lengths 1 to 8, tested on
longer ones. The baseline is an LSTM with as many parameters or more, trained the same way.
"""

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

import foldfuse as ff

EXPRESSION = "scan(step, init=(memory, weights, read))     step(carry, x) → (carry, logits)"
BITS, SLOTS, CELL, HIDDEN = 4, 24, 8, 64
Bits = ff.Seq(ff.f32[BITS + 2])  # the two further channels mark the beginning and the end of what is to be copied


def turing_machine():
    """Return a neural Turing machine (Graves, Wayne, Danihelka 2014) with one head to write and one to read."""
    control, out = ff.dense(HIDDEN) >> ff.tanh, ff.dense(BITS)
    heads = [[ff.dense(n, name=f"{name}_{part}") for part, n in (("key", CELL), ("address", 6))] for name in ("write", "read")]
    erase, add = ff.dense(CELL, name="erase"), ff.dense(CELL, name="add")
    first = ff.eye(SLOTS)[0]  # both heads begin at the first slot

    def address(M, w, key, a):
        """By content, then by place: interpolate, shift, sharpen."""
        gate, shift = ff.sigmoid(a[1]), ff.softmax(a[2:5])
        near = ff.softmax(ff.softplus(a[0]) * (M @ key) / (ff.norm(M, axis=1) * ff.norm(key) + 1e-6))
        w = gate * near + (1 - gate) * w
        w = (shift[0] * ff.roll(w, 1) + shift[1] * w + shift[2] * ff.roll(w, -1)) ** (1 + ff.softplus(a[5]))
        return w / (ff.sum(w) + 1e-6)

    def step(carry, x):
        M, weights, read = carry
        h = control(ff.concat(x, read))
        write, place = (address(M, w, ff.tanh(key(h)), a(h)) for w, (key, a) in zip(weights, heads))
        M = M * (1 - write[:, None] * ff.sigmoid(erase(h))) + write[:, None] * ff.tanh(add(h))
        read = place @ M
        return (M, (write, place), read), out(ff.concat(h, read))

    return ff.scan(step, init=(ff.full((SLOTS, CELL), 0.01), (first, first), ff.zeros(CELL)))


def lstm(hidden):
    """Return an LSTM with a dense layer on every state."""
    gates, out = ff.dense(4 * hidden), ff.dense(BITS)

    def step(carry, x):
        h, c = carry
        i, f, g, o = ff.chunk(gates(ff.concat(x, h)), 4)
        c = ff.sigmoid(f) * c + ff.sigmoid(i) * ff.tanh(g)
        h = ff.sigmoid(o) * ff.tanh(c)
        return (h, c), out(h)

    return ff.scan(step, init=(ff.zeros(hidden), ff.zeros(hidden)))


def copies(count, length, generator):
    """Return inputs [count, 2 * length + 2, BITS + 2], and the bits [count, length, BITS] that are to come last."""
    bits = torch.randint(2, (count, length, BITS), generator=generator).float()
    given = torch.zeros(count, 2 * length + 2, BITS + 2)
    given[:, 1 : length + 1, :BITS] = bits
    given[:, 0, BITS] = given[:, length + 1, BITS + 1] = 1
    return given, bits


def said(model, given):
    """Return the logits [count, length, BITS] of the second half, where the copy is to stand."""
    return model(given)[:, given.shape[1] // 2 + 1 :]


def train(model, steps, title):
    """Train on lengths 1 to 8, the longer ones later."""
    optimiser = torch.optim.RMSprop(model.parameters(), lr=RATE, alpha=0.95, momentum=0.0)
    generator = torch.Generator().manual_seed(0)
    bar = tqdm(range(steps), title, unit="step")
    for step in bar:
        longest = min(8, 2 + 14 * step // steps)
        length = int(torch.randint(1, longest + 1, (), generator=generator))
        given, bits = copies(16, length, generator)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(said(model, given), bits)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 100 == 0: print(step, length, loss.item())
