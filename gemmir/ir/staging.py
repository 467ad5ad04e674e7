"""Writing C back through shared memory, piece by piece, so that whole rows of pieces are stored.

    gemmir.epilogue ins(%acc, %bias)    ->    gemmir.epilogue ins(piece of %acc, of %bias)
        outs(%c)                                  outs(%c_shared)
                                              gemmir.unpack %c_shared into piece of %c
                                              …  and so for all pieces of the tile of a warpgroup

A piece is 64 rows of so many columns as a swizzled row of the buffer holds. Every warpgroup has two
buffers, so that it fills one while the other is being stored.

Pieces are stored whole, and what is past the end of C is left out. Rows of a grouped GEMM end where
those of the next product begin: a tile with fewer of them is stored by the threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.dialects import arith, memref, scf
from xdsl.dialects.builtin import FixedBitwidthType, MemRefType
from xdsl.ir import Block, Operation, Region, SSAValue

from gemmir.errors import ScheduleError
from gemmir.ir.attributes import SWIZZLE_CHUNK_BYTES, Space, SpaceAttr, SwizzleAttr
from gemmir.ir.dialect import (
    BLOCKS,
    WARPGROUPS,
    EpilogueOp,
    ForallOp,
    GemmOp,
    Number,
    UnpackOp,
    enclosing_ops,
    memref_type,
    static_strides,
)
from gemmir.ir.groups import group_loop
from gemmir.ir.index import Extent, as_index, before, constant_of, equals
from gemmir.ir.loops import conditional, trips
from gemmir.ir.partial_sums import whole_sum, write_backs
from gemmir.ir.views import chain, extents, subview
from gemmir.ir.warpgroup import WARPGROUP_ROWS

BUFFERS = 2

STORED_BYTES = 16
"""What the TMA stores as a whole, as an H200 showed: of a row that ends within 16 bytes it writes
all of them, beyond the end, though it copies only what is there."""


@dataclass(frozen=True, kw_only=True)
class StagingPlan:
    """One write-back of an accumulator of `shape` through swizzled rows of `width`.

    `groups` are the loops over warpgroups, outermost first. Where C `is_ragged` there may be rows
    of others behind those of a tile.
    """

    epilogue: EpilogueOp
    accumulator: SSAValue
    shape: tuple[int, int]
    width: int
    groups: tuple[ForallOp, ...]
    block: ForallOp
    is_ragged: bool

    @property
    def pieces(self) -> Iterator[tuple[int, int]]:
        """The first row and column of each piece."""
        for row in range(0, self.shape[0], WARPGROUP_ROWS):
            for column in range(0, self.shape[1], self.width):
                yield row, column

    @property
    def buffers(self) -> int:
        """Buffers of a warpgroup."""
        return min(BUFFERS, len(list(self.pieces)))

    @property
    def buffer(self) -> MemRefType[Number]:
        """The memory of all warpgroups: a panel for each of their buffers."""
        rows = WARPGROUP_ROWS
        for loop in self.groups:
            rows *= trips(loop)
        element = memref_type(self.epilogue.output).element_type
        assert isinstance(element, FixedBitwidthType)
        layout = SwizzleAttr(1, self.width, rows * self.width, SWIZZLE_CHUNK_BYTES // element.size)
        shape = rows, self.width * self.buffers
        return MemRefType(element, shape, layout, SpaceAttr(Space.SHARED))


def plan_staging(gemm: GemmOp, row_bytes: int) -> StagingPlan:
    """Decide the pieces; `ScheduleError` (GEM1264, GEM1283 to GEM1285) where there are none."""
    accumulator = whole_sum(gemm)
    foralls = [o for o in enclosing_ops(gemm) if isinstance(o, ForallOp)][::-1]
    groups = tuple(o for o in foralls if o.over.data == WARPGROUPS)
    space = memref_type(accumulator).memory_space
    if space != SpaceAttr(Space.REGISTERS) or not groups or group_loop(gemm) is not None:
        raise ScheduleError(
            "GEM1283",
            "promote: operand=c to=shared is for tiles of warpgroups that are in registers",
            "put it behind tile{… over=warpgroups} and promote{operand=c to=registers}, or leave "
            "it out",
        )
    found = [op for op in write_backs(accumulator) if _is_of_c(op)]
    if len(found) != 1 or any(isinstance(o, scf.ForOp) for o in _between(found[0], groups[-1])):
        raise ScheduleError(
            "GEM1284",
            f"promote: operand=c to=shared of a tile that is written back in {len(found)} places",
            "put it behind fuse-epilogue, and tile k only once",
        )
    shape = memref_type(accumulator).get_shape()
    output = memref_type(found[0].output)
    element = output.element_type
    assert isinstance(element, FixedBitwidthType)
    width = row_bytes // element.size
    columns = memref_type(chain(found[0].output)[0]).get_shape()[-1]
    if static_strides(output)[1] != 1 or (shape[1] % width and shape[1] < columns):
        raise ScheduleError(
            "GEM1285",
            f"promote: tiles of {shape[1]} columns of C are not made of rows of {width} adjacent "
            "elements",
            f"tile n by a multiple of {width}, or use a narrower swizzle",
        )
    if columns * element.size % STORED_BYTES:
        raise ScheduleError(
            "GEM1264",
            f"promote: rows of C of {columns * element.size} bytes, and the TMA stores whole "
            f"{STORED_BYTES}",
            f"use n of a multiple of {STORED_BYTES // element.size}, or leave it out",
        )
    return StagingPlan(
        epilogue=found[0],
        accumulator=accumulator,
        shape=(shape[0], shape[1]),
        width=width,
        groups=groups,
        block=next(o for o in foralls[::-1] if o.over.data == BLOCKS),
        is_ragged=_is_ragged(found[0].output),
    )


def _is_ragged(tile: SSAValue) -> bool:
    """Whether how many rows a tile has is read from memory."""
    work = [*extents(tile)[:1]]
    seen = set[SSAValue]()
    while work:
        value = work.pop()
        if isinstance(value, SSAValue) and isinstance(value.owner, Operation):
            if isinstance(value.owner, memref.LoadOp):
                return True
            work.extend(v for v in value.owner.operands if v not in seen)
            seen.update(value.owner.operands)
    return False


def _is_of_c(epilogue: EpilogueOp) -> bool:
    """Whether the result is stored to C, and not to a workspace or to C for the next slice."""
    return memref_type(epilogue.output).memory_space != SpaceAttr(Space.GLOBAL)


def _between(epilogue: EpilogueOp, loop: ForallOp) -> list[Operation]:
    """The ops between the write-back and the loop over warpgroups around it."""
    around = enclosing_ops(epilogue)
    return around[: around.index(loop)]


def stage(plan: StagingPlan) -> None:
    """Rewrite the write-back of `plan`."""
    epilogue = plan.epilogue
    body = plan.block.body.block
    alloca = memref.AllocaOp(operands=[[], []], result_types=[plan.buffer])
    alloca.memref.name_hint = "c_shared"
    assert body.first_op is not None
    body.insert_op_before(alloca, body.first_op)

    def through_buffers(builder: Builder) -> None:
        row = _row_of_group(builder, plan)
        for number, place in enumerate(plan.pieces):
            column = number % plan.buffers * plan.width
            _write_piece(builder, plan, place, (alloca.memref, (row, column)))

    def straight(builder: Builder) -> None:
        for place in plan.pieces:
            _write_piece(builder, plan, place, None)

    builder = before(epilogue)
    if plan.is_ragged:
        rows = as_index(epilogue, extents(epilogue.output)[0])
        is_whole = equals(builder, epilogue, rows, plan.shape[0])
        builder.insert(conditional(is_whole, through_buffers, straight))
    else:
        through_buffers(builder)
    epilogue.detach()
    epilogue.erase()


def _row_of_group(builder: Builder, plan: StagingPlan) -> Extent:
    """The first row of this warpgroup in the buffers, with the innermost loop fastest."""
    number: Extent = 0
    for loop in plan.groups:
        variable: SSAValue = loop.body.block.args[0]
        if constant_of(loop.step) != 1:
            variable = builder.insert(arith.DivUIOp(variable, loop.step)).result
        if number != 0:
            count = as_index(loop, trips(loop))
            scaled = builder.insert(arith.MuliOp(as_index(loop, number), count)).result
            variable = builder.insert(arith.AddiOp(scaled, variable)).result
        number = variable
    rows = as_index(plan.epilogue, WARPGROUP_ROWS)
    return builder.insert(arith.MuliOp(as_index(plan.epilogue, number), rows)).result


def _write_piece(
    builder: Builder,
    plan: StagingPlan,
    place: tuple[int, int],
    buffer: tuple[SSAValue, tuple[Extent, Extent]] | None,
) -> None:
    """Through the buffer and out. Only where more than the sum is read, a piece is clipped.

    Without a buffer it is, and goes out as it is.
    """
    epilogue, block = plan.epilogue, plan.epilogue.body.block
    whole = tuple(
        min(most, extent - at)
        for most, extent, at in zip((WARPGROUP_ROWS, plan.width), plan.shape, place, strict=True)
    )
    cuts = [
        _cut(builder, epilogue, *part)
        for part in zip(extents(epilogue.output), place, whole, strict=True)
    ]
    offsets, sizes = [c[0] for c in cuts], [c[1] for c in cuts]
    is_sum = [chain(v)[0] is plan.accumulator for v in epilogue.operands]
    reads_more = any(
        argument.uses and not summed for argument, summed in zip(block.args, is_sum, strict=True)
    )
    room = sizes if reads_more or buffer is None else whole
    inputs = [
        subview(builder, plan.accumulator, place, room)
        if summed
        else subview(builder, value, offsets, sizes)
        for value, summed in zip(epilogue.inputs, is_sum[:-1], strict=True)
    ]
    target = subview(builder, epilogue.output, offsets, sizes)
    if buffer is None:
        builder.insert(EpilogueOp(inputs, target, epilogue.body.clone()))
        return
    staged = subview(builder, buffer[0], buffer[1], room)
    builder.insert(_into(epilogue, inputs, target, staged))
    builder.insert(UnpackOp(staged, target))


def _cut(
    builder: Builder, anchor: EpilogueOp, extent: Extent, place: int, size: int
) -> tuple[Extent, Extent]:
    """Offset and size of what is there of a piece at `place`; where nothing is, at the end."""
    if isinstance(extent, int):
        return place, min(size, extent - place)
    offset: Extent = place
    if place:
        offset = builder.insert(arith.MinSIOp(as_index(anchor, place), extent)).result
        extent = builder.insert(arith.SubiOp(extent, offset)).result
    return offset, builder.insert(arith.MinSIOp(as_index(anchor, size), extent)).result


def _into(
    epilogue: EpilogueOp, inputs: Sequence[SSAValue], old: SSAValue, staged: SSAValue
) -> EpilogueOp:
    """`epilogue` on a piece that is stored to `staged`; what was in C is one more input if read."""
    block = epilogue.body.block
    types = list(block.arg_types)
    reads_old = bool(block.args[-1].uses)
    given = [*inputs, *([old] if reads_old else [])]
    made = Block(arg_types=[*types[:-1], *([types[-1]] if reads_old else []), types[-1]])
    known = dict[SSAValue, SSAValue](
        zip(
            block.args, [*made.args[: len(inputs)], made.args[-2 if reads_old else -1]], strict=True
        )
    )
    for op in block.ops:
        made.add_op(op.clone(known))
    return EpilogueOp(given, staged, Region(made))
