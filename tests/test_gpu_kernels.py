"""What only a GPU shows of the kernels: half precision, tf32, barriers under load, device guards, recompiles, graphs.

Run with ``pytest -m gpu tests/test_gpu_kernels.py``; skipped where there is no CUDA device.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
import torch

import foldfuse as ff
from foldfuse.kernels.request import STRATEGIES, Request
from foldfuse.runtime import fused
from foldfuse.runtime.launch import counts

from .harness import compare, compiled, differentiated, error, examples, plain_run, rows_of
from .programs import PROGRAMS
from .programs.recurrences import lstm, rest

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]

RECURRENCES = [p for p in PROGRAMS if p.family in ("recurrences", "nestings", "face")]


def model_of(width: int, inputs: int = 32) -> ff.Model:
    torch.manual_seed(0)
    return ff.compile(ff.scan(lstm(width, inputs), init=rest(width)), ff.Seq(ff.f32[inputs])).cuda()


def on_device(value):
    return torch.utils._pytree.tree_map(lambda x: x.cuda() if isinstance(x, (torch.Tensor, ff.Ragged)) else x, value)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("ragged", [False, True], ids=["padded", "ragged"])
@pytest.mark.parametrize("program", RECURRENCES, ids=lambda p: p.name)
def test_values_and_gradients_in_double_precision(program, ragged, strategy):
    from .harness import arguments

    if ragged and not program.ragged:
        pytest.skip("its examples are of one length")
    model = compiled(program).cuda()
    batch = on_device(examples(program, ragged))
    for leaf in torch.utils._pytree.tree_leaves(batch):
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
            leaf.requires_grad_()
    with fused.requested(Request(target=fused.target_of(torch.device("cuda")).name, force=strategy)):
        output = model(*arguments(model, program, batch, ragged), entry=program.entry, seed=1)
        found = differentiated(rows_of(output, len(batch)), dict(model.named_parameters()), batch)
    found.outputs = [[x.cpu() for x in row] for row in found.outputs]
    found.parameters = {name: x.cpu() for name, x in found.parameters.items()}
    found.inputs = [x.cpu() for x in found.inputs]
    compare(found, plain_run(program, examples(program, ragged)))


@pytest.mark.parametrize(
    ("dtype", "precision", "tolerance"),
    [
        (torch.float32, "highest", 1e-5),
        (torch.float32, "high", 1e-3),
        (torch.bfloat16, "highest", 1e-2),
        (torch.float16, "highest", 1e-2),
    ],
    ids=["ieee", "tf32", "bf16", "f16"],
)
@pytest.mark.parametrize("strategy", [None, *STRATEGIES])
@pytest.mark.parametrize("width", [16, 100, 128, 256, 1024])
def test_precision(width, strategy, dtype, precision, tolerance):
    model = model_of(width)
    x = torch.randn(5, 33, 32, device="cuda")
    reference = model.double()(x.double())
    model = model.to(dtype)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with fused.requested(Request(target=fused.target_of(x.device).name, force=strategy)):
            found = model(x.to(dtype))
    finally:
        torch.set_float32_matmul_precision(before)
    assert error(found.double(), reference) <= tolerance


def test_a_cooperative_kernel_under_load_is_the_same_every_time():
    model = model_of(512)
    x = torch.randn(64, 200, 32, device="cuda")
    busy = torch.randn(4096, 4096, device="cuda")
    side = torch.cuda.Stream()
    with fused.requested(Request(target=fused.target_of(x.device).name, force="cooperative")):
        first = model(x)
        for _ in range(20):
            with torch.cuda.stream(side):
                busy = torch.tanh(busy @ busy)
            assert torch.equal(model(x), first)


@pytest.mark.parametrize("batches", [((4, 7), (1, 1), (3, 50), (17, 64), (32, 1000)), ((33, 7), (64, 1000), (500, 3))])
def test_a_new_batch_of_one_kind_or_length_compiles_nothing(batches):
    model = model_of(64)
    (rows, steps), *others = batches
    model(torch.randn(rows, steps, 32, device="cuda")).sum().backward()
    before = counts()
    for rows, steps in others:
        model(torch.randn(rows, steps, 32, device="cuda")).sum().backward()
    assert not (counts() - before).compiles


@pytest.mark.parametrize("rows", [100, 3000])
def test_more_tiles_of_rows_than_programs_that_run_at_once(rows):
    model = model_of(512)
    x = torch.randn(rows, 9, 32, device="cuda")
    reference = model.double()(x.double())
    model = model.float()
    with fused.requested(Request(target=fused.target_of(x.device).name, force="cooperative")):
        assert error(model(x).double(), reference) <= 1e-5


def test_a_graph_is_captured_after_warmup():
    model = model_of(128)
    x = torch.randn(16, 40, 32, device="cuda")
    model.warmup(x, backward=False)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        captured = model(x)
    x.copy_(torch.randn_like(x))
    graph.replay()
    with torch.no_grad():
        assert torch.equal(captured, model(x))


def test_a_capture_before_warmup_says_what_to_do():
    model = model_of(48)
    x = torch.randn(16, 40, 32, device="cuda")
    with pytest.raises(ff.CaptureError, match="warmup"), torch.no_grad(), torch.cuda.graph(torch.cuda.CUDAGraph()):
        model(x)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_the_device_is_that_of_the_tensors():
    model = model_of(64)
    other = model_of(64).to("cuda:1")
    x = torch.randn(3, 5, 32)
    with torch.cuda.device(0):
        assert torch.allclose(model(x.to("cuda:0")).cpu(), other(x.to("cuda:1")).cpu())
    with pytest.raises(ff.DeviceError):
        model(x.to("cuda:1"))


RACES = """
import torch
from tests.test_gpu_kernels import model_of
from foldfuse.kernels.request import Request
from foldfuse.runtime import fused
for strategy in ("streamed", "cooperative"):
    with fused.requested(Request(target=fused.target_of(torch.device("cuda")).name, force=strategy)):
        model_of(64)(torch.randn(4, 9, 32, device="cuda")).sum().backward()
torch.cuda.synchronize()
"""


@pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="compute-sanitizer is not installed")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_the_sanitizer_finds_nothing(tool):
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", RACES]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stdout[-4000:]
