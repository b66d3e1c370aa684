"""`ragged`: every way to say lengths, what it refuses, and rows back out of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch

from foldfuse.compiler.errors import DtypeError, ShapeError, SizeError, StructureError
from foldfuse.runtime.ragged import Ragged, ragged

X = torch.arange(24.0).reshape(3, 4, 2)


class Pair(NamedTuple):
    word: torch.Tensor
    tag: torch.Tensor


def same(left, right) -> bool:
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    return len(left) == len(right) and all(map(same, left, right))


@pytest.mark.parametrize(
    "lengths",
    [
        [4, 0, 2],
        (4, 0, 2),
        np.array([4, 0, 2]),
        torch.tensor([4, 0, 2]),
        torch.tensor([4, 0, 2], dtype=torch.int32),
        [torch.tensor(4), torch.tensor(0), torch.tensor(2)],
        [[True] * 4, [False] * 4, [True, True, False, False]],
        torch.arange(4) < torch.tensor([[4], [0], [2]]),
    ],
    ids=str,
)
def test_lengths_and_masks(lengths):
    made = ragged(X, lengths)
    assert made.lengths[0].dtype == torch.int64 and made.lengths[0].tolist() == [4, 0, 2]
    assert made.data is X and len(made) == 3
    assert same(made.unpad(), [X[0], X[1, :0], X[2, :2]])
    assert torch.equal(made[-1], X[2, :2]) and same(list(made), made.unpad())
    with pytest.raises(IndexError):
        made[3]


def test_int64_lengths_are_kept_as_they_are():
    lengths = torch.tensor([1, 2, 3])
    assert ragged(X, lengths).lengths[0] is lengths


INNER = [[2, 1, 9], [3, 7, -7]]


@pytest.mark.parametrize("form", ["apart", "list", "mask"])
def test_lists_of_lists(form):
    x = torch.randn(2, 3, 3, 2)
    if form == "apart":
        made = ragged(x, [2, 1], INNER)
    elif form == "list":
        made = ragged(x, [[2, 1], INNER])
    else:
        made = ragged(x, torch.arange(3) < torch.tensor([[2, 1, 0], [3, 0, 0]]).unsqueeze(-1))
    # Behind the end of a row its lengths may have been anything.
    assert [table.tolist() for table in made.lengths] == [[2, 1], [[2, 1, 0], [3, 0, 0]]]
    assert same(made.unpad(), [[x[0, 0, :2], x[0, 1, :1]], [x[1, 0]]])
    assert isinstance(made[0], Ragged) and made[0].lengths[0].tolist() == [2, 1]


def test_a_mask_knows_empty_inner_lists_between_others():
    mask = torch.tensor([[[True, False], [False, False], [True, True]]])
    assert [t.tolist() for t in ragged(torch.zeros(1, 3, 2), mask).lengths] == [[3], [[1, 0, 2]]]


def test_products_share_lengths():
    made = ragged({"word": X, "tag": X[..., 0]}, [1, 2, 3])
    assert same(list(made[1].values()), [X[1, :2], X[1, :2, 0]])


def test_rows_are_padded():
    rows = [torch.ones(2, 3), torch.ones(0, 3), torch.ones(1, 3)]
    made = ragged(rows)
    assert made.data.shape == (3, 2, 3) and made.lengths[0].tolist() == [2, 0, 1]
    assert same(made.unpad(), rows) and made.data.sum() == 9


def test_rows_of_rows_are_padded():
    rows = [[torch.randn(2, 3), torch.randn(1, 3)], [], [torch.randn(4, 3)]]
    made = ragged(rows)
    assert made.data.shape == (3, 2, 4, 3)
    assert [table.tolist() for table in made.lengths] == [[2, 0, 1], [[2, 1], [0, 0], [4, 0]]]
    assert same(made.unpad(), rows)


def test_rows_of_numbers_and_of_products():
    assert ragged([[1, 2, 3], [], [4]]).data.tolist() == [[1, 2, 3], [0, 0, 0], [4, 0, 0]]
    made = ragged([Pair(torch.ones(2, 3), torch.ones(2)), Pair(torch.ones(1, 3), torch.ones(1))])
    assert isinstance(made.data, Pair) and made.data.word.shape == (2, 2, 3) and made.data.tag.shape == (2, 2)
    deep = ragged([[[[1, 2], [3]]], [[[4]], [[5], [6]]]])
    assert deep.unpad()[1][1][1].tolist() == [6] and len(deep.lengths) == 3


def test_padding_is_differentiable():
    rows = [torch.randn(n, 2, dtype=torch.float64, requires_grad=True) for n in (3, 1, 2)]

    def through(*rows):
        return tuple(2 * row for row in ragged(list(rows)).unpad())

    assert torch.autograd.gradcheck(through, rows)
    nested = lambda a, b, c: tuple(x for row in ragged([[a, b], [c]]).unpad() for x in row)
    assert torch.autograd.gradcheck(nested, rows)


def test_to_converts_floats_only():
    made = ragged((X, X[..., 0].long()), [1, 2, 3]).to("cpu", torch.float64)
    assert [x.dtype for x in made.data] == [torch.float64, torch.int64]
    assert ragged((X, X[..., 0].long()), [1, 2, 3]).to(dtype=torch.int32).data[1].dtype == torch.int32
    assert made.lengths[0].dtype == torch.int64 and made.device.type == "cpu"


def test_empty_batches_and_empty_lists():
    assert ragged(torch.zeros(0, 5, 2), []).unpad() == []
    assert ragged(torch.zeros(2, 0, 3), [0, 0])[1].shape == (0, 3)
    assert ragged(torch.zeros(2, 0, 3), torch.zeros(2, 0, dtype=torch.bool)).lengths[0].tolist() == [0, 0]
    assert ragged(torch.zeros(2, 0, 3), torch.zeros(2, 0, 3, dtype=torch.bool)).lengths[0].tolist() == [0, 0]


def test_repr():
    assert repr(ragged(X, [4, 0, 2])) == "Ragged(float32[3, 4, 2], lengths=[4, 0, 2])"


def test_compiles_whole():
    double = torch.compile(lambda x, n: ragged(2 * x, n), fullgraph=True, backend="eager")
    assert same(double(X, torch.tensor([1, 2, 3])).unpad(), [2 * X[0, :1], 2 * X[1, :2], 2 * X[2, :3]])


REFUSED = {
    "negative": (lambda: ragged(X, [1, -2, 3]), SizeError, "row 1: the length -2 is negative. Expected 0 to 4"),
    "beyond": (lambda: ragged(X, [1, 2, 5]), SizeError, "row 2: the length 5 is longer than the data.* 4 elements"),
    "inner beyond": (
        lambda: ragged(X, [1, 2, 3], [[2, 0, 0, 0], [1, 3, 0, 0], [0] * 4]),
        SizeError,
        "row 1, inner list 1: the length 3 is longer",
    ),
    "count": (lambda: ragged(X, [1, 2]), SizeError, r"one entry for each list, \[3\]; got \[2\]"),
    "inner shape": (lambda: ragged(X, [1, 2, 3], [1, 2, 3]), SizeError, r"level 2 .*\[3, 4\]; got \[3\]"),
    "floats": (lambda: ragged(X, [1.0, 2.0, 3.0]), SizeError, r"whole numbers.*float32.*\.long\(\)"),
    "no numbers": (lambda: ragged(X, "abc"), SizeError, "whole numbers"),
    "gap": (
        lambda: ragged(X, torch.tensor([[True] * 4, [False, True, False, False], [True] * 4])),
        SizeError,
        "row 1: the mask is true again.*move",
    ),
    "mask shape": (lambda: ragged(X, torch.ones(3, 3, dtype=torch.bool)), SizeError, r"\[3, 4\]; got \[3, 3\]"),
    "flat mask": (lambda: ragged(X, torch.ones(3, dtype=torch.bool)), SizeError, "mask"),
    "two masks": (lambda: ragged(X, torch.ones(3, 4).bool(), torch.ones(3, 4).bool()), SizeError, "mask"),
    "mask and lengths": (lambda: ragged(X, torch.ones(3, 4).bool(), [1, 2, 3]), SizeError, "one mask"),
    "too deep": (lambda: ragged(X[0, :, 0], [1, 2, 3, 4]), SizeError, "2 or more dimensions"),
    "parts padded apart": (lambda: ragged((X, X[:, :3]), [1, 2, 3]), SizeError, "padded alike"),
    "no tensors": (lambda: ragged((), [1]), StructureError, "at least one padded tensor"),
    "no lengths": (lambda: ragged(X), StructureError, "lengths or mask"),
    "no rows": (lambda: ragged([]), SizeError, "shape of an element is not known"),
    "empty rows": (lambda: ragged([[], []]), SizeError, "shape of an element is not known"),
    "row shapes": (lambda: ragged([X[0], X[0, :, :1]]), ShapeError, r"row 1 .*\[1\], row 0 of \[2\]"),
    "row dtypes": (lambda: ragged([X[0], X[0].double()]), DtypeError, "row 1 is torch.float64.*with .to"),
    "row of rank 0": (lambda: ragged([torch.ones(2), torch.ones(())]), ShapeError, "row 1 is a number"),
    "row parts": (lambda: ragged([(X[0], X[0, :2])]), SizeError, "row 0 has parts of 4 and 2"),
    "row structures": (lambda: ragged([(X[0], X[0]), (X[0],)]), StructureError, "row 1 is not the same product"),
    "row kinds": (lambda: ragged([[X[0]], X[0]]), StructureError, "row 1 is no list of lists"),
    "row of words": (lambda: ragged([X[0], "words"]), StructureError, "row 1 is a str"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    make, error, message = REFUSED[case]
    with pytest.raises(error, match=f"(?s){message}"):
        make()


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (torch.tensor([2, 0]), [2, 0]),
        ([2, 0], [2, 0]),
        (torch.tensor([True, False, True, False]), [0, 2]),
        (slice(0, 3, 2), [0, 2]),
    ],
    ids=["tensor", "list", "bools", "slice"],
)
def test_rows_are_taken_as_a_ragged(index: object, expected: list[int]) -> None:
    rows = ragged([torch.arange(n, dtype=torch.float32) for n in (1, 4, 2, 3)])
    taken = rows[index]
    assert isinstance(taken, Ragged) and taken.data.shape == (2, 2)
    for got, row in zip(taken.unpad(), expected, strict=True):
        assert torch.equal(got, rows[row])


def test_rows_of_nested_lists_are_cut_to_their_longest() -> None:
    nested = ragged(torch.arange(24.0).reshape(2, 3, 4), [3, 1], torch.tensor([[4, 1, 2], [2, 0, 0]]))
    assert nested[[1]].data.shape == (1, 1, 2)
    assert torch.equal(nested[[1]].unpad()[0][0], torch.tensor([12.0, 13.0]))
