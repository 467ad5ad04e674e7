"""Rows of panels of narrow types are of even sizes, and few rows of bytes are packed."""

from __future__ import annotations

from typing import Any

import pytest

from gemmir import Gemm
from gemmir.machine import machine_for
from gemmir.schedule.default import default_schedule

BYTES: dict[str, Any] = {"dtype": "u8", "dtype_b": "i8"}


def steps_of(target: str, gemm: Gemm) -> tuple[str, ...]:
    return default_schedule(gemm, machine_for(target), 1).steps


@pytest.mark.parametrize(
    ("target", "m", "rows"),
    [
        ("cpu:znver5", 8, 8),
        ("cpu:znver5", 9, 5),
        ("cpu:znver5", 12, 6),
        ("cpu:znver5", 33, 7),
        ("cpu:znver5", 100, 8),
        ("cpu:znver3", 8, 4),
        ("cpu:znver3", 9, 5),
        ("cpu:znver3", 12, 6),
    ],
)
def test_rows_of_panels_are_even(target: str, m: int, rows: int) -> None:
    steps = steps_of(target, Gemm(m=m, n=512, k=512, dtype="bf16"))
    assert f"tile{{loops=m,n sizes={rows},{32 if target == 'cpu:znver5' else 16}}}" in steps


@pytest.mark.parametrize("target", ["cpu:znver5", "cpu:znver3"])
@pytest.mark.parametrize(("dtype", "most"), [({"dtype": "bf16"}, 4), (BYTES, 2)])
def test_few_rows_are_widened(target: str, dtype: dict[str, Any], most: int) -> None:
    for m in range(1, 8):
        steps = steps_of(target, Gemm(m=m, n=512, k=512, **dtype))
        assert any("operand=b" in step for step in steps) == (m > most), m


def test_rows_of_weights_are_even() -> None:
    """One row more than a tile of A in panels holds makes two tiles."""
    weights: dict[str, Any] = {"dtype_b": "i4", "weight_group": 32, "trans_b": True}
    gemm = Gemm(m=9, n=512, k=512, dtype="bf16", **weights)
    assert "tile{loops=m,n sizes=5,16}" in steps_of("cpu:x86-64-v3", gemm)
