"""Two scans, one from each side, zipped: every character's token class, from what is before it and what comes after."""

import argparse
from pathlib import Path

import torch
from data import CLASSES, SYMBOLS, characters, tagged_source
from tagger import EMBEDDED, accuracy, lstm, train

import foldfuse as ff

EXPRESSION = "map(embedding) >> (scan(lstm) & scan(lstm, reverse)) >> zip >> map(concat >> dense)"
BOTH, ONE = 64, 96  # widths of state for which the two models have nearly the same number of parameters


def both_ways(hidden):
    rest = ff.zeros(hidden), ff.zeros(hidden)
    left = ff.scan(lstm(hidden, EMBEDDED), init=rest)
    right = ff.scan(lstm(hidden, EMBEDDED), init=rest, reverse=True)
    return (left & right) >> ff.zip >> ff.map(ff.concat)


def left_only(hidden):
    return ff.scan(lstm(hidden, EMBEDDED), init=(ff.zeros(hidden), ff.zeros(hidden)))


def tagger(read):
    return ff.map(ff.embedding(SYMBOLS, EMBEDDED)) >> read >> ff.map(ff.dense(len(CLASSES)))


def picture(models, source, path):
    """Draw lines of source, coloured by token class: as `tokenize` tags them, and as each model does, errors marked."""
    from matplotlib import colormaps, patches, pyplot

    start = int((source.symbols[:60000] == 0).nonzero()[PICTURED]) + 1
    end = start + 380
    text = characters(source.symbols[start:end].tolist())
    with torch.no_grad():
        guesses = {name: model(source.symbols[None, start - 100:end])[0, 100:].argmax(-1) for name, model in models}
    truth = source.classes[start:end]
    rows = text.split("\n")[:-1]
    figure, axes = pyplot.subplots(figsize=(8, 6))
    raise NotImplementedError


def run(steps: int = 800, pictured: bool = False) -> dict:
    training, held_out = tagged_source()  # whole modules are held out
    models = {}
    for name, read in (("both ways", lambda: both_ways(BOTH)), ("left only", lambda: left_only(ONE))):
        torch.manual_seed(0)
        models[name] = ff.compile(tagger(read()), ff.Seq(ff.i64))
        train(models[name], training, steps)
    measured = {name: accuracy(model, held_out) for name, model in models.items()}
    sizes = {name: sum(parameter.numel() for parameter in model.parameters()) for name, model in models.items()}
    both, left = measured.values()
    return {
        "result": f"{both:.1%} of {len(held_out.symbols):,} held-out characters, {sizes['both ways']:,} parameters",
        "baseline": f"left-only scan {left:.1%}, {sizes['left only']:,} parameters",
        "beats": both > left,
        "measured": measured,
        "signature": models["both ways"].signature,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=800)
    for name, value in run(parser.parse_args().steps).items():
        print(f"{name:<10} {value}")
