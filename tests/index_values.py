"""What an index of a module is, where the sizes of a call and the variables of loops are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from xdsl.dialects import arith
from xdsl.ir import Operation, SSAValue

from gemmir.ir.index import constant_of

MEANINGS: Final[Mapping[type[Operation], Callable[[int, int], int]]] = {
    arith.AddiOp: lambda a, b: a + b,
    arith.SubiOp: lambda a, b: a - b,
    arith.MuliOp: lambda a, b: a * b,
    arith.DivUIOp: lambda a, b: a // b,
    arith.RemSIOp: lambda a, b: a % b,
    arith.MinSIOp: min,
    arith.MaxSIOp: max,
}


def index_value(value: SSAValue, given: Mapping[SSAValue, int]) -> int:
    """The number that `value` stands for; operands of a division are not negative."""
    known = given.get(value, constant_of(value))
    if known is not None:
        return known
    assert isinstance(value.owner, Operation)
    left, right = (index_value(operand, given) for operand in value.owner.operands)
    return MEANINGS[type(value.owner)](left, right)
