"""Bring an operand of a GEMM closer: into a packed buffer, or into registers.

    gemmir.gemm %a, %b, %c     ->     gemmir.pack %b into %panels        (operand=b to=l3)
                                      gemmir.gemm %a, %panels, %c

    gemmir.gemm %a, %b, %c     ->     gemmir.gemm %a, %b, %acc           (operand=c to=registers)
                                      gemmir.epilogue ins(%acc) outs(%c)

    gemmir.gemm %a, %b, %c     ->     gemmir.pack %b into %panels        (the same, as=f32)
    (bf16)                            gemmir.gemm %a, %panels, %c        (panels of f32)

The copy is made right before the innermost `gemmir.gemm`, so its place in the loops is the place
of this pass among the `tile` passes. A packed tile is zero-filled to whole panels; the accumulator
tile has its full static size, and what is written back is clipped to C.

With `layout=panel:16x4` panels have some depth: 4 neighbours along k are adjacent for each row of A
or column of B, for instructions that add several products to each sum; k is filled up with zeros
too. With `layout=panel:32x2x32` it is so up to a multiple of 32, for instructions that take so much
of k at once.

In shared memory lies the tile of the whole block, which its threads copy together: with
`layout=panel:WIDTH` columns of A and rows of B are adjacent, WIDTH elements apart; with
`layout=swizzle:BYTES` it lies as the source does, in rows of so many bytes whose chunks are
exchanged so that a column of chunks touches all banks.

    gemmir.gemm %a, %b, %acc   ->   gemmir.barrier
    (8 x 16 of a thread)            gemmir.pack %a_block into %shared     (128 x 16)
                                    gemmir.barrier
                                    gemmir.gemm %shared[tile of the thread], %b, %acc

C may be summed in panels of a cache level (`gemmir.ir.summed_panels`), `operand=c to=l2
layout=panel:32`, before slices of k are cut.

C may go to registers twice: a sum of a slice of k is then added to a running one
(`gemmir.ir.partial_sums`). So the products of each block of k get their scales.

    gemmir.gemm %a, %b, %acc   ->   gemmir.gemm %a, %b, %part
    (of a slice of k)               gemmir.epilogue ins(%part, %scales) outs(%acc)

On Hopper the write-back of C may go through shared memory as well, `operand=c to=shared`, for the
TMA to store from there (`gemmir.ir.staging`).

The vector memory of a TPU, `to=vmem`, takes the blocks of A and B, each lying as its source does,
and the accumulator of C. What of a block is past the edge is not filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, builtin, memref, scf
from xdsl.dialects.builtin import (
    AnyFloat,
    FixedBitwidthType,
    FloatAttr,
    IntegerType,
    MemRefType,
    f32,
    f64,
    i16,
    i32,
)
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint

from gemmir.errors import ScheduleError
from gemmir.ir.attributes import (
    PanelAttr,
    Space,
    SpaceAttr,
)
from gemmir.ir.build import added, multiplied, narrowed, number_attr, scaled, widened
from gemmir.ir.carried_sums import begin_from, carried_from, is_carried_by
from gemmir.ir.dialect import (
    EpilogueOp,
    ForallOp,
    GemmOp,
    Number,
    PackOp,
    PrefetchOp,
    YieldOp,
    accumulator_type,
    enclosing_ops,
    is_widening,
    memref_type,
    strides_of,
    summed_type,
)
from gemmir.ir.index import (
    Extent,
    before,
    enclosing_function,
    erase_condition,
    upper_bound,
)
from gemmir.ir.keyword_pass import KeywordPass
from gemmir.ir.layouts import (
    panel_size,
    panel_width,
    require_swizzle,
    require_unpacked,
    shared_layout,
)
from gemmir.ir.loops import conditional, require_gemms
from gemmir.ir.pallas import block_type, is_block
from gemmir.ir.partial_sums import slices_of
from gemmir.ir.scales import by_column, is_one_block, spread
from gemmir.ir.shared_tiles import plan_share, share
from gemmir.ir.staging import plan_staging, stage
from gemmir.ir.summed_panels import in_one_panel, plan_sum, sum_in_panels
from gemmir.ir.views import chain, extents, subview
from gemmir.ir.visits import place_in_tile

PAGE_BYTES = 4096
"""Packed buffers begin on a page, so that a panel touches as few pages as it can."""

CACHE_LINE_BYTES = 64

CACHES = (Space.L1, Space.L2, Space.L3)

OPERAND_DIMENSIONS = {"a": "mk", "b": "kn", "c": "mn"}
"""The dimensions of a tile of each operand."""


@dataclass(frozen=True, kw_only=True)
class PackPlan:
    """A packed copy of one operand: the shape of its buffer, its elements and their layout."""

    operand: str
    element: Number
    shape: tuple[int, int]
    layout: PanelAttr
    space: Space
    takes_scales: bool = False


def plan_pack(
    gemm: GemmOp, operand: str, to: str, layout: str | None, as_: str | None = None
) -> PackPlan:
    """Decide the buffer for `operand`, whose elements are converted to the type `as_`.

    Of weights that become what they are summed in, the scales are multiplied in.
    `ScheduleError` (GEM0330 to GEM0333, GEM1320, GEM1336) if it cannot be.
    """
    if to not in CACHES:
        raise ScheduleError(
            "GEM0330",
            f"promote: operand={operand} to={to!r}",
            f"use one of {', '.join((*CACHES, Space.SHARED, Space.VMEM))} for a and b, "
            "registers or vmem for c",
        )
    value, dim = (gemm.a, 0) if operand == "a" else (gemm.b, 1)
    width, depth, step = panel_size(operand, layout)
    require_unpacked(value, operand)
    if len(extents(value)) != 2:
        raise ScheduleError("GEM0333", "promote: a batch cannot be packed", "tile batch by 1 first")
    _require_bounds(operand, extents(value))
    shape = [upper_bound(e) for e in extents(value)]
    across = max(-(-(shape[1 - dim] or 1) // step), 1) * step
    shape[dim] = max(-(-(shape[dim] or 0) // width), 1) * width
    shape[1 - dim] = across
    element = _converted_type(gemm, operand, as_)
    _require_whole_bytes(value, operand, element, width)
    return PackPlan(
        operand=operand,
        element=element,
        takes_scales=operand == "b" and element == gemm.summed and by_column(gemm),
        shape=(shape[0] or 1, shape[1] or 1),
        layout=PanelAttr(
            dim,
            width,
            across * width if depth > 1 else _apart(value, width, across),
            depth=depth,
            step=step,
        ),
        space=Space(to),
    )


def _require_whole_bytes(value: SSAValue, operand: str, element: Number, width: int) -> None:
    """`ScheduleError` GEM1336 where half a byte would be written, or read."""
    if memref_type(value).element_type != IntegerType(4):
        return
    if element == IntegerType(4):
        raise ScheduleError(
            "GEM1336", f"promote: {operand} has two elements a byte, and so would panels", "as=f32"
        )
    if width % 2 and strides_of(memref_type(value))[1] == 1:
        raise ScheduleError(
            "GEM1336",
            f"promote: panels of {width} of {operand}, which has two elements a byte",
            f"use panel:{width + 1}",
        )


def _apart(value: SSAValue, width: int, across: int) -> int:
    """Elements from one panel to the next.

    Rows of A or columns of B, each in a panel of its own, get a cache line between them where they
    would lie a multiple of a page apart, and all in the same set of the first cache.
    """
    element = memref_type(value).element_type
    assert isinstance(element, FixedBitwidthType)
    is_page = width == 1 and across * element.size % PAGE_BYTES == 0
    return across * width + (CACHE_LINE_BYTES // element.size if is_page else 0)


PACKED_TYPES: Final = {"f32": f32, "f64": f64, "i16": i16}
"""Types that elements may be converted to while they are copied."""


def _converted_type(gemm: GemmOp, operand: str, as_: str | None) -> Number:
    """The type of the copied elements: `as_` holds every number of that of the source.

    It changes nothing about what is summed.
    """
    a, b = (memref_type(value).element_type for value in (gemm.a, gemm.b))
    source, other = (a, b) if operand == "a" else (b, a)
    if as_ is None:
        return source
    wider = [
        name
        for name, made in PACKED_TYPES.items()
        if made != source
        and is_widening(source, made)
        and accumulator_type(made) in (i32, gemm.summed)
        and summed_type(*((made, other) if operand == "a" else (other, made))) == gemm.summed
    ]
    if as_ not in wider:
        raise ScheduleError(
            "GEM1320",
            f"promote: as={as_} of {operand}, whose elements are {source}",
            f"use {' or '.join(f'as={n}' for n in wider)}" if wider else "leave as out",
        )
    return PACKED_TYPES[as_]


def _require_bounds(operand: str, sizes: Sequence[Extent]) -> None:
    """`ScheduleError` GEM1357 where a tile of `operand` may be of any size at run time."""
    for dimension, size in zip(OPERAND_DIMENSIONS[operand], sizes, strict=True):
        if upper_bound(size) is None:
            raise ScheduleError(
                "GEM1357",
                f"promote: {dimension} of operand {operand} is known at run time only, and a "
                "buffer has a size",
                f"tile {dimension} before it",
            )


def pack(gemm: GemmOp, plan: PackPlan) -> None:
    """Copy the operand of `plan` into a buffer right before `gemm`, and let `gemm` read that."""
    source = gemm.a if plan.operand == "a" else gemm.b
    made = MemRefType(plan.element, plan.shape, plan.layout, SpaceAttr(plan.space))
    buffer = _allocate(gemm, made)
    buffer.name_hint = f"{plan.operand}_packed"
    builder = before(gemm)
    view = subview(builder, buffer, (0, 0), extents(source))
    if not plan.takes_scales:
        builder.insert(PackOp(source, view))
        gemm.operands[0 if plan.operand == "a" else 1] = view
        return
    (scales,) = gemm.scales
    builder.insert(PackOp(source, view, scales=scales, depth=gemm.depth))
    _replace_gemm(gemm, b=view)


def _replace_gemm(gemm: GemmOp, *, b: SSAValue) -> None:
    """The same product by `b`, whose elements have their scales in them."""
    made = GemmOp(
        gemm.a,
        b,
        gemm.c,
        alpha=gemm.alpha.value.data,
        beta=gemm.beta.value.data,
        first=gemm.first,
        alpha_value=gemm.alpha_value,
        beta_value=gemm.beta_value,
    )
    before(gemm).insert(made)
    gemm.detach()
    gemm.erase()


def _allocate(gemm: GemmOp, made: MemRefType[Number]) -> SSAValue:
    """A buffer that lives for the whole call, or for one iteration of the loop over cores."""
    around = [o for o in enclosing_ops(gemm) if isinstance(o, ForallOp)]
    body = around[0].body.block if around else enclosing_function(gemm).body.block
    alloc = memref.AllocOp.get(
        made.element_type, PAGE_BYTES, made.shape, None, made.layout, made.memory_space
    )
    first = next(op for op in body.ops if not isinstance(op, arith.ConstantOp | memref.AllocOp))
    body.insert_op_before(alloc, first)
    assert body.last_op is not None
    body.insert_op_before(memref.DeallocOp.get(alloc), body.last_op)
    return alloc.memref


def plan_block(gemm: GemmOp, operand: str, layout: str | None) -> MemRefType[Number]:
    """The buffer in VMEM for a block of `operand`, in the order in which its source lies.

    `ScheduleError` (GEM0353, GEM0332, GEM0333) if there cannot be one.
    """
    value = gemm.a if operand == "a" else gemm.b
    if layout is not None:
        raise ScheduleError(
            "GEM0353",
            f"promote: layout={layout} of {operand} in vmem, where a block lies as its source does",
            "leave layout out",
        )
    require_unpacked(value, operand)
    if len(extents(value)) != 2:
        raise ScheduleError("GEM0333", "promote: a batch cannot be packed", "tile batch by 1 first")
    rows, columns = (max(upper_bound(e) or 1, 1) for e in extents(value))
    return block_type(memref_type(value), (rows, columns))


def copy_block(gemm: GemmOp, operand: str, made: MemRefType[Number]) -> None:
    """Copy the block of `operand` into a buffer of type `made` right before `gemm`."""
    position = 0 if operand == "a" else 1
    source = gemm.operands[position]
    builder = before(gemm)
    alloca = builder.insert(memref.AllocaOp(operands=[[], []], result_types=[made]))
    alloca.memref.name_hint = f"{operand}_block"
    view = subview(builder, alloca.memref, (place_in_tile(source), 0), extents(source))
    builder.insert(PackOp(source, view))
    gemm.operands[position] = view


@dataclass(frozen=True, kw_only=True)
class AccumulatePlan:
    """An accumulator tile for C in the memory `space`.

    Where C is in registers already, `slices` are the loops over k that sum into it.
    """

    shape: tuple[int, int]
    space: Space
    prefetch: bool
    slices: tuple[scf.ForOp, ...] = ()
    carry: bool = False


def plan_accumulate(
    gemm: GemmOp, to: str, layout: str | None, prefetch: bool, carry: bool = False
) -> AccumulatePlan:
    """Decide the accumulator tile.

    `ScheduleError` (GEM0334, GEM0335, GEM0337, GEM1289, GEM1357) if it cannot be.
    """
    if to not in (Space.REGISTERS, Space.VMEM) or layout is not None:
        raise ScheduleError(
            "GEM0334",
            f"promote: operand=c to={to} layout={layout}",
            "C goes to=registers or to=vmem, with no layout",
        )
    if prefetch and to == Space.VMEM:
        raise ScheduleError("GEM0337", "promote: prefetch is for registers", "leave it out")
    if len(extents(gemm.c)) != 2:
        raise ScheduleError("GEM0333", "promote: a batch cannot be kept", "tile batch by 1 first")
    space = memref_type(gemm.c).memory_space
    slices = slices_of(gemm) if to == Space.REGISTERS else []
    is_summed = isinstance(space, SpaceAttr) and space.data in (Space.REGISTERS, Space.VMEM)
    if isinstance(space, SpaceAttr) and is_summed and not (slices or is_block(chain(gemm.c)[0])):
        raise ScheduleError(
            "GEM0335",
            f"promote: operand c is in {space.data} already",
            "promote it once, or tile k before the second time",
        )
    if prefetch and slices:
        raise ScheduleError("GEM0337", "promote: prefetch of what is in registers", "leave it out")
    if to == Space.VMEM and gemm.scales:
        raise ScheduleError(
            "GEM1289",
            "promote: to=vmem keeps one sum, and blocks of the product have scales",
            "multiply A and B by their scales beforehand, or use another target",
        )
    if slices and (carry or carried_from(chain(gemm.c)[0]) is not None):
        raise ScheduleError(
            "GEM1357",
            "promote: carry=true of a sum in registers that slices of k are added to",
            "leave carry out, or promote c once",
        )
    if carry and not is_carried_by(gemm):
        raise ScheduleError(
            "GEM1357",
            "promote: carry=true of a sum that C does not hold between slices of k",
            "leave carry out; it needs a tile of k before it, alpha=1, beta=0 or 1, a C of the "
            "type of the sum without scales, and a CPU",
        )
    _require_bounds("c", extents(gemm.c))
    rows, columns = (upper_bound(e) or 1 for e in extents(gemm.c))
    return AccumulatePlan(
        shape=(rows, columns),
        space=Space(to),
        prefetch=prefetch,
        slices=tuple(slices),
        carry=carry,
    )


def accumulate(gemm: GemmOp, plan: AccumulatePlan) -> None:
    """Let `gemm` sum into an accumulator tile, and write that back to C after it.

    A sum of one block gets the scales of that when it is written back.
    """
    builder = before(gemm)
    c = in_one_panel(builder, gemm.c)
    factors = list(gemm.scales) if is_one_block(gemm) else []
    scales: list[SSAValue] = [] if factors else list(gemm.scales)
    depth = None if factors else gemm.depth
    made = MemRefType(gemm.summed, plan.shape, memory_space=SpaceAttr(plan.space))
    alloca = builder.insert(memref.AllocaOp(operands=[[], []], result_types=[made]))
    alloca.memref.name_hint = "part" if plan.slices else "acc"
    tile = subview(builder, alloca.memref, (place_in_tile(c), 0), extents(c))
    if plan.prefetch:
        builder.insert(PrefetchOp(c))
    factors = [spread(builder, scale, extents(c)) for scale in factors]
    if plan.carry:
        builder.insert(begin_from(gemm, c, tile))
    builder.insert(
        GemmOp(
            gemm.a,
            gemm.b,
            tile,
            beta=1.0 if plan.carry else 0.0,
            precision=gemm.precision,
            scales=scales,
            depth=depth,
        )
    )
    first = gemm.first

    def write_back(inner: Builder) -> None:
        _write_back_first(inner, tile, factors, c, gemm)

    if plan.slices:
        before(plan.slices[0]).insert(_zero(c))
        builder.insert(_add_slice(tile, factors, c))
    elif plan.carry:
        builder.insert(_write_back(tile, factors, c, gemm, 0.0))
    elif first is None or (gemm.beta.value.data == 1 and gemm.beta_value is None):
        write_back(builder)
    else:
        builder.insert(
            conditional(
                first,
                write_back,
                lambda inner: inner.insert(_write_back(tile, factors, c, gemm, 1.0)),
            )
        )
    gemm.detach()
    gemm.erase()
    erase_condition(first)


def _zero(c: SSAValue) -> EpilogueOp:
    """c = 0."""
    element = memref_type(c).element_type
    block = Block(arg_types=[element])
    zero = arith.ConstantOp(number_attr(0, element))
    block.add_ops([zero, YieldOp(zero.result)])
    return EpilogueOp([], c, Region(block))


def _add_slice(part: SSAValue, factors: Sequence[SSAValue], running: SSAValue) -> EpilogueOp:
    """running = running + part, or with scales the same rounded once."""
    from xdsl.dialects import math  # slow to import, and few problems need it

    block = Block(arg_types=[memref_type(v).element_type for v in (part, *factors, running)])
    summed, *scales, old = block.args
    total = math.FmaOp(summed, _product(block, scales), old) if scales else added(old, summed)
    block.add_ops([total, YieldOp(total.result)])
    return EpilogueOp([part, *factors], running, Region(block))


def _product(block: Block, factors: Sequence[SSAValue]) -> SSAValue:
    """Append what multiplies `factors`."""
    product, *others = factors
    for factor in others:
        op = multiplied(product, factor)
        block.add_op(op)
        product = op.result
    return product


def _write_back_first(
    builder: Builder, acc: SSAValue, factors: Sequence[SSAValue], c: SSAValue, gemm: GemmOp
) -> None:
    """Write the first sum back; where beta turns out to be 0 without reading C."""
    beta, factor = gemm.beta.value.data, gemm.beta_value
    if factor is None:
        builder.insert(_write_back(acc, factors, c, gemm, beta))
        return
    builder.insert(
        conditional(
            _is_zero(factor),
            lambda inner: inner.insert(_write_back(acc, factors, c, gemm, 0.0)),
            lambda inner: inner.insert(_write_back(acc, factors, c, gemm, beta, factor)),
        )
    )


def _is_zero(value: SSAValue) -> SSAValue:
    """value == 0, asked once, where `value` is made."""
    for use in value.uses:
        if isinstance(use.operation, arith.CmpfOp):
            return use.operation.result
    assert isinstance(value.owner, Operation) and isinstance(value.type, AnyFloat)
    zero = arith.ConstantOp(FloatAttr(0.0, value.type))
    test = arith.CmpfOp(value, zero.result, "oeq")
    builder = Builder(InsertPoint.after(value.owner))
    builder.insert(zero)
    return builder.insert(test).result


def _write_back(
    acc: SSAValue,
    factors: Sequence[SSAValue],
    c: SSAValue,
    gemm: GemmOp,
    beta: float,
    beta_value: SSAValue | None = None,
) -> EpilogueOp:
    """c = alpha * acc * factors + beta * c in the type of acc, leaving out what is needless.

    The values of alpha and beta that are known at run time come from outside of the region.
    """
    alpha = gemm.alpha.value.data
    element, stored = memref_type(acc).element_type, memref_type(c).element_type
    block = Block(arg_types=[element, *[memref_type(v).element_type for v in factors], stored])
    summed, *scales, old = block.args

    if scales:
        product = multiplied(summed, _product(block, scales))
        block.add_op(product)
        summed = product.result
    value = _times(block, scaled(block, summed, alpha, element), gemm.alpha_value)
    if beta != 0:
        kept = scaled(block, widened(block, old, element), beta, element)
        total = added(value, _times(block, kept, beta_value))
        block.add_op(total)
        value = total.result
    block.add_op(YieldOp(narrowed(block, value, stored)))
    return EpilogueOp([acc, *factors], c, Region(block))


def _times(block: Block, value: SSAValue, factor: SSAValue | None) -> SSAValue:
    """Append what multiplies `value` by `factor`, if there is one."""
    if factor is None:
        return value
    product = multiplied(value, factor)
    block.add_op(product)
    return product.result


def _write_back_sum(builder: Builder, acc: SSAValue, c: SSAValue, gemm: GemmOp) -> None:
    """c = alpha * acc + beta * c."""
    _write_back_first(builder, acc, [], c, gemm)


@dataclass(frozen=True)
class Promote(KeywordPass):
    """Promote `operand` (a, b or c) `to` a memory space.

    a and b go to a cache level or to the shared memory of a block with `layout=panel:WIDTH`, to
    shared memory also with `layout=swizzle:BYTES`, and to vmem with no layout; c goes to registers
    or to vmem. With `prefetch=true` its tile in registers is asked for before the sum begins; with
    `carry=true` the sum goes on from what a slice of k has left in C. From registers it is written
    back through shared memory with `layout=swizzle:BYTES`. Into panels in a cache elements are
    converted `as` a wider type.
    """

    name = "gemmir-promote"

    operand: str
    to: str
    layout: str | None = None
    prefetch: bool = False
    carry: bool = False
    as_: str | None = None

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        if self.operand not in ("a", "b", "c"):
            raise ScheduleError("GEM0336", f"promote: operand={self.operand!r}", "use a, b or c")
        if self.prefetch and (self.operand != "c" or self.to == Space.SHARED):
            raise ScheduleError(
                "GEM0337", "promote: prefetch is for operand=c to=registers", "leave it out"
            )
        if self.carry and (self.operand != "c" or self.to != Space.REGISTERS):
            raise ScheduleError(
                "GEM1357", "promote: carry is for operand=c to=registers", "leave it out"
            )
        if self.as_ is not None and (self.operand == "c" or self.to not in CACHES):
            raise ScheduleError(
                "GEM1321",
                f"promote: as={self.as_} of {self.operand} to {self.to}, where none is converted",
                f"leave as out, or pack a or b to {' or '.join(CACHES)}",
            )
        for gemm in require_gemms("promote", op, takes_scales=True, takes_factors=True):
            if self.to == Space.VMEM and self.operand != "c":
                copy_block(gemm, self.operand, plan_block(gemm, self.operand, self.layout))
            elif self.to == Space.SHARED and self.operand != "c":
                share(gemm, self.operand, plan_share(gemm, self.operand, self.layout))
            elif self.to == Space.SHARED:
                kind, row_bytes = shared_layout(self.operand, self.layout)
                require_swizzle(kind)
                stage(plan_staging(gemm, row_bytes))
            elif self.operand == "c" and self.to in CACHES and not self.prefetch:
                width = panel_width(self.operand, self.layout)
                panels = plan_sum(gemm, Space(self.to), width)
                sum_in_panels(gemm, panels, _allocate, _write_back_sum)
            elif self.operand == "c":
                found = plan_accumulate(gemm, self.to, self.layout, self.prefetch, self.carry)
                accumulate(gemm, found)
            else:
                pack(gemm, plan_pack(gemm, self.operand, self.to, self.layout, self.as_))
