"""What a kernel takes of a GPU, found by compiling it ahead of time: no GPU is needed, and none is touched.

Triton's own compilers do the work, in processes of their own (`compile_worker`): some of their failures end a process.
A kernel is compiled with the types, hints and options that it is launched with; with others it would be another kernel.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory
from threading import Event, Timer
from typing import Any

from ..compiler.errors import MissingTriton, TargetError
from .kernel import Kernel
from .targets import Target, target

__all__ = [
    "Resources",
    "aligned_arguments",
    "compile_ahead",
    "compile_many",
    "compile_options",
    "resident_programs",
    "signature",
    "violations",
]

_POINTERS = {
    "f16": "*fp16",
    "bf16": "*bf16",
    "f32": "*fp32",
    "f64": "*fp64",
    "i32": "*i32",
    "i64": "*i64",
    "bool": "*i1",
}
_PACKAGE_FOLDER = Path(__file__).parent.parent
# Registers are handed out to threads in groups of this many, on all targets.
_REGISTER_GROUP = 8
_ERROR_TAIL = 2000


@dataclass(frozen=True)
class Resources:
    """What a program of a kernel takes on a target.

    Attributes:
        registers: 32-bit registers of each thread (of AMD's vector registers, accumulators included).
        threads: of a program.
        shared: bytes of shared memory.
        stack: bytes of memory of each thread: arrays of library functions, and what is spilled.
        spilled: bytes that instructions of a thread write to its memory because registers are too few; a place that
            several of them write counts each time.
        local_accesses: instructions that read or write a thread's memory (LDL and STL; AMD's scratch_load and
            scratch_store).
        scalar_spills: AMD's scalar registers that are kept in lanes of vector registers; cheap, and no fault.
        tensor_core_instructions: instructions of tensor cores (PTX's mma, wgmma and tcgen05.mma; AMD's v_mfma).
        tensor_memory: columns of tensor memory.
        seconds: that Triton took to compile it.
    """

    registers: int
    threads: int
    shared: int
    stack: int
    spilled: int
    local_accesses: int
    scalar_spills: int
    tensor_core_instructions: int
    tensor_memory: int
    seconds: float

    @property
    def program_registers(self) -> int:
        """The registers that a program occupies."""
        return -(-self.registers // _REGISTER_GROUP) * _REGISTER_GROUP * self.threads


def violations(resources: Resources, target: Target) -> list[str]:
    """What of a kernel is over the limits of a target: each in words, with both numbers; empty where it fits.

    A kernel that spills would run, at a fraction of its speed: that counts too.

    Example:
        >>> violations(compile_ahead(kernel, target("sm_86")), target("sm_86"))
        ['142336 bytes of shared memory; sm_86 has 101376 for a program']
    """
    found = []
    for amount, limit, what in (
        (resources.shared, target.shared_memory, "bytes of shared memory"),
        (resources.tensor_memory, target.tensor_memory, "columns of tensor memory"),
        (resources.threads, target.threads, "threads"),
        (resources.program_registers, target.registers, "registers in all its threads"),
    ):
        if amount > limit:
            found.append(f"{amount} {what}; {target.name} has {limit} for a program")
    if resources.registers > target.registers_per_thread:
        found.append(f"{resources.registers} registers a thread; {target.name} has {target.registers_per_thread}")
    if resources.spilled:
        found.append(
            f"{resources.spilled} bytes spilled by each thread ({resources.local_accesses} accesses to its memory):"
            f" {target.name} has no registers left for them"
        )
    return found


def resident_programs(resources: Resources, target: Target) -> int:
    """How many programs run at once on a whole GPU: what a cooperative grid must not exceed; 0 where none fits."""
    warps = -(-resources.threads // target.warp_size)
    each = min(
        target.resident_programs,
        target.resident_threads // (warps * target.warp_size),
        target.registers // max(1, resources.program_registers),
    )
    if resources.shared or target.reserved_shared_memory:
        each = min(each, target.resident_shared_memory // (resources.shared + target.reserved_shared_memory))
    return 0 if resources.shared > target.shared_memory else each * target.multiprocessors


def signature(kernel: Kernel) -> dict[str, str]:
    """Triton's type of each argument of a kernel, by name and in order: pointers to elements, i32 for sizes."""
    return {each.name: "i32" if each.kind == "size" else _POINTERS[each.dtype] for each in kernel.arguments}


def aligned_arguments(kernel: Kernel) -> tuple[int, ...]:
    """The positions of the arguments that are multiples of 16: all pointers, and no size.

    Without that hint loads are of single elements, and twice the shared memory is used: another kernel.
    """
    return tuple(position for position, each in enumerate(kernel.arguments) if each.kind != "size")


def compile_options(kernel: Kernel) -> dict[str, Any]:
    """The options that a kernel is compiled with, each one given: Triton's defaults differ between releases."""
    options = {
        "num_warps": kernel.warps,
        "num_stages": kernel.stages,
        "enable_fp_fusion": True,
        "launch_cooperative_grid": kernel.cooperative,
    }
    if kernel.registers is not None:
        options["maxnreg"] = kernel.registers
    return options


def compile_ahead(kernel: Kernel, target: Target, patience: float = 600.0) -> Resources:
    """Compile one kernel for one target; for more, `compile_many` starts fewer processes.

    Arguments:
        kernel: the kernel; ``TRITON_INTERPRET`` does not matter.
        target: the GPU.
        patience: seconds after which the compiler is stopped.

    Raises:
        TargetError: it does not compile; the message holds what the compiler said.
        MissingTriton: Triton is not installed.
    """
    (answer,) = compile_many((kernel,), (target.name,), 1, patience).values()
    if isinstance(answer, str):
        raise TargetError(f"kernel {kernel.name} does not compile for {target.name} ({target.chip}):\n{answer}")
    return answer


