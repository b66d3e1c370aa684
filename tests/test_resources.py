"""Targets, and what kernels take of them: hand-written kernels that fit, that do not, and that do not compile."""

from __future__ import annotations

import importlib
import sys
import tempfile
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from foldfuse.compiler.errors import MissingTriton, TargetError
from foldfuse.kernels import resources as resources_module
from foldfuse.kernels.kernel import Argument, Kernel, Tiles
from foldfuse.kernels.resources import (
    Resources,
    aligned_arguments,
    compile_ahead,
    compile_many,
    compile_options,
    resident_programs,
    signature,
    violations,
)
from foldfuse.kernels.targets import TARGETS as ALL_TARGETS
from foldfuse.kernels.targets import target

from . import ahead_of_time
from .ahead_of_time import TARGETS, check_fits, compiled
from .legs import outside_leg_b

HEADER = "import triton\nimport triton.language as tl\n\n\n"


def kernel(name: str, body: str, arguments: dict[str, str], imports: str = "", **options: int | bool) -> Kernel:
    """A kernel from its body; an argument that is called `size` is one."""
    source = f"{HEADER}{imports}@triton.jit(do_not_specialize=['size'])\ndef {name}({', '.join(arguments)}):\n{body}"
    each = tuple(
        Argument(argument, "size" if argument == "size" else "buffer", dtype, written=argument == "out")
        for argument, dtype in arguments.items()
    )
    return Kernel(name, source, each, (Tiles((1,)),), **options)


POINTWISE = kernel(
    "pointwise",
    """\
    lanes = tl.program_id(0).to(tl.int64) * 1024 + tl.arange(0, 1024)
    tl.store(out + lanes, tanh(tl.load(x + lanes, lanes < size, other=0.0)), lanes < size)
""",
    {"x": "f32", "out": "f32", "size": "i32"},
    "from foldfuse.kernels.device import tanh\n\n\n",
)


def contraction(rows: int, columns: int, depth: int, steps: int, **options: int | bool) -> Kernel:
    """A product of bf16 matrices, a block of `depth` at a time."""
    return kernel(
        "contraction",
        f"""\
    rows = tl.arange(0, {rows})
    columns = tl.arange(0, {columns})
    depth = tl.arange(0, {depth})
    total = tl.zeros([{rows}, {columns}], tl.float32)
    for step in range({steps}):
        at = step * {depth} + depth
        left = tl.load(x + rows[:, None] * {depth * steps} + at[None, :])
        right = tl.load(w + at[:, None] * {columns} + columns[None, :])
        total = tl.dot(left, right, total)
    tl.store(out + rows[:, None] * {columns} + columns[None, :], total)
""",
        {"x": "bf16", "w": "bf16", "out": "f32"},
        **options,
    )


DOT = contraction(64, 64, 64, 8, stages=2)
# Blocks of two operands of 32 x 256 in bf16, 32 KB, wait for their turn: eight of them, or three for AMD's 64 KB.
TOO_MUCH_SHARED = {name: contraction(32, 32, 256, 32, stages=4 if name == "gfx942" else 9, warps=8) for name in TARGETS}


def spilling(elements: int) -> Kernel:
    """All elements are needed again after their sum is known, and one warp holds them all."""
    return kernel(
        "spilling",
        f"""\
    lanes = tl.arange(0, {elements})
    held = tl.load(x + lanes)
    tl.store(out + lanes, held / tl.sum(held))
""",
        {"x": "f32", "out": "f32"},
        warps=1,
    )


# 256 and 512 for each thread: all its registers.
SPILLING = {"sm_80": spilling(8192), "sm_90": spilling(8192), "gfx942": spilling(32768)}
BROKEN = kernel("broken", "    tl.store(out, undefined_name)\n", {"out": "f32"})
DYING = kernel("dying", "    tl.store(out, 1.0)\n", {"out": "f32"}, "import os\nos.kill(os.getpid(), 11)\n\n\n")
HANGING = kernel("hanging", "    tl.store(out, 1.0)\n", {"out": "f32"}, "import time\ntime.sleep(600)\n\n\n")


SMALL = Resources(64, 256, 1024, 0, 0, 0, 0, 0, 0, 1.0)


