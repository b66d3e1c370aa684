"""The command line: ``foldfuse verify FILE:NAME`` and ``foldfuse explain FILE:NAME``."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from ..compiler.errors import FoldfuseError
from ..compiler.expression import Expression
from .module import Model, compile
from .verification import Row, verify

__all__ = ["TargetError", "load", "main"]


class TargetError(Exception):
    """What the command line names is not there, or is no program."""


def load(target: str) -> Model:
    """The model that ``FILE:NAME`` names.

    Arguments:
        target: a Python file and a name in it: of a compiled model, of a tuple ``(expression, *types)`` or a dict of
            entry points as `ff.compile` takes them, or of a function without arguments that gives one of these.

    Returns:
        The model, compiled where it is not yet.

    Raises:
        TargetError: the file or the name is not there, or is something else.
        FoldfuseError: the program is wrong.

    Example:
        >>> load("examples/models.py:tagger").signature
        'main: Seq(i64) → Seq(f32[10])'
    """
    file, separator, name = target.rpartition(":")
    if not separator or not file or not name.isidentifier():
        raise TargetError(f"write FILE:NAME, such as models.py:model; got {target!r}")
    path = Path(file)
    if not path.is_file():
        raise TargetError(f"there is no file {file}")
    sys.path.insert(0, str(path.resolve().parent))  # as `python FILE` does, so that it may import its neighbours
    try:
        module = _executed(path)
        if not hasattr(module, name):
            known = ", ".join(
                n for n, v in vars(module).items() if not n.startswith("_") and _may_be_program(v, module)
            )
            raise TargetError(f"{file} has no {name}" + (f"; it has {known}" if known else ""))
        return _model(getattr(module, name), target)
    finally:
        sys.path.pop(0)


def _executed(path: Path) -> ModuleType:
    # Classes look their module up by name; one that stands there already must not be replaced.
    name = path.stem if path.stem not in sys.modules else f"{path.stem}_of_foldfuse"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TargetError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module


def _may_be_program(value: Any, module: ModuleType) -> bool:
    """Whether a value may be meant by a user who mistyped its name."""
    if isinstance(value, (tuple, dict)):
        return bool(value)
    own = inspect.isfunction(value) and value.__module__ == module.__name__
    return isinstance(value, Model) or (own and not _needed(value))


def _model(found: Any, target: str) -> Model:
    if isinstance(found, Model):
        return found
    if isinstance(found, Mapping):
        return compile(found)
    if isinstance(found, tuple) and found:
        return compile(*found)
    if isinstance(found, Expression):
        raise TargetError(
            f"{target} is an expression, and its input types are not known: name a tuple (expression, *types) or a "
            "model"
        )
    if callable(found) and not isinstance(found, (type, nn.Module)):
        needed = _needed(found)
        if needed:
            raise TargetError(
                f"{target} is a function of {', '.join(needed)}: name one without arguments that returns a model or "
                "(expression, *types)"
            )
        return _model(found(), f"the result of {target}")
    raise TargetError(
        f"{target} is a {type(found).__name__}: name a compiled model, a tuple (expression, *types), a dict of entry "
        "points, or a function that returns one of these"
    )


def _needed(function: Callable[..., Any]) -> list[str]:
    """The arguments that a function cannot be called without."""
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    given = inspect.signature(function).parameters.values()
    return [p.name for p in given if p.default is inspect.Parameter.empty and p.kind not in variable]


# --- commands ---------------------------------------------------------------------------------------------------------


def _table(rows: Sequence[Row]) -> str:
    head = ("entry", "what", "against", "error", "allowed", "", "largest at")
    cells = [head]
    for r in rows:
        error, verdict = ("–", "–") if r.error is None else (f"{r.error:.1e}", "ok" if r.ok else "WRONG")
        cells.append((r.entry, r.what, r.against, error, f"{r.allowed:.0e}", verdict, r.where))
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    cells.insert(1, tuple("-" * width for width in widths[:-1]) + ("-" * len(head[-1]),))
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells)


def _verify(model: Model, options: argparse.Namespace) -> int:
    rows = verify(model, options.batch, options.length, options.seed, options.entry)
    print(f"{model.signature}\n\n{_table(rows)}")
    compared = [row for row in rows if row.error is not None]
    wrong = sum(not row.ok for row in compared)
    print(f"\n{len(compared) - wrong} of {len(compared)} comparisons are within what is allowed")
    return 1 if wrong else 0


def _explain(model: Model, options: argparse.Namespace) -> int:
    texts = []
    for entry in model.entries if options.entry is None else (options.entry,):
        texts.append(model.explain(entry))
        if options.ir:
            texts.append(f"as traced\n\n{model.graph(entry)}\n\noptimised\n\n{model.code(entry)}")
    print("\n\n".join(texts))
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="foldfuse", description="Check programs, and look into them.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser(
        "verify",
        help="compare values and gradients of every evaluator with the oracle's",
        description="Compare values and gradients of every evaluator with the float64 oracle's, on random inputs.",
    )
    check.add_argument("--batch", type=_positive, default=3, help="rows (default: %(default)s)")
    check.add_argument("--length", type=_positive, default=7, help="the longest list (default: %(default)s)")
    check.add_argument("--seed", type=int, default=0, help="of inputs and of sampling (default: %(default)s)")
    check.set_defaults(run=_verify)
    look = commands.add_parser(
        "explain",
        help="show what is left in the loops, the laws applied, and what is kept",
        description="Show what is left in the loops, which laws were applied where, and what is kept for gradients.",
    )
    look.add_argument("--ir", action="store_true", help="print the graphs too, as traced and optimised")
    look.set_defaults(run=_explain)
    for command in (check, look):
        command.add_argument(
            "target", metavar="FILE:NAME", help="a model, (expression, *types), a dict of entry points, or a function"
        )
        command.add_argument("--entry", help="one entry point (default: all)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Arguments:
        arguments: those of the process when left out.

    Returns:
        The exit status: 0; 1 where a comparison is wrong; 2 where the command or the program is.
    """
    options = _parser().parse_args(arguments)
    try:
        model = load(options.target)
        if options.entry is not None and options.entry not in model.entries:
            raise TargetError(f"the model has no entry point {options.entry!r}; it has {', '.join(model.entries)}")
        return options.run(model, options)
    except TargetError as error:
        print(f"foldfuse: {error}", file=sys.stderr)
    except FoldfuseError as error:
        print(f"foldfuse: {type(error).__name__}: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
