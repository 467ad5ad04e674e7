"""Memory as threads see it: bytes with bounds, and who touched each of them since a barrier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.lanes import Array

NOBODY, MANY = -1, -2
"""In place of a thread: nobody has touched the byte; more than one thread, or block, has."""

GUARD: int = 1 << 20
"""Addresses between two buffers that belong to neither."""

BANKS, BANK_BYTES, SECTOR_BYTES = 32, 4, 32
"""Shared memory has 32 banks of 4 bytes, global memory moves sectors of 32 bytes: CUDA C++ Best
Practices Guide, sections on shared and on global memory."""


@dataclass(eq=False)
class Memory:
    """Some buffers behind one another with gaps between; `space` is global or shared.

    Every byte remembers its last writer and reader with the epoch, which changes at each barrier
    and with each block.
    """

    space: str
    bases: Array
    buffers: list[Array]
    names: Sequence[str]
    must_be_written: bool
    owners: list[tuple[Array, Array, Array, Array, Array]] = field(init=False)
    known: list[Array] = field(init=False)

    def __post_init__(self) -> None:
        self.owners = [
            (
                np.full(b.size, NOBODY),
                np.full(b.size, NOBODY),
                np.full(b.size, NOBODY),
                np.full(b.size, NOBODY),
                np.full(b.size, NOBODY),
            )
            for b in self.buffers
        ]
        self.known = [np.full(b.size, not self.must_be_written) for b in self.buffers]

    def locate(self, addresses: Array, width: int) -> tuple[int, Array]:
        """The buffer of all `addresses` and the offsets in it; checks alignment and bounds."""
        if (wrong := addresses % width != 0).any():
            lane = int(np.argmax(wrong))
            raise FaultError(
                "GEM1002",
                f"the {self.space} address {int(addresses[lane]):#x} is no multiple of {width}",
                lane,
            )
        places = np.searchsorted(self.bases, addresses, side="right") - 1
        first = int(places[0])
        if (places != first).any():
            lane = int(np.argmax(places != first))
            raise FaultError("GEM1002", "threads address different buffers", lane)
        size = self.buffers[first].size if first >= 0 else 0
        offsets = addresses - (self.bases[first] if first >= 0 else 0)
        if (outside := (first < 0) | (offsets + width > size)).any():
            lane = int(np.argmax(outside))
            name = self.names[first] if first >= 0 else "any buffer"
            raise FaultError(
                "GEM1002",
                f"{width} bytes at {int(offsets[lane])} of the {size} bytes of {name} "
                f"in {self.space} memory",
                lane,
            )
        return first, offsets

    def load(self, place: int, offsets: Array, width: int, stamp: Stamp) -> Array:
        """The bytes at `offsets`, a row a thread; notes who reads."""
        at = offsets[:, None] + np.arange(width)
        if not (known := self.known[place][at]).all():
            lane = int(np.argmin(known.all(axis=1)))
            raise FaultError(
                "GEM1004",
                f"{width} bytes at {int(offsets[lane])} of {self.names[place]} were never written",
                lane,
            )
        self._note_read(place, at, stamp)
        return self.buffers[place][at]

    def store(self, place: int, offsets: Array, rows: Array, stamp: Stamp) -> None:
        """Write a row of bytes for each thread; notes who writes."""
        at = offsets[:, None] + np.arange(rows.shape[1])
        self._note_write(place, at, stamp)
        self.buffers[place][at] = rows
        self.known[place][at] = True

    def _note_read(self, place: int, at: Array, stamp: Stamp) -> None:
        writer, write_epoch, reader, read_epoch, read_block = self.owners[place]
        me = np.broadcast_to(stamp.threads[:, None], at.shape)
        clash = (writer[at] >= 0) & (writer[at] != me)
        clash &= (write_epoch[at] == stamp.epoch) | (writer[at] // stamp.team != stamp.block)
        self._refuse(clash, at, place, writer, "reads what", "writes")
        others = (read_epoch[at] == stamp.epoch) & (reader[at] != me)
        strangers = (read_block[at] != NOBODY) & (read_block[at] != stamp.block)
        reader[at] = np.where(others, MANY, me)
        reader[at[reader[at] != np.where(others, MANY, me)]] = MANY
        read_epoch[at] = stamp.epoch
        read_block[at] = np.where(strangers, MANY, stamp.block)

    def _note_write(self, place: int, at: Array, stamp: Stamp) -> None:
        writer, write_epoch, reader, read_epoch, read_block = self.owners[place]
        me = np.broadcast_to(stamp.threads[:, None], at.shape)
        clash = (writer[at] >= 0) & (writer[at] != me)
        clash &= (write_epoch[at] == stamp.epoch) | (writer[at] // stamp.team != stamp.block)
        self._refuse(clash, at, place, writer, "writes what", "writes")
        clash = (read_epoch[at] == stamp.epoch) & (reader[at] != me)
        clash |= (read_block[at] != NOBODY) & (read_block[at] != stamp.block)
        self._refuse(clash, at, place, reader, "writes what", "reads")
        writer[at] = me
        twice = writer[at] != me
        self._refuse(twice, at, place, writer, "writes what", "writes")
        write_epoch[at] = stamp.epoch

    def _refuse(
        self, clash: Array, at: Array, place: int, owner: Array, does: str, other: str
    ) -> None:
        if not clash.any():
            return
        lane = int(np.argmax(clash.any(axis=1)))
        byte = int(at[lane][np.argmax(clash[lane])])
        who = int(owner[byte])
        name = f"thread {who} of the grid" if who >= 0 else "another thread"
        raise FaultError(
            "GEM1003",
            f"it {does} {name} {other} without a barrier between: byte {byte} of "
            f"{self.names[place]} in {self.space} memory",
            lane,
        )


@dataclass(frozen=True, slots=True)
class Stamp:
    """Who is at work: the numbers of the threads in the grid, their block, and the epoch."""

    threads: Array
    block: int
    team: int
    epoch: int


def bank_degree(addresses: Array, width: int, lanes: Array) -> float:
    """Passes that an access takes over the least that its bytes need, at worst over the warps.

    A warp is served in parts of 128 bytes: all lanes at 4 bytes, half at 8, a quarter at 16. In a
    part, different words of one bank are served one after another.
    """
    worst = 1
    part = max(32 * min(BANK_BYTES, width) // width, 1)
    for group in np.unique(lanes // part):
        words = np.unique(addresses[lanes // part == group][:, None] + np.arange(0, width, 4)) // 4
        worst = max(worst, int(np.bincount(np.unique(words) % BANKS).max()))
    return float(worst)


def sector_ratio(addresses: Array, width: int, lanes: Array) -> float:
    """Sectors that the warps touch over those that as many adjacent bytes need."""
    touched = needed = 0
    for warp in np.unique(lanes // 32):
        mine = addresses[lanes // 32 == warp]
        touched += len(np.unique((mine[:, None] + np.arange(0, width, 4)) // SECTOR_BYTES))
        needed += max(-(-len(np.unique(mine)) * width // SECTOR_BYTES), 1)
    return touched / needed
