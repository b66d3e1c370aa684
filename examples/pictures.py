"""The pictures of the gallery, one function for each kind; each is written to `FOLDER` under a name.

They need matplotlib, so examples import this module only when they draw.
"""

from pathlib import Path

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "pictures"


def panels(rows: int, columns: int, width: float, height: float, **shared) -> tuple[Figure, list[Axes]]:
    """Return a figure of so many inches, and its rows · columns axes in reading order."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **shared).flat)


def save(figure: Figure, name: str) -> None:
    """Write a figure as a PNG of 100 dots an inch."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    figure.savefig(FOLDER / f"{name}.png", dpi=100)


def captions(name: str, images: torch.Tensor, said: list[str], right: list[str], columns: int) -> None:
    """Draw images with what was said of them: three rows as they come, and a row of the next wrong ones.

    What is wrong stands in red, with the right word.

    Args:
        name: of the picture.
        images: [n, height, width, channels] between 0 and 1, of one channel, the ink, or of three, the colours.
        said: the word for each image.
        right: the right words.
        columns: images in a row.
    """
    figure, axes = panels(4, columns, 8.6, 5.2)
    first = 3 * columns
    wrong = [place for place in range(first, len(right)) if said[place] != right[place]]
    for axis, place in zip(axes, [*range(first), *wrong]):
        mistaken = said[place] != right[place]
        axis.imshow(images[place].squeeze(-1).numpy(), cmap="Greys")
        title = f"{said[place]},\nis {right[place]}" if mistaken else said[place]
        axis.set_title(title, color="tab:red" if mistaken else "tab:blue", fontsize=10)
    for axis in axes:
        axis.axis("off")
    save(figure, name)


def tagged(name: str, text: str, kinds: list[str], right: torch.Tensor, guesses: dict[str, torch.Tensor]) -> None:
    """Draw a text once for each tagger, in the colours of the kinds that it gives, and its mistakes on red.

    Args:
        name: of the picture.
        text: n characters, with line breaks.
        kinds: names of the kinds.
        right: the number [n] of each character's kind.
        guesses: the numbers [n] that each tagger gives, by its name.
    """
    colours = colormaps["tab10"].colors
    lines = text.rstrip("\n").split("\n")
    width = max(map(len, lines))
    figure, axes = panels(len(guesses), 1, 0.115 * (width + 2), 0.21 * len(guesses) * (len(lines) + 4))
    for axis, (title, given) in zip(axes, guesses.items()):
        row = column = 0
        for letter, guess, kind in zip(text, given.tolist(), right.tolist()):
            if guess != kind:
                axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color="#ffb0b0", linewidth=0))
            if letter.strip():
                style = {"family": "monospace", "ha": "center", "va": "center_baseline", "fontsize": 10}
                axis.text(column, row, letter, color=colours[guess], weight="bold", **style)
            row, column = (row + 1, 0) if letter == "\n" else (row, column + 1)
        for number, kind in enumerate(kinds):
            axis.text(number * width / len(kinds), len(lines) + 0.8, kind, color=colours[number], va="center")
        axis.set(xlim=(-1, width), ylim=(len(lines) + 1.5, -1))
        axis.set_title(f"{title} (wrong on red)", fontsize=11)
        axis.axis("off")
    save(figure, name)


def attention(name: str, maps: list[tuple[str, str, torch.Tensor]]) -> None:
    """Draw which letters of a source (across) are read for each letter that is written (down).

    Args:
        name: of the picture.
        maps: source, target and weights [target, source] of each example.
    """
    figure, axes = panels(1, len(maps), 4.2 * len(maps), 3.2)
    for axis, (source, target, weights) in zip(axes, maps):
        axis.imshow(weights.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axis.set_xticks(range(len(source)), source)
        axis.set_yticks(range(len(target)), target.replace("\n", "¶"))
        axis.tick_params(length=0)
        axis.set_xlabel("read")
    axes[0].set_ylabel("written")
    save(figure, name)


def bits(name: str, rows: dict[str, torch.Tensor]) -> None:
    """Draw sequences [length, bits] of numbers between 0 and 1, one below the other, by title."""
    figure, axes = panels(len(rows), 1, 5, 1.9 * len(rows), sharex=True)
    for axis, (title, values) in zip(axes, rows.items()):
        axis.imshow(values.T.numpy(), cmap="gray_r", vmin=0, vmax=1)
        axis.set(title=title, yticks=[], ylabel="bits")
    axes[-1].set_xlabel("place in the sequence")
    save(figure, name)


def paths(name: str, true: torch.Tensor, learned: torch.Tensor) -> None:
    """Draw true and learned points [paths, length, 2] of the plane, each path in a colour of its own."""
    figure, (axis,) = panels(1, 1, 5.6, 4.6)
    for row, (circles, dots) in enumerate(zip(true.numpy(), learned.numpy())):
        labels = ("true, from a held-out start", "neural ODE") if row == 0 else (None, None)
        axis.plot(*circles.T, "o", color=f"C{row}", markersize=7, markerfacecolor="none", alpha=0.5, label=labels[0])
        axis.plot(*dots.T, ".", color=f"C{row}", markersize=4, label=labels[1])
    axis.set(xlabel="position", ylabel="velocity")
    axis.legend(frameon=False, loc="center")
    save(figure, name)


def curves(name: str, by_label: dict[str, torch.Tensor], across: str, up: str) -> None:
    """Draw curves [length] over 1, 2, … with the names of both axes."""
    figure, (axis,) = panels(1, 1, 6, 3.6)
    for label, values in by_label.items():
        axis.plot(range(1, len(values) + 1), values.numpy(), label=label)
    axis.set(xlabel=across, ylabel=up, ylim=(0, None), xticks=range(1, len(values) + 1, 3))
    axis.legend(frameon=False)
    save(figure, name)
