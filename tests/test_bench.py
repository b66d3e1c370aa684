"""The benchmark of recurrences, as far as a CPU shows it: that peers compute one thing, that what is wrong is never
timed, what a run leaves when something fails or time is up, what the command says. The figures need a GPU."""

from __future__ import annotations

import json
import math
import os
import time
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import foldfuse as ff
from foldfuse.bench import compile_ahead, device_time, recurrence_peers, recurrence_runs, recurrences, report
from foldfuse.bench.recurrence_cells import CELLS, module_of
from foldfuse.bench.recurrence_peers import PRECISIONS, errors, foldfuse, library, plain_loop, problem, reference
from foldfuse.bench.recurrence_runs import OUTCOME_TABLE, PEER_TABLE, Configuration, DeviceLost
from foldfuse.bench.recurrences import LEFT_TABLE
from foldfuse.kernels.kernel import Kernel
from foldfuse.kernels.targets import target
from foldfuse.runtime import compat

CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(
    not compat.has_triton() or compat.interpreting(), reason="needs Triton's compiler, not its interpreter"
)


def clock(run, repeats):
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - started))
    return times


def given(tmp_path, *arguments):
    return recurrences.options(["--output", str(tmp_path), "--repeats", "2", *arguments])


SMALL = ("--cells", "lstm", "--dtypes", "f32", "--hidden", "4", "--batch", "2", "--length", "40")


def unequal(peer):
    """A peer that is off by a tenth in all that it gives."""

    def make(what, backward):
        ready = peer(what, backward)
        return replace(ready, run=lambda: tuple(1.1 * each for each in ready.run()))

    return make


def broken(what, backward):
    raise RuntimeError("no such kernel\nand more of it")


# --- peers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("cell", CELLS.values(), ids=lambda cell: cell.name)
def test_all_peers_compute_one_thing(cell, backward):
    what = problem(cell, 5, 3, 7, torch.float64, CPU)
    expected = reference(what, backward)
    assert set(expected) == ({"y", "x", *cell.shapes(5, 5)} if backward else {"y"})
    for peer in (foldfuse, library, plain_loop):
        ready = peer(what, backward)
        found = errors(ready.read(ready.run()), expected)
        assert max(found.values()) <= 1e-13, (peer.__name__, found)


@pytest.mark.parametrize("cell", CELLS.values(), ids=lambda cell: cell.name)
def test_the_gates_stand_where_torch_has_them(cell):
    what = problem(cell, 5, 3, 7, torch.float64, CPU)
    names = ("U", *cell.biases)
    moved = replace(what, weights={**what.weights, **{n: what.weights[n].roll(5, -1) for n in names}})
    found = library(moved, False)
    assert errors(found.read(found.run()), reference(what, False))["y"] > 1e-2


@pytest.mark.parametrize("cell", CELLS.values(), ids=lambda cell: cell.name)
def test_torchs_cell_with_mapped_weights_takes_the_same_step(cell):
    what = problem(cell, 6, 2, 1, torch.float64, CPU)
    module = module_of(cell, what.weights)
    model = recurrence_peers.compiled(what)
    x = what.x.transpose(0, 1)
    assert torch.allclose(model(x), module(what.x)[0].transpose(0, 1), atol=1e-14)
    with torch.no_grad():
        module.weight_hh_l0.add_(1)
    assert torch.allclose(model(x), module(what.x)[0].transpose(0, 1), atol=1e-14), "the first state is zero"


def test_half_precision_is_within_what_is_allowed():
    for name in ("bf16", "f16"):
        precision = PRECISIONS[name]
        what = problem(CELLS["gru"], 16, 3, 32, precision.dtype, CPU)
        ready = foldfuse(what, True)
        found = errors(ready.read(ready.run()), reference(what, True))
        assert 1e-5 < max(found.values()) <= precision.allowed


def test_a_problem_is_the_same_for_a_seed_and_its_first_steps_are_its_own():
    first, second = (problem(CELLS["lstm"], 4, 2, 9, torch.float32, CPU) for _ in range(2))
    assert torch.equal(first.x, second.x) and torch.equal(first.weights["W"], second.weights["W"])
    assert not torch.equal(first.x, problem(CELLS["lstm"], 4, 2, 9, torch.float32, CPU, seed=1).x)
    assert torch.equal(first.first(3).x, first.x[:3]) and first.first(3).weights is first.weights
    assert first.weights["U"].abs().max() <= 0.5 < 4 * first.weights["U"].abs().max()


