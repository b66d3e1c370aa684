"""Two languages share one representation: names are read by tied maps, and a name stands where its translation stands.

Names of countries, languages, scripts and currencies in English and Spanish, from Unicode's CLDR. Everything but the
last layer is tied. A held-out English name is looked up among all the held-out Spanish ones; pairs that are written
alike are left out. Baselines are chance, and the overlap of the names' letter trigrams.
"""

from collections import Counter

import torch
from data import command_line, name_pairs, padded
from tqdm import tqdm

import foldfuse as ff

EXPRESSION = '{"english": read >> dense(64) >> Meaning, "spanish": read >> dense(64) >> Meaning}'
Name, Meaning = ff.Rep("Name", ff.Seq(ff.i64)), ff.Rep("Meaning", ff.f32[64])
residual = lambda f: lambda xs: xs + f(xs)


def programs(letters):
    """Return one program per language. What they share is what both call: `read`."""
    near, far = (ff.conv(96, 3, padding="same") >> ff.relu for _ in range(2))
    read = ff.embedding(letters, 48) >> near >> residual(far) >> (ff.max & ff.mean) >> ff.concat
    unit = lambda v: v / (ff.norm(v) + 1e-6)
    languages = {name: read >> ff.dense(64, name=name) >> unit >> Meaning for name in ("english", "spanish")}
    return {name: (program.typed(Name, Meaning), Name) for name, program in languages.items()}


def names():
    """Return pairs to learn from and held-out ones, and the letters of the former."""
    kinds = ("territories", "languages", "scripts", "currencies")
    parts = [[tuple(map(str.lower, pair)) for pair in part] for part in name_pairs("es", kinds)]
    training, held_out = ([pair for pair in part if pair[0] != pair[1]] for part in parts)
    return training, held_out, "".join(sorted(set("".join(map("".join, training)))))


def meanings(model, entry, texts, alphabet):
    """Return the representations [n, 64] of names of one language."""
    return model(ff.ragged(*padded(texts, alphabet)), entry=entry)


def first_hits(similarity):
    """Return how often the most similar name [n] of each row of [n, n] is the right one, the row's own."""
    return (similarity.argmax(1) == torch.arange(len(similarity))).float().mean().item()


def trigram_similarity(pairs):
    """Return the cosine [n, n] of the counts of letter trigrams of each English and each Spanish name."""

    def counted(text):
        return Counter(f" {text} "[place : place + 3] for place in range(len(text)))

    columns = [[counted(text) for text in column] for column in zip(*pairs)]
    known = {gram: place for place, gram in enumerate(sorted(set().union(*columns[0], *columns[1])))}
    vectors = torch.zeros(2, len(pairs), len(known))
    for language, column in enumerate(columns):
        for row, counts in enumerate(column):
            vectors[language, row, [known[gram] for gram in counts]] = torch.tensor(list(counts.values())).float()
    first, second = torch.nn.functional.normalize(vectors, dim=-1)
    return first @ second.T


def run(steps: int = 800) -> dict:
    """Train with the other names of a batch as wrong answers, and look held-out names up."""
    torch.manual_seed(0)
    training, held_out, alphabet = names()
    model = ff.compile(programs(len(alphabet) + 1))
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for _ in tqdm(range(steps), unit="step"):
        batch = zip(*(training[row] for row in torch.randperm(len(training))[:96].tolist()))
        first, second = (meanings(model, entry, texts, alphabet) for entry, texts in zip(("english", "spanish"), batch))
        similarity, right = 12 * first @ second.T, torch.arange(len(first))
        loss = sum(torch.nn.functional.cross_entropy(scores, right) for scores in (similarity, similarity.T))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()

    with torch.no_grad():
        first, second = (meanings(model, e, t, alphabet) for e, t in zip(("english", "spanish"), zip(*held_out)))
    ours, overlap, chance = first_hits(first @ second.T), first_hits(trigram_similarity(held_out)), 1 / len(held_out)
    for row, place in list(enumerate((first @ second.T).argmax(1).tolist()))[::20]:
        print(f"{held_out[row][0]:<36} {held_out[place][1]:<36} {'' if row == place else 'is ' + held_out[row][1]}")
    return {
        "result": f"{ours:.1%} of {len(held_out)} held-out English names find their Spanish name first",
        "baseline": f"{chance:.1%} by chance, {overlap:.1%} by overlap of trigrams",
        "beats": ours > max(chance, overlap),
        "measured": {"precision at 1": ours, "chance": chance, "trigrams": overlap, "names": len(held_out)},
        "signature": model.signature,
    }


if __name__ == "__main__":
    command_line(run, __doc__)
