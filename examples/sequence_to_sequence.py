"""A fold reads one string, an unfold writes another: dates, as six languages write them, into ISO 8601."""

import torch
from data import characters, date_pairs, padded
from training import command_line, table, train

import foldfuse as ff

END, Text = 0, ff.Seq(ff.i64)  # END stands before the first letter, too
# A step from (state, last letter) to (state, scores) learns by a scan over the right letters, and writes by an unfold.
teach = lambda step, init, target: ff.sum(ff.cross_entropy(ff.scan(step, init)(ff.shift(target, END)), target))
write = lambda step, init: ff.unfold(ff.feedback(step, ff.greedy), (init, END), until=lambda x: x == END, max_length=20)


def translator(letters, hidden=128, embedded=32):
    embed, scores = ff.embedding(letters, embedded), ff.dense(letters)
    reader, writer = torch.nn.GRUCell(embedded, hidden), torch.nn.GRUCell(embedded, hidden)
    read = ff.map(embed) >> ff.fold(lambda h, x: reader(x, h), init=ff.zeros(hidden))

    def speak(h, letter):
        h = writer(embed(letter), h)
        return h, scores(h)

    loss = lambda source, target: teach(speak, read(source), target)
    return {"loss": (loss, Text, Text), "sample": (lambda source: write(speak, read(source)), Text)}


EXPRESSION = "map(embedding) >> fold(gru) >> unfold(feedback(speak, greedy), until=END)"


def dates():
    """Return pairs of a date in one of six languages and in ISO 8601, to learn from and held out, and their letters."""
    training, held_out = date_pairs(1, "de en es fr it pl".split(), count=3000, fraction=0.1)
    return training, held_out, "\n" + "".join(sorted(set("".join(map("".join, training + held_out)))))


def numbered(pairs, alphabet):
    """Return the sources of pairs as a ragged list of letters, and the targets, which have one length, with an end."""
    sources, targets = zip(*pairs)
    return ff.ragged(*padded(sources, alphabet)), padded([target + "\n" for target in targets], alphabet)[0]


def fit(programs, pairs, alphabet, steps):
    """Return a model trained by teacher forcing: the mean cross entropy of each letter, given the right ones before."""
    torch.manual_seed(0)
    model, generator = ff.compile(programs(len(alphabet))), torch.Generator().manual_seed(0)

    def loss():
        rows = torch.randint(len(pairs), (64,), generator=generator).tolist()
        return model(*numbered([pairs[row] for row in rows], alphabet)).mean() / len("2020-03-12\n")

    train(loss, torch.optim.AdamW(model.parameters(), 6e-3), steps, rise=0.2, clip=1.0)
    return model


@torch.no_grad()
def exact(model, pairs, alphabet):
    """Return the part of the pairs that the model writes exactly, and each source, what was written, and the target."""
    written = model(numbered(pairs, alphabet)[0], entry="sample").unpad()
    rows = [(p[0], characters(row.tolist(), alphabet).rstrip("\n"), p[1]) for p, row in zip(pairs, written)]
    return sum(text == target for _, text, target in rows) / len(rows), rows


def run(steps: int = 1800) -> dict:
    """Train on dates, and judge on days that are in training in no language. The baseline copies the source.

    How far it comes differs from draw to draw of the days: with seeds 0, 2, 3 it is 99.9 %, 92.5 %, 99.8 %.
    """
    training, held_out, alphabet = dates()
    model = fit(translator, training, alphabet, steps)
    rate, rows = exact(model, held_out, alphabet)
    copied = sum(source == target for source, target in held_out) / len(held_out)
    return {
        "shown": table(rows[::150]),
        "result": f"{rate:.1%} of {len(held_out):,} held-out dates exactly, after {steps:,} steps",
        "baseline": f"copying the source {copied:.1%}",
        "beats": rate > copied,
        "measured": {"exact": rate, "copy": copied, "steps": steps},
        "signature": model.signature,
    }


if __name__ == "__main__":
    command_line(run, __doc__)
