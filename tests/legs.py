"""Test legs: what runs in which kind of process.

Leg A is plain Python. Leg B runs kernels in Triton's interpreter, which a process chooses before it defines its first
kernel (``TRITON_INTERPRET=1``). Leg C compiles kernels ahead of time; see `ahead_of_time`.

A file with tests of leg B marks each of them and says once that they are run:

    from .legs import in_leg_b, leg_b

    test_in_the_interpreter = leg_b(__file__)

    @in_leg_b
    def test_something(): ...

Under pytest this is one test, which runs the file again in a process with the interpreter on; there, the marked tests
are the file's tests. They are so too when all of pytest runs under ``TRITON_INTERPRET=1``. A test that need not run in
both processes, as those of leg C, is marked `outside_leg_b`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"
_ROOT = Path(__file__).resolve().parents[1]

Test = TypeVar("Test", bound=Callable[..., None])


def in_leg_b(test: Test) -> Test | None:
    """The test in a process of leg B; nothing elsewhere, so that pytest finds none. The outermost decorator."""
    return test if INTERPRETING else None


def outside_leg_b(test: Test) -> Test | None:
    """The test in a process of any other leg; nothing in leg B. The outermost decorator."""
    return None if INTERPRETING else test


def leg_b(file: str) -> Callable[[], None] | None:
    """A test that runs a file's tests of leg B in a process of their own; nothing in such a process.

    Arguments:
        file: the test file, ``__file__``.
    """
    if INTERPRETING:
        return None

    def run() -> None:
        run_interpreted("-m", "pytest", "-q", "--disable-warnings", "-p", "no:cacheprovider", str(Path(file).resolve()))

    return run


def run_interpreted(*arguments: str, patience: float = 1800.0) -> str:
    """Run Python in a new process with Triton's interpreter on.

    Arguments:
        arguments: of the Python command: ``"-m", "pytest", file`` or ``"-c", program``.
        patience: seconds after which it is ended.

    Returns:
        What it wrote.

    Raises:
        AssertionError: it failed; the message is what it wrote.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["TRITON_INTERPRET"] = "1"
    environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    # NumPy does the interpreter's work, on small arrays: threads only get in each other's way.
    environment["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(
        (sys.executable, *arguments),
        cwd=_ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=patience,
        check=False,
    )
    assert done.returncode == 0, f"in leg B, exit code {done.returncode}:\n{done.stdout[-20_000:]}"
    return done.stdout
