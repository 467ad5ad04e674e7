"""What each thread knows of what others did, where threads do not all meet at one barrier.

A vector clock for each thread of a cluster: up to which time it knows what each other thread, and
each asynchronous copy, has done. Who arrives at a barrier makes known what it knows; who has waited
there comes to know it. PTX ISA, section "Memory Consistency Model": this is its causality order.
A second clock holds what is known through a proxy fence too: only that may be touched by the
asynchronous proxy, which TMA and wgmma are, after ordinary instructions have written it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from gemmir.backends.ptx.emulator.values import Array

EPOCH: Final = 1 << 16
"""What one epoch adds to a mark."""

FOREIGN: Final = 1 << 15
"""The bit of a reader's mark that says that other blocks have read the byte too."""

MANY: Final = FOREIGN - 1
"""In place of a thread: several, of several warps."""

ATOMIC: Final = FOREIGN - 2
"""In place of a thread: an atomic operation or a strong access, which race with none of these."""

OF_WARP: Final = FOREIGN // 2
"""In place of a thread: OF_WARP + w stands for several threads of warp w."""

COPY: Final = FOREIGN // 4
"""In place of a thread: COPY + n stands for the copies that complete on mbarrier n."""

SET: Final = 1 << 62
"""A reader's mark from here on stands for several marks: SET + 2 * FOREIGN * number + MANY."""

WARP: Final = 32

BARRIERS: Final = 64
"""The mbarriers of one block, at most."""


