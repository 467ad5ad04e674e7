"""Vectors of numbers in a wider type, which holds the same numbers."""

from __future__ import annotations

from typing import cast

from xdsl.builder import Builder
from xdsl.dialects import arith
from xdsl.dialects.builtin import (
    IntegerType,
    Signedness,
    UnrealizedConversionCastOp,
    VectorType,
)
from xdsl.ir import Attribute, SSAValue

from gemmir.ir.dialect import ExtendOp, Number


def converted(builder: Builder, value: SSAValue, element: Number) -> SSAValue:
    """`value`, a vector of numbers, in the type `element`, which holds all of its own.

    arith makes floats of signless integers only: others are cast to those first.
    """
    of = cast("VectorType[Attribute]", value.type)
    source, made = of.element_type, VectorType(element, of.get_shape())
    if source == element:
        return value
    if not isinstance(source, IntegerType):
        return builder.insert(arith.ExtFOp(value, made)).results[0]
    if isinstance(element, IntegerType):
        return builder.insert(ExtendOp(value, made)).result
    if source.signedness.data != Signedness.UNSIGNED:
        return builder.insert(arith.SIToFPOp(value, made)).results[0]
    plain = VectorType(IntegerType(source.bitwidth), of.get_shape())
    bits = builder.insert(UnrealizedConversionCastOp.get([value], [plain])).results[0]
    return builder.insert(arith.UIToFPOp(bits, made)).results[0]
