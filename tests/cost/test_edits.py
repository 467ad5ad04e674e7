"""Changes of schedules: which there are, and that those that are said to be legal lower."""

from __future__ import annotations

import pytest

from gemmir.compiler import lower
from gemmir.cost.edits import edits
from gemmir.explain_cost import cost_facts, cost_lines
from gemmir.gemm import Gemm
from gemmir.machine import machine_for
from gemmir.schedule import Schedule

BLOCKED = (
    "tile{loops=k sizes=64},promote{operand=b to=l2 layout=panel:32},tile{loops=m sizes=8},"
    "tile{loops=n sizes=32},promote{operand=c to=registers},vectorize{with=fma width=16}"
)


def test_panels_are_as_wide_as_the_tile_that_is_changed() -> None:
    found = [str(e.schedule) for e in edits(Schedule.parse(BLOCKED), machine_for("cpu:znver5"))]
    wider = next(text for text in found if "tile{loops=n sizes=48}" in text)
    assert 'layout="panel:48"' in wider or "layout=panel:48" in wider


def test_each_change_is_another_schedule_and_says_what_it_is() -> None:
    schedule = Schedule.parse(BLOCKED)
    found = list(edits(schedule, machine_for("cpu:znver5")))
    texts = [str(e.schedule) for e in found]
    assert len(set(texts)) == len(texts) and str(schedule) not in texts
    removed = next(e for e in found if e.text.startswith("without promote"))
    assert removed.removed[0] not in removed.schedule.steps


@pytest.mark.parametrize(
    ("target", "dtype", "schedule"),
    [
        ("cpu:znver5", "f32", BLOCKED.replace("sizes=8}", "sizes=3}")),
        ("cpu:znver3", "f64", None),
        ("cuda:sm_80", "bf16", None),
        ("tpu:v5e", "bf16", None),
    ],
)
def test_changes_that_are_shown_lower_and_are_faster_by_the_model(
    target: str, dtype: str, schedule: str | None
) -> None:
    gemm = Gemm(m=64, n=128, k=128, dtype=dtype)
    found = cost_facts(lower(gemm, target=target, schedule=schedule), 3)
    assert found.tried > found.illegal >= 0
    for gain in found.gains:
        assert 0 < gain.gain < 1
        assert (gain.real is None) != target.startswith("cpu")
        assert gain.seconds < found.prediction.seconds
        lower(gemm, target=target, schedule=gain.schedule)


def test_rows_that_leave_a_poor_tile_are_found() -> None:
    poor = BLOCKED.replace("sizes=8}", "sizes=1}")
    lowered = lower(Gemm(m=128, n=128, k=256), target="cpu:znver5", schedule=poor)
    found = cost_facts(lowered, 3)
    assert found.gains[0].gain > 0.2 and (found.gains[0].real or 0) >= 0.88
    assert "tile{loops=m sizes=1}" in found.gains[0].change
    lines = "\n".join(cost_lines(found, lowered.machine))
    assert "of the arithmetic peak" in lines and "less time" in lines


def test_nothing_is_tried_where_no_change_is_asked_for() -> None:
    lowered = lower(Gemm(m=16, n=16, k=16), target="cpu:znver5")
    assert cost_facts(lowered, 0).tried == 0


def test_the_speed_is_that_of_the_problem_where_tiles_are_filled_up() -> None:
    """25 columns take two vectors of 16: 7 of 32 products are of nothing."""
    gemm = Gemm(m=64, n=25, k=64)
    lowered = lower(gemm, target="cpu:znver5")
    found = cost_facts(lowered, 0)
    assert found.problem_flops == gemm.flops < found.prediction.flops
    lines = "\n".join(cost_lines(found, lowered.machine))
    assert f" {gemm.flops / found.prediction.seconds / 1e9:.4g} GFLOP/s" in lines
    assert "of the operations 22% only fill up" in lines
