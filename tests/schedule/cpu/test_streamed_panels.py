"""Few rows by a long B of narrow elements meet pieces of it, and a narrow C is summed near."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import ml_dtypes
import numpy as np
import pytest

import gemmir
from gemmir import Gemm
from gemmir.schedule.cpu.classes import MIXED
from gemmir.schedule.default import default_schedule
from tests.schedule.cpus import cpu

BF16: Final[dict[str, Any]] = {"dtype": "bf16"}
F16: Final[dict[str, Any]] = {"dtype": "f16"}
BYTES: Final[dict[str, Any]] = {"dtype": "u8", "dtype_b": "i8"}
SIGNED: Final[dict[str, Any]] = {"dtype": "i8"}

NUMPY: Final[dict[str, Any]] = {
    "bf16": ml_dtypes.bfloat16,
    "f16": np.float16,
    "i8": np.int8,
    "u8": np.uint8,
    "i32": np.int32,
}


def layer(m: int, kind: dict[str, Any]) -> Gemm:
    return Gemm(m=m, n=4096, k=4096, **kind)


def class_name(gemm: Gemm, name: str = "znver4") -> str:
    return next(found.name for found, holds in MIXED if holds(gemm, cpu(name)))


@pytest.mark.parametrize(
    ("name", "kind", "least", "most"),
    [
        ("znver4", BF16, 3, 64),
        ("znver4", F16, 5, 64),
        ("znver4", BYTES, 3, 32),
        ("znver4", SIGNED, 3, 8),
        ("znver3", BF16, 5, 64),
        ("znver3", SIGNED, 3, 32),
    ],
    ids=str,
)
def test_so_many_rows(name: str, kind: dict[str, Any], least: int, most: int) -> None:
    for m, inside in ((least - 1, False), (least, True), (most, True), (most + 1, False)):
        assert (class_name(layer(m, kind), name) == "streamed panels") == inside, m


@pytest.mark.parametrize(
    "gemm",
    [
        Gemm(m=16, n=1000, k=1000, **BF16),
        Gemm(m=16, n=256, k=65536, **BF16),
        Gemm(m=16, n=40000, k=128, **BF16),
        Gemm(m=16, n=131072, k=512, **BYTES),
        Gemm(m=20, n=4096, k=4096, trans_b=True, **F16),
    ],
    ids=["near", "short rows", "short sums", "rows in few sets of L2", "stored n x k"],
)
def test_other_problems_are_of_other_classes(gemm: Gemm) -> None:
    assert class_name(gemm) == "in panels"


def test_other_cpus_keep_blocks() -> None:
    assert class_name(layer(8, BF16), "neoverse-v1") == "in panels"


def test_pieces_come_in_the_order_of_rows() -> None:
    found = default_schedule(layer(16, {**BF16, "out": "bf16"}), cpu("znver4"), 1)
    assert found.steps[:7] == (
        "promote{operand=a to=l2 layout=panel:8x2}",
        "promote{operand=c to=l2 layout=panel:128}",
        "tile{loops=k sizes=32}",
        "tile{loops=n sizes=128}",
        "promote{operand=b to=l1 layout=panel:32x2}",
        "tile{loops=m,n sizes=8,32}",
        "prefetch{operand=b loop=n ahead=2 to=l2 during=m,n}",
    )


@pytest.mark.parametrize("kind", [BF16, F16], ids=str)
def test_the_fewest_rows_sum_a_narrow_c_in_a_cache(kind: dict[str, Any]) -> None:
    wide = layer(1, kind)
    narrow = replace(wide, out=kind["dtype"])
    near = replace(narrow, n=256)
    assert class_name(narrow) == class_name(wide) == "widened"
    for gemm, inside in ((narrow, True), (wide, False), (near, False)):
        steps = default_schedule(gemm, cpu("znver4"), 1).steps
        assert any("operand=c to=l2" in step for step in steps) == inside, gemm
    assert "tile{loops=k sizes=8}" in default_schedule(narrow, cpu("znver4"), 1).steps
    assert "unroll{loop=k factor=8}" in default_schedule(narrow, cpu("znver4"), 1).steps


@pytest.mark.parametrize(
    "gemm",
    [
        Gemm(m=5, n=4100, k=520, dtype="bf16", out="bf16"),
        Gemm(m=2, n=4100, k=515, dtype="f16", out="f16", trans_a=True),
        Gemm(m=9, n=4300, k=1001, dtype="u8", dtype_b="i8"),
        Gemm(m=4, n=4300, k=1001, dtype="i8", trans_a=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("target", ["cpu", "cpu:x86-64-v3"])
def test_small_integers_are_multiplied_exactly(gemm: Gemm, target: str) -> None:
    kernel = gemmir.compile(gemm, target=target)
    random = np.random.default_rng(0)
    shape = (gemm.k, gemm.m) if gemm.trans_a else (gemm.m, gemm.k)
    a, b = random.integers(0, 5, shape), random.integers(-4, 5, (gemm.k, gemm.n))
    result = kernel(a.astype(NUMPY[gemm.element.name]), b.astype(NUMPY[gemm.element_b.name]))
    exact = ((a.T if gemm.trans_a else a) @ b).astype(NUMPY[gemm.result.name])
    np.testing.assert_array_equal(result, exact)
