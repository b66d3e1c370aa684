"""The helpers of generated kernels: each against NumPy in float64 under the interpreter, and compiled for each GPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foldfuse.compiler.records import RECORDS
from foldfuse.compiler.types import DTYPES
from foldfuse.kernels.kernel import Argument, Kernel, Tiles

from .ahead_of_time import check_fits
from .legs import in_leg_b, leg_b, outside_leg_b

test_in_the_interpreter = leg_b(__file__)

TORCH = {
    "f32": torch.float32,
    "f64": torch.float64,
    "i32": torch.int32,
    "i64": torch.int64,
    "bool": torch.bool,
}
HEADER = "import triton\nimport triton.language as tl\n{}\n\n@triton.jit\ndef tried({}):\n"


def numbers(*sizes: float) -> np.ndarray:
    """Zeros, infinities, NaN, and each size with both signs."""
    return np.array([0.0, -0.0, np.inf, -np.inf, np.nan, *sizes, *(-size for size in sizes)])


FINE = np.concatenate([np.linspace(-3.0, 3.0, 301), np.geomspace(1e-6, 1e4, 100), -np.geomspace(1e-6, 1e4, 100)])
SPECIAL = numbers(1e-40, 1.2e-38, 1e-20, 1e-8, 1e-3, 0.25, 0.49999997, 0.5, 0.50000006, 1, 1.5, 2.5, 88.0, 89.0, 104.0)
SINGLE = np.concatenate([SPECIAL, numbers(709.0, 710.0, 8388607.5, 8388608.0, 4503599627370495.5, 1e30, 3e38), FINE])
PAIR = np.concatenate([numbers(1e-40, 1e-30, 1e-8, 0.3, 0.5, 1, 1.5, 2, 3, 7, 30.7, 1e6, 16777217.0, 1e30, 3e38)])
WHOLE = np.array([0, 1, -1, 2, -2, 3, -3, 7, -7, 10, -10, 99, -99, 2**31 - 1, -(2**31), 65536, -65536])


@dataclass(frozen=True)
class Case:
    """A helper, what NumPy calls it, and the values that it is tried on.

    Attributes:
        text: the expression, of x (and y).
        numpy: the same in NumPy.
        values: of x, or of x and y both.
        pair: whether there is a y.
        digits: by dtype, the relative error allowed; no dtype but these is tried.
        result: the dtype of the result; the argument's own when empty.
        signed_zeros: whether zeros have NumPy's signs too.
        domain: which values have a meaning, of those that the argument's dtype holds.
    """

    text: str
    numpy: Callable[..., Any]
    values: np.ndarray
    digits: tuple[tuple[str, float], ...] = (("f32", 3e-7), ("f64", 1e-15))
    pair: bool = False
    result: str = ""
    signed_zeros: bool = False
    domain: Callable[..., Any] | None = None

    @property
    def name(self) -> str:
        return self.text.partition("(")[0]


def _quotient_is_small(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return ~(np.abs(x / y) > 2.0**40) | ~np.isfinite(x) | (y == 0)


EXACT = (("f32", 0.0), ("f64", 0.0))
INTEGER = (("i32", 0.0), ("i64", 0.0))
CASES = (
    Case("tanh(x)", np.tanh, SINGLE),
    Case("sigmoid(x)", RECORDS["sigmoid"].numpy, SINGLE),
    Case("expm1(x)", np.expm1, SINGLE),
    Case("log1p(x)", np.log1p, SINGLE),
    Case("arctan(x)", np.arctan, SINGLE),
    Case("round_half_even(x)", np.round, SINGLE, EXACT, signed_zeros=True),
    Case("is_finite(x)", np.isfinite, SINGLE, EXACT, result="bool"),
    Case("sign(x)", np.sign, SINGLE, EXACT),
    Case("sign(x)", np.sign, WHOLE, INTEGER),
    Case("arctan2(x, y)", np.arctan2, PAIR, pair=True, signed_zeros=True),
    Case("power(x, y)", np.power, PAIR, (("f32", 2e-7), ("f64", 2e-13)), pair=True, signed_zeros=True),
    Case("remainder(x, y)", np.remainder, PAIR, pair=True, signed_zeros=True, domain=_quotient_is_small),
    Case("maximum(x, y)", np.maximum, PAIR, EXACT, pair=True),
    Case("minimum(x, y)", np.minimum, PAIR, EXACT, pair=True),
    Case("maximum(x, y)", np.maximum, WHOLE, INTEGER, pair=True),
    Case("minimum(x, y)", np.minimum, WHOLE, INTEGER, pair=True),
    Case("floor_divide(x, y)", np.floor_divide, WHOLE, INTEGER, pair=True),
    Case("integer_remainder(x, y)", np.remainder, WHOLE, INTEGER, pair=True),
    # What needs no helper is what `tl` has under both compilers and the interpreter: that is tried too.
    *(
        Case(f"tl.{name}(x)", getattr(np, name), FINE, (("f32", 1e-6), ("f64", 1e-14)), domain=domain)
        for name, domain in (
            ("exp", None),
            ("log", lambda x: x > 0),
            ("sqrt", lambda x: x > 0),
            ("sin", None),
            ("cos", None),
            ("floor", None),
            ("ceil", None),
        )
    ),
    Case("tl.erf(x)", RECORDS["erf"].numpy, FINE, (("f32", 1e-6), ("f64", 1e-14))),
    Case("tl.rsqrt(x)", RECORDS["rsqrt"].numpy, FINE, (("f32", 1e-6), ("f64", 1e-14)), domain=lambda x: x > 0),
)


def multiply_add_is_fused() -> bool:
    """Whether the interpreter rounds a fused multiply-add once; Triton 3.6's rounds twice."""
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle, interpreter_builder

    three, third, one = (TensorHandle(np.array([value]), tl.float64) for value in (3.0, 1 / 3, -1.0))
    return bool(interpreter_builder.create_fma(three, third, one).data[0] != 0)


