"""Few columns by an A from memory: each line of the next rows of A is asked for by itself."""

from __future__ import annotations

import pytest

from gemmir import Gemm
from gemmir.schedule.cpu.narrow import asks_for_a
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
    ("name", "n", "dtype", "begins", "line"),
    [
        ("znver3", 8, "f32", "tile{loops=k sizes=512},tile{loops=m sizes=8},", 16),
        ("znver3", 16, "f32", "tile{loops=k sizes=256},tile{loops=m sizes=6 edges=peel},", 16),
        ("znver3", 16, "f64", "tile{loops=k sizes=128},tile{loops=m sizes=3 edges=peel},", 8),
        ("znver5", 32, "f32", "tile{loops=k sizes=128},tile{loops=m sizes=8},", 16),
        (
            "znver5",
            50,
            "f32",
            "tile{loops=k sizes=128},promote{operand=b to=l1 layout=panel:64}",
            16,
        ),
    ],
)
def test_slices_of_b_stay_in_l1(name: str, n: int, dtype: str, begins: str, line: int) -> None:
    text = str(default_schedule(Gemm(m=4096, n=n, k=4096, dtype=dtype), cpu(name), 1))
    assert text.startswith(begins)
    ask = f"tile{{loops=k sizes={line}}},prefetch{{operand=a loop=m ahead=1 during=k}}"
    assert f"promote{{operand=c to=registers}},{ask}" in text
