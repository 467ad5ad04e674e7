"""Which products of a B that is stored n x k have lanes along k, in which tiles, and their sums."""

from __future__ import annotations

from typing import Any

import pytest

from gemmir import Gemm
from gemmir.check import check
from gemmir.schedule.cpu.classes import plain_class_of
from gemmir.schedule.cpu.packed import PACKED
from gemmir.schedule.cpu.transposed import TRANSPOSED, is_transposed
from gemmir.schedule.default import default_schedule
from tests.schedule.cpus import cpu


def stored(m: int, n: int, k: int, **others: Any) -> Gemm:
    return Gemm(m=m, n=n, k=k, trans_b=True, **others)


@pytest.mark.parametrize(
    ("name", "gemm", "holds"),
    [
        ("znver5", stored(1, 64, 64), True),
        ("znver5", stored(4, 256, 256), True),
        ("znver5", stored(16, 64, 64), True),
        ("znver5", stored(64, 64, 64), False),  # 64 rows share a copy of a short k
        ("znver5", stored(64, 256, 512), True),
        ("znver5", stored(256, 256, 512), False),
        ("znver5", stored(3, 128, 31), False),  # no two vectors along k
        ("znver5", stored(200, 8, 200), True),  # rows of C are half a vector
        ("znver5", stored(200, 32, 200), False),
        ("znver5", stored(32, 64, 64, dtype="f64"), True),
        ("znver3", stored(4, 256, 256), True),
        ("znver3", stored(200, 64, 200), False),
        ("znver5", stored(4, 2048, 1024), True),  # B is a quarter of L3
        ("znver5", stored(4, 4096, 4096), False),  # it is larger
        ("znver5", stored(32, 4096, 4096), True),  # and shared by more rows
        ("znver5", Gemm(m=4, n=256, k=256), False),
        ("znver5", stored(4, 256, 256, dtype="bf16"), False),
        ("neoverse-n1", stored(4, 256, 256), False),
    ],
)
def test_when(name: str, gemm: Gemm, holds: bool) -> None:
    assert is_transposed(gemm, cpu(name)) == holds
    assert (plain_class_of(gemm, cpu(name)) is TRANSPOSED) == holds


def test_otherwise_b_is_packed() -> None:
    assert plain_class_of(stored(64, 64, 64), cpu("znver5")) is PACKED


@pytest.mark.parametrize(
    ("m", "n", "k", "holds"),
    [
        (4, 256, 256, True),
        (8, 512, 512, True),
        (16, 64, 64, False),  # columns of A are whole vectors
        (12, 32, 768, False),  # a copy of A is shared by few columns
    ],
)
def test_few_rows_of_an_a_stored_k_x_m_are_copied(m: int, n: int, k: int, holds: bool) -> None:
    gemm = stored(m, n, k, trans_a=True)
    steps = default_schedule(gemm, cpu("znver5"), 1).steps
    assert ("promote{operand=a to=l2 layout=panel:1}" in steps) == holds
    assert ("swap-operands" in steps) != holds


@pytest.mark.parametrize(
    ("name", "gemm", "tiles"),
    [
        ("znver5", stored(4, 64, 64), ["n,m sizes=4,4"]),
        ("znver5", stored(3, 64, 64), ["n,m sizes=4,3"]),
        ("znver5", stored(200, 8, 200), ["m,n sizes=4,4"]),
        # all of A stays in L1 beside 8 rows of B in halves of k
        ("znver5", stored(12, 32, 768), ["k sizes=384", "n,m sizes=4,4"]),
        ("znver5", stored(12, 32, 768, dtype="f64"), ["k sizes=256", "n,m sizes=4,4"]),
        # it does not
        ("znver5", stored(48, 500, 512), ["n,m sizes=5,4"]),
        ("znver5", stored(48, 500, 1024), ["k sizes=512", "n,m sizes=5,4"]),
        # a single tile of rows reads B once
        ("znver5", stored(1, 253, 5000), ["n,m sizes=4,1 edges=peel"]),
        ("znver3", stored(6, 30, 512), ["n,m sizes=3,3"]),
        ("znver3", stored(4, 32, 2048), ["n,m sizes=4,2"]),
    ],
)
def test_tiles(name: str, gemm: Gemm, tiles: list[str]) -> None:
    *steps, last = TRANSPOSED.loops(gemm, cpu(name))
    assert steps == [f"tile{{loops={text}}}" for text in tiles]
    assert last == "promote{operand=c to=registers}"


@pytest.mark.parametrize(
    "gemm",
    [
        stored(3, 37, 41),
        stored(12, 10, 400, ldb=405, epilogue="bias+relu"),
        stored(7, 33, 70, dtype="f64", beta=0.5, alpha=2),
        stored(5, 80, 50, trans_a=True, epilogue="residual"),
        stored(17, 6, 90, batch=3),
        stored(19, 40, 1300),
    ],
)
def test_numbers(gemm: Gemm) -> None:
    steps = default_schedule(gemm, cpu("znver5"), 1).steps
    assert any("along=k" in step for step in steps)
    check(gemm, target="cpu:znver5").require_ok()
