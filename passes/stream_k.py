"""Deal all slices of k evenly to a fixed number of blocks, and add parts in a fixed order.

    gemmir.forall %t = 0 to 150 over blocks    ->   gemmir.forall %b = 0 to 132 over blocks
        acc = tile t of A @ B                           scf.for %w = 0 to 3
        epilogue of acc into C                              the tile and the part of k of item w
                                                            acc = that part of A @ B
                                                            if it is a whole tile
                                                                epilogue of acc into C
                                                            else acc into a workspace
                                                    gemmir.forall … over blocks and threads
                                                        epilogue of the sum of parts into C

As many whole rounds of tiles as leave between one and two for each block are computed as `persist`
has them. The slices of k of the tiles that are left are dealt out evenly, in order, so that a block
begins where the one before it ends, and a tile is the work of a few neighbouring blocks. Threads of
other blocks then add the parts of each tile in the order of k: bits do not depend on which block
comes first. This is the two-tile hybrid of Osama et al., Stream-K, PPoPP 2023, with a second kernel
in the place of waiting for one another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, builtin, memref
from xdsl.dialects.builtin import FixedBitwidthType
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass

from gemmir.errors import ScheduleError
from gemmir.ir.attributes import Space, SpaceAttr
from gemmir.ir.build import added
from gemmir.ir.dialect import (
    BLOCKS,
    THREADS,
    EpilogueOp,
    ForallOp,
    GemmOp,
    YieldOp,
    enclosing_ops,
    memref_type,
)
from gemmir.ir.index import Extent, as_index, before, enclosing_function, upper_bound
from gemmir.ir.loops import TILES, conditional, move, open_loop, require_gemms, trips
from gemmir.ir.views import chain, extents, follow, subview
from gemmir.passes.split_k import (
    COMBINE_THREADS,
    FIXED,
    LOAD_BYTES,
    WORKSPACE_ALIGNMENT_BYTES,
)

WARP = 32
"""Threads of a warp, of which blocks are made."""

MOST_PARTS = 8
"""Parts of a tile that are added: a tile of more is better cut by split-k."""


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """`loops` over tiles, outermost first, of `counts` each, dealt to `blocks` blocks.

    k has `slices` slices of `slice`. Each block takes `rounds` whole tiles and then its share of
    those of the other tiles.
    """

    gemm: GemmOp
    epilogue: EpilogueOp
    loops: tuple[ForallOp, ...]
    counts: tuple[int, ...]
    blocks: int
    slice: int
    k: int

    @property
    def slices(self) -> int:
        """Slices of a tile."""
        return -(-self.k // self.slice)

    @property
    def tiles(self) -> int:
        """All tiles."""
        return math.prod(self.counts)

    @property
    def rounds(self) -> int:
        """Whole tiles of each block."""
        return max(self.tiles // self.blocks - 1, 0)

    @property
    def shared(self) -> int:
        """Tiles whose slices are dealt out."""
        return self.tiles - self.rounds * self.blocks

    @property
    def dealt(self) -> int:
        """Slices that are dealt out."""
        return self.shared * self.slices

    @property
    def items(self) -> int:
        """Tiles, whole or not, that a block has at most."""
        share = -(-self.dealt // self.blocks)
        return self.rounds + -(-share // self.slices) + 1

    @property
    def parts(self) -> int:
        """Blocks that a dealt tile is the work of at most."""
        return max(
            self.owner(self.slices * (tile + 1) - 1) - self.owner(self.slices * tile) + 1
            for tile in range(self.shared)
        )

    def owner(self, number: int) -> int:
        """The block that slice `number` is dealt to: block b begins at b * dealt // blocks."""
        return ((number + 1) * self.blocks - 1) // self.dealt


