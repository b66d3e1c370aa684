"""`compile`: from expressions to a torch module; the module's calls, its oracle, its records, its saved form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..compiler.adjoint import MEMORY
from ..compiler.errors import FoldfuseError, Source, StrategyError, StructureError, TraceError
from ..compiler.expression import check_function
from ..compiler.ir import Graph, sub_equations
from ..compiler.parameters import Parameter
from ..compiler.parser import parse
from ..compiler.pipeline import Compiled, compile_graph, normalise
from ..compiler.precision import with_precision
from ..compiler.program import Entry
from ..compiler.taps import has_taps, with_taps_as_outputs, without_taps
from ..compiler.text import show
from ..compiler.types import DTYPES, DType, f64
from ..compiler.values import Traced
from ..kernels.emit import Numerics
from ..kernels.request import STRATEGIES, Request, typical_rows
from . import autograd, eager, fused, kernel_plan, kernel_report, oracle, report, warmup
from .binding import bind, unbind
from .call_precision import PRECISIONS, Precision, declared, in_precision, precision_of, tf32_chosen
from .dynamo import constant_result
from .executable import executable, printed
from .forest import Forest
from .initial import Held, Owned, attach, fetch, made
from .ragged import Ragged
from .tracing import trace


@dataclass
class EntryPoint:
    """One entry point of a model: what was traced, for evaluation and (where dropout makes them differ) for training.

    Attributes:
        evaluation, training: traced entries, without taps.
        tapped: the evaluation graph with its taps, or None.
        parameters: full names of the parameter inputs, per mode, in the order of the graph's inputs.
    """

    evaluation: Entry
    training: Entry
    tapped: Graph | None
    parameters: dict[bool, tuple[str, ...]]

    def traced(self, training: bool) -> Entry:
        return self.training if training else self.evaluation

    def __deepcopy__(self, memo: dict[int, Any]) -> EntryPoint:
        # Nothing in it is ever changed.
        return self

    def __getstate__(self) -> dict[str, Any]:
        # A saved model carries printed IR, never a user's functions.
        same = self.training is self.evaluation
        return {
            "evaluation": _frozen(self.evaluation),
            "training": None if same else _frozen(self.training),
            "tapped": None if self.tapped is None else _text_of(self.tapped),
            "parameters": self.parameters,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.evaluation = _thawed(state["evaluation"])
        self.training = self.evaluation if state["training"] is None else _thawed(state["training"])
        self.tapped = None if state["tapped"] is None else _graph_of(*state["tapped"])
        self.parameters = state["parameters"]


def _frozen(entry: Entry) -> Entry:
    return replace(entry, graph=_text_of(entry.graph))  # type: ignore[arg-type]


def _thawed(entry: Entry) -> Entry:
    return replace(entry, graph=_graph_of(*entry.graph), stored=DTYPES[entry.stored.name])  # type: ignore[misc]


def _text_of(graph: Graph) -> tuple[str, list[Source | None]]:
    """A graph as its text, and what a text does not hold: the user's lines, which errors and `explain` name."""
    return show(graph), [equation.source for equation in sub_equations(graph.body)]


def _graph_of(text: str, sources: Sequence[Source | None]) -> Graph:
    graph = parse(text)
    for equation, source in zip(sub_equations(graph.body), sources, strict=True):
        equation.source = source
    return graph


def compile(program: Any, *types: Any, batched: bool = True, memory: str = "auto", name: str = "main") -> Model:
    """Compile a program into a torch module.

    Arguments:
        program: an expression or a function of as many traced values as there are types; or a dict of entry points,
            ``{"loss": (loss, Text, Text), "sample": (sample, Text)}``, which share one set of parameters.
        types: the types of the inputs, of one example.
        batched: whether every input has a batch axis in front, which the program does not see.
        memory: what is kept for the backward pass: "save" everything, "recompute" all but loop carries, or "auto".
        name: the name of the only entry point.

    Returns:
        A `Model`.

    Raises:
        FoldfuseError: the program is wrong; the message names the expression, the line, and what to do.

    Example:
        >>> model = compile(ff.scan(step, init=ff.zeros(4)), ff.Seq(ff.f32[3]))
        >>> hidden = model(torch.randn(8, 20, 3))
    """
    if memory not in MEMORY:
        raise StructureError(f"memory= is one of {', '.join(map(repr, MEMORY))}; got {memory!r}")
    entries = program if isinstance(program, Mapping) else {name: (program, *types)}
    if isinstance(program, Mapping) and types:
        raise StructureError("with a dict of entry points, each holds its own types: {'loss': (loss, Text, Text)}")
    if not entries:
        raise StructureError("a model has one entry point or more")
    traced = {}
    for entry_name, entry in entries.items():
        if not isinstance(entry_name, str) or not isinstance(entry, tuple) or not entry:
            raise StructureError(
                f"an entry point is a name and a tuple (expression, *types); got {entry_name!r}: {entry!r}"
            )
        function, *argument_types = entry
        check_function(function, f"the entry point {entry_name!r}")
        traced[entry_name] = trace(entry_name, function, argument_types, batched)
    return Model(traced, memory)


