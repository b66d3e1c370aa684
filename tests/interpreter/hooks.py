"""Where the instruments take hold of Triton's interpreter.

An `Instrument` is told of every launch, memory operation and barrier while it is installed. Nothing of the interpreter
is replaced: its builder's methods are wrapped, and a launch's programs are gathered before the first one runs, so that
an instrument can decide their order.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from inspect import signature
from math import prod
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
import torch
import triton
from triton._C.libtriton import ir
from triton.runtime import interpreter
from triton.runtime.errors import InterpreterError

_TRITON = f"{Path(triton.__file__).parent}/"
_ACQUIRES = (ir.MEM_SEMANTIC.ACQUIRE, ir.MEM_SEMANTIC.ACQUIRE_RELEASE)
_RELEASES = (ir.MEM_SEMANTIC.RELEASE, ir.MEM_SEMANTIC.ACQUIRE_RELEASE)
_builder = interpreter.interpreter_builder


class InstrumentError(Exception):
    """What an instrument raises out of a launch; it reaches the caller as it is, not as Triton's `InterpreterError`."""


@dataclass(frozen=True)
class Site:
    """A place in a kernel: the operation's own line first, then the lines of the callers up to the kernel."""

    lines: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        places = [f"{Path(file).name}:{line}" for file, line in self.lines]
        text = linecache.getline(*self.lines[0]).strip() if self.lines else ""
        callers = f" (called at {', '.join(places[1:])})" if places[1:] else ""
        return (places[0] if places else "an unknown line") + (f" `{text}`" if text else "") + callers


@dataclass(frozen=True)
class Program:
    """One program of a launch: its number in the grid's order, its place in the grid, and what runs it to its end."""

    number: int
    index: tuple[int, int, int]
    body: Callable[[], None]


@dataclass
class Launch:
    """One launch of a kernel.

    Attributes:
        kernel: the name of the kernel's function.
        code: the code object of that function, as the interpreter runs it.
        tensors: the tensors among its arguments by argument name.
        grid: the three extents of its grid.
    """

    kernel: str
    code: CodeType
    tensors: dict[str, torch.Tensor]
    grid: tuple[int, int, int] = (0, 0, 0)
    _sites: dict[tuple[tuple[CodeType, int], ...], Site] = field(default_factory=dict)

    @property
    def current(self) -> int:
        """The number of the program that runs."""
        x, y, z = _builder.grid_idx
        return (x * self.grid[1] + y) * self.grid[2] + z

    def index(self, program: int) -> tuple[int, int, int]:
        """The place in the grid of a program, given its number."""
        rest, z = divmod(program, self.grid[2])
        return (*divmod(rest, self.grid[1]), z)

    def site(self, frame: FrameType | None) -> Site:
        """The place in the kernel from which a frame inside the interpreter was reached; equal places are one object.

        Two operations on one line are two places: the key is the position in the byte code.
        """
        frames = []
        inside = False
        while frame is not None:
            if frame.f_code.co_filename.startswith(_TRITON):
                inside = True
            elif inside:
                frames.append(frame)
                if frame.f_code is self.code:
                    break
            frame = frame.f_back
        key = tuple((frame.f_code, frame.f_lasti) for frame in frames)
        found = self._sites.get(key)
        if found is None:
            found = Site(tuple((frame.f_code.co_filename, frame.f_lineno) for frame in frames))
            self._sites[key] = found
        return found


