"""Columns behind whole tiles of a direct product, where masks are slow, and tiles of one vector."""

from __future__ import annotations

import re

import pytest

from gemmir import Gemm
from gemmir.schedule.cpu.tiles import cuts_columns
from gemmir.schedule.default import default_schedule
from tests.schedule.cpus import cpu


@pytest.mark.parametrize(
    ("name", "gemm", "holds"),
    [
        ("znver3", Gemm(m=124, n=37, k=27), True),
        ("znver3", Gemm(m=20, n=20, k=20), True),
        ("znver3", Gemm(m=300, n=29, k=64), False),  # two tiles of 16, of which 3 columns are twice
        ("znver3", Gemm(m=300, n=29, k=64, beta=1.0), True),  # C would be added twice
        ("znver5", Gemm(m=300, n=29, k=64), True),
        ("neoverse-n1", Gemm(m=20, n=22, k=20), False),
    ],
)
def test_masks(name: str, gemm: Gemm, holds: bool) -> None:
    assert cuts_columns(gemm, cpu(name)) == holds


@pytest.mark.parametrize(
    ("name", "gemm", "unrolled"),
    [
        ("znver3", Gemm(m=1155, n=8, k=35), False),  # 12 rows of one vector
        ("znver3", Gemm(m=8, n=8, k=35), True),
        ("znver3", Gemm(m=330, n=16, k=35), True),
        ("znver5", Gemm(m=330, n=16, k=35), True),
    ],
)
def test_many_rows_of_one_vector_are_not_unrolled(name: str, gemm: Gemm, unrolled: bool) -> None:
    assert ("unroll{loop=k factor=4}" in str(default_schedule(gemm, cpu(name), 1))) == unrolled


@pytest.mark.parametrize(
    ("gemm", "tile"),
    [
        (Gemm(m=64, n=16, k=1024), "m,n sizes=8,16}"),  # rows 4096 bytes apart
        (Gemm(m=64, n=16, k=1000), "m,n sizes=22,16 edges=peel}"),
        (Gemm(m=34, n=16, k=3662), "m,n sizes=17,16}"),  # k is long
        (Gemm(m=1000, n=16, k=1000), "m sizes=24 edges=peel},tile{loops=n sizes=16}"),
        (Gemm(m=4096, n=16, k=2050), "m sizes=8},tile{loops=n sizes=16}"),  # A comes from memory
    ],
)
def test_rows_of_one_vector(gemm: Gemm, tile: str) -> None:
    text = str(default_schedule(gemm, cpu("znver5"), 1))
    assert text.startswith(f"tile{{loops={tile},promote{{operand=c to=registers}},")


@pytest.mark.parametrize(
    ("name", "gemm", "rows"),
    [
        ("znver5", Gemm(m=300, n=8, k=8, dtype="f64"), 3),  # beside 24 sums
        ("znver5", Gemm(m=16, n=16, k=16), 3),
        ("znver4", Gemm(m=16, n=16, k=16), 0),  # half a load for an element of A
        ("znver4", Gemm(m=8, n=8, k=8), 1),  # a shuffle takes a pipe that multiplies
        ("znver4", Gemm(m=16, n=8, k=32), 2),
        ("znver4", Gemm(m=16, n=16, k=16384), 0),
        ("znver3", Gemm(m=8, n=8, k=8), 3),
        ("znver3", Gemm(m=300, n=8, k=16), 0),  # beside 12 sums in 16 registers
    ],
)
def test_wide_reads_have_registers(name: str, gemm: Gemm, rows: int) -> None:
    text = str(default_schedule(gemm, cpu(name), 1))
    assert (f"widen-reads{{rows={rows}" in text) if rows else ("widen-reads" not in text)


@pytest.mark.parametrize(
    ("name", "gemm", "holds"),
    [
        ("znver4", Gemm(m=24, n=24, k=24), True),
        ("znver4", Gemm(m=16, n=16, k=16, dtype="f64", beta=1.0), True),
        ("znver4", Gemm(m=100, n=100, k=100), True),  # the first of two parts
        ("znver4", Gemm(m=192, n=192, k=192), False),  # k is long
        ("znver4", Gemm(m=16, n=16, k=0), False),
        ("znver5", Gemm(m=24, n=24, k=24), False),
        ("znver3", Gemm(m=24, n=24, k=24), False),
    ],
)
def test_sums_begin_with_products_where_stores_delay_additions(
    name: str, gemm: Gemm, holds: bool
) -> None:
    assert ("peel{loop=k}" in str(default_schedule(gemm, cpu(name), 1))) == holds


@pytest.mark.parametrize(
    ("name", "gemm", "begin", "width"),
    [
        ("znver4", Gemm(m=24, n=24, k=24), "tile{loops=m,n sizes=8,24}", 8),
        ("znver4", Gemm(m=40, n=40, k=40), "tile{loops=m,n sizes=4,40}", 8),
        ("znver4", Gemm(m=12, n=12, k=12, dtype="f64"), "tile{loops=m,n sizes=6,12}", 4),
        ("znver4", Gemm(m=24, n=24, k=8192), "tile{loops=k", 8),  # slices of a long k
        ("znver4", Gemm(m=24, n=30, k=30), "tile{loops=m,n sizes=12,30}", 16),  # 14 more
        ("znver4", Gemm(m=32, n=32, k=32), "tile{loops=m,n sizes=11,32 edges=peel}", 16),
        ("znver4", Gemm(m=68, n=68, k=68), "part{loop=n at=64}", 16),
        ("znver4", Gemm(m=22, n=120, k=40, trans_a=True), "tile{loops=n,m sizes=24,8", 8),
        ("znver4", Gemm(m=22, n=120, k=250, trans_a=True), "tile{loops=m,n sizes=11,32", 16),
        ("znver4", Gemm(m=4096, n=20, k=300), "promote{operand=b to=l2 layout=panel:1}", 16),
        ("znver5", Gemm(m=24, n=24, k=24), "tile{loops=m,n sizes=12,24}", 16),
    ],
)
def test_vectors_are_half_where_last_columns_are(
    name: str, gemm: Gemm, begin: str, width: int
) -> None:
    """Two of them take as long as a whole one on Zen 4."""
    text = str(default_schedule(gemm, cpu(name), 1))
    assert text.startswith(begin)
    assert re.findall(r"vectorize\{with=fma width=(\d+)", text)[0] == str(width)


def test_rows_that_are_pages_apart_take_all_ways_where_multiply_adds_take_long() -> None:
    gemm = Gemm(m=32, n=32, k=4096)
    assert "m,n sizes=8,32}" in str(default_schedule(gemm, cpu("znver4"), 1))
