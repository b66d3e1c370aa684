"""The first layer of the generator: names, parameters, and arrays brought from one shape to another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .random_terms import Array, Body, Choices, Names, Term

LARGE = 5.0
"""What may become larger is squashed."""

SQUASHES = (
    ("ff.tanh({x})", 1.0),
    ("ff.sigmoid({x})", 1.0),
    ("ff.sin({x})", 1.0),
    ("ff.arctan({x})", 1.6),
    ("{a} / (1 + {a} * {a})", 0.5),
    ("{a} / ff.sqrt(1 + {a} * {a})", 1.0),
)


class Shapes:
    """Brings arrays from one shape to another.

    Arguments:
        choices: where decisions come from.
    """

    def __init__(self, choices: Choices):
        self.choices = choices
        self.names = Names()
        self.parameters: list[Term] = []
        self.head: list[str] = []

    # --- helpers ------------------------------------------------------------------------------------------------------

    def let(self, body: Body, term: Term, hint: str) -> Term:
        """Bind a term to a name."""
        name = self.names.fresh(hint)
        body.lines.append(f"{name} = {term.text}")
        named = Term(name, term.type, term.bound)
        body.add(named)
        return named

    def named(self, body: Body, term: Term, hint: str = "a") -> Term:
        """A term that may be written more than once."""
        return term if term.text.isidentifier() else self.let(body, term, hint)

    def parameter(self, shape: tuple[int, ...]) -> Term:
        """A parameter, a new one or one that is used already."""
        made = [p for p in self.parameters if p.type.shape == shape]
        if made and self.choices.chance(40):
            return self.choices.pick(made)
        name = self.names.fresh("W" if len(shape) > 1 else "b")
        self.head.append(f'{name} = ff.param({shape!r}, "{name}")')
        self.parameters.append(Term(name, Array(shape), 1.0))
        return self.parameters[-1]

    def dense(self, body: Body, x: Term, n: int) -> Term:
        """A dense layer of its own."""
        name = self.names.fresh("dense")
        self.head.append(f'{name} = ff.dense({n}, name="{name}")')
        return Term(f"{name}({x.text})", Array((n,)), x.bound * x.type.shape[-1] + 1)

    def shape(self) -> tuple[int, ...]:
        """A small shape."""
        rank = self.choices.weighted([(5, 1), (3, 0), (2, 2)])
        return tuple(self.choices.between(1, 3) for _ in range(rank))

    def number(self) -> str:
        return self.choices.pick(["0.5", "0.3", "1.2", "-0.7"])

    def constant(self, shape: tuple[int, ...]) -> Term:
        """A constant."""
        if not shape:
            return Term(self.number(), Array(()), 1.2)
        texts = [f"ff.zeros{shape if len(shape) > 1 else f'({shape[0]})'}", f"ff.full({shape!r}, {self.number()})"]
        if len(shape) == 1:
            texts.append(f"ff.linspace(-0.6, 0.8, {shape[0]})")
        if len(shape) == 2 and shape[0] == shape[1]:
            texts.append(f"ff.eye({shape[0]})")
        return Term(self.choices.pick(texts), Array(shape), 1.2)

    def squashed(self, body: Body, x: Term, always: bool = False) -> Term:
        """A term, made small where it may be large."""
        if x.bound <= LARGE and not always:
            return x
        form, bound = self.choices.pick(SQUASHES)
        if "{a}" in form:
            x = self.named(body, x)
        return Term(form.format(x=x.text, a=x.atom), x.type, bound)

    def recent(self, terms: Sequence[Term]) -> Term:
        """One of the terms, rather a near one."""
        return terms[min(self.choices.below(len(terms)), self.choices.below(len(terms)))]

    def leaf(self, body: Body, shape: tuple[int, ...]) -> Term:
        """An array without much ado."""
        raise NotImplementedError

    # --- from one shape to another ------------------------------------------------------------------------------------

    def adapt(self, body: Body, x: Term, shape: tuple[int, ...]) -> Term:
        """An array brought to another shape, by contractions, reductions, broadcasts."""
        own = x.type.shape
        if own == shape:
            return x
        if len(own) > 2:
            return self.adapt(body, Term(f"ff.sum({x.text}, axis=0)", Array(own[1:]), x.bound * own[0]), shape)
        if len(shape) > 2:
            table = self.parameter(shape)
            scalar = self.adapt(body, x, ())
            return Term(f"{scalar.atom} * {table.text}", Array(shape), scalar.bound)
        return getattr(self, f"_from_{len(own)}_to_{len(shape)}")(body, x, own, shape)

    def _from_0_to_1(self, body: Body, x: Term, own: Any, shape: tuple[int, ...]) -> Term:
        form = self.choices.pick(["{a} * {w}", "{a} + {w}", "ff.broadcast_to({x}, {s!r})"])
        w = self.parameter(shape).text if "{w}" in form else ""
        return Term(form.format(a=x.atom, x=x.text, w=w, s=shape), Array(shape), x.bound + 1)

    _from_0_to_2 = _from_0_to_1

    def _from_1_to_0(self, body: Body, x: Term, own: Any, shape: Any) -> Term:
        (n,) = own
        b = x.bound
        form, bound = self.choices.pick(
            [
                ("ff.sum({x})", b * n),
                ("{a} @ {w}", b * n),
                ("ff.mean({x})", b),
                ("{a}[{i}]", b),
                ("ff.logsumexp({x})", b + math.log(n)),
                ("ff.sum({a} * {w})", b * n),
                ('ff.einsum("i,i->", {x}, {w})', b * n),
                ("ff.max({a} + {c})", b + 1),
                ("ff.var({x})", b * b),
                ("ff.sum({a} * {a})", b * b * n),
            ]
        )
        if form.count("{a}") > 1 or "[" in form:
            x = self.named(body, x)
        w = self.parameter(own).text if "{w}" in form else ""
        c = f"ff.linspace(0.0, 0.9, {n})"
        return Term(
            form.format(x=x.text, a=x.atom, w=w, i=self.choices.between(0, n - 1) if "{i}" in form else 0, c=c),
            Array(()),
            bound,
        )

    def _from_1_to_1(self, body: Body, x: Term, own: tuple[int], shape: tuple[int]) -> Term:
        (n,), (m,) = own, shape
        kinds = ["matmul", "dense", "einsum"] + ["slice"] * (n > m) + ["concat"] * (n < m) + ["left"]
        kind = self.choices.pick(kinds)
        if kind == "dense":
            return self.dense(body, x, m)
        if kind == "slice":
            x = self.named(body, x)
            return Term(f"{x.text}[{self.choices.pick([f':{m}', f'{n - m}:'])}]", Array(shape), x.bound)
        if kind == "concat":
            return Term(f"ff.concat({x.text}, {self.parameter((m - n,)).text})", Array(shape), max(1.0, x.bound))
        if kind == "einsum":
            return Term(f'ff.einsum("i,ji->j", {x.text}, {self.parameter((m, n)).text})', Array(shape), n * x.bound)
        if kind == "left":
            return Term(f"{self.parameter((m, n)).text} @ {x.atom}", Array(shape), n * x.bound)
        return Term(f"{x.atom} @ {self.parameter((n, m)).text}", Array(shape), n * x.bound)

    def _from_1_to_2(self, body: Body, x: Term, own: tuple[int], shape: tuple[int, int]) -> Term:
        (k,), (n, m) = own, shape
        if k == n and self.choices.chance(60):
            x = self.named(body, x)
            other = self.leaf(body, (m,)) if self.choices.chance(50) else self.parameter((m,))
            form = self.choices.pick(["{x}[:, None] * {w}", "ff.outer({x}, {v})"])
            return Term(form.format(x=x.text, w=other.atom, v=other.text), Array(shape), x.bound * other.bound)
        if k == m and self.choices.chance(60):
            return Term(f"{self.parameter((n, 1)).text} * {x.atom}", Array(shape), x.bound)
        w = self.parameter((k, n * m))
        return Term(f"ff.reshape({x.atom} @ {w.text}, {n}, {m})", Array(shape), k * x.bound)

    def _from_2_to_0(self, body: Body, x: Term, own: tuple[int, int], shape: Any) -> Term:
        n, m = own
        b = x.bound
        form, bound = self.choices.pick(
            [
                ("ff.sum({x})", b * n * m),
                ("ff.mean({x})", b),
                ("{a}[{i}, {j}]", b),
                ("ff.sum(ff.softmax({x}, axis=0) * {w})", m),
                ('ff.einsum("ij,ij->", {x}, {w})', b * n * m),
                ("{v} @ {a} @ {u}", b * n * m),
            ]
        )
        if "[{" in form:
            x = self.named(body, x)
        fill = {"x": x.text, "a": x.atom, "i": n - 1, "j": self.choices.below(m) if "{j}" in form else 0}
        fill["w"] = self.parameter(own).text if "{w}" in form else ""
        fill["v"], fill["u"] = (self.parameter((k,)).text if "{v}" in form else "" for k in own)
        return Term(form.format(**fill), Array(()), bound)

    def _from_2_to_1(self, body: Body, x: Term, own: tuple[int, int], shape: tuple[int]) -> Term:
        (n, m), (k,) = own, shape
        if k == m:
            form = self.choices.pick(
                ["ff.sum({x}, axis=0)", "{v} @ {a}", "ff.mean({x}, axis=0)", "{x}[{i}]", "ff.logsumexp({x}, axis=0)"]
            )
            if "[" in form:
                x = self.named(body, x)
            v = self.leaf(body, (n,)) if "{v}" in form else None
            text = form.format(x=x.text, a=x.atom, v=v.atom if v else "", i=n - 1)
            return Term(text, Array(shape), x.bound * n * (v.bound if v else 1) + 2)
        if k == n:
            form = self.choices.pick(["ff.sum({x}, axis=1)", "{a} @ {v}", "ff.mean({x}, dim=1)", "{x}[:, {j}]"])
            if "[" in form:
                x = self.named(body, x)
            v = self.leaf(body, (m,)) if "{v}" in form else None
            text = form.format(x=x.text, a=x.atom, v=v.atom if v else "", j=m - 1)
            return Term(text, Array(shape), x.bound * m * (v.bound if v else 1) + 2)
        if k == n * m:
            return Term(f"ff.reshape({x.text}, -1)", Array(shape), x.bound)
        return self._from_1_to_1(body, Term(f"ff.sum({x.text}, axis=0)", Array((m,)), x.bound * n), (m,), shape)

    def _from_2_to_2(self, body: Body, x: Term, own: tuple[int, int], shape: tuple[int, int]) -> Term:
        (a, b), (n, m) = own, shape
        if (b, a) == shape:
            return Term(f"ff.transpose({x.text})", Array(shape), x.bound)
        if a != n:
            x = Term(f"{self.parameter((n, a)).text} @ {x.atom}", Array((n, b)), a * x.bound)
        if b != m:
            x = Term(f"{x.atom} @ {self.parameter((b, m)).text}", Array(shape), b * x.bound)
        return x
