"""A captioner looks at an image by window maps and unfolds its caption, letter by letter, until it says the end."""

import torch
from data import characters, digits, padded, spelled_digits
from training import accuracy, command_line, train

import foldfuse as ff

END, START = 0, 27  # a full stop ends a caption; a symbol of its own starts it
square = lambda channels: ff.conv(channels, (3, 3), padding="same") >> ff.relu
look = square(16) >> square(24) >> ff.max_pool(2) >> square(48) >> ff.mean >> ff.layer_norm() >> ff.dense(64)
embed, score, gates, new = ff.embedding(28, 16), ff.dense(27), ff.dense(2 * 64), ff.dense(64)


def speak(state, letter):  # a gated recurrent unit (Cho et al., 2014)
    heard = embed(letter)
    keep, reset = ff.chunk(ff.sigmoid(gates(ff.concat(heard, state))), 2)
    state = keep * state + (1 - keep) * ff.tanh(new(ff.concat(heard, reset * state)))
    return state, score(state)


teach = lambda image, caption: ff.sum(ff.cross_entropy(ff.scan(speak, look(image))(ff.shift(caption, START)), caption))
write = ff.unfold(ff.feedback(speak, ff.greedy), until=lambda letter: letter == END, max_length=8)
say = look >> (lambda state: (state, START)) >> write

EXPRESSION = "look >> (lambda state: (state, START)) >> unfold(feedback(speak, greedy), until=end)"
ALPHABET = ".abcdefghijklmnopqrstuvwxyz"


def nearest_centroid(training, held_out):
    """Return the held-out accuracy of the nearest mean image."""
    centroids = torch.stack([training.images[training.labels == digit].mean(0).flatten() for digit in range(10)])
    return accuracy(-torch.cdist(held_out.images.flatten(1), centroids), held_out.labels)


def run(steps: int = 300, picture: bool = False) -> dict:
    """Train on three quarters of the digits, and let the captioner spell the others."""
    torch.manual_seed(0)
    training, held_out = digits(seed=1)
    names, (letters, lengths) = spelled_digits(), padded([f"{name}." for name in spelled_digits()], ALPHABET)
    Image, Caption = ff.Grid(ff.f32[1], 2), ff.Seq(ff.i64)
    model = ff.compile({"loss": (teach, Image, Caption), "said": (say, Image)})

    def loss():
        rows = torch.randint(len(training.labels), (64,))
        labels = training.labels[rows]
        return model(training.images[rows], ff.ragged(letters[labels], lengths[labels])).mean()

    train(loss, torch.optim.AdamW(model.parameters(), 4e-3, weight_decay=0.02), steps)
    with torch.no_grad():
        captions = [characters(row, ALPHABET).rstrip(".") for row in model(held_out.images, entry="said")]
    right = [names[label] for label in held_out.labels.tolist()]
    exact, baseline = sum(map(str.__eq__, captions, right)) / len(right), nearest_centroid(training, held_out)
    if picture:
        import pictures

        pictures.captions("captioning", held_out.images, captions, right, columns=9)
    return {
        "result": f"{exact:.1%} of held-out images spelled exactly",
        "baseline": f"{baseline:.1%}, the name of the nearest centroid of pixels",
        "beats": exact > baseline,
        "measured": {"exact": exact, "nearest centroid": baseline},
        "signature": model.signature,
    }


if __name__ == "__main__":
    command_line(run, __doc__)
