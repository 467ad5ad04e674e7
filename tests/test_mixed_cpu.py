"""Products on a CPU that are summed in a wider type: every stage, instructions, and `matmul`."""

from __future__ import annotations

import re
from typing import Any, Final

import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given

import gemmir
from gemmir.backends.cpu.assemble import assembly
from gemmir.check import check
from gemmir.errors import CallError
from gemmir.gemm import Gemm
from gemmir.ir.attributes import PanelAttr
from tests.strategies import arrays_for, examples, furthest

PAIRS: Final = (
    ("bf16", None),
    ("f16", None),
    ("i8", None),
    ("u8", None),
    ("u8", "i8"),
    ("i8", "u8"),
)


@st.composite
def mixed(draw: st.DrawFn) -> Gemm:
    """Small problems of every pair of types."""
    dtype, dtype_b = draw(st.sampled_from(PAIRS))
    is_float = dtype in ("bf16", "f16")
    return Gemm(
        m=draw(st.integers(1, 20)),
        n=draw(st.integers(1, 40)),
        k=draw(st.integers(1, 30)),
        dtype=dtype,
        dtype_b=dtype_b,
        out=draw(st.sampled_from([None, dtype])) if is_float else None,
        alpha=draw(st.sampled_from([1.0, -2.0])),
        beta=draw(st.sampled_from([0.0, 1.0, 3.0])),
        trans_a=draw(st.booleans()),
        trans_b=draw(st.booleans()),
        epilogue=draw(st.sampled_from(["", "bias+relu"])),
    )


@st.composite
def schedules(draw: st.DrawFn, gemm: Gemm) -> str:
    """Panels of any depth and type that the unit takes, or none, and slices of k."""
    is_float = gemm.dtype in ("bf16", "f16")
    unit = draw(st.sampled_from(["fma"] if gemm.dtype == "f16" else ["fma", "dot"]))
    width = draw(st.sampled_from([1, 2, 4, 8]))
    rows, columns = draw(st.integers(1, 4)), width * draw(st.integers(1, 2))
    wider, depth = "f32" if is_float else "i16", 1
    as_ = f" as={wider}" if draw(st.booleans()) else ""
    if unit == "dot":
        if gemm.dtype == "u8" and gemm.dtype_b is None:
            as_ = " as=i16"
        elif gemm.dtype != "i8" or gemm.dtype_b is not None:
            as_ = ""
        depth = 2 if is_float or as_ else 4
    by = f"x{depth}" if depth > 1 else ""
    steps: list[str] = []
    if draw(st.booleans()) and gemm.result is gemm.accumulator:
        steps.append(f"tile{{loops=k sizes={depth * draw(st.integers(1, 5))}}}")
    if unit == "dot" or draw(st.booleans()):
        steps.append(f"promote{{operand=b to=l2 layout=panel:{columns}{by}{as_}}}")
    if (as_ and unit == "dot") or draw(st.booleans()):
        steps.append(f"promote{{operand=a to=l2 layout=panel:{rows}{by}{as_}}}")
    steps.append(f"tile{{loops=m,n sizes={rows},{columns}}}")
    steps.append("promote{operand=c to=registers}")
    steps.append(f"vectorize{{with={unit} width={width}}}")
    return ",".join(steps)


@given(st.data())
@examples(0.5)
def test_every_schedule_is_right(data: st.DataObject) -> None:
    gemm = data.draw(mixed())
    schedule = data.draw(schedules(gemm))
    target = "cpu:x86-64-v3" if " as=i16" in schedule or "with=fma" in schedule else "cpu:znver4"
    check(gemm, schedule=schedule, target=target, shrink=False).require_ok()


@pytest.mark.parametrize("target", ["cpu", "cpu:x86-64-v3", "cpu:neoverse-v1"])
@pytest.mark.parametrize(("dtype", "dtype_b"), PAIRS)
@pytest.mark.parametrize("m", [0, 1, 13])
def test_default_schedules_are_right(target: str, dtype: str, dtype_b: str | None, m: int) -> None:
    for trans in (False, True):
        gemm = Gemm(m=m, n=37, k=23, dtype=dtype, dtype_b=dtype_b, trans_a=trans, trans_b=trans)
        check(gemm, target=target, shrink=False).require_ok()


@pytest.mark.parametrize(
    ("target", "dtype", "dtype_b", "instruction"),
    [
        ("cpu:znver4", "u8", "i8", r"vpdpbusd\s.*zmm"),
        ("cpu:znver4", "i8", "u8", r"vpdpbusd\s.*zmm"),
        ("cpu:znver4", "i8", None, r"vpdpbusd\s.*zmm"),
        ("cpu:znver4", "bf16", None, r"vdpbf16ps\s.*zmm"),
        ("cpu:icelake-server", "u8", "i8", r"vpdpbusd\s.*zmm"),
        ("cpu:x86-64-v4", "u8", "i8", r"vpmaddwd\s.*zmm"),
        ("cpu:x86-64-v3", "u8", "i8", r"vpmaddwd\s.*ymm"),
        ("cpu:x86-64-v3", "bf16", None, r"vfmadd231ps\s.*ymm"),
        ("cpu:x86-64-v3", "f16", None, r"vcvtph2ps\s"),
        ("cpu:neoverse-n1", "i8", None, r"\ssdot\s"),
        ("cpu:neoverse-n1", "u8", None, r"\sudot\s"),
        ("cpu:neoverse-v1", "u8", "i8", r"\susdot\s"),
        ("cpu:neoverse-v1", "bf16", None, r"\sbfdot\s"),
    ],
)
def test_instructions(target: str, dtype: str, dtype_b: str | None, instruction: str) -> None:
    gemm = Gemm(m=64, n=64, k=64, dtype=dtype, dtype_b=dtype_b)
    text = assembly(gemmir.lower(gemm, target=target).artifact)
    assert re.search(instruction, text)
    assert "truncsfbf2" not in text


