"""Who touched a byte, and whether that is ordered before what a thread does now.

A mark is a number: the time, in epochs that grow at each barrier and with each block, above the
thread. So marks since a barrier are larger than one number, and marks of other blocks smaller than
another: blocks run one after another. Threads are numbered through the blocks of a cluster, which
run together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from gemmir.backends.ptx.emulator.clocks import (
    ATOMIC,
    COPY,
    FOREIGN,
    MANY,
    OF_WARP,
    WARP,
    Clocks,
    warp_of,
)
from gemmir.backends.ptx.emulator.values import Array

BARRIER: Final = -(1 << 48)
"""The mark of the bytes of an mbarrier."""


def flight_mark(threads: Array) -> Array:
    """The marks of bytes that asynchronous copies of `threads` are to fill: below 0."""
    return -1 - threads


@dataclass(frozen=True, slots=True)
class Seen:
    """What a block made known at a release: its marks in [first, last) and the mark `own`."""

    first: int
    last: int
    own: int


@dataclass(eq=False)
class Order:
    """What the threads of a block know besides barriers: of their warps, and of other blocks.

    A release by a thread makes known what the block did before its last barrier, and what that
    thread did; an acquire makes it known to a thread, and at the next barrier to its block: PTX
    ISA, section "Memory Consistency Model", for the patterns that synchronise in one direction.
    """

    warps: Array | None = None
    """The time of each warp's last barrier of its own."""
    known: list[Seen] = field(default_factory=list[Seen])
    acquired: dict[int, list[Seen]] = field(default_factory=dict[int, list[Seen]])
    """What single threads know until the next barrier tells the others."""
    observed: dict[int, list[Seen]] = field(default_factory=dict[int, list[Seen]])
    """What threads have read that becomes known to them at their next fence."""
    fenced: dict[int, list[Seen]] = field(default_factory=dict[int, list[Seen]])
    """What threads have made ready to be released by a relaxed access."""

    def pass_barrier(self) -> None:
        """All threads come to know what any does."""
        for found in self.acquired.values():
            self.known += found
        self.acquired.clear()

    def knows(self, thread: int) -> list[Seen]:
        """All that a thread knows of other blocks."""
        return [*self.known, *self.acquired.get(thread, [])]


@dataclass(frozen=True, slots=True, eq=False)
class Stamp:
    """Who is at work: `threads`, their marks, and which marks are since a barrier or of others."""

    threads: Array
    marks: Array
    since: int
    opened: int
    order: Order
    clocks: Clocks | None = None
    strong: bool = False

    def of(self, chosen: Array) -> Stamp:
        """The stamp of some of the threads."""
        threads, marks = self.threads[chosen], self.marks[chosen]
        return Stamp(threads, marks, self.since, self.opened, self.order, self.clocks, self.strong)

    def named(self, code: int) -> str:
        """The thread or copy of a mark in words."""
        if COPY <= code < OF_WARP:
            return "an asynchronous copy"
        if code >= OF_WARP:
            return "another thread"
        if self.clocks is None or self.clocks.blocks == 1:
            return f"thread {code}"
        rank, thread = divmod(code, self.clocks.stride)
        return f"thread {thread} of block {rank} of the cluster"

    def pardoned(self, clash: Array, found: Array) -> Array:
        """Which of the clashes with marks `found` are none, since something orders them."""
        thread = found & (FOREIGN - 1)
        fine = (thread == self.threads[:, None]) & (found & FOREIGN == 0) & (found >= self.opened)
        if self.strong:
            fine |= (thread == ATOMIC) & (found & FOREIGN == 0)
        if self.clocks is not None:
            fine |= self.clocks.ordered(self.threads, found)
        if self.order.warps is not None:
            fine |= self._before_own_warp(found, thread)
        if self.order.known or self.order.acquired:
            fine |= self._known(clash, found)
        return clash & (found > 0) & fine

    def _before_own_warp(self, found: Array, thread: Array) -> Array:
        assert self.order.warps is not None
        own = self.threads // WARP
        same = (warp_of(thread) == own[:, None]) & (found >= self.opened)
        return same & (found < self.order.warps[own][:, None])

    def _known(self, clash: Array, found: Array) -> Array:
        fine = np.zeros(found.shape, np.bool_)
        for lane in np.flatnonzero(clash.any(axis=1)):
            plain = found[lane] & ~FOREIGN
            for seen in self.order.knows(int(self.threads[lane])):
                before = (plain >= seen.first) & (plain < seen.last)
                fine[lane] |= (before | (plain == seen.own)) & (found[lane] & FOREIGN == 0)
        return fine

    def together(self, found: Array, marks: Array) -> Array:
        """The same for a byte of shared memory, of whose readers the clocks keep each."""
        if self.clocks is None:
            return self.several(found, marks)
        return self.clocks.together(found, marks)

    def unordered(self, found: Array, mark: Array) -> Array:
        """Which readers' marks in shared memory are of others and not before what is done now."""
        several = (found >= self.since) & ((found & ~FOREIGN) != mark)
        if self.clocks is None or not several.any():
            return several
        own = (found & (FOREIGN - 1) == self.threads[:, None]) | self.clocks.ordered(
            self.threads, found
        )
        return several & ~own

    def several(self, found: Array, marks: Array) -> Array:
        """The marks of bytes that `found` have read and `marks` read too, since a barrier."""
        thread, mine = found & (FOREIGN - 1), marks & (FOREIGN - 1)
        own = warp_of(mine)
        code = np.where(warp_of(thread) == own, OF_WARP + own, MANY)
        return (marks & ~(FOREIGN - 1)) | np.where(thread == mine, mine, code)
