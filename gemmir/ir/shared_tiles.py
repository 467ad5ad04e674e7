"""Tiles in shared memory, which all threads of a block copy together and read.

    gemmir.gemm %a, %b, %acc   ->   gemmir.barrier
    (8 x 16 of a thread)            gemmir.pack %a_block into %shared     (128 x 16)
                                    gemmir.barrier
                                    gemmir.gemm %shared[tile of the thread], %b, %acc

`plan_share` decides the buffer and how it lies, `share` writes the copy. What a thread copies of it
is decided by `gemmir.ir.team_copies`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.dialects import arith, memref
from xdsl.dialects.builtin import FixedBitwidthType, MemRefType, StridedLayoutAttr
from xdsl.ir import SSAValue

from gemmir.errors import ScheduleError
from gemmir.ir.attributes import (
    SWIZZLE_CHUNK_BYTES,
    SWIZZLE_ROWS,
    PanelAttr,
    Space,
    SpaceAttr,
    SwizzleAttr,
)
from gemmir.ir.dialect import (
    BLOCKS,
    INSIDE_BLOCK,
    WARPS,
    BarrierOp,
    ForallOp,
    GemmOp,
    Number,
    PackOp,
    enclosing_ops,
    is_shared,
    memref_type,
    static_strides,
)
from gemmir.ir.index import Extent, before, constant_of, upper_bound
from gemmir.ir.layouts import require_unpacked, shared_layout
from gemmir.ir.loops import dimension_of, is_repeated
from gemmir.ir.views import chain, extents, subview, total_offsets

PANEL_GAP_BYTES = 16
"""A gap in shared memory: as much as the widest load takes."""


FRAGMENT_ROWS = 16


FRAGMENT_BYTES = 32
"""What one product on tensor cores takes at most: rows of A, and bytes of each row."""


@dataclass(frozen=True, kw_only=True)
class SharePlan:
    """A copy in shared memory of the tile that a block needs of one operand.

    `dim` is the dimension of m or n; `loops` are those over it inside the block, whose tiles the
    threads read. `rows` elements of it are kept, and `depth` of k.
    """

    dim: int
    loops: tuple[ForallOp, ...]
    rows: int
    depth: int
    layout: StridedLayoutAttr | PanelAttr | SwizzleAttr

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the buffer."""
        return (self.rows, self.depth) if self.dim == 0 else (self.depth, self.rows)


def plan_share(gemm: GemmOp, operand: str, layout: str | None) -> SharePlan:
    """Decide the buffer; `ScheduleError` (GEM0331, GEM0332, GEM0338, GEM0339) if it cannot be."""
    value, dim = (gemm.a, 0) if operand == "a" else (gemm.b, 1)
    kind, amount = shared_layout(operand, layout)
    foralls = [o for o in enclosing_ops(gemm) if isinstance(o, ForallOp)]
    inside = [o for o in foralls if o.over.data in INSIDE_BLOCK]
    accumulator = memref_type(gemm.c).memory_space
    if len(inside) == len(foralls) or accumulator != SpaceAttr(Space.REGISTERS):
        raise ScheduleError(
            "GEM0338",
            f"promote: {operand} to shared memory, and no thread of a block has C in registers",
            "tile over blocks and threads, promote c to registers, tile k, and then promote",
        )
    require_unpacked(value, operand)
    tile, depth = (
        memref_type(chain(gemm.c)[0]).get_shape()[dim],
        upper_bound(extents(value)[1 - dim]),
    )
    loops = tuple(o for o in inside if dimension_of(o) == "mn"[dim])
    assert depth is not None
    size = tile + sum(_last(o) for o in loops), max(depth, 1)
    if kind == "swizzle":
        return _swizzle_plan(value, dim, loops, size, amount)
    if all(o.over.data == WARPS for o in inside):
        size = _whole_fragments(value, size)
    if amount < size[0]:
        return _panels_plan(value, dim, loops, size, amount)
    columns = StridedLayoutAttr((1, amount) if dim == 0 else (amount, 1), 0)
    return SharePlan(dim=dim, loops=loops, rows=size[0], depth=size[1], layout=columns)


