"""A fold encodes a list of any length as one vector: which standard-library module does a line of code come from?"""

import torch
from data import SYMBOLS, padded, source_lines
from training import accuracy, command_line, table, train

import foldfuse as ff


def gru(hidden, width):
    """Return a GRU's step: it takes the state and an input, and gives the new state."""
    W, U = ff.param((width, 3 * hidden), "W"), ff.param((hidden, 3 * hidden), "U")
    b, c = ff.param((3 * hidden,), "b"), ff.param((3 * hidden,), "c")

    def step(h, x):
        (r, z, n), (s, y, m) = ff.chunk(x @ W + b, 3), ff.chunk(h @ U + c, 3)
        z = ff.sigmoid(z + y)
        return z * h + (1 - z) * ff.tanh(n + ff.sigmoid(r + s) * m)

    return step


read = ff.fold(gru(96, 32), init=ff.zeros(96))
encode = ff.map(ff.embedding(SYMBOLS, 32)) >> read >> ff.dropout(0.4) >> ff.dense(8)

EXPRESSION = "map(embedding) >> fold(gru, init=zeros) >> dropout >> dense"
MODULES = "argparse ipaddress mailbox pdb statistics tarfile turtle typing".split()


def bag_of_characters(training, held_out):
    """Return the held-out accuracy of a linear model of how often each character occurs in a line."""
    from sklearn.linear_model import LogisticRegression

    def count(lines):
        symbols, lengths = padded(lines)
        seen = (torch.arange(symbols.shape[1]) < lengths[:, None]).float()
        return torch.zeros(len(lines), SYMBOLS).scatter_add_(1, symbols, seen).numpy()

    fitted = LogisticRegression(C=0.1, max_iter=2000).fit(count(training.lines), training.modules)
    return float(fitted.score(count(held_out.lines), held_out.modules))


def run(steps: int = 1000) -> dict:
    """Train on lines of eight modules, and judge on other lines."""
    torch.manual_seed(0)
    training, held_out = source_lines(MODULES, seed=1, fraction=0.2)
    model = ff.compile(encode, ff.Seq(ff.i64))
    symbols, lengths = padded(training.lines)

    def loss():
        rows = torch.randint(len(lengths), (64,))
        lines = ff.ragged(symbols[rows, : lengths[rows].max()], lengths[rows])
        return torch.nn.functional.cross_entropy(model(lines), training.modules[rows])

    train(loss, torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.05), steps, rise=0.1, clip=1.0)
    with torch.no_grad():
        scores = model.eval()(ff.ragged(*padded(held_out.lines)))
    ours = accuracy(scores, held_out.modules)
    said, right = ([MODULES[number] for number in of.tolist()] for of in (scores.argmax(-1), held_out.modules))
    bag = bag_of_characters(training, held_out)
    majority = (held_out.modules == training.modules.mode().values).float().mean().item()
    return {
        "shown": table(list(zip(held_out.lines, said, right))[:16]),
        "result": f"{ours:.1%} of {len(held_out.lines):,} held-out lines",
        "baseline": f"bag of characters {bag:.1%}, majority class {majority:.1%}",
        "beats": ours > max(bag, majority),
        "measured": {"accuracy": ours, "bag of characters": bag, "majority class": majority},
        "signature": model.signature,
    }


if __name__ == "__main__":
    command_line(run, __doc__)