@dataclass(frozen=True, eq=False)
class Access:
    """One memory operation of one program.

    Attributes:
        operation: "load", "volatile load", "store", "atomic" or "compare and swap".
        pointers, mask: the interpreter's handles of its lanes' addresses and of which lanes take part.
        width: bytes per lane.
        value: the handle of what is stored, added or swapped in; None for a load.
        acquires, releases: an atomic's memory order.
    """

    operation: str
    pointers: interpreter.TensorHandle
    mask: interpreter.TensorHandle
    width: int
    value: interpreter.TensorHandle | None = None
    acquires: bool = False
    releases: bool = False

    @property
    def is_atomic(self) -> bool:
        return self.operation in ("atomic", "compare and swap")

    @property
    def may_wait(self) -> bool:
        """Whether a program can wait for another one by repeating this operation."""
        return self.is_atomic or self.operation == "volatile load"

    @cached_property
    def lanes(self) -> np.ndarray:
        """The numbers of the lanes that take part: i64 [lanes that take part]."""
        return np.flatnonzero(np.broadcast_to(self.mask.data, self.pointers.data.shape))

    @cached_property
    def addresses(self) -> np.ndarray:
        """The address of each lane that takes part: i64 [lanes that take part]."""
        return self.pointers.data.reshape(-1)[self.lanes].astype(np.int64)

    def memory(self) -> bytes:
        """What stands at the addresses now."""
        return _masked_load(_builder, self.pointers, self.mask, **_PLAIN).data.tobytes()


class Instrument:
    """What can be told of a kernel's run. Each method does nothing unless a subclass says otherwise."""

    def started(self, launch: Launch) -> None:
        """A launch with at least one program begins."""

    def finished(self, launch: Launch) -> None:
        """A launch has ended, by its last program or by an error."""

    def run(self, launch: Launch, programs: list[Program]) -> bool:
        """Run all programs of a launch and answer True, or leave it to another and answer False."""
        return False

    def accessing(self, access: Access) -> None:
        """The program that runs is about to access memory."""

    def accessed(self, access: Access, changed: bool) -> None:
        """The program that runs has accessed memory; an atomic says whether memory is now different."""

    def barrier(self) -> None:
        """The program that runs passes a `tl.debug_barrier`."""


_installed: list[Instrument] = []
_masked_load = interpreter.InterpreterBuilder.create_masked_load
# Releases of Triton differ in how many hints about caches stand among a load's and a store's arguments.
_LOAD = signature(_masked_load)
_PLAIN = {name: None for name in _LOAD.parameters if name not in ("self", "ptrs", "mask")}
_grid_call = interpreter.GridExecutor.__call__
_patch_tensor = interpreter._patch_lang_tensor
_patch_lang = interpreter._patch_lang
_patched: dict[Any, Any] = {}


@contextmanager
def installed(instrument: Instrument) -> Iterator[None]:
    """Tell an instrument of all launches in the block. The instrument installed last decides the order of programs."""
    if not _installed:
        for name, method in _WRAPPED.items():
            setattr(_builder, name, method)
        interpreter.GridExecutor.__call__ = _call
        interpreter._patch_lang_tensor = _patch_tensor_and_index
        interpreter._patch_lang = _patch_lang_once
    _installed.append(instrument)
    try:
        yield
    finally:
        _installed.remove(instrument)
        if not _installed:
            for name in _WRAPPED:
                delattr(_builder, name)
            interpreter.GridExecutor.__call__ = _grid_call
            interpreter._patch_lang_tensor = _patch_tensor
            interpreter._patch_lang = _patch_lang


def resume(program: Program) -> None:
    """Make a program the one that `tl.program_id` speaks of: the interpreter's only state that belongs to a program."""
    _builder.set_grid_idx(*program.index)


def _patch_tensor_and_index(tensor: type, scope: Any) -> None:
    """What the interpreter does to Triton's tensors. Triton 3.6 makes an index of an array of one element, which NumPy
    2.4 refuses: loops to a bound that is an argument then fail."""
    _patch_tensor(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))


def _patch_lang_once(function: Any) -> Any:
    """What the interpreter does to Triton's language before a function runs; once in a launch for each function, where
    Triton does it at each call of a helper, which would be a fifth of all time."""
    if function not in _patched:
        _patched[function] = _patch_lang(function)
    return _patched[function]


