"""Traced values: what a user's function is given instead of numbers."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import types
from .errors import TraceError, UnknownNameError
from .ir import Value
from .numpy_operators import numpy_operator
from .scope import _CURRENT
from .sizes import Size
from .types import DType, Rep, f32, is_namedtuple


class Traced:
    """A value of the program being traced. `rep` names its representation, if it has one."""

    __array_ufunc__ = numpy_operator
    rep: Rep | None = None

    @classmethod
    def __torch_function__(cls, function: Any, kinds: Any, arguments: Any = (), keywords: Any = None) -> Any:
        from .torch_words import call

        return call(function, arguments, keywords or {})

    def __bool__(self) -> bool:
        raise TraceError(
            "Python's `if`, `while`, `and`, `or` or `not` stands on a traced value, but a program is traced once for "
            "all "
            "inputs. Write ff.where(condition, a, b) for `if`; ff.logical_and, ff.logical_or, ff.logical_not for "
            "`and`, `or`, "
            "`not`; until= of ff.unfold for `while`"
        )

    def __float__(self) -> float:
        raise TraceError(
            "a traced value has no number yet, so float(), int(), range(), round() and Python's math cannot read it. "
            "Keep it "
            "traced: ff.cast changes its dtype, ff.exp stands for math.exp"
        )

    __int__ = __index__ = __complex__ = __float__  # type: ignore[assignment]

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TraceError(
            "NumPy was called on a traced value; use the function of the same name in ff (ff.exp for np.exp)"
        )

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TraceError(
            "a traced value cannot be changed in place. Make a new one: ff.where(condition, a, b), ff.concat or "
            "ff.stack"
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in ("named_parameters", "requires_grad"):
            raise AttributeError(name)
        if name == "device":
            raise TraceError(
                "a traced value lies on no device yet. Of torch's modules those that see one example work in a step, "
                "such as "
                "nn.Linear or nn.LSTMCell; nn.LSTM, nn.GRU and nn.Transformer are written with ff.scan and ff.map, or "
                "stay "
                "outside of the program"
            )
        raise UnknownNameError(
            f"a traced {types.show(type_of(self))} has no {name!r}. Write it with ff's functions, NumPy's or torch's"
        )

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

    def __init__(
        self,
        sizes: Sequence[Size],
        content: Any,
        grid: bool = False,
        rep: Rep | None = None,
        static_length: int | None = None,
    ):
        self._sizes, self.content, self.grid, self.rep, self.static_length = (
            tuple(sizes),
            content,
            grid,
            rep,
            static_length,
        )

    @property
    def sizes(self) -> tuple[Size, ...]:
        scope = _CURRENT.get()
        return self._sizes if scope is None else tuple(map(scope.program.sizes.resolve, self._sizes))

    def __repr__(self) -> str:
        return f"<traced {types.show(type_of(self))}>"


class TracedTree(Traced):
    """A tree: its tables (lists of numbers over its nodes), the root's index, and the structure of a node's value."""

    def __init__(
        self,
        tables: Sequence[Value],
        root: Value,
        kind: Value | None,
        size: Size,
        arity: Size,
        type_: types.Tree,
        content: Any,
        rep: Rep | None = None,
    ):
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
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(object.__getattribute__(self, "content"), name)


class Unknown(Traced):
    """A result whose type is being inferred: what a tree's node is given for its children in the first trace.

    Beside a known value it counts as a number to be broadcast; alone it stays unknown.
    """

    def __iter__(self) -> Iterator[Any]:
        count = unpacked_into(sys._getframe(1))
        if count is None:
            raise TraceError("the type of a node's result cannot be inferred here; give ff.cata a leaf= function")
        return iter([Unknown() for _ in range(count)])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ("shape", "dtype", "ndim", "value"):
            raise TraceError(f"the {name} of a node's result is read before it is known; give ff.cata a leaf= function")
        return Unknown()


def unpacked_into(frame: Any) -> int | None:
    """Into how many names the running instruction of a frame unpacks."""
    import dis

    code, at = frame.f_code, frame.f_lasti
    for instruction in dis.get_instructions(code):
        if instruction.offset == at:
            return instruction.arg if instruction.opname == "UNPACK_SEQUENCE" else None
    return None


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