def warp_of(thread: Array) -> Array:
    """The warp of a thread, or of several; a number like no other where they are of several."""
    return np.where(thread < OF_WARP, thread // WARP, thread - OF_WARP)


def warps_of(lanes: Array) -> Array:
    """The warps of some threads, which are in order."""
    first, last = int(lanes[0]) // WARP, int(lanes[-1]) // WARP
    if len(lanes) == (last - first + 1) * WARP:
        return np.arange(first, last + 1)
    return np.unique(lanes // WARP)


def _as_slice(codes: Array) -> Array | slice:
    """Adjacent threads as a slice, which copies nothing."""
    first, last = int(codes[0]), int(codes[-1]) + 1
    return slice(first, last) if last - first == len(codes) else codes


@dataclass(eq=False)
class Clocks:
    """The clocks of a cluster of `blocks` blocks with `stride` numbers of threads each.

    `known[0][t]` are the times of thread t, and `known[1][t]` those through a proxy fence. A mark
    below the time of its thread is known.
    """

    stride: int
    blocks: int
    tick: Callable[[], int]
    """The next time."""
    passed: list[int] = field(init=False)
    """The time of the last barrier of all threads of each block."""
    known: Array = field(init=False)
    sets: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])
    numbers: dict[tuple[int, ...], int] = field(default_factory=dict[tuple[int, ...], int])

    def __post_init__(self) -> None:
        self.threads = self.stride * self.blocks
        columns = self.threads + BARRIERS * self.blocks
        self.known = np.zeros((2, self.threads, columns), np.int64)
        self.passed = [0] * self.blocks

    def nothing(self) -> Array:
        """The clock of who knows nothing."""
        return np.zeros((2, self.known.shape[2]), np.int64)

    def column(self, code: int) -> int:
        """Where the time of a thread or copy stands."""
        return code if code < COPY else self.threads + code - COPY

    def released(self, codes: Array) -> tuple[Array, int]:
        """What threads know together, with all that they did until now; and the time after it."""
        now = self.tick()
        clock = self.known[:, _as_slice(codes)].max(axis=1)
        clock[0, codes] = now
        return clock, now

    def acquire(self, codes: Array, clock: Array) -> None:
        """Threads come to know what a clock says."""
        where = _as_slice(codes)
        self.known[:, where] = np.maximum(self.known[:, where], clock[:, None])

    def meet(self, codes: Array) -> int:
        """Threads tell each other all they know; returns the time after it."""
        clock, now = self.released(codes)
        self.acquire(codes, clock)
        return now

    def pass_proxy_fence(self, codes: Array) -> int:
        """What threads did and know is from now on known to the asynchronous proxy."""
        now = self.tick()
        self.known[1, codes] = np.maximum(self.known[1, codes], self.known[0, codes])
        self.known[1, codes, codes] = now
        return now

    def ordered(self, threads: Array, found: Array) -> Array:
        """Which marks, a row for each thread, each thread knows of."""
        code = found & (FOREIGN - 1)
        single = (code < OF_WARP) & (found > 0) & (found < SET)
        column = np.where(single, np.where(code < COPY, code, code - COPY + self.threads), 0)
        fine = single & (found < self.known[0][threads[:, None], column])
        for lane, place in np.argwhere(~single & (found > 0)):
            fine[lane, place] = self.knows(int(threads[lane]), int(found[lane, place]))
        return fine

    def knows(self, thread: int, mark: int, *, fenced: bool = False) -> bool:
        """Whether a thread knows what left a mark, with `fenced` through a proxy fence too.

        What copies wrote needs no such fence.
        """
        if mark <= 0:
            return mark == 0
        if mark >= SET:
            return all(self.knows(thread, m) for m in self.sets[(mark - SET) // (2 * FOREIGN)])
        code = mark & (FOREIGN - 1)
        if mark & FOREIGN or code >= ATOMIC:
            return mark < self.passed[thread // self.stride] and not mark & FOREIGN
        if code >= OF_WARP:
            first = (code - OF_WARP) * WARP
            return bool((mark < self.known[0, thread, first : first + WARP]).all())
        if code == thread and not fenced:
            return True
        which = 1 if fenced and code < COPY else 0
        return mark < int(self.known[which, thread, self.column(code)])

    def aware(self, threads: Array, mark: int, *, fenced: bool = False) -> Array:
        """Which of some threads know what left a mark."""
        code = mark & (FOREIGN - 1)
        if mark <= 0 or mark >= SET or code >= OF_WARP or mark & FOREIGN:
            return np.array([self.knows(t, mark, fenced=fenced) for t in threads.tolist()])
        which = 1 if fenced and code < COPY else 0
        fine = mark < self.known[which, threads, self.column(code)]
        return fine if fenced else fine | (threads == code)

    def first_unknown(self, thread: int, marks: Array, *, fenced: bool = False) -> int:
        """Where the first mark is that a thread does not know of; -1 where it knows all."""
        if not marks.size:
            return -1
        flat = marks.reshape(-1)
        found = [int(flat[0])] if (flat == flat[0]).all() else np.unique(flat).tolist()
        unknown = [m for m in found if not self.knows(thread, m, fenced=fenced)]
        return int(np.argmax(flat == unknown[0])) if unknown else -1

    def together(self, old: Array, new: Array) -> Array:
        """The marks of bytes that `old` have read and `new` read too, neither after the other."""
        pairs = np.stack([old, new], axis=-1)
        different, where = np.unique(pairs.reshape(-1, 2), axis=0, return_inverse=True)
        marks = np.array([self._both(int(a), int(b)) for a, b in different], np.int64)
        return marks[where.reshape(old.shape)]

    def _both(self, old: int, new: int) -> int:
        members: dict[int, int] = {}
        for mark in (*self._members(old), *self._members(new)):
            code = mark & (FOREIGN - 1)
            warp = code // WARP if code < OF_WARP else code - OF_WARP
            before = members.get(warp)
            if before is None or before & (FOREIGN - 1) == code:
                members[warp] = max(mark, before or 0)
            else:
                members[warp] = max(mark, before) // EPOCH * EPOCH + OF_WARP + warp
        found = tuple(sorted(members.values()))
        if len(found) == 1:
            return found[0]
        number = self.numbers.setdefault(found, len(self.sets))
        if number == len(self.sets):
            self.sets.append(found)
        return SET + 2 * FOREIGN * number + MANY

    def _members(self, mark: int) -> tuple[int, ...]:
        return self.sets[(mark - SET) // (2 * FOREIGN)] if mark >= SET else (mark,)
