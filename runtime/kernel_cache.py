"""Generated kernels on disk: one file for each text, readable, never trusted.

The folder is the user's own: ``$FOLDFUSE_CACHE``, or ``foldfuse`` in ``$XDG_CACHE_HOME`` or ``~/.cache``; the files lie
in its subfolder ``kernels``, named by `Kernel.key`. A file is written under another name and renamed, so that no
process ever sees a part of one, and sixteen that write the same one at once all leave the same text.

Nothing that lies in the folder is executed: what is compiled is the text that the program generated, and a file that
holds something else is written again. The file is there to be read, by a person, a debugger or a profiler.
"""

from __future__ import annotations

import atexit
import importlib.abc
import importlib.util
import linecache
import os
import shutil
import sys
import tempfile
import threading
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from ..compiler.errors import VerificationError
from ..kernels.kernel import Kernel
from .compat import triton

__all__ = ["FOLDER_VARIABLE", "load", "store", "user_folder"]

FOLDER_VARIABLE = "FOLDFUSE_CACHE"

_lock = threading.RLock()
_loaded: dict[str, Any] = {}
_warned: set[str] = set()


def user_folder() -> Path:
    """The user's cache folder, which need not exist yet.

    Raises:
        RuntimeError: no variable names it and the user has no home folder.
    """
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification has relative paths ignored.
    return (Path(shared) if os.path.isabs(shared) else Path.home() / ".cache") / "foldfuse"


def store(kernel: Kernel) -> Path:
    """The file of a kernel in the cache, written unless it is there and whole.

    Where the user's folder cannot be written, the file goes to a temporary folder of this process, with one warning
    that names the folder and the remedy.

    Arguments:
        kernel: the kernel; its header becomes comments at the end of the file.

    Returns:
        The file's path.

    Example:
        print(store(kernel).read_text())
    """
    folder = "the home folder"
    try:
        folder = str(user_folder())
        return _store(kernel, Path(folder))
    except (OSError, RuntimeError) as error:
        temporary = _temporary_folder()
        _warn(folder, getattr(error, "strerror", None) or str(error), temporary)
    return _store(kernel, temporary)


def load(kernel: Kernel) -> Any:
    """The function of a kernel, from its module; each text is loaded once in a process.

    Arguments:
        kernel: the kernel; two with equal keys share one function.

    Returns:
        The object that ``@triton.jit`` made of the function named `kernel.name`.

    Raises:
        MissingTriton: Triton is not installed.
        VerificationError: the text does not define a function of this name with the kernel's arguments.
    """
    function = _loaded.get(kernel.key)
    if function is None:
        with _lock:
            function = _loaded.get(kernel.key)
            if function is None:
                triton()
                function = _loaded[kernel.key] = _function(kernel)
    return function


class _TextLoader(importlib.abc.SourceLoader):
    """Loads a module from a text in memory that stands in a file; there is no bytecode file that could be stale."""

    def __init__(self, path: Path, text: str):
        self.path, self.text = path, text

    def get_filename(self, fullname: str) -> str:
        return str(self.path)

    def get_data(self, path: str) -> bytes:
        return self.text.encode()


def _function(kernel: Kernel) -> Any:
    path = store(kernel)
    name = f"foldfuse_kernel_{kernel.key}"
    spec = importlib.util.spec_from_loader(name, _TextLoader(path, _body(kernel)))
    module = importlib.util.module_from_spec(spec)
    # Triton reads a function's text through `linecache`, which would read the file; an entry without a time is final.
    lines = _body(kernel).splitlines(keepends=True)
    linecache.cache[str(path)] = (len(_body(kernel)), None, lines, str(path))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    function = getattr(module, kernel.name, None)
    expected = [argument.name for argument in kernel.arguments]
    if list(getattr(function, "arg_names", ())) != expected:
        raise VerificationError(
            f"The text of kernel {kernel.name} does not define it with the arguments {expected}: {path}"
        )
    return function


def _body(kernel: Kernel) -> str:
    return kernel.source.rstrip("\n") + "\n"


def _store(kernel: Kernel, folder: Path) -> Path:
    path = folder / "kernels" / f"{kernel.key}.py"
    if _holds(path, kernel):
        return path
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    # The header stands below the text: above it, it would move the function to another line, which is part of the key
    # that Triton's own cache has, and equal kernels with unequal headers would be compiled twice.
    header = "".join(f"# {line}".rstrip() + "\n" for line in kernel.header.splitlines())
    descriptor, partial = tempfile.mkstemp(prefix=f".{kernel.key}-", dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(_body(kernel) + (f"\n{header}" if header else ""))
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial)
        raise
    return path


def _holds(path: Path, kernel: Kernel) -> bool:
    """Whether a file holds a kernel's text, whatever the comments below it."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    body = _body(kernel).encode()
    return content.startswith(body) and all(
        not line or line.startswith(b"#") for line in content[len(body) :].splitlines()
    )


@cache
def _temporary_folder() -> Path:
    folder, owner = Path(tempfile.mkdtemp(prefix="foldfuse-")), os.getpid()

    def remove() -> None:
        # A forked process ends too, and must leave the folder to its parent.
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


def _warn(folder: str, reason: str, temporary: Path) -> None:
    with _lock:
        if folder in _warned:
            return
        _warned.add(folder)
    warnings.warn(
        f"foldfuse cannot keep its generated kernels in {folder} ({reason}). For this process they lie in {temporary}."
        f" Make the folder writable, or name another one in the environment variable {FOLDER_VARIABLE}.",
        RuntimeWarning,
        stacklevel=3,
    )
