"""What a program becomes on a GPU: the kernels of a call and of its backward pass, and what no kernel does.

Planning needs no GPU and no Triton. `kernel_report` shows plans.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..compiler.errors import DerivativeError, Source
from ..compiler.ir import Lambda
from ..kernels.kernel import Kernel, Tiles
from ..kernels.request import Request
from . import fused
from .executable import Executable
from .recording import record

__all__ = ["Evaluated", "KernelRecord", "Planned", "plan", "tiles_text"]

_WIDTH = 110  # of an operation's text


@dataclass(frozen=True)
class KernelRecord:
    """One kernel of a plan; kernels of one text in one direction are one record.

    Attributes:
        name: its name in the plan, such as "forward_1_scan"; its function is called `kernel.name`.
        direction: "forward" or "backward".
        kernel: the kernel itself: its text, arguments and launch options.
        why: how its strategy was chosen.
        launches: how often a call launches it.
        where: the places in the user's program whose results it writes.
        planned: the kernel as it stands in its program.
    """

    name: str
    direction: str
    kernel: Kernel
    why: str
    launches: int
    where: tuple[Source, ...]
    planned: fused.PlannedKernel

    @property
    def strategy(self) -> str:
        """ "pointwise", "resident", "streamed" or "cooperative"."""
        return self.kernel.strategy

    @property
    def text(self) -> str:
        """The Triton module that defines it, under comments that say where it comes from."""
        header = "".join(f"# {line}".rstrip() + "\n" for line in self.kernel.header.splitlines())
        return f"{header}\n{self.kernel.source}" if header else self.kernel.source

    @property
    def grid(self) -> str:
        """The axes of a launch's grid, by the sizes of a call: "⌈B/16⌉ × 4"."""
        return " × ".join(tiles_text(axis) for axis in self.kernel.grid)

    @property
    def programs(self) -> str:
        """How many programs a launch has, in words."""
        return "1 program" if self.grid == "1" else f"{self.grid} programs"

    @property
    def rows(self) -> int:
        """How many rows (examples, or their elements) a program computes."""
        return self.kernel.grid[0].block

    def __repr__(self) -> str:
        return f"<{self.name}: {self.strategy}, {self.programs}>"


@dataclass(frozen=True)
class Evaluated:
    """Steps between the launches that the evaluator computes, with torch's own operators.

    Attributes:
        direction: "forward" or "backward".
        operation: what is computed, such as "contract f32[B, T | 64] with f32[64, 256]"; empty where it is the whole
            direction.
        reason: why no kernel does it.
        count: how many steps are alike.
        where: the place in the user's program.
    """

    direction: str
    operation: str
    reason: str
    count: int = 1
    where: Source | None = None


@dataclass(frozen=True)
class Planned:
    """An entry point, planned for a target. Nothing of it is compiled yet.

    Attributes:
        entry: the entry point.
        request: the target, the numerics, the forced strategy.
        numbers: the dtype that it computes in, in words.
        kernels: the kernels, forward ones first, in the order of their first launch.
        evaluated: what no kernel does.
        no_backward: why there is no backward direction; empty where there is one.
    """

    entry: str
    request: Request
    numbers: str
    kernels: tuple[KernelRecord, ...]
    evaluated: tuple[Evaluated, ...]
    no_backward: str = ""

    @property
    def target(self) -> str:
        """The name of the target, such as "sm_90"."""
        return self.request.target

    @property
    def title(self) -> str:
        """The target and the numerics in words."""
        precision = self.request.numerics.precision
        contractions = f", contractions in {precision}" if self.numbers == "f32" else ""
        return f"{self.target} ({self.request.chip.chip}), {self.numbers}{contractions}"

    def labelled(self, label: str) -> Planned:
        """The same plan, with a label in front of the kernels' names."""
        return replace(self, kernels=tuple(replace(each, name=f"{label}_{each.name}") for each in self.kernels))