def compile_many(
    kernels: Iterable[Kernel], target_names: Iterable[str], processes: int | None = None, patience: float = 600.0
) -> dict[tuple[Kernel, str], Resources | str]:
    """Compile every kernel for every target, side by side; one that fails, or ends its compiler, stops no other.

    Kernels of one text, types and options are compiled once. Nothing stays on the disk.

    Arguments:
        kernels: the kernels.
        target_names: names of targets, such as "sm_90".
        processes: how many compile at once; left out, one for each core that this process may use.
        patience: seconds after which the compilation of one kernel is stopped.

    Returns:
        By kernel and target's name, what the kernel takes; where it does not compile, the compiler's words.

    Raises:
        TargetError: no target is called so.
        MissingTriton: Triton is not installed.

    Example:
        for (kernel, name), resources in compile_many(kernels, ("sm_80", "gfx942")).items():
            print(kernel.name, name, resources if isinstance(resources, str) else violations(resources, target(name)))
    """
    targets = [target(name) for name in target_names]
    if importlib.util.find_spec("triton") is None:
        raise MissingTriton("kernels are compiled with Triton: pip install triton (it is published for Linux)")
    jobs = {(kernel, each.name): _job(kernel, each) for kernel in kernels for each in targets}
    distinct = list(dict.fromkeys(jobs.values()))
    side_by_side = max(1, min(processes or len(os.sched_getaffinity(0)), len(distinct)))
    with TemporaryDirectory(prefix="foldfuse-compile-") as folder:
        pool = _Pool(Path(folder), patience)
        try:
            with ThreadPoolExecutor(side_by_side) as threads:
                answers = dict(zip(distinct, threads.map(pool.ask, distinct)))
        finally:
            pool.close()
    return {pair: answers[job] for pair, job in jobs.items()}


def _job(kernel: Kernel, target: Target) -> str:
    """One line for the worker; equal lines are equal work."""
    return json.dumps(
        {
            "source": kernel.source,
            "name": kernel.name,
            "signature": signature(kernel),
            "aligned": aligned_arguments(kernel),
            "options": compile_options(kernel),
            "target": (target.backend, target.architecture, target.warp_size),
        }
    )


class _Pool:
    """Workers that wait for jobs; one that died is not given back, and the next job starts another."""

    def __init__(self, folder: Path, patience: float):
        self.folder = folder
        self.patience = patience
        self.idle: SimpleQueue[_Worker] = SimpleQueue()
        self.numbers = count()

    def ask(self, job: str) -> Resources | str:
        try:
            worker = self.idle.get_nowait()
        except Empty:
            worker = _Worker(self.folder / f"worker_{next(self.numbers)}")
        try:
            answer = worker.ask(job, self.patience)
        except _Died as died:
            worker.close()
            return str(died)
        except BaseException:
            worker.close()
            raise
        result = f"{answer['error']}\n{worker.complaints()}".strip() if "error" in answer else Resources(**answer)
        self.idle.put(worker)
        return result

    def close(self) -> None:
        while not self.idle.empty():
            self.idle.get().close()


class _Died(Exception):
    """A worker ended while it compiled."""


class _Worker:
    """A process that compiles one kernel after another."""

    def __init__(self, folder: Path):
        texts = folder / "texts"
        texts.mkdir(parents=True)
        environment = dict(os.environ, TRITON_CACHE_DIR=str(folder / "cache"))
        environment.pop("TRITON_INTERPRET", None)
        self.errors = open(folder / "errors.txt", "w+b")
        self.errors_read = 0
        self.process = subprocess.Popen(
            (sys.executable, "-I", str(Path(__file__).with_name("compile_worker.py"))),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment,
            text=True,
            encoding="utf-8",
        )
        greeting = {
            "path": [os.path.abspath(entry) for entry in sys.path],
            "package": __package__.rpartition(".")[0],
            "package_folder": str(_PACKAGE_FOLDER),
            "folder": str(texts),
        }
        self._tell(json.dumps(greeting))

    def _tell(self, line: str) -> None:
        # That a process ended is noticed where its answer is read.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def ask(self, job: str, patience: float) -> dict[str, Any]:
        """The worker's answer to a job.

        Raises:
            _Died: it ended, or took longer than `patience` seconds and was ended; with all that it said.
        """
        late = Event()

        def stop() -> None:
            late.set()
            self.process.kill()

        self.errors_read = os.fstat(self.errors.fileno()).st_size
        timer = Timer(patience, stop)
        timer.start()
        self._tell(job)
        answer = self.process.stdout.readline()
        timer.cancel()
        if answer.endswith("\n"):
            return json.loads(answer)
        code = self.process.wait()
        if late.is_set():
            how = f"took longer than {patience:g} seconds and was stopped"
        elif code < 0:
            how = f"was ended by {signal.Signals(-code).name}"
        else:
            how = f"ended with exit code {code}"
        raise _Died(f"the compiler's process {how}\n{self.complaints()}".strip())

    def complaints(self) -> str:
        """The end of what the compilers wrote to the standard errors since the last job began."""
        self.errors.seek(self.errors_read)
        return self.errors.read().decode("utf-8", "replace")[-_ERROR_TAIL:]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
