"""mbarriers: phases, arrivals that a phase waits for, and bytes of copies.

PTX ISA, section "mbarrier". A phase ends once no arrival and no byte is missing; the next one then
waits for as many arrivals as the first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from gemmir.backends.ptx.emulator.clocks import COPY, Clocks
from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.values import Array

MOST_BYTES: Final = (1 << 20) - 1
"""Bytes that a phase may wait for: PTX ISA, section "Tracking asynchronous operations"."""

MOST_ARRIVALS: Final = (1 << 20) - 1


@dataclass(eq=False)
class MBarrier:
    """One mbarrier for `count` arrivals a phase, made by thread `author` at the time `made`."""

    place: str
    number: int
    count: int
    author: int
    made: int
    gathered: Array
    """What those made known who have arrived in this phase."""
    clock: Array
    """What all earlier phases made known."""
    fenced: int | None = None
    """When the author made it known to other blocks and to copies."""
    phase: int = 0
    pending: int = field(init=False)
    missing: int = 0
    """Bytes that are expected and have not come."""
    told: set[int] = field(default_factory=set[int])
    """Threads that know of it by a relaxed barrier of the cluster behind that fence."""
    landed: int = 0
    """When the last copy has landed that completes here."""
    remote: dict[int, int] = field(default_factory=dict[int, int])
    """When threads of other blocks arrived last."""

    def __post_init__(self) -> None:
        self.pending = self.count

    @property
    def code(self) -> int:
        """In marks: the copies that complete here."""
        return COPY + self.number

    def arrive(self, count: int, clock: Array) -> None:
        """`count` arrivals of threads that know `clock`."""
        if count > self.pending:
            raise FaultError(
                "GEM1012",
                f"{count} arrive at {self}, and phase {self.phase} takes only {self.pending} more",
            )
        self.pending -= count
        self.gathered = np.maximum(self.gathered, clock)
        self._end_phase()

    def expect(self, count: int) -> None:
        """The phase waits for so many bytes more."""
        self.missing += count
        if self.missing > MOST_BYTES:
            raise FaultError("GEM1012", f"{self} expects more than {MOST_BYTES} bytes")

    def complete(self, count: int, clock: Array) -> None:
        """So many bytes have come; they may come before they are expected."""
        self.missing -= count
        self.gathered = np.maximum(self.gathered, clock)
        self._end_phase()

    def _end_phase(self) -> None:
        if self.pending or self.missing:
            return
        self.phase += 1
        self.pending = self.count
        self.clock = np.maximum(self.clock, self.gathered)
        self.gathered = np.zeros_like(self.gathered)

    def has_ended(self, parity: int) -> bool:
        """Whether the phase of this parity has ended, which is this one or the one before."""
        return self.phase & 1 != parity

    def require_made(self, threads: Array, clocks: Clocks) -> None:
        """`FaultError` GEM1003 where a thread does not know that this has been initialised."""
        fine = (threads == self.author) | (clocks.known[0][threads, self.author] > self.made)
        if not fine.all() and not self.told.issuperset(threads[~fine].tolist()):
            raise FaultError(
                "GEM1003",
                f"it uses {self}, which another thread initialises without a barrier between",
                int(np.argmin(fine)),
            )

    def require_published(self, thread: int, clocks: Clocks) -> None:
        """The same of copies and of other blocks; GEM1014 where the author had to pass a fence."""
        self.require_made(np.array([thread]), clocks)
        is_own = thread == self.author or thread in self.told
        known = int(clocks.known[0][thread, self.author])
        if self.fenced is None or not (is_own or known > self.fenced):
            raise FaultError(
                "GEM1014",
                f"it uses {self} from a copy or another block, and no fence.mbarrier_init follows "
                "its mbarrier.init",
            )

    def require_whole(self) -> None:
        """`FaultError` GEM1012 where a phase has begun and not ended."""
        if self.pending != self.count or self.missing:
            raise FaultError("GEM1012", f"the block ends and {self}: {self.state}")

    @property
    def state(self) -> str:
        """Where its phase stands, in words."""
        there = self.count - self.pending
        text = f"in phase {self.phase} {there} of {self.count} arrivals have come"
        if self.missing > 0:
            text += f" and {self.missing} bytes are still expected"
        if self.missing < 0:
            text += f" and {-self.missing} bytes more than expected"
        return text

    def __str__(self) -> str:
        return f"the mbarrier at byte {self.place}"
