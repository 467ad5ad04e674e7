"""cvt, as the PTX ISA defines it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from gemmir.backends.ptx.emulator import PtxFault
from tests.backends.ptx.emulator.ptx import Array, kernel, launch, result, run

U16, U32, U64 = np.uint16, np.uint32, np.uint64
BF16, F32 = ml_dtypes.bfloat16, np.float32
NAN, INF = math.nan, math.inf
JUST_ABOVE = 1 + 2.0**-11 + 2.0**-40
"""The middle of two f16 and a bit that f32 would lose."""

CUT = [
    ("cvt.u32.u64 %r9, %d0;", U64, 0x1234567890ABCDEF, U32, 0x90ABCDEF),
    ("cvt.u64.u32 %d9, %r0;", U32, 0xFFFFFFFF, U64, 0xFFFFFFFF),
    ("cvt.s64.s32 %d9, %r0;", U32, 0xFFFFFFFF, U64, 2**64 - 1),
    ("cvt.u64.s32 %d9, %r0;", U32, 0x80000000, U64, 0xFFFFFFFF80000000),
    ("cvt.u16.u32 %h9, %r0;", U32, 0x12345678, U16, 0x5678),
    ("cvt.u32.u16 %r9, %h0;", U16, 0xFFFF, U32, 0xFFFF),
    ("cvt.s32.s16 %r9, %h0;", U16, 0xFFFE, U32, 0xFFFFFFFE),
    ("cvt.s32.s8 %r9, %r0;", U32, 0x1234567F, U32, 0x7F),
    ("cvt.s32.s8 %r9, %r0;", U32, 0x12345680, U32, 0xFFFFFF80),
    ("cvt.u32.u8 %r9, %h0;", U16, 0x12FF, U32, 0xFF),
    ("cvt.u8.u32 %h9, %r0;", U32, 0x12345678, U16, 0x78),
    ("cvt.s8.s32 %h9, %r0;", U32, 0x123456F8, U16, 0xFFF8),
    ("cvt.sat.u8.s32 %h9, %r0;", U32, 300, U16, 255),
    ("cvt.sat.u8.s32 %h9, %r0;", U32, 0xFFFFFFFF, U16, 0),
    ("cvt.sat.s8.s32 %h9, %r0;", U32, 0xFFFFFF00, U16, 0xFF80),
    ("cvt.sat.s32.s64 %r9, %d0;", U64, 2**40, U32, 0x7FFFFFFF),
]


@pytest.mark.parametrize(("text", "kind", "value", "to", "expected"), CUT)
def test_integers_are_cut_extended_or_clamped(
    text: str, kind: Any, value: int, to: Any, expected: int
) -> None:
    """A register wider than the type of the instruction is filled with the sign, or zeros."""
    assert int(result(text, np.array([value], kind), to=to)[0]) == expected


ROUND: dict[str, Callable[[float], float]] = {
    "rni": lambda x: float(round(x)),
    "rzi": lambda x: float(math.trunc(x)),
    "rmi": lambda x: float(math.floor(x)),
    "rpi": lambda x: float(math.ceil(x)),
}
VALUES = [0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.7, 1e9, 123456.75]


@pytest.mark.parametrize("mode", ROUND)
def test_floats_become_whole(mode: str) -> None:
    values = np.array(VALUES, np.float32)
    expected = [ROUND[mode](float(x)) for x in values]
    assert result(f"cvt.{mode}.s32.f32 %r9, %r0;", values, to=np.int32).tolist() == expected
    assert result(f"cvt.{mode}.f32.f32 %r9, %r0;", values, to=np.float32).tolist() == expected
    wide = values.astype(np.float64)
    assert result(f"cvt.{mode}.s64.f64 %d9, %d0;", wide, to=np.int64).tolist() == expected


def test_floats_are_clamped_to_integers_and_nan_is_0() -> None:
    values = np.array([NAN, INF, -INF, 3e9, -3e9, 5e9], np.float32)
    found = result("cvt.rzi.s32.f32 %r9, %r0;", values, to=np.int32)
    assert found.tolist() == [0, 2**31 - 1, -(2**31), 2**31 - 1, -(2**31), 2**31 - 1]
    found = result("cvt.rzi.u32.f32 %r9, %r0;", values, to=U32)
    assert found.tolist() == [0, 2**32 - 1, 0, 3_000_000_000, 0, 2**32 - 1]
    found = result("cvt.rzi.u64.f32 %d9, %r0;", values, to=U64)
    assert found.tolist()[:3] == [0, 2**64 - 1, 0]


@pytest.mark.parametrize(
    ("text", "values", "to", "expected"),
    [
        ("cvt.rn.f32.s32 %r9, %r0;", np.array([16777217, -5], np.int32), np.float32, [2**24, -5]),
        ("cvt.rn.f32.u32 %r9, %r0;", np.array([2**32 - 1], U32), np.float32, [2**32]),
        ("cvt.rn.f64.s32 %d9, %r0;", np.array([-(2**31)], np.int32), np.float64, [-(2**31)]),
        ("cvt.rn.f32.s64 %r9, %d0;", np.array([2**24 + 1], np.int64), np.float32, [2**24]),
        ("cvt.rn.f64.u64 %d9, %d0;", np.array([2**64 - 1], U64), np.float64, [2**64]),
        ("cvt.rn.f16.s32 %h9, %r0;", np.array([2049, 70000], np.int32), np.float16, [2048, INF]),
        ("cvt.f64.f32 %d9, %r0;", np.array([1 / 3], np.float32), np.float64, [np.float32(1 / 3)]),
        ("cvt.rn.f32.f64 %r9, %d0;", np.array([1 / 3]), np.float32, [np.float32(1 / 3)]),
        ("cvt.f32.f16 %r9, %h0;", np.array([6e-8, -2], np.float16), np.float32, [2.0**-24, -2]),
        ("cvt.rn.f16.f64 %h9, %d0;", np.array([JUST_ABOVE]), np.float16, [1 + 2.0**-10]),
        ("cvt.rn.bf16.u64 %h9, %d0;", np.array([2**60 + 2**52 + 1], U64), BF16, [2**60 + 2**53]),
        ("cvt.rn.bf16.s64 %h9, %d0;", np.array([-(2**60)], np.int64), BF16, [-(2**60)]),
        ("cvt.sat.f32.f32 %r9, %r0;", np.array([-1, 0.5, 2, NAN], F32), F32, [0, 0.5, 1, 0]),
    ],
)
def test_numbers(text: str, values: Array, to: Any, expected: list[float]) -> None:
    assert result(text, values, to=to).tolist() == expected


def nearest_even(bits: Array, dropped: int) -> Array:
    """f32 bits without the lowest `dropped` ones, to nearest, ties to even."""
    wide = bits.astype(np.int64)
    half, last = 1 << (dropped - 1), wide >> dropped & 1
    return ((wide + half - 1 + last) >> dropped).astype(U32)


def drawn_f32(seed: int) -> Array:
    """Finite f32 of all sizes, and halfway cases of bf16."""
    bits = np.random.default_rng(seed).integers(0, 2**32, 500, dtype=U32)
    bits[::3] = bits[::3] & 0xFFFF0000 | 0x8000
    return bits[(bits >> 23 & 0xFF) < 0xFE]


def test_f32_to_bf16() -> None:
    bits = drawn_f32(1)
    found = result("cvt.rn.bf16.f32 %h9, %r0;", bits.view(np.float32), to=U16)
    np.testing.assert_array_equal(found, nearest_even(bits, 16))


def test_bf16_to_f32() -> None:
    bits = np.arange(0, 2**16, 97, dtype=U16)
    for start in range(0, len(bits), 512):
        part = bits[start : start + 512]
        found = result("cvt.f32.bf16 %r9, %h0;", part, to=U32)
        np.testing.assert_array_equal(found, part.astype(U32) << 16)


def test_f32_to_f16() -> None:
    values = (drawn_f32(2) >> 3).view(np.float32)
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    found = result("cvt.rn.f16.f32 %h9, %r0;", values, to=np.float16)
    np.testing.assert_array_equal(found, expected)


def test_a_nan_of_16_bits_is_the_canonical_one() -> None:
    nan = np.array([0xFFC12345], U32)
    assert result("cvt.rn.bf16.f32 %h9, %r0;", nan, to=U16)[0] == 0x7FFF
    assert result("cvt.rn.f16.f32 %h9, %r0;", nan, to=U16)[0] == 0x7FFF


@pytest.mark.parametrize(("kind", "dtype"), [("f16", np.float16), ("bf16", ml_dtypes.bfloat16)])
def test_pairs_have_the_first_operand_in_the_upper_half(kind: str, dtype: Any) -> None:
    a, b = (np.arange(1, 9, dtype=np.float32) * x for x in (1, -0.5))
    found = result(f"cvt.rn.{kind}x2.f32 %r9, %r0, %r1;", a, b, to=U32)
    np.testing.assert_array_equal((found >> 16).astype(U16).view(dtype).astype(np.float32), a)
    np.testing.assert_array_equal((found & 0xFFFF).astype(U16).view(dtype).astype(np.float32), b)


def test_relu_and_satfinite() -> None:
    values = np.array([-2, 3, INF, -INF, 1e6], np.float32)
    found = result("cvt.rn.relu.f16.f32 %h9, %r0;", values, to=np.float16)
    assert found.tolist() == [0, 3, INF, 0, INF]
    found = result("cvt.rn.satfinite.f16.f32 %h9, %r0;", values, to=np.float16)
    assert found.tolist() == [-2, 3, 65504, -65504, 65504]


def test_tf32() -> None:
    """10 bits of the fraction stay: rna takes ties away from 0, rn to even."""
    bits = drawn_f32(3)
    bits[::2] = bits[::2] & 0xFFFFE000 | 0x1000
    up = result("cvt.rna.tf32.f32 %r9, %r0;", bits, to=U32)
    np.testing.assert_array_equal(up, (bits + 0x1000) & 0xFFFFE000)
    even = result("cvt.rn.tf32.f32 %r9, %r0;", bits, to=U32)
    np.testing.assert_array_equal(even, nearest_even(bits, 13) << 13)
    assert (up != even).any()


E4M3 = [(448, 0x7E), (1e9, 0x7E), (-INF, 0xFE), (NAN, 0x7F), (0.5, 0x30), (-1, 0xB8), (2.0**-9, 1)]
E5M2 = [(57344, 0x7B), (1e9, 0x7B), (-INF, 0xFB), (NAN, 0x7F), (0.5, 0x38), (-1, 0xBC)]


@pytest.mark.parametrize(("kind", "cases"), [("e4m3", E4M3), ("e5m2", E5M2)])
def test_eight_bits(kind: str, cases: list[tuple[float, int]]) -> None:
    """Values by the tables of the OCP 8-bit floating point specification."""
    a = np.array([x for x, _ in cases], np.float32)
    b = np.zeros_like(a)
    found = result(f"cvt.rn.satfinite.{kind}x2.f32 %h9, %r0, %r1;", a, b, to=U16)
    assert found.tolist() == [bits << 8 for _, bits in cases]
    found = result(f"cvt.rn.satfinite.{kind}x2.f32 %h9, %r0, %r1;", b, a, to=U16)
    assert found.tolist() == [bits for _, bits in cases]


@pytest.mark.parametrize("kind", ["e4m3", "e5m2"])
def test_eight_bits_from_and_to_pairs_of_f16(kind: str) -> None:
    bits = np.arange(0, 2**16, 331, dtype=U16)
    dtype = {"e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2}[kind]
    pairs = result(f"cvt.rn.f16x2.{kind}x2 %r9, %h0;", bits, to=U32)
    expected = bits.view(dtype).astype(np.float16)
    np.testing.assert_array_equal(pairs.view(np.float16), expected)
    back = result(f"cvt.rn.satfinite.{kind}x2.f16x2 %h9, %r0;", pairs, to=U16)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(back.view(np.uint8)[finite], bits.view(np.uint8)[finite])


UNKNOWN = [
    "cvt.f16.f32 %h9, %r0;",
    "cvt.rn.f32.f16 %r9, %h0;",
    "cvt.s32.f32 %r9, %r0;",
    "cvt.rni.u32.u64 %r9, %d0;",
    "cvt.rz.f32.f64 %r9, %d0;",
    "cvt.rn.e4m3x2.f32 %h9, %r0, %r1;",
    "cvt.rn.satfinite.e3m2x2.f32 %h9, %r0, %r1;",
    "cvt.f16x2.e4m3x2 %r9, %h0;",
    "cvt.rn.f16x2.f64 %r9, %d0, %d1;",
    "cvt.rz.tf32.f32 %r9, %r0;",
    "cvt.b32.u32 %r9, %r0;",
    "cvt.rn.relu.f32.f64 %r9, %d0;",
    "cvt.u32 %r9, %r0;",
]


@pytest.mark.parametrize("instruction", UNKNOWN)
def test_what_is_not_known_is_a_fault(instruction: str) -> None:
    with pytest.raises(PtxFault, match="is not known here"):
        launch(kernel(instruction), [])


def test_a_conversion_of_a_register_of_another_width_is_a_fault() -> None:
    with pytest.raises(PtxFault, match=r"%r0 is a .b32 register, not of .u64"):
        run("cvt.u32.u64 %r9, %r0;", [np.zeros(1, U32)], [("%r9", U32)])
