"""Compile the kernels of recurrences ahead of time, for GPUs that need not be there, and say what is wrong with them:
what spills, what passes a limit of its target, and products without tensor cores where the dtype has them.

Without options it is the selection that the tests take, in which every two values of the factors meet at least once::

    python tests/compile_recurrences.py --cells lstm gru --widths 128 1024 --targets sm_90 --dtypes bf16
    python tests/compile_recurrences.py --all --record build/compiled.jsonl --out build/compiled.json

The whole product takes hours. With a record, a kernel that was compiled before is not compiled again, whichever case
asks for it: another commit costs what it changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import cache, partial
from importlib.metadata import version
from itertools import combinations, product
from pathlib import Path
from typing import Any
from zlib import crc32

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = "tests"

from foldfuse.bench.report import circumstances
from foldfuse.compiler.pipeline import Compiled
from foldfuse.kernels import device
from foldfuse.kernels.emit import Numerics
from foldfuse.kernels.kernel import Kernel
from foldfuse.kernels.request import Request, typical_rows
from foldfuse.kernels.resources import Resources, compile_many, violations
from foldfuse.kernels.targets import target
from foldfuse.runtime import fused

from .ahead_of_time import TARGETS
from .cells import CELLS, MORE_CELLS, graphs

EVERY_CELL = CELLS | MORE_CELLS
WIDTHS = (16, 24, 64, 100, 128, 256, 1024)
DTYPES = ("bf16", "tf32", "f32")
PASSES = ("forward", "backward")
WITHOUT_PRODUCTS = ("delta_rule", "linear_attention", "gated_delta", "indrnn", "min_gru", "crf_forward")
"""The cells whose steps do not multiply by weights."""
PARTS = {"heads": 4, "heads_einsum": 4}
"""Into how many parts the width of a cell's state is divided."""
SLOW = 1024
"""A width at which a kernel takes Triton several seconds."""


@dataclass(frozen=True)
class Case:
    """One combination: the kernel of a cell's loop, forward or backward, of a width and dtype, on a target, for a batch
    of some number of rows."""

    cell: str
    width: int
    dtype: str
    target: str
    which: str
    rows: int = 32

    def __str__(self) -> str:
        batch = f", {self.rows} rows" if self.rows != 32 else ""
        return f"{self.cell} {self.which}, H = {self.width}, {self.dtype}, {self.target}{batch}"


def every(
    cells: Iterable[str] = CELLS,
    widths: Iterable[int] = WIDTHS,
    dtypes: Iterable[str] = DTYPES,
    targets: Iterable[str] = TARGETS,
    passes: Iterable[str] = PASSES,
    rows: Iterable[int] = (32,),
) -> list[Case]:
    """The product of the factors."""
    return [Case(*values) for values in product(cells, widths, dtypes, targets, passes, rows)]


def covering(cases: Sequence[Case]) -> list[Case]:
    """Few of the cases in which every pair of values that occurs in them occurs: each time the one with most new
    pairs (after Cohen et al., *The AETG system*, 1997). Of equals, what is slow to compile comes last, the rest in an
    order that favours no value."""
    pairs = {case: set(combinations([(f.name, getattr(case, f.name)) for f in fields(case)], 2)) for case in cases}
    left = set().union(*pairs.values())
    order = sorted(cases, key=lambda case: (case.width == SLOW, 0 if case.width == SLOW else crc32(str(case).encode())))
    chosen = []
    while left:
        chosen.append(max(order, key=lambda case: len(pairs[case] & left)))
        left -= pairs[chosen[-1]]
    return chosen


@cache
def compiled_graphs(cell: str, width: int, half: bool) -> Compiled:
    """The optimised graphs of a cell."""
    return graphs(*EVERY_CELL[cell](width), operands="bf16" if half else None)


def planned(case: Case, force: str | None = None) -> tuple[fused.PlannedKernel, ...]:
    """All kernels of a case."""
    graph = getattr(compiled_graphs(case.cell, case.width, case.dtype == "bf16"), case.which)
    numerics = Numerics("tf32" if case.dtype == "tf32" else "ieee")
    request = Request(case.target, numerics, force, strict=force is not None, rows=typical_rows(case.rows))
    made = fused.plan(graph, request, frozenset())
    assert isinstance(made, fused.Fused), f"{case}: {made}"
    return made.kernels


def loop_of(kernels: Sequence[fused.PlannedKernel]) -> fused.PlannedKernel:
    """The one of a case's kernels that runs over time."""
    (loop,) = (planned for planned in kernels if planned.kernel.name.startswith("scan"))
    return loop


# --- what was compiled ------------------------------------------------------------------------------------------------


class Record:
    """What kernels were found to take, kept in a file of one line for each: a kernel is known by its text and options,
    the target, the compiler's release and the text of the functions that kernels call.

    Arguments:
        path: the file, made where it is missing; without one, what is found is kept as long as the record.
    """

    def __init__(self, path: Path | None = None):
        self.path = path
        self.found: dict[str, Resources | str] = {}
        helpers = hashlib.sha256(Path(device.__file__).read_bytes()).hexdigest()[:16]
        self.compiler = f"triton {version('triton')}, helpers {helpers}"
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                answer = entry["answer"]
                self.found[entry["key"]] = answer if isinstance(answer, str) else Resources(**answer)

    def resources(self, kernels: Iterable[Kernel], name: str, processes: int) -> dict[Kernel, Resources | str]:
        """What each kernel takes of a target, or why it does not compile; those not known yet are compiled."""
        keys = {kernel: f"{kernel.key} {name} {self.compiler}" for kernel in kernels}
        missing = {key: kernel for kernel, key in keys.items() if key not in self.found}
        if missing:
            answers = compile_many(missing.values(), [name], processes)
            for key, kernel in missing.items():
                self._keep(key, answers[kernel, name])
        return {kernel: self.found[key] for kernel, key in keys.items()}

    def _keep(self, key: str, answer: Resources | str) -> None:
        self.found[key] = answer
        if self.path is not None:
            entry = {"key": key, "answer": answer if isinstance(answer, str) else asdict(answer)}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Several processes add to one file: a line is written at once.
            with open(self.path, "ab", buffering=0) as file:
                file.write((json.dumps(entry) + "\n").encode())


