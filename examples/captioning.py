"""A captioner looks at an image by window maps and unfolds its caption, letter by letter, until it says the end.

The images are handwritten digits, the captions their English names. One step is trained by `scan`, hearing the right
letters, and speaks by `unfold`, hearing its own. The baseline spells the name of the nearest centroid of pixels.
"""

import argparse
from pathlib import Path

import torch
from data import characters, digits, padded, spelled_digits
from tqdm import tqdm

import foldfuse as ff

EXPRESSION = "look >> (lambda state: (state, START)) >> unfold(feedback(speak, greedy), until=end)"
ALPHABET, END, START = ".abcdefghijklmnopqrstuvwxyz", 0, 27  # a full stop ends a caption; a symbol of its own starts it


def captioner(width=64):
    """Return two programs on one parameter set: `loss` of an image and its caption, and the caption `said`."""
    square = lambda channels: ff.conv(channels, (3, 3), padding="same") >> ff.relu
    look = square(16) >> square(24) >> ff.max_pool(2) >> square(48) >> ff.mean >> ff.layer_norm() >> ff.dense(width)
    embed, score, gates, new = ff.embedding(28, 16), ff.dense(27), ff.dense(2 * width), ff.dense(width)

    def speak(state, letter):  # a gated recurrent unit (Cho et al., 2014)
        heard = embed(letter)
        keep, reset = ff.chunk(ff.sigmoid(gates(ff.concat(heard, state))), 2)
        state = keep * state + (1 - keep) * ff.tanh(new(ff.concat(heard, reset * state)))
        return state, score(state)

    def loss(image, caption):
        scores = ff.scan(speak, init=look(image))(ff.shift(caption, START))
        return ff.sum(ff.cross_entropy(scores, caption))

    said = look >> (lambda state: (state, START)) >> ff.unfold(
        ff.feedback(speak, ff.greedy), until=lambda letter: letter == END, max_length=8)
    image = ff.Grid(ff.f32[1], 2)
    return {"loss": (loss, image, ff.Seq(ff.i64)), "said": (said, image)}


def nearest_centroid(training, held_out):
    """Return the held-out accuracy of the nearest mean image."""
    centroids = torch.stack([training.images[training.labels == digit].mean(0).flatten() for digit in range(10)])
    return (torch.cdist(held_out.images.flatten(1), centroids).argmin(1) == held_out.labels).float().mean().item()


def draw(images, captions, names, path, columns=9):
    """Draw images with their captions, three rows as they come, and a row of wrong ones, in red."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(4, columns, figsize=(9, 4.8), layout="constrained")
    wrong = [place for place in range(len(names)) if captions[place] != names[place]]
    for axis, place in zip(axes.flat, [*range(3 * columns), *wrong]):
        axis.imshow(images[place, ..., 0], cmap="Greys")
        axis.set_title(captions[place], color="tab:red" if place in wrong else "tab:blue", fontsize=11)
    for axis in axes.flat:
        axis.axis("off")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=70)


def run(steps: int = 300, picture: bool = False) -> dict:
    """Train on three quarters of the digits, and let the captioner spell the others."""
    torch.manual_seed(0)
    training, held_out = digits()
    names, (letters, lengths) = spelled_digits(), padded([f"{name}." for name in spelled_digits()], ALPHABET)
    model = ff.compile(captioner())
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for _ in tqdm(range(steps), unit="step"):
        rows = torch.randint(len(training.labels), (64,))
        labels = training.labels[rows]
        loss = model(training.images[rows], ff.ragged(letters[labels], lengths[labels])).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()

    with torch.no_grad():
        captions = [characters(row, ALPHABET).rstrip(".") for row in model(held_out.images, entry="said")]
    right = [names[label] for label in held_out.labels.tolist()]
    exact, baseline = sum(map(str.__eq__, captions, right)) / len(right), nearest_centroid(training, held_out)
    if picture:
        draw(held_out.images, captions, right, Path(__file__).parents[1] / "docs/pictures/captioning.png")
    return {
        "result": f"{exact:.1%} of held-out images spelled exactly",
        "baseline": f"{baseline:.1%}, the name of the nearest centroid of pixels",
        "beats": exact > baseline,
        "measured": {"exact": exact, "nearest centroid": baseline},
        "signature": model.signature,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300, help="steps of training (default: %(default)s)")
    parser.add_argument("--picture", action="store_true", help="draw images with their captions under docs/pictures")
    told = run(**vars(parser.parse_args()))
    print(f"{told['signature']}\n\nresult    {told['result']}\nbaseline  {told['baseline']}")