def _whole_fragments(value: SSAValue, size: tuple[int, int]) -> tuple[int, int]:
    """`size` rounded up to what products on tensor cores take of m or n and of k."""
    element = memref_type(value).element_type
    assert isinstance(element, FixedBitwidthType)
    steps = FRAGMENT_ROWS, FRAGMENT_BYTES // element.size
    rows, depth = (-(-extent // step) * step for extent, step in zip(size, steps, strict=True))
    return rows, depth


def _panels_plan(
    value: SSAValue, dim: int, loops: tuple[ForallOp, ...], size: tuple[int, int], width: int
) -> SharePlan:
    """Several panels; 128 bits of gap behind each let them begin in other banks.

    So do gaps behind their rows, where neighbours in the source are copied to different rows.
    """
    rows, depth = size
    tile = math.gcd(*[constant_of(loop.step) or 1 for loop in loops], rows)
    if width % tile:
        raise ScheduleError(
            "GEM0339",
            f"promote: tiles of {tile} along {'mn'[dim]} do not lie in panels of {width}, and the "
            f"tile of a block has {rows} elements",
            f"use panel:{-(-width // tile) * tile}, or panel:{rows} or wider for a single panel",
        )
    element = memref_type(value).element_type
    assert isinstance(element, FixedBitwidthType)
    gap = PANEL_GAP_BYTES // element.size
    is_transposed = static_strides(memref_type(value))[dim] != 1
    pitch = width + (gap if is_transposed else 0)
    return SharePlan(
        dim=dim,
        loops=loops,
        rows=-(-rows // width) * width,
        depth=depth,
        layout=PanelAttr(dim, width, depth * pitch + gap, pitch),
    )


def _swizzle_plan(
    value: SSAValue, dim: int, loops: tuple[ForallOp, ...], size: tuple[int, int], row_bytes: int
) -> SharePlan:
    """Rows run along the dimension in which the source is adjacent.

    The tile is rounded up to whole rows, to as many as the pattern has, so that stages of it lie
    alike, and to what tensor cores take at once.
    """
    of = memref_type(value)
    element = of.element_type
    assert isinstance(element, FixedBitwidthType)
    fast = 0 if static_strides(of)[0] == 1 and static_strides(of)[1] != 1 else 1
    width, chunk = row_bytes // element.size, SWIZZLE_CHUNK_BYTES // element.size
    rows, depth = _whole_fragments(value, size)
    shape = [rows, depth] if dim == 0 else [depth, rows]
    shape[fast] = -(-shape[fast] // width) * width
    shape[1 - fast] = -(-shape[1 - fast] // SWIZZLE_ROWS) * SWIZZLE_ROWS
    layout = SwizzleAttr(fast, width, shape[1 - fast] * width, chunk)
    return SharePlan(dim=dim, loops=loops, rows=shape[dim], depth=shape[1 - dim], layout=layout)


def _last(loop: ForallOp) -> int:
    """The induction variable of the last iteration."""
    ub, step = constant_of(loop.ub), constant_of(loop.step)
    assert ub is not None and step is not None
    return max(ub - 1, 0) // step * step


def share(gemm: GemmOp, operand: str, plan: SharePlan) -> None:
    """Copy the tile of the block into shared memory right before `gemm`, between barriers."""
    position = 0 if operand == "a" else 1
    source = gemm.operands[position]
    buffer = _allocate_shared(gemm, operand, plan, memref_type(source).element_type)
    builder = _between_barriers(gemm)
    builder.insert(PackOp(_of_the_block(builder, source, plan), buffer))
    here = before(gemm)
    start: Extent = 0
    for loop in plan.loops:
        variable = loop.body.block.args[0]
        start = here.insert(arith.AddiOp(start, variable)).result if start else variable
    offsets = (start, 0) if plan.dim == 0 else (0, start)
    gemm.operands[position] = subview(here, buffer, offsets, extents(source))


def _allocate_shared(gemm: GemmOp, operand: str, plan: SharePlan, element: Number) -> SSAValue:
    """A buffer that every block has for itself, made before its threads begin."""
    block = next(
        o for o in enclosing_ops(gemm) if isinstance(o, ForallOp) and o.over.data == BLOCKS
    ).body.block
    made = MemRefType(element, plan.shape, plan.layout, SpaceAttr(Space.SHARED))
    alloca = memref.AllocaOp(operands=[[], []], result_types=[made])
    alloca.memref.name_hint = f"{operand}_shared"
    assert block.first_op is not None
    block.insert_op_before(alloca, block.first_op)
    return alloca.memref


def _between_barriers(gemm: GemmOp) -> Builder:
    """Where to copy: after all threads have read the last tile, before any reads the next one."""
    block = gemm.parent_block()
    assert block is not None
    packs = [o for o in block.ops if isinstance(o, PackOp) and is_shared(o.target)]
    if packs:
        end = packs[-1].next_op
        assert isinstance(end, BarrierOp)
        return before(end)
    builder = before(gemm)
    if is_repeated(gemm):
        builder.insert(BarrierOp())
    end = builder.insert(BarrierOp())
    return before(end)


def _of_the_block(builder: Builder, source: SSAValue, plan: SharePlan) -> SSAValue:
    """The tile of `source` for all threads: cut by the loops around them and by those over k."""
    inner = [v for v in chain(source)[1] if _is_of_a_thread(v)]
    whole = inner[0].source if inner else source
    offsets = list(total_offsets(builder, inner))
    sizes = list(extents(source))
    offsets[plan.dim], sizes[plan.dim] = 0, extents(whole)[plan.dim]
    return subview(builder, whole, offsets, sizes)


def _is_of_a_thread(view: memref.SubviewOp) -> bool:
    around = [o for o in enclosing_ops(view) if isinstance(o, ForallOp)]
    return bool(around) and around[0].over.data in INSIDE_BLOCK
