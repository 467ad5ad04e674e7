"""Shared memory between the threads of a block, which are run together, op by op.

Together they meet each barrier at the same time, so that a missing one changes no number. It shows
all the same: what a thread has touched since the last barrier no other may write, and what it has
written no other may touch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from gemmir.evaluate.fault import FaultError
from gemmir.evaluate.values import Array

BLOCK: Final = (1 << 36) - 2
"""The number of all threads together, in a copy that they make at once."""

SEVERAL: Final = BLOCK + 1
"""Stands for more than one reader."""


@dataclass(eq=False, slots=True)
class Turn:
    """Which thread runs, and how many barriers all have passed, counted from 1."""

    thread: int = BLOCK
    barriers: int = 1

    @property
    def since(self) -> int:
        """The least stamp of what was done behind the last barrier."""
        return self.barriers * (SEVERAL + 1)


@dataclass(eq=False, slots=True)
class SharedTouches:
    """The stamps of the last read and write of each of the `elements` of a buffer.

    A stamp says behind which barrier that was, and by which thread.
    """

    turn: Turn
    elements: int
    _reads: Array = field(init=False)
    _writes: Array = field(init=False)

    def __post_init__(self) -> None:
        """Nobody has touched anything."""
        self._reads, self._writes = (np.zeros(self.elements, np.int64) for _ in range(2))

    def read(self, places: Array) -> None:
        """The thread whose turn it is reads; faults with GEM0925 where another one has written."""
        since = self.turn.since
        mine = since + self.turn.thread
        self._require_mine("reads", "written", self._writes[places])
        before = self._reads[places]
        if before.max(initial=0) < since:
            self._reads[places] = mine
        elif (others := (before >= since) & (before != mine)).any():
            self._reads[places] = np.where(others, since + SEVERAL, mine)

    def write(self, places: Array) -> None:
        """It writes; faults with GEM0925 where another one has read or written."""
        self._require_mine("writes", "written", self._writes[places])
        self._require_mine("writes", "read", self._reads[places])
        self._writes[places] = self.turn.since + self.turn.thread

    def _require_mine(self, does: str, did: str, stamps: Array) -> None:
        since = self.turn.since
        if stamps.max(initial=0) < since:
            return
        count = int(((stamps >= since) & (stamps != since + self.turn.thread)).sum())
        if count:
            raise FaultError(
                "GEM0925",
                f"a thread {does} what another has {did}: {count} elements, and no barrier in "
                "between",
            )
