"""A scan gives an output for every element: tag each character of Python source with its token class.

The baseline is the most frequent class of each character.
"""

import argparse

import torch
from data import CLASSES, SYMBOLS, tagged_source, windows
from tqdm import tqdm

import foldfuse as ff

EXPRESSION = "map(embedding) >> scan(lstm, init=(zeros, zeros)) >> map(dense)"
HIDDEN, EMBEDDED, BATCH, LENGTH, RATE = 96, 24, 32, 80, 5e-3


def lstm(hidden, width):
    """Return an LSTM's step: it takes the pair (state, input), and gives (new state, output)."""
    W, U, b = ff.param((width, 4 * hidden), "W"), ff.param((hidden, 4 * hidden), "U"), ff.param((4 * hidden,), "b")

    def step(carry, x):
        h, c = carry
        i, f, g, o = ff.chunk(x @ W + h @ U + b, 4)
        c = ff.sigmoid(f) * c + ff.sigmoid(i) * ff.tanh(g)
        h = ff.sigmoid(o) * ff.tanh(c)
        return (h, c), h

    return step


def tagger():
    """Return the expression from symbols to the scores of their classes."""
    left = ff.scan(lstm(HIDDEN, EMBEDDED), init=(ff.zeros(HIDDEN), ff.zeros(HIDDEN)))
    return ff.map(ff.embedding(SYMBOLS, EMBEDDED)) >> left >> ff.map(ff.dense(len(CLASSES)))


def train(model, source, steps):
    """Train on windows of a tagged text: the mean cross entropy of every character's class."""
    optimiser = torch.optim.AdamW(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=max(steps, 2), pct_start=0.1)
    for _ in (bar := tqdm(range(steps), unit="step")):
        symbols, classes = windows(source, torch.randint(len(source.symbols) - LENGTH, (BATCH,)), LENGTH)
        loss = torch.nn.functional.cross_entropy(model(symbols).flatten(0, 1), classes.flatten())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        bar.set_postfix_str(f"loss {loss.item():.2f}", refresh=False)


def accuracy(model, source, length=400):
    """Return the part of a text's characters that are tagged rightly, in windows longer than those of training."""
    cut = windows(source, torch.arange(0, len(source.symbols) - length, length), length)
    with torch.no_grad():
        return (model(cut[0]).argmax(-1) == cut[1]).float().mean().item()


def most_frequent(training, held_out):
    """Return the accuracy of each character's most frequent class, counted on the training text."""
    counts = torch.zeros(SYMBOLS, len(CLASSES), dtype=torch.int64)
    counts.index_put_(tuple(training), torch.tensor(1), accumulate=True)
    return (counts.argmax(1)[held_out.symbols] == held_out.classes).float().mean().item()


def run(steps: int = 800) -> dict:
    """Train on windows of modules' source, and judge on whole other modules."""
    torch.manual_seed(0)
    training, held_out = tagged_source()
    model = ff.compile(tagger(), ff.Seq(ff.i64))
    train(model, training, steps)
    measured = {"accuracy": accuracy(model, held_out), "most frequent class": most_frequent(training, held_out)}
    ours, frequent = measured.values()
    return {
        "result": f"{ours:.1%} of {len(held_out.symbols):,} held-out characters",
        "baseline": f"each character's most frequent class {frequent:.1%}",
        "beats": ours > frequent,
        "measured": measured,
        "signature": model.signature,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=800, help="steps of training (default: %(default)s)")
    told = run(parser.parse_args().steps)
    print(f"{told['signature']}\n\nresult    {told['result']}\nbaseline  {told['baseline']}")