def _call(executor: interpreter.GridExecutor, *arguments: Any, **keywords: Any) -> None:
    """A launch. The executor's function is exchanged once the grid is known, so that its loop gathers the programs."""
    function = executor.fn
    named = {**dict(zip(executor.arg_names, arguments)), **keywords}
    tensors = dict(pair for name, value in named.items() for pair in _tensors(name, value))
    launch = Launch(function.__name__, function.__code__, tensors)
    programs: list[Program] = []

    def grid_is_known(*extents: int) -> None:
        type(_builder).set_grid_dim(_builder, *extents)
        launch.grid = extents
        executor.fn = gather

    def gather(**handles: Any) -> None:
        programs.append(Program(len(programs), _builder.grid_idx, partial(function, **handles)))
        if len(programs) == prod(launch.grid):
            _run(launch, programs)

    _builder.set_grid_dim = grid_is_known
    _patched.clear()
    try:
        _grid_call(executor, *arguments, **keywords)
    except InterpreterError as error:
        if isinstance(error.__cause__, InstrumentError):
            raise error.__cause__ from None
        raise
    finally:
        del _builder.set_grid_dim
        executor.fn = function


def _run(launch: Launch, programs: list[Program]) -> None:
    for instrument in _installed:
        instrument.started(launch)
    try:
        if not any(instrument.run(launch, programs) for instrument in reversed(_installed)):
            for program in programs:
                resume(program)
                program.body()
    finally:
        for instrument in _installed:
            instrument.finished(launch)


def _tensors(name: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of one argument: of a tuple, of a descriptor, or itself."""
    if isinstance(value, tuple):
        for position, part in enumerate(value):
            yield from _tensors(f"{name}[{position}]", part)
    elif isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(getattr(value, "base", None), torch.Tensor):
        yield name, value.base


def _width(pointers: interpreter.TensorHandle) -> int:
    return interpreter._get_np_dtype(pointers.get_element_ty()).itemsize


def _observed(access: Access, operate: Callable[[], Any]) -> Any:
    for instrument in _installed:
        instrument.accessing(access)
    before = access.memory() if access.is_atomic else b""
    result = operate()
    changed = access.is_atomic and access.memory() != before
    for instrument in _installed:
        instrument.accessed(access, changed)
    return result


def _load(*arguments: Any, **keywords: Any) -> Any:
    given = _LOAD.bind(_builder, *arguments, **keywords).arguments
    operation = "volatile load" if given["is_volatile"] else "load"
    access = Access(operation, given["ptrs"], given["mask"], _width(given["ptrs"]))
    return _observed(access, lambda: _masked_load(_builder, *arguments, **keywords))


def _store(pointers: Any, value: Any, mask: Any, *hints: Any) -> Any:
    access = Access("store", pointers, mask, _width(pointers), value)
    return _observed(access, lambda: type(_builder).create_masked_store(_builder, pointers, value, mask, *hints))


def _atomic(operation: Any, pointers: Any, value: Any, mask: Any, order: Any, scope: Any) -> Any:
    access = Access("atomic", pointers, mask, _width(pointers), value, order in _ACQUIRES, order in _RELEASES)
    operate = type(_builder).create_atomic_rmw
    return _observed(access, lambda: operate(_builder, operation, pointers, value, mask, order, scope))


def _compare_and_swap(pointers: Any, expected: Any, value: Any, order: Any, scope: Any) -> Any:
    mask = interpreter.TensorHandle(np.ones_like(pointers.data, dtype=bool), triton.language.int1)
    access = Access("compare and swap", pointers, mask, _width(pointers), value, order in _ACQUIRES, order in _RELEASES)
    operate = type(_builder).create_atomic_cas
    return _observed(access, lambda: operate(_builder, pointers, expected, value, order, scope))


def _barrier() -> None:
    for instrument in _installed:
        instrument.barrier()


def _refuse(name: str, *arguments: Any) -> None:
    raise InstrumentError(
        f"A kernel uses `tl.{name}`, which the instruments do not follow. Wait with `tl.atomic_add(pointer, 0, "
        'sem="acquire")` and signal with `tl.atomic_add(pointer, 1, sem="release")`.'
    )


_WRAPPED: dict[str, Callable] = {
    "create_masked_load": _load,
    "create_masked_store": _store,
    "create_atomic_rmw": _atomic,
    "create_atomic_cas": _compare_and_swap,
    "create_barrier": _barrier,
    "create_atomic_load": partial(_refuse, "atomic_load"),
    "create_atomic_store": partial(_refuse, "atomic_store"),
    "create_atomic_poll": partial(_refuse, "atomic_poll"),
}
