"""torch's functions on traced values, matched by name: what makes `torch.tanh`, `F.silu` or an `nn.LSTMCell` work in a
step.

Torch calls `Traced.__torch_function__` with its own function; the table here gives that function's meaning in
foldfuse's words, with torch's argument names and defaults. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import StructureError
from ..trace import traced

TABLE: dict[str, Callable[..., Any]] = {}


def call(function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Run the function of the table that bears a torch function's name.

    Raises:
        StructureError: the table has none; the message names it.
    """
    name = getattr(function, "__name__", str(function))
    if name == "__get__":
        owner = getattr(function, "__self__", None)
        name = getattr(owner, "__name__", name)
        return getattr(traced(arguments[0]), name)
    meaning = TABLE.get(name) or TABLE.get(name.strip("_"))
    if meaning is None:
        raise StructureError(
            f"torch's {name} has no meaning in a program yet. Write it with ff's functions, or keep that part outside "
            "of the compiled model"
        )
    for option in ("out", "dtype", "size_average", "reduce"):
        if keywords.get(option) is not None and not (option == "dtype" and name in ("to", "type")):
            raise StructureError(f"torch's {name} with {option}= has no meaning in a program. {_INSTEAD[option]}")
    # Torch's own Python code hands on options that were left out.
    given = {option: value for option, value in keywords.items() if option != "out"}
    try:
        return meaning(*arguments, **given)
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
            raise
        # Raised by the call itself: the arguments do not fit the parameters.
        raise StructureError(
            f"torch's {name} has no meaning in a program with these arguments: it {str(error).partition('() ')[2]}. "
            "Leave out what a program does not "
            "take, or write it with ff's functions"
        ) from None


_INSTEAD = {
    "out": "A program changes no tensor in place: use the result",
    "dtype": "Convert with ff.cast, before or after",
    "size_average": "Write reduction='none', 'mean' or 'sum'",
    "reduce": "Write reduction='none', 'mean' or 'sum'",
}


def define(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a function under torch's names."""

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            TABLE[name] = function
        return function

    return enter


def plain_word(word: Any) -> Callable[..., Any]:
    return lambda input, *rest, out=None, inplace=False: word(input, *rest)