def kernel_of(
    lines: Sequence[str], arguments: Sequence[tuple[str, str]], helpers: Sequence[str], **options: bool
) -> Kernel:
    """A kernel of one program from the lines of its body."""
    imports = f"from foldfuse.kernels.device import {', '.join(sorted(set(helpers)))}\n" if helpers else ""
    header = HEADER.format(imports, ", ".join(name for name, _ in arguments))
    source = header + "".join(f"    {line}\n" for line in lines)
    buffers = tuple(Argument(name, "buffer", dtype, written=name.startswith("out")) for name, dtype in arguments)
    return Kernel("tried", source, buffers, (Tiles((1,)),), **options)


def run(kernel: Kernel, folder: Path, *tensors: torch.Tensor) -> None:
    """Run a kernel of one program under the interpreter."""
    file = folder / f"{kernel.key}.py"
    file.write_text(kernel.source, encoding="utf-8")
    specification = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    module.tried[(1,)](*tensors)


def padded(values: np.ndarray) -> np.ndarray:
    """The values again and again, to a power of two."""
    return np.resize(values, 1 << (len(values) - 1).bit_length())


def check_close(
    got: np.ndarray, expected: np.ndarray, digits: float, signed_zeros: bool, where: Sequence[np.ndarray]
) -> None:
    """Equal but for rounding; NaN and infinities are equal too, and the signs of exact zeros if asked."""
    if got.dtype.kind != "f":
        np.testing.assert_array_equal(got, expected)
        return
    with np.errstate(all="ignore"):
        rounded = expected.astype(got.dtype)
        close = np.abs(got.astype(np.float64) - expected) <= digits * np.abs(expected) + np.finfo(got.dtype).tiny
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    right = np.where(np.isfinite(rounded), close, same)
    if signed_zeros:
        right &= (expected != 0) | (np.signbit(got) == np.signbit(expected))
    rows = [f"{tuple(float(w[i]) for w in where)}: {got[i]!r}, not {rounded[i]!r}" for i in np.flatnonzero(~right)]
    assert not rows, f"{len(rows)} of {len(right)} are wrong:\n" + "\n".join(rows[:20])