def test_precisions_are_those_of_the_run_and_no_longer():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    for name, expected in (("tf32", ("high", True)), ("f32", ("highest", False))):
        with recurrence_peers.in_precision(PRECISIONS[name]):
            assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == expected
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_errors_are_relative_and_complete():
    expected = {"y": torch.tensor([3.0, 4.0])}
    assert errors({"y": torch.tensor([3.0, 4.5])}, expected) == {"y": pytest.approx(0.1)}
    assert math.isnan(errors({"y": torch.tensor([3.0, math.nan])}, expected)["y"])
    assert recurrence_peers.worst({"y": 0.5, "x": math.nan, "W": 0.1})[0] == "x"
    for found in ({}, {"y": torch.zeros(3)}, {**expected, "x": torch.zeros(1)}):
        with pytest.raises(ValueError, match="in place of"):
            errors(found, expected)


# --- what is counted --------------------------------------------------------------------------------------------------


def test_floors_count_each_input_and_result_once():
    configuration = Configuration(CELLS["lstm"], PRECISIONS["bf16"], 8, 2, 10)
    chip = target("sm_90")
    weights, rows = 8 * 32 + 8 * 32 + 32, 20
    forward = recurrence_runs.floors(configuration, False, chip)
    assert forward["bytes"] == 2 * (rows * 16 + weights)
    assert forward["operations"] == 2 * 32 * 16 * rows
    assert forward["floor_of_bytes_ms"] == pytest.approx(1e3 * forward["bytes"] / 3.35e12)
    assert forward["floor_of_operations_ms"] == pytest.approx(1e3 * forward["operations"] / 989e12)
    both = recurrence_runs.floors(configuration, True, chip)
    assert both["bytes"] == 2 * (rows * 16 + weights + rows * 32 + 2 * weights)
    assert both["operations"] == 3 * forward["operations"]
    tf32 = recurrence_runs.floors(replace(configuration, precision=PRECISIONS["tf32"]), False, chip)
    assert tf32["floor_of_operations_ms"] == pytest.approx(1e3 * forward["operations"] / 495e12)


def test_what_foldfuse_chooses_is_told_by_its_plan():
    configuration = Configuration(CELLS["gru"], PRECISIONS["bf16"], 64, 16, 1024)
    chip = target("sm_90")
    model = ff.compile(CELLS["gru"].layer(64, 64), ff.Seq(ff.f32[64]))
    for backward in (False, True):
        plan = model.planned(target="sm_90", dtype="bf16", backward=backward, batch=16)
        row = recurrence_runs.about(configuration, backward, chip)
        assert row["launches"] == sum(each.launches for each in plan.kernels)
        scans = {each.direction: each for each in plan.kernels if each.kernel.name == "scan"}
        assert row["why"] == {direction: each.why for direction, each in scans.items()}
        assert set(scans) == ({"forward", "backward"} if backward else {"forward"})
        for direction, each in scans.items():
            assert row[f"{direction}_scan"].startswith(f"{each.strategy}, {each.programs} of {each.rows} rows")
        assert (row["backward_scan"] == "–") is not backward


def test_a_plan_that_is_refused_says_why(monkeypatch):
    def refuse(*arguments):
        raise ff.StrategyError("no strategy holds this step")

    monkeypatch.setattr(recurrence_runs, "planned", refuse)
    row = recurrence_runs.about(Configuration(CELLS["gru"], PRECISIONS["f16"], 8, 1, 1), True, target("sm_90"))
    assert row["forward_scan"].startswith("refused: StrategyError: no strategy holds this step")
    assert row["launches"] is None and row["operations"] > 0


def test_an_outcome_compares_with_the_best_of_the_others():
    rows = {"foldfuse": (3.0, 0.3), "foldfuse_graph": (2.0, 0.2), "nn": (4.0, 0.4), "loop_graph": (9.0, 0.9)}
    found = {name: {"ms": ms, "us_per_step": us} for name, (ms, us) in rows.items()}
    row = recurrence_runs.outcome(found)
    assert (row["best_peer"], row["ratio"], row["graph_ratio"], row["us_per_step"]) == ("nn", 0.75, 0.5, 0.3)
    found["nn"]["ms"] = found["foldfuse_graph"]["ms"] = None
    row = recurrence_runs.outcome(found)
    assert (row["best_peer"], row["ratio"], row["graph_ratio"]) == ("loop_graph", pytest.approx(1 / 3), None)
    found["loop_graph"]["ms"] = None
    assert recurrence_runs.outcome(found)["best_peer"] is None and recurrence_runs.outcome(found)["ratio"] is None


