"""Weights whose C is narrower than its sums: no sum is rounded before it is complete."""

from __future__ import annotations

from typing import Any, Final

import pytest

from gemmir import Gemm
from gemmir.check import check
from gemmir.machine import machine_for
from gemmir.schedule.default import default_schedule

SUM: Final = "promote{operand=c to=registers"


def narrow(m: int, k: int, **fields: Any) -> Gemm:
    given: dict[str, Any] = {
        "dtype": "bf16",
        "out": "bf16",
        "dtype_b": "i8",
        "weight_group": 32,
    } | fields
    return Gemm(m=m, n=52, k=k, **given)


@pytest.mark.parametrize("target", ["cpu:znver4", "cpu:x86-64-v3"])
@pytest.mark.parametrize(
    "gemm",
    [
        narrow(1, 300),
        narrow(9, 300, out="f16", epilogue="silu", beta=1.0),
        narrow(17, 200, dtype_b="i4", dtype="f16", out="f16"),
        narrow(70, 300),
        narrow(70, 300, trans_b=True, trans_a=True),
        narrow(5, 300, trans_b=True),
    ],
)
def test_numbers(target: str, gemm: Gemm) -> None:
    check(gemm, target=target, shrink=False).require_ok()


@pytest.mark.parametrize(
    ("gemm", "sums"),
    [
        (narrow(16, 512), 2),
        (narrow(16, 32), 1),  # a single slice is written once anyway
        (narrow(100, 512), 1),  # panels of all of k
        (narrow(100, 1 << 16), 2),  # … which L3 has no room for
        (narrow(16, 512, out="f32"), 1),
    ],
)
def test_running_sums(gemm: Gemm, sums: int) -> None:
    steps = default_schedule(gemm, machine_for("cpu:x86-64-v3")).steps
    assert sum(step.startswith(SUM) for step in steps) == sums


def test_rows_that_leave_l3_are_read_where_they_lie() -> None:
    machine = machine_for("cpu:x86-64-v3")
    assert any("operand=a" in s for s in default_schedule(narrow(64, 4096), machine).steps)
    steps = default_schedule(narrow(64, 1 << 16), machine).steps
    assert not any("operand=a" in step for step in steps)
