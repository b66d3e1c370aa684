"""Choices among classes: greedy, sampled, straight through."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import types, words
from ..errors import ShapeError
from ..expression import Expression, call, check_function, of_one, show_function
from ..scope import current
from ..trace import plain
from ..values import TracedArray, type_of


def _greedy(logits: Any) -> Any:
    """The most likely class: the index of the largest logit, the first of equal ones."""
    return words.argmax(_logits(logits, "ff.greedy"), axis=-1)


def _logits(logits: Any, name: str) -> TracedArray:
    logits = plain(logits)
    if not isinstance(logits, TracedArray) or not logits.shape:
        raise ShapeError(f"{name} takes a vector of logits; got {types.show(type_of(logits))}")
    return logits


greedy = of_one(_greedy, "greedy")


def sample(temperature: float = 1.0, top_k: int | None = None) -> Expression:
    """A class drawn from ``softmax(logits / temperature)``, by the Gumbel-max trick (Maddison et al. 2014).

    Arguments:
        temperature: greater than 0; small is nearly greedy.
        top_k: draw among the k largest logits only.

    Returns:
        An expression ``logits → class``. The draw depends on the call's seed, the row, and the place in the enclosing
        loops, so it is equal in every evaluator.
    """
    if not isinstance(temperature, (int, float)) or not temperature > 0:
        raise ShapeError(
            f"temperature= is a number greater than 0 (ff.greedy is its limit); got {temperature!r}. A computed one "
            "divides the logits: ff.sample()(logits / temperature)"
        )
    if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
        raise ShapeError(f"top_k= is a whole number, 1 or more; got {top_k!r}")

    def apply(logits: Any) -> Any:
        logits = _logits(logits, "ff.sample")
        if len(logits.shape) != 1:
            raise ShapeError(f"ff.sample takes a vector of logits; got {types.show(type_of(logits))}")
        logits = words.as_float(logits)
        if top_k is not None:
            values, _ = words.top_k(logits, min(top_k, logits.shape[0]))
            logits = words.where(words.less(logits, values[-1]), -np.inf, logits)
        gumbel = words.negative(words.log(words.negative(words.log(uniform(logits.shape[0])))))
        return words.argmax(words.add(words.divide(logits, temperature), gumbel), axis=-1)

    return of_one(apply, f"sample({temperature}{f', top_k={top_k}' if top_k else ''})")


def uniform(*shape: int) -> TracedArray:
    """Uniform numbers in (0, 1), from the call's seed, this place of the program, the row and the enclosing loops."""
    scope = current()
    shape = words.shape_of(shape)
    return TracedArray(scope("uniform", scope.program.next_seed(), shape=shape, dtype=scope.program.float_dtype))


def straight_through(choose: Any) -> Expression:
    """A choice that gradients pass through (Bengio et al. 2013): a one-hot vector whose derivative is the softmax's.

    Arguments:
        choose: logits → class.

    Returns:
        An expression ``logits → one-hot vector``; multiply it with an embedding's table.
    """
    check_function(choose, "ff.straight_through")

    def apply(logits: Any) -> Any:
        soft = words.softmax(logits)
        hard = words.one_hot(call(choose, logits), plain(logits).shape[-1])
        return words.add(words.stop_gradient(words.subtract(hard, soft)), soft)

    return of_one(apply, f"straight_through({show_function(choose)})")
