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
each element of C. Copies nothing; it comes behind every `promote` and before `vectorize`.
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
    memref_type,
)
from gemmir.ir.index import before
from gemmir.ir.loops import require_gemms
from gemmir.ir.views import chain, extents, subview, total_offsets

BYTES_ADDED = 4
"""How deep panels are: of so many bytes x86 adds the products at once."""

LINE_BYTES = 64
"""Sums begin on a cache line, as vectors of them do."""


@dataclass(frozen=True, kw_only=True)
class UnsignPlan:
    """One product in registers: its packed operands, and what writes its sum back."""

    gemm: GemmOp
    a: memref.AllocOp
    b: memref.AllocOp
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
    a, b = (_buffer(gemm, name, value) for name, value in (("a", gemm.a), ("b", gemm.b)))
    copies = [p for p in packs if chain(p.target)[0] is b.memref and ops.index(p) < ops.index(gemm)]
    whole, part = extents(copies[-1].target)[0], extents(gemm.b)[0]
    if whole != part:
        raise ScheduleError(
            "GEM1383",
            f"unsign: a sum goes over {_known(part)} of the {_known(whole)} rows of B that are "
            "packed at once",
            "tile k before promote{operand=b …}, and not behind it",
        )
    return UnsignPlan(
        gemm=gemm,
        a=a,
        b=b,
        write_backs=tuple(e for e in epilogues if _place_of(e, accumulator) is not None),
    )


def _known(extent: int | SSAValue) -> str:
    return str(extent) if isinstance(extent, int) else "some"


def _buffer(gemm: GemmOp, name: str, value: SSAValue) -> memref.AllocOp:
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
    found = {plan.b: _sums_of(plan.b, ops) for plan in plans}
    for a in dict.fromkeys(plan.a for plan in plans):
        _retype(a, ops)
    for plan in plans:
        for epilogue in plan.write_backs:
            _correct(epilogue, plan, found[plan.b])


def _sums_of(b: memref.AllocOp, ops: Sequence[Operation]) -> SSAValue:
    """A buffer for the sums of all columns of `b`, filled behind every copy into it."""
    columns = memref_type(b.memref).get_shape()[1]
    sums = memref.AllocOp.get(i32, LINE_BYTES, [1, columns])
    sums.memref.name_hint = "sums"
    Builder(InsertPoint.after(b)).insert(sums)
    for op in ops:
        if isinstance(op, memref.DeallocOp) and op.memref is b.memref:
            Builder(InsertPoint.after(op)).insert(memref.DeallocOp.get(sums.memref))
        if isinstance(op, PackOp) and chain(op.target)[0] is b.memref:
            builder = Builder(InsertPoint.after(op))
            start = total_offsets(builder, chain(op.target)[1])[1]
            row = subview(builder, sums.memref, (0, start), (1, extents(op.target)[1]))
            builder.insert(ColumnSumOp(op.target, row, SHIFT))
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
    """Take the sums of the columns of B off where `epilogue` reads the accumulator."""
    accumulator = chain(plan.gemm.c)[0]
    place = _place_of(epilogue, accumulator)
    assert place is not None
    builder = before(epilogue)
    rows, columns = memref_type(accumulator).get_shape()[0], memref_type(sums).get_shape()[1]
    whole = view_before(epilogue, sums, (rows, columns), (0, 1), "sums")
    start = total_offsets(builder, chain(plan.gemm.b)[1])[1]
    row = subview(builder, whole, (0, start), extents(epilogue.output))
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
    """Multiply a packed A of i8 as ui8, and correct the sums by those of the columns of B."""

    name = "gemmir-unsign"

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        unsign(op, plan(op))
