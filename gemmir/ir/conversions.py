"""Vectors of numbers in a wider type, which holds the same numbers, or without their sign."""

from __future__ import annotations

from typing import cast

from xdsl.builder import Builder
from xdsl.dialects import arith
from xdsl.dialects.builtin import IntegerType, VectorType
from xdsl.ir import SSAValue

from gemmir.ir.dialect import SIGN_TAKEN, ExtendOp, Number, UnsignOp


def converted(builder: Builder, value: SSAValue, element: Number, *, exponent: int = 0) -> SSAValue:
    """`value`, a vector of numbers, in the type `element`, which holds all of its own.

    Of integers as floats it may be the number times 2**exponent; of i8 as ui8 it is 128 more.
    """
    of = cast("VectorType[Number]", value.type)
    source, made = of.element_type, VectorType(element, of.get_shape())
    if source == element:
        return value
    if (source, element) == SIGN_TAKEN:
        return builder.insert(UnsignOp(value)).result
    if isinstance(source, IntegerType):
        return builder.insert(ExtendOp(value, made, exponent)).result
    wider = arith.ExtFOp.create(operands=[value], result_types=[made])
    return builder.insert(wider).results[0]