def plan(
    program: Executable,
    needs: Sequence[bool],
    memory: str,
    request: Request,
    entry: str,
    numbers: str,
    backward: bool = True,
) -> Planned:
    """Plan the kernels of a program and of its adjoint, without compiling them.

    Arguments:
        program: the program as a call runs it.
        needs: per input, whether its gradient is wanted.
        memory: the residual choice.
        request: for what target, with what numerics and strategies.
        entry: what the program is called.
        numbers: the dtype that it computes in, in words.
        backward: whether to plan the backward direction; without it, no residuals are kept either.

    Returns:
        A `Planned`: the kernels of a call on padded lists for which the gradients of all outputs arrive.

    Raises:
        TargetError: the target is not known.
        StrategyError: no strategy holds a step on it, or not the one that is asked for.
    """
    recording = record(program, tuple(n and backward for n in needs), memory)
    programs = {"forward": recording.program}
    no_backward = "not asked for"
    if backward:
        try:
            outputs = range(len(recording.differentiable))
            adjoint = recording.adjoint(tuple(index < recording.outputs for index in outputs))
            no_backward = "no output has a derivative" if adjoint is None or not adjoint.reached else ""
            if adjoint is not None and adjoint.reached:
                programs["backward"] = adjoint.program
        except DerivativeError as error:
            no_backward = error.message
    kernels: list[KernelRecord] = []
    evaluated: list[Evaluated] = []
    for direction, part in programs.items():
        made = _kernels(part, request)
        if isinstance(made, str):
            evaluated.append(Evaluated(direction, "", made))
        else:
            kernels += _records(made.kernels, direction)
            evaluated += _evaluations(made, direction)
    return Planned(entry, request, numbers, tuple(kernels), tuple(evaluated), no_backward)


def _kernels(program: Executable, request: Request) -> fused.Fused | str:
    tables = frozenset(d.name for d in program.graph.sizes if d.input is not None)
    return program.once(("planned", request), lambda: fused.plan(program.graph, request, tables))


def _records(planned: Iterable[fused.PlannedKernel], direction: str) -> list[KernelRecord]:
    found: dict[str, KernelRecord] = {}
    for each in planned:
        kernel = each.kernel
        makers = (each.buffers[a.name].maker for a in kernel.arguments if a.kind == "buffer" and a.written)
        where = tuple(dict.fromkeys(m.equation.source for m in makers if m is not None and m.equation.source))
        known = found.get(kernel.key)
        if known is None:
            name = f"{direction}_{len(found) + 1}_{kernel.name}"
            found[kernel.key] = KernelRecord(name, direction, kernel, each.choice.why, 1, where, each)
        else:
            places = tuple(dict.fromkeys((*known.where, *where)))
            found[kernel.key] = replace(known, launches=known.launches + 1, where=places)
    return list(found.values())


def _evaluations(made: fused.Fused, direction: str) -> list[Evaluated]:
    counted: Counter[Evaluated] = Counter()
    for step in made.steps:
        if isinstance(step, fused.PlannedKernel):
            continue
        if isinstance(step, fused.PlannedLoop):
            launches = len(step.step.kernels)
            operation = f"a loop of {step.size} steps, {launches} launch{'es' * (launches != 1)} each, run by the host"
            where = step.source
        else:
            operation, where = _operation(step.body)
        reason = f"{step.reason}; packed and jagged lists are padded for it" if step.pads else step.reason
        counted[Evaluated(direction, operation, reason, where=where)] += 1
    return [replace(each, count=count) for each, count in counted.items()]


def _operation(body: Lambda) -> tuple[str, Source | None]:
    """The one equation of a body under its maps, with the types that it is given."""
    (equation,) = body.equations
    while equation.op == "map" and len(equation.bodies[0].equations) == 1:
        (equation,) = equation.bodies[0].equations
    given = " with ".join(str(parameter.type) for parameter in body.parameters)
    text = f"{equation.op} {given}".strip()
    return (text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"), equation.source


def tiles_text(tiles: Tiles) -> str:
    """An axis of a grid as text: "⌈B·T/128⌉", "min(⌈B/16⌉, 264)"."""
    if tiles.most is not None:
        return f"min({tiles_text(replace(tiles, most=None))}, {tiles.most})"
    number = math.prod(extent for extent in tiles.extents if isinstance(extent, int))
    sizes = [str(extent) for extent in tiles.extents if not isinstance(extent, int)]
    if not sizes:
        return str(-(-number // tiles.block))
    product = "·".join(([str(number)] if number != 1 else []) + sizes)
    return product if tiles.block == 1 else f"⌈{product}/{tiles.block}⌉"
