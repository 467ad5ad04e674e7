"""Tables of what instructions compute: PTX ISA, sections on integer, floating-point, logic and
comparison instructions."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np

from gemmir.backends.ptx.emulator import floats
from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.values import Array

Function: TypeAlias = Callable[..., Array]
Unary: TypeAlias = Callable[[Array], Array]
Binary: TypeAlias = Callable[[Array, Array], Array]


def _shift(left: bool) -> Binary:
    """Shifts by the width or more give 0, or the sign."""

    def shift(a: Array, b: Array) -> Array:
        width = 8 * a.dtype.itemsize
        by = np.minimum(b.astype(np.uint64), width - 1).astype(a.dtype)
        found = a << by if left else a >> by
        is_signed = a.dtype.kind == "i" and not left
        return found if is_signed else np.where(b >= width, a.dtype.type(0), found)

    return shift


def high_product(a: Array, b: Array) -> Array:
    """The upper half of a product."""
    width = 8 * a.dtype.itemsize
    if width == 64:
        return np.array(
            [(int(x) * int(y) >> 64) for x, y in zip(a, b, strict=True)], object
        ).astype(a.dtype)
    wide = np.dtype(f"{a.dtype.kind}8")
    return (a.astype(wide) * b.astype(wide) >> wide.type(width)).astype(a.dtype)


def wide_product(a: Array, b: Array) -> Array:
    """A product of twice the width."""
    dtype = np.dtype(f"{a.dtype.kind}{2 * a.dtype.itemsize}")
    return a.astype(dtype) * b.astype(dtype)


def _of_24_bits(a: Array) -> Array:
    """The lower 24 bits, with their sign where the type has one."""
    return (a << a.dtype.type(8) >> a.dtype.type(8)).astype(f"{a.dtype.kind}8")


def low_product_24(a: Array, b: Array) -> Array:
    """Bits 0 to 31 of the product of 24 bits by 24."""
    return (_of_24_bits(a) * _of_24_bits(b)).astype(a.dtype)


def high_product_24(a: Array, b: Array) -> Array:
    """Bits 16 to 47 of the product of 24 bits by 24."""
    product = _of_24_bits(a) * _of_24_bits(b)
    return (product >> product.dtype.type(16)).astype(a.dtype)


def _least(a: Array, b: Array) -> Array:
    return np.minimum(a, b) if a.dtype.kind in "ui" else floats.least(a, b)


def _largest(a: Array, b: Array) -> Array:
    return np.maximum(a, b) if a.dtype.kind in "ui" else floats.largest(a, b)


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind not in "ui":
        return a / b
    if not b.all():
        raise FaultError("GEM1001", "an integer is divided by 0", int(np.argmin(b)))
    if a.dtype.kind == "u":
        return a // b
    remainder = np.fmod(a, b)
    return (a - remainder) // b


def _remainder(a: Array, b: Array) -> Array:
    return a - _divide(a, b) * b


BINARY: Final[Mapping[str, Binary]] = {
    "add": floats.widened(operator.add),
    "and": np.bitwise_and,
    "copysign": lambda a, b: np.copysign(b, a),
    "div": floats.widened(_divide),
    "max": _largest,
    "min": _least,
    "or": np.bitwise_or,
    "rem": _remainder,
    "shl": _shift(left=True),
    "shr": _shift(left=False),
    "sub": floats.widened(operator.sub),
    "xor": np.bitwise_xor,
}


def _abs(a: Array) -> Array:
    return np.abs(a) if a.dtype.kind in "ui" else _without_sign(a)


def _without_sign(a: Array) -> Array:
    bits = a.view(f"u{a.dtype.itemsize}")
    return (bits & bits.dtype.type((1 << (8 * bits.itemsize - 1)) - 1)).view(a.dtype)


def _negate(a: Array) -> Array:
    if a.dtype.kind in "ui":
        return np.zeros_like(a) - a
    bits = a.view(f"u{a.dtype.itemsize}")
    return (bits ^ bits.dtype.type(1 << (8 * bits.itemsize - 1))).view(a.dtype)


UNARY: Final[Mapping[str, Unary]] = {
    "abs": _abs,
    "cnot": lambda a: (a == 0).astype(a.dtype),
    "cos": floats.through_f64(np.cos),
    "ex2": floats.through_f64(np.exp2),
    "lg2": floats.through_f64(np.log2),
    "mov": lambda a: a,
    "neg": _negate,
    "not": operator.invert,
    "rcp": lambda a: a.dtype.type(1) / a,
    "rsqrt": floats.through_f64(lambda x: 1 / np.sqrt(x)),
    "sin": floats.through_f64(np.sin),
    "sqrt": np.sqrt,
    "tanh": floats.through_f64(np.tanh),
}

COMPARISONS: Final[Mapping[str, Binary]] = {
    "eq": operator.eq,
    "ne": lambda a, b: (a != b) & (a == a) & (b == b),
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "lo": operator.lt,
    "ls": operator.le,
    "hi": operator.gt,
    "hs": operator.ge,
    "equ": lambda a, b: ~((a < b) | (a > b)),
    "neu": operator.ne,
    "ltu": lambda a, b: ~(a >= b),
    "leu": lambda a, b: ~(a > b),
    "gtu": lambda a, b: ~(a <= b),
    "geu": lambda a, b: ~(a < b),
    "num": lambda a, b: (a == a) & (b == b),
    "nan": lambda a, b: (a != a) | (b != b),
}

BOOLEANS: Final[Mapping[str, Binary]] = {
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}

PRODUCTS: Final[Mapping[str, Binary]] = {
    "lo": operator.mul,
    "hi": high_product,
    "wide": wide_product,
}

PRODUCTS_24: Final[Mapping[str, Binary]] = {"lo": low_product_24, "hi": high_product_24}


def _mask(length: Array, dtype: np.dtype[Any]) -> Array:
    """As many low bits as `length` says, of a type."""
    width = 8 * dtype.itemsize
    by = np.minimum(length, width - 1).astype(dtype)
    one = np.ones(1, dtype)
    ones: Array = (one << by) - one
    return np.where(length >= width, ~np.zeros(1, dtype), ones)


def extract(value: Array, start: Array, length: Array) -> Array:
    """bfe: `length` bits of `value` from `start` on, filled up with the sign where it has one."""
    width = 8 * value.dtype.itemsize
    first, count = (start & 0xFF).astype(np.int64), (length & 0xFF).astype(np.int64)
    bits = value.view(f"u{value.dtype.itemsize}")
    kept = _mask(np.clip(np.minimum(count, width - first), 0, width), bits.dtype)
    found = (bits >> np.minimum(first, width - 1).astype(bits.dtype)) & kept
    if value.dtype.kind == "u":
        return found
    last = np.clip(first + count - 1, 0, width - 1).astype(bits.dtype)
    negative = ((bits >> last) & bits.dtype.type(1) == 1) & (count > 0)
    return np.where(negative, found | ~kept, found).view(value.dtype)


def insert(a: Array, b: Array, start: Array, length: Array) -> Array:
    """bfi: `length` bits of `a` in place of those of `b` from `start` on."""
    width = 8 * a.dtype.itemsize
    start, length = start & 0xFF, length & 0xFF
    mask = _mask(length, a.dtype)
    by = np.minimum(start, width - 1).astype(a.dtype)
    placed, where = (a & mask) << by, mask << by
    return np.where(start >= width, b, (b & ~where) | placed)


def count_ones(a: Array) -> Array:
    """popc: the bits that are set."""
    return np.bitwise_count(a).astype(np.uint32)


def leading_zeros(a: Array) -> Array:
    """clz: the zeros above the highest bit that is set."""
    width = 8 * a.dtype.itemsize
    for by in (1, 2, 4, 8, 16, 32):
        if by < width:
            a = a | a >> a.dtype.type(by)
    return (width - np.bitwise_count(a).astype(np.uint32)).astype(np.uint32)


def reverse(a: Array) -> Array:
    """brev: the bits in the other order."""
    swapped = a.byteswap()
    for by, low in ((4, 0x0F), (2, 0x33), (1, 0x55)):
        mask = a.dtype.type(int.from_bytes(bytes([low]) * a.dtype.itemsize, "little"))
        shift = a.dtype.type(by)
        swapped = ((swapped & mask) << shift) | ((swapped >> shift) & mask)
    return swapped


def table_of_three(a: Array, b: Array, c: Array, table: int) -> Array:
    """lop3: each bit of the result is the one of `table` that the bits of a, b and c number."""
    found = np.zeros_like(a)
    for row in range(8):
        if table >> row & 1:
            found |= (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
    return found


def funnel(a: Array, b: Array, by: Array, *, left: bool, wrap: bool) -> Array:
    """shf: 32 bits of `b` above `a`, shifted by at most 32."""
    both = (b.astype(np.uint64) << np.uint64(32)) | a
    amount = (by & 31 if wrap else np.minimum(by, 32)).astype(np.uint64)
    moved = both << amount >> np.uint64(32) if left else both >> amount
    return moved.astype(np.uint32)


def permute(a: Array, b: Array, selector: Array) -> Array:
    """prmt: four bytes of the eight in a and b; the top bit of a choice repeats the byte's sign."""
    source = np.stack([a, b], axis=1).view(np.uint8)
    found = np.zeros((len(a), 4), np.uint8)
    for byte in range(4):
        choice = (selector >> np.uint32(4 * byte)) & np.uint32(0xF)
        chosen = source[np.arange(len(a)), choice & 7]
        sign = np.where(chosen & 0x80, 0xFF, 0).astype(np.uint8)
        found[:, byte] = np.where(choice & 8, sign, chosen)
    return found.view(np.uint32)[:, 0]
