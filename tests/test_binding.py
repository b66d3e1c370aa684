"""Arguments in, results out: every form of a list through a program and back, with gradients, and each refusal."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import foldfuse as ff
from foldfuse.compiler.errors import (
    DeviceError,
    DtypeError,
    ShapeError,
    SizeError,
    StructureError,
    TreeError,
    WindowError,
)
from foldfuse.compiler.program import trace_entry
from foldfuse.runtime import eager, oracle
from foldfuse.runtime.binding import bind, unbind
from foldfuse.runtime.forest import forest
from foldfuse.runtime.ragged import Ragged, ragged

f64 = ff.f64
List = ff.Seq(f64[2])
ROWS = (1, 3, 2)


def run(entry, *arguments, **options):
    """A call of an entry without parameters."""
    bound = bind(entry, arguments, **options)
    return unbind(entry, eager.run(entry.graph, bound.tensors, bound.tables, maxima=bound.extents), bound)


def reference(entry, *arguments):
    bound = bind(entry, arguments)
    return unbind(entry, oracle.evaluate_padded(entry.graph, bound.tensors, bound.tables, bound.extents), bound)


def program(function, *types, batched=True):
    return trace_entry("main", function, types, batched)


def rows(*lengths, shape=(2,), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, *shape, dtype=torch.float64, generator=generator) for n in lengths]


def nested(*parts, **options):
    return torch.nested.nested_tensor(list(parts), layout=torch.jagged, **options)


def plain(value):
    """The rows of a list of any form."""
    if isinstance(value, Ragged):
        return value.unpad()
    if isinstance(value, PackedSequence):
        padded, lengths = torch.nn.utils.rnn.pad_packed_sequence(value, batch_first=True)
        return [row[:n] for row, n in zip(padded, lengths)]
    return list(value.unbind())


def close(left, right):
    if isinstance(left, torch.Tensor):
        torch.testing.assert_close(left, right)
        return
    assert len(left) == len(right)
    for a, b in zip(left, right):
        close(a, b)


square = program(ff.map(lambda x: x * x + 1), List)
halves = lambda x: ff.unfold(lambda h: (h * 0.5, h * 0.5), until=lambda y: ff.sum(y) < 1.0, max_length=7)(x)

FORMS = {
    "ragged": lambda parts: ragged(list(parts)),
    "packed": lambda parts: pack_sequence(list(parts), enforce_sorted=False),
    "sorted": lambda parts: pack_sequence(sorted(parts, key=len, reverse=True)),
    "jagged": lambda parts: torch.nested.as_nested_tensor(list(parts), layout=torch.jagged),
}


# --- forms of lists ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_list_leaves_as_it_came(form):
    given = FORMS[form](rows(*ROWS))
    made = run(square, given)
    assert type(made) is type(given)
    close(plain(made), [x * x + 1 for x in plain(given)])
    close(plain(reference(square, given)), plain(made))


@pytest.mark.parametrize("form", FORMS)
def test_gradients_pass_through_every_form(form):
    def function(*parts):
        return torch.cat([x.flatten() for x in plain(run(square, FORMS[form](parts)))])

    assert torch.autograd.gradcheck(function, [x.requires_grad_() for x in rows(*ROWS)])


def test_padded_lists():
    x = torch.randn(3, 4, 2, dtype=torch.float64)
    close(run(square, x), x * x + 1)
    assert bind(square, (x,)).tables == {"B": None, "T": None}
    assert bind(square, (x,)).extents == {"B": 3, "T": 4}


def test_padding_leaves_as_zeros_and_is_not_read():
    x = torch.full((2, 4, 2), torch.nan, dtype=torch.float64)
    x[0, :3] = x[1, :1] = 1
    made = run(square, ragged(x, [3, 1]))
    assert made.data[0, 3:].abs().sum() == 0 and made.data[1, 1:].abs().sum() == 0 and made.data.sum() == 16


def test_ragged_and_jagged_results_share_their_lengths():
    lengths = torch.tensor([1, 3, 2])
    assert run(square, ragged(torch.zeros(3, 4, 2, dtype=torch.float64), lengths)).lengths[0] is lengths
    given = nested(*rows(*ROWS))
    made = run(square, given)
    assert made.offsets() is given.offsets()
    close((given + made).values(), given.values() + made.values())
    offsets_alone = torch.nested.nested_tensor_from_jagged(given.values(), given.offsets())
    close(run(square, offsets_alone).values(), made.values())


def test_packed_results_keep_their_order():
    given = pack_sequence(rows(*ROWS), enforce_sorted=False)
    made = run(square, given)
    assert made.batch_sizes is given.batch_sizes and made.unsorted_indices is given.unsorted_indices
    close(made.data, given.data**2 + 1)


def test_jagged_with_gaps_between_rows():
    x = torch.randn(3, 5, 2, dtype=torch.float64)
    given = torch.nested.narrow(x, 1, torch.tensor([0, 1, 2]), torch.tensor([2, 3, 1]), layout=torch.jagged)
    close(list(run(square, given).unbind()), [y * y + 1 for y in (x[0, :2], x[1, 1:4], x[2, 2:3])])


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("length", [0, 1, 4])
def test_empty_batches_and_empty_lists(count, length):
    x = torch.randn(count, length, 2, dtype=torch.float64)
    close(run(square, x), x * x + 1)
    made = run(square, ragged(x, torch.full((count,), length)))
    assert made.data.shape == x.shape
    assert run(program(ff.fold(lambda h, x: h + x, init=ff.zeros(2)), List), x).shape == (count, 2)


def test_lists_of_lists():
    double = program(ff.map(ff.map(lambda x: 2 * x)), ff.Seq(List))
    parts = [rows(2, 1), rows(3, seed=1), rows(1, 0, 2, seed=2)]
    given = ragged(parts)
    made = run(double, given)
    assert all(a is b for a, b in zip(made.lengths, given.lengths))
    close(made.unpad(), [[2 * x for x in row] for row in parts])
    close(reference(double, given).unpad(), made.unpad())
    x = torch.randn(2, 3, 4, 2, dtype=torch.float64)
    close(run(double, x), 2 * x)
    close(run(double, ragged(x, [3, 1])).unpad(), [2 * x[0], 2 * x[1, :1]])
    packed = pack_sequence([x[0], x[1, :1]])
    close(run(double, packed).data, 2 * packed.data)
    outer = program(ff.map(lambda xs: ff.sum(xs)), ff.Seq(List))
    close(run(outer, given).unpad(), [torch.stack([x.sum(0) for x in row]) for row in parts])


class Item(NamedTuple):
    word: object
    tag: object


def test_lists_of_products():
    swap = program(ff.map(lambda p: Item(p[1], {"again": p[0]})), ff.Seq((f64[2], ff.i64)))
    x, y = torch.randn(2, 3, 2, dtype=torch.float64), torch.arange(6).reshape(2, 3)
    made = run(swap, (x, y))
    assert isinstance(made, Item)
    close(made.word, y), close(made.tag["again"], x)
    made = run(swap, ragged((x, y), [1, 3]))
    assert isinstance(made, Ragged) and isinstance(made.data, Item)
    close(made[0].tag["again"], x[0, :1])
    apart = run(swap, (ragged(x, [1, 3]), ragged(y, [1, 3])))
    close(apart[1].word, y[1])
    given = nested(x[0], x[1, :1]), nested(y[0], y[1, :1])
    made = run(swap, given)
    assert made.word.is_nested and made.tag["again"].offsets() is given[0].offsets()


def test_a_product_of_lists_and_arrays_in_one_ragged():
    each = program(ff.map(lambda p: (ff.sum(p[0]), p[1])), ff.Seq((ff.Seq(f64), f64)))
    x, y = torch.ones(2, 3, 4, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)
    made = run(each, ragged((x, y.unsqueeze(-1).expand(2, 3, 4)[..., 0]), [3, 1]))
    close(made[1], (torch.tensor([4.0], dtype=torch.float64), y[1, :1]))


def test_products_of_arguments():
    add = program(lambda p: p["a"] + p["b"][0], {"a": f64[2], "b": (f64[2],)})
    a, b = torch.ones(3, 2, dtype=torch.float64), torch.ones(3, 2, dtype=torch.float64)
    assert run(add, {"b": (b,), "a": a}).sum() == 12
    pair = program(lambda p: p[0] - p[1], (f64, f64))
    assert run(pair, (a[:, 0], b[:, 0])).tolist() == run(pair, a[:, 0], b[:, 0]).tolist() == [0, 0, 0]


def test_grids():
    x = torch.randn(2, 4, 5, 3, dtype=torch.float64)
    double = program(ff.map(lambda x: 2 * x), ff.Grid(f64[3], 2))
    close(run(double, x), 2 * x)
    pooled = program(ff.max_pool((2, 2)), ff.Grid(f64[3], 2))
    assert run(pooled, x).shape == (2, 2, 2, 3)
    frames = program(ff.map(ff.map(lambda x: 2 * x)), ff.Seq(ff.Grid(f64[3], 2)))
    close(run(frames, ragged(x.unsqueeze(0), [1])).unpad(), [2 * x[:1]])


def test_derived_sizes():
    sums = program(ff.window_map(lambda w: ff.sum(w, axis=0), 3), List)
    x = torch.randn(3, 5, 2, dtype=torch.float64)
    expected = x.unfold(1, 3, 1).sum(-1)
    close(run(sums, x), expected)
    for given in (ragged(x, [5, 1, 3]), pack_sequence([x[0], x[1, :1], x[2, :3]], enforce_sorted=False)):
        made = run(sums, given)
        assert made.lengths[0].tolist() == [3, 0, 1]
        close(made.unpad(), [expected[0], expected[1, :0], expected[2, :1]])


def test_constant_sizes():
    powers = program(ff.unfold(lambda h: (2 * h, h), length=3), f64)
    assert run(powers, torch.ones(2, dtype=torch.float64)).tolist() == [[1, 2, 4]] * 2


def test_lists_that_decide_when_to_stop():
    generate = program(lambda x: (halves(x), x), f64[2])
    x = torch.tensor([[8.0, 8.0], [1.0, 1.0], [1e9, 1e9]], dtype=torch.float64)
    made, same = run(generate, x)
    assert made.lengths[0].tolist() == [5, 2, 7]  # the last one is bounded
    close(made[1], x[1] * torch.tensor([[0.5], [0.25]]))
    close(same, x), close(reference(generate, x)[0].unpad(), made.unpad())
    assert generate.output.parts[1].leaf == 1 and generate.counts == (("until", 2),)
    each = run(program(ff.map(halves), List), ragged([x[:2], x[2:]]))
    assert [t.tolist() for t in each.lengths] == [[2, 1], [[5, 2], [7, 0]]]
    within = run(program(ff.map(halves), List), x.unsqueeze(0))
    assert [t.tolist() for t in within.lengths] == [[3], [[5, 2, 7]]]


def test_without_batch():
    one = program(ff.map(lambda x: 2 * x), List, batched=False)
    x = torch.randn(4, 2, dtype=torch.float64)
    close(run(one, x), 2 * x)
    assert run(program(halves, f64[2], batched=False), torch.full((2,), 8.0, dtype=torch.float64)).shape == (5, 2)
    outermost = program(lambda xs: ff.map(ff.map(lambda x: x - 1))(xs), ff.Seq(List), batched=False)
    for form in FORMS:
        given = FORMS[form](rows(*ROWS))
        made = run(outermost, given)
        assert type(made) is type(given)
        close(plain(made), [x - 1 for x in plain(given)])
    scalar = program(lambda x, y: x * y, f64, f64, batched=False)
    assert run(scalar, 3, torch.tensor(2.0, dtype=torch.float64)).item() == 6
    tree = program(ff.cata(lambda v, kids: v + ff.sum(kids)), ff.Tree(f64), batched=False)
    assert run(tree, (1.0, [2.0, 3])).item() == run(tree, forest([(np.float64(1), [2.0, 3])])).item() == 6


# --- trees ------------------------------------------------------------------------------------------------------------

total = program(ff.cata(lambda v, kids: v + ff.sum(kids)), ff.Tree(f64[2]))
everywhere = program(ff.cata(lambda v, kids: v + ff.sum(kids), every=True), ff.Tree(f64[2]))
PARENTS = [[-1, 0, 0, 1], [1, -1]]


def test_forests():
    values = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    trees = forest(parents=PARENTS, values=values)
    close(run(total, trees), torch.stack([values[:4].sum(0), values[4:].sum(0)]))
    made = run(everywhere, trees)
    assert made.lengths[0].tolist() == [4, 2]
    close(made[1], torch.stack([values[4], values[4:].sum(0)]))
    close(reference(everywhere, trees).unpad(), [x.detach() for x in made.unpad()])
    function = lambda values: run(total, forest(parents=PARENTS, values=values))
    assert torch.autograd.gradcheck(function, [values])
    bound = bind(total, (trees,))
    assert bound.tables["K"].tolist() == [[2, 1, 0, 0], [0, 1, 0, 0]] and bound.tables["N"].tolist() == [4, 2]
    assert bound.extents == {"B": 2, "N": 4, "K": 2}


def test_trees_as_nested_tuples():
    scalars = program(ff.cata(lambda v, kids: v + ff.sum(kids)), ff.Tree(f64))
    assert run(scalars, [(1, [2, 3]), 0.1]).tolist() == [6, 0.1]
    assert run(scalars, []).shape == (0,) and run(everywhere, forest([])).unpad() == []
    pairs = program(ff.cata(lambda v, kids: v[0] + v[1] + ff.sum(kids)), ff.Tree((f64, f64)))
    assert run(pairs, [((1.0, 2.0), [((3.0, 4.0), [])])]).tolist() == [10]


def test_node_kinds_are_numbered_as_the_program_does():
    kinds = ("plus", "times")
    node = {"plus": lambda v, kids: v + ff.sum(kids), "times": lambda v, kids: v * (1 + ff.sum(kids))}
    count = program(ff.cata(node), ff.Tree(f64, kinds=kinds))
    written = [(("times", 2.0), [(("plus", 3.0), []), (("times", 4.0), [])])]
    assert run(count, written).item() == 2 * (1 + 3 + 4)
    pick = {"value": lambda pair: np.float64(pair[1]), "kind": lambda pair: pair[0]}
    assert run(count, forest(written, **pick)).item() == 16  # by first appearance: times, plus
    with pytest.raises(TreeError, match=r"tree 0, node 1 of the argument is of the kind 'minus'.*'plus', 'times'"):
        run(count, forest([(("times", 2.0), [(("minus", 3.0), [])])], **pick))
    with pytest.raises(TreeError, match="no kinds, the program declares kinds"):
        run(count, forest([1.0]))


def test_results_at_nodes_beside_a_list():
    f = lambda tree, xs: ff.map(lambda p: p[0] * p[1])(
        ff.zip(ff.cata(lambda v, k: v + ff.sum(k), every=True)(tree), xs)
    )
    beside = program(f, ff.Tree(f64), ff.Seq(f64))
    trees = forest(parents=PARENTS, values=torch.ones(6, dtype=torch.float64))
    made = run(beside, trees, ragged(torch.full((2, 9), 2.0, dtype=torch.float64), [4, 2]))
    assert [x.tolist() for x in made.unpad()] == [[8, 4, 2, 2], [2, 4]]
    with pytest.raises(SizeError, match="in row 1"):
        run(beside, trees, ragged(torch.ones(2, 4, dtype=torch.float64), [4, 3]))


# --- sizes shared by arguments ----------------------------------------------------------------------------------------

zipped = program(lambda xs, ys: ff.map(lambda p: p[0] + p[1])(ff.zip(xs, ys)), List, List)
named = program(lambda xs, ys: (xs, ys), ff.Seq(f64[2], size="words"), ff.Seq(f64, size="words"))


def test_lists_of_one_length_may_be_padded_differently():
    x, y = torch.randn(2, 5, 2, dtype=torch.float64), torch.randn(2, 3, 2, dtype=torch.float64)
    made = run(zipped, ragged(x, [3, 1]), ragged(y, [3, 1]))
    close(made.unpad(), [x[0, :3] + y[0], x[1, :1] + y[1, :1]])
    made = run(zipped, nested(y[0], y[1, :1]), ragged(x, [3, 1]))
    close(list(made.unbind()), [x[0, :3] + y[0], x[1, :1] + y[1, :1]])
    made = run(zipped, y, ragged(x, [3, 3]))  # the first one says how the result leaves
    assert isinstance(made, torch.Tensor) and made.shape[1] == 5
    close(made[:, :3], x[:, :3] + y)


def test_sizes_that_the_program_derives():
    shorter = lambda xs, ys: ff.map(lambda p: p[0] + p[1])(ff.zip(ff.window_map(lambda w: w[0] + w[2], 3)(xs), ys))
    entry = program(shorter, List, List)
    x, y = torch.randn(2, 6, 2, dtype=torch.float64), torch.randn(2, 9, 2, dtype=torch.float64)
    close(run(entry, x, y[:, :4]), x[:, :4] + x[:, 2:] + y[:, :4])
    made = run(entry, ragged(x, [6, 4]), ragged(y, [4, 2]))
    close(made.unpad()[1], x[1, :2] + x[1, 2:4] + y[1, :2])
    with pytest.raises(SizeError, match=r"3 from the second argument and 4 from the first argument \(as .*T.*-2"):
        run(entry, x, y[:, :3])
    with pytest.raises(SizeError, match=r"in row 1"):
        run(entry, ragged(x, [6, 4]), ragged(y, [4, 3]))
    first = lambda p: p[0]
    four = program(lambda x, ys: ff.map(first)(ff.zip(ys, ff.unfold(lambda h: (h, h), length=4)(x))), f64[2], List)
    assert run(four, x[:, 0], x[:, :4]).shape == (2, 4, 2)
    with pytest.raises(SizeError, match="4 in the program"):
        run(four, x[:, 0], x)


# --- numbers and dtypes -----------------------------------------------------------------------------------------------

mixed = program(lambda x, n, flag: ff.where(flag, x * ff.cast(n, f64), x), f64[2], ff.i64, ff.bool)


def test_numbers_arrays_and_integer_dtypes():
    x, n, flag = torch.ones(3, 2, dtype=torch.float64), torch.tensor([1, 2, 3]), torch.tensor([True, False, True])
    expected = torch.tensor([[1.0] * 2, [1.0] * 2, [3.0] * 2], dtype=torch.float64)
    close(run(mixed, x, n, flag), expected)
    close(run(mixed, x, n.to(torch.int16), flag), expected)
    close(run(mixed, x.numpy(), n.numpy(), flag.numpy()), expected)
    close(run(mixed, np.ones((3, 2), np.float32)[::-1], n.to(torch.uint8), flag), expected)
    close(run(mixed, x, 2, True), 2 * x)
    close(run(mixed, x, np.int32(2), np.bool_(True)), 2 * x)


def test_the_models_dtype_takes_the_place_of_the_declared_default():
    single = program(ff.map(lambda x: 2 * x), ff.Seq(ff.f32[2]))
    x = torch.ones(2, 3, 2, dtype=torch.float64)
    assert bind(single, (x,), dtype=torch.float64).tensors[0] is x
    with pytest.raises(DtypeError, match=r"takes torch.float32, got torch.float64.*x\.to\(torch.float32\)"):
        bind(single, (x,))
    with torch.autocast("cpu", torch.bfloat16):
        assert bind(single, (x.bfloat16(),)).tensors[0].dtype == torch.float32
    half = program(ff.map(lambda x: 2 * x), ff.Seq(ff.bf16[2]))
    assert bind(half, (x.bfloat16(),)).tensors[0].dtype == torch.bfloat16


# --- refusals ---------------------------------------------------------------------------------------------------------

X = torch.ones(2, 3, 2, dtype=torch.float64)
array = program(lambda x: x, f64[2])
pairs = program(ff.map(lambda p: p), ff.Seq((f64[2], f64)))
window = program(ff.window_map(lambda w: ff.sum(w, axis=0), 3, dilation=2), List)
binary = program(ff.cata(lambda v, kids: v + ff.sum(kids), leaf=lambda v: v), ff.Tree(f64[2], arity=2))

REFUSED = {
    "count": (lambda: bind(zipped, (X,)), StructureError, "takes 2 arguments, got 1.*Seq"),
    "rank": (lambda: bind(square, (X[0],)), ShapeError, r"rank 3, \[batch, time, 2\]; got one of rank 2, \[3, 2\]"),
    "shape": (lambda: bind(square, (X[..., :1],)), ShapeError, r"\[batch, time, 2\]; got \[2, 3, 1\]"),
    "grid rank": (
        lambda: bind(program(lambda x: x, ff.Grid(f64, 2)), (X[0],)),
        ShapeError,
        r"\[batch, height, width\]",
    ),
    "second": (lambda: bind(zipped, (X, X[0])), ShapeError, "the second argument"),
    "dtype": (lambda: bind(square, (X.float(),)), DtypeError, r"takes torch.float64, got torch.float32.*x\.to"),
    "integers": (lambda: bind(square, (X.long(),)), DtypeError, "takes torch.float64, got torch.int64"),
    "floats": (lambda: bind(mixed, (X[:, 0], X[:, 0, 0], True)), DtypeError, "takes torch.int64, got torch.float64"),
    "truth": (lambda: bind(mixed, (X[:, 0], True, True)), DtypeError, "takes torch.int64, got truth values"),
    "float number": (lambda: bind(mixed, (X[:, 0], 1.5, True)), DtypeError, "takes torch.int64, got floats"),
    "words": (lambda: bind(array, (np.array(["a"]),)), DtypeError, "got no numbers"),
    "number": (lambda: bind(array, (3.0,)), ShapeError, r"\[batch, 2\]; got the number 3.0"),
    "numbers alone": (lambda: bind(program(lambda x: x, f64), (3.0,)), ShapeError, "batch is not known"),
    "device": (
        lambda: bind(zipped, (X, X.to("meta"))),
        DeviceError,
        r"the first argument lies on cpu, but the second argument on meta.*\.to",
    ),
    "batch": (
        lambda: bind(zipped, (X, X[:1])),
        SizeError,
        "the first argument holds 2 examples, the second argument 1",
    ),
    "time": (
        lambda: bind(zipped, (X, X[:, :2])),
        SizeError,
        "2 from the second argument and 3 from the first argument",
    ),
    "named time": (lambda: bind(named, (X, X[:, :2, 0])), SizeError, r"of one length \(words\), but have 3 and 2"),
    "lengths": (
        lambda: bind(named, (ragged(X, [3, 1]), ragged(X[..., 0], [3, 2]))),
        SizeError,
        "have 1 and 2 elements in row 1",
    ),
    "padded and ragged": (lambda: bind(zipped, (X, ragged(X, [3, 2]))), SizeError, "2 from.*and 3 from.*in row 1"),
    "list for array": (
        lambda: bind(array, (ragged(X, [1, 1]),)),
        StructureError,
        r"\[batch, 2\], got a Ragged, which is 1",
    ),
    "too deep": (lambda: bind(square, (ragged(X, [1, 1], [[1] * 3] * 2),)), StructureError, "which is 2 lists deep"),
    "lengths within lengths": (
        lambda: bind(pairs, (Ragged((ragged(X, [1, 1]), X[..., 0]), [torch.tensor([1, 1])]),)),
        StructureError,
        r"the argument\[0\] takes .* got a Ragged",
    ),
    "list for example": (
        lambda: bind(program(lambda x: x, List, batched=False), (ragged(X[..., 0], [1, 1]),)),
        StructureError,
        "Give the data as a tensor",
    ),
    "python list": (lambda: bind(square, ([X[0], X[1]],)), StructureError, r"got a list of 2.*ff\.ragged"),
    "word": (lambda: bind(square, ("word",)), StructureError, "got a str"),
    "ragged grid": (
        lambda: bind(program(lambda x: x, ff.Grid(f64, 2)), (ragged(X, [1, 1]),)),
        StructureError,
        "rectangular",
    ),
    "tuple": (lambda: bind(pairs, ((X,),)), StructureError, r"a tuple of 2 \(a tensor .*got a tuple of 1"),
    "strided nested": (lambda: bind(square, (torch.nested.nested_tensor([X[0]]),)), StructureError, "torch.jagged"),
    "other ragged axis": (
        lambda: bind(square, (nested(X[0], X[1]).transpose(1, 2),)),
        StructureError,
        "axis 2 is ragged",
    ),
    "window": (lambda: bind(window, (X,)), WindowError, "a window of 3 with dilation 2 reaches over 5 elements"),
    "arity": (
        lambda: bind(binary, (forest(parents=[[-1], [-1, 0, 1, 1]], values=torch.ones(5, 2)),)),
        TreeError,
        "tree 1, node 0 of the argument has 1 children. Expected 2",
    ),
    "tree values": (lambda: bind(total, (forest(parents=[[-1]]),)), TreeError, "no values at its nodes"),
    "tree dtype": (
        lambda: bind(total, (forest(parents=[[-1]], values=torch.ones(1, 2)),)),
        DtypeError,
        "the node value of the argument takes torch.float64",
    ),
    "tree shape": (
        lambda: bind(total, (forest(parents=[[-1]], values=torch.ones(1, 3, dtype=torch.float64)),)),
        ShapeError,
        r"\[batch, nodes, 2\]; got \[1, 1, 3\]",
    ),
    "no tree": (lambda: bind(total, (X,)), TreeError, r"takes trees, got a tensor"),
    "kinds unasked": (
        lambda: bind(total, (forest(parents=[[-1]], kind=[[0]], values=torch.ones(1, 2)),)),
        TreeError,
        "has kinds, the program declares none",
    ),
    "two trees": (
        lambda: bind(program(ff.cata(lambda v, k: v), ff.Tree(f64), batched=False), (forest([1.0, 2.0]),)),
        TreeError,
        "takes one tree, got a forest of 2",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    call, error, message = REFUSED[case]
    with pytest.raises(error, match=f"(?s){message}"):
        call()


def test_a_dict_of_other_keys():
    entry = program(lambda p: p["a"], {"a": f64, "b": f64})
    with pytest.raises(StructureError, match=r"a dict {'a': a tensor .batch., 'b': .*got a dict with 'a'"):
        bind(entry, ({"a": X[:, 0, 0]},))


# --- under torch.compile ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["padded", *FORMS])
def test_compiles_whole(form):
    def call(value):
        bound = bind(square, (value,))
        return unbind(square, [x * x + 1 for x in bound.tensors], bound)

    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    for lengths in (ROWS, (2, 5, 4, 1), (3, 3)):
        parts = rows(*lengths)
        given = torch.stack([parts[1]] * len(lengths)) if form == "padded" else FORMS[form](parts)
        made = compiled(given)
        assert type(made) is type(given)
        close(plain(made), [x * x + 1 for x in plain(given)])


def test_compiles_whole_with_offsets_alone():
    given = nested(*rows(*ROWS))
    offsets_alone = torch.nested.nested_tensor_from_jagged(given.values(), given.offsets())

    def call(value):
        bound = bind(square, (value,))
        return unbind(square, [2 * x for x in bound.tensors], bound)

    torch._dynamo.reset()
    made = torch.compile(call, fullgraph=True, backend="aot_eager")(offsets_alone)
    close(made.values(), 2 * given.values())


def test_window_errors_reach_a_compiled_call():
    def call(value):
        bound = bind(window, (value,))
        return unbind(window, [x[:, 4:] for x in bound.tensors], bound)

    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="eager")
    assert compiled(torch.ones(2, 6, 2, dtype=torch.float64)).shape == (2, 2, 2)
