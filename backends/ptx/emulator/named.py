"""Barriers of some threads of a block, and of all threads of a cluster.

PTX ISA, sections "bar / barrier" and "barrier.cluster".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.values import Array


@dataclass(eq=False)
class NamedBarrier:
    """Barrier `number` of a block, for `expected` threads this time, 0 before the first is here.

    What all have made known by arriving, those come to know who also wait.
    """

    number: int
    expected: int = 0
    arrived: int = 0
    turn: int = 0
    clock: Array | None = None
    waiters: list[Array] = field(default_factory=list[Array])

    def arrive(self, codes: Array, expected: int, clock: Array, *, waits: bool) -> bool:
        """Threads arrive; whether this was the last that were missing."""
        if self.arrived and expected != self.expected:
            raise FaultError(
                "GEM1005",
                f"barrier {self.number} is for {expected} threads here, and {self.arrived} are at "
                f"it that say {self.expected}",
            )
        self.expected = expected
        self.arrived += len(codes)
        if self.arrived > expected:
            raise FaultError(
                "GEM1005", f"{self.arrived} threads are at barrier {self.number} of {expected}"
            )
        self.clock = clock if self.clock is None else np.maximum(self.clock, clock)
        if waits:
            self.waiters.append(codes)
        return self.arrived == expected

    def open(self, acquire: Callable[[Array, Array], None]) -> None:
        """Let those go on who wait."""
        assert self.clock is not None
        for codes in self.waiters:
            acquire(codes, self.clock)
        self.waiters.clear()
        self.arrived, self.clock = 0, None
        self.turn += 1

    def __str__(self) -> str:
        return f"barrier {self.number} ({self.arrived} of {self.expected} threads are there)"
