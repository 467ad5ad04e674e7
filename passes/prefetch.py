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
iterations the last tile. With ahead=0 it is the tile of C that this iteration writes at its end.

A cache takes a few dozen requests at once, and those that come together hold up the loads behind
them: with `during` each iteration of a loop inside asks for its share of the lines: of rows or of
columns, whichever makes fewer requests, since part of a line is a whole request. Of several loops
each deals out a share of the one around it, and the innermost whole lines, one row behind another,
as few at a time as its iterations allow. The loop that moves the tile is outside of all of them,
also where one goes over the same dimension. Where a loop has a number of iterations that is known
at run time only, so has a share, and a loop asks for one row of it after another. Changes no
result.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from itertools import takewhile

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, builtin, memref, scf
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint

from gemmir.errors import ScheduleError
from gemmir.ir.attributes import PanelAttr, Space
from gemmir.ir.dialect import (
    EpilogueOp,
    GemmOp,
    PackOp,
    PrefetchOp,
    enclosing_ops,
    memref_type,
    strides_of,
)
from gemmir.ir.index import INDEX, Extent, as_index, before, constant_of, upper_bound
from gemmir.ir.loops import dimension_of, loops_around, require_gemms
from gemmir.ir.views import chain, offsets_of, sizes_of, subview

LEVELS = (Space.L1, Space.L2)
"""Where prefetches bring a line: the instructions of x86 and of Arm know these two."""

