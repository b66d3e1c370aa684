"""The text of the IR, read back: what `text.show` prints, `parse` takes.

The grammar (``{x}`` is any number of x, ``[x]`` is x or nothing; white space and comments separate words)::

    graph     = "graph" name "{" {declared} {input} {equation} {output} "}"
    declared  = "size" name ["over" name {"," name}] ["flat"] ["from" integer]  flat: stored without padding
              | "check" size "==" size "because" string                from: the input that holds the lengths
    input     = "input" [name "as"] value ":" type                           without a name, the value's own
    output    = "output" name "=" value
    equation  = (result {"," result} | "_") "=" name "(" [argument {"," argument}] ")" {lambda}
    result    = value ":" type {"binds" name}
    argument  = value | name "=" attribute                                   values first
    lambda    = "fn" ["[" parameters "]"] "(" parameters ")" "{" {equation} "return" [value {"," value}] "}"
    parameters= [value ":" type {"," value ":" type}]                        in brackets: the captured ones
    type      = dtype "[" [size {"," size} "|"] [integer {"," integer}] "]"
    size      = name | integer | "(" size offset ")" | "(" size "//" integer ")"       offset: an integer with its sign
    attribute = number | string | "True" | "False" | "None" | dtype | size | "(" [attribute "," {attribute ","}] ")"
              | "array" "(" name "," shape {"," number} ")" | "array" "(" name "," shape "," "base64" string ")"
    value     = "%" (name | string) ["." digits] | "%" digits                the digits tell values of one name apart
    comment   = "--" to the end of the line

A name is a word, words joined by dots, or a quoted string. Among attributes a number is a number, so that a constant
size is written ``#4``, and a size whose name is no word or has another meaning there ``#'f32'``. A divisor takes a sum
before it into itself: ``((T-2)//2)`` is one quotient of T; the quotient of ``(T-2)`` is ``(((T-2)+0)//2)``.
"""

from __future__ import annotations

from .ir import Equation, Graph, Lambda, SizeDeclaration, Value
from .sizes import Size
from .terms import WORD, TermParser


def parse(text: str) -> Graph:
    """Read a graph.

    Types are taken as they are written: `ir.verify` says whether a text that nobody printed is well formed.

    Arguments:
        text: a graph in the grammar above.

    Returns:
        The graph; its equations have no sources.

    Raises:
        ParseError: the text is not in the grammar, or uses a value that is not defined; the message has the line and
            what was expected.

    Example:
        >>> graph = parse("graph twice { input %x: f32[3]  %y: f32[3] = add(%x, %x)  output y = %y }")
        >>> graph.body.equations[0].op
        'add'
    """
    parser = _Parser(text)
    graph = parser.graph()
    parser.end()
    return graph


def parse_lambda(text: str) -> Lambda:
    """Read a lambda, as `text.show_lambda` prints it.

    Raises:
        ParseError: see `parse`.
    """
    parser = _Parser(text)
    parser.expect("fn")
    body, _ = parser.body()
    parser.end()
    return body


