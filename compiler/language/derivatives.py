"""Gradients as expressions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import types
from ..adjoint import gradient
from ..errors import DerivativeError, StructureError
from ..expression import Expression, call, check_function, show_function
from ..scope import Scope, current
from ..trace import leaves, plain, traced, with_leaves
from ..values import TracedArray, type_of


def _differentiated(f: Any, arguments: Sequence[Any]) -> tuple[Any, Any]:
    if not arguments:
        raise StructureError(
            f"ff.grad({show_function(f)}) takes the arguments of {show_function(f)}, one or more; got none"
        )
    scope = current()
    structures = [traced(a) for a in arguments]
    inner = Scope(scope, scope.program)
    taken = [with_leaves(s, iter([inner.parameter(v.type, v.name) for v in leaves(s)])) for s in structures]
    with inner.active():
        result = plain(traced(call(f, *taken)))
    if not isinstance(result, TracedArray) or result.shape or not result.dtype.is_float:
        raise DerivativeError(
            f"ff.grad takes a function that gives one float number; {show_function(f)} gives "
            f"{types.show(type_of(result))}"
        )
    first = leaves(structures[0])
    for value in first:
        if not value.type.dtype.is_float:
            raise DerivativeError(
                f"ff.grad differentiates by its first argument, which holds {value.type.dtype}; only floats have a "
                "gradient. Give "
                "the floats first, or convert with ff.cast"
            )
    body, captured = inner.close([result.value])
    flat = [v for s in structures for v in leaves(s)]
    wanted = [False] * len(captured) + [i < len(first) for i in range(len(flat))]
    value, gradients = gradient(scope, body, (*captured, *flat), wanted)
    return TracedArray(value), with_leaves(structures[0], iter(gradients), keep_reps=False)


def grad(f: Any) -> Expression:
    """The gradient of a function as an expression, for steps that learn.

    Arguments:
        f: a function of one or more arguments that gives one float number.

    Returns:
        An expression of the same arguments: the gradient by the first one, in its structure.

    Raises:
        DerivativeError: f gives no number, or its first argument holds integers.

    Example:
        >>> def learner(W, p):
        ...     W = W - 0.1 * grad(loss)(W, p)
        ...     return W, p[0] @ W
    """
    check_function(f, "ff.grad")
    return Expression(lambda *arguments: _differentiated(f, arguments)[1], f"grad({show_function(f)})")


def value_and_grad(f: Any) -> Expression:
    """Like `grad`, giving the pair of f's value and its gradient."""
    check_function(f, "ff.value_and_grad")
    return Expression(lambda *arguments: _differentiated(f, arguments), f"value_and_grad({show_function(f)})")
