"""What must hold of every program: the evaluators agree, before and after the laws, on values and derivatives.

All in float64, on a batch of one to three examples with lists of different lengths; what lies in padding is poisoned
where tensors are padded.
"""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from foldfuse.compiler.ir import Graph, verify
from foldfuse.compiler.laws import LAWS
from foldfuse.compiler.parameters import Parameter
from foldfuse.compiler.pipeline import compile_graph, normalise
from foldfuse.compiler.precision import with_precision
from foldfuse.compiler.program import trace_entry
from foldfuse.compiler.text import parse, show
from foldfuse.compiler.types import f32, f64

from .random_derivatives import Adjoint, check_gradients, torch_gradient
from .random_inputs import Call, Inputs, leaves, mapped, same
from .random_terms import LONGEST, Length, Program

MEMORY = ("auto", "save", "recompute")


class NotFinite(Exception):
    """The program's values overflow: nothing can be compared."""


@dataclass(frozen=True)
class Failure:
    """A property that does not hold: its name, and what was found."""

    property: str
    detail: str

    def __str__(self) -> str:
        return f"{self.property}: {self.detail}"


# --- properties -------------------------------------------------------------------------------------------------------


def compiled(program: Program) -> tuple[Any, Sequence[Any]]:
    """The program's function and the types of its inputs. The source can be found by tracebacks."""
    name = f"<random program {abs(hash(program.source))}>"
    linecache.cache[name] = (len(program.source), None, program.source.splitlines(keepends=True), name)
    namespace: dict[str, Any] = {"__name__": "random_program"}
    exec(compile(program.source, name, "exec"), namespace)
    return namespace["program"], namespace["types"]


class EvenInputs(Inputs):
    """Random inputs whose rows have lists of one length."""

    def lengths(self, length: Length, rows: Any) -> Any:
        if length not in self.known:
            count = int(self.generator.integers(length.least, max(length.least, LONGEST) + 1))
            self.known[length] = self.each(rows, lambda _: count)
        return self.known[length]


def prepared(program: Program, even: bool = False) -> Call:
    """A program traced in float64, with random inputs.

    Arguments:
        program: the program.
        even: whether lists are of one length in all rows; sizes of inputs are then numbers, and nothing is padded.
    """
    function, types = compiled(program)
    entry = trace_entry("main", function, types)
    verify(entry.graph, "tracing")
    graph = with_precision(entry.graph, f64, None, default=f32)
    verify(graph, "precision")
    generator = np.random.default_rng(program.seed)
    fixed = {d.name for d in graph.sizes if not d.over}
    inputs = (EvenInputs if even else Inputs)(program.types, entry.inputs, fixed, generator)
    owned = [
        generator.uniform(-1.0, 1.0, v.type.shape)
        for v, p in zip(graph.body.parameters, entry.parameters)
        if isinstance(p, Parameter)
    ]
    seed = [np.int64(generator.integers(0, 1000))] if entry.seeded else []
    data = [inputs.data[i] for i in range(len(inputs.data))]
    declared = {d.name for d in graph.sizes}
    tables = {name: table for name, table in inputs.tables.items() if name in declared}
    return Call(graph, [*owned, *seed, *data], tables, 0 if even else int(generator.integers(0, 2)))


