"""vectorize along=k: a vector for each element of C, whose lanes are added at the end."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects import vector
from xdsl.dialects.builtin import ModuleOp, VectorType

import gemmir
from gemmir.check import check
from gemmir.errors import ScheduleError
from gemmir.gemm import Gemm
from gemmir.ir.attributes import PanelAttr
from gemmir.ir.dialect import LaneSumOp, PackOp, PairProductOp, memref_type
from gemmir.ir.views import chain
from tests.strategies import examples

After = Callable[[Gemm, str], ModuleOp]

C = "promote{operand=c to=registers}"


@st.composite
def thin(draw: st.DrawFn) -> tuple[Gemm, str]:
    """Problems of any layout, what is not adjacent along k copied, and k in slices or not."""
    gemm = Gemm(
        m=draw(st.integers(1, 9)),
        n=draw(st.integers(1, 13)),
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


@st.composite
def narrow(draw: st.DrawFn) -> tuple[Gemm, str, str]:
    """Problems of bytes and bf16, whose neighbours are added at once, with and without VNNI."""
    pair = draw(st.sampled_from([("u8", "i8"), ("i8", "i8"), ("u8", "u8"), ("bf16", "bf16")]))
    is_float = pair[0] == "bf16"
    has_dots = draw(st.booleans()) and pair != ("u8", "u8")
    gemm = Gemm(
        m=draw(st.integers(1, 6)),
        n=draw(st.integers(1, 7)),
        k=draw(st.integers(1, 300)),
        dtype=pair[0],
        dtype_b=pair[1],
        beta=draw(st.sampled_from([0.0, 1.0])),
        trans_a=draw(st.booleans()),
        trans_b=draw(st.booleans()),
        epilogue=draw(st.sampled_from(["", "bias+relu"])) if is_float else "",
    )
    as_ = "" if has_dots or is_float else " as=i16"
    is_copied = bool(as_) or gemm.trans_a
    slices = f"tile{{loops=k sizes={draw(st.integers(1, 150))}}}"
    before, behind = draw(st.booleans()), draw(st.booleans())
    steps = [
        *([slices] if before else []),
        *([f"promote{{operand=a to=l2 layout=panel:1{as_}}}"] if is_copied else []),
        *([] if gemm.trans_b else ["promote{operand=b to=l2 layout=panel:1}"]),
        "tile{loops=m,n sizes=3,2}",
        C,
        *([slices] if behind and not before else []),
        f"vectorize{{with=dot width={draw(st.sampled_from([4, 8]))} along=k}}",
    ]
    return gemm, ",".join(steps), "cpu:znver4" if has_dots else "cpu:x86-64-v3"


@given(narrow())
@examples(0.5)
def test_neighbours_are_added_at_once(drawn: tuple[Gemm, str, str]) -> None:
    gemm, schedule, target = drawn
    check(gemm, target=target, schedule=schedule).require_ok()


@pytest.mark.parametrize(("m", "n"), [(1, 4), (4, 2), (3, 3)])
@pytest.mark.parametrize("pair", [("u8", "i8"), ("i8", "u8"), ("i8", "i8"), ("u8", "u8")])
@pytest.mark.parametrize("target", ["cpu:znver4", "cpu:x86-64-v3"])
def test_no_sum_of_bytes_saturates(target: str, pair: tuple[str, str], m: int, n: int) -> None:
    gemm = Gemm(m=m, n=n, k=200, dtype=pair[0], dtype_b=pair[1], trans_b=True)
    wide = target == "cpu:x86-64-v3" or pair == ("u8", "u8")
    as_ = "promote{operand=a to=l2 layout=panel:1 as=i16}," if wide else ""
    schedule = f"{as_}{C},vectorize{{with=dot width=8 along=k}}"
    kernel = gemmir.lower(gemm, target, schedule).compile()
    ends = {"u8": (0, 255), "i8": (-128, 127)}
    for first in ends[pair[0]]:
        for second in ends[pair[1]]:
            a = np.full((m, 200), first, np.uint8 if pair[0] == "u8" else np.int8)
            b = np.full((n, 200), second, np.uint8 if pair[1] == "u8" else np.int8)
            assert (kernel(a, b) == 200 * first * second).all(), (first, second)


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


@pytest.mark.parametrize(
    ("n", "k", "dtype", "shapes"),
    [
        (4, 304, "f32", [(8, 4)]),
        (3, 300, "f32", [(8, 4), (4, 4)]),
        (11, 16, "f32", [(8, 8), (8, 8)]),
        (5, 9, "f64", [(4, 4), (4, 4), (1, 4), (1, 4)]),
    ],
)
def test_columns_are_copied_by_squares(
    after: After, n: int, k: int, dtype: str, shapes: list[tuple[int, int]]
) -> None:
    gemm = Gemm(m=2, n=n, k=k, dtype=dtype)
    copy = "promote{operand=b to=l2 layout=panel:1}"
    module = after(gemm, f"{copy},{C},vectorize{{with=fma width=8 along=k}}")
    writes = [op for op in module.walk() if isinstance(op, vector.TransferWriteOp)]
    copies = [op.vector.type for op in writes if chain(op.source)[0].name_hint == "b_packed"]
    assert [t.get_shape() for t in copies if isinstance(t, VectorType)] == shapes


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


def test_products_of_f16_are_not_added_at_once() -> None:
    gemm = Gemm(m=2, n=2, k=40, dtype="f16", trans_b=True)
    with pytest.raises(ScheduleError, match="no products of f16 and f16") as found:
        gemmir.lower(gemm, "cpu:x86-64-v3", f"{C},vectorize{{with=dot width=8 along=k}}")
    assert found.value.code == "GEM1323"


def test_tensor_cores_have_no_lanes_along_k(after: After) -> None:
    gemm = Gemm(m=2, n=2, k=64, dtype="bf16", trans_b=True)
    with pytest.raises(ScheduleError, match="along=k with=mma") as found:
        after(gemm, f"{C},vectorize{{with=mma width=8 along=k}}")
    assert found.value.code == "GEM1317"
    assert "with=fma or with=dot" in found.value.hint
