"""Colour and grey digits go into one representation, and two tasks are read from it: four programs, one parameter set.

There are many grey images to learn from and few in colour. The baseline is a network of its own for each of the four
pairs of input and task, with as many parameters in all, as many steps, and batches of the same size.
"""

import argparse

import torch
from data import colour_digits, digits
from tqdm import tqdm

import foldfuse as ff

EXPRESSION = '{"grey_digit": grey >> shape >> digit, "grey_parity": …, "colour_digit": …, "colour_parity": …}'
Grey, Colour, Edges = (ff.Rep(n, ff.Grid(ff.f32[c], 2)) for n, c in (("Grey", 1), ("Colour", 3), ("Edges", 16)))


def programs(width):
    """Return the four programs; `width` channels and features stand in what they share."""
    with ff.scope("grey"):
        grey = ff.conv(16, (3, 3), padding="same") >> ff.relu >> Edges
    with ff.scope("colour"):
        colour = ff.conv(16, (3, 3), padding="same") >> ff.relu >> Edges
    wide = ff.conv(width, (3, 3)) >> ff.relu >> ff.max_pool(2)
    shape = wide >> ff.conv(width, (3, 3)) >> ff.relu >> ff.mean >> ff.layer_norm()
    inputs = {"grey": grey.typed(Grey, Edges) >> shape, "colour": colour.typed(Colour, Edges) >> shape}
    tasks = {"digit": ff.dense(10, name="digit"), "parity": ff.dense(2, name="parity")}
    types = {"grey": Grey, "colour": Colour}
    return {f"{i}_{t}": (inputs[i] >> tasks[t], types[i]) for i in inputs for t in tasks}


GREY, COLOUR = 1000, 300  # images to learn from; the two kinds show different digits


def examples():
    """Return the images to learn from and the held-out ones, by kind."""
    (grey, grey_held_out), (colour, colour_held_out) = digits(), colour_digits()
    training = {"grey": [part[:GREY] for part in grey], "colour": [part[GREY : GREY + COLOUR] for part in colour]}
    return training, {"grey": grey_held_out, "colour": colour_held_out}


def targets(name, labels):
    """Return the classes that a program is to give."""
    return labels % 2 if name.endswith("parity") else labels


def train(models, training, steps, title):
    """Train programs side by side, each named program on its own batch in every step."""
    parameters = [p for model in set(models.values()) for p in model.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=4e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    for _ in tqdm(range(steps), title, unit="step"):
        losses = []
        for name, model in models.items():
            images, labels = training[name.split("_")[0]]
            rows = torch.randint(len(labels), (32,), generator=generator)
            logits = model(images[rows], entry=name)
            losses.append(torch.nn.functional.cross_entropy(logits, targets(name, labels[rows])))
        optimiser.zero_grad()
        sum(losses).backward()
        optimiser.step()
        schedule.step()
    return sum(map(torch.numel, parameters))


@torch.no_grad()
def accuracies(models, held_out):
    """Return the held-out accuracy of each program."""
    found = {}
    for name, model in models.items():
        images, labels = held_out[name.split("_")[0]]
        found[name] = (model(images, entry=name).argmax(1) == targets(name, labels)).float().mean().item()
    return found


def run(steps: int = 400) -> dict:
    """Train jointly, and separately with as many parameters, and compare on held-out images."""
    torch.manual_seed(0)
    training, held_out = examples()
    model = ff.compile(programs(40))
    joint = {name: model for name in programs(40)}
    separate = {name: ff.compile({name: programs(17)[name]}) for name in joint}
    shared, own = train(joint, training, steps, "joint"), train(separate, training, steps, "separate")
    joint, separate = accuracies(joint, held_out), accuracies(separate, held_out)
    mean, baseline = sum(joint.values()) / 4, sum(separate.values()) / 4
    each = ", ".join(f"{name.replace('_', ' ')} {joint[name]:.0%} against {separate[name]:.0%}" for name in joint)
    return {
        "result": f"{mean:.1%} on average over held-out images, with {shared:,} parameters ({each})",
        "baseline": f"{baseline:.1%}, trained separately, with {own:,} parameters",
        "beats": mean > baseline,
        "measured": {"joint": mean, "separate": baseline, "joint parameters": shared, "separate parameters": own}
        | {f"joint, {name}": value for name, value in joint.items()}
        | {f"separate, {name}": value for name, value in separate.items()},
        "signature": model.signature,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400, help="steps of training (default: %(default)s)")
    told = run(parser.parse_args().steps)
    print(f"{told['signature']}\n\nresult    {told['result']}\nbaseline  {told['baseline']}")
