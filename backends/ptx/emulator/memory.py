"""Memory as threads see it: bytes with bounds, and who touched each of them since a barrier.

Every byte carries two marks, of who wrote it last and of who read it last.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from gemmir.backends.ptx.emulator.async_reads import AsyncReads
from gemmir.backends.ptx.emulator.clocks import ATOMIC, COPY, FOREIGN, OF_WARP, WARP
from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.marks import BARRIER, Stamp
from gemmir.backends.ptx.emulator.values import Array

WINDOW_BITS: Final = 24
WINDOW: Final = 1 << WINDOW_BITS
"""Shared memory of block r of a cluster begins at r * WINDOW, also for the block itself."""

GUARD: Final = 1 << 20
"""Addresses between two buffers that belong to neither."""


@dataclass(eq=False)
class Memory:
    """Buffers at `starts` with gaps between; `space` is global or shared.

    Shared memory begins unwritten and belongs to one block; global memory holds what it is given,
    but for the bytes that are `blank`, where that is set.
    """

    space: str
    names: Sequence[str]
    starts: Sequence[int]
    sizes: Sequence[int]
    data: Array = field(init=False)
    written: Array = field(init=False)
    read: Array = field(init=False)
    blank: Array | None = field(default=None, init=False)
    reads: AsyncReads | None = None
    """What the asynchronous proxy reads of shared memory, where a kernel uses it."""
    rank: int = 0
    """That of the block in its cluster, if this is shared memory."""
    swizzles: Array | None = None
    """For units of 16 bytes that a copy has written: 1 + over how many bytes it swizzled them."""

    def __post_init__(self) -> None:
        self.base = min(self.starts, default=0)
        last = max((a + n for a, n in zip(self.starts, self.sizes, strict=True)), default=self.base)
        room = -(-(last - self.base) // 16) * 16 + 16
        self.data = np.zeros(room, np.uint8)
        self.written = np.zeros(room, np.int64)
        self.read = np.zeros(room, np.int64)
        self._order = np.array(self.starts, np.int64)
        self._ends = self._order + np.array(self.sizes, np.int64)
        self.is_shared = self.space == "shared"

    def begin_async(self) -> None:
        """The asynchronous proxy uses this."""
        self.reads = AsyncReads()
        self.swizzles = np.zeros(len(self.data) // 16, np.uint8)

    def buffer(self, number: int) -> Array:
        """The bytes of one buffer."""
        start = self.starts[number] - self.base
        return self.data[start : start + self.sizes[number]]

    def begin_blank(self, masks: Mapping[int, Array]) -> None:
        """The bytes of some buffers that nobody has written yet."""
        if masks:
            self.blank = np.zeros(len(self.data), np.bool_)
        for number, mask in masks.items():
            self.blank_of(number)[:] = mask

    def blank_of(self, number: int) -> Array:
        """Which bytes of a buffer nobody has written."""
        assert self.blank is not None
        start = self.starts[number] - self.base
        return self.blank[start : start + self.sizes[number]]

    def rows(self, addresses: Array, width: int, needed: Array | int | None = None) -> Array:
        """The numbers of the units of `width` bytes at `addresses`; checks alignment and bounds.

        Only `needed` bytes of each have to lie in a buffer, where that is given.
        """
        if self.is_shared:
            addresses = self.local(addresses)
        first, last = int(addresses.min()), int(addresses.max())
        place = bisect_right(self.starts, first) - 1
        aligned = not int(np.bitwise_or.reduce(addresses)) & (width - 1)
        if place >= 0 and last + width <= self.starts[place] + self.sizes[place] and aligned:
            return (addresses - self.base) // width
        return self._rows_of_each(addresses, width, needed)

    def local(self, addresses: Array) -> Array:
        """Addresses without the window of the block; `FaultError` GEM1002 for another window."""
        windows = addresses >> WINDOW_BITS
        if not windows.any():
            return addresses
        if (wrong := (windows != 0) & (windows != self.rank)).any():
            lane = int(np.argmax(wrong))
            what = f"{int(addresses[lane]):#x} lies in another block of the cluster"
            raise FaultError("GEM1002", what, lane)
        return addresses % WINDOW

    def require_inside(self, address: int, size: int) -> None:
        """`FaultError` GEM1002 where bytes do not lie in one buffer."""
        place = bisect_right(self.starts, address) - 1
        if place < 0 or address + size > self.starts[place] + self.sizes[place]:
            places = np.array([place])
            self._refuse_place(np.array([address]), size, np.ones(1, np.bool_), places)

    def _rows_of_each(self, addresses: Array, width: int, needed: Array | int | None) -> Array:
        if (wrong := addresses % width != 0).any():
            lane = int(np.argmax(wrong))
            raise FaultError(
                "GEM1002",
                f"the {self.space} address {int(addresses[lane]):#x} is no multiple of {width}",
                lane,
            )
        needed = width if needed is None else needed
        places = np.searchsorted(self._order, addresses, side="right") - 1
        outside = (places < 0) | (addresses + needed > self._end(places))
        if needed is not width:
            outside &= needed != 0
        if outside.any():
            self._refuse_place(addresses, width, outside, places)
        return (addresses - self.base) // width

    def _end(self, places: Array) -> Array:
        return self._ends[places] if len(self._ends) else np.full(len(places), -1)

    def _refuse_place(self, addresses: Array, width: int, outside: Array, places: Array) -> None:
        lane = int(np.argmax(outside))
        place, address = int(places[lane]), int(addresses[lane])
        if place < 0:
            where = f"the address {address:#x}, outside any buffer"
        else:
            offset = address - self.starts[place]
            where = f"{offset} of the {self.sizes[place]} bytes of {self.names[place]}"
        raise FaultError("GEM1002", f"{width} bytes at {where} in {self.space} memory", lane)

    def require_unwritten(self, rows: Array, width: int) -> None:
        """`FaultError` GEM1003 where this launch has written what is read as never changing."""
        changed = self.written.reshape(-1, width)[rows] != 0
        if changed.any():
            why = "it reads by .nc, as data that never changes, what this launch writes"
            self._refuse_race(why, *self._first(changed, rows, width))

    def load(self, rows: Array, width: int, stamp: Stamp) -> Array:
        """The bytes of each unit, a row a thread; notes who reads."""
        mark = stamp.marks[:, None]
        found = self.written.reshape(-1, width)[rows]
        if self.is_shared:
            fine = (found > 0) & ((found < stamp.since) | (found == mark))
        else:
            fine = (found == 0) | (found == mark)
            fine |= (found >= stamp.opened) & (found < stamp.since)
        if not fine.all():
            self._refuse_read(rows, width, stamp, found)
        if self.blank is not None:
            never = self.blank.reshape(-1, width)[rows]
            if never.any():
                self._refuse_unwritten(never, rows, width)
        self._note_read(rows, width, stamp, mark)
        return self.data.reshape(-1, width)[rows]

    def copied(self, addresses: Array, width: int, filled: Array, stamp: Stamp) -> None:
        """Check and note that copies of `width` bytes read the first `filled` ones of them."""
        rows = self.rows(addresses, width, filled)
        full = filled == width
        if full.any():
            self.load(rows[full], width, stamp.of(full))
        column = np.arange(width)
        partly = (column < filled[:, None]) & ~full[:, None]
        if partly.any():
            lanes = np.broadcast_to(np.arange(len(rows))[:, None], partly.shape)[partly]
            at = (rows[:, None] * width + column)[partly]
            self.load(at, 1, stamp.of(lanes))

    def store(self, rows: Array, values: Array, stamp: Stamp) -> None:
        """Write a row of bytes for each thread; notes who writes."""
        width = values.shape[1]
        self.claim(rows, width, stamp, stamp.marks)
        self.data.reshape(-1, width)[rows] = values

    def claim(self, rows: Array, width: int, stamp: Stamp, marks: Array) -> None:
        """Set the writers' marks; faults where others have read or written since a barrier."""
        self._check_write(rows, width, stamp)
        if self.reads is not None and self.reads.held:
            self.reads.require_free(rows * width, width, stamp)
        if self.swizzles is not None:
            self.swizzles[rows * width // 16] = 0
        written = self.written.reshape(-1, width)
        written[rows] = marks[:, None]
        if self.blank is not None:
            self.blank.reshape(-1, width)[rows] = False
        twice = written[rows] != marks[:, None]
        if twice.any():
            self._refuse_race("two threads write at once", *self._first(twice, rows, width))

    def _note_read(self, rows: Array, width: int, stamp: Stamp, mark: Array) -> None:
        if self.is_shared and stamp.clocks is not None:
            warps = stamp.threads // WARP
            if warps[0] != warps[-1]:
                for warp in np.unique(warps):
                    own = np.flatnonzero(warps == warp)
                    self._note_read(rows[own], width, stamp.of(own), mark[own])
                return
        read = self.read.reshape(-1, width)
        found = read[rows]
        new = np.broadcast_to(mark, found.shape)
        several = stamp.unordered(found, mark)
        several_of = stamp.together if self.is_shared else stamp.several
        if several.any():
            new = np.where(several, several_of(found, new), new)
        if not self.is_shared:
            foreign = ((found > 0) & (found < stamp.opened)) | (found & FOREIGN != 0)
            if stamp.strong:
                foreign &= found & (2 * FOREIGN - 1) != ATOMIC
            new = np.where(foreign, new | FOREIGN, new)
        read[rows] = new
        differs = read[rows] != new
        if differs.any():
            at = (rows[:, None] * width + np.arange(width))[differs]
            np.maximum.at(self.read, at, several_of(self.read[at], new[differs]))

    def _check_write(self, rows: Array, width: int, stamp: Stamp) -> None:
        mark = stamp.marks[:, None]
        found = self.written.reshape(-1, width)[rows]
        clash = (found < 0) | ((found >= stamp.since) & (found != mark))
        if not self.is_shared:
            clash |= (found > 0) & (found < stamp.opened)
        if clash.any():
            self._refuse_clash(clash, found, rows, stamp, "writes what", "writes")
        found = self.read.reshape(-1, width)[rows]
        clash = (found >= stamp.since) & ((found & ~FOREIGN) != mark)
        if not self.is_shared:
            clash |= ((found > 0) & (found < stamp.opened)) | (found & FOREIGN != 0)
        if clash.any():
            self._refuse_clash(clash, found, rows, stamp, "writes what", "reads")

    def _refuse_read(self, rows: Array, width: int, stamp: Stamp, found: Array) -> None:
        if self.is_shared and (never := found == 0).any():
            self._refuse_unwritten(never, rows, width)
        fine = (found == 0) | (found == stamp.marks[:, None])
        fine |= (found >= stamp.opened) & (found < stamp.since)
        self._refuse_clash(~fine, found, rows, stamp, "reads what", "writes")

    def _refuse_unwritten(self, never: Array, rows: Array, width: int) -> None:
        lane = int(np.argmax(never.any(axis=1)))
        raise FaultError(
            "GEM1004",
            f"{width} bytes at {self.place(int(rows[lane]) * width)} were never written",
            lane,
        )

    def _refuse_clash(
        self, clash: Array, found: Array, rows: Array, stamp: Stamp, does: str, other: str
    ) -> None:
        clash = clash & ~stamp.pardoned(clash, found)
        if not clash.any():
            return
        width = clash.shape[1]
        lane, byte = self._first(clash, rows, width)
        mark = int(found[lane][np.argmax(clash[lane])])
        self.refuse_mark(mark, byte, stamp, does, other, lane)

    def refuse_mark(
        self, mark: int, byte: int, stamp: Stamp, does: str, other: str, lane: int = 0
    ) -> None:
        """The fault of who finds `mark` at a byte."""
        if mark == BARRIER:
            raise FaultError(
                "GEM1003", f"it {does} is part of an mbarrier: byte {self.place(byte)}", lane
            )
        if mark < 0:
            raise FaultError(
                "GEM1008",
                f"it {does} an asynchronous copy of {stamp.named(-1 - mark)} has yet to fill: byte "
                f"{self.place(byte)}",
                lane,
            )
        code = mark & (FOREIGN - 1)
        if mark < stamp.opened:
            who = "another thread" if code >= COPY else f"thread {code}"
            who += " of another block"
        elif mark & FOREIGN:
            who = "a thread of another block"
        else:
            who = stamp.named(code)
        if COPY <= code < OF_WARP:
            self._refuse_race(f"it {does} {who} {other} without a wait between", lane, byte)
        self._refuse_race(f"it {does} {who} {other} without a barrier between", lane, byte)

    def _refuse_race(self, why: str, lane: int, byte: int) -> None:
        raise FaultError("GEM1003", f"{why}: byte {self.place(byte)}", lane)

    def _first(self, wrong: Array, rows: Array, width: int) -> tuple[int, int]:
        """The first lane that is wrong, and its first such byte."""
        lane = int(np.argmax(wrong.any(axis=1)))
        return lane, int(rows[lane]) * width + int(np.argmax(wrong[lane]))

    def place(self, offset: int) -> str:
        """The byte at `offset` in words."""
        address = self.base + offset
        number = int(np.searchsorted(self._order, address, side="right")) - 1
        return f"{address - self.starts[number]} of {self.names[number]} in {self.space} memory"
