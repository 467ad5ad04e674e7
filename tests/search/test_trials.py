"""Trials: every way to fail is an outcome, and nothing is timed before it is right."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gemmir.bench.contestants import Contestant
from gemmir.errors import ParseError
from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine, machine_for
from gemmir.schedule import default_schedule
from gemmir.search.trials import Limits, Outcome, Trials
from gemmir.search.trials.memory import Memory, sums_exactly
from gemmir.search.trials.roofline import Roofline
from gemmir.sizes import ANY

HERE = Path(__file__).parent

GEMM = Gemm(m=7, n=9, k=11)
LIMITS = Limits(seconds=60.0, memory_bytes=1 << 30, rounds=2)


@pytest.fixture(scope="module")
def trials() -> Iterator[Trials]:
    with Trials(GEMM, limits=LIMITS) as made:
        yield made


def fake(fault: str = "") -> Contestant:
    return Contestant(
        name="fake", peer="fake_candidate", environment={"PYTHONPATH": str(HERE)}, call=fault
    )


def test_a_right_one_is_checked_and_timed(trials: Trials) -> None:
    found = trials.run(fake())
    assert (found.status, found.detail) == ("ok", "")
    assert len(found.seconds) == len(found.samples) == LIMITS.rounds
    assert found.error is not None and 0 < found.error < 1
    assert found.value is not None and found.value >= 0.003
    assert found.flops == GEMM.flops and found.about["version"] == "0"
    assert Outcome.from_dict(found.to_dict()) == found


@pytest.mark.parametrize(
    ("fault", "status", "part"),
    [
        ("unable", "illegal", "does not do this one"),
        ("refused", "illegal", "GEM0301"),
        ("raises", "crashed", "KeyError: 'nothing'"),
        ("hoards", "crashed", "no memory left"),
        ("crashes", "crashed", "SIGSEGV"),
        ("silent", "wrong", "whole numbers: element [0, 0] is nan"),
        ("wrong", "wrong", "element [6, 8]"),
        ("rounds", "wrong", "whole numbers: element"),
        ("spills", "wrong", "memory outside the output was written, at c"),
        ("changes a", "wrong", "at a"),
        ("wrong later", "wrong", "after many calls, random numbers: element [0, 0]"),
    ],
)
def test_a_failure_is_an_outcome(trials: Trials, fault: str, status: str, part: str) -> None:
    found = trials.run(fake(fault))
    assert found.status == status and part in found.detail
    assert found.value is None
    assert bool(found.seconds) == (fault == "wrong later"), "who is wrong is not timed"


def test_an_endless_loop_is_ended(trials: Trials) -> None:
    before = time.monotonic()
    with Trials(GEMM, limits=Limits(seconds=1.0)) as short:
        found = short.run(fake("hangs"))
        assert found.status == "timeout" and "compute has not ended within 1 s" in found.detail
    assert time.monotonic() - before < 30


def test_a_time_that_no_core_can_reach_is_refused() -> None:
    gemm = Gemm(m=64, n=64, k=64)
    slow = Roofline(flops_per_second=1e6, l1_bytes_per_second=1e6, element_bytes=4)
    with Trials(gemm, limits=LIMITS, roofline=slow) as large:
        refused = large.run(fake("too fast"))
    assert refused.status == "impossible", refused.detail
    assert "524,288 operations" in refused.detail
    assert refused.seconds, "the time is told all the same"


def test_a_core_that_was_measured_too_slow_is_measured_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where another program has run on it at first."""
    slow = Roofline(flops_per_second=1e6, l1_bytes_per_second=1e6, element_bytes=4)
    measure, measured = Trials.measured_roofline, [slow]

    def first_slow(trials: Trials) -> Roofline:
        return measured.pop() if measured else measure(trials)

    monkeypatch.setattr(Trials, "measured_roofline", first_slow)
    with Trials(Gemm(m=64, n=64, k=64), limits=LIMITS) as large:
        assert large.run(fake()).ok and not measured
        assert large.roofline.flops_per_second > 1e8
        refused = large.run(fake("too fast"))
    assert refused.status == "impossible" and "524,288 operations" in refused.detail


