"""Lists of different lengths in one tensor without padding: where their elements lie.

Element (r, t) lies at ``rows[r] + times[t]``. That one form serves jagged lists, whose rows lie one behind the other,
and packed ones, whose steps do. Everything here is tensor operations on as many numbers as there are elements; nothing
waits for the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..compiler.ir import Graph, sub_equations
from ..compiler.sizes import ROWS_OF, TIMES_OF, Named, flat_size, total_of
from .dynamo import constant_result
from .eager_sizes import Environment, Extent

__all__ = ["Layout", "flat_sizes", "over_elements"]


@constant_result
def flat_sizes(graph: Graph) -> frozenset[str]:
    """The sizes of a graph whose lists may be stored without padding: of the lists of a row, in which no lists of
    several lengths stand."""
    found = set()
    around = {name for size in graph.sizes for name in size.over}
    for equation in sub_equations(graph.body):
        # Counts of lists that the program makes, for each element of a list: their lengths vary with it.
        around |= {str(axis) for _, i in equation.binds for axis in equation.outputs[i].type.axes}
    values = (*graph.body.parameters, *graph.body.results)
    for size in graph.sizes:
        lists = [v.type.axes for v in values if Named(size.name) in v.type.axes]
        if size.over == ("B",) and size.input is None and size.name not in around:
            if all(flat_size(axes, {size.name: "B"}) and Named(size.name) not in axes[2:] for axes in lists):
                found.add(size.name)
    return frozenset(found)


@dataclass
class Layout:
    """Where the elements of the lists of a batch lie.

    Attributes:
        lengths: i64[rows].
        rows: i64[rows], where each row begins.
        times: i64[longest], where each place in a list stands from there; None where that is the place itself.
        longest: the extent that the lists are padded to, where they are.
        total: how many elements there are.
    """

    lengths: Tensor
    rows: Tensor
    times: Tensor | None
    longest: int
    total: int

    @classmethod
    def given(cls, name: str, tables: Mapping[str, Tensor | None], extents: Mapping[str, int]) -> Layout:
        """That of a flat size of a program, by the program's tables and extents."""
        lengths, rows = tables[name], tables[ROWS_OF + name]
        assert lengths is not None and rows is not None
        return cls(lengths, rows, tables.get(TIMES_OF + name), extents[name], extents[total_of(name).name])

    def tables(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """What a program takes: lengths, `rows`, `times`."""
        return self.lengths, self.rows, self.times

    def where(self) -> tuple[Tensor, Tensor]:
        """Of each element its row, and its place in it: i64[total] each."""
        places = torch.arange(self.total, device=self.rows.device)
        if self.times is None:
            # Of rows that begin at one place, the last has the element: those before it are empty.
            row = torch.searchsorted(self.rows, places, right=True) - 1
            return row, places - self.rows[row]
        time = torch.searchsorted(self.times, places, right=True) - 1
        return self.rows.argsort()[places - self.times[time]], time

    def pad(self, values: Tensor, longest: int | None = None) -> Tensor:
        """Values [total, ...] as [rows, longest, ...], zeros as padding. Differentiable."""
        longest = self.longest if longest is None else longest
        row, time = self.where()
        count = self.rows.size(0)
        room = values.new_zeros((count * longest, *values.shape[1:]))
        return room.index_copy(0, row * longest + time, values).unflatten(0, (count, longest))

    def take(self, padded: Tensor) -> Tensor:
        """The elements of a padded tensor [rows, longest, ...] as values [total, ...]. Differentiable."""
        row, time = self.where()
        return padded.flatten(0, 1).index_select(0, row * padded.size(1) + time)

    def rearrange(self, values: Tensor, other: Layout) -> Tensor:
        """Values that lie as `other` says, of lists of the same lengths, as they lie here. Differentiable."""
        row, time = self.where()
        place = other.rows[row] + (time if other.times is None else other.times[time])
        # Lengths that lie on a device are not compared: what does not fit must stay within the tensor at least.
        return values.index_select(0, place.clamp(max=other.total - 1))


def over_elements(sizes: Environment, name: str, outer: str, layout: Layout, wanted: Iterable[str]) -> Environment:
    """The sizes where one axis runs over the elements of all lists of a flat size, in the place of rows and lists.

    Arguments:
        sizes: the sizes of a whole program.
        name: the flat size, `outer` the one that it varies with.
        layout: how its lists lie.
        wanted: the sizes that matter there: tables of theirs that vary with the rows become tables over the elements.
    """
    total = total_of(name).name
    extents = {total: Extent(layout.total)}
    row: Tensor | None = None
    for other in wanted:
        extent = sizes.extents.get(other)
        if extent is None:
            continue
        if extent.lengths is not None and extent.over[:1] == (outer,):
            row = layout.where()[0] if row is None else row
            lengths = extent.lengths.expand((layout.rows.size(0), *extent.lengths.shape[1:]))
            extent = extent.with_lengths(lengths.index_select(0, row), (total, *extent.over[1:]))
        extents[other] = extent
    return Environment(extents, 0, sizes.device)