def plan(gemm: GemmOp, blocks: int, slice_: int, order: str) -> StreamPlan:
    """Decide the shares; `ScheduleError` (GEM1266 to GEM1269) where there are none to deal out."""
    if order != FIXED:
        raise ScheduleError(
            "GEM1269",
            f"stream-k: order={order!r} would let the bits of C depend on which block comes first",
            f"use order={FIXED}, which adds the parts in the order of k",
        )
    foralls = [o for o in enclosing_ops(gemm) if isinstance(o, ForallOp)][::-1]
    loops = tuple(o for o in foralls if o.over.data == BLOCKS)
    epilogue = _write_back(gemm)
    is_nest = foralls[: len(loops)] == list(loops) and all(
        len(o.body.block.ops) == 2 for o in loops[:-1]
    )
    is_whole = all(isinstance(o, ForallOp) for o in enclosing_ops(gemm)[:-2])
    if epilogue is None or not loops or not is_nest or not is_whole:
        raise ScheduleError(
            "GEM1266",
            "stream-k: no tile of a block that is summed over all of k in registers",
            "put it behind tile{… over=blocks}, promote{operand=c to=registers} and fuse-epilogue, "
            "and before tile{loops=k …}",
        )
    k = memref_type(gemm.a).get_shape()[1]
    found = StreamPlan(
        gemm=gemm,
        epilogue=epilogue,
        loops=loops,
        counts=tuple(map(trips, loops)),
        blocks=blocks,
        slice=slice_,
        k=k,
    )
    _require_shares(found)
    return found


def _write_back(gemm: GemmOp) -> EpilogueOp | None:
    """What stores the accumulator of `gemm`; None where its sum is not in one, or not yet whole."""
    accumulator = chain(gemm.c)[0]
    if memref_type(accumulator).memory_space != SpaceAttr(Space.REGISTERS):
        return None
    end = gemm.next_op
    while end is not None:
        if isinstance(end, EpilogueOp) and any(chain(v)[0] is accumulator for v in end.inputs):
            return end
        end = end.next_op
    return None


def _require_shares(plan: StreamPlan) -> None:
    if plan.slice < 1:
        raise ScheduleError(
            "GEM1267",
            f"stream-k: slices of {plan.slice} elements",
            "use the size of the tile of k that follows",
        )
    if plan.blocks < 1 or plan.k < 1 or plan.blocks > plan.tiles * plan.slices:
        raise ScheduleError(
            "GEM1267",
            f"stream-k: {plan.tiles} tiles of k={plan.k} in slices of {plan.slice} are not enough "
            f"for {plan.blocks} blocks",
            f"use at most {plan.tiles * max(plan.slices, 1)} blocks",
        )
    if plan.tiles % plan.blocks == 0:
        raise ScheduleError(
            "GEM1267",
            f"stream-k: {plan.tiles} tiles come out even for {plan.blocks} blocks",
            f"use persist{{blocks={plan.blocks}}}",
        )
    if plan.parts > MOST_PARTS:
        raise ScheduleError(
            "GEM1268",
            f"stream-k: a tile would be the work of {plan.parts} blocks",
            f"use at most {plan.shared * (MOST_PARTS - 1)} blocks, or split-k",
        )


@dataclass
class _Writer:
    """Inserts index arithmetic at one place."""

    builder: Builder
    anchor: Operation

    def index(self, extent: Extent) -> SSAValue:
        return as_index(self.anchor, extent)

    def add(self, x: Extent, y: Extent) -> SSAValue:
        return self.builder.insert(arith.AddiOp(self.index(x), self.index(y))).result

    def sub(self, x: Extent, y: Extent) -> SSAValue:
        return self.builder.insert(arith.SubiOp(self.index(x), self.index(y))).result

    def mul(self, x: Extent, y: Extent) -> SSAValue:
        return self.builder.insert(arith.MuliOp(self.index(x), self.index(y))).result

    def div(self, x: Extent, y: Extent) -> SSAValue:
        return self.builder.insert(arith.DivUIOp(self.index(x), self.index(y))).result

    def rem(self, x: Extent, y: Extent) -> SSAValue:
        return self.builder.insert(arith.RemUIOp(self.index(x), self.index(y))).result

    def least(self, x: Extent, y: Extent) -> SSAValue:
        return self.builder.insert(arith.MinSIOp(self.index(x), self.index(y))).result

    def is_less(self, x: Extent, y: Extent) -> SSAValue:
        return self.builder.insert(arith.CmpiOp(self.index(x), self.index(y), "slt")).result

    def choose(self, condition: SSAValue, x: Extent, y: Extent) -> SSAValue:
        chosen = arith.SelectOp(condition, self.index(x), self.index(y))
        return self.builder.insert(chosen).result

    def most(self, x: Extent, y: Extent) -> SSAValue:
        return self.choose(self.is_less(x, y), y, x)


