"""Convolutional nets in two dimensions and in one: `window_map` of any function of a window, over a grid or a list.

In two dimensions, a net reads digits; the baseline is logistic regression on pixels. In one, a stack of gated causal
windows (van den Oord et al., WaveNet, 2016) predicts the next character of Python source from the last 16, on whole
modules that are held out; the baseline is a bigram model, counted on the same text and smoothed towards the unigram.
"""

import argparse
import math

import torch
from character_language_model import counted_bits
from data import HELD_OUT, SYMBOLS, TRAINING, digits, logistic_regression, source_text, windows
from torch.nn.functional import cross_entropy
from tqdm import tqdm

import foldfuse as ff

EXPRESSION = "conv >> relu >> … >> mean >> dense(10); map(embedding) >> causal(1) >> … >> causal(8) >> map(dense)"
square = lambda channels: ff.conv(channels, (3, 3), padding="same") >> ff.relu
read = square(16) >> square(32) >> ff.max_pool(2) >> square(64) >> ff.mean >> ff.layer_norm() >> ff.dense(10)


def causal(dilation, width=96):
    """Return a layer whose every place sees itself and the place `dilation` before, and adds what it makes of them."""
    look = ff.dense(2 * width)

    def gated(window):
        value, gate = ff.chunk(look(window.reshape(-1)), 2)
        return ff.tanh(value) * ff.sigmoid(gate)

    see = ff.window_map(gated, 2, dilation=dilation, padding="causal")
    return ff.expression(lambda xs: xs + see(xs), "causal")


stack = causal(1) >> causal(2) >> causal(4) >> causal(8)
follow = ff.map(ff.embedding(SYMBOLS, 96)) >> stack >> ff.map(ff.layer_norm() >> ff.dense(SYMBOLS))


def train(model, batch, steps, rate, title):
    """Train a model on what `batch()` gives: inputs, and the class that belongs to each of the rows of logits."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    for _ in tqdm(range(steps), title, unit="step"):
        inputs, classes = batch()
        loss = cross_entropy(model(inputs).flatten(0, -2), classes.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval()


def run(steps: int = 600) -> dict:
    """Train both nets, half of the steps each, and judge each on what was held out."""
    torch.manual_seed(0)
    training, held_out = digits()
    reader = ff.compile(read, ff.Grid(ff.f32[1], 2), name="read")
    follower = ff.compile(follow, ff.Seq(ff.i64), name="follow")

    def images():
        rows = torch.randint(len(training.labels), (64,))
        return training.images[rows], training.labels[rows]

    text, others = source_text(TRAINING), source_text(HELD_OUT)

    def texts():
        taken = windows(text, torch.randint(len(text) - 65, (16,)), 65)
        return taken[:, :-1], taken[:, 1:]

    train(reader, images, steps // 2, 6e-3, "digits")
    train(follower, texts, steps // 2, 6e-3, "text")
    held = windows(others, torch.arange(0, len(others) - 257, 256), 257)
    with torch.no_grad():
        accuracy = (reader(held_out.images).argmax(1) == held_out.labels).float().mean().item()
        bits = cross_entropy(follower(held[:, :-1]).flatten(0, 1), held[:, 1:].flatten()).item() / math.log(2)
    regression, (_, bigram) = logistic_regression(training, held_out), counted_bits(text, others)
    return {
        "result": f"{accuracy:.1%} of held-out digits; {bits:.3f} bits per held-out character",
        "baseline": f"{regression:.1%}, logistic regression on pixels; {bigram:.3f} bits, bigram",
        "beats": accuracy > max(regression, 0.97) and bits < bigram,
        "measured": {"accuracy": accuracy, "logistic regression": regression, "bits": bits, "bigram bits": bigram},
        "signature": f"{reader.signature}\n{follower.signature}",
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600, help="steps of training (default: %(default)s)")
    told = run(parser.parse_args().steps)
    print(f"{told['signature']}\n\nresult    {told['result']}\nbaseline  {told['baseline']}")
