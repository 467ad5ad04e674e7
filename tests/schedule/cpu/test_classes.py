"""The tables of classes: each row decides for some problem, and the page of schedules has them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from gemmir import Gemm
from gemmir.schedule.cpu.classes import MIXED, PLAIN, Rules
from tests.schedule.cpus import cpu

PAGE: Final = Path(__file__).parents[3] / "docs" / "schedules.md"


def test_the_page_lists_the_rows_in_order() -> None:
    table = PAGE.read_text().partition("| class | when")[2].partition("\n\n")[0]
    assert re.findall(r"^\| ([a-z ]+) \|", table, re.M) == [found.name for found, _ in PLAIN]


def row_of(rules: Rules, gemm: Gemm, name: str) -> int:
    return next(row for row, (_, holds) in enumerate(rules) if holds(gemm, cpu(name)))


ROWS = (
    ("znver3", Gemm(m=0, n=48, k=16)),
    ("znver3", Gemm(m=2, n=4, k=16, trans_b=True)),
    ("znver3", Gemm(m=1024, n=8, k=8192)),
    ("znver3", Gemm(m=64, n=3, k=64)),
    ("znver3", Gemm(m=3000, n=8, k=48)),
    ("znver3", Gemm(m=256, n=512, k=1)),
    ("znver3", Gemm(m=100, n=100, k=50, trans_b=True)),
    ("znver3", Gemm(m=1, n=300, k=64)),
    ("znver5", Gemm(m=64, n=64, k=64)),
    ("znver3", Gemm(m=8, n=768, k=96)),
    ("znver3", Gemm(m=48, n=768, k=100)),
    ("znver3", Gemm(m=8, n=1000, k=300)),
    ("znver5", Gemm(m=48, n=1024, k=200)),
    ("znver5", Gemm(m=1, n=4096, k=4096)),
    ("znver3", Gemm(m=16, n=16, k=4096)),
    ("znver5", Gemm(m=400, n=400, k=400)),
    ("znver3", Gemm(m=200, n=200, k=400, trans_a=True)),
    ("znver3", Gemm(m=1024, n=1024, k=1024)),
)


def test_each_row_of_plain_products_decides() -> None:
    assert [row_of(PLAIN, gemm, name) for name, gemm in ROWS] == list(range(len(PLAIN)))


@pytest.mark.parametrize(
    ("row", "name", "gemm"),
    [
        (0, "znver5", Gemm(m=0, n=4, k=32, dtype="f16")),
        (1, "sapphirerapids", Gemm(m=64, n=64, k=64, dtype="bf16")),
        (2, "znver5", Gemm(m=1, n=8, k=64, trans_b=True, dtype="f16")),
        (3, "znver5", Gemm(m=16, n=4096, k=4096, dtype="f16")),
        (4, "znver5", Gemm(m=2, n=64, k=64, dtype="f16")),
        (5, "znver5", Gemm(m=64, n=64, k=64, dtype="f16")),
        (6, "znver5", Gemm(m=32, n=48, k=1000000, dtype="bf16", out="bf16")),
    ],
    ids=str,
)
def test_each_row_of_wider_sums_decides(row: int, name: str, gemm: Gemm) -> None:
    assert row_of(MIXED, gemm, name) == row
