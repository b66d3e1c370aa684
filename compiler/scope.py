"""Scopes: the builders of the bodies being traced, and what all bodies of one program share."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from . import types
from .builder import Builder
from .errors import ParameterError, StructureError, TraceError
from .ir import Equation, Value
from .parameters import Parameter
from .sizes import Size, Sizes
from .types import DType, f32, from_numpy, i64

_CURRENT: ContextVar[Scope | None] = ContextVar("foldfuse_scope_of_trace", default=None)
_ASSIGNMENT = re.compile(r"^\s*([A-Za-z_]\w*)\s*=[^=]")


class Scope(Builder):
    """The builder of a body that is being traced.

    Arguments:
        parent: the enclosing scope.
        program: what is shared by all scopes of a trace.
        index: makes this body's loop index when it is first asked for; None when the body is no loop of its own.
    """

    parent: Scope | None

    def __init__(self, parent: Scope | None, program: Program, index: Callable[[Scope], Value] | None = None):
        super().__init__(parent, locate=True)
        self.program = program
        self.make_index = index
        self.own_index: Value | None = None
        self.loop: Size | None = None

    def enter(self, size: Size, values: Sequence[Value]) -> None:
        """Say that this body runs over lists of a size, the given ones among them.

        Raises:
            StructureError: rows of a list of lists would be read by the lengths of the rows of a loop around.
        """
        size = self.program.sizes.resolve(size)
        around: Scope | None = self.parent
        while around is not None:
            if around.loop is not None and self.program.sizes.resolve(around.loop) == size:
                what = "a list of lists is run over inside of a loop over itself"
                self.program.refuse_own_lengths(size, values, what)
            around = around.parent
        self.loop = size

    def emit(self, op: str, inputs: Sequence[Value], *rest: Any, **keywords: Any) -> tuple[Value, ...]:
        if op in ("element", "reduce") and len(inputs[0].type.axes) > 1:
            what = "a row is taken of a list of lists" if op == "element" else "the rows of a list of lists are reduced"
            self.program.refuse_own_lengths(inputs[0].type.axes[0], inputs[:1], what)
        outputs = super().emit(op, inputs, *rest, **keywords)
        source = self.equations[-1].source
        if source is not None and outputs:
            match = _ASSIGNMENT.match(source.text)
            if match and not outputs[0].name:
                outputs[0].name = match.group(1)
        return outputs

    def indices(self) -> list[Value]:
        """The loop indices of the enclosing bodies and of this one, outermost first."""
        outer = self.parent.indices() if self.parent is not None else []
        if self.make_index is None:
            return outer
        if self.own_index is None:
            self.own_index = self.make_index(self)
        return [*outer, self.own_index]

    @contextmanager
    def active(self) -> Iterator[Scope]:
        """Make this the scope that traced operations append to."""
        token = _CURRENT.set(self)
        try:
            yield self
        finally:
            _CURRENT.reset(token)


class Program:
    """What the scopes of one trace share: sizes, parameters, the seed, the default float dtype.

    Arguments:
        float_dtype: dtype of float constants and parameters.
        training: whether dropout drops.
    """

    def __init__(self, float_dtype: DType = f32, training: bool = False):
        self.float_dtype = float_dtype
        self.training = training
        self.mode_matters = False
        self.sizes = Sizes()
        self.root = Scope(None, self)
        self.parameters: dict[Any, Value] = {}  # `Parameter`, or the id of a torch tensor
        self.tensors: dict[int, tuple[str, Any]] = {}
        self.seed: Value | None = None
        self.sites = 0

    def parameter(self, parameter: Parameter) -> Value:
        """The graph input for a parameter."""
        if parameter not in self.parameters:
            if parameter.shape is None:
                raise ParameterError(
                    f"{parameter!r} has no shape yet: call its layer on an input first", parameter.source
                )
            dtype = parameter.dtype or self.float_dtype
            if not parameter.learned and np.asarray(parameter.init).dtype.kind not in "f":
                dtype = from_numpy(np.asarray(parameter.init).dtype)
            self.parameters[parameter] = self.root.parameter(types.array(dtype, *parameter.shape), parameter.name)
        return self.parameters[parameter]

    def tensor(self, tensor: Any) -> Value:
        """The graph input for a torch tensor that a step closes over, under the name of the module that owns it."""
        key = id(tensor)
        if key not in self.parameters:
            dtype = torch_dtype(tensor)
            if dtype.is_float and not tensor.is_leaf:
                raise ParameterError(
                    "a step closes over a tensor that was computed under autograd; its gradient would be lost. "
                    "Pass it as an input of the program, or close over the nn.Parameter itself"
                )
            name = _owner_name(tensor) or f"tensor_{len(self.tensors)}"
            dtype = self.float_dtype if dtype.is_float else dtype
            self.parameters[key] = self.root.parameter(types.array(dtype, *tensor.shape), name.rsplit(".", 1)[-1])
            self.tensors[key] = (name, tensor)
        return self.parameters[key]

    def next_seed(self) -> Value:
        """A seed of its own for a random site: the call's seed folded with the site and the enclosing loop indices."""
        if self.seed is None:
            self.seed = self.root.parameter(types.array(i64), "seed")
        scope = current()
        site = scope.constant(self.sites, i64)
        self.sites += 1
        seed = scope("fold_seed", self.seed, site)
        for index in scope.indices():
            seed = scope("fold_seed", seed, index)
        return seed

    def refuse_own_lengths(self, size: Size, values: Sequence[Value], what: str) -> None:
        """Refuse lists of this size whose rows have lengths of their own: outside of a loop over the list a row's
        length has no name.

        Raises:
            StructureError: there is such a list.
        """
        axis = str(self.sizes.resolve(size))
        for value in values:
            for inner in value.type.axes[1:]:
                # A size that no input binds is determined by a step, so differs from row to row.
                if any(axis in self.sizes.over.get(name, (axis,)) for name in self.sizes.resolve(inner).names()):
                    raise StructureError(
                        f"{what}, whose rows have lengths of their own, which are known only where a map, fold or scan "
                        "runs over them. Reduce each row to an array first, inside of ff.map"
                    )

    def merge(self, left: Size, right: Size, where: str) -> bool:
        """Make two sizes one in all that has been traced, where that can be (see `Sizes.merge`)."""
        known = len(self.sizes.mapping)
        merged = self.sizes.merge(left, right, where)
        if len(self.sizes.mapping) > known:
            scope: Builder | None = current()
            while scope is not None:
                self._resolve(scope.parameters, scope.captures.values(), scope.equations)
                scope = scope.parent
        return merged

    def _resolve(self, *groups: Any) -> None:
        for group in groups:
            for item in group:
                if isinstance(item, Value):
                    item.type = item.type.map_sizes(self.sizes.resolve)
                    continue
                equation: Equation = item
                equation.attributes = {k: self._resolve_attribute(a) for k, a in equation.attributes.items()}
                self._resolve(equation.outputs)
                for body in equation.bodies:
                    self._resolve(body.parameters, body.equations)

    def _resolve_attribute(self, attribute: Any) -> Any:
        if isinstance(attribute, Size):
            return self.sizes.resolve(attribute)
        return tuple(map(self._resolve_attribute, attribute)) if isinstance(attribute, tuple) else attribute


