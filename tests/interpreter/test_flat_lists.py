"""Packed and jagged lists on generated kernels: they are never padded, and nothing that they give differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate, cycle, pairwise
from typing import Any
from unittest import mock

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import foldfuse as ff
from foldfuse.kernels.request import Request
from foldfuse.runtime import fused
from foldfuse.runtime.executable import Executable

from .. import harness
from ..programs import PROGRAMS, Program
from .kernel_harness import (
    STRATEGIES,
    Trace,
    attention_decoder,
    instruments,
    model_of,
    named,
    second_derivatives,
    shortened,
    traced,
)
from .offsets import narrow_products

FORMS = ("packed", "jagged")
REQUESTS = {
    "resident": Request(force="resident"),
    "streamed": Request(force="streamed", block=4),
    "cooperative": Request(force="cooperative", block=2),
}

# --- lists in and out -------------------------------------------------------------------------------------------------


def in_form(form: str, rows: list[torch.Tensor]) -> Any:
    """Rows as one packed or jagged list."""
    if form == "packed":
        return pack_sequence(rows, enforce_sorted=False)
    if form == "sorted":
        return pack_sequence(rows)
    offsets = torch.tensor([0, *accumulate(map(len, rows))])
    return torch.nested.nested_tensor_from_jagged(torch.cat(rows), offsets)


def argument(port: Any, rows: list[Any], form: str) -> Any:
    """One argument of a call from its value in each example: lists of arrays in a form, others as elsewhere."""
    if port.kind == "product" or (port.kind == "list" and port.parts[0].kind == "product"):
        model = port.product if port.kind == "product" else port.parts[0].product
        parts = port.parts if port.kind == "product" else [replace(port, parts=(p,)) for p in port.parts[0].parts]
        keys = list(model) if isinstance(model, Mapping) else range(len(parts))
        made = [argument(part, [row[key] for row in rows], form) for part, key in zip(parts, keys)]
        return dict(zip(keys, made)) if isinstance(model, Mapping) else tuple(made)
    if port.kind == "list" and not port.grid and all(isinstance(row, torch.Tensor) for row in rows):
        return in_form(form, rows)
    return harness.batched(port, rows, True)


def rows_of(output: Any, count: int) -> list[list[torch.Tensor]]:
    """The leaves of a result, example by example."""
    if isinstance(output, PackedSequence):
        padded, lengths = torch.nn.utils.rnn.pad_packed_sequence(output, batch_first=True)
        return [[row[:n]] for row, n in zip(padded, lengths)]
    if isinstance(output, torch.Tensor) and output.is_nested:
        return [[row] for row in output.values().split(output.offsets().diff().tolist())]
    if isinstance(output, (torch.Tensor, ff.Ragged)):
        return harness.rows_of(output, count)
    parts = list(output.values()) if isinstance(output, Mapping) else list(output)
    columns = [rows_of(part, count) for part in parts]
    return [[leaf for column in columns for leaf in column[i]] for i in range(count)]


def examples(program: Program, form: str, lengths: tuple[int, ...] = ()) -> list[tuple]:
    """A batch of every length; a packed list has no rows without elements."""
    lengths = tuple(n for n in lengths or program.lengths if n or form == "jagged")
    return harness.examples(replace(program, lengths=lengths), True)


def outcome(program: Program, model: ff.Model, batch: list[tuple], form: str) -> harness.Run:
    """Values and gradients of a program whose lists come in a form."""
    ports = model._entry(program.entry).evaluation.inputs
    given = [argument(port, [example[i] for example in batch], form) for i, port in enumerate(ports)]
    output = model(*given, entry=program.entry, seed=1)
    return harness.differentiated(rows_of(output, len(batch)), dict(model.named_parameters()), batch)


def agrees(
    program: Program,
    form: str,
    request: Request | None = None,
    lengths: tuple[int, ...] = (),
    memory: str = "auto",
) -> Trace:
    """Assert that a program gives what its plain counterpart gives, under all instruments.

    Returns:
        What ran.
    """
    batch, model = examples(program, form, lengths), model_of(program, memory)
    with fused.requested(request or Request()), traced() as trace, instruments(program.name):
        found = outcome(program, model, batch, form)
    harness.compare(found, harness.plain_run(program, batch))
    for kernel in (kernel for kernel in trace.kernels if not kernel.cooperative):
        assert not narrow_products(kernel), f"{kernel.name} multiplies in 32 bits: {narrow_products(kernel)}"
    return trace


def flat_sizes(trace: Trace) -> set[str]:
    """The sizes whose lists ran without padding, in all programs alike."""
    (found,) = {frozenset(graph.program.flat) for graph in trace.graphs}
    return set(found)


# --- recurrences ------------------------------------------------------------------------------------------------------

by_form = pytest.mark.parametrize("form", FORMS)
RECURRENCES = [shortened(program) for program in PROGRAMS if program.family == "recurrences"]
CHOSEN = [
    shortened(named("recurrences.lstm.scan")),
    shortened(named("recurrences.gru_first.fold.reverse")),
    shortened(named("recurrences.layer_norm_lstm.scan")),
    named("face.tagger"),
    attention_decoder(5),
]


def identified(programs: list[Program]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("program", programs, ids=lambda program: program.name)


@by_form
@pytest.mark.parametrize("strategy", STRATEGIES)
@identified(CHOSEN)
def test_under_each_strategy(program: Program, strategy: str, form: str) -> None:
    trace = agrees(program, form, REQUESTS[strategy])
    assert flat_sizes(trace) and not trace.evaluated


CORPUS = [p for p in PROGRAMS if p.ragged and p.family in ("recurrences", "nestings", "face", "windows")]


@pytest.mark.parametrize(
    ("program", "form"), list(zip(CORPUS, cycle(FORMS))), ids=lambda x: x if isinstance(x, str) else x.name
)
def test_the_corpus(program: Program, form: str) -> None:
    agrees(shortened(program), form)


@by_form
@pytest.mark.parametrize("memory", ["save", "recompute"])
@identified(CHOSEN[:2])
def test_segments(program: Program, memory: str, form: str) -> None:
    """Carries that are kept per segment are lists of another size, which is padded."""
    assert flat_sizes(agrees(program, form, memory=memory, lengths=(0, 1, 34)))


@by_form
def test_contractions_as_kernels(form: str) -> None:
    agrees(CHOSEN[0], form, Request(vendor=False))


# Torch itself differentiates what makes a nested tensor only once.
@pytest.mark.parametrize("form", ["packed"])
def test_second_derivatives(form: str) -> None:
    program = replace(CHOSEN[0], lengths=(1, 3))
    model, batch = model_of(program), examples(program, form)
    ports = model._entry(program.entry).evaluation.inputs
    sources = [*model.parameters(), *(row for row, in batch)]

    def pulled(given: Any) -> list[torch.Tensor]:
        outputs = [y for row in rows_of(model(given), len(batch)) for y in row]
        return second_derivatives(outputs, sources)

    with traced() as trace:
        found = pulled(argument(ports[0], [row for row, in batch], form))
    assert flat_sizes(trace) == {"T"}
    for x, y in zip(found, pulled(ff.ragged([row for row, in batch])), strict=True):
        assert harness.error(x, y) <= 1e-8


# --- memory -----------------------------------------------------------------------------------------------------------

ROWS, LONGEST = 7, 11
LENGTHS = (11, 1, 2, 1, 3, 1, 1)


class Shapes(TorchDispatchMode):
    """Notes the shape of whatever torch makes."""

    def __init__(self, found: set[tuple[int, ...]]):
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **kwargs or {})
        self.found.update(tuple(x.shape) for x in pytree.tree_leaves(out) if isinstance(x, torch.Tensor))
        return out


def padded(shape: tuple[int, ...]) -> bool:
    """Whether a tensor has room for every place of every row."""
    sides = {(ROWS, LONGEST), (LONGEST, ROWS)}
    return ROWS * LONGEST in shape or any(pair in sides for pair in pairwise(shape))


def shapes_of_a_call(program: Program, form: str) -> tuple[set[tuple[int, ...]], Trace]:
    """The shapes of all tensors that torch makes in a forward and a backward pass, and of what kernels are given."""
    found: set[tuple[int, ...]] = set()
    batch, model = examples(program, form, LENGTHS), model_of(program)
    ports = model._entry(program.entry).evaluation.inputs
    with torch.no_grad():
        given = [argument(port, [example[i] for example in batch], form) for i, port in enumerate(ports)]
    for values in (x.data if form == "packed" else x._values for x in given):
        values.requires_grad_(values.is_floating_point())
    run, launch = Executable.run, fused.launch

    def inside(*arguments: Any) -> Any:
        # A mode does not see what an operator does.
        with Shapes(found):
            return run(*arguments)

    def launching(kernel: Any, buffers: Mapping[str, torch.Tensor], *more: Any) -> None:
        found.update(tuple(x.shape) for x in buffers.values())
        launch(kernel, buffers, *more)

    with (
        mock.patch.object(Executable, "run", inside),
        mock.patch.object(fused, "launch", launching),
        traced() as trace,
        Shapes(found),
    ):
        output = model(*given, entry=program.entry)
        values = output.data if form == "packed" else output.values()
        values.square().sum().backward()
    return found, trace


@by_form
@identified([CHOSEN[0], CHOSEN[2], CHOSEN[3], named("recurrences.gru.scan.reverse")])
def test_nothing_is_padded(program: Program, form: str) -> None:
    found, trace = shapes_of_a_call(program, form)
    assert any(shape[:1] == (sum(LENGTHS),) for shape in found)
    assert not [shape for shape in found if padded(shape)]
    steps = [step for graph in trace.graphs for step in graph.steps if not isinstance(step, fused.PlannedKernel)]
    assert not any(step.pads for step in steps)


def test_the_instrument_sees_padding() -> None:
    program = CHOSEN[0]
    with mock.patch.object(fused, "has_kernels", lambda device: False):
        found, _ = shapes_of_a_call(program, "jagged")
    assert [shape for shape in found if padded(shape)]


# --- several lists ----------------------------------------------------------------------------------------------------


def two_lists() -> tuple[ff.Model, list[list[torch.Tensor]]]:
    """A recurrence over two lists of one length, and rows of each."""
    W = ff.param((4, 4), "W")
    step = lambda h, x, y: ff.tanh(h @ W + x * y)
    model = ff.compile(
        lambda xs, ys: ff.scan(lambda h, p: step(h, *p), init=ff.zeros(4))(ff.zip(xs, ys)),
        ff.Seq(ff.f32[4], "T"),
        ff.Seq(ff.f32[4], "T"),
    ).double()
    torch.manual_seed(3)
    return model, [[torch.randn(n, 4, dtype=torch.float64) for n in (2, 4, 1, 3)] for _ in range(2)]


MIXED = [(left, right) for left in (*FORMS, "ragged") for right in (*FORMS, "ragged")]


@pytest.mark.parametrize(("left", "right"), MIXED, ids=map("-".join, MIXED))
def test_lists_in_two_forms(left: str, right: str) -> None:
    model, rows = two_lists()
    make = lambda form, given: ff.ragged(given) if form == "ragged" else in_form(form, given)
    results = []
    for forms in ((left, right), ("ragged", "ragged")):
        leaves = [[x.clone().requires_grad_() for x in given] for given in rows]
        with traced() as trace:
            output = model(*(make(form, given) for form, given in zip(forms, leaves)))
        assert flat_sizes(trace) == (set() if forms[0] == "ragged" else {"T"})
        found = rows_of(output, 4)
        wanted = [*(x for given in leaves for x in given), *model.parameters()]
        total = sum((y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum() for row in found for y in row)
        results.append([*(y for row in found for y in row), *torch.autograd.grad(total, wanted)])
    for x, y in zip(*results, strict=True):
        assert harness.error(x, y) <= 1e-12


def test_packed_lists_of_other_orders_are_rearranged() -> None:
    model, (xs, ys) = two_lists()
    ys[0] = torch.randn(4, 4, dtype=torch.float64)
    ys[1] = torch.randn(4, 4, dtype=torch.float64)
    xs[0] = torch.randn(4, 4, dtype=torch.float64)
    left = pack_sequence(xs, enforce_sorted=False)
    # Rows of one length, the other way round.
    order = torch.tensor([1, 0, 3, 2])
    sizes = pack_sequence([ys[i] for i in order]).batch_sizes
    right = PackedSequence(pack_sequence([ys[i] for i in order]).data, sizes, order, order.argsort())
    expected = model(ff.ragged(xs), ff.ragged(ys)).unpad()
    for (found,), row in zip(rows_of(model(left, right), 4), expected, strict=True):
        assert harness.error(found, row) <= 1e-12


def test_lists_of_two_totals_are_refused() -> None:
    model, (xs, ys) = two_lists()
    with pytest.raises(ff.SizeError):
        model(in_form("jagged", xs), in_form("jagged", [ys[0], ys[1], ys[2], ys[1]]))


def test_two_flat_sizes() -> None:
    """A decoder whose own list and the one that it reads both come unpadded."""
    trace = agrees(attention_decoder(5), "jagged")
    assert flat_sizes(trace) == {"S", "T"}


def test_lists_of_equal_length_stand_in_an_unpadded_one() -> None:
    """They are padded as far as another list of their size is."""
    inner = lambda xs, ys: ff.map(lambda p: p[0] * p[1])(ff.zip(xs, ys))
    model = ff.compile(
        lambda xss, ys: ff.map(lambda xs: ff.sum(inner(xs, ys)))(xss),
        ff.Seq(ff.Seq(ff.f32, "R"), "T"),
        ff.Seq(ff.f32, "S"),
    ).double()
    rows, ys = [torch.randn(n, 3, dtype=torch.float64) for n in (2, 1)], torch.randn(2, 5, dtype=torch.float64)
    with traced() as trace:
        found = model(in_form("jagged", rows), ff.ragged(ys, [3, 3]))
    assert flat_sizes(trace) == {"T"}
    for (row,), x, y in zip(rows_of(found, 2), rows, ys, strict=True):
        assert harness.error(row, x @ y[:3]) <= 1e-12


# --- what falls back --------------------------------------------------------------------------------------------------


def test_lists_in_lists_are_padded() -> None:
    fold = ff.map(lambda xs: ff.sum(xs))
    model = ff.compile(lambda xss: fold(xss), ff.Seq(ff.Seq(ff.f32[3], "S"), "T")).double()
    inner = [[torch.randn(n, 3, dtype=torch.float64) for n in row] for row in ((2, 1), (3,))]
    with traced() as trace:
        found = model(ff.ragged(inner))
    assert not flat_sizes(trace)
    assert harness.error(found.unpad()[0][0], inner[0][0].sum(0)) <= 1e-12
    rows = [torch.randn(n, 4, 3, dtype=torch.float64) for n in (2, 1)]
    with traced() as trace:
        found = model(in_form("jagged", rows))
    for (row,), given in zip(rows_of(found, 2), rows, strict=True):
        assert harness.error(row, given.sum(1)) <= 1e-12


def test_vmap_pads() -> None:
    program = CHOSEN[0]
    model = model_of(program)
    packed = pack_sequence([torch.randn(n, 3, dtype=torch.float64) for n in (4, 2, 1)])
    run = lambda x: model(PackedSequence(x, packed.batch_sizes)).data
    several = torch.randn(2, 7, 3, dtype=torch.float64)
    loss = lambda x: run(x).square().sum()
    for f in (run, torch.func.grad(loss)):
        assert harness.error(torch.func.vmap(f)(several), torch.stack([f(x) for x in several])) <= 1e-12
