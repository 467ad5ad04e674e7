"""Few columns by an A from memory: each line of the next rows of A is asked for by itself."""

from __future__ import annotations

import re

import pytest

from gemmir import Gemm
from gemmir.schedule.cpu.narrow import asks_for_a, is_narrow
from gemmir.schedule.default import default_schedule
from tests.schedule.cpus import cpu


@pytest.mark.parametrize(
    ("name", "gemm", "holds"),
    [
        ("znver3", Gemm(m=4096, n=16, k=4096), True),
        ("znver3", Gemm(m=4096, n=16, k=1024), False),  # A is in L3
        ("znver3", Gemm(m=4096, n=16, k=4090), False),  # no slice of whole lines
        ("znver3", Gemm(m=4096, n=16, k=4096, lda=4100), False),  # rows begin within lines
        ("znver3", Gemm(m=4096, n=33, k=4096), False),
        ("znver3", Gemm(m=4096, n=16, k=4096, trans_a=True), False),
        ("znver5", Gemm(m=4096, n=64, k=4096), True),
        ("znver5", Gemm(m=4096, n=9, k=4096), True),  # more than half of a vector
        ("znver5", Gemm(m=4096, n=8, k=4096), False),
        ("znver5", Gemm(m=4096, n=9, k=1024), False),
        ("znver3", Gemm(m=4096, n=7, k=4096), False),  # no masks
        ("neoverse-n1", Gemm(m=4096, n=16, k=4096), False),
    ],
)
def test_when(name: str, gemm: Gemm, holds: bool) -> None:
    assert asks_for_a(gemm, cpu(name)) == holds


@pytest.mark.parametrize(
    ("n", "dtype", "begins", "line"),
    [
        (16, "f32", "tile{loops=k sizes=256},tile{loops=m sizes=8},", 16),
        (16, "f64", "tile{loops=k sizes=128},tile{loops=m sizes=8},", 8),
        (32, "f32", "tile{loops=k sizes=128},tile{loops=m sizes=8},", 16),
        (50, "f32", "tile{loops=k sizes=128},promote{operand=b to=l1 layout=panel:64}", 16),
    ],
)
def test_slices_of_b_stay_in_a_roomy_l1(n: int, dtype: str, begins: str, line: int) -> None:
    text = str(default_schedule(Gemm(m=4096, n=n, k=4096, dtype=dtype), cpu("znver5"), 1))
    assert text.startswith(begins)
    ask = f"tile{{loops=k sizes={line}}},prefetch{{operand=a loop=m ahead=1 during=k}}"
    assert f"promote{{operand=c to=registers}},{ask}" in text


@pytest.mark.parametrize(
    ("name", "n", "k", "begins"),
    [
        ("znver3", 8, 4096, "tile{loops=m sizes=8},tile{loops=n sizes=8},"),
        ("znver3", 16, 4096, "tile{loops=m sizes=6 edges=peel},tile{loops=n sizes=16},"),
        ("znver4", 16, 4096, "tile{loops=m sizes=8},tile{loops=n sizes=16},"),
        ("znver4", 16, 256, "tile{loops=m sizes=8},tile{loops=n sizes=16},"),
        ("znver4", 26, 4096, "promote{operand=b to=l2 layout=panel:32},tile{loops=m sizes=8},"),
        ("znver4", 64, 4096, "tile{loops=k sizes=2048},tile{loops=m sizes=6 edges=peel},"),
    ],
)
def test_whole_rows_are_asked_to_l2_where_l1_has_no_room(
    name: str, n: int, k: int, begins: str
) -> None:
    """As long as half of L2 holds B."""
    gemm = Gemm(m=4096 * 4096 // k, n=n, k=k)
    text = str(default_schedule(gemm, cpu(name), 1))
    assert text.startswith(begins)
    ask = "tile{loops=k sizes=16},prefetch{operand=a loop=m ahead=1 to=l2 during=k}"
    assert f"promote{{operand=c to=registers}},{ask}" in text


@pytest.mark.parametrize(
    ("name", "n", "k", "tile", "width"),
    [
        ("znver4", 20, 2560, (8, 24), 8),
        ("znver4", 24, 2560, (8, 24), 8),
        ("znver4", 25, 2560, (8, 32), 16),  # more than half of a last vector
        ("znver4", 40, 2560, (4, 40), 8),
        ("znver4", 56, 2560, (3, 56), 8),
        ("znver4", 24, 4096, (8, 24), 8),  # whose lines of A are asked for
        ("znver4", 40, 12501, (4, 40), 8),  # slices by L1
        ("znver4", 16, 2560, (11, 16), 16),
        ("znver5", 20, 2560, (8, 32), 16),
        ("znver3", 24, 2560, (4, 24), 8),
    ],
)
def test_half_vectors_where_last_columns_fill_no_more(
    name: str, n: int, k: int, tile: tuple[int, int], width: int
) -> None:
    gemm = Gemm(m=1000, n=n, k=k)
    assert is_narrow(gemm, cpu(name))
    text = str(default_schedule(gemm, cpu(name)))
    sizes = [int(s) for s in re.findall(r"tile\{loops=[mn] sizes=(\d+)", text)]
    assert tuple(sizes) == tile
    assert f"vectorize{{with=fma width={width}}}" in text
