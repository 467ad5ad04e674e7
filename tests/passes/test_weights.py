"""Weights: every pass keeps what they mean, wherever they are made numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import hypothesis.strategies as st
import pytest
from hypothesis import given
from xdsl.dialects import arith
from xdsl.dialects.builtin import DenseIntOrFPElementsAttr, ModuleOp

import gemmir
from gemmir import Gemm
from gemmir.check import check
from gemmir.ir.dialect import ExtendOp, GemmOp, PackOp
from tests.strategies import examples

After = Callable[[Gemm, str], ModuleOp]

SUM: Final = "promote{operand=c to=registers}"
WEIGHTS: Final = Gemm(m=5, n=38, k=44, dtype_b="i4", weight_group=16)


@st.composite
def problems(draw: st.DrawFn) -> Gemm:
    """Weights of both types, stored either way, with groups that divide k or do not."""
    dtype_b = draw(st.sampled_from(["i4", "i8"]))
    trans_b = draw(st.booleans())
    n, k = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    if dtype_b == "i4":
        n, k = (n, k + k % 2) if trans_b else (n + n % 2, k)
    gemm = Gemm(
        m=draw(st.integers(1, 20)),
        n=n,
        k=k,
        trans_a=draw(st.booleans()),
        trans_b=trans_b,
        alpha=draw(st.sampled_from([1.0, -0.5])),
        beta=draw(st.sampled_from([0.0, 3.0])),
        epilogue=draw(st.sampled_from(["", "bias+relu"])),
        dtype_b=dtype_b,
        weight_group=draw(st.sampled_from([2, 4, 16, 32, 128])),
        ldb=draw(st.sampled_from([None, 80])),
    )
    return gemm


@st.composite
def cases(draw: st.DrawFn, *, fits: bool = False) -> tuple[Gemm, str]:
    """Schedules that convert where B is read, in one level of sums or two, or on the way to L2.

    Those that must fit a machine have tiles for 16 registers of 8 lanes.
    """
    gemm = draw(problems())
    group = gemm.weight_group
    assert group is not None
    depths = [s for s in (2, 4, 16, 32, 64, 128) if s % group == 0 or group % s == 0]
    depth = draw(st.sampled_from(depths))
    slice_ = f"tile{{loops=k sizes={depth if depth <= group else group}}}"
    rows = draw(st.integers(1, 3 if fits else 6))
    columns = 16 if fits else draw(st.sampled_from([4, 16, 24]))
    edges = draw(st.sampled_from(["", " edges=peel"]))
    tiles = f"tile{{loops=n,m sizes={columns},{rows}{edges}}}"
    pack = f"promote{{operand=b to=l2 layout=panel:{columns} as=f32}}"
    if draw(st.booleans()) or (gemm.dtype_b == "i4" and gemm.trans_b):
        steps = [f"tile{{loops=k sizes={depth}}}", pack, tiles.replace(" edges=peel", ""), SUM]
    elif draw(st.booleans()):
        steps = [slice_, tiles, SUM]
    elif gemm.k > (depth if depth <= group else group):
        steps = [tiles, SUM, slice_, SUM]
    else:
        steps = [tiles, SUM]
    if gemm.epilogue:
        steps.append("fuse-epilogue")
    width = 8 if fits else draw(st.sampled_from([2, 4, 8]))
    steps.append(f"vectorize{{with=fma width={width}}}")
    if draw(st.booleans()):
        steps.append("unroll{loop=k factor=2}")
    return gemm, ",".join(steps)


@given(cases())
@examples(0.5)
def test_drawn_schedules(after: After, case: tuple[Gemm, str]) -> None:
    after(*case)


@pytest.mark.parametrize("target", ["cpu:x86-64-v3", "cpu:znver3", "cpu:x86-64-v4", "cpu"])
@given(problems(), st.sampled_from([1, 2]))
@examples(0.1)
def test_default_schedules(target: str, gemm: Gemm, threads: int) -> None:
    check(gemm, target=target, threads=threads, shrink=False).require_ok()


@pytest.mark.parametrize("target", ["cpu:x86-64-v3", "cpu:x86-64-v4", "cpu"])
@given(cases(fits=True))
@examples(0.1)
def test_machine_code_of_drawn_schedules(target: str, case: tuple[Gemm, str]) -> None:
    gemm, schedule = case
    check(gemm, target=target, schedule=schedule, shrink=False).require_ok()


@pytest.mark.parametrize("target", ["cpu:x86-64-v3", "cpu:x86-64-v4", "cpu"])
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("dtype_b", ["i4", "i8"])
@pytest.mark.parametrize("m", [1, 3])
def test_lanes_along_k(target: str, dtype: str, dtype_b: str, m: int) -> None:
    gemm = Gemm(
        m=m, n=21, k=330, dtype=dtype, dtype_b=dtype_b, weight_group=66, trans_b=True, beta=0.5
    )
    assert "along=k" in str(gemmir.lower(gemm, target=target).schedule)
    check(gemm, target=target, shrink=False).require_ok()


def test_scales_go_into_the_copy(after: After) -> None:
    promote = "promote{operand=b to=l2 layout=panel:16 as=f32}"
    module = after(WEIGHTS, f"tile{{loops=k sizes=32}},{promote}")
    (pack,) = [op for op in module.walk() if isinstance(op, PackOp)]
    (gemm,) = [op for op in module.walk() if isinstance(op, GemmOp)]
    assert pack.scales is not None
    assert pack.depth is not None
    assert not gemm.scales
    assert gemm.depth is None
    assert "i4" not in str(gemm.b.type)


def test_scales_stay_where_the_copy_is_no_sum(after: After) -> None:
    gemm = Gemm(m=5, n=38, k=44, dtype_b="i8", weight_group=16)
    module = after(gemm, "promote{operand=b to=l2 layout=panel:16}")
    (pack,) = [op for op in module.walk() if isinstance(op, PackOp)]
    (product,) = [op for op in module.walk() if isinstance(op, GemmOp)]
    assert pack.scales is None
    assert product.scales and product.depth is not None


def test_numbers_of_4_bits_are_taken_from_the_top_of_a_word(after: After) -> None:
    schedule = f"tile{{loops=k sizes=16}},tile{{loops=n,m sizes=16,1}},{SUM}"
    module = after(WEIGHTS, f"{schedule},vectorize{{with=fma width=8}}")
    found = [op for op in module.walk() if isinstance(op, ExtendOp)]
    assert found
    assert {op.exponent.value.data for op in found if op.exponent is not None} == {28}
    factors = [op.value for op in module.walk() if isinstance(op, arith.ConstantOp)]
    made = [f.get_values()[0] for f in factors if isinstance(f, DenseIntOrFPElementsAttr)]
    assert 2.0**-28 in made
