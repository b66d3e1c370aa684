"""A compiled model as a torch module: precision, state, copies and saved forms, lists in and out, hooks, optimisers."""

from __future__ import annotations

import copy
import io
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils import _pytree as pytree

import foldfuse as ff

D, H = 3, 5


def lstm(n, d):
    W, U, b = ff.param((d, 4 * n), "W"), ff.param((n, 4 * n), "U"), ff.param((4 * n,), "b")

    def step(carry, x):
        h, c = carry
        i, f, g, o = ff.chunk(x @ W + h @ U + b, 4)
        c = ff.sigmoid(f) * c + ff.sigmoid(i) * ff.tanh(g)
        h = ff.sigmoid(o) * ff.tanh(c)
        return (h, c), h

    return step


def model(seed=0):
    """Two entry points with one LSTM."""
    torch.manual_seed(seed)
    step, init = lstm(H, D), (ff.zeros(H), ff.zeros(H))
    last = ff.fold(step, init=init) >> (lambda c: c[0]) >> ff.dense(2, name="out")
    return ff.compile({"all": (ff.scan(step, init=init), ff.Seq(ff.f32[D])), "last": (last, ff.Seq(ff.f32[D]))})


def data(batch=4, time=6, seed=1, dtype=torch.float32):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((batch, time, D))).to(dtype)


def gradients(m, x, entry="all", loss=lambda y: (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum()):
    """The loss's gradients by name, and by the input."""
    x = x.detach().requires_grad_()
    wanted = dict(m.named_parameters())
    found = torch.autograd.grad(loss(m(x, entry=entry).double()), [*wanted.values(), x], allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip([*wanted.items(), ("x", x)], found)}


def relative(found, expected):
    found, expected = found.detach().double(), expected.detach().double()
    return ((found - expected).norm() / expected.norm()).item()


def same(found, expected, tolerance=0.0):
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert relative(found[name], value) <= tolerance or torch.equal(found[name], value), name


# ---------------------------------------------------------------- precision
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_other_precisions(dtype):
    wide, other = model(), model().to(dtype)
    tolerance = 1e-6 if dtype == torch.float64 else 1e-2
    assert all(p.dtype == dtype for p in other.parameters())
    out = other(data(dtype=dtype))
    assert out.dtype == dtype and relative(out, wide(data())) <= tolerance
    assert relative(other.eager(data(dtype=dtype)), out) <= tolerance
    assert relative(torch.as_tensor(other.reference(data())), out) <= tolerance
    found, expected = gradients(other, data(dtype=dtype)), gradients(wide, data())
    for name, value in expected.items():
        assert found[name].dtype == dtype
        if value.norm():
            assert relative(found[name], value) <= 2 * tolerance, name
    # There and back: the same program again.
    assert relative(other.float()(data()), wide(data())) <= tolerance


def test_a_model_declared_in_double_changes_too():
    torch.manual_seed(0)
    program = ff.map(ff.dense(4, name="a") >> ff.tanh) >> ff.sum
    declared = ff.compile(program, ff.Seq(ff.f64[D]))
    x = data(dtype=torch.float64)
    expected = declared(x)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 1e-2), (torch.float64, 1e-2)):
        out = declared.to(dtype)(x.to(dtype))
        assert out.dtype == dtype and relative(out, expected) <= tolerance


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_carries_stay_accurate_in_half_precision(dtype):
    slow = ff.compile(ff.fold(lambda h, x: h + 0.001 * (x - h), init=ff.zeros(1)), ff.Seq(ff.f32[1]))
    out = slow(torch.ones(2, 5000, 1, dtype=dtype))
    assert out.dtype == dtype and abs(out.float() - 0.9933).max() < 0.005


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(dtype):
    m = model()
    expected, wanted = m(data()), gradients(m, data())
    with torch.autocast("cpu", dtype):
        out = m(data())
        found = gradients(m, data())
        mixed = m(data(dtype=dtype))
    # Contractions round their operands: the result differs, a little.
    assert 0 < relative(out, expected) <= 1e-2
    assert relative(mixed, expected) <= 2e-2
    for name, value in wanted.items():
        assert found[name].dtype == torch.float32
        if value.norm():
            assert relative(found[name], value) <= 2e-2, name
    assert torch.equal(m(data()), expected)
    with torch.autocast("cpu", dtype, enabled=False):
        assert torch.equal(m(data()), expected)


