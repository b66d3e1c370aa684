"""The benchmark of the host's work: that its kernels that do nothing are reached as others are, and leave no trace."""

from __future__ import annotations

import json

import pytest
import torch

import foldfuse as ff
from foldfuse.bench import launch_time, recurrence_runs
from foldfuse.bench.recurrence_cells import CELLS
from foldfuse.bench.recurrence_peers import errors, foldfuse, problem, reference
from foldfuse.runtime import compat
from foldfuse.runtime.launch import Launcher, counts

CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(
    not compat.has_triton() or compat.interpreting(), reason="needs Triton's compiler, not its interpreter"
)


@pytest.mark.parametrize("changing", [False, True])
def test_a_launch_reaches_the_code_that_does_nothing(monkeypatch, changing):
    reached = []
    monkeypatch.setattr(launch_time.Idle, "run", lambda self, *arguments: reached.append(arguments))
    before = counts()
    row = launch_time.measure_launch(8, changing, CPU, launches=300, repeats=2)
    assert (counts() - before).launches == {"idle": 900} and (counts() - before).compiles == {}
    assert len(reached) == 900 and {len(arguments) for arguments in reached} == {10}
    lengths = [arguments[-1] for arguments in reached]
    assert len(set(lengths)) == (900 if changing else 1)
    assert row["buffers"] == 8 and 0 < row["least_us"] <= row["us"] < 1e5


@needs_compiler
def test_a_call_is_timed_with_kernels_that_do_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("FOLDFUSE_CACHE", str(tmp_path))
    before = counts()
    rows = launch_time.measure_idle_calls(8, calls=2, repeats=1)
    launches = (counts() - before).launches
    assert launches["scan"] == 4 + 2 * 4 and not (counts() - before).compiles
    assert [(row["pass"], row["of"]) for row in rows] == [
        (name, peer) for name in recurrence_runs.PASSES for peer in ("foldfuse", "nn")
    ]
    # Nothing of it stays: programs on CPU tensors are evaluated again, and are right.
    what = problem(CELLS["lstm"], 8, 1, 1, torch.float32, CPU)
    ready = foldfuse(what, True)
    assert max(errors(ready.read(ready.run()), reference(what, True)).values()) < 1e-5


def test_milliseconds_become_microseconds():
    row = {"ms": 2.0, "least_ms": None, "status": "ok", "us_per_step": 9.0}
    assert launch_time.in_microseconds(row) == {"us": 2000.0, "least_us": None}


def test_launchers_of_the_runtime_take_no_cpu_tensors_without_code_for_them():
    kernel = launch_time.kernel_of(2)
    code = launch_time.Idle(kernel, CPU)
    code.runs_on = lambda device: False
    buffers = {name: torch.zeros(2) for name in ("buffer_0", "buffer_1")}
    with pytest.raises(ff.FoldfuseError, match="CPU tensors"):
        Launcher(kernel, code)(buffers, {"B": 1, "T": 1}, {})


def test_the_command_writes_what_it_measured(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(compat, "has_triton", lambda: False)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    assert launch_time.main(["--calls", "5", "--repeats", "1", "--output", str(tmp_path)]) == 0
    (file,) = tmp_path.iterdir()
    ((title, rows),) = json.loads(file.read_text())["tables"].items()
    assert [(row["buffers"], row["sizes"]) for row in rows] == [
        (buffers, sizes) for sizes in ("the same", "new at each launch") for buffers in launch_time.BUFFERS
    ]
    assert title in capsys.readouterr().out
    monkeypatch.setattr(compat, "interpreting", lambda: True)
    with pytest.raises(SystemExit) as stopped:
        launch_time.main([])
    assert stopped.value.code == 2 and "unset TRITON_INTERPRET" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_calls_are_right_and_timed_on_a_device():
    rows = launch_time.measure_calls(16, 3, torch.device("cuda", torch.cuda.current_device()))
    assert len(rows) == 2 * 2 * len(launch_time.PEERS)
    assert all(row["status"] == "ok" and row["us"] > 0 for row in rows), rows
