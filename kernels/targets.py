"""The GPUs that kernels are planned and compiled for: what each has, and how fast it is.

Limits are exact: a kernel that passes one does not launch. Rates are a data sheet's peaks for dense operands, at the
boost clock; the cost model compares strategies by them and predicts no time. What no data sheet states (the bandwidth
of the last cache, the seconds of a barrier and of a launch) is an estimate, good to a factor of two.

Sources: NVIDIA's *CUDA C++ Programming Guide*, "Technical Specifications per Compute Capability", for the limits;
NVIDIA's data sheets and architecture white papers of the A100 (2020), GA102 (2021), Ada (2023), H100 (2023) and
DGX/HGX B200 (2024); AMD's MI300X data sheet and *CDNA 3* white paper (2023) and LLVM's *User Guide for AMDGPU Backend*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ..compiler.errors import TargetError

__all__ = ["TARGETS", "Target", "target"]

_KILO, _MEGA, _GIGA, _TERA = 1024, 1024**2, 1e9, 1e12


@dataclass(frozen=True)
class Target:
    """A GPU. A multiprocessor is what AMD calls a compute unit, a warp what it calls a wavefront.

    Attributes:
        name: what a user writes: the architecture.
        chip: the product that the rates are of.
        backend, architecture, warp_size: Triton's name for it, as of `triton.backends.compiler.GPUTarget`.
        shared_memory: bytes that one program may use.
        tensor_memory: columns of tensor memory that one program may use; 0 where there is none.
        registers: 32-bit registers of a multiprocessor, all of which one program may use.
        registers_per_thread: the most that one thread may use.
        threads: the most that one program may have.
        multiprocessors: how many the chip has.
        resident_threads, resident_programs: how many a multiprocessor holds at once.
        resident_shared_memory: bytes that the programs of a multiprocessor share.
        reserved_shared_memory: bytes of it that each program takes for the system.
        cache: bytes of the last cache that all multiprocessors share.
        cache_bandwidth: bytes per second that it delivers to all of them (an estimate).
        bandwidth: bytes per second of the memory.
        rates: operations per second (a multiply-add is two) of contractions, by operand dtype: "bf16", "f16", "tf32",
            "f32", "f64". Elementwise work runs at the "f32" rate.
        barrier: seconds that a barrier across the grid takes (an estimate).
        launch: seconds from the end of one kernel to the start of the next on its stream (an estimate).
    """

    name: str
    chip: str
    backend: str
    architecture: int | str
    warp_size: int
    shared_memory: int
    tensor_memory: int
    registers: int
    registers_per_thread: int
    threads: int
    multiprocessors: int
    resident_threads: int
    resident_programs: int
    resident_shared_memory: int
    reserved_shared_memory: int
    cache: int
    cache_bandwidth: float
    bandwidth: float
    rates: Mapping[str, float]
    barrier: float
    launch: float

    def thread_registers(self, warps: int) -> int:
        """The registers that each thread of a program of so many warps may have."""
        return min(self.registers_per_thread, self.registers // (warps * self.warp_size))


def _rates(half: float, tf32: float, f32: float, f64: float) -> Mapping[str, float]:
    return MappingProxyType(
        {"bf16": half * _TERA, "f16": half * _TERA, "tf32": tf32 * _TERA, "f32": f32 * _TERA, "f64": f64 * _TERA}
    )


def _nvidia(
    architecture: int,
    chip: str,
    *,
    shared_kilobytes: int,
    multiprocessors: int,
    resident_threads: int,
    resident_programs: int,
    cache: int,
    cache_bandwidth: float,
    bandwidth: float,
    rates: Mapping[str, float],
    barrier: float,
    tensor_memory: int = 0,
) -> Target:
    """A chip of NVIDIA's: the system keeps one kilobyte of a multiprocessor's shared memory for each program."""
    return Target(
        name=f"sm_{architecture}",
        chip=chip,
        backend="cuda",
        architecture=architecture,
        warp_size=32,
        shared_memory=(shared_kilobytes - 1) * _KILO,
        tensor_memory=tensor_memory,
        registers=65_536,
        registers_per_thread=255,
        threads=1024,
        multiprocessors=multiprocessors,
        resident_threads=resident_threads,
        resident_programs=resident_programs,
        resident_shared_memory=shared_kilobytes * _KILO,
        reserved_shared_memory=_KILO,
        cache=cache,
        cache_bandwidth=cache_bandwidth,
        bandwidth=bandwidth,
        rates=rates,
        barrier=barrier,
        launch=2.5e-6,
    )


_ALL = (
    _nvidia(
        80,
        "A100 SXM 80 GB",
        shared_kilobytes=164,
        multiprocessors=108,
        resident_threads=2048,
        resident_programs=32,
        cache=40 * _MEGA,
        cache_bandwidth=5e12,
        bandwidth=2039 * _GIGA,
        rates=_rates(312, 156, 19.5, 19.5),
        barrier=1.5e-6,
    ),
    # With fp32 accumulators, which kernels always have, a GeForce's tensor cores run at half their rate.
    _nvidia(
        86,
        "GeForce RTX 3090",
        shared_kilobytes=100,
        multiprocessors=82,
        resident_threads=1536,
        resident_programs=16,
        cache=6 * _MEGA,
        cache_bandwidth=2.5e12,
        bandwidth=936 * _GIGA,
        rates=_rates(71, 35.6, 35.6, 0.56),
        barrier=1.5e-6,
    ),
    _nvidia(
        89,
        "GeForce RTX 4090",
        shared_kilobytes=100,
        multiprocessors=128,
        resident_threads=1536,
        resident_programs=24,
        cache=72 * _MEGA,
        cache_bandwidth=5e12,
        bandwidth=1008 * _GIGA,
        rates=_rates(165.2, 82.6, 82.6, 1.3),
        barrier=1.3e-6,
    ),
    _nvidia(
        90,
        "H100 SXM",
        shared_kilobytes=228,
        multiprocessors=132,
        resident_threads=2048,
        resident_programs=32,
        cache=50 * _MEGA,
        cache_bandwidth=5.5e12,
        bandwidth=3350 * _GIGA,
        rates=_rates(989, 495, 67, 67),
        barrier=1.2e-6,
    ),
    _nvidia(
        100,
        "B200",
        shared_kilobytes=228,
        multiprocessors=148,
        resident_threads=2048,
        resident_programs=32,
        cache=126 * _MEGA,
        cache_bandwidth=10e12,
        bandwidth=8000 * _GIGA,
        rates=_rates(2250, 1125, 75, 37),
        barrier=1.4e-6,
        tensor_memory=512,
    ),
    # Each of its eight dies has 4 MB of cache of its own: the last cache that all of them share is the Infinity Cache.
    # A multiprocessor's four units hold 512 registers for each of 64 lanes.
    Target(
        name="gfx942",
        chip="Instinct MI300X",
        backend="hip",
        architecture="gfx942",
        warp_size=64,
        shared_memory=64 * _KILO,
        tensor_memory=0,
        registers=131_072,
        registers_per_thread=512,
        threads=1024,
        multiprocessors=304,
        resident_threads=2048,
        resident_programs=16,
        resident_shared_memory=64 * _KILO,
        reserved_shared_memory=0,
        cache=256 * _MEGA,
        cache_bandwidth=17.2e12,
        bandwidth=5300 * _GIGA,
        rates=_rates(1307.4, 653.7, 163.4, 163.4),
        barrier=3e-6,
        launch=4e-6,
    ),
)

TARGETS: Mapping[str, Target] = MappingProxyType({each.name: each for each in _ALL})


def target(name: str) -> Target:
    """The target of a name.

    Arguments:
        name: an architecture, such as "sm_90" or "gfx942".

    Raises:
        TargetError: no target is called so.

    Example:
        >>> target("sm_90").shared_memory
        232448
    """
    if name not in TARGETS:
        raise TargetError(f"no target is called {name!r}; known: {', '.join(TARGETS)}")
    return TARGETS[name]
