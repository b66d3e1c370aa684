"""A scan gives an output for every element: tag each character of Python source with its token class."""

import torch
from data import CLASSES, SYMBOLS, tagged_source, windows
from training import accuracy, command_line, train

import foldfuse as ff


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


left = ff.scan(lstm(96, 24), init=(ff.zeros(96), ff.zeros(96)))
tag = ff.map(ff.embedding(SYMBOLS, 24)) >> left >> ff.map(ff.dense(len(CLASSES)))

EXPRESSION = "map(embedding) >> scan(lstm, init=(zeros, zeros)) >> map(dense)"


def fit(model, source, steps):
    """Train on windows of a tagged text: the mean cross entropy of every character's class."""

    def loss():
        symbols, classes = windows(source, torch.randint(len(source.symbols) - 80, (32,)), 80)
        return torch.nn.functional.cross_entropy(model(symbols).flatten(0, 1), classes.flatten())

    train(loss, torch.optim.AdamW(model.parameters(), 5e-3), steps, rise=0.1, clip=1.0)


@torch.no_grad()
def judge(model, source, length=400):
    """Return the part of a text's characters that are tagged rightly, in windows longer than those of training."""
    symbols, classes = windows(source, torch.arange(0, len(source.symbols) - length, length), length)
    return accuracy(model(symbols), classes)


def most_frequent(training, held_out):
    """Return the accuracy of each character's most frequent class, counted on the training text."""
    counts = torch.zeros(SYMBOLS, len(CLASSES), dtype=torch.int64)
    counts.index_put_(tuple(training), torch.tensor(1), accumulate=True)
    return accuracy(counts[held_out.symbols], held_out.classes)


def run(steps: int = 800) -> dict:
    """Train on windows of modules' source, and judge on whole other modules."""
    torch.manual_seed(0)
    training, held_out = tagged_source()
    model = ff.compile(tag, ff.Seq(ff.i64))
    fit(model, training, steps)
    ours, frequent = judge(model, held_out), most_frequent(training, held_out)
    return {
        "result": f"{ours:.1%} of {len(held_out.symbols):,} held-out characters",
        "baseline": f"each character's most frequent class {frequent:.1%}",
        "beats": ours > frequent,
        "measured": {"accuracy": ours, "most frequent class": frequent},
        "signature": model.signature,
    }


if __name__ == "__main__":
    command_line(run, __doc__)
