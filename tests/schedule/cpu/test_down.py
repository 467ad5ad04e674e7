"""An A that is stored k x m and near is read where it lies, in slices of k."""

from __future__ import annotations

import pytest

from gemmir import Gemm
from gemmir.check import check
from gemmir.schedule.cpu.classes import plain_class_of
from gemmir.schedule.cpu.down import DOWN
from tests.schedule.cpus import cpu


@pytest.mark.parametrize(
    ("name", "gemm", "holds"),
    [
        ("znver3", Gemm(m=32, n=64, k=512, trans_a=True), True),
        ("znver3", Gemm(m=32, n=64, k=512), False),
        ("znver3", Gemm(m=96, n=256, k=256, trans_a=True), True),
        ("znver3", Gemm(m=97, n=256, k=256, trans_a=True), False),  # rows of B share sets of L1
        ("znver3", Gemm(m=256, n=250, k=256, trans_a=True), True),
        ("znver3", Gemm(m=1000, n=300, k=300, trans_a=True), False),  # larger than L2 twice
        ("znver5", Gemm(m=300, n=300, k=800, trans_a=True), True),
        ("znver5", Gemm(m=304, n=304, k=800, trans_a=True), False),  # rows of B are whole lines
        ("znver5", Gemm(m=304, n=304, k=800, trans_a=True, ldb=305), True),
        ("neoverse-n1", Gemm(m=32, n=64, k=512, trans_a=True), False),
    ],
)
def test_when(name: str, gemm: Gemm, holds: bool) -> None:
    assert (plain_class_of(gemm, cpu(name)) is DOWN) == holds


def test_slices_are_a_kilobyte_of_k() -> None:
    assert list(DOWN.loops(Gemm(m=300, n=300, k=800, trans_a=True), cpu("znver5"))) == [
        "tile{loops=k sizes=200}",
        "tile{loops=m sizes=8 edges=peel}",
        "tile{loops=n sizes=32 edges=peel}",
        "promote{operand=c to=registers}",
    ]


@pytest.mark.parametrize("m", [12, 31])
def test_numbers(m: int) -> None:
    gemm = Gemm(m=m, n=64, k=530, trans_a=True, epilogue="bias", beta=0.5)
    assert plain_class_of(gemm, cpu("znver3")) is DOWN
    check(gemm, target="cpu:znver3").require_ok()
