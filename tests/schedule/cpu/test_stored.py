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
    ("target", "dtype", "k", "most"),
    [
        ("cpu:znver5", {"dtype": "f16"}, 300, 16),
        ("cpu:znver5", {"dtype": "bf16"}, 300, 60),
        ("cpu:znver5", BYTES, 300, 18),
        ("cpu:znver5", {"dtype": "i8"}, 300, 18),
        ("cpu:znver5", {"dtype": "i8", "trans_a": True}, 300, 18),
        ("cpu:znver3", {"dtype": "bf16"}, 300, 16),
        ("cpu:znver3", BYTES, 300, 9),  # the last vector is not whole
        ("cpu:znver3", BYTES, 160, 20),
        ("cpu:znver3", BYTES, 320, 32),
        ("cpu:znver5", BYTES, 65536, 8),  # what L2 keeps
        ("cpu:znver5", BYTES, 300000, 4),
    ],
)
def test_how_many_rows(target: str, dtype: dict[str, Any], k: int, most: int) -> None:
    for rows in (1, most, most + 1):
        steps = steps_of(target, Gemm(m=rows, n=200, k=k, trans_b=True, **dtype))
        assert any("along=k" in step for step in steps) == (rows <= most), rows


@pytest.mark.parametrize(
    ("target", "gemm"),
    [
        ("cpu:znver5", Gemm(m=1, n=200, k=300, dtype="bf16")),
        ("cpu:znver5", Gemm(m=1, n=200, k=31, dtype="f16", trans_b=True)),  # no two vectors
        ("cpu:znver5", Gemm(m=1, n=200, k=15, trans_b=True, **BYTES)),
        ("cpu:znver5", Gemm(m=1, n=200, k=2**24, trans_b=True, **BYTES)),  # no room for A
        ("cpu:neoverse-n1", Gemm(m=1, n=200, k=300, dtype="f16", trans_b=True)),
    ],
)
def test_others_do_not(target: str, gemm: Gemm) -> None:
    assert not any("along=k" in step for step in steps_of(target, gemm))


def test_tiles() -> None:
    gemm = Gemm(m=4, n=200, k=300, dtype="bf16", trans_b=True)
    assert steps_of("cpu:znver5", gemm) == (
        "promote{operand=a to=l2 layout=panel:1}",
        "tile{loops=n,m sizes=5,4}",
        "promote{operand=c to=registers}",
        "vectorize{with=dot width=16 along=k}",
    )
    assert steps_of("cpu:znver3", gemm) == (
        "promote{operand=a to=l2 layout=panel:1 as=f32}",
        "tile{loops=n,m sizes=2,4}",
        "promote{operand=c to=registers}",
        "vectorize{with=fma width=8 along=k}",
    )
    as_words = steps_of("cpu:znver3", Gemm(m=4, n=200, k=320, trans_b=True, **BYTES))
    assert as_words[0] == "promote{operand=a to=l2 layout=panel:1 as=i16}"
    assert as_words[-1] == "vectorize{with=dot width=8 along=k}"


@pytest.mark.parametrize(
    ("gemm", "asks"),
    [
        (Gemm(m=4, n=4096, k=4096, trans_b=True, **BYTES), True),
        (Gemm(m=4, n=1024, k=1024, trans_b=True, **BYTES), False),  # near
        (Gemm(m=4, n=4096, k=4100, trans_b=True, **BYTES), False),  # no whole lines
        (Gemm(m=4, n=4096, k=65536, trans_b=True, **BYTES), False),  # no room in L2
        (Gemm(m=4, n=4096, k=4096, dtype="f16", trans_b=True), True),
    ],
)
def test_rows_from_afar_are_asked_for(gemm: Gemm, *, asks: bool) -> None:
    steps = steps_of("cpu:znver5", gemm)
    assert ("prefetch{operand=b loop=n ahead=1 to=l2 during=k}" in steps) == asks


@pytest.mark.parametrize("target", ["cpu:znver5", "cpu:znver3"])
@pytest.mark.parametrize(
    "gemm",
    [
        Gemm(m=3, n=21, k=45, dtype="bf16", out="bf16", trans_b=True, epilogue="bias+relu"),
        Gemm(m=5, n=8, k=70, dtype="f16", trans_a=True, trans_b=True, beta=1.0),
        Gemm(m=2, n=13, k=77, trans_b=True, **BYTES),
        Gemm(m=1, n=9, k=64, dtype="i8", trans_b=True, batch=2),
        Gemm(m=3, n=9, k=96, dtype="i8", trans_a=True, trans_b=True, beta=1.0),
        Gemm(m=2, n=7, k=200, dtype="u8", trans_b=True),
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
    first, second, *rest = prepacked_text(schedule, gemm.n).split("\n")
    assert (first, second) == ("promote{operand=b to=l3 layout=panel:1}", "prepack{operand=b}")
    assert rest == list(schedule.steps)
    a, b, _ = (operand.array for operand in make(gemm, 5).by_name.values())
    kernel = gemmir.compile(gemm, target="cpu:x86-64-v3", threads=1)
    assert kernel(a, kernel.prepack(b)).tobytes() == kernel(a, b).tobytes()
