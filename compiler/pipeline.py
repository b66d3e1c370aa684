"""The passes, from a traced program to what is planned and run: normalise → precision → adjoint → normalise.

A pass is data: a name, a description, a function. The verifier runs after each where `check` asks for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .adjoint import Pullback, differentiate, residual_types
from .ir import Equation, Graph, Lambda, SizeDeclaration, Value, verify
from .laws import LAWS, Law, Scope
from .laws.law import renamed, with_bodies
from .laws.sharing import common_subexpressions
from .laws.sweep import Sweep
from .precision import with_precision
from .types import DType, ListType, f32

ROUNDS = 50
"""More rounds than this over one body are a defect of a law."""


def _passes(laws: Sequence[Law]) -> list[Callable[[Lambda, Scope], Lambda]]:
    """The laws as passes over a body; neighbours about single equations share one, common subexpressions too."""
    passes: list[Callable[[Lambda, Scope], Lambda]] = []
    waiting: list[Law] = []

    def sweep(single: tuple[Law, ...], share: str | None) -> Callable[[Lambda, Scope], Lambda]:
        return lambda body, scope: Sweep(body, scope, single, share).run()

    for law in laws:
        if law.rewrite is not None:
            waiting.append(law)
        elif law is common_subexpressions:
            passes.append(sweep(tuple(waiting), law.name))
            waiting = []
        else:
            if waiting:
                passes.append(sweep(tuple(waiting), None))
                waiting = []
            passes.append(law.apply)
    if waiting:
        passes.append(sweep(tuple(waiting), None))
    return passes


class Normaliser:
    """Applies laws to a body and the bodies in it until none applies.

    Bodies are done from the inside out. A body is gone over in rounds; a round applies every law once, all over the
    body. A body in normal form is remembered, so that a change in one place makes only the bodies around it be looked
    at again.

    Arguments:
        laws: in the order of a round.
    """

    def __init__(self, laws: Sequence[Law] = LAWS):
        self.passes = _passes(laws)
        self.done: dict[Lambda, Scope] = {}

    def normalise(self, body: Lambda, scope: Scope) -> Lambda:
        """The normal form of a body."""
        if body in self.done:
            return body
        for _ in range(ROUNDS):
            before = body
            scope.refusals.clear()
            body = self._inside(body, scope)
            here = scope.binding(body.equations)
            for apply in self.passes:
                body = apply(body, here)
            if body is before:
                self.done[body] = here
                return body
        raise AssertionError(f"the laws did not come to an end: {[str(f) for f in scope.firings[-10:]]}")

    def _inside(self, body: Lambda, scope: Scope) -> Lambda:
        """The body with every body in it in normal form."""
        here = scope.binding(body.equations)
        out: list[Equation] = []
        changed = False
        for equation in body.equations:
            if equation.bodies and not all(inner in self.done for inner in equation.bodies):
                bodies = tuple(self.normalise(inner, here.inside(equation)) for inner in equation.bodies)
                if bodies != equation.bodies:
                    equation, changed = with_bodies(equation, bodies), True
            out.append(equation)
        return Lambda(body.parameters, tuple(out), body.results) if changed else body

    def refusals(self, body: Lambda) -> dict[Any, None]:
        """Why laws did not apply, to a body in normal form and the bodies in it."""
        found = dict(self.done[body].refusals)
        for equation in body.equations:
            for inner in equation.bodies:
                found.update(self.refusals(inner))
        return found


def normalise(graph: Graph, laws: Sequence[Law] = LAWS) -> Graph:
    """A graph in normal form: no law applies to it.

    It ends: each law about loops makes the tuple of `laws.measure` smaller (a test holds every law to that), and no
    law undoes another. The result's notes hold a `Firing` for each application of a law and a `Refusal` for each that
    was in question and did not apply.

    Arguments:
        graph: a program or an adjoint.
        laws: which laws (all of them when left out).

    Example:
        >>> normalise(graph).notes
        [Firing(law='input hoist', …), …]
    """
    scope = Scope(over={d.name: d.over for d in graph.sizes})
    normaliser = Normaliser(laws)
    body = normaliser.normalise(graph.body, scope)
    notes = [*graph.notes, *scope.firings, *normaliser.refusals(body)]
    return replace(graph, body=body, notes=notes)


# --- the whole way ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """What `compile_graph` was asked for; see its arguments."""

    needs: tuple[bool, ...]
    useful: tuple[bool, ...] | None
    memory: str
    float_dtype: DType | None
    operand_dtype: DType | None
    boundary: bool
    default: DType


@dataclass(frozen=True)
class Compiled:
    """A program ready to be planned.

    Attributes:
        forward: inputs → outputs, then the residuals.
        backward: kept inputs, residuals, cotangents of the useful outputs → cotangents of the reached inputs; None
            where no input needs one.
        pullback: which inputs are kept, which outputs have a cotangent, which inputs are reached, how many residuals.
        seconds: how long each pass took (its verification not counted).
    """

    forward: Graph
    backward: Graph | None = None
    pullback: Pullback | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def notes(self) -> list[Any]:
        """What the passes reported on both graphs."""
        return [*self.forward.notes, *(self.backward.notes if self.backward is not None else ())]

    @property
    def residual_types(self) -> tuple[ListType, ...]:
        """The types of what is kept from the forward for the backward pass."""
        return () if self.pullback is None else residual_types(self.pullback)


@dataclass(frozen=True)
class Pass:
    """A step of compilation.

    Attributes:
        name: what reports and the verifier call it.
        description: what it does, in a line.
        run: ``(compiled, settings) -> compiled``.
    """

    name: str
    description: str
    run: Callable[[Compiled, Settings], Compiled]


def _normalise(compiled: Compiled, settings: Settings) -> Compiled:
    forward = normalise(compiled.forward)
    if compiled.backward is None or compiled.pullback is None:
        return replace(compiled, forward=forward)
    backward = normalise(compiled.backward)
    pullback = replace(compiled.pullback, forward=forward.body, backward=backward.body)
    return replace(compiled, forward=forward, backward=backward, pullback=pullback)


def _precision(compiled: Compiled, settings: Settings) -> Compiled:
    compute = settings.float_dtype or settings.default
    forward = with_precision(compiled.forward, compute, settings.operand_dtype, settings.boundary, settings.default)
    return replace(compiled, forward=forward)


def _differentiate(compiled: Compiled, settings: Settings) -> Compiled:
    if not any(settings.needs):
        return compiled
    forward, backward, pullback = differentiate(compiled.forward, settings.needs, settings.useful, settings.memory)
    forward.notes.extend(compiled.forward.notes)
    return replace(compiled, forward=forward, backward=backward, pullback=pullback)


def _economise(compiled: Compiled, settings: Settings) -> Compiled:
    """Drop residuals and kept inputs that the backward graph does not read; keep one of equal residuals, and no
    residual that is an input. A residual that is an output too stays one: both are the same buffer."""
    forward, backward, pullback = compiled.forward, compiled.backward, compiled.pullback
    if backward is None or pullback is None:
        return compiled
    outputs = len(forward.body.results) - pullback.residuals
    residuals = forward.body.results[outputs:]
    parameters = backward.body.parameters
    kept_parameters = dict(zip(pullback.kept, parameters, strict=False))
    residual_parameters = parameters[len(pullback.kept) : len(pullback.kept) + pullback.residuals]
    arriving = parameters[len(pullback.kept) + pullback.residuals :]
    inputs = {v: i for i, v in enumerate(forward.body.parameters)}
    pinned = {parameters[d.input] for d in backward.sizes if d.input is not None}

    table: dict[Value, Value] = {}
    first: dict[Value, Value] = {}
    for value, parameter in zip(residuals, residual_parameters, strict=True):
        if parameter in pinned:
            continue
        if value in inputs:
            table[parameter] = kept_parameters.setdefault(inputs[value], parameter)
        else:
            table[parameter] = first.setdefault(value, parameter)
    equations = tuple(renamed(e, table) for e in backward.body.equations)
    results = tuple(table.get(v, v) for v in backward.body.results)
    read = {v for e in equations for v in e.inputs} | set(results) | pinned
    kept = [(i, p) for i, p in sorted(kept_parameters.items()) if p in read]
    chosen = [
        (v, p)
        for v, p in zip(residuals, residual_parameters, strict=True)
        if p in read and table.get(p, p) is p and not (v in inputs and p not in pinned)
    ]
    if len(kept) == len(pullback.kept) and len(chosen) == pullback.residuals:
        return compiled
    body = Lambda((*(p for _, p in kept), *(p for _, p in chosen), *arriving), equations, results)
    place = {p: i for i, p in enumerate(body.parameters)}
    sizes = tuple(
        d if d.input is None else SizeDeclaration(d.name, d.over, place[parameters[d.input]]) for d in backward.sizes
    )
    names = tuple(f"residual_{i}" for i in range(len(chosen)))
    backward = replace(
        backward,
        body=body,
        input_names=(
            *(forward.input_names[i] for i, _ in kept),
            *names,
            *backward.input_names[len(parameters) - len(arriving) :],
        ),
        sizes=sizes,
    )
    forward_body = Lambda(
        forward.body.parameters, forward.body.equations, (*forward.body.results[:outputs], *(v for v, _ in chosen))
    )
    forward = replace(forward, body=forward_body, output_names=(*forward.output_names[:outputs], *names))
    pullback = replace(
        pullback, forward=forward_body, backward=body, residuals=len(chosen), kept=tuple(i for i, _ in kept)
    )
    # What is no residual any more need not be computed, and what became one parameter may be computed once.
    return _normalise(replace(compiled, forward=forward, backward=backward, pullback=pullback), settings)


PASSES = (
    Pass("normalise", "apply the laws to the program", _normalise),
    Pass("precision", "choose the dtypes that it computes in", _precision),
    Pass("adjoint", "choose the residuals and split it into forward and backward", _differentiate),
    Pass("normalise both", "apply the laws to the forward and the backward graph", _normalise),
    Pass("economise residuals", "keep each residual once, and none that is not read", _economise),
)


def compile_graph(
    graph: Graph,
    needs: Sequence[bool],
    useful: Sequence[bool] | None = None,
    memory: str = "auto",
    float_dtype: DType | None = None,
    operand_dtype: DType | None = None,
    boundary: bool = False,
    default: DType = f32,
    check: bool = False,
) -> Compiled:
    """The optimised forward and backward graphs of a program.

    Arguments:
        graph: the program, as traced.
        needs: per input, whether its cotangent is wanted.
        useful: per output, whether a cotangent can arrive (all float outputs when left out).
        memory: the residual choice: "save", "recompute" or "auto".
        float_dtype: the dtype to compute in in place of `default` (None: `default`).
        operand_dtype: the dtype that contractions round their operands to (None: no rounding).
        boundary: whether inputs and outputs are of `operand_dtype`.
        default: the float dtype that the program was written in.
        check: whether to verify the graphs after each pass.

    Returns:
        A `Compiled`.

    Raises:
        DerivativeError: the program holds an operation without a derivative on the way.
        VerificationError: with `check`, a pass made an ill-formed graph.

    Example:
        >>> compiled = compile_graph(graph, [True, False])
        >>> compiled.forward, compiled.backward, compiled.pullback.reached
    """
    settings = Settings(
        tuple(needs), None if useful is None else tuple(useful), memory, float_dtype, operand_dtype, boundary, default
    )
    compiled = Compiled(graph)
    for step in PASSES:
        start = time.perf_counter()
        compiled = step.run(compiled, settings)
        compiled.seconds[step.name] = time.perf_counter() - start
        if check:
            for made in (compiled.forward, compiled.backward):
                if made is not None:
                    verify(made, step.name)
    return compiled
