"""Copies of boxes between global and shared memory: PTX ISA, section "cp.async.bulk.tensor".

A load lands when a thread cannot go on without it, or at any time before; until then its target may
not be touched. A store reads shared memory when its thread waits for that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from gemmir.backends.ptx.emulator.async_reads import UNIT, AsyncRead
from gemmir.backends.ptx.emulator.clocks import FOREIGN
from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.mbarrier import MBarrier
from gemmir.backends.ptx.emulator.tensors import Box, Tensor, swizzled
from gemmir.backends.ptx.emulator.values import TYPES, Array

if TYPE_CHECKING:
    from gemmir.backends.ptx.emulator.marks import Stamp
    from gemmir.backends.ptx.emulator.state import Block

ALIGNMENT: Final = 128
"""Of a box in shared memory."""

ITEMS: Final = {"f32": "f32", "f16": "f16", "bf16": "bf16", "i32": "s32", "f64": "f64"}
"""What a reduction adds, by the type of the map."""


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """Where a load goes in one block, and where its bytes are counted."""

    block: Block
    barrier: MBarrier


@dataclass(eq=False)
class Load:
    """A box on its way to the same place of one block or several."""

    tensor: Tensor
    box: Box
    address: int
    targets: tuple[Target, ...]

    @property
    def barriers(self) -> tuple[MBarrier, ...]:
        """Where its bytes are counted."""
        return tuple(target.barrier for target in self.targets)

    def land(self) -> None:
        """Read global memory now, and write shared memory; what is outside the array is 0."""
        first, width = self.targets[0].block, self.box.width
        memory = first.machine.global_memory
        values = memory.data.reshape(-1, width)[(self.box.source - memory.base) // width]
        values = _rounded(values, self.tensor)
        span, size = self.tensor.map.swizzle_bytes, self.tensor.map.box_bytes
        places = swizzled(self.address + self.box.offsets, span) - first.shared.base
        for target in self.targets:
            block = target.block
            if block.cluster.has_ended(block):
                raise FaultError("GEM1016", f"block {block.at} has ended and did not wait for it")
            shared, clocks = block.shared, block.cluster.shared_clocks
            start = self.address - shared.base
            shared.data[start : start + size] = 0
            shared.data.reshape(-1, width)[places // width] = values
            shared.written[start : start + size] = clocks.tick() + target.barrier.code
            if shared.swizzles is not None:
                shared.swizzles[start // UNIT : (start + size) // UNIT] = 1 + span
            clock = clocks.nothing()
            clock[0, clocks.column(target.barrier.code)] = clocks.tick()
            target.barrier.landed = int(clock.max())
            target.barrier.complete(size, clock)


def _rounded(values: Array, tensor: Tensor) -> Array:
    """The bytes of f32 that is copied as tf32 are rounded to it."""
    if tensor.map.item != "tf32":
        return values
    bits = np.ascontiguousarray(values).view(np.uint32).astype(np.uint64)
    finite = bits & 0x7F800000 != 0x7F800000
    rounded = np.where(finite, (bits + 0x1000) & 0xFFFFE000, bits)
    return rounded.astype(np.uint32).view(np.uint8).reshape(values.shape)


def start_load(load: Load, block: Block, stamp: Stamp) -> None:
    """Check what a load reads and overwrites, in the name of one thread, and let it fly."""
    size = load.tensor.map.box_bytes
    _require_aligned(load.address)
    memory, width = block.machine.global_memory, load.box.width
    if load.box.source.size:
        rows = memory.rows(load.box.source, width)
        memory.load(rows, width, _repeated(stamp, len(rows)))
    thread = int(stamp.threads[0])
    for target in load.targets:
        shared = target.block.shared
        shared.require_inside(load.address, size)
        start = load.address - shared.base
        _require_free(target.block, start, size, stamp)
        assert shared.reads is not None
        shared.reads.require_free_units(
            start // UNIT, (start + size) // UNIT, thread, block.cluster.shared_clocks
        )
        shared.written[start : start + size] = -1 - thread
        shared.read[start : start + size] = 0
    block.cluster.flying.append(load)


def _require_aligned(address: int) -> None:
    if address % ALIGNMENT:
        raise FaultError("GEM1002", f"a box at {address:#x}, which is no multiple of {ALIGNMENT}")


def _repeated(stamp: Stamp, count: int) -> Stamp:
    return stamp.of(np.zeros(count, np.int64))


def _require_free(block: Block, start: int, size: int, stamp: Stamp) -> None:
    """What one thread copies here comes after all that was done to these bytes."""
    shared, thread = block.shared, int(stamp.threads[0])
    does = "writes what"
    found = shared.written[start : start + size]
    require_fenced(block, thread, found, lambda n: start + n, stamp, does)
    found = shared.read[start : start + size]
    at = block.cluster.shared_clocks.first_unknown(thread, found)
    if at >= 0:
        shared.refuse_mark(int(found[at]), start + at, stamp, does, "reads")


def _require_written(block: Block, places: Array, width: int, stamp: Stamp) -> None:
    """What one thread copies from here was written before, and a proxy fence has followed."""
    shared = block.shared
    found = shared.written.reshape(-1, width)[places // width].reshape(-1)

    def where(at: int) -> int:
        return int(places[at // width]) + at % width

    if not found.all():
        byte = shared.place(where(int(np.argmax(found == 0))))
        raise FaultError("GEM1004", f"byte {byte} was never written")
    require_fenced(block, int(stamp.threads[0]), found, where, stamp, "reads what")


def require_fenced(
    block: Block,
    thread: int,
    found: Array,
    where: Callable[[int], int],
    stamp: Stamp,
    does: str,
) -> None:
    """The asynchronous proxy, for `thread`, touches bytes that were written with marks `found`.

    `where` says which byte of shared memory each mark is of.
    """
    clocks, shared = block.cluster.shared_clocks, block.shared
    at = clocks.first_unknown(thread, found, fenced=True)
    if at < 0:
        return
    mark = int(found.reshape(-1)[at])
    if mark < 0 or not clocks.knows(thread, mark):
        shared.refuse_mark(mark, where(at), stamp, does, "writes")
    raise FaultError(
        "GEM1014",
        f"the asynchronous proxy {does} {stamp.named(mark & (FOREIGN - 1))} writes, without "
        f"fence.proxy.async between: byte {shared.place(where(at))}",
    )


@dataclass(eq=False)
class Store:
    """A box on its way from shared to global memory; with `adds` it is added there."""

    tensor: Tensor
    box: Box
    address: int
    read: AsyncRead
    adds: bool

    def run(self, block: Block, stamp: Stamp) -> None:
        """Read shared memory now, and write global memory."""
        width, memory, shared = self.box.width, block.machine.global_memory, block.shared
        if not self.box.source.size:
            return
        places = swizzled(self.address + self.box.offsets, self.tensor.map.swizzle_bytes)
        values = shared.data.reshape(-1, width)[(places - shared.base) // width]
        rows = memory.rows(self.box.source, width)
        if self.adds:
            kind = TYPES[ITEMS[self.tensor.map.item]]
            values = np.ascontiguousarray(values).view(kind)
            memory.load(rows, width, stamp)
            memory.claim(rows, width, stamp, stamp.marks)
            cells = memory.data.reshape(-1, width).view(kind)
            cells[rows] = (cells[rows].astype(np.float64) + values).astype(kind)
        else:
            memory.store(rows, values, stamp)


@dataclass(eq=False)
class BulkGroups:
    """The stores of one thread: those of no group yet, and its groups."""

    open: list[Store] = field(default_factory=list[Store])
    closed: list[list[Store]] = field(default_factory=list["list[Store]"])


def start_store(
    block: Block, thread: int, stamp: Stamp, tensor: Tensor, box: Box, address: int, *, adds: bool
) -> None:
    """Check what a store of one thread reads; it reads when the thread waits.

    What is outside the array is not stored, and need not have been written.
    """
    size = tensor.map.box_bytes
    _require_aligned(address)
    shared = block.shared
    shared.require_inside(address, size)
    start = address - shared.base
    places = swizzled(address + box.offsets, tensor.map.swizzle_bytes) - shared.base
    _require_written(block, places, box.width, stamp)
    assert shared.reads is not None
    units = np.arange(start // UNIT, (start + size) // UNIT)
    read = shared.reads.begin("a store of a box", units, 1)
    groups = block.bulk.setdefault(thread, BulkGroups())
    groups.open.append(Store(tensor, box, address, read, adds))


def wait_for_stores(block: Block, thread: int, left: int) -> None:
    """Let all but the last `left` groups of a thread read shared memory."""
    groups = block.bulk.get(thread)
    if groups is None:
        return
    while len(groups.closed) > left:
        for store in groups.closed.pop(0):
            store.run(block, block.stamp_of(thread, len(store.box.source), strong=store.adds))
            code = np.array([thread + block.first])
            store.read.end(code, block.now)
            if block.shared.reads is not None:
                block.shared.reads.forget(store.read)


def require_no_stores(block: Block) -> None:
    """`FaultError` GEM1016 where a block ends while a store may read its shared memory."""
    for thread, groups in block.bulk.items():
        if groups.open or groups.closed:
            raise FaultError(
                "GEM1016",
                f"thread {thread} ends and does not wait for its stores of boxes to have read "
                "shared memory: cp.async.bulk.wait_group.read 0 is missing"
                + (", after cp.async.bulk.commit_group" if groups.open else ""),
            )
