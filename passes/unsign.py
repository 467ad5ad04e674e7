"""Multiply a packed A of i8 as one of ui8, and take off what that adds.

    gemmir.pack %a into %a_packed (i8)   ->   gemmir.pack %a into %a_packed         (ui8: 128 added)
    gemmir.pack %b into %b_packed             gemmir.pack %b into %b_packed
                                              gemmir.columnsum %b_packed into %sums times 128
    loops:                                    loops:
      gemmir.gemm %a_1, %b_1, %acc              gemmir.gemm %a_1, %b_1, %acc
      gemmir.epilogue ins(%acc) outs(%c)        gemmir.epilogue ins(%acc, %sums_1) outs(%c)
        { f(acc) }                                { f(acc - sum) }

(A + 128) B is A B and 128 times the sum of each column of B, exactly modulo 2**32. x86 multiplies
bytes of which one has no sign; the sums are made once for each copy of B, and taken off once for
each element of C.

Where A was copied into rows, lanes go along k, and B is read where it lies. Then it is B that
counts 128 more, in registers, and the rows of A, of which there are few, are summed:

    gemmir.pack %a into %a_packed        ->   gemmir.pack %a into %a_packed
                                              gemmir.rowsum %a_packed into %sums times 128
    gemmir.gemm %a_1, %b_1, %acc              %b_2 = gemmir.unsigned %b_1
                                              gemmir.gemm %a_1, %b_2, %acc

Copies nothing; it comes behind every `promote` and before `vectorize`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, builtin, memref
from xdsl.dialects.builtin import MemRefType, i8, i32
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from gemmir.errors import ScheduleError
from gemmir.ir.attributes import PanelAttr, Space, SpaceAttr
from gemmir.ir.build import view_before
from gemmir.ir.column_sums import SHIFT
from gemmir.ir.dialect import (
    SIGN_TAKEN,
    ColumnSumOp,
    EpilogueOp,
    GemmOp,
    Number,
    PackOp,
    RowSumOp,
    UnsignedOp,
    enclosing_ops,
    in_rows,
    memref_type,
    strides_of,
)
from gemmir.ir.index import before
from gemmir.ir.loops import require_gemms
from gemmir.ir.partial_sums import loops_inside
from gemmir.ir.views import chain, extents, subview, total_offsets

BYTES_ADDED = 4
"""How deep panels are: of so many bytes x86 adds the products at once."""

LINE_BYTES = 64
"""Sums begin on a cache line, as vectors of them do."""


@dataclass(frozen=True, kw_only=True)
class UnsignPlan:
    """One product in registers: its packed operands, and what writes its sum back.

    Rows of A are summed where B is None, and lies where the caller has it or in columns.
    """

    gemm: GemmOp
    a: memref.AllocOp
    b: memref.AllocOp | None
    write_backs: tuple[EpilogueOp, ...]


def plan(module: builtin.ModuleOp) -> tuple[UnsignPlan, ...]:
    """The products of `module`; `ScheduleError` (GEM1382, GEM1383) where one cannot be changed."""
    ops = list(module.walk())
    packs = [op for op in ops if isinstance(op, PackOp)]
    epilogues = [op for op in ops if isinstance(op, EpilogueOp)]
    return tuple(
        _plan(gemm, ops, packs, epilogues)
        for gemm in require_gemms("unsign", module, takes_factors=True)
    )


def _plan(
    gemm: GemmOp, ops: list[Operation], packs: Sequence[PackOp], epilogues: Sequence[EpilogueOp]
) -> UnsignPlan:
    factors = tuple(memref_type(v).element_type for v in (gemm.a, gemm.b))
    if factors != (i8, i8):
        raise ScheduleError(
            "GEM1382",
            f"unsign: A is {factors[0]} and B {factors[1]}, and both must be i8",
            "leave unsign out",
        )
    accumulator = chain(gemm.c)[0]
    space = memref_type(accumulator).memory_space
    if space != SpaceAttr(Space.REGISTERS):
        raise ScheduleError(
            "GEM1383",
            "unsign: C is not in registers, where its sum is corrected",
            "put promote{operand=c to=registers} before unsign",
        )
    by_rows = _is_in_rows(gemm)
    a = chain(gemm.a)[0].owner if by_rows else _buffer("a", gemm.a)
    b = None if by_rows else _buffer("b", gemm.b)
    assert isinstance(a, memref.AllocOp)
    name, summed = ("a", a) if b is None else ("b", b)
    targets = [p.target for p in packs if ops.index(p) < ops.index(gemm)]
    copy = [target for target in targets if chain(target)[0] is summed.memref][-1]
    dim = 1 if by_rows else 0
    whole = extents(copy)[dim]
    part = extents(_window(gemm.a, gemm, accumulator) if by_rows else gemm.b)[dim]
    if whole != part:
        raise ScheduleError(
            "GEM1383",
            f"unsign: a sum goes over {_known(part)} of the {_known(whole)} "
            f"{'columns' if by_rows else 'rows'} of {name.upper()} that are packed at once",
            f"tile k before promote{{operand={name} …}}, and not behind it",
        )
    return UnsignPlan(
        gemm=gemm,
        a=a,
        b=b,
        write_backs=tuple(e for e in epilogues if _place_of(e, accumulator) is not None),
    )


def _is_in_rows(gemm: GemmOp) -> bool:
    """Whether A was copied into rows; `ScheduleError` (GEM1383) where B does not lie along k then.

    Rows that are panels of the width 1 and have no depth are of no other use.
    """
    root = chain(gemm.a)[0]
    of = memref_type(root)
    if not isinstance(root.owner, memref.AllocOp) or not in_rows(of):
        return False
    b = memref_type(gemm.b)
    if isinstance(b.layout, PanelAttr):
        adjacent = (b.layout.width.data, b.layout.depth.data) == (1, 1)
    else:
        adjacent = strides_of(b)[0] == 1
    if not adjacent:
        raise ScheduleError(
            "GEM1383",
            "unsign: A lies in rows, and B does not lie in columns",
            "put promote{operand=b to=l2 layout=panel:1} before unsign, or pack both with "
            "layout=panel:16x4",
        )
    return True


def _window(value: SSAValue, gemm: GemmOp, accumulator: SSAValue) -> SSAValue:
    """What `gemm` reads of `value` for the whole sum, over the slices of k that it goes through."""
    slices = loops_inside(gemm, accumulator)
    while isinstance(value.owner, memref.SubviewOp):
        if not any(loop in slices for loop in enclosing_ops(value.owner)):
            break
        value = value.owner.source
    return value


def _known(extent: int | SSAValue) -> str:
    return str(extent) if isinstance(extent, int) else "some"


def _buffer(name: str, value: SSAValue) -> memref.AllocOp:
    """The buffer of panels that `value` is a window into."""
    root = chain(value)[0]
    layout = memref_type(root).layout
    depth = layout.depth.data if isinstance(layout, PanelAttr) else 1
    if depth not in (1, BYTES_ADDED):
        raise ScheduleError(
            "GEM1383",
            f"unsign: {name} lies in panels {depth} deep, and {BYTES_ADDED} products of bytes are "
            "added at once",
            f"promote {name} with layout=panel:16x{BYTES_ADDED}",
        )
    if not isinstance(root.owner, memref.AllocOp) or depth == 1:
        lies = "where the caller has it" if depth == 1 else "as it was packed before the call"
        raise ScheduleError(
            "GEM1383",
            f"unsign: {name} lies {lies}, and 128 is added, or summed up, in a copy of each call",
            f"put promote{{operand={name} to=l2 layout=panel:16x4}} before unsign, or leave "
            "unsign out",
        )
    return root.owner


def _place_of(epilogue: EpilogueOp, accumulator: SSAValue) -> int | None:
    """Which operand of `epilogue` is the sum."""
    places = (n for n, v in enumerate(epilogue.inputs) if chain(v)[0] is accumulator)
    return next(places, None)


def unsign(module: builtin.ModuleOp, plans: Sequence[UnsignPlan]) -> None:
    """Change the copies of A, sum those of B, and correct every sum that is written back."""
    ops = list(module.walk())
    found = {plan.a if plan.b is None else plan.b: plan.b is None for plan in plans}
    sums = {summed: _sums_of(summed, ops, by_rows=by_rows) for summed, by_rows in found.items()}
    for a in dict.fromkeys(plan.a for plan in plans if plan.b is not None):
        _retype(a, ops)
    for plan in plans:
        for epilogue in plan.write_backs:
            _correct(epilogue, plan, sums[plan.a if plan.b is None else plan.b])
        if plan.b is None:
            view = before(plan.gemm).insert(UnsignedOp(plan.gemm.b)).result
            view.name_hint = plan.gemm.b.name_hint
            plan.gemm.operands[1] = view


def _sums_of(buffer: memref.AllocOp, ops: Sequence[Operation], *, by_rows: bool) -> SSAValue:
    """A buffer for the sums of all columns of a copy, or rows, filled behind every copy."""
    room = memref_type(buffer.memref).get_shape()
    sums = memref.AllocOp.get(i32, LINE_BYTES, [room[0], 1] if by_rows else [1, room[1]])
    sums.memref.name_hint = "sums"
    Builder(InsertPoint.after(buffer)).insert(sums)
    for op in ops:
        if isinstance(op, memref.DeallocOp) and op.memref is buffer.memref:
            Builder(InsertPoint.after(op)).insert(memref.DeallocOp.get(sums.memref))
        if isinstance(op, PackOp) and chain(op.target)[0] is buffer.memref:
            builder = Builder(InsertPoint.after(op))
            start, size = total_offsets(builder, chain(op.target)[1]), extents(op.target)
            if by_rows:
                part = subview(builder, sums.memref, (start[0], 0), (size[0], 1))
                builder.insert(RowSumOp(op.target, part, SHIFT))
            else:
                part = subview(builder, sums.memref, (0, start[1]), (1, size[1]))
                builder.insert(ColumnSumOp(op.target, part, SHIFT))
    return sums.memref


def _retype(a: memref.AllocOp, ops: Sequence[Operation]) -> None:
    """Let the buffer `a` and all windows into it have bytes without a sign."""
    views = [
        op for op in ops if isinstance(op, memref.SubviewOp) and chain(op.result)[0] is a.memref
    ]
    for value in (a.memref, *[view.result for view in views]):
        of = memref_type(value)
        made = MemRefType[Number](SIGN_TAKEN[1], of.get_shape(), of.layout, of.memory_space)
        Rewriter.replace_value_with_new_type(value, made)


def _correct(epilogue: EpilogueOp, plan: UnsignPlan, sums: SSAValue) -> None:
    """Take the sums of columns of B, or of rows of A, off where `epilogue` reads a sum."""
    accumulator = chain(plan.gemm.c)[0]
    place = _place_of(epilogue, accumulator)
    assert place is not None
    builder = before(epilogue)
    tile, room = memref_type(accumulator).get_shape(), memref_type(sums).get_shape()
    if plan.b is None:
        whole = view_before(epilogue, sums, (room[0], tile[1]), (1, 0), "sums")
        views = chain(_window(plan.gemm.a, plan.gemm, accumulator))[1]
        at = (total_offsets(builder, views)[0], 0)
    else:
        whole = view_before(epilogue, sums, (tile[0], room[1]), (0, 1), "sums")
        at = (0, total_offsets(builder, chain(plan.gemm.b)[1])[1])
    row = subview(builder, whole, at, extents(epilogue.output))
    old = epilogue.body.block
    block = Block(arg_types=[*old.arg_types[:-1], i32, old.arg_types[-1]])
    *inputs, extra, output = block.args
    less = arith.SubiOp(inputs[place], extra)
    block.add_op(less)
    values: dict[SSAValue, SSAValue] = dict(zip(old.args, [*inputs, output], strict=True))
    values[old.args[place]] = less.result
    for op in old.ops:
        block.add_op(op.clone(values))
    builder.insert(EpilogueOp([*epilogue.inputs, row], epilogue.output, Region(block)))
    epilogue.detach()
    epilogue.erase()


@dataclass(frozen=True)
class Unsign(ModulePass):
    """Multiply i8 by ui8, a packed A or a B in place, and correct sums by those of the other."""

    name = "gemmir-unsign"

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        unsign(op, plan(op))
