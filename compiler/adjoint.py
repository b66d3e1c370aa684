"""Reverse mode, Graph → Graph.

`vjp` splits a body into a forward body, whose further results are residuals, and a backward body that takes them.
Residuals
are outputs like any other: they accept cotangents, so that the backward graph is differentiated by the same transform.
Which values are kept is a choice (`memory`); what is not kept is computed again in the backward body.

The scheme is that of Griewank & Walther, *Evaluating Derivatives* (2008), ch. 3 and 12, on a nest of combinators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .builder import Builder
from .checkpoint import for_memory
from .errors import DerivativeError
from .ir import (
    Equation,
    Graph,
    Lambda,
    SizeDeclaration,
    Value,
    live_equations,
    mentioned_sizes,
    sub_equations,
    substitute,
)
from .records import RECORDS, Combinator
from .residuals import kept as kept_values
from .types import ListType

MEMORY = ("save", "recompute", "auto")
_LOOPS = ("scan", "reduce_with", "tree_up", "tree_down")
_MOVES = ("iota", "length", "unstack", "stack", "split", "join", "view", "element", "resize")
_KEPT_COSTS = {"save": ("elementwise", "reduce", "contract"), "auto": ("contract",), "recompute": ()}


@dataclass(frozen=True)
class Pullback:
    """A body split for differentiation.

    Attributes:
        forward: parameters → results, then `residuals` residuals.
        residuals: how many.
        backward: (kept parameters, residuals, cotangents of the useful results) → cotangents of the reached parameters.
        kept: indices of the parameters that the backward body reads.
        useful: indices of the results that have a cotangent.
        reached: indices of the parameters whose cotangent is not zero.
        counts: sizes that the forward body determines and its residuals' types name, each with the index of the result
            that
            holds it: a combinator over the body hands them on.
    """

    forward: Lambda
    residuals: int
    backward: Lambda
    kept: tuple[int, ...]
    useful: tuple[int, ...]
    reached: tuple[int, ...]
    counts: tuple[tuple[str, int], ...] = ()

    def binds(self, equation: Equation) -> tuple[tuple[str, int], ...]:
        """What an equation binds, with the residuals' sizes, where outputs stand as the body's results do."""
        own = {name for name, _ in equation.binds}
        return (*equation.binds, *((name, index) for name, index in self.counts if name not in own))


@dataclass(frozen=True)
class Application:
    """An equation as it stands in the body being built: what an adjoint rule reads."""

    op: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    equation: Equation

    attributes = property(lambda self: self.equation.attributes)
    bodies = property(lambda self: self.equation.bodies)
    binds = property(lambda self: self.equation.binds)
    source = property(lambda self: self.equation.source)
    types = property(lambda self: tuple(v.type for v in self.inputs))

    @property
    def output(self) -> Value:
        (output,) = self.outputs
        return output


def _passes(equation: Equation) -> bool:
    """Whether a derivative can pass through an equation."""
    record = RECORDS[equation.op]
    if isinstance(record, Combinator):
        return record.augment is not None
    return equation.op != "stop_gradient" and (record.adjoint is not None or record.refuses is not None)


def _float(value: Value) -> bool:
    return value.type.dtype.is_float


class Differentiator:
    """Makes pullbacks under one residual choice.

    Arguments:
        memory: "save" keeps every value that the backward pass reads; "recompute" keeps loop carries only; "auto" keeps
            carries and the results of contractions, and recomputes elementwise values.

    Raises:
        ValueError: another choice.
    """

    def __init__(self, memory: str = "auto"):
        if memory not in MEMORY:
            raise ValueError(f"memory is one of {', '.join(map(repr, MEMORY))}; got {memory!r}")
        self.memory = memory

    # --- dependence ---------------------------------------------------------------------------------------------------

    def _active(self, body: Lambda, needs: Sequence[bool]) -> set[Value]:
        active = {p for p, need in zip(body.parameters, needs, strict=True) if need and _float(p)}
        for equation in body.equations:
            if any(v in active for v in equation.inputs) and _passes(equation):
                active.update(v for v in equation.outputs if _float(v))
        return active

    def active_results(self, body: Lambda, needs: Sequence[bool]) -> list[bool]:
        """Which results depend on the parameters that take part in differentiation."""
        active = self._active(body, needs)
        return [v in active for v in body.results]

    def _useful(self, body: Lambda, active: set[Value], useful: Sequence[bool]) -> set[Value]:
        reached = {v for v, use in zip(body.results, useful, strict=True) if use and v in active}
        for equation in reversed(body.equations):
            if any(v in reached for v in equation.outputs):
                reached.update(v for v in equation.inputs if v in active)
        return reached

    def influential_parameters(self, body: Lambda, needs: Sequence[bool], useful: Sequence[bool]) -> list[bool]:
        """Which parameters the useful results depend on differentiably."""
        reached = self._useful(body, self._active(body, needs), useful)
        return [p in reached for p in body.parameters]

    # --- the transform ------------------------------------------------------------------------------------------------

    def vjp(self, body: Lambda, needs: Sequence[bool], useful: Sequence[bool], save: bool = True) -> Pullback:
        """Split a body.

        Arguments:
            body: what is differentiated.
            needs: per parameter, whether its cotangent is wanted.
            useful: per result, whether it can have a cotangent.
            save: whether there may be residuals; without them the backward body computes everything again.
        """
        active = self._active(body, needs)
        reaching = self._useful(body, active, useful)
        b = Builder()
        parameters = [b.parameter(p.type, p.name) for p in body.parameters]
        table = dict(zip(body.parameters, parameters, strict=True))
        steps = self._forward(b, body, table, active, reaching)
        forward_count = len(b.equations)
        results = tuple(table[v] for v in body.results)

        taken = tuple(j for j, v in enumerate(body.results) if useful[j] and v in active)
        arriving = [Value(results[j].type, f"ct_{results[j].name}" if results[j].name else "ct") for j in taken]
        b.defined.update(arriving)
        cts: dict[Value, Value | None] = {}
        for j, ct in zip(taken, arriving, strict=True):
            cts[results[j]] = b.add(cts.get(results[j]), ct)
        allowed = {table[v] for v in active}
        _reverse(b, steps, cts, allowed)

        reached = tuple(i for i, p in enumerate(parameters) if needs[i] and cts.get(p) is not None)
        produced = [cts[parameters[i]] for i in reached]
        forward, backward = b.equations[:forward_count], b.equations[forward_count:]
        read = [v for e in live_equations(backward, produced) for v in e.inputs]
        saved = kept_values(forward, [*read, *produced], self._again) if save else []
        # The backward body speaks of sizes that the forward body determines: their counts are kept, or made again.
        makers = {name: e.outputs[i] for e in forward for name, i in e.binds}
        available = set(parameters) | set(saved) | set(arriving)
        equations = _needed(b.equations, produced, available)
        named = mentioned_sizes(equations) | {n for v in saved for size in v.type.axes for n in size.names()}
        wanted = {name: v for name, v in makers.items() if name in named}
        counts: tuple[tuple[str, int], ...] = ()
        if save:
            saved += [v for v in dict.fromkeys(wanted.values()) if v not in saved]
            counts = tuple((name, len(results) + saved.index(v)) for name, v in wanted.items())
            equations = _needed(b.equations, produced, available | set(saved))
        elif wanted:
            equations = _needed(b.equations, [*produced, *wanted.values()], available)
        read = {v for e in equations for v in e.inputs} | set(produced)
        kept = tuple(i for i, p in enumerate(parameters) if p in read)
        backward_body = Lambda((*(parameters[i] for i in kept), *saved, *arriving), tuple(equations), tuple(produced))
        return Pullback(
            Lambda(tuple(parameters), tuple(forward), (*results, *saved)),
            len(saved),
            substitute(backward_body),
            kept,
            taken,
            reached,
            counts,
        )

    def _forward(
        self, b: Builder, body: Lambda, table: dict[Value, Value], active: set[Value], reaching: set[Value]
    ) -> list:
        """Emit the equations, combinators with their residuals; what the reverse sweep will go back over."""
        steps = []
        for equation in body.equations:
            inputs = tuple(table[v] for v in equation.inputs)
            differentiated = any(v in reaching for v in equation.outputs)
            record = RECORDS[equation.op]
            b.source = equation.source
            if differentiated and isinstance(record, Combinator):
                application = Application(equation.op, inputs, (), equation)
                needs = [v in active for v in equation.inputs]
                outputs, pull = record.augment(self, b, application, needs, [v in reaching for v in equation.outputs])
                for old, new in zip(equation.outputs, outputs, strict=True):
                    new.name = old.name
                steps.append((outputs, inputs, pull, equation))
            else:
                outputs = tuple(Value(v.type, v.name) for v in equation.outputs)
                b.equations.append(replace(equation, inputs=inputs, outputs=outputs))
                b.defined.update(outputs)
                if differentiated:
                    application = Application(equation.op, inputs, outputs, equation)
                    steps.append((outputs, inputs, _primitive_pull(record, application), equation))
            table.update(zip(equation.outputs, outputs, strict=True))
        return steps

    def _again(self, equation: Equation) -> bool:
        """Whether the residual choice lets an equation be computed again in the backward body."""
        record = RECORDS[equation.op]
        if not isinstance(record, Combinator):
            return record.cost not in _KEPT_COSTS[self.memory]
        if equation.op in _MOVES:
            return True
        if equation.op == "map" and self.memory != "save":
            return all(self._again(e) for e in sub_equations(equation.bodies[0]))
        if self.memory != "recompute":
            return False
        return equation.op not in _LOOPS and not any(e.op in _LOOPS for b in equation.bodies for e in sub_equations(b))


def _primitive_pull(record, application: Application):
    def pull(b: Builder, cts: Sequence[Value | None]) -> Sequence[Value | None]:
        if record.refuses is not None:
            raise DerivativeError(f"{application.op} has no derivative: {record.refuses}", application.source)
        return record.adjoint(b, application, cts)

    return pull


def _reverse(b: Builder, steps: Sequence[tuple], cts: dict[Value, Value | None], allowed: set[Value]) -> None:
    """Go back over the equations, adding to `cts`."""
    for outputs, inputs, pull, equation in reversed(steps):
        arriving = [cts.get(v) if _float(v) else None for v in outputs]
        if all(ct is None for ct in arriving):
            continue
        b.source = equation.source
        for value, ct in zip(inputs, pull(b, arriving), strict=True):
            if ct is not None and value in allowed:
                cts[value] = b.add(cts.get(value), ct)


def _needed(equations: Sequence[Equation], results: Sequence[Value], available: set[Value]) -> list[Equation]:
    """The equations that the results need when some values are given. An equation of which some output is still needed
    stays whole; its given outputs become new values, so that nothing is assigned twice."""
    kept: list[Equation] = []
    needed = {v for v in results if v not in available}
    for equation in reversed(equations):
        if not any(v in needed for v in equation.outputs):
            continue
        outputs = tuple(Value(v.type, v.name) if v in available else v for v in equation.outputs)
        kept.append(replace(equation, outputs=outputs))
        needed.update(v for v in equation.inputs if v not in available)
    return kept[::-1]


def differentiate(
    graph: Graph, needs: Sequence[bool], useful: Sequence[bool] | None = None, memory: str = "auto"
) -> tuple[Graph, Graph, Pullback]:
    """The forward graph with residuals and the backward graph of a program.

    Arguments:
        graph: the program.
        needs: per input, whether its cotangent is wanted.
        useful: per output, whether a cotangent can arrive (all float outputs when left out).
        memory: the residual choice, see `Differentiator`.

    Returns:
        The forward graph (outputs, then residuals), the backward graph (kept inputs, residuals, cotangents → cotangents
        of the reached inputs), and the pullback that says which inputs and outputs these are.

    Raises:
        DerivativeError: the program holds an operation without a derivative on the way.

    Example:
        >>> forward, backward, pullback = differentiate(graph, [True, False])
    """
    if useful is None:
        useful = [_float(v) for v in graph.body.results]
    graph = for_memory(graph, memory)
    pullback = Differentiator(memory).vjp(graph.body, needs, useful)
    pullback = _with_tables(pullback, [d.input for d in graph.sizes if d.input is not None])
    pullback = _with_counts(pullback, len(graph.body.results))
    names = graph.input_names
    # A second derivative numbers on, so that the names of inputs stay distinct.
    taken = sum(name.startswith("residual_") for name in (*names, *graph.output_names))
    residual_names = tuple(f"residual_{taken + i}" for i in range(pullback.residuals))
    forward = replace(graph, body=pullback.forward, output_names=(*graph.output_names, *residual_names), notes=[])
    # Tables that are inputs stand at other places among the backward graph's.
    sizes = [d if d.input is None else replace(d, input=pullback.kept.index(d.input)) for d in graph.sizes]
    for equation in pullback.forward.equations:
        for name, index in equation.binds:
            value = equation.outputs[index]
            at = len(pullback.kept) + pullback.forward.results[len(graph.body.results) :].index(value)
            sizes.append(SizeDeclaration(name, tuple(map(str, value.type.axes)), at))
    backward = Graph(
        f"{graph.name}_adjoint",
        pullback.backward,
        (
            *(names[i] for i in pullback.kept),
            *residual_names,
            *(f"ct_{graph.output_names[j]}" for j in pullback.useful),
        ),
        tuple(f"ct_{names[i]}" for i in pullback.reached),
        tuple(sizes),
        graph.checks,
    )
    return forward, backward, pullback


def _with_tables(pullback: Pullback, tables: Sequence[int]) -> Pullback:
    """The pullback with the inputs kept that hold tables of lengths."""
    if set(tables) <= set(pullback.kept):
        return pullback
    kept = tuple(sorted({*pullback.kept, *tables}))
    parameters = dict(zip(pullback.kept, pullback.backward.parameters, strict=False))
    rest = pullback.backward.parameters[len(pullback.kept) :]
    first = [parameters.get(i) or Value(pullback.forward.parameters[i].type, "lengths") for i in kept]
    backward = Lambda((*first, *rest), pullback.backward.equations, pullback.backward.results)
    return replace(pullback, kept=kept, backward=backward)


def _with_counts(pullback: Pullback, results: int) -> Pullback:
    """The pullback with the counts of the sizes that the forward body determines as further residuals: the backward
    body's types name these sizes."""
    residuals = pullback.forward.results[results:]
    counts = {e.outputs[i]: None for e in pullback.forward.equations for _, i in e.binds}
    missing = [v for v in counts if v not in residuals]
    if not missing:
        return pullback
    forward = replace_results(pullback.forward, (*pullback.forward.results, *missing))
    at = len(pullback.kept) + pullback.residuals
    parameters = pullback.backward.parameters
    added = tuple(Value(v.type, v.name) for v in missing)
    backward = Lambda(
        (*parameters[:at], *added, *parameters[at:]), pullback.backward.equations, pullback.backward.results
    )
    return replace(pullback, forward=forward, residuals=pullback.residuals + len(missing), backward=backward)


