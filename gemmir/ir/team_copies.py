"""Copies into shared memory that the threads of a block make together.

    gemmir.pack %a into %shared   ->   gemmir.forall %lane … over threads
      (128 x 32, 256 threads)              %x = vector.transfer_read %a[row, 4 * column]
                                           …  as many as a thread has, and then
                                           vector.transfer_write %x, %shared[row, 4 * column]

An asynchronous copy becomes `nvgpu.device_async_copy` of as many bytes as lie adjacent and aligned
on both sides. Copies nothing by itself, and knows no machine but for what its loads and banks like.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.dialects import arith
from xdsl.dialects.builtin import FixedBitwidthType
from xdsl.ir import Operation, SSAValue

from gemmir.errors import ScheduleError
from gemmir.ir.attributes import PanelAttr, SwizzleAttr
from gemmir.ir.dialect import (
    INSIDE_BLOCK,
    THREADS,
    WARPS,
    ForallOp,
    PackOp,
    enclosing_ops,
    memref_type,
    static_strides,
)
from gemmir.ir.index import Extent, as_index, before, constant_of
from gemmir.ir.loops import conditional, open_loop
from gemmir.ir.nvgpu import ASYNC_COPY_BYTES, AsyncCopyOp
from gemmir.ir.transfers import read, write
from gemmir.ir.views import chain, extents

LANES = 32
"""The threads of a warp."""

ROUNDS, ASYNC_ROUNDS = 8, 16
"""Pieces of a shared tile that a thread copies at once: so many it can hold in registers, or has
registers for the conditions of, where it does not wait for them."""

STRIP_BYTES = 64
"""How wide the strips of a tile are that lies transposed in shared memory. There the elements of a
row are far apart and those of a column adjacent, so that a warp that copies 16 by 2 of 32 bits
reads whole sectors of 32 bytes and writes each bank twice. For f32 at 4096 cubed on an H200 strips
of 32, 64 and 128 bytes gave 45.5, 47.4 and 46.2 TFLOP/s."""


@dataclass(frozen=True, kw_only=True)
class SharePlan:
    """A copy that the threads of a block make together, `shape` at a time, `fast` dimension first.

    Neighbouring threads copy neighbouring elements of the source: `across` pieces of a row, and
    then the rows below; what is beside those comes last. `lanes` is 1 where `threads` are all of
    them, and that of a warp where those are the warps. A thread copies `rounds` pieces at once.
    """

    threads: tuple[ForallOp, ...]
    lanes: int
    shape: tuple[int, int]
    across: int
    fast: int
    extents: tuple[int, int]
    rounds: int

    @property
    def team(self) -> int:
        """How many threads a block has."""
        return math.prod(_trips(loop) for loop in self.threads) * self.lanes

    @property
    def pieces(self) -> int:
        """How many vectors there are to copy."""
        return math.prod(self.extents) // math.prod(self.shape)

    @property
    def strip(self) -> int:
        """Elements along the fast dimension of what is copied before what is beside it."""
        return self.across * self.shape[self.fast]

    def moves(self, first: int, *, is_base: bool) -> tuple[int, int] | None:
        """By how much along the slow and the fast dimension piece `first` lies behind piece 0.

        The same must hold behind every piece of the first round, or, unless `is_base`, of the first
        of every `rounds`; None where it does not.
        """
        if self.strip == self.extents[self.fast] and first % self.across == 0:
            return first // self.across, 0
        rows, taken = self.extents[1 - self.fast], self.team // self.across
        if self.team % self.across or taken == 0 or rows % taken:
            return None
        if not is_base and rows % (self.rounds * taken) and self.rounds * taken % rows:
            return None
        strips, row = divmod(first // self.across, rows)
        return row, strips * self.strip


def plan_share(pack: PackOp, width: int) -> SharePlan:
    """Vectors of up to `width` run along the dimension in which the source is adjacent.

    Raises `ScheduleError` GEM0377 where an asynchronous copy cannot move what is adjacent.
    """
    target = memref_type(pack.target).get_shape()
    strides = static_strides(memref_type(pack.source))
    fast = 0 if strides[0] == 1 and strides[1] != 1 else 1
    lanes = math.gcd(width, target[fast], _adjacent(pack.target, fast))
    across = target[fast] // lanes
    if pack.asynchronous is not None:
        lanes = _async_lanes(pack, fast, lanes)
        across = target[fast] // lanes
        if not _runs_along(pack.target, fast):
            across = math.gcd(across, STRIP_BYTES // _item_bytes(pack.source))
    threads = [
        o for o in enclosing_ops(pack) if isinstance(o, ForallOp) and o.over.data in INSIDE_BLOCK
    ]
    return SharePlan(
        threads=tuple(threads[::-1]),
        lanes=LANES if threads and all(o.over.data == WARPS for o in threads) else 1,
        shape=(lanes, 1) if fast == 0 else (1, lanes),
        across=across,
        fast=fast,
        extents=(target[0], target[1]),
        rounds=ROUNDS if pack.asynchronous is None else ASYNC_ROUNDS,
    )


def _adjacent(buffer: SSAValue, dim: int) -> int:
    """How many elements along `dim` a panel or a chunk of `buffer` has, 0 where it has none."""
    layout = memref_type(buffer).layout
    if not isinstance(layout, PanelAttr | SwizzleAttr) or layout.dim.data != dim:
        return 0
    return layout.width.data if isinstance(layout, PanelAttr) else layout.chunk.data


def _item_bytes(value: SSAValue) -> int:
    element = memref_type(value).element_type
    assert isinstance(element, FixedBitwidthType)
    return element.size


def _runs_along(buffer: SSAValue, dim: int) -> bool:
    """Whether the elements of a shared buffer are adjacent along `dim`."""
    of = memref_type(buffer)
    if isinstance(of.layout, SwizzleAttr | PanelAttr):
        return of.layout.dim.data == dim
    return static_strides(of).index(1) == dim


def _async_lanes(pack: PackOp, fast: int, lanes: int) -> int:
    """How many elements are adjacent in source and target and aligned to their size in both."""
    source, target = memref_type(chain(pack.source)[0]), memref_type(pack.target)
    element = source.element_type
    assert isinstance(element, FixedBitwidthType)
    rows = [
        s for dim, s in enumerate(static_strides(source)) if dim != len(source.shape) - 2 + fast
    ]
    layout = target.layout
    if isinstance(layout, PanelAttr):
        rows += [layout.pitch.data, layout.stride.data]
    elif not isinstance(layout, SwizzleAttr):
        rows += [s for s in static_strides(target) if s != 1]
    runs = _runs_along(pack.target, fast)
    lanes = math.gcd(lanes, *rows) if runs else 1
    lanes = min(lanes, ASYNC_COPY_BYTES[-1] // element.size)
    if lanes * element.size in ASYNC_COPY_BYTES:
        return lanes
    reason = f"rows of {max(rows, default=1)} elements" if runs else "a transposed tile"
    raise ScheduleError(
        "GEM0377",
        f"vectorize: an asynchronous copy moves {', '.join(map(str, ASYNC_COPY_BYTES))} bytes, and "
        f"of {reason} of {element} it can move {lanes * element.size}",
        "leave pipeline out, or pad the rows to a multiple of 16 bytes",
    )


def _trips(loop: ForallOp) -> int:
    ub, step = constant_of(loop.ub), constant_of(loop.step)
    assert ub is not None and step is not None
    return -(-ub // step)


def vectorize_share(pack: PackOp, plan: SharePlan) -> None:
    """Deal the pieces to the threads, some rounds at once and those that remain."""
    builder, lane = before(pack), None
    if plan.lanes > 1:
        bounds = (as_index(pack, 0), as_index(pack, plan.lanes), as_index(pack, 1))
        lane, builder = open_loop(builder, "lane", bounds, THREADS)
    number = _thread_number(builder, pack, plan, lane)
    whole = plan.pieces // plan.team
    looped = whole // plan.rounds * plan.rounds if whole > plan.rounds else 0
    if looped:
        step = plan.rounds * plan.team
        bounds = tuple(as_index(pack, e) for e in (0, looped * plan.team, step))
        turn, inner = open_loop(builder, "piece", (bounds[0], bounds[1], bounds[2]))
        first = inner.insert(arith.AddiOp(number, turn)).result
        _copy_rounds(inner, pack, plan, first, range(0, step, plan.team), is_base=False)
    rest = range(looped * plan.team, whole * plan.team, plan.team)
    _copy_rounds(builder, pack, plan, number, rest, is_base=True)
    if whole * plan.team < plan.pieces:
        last = _add(builder, pack, number, whole * plan.team)
        mine = builder.insert(arith.CmpiOp(last, as_index(pack, plan.pieces), "slt")).result
        builder.insert(
            conditional(
                mine,
                lambda then: _copy_rounds(then, pack, plan, last, range(1), is_base=False),
                lambda otherwise: None,
            )
        )
    pack.detach()
    pack.erase()


def _copy_rounds(
    builder: Builder,
    pack: PackOp,
    plan: SharePlan,
    number: SSAValue,
    rounds: range,
    *,
    is_base: bool,
) -> None:
    """Copy the pieces that come `rounds` pieces after piece `number`: all are read, then stored."""
    found: list[tuple[tuple[Extent, Extent], SSAValue]] = []
    in_bounds = [
        isinstance(e, int) and e == whole
        for e, whole in zip(extents(pack.source), plan.extents, strict=True)
    ]
    origin = _place(builder, pack, plan, number) if rounds else None
    for first in rounds:
        assert origin is not None
        at = _following(builder, pack, plan, origin, number, first, is_base=is_base)
        if pack.asynchronous is not None:
            _begin(builder, pack, plan, at)
            continue
        flags = (in_bounds[0], in_bounds[1])
        found.append((at, read(builder, pack, pack.source, at, plan.shape, flags)))
    for at, value in found:
        write(builder, pack, value, pack.target, at, (True, True))


def _begin(builder: Builder, pack: PackOp, plan: SharePlan, at: tuple[Extent, Extent]) -> None:
    """Begin to copy one piece; outside the source there are zeros."""
    place = [as_index(pack, i) for i in at]
    fast, slow = plan.fast, 1 - plan.fast
    found = extents(pack.source)
    elements = plan.shape[fast]
    valid = as_index(pack, elements)
    if found[fast] != plan.extents[fast]:
        valid = builder.insert(arith.SubiOp(as_index(pack, found[fast]), place[fast])).result
    if found[slow] != plan.extents[slow]:
        inside = builder.insert(arith.CmpiOp(place[slow], as_index(pack, found[slow]), "slt"))
        valid = builder.insert(arith.SelectOp(inside.result, valid, as_index(pack, 0))).result
    builder.insert(
        AsyncCopyOp(pack.source, place, pack.target, place, valid, elements=elements, along=fast)
    )


def _following(
    builder: Builder,
    anchor: Operation,
    plan: SharePlan,
    origin: tuple[SSAValue, SSAValue],
    number: SSAValue,
    first: int,
    *,
    is_base: bool,
) -> tuple[SSAValue, SSAValue]:
    """Where the piece begins that comes `first` pieces after piece `number`, at `origin`."""
    moves = plan.moves(first, is_base=is_base)
    if moves is None:
        return _place(builder, anchor, plan, _add(builder, anchor, number, first))
    at = list(origin)
    for dim, by in zip((1 - plan.fast, plan.fast), moves, strict=True):
        at[dim] = _add(builder, anchor, at[dim], by)
    return at[0], at[1]


def _add(builder: Builder, anchor: Operation, value: SSAValue, constant: int) -> SSAValue:
    if constant == 0:
        return value
    return builder.insert(arith.AddiOp(value, as_index(anchor, constant))).result


def _place(
    builder: Builder, anchor: Operation, plan: SharePlan, piece: SSAValue
) -> tuple[SSAValue, SSAValue]:
    """Where the vector number `piece` begins."""
    lanes = plan.shape[plan.fast]
    across = as_index(anchor, plan.across)
    slow = builder.insert(arith.DivUIOp(piece, across)).result
    rest = builder.insert(arith.RemUIOp(piece, across)).result
    quick = builder.insert(arith.MuliOp(rest, as_index(anchor, lanes))).result
    if plan.strip != plan.extents[plan.fast]:
        rows = as_index(anchor, plan.extents[1 - plan.fast])
        strip = builder.insert(arith.DivUIOp(slow, rows)).result
        slow = builder.insert(arith.RemUIOp(slow, rows)).result
        begin = builder.insert(arith.MuliOp(strip, as_index(anchor, plan.strip))).result
        quick = builder.insert(arith.AddiOp(quick, begin)).result
    return (quick, slow) if plan.fast == 0 else (slow, quick)


def _thread_number(
    builder: Builder, anchor: Operation, plan: SharePlan, lane: SSAValue | None
) -> SSAValue:
    """The number of a thread in its block, the innermost loop fastest."""
    number: SSAValue = as_index(anchor, 0)
    for loop in plan.threads:
        step = as_index(anchor, constant_of(loop.step) or 1)
        turn = builder.insert(arith.DivUIOp(loop.body.block.args[0], step)).result
        scaled = builder.insert(arith.MuliOp(number, as_index(anchor, _trips(loop)))).result
        number = builder.insert(arith.AddiOp(scaled, turn)).result
    if lane is None:
        return number
    scaled = builder.insert(arith.MuliOp(number, as_index(anchor, plan.lanes))).result
    return builder.insert(arith.AddiOp(scaled, lane)).result