class _Parser(TermParser):
    """Equations, bodies and graphs."""

    def parameters(self, scope: dict[str, Value], stop: str) -> list[Value]:
        found = self.separated(lambda: self.parameter(scope), stop)
        self.expect(stop, " or ',' after a parameter")
        return found

    def body(self) -> tuple[Lambda, int | None]:
        """The rest of a lambda after ``fn``, and how many parameters stand in brackets (None without brackets)."""
        scope: dict[str, Value] = {}
        captured = self.parameters(scope, "]") if self.accept("[") else None
        self.expect("(", " before the parameters of a body")
        parameters = (*(captured or ()), *self.parameters(scope, ")"))
        self.expect("{", " before the equations of a body")
        equations = self.equations(scope)
        self.expect("return", " or an equation")
        results = tuple(self.separated(lambda: self.value(scope), "}"))
        self.expect("}", " or ',' after a result")
        return Lambda(parameters, equations, results), None if captured is None else len(captured)

    def equations(self, scope: dict[str, Value]) -> tuple[Equation, ...]:
        equations = []
        tokens = self.tokens
        while True:
            token = tokens[self.at]
            if token[:1] != "%" and token != "_":
                return tuple(equations)
            equations.append(self.equation(scope))

    def equation(self, scope: dict[str, Value]) -> Equation:
        tokens, begin = self.tokens, self.at
        made: list[tuple[str, Value]] = []
        binds: list[tuple[str, int]] = []
        if tokens[self.at] == "_":
            self.at += 1
        else:
            while True:
                made.append(self.new_value())
                while tokens[self.at] == "binds":
                    self.at += 1
                    binds.append((self.name("the name of a size"), len(made) - 1))
                if tokens[self.at] != ",":
                    break
                self.at += 1
        self.expect("=", " or ',' after an output")
        op = tokens[self.at]
        if not WORD.fullmatch(op):
            self.fail("the name of an operation")
        self.at += 1
        self.expect("(", " after the name of an operation")
        inputs, attributes = self.arguments(scope)
        bodies: list[Lambda] = []
        brackets: list[int] = []
        while tokens[self.at] == "fn":
            self.at += 1
            body, captured = self.body()
            bodies.append(body)
            if captured is not None:
                brackets.append(captured)
        if brackets:
            if len(bodies) > 1 or "captured" in attributes:
                self.at = begin
                self.refuse("expected captured parameters in brackets only where there is one body and no captured=")
            attributes["captured"] = brackets[0]
        for token, value in made:
            if token in scope:
                self.at = begin
                self.refuse(f"expected a new name, but {token} is assigned twice")
            scope[token] = value
        return Equation(op, inputs, tuple([value for _, value in made]), attributes, tuple(bodies), tuple(binds))

    def arguments(self, scope: dict[str, Value]) -> tuple[tuple[Value, ...], dict[str, object]]:
        """The rest of a call after its opening parenthesis."""
        tokens, at = self.tokens, self.at
        inputs: list[Value] = []
        while (value := scope.get(tokens[at])) is not None:
            inputs.append(value)
            at += 1
            if tokens[at] != ",":
                break
            at += 1
        self.at = at
        attributes: dict[str, object] = {}
        token = tokens[at]
        while token != ")":
            if token[:1] == "%":
                self.value(scope)
                self.fail("an attribute (values stand before attributes)")
            name = self.name("a value, an attribute, or ')'")
            if name in attributes:
                self.refuse(f"the attribute {name} is given twice")
            self.expect("=", " after the name of an attribute")
            attributes[name] = self.attribute()
            if tokens[self.at] != ",":
                break
            self.at += 1
            token = tokens[self.at]
        self.expect(")", " or ',' after an argument")
        return tuple(inputs), attributes

    # --- graphs -------------------------------------------------------------------------------------------------------

    def graph(self) -> Graph:
        self.expect("graph")
        name = self.name("the name of a graph")
        self.expect("{", " after the name of a graph")
        sizes: list[SizeDeclaration] = []
        checks: list[tuple[Size, Size, str]] = []
        while self.tokens[self.at] in ("size", "check"):
            if self.accept("size"):
                sizes.append(self.declaration())
            else:
                self.at += 1
                checks.append(self.check())
        scope: dict[str, Value] = {}
        inputs: list[tuple[str, Value]] = []
        while self.accept("input"):
            inputs.append(self.input(scope))
        equations = self.equations(scope)
        outputs: list[tuple[str, Value]] = []
        while self.accept("output"):
            output = self.name("the name of an output")
            self.expect("=", " after the name of an output")
            outputs.append((output, self.value(scope)))
        self.expect("}", ", an output" if outputs else ", an equation or an output")
        body = Lambda(tuple(v for _, v in inputs), equations, tuple(v for _, v in outputs))
        return Graph(name, body, tuple(n for n, _ in inputs), tuple(n for n, _ in outputs), tuple(sizes), tuple(checks))

    def input(self, scope: dict[str, Value]) -> tuple[str, Value]:
        name = None
        if self.tokens[self.at][:1] != "%":
            name = self.name("an input's name or value")
            self.expect("as", " after the name of an input")
        value = self.parameter(scope)
        return value.name if name is None else name, value

    def declaration(self) -> SizeDeclaration:
        name = self.name("the name of a size")
        over: tuple[str, ...] = ()
        if self.accept("over"):
            over = tuple(self.separated(lambda: self.name("the size of an enclosing list"), ""))
        flat = bool(over) and self.accept("flat")
        held = self.integer("the index of an input") if self.accept("from") else None
        return SizeDeclaration(name, over, held, flat)

    def check(self) -> tuple[Size, Size, str]:
        left = self.size()
        self.expect("==", " between the sizes of a check")
        right = self.size()
        self.expect("because", " after the sizes of a check")
        return left, right, self.string("the reason of a check, a string")
