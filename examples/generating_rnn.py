"""A scan of a step learns Python source, an unfold of the very same step writes it, at a temperature the call gives."""

import torch
from data import BIT, HELD_OUT, SYMBOLS, TRAINING, characters, counted_bits, source_text, symbols, windows
from training import command_line, train

import foldfuse as ff


def language_model(hidden=160, embedded=32, newline=0):
    embed, cell, scores = ff.embedding(SYMBOLS, embedded), torch.nn.GRUCell(embedded, hidden), ff.dense(SYMBOLS)

    def speak(h, letter):
        h = cell(embed(letter), h)
        return h, scores(h)

    def choose(carry, heat):
        h, logits = speak(*carry)
        letter = ff.sample()(logits / heat)
        return (h, letter), (letter, ff.log_softmax(logits)[letter])

    read = lambda loop, text: loop(speak, init=ff.zeros(hidden))(ff.shift(text, newline))
    loss = lambda text: ff.cross_entropy(read(ff.scan, text), text)
    write = lambda text, heat: ff.unfold(lambda c: choose(c, heat), init=(read(ff.fold, text), text[-1]), length=300)
    return {"loss": (loss, ff.Seq(ff.i64)), "write": (write, ff.Seq(ff.i64), ff.f32)}


EXPRESSION = "scan(speak) learns; fold(speak) >> unfold(choose) writes"


@torch.no_grad()
def some(model):
    """Return what the model writes at three temperatures, and how far its likelihoods are from the scan's."""
    temperatures = torch.tensor([0.5, 0.75, 1.0])
    prompt = symbols("    def ").expand(len(temperatures), -1)
    written, likelihoods = model(prompt, temperatures, entry="write", seed=1)
    text = torch.cat([prompt, written], 1)
    titles = [f"-- temperature {temperature:.2f} {'-' * 60}" for temperature in temperatures]
    shown = "\n".join(f"{title}\n{characters(row).rstrip()}" for title, row in zip(titles, text.tolist()))
    return shown, (model(text)[:, prompt.shape[1] :] + likelihoods).abs().max().item()


def run(steps: int = 1000) -> dict:
    """Train on windows of modules' source, write some, and judge on whole other modules, each window begun anew."""
    torch.manual_seed(0)
    training, held_out = source_text(TRAINING), source_text(HELD_OUT)
    model = ff.compile(language_model())
    nats = lambda text, starts, length: model(windows(text, starts, length)).mean()
    loss = lambda: nats(training, torch.randint(len(training) - 64, (32,)), 64)
    train(loss, torch.optim.AdamW(model.parameters(), 4e-3), steps, rise=0.1, clip=1.0)

    shown, difference = some(model)
    with torch.no_grad():
        ours = nats(held_out, torch.arange(0, len(held_out) - 256, 256), 256).item() / BIT
    _, bigram = counted_bits(training, held_out)
    return {
        "shown": shown,
        "result": f"{ours:.2f} bits a held-out character; likelihoods by unfold and by scan differ by {difference:.0e}",
        "baseline": f"bigram {bigram:.2f}",
        "beats": ours < bigram,
        "measured": {"bits per character": ours, "bigram": bigram, "scan against unfold": difference},
        "signature": model.signature,
    }


if __name__ == "__main__":
    command_line(run, __doc__)
