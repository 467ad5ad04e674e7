"""What TMA stores and wgmma read of shared memory, which nothing may overwrite before they have.

A read goes on from its instruction to the wait for it; then who waited knows that it is over, and
tells others at a barrier. So whether something may be written does not depend on when it is read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gemmir.backends.ptx.emulator.clocks import Clocks
from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.values import Array

if TYPE_CHECKING:
    from gemmir.backends.ptx.emulator.marks import Stamp

UNIT = 16
"""Bytes of the units that are read."""


@dataclass(eq=False)
class AsyncRead:
    """Units of shared memory, read by `what`; over once `parts` waits for it are passed."""

    what: str
    units: Array
    parts: int
    over: list[tuple[Array, int]] = field(default_factory=list[tuple[Array, int]])
    """Who has waited, of whom one is enough to know, and when."""
    low: int = field(init=False)
    high: int = field(init=False)

    def __post_init__(self) -> None:
        self.low, self.high = int(self.units.min()), int(self.units.max()) + 1

    def end(self, codes: Array, now: int) -> None:
        """Threads have waited for this: what they make known from now on, says it too."""
        self.over.append((codes, now))

    def touched(self, first: Array, last: Array) -> Array:
        """Which of the ranges of units, both ends included, this reads something of."""
        begin = np.searchsorted(self.units, first, side="left")
        return begin < np.searchsorted(self.units, last, side="right")

    def problem(self, threads: Array, clocks: Clocks) -> tuple[str, int]:
        """Why a thread may not overwrite this, and which one; "" where all may."""
        if len(self.over) < self.parts:
            return "has yet to read", 0
        known = clocks.known[0]
        for codes, time in self.over:
            fine = (known[threads[:, None], codes] > time).any(axis=1)
            if not fine.all() and not (fine := fine | np.isin(threads, codes)).all():
                why = "reads, and whose wait for it no barrier makes known here,"
                return why, int(np.argmin(fine))
        return "", 0


@dataclass(eq=False)
class AsyncReads:
    """The reads of the shared memory of one block."""

    held: list[AsyncRead] = field(default_factory=list[AsyncRead])

    def begin(self, what: str, units: Array, parts: int) -> AsyncRead:
        """Units in order, each once, are being read from now on."""
        read = AsyncRead(what, units, parts)
        self.held.append(read)
        return read

    def forget(self, read: AsyncRead) -> None:
        """Drop what is over and was of the same units and threads: who knows of this, knows it."""
        codes = read.over[-1][0]
        self.held = [
            r
            for r in self.held
            if r is read
            or (r.low, r.high, len(r.over)) != (read.low, read.high, 1)
            or not np.array_equal(r.over[0][0], codes)
        ]

    def require_free(self, offsets: Array, width: int, stamp: Stamp) -> None:
        """Threads write `width` bytes at offsets; `FaultError` where they are still being read."""
        assert stamp.clocks is not None
        first, last = offsets // UNIT, (offsets + width - 1) // UNIT
        low, high = int(first.min()), int(last.max()) + 1
        for read in self.held:
            if read.high <= low or high <= read.low:
                continue
            lanes = np.flatnonzero(read.touched(first, last))
            if len(lanes):
                _require_free(read, stamp.threads[lanes], lanes, stamp.clocks)

    def require_free_units(self, low: int, high: int, thread: int, clocks: Clocks) -> None:
        """A copy of a thread overwrites the units from `low` to `high`, and takes their place."""
        kept: list[AsyncRead] = []
        ends, one = (np.array([low]), np.array([high - 1])), np.array([thread])
        for read in self.held:
            apart = read.high <= low or high <= read.low
            if not apart and read.touched(*ends)[0]:
                _require_free(read, one, np.zeros(1, np.int64), clocks)
            if low > read.low or read.high > high:
                kept.append(read)
        self.held = kept


def _require_free(read: AsyncRead, threads: Array, lanes: Array, clocks: Clocks) -> None:
    problem, which = read.problem(threads, clocks)
    if problem:
        code = "GEM1008" if "yet" in problem else "GEM1003"
        message = f"it overwrites what {read.what} {problem} in shared memory"
        raise FaultError(code, message, int(lanes[which]))
