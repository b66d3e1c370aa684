"""A network with a memory: the carry of a scan is a small memory beside the state of the network that reads and writes it.

The copy task: read random vectors of bits, and after a mark give them back in order. Trained on lengths 1 to 8, tested on
longer ones. The baseline is an LSTM with as many parameters or more, trained the same way.
"""

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

import foldfuse as ff

EXPRESSION = "scan(step, init=(memory, weights, read))     step(carry, x) → (carry, logits)"
BITS, SLOTS, CELL, HIDDEN = 4, 24, 8, 64
Bits = ff.Seq(ff.f32[BITS + 2])  # the two further channels mark the beginning and the end of what is to be copied


def turing_machine():
    """Return a neural Turing machine (Graves, Wayne, Danihelka 2014) with one head to write and one to read."""
    control, out = ff.dense(HIDDEN) >> ff.tanh, ff.dense(BITS)
    heads = [[ff.dense(n, name=f"{name}_{part}") for part, n in (("key", CELL), ("address", 6))] for name in ("write", "read")]
    erase, add = ff.dense(CELL, name="erase"), ff.dense(CELL, name="add")
    first = ff.eye(SLOTS)[0]  # both heads begin at the first slot

    def address(M, w, key, a):
        """By content, then by place: interpolate, shift, sharpen."""
        gate, shift = ff.sigmoid(a[1]), ff.softmax(a[2:5])
        near = ff.softmax(ff.softplus(a[0]) * (M @ key) / (ff.norm(M, axis=1) * ff.norm(key) + 1e-6))
        w = gate * near + (1 - gate) * w
        w = (shift[0] * ff.roll(w, 1) + shift[1] * w + shift[2] * ff.roll(w, -1)) ** (1 + ff.softplus(a[5]))
        return w / (ff.sum(w) + 1e-6)

    def step(carry, x):
        M, weights, read = carry
        h = control(ff.concat(x, read))
        write, place = (address(M, w, ff.tanh(key(h)), a(h)) for w, (key, a) in zip(weights, heads))
        M = M * (1 - write[:, None] * ff.sigmoid(erase(h))) + write[:, None] * ff.tanh(add(h))
        read = place @ M
        return (M, (write, place), read), out(ff.concat(h, read))

    return ff.scan(step, init=(ff.full((SLOTS, CELL), 0.01), (first, first), ff.zeros(CELL)))


def lstm(hidden):
    """Return an LSTM with a dense layer on every state."""
    gates, out = ff.dense(4 * hidden), ff.dense(BITS)

    def step(carry, x):
        h, c = carry
        i, f, g, o = ff.chunk(gates(ff.concat(x, h)), 4)
        c = ff.sigmoid(f) * c + ff.sigmoid(i) * ff.tanh(g)
        h = ff.sigmoid(o) * ff.tanh(c)
        return (h, c), out(h)

    return ff.scan(step, init=(ff.zeros(hidden), ff.zeros(hidden)))


def copies(count, length, generator):
    """Return inputs [count, 2 * length + 2, BITS + 2], and the bits [count, length, BITS] that are to come last."""
    bits = torch.randint(2, (count, length, BITS), generator=generator).float()
    given = torch.zeros(count, 2 * length + 2, BITS + 2)
    given[:, 1 : length + 1, :BITS] = bits
    given[:, 0, BITS] = given[:, length + 1, BITS + 1] = 1
    return given, bits


def said(model, given):
    """Return the logits [count, length, BITS] of the second half, where the copy is to stand."""
    return model(given)[:, given.shape[1] // 2 + 1 :]


def train(model, steps, title):
    """Train on lengths 1 to 8, the longer ones later."""
    optimiser = torch.optim.RMSprop(model.parameters(), lr=1e-2, alpha=0.95)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.1, total_iters=steps)
    generator = torch.Generator().manual_seed(0)
    for step in tqdm(range(steps), title, unit="step"):
        longest = min(8, 2 + 14 * step // steps)
        length = int(torch.randint(1, longest + 1, (), generator=generator))
        given, bits = copies(16, length, generator)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(said(model, given), bits)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()


@torch.no_grad()
def bit_errors(model, lengths):
    """Return the part of the bits that are wrong, by length."""
    generator = torch.Generator().manual_seed(1)
    found = {}
    for length in lengths:
        given, bits = copies(200, length, generator)
        found[length] = ((said(model, given) > 0) != bits.bool()).float().mean().item()
    return found


def draw(model):
    """Draw a sequence longer than any in training, and what the machine gives back."""
    from matplotlib import pyplot

    given, bits = copies(1, 16, torch.Generator().manual_seed(2))
    with torch.no_grad():
        answer = torch.sigmoid(said(model, given))
    figure, rows = pyplot.subplots(3, 1, figsize=(6, 3.6), layout="constrained", sharex=True)
    for axes, title, picture in zip(rows, ("to copy", "given back", "difference"), (bits, answer, (bits - answer).abs())):
        axes.imshow(picture[0].T, cmap="viridis", vmin=0, vmax=1)
        axes.set(title=title, yticks=[])
    figure.savefig(Path(__file__).parent.parent / "docs" / "pictures" / "neural_turing_machine.png", dpi=110)


def run(steps: int = 600, picture: bool = False) -> dict:
    """Train both, and count wrong bits on the lengths of training and on longer ones."""
    torch.manual_seed(0)
    models = {"neural Turing machine": ff.compile(turing_machine(), Bits), "LSTM": ff.compile(lstm(29), Bits)}
    error, parameters = {}, {}
    for name, model in models.items():
        train(model, steps, name)
        error[name] = bit_errors(model, (8, 12, 16, 20))
        parameters[name] = sum(map(torch.numel, model.parameters()))
    if picture:
        draw(models["neural Turing machine"])
    told = {name: ", ".join(f"{e:.1%} at {length}" for length, e in each.items()) for name, each in error.items()}
    longer = {name: sum(each[length] for length in (12, 16, 20)) / 3 for name, each in error.items()}
    return {
        "result": f"wrong bits: {told['neural Turing machine']}; trained on lengths 1 to 8, with "
        f"{parameters['neural Turing machine']:,} parameters",
        "baseline": f"{told['LSTM']}; an LSTM with {parameters['LSTM']:,} parameters",
        "beats": longer["neural Turing machine"] < longer["LSTM"],
        "measured": {f"{name}, length {length}": e for name, each in error.items() for length, e in each.items()},
        "signature": models["neural Turing machine"].signature,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600, help="steps of training (default: %(default)s)")
    parser.add_argument("--picture", action="store_true", help="draw a copy under docs/pictures")
    arguments = parser.parse_args()
    told = run(arguments.steps, arguments.picture)
    print(f"{told['signature']}\n\nresult    {told['result']}\nbaseline  {told['baseline']}")