@dataclass(frozen=True, kw_only=True)
class Item:
    """What a block does at once: a tile, from which slice on and how many, and where its part goes.

    `is_whole` says that it is one of the rounds, and is stored to C.
    """

    tile: SSAValue
    first: SSAValue
    count: SSAValue
    part: SSAValue
    is_whole: SSAValue | None


def stream(plan: StreamPlan) -> None:
    """Rewrite the loops of `plan`, and add the kernel that adds parts."""
    outer, last = plan.loops[0], plan.loops[-1]
    parts = _workspace(plan)
    bounds = tuple(as_index(outer, n) for n in (0, plan.blocks, 1))
    block, builder = open_loop(before(outer), TILES, (bounds[0], bounds[1], bounds[2]), BLOCKS)
    block.name_hint = "block"
    ends = tuple(as_index(outer, n) for n in (0, plan.items, 1))
    number, body = open_loop(builder, TILES, (ends[0], ends[1], ends[2]))
    number.name_hint = "item"
    writer = _Writer(body, outer)
    item = _item(writer, plan, block, number)
    _combine(plan, parts)
    for loop, place in zip(
        plan.loops, _places(writer, plan.loops, plan.counts, item.tile), strict=True
    ):
        loop.body.block.args[0].replace_all_uses_with(place)
    whole = _of_block(plan)
    move(list(last.body.block.ops)[:-1], body)
    outer.detach()
    outer.erase()
    _cut_k(plan, item)
    _write_either(plan, item, whole, parts)


def _workspace(plan: StreamPlan) -> SSAValue:
    """Room for the parts of every dealt tile."""
    accumulator = memref_type(chain(plan.gemm.c)[0])
    rows, columns = _block_tile(plan)
    made = memref.AllocOp.get(
        accumulator.element_type,
        WORKSPACE_ALIGNMENT_BYTES,
        (plan.shared * plan.parts, rows, columns),
        None,
        builtin.NoneAttr(),
        SpaceAttr(Space.GLOBAL),
    )
    before(plan.loops[0]).insert(made)
    made.memref.name_hint = "parts"
    end = enclosing_function(plan.gemm).body.block.last_op
    assert end is not None
    before(end).insert(memref.DeallocOp.get(made.memref))
    return made.memref


def _of_block(plan: StreamPlan) -> memref.SubviewOp:
    """The tile of C that a block has: the first window that is cut inside the loops over blocks."""
    views = chain(plan.epilogue.output)[1]
    return next(v for v in views if v.parent_op() is plan.loops[-1])


def _block_tile(plan: StreamPlan) -> tuple[int, int]:
    bounds = [upper_bound(size) for size in extents(_of_block(plan).result)]
    assert bounds[0] is not None and bounds[1] is not None
    return bounds[0], bounds[1]


def _item(write: _Writer, plan: StreamPlan, block: SSAValue, number: SSAValue) -> Item:
    """Which tile, and which slices of it, item `number` of `block` is."""
    slices, rounds = plan.slices, plan.rounds
    begin = write.div(write.mul(block, plan.dealt), plan.blocks)
    end = write.div(write.mul(write.add(block, 1), plan.dealt), plan.blocks)
    later = write.most(write.sub(number, rounds), 0) if rounds else number
    dealt = write.add(write.div(begin, slices), later)
    start = write.mul(dealt, slices)
    first = write.sub(write.most(begin, start), start)
    count = write.sub(write.least(end, write.add(start, slices)), write.most(begin, start))
    count = write.most(count, 0)
    owner = _owner(write, plan, start)
    part = write.add(write.mul(dealt, plan.parts), write.sub(block, owner))
    tile = write.add(dealt, rounds * plan.blocks)
    is_whole = None
    if rounds:
        is_whole = write.is_less(number, rounds)
        whole = write.add(block, write.mul(number, plan.blocks))
        tile, first = write.choose(is_whole, whole, tile), write.choose(is_whole, 0, first)
        count, part = write.choose(is_whole, slices, count), write.choose(is_whole, 0, part)
    tile = write.least(tile, plan.tiles - 1)
    part = write.least(part, plan.shared * plan.parts - 1)
    return Item(tile=tile, first=first, count=count, part=part, is_whole=is_whole)


def _places(
    write: _Writer, loops: Sequence[ForallOp], counts: Sequence[int], tile: SSAValue
) -> list[SSAValue]:
    """Where the loops over tiles are at this one, the innermost loop fastest."""
    found: list[SSAValue] = []
    rest = tile
    for loop, count in list(zip(loops, counts, strict=True))[::-1]:
        place = rest if loop is loops[0] else write.rem(rest, count)
        found.append(write.mul(place, loop.step))
        rest = rest if loop is loops[0] else write.div(rest, count)
    return found[::-1]


