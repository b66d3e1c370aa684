"""Two scans, one from each side, zipped: each character is tagged from what is before it and from what comes after.

The task is that of `tagger.py`, the token class of every character of Python source. The baseline is a scan from the
left only, with as many parameters, as many steps and the same batches.
"""

import argparse
from pathlib import Path

import torch
from data import CLASSES, SYMBOLS, characters, tagged_source
from tagger import EMBEDDED, accuracy, lstm, train

import foldfuse as ff

EXPRESSION = "map(embedding) >> (scan(lstm) & scan(lstm, reverse=True)) >> zip >> map(concat) >> map(dense)"
BOTH, ONE = 64, 96  # widths of a state: with these, both ways has one percent fewer parameters than left only


def both_ways(hidden):
    """Return an expression that reads a list from both sides, and gives both states at every place."""
    rest = ff.zeros(hidden), ff.zeros(hidden)
    with ff.scope("left"):
        left = ff.scan(lstm(hidden, EMBEDDED), init=rest)
    with ff.scope("right"):
        right = ff.scan(lstm(hidden, EMBEDDED), init=rest, reverse=True)
    return (left & right) >> ff.zip >> ff.map(ff.concat)


def left_only(hidden):
    """Return an expression that reads a list from the left, and gives the state at every place."""
    return ff.scan(lstm(hidden, EMBEDDED), init=(ff.zeros(hidden), ff.zeros(hidden)))


def tagger(read):
    """Return the expression from symbols to the scores of their classes, around one that reads."""
    return ff.map(ff.embedding(SYMBOLS, EMBEDDED)) >> read >> ff.map(ff.dense(len(CLASSES)))


def draw(models, source, start, length, path):
    """Draw a piece of source in the colours of the classes that each model gives, its mistakes on red."""
    from matplotlib import colormaps, pyplot

    before = 150  # characters on each side that are read and not drawn: neither scan begins where the picture does
    figure, axes = pyplot.subplots(len(models), figsize=(7, 6), layout="constrained")
    for axis, (name, model) in zip(axes, models.items()):
        with torch.no_grad():
            symbols = source.symbols[None, start - before : start + length + before]
            guesses = model(symbols)[0, before : before + length].argmax(-1)
        row = column = 0
        for place, guess in enumerate(guesses.tolist(), start):
            letter = characters(source.symbols[place : place + 1].tolist())
            style = {"family": "monospace", "ha": "center", "va": "center", "color": colormaps["tab10"](guess)}
            axis.text(column, row, letter.strip(), weight="bold", **style)
            if guess != source.classes[place]:
                axis.plot(column, row, "s", color="#ffb0b0", markersize=9)
            row, column = (row + 1, 0) if letter == "\n" else (row, column + 1)
        for number, kind in enumerate(CLASSES):
            axis.text(10 * number, row + 2, kind, color=colormaps["tab10"](number))
        axis.set(title=name, xlim=(-1, 68), ylim=(row + 3, -1))
        axis.axis("off")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=75)


def run(steps: int = 600, picture: bool = False) -> dict:
    """Train both taggers on windows of modules' source, and judge on whole other modules."""
    training, held_out = tagged_source()
    models = {}
    for name, read, hidden in (("both ways", both_ways, BOTH), ("left only", left_only, ONE)):
        torch.manual_seed(0)
        models[name] = ff.compile(tagger(read(hidden)), ff.Seq(ff.i64))
        train(models[name], training, steps)
    both, left = (accuracy(model, held_out) for model in models.values())
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in models.values()]
    if picture:
        start = characters(held_out.symbols.tolist()).index("def nsmallest")
        draw(models, held_out, start, 452, Path(__file__).parents[1] / "docs/pictures/bidirectional_tagger.png")
    return {
        "result": f"{both:.1%} of held-out characters, with {sizes[0]:,} parameters",
        "baseline": f"{left:.1%}, a scan from the left only, with {sizes[1]:,}",
        "beats": both > left,
        "measured": {"both ways": both, "left only": left},
        "signature": models["both ways"].signature,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600, help="steps of training (default: %(default)s)")
    parser.add_argument("--picture", action="store_true", help="draw a tagged piece of source under docs/pictures")
    told = run(**vars(parser.parse_args()))
    print(f"{told['signature']}\n\nresult    {told['result']}\nbaseline  {told['baseline']}")
