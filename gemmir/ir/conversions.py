"""Vectors of numbers in a wider type, which holds the same numbers."""

from __future__ import annotations

from typing import cast

from xdsl.builder import Builder
from xdsl.dialects import arith
from xdsl.dialects.builtin import (
    IntegerType,
    UnrealizedConversionCastOp,
    VectorType,
)
from xdsl.ir import Operation, SSAValue

from gemmir.ir.dialect import ExtendOp, Number, is_unsigned


def converted(builder: Builder, value: SSAValue, element: Number) -> SSAValue:
    """`value`, a vector of numbers, in the type `element`, which holds all of its own.

    arith makes floats of signless integers only: others are cast to those first.
    """
    of = cast("VectorType[Number]", value.type)
    source, made = of.element_type, VectorType(element, of.get_shape())
    if source == element:
        return value
    if not isinstance(source, IntegerType):
        return _made(builder, arith.ExtFOp, value, made)
    if isinstance(element, IntegerType):
        return builder.insert(ExtendOp(value, made)).result
    if not is_unsigned(source):
        return _made(builder, arith.SIToFPOp, value, made)
    plain = VectorType(IntegerType(source.bitwidth), of.get_shape())
    bits = builder.insert(UnrealizedConversionCastOp.get([value], [plain])).results[0]
    return _made(builder, arith.UIToFPOp, bits, made)


def _made(
    builder: Builder, op: type[Operation], value: SSAValue, made: VectorType[Number]
) -> SSAValue:
    """What `op` makes of a vector: xDSL's constructors know scalars only."""
    return builder.insert(op.create(operands=[value], result_types=[made])).results[0]
