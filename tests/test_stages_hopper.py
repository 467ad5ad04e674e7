"""Every stage of a schedule of warpgroups means the same, and what is drawn has every form."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import assume, given

from gemmir import Gemm, Schedule
from gemmir.machine.gpu import SM_90A
from gemmir.schedule import check_fits
from gemmir.schedule.default import default_schedule
from tests.hopper_strategies import hopper_cases, large_hopper_problems
from tests.strategies import examples
from tests.test_stages import check_stages

MOST_COMBINED = 8000
"""Elements of C that are made of parts: each is a thread of its own in the evaluator."""


@given(hopper_cases(SM_90A))
@examples(0.5)
def test_every_stage_of_a_schedule_drawn_for_warpgroups(case: tuple[Gemm, Schedule]) -> None:
    check_stages(*case)


@given(large_hopper_problems(SM_90A), st.sampled_from([2, 4, 132]))
@examples(0.2)
def test_every_stage_of_a_default_schedule_of_warpgroups(gemm: Gemm, sms: int) -> None:
    """With few multiprocessors blocks stay and form clusters where problems are small."""
    schedule = default_schedule(gemm, replace(SM_90A, sms=sms))
    assert "wgmma" in str(schedule)
    assume("split-k" not in str(schedule) or gemm.m * gemm.n <= MOST_COMBINED)
    check_stages(gemm, schedule)


WARPGROUP = (
    "tile{{loops=m sizes={0} over=warpgroups}},promote{{operand=c to=registers}},"
    "tile{{loops=k sizes=64}},promote{{operand=a to=shared layout=swizzle:128}},"
    "promote{{operand=b to=shared layout=swizzle:128}},"
    "promote{{operand=c to=shared layout=swizzle:128}},"
    "pipeline{{loop=k stages=2 with=tma specialize=true}},vectorize{{with=wgmma}}"
)


@pytest.mark.parametrize(
    ("extents", "grid", "rows"),
    [
        ((2, 188, 65), "tile{loops=m,n sizes=64,96 over=blocks},persist{blocks=1}", 64),
        ((97, 20, 70), "tile{loops=m,n sizes=128,32 over=blocks}", 128),
    ],
    ids=["three pieces go out through two buffers", "a piece of fewer rows behind a whole one"],
)
def test_pieces_of_c(extents: tuple[int, int, int], grid: str, rows: int) -> None:
    m, n, k = extents
    gemm = Gemm(m=m, n=n, k=k, dtype="bf16", out="f32", ldb=192, lda=72, ldc=192)
    check_stages(gemm, Schedule.parse(f"{grid},{WARPGROUP.format(rows)}"))


def test_schedules_drawn_for_warpgroups_have_every_form_and_fit() -> None:
    words = {
        *("over=blocks", "over=clusters", "loops=m sizes", "loops=n sizes", "loops=batch"),
        "loops=group,m,n",
        *("interchange", "persist", "fuse-epilogue", "operand=c to=shared", "expand-math"),
        *("swizzle:32", "swizzle:64", "swizzle:128", "stages=2", "stages=3", "stages=4"),
        *("sizes=64 over=warpgroups", "sizes=128 over=warpgroups", "pingpong", "loops=n,m sizes"),
        *("stages=5", "stages=7", "swap-operands", "split-k", "stream-k"),
    }
    seen: set[str] = set()
    dtypes: set[str] = set()

    @given(hopper_cases(SM_90A))
    @examples(8)
    def draw(case: tuple[Gemm, Schedule]) -> None:
        gemm, schedule = case
        check_fits(schedule, gemm, SM_90A)
        seen.update(word for word in words if word in str(schedule))
        dtypes.add(gemm.dtype)

    draw()
    assert seen == words
    assert dtypes == set(SM_90A.wgmma_dtypes)
