"""Tracing: a user's Python function run once on typed symbols, giving IR.

A traced value stands for a value of the example being computed. `Scope` is the builder of a body being traced; scopes nest
as combinators do. What a user writes on traced values is in `functions.py` and `language.py`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from . import types
from .builder import Builder
from .errors import EmptyError, ParameterError, StructureError, TraceError, user_source
from .ir import Equation, Lambda, Value
from .parameters import Parameter
from .sizes import Size, Sizes
from .types import DType, ListType, Rep, f32, from_numpy, i64, is_namedtuple

_CURRENT: ContextVar[Scope | None] = ContextVar("foldfuse_scope_of_trace", default=None)
_ASSIGNMENT = re.compile(r"^\s*([A-Za-z_]\w*)\s*=[^=]")


# --- scopes -----------------------------------------------------------------------------------------------------------


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

    def emit(self, op: str, inputs: Sequence[Value], *rest: Any, **keywords: Any) -> tuple[Value, ...]:
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
                raise ParameterError(f"{parameter!r} has no shape yet: call its layer on an input first", parameter.source)
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

    def unify(self, left: Size, right: Size, where: str) -> Size:
        """Make two sizes one, in all that has been traced."""
        before = dict(self.sizes.mapping)
        size = self.sizes.unify(left, right, where)
        if self.sizes.mapping != before:
            scope: Builder | None = current()
            while scope is not None:
                self._resolve(scope.parameters, scope.captures.values(), scope.equations)
                scope = scope.parent
        return size

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
            "an operation of a program was called outside of one. Put it into a function (a step, a lambda) and give that to "
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
        "float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16", "int32": "i32", "int64": "i64", "bool": "bool",
        "uint8": "i64", "int16": "i64", "int8": "i64",
    }  # fmt: skip
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
    """The dotted name of a tensor: the variable that holds the outermost module on the stack that owns it, then its path."""
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


# --- traced values ----------------------------------------------------------------------------------------------------


class Traced:
    """A value of the program being traced. `rep` names its representation, if it has one."""

    __array_ufunc__ = None  # so that NumPy leaves `array * value` to us
    rep: Rep | None = None

    @classmethod
    def __torch_function__(cls, function: Any, kinds: Any, arguments: Any = (), keywords: Any = None) -> Any:
        from .torch_words import call

        return call(function, arguments, keywords or {})

    def __bool__(self) -> bool:
        raise TraceError(
            "a Python `if`, `while`, `and`, `or` or `not` stands on a traced value, but a program is traced once for all inputs. "
            "Write ff.where(condition, a, b), or until= of ff.unfold"
        )

    def __float__(self) -> float:
        raise TraceError("a traced value has no number yet; keep it traced (ff.cast changes its dtype)")

    __int__ = __index__ = __complex__ = __float__  # type: ignore[assignment]

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TraceError("NumPy was called on a traced value; use the function of the same name in ff (ff.exp for np.exp)")

    __hash__ = object.__hash__


class TracedArray(Traced):
    """An array. Operators and methods follow NumPy and torch; `functions.py` attaches them."""

    def __init__(self, value: Value, rep: Rep | None = None):
        self.value, self.rep = value, rep

    @property
    def dtype(self) -> DType:
        return self.value.type.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.type.shape

    def __repr__(self) -> str:
        return f"<traced {types.show(type_of(self))}>"


class TracedList(Traced):
    """A list, or a grid of several dimensions.

    Attributes:
        content: the structure of an element; its leaves hold values that carry the list's axes.
        grid: whether it is a `Grid` (of as many dimensions as it has sizes).
        static_length: its length where that is known (the children in a tree of fixed arity).
    """

    def __init__(self, sizes: Sequence[Size], content: Any, grid: bool = False, rep: Rep | None = None, static_length: int | None = None):
        self._sizes, self.content, self.grid, self.rep, self.static_length = tuple(sizes), content, grid, rep, static_length

    @property
    def sizes(self) -> tuple[Size, ...]:
        scope = _CURRENT.get()
        return self._sizes if scope is None else tuple(map(scope.program.sizes.resolve, self._sizes))

    def __repr__(self) -> str:
        return f"<traced {types.show(type_of(self))}>"


class TracedTree(Traced):
    """A tree: its tables (lists of numbers over its nodes), the root's index, and the structure of a node's value."""

    def __init__(self, tables: Sequence[Value], root: Value, kind: Value | None, size: Size, arity: Size, type_: types.Tree, content: Any, rep: Rep | None = None):
        self.tables, self.root, self.kind, self.size, self.arity_size = tuple(tables), root, kind, size, arity
        self.type, self.content, self.rep = type_, content, rep

    def __repr__(self) -> str:
        return f"<traced {self.type}>"


class NamedProduct(Traced):
    """A product that is named by a `Rep`; it unpacks and indexes like the product."""

    def __init__(self, rep: Rep, content: Any):
        self.rep, self.content = rep, content

    def __iter__(self) -> Iterator[Any]:
        return iter(self.content)

    def __len__(self) -> int:
        return len(self.content)

    def __getitem__(self, key: Any) -> Any:
        return self.content[key]

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "content"), name)


class Unknown(Traced):
    """A result whose type is being inferred: what a tree's node is given for its children in the first trace.

    Beside a known value it counts as a number to be broadcast; alone it stays unknown.
    """

    def __iter__(self) -> Iterator[Any]:
        count = _unpacked_into(sys._getframe(1))
        if count is None:
            raise TraceError("the type of a node's result cannot be inferred here; give ff.cata a leaf= function")
        return iter([Unknown() for _ in range(count)])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ("shape", "dtype", "ndim", "value"):
            raise TraceError(f"the {name} of a node's result is read before it is known; give ff.cata a leaf= function")
        return Unknown()


def _unpacked_into(frame: Any) -> int | None:
    """Into how many names the running instruction of a frame unpacks."""
    import dis

    code, at = frame.f_code, frame.f_lasti
    for instruction in dis.get_instructions(code):
        if instruction.offset == at:
            return instruction.arg if instruction.opname == "UNPACK_SEQUENCE" else None
    return None


# --- structures -------------------------------------------------------------------------------------------------------


def leaves(structure: Any) -> list[Value]:
    """The IR values of a structure, in order."""
    if isinstance(structure, TracedArray):
        return [structure.value]
    if isinstance(structure, (TracedList, NamedProduct)):
        return leaves(structure.content)
    if isinstance(structure, TracedTree):
        kind = [structure.kind] if structure.kind is not None else []
        return [*structure.tables, structure.root, *kind, *leaves(structure.content)]
    if isinstance(structure, Unknown):
        return []
    parts = structure.values() if isinstance(structure, Mapping) else structure
    return [value for part in parts for value in leaves(part)]


def with_leaves(structure: Any, values: Iterator[Value], keep_reps: bool = True) -> Any:
    """The same structure over other values."""
    rep = getattr(structure, "rep", None) if keep_reps and isinstance(structure, Traced) else None
    if isinstance(structure, TracedArray):
        return TracedArray(next(values), rep)
    if isinstance(structure, TracedList):
        content = with_leaves(structure.content, values, keep_reps)
        return TracedList(structure._sizes, content, structure.grid, rep, structure.static_length)
    if isinstance(structure, NamedProduct):
        content = with_leaves(structure.content, values, keep_reps)
        return NamedProduct(structure.rep, content) if keep_reps and structure.rep else content
    if isinstance(structure, TracedTree):
        tables, root = [next(values) for _ in structure.tables], next(values)
        kind = next(values) if structure.kind is not None else None
        content = with_leaves(structure.content, values, keep_reps)
        return TracedTree(tables, root, kind, structure.size, structure.arity_size, structure.type, content, rep)
    if isinstance(structure, Unknown):
        return structure
    if is_namedtuple(structure):
        return type(structure)(*[with_leaves(part, values, keep_reps) for part in structure])
    if isinstance(structure, Mapping):
        return {name: with_leaves(part, values, keep_reps) for name, part in structure.items()}
    return tuple(with_leaves(part, values, keep_reps) for part in structure)


def type_of(structure: Any) -> Any:
    """The language type of a structure of traced values, names included."""
    rep = getattr(structure, "rep", None)
    if rep is not None:
        return rep
    if isinstance(structure, TracedArray):
        return types.Array(structure.value.type.dtype, structure.value.type.shape)
    if isinstance(structure, TracedList):
        element = type_of(structure.content)
        return types.Grid(element, len(structure._sizes)) if structure.grid else types.Seq(element)
    if isinstance(structure, TracedTree):
        return types.Tree(type_of(structure.content), structure.type.arity, structure.type.kinds)
    if isinstance(structure, Unknown):
        return types.Array(f32)
    if is_namedtuple(structure):
        return type(structure)(*map(type_of, structure))
    if isinstance(structure, Mapping):
        return {name: type_of(part) for name, part in structure.items()}
    return tuple(map(type_of, structure))


def traced(value: Any, dtype: DType | None = None) -> Any:
    """A structure of traced values from what a user wrote: numbers, arrays, parameters and tensors become traced.

    Arguments:
        value: any product of traced values, parameters, numbers, NumPy arrays, torch tensors.
        dtype: the dtype of numbers; the program's float for floats and i64 for whole numbers when left out.

    Raises:
        StructureError: something else stands there.
    """
    if isinstance(value, Traced):
        return value
    if isinstance(value, Parameter):
        return TracedArray(current().program.parameter(value))
    if isinstance(value, (bool, int, float, np.generic, np.ndarray)):
        array = np.asarray(value)
        kind = from_numpy(array.dtype)
        chosen = current().program.float_dtype if kind.is_float else kind
        if dtype is not None and not (chosen.is_float and not dtype.is_float):
            chosen = dtype
        return TracedArray(current().constant(array if array.ndim else array.item(), chosen))
    if is_tensor(value):
        return TracedArray(current().program.tensor(value))
    if is_namedtuple(value):
        return type(value)(*[traced(part) for part in value])
    if isinstance(value, (tuple, list)):
        return tuple(traced(part) for part in value)
    if isinstance(value, Mapping):
        return {name: traced(part) for name, part in value.items()}
    hint = "; a function of the element is given to init=" if callable(value) else ""
    raise StructureError(f"{value!r} is no value of a program: write arrays, numbers, lists, tuples and dicts of them{hint}")


def plain(value: Any) -> Any:
    """A traced structure seen through its outermost name."""
    value = traced(value)
    return value.content if isinstance(value, NamedProduct) else value


def leaf_paths(structure: Any) -> list[str]:
    """A path such as ``[1].h`` per leaf value, in the order of `leaves`."""
    if isinstance(structure, (TracedArray, TracedTree)):
        return [""] * len(leaves(structure))
    if isinstance(structure, (TracedList, NamedProduct)):
        return leaf_paths(structure.content)
    if isinstance(structure, Unknown):
        return []
    if is_namedtuple(structure):
        return [f".{name}{path}" for name, part in structure._asdict().items() for path in leaf_paths(part)]
    if isinstance(structure, Mapping):
        return [f"[{name!r}]{path}" for name, part in structure.items() for path in leaf_paths(part)]
    return [f"[{i}]{path}" for i, part in enumerate(structure) for path in leaf_paths(part)]


def same_shape_of_structure(left: Any, right: Any) -> bool:
    """Whether two traced structures nest alike (tuples, dicts, lists and arrays at the same places)."""
    left = left.content if isinstance(left, NamedProduct) else left
    right = right.content if isinstance(right, NamedProduct) else right
    if isinstance(left, Unknown) or isinstance(right, Unknown):
        return True
    if isinstance(left, TracedList):
        if not isinstance(right, TracedList) or len(left._sizes) != len(right._sizes):
            return False
        return same_shape_of_structure(left.content, right.content)
    if isinstance(left, Traced) or isinstance(right, Traced):
        return type(left) is type(right)
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return list(left) == list(right) and all(same_shape_of_structure(left[k], right[k]) for k in left)
    if isinstance(left, tuple) and isinstance(right, tuple):
        return len(left) == len(right) and all(map(same_shape_of_structure, left, right))
    return False


def element_structure(xs: TracedList, values: Sequence[Value]) -> Any:
    """The structure of an element of a list, over the given values (which have lost the outermost axis)."""
    if len(xs._sizes) > 1:
        return TracedList(xs._sizes[1:], with_leaves(xs.content, iter(values)), xs.grid)
    return with_leaves(xs.content, iter(values))


def list_structure(size: Size, element: Any, values: Sequence[Value], grid: bool = False) -> TracedList:
    """The list of elements of the given structure, over the given values (which have gained an outermost axis). A grid of
    grid rows is one grid."""
    element = with_leaves(element, iter(values))
    if grid and isinstance(element, TracedList) and element.grid and element.rep is None:
        return TracedList((size, *element._sizes), element.content, True)
    return TracedList((size,), element, grid)


def map_list(xs: TracedList, function: Callable[..., Any], *others: TracedList) -> TracedList:
    """Apply a function of structures to the elements of lists of one size: the outermost axis only."""
    scope = current()
    size = xs.sizes[0]
    lists = [leaves(each) for each in (xs, *others)]
    flat = [v for group in lists for v in group]

    def index(inner: Scope) -> Value:
        flat.append(scope.iota(size))
        return inner.parameter(types.array(i64), "index")

    inner = Scope(scope, scope.program, index)
    elements = []
    for each, values in zip((xs, *others), lists, strict=True):
        parameters = [inner.parameter(v.type.element, v.name) for v in values]
        elements.append(element_structure(each, parameters))
    with inner.active():
        result = traced(function(*elements))
        results = [inner.use(v) for v in leaves(result)]
    outputs = scope.map_lambda(scope.program.sizes.resolve(size), flat, inner, results)
    return list_structure(size, result, outputs, xs.grid)


def map_all(xs: TracedList, function: Callable[..., Any], *others: TracedList) -> TracedList:
    """Apply a function to every element of a list, or to every element of a grid through all its dimensions."""
    if len(xs._sizes) == 1:
        return map_list(xs, function, *others)
    return map_list(xs, lambda row, *rows: map_all(row, function, *rows), *others)


def unify_lists(lists: Sequence[TracedList], where: str) -> TracedList:
    """Make the sizes of lists one; the first of them."""
    program = current().program
    first = lists[0]
    for other in lists[1:]:
        if len(other._sizes) != len(first._sizes):
            raise StructureError(f"{where}: {type_of(first)} stands beside {type_of(other)}; lists and grids pair with their like")
        for left, right in zip(first.sizes, other.sizes, strict=True):
            program.unify(left, right, where)
    return first


def trace_body(scope: Scope, inner: Scope, arguments: Sequence[Any], function: Callable[..., Any]) -> Any:
    """Run a function on structures within an inner scope; its traced result."""
    del scope
    with inner.active():
        return traced(function(*arguments))


def require_elements(xs: Any, what: str, dims: int | None = None) -> TracedList:
    """Refuse what is not a list.

    Raises:
        StructureError: it is something else.
    """
    xs = plain(xs)
    if not isinstance(xs, TracedList):
        raise StructureError(f"{what} runs over a list (ff.Seq or ff.Grid), but what stands there is {types.show(type_of(xs))}")
    if dims is not None and len(xs._sizes) != dims:
        raise StructureError(f"{what} runs over a list of {dims} dimension{'s' * (dims > 1)}; a {types.show(type_of(xs))} has {len(xs._sizes)}")
    return xs


__all__ = [
    "EmptyError", "Lambda", "ListType", "NamedProduct", "Program", "Scope", "Traced", "TracedArray", "TracedList", "TracedTree", "Unknown",
    "current", "is_module", "is_tensor", "is_tracing", "leaf_paths", "leaves", "map_all", "map_list", "plain", "require_elements",
    "same_shape_of_structure", "torch_dtype", "trace_body", "traced", "type_of", "unify_lists", "user_source", "with_leaves",
]  # fmt: skip
