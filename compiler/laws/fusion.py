"""Map fusion, along the data and side by side.

All maps of a body that can be one are found first and put together once, so that a chain of n maps costs n and not n².
"""

from __future__ import annotations

from collections.abc import Iterator

from ..ir import Equation, Lambda, Value, mentioned_sizes, sub_equations
from .law import Scope, law, moved
from .loop import Loop, Port

NAME = "map fusion"


class _Groups:
    """The equations of a body in groups; a group of several maps becomes one map.

    `before[g]` is the set (as bits) of the groups that must run before group g.
    """

    def __init__(self, equations: tuple[Equation, ...]):
        self.equations = equations
        self.maker: dict[Value, int] = {}
        self.group = list(range(len(equations)))
        self.members: list[list[int]] = [[i] for i in range(len(equations))]
        self.before: list[int] = []
        # Per equation, those that determine list sizes it speaks of: it stands behind them without reading them.
        self.binders: list[set[int]] = _binders(equations)
        for i, equation in enumerate(equations):
            ancestors = 0
            for j in self.binders[i]:
                ancestors |= self.before[j] | 1 << j
            for value in equation.inputs:
                j = self.maker.get(value)
                if j is not None:
                    ancestors |= self.before[j] | 1 << j
            self.before.append(ancestors)
            for value in equation.outputs:
                self.maker[value] = i

    def path_between(self, later: int, earlier: int) -> bool:
        """Whether one group depends on another otherwise than by reading its outputs element by element, or the other
        on it."""
        if self.before[earlier] >> later & 1:
            return True
        for index in self.members[later]:
            equation = self.equations[index]
            captured = equation.attributes["captured"]
            for i, value in enumerate(equation.inputs):
                maker = self.maker.get(value)
                group = later if maker is None else self.group[maker]
                if group == later:
                    continue
                if group == earlier:
                    if i < captured:
                        return True
                elif self.before[group] >> earlier & 1:
                    return True
            for maker in self.binders[index]:
                group = self.group[maker]
                if group not in (later, earlier) and self.before[group] >> earlier & 1:
                    return True
        return False

    def merge(self, source: int, target: int) -> None:
        """Put the equations of one group into another."""
        for index in self.members[source]:
            self.group[index] = target
        self.members[target] += self.members[source]
        self.members[source] = []
        mark, gone = 1 << target, 1 << source
        others = (self.before[target] | self.before[source]) & ~(mark | gone)
        self.before[target] = others
        for group, ancestors in enumerate(self.before):
            if ancestors & (mark | gone):
                self.before[group] = ancestors & ~gone | mark | others

    def ordered(self) -> Iterator[list[int]]:
        """The groups, each after those that it depends on."""
        done: set[int] = set()

        def visit(group: int) -> Iterator[list[int]]:
            stack = [(group, iter(self._direct(group)))]
            done.add(group)
            while stack:
                current, rest = stack[-1]
                for other in rest:
                    if other not in done:
                        done.add(other)
                        stack.append((other, iter(self._direct(other))))
                        break
                else:
                    stack.pop()
                    yield self.members[current]

        for group, members in enumerate(self.members):
            if members and group not in done:
                yield from visit(group)

    def _direct(self, group: int) -> list[int]:
        found: dict[int, None] = {}
        for index in self.members[group]:
            for value in self.equations[index].inputs:
                maker = self.maker.get(value)
                if maker is not None and self.group[maker] != group:
                    found[self.group[maker]] = None
            found.update((self.group[maker], None) for maker in self.binders[index] if self.group[maker] != group)
        return list(found)


def _binders(equations: tuple[Equation, ...]) -> list[set[int]]:
    bound: dict[str, int] = {}
    found: list[set[int]] = []
    for i, equation in enumerate(equations):
        found.append({bound[name] for name in mentioned_sizes([equation]) if name in bound} if bound else set())
        bound.update((name, i) for name, _ in equation.binds)
    return found


def _names_bound(equation: Equation) -> set[str]:
    return {name for body in equation.bodies for e in sub_equations(body) for name, _ in e.binds}


