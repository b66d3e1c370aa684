"""What the examples share around their models: the training loop, the accuracy, the command line."""

from __future__ import annotations

import argparse
import inspect
import math
from collections.abc import Callable

import torch
from tqdm import tqdm


def train(
    loss: Callable[[], torch.Tensor],
    optimiser: torch.optim.Optimizer,
    steps: int,
    *,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    rise: float = 0.3,
    clip: float = math.inf,
    title: str | None = None,
) -> None:
    """Train with a progress bar: the plain loop of torch.

    Args:
        loss: draws a batch and returns the model's loss on it, a scalar.
        optimiser: of the model's parameters; its rate is the highest of the schedule.
        steps: how many batches.
        schedule: of the rate; one cycle, up and down again (Smith, Topin 2018), when left out.
        rise: the part of the one cycle in which the rate goes up.
        clip: the longest gradient that is taken as it is; a longer one is scaled to this length.
        title: stands before the progress bar.
    """
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    if schedule is None:
        highest = [group["lr"] for group in optimiser.param_groups]
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, highest, total_steps=max(steps, 2), pct_start=rise)
    for _ in (bar := tqdm(range(steps), title, unit="step")):
        value = loss()
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimiser.step()
        schedule.step()
        bar.set_postfix_str(f"loss {value.item():.3f}", refresh=False)


def accuracy(scores: torch.Tensor, classes: torch.Tensor) -> float:
    """Return the part of the classes [...] that are the ones with the highest of their scores [..., classes]."""
    return (scores.argmax(-1) == classes).float().mean().item()


def table(rows: list[tuple[str, str, str]]) -> str:
    """Return lines with what a model was given, what it said, and what is right where that is something else."""
    wide, broad = (max(len(row[column]) for row in rows) for column in (0, 1))
    notes = ("" if said == right else f"is {right}" for _, said, right in rows)
    return "\n".join(f"{row[0]:<{wide}}  {row[1]:<{broad}}  {note}".rstrip() for row, note in zip(rows, notes))


def tell(told: dict) -> None:
    """Print what an example's `run` gave: its types, what it has to show, its result beside its baseline."""
    parts = [told["signature"], *([told["shown"]] if "shown" in told else [])]
    parts.append(f"result    {told['result']}\nbaseline  {told['baseline']}")
    print("\n\n".join(parts), flush=True)


def command_line(run: Callable[..., dict], description: str) -> None:
    """Run an example as the command line says, and print what it told.

    Args:
        run: takes `steps`, and `picture` if it can draw one; see the examples.
        description: the example's docstring.
    """
    known = inspect.signature(run).parameters
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    steps = known["steps"].default
    parser.add_argument("--steps", type=int, default=steps, help="steps of training (default: %(default)s)")
    if "picture" in known:
        parser.add_argument("--picture", action="store_true", help="draw the picture under docs/pictures")
    tell(run(**vars(parser.parse_args())))
