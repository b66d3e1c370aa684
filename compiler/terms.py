"""The small parts of the IR's text, read: words, values, types, sizes, attributes. The grammar stands in `parser`."""

from __future__ import annotations

import ast
import base64
import re
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from .errors import ParseError
from .ir import Value
from .sizes import Constant, Named, Quotient, Size
from .types import DTYPES, ListType

_WORD = r"[^\W\d]\w*(?:\.\w+)*"
# The escapes that `repr` writes, and no others: a quoted word can then always be evaluated.
_ESCAPE = r"""\\(?:[\\'"nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U00(?:0[0-9a-f]|10)[0-9a-f]{4})"""
_STRING = rf"""(?:'[^'\\\n]*(?:{_ESCAPE}[^'\\\n]*)*'|"[^"\\\n]*(?:{_ESCAPE}[^"\\\n]*)*")"""
_TOKEN = re.compile(
    rf"""\s*(?:--[^\n]*\s*)*(
      % (?: \d+ | {_WORD} | {_STRING} (?:\.\d+)? )
    | (?:{"|".join(DTYPES)}) \[ (?: [^\]'"\n] | {_STRING} )* \]
    | {_WORD}
    | [+-]? (?: \d+ (?:\.\d*)? (?:[eE][+-]?\d+)? | (?:inf|nan)\b )
    | {_STRING}
    | // | == | \S
    )""",
    re.VERBOSE,
)
_INTEGER = re.compile(r"[+-]?\d+")
_NUMBER_STARTS = frozenset("+-0123456789")
_CONSTANTS: dict[str, Any] = {
    "True": True,
    "False": False,
    "None": None,
    "inf": float("inf"),
    "nan": float("nan"),
    **DTYPES,
}
_ARRAY_DTYPES = frozenset(np.dtype(code).name for code in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?")
_TYPE = "a type such as f32[3, 4] or f32[B, T | 3]"

WORD = re.compile(_WORD)
RESERVED = frozenset((*_CONSTANTS, "array"))


class TermParser:
    """Recursive descent over a list of words; a word's place in the text is looked up when there is an error."""

    def __init__(self, text: str):
        self.text = text
        self.tokens: list[str] = _TOKEN.findall(text)
        self.tokens.append("")
        self.at = 0
        self.types: dict[str, ListType] = {}
        self.hints: dict[str, str] = {}

    # --- words --------------------------------------------------------------------------------------------------------

    def fail(self, expected: str) -> NoReturn:
        """Raise the error for a word that stands where another was expected."""
        self.refuse(f"expected {expected}, found {self.tokens[self.at] or 'the end of the text'}")

    def refuse(self, message: str) -> NoReturn:
        """Raise the error for the line of the word that comes next."""
        offset = len(self.text.rstrip())
        for index, match in enumerate(_TOKEN.finditer(self.text)):
            if index == self.at:
                offset = match.start(1)
                break
        start = self.text.rfind("\n", 0, offset) + 1
        line = self.text[start:].split("\n", 1)[0]
        raise ParseError(f"line {self.text.count(chr(10), 0, offset) + 1}: {message}\n    {line.strip()}")

    def expect(self, token: str, where: str = "") -> None:
        if self.tokens[self.at] != token:
            self.fail(f"{token!r}{where}")
        self.at += 1

    def accept(self, token: str) -> bool:
        if self.tokens[self.at] != token:
            return False
        self.at += 1
        return True

    def end(self) -> None:
        if self.tokens[self.at]:
            self.fail("the end of the text")

    def string(self, what: str) -> str:
        token = self.tokens[self.at]
        if token[:1] not in ("'", '"') or len(token) < 2:
            self.fail(what)
        self.at += 1
        return _unquote(token)

    def name(self, what: str) -> str:
        token = self.tokens[self.at]
        if WORD.fullmatch(token):
            self.at += 1
            return token
        return self.string(what)

    def integer(self, what: str) -> int:
        token = self.tokens[self.at]
        if not _INTEGER.fullmatch(token):
            self.fail(what)
        self.at += 1
        return int(token)

    # --- values and types ---------------------------------------------------------------------------------------------

    def new_value(self) -> tuple[str, Value]:
        """A value that is defined here: its word and itself."""
        tokens, at = self.tokens, self.at
        token = tokens[at]
        if token[:1] != "%" or len(token) == 1:
            self.fail("a value such as %h")
        hint = self.hints.get(token)
        if hint is None:
            hint = self.hints[token] = _hint(token)
        if tokens[at + 1] != ":":
            self.at += 1
            self.fail(f"':' and the type of {token}")
        written = tokens[at + 2]
        self.at = at + 3
        return token, Value(self.types.get(written) or self.written_type(written), hint)

    def parameter(self, scope: dict[str, Value]) -> Value:
        begin = self.at
        token, value = self.new_value()
        if token in scope:
            self.at = begin
            self.refuse(f"expected a new name, but {token} is assigned twice")
        scope[token] = value
        return value

    def value(self, scope: dict[str, Value]) -> Value:
        """A value that is used here."""
        token = self.tokens[self.at]
        value = scope.get(token)
        if value is None:
            if token[:1] != "%":
                self.fail("a value such as %h")
            self.refuse(f"expected a value defined before in this body, found {token}")
        self.at += 1
        return value

    def written_type(self, token: str) -> ListType:
        """The type that a word (the one just read) writes."""
        dtype, bracket, content = token.partition("[")
        inside = TermParser(content[:-1])
        try:
            if not bracket or dtype not in DTYPES:
                inside.fail(_TYPE)
            axes: tuple[Size, ...] = ()
            if "|" in inside.tokens:
                axes = tuple(inside.separated(inside.size, "|"))
                inside.expect("|")
            shape = tuple(inside.separated(lambda: inside.integer("an extent"), ""))
            inside.end()
        except ParseError:
            self.at -= 1
            self.fail(_TYPE)
        self.types[token] = ListType(DTYPES[dtype], axes, shape)
        return self.types[token]

    def separated(self, item: Callable[[], Any], stop: str) -> list[Any]:
        """Items between commas up to, not including, a word."""
        items = []
        if self.tokens[self.at] != stop:
            items.append(item())
            while self.accept(","):
                items.append(item())
        return items

    def size(self) -> Size:
        token = self.tokens[self.at]
        if self.accept("("):
            return self.rest_of_quotient(self.size())
        if _INTEGER.fullmatch(token):
            self.at += 1
            return Constant(int(token))
        return Named(self.name("a size such as T, 4 or ((T-2)//2)"))

    def rest_of_quotient(self, base: Size) -> Size:
        """The rest of ``(base+1)`` or ``(base//2)``."""
        if self.accept("//"):
            divisor = self.integer("a divisor")
            if isinstance(base, Quotient) and base.divisor == 1:
                size = Quotient(base.base, base.offset, divisor)
            else:
                size = Quotient(base, 0, divisor)
        elif self.tokens[self.at][:1] in ("+", "-"):
            size = Quotient(base, self.integer("an offset such as +1"), 1)
        else:
            self.fail("an offset such as +1, or '//' and a divisor")
        self.expect(")")
        return size

    # --- attributes ---------------------------------------------------------------------------------------------------

    def attribute(self) -> Any:
        token = self.tokens[self.at]
        first = token[:1]
        if first in _NUMBER_STARTS:
            return self.number(token)
        if first in ("'", '"'):
            return self.string("a string")
        if first == "(":
            self.at += 1
            return self.rest_of_tuple()
        if token in _CONSTANTS:
            self.at += 1
            return _CONSTANTS[token]
        if token == "array":
            self.at += 1
            return self.array()
        if token == "#":
            self.at += 1
            if _INTEGER.fullmatch(self.tokens[self.at]):
                return Constant(self.integer("a size"))
            return Named(self.string("a constant or a quoted name of a size"))
        if not WORD.fullmatch(token):
            self.fail("an attribute's value: a number, string, tuple, size, dtype or array")
        self.at += 1
        return Named(token)

    def number(self, token: str) -> int | float:
        try:
            number = int(token) if _INTEGER.fullmatch(token) else float(token)
        except ValueError:
            self.fail("a number")
        self.at += 1
        return number

    def rest_of_tuple(self) -> Any:
        """The rest of a tuple, or of a size that begins like one."""
        items = []
        while not self.accept(")"):
            items.append(self.attribute())
            if self.accept(","):
                continue
            if len(items) == 1:
                if isinstance(items[0], Size):
                    return self.rest_of_quotient(items[0])
                self.fail("',' (a tuple of one is written with a comma)")
            self.expect(")", " or ',' in a tuple")
            break
        return tuple(items)

    def array(self) -> np.ndarray:
        self.expect("(", " after array")
        if self.tokens[self.at] not in _ARRAY_DTYPES:
            self.fail("a numeric NumPy dtype")
        dtype = np.dtype(self.tokens[self.at])
        self.at += 1
        self.expect(",")
        shape = self.attribute()
        begin = self.at
        try:
            if self.accept(","):
                if self.accept("base64"):
                    data = base64.b64decode(self.string("the bytes of an array as a string"), validate=True)
                    values = np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype)
                else:
                    values = np.array(self.separated(self.attribute, ")"), dtype)
            else:
                values = np.zeros(0, dtype)
            values = values.reshape(shape)
        except (ValueError, TypeError, OverflowError) as error:
            if isinstance(error, ParseError):
                raise
            self.at = begin
            self.refuse(f"expected the elements of an array of {dtype} of shape {shape}: {error}")
        self.expect(")", " after the elements of an array")
        return values


def _unquote(token: str) -> str:
    return ast.literal_eval(token) if "\\" in token else token[1:-1]


def _hint(token: str) -> str:
    """The name that a value's word holds: ``h`` of ``%h.1``, nothing of ``%1``."""
    word = token[1:]
    if word[0] in "'\"":
        return _unquote(word[: word.rindex(word[0]) + 1])
    if word[0].isdecimal():
        return ""
    head, _, tail = word.rpartition(".")
    return head if head and tail.isdecimal() else word
