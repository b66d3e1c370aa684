"""Generated kernels on disk, and compiled: what is written, what is loaded, what is compiled once and what again.

The launches here run compiled code paths without a GPU: Triton compiles for sm_90, and a driver of the test's own takes
the place where the code would be put on a device. What only a GPU can show is marked `gpu`.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from foldfuse.compiler.errors import CaptureError, DeviceError, LaunchError, MissingTriton, VerificationError
from foldfuse.compiler.sizes import Named
from foldfuse.kernels.kernel import Argument, Kernel, Tiles
from foldfuse.runtime import compat, kernel_cache
from foldfuse.runtime import launch as launching
from foldfuse.runtime.launch import Counts, counts, launch, prepare

needs_triton = pytest.mark.skipif(not compat.has_triton(), reason="needs Triton")
compiled = pytest.mark.skipif(
    not compat.has_triton() or compat.interpreting(), reason="needs Triton's compiler, not its interpreter"
)

DOUBLE = """
import triton
import triton.language as tl


@triton.jit(do_not_specialize=["n"])
def double(x, y, n):
    lane = tl.program_id(0) * 1024 + tl.arange(0, 1024)
    tl.store(y + lane, tl.load(x + lane, mask=lane < n, other=0.0) * 2.0, mask=lane < n)
"""
DOUBLING = Kernel(
    "double",
    DOUBLE,
    (
        Argument("x", "buffer", "f32"),
        Argument("y", "buffer", "f32", written=True),
        Argument("n", "size", "i32", size="N"),
    ),
    (Tiles((Named("N"),), 1024),),
    header="double: y = 2 x\nfrom model.py:3",
)

# Every program adds one and waits for all others, then writes how many there are.
MEET = """
import triton
import triton.language as tl
from foldfuse.kernels.device import grid_barrier


@triton.jit(do_not_specialize=["n"])
def meet(y, arrived, n):
    grid_barrier(arrived, n)
    tl.store(y + tl.program_id(0), tl.atomic_add(arrived, 0, sem="acquire", scope="gpu"))
"""
MEETING = Kernel(
    "meet",
    MEET,
    (
        Argument("y", "buffer", "i32", written=True),
        Argument("arrived", "counter", "i32", extent=(1,)),
        Argument("n", "size", "i32", size="N"),
    ),
    (Tiles((Named("N"),)),),
    cooperative=True,
    strategy="cooperative",
)


def variant(kernel: Kernel, mark: object) -> Kernel:
    """The same kernel under a key of its own, so that nothing in this process has loaded or compiled it."""
    return replace(kernel, source=f"{kernel.source}\n# {mark}\n")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, not made yet."""
    folder = tmp_path / "cache"
    monkeypatch.setenv(kernel_cache.FOLDER_VARIABLE, str(folder))
    monkeypatch.setattr(kernel_cache, "_warned", set())
    return folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_kernel_is_a_readable_file_of_the_users_own(folder: Path) -> None:
    path = kernel_cache.store(DOUBLING)
    assert path == folder / "kernels" / f"{DOUBLING.key}.py"
    assert path.read_text() == DOUBLE + "\n# double: y = 2 x\n# from model.py:3\n"
    assert [mode(folder), mode(path.parent), mode(path)] == [0o700, 0o700, 0o600]
    assert os.listdir(path.parent) == [path.name]


def test_the_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernel_cache.user_folder() == tmp_path / "cache"
    monkeypatch.delenv(kernel_cache.FOLDER_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kernel_cache.user_folder() == tmp_path / "foldfuse"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for nowhere in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", nowhere)
        assert kernel_cache.user_folder() == tmp_path / "home" / ".cache" / "foldfuse"


def test_equal_texts_share_a_file_and_the_first_header_stays() -> None:
    first = kernel_cache.store(DOUBLING)
    second = kernel_cache.store(replace(DOUBLING, header="another layer"))
    assert second == first
    assert "from model.py:3" in first.read_text() and "another layer" not in first.read_text()
    assert kernel_cache.store(replace(DOUBLING, warps=8)) != first


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("2.0", "3.0"),
        lambda text: text + "import os\n",
        lambda text: text.encode() + b"\xff\xfe",
    ],
    ids=["empty", "cut", "changed", "longer", "not text"],
)
def test_a_damaged_entry_is_written_again(damage: Any) -> None:
    path = kernel_cache.store(DOUBLING)
    whole = path.read_text()
    damaged = damage(whole)
    path.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    assert kernel_cache.store(DOUBLING) == path
    assert path.read_text() == whole