def test_to_a_device():
    m = model().to("cpu")
    assert m(data()).device.type == "cpu"
    shapes = model().to("meta")
    assert shapes(data().to("meta")).shape == (4, 6, H) and shapes.W.device.type == "meta"
    if torch.cuda.is_available():
        assert relative(m.cuda()(data().cuda()).cpu(), model()(data())) <= 1e-5


# ---------------------------------------------------------------- state and copies
def test_state_dict():
    m, other = model(0), model(1)
    assert set(m.state_dict()) == {"W", "U", "b", "out.weight", "out.bias"}
    assert not torch.equal(m(data()), other(data()))
    assert not any(other.load_state_dict(m.state_dict()))
    assert torch.equal(m(data()), other(data())) and torch.equal(m(data(), entry="last"), other(data(), entry="last"))
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({"W": m.W})


def test_deepcopy():
    m = model()
    twin = copy.deepcopy(m)
    same(gradients(twin, data()), gradients(m, data()))
    expected = m(data())
    with torch.no_grad():
        twin.W.zero_()
    assert torch.equal(m(data()), expected) and not torch.equal(twin(data()), expected)
    assert relative(copy.deepcopy(m).double()(data().double()), expected) <= 1e-6


def round_trip(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


class Pair(NamedTuple):
    left: object
    right: object


def entries_of_every_kind():
    """Programs that a saved model has to carry, with the arguments of a call."""
    vector, numbers = torch.randn(2, 3), torch.randn(2, 4)
    layer = ff.dense(3, name="layer")
    forest = [(torch.ones(3), [(torch.zeros(3), []), (torch.ones(3), [])]), (torch.ones(3), [])]
    kinds = ff.Tree(ff.f32[3], kinds=("leaf", "inner"))
    steps = {"leaf": lambda x, _: ff.tanh(x), "inner": lambda x, kids: x + ff.sum(kids)}
    kinded = [(("inner", torch.ones(3)), [(("leaf", torch.zeros(3)), [])])] * 2
    grown = ff.unfold(lambda s: (s - 1, s), until=lambda y: y == 0, max_length=5)
    return {
        "array": ((lambda x: layer(x) + 1, ff.f32[3]), (vector,)),
        "list": ((ff.map(lambda x: x * 2) >> ff.sum, ff.Seq(ff.f32)), (numbers,)),
        "nested": ((ff.map(ff.sum), ff.Seq(ff.Seq(ff.f32))), (torch.randn(2, 3, 4),)),
        "grid": ((ff.conv(2, (2, 2), name="conv"), ff.Grid(ff.f32[3], 2)), (torch.randn(2, 4, 5, 3),)),
        "tree": ((ff.cata(lambda x, kids: layer(x) + ff.sum(kids)), ff.Tree(ff.f32[3])), (forest,)),
        "every": ((ff.cata(lambda x, kids: x + ff.sum(kids), every=True), ff.Tree(ff.f32[3])), (forest,)),
        "kinds": ((ff.cata(steps), kinds), (kinded,)),
        "namedtuple": (
            (lambda p: Pair(p.right, {"sum": p.left + p.right}), Pair(ff.f32[3], ff.f32[3])),
            (Pair(vector, vector),),
        ),
        "dict": ((lambda d: d["a"] * d["b"], {"a": ff.f32[3], "b": ff.f32}), ({"a": vector, "b": numbers[:, 0]},)),
        "rep": ((ff.tanh, ff.Rep("Named", ff.f32[3])), (vector,)),
        "grown": ((grown, ff.i64), (torch.tensor([2, 9]),)),
        "dropout": ((ff.map(ff.dropout(0.5)), ff.Seq(ff.f32)), (numbers,)),
        "tap": ((lambda x: ff.tap(x * 2, "twice") + 1, ff.f32[3]), (vector,)),
    }


def flat(value):
    if isinstance(value, ff.Ragged):
        return [row for row in value.unpad()]
    if isinstance(value, torch.Tensor):
        return [value]
    return [leaf for part in (value.values() if isinstance(value, dict) else value) for leaf in flat(part)]


@pytest.mark.parametrize("copied", [copy.deepcopy, round_trip], ids=["deepcopy", "save"])
def test_every_kind_of_entry_is_saved(copied):
    torch.manual_seed(0)
    kinds = entries_of_every_kind()
    m = ff.compile({name: program for name, (program, _) in kinds.items()})
    twin = copied(m)
    assert twin.signature == m.signature and twin.entries == m.entries
    for training in (True, False):
        for double in (False, True):
            m.train(training).to(torch.float64 if double else torch.float32)
            twin.train(training).to(torch.float64 if double else torch.float32)
            for name, (_, arguments) in kinds.items():
                if double and name in ("tree", "every", "kinds"):
                    continue
                if double:
                    arguments = pytree.tree_map(lambda x: x.double() if x.is_floating_point() else x, arguments)
                found, expected = (flat(each(*arguments, entry=name, seed=3)) for each in (twin, m))
                assert len(found) == len(expected) and all(map(torch.equal, found, expected)), name
                assert type(twin(*arguments, entry=name)) is type(m(*arguments, entry=name))
    assert torch.equal(*(each.record(kinds["tap"][1][0].double(), entry="tap")["twice"] for each in (m, twin)))
    assert twin.explain("list") == m.explain("list") and twin.code("tree") == m.code("tree")
    reference = [each.reference(kinds["grid"][1][0].double(), entry="grid") for each in (m, twin)]
    assert np.array_equal(*reference)


def test_a_saved_model_runs_in_another_process(tmp_path):
    m = model()
    torch.save(m, tmp_path / "model.pt")
    x = data()
    torch.save((x, m(x), gradients(m, x)), tmp_path / "data.pt")
    script = tmp_path / "use.py"
    script.write_text(
        "import sys, torch\n"
        "x, expected, wanted = torch.load(sys.argv[2])\n"
        "m = torch.load(sys.argv[1], weights_only=False)\n"
        "out = m(x)\n"
        "assert torch.equal(out, expected)\n"
        "(out * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).double().sum().backward()\n"
        "for name, p in m.named_parameters():\n"
        "    assert p.grad is None or torch.allclose(p.grad, wanted[name], atol=1e-6)\n"
        "assert m(x, entry='last').shape == (4, 2)\n"
    )
    root = str(Path(ff.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(script), str(tmp_path / "model.pt"), str(tmp_path / "data.pt")]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- as part of a larger model
def test_parameters_shared_between_two_models():
    first, second = model(0), model(1)
    second.W = first.W
    total = first(data()).sum() + second(data()).sum()
    (found,) = torch.autograd.grad(total, [first.W])
    alone = [torch.autograd.grad(m(data()).sum(), [m.W])[0] for m in (first, second)]
    assert relative(found, alone[0] + alone[1]) <= 1e-6


def test_parametrisations():
    m = model()
    expected = m(data(), entry="last")
    parametrizations.weight_norm(m.out, "weight")
    parametrizations.spectral_norm(m, "U")
    assert not torch.equal(m(data(), entry="last"), expected)
    m(data(), entry="last").sum().backward()
    assert m.out.parametrizations.weight.original1.grad.norm() > 0
    assert m.parametrizations.U.original.grad.norm() > 0
    m.eval()
    plain = model()
    plain.load_state_dict({"W": m.W, "U": m.U, "b": m.b, "out.weight": m.out.weight, "out.bias": m.out.bias})
    assert relative(m(data(), entry="last"), plain(data(), entry="last")) <= 1e-6


def test_in_a_module_of_modules():
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.encode, self.head = model(), nn.Linear(H, 2)

        def forward(self, x):
            return self.head(self.encode(x).mean(1))

    whole = Whole()
    assert "encode.out.weight" in whole.state_dict()
    optimizer = torch.optim.AdamW(whole.parameters(), lr=0.02)
    target = data(4, 1)[:, 0, :2]
    losses = []
    for _ in range(20):
        loss = ((whole(data()) - target) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(whole.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    whole.double()
    assert whole(data(dtype=torch.float64)).dtype == torch.float64


def test_hooks():
    m, seen = model(), []
    m.register_forward_pre_hook(lambda module, arguments: seen.append("before"))
    m.register_forward_hook(lambda module, arguments, output: output * 2)
    m.register_full_backward_hook(lambda module, given, taken: seen.append("back"))
    expected = model()
    x = data().requires_grad_()
    for entry in (None, "last"):
        out = m(x, entry=entry)
        assert torch.equal(out, 2 * expected(x, entry=entry))
        out.sum().backward()
    assert seen == ["before", "back"] * 2
    m.W.register_post_accumulate_grad_hook(lambda p: seen.append("W"))
    m(x).sum().backward()
    assert "W" in seen


def test_gradients_accumulate():
    m = model()
    first, second = data(2, 6), data(3, 6, seed=2)
    for part in (first, second):
        m(part).sum().backward()
    found = m.W.grad.clone()
    m.zero_grad()
    m(torch.cat((first, second))).sum().backward()
    assert relative(found, m.W.grad) <= 1e-6


def test_frozen_parameters():
    m = model()
    expected = gradients(m, data())
    m.U.requires_grad_(False)
    out = m(data())
    (out.double() * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum().backward()
    assert m.U.grad is None and relative(m.W.grad, expected["W"]) <= 1e-6
    m.requires_grad_(False)
    assert not m(data()).requires_grad
    assert m(data().requires_grad_()).requires_grad


def test_without_gradients():
    m = model()
    expected = m(data())
    assert expected.requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            out = m(data())
            assert not out.requires_grad and torch.equal(out, expected)


def test_second_derivatives():
    m = model().double()
    x = data(2, 3, dtype=torch.float64).requires_grad_()
    found, expected = [], []
    for run, curvature in ((m, found), (m.eager, expected)):
        (first,) = torch.autograd.grad(run(x).sum() + run(x, entry="last").sum(), x, create_graph=True)
        curvature += torch.autograd.grad(first.norm(), [x, m.W, m.U, m.b, m.get_parameter("out.weight")])
    for left, right in zip(found, expected):
        assert relative(left, right) <= 1e-10


def test_two_threads():
    m = model().eval()
    inputs = [data(3, 4 + i, seed=i) for i in range(8)]
    expected = [gradients(m, x) for x in inputs]
    found = [None] * len(inputs)
    fresh = copy.deepcopy(m)
    barrier = threading.Barrier(4)

    def work(k):
        barrier.wait()
        for i in range(k, len(inputs), 4):
            found[i] = gradients(fresh, inputs[i])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for got, want in zip(found, expected):
        same(got, want, 1e-6)


def test_distributed_data_parallel(tmp_path):
    import torch.distributed as distributed
    from torch.nn.parallel import DistributedDataParallel

    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        m = model()
        parallel = DistributedDataParallel(m, find_unused_parameters=True)
        out = parallel(data())
        out.sum().backward()
        expected = torch.autograd.grad(m(data()).sum(), [m.W])[0]
        assert relative(m.W.grad, expected) <= 1e-6
        parallel.zero_grad()
        parallel(data(), entry="last").sum().backward()
        assert m.get_parameter("out.weight").grad is not None
    finally:
        distributed.destroy_process_group()
