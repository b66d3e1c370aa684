"""The command line: ``foldfuse verify FILE:NAME`` and ``foldfuse explain FILE:NAME``."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..compiler.errors import FoldfuseError, StructureError
from .module import Model, compile
from .verification import Row, verify


def load(target: str) -> Model:
    """The model that ``FILE:NAME`` names.

    Arguments:
        target: a Python file and a name in it, of a compiled model, of a tuple ``(expression, *types)`` or dict of entry
            points as `ff.compile` takes them, or of a function without arguments that gives one of these.

    Raises:
        StructureError: the file or the name is not there, or is something else.
    """
    file, separator, name = target.rpartition(":")
    if not separator or not name.isidentifier():
        raise StructureError(f"write FILE:NAME, such as models.py:model; got {target!r}")
    path = Path(file)
    if not path.is_file():
        raise StructureError(f"there is no file {file}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    if not hasattr(module, name):
        known = ", ".join(n for n, v in vars(module).items() if isinstance(v, (Model, tuple, dict)) and not n.startswith("_"))
        raise StructureError(f"{file} has no {name}" + (f"; it has {known}" if known else ""))
    return _model(getattr(module, name), target)


def _model(found: Any, target: str) -> Model:
    if isinstance(found, Model):
        return found
    if isinstance(found, dict):
        return compile(found)
    if isinstance(found, tuple) and found:
        return compile(*found)
    if callable(found) and not isinstance(found, type):
        try:
            made = found()
        except TypeError as error:
            raise StructureError(f"{target} is a function that takes arguments ({error}); name one without, or a model") from None
        return _model(made, target)
    raise StructureError(f"{target} is no model: name a compiled model, a tuple (expression, *types) or a dict of entry points")


def _table(rows: Sequence[Row]) -> str:
    head = ("entry", "evaluator", "what", "largest error", "allowed", "")
    cells = [head, *((r.entry, r.evaluator, r.what, f"{r.error:.1e}", f"{r.allowed:.0e}", "ok" if r.ok else "WRONG") for r in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status: 0, 1 where something is wrong, 2 for a mistake in the command."""
    parser = argparse.ArgumentParser(prog="foldfuse", description="Check and look into programs.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("verify", help="compare every evaluator with the oracle, values and gradients")
    check.add_argument("target", metavar="FILE:NAME")
    check.add_argument("--batch", type=int, default=3, help="rows (default 3)")
    check.add_argument("--length", type=int, default=7, help="longest list (default 7)")
    check.add_argument("--seed", type=int, default=0, help="seed of the random inputs (default 0)")
    look = commands.add_parser("explain", help="the type, the laws applied, what is left in the loops, what is kept")
    look.add_argument("target", metavar="FILE:NAME")
    look.add_argument("--entry", help="entry point (default: all)")
    look.add_argument("--ir", action="store_true", help="print the graphs too, before and after the laws")
    options = parser.parse_args(arguments)
    try:
        model = load(options.target)
        if options.command == "verify":
            rows = verify(model, options.batch, options.length, options.seed)
            print(_table(rows))
            wrong = sum(not row.ok for row in rows)
            print(f"\n{len(rows) - wrong} of {len(rows)} comparisons are within tolerance")
            return 1 if wrong else 0
        for entry in model.entries if options.entry is None else (options.entry,):
            print(model.explain(entry))
            if options.ir:
                print(f"\nas traced\n\n{model.graph(entry)}\n\nafter the laws, forward and adjoint\n\n{model.code(entry)}")
    except FoldfuseError as error:
        print(f"foldfuse: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
