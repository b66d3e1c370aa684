"""Random arrays: elementwise words, contractions, and moves of elements, all smooth and bounded."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .random_shapes import SQUASHES, Shapes
from .random_terms import Array, Body, Class, Product, Term


class Words(Shapes):
    """Makes terms that are arrays."""

    # --- arrays -------------------------------------------------------------------------------------------------------

    def leaf(self, body: Body, shape: tuple[int, ...]) -> Term:
        """An array without much ado: something visible brought to the shape, a row of a table, a parameter."""
        arrays, classes = body.visible(Array), body.visible(Class)
        kind = self.choices.weighted([(8 * bool(arrays), "visible"), (2 * bool(classes), "class"), (1, "parameter")])
        if kind == "visible":
            return self.adapt(body, self.recent(arrays), shape)
        if kind == "class":
            return self.of_class(body, self.recent(classes), shape)
        return self.parameter(shape)

    def of_class(self, body: Body, k: Term, shape: tuple[int, ...]) -> Term:
        """An array that a whole number selects."""
        n = k.type.count
        kind = self.choices.pick(["gather", "one_hot", "where", "table", "axis"])
        if kind == "where":
            x, y = (self.leaf(body, shape) if body.visible(Array) else self.parameter(shape) for _ in range(2))
            return Term(f"ff.where({k.text} > 0, {x.text}, {y.text})", Array(shape), max(x.bound, y.bound))
        if kind == "one_hot":
            return self.adapt(body, Term(f"ff.one_hot({k.text}, {n})", Array((n,)), 1.0), shape)
        if kind == "axis" and shape:
            table = self.parameter((*shape, n))
            return Term(f"ff.take({table.text}, {k.text}, axis={len(shape)})", Array(shape), table.bound)
        table = self.parameter((n, *shape))
        text = f"ff.take({table.text}, {k.text})" if kind == "table" else f"{table.text}[{k.text}]"
        return Term(text, Array(shape), table.bound)

    def array(self, body: Body, shape: tuple[int, ...], fuel: int = 1) -> Term:
        """An array of a shape."""
        if fuel <= 0:
            return self.leaf(body, shape)
        makers: list[tuple[int, Callable[[Body, tuple[int, ...], int], Term]]] = [
            (3, self.unary),
            (3, self.binary),
            (2, self.leaf_of),
            (2 * bool(shape), self.moved),
            (2 * (len(shape) == 1), self.packed),
            (1 * bool(body.visible(Array)), self.selected),
        ]
        return self.squashed(body, self.choices.weighted(makers)(body, shape, fuel - 1))

    def leaf_of(self, body: Body, shape: tuple[int, ...], fuel: int) -> Term:
        return self.leaf(body, shape)

    def unary(self, body: Body, shape: tuple[int, ...], fuel: int) -> Term:
        """A word of one array."""
        x = self.array(body, shape, fuel)
        b = x.bound
        forms: list[tuple[str, float]] = [
            *SQUASHES,
            ("ff.cos({x})", 1.0),
            ("ff.erf({x})", 1.0),
            ("ff.exp(-{a} * {a})", 1.0),
            ("ff.log(1 + {a} * {a})", math.log(1 + b * b)),
            ("ff.sqrt(1 + {a} * {a})", 1 + b),
            ("ff.rsqrt(1 + ff.square({x}))", 1.0),
            ("ff.silu({x})", b),
            ("ff.gelu({x})", b),
            ("{a} ** 2", b * b),
            ("{a} ** 3", b**3),
            ("(1 + {a} * {a}) ** 0.7", (1 + b * b) ** 0.7),
            ("ff.log1p({a} * {a})", math.log(1 + b * b)),
            ("-{a}", b),
            ("1 - {a}", 1 + b),
        ]
        if b <= 2:
            forms += [
                ("ff.exp({x})", math.exp(b)),
                ("ff.expm1({x})", math.exp(b)),
                ("ff.exp({x}) / 3", math.exp(b) / 3),
            ]
        if shape:
            axis = self.choices.below(len(shape))
            forms += [
                (f"ff.softmax({{x}}, axis={axis})", 1.0),
                (f"ff.log_softmax({{x}}, axis={axis})", 2 * b + 2),
                (f"ff.cumsum({{x}}, axis={axis})", b * shape[axis]),
                (f"{{x}} - ff.mean({{x}}, axis={axis}, keepdims=True)", 2 * b),
                (f"{{a}} / ff.sqrt(1 + ff.sum({{a}} * {{a}}, axis={axis}, keepdims=True))", 1.0),
            ]
        form, bound = self.choices.pick(forms)
        if form.count("{") > 1:
            x = self.named(body, x)
        return Term(form.format(x=x.text, a=x.atom), Array(shape), bound)

    def binary(self, body: Body, shape: tuple[int, ...], fuel: int) -> Term:
        """An operation of two arrays, the second of which may be broadcast."""
        x = self.array(body, shape, fuel)
        small = shape
        if shape and self.choices.chance(40):
            small = self.choices.pick([shape[1:], tuple(1 if self.choices.chance(50) else n for n in shape)])
        y = self.array(body, small, fuel) if small == shape or not shape else self.leaf(body, small)
        b, c = x.bound, y.bound
        form, bound = self.choices.pick(
            [
                ("{x} + {y}", b + c),
                ("{x} * {y}", b * c),
                ("{x} - {y}", b + c),
                ("{x} * ff.sigmoid({z})", b),
                ("{x} / (1 + {y} * {y})", b),
                ("ff.arctan2({w}, 2 + {y} * {y})", 1.6),
                ("{x} * 0.3 + {y} * 0.6", b + c),
                ("{y} * {x}", b * c),
            ]
        )
        if form.count("{y}") > 1:
            y = self.named(body, y)
        return Term(form.format(x=x.atom, y=y.atom, z=y.text, w=x.text), Array(shape), bound)

    def packed(self, body: Body, shape: tuple[int, ...], fuel: int) -> Term:
        """A contraction of a concatenation, or a part of one contraction."""
        (n,) = shape
        sources = [t for t in body.visible(Array) if len(t.type.shape) == 1]
        if not sources:
            return self.adapt(body, self.leaf(body, (2,)), shape)
        x, y = self.recent(sources), self.recent(sources)
        m = x.type.shape[0] + y.type.shape[0]
        both = Term(f"ff.concat({x.text}, {y.text})", Array((m,)), max(x.bound, y.bound))
        kind = self.choices.pick(["plain", "chunk", "slice", "gates"])
        if kind == "plain":
            return Term(f"{both.text} @ {self.parameter((m, n)).text}", Array(shape), m * both.bound)
        operand = both if self.choices.chance(50) else x
        packed = Term(
            f"{operand.text} @ {self.parameter((operand.type.shape[0], 2 * n)).text}", Array((2 * n,)), m * both.bound
        )
        if kind == "slice":
            packed = self.named(body, packed)
            part = f"{packed.text}[:{n}]" if self.choices.chance(50) else f"{packed.text}[{n}:]"
            return Term(part, Array(shape), packed.bound)
        first, second = self.names.fresh("i"), self.names.fresh("f")
        body.lines.append(f"{first}, {second} = ff.chunk({packed.text}, 2)")
        for name in (first, second):
            body.add(Term(name, Array(shape), packed.bound))
        if kind == "chunk":
            return Term(f"ff.tanh({first}) + 0.5 * ff.tanh({second})", Array(shape), 1.5)
        return Term(f"ff.sigmoid({first}) * ff.tanh({second})", Array(shape), 1.0)

    def moved(self, body: Body, shape: tuple[int, ...], fuel: int) -> Term:
        """An array whose elements were moved."""
        axis = self.choices.below(len(shape))
        n = shape[axis]
        kind = self.choices.pick(["roll", "flip", "concat", "slice", "stack", "reshape", "transpose", "take"])
        at = f", axis={axis}"
        if kind in ("roll", "flip", "take"):
            x = self.array(body, shape, fuel)
            text = {
                "roll": f"ff.roll({x.text}, {self.choices.pick([1, -1, 2])}{at})",
                "flip": f"ff.flip({x.text}{at})",
                "take": f"ff.take({x.text}, ff.arange({n})[::-1].copy(){at})",
            }[kind]
            return Term(text, Array(shape), x.bound)
        if kind == "concat" and n > 1:
            cut = self.choices.between(1, n - 1)
            parts = [self.leaf(body, (*shape[:axis], m, *shape[axis + 1 :])) for m in (cut, n - cut)]
            return Term(f"ff.concat({parts[0].text}, {parts[1].text}{at})", Array(shape), max(p.bound for p in parts))
        if kind == "slice":
            big = (*shape[:axis], n + 1, *shape[axis + 1 :])
            x = self.named(body, self.array(body, big, fuel))
            key = ", ".join([":"] * axis + [self.choices.pick([f":{n}", "1:"])])
            return Term(f"{x.text}[{key}]", Array(shape), x.bound)
        if kind == "stack" and axis == 0 and n <= 2:
            parts = [self.leaf(body, shape[1:]) for _ in range(n)]
            return Term(f"ff.stack({', '.join(p.text for p in parts)})", Array(shape), max(p.bound for p in parts))
        if kind == "transpose" and len(shape) == 2:
            x = self.array(body, shape[::-1], fuel)
            return Term(
                f"{x.atom}.T" if self.choices.chance(50) and x.text.isidentifier() else f"ff.transpose({x.text})",
                Array(shape),
                x.bound,
            )
        x = self.array(body, (math.prod(shape),), fuel)
        return Term(f"ff.reshape({x.text}, {shape!r})", Array(shape), x.bound)

    def selected(self, body: Body, shape: tuple[int, ...], fuel: int) -> Term:
        """One of two arrays: by a comparison far from its edge, or by a branch."""
        x, y = self.leaf(body, shape), self.leaf(body, shape)
        classes = body.visible(Class)
        if classes and self.choices.chance(50):
            k = self.recent(classes)
            branches = ", ".join(f"lambda: {t.text}" for t in ([x, y] * k.type.count)[: k.type.count])
            return Term(f"ff.switch({k.text}, [{branches}])", Array(shape), max(x.bound, y.bound))
        c = self.leaf(body, ())
        return Term(f"ff.where({c.atom} > 0.3711, {x.text}, {y.text})", Array(shape), max(x.bound, y.bound))

    # --- whole numbers and products -----------------------------------------------------------------------------------

    def whole(self, body: Body, count: int) -> Term:
        """A whole number below a count."""
        found = body.visible(Class, lambda type_: type_.count <= count)
        if found and self.choices.chance(70):
            return Term(self.recent(found).text, Class(count))
        x = self.leaf(body, (count,))
        return Term(f"ff.argmax({x.text})", Class(count))

    def flat(self, body: Body, type_: Any, fuel: int = 1) -> Term:
        """An array, a whole number or a product of them."""
        if isinstance(type_, Array):
            return self.array(body, type_.shape, fuel)
        if isinstance(type_, Class):
            return self.whole(body, type_.count)
        assert isinstance(type_, Product)
        parts = [self.flat(body, part, fuel) for part in type_.parts]
        return Term(type_.make([p.text for p in parts]), type_, max(p.bound for p in parts))
