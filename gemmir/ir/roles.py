"""Writing what the warpgroups of a block do apart: the loops of a block, once for each role.

See `gemmir.ir.specialize` for what is decided before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from xdsl.builder import Builder
from xdsl.dialects import arith, memref, scf
from xdsl.dialects.builtin import (
    IndexType,
    IntegerAttr,
    MemRefType,
    StridedLayoutAttr,
    i32,
)
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint

from gemmir.ir.attributes import SwizzleAttr
from gemmir.ir.dialect import (
    BarrierOp,
    EpilogueOp,
    ForallOp,
    Number,
    PackOp,
    UnpackOp,
    YieldOp,
    enclosing_ops,
    is_shared,
    memref_type,
    static_strides,
)
from gemmir.ir.index import (
    Extent,
    as_index,
    at_end,
    before,
    constant_of,
    entry_constant,
)
from gemmir.ir.loops import DIMENSION, TILES, conditional, dimension_of, trips
from gemmir.ir.specialize import Load, SpecializePlan
from gemmir.ir.views import chain, offsets_of, sizes_of, subview
from gemmir.ir.warpgroup import (
    WARPGROUP_ROWS,
    WARPS_OF_GROUP,
    ArriveExpectOp,
    ArriveOp,
    ClusterBarrierOp,
    CreateBarriersOp,
    CreateDescriptorOp,
    ProxyFenceOp,
    TmaLoadOp,
    TmaStoreOp,
    TmaStoreWaitOp,
    WaitOp,
    WarpgroupBarrierOp,
    WarpSpecializeOp,
)


def specialize(plan: SpecializePlan) -> None:
    """Rewrite the block of `plan`."""
    body = plan.block.body.block
    wide = [_all_stages(load, plan.stages) for load in plan.loads]
    maps = [_descriptor(load.root, load.box_type) for load in plan.loads]
    stored = _stored_map(plan)
    ops = [o for o in body.ops if not isinstance(o, memref.AllocaOp | YieldOp)]
    builder = before(ops[0])
    arrivals = WARPS_OF_GROUP * plan.readers * plan.cluster
    full = builder.insert(CreateBarriersOp(stages=plan.stages, arrivals=1)).result
    empty = builder.insert(CreateBarriersOp(stages=plan.stages, arrivals=arrivals)).result
    full.name_hint, empty.name_hint = "full", "empty"
    turn: SSAValue | None = None
    if plan.turns > 1:
        turn = builder.insert(CreateBarriersOp(stages=plan.turns, arrivals=WARPS_OF_GROUP)).result
        turn.name_hint = "turn"
    is_cluster = plan.cluster > 1
    builder.insert(ClusterBarrierOp() if is_cluster else BarrierOp())
    producer, consumers = Block(), Block(arg_types=[IndexType()])
    consumers.args[0].name_hint = "warpgroup"
    both = (
        _Producer(plan, wide, full, empty, maps=maps),
        _Consumer(plan, wide, full, empty, number=consumers.args[0], stored=stored, turn=turn),
    )
    for role, block in zip(both, (producer, consumers), strict=True):
        role.run(ops, at_end(block))
        block.add_op(YieldOp())
        _erase_unused(block)
    builder.insert(
        WarpSpecializeOp(
            Region(producer),
            Region(consumers),
            warpgroups=plan.warpgroups,
            registers=plan.registers,
        )
    )
    if is_cluster:
        builder.insert(ClusterBarrierOp())
    memory = [] if stored is None or plan.turns == 1 else [stored.memory]
    for op in reversed([*(load.alloca for load in plan.loads), *memory, *ops]):
        op.detach()
        op.erase(safe_erase=False)


def _all_stages(load: Load, stages: int) -> SSAValue:
    """A buffer of all stages beside the one of a single slice."""
    shape = list(load.shape)
    dim, width, chunk = (f.data for f in (load.layout.dim, load.layout.width, load.layout.chunk))
    shape[load.slow] *= stages
    layout = SwizzleAttr(dim, width, shape[load.slow] * width, chunk)
    space = memref_type(load.alloca.memref).memory_space
    made = MemRefType(load.element, shape, layout, space)
    alloca = memref.AllocaOp(operands=[[], []], result_types=[made])
    alloca.memref.name_hint = load.alloca.memref.name_hint
    before(load.alloca).insert(alloca)
    return alloca.memref


def _descriptor(root: SSAValue, box: MemRefType[Number]) -> SSAValue:
    """How boxes of an array are copied, at the entry of the function.

    Matrices of a batch that are all the same are one.
    """
    of = memref_type(root)
    owner = root.owner
    if isinstance(owner, Operation):
        builder = Builder(InsertPoint.after(owner))
    else:
        entry = next(o for o in owner.ops if not isinstance(o, arith.ConstantOp))
        builder = before(entry)
    tensor = root
    if len(of.get_shape()) == 3 and static_strides(of)[0] == 0:
        shape, strides = of.get_shape()[1:], static_strides(of)[1:]
        tensor = builder.insert(_matrix_of(root, shape, strides)).result
    made = builder.insert(CreateDescriptorOp(tensor, box))
    made.result.name_hint = f"{root.name_hint or 'operand'}_map"
    return made.result


@dataclass(frozen=True, kw_only=True)
class Stored:
    """How C is stored out of shared memory: its map, one box, and how many buffers there are."""

    map: SSAValue
    box: tuple[int, int]
    buffers: int
    pieces: int
    memory: memref.AllocaOp


def _stored_map(plan: SpecializePlan) -> Stored | None:
    """The map for pieces of C that go out through shared memory; None where none do."""
    unpacks = [o for o in plan.block.walk() if isinstance(o, UnpackOp)]
    if not unpacks:
        return None
    memory = chain(unpacks[0].source)[0].owner
    assert isinstance(memory, memref.AllocaOp)
    buffer = memref_type(memory.memref)
    layout = buffer.layout
    assert isinstance(layout, SwizzleAttr)
    width = layout.width.data
    box = WARPGROUP_ROWS, width
    swizzle = SwizzleAttr(1, width, WARPGROUP_ROWS * width, layout.chunk.data)
    made = MemRefType(buffer.element_type, box, swizzle, buffer.memory_space)
    return Stored(
        map=_descriptor(chain(unpacks[0].target)[0], made),
        box=box,
        buffers=buffer.get_shape()[1] // width,
        pieces=len(unpacks),
        memory=memory,
    )


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


def _matrix_of(
    root: SSAValue, shape: Sequence[int], strides: Sequence[int]
) -> memref.ReinterpretCastOp:
    source = memref_type(root)
    made = MemRefType(
        source.element_type, shape, StridedLayoutAttr(strides, 0), source.memory_space
    )
    return memref.ReinterpretCastOp.from_dynamic(root, [0], list(shape), list(strides), made)


@dataclass
class _Role:
    """Writes what one role does: the loops of the block once more, with what it has in them."""

    plan: SpecializePlan
    wide: Sequence[SSAValue]
    full: SSAValue
    empty: SSAValue
    known: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])

    first_parity = 0

    def run(self, ops: Iterable[Operation], builder: Builder) -> None:
        """Write `ops` of the block."""
        stage = [self.constant(0), self.constant(self.first_parity)]
        self.block(ops, builder, stage)

    def block(
        self, ops: Iterable[Operation], builder: Builder, stage: list[SSAValue]
    ) -> list[SSAValue]:
        """Write `ops`; `stage` are the number and the parity of the next stage, and so returned."""
        for op in ops:
            if isinstance(op, YieldOp | scf.YieldOp):
                continue
            if op is self.plan.loop:
                stage = self.k_loop(builder, stage)
            elif self.plan.loop not in op.walk():
                self.clone(op, builder)
            elif isinstance(op, scf.ForOp):
                stage = self.outer_loop(op, builder, stage)
            else:
                assert isinstance(op, ForallOp)
                self.warpgroup(op, builder)
                stage = self.block(op.body.block.ops, builder, stage)
        return stage

    def outer_loop(
        self, loop: scf.ForOp, builder: Builder, stage: list[SSAValue]
    ) -> list[SSAValue]:
        """A loop around that over k, which passes on the stage."""
        made, body, inner = self.open(loop, builder, stage)
        stage = self.block(loop.body.block.ops, inner, list(body.args[1:]))
        inner.insert(scf.YieldOp(*self.after_tile(inner, stage)))
        return list(made.results)

    def after_tile(self, builder: Builder, stage: list[SSAValue]) -> list[SSAValue]:
        """The stage with which the next tile begins."""
        return stage

    def open(
        self, loop: scf.ForOp, builder: Builder, carried: Sequence[SSAValue]
    ) -> tuple[scf.ForOp, Block, Builder]:
        """The loop `loop`, empty, that carries these values."""
        body = Block(arg_types=[IndexType(), *[v.type for v in carried]])
        names = ("stage", "parity", "before" if loop is self.plan.loop else "turn")
        for argument, name in zip(body.args[1:], names, strict=False):
            argument.name_hint = name
        body.args[0].name_hint = loop.body.block.args[0].name_hint
        self.known[loop.body.block.args[0]] = body.args[0]
        made = scf.ForOp(*self.bounds(loop, builder), carried, Region(body))
        made.attributes[DIMENSION] = loop.attributes[DIMENSION]
        builder.insert(made)
        return made, body, at_end(body)

    def bounds(self, loop: scf.ForOp, builder: Builder) -> tuple[SSAValue, SSAValue, SSAValue]:
        """First, last and step of `loop` here."""
        return self.of(loop.lb), self.of(loop.ub), self.of(loop.step)

    def of(self, value: SSAValue) -> SSAValue:
        """What has become of `value` here."""
        return self.known.get(value, value)

    def extent(self, extent: Extent) -> Extent:
        """What has become of an extent here."""
        return extent if isinstance(extent, int) else self.of(extent)

    def constant(self, value: int) -> SSAValue:
        """A number of a stage or a parity."""
        return entry_constant(self.plan.loop, IntegerAttr(value, i32))

    def advance(self, builder: Builder, stage: SSAValue, parity: SSAValue) -> list[SSAValue]:
        """The stage after this one: behind the last the first, in the next phase."""
        one, zero, count = (self.constant(n) for n in (1, 0, self.plan.stages))
        after = builder.insert(arith.AddiOp(stage, one)).result
        wraps = builder.insert(arith.CmpiOp(after, count, "eq")).result
        following = builder.insert(arith.SelectOp(wraps, zero, after)).result
        turn = builder.insert(arith.ExtUIOp(wraps, i32)).result
        return [following, builder.insert(arith.XOrIOp(parity, turn)).result]

    def view(self, builder: Builder, number: int, stage: SSAValue) -> SSAValue:
        """The slice in the stage of this number of the buffer of a load."""
        load, whole = self.plan.loads[number], self.wide[number]
        at = builder.insert(arith.IndexCastOp(stage, IndexType())).result
        length = as_index(self.plan.loop, load.shape[load.slow])
        offsets: list[Extent] = [0, 0]
        offsets[load.slow] = builder.insert(arith.MuliOp(at, length)).result
        return subview(builder, whole, offsets, load.shape)

    def plus(self, builder: Builder, first: Extent, second: Extent) -> Extent:
        if isinstance(first, int) and isinstance(second, int):
            return first + second
        if first == 0 or second == 0:
            return second if first == 0 else first
        terms = [as_index(self.plan.loop, e) for e in (first, second)]
        return builder.insert(arith.AddiOp(terms[0], terms[1])).result

    def times(self, builder: Builder, value: Extent, factor: int) -> Extent:
        if isinstance(value, int):
            return value * factor
        if factor == 1:
            return value
        return builder.insert(arith.MuliOp(value, as_index(self.plan.loop, factor))).result

    def coordinates(self, builder: Builder, window: SSAValue, map: SSAValue) -> list[Extent]:
        """Where a window of an array begins in the tensor of its map.

        The TMA copies whole 16 bytes of adjacent elements, and takes no box that begins in between,
        even if nothing of it is inside. So one past the edge begins there, and not at the edge.
        """
        assert isinstance(map.owner, CreateDescriptorOp)
        root, views = chain(window)
        rank = len(memref_type(root).get_shape())
        adjacent = rank - 2 + map.owner.fast
        at: list[Extent] = [0] * rank
        dims = list(range(rank))
        for view in views:
            for dim, offset in zip(dims, offsets_of(view), strict=True):
                place = _past_the_edge(offset) if dim == adjacent else offset
                at[dim] = self.plus(builder, at[dim], self.extent(place))
            dropped = len(dims) - len(memref_type(view.result).get_shape())
            dims = dims[dropped:]
        return at[rank - len(memref_type(map.owner.tensor).get_shape()) :]

    def warpgroup(self, loop: ForallOp, builder: Builder) -> None:
        """What the variable of a loop over warpgroups is here."""
        raise NotImplementedError

    def clone(self, op: Operation, builder: Builder) -> None:
        """Write an op that has nothing to do with stages."""
        raise NotImplementedError

    def k_loop(self, builder: Builder, stage: list[SSAValue]) -> list[SSAValue]:
        """Write the loop over k."""
        raise NotImplementedError


@dataclass
class _Producer(_Role):
    """The thread that copies. Of a barrier of empty stages no phase has ended at first."""

    maps: Sequence[SSAValue] = ()

    first_parity = 1

    def warpgroup(self, loop: ForallOp, builder: Builder) -> None:
        """Nothing that is copied is one warpgroup's."""

    def clone(self, op: Operation, builder: Builder) -> None:
        """Only what may lead to where a slice begins."""
        if isinstance(op, scf.YieldOp):
            return
        own = set(_made_in(op))
        used = {o for inner in op.walk() for o in inner.operands} - own - self.known.keys()
        is_arithmetic = all(_is_arithmetic(inner) for inner in op.walk())
        if is_arithmetic and all(_is_outside(o, self.plan) for o in used):
            builder.insert(op.clone(self.known))

    def k_loop(self, builder: Builder, stage: list[SSAValue]) -> list[SSAValue]:
        loop = self.plan.loop
        made, body, inner = self.open(loop, builder, stage)
        number, parity = body.args[1:]
        inner.insert(WaitOp(self.empty, number, parity))
        total = sum(load.bytes for load in self.plan.loads)
        inner.insert(ArriveExpectOp(self.full, number, bytes=total))
        for op in loop.body.block.ops:
            self.clone(op, inner)
        for which in range(len(self.plan.loads)):
            self.load(inner, which, number)
        inner.insert(scf.YieldOp(*self.advance(inner, number, parity)))
        return list(made.results)

    def load(self, builder: Builder, which: int, stage: SSAValue) -> None:
        """Begin to copy a slice, box by box."""
        load, view = self.plan.loads[which], self.view(builder, which, stage)
        begin: list[Extent] = [0, 0]
        if load.split > 1:
            part = load.copied[1 - load.k] // load.split
            rank = self.rank(builder)
            begin[1 - load.k] = self.times(builder, rank, part)
        part_shape = list(load.copied)
        part_shape[1 - load.k] //= load.split
        at = self.coordinates(builder, load.pack.source, self.maps[which])
        mask = (1 << load.split) - 1 if load.split > 1 else None
        for row in range(0, part_shape[0], load.box[0]):
            for column in range(0, part_shape[1], load.box[1]):
                places = [self.plus(builder, begin[d], (row, column)[d]) for d in (0, 1)]
                whole = load.box == load.shape
                target = view if whole else subview(builder, view, places, load.box)
                indices = [*at[:-2]]
                for d in (0, 1):
                    indices.append(self.plus(builder, at[d - 2], places[d]))
                builder.insert(
                    TmaLoadOp(
                        self.maps[which],
                        [as_index(self.plan.loop, i) for i in indices],
                        self.full,
                        stage,
                        target,
                        multicast=mask,
                    )
                )

    def rank(self, builder: Builder) -> SSAValue:
        """The number of this block in its cluster, the innermost loop fastest."""
        total: Extent = 0
        for loop in self.plan.ranks:
            variable: Extent = loop.body.block.args[0]
            step = constant_of(loop.step)
            if step != 1:
                variable = builder.insert(arith.DivUIOp(variable, loop.step)).result
            total = self.plus(builder, self.times(builder, total, trips(loop)), variable)
        return as_index(self.plan.loop, total)


