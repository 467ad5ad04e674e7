"""Timing: several calls interleaved in one run, so that they meet the same machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

LEAST_ROUNDS: Final = 5
"""Rounds that are run however long they take: a median of fewer says little."""

BATCH_SECONDS: Final = 50e-6
"""A call shorter than this is repeated within one timing, so that the clock does not matter."""

CORES_TRIED: Final = 16
PROBE_ADDITIONS: Final = 1_000_000
"""A core is tried for about 20 ms, several time slices of the scheduler."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one call: the median and the quartiles around it, of so many timings."""

    seconds: float
    lower: float
    upper: float
    count: int

    def gflops(self, flops: int) -> float:
        """10^9 floating-point operations a second at the median."""
        return flops / self.seconds / 1e9


def interleaved(calls: Mapping[str, Callable[[], Any]], seconds: float = 1.0) -> dict[str, Timing]:
    """Time each of `calls`, in turns, for about `seconds` altogether; each runs once before."""
    repeats = {name: _repeats(call) for name, call in calls.items()}
    found: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < LEAST_ROUNDS or time.perf_counter() < end:
        for name, call in calls.items():
            found[name].append(_seconds(call, repeats[name]))
        rounds += 1
    return {name: timing_of(times) for name, times in found.items()}


def _repeats(call: Callable[[], Any]) -> int:
    call()
    return max(int(BATCH_SECONDS / max(_seconds(call, 1), 1e-9)), 1)


def _seconds(call: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def timing_of(times: Sequence[float]) -> Timing:
    """The median and quartiles of the seconds of single calls."""
    lower, middle, upper = (float(x) for x in np.percentile(times, [25, 50, 75]))
    return Timing(seconds=middle, lower=lower, upper=upper, count=len(times))


@contextmanager
def on_one_core() -> Generator[int | None]:
    """Keep this thread on the core that is least busy now, and say which.

    None, with the thread left free, where the system cannot.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield None
        return
    allowed = os.sched_getaffinity(0)
    try:
        core = min(sorted(allowed)[-CORES_TRIED:], key=_probe)
        os.sched_setaffinity(0, {core})
        yield core
    finally:
        os.sched_setaffinity(0, allowed)


def _probe(core: int) -> float:
    """Seconds that `core` takes for work that is always the same, long enough to be disturbed."""
    os.sched_setaffinity(0, {core})
    return _seconds(lambda: sum(range(PROBE_ADDITIONS)), 1)
