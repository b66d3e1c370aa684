"""Parameters and buffers, the scopes that name them, and the layers that own them.

A name is settled when a program is compiled: a layer without a name of its own is numbered among the layers of its kind
in its scope that the program uses, in the order in which they were written. So a model's names depend on the model
alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from .errors import ParameterError, ShapeError, Source, user_source
from .numpy_operators import numpy_operator
from .types import DType

_SCOPE: ContextVar[tuple[str, ...]] = ContextVar("foldfuse_scope", default=())
_SERIAL = itertools.count()


@contextmanager
def scope(name: str) -> Iterator[None]:
    """Prefix the names of the parameters and layers made inside.

    Arguments:
        name: one or more dotted names.

    Raises:
        ParameterError: the name is empty or not made of identifiers.

    Example:
        >>> with scope("left"):
        ...     W = param((3, 4), "W")       # state_dict key: left.W
    """
    if not name or not all(part.isidentifier() or part.isdigit() for part in name.split(".")):
        raise ParameterError(f"a scope's name is an identifier such as 'left'; got {name!r}")
    token = _SCOPE.set((*_SCOPE.get(), name))
    try:
        yield
    finally:
        _SCOPE.reset(token)


class Owner:
    """What owns parameters: a layer. Its name is its own, or its kind and a number within its scope."""

    def __init__(self, kind: str, name: str | None):
        self.kind, self.name = kind, name
        self.scope = _SCOPE.get()
        self.serial = next(_SERIAL)
        self.source: Source | None = user_source()


class Parameter:
    """A learned array (or with `learned=False` a buffer) of a program.

    It stands in steps like any traced value. Its tensor is made when the program is compiled.

    Attributes:
        shape: its shape; None until the layer that owns it has seen an input.
        name: its name within its scope or layer.
        init: a number, an array, a function that fills a tensor (`torch.nn.init`), or None for U(±1/√fan_in).
        fan_in: what the default init divides by.
    """

    __array_ufunc__ = numpy_operator

    def __init__(
        self,
        shape: tuple[int, ...] | None,
        name: str,
        init: Any = None,
        learned: bool = True,
        owner: Owner | None = None,
        fan_in: int | None = None,
        dtype: DType | None = None,
    ):
        self.shape, self.name, self.init, self.learned, self.owner, self.fan_in, self.dtype = (
            shape,
            name,
            init,
            learned,
            owner,
            fan_in,
            dtype,
        )
        self.scope = owner.scope if owner else _SCOPE.get()
        self.serial = owner.serial if owner else next(_SERIAL)
        self.source: Source | None = user_source()

    def settle(self, shape: tuple[int, ...], fan_in: int | None = None) -> Parameter:
        """Give a layer's parameter its shape, from the layer's first input.

        Raises:
            ShapeError: it has another one already (the layer was used on two kinds of input).
        """
        if self.shape is None:
            self.shape, self.fan_in = shape, fan_in
        elif self.shape != shape:
            kind = self.owner.kind if self.owner else "a parameter"
            raise ShapeError(
                f"{kind} is used on inputs of two sizes: its {self.name} is {self.shape} and would have to be {shape}. "
                "Make a second layer"
            )
        return self

    def bound(self) -> float:
        """The bound of the default uniform init."""
        assert self.shape is not None
        fan_in = self.fan_in or (math.prod(self.shape[:-1]) if len(self.shape) > 1 else math.prod(self.shape))
        return 1.0 / math.sqrt(max(1, fan_in))

    @classmethod
    def __torch_function__(cls, function: Any, kinds: Any, arguments: Any = (), keywords: Any = None) -> Any:
        from .torch_words import call

        return call(function, arguments, keywords or {})

    def __repr__(self) -> str:
        return f"param({self.shape}, {'.'.join((*self.scope, self.name))!r})"

    def __bool__(self) -> bool:
        raise ParameterError(f"{self!r} has no truth value: a program is the same for every value of its parameters")


def _checked(name: str) -> str:
    if not isinstance(name, str) or not name or "." in name:
        raise ParameterError(f"a parameter's name is a word without dots, such as 'W'; got {name!r}")
    return name


def param(shape: int | tuple[int, ...], name: str, init: Any = None) -> Parameter:
    """A learned array.

    Arguments:
        shape: its shape, static.
        name: its name within the scope it is made in.
        init: a number, an array of that shape, or a function that fills a tensor in place, such as
            ``torch.nn.init.orthogonal_``. Default: uniform in ±1/√fan_in, fan_in being all axes but the last.

    Returns:
        A `Parameter`, to be used in steps.

    Raises:
        ParameterError: the name is not a word. ShapeError: the shape is not made of whole numbers, or the array's
            differs.

    Example:
        >>> W = param((3, 4), "W")
    """
    shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    if not all(isinstance(n, (int, np.integer)) and n >= 0 for n in shape):
        raise ShapeError(f"the shape of a parameter is whole numbers; got {shape} for {name!r}")
    if not callable(init) and init is not None and np.ndim(init) and np.shape(init) != shape:
        raise ShapeError(f"the initial value of {name!r} has shape {np.shape(init)}, the parameter {shape}")
    return Parameter(tuple(map(int, shape)), _checked(name), init)


def buffer(value: Any, name: str) -> Parameter:
    """An array that belongs to the model (in `state_dict`, moved by `.to`) but is not learned.

    Arguments:
        value: a number or array.
        name: its name within the scope it is made in.
    """
    value = np.asarray(value)
    return Parameter(value.shape, _checked(name), value, learned=False)


def names(parameters: list[Parameter]) -> dict[Parameter, str]:
    """The full name of each parameter of one program.

    Raises:
        ParameterError: two of them have one name.
    """
    owners = sorted({p.owner for p in parameters if p.owner is not None}, key=lambda o: o.serial)
    prefixes: dict[Owner, str] = {}
    counters: dict[tuple[Any, ...], int] = {}
    for owner in owners:
        if owner.name is not None:
            prefixes[owner] = owner.name
            continue
        place = (owner.scope, owner.kind)
        prefixes[owner] = f"{owner.kind}_{counters.get(place, 0)}"
        counters[place] = counters.get(place, 0) + 1
    full: dict[Parameter, str] = {}
    taken: dict[str, Parameter] = {}
    for p in sorted(parameters, key=lambda p: p.serial):
        name = ".".join((*p.scope, *((prefixes[p.owner],) if p.owner else ()), p.name))
        if name in taken:
            raise ParameterError(
                f"two parameters are called {name!r}: one made in {taken[name].source}, the other in {p.source}. "
                "Make each in a scope of its own (with ff.scope(…)), or use one object in both places to tie them",
                p.source,
            )
        taken[name], full[p] = p, name
    return full
