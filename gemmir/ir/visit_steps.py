"""What a step of a grid does that visits the rows of one product in a tile.

    gemmir.gemm on blocks             if %takes_old { copy the old block of C into the new one }
    gemmir.epilogue on blocks    ->   if %begin < %end {
                                        gemmir.gemm on blocks
                                        gemmir.epilogue on the rows from %begin to %end of blocks
                                      }

All rows of the tile are multiplied, and only those of the product are stored: what other products
have stored in the block, and what no product has, stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from xdsl.builder import Builder
from xdsl.dialects import arith
from xdsl.ir import Block, Operation, SSAValue

from gemmir.ir.dialect import EpilogueOp, GemmOp, Visit, VisitsOp, memref_type
from gemmir.ir.index import Extent, before, both, equals
from gemmir.ir.loops import conditional, move
from gemmir.ir.transfers import read, write
from gemmir.ir.views import subview
from gemmir.ir.visits import load_number

Pair: TypeAlias = tuple[SSAValue, SSAValue]


def work_on_rows(epilogue: EpilogueOp, begin: Extent, rows: Extent) -> None:
    """Let `epilogue`, which takes whole blocks, work on some rows of them."""
    builder = before(epilogue)
    for number, block in enumerate(epilogue.operands):
        columns = memref_type(block).get_shape()[1]
        epilogue.operands[number] = subview(builder, block, (begin, 0), (rows, columns))


def visit_blocks(
    body: Block,
    visits: VisitsOp,
    number: SSAValue,
    slice_: SSAValue | None,
    blocks: Sequence[Pair],
) -> None:
    """Begin with the old elements where a visit leaves some, and do nothing without rows.

    `number` is that of the visit, `slice_` that of the slice of k where there are several. `blocks`
    are those with the old and the new elements of an array.
    """
    work = next(op for op in body.ops if any(isinstance(o, GemmOp) for o in op.walk()))
    builder = before(work)
    takes_old = load_number(builder, visits, Visit.TAKES_OLD, number)
    conditions = [equals(builder, visits, takes_old, 1)]
    if slice_ is not None:
        conditions.append(equals(builder, visits, slice_, 0))
    condition = both(builder, conditions)
    assert condition is not None
    builder.insert(
        conditional(condition, lambda then: _copy(then, visits, blocks), lambda otherwise: None)
    )
    begin, end = (load_number(builder, visits, row, number) for row in (Visit.BEGIN, Visit.END))
    has_rows = builder.insert(arith.CmpiOp(begin, end, "slt")).result
    *ops, last = body.ops
    rest = ops[ops.index(work) :]
    before(last).insert(
        conditional(has_rows, lambda then: move(rest, then), lambda otherwise: None)
    )


def _copy(builder: Builder, anchor: Operation, pairs: Sequence[Pair]) -> None:
    """Copy whole blocks."""
    for source, target in pairs:
        rows, columns = memref_type(source).get_shape()
        elements = read(builder, anchor, source, (0, 0), (rows, columns), (True, True))
        write(builder, anchor, elements, target, (0, 0), (True, True))