def test_a_spread_is_median_least_and_quartiles():
    assert device_time.spread([4.0, 1.0, 3.0, 2.0, 5.0], "ms") == {
        "ms": 3.0, "least_ms": 1.0, "lower_quartile_ms": 2.0, "upper_quartile_ms": 4.0
    }  # fmt: skip
    assert set(device_time.spread([7.0], "us").values()) == {7.0}


# --- a run ------------------------------------------------------------------------------------------------------------


def test_a_run_leaves_every_figure_and_what_it_is_of(tmp_path, capsys):
    options = given(tmp_path, *SMALL)
    peers = {"foldfuse": foldfuse, "nn": library}
    tables = recurrences.run(options, peers, CPU, clock, time.monotonic())
    assert recurrences.finish(options, tables) == 0
    (file,) = tmp_path.iterdir()
    content = json.loads(file.read_text())
    assert file.name.startswith("recurrences-") and content["tables"] == tables
    assert content["settings"]["hidden"] == [4] and "output" not in content["settings"]
    assert [(row["pass"], row["peer"]) for row in tables[PEER_TABLE]] == [
        ("forward", "foldfuse"), ("forward", "nn"), ("forward+backward", "foldfuse"), ("forward+backward", "nn"),
    ]  # fmt: skip
    for row in tables[PEER_TABLE]:
        assert row["status"] == "ok" and 0 < row["least_ms"] <= row["ms"] <= 40 * row["us_per_step"] / 999
        assert 0 < row["error_of_values"] < 1e-5
        assert (row["error_of_gradients"] is None) == (row["pass"] == "forward")
    assert len({tuple(row) for row in tables[PEER_TABLE]}) == 1, "all rows have the same columns"
    for row in tables[OUTCOME_TABLE]:
        assert row["best_peer"] == "nn" and row["ratio"] == row["foldfuse_ms"] / row["nn_ms"]
    out = capsys.readouterr().out
    assert "lstm f32 H=4 B=2 forward, nn: " in out and f"written: {file}" in out and "not timed" not in out
    assert f"lstm f32 H=4 B=2 forward: foldfuse {tables[OUTCOME_TABLE][0]['ratio']:.2f} of the time of nn\n" in out


def test_what_is_wrong_or_fails_is_told_and_never_timed(tmp_path, capsys):
    options = given(tmp_path, *SMALL)
    timed = []
    peers = {"foldfuse": unequal(foldfuse), "foldfuse_graph": broken, "nn": library}
    timing = lambda run, repeats: timed.append(run) or clock(run, repeats)
    tables = recurrences.run(options, peers, CPU, timing, time.monotonic())
    assert len(timed) == 2, "one pass and another of the one peer that is right"
    rows = {row["peer"]: row for row in tables[PEER_TABLE] if row["pass"] == "forward+backward"}
    assert rows["foldfuse"]["status"] == "WRONG" and rows["foldfuse"]["ms"] is None
    assert "is off by 1.0e-01; 1e-04 is allowed" in rows["foldfuse"]["what"]
    assert rows["foldfuse_graph"]["status"] == "failed"
    assert rows["foldfuse_graph"]["what"] == "RuntimeError: no such kernel"
    assert rows["nn"]["status"] == "ok"
    assert all(row["ratio"] is None and row["foldfuse_ms"] is None for row in tables[OUTCOME_TABLE])
    assert recurrences.finish(options, tables) == 1
    out = capsys.readouterr().out
    assert "foldfuse: WRONG: " in out and "foldfuse_graph: failed: RuntimeError: no such kernel" in out


@pytest.mark.parametrize("step", [3, 39])
def test_what_is_no_number_is_wrong_also_past_the_steps_of_the_reference(tmp_path, step):
    def make(what, backward):
        ready = library(what, backward)

        def run():
            y, *rest = ready.run()
            if len(y) > step:
                y = y.clone()
                y[step] = math.nan
            return y, *rest

        return replace(ready, run=run)

    tables = recurrences.run(given(tmp_path, *SMALL), {"nn": make}, CPU, clock, time.monotonic())
    assert [row["status"] for row in tables[PEER_TABLE]] == ["WRONG", "WRONG"]
    assert all(row["error_of_values"] is None and "nan" in row["what"] for row in tables[PEER_TABLE])


