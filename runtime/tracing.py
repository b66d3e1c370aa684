"""Torch while a program is traced: what a module computes of its parameters alone is part of the program.

Torch hands a function that is called on traced values to `Traced.__torch_function__`. ``torch.exp(self.decay)`` holds
no traced value: torch would compute it once, with the value of that moment, and no gradient would reach the parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from ..compiler import torch_words
from ..compiler.program import Entry, trace_entry
from ..compiler.scope import is_tracing

__all__ = ["trace"]


class _OfParameters(TorchFunctionMode):
    """Traces each function that makes a tensor of a parameter."""

    def __torch_function__(self, function: Any, kinds: Any, arguments: Any = (), keywords: Any = None) -> Any:
        keywords = keywords or {}
        out = function(*arguments, **keywords)
        if not is_tracing():
            return out
        taken = [x for x in pytree.tree_leaves((arguments, keywords)) if isinstance(x, Tensor)]
        made = (isinstance(x, Tensor) and all(x is not y for y in taken) for x in pytree.tree_leaves(out))
        learned = any(isinstance(x, nn.Parameter) or x.requires_grad for x in taken)
        return torch_words.call(function, arguments, keywords) if learned and any(made) else out


def trace(name: str, function: Any, types: Sequence[Any], batched: bool) -> tuple[Entry, Entry]:
    """Trace an entry point for evaluation, and for training where that differs.

    Arguments:
        name, function, types, batched: see `compiler.program.trace_entry`.

    Returns:
        The two entries; one object where the program does not drop out.

    Example:
        >>> evaluation, training = trace("main", nn.Linear(3, 2), [ff.f32[3]], True)
    """
    with torch.enable_grad(), _OfParameters():
        evaluation = trace_entry(name, function, types, batched, training=False)
        if not evaluation.mode_matters:
            return evaluation, evaluation
        return evaluation, trace_entry(name, function, types, batched, training=True)
