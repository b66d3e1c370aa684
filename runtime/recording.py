"""How a program is run so that it can be differentiated: the programs derived from it, each made once.

A recorded program gives residuals behind its outputs. Its adjoint reads them, or, where a second derivative sends
cotangents into the residuals themselves, computes everything again from the inputs: then it is the adjoint of the
recorded program as a whole. Under `torch.func.vmap` a program is the body of one more map.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from threading import Lock

from ..compiler.adjoint import Differentiator, Pullback
from ..compiler.builder import Builder
from ..compiler.errors import DerivativeError
from ..compiler.ir import Graph, Lambda, SizeDeclaration, Value, sub_equations
from ..compiler.pipeline import compile_graph, normalise
from ..compiler.sizes import Named
from .executable import Executable, remember

__all__ = ["Adjoint", "Recording", "batched", "record"]


@dataclass(frozen=True)
class Adjoint:
    """A program that pulls cotangents back.

    Attributes:
        program: (inputs of the recorded program, some of its outputs, cotangents of outputs) → cotangents of inputs.
        kept: which inputs it takes.
        outputs: which outputs it takes.
        arriving: the outputs whose cotangents it takes.
        reached: the inputs whose cotangents it gives.
    """

    program: Executable
    kept: tuple[int, ...]
    outputs: tuple[int, ...]
    arriving: tuple[int, ...]
    reached: tuple[int, ...]


@dataclass(frozen=True)
class Backward:
    """A backward graph that reads residuals.

    Attributes:
        graph: (kept inputs, residuals, cotangents of the useful outputs) → cotangents of the reached inputs.
        pullback: which these are.
        residuals: where each residual stands among the outputs of the forward graph.
    """

    graph: Graph
    pullback: Pullback
    residuals: tuple[int, ...]


class Recording:
    """One way to run a program so that it can be differentiated.

    Arguments:
        program: what is run: its last outputs are residuals.
        outputs: how many outputs are no residuals.
        needs: per input, whether its cotangent is wanted.
        memory: the residual choice; None when there are no residuals.
        backward: the backward graph, where residuals are kept.

    Attributes:
        differentiable: per output, whether it depends on the inputs in `needs` by a derivative.
        saved: the outputs that an adjoint may take: residuals, and the counts of lists that the program makes.
    """

    def __init__(
        self,
        program: Executable,
        outputs: int,
        needs: tuple[bool, ...],
        memory: str | None,
        backward: Backward | None = None,
    ):
        self.program, self.outputs, self.needs, self.memory = program, outputs, needs, memory
        self._backward = backward
        self._differentiator = Differentiator(memory or "auto")
        body = program.graph.body
        self.differentiable = tuple(self._differentiator.active_results(body, needs))
        self.saved = tuple(sorted({*_counts(body).values(), *(backward.residuals if backward else ())}))
        self._adjoints: dict[tuple[bool, ...], Adjoint] = {}
        self._lock = Lock()

    def adjoint(self, present: tuple[bool, ...]) -> Adjoint | None:
        """The program that pulls cotangents back; absent ones are zeros that it does not compute with.

        Arguments:
            present: per output, residuals too, whether a cotangent arrives. A second derivative sends some into the
                residuals; then the adjoint is that of the recorded program as a whole, which computes residuals again.

        Returns:
            The adjoint, or None where no cotangent reaches an input.

        Raises:
            DerivativeError: the program holds an operation without a derivative on the way.
        """
        present = tuple(p and d for p, d in zip(present, self.differentiable, strict=True))
        if not any(present):
            return None
        with self._lock:
            if present not in self._adjoints:
                whole = self._backward is None or any(present[self.outputs :])
                self._adjoints[present] = self._whole(present) if whole else self._first(self._backward, present)
            return self._adjoints[present]

    def _first(self, backward: Backward, present: tuple[bool, ...]) -> Adjoint:
        """The adjoint that reads the residuals."""
        graph, pullback = backward.graph, backward.pullback
        first = len(pullback.kept) + pullback.residuals
        b = Builder()
        arguments = []
        for index, value in enumerate(graph.body.parameters):
            absent = index >= first and not present[pullback.useful[index - first]]
            arguments.append(b.filled(0.0, value.type) if absent else b.parameter(value.type, value.name))
        body, _ = b.close(b.inline(graph.body, arguments))
        names = tuple(n for n, v in zip(graph.input_names, arguments, strict=True) if v in body.parameters)
        made = normalise(replace(graph, body=body, input_names=names, notes=[]))
        return Adjoint(
            remember(made),
            pullback.kept,
            backward.residuals,
            tuple(j for j in pullback.useful if present[j]),
            pullback.reached,
        )

    def _whole(self, present: tuple[bool, ...]) -> Adjoint:
        """The adjoint that computes everything again from the inputs."""
        graph = self.program.graph
        results, names = graph.body.results, graph.input_names
        pullback = self._differentiator.vjp(graph.body, self.needs, present, save=False)
        read = dict(zip(pullback.kept, pullback.backward.parameters))
        # Inputs that hold tables are read by the types, if by nothing else.
        held = {d.input for d in graph.sizes if d.input is not None}
        read.update({i: _alike(graph.body.parameters[i]) for i in held - read.keys()})
        kept = tuple(sorted(read))
        sizes = [d if d.input is None else replace(d, input=kept.index(d.input)) for d in graph.sizes]
        # The types of cotangents name sizes that the program determines: the counts come in beside them.
        named = {n for j in pullback.useful for axis in results[j].type.axes for n in axis.names()}
        counts: dict[int, Value] = {}
        for name, j in _counts(graph.body).items():
            if name in named:
                counts.setdefault(j, _alike(results[j]))
                over = tuple(map(str, results[j].type.axes))
                sizes.append(SizeDeclaration(name, over, len(kept) + list(counts).index(j)))
        arriving = pullback.backward.parameters[len(pullback.kept) :]
        body = Lambda(
            (*(read[i] for i in kept), *counts.values(), *arriving),
            pullback.backward.equations,
            pullback.backward.results,
        )
        made = Graph(
            f"{graph.name}_adjoint",
            body,
            (
                *(names[i] for i in kept),
                *(graph.output_names[j] for j in counts),
                *(f"ct_{graph.output_names[j]}" for j in pullback.useful),
            ),
            tuple(f"ct_{names[i]}" for i in pullback.reached),
            tuple(sizes),
            graph.checks,
        )
        return Adjoint(remember(normalise(made)), kept, tuple(counts), pullback.useful, pullback.reached)


def _counts(body: Lambda) -> dict[str, int]:
    """The sizes that a body determines and whose counts it gives, each with the result that holds them."""
    places = {v: j for j, v in reversed(list(enumerate(body.results)))}
    bound = [(name, e.outputs[i]) for e in body.equations for name, i in e.binds]
    return {name: places[count] for name, count in bound if count in places}


def _alike(value: Value) -> Value:
    return Value(value.type, value.name)


def record(program: Executable, needs: tuple[bool, ...], memory: str | None) -> Recording:
    """How to run a program so that it can be differentiated.

    Arguments:
        program: any program; its normal form is what is run.
        needs: per input, whether its cotangent will be wanted.
        memory: the residual choice of `compiler.adjoint`, or None to keep nothing but the inputs.
    """
    program = program.normalised
    # The adjoint of a program whose inputs hold tables has them at other places; it keeps nothing.
    if any(d.input is not None for d in program.graph.sizes):
        memory = None
    return program.once(("record", needs, memory), lambda: _record(program, needs, memory))


def _record(program: Executable, needs: tuple[bool, ...], memory: str | None) -> Recording:
    count = len(program.graph.body.results)
    if memory is None or not any(needs):
        return Recording(program, count, needs, memory)
    try:
        compiled = compile_graph(program.graph, needs, memory=memory)
    except DerivativeError:
        # The values exist. The backward pass, if it is ever run, says what has no derivative.
        return Recording(program, count, needs, None)
    forward, pullback = compiled.forward, compiled.pullback
    if compiled.backward is None or pullback is None:
        return Recording(program, count, needs, None)
    # A residual that is an output too is kept once.
    outputs, residuals = forward.body.results[:count], forward.body.results[count:]
    added = [v for v in dict.fromkeys(residuals) if v not in outputs]
    names = tuple(forward.output_names[count + residuals.index(v)] for v in added)
    results = (*outputs, *added)
    forward = replace(
        forward, body=replace(forward.body, results=results), output_names=(*forward.output_names[:count], *names)
    )
    places = tuple(results.index(v) for v in residuals)
    return Recording(remember(forward), count, needs, memory, Backward(compiled.backward, pullback, places))


def batched(program: Executable, inputs: tuple[bool, ...], tables: tuple[bool, ...]) -> tuple[Executable, str]:
    """A program as the body of one more map.

    Arguments:
        program: what is run for each element of the new axis.
        inputs: per input, whether it has the new axis, in front.
        tables: per name in `tables`, whether its table has it.

    Returns:
        The program, each of whose outputs has the new axis in front, and the name of the axis's size.
    """
    return program.once(("batched", inputs, tables), lambda: _batched(program, inputs, tables))


def _batched(program: Executable, inputs: tuple[bool, ...], tables: tuple[bool, ...]) -> tuple[Executable, str]:
    graph = program.graph
    taken = {d.name for d in graph.sizes} | {n for e in sub_equations(graph.body) for n, _ in e.binds}
    name = next(n for n in (f"V{i or ''}" for i in range(len(taken) + 1)) if n not in taken)
    size, b = Named(name), Builder()
    inner = Builder(b)
    lists, elements, arguments = [], [], []
    for value, own in zip(graph.body.parameters, inputs, strict=True):
        outer = b.parameter(value.type.listed(size) if own else value.type, value.name)
        if own:
            lists.append(outer)
            elements.append(inner.parameter(value.type, value.name))
        arguments.append(elements[-1] if own else outer)
    outputs = b.map_lambda(size, lists, inner, inner.inline(graph.body, arguments))
    body, _ = b.close(outputs)
    ragged = dict(zip(program.tables, tables, strict=True))
    declared = [SizeDeclaration(name)]
    for d in graph.sizes:
        own = ragged[d.name] if d.input is None else inputs[d.input]
        declared.append(replace(d, over=(name, *d.over)) if own else d)
    made = Graph(graph.name, body, graph.input_names, graph.output_names, tuple(declared), graph.checks)
    return remember(normalise(made)), name