class Model(nn.Module):
    """A compiled program: an ordinary torch module.

    Its parameters are ordinary parameters under their dotted names; `state_dict`, optimisers, `.to`, `.double`,
    `deepcopy`, `torch.save`, `torch.func` and `torch.compile` work as on any module. ``model(…)`` runs the first entry
    point, ``model(…, entry="sample")`` another, ``model(…, seed=3)`` fixes the randomness of the call.
    """

    def __init__(self, traced: Mapping[str, tuple[Entry, Entry]], memory: str):
        super().__init__()
        self._memory = memory
        owned = Owned()
        for entries in traced.values():
            for entry in entries:
                for key, value in zip(entry.parameters, entry.graph.body.parameters):
                    dtype = entry.stored if value.type.dtype.is_float else value.type.dtype
                    owned.dtypes.setdefault(owned.key(key), dtype)
        full = owned.names()
        tensors: dict[str, Tensor] = {}
        for key in sorted(full, key=lambda k: k.serial if isinstance(k, Parameter) else -1):
            tensors[full[key]] = key.tensor if isinstance(key, Held) else made(key, owned.dtypes[key])
        attach(self, tensors, {name: getattr(key, "source", None) for key, name in full.items()})
        self._entries: dict[str, EntryPoint] = {}
        for name, (evaluation, training) in traced.items():
            parameters = {
                mode: tuple(full[owned.key(k)] for k in entry.parameters)
                for mode, entry in ((False, evaluation), (True, training))
            }
            tapped = evaluation.graph if has_taps(evaluation.graph) else None
            same = training is evaluation
            evaluation = _settled(evaluation, parameters[False])
            training = evaluation if same else _settled(training, parameters[True])
            self._entries[name] = EntryPoint(evaluation, training, tapped, parameters)
        self._texts: dict[tuple[Any, ...], str] = {}

    # --- calls --------------------------------------------------------------------------------------------------------

    def forward(self, *arguments: Any, entry: str | None = None, seed: int | Tensor | None = None) -> Any:
        """Run an entry point.

        Arguments:
            arguments: one per declared type. Arrays: tensors [batch, *shape]. Lists: a padded tensor [batch, time,
                *shape],
                `ff.ragged`, a `PackedSequence` or a jagged nested tensor. Grids: [batch, *extent, *shape]. Trees:
                `ff.forest`.
            entry: name of the entry point; the first when left out.
            seed: a number that fixes this call's randomness; drawn from torch's generator when left out.

        Returns:
            The result's structure; a list of an input's size leaves in that input's representation, padding as zeros.

        Raises:
            FoldfuseError: an argument does not fit; the message says which, what was expected and what to do.
        """
        if any(isinstance(argument, (Traced, Parameter)) for argument in arguments):
            raise TraceError(
                "a compiled model is called inside of a program, which takes expressions. Call the expression that the "
                "model "
                "was compiled from"
            )
        point = self._entry(entry)
        traced = point.traced(self.training)
        held = [fetch(self, name) for name in point.parameters[self.training]]
        bound = bind(traced, arguments, *_stored(held, arguments), fused.has_kernels)
        held += self._seed(traced, bound, seed)
        inputs = [*held, *bound.tensors]
        text = self._text(self._name(entry), self.training, *precision_of(inputs), bound.flat)
        outputs = autograd.evaluate(text, inputs, bound.table_list(traced.graph), self._memory, bound.extents)
        return unbind(traced, outputs, bound)

    def _name(self, entry: str | None) -> str:
        return next(iter(self._entries)) if entry is None else entry

    def _entry(self, entry: str | None) -> EntryPoint:
        name = self._name(entry)
        if name not in self._entries:
            raise StructureError(f"the model has no entry point {name!r}; it has {', '.join(map(repr, self._entries))}")
        return self._entries[name]

    def _seed(self, traced: Entry, bound: Any, seed: int | Tensor | None) -> list[Tensor]:
        if not traced.seeded:
            return []
        device = bound.tensors[0].device if bound.tensors else None
        if isinstance(seed, Tensor):
            if seed.dim() or seed.is_floating_point() or seed.is_complex():
                raise StructureError(
                    f"seed= is a whole number, or a tensor of one; got a {seed.dtype} tensor {list(seed.shape)}"
                )
            return [seed.to(device=device, dtype=torch.int64)]
        if seed is not None:
            if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
                raise StructureError(f"seed= is a whole number, or a tensor of one; got {seed!r}")
            return [torch.tensor(int(seed), dtype=torch.int64, device=device)]
        return [torch.randint(0, 2**62, (), dtype=torch.int64).to(device)]

    def _text(
        self, name: str, training: bool, compute: str, operand: str, half: bool, flat: tuple[str, ...] = ()
    ) -> str:
        """The printed, normalised program for one precision."""
        return program_text(self, name, training, compute, operand, half, flat)

    # --- what it is ---------------------------------------------------------------------------------------------------

    @property
    def signature(self) -> str:
        """The types of the entry points, a line each."""
        return "\n".join(point.evaluation.signature for point in self._entries.values())

    @property
    def entries(self) -> tuple[str, ...]:
        """The names of the entry points."""
        return tuple(self._entries)

    @property
    def kernels(self) -> tuple[kernel_plan.KernelRecord, ...]:
        """The kernels of a call of the first entry point and of its backward pass, as `planned` plans them."""
        return self.planned().kernels

    def planned(
        self,
        entry: str | None = None,
        target: str | None = None,
        strategy: str | None = None,
        dtype: str | None = None,
        tf32: bool | None = None,
        backward: bool = True,
        batch: int = 32,
    ) -> kernel_plan.Planned:
        """What a call becomes on a GPU: its kernels, and the steps that torch's own operators compute. Needs no GPU, no
        Triton, and compiles nothing.

        Arguments:
            entry: name of the entry point; the first when left out.
            target: the GPU, such as "sm_90" or "gfx942"; left out, that of the parameters, and for parameters on the
                CPU "sm_90".
            strategy: "resident", "streamed" or "cooperative" for every recurrence; left to the planner when left out.
            dtype: "f32", "f64", "bf16" or "f16" in place of the dtype of the parameters.
            tf32: whether contractions of f32 operands run in tf32; left out, as torch is set for its own.
            backward: whether the call is differentiated, with respect to all that is of a float dtype.
            batch: how many rows a call has: up to 32, up to 512 and more are planned apart.

        Returns:
            A `Planned` with `kernels` and `evaluated`, for padded lists, in the mode (training or evaluation) that the
            model is in.

        Raises:
            TargetError: the target is not known.
            StrategyError: no strategy holds a step on it, or not the one that is asked for.
            StructureError: no strategy or dtype is called so.

        Example:
            >>> [(kernel.name, kernel.strategy) for kernel in model.planned(target="sm_80").kernels]
            [('forward_1_scan', 'resident'), ('backward_1_scan', 'resident')]
        """
        for value, what, known in ((strategy, "strategy", STRATEGIES), (dtype, "dtype", tuple(PRECISIONS))):
            if value is not None and value not in known:
                raise StructureError(f"{what}= is one of {', '.join(map(repr, known))}; got {value!r}")
        point, name = self._entry(entry), self._name(entry)
        held = [fetch(self, parameter) for parameter in point.parameters[self.training]]
        floats = [x for x in held if x.is_floating_point()]
        own = precision_of(floats) if floats else PRECISIONS[point.evaluation.stored.name]
        precision = own if dtype is None else PRECISIONS[dtype]
        device = held[0].device if held else torch.device("cpu")
        contractions = "tf32" if (tf32_chosen() if tf32 is None else tf32) else "ieee"
        name_of_target = target or fused.target_of(device).name
        request = Request(name_of_target, Numerics(contractions), strategy, rows=typical_rows(batch))
        program = executable(self._text(name, self.training, *precision))
        return kernel_plan.plan(program, program.floats, self._memory, request, name, str(precision), backward)

    def warmup(self, *arguments: Any, entry: str | None = None, backward: bool = True) -> None:
        """Make ready what a call needs, and compile its kernels, so that a CUDA graph can capture such calls.

        A length compiles nothing, nor does a batch of the same kind: up to 32 rows, up to 512, or more. So one warm-up
        serves all of these. What does make another program: lists that come ragged instead of padded, another dtype,
        autocast, inputs that require gradients, `train` or `eval`.

        Arguments:
            arguments: as of a call; an array or a padded list may also be given as its shape, a `torch.Size` or a tuple
                of numbers such as ``(32, 100, 64)``.
            entry: name of the entry point; the first when left out.
            backward: whether the calls are differentiated, with gradients arriving for every output. Calls under
                `torch.no_grad` run another program, which keeps nothing: warm them up with ``backward=False``.

        On a CUDA device the call also runs once, as torch's own libraries set themselves up when they are first used;
        no `grad` changes. On the CPU nothing is compiled but under Triton's interpreter.

        Raises:
            FoldfuseError: an argument does not fit; a kernel needs more than the device has; a graph is being captured.

        Example:
            >>> model.warmup((32, 100, 64))
            >>> with torch.cuda.graph(graph):
            ...     scores = model(static_input)
        """
        point = self._entry(entry)
        traced = point.traced(self.training)
        held = [fetch(self, name) for name in point.parameters[self.training]]
        stored = _stored(held, arguments)
        bound = bind(traced, warmup.examples(traced, arguments, *stored), *stored, fused.has_kernels)
        inputs = [*held, *self._seed(traced, bound, 0), *bound.tensors]
        program = executable(self._text(self._name(entry), self.training, *precision_of(inputs), bound.flat))
        tables = bound.table_list(traced.graph)
        warmup.make_ready(program, inputs, tables, self._memory, bound.extents, backward)
        if inputs and inputs[0].is_cuda:
            warmup.run_once(program, inputs, tables, self._memory, bound.extents, backward)

    def graph(self, entry: str | None = None) -> Graph:
        """The un-optimised graph of an entry point."""
        return self._entry(entry).evaluation.graph

    def compiled(self, entry: str | None = None, memory: str | None = None) -> Compiled:
        """The optimised forward and adjoint graphs of an entry point, and what the laws did.

        Arguments:
            entry: name of the entry point; the first when left out.
            memory: the residual choice; the model's own when left out.

        Returns:
            A `Compiled` with `forward` and `backward` graphs; ``str()`` of each is its text.
        """
        graph = self._entry(entry).evaluation.graph
        needs = [v.type.dtype.is_float for v in graph.body.parameters]
        return compile_graph(graph, needs, memory=memory or self._memory)

    def code(self, entry: str | None = None, kernels: bool = False) -> str:
        """The optimised program as text: the forward graph, then its adjoint.

        Arguments:
            entry: name of the entry point; the first when left out.
            kernels: instead of the graphs, the Triton text of the kernels that `planned` plans of them.
        """
        if kernels:
            return kernel_report.texts(self.planned(entry))
        compiled = self.compiled(entry)
        return "\n\n".join(str(graph) for graph in (compiled.forward, compiled.backward) if graph is not None)

    def explain(self, entry: str | None = None, brief: bool = False) -> str:
        """What the compiler did with an entry point: its type; what is left inside of each loop; the laws that moved
        work and where, those that were in question and why they did not apply; what is kept for the backward pass; the
        kernels that it becomes, with the reason for each one's strategy, and what no kernel does.

        Arguments:
            entry: name of the entry point; the first when left out.
            brief: leave out the places in the program, and the kernels' reasons and accounts.
        """
        text = report.explain(self._entry(entry).evaluation, self.compiled(entry), self._memory, brief)
        try:
            return "\n".join([text, "", *kernel_report.lines(self.planned(entry), brief)])
        except StrategyError as error:
            return f"{text}\n\nkernels\n  there are none: {error.message}"

    # --- other evaluators ---------------------------------------------------------------------------------------------

    def reference(self, *arguments: Any, entry: str | None = None, seed: int | Tensor | None = None) -> Any:
        """Run the oracle: NumPy float64, one example at a time, on the un-optimised program.

        Arguments:
            as for a call; tensors or NumPy arrays.

        Returns:
            The result's structure in float64 NumPy arrays, padded like a call's.
        """
        point = self._entry(entry)
        arguments = oracle.doubled(arguments)
        traced = _entry_in(point.evaluation, f64)
        bound = bind(traced, arguments, torch.float64, torch.device("cpu"))
        held = [oracle.doubled(fetch(self, name).detach().cpu()) for name in point.parameters[False]]
        inputs = [*held, *self._seed(traced, bound, seed), *bound.tensors]
        outputs = oracle.evaluate_padded(traced.graph, inputs, bound.tables, bound.extents)
        return oracle.to_numpy(unbind(traced, outputs, bound))

    def eager(self, *arguments: Any, entry: str | None = None, seed: int | Tensor | None = None) -> Any:
        """Run the un-optimised program as plain torch operations under torch's autograd: the unfused baseline."""
        return self._run(self._entry(entry).traced(self.training), self.training, arguments, entry, seed)

    def record(self, *arguments: Any, entry: str | None = None, seed: int | Tensor | None = None) -> dict[str, Any]:
        """Run the program and show the values that `ff.tap` marks.

        Returns:
            A tensor (or ragged list) per tap, by its name; a tap inside of a loop has a value per step.

        Raises:
            StructureError: the program has no taps.
        """
        point = self._entry(entry)
        if point.tapped is None:
            raise StructureError('nothing is marked in this program: mark values with ff.tap(value, "name")')
        traced = oracle.tapped_entry(point.evaluation, with_taps_as_outputs(point.tapped))
        with torch.no_grad():
            return self._run(traced, False, arguments, entry, seed)

    def _run(self, traced: Entry, training: bool, arguments: Any, entry: str | None, seed: Any) -> Any:
        point = self._entry(entry)
        held = [fetch(self, name) for name in point.parameters[training]]
        bound = bind(traced, arguments, *_stored(held, arguments))
        inputs = [*held, *self._seed(traced, bound, seed), *bound.tensors]
        graph = in_precision(traced.graph, precision_of(inputs), declared(traced))
        outputs = eager.run(graph, inputs, bound.tables, maxima=bound.extents)
        return unbind(traced, outputs, bound)

    # --- saved form ---------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_texts": {}}

    def extra_repr(self) -> str:
        return self.signature


