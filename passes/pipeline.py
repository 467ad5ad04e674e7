"""Copy the next slices of k while this one is being multiplied.

    scf.for %p …:                          begin to copy slice 0 into stage 0 of %shared
        gemmir.barrier                     begin to copy slice 1 into stage 1 of %shared
        gemmir.pack %slice into %shared    scf.for %p …:
        gemmir.barrier               ->        wait for the copy of this slice
        gemmir.gemm on %shared                 gemmir.barrier
                                               begin to copy the slice after the next
                                               gemmir.gemm on this stage of %shared

A buffer becomes `stages` of them, one behind the other, used in turn: the loop carries their
numbers and passes them on by one. One barrier an iteration is
enough: behind it all threads see what each has copied, and all are done with the stage that was
multiplied in the iteration before, which is the one that is copied into next. Where a block comes
to the loop again, for its next tile, one before the first copies is needed, too.

On a TPU, `with=dma`, the loops over a grid and a loop over k inside them become the steps of one
`pallas.call` (`gemmir.ir.grid`), whose blocks are copied into two buffers in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, builtin, memref, scf
from xdsl.dialects.builtin import MemRefType
from xdsl.ir import Block, Operation, SSAValue

from gemmir.errors import ScheduleError
from gemmir.ir.attributes import SWIZZLE_ROWS, PanelAttr, SwizzleAttr
from gemmir.ir.dialect import BarrierOp, PackOp, is_shared, memref_type, static_strides
from gemmir.ir.grid import make_call, plan_grid
from gemmir.ir.index import Extent, as_index, before, constant_of
from gemmir.ir.keyword_pass import KeywordPass
from gemmir.ir.loops import carry, conditional, dimension_of, is_repeated, require_gemms
from gemmir.ir.nvgpu import AsyncCreateGroupOp, AsyncWaitOp
from gemmir.ir.roles import specialize
from gemmir.ir.specialize import plan_specialize
from gemmir.ir.views import offsets_of, sizes_of, subview

DMA = "dma"
TMA = "tma"
COPIES = ("cp.async", TMA, DMA)
GRID_STAGES = 2
"""Buffers of a block of a grid: one is used while the other is copied."""


@dataclass(frozen=True, kw_only=True)
class Buffer:
    """A buffer of one slice, and what becomes of it: `stages` slices along dimension `slow`."""

    alloca: memref.AllocaOp
    slow: int
    stages: int

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of one slice."""
        rows, columns = memref_type(self.alloca.memref).get_shape()
        return rows, columns


@dataclass(frozen=True, kw_only=True)
class PipelinePlan:
    """One loop over k, its copies and their buffers."""

    loop: scf.ForOp
    packs: tuple[PackOp, ...]
    buffers: tuple[Buffer, ...]
    stages: int
    end: Extent
    step: int


def plan(module: builtin.ModuleOp, loop: str, stages: int) -> list[PipelinePlan]:
    """What to do with each loop; `ScheduleError` (GEM0393 to GEM0395) where there is nothing."""
    return [_plan_loop(op, stages) for op in _loops_to_pipeline(module, loop, stages)]


def _loops_to_pipeline(module: builtin.ModuleOp, loop: str, stages: int) -> list[scf.ForOp]:
    if stages < 2:
        raise ScheduleError(
            "GEM0393", f"pipeline: stages={stages} leaves nothing to overlap", "use 2 or more"
        )
    loops = [o for o in module.walk() if isinstance(o, scf.ForOp) and dimension_of(o) == loop]
    if any(isinstance(inner, AsyncWaitOp) for op in loops for inner in op.body.block.ops):
        raise ScheduleError(
            "GEM0395", f"pipeline: the loop over {loop} is pipelined already", "give one pipeline"
        )
    found = [op for op in loops if _packs(op)]
    if not found or loop != "k":
        raise ScheduleError(
            "GEM0394",
            f"pipeline: no loop over {loop} copies slices of k into shared memory",
            "use tile{loops=k …}, then promote{operand=a to=shared …}, then pipeline{loop=k …}",
        )
    return found


def _packs(loop: scf.ForOp) -> tuple[PackOp, ...]:
    ops = loop.body.block.ops
    return tuple(o for o in ops if isinstance(o, PackOp) and is_shared(o.target))


