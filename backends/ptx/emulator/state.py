"""The state of a block while it runs: registers as arrays over its threads, memories, and time.

Registers hold bits, in unsigned integers of the width of their class; an instruction says how it
reads them. An array that a register holds is never changed in place.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gemmir.backends.ptx.emulator.copies import Copies
from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.marks import ATOMIC, EPOCH, WARP, Order, Seen, Stamp
from gemmir.backends.ptx.emulator.memory import Memory
from gemmir.backends.ptx.emulator.traffic import Traffic
from gemmir.backends.ptx.emulator.values import Array


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
        if self.all and len(self.lanes) % WARP == 0:
            return len(self.lanes) // WARP
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
    released: dict[int, list[Seen]] = field(default_factory=dict[int, list[Seen]])
    """What is known to who acquires from an address of global memory."""

    def next_epoch(self) -> int:
        """The mark at which a new epoch begins."""
        self.epoch += 1
        return self.epoch * EPOCH


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
    order: Order = field(default_factory=Order)
    threads: Array = field(init=False)
    opened: int = field(init=False)
    since: int = field(init=False)
    now: int = field(init=False)

    def __post_init__(self) -> None:
        self.threads = np.arange(self.count)
        self.opened = self.since = self.now = self.machine.next_epoch()

    def pass_barrier(self) -> None:
        """What was done before is now seen by all threads of the block."""
        self.since = self.now = self.machine.next_epoch()
        self.order.pass_barrier()

    def pass_warp_barrier(self, group: Group) -> None:
        """What the warps of `group` did before is now seen by their own threads."""
        self.now = self.machine.next_epoch()
        if self.order.warps is None:
            self.order.warps = np.zeros(-(-self.count // WARP), np.int64)
        self.order.warps[group.lanes // WARP] = self.now

    def stamp(self, group: Group) -> Stamp:
        """How accesses of `group` are marked now."""
        return Stamp(group.lanes, group.lanes + self.now, self.since, self.opened, self.order)

    def strong_stamp(self, group: Group) -> Stamp:
        """How atomic operations and strong accesses of `group` are marked now."""
        marks = np.full(len(group.lanes), self.now + ATOMIC)
        return Stamp(group.lanes, marks, self.since, self.opened, self.order, strong=True)

    def memory(self, space: str) -> Memory:
        """The memory of a space."""
        return self.shared if space == "shared" else self.machine.global_memory
