"""Types: what a user declares (`Array`, `Seq`, `Grid`, `Tree`, products, `Rep`) and what a value of the IR has
(`ListType`).

A product of the language becomes several IR values (a list of pairs is a pair of lists), so that `zip` and `unzip` cost
nothing; a `Seq` adds one list axis to the type of its elements, a `Grid` of d dimensions adds d.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import ShapeError, StructureError
from .sizes import Size


@dataclass(frozen=True)
class Array:
    """The type of an array: a dtype and a static shape. Written ``ff.f32[3, 4]``."""

    dtype: DType
    shape: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]" if self.shape else str(self.dtype)

    __repr__ = __str__


@dataclass(frozen=True)
class DType:
    """An element type. ``ff.f32`` is a scalar's type, ``ff.f32[64]`` that of a vector of 64."""

    name: str
    kind: str  # "float" | "int" | "bool"
    bits: int

    def __getitem__(self, shape: int | tuple[int, ...]) -> Array:
        shape = shape if isinstance(shape, tuple) else (shape,)
        if not all(isinstance(n, int) and n >= 0 for n in shape):
            raise ShapeError(f"the shape of an array is whole numbers, as in ff.{self.name}[3, 4]; got {shape}")
        return Array(self, shape)

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def numpy(self) -> np.dtype:
        """The NumPy dtype that holds it (bf16 is held as float32)."""
        return np.dtype(_NUMPY[self.name])

    def __str__(self) -> str:
        return self.name

    __repr__ = __str__

    def __reduce__(self) -> tuple[Any, ...]:
        # There is one object per dtype, also in a loaded model: the compiler compares by identity.
        return dtype_named, (self.name,)


def dtype_named(name: str) -> DType:
    """The dtype of a name."""
    return DTYPES[name]


f16 = DType("f16", "float", 16)
bf16 = DType("bf16", "float", 16)
f32 = DType("f32", "float", 32)
f64 = DType("f64", "float", 64)
i32 = DType("i32", "int", 32)
i64 = DType("i64", "int", 64)
boolean = DType("bool", "bool", 8)

_NUMPY = {
    "f16": "float16",
    "bf16": "float32",
    "f32": "float32",
    "f64": "float64",
    "i32": "int32",
    "i64": "int64",
    "bool": "bool",
}
DTYPES = {dtype.name: dtype for dtype in (f16, bf16, f32, f64, i32, i64, boolean)}
_RANKING = (boolean, i32, i64, f16, bf16, f32, f64)


def promote(left: DType, right: DType) -> DType:
    """The dtype of an operation on two, as torch promotes: the wider of one kind, the float of two kinds."""
    if {left, right} == {f16, bf16}:
        return f32
    return max(left, right, key=_RANKING.index)


def from_numpy(dtype: Any) -> DType:
    """The `DType` of a NumPy dtype."""
    name = np.dtype(dtype).name
    table = {"float16": f16, "float32": f32, "float64": f64, "int32": i32, "int64": i64, "bool": boolean}
    if name not in table:
        return i64 if np.dtype(dtype).kind in "iu" else f32
    return table[name]


@dataclass(frozen=True)
class ListType:
    """The type of an IR value: an array, under zero or more list axes (outermost first).

    Printed ``f32[B, T | 3, 4]``: arrays of shape (3, 4) in lists of T in a list of B; ``f32[3, 4]`` has no list axes.
    """

    dtype: DType
    axes: tuple[Size, ...]
    shape: tuple[int, ...]

    @property
    def element(self) -> ListType:
        """The type of an element: the outermost list axis stripped."""
        return ListType(self.dtype, self.axes[1:], self.shape)

    def listed(self, *sizes: Size) -> ListType:
        """A list (of lists …) of this type."""
        return ListType(self.dtype, sizes + self.axes, self.shape)

    def with_dtype(self, dtype: DType) -> ListType:
        return ListType(dtype, self.axes, self.shape)

    def with_shape(self, *shape: int) -> ListType:
        return ListType(self.dtype, self.axes, shape)

    def map_sizes(self, change: Callable[[Size], Size]) -> ListType:
        return ListType(self.dtype, tuple(map(change, self.axes)), self.shape) if self.axes else self

    def __str__(self) -> str:
        shape = ", ".join(map(str, self.shape))
        if self.axes:
            return f"{self.dtype}[{', '.join(map(str, self.axes))} | {shape}]".replace("| ]", "|]")
        return f"{self.dtype}[{shape}]"

    __repr__ = __str__


def array(dtype: DType, *shape: int) -> ListType:
    """The IR type of an array outside of any list."""
    return ListType(dtype, (), shape)


@dataclass(frozen=True)
class Seq:
    """The type of a list. Two arguments of one `Seq` type may differ in length, unless `size` names it.

    Arguments:
        element: the type of an element.
        size: a name shared by all lists that must have one length, or None.
    """

    element: Any
    size: str | None = None

    def __post_init__(self) -> None:
        check_type(self.element)

    def __str__(self) -> str:
        return f"Seq({show(self.element)})"

    __repr__ = __str__


