"""How many rows of A go by weights that are stored n x k where they lie."""

from __future__ import annotations

import pytest

from gemmir import Gemm
from gemmir.check import check
from gemmir.machine import machine_for
from gemmir.schedule.default import default_schedule


def is_along(target: str, gemm: Gemm) -> bool:
    return any("along=k" in p for p in default_schedule(gemm, machine_for(target), 1).steps)


def weights(m: int, dtype_b: str, group: int, k: int = 512) -> Gemm:
    return Gemm(m=m, n=96, k=k, dtype_b=dtype_b, weight_group=group, trans_b=True)


@pytest.mark.parametrize(
    ("target", "dtype_b", "group", "most"),
    [
        ("cpu:znver5", "i4", 16, 1),  # one vector
        ("cpu:znver5", "i4", 32, 4),
        ("cpu:znver5", "i4", 64, 8),
        ("cpu:znver5", "i8", 128, 16),
        ("cpu:znver5", "i8", 512, 16),  # a single group
        ("cpu:znver3", "i4", 16, 1),
        ("cpu:znver3", "i4", 32, 8),
        ("cpu:znver3", "i4", 128, 8),
        ("cpu:znver3", "i8", 128, 16),
    ],
)
def test_how_many_rows(target: str, dtype_b: str, group: int, most: int) -> None:
    found = [m for m in range(1, 20) if is_along(target, weights(m, dtype_b, group))]
    assert found == list(range(1, most + 1))


@pytest.mark.parametrize("target", ["cpu:znver5", "cpu:znver3"])
@pytest.mark.parametrize(
    "gemm", [weights(1, "i4", 16, 40), weights(5, "i8", 64, 64), weights(4, "i4", 32, 80)]
)
def test_numbers(target: str, gemm: Gemm) -> None:
    assert is_along(target, gemm)
    check(gemm, target=target).require_ok()
