"""Which products copy small blocks of B into L1, and how any number of rows does."""

from __future__ import annotations

import re

import pytest

import gemmir
from gemmir import Gemm
from gemmir.schedule.cpu.classes import plain_class_of
from gemmir.schedule.cpu.copied import COPIED, copying_tile, fills_blocks
from gemmir.schedule.default import default_schedule
from tests.schedule.cpus import cpu

ASK = "prefetch{operand=b loop=k ahead=1 to=l2 during=m,n}"


@pytest.mark.parametrize(
    ("name", "m", "n", "k", "holds"),
    [
        ("znver3", 32, 3072, 768, False),  # streams are faster
        ("znver3", 33, 3072, 768, True),
        ("znver3", 32, 4096, 4096, False),  # also from memory
        ("znver3", 33, 4096, 4096, True),
        ("znver3", 256, 4096, 4096, True),
        ("znver3", 257, 4096, 4096, False),
        ("znver3", 192, 512, 4096, False),  # C is nearly as high as long
        ("znver3", 128, 768, 3072, True),  # rows of B share sets of L1
        ("znver3", 128, 1000, 3000, False),  # they do not
        ("znver5", 128, 768, 3072, False),
        ("znver5", 129, 768, 3072, True),
        ("znver5", 384, 768, 3072, True),
        ("znver5", 385, 768, 3072, False),
        ("znver4", 64, 4096, 4096, True),
        ("znver4", 192, 4096, 4096, True),  # the first rows fill blocks
        ("znver4", 193, 768, 3072, False),
        ("znver4", 193, 4096, 4096, False),  # panels stream by from L3
        ("znver4", 256, 3072, 768, False),
        ("znver5", 32, 3072, 768, False),
        ("znver5", 33, 3072, 768, True),
        ("znver5", 33, 4096, 4096, True),
        ("znver5", 64, 4088, 4096, False),  # rows of B begin inside of lines
        ("znver5", 65, 4088, 4096, False),  # and are no power of two apart
        ("znver5", 320, 512, 512, False),  # A and B are close
        ("neoverse-n1", 128, 3072, 768, False),
    ],
)
def test_the_class_is_of_some_rows(name: str, m: int, n: int, k: int, holds: bool) -> None:
    assert (plain_class_of(Gemm(m=m, n=n, k=k), cpu(name)) is COPIED) == holds


@pytest.mark.parametrize(
    ("name", "rows", "fills"),
    [("znver4", 192, True), ("znver4", 193, False), ("znver5", 384, True), ("znver5", 385, False)],
)
def test_the_first_rows_fill_blocks_of_a_narrow_l1_for_fewer_rows(
    name: str, rows: int, fills: bool
) -> None:
    assert fills_blocks(Gemm(m=rows, n=2560, k=4096), cpu(name)) == fills


@pytest.mark.parametrize(("trans_a", "trans_b"), [(True, False), (False, True)])
def test_what_is_transposed_is_none(trans_a: bool, trans_b: bool) -> None:
    gemm = Gemm(m=128, n=3072, k=768, trans_a=trans_a, trans_b=trans_b)
    assert plain_class_of(gemm, cpu("znver3")) is not COPIED


@pytest.mark.parametrize(
    ("name", "n", "dtype", "rows", "columns"),
    [
        ("znver3", 3072, "f32", 3, 32),
        ("znver3", 1000, "f32", 4, 24),
        ("znver3", 3072, "f64", 3, 16),
        ("znver5", 3072, "f32", 8, 32),
        ("znver5", 1000, "f64", 8, 16),
    ],
)
def test_a_tile_is_two_lines_wide_or_less(
    name: str, n: int, dtype: str, rows: int, columns: int
) -> None:
    tile = copying_tile(Gemm(m=64, n=n, k=1000, dtype=dtype), cpu(name))
    assert (tile.rows, tile.columns) == (rows, columns)


def test_any_number_of_rows_copies_blocks_too() -> None:
    text = str(default_schedule(Gemm(m=gemmir.ANY, n=3072, k=768), cpu("znver3"), 1))
    some = text.partition("version{loops=m most=128},")[2].partition("otherwise")[0]
    assert some.startswith("tile{loops=m sizes=")
    assert ASK in some
    assert " edges=even}" in some
    known = [int(rows) for rows in re.findall(r"version\{loops=m sizes=(\d+)\}", text)]
    assert known == [*range(1, 9), 9, 12, 16]


@pytest.mark.parametrize(
    ("n", "trans_b"),
    [(768, False), (3072, True)],
)
def test_others_do_not(n: int, trans_b: bool) -> None:
    gemm = Gemm(m=gemmir.ANY, n=n, k=768, trans_b=trans_b)
    text = str(default_schedule(gemm, cpu("znver3"), 1))
    assert ASK not in text
    assert " edges=even}" in text
