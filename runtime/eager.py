"""The torch evaluator of the IR: what runs on a CPU, and the unfused baseline everywhere.

A body is compiled once into a flat list of steps, one torch call or a few for each equation; loops over lists become
leading dims of tensors (see `eager_sizes`). It needs no derivative of its own: with gradients enabled everything is
differentiable by torch autograd, and inside an operator it runs forward and adjoint graphs alike. The meaning of
primitives stands in `eager_operations` and `eager_contraction`, that of combinators in `eager_lists`, `eager_loops`
and `eager_trees`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..compiler.errors import DtypeError, ShapeError, SizeError
from ..compiler.ir import Graph, Lambda, sub_equations
from ..compiler.sizes import Named, Size
from .dtypes import torch_dtype
from .eager_lists import LISTS
from .eager_loops import LOOPS
from .eager_operations import CONTEXTUAL, OPERATIONS, make_constant
from .eager_shapes import trailing
from .eager_sizes import Environment, Extent
from .eager_trees import TREES

__all__ = ["Context", "Plan", "environment", "prepare", "run", "zero_padding"]

_COMBINATORS = {**LISTS, **LOOPS, **TREES}
# Rows that are not live must not run away or be traversed; elsewhere liveness only says whose errors count.
_GUIDED = frozenset(TREES)
_GUARDED = frozenset(("gather", "scatter_add", "gather_along", "scatter_along", "element", "scatter_element", "switch"))


class Context:
    """Where an evaluation stands.

    Attributes:
        sizes: the list sizes known here.
        live: bool that broadcasts over the leading dims, which rows are not padding; None when all are.
        check: whether the host may look at data: to refuse indices out of range and empty lists, and to skip work.
    """

    __slots__ = ("check", "live", "sizes")

    def __init__(self, sizes: Environment, live: Tensor | None, check: bool):
        self.sizes, self.live, self.check = sizes, live, check

    def inside(self, sizes: Environment, live: Tensor | None) -> Context:
        """The context of a body."""
        return self if sizes is self.sizes and live is self.live else Context(sizes, live, self.check)


class Plan:
    """A body compiled for a number of leading dims.

    Arguments:
        body: the lambda.
        depth: the number of leading dims of its parameters.

    Attributes:
        names: the list sizes that stand in it.
    """

    def __init__(self, body: Lambda, depth: int):
        self.depth = depth
        places = {v: i for i, v in enumerate(body.parameters)}
        self._constants: list[tuple[int, Any]] = []
        self._by_device: dict[torch.device, list[Tensor | None]] = {}
        steps = []
        for equation in body.equations:
            for value in equation.outputs:
                places[value] = len(places)
            if equation.op == "constant":
                self._constants.append((places[equation.output], equation))
            else:
                steps.append((equation, *_compile(equation, depth)))
        self.results = tuple(places[v] for v in body.results)
        self._parameters, self._count = len(body.parameters), len(places)
        self._steps = _with_releases(steps, places, body)
        equations = list(sub_equations(body))
        self.names = frozenset(name for size in _sizes(body, equations) for name in size.names())
        self._guided = any(e.op in _GUIDED or e.attributes.get("stop", False) for e in equations)
        self._guarded = any(
            e.op in _GUARDED or e.attributes.get("op") in ("max", "min") or e.attributes.get("positive", False)
            for e in equations
        )

    def reads_live(self, context: Context) -> bool:
        """Whether this body's evaluation depends on which rows are live."""
        return self._guided or (self._guarded and context.check)

    def _registers(self, device: torch.device) -> list[Tensor | None]:
        template = self._by_device.get(device)
        if template is None:
            template = [None] * self._count
            for place, equation in self._constants:
                template[place] = make_constant(equation, self.depth, device)
            self._by_device[device] = template
        return template.copy()

    def __call__(self, context: Context, arguments: Sequence[Tensor]) -> list[Tensor]:
        """The results for arguments of dims (lead…, list axes…, shape…)."""
        values, _ = self.evaluate(context, arguments)
        return values

    def evaluate(self, context: Context, arguments: Sequence[Tensor]) -> tuple[list[Tensor], Environment]:
        """The results, and the sizes known at the end."""
        registers = self._registers(context.sizes.device)
        registers[: self._parameters] = arguments
        for kind, function, inputs, output, released, binds in self._steps:
            if kind == 0:
                registers[output] = function(*[registers[i] for i in inputs])
            elif kind == 1:
                registers[output] = function(context, *[registers[i] for i in inputs])
            else:
                for place, value in zip(output, function(context, [registers[i] for i in inputs])):
                    registers[place] = value
                if binds:
                    context = context.inside(_bind(context.sizes, binds, registers, output), context.live)
            for place in released:
                registers[place] = None
        return [registers[i] for i in self.results], context.sizes