def test_a_wrong_gradient_is_named():
    def make(what, backward):
        ready = library(what, backward)

        def read(results):
            found = ready.read(results)
            return {**found, "U": 2 * found["U"]} if backward else found

        return replace(ready, read=read)

    configuration = Configuration(CELLS["gru"], PRECISIONS["f32"], 4, 2, 33)
    rows = [row for name, row in recurrence_runs.measure(configuration, {"nn": make}, CPU, 1, clock) if "peer" in row]
    assert [row["status"] for row in rows] == ["ok", "WRONG"]
    assert rows[1]["what"].startswith("the gradient of U is off by 1.0e+00")


def test_a_reference_that_fails_is_a_row_too(tmp_path, monkeypatch):
    def fail(*arguments):
        raise torch.OutOfMemoryError("out of memory\ntried to allocate")

    monkeypatch.setattr(recurrence_runs, "problem", fail)
    tables = recurrences.run(given(tmp_path, *SMALL), {"nn": library}, CPU, clock, time.monotonic())
    assert [(row["peer"], row["what"]) for row in tables[PEER_TABLE]] == [
        ("reference", "OutOfMemoryError: out of memory")
    ] * 2


def test_nothing_is_started_when_the_time_is_up(tmp_path, monkeypatch, capsys):
    options = given(tmp_path, *SMALL, "--batch", "1", "2", "3", "--budget", "60")
    now = iter([10.0, 61.0])
    monkeypatch.setattr(recurrences.time, "monotonic", lambda: next(now))
    tables = recurrences.run(options, {"nn": library}, CPU, clock, 0.0)
    assert {row["B"] for row in tables[PEER_TABLE]} == {1}
    assert [(row["B"], row["reason"]) for row in tables[LEFT_TABLE]] == [
        (2, "the 60 seconds were used up"), (3, "the 60 seconds were used up"),
    ]  # fmt: skip
    recurrences.finish(options, tables)
    assert "\nleft out\n" in capsys.readouterr().out


def test_the_file_is_written_after_each_configuration(tmp_path, monkeypatch):
    options = given(tmp_path, *SMALL, "--batch", "1", "2")
    seen = []

    def interrupted(configuration, *rest):
        seen.extend(len(json.loads(each.read_text())["tables"][PEER_TABLE]) for each in tmp_path.iterdir())
        if configuration.batch == 2:
            raise KeyboardInterrupt
        return recurrence_runs.measure(configuration, *rest)

    monkeypatch.setattr(recurrences, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        recurrences.run(options, {"nn": library}, CPU, clock, time.monotonic())
    assert seen == [2]


def test_a_device_that_is_lost_ends_the_run(tmp_path, monkeypatch):
    def recover(device):
        raise DeviceLost("RuntimeError: CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(recurrence_runs, "_recover", recover)
    options = given(tmp_path, *SMALL, "--batch", "1", "2")
    tables = recurrences.run(options, {"foldfuse": broken, "nn": library}, CPU, clock, time.monotonic())
    assert [row["what"] for row in tables[PEER_TABLE]] == ["RuntimeError: no such kernel"]
    (left,) = tables[LEFT_TABLE]
    assert left["B"] == 2 and "illegal memory access" in left["reason"]


def test_a_configuration_that_does_not_end_ends_the_process_with_all_rows_written(tmp_path, monkeypatch, capsys):
    options = given(tmp_path, *SMALL, "--batch", "1", "2", "3", "--patience", "0.2")
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)

    def stuck(configuration, *rest):
        if configuration.batch == 2:
            while not ended:
                time.sleep(0.01)
            raise KeyboardInterrupt
        return iter([(PEER_TABLE, {**configuration.facts, "peer": "nn", "pass": "", "status": "failed", "what": ""})])

    monkeypatch.setattr(recurrences, "measure", stuck)
    with pytest.raises(KeyboardInterrupt):
        recurrences.run(options, {}, CPU, clock, time.monotonic())
    assert ended == [1]
    (file,) = tmp_path.iterdir()
    content = json.loads(file.read_text())["tables"]
    assert [row["B"] for row in content[PEER_TABLE]] == [1]
    reasons = {row["B"]: row["reason"] for row in content[LEFT_TABLE]}
    assert reasons[2] == "lstm f32 H=4 B=2 T=40 did not end in 0.2 seconds" and reasons[3] == f"after {reasons[2]}"
    assert "did not end in 0.2 seconds; what was measured is in" in capsys.readouterr().err


# --- as on a device ---------------------------------------------------------------------------------------------------


@pytest.fixture
def graphs(monkeypatch):
    """Stand-ins for streams and graphs: what is captured has run, and replaying it does nothing."""
    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda what: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: None))


