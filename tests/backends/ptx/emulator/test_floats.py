"""Floating-point instructions, as the PTX ISA defines them."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmir.backends.ptx.emulator import PtxFault
from tests.backends.ptx.emulator.ptx import Array, result, run

U32 = np.uint32
NAN, INF = math.nan, math.inf
FLOATS = np.array(
    [0.0, -0.0, 1.0, -1.0, 1.5, 3.0, 1e-45, -1e-45, 1e-38, 1e38, -3e38, INF, -INF, NAN,
     1 / 3, 16777217], np.float32,
)  # fmt: skip
F_LEFT, F_RIGHT = (a.ravel() for a in np.meshgrid(FLOATS, FLOATS))


def same(found: Array, expected: Array) -> None:
    """Equal, NaN where NaN, and of one sign."""
    np.testing.assert_array_equal(found, expected)
    number = ~np.isnan(expected.astype(np.float64))
    np.testing.assert_array_equal(np.signbit(found)[number], np.signbit(expected)[number])


RULES: dict[str, Callable[[Array, Array], Array]] = {
    "add.rn.f32": np.add,
    "add.f32": np.add,
    "sub.rn.f32": np.subtract,
    "mul.rn.f32": np.multiply,
    "div.rn.f32": np.divide,
}


@pytest.mark.parametrize("name", RULES)
def test_floats(name: str) -> None:
    with np.errstate(all="ignore"):
        expected = RULES[name](F_LEFT, F_RIGHT)
    same(result(f"{name} %r9, %r0, %r1;", F_LEFT, F_RIGHT, to=np.float32), expected)


def test_flushing_to_zero_keeps_the_sign() -> None:
    small = np.array([1e-40, -1e-40, 2e-38, 1.0], np.float32)
    found = result("add.rn.ftz.f32 %r9, %r0, 0f80000000;", small, to=np.float32)
    same(found, np.array([0.0, -0.0, 2e-38, 1.0], np.float32))
    # 2e-38 - 1e-38 is normal; 2e-38 * 0.25 is not, and goes to 0
    found = result("mul.rn.ftz.f32 %r9, %r0, 0fBE800000;", small, to=np.float32)
    same(found, np.array([-0.0, 0.0, -0.0, -0.25], np.float32))


def test_halves_are_flushed_below_their_own_normal_numbers() -> None:
    small = np.array([2.0**-15, -(2.0**-15), 2.0**-14, 1.0], np.float16)
    found = result("add.rn.ftz.f16 %h9, %h0, 0x8000;", small, to=np.float16)
    same(found, np.array([0.0, -0.0, 2.0**-14, 1.0], np.float16))


def test_saturation() -> None:
    values = np.array([-1.0, -0.0, 0.25, 1.5, NAN, INF], np.float32)
    found = result("add.rn.sat.f32 %r9, %r0, 0f80000000;", values, to=np.float32)
    same(found, np.array([0, 0, 0.25, 1, 0, 1], np.float32))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("min.f32", [1, 1, 2, -0.0, -0.0, NAN]),
        ("max.f32", [2, 1, 2, 0.0, 0.0, NAN]),
        ("min.NaN.f32", [1, NAN, NAN, -0.0, -0.0, NAN]),
        ("max.NaN.f32", [2, NAN, NAN, 0.0, 0.0, NAN]),
    ],
)
def test_least_and_largest(name: str, expected: list[float]) -> None:
    a = np.array([1, 1, NAN, -0.0, 0.0, NAN], np.float32)
    b = np.array([2, NAN, 2, 0.0, -0.0, NAN], np.float32)
    found = result(f"{name} %r9, %r0, %r1;", a, b, to=np.float32)
    same(found, np.array(expected, np.float32))


def test_a_nan_of_min_is_the_canonical_one() -> None:
    nan = np.array([0xFFC00001], U32)
    assert result("min.f32 %r9, %r0, %r0;", nan, to=U32)[0] == 0x7FFFFFFF


def test_signs_of_floats() -> None:
    found = run(
        "neg.f32 %r8, %r0; abs.f32 %r9, %r0; copysign.f32 %r10, %r0, %r1;",
        [F_LEFT, F_RIGHT],
        [("%r8", np.float32), ("%r9", np.float32), ("%r10", np.float32)],
    )
    same(found[0], -F_LEFT)
    same(found[1], np.abs(F_LEFT))
    same(found[2], np.copysign(F_RIGHT, F_LEFT))


def test_abs_and_neg_change_the_sign_bit_of_a_nan_only() -> None:
    nan = np.array([0xFFC00001], U32)
    assert result("abs.f32 %r9, %r0;", nan, to=U32)[0] == 0x7FC00001
    assert result("neg.f32 %r9, %r0;", nan, to=U32)[0] == 0x7FC00001


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "ex2.approx.ftz.f32": np.exp2,
    "lg2.approx.f32": np.log2,
    "rsqrt.approx.f32": lambda x: 1 / np.sqrt(x),
    "rcp.approx.ftz.f32": lambda x: 1 / x,
    "rcp.rn.f32": lambda x: 1 / x,
    "sqrt.rn.f32": np.sqrt,
    "sqrt.approx.f32": np.sqrt,
    "sin.approx.f32": np.sin,
    "cos.approx.f32": np.cos,
    "tanh.approx.f32": np.tanh,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    values = np.array([0.25, 0.5, 1, 2, 3.7, 10, 1e-3], np.float32)
    found = result(f"{name} %r9, %r0;", values, to=np.float32)
    np.testing.assert_allclose(
        found, FUNCTIONS[name](values.astype(np.float64)), rtol=2e-7, atol=1e-10
    )


@pytest.mark.parametrize("name", ["div.approx.f32", "div.full.ftz.f32", "div.rn.f32"])
def test_division_of_floats(name: str) -> None:
    values = np.array([1, 2, 3, 10], np.float32)
    found = result(f"{name} %r9, %r0, 0f40400000;", values, to=np.float32)
    np.testing.assert_allclose(found, values / 3, rtol=2e-7)


def rounded(exact: Fraction, kind: str) -> float:
    """`exact` to the nearest number of a type, ties to even, by whole numbers only."""
    digits, lowest, largest = {
        "f16": (11, -24, 65504), "bf16": (8, -133, 255 * 2**120),
        "f32": (24, -149, (2**24 - 1) * 2**104), "f64": (53, -1074, None),
    }[kind]  # fmt: skip
    if exact == 0:
        return 0.0
    magnitude = abs(exact)
    exponent = math.floor(math.log2(magnitude.numerator) - math.log2(magnitude.denominator))
    while magnitude >= Fraction(2) ** (exponent + 1):
        exponent += 1
    while magnitude < Fraction(2) ** exponent:
        exponent -= 1
    step = Fraction(2) ** max(exponent - digits + 1, lowest)
    found = round(magnitude / step) * step
    if largest is not None and found > largest:
        return math.copysign(INF, exact)
    return float(found) * (1 if exact > 0 else -1)


KINDS: dict[str, tuple[str, Any]] = {
    "f16": ("h", np.float16),
    "bf16": ("h", ml_dtypes.bfloat16),
    "f32": ("r", np.float32),
    "f64": ("d", np.float64),
}


def near_one(bits: Array, kind: str) -> Array:
    """Numbers whose exponents are near one another, so that sums cancel and round."""
    field, low, size = (23, 120, 4) if kind == "f32" else (52, 1015, 8)
    word = np.dtype(f"u{size}").type
    exponent = (bits >> word(field)) % word(16) + word(low)
    mask = word(((1 << (8 * size - 1 - field)) - 1) << field)
    return (bits & ~mask) | exponent << word(field)


@pytest.mark.parametrize("kind", KINDS)
@given(bits=st.lists(st.tuples(*[st.integers(0, 2**64 - 1)] * 3), min_size=8, max_size=8))
def test_fma_rounds_once(kind: str, bits: list[tuple[int, int, int]]) -> None:
    letter, dtype = KINDS[kind]
    size = np.dtype(dtype).itemsize
    drawn = np.array(bits, np.uint64).astype(f"u{size}")
    if kind in ("f32", "f64"):
        drawn = near_one(drawn, kind)
    a, b, c = (np.ascontiguousarray(drawn[:, n]).view(dtype) for n in range(3))
    finite = np.isfinite(np.stack([x.astype(np.float64) for x in (a, b, c)])).all(axis=0)
    target = f"%{letter}9"
    found = result(
        f"fma.rn.{kind} {target}, %{letter}0, %{letter}1, %{letter}2;", a, b, c, to=dtype
    )
    for lane in np.flatnonzero(finite):
        x, y, z = (Fraction(float(v[lane])) for v in (a, b, c))
        assert float(found[lane]) == rounded(x * y + z, kind)


def test_fma_where_rounding_twice_is_wrong() -> None:
    """1 + 2^-23 + 2^-24 - 2^-60 lies just below the middle of two f32, and f64 puts it there."""
    a, b, c = (
        np.array([x], np.float32)
        for x in (2.0**-12 * (1 + 2.0**-18), 2.0**-12 * (1 - 2.0**-18), 1 + 2.0**-23)
    )
    found = result("fma.rn.f32 %r9, %r0, %r1, %r2;", a, b, c, to=np.float32)
    assert found[0] == np.float32(1 + 2.0**-23)
    assert np.float32(a.astype(np.float64) * b + c) == np.float32(1 + 2.0**-22)


HARD = [
    ("bf16", "0x1.8p+58", "0x1.06p-7", "0x1.7p-5"),
    ("bf16", "0x1.2p+109", "0x1.78p-39", "-0x1.8ep-78"),
    ("f64", "0x1.000000ap+0", "0x1.00000028p+0", "-0x1.0000000000004p-56"),
]
"""Sums next to the middle of two numbers, by less than f64, f32 or a corrected f64 sum keeps."""


@pytest.mark.parametrize(("kind", "a", "b", "c"), HARD)
def test_fma_next_to_the_middle(kind: str, a: str, b: str, c: str) -> None:
    letter, dtype = KINDS[kind]
    values = [float.fromhex(x) for x in (a, b, c)]
    name = f"fma.rn.{kind} %{letter}9, %{letter}0, %{letter}1, %{letter}2;"
    found = result(name, *(np.array([x]).astype(dtype) for x in values), to=dtype)
    x, y, z = map(Fraction, values)
    assert float(found[0]) == rounded(x * y + z, kind)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "min", "max"])
def test_halves_and_pairs(kind: str, name: str) -> None:
    """A packed instruction does on both halves what the scalar one does."""
    dtype = KINDS[kind][1]
    rng = np.random.default_rng(5)
    a, b = (rng.integers(0, 2**16, 512).astype(np.uint16).view(dtype) for _ in range(2))
    rule = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "min": np.fmin, "max": np.fmax}
    with np.errstate(all="ignore"):
        wide = rule[name](a.astype(np.float32), b.astype(np.float32))
        expected = wide.astype(dtype).astype(np.float32)
    rn = ".rn" if name in ("add", "sub", "mul") else ""
    scalar = result(f"{name}{rn}.{kind} %h9, %h0, %h1;", a, b, to=dtype).astype(np.float32)
    np.testing.assert_array_equal(scalar, expected)
    pairs = result(f"{name}{rn}.{kind}x2 %r9, %r0, %r1;", a.view(U32), b.view(U32), to=U32).view(
        dtype
    )
    np.testing.assert_array_equal(pairs.astype(np.float32), expected)


def test_fma_of_pairs() -> None:
    rng = np.random.default_rng(6)
    a, b, c = (rng.integers(-8, 8, 64).astype(np.float16) for _ in range(3))
    found = result(
        "fma.rn.f16x2 %r9, %r0, %r1, %r2;", a.view(U32), b.view(U32), c.view(U32), to=U32
    )
    np.testing.assert_array_equal(found.view(np.float16), a * b + c)


def test_two_f32_at_once() -> None:
    """On sm_100 and up; each half is rounded as alone."""
    generator = np.random.default_rng(5)
    a, b, c = (generator.uniform(-2, 2, 64).astype(np.float32) for _ in range(3))
    pairs = [x.view(np.uint64) for x in (a, b, c)]
    found = result("fma.rn.f32x2 %d9, %d0, %d1, %d2;", *pairs, to=np.uint64).view(np.float32)
    alone = result("fma.rn.f32 %r9, %r0, %r1, %r2;", a, b, c, to=np.float32)
    same(found, alone)
    found = result("add.rn.f32x2 %d9, %d0, %d1;", *pairs[:2], to=np.uint64).view(np.float32)
    same(found, a + b)


@pytest.mark.parametrize(
    "text", ["min.f32x2 %d9, %d0, %d1;", "fma.rn.sat.f32x2 %d9, %d0, %d1, %d1;"]
)
def test_other_instructions_do_not_take_two_f32(text: str) -> None:
    pairs = np.zeros(4, np.uint64)
    with pytest.raises(PtxFault, match="GEM1001"):
        result(text, pairs, pairs, to=np.uint64)
