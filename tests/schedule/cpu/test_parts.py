"""Last columns that would have a panel of B for themselves are computed apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import gemmir
from gemmir import Gemm
from gemmir.machine import machine_for
from gemmir.schedule.default import default_schedule


def schedule_of(gemm: Gemm, name: str) -> str:
    return str(default_schedule(gemm, machine_for(f"cpu:{name}"), 1))


@pytest.mark.parametrize(
    ("name", "gemm", "at"),
    [
        ("znver3", Gemm(m=513, n=513, k=513), 512),
        ("znver3", Gemm(m=400, n=385, k=400), 384),  # panels of 32, where 24 would be left
        ("znver3", Gemm(m=513, n=515, k=513), 512),
        ("znver3", Gemm(m=600, n=602, k=600), None),  # no panel less
        ("znver3", Gemm(m=1023, n=1023, k=1023), None),  # most of a vector
        ("znver3", Gemm(m=520, n=512, k=513, trans_b=True), None),
        ("znver3", Gemm(m=600, n=1025, k=20000), 1008),  # a copy that leaves L1: a wider tile
        ("znver5", Gemm(m=1025, n=1025, k=1025), 1024),
        ("znver5", Gemm(m=1024, n=1024, k=1024), None),
    ],
)
def test_where(name: str, gemm: Gemm, at: int | None) -> None:
    text = schedule_of(gemm, name)
    assert text.startswith(f"part{{loop=n at={at}}}," if at else "tile{")
    assert ("otherwise" in text) == (at is not None)


@pytest.mark.parametrize(
    ("name", "gemm", "at"),
    [
        ("znver5", Gemm(m=2000, n=80, k=1500), 32),  # 5 vectors: 2 and 3
        ("znver5", Gemm(m=1000, n=112, k=1000), 64),
        ("znver5", Gemm(m=1000, n=105, k=1000), 64),  # 7 vectors, the last one not full
        ("znver5", Gemm(m=1000, n=112, k=1000, trans_b=True), 64),
        ("znver5", Gemm(m=1000, n=56, k=1000, dtype="f64"), 32),
        ("znver5", Gemm(m=5000, n=80, k=48), 32),  # a short k
        ("znver5", Gemm(m=4000, n=176, k=32), 128),
        ("znver5", Gemm(m=1000, n=96, k=1000), None),  # 6 vectors: 3 and 3
        ("znver5", Gemm(m=1000, n=144, k=1000), None),
        ("znver5", Gemm(m=1000, n=128, k=1000), None),
        ("znver5", Gemm(m=1000, n=112, k=1000, trans_a=True), None),
        ("znver5", Gemm(m=1000, n=112, k=1000, batch=2), None),
        ("znver3", Gemm(m=2000, n=40, k=1000), 16),
        ("znver3", Gemm(m=1000, n=1000, k=1000), 976),
        ("znver3", Gemm(m=1000, n=112, k=1000), None),
    ],
    ids=str,
)
def test_three_vectors_are_the_last_tile_where_pairs_leave_one(
    name: str, gemm: Gemm, at: int | None
) -> None:
    text = schedule_of(gemm, name)
    if at is None:
        assert "part{" not in text
        return
    lanes = {"znver3": 32, "znver5": 64}[name] // gemm.element.item_bytes
    first, last = text.split(",otherwise,")
    assert first.startswith(f"part{{loop=n at={at}}},")
    assert f"layout=panel:{2 * lanes}}}" in first and "along=k" not in last
    assert f"layout=panel:{min(gemm.n - at, 3 * lanes)}}}" in last


def test_the_first_columns_have_the_schedule_of_their_own() -> None:
    whole = Gemm(m=513, n=513, k=513)
    text = schedule_of(whole, "znver3")
    first = schedule_of(replace(whole, n=512, ldb=513, ldc=513), "znver3")
    assert text.partition(",")[2].partition(",otherwise")[0] == first


@pytest.mark.parametrize("columns", [513, 520])
@pytest.mark.parametrize("epilogue", ["", "bias+relu"])
def test_both_parts_are_computed(epilogue: str, columns: int) -> None:
    gemm = Gemm(m=520, n=columns, k=300, epilogue=epilogue)
    assert "otherwise" in schedule_of(gemm, "x86-64-v3")
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-3, 4, s).astype(np.float32) for s in ((520, 300), (300, columns)))
    bias = rng.integers(-3, 4, columns).astype(np.float32)
    kernel = gemmir.compile(gemm, target="cpu:x86-64-v3")
    expected = np.maximum(a @ b + bias, 0) if epilogue else a @ b
    found = kernel(a, b, bias) if epilogue else kernel(a, b)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("gemm", "space"),
    [
        (Gemm(m=20, n=22, k=1300), "l1"),
        (Gemm(m=20, n=22, k=2151), "l2"),  # a copy of 50 KiB
        (Gemm(m=7, n=22, k=2151), None),  # which 7 rows do not pay for
    ],
)
def test_a_copy_that_leaves_l1_is_in_l2_or_none(gemm: Gemm, space: str | None) -> None:
    text = str(gemmir.lower(gemm, "cpu:znver5").schedule)
    assert ("otherwise" in text) == (space is not None)
    if space:
        assert f"otherwise,promote{{operand=b to={space} layout=panel:1}}" in text
