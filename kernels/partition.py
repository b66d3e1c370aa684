"""Which kernels a flat program becomes: the values that lie in memory, and what is computed together.

A scan is a kernel; cheap equations before it are computed where they are read. What is left over one iteration space,
with nothing in between that must come first, is one pointwise kernel. Matrix products outside of loops, sums over whole
lists and what no kernel is made of are the evaluator's, which has the vendor's library.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..compiler.sizes import flat_size
from .expressions import Dimension
from .flat import FlatEquation, FlatOpaque, FlatProgram, FlatScan, FlatValue, Item, Reference, rounds
from .groups import Alias, Group


@dataclass(eq=False)
class KernelStep:
    """One launch: its group, and the level at which it can run."""

    group: Group
    level: int = 0


@dataclass(eq=False)
class EvaluatorStep:
    """Equations that the evaluator computes.

    Attributes:
        item: the equation.
        reason: why no kernel is made of it.
    """

    item: FlatEquation | FlatOpaque
    reason: str
    level: int = 0


Step = KernelStep | EvaluatorStep


@dataclass
class Partition:
    """The steps of a program, in order, and where values lie inside of others."""

    program: FlatProgram
    steps: list[Step]
    aliases: dict[FlatValue, Alias] = field(default_factory=dict)
    ragged: frozenset[str] = frozenset()

    @property
    def over(self) -> dict[str, tuple[str, ...]]:
        """Per size whose lists are of several lengths, the sizes of the lists that these vary with; the last segment of
        a list is shorter than the others."""
        over = {name: outer for name, outer in self.program.over.items() if name in self.ragged}
        for name, (size, length) in self.program.segments.items():
            outer = {o for n in size.names() for o in over.get(n, ())}
            over[name] = (*outer, str(size.quotient(length - 1, length)))
        return over


def partition(program: FlatProgram, vendor: bool = True, ragged: frozenset[str] = frozenset()) -> Partition:
    """The steps of a program.

    Arguments:
        program: a flat program.
        vendor: whether contractions outside of loops go to the vendor's library.
        ragged: the sizes that have a table of lengths.

    Example:
        >>> [type(step).__name__ for step in partition(flatten(forward)).steps]
        ['EvaluatorStep', 'KernelStep']
    """
    return replace(_Partition(program, vendor).result(), ragged=ragged)


SHORT = 64
"""Up to how many elements of a list of a known size a row may reduce by itself."""
_WORDS = {"sum": "sum", "prod": "product", "max": "maximum", "min": "minimum"}


def evaluated(item: Item, flat: Mapping[str, str], segments: Container[str], vendor: bool) -> str | None:
    """Why an item is the evaluator's; None where kernels are made of it.

    Arguments:
        item: of a flat program.
        flat: per size whose lists are stored without padding, the size that it varies with.
        segments: the sizes that segments of lists have.
        vendor: whether contractions outside of loops go to the vendor's library.
    """
    if isinstance(item, FlatOpaque):
        return item.reason
    if isinstance(item, FlatEquation):
        op = item.equation.op
        if op == "contract" and (vendor or not _rows(item.output)):
            return "a matrix product: the vendor's library"
        if op == "reduce" and not item.output.lead:
            return f"a {_WORDS[item.equation.attributes['op']]} over the outermost list: the vendor's library"
        if op == "reduce" and vendor and (not isinstance(item.reduced[0], int) or item.reduced[0] > SHORT):
            # Rows alone would keep few programs busy with a long list. Lists without padding would have to be padded
            # for it.
            value = item.operands[0].value
            names = {n for d in value.dims if not isinstance(d, int) for n in d.names()}
            padded = flat_size(value.dims, flat) is None and not any(name in segments for name in names)
            if padded and len(item.output.lead) == 1:
                return f"a {_WORDS[item.equation.attributes['op']]} over a list: the vendor's library"
    return None


class _Partition:
    def __init__(self, program: FlatProgram, vendor: bool):
        self.program, self.vendor = program, vendor
        self.materialised: dict[FlatValue, None] = {}
        self.aliases: dict[FlatValue, Alias] = {}

    def reason(self, item: Item) -> str | None:
        """Why an item is the evaluator's."""
        return evaluated(item, self.program.flat, self.program.segments, self.vendor)

    def result(self) -> Partition:
        items = self.program.items
        need = self.materialised.setdefault
        for value in self.program.outputs:
            need(value)
        for item in items:
            if isinstance(item, (FlatOpaque, FlatScan)) or self.reason(item) is not None:
                for value in _outputs(item):
                    need(value)
            if self.reason(item) is not None:
                for reference in item.operands:
                    need(reference.value)
            elif isinstance(item, FlatEquation) and item.equation.op == "contract":
                need(item.output)
            elif isinstance(item, FlatEquation) and rounds(item.output) and not _lists(item.output):
                # A weight is rounded once a call, not once a step.
                need(item.output)
        for item in items:
            if isinstance(item, FlatScan):
                # What was taken out of a loop is not put back, but for what costs nothing to compute again.
                for reference in _operands(item):
                    if self.reduces(reference.value):
                        need(reference.value)
        self.alias()
        made = self.steps()
        return Partition(self.program, made, self.aliases)

    def reduces(self, value: FlatValue) -> bool:
        """Whether computing an element of a value, up to what lies in memory, reduces something."""
        if value in self.materialised or not isinstance(value.maker, FlatEquation):
            return False
        return bool(value.maker.reduced) or any(self.reduces(r.value) for r in value.maker.operands)

    def alias(self) -> None:
        """Lists that a loop emits only for them to be packed side by side are emitted into the pack."""
        outputs = set(self.program.outputs)
        read_by: dict[FlatValue, int] = {}
        for item in self.program.items:
            for reference in _operands(item):
                read_by[reference.value] = read_by.get(reference.value, 0) + 1
        for item in self.program.items:
            if not (isinstance(item, FlatEquation) and item.equation.op == "concatenate"):
                continue
            pack, axis = item.output, item.equation.attributes["axis"]
            parts = [r.value for r in item.operands]
            if pack not in self.materialised or len(set(parts)) != len(parts):
                continue
            if not all(
                isinstance(p.maker, FlatScan)
                and p.role == "output"
                and p not in outputs
                and p not in self.aliases
                and p.dtype == pack.dtype
                and read_by[p] == 1
                for p in parts
            ):
                continue
            dim, offset = len(pack.lead) + axis, 0
            if any(len(p.dims) != len(pack.dims) for p in parts):
                continue
            for part in parts:
                self.aliases[part] = Alias(pack, dim, offset)
                offset += part.dims[dim]

    def steps(self) -> list[Step]:
        """The launches and evaluations, in order: scans that nothing orders in one launch, and what else lies at one
        level and over the same rows."""
        wanted = self.wanted()
        nodes: list[_Node] = []
        packs = {a.buffer for a in self.aliases.values()}
        for item in self.program.items:
            reason = self.reason(item)
            if isinstance(item, FlatScan):
                values = [v for v in (*item.last, *item.outputs) if v in wanted and 0 not in v.dims]
                if values:
                    rows = tuple(x.size for x in item.levels)
                    group = Group(rows, (), (item,), frozenset(self.materialised), frozenset(values))
                    nodes.append(_Node(KernelStep(group), (*item.last, *item.outputs)))
            elif reason is not None:
                nodes.append(_Node(EvaluatorStep(item, reason), tuple(_outputs(item))))
            elif item.output in self.materialised and item.output not in packs and 0 not in item.output.dims:
                nodes.append(_Node(None, (item.output,)))
        makers: dict[FlatValue, list[_Node]] = {}
        for node in nodes:
            for value in node.makes:
                makers.setdefault(value, []).append(node)
                if value in self.aliases:
                    # A pack is there when all of its parts are.
                    makers.setdefault(self.aliases[value].buffer, []).append(node)
        for node in nodes:
            node.needs = {m: None for v in self.reads(node.item) for m in makers.get(v, ()) if m is not node}
        return _in_levels(_together(nodes), frozenset(self.materialised))

    def reads(self, item: Item) -> dict[FlatValue, None]:
        """What an item reads of what lies in memory, or is made by a scan."""
        found: dict[FlatValue, None] = {}

        def need(value: FlatValue) -> None:
            if value not in found:
                found[value] = None
                if value not in self.materialised and isinstance(value.maker, FlatEquation):
                    for reference in value.maker.operands:
                        need(reference.value)

        for reference in _operands(item):
            need(reference.value)
        return found

    def wanted(self) -> set[FlatValue]:
        """The materialised values that something outside of their kernel reads, or that are outputs."""
        found = set(self.program.outputs)

        def read(value: FlatValue) -> None:
            if value in found:
                return
            found.add(value)
            if isinstance(value.maker, FlatEquation) and value not in self.materialised:
                for reference in value.maker.operands:
                    read(reference.value)

        for item in self.program.items:
            if isinstance(item, FlatScan) or self.reason(item) is not None or item.output in self.materialised:
                for reference in _operands(item):
                    read(reference.value)
        return found


