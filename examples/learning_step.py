"""A step may learn: the carry of a scan is a small network, and every step takes one step of descent on what it saw.

Each sequence is a regression of its own: two digits get a random value each, images of them come one after the other,
and the value of an image is told after it was guessed.
"""

import torch
from data import digits
from training import command_line, train

import foldfuse as ff

features, rate = ff.dense(32) >> ff.tanh, ff.param((), "rate", init=-3.0)
W, v = ff.param((32, 32), "W"), ff.param((32,), "v", init=0.0)  # the network that every sequence begins with
guess = lambda net, x: ff.tanh(x @ net[0]) @ net[1]
error = lambda net, x, y: (guess(net, x) - y) ** 2


def step(net, seen):
    x, y = features(seen[0]), seen[1]
    return tuple(w - ff.exp(rate) * slope for w, slope in zip(net, ff.grad(error)(net, x, y))), guess(net, x)


learn = ff.scan(step, init=(W, v))

EXPRESSION = "scan(step, init=(W, v))     step(net, (x, y)) = net - rate * grad(error)(net, x, y), guess(net, x)"
ORDER, LENGTH = torch.randperm(10, generator=torch.Generator().manual_seed(1)).tolist(), 20
SEEN, NEW = ORDER[:7], ORDER[7:]  # the three new digits are in no training sequence


def sequences(images, labels, among, count, generator):
    """Return regressions [count, LENGTH]: images of two of the digits `among`, and a random value for each."""
    images, labels = images.flatten(1)[(order := labels.argsort())], labels[order]
    two = torch.tensor(among)[torch.rand(count, len(among), generator=generator).argsort(1)[:, :2]]
    place = torch.randint(2, (count, LENGTH), generator=generator)
    digit, sizes = two.gather(1, place), torch.bincount(labels, minlength=10)
    chosen = (sizes.cumsum(0) - sizes)[digit] + (torch.rand(digit.shape, generator=generator) * sizes[digit]).long()
    return images[chosen], torch.randn(count, 2, generator=generator).gather(1, place)


@torch.no_grad()
def errors(model, pairs):
    """Return the mean squared error [LENGTH] at each place, of the model and of the mean of the values before."""
    values = pairs[1]
    before = (values.cumsum(1) - values) / torch.arange(LENGTH).clamp(min=1)
    return [((guessed - values) ** 2).mean(0) for guessed in (model(pairs, entry="guess"), before)]


def run(steps: int = 1500, picture: bool = False) -> dict:
    """Train features, first weights and the rate by the gradient of the gradient, so that such steps learn fast."""
    torch.manual_seed(0)
    generator, (training, held_out) = torch.Generator().manual_seed(0), digits(seed=1)
    squares = lambda pairs: ff.mean((learn(pairs) - ff.unzip(pairs)[1]) ** 2)
    Sequence = ff.Seq((ff.f32[64], ff.f32))
    model = ff.compile({"loss": (squares, Sequence), "guess": (learn, Sequence)})
    new, seen = (sequences(*held_out, among, 1000, generator) for among in (NEW, SEEN))
    untrained, mean = errors(model, new)
    loss = lambda: model(sequences(*training, SEEN, 32, generator)).mean()
    train(loss, torch.optim.Adam(model.parameters(), 1e-2), steps, clip=1.0)

    (trained, _), (familiar, _) = errors(model, new), errors(model, seen)
    if picture:
        import pictures

        lines = {"mean of the values before": mean, "untrained step": untrained}
        lines |= {"trained step, digits never seen": trained, "trained step, new images of seen digits": familiar}
        pictures.curves("learning_step", lines, across="place in the sequence", up="mean squared error")
    first = trained[0].item()
    last, other, plain, best = (curve[-5:].mean().item() for curve in (trained, familiar, untrained, mean))
    return {
        "result": f"error falls from {first:.2f} to {last:.2f} over 20 images of digits never seen in training "
        f"({other:.2f} on new images of the others)",
        "baseline": f"{best:.2f} for the mean of the values before, {plain:.2f} for the untrained step",
        "beats": last < min(plain, best),
        "measured": {"first": first, "last": last, "last, seen digits": other, "untrained": plain, "mean": best},
        "signature": model.signature,
    }


if __name__ == "__main__":
    command_line(run, __doc__)
