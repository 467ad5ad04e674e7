"""Where registers are few, tiles of rows get even sizes, and long sums ask for what comes next."""

from __future__ import annotations

import pytest

from gemmir.check import check
from gemmir.gemm import Gemm
from gemmir.machine import machine_for
from gemmir.schedule.default import default_schedule


def text_of(gemm: Gemm, target: str) -> str:
    return str(default_schedule(gemm, machine_for(target), threads=1))


@pytest.mark.parametrize(
    "gemm",
    [
        Gemm(m=64, n=64, k=64),
        Gemm(m=16, n=16, k=16384),
        Gemm(m=64, n=64, k=65536),
        Gemm(m=512, n=512, k=16),
    ],
    ids=str,
)
def test_rows_that_do_not_come_out_even(gemm: Gemm) -> None:
    assert "edges=even" in text_of(gemm, "cpu:znver3")
    assert "edges=even" not in text_of(gemm, "cpu:znver5")


@pytest.mark.parametrize(
    ("gemm", "fetched"),
    [
        (Gemm(m=64, n=64, k=65536), True),
        (Gemm(m=64, n=64, k=65537), True),
        (Gemm(m=64, n=64, k=2048), False),
        (Gemm(m=16, n=16, k=65536), False),
        (Gemm(m=32, n=512, k=8192), False),
    ],
    ids=str,
)
def test_the_next_slice_of_a_long_sum_comes_meanwhile(gemm: Gemm, fetched: bool) -> None:
    step = "prefetch{operand=b loop=k ahead=1 during=m}"
    assert (step in text_of(gemm, "cpu:znver3")) is fetched
    assert step not in text_of(gemm, "cpu:znver5")


def test_b_of_a_short_sum_is_read_in_place_where_l1_holds_it() -> None:
    def copied(gemm: Gemm, target: str = "cpu:znver3") -> bool:
        return "operand=b" in text_of(gemm, target)

    assert not copied(Gemm(m=512, n=512, k=16))
    assert copied(Gemm(m=512, n=512, k=17))
    assert copied(Gemm(m=512, n=500, k=8))
    assert copied(Gemm(m=512, n=512, k=16, trans_b=True))
    assert copied(Gemm(m=512, n=512, k=16), "cpu:znver5")


def test_an_a_that_stays_meets_panels_of_b_one_by_one() -> None:
    near = "promote{operand=b to=l1 layout=panel:32}"
    gemm = Gemm(m=255, n=254, k=510)
    assert near in text_of(gemm, "cpu:znver3")
    assert near not in text_of(gemm, "cpu:znver5")
    for other in (Gemm(m=900, n=254, k=511), Gemm(m=255, n=1602, k=511)):
        assert near not in text_of(other, "cpu:znver3")
    small = Gemm(m=7, n=39, k=300)
    check(small, target="cpu:znver3", schedule=text_of(gemm, "cpu:znver3")).require_ok()


@pytest.mark.parametrize(
    "gemm",
    [Gemm(m=17, n=48, k=2049), Gemm(m=26, n=33, k=4099, trans_a=True), Gemm(m=16, n=16, k=999)],
    ids=str,
)
def test_the_meaning_stays(gemm: Gemm) -> None:
    """Schedules of large problems, on ones that the evaluator is fast enough for."""
    whole = text_of(Gemm(m=gemm.m, n=gemm.n, k=65536, trans_a=gemm.trans_a), "cpu:znver3")
    assert "tile{loops=k" in whole
    check(gemm, target="cpu:znver3", schedule=whole).require_ok()
