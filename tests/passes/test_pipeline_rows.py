"""pipeline with the TMA: of an A with few rows those are copied, and no others."""

from __future__ import annotations

import pytest

from gemmir import Gemm
from gemmir.check import check
from gemmir.ir.build import build
from gemmir.ir.tma import ArriveExpectOp, TmaLoadOp, box_of
from gemmir.lowering import run_passes
from gemmir.schedule import Schedule

SCHEDULE = (
    "tile{loops=m,n sizes=64,32 over=blocks},tile{loops=m sizes=64 over=warpgroups},"
    "promote{operand=c to=registers},tile{loops=k sizes=64},"
    "promote{operand=a to=shared layout=swizzle:128},"
    "promote{operand=b to=shared layout=swizzle:128},"
    "pipeline{loop=k stages=3 with=tma specialize=true},vectorize{with=wgmma}"
)


def problem(m: int, *, trans_a: bool = False) -> Gemm:
    lda = 64 if trans_a else 256
    return Gemm(m=m, n=72, k=256, dtype="bf16", trans_a=trans_a, lda=lda, trans_b=True)


@pytest.mark.parametrize(
    ("m", "rows", "trans_a"), [(3, 3, False), (40, 40, False), (64, 64, False), (3, 64, True)]
)
def test_rows_that_are_not_there_are_not_copied(m: int, rows: int, trans_a: bool) -> None:
    """But of an A that lies along m a whole panel is."""
    module = build(problem(m, trans_a=trans_a))
    run_passes(module, Schedule.parse(SCHEDULE))
    first = next(op for op in module.walk() if isinstance(op, TmaLoadOp))
    assert box_of(first.descriptor).get_shape() == (rows, 64)
    expected = next(op for op in module.walk() if isinstance(op, ArriveExpectOp))
    assert expected.bytes.value.data == (rows + 32) * 64 * 2


@pytest.mark.parametrize("m", [1, 16, 40])
def test_sums_of_rows_that_are_not_there_are_not_stored(m: int) -> None:
    check(problem(m), target="cuda:sm_90a", schedule=SCHEDULE).require_ok()
