"""The loop over the products of a grouped GEMM, whose sizes are known at run time.

scf.for %g = 0 to G
    %begin, %end = offsets[%g], offsets[%g + 1]
    %rows = min(%end - %begin, m)                  so that its bound is known
    … on A[%begin :][: %rows], B[%g], C[%begin :][: %rows]
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.dialects import arith, memref
from xdsl.ir import Operation, SSAValue

from gemmir.ir.dialect import memref_type
from gemmir.ir.index import INDEX, Extent, as_index, before
from gemmir.ir.loops import GROUP, open_loop
from gemmir.ir.views import subview


@dataclass(frozen=True, kw_only=True)
class Group:
    """One product: its number, its rows of A and C, and where its ops go."""

    builder: Builder
    number: SSAValue
    begin: SSAValue
    rows: SSAValue

    def rows_of(self, array: SSAValue) -> SSAValue:
        """The rows of this product in an array of those of all."""
        columns = memref_type(array).get_shape()[1]
        return subview(self.builder, array, (self.begin, 0), (self.rows, columns))

    def matrix_of(self, arrays: SSAValue, rows: Extent | None = None) -> SSAValue:
        """The matrix of this product, or its first `rows`, in an array with one for each."""
        _, most, columns = memref_type(arrays).get_shape()
        sizes = (1, most if rows is None else rows, columns)
        return subview(self.builder, arrays, (self.number, 0, 0), sizes, drop_batch=True)


def open_groups(end: Operation, offsets: SSAValue, most_rows: int) -> Group:
    """Insert the loop before `end`; group g has the rows from offsets[g] to offsets[g + 1]."""
    (bounds_count,) = memref_type(offsets).get_shape()
    zero, one = as_index(end, 0), as_index(end, 1)
    number, builder = open_loop(before(end), GROUP, (zero, as_index(end, bounds_count - 1), one))
    number.name_hint = "g"
    following = builder.insert(arith.AddiOp(number, one)).result
    begin, past = (_load(builder, offsets, at) for at in (number, following))
    length = builder.insert(arith.SubiOp(past, begin)).result
    rows = builder.insert(arith.MinSIOp(length, as_index(end, most_rows))).result
    begin.name_hint, rows.name_hint = "begin", "rows"
    return Group(builder=builder, number=number, begin=begin, rows=rows)


def _load(builder: Builder, array: SSAValue, at: SSAValue) -> SSAValue:
    found = builder.insert(memref.LoadOp.get(array, [at])).res
    return builder.insert(arith.IndexCastOp(found, INDEX)).result
