"""Objectives for tests of the logic of a tune: what they say of a schedule is known beforehand."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

import numpy as np

from gemmir.search.trials import Outcome, Sample

Value = Callable[[str], float | Outcome]
"""What a schedule comes to: seconds, or an outcome that is not ok."""

NOISE = 0.003
"""Times of a race scatter by this share."""


def outcome(found: float | Outcome) -> Outcome:
    """The outcome of a trial."""
    if isinstance(found, Outcome):
        return found
    samples = (Sample(cpu=found, wall=found, calls=1),)
    return Outcome(status="ok", seconds=(found,), samples=samples, flops=2)


class FakeObjective:
    """Says what `value` says, and keeps what it was asked; `die_at` kills the process by then."""

    name = "seconds of nothing"
    unit = "s"
    device = ""

    def __init__(
        self,
        value: Value,
        *,
        is_measured: bool = True,
        noise: float = NOISE,
        interrupt_at: int | None = None,
        die_at: int | None = None,
    ) -> None:
        self.value = value
        self.is_measured = is_measured
        self.noise = noise
        self.tried: list[str] = []
        self.raced: list[tuple[str, ...]] = []
        self.interrupt_at = interrupt_at
        self.die_at = die_at

    def __enter__(self) -> FakeObjective:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def trial(self, schedule: str, enough: float | None) -> Outcome:
        """What `value` says."""
        if len(self.tried) == self.interrupt_at:
            raise KeyboardInterrupt
        if len(self.tried) == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.tried.append(schedule)
        return outcome(self.value(schedule))

    def race(
        self, schedules: Sequence[str], rounds: int, order: np.random.Generator
    ) -> tuple[Mapping[str, Sequence[float]], Mapping[str, Outcome]]:
        """The same, with noise that is drawn."""
        self.raced.append(tuple(schedules))
        times: dict[str, Sequence[float]] = {}
        failed: dict[str, Outcome] = {}
        for text in schedules:
            found = self.value(text)
            if isinstance(found, Outcome):
                failed[text] = found
            else:
                drawn = order.normal(1.0, self.noise, rounds)
                times[text] = [found * float(factor) for factor in drawn]
        return times, failed


def by_hash(schedule: str) -> float:
    """Seconds that have nothing to do with the schedule and are always the same."""
    digest = hashlib.sha256(schedule.encode()).digest()
    return 1e-6 * (1 + int.from_bytes(digest[:4], "big") / 2**32)
