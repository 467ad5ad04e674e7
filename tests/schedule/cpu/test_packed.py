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


@pytest.mark.parametrize(
    ("gemm", "nc", "kc", "level"),
    [
        (Gemm(m=1024, n=1024, k=1024), None, 512, "l3"),  # a row of A would take all of a way
        (Gemm(m=1000, n=1000, k=1000), None, None, "l3"),
        (Gemm(m=1000, n=1000, k=1000, dtype="f64"), None, 500, "l3"),
        (Gemm(m=2048, n=2048, k=2048, dtype="f64"), None, 256, "l3"),
        (Gemm(m=3000, n=3000, k=3000), 1504, 500, "l3"),  # blocks of an eighth of L3
        (Gemm(m=300, n=3000, k=3000), None, 300, "l3"),  # few rows: whole rows of B
        (Gemm(m=300, n=8192, k=4096), 4096, 256, "l3"),
        (Gemm(m=2000, n=128, k=1000), None, None, "l2"),
        (Gemm(m=1536, n=1536, k=1536, trans_b=True), None, 512, "l3"),
    ],
    ids=str,
)
def test_blocks_of_b_lie_in_l3_where_a_core_multiplies_one_line_a_cycle(
    gemm: Gemm, nc: int | None, kc: int | None, level: str
) -> None:
    text = str(default_schedule(gemm, machine_for("cpu:znver4"), 1))
    before, after = text.split("promote{operand=b to=", 1)
    cuts = dict(re.findall(r"tile\{loops=(\w) sizes=(\d+)", before))
    expected = {name: str(size) for name, size in (("n", nc), ("k", kc)) if size is not None}
    assert cuts == expected and after.startswith(level)


def test_blocks_in_l3_are_copied_before_they_are_multiplied() -> None:
    gemm = Gemm(m=512, n=3072, k=768)
    fused = {
        name: "fuse-pack" in str(default_schedule(gemm, machine_for(f"cpu:{name}"), 1))
        for name in ("znver4", "znver5")
    }
    assert fused == {"znver4": False, "znver5": True}


def test_any_number_of_rows_meets_such_blocks() -> None:
    gemm = Gemm(m=gemmir.ANY, n=1000, k=1000)
    text = str(default_schedule(gemm, machine_for("cpu:znver4"), 1))
    assert text.split(",otherwise,")[-1].startswith("promote{operand=b to=l3 layout=panel:48}")
