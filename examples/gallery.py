"""Run the examples, and write `docs/gallery.md` from what they measured.

`make gallery` runs every example and then writes the page: about 20 minutes on one core. `python examples/gallery.py
--only tagger` runs one, or several; the others' figures stay as they were. With `--steps 20` examples run small, print
their results and write nothing.
"""

import argparse
import importlib
import inspect
import json
import os
import platform
import sys
import time
import traceback
from pathlib import Path

import torch
from training import tell

TITLES = {
    "deep_stack": "deep stack with named representations",
    "shared_representation": "shared representation, many inputs and tasks",
    "bilingual_words": "bilingual words in one representation",
    "images_and_words": "images and words in one representation",
    "encoding_rnn": "encoding RNN",
    "tagger": "RNN",
    "bidirectional_tagger": "bidirectional RNN",
    "generating_rnn": "generating RNN",
    "convolutional_nets": "convolutional nets, 1-D and 2-D",
    "tree_net": "TreeNet",
    "sequence_to_sequence": "sequence to sequence",
    "captioning": "captioning",
    "attention_decoder": "attention decoder",
    "neural_turing_machine": "neural Turing machine",
    "neural_ode": "neural ODE",
    "learning_step": "a step that learns",
}
ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
FIGURES, PAGE = DOCS / "gallery.json", DOCS / "gallery.md"
HEAD = """\
# The gallery

Each file is a short program that runs by itself, `python examples/NAME.py`: the model in its first 25 lines, below it
what it learns from, and a result beside a baseline on data that was held out. The data come with Python and with
packages ([`data.py`](../examples/data.py)), and training is a plain torch loop
([`training.py`](../examples/training.py)). Settings were chosen on other splits and on other modules than those that
are held out here; `data.py` says which.

`make gallery` runs them all and writes this page from what they measured, whether or not the baseline was beaten. Seeds
are fixed, yet sums are rounded otherwise on another processor, and training magnifies that: on two machines most
figures differed by less than a point, the attention decoder's by seven.
"""


def measure(name: str, steps: int | None = None, picture: bool = False) -> dict:
    """Run one example.

    Args:
        name: a key of `TITLES`.
        steps: of training; the example's own number when left out.
        picture: whether the example draws its picture, if it can draw one.

    Returns:
        What its `run` gave, with `idea` and `expression` from its file, `steps`, and `seconds` of CPU time.
    """
    module = importlib.import_module(name)
    known = inspect.signature(module.run).parameters
    given = {"steps": known["steps"].default if steps is None else steps}
    if "picture" in known:
        given["picture"] = picture
    began = time.process_time()
    told = module.run(**given)
    seconds = time.process_time() - began
    if "shown" in told:  # errors name files, and where this checkout lies is nobody's concern
        lines = told["shown"].replace(f"{ROOT}{os.sep}", "").split("\n")
        told["shown"] = "\n".join(map(str.rstrip, lines))
    idea = module.__doc__.splitlines()[0]
    return {"idea": idea, "expression": module.EXPRESSION, **told, "steps": given["steps"], "seconds": seconds}


def cell(text: str) -> str:
    """Return a text as it may stand in a cell of a table."""
    return text.replace("|", "\\|").replace("\n", "<br>")


def page(figures: dict) -> str:
    """Return the page for what was measured, by example, and in what environment."""
    measured = [(name, figures[name]) for name in TITLES if name in figures]
    lines = [HEAD, "| model | result | baseline | baseline beaten | CPU time |", "|---|---|---|---|---|"]
    for name, told in measured:
        beaten = "yes" if told["beats"] else "**no**"
        cells = (f"[{TITLES[name]}](#{name})", told["result"], told["baseline"], beaten, f"{told['seconds']:.0f} s")
        lines.append(f"| {' | '.join(map(cell, cells))} |")
    lines.append(f"\nCPU time is that of one core: the whole run with its baselines, under {figures['environment']}.")
    for name, told in measured:
        lines += [f'\n<a id="{name}"></a>', f"## {TITLES[name][0].upper()}{TITLES[name][1:]}", "", told["idea"]]
        lines.append(f"[`{name}.py`](../examples/{name}.py), {told['steps']:,} steps.")
        lines += ["", "```", told["expression"], "", told["signature"], "```"]
        if (DOCS / "pictures" / f"{name}.png").exists():
            lines += ["", f"![{TITLES[name]}](pictures/{name}.png)"]
        if "shown" in told:  # what a model writes may hold a fence of three
            lines += ["", "It prints:", "", "`````text", told["shown"], "`````"]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for; the exit status says whether every example ran."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=TITLES, metavar="NAME", help="run these, keep the others' figures")
    parser.add_argument("--steps", type=int, help="steps of training; then nothing is written")
    parser.add_argument("--picture", action="store_true", help="draw the pictures under docs/pictures, too")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    figures = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    failed = []
    for name in options.only or TITLES:
        print(f"\n== {TITLES[name]} ({name})", flush=True)
        try:
            told = measure(name, options.steps, options.picture and options.steps is None)
        except Exception:  # the others are still worth running
            traceback.print_exc()
            failed.append(name)
            continue
        tell(told)
        print(f"{'beaten' if told['beats'] else 'NOT BEATEN'}, {told['seconds']:.0f} s of CPU time", flush=True)
        figures[name] = told
        if options.steps is None:  # after each, so that what was measured is kept when a later one is cut short
            figures["environment"] = f"Python {platform.python_version()} and torch {torch.__version__.split('+')[0]}"
            DOCS.mkdir(exist_ok=True)
            FIGURES.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            PAGE.write_text(page(figures), encoding="utf-8")
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