def current() -> Scope:
    """The scope being traced.

    Raises:
        TraceError: none is: an operation on parameters stands outside of a program.
    """
    scope = _CURRENT.get()
    if scope is None:
        raise TraceError(
            "an operation of a program was called outside of one. Put it into a function (a step, a lambda) and "
            "give that to "
            "ff.compile or to a combinator"
        )
    return scope


def is_tracing() -> bool:
    """Whether a program is being traced."""
    return _CURRENT.get() is not None


def torch_dtype(tensor: Any) -> DType:
    """The dtype of a torch tensor, read without importing torch."""
    name = str(tensor.dtype).rsplit(".", 1)[-1]
    table = {
        "float32": "f32",
        "float64": "f64",
        "float16": "f16",
        "bfloat16": "bf16",
        "int32": "i32",
        "int64": "i64",
        "bool": "bool",
        "uint8": "i64",
        "int16": "i64",
        "int8": "i64",
    }
    if name not in table:
        raise StructureError(f"tensors of {tensor.dtype} have no meaning in a program")
    return types.DTYPES[table[name]]


def is_tensor(value: Any) -> bool:
    """Whether a value is a torch tensor (parameters included)."""
    return type(value).__module__.split(".")[0] == "torch" and hasattr(value, "requires_grad")


def is_module(value: Any) -> bool:
    """Whether a value is a torch module."""
    return hasattr(value, "named_parameters") and hasattr(value, "_modules")


def _owner_name(tensor: Any) -> str | None:
    """The dotted name of a tensor: the variable that holds the outermost module on the stack that owns it, then its
    path.
    """
    frame, module, path, variable = sys._getframe(1), None, "", None
    while frame is not None:
        for name, value in frame.f_locals.items():
            if value is tensor and module is None and not name.startswith("_") and _users(frame):
                variable = variable or name
            if is_module(value):
                for inner, owned in (*value.named_parameters(), *value.named_buffers()):
                    if owned is tensor:
                        if name in ("self", "module", "f", "function") or not _users(frame):
                            if module is None:
                                module, path = value, inner
                            elif value is not module and len(inner) > len(path):
                                module, path = value, inner
                        else:
                            return f"{name}.{inner}"
        if module is not None:
            for name, value in frame.f_globals.items():
                if value is module and _users(frame):
                    return f"{name}.{path}"
        frame = frame.f_back
    if module is not None:
        kind = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(module).__name__).lower()
        return f"{kind}.{path}"
    return variable


def _users(frame: Any) -> bool:
    file = frame.f_code.co_filename
    from .errors import _is_ours

    return not _is_ours(file)
