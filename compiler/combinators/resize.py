"""``resize``: a list taken as one of another size, which must prove equal: a list made in two ways (windows of two
lists, an unfold's own length) zipped with another.

Attribute `sizes`: the sizes of the outermost axes. It is its own transpose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import ShapeError, SizeError
from ..records import Attributes, Combinator, register
from ..types import ListType


def _infer(types: Sequence[ListType], attributes: Attributes, bodies: Sequence[Any]) -> tuple[ListType, ...]:
    (own,), sizes = types, tuple(attributes["sizes"])
    if len(own.axes) < len(sizes):
        raise ShapeError(f"resize to {sizes} takes a list of as many axes; got {own}")
    return (ListType(own.dtype, (*sizes, *own.axes[len(sizes) :]), own.shape),)


def different(equation: Any, found: int, wanted: int) -> SizeError:
    """The error for lists that prove to be of two lengths."""
    return SizeError(
        f"a list of {found} stands beside one of {wanted}; lists that go together have one length", equation.source
    )


def _evaluate(run: Callable[..., Any], equation: Any, inputs: Sequence[Any], sizes: Any) -> Sequence[Any]:
    def check(xs: Any, axes: Sequence[Any], here: Any) -> None:
        if not axes:
            return
        wanted = here.value(axes[0])
        if len(xs) != wanted:
            raise different(equation, len(xs), wanted)
        for i, x in enumerate(xs):
            check(x, axes[1:], here.enter(axes[0], i))

    check(inputs[0], equation.attributes["sizes"], sizes)
    return [inputs[0]]


def _augment(d: Any, b: Any, equation: Any, needs: Sequence[bool], useful: Sequence[bool]) -> Any:
    (xs,), sizes = equation.inputs, equation.attributes["sizes"]
    outputs = b.emit("resize", (xs,), equation.attributes)
    return outputs, lambda b, cts: [b("resize", cts[0], sizes=xs.type.axes[: len(sizes)])]


register(Combinator("resize", _infer, _evaluate, _augment))
