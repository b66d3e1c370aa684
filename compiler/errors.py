"""The errors of foldfuse: one class per kind of mistake, each message says what was written, what was expected, what to
do.
"""

from __future__ import annotations

import linecache
import sys
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_PACKAGE = f"{Path(__file__).parent.parent}/"
_COMMAND_LINE = _PACKAGE + "runtime/cli.py"
_STANDARD_LIBRARY = f"{sysconfig.get_path('stdlib')}/"


@dataclass(frozen=True)
class Source:
    """A place in the user's program: file, line number, and the text of that line."""

    file: str
    line: int

    @property
    def text(self) -> str:
        return linecache.getline(self.file, self.line).strip()

    def __str__(self) -> str:
        text = self.text
        return f"{self.file}:{self.line}" + (f": {text}" if text else "")


@cache
def _is_ours(file: str) -> bool:
    """Whether a frame belongs to foldfuse, torch or the standard library rather than to the user; the project's own
    examples and tests are a user's, and so is what is typed at a prompt."""
    if "/site-packages/torch/" in file:
        return True
    if file.startswith("<"):
        return not file.startswith(("<stdin", "<python-input", "<ipython"))
    if file.startswith(_STANDARD_LIBRARY) and "site-packages" not in file:
        return True
    if not file.startswith(_PACKAGE):
        return False
    return file[len(_PACKAGE) :].split("/")[0] in ("compiler", "runtime", "kernels", "__init__.py")


def user_source(outside: Any = None) -> Source | None:
    """Where the user wrote what is running: the innermost line of their own code on the stack.

    An expression that foldfuse itself calls (a part of ``f >> g``, the argument of `compile`) was written where it was
    made, not where the program was compiled; its `made_at` says where.

    Arguments:
        outside: an expression whose own place does not count, when the mistake is its caller's.

    Returns:
        The place; None where there is none, as while foldfuse itself is imported, and of what the command line does by
        itself: the script that calls it is nothing that the user wrote.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if not _is_ours(frame.f_code.co_filename):
            return Source(frame.f_code.co_filename, frame.f_lineno)
        if frame.f_code.co_filename.startswith("<frozen importlib") or frame.f_code.co_filename == _COMMAND_LINE:
            return None
        caller = frame.f_back
        if frame.f_code.co_name == "__call__" and caller is not None and _is_ours(caller.f_code.co_filename):
            called = frame.f_locals.get("self")
            made_at = getattr(called, "made_at", None)
            if called is not outside and made_at is not None:
                return made_at
        frame = frame.f_back
    return None


class FoldfuseError(Exception):
    """Base of all errors that foldfuse raises.

    Arguments:
        message: what is wrong, what was expected and what to do.
        source: where the user wrote it; found from the running stack when left out.

    Attributes:
        message: the message without the place.
        located: whether the place was given, rather than found from the stack.
        source: the place.
    """

    def __init__(self, message: str, source: Source | None = None):
        self.message = message
        self.located = source is not None
        self.source = source if source is not None else user_source()
        super().__init__(message if self.source is None else f"{message}\n  in {self.source}")

    def at(self, source: Source | None) -> FoldfuseError:
        """This error, naming a place of the user's program, unless it names one that was given to it."""
        return self if source is None or self.located else type(self)(self.message, source)


class RepresentationError(FoldfuseError, TypeError):
    """A value of one representation stands where another was declared."""


class StructureError(FoldfuseError, TypeError):
    """A value has another structure (array, list, grid, tree, product) than the combinator takes."""


class ShapeError(FoldfuseError, ValueError):
    """Array shapes do not fit together."""


class AxisError(FoldfuseError, IndexError):
    """An axis is out of the range of an array's rank."""


class DtypeError(FoldfuseError, TypeError):
    """An operation does not take this dtype."""


class DeviceError(FoldfuseError, RuntimeError):
    """Tensors lie on different devices, or on one that is not supported."""


class SizeError(FoldfuseError, ValueError):
    """List sizes do not fit together, or lengths are negative or beyond the data."""


class EmptyError(FoldfuseError, ValueError):
    """An empty list or forest stands where a value is needed."""


class CarryError(FoldfuseError, TypeError):
    """A step gives a carry of another structure, shape or dtype than it takes."""


class TraceError(FoldfuseError, TypeError):
    """A traced value was used where only a number will do (a branch, a loop bound), or outside of its trace."""


class UnknownNameError(FoldfuseError, AttributeError):
    """A traced value has no attribute or method of this name."""


class ParameterError(FoldfuseError, ValueError):
    """Two parameters of one name, one layer with two shapes, or a parameter used outside of a program."""


class IndexRangeError(FoldfuseError, IndexError):
    """An index lies outside of the table, list or axis that it selects from."""


class WindowError(FoldfuseError, ValueError):
    """A window does not fit: larger than its padded input, or with settings that have no meaning."""


class UnboundedError(FoldfuseError, RuntimeError):
    """An unfold's predicate did not stop it."""


class TreeError(FoldfuseError, ValueError):
    """A tree is cyclic, dangling, has no root or two, or a node has an arity that the program does not take."""


class DerivativeError(FoldfuseError, RuntimeError):
    """A derivative was asked for that does not exist or is not offered."""


class VerificationError(FoldfuseError, RuntimeError):
    """The verifier found an ill-formed graph: a defect of foldfuse, not of the user's program."""


class ParseError(FoldfuseError, ValueError):
    """A text is not a printed graph."""


class MissingTriton(FoldfuseError, ImportError):
    """Kernels were asked for on a machine without Triton."""


class LaunchError(FoldfuseError, RuntimeError):
    """A kernel cannot be launched with these tensors and sizes, or not on this device."""


class CaptureError(FoldfuseError, RuntimeError):
    """A kernel would have to be compiled while a CUDA graph is captured."""


class StrategyError(FoldfuseError, ValueError):
    """No strategy, or not the one asked for, can hold a step on the target: the message names what it lacks."""


class TargetError(FoldfuseError, ValueError):
    """A GPU is named that is not known, or a kernel cannot be compiled for one."""
