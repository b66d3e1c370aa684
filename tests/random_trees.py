"""Random combinators of trees and grids."""

from __future__ import annotations

from typing import Any

from .random_loops import Loops
from .random_terms import LONGEST, Array, Body, Grid, Length, List, Product, Term, Tree


class TreesAndGrids(Loops):
    """Makes terms with the combinators of trees and grids."""

    # --- trees --------------------------------------------------------------------------------------------------------

    def tree_map(self, body: Body, tree: Term) -> Term:
        """A function of every node's value."""
        text, result = self.function(
            body, [("x", tree.type.element, tree.bound)], lambda inner, _: self.flat(inner, Array(self.shape()))
        )
        type_ = Tree(tree.type.length, result.type, tree.type.arity, tree.type.kinds)
        return Term(f"ff.map({text})({tree.text})", type_, result.bound)

    def cata(self, body: Body, tree: Term) -> Term:
        """A tree folded to its root, or to a result for every node."""
        result = Array((self.choices.between(1, 3),))
        if self.choices.chance(30):
            result = Product((result, Array((self.choices.between(1, 2),))))
        element = ("x", tree.type.element, tree.bound)
        with_leaf = tree.type.arity is not None or self.choices.chance(50)
        # A node function that is given a leaf's too has one child at least.
        arity = Length.fixed(tree.type.arity) if tree.type.arity else Length(int(with_leaf), int(with_leaf))
        kids = ("kids", List(arity, result), 1.0)
        make = self._node if with_leaf else self._open_node
        nodes = [
            self.function(body, [element, kids], lambda inner, taken: make(inner, taken, result), tree.type.length)[0]
            for _ in tree.type.kinds or [""]
        ]
        node = nodes[0]
        if tree.type.kinds:
            node = "{" + ", ".join(f'"{kind}": {text}' for kind, text in zip(tree.type.kinds, nodes, strict=True)) + "}"
        words = [node]
        if with_leaf:
            leaf, _ = self.function(
                body, [element], lambda inner, taken: self._squashed(inner, result), tree.type.length
            )
            words.append(f"leaf={leaf}")
        every = self.choices.chance(40)
        words += ["every=True"] if every else []
        return Term(f"ff.cata({', '.join(words)})({tree.text})", List(tree.type.length, result) if every else result)

    def _squashed(self, body: Body, type_: Any) -> Term:
        if isinstance(type_, Product):
            return Term(type_.make([self._squashed(body, part).text for part in type_.parts]), type_)
        return self.squashed(body, self.array(body, type_.shape), True)

    def _node(self, body: Body, taken: list[Term], result: Any) -> Term:
        """A node of known result: any statements on the list of the children's results."""
        kids = taken[1]
        if kids.type.length.least == 2 and self.choices.chance(70):
            names = [self.names.fresh("kid") for _ in range(2)]
            body.lines.append(f"{', '.join(names)} = {kids.text}")
            for name in names:
                body.add(Term(name, result))
        else:
            whole = Term(f"ff.sum({kids.text})", result, float(LONGEST))
            if isinstance(result, Product):
                mapped = f"ff.map(lambda r: r[0])({kids.text})"
                whole = Term(f"ff.sum({mapped})", result.parts[0], float(LONGEST))
            self.let(body, whole, "total")
            self.work(body, 2)
        return self._squashed(body, result)

    def _open_node(self, body: Body, taken: list[Term], result: Any) -> Term:
        """A node whose result is inferred: a child-sum unit."""
        x, kids = taken
        body.terms = [t for t in body.terms if t is not kids]
        if isinstance(result, Product):
            (n,), (m,) = (part.shape for part in result.parts)
            gate, drive = self.let(body, self.array(body, (m,)), "gate"), self.array(body, (n,))
            u, v = self.parameter((n, m)), self.parameter((m, n))
            kept = f"ff.sum(ff.map(lambda r: ff.sigmoid({gate.text} + r[0] @ {u.text}) * r[1])({kids.text}))"
            c = self.let(body, Term(f"ff.tanh({gate.text} + {kept})", result.parts[1]), "c")
            return Term(f"(ff.tanh({drive.text} + {c.text} @ {v.text}), {c.text})", result)
        (n,) = result.shape
        drive, u = self.let(body, self.array(body, (n,)), "drive"), self.parameter((n, n))
        summed = self.choices.pick(
            [
                f"ff.sum({kids.text}) @ {u.text}",
                f"ff.sum(ff.map(lambda r: ff.tanh(r @ {u.text}))({kids.text}))",
                f"ff.sum(ff.map(lambda r: ff.sigmoid({drive.text} + r @ {u.text}) * r)({kids.text}))",
            ]
        )
        return Term(f"ff.tanh({drive.text} + {summed})", result)

    # --- grids --------------------------------------------------------------------------------------------------------

    def grid(self, body: Body, xs: Term) -> Term | None:
        """A grid in place of a grid, or a number for it."""
        b, element, lengths = xs.bound, xs.type.element, xs.type.lengths
        kind = self.choices.pick(["window", "map", "lift", "sum", "mean", "conv", "pool", "softmax"])
        if kind in ("mean", "softmax"):
            if not all(n.reaches(1) for n in lengths):
                return None
            for n in lengths:
                n.require(1)
        if kind == "sum":
            return Term(f"ff.sum({xs.text})", element, b * LONGEST**2)
        if kind == "mean":
            return Term(f"ff.mean({xs.text})", element, b)
        if kind == "softmax":
            return Term(f"ff.softmax({xs.text})", xs.type)
        if kind == "map":
            text, result = self.function(
                body, [("x", element, b)], lambda inner, _: self.array(inner, (self.choices.between(1, 3),))
            )
            return Term(f"ff.map({text})({xs.text})", Grid(lengths, result.type), result.bound)
        if kind == "lift":
            others = body.visible(Grid, lambda type_: type_ == xs.type)
            form = self.choices.pick(["ff.tanh({x})", "{x} + {y}", "{x} * ff.sigmoid({y})", "ff.tanh({x} * {v} + {y})"])
            y, v = self.recent(others), self.parameter(element.shape).text if "{v}" in form else ""
            return Term(form.format(x=xs.text, y=y.text, v=v), xs.type, b + y.bound)
        first, second = (self.window_setting(n) for n in lengths)
        if first is None or second is None:
            return None
        # One setting for both dimensions is written as a number; strides and paddings of two are tuples.
        sizes, made = f"({first[0]}, {second[0]})", (first[2], second[2])
        if first[1] != second[1]:
            for n in lengths:
                if not n.reaches(3):
                    return None
                n.require(3)
            first = second = (1, "", lengths[0])
            sizes, made = "2", tuple(Length(0, 0, (n, lambda k: k + 1)) for n in lengths)
            first = (2, "", made[0])
            second = (2, "", made[1])
        elif "(" in first[1]:
            return None
        (n,), count = element.shape, first[0] * second[0]
        if kind == "conv":
            m = self.choices.between(1, 3)
            name = self.names.fresh("conv")
            words = first[1].split(", fill=")[0]
            self.head.append(f'{name} = ff.conv({m}, {sizes if sizes != "2" else "(2, 2)"}{words}, name="{name}")')
            return Term(f"{name}({xs.text})", Grid(made, Array((m,))), b * count * n + 1)
        if kind == "pool":
            text, result = "lambda w: ff.mean(w, axis=(0, 1))", Term("", element, b)
        else:
            window = Array((first[0] * second[0], n))

            def make(inner: Body, taken: list[Term]) -> Term:
                flat = self.let(inner, Term(f"ff.reshape({taken[0].text}, {window.shape})", window, b), "flat")
                inner.terms = [flat]
                return self.array(inner, (self.choices.between(1, 2),))

            text, result = self.function(body, [("w", Array((first[0], second[0], n)), max(b, 0.5))], make)
        return Term(f"ff.window_map({text}, {sizes}{first[1]})({xs.text})", Grid(made, result.type), result.bound)
