"""Random well-typed programs in the user's language, as source text.

`generate` makes a program from `Choices`; it reads as a user would type it, so that a failure prints what can be pasted
and run. As a command it makes many and tries their properties::

    python tests/random_programs.py --count 3000 --seed 0
    python tests/random_programs.py --count 3000 --seed 0 --kernels
"""

from __future__ import annotations

import argparse
import collections
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = "tests"

from .random_terms import Array, Body, Choices, Class, Grid, Length, List, Product, Program, Term, Tree
from .random_trees import TreesAndGrids

HEAD = """\
from typing import Any, NamedTuple

import foldfuse as ff


class Pair(NamedTuple):
    h: Any
    c: Any
"""


class Generator(TreesAndGrids):
    """Makes whole programs.

    Arguments:
        choices: where decisions come from.
        fuel: how many statements the program may have, those in its functions counted.
    """

    def __init__(self, choices: Choices, fuel: int = 10):
        super().__init__(choices)
        self.fuel = fuel

    # --- statements ---------------------------------------------------------------------------------------------------

    def statement(self, body: Body) -> None:
        """Append a statement that binds something new."""
        made = self.choices.weighted(self._statements(body))(body)
        if made is not None:
            product = isinstance(made.type, Product)
            hint = "p" if product else {List: "xs", Grid: "grid", Tree: "tree"}.get(type(made.type), "a")
            self.let(body, self.squashed(body, made) if isinstance(made.type, Array) else made, hint)

    def _statements(self, body: Body) -> list[tuple[int, Callable[[Body], Term | None]]]:
        """What fits here, with how often."""

        def found(kind: type) -> list[Term]:
            return body.visible(kind, self.enterable if kind in (List, Tree) else lambda type_: True)

        def of(kind: type, make: Callable[[Body, Term], Term | None]) -> Callable[[Body], Term | None]:
            return lambda body: make(body, self.recent(found(kind)))

        lists, trees, grids = (bool(found(kind)) for kind in (List, Tree, Grid))
        return [
            (3, lambda body: self.array(body, self.shape(), 2)),
            (4 * lists, of(List, self.map)),
            (5 * lists, of(List, lambda body, xs: self.loop(body, xs, False))),
            (3 * lists, of(List, lambda body, xs: self.loop(body, xs, True))),
            (4 * lists, of(List, self.reduced)),
            (3 * lists, of(List, self.lifted)),
            (2 * lists, of(List, self.attended)),
            (2 * lists, of(List, self.zipped)),
            (1 * lists, of(List, self.unzipped)),
            (1 * lists, of(List, self.shifted)),
            (1 * lists, of(List, self.reversed)),
            (2 * lists, of(List, self.window)),
            (1 * lists, of(List, self.softened)),
            (1 * lists, of(List, self.map_indices)),
            (1 * lists, of(List, self.associative)),
            (1 if body.depth > 1 else 2, lambda body: self.unfold(body, False)),
            (1, lambda body: self.unfold(body, True)),
            (1, self.gradient),
            (6 * trees, of(Tree, self.cata)),
            (1 * trees, of(Tree, self.tree_map)),
            (6 * grids, of(Grid, self.grid)),
        ]

    # --- programs -----------------------------------------------------------------------------------------------------

    def input_type(self, first: bool) -> Any:
        """The type of an input; the first is a list, grid or tree."""
        vector = Array((self.choices.between(1, 3),))
        whole = Class(self.choices.between(2, 3))
        many: list[tuple[int, Callable[[], Any]]] = [
            (6, lambda: List(Length(), vector)),
            (2, lambda: List(Length(), Array(()))),
            (1, lambda: List(Length(), Array((2, 2)))),
            (2, lambda: List(Length(), whole)),
            (2, lambda: List(Length(), Product((vector, Array((2,)))))),
            (1, lambda: List(Length(), Product((vector, whole), "dict", ("drive", "key")))),
            (2, lambda: List(Length(), List(Length(), vector))),
            (1, lambda: List(Length(), List(Length(), whole))),
            (2, lambda: Grid((Length(), Length()), vector)),
            (2, lambda: Tree(Length(1, 1), vector, self.choices.pick([2, None]))),
            (1, lambda: Tree(Length(1, 1), self.choices.pick([vector, whole]), None, ("leafy", "woody"))),
        ]
        few: list[tuple[int, Callable[[], Any]]] = [
            (3, lambda: vector),
            (2, lambda: Array(())),
            (2, lambda: Array((2, 2))),
            (1, lambda: whole),
            (1, lambda: Product((vector, Array(())))),
        ]
        return self.choices.weighted(many if first else [*many, *few, *few])()

    def program(self, seed: int) -> Program:
        """A program."""
        inputs = [self.input_type(True)]
        while len(inputs) < 3 and self.choices.chance(50):
            inputs.append(self.input_type(False))
        lists = [i for i, type_ in enumerate(inputs) if isinstance(type_, List)]
        named = {}
        if len(lists) > 1 and self.choices.chance(50):
            # Two lists of one length: by a shared name, or because the program pairs them.
            one, two = lists[:2]
            inputs[two] = List(inputs[one].length, inputs[two].element)
            named = {inputs[one].length: "T"} if self.choices.chance(50) else {}
        body = Body()
        names = [self.names.fresh(hint) for hint in ("xs", "ys", "zs")[: len(inputs)]]
        for name, type_ in zip(names, inputs, strict=True):
            body.add(Term(name, type_, 1.5))
        given = len(body.terms)
        for _ in range(self.choices.between(1, 5)):
            if self.fuel > 0:
                self.fuel -= 1
                self.statement(body)
        results = [t for t in reversed(body.terms[given:]) if not isinstance(t.type, Tree)]
        chosen = results[:1] + [t for t in results[1:] if self.choices.chance(30)][:2]
        if not chosen:
            chosen = [self.let(body, self.array(body, self.shape(), 1), "a")]
        lines = [*HEAD.splitlines(), "", "", *self.head, "", "", f"def program({', '.join(names)}):"]
        lines += [f"    {line}" for line in body.lines]
        lines.append(f"    return {', '.join(t.text for t in chosen)}")
        types = ", ".join(show_type(type_, named) for type_ in inputs)
        lines += ["", "", f"types = ({types},)"]
        return Program("\n".join(lines) + "\n", tuple(inputs), tuple(self.choices.taken), seed)


