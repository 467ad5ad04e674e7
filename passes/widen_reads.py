"""Read several elements of a row of A at once, where copies of a step of k read one each.

    scf.for %k = 0 to kc step 2                     ->   scf.for %k = 0 to kc step 2
        read %a[0, %k]     : vector<16x1>                    %block = read %a[12, %k] : vector<4x2>
        gemmir.outerproduct …                                read %a[0, %k] : vector<12x1>
        read %a[0, %k + 1] : vector<16x1>                    gemmir.column …, %block[0]
        gemmir.outerproduct …                                gemmir.outerproduct …
                                                             read %a[0, %k + 1] : vector<12x1>
                                                             gemmir.column …, %block[1]
                                                             gemmir.outerproduct …

The last rows of each column are read as a block. A tile of one vector has a load for each
multiply-add, and one more for its row of B: where loads are what a core can do no more of, some
elements have to come from registers. Needs a loop over k that `unroll` has copied, and an A whose
rows are adjacent along k; steps that are left over, and tiles of no more rows than are named, stay
as they are. Changes no number and no order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import arith, builtin, vector
from xdsl.dialects.builtin import AffineMapAttr, NoneAttr, StridedLayoutAttr
from xdsl.ir import Block, SSAValue
from xdsl.ir.affine import AffineMap
from xdsl.passes import ModulePass

from gemmir.errors import ScheduleError
from gemmir.ir.dialect import ColumnOp, OuterProductOp, memref_type, strides_of
from gemmir.ir.index import Extent, as_index, before, constant_of
from gemmir.ir.transfers import read

WIDTHS = (2, 4, 8)
"""Elements of a row that are read at once: no more than a vector has in registers."""


@dataclass(frozen=True, kw_only=True)
class WidenPlan:
    """Reads of neighbouring columns, from left to right, whose last rows become one block."""

    columns: tuple[vector.TransferReadOp, ...]
    rows: int


def plan(module: builtin.ModuleOp, rows: int, width: int) -> list[WidenPlan]:
    """What is read together; `ScheduleError` (GEM1300, GEM1301) where nothing can be."""
    if rows < 1 or width not in WIDTHS:
        raise ScheduleError(
            "GEM1300",
            f"widen-reads: rows={rows} width={width}",
            f"use rows=1 or more, and width={', '.join(map(str, WIDTHS))}",
        )
    blocks = dict.fromkeys(op.parent for op in module.walk() if isinstance(op, OuterProductOp))
    columns = {block: _columns(block) for block in blocks if block is not None}
    most = max((_rows(op) for found in columns.values() for op in found), default=0)
    plans = [
        WidenPlan(columns=run, rows=rows)
        for found in columns.values()
        for run in _runs([op for op in found if _rows(op) > rows], width)
    ]
    if plans:
        return plans
    if 1 < most <= rows:
        raise ScheduleError(
            "GEM1300",
            f"widen-reads: rows={rows}, and tiles have {most} rows at most, of which one at least "
            "is read alone",
            f"use rows={most - 1}",
        )
    raise ScheduleError(
        "GEM1301",
        f"widen-reads: no loop reads {width} neighbouring elements of a row of A one by one",
        f"put vectorize{{with=fma …}} and unroll{{loop=k factor={width}}} before it, for an A "
        "that is adjacent along k",
    )


def _columns(block: Block) -> list[vector.TransferReadOp]:
    """The columns of A that products of `block` take as they are read."""
    products = [op for op in block.ops if isinstance(op, OuterProductOp) and op.depth == 1]
    owners = dict.fromkeys(op.lhs.owner for op in products)
    return [
        op
        for op in owners
        if isinstance(op, vector.TransferReadOp) and op.parent is block and _is_plain(op)
    ]


def _is_plain(op: vector.TransferReadOp) -> bool:
    """Whether all of a column is there, and its neighbour on the right is next to it in memory."""
    inside = all(flag.value.data for flag in op.in_bounds.data)
    source = memref_type(op.source)
    if not inside or not isinstance(source.layout, NoneAttr | StridedLayoutAttr):
        return False
    is_identity = op.permutation_map == AffineMapAttr(AffineMap.identity(2))
    return is_identity and strides_of(source)[-1] == 1


def _rows(op: vector.TransferReadOp) -> int:
    return op.result.type.get_shape()[0]


def _place(op: vector.TransferReadOp) -> tuple[SSAValue, SSAValue, SSAValue, int]:
    """What is read from which row on, and its column as a value and what is added to it."""
    row, column = op.indices
    owner = column.owner
    if isinstance(owner, arith.AddiOp) and (extra := constant_of(owner.rhs)) is not None:
        return op.source, row, owner.lhs, extra
    return op.source, row, column, 0


def _runs(
    columns: Sequence[vector.TransferReadOp], width: int
) -> Iterator[tuple[vector.TransferReadOp, ...]]:
    """Neighbours in the order of the block, `width` at a time."""
    run: list[vector.TransferReadOp] = []
    for op in columns:
        source, row, column, extra = _place(op)
        if run and _place(run[-1]) != (source, row, column, extra - 1):
            run = []
        run.append(op)
        if len(run) == width:
            yield tuple(run)
            run = []


def widen(plan: WidenPlan) -> None:
    """Read a block before the first column of `plan`, and take the last rows of each from it."""
    first = plan.columns[0]
    above = _rows(first) - plan.rows
    builder = before(first)
    row, column = first.indices
    known = constant_of(row)
    below: Extent = (
        known + above
        if known is not None
        else builder.insert(arith.AddiOp(row, as_index(first, above))).result
    )
    shape = (plan.rows, len(plan.columns))
    block = read(builder, first, first.source, (below, column), shape, (True, True))
    for number, op in enumerate(plan.columns):
        inner = before(op)
        at = (op.indices[0], op.indices[1])
        kept = read(inner, op, op.source, at, (above, 1), (True, True))
        made = inner.insert(ColumnOp(kept, block, number)).result
        op.result.replace_all_uses_with(made)
        op.detach()
        op.erase()


@dataclass(frozen=True)
class WidenReads(ModulePass):
    """Read `width` elements of the last `rows` rows of each tile of A at once."""

    name = "gemmir-widen-reads"

    rows: int
    width: int = 4

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        for found in plan(op, self.rows, self.width):
            widen(found)
