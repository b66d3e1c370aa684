"""``tree_up`` and ``tree_down`` in torch: a forest of all rows at once, one level of equal height at a time.

The leading dims and the axis of nodes are flattened and only live nodes kept. Nodes are ordered by (height, the
parent's height), children by (the parent's height, height): so what one level makes for another is one slice of it, a
level's children are a concatenation of slices, and the whole traversal moves each value once, whatever the depth.
Nothing is written in place that torch would need again for a derivative. Children are padded to the widest node of
their level only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..compiler.combinators.tree import TABLES
from ..compiler.sizes import Constant
from .eager_lists import Run
from .eager_shapes import common_lead, even, flatten_lead, take_rows, widened, with_lead
from .eager_sizes import Environment, Extent


@dataclass(frozen=True)
class _Level:
    """The nodes of one height.

    Attributes:
        nodes: how many.
        kids: how many children they have together.
        arity: the extent of their padded lists of children.
        ragged: whether they differ in their number of children.
        parents: (level, number) of the slices of this level by the parents' level; roots come last, with level -1.
        sources: (level, number) of the slices that the children come in.
        aligned: whether the list of children, as they come, is the padded table already.
    """

    nodes: int
    kids: int
    arity: int
    ragged: bool
    parents: tuple[tuple[int, int], ...]
    sources: tuple[tuple[int, int], ...]
    aligned: bool


@dataclass(frozen=True)
class _Schedule:
    """A forest by levels. `rows` are positions of nodes along (lead…, nodes); per level: `arities` of the nodes,
    `table`, i64[nodes·arity], which child stands at each place of the padded lists, and `places`, i64[kids], its
    inverse."""

    levels: tuple[_Level, ...]
    rows: Tensor
    kid_rows: Tensor
    arities: tuple[Tensor, ...]
    tables: tuple[Tensor, ...]
    places: tuple[Tensor, ...]


def _starts(counts: Tensor) -> Tensor:
    """Where groups of these sizes begin."""
    return counts.cumsum(0) - counts


def _schedule(parent: Tensor, slot: Tensor, height: Tensor, live: Tensor, nodes: int, least: int) -> _Schedule:
    """Order a forest.

    Arguments:
        parent, slot, height: i64, flattened over (lead…, nodes).
        live: which of these nodes there are.
        nodes: the extent of the axis of nodes.
        least: the least extent of a padded list of children.
    """
    rows = live.nonzero().squeeze(1)
    heights, level = height[rows].unique(return_inverse=True)
    count = heights.numel()
    level_of_row = torch.zeros_like(parent)
    level_of_row[rows] = level
    root = parent[rows] < 0
    parent_row = torch.where(root, 0, rows // max(nodes, 1) * nodes + parent[rows])
    parent_level = torch.where(root, count, level_of_row[parent_row])
    order = (level * (count + 1) + parent_level).argsort(stable=True)
    rows, level, root, parent_row, parent_level = (t[order] for t in (rows, level, root, parent_row, parent_level))
    position = torch.zeros_like(parent)
    position[rows] = torch.arange(rows.numel(), device=rows.device)
    sizes = level.bincount(minlength=count)

    kids = (~root).nonzero().squeeze(1)
    kids = kids[(parent_level[kids] * count + level[kids]).argsort(stable=True)]
    kid_parent, kid_level = position[parent_row[kids]], parent_level[kids]
    arities = kid_parent.bincount(minlength=rows.numel())
    kid_counts = kid_level.bincount(minlength=count)
    siblings = slot[rows[kids]].argsort(stable=True)
    siblings = siblings[kid_parent[siblings].argsort(stable=True)]
    rank = torch.empty_like(kids)
    rank[siblings] = torch.arange(kids.numel(), device=kids.device) - _starts(arities)[kid_parent[siblings]]

    widest = sizes.new_zeros(count).scatter_reduce(0, level, arities, "amax", include_self=False).clamp(min=least)
    narrowest = sizes.new_zeros(count).scatter_reduce(0, level, arities, "amin", include_self=False)
    place = (kid_parent - _starts(sizes)[kid_level]) * widest[kid_level] + rank
    local = torch.arange(kids.numel(), device=kids.device) - _starts(kid_counts)[kid_level]
    cells = sizes * widest
    table = kids.new_zeros(int(cells.sum()))
    table[_starts(cells)[kid_level] + place] = local
    moved = kid_level[place != local].bincount(minlength=count)

    pairs, pair_counts = (kid_level * count + level[kids]).unique(return_counts=True)
    sources: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    parents: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for pair, number in zip(pairs.tolist(), pair_counts.tolist(), strict=True):
        sources[pair // count].append((pair % count, number))
        parents[pair % count].append((pair // count, number))
    roots = level[root].bincount(minlength=count).tolist()
    table_of = [t.tolist() for t in (sizes, kid_counts, widest, narrowest, moved, cells)]
    levels = []
    for g, (n, k, wide, narrow, shifted, _) in enumerate(zip(*table_of, strict=True)):
        if roots[g]:
            parents[g].append((-1, roots[g]))
        aligned = not shifted and n * wide == k
        levels.append(_Level(n, k, wide, narrow != wide, tuple(parents[g]), tuple(sources[g]), aligned))
    n, k, cell = table_of[0], table_of[1], table_of[5]
    return _Schedule(tuple(levels), rows, rows[kids], arities.split(n), table.split(cell), place.split(k))


class _Forest:
    """A tree equation at work on its inputs: the schedule, and values sorted by it."""

    def __init__(self, context: Any, equation: Any, depth: int, inputs: Sequence[Tensor], names: Any):
        sizes: Environment = context.sizes
        self.size, self.arity = equation.attributes["size"], equation.attributes["arity"]
        self.sizes, self.names, self.depth = sizes, names - self.arity.names(), depth
        self.nodes = sizes.maximum(self.size)
        mask = sizes.mask(self.size)
        lead = [v.shape[:depth] for v in inputs] + ([] if mask is None else [mask.shape[:depth]])
        lead += [e.lengths.shape[:depth] for n in self.names if (e := sizes.extents.get(n)) and e.lengths is not None]
        self.lead = common_lead(lead, depth)
        self.trees = math.prod(self.lead)
        full = torch.ones((1,) * depth + (self.nodes,), dtype=torch.bool, device=sizes.device) if mask is None else mask
        if context.live is not None:
            live = context.live
            for d, extent in enumerate(self.lead):
                # Where nothing varies with an outer loop, the one tree is live if it is in any of its rows.
                live = live.any(d, keepdim=True) if extent == 1 else live
            full = full & live.unsqueeze(-1)
        least = self.arity.value if isinstance(self.arity, Constant) else 0
        self.schedule = _schedule(*(self.flat(v) for v in (*inputs[:TABLES], full)), self.nodes, least)
        self.levels, self.rows = self.schedule.levels, self.schedule.rows
        self.tree = self.rows // max(self.nodes, 1)

    def flat(self, value: Tensor) -> Tensor:
        """A list of nodes flattened: dims (lead…, nodes, rest…) → (trees·nodes, rest…)."""
        return flatten_lead(value, self.depth, self.lead, keep=1)

    def by_node(self, value: Tensor) -> Sequence[Tensor]:
        """A list of nodes → per level, its elements."""
        return self.flat(value).index_select(0, self.rows).split([level.nodes for level in self.levels])

    def by_kid(self, value: Tensor) -> Sequence[Tensor]:
        """A list of nodes → per level, the elements of its nodes' children, in their order."""
        return self.flat(value).index_select(0, self.schedule.kid_rows).split([level.kids for level in self.levels])

    def by_tree(self, value: Tensor) -> Sequence[Tensor]:
        """A captured value → per level, each node's; of size 1 where all trees share it."""
        flat = flatten_lead(value, self.depth, self.lead)
        if flat.size(0) == 1:
            return [flat] * len(self.levels)
        return take_rows(flat, self.tree, self.trees).split([level.nodes for level in self.levels])

    def padded(self, index: int, kids: Tensor) -> Tensor:
        """The children of a level as lists: (kids, rest…) → (nodes, arity, rest…)."""
        level = self.levels[index]
        if not level.aligned:
            if level.kids == 0:
                return kids.new_zeros((level.nodes, level.arity, *kids.shape[1:]))
            kids = kids.index_select(0, self.schedule.tables[index])
        return kids.unflatten(0, (level.nodes, level.arity)) if level.nodes else kids

    def unpadded(self, index: int, lists: Tensor) -> Tensor:
        """The inverse: (nodes or 1, arity, rest…) → (kids, rest…)."""
        level = self.levels[index]
        flat = widened(lists, 0, level.nodes).flatten(0, 1)
        return flat if level.aligned else flat.index_select(0, self.schedule.places[index])

    def environments(self) -> list[Environment]:
        """Per level, the sizes inside its nodes' bodies."""
        out = []
        whole = self.sizes.rows(self.lead, self.tree, self.names, (str(self.size), self.nodes, self.rows))
        counts = [level.nodes for level in self.levels]
        parts = {
            n: e.lengths.split(counts) if e.lengths.size(0) == sum(counts) else [e.lengths] * len(counts)
            for n, e in whole.extents.items()
            if e.lengths is not None
        }
        for index, level in enumerate(self.levels):
            extents = {
                n: Extent(e.maximum, parts[n][index], e.over) if n in parts else e for n, e in whole.extents.items()
            }
            for name in self.arity.names():
                extents[name] = Extent(level.arity, self.schedule.arities[index] if level.ragged else None)
            out.append(Environment(extents, 1, self.sizes.device))
        return out

    def restored(self, rows: Tensor, parts: Sequence[Tensor], type_: Any) -> Tensor:
        """Values by level put back into a list of nodes; zeros elsewhere."""
        if not parts:
            zeros = self.sizes.empty(type_)
            return with_lead(zeros, self.lead, self.depth)
        values = _joined(parts)
        out = values.new_zeros((self.trees * self.nodes, *values.shape[1:])).index_copy(0, rows, values)
        return out.reshape((*self.lead, self.nodes, *values.shape[1:]))


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Slices of an axis as one; lists in them may have been made to several maxima."""
    return parts[0] if len(parts) == 1 else torch.cat(list(even(parts, 1)))


def _no_kids(type_: Any, sizes: Environment) -> Tensor:
    """No element of a list's type, at one leading dim."""
    return sizes.empty(type_.element).narrow(0, 0, 0)


