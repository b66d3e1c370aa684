"""Launching generated kernels: the one place that does.

`Launcher` is a kernel made ready: what a call must do on the host is worked out once, so that a call checks its
tensors, collects their addresses and launches. What was compiled is shared by all kernels of one text. A kernel is
compiled once for each device, and once more for each set of buffers that are not aligned to 16 bytes; no size compiles
it again.

Memory of a launch ("scratch", "counter") is allocated here, on the current stream, and may be captured in a CUDA graph.
"""

from __future__ import annotations

import atexit
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from operator import itemgetter
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..compiler.errors import CaptureError, DeviceError, FoldfuseError, LaunchError, VerificationError
from ..compiler.sizes import Size
from ..kernels.kernel import Kernel, Tiles
from . import compat, kernel_cache
from .dtypes import DTYPES

__all__ = ["Counts", "Launcher", "counts", "launch", "launcher", "prepare", "spilled"]

_LARGEST_SIZE = 2**31 - 1
# The second and third axis of a grid have 16 bits on NVIDIA's devices.
_LARGEST_GRID = (2**31 - 1, 2**16 - 1, 2**16 - 1)
_ALIGNMENT = 16
# How many sets of sizes a launcher remembers: ragged batches have other sizes at each call.
_MOST_PLANS = 256
_ALIGNED: frozenset[str] = frozenset()
# How many programs the interpreter runs at once: as many as there are, but tests have fewer.
_INTERPRETED_PROGRAMS: int | None = None

_lock = threading.RLock()
_launches: Counter[str] = Counter()
_compiles: Counter[str] = Counter()


@dataclass(frozen=True)
class Counts:
    """What this process has launched and compiled so far.

    Attributes:
        launches: launches by the kernel's name; an empty grid is no launch.
        compiles: by `Kernel.key`, how often a kernel was made ready: compiled or read from Triton's cache, for a device
            and the buffers that are not aligned; under the interpreter, loaded.

    Example:
        before = counts()
        model(x)
        print((counts() - before).launches)
    """

    launches: Counter[str]
    compiles: Counter[str]

    def __sub__(self, earlier: Counts) -> Counts:
        return Counts(self.launches - earlier.launches, self.compiles - earlier.compiles)


def counts() -> Counts:
    """The launches and compiles of this process until now."""
    with _lock:
        return Counts(Counter(_launches), Counter(_compiles))


def launch(
    kernel: Kernel, buffers: Mapping[str, Tensor], sizes: Mapping[str, int], lengths: Mapping[str, Tensor]
) -> None:
    """Launch a kernel on the current stream of its tensors' device.

    Arguments:
        kernel: the kernel.
        buffers: by argument name, the tensors that it reads and writes, contiguous and of the arguments' dtypes; others
            may be there too.
        sizes: by name, the extents of the list sizes.
        lengths: by the name of a ragged size, its table, i64.

    Raises:
        LaunchError: a tensor or size is missing or is not what the kernel takes, the grid does not fit the device, or
            CPU tensors were given without Triton's interpreter.
        DeviceError: the tensors lie on two devices, or on one that has no kernels.
        CaptureError: a CUDA graph is being captured and the kernel was not compiled before.
        MissingTriton: Triton is not installed.

    Example:
        launch(kernel, {"x": x, "y": y}, {"B": 32, "T": 100}, {})
    """
    launcher(kernel)(buffers, sizes, lengths)


def launcher(kernel: Kernel) -> Launcher:
    """The launcher of a kernel: one for each kernel object, as equal texts may have other sizes."""
    ready = _launchers.get(kernel)
    if ready is None:
        with _lock:
            ready = _launchers.setdefault(kernel, Launcher(kernel))
    return ready


def prepare(kernel: Kernel, device: torch.device) -> None:
    """Compile a kernel for a device and load it there without launching it, so that a CUDA graph may capture it.

    Arguments:
        kernel: the kernel.
        device: a CUDA device; nothing is compiled for the CPU.

    Raises:
        LaunchError: the kernel needs more than the device has.
        MissingTriton: Triton is not installed.
    """
    launcher(kernel).prepare(device)


def spilled(kernel: Kernel, device: torch.device) -> int:
    """How many words a thread of a kernel keeps in memory for want of registers on a CUDA device; it is compiled there.

    Raises:
        LaunchError: the kernel needs more than the device has.
        CaptureError: a CUDA graph is being captured and the kernel was not compiled before.
    """
    form = launcher(kernel).prepare(device)
    return 0 if form is None else form.compiled.n_spills


@dataclass(frozen=True)
class _Form:
    """A kernel compiled for one device and one set of misaligned buffers, loaded there."""

    compiled: Any
    # Of a cooperative kernel, how many programs the device runs at once.
    capacity: int | None


