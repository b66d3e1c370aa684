"""Kernels compiled side by side before they are measured, so that a measurement finds them in Triton's cache.

Triton compiles for a GPU that need not be there, and its cache does not tell such a kernel from one compiled on the
device. A run over many configurations has hundreds of kernels: one after another they would take longer than all else.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor

from foldfuse.kernels.kernel import Kernel
from foldfuse.kernels.targets import target
from foldfuse.runtime import compat, kernel_cache


def compile_into_cache(kernels: Iterable[Kernel], target_name: str, workers: int) -> int:
    """Compile kernels in processes of their own, into Triton's cache; one that does not compile is left to its launch.

    Arguments:
        kernels: the kernels; those of one text are compiled once.
        target_name: the GPU, such as "sm_90".
        workers: how many processes; with 1, nothing is done.

    Returns:
        How many texts were compiled, or found compiled.
    """
    distinct = list({kernel.key: kernel for kernel in kernels}.values())
    if workers < 2 or not distinct:
        return 0
    # A forked process would share the CUDA context of this one, which it may not.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(distinct)), context) as pool:
        return sum(pool.map(_compiles, distinct, [target_name] * len(distinct)))


def _compiles(kernel: Kernel, target_name: str) -> bool:
    from triton.backends.compiler import GPUTarget

    chip = target(target_name)
    try:
        triton_target = GPUTarget(chip.backend, chip.architecture, chip.warp_size)
        compat.compile_kernel(kernel_cache.load(kernel), kernel, target=triton_target)
    except Exception:
        # Whoever launches it is told why; here it would only stop the others.
        return False
    return True
