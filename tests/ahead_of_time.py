"""Leg C: kernels compiled for GPUs that need not be there."""

from __future__ import annotations

import os
from collections.abc import Iterable

from foldfuse.kernels.kernel import Kernel
from foldfuse.kernels.resources import Resources, compile_many, violations
from foldfuse.kernels.targets import target

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")


def compiled(kernels: Iterable[Kernel], targets: Iterable[str] = TARGETS) -> dict[tuple[Kernel, str], Resources]:
    """What each kernel takes of each target.

    Raises:
        AssertionError: some do not compile; the message names each of them, and what the compiler said.
    """
    # Under pytest-xdist there is a process for each core already.
    processes = 1 if "PYTEST_XDIST_WORKER" in os.environ else None
    found = compile_many(kernels, targets, processes)
    failures = [f"{kernel.name} for {name}: {it}" for (kernel, name), it in found.items() if isinstance(it, str)]
    assert not failures, "\n\n".join(failures)
    return found


def check_fits(kernels: Iterable[Kernel], targets: Iterable[str] = TARGETS) -> dict[tuple[Kernel, str], Resources]:
    """What each kernel takes of each target, where all stay within its limits and spill nothing.

    Raises:
        AssertionError: some do not compile, or do not fit; the message names each of them.
    """
    found = compiled(kernels, targets)
    over = [
        f"{kernel.name} for {name}: {'; '.join(broken)}"
        for (kernel, name), resources in found.items()
        if (broken := violations(resources, target(name)))
    ]
    assert not over, "\n".join(over)
    return found
