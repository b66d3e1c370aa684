"""The primitives of the torch evaluator against their NumPy meaning, under loops that inputs vary with or not."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from foldfuse.compiler.ir import Equation, Lambda, Value, infer
from foldfuse.compiler.records import RECORDS, Primitive
from foldfuse.compiler.types import ListType, array, bf16, f32, f64, from_numpy
from foldfuse.runtime import eager
from foldfuse.runtime.dtypes import torch_dtype

SAMPLES = [
    (name, i)
    for name, record in sorted(RECORDS.items())
    if isinstance(record, Primitive)
    for i in range(len(record.samples))
]


def draw(rng: Any, given: Any, domain: tuple[float, float]) -> np.ndarray:
    if not isinstance(given, ListType):
        return np.asarray(given)
    if given.dtype.kind == "bool":
        return rng.integers(0, 2, size=given.shape).astype(bool)
    if given.dtype.kind == "int":
        return rng.integers(-4, 5, size=given.shape).astype(given.dtype.numpy)
    return rng.uniform(*domain, size=given.shape).astype(given.dtype.numpy)


def application(name: str, types: tuple[ListType, ...], attributes: dict[str, Any]) -> Lambda:
    """A body of one equation."""
    parameters = tuple(Value(t) for t in types)
    outputs = tuple(Value(t) for t in infer(name, types, attributes, ()))
    return Lambda(parameters, (Equation(name, parameters, outputs, attributes),), outputs)


def evaluated(body: Lambda, depth: int, tensors: list[torch.Tensor], check: bool = True) -> torch.Tensor:
    sizes = eager.Environment({}, depth, torch.device("cpu"))
    (out,) = eager.prepare(body, depth)(eager.Context(sizes, None, check), tensors)
    return out


@pytest.mark.parametrize("name, index", SAMPLES)
def test_primitive(name: str, index: int) -> None:
    record = RECORDS[name]
    sample = record.samples[index]
    rng = np.random.default_rng(index)
    types = tuple(t if isinstance(t, ListType) else array(from_numpy(t.dtype), *t.shape) for t in sample.inputs)
    body = application(name, types, sample.attributes)
    for depth in (0, 1, 2):
        # Each input varies with every leading dim, with some, with none.
        leads = [
            tuple(n if keep else 1 for n, keep in zip((3, 2), pattern))
            for pattern in itertools.product((True, False), repeat=depth)
        ]
        for own in itertools.islice(itertools.product(leads, repeat=len(types)), 40):
            arrays = [
                np.stack([draw(rng, g, sample.domain) for _ in range(int(np.prod(lead)))]).reshape((*lead, *t.shape))
                for g, t, lead in zip(sample.inputs, types, own)
            ]
            full = np.broadcast_shapes(*own) if own else (1,) * depth
            out = evaluated(body, depth, [torch.from_numpy(a.copy()) for a in arrays], check=bool(index % 2))
            assert out.shape[depth:] == body.results[0].type.shape and out.dtype == torch_dtype(
                body.results[0].type.dtype
            )
            assert all(n in (1, m) for n, m in zip(out.shape, full))
            out = out.expand((*full, *out.shape[depth:]))
            for at in np.ndindex(*full):
                elements = [a[tuple(i if n > 1 else 0 for i, n in zip(at, a.shape))] for a in arrays]
                want = record.numpy(*elements, **sample.attributes)
                np.testing.assert_allclose(out[at].numpy(), want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name, index", SAMPLES)
def test_primitive_without_rows(name: str, index: int) -> None:
    sample = RECORDS[name].samples[index]
    types = tuple(t if isinstance(t, ListType) else array(from_numpy(t.dtype), *t.shape) for t in sample.inputs)
    body = application(name, types, sample.attributes)
    if types:
        tensors = [torch.zeros(0, *t.shape, dtype=torch_dtype(t.dtype)) for t in types]
        assert evaluated(body, 1, tensors).shape == (0, *body.results[0].type.shape)


def elementwise(name: str, *arrays: Any, **attributes: Any) -> np.ndarray:
    arrays = [np.asarray(a) for a in arrays]
    types = tuple(array(from_numpy(a.dtype), *a.shape) for a in arrays)
    return evaluated(application(name, types, attributes), 0, [torch.from_numpy(a) for a in arrays]).numpy()


def test_nan_and_ties_as_numpy_has_them() -> None:
    values = np.array([[1.0, np.nan, 3.0, np.nan], [2.0, 5.0, 5.0, -np.inf]])
    for name in ("reduce_max", "reduce_min", "reduce_sum"):
        np.testing.assert_array_equal(elementwise(name, values, axes=(1,)), RECORDS[name].numpy(values, (1,)))
    for name in ("argmax", "argsort"):
        np.testing.assert_array_equal(elementwise(name, values, axis=1), RECORDS[name].numpy(values, 1))
    for name in ("maximum", "minimum"):
        np.testing.assert_array_equal(
            elementwise(name, values[0], values[1]), RECORDS[name].numpy(values[0], values[1])
        )
    np.testing.assert_array_equal(elementwise("sign", values), np.sign(values))
    np.testing.assert_array_equal(elementwise("round", np.array([0.5, 1.5, -2.5])), [0.0, 2.0, -2.0])


def test_integer_division_by_zero_and_minus_one() -> None:
    x, y = np.array([7, -7, np.iinfo(np.int64).min, 5]), np.array([2, 2, -1, 0])
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(elementwise("floor_divide", x, y), np.floor_divide(x, y))
        np.testing.assert_array_equal(elementwise("integer_remainder", x, y), np.remainder(x, y))


def test_reduction_over_no_axes_is_the_identity() -> None:
    values = np.arange(6.0).reshape(2, 3)
    for name in ("reduce_sum", "reduce_max"):
        np.testing.assert_array_equal(elementwise(name, values, axes=()), values)


def test_random_numbers_are_bit_exact() -> None:
    for seed in (0, -1, 7, np.iinfo(np.int64).min, np.iinfo(np.int64).max):
        for counter in (-3, 0, 2**40):
            want = RECORDS["fold_seed"].numpy(np.int64(seed), np.int64(counter))
            assert elementwise("fold_seed", np.int64(seed), np.int64(counter)) == want
        for dtype in (f32, f64):
            want = RECORDS["uniform"].numpy(np.int64(seed), (5, 3), dtype)
            np.testing.assert_array_equal(elementwise("uniform", np.int64(seed), shape=(5, 3), dtype=dtype), want)


def test_contraction_of_halves_accumulates_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(s, generator=generator).bfloat16() for s in ((1, 4096), (4096, 3)))
    body = application("contract", (array(bf16, 4096), array(bf16, 4096, 3)), {"spec": "i,ij->j", "dtype": f32})
    out = evaluated(body, 1, [x, w.unsqueeze(0)])
    assert out.dtype is torch.float32
    torch.testing.assert_close(out, (x.double() @ w.double()).float(), rtol=1e-4, atol=1e-3)


def test_cast_to_bf16_rounds_as_the_reference() -> None:
    values = np.random.default_rng(0).normal(size=100)
    body = application("cast", (array(f64, 100),), {"dtype": bf16, "pinned": True})
    out = evaluated(body, 0, [torch.from_numpy(values)])
    assert out.dtype is torch.bfloat16
    np.testing.assert_array_equal(out.float().numpy(), RECORDS["cast"].numpy(values, bf16, True))


def test_a_shared_weight_is_never_expanded() -> None:
    """The product of rows with a weight under a batch is one matrix product on the weight's own memory."""
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = function(*args, **(kwargs or {}))
            seen.extend(
                t.untyped_storage().nbytes()
                for t in (out if isinstance(out, (list, tuple)) else [out])
                if isinstance(t, torch.Tensor)
            )
            return out

    body = application("contract", (array(f64, 2, 8), array(f64, 2, 8, 9)), {"spec": "hi,hij->hj"})
    x, w = torch.randn(50, 2, 8, dtype=torch.float64), torch.randn(1, 2, 8, 9, dtype=torch.float64)
    with Watch():
        out = evaluated(body, 1, [x, w])
    torch.testing.assert_close(out, torch.einsum("bhi,hij->bhj", x, w[0]))
    assert max(seen) <= 50 * 2 * 9 * 8
