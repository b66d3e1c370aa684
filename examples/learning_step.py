"""A step may learn: the carry of a scan is a small network, and every step takes one step of descent on what it saw.

Each sequence is a regression of its own: two digits get a random value each, images of them come one after the other,
and the value of an image is told after it was guessed. Training by the gradient of the gradient finds features, first
weights and a rate with which such steps learn fast. Digits 7, 8, 9 are in no training sequence.
"""

from pathlib import Path

import torch
from data import command_line, digits
from tqdm import tqdm

import foldfuse as ff

EXPRESSION = "scan(step, init=(W, v))     step(net, (x, y)) = net - rate * grad(error)(net, x, y), guess(net, x)"
Sequence = ff.Seq((ff.f32[64], ff.f32))
SEEN, NEW, LENGTH = (0, 1, 2, 3, 4, 5, 6), (7, 8, 9), 20


def learner(hidden=32):
    """Return the scan whose carry is a network of one hidden layer: an image's value is guessed, then learned."""
    features = ff.dense(32) >> ff.tanh
    W, v, rate = ff.param((32, hidden), "W"), ff.param((hidden,), "v", init=0.0), ff.param((), "rate", init=-3.0)
    guess = lambda net, x: ff.tanh(x @ net[0]) @ net[1]
    error = lambda net, x, y: (guess(net, x) - y) ** 2

    def step(net, seen):
        x, y = features(seen[0]), seen[1]
        descended = tuple(w - ff.exp(rate) * slope for w, slope in zip(net, ff.grad(error)(net, x, y)))
        return descended, guess(net, x)

    return ff.scan(step, init=(W, v))


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


def draw(curves):
    """Draw the error against the place in the sequence."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    for name, curve in curves.items():
        axes.plot(range(1, LENGTH + 1), curve, label=name)
    axes.set(xlabel="place in the sequence", ylabel="mean squared error", ylim=(0, None), xticks=range(1, 21, 3))
    axes.legend(frameon=False)
    figure.savefig(Path(__file__).parents[1] / "docs/pictures/learning_step.png", dpi=110)


def run(steps: int = 1500, picture: bool = False) -> dict:
    """Train over many regressions, and judge on new ones, of held-out images and of digits never seen."""
    torch.manual_seed(0)
    generator, (training, held_out) = torch.Generator().manual_seed(0), digits()
    learn = learner()
    loss = lambda pairs: ff.mean((learn(pairs) - ff.unzip(pairs)[1]) ** 2)
    model = ff.compile({"loss": (loss, Sequence), "guess": (learn, Sequence)})
    new, seen = (sequences(*held_out, among, 1000, generator) for among in (NEW, SEEN))
    untrained = errors(model, new)[0]
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=steps)
    for _ in tqdm(range(steps), unit="step"):
        error = model(sequences(*training, SEEN, 32, generator)).mean()
        optimiser.zero_grad()
        error.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()

    (trained, mean), (familiar, _) = errors(model, new), errors(model, seen)
    if picture:
        curves = {"mean of the values before": mean, "untrained step": untrained}
        draw(curves | {"trained step, digits never seen": trained, "trained step, new images of seen digits": familiar})
    first, last, other, plain, best = (x.mean().item() for x in (
        trained[:1], trained[-5:], familiar[-5:], untrained[-5:], mean[-5:]))
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
