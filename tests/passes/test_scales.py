"""Scales of blocks, and sums in two levels: every pass keeps what they mean."""

from collections.abc import Callable
from typing import Final

import hypothesis.strategies as st
import pytest
from hypothesis import given
from xdsl.dialects import memref
from xdsl.dialects.builtin import ModuleOp

from gemmir import Gemm
from gemmir.errors import ScheduleError
from gemmir.ir.dialect import EpilogueOp, GemmOp
from gemmir.ir.warpgroup import WarpgroupWaitOp
from tests.strategies import examples

After = Callable[[Gemm, str], ModuleOp]

SCALED: Final = Gemm(m=13, n=37, k=45, scale_block=16)
SUM: Final = "promote{operand=c to=registers}"
FMA: Final = "vectorize{with=fma width=8}"


@st.composite
def cases(draw: st.DrawFn) -> tuple[Gemm, str]:
    """Problems with and without scales, and tiles that lie in blocks as they must."""
    gemm = Gemm(
        m=draw(st.integers(1, 40)),
        n=draw(st.integers(1, 70)),
        k=draw(st.integers(1, 70)),
        trans_a=draw(st.booleans()),
        trans_b=draw(st.booleans()),
        alpha=draw(st.sampled_from([1.0, 2.0])),
        beta=draw(st.sampled_from([0.0, 3.0])),
        scale_block=draw(st.sampled_from([None, 16, 32])),
        epilogue=draw(st.sampled_from(["", "bias+relu"])),
    )
    rows, columns = draw(st.integers(1, 9)), draw(st.sampled_from([4, 8, 16]))
    depth = draw(st.sampled_from([8, 16]))
    steps: list[str] = []
    if draw(st.booleans()):
        steps.append(f"tile{{loops=n sizes={draw(st.sampled_from([16, 32, 64]))}}}")
    edges = draw(st.sampled_from(["", " edges=peel"]))
    peel = "" if steps else edges
    steps.append(f"tile{{loops=m,n sizes={rows},{columns}{peel}}}")
    is_inside = gemm.scale_block is None or gemm.k <= gemm.scale_block
    if draw(st.booleans()):
        steps += [f"tile{{loops=k sizes={depth}}}", SUM]
    elif is_inside and draw(st.booleans()):
        steps.append(SUM)
        if gemm.scale_block is not None and gemm.n > gemm.scale_block >= gemm.k:
            steps.append(f"tile{{loops=k sizes={depth}}}")
    else:
        steps += [SUM, f"tile{{loops=k sizes={depth}}}", SUM]
    if gemm.epilogue:
        steps.append("fuse-epilogue")
    return gemm, ",".join([*steps, FMA])


@given(cases())
@examples(0.5)
def test_drawn_schedules(after: After, case: tuple[Gemm, str]) -> None:
    after(*case)


def test_a_sum_of_one_block_is_scaled_when_it_is_written_back(after: After) -> None:
    module = after(SCALED, f"tile{{loops=m,n,k sizes=6,16,16}},{SUM}")
    (gemm,) = [op for op in module.walk() if isinstance(op, GemmOp)]
    assert not gemm.scales and gemm.depth is None
    writes = [op for op in module.walk() if isinstance(op, EpilogueOp)]
    assert [len(op.inputs) for op in writes] == [3, 3]


def test_a_running_sum_is_carried_in_vectors(after: After) -> None:
    schedule = f"tile{{loops=m,n sizes=6,8}},{SUM},tile{{loops=k sizes=16}},{SUM},{FMA}"
    module = after(SCALED, schedule)
    assert not [op for op in module.walk() if isinstance(op, memref.AllocaOp)]
    assert "math.fma" in str(module)


@pytest.mark.parametrize("scale_block", [None, 128])
@pytest.mark.parametrize(("m", "n", "k"), [(128, 64, 256), (200, 136, 272)])
def test_a_warpgroup_sums_each_slice_for_itself(
    after: After, m: int, n: int, k: int, scale_block: int | None
) -> None:
    gemm = Gemm(
        m=m,
        n=n,
        k=k,
        dtype="e4m3",
        out="f32",
        trans_b=True,
        scale_block=scale_block,
        epilogue="bias",
    )
    module = after(
        gemm,
        "tile{loops=m,n sizes=128,64 over=blocks},tile{loops=m sizes=64 over=warpgroups},"
        f"{SUM},tile{{loops=k sizes=128}},{SUM},promote{{operand=a to=shared layout=swizzle:128}},"
        "promote{operand=b to=shared layout=swizzle:128},fuse-epilogue,"
        "promote{operand=c to=shared layout=swizzle:128},"
        "pipeline{loop=k stages=2 with=tma specialize=true},vectorize{with=wgmma}",
    )
    waits = [op for op in module.walk() if isinstance(op, WarpgroupWaitOp)]
    assert [op.groups.value.data for op in waits] == [0]


@pytest.mark.parametrize(
    ("code", "schedule"),
    [
        ("GEM1287", "tile{loops=k sizes=24}"),
        ("GEM1287", "tile{loops=n sizes=16 edges=overlap}"),
        ("GEM1288", "swap-operands"),
        ("GEM1288", f"tile{{loops=m,n sizes=6,8}},{SUM},{FMA}"),
        ("GEM1289", "tile{loops=m,n sizes=6,16 over=grid},promote{operand=c to=vmem}"),
        ("GEM0335", f"tile{{loops=m,n sizes=6,8}},{SUM},{SUM}"),
        (
            "GEM0337",
            f"tile{{loops=m,n sizes=6,8}},{SUM},tile{{loops=k sizes=16}},"
            "promote{operand=c to=registers prefetch=true}",
        ),
    ],
)
def test_what_is_refused(after: After, code: str, schedule: str) -> None:
    with pytest.raises(ScheduleError) as raised:
        after(SCALED, schedule)
    assert raised.value.code == code
    assert raised.value.hint
