"""The IR as text, for people and for files: one equation a line, bodies indented, every output with its type.

`show` and `parse` go round: ``show(parse(show(graph))) == show(graph)``. The grammar stands in `parser`. A value keeps
the user's name (``%h``, then ``%h.1`` for the next of that name in the same body; ``%0``, ``%1`` without a name). Each
body is a closed function with names of its own; the parameters that stand for captured values are in brackets::

    graph rnn {
      size B
      size T over B
      input %W: f32[3, 3]
      input %xs: f32[B, T | 3]

      %last: f32[B | 3] = map(%W, %xs, size=B) fn [%W: f32[3, 3]](%xs: f32[T | 3]) {
        %0: f32[3] = constant(value=0.0, dtype=f32, shape=(3,))
        %last: f32[3] = scan(%W, %0, %xs, carries=1, size=T, reverse=False) fn [%W: f32[3, 3]](%h: f32[3], %x: f32[3]) {
          %0: f32[3] = contract(%h, %W, spec='i,ij->j')
          %1: f32[3] = add(%0, %x)
          %h.1: f32[3] = tanh(%1)
          return %h.1
        }
        return %last
      }

      output last = %last
    }

The number in brackets is the attribute `captured`. Reports of passes (`Graph.notes`) are not printed.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from .ir import Equation, Graph, Lambda, SizeDeclaration, Value
from .parser import parse, parse_lambda
from .sizes import Constant, Named, Quotient, Size
from .terms import RESERVED, WORD
from .types import DType, ListType

__all__ = ["excerpt", "key", "parse", "parse_lambda", "show", "show_lambda"]

_WIDTH = 120  # where a line with a body's parameters is broken
_READABLE = 64  # arrays with more elements are printed as their bytes
_NUMBERED = re.compile(r".*\.\d+", re.DOTALL)


def show(graph: Graph, sources: bool = False) -> str:
    """A graph as text.

    Arguments:
        graph: any graph.
        sources: whether each equation is followed by a comment with the user's line; comments are not read back.

    Returns:
        The text, equal for equal graphs; `parse` makes a graph of it that prints the same.

    Raises:
        TypeError: an attribute is of a kind that has no text.

    Example:
        >>> print(show(parse("graph id { input %x: f32[3] output y = %x }")), end="")
        graph id {
          input %x: f32[3]
        <BLANKLINE>
          output y = %x
        }
    """
    printer = _Printer(sources=sources)
    printer.graph(graph)
    return printer.text()


def show_lambda(body: Lambda, sources: bool = False) -> str:
    """A lambda as text; `parse_lambda` reads it back. Arguments and errors as in `show`."""
    printer = _Printer(sources=sources)
    printer.function(body)
    return printer.text()


def key(program: Graph | Lambda) -> str:
    """A structural key: equal for programs that differ only in names (graph, values, inputs, outputs, list sizes), in
    the order of attributes, in sources and in notes.

    Arguments:
        program: a graph or a lambda.

    Returns:
        A SHA-256 in hexadecimal digits, the same in every process.

    Raises:
        TypeError: an attribute is of a kind that has no text.

    Example:
        >>> left, right = (parse("graph f { input %" + x + ": f32[3]  output o = %" + x + " }") for x in "xy")
        >>> key(left) == key(right)
        True
    """
    printer = _Printer(structural=True)
    if isinstance(program, Graph):
        printer.graph(program)
    else:
        printer.function(program)
    return hashlib.sha256(printer.text().encode()).hexdigest()


def excerpt(graph: Graph, equation: Equation, context: int = 3) -> str:
    """The lines of a graph's text around an equation, numbered as in the whole text; ``>`` marks the equation's own.

    Arguments:
        graph: a graph; it need not be well formed (a value that nothing defines is printed as ``?h``).
        equation: an equation of it, at any depth.
        context: how many lines stand before and after.

    Raises:
        ValueError: the equation is not part of the graph.

    Example:
        >>> print(excerpt(graph, graph.body.equations[3], context=1))  # doctest: +SKIP
           7 |   %0: f32[3] = contract(%h, %W, spec='i,ij->j')
        >  8 |   %1: f32[3] = add(%0, %x)
           9 |   %2: f32[3] = tanh(%1)
    """
    printer = _Printer(marked=equation)
    printer.graph(graph)
    if printer.mark is None:
        raise ValueError(f"the equation {equation.op} is not part of the graph {graph.name}")
    first = max(0, printer.mark - context)
    shown = list(enumerate(printer.lines))[first : printer.mark + context + 1]
    digits = len(str(shown[-1][0] + 1))
    return "\n".join(f"{'>' if i == printer.mark else ' '} {i + 1:{digits}} | {line}".rstrip() for i, line in shown)


class _Scope:
    """The names of one body's values."""

    def __init__(self, printer: _Printer):
        self.printer = printer
        self.names: dict[Value, str] = {}
        self.counts: dict[str, int] = {}

    def define(self, value: Value) -> str:
        """A name for a value, followed by its type."""
        printer = self.printer
        hint = "" if printer.structural else value.name
        count = self.counts.get(hint, 0)
        self.counts[hint] = count + 1
        if hint:
            name = printer.words.get(hint) or printer.word(hint)
            if count:
                name = f"{name}.{count}"
        else:
            name = f"%{count}"
        self.names[value] = name
        return f"{name}: {printer.types.get(id(value.type)) or printer.type(value.type)}"

    def use(self, values: Sequence[Value]) -> list[str]:
        names = self.names
        return [names.get(value) or f"?{value.name}" for value in values]


