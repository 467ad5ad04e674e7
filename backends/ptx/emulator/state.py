"""The state of a block while it runs: registers as arrays over its threads, memories, and time.

Registers hold bits, in unsigned integers of the width of their class; an instruction says how it
reads them. An array that a register holds is never changed in place.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gemmir.backends.ptx.emulator.copies import Copies
from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.memory import EPOCH, Memory, Stamp
from gemmir.backends.ptx.emulator.traffic import Traffic
from gemmir.backends.ptx.emulator.values import Array

WARP = 32


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Threads that run an instruction together, in order; `all` where they are the whole block."""

    lanes: Array
    all: bool

    def where(self, chosen: Array) -> Group:
        """Those of this group that are chosen."""
        return Group(self.lanes[chosen], False)

    def joined(self, other: Group, count: int) -> Group:
        """Both groups together, of a block of `count` threads."""
        lanes = np.sort(np.concatenate([self.lanes, other.lanes]))
        return Group(lanes, len(lanes) == count)

    def require_warps(self) -> int:
        """How many warps this group is made of; `FaultError` GEM1009 where one is not whole."""
        counts: Array = np.bincount(self.lanes // WARP)
        short = np.flatnonzero((counts != WARP) & (counts != 0))
        if len(short):
            warp = int(short[0])
            raise FaultError(
                "GEM1009",
                f"{int(counts[warp])} of {WARP} lanes of warp {warp} are here",
                int(np.searchsorted(self.lanes, warp * WARP)),
            )
        return len(self.lanes) // WARP


@dataclass(eq=False)
class Machine:
    """What all blocks share."""

    global_memory: Memory
    traffic: Traffic = field(default_factory=Traffic)
    epoch: int = 0


@dataclass(eq=False)
class Block:
    """One block of `count` threads."""

    machine: Machine
    count: int
    special: dict[str, Array]
    shared: Memory
    values: list[Array | None]
    """What each register holds, by its number."""
    complete: list[bool]
    """Whether all threads have written a register."""
    written: list[Array | None]
    """Which threads have, where not all have."""
    copies: Copies = field(default_factory=Copies)
    threads: Array = field(init=False)
    opened: int = field(init=False)
    since: int = field(init=False)

    def __post_init__(self) -> None:
        self.threads = np.arange(self.count)
        self.machine.epoch += 1
        self.opened = self.since = self.machine.epoch * EPOCH

    def pass_barrier(self) -> None:
        """What was done before is now seen by all threads of the block."""
        self.machine.epoch += 1
        self.since = self.machine.epoch * EPOCH

    def stamp(self, group: Group) -> Stamp:
        """How accesses of `group` are marked now."""
        return Stamp(group.lanes + self.since, self.since, self.opened)

    def memory(self, space: str) -> Memory:
        """The memory of a space."""
        return self.shared if space == "shared" else self.machine.global_memory
