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
awaited. With ping-pong two warpgroups take turns at the tiles of a block, and one stores its tile
while the other multiplies.

Warpgroups of a block multiply tiles below or beside each other, and share A or B; the blocks of a
cluster too: what is the same for all of them each copies a part of, to all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects import arith, memref, scf
from xdsl.dialects.builtin import (
    FixedBitwidthType,
    MemRefType,
)
from xdsl.ir import Operation, SSAValue

from gemmir.errors import ScheduleError
from gemmir.ir.attributes import SwizzleAttr
from gemmir.ir.dialect import (
    BLOCKS,
    CLUSTERS,
    WARPGROUPS,
    EpilogueOp,
    ForallOp,
    GemmOp,
    Number,
    PackOp,
    enclosing_ops,
    memref_type,
)
from gemmir.ir.index import (
    Extent,
    constant_of,
    upper_bound,
)
from gemmir.ir.loops import TILES, dimension_of, trips
from gemmir.ir.tma import MOST_BOX, MOST_CLUSTER
from gemmir.ir.views import chain, offsets_of
from gemmir.ir.warpgroup import (
    LEAST_REGISTERS,
    MOST_REGISTERS,
    REGISTER_STEP,
    WARPGROUP_ROWS,
    column_step,
)

REGISTERS_PER_BLOCK = 65536
THREADS_OF_GROUP = 128
"""What `setmaxnreg` divides among warpgroups of 128 threads: PTX ISA 9.0, section "setmaxnreg"; the
registers of a multiprocessor, table of technical specifications of the CUDA C++ Programming Guide.
"""

PINGPONG = 2
"""Warpgroups that take turns: one multiplies while the other stores."""

INSTRUCTION_BYTES = 32
"""Bytes of k that one instruction takes: PTX ISA 9.0, section "Asynchronous warpgroup level matrix
instructions"."""

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
    the dimension of the sum; `box` is the part that one copy moves. `copied` is what of `shape` all
    of them move: of an A with fewer rows than a warpgroup multiplies, those rows only, for the TMA
    takes long to fill up others, and what they give is never stored.
    """

    pack: PackOp
    alloca: memref.AllocaOp
    shape: tuple[int, int]
    copied: tuple[int, int]
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
        """Bytes that are copied into one stage."""
        assert isinstance(self.element, FixedBitwidthType)
        return math.prod(self.copied) * self.element.size

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
    cluster, outermost first, and what is to become of it. Warpgroups that take `turns` have tiles
    of their own."""

    loop: scf.ForOp
    block: ForallOp
    groups: tuple[ForallOp, ...]
    ranks: tuple[ForallOp, ...]
    loads: tuple[Load, ...]
    stages: int
    registers: tuple[int, int]
    turns: int

    @property
    def readers(self) -> int:
        """How many warpgroups multiply what is in one stage."""
        return math.prod(map(trips, self.groups))

    @property
    def warpgroups(self) -> int:
        """How many warpgroups multiply."""
        return self.readers * self.turns

    @property
    def cluster(self) -> int:
        """How many blocks share what they copy; 1 without clusters."""
        return math.prod(map(trips, self.ranks))