def _up(equation: Any, depth: int, prepare: Any) -> Run:
    a, body = equation.attributes, prepare(equation.bodies[0], 1)
    captured, own, states = TABLES + a["captured"], TABLES + a["captured"] + a["own"], a["states"]
    per_node = states + a["emitted"]
    state_types = [v.type for v in equation.bodies[0].parameters[a["captured"] + a["own"] :][:states]]

    def run(context: Any, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        forest = _Forest(context, equation, depth, inputs, body.names)
        constants = [forest.by_tree(v) for v in inputs[TABLES:captured]]
        elements = [forest.by_node(v) for v in inputs[captured:own]]
        kid_lists = [forest.by_kid(v) for v in inputs[own:]]
        # waiting[state][level]: slices of finished levels that this level's children are made of.
        waiting: list[list[list[Tensor]]] = [[[] for _ in forest.levels] for _ in range(states)]
        node_columns: list[list[Tensor]] = [[] for _ in range(per_node)]
        kid_columns: list[list[Tensor]] = [[] for _ in equation.outputs[per_node:]]
        for index, (level, sizes) in enumerate(zip(forest.levels, forest.environments())):
            arguments = [c[index] for c in constants] + [e[index] for e in elements]
            for state, type_ in zip(waiting, state_types, strict=True):
                arguments.append(forest.padded(index, _joined(state[index] or [_no_kids(type_, sizes)])))
                state[index] = []
            arguments.extend(forest.padded(index, kids[index]) for kids in kid_lists)
            results = body(context.inside(sizes, None), arguments)
            for j, result in enumerate(results):
                if j >= per_node:
                    kid_columns[j - per_node].append(forest.unpadded(index, result))
                    continue
                result = widened(result, 0, level.nodes)
                node_columns[j].append(result)
                if j < states:
                    for (target, _), part in zip(
                        level.parents, result.split([n for _, n in level.parents]), strict=True
                    ):
                        if target >= 0:
                            waiting[j][target].append(part)
        types = [v.type for v in equation.outputs]
        made = [forest.restored(forest.rows, parts, t) for parts, t in zip(node_columns, types)]
        kid_rows = forest.schedule.kid_rows
        return made + [
            forest.restored(kid_rows, parts, t) for parts, t in zip(kid_columns, types[per_node:], strict=True)
        ]

    return run


def _down(equation: Any, depth: int, prepare: Any) -> Run:
    a, body = equation.attributes, prepare(equation.bodies[0], 1)
    captured, states = TABLES + a["captured"], a["states"]
    first, own, emitted = captured + states, captured + states + a["own"], a["emitted"]

    def run(context: Any, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        forest = _Forest(context, equation, depth, inputs, body.names)
        constants = [forest.by_tree(v) for v in inputs[TABLES:captured]]
        roots = [forest.by_tree(v) for v in inputs[captured:first]]
        elements = [forest.by_node(v) for v in inputs[first:own]]
        kid_lists = [forest.by_kid(v) for v in inputs[own:]]
        # handed[state][level]: by the parents' level, slices of what that level gave its children.
        handed: list[list[dict[int, Tensor]]] = [[{} for _ in forest.levels] for _ in range(states)]
        count = len(forest.levels)
        columns: list[list[Any]] = [[None] * count for _ in equation.outputs]
        environments = forest.environments()
        for index in range(count - 1, -1, -1):
            level = forest.levels[index]
            arguments = [c[index] for c in constants]
            for state, root in zip(handed, roots, strict=True):
                parts = []
                for source, number in level.parents:
                    # Roots stand last in their level; a state that all trees share has one row.
                    parts.append(state[index][source] if source >= 0 else widened(root[index][-number:], 0, number))
                arguments.append(_joined(parts))
                state[index] = {}
            arguments.extend(e[index] for e in elements)
            arguments.extend(forest.padded(index, kids[index]) for kids in kid_lists)
            results = body(context.inside(environments[index], None), arguments)
            for j, result in enumerate(results):
                if states <= j < states + emitted:
                    columns[j - states][index] = widened(result, 0, level.nodes)
                    continue
                kids = forest.unpadded(index, result)
                if j >= states:
                    columns[j - states][index] = kids
                    continue
                for (target, _), part in zip(level.sources, kids.split([n for _, n in level.sources]), strict=True):
                    handed[j][target][index] = part
        types = [v.type for v in equation.outputs]
        rows = [forest.rows if j < emitted else forest.schedule.kid_rows for j in range(len(types))]
        return [forest.restored(r, parts, t) for r, parts, t in zip(rows, columns, types, strict=True)]

    return run


TREES = {"tree_up": _up, "tree_down": _down}
