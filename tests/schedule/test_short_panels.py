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
        ("znver3", Gemm(m=513, n=513, k=513, trans_b=True), None),
        ("znver3", Gemm(m=600, n=1025, k=20000), None),  # a copy that leaves L1
        ("znver5", Gemm(m=1025, n=1025, k=1025), 1024),
        ("znver5", Gemm(m=1024, n=1024, k=1024), None),
    ],
)
def test_where(name: str, gemm: Gemm, at: int | None) -> None:
    text = schedule_of(gemm, name)
    assert text.startswith(f"part{{loop=n at={at}}}," if at else "tile{")
    assert ("otherwise" in text) == (at is not None)


def test_the_first_columns_have_the_schedule_of_their_own() -> None:
    whole = Gemm(m=513, n=513, k=513)
    text = schedule_of(whole, "znver3")
    first = schedule_of(replace(whole, n=512, ldb=513, ldc=513), "znver3")
    assert text.partition(",")[2].partition(",otherwise")[0] == first


@pytest.mark.parametrize("epilogue", ["", "bias+relu"])
def test_both_parts_are_computed(epilogue: str) -> None:
    gemm = Gemm(m=520, n=513, k=300, epilogue=epilogue)
    assert "otherwise" in schedule_of(gemm, "x86-64-v3")
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-3, 4, s).astype(np.float32) for s in ((520, 300), (300, 513)))
    bias = rng.integers(-3, 4, 513).astype(np.float32)
    kernel = gemmir.compile(gemm, target="cpu:x86-64-v3")
    expected = np.maximum(a @ b + bias, 0) if epilogue else a @ b
    found = kernel(a, b, bias) if epilogue else kernel(a, b)
    np.testing.assert_array_equal(found, expected)
