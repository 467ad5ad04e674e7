"""Few columns by an A in L1 or L2: lanes go along k where a model says that they take less time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gemmir import Gemm
from gemmir.check import check
from gemmir.schedule.cpu.along_k import is_along_k
from gemmir.schedule.default import default_schedule
from tests.schedule.cpus import cpu


@pytest.mark.parametrize(
    ("name", "gemm", "holds"),
    [
        ("znver5", Gemm(m=640, n=2, k=128), True),
        ("znver5", Gemm(m=300, n=8, k=64), True),
        ("znver5", Gemm(m=300, n=8, k=16), False),  # half of a vector, and lanes to be added
        ("znver5", Gemm(m=300, n=16, k=64), False),  # a whole vector
        ("znver5", Gemm(m=4, n=8, k=64), False),  # a copy of B takes longer than is saved
        ("znver5", Gemm(m=12, n=8, k=64, trans_b=True), True),  # and there is none
        ("znver5", Gemm(m=300, n=8, k=64, trans_a=True), False),
        ("znver5", Gemm(m=300, n=6, k=512, dtype="f64"), True),
        ("znver5", Gemm(m=300, n=8, k=256, dtype="f64"), False),
        ("znver3", Gemm(m=128, n=5, k=320), True),
        ("znver3", Gemm(m=128, n=8, k=320), False),
        ("znver5", Gemm(m=640, n=10, k=640), True),
        ("znver5", Gemm(m=1000, n=20, k=1000), True),  # a vector and a quarter, by an A from L3
        ("znver5", Gemm(m=1000, n=20, k=1500), False),  # a copy of B that leaves L1
        ("znver3", Gemm(m=640, n=10, k=3000), True),
        ("znver5", Gemm(m=200, n=20, k=200), False),  # near, the last four columns are apart
        ("znver5", Gemm(m=640, n=9, k=640, dtype="f64"), True),
        ("znver5", Gemm(m=640, n=12, k=640, dtype="f64"), False),  # all columns of B are in L2
        ("znver3", Gemm(m=640, n=12, k=640), True),
        ("neoverse-n1", Gemm(m=128, n=3, k=320), False),
    ],
)
def test_when(name: str, gemm: Gemm, holds: bool) -> None:
    assert is_along_k(gemm, cpu(name)) == holds


@pytest.mark.parametrize(
    ("name", "gemm", "tile"),
    [
        ("znver5", Gemm(m=300, n=8, k=64), "m,n sizes=4,4}"),
        ("znver5", Gemm(m=200, n=1, k=16), "m,n sizes=8,1}"),
        ("znver5", Gemm(m=640, n=2, k=128), "m,n sizes=2,2}"),  # lines of A in their order from L2
        ("znver3", Gemm(m=640, n=2, k=128), "m,n sizes=4,2}"),
        ("znver3", Gemm(m=300, n=3, k=128), "m,n sizes=3,3}"),
        ("znver3", Gemm(m=300, n=3, k=128, dtype="f64"), "m,n sizes=3,3}"),
    ],
)
def test_tiles_fill_vectors_of_sums(name: str, gemm: Gemm, tile: str) -> None:
    text = str(default_schedule(gemm, cpu(name), 1))
    copy = "" if gemm.n == 1 else "promote{operand=b to=l2 layout=panel:1},"
    lanes = cpu(name).lanes(gemm.element.item_bytes)
    vectors = f"promote{{operand=c to=registers}},vectorize{{with=fma width={lanes} along=k}}"
    assert text == f"{copy}tile{{loops={tile},{vectors}"


@pytest.mark.parametrize(
    ("name", "gemm", "tiles"),
    [
        ("znver5", Gemm(m=4096, n=6, k=2560), (3, 6)),
        ("znver3", Gemm(m=4096, n=3, k=2560), (3, 3)),
        ("znver3", Gemm(m=4096, n=6, k=2560), (3, 3)),
        ("znver5", Gemm(m=4096, n=2, k=2560), None),  # few products for a line
        ("znver5", Gemm(m=4096, n=6, k=2550), None),  # rows have no whole lines
        ("znver5", Gemm(m=4096, n=6, k=512), None),  # A is in L3
        ("znver5", Gemm(m=100000, n=4, k=64), None),  # rows are short
    ],
)
def test_lines_from_memory_are_asked_for(
    name: str, gemm: Gemm, tiles: tuple[int, int] | None
) -> None:
    text = str(default_schedule(gemm, cpu(name), 1))
    assert "along=k" in text
    if tiles is None:
        assert "prefetch" not in text
        return
    rows, columns = tiles
    edges = " edges=peel" if gemm.m % rows else ""
    during = "n,k" if gemm.n > columns else "k"
    assert f"tile{{loops=m sizes={rows}{edges}}},tile{{loops=n sizes={columns}}}" in text
    space = "" if name == "znver5" else "to=l2 "
    asked = f"prefetch{{operand=a loop=m ahead=1 {space}during={during}}}"
    assert f"tile{{loops=k sizes=16}},{asked}" in text


@pytest.mark.parametrize(
    ("name", "m", "n", "begins", "asked"),
    [
        ("znver4", 4096, 1, "tile{loops=m sizes=8},tile{loops=n sizes=1},", "a loop=m"),
        ("znver4", 1, 4096, "tile{loops=n sizes=8},tile{loops=m sizes=1},", "b loop=n"),
        ("znver4", 4, 4096, "tile{loops=n sizes=5 edges=peel},tile{loops=m sizes=4},", "b loop=n"),
        ("znver3", 1, 4096, "tile{loops=n sizes=6 edges=peel},tile{loops=m sizes=1},", "b loop=n"),
        ("znver4", 16, 4096, "tile{loops=n,m sizes=5,4 edges=peel},", ""),  # four tiles of rows
        ("znver5", 4096, 1, "tile{loops=m,n sizes=5,1 edges=peel},", ""),
        ("znver5", 1, 4096, "tile{loops=n,m sizes=5,1 edges=peel},", ""),
    ],
)
def test_the_long_side_is_asked_for_to_l2(
    name: str, m: int, n: int, begins: str, asked: str
) -> None:
    """Where L1 has no room for the next rows, by however few products."""
    gemm = Gemm(m=m, n=n, k=4096, trans_b=m < n)
    text = str(default_schedule(gemm, cpu(name), 1))
    assert text.startswith(begins)
    assert (f"prefetch{{operand={asked} ahead=1 to=l2 during=k}}" in text) == bool(asked)
    assert ("prefetch" in text) == bool(asked)


@pytest.mark.parametrize(("m", "n"), [(37, 1), (41, 2), (1, 43), (3, 40), (4, 37)])
def test_rows_that_are_asked_for_are_right(m: int, n: int) -> None:
    """Whole numbers, whose sums are exact: last tiles ask for no rows behind the last."""
    machine = replace(cpu("x86-64-v3"), l1_bytes=4096, l2_bytes=4096, l3_bytes=8192)
    gemm = Gemm(m=m, n=n, k=128, trans_b=m < n)
    schedule = default_schedule(gemm, machine, 1)
    assert "prefetch{" in str(schedule)
    check(gemm, target="cpu:x86-64-v3", schedule=schedule, shrink=False).require_ok()
