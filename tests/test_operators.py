"""The operator and its autograd function: values, derivatives of every order, `torch.func`, `torch.compile`,
`torch.export`, and what is refused."""

from __future__ import annotations

import io
import shutil
import threading
from collections import OrderedDict
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo.testing
import torch.autograd.forward_ad as forward_ad
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vjp, vmap
from torch.library import opcheck

import foldfuse as ff
from foldfuse.compiler.builder import Builder
from foldfuse.compiler.errors import DerivativeError, DeviceError, ShapeError, SizeError
from foldfuse.compiler.ir import Graph, SizeDeclaration
from foldfuse.compiler.pipeline import normalise
from foldfuse.compiler.precision import with_precision
from foldfuse.compiler.program import trace_entry
from foldfuse.compiler.records import RECORDS
from foldfuse.compiler.sizes import Named
from foldfuse.compiler.text import parse, show
from foldfuse.compiler.types import array, f64
from foldfuse.runtime import eager, executable, operators
from foldfuse.runtime.autograd import evaluate
from foldfuse.runtime.recording import record

from .eager_programs import PROGRAMS as LIST_PROGRAMS
from .eager_tree_programs import TREE_PROGRAMS
from .test_eager import call

PROGRAMS = {**LIST_PROGRAMS, **TREE_PROGRAMS}
close = torch.testing.assert_close


