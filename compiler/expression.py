"""Expressions: functions of traced values that compose with ``>>`` and ``&`` and may declare their representations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from . import types
from .errors import FoldfuseError, RepresentationError, Source, StructureError, TraceError, user_source
from .scope import is_module, is_tracing
from .trace import traced
from .values import Traced, type_of


class Expression:
    """A function of traced values.

    Arguments:
        function: what it does.
        name: how it is shown.

    Attributes:
        made_at: where the user wrote it; None for foldfuse's own words.
    """

    def __init__(self, function: Callable[..., Any], name: str):
        self.function, self.name = function, name
        self.made_at = user_source()
        self.__doc__ = function.__doc__
        self.__name__ = name

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        try:
            return self.function(*arguments, **keywords)
        except TypeError as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
                raise
            # Raised by the call itself: the arguments do not fit the parameters.
            raise StructureError(
                f"{self.name}{_signature(self.function)} does not take these arguments: "
                f"{_misfit(self.function, arguments, keywords) or error}"
            ) from None

    def __rshift__(self, other: Any) -> Expression:
        return compose(self, other)

    def __rrshift__(self, other: Any) -> Expression:
        return compose(other, self)

    def __and__(self, other: Any) -> Expression:
        return fan_out(self, other)

    def __rand__(self, other: Any) -> Expression:
        return fan_out(other, self)

    def typed(self, source: Any, target: Any) -> Expression:
        """Declare the representations that this expression takes and gives.

        Arguments:
            source, target: types, with `Rep` where a name matters: an unnamed or differently named value is refused
                there.

        Returns:
            The same expression, checked wherever it is used.

        Example:
            >>> encode = dense(64).typed(Word, State)      # refuses a value that is not a Word
        """
        types.check_type(source)
        types.check_type(target)

        def check(*arguments: Any) -> Any:
            argument = traced(arguments[0] if len(arguments) == 1 else arguments)
            # A value that does not fit is the mistake of whoever hands it over.
            require(argument, source, f"the input of {self.name}", user_source(outside=declared))
            result = traced(call(self, argument))
            require(result, target, f"the result of {self.name}")
            return result

        declared = Expression(check, f"{self.name}.typed({types.show(source)}, {types.show(target)})")
        return declared

    def __repr__(self) -> str:
        return self.name


def require(value: Any, declared: Any, what: str, source: Source | None = None) -> None:
    """Check a traced structure against a declared type.

    Arguments:
        value: a traced structure.
        declared: the type it must have.
        what: what messages call it.
        source: the place that an error names; found from the running stack when left out.

    Raises:
        RepresentationError: a name differs or is missing where one is declared, or the types differ.
    """
    found = type_of(value)
    if not _fits(found, declared):
        named = declared_names(declared)
        if not named:
            hint = "Give a value of that type"
        elif isinstance(declared, types.Rep):
            hint = f"Convert it with a layer, or write {declared}(…) where it means that"
        else:
            hint = f"Convert it with a layer, or name its parts, as in {named[0]}(…)"
        raise RepresentationError(
            f"{what} is declared as {types.show(declared)}, but what stands there is {types.show(found)}. {hint}",
            source,
        )


def declared_names(type_: Any) -> list[str]:
    """The names of the representations in a type, in order."""
    if isinstance(type_, types.Rep):
        return [type_.name]
    if isinstance(type_, (types.Seq, types.Grid, types.Tree)):
        return declared_names(type_.element)
    parts = type_.values() if isinstance(type_, Mapping) else type_ if isinstance(type_, tuple) else ()
    return [name for part in parts for name in declared_names(part)]


def _fits(found: Any, declared: Any) -> bool:
    if isinstance(declared, types.Rep):
        return (
            isinstance(found, types.Rep)
            and found.name == declared.name
            and types.strip(found.type) == types.strip(declared.type)
        )
    if isinstance(found, types.Rep):
        return _fits(found.type, declared)
    if isinstance(declared, types.DType):
        return _fits(found, types.Array(declared))
    if isinstance(found, types.DType):
        return _fits(types.Array(found), declared)
    if isinstance(declared, types.Seq):
        return isinstance(found, types.Seq) and _fits(found.element, declared.element)
    if isinstance(declared, types.Grid):
        return isinstance(found, types.Grid) and found.dims == declared.dims and _fits(found.element, declared.element)
    if isinstance(declared, types.Tree):
        same = isinstance(found, types.Tree) and (found.arity, found.kinds) == (declared.arity, declared.kinds)
        return same and _fits(found.element, declared.element)
    if isinstance(declared, tuple):
        return isinstance(found, tuple) and len(found) == len(declared) and all(map(_fits, found, declared))
    if isinstance(declared, dict):
        return (
            isinstance(found, dict)
            and list(found) == list(declared)
            and all(_fits(found[k], declared[k]) for k in declared)
        )
    return found == declared


def show_function(function: Any) -> str:
    """How a function is named in messages."""
    if isinstance(function, Expression):
        return function.name
    if is_module(function):
        return type(function).__name__
    return getattr(function, "__name__", repr(function))


def check_function(function: Any, what: str) -> Any:
    """Refuse what cannot be called.

    Raises:
        StructureError: it is no function.
    """
    if isinstance(function, type):
        raise StructureError(
            f"{what} takes a function or an expression; got the class {function.__name__}. Make an object of it"
        )
    if not callable(function):
        raise StructureError(f"{what} takes a function or an expression; got {function!r}")
    return function


def _signature(function: Any) -> str:
    """The parameters of a function, as its user sees them."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return "(…)"
    return f"({', '.join(str(p.replace(annotation=p.empty)) for p in parameters)})"


