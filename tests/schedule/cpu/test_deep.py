"""Default schedules of a small C and a long k, with many registers."""

from __future__ import annotations

import re

import pytest

from gemmir.check import check
from gemmir.gemm import Gemm
from gemmir.machine import machine_for
from gemmir.schedule.default import default_schedule

ZEN5 = "cpu:znver5"
"""32 registers, 1 MiB of L2 and 32 MiB of L3."""

NEXT_SLICE = "prefetch{operand=b loop=k ahead=1 during=m,n,k}"
NEXT_ROWS = "prefetch{operand=a loop=m ahead=1 during=n,k}"


def text_of(gemm: Gemm, target: str = ZEN5) -> str:
    return str(default_schedule(gemm, machine_for(target)))


@pytest.mark.parametrize(
    ("gemm", "kc"),
    [
        (Gemm(m=64, n=64, k=65536), 128),
        (Gemm(m=64, n=64, k=32768, dtype="f64"), 64),
        (Gemm(m=128, n=128, k=32768), 64),
        (Gemm(m=60, n=72, k=60001, trans_a=True), 64),
    ],
    ids=str,
)
def test_slices_from_memory_are_asked_for(gemm: Gemm, kc: int) -> None:
    """A slice of B has two thirds of L1 at most, or is half as long."""
    text = text_of(gemm)
    assert text.startswith(f"tile{{loops=k sizes={kc}}},")
    assert NEXT_SLICE in text
    assert NEXT_ROWS in text


@pytest.mark.parametrize(
    ("gemm", "target"),
    [
        (Gemm(m=128, n=128, k=8192), ZEN5),
        (Gemm(m=20, n=16, k=100000), ZEN5),
        (Gemm(m=64, n=64, k=65536), "cpu:znver3"),
    ],
    ids=str,
)
def test_other_slices_are_not(gemm: Gemm, target: str) -> None:
    """Those in L3, those of tiles of one vector, and those of 16 registers."""
    assert NEXT_SLICE not in text_of(gemm, target)


def test_a_single_tile_of_rows_has_no_next_one() -> None:
    text = text_of(Gemm(m=8, n=64, k=100000))
    assert NEXT_SLICE in text
    assert "operand=a" not in text


@pytest.mark.parametrize(
    ("gemm", "is_whole"),
    [
        (Gemm(m=32, n=32, k=4096), True),
        (Gemm(m=64, n=32, k=4096), True),
        (Gemm(m=128, n=32, k=4096), False),
        (Gemm(m=32, n=32, k=8192), False),
        (Gemm(m=64, n=64, k=2048), False),
        (Gemm(m=32, n=32, k=2048, dtype="f64"), False),
    ],
    ids=str,
)
def test_a_b_that_stays_in_l2_is_not_cut(gemm: Gemm, is_whole: bool) -> None:
    """With tiles of whole rows of B, and an A that goes by once and is no larger than L2."""
    assert ("loops=k" not in text_of(gemm)) == is_whole


@pytest.mark.parametrize(
    ("gemm", "columns"),
    [
        (Gemm(m=2, n=128, k=2000), 128),
        (Gemm(m=4, n=64, k=4000), 64),
        (Gemm(m=1, n=32, k=4096, dtype="f64"), 32),
        (Gemm(m=8, n=64, k=4000), 32),
    ],
    ids=str,
)
def test_few_rows_have_wide_tiles(gemm: Gemm, columns: int) -> None:
    assert f"loops=m,n sizes={gemm.m},{columns}}}" in text_of(gemm)


@pytest.mark.parametrize(
    ("gemm", "rows"),
    [
        (Gemm(m=16, n=16, k=16384), 1),
        (Gemm(m=1, n=16, k=100000), 0),
        (Gemm(m=32, n=32, k=16384), 0),
        (Gemm(m=16, n=16, k=16384, trans_a=True), 0),
    ],
    ids=str,
)
def test_a_row_of_single_vectors_is_read_wide(gemm: Gemm, rows: int) -> None:
    found = re.search(r"widen-reads{rows=(\d+)}", text_of(gemm))
    assert (int(found[1]) if found else 0) == rows


@pytest.mark.parametrize(
    ("gemm", "large"),
    [
        (Gemm(m=17, n=48, k=300), Gemm(m=17, n=48, k=131072)),
        (Gemm(m=26, n=33, k=131, trans_a=True), Gemm(m=26, n=33, k=131071, trans_a=True)),
        (Gemm(m=9, n=72, k=129, dtype="f64", beta=2.0), Gemm(m=9, n=72, k=65536, dtype="f64")),
        (Gemm(m=18, n=16, k=4099), Gemm(m=18, n=16, k=100000)),
    ],
    ids=str,
)
def test_the_meaning_stays(gemm: Gemm, large: Gemm) -> None:
    """Schedules of large problems, on ones that the evaluator is fast enough for."""
    schedule = text_of(large)
    assert NEXT_SLICE in schedule or "widen-reads" in schedule
    check(gemm, target=ZEN5, schedule=schedule).require_ok()


@pytest.mark.parametrize(
    ("gemm", "rows", "columns"),
    [
        (Gemm(m=64, n=128, k=3000), 8, 48),  # the tiles of near operands
        (Gemm(m=100, n=100, k=1500), 6, 64),
        (Gemm(m=6, n=80, k=3000), 6, 32),  # B is read once
        (Gemm(m=16, n=16, k=16000), 16, 16),
        (Gemm(m=16, n=16, k=16384), 8, 16),  # rows of A share sets of L1
        (Gemm(m=64, n=64, k=65536), 8, 32),  # from memory
    ],
    ids=str,
)
def test_tiles_are_those_of_near_operands(gemm: Gemm, rows: int, columns: int) -> None:
    text = text_of(gemm)
    found = re.search(r"loops=m,n sizes=(\d+),(\d+)", text) or re.search(
        r"loops=m sizes=(\d+).*loops=n sizes=(\d+)", text
    )
    assert found is not None and (int(found[1]), int(found[2])) == (rows, columns)


def test_slices_are_longer_where_a_and_b_are_read_again() -> None:
    assert text_of(Gemm(m=64, n=64, k=4096)).startswith("tile{loops=k sizes=1024},")
    assert text_of(Gemm(m=8, n=64, k=20000)).startswith("tile{loops=k sizes=912},")
