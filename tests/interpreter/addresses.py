"""Recording the addresses that each program loads and stores, and finding accesses that nothing orders.

Triton's interpreter runs a program as one thread, lane after lane in step, so it never shows a missing barrier. This
recorder keeps, for each place of each tensor of a launch, who touched it last and when (`clocks`), and reports

- a *read after write*, *write after read* or *write after write* by different programs that no grid barrier orders, or
  by two operations of one program without a `tl.debug_barrier` between them: on a GPU, different threads may do them.
  A store that is repeated, each lane to its own address again, is one thread's and is in order; so are atomics among
  themselves.
- *lanes that disagree*: two lanes of one store write different values to one address.
- an *uninitialised read*: of a place in a registered buffer that neither a kernel nor torch has written.
- an access *outside* of all tensors that the launch was given.

It also counts the bytes that a launch moves, by argument.

Example::

    with in_order(), recorded_addresses() as recorder:
        scratch = torch.empty(1024)
        recorder.uninitialised(scratch)
        kernel[(4,)](inputs, scratch, outputs)
    recorder.check()
    assert recorder.bytes_written["outputs"].total == outputs.nbytes
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

import numpy as np
import torch

from .clocks import Clocks
from .hooks import Access, Instrument, InstrumentError, Launch, Site, installed
from .memory import Operations, Region, Traffic, Uninitialised, regions_of

_SHOWN = 5


@dataclass
class Finding:
    """Accesses that are wrong for one reason at one pair of places in a kernel.

    Attributes:
        kind: "read after write", "write after read", "write after write", "lanes that disagree", "uninitialised read"
            or "outside".
        kernel: the name of the kernel.
        buffer: the argument's name; of an access outside of all arguments, the one that begins before it.
        earlier: the place of the access that came first; None where one access alone is wrong.
        later: the place of the access that came second.
        programs: the grid indices of the two programs, of the first such access.
        offset: the byte where it happened first, from the start of the buffer.
        places: how many elements it happened to in all.
    """

    kind: str
    kernel: str
    buffer: str
    earlier: Site | None
    later: Site
    programs: tuple[tuple[int, int, int], tuple[int, int, int]]
    offset: int
    places: int

    def __str__(self) -> str:
        first, second = self.programs
        extent = f"{self.places} places, first at byte {self.offset}"
        head = f"{self.kind}, `{self.buffer}` of kernel `{self.kernel}` ({extent})"
        if self.earlier is None:
            return f"{head}\n    program {second} at {self.later}"
        missing = "no debug barrier" if first == second else "no grid barrier"
        return f"{head}: {missing} between\n    program {first} at {self.earlier}\n    program {second} at {self.later}"


class Recorder(Instrument):
    """What `recorded_addresses` found.

    Attributes:
        findings: all that is wrong, one entry per reason and pair of places in a kernel.
        bytes_read, bytes_written: by argument name, over all launches; arguments whose memory overlaps are counted
            together under ``"a+b"``.
    """

    def __init__(self) -> None:
        self.bytes_read: dict[str, Traffic] = {}
        self.bytes_written: dict[str, Traffic] = {}
        self._found: dict[tuple, Finding] = {}
        self._uninitialised: list[Uninitialised] = []
        self._launch: Launch | None = None

    @property
    def findings(self) -> list[Finding]:
        return list(self._found.values())

    def uninitialised(self, tensor: torch.Tensor) -> None:
        """Register a CPU tensor as memory that nothing has written yet, and fill it with poison.

        The poison tells what torch writes between launches: a place that no kernel has stored to counts as written once
        it holds anything else.
        """
        if tensor.numel():
            self._uninitialised.append(Uninitialised.register(tensor))

    def check(self) -> None:
        """Raise an error that lists the first findings, if there are any.

        Raises:
            AssertionError: something was found.
        """
        if self._found:
            shown = "\n".join(f"- {finding}" for finding in self.findings[:_SHOWN])
            more = len(self._found) - _SHOWN
            tail = f"\n- and {more} more" if more > 0 else ""
            raise AssertionError(f"Accesses that a GPU may get wrong:\n{shown}{tail}")

    def started(self, launch: Launch) -> None:
        elsewhere = sorted({t.device.type for t in launch.tensors.values()} - {"cpu"})
        if elsewhere:
            raise InstrumentError(
                f"Addresses are recorded of CPU tensors only, but `{launch.kernel}` was given one on {elsewhere[0]}."
            )
        self._launch = launch
        self._regions = regions_of(launch.tensors)
        self._starts = np.array([region.start for region in self._regions], np.int64)
        self._stops = np.array([region.stop for region in self._regions], np.int64)
        for region in self._regions:
            region.uninitialised = [u for u in self._uninitialised if u.start < region.stop and region.start < u.stop]
            for buffer in region.uninitialised:
                buffer.look()
        self._clocks = Clocks(prod(launch.grid))
        self._operations = Operations()

    def finished(self, launch: Launch) -> None:
        for region in self._regions:
            region.read.unique = int(np.count_nonzero(region.was_read)) * region.grain
            region.written.unique = int(np.count_nonzero(region.was_written)) * region.grain
            for counts, traffic in ((self.bytes_read, region.read), (self.bytes_written, region.written)):
                sums = counts.setdefault(region.name, Traffic())
                sums.total += traffic.total
                sums.unique += traffic.unique
        self._launch = None

    def barrier(self) -> None:
        self._clocks.barrier(self._launch.current)

    def accessed(self, access: Access, changed: bool) -> None:
        addresses = access.addresses
        if addresses.size == 0:
            return
        program = self._launch.current
        site = self._launch.site(sys._getframe())
        operation = self._operations.add(program, int(self._clocks.times[program]), site)
        self._horizon = self._clocks.horizon(program)
        low, high = int(addresses.min()), int(addresses.max())
        number = bisect_right(self._starts, low) - 1
        if number >= 0 and high + access.width <= self._stops[number]:
            self._touch(self._regions[number], access, addresses, access.lanes, operation)
        else:
            self._scattered(access, addresses, operation)
        if access.is_atomic and addresses.size == 1:
            self._clocks.atomic(program, low, access.acquires, access.releases)

    def _scattered(self, access: Access, addresses: np.ndarray, operation: int) -> None:
        """An access that no single region holds: region by region, and what is outside of all."""
        numbers = np.searchsorted(self._starts, addresses, "right") - 1
        inside = numbers >= 0
        inside[inside] = addresses[inside] + access.width <= self._stops[numbers[inside]]
        for number in np.unique(numbers[inside]):
            chosen = inside & (numbers == number)
            self._touch(self._regions[number], access, addresses[chosen], access.lanes[chosen], operation)
        if not inside.all():
            first = int(addresses[~inside][0])
            near = self._regions[max(int(numbers[~inside][0]), 0)] if self._regions else None
            name, offset = (near.name, first - near.start) if near is not None else ("no argument", first)
            self._find("outside", name, 0, operation, offset, int(np.count_nonzero(~inside)))

    def _touch(self, region: Region, access: Access, addresses: np.ndarray, lanes: np.ndarray, operation: int) -> None:
        """An access to one region: compare it with what came before, then enter it in the tables."""
        places = region.places(addresses, access.width)
        program = int(self._operations.programs[operation])
        writes = access.operation == "store"
        if not access.is_atomic:
            for table in region.atomics.values():
                self._compare("write after write" if writes else "read after write", region, table, places, operation)
        if writes:
            lanes = np.repeat(lanes, places.size // addresses.size)
            self._compare("write after write", region, region.stores, places, operation, lanes)
            self._compare_lanes(region, access, addresses, places, lanes, operation)
        else:
            self._compare("read after write", region, region.stores, places, operation)
        if writes or access.is_atomic:
            for table in region.loads.values():
                self._compare("write after read", region, table, places, operation)
        for buffer in region.uninitialised:
            self._follow(buffer, region, access, addresses, operation)

        if writes:
            region.stores[places] = operation
        else:
            tables = region.atomics if access.is_atomic else region.loads
            if program not in tables:
                tables[program] = region.table()
            tables[program][places] = operation
            region.was_read[places] = True
            region.read.total += addresses.size * access.width
        if writes or access.is_atomic:
            region.was_written[places] = True
            region.written.total += addresses.size * access.width

    def _compare(
        self,
        kind: str,
        region: Region,
        table: np.ndarray,
        places: np.ndarray,
        operation: int,
        lanes: np.ndarray | None = None,
    ) -> None:
        """Report the places whose last operation in a table is not ordered before this one."""
        operations = self._operations
        earlier = table[places]
        wrong = operations.times[earlier] >= self._horizon[operations.programs[earlier]]
        if lanes is not None and wrong.any():
            repeated = (operations.programs[earlier] == operations.programs[operation]) & (
                operations.sites[earlier] == operations.sites[operation]
            )
            wrong &= ~(repeated & (region.lanes[places] == lanes))
        if not wrong.any():
            return
        places, earlier = places[wrong], earlier[wrong]
        sites = operations.sites[earlier]
        for site in np.unique(sites):
            of_site = np.flatnonzero(sites == site)
            first = of_site[0]
            offset = int(places[first]) * region.grain
            self._find(kind, region.name, int(earlier[first]), operation, offset, of_site.size)

    def _compare_lanes(
        self,
        region: Region,
        access: Access,
        addresses: np.ndarray,
        places: np.ndarray,
        lanes: np.ndarray,
        operation: int,
    ) -> None:
        """Report lanes of one store that write different values to one address; enter which lane wrote each place."""
        region.lanes[places] = lanes
        count = places.size // addresses.size
        winners = region.lanes[places[::count]]
        beaten = winners != lanes[::count]
        if not beaten.any():
            return
        values = np.broadcast_to(access.value.data, access.pointers.data.shape).reshape(-1)
        values = values.view(np.dtype(f"u{values.itemsize}"))
        differ = beaten & (values[winners] != values[lanes[::count]])
        if differ.any():
            first = int(addresses[np.flatnonzero(differ)[0]]) - region.start
            self._find("lanes that disagree", region.name, 0, operation, first, int(np.count_nonzero(differ)))

    def _follow(
        self, buffer: Uninitialised, region: Region, access: Access, addresses: np.ndarray, operation: int
    ) -> None:
        """Keep book of which elements of a registered buffer have been written; report reads of others."""
        elements = buffer.elements(addresses, access.width)
        if access.operation != "store":
            unwritten = buffer.untouched[elements]
            if unwritten.any():
                first = int(elements[np.flatnonzero(unwritten)[0]]) * buffer.width + buffer.start - region.start
                self._find("uninitialised read", region.name, 0, operation, first, int(np.count_nonzero(unwritten)))
        if access.operation == "store" or access.is_atomic:
            buffer.untouched[elements] = False

    def _find(self, kind: str, buffer: str, earlier: int, operation: int, offset: int, places: int) -> None:
        operations, launch = self._operations, self._launch
        site = operations.known[operations.sites[operation]]
        before = operations.known[operations.sites[earlier]] if earlier else None
        second = int(operations.programs[operation])
        first = int(operations.programs[earlier]) if earlier else second
        key = (launch.kernel, kind, buffer, before, site, first == second)
        found = self._found.get(key)
        if found is not None:
            found.places += places
            return
        programs = (launch.index(first), launch.index(second))
        self._found[key] = Finding(kind, launch.kernel, buffer, before, site, programs, offset, places)


@contextmanager
def recorded_addresses() -> Iterator[Recorder]:
    """Record all launches in the block.

    Yields:
        The recorder, which is also read after the block; it raises nothing unless its `check` is called.
    """
    recorder = Recorder()
    with installed(recorder):
        yield recorder
