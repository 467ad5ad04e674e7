"""Reading and writing the elements of memrefs as vectors, and epilogues on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from xdsl.builder import Builder
from xdsl.dialects import arith, vector
from xdsl.dialects.builtin import (
    AffineMapAttr,
    AnyFloat,
    ArrayAttr,
    BoolAttr,
    DenseIntOrFPElementsAttr,
    FloatAttr,
    IndexType,
    IntegerAttr,
    IntegerType,
    VectorType,
    i1,
)
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.ir.affine import AffineExpr, AffineMap

from gemmir.ir.dialect import EpilogueOp, Number, YieldOp, memref_type
from gemmir.ir.index import Extent, as_index, entry_constant, entry_zero

_IDENTITY = AffineMapAttr(AffineMap.identity(2))
EXCHANGED = AffineMap(2, 0, (AffineExpr.dimension(1), AffineExpr.dimension(0)))
"""The map of a read whose rows are the columns of the memref."""

_FLAGS = {
    (p, q): ArrayAttr([BoolAttr.from_bool(p), BoolAttr.from_bool(q)])
    for p in (False, True)
    for q in (False, True)
}


def read(
    builder: Builder,
    anchor: Operation,
    source: SSAValue,
    at: tuple[Extent, Extent],
    shape: tuple[int, int],
    in_bounds: tuple[bool, bool],
    *,
    exchanged: bool = False,
) -> SSAValue:
    """The elements of `shape` at `at` of `source`; zeros where those are not `in_bounds`.

    With `exchanged` the rows of the result are columns of `source`.
    """
    element = memref_type(source).element_type
    read = vector.TransferReadOp(
        source,
        [as_index(anchor, i) for i in at],
        entry_zero(anchor, element),
        VectorType(element, shape),
        _FLAGS[in_bounds],
        AffineMapAttr(EXCHANGED) if exchanged else _IDENTITY,
    )
    return builder.insert(read).result


def write(
    builder: Builder,
    anchor: Operation,
    value: SSAValue,
    target: SSAValue,
    at: tuple[Extent, Extent],
    in_bounds: tuple[bool, bool],
    mask: SSAValue | None = None,
) -> None:
    """Store `value` at `at` of `target`; what is not `in_bounds` or not in `mask` is left out."""
    indices = [as_index(anchor, i) for i in at]
    flags = _FLAGS[in_bounds]
    builder.insert(
        vector.TransferWriteOp(value, target, indices, flags, mask, permutation_map=_IDENTITY)
    )


def mask_of_rows(
    builder: Builder, anchor: Operation, begin: Extent, rows: Extent, shape: tuple[int, int]
) -> SSAValue:
    """A mask of `shape` that has `rows` rows from `begin` on."""
    made = VectorType(i1, shape)
    first, count, columns = (as_index(anchor, e) for e in (begin, rows, shape[1]))
    end = builder.insert(arith.AddiOp(first, count)).result
    before, until = (
        builder.insert(vector.CreateMaskOp([limit, columns], made)).mask_vector
        for limit in (first, end)
    )
    end.name_hint, before.name_hint, until.name_hint = "end", "before", "until"
    return builder.insert(arith.XOrIOp(before, until)).result


def splat(anchor: Operation, value: float, made: VectorType[Number]) -> SSAValue:
    """A vector of type `made` with `value` everywhere, made once at the entry of the function."""
    if isinstance(made.element_type, IntegerType):
        whole = cast("VectorType[IntegerType]", made)
        return entry_constant(anchor, DenseIntOrFPElementsAttr.from_list(whole, [int(value)]))
    floats = cast("VectorType[AnyFloat]", made)
    return entry_constant(anchor, DenseIntOrFPElementsAttr.from_list(floats, [value]))


@dataclass(frozen=True)
class Tile:
    """Where a vector lies in the operands of an epilogue, and along what it may be clipped.

    Where there is a `mask`, only its elements are stored.
    """

    at: tuple[Extent, Extent]
    shape: tuple[int, int]
    in_bounds: tuple[bool, bool]
    mask: SSAValue | None = None


def store_tile(
    builder: Builder, epilogue: EpilogueOp, tile: Tile, known: dict[SSAValue, SSAValue]
) -> None:
    """Run the body of `epilogue` on vectors; arguments that are not `known` are read if used."""
    value, target = computed(builder, epilogue, tile, known), epilogue.output
    write(builder, epilogue, value, target, tile.at, tile.in_bounds, tile.mask)


def computed(
    builder: Builder, epilogue: EpilogueOp, tile: Tile, known: dict[SSAValue, SSAValue]
) -> SSAValue:
    """What the body of `epilogue` yields on vectors; arguments as above."""
    values = dict(known)
    block = epilogue.body.block
    for argument, operand in zip(block.args, epilogue.operands, strict=True):
        if argument not in values and argument.uses:
            values[argument] = read(builder, epilogue, operand, tile.at, tile.shape, tile.in_bounds)
    inside = {*block.args, *(result for op in block.ops for result in op.results)}
    for op in block.ops:
        for scalar in op.operands:
            if scalar.type == i1 and scalar not in inside:
                values[scalar] = scalar
            if scalar not in values and scalar not in inside:
                made = VectorType(scalar.type, tile.shape)
                values[scalar] = builder.insert(vector.BroadcastOp(scalar, made)).vector
        if isinstance(op, YieldOp):
            assert op.value is not None
            return values[op.value]
        if isinstance(op, arith.ConstantOp):
            assert isinstance(op.value, FloatAttr | IntegerAttr)
            element = op.value.type
            assert not isinstance(element, IndexType)
            made = VectorType(element, tile.shape)
            values[op.result] = splat(epilogue, op.value.value.data, made)
        else:
            widened = _widen(op, values, tile.shape)
            builder.insert(widened)
            values[op.results[0]] = widened.results[0]
    raise AssertionError("gemmir.epilogue ends in gemmir.yield")


def _widen(op: Operation, values: dict[SSAValue, SSAValue], shape: Sequence[int]) -> Operation:
    """The elementwise `op` on vectors of `shape`."""
    result: Attribute = VectorType(op.results[0].type, shape)
    return type(op).create(
        operands=[values[v] for v in op.operands],
        result_types=[result],
        properties=dict(op.properties),
    )