def default_registers(warpgroups: int) -> tuple[int, int]:
    """The registers of a thread that copies and of one that multiplies.

    All threads begin with an equal share, in steps of 8, of those of a block; what the producer
    gives up the others may take.
    """
    threads = (1 + warpgroups) * THREADS_OF_GROUP
    begin = min(REGISTERS_PER_BLOCK // threads // REGISTER_STEP * REGISTER_STEP, MOST_REGISTERS)
    producer = PRODUCER_REGISTERS if warpgroups < 3 else LEAST_REGISTERS
    rest = begin * threads - producer * THREADS_OF_GROUP
    most = rest // (warpgroups * THREADS_OF_GROUP) // REGISTER_STEP * REGISTER_STEP
    return producer, min(most, max(MOST_CONSUMER_REGISTERS, begin))


def plan_specialize(
    loop: scf.ForOp, packs: Sequence[PackOp], stages: int, *, pingpong: bool = False
) -> SpecializePlan:
    """Decide the roles; `ScheduleError` where there cannot be any.

    GEM1273 to GEM1279, GEM1291, and GEM1295 to GEM1297.
    """
    foralls = [o for o in enclosing_ops(loop) if isinstance(o, ForallOp)][::-1]
    units = [o.over.data for o in foralls]
    groups = tuple(o for o in foralls if o.over.data == WARPGROUPS)
    if not groups or BLOCKS not in units or set(units) - {CLUSTERS, BLOCKS, WARPGROUPS}:
        raise ScheduleError(
            "GEM1273",
            f"pipeline: with=tma divides a block among warpgroups, and the tile is one of "
            f"{', '.join(units) or 'no unit'}",
            "tile over blocks and then over warpgroups",
        )
    blocks = tuple(o for o in foralls if o.over.data == BLOCKS)
    _require_one_loop(loop)
    _require_fused(groups[0], blocks[-1])
    for group in groups:
        _require_whole_products(group, packs)
    in_cluster = CLUSTERS in units
    ranks = blocks if in_cluster else ()
    cluster = math.prod(map(trips, ranks))
    if cluster > MOST_CLUSTER or (in_cluster and cluster < 2):
        raise ScheduleError(
            "GEM1274",
            f"pipeline: clusters of {cluster} blocks",
            f"tile over blocks so that a cluster has 2 to {MOST_CLUSTER}",
        )
    variables = set[SSAValue](o.body.block.args[0] for o in ranks)
    loads = tuple(_plan_load(loop, pack, variables, cluster) for pack in packs)
    if in_cluster and all(load.split == 1 for load in loads):
        raise ScheduleError(
            "GEM1274",
            "pipeline: the blocks of a cluster share neither A nor B",
            "tile only m or only n over the blocks of a cluster",
        )
    warpgroups = math.prod(map(trips, groups))
    turns = 1
    if pingpong:
        _require_turns(loop, warpgroups)
        warpgroups = turns = PINGPONG
    return SpecializePlan(
        loop=loop,
        block=blocks[-1],
        groups=groups,
        ranks=ranks,
        loads=loads,
        stages=stages,
        registers=default_registers(warpgroups),
        turns=turns,
    )


def _require_one_loop(loop: scf.ForOp) -> None:
    """A sum goes through one loop over k: behind it all products are awaited."""
    memory = chain(_product_of(loop).c)[0].owner
    assert isinstance(memory, memref.AllocaOp)
    loops = [op for op in enclosing_ops(loop) if _is_over(op, "k")]
    if any(op not in enclosing_ops(memory) for op in loops):
        raise ScheduleError(
            "GEM1296",
            "pipeline: two loops over k add to one sum, whose products would be awaited too late",
            "tile k only once behind promote{operand=c to=registers}",
        )


def _require_fused(group: ForallOp, block: ForallOp) -> None:
    """What is done with C is the work of the warpgroup that has it."""
    epilogues = [op for op in block.walk() if isinstance(op, EpilogueOp)]
    if any(group not in enclosing_ops(op) for op in epilogues):
        raise ScheduleError(
            "GEM1291",
            "pipeline: an epilogue on the tile of a block, which every warpgroup would apply",
            "put fuse-epilogue before pipeline",
        )


def _is_over(op: Operation, dimension: str) -> bool:
    return isinstance(op, scf.ForOp) and dimension_of(op) == dimension


def _require_whole_products(loop: ForallOp, packs: Sequence[PackOp]) -> None:
    """Tiles of warpgroups beside each other do not reach into one another in shared memory."""
    dimension, tile = dimension_of(loop), constant_of(loop.step)
    assert tile is not None
    element = memref_type(packs[0].source).element_type
    step = WARPGROUP_ROWS if dimension == "m" else column_step(element, tile)
    if trips(loop) > 1 and tile % step:
        raise ScheduleError(
            "GEM1297",
            f"pipeline: warpgroups have {tile} of {dimension} each, and their products multiples "
            f"of {step}",
            f"tile {dimension} over warpgroups by {-(-tile // step) * step}",
        )


def _require_turns(loop: scf.ForOp, warpgroups: int) -> None:
    """Warpgroups can take turns at tiles that one block takes, all with the same slices of k."""
    has_tiles = any(_is_over(o, TILES) for o in enclosing_ops(loop))
    has_parts = any(_is_over(o, "k") for o in enclosing_ops(loop))
    bounds = [constant_of(v) for v in (loop.lb, loop.ub)]
    if warpgroups == 1 and has_tiles and not has_parts and None not in bounds:
        return
    shared = f"tiles that {warpgroups} warpgroups share" if warpgroups > 1 else "tiles"
    raise ScheduleError(
        "GEM1279",
        f"pipeline: pingpong=true of {shared}"
        + ("" if has_tiles else ", one for each block")
        + (", each of several parts of k" if has_parts else ""),
        "use persist, tile over warpgroups by the tile of a block, so that each has its own, and "
        "tile k once",
    )


def _plan_load(loop: scf.ForOp, pack: PackOp, ranks: set[SSAValue], cluster: int) -> Load:
    alloca = pack.target.owner
    assert isinstance(alloca, memref.AllocaOp)
    of = memref_type(alloca.memref)
    if not isinstance(of.layout, SwizzleAttr):
        raise ScheduleError(
            "GEM1275",
            f"pipeline: with=tma copies into swizzled tiles, not into {of}",
            "promote with layout=swizzle:128",
        )
    position = _operand_of(loop, alloca)
    k = 1 - position
    rows, columns = of.get_shape()
    shape = [rows, columns]
    if position == 0:
        shape[0] = -(-rows // WARPGROUP_ROWS) * WARPGROUP_ROWS
    whole = memref_type(chain(pack.source)[0]).get_shape()[k - 2]
    _require_whole_slices(loop, whole)
    _require_whole_rows(loop, whole, of, k)
    is_shared_by_all = bool(ranks) and not _depends(pack.source, ranks)
    split = cluster if is_shared_by_all else 1
    copied = list(shape)
    box = _box(copied, of.layout, k, split)
    there = memref_type(chain(pack.source)[0]).get_shape()[-2]
    is_for_all = there > shape[0] - WARPGROUP_ROWS
    if position == 0 and of.layout.dim.data == k and box[0] == shape[0] and is_for_all:
        copied[0] = min(copied[0], there)
        box = min(box[0], copied[0]), box[1]
    return Load(
        pack=pack,
        alloca=alloca,
        shape=(shape[0], shape[1]),
        copied=(copied[0], copied[1]),
        layout=of.layout,
        root=chain(pack.source)[0],
        k=k,
        split=split,
        box=box,
    )


def _product_of(loop: scf.ForOp) -> GemmOp:
    return next(op for op in loop.walk() if isinstance(op, GemmOp))


def _operand_of(loop: scf.ForOp, alloca: memref.AllocaOp) -> int:
    """0 where the buffer holds A of the product in the loop, 1 where it holds B."""
    return 0 if chain(_product_of(loop).a)[0] is alloca.memref else 1


def _box(shape: Sequence[int], layout: SwizzleAttr, k: int, split: int) -> tuple[int, int]:
    """What one copy moves: one panel of a part, and at most 256 rows of it."""
    fast, width = layout.dim.data, layout.width.data
    box = list(shape)
    step = width if fast == 1 - k else SWIZZLE_ROWS
    if box[1 - k] % (split * step):
        raise ScheduleError(
            "GEM1276",
            f"pipeline: {box[1 - k]} elements along {'nm'[k]} are not {split} parts of whole "
            f"{step}, one for each block of a cluster",
            f"tile {'nm'[k]} by a multiple of {split * step}",
        )
    box[1 - k] //= split
    box[fast] = min(box[fast], width)
    box[1 - fast] = math.gcd(box[1 - fast], MOST_BOX) if box[1 - fast] > MOST_BOX else box[1 - fast]
    return box[0], box[1]


def _require_whole_slices(loop: scf.ForOp, whole: int) -> None:
    """Past a slice of k there must be nothing, or zeros of the TMA, which fills up only at the end.

    `whole` is k of the array. What is copied too much along m or n is never stored.
    """
    step, part = constant_of(loop.step), upper_bound(loop.ub)
    assert step is not None
    if part != whole and (part is None or part % step) and not _is_made_of(loop.ub, step):
        length = "known only at run time" if part is None else f"{part} elements"
        raise ScheduleError(
            "GEM1277",
            f"pipeline: a part of k of {length} is not made of slices of {step}, and the "
            "TMA would copy beyond it",
            "cut k into parts of whole slices",
        )


def _is_made_of(size: Extent, step: int) -> bool:
    """Whether `size` is a multiple of `step`, or of what is left where that is less."""
    if isinstance(size, SSAValue) and isinstance(size.owner, arith.MinSIOp):
        return any(_is_made_of(v, step) for v in size.owner.operands)
    if isinstance(size, SSAValue) and isinstance(size.owner, arith.MuliOp):
        return any((constant_of(v) or 1) % step == 0 for v in size.owner.operands)
    known = constant_of(size)
    return known is not None and known % step == 0


def _require_whole_rows(loop: scf.ForOp, whole: int, buffer: MemRefType[Number], k: int) -> None:
    """A slice fills its buffer: what is copied too much along k would be summed.

    It has whole swizzled rows where these run along k, and else whole instructions.
    """
    step, layout, element = constant_of(loop.step), buffer.layout, buffer.element_type
    assert step is not None
    assert isinstance(layout, SwizzleAttr) and isinstance(element, FixedBitwidthType)
    if step < whole and step < buffer.get_shape()[k]:
        is_along_k = layout.dim.data == k
        least = layout.width.data if is_along_k else INSTRUCTION_BYTES // element.size
        raise ScheduleError(
            "GEM1295",
            f"pipeline: slices of k of {step} elements in "
            f"{'swizzled rows' if is_along_k else 'instructions'} of {least}",
            f"tile k by a multiple of {least}"
            + (", or promote with a narrower swizzle" if is_along_k else ""),
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
