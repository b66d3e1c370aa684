"""The record of a primitive and of a combinator, and the table of all records.

Everything that the compiler knows of an operation stands in its one record: the typing rule, the meaning, the adjoint,
samples and error inputs. The suites iterate over the table, so a new record is tested from the day it is added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .types import ListType

if TYPE_CHECKING:
    from .builder import Builder
    from .ir import Equation, Lambda, Value

Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class Sample:
    """Inputs on which a primitive is tried: types (or ready arrays), attributes, and where a random draw lies.

    Attributes:
        inputs: a `ListType` (drawn from the domain), or an array to be taken as it is.
        attributes: the equation's attributes.
        domain: bounds of the uniform draw of float inputs.
    """

    inputs: tuple[Any, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    domain: tuple[float, float] = (-2.0, 2.0)


@dataclass(frozen=True)
class Refusal:
    """Input types that the typing rule must refuse, with the error class and a piece of its message."""

    inputs: tuple[ListType, ...]
    attributes: dict[str, Any]
    error: type[Exception]
    message: str


@dataclass(frozen=True)
class Primitive:
    """An operation on arrays.

    Attributes:
        name: its name in the IR.
        infer: typing rule, ``(input types, attributes) -> output types``; raises the user's error.
        numpy: meaning in NumPy, ``(*arrays, **attributes) -> array``.
        adjoint: ``(builder, equation, cotangents) -> cotangents of the inputs`` (None = zero), or None when nothing
            differentiable passes through it (integers, comparisons): such inputs get no cotangent.
        refuses: why there is no derivative although inputs and output are float; None when there is one.
        cost: "free" (no arithmetic), "elementwise", "reduce", "contract": what recomputing it costs.
        samples, refusals: what the suites try.
    """

    name: str
    infer: Callable[[Sequence[ListType], Attributes], tuple[ListType, ...]]
    numpy: Callable[..., Any]
    adjoint: Callable[[Builder, Equation, Sequence[Value | None]], Sequence[Value | None]] | None
    cost: str
    refuses: str | None = None
    samples: tuple[Sample, ...] = ()
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True)
class Combinator:
    """An operation on lists, usually with bodies.

    Attributes:
        name: its name in the IR.
        infer: typing rule, ``(input types, attributes, bodies) -> output types``.
        evaluate: meaning for the reference evaluator, ``(run, equation, inputs, sizes) -> outputs`` where lists are
            Python lists and ``run(body, arguments, sizes)`` evaluates a body.
        augment: ``(differentiator, builder, equation, needs, useful) -> (outputs, pullback)``: emits the equation, with
            residuals as further outputs, and returns how cotangents pass back through it (see `adjoint`).
            `needs[i]` says whether input i takes part in differentiation, `useful[j]` whether output j can have a
            cotangent.
    """

    name: str
    infer: Callable[[Sequence[ListType], Attributes, Sequence[Lambda]], tuple[ListType, ...]]
    evaluate: Callable[..., Sequence[Any]]
    augment: Callable[..., tuple[Sequence[Value], Callable[..., Sequence[Value | None]]]] | None


RECORDS: dict[str, Primitive | Combinator] = {}


def register(record: Primitive | Combinator) -> Primitive | Combinator:
    """Add a record to the table; a name stands once."""
    if record.name in RECORDS:
        raise ValueError(f"two records are called {record.name}")
    RECORDS[record.name] = record
    return record