class Checks:
    """The properties of one program.

    Arguments:
        program: the program.
        second: whether second derivatives are looked at.
        laws: whether each law is tried alone.
        only: the one property that is looked at, besides those that it builds on.
        kernels: whether the properties are those of the program's kernels, which Triton's interpreter runs.
    """

    def __init__(
        self,
        program: Program,
        second: bool = True,
        laws: bool = True,
        only: str | None = None,
        kernels: bool = False,
    ):
        self.program, self.second, self.laws, self.only = program, second, laws, only
        self.kernels = kernels or (only or "").startswith("kernels")
        self.failures: list[Failure] = []
        self.held: list[str] = []

    def holds(self, name: str, check: Callable[[], Any]) -> Any:
        """Try a property; its result, None where it fails."""
        if self.only not in (None, name) and not name.startswith(("trace", "reference", "torch", "adjoint")):
            return None
        try:
            result = check()
        except NotFinite:
            raise
        except Exception as error:
            self.failed(name, error)
            return None
        self.held.append(name)
        return True if result is None else result

    def failed(self, name: str, error: Exception) -> None:
        """Note that a property does not hold."""
        frames = traceback.extract_tb(error.__traceback__)
        at = next((f for f in reversed(frames) if "random_p" not in f.filename), frames[-1])
        place = (
            ""
            if isinstance(error, AssertionError) and "random_p" in frames[-1].filename
            else f" [{at.filename}:{at.lineno}]"
        )
        self.failures.append(Failure(name, f"{type(error).__name__}: {str(error)[:1500]}{place}"))

    def run(self) -> list[Failure]:
        """All properties; those that do not hold.

        Raises:
            NotFinite: the program overflows.
        """
        if self.kernels:
            self.on_kernels()
            return self.failures
        call = self.holds("trace", lambda: prepared(self.program))
        if call is None:
            return self.failures
        values = self.holds("reference", call.reference)
        if values is None:
            return self.failures
        check_finite(values, call)
        self.holds("text", lambda: round_trip(call.graph))
        self.holds("eager", lambda: same("eager", call.eager(), values, call.outputs))
        self.rewritten(call, values, "program")
        self.derivatives(call, values)
        return self.failures

    def on_kernels(self) -> None:
        """The kernels give what the reference evaluator gives, values and gradients."""
        # Triton is imported with the interpreter on or off; nothing else here needs it.
        from .random_kernels import kernel_properties, setting

        chosen = setting(self.program.seed)
        call = self.holds("trace", lambda: prepared(self.program, chosen.even))
        if call is None:
            return
        values = self.holds("reference", call.reference)
        if values is None:
            return
        check_finite(values, call)
        try:
            for name, check in kernel_properties(call, chosen, self.program.seed):
                self.holds(name, check)
        except NotFinite:
            raise
        except Exception as error:
            self.failed("kernels, graphs", error)

    def rewritten(self, call: Call, values: Sequence[Any], what: str) -> None:
        """The laws, together and each alone, change no value."""

        def all_laws() -> None:
            graph = normalise(call.graph)
            verify(graph, "normalise")
            made = call.with_graph(graph)
            same("reference", made.reference(), values, call.outputs)
            same("eager", made.eager(), values, call.outputs)

        self.holds(f"laws, {what}", all_laws)

        def one_law(law: Any) -> None:
            graph = normalise(call.graph, laws=(law,))
            if graph.body is not call.graph.body:
                verify(graph, law.name)
                same("reference", call.with_graph(graph).reference(), values, call.outputs)

        for law in LAWS if self.laws else ():
            self.holds(f"law {law.name}, {what}", lambda law=law: one_law(law))

    # --- derivatives --------------------------------------------------------------------------------------------------

    def derivatives(self, call: Call, values: Sequence[Any]) -> None:
        """The adjoint against torch's and against differences, before and after the laws."""
        needs = [t.dtype.is_float for t in call.inputs]
        if not any(needs) or not any(t.dtype.is_float for t in call.outputs):
            return
        generator = np.random.default_rng(self.program.seed + 1)
        draw = lambda v: generator.normal(size=np.shape(v))
        cotangents = [mapped(draw, len(t.axes), v) for v, t in zip(values, call.outputs)]
        expected = self.holds("torch gradient", lambda: torch_gradient(call, cotangents, self.second))
        for memory in MEMORY:
            self.adjoint(memory, call, values, cotangents, needs, expected)
        self.holds("pipeline", lambda: pipeline(call, values, cotangents, needs, expected and expected[0]))

    def adjoint(
        self,
        memory: str,
        call: Call,
        values: Sequence[Any],
        cotangents: Sequence[Any],
        needs: Sequence[bool],
        expected: tuple[list[Any], Any] | None,
    ) -> None:
        """The adjoint under one residual choice; the whole of its properties under "auto"."""
        adjoint = self.holds(f"adjoint ({memory})", lambda: Adjoint(call, values, cotangents, needs, memory))
        if adjoint is None:
            return
        if expected is not None:
            self.holds(f"gradient ({memory})", lambda: adjoint.check_gradient(expected[0]))
        if memory != "auto":
            return
        self.holds("differences", lambda: adjoint.check_differences(np.random.default_rng(self.program.seed + 2)))
        for name, part, outputs in (
            ("forward", adjoint.forward, adjoint.outputs),
            ("backward", adjoint.backward, adjoint.gradients),
        ):
            self.holds(f"text, {name}", lambda part=part: round_trip(part.graph))
            self.holds(
                f"eager, {name}",
                lambda part=part, outputs=outputs: same("eager", part.eager(), outputs, part.outputs),
            )
            self.rewritten(part, outputs, name)
        if self.second and expected is not None:
            self.holds("second derivatives", lambda: adjoint.check_second(*expected))


def check_finite(values: Sequence[Any], call: Call) -> None:
    """Refuse to compare values of a program that overflow.

    Raises:
        NotFinite: they do.
    """
    if not all(np.isfinite(v).all() for v, t in zip(values, call.outputs) for v in leaves(v, len(t.axes))):
        raise NotFinite


def round_trip(graph: Graph) -> None:
    """Printing, parsing and printing again gives the same text."""
    text = show(graph)
    parsed = parse(text)
    verify(parsed, "parsing")
    assert show(parsed) == text, "the text changes when it is parsed and printed"


def pipeline(
    call: Call, values: Sequence[Any], cotangents: Sequence[Any], needs: Sequence[bool], expected: Sequence[Any] | None
) -> None:
    """The whole way from a program to optimised forward and backward graphs."""
    made = compile_graph(call.graph, needs, default=f64, check=True)
    forward = call.with_graph(made.forward)
    outputs = forward.reference()
    count = len(values)
    same("outputs", outputs[:count], values, call.outputs)
    same("outputs, eager", forward.eager(), outputs, forward.outputs)
    if made.backward is None or made.pullback is None:
        return
    pullback = made.pullback
    arguments = [
        *(call.arguments[i] for i in pullback.kept),
        *outputs[count:],
        *(cotangents[j] for j in pullback.useful),
    ]
    backward = replace(call, graph=made.backward, arguments=arguments)
    gradients = backward.reference()
    same("gradients, eager", backward.eager(), gradients, backward.outputs)
    if expected is not None:
        check_gradients(call, pullback, gradients, expected)
