"""Registers that a wgmma in flight still writes or reads, and how many registers threads have.

PTX ISA, sections "Asynchronous Warpgroup Level Matrix Instructions" and "setmaxnreg".
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gemmir.backends.ptx.emulator.clocks import WARP
from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.values import Array


@dataclass(frozen=True, slots=True, eq=False)
class Pin:
    """The threads in which a register is in use; `written` where it is an accumulator."""

    threads: Array
    written: bool
    by: str


@dataclass(eq=False)
class Pins:
    """The registers of a block that are in use by products, by number, and who wrote them when."""

    held: dict[int, Pin] = field(default_factory=dict[int, Pin])
    touched: dict[int, Array] = field(default_factory=dict[int, Array])
    """For registers of products: the time at which each warp wrote them last."""
    fences: Array | None = None
    """The time of each warp's last wgmma.fence."""
    latest: Array | None = None
    """The time at which each warp wrote any of them last."""
    time: int = 1

    def require_free(self, slot: int, name: str, lanes: Array, *, writes: bool) -> None:
        """`FaultError` GEM1015 where threads may not access a register now."""
        pin = self.held.get(slot)
        if pin is None or not (writes or pin.written):
            return
        used = pin.threads[lanes]
        if used.any():
            does, doing = ("written", "writes") if writes else ("read", "writes")
            doing = doing if pin.written else "reads"
            raise FaultError(
                "GEM1015",
                f"{name} is {does} while {pin.by} in flight {doing} it: a wgmma.wait_group is "
                "missing",
                int(np.argmax(used)),
            )

    def pin(self, slot: int, lanes: Array, count: int, *, written: bool, by: str) -> None:
        """A product is in flight that uses a register."""
        pin = self.held.get(slot)
        threads = np.zeros(count, np.bool_) if pin is None else pin.threads.copy()
        threads[lanes] = True
        self.held[slot] = Pin(threads, written, by)

    def unpin(self, slot: int, lanes: Array) -> None:
        """No product in flight uses a register in these threads any more."""
        pin = self.held.get(slot)
        if pin is None:
            return
        pin.threads[lanes] = False
        if not pin.threads.any():
            del self.held[slot]

    def touch(self, slot: int, lanes: Array, count: int) -> None:
        """Threads have written a register of products by an ordinary instruction."""
        times = self.touched.setdefault(slot, np.zeros(-(-count // WARP), np.int64))
        if self.latest is None:
            self.latest = np.zeros(-(-count // WARP), np.int64)
        times[lanes // WARP] = self.latest[lanes // WARP] = self.time

    def fence(self, lanes: Array, count: int) -> None:
        """wgmma.fence: products may use what the warps of these threads wrote before."""
        if self.fences is None:
            self.fences = np.zeros(-(-count // WARP), np.int64)
        self.fences[lanes // WARP] = self.time
        self.time += 1

    def are_fenced(self, warps: Array) -> bool:
        """Whether no warp has written such a register since its last fence."""
        if self.latest is None:
            return True
        return self.fences is not None and bool((self.latest[warps] <= self.fences[warps]).all())

    def unfenced(self, slot: int, warps: Array) -> int:
        """A warp that has written a register since its last fence, or -1."""
        times = self.touched.get(slot)
        if times is None:
            return -1
        last = 0 if self.fences is None else self.fences[warps]
        late = times[warps] > last
        return int(warps[np.argmax(late)]) if late.any() else -1


@dataclass(eq=False)
class RegisterPool:
    """The registers of a block: `free` ones, and how many each thread of a warp has."""

    free: int
    warps: Array

    def change(self, warps: Array, count: int, *, grows: bool) -> bool:
        """Give the threads of warps `count` registers; false where they must wait for free ones."""
        held = self.warps[warps]
        if (held > count if grows else held < count).any():
            word = "more" if grows else "fewer"
            raise FaultError(
                "GEM1017", f"a thread of {int(held[0])} registers cannot get {count}, {word} only"
            )
        needed = int((count - held).sum()) * WARP
        if needed > self.free:
            return False
        self.free -= needed
        self.warps[warps] = count
        return True

    def __str__(self) -> str:
        return f"{self.free} registers are free, and the warps have {self.warps.tolist()} a thread"
