"""The state of a block while it runs: registers as arrays over its threads, memories, and time.

Registers hold bits, in unsigned integers of the width of their class; an instruction says how it
reads them. An array that a register holds is never changed in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from gemmir.backends.ptx.emulator.bulk import BulkGroups
from gemmir.backends.ptx.emulator.clocks import ATOMIC, EPOCH, WARP
from gemmir.backends.ptx.emulator.cluster import Cluster
from gemmir.backends.ptx.emulator.copies import Copies
from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.marks import Order, Seen, Stamp
from gemmir.backends.ptx.emulator.memory import Memory
from gemmir.backends.ptx.emulator.named import NamedBarrier
from gemmir.backends.ptx.emulator.registers import Pins, RegisterPool
from gemmir.backends.ptx.emulator.tensors import Tensor
from gemmir.backends.ptx.emulator.traffic import Traffic
from gemmir.backends.ptx.emulator.values import Array
from gemmir.backends.ptx.emulator.warpgroup import Warpgroup


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
    tensors: Mapping[int, Tensor] = field(default_factory=dict[int, Tensor])
    """The tensor maps of the kernel, by their address."""
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
    """One block of `count` threads, the number `rank` of its cluster."""

    machine: Machine
    cluster: Cluster
    rank: int
    at: tuple[int, int, int]
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
    named: dict[int, NamedBarrier] = field(default_factory=dict[int, NamedBarrier])
    pins: Pins = field(default_factory=Pins)
    bulk: dict[int, BulkGroups] = field(default_factory=dict[int, BulkGroups])
    """The stores of boxes of each thread."""
    warpgroups: dict[int, Warpgroup] = field(default_factory=dict[int, Warpgroup])
    """The products of each warpgroup."""
    pool: RegisterPool | None = None
    """How many registers the warps have, where they change it."""
    threads: Array = field(init=False)
    first: int = field(init=False)
    """The number of thread 0 in the cluster, as marks say it."""
    opened: int = field(init=False)
    since: int = field(init=False)
    now: int = field(init=False)

    def __post_init__(self) -> None:
        self.threads = np.arange(self.count)
        self.first = self.rank * self.cluster.stride
        self.opened = self.since = self.now = self.machine.next_epoch()
        self.cluster.blocks.append(self)

    def pass_barrier(self) -> None:
        """What was done before is now seen by all threads of the block."""
        clocks = self.cluster.clocks
        if clocks is not None:
            clocks.meet(self.threads + self.first)
            clocks.passed[self.rank] = self.machine.next_epoch()
        self.since = self.now = self.machine.next_epoch()
        self.order.pass_barrier()

    def pass_warp_barrier(self, group: Group) -> None:
        """What the warps of `group` did before is now seen by their own threads."""
        clocks = self.cluster.clocks
        if clocks is not None:
            for warp in np.unique(group.lanes // WARP):
                clocks.meet(group.lanes[group.lanes // WARP == warp] + self.first)
            self.now = self.machine.next_epoch()
            return
        self.now = self.machine.next_epoch()
        if self.order.warps is None:
            self.order.warps = np.zeros(-(-self.count // WARP), np.int64)
        self.order.warps[group.lanes // WARP] = self.now

    def release(self, lanes: Array) -> Array:
        """The clock of what threads have done and know, which they now make known."""
        clock, self.now = self.cluster.shared_clocks.released(lanes + self.first)
        return clock

    def stamp(self, group: Group) -> Stamp:
        """How accesses of `group` are marked now."""
        return self._stamp(group, group.lanes + (self.first + self.now), strong=False)

    def strong_stamp(self, group: Group) -> Stamp:
        """How atomic operations and strong accesses of `group` are marked now."""
        return self._stamp(group, np.full(len(group.lanes), self.now + ATOMIC), strong=True)

    def stamp_of(self, thread: int, count: int, *, strong: bool = False) -> Stamp:
        """How `count` accesses of one thread are marked now."""
        group = Group(np.full(count, thread), False)
        return self.strong_stamp(group) if strong else self.stamp(group)

    def _stamp(self, group: Group, marks: Array, *, strong: bool) -> Stamp:
        clocks, opened = self.cluster.clocks, self.cluster.opened
        if clocks is None:
            return Stamp(group.lanes, marks, self.since, self.opened, self.order, None, strong)
        return Stamp(group.lanes + self.first, marks, opened, opened, self.order, clocks, strong)

    def memory(self, space: str) -> Memory:
        """The memory of a space."""
        return self.shared if space == "shared" else self.machine.global_memory

    def place(self, address: int) -> str:
        """An address of shared memory in words."""
        return self.shared.place(address - self.shared.base)
