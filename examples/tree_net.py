"""A network for trees is a fold over them: one function of a node and its children's results, from the leaves up.

The trees are the syntax trees of functions of Python's standard library. Asked is whether some call stands inside of
another call, in functions with two calls or more: where things stand matters, not what there is. The baseline is such a
fold that only adds up, a bag of nodes, with a wider classifier on top.
"""

import ast

import torch
from data import HELD_OUT, TRAINING, command_line, module_source
from tqdm import tqdm

import foldfuse as ff

EXPRESSION = "cata(node) >> (lambda r: r[0]) >> dense(2)     node(x, kids) → (h, c)"
HIDDEN = 32
KINDS = sorted(name for name, kind in vars(ast).items() if isinstance(kind, type) and issubclass(kind, ast.AST))


def tree_lstm():
    """Return a child-sum TreeLSTM (Tai, Socher, Manning 2015) over the kinds of nodes, and a classifier on the root."""
    embed = ff.embedding(len(KINDS), 4 * HIDDEN)
    U, V = ff.param((HIDDEN, 3 * HIDDEN), "U"), ff.param((HIDDEN, HIDDEN), "V")

    def node(kind, kids):
        wi, wo, wu, wf = ff.chunk(embed(kind), 4)
        hs, cs = ff.unzip(kids)
        ui, uo, uu = ff.chunk(ff.sum(hs) @ U, 3)
        kept = ff.sum(ff.map(lambda h: ff.sigmoid(wf + h @ V))(hs) * cs)
        c = ff.sigmoid(wi + ui) * ff.tanh(wu + uu) + kept
        return ff.sigmoid(wo + uo) * ff.tanh(c), c

    return ff.cata(node) >> (lambda result: result[0]) >> ff.dense(2)


def bag_of_nodes():
    """Return the fold that adds up what the nodes are, with a classifier on the sum."""
    embed = ff.embedding(len(KINDS), 2 * HIDDEN)
    return ff.cata(lambda kind, kids: embed(kind) + ff.sum(kids)) >> ff.dense(4 * HIDDEN) >> ff.relu >> ff.dense(2)


# Held out are whole modules, these and data.py's.
PACKAGED = """
    asyncio/base_events asyncio/tasks email/message http/client http/cookiejar http/server json/encoder logging/__init__
    logging/handlers unittest/case unittest/mock urllib/parse urllib/request xml/dom/minidom xml/etree/ElementTree
""".split()


def call_in_call(node, inside=False):
    """Return whether some call stands inside of another, below a node that itself stands inside of a call or not."""
    is_call = isinstance(node, ast.Call)
    return (is_call and inside) or any(call_in_call(child, inside or is_call) for child in ast.iter_child_nodes(node))


def functions(modules, most=150):
    """Return the functions of modules with two calls or more and at most so many nodes, and the answers."""
    found = []
    for node in (node for module in modules for node in ast.walk(ast.parse(module_source(module)))):
        if isinstance(node, ast.FunctionDef) and len(inner := list(ast.walk(node))) <= most:
            if sum(isinstance(n, ast.Call) for n in inner) >= 2:
                found.append(node)
    return found, torch.tensor([int(call_in_call(node)) for node in found])


def forest(trees):
    """Return syntax trees as a batch: the number of each node's kind, and its children."""
    return ff.forest(trees, children=ast.iter_child_nodes, value=lambda node: KINDS.index(type(node).__name__))


def train(model, trees, labels, steps, title):
    """Train with batches of 32 trees."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    for _ in tqdm(range(steps), title, unit="step"):
        rows = torch.randint(len(trees), (32,), generator=generator)
        loss = torch.nn.functional.cross_entropy(model(forest([trees[row] for row in rows])), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()


def run(steps: int = 400) -> dict:
    """Train both, and judge them on modules never seen."""
    torch.manual_seed(0)
    (trees, labels), (held_out, answers) = functions(TRAINING), functions(HELD_OUT + PACKAGED)
    models = {"TreeLSTM": ff.compile(tree_lstm(), ff.Tree(ff.i64)), "bag": ff.compile(bag_of_nodes(), ff.Tree(ff.i64))}
    accuracy = {"majority": answers.bincount().max().item() / len(answers)}
    for name, model in models.items():
        train(model, trees, labels, steps, name)
        with torch.no_grad():
            accuracy[name] = (model(forest(held_out)).argmax(1) == answers).float().mean().item()
    return {
        "result": f"{accuracy['TreeLSTM']:.1%} of {len(held_out)} functions of held-out modules",
        "baseline": f"{accuracy['bag']:.1%}, a bag of nodes; {accuracy['majority']:.1%}, the commoner answer",
        "beats": accuracy["TreeLSTM"] > max(accuracy["bag"], accuracy["majority"]),
        "measured": accuracy,
        "signature": models["TreeLSTM"].signature,
    }


if __name__ == "__main__":
    command_line(run, __doc__)
