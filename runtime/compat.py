"""What differs between machines and releases of Triton, asked in one place: whether it is there, whether its
interpreter is on, what its compiler takes.

A capability is probed for, version numbers are never compared. Triton is imported when a kernel is first asked for,
never by `import foldfuse`.
"""

from __future__ import annotations

import os
from functools import cache
from types import ModuleType
from typing import Any

from ..compiler.errors import LaunchError, MissingTriton
from ..kernels.kernel import Kernel
from ..kernels.resources import aligned_arguments, compile_options, signature

__all__ = ["compile_kernel", "has_triton", "interpreting", "is_interpreted", "out_of_resources", "triton"]


def triton() -> ModuleType:
    """The module `triton`, imported when this is first called.

    Raises:
        MissingTriton: Triton is not installed here, or cannot be imported.
    """
    try:
        import triton
    except ImportError as error:
        raise MissingTriton(
            f"Kernels need Triton, and `import triton` fails here: {error}. Install it with `pip install triton` (it is"
            " published for Linux on x86-64 and aarch64); without it, programs run on CPU tensors."
        ) from error
    return triton


@cache
def has_triton() -> bool:
    """Whether Triton can be imported here."""
    try:
        triton()
    except MissingTriton:
        return False
    return True


def interpreting() -> bool:
    """Whether kernels are to run in Triton's interpreter, on the CPU (``TRITON_INTERPRET=1``).

    Triton reads the variable where a kernel is defined, so it is set before the process starts.
    """
    # Without the variable the answer is no, and asking costs no import: this is asked on each call with CPU tensors.
    return "TRITON_INTERPRET" in os.environ and has_triton() and bool(triton().knobs.runtime.interpret)


def is_interpreted(function: Any) -> bool:
    """Whether a ``@triton.jit`` function was defined while the interpreter was on."""
    return not isinstance(function, triton().runtime.JITFunction)


def compile_kernel(function: Any, kernel: Kernel, misaligned: frozenset[str] = frozenset(), target: Any = None) -> Any:
    """Compile a kernel, or take it from Triton's own cache.

    The signature is stated, as it is ahead of time, rather than found from the arguments of a call: sizes are i32
    without any hint, so that no extent compiles a kernel again, and pointers are aligned to 16 bytes unless named.

    Arguments:
        function: the kernel's ``@triton.jit`` function, not an interpreted one.
        kernel: its description.
        misaligned: the names of pointer arguments that are not aligned to 16 bytes.
        target: a `triton.backends.compiler.GPUTarget`; the current device when left out.

    Returns:
        Triton's compiled kernel: ``compiled[grid](*arguments)`` launches it on the current device and stream, with
        addresses for pointers.

    Raises:
        LaunchError: the kernel needs an option that the installed Triton does not have for the target.
    """
    module = triton()
    if target is None:
        target = module.runtime.driver.active.get_current_target()
    options = compile_options(kernel)
    understood = module.compiler.make_backend(target).parse_options(dict(options))
    if kernel.cooperative and not getattr(understood, "launch_cooperative_grid", False):
        raise LaunchError(
            f"Kernel {kernel.name} has barriers between programs, which the installed Triton {module.__version__}"
            f" cannot launch on {target.backend} {target.arch}. Install a later Triton."
        )
    positions = [each for each in aligned_arguments(kernel) if kernel.arguments[each].name not in misaligned]
    hints = {(position,): [["tt.divisibility", 16]] for position in positions}
    source = module.compiler.ASTSource(function, signature(kernel), {}, hints)
    known = {name: value for name, value in options.items() if hasattr(understood, name)}
    return module.compile(source, target=target, options=known)


def out_of_resources() -> type[Exception]:
    """The exception with which Triton says that a compiled kernel does not fit the current device."""
    return triton().OutOfResources
