"""Floating-point operations, rounded once to the type of their operands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast

import numpy as np

from gemmir.backends.ptx.emulator.values import BF16, Array

CANONICAL_NAN_16: Final = np.uint16(0x7FFF)
"""What an operation of 16-bit floats gives for NaN: PTX ISA, section "Half precision"."""

Operation = TypeVar("Operation", bound=Callable[..., Array])

EXPONENT_AND_SIGN: Final[Mapping[np.dtype[Any], tuple[int, int]]] = {
    np.dtype(np.float16): (0x7C00, 0x8000),
    BF16: (0x7F80, 0x8000),
    np.dtype(np.float32): (0x7F800000, 0x80000000),
}
"""Which bits of a number these are."""

LEAST_NORMAL: Final = 2.0**-126


def fused_multiply_add(a: Array, b: Array, c: Array) -> Array:
    """a * b + c, rounded once.

    In f32 and below the product is exact in f64. The sum is rounded to odd there, so that rounding
    it again gives what one rounding would: Boldo and Melquiond, Emulation of FMA and correctly
    rounded sums, IEEE Trans. Computers 57(4), 2008; the algorithm for f64 is theirs too.
    """
    if a.dtype == np.float32:
        return _fma_f32(a, b, c)
    if a.dtype.itemsize == 2:
        wide = a.astype(np.float64) * b.astype(np.float64)
        return narrow(_odd_sum(wide, c.astype(np.float64)), a.dtype)
    product = a * b
    low = _product_error(a, b, product)
    high, rest = _two_sum(c, low)
    total, more = _two_sum(product, high)
    found = total + _odd_sum(more, rest)
    return np.where(np.isfinite(found) & np.isfinite(low), found, product + c)


def _fma_f32(a: Array, b: Array, c: Array) -> Array:
    """Rounding twice is wrong only near the middle of two numbers, and below the normal ones."""
    product, addend = a.astype(np.float64) * b, c.astype(np.float64)
    total = product + addend
    middle = (total.view(np.int64) & 0x1FFFFFFF) == 0x10000000
    if middle.any() or (np.abs(total) < 2 * LEAST_NORMAL).any():
        total = _odd_sum(product, addend)
    return total.astype(np.float32)


def narrow(wide: Array, dtype: np.dtype[np.generic]) -> Array:
    """f64 that was rounded to odd, as a 16-bit type; a NaN is the canonical one."""
    if dtype == BF16:
        return to_bf16(_odd_f32(wide))
    return canonical(wide.astype(dtype))


def to_bf16(value: Array) -> Array:
    """f32 as bf16; a NaN is the canonical one."""
    return canonical(value.astype(BF16))


def canonical(value: Array) -> Array:
    """16-bit floats with one NaN."""
    return np.where(value != value, CANONICAL_NAN_16.view(value.dtype), value)


def _odd_f32(wide: Array) -> Array:
    """f64 as f32, rounded to odd."""
    near = wide.astype(np.float32)
    return _to_odd(near, wide - near)


def _odd_sum(a: Array, b: Array) -> Array:
    """a + b, rounded to odd."""
    total, error = _two_sum(a, b)
    return _to_odd(total, error)


def _to_odd(near: Array, error: Array) -> Array:
    """The odd one of the two numbers around `near` + `error`, where that is not exact."""
    bits = near.view(np.int64 if near.dtype == np.float64 else np.int32)
    inexact = (error != 0) & (bits & 1 == 0) & np.isfinite(near)
    toward = np.where(error > 0, np.inf, -np.inf).astype(near.dtype)
    return np.where(inexact, np.nextafter(near, toward), near)


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """a + b and what is lost in it: Knuth's TwoSum."""
    total = a + b
    other = total - a
    return total, (a - (total - other)) + (b - other)


def _product_error(a: Array, b: Array, product: Array) -> Array:
    """What is lost in a * b: Dekker's product with Veltkamp's splitting."""
    (a_high, a_low), (b_high, b_low) = _split(a), _split(b)
    return ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _split(x: Array) -> tuple[Array, Array]:
    scaled = x * 134217729.0
    high = scaled - (scaled - x)
    return high, x - high


def widened(operation: Operation) -> Operation:
    """`operation`, in f32 for 16-bit floats: 24 bits are enough to round +, -, *, / and root twice.

    Figueroa, When is double rounding innocuous?, SIGNUM Newsletter 30(3), 1995.
    """

    def run(*values: Array) -> Array:
        dtype = values[0].dtype
        if dtype.itemsize != 2 or dtype.kind in "ui":
            return operation(*values)
        found = operation(*(v.astype(np.float32) for v in values))
        return to_bf16(found) if dtype == BF16 else canonical(found.astype(dtype))

    return cast("Operation", run)


def through_f64(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """An approximate function of f32, in f64 and rounded once more."""

    def run(x: Array) -> Array:
        return function(x.astype(np.float64)).astype(x.dtype)

    return widened(run)


def flush(value: Array) -> Array:
    """Subnormal numbers become zeros of their sign."""
    bits = value.view(f"u{value.dtype.itemsize}")
    exponent, sign = (bits.dtype.type(mask) for mask in EXPONENT_AND_SIGN[value.dtype])
    return np.where(bits & exponent == 0, bits & sign, bits).view(value.dtype)


def saturate(value: Array) -> Array:
    """Into [0, 1]; NaN becomes 0."""
    zero, one = value.dtype.type(0), value.dtype.type(1)
    return np.where(value > zero, np.where(value < one, value, one), zero)


def least(a: Array, b: Array) -> Array:
    """The smaller one, a number rather than NaN, and -0 rather than 0."""
    return _chosen(a, b, a < b, lambda x, y: x | y)


def largest(a: Array, b: Array) -> Array:
    """The larger one, a number rather than NaN, and 0 rather than -0."""
    return _chosen(a, b, a > b, lambda x, y: x & y)


def _chosen(a: Array, b: Array, first: Array, same: Callable[[Array, Array], Array]) -> Array:
    bits = np.dtype(f"u{a.dtype.itemsize}")
    equal = same(a.view(bits), b.view(bits)).view(a.dtype)
    found = np.where(first | (b != b), a, np.where(a == b, equal, b))
    return np.where((a != a) & (b != b), _nan(a.dtype), found)


def _nan(dtype: np.dtype[np.generic]) -> Array:
    """The canonical NaN of a type."""
    bits = {2: 0x7FFF, 4: 0x7FFFFFFF, 8: 0x7FFFFFFFFFFFFFFF}[dtype.itemsize]
    return np.array(bits, f"u{dtype.itemsize}").view(dtype)


def or_nan(operation: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """`operation`, with NaN where an operand is."""

    def run(a: Array, b: Array) -> Array:
        return np.where((a != a) | (b != b), _nan(a.dtype), operation(a, b))

    return run
