"""How functions present themselves to `torch.compile`, without importing Dynamo before it is used.

Torch's own decorators import it, which takes longer than everything else that `import foldfuse` does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

__all__ = ["constant_result", "one_call"]

Function = TypeVar("Function", bound=Callable[..., Any])


def constant_result(function: Function) -> Function:
    """Have Dynamo run a function while it traces, and take what it gives for a constant.

    `torch.compiler.assume_constant_result` sets this same attribute.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def one_call(function: Callable[..., Any]) -> Callable[..., Any]:
    """Have Dynamo put a function into its graph as one call, without looking inside.

    The function is registered with `torch.compiler.allow_in_graph` when Dynamo first comes past it.
    """

    @constant_result
    def register() -> bool:
        torch.compiler.allow_in_graph(function)
        return True

    def call(*arguments: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():
            register()
        return function(*arguments)

    return call
