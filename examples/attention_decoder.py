"""A step that looks back: for each letter that it writes it reads the whole source again, by reductions over a list.

The task is that of `sequence_to_sequence.py`, dates into ISO 8601. The baseline is its model, which has no attention,
with as many parameters, after as many steps on the same batches.
"""

import argparse
from pathlib import Path

import torch
from data import padded
from sequence_to_sequence import EMBEDDED, END, dates, exact, train
from sequence_to_sequence import translator as without_attention
from torch import nn

import foldfuse as ff

EXPRESSION = "scan(gru, final) >> unfold(step), its step: sum(softmax(memory @ query) * memory)"
HIDDEN = 94  # without attention it is 128: with these the models have equally many parameters, to within one percent


def translator(letters):
    """Return one module: `loss` of a pair of strings, and `sample`, what it writes for a source (Luong et al. 2015)."""
    embed, scores = ff.embedding(letters, EMBEDDED), ff.dense(letters)
    reader, writer = nn.GRUCell(EMBEDDED, HIDDEN), nn.GRUCell(EMBEDDED + HIDDEN, HIDDEN)
    question, mix = ff.dense(HIDDEN), ff.dense(HIDDEN)
    read = ff.map(embed) >> ff.scan(lambda h, x: reader(x, h), init=ff.zeros(HIDDEN), final=True)

    def over(memory):
        def speak(state, letter):
            h, seen = state
            h = writer(ff.concat(embed(letter), seen), h)
            weights = ff.tap(ff.softmax(memory @ question(h)), "attention")
            seen = ff.tanh(mix(ff.concat(ff.sum(weights * memory), h)))
            return (h, seen), scores(seen)

        return speak

    def loss(source, target):
        last, memory = read(source)
        logits = ff.scan(over(memory), init=(last, ff.zeros(HIDDEN)))(ff.shift(target, END))
        return ff.sum(ff.cross_entropy(logits, target))

    def sample(source):
        last, memory = read(source)
        step, start = ff.feedback(over(memory), ff.greedy), ((last, ff.zeros(HIDDEN)), END)
        return ff.unfold(step, init=start, until=lambda letter: letter == END, max_length=20)

    return ff.compile({"loss": (loss, ff.Seq(ff.i64), ff.Seq(ff.i64)), "sample": (sample, ff.Seq(ff.i64))})


def draw(model, pairs, alphabet, path):
    """Draw attention maps: which letters of the source (across) are read for each letter that is written (down)."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(pairs), figsize=(4.2 * len(pairs), 2.8), layout="constrained")
    for axis, (source, target) in zip(axes, pairs):
        symbols = [padded([text], alphabet)[0] for text in (source, target + "\n")]
        axis.imshow(model.record(*symbols)["attention"][0].detach(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axis.set_xticks(range(len(source)), source)
        axis.set_yticks(range(len(target) + 1), target + "¶")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=80)


def run(steps: int = 500, picture: bool = False) -> dict:
    """Train both on dates, and judge on days that are in training in no language."""
    training, held_out, alphabet = dates()
    measured = {}
    for name, made in (("without attention", without_attention), ("with attention", translator)):
        torch.manual_seed(0)
        model = made(len(alphabet))
        train(model, training, alphabet, steps)
        measured[name], _ = exact(model, held_out, alphabet)
        measured[f"parameters {name}"] = sum(parameter.numel() for parameter in model.parameters())
    if picture:
        draw(model, held_out[:900:310], alphabet, Path(__file__).parents[1] / "docs/pictures/attention_decoder.png")
    ours, plain = measured["with attention"], measured["without attention"]
    return {
        "result": f"{ours:.1%} of {len(held_out):,} held-out dates exactly, after {steps:,} steps",
        "baseline": f"without attention {plain:.1%}, at as many steps",
        "beats": ours > plain,
        "measured": measured,
        "signature": model.signature,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=500, help="steps of training (default: %(default)s)")
    parser.add_argument("--picture", action="store_true", help="draw attention maps under docs/pictures")
    told = run(**vars(parser.parse_args()))
    print(f"{told['signature']}\n\nresult    {told['result']}\nbaseline  {told['baseline']}")
