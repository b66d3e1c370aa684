"""NumPy's operators between its arrays and values of a program; its functions are refused."""

from __future__ import annotations

from typing import Any

from .errors import TraceError

_REFLECTED = {
    "add": "__radd__",
    "subtract": "__rsub__",
    "multiply": "__rmul__",
    "divide": "__rtruediv__",
    "true_divide": "__rtruediv__",
    "floor_divide": "__rfloordiv__",
    "remainder": "__rmod__",
    "power": "__rpow__",
    "matmul": "__rmatmul__",
    "equal": "__eq__",
    "not_equal": "__ne__",
    "less": "__gt__",
    "less_equal": "__ge__",
    "greater": "__lt__",
    "greater_equal": "__le__",
    "bitwise_and": "__rand__",
    "bitwise_or": "__ror__",
}


def numpy_operator(self: Any, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
    """``array * value``, which NumPy hands over as its function `multiply`: the value's own reflected operator.

    Raises:
        TraceError: another of NumPy's functions was called.
    """
    name = ufunc.__name__
    reflected = getattr(self, _REFLECTED.get(name, "__none__"), None)
    if reflected is not None and method == "__call__" and len(inputs) == 2 and inputs[1] is self and not keywords:
        return reflected(inputs[0])
    raise TraceError(
        f"NumPy's {name} was called on a value of a program, which has no numbers yet. Use ff's function of that name "
        "(ff.exp for np.exp)"
    )
