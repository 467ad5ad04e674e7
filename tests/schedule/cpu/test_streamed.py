"""Few rows of A by a B from memory: in which order its rows go by, and what is asked for ahead."""

from __future__ import annotations

import re

import pytest

from gemmir import Gemm
from gemmir.schedule.cpu.streamed import asks_for_slices, goes_by_row
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


@pytest.mark.parametrize(
    ("name", "gemm", "holds"),
    [
        ("znver4", Gemm(m=1, n=4096, k=4096), True),
        ("znver4", Gemm(m=8, n=8192, k=4096), True),
        ("znver4", Gemm(m=8, n=8200, k=4096), False),  # L2 has no room for four slices
        ("znver4", Gemm(m=8, n=4096, k=1024), False),  # B is in L3
        ("znver4", Gemm(m=8, n=8192, k=8, dtype="f64", ldb=1 << 20), False),
        ("znver5", Gemm(m=8, n=4096, k=4096), False),  # L1 has room for requests
        ("znver4", Gemm(m=8, n=4096, k=4096, dtype="f64"), True),
    ],
)
def test_the_next_rows_are_asked_for(name: str, gemm: Gemm, holds: bool) -> None:
    assert asks_for_slices(gemm, cpu(name)) == holds


@pytest.mark.parametrize(
    ("name", "m", "n", "asked"),
    [
        ("znver4", 1, 4096, "loop=k ahead=1 to=l2 during=n"),
        ("znver4", 4, 4096, "loop=k ahead=1 to=l2 during=n"),
        ("znver4", 1, 16384, None),
        ("znver4", 4, 16384, "loop=n ahead=4 to=l2"),
        ("znver5", 1, 4096, None),
        ("znver5", 4, 4096, "loop=n ahead=4"),
    ],
)
def test_what_a_stream_asks_for(name: str, m: int, n: int, asked: str | None) -> None:
    found = str(default_schedule(Gemm(m=m, n=n, k=4096), cpu(name), 1))
    requests = re.findall(r"prefetch\{operand=b ([^}]*)\}", found)
    assert requests == ([] if asked is None else [asked])
