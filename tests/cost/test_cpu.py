"""The cost of kernels for CPUs, against counts by hand and what holds for every schedule."""

from __future__ import annotations

import pytest

from gemmir.compiler import prepare
from gemmir.cost import Prediction, predict, predict_schedule
from gemmir.gemm import Gemm
from gemmir.ir.context import parse_module
from gemmir.lowering import run_passes

TARGET = "cpu:znver5"

DIRECT = "tile{loops=m,n sizes=8,32},promote{operand=c to=registers},vectorize{with=fma width=16}"


def _predicted(gemm: Gemm, schedule: str | None = None, *, warm: bool = True) -> Prediction:
    job = prepare(gemm, TARGET, schedule)
    return predict_schedule(job.source, job.schedule, job.machine, warm=warm)


def test_operations_are_those_of_the_problem() -> None:
    found = _predicted(Gemm(m=64, n=64, k=64), DIRECT)
    assert found.flops == 2 * 64**3
    assert found.roof_seconds == pytest.approx(64**3 / 32 / 4.1e9)


def test_what_is_computed_twice_counts() -> None:
    """12 columns of a vector of 16 lanes are multiplied for nothing."""
    found = _predicted(Gemm(m=64, n=100, k=64), DIRECT)
    assert found.flops == 2 * 64 * 128 * 64


def test_a_printed_stage_has_the_same_cost() -> None:
    job = prepare(Gemm(m=300, n=200, k=500), TARGET, None)
    module = parse_module(job.source)
    run_passes(module, job.schedule)
    assert predict(parse_module(str(module)), job.machine) == predict(module, job.machine)


def test_cold_caches_fetch_each_matrix_once_at_least() -> None:
    gemm = Gemm(m=256, n=256, k=256)
    found = _predicted(gemm, warm=False)
    assert found.bytes_by_level["l3"] >= gemm.bytes_moved
    assert _predicted(gemm).bytes_by_level["l3"] < 1


def test_a_matrix_that_is_read_again_comes_from_farther_away() -> None:
    """16 rows of A stay in L1 while B goes by; B, of 1 MiB, does not."""
    gemm = Gemm(m=256, n=512, k=512)
    found = _predicted(gemm, DIRECT)
    b_bytes, tiles = 512 * 512 * 4, 256 // 8
    assert found.bytes_by_level["l1"] >= 0.9 * b_bytes * tiles