def _settled(entry: Entry, parameters: Sequence[str]) -> Entry:
    """An entry under its parameters' full names, without taps and without the user's objects."""
    graph = without_taps(entry.graph)
    graph = replace(graph, input_names=(*parameters, *graph.input_names[len(parameters) :]))
    return replace(entry, graph=graph, parameters=list(parameters))


def _stored(held: Sequence[Tensor], arguments: Any) -> tuple[torch.dtype | None, torch.device | None]:
    """The float dtype and the device that a call runs in: those of the parameters; a model without any goes by its
    first float argument."""
    found = next((x for x in held if x.is_floating_point()), None)
    if found is not None:
        return found.dtype, found.device
    return _float_dtype(arguments), held[0].device if held else None


def _float_dtype(value: Any) -> torch.dtype | None:
    """The dtype of the first float tensor among arguments."""
    if isinstance(value, Tensor):
        return value.dtype if value.is_floating_point() else None
    if isinstance(value, (Ragged, PackedSequence)):
        return _float_dtype(value.data)
    if isinstance(value, Forest):
        return _float_dtype(value.values)
    for part in value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ():
        found = _float_dtype(part)
        if found is not None:
            return found
    return None


def _entry_in(entry: Entry, dtype: DType) -> Entry:
    return replace(entry, graph=with_precision(entry.graph, dtype, default=declared(entry)))


@constant_result
def program_text(
    model: Model, name: str, training: bool, compute: str, operand: str, half: bool, flat: tuple[str, ...] = ()
) -> str:
    """The printed, normalised program of an entry point in one precision, made once; lists of the sizes in `flat` are
    stored without padding.

    Takes the model and not its tables: Dynamo, which runs this while it traces, hands objects on but no dicts.
    """
    key = (name, training, compute, operand, half, flat)
    if key not in model._texts:
        entry = model._entries[name].traced(training)
        normal = normalise(entry.graph)
        graph = in_precision(normal, Precision(compute, operand, half), declared(entry))
        model._texts[key] = printed(graph.with_flat(flat) if flat else graph, normal=graph is normal)
    return model._texts[key]


__all__ = ["EntryPoint", "FoldfuseError", "Model", "compile", "in_precision"]