def show_type(type_: Any, named: dict[Length, str]) -> str:
    """A type as the program writes it."""
    if isinstance(type_, Array):
        return f"ff.f32[{', '.join(map(str, type_.shape))}]" if type_.shape else "ff.f32"
    if isinstance(type_, Class):
        return "ff.i64"
    if isinstance(type_, List):
        size = f', "{named[type_.length]}"' if type_.length in named else ""
        return f"ff.Seq({show_type(type_.element, named)}{size})"
    if isinstance(type_, Grid):
        return f"ff.Grid({show_type(type_.element, named)}, 2)"
    if isinstance(type_, Tree):
        words = f", arity={type_.arity}" if type_.arity else ""
        words += f", kinds={type_.kinds!r}" if type_.kinds else ""
        return f"ff.Tree({show_type(type_.element, named)}{words})"
    return type_.make([show_type(part, named) for part in type_.parts])


def generate(choices: Choices, seed: int = 0, fuel: int = 10) -> Program:
    """A random program.

    Arguments:
        choices: where decisions come from.
        seed: of the values of its inputs.
        fuel: how many statements it may have at most.

    Example:
        >>> print(generate(Choices.seeded(7)).source)
    """
    return Generator(choices, fuel).program(seed)


# --- the command ------------------------------------------------------------------------------------------------------


def main() -> int:
    """Try many programs; 1 if a property of one does not hold."""
    parser = argparse.ArgumentParser(description="Make random programs and try their properties.")
    parser.add_argument("--count", type=int, default=100, help="how many programs")
    parser.add_argument("--seed", type=int, default=0, help="the first program's seed; the next has the next")
    parser.add_argument(
        "--second", type=int, default=3, help="look at second derivatives of every n-th program; 0: of none"
    )
    parser.add_argument("--laws", type=int, default=4, help="try each law alone on every n-th program; 0: on none")
    parser.add_argument("--shrink", type=float, default=30, help="seconds to spend on making a failing program smaller")
    parser.add_argument("--show", action="store_true", help="print each program before it is tried")
    parser.add_argument(
        "--kernels",
        action="store_true",
        help="try nothing but their kernels, in Triton's interpreter, under a strategy that the seed draws",
    )
    options = parser.parse_args()
    if options.kernels:
        # Read when the first kernel is defined.
        os.environ["TRITON_INTERPRET"] = "1"

    import torch

    from .random_properties import Checks, NotFinite
    from .random_shrinking import kind, shrunk

    torch.set_num_threads(1)
    held: collections.Counter[str] = collections.Counter()
    failed: collections.Counter[tuple[str, ...]] = collections.Counter()
    overflowed, start = 0, time.monotonic()
    for seed in range(options.seed, options.seed + options.count):
        program = generate(Choices.seeded(seed), seed)
        if options.show:
            print(program, flush=True)
        every = lambda n, seed=seed: n > 0 and seed % n == 0
        checks = Checks(program, every(options.second), every(options.laws), kernels=options.kernels)
        try:
            checks.run()
        except NotFinite:
            overflowed += 1
        held.update(checks.held)
        for failure in checks.failures:
            failed[kind(failure)] += 1
            if failed[kind(failure)] == 1:
                smallest, reason = shrunk(program, failure, options.shrink) if options.shrink else (program, failure)
                print(f"\n--- seed {seed} fails\n{smallest}\n# {reason}\n", flush=True)
        if sys.stderr.isatty():
            print(f"\r{seed - options.seed + 1} programs, {sum(failed.values())} failures ", end="", file=sys.stderr)
    print(f"{options.count} programs in {time.monotonic() - start:.0f} s ({overflowed} overflow and were not compared)")
    for name, count in held.items():
        if not name.startswith("law "):
            print(f"{count:7} {name}")
    print(f"{sum(n for name, n in held.items() if name.startswith('law ')):7} one law alone")
    if options.kernels:
        from .random_kernels import RAN

        for name, count in sorted(RAN.items()):
            print(f"{count:7} {name}")
    for found, count in failed.most_common():
        print(f"FAILED {count} times: {' '.join(found)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
