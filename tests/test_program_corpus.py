"""The plain counterparts of the corpus run, are finite, and have right derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from .programs import PROGRAMS, Program, as_tensors, draw_parameters

by_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)


def example_of(program: Program, length: int, seed: int = 0) -> tuple:
    return as_tensors(program.inputs(np.random.default_rng(1000 * seed + length), length))


def float_leaves(tree) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]


def function_of_floats(program: Program, length: int):
    """The plain function with its parameters and float inputs as positional tensors, and those tensors."""
    parameters = draw_parameters(program.shapes)
    leaves, spec = pytree.tree_flatten((parameters, example_of(program, length)))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]

    def function(*values):
        filled = list(leaves)
        for place, value in zip(places, values, strict=True):
            filled[place] = value
        values, example = pytree.tree_unflatten(filled, spec)
        return tuple(leaf for leaf in float_leaves(program.plain(values, *example)) if leaf.requires_grad)

    return function, [leaves[place].requires_grad_() for place in places]


@by_program
def test_values_and_gradients_are_finite(program):
    reached = set()
    for length in program.lengths:
        parameters = {name: value.requires_grad_() for name, value in draw_parameters(program.shapes).items()}
        example = example_of(program, length)
        floats = [leaf.requires_grad_() for leaf in float_leaves(example)]
        outputs = pytree.tree_leaves(program.plain(parameters, *example))
        assert all(isinstance(leaf, torch.Tensor) for leaf in outputs)
        assert all(leaf.dtype == torch.float64 for leaf in float_leaves(outputs))
        assert all(torch.isfinite(leaf).all() for leaf in outputs)
        smooth = [leaf for leaf in float_leaves(outputs) if leaf.requires_grad]
        if not smooth:
            continue
        total = sum((leaf * torch.cos(torch.arange(leaf.numel()).reshape(leaf.shape))).sum() for leaf in smooth)
        inputs = [*parameters.values(), *floats]
        gradients = torch.autograd.grad(total, inputs, allow_unused=True)
        assert all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None)
        reached |= {
            name
            for name, gradient in zip(parameters, gradients[: len(parameters)], strict=True)
            if gradient is not None and gradient.abs().max() > 0
        }
    assert set(program.shapes) - reached == program.unused


@by_program
def test_gradcheck(program):
    function, values = function_of_floats(program, program.lengths[-1])
    if not values or not function(*values):
        pytest.skip("its outputs are integers")
    if program.name == "unfolds.straight_through":
        pytest.skip("its derivative is not that of its value, on purpose")
    assert torch.autograd.gradcheck(function, values, fast_mode=True)


@pytest.mark.parametrize(
    "program", [program for program in PROGRAMS if program.second], ids=lambda program: program.name
)
def test_gradgradcheck(program):
    function, values = function_of_floats(program, program.lengths[0] or program.lengths[1])
    assert torch.autograd.gradgradcheck(function, values, fast_mode=True)


def test_inputs_are_float64_and_int64():
    for program in PROGRAMS:
        for length in program.lengths:
            example = program.inputs(np.random.default_rng(length), length)
            leaves = [leaf for leaf in pytree.tree_leaves(example) if not isinstance(leaf, str)]
            assert all(isinstance(leaf, np.ndarray) for leaf in leaves), program.name
            assert {leaf.dtype for leaf in leaves} <= {np.dtype("float64"), np.dtype("int64")}, program.name


def test_a_scan_ends_where_its_fold_ends():
    """The two plain loops of one step agree: the last output of a scan of h is the h of the fold."""
    programs = {program.name: program for program in PROGRAMS}
    for direction, end in (("", -1), (".reverse", 0)):
        scan, fold = (programs[f"recurrences.lstm.{form}{direction}"] for form in ("scan", "fold"))
        parameters, example = draw_parameters(scan.shapes), example_of(scan, 5)
        assert torch.equal(scan.plain(parameters, *example)[end], fold.plain(parameters, *example)[0])


def test_generation_stops_at_different_lengths():
    for name in ("face.seq2seq.sample", "unfolds.greedy.until", "unfolds.halting", "unfolds.likelihoods"):
        (program,) = (program for program in PROGRAMS if program.name == name)
        parameters = draw_parameters(program.shapes)
        outputs = [program.plain(parameters, *example_of(program, 5, seed)) for seed in range(8)]
        assert len({len(pytree.tree_leaves(output)[0]) for output in outputs}) >= 2, name


def test_teacher_forcing_scores_what_generation_scored():
    (program,) = (program for program in PROGRAMS if program.name == "unfolds.likelihoods")
    _, free, taught = program.plain(draw_parameters(program.shapes), *example_of(program, 1))
    torch.testing.assert_close(free, taught)