def compiled(
    kernels: Sequence[fused.PlannedKernel], name: str, processes: int, record: Record | None = None
) -> list[tuple[Kernel, Resources | str]]:
    """The kernels as a device would have them, those that spill planned again, and what each takes."""
    record = record or Record()
    record.resources([each.kernel for each in kernels], name, processes)

    def spilled(kernel: Kernel) -> int:
        answer = record.resources([kernel], name, 1)[kernel]
        return answer.spilled if isinstance(answer, Resources) else 0

    settled = [fused.settled(each, spilled).kernel for each in kernels]
    return [(kernel, record.resources([kernel], name, 1)[kernel]) for kernel in settled]


def faults(case: Case, kernel: Kernel, found: Resources | str) -> list[str]:
    """What is wrong with a kernel as it was compiled."""
    if isinstance(found, str):
        return [f"does not compile: {found}"]
    wrong = violations(found, target(case.target))
    # A product of a tensor core has sixteen rows, columns and depth or more. AMD's rules are others.
    wide = case.cell not in WITHOUT_PRODUCTS and case.width // PARTS.get(case.cell, 1) >= 16
    if wide and kernel.name.startswith("scan") and case.dtype != "f32" and case.target != "gfx942":
        if not found.tensor_core_instructions:
            wrong.append("no tensor core is used")
    return wrong


# --- the command ------------------------------------------------------------------------------------------------------


def results(case: Case, pointwise: bool, force: str | None, path: Path | None) -> list[dict[str, Any]]:
    """What is known of each kernel of a case; "wrong" lists what is not as it should be."""
    try:
        chosen = [each for each in planned(case, force) if pointwise or each.kernel.name.startswith("scan")]
    except Exception as error:
        return [asdict(case) | {"wrong": [f"{type(error).__name__}: {error}"]}]
    rows = []
    for kernel, found in compiled(chosen, case.target, 1, _record(path)):
        row = asdict(case) | {"kernel": kernel.name, "strategy": kernel.strategy, "warps": kernel.warps}
        if isinstance(found, Resources):
            names = ("registers", "shared", "stack", "spilled", "tensor_core_instructions", "tensor_memory", "seconds")
            row |= {name: getattr(found, name) for name in names} | {"seconds": round(found.seconds, 1)}
        rows.append(row | {"wrong": faults(case, kernel, found)})
    return rows


@cache
def _record(path: Path | None) -> Record:
    """The record of a process."""
    return Record(path)


def told(row: dict[str, Any]) -> str:
    """A line about a kernel."""
    line = ("WRONG " if row["wrong"] else "") + str(Case(**{field.name: row[field.name] for field in fields(Case)}))
    if "kernel" in row:
        line += f": {row['kernel']} {row['strategy']}, {row['warps']} warps"
    if "registers" in row:
        line += f", {row['registers']} registers, {row['shared']} bytes shared, {row['tensor_core_instructions']}"
        line += f" tensor-core instructions, {row['seconds']} s"
    return "; ".join((line, *row["wrong"]))


def all_results(cases: Sequence[Case], processes: int, run: partial) -> Iterator[dict[str, Any]]:
    """The results of all cases, in order."""
    if processes == 1:
        for case in cases:
            yield from run(case)
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        for rows in pool.map(run, cases):
            yield from rows


def save(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the results as JSON, a kernel a line, with the versions and the commit that they are of."""
    facts = {name: value for name, value in circumstances().items() if name in ("date", "commit", "versions")}
    lines = ",\n".join(json.dumps(row) for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{json.dumps(facts)[:-1]}, "kernels": [\n{lines}\n]}}\n', encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile a part of the product, or all of it, and print a line for each kernel; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="the whole product; left out, the tests' selection of it")
    parser.add_argument("--cells", nargs="+", choices=EVERY_CELL, metavar="CELL")
    parser.add_argument("--widths", nargs="+", type=int, default=WIDTHS)
    parser.add_argument("--dtypes", nargs="+", default=DTYPES, choices=DTYPES)
    parser.add_argument("--targets", nargs="+", default=TARGETS)
    parser.add_argument("--passes", nargs="+", default=PASSES, choices=PASSES)
    parser.add_argument("--rows", nargs="+", type=int, default=(32,), help="of the batch (default: 32)")
    parser.add_argument("--pointwise", action="store_true", help="compile the kernels without a loop too")
    parser.add_argument("--force", help="the strategy of loops; left out, the cost model's choice")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--record", type=Path, help="a file of what was compiled, which is not compiled again")
    parser.add_argument("--out", type=Path, help="a JSON file for the results")
    given = parser.parse_args(arguments)

    cells = given.cells or list(EVERY_CELL if given.all else CELLS)
    cases = every(cells, given.widths, given.dtypes, given.targets, given.passes, given.rows)
    if not given.all and cases == every():
        cases = covering(cases)
    rows = []
    run = partial(results, pointwise=given.pointwise, force=given.force, path=given.record)
    for row in all_results(cases, given.processes, run):
        rows.append(row)
        print(told(row), flush=True)
    bad = sum(bool(row["wrong"]) for row in rows)
    print(f"{len(rows)} kernels, {bad} of them wrong")
    if given.out is not None:
        save(rows, given.out)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
