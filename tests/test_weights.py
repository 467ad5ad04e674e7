"""Weights: a B of small integers that have scales, and what it means."""

from dataclasses import replace
from typing import Any, Final

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gemmir
from gemmir import Gemm
from gemmir.errors import CallError, ProblemError, ScheduleError
from gemmir.evaluate import evaluate
from gemmir.ir.build import build
from gemmir.ir.context import parse_module
from gemmir.ir.problem import problem_of
from tests.strategies import arrays_for, furthest

PROBLEMS: Final = {
    "i4": Gemm(m=3, n=10, k=30, dtype_b="i4", weight_group=8),
    "stored": Gemm(m=3, n=9, k=30, dtype_b="i4", weight_group=16, trans_b=True, ldb=40, beta=0.5),
    "i8": Gemm(m=3, n=11, k=30, dtype="bf16", dtype_b="i8", weight_group=128, trans_a=True),
    "steps": Gemm(m=5, n=6, k=7, dtype="f16", dtype_b="i8", weight_group=2, epilogue="bias+relu"),
    "one": Gemm(m=1, n=2, k=1, dtype_b="i4", weight_group=2, alpha=-0.5),
    "signs": Gemm(m=4, n=5, k=6, dtype="u8", dtype_b="i8"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_ir_says_the_problem_and_means_it(name: str) -> None:
    gemm = PROBLEMS[name]
    module = build(gemm)
    assert str(parse_module(str(module))) == str(module)
    assert problem_of(module).dtype_b == gemm.dtype_b
    assert problem_of(module).weight_group == gemm.weight_group
    arrays = arrays_for(gemm)
    result = arrays["c"].copy()
    evaluate(module, [*list(arrays.values())[:-1], result])
    assert furthest(gemm, arrays, result) <= 1


def test_the_reference_is_the_sum_of_scaled_elements() -> None:
    for trans_b in (False, True):
        gemm = Gemm(m=3, n=4, k=10, dtype_b="i4", weight_group=4, trans_b=trans_b)
        arrays = arrays_for(gemm)
        shapes = {o.name: o.shape for o in gemm.operands}
        assert list(shapes) == ["a", "b", "scale_b", "c"]
        assert shapes["scale_b"] == ((4, 3) if trans_b else (3, 4))
        assert arrays["b"].shape == ((4, 5) if trans_b else (10, 2))
        b, scale = gemmir.unpack_int4(arrays["b"]), arrays["scale_b"].astype(np.float64)
        b, scale = (b.T, scale.T) if trans_b else (b, scale)
        expected = np.zeros((3, 4))
        for i, j, p in np.ndindex(3, 4, 10):
            expected[i, j] += float(arrays["a"][i, p]) * b[p, j] * scale[p // 4, j]
        np.testing.assert_allclose(gemm.reference(arrays), expected, rtol=1e-12, atol=1e-12)


@given(st.lists(st.integers(-8, 7), min_size=8, max_size=8))
def test_numbers_of_4_bits_come_back(numbers: list[int]) -> None:
    matrix = np.array(numbers).reshape(2, 4)
    packed = gemmir.pack_int4(matrix)
    assert packed.shape == (2, 2)
    assert packed[0, 0] == (numbers[0] & 15) + 16 * (numbers[1] & 15)
    np.testing.assert_array_equal(gemmir.unpack_int4(packed), matrix)
    typed = matrix.astype(ml_dtypes.int4)
    np.testing.assert_array_equal(gemmir.pack_int4(typed), packed)
    np.testing.assert_array_equal(gemmir.unpack_int4(packed[:, ::-1]), matrix[:, [2, 3, 0, 1]])


@pytest.mark.parametrize("wrong", [[8, 0], [0, -9], [1, 2, 3], [0.5, 1.0], 1])
def test_what_has_no_4_bits(wrong: Any) -> None:
    with pytest.raises(ProblemError) as raised:
        gemmir.pack_int4(wrong)
    assert raised.value.code == "GEM1334"


@pytest.mark.parametrize("wrong", [np.zeros((2, 2), np.int8), np.zeros((2, 2)), np.uint8(3)])
def test_what_are_no_bytes(wrong: Any) -> None:
    with pytest.raises(ProblemError) as raised:
        gemmir.unpack_int4(wrong)
    assert raised.value.code == "GEM1334"


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("GEM1330", {"dtype_b": "f64"}),
        ("GEM1330", {"dtype": "e4m3", "dtype_b": "i4"}),
        ("GEM1330", {"dtype": "i8", "dtype_b": "i4"}),
        ("GEM1331", {"dtype_b": "i4"}),
        ("GEM1331", {"dtype_b": "i8", "weight_group": 0}),
        ("GEM1331", {"dtype_b": "i8", "weight_group": 5}),
        ("GEM1331", {"dtype_b": "i8", "weight_group": "all"}),
        ("GEM1331", {"weight_group": 128}),
        ("GEM1331", {"dtype": "u8", "dtype_b": "i8", "weight_group": 128}),
        ("GEM1332", {"dtype_b": "i8", "weight_group": 128, "batch": 2}),
        ("GEM1350", {"dtype_b": "i8", "weight_group": 128, "m": None}),
        ("GEM1332", {"dtype_b": "i8", "weight_group": 128, "groups": 2}),
        ("GEM1332", {"dtype_b": "i8", "weight_group": 128, "scale_block": 128}),
        ("GEM1332", {"dtype_b": "i8", "weight_group": 128, "epilogue": "scale"}),
        ("GEM1332", {"dtype_b": "i8", "weight_group": 128, "k": 0}),
        ("GEM1333", {"dtype_b": "i4", "weight_group": 128, "n": 3}),
        ("GEM1333", {"dtype_b": "i4", "weight_group": 128, "k": 3, "trans_b": True}),
        ("GEM1333", {"dtype_b": "i4", "weight_group": 128, "ldb": 5}),
    ],
)
def test_what_is_refused(code: str, wrong: dict[str, Any]) -> None:
    sizes: dict[str, Any] = {"m": 2, "n": 2, "k": 2}
    with pytest.raises(ProblemError) as raised:
        Gemm(**sizes | wrong)
    assert raised.value.code == code
    assert raised.value.hint


@pytest.mark.parametrize("target", ["cuda:sm_80", "cuda:sm_90a", "tpu:v5e"])
@pytest.mark.parametrize("name", ["i4", "i8"])
def test_other_targets_have_no_weights(name: str, target: str) -> None:
    with pytest.raises(ScheduleError) as raised:
        gemmir.lower(PROBLEMS[name], target=target)
    assert raised.value.code == "GEM1337"
    assert "use a CPU" in raised.value.hint


def test_arrays_of_a_call() -> None:
    gemm = Gemm(m=2, n=8, k=6, dtype_b="i4", weight_group=4)
    kernel = gemmir.compile(gemm)
    a = np.ones((2, 6), np.float32)
    numbers = np.arange(48).reshape(6, 8) % 16 - 8
    scales = np.full((2, 8), 0.5, np.float32)
    found = kernel(a, gemmir.pack_int4(numbers), scales)
    np.testing.assert_array_equal(found, a @ numbers.astype(np.float32) * 0.5)
    with pytest.raises(CallError) as raised:
        kernel(a, numbers.astype(ml_dtypes.int4), scales)
    assert raised.value.code == "GEM0504"
    assert "gemmir.pack_int4" in raised.value.hint
    with pytest.raises(CallError) as raised:
        kernel(a, numbers.astype(np.uint8), scales)
    assert raised.value.code == "GEM0506"


@pytest.mark.parametrize("target", ["cpu", "cpu:x86-64-v3"])
@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize("m", [1, 5, 70])
def test_every_weight_has_its_place(m: int, trans_b: bool, target: str) -> None:
    """Of whole numbers and scales that are powers of two every sum is exact."""
    gemm = Gemm(m=m, n=144, k=128, dtype_b="i4", weight_group=32, trans_b=trans_b)
    arrays, generator = arrays_for(gemm), np.random.default_rng(0)
    for name, most in (("a", 8), ("b", 256)):
        arrays[name][...] = generator.integers(0, most, arrays[name].shape)
    arrays["scale_b"][...] = 2.0 ** generator.integers(-3, 3, arrays["scale_b"].shape)
    kernel = gemmir.compile(gemm, target=target)
    found = kernel(*list(arrays.values())[:-1])
    np.testing.assert_array_equal(found, gemm.reference(arrays))


def test_rows_have_the_same_bits_whatever_m_is() -> None:
    whole = Gemm(m=5, n=64, k=96, dtype_b="i4", weight_group=32)
    schedule = gemmir.lower(whole).schedule
    arrays = arrays_for(whole)
    *others, c = arrays.values()
    gemmir.compile(whole, schedule=schedule)(*others, out=c)
    for m in (1, 2, 3):
        part = replace(whole, m=m)
        found = gemmir.compile(part, schedule=schedule)(others[0][:m].copy(), *others[1:])
        np.testing.assert_array_equal(found, c[:m])