@law(NAME)
def map_fusion(body: Lambda, scope: Scope) -> Lambda:
    """map f . map g = map (f . g), and (map f xs, map g xs) = map (f & g) xs: maps over one size of which one reads the
    other's output element by element, or which read one list, become one map; a list between them that is read
    elsewhere stays an output. Side condition: nothing that must run between them, and neither captures the other's list
    as a whole; their bodies determine no list size of one name."""
    maps = [i for i, e in enumerate(body.equations) if e.op == "map"]
    if len(maps) < 2:
        return body
    groups = _Groups(body.equations)
    readers: dict[Value, list[int]] = {}
    bound = {i: names for i in maps if (names := _names_bound(body.equations[i]))}
    fused = False
    for index in maps:
        equation = body.equations[index]
        lists = equation.inputs[equation.attributes["captured"] :]
        candidates: dict[int, None] = {}
        for value in lists:
            maker = groups.maker.get(value)
            if maker is not None and body.equations[maker].op == "map":
                candidates[groups.group[maker]] = None
            candidates.update((groups.group[i], None) for i in readers.get(value, ()))
        for group in candidates:
            own = groups.group[index]
            if group == own:
                continue
            blocked = _blocked(groups, index, group, bound)
            if blocked is None:
                groups.merge(own, group)
                fused = True
            elif blocked:
                scope.refused(NAME, equation, blocked)
        for value in lists:
            readers.setdefault(value, []).append(index)
    if not fused:
        return body
    out: list[Equation] = []
    read: dict[Value, set[int]] = {value: {-1} for value in body.results}
    for i, equation in enumerate(body.equations):
        for value in equation.inputs:
            read.setdefault(value, set()).add(i)
    for members in groups.ordered():
        if len(members) == 1:
            out.append(body.equations[members[0]])
            continue
        out.append(_fused(body.equations, sorted(members), read))
        scope.fired(NAME, out[-1], f"{len(members)} maps over {out[-1].attributes['size']} became one")
    return Lambda(body.parameters, tuple(out), body.results)


def _blocked(groups: _Groups, index: int, group: int, bound: dict[int, set[str]]) -> str | None:
    """Why a map cannot join a group ("" where that is of no interest), or None if it can."""
    equation = groups.equations[index]
    members = groups.members[group]
    if groups.equations[members[0]].attributes["size"] != equation.attributes["size"]:
        return ""
    own = groups.members[groups.group[index]]
    if groups.path_between(groups.group[index], group):
        return "a step between the two maps needs the whole list"
    if bound and any(bound.get(i, set()) & bound.get(j, set()) for i in own for j in members):
        return "both bodies determine a list size of one name"
    return None


def _fused(equations: tuple[Equation, ...], members: list[int], read: dict[Value, set[int]]) -> Equation:
    """One map that does what several did, in order."""
    first = equations[members[0]]
    loop = Loop(
        Equation(
            "map", (), (), {"size": first.attributes["size"], "captured": 0}, (Lambda((), (), ()),), (), first.source
        )
    )
    inside: dict[Value, Value] = {}
    for index in members:
        equation = equations[index]
        (inner,) = equation.bodies
        captured = equation.attributes["captured"]
        table: dict[Value, Value] = {}
        for i, (outer, parameter) in enumerate(zip(equation.inputs, inner.parameters, strict=True)):
            if i < captured:
                table[parameter] = loop.capture(outer)
            else:
                table[parameter] = inside[outer] if outer in inside else loop.take(outer)
        loop.equations.extend(moved(inner.equations, table))
        for outer, result in zip(equation.outputs, inner.results, strict=True):
            inside[outer] = table[result]
        for name, position in equation.binds:
            loop.bound[equation.outputs[position]] = name
    fused = set(members)
    for index in members:
        for value in equations[index].outputs:
            if value in loop.bound or not read.get(value, fused) <= fused:
                loop.results.append(Port("output", value, inside[value]))
    return loop.equation()


LAWS = (map_fusion,)
