"""Plans of kernels for a person to read: what is planned and why, what a launch costs, what a kernel takes of a GPU.

Nothing here needs a GPU; what `resources` finds needs Triton.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from ..compiler.sizes import Size
from ..kernels.kernel import Kernel, Tiles
from ..kernels.request import Request
from ..kernels.resources import Resources, compile_many, violations
from . import fused
from .kernel_plan import Evaluated, KernelRecord, Planned, tiles_text
from .report import place, table, times

__all__ = ["as_json", "faults", "formula", "lines", "resource_table", "resources", "settled", "texts"]

DIRECTIONS = ("forward", "backward")
_PLACES = 4  # of the user's program, shown for a kernel


def texts(planned: Planned) -> str:
    """The Triton text of every kernel of a plan, each under its name."""
    parts = []
    for each in planned.kernels:
        parts.append(f"# {each.name}: {each.strategy}, {each.programs}{_often([each])}\n\n{each.text.strip()}\n")
    return "\n\n".join(parts)


def lines(planned: Planned, brief: bool = False) -> list[str]:
    """The part of `explain` about kernels.

    Arguments:
        planned: the plan.
        brief: leave out the places in the user's program, the reasons and the account of each kernel.
    """
    found = [f"kernels, as planned for {planned.title}"]
    for direction in DIRECTIONS:
        if direction == "backward" and planned.no_backward:
            found.append(f"  backward: there is none: {planned.no_backward}")
            continue
        launches = sum(each.launches for each in planned.kernels if each.direction == direction)
        steps = sum(each.count for each in planned.evaluated if each.direction == direction and each.operation)
        between = f"; {steps} step{'s' * (steps != 1)} evaluated by torch" if steps else ""
        found.append(f"  {direction}: {launches} launch{'es' * (launches != 1)}{between}")
        alike: dict[tuple[str, ...], list[KernelRecord]] = {}
        for each in planned.kernels:
            if each.direction == direction:
                alike.setdefault(tuple(_about(each, brief)), []).append(each)
        for (first, *more), records in alike.items():
            found += [f"    {_names(records)}: {first}{_often(records)}", *more]
        for step in planned.evaluated:
            if step.direction == direction:
                found += _evaluated_lines(step, brief)
    return found


def _names(records: Sequence[KernelRecord]) -> str:
    return records[0].name + (f" and {len(records) - 1} alike" if len(records) > 1 else "")


def _often(records: Sequence[KernelRecord]) -> str:
    launches = sum(each.launches for each in records)
    return f", {launches} launches" if launches > 1 else ""


def _about(record: KernelRecord, brief: bool) -> list[str]:
    """What is said of a kernel, after its name and in the lines below it."""
    found = [f"{record.strategy}, {record.rows} row{'s' * (record.rows != 1)} a program, {record.programs}"]
    if brief:
        return found
    found += [f"      why: {record.why}"] if record.why else []
    account = record.kernel.account
    if account.read or account.written:
        found.append(f"      a launch reads {formula(account.read)} bytes and writes {formula(account.written)} bytes")
        barriers = f"; a program passes {formula(account.barriers)} barriers" if account.barriers else ""
        found.append(f"      it does {formula(account.operations)} operations{barriers}")
    if not brief:
        found += [f"      {place(source)}" for source in record.where[:_PLACES]]
        if len(record.where) > _PLACES:
            found.append(f"      and {len(record.where) - _PLACES} other places")
    return found


def _evaluated_lines(step: Evaluated, brief: bool) -> list[str]:
    if not step.operation:
        return [f"    all of it: {step.reason}"]
    found = [f"    {times(step.count)}{step.operation}: {step.reason}"]
    return found if brief or step.where is None else [*found, f"      {place(step.where)}"]


def formula(terms: Sequence[Sequence[int | Size | Tiles]]) -> str:
    """A sum of products of numbers and sizes as text, numbers multiplied and like terms added.

    Example:
        >>> formula(((4, Named("B"), 64), (128, 64, 4)))
        '256 · B + 32,768'
    """
    sums: dict[tuple[str, ...], int] = {}
    for term in terms:
        sizes = tuple(sorted(_factor(factor) for factor in term if not isinstance(factor, int)))
        sums[sizes] = sums.get(sizes, 0) + math.prod(factor for factor in term if isinstance(factor, int))
    shown = sorted(sums.items(), key=lambda item: -len(item[0]))
    products = ((*(() if number == 1 and sizes else (f"{number:,}",)), *sizes) for sizes, number in shown if number)
    return " + ".join(map(" · ".join, products)) or "0"


def _factor(factor: Size | Tiles) -> str:
    return tiles_text(factor) if isinstance(factor, Tiles) else str(factor)


# --- resources --------------------------------------------------------------------------------------------------------


def resources(plans: Iterable[Planned], patience: float = 600.0) -> dict[str, Resources | str]:
    """What the kernels of plans for one target take of it, found by compiling each text once.

    Arguments:
        plans: plans for one target.
        patience: seconds after which the compilation of one kernel is stopped.

    Returns:
        By `Kernel.key`, the resources; where a kernel does not compile, the compiler's words.

    Raises:
        MissingTriton: Triton is not installed.
    """
    plans = list(plans)
    kernels = {each.kernel.key: each.kernel for planned in plans for each in planned.kernels}
    if not kernels:
        return {}
    found = compile_many(kernels.values(), {planned.target for planned in plans}, patience=patience)
    return {kernel.key: answer for (kernel, _), answer in found.items()}


def settled(plans: Iterable[Planned], found: dict[str, Resources | str], patience: float = 600.0) -> list[Planned]:
    """The plans with leaner kernels in the place of those that spill registers, as the first call on a device has them.

    Arguments:
        plans: plans for one target.
        found: what `resources` gave for them; what the leaner kernels take is added.
        patience: seconds after which the compilation of one kernel is stopped.
    """

    def settle(record: KernelRecord, target: str) -> KernelRecord:
        def spilled(kernel: Kernel) -> int:
            if kernel.key not in found:
                found[kernel.key] = compile_many([kernel], [target], 1, patience)[kernel, target]
            answer = found[kernel.key]
            # One that does not compile is shown as it is.
            return answer.spilled if isinstance(answer, Resources) else 0

        planned = fused.settled(record.planned, spilled)
        return replace(record, kernel=planned.kernel, why=planned.choice.why, planned=planned)

    return [replace(p, kernels=tuple(settle(each, p.target) for each in p.kernels)) for p in plans]


def faults(record: KernelRecord, request: Request, found: Mapping[str, Resources | str]) -> list[str]:
    """What is wrong with a kernel on its target: it does not compile, or is over a limit; empty where it fits."""
    answer = found[record.kernel.key]
    if isinstance(answer, str):
        return [f"does not compile: {_last_line(answer)}"]
    return violations(answer, request.chip)


def _last_line(text: str) -> str:
    """What a compiler said in the end: the error itself, after the trace of where it arose."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")