def _cut_k(plan: StreamPlan, item: Item) -> None:
    """Multiply only the slices of the item."""
    gemm = plan.gemm
    write = _Writer(before(gemm), gemm)
    first = write.mul(item.first, plan.slice)
    size = write.least(write.mul(item.count, plan.slice), write.sub(plan.k, first))
    a, b = extents(gemm.a), extents(gemm.b)
    gemm.operands[0] = subview(write.builder, gemm.a, (0, first), (a[0], size))
    gemm.operands[1] = subview(write.builder, gemm.b, (first, 0), (size, b[1]))


def _write_either(plan: StreamPlan, item: Item, whole: memref.SubviewOp, parts: SSAValue) -> None:
    """Store a whole tile to C, and a part into the workspace."""
    epilogue = plan.epilogue
    write = _Writer(before(epilogue), epilogue)
    is_some = write.is_less(0, item.count)

    def store_part(inner: Builder) -> None:
        inner.insert(_part_of(inner, plan, item.part, whole, parts))

    def store(inner: Builder) -> None:
        if item.is_whole is None:
            store_part(inner)
            return
        to_c = epilogue.clone()
        inner.insert(conditional(item.is_whole, lambda then: then.insert(to_c), store_part))

    write.builder.insert(conditional(is_some, store, lambda otherwise: None))
    epilogue.detach()
    epilogue.erase()


def _part_of(
    builder: Builder,
    plan: StreamPlan,
    number: SSAValue,
    whole: memref.SubviewOp,
    parts: SSAValue,
) -> EpilogueOp:
    """The sum as it is, where it lies in the tile of the block."""
    acc = next(v for v in plan.epilogue.inputs if chain(v)[0] is chain(plan.gemm.c)[0])
    views = chain(plan.epilogue.output)[1]
    inside = views[views.index(whole) + 1 :]
    tile = _part(builder, parts, number)
    block = Block(arg_types=[memref_type(acc).element_type] * 2)
    block.add_op(YieldOp(block.args[0]))
    return EpilogueOp([acc], follow(builder, tile, inside), Region(block))


def _combine(plan: StreamPlan, parts: SSAValue) -> None:
    """C = epilogue of ((p0 + p1) + …) for each dealt tile, a piece of a row by each thread."""
    outer = plan.loops[0]
    end = outer.next_op
    assert end is not None
    tiles = tuple(as_index(outer, n) for n in (0, plan.shared, 1))
    dealt, builder = open_loop(before(end), TILES, (tiles[0], tiles[1], tiles[2]), BLOCKS)
    dealt.name_hint = "dealt"
    write = _Writer(builder, outer)
    tile = _dealt_tile(write, plan, dealt)
    first = _owner(write, plan, write.mul(dealt, plan.slices))
    final = _owner(write, plan, write.sub(write.mul(write.add(dealt, 1), plan.slices), 1))
    more = write.sub(final, first)
    lanes = _lanes(plan, parts)
    row, column, inner = _open_pieces(write, plan, lanes)
    inside = [
        inner.is_less(at, size) for at, size in zip((row, column), extents(tile), strict=True)
    ]
    is_inside = inner.builder.insert(arith.AndIOp(inside[0], inside[1])).result

    def add(then: Builder) -> None:
        here = (row, column), (1, lanes)
        sums, views = chain(plan.gemm.c)[0], chain(tile)[1]
        roots = [chain(v)[0] for v in plan.epilogue.operands]
        windows = [
            None if root is sums else subview(then, follow(then, root, views), *here)
            for root in roots
        ]
        last = _Writer(then, outer)
        number = last.mul(dealt, plan.parts)
        wholes = [_part(then, parts, last.add(number, n)) for n in range(plan.parts)]
        found = [subview(then, whole, *here) for whole in wholes]
        _by_count(last, plan, more, found, windows)

    inner.builder.insert(conditional(is_inside, add, lambda otherwise: None))