@in_leg_b
@pytest.mark.parametrize(
    ("case", "dtype", "digits"),
    [pytest.param(case, d, digits, id=f"{case.name}-{d}") for case in CASES for d, digits in case.digits],
)
def test_equals_numpy(case: Case, dtype: str, digits: float, tmp_path: Path) -> None:
    if case.name == "remainder" and not multiply_add_is_fused():
        pytest.skip("this Triton's interpreter rounds a fused multiply-add twice")
    values = case.values.astype(DTYPES[dtype].numpy)
    grid = [each.ravel() for each in np.meshgrid(values, values)] if case.pair else [values]
    with np.errstate(all="ignore"):
        if case.domain is not None:
            meant = case.domain(*grid)
            grid = [each[meant] for each in grid]
        inputs = [padded(each) for each in grid]
        wide = [each.astype(np.float64) if dtype[0] == "f" else each for each in inputs]
        expected = np.asarray(case.numpy(*wide))
    length, result = len(inputs[0]), case.result or dtype
    names = "xy"[: len(inputs)]
    kernel = kernel_of(
        [
            f"lanes = tl.arange(0, {length})",
            *(f"{name} = tl.load({name}_pointer + lanes)" for name in names),
            f"tl.store(out_pointer + lanes, {case.text})",
        ],
        [*((f"{name}_pointer", dtype) for name in names), ("out_pointer", result)],
        [] if case.name.startswith("tl.") else [case.name],
    )
    out = torch.empty(length, dtype=TORCH[result])
    run(kernel, tmp_path, *(torch.from_numpy(each) for each in inputs), out)
    check_close(out.numpy(), expected, digits, case.signed_zeros, wide)


@in_leg_b
@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("shape", [(2, 4, 8), (4, 1, 8), (1,), ()])
def test_takes_tiles_of_any_rank(shape: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    x, y = (np.random.default_rng(seed).normal(size=shape).astype(DTYPES[dtype].numpy) for seed in (1, 2))
    size = max(1, x.size)
    lanes = f"tl.reshape(tl.arange(0, {size}), {list(shape)})" if shape else "0"
    unary = ("tanh", "sigmoid", "expm1", "arctan", "round_half_even", "sign")
    binary = ("arctan2", "remainder", "maximum", "minimum")
    terms = [*(f"{name}(x)" for name in unary), *(f"{name}(x, y)" for name in binary), "power(tl.abs(x), y)"]
    kernel = kernel_of(
        [
            f"lanes = {lanes}",
            "x = tl.load(x_pointer + lanes)",
            "y = tl.load(y_pointer + lanes)",
            f"tl.store(out_pointer + lanes, {' + '.join(terms)})",
        ],
        [("x_pointer", dtype), ("y_pointer", dtype), ("out_pointer", dtype)],
        [*unary, *binary, "power"],
    )
    out = torch.empty(shape, dtype=TORCH[dtype])
    run(kernel, tmp_path, torch.from_numpy(np.asarray(x)), torch.from_numpy(np.asarray(y)), out)
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    expected = np.tanh(a) + 1 / (1 + np.exp(-a)) + np.expm1(a) + np.arctan(a) + np.round(a) + np.sign(a)
    expected += np.arctan2(a, b) + np.remainder(a, b) + np.maximum(a, b) + np.minimum(a, b) + np.power(np.abs(a), b)
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-5 if dtype == "f32" else 1e-13, atol=1e-6)


REDUCTIONS = (
    ("reduce_max", np.max, ""),
    ("reduce_min", np.min, ""),
    ("reduce_prod", np.prod, ""),
    ("argmax", np.argmax, "i32"),
)
SCANS = (
    ("cumulative_sum", np.cumsum),
    ("cumulative_product", np.cumprod),
)