def _compile(equation: Any, depth: int) -> tuple[int, Callable[..., Any]]:
    """The kind of a step (0 plain, 1 given the context, 2 a combinator) and its function."""
    if equation.op in OPERATIONS:
        return 0, OPERATIONS[equation.op](equation, depth)
    if equation.op in CONTEXTUAL:
        return 1, CONTEXTUAL[equation.op](equation, depth)
    return 2, _COMBINATORS[equation.op](equation, depth, prepare)


def _with_releases(
    steps: Sequence[tuple[Any, int, Any]], places: Mapping[Any, int], body: Lambda
) -> list[tuple[Any, ...]]:
    """The steps as the interpreter loop takes them, each with the registers that nothing reads after it."""
    kept = {places[v] for v in (*body.parameters, *body.results)}
    out = []
    for equation, kind, function in reversed(steps):
        inputs = tuple(places[v] for v in equation.inputs)
        outputs = tuple(places[v] for v in equation.outputs)
        released = tuple({i for i in (*inputs, *outputs) if i not in kept})
        kept.update(released)
        binds = tuple(_binding(equation, name, index) for name, index in equation.binds)
        out.append((kind, function, inputs, outputs if kind == 2 else outputs[0], released, binds))
    return out[::-1]


def _sizes(body: Lambda, equations: Sequence[Any]) -> set[Size]:
    found = {size for v in body.parameters for size in v.type.axes}
    for equation in equations:
        for value in (*equation.inputs, *equation.outputs):
            found.update(value.type.axes)
        for attribute in equation.attributes.values():
            found.update(
                a for a in (attribute if isinstance(attribute, tuple) else (attribute,)) if isinstance(a, Size)
            )
    return found


# --- sizes that equations bind ----------------------------------------------------------------------------------------


def _static_maximum(equations: Sequence[Any], name: str) -> int | None:
    """The maximum of a size that an equation makes, where it is known before the call."""
    for equation in equations:
        for e in (equation, *(s for body in equation.bodies for s in sub_equations(body))):
            if e.op == "split" and e.attributes["inner"] == Named(name):
                return e.attributes["length"]
            if e.op == "scan" and e.attributes.get("stop") and e.attributes["size"] == Named(name):
                return e.attributes["bound"]
    return None


def _binding(equation: Any, name: str, index: int) -> tuple[Any, ...]:
    """What binding needs: the name, the index of the output with the lengths, their axes, the static maximum, and an
    output with the axis of it that shows the maximum."""
    shown = [(i, v.type.axes.index(Named(name))) for i, v in enumerate(equation.outputs) if Named(name) in v.type.axes]
    over = tuple(map(str, equation.outputs[index].type.axes))
    return name, index, over, _static_maximum([equation], name), shown[0] if shown else None


def _bind(
    sizes: Environment, binds: Sequence[tuple[Any, ...]], registers: Sequence[Any], outputs: Sequence[int]
) -> Environment:
    for name, index, over, maximum, shown in binds:
        if shown is not None:
            maximum = registers[outputs[shown[0]]].size(sizes.depth + shown[1])
        sizes = sizes.bind(name, Extent(maximum, registers[outputs[index]], over))
    return sizes


# --- compiled bodies --------------------------------------------------------------------------------------------------

_PLANS: WeakKeyDictionary[Lambda, dict[int, Plan]] = WeakKeyDictionary()


def prepare(body: Lambda, depth: int) -> Plan:
    """The plan of a body at a number of leading dims; made once, kept as long as the body lives."""
    plans = _PLANS.setdefault(body, {})
    if depth not in plans:
        plans[depth] = Plan(body, depth)
    return plans[depth]


# --- graphs -----------------------------------------------------------------------------------------------------------


def environment(
    graph: Graph, inputs: Sequence[Tensor], tables: Mapping[str, Any], maxima: Mapping[str, int], device: torch.device
) -> Environment:
    """The declared sizes: maxima from the extents of inputs, lengths from the tables; see `run`."""
    shown: dict[str, int] = {}
    for value, tensor in zip(graph.body.parameters, inputs, strict=True):
        for axis, extent in zip(value.type.axes, tensor.shape):
            if isinstance(axis, Named):
                shown.setdefault(axis.name, extent)
    sizes = Environment({}, 0, device)
    for declaration in graph.sizes:
        name = declaration.name
        table = inputs[declaration.input] if declaration.input is not None else tables.get(name)
        maximum = maxima.get(name, shown.get(name))
        if maximum is None:
            maximum = _static_maximum(graph.body.equations, name)
        if table is None:
            if maximum is None:
                raise SizeError(f"the size {name} of {graph.name} is not given, and no input shows it")
            extent = Extent(maximum)
        elif isinstance(table, int) and maximum in (None, table):
            extent = Extent(table)
        else:
            table = torch.as_tensor(table, dtype=torch.int64, device=device)
            if declaration.input is not None:
                axes: Sequence[Size] = graph.body.parameters[declaration.input].type.axes
            else:
                axes = [Named(axis) for axis in declaration.over]
            known = all(n in sizes.extents for axis in axes for n in axis.names())
            mask = sizes.list_mask(axes) if known else None
            # Lengths in the padding of an outer list may be anything. They count as one: over an empty list a softmax
            # or a maximum is no number, and torch's own derivatives carry that on from where it is masked.
            dead = torch.ones_like(table) if maximum else torch.zeros_like(table)
            lengths = table if mask is None or not table.dim() else torch.where(mask, table, dead)
            extent = Extent(maximum, lengths, declaration.over if table.dim() else ())
        sizes = sizes.bind(name, extent)
    return sizes


