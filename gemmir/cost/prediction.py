"""What the cost model says of a kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """How long a kernel takes, and what for.

    `seconds_by` says how long each resource alone would take; they work at the same time, so that
    `seconds` is at least the largest and less than all. `bytes_by_level` are the bytes that move
    between a level of memory and the one farther from the core; `roof_seconds` is the least that
    any kernel for these operations takes, from the arithmetic units.
    """

    target: str
    seconds: float
    bound_by: str
    seconds_by: Mapping[str, float]
    bytes_by_level: Mapping[str, float]
    flops: float
    roof_seconds: float

    @property
    def of_roof(self) -> float:
        """The part of the arithmetic peak that is reached."""
        return self.roof_seconds / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """This as plain values, for JSON."""
        return asdict(self) | {"of_roof": self.of_roof}
