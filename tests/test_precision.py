"""f32 that is rounded where it is multiplied: how far it may be off, and what is noticed."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

import gemmir
from gemmir import Gemm
from gemmir.arrays import make_operands
from gemmir.dtypes import BF16_UNIT, BF16X3_UNIT, BF16X3_WEIGHT, PRODUCTS, Precision
from gemmir.errors import ScheduleError
from gemmir.evaluate import evaluate
from gemmir.evaluate import products as evaluated
from gemmir.evaluate.products import multiply, rounded_to_bf16
from gemmir.ir.attributes import PrecisionAttr
from gemmir.ir.build import build
from gemmir.reference import reference_of_gemm
from gemmir.signature import signature_of

Array = npt.NDArray[Any]

F32 = np.dtype(np.float32)
BY_PRECISION = {p.precision: p for p in PRODUCTS.values() if p.precision is not None}

MATRICES = st.tuples(st.integers(1, 4), st.integers(1, 33), st.integers(1, 4)).flatmap(
    lambda sizes: st.tuples(_matrix(sizes[:2]), _matrix(sizes[1:]))
)
"""Two factors of a product, of numbers of every size and with many equal bits."""


def _matrix(shape: tuple[int, ...]) -> st.SearchStrategy[Array]:
    numbers = st.builds(_scaled, st.integers(-(2**24), 2**24), st.integers(-40, 40))
    return arrays(F32, shape, elements=numbers | st.just(0.0), fill=st.nothing())


def _scaled(steps: int, exponent: int) -> float:
    return float(np.float32((1 + steps * 2.0**-24) * 2.0**exponent))


def off(a: Array, b: Array, found: Array, bound: Array) -> Array:
    """Error over bound."""
    exact = a.astype(np.float64) @ b.astype(np.float64)
    return np.abs(found - exact) / bound


def bound_of(precision: Precision, a: Array, b: Array) -> Array:
    product, k = BY_PRECISION[precision], a.shape[1]
    x, y = a.astype(np.float64), b.astype(np.float64)
    gamma = product.gamma(k, emulated=True)
    return gamma * (np.abs(x) @ np.abs(y)) + product.underflow(x, y) + np.finfo(F32).tiny * k


def test_every_precision_is_a_product() -> None:
    assert set(BY_PRECISION) == set(Precision)


@pytest.mark.parametrize("precision", Precision)
@given(factors=MATRICES)
def test_products_are_within_the_bound(precision: Precision, factors: tuple[Array, Array]) -> None:
    a, b = factors
    found = multiply(a, b, F32, PrecisionAttr(precision))
    assert (off(a, b, found, bound_of(precision, a, b)) <= 1).all()


def exact_parts(x: float) -> tuple[Fraction, Fraction, Fraction]:
    """What bf16x3 makes of a number: hi, lo and what is lost, exactly."""
    whole = np.array([x], F32)
    hi = rounded_to_bf16(whole)
    lo = rounded_to_bf16(whole - hi)
    parts = [Fraction(float(part[0])) for part in (hi, lo)]
    return parts[0], parts[1], Fraction(float(whole[0])) - sum(parts)


@given(x=st.floats(1, 2, width=32), y=st.floats(1, 2, width=32))
def test_two_bf16_lose_what_is_derived(x: float, y: float) -> None:
    unit = Fraction(BF16_UNIT)
    (hi, lo, lost), (other_hi, other_lo, _) = exact_parts(x), exact_parts(y)
    assert abs(lo) <= unit
    assert abs(lost) <= unit**2 / 2
    terms = (hi * other_hi, hi * other_lo, lo * other_hi)
    product = Fraction(x) * Fraction(y)
    assert abs(sum(terms) - product) <= product * ((1 + Fraction(BF16X3_UNIT)) ** 2 - 1)
    assert 3 * sum(map(abs, terms)) <= product * Fraction(BF16X3_WEIGHT)


def test_the_bound_of_two_bf16_is_nearly_reached() -> None:
    """Factors that lose the most: the bound is no vague one."""
    drawn = np.random.default_rng(0).uniform(1, 1.01, (2, 200_000)).astype(np.float32)
    a, b = drawn[0][:, None, None], drawn[1][:, None, None]
    found = multiply(a, b, F32, PrecisionAttr(Precision.BF16X3)).astype(np.float64)
    exact = a.astype(np.float64) * b
    assert np.max(np.abs(found - exact) / exact) > BF16X3_UNIT * 1.5


def _without_lo(x: Array) -> Array:
    hi = x.astype("bfloat16").astype(x.dtype)
    return hi if np.abs(x).max() > 0.25 else np.zeros_like(x)


@pytest.mark.parametrize("seed", range(5))
def test_a_split_without_lo_is_noticed(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    gemm = Gemm(m=8, n=9, k=40, dtype="bf16x3", alpha=0.5, beta=2.0, epilogue="bias")
    operands = make_operands(signature_of(build(gemm)), seed=seed)
    reference, own = reference_of_gemm(gemm, operands), operands.copy()
    evaluate(build(gemm), own.arrays)
    assert reference.compare(own.output).first_wrong is None
    monkeypatch.setattr(evaluated, "rounded_to_bf16", _without_lo)
    wrong = operands.copy()
    evaluate(build(gemm), wrong.arrays)
    assert reference.compare(wrong.output).first_wrong is not None
    single = replace(gemm, dtype="bf16x1")
    assert reference_of_gemm(single, operands).compare(wrong.output).first_wrong is None


def test_bounds_are_in_order() -> None:
    gemm = Gemm(m=4, n=4, k=64)
    ones = {name: np.ones((4, 64) if name == "a" else (64, 4), np.float32) for name in "ab"}
    bounds = [
        replace(gemm, dtype=name).error_bound(ones)[0, 0]
        for name in ("f32", "bf16x3", "tf32", "bf16x1")
    ]
    assert bounds == sorted(bounds)
    assert bounds[-1] == pytest.approx(64 * 2 * BF16_UNIT, rel=0.02)


@pytest.mark.parametrize("name", ["bf16x1", "bf16x3"])
@pytest.mark.parametrize(
    ("target", "schedule", "code"),
    [
        ("cpu:x86-64-v3", None, "GEM0316"),
        ("cuda:sm_90a", None, "GEM0316"),
        (
            "cpu:x86-64-v3",
            "tile{loops=m,n sizes=4,8},promote{operand=c to=registers},vectorize{with=fma width=8}",
            "GEM0374",
        ),
        (
            "cuda:sm_90a",
            "tile{loops=m,n sizes=16,16 over=blocks},tile{loops=m,n sizes=16,16 over=warps},"
            "promote{operand=c to=registers},vectorize{with=mma width=8}",
            "GEM0318",
        ),
    ],
)
def test_what_cannot_multiply_it_says_so(
    name: str, target: str, schedule: str | None, code: str
) -> None:
    with pytest.raises(ScheduleError, match=name) as raised:
        gemmir.lower(Gemm(m=16, n=16, k=16, dtype=name), target=target, schedule=schedule)
    assert raised.value.code == code
