"""torch's functions in a step mean what torch means: each against torch itself, values and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import foldfuse as ff

from .harness import error

MASK = torch.tensor([[True, False, True], [False, False, True]])
FUNCTIONS = {
    "addcmul": lambda x, y: torch.addcmul(x, x, y, value=0.5),
    "addcdiv": lambda x, y: torch.addcdiv(x, x, y * y + 1.0),
    "addmv": lambda x, y: torch.addmv(x[:, 0], y, x[0], beta=2, alpha=3),
    "lerp": lambda x, y: torch.lerp(x, y, 0.3),
    "masked_fill": lambda x, y: x.masked_fill(MASK, 2.0),
    "reciprocal": lambda x, y: torch.reciprocal(x * x + 1),
    "tensordot": lambda x, y: torch.tensordot(x, y, dims=([1], [1])),
    "tensordot.count": lambda x, y: torch.tensordot(x, y.T, dims=1),
    "repeat": lambda x, y: x.repeat(2, 1, 3),
    "tile": lambda x, y: torch.tile(x, (2,)),
    "narrow": lambda x, y: torch.narrow(x, 1, 1, 2),
    "select": lambda x, y: torch.select(x, 1, 2),
    "unflatten": lambda x, y: torch.cat([x, y], 1).unflatten(1, (2, -1)),
    "movedim": lambda x, y: torch.movedim(torch.stack([x, y]), (0, 1), (2, 0)),
    "expand_as": lambda x, y: x[:1].expand_as(y),
    "selu": lambda x, y: F.selu(x),
    "celu": lambda x, y: F.celu(x, 0.5),
    "prelu": lambda x, y: F.prelu(x, y[0, :1].reshape(1)) if isinstance(x, torch.Tensor) else F.prelu(x, y[0, :1]),
    "hardswish": lambda x, y: F.hardswish(3 * x),
    "softsign": lambda x, y: F.softsign(x),
    "tanhshrink": lambda x, y: F.tanhshrink(x),
    "threshold": lambda x, y: F.threshold(x, 0.1, 20.0),
    "smooth_l1_loss": lambda x, y: F.smooth_l1_loss(2 * x, y, beta=0.8),
    "huber_loss": lambda x, y: F.huber_loss(2 * x, y, delta=0.8),
    "kl_div": lambda x, y: F.kl_div(F.log_softmax(x, -1), F.softmax(y, -1), reduction="sum"),
    "kl_div.log": lambda x, y: F.kl_div(F.log_softmax(x, -1), F.log_softmax(y, -1), reduction="sum", log_target=True),
    "max.values": lambda x, y: torch.max(x, dim=-1).values,
    "sort.values": lambda x, y: torch.sort(x, dim=0, descending=True).values,
    "topk.values": lambda x, y: torch.topk(x, 2).values,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_against_torch(name: str) -> None:
    function = FUNCTIONS[name]
    generator = np.random.default_rng(3)
    batch = [torch.as_tensor(generator.normal(size=(2, 2, 3))).requires_grad_() for _ in range(2)]
    model = ff.compile(function, ff.f64[2, 3], ff.f64[2, 3])
    found = model(*batch)
    expected = torch.stack([function(x, y) for x, y in zip(*batch, strict=True)])
    assert error(found, expected) <= 1e-12
    weight = torch.cos(torch.arange(found.numel()).reshape(found.shape))
    pulled = [torch.autograd.grad((y * weight).sum(), batch, allow_unused=True) for y in (found, expected)]
    for x, y in zip(*pulled, strict=True):
        if y is None:
            assert x is None or not x.any()
        else:
            assert error(x, y) <= 1e-12
