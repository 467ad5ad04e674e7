"""From a loop over k that copies and multiplies to blocks in which warpgroups divide that work.

    forall blocks                          forall blocks
        forall warpgroups %w                   nvgpu.mbarrier.create full and empty, one a stage
            for %p (k)                         nvgpu.warp_specialize
                barrier                            producer    for %p: wait until the stage is empty
                pack a, pack b        ->                               begin to copy a and b
                barrier                            consumers   for %p: wait until the stage is full
                gemm                                                   gemm
            epilogue                                                   release the stage before
                                                               epilogue

Both walk the same loops and number stages alike, round and round; a phase of a barrier ends when a
stage has been filled or has been released by all who read it. A stage is released one iteration
late, when the product after it has begun, so that a product may be under way while the next one is
awaited. Warpgroups of a block multiply tiles below or beside each other, and share A or B; the
blocks of a cluster too: what is the same for all of them each copies a part of, to all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from xdsl.builder import Builder
from xdsl.dialects import arith, memref, scf
from xdsl.dialects.builtin import (
    FixedBitwidthType,
    IndexType,
    IntegerAttr,
    MemRefType,
    StridedLayoutAttr,
    i32,
)
from xdsl.ir import Block, BlockArgument, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint

from gemmir.errors import ScheduleError
from gemmir.ir.attributes import SwizzleAttr
from gemmir.ir.dialect import (
    BLOCKS,
    CLUSTERS,
    WARPGROUPS,
    BarrierOp,
    ForallOp,
    GemmOp,
    Number,
    PackOp,
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
    enclosing_function,
    entry_constant,
    upper_bound,
)
from gemmir.ir.loops import DIMENSION, conditional
from gemmir.ir.views import chain, offsets_of, sizes_of, subview
from gemmir.ir.warpgroup import (
    LEAST_REGISTERS,
    MOST_BOX,
    MOST_CLUSTER,
    REGISTER_STEP,
    WARPGROUP_ROWS,
    WARPS_OF_GROUP,
    ArriveExpectOp,
    ArriveOp,
    ClusterBarrierOp,
    CreateBarriersOp,
    CreateDescriptorOp,
    TmaLoadOp,
    WaitOp,
    WarpSpecializeOp,
)

REGISTERS_PER_BLOCK = 65536
THREADS_OF_GROUP = 128
"""What `setmaxnreg` divides among warpgroups of 128 threads: PTX ISA 9.0, section "setmaxnreg"; the
registers of a multiprocessor, table of technical specifications of the CUDA C++ Programming Guide.
"""

PRODUCER_REGISTERS = 40
MOST_CONSUMER_REGISTERS = 232
"""What a thread that only begins copies needs, and what one may keep beside it: multiples of 8, as
CUTLASS 3 has them in its kernels with two warpgroups that multiply."""

SWIZZLE_ROWS = 8
"""Rows after which the pattern of a swizzle repeats, so that parts of a box begin there."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """The copy of one operand into a buffer that becomes one of all stages.

    `split` is in how many parts the blocks of a cluster copy it, 1 where each needs its own. `k` is
    the dimension of the sum; `box` is the part that one copy moves.
    """

    pack: PackOp
    alloca: memref.AllocaOp
    shape: tuple[int, int]
    layout: SwizzleAttr
    root: SSAValue
    k: int
    split: int
    box: tuple[int, int]

    @property
    def slow(self) -> int:
        """The dimension along which stages lie behind one another."""
        return 1 - self.layout.dim.data

    @property
    def element(self) -> Number:
        """The type of an element."""
        return memref_type(self.alloca.memref).element_type

    @property
    def bytes(self) -> int:
        """Bytes of one stage."""
        assert isinstance(self.element, FixedBitwidthType)
        return math.prod(self.shape) * self.element.size

    @property
    def box_type(self) -> MemRefType[Number]:
        """One box, in a single panel."""
        dim, width, chunk = (
            f.data for f in (self.layout.dim, self.layout.width, self.layout.chunk)
        )
        layout = SwizzleAttr(dim, width, self.box[self.slow] * width, chunk)
        space = memref_type(self.alloca.memref).memory_space
        return MemRefType(self.element, self.box, layout, space)


@dataclass(frozen=True, kw_only=True)
class SpecializePlan:
    """One loop over k, its copies, the loops around it over warpgroups and over the blocks of a
    cluster, outermost first, and what is to become of it."""

    loop: scf.ForOp
    block: ForallOp
    groups: tuple[ForallOp, ...]
    ranks: tuple[ForallOp, ...]
    loads: tuple[Load, ...]
    stages: int
    registers: tuple[int, int]

    @property
    def warpgroups(self) -> int:
        """How many warpgroups multiply."""
        return math.prod(map(_trips, self.groups))

    @property
    def cluster(self) -> int:
        """How many blocks share what they copy; 1 without clusters."""
        return math.prod(map(_trips, self.ranks))


def _trips(loop: ForallOp) -> int:
    ub, step = constant_of(loop.ub), constant_of(loop.step)
    assert ub is not None and step is not None
    return -(-ub // step)


def default_registers(warpgroups: int) -> tuple[int, int]:
    """The registers of a thread that copies and of one that multiplies.

    All threads begin with an equal share, in steps of 8, of those of a block; what the producer
    gives up the others may take.
    """
    threads = (1 + warpgroups) * THREADS_OF_GROUP
    begin = min(REGISTERS_PER_BLOCK // threads, 255) // REGISTER_STEP * REGISTER_STEP
    producer = PRODUCER_REGISTERS if warpgroups < 3 else LEAST_REGISTERS
    rest = begin * threads - producer * THREADS_OF_GROUP
    most = rest // (warpgroups * THREADS_OF_GROUP) // REGISTER_STEP * REGISTER_STEP
    return producer, min(most, MOST_CONSUMER_REGISTERS)


def plan_specialize(loop: scf.ForOp, packs: Sequence[PackOp], stages: int) -> SpecializePlan:
    """Decide the roles; `ScheduleError` (GEM0273 to GEM0279) where there cannot be any."""
    foralls = [o for o in enclosing_ops(loop) if isinstance(o, ForallOp)][::-1]
    units = [o.over.data for o in foralls]
    groups = tuple(o for o in foralls if o.over.data == WARPGROUPS)
    if not groups or BLOCKS not in units or set(units) - {CLUSTERS, BLOCKS, WARPGROUPS}:
        raise ScheduleError(
            "GEM0273",
            f"pipeline: with=tma divides a block among warpgroups, and the tile is one of "
            f"{', '.join(units) or 'no unit'}",
            "tile over blocks and then over warpgroups",
        )
    in_cluster = CLUSTERS in units
    blocks = tuple(o for o in foralls if o.over.data == BLOCKS)
    ranks = blocks if in_cluster else ()
    cluster = math.prod(map(_trips, ranks))
    if cluster > MOST_CLUSTER or (in_cluster and cluster < 2):
        raise ScheduleError(
            "GEM0274",
            f"pipeline: clusters of {cluster} blocks",
            f"tile over blocks so that a cluster has 2 to {MOST_CLUSTER}",
        )
    variables = {o.body.block.args[0] for o in ranks}
    loads = tuple(_plan_load(loop, pack, variables, cluster) for pack in packs)
    if in_cluster and all(load.split == 1 for load in loads):
        raise ScheduleError(
            "GEM0274",
            "pipeline: the blocks of a cluster share neither A nor B",
            "tile only m or only n over the blocks of a cluster",
        )
    warpgroups = math.prod(map(_trips, groups))
    return SpecializePlan(
        loop=loop,
        block=blocks[-1],
        groups=groups,
        ranks=ranks,
        loads=loads,
        stages=stages,
        registers=default_registers(warpgroups),
    )


def _plan_load(loop: scf.ForOp, pack: PackOp, ranks: set[SSAValue], cluster: int) -> Load:
    alloca = pack.target.owner
    assert isinstance(alloca, memref.AllocaOp)
    of = memref_type(alloca.memref)
    if not isinstance(of.layout, SwizzleAttr):
        raise ScheduleError(
            "GEM0275",
            f"pipeline: with=tma copies into swizzled tiles, not into {of}",
            "promote with layout=swizzle:128",
        )
    position = _operand_of(loop, alloca)
    k = 1 - position
    rows, columns = of.get_shape()
    shape = [rows, columns]
    if position == 0:
        shape[0] = -(-rows // WARPGROUP_ROWS) * WARPGROUP_ROWS
    _require_whole_slices(loop, pack.source, k)
    is_shared_by_all = bool(ranks) and not _depends(pack.source, ranks)
    split = cluster if is_shared_by_all else 1
    box = _box(shape, of.layout, k, split)
    return Load(
        pack=pack,
        alloca=alloca,
        shape=(shape[0], shape[1]),
        layout=of.layout,
        root=chain(pack.source)[0],
        k=k,
        split=split,
        box=box,
    )


def _operand_of(loop: scf.ForOp, alloca: memref.AllocaOp) -> int:
    """0 where the buffer holds A of the product in the loop, 1 where it holds B."""
    for gemm in loop.walk():
        if isinstance(gemm, GemmOp):
            return 0 if chain(gemm.a)[0] is alloca.memref else 1
    raise AssertionError("a loop that copies to shared memory multiplies")


def _box(shape: Sequence[int], layout: SwizzleAttr, k: int, split: int) -> tuple[int, int]:
    """What one copy moves: one panel of a part, and at most 256 rows of it."""
    fast, width = layout.dim.data, layout.width.data
    box = list(shape)
    step = width if fast == 1 - k else SWIZZLE_ROWS
    if box[1 - k] % (split * step):
        raise ScheduleError(
            "GEM0276",
            f"pipeline: {box[1 - k]} elements along {'nm'[k]} are not {split} parts of whole "
            f"{step}, one for each block of a cluster",
            f"tile {'nm'[k]} by a multiple of {split * step}",
        )
    box[1 - k] //= split
    box[fast] = min(box[fast], width)
    box[1 - fast] = math.gcd(box[1 - fast], MOST_BOX) if box[1 - fast] > MOST_BOX else box[1 - fast]
    return box[0], box[1]


def _require_whole_slices(loop: scf.ForOp, source: SSAValue, k: int) -> None:
    """Past a slice of k there must be nothing, or zeros of the TMA, which fills up only at the end.

    What is copied too much along m or n is never stored.
    """
    step = constant_of(loop.step)
    assert step is not None
    root, views = chain(source)
    for view in views:
        if loop in enclosing_ops(view):
            continue
        offset, size = offsets_of(view)[k - 2], sizes_of(view)[k - 2]
        is_whole = offset == 0 and size == memref_type(root).get_shape()[k - 2]
        bound = upper_bound(size)
        if not is_whole and (bound is None or bound % step):
            raise ScheduleError(
                "GEM0277",
                f"pipeline: a part of k of {bound} elements is not made of slices of {step}, and "
                "the TMA would copy beyond it",
                "cut k into parts of whole slices",
            )


def _depends(source: SSAValue, variables: set[SSAValue]) -> bool:
    """Whether where `source` begins follows from one of `variables`."""
    work = [o for v in chain(source)[1] for o in offsets_of(v) if isinstance(o, SSAValue)]
    seen: set[SSAValue] = set()
    while work:
        value = work.pop()
        if value in variables:
            return True
        if value not in seen and isinstance(value.owner, Operation):
            work.extend(value.owner.operands)
        seen.add(value)
    return False


def specialize(plan: SpecializePlan) -> None:
    """Rewrite the block of `plan`."""
    body = plan.block.body.block
    wide = [_all_stages(load, plan.stages) for load in plan.loads]
    maps = [_descriptor(load) for load in plan.loads]
    ops = [o for o in body.ops if not isinstance(o, memref.AllocaOp | YieldOp)]
    builder = before(ops[0])
    arrivals = WARPS_OF_GROUP * plan.warpgroups * plan.cluster
    full = builder.insert(CreateBarriersOp(stages=plan.stages, arrivals=1)).result
    empty = builder.insert(CreateBarriersOp(stages=plan.stages, arrivals=arrivals)).result
    full.name_hint, empty.name_hint = "full", "empty"
    is_cluster = plan.cluster > 1
    builder.insert(ClusterBarrierOp() if is_cluster else BarrierOp())
    producer, consumers = Block(), Block(arg_types=[IndexType()])
    consumers.args[0].name_hint = "warpgroup"
    both = (
        _Producer(plan, wide, full, empty, maps=maps),
        _Consumer(plan, wide, full, empty, number=consumers.args[0]),
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
    for op in reversed([*(load.alloca for load in plan.loads), *ops]):
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


def _descriptor(load: Load) -> SSAValue:
    """How boxes of the operand are copied, at the entry of the function.

    Matrices of a batch that are all the same are one.
    """
    root = load.root
    of = memref_type(root)
    entry = enclosing_function(load.pack).body.block
    after = root.owner if isinstance(root.owner, Operation) else None
    is_first = isinstance(root, BlockArgument)
    position = next(o for o in entry.ops if not isinstance(o, arith.ConstantOp))
    place = InsertPoint.before(position) if is_first or after is None else InsertPoint.after(after)
    builder = Builder(place)
    if len(of.get_shape()) == 3 and static_strides(of)[0] == 0:
        shape, strides = of.get_shape()[1:], static_strides(of)[1:]
        root = builder.insert(_matrix_of(root, shape, strides)).result
    made = builder.insert(CreateDescriptorOp(root, load.box_type))
    made.result.name_hint = f"{load.root.name_hint or 'operand'}_map"
    return made.result


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
        inner.insert(scf.YieldOp(*stage))
        return list(made.results)

    def open(
        self, loop: scf.ForOp, builder: Builder, carried: Sequence[SSAValue]
    ) -> tuple[scf.ForOp, Block, Builder]:
        """The loop `loop`, empty, that carries these values."""
        body = Block(arg_types=[IndexType(), *[v.type for v in carried]])
        names = ("stage", "parity", "before")
        for argument, name in zip(body.args[1:], names, strict=False):
            argument.name_hint = name
        body.args[0].name_hint = loop.body.block.args[0].name_hint
        self.known[loop.body.block.args[0]] = body.args[0]
        bounds = [self.of(v) for v in (loop.lb, loop.ub, loop.step)]
        made = scf.ForOp(bounds[0], bounds[1], bounds[2], carried, Region(body))
        made.attributes[DIMENSION] = loop.attributes[DIMENSION]
        builder.insert(made)
        return made, body, at_end(body)

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
        is_plain = op.name.startswith("arith.") or isinstance(op, memref.LoadOp)
        if is_plain and all(o in self.known or _is_outside(o, self.plan) for o in op.operands):
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
            part = load.shape[1 - load.k] // load.split
            rank = self.rank(builder)
            begin[1 - load.k] = self.times(builder, rank, part)
        part_shape = list(load.shape)
        part_shape[1 - load.k] //= load.split
        at = self.coordinates(builder, load)
        mask = (1 << load.split) - 1 if load.split > 1 else None
        for row in range(0, part_shape[0], load.box[0]):
            for column in range(0, part_shape[1], load.box[1]):
                places = [
                    self.plus(builder, begin[d], (row, column)[d]) for d in (0, 1)
                ]
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

    def coordinates(self, builder: Builder, load: Load) -> list[Extent]:
        """Where the slice begins in the tensor of its descriptor."""
        views = chain(load.pack.source)[1]
        rank = len(memref_type(load.root).get_shape())
        at: list[Extent] = [0] * rank
        dims = list(range(rank))
        for view in views:
            for dim, offset in zip(dims, offsets_of(view), strict=True):
                at[dim] = self.plus(builder, at[dim], self.extent(offset))
            dropped = len(dims) - len(memref_type(view.result).get_shape())
            dims = dims[dropped:]
        owner = self.maps[self.plan.loads.index(load)].owner
        assert isinstance(owner, CreateDescriptorOp)
        return at[rank - len(memref_type(owner.tensor).get_shape()) :]

    def rank(self, builder: Builder) -> SSAValue:
        """The number of this block in its cluster, the innermost loop fastest."""
        total: Extent = 0
        for loop in self.plan.ranks:
            variable: Extent = loop.body.block.args[0]
            step = constant_of(loop.step)
            if step != 1:
                variable = builder.insert(arith.DivUIOp(variable, loop.step)).result
            total = self.plus(builder, self.times(builder, total, _trips(loop)), variable)
        return as_index(self.plan.loop, total)

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


@dataclass
class _Consumer(_Role):
    """A warpgroup that multiplies; its number is `number`."""

    number: SSAValue | None = None

    def warpgroup(self, loop: ForallOp, builder: Builder) -> None:
        """Nested loops are numbered with the innermost fastest."""
        assert self.number is not None
        groups = self.plan.groups
        inner = math.prod(map(_trips, groups[groups.index(loop) + 1 :]))
        value = self.number
        if inner > 1:
            value = builder.insert(arith.DivUIOp(value, as_index(loop, inner))).result
        if loop is not groups[0]:
            value = builder.insert(arith.RemUIOp(value, as_index(loop, _trips(loop)))).result
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
        builder.insert(op.clone(self.known))

    def k_loop(self, builder: Builder, stage: list[SSAValue]) -> list[SSAValue]:
        loop = self.plan.loop
        made, body, inner = self.open(loop, builder, [*stage, stage[0]])
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
        *following, last = made.results
        self.release_last(builder, loop, last)
        return following

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


def _is_outside(value: SSAValue, plan: SpecializePlan) -> bool:
    """Whether a value is made outside of what is rewritten."""
    owner = value.owner
    holder = owner if isinstance(owner, Operation) else owner.parent_op()
    if isinstance(owner, Block):
        return holder is plan.block or plan.block not in enclosing_ops(holder) if holder else True
    return plan.block not in enclosing_ops(owner)


def _erase_unused(block: Block) -> None:
    """Erase views and index arithmetic that nothing uses."""
    for op in reversed(list(block.walk())):
        is_plain = op.name.startswith("arith.") or isinstance(op, memref.SubviewOp | memref.LoadOp)
        if is_plain and not any(result.uses for result in op.results):
            op.detach()
            op.erase()

