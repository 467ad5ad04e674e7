"""How packed schedules cut k."""

from __future__ import annotations

import re

import pytest

import gemmir
from gemmir import Gemm
from gemmir.machine import machine_for
from gemmir.schedule.default import default_schedule


@pytest.mark.parametrize(
    ("name", "gemm", "kc"),
    [
        ("znver5", Gemm(m=1024, n=1024, k=1024), 256),
        ("znver5", Gemm(m=1000, n=1000, k=1000), 200),  # equal slices
        ("znver5", Gemm(m=2048, n=2048, k=2048), 512),  # C leaves L2, and is written half as often
        ("znver5", Gemm(m=2048, n=2048, k=2048, dtype="f64"), 256),
        ("znver5", Gemm(m=8192, n=256, k=1024), 512),
        ("znver5", Gemm(m=1000, n=128, k=1000), None),  # all of B in half of L2
        ("znver5", Gemm(m=1000, n=128, k=2048), 1024),
        ("znver5", Gemm(m=1000, n=256, k=1024), 512),
        ("znver5", Gemm(m=1000, n=100, k=3000), 1000),  # a third of L1 is left by 8 rows of A
        ("znver5", Gemm(m=4000, n=160, k=2000), 500),  # no slices of 512 to 819 would be equal
        ("znver3", Gemm(m=2048, n=2048, k=2048), 256),
        ("znver3", Gemm(m=1000, n=128, k=1000), 252),
    ],
    ids=str,
)
def test_slices_are_longer_where_that_is_free_or_c_is_far(
    name: str, gemm: Gemm, kc: int | None
) -> None:
    text = str(default_schedule(gemm, machine_for(f"cpu:{name}"), 1))
    found = re.search(r"tile\{loops=k sizes=(\d+)\},promote", text)
    assert (int(found[1]) if found else None) == kc


def test_lines_are_asked_for_in_the_sums_of_a_single_panel() -> None:
    """There is no loop over n then, in which a share could be asked for."""
    text = str(default_schedule(Gemm(m=2000, n=80, k=1500), machine_for("cpu:znver5"), 1))
    for part in text.split(",otherwise,"):
        assert "tile{loops=k sizes=4},prefetch{operand=a loop=m ahead=1 during=k}" in part
        assert "prefetch{operand=c" not in part


def test_a_last_block_may_be_one_panel() -> None:
    """Nine blocks of seven panels leave one, whose loop over n has one iteration."""
    gemm = Gemm(m=1000, n=3072, k=768)
    text = str(default_schedule(gemm, machine_for("cpu:znver5"), 1))
    assert text.startswith("tile{loops=n sizes=336 edges=peel}") and "panel:48" in text
    assert "prefetch{operand=c loop=n ahead=0 during=k}" in text
    gemmir.lower(gemm, "cpu:znver5")
