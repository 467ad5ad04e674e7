"""Which products compute the transpose of C, in which tiles, and that their numbers are right."""

from __future__ import annotations

from typing import Any

import pytest

from gemmir import Gemm
from gemmir.check import check
from gemmir.machine import machine_for
from gemmir.schedule.default import default_schedule

ZEN5 = "cpu:znver5"
ZEN4 = "cpu:znver4"
ZEN3 = "cpu:znver3"
NEON = "cpu:neoverse-n1"


def steps_of(target: str, gemm: Gemm, threads: int = 1) -> tuple[str, ...]:
    return default_schedule(gemm, machine_for(target), threads).steps


def stored(m: int, n: int, k: int, **others: Any) -> Gemm:
    """A is stored k x m."""
    return Gemm(m=m, n=n, k=k, trans_a=True, **others)


@pytest.mark.parametrize(
    ("target", "gemm", "holds"),
    [
        (ZEN5, stored(96, 2, 32), True),
        (ZEN5, stored(96, 2, 32, batch=9), True),
        (ZEN5, stored(96, 24, 96), True),  # half of the second vector of a row is empty
        (ZEN5, stored(96, 32, 96), False),
        (ZEN5, stored(20, 12, 256), False),  # 20 rows are two vectors, and rows of C are one
        (ZEN5, stored(4096, 8, 4096), True),  # A is in memory
        (ZEN5, stored(2000, 24, 2000), False),
        (ZEN5, stored(96, 2, 32, epilogue="bias"), False),
        (ZEN5, stored(96, 2, 32, beta=1.0), False),
        (ZEN5, stored(96, 2, 32, dtype="bf16"), False),
        (ZEN5, Gemm(m=96, n=24, k=96), False),
        (ZEN5, stored(256, 256, 256, trans_b=True), True),
        (ZEN5, stored(64, 64, 16, trans_b=True), False),  # copies of A and B are the lesser cost
        (ZEN5, stored(384, 24, 16, trans_b=True), True),  # but for empty lanes
        (ZEN5, stored(200, 5, 3000, trans_b=True), True),
        (ZEN4, stored(66, 76, 25, trans_b=True), True),  # 20 columns would fill a panel of 48
        (ZEN4, stored(64, 96, 16, trans_b=True), False),  # whole panels
        (ZEN3, stored(199, 67, 36, trans_b=True), True),
        (ZEN3, stored(173, 124, 179, dtype="f64", trans_b=True), False),  # not near
        (ZEN3, stored(200, 11, 64), True),  # half of the second vector of a row is empty
        (ZEN3, stored(200, 15, 64), False),
        (ZEN3, stored(96, 16, 96), False),
    ],
)
def test_when(target: str, gemm: Gemm, holds: bool) -> None:
    assert (steps_of(target, gemm)[0] == "swap-operands") == holds


@pytest.mark.parametrize(
    ("target", "gemm", "at"),
    [
        (ZEN4, stored(61, 81, 79), 80),  # of which one more takes a vector for each row
        (ZEN4, stored(61, 80, 79), None),
        (ZEN4, stored(26, 59, 100, dtype="f64"), 56),
        (ZEN4, stored(85, 41, 5, dtype="f64"), 40),
        (ZEN4, stored(22, 120, 40), None),  # all have half the lanes
        (ZEN5, stored(100, 100, 100), 96),
        (ZEN5, stored(100, 111, 100), None),
        (ZEN3, stored(92, 20, 166), 16),
        (ZEN5, stored(100, 100, 100, beta=1.0), None),
        (ZEN5, stored(100, 100, 100, epilogue="bias"), None),
        (ZEN5, stored(100, 100, 100, batch=2), None),
        (NEON, stored(100, 100, 100), None),
    ],
)
def test_last_columns_are_of_the_transpose(target: str, gemm: Gemm, at: int | None) -> None:
    steps = steps_of(target, gemm)
    assert (steps[0] == f"part{{loop=n at={at}}}") == (at is not None)
    if at is not None:
        assert steps[steps.index("otherwise") + 1] == "swap-operands"
        assert default_schedule(gemm, machine_for(target), 2).steps[0] != steps[0]


def test_several_cores_do_not() -> None:
    assert "swap-operands" not in steps_of(ZEN5, stored(960, 2, 32), threads=2)


@pytest.mark.parametrize(
    "gemm",
    [
        stored(793, 1, 175),
        stored(2048, 1, 2048),
        stored(793, 1, 175, trans_b=True, ldb=180),
    ],
)
def test_one_column_is_like_one_row(gemm: Gemm) -> None:
    first, *rest = steps_of(ZEN5, gemm)
    assert first == "swap-operands"
    assert tuple(rest) == steps_of(ZEN5, Gemm(m=1, n=gemm.m, k=gemm.k))


@pytest.mark.parametrize("apart", ["ldb", "ldc"])
def test_one_column_of_wider_arrays_is_not(apart: str) -> None:
    gemm = stored(2048, 1, 2048, **{apart: 2})
    assert "tile{loops=n,m sizes=128,1}" in steps_of(ZEN5, gemm)


@pytest.mark.parametrize(
    "gemm",
    [
        stored(37, 3, 20),
        stored(70, 1, 33),
        stored(70, 1, 33, ldb=3, ldc=2),
        stored(41, 5, 17, batch=3, dtype="f64"),
        stored(41, 5, 17, batch=2, batch_stride_b=200, lda=50, ldc=7),
        stored(33, 7, 18, trans_b=True, batch=2),
        stored(25, 19, 95, lda=27, ldb=21, ldc=20),
    ],
)
@pytest.mark.parametrize("target", [ZEN5, ZEN3])
def test_numbers(gemm: Gemm, target: str) -> None:
    assert "swap-operands" in steps_of(target, gemm)
    check(gemm, target=target).require_ok()
