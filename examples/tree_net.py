"""A network for trees is a fold over them: one function of a node and its children's results, from the leaves up."""

import ast

import torch
from data import HELD_OUT, NODES, PACKAGED, TRAINING, call_in_call, functions
from training import accuracy, command_line, train

import foldfuse as ff


def tree_lstm(hidden=32):
    """Return a child-sum TreeLSTM (Tai, Socher, Manning 2015) over the kinds of nodes, and a classifier on the root."""
    embed = ff.embedding(len(NODES), 4 * hidden)
    U, V = ff.param((hidden, 3 * hidden), "U"), ff.param((hidden, hidden), "V")

    def node(kind, kids):
        wi, wo, wu, wf = ff.chunk(embed(kind), 4)
        hs, cs = ff.unzip(kids)
        ui, uo, uu = ff.chunk(ff.sum(hs) @ U, 3)
        kept = ff.sum(ff.map(lambda h: ff.sigmoid(wf + h @ V))(hs) * cs)
        c = ff.sigmoid(wi + ui) * ff.tanh(wu + uu) + kept
        return ff.sigmoid(wo + uo) * ff.tanh(c), c

    return ff.cata(node) >> (lambda result: result[0]) >> ff.dense(2)


EXPRESSION = "cata(node) >> (lambda r: r[0]) >> dense(2)     node(x, kids) → (h, c)"


def bag_of_nodes():
    """Return the baseline: a fold that only adds up what the nodes are, with a wider classifier on the sum."""
    embed = ff.embedding(len(NODES), 64)
    return ff.cata(lambda kind, kids: embed(kind) + ff.sum(kids)) >> ff.dense(128) >> ff.relu >> ff.dense(2)


def forest(trees):
    """Return syntax trees as a batch: the number of each node's kind, and its children."""
    return ff.forest(trees, children=ast.iter_child_nodes, value=lambda node: NODES.index(type(node).__name__))


def fit(model, trees, classes, steps, title):
    """Train with batches of 32 trees."""
    generator = torch.Generator().manual_seed(0)

    def loss():
        rows = torch.randint(len(trees), (32,), generator=generator)
        return torch.nn.functional.cross_entropy(model(forest([trees[row] for row in rows])), classes[rows])

    train(loss, torch.optim.Adam(model.parameters(), 1e-2), steps, clip=1.0, title=title)


def run(steps: int = 400) -> dict:
    """Ask whether some call stands inside of another, in functions of modules never seen that have two calls or more.

    So where things stand matters, not what there is.
    """
    torch.manual_seed(0)
    trees, held_out = functions(TRAINING), functions(HELD_OUT + PACKAGED)
    classes, answers = (torch.tensor([int(call_in_call(tree)) for tree in part]) for part in (trees, held_out))
    models = {"TreeLSTM": ff.compile(tree_lstm(), ff.Tree(ff.i64)), "bag": ff.compile(bag_of_nodes(), ff.Tree(ff.i64))}
    measured = {"majority": answers.bincount().max().item() / len(answers)}
    for name, model in models.items():
        fit(model, trees, classes, steps, name)
        with torch.no_grad():
            measured[name] = accuracy(model(forest(held_out)), answers)
    return {
        "result": f"{measured['TreeLSTM']:.1%} of {len(held_out)} functions of held-out modules",
        "baseline": f"{measured['bag']:.1%}, a bag of nodes; {measured['majority']:.1%}, the commoner answer",
        "beats": measured["TreeLSTM"] > max(measured["bag"], measured["majority"]),
        "measured": measured,
        "signature": models["TreeLSTM"].signature,
    }


if __name__ == "__main__":
    command_line(run, __doc__)
