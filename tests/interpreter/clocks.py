"""What happens before what, in one launch: vector clocks over debug barriers and grid barriers.

A program's time is the number of debug barriers that it has passed. An access at time t of program p happens before
what program q does now if q's horizon for p is later than t. A release hands out the releasing program's horizon, an
acquire of the same counter takes it over: at once for the thread that acquired, for the program's other threads after
the next debug barrier. So a grid barrier without its debug barriers orders nothing, as on a GPU, where one thread
counts for all.

The algorithm is the one of vector-clock race detectors (Flanagan and Freund, "FastTrack", PLDI 2009), with debug
barriers in the place of the program order of a thread.
"""

from __future__ import annotations

import numpy as np


class Clocks:
    """The clocks of a launch.

    Arguments:
        programs: the number of programs of the grid.
    """

    def __init__(self, programs: int) -> None:
        self._programs = programs
        self.times = np.ones(programs, np.int64)
        # Horizons of programs that have never seen another's release are zero except for their own time: such programs
        # share one array, since a launch without grid barriers may have thousands of them.
        self._horizons: dict[int, np.ndarray] = {}
        self._pending: dict[int, np.ndarray] = {}
        self._released: dict[int, np.ndarray] = {}
        self._alone = np.zeros(programs, np.int64)
        self._alone_for = 0

    def horizon(self, program: int) -> np.ndarray:
        """For each program, the time before which its accesses are ordered before what `program` does now.

        Returns:
            i64 [programs]; valid until the next call.
        """
        horizon = self._horizons.get(program)
        if horizon is None:
            horizon = self._alone
            horizon[self._alone_for] = 0
            self._alone_for = program
        horizon[program] = self.times[program]
        return horizon

    def barrier(self, program: int) -> None:
        """The program passes a debug barrier."""
        self.times[program] += 1
        pending = self._pending.pop(program, None)
        if pending is not None:
            self._horizons[program] = np.maximum(self.horizon(program), pending)

    def atomic(self, program: int, address: int, acquires: bool, releases: bool) -> None:
        """One thread of the program counts or looks at an address.

        Arguments:
            program: its number.
            address: of the counter.
            acquires, releases: the memory order of the operation.
        """
        if acquires and address in self._released:
            released = self._released[address]
            pending = self._pending.get(program)
            self._pending[program] = released if pending is None else np.maximum(pending, released)
        if releases:
            known = self.horizon(program)
            for other in (self._pending.get(program), self._released.get(address)):
                known = known if other is None else np.maximum(known, other)
            self._released[address] = known.copy()
