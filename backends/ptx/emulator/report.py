"""What a run has shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Access:
    """One load, store or copy: how often it ran, and its worst ratio.

    For shared memory `ratio` is passes over the banks, 1 without conflicts; for global memory it is
    sectors touched over sectors needed.
    """

    line: int
    text: str
    ratio: float
    runs: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """What ran: instructions of threads by the first part of their name, accesses to memory."""

    instructions: Mapping[str, int]
    shared: tuple[Access, ...]
    global_: tuple[Access, ...]

    @property
    def worst_bank_conflict(self) -> float:
        """The most passes that one access to shared memory takes."""
        return max((a.ratio for a in self.shared), default=1.0)