LINE_BYTES = 64
"""What one request brings, on every CPU that is shipped here."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """Each iteration of `loop` asks for `lines` of the window along its dimension `dim`.

    All are `most` at most. How many an iteration asks for is None where the number of iterations is
    known at run time only. Where there are several `pieces` of each line, they are one iteration's
    each, of `width` along the `other` dimension.
    """

    loop: scf.ForOp
    dim: int
    most: int
    lines: int | None
    pieces: int = 1
    width: int = 0
    other: int = 0


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """A tile `distance` elements away, but the last one of whole `size`, which begins at `last`."""

    distance: int
    size: int
    last: int


@dataclass(frozen=True, kw_only=True)
class PrefetchPlan:
    """The window of an operand that moves with a loop along its dimension `dim`, and who asks.

    Where nothing is `ahead`, it is the tile of the iteration itself. `into` is None where that will
    be written.
    """

    loop: scf.ForOp
    window: memref.SubviewOp
    dim: int
    ahead: Ahead | None
    into: Space | None
    shares: tuple[Share, ...] = ()


def plan(
    gemm: GemmOp, operand: str, loop: str, ahead: int, to: str, during: Sequence[str]
) -> PrefetchPlan | None:
    """What to ask for; None where the loop has too few iterations for that.

    `ScheduleError` (GEM1310 to GEM1312, GEM1315) where nothing could be asked for.
    """
    least = 0 if operand == "c" and during else 1
    if operand not in ("a", "b", "c") or to not in LEVELS or ahead < least:
        raise ScheduleError(
            "GEM1310",
            f"prefetch: operand={operand} to={to} ahead={ahead}",
            f"use operand=a, b or c, to={' or '.join(LEVELS)}, and ahead=1 or more, or 0 for c "
            "with during",
        )
    value = {"a": gemm.a, "b": gemm.b, "c": gemm.c}[operand]
    filled = _filled_by(value)
    if filled and gemm.prev_op not in filled:
        return None
    around = [o for o in loops_around(gemm, loop) if isinstance(o, scf.ForOp)]
    around = around[during.count(loop) :] or around
    read = gemm.prev_op.source if isinstance(gemm.prev_op, PackOp) and filled else value
    found = _moving(read, around[0]) if around else None
    if found is None and around and _most_trips(around[0]) == 1:
        if ahead > 0:
            return None
        found = _of_one(read, around[0], loop)
    if found is None:
        raise ScheduleError(
            "GEM1311",
            f"prefetch: no loop over {loop} of one core moves what is read of {operand}",
            f"put tile{{loops={'n' if operand == 'b' else 'm'} …}} before it, or name its loop",
        )
    window, dim = found
    if isinstance(memref_type(window.source).layout, PanelAttr):
        raise ScheduleError(
            "GEM1311",
            f"prefetch: what is read of {operand} is in panels, which stay in their cache",
            f"leave prefetch of {operand} out",
        )
    tile = _tile_ahead(loop, around[0], window, dim, ahead) if ahead > 0 else None
    if ahead > 0 and tile is None:
        return None
    made = PrefetchPlan(
        loop=around[0],
        window=window,
        dim=dim,
        ahead=tile,
        into=None if operand == "c" and to == Space.L1 else Space(to),
    )
    return _shared_out(gemm, made, during) if during else made


def _tile_ahead(
    name: str, loop: scf.ForOp, window: memref.SubviewOp, dim: int, ahead: int
) -> Ahead | None:
    """What is read of `window` so many iterations later; None where there are not so many.

    `ScheduleError` GEM1312 where the tiles have sizes that are known at run time only.
    """
    end, step = constant_of(loop.ub), constant_of(loop.step)
    assert step is not None
    size = upper_bound(sizes_of(window)[dim])
    if end is None or size is None or size > end:
        raise ScheduleError(
            "GEM1312",
            f"prefetch: the loop over {name} ends where is known at run time only",
            "tile with edges=peel, or by a size that divides",
        )
    begin = constant_of(loop.lb) or 0
    last = begin + (end - begin - 1) // step * step
    if last < begin + ahead * step:
        return None
    return Ahead(distance=ahead * step, size=size, last=min(last, end - size))


def _shared_out(gemm: GemmOp, plan: PrefetchPlan, during: Sequence[str]) -> PrefetchPlan | None:
    """`plan` with its lines dealt to the iterations of loops inside its own.

    None for a loop of what was peeled off another one, which deals them all.
    """
    inside = list(takewhile(lambda o: o is not plan.loop, enclosing_ops(gemm)))
    outer = len(sizes_of(plan.window)) - 2  # the batch
    left = [upper_bound(size) for size in sizes_of(plan.window)][-2:]
    shares: list[Share] = []
    for name in during:
        loop = next((o for o in inside if dimension_of(o) == name), None)
        trips = _most_trips(loop) if isinstance(loop, scf.ForOp) else None
        known = [size for size in left if size is not None]
        if not isinstance(loop, scf.ForOp) or len(known) < 2 or _rank(plan) != 2:
            raise ScheduleError(
                "GEM1315",
                f"prefetch: during={','.join(during)}, and there is no loop over {name} inside "
                f"{'that' if shares else 'the other'}, or the tile has no known size",
                f"put tile{{loops={name} …}} before prefetch, or leave during out",
            )
        if constant_of(loop.lb) != 0:
            return None
        if trips is not None and shares and len(shares) == len(during) - 1:
            dealt = {share.dim for share in shares}
            shares.append(_line_by_line(plan, loop, known, trips, dealt))
            break
        dim = _dealt(plan, known, trips or max(known))
        most = known[dim - outer]
        lines = None if trips is None else -(-most // trips)
        shares.append(Share(loop=loop, dim=dim, most=most, lines=lines))
        left[dim - outer] = lines or 1
        inside = inside[: inside.index(loop)]
    return replace(plan, shares=tuple(shares))


def _line_by_line(
    plan: PrefetchPlan, loop: scf.ForOp, left: Sequence[int], trips: int, dealt: Set[int]
) -> Share:
    """The share of the innermost of several loops: rows, or parts of them of whole lines.

    Where columns are `dealt` already, and not in whole lines, they stay together.
    """
    outer, (near, line) = len(offsets_of(plan.window)) - 2, _lines_along(plan)
    rows, in_row = left[1 - near], -(-left[near] // line)
    is_whole = outer + near not in dealt or left[near] % line == 0
    pieces = max(min(in_row, trips // rows), 1) if is_whole else 1
    return Share(
        loop=loop,
        dim=outer + 1 - near,
        most=rows,
        lines=-(-rows // trips),
        pieces=pieces,
        width=-(-in_row // pieces) * line,
        other=outer + near,
    )


def _lines_along(plan: PrefetchPlan) -> tuple[int, int]:
    """The dimension whose elements are adjacent, of the last two, and how many are in a line."""
    source = memref_type(plan.window.source)
    assert isinstance(source.element_type, builtin.FixedBitwidthType)
    near = 1 if strides_of(source)[-1] == 1 else 0
    return near, LINE_BYTES // source.element_type.size


def _dealt(plan: PrefetchPlan, whole: Sequence[int], parts: int) -> int:
    """The dimension that is dealt into so many parts.

    It is not that of the loop, unless parts of the other are shorter than a line.
    """
    outer, (near, line) = len(offsets_of(plan.window)) - 2, _lines_along(plan)

    def requests(dim: int) -> int:
        sizes = list(whole)
        sizes[dim] = -(-sizes[dim] // parts)
        return sizes[1 - near] * -(-sizes[near] // line)

    own = plan.dim - outer
    return min((1 - own, own), key=requests) + outer


def _most_trips(loop: scf.ForOp) -> int | None:
    """How many iterations `loop` has at most, from 0 on; None where nothing says so."""
    end, step = upper_bound(loop.ub), constant_of(loop.step)
    return None if end is None or step is None else max(-(-end // step), 1)


def _moving(value: SSAValue, loop: scf.ForOp) -> tuple[memref.SubviewOp, int] | None:
    """The outermost window of `value` whose place along one dimension is that of `loop`."""
    variable = loop.body.block.args[0]
    for window in chain(_copied_from(value))[1]:
        for dim, offset in enumerate(offsets_of(window)):
            if offset is variable:
                return window, dim
    return None


def _of_one(
    value: SSAValue, loop: scf.ForOp, dimension: str
) -> tuple[memref.SubviewOp, int] | None:
    """The window of C that the only iteration of `loop` cuts, whose place is a constant."""
    windows = (window for window in chain(_copied_from(value))[1] if dimension in ("m", "n"))
    found = next((window for window in windows if window.parent is loop.body.block), None)
    return None if found is None else (found, len(offsets_of(found)) - 2 + "mn".index(dimension))


def _filled_by(value: SSAValue) -> list[Operation]:
    """The copies, each right before a gemm that reads the same, that fill the panels of `value`."""
    views = [use.operation for use in chain(value)[0].uses]
    users = [u.operation for v in views if isinstance(v, memref.SubviewOp) for u in v.result.uses]
    return [op for op in users if isinstance(op, PackOp) and isinstance(op.next_op, GemmOp)]


def _copied_from(value: SSAValue) -> SSAValue:
    """Where an operand is in memory: what a packed one is copied from, a sum in registers goes to.

    Any other operand is itself.
    """
    buffer = chain(value)[0]
    views = [use.operation for use in buffer.uses if isinstance(use.operation, memref.SubviewOp)]
    users = [use.operation for view in views for use in view.result.uses]
    for op in users:
        if isinstance(op, PackOp):
            return op.source
        if isinstance(op, EpilogueOp):
            return op.output
    return value


def prefetch(plan: PrefetchPlan) -> None:
    """Ask for the tile at the beginning of each iteration, or for a share of it."""
    builder = before(plan.window)
    if plan.shares:
        first = plan.shares[-1].loop.body.block.first_op
        assert first is not None
        builder = before(first)
    offsets, sizes = list(offsets_of(plan.window)), list(sizes_of(plan.window))
    if plan.ahead is not None:
        distance, last = (
            as_index(plan.loop, plan.ahead.distance),
            as_index(plan.loop, plan.ahead.last),
        )
        far = builder.insert(arith.AddiOp(plan.loop.body.block.args[0], distance)).result
        near = builder.insert(arith.MinSIOp(far, last)).result
        near.name_hint = "far"
        offsets[plan.dim], sizes[plan.dim] = near, plan.ahead.size
    for share in plan.shares:
        whole = sizes[share.other]
        if share.pieces > 1 and isinstance(whole, int):
            piece = _own_piece(builder, share, whole)
            offsets[share.other] = _moved(builder, share, offsets[share.other], piece)
            sizes[share.other] = share.width
        if share.lines is None:
            builder, begin = _each_line(builder, share, sizes[share.dim])
            sizes[share.dim] = 1
        else:
            begin, sizes[share.dim] = _own_lines(builder, share, share.lines, sizes[share.dim])
        offsets[share.dim] = _moved(builder, share, offsets[share.dim], begin)
    is_batch = len(sizes) > _rank(plan)
    tile = subview(builder, plan.window.source, offsets, sizes, drop_batch=is_batch)
    builder.insert(PrefetchOp(tile, plan.into))


def _each_line(builder: Builder, share: Share, whole: Extent) -> tuple[Builder, SSAValue]:
    """A builder inside a loop over the lines that an iteration of `share` asks for, and the line.

    How many those are is computed before the iterations, whose number may be 0.
    """
    loop, one = share.loop, as_index(share.loop, 1)
    outside = before(loop)
    before_end = outside.insert(arith.SubiOp(loop.step, one)).result
    wide = outside.insert(arith.AddiOp(loop.ub, before_end)).result
    trips = outside.insert(arith.DivUIOp(wide, loop.step)).result
    some = outside.insert(arith.MaxSIOp(trips, one)).result
    most = outside.insert(arith.AddiOp(some, as_index(loop, share.most - 1))).result
    lines = outside.insert(arith.DivUIOp(most, some)).result
    begin = builder.insert(arith.MuliOp(_number(builder, loop), lines)).result
    far = builder.insert(arith.AddiOp(begin, lines)).result
    end = builder.insert(arith.MinSIOp(far, as_index(loop, whole))).result
    each = scf.ForOp(begin, end, one, [], Region(Block([scf.YieldOp()], arg_types=[INDEX])))
    builder.insert(each)
    line = each.body.block.args[0]
    line.name_hint = "line"
    return Builder(InsertPoint.at_start(each.body.block)), line


def _own_lines(
    builder: Builder, share: Share, lines: int, whole: Extent
) -> tuple[SSAValue, Extent]:
    """The first of the `lines` that an iteration of `share` asks for, and how many those are.

    Of the last iterations several may ask for the same ones.
    """
    loop = share.loop
    number = _number(builder, loop)
    if share.pieces > 1:
        number = builder.insert(arith.DivUIOp(number, as_index(loop, share.pieces))).result
    begin = builder.insert(arith.MuliOp(number, as_index(loop, lines))).result
    if isinstance(whole, int):
        if -(-(_most_trips(loop) or 0) // share.pieces) * lines > whole:
            last = as_index(loop, whole - lines)
            begin = builder.insert(arith.MinSIOp(begin, last)).result
        return begin, lines
    inside = builder.insert(arith.MinSIOp(begin, whole)).result
    rest = builder.insert(arith.SubiOp(whole, inside)).result
    return inside, builder.insert(arith.MinSIOp(as_index(loop, lines), rest)).result


def _own_piece(builder: Builder, share: Share, whole: int) -> SSAValue:
    """Where in its line the piece begins that an iteration of `share` asks for."""
    loop = share.loop
    pieces, width = as_index(loop, share.pieces), as_index(loop, share.width)
    piece = builder.insert(arith.RemUIOp(_number(builder, loop), pieces)).result
    begin = builder.insert(arith.MuliOp(piece, width)).result
    if share.pieces * share.width <= whole:
        return begin
    return builder.insert(arith.MinSIOp(begin, as_index(loop, whole - share.width))).result


def _number(builder: Builder, loop: scf.ForOp) -> SSAValue:
    """Which iteration of a loop from 0 it is."""
    return builder.insert(arith.DivUIOp(loop.body.block.args[0], loop.step)).result


def _moved(builder: Builder, share: Share, offset: Extent, by: SSAValue) -> SSAValue:
    """offset + by."""
    if offset == 0:
        return by
    return builder.insert(arith.AddiOp(as_index(share.loop, offset), by)).result


def _rank(plan: PrefetchPlan) -> int:
    """How many dimensions the tile has."""
    return len(memref_type(plan.window.result).get_shape())


@dataclass(frozen=True)
class Prefetch(ModulePass):
    """Ask for the tile of `operand` that is read `ahead` iterations later, into the cache `to`.

    With `during` the iterations of one or two loops inside ask for a share each.
    """

    name = "gemmir-prefetch"

    operand: str
    loop: str
    ahead: int
    to: str = Space.L1.value
    during: tuple[str, ...] | None = None

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        plans = [
            plan(gemm, self.operand, self.loop, self.ahead, self.to, self.during or ())
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
