"""Layers compose, and the types of the representations between them say which may follow which.

Every hidden representation is an array of 128 numbers, so nothing but its name keeps a layer from standing in the wrong
place. The baseline is logistic regression on the same pixels.
"""

import torch
from data import digits, logistic_regression
from torch.nn.functional import cross_entropy
from training import accuracy, command_line, train

import foldfuse as ff

Pixels, Strokes = ff.Rep("Pixels", ff.f32[64]), ff.Rep("Strokes", ff.f32[128])
Parts, Shape = ff.Rep("Parts", ff.f32[128]), ff.Rep("Shape", ff.f32[128])


def layer(source, target):
    """Return a dense layer that takes one named representation and gives another."""
    return (ff.dense(128) >> ff.layer_norm() >> ff.relu >> ff.dropout(0.2) >> target).typed(source, target)


see, join, abstract = layer(Pixels, Strokes), layer(Strokes, Parts), layer(Parts, Shape)
classify = see >> join >> abstract >> ff.dense(10)

EXPRESSION = "see >> join >> abstract >> dense(10)"


def swapped():
    """Return the error that the compiler gives for the stack with two layers in the wrong order."""
    try:
        ff.compile(see >> abstract >> join >> ff.dense(10), Pixels)
    except ff.RepresentationError as error:
        return str(error)
    raise AssertionError("two representations were swapped, and nothing was said")


def run(steps: int = 600) -> dict:
    """Train on three quarters of the digits, and judge on the others."""
    torch.manual_seed(0)
    training, held_out = digits(seed=1)
    model = ff.compile(classify, Pixels)

    def loss():
        rows = torch.randint(len(training.labels), (64,))
        return cross_entropy(model(training.images[rows].flatten(1)), training.labels[rows])

    train(loss, torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.05), steps)
    with torch.no_grad():
        ours = accuracy(model.eval()(held_out.images.flatten(1)), held_out.labels)
    baseline = logistic_regression(training, held_out)
    return {
        "shown": f"With two layers swapped, the compiler says:\n\n{swapped()}",
        "result": f"{ours:.1%} of held-out digits",
        "baseline": f"{baseline:.1%}, logistic regression on pixels",
        "beats": ours > baseline,
        "measured": {"accuracy": ours, "logistic regression": baseline},
        "signature": model.signature,
    }


if __name__ == "__main__":
    command_line(run, __doc__)
