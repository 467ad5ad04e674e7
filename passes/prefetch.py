"""Ask for what later iterations of a loop read, while this one is computed.

    scf.for %j = 0 to n step 32               scf.for %j = 0 to n step 32
        %b_1 = subview %b[0, %j] [8, 32]  ->      %far = min(%j + 256, n - 32)
        gemmir.gemm %a, %b_1, %c_1                %b_2 = subview %b[0, %far] [8, 32]
                                                  gemmir.prefetch %b_2 into #gemmir.space<l1>
                                                  %b_1 = subview %b[0, %j] [8, 32]
                                                  gemmir.gemm %a, %b_1, %c_1

The prefetchers of a CPU follow rows that are read to their ends, and are late where much is
computed between two lines. The loop is the innermost one over its dimension at the moment; what is
asked for is the whole tile of the operand that the iteration `ahead` of this one reads, in the last
iterations the last tile. A cache takes a few dozen requests at once and drops the rest: with
`during` each iteration of a loop inside asks for its share of the lines: of rows or of columns,
whichever makes fewer requests, since part of a line is a whole request. Changes no result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, builtin, memref, scf
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from gemmir.errors import ScheduleError
from gemmir.ir.attributes import Space
from gemmir.ir.dialect import (
    GemmOp,
    PackOp,
    PrefetchOp,
    enclosing_ops,
    memref_type,
    strides_of,
)
from gemmir.ir.index import Extent, as_index, before, constant_of, upper_bound
from gemmir.ir.loops import dimension_of, loops_around, require_gemms, trips
from gemmir.ir.views import chain, offsets_of, sizes_of, subview

LEVELS = (Space.L1, Space.L2)
"""Where prefetches bring a line: the instructions of x86 and of Arm know these two."""

LINE_BYTES = 64
"""What one request brings, on every CPU that is shipped here."""


@dataclass(frozen=True, kw_only=True)
class PrefetchPlan:
    """The window of an operand that moves with a loop, and how far ahead it is asked for.

    `last` is the first element of the last tile along the dimension `dim` of the window, or of the
    last one of whole `size`, where that one is smaller. Where
    there is a loop `share`, each of its iterations asks for `lines` along the other dimension.
    """

    loop: scf.ForOp
    window: memref.SubviewOp
    dim: int
    distance: int
    size: int
    last: int
    into: Space
    share: scf.ForOp | None = None
    dealt: int = 0
    lines: int = 0


def plan(
    gemm: GemmOp, operand: str, loop: str, ahead: int, to: str, during: str | None
) -> PrefetchPlan | None:
    """What to ask for; None where the loop has too few iterations for that.

    `ScheduleError` (GEM1310 to GEM1312) where nothing could be asked for.
    """
    if operand not in ("a", "b", "c") or to not in LEVELS or ahead < 1:
        raise ScheduleError(
            "GEM1310",
            f"prefetch: operand={operand} to={to} ahead={ahead}",
            f"use operand=a, b or c, to={' or '.join(LEVELS)}, and ahead=1 or more",
        )
    value = {"a": gemm.a, "b": gemm.b, "c": gemm.c}[operand]
    around = [o for o in loops_around(gemm, loop) if isinstance(o, scf.ForOp)]
    found = _moving(value, around[0]) if around else None
    if found is None:
        raise ScheduleError(
            "GEM1311",
            f"prefetch: no loop over {loop} of one core moves what is read of {operand}",
            f"put tile{{loops={'n' if operand == 'b' else 'm'} …}} before it, or name its loop",
        )
    window, dim = found
    end, step = constant_of(around[0].ub), constant_of(around[0].step)
    assert step is not None
    size = upper_bound(sizes_of(window)[dim])
    if end is None or size is None or size > end:
        raise ScheduleError(
            "GEM1312",
            f"prefetch: the loop over {loop} ends where is known at run time only",
            "tile with edges=peel, or by a size that divides",
        )
    begin = constant_of(around[0].lb) or 0
    last = begin + (end - begin - 1) // step * step
    if last < begin + ahead * step:
        return None
    found = PrefetchPlan(
        loop=around[0],
        window=window,
        dim=dim,
        distance=ahead * step,
        size=size,
        last=min(last, end - size),
        into=Space(to),
    )
    return found if during is None else _shared_out(gemm, found, during)


def _shared_out(gemm: GemmOp, plan: PrefetchPlan, during: str) -> PrefetchPlan | None:
    """`plan` with its lines dealt to the iterations of the loop over `during` inside its own.

    None for a loop of what was peeled off another one, which deals them all.
    """
    inside = list(takewhile(lambda o: o is not plan.loop, enclosing_ops(gemm)))
    share = next(
        (o for o in inside if isinstance(o, scf.ForOp) and dimension_of(o) == during), None
    )
    whole = [upper_bound(size) for size in sizes_of(plan.window)][-2:]
    if share is None or None in whole or not _is_counted(share) or len(_shape(plan.window)) != 2:
        raise ScheduleError(
            "GEM1315",
            f"prefetch: during={during}, and there is no loop over {during} of known length inside",
            f"put tile{{loops={during} …}} before prefetch, or leave during out",
        )
    if constant_of(share.lb) != 0:
        return None
    dealt, lines = _dealt(plan, [size or 0 for size in whole], trips(share))
    return replace(plan, share=share, dealt=dealt, lines=lines)


def _dealt(plan: PrefetchPlan, whole: Sequence[int], parts: int) -> tuple[int, int]:
    """The dimension that is dealt into so many parts, and how much of it each of them has.

    It is not that of the loop, unless parts of the other are shorter than a line.
    """
    source = memref_type(plan.window.source)
    strides = strides_of(source)[-2:]
    assert isinstance(source.element_type, builtin.FixedBitwidthType)
    line = LINE_BYTES // source.element_type.size
    outer = len(offsets_of(plan.window)) - 2  # the batch

    def requests(dim: int) -> int:
        sizes = list(whole)
        sizes[dim] = -(-sizes[dim] // parts)
        near = 1 if strides[1] == 1 else 0
        return sizes[1 - near] * -(-sizes[near] // line)

    own = plan.dim - outer
    dealt = min((1 - own, own), key=requests)
    return dealt + outer, -(-whole[dealt] // parts)


def _is_counted(loop: scf.ForOp) -> bool:
    return constant_of(loop.lb) is not None and constant_of(loop.ub) is not None


def _moving(value: SSAValue, loop: scf.ForOp) -> tuple[memref.SubviewOp, int] | None:
    """The outermost window of `value` whose place along one dimension is that of `loop`."""
    variable = loop.body.block.args[0]
    for window in chain(_copied_from(value))[1]:
        for dim, offset in enumerate(offsets_of(window)):
            if offset is variable:
                return window, dim
    return None


def _copied_from(value: SSAValue) -> SSAValue:
    """What a packed operand is copied from, and any other operand itself."""
    buffer = chain(value)[0]
    views = [use.operation for use in buffer.uses if isinstance(use.operation, memref.SubviewOp)]
    packs = [use.operation for view in views for use in view.result.uses]
    return next((op.source for op in packs if isinstance(op, PackOp)), value)


def prefetch(plan: PrefetchPlan) -> None:
    """Ask for the tile at the beginning of each iteration."""
    variable = plan.loop.body.block.args[0]
    builder = before(plan.window)
    if plan.share is not None:
        first = plan.share.body.block.first_op
        assert first is not None
        builder = before(first)
    far = builder.insert(arith.AddiOp(variable, as_index(plan.loop, plan.distance))).result
    near = builder.insert(arith.MinSIOp(far, as_index(plan.loop, plan.last))).result
    near.name_hint = "far"
    offsets = list(offsets_of(plan.window))
    offsets[plan.dim] = near
    sizes = list(sizes_of(plan.window))
    sizes[plan.dim] = plan.size
    if plan.share is not None:
        begin, count = _own_lines(builder, plan, plan.share, sizes[plan.dealt])
        offsets[plan.dealt] = _moved(builder, plan, offsets[plan.dealt], begin)
        sizes[plan.dealt] = count
    is_batch = len(sizes) > len(_shape(plan.window))
    tile = subview(builder, plan.window.source, offsets, sizes, drop_batch=is_batch)
    builder.insert(PrefetchOp(tile, plan.into))


def _own_lines(
    builder: Builder, plan: PrefetchPlan, share: scf.ForOp, whole: Extent
) -> tuple[SSAValue, Extent]:
    """The first of the lines that an iteration of `share` asks for, and how many those are."""
    number = builder.insert(arith.DivUIOp(share.body.block.args[0], share.step)).result
    begin = builder.insert(arith.MuliOp(number, as_index(share, plan.lines))).result
    if isinstance(whole, int) and whole == plan.lines * trips(share):
        return begin, plan.lines
    end = as_index(share, whole)
    inside = builder.insert(arith.MinSIOp(begin, end)).result
    rest = builder.insert(arith.SubiOp(end, inside)).result
    return inside, builder.insert(arith.MinSIOp(as_index(share, plan.lines), rest)).result


def _moved(builder: Builder, plan: PrefetchPlan, offset: Extent, by: SSAValue) -> SSAValue:
    """offset + by."""
    if offset == 0:
        return by
    return builder.insert(arith.AddiOp(as_index(plan.loop, offset), by)).result


def _shape(window: memref.SubviewOp) -> tuple[int, ...]:
    made = window.result.type
    assert isinstance(made, builtin.MemRefType)
    return made.get_shape()


@dataclass(frozen=True)
class Prefetch(ModulePass):
    """Ask for the tile of `operand` that is read `ahead` iterations later, into the cache `to`.

    With `during` the iterations of that loop inside ask for a share each.
    """

    name = "gemmir-prefetch"

    operand: str
    loop: str
    ahead: int
    to: str = Space.L1.value
    during: str | None = None

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        plans = [
            plan(gemm, self.operand, self.loop, self.ahead, self.to, self.during)
            for gemm in require_gemms("prefetch", op, takes_factors=True)
        ]
        if not any(plans):
            raise ScheduleError(
                "GEM1313",
                f"prefetch: ahead={self.ahead}, and the loop over {self.loop} ends before",
                "use a smaller number, or leave prefetch out",
            )
        seen: set[tuple[scf.ForOp, memref.SubviewOp]] = set()
        for found in plans:
            if found is not None and (found.loop, found.window) not in seen:
                seen.add((found.loop, found.window))
                prefetch(found)
