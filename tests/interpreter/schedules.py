"""Running the programs of a launch side by side, in an order that a seed draws.

Triton's interpreter runs one program after the other, so a kernel that waits for another program never ends, and a
missing grid barrier is never seen. Here each program is a coroutine. It gives way before each atomic, and the next
program is drawn at random: a missing or wrong barrier shows as a wrong result under some seed, or as a `Deadlock`.
A kernel may wait by atomics or volatile loads; one that waits by plain loads (the compiler may read once) never ends.

Example::

    for seed in range(20):
        with shuffled_schedules(seed):
            kernel[(2, 4)](state, counters, steps)
        assert torch.allclose(state, expected)
"""

from __future__ import annotations

import contextvars
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

from greenlet import getcurrent, greenlet

from .hooks import Access, Instrument, InstrumentError, Launch, Program, installed, resume

# Rounds in which every program that is left looks once and memory stays as it is, before the launch is given up.
_PATIENCE = 8
# How often a program that waits may look again while others could go on: programs must also be seen to leave a
# barrier early, but most looks are in vain.
_LOOK_AGAIN = 0.25
_POINTS = ("atomic", "barrier", "memory")


class Deadlock(InstrumentError):
    """Every program that is left waits for memory that none of them changes."""


def in_order() -> AbstractContextManager[None]:
    """A context manager under which each program runs until it waits, the first that can go on always being next.

    The order is that of the interpreter itself wherever no program waits. It costs next to nothing, so it can stay
    installed for a whole session: kernels with grid barriers then end.

    Raises:
        Deadlock: out of the launch, if all programs that are left wait for good.
    """
    return _scheduled(None, ("atomic",))


def shuffled_schedules(seed: int, at: Collection[str] = ("atomic",)) -> AbstractContextManager[None]:
    """A context manager under which the next program to run is drawn at random.

    Arguments:
        seed: decides all draws in the block; the same launches under the same seed run in the same order.
        at: where a program gives way: before each "atomic" (volatile loads included), and if wanted at each
            `tl.debug_barrier` ("barrier") and before every load and store ("memory").

    Raises:
        Deadlock: out of the launch, if all programs that are left wait for good.
    """
    return _scheduled(Random(seed), at)


@contextmanager
def _scheduled(random: Random | None, at: Collection[str]) -> Iterator[None]:
    unknown = set(at) - set(_POINTS)
    if unknown:
        raise ValueError(f"A program gives way at {', '.join(_POINTS)}; not at {', '.join(sorted(unknown))}.")
    with installed(_Schedule(random, frozenset(at))):
        yield


@dataclass(eq=False)
class _Task:
    """A program as a coroutine.

    Attributes:
        last: what its last operation saw, if it may be waiting: the operation's kind, addresses, mask, operand, and
            the memory it saw.
        waits: the operation that it repeats in vain, or None while it gets on.
    """

    program: Program
    coroutine: greenlet
    last: tuple[Any, ...] | None = None
    waits: Access | None = None

    def could_go_on(self) -> bool:
        """Whether what a waiting program looks at has changed since."""
        return self.waits is not None and self.last is not None and self.waits.memory() != self.last[-1]


class _Schedule(Instrument):
    def __init__(self, random: Random | None, at: frozenset[str]) -> None:
        self._random = random
        self._at = at
        self._running: _Task | None = None
        self._changes = 0

    def run(self, launch: Launch, programs: list[Program]) -> bool:
        self._scheduler = getcurrent()
        ready = [_Task(program, greenlet(program.body)) for program in programs]
        for task in ready:
            task.coroutine.gr_context = contextvars.copy_context()
        waiting: list[_Task] = []
        in_vain = 0
        try:
            while ready or waiting:
                queue, position = self._draw(ready, waiting)
                if queue is not None:
                    in_vain = 0
                    self._advance(queue.pop(position), ready, waiting, position if queue is ready else len(ready))
                    continue
                changes, count = self._changes, len(waiting)
                for task in self._round(waiting):
                    waiting.remove(task)
                    self._advance(task, ready, waiting, len(ready))
                in_vain = in_vain + 1 if (changes, count) == (self._changes, len(waiting)) else 0
                if in_vain == _PATIENCE:
                    raise Deadlock(_explain(launch, waiting))
        finally:
            for task in ready + waiting:
                task.coroutine.throw()
        return True

    def _draw(self, ready: list[_Task], waiting: list[_Task]) -> tuple[list[_Task] | None, int]:
        """The queue and the position in it of the program to run next; no queue if all wait in vain."""
        if waiting and (not ready or (self._random is not None and self._random.random() < _LOOK_AGAIN)):
            able = [position for position, task in enumerate(waiting) if task.could_go_on()]
            if able:
                return waiting, self._random.choice(able) if self._random is not None else able[0]
        if ready:
            return ready, self._random.randrange(len(ready)) if self._random is not None else 0
        return None, 0

    def _round(self, waiting: list[_Task]) -> list[_Task]:
        return self._random.sample(waiting, len(waiting)) if self._random is not None else list(waiting)

    def _advance(self, task: _Task, ready: list[_Task], waiting: list[_Task], position: int) -> None:
        """Run a program until it gives way or ends, and put it where it belongs."""
        resume(task.program)
        self._running = task
        try:
            task.coroutine.switch()
        finally:
            self._running = None
        if task.coroutine.dead:
            self._changes += 1
        elif task.waits is not None:
            waiting.append(task)
        else:
            ready.insert(position, task)

    def _give_way(self) -> None:
        self._scheduler.switch()

    def accessing(self, access: Access) -> None:
        if self._running is not None and ("memory" in self._at or ("atomic" in self._at and access.may_wait)):
            self._give_way()

    def accessed(self, access: Access, changed: bool) -> None:
        task = self._running
        if task is None or access.operation == "load":
            return
        if changed or not access.may_wait:
            self._changes += 1
            task.last = task.waits = None
            return
        operand = access.value.data.tobytes() if access.value is not None else b""
        pointers, mask = access.pointers.data.tobytes(), access.mask.data.tobytes()
        seen = (access.operation, pointers, mask, operand, access.memory())
        task.waits = access if seen == task.last else None
        task.last = seen

    def barrier(self) -> None:
        if self._running is not None and "barrier" in self._at:
            self._give_way()


def _explain(launch: Launch, waiting: list[_Task]) -> str:
    """The report of a deadlock: who waits, and where."""
    total = launch.grid[0] * launch.grid[1] * launch.grid[2]
    places: dict[Any, list[tuple[int, int, int]]] = {}
    for task in waiting:
        places.setdefault(launch.site(task.coroutine.gr_frame), []).append(task.program.index)
    lines = [
        f"  {len(programs)} at {place}: programs {', '.join(map(str, sorted(programs)[:8]))}"
        + (" …" if len(programs) > 8 else "")
        for place, programs in places.items()
    ]
    return "\n".join(
        [
            f"Deadlock in kernel `{launch.kernel}`: {len(waiting)} of its {total} programs wait, the others have "
            f"ended, and in {_PATIENCE} rounds nothing that they look at has changed.",
            *lines,
            "Compare the arrivals that a barrier waits for with the programs that reach it, in each group and step.",
        ]
    )
