"""Two languages share one representation: names are read by tied maps, and a name stands where its translation stands.

Countries, languages, scripts and currencies in English and Spanish. All layers but the last are tied.
"""

import torch
from data import name_pairs, padded
from sklearn.feature_extraction.text import CountVectorizer
from torch.nn.functional import cross_entropy, normalize
from training import accuracy, command_line, table, train

import foldfuse as ff

Name, Meaning = ff.Rep("Name", ff.Seq(ff.i64)), ff.Rep("Meaning", ff.f32[64])
residual = lambda f: lambda xs: xs + f(xs)


def programs(letters):
    """Return one program per language. What they share is what both call: `read`."""
    near, far = (ff.conv(96, 3, padding="same") >> ff.relu for _ in range(2))
    read = ff.embedding(letters, 48) >> near >> residual(far) >> (ff.max & ff.mean) >> ff.concat
    unit = lambda v: v / (ff.norm(v) + 1e-6)
    languages = {name: read >> ff.dense(64, name=name) >> unit >> Meaning for name in ("english", "spanish")}
    return {name: (program.typed(Name, Meaning), Name) for name, program in languages.items()}


EXPRESSION = '{"english": read >> dense(64) >> Meaning, "spanish": read >> dense(64) >> Meaning}'


def names():
    """Return pairs to learn from and held-out ones, without those that are written alike, and the former's letters."""
    kinds = ("territories", "languages", "scripts", "currencies")
    parts = [[tuple(map(str.lower, pair)) for pair in part] for part in name_pairs("es", seed=1, kinds=kinds)]
    training, held_out = ([pair for pair in part if pair[0] != pair[1]] for part in parts)
    return training, held_out, "".join(sorted(set("".join(map("".join, training)))))


def trigram_similarity(pairs):
    """Return the cosine [n, n] of the counts of letter trigrams of each English and each Spanish name."""
    count = CountVectorizer(analyzer="char", ngram_range=(3, 3))
    counts = count.fit_transform([f" {name} " for column in zip(*pairs) for name in column]).toarray()
    first, second = normalize(torch.tensor(counts).float(), dim=1).chunk(2)
    return first @ second.T


def run(steps: int = 800) -> dict:
    """Train with the other names of a batch as wrong answers, and look held-out English names up among all Spanish."""
    torch.manual_seed(0)
    training, held_out, alphabet = names()
    model = ff.compile(programs(len(alphabet) + 1))

    def meanings(pairs):
        english, spanish = (ff.ragged(*padded(column, alphabet)) for column in zip(*pairs))
        return model(english, entry="english"), model(spanish, entry="spanish")

    def loss():
        english, spanish = meanings([training[row] for row in torch.randperm(len(training))[:96].tolist()])
        scores, right = 12 * english @ spanish.T, torch.arange(len(english))
        return cross_entropy(scores, right) + cross_entropy(scores.T, right)

    train(loss, torch.optim.AdamW(model.parameters(), 4e-3), steps)
    with torch.no_grad():
        english, spanish = meanings(held_out)
    found, right = english @ spanish.T, torch.arange(len(held_out))
    rows = [(name, held_out[place][1], other) for (name, other), place in zip(held_out, found.argmax(1).tolist())]
    ours, overlap = accuracy(found, right), accuracy(trigram_similarity(held_out), right)
    chance = 1 / len(held_out)
    return {
        "shown": table(rows[::15]),
        "result": f"{ours:.1%} of {len(held_out)} held-out English names find their Spanish name first",
        "baseline": f"{chance:.1%} by chance, {overlap:.1%} by overlap of trigrams",
        "beats": ours > max(chance, overlap),
        "measured": {"precision at 1": ours, "chance": chance, "trigrams": overlap, "names": len(held_out)},
        "signature": model.signature,
    }


if __name__ == "__main__":
    command_line(run, __doc__)
