"""Recurrences of any width, and the graphs of an expression: what the tests of the kernels plan and compile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import foldfuse as ff
from foldfuse.compiler.pipeline import Compiled, compile_graph
from foldfuse.compiler.program import trace_entry
from foldfuse.compiler.types import DTYPES

from .programs import recurrences


def graphs(expression: Any, *types: Any, operands: str | None = None, memory: str = "auto") -> Compiled:
    """The optimised graphs of an expression, in float32.

    Arguments:
        expression, types: as `ff.compile` takes them.
        operands: the dtype that contractions round their operands to.
        memory: the residual choice.
    """
    graph = trace_entry("main", expression, types).graph
    needs = [value.type.dtype.is_float for value in graph.body.parameters]
    return compile_graph(graph, needs, memory=memory, operand_dtype=DTYPES[operands] if operands else None)


def attention_decoder(width: int, features: int | None = None) -> tuple[Any, ...]:
    """A decoder after Luong, Pham and Manning (2015): each step attends to a list that stands beside the loop.

    Arguments:
        width: of the state and of the vectors of the list that is read.
        features: of an element; as many as the width if left out.
    """
    features = width if features is None else features
    W, Q = ff.param((2 * width + features, width), "W"), ff.param((width, width), "Q")

    def decode(keys: Any, xs: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            h, seen = carry
            h = ff.tanh(ff.concat(h, seen, x) @ W)
            query = h @ Q
            weights = ff.softmax(ff.map(lambda key: ff.sum(key * query))(keys))
            seen = ff.sum(weights * keys)
            return (h, seen), seen

        return ff.scan(step, init=recurrences.rest(width))(xs)

    return decode, ff.Seq(ff.f32[width], "S"), ff.Seq(ff.f32[features], "T")


def _network(step: Callable[[int, int], Any], init: Callable[[int], Any]) -> Callable[[int], tuple[Any, ...]]:
    return lambda n: (ff.scan(step(n, n), init=init(n)), ff.Seq(ff.f32[n]))


def _memory(step: Callable[..., Any], *more: Sequence[int]) -> Callable[[int], tuple[Any, ...]]:
    """A recurrence whose carry is a square matrix, over queries, keys, values and what else the step takes."""

    def cell(n: int) -> tuple[Any, ...]:
        types = [ff.Seq(ff.f32[n] if shape else ff.f32, "T") for shape in ((n,), (n,), (n,), *more)]
        return lambda *lists: ff.scan(step, init=ff.zeros(n, n))(ff.zip(*lists)), *types

    return cell


def _heads(n: int, count: int = 4) -> tuple[Any, ...]:
    step = recurrences.heads_matmul(count, n // count, n)
    return ff.scan(step, init=(ff.zeros(count, n // count), ff.zeros(count, n // count))), ff.Seq(ff.f32[n])


CELLS: dict[str, Callable[[int], tuple[Any, ...]]] = {
    "lstm": _network(recurrences.lstm, recurrences.rest),
    "gru": _network(recurrences.gru, ff.zeros),
    "layer_norm_lstm": _network(lambda n, d: recurrences.lstm(n, d, norm=ff.layer_norm), recurrences.rest),
    "heads": _heads,
    "gru_first": _network(recurrences.gru_first, ff.zeros),
    "delta_rule": _memory(recurrences.delta_rule, ()),
    "linear_attention": _memory(recurrences.attend),
    "attention_decoder": attention_decoder,
}
"""Recurrences by name: of a width, what `ff.compile` takes."""

MORE_CELLS: dict[str, Callable[[int], tuple[Any, ...]]] = {
    "elman": _network(recurrences.elman, ff.zeros),
    "peephole": _network(recurrences.peephole, recurrences.rest),
    "mgu": _network(recurrences.mgu, ff.zeros),
    "slstm": _network(recurrences.slstm, lambda n: (*(ff.zeros(n) for _ in range(3)), ff.full((n,), -5.0))),
    "gated_delta": _memory(recurrences.gated_delta, (2,)),
    "indrnn": _network(recurrences.indrnn, ff.zeros),
    "min_gru": _network(recurrences.min_gru, ff.zeros),
    "three_carries": _network(recurrences.three_carries, lambda n: (ff.zeros(n), ff.full((n,), -1.0), ff.zeros(n))),
    "crf_forward": _network(lambda n, d: recurrences.crf_forward(n), ff.zeros),
    "heads_einsum": lambda n: (
        ff.scan(recurrences.heads_einsum(4, n // 4, n), init=ff.zeros(4, n // 4)),
        ff.Seq(ff.f32[n]),
    ),
}
"""The other recurrences of the corpus: their steps are of the kinds that `CELLS` has, or simpler."""