def replace_results(body: Lambda, results: tuple[Value, ...]) -> Lambda:
    """A lambda with other results."""
    return Lambda(body.parameters, body.equations, results)


def gradient(b: Builder, body: Lambda, arguments: Sequence[Value], wanted: Sequence[bool]) -> tuple[Value, list[Value]]:
    """The value of a scalar function and its gradient, built in place: what `ff.grad` means.

    Arguments:
        b: where to build.
        body: a lambda of one scalar float result.
        arguments: its arguments.
        wanted: per argument, whether its gradient is wanted.

    Returns:
        The result and a gradient per wanted argument (zeros where the result does not depend on it).
    """
    pullback = Differentiator("save").vjp(body, wanted, [True])
    outputs = b.inline(pullback.forward, arguments)
    residuals = outputs[1:]
    ct = b.constant(1.0, outputs[0].type.dtype)
    cts = [ct] if pullback.useful else []
    values = b.inline(pullback.backward, (*(arguments[i] for i in pullback.kept), *residuals, *cts))
    pulled = dict(zip(pullback.reached, values, strict=True))
    return outputs[0], [pulled.get(i) or b.filled(0.0, arguments[i].type) for i, want in enumerate(wanted) if want]


def residual_types(pullback: Pullback) -> tuple[ListType, ...]:
    """The types of what is kept between the forward and the backward pass."""
    count = len(pullback.forward.results) - pullback.residuals
    return tuple(v.type for v in pullback.forward.results[count:])
