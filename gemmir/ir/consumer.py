"""Writing what a warpgroup does that multiplies: its products, and its part of C."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.dialects import arith, memref, scf
from xdsl.dialects.builtin import IndexType, MemRefType, i32
from xdsl.ir import Operation, Region, SSAValue

from gemmir.ir.attributes import SwizzleAttr
from gemmir.ir.dialect import (
    BarrierOp,
    EpilogueOp,
    ForallOp,
    PackOp,
    UnpackOp,
    is_shared,
    memref_type,
)
from gemmir.ir.index import as_index, before, constant_of
from gemmir.ir.loops import TILES, conditional, dimension_of, trips
from gemmir.ir.role import Role
from gemmir.ir.tma import ArriveOp, ProxyFenceOp, TmaStoreOp, TmaStoreWaitOp, WaitOp
from gemmir.ir.views import offsets_of, sizes_of, subview
from gemmir.ir.warpgroup import WarpgroupBarrierOp


@dataclass(frozen=True, kw_only=True)
class Stored:
    """How C is stored out of shared memory: its map, one box, and how many buffers there are."""

    map: SSAValue
    box: tuple[int, int]
    buffers: int
    pieces: int
    memory: memref.AllocaOp


@dataclass
class Consumer(Role):
    """A warpgroup that multiplies; its number is `number`."""

    number: SSAValue | None = None
    stored: Stored | None = None
    turn: SSAValue | None = None
    begun: int = 0

    def run(self, ops: Iterable[Operation], builder: Builder) -> None:
        """Write `ops`; the block stays until all that it stores has been read."""
        stage = [self.constant(0), self.constant(0)]
        if self.plan.turns > 1:
            begin = self.times(builder, as_index(self.plan.loop, self.first), self.slices)
            stage = self.passed(builder, as_index(self.plan.loop, begin), stage[1])
            mine = builder.insert(arith.IndexCastOp(self.first, i32)).result
            stage.append(builder.insert(arith.XOrIOp(mine, self.constant(1))).result)
            self.own_memory(builder)
        self.block(ops, builder, stage)
        if self.stored is not None:
            builder.insert(TmaStoreWaitOp(0))

    def own_memory(self, builder: Builder) -> None:
        """What this warpgroup's tiles of C go out through."""
        if self.stored is None:
            return
        wide = _for_each_turn(self.stored, self.plan.turns)
        rows, columns = memref_type(self.stored.memory.memref).get_shape()
        begin = as_index(self.plan.loop, self.times(builder, self.first, rows))
        own = subview(builder, wide, (begin, 0), (rows, columns))
        self.known[self.stored.memory.memref] = own

    @property
    def first(self) -> SSAValue:
        """The number of this warpgroup, and of the first tile that it takes if they take turns."""
        assert self.number is not None
        return self.number

    @property
    def slices(self) -> int:
        """How many slices of k a tile has."""
        lb, ub, step = (
            constant_of(v) for v in (self.plan.loop.lb, self.plan.loop.ub, self.plan.loop.step)
        )
        assert lb is not None and ub is not None and step is not None
        return max(-(-(ub - lb) // step), 0)

    def bounds(self, loop: scf.ForOp, builder: Builder) -> tuple[SSAValue, SSAValue, SSAValue]:
        """Warpgroups that take turns begin one tile apart, and leave out those of the others."""
        lb, ub, step = super().bounds(loop, builder)
        turns = self.plan.turns
        if turns == 1 or dimension_of(loop) != TILES:
            return lb, ub, step
        later = builder.insert(arith.MuliOp(self.first, step)).result
        count = constant_of(step)
        assert count is not None
        return (
            builder.insert(arith.AddiOp(lb, later)).result,
            ub,
            as_index(self.plan.loop, count * turns),
        )

    def after_tile(self, builder: Builder, stage: list[SSAValue]) -> list[SSAValue]:
        """Behind the slices of the tiles of the others."""
        if self.plan.turns == 1:
            return stage
        number = builder.insert(arith.IndexCastOp(stage[0], IndexType())).result
        passed = self.plus(builder, number, self.slices * (self.plan.turns - 1))
        return [*self.passed(builder, as_index(self.plan.loop, passed), stage[1]), *stage[2:]]

    def passed(self, builder: Builder, number: SSAValue, parity: SSAValue) -> list[SSAValue]:
        """The stage of a number that counts on behind the last, from the phase of `parity` on."""
        count, two = (as_index(self.plan.loop, n) for n in (self.plan.stages, 2))
        stage = builder.insert(arith.RemUIOp(number, count)).result
        phases = builder.insert(arith.DivUIOp(number, count)).result
        odd = builder.insert(arith.RemUIOp(phases, two)).result
        turned, stage = (builder.insert(arith.IndexCastOp(v, i32)).result for v in (odd, stage))
        return [stage, builder.insert(arith.XOrIOp(parity, turned)).result]

    def warpgroup(self, loop: ForallOp, builder: Builder) -> None:
        """Nested loops are numbered with the innermost fastest."""
        if self.plan.turns > 1:
            self.known[loop.body.block.args[0]] = as_index(loop, 0)
            return
        groups = self.plan.groups
        inner = math.prod(map(trips, groups[groups.index(loop) + 1 :]))
        value = self.first
        if inner > 1:
            value = builder.insert(arith.DivUIOp(value, as_index(loop, inner))).result
        if loop is not groups[0]:
            value = builder.insert(arith.RemUIOp(value, as_index(loop, trips(loop)))).result
        if constant_of(loop.step) != 1:
            value = builder.insert(arith.MuliOp(value, loop.step)).result
        value.name_hint = loop.body.block.args[0].name_hint
        self.known[loop.body.block.args[0]] = value

    def clone(self, op: Operation, builder: Builder) -> None:
        """All but barriers of the block; windows into a buffer become such into its stage."""
        if isinstance(op, BarrierOp | PackOp):
            return
        if isinstance(op, memref.SubviewOp) and is_shared(op.source):
            offsets = [self.extent(o) for o in offsets_of(op)]
            sizes = [self.extent(s) for s in sizes_of(op)]
            self.known[op.result] = subview(builder, self.of(op.source), offsets, sizes)
            return
        if isinstance(op, UnpackOp):
            self.store(builder, op)
            return
        if isinstance(op, scf.IfOp) and not op.results:
            builder.insert(
                conditional(
                    self.of(op.cond),
                    lambda then: self.clone_all(op.true_region, then),
                    lambda otherwise: self.clone_all(op.false_region, otherwise),
                )
            )
            return
        if isinstance(op, EpilogueOp) and is_shared(op.output):
            assert self.stored is not None
            builder.insert(TmaStoreWaitOp(self.still_reading))
            builder.insert(WarpgroupBarrierOp())
            self.begun += 1
        builder.insert(op.clone(self.known))

    def clone_all(self, region: Region, builder: Builder) -> None:
        """Write the ops of one branch."""
        for block in region.blocks:
            for op in block.ops:
                if not isinstance(op, scf.YieldOp):
                    self.clone(op, builder)

    @property
    def still_reading(self) -> int:
        """How many stores may still read other buffers than that of the next piece of C.

        The first piece of a tile has the buffer of the last one of the tile before, where they do
        not come out even.
        """
        assert self.stored is not None
        is_even = self.stored.pieces % self.stored.buffers == 0
        return self.stored.buffers - 1 if is_even or self.begun else 0

    def store(self, builder: Builder, op: UnpackOp) -> None:
        """Begin to store a whole box: what is past the edge of C is left out."""
        assert self.stored is not None
        builder.insert(ProxyFenceOp())
        builder.insert(WarpgroupBarrierOp())
        window = op.source.owner
        assert isinstance(window, memref.SubviewOp)
        offsets = [self.extent(o) for o in offsets_of(window)]
        box = subview(builder, self.of(window.source), offsets, self.stored.box)
        at = self.coordinates(builder, op.target, self.stored.map)
        indices = [as_index(self.plan.loop, i) for i in at]
        builder.insert(TmaStoreOp(box, self.stored.map, indices))

    def k_loop(self, builder: Builder, stage: list[SSAValue]) -> list[SSAValue]:
        loop = self.plan.loop
        rest = self.await_turn(builder, stage[2:])
        made, body, inner = self.open(loop, builder, [*stage[:2], stage[0]])
        number, parity, last = body.args[1:]
        inner.insert(WaitOp(self.full, number, parity))
        for which, load in enumerate(self.plan.loads):
            self.known[load.alloca.memref] = self.view(inner, which, number)
        for op in loop.body.block.ops:
            if not isinstance(op, scf.YieldOp):
                self.clone(op, inner)
        is_later = inner.insert(arith.CmpiOp(body.args[0], self.of(loop.lb), "ne")).result
        inner.insert(
            conditional(
                is_later,
                lambda then: then.insert(self.release(last)),
                lambda otherwise: None,
            )
        )
        inner.insert(scf.YieldOp(*self.advance(inner, number, parity), number))
        self.pass_turn(builder)
        self.release_last(builder, loop, made.results[2])
        return [*made.results[:2], *rest]

    def await_turn(self, builder: Builder, parity: Sequence[SSAValue]) -> list[SSAValue]:
        """Until the other warpgroup has seen its last stage full; the parity of the next turn.

        A wait for the parity of a phase is right only when the one before that has ended. At first
        nobody has to wait for the second warpgroup.
        """
        if self.turn is None:
            return []
        mine = builder.insert(arith.IndexCastOp(self.first, i32)).result
        builder.insert(WaitOp(self.turn, mine, parity[0]))
        return [builder.insert(arith.XOrIOp(parity[0], self.constant(1))).result]

    def pass_turn(self, builder: Builder) -> None:
        """The other warpgroup may begin, while the last products here are under way."""
        if self.turn is not None:
            mine = builder.insert(arith.IndexCastOp(self.first, i32)).result
            other = builder.insert(arith.XOrIOp(mine, self.constant(1))).result
            builder.insert(ArriveOp(self.turn, other))

    def release_last(self, builder: Builder, loop: scf.ForOp, last: SSAValue) -> None:
        """The stage of the last iteration, if there was one."""
        lb, ub = constant_of(loop.lb), constant_of(loop.ub)
        if lb is not None and ub is not None:
            if lb < ub:
                builder.insert(self.release(last))
            return
        bounds = [self.of(v) for v in (loop.lb, loop.ub)]
        ran = builder.insert(arith.CmpiOp(bounds[0], bounds[1], "slt")).result
        builder.insert(
            conditional(ran, lambda then: then.insert(self.release(last)), lambda otherwise: None)
        )

    def release(self, stage: SSAValue) -> ArriveOp:
        """This warpgroup no longer reads the stage."""
        cluster = self.plan.cluster
        return ArriveOp(self.empty, stage, cluster=cluster if cluster > 1 else None)


def _for_each_turn(stored: Stored, turns: int) -> SSAValue:
    """The memory that C goes out through, once for each of the warpgroups that take turns."""
    of = memref_type(stored.memory.memref)
    assert isinstance(of.layout, SwizzleAttr)
    (rows, columns), layout = of.get_shape(), of.layout
    dim, width, chunk = (f.data for f in (layout.dim, layout.width, layout.chunk))
    wide = SwizzleAttr(dim, width, rows * turns * width, chunk)
    made = MemRefType(of.element_type, (rows * turns, columns), wide, of.memory_space)
    alloca = memref.AllocaOp(operands=[[], []], result_types=[made])
    alloca.memref.name_hint = stored.memory.memref.name_hint
    before(stored.memory).insert(alloca)
    return alloca.memref
