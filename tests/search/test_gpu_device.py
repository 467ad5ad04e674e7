"""Trials on a real GPU. Skipped where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from gemmir.backends.ptx.driver import find_driver
from gemmir.errors import MissingError
from gemmir.gemm import Gemm
from gemmir.gpu_kernel import target_for
from gemmir.machine import machine_for
from gemmir.schedule import default_schedule
from gemmir.search.trials import Limits, Trials
from gemmir.search.tuning.objective import MeasuredSeconds

LIMITS = Limits(seconds=120.0, rounds=3)


def reason() -> str:
    """Why there is nothing to test on, or ""."""
    try:
        find_driver()
    except MissingError as error:
        return error.message
    return ""


MISSING = reason()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "there is a GPU")


@pytest.mark.parametrize(
    "gemm",
    [
        Gemm(m=512, n=512, k=512, dtype="bf16"),
        Gemm(m=16, n=1024, k=4096, dtype="f16", epilogue="bias"),
        Gemm(m=257, n=130, k=65, dtype="f32", beta=1.0),
        Gemm(m=64, n=64, k=4096, dtype="bf16"),
    ],
    ids=str,
)
def test_the_default_schedule_is_right_and_timed(gemm: Gemm) -> None:
    """Also one whose sums are split, whose second kernel needs a workspace."""
    target = target_for(find_driver().gpus()[0])
    with Trials(gemm, target=target, limits=LIMITS) as trials:
        found = trials.run(str(default_schedule(gemm, machine_for(target))))
    assert (found.status, found.detail) == ("ok", "")
    assert found.error is not None and 0 < found.error < 1
    assert len(found.seconds) == 3 and min(found.seconds) > 0


def test_several_race_and_what_does_not_fit_falls_out() -> None:
    gemm = Gemm(m=256, n=256, k=256, dtype="f16")
    target = target_for(find_driver().gpus()[0])
    schedules = [str(default_schedule(gemm, machine_for(target))), "tile{loops=z sizes=4}"]
    with MeasuredSeconds(Trials(gemm, target=target, limits=LIMITS)) as objective:
        times, failed = objective.race(schedules, 8, np.random.default_rng(0))
    assert len(times[schedules[0]]) == 8 and list(failed) == [schedules[1]]
