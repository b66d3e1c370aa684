"""Two scans, one from each side, zipped: each character is tagged from what is before it and from what comes after.

The task is that of `tagger.py`, the token class of every character of Python source. The baseline is a scan from the
left only, with as many parameters, as many steps and the same batches.
"""

import torch
from data import CLASSES, SYMBOLS, characters, tagged_source
from tagger import fit, judge, lstm
from training import command_line

import foldfuse as ff

tagger = lambda read: ff.map(ff.embedding(SYMBOLS, 24)) >> read >> ff.map(ff.dense(len(CLASSES)))
states = lambda hidden, **side: ff.scan(lstm(hidden, 24), init=(ff.zeros(hidden), ff.zeros(hidden)), **side)
with ff.scope("left"):
    left = states(64)
with ff.scope("right"):
    right = states(64, reverse=True)
both_ways = tagger((left & right) >> ff.zip >> ff.map(ff.concat))

EXPRESSION = "map(embedding) >> (scan(lstm) & scan(lstm, reverse=True)) >> zip >> map(concat) >> map(dense)"
left_only = tagger(states(96))  # with a state as wide as this it has one percent more parameters


def draw(models, source, before=150):
    """Draw how a piece of source is tagged; what stands `before` it and after it is read, and not drawn."""
    import pictures

    text = characters(source.symbols.tolist())
    start = text.index("def quote")  # in shlex: quotes within quotes
    piece = slice(start, text.index("\n", start + 450))
    with torch.no_grad():
        given = source.symbols[None, start - before : piece.stop + before]
        guesses = {name: model(given)[0, before:-before].argmax(-1) for name, model in models.items()}
    pictures.tagged("bidirectional_tagger", text[piece], CLASSES, source.classes[piece], guesses)


def run(steps: int = 600, picture: bool = False) -> dict:
    """Train both taggers on windows of modules' source, and judge on whole other modules."""
    training, held_out = tagged_source()
    models = {}
    for name, tag in (("both ways", both_ways), ("left only", left_only)):
        torch.manual_seed(0)
        models[name] = ff.compile(tag, ff.Seq(ff.i64))
        fit(models[name], training, steps)
    both, left = (judge(model, held_out) for model in models.values())
    sizes = [sum(map(torch.numel, model.parameters())) for model in models.values()]
    if picture:
        draw(models, held_out)
    return {
        "result": f"{both:.1%} of held-out characters, with {sizes[0]:,} parameters",
        "baseline": f"{left:.1%}, a scan from the left only, with {sizes[1]:,}",
        "beats": both > left,
        "measured": {"both ways": both, "left only": left},
        "signature": models["both ways"].signature,
    }


if __name__ == "__main__":
    command_line(run, __doc__)