class _Code:
    """The function of one kernel text, and the forms in which it was compiled."""

    def __init__(self, kernel: Kernel):
        # A copy, as the kernel itself is the weak key under which a launcher that holds this is found.
        self.kernel = replace(kernel)
        self.function = kernel_cache.load(kernel)
        self.interpreted = compat.is_interpreted(self.function)
        self.forms: dict[tuple[int, frozenset[str]], _Form] = {}
        self.lock = threading.Lock()
        if self.interpreted:
            _count(_compiles, kernel.key)

    def runs_on(self, device: torch.device) -> bool:
        """Whether it can be given tensors of a device."""
        return device.type == "cuda" or (self.interpreted and device.type == "cpu")

    def form(self, index: int, misaligned: frozenset[str]) -> _Form:
        """The form for the current device, which has this index, compiled now if need be."""
        form = self.forms.get((index, misaligned))
        if form is None:
            with self.lock:
                form = self.forms.get((index, misaligned))
                if form is None:
                    form = self.forms[index, misaligned] = self._compile(index, misaligned)
        return form

    def _compile(self, index: int, misaligned: frozenset[str]) -> _Form:
        kernel = self.kernel
        if torch.cuda.is_current_stream_capturing():
            which = f" with {_names(misaligned)} not aligned to {_ALIGNMENT} bytes" if misaligned else ""
            raise CaptureError(
                f"A CUDA graph is being captured, and kernel {kernel.name} was not compiled for cuda:{index}{which}"
                " before: nothing can be compiled during a capture. Call model.warmup(...) with the shapes of the"
                " capture first, or the model itself once."
            )
        try:
            compiled = compat.compile_kernel(self.function, kernel, misaligned)
            compiled[(1, 1, 1)]  # loads it on the device; what this gives would launch it
        except compat.out_of_resources() as error:
            raise LaunchError(
                f"Kernel {kernel.name} ({kernel.strategy}) does not fit {_device(index)}: it needs {error.required} of"
                f" {error.name}, and the device has {error.limit}. It was planned for a larger device; compile the"
                " program for this one."
            ) from error
        _count(_compiles, kernel.key)
        return _Form(compiled, _capacity(compiled, index) if kernel.cooperative else None)


@dataclass(frozen=True)
class _Given:
    """An argument whose tensor the caller gives: a buffer, or the lengths of a size."""

    position: int
    name: str
    of_size: bool
    dtype: torch.dtype


@dataclass(frozen=True)
class _Own:
    """An argument whose memory belongs to the launch: scratch, or the counters of barriers, which start at zero."""

    position: int
    zeroed: bool
    extent: tuple[int | Size | Tiles, ...]
    dtype: torch.dtype

    def allocate(self, extent: int, device: torch.device) -> Tensor:
        return (torch.zeros if self.zeroed else torch.empty)(extent, dtype=self.dtype, device=device)


@dataclass(frozen=True)
class _Plan:
    """What follows from the sizes of a call: the grid, the arguments but for pointers, the extents of own memory."""

    grid: tuple[int, int, int]
    arguments: tuple[int, ...]
    extents: tuple[int, ...]


