"""Programs as text, made ready to run, and the programs that are derived from them, each made once.

An operator carries its program as printed IR, so that pickling, `torch.export` and copies work; here the text becomes a
`Executable` again. What is derived from a program (its normal form, its adjoints, its form under one more batch) hangs
on it and is a program with a text of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock, RLock
from typing import Any

import torch
from torch import Tensor

from ..compiler.adjoint import Differentiator, Pullback, differentiate
from ..compiler.builder import Builder
from ..compiler.errors import DeviceError, SizeError
from ..compiler.ir import Graph, Lambda, SizeDeclaration, Value, sub_equations
from ..compiler.pipeline import normalise
from ..compiler.sizes import Constant, Named, Quotient, Size
from ..compiler.text import parse, show
from . import eager
from .eager_shapes import torch_dtype

__all__ = ["Adjoint", "Executable", "Recording", "executable", "printed"]

LIMIT = 1024
"""How many programs are kept ready. A program that was dropped is read from its text again."""


# --- sizes ------------------------------------------------------------------------------------------------------------


def evaluate_size(size: Size, lookup: Callable[[str], Any]) -> Any:
    """A size of known names, as an int or as a symbolic int that keeps the clip at zero."""
    if isinstance(size, Quotient):
        value = evaluate_size(size.base, lookup)
        # Without a negative offset there is nothing to clip, and no guard on a symbolic size is made.
        out = (value + size.offset) // size.divisor
        return out if size.offset >= 0 else max(0, out) if isinstance(out, int) else torch.sym_max(0, out)
    return size.value if isinstance(size, Constant) else lookup(size.name)


def _static_bounds(body: Lambda) -> dict[str, int | None]:
    """The sizes that equations make, each with its greatest value where that is known before a call."""
    bounds: dict[str, int | None] = {}
    for equation in sub_equations(body):
        a = equation.attributes
        if equation.op == "split":
            bounds[a["inner"].name] = a["length"]
        elif equation.op == "scan" and a.get("stop", False):
            bounds[a["size"].name] = a["bound"]
    return bounds


# --- programs ---------------------------------------------------------------------------------------------------------


class Executable:
    """A program, ready to run on tensors.

    Arguments:
        graph: the program.
        text: its printed form.
        normal: whether it is in normal form already.

    Attributes:
        tables: the declared sizes whose tables of lengths stand beside the inputs, in the order of the declarations.
        hidden: the declared sizes that no input shows: their extents stand beside the inputs too.
    """

    def __init__(self, graph: Graph, text: str, normal: bool = False):
        self.graph, self.text = graph, text
        self.tables = tuple(d.name for d in graph.sizes if d.input is None)
        parameters, results = graph.body.parameters, graph.body.results
        # Where a named size can be read: (index among inputs and then outputs, dim).
        self._shown: dict[str, tuple[int, int]] = {}
        for index, value in enumerate((*parameters, *results)):
            for dim, axis in enumerate(value.type.axes):
                if isinstance(axis, Named):
                    self._shown.setdefault(axis.name, (index, dim))
        missing = (len(parameters), 0)
        self.hidden = tuple(d.name for d in graph.sizes if self._shown.get(d.name, missing)[0] >= len(parameters))
        self.floats = tuple(v.type.dtype.is_float for v in parameters)
        self._normal: Executable | None = self if normal else None
        self._derived: dict[Any, Any] = {}
        self._lock = RLock()

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._derived:
            with self._lock:
                if key not in self._derived:
                    self._derived[key] = make()
        return self._derived[key]

    # --- running ------------------------------------------------------------------------------------------------------

    def run(self, inputs: Sequence[Tensor], tables: Sequence[Tensor | None], extents: Sequence[int]) -> list[Tensor]:
        """The outputs: new contiguous tensors that share no memory, padding zero.

        Arguments:
            inputs: one per input, of dims (list axes…, shape…).
            tables: one per name in `tables`; None where no list is ragged.
            extents: one per name in `hidden`.

        Raises:
            DeviceError: the tensors lie on several devices.
            FoldfuseError: whatever `eager.run` refuses.
        """
        self.check_device(inputs, tables)
        inputs = [x.contiguous() for x in inputs]
        lengths = {name: table for name, table in zip(self.tables, tables, strict=True) if table is not None}
        outputs = eager.run(self.graph, inputs, lengths, maxima=dict(zip(self.hidden, extents, strict=True)))
        return _separate(inputs, outputs)

    def empty_outputs(
        self,
        inputs: Sequence[Tensor],
        tables: Sequence[Tensor | None],
        extents: Sequence[Any],
        unknown: Callable[[], Any],
    ) -> list[Tensor]:
        """What `run` gives, without values.

        Arguments:
            inputs, tables, extents: as in `run`; extents may be symbolic.
            unknown: makes a symbolic int for the extent of a list that an unfold without bound makes.
        """
        self.check_device(inputs, tables)
        known: dict[str, Any] = {name: inputs[i].shape[d] for name, (i, d) in self._shown.items() if i < len(inputs)}
        known.update(zip(self.hidden, extents, strict=True))

        def lookup(name: str) -> Any:
            if name not in known:
                bound = self._bounds.get(name)
                known[name] = unknown() if bound is None else bound
            return known[name]

        device = inputs[0].device if inputs else torch.device("cpu")
        types = [v.type for v in self.graph.body.results]
        return [
            torch.empty(
                (*(evaluate_size(axis, lookup) for axis in t.axes), *t.shape), dtype=torch_dtype(t.dtype), device=device
            )
            for t in types
        ]

    @cached_property
    def _bounds(self) -> dict[str, int | None]:
        return _static_bounds(self.graph.body)

    def check_device(self, inputs: Sequence[Tensor], tables: Sequence[Tensor | None]) -> None:
        """Refuse tensors on several devices.

        Raises:
            DeviceError: naming the first input on another device than the first input's.
        """
        if not inputs:
            return
        device = inputs[0].device
        for index, tensor in enumerate((*inputs, *tables)):
            if tensor is not None and tensor.device != device:
                names = (*self.graph.input_names, *(f"table of lengths of {name}" for name in self.tables))
                raise DeviceError(
                    f"{self.graph.name} was given tensors on two devices: {names[0]} lies on {device}, "
                    f"{names[index]} on {tensor.device}. Move the model and its inputs to one "
                    "device with .to(device)"
                )

    def extents(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], given: Mapping[str, Any]) -> dict[str, Any]:
        """The extents of the named sizes that a call shows, and those that were given."""
        values, count = (inputs, outputs), len(inputs)
        shown = {
            name: values[index >= count][index - count if index >= count else index].shape[dim]
            for name, (index, dim) in self._shown.items()
        }
        return {**given, **shown}

    def hidden_extents(self, given: Mapping[str, Any], tables: Sequence[Tensor | None]) -> list[Any]:
        """The extents of the sizes in `hidden`: as given, otherwise the greatest length (which waits for the device).

        Raises:
            SizeError: a size has neither an extent nor a table.
        """
        if not self.hidden:
            return []
        lengths = dict(zip(self.tables, tables, strict=True))
        out = []
        for name in self.hidden:
            table = lengths.get(name)
            if name in given:
                out.append(given[name])
            elif table is not None:
                out.append(int(table.max()) if table.numel() else 0)
            else:
                raise SizeError(f"the size {name} of {self.graph.name} is not given, and no input shows it")
        return out

    # --- derived programs ---------------------------------------------------------------------------------------------

    def mark_normal(self) -> None:
        """Note that this program is in normal form."""
        self._normal = self

    @property
    def normalised(self) -> Executable:
        """This program in normal form."""
        if self._normal is None:
            with self._lock:
                if self._normal is None:
                    self._normal = _remember(normalise(self.graph))
        return self._normal

    def record(self, needs: tuple[bool, ...], memory: str | None) -> Recording:
        """How to run this program so that it can be differentiated.

        Arguments:
            needs: per input, whether its cotangent will be wanted.
            memory: the residual choice of `compiler.adjoint`, or None to keep nothing but the inputs.
        """
        if self.normalised is not self:
            return self.normalised.record(needs, memory)
        # The adjoint of a program whose inputs hold tables has them at other places; it keeps nothing.
        if any(d.input is not None for d in self.graph.sizes):
            memory = None
        return self._once(("record", needs, memory), lambda: self._record(needs, memory))

    def _record(self, needs: tuple[bool, ...], memory: str | None) -> Recording:
        count = len(self.graph.body.results)
        if memory is None or not any(needs):
            return Recording(self, count, needs, memory)
        forward, backward, pullback = differentiate(self.graph, needs, memory=memory)
        return Recording(_remember(normalise(forward)), count, needs, memory, backward, pullback)

    def batched(self, inputs: tuple[bool, ...], tables: tuple[bool, ...]) -> tuple[Executable, str]:
        """This program as the body of one more map.

        Arguments:
            inputs: per input, whether it has the new axis, in front.
            tables: per name in `tables`, whether its table has it.

        Returns:
            The program, each of whose outputs has the new axis in front, and the name of the axis's size.
        """
        return self._once(("batched", inputs, tables), lambda: self._batched(inputs, tables))

    def _batched(self, inputs: tuple[bool, ...], tables: tuple[bool, ...]) -> tuple[Executable, str]:
        graph = self.graph
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
        ragged = dict(zip(self.tables, tables, strict=True))
        declared = [SizeDeclaration(name)]
        for d in graph.sizes:
            own = ragged[d.name] if d.input is None else inputs[d.input]
            declared.append(replace(d, over=(name, *d.over)) if own else d)
        made = Graph(graph.name, body, graph.input_names, graph.output_names, tuple(declared), graph.checks)
        return _remember(normalise(made)), name


def _separate(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> list[Tensor]:
    """Outputs as tensors that own their memory: an operator returns no view of an input, and no tensor twice."""
    taken = {x.untyped_storage().data_ptr() for x in inputs}
    out = []
    for value in outputs:
        value = value.contiguous()
        storage = value.untyped_storage()
        where = storage.data_ptr()
        # A part of a larger buffer would keep all of it alive.
        if where in taken or storage.nbytes() != value.numel() * value.element_size():
            value = value.clone(memory_format=torch.contiguous_format)
            where = value.untyped_storage().data_ptr()
        taken.add(where)
        out.append(value)
    return out


# --- the programs that are ready --------------------------------------------------------------------------------------

_READY: OrderedDict[str, Executable] = OrderedDict()
_READY_LOCK = Lock()


def executable(text: str) -> Executable:
    """The program of a printed graph; kept, so that what is derived from it is made once.

    Arguments:
        text: what `compiler.text.show` printed.

    Raises:
        ParseError: the text is no printed graph.

    Example:
        >>> executable(show(graph)).tables
        ('B', 'T')
    """
    with _READY_LOCK:
        found = _READY.get(text)
        if found is not None:
            _READY.move_to_end(text)
            return found
    return _keep(Executable(parse(text), text))


def _keep(program: Executable) -> Executable:
    with _READY_LOCK:
        program = _READY.setdefault(program.text, program)
        while len(_READY) > LIMIT:
            _READY.popitem(last=False)
    return program


def _remember(graph: Graph) -> Executable:
    """The program of a graph in normal form."""
    program = _keep(Executable(graph, show(graph), normal=True))
    # The same text may have been given by a caller, who does not say that it is in normal form.
    program.mark_normal()
    return program


def printed(graph: Graph, normal: bool = False) -> str:
    """The text of a graph, of which the graph itself is kept: errors then name the user's lines, which a text does not
    hold.

    Arguments:
        graph: a program.
        normal: whether `compiler.pipeline.normalise` made it.
    """
    return _keep(Executable(graph, show(graph), normal)).text


# --- derivatives ------------------------------------------------------------------------------------------------------


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


class Recording:
    """One way to run a program so that it can be differentiated.

    Arguments:
        program: what is run: its last outputs are residuals.
        outputs: how many outputs are no residuals.
        needs: per input, whether its cotangent is wanted.
        memory: the residual choice; None when there are no residuals.
        backward, pullback: what `compiler.adjoint.differentiate` gave, where there are residuals.

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
        backward: Graph | None = None,
        pullback: Pullback | None = None,
    ):
        self.program, self.outputs, self.needs, self.memory = program, outputs, needs, memory
        self._backward, self._pullback = backward, pullback
        self._differentiator = Differentiator(memory or "auto")
        body = program.graph.body
        self.differentiable = tuple(self._differentiator.active_results(body, needs))
        counts = {body.results.index(v) for v in _counts(body).values() if v in body.results}
        self.saved = (*sorted(j for j in counts if j < outputs), *range(outputs, len(body.results)))
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
                residual = self._backward is None or any(present[self.outputs :])
                self._adjoints[present] = self._whole(present) if residual else self._first(present)
            return self._adjoints[present]

    def _first(self, present: tuple[bool, ...]) -> Adjoint:
        """The adjoint that reads the residuals."""
        graph, pullback = self._backward, self._pullback
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
            _remember(made),
            pullback.kept,
            tuple(range(self.outputs, self.outputs + pullback.residuals)),
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
        for name, count in _counts(graph.body).items():
            if name in named:
                j = results.index(count)
                counts.setdefault(j, _alike(count))
                sizes.append(SizeDeclaration(name, tuple(map(str, count.type.axes)), len(kept) + list(counts).index(j)))
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
        return Adjoint(_remember(normalise(made)), kept, tuple(counts), pullback.useful, pullback.reached)


def _counts(body: Lambda) -> dict[str, Value]:
    """The sizes that a body determines, each with the value that holds the counts."""
    return {name: e.outputs[i] for e in body.equations for name, i in e.binds}


def _alike(value: Value) -> Value:
    return Value(value.type, value.name)
