"""A compiled model under torch's transforms: `torch.func`, `torch.compile`, `opcheck`."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call, grad, jacrev, jvp, vjp, vmap
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import foldfuse as ff
from foldfuse.runtime import operators
from foldfuse.runtime.module import program_text

from .test_module import D, data, model, relative


def parameters(m):
    return {name: p.detach() for name, p in m.named_parameters()}


def loss(m, entry="all"):
    """The loss of one example as a function of the parameters."""

    def of(values, x):
        out = functional_call(m, values, (x[None],), {"entry": entry})[0]
        return (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)).sum()

    return of


def test_functional_call():
    m, other = model(0), model(1)
    out = functional_call(m, parameters(other), (data(),))
    assert torch.equal(out, other(data())) and not torch.equal(out, m(data()))


@pytest.mark.parametrize("entry", ["all", "last"])
def test_per_sample_gradients(entry):
    m = model()
    x = data(3, 4)
    wanted = list(m.parameters())
    found = vmap(grad(loss(m, entry)), in_dims=(None, 0))(parameters(m), x)
    for i, example in enumerate(x):
        expected = torch.autograd.grad(loss(m, entry)(dict(m.named_parameters()), example), wanted, allow_unused=True)
        for (name, _), value in zip(m.named_parameters(), expected):
            if value is None:
                assert (found[name][i] == 0).all()
            else:
                assert relative(found[name][i], value) <= 1e-5


def test_per_sample_gradients_with_dropout():
    m = ff.compile(ff.map(ff.dense(2, name="a") >> ff.dropout(0.5)), ff.Seq(ff.f32[D]))
    of = lambda values, x: functional_call(m, values, (x[None],)).sum()
    found = vmap(grad(of), in_dims=(None, 0), randomness="different")(parameters(m), torch.ones(8, 50, D))["a.bias"]
    # Each kept element counts twice, and the examples drop different ones.
    assert (found % 2 == 0).all() and 30 < found.mean() < 70 and len(found.unique()) > 2


def test_ensembles_of_parameters():
    models = [model(i) for i in range(3)]
    stacked = {name: torch.stack([parameters(m)[name] for m in models]) for name in parameters(models[0])}
    out = vmap(lambda values, x: functional_call(models[0], values, (x,)), in_dims=(0, None))(stacked, data())
    for found, m in zip(out, models):
        assert relative(found, m(data())) <= 1e-6


def test_reverse_mode_transforms_nest():
    m = model().double()
    x = data(1, 3, dtype=torch.float64)[0]
    of_input = lambda x: loss(m)(parameters(m), x)
    (found,) = vjp(of_input, x)[1](torch.ones((), dtype=torch.float64))
    assert relative(found, grad(of_input)(x)) <= 1e-12
    hessian = jacrev(jacrev(of_input))(x)
    expected = torch.autograd.functional.hessian(
        lambda x: (m.eager(x[None])[0] * torch.linspace(-1, 1, 15, dtype=x.dtype).reshape(3, 5)).sum(), x
    )
    assert relative(hessian, expected) <= 1e-10


def test_forward_mode_is_refused_by_name():
    m = model()
    with pytest.raises(ff.DerivativeError, match="foldfuse has no forward-mode derivatives"):
        jvp(lambda x: m(x), (data(),), (data(),))


# ---------------------------------------------------------------- torch.compile
@pytest.fixture(autouse=True)
def fresh_dynamo():
    """Code compiled in one test does not count as compiled again in the next."""
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("backend, entry", [("eager", "last"), ("aot_eager", "all")])
def test_compiled_whole(backend, entry):
    m = model()
    compiled = torch.compile(m, backend=backend, fullgraph=True)
    for shape in ((4, 6), (2, 3)):
        x, same_x = data(*shape).requires_grad_(), data(*shape).requires_grad_()
        out, expected = compiled(x, entry=entry), m(same_x, entry=entry)
        assert torch.equal(out, expected)
        found = torch.autograd.grad(out.square().sum(), [x, m.W, m.U, m.b])
        for left, right in zip(found, torch.autograd.grad(expected.square().sum(), [same_x, m.W, m.U, m.b])):
            assert relative(left, right) <= 1e-6


def test_a_module_with_a_model_compiles():
    class Whole(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encode, self.head = model(), torch.nn.Linear(5, 2)

        def forward(self, x):
            return torch.tanh(self.head(self.encode(x * 2)))

    whole = Whole()
    compiled = torch.compile(whole, backend="aot_eager", fullgraph=True)
    optimizer = torch.optim.SGD(whole.parameters(), 0.1)
    for _ in range(3):
        x = data()
        out = compiled(x)
        assert relative(out, whole(x)) <= 1e-6
        optimizer.zero_grad()
        out.sum().backward()
        optimizer.step()


@pytest.mark.parametrize("backend, form", [("aot_eager", "ragged"), ("aot_eager", "packed"), ("eager", "jagged")])
def test_compiled_lists(backend, form):
    m = model()
    rows = [data(1, n, seed=n)[0] for n in (6, 4, 2)]
    if form == "ragged":
        given = ff.ragged(rows)
        leaf, run = given.data, lambda x: m(ff.Ragged(x, given.lengths)).data
    elif form == "packed":
        given = pack_sequence(rows)
        leaf, run = given.data, lambda x: m(PackedSequence(x, given.batch_sizes)).data
    else:
        leaf, offsets = torch.cat(rows), torch.tensor([0, 6, 10, 12])
        run = lambda x: m(torch.nested.nested_tensor_from_jagged(x, offsets, min_seqlen=2, max_seqlen=6)).values()
    compiled = torch.compile(run, backend=backend, fullgraph=True)
    found, expected = leaf.clone().requires_grad_(), leaf.clone().requires_grad_()
    left, right = compiled(found), run(expected)
    assert torch.equal(left, right)
    left.square().sum().backward()
    right.square().sum().backward()
    assert relative(found.grad, expected.grad) <= 1e-6


def test_randomness_under_compile():
    m = ff.compile(ff.map(ff.dropout(0.5)), ff.Seq(ff.f32[D]))
    compiled = torch.compile(lambda x: m(x), backend="aot_eager", fullgraph=True)
    x = torch.ones(4, 6, D)
    torch.manual_seed(0)
    first, second = compiled(x), compiled(x)
    assert not torch.equal(first, second)
    seeded = torch.compile(lambda x, seed: m(x, seed=seed), backend="aot_eager", fullgraph=True)
    assert torch.equal(seeded(x, torch.tensor(3)), m(x, seed=3))


def test_modes_autocast_and_changed_parameters_under_compile():
    m = ff.compile(ff.map(ff.dense(2, name="a") >> ff.dropout(0.5)), ff.Seq(ff.f32[D]))
    compiled = torch.compile(m, backend="aot_eager", fullgraph=True)
    x = data()
    assert (compiled(x) == 0).any()
    m.eval()
    assert torch.equal(compiled(x), m(x)) and not (compiled(x) == 0).any()
    with torch.no_grad():
        m.get_parameter("a.weight").add_(1.0)
    assert torch.equal(compiled(x), m(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compiled(x), m(x))


# ---------------------------------------------------------------- the operator
@pytest.mark.parametrize("entry", ["all", "last"])
def test_opcheck(entry):
    m = model()
    text = program_text(m, entry, True, "f32", "", False)
    held = [m.get_parameter(name).detach() for name in m._entries[entry].parameters[True]]
    for table in (None, torch.tensor([6, 3, 0, 1])):
        arguments = ([*held, data()], [None, table], [], text)
        torch.library.opcheck(operators.evaluate, arguments)