# --- scans in one launch ----------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Node:
    """A step that is not ordered yet.

    Attributes:
        step: the launch or evaluation; None of a value that a kernel with others will compute.
        makes: what it makes.
        needs: the nodes that come before it.
    """

    step: Step | None
    makes: tuple[FlatValue, ...]
    needs: dict[_Node, None] = field(default_factory=dict)

    @property
    def item(self) -> Item:
        """What it is made of, before it is joined with others."""
        if isinstance(self.step, EvaluatorStep):
            return self.step.item
        return self.step.group.scans[0] if self.step is not None else self.makes[0].maker


def _together(nodes: list[_Node]) -> list[_Node]:
    """Scans of which none waits for another, over the same rows, in one launch: cheap ones over one size in one loop
    (banana split), others that are alike, such as two directions, side by side on the grid."""
    place = {node: 1 << n for n, node in enumerate(nodes)}
    # Per node, all that comes before it, as bits.
    before: dict[_Node, int] = {}
    for node in nodes:
        before[node] = 0
        for other in node.needs:
            before[node] |= before[other] | place[other]
    out: list[_Node] = []
    for node in nodes:
        into = None
        if isinstance(node.step, KernelStep):
            for other in out:
                if (
                    isinstance(other.step, KernelStep)
                    and other.step.group.rows == node.step.group.rows
                    and not before[node] & place[other]
                    and not before[other] & place[node]
                ):
                    joined = _joined(other.step, node.step)
                    if joined is not None:
                        into = other
                        break
        if into is None:
            out.append(node)
            continue
        into.step = joined
        into.makes += node.makes
        into.needs.update(node.needs)
        both, above = place[into] | place[node], before[into] | before[node]
        place[into] = place[node] = both
        before[into] = before[node] = above
        for other, found in before.items():
            if found & both:
                before[other] = found | both | above
        for other in nodes:
            if node in other.needs:
                del other.needs[node]
                other.needs[into] = None
    return out


