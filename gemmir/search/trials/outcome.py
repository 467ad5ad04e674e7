"""What comes of a trial."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from gemmir.measure import Timing, timing_of

Status = Literal["ok", "illegal", "wrong", "timeout", "crashed", "impossible"]

STATUSES: Final[tuple[Status, ...]] = (
    "ok",
    "illegal",
    "wrong",
    "timeout",
    "crashed",
    "impossible",
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One timing: seconds of a call, in CPU time and in wall time, of so many calls."""

    cpu: float
    wall: float
    calls: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Of one trial. `detail` says why it is not ok, and is "" where it is.

    `seconds` are those of one call: CPU time with one thread, wall time with several. `samples` are
    what they were taken from. `error` is the largest error over its bound of all elements that were
    compared, None where none was. `flops` are those of a call, and `about` what the contestant says
    of itself. `took` is the seconds that the trial took.
    """

    status: Status
    detail: str = ""
    seconds: tuple[float, ...] = ()
    samples: tuple[Sample, ...] = ()
    flops: int = 0
    error: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict[str, Any])
    took: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether it computed what it should, in a time that can be."""
        return self.status == "ok"

    @property
    def timing(self) -> Timing:
        """The median and quartiles of what was timed."""
        return timing_of(self.seconds)

    @property
    def value(self) -> float | None:
        """The median, or None where nothing counts."""
        return statistics.median(self.seconds) if self.ok else None

    def to_dict(self) -> dict[str, Any]:
        """This outcome as plain values, for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(found: Mapping[str, Any]) -> Outcome:
        """The outcome that `to_dict` made them of."""
        whole: dict[str, Any] = dict(found)
        whole["samples"] = tuple(Sample(**sample) for sample in found["samples"])
        whole["seconds"] = tuple(found["seconds"])
        return Outcome(**whole)


def bad(status: Status, detail: str, **more: Any) -> Outcome:
    """An outcome that does not count."""
    return Outcome(status=status, detail=detail, **more)


def seconds_of(samples: Sequence[Sample], threads: int) -> tuple[float, ...]:
    """The times that count: a thread that has to wait for the CPU does not take longer."""
    return tuple(s.cpu if threads == 1 else s.wall for s in samples)
