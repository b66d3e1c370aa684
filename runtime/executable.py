"""Programs as text, made ready to run.

An operator carries its program as printed IR, so that pickling, `torch.export` and copies work; here the text becomes a
program again. What is derived from a program (its normal form, and see `recording`) hangs on it and has its own text.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from threading import Lock, RLock
from typing import Any

import torch
from torch import Tensor

from ..compiler.errors import DeviceError, SizeError
from ..compiler.ir import Graph, Lambda, Value, sub_equations
from ..compiler.pipeline import normalise
from ..compiler.sizes import ROWS_OF, TIMES_OF, TOTAL_OF, Constant, Named, Quotient, Size, flat_size, stored, total_of
from ..compiler.text import parse, show
from . import eager, fused
from .dtypes import torch_dtype
from .layout import Layout

__all__ = ["Executable", "executable", "printed", "remember"]

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
        tables: the declared sizes whose tables of lengths stand beside the inputs, in the order of the declarations;
            behind the lengths of a flat size, where its rows and the places in them lie (`sizes.ROWS_OF`, `TIMES_OF`).
        hidden: the declared sizes, and totals of flat ones, that no input shows: their extents stand beside the inputs
            too.
        flat: per flat size, the size that it varies with.
    """

    def __init__(self, graph: Graph, text: str, normal: bool = False):
        self.graph, self.text = graph, text
        self.flat = graph.flat
        tables = [
            (d.name, ROWS_OF + d.name, TIMES_OF + d.name) if d.flat else (d.name,)
            for d in graph.sizes
            if d.input is None
        ]
        self.tables = tuple(name for names in tables for name in names)
        parameters, results = graph.body.parameters, graph.body.results
        # Where a named size can be read: (index among inputs and then outputs, dim).
        self._shown: dict[str, tuple[int, int]] = {}
        for index, value in enumerate((*parameters, *results)):
            for dim, axis in enumerate(stored(value.type.axes, self.flat)):
                if isinstance(axis, Named):
                    self._shown.setdefault(axis.name, (index, dim))
        missing = (len(parameters), 0)
        names = (*(d.name for d in graph.sizes), *(total_of(name).name for name in self.flat))
        self.hidden = tuple(name for name in names if self._shown.get(name, missing)[0] >= len(parameters))
        self.floats = tuple(v.type.dtype.is_float for v in parameters)
        self._normal: Executable | None = self if normal else None
        self._derived: dict[Any, Any] = {}
        self._lock = RLock()

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What is derived from this program under a key, made at the first call."""
        if key not in self._derived:
            with self._lock:
                if key not in self._derived:
                    self._derived[key] = make()
        return self._derived[key]

    # --- running ------------------------------------------------------------------------------------------------------

    def run(self, inputs: Sequence[Tensor], tables: Sequence[Tensor | None], extents: Sequence[int]) -> list[Tensor]:
        """The outputs: new contiguous tensors that share no memory, padding zero.

        Arguments:
            inputs: one per input, of dims (list axes…, shape…), stored as `sizes.stored` says.
            tables: one per name in `tables`; None where no list is ragged.
            extents: one per name in `hidden`.

        Raises:
            DeviceError: the tensors lie on several devices.
            FoldfuseError: whatever `eager.run` refuses.
        """
        self.check_device(inputs, tables)
        inputs = [x.contiguous() for x in inputs]
        lengths = {name: table for name, table in zip(self.tables, tables, strict=True) if table is not None}
        known = self.known(inputs, extents)
        kernels = fused.of(self, inputs[0].device, frozenset(lengths), known) if inputs else None
        if kernels is not None:
            outputs = fused.run(kernels, inputs, lengths, known)
        else:
            outputs = self._evaluate(inputs, lengths, known)
        return _separate((*inputs, *lengths.values()), outputs)

    def _evaluate(
        self, inputs: Sequence[Tensor], lengths: Mapping[str, Tensor], known: Mapping[str, int]
    ) -> list[Tensor]:
        """The outputs by the evaluator, which has padded lists only."""
        layouts = self.layouts(lengths, known)
        body = self.graph.body
        padded = [
            x if name is None else layouts[name].pad(x)
            for x, name in zip(inputs, map(self.flat_lists, body.parameters), strict=True)
        ]
        outputs = eager.run(self.graph, padded, lengths, maxima=known)
        return [
            x if name is None else layouts[name].take(x)
            for x, name in zip(outputs, map(self.flat_lists, body.results), strict=True)
        ]

    def flat_lists(self, value: Value) -> str | None:
        """The flat size whose lists an input or an output is; None where it is stored like any tensor."""
        return flat_size(value.type.axes, self.flat)

    def layouts(self, tables: Mapping[str, Tensor | None], extents: Mapping[str, int]) -> dict[str, Layout]:
        """Per flat size how its lists lie, by the tables and extents of a call."""
        return {name: Layout.given(name, tables, extents) for name in self.flat}

    @property
    def padded(self) -> Executable:
        """The same program on padded lists."""
        if not self.flat:
            return self
        made = lambda: executable(printed(self.graph.with_flat(()), self._normal is self))
        return self.once("padded", made)

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
        known = self.known(inputs, extents)

        def lookup(name: str) -> Any:
            if name not in known:
                bound = self._bounds.get(name)
                known[name] = unknown() if bound is None else bound
            return known[name]

        device = inputs[0].device if inputs else torch.device("cpu")
        types = [v.type for v in self.graph.body.results]
        return [
            torch.empty(
                (*(evaluate_size(axis, lookup) for axis in stored(t.axes, self.flat)), *t.shape),
                dtype=torch_dtype(t.dtype),
                device=device,
            )
            for t in types
        ]

    def known(self, inputs: Sequence[Tensor], extents: Sequence[Any]) -> dict[str, Any]:
        """The extents of the declared sizes: those that inputs show, and those that are given for the hidden ones."""
        shown = {name: inputs[i].shape[d] for name, (i, d) in self._shown.items() if i < len(inputs)}
        return {**shown, **dict(zip(self.hidden, extents, strict=True))}

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
                kinds = ("" if name.startswith((ROWS_OF, TIMES_OF)) else "lengths of " for name in self.tables)
                tables_of = (f"table of {kind}{name}" for kind, name in zip(kinds, self.tables))
                names = (*self.graph.input_names, *tables_of)
                raise DeviceError(
                    f"{self.graph.name} was given tensors on two devices: {names[0]} lies on {device}, "
                    f"{names[index]} on {tensor.device}. Move the model and its inputs to one "
                    "device with .to(device)"
                )

    def extents(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], given: Mapping[str, Any]) -> dict[str, Any]:
        """The extents of the named sizes: those that a call shows, that were given, that are known before a call."""
        values, count = (inputs, outputs), len(inputs)
        shown = {
            name: values[index >= count][index - count if index >= count else index].shape[dim]
            for name, (index, dim) in self._shown.items()
        }
        bounds = {name: bound for name, bound in self._bounds.items() if bound is not None}
        return {**bounds, **given, **shown}

    def hidden_extents(
        self, inputs: Sequence[Tensor], tables: Sequence[Tensor | None], given: Mapping[str, Any]
    ) -> list[Any]:
        """The extents of the sizes in `hidden`: as given, otherwise the greatest length (which waits for the device).

        Raises:
            SizeError: a size has neither an extent nor a table.
        """
        if all(name in given for name in self.hidden):
            return [given[name] for name in self.hidden]
        lengths = dict(zip(self.tables, tables, strict=True))
        lengths.update({d.name: inputs[d.input] for d in self.graph.sizes if d.input is not None})
        out = []
        for name in self.hidden:
            table = lengths.get(name)
            if name in given:
                out.append(given[name])
            elif name.startswith(TOTAL_OF):
                flat = lengths[name.removeprefix(TOTAL_OF)]
                out.append(int(flat.sum()) if flat is not None else 0)
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
                    self._normal = remember(normalise(self.graph))
        return self._normal


def _separate(given: Sequence[Tensor], outputs: Sequence[Tensor]) -> list[Tensor]:
    """Outputs as tensors that own their memory: an operator returns no view of its arguments, no tensor twice."""
    taken = {x.untyped_storage().data_ptr() for x in given}
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


def remember(graph: Graph) -> Executable:
    """The program of a graph that `compiler.pipeline.normalise` made."""
    program = _keep(Executable(graph, show(graph), normal=True))
    # The same text may have been given by a caller, who does not say that it is in normal form.
    program.mark_normal()
    return program


def printed(graph: Graph, normal: bool = False) -> str:
    """The text of a graph, with the user's lines as comments: programs that are alike but were written in two places
    are two texts, and the graph itself is kept for each, so that errors name the right lines.

    Arguments:
        graph: a program.
        normal: whether `compiler.pipeline.normalise` made it.
    """
    return _keep(Executable(graph, show(graph, sources=True), normal)).text
