"""A character language model of Python source text: one step, trained by `scan` and writing by `unfold`.

The text is the standard library of the Python that runs this, so nothing is downloaded. Whole files are held out. The
figure to beat is a bigram model counted on the same training text: the best that one character back can do.

    make demo        or        python examples/character_language_model.py --seconds 90
"""

import argparse
import math
import time

import torch
from data import BIT, HELD_OUT, SYMBOLS, TRAINING, characters, counted_bits, source_text, symbols
from tqdm import tqdm

import foldfuse as ff

HIDDEN, EMBEDDED, WRITTEN = 128, 32, 400


def lstm(hidden, width):
    """Return an LSTM's step: it takes the pair (state, input), and gives (new state, output)."""
    W = ff.param((width, 4 * hidden), "W")
    U = ff.param((hidden, 4 * hidden), "U")
    b = ff.param((4 * hidden,), "b")

    def step(carry, x):
        h, c = carry
        i, f, g, o = ff.chunk(x @ W + h @ U + b, 4)
        c = ff.sigmoid(f) * c + ff.sigmoid(i) * ff.tanh(g)
        h = ff.sigmoid(o) * ff.tanh(c)
        return (h, c), h

    return step


def language_model():
    """Return one module with two entry points on one parameter set: `loss` of a text, and `sample` after a prompt."""
    embed, cell, scores = ff.embedding(SYMBOLS, EMBEDDED), lstm(HIDDEN, EMBEDDED), ff.dense(SYMBOLS)
    start = (ff.zeros(HIDDEN), ff.zeros(HIDDEN))

    def step(state, character):
        state, h = cell(state, embed(character))
        return state, scores(h)

    def loss(text, following):
        logits = ff.scan(step, init=start)(text)
        return ff.sum(ff.map(lambda pair: ff.cross_entropy(*pair))(ff.zip(logits, following)))

    def write(prompt, last):
        state, _ = ff.scan(step, init=start, final=True)(prompt)
        return ff.unfold(ff.feedback(step, ff.sample(temperature=0.7, top_k=20)), length=WRITTEN)((state, last))

    text = ff.Seq(ff.i64)
    return ff.compile({"loss": (loss, text, text), "sample": (write, text, ff.i64)})


def windows(text, starts, length):
    """Return the windows of `length` symbols from each start, and the symbols that follow each of theirs."""
    taken = text[starts[:, None] + torch.arange(length + 1)]
    return taken[:, :-1], taken[:, 1:]


def model_bits(model, text, length=256, rows=128):
    """Return bits per character on a text cut into windows, each begun without knowing what came before.

    The windows are longer than those of training: a length is no part of what was compiled.
    """
    starts = torch.arange(0, len(text) - length, length)
    with torch.no_grad():
        total = sum(model(*windows(text, part, length)).sum().item() for part in starts.split(rows))
    return total / (len(starts) * length) / BIT


def train(model, training, held_out, options, baseline):
    """Train until the steps or the seconds are used up, telling held-out bits per character on the way.

    Args:
        model: the compiled module, whose first entry point gives each example's loss.
        training: the text to learn from.
        held_out: the text to be judged on.
        options: `seconds`, `steps`, `batch`, `length` and `rate`.
        baseline: the bigram's bits per character.

    Returns:
        The number of steps done, and the milliseconds each took on average, without the evaluations.
    """
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.rate, weight_decay=0.01)
    generator = torch.Generator().manual_seed(options.seed)
    began, told, busy = time.perf_counter(), 0, 0.0
    bar = tqdm(total=options.steps, unit="step", dynamic_ncols=True)
    while bar.n < options.steps and (elapsed := time.perf_counter() - began) < options.seconds:
        used = max(bar.n / options.steps, elapsed / options.seconds)
        for group in optimiser.param_groups:
            group["lr"] = options.rate * min(1, (bar.n + 1) / 50) * (1 - used)

        started = time.perf_counter()
        starts = torch.randint(len(training) - options.length, (options.batch,), generator=generator)
        loss = model(*windows(training, starts, options.length)).mean() / options.length
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        busy += time.perf_counter() - started

        bar.update()
        bar.set_postfix_str(f"{loss.item() / BIT:.2f} bits", refresh=False)
        if used * 8 >= told + 1:
            told = int(used * 8)
            bits = model_bits(model, held_out)
            verdict = f"{'below' if bits < baseline else 'above'} the bigram's {baseline:.3f}"
            bar.write(f"step {bar.n:5}   held-out {bits:.3f} bits per character   ({verdict})")
    bar.total = bar.n  # out of time is done, too
    bar.refresh()
    bar.close()
    return bar.n, 1000 * busy / max(bar.n, 1)


def parse(arguments=None):
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=90, help="time for training (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=1500, help="most steps of training (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="windows in a step (default: %(default)s)")
    parser.add_argument("--length", type=int, default=64, help="characters in a window (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=4e-3, help="highest learning rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="for weights, batches and writing (default: %(default)s)")
    return parser.parse_args(arguments)


def main(arguments=None):
    """Count the baselines, compile, train, write some text, and print what was compiled and what came of it."""
    options = parse(arguments)
    began = time.perf_counter()
    torch.set_num_threads(1)  # the arrays of a step are small: threads would wait for each other most of the time
    torch.manual_seed(options.seed)
    training, held_out = source_text(TRAINING), source_text(HELD_OUT)
    unigram, bigram = counted_bits(training, held_out)
    print(
        f"text: {len(training):,} characters of {len(TRAINING)} modules to learn from, "
        f"{len(held_out):,} of {len(HELD_OUT)} others held out"
    )

    model = language_model()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"\n{model.signature}\n")

    steps, milliseconds = train(model, training, held_out, options, bigram)
    bits = model_bits(model, held_out)

    prompt = symbols("\n    def ").expand(2, -1)
    with torch.no_grad():
        written = model(prompt[:, :-1], prompt[:, -1], entry="sample")
    for number, row in enumerate(written.tolist(), start=1):
        print(f"\n-- written, {number} " + "-" * 60 + f"\n    def {characters(row)}")

    print(f"\n-- compiled {'-' * 64}\n{model.explain(brief=True)}")

    print(f"\n{'held-out bits per character':<30}{'':>10}")
    for name, value in (
        ("all characters alike", math.log2(SYMBOLS)),
        ("unigram", unigram),
        ("bigram", bigram),
        ("this model", bits),
    ):
        print(f"  {name:<28}{value:>10.3f}")
    print(f"{'parameters':<30}{parameters:>10,}")
    print(f"{'steps':<30}{steps:>10,}")
    print(f"{'milliseconds a step':<30}{milliseconds:>10.1f}")
    print(f"{'seconds in all':<30}{time.perf_counter() - began:>10.1f}")


if __name__ == "__main__":
    main()
