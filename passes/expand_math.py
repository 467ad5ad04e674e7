"""Write `math.exp` on vectors as arithmetic that every vector unit has.

    exp(x) = 2**(i-1) * 2 p(r),   i = round(x / ln 2),   r = x - i * ln 2,   |r| <= ln 2 / 2

p is a polynomial by Horner's rule and 2**(i-1), which is finite wherever exp(x) is, is put together
from exponent bits (Cody and Waite, Software Manual for the Elementary Functions, 1980, chapter 6;
ln 2 is split in two so that r is exact). The error is below 2 units in the last place. Arguments
are clamped to `ExpFormat.low` and `high`, where the result is within a factor of 1.5 of the least
normal and of the greatest number: there is no infinity, no zero and no denormal number.
"""

from __future__ import annotations

import math as pymath
from dataclasses import dataclass
from typing import Final

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, builtin, math
from xdsl.dialects.builtin import (
    AnyFloat,
    DenseIntOrFPElementsAttr,
    IntegerType,
    VectorType,
    f32,
    i32,
    i64,
)
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from gemmir.errors import ScheduleError
from gemmir.ir.index import before, entry_constant


@dataclass(frozen=True, kw_only=True)
class ExpFormat:
    """What exp needs to know of an IEEE format.

    `low` is where 2**(i-1) is still normal, `high` where exp is still finite.
    """

    low: float
    high: float
    ln2_high: float
    ln2_low: float
    degree: int
    mantissa_bits: int
    bias: int
    bits: IntegerType

    @property
    def shifter(self) -> float:
        """1.5 * 2**mantissa_bits: adding it rounds to an integer, left in the lowest bits."""
        return 1.5 * 2.0**self.mantissa_bits

    @property
    def coefficients(self) -> tuple[float, ...]:
        """Taylor coefficients of 2 exp, highest first; where |r| <= ln 2 / 2 the rest is tiny."""
        return tuple(2 / pymath.factorial(n) for n in range(self.degree, -1, -1))


F32: Final = ExpFormat(
    low=-86.98,
    high=88.72,
    ln2_high=0.693359375,
    ln2_low=-2.12194440e-4,
    degree=7,
    mantissa_bits=23,
    bias=127,
    bits=i32,
)
F64: Final = ExpFormat(
    low=-708.0,
    high=709.78,
    ln2_high=6.93145751953125e-1,
    ln2_low=1.42860682030941723212e-6,
    degree=13,
    mantissa_bits=52,
    bias=1023,
    bits=i64,
)
"""The splits of ln 2 are those of Cephes (Moshier, Methods and Programs for Mathematical Functions,
1989), expf and exp."""


class _Vectors:
    """Elementwise arithmetic on vectors of one type."""

    def __init__(self, builder: Builder, anchor: math.ExpOp, made: VectorType[AnyFloat]) -> None:
        self.builder = builder
        self.anchor = anchor
        self.made = made

    def floats(self, value: float) -> SSAValue:
        return entry_constant(self.anchor, DenseIntOrFPElementsAttr.from_list(self.made, [value]))

    def integers(self, value: int, bits: IntegerType) -> SSAValue:
        made = VectorType(bits, self.made.get_shape())
        return entry_constant(self.anchor, DenseIntOrFPElementsAttr.from_list(made, [value]))

    def fma(self, x: SSAValue, y: SSAValue, z: SSAValue) -> SSAValue:
        return self.builder.insert(math.FmaOp(x, y, z)).result


def expand_exp(op: math.ExpOp) -> None:
    """Replace `op` by arithmetic."""
    made = op.result.type
    assert isinstance(made, VectorType)
    format_ = F32 if made.element_type == f32 else F64
    v = _Vectors(before(op), op, made)
    insert = v.builder.insert
    clamped = insert(arith.MinimumfOp(op.operand, v.floats(format_.high))).result
    x = insert(arith.MaximumfOp(clamped, v.floats(format_.low))).result
    scaled = insert(arith.MulfOp(x, v.floats(1 / pymath.log(2)))).result
    shifted = insert(arith.AddfOp(scaled, v.floats(format_.shifter))).result
    power = insert(arith.SubfOp(shifted, v.floats(format_.shifter))).result
    r = v.fma(power, v.floats(-format_.ln2_high), x)
    r = v.fma(power, v.floats(-format_.ln2_low), r)
    first, *rest = format_.coefficients
    polynomial = v.floats(first)
    for coefficient in rest:
        polynomial = v.fma(polynomial, r, v.floats(coefficient))
    result = insert(arith.MulfOp(polynomial, _power_of_two(v, shifted, format_))).result
    op.result.replace_all_uses_with(result)
    op.detach()
    op.erase()


def _power_of_two(v: _Vectors, shifted: SSAValue, format_: ExpFormat) -> SSAValue:
    """2**(i-1) for the integer i in the low bits of `shifted`, by writing its exponent."""
    insert = v.builder.insert
    made = VectorType(format_.bits, v.made.get_shape())
    integer = insert(arith.BitcastOp(shifted, made)).result
    biased = insert(arith.AddiOp(integer, v.integers(format_.bias - 1, format_.bits))).result
    shift = v.integers(format_.mantissa_bits, format_.bits)
    bits = insert(arith.ShLIOp(biased, shift)).result
    return insert(arith.BitcastOp(bits, v.made)).result


@dataclass(frozen=True)
class ExpandMath(ModulePass):
    """Expand `math.exp` on vectors."""

    name = "gemmir-expand-math"

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        found = [
            o
            for o in op.walk()
            if isinstance(o, math.ExpOp) and isinstance(o.result.type, VectorType)
        ]
        if not found:
            raise ScheduleError(
                "GEM0385",
                "expand-math: there is no math.exp on vectors",
                "put it after vectorize, or leave it out",
            )
        for exp in found:
            expand_exp(exp)
