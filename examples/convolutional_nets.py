"""Convolutional nets in two dimensions and in one: `window_map` of any function of a window, over a grid or a list.

In one, gated causal windows (van den Oord et al. 2016) predict a character of Python source from the 16 before it.
"""

import torch
from data import BIT, HELD_OUT, SYMBOLS, TRAINING, counted_bits, digits, logistic_regression, source_text, windows
from torch.nn.functional import cross_entropy
from training import accuracy, command_line, train

import foldfuse as ff

square = lambda channels: ff.conv(channels, (3, 3), padding="same") >> ff.relu
read = square(16) >> square(32) >> ff.max_pool(2) >> square(64) >> ff.mean >> ff.layer_norm() >> ff.dense(10)


def causal(dilation, width=96):
    gated = lambda value, gate: ff.tanh(value) * ff.sigmoid(gate)
    look = ff.flatten >> ff.dense(2 * width) >> (lambda both: gated(*ff.chunk(both, 2)))
    see = ff.window_map(look, 2, dilation=dilation, padding="causal")  # each place, and the one `dilation` before
    return ff.expression(lambda xs: xs + see(xs), "causal")


stack = causal(1) >> causal(2) >> causal(4) >> causal(8)
follow = ff.map(ff.embedding(SYMBOLS, 96)) >> stack >> ff.map(ff.layer_norm() >> ff.dense(SYMBOLS))

EXPRESSION = "conv >> relu >> … >> mean >> dense(10); map(embedding) >> causal(1) >> … >> causal(8) >> map(dense)"


def fit(model, batch, steps, title):
    """Train a model on what `batch()` gives: inputs, and the class that belongs to each of the rows of scores."""

    def loss():
        inputs, classes = batch()
        return cross_entropy(model(inputs).flatten(0, -2), classes.flatten())

    train(loss, torch.optim.AdamW(model.parameters(), 6e-3, weight_decay=0.02), steps, title=title)


def run(steps: int = 600) -> dict:
    """Train both nets, half of the steps each, and judge each on what was held out: digits, and whole modules."""
    torch.manual_seed(0)
    training, held_out = digits(seed=1)
    text, others = source_text(TRAINING), source_text(HELD_OUT)
    reader = ff.compile(read, ff.Grid(ff.f32[1], 2), name="read")
    follower = ff.compile(follow, ff.Seq(ff.i64), name="follow")

    def images():
        rows = torch.randint(len(training.labels), (64,))
        return training.images[rows], training.labels[rows]

    def texts():
        taken = windows(text, torch.randint(len(text) - 65, (16,)), 65)
        return taken[:, :-1], taken[:, 1:]

    fit(reader, images, steps // 2, "digits")
    fit(follower, texts, steps // 2, "text")
    held = windows(others, torch.arange(0, len(others) - 257, 256), 257)
    with torch.no_grad():
        ours = accuracy(reader(held_out.images), held_out.labels)
        bits = cross_entropy(follower(held[:, :-1]).flatten(0, 1), held[:, 1:].flatten()).item() / BIT
    regression, (_, bigram) = logistic_regression(training, held_out), counted_bits(text, others)
    return {
        "result": f"{ours:.1%} of held-out digits; {bits:.3f} bits per held-out character",
        "baseline": f"{regression:.1%}, logistic regression on pixels; {bigram:.3f} bits, bigram",
        "beats": ours > max(regression, 0.97) and bits < bigram,
        "measured": {"accuracy": ours, "logistic regression": regression, "bits": bits, "bigram bits": bigram},
        "signature": f"{reader.signature}\n{follower.signature}",
    }


if __name__ == "__main__":
    command_line(run, __doc__)
