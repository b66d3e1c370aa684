"""Images and words go into one representation, so an image of a class never seen in training is placed by its word."""

import torch
from data import digits, number_images, padded, spelled_number
from training import accuracy, command_line, train

import foldfuse as ff

Picture, Word = ff.Rep("Picture", ff.Grid(ff.f32[1], 2)), ff.Rep("Word", ff.Seq(ff.i64))
Meaning, unit = ff.Rep("Meaning", ff.f32[64]), ff.expression(lambda v: v / ff.norm(v), "unit")
with ff.scope("see"):
    square = ff.conv(16, (3, 3), padding="same") >> ff.relu >> ff.max_pool(2) >> ff.conv(32, (3, 3), padding="same")
    whole = ff.max_pool(2) >> ff.conv(128, (2, 4)) >> ff.relu >> ff.mean  # one window sees all that is left: 2 by 4
    see = (square >> ff.relu >> whole >> ff.layer_norm() >> ff.dense(64) >> unit >> Meaning).typed(Picture, Meaning)
with ff.scope("read"):
    letter, gates, new = ff.embedding(28, 24), ff.dense(2 * 96), ff.dense(96)

    def gru(state, x):  # a gated recurrent unit (Cho et al., 2014)
        keep, reset = ff.chunk(ff.sigmoid(gates(ff.concat(x, state))), 2)
        return keep * state + (1 - keep) * ff.tanh(new(ff.concat(x, reset * state)))

    fold = ff.map(letter) >> ff.fold(gru, init=ff.zeros(96))
    read = (fold >> ff.dense(64) >> unit >> Meaning).typed(Word, Meaning)

EXPRESSION = "see = conv >> relu >> … >> unit >> Meaning; read = map(embedding) >> fold(gru) >> … >> unit >> Meaning"
ALPHABET = "-abcdefghijklmnopqrstuvwxyz"

# The images are numbers of two handwritten digits, the words their English names, letter by letter: "forty-seven". One
# number in five takes no part in training, neither as image nor as word; its parts occur in other numbers. A word whose
# letters tell nothing of what it names, such as "cat" or "twelve", could place no unseen image.
NUMBERS = torch.arange(20, 100)
UNSEEN = torch.randperm(80, generator=torch.Generator().manual_seed(1))[:16].sort().values  # places among NUMBERS
SEEN = torch.tensor([place for place in range(80) if place not in UNSEEN])


def run(steps: int = 400, picture: bool = False) -> dict:
    """Train on 64 numbers, and place images of the 16 others, made of held-out digits, among the words of all 80."""
    torch.manual_seed(0)
    training, held_out = digits(seed=1)
    names = [spelled_number(number) for number in NUMBERS.tolist()]
    letters, lengths = padded(names, ALPHABET)
    model = ff.compile({"see": (see, Picture), "read": (read, Word)})

    def scores(images, places):
        words = model(ff.ragged(letters[places], lengths[places]), entry="read")
        return 12 * model(images, entry="see") @ words.T

    def loss():
        chosen = torch.randint(len(SEEN), (64,))
        images = number_images(training, NUMBERS[SEEN[chosen]])
        return torch.nn.functional.cross_entropy(scores(images, SEEN), chosen)

    train(loss, torch.optim.AdamW(model.parameters(), 4e-3, weight_decay=0.05), steps)
    measured = {}
    for name, places in (("seen", SEEN), ("unseen", UNSEEN)):
        shown = places.repeat(1000 // len(places))
        images = number_images(held_out, NUMBERS[shown], torch.Generator().manual_seed(0))
        with torch.no_grad():
            found = scores(images, torch.arange(len(NUMBERS)))
        measured[name] = accuracy(found, shown)
    if picture:  # of the numbers that were never seen
        import pictures

        said, right = ([names[place] for place in places.tolist()] for places in (found.argmax(1), shown))
        pictures.captions("images_and_words", images, said, right, columns=6)
    chance = 1 / len(NUMBERS)
    return {
        "result": f"{measured['unseen']:.1%} of images of unseen numbers placed by their words, among 80 words "
        f"({measured['seen']:.1%} of seen numbers)",
        "baseline": f"{chance:.1%}, chance",
        "beats": measured["unseen"] > chance,
        "measured": {**measured, "chance": chance},
        "signature": model.signature,
    }


if __name__ == "__main__":
    command_line(run, __doc__)
