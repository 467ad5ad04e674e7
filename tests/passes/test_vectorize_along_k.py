"""vectorize along=k: a vector for each element of C, whose lanes are added at the end."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp

import gemmir
from gemmir.check import check
from gemmir.errors import ScheduleError
from gemmir.gemm import Gemm
from gemmir.ir.attributes import PanelAttr
from gemmir.ir.dialect import LaneSumOp, PackOp, PairProductOp, memref_type
from tests.strategies import examples

After = Callable[[Gemm, str], ModuleOp]

C = "promote{operand=c to=registers}"


@st.composite
def thin(draw: st.DrawFn) -> tuple[Gemm, str]:
    """Problems of any layout, what is not adjacent along k copied, and k in slices or not."""
    gemm = Gemm(
        m=draw(st.integers(1, 9)),
        n=draw(st.integers(1, 9)),
        k=draw(st.integers(1, 70)),
        dtype=draw(st.sampled_from(["f32", "f64"])),
        alpha=draw(st.sampled_from([1.0, -0.5])),
        beta=draw(st.sampled_from([0.0, 0.3])),
        trans_a=draw(st.booleans()),
        trans_b=draw(st.booleans()),
        epilogue=draw(st.sampled_from(["", "bias+relu"])),
    )
    before = draw(st.booleans())
    behind = draw(st.booleans())
    slices = f"tile{{loops=k sizes={draw(st.integers(1, 40))}}}"
    steps = [
        *([slices] if before else []),
        *(["promote{operand=a to=l2 layout=panel:1}"] if gemm.trans_a else []),
        *([] if gemm.trans_b else ["promote{operand=b to=l2 layout=panel:1}"]),
        *(["tile{loops=m,n sizes=3,2}"] if draw(st.booleans()) or gemm.m * gemm.n > 6 else []),
        C,
        *([slices] if behind and not before else []),
        *(["fuse-epilogue"] if gemm.steps and draw(st.booleans()) else []),
        f"vectorize{{with=fma width={draw(st.sampled_from([2, 4]))} along=k}}",
    ]
    return gemm, ",".join(steps)


@given(thin())
@examples(0.5)
def test_the_meaning_stays(drawn: tuple[Gemm, str]) -> None:
    gemm, schedule = drawn
    check(gemm, target="cpu:x86-64-v3", schedule=schedule).require_ok()


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("k", [32, 40, 45, 64])
def test_an_unrolled_step_is_a_vector(after: After, k: int, factor: int) -> None:
    gemm = Gemm(m=3, n=2, k=k, trans_b=True)
    vectors = "vectorize{with=fma width=8 along=k}"
    module = after(gemm, f"{C},{vectors},unroll{{loop=k factor={factor}}}")
    assert sum(isinstance(op, PairProductOp) for op in module.walk()) >= factor


def test_lanes_are_added_once_behind_all_slices(after: After) -> None:
    gemm = Gemm(m=3, n=2, k=40, trans_b=True)
    vectors = "vectorize{with=fma width=8 along=k}"
    module = after(gemm, f"{C},tile{{loops=k sizes=16}},{vectors}")
    (op,) = [op for op in module.walk() if isinstance(op, LaneSumOp)]
    parent = op.parent_op()
    assert parent is not None and parent.name == "func.func"


def test_columns_that_would_lie_a_page_apart_get_a_line_between_them(after: After) -> None:
    for k, apart in ((1000, 1000), (1024, 1040)):
        module = after(Gemm(m=1, n=3, k=k), "promote{operand=b to=l2 layout=panel:1}")
        (pack,) = [op for op in module.walk() if isinstance(op, PackOp)]
        assert memref_type(pack.target).layout == PanelAttr(1, 1, apart)


def test_rows_have_the_same_bits_however_many_there_are() -> None:
    generator = np.random.default_rng(0)
    a = generator.standard_normal((9, 333)).astype(np.float32)
    b = generator.standard_normal((7, 333)).astype(np.float32)
    schedule = f"tile{{loops=m,n sizes=2,3}},{C},vectorize{{with=fma width=8 along=k}}"
    results = [
        gemmir.lower(Gemm(m=m, n=7, k=333, trans_b=True), "cpu:x86-64-v3", schedule).compile()(
            a[:m], b
        )
        for m in (1, 2, 5, 9)
    ]
    for result in results:
        assert np.array_equal(result, results[-1][: len(result)])


def test_what_is_not_adjacent_along_k_is_refused() -> None:
    gemm = Gemm(m=2, n=2, k=40, trans_a=True, trans_b=True)
    with pytest.raises(ScheduleError, match="a is not adjacent along k") as found:
        gemmir.lower(gemm, "cpu:x86-64-v3", f"{C},vectorize{{with=fma width=8 along=k}}")
    assert found.value.code == "GEM1316"
