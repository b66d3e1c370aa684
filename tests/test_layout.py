"""Lists without padding: where their elements lie, programs whose text says so, on the evaluator and under torch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import foldfuse as ff
from foldfuse.compiler.errors import ParseError, VerificationError
from foldfuse.compiler.ir import SizeDeclaration, verify
from foldfuse.compiler.sizes import ROWS_OF, TIMES_OF, Named, stored, total_of
from foldfuse.compiler.text import key, parse, show
from foldfuse.runtime import executable, operators
from foldfuse.runtime.autograd import evaluate
from foldfuse.runtime.binding import bind
from foldfuse.runtime.layout import Layout, flat_sizes
from foldfuse.runtime.unbinding import unbind

from .hand_built import rnn
from .layouts import layout

LENGTHS = {"some": (2, 0, 3, 1, 0), "one": (4,), "equal": (2, 2), "none": (0, 0), "no rows": ()}
FORMS = ("jagged", "packed")
by_form = pytest.mark.parametrize("form", FORMS)


def rows(*lengths: int, width: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, width, dtype=torch.float64, generator=generator) for n in lengths]


def in_form(form: str, parts: list[torch.Tensor]) -> object:
    if form == "packed":
        return pack_sequence(parts, enforce_sorted=False)
    return torch.nested.as_nested_tensor(parts, layout=torch.jagged)


# --- where elements lie -----------------------------------------------------------------------------------------------


@by_form
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_values_are_padded_and_taken_back(lengths: tuple[int, ...], form: str) -> None:
    made = layout(torch.tensor(lengths, dtype=torch.int64), max(lengths, default=0), form)
    values = torch.arange(2.0 * made.total).reshape(made.total, 2)
    padded = made.pad(values)
    assert torch.equal(made.take(padded), values)
    row, time = made.where()
    assert sorted(zip(row.tolist(), time.tolist())) == [(r, t) for r, n in enumerate(lengths) for t in range(n)]
    assert torch.equal(padded[row, time], values)
    assert padded.count_nonzero() == values.count_nonzero(), "the rest is padding"
    for other in FORMS:
        moved = layout(made.lengths, made.longest, other)
        assert torch.equal(moved.pad(moved.rearrange(values, made)), padded)


def test_packed_rows_are_where_torch_puts_them() -> None:
    parts = rows(2, 4, 1, 4)
    packed = pack_sequence(parts, enforce_sorted=False)
    bound = bind(ENTRY, (packed,), unpadded=lambda device: True)
    made = bound.layouts["T"]
    assert isinstance(made, Layout) and made.total == 11 and bound.tensors[0] is packed.data
    for r, part in enumerate(parts):
        assert torch.equal(made.pad(packed.data)[r, : len(part)], part)


# --- the text ---------------------------------------------------------------------------------------------------------


def test_a_flat_size_goes_through_the_text() -> None:
    graph = rnn()
    flat = graph.with_flat(("T",))
    assert "  size T over B flat\n" in show(flat) and "flat" not in show(graph)
    assert parse(show(flat)).sizes == flat.sizes and show(parse(show(flat))) == show(flat)
    assert key(flat) != key(graph) and key(flat.with_flat(())) == key(graph)
    assert flat.flat == {"T": "B"} and stored((Named("B"), Named("T"), 4), flat.flat) == (total_of("T"), 4)
    for dims in ((Named("B"), 4), (Named("T"), Named("B")), (4, Named("B"), Named("T")), (Named("B"), Named("S"))):
        assert stored(dims, flat.flat) == dims
    # A size may be called so.
    odd = replace(graph, sizes=(SizeDeclaration("flat", ("flat",), None, True),))
    assert parse(show(odd)).sizes == odd.sizes
    with pytest.raises(ParseError):
        parse("graph g { size T flat }")


@pytest.mark.parametrize(
    "sizes",
    [
        (SizeDeclaration("B"), SizeDeclaration("T", (), None, True)),
        (SizeDeclaration("B"), SizeDeclaration("T", ("B",), None, True), SizeDeclaration("S", ("B", "T"))),
        (SizeDeclaration("B"), SizeDeclaration("T", ("B",), 0, True)),
    ],
    ids=["over nothing", "around another", "an input"],
)
def test_what_cannot_be_flat(sizes: tuple[SizeDeclaration, ...]) -> None:
    with pytest.raises(VerificationError, match="cannot be flat"):
        verify(replace(rnn(), sizes=sizes))


# --- the operator on the evaluator, which pads ------------------------------------------------------------------------


def calls(form: str) -> tuple[list, list, list, str, Layout]:
    """The arguments of the operator, on flat lists."""
    lengths = torch.tensor([2, 0, 3])
    made = layout(lengths, 3, form)
    W = 0.5 * torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    values = torch.cat(rows(5))
    return [W, values], [None, *made.tables()], [3, 3], show(rnn().with_flat(("T",))), made


@by_form
@pytest.mark.filterwarnings("ignore:.*an autograd kernel was not registered")
def test_the_operator(form: str) -> None:
    (W, values), tables, extents, text, made = calls(form)
    program = executable.executable(text)
    assert program.tables == ("B", "T", f"{ROWS_OF}T", f"{TIMES_OF}T") and program.hidden == ("B", "T")
    torch.library.opcheck(operators.evaluate, ([W, values], tables, extents, text))
    last, states = operators.evaluate([W, values], tables, extents, text)
    want_last, want = operators.evaluate([W, made.pad(values)], [None, made.lengths], [], show(rnn()))
    torch.testing.assert_close(last, want_last)
    torch.testing.assert_close(states, made.take(want))


@by_form
def test_derivatives_and_vmap(form: str) -> None:
    inputs, tables, _, text, made = calls(form)
    given = {"B": 3, "T": 3, total_of("T").name: 5}
    flat = lambda W, values: evaluate(text, [W, values], tables, extents=given)

    def padded(W: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        last, states = evaluate(show(rnn()), [W, made.pad(values)], [None, made.lengths])
        return last, made.take(states)

    leaves = [x.clone().requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(flat, leaves) and torch.autograd.gradgradcheck(flat, leaves)
    both = [torch.stack([x, -x]) for x in inputs]
    gradient = lambda run: torch.func.grad(lambda *x: run(*x)[1].square().sum(), argnums=(0, 1))
    for several, dims in ((both, (0, 0)), ([inputs[0], both[1]], (None, 0)), ([both[0], inputs[1]], (0, None))):
        for run, other in ((flat, padded), (gradient(flat), gradient(padded))):
            for x, y in zip(torch.vmap(run, dims)(*several), torch.vmap(other, dims)(*several), strict=True):
                torch.testing.assert_close(x, y)


def test_lengths_under_vmap_are_refused() -> None:
    inputs, tables, _, text, _ = calls("jagged")
    given = {"B": 3, "T": 3, total_of("T").name: 5}
    run = lambda rows: evaluate(text, inputs, [*tables[:2], rows, None], extents=given)
    with pytest.raises(ff.SizeError, match="lengths of packed or jagged lists"):
        torch.vmap(run)(torch.stack([tables[2]] * 2))


# --- in and out of a program ------------------------------------------------------------------------------------------

LIST = ff.Seq(ff.f64[3], "T")
ENTRY = ff.compile(ff.map(lambda x: x * x + 1), LIST)._entries["main"].evaluation


@by_form
def test_a_list_comes_in_and_leaves_as_it_is(form: str) -> None:
    given = in_form(form, rows(2, 1, 3))
    values = given.data if form == "packed" else given.values()
    bound = bind(ENTRY, (given,), unpadded=lambda device: device.type == "cpu")
    assert bound.flat == ("T",) and bound.tensors[0].data_ptr() == values.data_ptr()
    assert bound.extents == {"B": 3, "T": 3, total_of("T").name: 6}
    made = unbind(ENTRY, [bound.tensors[0]], bound)
    assert isinstance(made, PackedSequence) if form == "packed" else made.offsets() is given.offsets()
    assert bind(ENTRY, (given,), unpadded=lambda device: False).flat == ()
    assert bind(ENTRY, (ff.ragged(rows(2, 1, 3)),), unpadded=lambda device: True).flat == ()


def test_which_sizes_may_be_flat() -> None:
    T = Named("T")
    of = lambda function, *types: flat_sizes(ff.compile(function, *types)._entries["main"].evaluation.graph)
    assert flat_sizes(rnn()) == {"T"} and of(lambda xs, ys: (xs, ys), LIST, ff.Seq(ff.f64, "S")) == {"T", "S"}
    assert of(ff.map(ff.sum), ff.Seq(ff.Seq(ff.f64, "S"), "T")) == set(), "lists in lists"
    assert of(lambda xs: ff.map(lambda x: xs)(xs), LIST) == set(), "a list of lists of one length leaves"
    assert flat_sizes(replace(rnn(), sizes=(SizeDeclaration("B"), SizeDeclaration(T.name)))) == set()