def _in_levels(nodes: list[_Node], materialised: frozenset[FlatValue]) -> list[Step]:
    """The steps in an order in which they can run; values of one level over the same rows are one kernel."""
    level: dict[_Node, int] = {}

    def level_of(node: _Node) -> int:
        todo = [node]
        while todo:
            missing = [n for n in todo[-1].needs if n not in level]
            todo.extend(missing)
            if not missing:
                done = todo.pop()
                level[done] = max((level[n] + 1 for n in done.needs), default=0)
        return level[node]

    out: list[Step] = []
    kernels: dict[tuple, list[FlatValue]] = {}
    for node in nodes:
        found = level_of(node)
        if node.step is None:
            (value,) = node.makes
            kernels.setdefault((found, _rows(value)), []).append(value)
        else:
            out.append(replace(node.step, level=found))
    for (found, rows), values in kernels.items():
        group = Group(rows, tuple(values), (), materialised - set(values), frozenset())
        out.append(KernelStep(group, found))
    return sorted(out, key=lambda step: step.level)


def _joined(left: KernelStep, right: KernelStep) -> KernelStep | None:
    """Two launches as one; None where they are better apart."""
    (*others, first), (second,) = left.group.scans or (None,), right.group.scans
    if first is None:
        return None
    wanted = left.group.wanted | right.group.wanted
    if (_cheap(first) or _cheap(second)) and first.level.size == second.level.size and first.reverse == second.reverse:
        return KernelStep(replace(left.group, scans=(*others, one_loop(first, second)), wanted=wanted))
    if not others and _form(first) == _form(second):
        return KernelStep(replace(left.group, scans=(first, second), wanted=wanted))
    return None


def _cheap(scan: FlatScan) -> bool:
    """Whether a step multiplies no matrices, so that two of them fit one program."""
    return all(isinstance(i, FlatEquation) and i.equation.op != "contract" for i in scan.items)


def _form(scan: FlatScan) -> tuple:
    """What two scans have in common that can share a placement."""
    own = tuple(c.dims for c in scan.carries)
    operations = tuple(i.equation.op if isinstance(i, FlatEquation) else _form(i) for i in scan.items)
    return own, tuple(sorted(map(str, operations))), tuple(o.dims for o in scan.outputs)


def one_loop(first: FlatScan, second: FlatScan) -> FlatScan:
    """Two independent scans of one size and direction as one scan of both carries (Bird's banana split)."""
    joined = {**first.joined, **second.joined, second.level: first.level}
    joined.update(zip(second.levels, first.levels, strict=True))
    fields = ("carries", "initial", "following", "items", "last", "emitted", "outputs")
    return replace(first, joined=joined, **{f: getattr(first, f) + getattr(second, f) for f in fields})


def _rows(value: FlatValue) -> tuple[Dimension, ...]:
    """The iteration space of a value: the lists in front, or its first dimension."""
    rows: list[Dimension] = []
    for n in value.dims:
        if isinstance(n, int):
            break
        rows.append(n)
    return tuple(rows) or value.dims[:1]


def _lists(value: FlatValue) -> bool:
    return any(not isinstance(n, int) for n in value.dims)


def _outputs(item: Item) -> Sequence[FlatValue]:
    if isinstance(item, FlatEquation):
        return (item.output,)
    return item.outputs if isinstance(item, FlatOpaque) else (*item.last, *item.outputs)


def _operands(item: Item) -> Iterable[Reference]:
    """What an item reads that is made outside of it."""
    if not isinstance(item, FlatScan):
        return item.operands
    inside: set[FlatValue] = set()
    found: dict[FlatValue, Reference] = {}

    def go(scan: FlatScan) -> None:
        inside.update(scan.carries)
        for reference in scan.initial:
            found.setdefault(reference.value, reference)
        for sub in scan.items:
            if isinstance(sub, FlatScan):
                go(sub)
                inside.update((*sub.last, *sub.outputs))
            else:
                for reference in sub.operands:
                    found.setdefault(reference.value, reference)
                inside.update(_outputs(sub))
        for reference in (*scan.following, *scan.emitted):
            found.setdefault(reference.value, reference)

    go(item)
    return [r for v, r in found.items() if v not in inside]


__all__ = ["Alias", "EvaluatorStep", "KernelStep", "Partition", "Step", "partition"]
