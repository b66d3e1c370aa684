"""Saying that a compiled program is a plain function of one example."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils import _pytree as pytree

import foldfuse as ff

from .harness import error, rows_of

ROWS, LENGTH = 3, 4
vector, matrix, numbers = ff.f32[3], ff.f32[4, 3], ff.Seq(ff.f32)
vectors = ff.Seq(ff.f32[3])


def drawn(type_, rng, lead=(ROWS,)):
    """A batch of random arguments of a type."""
    if isinstance(type_, ff.Rep):
        return drawn(type_.type, rng, lead)
    if isinstance(type_, ff.Seq):
        return drawn(type_.element, rng, (*lead, LENGTH))
    if isinstance(type_, ff.Grid):
        return drawn(type_.element, rng, (*lead, LENGTH, LENGTH + 1, LENGTH + 2)[: len(lead) + type_.dims])
    if isinstance(type_, dict):
        return {name: drawn(part, rng, lead) for name, part in type_.items()}
    if isinstance(type_, tuple):
        parts = [drawn(part, rng, lead) for part in type_]
        return type(type_)(*parts) if hasattr(type_, "_fields") else tuple(parts)
    dtype, shape = getattr(type_, "dtype", type_), getattr(type_, "shape", ())
    if dtype is ff.bool:
        return torch.from_numpy(rng.random((*lead, *shape)) < 0.5)
    if not dtype.is_float:
        return torch.from_numpy(rng.integers(0, 3, (*lead, *shape)))
    return torch.from_numpy(rng.standard_normal((*lead, *shape))).requires_grad_()


def agrees(program, plain, *types, parameters=None, tolerance=1e-10, **call):
    """Assert that a compiled program, its plain torch evaluation and its oracle are a plain function of one example,
    and that the gradients of the inputs are too."""
    model = program if isinstance(program, ff.Model) else ff.compile(program, *types)
    model = model.double().eval()
    with torch.no_grad():
        for name, value in (parameters or {}).items():
            model.get_parameter(name).copy_(value)
    arguments = [drawn(type_, np.random.default_rng(i)) for i, type_ in enumerate(types)]
    sources = [x for x in pytree.tree_leaves(arguments) if x.is_floating_point()]
    examples = [pytree.tree_map(lambda x, row=row: x[row], arguments) for row in range(ROWS)]
    expected = [pytree.tree_leaves(plain(*example)) for example in examples]
    expected = [[torch.as_tensor(y) for y in row] for row in expected]
    wanted = pulled(expected, sources)
    for run in (model, model.eager, model.reference):
        found = rows_of(run(*arguments, **call), ROWS)
        assert [len(row) for row in found] == [len(row) for row in expected]
        for row, want in zip(found, expected):
            for x, y in zip(row, want):
                assert error(x.detach(), y.detach()) <= tolerance
        if run != model.reference:
            for x, y in zip(pulled(found, sources), wanted):
                assert error(x, y) <= 10 * tolerance
    return model


def pulled(rows, sources):
    """The gradients of a fixed combination of the float results."""
    total = 0.0
    for row in rows:
        for i, y in enumerate(row):
            if y.requires_grad:
                total = total + (y * torch.cos(torch.arange(y.numel()).reshape(y.shape) + i)).sum()
    if not sources or not isinstance(total, torch.Tensor):
        return [torch.zeros_like(x) for x in sources]
    found = torch.autograd.grad(total, sources, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(sources, found)]
