"""A step that looks back: for each letter that it writes it reads the whole source again, by reductions over a list."""

import torch
from sequence_to_sequence import Text, dates, exact, fit, numbered, teach, translator, write
from training import command_line

import foldfuse as ff


def attentive(letters, hidden=94):  # Luong et al. 2015; of this width it is as large as the baseline
    embed, scores, question, mix = ff.embedding(letters, 32), ff.dense(letters), ff.dense(hidden), ff.dense(hidden)
    reader, writer = torch.nn.GRUCell(32, hidden), torch.nn.GRUCell(32 + hidden, hidden)

    def speak(memory, h, seen, letter):
        h = writer(ff.concat(embed(letter), seen), h)
        weights = ff.tap(ff.softmax(memory @ question(h)), "attention")
        seen = ff.tanh(mix(ff.concat(ff.sum(weights * memory), h)))
        return (h, seen), scores(seen)

    def start(source):
        last, memory = ff.scan(lambda h, x: reader(x, h), init=ff.zeros(hidden), final=True)(ff.map(embed)(source))
        return (lambda state, letter: speak(memory, *state, letter)), (last, ff.zeros(hidden))

    loss = lambda source, target: teach(*start(source), target)
    return {"loss": (loss, Text, Text), "sample": (lambda source: write(*start(source)), Text)}


EXPRESSION = "scan(gru, final) >> unfold(step), its step: sum(softmax(memory @ query) * memory)"


def draw(model, pairs, alphabet):
    """Draw attention maps: which letters of the source are read for each letter that is written."""
    import pictures

    maps = []
    for pair in pairs:
        source, target = numbered([pair], alphabet)
        maps.append((pair[0], pair[1] + "\n", model.record(source.data, target)["attention"][0].detach()))
    pictures.attention("attention_decoder", maps)


def run(steps: int = 500, picture: bool = False) -> dict:
    """Train this and a translator without attention, of as many parameters, on the same batches of dates.

    The steps are few, so that there is something to tell: `sequence_to_sequence.py` shows what the translator without
    attention comes to with more of them.
    """
    training, held_out, alphabet = dates()
    measured = {}
    for name, made in (("without attention", translator), ("with attention", attentive)):
        model = fit(made, training, alphabet, steps)
        measured[name], _ = exact(model, held_out, alphabet)
        measured[f"parameters {name}"] = sum(map(torch.numel, model.parameters()))
    if picture:
        draw(model, held_out[:900:310], alphabet)
    ours, plain = measured["with attention"], measured["without attention"]
    return {
        "result": f"{ours:.1%} of {len(held_out):,} held-out dates exactly, after {steps:,} steps",
        "baseline": f"without attention {plain:.1%}, at as many steps",
        "beats": ours > plain,
        "measured": measured,
        "signature": model.signature,
    }


if __name__ == "__main__":
    command_line(run, __doc__)
