"""The blocks that run together, what they know of each other, and what flies between memories."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from gemmir.backends.ptx.emulator.clocks import Clocks
from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.mbarrier import MBarrier
from gemmir.backends.ptx.emulator.memory import WINDOW
from gemmir.backends.ptx.emulator.values import Array

if TYPE_CHECKING:
    from gemmir.backends.ptx.emulator.state import Block


class Flight(Protocol):
    """A copy that has been started and has not landed."""

    @property
    def barriers(self) -> tuple[MBarrier, ...]:
        """Where its bytes are counted."""
        ...

    def land(self) -> None:
        """Move the bytes now."""
        ...


@dataclass(eq=False)
class Meeting:
    """The barrier of all threads of a cluster: PTX ISA, section "barrier.cluster"."""

    turn: int = 0
    here: int = 0
    turns: dict[int, int] = field(default_factory=dict[int, int])
    """The turn that each thread has arrived for last."""
    waited: dict[int, int] = field(default_factory=dict[int, int])
    """The turn that it has waited for last."""
    gathered: Array | None = None
    clock: Array | None = None
    """What all arrivals of earlier turns made known."""
    published: list[MBarrier] = field(default_factory=list["MBarrier"])
    """The mbarriers that relaxed arrivals made known, behind their fence."""

    def close(self, running: int) -> None:
        """End a turn where all `running` threads have arrived; those that have ended need not."""
        if self.gathered is None or self.here < running:
            return
        self.clock, self.gathered, self.here = self.gathered, None, 0
        self.turn += 1


@dataclass(eq=False)
class Cluster:
    """Blocks with `stride` numbers of threads each; `clocks` only where a kernel needs them."""

    stride: int
    size: int
    opened: int
    clocks: Clocks | None
    blocks: list[Block] = field(default_factory=list["Block"])
    barriers: dict[tuple[int, int], MBarrier] = field(
        default_factory=dict[tuple[int, int], MBarrier]
    )
    """By the rank of the block and the address in it."""
    flying: list[Flight] = field(default_factory=list[Flight])
    meeting: Meeting = field(default_factory=Meeting)
    ended: dict[int, int] = field(default_factory=dict[int, int])
    """How many threads of each block have ended."""

    @property
    def running(self) -> int:
        """How many threads have not ended."""
        return sum(block.count for block in self.blocks) - sum(self.ended.values())

    @property
    def shared_clocks(self) -> Clocks:
        """The clocks, which a kernel with such instructions has."""
        assert self.clocks is not None
        return self.clocks

    def locate(self, address: int) -> tuple[Block, int]:
        """The block that an address of the cluster's shared memory lies in, and where."""
        rank = address // WINDOW
        if rank >= self.size:
            raise FaultError("GEM1002", f"{address:#x} lies in no block of the cluster")
        return self.blocks[rank], address % WINDOW

    def barrier(self, block: Block, local: int) -> MBarrier:
        """The mbarrier at a place of a block; `FaultError` GEM1012 where none was initialised."""
        found = self.barriers.get((block.rank, local))
        if found is None:
            raise FaultError("GEM1012", f"no mbarrier is initialised at {local:#x}")
        return found

    def has_ended(self, block: Block) -> bool:
        """Whether all threads of a block have ended."""
        return self.ended.get(block.rank, 0) == block.count

    def land_one(self, wanted: list[MBarrier], shuffle: random.Random | None) -> bool:
        """Land a copy, one that threads wait for if there is one; false where none flies."""
        if not self.flying:
            return False
        asked = [f for f in self.flying if any(b in wanted for b in f.barriers)]
        choice = asked or self.flying
        flight = choice[0] if shuffle is None else shuffle.choice(choice)
        self.flying.remove(flight)
        flight.land()
        return True

    def require_finished(self, block: Block) -> None:
        """`FaultError` where something of a block is unfinished after its end."""
        for (rank, _), barrier in self.barriers.items():
            if rank == block.rank:
                barrier.require_whole()
                self._require_seen(block, barrier)

    def _require_seen(self, block: Block, barrier: MBarrier) -> None:
        """Some thread must have seen all that copies and other blocks did at a barrier."""
        clocks = self.shared_clocks
        own = clocks.known[0, block.first : block.first + block.count]
        if barrier.landed and not (own[:, clocks.column(barrier.code)] >= barrier.landed).any():
            raise FaultError(
                "GEM1016", f"the block does not wait for a copy that completes at {barrier}"
            )
        for code, time in barrier.remote.items():
            if not (own[:, clocks.column(code)] > time).any():
                rank, thread = divmod(code, self.stride)
                raise FaultError(
                    "GEM1016",
                    f"the block does not wait for an arrival of thread {thread} of block {rank} "
                    f"of the cluster at {barrier} before it ends",
                )
