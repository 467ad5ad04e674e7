"""measure: turns, repeats and medians, and the core that is kept."""

import os
import time

import pytest

from gemmir.measure import LEAST_ROUNDS, interleaved, on_one_core


def test_calls_take_turns() -> None:
    order: list[str] = []
    pause = 1e-4
    calls = {name: lambda name=name: (order.append(name), time.sleep(pause)) for name in ("x", "y")}
    found = interleaved(calls, 0.0)
    assert order == ["x", "x", "y", "y"] + ["x", "y"] * LEAST_ROUNDS
    for timing in found.values():
        assert timing.count == LEAST_ROUNDS
        assert pause <= timing.lower <= timing.seconds <= timing.upper
        assert timing.gflops(10**9) == pytest.approx(1 / timing.seconds)


def test_short_calls_are_repeated_and_long_runs_are_long() -> None:
    count = 0

    def call() -> None:
        nonlocal count
        count += 1

    start = time.perf_counter()
    (timing,) = interleaved({"x": call}, 0.05).values()
    assert time.perf_counter() - start >= 0.05
    assert count > 10 * timing.count
    assert timing.seconds < 1e-5


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")
def test_one_core_is_kept_and_given_back() -> None:
    before = os.sched_getaffinity(0)
    with on_one_core() as core:
        assert os.sched_getaffinity(0) == {core}
        assert core in before
    assert os.sched_getaffinity(0) == before
    with pytest.raises(RuntimeError), on_one_core():
        raise RuntimeError
    assert os.sched_getaffinity(0) == before