def _misfit(function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> str | None:
    """Why arguments do not fit the parameters of a function; None where they do."""
    try:
        inspect.signature(function).bind(*arguments, **keywords)
    except TypeError as error:
        return str(error)
    except ValueError:
        return None
    return None


def call(function: Any, *arguments: Any) -> Any:
    """Call a user's function on traced values; a wrong number of arguments is the user's error, with the function's
    name.
    """
    if not isinstance(function, Expression) and not is_module(function):
        misfit = _misfit(function, arguments, {})
        if misfit is not None:
            shown = ", ".join(types.show(type_of(a)) if isinstance(a, Traced) else _show(a) for a in arguments)
            raise StructureError(
                f"{show_function(function)}{_signature(function)} is called with {len(arguments)} "
                f"argument{'s' * (len(arguments) != 1)} ({shown}): {misfit}. A product arrives as one argument; unpack "
                "it in the body"
            )
    return function(*arguments)


def _show(value: Any) -> str:
    try:
        return types.show(type_of(traced(value)))
    except FoldfuseError:
        return repr(value)


def _name(function: Any) -> str:
    name = show_function(function)
    return "λ" if name == "<lambda>" else name


def compose(first: Any, second: Any) -> Expression:
    """``first >> second``."""
    check_function(first, "f >> g")
    check_function(second, "f >> g")
    return Expression(lambda *arguments: call(second, call(first, *arguments)), f"{_name(first)} >> {_name(second)}")


def fan_out(first: Any, second: Any) -> Expression:
    """``first & second``: both applied to one input, as a pair."""
    check_function(first, "f & g")
    check_function(second, "f & g")
    return Expression(
        lambda *arguments: (call(first, *arguments), call(second, *arguments)), f"({_name(first)} & {_name(second)})"
    )


def expression(function: Callable[..., Any], name: str | None = None) -> Expression:
    """A Python function as an expression, so that it has ``>>``, ``&`` and `typed`.

    Arguments:
        function: any function of traced values.
        name: how it is shown; the function's own name when left out.

    Example:
        >>> double = expression(lambda x: 2 * x, "double") >> tanh
    """
    return Expression(check_function(function, "ff.expression"), name or _name(function))


def of_one(function: Callable[[Any], Any], name: str) -> Expression:
    """An expression of one value: several arguments are taken as one tuple."""

    def apply(*arguments: Any) -> Any:
        if not is_tracing():
            raise TraceError(
                f"{name} is called outside of a program. Compile it with ff.compile({name}, *types), and call the model"
            )
        return function(arguments[0] if len(arguments) == 1 else arguments)

    return Expression(apply, name)