def test_who_is_killed_by_others_is_tried_again(trials: Trials, tmp_path: Path) -> None:
    mark = tmp_path / "shot"
    assert trials.run(fake(f"shot once:{mark}")).ok
    assert mark.exists()
    found = trials.run(fake(f"shot:{mark}"))
    assert found.status == "crashed" and "SIGKILL" in found.detail


def test_the_template_may_be_killed(trials: Trials) -> None:
    assert trials.run(fake()).ok
    before = trials.processes
    for process in before:
        os.kill(process, signal.SIGKILL)
    assert trials.run(fake()).ok
    assert set(trials.processes) - set(before)


def test_who_is_far_behind_is_timed_once(trials: Trials) -> None:
    assert len(trials.run(fake(), enough=1e-6).samples) == 1


def test_schedules_are_compiled_with_limits_and_cached_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMMIR_CACHE", str(tmp_path))
    schedule = str(default_schedule(GEMM, machine_for("cpu")))
    with Trials(GEMM, limits=LIMITS) as own:
        assert own.run(schedule).ok
        illegal = own.run("tile{loops=z sizes=4}")
        assert illegal.status == "illegal" and "GEM03" in illegal.detail
    assert list(tmp_path.iterdir()) == []


def test_sizes_are_known() -> None:
    with pytest.raises(ParseError, match="GEM1410: m"):
        Trials(Gemm(m=ANY, n=3, k=4))


@pytest.mark.parametrize(
    ("gemm", "exact"),
    [
        (Gemm(m=3, n=4, k=5, epilogue="bias+relu+residual", beta=1), True),
        (Gemm(m=3, n=4, k=65, dtype="bf16", out="bf16"), False),
        (Gemm(m=3, n=4, k=5, alpha=0.5), False),
        (Gemm(m=3, n=4, k=5, epilogue="gelu"), False),
        (Gemm(m=3, n=4, k=5, dtype="u8", dtype_b="i8"), True),
        (Gemm(m=3, n=4, k=64, dtype_b="i4", weight_group=32), True),
        (Gemm(m=3, n=4, k=64, dtype="f64", trans_b=True, ldc=9), True),
    ],
)
def test_whole_numbers_are_exact_where_no_sum_is_rounded(gemm: Gemm, exact: bool) -> None:
    assert sums_exactly(gemm) == exact
    memory = Memory(gemm, seed=3)
    whole, random = memory.cases
    assert whole.is_exact == exact and not random.is_exact
    if exact:
        assert not whole.expected.bound.any()
        assert (whole.expected.expected == np.round(whole.expected.expected)).all()
        shown = whole.operands.copy()
        shown.output[...] = whole.expected.expected
        assert whole.fault(shown)[0] == ""
        shown.output[-1, -1] += 1
        assert "whole numbers: element" in whole.fault(shown)[0]
    memory.close()


def test_the_limit_of_a_trial_is_not_that_of_the_roofline() -> None:
    with Trials(GEMM, limits=Limits(seconds=1e-6, rounds=1)) as trials:
        assert trials.roofline.flops_per_second > 0


def test_the_roofline_counts_products_and_bytes() -> None:
    machine = machine_for("cpu:znver3")
    assert isinstance(machine, CpuMachine)
    gemm = Gemm(m=64, n=64, k=64)
    found = Roofline.of(machine, gemm, 32e9, threads=1)
    assert found.seconds(gemm) == pytest.approx(gemm.flops / 32e9)
    assert found.l1_bytes_per_second == 64e9, "a cycle is 1 ns"
    thin = Gemm(m=1, n=64, k=64)
    assert found.seconds(thin) == pytest.approx(4 * (64 + 64 * 64 + 64) / 64e9)
    for nothing in (Gemm(m=0, n=64, k=64), Gemm(m=64, n=64, k=64, alpha=0.0)):
        assert found.seconds(nothing) == 0.0, "nobody has to read A or B"
    eight = Gemm(m=64, n=64, k=64, dtype="i8")
    assert found.seconds(eight) == pytest.approx(gemm.flops / 32e9 / 4)
