"""Launching under Triton's interpreter: what a kernel is given, what is refused, what is counted."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from foldfuse.compiler.errors import DeviceError, LaunchError
from foldfuse.compiler.sizes import Named
from foldfuse.kernels.kernel import Argument, Kernel, Tiles
from foldfuse.runtime.kernel_cache import FOLDER_VARIABLE
from foldfuse.runtime.launch import counts, launch, launcher

HEAD = """
import triton
import triton.language as tl


"""

# y[b, t] = scale x[b, t] within the row's length, 0 beyond it. One program a row and eight steps.
SCALE = (
    HEAD
    + """@triton.jit(do_not_specialize=["batch", "time"])
def scale_rows(x, scale, lengths, y, batch, time):
    row = tl.program_id(0)
    step = tl.program_id(1) * 8 + tl.arange(0, 8)
    there = step < time
    alive = there & (step < tl.load(lengths + row))
    value = tl.load(x + row * time + step, mask=alive, other=0.0) * tl.load(scale)
    tl.store(y + row * time + step, value, mask=there)
"""
)
BATCH, TIME = Named("B"), Named("T")
SCALING = Kernel(
    "scale_rows",
    SCALE,
    (
        Argument("x", "buffer", "f32"),
        Argument("scale", "buffer", "f32"),
        Argument("lengths", "lengths", "i64", size="T"),
        Argument("y", "buffer", "f32", written=True),
        Argument("batch", "size", "i32", size="B"),
        Argument("time", "size", "i32", size="T"),
    ),
    (Tiles((BATCH,)), Tiles((TIME,), 8)),
)

# Programs leave their number in scratch and count themselves; the last one adds the numbers up.
COLLECT = (
    HEAD
    + """@triton.jit(do_not_specialize=["batch"])
def collect(numbers, arrived, total, size, batch):
    program = tl.program_id(0)
    tl.store(numbers + program, program + 1)
    if tl.atomic_add(arrived, 1) == batch - 1:
        found = tl.load(numbers + tl.arange(0, 16), mask=tl.arange(0, 16) < batch, other=0)
        tl.store(total, tl.sum(found))
        tl.store(size, tl.load(arrived))