def _dealt_tile(write: _Writer, plan: StreamPlan, dealt: SSAValue) -> SSAValue:
    """This tile of C, as the loops over tiles cut it."""
    tile = write.add(dealt, plan.rounds * plan.blocks)
    places = _places(write, plan.loops, plan.counts, tile)
    variables = [loop.body.block.args[0] for loop in plan.loops]
    known = dict[SSAValue, SSAValue](zip(variables, places, strict=True))
    for op in plan.loops[-1].body.block.ops:
        if op.name.startswith("arith.") or isinstance(op, memref.SubviewOp):
            write.builder.insert(op.clone(known))
    return known[_of_block(plan).result]


def _lanes(plan: StreamPlan, parts: SSAValue) -> int:
    """Elements of a row that a thread adds: as wide as one load, and all in C or none."""
    element = memref_type(parts).element_type
    assert isinstance(element, FixedBitwidthType)
    columns = memref_type(chain(plan.epilogue.output)[0]).get_shape()[-1]
    return math.gcd(_block_tile(plan)[1], columns, LOAD_BYTES // element.size)


def _open_pieces(
    write: _Writer, plan: StreamPlan, lanes: int
) -> tuple[SSAValue, SSAValue, _Writer]:
    """Loops over blocks and threads; the row and first column of the piece of this thread."""
    rows, columns = _block_tile(plan)
    pieces = rows * columns // lanes
    threads = min(-(-pieces // WARP) * WARP, COMBINE_THREADS)
    zero, end, step, one = (write.index(n) for n in (0, pieces, threads, 1))
    begin, builder = open_loop(write.builder, "m,n", (zero, end, step), BLOCKS)
    thread, builder = open_loop(builder, "m,n", (zero, step, one), THREADS)
    inner = _Writer(builder, write.anchor)
    piece = inner.add(begin, thread)
    across = columns // lanes
    return inner.div(piece, across), inner.mul(inner.rem(piece, across), lanes), inner


def _part(builder: Builder, parts: SSAValue, number: SSAValue) -> SSAValue:
    """One part of a tile."""
    shape = memref_type(parts).get_shape()[1:]
    return subview(builder, parts, (number, 0, 0), (1, *shape), drop_batch=True)


def _owner(write: _Writer, plan: StreamPlan, number: SSAValue) -> SSAValue:
    """The block that a slice is dealt to, as `StreamPlan.owner`."""
    after = write.mul(write.add(number, 1), plan.blocks)
    return write.div(write.sub(after, 1), plan.dealt)


def _by_count(
    write: _Writer,
    plan: StreamPlan,
    count: SSAValue,
    parts: Sequence[SSAValue],
    windows: Sequence[SSAValue | None],
    used: int = 1,
) -> None:
    """The epilogue of as many parts as there are: one more than `count`."""
    if used == len(parts):
        write.builder.insert(_sum(plan, parts, windows))
        return
    is_all = write.is_less(count, used)
    write.builder.insert(
        conditional(
            is_all,
            lambda then: then.insert(_sum(plan, parts[:used], windows)),
            lambda rest: _by_count(
                _Writer(rest, write.anchor), plan, count, parts, windows, used + 1
            ),
        )
    )


def _sum(
    plan: StreamPlan, parts: Sequence[SSAValue], windows: Sequence[SSAValue | None]
) -> EpilogueOp:
    """The epilogue of the tile, with the sum of `parts`, in order, for the accumulator."""
    old = plan.epilogue.body.block
    others = [v for v in windows[:-1] if v is not None]
    output = windows[-1]
    assert output is not None
    types = [memref_type(v).element_type for v in (*parts, *others, output)]
    block = Block(arg_types=types)
    value: SSAValue = block.args[0]
    for argument in block.args[1 : len(parts)]:
        total = added(value, argument)
        block.add_op(total)
        value = total.result
    rest = iter(block.args[len(parts) :])
    known: dict[SSAValue, SSAValue] = {
        argument: value if window is None else next(rest)
        for argument, window in zip(old.args, windows, strict=True)
    }
    for op in old.ops:
        block.add_op(op.clone(known))
    return EpilogueOp([*parts, *others], output, Region(block))


@dataclass(frozen=True)
class StreamK(ModulePass):
    """Deal the slices of k, of `slice` elements, of all tiles to `blocks` blocks evenly.

    Parts are added in `order`, which is fixed.
    """

    name = "gemmir-stream-k"

    blocks: int
    slice: int
    order: str = FIXED

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        for gemm in require_gemms("stream-k", op):
            stream(plan(gemm, self.blocks, self.slice, self.order))
