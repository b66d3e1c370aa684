"""A fold encodes a list of any length as one vector: which standard-library module does a line of code come from?

The baselines are a linear model of how often each character occurs, and the most frequent module.
"""

import argparse

import torch
from data import SYMBOLS, padded, source_lines
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

import foldfuse as ff

EXPRESSION = "map(embedding) >> fold(gru, init=zeros) >> dropout >> dense"
MODULES = "argparse ipaddress mailbox pdb statistics tarfile turtle typing".split()
HIDDEN, EMBEDDED, BATCH, RATE = 96, 32, 64, 3e-3


def gru(hidden, width):
    """Return a GRU's step: it takes the state and an input, and gives the new state."""
    W, U = ff.param((width, 3 * hidden), "W"), ff.param((hidden, 3 * hidden), "U")
    b, c = ff.param((3 * hidden,), "b"), ff.param((3 * hidden,), "c")

    def step(h, x):
        (r, z, n), (s, y, m) = ff.chunk(x @ W + b, 3), ff.chunk(h @ U + c, 3)
        z = ff.sigmoid(z + y)
        return z * h + (1 - z) * ff.tanh(n + ff.sigmoid(r + s) * m)

    return step


def encoder():
    """Return the expression from a line to the scores of the modules."""
    read = ff.fold(gru(HIDDEN, EMBEDDED), init=ff.zeros(HIDDEN))
    return ff.map(ff.embedding(SYMBOLS, EMBEDDED)) >> read >> ff.dropout(0.4) >> ff.dense(len(MODULES))


def bag_of_characters(lines, modules):
    """Return a function from lines to the modules that a linear model of their characters' counts gives."""

    def count(lines):
        symbols, lengths = padded(lines)
        seen = (torch.arange(symbols.shape[1]) < lengths[:, None]).float()
        return torch.zeros(len(lines), SYMBOLS).scatter_add_(1, symbols, seen).numpy()

    linear = LogisticRegression(C=0.1, max_iter=2000).fit(count(lines), modules)
    return lambda lines: torch.from_numpy(linear.predict(count(lines)))


def run(steps: int = 1000) -> dict:
    """Train on lines of eight modules, and judge on other lines."""
    torch.manual_seed(0)
    training, held_out = source_lines(MODULES, fraction=0.2, seed=0)
    model = ff.compile(encoder(), ff.Seq(ff.i64))
    symbols, lengths = padded(training.lines)
    optimiser = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=max(steps, 2), pct_start=0.1)
    for _ in (bar := tqdm(range(steps), unit="step")):
        rows = torch.randint(len(lengths), (BATCH,))
        taken = ff.ragged(symbols[rows, : lengths[rows].max()], lengths[rows])
        loss = torch.nn.functional.cross_entropy(model(taken), training.modules[rows])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        bar.set_postfix_str(f"loss {loss.item():.2f}", refresh=False)

    with torch.no_grad():
        guessed = model.eval()(ff.ragged(*padded(held_out.lines))).argmax(1)
    accuracy = lambda guessed: (guessed == held_out.modules).float().mean().item()
    measured = {
        "accuracy": accuracy(guessed),
        "bag of characters": accuracy(bag_of_characters(training.lines, training.modules)(held_out.lines)),
        "majority class": accuracy(training.modules.mode().values),
    }
    ours, bag, majority = measured.values()
    return {
        "result": f"{ours:.1%} of {len(held_out.lines):,} held-out lines",
        "baseline": f"bag of characters {bag:.1%}, majority class {majority:.1%}",
        "beats": ours > max(bag, majority),
        "measured": measured,
        "signature": model.signature,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000, help="steps of training (default: %(default)s)")
    told = run(parser.parse_args().steps)
    print(f"{told['signature']}\n\nresult    {told['result']}\nbaseline  {told['baseline']}")