def resource_table(plans: Sequence[Planned], found: Mapping[str, Resources | str]) -> str:
    """What is planned, what each kernel takes of the target and what is wrong with it, and what no kernel does.

    Arguments:
        plans: plans for one target.
        found: what `resources` gave for them.
    """
    head = ("kernel", "strategy", "grid", "launches", "warps", "registers", "shared", "spilled", "tensor cores", "fits")
    rows: list[tuple[str, ...]] = []
    why: dict[str, list[str]] = {}
    first: dict[str, str] = {}
    wrong: list[str] = []
    for planned in plans:
        for each in planned.kernels:
            answer, taken = found[each.kernel.key], ("–",) * 4
            if isinstance(answer, Resources):
                numbers = (answer.registers, answer.shared, answer.spilled, answer.tensor_core_instructions)
                taken = tuple(f"{number:,}" for number in numbers)
            faulty = faults(each, planned.request, found)
            options = (each.grid, str(each.launches), str(each.kernel.warps))
            rows.append((each.name, each.strategy, *options, *taken, "no" if faulty else "yes"))
            wrong += [f"  {each.name}: {fault}" for fault in faulty]
            why.setdefault(each.why, []).append(each.name)
            first.setdefault(each.kernel.key, each.name)
    parts = []
    if rows:
        units = "registers and bytes spilled of a thread; bytes of shared memory of a program; tensor-core instructions"
        parts.append(f"{table(head, rows)}\n\n{units}")
        parts += ["\n".join(["over the limits, or not compiled", *wrong])] if wrong else []
        parts.append("\n".join(["why", *(f"  {reason}\n    {', '.join(names)}" for reason, names in why.items())]))
        same = [
            f"  {each.name} is {first[each.kernel.key]}"
            for planned in plans
            for each in planned.kernels
            if first[each.kernel.key] != each.name
        ]
        parts += ["\n".join(["of one text", *same])] if same else []
    for planned in plans:
        for direction in DIRECTIONS:
            steps = [line for s in planned.evaluated if s.direction == direction for line in _evaluated_lines(s, False)]
            if steps:
                parts.append("\n".join([f"{planned.entry}, {direction}: by torch's own operators", *steps]))
    return "\n\n".join(parts)


def as_json(plans: Sequence[Planned], found: Mapping[str, Resources | str], files: Mapping[str, str]) -> str:
    """The same as `resource_table`, for programs to read.

    Arguments:
        plans, found: as there.
        files: by `Kernel.key`, the file that its text was written to.
    """
    kernels: list[dict[str, Any]] = []
    evaluated: list[dict[str, Any]] = []
    for planned in plans:
        for each in planned.kernels:
            answer, kernel = found[each.kernel.key], each.kernel
            kernels.append(
                {
                    "entry": planned.entry,
                    "name": each.name,
                    "direction": each.direction,
                    "file": files[kernel.key],
                    "function": kernel.name,
                    "strategy": each.strategy,
                    "why": each.why,
                    "launches": each.launches,
                    "grid": [tiles_text(axis) for axis in kernel.grid],
                    "warps": kernel.warps,
                    "stages": kernel.stages,
                    "cooperative": kernel.cooperative,
                    "arguments": [f"{a.name}: {a.dtype}" for a in kernel.arguments],
                    "account": {
                        "bytes read": formula(kernel.account.read),
                        "bytes written": formula(kernel.account.written),
                        "operations": formula(kernel.account.operations),
                        "barriers of a program": formula(kernel.account.barriers),
                    },
                    "where": [f"{source.file}:{source.line}" for source in each.where],
                    "resources": answer if isinstance(answer, str) else asdict(answer),
                    "faults": faults(each, planned.request, found),
                }
            )
        for step in planned.evaluated:
            evaluated.append(
                {
                    "entry": planned.entry,
                    "direction": step.direction,
                    "operation": step.operation or "everything",
                    "reason": step.reason,
                    "count": step.count,
                }
            )
    request = plans[0].request
    about = {
        "target": request.target,
        "chip": request.chip.chip,
        "numbers": plans[0].numbers,
        "precision": request.numerics.precision,
        "kernels": kernels,
        "evaluated": evaluated,
    }
    return json.dumps(about, indent=2, ensure_ascii=False) + "\n"