def _plan_loop(loop: scf.ForOp, stages: int) -> PipelinePlan:
    packs = _packs(loop)
    end, step = constant_of(loop.ub), constant_of(loop.step)
    assert step is not None
    return PipelinePlan(
        loop=loop,
        packs=packs,
        buffers=tuple(_plan_buffer(p.target, stages) for p in packs),
        stages=stages,
        end=loop.ub if end is None else end,
        step=step,
    )


def _plan_buffer(buffer: SSAValue, stages: int) -> Buffer:
    assert isinstance(buffer.owner, memref.AllocaOp)
    of = memref_type(buffer)
    if isinstance(of.layout, SwizzleAttr):
        slow = 1 - of.layout.dim.data
        assert of.get_shape()[slow] % SWIZZLE_ROWS == 0
    elif isinstance(of.layout, PanelAttr):
        slow = 1 - of.layout.dim.data
    else:
        slow = 1 - static_strides(of).index(1)
    return Buffer(alloca=buffer.owner, slow=slow, stages=stages)


def pipeline(plan: PipelinePlan) -> None:
    """Rewrite the loop of `plan`."""
    body = plan.loop.body.block
    first = [as_index(plan.loop, stage) for stage in range(plan.stages)]
    turns, finish = carry([plan.loop], first)
    loop = body.parent_op()
    assert isinstance(loop, scf.ForOp)
    replaced = [o for o in body.ops if isinstance(o, BarrierOp) or o in plan.packs]
    wide = [_widened(b) for b in plan.buffers]
    ahead = plan.stages - 1

    def copy(builder: Builder, at: Extent, stage: Extent) -> None:
        number = as_index(loop, stage)
        for pack, buffer, whole in zip(plan.packs, plan.buffers, wide, strict=True):
            target = _stage_view(builder, loop, buffer, whole, number)
            source = _source(builder, loop, pack, as_index(loop, at))
            builder.insert(PackOp(source, target, asynchronous=True))

    start = before(loop)
    if is_repeated(loop):
        start.insert(BarrierOp())
    for number in range(ahead):
        _copy_ahead(start, loop, plan, number, copy)
        start.insert(AsyncCreateGroupOp())
    inner = before(replaced[0])
    inner.insert(AsyncWaitOp(ahead - 1))
    inner.insert(BarrierOp())
    later = inner.insert(arith.AddiOp(body.args[0], as_index(loop, ahead * plan.step))).result
    remains = inner.insert(arith.CmpiOp(later, as_index(loop, plan.end), "slt")).result
    inner.insert(
        conditional(
            remains,
            lambda then: copy(then, later, turns[-1]),
            lambda otherwise: None,
        )
    )
    inner.insert(AsyncCreateGroupOp())
    for buffer, whole in zip(plan.buffers, wide, strict=True):
        _move(buffer.alloca.memref, _stage_view(inner, loop, buffer, whole, turns[0]))
    for op in (*replaced, *(b.alloca for b in plan.buffers)):
        op.detach()
        op.erase()
    _erase_unused(body)
    finish([*turns[1:], turns[0]])


def _copy_ahead(
    builder: Builder,
    loop: scf.ForOp,
    plan: PipelinePlan,
    number: int,
    copy: Callable[[Builder, Extent, Extent], None],
) -> None:
    """Begin to copy the slice `number` before the loop, if the loop comes to it."""
    at = number * plan.step
    if isinstance(plan.end, int):
        if at < plan.end:
            copy(builder, at, number)
        return
    is_there = arith.CmpiOp(as_index(loop, at), plan.end, "slt")
    builder.insert(is_there)
    builder.insert(
        conditional(is_there.result, lambda then: copy(then, at, number), lambda otherwise: None)
    )


def _widened(buffer: Buffer) -> SSAValue:
    """A buffer of all stages beside the one of a single slice."""
    of = memref_type(buffer.alloca.memref)
    shape, layout = list(of.get_shape()), of.layout
    more = (buffer.stages - 1) * shape[buffer.slow]
    shape[buffer.slow] += more
    if isinstance(layout, PanelAttr):
        dim, width, pitch = (f.data for f in (layout.dim, layout.width, layout.pitch))
        layout = PanelAttr(dim, width, layout.stride.data + more * pitch, pitch)
    elif isinstance(layout, SwizzleAttr):
        dim, width, chunk = (f.data for f in (layout.dim, layout.width, layout.chunk))
        layout = SwizzleAttr(dim, width, layout.stride.data * buffer.stages, chunk)
    made = MemRefType(of.element_type, shape, layout, of.memory_space)
    alloca = memref.AllocaOp(operands=[[], []], result_types=[made])
    alloca.memref.name_hint = buffer.alloca.memref.name_hint
    before(buffer.alloca).insert(alloca)
    return alloca.memref


