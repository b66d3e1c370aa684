"""Methods of torch's tensors on traced arrays, so that the code of a torch module means in a step what it means in
torch.

Most methods have one meaning in NumPy and torch (`methods.py`). Those here only torch has, or they mean something else
there: ``x.transpose(0, 1)`` exchanges two axes, ``x.max(-1)`` gives values and indices, ``x.var()`` divides by n − 1.
Called with NumPy's keywords (axis=, keepdims=) such a method is NumPy's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..parameters import Parameter
from ..values import TracedArray
from .methods import METHODS

DIFFERENT = ("add", "chunk", "max", "min", "std", "sub", "transpose", "var")
ONLY_IN_TORCH = (
    *("absolute", "addmm", "adjoint", "arctan", "arctan2", "atan", "atan2", "bitwise_and", "bitwise_not", "bitwise_or"),
    *("bmm", "clamp_min", "clone", "divide", "eq", "erf", "expand", "expm1", "float", "floor_divide", "gather"),
    *("ge", "greater", "greater_equal", "gt", "index_select", "is_floating_point", "isfinite", "le", "less"),
    *("less_equal", "log1p", "logical_and", "logical_not", "logical_or", "lt", "maximum", "minimum", "mm", "multiply"),
    *("mv", "ne", "negative", "not_equal", "numel", "outer", "remainder", "sign", "sort", "split", "subtract"),
    *("addcmul", "expand_as", "lerp", "masked_fill", "movedim", "narrow", "reciprocal", "repeat", "select"),
    "unflatten",
    *("swapdims", "to", "topk", "tril", "triu", "true_divide", "type", "type_as", "unbind"),
)


def _method(name: str) -> Callable[..., Any]:
    def method(self: Any, *arguments: Any, **keywords: Any) -> Any:
        from ..torch_words import call

        numpys = bool({"axis", "keepdims"} & keywords.keys())
        if name == "transpose":
            numpys = len(arguments) != 2 and not keywords
        return METHODS[name](self, *arguments, **keywords) if numpys else call(method, (self, *arguments), keywords)

    method.__name__ = name
    return method


for _name in (*DIFFERENT, *ONLY_IN_TORCH):
    for _class in (TracedArray, Parameter):
        setattr(_class, _name, _method(_name))
