"""vectorize with=mxu: whole blocks are multiplied, summed and stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from xdsl.dialects import arith, scf, vector
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from gemmir import Gemm
from gemmir.errors import ScheduleError
from gemmir.ir.dialect import EpilogueOp, GemmOp
from gemmir.ir.loops import dimension_of
from gemmir.ir.pallas import CallOp, DotOp
from gemmir.ir.views import chain

After = Callable[[Gemm, str], ModuleOp]
Kind = TypeVar("Kind", bound=Operation)

GRID = "tile{loops=m,n sizes=16,32 over=grid},promote{operand=c to=vmem}"
AB = "promote{operand=a to=vmem},promote{operand=b to=vmem}"
F = "fuse-epilogue"
BY_N = "pipeline{loop=n stages=2 with=dma}"
BY_K = "pipeline{loop=k stages=2 with=dma}"
MXU = "vectorize{with=mxu}"
K = "tile{loops=k sizes=16}"


def bf16(m: int = 40, n: int = 48, k: int = 56, **fields: Any) -> Gemm:
    return Gemm(m=m, n=n, k=k, dtype="bf16", **fields)


def full(inside: str = "", epilogue: str = "") -> str:
    """All of k at once, and `inside` a step."""
    return ",".join(step for step in (GRID, AB, epilogue, BY_N, inside, MXU) if step)


def sliced(inside: str = "", epilogue: str = "") -> str:
    """A loop over k, and `inside` a step."""
    return ",".join(step for step in (GRID, K, AB, epilogue, BY_K, inside, MXU) if step)


def ops(module: ModuleOp, kind: type[Kind]) -> list[Kind]:
    return [op for op in module.walk() if isinstance(op, kind)]


def test_a_step_is_one_product_of_whole_blocks(after: After) -> None:
    module = after(bf16(), full())
    (dot,) = ops(module, DotOp)
    assert [str(v.type) for v in (dot.lhs, dot.rhs, dot.result)] == [
        "vector<16x56xbf16>",
        "vector<56x32xbf16>",
        "vector<16x32xf32>",
    ]
    assert not ops(module, GemmOp)
    assert not ops(module, EpilogueOp)


def test_what_is_summed_once_is_not_stored_in_between(after: After) -> None:
    module = after(bf16(epilogue="relu", out="bf16"), full(epilogue=F))
    (call,) = ops(module, CallOp)
    assert list(call.scratch) == []
    assert len(ops(module, vector.TransferWriteOp)) == 1
    assert len(ops(module, vector.TransferReadOp)) == 2


def test_a_loop_over_k_sums_in_scratch_from_zero(after: After) -> None:
    module = after(bf16(k=64), sliced())
    (call,) = ops(module, CallOp)
    (acc,) = call.scratch
    (start,) = ops(module, arith.SelectOp)
    assert isinstance(start.cond.owner, arith.CmpiOp)
    into = [op for op in ops(module, vector.TransferWriteOp) if op.source is acc]
    assert len(into) == 1
    (last,) = ops(module, scf.IfOp)
    assert last.parent_op() is call


def in_bounds(module: ModuleOp) -> list[list[bool]]:
    """For the two operands of the product, whether all of each dimension is read."""
    (dot,) = ops(module, DotOp)
    reads = [v.owner for v in (dot.lhs, dot.rhs)]
    assert all(isinstance(op, vector.TransferReadOp) for op in reads)
    return [
        [bool(flag.value.data) for flag in op.in_bounds.data]
        for op in reads
        if isinstance(op, vector.TransferReadOp)
    ]


def test_both_operands_are_masked_along_k_only_where_a_slice_is_shorter(after: After) -> None:
    whole = [[True, True], [True, True]]
    assert in_bounds(after(bf16(k=56), sliced())) == [[True, False], [False, True]]
    assert in_bounds(after(bf16(k=64), sliced())) == whole
    assert in_bounds(after(bf16(m=41, n=49, k=57), full())) == whole


def test_a_loop_inside_a_step_stays_a_loop(after: After) -> None:
    module = after(bf16(), full("tile{loops=m sizes=8}"))
    (loop,) = ops(module, scf.ForOp)
    assert dimension_of(loop) == "m"
    (dot,) = ops(module, DotOp)
    assert str(dot.lhs.type) == "vector<8x56xbf16>"
    assert dot.parent_op() is loop


@pytest.mark.parametrize(
    "inside",
    [
        "tile{loops=m sizes=8}",
        "tile{loops=n sizes=8}",
        "tile{loops=k sizes=8}",
        "tile{loops=k,n,m sizes=8,16,4}",
        "tile{loops=m sizes=6 edges=peel}",
        "tile{loops=m,n sizes=5,7 edges=peel}",
        "tile{loops=m,n sizes=8,16},interchange{order=n,m}",
    ],
)
@pytest.mark.parametrize("make", [full, sliced])
def test_meaning_of_loops_inside_a_step(
    after: After, inside: str, make: Callable[[str, str], str]
) -> None:
    gemm = bf16(beta=0.5, epilogue="bias+gelu", trans_a=True)
    after(gemm, make(inside, F))


PARTS = (
    f"tile{{loops=m,n sizes=16,32 over=grid}},{AB},{F},{BY_N},tile{{loops=n,m sizes=16,8}},"
    f"promote{{operand=c to=vmem}},{F},{MXU}"
)
"""C is promoted behind pipeline, in the loops inside a step, and the epilogue fused twice."""


def test_parts_of_c_are_stored_straight_into_its_block(after: After) -> None:
    module = after(bf16(epilogue="bias+relu", out="bf16"), PARTS)
    (call,) = ops(module, CallOp)
    assert list(call.scratch) == []
    loops = ops(module, scf.ForOp)
    assert [dimension_of(loop) for loop in loops] == ["n", "m"]
    (write,) = ops(module, vector.TransferWriteOp)
    assert chain(write.source)[0] is call.references[-1]
    assert str(write.vector.type) == "vector<8x16xbf16>"
    assert write.parent_op() is loops[1]


@pytest.mark.parametrize("epilogue", ["bias", "gelu+residual", "relu+bias+residual"])
@pytest.mark.parametrize(("m", "n"), [(16, 32), (40, 48), (17, 33), (1, 1)])
def test_meaning_of_parts(after: After, epilogue: str, m: int, n: int) -> None:
    after(bf16(m, n, epilogue=epilogue, alpha=2.0, trans_b=True), PARTS)


@pytest.mark.parametrize("dtype", ["f32", "bf16", "bf16x1", "bf16x3", "i8", "e4m3", "e5m2"])
def test_meaning_of_every_type(after: After, dtype: str) -> None:
    gemm = Gemm(m=21, n=34, k=30, dtype=dtype, beta=1, epilogue="bias+relu")
    after(gemm, full(epilogue=F))
    after(gemm, sliced(epilogue=F))


@pytest.mark.parametrize("dtype", ["bf16x1", "bf16x3"])
def test_a_product_says_how_its_factors_are_rounded(after: After, dtype: str) -> None:
    (dot,) = ops(after(Gemm(m=16, n=32, k=8, dtype=dtype), full()), DotOp)
    assert dot.precision is not None
    assert str(dot.precision) == f"#gemmir.precision<{dtype}>"
    (plain,) = ops(after(Gemm(m=16, n=32, k=8), full()), DotOp)
    assert plain.precision is None


@pytest.mark.parametrize("epilogue", ["", "bias", "gelu", "silu+residual", "relu+bias+residual"])
@pytest.mark.parametrize("out", ["bf16", "f32"])
def test_meaning_of_epilogues(after: After, epilogue: str, out: str) -> None:
    for make in (full, sliced):
        after(bf16(epilogue=epilogue, out=out, alpha=2.0), make(epilogue=F if epilogue else ""))


def test_no_products_where_k_is_0(after: After) -> None:
    assert not ops(after(bf16(k=0, beta=2.0, epilogue="bias"), full(epilogue=F)), DotOp)


@pytest.mark.parametrize(
    ("schedule", "code", "words"),
    [
        (full().replace("mxu", "mxu width=8"), "GEM0365", "leave width out"),
        (full().replace("mxu", "mxu shape=16,32,56"), "GEM0365", "leave shape out"),
        (f"{GRID},{AB},{MXU}", "GEM0366", "put pipeline"),
        (f"{GRID},{AB},{BY_N},{MXU}", "GEM0367", "put fuse-epilogue before pipeline"),
        (full("tile{loops=m sizes=6}", F), "GEM0368", "or edges=peel"),
        (full("tile{loops=n sizes=24}", F), "GEM0368", "differ in size"),
        (full("tile{loops=k sizes=12}", F), "GEM0368", "parts of 12 along k goes beyond a block"),
        (sliced("tile{loops=k sizes=12}", F), "GEM0368", "use a size of k that divides 16"),
        (f"{full(epilogue=F)},{MXU}", "GEM0301", "no gemmir.gemm"),
        (f"{full(epilogue=F).replace('mxu', 'fma width=8')}", "GEM0372", "not in registers"),
    ],
)
def test_errors(after: After, schedule: str, code: str, words: str) -> None:
    with pytest.raises(ScheduleError, match=words) as found:
        after(bf16(epilogue="relu"), schedule)
    assert found.value.code == code
