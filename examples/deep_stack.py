"""Layers compose, and the types of the representations between them say which may follow which.

Every hidden representation is an array of 128 numbers, so nothing but its name keeps a layer from standing in the wrong
place. The baseline is logistic regression on the same pixels.
"""

import argparse

import torch
from data import digits, logistic_regression
from tqdm import tqdm

import foldfuse as ff

EXPRESSION = "see >> join >> abstract >> dense(10)"
Pixels, Strokes, Parts, Shape = (
    ff.Rep(name, ff.f32[size]) for name, size in (("Pixels", 64), ("Strokes", 128), ("Parts", 128), ("Shape", 128))
)


def layer(source, target):
    """Return a dense layer that takes one named representation and gives another."""
    return (ff.dense(128) >> ff.layer_norm() >> ff.relu >> ff.dropout(0.2) >> target).typed(source, target)


see, join, abstract = layer(Pixels, Strokes), layer(Strokes, Parts), layer(Parts, Shape)
classify = see >> join >> abstract >> ff.dense(10)


def swapped():
    """Return what the compiler says of the stack with two layers in the wrong order."""
    try:
        ff.compile(see >> abstract >> join >> ff.dense(10), Pixels)
    except ff.RepresentationError as error:
        return str(error)
    raise AssertionError("two representations were swapped, and nothing was said")


def run(steps: int = 600) -> dict:
    """Train on three quarters of the digits, and judge on the others."""
    torch.manual_seed(0)
    training, held_out = digits()
    model = ff.compile(classify, Pixels)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for _ in tqdm(range(steps), unit="step"):
        rows = torch.randint(len(training.labels), (64,))
        loss = torch.nn.functional.cross_entropy(model(training.images[rows].flatten(1)), training.labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()

    with torch.no_grad():
        chosen = model.eval()(held_out.images.flatten(1)).argmax(1)
    accuracy, baseline = (chosen == held_out.labels).float().mean().item(), logistic_regression(training, held_out)
    return {
        "result": f"{accuracy:.1%} of held-out digits",
        "baseline": f"{baseline:.1%}, logistic regression on pixels",
        "beats": accuracy > baseline,
        "measured": {"accuracy": accuracy, "logistic regression": baseline},
        "signature": model.signature,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600, help="steps of training (default: %(default)s)")
    told = run(parser.parse_args().steps)
    print(f"{told['signature']}\n\nresult    {told['result']}\nbaseline  {told['baseline']}")
    print(f"\nwith two layers swapped, the compiler says:\n\n{swapped()}")