class Launcher:
    """A kernel made ready to launch: called like `launch`, without the kernel.

    Arguments:
        kernel: the kernel.
        code: what it is compiled to; left out, what all kernels of its text are.

    Raises:
        MissingTriton: Triton is not installed.
        VerificationError: the text and the arguments of the kernel do not fit together.
    """

    def __init__(self, kernel: Kernel, code: Any = None):
        with _lock:
            if code is None:
                code = _codes.get(kernel.key)
            if code is None:
                code = _codes[kernel.key] = _Code(kernel)
        self._code = code
        self._name = kernel.name
        self._grid = kernel.grid
        self._arguments = len(kernel.arguments)
        self._given: list[_Given] = []
        self._own: list[_Own] = []
        self._extents: list[tuple[int, str]] = []
        names = _size_names(kernel.grid)
        for position, argument in enumerate(kernel.arguments):
            dtype = DTYPES[argument.dtype]
            if argument.kind == "size":
                self._extents.append((position, argument.size))
                names |= {argument.size}
            elif argument.kind in ("scratch", "counter"):
                self._own.append(_Own(position, argument.kind == "counter", argument.extent, dtype))
                names |= _size_names(argument.extent)
            elif argument.kind == "lengths":
                self._given.append(_Given(position, argument.size, True, dtype))
            else:
                self._given.append(_Given(position, argument.name, False, dtype))
        if not self._given:
            raise VerificationError(f"Kernel {kernel.name} has no buffer: it reads nothing and writes nothing.")
        self._sizes = tuple(sorted(names))
        self._read_sizes: Callable[[Mapping[str, int]], Any] = itemgetter(*self._sizes) if names else lambda sizes: ()
        self._plans: dict[Any, _Plan] = {}

    def __call__(self, buffers: Mapping[str, Tensor], sizes: Mapping[str, int], lengths: Mapping[str, Tensor]) -> None:
        """Launch the kernel; see `launch`."""
        tensors = self._tensors(buffers, lengths)
        plan = self._plan(sizes)
        if 0 in plan.grid:
            return
        device = tensors[0].device
        arguments: list[Any] = list(plan.arguments)
        # What the launch owns is named until the kernel is queued: memory freed after that is reused in stream order.
        own = [own.allocate(extent, device) for own, extent in zip(self._own, plan.extents)]
        if self._code.interpreted:
            for argument, tensor in zip((*self._given, *self._own), (*tensors, *own)):
                arguments[argument.position] = tensor
            self._code.function[self._fitted(plan.grid, _INTERPRETED_PROGRAMS)](*arguments)
        else:
            misaligned = self._place(arguments, tensors)
            for argument, memory in zip(self._own, own):
                arguments[argument.position] = memory.data_ptr()
            self._queue(device.index, plan.grid, arguments, misaligned)
        _count(_launches, self._name)

    def prepare(self, device: torch.device) -> _Form | None:
        """Compile the kernel for a device and load it there; see `prepare`. None where nothing is compiled."""
        if device.type != "cuda" or self._code.interpreted:
            return None
        index = torch.cuda.current_device() if device.index is None else device.index
        with torch.cuda.device(index):
            return self._code.form(index, _ALIGNED)

    def _tensors(self, buffers: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> list[Tensor]:
        """The tensors of the call in the order of the arguments, all of them fit to be given to the kernel."""
        try:
            tensors = [lengths[given.name] if given.of_size else buffers[given.name] for given in self._given]
        except KeyError:
            raise self._missing(buffers, lengths) from None
        device = tensors[0].device
        for given, tensor in zip(self._given, tensors):
            if tensor.dtype is not given.dtype or tensor.device != device or not tensor.is_contiguous():
                raise self._misfit(given, tensor, device)
        if not self._code.runs_on(device):
            raise self._unsupported(device)
        return tensors

    def _plan(self, sizes: Mapping[str, int]) -> _Plan:
        """What follows from the sizes; kept for later calls, which mostly have the same ones."""
        try:
            values = self._read_sizes(sizes)
        except KeyError as error:
            raise LaunchError(
                f"Kernel {self._name} needs the size {error.args[0]}; the sizes given are {_names(sizes)}."
            ) from None
        plan = self._plans.get(values)
        if plan is not None:
            return plan
        for name in self._sizes:
            if not 0 <= sizes[name] <= _LARGEST_SIZE:
                raise LaunchError(
                    f"Kernel {self._name} was given {sizes[name]} for the size {name}; a size is from 0 to"
                    f" {_LARGEST_SIZE}."
                )
        lookup = sizes.__getitem__
        axes = [axis.count(lookup) for axis in self._grid]
        if any(count > largest for count, largest in zip(axes, _LARGEST_GRID)):
            raise LaunchError(
                f"Kernel {self._name} would run on a grid of {_product(axes)} programs; a grid has at most"
                f" {_product(_LARGEST_GRID)}. Call the model with fewer rows at a time."
            )
        arguments = [0] * self._arguments
        for position, name in self._extents:
            arguments[position] = sizes[name]
        extents = tuple(prod(_evaluate(factor, lookup) for factor in own.extent) for own in self._own)
        plan = _Plan((*axes, 1, 1, 1)[:3], tuple(arguments), extents)
        if len(self._plans) >= _MOST_PLANS:
            self._plans.clear()
        self._plans[values] = plan
        return plan

    def _place(self, arguments: list[Any], tensors: Sequence[Tensor]) -> frozenset[str]:
        """Put the addresses of the tensors into the arguments; the names of those that are not aligned."""
        bits = 0
        for given, tensor in zip(self._given, tensors):
            arguments[given.position] = address = tensor.data_ptr()
            bits |= address
        if bits % _ALIGNMENT == 0:
            return _ALIGNED
        names = [argument.name for argument in self._code.kernel.arguments]
        positions = [given.position for given in self._given]
        return frozenset(names[position] for position in positions if arguments[position] % _ALIGNMENT)

    def _queue(self, index: int, grid: tuple[int, int, int], arguments: list[Any], misaligned: frozenset[str]) -> None:
        with torch.cuda.device(index):
            form = self._code.form(index, misaligned)
            fitted = self._fitted(grid, form.capacity)
            if fitted[0] == 0:
                raise self._too_many(index, grid[1:], f"at most {form.capacity}")
            try:
                form.compiled[fitted](*arguments)
            except RuntimeError as error:
                # Others may hold a part of the device; the driver knows.
                if form.capacity is None or "cooperative" not in str(error):
                    raise
                raise self._too_many(index, fitted, "fewer than that now") from error

    def _too_many(self, index: int, grid: Sequence[int], capacity: str) -> LaunchError:
        return LaunchError(
            f"Kernel {self._name} has barriers between {prod(grid)} programs, so all must run at once, and"
            f" {_device(index)} runs {capacity}. Compile the program for this device, or leave all of it to this"
            " process."
        )

    def _fitted(self, grid: tuple[int, int, int], capacity: int | None) -> tuple[int, int, int]:
        """The grid of a launch. Programs of a cooperative kernel all run at once: where a device runs fewer than there
        are tiles of rows for, each group of them takes several tiles, one after another."""
        if capacity is None or not self._code.kernel.cooperative:
            return grid
        return (min(grid[0], capacity // prod(grid[1:])), *grid[1:])

    def _missing(self, buffers: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> LaunchError:
        absent = [given for given in self._given if given.name not in (lengths if given.of_size else buffers)]
        what, there = ("lengths of the size", lengths) if absent[0].of_size else ("buffer", buffers)
        return LaunchError(f"Kernel {self._name} needs the {what} {absent[0].name}; given are {_names(there)}.")

    def _misfit(self, given: _Given, tensor: Tensor, device: torch.device) -> FoldfuseError:
        what, first = (f"the lengths of {g.name}" if g.of_size else g.name for g in (given, self._given[0]))
        if tensor.device != device:
            return DeviceError(
                f"Kernel {self._name} was given {first} on {device} and {what} on {tensor.device}. Move them to one"
                " device."
            )
        if tensor.dtype is not given.dtype:
            return LaunchError(f"Kernel {self._name} takes {what} in {given.dtype}, and was given {tensor.dtype}.")
        return LaunchError(
            f"Kernel {self._name} takes {what} contiguous, and was given a tensor of shape {tuple(tensor.shape)} with"
            f" strides {tensor.stride()}. Call .contiguous() on it."
        )

    def _unsupported(self, device: torch.device) -> FoldfuseError:
        if device.type != "cpu":
            return DeviceError(f"Kernel {self._name} was given tensors on {device}. Kernels run on CUDA devices only.")
        return LaunchError(
            f"Kernel {self._name} was given CPU tensors. Kernels run on CUDA devices; to run them on the CPU, in"
            " Triton's interpreter, set TRITON_INTERPRET=1 before Python starts."
        )


_codes: dict[str, _Code] = {}
_launchers: WeakKeyDictionary[Kernel, Launcher] = WeakKeyDictionary()


@atexit.register
def _unload() -> None:
    # A compiled kernel unloads itself when it is freed, which fails once Python has begun to take modules apart.
    for code in _codes.values():
        code.forms.clear()


def _count(counter: Counter[str], name: str) -> None:
    with _lock:
        counter[name] += 1


def _capacity(compiled: Any, index: int) -> int:
    """How many programs of a compiled kernel a device holds at once, by their threads, registers and shared memory."""
    device, metadata = torch.cuda.get_device_properties(index), compiled.metadata
    threads = metadata.num_warps * metadata.target.warp_size
    # Registers are given out in units of 256 a warp, and a kilobyte of shared memory is the system's.
    registers = -(-compiled.n_regs * metadata.target.warp_size // 256) * 256 * metadata.num_warps
    each = min(
        device.max_threads_per_multi_processor // threads,
        device.regs_per_multiprocessor // max(registers, 1),
        device.shared_memory_per_multiprocessor // (metadata.shared + 1024),
    )
    return each * device.multi_processor_count


def _size_names(factors: Iterable[int | Size | Tiles]) -> frozenset[str]:
    names: frozenset[str] = frozenset()
    for factor in factors:
        if isinstance(factor, Tiles):
            names |= _size_names(factor.extents)
        elif isinstance(factor, Size):
            names |= factor.names()
    return names


def _evaluate(factor: int | Size | Tiles, lookup: Callable[[str], int]) -> int:
    if isinstance(factor, Tiles):
        return factor.count(lookup)
    return factor if isinstance(factor, int) else int(factor.evaluate(lookup))


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _product(numbers: Iterable[int]) -> str:
    return " × ".join(map(str, numbers))


def _device(index: int) -> str:
    return f"cuda:{index} ({torch.cuda.get_device_name(index)})"
