"""Counter-based randomness, equal in every evaluator.

A seed is folded with the program's random site and the indices of the enclosing loops, then hashed per lane: SplitMix64
(Steele, Lea, Flood, *Fast splittable pseudorandom number generators*, 2014). All arithmetic is modulo 2^64, held in
i64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import DtypeError
from ..records import Attributes, Primitive, Refusal, Sample, register
from ..types import ListType, array, f32, f64, i64
from .elementwise import no_lists

GOLDEN = 0x9E3779B97F4A7C15
FIRST = 0xBF58476D1CE4E5B9
SECOND = 0x94D049BB133111EB


def _mix(z: Any) -> Any:
    """SplitMix64's finaliser on uint64."""
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(FIRST)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(SECOND)
        return z ^ (z >> np.uint64(31))


def _infer_fold(types: Sequence[ListType], attributes: Attributes) -> tuple[ListType, ...]:
    no_lists("a seed", types)
    if types != (array(i64), array(i64)):
        raise DtypeError(f"a seed and a counter are i64 numbers; got {types[0]} and {types[1]}")
    return (array(i64),)


def _numpy_fold(seed: Any, counter: Any) -> Any:
    with np.errstate(over="ignore"):
        z = np.asarray(seed).astype(np.int64).view(np.uint64) + (
            np.asarray(counter).astype(np.int64).view(np.uint64) + np.uint64(1)
        ) * np.uint64(GOLDEN)
    return _mix(z).view(np.int64)


register(
    Primitive(
        "fold_seed",
        _infer_fold,
        _numpy_fold,
        None,
        "elementwise",
        samples=(Sample((np.array(7), np.array(-3))),),
        refusals=(Refusal((array(f32), array(i64)), {}, DtypeError, "i64"),),
    )
)


def _infer_uniform(types: Sequence[ListType], attributes: Attributes) -> tuple[ListType, ...]:
    no_lists("a seed", types)
    if tuple(types) != (array(i64),):
        raise DtypeError(f"a seed is an i64 number; got {types[0]}")
    return (array(attributes["dtype"], *attributes["shape"]),)


def _numpy_uniform(seed: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    lanes = np.arange(1, math.prod(shape) + 1, dtype=np.uint64).reshape(shape)
    with np.errstate(over="ignore"):
        bits = _mix(np.asarray(seed).astype(np.int64).view(np.uint64) + lanes * np.uint64(GOLDEN))
    # 23 bits and a half: exact in float32, so that every dtype and evaluator has the same draw; never 0 or 1.
    return ((bits >> np.uint64(41)).astype(np.float64) * 2.0**-23 + 2.0**-24).astype(dtype.numpy)


register(
    Primitive(
        "uniform",
        _infer_uniform,
        _numpy_uniform,
        None,
        "elementwise",
        samples=(
            Sample((np.array(11),), {"shape": (2, 3), "dtype": f64}),
            Sample((np.array(-5),), {"shape": (), "dtype": f64}),
        ),
        refusals=(Refusal((array(f32),), {"shape": (), "dtype": f32}, DtypeError, "i64"),),
    )
)
