"""Images and words go into one representation, so an image of a class never seen in training is placed by its word.

The images are numbers of two handwritten digits, the words their English names, letter by letter: "forty-seven". One
number in five takes no part in training, neither as image nor as word; its parts occur in other numbers. A word whose
letters tell nothing of what it names, such as "cat" or "twelve", could place no unseen image. The baseline is chance.
"""

import argparse
from pathlib import Path

import torch
from captioning import draw
from data import digits, number_images, padded, spelled_number
from tqdm import tqdm

import foldfuse as ff

EXPRESSION = "see = conv >> relu >> … >> unit >> Meaning; read = map(embedding) >> fold(gru) >> … >> unit >> Meaning"
Picture, Word = ff.Rep("Picture", ff.Grid(ff.f32[1], 2)), ff.Rep("Word", ff.Seq(ff.i64))
Meaning = ff.Rep("Meaning", ff.f32[64])


def gru(width):
    """Return the step of a gated recurrent unit (Cho et al., 2014)."""
    gates, new = ff.dense(2 * width), ff.dense(width)

    def step(state, x):
        keep, reset = ff.chunk(ff.sigmoid(gates(ff.concat(x, state))), 2)
        return keep * state + (1 - keep) * ff.tanh(new(ff.concat(x, reset * state)))

    return step


unit = ff.expression(lambda v: v / ff.norm(v), "unit")
with ff.scope("see"):
    square = ff.conv(16, (3, 3), padding="same") >> ff.relu >> ff.max_pool(2) >> ff.conv(32, (3, 3), padding="same")
    whole = ff.max_pool(2) >> ff.conv(128, (2, 4)) >> ff.relu >> ff.mean  # one window sees all that is left: 2 by 4
    see = (square >> ff.relu >> whole >> ff.layer_norm() >> ff.dense(64) >> unit >> Meaning).typed(Picture, Meaning)
with ff.scope("read"):
    fold = ff.map(ff.embedding(28, 24)) >> ff.fold(gru(96), init=ff.zeros(96))
    read = (fold >> ff.dense(64) >> unit >> Meaning).typed(Word, Meaning)

ALPHABET = "-abcdefghijklmnopqrstuvwxyz"
NUMBERS = torch.arange(20, 100)
UNSEEN = torch.randperm(80, generator=torch.Generator().manual_seed(0))[:16].sort().values  # places among NUMBERS
SEEN = torch.tensor([place for place in range(80) if place not in UNSEEN])


def run(steps: int = 400, picture: bool = False) -> dict:
    """Train on 64 numbers, and place images of the 16 others, made of held-out digits, among the words of all 80."""
    torch.manual_seed(0)
    training, held_out = digits()
    names = [spelled_number(number) for number in NUMBERS.tolist()]
    letters, lengths = padded(names, ALPHABET)
    model = ff.compile({"see": (see, Picture), "read": (read, Word)})
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for _ in tqdm(range(steps), unit="step"):
        chosen = torch.randint(len(SEEN), (64,))
        images = number_images(training, NUMBERS[SEEN[chosen]])
        words = model(ff.ragged(letters[SEEN], lengths[SEEN]), entry="read")
        loss = torch.nn.functional.cross_entropy(12 * model(images, entry="see") @ words.T, chosen)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()

    measured = {}
    with torch.no_grad():
        words = model(ff.ragged(letters, lengths), entry="read")
        for name, places in (("seen", SEEN), ("unseen", UNSEEN)):
            shown = places.repeat(1000 // len(places))
            images = number_images(held_out, NUMBERS[shown], torch.Generator().manual_seed(0))
            nearest = (model(images, entry="see") @ words.T).argmax(1)
            measured[name] = (nearest == shown).float().mean().item()
    if picture:
        said, right = [names[i] for i in nearest.tolist()], [names[i] for i in shown.tolist()]
        draw(images, said, right, Path(__file__).parents[1] / "docs/pictures/images_and_words.png", columns=6)
    chance = 1 / len(NUMBERS)
    return {
        "result": f"{measured['unseen']:.1%} of images of unseen numbers placed by their words, "
                  f"among 80 words ({measured['seen']:.1%} of seen numbers)",
        "baseline": f"{chance:.1%}, chance",
        "beats": measured["unseen"] > chance,
        "measured": {**measured, "chance": chance},
        "signature": model.signature,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400, help="steps of training (default: %(default)s)")
    parser.add_argument("--picture", action="store_true", help="draw images with their words under docs/pictures")
    told = run(**vars(parser.parse_args()))
    print(f"{told['signature']}\n\nresult    {told['result']}\nbaseline  {told['baseline']}")
