"""swap-operands: the transpose of C, on arrays that stay as they lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from xdsl.dialects import memref
from xdsl.dialects.builtin import ModuleOp

import gemmir
from gemmir import Gemm, Schedule
from gemmir.check import check
from gemmir.errors import ScheduleError
from gemmir.ir.build import build
from gemmir.ir.dialect import EpilogueOp, GemmOp, memref_type, static_strides
from gemmir.ir.loops import gemms
from gemmir.lowering import run_passes
from tests.strategies import examples, problems

After = Callable[[Gemm, str], ModuleOp]

SMALL = Gemm(m=3, n=8, k=5)
SWAP = "swap-operands"


def swapped(gemm: Gemm, times: int = 1) -> ModuleOp:
    module = build(gemm)
    run_passes(module, Schedule.parse(",".join([SWAP] * times)))
    return module


@pytest.mark.parametrize(
    "gemm",
    [
        SMALL,
        Gemm(m=3, n=8, k=5, trans_a=True, trans_b=True, lda=4, ldb=6, ldc=9),
        Gemm(m=3, n=8, k=5, alpha=2, beta=3, epilogue="bias+relu+residual"),
        Gemm(m=3, n=8, k=5, batch=2, batch_stride_b=0, epilogue="bias+residual"),
        Gemm(m=1, n=1, k=1, trans_b=True, epilogue="bias"),
        Gemm(m=0, n=4, k=3),
        Gemm(m=4, n=3, k=0, beta=1),
        Gemm(m=9, n=8, k=7, dtype="bf16", out="bf16", epilogue="bias+gelu"),
        Gemm(m=9, n=8, k=7, dtype="i8", trans_b=True),
    ],
    ids=str,
)
def test_the_meaning_stays(after: After, gemm: Gemm) -> None:
    after(gemm, SWAP)
    batch = ("batch,", "1,") if gemm.batch else ("", "")
    tiles = f"tile{{loops={batch[0]}m,n sizes={batch[1]}4,2}}"
    after(gemm, f"{SWAP},{tiles}" + (",fuse-epilogue" if gemm.steps else ""))


@given(problems())
@examples(0.3)
def test_twice_is_not_at_all(gemm: Gemm) -> None:
    def types(module: ModuleOp) -> list[str]:
        ops = [op for op in module.walk() if isinstance(op, GemmOp | EpilogueOp)]
        return [str(value.type) for op in ops for value in op.operands]

    if 0 not in (gemm.m, gemm.n, gemm.k, gemm.batch):
        assert types(swapped(gemm, 2)) == types(build(gemm))


def test_strides_are_exchanged_and_there_is_one_view_of_each() -> None:
    gemm = replace(SMALL, trans_b=True, epilogue="bias+residual")
    module = swapped(gemm)
    (product,) = gemms(module)
    (epilogue,) = (op for op in module.walk() if isinstance(op, EpilogueOp))
    types = [memref_type(value) for value in (product.a, product.b, product.c)]
    assert [t.get_shape() for t in types] == [(8, 5), (5, 3), (8, 3)]
    assert [static_strides(t) for t in types] == [(5, 1), (1, 5), (1, 8)]
    assert epilogue.output is product.c
    assert [static_strides(memref_type(v)) for v in epilogue.inputs] == [(1, 0), (1, 8)]
    views = [op for op in module.walk() if isinstance(op, memref.ReinterpretCastOp)]
    assert len(views) == 4


@pytest.mark.parametrize("loop", ["m", "n"])
def test_a_part_is_a_window_of_the_transpose(after: After, loop: str) -> None:
    gemm = Gemm(m=7, n=9, k=5, trans_a=True, ldb=11, ldc=10)
    first = "tile{loops=n,m sizes=8,3},promote{operand=c to=registers},vectorize{with=fma width=8}"
    module = after(gemm, f"part{{loop={loop} at=4}},{first},otherwise,{SWAP}")
    (product,) = gemms(module)
    windows = [value.owner for value in (product.a, product.b, product.c)]
    found = [w for w in windows if isinstance(w, memref.SubviewOp)]
    assert len(found) == 2, "of C, and of A or B"
    for window in found:
        assert window.static_offsets.get_values() == ((0, 4) if loop == "m" else (4, 0))
    views = [op for op in module.walk() if isinstance(op, memref.SubviewOp)]
    assert all(view.result.uses for view in views)


def test_rows_that_are_few_become_columns_of_a_kernel() -> None:
    gemm = Gemm(m=3, n=40, k=64, dtype="bf16", trans_b=True, epilogue="bias")
    schedule = (
        f"{SWAP},split-k{{factor=2}},tile{{loops=m,n sizes=16,8 over=blocks}},"
        "tile{loops=m,n sizes=16,8 over=warps},promote{operand=c to=registers},"
        "tile{loops=k sizes=32},promote{operand=a to=shared layout=swizzle:64},"
        "promote{operand=b to=shared layout=swizzle:64},fuse-epilogue,vectorize{with=mma width=8}"
    )
    check(gemm, target="cuda:sm_80", schedule=schedule).require_ok()


@pytest.mark.parametrize(
    "schedule", [f"tile{{loops=m sizes=2}},{SWAP}", f"split-k{{factor=2}},{SWAP}"]
)
def test_only_whole_products(schedule: str) -> None:
    with pytest.raises(ScheduleError, match="make swap-operands the first pass") as found:
        gemmir.lower(Gemm(m=4, n=4, k=64), "cuda:sm_80", schedule)
    assert found.value.code == "GEM1226"
