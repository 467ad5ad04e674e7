"""Asynchronous copies from global to shared memory: PTX ISA, section "Asynchronous copy".

A copy lands as late as the waits of its thread allow. Until then its target may not be touched.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gemmir.backends.ptx.emulator.values import Array

if TYPE_CHECKING:
    from gemmir.backends.ptx.emulator.state import Block


@dataclass(frozen=True, slots=True, eq=False)
class Copy:
    """One instruction's copies: a row a thread. `source` is an address, `filled` bytes of it count.

    `group` says of which of its thread's groups a copy is part.
    """

    threads: Array
    source: Array
    filled: Array
    rows: Array
    width: int
    group: Array

    def where(self, chosen: Array) -> Copy:
        """Some rows of this."""
        return Copy(
            self.threads[chosen],
            self.source[chosen],
            self.filled[chosen],
            self.rows[chosen],
            self.width,
            self.group[chosen],
        )


@dataclass(eq=False)
class Copies:
    """The copies of a block that have not landed, and how many groups each thread committed."""

    flying: list[Copy] = field(default_factory=list[Copy])
    committed: Array | None = None

    def groups(self, count: int) -> Array:
        """The groups that each thread has committed."""
        if self.committed is None:
            self.committed = np.zeros(count, np.int64)
        return self.committed

    def commit(self, block: Block, threads: Array) -> None:
        """What `threads` have copied since their last commit becomes one group each."""
        self.groups(block.count)[threads] += 1

    def wait(self, block: Block, threads: Array, left: int | None) -> None:
        """Let all but the last `left` groups of `threads` land, or all of their copies."""
        waits = np.zeros(block.count, np.bool_)
        waits[threads] = True
        limit = self.groups(block.count) - (left or 0)
        remaining: list[Copy] = []
        for copy in self.flying:
            lands = waits[copy.threads]
            if left is not None:
                lands &= copy.group < limit[copy.threads]
            if lands.any():
                _land(block, copy if lands.all() else copy.where(lands))
            if not lands.all():
                remaining.append(copy.where(~lands) if lands.any() else copy)
        self.flying = remaining


def _land(block: Block, copy: Copy) -> None:
    """Read the source now, write the target in the name of the copying thread."""
    source = block.machine.global_memory
    column = np.arange(copy.width)
    inside = column < copy.filled[:, None]
    at = np.where(inside, copy.source[:, None] - source.base + column, 0)
    values = np.where(inside, source.data[at], 0).astype(np.uint8)
    shared = block.shared
    shared.data.reshape(-1, copy.width)[copy.rows] = values
    shared.written.reshape(-1, copy.width)[copy.rows] = (copy.threads + (block.first + block.now))[
        :, None
    ]