class _Printer:
    """Collects lines.

    Arguments:
        sources: print the user's lines as comments.
        structural: leave out names and reasons, name list sizes in order of appearance, sort attributes.
        marked: an equation whose first line is noted in `mark`; what has no text is then printed as its repr.
    """

    def __init__(self, sources: bool = False, structural: bool = False, marked: Equation | None = None):
        self.sources = sources
        self.structural = structural
        self.marked = marked
        self.mark: int | None = None
        self.lines: list[str] = []
        self.words: dict[str, str] = {}
        self.renamed: dict[str, str] = {}
        # By identity, which is quicker than by value: the graph keeps its types alive while it is printed.
        self.types: dict[int, str] = {}

    def text(self) -> str:
        return "\n".join(self.lines) + "\n"

    # --- names, sizes, types ------------------------------------------------------------------------------------------

    def word(self, hint: str) -> str:
        """What a value of this name is called; a name ending in ``.1`` is quoted, or the number would count values."""
        plain = WORD.fullmatch(hint) and not _NUMBERED.fullmatch(hint)
        self.words[hint] = f"%{hint if plain else repr(hint)}"
        return self.words[hint]

    def name(self, name: str) -> str:
        if self.structural:
            return "_"
        return name if WORD.fullmatch(name) else repr(name)

    def size_name(self, name: str) -> str:
        return self.renamed.setdefault(name, f"s{len(self.renamed)}") if self.structural else name

    def size(self, size: Size, mark: str = "") -> str:
        """A size; `mark` tells constants and odd names from other attributes."""
        if isinstance(size, Named):
            name = self.size_name(size.name)
            plain = WORD.fullmatch(name) and not (mark and name in RESERVED)
            return name if plain else f"{mark}{name!r}"
        if isinstance(size, Constant):
            return f"{mark}{size.value}"
        assert isinstance(size, Quotient)
        text, base = self.size(size.base, mark), size.base
        if size.offset or size.divisor == 1 or (isinstance(base, Quotient) and base.divisor == 1):
            text = f"({text}{size.offset:+d})"
        return text if size.divisor == 1 else f"({text}//{size.divisor})"

    def type(self, type_: ListType) -> str:
        shape = ", ".join(map(str, type_.shape))
        if type_.axes:
            axes = ", ".join(map(self.size, type_.axes))
            text = f"{type_.dtype.name}[{axes} | {shape}]" if shape else f"{type_.dtype.name}[{axes} |]"
        else:
            text = f"{type_.dtype.name}[{shape}]"
        self.types[id(type_)] = text
        return text

    # --- attributes ---------------------------------------------------------------------------------------------------

    def attribute(self, value: Any) -> str:
        kind = type(value)
        if kind is int or kind is float or kind is str or kind is bool or value is None:
            return repr(value)
        if isinstance(value, tuple):
            items = ", ".join(map(self.attribute, value))
            return f"({items},)" if len(value) == 1 else f"({items})"
        if isinstance(value, Size):
            return self.size(value, "#")
        if isinstance(value, DType):
            return value.name
        if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
            return self.array(value)
        if isinstance(value, np.generic) and value.dtype.kind in "biuf":
            return repr(value.item())
        if self.marked is not None:
            return f"<{value!r}>"
        raise TypeError(
            f"an attribute of type {kind.__name__} has no text: attributes are numbers, strings, bools, None, tuples, "
            "sizes, dtypes and numeric NumPy arrays"
        )

    def array(self, array: np.ndarray) -> str:
        shape = self.attribute(array.shape)
        if array.size and (array.dtype.kind == "c" or array.dtype.itemsize > 8 or array.size > _READABLE):
            data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
            return f"array({array.dtype.name}, {shape}, base64 {base64.b64encode(data).decode()!r})"
        return f"array({', '.join((array.dtype.name, shape, *map(repr, array.ravel().tolist())))})"

    # --- bodies -------------------------------------------------------------------------------------------------------

    def function(self, body: Lambda) -> None:
        self.lines.append("")
        self.lambda_(body, "", None)
        self.lines[0] = self.lines[0].lstrip()
        if not self.lines[0]:
            del self.lines[0]

    def lambda_(self, body: Lambda, indent: str, captured: int | None, comment: str = "") -> None:
        """A lambda, from the end of the last line on."""
        scope = _Scope(self)
        parameters = [scope.define(value) for value in body.parameters]
        groups = [parameters] if captured is None else [parameters[:captured], parameters[captured:]]
        texts = [", ".join(group) for group in groups]
        head = self.head(texts)
        if len(self.lines[-1]) + len(head) < _WIDTH:
            self.lines[-1] += f" {head}{comment}"
        else:
            self.lines[-1] += comment
            if len(indent) + len(head) <= _WIDTH:
                self.lines.append(indent + head)
            else:
                gap = f"\n{indent}    "
                for i, group in enumerate(groups):
                    if len(texts[i]) > _WIDTH // 2:
                        texts[i] = f"{gap}{f',{gap}'.join(group)}\n{indent}"
                self.lines.extend((indent + self.head(texts)).split("\n"))
        inner = indent + "  "
        self.equations(body.equations, scope, inner)
        self.lines.append(f"{inner}return {', '.join(scope.use(body.results))}".rstrip())
        self.lines.append(f"{indent}}}")

    def head(self, groups: Sequence[str]) -> str:
        *captured, parameters = groups
        return f"fn {''.join(f'[{group}]' for group in captured)}({parameters}) {{"

    def equations(self, equations: Sequence[Equation], scope: _Scope, indent: str) -> None:
        lines, attribute = self.lines, self.attribute
        for equation in equations:
            if equation is self.marked and self.mark is None:
                self.mark = len(lines)
            arguments = scope.use(equation.inputs)
            outputs = [scope.define(value) for value in equation.outputs]
            if equation.binds:
                for name, index in equation.binds:
                    bound = self.size_name(name)
                    outputs[index] += f" binds {bound if WORD.fullmatch(bound) else repr(bound)}"
            bodies, attributes = equation.bodies, equation.attributes
            captured = attributes.get("captured") if len(bodies) == 1 else None
            if type(captured) is not int or not 0 <= captured <= len(bodies[0].parameters):
                captured = None
            for name in sorted(attributes) if self.structural else attributes:
                if name != "captured" or captured is None:
                    plain = name if WORD.fullmatch(name) else repr(name)
                    arguments.append(f"{plain}={attribute(attributes[name])}")
            comment = ""
            if self.sources and equation.source is not None:
                comment = "  -- " + " ".join(str(equation.source).split())
            line = f"{indent}{', '.join(outputs) or '_'} = {equation.op}({', '.join(arguments)})"
            lines.append(line if bodies else line + comment)
            for body in bodies:
                self.lambda_(body, indent, captured, comment)
                comment = ""

    # --- graphs -------------------------------------------------------------------------------------------------------

    def graph(self, graph: Graph) -> None:
        lines, scope, body = self.lines, _Scope(self), graph.body
        lines.append(f"graph {self.name(graph.name)} {{")
        lines.extend(map(self.declaration, graph.sizes))
        for left, right, where in graph.checks:
            reason = "" if self.structural else where
            lines.append(f"  check {self.size(left)} == {self.size(right)} because {reason!r}")
        for name, value in zip(graph.input_names, body.parameters):
            own = "" if self.structural or name == value.name else f"{self.name(name)} as "
            lines.append(f"  input {own}{scope.define(value)}")
        if body.equations:
            lines.append("")
            self.equations(body.equations, scope, "  ")
        lines.append("")
        for name, used in zip(graph.output_names, scope.use(body.results)):
            lines.append(f"  output {self.name(name)} = {used}")
        lines.append("}")

    def declaration(self, declaration: SizeDeclaration) -> str:
        name = self.size_name(declaration.name)
        text = f"  size {name if WORD.fullmatch(name) else repr(name)}"
        if declaration.over:
            text += f" over {', '.join(map(self.over, declaration.over))}"
        if declaration.flat:
            text += " flat"
        return text if declaration.input is None else f"{text} from {declaration.input}"

    def over(self, axis: str) -> str:
        """The size of an enclosing list, which a declaration holds as text."""
        if self.structural:
            if axis in self.renamed:
                axis = self.renamed[axis]
            else:
                axis = WORD.sub(lambda match: self.size_name(match[0]), axis)
        return axis if WORD.fullmatch(axis) else repr(axis)
