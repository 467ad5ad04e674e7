"""Few rows of 16 and 8 bits by a B that is stored n x k are multiplied where B lies."""

from __future__ import annotations

from typing import Any

import pytest

import gemmir
from gemmir import Gemm
from gemmir.bench.operands import make
from gemmir.check import check
from gemmir.machine import machine_for
from gemmir.schedule.default import default_schedule
from gemmir.schedule.prepacked import prepacked_text

BYTES: dict[str, Any] = {"dtype": "u8", "dtype_b": "i8"}


def steps_of(target: str, gemm: Gemm) -> tuple[str, ...]:
    return default_schedule(gemm, machine_for(target), 1).steps


@pytest.mark.parametrize(
    ("target", "dtype", "most"),
    [
        ("cpu:znver5", {"dtype": "f16"}, 16),
        ("cpu:znver5", {"dtype": "bf16"}, 6),
        ("cpu:znver5", BYTES, 2),
        ("cpu:znver5", {"dtype": "i8"}, 2),
        ("cpu:znver3", {"dtype": "bf16"}, 16),
        ("cpu:znver3", BYTES, 2),
    ],
)
def test_how_many_rows(target: str, dtype: dict[str, Any], most: int) -> None:
    for rows in range(1, 20):
        last = steps_of(target, Gemm(m=rows, n=200, k=300, trans_b=True, **dtype))[-1]
        assert ("along=k" in last) == (rows <= most), rows


@pytest.mark.parametrize(
    ("target", "gemm"),
    [
        ("cpu:znver5", Gemm(m=1, n=200, k=300, dtype="bf16")),
        ("cpu:znver5", Gemm(m=1, n=200, k=31, dtype="bf16", trans_b=True)),  # no two vectors
        ("cpu:znver5", Gemm(m=2, n=200, k=300, dtype="i8", trans_a=True, trans_b=True)),
        ("cpu:neoverse-n1", Gemm(m=1, n=200, k=300, dtype="f16", trans_b=True)),
    ],
)
def test_others_do_not(target: str, gemm: Gemm) -> None:
    assert not any("along=k" in step for step in steps_of(target, gemm))


def test_tiles() -> None:
    gemm = Gemm(m=4, n=200, k=300, dtype="bf16", trans_b=True)
    assert steps_of("cpu:znver5", gemm)[:2] == (
        "promote{operand=a to=l2 layout=panel:1 as=f32}",
        "tile{loops=n,m sizes=5,4}",
    )
    assert steps_of("cpu:znver3", gemm)[1] == "tile{loops=n,m sizes=4,2}"


@pytest.mark.parametrize("target", ["cpu:znver5", "cpu:znver3"])
@pytest.mark.parametrize(
    "gemm",
    [
        Gemm(m=3, n=21, k=45, dtype="bf16", out="bf16", trans_b=True, epilogue="bias+relu"),
        Gemm(m=5, n=8, k=70, dtype="f16", trans_a=True, trans_b=True, beta=1.0),
        Gemm(m=2, n=13, k=77, trans_b=True, **BYTES),
        Gemm(m=1, n=9, k=64, dtype="i8", trans_b=True, batch=2),
    ],
)
def test_numbers(gemm: Gemm, target: str) -> None:
    assert any("along=k" in step for step in steps_of(target, gemm))
    check(gemm, target=target).require_ok()


@pytest.mark.parametrize(
    "gemm",
    [
        Gemm(m=3, n=21, k=45, dtype="bf16", trans_b=True),
        Gemm(m=2, n=13, k=77, trans_b=True, **BYTES),
    ],
)
def test_rows_along_k_are_packed_before_the_calls(gemm: Gemm) -> None:
    schedule = default_schedule(gemm, machine_for("cpu:x86-64-v3"), 1)
    first, second, *rest = prepacked_text(schedule).split("\n")
    assert (first, second) == ("promote{operand=b to=l3 layout=panel:1}", "prepack{operand=b}")
    assert rest == list(schedule.steps)
    a, b, _ = (operand.array for operand in make(gemm, 5).by_name.values())
    kernel = gemmir.compile(gemm, target="cpu:x86-64-v3", threads=1)
    assert kernel(a, kernel.prepack(b)).tobytes() == kernel(a, b).tobytes()
