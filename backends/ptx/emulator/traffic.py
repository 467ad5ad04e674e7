"""How well accesses suit the memory: bank conflicts in shared memory, sectors in global memory.

Shared memory has 32 banks of 4 bytes, global memory moves sectors of 32 bytes: CUDA C++ Best
Practices Guide, sections on shared and on global memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from gemmir.backends.ptx.emulator.values import Array

BANKS: Final = 32
BANK_BYTES: Final = 4
SECTOR_BYTES: Final = 32

FAR: Final = 1 << 40
"""More than any address, and a multiple of the banks."""

SAMPLED: Final = 6
"""How often the banks or sectors of each access are counted: loops repeat the pattern."""


@dataclass(slots=True)
class Tally:
    """The accesses of one instruction: how many, and the worst ratio of those counted."""

    runs: int = 0
    ratio: float = 1.0


@dataclass(eq=False)
class Traffic:
    """What all accesses of a run cost, by the place of their instruction."""

    tallies: dict[tuple[str, int], Tally] = field(default_factory=dict[tuple[str, int], Tally])

    def note(self, space: str, place: int, ratio: Callable[[], float]) -> None:
        """Count an access, and `ratio` of it unless that was counted often enough."""
        tally = self.tallies.setdefault((space, place), Tally())
        tally.runs += 1
        if tally.runs <= SAMPLED:
            tally.ratio = max(tally.ratio, ratio())


def bank_degree(addresses: Array, width: int, lanes: Array) -> float:
    """Passes that an access takes over the least that its bytes need, at worst over the warps.

    A warp is served in parts of 128 bytes: all lanes at 4 bytes, half at 8, a quarter at 16. In a
    part, different words of one bank are served one after another.
    """
    part = max(32 * BANK_BYTES // max(width, BANK_BYTES), 1)
    words = (addresses[:, None] + np.arange(0, width, BANK_BYTES)) // BANK_BYTES
    places = _distinct((lanes // part)[:, None], words)
    passes = np.unique(places // FAR * BANKS + places % BANKS, return_counts=True)[1]
    return float(passes.max())


def _distinct(group: Array, place: Array) -> Array:
    """Each place once for each group, as group * FAR + place."""
    return np.unique(group * FAR + place)


def sector_ratio(addresses: Array, width: int, lanes: Array) -> float:
    """Sectors that the warps touch over those that as many adjacent bytes need."""
    warps = lanes // 32
    parts = (addresses[:, None] + np.arange(0, width, min(width, SECTOR_BYTES))) // SECTOR_BYTES
    touched = len(_distinct(warps[:, None], parts))
    counts = np.unique(_distinct(warps, addresses) // FAR, return_counts=True)[1]
    return touched / int(np.sum(-(-counts * width // SECTOR_BYTES)))
