"""The kernels of recurrences, compiled ahead of time for GPUs that need not be there: nothing spills, no limit of a
target is passed, and products run on tensor cores where the dtype has them.

The tests take a selection in which every two values of the factors below meet at least once. As a command the file
compiles the whole product, or a part of it::

    python tests/test_kernels_ahead_of_time.py --all
    python tests/test_kernels_ahead_of_time.py --cells lstm gru --widths 128 1024 --targets sm_90 --dtypes bf16
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from itertools import combinations, product
from pathlib import Path
from zlib import crc32

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = "tests"

from foldfuse.compiler.pipeline import Compiled
from foldfuse.kernels.emit import Numerics
from foldfuse.kernels.kernel import Kernel
from foldfuse.kernels.request import Request, typical_rows
from foldfuse.kernels.resources import Resources, compile_many, violations
from foldfuse.kernels.targets import target
from foldfuse.runtime import fused

from .ahead_of_time import TARGETS
from .legs import outside_leg_b
from .test_kernel_planning import CELLS, graphs

WIDTHS = (16, 24, 64, 100, 128, 256, 1024)
DTYPES = ("bf16", "tf32", "f32")
PASSES = ("forward", "backward")
PRODUCTS = {"lstm": 1, "gru": 1, "layer_norm_lstm": 1, "heads": 4, "gru_first": 1, "attention_decoder": 1}
"""The cells whose steps multiply by weights, and into how many parts the width of their state is divided."""
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
    return graphs(*CELLS[cell](width), operands="bf16" if half else None)


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


def compiled(kernels: Sequence[fused.PlannedKernel], name: str, processes: int) -> list[tuple[Kernel, Resources | str]]:
    """The kernels as a device would have them, those that spill planned again, and what each takes."""
    found = compile_many([each.kernel for each in kernels], [name], processes)

    def spilled(kernel: Kernel) -> int:
        if (kernel, name) not in found:
            found.update(compile_many([kernel], [name], 1))
        answer = found[kernel, name]
        return answer.spilled if isinstance(answer, Resources) else 0

    settled = [fused.settled(each, spilled).kernel for each in kernels]
    return [(kernel, found[kernel, name]) for kernel in settled]


def faults(case: Case, kernel: Kernel, found: Resources | str) -> list[str]:
    """What is wrong with a kernel as it was compiled."""
    if isinstance(found, str):
        return [f"does not compile: {found}"]
    wrong = violations(found, target(case.target))
    # A product of a tensor core has sixteen rows, columns and depth or more. AMD's rules are others.
    wide = case.cell in PRODUCTS and case.width // PRODUCTS[case.cell] >= 16
    if wide and kernel.name.startswith("scan") and case.dtype != "f32" and case.target != "gfx942":
        if not found.tensor_core_instructions:
            wrong.append("no tensor core is used")
    return wrong


# --- tests ------------------------------------------------------------------------------------------------------------


def test_the_selection_meets_every_pair() -> None:
    chosen = covering(every())
    for left, right in combinations(fields(Case), 2):
        met = {(getattr(case, left.name), getattr(case, right.name)) for case in chosen}
        assert met == {(getattr(case, left.name), getattr(case, right.name)) for case in every()}
    # 8 cells meet 7 widths.
    assert 56 <= len(chosen) <= 60


@outside_leg_b
def test_the_kernels_of_recurrences_fit() -> None:
    chosen = covering(every())
    wrong = []
    for name in TARGETS:
        mine = [case for case in chosen if case.target == name]
        for case, made in zip(mine, compiled([loop_of(planned(case)) for case in mine], name, 2)):
            wrong += [f"{case}: {fault}" for fault in faults(case, *made)]
    assert not wrong, "\n".join(wrong)


# --- the whole product ------------------------------------------------------------------------------------------------


def rows(cases: Sequence[Case], pointwise: bool, force: str | None, processes: int) -> Iterator[tuple[str, bool]]:
    """A line for each kernel of the cases, and whether something is wrong with it, a cell and target at a time."""
    groups: dict[tuple[str, int, str], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.cell, case.width, case.target), []).append(case)
    seen: set[tuple[str, str]] = set()
    for (_, _, name), mine in groups.items():
        kernels: list[tuple[Case, fused.PlannedKernel]] = []
        for case in mine:
            try:
                made = planned(case, force)
            except Exception as error:
                yield f"{case}: {type(error).__name__}: {error}", True
                continue
            kernels += [(case, each) for each in made if pointwise or each.kernel.name.startswith("scan")]
        kernels = [(case, each) for case, each in kernels if (each.kernel.key, name) not in seen]
        seen.update((each.kernel.key, name) for _, each in kernels)
        answers = compiled([each for _, each in kernels], name, processes)
        for (case, _), (kernel, resources) in zip(kernels, answers):
            wrong = faults(case, kernel, resources)
            line = f"{case}: {kernel.name} {kernel.strategy}, {kernel.warps} warps"
            if isinstance(resources, Resources):
                line += (
                    f", {resources.registers} registers, {resources.shared} bytes shared,"
                    f" {resources.tensor_core_instructions} tensor-core instructions, {resources.seconds:.1f} s"
                )
            yield "; ".join((line, *wrong)), bool(wrong)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile a part of the product, or all of it, and print a line for each kernel; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="the whole product; left out, the tests' selection of it")
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=CELLS, metavar="CELL")
    parser.add_argument("--widths", nargs="+", type=int, default=WIDTHS)
    parser.add_argument("--dtypes", nargs="+", default=DTYPES, choices=DTYPES)
    parser.add_argument("--targets", nargs="+", default=TARGETS)
    parser.add_argument("--passes", nargs="+", default=PASSES, choices=PASSES)
    parser.add_argument("--rows", nargs="+", type=int, default=(32,), help="of the batch (default: 32)")
    parser.add_argument("--pointwise", action="store_true", help="compile the kernels without a loop too")
    parser.add_argument("--force", help="the strategy of loops; left out, the cost model's choice")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args(arguments)

    cases = every(given.cells, given.widths, given.dtypes, given.targets, given.passes, given.rows)
    if not given.all and cases == every():
        cases = covering(cases)
    count = bad = 0
    for line, wrong in rows(cases, given.pointwise, given.force, given.processes):
        count, bad = count + 1, bad + wrong
        print(("WRONG " if wrong else "") + line, flush=True)
    print(f"{count} kernels, {bad} of them wrong")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
