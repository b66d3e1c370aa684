"""The recurrences that are measured: each as foldfuse's expression, a plain step of torch, and torch's own module.

All three compute one function of one set of weights, under the names that foldfuse's parameters have: `W` [D, gates·H],
`U` [H, gates·H] and biases [gates·H], gates in the order of `torch.nn`. So results and gradients can be compared by
name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

import foldfuse as ff

from .compile_time import lstm

Weights = Mapping[str, Tensor]
Step = Callable[[Weights, tuple[Tensor, ...], Tensor], tuple[Tensor, ...]]


def gru(hidden: int, width: int) -> Callable:
    """Return a GRU's step from inputs of `width` numbers to states of `hidden`, in the form that cuDNN computes."""
    W, U = ff.param((width, 3 * hidden), "W"), ff.param((hidden, 3 * hidden), "U")
    b, bu = ff.param((3 * hidden,), "b"), ff.param((3 * hidden,), "bu")

    def step(h, x):
        xr, xz, xn = ff.chunk(x @ W + b, 3)
        hr, hz, hn = ff.chunk(h @ U + bu, 3)
        r, z = ff.sigmoid(xr + hr), ff.sigmoid(xz + hz)
        return (1 - z) * ff.tanh(xn + r * hn) + z * h

    return step


def lstm_layer(hidden: int, width: int) -> Callable:
    """Return the expression of an LSTM over a list, its first states zero."""
    return ff.scan(lstm(hidden, width), init=(ff.zeros(hidden), ff.zeros(hidden)))


def gru_layer(hidden: int, width: int) -> Callable:
    """Return the expression of a GRU over a list, its first state zero."""
    return ff.scan(gru(hidden, width), init=ff.zeros(hidden))


def lstm_step(weights: Weights, carry: tuple[Tensor, ...], projected: Tensor) -> tuple[Tensor, ...]:
    """Return the states (h, c) after a step of a batch; `projected` is x @ W + b of its elements."""
    h, c = carry
    i, f, g, o = torch.addmm(projected, h, weights["U"]).chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru_step(weights: Weights, carry: tuple[Tensor, ...], projected: Tensor) -> tuple[Tensor, ...]:
    """Return the state (h,) after a step of a batch; `projected` is x @ W + b of its elements."""
    (h,) = carry
    xr, xz, xn = projected.chunk(3, 1)
    hr, hz, hn = torch.addmm(weights["bu"], h, weights["U"]).chunk(3, 1)
    r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
    return ((1 - z) * torch.tanh(xn + r * hn) + z * h,)


@dataclass(frozen=True)
class Cell:
    """A recurrence.

    Attributes:
        name: what the command line calls it.
        gates: how many arrays of H numbers a step's contractions give.
        carries: how many arrays of H numbers a step hands to the next; the first is also its output.
        biases: the names of its biases: the first is added to x @ W, a second to h @ U.
        layer: makes foldfuse's expression of (hidden, width).
        step: the same step of a batch, in plain torch, its input projected already.
        module: torch's own.
    """

    name: str
    gates: int
    carries: int
    biases: tuple[str, ...]
    layer: Callable[[int, int], Callable]
    step: Step
    module: type[nn.RNNBase]

    def shapes(self, hidden: int, width: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of each weight."""
        packed = self.gates * hidden
        return {"W": (width, packed), "U": (hidden, packed), **{name: (packed,) for name in self.biases}}

    def operations(self, hidden: int, width: int, backward: bool) -> int:
        """Return the arithmetic of the contractions of one step of one row, a multiply-add counted as two.

        Backward each contraction has two: one for either operand's gradient.
        """
        return 2 * self.gates * hidden * (hidden + width) * (3 if backward else 1)

    def elements(self, hidden: int, width: int, rows: int, backward: bool) -> int:
        """Return the fewest elements that must be moved for as many steps of rows: each input and each result once.

        Forward: x and the weights in, y out. Backward: x, y, the weights and y's gradient in, those of x and of the
        weights out. What one pass keeps for the other is not counted, as it could be computed again.
        """
        weights = sum(map(prod, self.shapes(hidden, width).values()))
        forward = rows * (width + hidden) + weights
        return forward + (rows * (2 * width + 2 * hidden) + 2 * weights) * backward


CELLS = {
    cell.name: cell
    for cell in (
        Cell("lstm", 4, 2, ("b",), lstm_layer, lstm_step, nn.LSTM),
        Cell("gru", 3, 1, ("b", "bu"), gru_layer, gru_step, nn.GRU),
    )
}


# --- torch's own module -----------------------------------------------------------------------------------------------


def module_of(cell: Cell, weights: Weights) -> nn.RNNBase:
    """Return torch's module with these weights, on their device and in their dtype; it takes [T, B, D].

    A bias of h @ U that a cell does not have is zero there: torch's module always has it.
    """
    W, U = weights["W"], weights["U"]
    module = cell.module(W.shape[0], U.shape[0], device=W.device, dtype=W.dtype)
    zero = torch.zeros_like(weights["b"])
    given = {
        "weight_ih_l0": W.T,
        "weight_hh_l0": U.T,
        "bias_ih_l0": weights["b"],
        "bias_hh_l0": weights[cell.biases[1]] if len(cell.biases) > 1 else zero,
    }
    module.load_state_dict(given)
    return module


def by_our_names(cell: Cell, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the gradients of torch's module's parameters as those of the weights that they were made of."""
    found = {"W": gradients["weight_ih_l0"].T, "U": gradients["weight_hh_l0"].T}
    return found | dict(zip(cell.biases, (gradients["bias_ih_l0"], gradients["bias_hh_l0"])))


# --- a loop -----------------------------------------------------------------------------------------------------------


def loop(cell: Cell, weights: Weights, x: Tensor) -> Tensor:
    """Return the outputs [T, B, H] of a plain loop over the steps of x [T, B, D].

    As whoever writes such a loop with care: the input's projection is one matrix product before it.
    """
    steps, rows, width = x.shape
    carry = (x.new_zeros(rows, weights["U"].shape[0]),) * cell.carries
    projected = torch.addmm(weights["b"], x.reshape(steps * rows, width), weights["W"])
    outputs = []
    # Indexing each step would give its backward pass a gradient of all steps, T times.
    for each in projected.view(steps, rows, -1).unbind(0):
        carry = cell.step(weights, carry, each)
        outputs.append(carry[0])
    return torch.stack(outputs)
