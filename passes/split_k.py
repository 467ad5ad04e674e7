"""Spread the sum over k over several blocks, and add their parts in a fixed order.

    gemmir.gemm %a, %b, %c     ->     gemmir.forall %s = 0 to 4 over blocks
        m x n x 100                       gemmir.gemm %a[:, 32 s :], %b[32 s :, :], %part[s]
                                      gemmir.forall %block … over blocks
                                          gemmir.forall %thread … over threads
                                              gemmir.epilogue ins(%part[0], …) outs(%c)

Where m and n give a GPU too few tiles, slices of k give it more. Each block writes its part into a
workspace in global memory; then threads of other blocks add the parts, ((p0 + p1) + p2) + p3, and
apply alpha and beta. That order is all there is to the sum: the bits do not depend on how many
blocks run, or when.

Slices are whole lines of 64 bytes of k, so that later loops over k cut all but the last one evenly.
Where they divide k they have a static size. Tiles neither the slices nor C.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, builtin, memref
from xdsl.dialects.builtin import FixedBitwidthType, MemRefType
from xdsl.ir import Block, Region, SSAValue
from xdsl.passes import ModulePass

from gemmir.errors import ScheduleError
from gemmir.ir.attributes import Space, SpaceAttr
from gemmir.ir.build import added, narrowed, scaled, widened
from gemmir.ir.dialect import (
    BLOCKS,
    THREADS,
    EpilogueOp,
    GemmOp,
    YieldOp,
    enclosing_ops,
    memref_type,
)
from gemmir.ir.index import Extent, as_index, before, enclosing_function
from gemmir.ir.loops import conditional, open_loop, require_gemms
from gemmir.ir.views import subview

FIXED = "fixed"
"""The only order in which parts are added: that of k."""

SLICE_BYTES = 64
"""Slices are multiples of this much of k: what default schedules for a GPU copy at once."""

LOAD_BYTES = 16
"""The widest load of a thread."""

COMBINE_THREADS = 256
"""Threads of a block that adds parts: eight warps, of which a multiprocessor holds eight blocks."""

WORKSPACE_ALIGNMENT_BYTES = 256
"""What the allocator of CUDA aligns to: CUDA C++ Programming Guide, section on device memory."""


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """`factor` slices of k, all of `size` but the last, which may be shorter."""

    factor: int
    size: int
    k: int

    @property
    def divides(self) -> bool:
        """Whether all slices have the same size."""
        return self.k % self.size == 0


def slice_size(k: int, factor: int, item_bytes: int) -> int:
    """The size of a slice where k is cut into `factor`: whole lines of `SLICE_BYTES`."""
    line = max(SLICE_BYTES // item_bytes, 1)
    return -(-k // (factor * line)) * line


def plan(gemm: GemmOp, factor: int, order: str) -> SplitPlan:
    """Decide the slices; `ScheduleError` (GEM0345 to GEM0348) if k cannot be split so."""
    if order != FIXED:
        raise ScheduleError(
            "GEM0346",
            f"split-k: order={order!r} would let the bits of C depend on which block comes first",
            f"use order={FIXED}, which adds the parts in the order of k",
        )
    if len(enclosing_ops(gemm)) > 2 or memref_type(gemm.c).memory_space != builtin.NoneAttr():
        raise ScheduleError(
            "GEM0345",
            "split-k: the gemmir.gemm is one tile of a problem already",
            "make split-k the first pass",
        )
    k = memref_type(gemm.a).get_shape()[-1]
    if factor < 2 or k == 0:
        raise ScheduleError(
            "GEM0347",
            f"split-k: factor={factor} of k={k} splits nothing",
            "leave split-k out" if k == 0 else "use 2 or more",
        )
    element = memref_type(gemm.a).element_type
    assert isinstance(element, FixedBitwidthType)
    size = slice_size(k, factor, element.size)
    found = -(-k // size)
    if found < factor:
        raise ScheduleError(
            "GEM0348",
            f"split-k: k={k} in {factor} slices of {size} leaves {factor - found} of them empty",
            f"use factor={found}" if found > 1 else "leave split-k out",
        )
    return SplitPlan(factor=factor, size=size, k=k)


def split(gemm: GemmOp, plan: SplitPlan) -> None:
    """Let blocks sum slices of k into a workspace, and others add what is in there into C."""
    c = memref_type(gemm.c)
    made = MemRefType(
        gemm.summed,
        (plan.factor, *c.get_shape()),
        memory_space=SpaceAttr(Space.GLOBAL),
    )
    builder = before(gemm)
    alloc = memref.AllocOp.get(
        made.element_type,
        WORKSPACE_ALIGNMENT_BYTES,
        made.shape,
        None,
        made.layout,
        made.memory_space,
    )
    builder.insert(alloc)
    alloc.memref.name_hint = "parts"
    _sum_slices(builder, gemm, plan, alloc.memref)
    _combine(builder, gemm, plan, alloc.memref)
    end = enclosing_function(gemm).body.block.last_op
    assert end is not None
    before(end).insert(memref.DeallocOp.get(alloc.memref))
    gemm.detach()
    gemm.erase()


def _sum_slices(builder: Builder, gemm: GemmOp, plan: SplitPlan, parts: SSAValue) -> None:
    """The products of each slice of k, in a block of its own that is tiled further later."""
    bounds = (as_index(gemm, 0), as_index(gemm, plan.factor), as_index(gemm, 1))
    number, inner = open_loop(builder, "slice", bounds, BLOCKS)
    number.name_hint = "s"
    start = inner.insert(arith.MuliOp(number, as_index(gemm, plan.size))).result
    size: Extent = plan.size
    if not plan.divides:
        rest = inner.insert(arith.SubiOp(as_index(gemm, plan.k), start)).result
        size = inner.insert(arith.MinSIOp(as_index(gemm, plan.size), rest)).result
    a, b = (
        _window(inner, value, {along: (start, size)})
        for value, along in ((gemm.a, -1), (gemm.b, -2))
    )
    inner.insert(GemmOp(a, b, _part(inner, parts, number), precision=gemm.precision))


def _window(builder: Builder, value: SSAValue, cuts: dict[int, tuple[Extent, Extent]]) -> SSAValue:
    """The window into `value` that `cuts` takes of some of its dimensions, counted from the end."""
    shape = memref_type(value).get_shape()
    found = [cuts.get(dim, (0, shape[dim])) for dim in range(-len(shape), 0)]
    offsets, sizes = zip(*found, strict=True)
    return subview(builder, value, offsets, sizes, drop_batch=-3 in cuts)


def _part(builder: Builder, parts: SSAValue, number: Extent) -> SSAValue:
    """What the slice `number` sums to, in the shape of C."""
    shape = memref_type(parts).get_shape()[1:]
    offsets = (number, *(0 for _ in shape))
    return subview(builder, parts, offsets, (1, *shape), drop_batch=True)


def _combine(builder: Builder, gemm: GemmOp, plan: SplitPlan, parts: SSAValue) -> None:
    """C = alpha * (sum of parts) + beta * C, in pieces of a row as wide as one load.

    Neighbouring threads have neighbouring pieces, whatever the width of C.
    """
    element = memref_type(parts).element_type
    assert isinstance(element, FixedBitwidthType)
    *batch, m, n = memref_type(gemm.c).get_shape()
    lanes = math.gcd(n, LOAD_BYTES // element.size)
    pieces = m * n // lanes
    threads = min(-(-max(pieces, 1) // 32) * 32, COMBINE_THREADS)
    cuts: dict[int, tuple[Extent, Extent]] = {}
    zero, one = as_index(gemm, 0), as_index(gemm, 1)
    if batch:
        bounds = (zero, as_index(gemm, batch[0]), one)
        matrix, builder = open_loop(builder, "batch", bounds, BLOCKS)
        cuts[-3] = (matrix, 1)
    bounds = (zero, as_index(gemm, pieces), as_index(gemm, threads))
    block, builder = open_loop(builder, "m,n", bounds, BLOCKS)
    thread, builder = open_loop(builder, "m,n", (zero, as_index(gemm, threads), one), THREADS)
    block.name_hint, thread.name_hint = "block", "thread"
    piece = builder.insert(arith.AddiOp(block, thread)).result

    def add(inner: Builder) -> None:
        across = as_index(gemm, max(n // lanes, 1))
        row = inner.insert(arith.DivUIOp(piece, across)).result
        place = inner.insert(arith.RemUIOp(piece, across)).result
        column = inner.insert(arith.MuliOp(place, as_index(gemm, lanes))).result
        here = {**cuts, -2: (row, 1), -1: (column, lanes)}
        found = [_window(inner, _part(inner, parts, number), here) for number in range(plan.factor)]
        inner.insert(_sum(gemm, found, _window(inner, gemm.c, here)))

    if pieces % threads == 0:
        add(builder)
        return
    inside = builder.insert(arith.CmpiOp(piece, as_index(gemm, pieces), "slt")).result
    builder.insert(conditional(inside, add, lambda otherwise: None))


def _sum(gemm: GemmOp, parts: Sequence[SSAValue], c: SSAValue) -> EpilogueOp:
    """c = alpha * ((p0 + p1) + …) + beta * c, leaving out what is needless."""
    element, stored = memref_type(parts[0]).element_type, memref_type(c).element_type
    block = Block(arg_types=[*(element for _ in parts), stored])
    *arguments, old = block.args

    def plus(x: SSAValue, y: SSAValue) -> SSAValue:
        total = added(x, y)
        block.add_op(total)
        return total.result

    value: SSAValue = arguments[0]
    for argument in arguments[1:]:
        value = plus(value, argument)
    value = scaled(block, value, gemm.alpha.value.data, element)
    beta = gemm.beta.value.data
    if beta != 0:
        value = plus(value, scaled(block, widened(block, old, element), beta, element))
    block.add_op(YieldOp(narrowed(block, value, stored)))
    return EpilogueOp(parts, c, Region(block))


@dataclass(frozen=True)
class SplitK(ModulePass):
    """Sum k in `factor` slices on different blocks, and add those in `order`, which is fixed."""

    name = "gemmir-split-k"

    factor: int
    order: str = FIXED

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        for gemm in require_gemms("split-k", op):
            split(gemm, plan(gemm, self.factor, self.order))
