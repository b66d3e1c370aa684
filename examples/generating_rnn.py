"""A scan of a step learns Python source, an unfold of the very same step writes it, at a temperature given in the call.

The step writes likelihoods beside characters, and the scan over what was written must find the same. The baseline is a
bigram model, counted on the same training text.
"""

import argparse
import math

import torch
from character_language_model import counted_bits
from data import HELD_OUT, SYMBOLS, TRAINING, characters, source_text, symbols, windows
from torch import nn
from tqdm import tqdm

import foldfuse as ff

EXPRESSION = "scan(speak) learns; fold(speak) >> unfold(choose) writes"
HIDDEN, EMBEDDED, BATCH, LENGTH, WRITTEN, RATE, NEWLINE = 160, 32, 32, 64, 300, 4e-3, 0


def language_model():
    """Return one module: `loss` of each character of a text, and `write`, what follows a text and how likely it is."""
    embed, cell, scores = ff.embedding(SYMBOLS, EMBEDDED), nn.GRUCell(EMBEDDED, HIDDEN), ff.dense(SYMBOLS)

    def speak(h, letter):
        h = cell(embed(letter), h)
        return h, scores(h)

    def loss(text):
        return ff.cross_entropy(ff.scan(speak, init=ff.zeros(HIDDEN))(ff.shift(text, NEWLINE)), text)

    def write(prompt, temperature):
        read = ff.fold(speak, init=ff.zeros(HIDDEN))(ff.shift(prompt, NEWLINE))

        def choose(carry):
            h, logits = speak(*carry)
            letter = ff.sample()(logits / temperature)
            return (h, letter), (letter, ff.log_softmax(logits)[letter])

        return ff.unfold(choose, init=(read, prompt[-1]), length=WRITTEN)

    return ff.compile({"loss": (loss, ff.Seq(ff.i64)), "write": (write, ff.Seq(ff.i64), ff.f32)})


def bits(model, text, length=256):
    """Return bits per character of a text in windows, each begun without knowing what came before."""
    with torch.no_grad():
        return model(windows(text, torch.arange(0, len(text) - length, length), length)).mean().item() / math.log(2)


def run(steps: int = 1000) -> dict:
    """Train on windows of modules' source, write some, and judge on whole other modules."""
    torch.manual_seed(0)
    training, held_out = source_text(TRAINING), source_text(HELD_OUT)
    model = language_model()
    optimiser = torch.optim.AdamW(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=max(steps, 2), pct_start=0.1)
    for _ in (bar := tqdm(range(steps), unit="step")):
        loss = model(windows(training, torch.randint(len(training) - LENGTH, (BATCH,)), LENGTH)).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        bar.set_postfix_str(f"{loss.item() / math.log(2):.2f} bits", refresh=False)

    temperatures = torch.tensor([0.3, 0.6, 1.0])
    prompt = symbols("    def ").expand(len(temperatures), -1)
    with torch.no_grad():
        written, likelihoods = model(prompt, temperatures, entry="write", seed=1)
        text = torch.cat([prompt, written], 1)
        difference = (model(text)[:, prompt.shape[1] :] + likelihoods).abs().max().item()
    for temperature, row in zip(temperatures, text.tolist()):
        print(f"-- temperature {temperature:.1f} {'-' * 60}\n{characters(row)}")
    print(f"\nlikelihoods by unfold and by scan differ by {difference:.1e} at most")
    ours, (_, bigram) = bits(model, held_out), counted_bits(training, held_out)
    return {
        "result": f"{ours:.2f} bits a held-out character",
        "baseline": f"bigram {bigram:.2f}",
        "beats": ours < bigram,
        "measured": {"bits per character": ours, "bigram": bigram, "scan against unfold": difference},
        "signature": model.signature,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000, help="steps of training (default: %(default)s)")
    told = run(parser.parse_args().steps)
    print(f"{told['signature']}\n\nresult    {told['result']}\nbaseline  {told['baseline']}")
