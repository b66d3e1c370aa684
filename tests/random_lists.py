"""Random combinators of lists: maps, windows, loops, generation, reductions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .random_terms import (
    LONGEST,
    Array,
    Body,
    Choices,
    Class,
    Length,
    List,
    Product,
    Term,
    is_flat,
    lengths_in,
    renamed,
)
from .random_words import SQUASHES, Words

Make = Callable[[Body, list[Term]], Term]


class Lists(Words):
    """Makes terms with the combinators of lists. `statement` of the subclass fills the bodies of functions."""

    fuel = 12
    """How many more statements the program may have."""

    reentrant = False
    """Whether a list of lists, or a tree, may be run over inside of a loop over itself."""

    def __init__(self, choices: Choices):
        super().__init__(choices)
        self.loops: list[Any] = []

    def enterable(self, type_: Any) -> bool:
        """Whether a list or tree may be run over here: the lengths of what is in it have one meaning."""
        if self.reentrant or (isinstance(type_, List) and is_flat(type_.element)):
            return True
        return type_.length.key not in self.loops

    def statement(self, body: Body) -> None:
        """Append a statement to a body."""
        raise NotImplementedError

    def work(self, body: Body, most: int) -> None:
        """Append up to so many statements."""
        for _ in range(self.choices.below(most + 1)):
            if self.fuel > 0 and body.depth <= 3:
                self.fuel -= 1
                self.statement(body)

    # --- functions ----------------------------------------------------------------------------------------------------

    def function(
        self, body: Body, parameters: Sequence[tuple[str, Any, float]], make: Make, over: Length | None = None
    ) -> tuple[str, Term]:
        """A function of the program: a lambda, or a name after its definition. `make` gives its result. `over` is the
        length of the list that it runs over."""
        inner = Body(body)
        names, taken = [], []
        for hint, type_, bound in parameters:
            names.append(self.names.fresh(hint))
            taken.append(Term(names[-1], type_, bound))
        for term in taken:
            if isinstance(term.type, Product) and term.type.form == "tuple" and self.choices.chance(50):
                parts = [self.names.fresh("p") for _ in term.type.parts]
                inner.lines.append(f"{', '.join(parts)} = {term.text}")
                for name, part in zip(parts, term.type.parts, strict=True):
                    inner.add(Term(name, part, term.bound))
            else:
                inner.add(term)
        self.loops.append(None if over is None else over.key)
        result = make(inner, taken)
        self.loops.pop()
        if not inner.lines:
            return f"lambda {', '.join(names)}: {result.text}", result
        name = self.names.fresh("step" if len(names) > 1 else "f")
        body.lines.append(f"def {name}({', '.join(names)}):")
        body.lines += [f"    {line}" for line in inner.lines]
        body.lines.append(f"    return {result.text}")
        return name, result

    def entered(self, type_: Any) -> tuple[Any, dict[Length, Length]]:
        """The type of a list's element inside of a loop, and how its lengths are called outside."""
        inside = {length: length.renamed() for length in lengths_in(type_)}
        return renamed(type_, inside), {own: outer for outer, own in inside.items()}

    def flat_type(self, body: Body) -> Any:
        """A type for a result: an array, more rarely several."""
        if self.choices.chance(30):
            parts = tuple(Array(self.shape()) for _ in range(2))
            return Product(parts)
        return Array(self.shape())

    def result(self, body: Body) -> Term:
        """What a function of an element gives: arrays, or a list that is visible in it."""
        visible = body.visible(List, self.enterable)
        lists = [t for t in visible if t in body.terms]
        if lists and self.choices.chance(40):
            return self.recent(lists)
        if visible and self.choices.chance(5):
            return self.recent(visible)
        return self.flat(body, self.flat_type(body))

    # --- maps ---------------------------------------------------------------------------------------------------------

    def map(self, body: Body, xs: Term) -> Term:
        """A function mapped over a list."""
        element, outside = self.entered(xs.type.element)

        def make(inner: Body, taken: list[Term]) -> Term:
            self.work(inner, 2)
            return self.result(inner)

        text, result = self.function(body, [("x", element, xs.bound)], make, xs.type.length)
        return Term(f"ff.map({text})({xs.text})", List(xs.type.length, renamed(result.type, outside)), result.bound)

    def map_indices(self, body: Body, xs: Term) -> Term | None:
        """A function of an element's index, and of the element read by it."""
        if not is_flat(xs.type.element):
            return None
        element, outside = self.entered(xs.type.element)

        def make(inner: Body, taken: list[Term]) -> Term:
            (i,) = taken
            inner.terms.clear()
            inner.add(Term(f"0.1 * {i.text}", Array(()), 0.1 * LONGEST))
            inner.add(Term(f"{xs.text}[{i.text}]", element, xs.bound))
            return self.result(inner)

        text, result = self.function(body, [("i", Class(LONGEST), 0.0)], make, xs.type.length)
        type_ = List(xs.type.length, renamed(result.type, outside))
        return Term(f"ff.map({text})(ff.indices({xs.text}))", type_, result.bound)

    def lifted(self, body: Body, xs: Term) -> Term | None:
        """A word on a list, or on lists of lists, of arrays."""
        depth, inner = 1, xs.type.element
        while isinstance(inner, List):
            depth, inner = depth + 1, inner.element
        if not isinstance(inner, Array):
            return None
        shape, b = inner.shape, xs.bound
        others = [t for t in body.visible(List) if t.type == xs.type]
        forms: list[tuple[str, float]] = [
            *SQUASHES,
            ("{a} * {n} + {v}", 1.2 * b + 1),
            ("{v} - {a}", b + 1),
            ("ff.exp(-{a} * {a})", 1.0),
        ]
        if len(others) > 1:
            forms += [("{a} + {y}", b + b), ("{a} * {y}", b * b), ("{y} / (1 + {a} * {a})", b), ("{a} * {y}", b * b)]
            forms += [("ff.concat({x}, {y})", b)] * (len(shape) == 1)
        if len(shape) == 1:
            forms += [("{a} @ {w}", b * shape[0]), ("ff.roll({x}, 1)", b)]
        form, bound = self.choices.pick(forms)
        xs = self.named(body, xs, "xs")
        y = self.recent(others) if "{y}" in form else xs
        n = self.choices.between(1, 3) if "{w}" in form else 0
        w = self.parameter((shape[0], n)).text if "{w}" in form else ""
        v = self.leaf(body, shape).atom if "{v}" in form else ""
        text = form.format(x=xs.text, a=xs.text, y=y.text, n=self.number() if "{n}" in form else "", v=v, w=w)
        made = {"ff.concat({x}, {y})": (2 * shape[0],) if shape else (), "{a} @ {w}": (n,)}.get(form, shape)
        return Term(text, self._relisted(xs.type, Array(made)), max(bound, y.bound if "{y}" in form else 0))

    def _relisted(self, type_: Any, element: Any) -> Any:
        return List(type_.length, self._relisted(type_.element, element)) if isinstance(type_, List) else element

    def zipped(self, body: Body, xs: Term) -> Term | None:
        """Lists of one length side by side."""
        others = body.visible(List, lambda type_: type_.length is xs.type.length)
        ys = self.recent(others)
        bound = max(xs.bound, ys.bound)
        turned = is_flat(ys.type.element) and self.choices.chance(20)
        text = f"ff.zip({xs.text}, {f'ff.reverse({ys.text})' if turned else ys.text})"
        return Term(text, List(xs.type.length, Product((xs.type.element, ys.type.element))), bound)

    def unzipped(self, body: Body, xs: Term) -> Term | None:
        """A list of products taken apart."""
        if not isinstance(xs.type.element, Product):
            return None
        parts = [self.names.fresh("xs") for _ in xs.type.element.parts]
        product = xs.type.element
        if product.form == "tuple":
            body.lines.append(f"{', '.join(parts)} = ff.unzip({xs.text})")
            texts = parts
        else:
            body.lines.append(f"{parts[0]} = ff.unzip({xs.text})")
            texts = product.access(parts[0])
        for text, part in zip(texts, product.parts, strict=True):
            body.add(Term(text, List(xs.type.length, part), xs.bound))
        return None

    def shifted(self, body: Body, xs: Term) -> Term | None:
        """A list moved by one place."""
        if not isinstance(xs.type.element, (Array, Class)):
            return None
        if isinstance(xs.type.element, Class):
            return Term(f"ff.shift({xs.text}, 0)", xs.type)
        first = (
            self.constant(xs.type.element.shape) if self.choices.chance(50) else self.leaf(body, xs.type.element.shape)
        )
        return Term(f"ff.shift({xs.text}, {first.text})", xs.type, max(xs.bound, first.bound))

    def reversed(self, body: Body, xs: Term) -> Term | None:
        """A list from its end; a list of lists keeps its own lengths no more."""
        if not is_flat(xs.type.element):
            return None
        return Term(f"ff.reverse({xs.text})", xs.type, xs.bound)

    def window(self, body: Body, xs: Term) -> Term | None:
        """A function of the windows of a list."""
        if not isinstance(xs.type.element, Array) or len(xs.type.element.shape) > 2:
            return None
        setting = self.window_setting(xs.type.length)
        if setting is None:
            return None
        size, words, length = setting
        window = Array((size, *xs.type.element.shape))

        def make(inner: Body, taken: list[Term]) -> Term:
            self.work(inner, 1)
            return self.flat(inner, self.flat_type(inner))

        text, result = self.function(body, [("w", window, max(xs.bound, 0.5))], make)
        return Term(f"ff.window_map({text}, {size}{words})({xs.text})", List(length, result.type), result.bound)

    def window_setting(self, length: Length) -> tuple[int, str, Length] | None:
        """A window's size, the rest of the setting as text, and how many windows there are; None if it does not fit."""
        size, stride, dilation = (self.choices.between(1, n) for n in (3, 2, 2))
        reach = dilation * (size - 1) + 1
        padding = self.choices.pick(["valid", "same", "causal", "1", "(1, 0)", "(0, 2)"])
        padded = {"valid": 0, "same": reach - 1, "causal": reach - 1, "1": 2, "(1, 0)": 1, "(0, 2)": 2}[padding]
        if padded < reach - 1:
            if not length.reaches(reach - padded):
                return None
            length.require(reach - padded)
        shown = padding if padding[0] in "1(" else f'"{padding}"'
        words = (f", stride={stride}" if stride > 1 else "") + (f", dilation={dilation}" if dilation > 1 else "")
        words += "" if padding == "valid" else f", padding={shown}"
        words += f", fill={self.number()}" if padded and self.choices.chance(30) else ""
        if stride == 1 and padded == reach - 1:
            return size, words, length
        needed = lambda n: max(0, (n - 1) * stride + reach - padded) if n else 0
        return size, words, Length(max(0, (length.least + padded - reach) // stride + 1), 0, (length, needed))

    # --- reductions ---------------------------------------------------------------------------------------------------

    def reduced(self, body: Body, xs: Term) -> Term | None:
        """A reduction of a list of arrays, an element of any list, or how long it is."""
        if self.choices.chance(15):
            return Term(f"0.1 * ff.length({xs.text})", Array(()), 0.1 * LONGEST)
        word = self.choices.pick(["sum", "mean", "max", "logsumexp", "element"])
        if isinstance(xs.type.element, Product) and word == "element":
            word = "sum"
        if word != "sum":
            if not xs.type.length.reaches(1):
                return None
            xs.type.length.require(1)
        if word == "element":
            if not is_flat(xs.type.element):
                return None
            return Term(f"{xs.text}[{self.choices.pick(['0', '-1'])}]", xs.type.element, xs.bound)
        if not isinstance(xs.type.element, Array):
            return None
        return Term(f"ff.{word}({xs.text})", xs.type.element, xs.bound * (LONGEST if word == "sum" else 1) + 1)

    def softened(self, body: Body, xs: Term) -> Term | None:
        """A softmax over a list."""
        if not isinstance(xs.type.element, Array) or not xs.type.length.reaches(1):
            return None
        xs.type.length.require(1)
        word = self.choices.pick(["softmax", "log_softmax"])
        return Term(f"ff.{word}({xs.text})", xs.type, 1.0 if word == "softmax" else 2 * xs.bound + 2)

    def attended(self, body: Body, xs: Term) -> Term | None:
        """A list summed with weights that a query gives its elements."""
        if not isinstance(xs.type.element, Array) or len(xs.type.element.shape) != 1 or not xs.type.length.reaches(1):
            return None
        xs.type.length.require(1)
        query = self.named(body, self.squashed(body, self.leaf(body, xs.type.element.shape)), "q")
        scores = self.choices.pick(
            [f"ff.map(lambda k: ff.sum(k * {query.text}))({xs.text})", f"{xs.text} @ {query.text}"]
        )
        weights = self.names.fresh("weights")
        body.lines.append(f"{weights} = ff.softmax({scores})")
        body.add(Term(weights, List(xs.type.length, Array(()))))
        others = body.visible(List, lambda type_: type_.length is xs.type.length and isinstance(type_.element, Array))
        values = self.recent([t for t in others if len(t.type.element.shape) <= 1])
        return Term(f"ff.sum({weights} * {values.text})", values.type.element, values.bound)

    def associative(self, body: Body, xs: Term) -> Term | None:
        """A reduction by an associative operation."""
        element = xs.type.element
        if not isinstance(element, Array):
            return None
        xs = self.named(body, xs, "xs")
        n = self.choices.between(1, 3)
        kind = self.choices.pick(["sum", "affine", "matrices", "logaddexp"])
        if kind == "sum":
            return Term(f"ff.reduce(lambda a, b: a + b, {self.zeros(element)})({xs.text})", element, LONGEST * xs.bound)
        if kind == "logaddexp":
            op = "lambda a, b: ff.log(ff.exp(a) + ff.exp(b))"
            squashed = f"ff.tanh({xs.text})"
            first = f"ff.full({element.shape!r}, -30.0)" if element.shape else "-30.0"
            return Term(f"ff.reduce({op}, {first})({squashed})", element, 31.0)

        def make(inner: Body, taken: list[Term]) -> Term:
            if kind == "matrices":
                return Term(f"ff.tanh({self.array(inner, (n, n)).text})", Array((n, n)))
            a, b = (self.array(inner, (n,)) for _ in range(2))
            return Term(f"(ff.sigmoid({a.text}), ff.tanh({b.text}))", Product((Array((n,)),) * 2))

        text, made = self.function(body, [("x", element, xs.bound)], make)
        op = "lambda p, q: (q[0] * p[0], q[0] * p[1] + q[1])" if kind == "affine" else "lambda a, b: a @ b"
        first = f"(ff.ones({n}), ff.zeros({n}))" if kind == "affine" else f"ff.eye({n})"
        return Term(f"ff.reduce({op}, {first})(ff.map({text})({xs.text}))", made.type, float(n**LONGEST))

    def zeros(self, type_: Array) -> str:
        return "0.0" if not type_.shape else f"ff.zeros({', '.join(map(str, type_.shape))})"
