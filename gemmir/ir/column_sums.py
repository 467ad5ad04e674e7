"""Sums of the columns or rows of packed bytes: `gemmir.columnsum` and `rowsum` as loops.

    gemmir.columnsum %b into %sums times 128   ->   scf.for %j … step 16
      (k x n, panels of 16, 4 deep)                   %y = scf.for %p … step 4 iter_args(%x = 0)
                                                        %row = vector.transfer_read %b[%p, %j]
                                                        %z = gemmir.outerproduct %factors, %row, %x
                                                      vector.transfer_write %y, %sums[0, %j]

A sum is a product by a column that has the factor everywhere; zeros that fill up add nothing. That
of a row has lanes along k, which are added up at its end.
"""

from __future__ import annotations

from xdsl.builder import Builder
from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import StringAttr, VectorType, i8, i32
from xdsl.ir import Block, Region, SSAValue

from gemmir.ir.attributes import PanelAttr
from gemmir.ir.dialect import (
    ColumnSumOp,
    LaneSumOp,
    OuterProductOp,
    PairProductOp,
    RowSumOp,
    UnsignOp,
    memref_type,
)
from gemmir.ir.index import INDEX, Extent, as_index, at_end, before, round_down
from gemmir.ir.loops import DIMENSION, open_loop
from gemmir.ir.transfers import read, splat, write
from gemmir.ir.views import chain, extents, subview, total_offsets

SHIFT = 128
"""What is added to bytes that have a sign, so that they need none."""

LANE_BYTES = 4
"""Bytes that a lane takes at once."""


def vectorize_sums(op: ColumnSumOp, width: int) -> None:
    """Sum panel by panel, in vectors of `width`."""
    buffer, views = chain(op.source)
    layout = memref_type(buffer).layout
    assert isinstance(layout, PanelAttr)
    panel, depth = layout.width.data, layout.depth.data
    builder = before(op)
    k, n = extents(op.source)
    first = total_offsets(builder, views)
    sums, place = chain(op.target)[0], total_offsets(builder, chain(op.target)[1])[1]
    factors = splat(op, op.factor.value.data - SHIFT, VectorType(i8, (1, depth)))
    column = builder.insert(UnsignOp(factors)).result
    rows = _whole_groups(builder, op, k, depth)
    bounds = as_index(op, 0), as_index(op, n), as_index(op, panel)
    j, inner = open_loop(builder, "n", bounds)
    at = _sum(inner, op, first[1], j)
    window = subview(inner, buffer, (first[0], at), (rows, panel), one_panel=True)
    totals = _summed(inner, op, column, window, rows, width)
    for start, total in zip(range(0, panel, width), totals, strict=True):
        to = _sum(inner, op, _sum(inner, op, place, j), start)
        write(inner, op, total, sums, (0, to), (True, start + width <= panel))
    op.detach()
    op.erase()


def _summed(
    builder: Builder, op: ColumnSumOp, column: SSAValue, window: SSAValue, rows: Extent, width: int
) -> list[SSAValue]:
    """The products of `column` and one panel, as vectors of `width`."""
    layout = memref_type(window).layout
    assert isinstance(layout, PanelAttr)
    panel, depth = layout.width.data, layout.depth.data
    starts = range(0, panel, width)
    zero = splat(op, 0, VectorType(i32, (1, width)))
    body = Block(arg_types=[INDEX, *[zero.type] * len(starts)])
    inner = at_end(body)
    p, *sums = body.args
    updated: list[SSAValue] = []
    for start, total in zip(starts, sums, strict=True):
        full = start + width <= panel
        row = read(inner, op, window, (p, start), (depth, width), (True, full))
        updated.append(inner.insert(OuterProductOp(column, row, total)).result)
    inner.insert(scf.YieldOp(*updated))
    begin, end, step = as_index(op, 0), as_index(op, rows), as_index(op, depth)
    loop = scf.ForOp(begin, end, step, [zero] * len(starts), Region(body))
    loop.attributes[DIMENSION] = StringAttr("k")
    builder.insert(loop)
    return list(loop.results)


def vectorize_row_sums(op: RowSumOp, width: int) -> None:
    """Sum row by row, in `width` lanes of four neighbours each."""
    builder = before(op)
    m, k = extents(op.source)
    taken = width * LANE_BYTES
    factors = splat(op, op.factor.value.data - SHIFT, VectorType(i8, (1, taken)))
    column = builder.insert(UnsignOp(factors)).result
    i, inner = open_loop(builder, "m", (as_index(op, 0), as_index(op, m), as_index(op, 1)))
    row = subview(inner, op.source, (i, 0), (1, k), one_panel=True)
    zero = splat(op, 0, VectorType(i32, (1, width)))

    def added(to: Builder, at: SSAValue, total: SSAValue, *, whole: bool) -> SSAValue:
        found = read(to, op, row, (0, at), (1, taken), (True, whole))
        return to.insert(PairProductOp(found, column, total)).result

    end = round_down(inner, op, k, taken)
    body = Block(arg_types=[INDEX, zero.type])
    inside = at_end(body)
    inside.insert(scf.YieldOp(added(inside, body.args[0], body.args[1], whole=True)))
    first, last, step = (as_index(op, e) for e in (0, end, taken))
    loop = inner.insert(scf.ForOp(first, last, step, [zero], Region(body)))
    loop.attributes[DIMENSION] = StringAttr("k")
    total: SSAValue = loop.results[0]
    if end != k:
        total = added(inner, as_index(op, end), total, whole=False)
    one = inner.insert(LaneSumOp(total, 1, 1)).result
    write(inner, op, one, op.target, (i, 0), (True, True))
    op.detach()
    op.erase()


def _whole_groups(builder: Builder, op: ColumnSumOp, extent: Extent, depth: int) -> Extent:
    """`extent`, up to the end of its last group of `depth`."""
    return round_down(builder, op, _sum(builder, op, extent, depth - 1), depth)


def _sum(builder: Builder, op: ColumnSumOp, a: Extent, b: Extent) -> Extent:
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    if 0 in (a, b):
        return b if a == 0 else a
    return builder.insert(arith.AddiOp(as_index(op, a), as_index(op, b))).result
