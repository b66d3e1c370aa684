"""What the recorder knows of memory: places, the operations that touched them last, and what was never written."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import gcd

import numpy as np
import torch

from .hooks import Site
from .poison import fill, pattern


@dataclass
class Traffic:
    """Bytes moved: `total` counts each access, `unique` each byte once per launch."""

    total: int = 0
    unique: int = 0


@dataclass(eq=False)
class Uninitialised:
    """A registered buffer: which of its elements nothing has written, and its memory, to see what torch wrote.

    The tensor is kept, or its address could be given to another one.
    """

    tensor: torch.Tensor
    start: int
    width: int
    untouched: np.ndarray
    memory: np.ndarray
    poison: np.unsignedinteger

    @classmethod
    def register(cls, tensor: torch.Tensor) -> Uninitialised:
        """Fill a CPU tensor with poison, and take note that nothing else is in it."""
        fill(tensor)
        start, stop = extent(tensor)
        poison = pattern(tensor.dtype)
        memory = np.frombuffer((ctypes.c_char * (stop - start)).from_address(start), poison.dtype)
        return cls(tensor, start, tensor.element_size(), np.ones(memory.size, bool), memory, poison)

    def look(self) -> None:
        """Take note of what torch has written: whatever is no longer poison."""
        self.untouched &= self.memory == self.poison

    @property
    def stop(self) -> int:
        return self.start + self.untouched.size * self.width

    def elements(self, addresses: np.ndarray, width: int) -> np.ndarray:
        """The numbers of the elements that accesses of `width` bytes touch."""
        addresses = addresses[(addresses >= self.start) & (addresses < self.stop)]
        elements = (addresses - self.start) // self.width
        if width > self.width:
            elements = (elements[:, None] + np.arange(width // self.width)).reshape(-1)
        return elements


@dataclass(eq=False)
class Region:
    """Memory of one argument of a launch, or of several that overlap, with what is known of each place of it.

    A place is `grain` bytes. The tables hold the number of the last operation that touched a place, 0 for none: one for
    stores, one per program for loads and for atomics, since those of several programs may all matter.
    """

    name: str
    start: int
    stop: int
    grain: int
    uninitialised: list[Uninitialised] = field(default_factory=list)
    loads: dict[int, np.ndarray] = field(default_factory=dict)
    atomics: dict[int, np.ndarray] = field(default_factory=dict)
    read: Traffic = field(default_factory=Traffic)
    written: Traffic = field(default_factory=Traffic)

    def __post_init__(self) -> None:
        self.stores = self.table()
        self.lanes = self.table()
        self.was_read = np.zeros(self.stores.size, bool)
        self.was_written = np.zeros(self.stores.size, bool)

    def table(self) -> np.ndarray:
        return _sparse_zeros(-(-(self.stop - self.start) // self.grain))

    def refine(self, grain: int) -> None:
        """Make places smaller, so that an access of another width covers whole ones."""
        count = self.grain // grain
        self.grain = grain
        for name in ("stores", "lanes", "was_read", "was_written"):
            setattr(self, name, np.repeat(getattr(self, name), count))
        for tables in (self.loads, self.atomics):
            for program, table in tables.items():
                tables[program] = np.repeat(table, count)

    def places(self, addresses: np.ndarray, width: int) -> np.ndarray:
        """The places that accesses of `width` bytes cover: i64 [addresses × places of each]."""
        offsets = addresses - self.start
        grain = gcd(self.grain, width, int(np.bitwise_or.reduce(offsets)))
        if grain != self.grain:
            self.refine(grain)
        places = offsets // grain
        if width > grain:
            places = (places[:, None] + np.arange(width // grain)).reshape(-1)
        return places


class Operations:
    """A table of all operations of a launch: program, time and place in the kernel, by number. Number 0 is none."""

    def __init__(self) -> None:
        self.count = 1
        self.programs = np.zeros(1024, np.int64)
        self.times = np.full(1024, -1, np.int64)
        self.sites = np.zeros(1024, np.int64)
        self.known: list[Site] = []
        self._numbers: dict[int, int] = {}

    def add(self, program: int, time: int, site: Site) -> int:
        if self.count == self.programs.size:
            for name in ("programs", "times", "sites"):
                table = getattr(self, name)
                setattr(self, name, np.concatenate([table, np.zeros_like(table)]))
        number = self.count
        # Sites are one object per place, kept alive in `known`.
        position = self._numbers.setdefault(id(site), len(self.known))
        if position == len(self.known):
            self.known.append(site)
        self.programs[number], self.times[number], self.sites[number] = program, time, position
        self.count += 1
        return number


def _sparse_zeros(count: int) -> np.ndarray:
    """i32 zeros [count] that take memory only where they are written: each program has tables of every buffer it reads.

    `numpy.zeros` asks the system for huge pages, of which each program would then hold some.
    """
    if count < mmap.PAGESIZE:
        return np.zeros(count, np.int32)
    return np.frombuffer(mmap.mmap(-1, count * 4, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.int32)


def extent(tensor: torch.Tensor) -> tuple[int, int]:
    """The first address of a tensor's elements and the one after the last."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def regions_of(tensors: Mapping[str, torch.Tensor]) -> list[Region]:
    """The memory of a launch's tensors, by argument name, in the order of addresses; those that overlap are one."""
    regions: list[Region] = []
    given = [(*extent(tensor), tensor.element_size(), name) for name, tensor in tensors.items() if tensor.numel()]
    for start, stop, width, name in sorted(given):
        if regions and start < regions[-1].stop:
            last = regions.pop()
            grain = gcd(last.grain, width, start - last.start)
            regions.append(Region(f"{last.name}+{name}", last.start, max(last.stop, stop), grain))
        else:
            regions.append(Region(name, start, stop, width))
    return regions