def reduced_array(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Numbers with ties, zeros of both signs, infinities and NaNs, each in some rows only."""
    rng = np.random.default_rng(len(shape))
    x = rng.integers(-3, 4, shape)
    if dtype[0] == "i":
        return x.astype(DTYPES[dtype].numpy)
    x = x.astype(DTYPES[dtype].numpy) * rng.choice([1.0, 0.5, -0.0], shape).astype(DTYPES[dtype].numpy)
    flat = x.reshape(-1)
    flat[1] = -np.inf
    if x.ndim > 1:
        flat[[5, 7]] = np.nan, np.inf
        flat[11] = -np.nan
    return x


@in_leg_b
@pytest.mark.parametrize("dtype", ["f32", "f64", "i32", "i64"])
@pytest.mark.parametrize(("shape", "axis"), [((16,), 0), ((8, 4), 0), ((8, 4), 1), ((2, 8, 4), 1), ((16, 1), 1)])
def test_reduces_and_cumulates_as_numpy(shape: tuple[int, ...], axis: int, dtype: str, tmp_path: Path) -> None:
    x = reduced_array(shape, dtype)
    lines = [
        f"lanes = tl.reshape(tl.arange(0, {x.size}), {list(shape)})",
        "x = tl.load(x_pointer + lanes)",
    ]
    arguments, expected, outputs = [("x_pointer", dtype)], [], []

    def wanted(text: str, result: np.ndarray, own: str) -> None:
        lane = f"tl.reshape(tl.arange(0, {result.size}), {list(result.shape)})" if result.ndim else "0"
        lines.append(f"tl.store(out_{len(expected)} + {lane}, {text})")
        arguments.append((f"out_{len(expected)}", own))
        expected.append(result.astype(DTYPES[own].numpy))
        outputs.append(torch.empty(result.shape, dtype=TORCH[own]))

    with np.errstate(invalid="ignore"):
        for name, numpy, own in REDUCTIONS:
            wanted(f"{name}(x, {axis})", np.asarray(numpy(x, axis)), own or dtype)
        for name, numpy in SCANS:
            wanted(f"{name}(x, {axis})", numpy(x, axis), dtype)
            backward = np.flip(numpy(np.flip(x, axis), axis), axis)
            wanted(f"{name}(x, {axis}, True)", backward, dtype)
    helpers = [name for name, *_ in (*REDUCTIONS, *SCANS)]
    run(kernel_of(lines, arguments, helpers), tmp_path, torch.from_numpy(x), *outputs)
    for out, result, line in zip(outputs, expected, lines[2:], strict=True):
        np.testing.assert_array_equal(out.numpy(), result, err_msg=line)


@in_leg_b
def test_the_first_of_equal_or_nan_is_the_largest(tmp_path: Path) -> None:
    rows = np.array(
        [[-0.0, 0.0, -1.0, -0.0], [1.0, np.nan, np.inf, -np.nan], [-np.inf] * 4, [2.0, -5.0, 2.0, 1.0]], np.float32
    )
    kernel = kernel_of(
        [
            "lanes = tl.arange(0, 4)",
            "x = tl.load(x_pointer + lanes[:, None] * 4 + lanes[None, :])",
            "tl.store(out_pointer + lanes, argmax(x, 1))",
        ],
        [("x_pointer", "f32"), ("out_pointer", "i32")],
        ["argmax"],
    )
    out = torch.empty(4, dtype=torch.int32)
    run(kernel, tmp_path, torch.from_numpy(rows), out)
    assert out.tolist() == [0, 1, 0, 0] == np.argmax(rows, 1).tolist()


RANDOM = kernel_of(
    [
        "lanes = tl.arange(0, 64)",
        "seeds = tl.load(seed_pointer + lanes)",
        "counters = tl.load(counter_pointer + lanes)",
        "tl.store(out_folded + lanes, fold_seed(seeds, counters))",
        "tl.store(out_mixed + lanes, mix(seeds.to(tl.uint64, bitcast=True)).to(tl.int64, bitcast=True))",
        "seed = tl.load(seed_pointer)",
        "for index in range(3):",
        "    seed = fold_seed(seed, index)",
        "tl.store(out_seed, seed)",
        "tl.store(out_draws + lanes, uniform(seed, lanes))",
        "tl.store(out_wide + lanes, uniform(seed, lanes))",
    ],
    [
        *(("seed_pointer", "i64"), ("counter_pointer", "i64"), ("out_folded", "i64"), ("out_mixed", "i64")),
        *(("out_seed", "i64"), ("out_draws", "f32"), ("out_wide", "f64")),
    ],
    ["fold_seed", "mix", "uniform"],
)


@in_leg_b
def test_draws_what_the_oracle_draws(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    seeds, counters = (rng.integers(-(2**63), 2**63 - 1, 64, dtype=np.int64) for _ in range(2))
    counters[:4] = 0, 1, -1, -(2**63)
    folded, mixed, seed = (torch.empty(n, dtype=torch.int64) for n in (64, 64, 1))
    draws, wide = torch.empty(64), torch.empty(64, dtype=torch.float64)
    run(RANDOM, tmp_path, torch.from_numpy(seeds), torch.from_numpy(counters), folded, mixed, seed, draws, wide)

    fold, uniform = RECORDS["fold_seed"].numpy, RECORDS["uniform"].numpy
    np.testing.assert_array_equal(folded.numpy(), fold(seeds, counters))
    # A step back from the counter undoes what folding adds to it, so that only the finaliser is left.
    np.testing.assert_array_equal(mixed.numpy(), fold(seeds, np.full(64, -1)))
    expected = seeds[0]
    for index in range(3):
        expected = fold(expected, index)
    assert seed.item() == expected
    for out, dtype in ((draws, "f32"), (wide, "f64")):
        np.testing.assert_array_equal(out.numpy(), uniform(expected, (64,), DTYPES[dtype]))


BARRIER = kernel_of(
    ["tl.store(out_pointer, 1)", "grid_barrier(counter_pointer, 4)", "tl.store(out_pointer, 2)"],
    [("counter_pointer", "i32"), ("out_pointer", "i32")],
    ["grid_barrier"],
    cooperative=True,
)


@in_leg_b
def test_a_grid_barrier_waits_for_all_arrivals(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from triton.runtime.interpreter import interpreter_builder

    counter, out = torch.zeros(1, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    events: list[str] = []
    own = type(interpreter_builder).create_atomic_rmw

    def atomic(builder: Any, operation: Any, pointer: Any, value: Any, mask: Any, order: Any, scope: Any) -> Any:
        polled = value.data.item() == 0
        events.append(f"{'poll' if polled else 'arrive'} {order.name} {scope.name} after {out.item()}")
        # Another program arrives before each look at the counter.
        counter.add_(polled)
        return own(builder, operation, pointer, value, mask, order, scope)

    monkeypatch.setattr(type(interpreter_builder), "create_atomic_rmw", atomic)
    monkeypatch.setattr(type(interpreter_builder), "create_barrier", lambda builder: events.append("meet"))
    run(BARRIER, tmp_path, counter, out)
    poll = "poll ACQUIRE GPU after 1"
    assert events == ["meet", "arrive RELEASE GPU after 1", poll, poll, poll, "meet"]
    assert (counter.item(), out.item()) == (4, 2)


def every_helper(dtype: str) -> list[Kernel]:
    """Kernels that call every helper, so that each is compiled."""
    own = [case for case in CASES if dtype in dict(case.digits)]
    lines = [
        "rows = tl.arange(0, 16)",
        "lanes = rows[:, None] * 32 + tl.arange(0, 32)[None, :]",
        "x = tl.load(x_pointer + lanes)",
        "y = tl.load(y_pointer + lanes)",
        *(f"tl.store(out_tile + {512 * place} + lanes, {case.text})" for place, case in enumerate(own)),
        *(f"tl.store(out_rows + {16 * place} + rows, {name}(x, 1))" for place, (name, *_) in enumerate(REDUCTIONS)),
        *(f"tl.store(out_tile + lanes, {name}(x, 0))" for name, _ in SCANS),
        *(f"tl.store(out_tile + lanes, {name}(x, 1, True))" for name, _ in SCANS),
    ]
    helpers = [case.name for case in own if not case.name.startswith("tl.")]
    helpers += [name for name, *_ in (*REDUCTIONS, *SCANS)]
    arguments = [(name, dtype) for name in ("x_pointer", "y_pointer", "out_tile", "out_rows")]
    return [kernel_of(lines, arguments, helpers)]


@outside_leg_b
def test_compile_for_every_gpu() -> None:
    kernels = [kernel for dtype in ("f32", "f64", "i32", "i64") for kernel in every_helper(dtype)]
    check_fits([*kernels, RANDOM, BARRIER])