@outside_leg_b
def test_a_pointwise_kernel_fits() -> None:
    for (_, name), resources in check_fits([POINTWISE]).items():
        assert resources.threads == 4 * target(name).warp_size
        assert 8 <= resources.registers <= 64
        assert (resources.shared, resources.stack, resources.spilled, resources.local_accesses) == (0, 0, 0, 0)
        assert resources.tensor_core_instructions == 0
        assert 0 < resources.seconds < 100


@outside_leg_b
def test_a_contraction_fits_and_runs_on_tensor_cores() -> None:
    for (_, name), resources in check_fits([DOT]).items():
        assert resources.tensor_core_instructions > 0
        # Two stages of two operands of 64 x 64 in bf16, or of one where the compiler keeps the other in registers.
        assert 8 * 1024 <= resources.shared <= 33 * 1024
        assert (resources.tensor_memory > 0) == (name == "sm_100")


@outside_leg_b
@pytest.mark.parametrize("name", TARGETS)
def test_too_much_shared_memory_is_named(name: str) -> None:
    (resources,), gpu = compiled([TOO_MUCH_SHARED[name]], [name]).values(), target(name)
    assert resources.shared > gpu.shared_memory
    assert violations(resources, gpu) == [
        f"{resources.shared} bytes of shared memory; {name} has {gpu.shared_memory} for a program"
    ]
    assert resident_programs(resources, gpu) == 0


@outside_leg_b
@pytest.mark.parametrize("name", SPILLING)
def test_spills_are_named(name: str) -> None:
    (resources,), gpu = compiled([SPILLING[name]], [name]).values(), target(name)
    assert resources.registers == gpu.registers_per_thread
    assert resources.stack > 0 and resources.spilled > 0 and resources.local_accesses > 0
    assert violations(resources, gpu) == [
        f"{resources.spilled} bytes spilled by each thread ({resources.local_accesses} accesses to its memory):"
        f" {name} has no registers left for them"
    ]


