"""The record of the corpus: one program, written twice.

A program is written once as a user of foldfuse types it (`build`) and once in plain torch from its textbook
definition (`plain`), one example at a time, with Python loops. Suites iterate over the records.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class Program:
    """One program of the corpus.

    Every call of `build` makes new parameters. Compare in `eval()` mode: dropout is then the identity.
    """

    name: str
    """Unique; `family.program[.variant]`."""
    build: Callable[[], dict[str, tuple]]
    """Returns the entry points, `{entry: (expression, *types)}`, as `ff.compile` takes them."""
    plain: Callable[..., Any]
    """`plain(parameters, *example)`: the outputs, a tensor or a tuple of tensors. `parameters` maps each name of the
    state_dict to a tensor. An example is what `inputs` gives, with tensors in the place of arrays."""
    inputs: Callable[[np.random.Generator, int], tuple]
    """`inputs(rng, length)`: one example, one item per type of the entry. An array is an array (a 0-d one is a scalar),
    a list of a's is `[T, ...]`, a grid `[H, W, C]`, a list of pairs a pair of lists, a list of lists of different
    lengths a Python list of arrays, a tree the nested pair `(value, [kids])`, or `((kind, value), [kids])` where
    the tree has node kinds. All floats are float64, all integers int64."""
    shapes: dict[str, tuple[int, ...]]
    """Name and shape of every parameter of the model, of all its entry points."""
    lengths: tuple[int, ...] = (1, 5)
    """List lengths (for trees: numbers of nodes, for grids: heights) to try."""
    ragged: bool = True
    """Examples made with different lengths make sense in one batch."""
    entry: str = "main"
    """The entry point that `plain` describes."""
    second: bool = False
    """Small and smooth enough for tests of second derivatives."""
    unused: frozenset[str] = frozenset()
    """Parameters that this entry point does not reach with a gradient."""
    module: Callable[[], torch.nn.Module] | None = None
    """Where the step is an `nn.Module`: makes such a module (`shapes` then names its parameters under `MODULE`)."""

    @property
    def family(self) -> str:
        return self.name.split(".")[0]


MODULE = "cell"
"""The name of the `nn.Module` that a program closes over; every such program binds it to the variable `cell`."""


def under(parameters: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The parameters below `prefix`, by the rest of their names."""
    return {name[len(prefix) + 1 :]: value for name, value in parameters.items() if name.startswith(prefix + ".")}


def prefixed(prefix: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shapes with `prefix` and a dot before every name."""
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}


def as_tensors(example: Any) -> Any:
    """An example of `Program.inputs` with torch tensors in the place of NumPy arrays."""
    return pytree.tree_map(
        lambda leaf: torch.from_numpy(leaf.copy()) if isinstance(leaf, np.ndarray) else leaf, example
    )


def draw_parameters(shapes: dict[str, tuple[int, ...]], seed: int = 12) -> dict[str, torch.Tensor]:
    """Float64 values for every parameter, of a size at which no gate saturates.

    With the default seed the programs that stop by themselves stop at different lengths.
    """
    rng = np.random.default_rng(seed)
    return {name: torch.from_numpy(np.asarray(0.5 * rng.standard_normal(shape))) for name, shape in shapes.items()}


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Standard normal values, always an array."""
    return np.asarray(rng.standard_normal(shape))


def tokens(rng: np.random.Generator, length: int, vocabulary: int) -> np.ndarray:
    """A list of int64 symbols below `vocabulary`."""
    return rng.integers(0, vocabulary, size=(length,), dtype=np.int64)


def loop(step: Callable, carry: Any, elements: Any, reverse: bool = False) -> tuple[Any, Any]:
    """The loop that `scan` and `fold` mean: `(last carry, outputs)`, outputs at the index of their element.

    Args:
        step: `(carry, element) -> (carry, output)`.
        carry: the first carry.
        elements: a tensor `[T, ...]` or a tuple of them, read side by side.
        reverse: start at the last element.
    """
    single = isinstance(elements, torch.Tensor)
    length = len(elements) if single else len(elements[0])
    outputs: list[Any] = [None] * length
    for t in reversed(range(length)) if reverse else range(length):
        carry, outputs[t] = step(carry, elements[t] if single else tuple(x[t] for x in elements))
    if outputs:
        return carry, pytree.tree_map(lambda *leaves: torch.stack(leaves), *outputs)
    # an empty list of outputs: one step on zeros tells the shape of an output
    zero = lambda x: x.new_zeros(x.shape[1:])
    _, output = step(carry, zero(elements) if single else tuple(zero(x) for x in elements))
    return carry, pytree.tree_map(lambda leaf: leaf.new_zeros((0, *leaf.shape)), output)
