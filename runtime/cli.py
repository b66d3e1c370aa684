"""The command line: ``foldfuse verify``, ``foldfuse explain`` and ``foldfuse compile``, each of a FILE:NAME, and
``foldfuse bench``."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from ..compiler.errors import FoldfuseError
from ..compiler.expression import Expression
from ..kernels.request import STRATEGIES
from ..kernels.targets import TARGETS
from . import kernel_report
from .call_precision import PRECISIONS
from .kernel_plan import Planned
from .kernel_verification import kernel_rows
from .module import Model, compile
from .report import table
from .verification import Row, verify

__all__ = ["CommandError", "load", "main"]


class CommandError(Exception):
    """What the command line names is not there, or is no program."""


def load(target: str) -> Model:
    """The model that ``FILE:NAME`` names.

    Arguments:
        target: a Python file and a name in it: of a compiled model, of a tuple ``(expression, *types)`` or a dict of
            entry points as `ff.compile` takes them, or of a function without arguments that gives one of these.

    Returns:
        The model, compiled where it is not yet.

    Raises:
        CommandError: the file or the name is not there, or is something else.
        FoldfuseError: the program is wrong.

    Example:
        >>> load("examples/models.py:tagger").signature
        'main: Seq(i64) → Seq(f32[10])'
    """
    file, separator, name = target.rpartition(":")
    if not separator or not file or not name.isidentifier():
        raise CommandError(f"write FILE:NAME, such as models.py:model; got {target!r}")
    path = Path(file)
    if not path.is_file():
        raise CommandError(f"there is no file {file}")
    sys.path.insert(0, str(path.resolve().parent))  # as `python FILE` does, so that it may import its neighbours
    try:
        module = _executed(path)
        if not hasattr(module, name):
            known = ", ".join(
                n for n, v in vars(module).items() if not n.startswith("_") and _may_be_program(v, module)
            )
            raise CommandError(f"{file} has no {name}" + (f"; it has {known}" if known else ""))
        return _model(getattr(module, name), target)
    finally:
        sys.path.pop(0)


def _executed(path: Path) -> ModuleType:
    # Classes look their module up by name; one that stands there already must not be replaced.
    name = path.stem if path.stem not in sys.modules else f"{path.stem}_of_foldfuse"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CommandError(f"{path} is no Python file")
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
        raise CommandError(
            f"{target} is an expression, and its input types are not known: name a tuple (expression, *types) or a "
            "model"
        )
    if callable(found) and not isinstance(found, (type, nn.Module)):
        needed = _needed(found)
        if needed:
            raise CommandError(
                f"{target} is a function of {', '.join(needed)}: name one without arguments that returns a model or "
                "(expression, *types)"
            )
        return _model(found(), f"the result of {target}")
    raise CommandError(
        f"{target} is a {type(found).__name__}: name a compiled model, a tuple (expression, *types), a dict of entry "
        "points, or a function that returns one of these"
    )


def _needed(function: Callable[..., Any]) -> list[str]:
    """The arguments that a function cannot be called without."""
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    given = inspect.signature(function).parameters.values()
    return [p.name for p in given if p.default is inspect.Parameter.empty and p.kind not in variable]


# --- verify and explain -----------------------------------------------------------------------------------------------


def _table(rows: Sequence[Row]) -> str:
    head = ("entry", "what", "against", "error", "allowed", "", "largest at")
    cells = []
    for r in rows:
        error, verdict = ("–", "–") if r.error is None else (f"{r.error:.1e}", "ok" if r.ok else "WRONG")
        cells.append((r.entry, r.what, r.against, error, f"{r.allowed:.0e}", verdict, r.where))
    return table(head, cells)


def _verify(model: Model, options: argparse.Namespace) -> int:
    settings = (options.batch, options.length, options.seed, options.entry)
    rows = verify(model, *settings)
    remark = ""
    if not options.no_kernels:
        found, remark = kernel_rows(model, options.program, settings)
        rows = [*rows, *found]
    print(f"{model.signature}\n\n{_table(rows)}")
    compared = [row for row in rows if row.error is not None]
    wrong = sum(not row.ok for row in compared)
    verdict = f"{len(compared) - wrong} of {len(compared)} comparisons are within what is allowed"
    print("\n" + (f"{remark}\n" if remark else "") + verdict)
    return 1 if wrong else 0


def _explain(model: Model, options: argparse.Namespace) -> int:
    texts = []
    for entry in _entries(model, options):
        texts.append(model.explain(entry))
        if options.ir:
            texts.append(f"as traced\n\n{model.graph(entry)}\n\noptimised\n\n{model.code(entry)}")
        if options.kernels:
            texts.append(model.code(entry, kernels=True))
    print("\n\n".join(texts))
    return 0


def _entries(model: Model, options: argparse.Namespace) -> tuple[str, ...]:
    return model.entries if options.entry is None else (options.entry,)


# --- compile ----------------------------------------------------------------------------------------------------------

_LISTING = "resources.json"


def _compile(model: Model, options: argparse.Namespace) -> int:
    if options.tf32 and options.dtype not in (None, "f32"):
        raise CommandError(f"--tf32 is about contractions of f32, and with --dtype {options.dtype} there are none")
    entries, name = _entries(model, options), options.program.rpartition(":")[2]
    folder = Path(os.path.abspath(options.out or f"{name}_{options.target}"))
    with _appearing(folder) as unfinished:
        choices = (options.target, options.strategy, options.dtype, options.tf32 or None, not options.no_backward)
        plans = [model.planned(entry, *choices, batch=options.batch) for entry in entries]
        if not any(planned.kernels for planned in plans):
            reasons = dict.fromkeys(step.reason for planned in plans for step in planned.evaluated)
            raise CommandError("no kernel is made of this program: " + ("; ".join(reasons) or "it computes nothing"))
        if len(plans) > 1:
            plans = [planned.labelled(label) for planned, label in zip(plans, _labels(entries))]
        found = kernel_report.resources(plans, options.patience)
        plans = kernel_report.settled(plans, found, options.patience)
        written = _write(unfinished, plans, found)
    signatures = [model._entry(entry).evaluation.signature for entry in entries]
    print("\n".join([*signatures, f"for {plans[0].title}", "", kernel_report.resource_table(plans, found)]))
    print(f"\n{len(written)} kernel{'s' * (len(written) != 1)} and {_LISTING} are in {options.out or folder.name}")
    unfit = [
        each.name for planned in plans for each in planned.kernels if kernel_report.faults(each, planned.request, found)
    ]
    if unfit:
        print(f"not fit for {options.target}: {', '.join(unfit)}")
    return 1 if unfit else 0


def _labels(entries: Sequence[str]) -> list[str]:
    """For each entry point a name that a file can have."""
    labels = [re.sub(r"\W", "_", entry) for entry in entries]
    return labels if len(set(labels)) == len(labels) else [f"entry_{number + 1}" for number in range(len(labels))]


def _write(folder: Path, plans: Sequence[Planned], found: Mapping[str, Any]) -> dict[str, str]:
    """Write each text once, and the listing; the names of the files, by the kernels' keys."""
    files: dict[str, str] = {}
    for planned in plans:
        for each in planned.kernels:
            if each.kernel.key not in files:
                files[each.kernel.key] = f"{each.name}.py"
                (folder / f"{each.name}.py").write_text(each.text, encoding="utf-8")
    (folder / _LISTING).write_text(kernel_report.as_json(plans, found, files), encoding="utf-8")
    return files


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A folder to write into, which gets its name when all is written: nobody sees a part of it.

    Raises:
        CommandError: it cannot be made, or would replace what this command did not write.
    """
    _check_replaceable(folder)
    unfinished = folder.with_name(f".{folder.name}-{os.getpid()}")
    try:
        unfinished.mkdir()
    except OSError as error:
        raise CommandError(
            f"no folder can be made in {folder.parent}: {error.strerror}. Name another with --out"
        ) from error
    try:
        yield unfinished
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.rename(folder)
    except OSError as error:
        raise CommandError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _check_replaceable(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise CommandError(f"{folder} is there already, and is no folder. Name another with --out")
    if not folder.exists():
        return
    there = {each.name for each in folder.iterdir()}
    try:
        ours = {_LISTING, *(each["file"] for each in json.loads((folder / _LISTING).read_text("utf-8"))["kernels"])}
    except (OSError, ValueError, TypeError, KeyError):
        ours = set()
    strange = sorted(there - ours)
    if strange:
        raise CommandError(
            f"{folder} is there already and holds {strange[0]}, which this command did not write. Name another folder "
            "with --out"
        )


# --- bench ------------------------------------------------------------------------------------------------------------


def _bench(options: argparse.Namespace) -> int:
    """Run a benchmark, which parses the rest of the command line; without one, list them."""
    # Benchmarks stand above the runtime, which does not import them before one is asked for.
    package = __package__.rpartition(".")[0] + ".bench"
    known = importlib.import_module(package).BENCHMARKS
    if options.benchmark is None:
        modules = {name: importlib.import_module(f"{package}.{module}") for name, module in known.items()}
        width = max(map(len, known))
        print("\n".join(f"{name:{width}}  {module.__doc__.splitlines()[0]}" for name, module in modules.items()))
        print("\nfoldfuse bench NAME --help shows what one measures, and its options")
        return 0
    if options.benchmark not in known:
        raise CommandError(f"there is no benchmark {options.benchmark!r}; there are {', '.join(known)}")
    return importlib.import_module(f"{package}.{known[options.benchmark]}").main(options.rest) or 0


# --- the command line -------------------------------------------------------------------------------------------------


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="foldfuse", description="Check programs, look into them, see their kernels.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser(
        "verify",
        help="compare values and gradients of every evaluator, and of the kernels, with the oracle's",
        description="Compare values and gradients of every evaluator with the float64 oracle's, on random inputs. The "
        "kernels run too: on a GPU, or without one in Triton's interpreter.",
    )
    check.add_argument("--batch", type=_positive, default=3, help="rows (default: %(default)s)")
    check.add_argument("--length", type=_positive, default=7, help="the longest list (default: %(default)s)")
    check.add_argument("--seed", type=int, default=0, help="of inputs and of sampling (default: %(default)s)")
    check.add_argument("--no-kernels", action="store_true", help="leave the kernels out")
    check.set_defaults(run=_verify)
    look = commands.add_parser(
        "explain",
        help="show what is left in the loops, the laws applied, what is kept, and the kernels planned",
        description="Show what is left in the loops, which laws were applied where, what is kept for gradients, and "
        "which kernels are planned and why.",
    )
    look.add_argument("--ir", action="store_true", help="print the graphs too, as traced and optimised")
    look.add_argument("--kernels", action="store_true", help="print the Triton text of the kernels too")
    look.set_defaults(run=_explain)
    build = commands.add_parser(
        "compile",
        help="write the kernels, and what each takes of a GPU",
        description="Plan the kernels for a GPU, compile them ahead of time (no GPU is needed), write their Triton "
        "text into a folder and show what each takes. The exit status is 1 where a kernel does not fit the GPU.",
    )
    build.add_argument("--target", choices=tuple(TARGETS), default="sm_90", help="the GPU (default: %(default)s)")
    build.add_argument("--strategy", choices=STRATEGIES, help="of every recurrence (default: the planner's choice)")
    build.add_argument("--dtype", choices=tuple(PRECISIONS), help="default: that of the parameters")
    build.add_argument("--tf32", action="store_true", help="compute contractions of f32 in tf32")
    build.add_argument("--no-backward", action="store_true", help="plan a call without gradients")
    build.add_argument(
        "--batch", type=_positive, default=32, help="rows of a call: up to 32, 512 or more (default: %(default)s)"
    )
    build.add_argument("--out", metavar="FOLDER", help="default: NAME_TARGET, such as model_sm_90")
    build.add_argument(
        "--patience",
        type=_positive,
        default=600,
        metavar="SECONDS",
        help="stop the compilation of a kernel after this time (default: %(default)s)",
    )
    build.set_defaults(run=_compile)
    measure = commands.add_parser(
        "bench",
        help="measure: kernels on a GPU, launches, compile times",
        description="Run a benchmark, or list them.",
        usage="foldfuse bench [-h] [NAME [OPTIONS]]",
    )
    measure.add_argument("benchmark", nargs="?", metavar="NAME", help="left out, all are listed")
    measure.add_argument("rest", nargs=argparse.REMAINDER, metavar="OPTIONS", help="of the benchmark; see its --help")
    for command in (check, look, build):
        command.add_argument(
            "program", metavar="FILE:NAME", help="a model, (expression, *types), a dict of entry points, or a function"
        )
        command.add_argument("--entry", help="one entry point (default: all)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Arguments:
        arguments: those of the process when left out.

    Returns:
        The exit status: 0; 1 where a comparison is wrong or a kernel does not fit; 2 where the command or the program
        is wrong. That of a benchmark is its own.
    """
    options = _parser().parse_args(arguments)
    try:
        if options.command == "bench":
            return _bench(options)
        model = load(options.program)
        if options.entry is not None and options.entry not in model.entries:
            raise CommandError(f"the model has no entry point {options.entry!r}; it has {', '.join(model.entries)}")
        return options.run(model, options)
    except CommandError as error:
        print(f"foldfuse: {error}", file=sys.stderr)
    except FoldfuseError as error:
        print(f"foldfuse: {type(error).__name__}: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