def test_what_does_not_fit_or_compile_fails_a_test(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = (DOT, "sm_90")
    for answer, message in (
        (replace(SMALL, spilled=8), "contraction for sm_90: 8 bytes spilled"),
        ("no such name", "contraction for sm_90: no such name"),
    ):
        monkeypatch.setattr(ahead_of_time, "compile_many", lambda *_, answer=answer: {pair: answer})
        with pytest.raises(AssertionError, match=message):
            check_fits([DOT], ["sm_90"])


@outside_leg_b
def test_a_failure_stops_no_other_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    twin = replace(POINTWISE, header="# of another layer\n")
    wide = replace(POINTWISE, arguments=tuple(replace(a, dtype=a.dtype.replace("f32", "f64")) for a in twin.arguments))
    found = compile_many(iter([BROKEN, DYING, POINTWISE, twin, wide]), ["sm_90"], processes=1)
    assert list(found) == [(each, "sm_90") for each in (BROKEN, DYING, POINTWISE, twin, wide)]
    assert "CompilationError" in found[BROKEN, "sm_90"]
    assert "undefined_name is not defined" in found[BROKEN, "sm_90"]
    assert found[DYING, "sm_90"] == "the compiler's process was ended by SIGSEGV"
    assert isinstance(found[POINTWISE, "sm_90"], Resources)
    # Equal texts are one kernel; equal texts of other types are not.
    assert found[twin, "sm_90"] is found[POINTWISE, "sm_90"]
    assert found[wide, "sm_90"].registers > found[POINTWISE, "sm_90"].registers
    assert list(tmp_path.iterdir()) == []


@outside_leg_b
def test_one_kernel_that_does_not_compile_is_an_error() -> None:
    with pytest.raises(TargetError, match=r"kernel broken does not compile for gfx942 \(Instinct MI300X\):\n(.|\n)*un"):
        compile_ahead(BROKEN, target("gfx942"))
    with pytest.raises(TargetError, match="took longer than 3 seconds and was stopped"):
        compile_ahead(HANGING, target("sm_90"), patience=3)


@outside_leg_b
def test_pointers_are_compiled_as_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    aligned = compile_ahead(DOT, target("sm_80"))
    monkeypatch.setattr(resources_module, "aligned_arguments", lambda kernel: ())
    unaligned = compile_ahead(DOT, target("sm_80"))
    assert replace(unaligned, seconds=0.0) != replace(aligned, seconds=0.0)


def test_what_is_compiled_is_what_is_launched() -> None:
    assert signature(DOT) == {"x": "*bf16", "w": "*bf16", "out": "*fp32"}
    assert signature(POINTWISE) == {"x": "*fp32", "out": "*fp32", "size": "i32"}
    assert aligned_arguments(POINTWISE) == (0, 1)
    assert compile_options(replace(DOT, cooperative=True)) == {
        "num_warps": 4,
        "num_stages": 2,
        "enable_fp_fusion": True,
        "launch_cooperative_grid": True,
    }


def test_without_triton_kernels_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(MissingTriton, match="pip install triton"):
        compile_many([POINTWISE], ["sm_90"])
    monkeypatch.delitem(sys.modules, "foldfuse.kernels.resources")
    importlib.import_module("foldfuse.kernels.resources")


@pytest.mark.parametrize("name", ALL_TARGETS)
def test_each_limit_is_checked(name: str) -> None:
    gpu = target(name)
    assert violations(SMALL, gpu) == []
    at_the_limit = replace(
        SMALL, shared=gpu.shared_memory, registers=gpu.registers_per_thread, tensor_memory=gpu.tensor_memory
    )
    assert violations(at_the_limit, gpu) == []
    assert violations(replace(SMALL, threads=1024, registers=gpu.registers // 1024), gpu) == []
    assert violations(replace(SMALL, threads=1024, registers=gpu.registers // 1024 + 1), gpu) == [
        f"{gpu.registers + 8 * 1024} registers in all its threads; {name} has {gpu.registers} for a program"
    ]
    for change, word in (
        ({"shared": gpu.shared_memory + 1}, "shared memory"),
        ({"tensor_memory": gpu.tensor_memory + 1}, "tensor memory"),
        ({"threads": 2048, "registers": 8}, "threads"),
        ({"threads": 32, "registers": gpu.registers_per_thread + 1}, "registers a thread"),
        ({"spilled": 4, "local_accesses": 2}, "4 bytes spilled by each thread (2 accesses"),
    ):
        (complaint,) = violations(replace(SMALL, **change), gpu)
        assert word in complaint and name in complaint


@pytest.mark.parametrize(
    ("name", "change", "each"),
    [
        # Registers: 65,536 over 64 x 256. Threads: 2048, or 1536, over 256. Shared memory: 228 KB over 100 + 1.
        ("sm_90", {}, 4),
        ("sm_90", {"registers": 16}, 8),
        ("sm_89", {"registers": 16}, 6),
        ("sm_90", {"shared": 100 * 1024}, 2),
        ("sm_90", {"shared": 113 * 1024}, 2),
        ("sm_90", {"shared": 114 * 1024}, 1),
        ("sm_90", {"threads": 32, "registers": 16, "shared": 0}, 32),
        ("sm_86", {"threads": 32, "registers": 16, "shared": 0}, 16),
        ("gfx942", {}, 8),
        ("gfx942", {"shared": 32 * 1024}, 2),
    ],
)
def test_how_many_programs_run_at_once(name: str, change: dict[str, int], each: int) -> None:
    gpu = target(name)
    assert resident_programs(replace(SMALL, **change), gpu) == each * gpu.multiprocessors


def test_targets_are_known_by_name() -> None:
    assert set(ALL_TARGETS) == {"sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "gfx942"}
    assert {name: gpu.shared_memory for name, gpu in ALL_TARGETS.items()} == {
        "sm_80": 166_912,
        "sm_86": 101_376,
        "sm_89": 101_376,
        "sm_90": 232_448,
        "sm_100": 232_448,
        "gfx942": 65_536,
    }
    for name, gpu in ALL_TARGETS.items():
        assert gpu.name == name and target(name) is gpu
        assert set(gpu.rates) == {"bf16", "f16", "tf32", "f32", "f64"}
        assert gpu.rates["bf16"] > gpu.rates["tf32"] >= gpu.rates["f32"] > 1e12
        assert gpu.cache_bandwidth > gpu.bandwidth > 1e11
        with pytest.raises(FrozenInstanceError):
            gpu.threads = 1
    with pytest.raises(
        TargetError, match="no target is called 'sm_75'; known: sm_80, sm_86, sm_89, sm_90, sm_100, gfx942"
    ):
        target("sm_75")
    with pytest.raises(TargetError, match="'sm_75'"):
        compile_many([POINTWISE], ["sm_75"])