class Case:
    """A program with one call of it."""

    def __init__(self, graph: Graph, inputs: list[torch.Tensor], tables: dict[str, torch.Tensor]):
        self.graph, self.text, self.inputs = graph, show(graph), inputs
        self.names = [d.name for d in graph.sizes if d.input is None]
        self.lengths = tables
        self.tables = [tables.get(name) for name in self.names]
        self.floats = [i for i, x in enumerate(inputs) if x.is_floating_point()]

    def own(self, *floats: torch.Tensor, memory: str = "auto", **lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        tables = [lengths.get(name, table) for name, table in zip(self.names, self.tables, strict=True)]
        return evaluate(self.text, self._filled(floats), tables, memory)

    def plain(self, *floats: torch.Tensor, **lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The same by torch's own autograd through the evaluator."""
        return tuple(eager.run(self.graph, self._filled(floats), {**self.lengths, **lengths}))

    def _filled(self, floats: Any) -> list[torch.Tensor]:
        inputs = list(self.inputs)
        for i, value in zip(self.floats, floats, strict=True):
            inputs[i] = value
        return inputs

    def leaves(self) -> list[torch.Tensor]:
        return [self.inputs[i].detach().clone().requires_grad_() for i in self.floats]


def hand_built(name: str) -> Case:
    program = PROGRAMS[name](np.random.default_rng(0))
    inputs, tables = call(program)
    return Case(program.graph, inputs, {n: t for n, t in tables.items() if isinstance(t, torch.Tensor)})


def traced(function: Any, *types: Any, sizes: dict[str, int], ragged: dict[str, Any] | None = None) -> Case:
    """A program in float64, drawn inputs, padding as zeros; integers are below 3."""
    graph = with_precision(trace_entry("main", function, types).graph, f64)
    generator = torch.Generator().manual_seed(1)
    inputs = []
    for value in graph.body.parameters:
        shape = (*(axis.evaluate(sizes.__getitem__) for axis in value.type.axes), *value.type.shape)
        if value.type.dtype.is_float:
            inputs.append(0.5 * torch.randn(shape, dtype=torch.float64, generator=generator))
        else:
            inputs.append(torch.randint(0, 3, shape, generator=generator))
    return Case(graph, inputs, {name: torch.tensor(t) for name, t in (ragged or {}).items()})


def elman(n: int = 2, d: int = 3) -> Any:
    W, U = ff.param((d, n), "W"), ff.param((n, n), "U")
    return ff.scan(lambda h, x: ff.tanh(x @ W + h @ U), init=ff.zeros(n))


def lstm(n: int = 2, d: int = 2) -> Any:
    W, U, b = ff.param((d, 4 * n), "W"), ff.param((n, 4 * n), "U"), ff.param((4 * n,), "b")

    def step(carry: Any, x: Any) -> Any:
        h, c = carry
        i, f, g, o = ff.chunk(x @ W + h @ U + b, 4)
        c = ff.sigmoid(f) * c + ff.sigmoid(i) * ff.tanh(g)
        h = ff.sigmoid(o) * ff.tanh(c)
        return (h, c), h

    return ff.scan(step, init=(ff.zeros(n), ff.zeros(n)))


def language_model() -> Any:
    table, out, recur = ff.embedding(3, 2), ff.dense(3), elman(2, 2)

    def loss(xs: Any, ys: Any) -> Any:
        hs = recur(ff.map(table)(xs))
        return ff.sum(ff.map(lambda p: ff.cross_entropy(out(p[0]), p[1]))(ff.zip(hs, ys)))

    return loss


def rnn(ragged: Any = (4, 2, 0), batch: int = 3, time: int = 4) -> Case:
    tables = {} if ragged is None else {"T": list(ragged)}
    return traced(elman(), ff.Seq(ff.f32[3]), sizes={"B": batch, "T": time}, ragged=tables)


SMOOTH = {
    "elman": rnn,
    "elman rectangular": lambda: rnn(None),
    "lstm": lambda: traced(lstm(), ff.Seq(ff.f32[2]), sizes={"B": 2, "T": 3}, ragged={"T": [3, 1]}),
    "embedding and loss": lambda: traced(
        language_model(),
        ff.Seq(ff.i64, "T"),
        ff.Seq(ff.i64, "T"),
        sizes={"B": 2, "T": 3},
        ragged={"T": [1, 3]},
    ),
    "window": lambda: hand_built("convolution"),
    "tree": lambda: hand_built("tree"),
    "until": lambda: hand_built("unfold"),
    "segments": lambda: hand_built("segments"),
}


def clean(case: Case) -> Case:
    """Finite differences of padding are meaningless where it is poisoned: make it zeros."""
    case.inputs = [torch.nan_to_num(x, 0.0) if x.is_floating_point() else x for x in case.inputs]
    return case


def by_name(table: Any) -> Any:
    return pytest.mark.parametrize("name", list(table))


def total(outputs: Any, seed: int = 0) -> torch.Tensor | None:
    """A random linear functional of what can be differentiated."""
    generator = torch.Generator().manual_seed(seed)
    terms = [
        (torch.randn(y.shape, dtype=y.dtype, generator=generator) * y).sum()
        for y in outputs
        if y is not None and y.requires_grad
    ]
    return sum(terms) if terms else None


def derivatives(run: Any, leaves: list[torch.Tensor], order: int) -> list[Any]:
    """Outputs, and gradients of random functionals of each other, one order after the other."""
    found: list[Any] = [run(*leaves)]
    for k in range(order):
        value = total(found[-1], k)
        if value is None:
            break
        pulled = torch.autograd.grad(value, leaves, create_graph=True, allow_unused=True)
        found.append([torch.zeros_like(x) if g is None else g for g, x in zip(pulled, leaves, strict=True)])
    return found


def same_derivatives(case: Case, order: int, **options: Any) -> None:
    leaves = case.leaves()
    expected = derivatives(case.plain, leaves, order)
    found = derivatives(lambda *floats: case.own(*floats, **options), leaves, order)
    # Where nothing is left to differentiate, one of the two may say so an order earlier than the other.
    nothing = [torch.zeros_like(x) for x in leaves]
    for left, right in zip_longest(found, expected, fillvalue=nothing):
        close(list(left), list(right), rtol=1e-7, atol=1e-9)


# --- values and derivatives -------------------------------------------------------------------------------------------


@by_name(PROGRAMS)
def test_values_and_two_derivatives_are_those_of_the_evaluator(name):
    same_derivatives(hand_built(name), 2)


@pytest.mark.parametrize("memory", ["save", "recompute", "auto"])
@by_name(SMOOTH)
def test_three_derivatives_under_every_residual_choice(name, memory):
    same_derivatives(SMOOTH[name](), 3, memory=memory)


@by_name(SMOOTH)
def test_finite_differences(name):
    case = clean(SMOOTH[name]())
    leaves = case.leaves()
    smooth = lambda *floats: tuple(y for y in case.own(*floats) if y.requires_grad)
    assert torch.autograd.gradcheck(smooth, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(smooth, leaves, fast_mode=True)


@pytest.mark.parametrize("batch, time", [(0, 4), (3, 0), (0, 0), (1, 1)])
@pytest.mark.parametrize("lengths", [False, True])
def test_empty_batches_and_lists(batch, time, lengths):
    case = rnn([min(time, i) for i in range(batch)] if lengths else None, batch, time)
    if lengths:
        case.tables[1] = case.lengths["T"] = case.lengths["T"].to(torch.int64)
    same_derivatives(case, 2)


def test_strides_of_inputs_and_cotangents_do_not_matter():
    case = rnn()
    U, W, xs = (x.detach() for x in case.leaves())
    strange = [
        U.t().contiguous().t(),
        W.flip(0).flip(0)[:, [1, 0]][:, [1, 0]],
        xs.transpose(0, 1).contiguous().transpose(0, 1),
    ]
    assert not strange[2].is_contiguous()
    leaves = [x.requires_grad_() for x in strange]
    for run in (case.own, case.plain):
        run(*leaves)[0].sum().backward()
    halves = [x.grad / 2 for x in leaves]
    for leaf in leaves:
        leaf.grad = None
    (y,) = case.own(*leaves)
    y.backward(torch.ones(1, dtype=torch.float64).expand_as(y))
    close([x.grad for x in leaves], halves)


def test_only_what_requires_gradients_gets_them():
    case = traced(language_model(), ff.Seq(ff.i64, "T"), ff.Seq(ff.i64, "T"), sizes={"B": 2, "T": 3})
    leaves = case.leaves()
    for leaf in leaves[1:]:
        leaf.requires_grad_(False)
    (y,) = case.own(*leaves)
    y.sum().backward()
    expected = torch.autograd.grad(case.plain(*leaves)[0].sum(), leaves[0])[0]
    close(leaves[0].grad, expected)
    assert all(leaf.grad is None for leaf in leaves[1:])
    with torch.no_grad():
        assert not case.own(*leaves)[0].requires_grad
    with torch.inference_mode():
        close(case.own(*leaves)[0], y.detach())


@pytest.mark.parametrize("name", ["unfold", "two_layers", "segments"])
def test_any_outputs_may_have_no_cotangent(name):
    case = hand_built(name)
    leaves = case.leaves()
    for j, y in enumerate(case.own(*leaves)):
        expected = case.plain(*leaves)[j]
        assert y.requires_grad == expected.requires_grad
        if y.requires_grad:
            found = torch.autograd.grad(y.sum(), leaves, retain_graph=True, allow_unused=True)
            close(found, torch.autograd.grad(expected.sum(), leaves, allow_unused=True))


def test_a_size_that_no_input_of_the_adjoint_shows():
    """The gradient of a sum needs the extents of a list, and none of its values."""
    case = traced(lambda xs: ff.sum(xs), ff.Seq(ff.f32[2]), sizes={"B": 2, "T": 3}, ragged={"T": [3, 1]})
    same_derivatives(case, 2)
    same_derivatives(traced(lambda xs: ff.sum(xs), ff.Seq(ff.f32[2]), sizes={"B": 2, "T": 3}), 2)


def test_what_has_no_derivative_is_refused_when_a_derivative_is_asked_for(monkeypatch):
    monkeypatch.setitem(RECORDS, "tanh", replace(RECORDS["tanh"], refuses="the test says so"))
    graph = parse("graph bent { input %x: f64[3]  %y: f64[3] = tanh(%x)  output y = %y }")
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    (y,) = evaluate(show(graph), [x], [])
    close(y, torch.tanh(x))
    with pytest.raises(DerivativeError, match="the test says so"):
        y.sum().backward()
    monkeypatch.setattr(executable, "_READY", OrderedDict())


def test_an_output_that_is_a_residual_is_kept_once():
    case = rnn(None)
    recording = record(executable.executable(case.text), (True, True, True), "save")
    results = recording.program.graph.body.results
    assert len(set(results)) == len(results)
    assert set(recording.saved) & set(range(recording.outputs))


# --- the operator -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("name", ["rnn", "characters", "convolution", "unfold", "segments", "embedding", "branches"])
@pytest.mark.filterwarnings("ignore:.*an autograd kernel was not registered")
def test_opcheck(name, requires_grad):
    case = hand_built(name)
    inputs = [x.requires_grad_(requires_grad and x.is_floating_point()) for x in clean(case).inputs]
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    tests += ("test_autograd_registration",) if requires_grad else ()
    opcheck(operators.evaluate, (inputs, case.tables, [], case.text), test_utils=tests)


@pytest.mark.filterwarnings("ignore:.*an autograd kernel was not registered")
def test_opcheck_with_extents():
    case = clean(hand_built("tree"))
    assert executable.executable(case.text).hidden == ("K",)
    opcheck(operators.evaluate, (case.inputs, case.tables, [3], case.text))


def test_outputs_are_new_contiguous_tensors():
    b = Builder()
    x = b.parameter(array(f64, 2).listed(Named("B")), "x")
    (wide,) = b.map(Named("B"), [x], lambda i, v: [i.broadcast(v, (3, 2))])
    body, _ = b.close([x, x, wide, b.constant(1.5, f64, (70_000,))])
    graph = Graph("copies", body, ("x",), ("a", "b", "c", "d"), (SizeDeclaration("B"),))
    given = torch.randn(2, 2, dtype=torch.float64)
    outputs = operators.evaluate([given], [None], [], show(graph))
    close(outputs[:2], [given, given])
    storages = {t.untyped_storage().data_ptr() for t in (given, *outputs)}
    assert len(storages) == 5
    assert all(y.is_contiguous() for y in outputs)


def test_a_program_without_inputs():
    b = Builder()
    body, _ = b.close([b.constant(1.5, f64, (3,))])
    close(evaluate(show(Graph("constant", body, (), ("y",))), [], [])[0], torch.full((3,), 1.5, dtype=torch.float64))


def test_two_devices_are_refused_by_name():
    case = rnn(None)
    case.inputs[-1] = case.inputs[-1].to("meta")
    with pytest.raises(DeviceError, match=r"xs? lies|x on meta|lies on cpu.*on meta"):
        evaluate(case.text, case.inputs, case.tables)
    case = rnn()
    with pytest.raises(DeviceError, match="table of lengths of T"):
        evaluate(case.text, case.inputs, [None, case.lengths["T"].to("meta")])


def test_wrong_shapes_and_missing_extents_are_refused():
    case = rnn(None)
    with pytest.raises(ShapeError, match="the input"):
        evaluate(case.text, [*case.inputs[:-1], case.inputs[-1][..., :2]], case.tables)
    case = clean(hand_built("tree"))
    with pytest.raises(SizeError, match="K"):
        evaluate(case.text, case.inputs, [None] * len(case.tables))


def test_autocast_does_not_reach_inside():
    case = rnn()
    inputs = [x.float() for x in case.inputs]
    text = case.text.replace("f64", "f32")
    expected = evaluate(text, inputs, case.tables)
    with torch.autocast("cpu", torch.bfloat16):
        close(evaluate(text, inputs, case.tables), expected, rtol=0, atol=0)


def test_programs_are_dropped_and_read_again(monkeypatch):
    monkeypatch.setattr(executable, "LIMIT", 2)
    monkeypatch.setattr(executable, "_READY", OrderedDict())
    case = rnn()
    same_derivatives(case, 3)
    assert len(executable._READY) <= 2
    same_derivatives(case, 2)


def test_threads_share_programs():
    case, found = rnn((2, 4, 1)), []

    def work() -> None:
        leaves = case.leaves()
        found.append(derivatives(case.own, leaves, 2))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    for other in found[1:]:
        close([list(v) for v in other], [list(v) for v in found[0]])


def test_a_kept_graph_names_the_users_line():
    program = trace_entry("main", lambda x: ff.element(x, 7) if hasattr(ff, "element") else x[7], [ff.Seq(ff.f64)])
    text = executable.printed(normalise(program.graph), normal=True)
    with pytest.raises(IndexError, match="test_operators"):
        evaluate(text, [torch.zeros(1, 3, dtype=torch.float64)], [None, None])


# --- torch.func -------------------------------------------------------------------------------------------------------


def batched(case: Case, count: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    draw = lambda x: torch.randn((count, *x.shape), dtype=x.dtype, generator=generator)
    return [draw(x) for x in case.leaves()]


def square(outputs: Any) -> torch.Tensor:
    return sum((y**2).sum() for y in outputs if y.is_floating_point())


LENGTHS = torch.tensor([[4, 2, 0], [1, 3, 4]])


def stacked(results: Any) -> Any:
    return tuple(map(torch.stack, zip(*results, strict=True)))


@pytest.mark.parametrize(
    "own", [(0, 0, 0, 0), (None, None, 0, 0), (None, None, 0, None), (0, None, None, None), (None, None, None, 0)]
)
def test_vmap(own):
    case = rnn()
    wide = [*batched(case), LENGTHS]
    single = [*case.leaves(), LENGTHS[0]]
    given = [w if d == 0 else s for w, s, d in zip(wide, single, own, strict=True)]
    rows = [[g if d is None else g[k] for g, d in zip(given, own, strict=True)] for k in range(2)]
    by_lengths = lambda run: lambda *a: run(*a[:-1], T=a[-1])
    for run in (lambda f: f, lambda f: grad(lambda *a: square(f(*a)), (0, 1, 2))):
        found = vmap(run(by_lengths(case.own)), own)(*given)
        close(found, stacked(run(by_lengths(case.plain))(*row) for row in rows))


def test_vmap_over_another_axis():
    case = rnn()
    U, W, _ = case.leaves()
    xs = batched(case)[2]
    found = vmap(lambda x: case.own(U, W, x)[0], in_dims=2, out_dims=1)(xs.movedim(0, 2))
    close(found, torch.stack([case.plain(U, W, x)[0] for x in xs], 1))


@pytest.mark.parametrize(
    "name", ["unfold", "characters", "segments", "attention", "tree", "embedding", "branches", "image"]
)
def test_per_sample_gradients(name):
    case = clean(hand_built(name))
    wide = batched(case)
    places = tuple(range(len(wide)))
    found = vmap(grad(lambda *a: square(case.own(*a)), places))(*wide)
    rows = zip(*wide, strict=True)
    close(found, stacked(grad(lambda *a: square(case.plain(*a)), places)(*row) for row in rows), rtol=1e-7, atol=1e-9)


def test_vmap_inside_and_outside_of_gradients():
    case = rnn()
    U, W, xs = case.leaves()
    many = batched(case)[2]

    def penalty(run: Any, W: Any) -> Any:
        gradient = lambda x: grad(lambda w: square(run(U, w, x)))(W)
        return (vmap(gradient)(many) ** 2).sum() if run == case.own else sum((gradient(x) ** 2).sum() for x in many)

    close(grad(lambda w: penalty(case.own, w))(W), grad(lambda w: penalty(case.plain, w))(W))
    summed = lambda run: lambda w: vmap(lambda x: square(run(U, w, x)))(many).sum()
    expected = sum(torch.autograd.grad(square(case.plain(U, W, x)), W)[0] for x in many)
    close(grad(summed(case.own))(W), expected)
    close(torch.autograd.grad(summed(case.own)(W), W)[0], expected)


@pytest.mark.parametrize("name", ["unfold", "segments", "characters"])
def test_gradients_of_vmapped_lists_that_a_program_makes(name):
    case = clean(hand_built(name))
    wide = batched(case)
    places = tuple(range(len(wide)))
    slope = lambda *a: square(grad(lambda *b: square(case.own(*b)), places)(*a))
    found = [
        grad(lambda *a: vmap(lambda *b: square(case.own(*b)))(*a).sum(), places)(*wide),
        grad(lambda *a: vmap(slope)(*a).sum(), places)(*wide),
    ]
    expected: list[Any] = [[], []]
    for row in zip(*wide, strict=True):
        leaves = [x.requires_grad_() for x in row]
        first = torch.autograd.grad(square(case.plain(*leaves)), leaves, create_graph=True)
        expected[0].append([x.detach() for x in first])
        expected[1].append(torch.autograd.grad(square(first), leaves))
    close(found, [stacked(rows) for rows in expected], rtol=1e-7, atol=1e-9)


def test_nested_vmap():
    case = rnn()
    U, W, xs = case.leaves()
    wide = batched(case)
    cross = lambda f: torch.stack([torch.stack([f(u, x) for u in wide[0]]) for x in wide[2]])
    found = vmap(lambda x: vmap(lambda u: case.own(u, W, x)[0])(wide[0]))(wide[2])
    close(found, cross(lambda u, x: case.plain(u, W, x)[0]))
    slope = lambda run: lambda u, x: grad(lambda v: square(run(v, W, x)))(u)
    found = vmap(lambda x: vmap(lambda u: slope(case.own)(u, x))(wide[0]))(wide[2])
    close(found, cross(slope(case.plain)))


def test_jacobians_and_hessians():
    case = rnn((2, 1), 2, 2)
    U, W, xs = case.leaves()
    value = lambda run: lambda w: run(U, w, xs)[0]
    close(jacrev(value(case.own))(W), jacrev(value(case.plain))(W))
    close(
        jacrev(jacrev(lambda w: square(case.own(U, w, xs))))(W),
        jacrev(jacrev(lambda w: square(case.plain(U, w, xs))))(W),
    )
    _, pull = vjp(value(case.own), W)
    close(
        pull(torch.ones(2, 2, 2, dtype=torch.float64)),
        vjp(value(case.plain), W)[1](torch.ones(2, 2, 2, dtype=torch.float64)),
    )


def test_forward_mode_is_refused_by_name():
    case = rnn()
    U, W, xs = (x.detach() for x in case.leaves())
    run = lambda w: case.own(U, w, xs)[0]
    with pytest.raises(DerivativeError, match=r"foldfuse.*reverse mode"):
        jvp(run, (W,), (W,))
    with pytest.raises(DerivativeError, match="foldfuse"):
        jacfwd(run)(W)
    with pytest.raises(DerivativeError, match="foldfuse"):
        torch.func.hessian(lambda w: square(case.own(U, w, xs)))(W)
    for enabled in (False, True):
        with torch.set_grad_enabled(enabled), forward_ad.dual_level(), pytest.raises(DerivativeError, match="foldfuse"):
            run(forward_ad.make_dual(W, W))
    y = run(W.requires_grad_())
    with forward_ad.dual_level(), pytest.raises(DerivativeError, match="foldfuse"):
        torch.autograd.grad(y, W, forward_ad.make_dual(torch.ones_like(y), torch.ones_like(y)))


def test_the_old_vmap_is_refused_by_name():
    case = rnn()
    U, W, xs = case.leaves()
    y = case.own(U, W, xs)[0]
    with pytest.raises(DerivativeError, match=r"torch\.func\.vmap"):
        torch.autograd.grad(y, W, torch.ones(2, *y.shape, dtype=torch.float64), is_grads_batched=True)


# --- torch.compile and torch.export -----------------------------------------------------------------------------------


class Module(torch.nn.Module):
    """A program between ordinary operations."""

    def __init__(self, case: Case):
        super().__init__()
        self.U, self.W = (torch.nn.Parameter(x.detach().clone()) for x in case.leaves()[:2])
        self.text = case.text

    def forward(self, xs: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        (hs,) = evaluate(self.text, [self.U, self.W, xs * 2], [None, lengths])
        return (hs**2).sum() + hs[:, :1].sum()


BACKENDS = [
    "eager",
    "aot_eager",
    pytest.param("inductor", marks=pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")),
]


@pytest.fixture
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def sample(batch: int, time: int, ragged: bool = True) -> tuple[torch.Tensor, ...]:
    xs = torch.randn(batch, time, 3, dtype=torch.float64)
    return (xs, torch.randint(0, time + 1, (batch,))) if ragged else (xs,)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.usefixtures("fresh_dynamo")
def test_compile_is_exact_and_makes_one_graph_for_all_sizes(backend, ragged):
    module = Module(rnn())
    counter = torch._dynamo.testing.CompileCounterWithBackend(backend)
    compiled = torch.compile(module, fullgraph=True, backend=counter)
    for batch, time in ((5, 6), (2, 9), (7, 3), (8, 8)):
        arguments = sample(batch, time, ragged)
        for x in arguments:
            for axis in range(min(x.dim(), 2)):
                torch._dynamo.mark_dynamic(x, axis)
        xs = arguments[0].requires_grad_()
        inputs = (module.U, module.W, xs)
        expected, found = module(*arguments), compiled(*arguments)
        close(found, expected)
        close(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs))
    assert counter.frame_count == 1
    with torch.no_grad():
        close(compiled(*arguments), expected.detach())
    assert counter.frame_count == 2


@pytest.mark.usefixtures("fresh_dynamo")
def test_second_derivatives_under_compile():
    module = Module(rnn())
    arguments = sample(3, 4)
    xs = arguments[0].requires_grad_()

    def second(run: Any) -> Any:
        (slope,) = torch.autograd.grad(run(*arguments), xs, create_graph=True)
        return torch.autograd.grad((slope**2).sum(), (module.U, module.W, xs))

    close(second(torch.compile(module, fullgraph=True, backend="eager")), second(module))
    with pytest.raises(RuntimeError, match="double backward"):
        second(torch.compile(module, fullgraph=True, backend="aot_eager"))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.usefixtures("fresh_dynamo")
def test_per_sample_gradients_under_compile(backend):
    case = rnn()
    U, W, _ = (x.detach() for x in case.leaves())
    many = batched(case)[2]
    run = lambda xs, lengths: vmap(grad(lambda w, x, t: square(case.own(U, w, x, T=t))), (None, 0, 0))(W, xs, lengths)
    close(torch.compile(run, fullgraph=True, backend=backend)(many, LENGTHS), run(many, LENGTHS))


@pytest.mark.parametrize("name", ["unfold", "unfold_unbounded", "segments", "characters", "convolution"])
@pytest.mark.usefixtures("fresh_dynamo")
def test_lists_of_other_sizes_under_compile(name):
    case = clean(hand_built(name))
    run = lambda *floats: square(case.own(*floats))
    leaves = case.leaves()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager", dynamic=True)
    found, expected = compiled(*leaves), run(*leaves)
    close(found, expected)
    close(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves))


@pytest.mark.usefixtures("fresh_dynamo")
def test_trees_under_compile():
    case = clean(hand_built("tree"))
    leaves = case.leaves()

    def run(arity: int, *floats: torch.Tensor) -> torch.Tensor:
        return square(evaluate(case.text, case._filled(floats), case.tables, extents={"K": arity}))

    arity = int(case.lengths["K"].max())
    found = torch.compile(run, fullgraph=True, backend="aot_eager")(arity, *leaves)
    expected = square(case.own(*leaves))
    close(found, expected)
    close(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.usefixtures("fresh_dynamo")
def test_export(strict):
    module = Module(rnn())
    batch, time = torch.export.Dim("batch", min=2), torch.export.Dim("time", min=2)
    shapes = {"xs": {0: batch, 1: time}, "lengths": {0: batch}}
    program = torch.export.export(module, sample(3, 4), dynamic_shapes=shapes, strict=strict)
    calls = [n for n in program.graph.nodes if n.target is operators.evaluate]
    assert len(calls) == 1 and len(calls[0].users) == 1, "an exported program has no use for residuals"
    saved = io.BytesIO()
    torch.export.save(program, saved)
    saved.seek(0)
    arguments = sample(5, 7)
    close(torch.export.load(saved).module()(*arguments), module(*arguments))


def test_functional_call():
    module = Module(rnn())
    parameters = dict(module.named_parameters())
    loss = lambda p, *arguments: functional_call(module, p, arguments)
    arguments = sample(3, 4)
    expected = torch.autograd.grad(module(*arguments), list(parameters.values()))
    close(list(grad(loss)(parameters, *arguments).values()), list(expected))