"""
)
COLLECTING = Kernel(
    "collect",
    COLLECT,
    (
        Argument("numbers", "scratch", "i64", extent=(BATCH,)),
        Argument("arrived", "counter", "i32", extent=(1,)),
        Argument("total", "buffer", "i64", written=True),
        Argument("size", "buffer", "i32", written=True),
        Argument("batch", "size", "i32", size="B"),
    ),
    (Tiles((BATCH,)),),
)


@pytest.fixture(autouse=True)
def _a_cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))


def scaled(batch: int, time: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], torch.Tensor]:
    """The buffers and lengths of `SCALING`, and what it must write."""
    generator = torch.Generator().manual_seed(batch * 100 + time)
    x = torch.randn(batch, time, generator=generator)
    lengths = torch.randint(0, time + 1, (batch,), generator=generator)
    alive = torch.arange(time) < lengths[:, None]
    buffers = {"x": x, "scale": torch.tensor([3.0]), "y": torch.full_like(x, torch.nan)}
    return buffers, {"T": lengths}, torch.where(alive, 3 * x, 0.0)


@pytest.mark.parametrize(("batch", "time"), [(1, 1), (3, 8), (2, 21)])
def test_a_kernel_gets_buffers_sizes_and_lengths(batch: int, time: int) -> None:
    buffers, lengths, expected = scaled(batch, time)
    before = counts()
    launch(SCALING, buffers, {"B": batch, "T": time, "unused": 5}, lengths)
    assert torch.equal(buffers["y"], expected)
    assert (counts() - before).launches == {"scale_rows": 1}


def test_sizes_may_change_from_call_to_call_and_compile_nothing() -> None:
    start, ready = counts(), launcher(SCALING)
    for batch, time in ((3, 8), (3, 8), (4, 8), (3, 9), (3, 8)):
        buffers, lengths, expected = scaled(batch, time)
        ready(buffers, {"B": batch, "T": time}, lengths)
        assert torch.equal(buffers["y"], expected)
    passed = counts() - start
    assert passed.launches == {"scale_rows": 5}
    assert passed.compiles.total() <= 1 and counts().compiles[SCALING.key] == 1
    assert launcher(SCALING) is ready


def test_a_launcher_lives_as_long_as_its_kernel() -> None:
    kernel = replace(SCALING, source=f"{SCALE}\n# short life\n")
    forgotten = weakref.ref(launcher(kernel))
    assert forgotten() is launcher(kernel)
    del kernel
    gc.collect()
    assert forgotten() is None


@pytest.mark.parametrize(("batch", "time"), [(0, 5), (5, 0)])
def test_an_empty_grid_launches_nothing(batch: int, time: int) -> None:
    buffers, lengths, _ = scaled(batch, time)
    before = counts()
    launch(SCALING, buffers, {"B": batch, "T": time}, lengths)
    assert not (counts() - before).launches


@pytest.mark.parametrize("batch", [1, 11])
def test_scratch_has_the_size_of_the_call_and_counters_start_at_zero(batch: int) -> None:
    total, size = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int32)
    for _ in range(2):
        launch(COLLECTING, {"total": total, "size": size}, {"B": batch}, {})
        assert (total.item(), size.item()) == (batch * (batch + 1) // 2, batch)


def test_scratch_is_as_large_as_tiles_say(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    empty = torch.empty

    def recorded(*shape: int, **rest: Any) -> torch.Tensor:
        made.append((shape, rest["dtype"]))
        return empty(*shape, **rest)

    monkeypatch.setattr(torch, "empty", recorded)
    tiles = replace(COLLECTING.arguments[0], extent=(Tiles((BATCH,), 4), 8, TIME.plus(2)))
    kernel = replace(COLLECTING, arguments=(tiles, *COLLECTING.arguments[1:]))
    outputs = {"total": torch.zeros(1, dtype=torch.int64), "size": torch.zeros(1, dtype=torch.int32)}
    launch(kernel, outputs, {"B": 9, "T": 5}, {})
    assert made == [((3 * 8 * 7,), torch.int64)]


def refuse(
    error: type[Exception], says: str, sizes: dict[str, int] | None = None, **changed: torch.Tensor | None
) -> None:
    """Launch `SCALING` with some tensors changed (None: left out) and expect an error; nothing is written."""
    buffers, lengths, _ = scaled(2, 3)
    for name, tensor in changed.items():
        where = lengths if name == "T" else buffers
        where[name] = tensor
        if tensor is None:
            del where[name]
    with pytest.raises(error, match=says):
        launch(SCALING, buffers, sizes or {"B": 2, "T": 3}, lengths)
    assert "y" not in buffers or buffers["y"].isnan().all()


def test_what_does_not_fit_is_refused_by_name() -> None:
    wide = torch.ones(2, 3, dtype=torch.float64)
    refuse(LaunchError, "scale_rows takes x in torch.float32, and was given torch.float64", x=wide)
    refuse(LaunchError, "takes the lengths of T in torch.int64, and was given torch.int32", T=torch.ones(2).int())
    turned = torch.ones(3, 2).T
    refuse(LaunchError, r"takes x contiguous.*shape \(2, 3\) with strides \(1, 2\).*\.contiguous\(\)", x=turned)
    refuse(LaunchError, r"takes scale contiguous.*strides \(0,\)", scale=torch.ones(()).expand(2))
    refuse(LaunchError, "needs the buffer x; given are scale, y", x=None)
    refuse(LaunchError, "needs the lengths of the size T; given are none", T=None)


def test_sizes_that_do_not_fit_are_refused_by_name() -> None:
    refuse(LaunchError, "needs the size T; the sizes given are B", {"B": 2})
    refuse(LaunchError, "given -1 for the size T; a size is from 0 to 2147483647", {"B": 2, "T": -1})
    refuse(LaunchError, "given 2147483648 for the size B", {"B": 2**31, "T": 3})
    refuse(LaunchError, r"a grid of 2 × 65536 programs; a grid has at most 2147483647 × 65535", {"B": 2, "T": 2**19})


def test_devices_that_do_not_fit_are_refused_by_name() -> None:
    refuse(DeviceError, "x on cpu and scale on meta. Move them to one device", scale=torch.ones(1, device="meta"))
    refuse(DeviceError, "x on cpu and the lengths of T on meta", T=torch.ones(2, dtype=torch.int64, device="meta"))
    buffers, lengths, _ = scaled(2, 3)
    buffers = {name: tensor.to("meta") for name, tensor in buffers.items()}
    with pytest.raises(DeviceError, match=r"tensors on meta\. Kernels run on CUDA devices only"):
        launch(SCALING, buffers, {"B": 2, "T": 3}, {"T": lengths["T"].to("meta")})