def test_bf16_is_rounded_without_calls() -> None:
    gemm = Gemm(m=13, n=37, k=23, dtype="bf16", out="bf16", beta=0.5, epilogue="bias+gelu")
    text = assembly(gemmir.lower(gemm, target="cpu:x86-64-v3").artifact)
    assert "truncsfbf2" not in text


def test_a_last_column_of_bf16_is_stored_alone() -> None:
    """LLVM 22 stores 32 bits of a truncated vector whose mask is known to have one lane."""
    gemm = Gemm(m=5, n=17, k=4, dtype="bf16", out="bf16", dtype_b="i8", weight_group=2)
    assert "trunc <" not in gemmir.lower(gemm, target="cpu:x86-64-v4").artifact.text
    check(gemm, target="cpu:x86-64-v4", shrink=False).require_ok()


def test_rounding_to_bf16_is_to_nearest_even() -> None:
    """Halves and their neighbours, by instructions of every x86-64 and by those of this CPU."""
    bits = np.array([0x3F808000, 0x3F818000, 0x3F808100, 0x3F807F00, 0xC2FF8000, 0x7F7E7F00])
    a = bits.astype(np.uint32).view(np.float32).reshape(-1, 1)
    expected = a.astype(ml_dtypes.bfloat16)
    half = (a.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    rest = (a - half).astype(ml_dtypes.bfloat16)
    one = np.ones((1, 1), ml_dtypes.bfloat16)
    zero = np.zeros((len(bits), 1), ml_dtypes.bfloat16)
    for target in ("cpu", "cpu:x86-64-v3"):
        gemm = Gemm(m=len(bits), n=1, k=1, dtype="bf16", out="bf16", beta=1.0, epilogue="residual")
        lowered = gemmir.lower(gemm, target=target)
        found = lowered.compile()(rest, one, zero, out=half.astype(ml_dtypes.bfloat16))
        np.testing.assert_array_equal(found.view(np.uint16), expected.view(np.uint16))


def test_factors_below_the_normal_numbers_may_be_lost() -> None:
    """vpdpbf16ps takes them for 0; the bound says so, and nothing else is off."""
    gemm = Gemm(m=16, n=32, k=64, dtype="bf16")
    arrays = arrays_for(gemm)
    arrays["a"][...] = np.float32(2.0**-130)
    arrays["b"][...] = np.float32(2.0**100)
    result = gemmir.compile(gemm)(arrays["a"], arrays["b"])
    assert furthest(gemm, arrays, result) <= 1


def test_panels_of_depth_have_neighbours_adjacent() -> None:
    """Every element has a place of its own, and 4 of k are adjacent."""
    layout = PanelAttr(1, 8, 96, depth=4)
    places = [layout.get_affine_map().eval([k, n], [])[0] for k in range(12) for n in range(16)]
    assert sorted(places) == list(range(192))
    assert places[16 : 4 * 16 : 16] == [1, 2, 3]


@pytest.mark.parametrize(
    ("a_type", "b_type", "out"),
    [
        (ml_dtypes.bfloat16, ml_dtypes.bfloat16, ml_dtypes.bfloat16),
        (np.float16, np.float16, np.float16),
        (np.int8, np.int8, np.int32),
        (np.uint8, np.int8, np.int32),
        (np.int8, np.uint8, np.int32),
    ],
)
def test_matmul(a_type: Any, b_type: Any, out: Any) -> None:
    generator = np.random.default_rng(0)
    a, b = (
        generator.integers(0, 8, shape).astype(of)
        for shape, of in (((5, 9), a_type), ((9, 17), b_type))
    )
    found = gemmir.matmul(a, b)
    assert found.dtype == out
    exact = a.astype(np.int64) @ b.astype(np.int64)
    np.testing.assert_array_equal(found, exact.astype(out))


def test_matmul_of_what_is_no_array() -> None:
    b = np.ones((4, 4), np.float32)
    packed = gemmir.compile(gemmir.Gemm(m=4, n=4, k=4)).prepack(b)
    wrong: list[tuple[Any, Any, str]] = [
        (b.tolist(), b, "a list and a ndarray"),
        (b, b.tolist(), "a ndarray and a list"),
        (b, packed, "a ndarray and a Packed"),
    ]
    for x, y, words in wrong:
        with pytest.raises(CallError, match=f"GEM0520: matmul of {words}; use NumPy arrays"):
            gemmir.matmul(x, y)
