"""The peers of a recurrence, ready to run on one problem, and whether they are right.

Each peer gets the same weights and the same input in the layout that is its own (foldfuse [B, T, D], the others
[T, B, D], which cuDNN prefers), and gives its output and, where asked, the gradients of the input and of every weight,
as a layer in the middle of a network does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import foldfuse as ff

from .recurrence_cells import Cell, by_our_names, loop, module_of

Found = dict[str, Tensor]
"""By name: the output "y" as [T, B, H]; backward also the gradients of "x", as [T, B, D], and of every weight."""


# --- precisions -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Precision:
    """The precision of a run.

    Attributes:
        name: what the command line calls it.
        dtype: of inputs, weights and outputs.
        planned: the same by the name that `Model.planned` takes.
        tf32: whether contractions of f32 may be computed in tf32.
        allowed: the largest relative error of a peer that is right.
    """

    name: str
    dtype: torch.dtype
    planned: str
    tf32: bool
    allowed: float


PRECISIONS = {
    each.name: each
    for each in (
        Precision("f16", torch.float16, "f16", False, 2e-2),
        Precision("bf16", torch.bfloat16, "bf16", False, 2e-2),
        Precision("f32", torch.float32, "f32", False, 1e-4),
        Precision("tf32", torch.float32, "f32", True, 5e-3),
    )
}


@contextmanager
def in_precision(precision: Precision) -> Iterator[None]:
    """Compute contractions of f32 as a precision says: foldfuse's, cuBLAS's and cuDNN's."""
    products, library = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if precision.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = precision.tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = library


# --- problems ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """What the peers are given: weights, an input [T, B, D] and the gradient of the output [T, B, H]."""

    cell: Cell
    weights: Mapping[str, Tensor]
    x: Tensor
    cotangent: Tensor

    def double(self) -> Problem:
        """The same numbers in float64."""
        weights = {name: weight.double() for name, weight in self.weights.items()}
        return replace(self, weights=weights, x=self.x.double(), cotangent=self.cotangent.double())

    def first(self, steps: int) -> Problem:
        """The same problem, over its first steps."""
        return replace(self, x=self.x[:steps].contiguous(), cotangent=self.cotangent[:steps].contiguous())


def problem(
    cell: Cell, hidden: int, batch: int, length: int, dtype: torch.dtype, device: torch.device | str, seed: int = 0
) -> Problem:
    """Return random weights, as torch draws them, and random inputs as wide as the state, the same for a seed."""
    generator = torch.Generator(device).manual_seed(seed)
    bound = hidden**-0.5
    weights = {
        name: (2 * bound * torch.rand(shape, generator=generator, device=device) - bound).to(dtype)
        for name, shape in cell.shapes(hidden, hidden).items()
    }
    x, cotangent = torch.randn(2, length, batch, hidden, generator=generator, device=device).to(dtype)
    return Problem(cell, weights, x, cotangent)


# --- peers ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ready:
    """A peer made ready for a problem.

    Attributes:
        run: does the work that is timed, and gives tensors.
        read: these tensors by name.
    """

    run: Callable[[], tuple[Tensor, ...]]
    read: Callable[[tuple[Tensor, ...]], Found]


Peer = Callable[[Problem, bool], Ready]
"""Makes itself ready for a problem, to run it forward only or backward too."""


def foldfuse(given: Problem, backward: bool) -> Ready:
    """Return foldfuse's model, ready and warmed up."""
    model = compiled(given)
    x = given.x.transpose(0, 1).contiguous().requires_grad_(backward)
    cotangent = given.cotangent.transpose(0, 1).contiguous()
    model.warmup(x, backward=backward)
    names = ["x", *given.weights]
    sources = [x, *(model.get_parameter(name) for name in given.weights)]

    def read(results: tuple[Tensor, ...]) -> Found:
        found = dict(zip(["y", *names], results))
        return {name: value.transpose(0, 1) if name in ("x", "y") else value for name, value in found.items()}

    return Ready(_passes(lambda: model(x), sources, cotangent, backward), read)


