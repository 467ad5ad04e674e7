"""Types of the numbers that are multiplied, of their sums, and what fits into what."""

from __future__ import annotations

from typing import TypeAlias, cast

from xdsl.dialects.builtin import (
    AnyFloat,
    BFloat16Type,
    Float8E4M3FNType,
    Float8E5M2Type,
    Float16Type,
    IntegerType,
    Signedness,
    bf16,
    f16,
    f32,
    f64,
    i8,
    i16,
    i32,
)
from xdsl.ir import Attribute
from xdsl.utils.exceptions import VerifyException

from gemmir.dtypes import BY_MLIR
from gemmir.ir.attributes import PrecisionAttr

Number: TypeAlias = AnyFloat | IntegerType
"""The type of an element: i8 is signed, ui8 is not."""

FACTOR_BITS = (8, 16)
"""Bits of integers that are multiplied: their products have room in i32."""

UNSIGNED = (IntegerType(8, Signedness.UNSIGNED),)
"""Integers without a sign that elements can be."""

MOST_UNSIGNED = 255
"""The greatest number of ui8."""

SIGN_TAKEN = (i8, UNSIGNED[0])
"""Integers that have a sign, and what they are without one when 128 has been added."""

NARROW_FLOATS = (Float16Type, BFloat16Type, Float8E4M3FNType, Float8E5M2Type)
"""Types whose products are summed in f32."""


def accumulator_type(element: Attribute) -> Number:
    """The type in which products of `element` are summed: f32 at least, i32 of integers."""
    if isinstance(element, IntegerType):
        return i32
    return f32 if isinstance(element, NARROW_FLOATS) else cast("AnyFloat", element)


def summed_types(summed: Number) -> tuple[Number, ...]:
    """The types that a sum of type `summed` may be rounded to, its own first."""
    return (summed, f16, bf16) if summed == f32 else (summed,)


def summed_type(a: Attribute, b: Attribute) -> Number:
    """The type in which products of an `a` and a `b` are summed: that of the float of two kinds."""
    summed = accumulator_type(a)
    return accumulator_type(b) if isinstance(summed, IntegerType) else summed


def product_name(element: Attribute, precision: PrecisionAttr | None = None) -> str:
    """What is multiplied, as `Gemm.dtype` says it; the spelling of a type that it has no name for.

    `precision` says how f32 is rounded first.
    """
    if precision is not None:
        return precision.data.value
    spelled = str(element)
    return BY_MLIR[spelled].name if spelled in BY_MLIR else spelled


def require_product(name: str, element: Attribute, precision: PrecisionAttr | None) -> None:
    """Raise `VerifyException` unless elements of this type can be multiplied."""
    if isinstance(element, IntegerType) and element.bitwidth != 8:
        raise VerifyException(f"{name}: no products of {element}; use i8 or ui8")
    if precision is not None and element != f32:
        raise VerifyException(f"{name}: precision {precision.data} is for f32, not for {element}")


def require_factors(name: str, a: Attribute, b: Attribute, precision: PrecisionAttr | None) -> None:
    """Raise `VerifyException` unless an `a` can be multiplied by a `b`.

    Of different types both are widened exactly to that of the sum, or as integers to any that
    holds their product: floats that are summed in one type, integers of 8 and 16 bits, or one of
    each. Integers of 4 bits are factors of floats.
    """
    for element in (a, b):
        is_weight = b == IntegerType(4) and not _is_integer(a)
        known = FACTOR_BITS if not is_weight else (4, *FACTOR_BITS)
        if isinstance(element, IntegerType) and element.bitwidth not in known:
            raise VerifyException(f"{name}: no products of {element}; use i8 or ui8")
        if precision is not None and element != f32:
            raise VerifyException(
                f"{name}: precision {precision.data} is for f32, not for {element}"
            )
    sums = {accumulator_type(element) for element in (a, b)}
    if len(sums - {i32}) > 1:
        raise VerifyException(f"{name}: element types {[str(a), str(b)]} differ")


def _is_integer(element: Attribute) -> bool:
    return isinstance(element, IntegerType)


def dot_depth(a: Attribute, b: Attribute) -> int | None:
    """How many products of an `a` and a `b` are added to a sum at once; None where there is one.

    32 bits hold so many of each: 4 of 8 bits, with and without a sign, and 2 of i16 or bf16.
    """
    if a == b and a in (bf16, i16):
        return 2
    are_bytes = all(isinstance(x, IntegerType) and x.bitwidth == 8 for x in (a, b))
    return 4 if are_bytes else None


def is_unsigned(element: Attribute) -> bool:
    """Whether a type is one of integers that have no sign, as ui8 is."""
    return element in UNSIGNED


def is_widening(source: Attribute, target: Attribute) -> bool:
    """Whether every number of the type `source` is one of the type `target`."""
    if source == target:
        return True
    if not isinstance(source, IntegerType):
        return (isinstance(source, Float16Type | BFloat16Type) and target in (f32, f64)) or (
            source == f32 and target == f64
        )
    if not isinstance(target, IntegerType):
        return target in (f32, f64) and source.bitwidth <= FACTOR_BITS[-1]
    return target not in UNSIGNED and target.bitwidth > source.bitwidth
