"""A fold reads one string, an unfold writes another: dates, as six languages write them, into ISO 8601.

The step of the unfold learns by a scan over the right letters. The baseline copies the source.
"""

import argparse

import torch
from data import characters, date_pairs, padded
from torch import nn
from tqdm import tqdm

import foldfuse as ff

EXPRESSION = "map(embedding) >> fold(gru) >> unfold(feedback(speak, greedy), until=END)"
HIDDEN, EMBEDDED, BATCH, RATE, END = 128, 32, 64, 6e-3, 0  # END is before the first letter, too


def translator(letters):
    """Return one module: `loss` of a pair of strings, and `sample`, what it writes for a source."""
    embed, scores = ff.embedding(letters, EMBEDDED), ff.dense(letters)
    reader, writer = nn.GRUCell(EMBEDDED, HIDDEN), nn.GRUCell(EMBEDDED, HIDDEN)
    read = ff.map(embed) >> ff.fold(lambda h, x: reader(x, h), init=ff.zeros(HIDDEN))

    def speak(h, letter):
        h = writer(embed(letter), h)
        return h, scores(h)

    def loss(source, target):
        logits = ff.scan(speak, init=read(source))(ff.shift(target, END))
        return ff.sum(ff.cross_entropy(logits, target))

    write = ff.unfold(ff.feedback(speak, ff.greedy), until=lambda letter: letter == END, max_length=20)
    text = ff.Seq(ff.i64)
    return ff.compile({"loss": (loss, text, text), "sample": (read >> (lambda h: (h, END)) >> write, text)})


def dates(languages="de en es fr it pl"):
    """Return pairs (date as CLDR writes it, ISO date) in all languages, to learn from and held out, and the alphabet.

    The seed of the split is the same for all languages, so that a held-out day is in training in none of them.
    """
    parts = zip(*(date_pairs(language, count=3000, fraction=0.1, seed=0) for language in languages.split()))
    training, held_out = ([pair for pairs in part for pair in pairs] for part in parts)
    return training, held_out, "\n" + "".join(sorted(set("".join(a + b for a, b in training + held_out)) - {"\n"}))


def train(model, pairs, alphabet, steps):
    """Train by teacher forcing: the mean cross entropy of each letter of the target, given those before it."""
    torch.manual_seed(0)
    sources, lengths = padded([source for source, _ in pairs], alphabet)
    targets, _ = padded([target + "\n" for _, target in pairs], alphabet)  # ISO dates have one length
    optimiser = torch.optim.AdamW(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=max(steps, 2), pct_start=0.2)
    for _ in (bar := tqdm(range(steps), unit="step")):
        rows = torch.randint(len(pairs), (BATCH,))
        source = ff.ragged(sources[rows, : lengths[rows].max()], lengths[rows])
        loss = model(source, targets[rows]).mean() / targets.shape[1]
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        bar.set_postfix_str(f"loss {loss.item():.3f}", refresh=False)


def exact(model, pairs, alphabet):
    """Return the part of the pairs whose source the model rewrites exactly, and what it wrote for each."""
    with torch.no_grad():
        rows = model(ff.ragged(*padded([source for source, _ in pairs], alphabet)), entry="sample").unpad()
    written = [characters(row.tolist(), alphabet).rstrip("\n") for row in rows]
    return sum(text == target for text, (_, target) in zip(written, pairs)) / len(pairs), written


def run(steps: int = 1800) -> dict:
    """Train on dates, and judge on days that are in training in no language."""
    torch.manual_seed(0)
    training, held_out, alphabet = dates()
    model = translator(len(alphabet))
    train(model, training, alphabet, steps)
    rate, written = exact(model, held_out, alphabet)
    for (source, target), text in list(zip(held_out, written))[::300]:
        print(f"{source:<36} {text:<12} {'' if text == target else 'is ' + target}")
    copied = sum(source == target for source, target in held_out) / len(held_out)
    return {
        "result": f"{rate:.1%} of {len(held_out):,} held-out dates exactly, after {steps:,} steps",
        "baseline": f"copying the source {copied:.1%}",
        "beats": rate > copied,
        "measured": {"exact": rate, "copy": copied, "steps": steps},
        "signature": model.signature,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1800, help="steps of training (default: %(default)s)")
    told = run(parser.parse_args().steps)
    print(f"{told['signature']}\n\nresult    {told['result']}\nbaseline  {told['baseline']}")
