"""Index arithmetic for passes: constants kept once at the entry of a function, and bounds.

An *extent* is an `int` where it is static and an SSA value of type index where it is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from xdsl.builder import Builder
from xdsl.dialects import arith, func
from xdsl.dialects.builtin import (
    DenseIntOrFPElementsAttr,
    FloatAttr,
    IndexType,
    IntegerAttr,
    IntegerType,
    Signedness,
    UnrealizedConversionCastOp,
)
from xdsl.ir import Block, Operation, SSAValue
from xdsl.rewriter import InsertPoint

from gemmir.ir.build import number_attr
from gemmir.ir.dialect import Number, enclosing_ops

Extent: TypeAlias = int | SSAValue

Constant: TypeAlias = IntegerAttr | FloatAttr | DenseIntOrFPElementsAttr

INDEX = IndexType()


def enclosing_function(op: Operation) -> func.FuncOp:
    """The function around `op`."""
    return next(o for o in (op, *enclosing_ops(op)) if isinstance(o, func.FuncOp))


def entry_constant(anchor: Operation, value: Constant) -> SSAValue:
    """The constant `value` at the entry of the function around `anchor`, made once."""
    entry = enclosing_function(anchor).body.block
    last: arith.ConstantOp | None = None
    for op in entry.ops:
        if not isinstance(op, arith.ConstantOp):
            break
        if op.value == value:
            return op.result
        last = op
    constant = arith.ConstantOp(value)
    if last is not None:
        entry.insert_op_after(constant, last)
    elif entry.first_op is not None:
        entry.insert_op_before(constant, entry.first_op)
    else:
        entry.add_op(constant)
    return constant.result


def entry_zero(anchor: Operation, element: Number) -> SSAValue:
    """Zero of the type `element` at the entry of the function around `anchor`, made once.

    arith has no constants of integers without a sign: they are cast from those with one.
    """
    if not isinstance(element, IntegerType) or element.signedness.data == Signedness.SIGNLESS:
        return entry_constant(anchor, number_attr(0, element))
    plain = entry_constant(anchor, IntegerAttr(0, IntegerType(element.width.data)))
    for use in plain.uses:
        cast = use.operation
        if isinstance(cast, UnrealizedConversionCastOp) and cast.result_types == (element,):
            return cast.results[0]
    cast = UnrealizedConversionCastOp.get([plain], [element])
    entry = enclosing_function(anchor).body.block
    entry.insert_op_before(cast, next(o for o in entry.ops if not isinstance(o, arith.ConstantOp)))
    return cast.results[0]


def as_index(anchor: Operation, extent: Extent) -> SSAValue:
    """`extent` as an SSA value usable at `anchor`."""
    if isinstance(extent, int):
        return entry_constant(anchor, IntegerAttr(extent, INDEX))
    return extent


def constant_of(value: Extent) -> int | None:
    """The value of a static extent or of an index constant, None where it is not known."""
    if isinstance(value, int):
        return value
    owner = value.owner
    if isinstance(owner, arith.ConstantOp) and isinstance(owner.value, IntegerAttr):
        return owner.value.value.data
    return None


def upper_bound(value: Extent) -> int | None:
    """The least known static upper bound of an extent: a constant, or that of a minimum."""
    known = constant_of(value)
    if known is not None or isinstance(value, int):
        return known
    if isinstance(value.owner, arith.MinSIOp):
        bounds = [upper_bound(v) for v in value.owner.operands]
        return min((b for b in bounds if b is not None), default=None)
    if isinstance(value.owner, arith.MaxSIOp):
        bounds = [upper_bound(v) for v in value.owner.operands]
        return None if None in bounds else max(b for b in bounds if b is not None)
    return None


def lower_bound(value: Extent) -> int:
    """The greatest known static lower bound of an extent: a constant, or that of a maximum."""
    known = constant_of(value)
    if known is not None or isinstance(value, int):
        return known or 0
    if isinstance(value.owner, arith.MaxSIOp):
        return max(lower_bound(v) for v in value.owner.operands)
    return 0


def erase_condition(value: SSAValue | None) -> None:
    """Erase the comparisons that only an op has used that is erased already."""
    if value is None or value.uses or not isinstance(value.owner, arith.CmpiOp | arith.AndIOp):
        return
    operands = list(value.owner.operands)
    value.owner.detach()
    value.owner.erase()
    for operand in operands:
        erase_condition(operand)


def both(builder: Builder, conditions: Sequence[SSAValue]) -> SSAValue | None:
    """The conjunction of i1 values, None where there are none."""
    result: SSAValue | None = None
    for condition in conditions:
        result = (
            condition if result is None else builder.insert(arith.AndIOp(result, condition)).result
        )
    return result


def equals(builder: Builder, anchor: Operation, value: SSAValue, constant: int) -> SSAValue:
    """value == constant, as i1."""
    return builder.insert(arith.CmpiOp(value, as_index(anchor, constant), "eq")).result


def total(builder: Builder, anchor: Operation, x: Extent, y: Extent) -> Extent:
    """x + y, which is static where both are."""
    if isinstance(x, int) and isinstance(y, int):
        return x + y
    return builder.insert(arith.AddiOp(as_index(anchor, x), as_index(anchor, y))).result


def difference(builder: Builder, anchor: Operation, x: Extent, y: Extent) -> Extent:
    """x - y, which is static where both are."""
    if isinstance(x, int) and isinstance(y, int):
        return x - y
    return builder.insert(arith.SubiOp(as_index(anchor, x), as_index(anchor, y))).result


def round_down(builder: Builder, anchor: Operation, extent: Extent, step: int) -> Extent:
    """The largest multiple of `step` that is at most `extent`."""
    if isinstance(extent, int):
        return extent // step * step
    if step == 1:
        return extent
    rest = builder.insert(arith.RemSIOp(extent, as_index(anchor, step))).result
    return builder.insert(arith.SubiOp(extent, rest)).result


def round_up(builder: Builder, anchor: Operation, extent: Extent, step: int) -> Extent:
    """`extent` up to the end of its last step of `step`."""
    if step == 1:
        return extent
    if isinstance(extent, int):
        return -(-extent // step) * step
    room = as_index(anchor, step - 1)
    reach = builder.insert(arith.AddiOp(extent, room)).result
    return round_down(builder, anchor, reach, step)


def before(op: Operation) -> Builder:
    """A builder that inserts before `op`."""
    return Builder(InsertPoint.before(op))


def at_end(block: Block) -> Builder:
    """A builder that appends to `block`."""
    return Builder(InsertPoint.at_end(block))
