"""Instructions from registers to registers: PTX ISA, sections on integer, floating-point, logic,
comparison, movement and conversion instructions.

Each entry of the table takes the modifiers of an instruction and its source values.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np

from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.lanes import TYPES, Array

Binary: TypeAlias = Callable[[Array, Array], Array]


def fused_multiply_add(a: Array, b: Array, c: Array) -> Array:
    """a * b + c, rounded once in f32.

    The product is exact in f64; their sum is rounded to odd there, so that rounding it again to f32
    gives what one rounding would: Boldo and Melquiond, Emulation of FMA and correctly rounded sums,
    IEEE Trans. Computers 57(4), 2008. In f64 the errors of product and sum are added back, which
    rounds twice where they cancel.
    """
    if a.dtype == np.float32:
        product, addend = a.astype(np.float64) * b, c.astype(np.float64)
        total = product + addend
        error = _sum_error(product, addend, total)
        bits = total.view(np.int64)
        inexact = (error != 0) & (bits & 1 == 0) & np.isfinite(total)
        odd = np.nextafter(total, np.where(error > 0, np.inf, -np.inf))
        return np.where(inexact, odd, total).astype(np.float32)
    product = a * b
    total = product + c
    correction = _product_error(a, b, product) + _sum_error(product, c, total)
    return np.where(np.isfinite(correction), total + correction, total)


def _sum_error(a: Array, b: Array, total: Array) -> Array:
    """What is lost in a + b: Knuth's TwoSum."""
    other = total - a
    return (a - (total - other)) + (b - other)


def _product_error(a: Array, b: Array, product: Array) -> Array:
    """What is lost in a * b: Dekker's product with Veltkamp's splitting."""
    (a_high, a_low), (b_high, b_low) = _split(a), _split(b)
    return ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _split(x: Array) -> tuple[Array, Array]:
    scaled = x * 134217729.0
    high = scaled - (scaled - x)
    return high, x - high


def _shift(left: bool) -> Binary:
    """Shifts by the width or more give 0, or the sign."""

    def shift(a: Array, b: Array) -> Array:
        width = 8 * a.dtype.itemsize
        by = np.minimum(b.astype(np.uint64), width - 1).astype(a.dtype)
        found = a << by if left else a >> by
        is_signed = a.dtype.kind == "i" and not left
        return found if is_signed else np.where(b >= width, a.dtype.type(0), found)

    return shift


def _high(a: Array, b: Array) -> Array:
    if a.dtype.itemsize != 4:
        raise FaultError("GEM1001", "mul.hi is known for 32 bits only")
    wide = np.int64 if a.dtype.kind == "i" else np.uint64
    return (a.astype(wide) * b.astype(wide) >> wide(32)).astype(a.dtype)


def _wide(a: Array, b: Array) -> Array:
    dtype = np.dtype(f"{a.dtype.kind}{2 * a.dtype.itemsize}")
    return a.astype(dtype) * b.astype(dtype)


def _least(a: Array, b: Array) -> Array:
    return np.fmin(a, b) if a.dtype.kind == "f" else np.minimum(a, b)


def _largest(a: Array, b: Array) -> Array:
    return np.fmax(a, b) if a.dtype.kind == "f" else np.maximum(a, b)


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return a / b
    if not b.all():
        raise FaultError("GEM1001", "an integer is divided by 0", int(np.argmin(b)))
    quotient = np.abs(a) // np.abs(b)
    return np.where((a < 0) ^ (b < 0), -quotient, quotient).astype(a.dtype)


def _remainder(a: Array, b: Array) -> Array:
    return a - _divide(a, b) * b


BINARY: Final[Mapping[str, Binary]] = {
    "add": operator.add,
    "and": operator.and_,
    "div": _divide,
    "max": _largest,
    "min": _least,
    "or": operator.or_,
    "rem": _remainder,
    "shl": _shift(left=True),
    "shr": _shift(left=False),
    "sub": operator.sub,
    "xor": operator.xor,
}

UNARY: Final[Mapping[str, Callable[[Array], Array]]] = {
    "abs": np.abs,
    "mov": lambda a: a,
    "neg": operator.neg,
    "not": operator.invert,
}

COMPARISONS: Final[Mapping[str, Binary]] = {
    "eq": operator.eq,
    "ne": lambda a, b: (a != b) & (a == a) & (b == b),
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "equ": lambda a, b: ~((a < b) | (a > b)),
    "neu": operator.ne,
    "ltu": lambda a, b: ~(a >= b),
    "leu": lambda a, b: ~(a > b),
    "gtu": lambda a, b: ~(a <= b),
    "geu": lambda a, b: ~(a < b),
    "num": lambda a, b: (a == a) & (b == b),
    "nan": lambda a, b: (a != a) | (b != b),
}

ROUNDING: Final = {"rn"}
"""Floating-point results are rounded to nearest; no other mode is known here."""

PRODUCTS: Final[Mapping[str, Binary]] = {"lo": operator.mul, "hi": _high, "wide": _wide}


def bit_field(value: Array, start: Array, length: Array) -> Array:
    """`length` bits of an unsigned `value` from `start` on."""
    wide = value.astype(np.uint64) >> np.minimum(start & 0xFF, 63).astype(np.uint64)
    mask = (np.uint64(1) << np.minimum(length & 0xFF, 32).astype(np.uint64)) - np.uint64(1)
    return (wide & mask).astype(value.dtype)


def convert(value: Array, to: str) -> Array:
    """Between integers, which are cut or extended; `FaultError` GEM1001 for anything else."""
    if value.dtype.kind not in "ui" or TYPES[to].kind not in "ui":
        raise FaultError("GEM1001", "cvt is known between integers only")
    return value.astype(TYPES[to])


def require_modifiers(found: tuple[str, ...], known: set[str]) -> None:
    """`FaultError` GEM1001 for a modifier that the instruction has not here."""
    for word in found:
        if word not in known:
            raise FaultError("GEM1001", f".{word} is not known here")


def as_type(kind: str) -> str:
    """`kind` if it is a type that registers can be read as."""
    if kind not in TYPES:
        raise FaultError("GEM1001", f".{kind} is no type")
    return kind


__all__: list[Any] = [
    "BINARY",
    "COMPARISONS",
    "PRODUCTS",
    "ROUNDING",
    "UNARY",
    "as_type",
    "bit_field",
    "convert",
    "fused_multiply_add",
    "require_modifiers",
]