def _check_inputs(graph: Graph, inputs: Sequence[Tensor], sizes: Environment) -> None:
    for name, value, tensor in zip(graph.input_names, graph.body.parameters, inputs, strict=True):
        type_ = value.type
        expected = (*(sizes.maximum(axis) for axis in type_.axes), *type_.shape)
        if tuple(tensor.shape) != expected:
            raise ShapeError(
                f"the input {name} of {graph.name} is {type_}, padded {list(expected)}; got {list(tensor.shape)}"
            )
        if tensor.dtype is not torch_dtype(type_.dtype):
            raise DtypeError(f"the input {name} of {graph.name} is {type_}; got a tensor of {tensor.dtype}")


def _harmless(value: Tensor, type_: Any, sizes: Environment) -> Tensor:
    """An input whose padding is replaced by ones. A derivative at a dead position is multiplied by zero by torch, which
    a NaN or an infinity would survive; one is where logarithms, quotients, roots and norms are smooth."""
    mask = sizes.list_mask(type_.axes) if type_.dtype.is_float else None
    return value if mask is None else torch.where(trailing(mask, value.dim()), value, value.new_ones(()))


def run(
    graph: Graph,
    inputs: Sequence[Tensor],
    tables: Mapping[str, Any] | None = None,
    *,
    maxima: Mapping[str, int] | None = None,
    check: bool | None = None,
    raw: bool = False,
) -> list[Tensor]:
    """Evaluate a graph on tensors.

    Arguments:
        graph: any graph: a program, optimised or not, or an adjoint.
        inputs: one tensor per input, of dims (list axes…, shape…) padded to the maxima; what lies in padding is not
            read.
        tables: per declared size (but those that an input holds): an int when no list is ragged, or an i64 tensor of
            lengths with one dim per axis in the declaration's `over`. A size left out is that of the inputs that show
            it.
        maxima: per declared size, the extent of padded lists. Left out: the extent of the inputs that show it; where
            none does, the greatest length (which on CUDA waits for the device).
        check: whether data is looked at on the host, to refuse indices out of range and empty lists and to run only the
            branches that occur; left out, on a CPU.
        raw: whether padding of the outputs may hold anything; it is zero otherwise.

    Returns:
        One tensor per output, of dims (list axes…, shape…). They may share memory with inputs and with each other. A
        list of a size that an unfold makes is padded to its bound where it has one, otherwise to the steps that were
        run.

    Raises:
        ShapeError, DtypeError: an input has another shape or dtype than its type says.
        SizeError: a size is not known.
        IndexRangeError, EmptyError: (only when `check`) an index is out of range, an extremum is taken of an empty
            list.
        UnboundedError: an unfold without bound was not stopped by its predicate.

    Example:
        >>> last, states = run(graph, [weights, padded], {"B": 3, "T": torch.tensor([4, 2, 0])})
    """
    device = inputs[0].device if inputs else torch.device("cpu")
    check = device.type == "cpu" if check is None else check
    sizes = environment(graph, inputs, tables or {}, maxima or {}, device)
    _check_inputs(graph, inputs, sizes)
    types = [v.type for v in graph.body.parameters]
    if torch.is_grad_enabled() and any(v.requires_grad for v in inputs):
        inputs = [_harmless(v, t, sizes) for v, t in zip(inputs, types, strict=True)]
    # Casts are in the graph; autocast must not add its own.
    with torch.autocast(device.type, enabled=False):
        outputs, sizes = prepare(graph.body, 0).evaluate(Context(sizes, None, check), inputs)
    return (
        outputs if raw else [zero_padding(v, r.type, sizes) for v, r in zip(outputs, graph.body.results, strict=True)]
    )


def zero_padding(value: Tensor, type_: Any, sizes: Environment) -> Tensor:
    """A value whose padding is zero."""
    mask = sizes.list_mask(type_.axes)
    return value if mask is None else torch.where(trailing(mask, value.dim()), value, value.new_zeros(()))