def test_a_graph_that_writes_nothing_is_found_out(graphs):
    configuration = Configuration(CELLS["lstm"], PRECISIONS["f32"], 4, 2, 33)
    peers = {"nn_graph": recurrence_peers.captured(library)}
    rows = [row for name, row in recurrence_runs.measure(configuration, peers, CPU, 1, clock) if name == PEER_TABLE]
    assert [row["status"] for row in rows] == ["WRONG", "WRONG"] and all("nan" in row["what"] for row in rows)


def test_what_warms_up_is_not_timed(monkeypatch):
    done = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.runs = len(done)

        def elapsed_time(self, other):
            return float(10 * self.runs + other.runs)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: done.append("waited") if len(done) < 3 else None)
    assert device_time.milliseconds(lambda: done.append("ran"), 3, warm=2) == [34.0, 45.0, 56.0]
    assert done == ["ran", "ran", "waited", "ran", "ran", "ran"]


def test_the_command_compiles_measures_and_answers(monkeypatch, tmp_path, capsys):
    seen = []
    monkeypatch.setattr(recurrences, "refusal", lambda given: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(recurrences.fused, "target_of", lambda device: target("sm_80"))
    monkeypatch.setattr(recurrences, "ahead", lambda given, target_name: seen.append(target_name))
    peers = {"foldfuse": foldfuse, "nn": library}
    run = recurrences.run

    def on_cpu(given, them, device, timing, started):
        assert them is recurrence_peers.PEERS and timing is device_time.milliseconds
        seen.append(device)
        return run(given, peers, CPU, clock, started)

    monkeypatch.setattr(recurrences, "run", on_cpu)
    arguments = [*SMALL, "--output", str(tmp_path), "--repeats", "1"]
    assert recurrences.main(arguments) == 0 and seen == ["sm_80", torch.device("cuda", 0)]
    peers["nn"] = broken
    assert recurrences.main(arguments) == 1
    assert "not timed\nlstm f32 H=4 B=2 forward, nn: failed: RuntimeError" in capsys.readouterr().out


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_default_is_the_whole_comparison_and_quick_a_part_of_it():
    whole = recurrences.configurations(recurrences.options([]))
    assert len(whole) == len(set(whole)) == 2 * 2 * 6 * 2
    assert {each.hidden for each in whole} == {64, 128, 256, 512, 768, 1024}
    assert {each.batch for each in whole} == {16, 64} and {each.length for each in whole} == {1024}
    assert {each.precision.name for each in whole} == {"f16", "bf16"}
    options = recurrences.options(["--quick"])
    quick = recurrences.configurations(options)
    assert set(quick) < set(whole) and len(quick) == 8 and options.budget == 240
    options = recurrences.options(["--quick", "--hidden", "64", "--budget", "9"])
    assert options.budget == 9 and {each.hidden for each in recurrences.configurations(options)} == {64}


def test_a_dry_run_needs_no_gpu(capsys):
    arguments = ["--dry-run", "--target", "sm_80", "--cells", "lstm", "--hidden", "32", "--batch", "16"]
    assert recurrences.main([*arguments, "--dtypes", "bf16"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("as planned for sm_80 (A100 SXM 80 GB)")
    rows = [line for line in out if line.startswith("lstm")]
    assert len(rows) == 2 and all("resident" in row or "cooperative" in row or "streamed" in row for row in rows)


def test_without_a_gpu_nothing_is_measured(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert recurrences.main(["--quick", "--output", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("foldfuse: torch finds no CUDA device") and "--dry-run" in captured.err
    assert not list(tmp_path.iterdir())


def test_nothing_is_measured_without_kernels_or_a_place_for_the_figures(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(compat, "interpreting", lambda: False)
    monkeypatch.setattr(compat, "has_triton", lambda: False)
    assert "Triton is not installed" in recurrences.refusal(given(tmp_path))
    monkeypatch.setattr(compat, "has_triton", lambda: True)
    assert recurrences.refusal(given(tmp_path / "new")) is None and (tmp_path / "new").is_dir()
    (tmp_path / "file").write_text("")
    assert "--output" in recurrences.refusal(given(tmp_path / "file" / "folder"))
    monkeypatch.setattr(compat, "interpreting", lambda: True)
    assert "unset TRITON_INTERPRET" in recurrences.refusal(given(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hidden", "0"], "0 is not 1 or more"),
        (["--cells", "rnn"], "invalid choice: 'rnn'"),
        (["--dtypes", "f64"], "invalid choice: 'f64'"),
        (["--target", "sm_80"], "--target is for --dry-run"),
    ],
)
def test_a_wrong_option(capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        recurrences.main(arguments)
    err = capsys.readouterr().err
    assert stopped.value.code == 2 and "usage: foldfuse bench recurrences" in err and message in err


def test_a_table_has_a_dash_for_nothing():
    lines = report.table([{"cell": "lstm", "B": 1600, "ms": None}, {"cell": "gru", "B": 2, "ms": 0.12345}]).splitlines()
    assert [line.split() for line in lines[2:]] == [["lstm", "1,600", "–"], ["gru", "2", "0.1235"]]


# --- compiled ahead ---------------------------------------------------------------------------------------------------

TEXT = """
import triton
import triton.language as tl


@triton.jit
def nothing(x):
    tl.store(x, 0.0)
"""


@needs_compiler
def test_a_kernel_compiled_ahead_is_found_in_the_cache(monkeypatch, tmp_path):
    from triton.backends.compiler import GPUTarget

    from foldfuse.kernels.kernel import Argument, Tiles
    from foldfuse.runtime import kernel_cache

    monkeypatch.setenv("FOLDFUSE_CACHE", str(tmp_path / "texts"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "compiled"))
    kernel = Kernel("nothing", TEXT, (Argument("x", "buffer", "f32", written=True),), (Tiles((1,)),))
    assert compile_ahead.compile_into_cache([kernel], "sm_90", 1) == 0 and not list(tmp_path.iterdir())
    assert compile_ahead.compile_into_cache([kernel, replace(kernel, header="again")], "sm_90", 2) == 1
    before = sorted((tmp_path / "compiled").rglob("*.cubin"))
    compat.compile_kernel(kernel_cache.load(kernel), kernel, target=GPUTarget("cuda", 90, 32))
    assert sorted((tmp_path / "compiled").rglob("*.cubin")) == before != []
    assert not compile_ahead._compiles(replace(kernel, source=TEXT.replace("0.0", "zero")), "sm_90")


def test_all_kernels_of_a_run_are_compiled_ahead(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(recurrences, "compile_into_cache", lambda *arguments: asked.append(arguments) or 7)
    recurrences.ahead(given(tmp_path, *SMALL, "--workers", "1"), "sm_90")
    assert not asked
    recurrences.ahead(given(tmp_path, *SMALL, "--workers", "3"), "sm_90")
    ((kernels, target_name, workers),) = asked
    assert (target_name, workers) == ("sm_90", 3) and "7 kernels compiled" in capsys.readouterr().out
    (configuration,) = recurrences.configurations(given(tmp_path, *SMALL))
    both = recurrence_runs.planned(configuration, "sm_90", True).kernels
    assert {each.kernel.key for each in both} <= {kernel.key for kernel in kernels}


# --- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_all_peers_are_right_and_timed_on_a_device(tmp_path):
    arguments = ("--hidden", "64", "--batch", "16", "--length", "100", "--dtypes", "f16", "bf16", "f32", "tf32")
    options = given(tmp_path, *arguments)
    device = torch.device("cuda", torch.cuda.current_device())
    tables = recurrences.run(options, recurrence_peers.PEERS, device, recurrences.milliseconds, time.monotonic())
    assert [row for row in tables[PEER_TABLE] if row["status"] != "ok"] == []
    assert len(tables[PEER_TABLE]) == 2 * 4 * 2 * 4
    assert all(row["kernel_launches"] for row in tables[PEER_TABLE] if row["peer"] == "foldfuse")