def compiled(given: Problem) -> ff.Model:
    """Return foldfuse's model of a problem, with its weights."""
    hidden, width = given.weights["U"].shape[0], given.x.shape[2]
    model = ff.compile(given.cell.layer(hidden, width), ff.Seq(ff.f32[width])).to(given.x)
    model.load_state_dict(given.weights)
    return model


def library(given: Problem, backward: bool) -> Ready:
    """Return torch's own module: cuDNN on a CUDA device."""
    module = module_of(given.cell, given.weights)
    x = given.x.clone().requires_grad_(backward)
    parameters = dict(module.named_parameters())

    def read(results: tuple[Tensor, ...]) -> Found:
        if not backward:
            return {"y": results[0]}
        y, gradient, *rest = results
        return {"y": y, "x": gradient, **by_our_names(given.cell, dict(zip(parameters, rest)))}

    sources = [x, *parameters.values()]
    return Ready(_passes(lambda: module(x)[0], sources, given.cotangent, backward), read)


def plain_loop(given: Problem, backward: bool) -> Ready:
    """Return a loop over the steps in plain torch."""
    x = given.x.clone().requires_grad_(backward)
    weights = {name: weight.clone().requires_grad_(backward) for name, weight in given.weights.items()}
    names = ["y", "x", *weights]
    run = _passes(lambda: loop(given.cell, weights, x), [x, *weights.values()], given.cotangent, backward)
    return Ready(run, lambda results: dict(zip(names, results)))


def _passes(
    forward: Callable[[], Tensor], sources: list[Tensor], cotangent: Tensor, backward: bool
) -> Callable[[], tuple[Tensor, ...]]:
    """What runs forward without keeping anything, or forward and backward to the sources."""

    def both() -> tuple[Tensor, ...]:
        y = forward()
        return y.detach(), *torch.autograd.grad(y, sources, cotangent)

    def alone() -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (forward(),)

    return both if backward else alone


def captured(peer: Peer) -> Peer:
    """Return a peer that replays a CUDA graph of another."""

    def make(given: Problem, backward: bool) -> Ready:
        ready = peer(given, backward)
        # Libraries set themselves up in a first run, on the stream that they are captured on.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            ready.run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = ready.run()
        for result in results:
            # A graph that writes less than it should is found out.
            result.fill_(float("nan"))

        def replay() -> tuple[Tensor, ...]:
            graph.replay()
            return results

        return replace(ready, run=replay)

    return make


PEERS: Mapping[str, Peer] = {
    "foldfuse": foldfuse,
    "foldfuse_graph": captured(foldfuse),
    "nn": library,
    "loop_graph": captured(plain_loop),
}
"""What is compared. The names of foldfuse's own begin with "foldfuse"; "nn" is torch's module."""


# --- right or wrong ---------------------------------------------------------------------------------------------------


def reference(given: Problem, backward: bool) -> Found:
    """Return what a problem gives in float64: the plain loop of torch, under torch's autograd."""
    ready = plain_loop(given.double(), backward)
    return ready.read(ready.run())


def error(found: Tensor, expected: Tensor) -> float:
    """Return ‖found − expected‖ / ‖expected‖, computed in float64; not a number where anything in it is none."""
    expected = expected.double()
    return float(torch.linalg.vector_norm(found.double() - expected) / torch.linalg.vector_norm(expected))


def errors(found: Found, expected: Found) -> dict[str, float]:
    """Return the error of everything that is expected, by name.

    Raises:
        ValueError: something is missing, or of another shape.
    """
    shapes: list[dict[str, Any]] = [{n: tuple(v.shape) for n, v in each.items()} for each in (found, expected)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"a peer gave {shapes[0]} in place of {shapes[1]}")
    return {name: error(found[name], value) for name, value in expected.items()}


def worst(found: Mapping[str, float]) -> tuple[str, float]:
    """Return the name and size of the largest error; one that is no number counts as the largest."""
    name = max(found, key=lambda each: float("inf") if found[each] != found[each] else found[each])
    return name, found[name]