def _stage_view(
    builder: Builder, anchor: Operation, buffer: Buffer, whole: SSAValue, stage: SSAValue
) -> SSAValue:
    """The slice of `whole` that has the number `stage`."""
    length = as_index(anchor, buffer.shape[buffer.slow])
    offsets: list[Extent] = [0, 0]
    offsets[buffer.slow] = builder.insert(arith.MuliOp(stage, length)).result
    return subview(builder, whole, offsets, buffer.shape)


def _move(buffer: SSAValue, stage: SSAValue) -> None:
    """Let the tiles that are cut from `buffer` be cut from `stage`, whose layout may differ."""
    for use in list(buffer.uses):
        tile = use.operation
        if isinstance(tile, memref.SubviewOp):
            moved = subview(before(tile), stage, offsets_of(tile), sizes_of(tile))
            tile.result.replace_all_uses_with(moved)
            tile.detach()
            tile.erase()


def _source(builder: Builder, loop: scf.ForOp, pack: PackOp, at: SSAValue) -> SSAValue:
    """What `pack` copies in the iteration `at`: the ops of the body that lead to it, once more."""
    body = loop.body.block
    needed = {pack.source}
    known: dict[SSAValue, SSAValue] = {body.args[0]: at}
    ops: list[Operation] = []
    for op in reversed(list(body.ops)):
        if needed.intersection(op.results):
            needed.update(op.operands)
            ops.append(op)
    for op in reversed(ops):
        builder.insert(op.clone(known))
    return known[pack.source]


def _erase_unused(body: Block) -> None:
    """Erase the views and bounds that only the copies have used."""
    for op in reversed(list(body.ops)):
        is_plain = isinstance(op, memref.SubviewOp | arith.SubiOp | arith.MinSIOp | arith.CmpiOp)
        if is_plain and not any(result.uses for result in op.results):
            op.detach()
            op.erase()


@dataclass(frozen=True)
class Pipeline(KeywordPass):
    """Overlap the copies of `loop` with its products, `stages` slices deep, by copies `with`.

    With `tma` and `specialize` one warp copies and warpgroups multiply (`gemmir.ir.specialize`);
    with `pingpong` two of them take turns at the tiles of a block. With `dma` the loop is the
    innermost one around the product, and all loops over the grid join.
    """

    name = "gemmir-pipeline"

    loop: str
    stages: int
    with_: str = "cp.async"
    specialize: bool = False
    pingpong: bool = False

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        products = require_gemms("pipeline", op, takes_scales=self.with_ != DMA)
        if self.with_ not in COPIES:
            raise ScheduleError(
                "GEM0392",
                f"pipeline: with={self.with_!r} copies nothing",
                f"use {', '.join(COPIES)}",
            )
        if self.specialize != (self.with_ == TMA) or self.pingpong > self.specialize:
            raise ScheduleError(
                "GEM1278",
                f"pipeline: with={self.with_} specialize={str(self.specialize).lower()} "
                f"pingpong={str(self.pingpong).lower()}",
                "roles of warpgroups go with the TMA: use with=tma specialize=true, or neither",
            )
        if self.with_ == TMA:
            for found in _loops_to_pipeline(op, self.loop, self.stages):
                packs, stages = _packs(found), self.stages
                specialize(plan_specialize(found, packs, stages, pingpong=self.pingpong))
            return
        if self.with_ == DMA:
            _require_two(self.stages)
            for gemm in products:
                make_call(plan_grid(gemm, self.loop, self.stages))
            return
        for found in plan(op, self.loop, self.stages):
            pipeline(found)


def _require_two(stages: int) -> None:
    if stages != GRID_STAGES:
        raise ScheduleError(
            "GEM0359",
            f"pipeline: stages={stages} of a grid, whose blocks have {GRID_STAGES} buffers",
            f"use stages={GRID_STAGES}",
        )