def test_a_whole_entry_is_not_written_again() -> None:
    path = kernel_cache.store(DOUBLING)
    before = path.stat()
    kernel_cache.store(DOUBLING)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def store_together(start: Any, kernel: Kernel, done: Any) -> None:
    start.wait()
    done.put({kernel_cache.store(kernel).read_bytes() for _ in range(10)})


def test_sixteen_processes_write_one_entry_and_nobody_sees_a_part(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Large enough that writing takes a while, and written anew each time.
    kernel = replace(DOUBLING, source=DOUBLE + "\n" + "# filling\n" * 20_000, header="")
    monkeypatch.setattr(kernel_cache, "_holds", lambda path, kernel: False)
    context = multiprocessing.get_context("fork")
    start, done = context.Barrier(17), context.SimpleQueue()
    path, seen = folder / "kernels" / f"{kernel.key}.py", set()
    writers = [context.Process(target=store_together, args=(start, kernel, done)) for _ in range(16)]
    for writer in writers:
        writer.start()
    reading = threading.Event()

    def read() -> None:
        while not reading.is_set():
            if path.exists():
                seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    start.wait()
    written = [done.get() for _ in writers]
    for writer in writers:
        writer.join()
    reading.set()
    reader.join()
    assert [writer.exitcode for writer in writers] == [0] * 16
    assert seen.union(*written) == {kernel.source.encode()}
    assert os.listdir(path.parent) == [path.name]


def test_an_entry_appears_whole_and_a_failed_one_leaves_nothing(
    folder: Path, own_temporary_folder: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, steps = os.replace, []

    def full(partial: str, path: Path) -> None:
        steps.append((Path(partial).parent == path.parent, Path(partial).read_text(), path.exists()))
        if folder in path.parents:
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(partial, path)

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(RuntimeWarning, match=f"{folder} .No space left on device"):
        path = kernel_cache.store(DOUBLING)
    assert steps == [(True, path.read_text(), False)] * 2
    assert not list((folder / "kernels").iterdir())


@pytest.fixture
def own_temporary_folder() -> Iterator[None]:
    """The process forgets its temporary folder before and after the test, and leaves none."""
    kernel_cache._temporary_folder.cache_clear()
    yield
    if kernel_cache._temporary_folder.cache_info().currsize:
        shutil.rmtree(kernel_cache._temporary_folder())
    kernel_cache._temporary_folder.cache_clear()


@pytest.fixture
def read_only_folder() -> Iterator[Path]:
    """A folder that the running user owns and may not write; root, whom nothing stops, becomes another user."""
    folder = Path(tempfile.mkdtemp())
    root = os.geteuid() == 0
    if root:
        os.chown(folder, 65534, 65534)
    folder.chmod(0o500)
    if root:
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    shutil.rmtree(folder)


def expect_one_warning(folder: Path) -> Path:
    """Store two kernels; the folder that they went to."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        path = kernel_cache.store(DOUBLING)
        other = kernel_cache.store(variant(DOUBLING, "second"))
    assert path.read_text().startswith(DOUBLE) and other.parent == path.parent
    assert [warning.category for warning in caught] == [RuntimeWarning]
    said = str(caught[0].message)
    assert str(folder) in said and kernel_cache.FOLDER_VARIABLE in said and "writable" in said
    assert str(path.parent.parent) in said
    return path.parent


def test_a_read_only_folder_is_said_once_and_replaced(
    read_only_folder: Path, own_temporary_folder: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(kernel_cache.FOLDER_VARIABLE, str(read_only_folder))
    used = expect_one_warning(read_only_folder)
    assert mode(used) == 0o700 and not list(read_only_folder.iterdir())


def test_a_folder_that_cannot_be_made_is_said_once_and_replaced(
    tmp_path: Path, own_temporary_folder: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv(kernel_cache.FOLDER_VARIABLE, str(tmp_path / "file" / "cache"))
    expect_one_warning(tmp_path / "file" / "cache")


def test_entries_of_a_read_only_folder_are_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = kernel_cache.store(DOUBLING)

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("nothing is to be written")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    assert kernel_cache.store(DOUBLING) == path


PROGRAM = """
import sys
import foldfuse
from foldfuse.runtime import compat, kernel_cache, launch
import torch
assert "triton" not in sys.modules and not torch.cuda.is_initialized()
assert not compat.interpreting() and "triton" not in sys.modules
sys.modules["triton"] = None
assert not compat.has_triton()
compat.triton()
"""


def test_importing_needs_no_triton_and_a_kernel_says_what_to_install() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment)
    assert MissingTriton.__name__ in done.stderr.splitlines()[-1], done.stderr
    assert "pip install triton" in done.stderr


@needs_triton
def test_a_text_is_loaded_once_by_all_threads() -> None:
    kernel = variant(DOUBLING, "threads")
    start, loaded = threading.Barrier(8), []

    def load() -> None:
        start.wait()
        loaded.append(kernel_cache.load(kernel))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 8 and len({id(function) for function in loaded}) == 1
    assert kernel_cache.load(replace(kernel, header="another layer")) is loaded[0]
    assert loaded[0].__name__ == "double"


@needs_triton
def test_what_lies_in_the_folder_is_never_executed(folder: Path) -> None:
    kernel = variant(DOUBLING, "planted")
    path = folder / "kernels" / f"{kernel.key}.py"
    path.parent.mkdir(parents=True)
    path.write_text("raise SystemExit('executed')\n")
    function = kernel_cache.load(kernel)
    assert function.fn.__code__.co_filename == str(path)
    assert path.read_text().startswith(kernel.source)
    assert not (path.parent / "__pycache__").exists()


@needs_triton
def test_a_text_that_does_not_fit_its_description_is_refused() -> None:
    other = replace(variant(DOUBLING, "argument"), arguments=DOUBLING.arguments[:2])
    with pytest.raises(VerificationError, match=r"double does not define it with the arguments \['x', 'y'\]"):
        kernel_cache.load(other)
    with pytest.raises(VerificationError, match="triple"):
        kernel_cache.load(replace(variant(DOUBLING, "name"), name="triple"))


@compiled
def test_cpu_tensors_need_the_interpreter() -> None:
    x = torch.ones(3)
    with pytest.raises(LaunchError, match=r"CPU tensors.*set TRITON_INTERPRET=1 before Python starts"):
        launch(DOUBLING, {"x": x, "y": x.clone()}, {"N": 3}, {})


class Device:
    """A driver for sm_90 that puts nothing anywhere: it notes what is compiled and what would be launched."""

    def __init__(self, index: int, shared: int = 232_448):
        self.index, self.shared = index, shared
        self.texts: list[str] = []
        self.launches: list[tuple[tuple[int, ...], list[Any]]] = []
        self.fails: str = ""
        self.utils = SimpleNamespace(
            get_device_properties=lambda index: {"max_shared_mem": self.shared},
            load_binary=lambda name, binary, shared, index: ("module", "function", 32, 0, 1024),
            unload_module=lambda module: None,
        )

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return self.index

    def get_current_stream(self, index: int) -> int:
        return 0

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        self.texts.append(str(source.attrs))

        def run(x: int, y: int, z: int, stream: int, function: str, packed: Any, *rest: Any) -> None:
            if self.fails:
                raise RuntimeError(self.fails)
            self.launches.append(((x, y, z), list(rest[3:])))

        return run


class OnDevice(torch.Tensor):
    """A CPU tensor that says it lies on a CUDA device."""

    number = 0

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", self.number)


class OnSecondDevice(OnDevice):
    number = 1


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Device:
    import triton

    # Triton keeps a device's limits by its number, so each test has a number of its own.
    device = Device(next(numbers))
    monkeypatch.setattr(triton.runtime.driver, "_active", device)
    monkeypatch.setattr(torch.cuda, "device", lambda index: nullcontext())
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Testing 90")
    properties = SimpleNamespace(
        multi_processor_count=4,
        max_threads_per_multi_processor=2048,
        shared_memory_per_multiprocessor=233_472,
        regs_per_multiprocessor=65_536,
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    for name in ("empty", "zeros"):
        make = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *shape, device=None, make=make, **rest: make(*shape, **rest))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    # Forgotten before the driver is: a compiled kernel that is freed asks the driver to unload it.
    monkeypatch.setattr(launching, "_codes", {})
    return device


numbers = iter(range(100, 1000))


def on_device(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(*shape, dtype=dtype).as_subclass(OnDevice)


def since(before: Counts) -> tuple[dict[str, int], int]:
    """Launches by name, and the number of compiles, since then."""
    passed = counts() - before
    return dict(passed.launches), sum(passed.compiles.values())


@compiled
def test_a_size_compiles_nothing_and_a_misaligned_buffer_does_once(device: Device) -> None:
    kernel, before = variant(DOUBLING, "sizes"), counts()
    x, y = on_device(5000), on_device(5000)
    for n in (1, 16, 17, 1024, 4999, 1, 0):
        launch(kernel, {"x": x, "y": y, "unused": torch.ones(1)}, {"N": n}, {})
    grids = [1, 1, 1, 1, 5, 1]
    addresses = [x.data_ptr(), y.data_ptr()]
    assert device.launches == [((grid, 1, 1), [*addresses, n]) for grid, n in zip(grids, (1, 16, 17, 1024, 4999, 1))]
    assert since(before) == ({"double": 6}, 1)
    for _ in range(2):
        launch(kernel, {"x": x[1:], "y": y}, {"N": 7}, {})
    assert device.launches[-1] == ((1, 1, 1), [x.data_ptr() + 4, y.data_ptr(), 7])
    assert since(before) == ({"double": 8}, 2)
    assert [text.count("tt.divisibility") for text in device.texts] == [2, 1]
    launch(replace(kernel, header="another layer"), {"x": x, "y": y}, {"N": 7}, {})
    assert since(before) == ({"double": 9}, 2)


@compiled
def test_equal_texts_over_other_sizes_launch_with_their_own(device: Device) -> None:
    first = variant(DOUBLING, "own sizes")
    arguments = (*first.arguments[:2], replace(first.arguments[2], size="M"))
    second = replace(first, arguments=arguments, grid=(Tiles((Named("M"),), 1024),))
    before, x = counts(), on_device(4000)
    for kernel in (first, second):
        launch(kernel, {"x": x, "y": x}, {"N": 10, "M": 3000}, {})
    assert [(grid[0], values[-1]) for grid, values in device.launches] == [(1, 10), (3, 3000)]
    assert since(before) == ({"double": 2}, 1)


@compiled
def test_pointers_are_aligned_unless_named_and_sizes_are_plain(device: Device) -> None:
    kernel = variant(DOUBLING, "text")

    def aligned(misaligned: frozenset[str]) -> dict[str, bool]:
        text = compat.compile_kernel(kernel_cache.load(kernel), kernel, misaligned).asm["ttir"]
        line = next(line for line in text.splitlines() if "tt.func public @double(" in line)
        found = re.findall(r"%(\w+): (?:!tt.ptr<f32>|i32)( {tt.divisibility = 16 : i32})?", line)
        return {name: bool(hint) for name, hint in found}

    assert aligned(frozenset()) == {"x": True, "y": True, "n": False}
    assert aligned(frozenset({"x"})) == {"x": False, "y": True, "n": False}


@compiled
def test_nothing_is_compiled_during_a_capture(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, x = variant(DOUBLING, "capture"), on_device(64)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(CaptureError, match=r"double was not compiled for cuda:0 before.*model\.warmup\(\.\.\.\)"):
        launch(kernel, {"x": x, "y": x}, {"N": 64}, {})
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    prepare(kernel, torch.device("cuda", 0))
    assert not device.launches
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    launch(kernel, {"x": x, "y": x}, {"N": 64}, {})
    assert len(device.launches) == 1
    with pytest.raises(CaptureError, match="with x not aligned to 16 bytes"):
        launch(kernel, {"x": x[1:], "y": x}, {"N": 63}, {})


@compiled
def test_two_devices_are_named_and_each_compiles_for_itself(device: Device) -> None:
    kernel, x = variant(DOUBLING, "devices"), on_device(64)
    there = torch.zeros(64).as_subclass(OnSecondDevice)
    with pytest.raises(DeviceError, match="x on cuda:0 and y on cuda:1"):
        launch(kernel, {"x": x, "y": there}, {"N": 64}, {})
    with pytest.raises(DeviceError, match="x on cuda:0 and y on cpu"):
        launch(kernel, {"x": x, "y": torch.zeros(64)}, {"N": 64}, {})
    before = counts()
    for tensor in (x, there, x, there):
        launch(kernel, {"x": tensor, "y": tensor}, {"N": 64}, {})
    assert since(before) == ({"double": 4}, 2)


@compiled
def test_a_cooperative_grid_fits_the_device(device: Device) -> None:
    y = on_device(1000, dtype=torch.int32)
    # 4 warps: 16 programs on each of 4 multiprocessors.
    for number, (tiles, programs) in enumerate(((64, 1), (65, 1), (30, 3), (1, 64))):
        grid = (Tiles((Named("N"),)), Tiles((programs,)))
        launch(variant(replace(MEETING, grid=grid), f"fits {number}"), {"y": y}, {"N": tiles}, {})
    assert [grid for grid, _ in device.launches] == [(64, 1, 1), (64, 1, 1), (21, 3, 1), (1, 64, 1)]
    # Fewer groups of programs take more tiles each; a group itself is all there or not.
    wide = variant(replace(MEETING, grid=(Tiles((Named("N"),)), Tiles((65,)))), "wide")
    with pytest.raises(LaunchError, match=r"65 programs.*cuda:0 \(Testing 90\) runs at most 64\. Compile the program"):
        launch(wide, {"y": y}, {"N": 2}, {})
    # 32 registers of 32 threads are 1024, of 4 warps 4096: it is threads that limit, unless there are fewer.
    torch.cuda.get_device_properties(0).regs_per_multiprocessor = 4096
    launch(variant(MEETING, "registers"), {"y": y}, {"N": 64}, {})
    assert device.launches[-1][0] == (4, 1, 1)
    device.fails = "Triton Error [CUDA]: too many blocks in cooperative launch"
    kernel = variant(MEETING, "registers")
    with pytest.raises(LaunchError, match=r"4 programs.*runs fewer than that now"):
        launch(kernel, {"y": y}, {"N": 60}, {})
    device.fails = "Triton Error [CUDA]: an illegal memory access was encountered"
    with pytest.raises(RuntimeError, match="illegal memory access") as caught:
        launch(kernel, {"y": y}, {"N": 60}, {})
    assert not isinstance(caught.value, LaunchError)


@compiled
def test_a_kernel_that_does_not_fit_says_what_it_needs(device: Device) -> None:
    device.shared = -1
    x = on_device(64)
    with pytest.raises(
        LaunchError, match=r"double \(pointwise\) does not fit cuda:0 \(Testing 90\): it needs 0 of shared"
    ):
        launch(variant(DOUBLING, "too small"), {"x": x, "y": x}, {"N": 64}, {})


@pytest.mark.gpu
class TestOnADevice:
    """What only a GPU can show."""

    def test_values_on_every_device_and_another_stream(self) -> None:
        for index in range(torch.cuda.device_count()):
            x = torch.randn(5000, device=f"cuda:{index}")
            y, z = torch.empty_like(x), torch.empty_like(x)
            launch(DOUBLING, {"x": x, "y": y}, {"N": 5000}, {})
            stream = torch.cuda.Stream(x.device)
            stream.wait_stream(torch.cuda.current_stream(x.device))
            with torch.cuda.stream(stream):
                launch(DOUBLING, {"x": y, "y": z}, {"N": 5000}, {})
            stream.synchronize()
            assert torch.equal(z, 4 * x)
        assert torch.cuda.current_device() == 0

    def test_a_misaligned_buffer(self) -> None:
        x, y = torch.randn(5001, device="cuda"), torch.empty(5000, device="cuda")
        launch(DOUBLING, {"x": x[1:], "y": y}, {"N": 5000}, {})
        assert torch.equal(y, 2 * x[1:])

    def test_a_graph_captures_what_was_prepared(self) -> None:
        kernel = variant(DOUBLING, "graph")
        x, y = torch.zeros(5000, device="cuda"), torch.empty(5000, device="cuda")
        with pytest.raises(CaptureError), torch.cuda.graph(torch.cuda.CUDAGraph()):
            launch(kernel, {"x": x, "y": y}, {"N": 5000}, {})
        prepare(kernel, x.device)
        graph, before = torch.cuda.CUDAGraph(), counts()
        with torch.cuda.graph(graph):
            launch(kernel, {"x": x, "y": y}, {"N": 5000}, {})
        assert (counts() - before).compiles == Counter()
        x.copy_(torch.randn(5000))
        graph.replay()
        assert torch.equal(y, 2 * x)

    def test_a_cooperative_grid_meets(self) -> None:
        programs = torch.cuda.get_device_properties(0).multi_processor_count
        y = torch.empty(programs, dtype=torch.int32, device="cuda")
        launch(MEETING, {"y": y}, {"N": programs}, {})
        assert (y == programs).all()

    def test_two_devices_are_refused(self) -> None:
        x = torch.ones(4, device="cuda")
        with pytest.raises(DeviceError, match="x on cuda:0 and y on cpu"):
            launch(DOUBLING, {"x": x, "y": torch.ones(4)}, {"N": 4}, {})
