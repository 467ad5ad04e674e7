"""Every stage of a schedule of warpgroups means the same, and what is drawn has every form."""

from __future__ import annotations

from hypothesis import given

from gemmir import Gemm, Schedule
from gemmir.machine.gpu import SM_90A
from gemmir.schedule import check_fits
from tests.hopper_strategies import hopper_cases
from tests.strategies import examples
from tests.test_stages import check_stages


@given(hopper_cases(SM_90A))
@examples(0.5)
def test_every_stage_of_a_schedule_drawn_for_warpgroups(case: tuple[Gemm, Schedule]) -> None:
    check_stages(*case)


def test_schedules_drawn_for_warpgroups_have_every_form_and_fit() -> None:
    words = {
        *("over=blocks", "over=clusters", "loops=m sizes", "loops=n sizes", "loops=batch"),
        *("interchange", "persist", "fuse-epilogue", "operand=c to=shared", "expand-math"),
        *("swizzle:32", "swizzle:64", "swizzle:128", "stages=2", "stages=3", "stages=4"),
        *("sizes=64 over=warpgroups", "sizes=128 over=warpgroups"),
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