@dataclass(frozen=True)
class Grid:
    """The type of a rectangular grid of `dims` dimensions, its elements (channels) last."""

    element: Any
    dims: int

    def __post_init__(self) -> None:
        check_type(self.element)
        if not isinstance(self.dims, int) or self.dims < 1:
            raise StructureError(f"a grid has one dimension or more, as in ff.Grid(ff.f32[3], 2); got {self.dims!r}")

    def __str__(self) -> str:
        return f"Grid({show(self.element)}, {self.dims})"

    __repr__ = __str__


@dataclass(frozen=True)
class Tree:
    """The type of a tree with a value at each node.

    Arguments:
        element: the type of a node's value.
        arity: how many children every inner node has; None when it varies.
        kinds: the names of the node kinds, where `cata` takes one step per kind.
    """

    element: Any
    arity: int | None = None
    kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_type(self.element)
        object.__setattr__(self, "kinds", tuple(self.kinds))

    def __str__(self) -> str:
        arity = f", arity={self.arity}" if self.arity is not None else ""
        return f"Tree({show(self.element)}{arity}{f', kinds={self.kinds}' if self.kinds else ''})"

    __repr__ = __str__


@dataclass(frozen=True)
class Rep:
    """A named representation: a type that is told apart from others of the same shape.

    `expression.typed(Word, State)` declares representations, `Word(x)` names a value.

    Example:
        >>> Word = Rep("Word", f32[64])
        >>> Word
        Word
    """

    name: str
    type: Any = field(hash=False)

    def __post_init__(self) -> None:
        check_type(self.type)

    def __call__(self, value: Any) -> Any:
        from .language import introduce

        return introduce(self, value)

    def __str__(self) -> str:
        return self.name

    __repr__ = __str__


def is_namedtuple(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields")


def check_type(type_: Any) -> None:
    """Refuse what is not a type.

    Raises:
        StructureError: it is not an array, Seq, Grid, Tree, Rep or product of types.
    """
    if isinstance(type_, (Array, DType, Seq, Grid, Tree, Rep)):
        return
    if isinstance(type_, tuple):
        for part in type_:
            check_type(part)
        return
    if isinstance(type_, Mapping):
        for part in type_.values():
            check_type(part)
        return
    raise StructureError(
        f"{type_!r} is not a type. Write ff.f32[64] for an array, ff.Seq(…), ff.Grid(…, dims), ff.Tree(…), "
        "ff.Rep(name, …), "
        "or a tuple, NamedTuple or dict of types"
    )


def show(type_: Any) -> str:
    """A type as a user writes it."""
    if is_namedtuple(type_):
        return f"{type(type_).__name__}({', '.join(f'{k}={show(v)}' for k, v in type_._asdict().items())})"
    if isinstance(type_, tuple):
        return f"({', '.join(map(show, type_))}{',' if len(type_) == 1 else ''})"
    if isinstance(type_, Mapping):
        return "{" + ", ".join(f"{k}: {show(v)}" for k, v in type_.items()) + "}"
    return str(type_)


def strip(type_: Any) -> Any:
    """A type without its names: every `Rep` replaced by what it stands for, every bare dtype by its scalar."""
    if isinstance(type_, Rep):
        return strip(type_.type)
    if isinstance(type_, DType):
        return Array(type_)
    if isinstance(type_, Seq):
        return Seq(strip(type_.element), type_.size)
    if isinstance(type_, Grid):
        return Grid(strip(type_.element), type_.dims)
    if isinstance(type_, Tree):
        return Tree(strip(type_.element), type_.arity, type_.kinds)
    if is_namedtuple(type_):
        return type(type_)(*map(strip, type_))
    if isinstance(type_, tuple):
        return tuple(map(strip, type_))
    return {name: strip(part) for name, part in type_.items()} if isinstance(type_, Mapping) else type_


def parts(structure: Any) -> Iterator[tuple[str, Any]]:
    """The leaves of a product (tuples, lists, NamedTuples, dicts), each with its path such as ``[0].h``."""
    if is_namedtuple(structure):
        for name, part in structure._asdict().items():
            yield from ((f".{name}{path}", leaf) for path, leaf in parts(part))
    elif isinstance(structure, (tuple, list)):
        for index, part in enumerate(structure):
            yield from ((f"[{index}]{path}", leaf) for path, leaf in parts(part))
    elif isinstance(structure, Mapping):
        for name, part in structure.items():
            yield from ((f"[{name!r}]{path}", leaf) for path, leaf in parts(part))
    else:
        yield "", structure


def rebuild(structure: Any, leaves: Iterator[Any]) -> Any:
    """A product of the given structure with other leaves (taken from the iterator in the order of `parts`)."""
    if is_namedtuple(structure):
        return type(structure)(*[rebuild(part, leaves) for part in structure])
    if isinstance(structure, (tuple, list)):
        return tuple(rebuild(part, leaves) for part in structure)
    if isinstance(structure, Mapping):
        return {name: rebuild(part, leaves) for name, part in structure.items()}
    return next(leaves)


def same_structure(left: Any, right: Any) -> bool:
    """Whether two products have the same nesting (tuples and lists are one kind, names of dict entries count)."""
    if isinstance(left, (tuple, list)) and isinstance(right, (tuple, list)):
        return len(left) == len(right) and all(map(same_structure, left, right))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return list(left) == list(right) and all(same_structure(left[k], right[k]) for k in left)
    return not isinstance(left, (tuple, list, Mapping)) and not isinstance(right, (tuple, list, Mapping))
