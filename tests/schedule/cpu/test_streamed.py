"""One row of A by a B from memory: whose rows go by one after the other, and how."""

from __future__ import annotations

import pytest

from gemmir import Gemm
from gemmir.schedule.cpu.streamed import goes_by_row
from gemmir.schedule.default import default_schedule
from tests.schedule.cpus import cpu


@pytest.mark.parametrize(
    ("name", "gemm", "holds"),
    [
        ("znver3", Gemm(m=1, n=4096, k=4096), True),
        ("znver3", Gemm(m=2, n=4096, k=4096), False),
        ("znver3", Gemm(m=1, n=4097, k=4096), False),  # C takes more than half of L1
        ("znver3", Gemm(m=1, n=4096, k=2048), False),  # B is in L3
        ("znver3", Gemm(m=1, n=4000, k=4096, ldb=4096), False),
        ("znver3", Gemm(m=1, n=2048, k=4096, dtype="f64"), True),
        ("znver5", Gemm(m=1, n=4096, k=4096), False),
        ("neoverse-n1", Gemm(m=1, n=4096, k=4096), False),
    ],
)
def test_when(name: str, gemm: Gemm, holds: bool) -> None:
    assert goes_by_row(gemm, cpu(name)) == holds


@pytest.mark.parametrize(("n", "k", "ahead"), [(4096, 4096, 1), (1024, 32768, 2), (512, 65536, 4)])
def test_a_row_some_pages_ahead_is_asked_for(n: int, k: int, ahead: int) -> None:
    text = str(default_schedule(Gemm(m=1, n=n, k=k), cpu("znver3"), 1))
    assert text.startswith("tile{loops=k sizes=1},tile{loops=n sizes=32},")
    assert f"prefetch{{operand=b loop=k ahead={ahead} during=n}}" in text
    assert "unroll" not in text
