"""A network with a memory: the carry of a scan holds a small memory, and each step writes to it and reads from it."""

import torch
from data import copies, copying_lstm
from training import command_line, train

import foldfuse as ff


def turing_machine():  # Graves, Wayne, Danihelka 2014, with 24 slots of 8 numbers, and one head each to write and read
    def address(M, w, key, a):  # by content, then by place: interpolate, shift, sharpen
        gate, shift = ff.sigmoid(a[1]), ff.softmax(a[2:5])
        near = ff.softmax(ff.softplus(a[0]) * (M @ key) / (ff.norm(M, axis=1) * ff.norm(key) + 1e-6))
        w = gate * near + (1 - gate) * w
        return unit((shift[0] * ff.roll(w, 1) + shift[1] * w + shift[2] * ff.roll(w, -1)) ** (1 + ff.softplus(a[5])))

    def step(M, weights, read, x):
        h = control(ff.concat(x, read))
        write, place = (address(M, w, *head(h)) for w, head in zip(weights, heads))
        M = M * (1 - write[:, None] * ff.sigmoid(erase(h))) + write[:, None] * ff.tanh(add(h))
        return (M, (write, place), place @ M), out(ff.concat(h, place @ M))

    control, out, unit = ff.dense(64) >> ff.tanh, ff.dense(4), lambda w: w / (ff.sum(w) + 1e-6)
    erase, add, heads = ff.dense(8), ff.dense(8), [(ff.dense(8) >> ff.tanh) & ff.dense(6) for _ in range(2)]
    return ff.scan(lambda carry, x: step(*carry, x), init=(ff.full((24, 8), 0.01), (ff.eye(24)[0],) * 2, ff.zeros(8)))


EXPRESSION = "scan(step, init=(memory, weights, read))     step(carry, x) → (carry, logits)"


def fit(model, steps, title):
    """Train on lengths 1 to 8, the longer ones later."""
    generator, longest = torch.Generator().manual_seed(0), iter([2 + 14 * step // steps for step in range(steps)])

    def loss():
        length = int(torch.randint(1, min(8, next(longest)) + 1, (), generator=generator))
        given, bits = copies(16, length, generator)
        return torch.nn.functional.binary_cross_entropy_with_logits(model(given)[:, -length:], bits)

    optimiser = torch.optim.RMSprop(model.parameters(), 1e-2, alpha=0.95)
    falling = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.1, total_iters=steps)
    train(loss, optimiser, steps, schedule=falling, clip=1.0, title=title)


@torch.no_grad()
def wrong_bits(model, length):
    """Return the part of the bits of random sequences that come back wrong."""
    given, bits = copies(200, length, torch.Generator().manual_seed(length))
    return ((model(given)[:, -length:] > 0) != bits.bool()).float().mean().item()


def run(steps: int = 600, picture: bool = False) -> dict:
    """Train both to give random bits back after a mark, and count wrong bits.

    How far the copying carries depends on the seed: with seeds 0, 1, 2, 3, which the settings were chosen on, the wrong
    bits at length 20 were 0 %, 15 %, 5 % and 32 %, and the LSTM guesses there (50 %). What is told is of the next seed.
    """
    torch.manual_seed(4)
    machine, lstm = (ff.compile(network(), ff.Seq(ff.f32[6])) for network in (turing_machine, copying_lstm))
    wrong, told = {}, {}
    for name, model in (("neural Turing machine", machine), ("LSTM", lstm)):
        fit(model, steps, name)
        wrong[name] = {length: wrong_bits(model, length) for length in (8, 10, 12, 16, 20)}
        told[name] = ", ".join(f"{value:.1%} at {length}" for length, value in wrong[name].items())
        told[name] += f", with {sum(map(torch.numel, model.parameters())):,} parameters"
    ours, plain = (sum(value for length, value in by_length.items() if length > 8) for by_length in wrong.values())
    if picture:
        import pictures

        given, bits = copies(1, 14, torch.Generator().manual_seed(2))  # longer than any in training
        back = torch.sigmoid(machine(given)[0, -14:]).detach()
        pictures.bits("neural_turing_machine", {"to be copied": bits[0], "given back": back})
    return {
        "result": f"wrong bits, by length (trained on 1 to 8; it depends on the seed, see the file): "
        f"{told['neural Turing machine']}",
        "baseline": f"LSTM: {told['LSTM']}",
        "beats": ours < plain,
        "measured": {f"{name}, length {length}": value for name in wrong for length, value in wrong[name].items()},
        "signature": machine.signature,
    }


if __name__ == "__main__":
    command_line(run, __doc__)
