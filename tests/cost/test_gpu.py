"""The cost of kernels for GPUs and TPUs: what is counted in their IR."""

from __future__ import annotations

import pytest

from gemmir.compiler import prepare
from gemmir.cost import Prediction, predict_schedule
from gemmir.gemm import Gemm


def _predicted(gemm: Gemm, target: str) -> Prediction:
    job = prepare(gemm, target, None)
    return predict_schedule(job.source, job.schedule, job.machine)


@pytest.mark.parametrize(
    ("target", "dtype"),
    [("cuda:sm_80", "f32"), ("cuda:sm_80", "bf16"), ("cuda:sm_90a", "bf16"), ("tpu:v5e", "bf16")],
)
def test_operations_are_those_of_the_problem_and_take_their_time(target: str, dtype: str) -> None:
    found = _predicted(Gemm(m=512, n=512, k=512, dtype=dtype), target)
    assert found.flops == 2 * 512**3
    assert found.seconds > found.roof_seconds > 0
    assert found.bound_by in found.seconds_by


def test_blocks_read_their_rows_and_columns_again() -> None:
    """Tiles of 128 x 64: A is read once for each 64 columns, B for each 128 rows."""
    gemm = Gemm(m=1024, n=1024, k=1024, dtype="bf16")
    found = _predicted(gemm, "cuda:sm_80")
    size = 1024 * 1024 * 2
    assert found.bytes_by_level["l2"] == pytest.approx(size * (16 + 8) + 2 * size, rel=0.1)
    assert found.bytes_by_level["dram"] == gemm.bytes_moved


def test_twice_the_work_takes_longer() -> None:
    small, large = (
        _predicted(Gemm(m=4096, n=4096, k=k, dtype="bf16"), "cuda:sm_90a") for k in (2048, 4096)
    )
    assert large.seconds > 1.5 * small.seconds


def test_how_a_tpu_multiplies_is_read_from_the_ir() -> None:
    """bf16x3 is a third of the products of bf16; the elements are f32 of both."""
    one, three = (
        _predicted(Gemm(m=2048, n=2048, k=2048, dtype=dtype), "tpu:v5e").roof_seconds
        for dtype in ("bf16x1", "bf16x3")
    )
    assert three == pytest.approx(3 * one)