@dataclass
class _Consumer(_Role):
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


def _past_the_edge(offset: Extent) -> Extent:
    """Where a tile of a unit is, also if that is past the edge, at which an empty one begins."""
    if not isinstance(offset, SSAValue) or not isinstance(offset.owner, arith.MinSIOp):
        return offset
    place = offset.owner.lhs
    is_of_unit = isinstance(place.owner, Block) and isinstance(place.owner.parent_op(), ForallOp)
    return place if is_of_unit or constant_of(place) is not None else offset


def _is_outside(value: SSAValue, plan: SpecializePlan) -> bool:
    """Whether a value is made outside of what is rewritten."""
    owner = value.owner
    holder = owner if isinstance(owner, Operation) else owner.parent_op()
    if isinstance(owner, Block):
        return holder is plan.block or plan.block not in enclosing_ops(holder) if holder else True
    return plan.block not in enclosing_ops(owner)


def _is_arithmetic(op: Operation) -> bool:
    """Whether an op computes with numbers alone; a loop may be one that searches."""
    return op.name.startswith("arith.") or isinstance(op, memref.LoadOp | scf.ForOp | scf.YieldOp)


def _made_in(op: Operation) -> Iterator[SSAValue]:
    """The values that an op and those in it make."""
    for inner in op.walk():
        yield from inner.results
        for region in inner.regions:
            yield from region.block.args


def _erase_unused(block: Block) -> None:
    """Erase views and index arithmetic that nothing uses."""
    for op in reversed(list(block.walk())):
        is_plain = op.name.startswith("arith.") or isinstance(op, memref.SubviewOp | memref.LoadOp)
        if is_plain and not any(result.uses for result in op.results):
            op.detach()
            op.erase()
