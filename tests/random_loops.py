"""Random loops: folds, scans, generated lists, gradients inside of programs."""

from __future__ import annotations

from typing import Any

from .random_lists import Lists
from .random_terms import LONGEST, Array, Body, Class, Length, List, Product, Term, renamed


class Loops(Lists):
    """Makes terms with the combinators that carry something along."""

    # --- loops --------------------------------------------------------------------------------------------------------

    def carry_type(self, body: Body) -> Any:
        """The type of a carry: one array, or several."""
        kind = self.choices.weighted([(6, "array"), (3, "tuple"), (1, "Pair"), (1, "dict"), (1, "list"), (1, "three")])
        if kind == "list":
            lists = body.visible(List, lambda type_: isinstance(type_.element, Array))
            return self.recent(lists).type if lists else Array((2,))
        if kind == "array":
            return Array(self.shape())
        count = 3 if kind == "three" else 2
        parts = tuple(Array(self.shape()) for _ in range(count))
        return {
            "tuple": Product(parts),
            "three": Product(parts),
            "Pair": Product(parts, "Pair", ("h", "c")),
            "dict": Product(parts, "dict", ("slow", "fast")),
        }[kind]

    def initial(self, body: Body, type_: Any, constant: bool = False) -> Term:
        """A first carry."""
        if isinstance(type_, List):
            return self.recent(body.visible(List, lambda own: own == type_))
        if isinstance(type_, Product):
            parts = [self.initial(body, part, constant) for part in type_.parts]
            return Term(type_.make([p.text for p in parts]), type_, max(p.bound for p in parts))
        if isinstance(type_, Class):
            return Term("0", type_)
        kind = "constant" if constant else self.choices.pick(["constant", "parameter", "traced"])
        if kind == "constant":
            return self.constant(type_.shape)
        return (
            self.parameter(type_.shape) if kind == "parameter" else self.squashed(body, self.array(body, type_.shape))
        )

    def recurrence(self, body: Body, h: Term) -> Term:
        """A new carry in place of h, no larger for it (sums grow with the length)."""
        if isinstance(h.type, List):
            text, made = self.function(
                body,
                [("v", h.type.element, h.bound)],
                lambda inner, _: self.squashed(inner, self.array(inner, h.type.element.shape), True),
            )
            return Term(f"ff.map({text})({h.text})", h.type, made.bound)
        shape = h.type.shape
        kind = self.choices.pick(
            ["tanh", "gated", "leaky", "sum", "decayed", "free", "same", "sine", "count", "max", "outer"]
        )
        if kind == "same":
            return h
        if kind == "tanh" and len(shape) == 1:
            drive = self.array(body, shape)
            recurrent = f"{h.text} @ {self.parameter((shape[0], shape[0])).text}"
            return Term(f"ff.tanh({recurrent} + {drive.text})", h.type)
        drive = self.array(body, shape)
        if kind == "gated":
            gate = self.let(body, Term(f"ff.sigmoid({self.array(body, shape).text})", h.type), "z")
            return Term(
                f"{gate.text} * {h.text} + (1 - {gate.text}) * ff.tanh({drive.text})", h.type, max(1.0, h.bound)
            )
        if kind == "outer" and len(shape) == 2:
            k, v = (self.squashed(body, self.leaf(body, (n,)), True) for n in shape)
            k = self.named(body, k, "k")
            return Term(f"0.9 * {h.text} + {k.text}[:, None] * {v.atom}", h.type, h.bound + LONGEST * k.bound * v.bound)
        bound = max(1.0, h.bound)
        return {
            "leaky": Term(f"0.6 * {h.text} + 0.4 * ff.tanh({drive.text})", h.type, bound),
            "sum": Term(f"{h.text} + ff.tanh({drive.text})", h.type, h.bound + LONGEST),
            "count": Term(f"{h.text} + 1.0", h.type, h.bound + LONGEST),
            "decayed": Term(f"{h.text} * ff.sigmoid({drive.text})", h.type, h.bound),
            "free": Term(f"ff.tanh({drive.text})", h.type, 1.0),
            "sine": Term(f"ff.sin({h.text} * 1.3 + {drive.text})", h.type, 1.0),
            "max": Term(f"ff.maximum({h.text}, ff.tanh({drive.text}))", h.type, bound),
        }.get(kind, Term(f"ff.tanh({h.text} + {drive.text})", h.type, 1.0))

    def new_carry(self, body: Body, carry: Term) -> Term:
        """The whole new carry."""
        if not isinstance(carry.type, Product):
            return self.recurrence(body, carry)
        parts, texts = [], carry.type.access(carry.text)
        for text, part in zip(texts, carry.type.parts, strict=True):
            made = self.recurrence(body, self.let(body, Term(text, part, carry.bound), "h"))
            parts.append(self.let(body, made, "h") if self.choices.chance(30) else made)
        return Term(carry.type.make([p.text for p in parts]), carry.type, max(p.bound for p in parts))

    def loop(self, body: Body, xs: Term, fold: bool) -> Term:
        """A fold or a scan."""
        carry = self.carry_type(body)
        form = self.choices.weighted([(5, "value"), (2, "pair"), (2, "function")])
        if isinstance(carry, List) and form == "function":
            form = "value"
        first = self.initial(body, carry, form == "function")
        element, outside = self.entered(xs.type.element)
        together = isinstance(carry, List) or self.choices.chance(40)
        outputs: list[Term] = []

        def make(inner: Body, taken: list[Term]) -> Term:
            self.work(inner, 2)
            new = self.new_carry(inner, taken[0])
            if together or (fold and self.choices.chance(70)):
                return new
            if self.choices.chance(50) and isinstance(new.type, Array):
                new = self.let(inner, new, "h")
            outputs.append(self.result(inner))
            return Term(f"({new.text}, {outputs[0].text})", None, new.bound)

        step, new = self.function(body, [("h", carry, first.bound + 2), ("x", element, xs.bound)], make, xs.type.length)
        output = outputs[0] if outputs else Term("", carry, new.bound)
        words = ["reverse=True"] if self.choices.chance(30) else []
        final = not fold and self.choices.chance(25)
        words += ["final=True"] if final else []
        if form != "pair":
            words.insert(0, f"init={f'lambda x: {first.text}' if form == 'function' else first.text}")
        expression = f"ff.{'fold' if fold else 'scan'}({', '.join([step, *words])})"
        text = f"{expression}(({first.text}, {xs.text}))" if form == "pair" else f"{expression}({xs.text})"
        bound = max(new.bound, first.bound) + 2
        if fold:
            return Term(text, carry, bound)
        ys = List(xs.type.length, renamed(output.type, outside))
        return Term(text, Product((carry, ys)) if final else ys, max(bound, output.bound))

    def unfold(self, body: Body, until: bool) -> Term:
        """A generated list."""
        carry = Product((Array(self.shape()), Array(()))) if until else self.carry_type(body)
        if isinstance(carry, List):
            carry = Array((2,))
        first = self.initial(body, carry)
        if not until and self.choices.chance(35):
            return self.fed_back(body)

        def make(inner: Body, taken: list[Term]) -> Term:
            self.work(inner, 1)
            if until:
                h = Term(f"{taken[0].text}[0]", carry.parts[0], taken[0].bound)
                h = self.let(inner, self.recurrence(inner, h), "h")
                spent = Term(f"{taken[0].text}[1] + 0.2 + ff.sigmoid({self.array(inner, ()).text})", Array(()))
                spent = self.let(inner, spent, "spent")
                return Term(
                    f"(({h.text}, {spent.text}), ({spent.text}, {h.text}))", Product((Array(()), h.type)), h.bound
                )
            new = self.new_carry(inner, taken[0])
            if isinstance(new.type, Array) and self.choices.chance(50):
                return new
            output = self.flat(inner, self.flat_type(inner))
            return Term(f"({new.text}, {output.text})", output.type, max(new.bound, output.bound))

        step, made = self.function(body, [("s", carry, first.bound + 2)], make)
        bound = max(made.bound, first.bound) + 2
        if until:
            stop = f"until=lambda y: y[0] > {self.choices.pick(['1.2137', '0.6123', '2.0411'])}, max_length={LONGEST}"
            length = Length(1, 1)
        else:
            n = self.choices.below(LONGEST)
            stop, length = f"length={n}", Length.fixed(n)
        text = (
            f"ff.unfold({step}, {stop})({first.text})"
            if self.choices.chance(50)
            else f"ff.unfold({step}, init={first.text}, {stop})"
        )
        return Term(text, List(length, made.type), bound + LONGEST)

    def fed_back(self, body: Body) -> Term:
        """A generated list whose step hears its last output: numbers, or classes."""
        h = Array((self.choices.between(1, 3),))
        whole = self.choices.chance(40)
        heard: Any = Class(3) if whole else Array((self.choices.between(1, 2),))
        n = self.choices.below(LONGEST)
        first = self.initial(body, Product((h, heard)))

        def make(inner: Body, taken: list[Term]) -> Term:
            new = self.let(inner, self.recurrence(inner, taken[0]), "h")
            logits = self.leaf(inner, (3,)) if whole else Term(f"ff.tanh({self.leaf(inner, heard.shape).text})", heard)
            return Term(f"({new.text}, {logits.text})", None)

        step, _ = self.function(body, [("h", h, first.bound + 2), ("y", heard, 1.0)], make)
        choose = (
            self.choices.pick(["ff.greedy", "ff.sample(0.8)"])
            if whole
            else self.choices.pick(["lambda y: y", "ff.sin"])
        )
        text = f"ff.unfold(ff.feedback({step}, {choose}), length={n})({first.text})"
        return Term(text, List(Length.fixed(n), heard), 2.0)

    # --- gradients ----------------------------------------------------------------------------------------------------

    def gradient(self, body: Body) -> Term | None:
        """The gradient of a function, as a value of the program."""
        arrays = body.visible(Array)
        if not arrays:
            return None
        at = self.recent(arrays)

        def make(inner: Body, taken: list[Term]) -> Term:
            self.work(inner, 1)
            x = self.array(inner, taken[0].type.shape)
            tied = Term(f"{x.atom} * ff.sin({taken[0].text})", x.type, x.bound)
            return self.adapt(inner, tied, ()) if at.type.shape else tied

        loss, _ = self.function(body, [("v", at.type, at.bound)], make)
        if self.choices.chance(30):
            value, slope = self.names.fresh("loss"), self.names.fresh("g")
            body.lines.append(f"{value}, {slope} = ff.value_and_grad({loss})({at.text})")
            body.add(Term(value, Array(()), 10.0))
            return Term(f"ff.arctan({slope})", at.type, 1.6)
        return Term(f"ff.tanh(ff.grad({loss})({at.text}))", at.type, 1.0)
