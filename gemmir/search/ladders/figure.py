"""What is known of the speed of a rung, and how it came to be known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

How = Literal["measured", "emulated", "static", "unknown"]

HOWS: Final[Mapping[How, str]] = {
    "measured": "timed on this computer",
    "emulated": "reckoned from instructions and accesses counted by the PTX emulator; no GPU ran",
    "static": "reckoned from the IR or by libtpu's static profile; nothing ran",
    "unknown": "not known",
}
"""The words on a figure, and what they mean."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Seconds of a call, and what part of the peak that is; None where not known.

    `lower` and `upper` are the quartiles of `count` timings. `facts` are counts that say why, by
    name; `note` says what the figure is of, or why there is none.
    """

    how: How
    seconds: float | None = None
    lower: float | None = None
    upper: float | None = None
    count: int = 0
    of_peak: float | None = None
    facts: Mapping[str, float | str] = field(default_factory=dict[str, float | str])
    note: str = ""

    def gflops(self, flops: int) -> float | None:
        """10^9 operations a second."""
        return flops / self.seconds / 1e9 if self.seconds else None
