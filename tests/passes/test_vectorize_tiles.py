"""vectorize{with=amx}: matrix tiles of bf16 and of bytes, whatever the edges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from xdsl.dialects import memref, scf
from xdsl.dialects.builtin import ModuleOp

from gemmir import Gemm
from gemmir.errors import ScheduleError
from gemmir.ir.amx import TileLoadOp, TileMulFOp, TileMulIOp, TileStoreOp
from gemmir.ir.dialect import EpilogueOp, GemmOp
from tests.strategies import examples
from tests.tile_emulation import problems_in_tiles

After = Callable[[Gemm, str], ModuleOp]

A, B = (
    "promote{operand=a to=l3 layout=panel:32x32}",
    "promote{operand=b to=l2 layout=panel:32x2x32}",
)
C = "tile{loops=m,n sizes=32,32},promote{operand=c to=registers}"
V = "vectorize{with=amx width=8}"
BF16 = Gemm(m=64, n=64, k=64, dtype="bf16")


def count(module: ModuleOp, kind: type) -> int:
    return sum(isinstance(op, kind) for op in module.walk())


def test_four_sums_take_four_loads_of_each_step(after: After) -> None:
    module = after(BF16, f"{A},{B},{C},{V}")
    assert [count(module, kind) for kind in (TileLoadOp, TileMulFOp, TileStoreOp)] == [4, 4, 4]
    assert count(module, GemmOp) == count(module, EpilogueOp) == count(module, memref.AllocaOp) == 0


@pytest.mark.parametrize(
    ("gemm", "buffered"),
    [
        (BF16, 0),
        (replace(BF16, m=63), 4),
        (replace(BF16, beta=1.0), 4),
        (replace(BF16, epilogue="bias"), 4),
    ],
    ids=str,
)
def test_sums_that_are_more_than_c_go_through_a_buffer(
    after: After, gemm: Gemm, buffered: int
) -> None:
    """Where some tiles are clipped, whole ones still go straight to C."""
    fuse = "fuse-epilogue," if gemm.epilogue else ""
    module = after(gemm, f"{A},{B},{C},{fuse}{V}")
    stores = [op for op in module.walk() if isinstance(op, TileStoreOp)]
    to_buffer = [op for op in stores if isinstance(op.target.owner, memref.AllocaOp)]
    assert len(to_buffer) == buffered
    branches = [op for op in module.walk() if isinstance(op, scf.IfOp)]
    assert bool(branches) == (gemm.m == 63)
    assert len(stores) == buffered + 4 * (gemm.m == 63 or not buffered)


def test_bytes_keep_their_signs(after: After) -> None:
    panels = (
        "promote{operand=a to=l3 layout=panel:16x64},promote{operand=b to=l2 layout=panel:16x4x64}"
    )
    gemm = Gemm(m=16, n=16, k=64, dtype="u8", dtype_b="i8")
    module = after(gemm, f"{panels},promote{{operand=c to=registers}},{V}")
    (product,) = [op for op in module.walk() if isinstance(op, TileMulIOp)]
    assert [str(v.type) for v in (product.lhs, product.rhs, product.acc)] == [
        "!amx.tile<16x64xui8>",
        "!amx.tile<16x64xi8>",
        "!amx.tile<16x16xi32>",
    ]


@given(problem=problems_in_tiles())
@examples(0.5)
def test_the_meaning_stays(after: After, problem: tuple[Gemm, str]) -> None:
    after(*problem)


@pytest.mark.parametrize("factor", [2, 3])
def test_k_is_unrolled_by_whole_steps(after: After, factor: int) -> None:
    gemm = Gemm(m=20, n=40, k=200, dtype="bf16", beta=1.0)
    module = after(gemm, f"{A},{B},{C},{V},unroll{{loop=k factor={factor}}}")
    assert count(module, TileMulFOp) == 4 * (factor + 1)


@pytest.mark.parametrize(
    ("gemm", "schedule", "code", "hint"),
    [
        (replace(BF16, dtype="f16"), f"{A},{C},{V}", "GEM1490", "use bf16, i8 or u8"),
        (
            BF16,
            "promote{operand=a to=l3 layout=panel:32x2},"
            f"promote{{operand=b to=l2 layout=panel:32x2x32}},{C},{V}",
            "GEM1491",
            "promote a with layout=panel:32x32",
        ),
        (
            BF16,
            f"{A},promote{{operand=b to=l2 layout=panel:32x2}},{C},{V}",
            "GEM1491",
            "promote b with layout=panel:32x2x32",
        ),
        (BF16, f"{A},{C},{V}", "GEM1491", "promote b with layout=panel:32x2x32"),
        (BF16, f"{A},{B},{V}", "GEM0372", "promote{operand=c to=registers}"),
        (
            BF16,
            f"{A},{B},{C},tile{{loops=k sizes=32}},promote{{operand=c to=registers}},{V}",
            "GEM1492",
            "promote c once",
        ),
        (
            BF16,
            f"{A},{B},tile{{loops=m,n sizes=64,32}},promote{{operand=c to=registers}},{V}",
            "GEM0373",
            "tile m by 32",
        ),
        (BF16, f"{A},promote{{operand=b to=l2 layout=panel:32x2x3}},{C},{V}", "GEM1322", "x2x2"),
    ],
)
def test_what_tiles_do_not_take(
    after: After, gemm: Gemm, schedule: str, code: str, hint: str
) -> None:
    with pytest.raises(ScheduleError, match=code) as error:
        after(gemm, schedule)
    assert hint in error.value.hint
