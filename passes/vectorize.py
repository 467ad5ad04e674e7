"""Feed the widest unit: turn a GEMM on an accumulator tile into vector code.

    gemmir.gemm %a, %b, %acc   ->   scf.for %k … iter_args(%x = 0)
      (6 x k, k x 8, 6 x 8)             %ak = vector.transfer_read %a[0, %k]   : vector<6x1xf32>
                                        %bk = vector.transfer_read %b[%k, 0]   : vector<1x8xf32>
                                        %y  = gemmir.outerproduct %ak, %bk, %x : vector<6x8xf32>

A tile wider than the unit becomes several accumulators side by side. Elements that are narrower
than the sum are widened where they are read. With `dealt=true` an accumulator has every 8th of 64
columns instead of 8 neighbours, which saves shifts where B has several elements in a word:

    gemmir.gemm %a, %b, %acc   ->   scf.for %k … iter_args(%x, …)
      (1 x k, k x 64, 1 x 64)           %bk    = vector.transfer_read %b[%k, 0] : vector<1x64xi4>
                                        %r, …  = gemmir.deal %bk                : vector<1x8xi4> …
                                    %y, …  = gemmir.deal %x, …                  : vector<1x8xf32> …

With the tensor cores of a GPU a warp has its tile as
a whole, and reads A and B from shared memory:

    gemmir.gemm %a, %b, %acc   ->   scf.for %k … step 16 iter_args(%x = 0)
      (64 x 32, 32 x 32, 64 x 32)       %ak = nvgpu.ldmatrix "a" %a[0, %k]   : vector<64x16xbf16>
                                        %bk = nvgpu.ldmatrix "b" %b[%k, 0]   : vector<16x32xbf16>
                                        %y  = nvgpu.mma.sync %ak, %bk, %x    : vector<64x32xf32>

The matrix tiles of a CPU take whole tiles of packed panels (`gemmir.ir.tile_products`):

    gemmir.gemm %a, %b, %acc   ->   scf.for %k … step 32 iter_args(%x = 0, …)
      (32 x k, k x 32, 32 x 32)         %p = amx.tile_load %a[0, %k]    : !amx.tile<16x32xbf16>
                                        %q = amx.tile_load %b[%k, 0]    : !amx.tile<16x32xbf16>
                                        %y = amx.tile_mulf %p, %q, %x   : !amx.tile<16x16xf32>

On Hopper a warpgroup multiplies what the TMA has copied, and lets one product be under way while it
waits for the next stage:

    gemmir.gemm %a, %b, %acc   ->   %y = nvgpu.warpgroup.mma %a, %b, %x      : vector<64x256xf32>
      (64 x 64, 64 x 256)           %z = nvgpu.warpgroup.wait groups 1 %y    in the loop over k
                                    %w = nvgpu.warpgroup.wait groups 0 %z    behind it

The matrix unit of a TPU multiplies whole blocks in VMEM:

    gemmir.gemm %a, %b, %acc   ->   %x = vector.transfer_read %a_block   : vector<512x4096xbf16>
      (512 x 4096, 4096 x 512)      %y = vector.transfer_read %b_block   : vector<4096x512xbf16>
                                    %z = pallas.dot %x, %y               : vector<512x512xf32>

Copies (`gemmir.pack`) become loops over panels (`gemmir.ir.panel_copies`), those into shared memory
the work of all threads of a block (`gemmir.ir.team_copies`), and epilogues vector arithmetic: one
version for full tiles, one clipped at the edge of C. Needs C in registers, or in VMEM; does not
unroll.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, builtin, memref, scf
from xdsl.dialects.builtin import (
    IntegerType,
    StringAttr,
    VectorType,
    bf16,
    f16,
)
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint

from gemmir.errors import ScheduleError
from gemmir.ir.accumulators import GemmPlan, dealt_to
from gemmir.ir.attributes import PanelAttr, Space, SpaceAttr, SwizzleAttr
from gemmir.ir.carried_sums import carried_from
from gemmir.ir.column_sums import vectorize_row_sums, vectorize_sums
from gemmir.ir.conversions import converted
from gemmir.ir.dialect import (
    CORES,
    THREADS,
    WARPGROUPS,
    WARPS,
    ColumnSumOp,
    DealOp,
    EpilogueOp,
    ForallOp,
    GemmOp,
    Number,
    OuterProductOp,
    PackOp,
    RowSumOp,
    dot_depth,
    enclosing_ops,
    is_shared,
    is_widening,
    memref_type,
    product_name,
    strides_of,
)
from gemmir.ir.index import (
    INDEX,
    as_index,
    at_end,
    before,
    erase_condition,
    round_up,
)
from gemmir.ir.keyword_pass import KeywordPass
from gemmir.ir.lane_products import (
    ALONG_K,
    dot_factors,
    read_unsigned,
    require_adjacent,
    sum_lanes,
)
from gemmir.ir.loops import DIMENSION, carry, require_gemms
from gemmir.ir.panel_copies import plan_pack, vectorize_pack
from gemmir.ir.partial_sums import adding, beginning, loops_inside
from gemmir.ir.scales import widened
from gemmir.ir.team_copies import plan_share, vectorize_share
from gemmir.ir.tile_products import multiply_tiles, plan_tiles
from gemmir.ir.transfers import Tile, computed, read, splat
from gemmir.ir.views import chain, extents, offsets_of, subview, total_offsets
from gemmir.ir.warp_products import (
    MMA_SHAPES,
    mma_shape,
    multiply_of_warp,
    refuse_shape,
    require_one_type,
)
from gemmir.ir.warpgroup import COLUMN_STEP, WARPGROUP_ROWS, WarpgroupWaitOp, column_step
from gemmir.ir.warpgroup_products import begin_product, finished, require_warpgroup
from gemmir.ir.whole_blocks import plan_blocks, vectorize_blocks
from gemmir.ir.write_back import vectorize_epilogue, vectorize_write_back

FMA, DOT, AMX, MMA, WGMMA, MXU = "fma", "dot", "amx", "mma", "wgmma", "mxu"
UNITS = (FMA, DOT, AMX, MMA, WGMMA, MXU)

TOP = 28
"""Where in a word of 32 bits the highest number of 4 bits begins."""


def plan_gemm(
    gemm: GemmOp,
    with_: str,
    width: int,
    shape: tuple[int, ...] | None = None,
    along: str | None = None,
) -> GemmPlan:
    """Check that `gemm` can go to the unit.

    `ScheduleError` (GEM0372 to GEM0376, GEM0378) if not.
    """
    accumulator = _in_registers(gemm)
    if with_ == WGMMA:
        return _plan_of_warpgroup(gemm, accumulator)
    if with_ == MMA:
        m, n, k = mma_shape(gemm, shape)
        return replace(_of_one_accumulator(gemm, accumulator, (m, n)), mma=(m, n, k))
    refuse_shape(shape, with_)
    if with_ == FMA:
        _require_fma(gemm)
    _require_unswizzled(gemm, with_)
    rows, columns = memref_type(accumulator).get_shape()
    return GemmPlan(
        accumulator=accumulator,
        rows=rows,
        columns=columns,
        width=width,
        k=extents(gemm.a)[1],
        depth=_dot_depth(gemm, along) if with_ == DOT else 1,
    )


def _plan_of_warpgroup(gemm: GemmOp, accumulator: SSAValue) -> GemmPlan:
    columns = memref_type(accumulator).get_shape()[1]
    step = column_step(memref_type(gemm.a).element_type, columns)
    require_warpgroup(gemm, columns)
    made = _of_one_accumulator(gemm, accumulator, (WARPGROUP_ROWS, step))
    return replace(made, of_warpgroup=True)


def _of_one_accumulator(gemm: GemmOp, accumulator: SSAValue, steps: tuple[int, int]) -> GemmPlan:
    """A tile of C as a whole, its sides rounded up to `steps`, those of an instruction."""
    shape = memref_type(accumulator).get_shape()
    rows, columns = (-(-size // step) * step for size, step in zip(shape, steps, strict=True))
    return GemmPlan(
        accumulator=accumulator,
        rows=rows,
        columns=columns,
        width=columns,
        k=extents(gemm.a)[1],
        precision=gemm.precision,
    )


def _require_unswizzled(gemm: GemmOp, with_: str) -> None:
    """`ScheduleError` GEM1387 where an operand lies as only matrices are loaded."""
    for name, value in (("a", gemm.a), ("b", gemm.b)):
        if isinstance(memref_type(value).layout, SwizzleAttr):
            raise ScheduleError(
                "GEM1387",
                f"vectorize: with={with_} reads vectors of {name}, and it is swizzled",
                f"promote {name} with layout=panel:WIDTH, or use with=mma",
            )


def _require_fma(gemm: GemmOp) -> None:
    """`ScheduleError` GEM0374 where elements are not widened to the type of the sum."""
    if _can_widen(gemm):
        return
    of = product_name(memref_type(gemm.a).element_type, gemm.precision)
    raise ScheduleError(
        "GEM0374",
        f"vectorize: with=fma multiplies and adds in one type, not {of} in {gemm.summed}",
        "use with=mma on a GPU with tensor cores" if of in MMA_SHAPES else "use with=mxu on a TPU",
    )


def _in_registers(gemm: GemmOp) -> SSAValue:
    """The accumulator of `gemm`; `ScheduleError` GEM0372 where C is not in registers."""
    accumulator = chain(gemm.c)[0]
    space = memref_type(accumulator).memory_space
    if not isinstance(space, SpaceAttr) or space.data != Space.REGISTERS:
        raise ScheduleError(
            "GEM0372",
            "vectorize: C is not in registers",
            "put promote{operand=c to=registers} before vectorize",
        )
    return accumulator


def _require_whole_bytes(gemm: GemmOp, width: int, along: str | None) -> None:
    """`ScheduleError` GEM1339 where a vector of a B with two elements a byte is no whole bytes."""
    of = memref_type(gemm.b)
    if of.element_type != IntegerType(4):
        return
    if strides_of(of)[0 if along == ALONG_K else 1] != 1:
        found, wanted = ("n", "k") if along == ALONG_K else ("k", "n")
        raise ScheduleError(
            "GEM1339",
            f"vectorize: B has two elements a byte, which are neighbours along {found} and not "
            f"along {wanted}",
            "put promote{operand=b to=l2 layout=panel:16 as=f32} before it",
        )
    if width % 2:
        raise ScheduleError(
            "GEM1339", f"vectorize: width={width} of a B that has two elements a byte", "use 2"
        )


def _dot_depth(gemm: GemmOp, along: str | None) -> int:
    """How many products are added at once.

    A may lie as it does, and B is in panels for that, but with lanes along k, where neighbours are.
    """
    factors = [memref_type(v).element_type for v in (gemm.a, gemm.b)]
    depth = dot_depth(*(dot_factors(gemm) if along == ALONG_K else factors))
    if depth is None or gemm.precision is not None:
        raise ScheduleError(
            "GEM1323",
            f"vectorize: with=dot has no products of {factors[0]} and {factors[1]}",
            "promote both with as=i16, or use bf16, i8 or u8, or with=fma",
        )
    if along == ALONG_K:
        return depth
    for name, value, dim in (("a", gemm.a, 0), ("b", gemm.b, 1)):
        layout = _panel_of(value, dim)
        found = 1 if layout is None else layout.depth.data
        if (layout is not None or name == "b") and found != depth:
            lies = "no panels" if layout is None else f"panels of depth {found}"
            raise ScheduleError(
                "GEM1325",
                f"vectorize: with=dot takes {depth} elements of {name} at once, and it lies in "
                f"{lies}",
                f"promote {name} with layout=panel:WIDTHx{depth}",
            )
    return depth


def _can_widen(gemm: GemmOp) -> bool:
    """Whether elements can be widened to the type of the sum where they are read.

    A core widens all of them, and a thread of a GPU those of 16 bits.
    """
    if gemm.precision is not None:
        return False
    factors = [memref_type(v).element_type for v in (gemm.a, gemm.b)]
    units = [o.over.data for o in enclosing_ops(gemm) if isinstance(o, ForallOp)]
    is_plain = all(factor == gemm.summed for factor in factors)
    is_wider = all(is_widening(factor, gemm.summed) for factor in factors)
    if is_plain:
        return True
    on_thread = THREADS in units and all(f in (bf16, f16) for f in factors)
    return is_wider and (set(units) <= {CORES} or on_thread)


def _can_deal(gemm: GemmOp, width: int) -> bool:
    """Whether a tile has whole blocks of columns, neighbours in B, whose sums begin at zero."""
    accumulator = chain(gemm.c)[0]
    columns, b = memref_type(accumulator).get_shape()[1], memref_type(gemm.b)
    whole = columns % (width * dealt_to(width)) == 0 and b.get_shape()[1] == columns
    adjacent = not isinstance(b.layout, PanelAttr) and strides_of(b)[1] == 1
    return whole and adjacent and carried_from(accumulator) is None


def _panel_of(value: SSAValue, dim: int) -> PanelAttr | None:
    """The panel layout along `dim` of the buffer that `value` is a window into."""
    layout = memref_type(chain(value)[0]).layout
    return layout if isinstance(layout, PanelAttr) and layout.dim.data == dim else None


def _whole_panel(builder: Builder, value: SSAValue, dim: int, extent: int) -> SSAValue:
    """The window `value` with all of its panel along `dim`: past a clipped tile there are zeros.

    Where there is only one panel, a tile may be narrower.
    So there are behind the last of k in a panel of some depth, up to a whole step.
    """
    layout = _panel_of(value, dim)
    assert layout is not None
    room = memref_type(chain(value)[0]).get_shape()[dim]
    if layout.width.data != extent and not extent < layout.width.data == room:
        raise ScheduleError(
            "GEM0373",
            f"vectorize: tiles of {extent} along {'mn'[dim]} read panels of {layout.width.data}",
            f"tile {'mn'[dim]} by {layout.width.data}, or promote with panel:{extent}",
        )
    buffer, views = chain(value)
    offsets = total_offsets(builder, views)
    sizes = list(extents(value))
    sizes[dim] = extent
    sizes[1 - dim] = round_up(builder, views[0], sizes[1 - dim], layout.step.data)
    return subview(builder, buffer, offsets, sizes, one_panel=True)


def _whole_window(builder: Builder, view: memref.SubviewOp, dim: int, extent: int) -> SSAValue:
    """The window `view` of shared memory, `extent` along `dim`: past a clipped tile are zeros."""
    sizes = list(extents(view.result))
    sizes[dim] = extent
    return subview(builder, view.source, offsets_of(view), sizes)


def _operand(builder: Builder, value: SSAValue, dim: int, extent: int) -> tuple[SSAValue, bool]:
    """A or B as the k loop reads it, and whether all of `extent` along `dim` is there."""
    if is_shared(value) and isinstance(value.owner, memref.SubviewOp):
        return _whole_window(builder, value.owner, dim, extent), True
    if _panel_of(value, dim) is not None:
        return _whole_panel(builder, value, dim, extent), True
    return value, memref_type(value).get_shape()[dim] == extent


def vectorize_gemm(gemm: GemmOp, plan: GemmPlan) -> list[SSAValue]:
    """Sum into vectors over k; returns one finished accumulator for each of `plan.starts`."""
    summed = memref_type(plan.accumulator).element_type
    zero = splat(gemm, 0, VectorType(summed, (plan.rows, plan.width)))
    start = carried_from(plan.accumulator)
    first = [zero] * len(plan.starts) if start is None else _begin_from(start, plan)
    outer = loops_inside(gemm, plan.accumulator)
    begin, finish = carry(outer, first)
    if plan.of_warpgroup and not outer:
        return [begin_product(gemm, zero, under_way=0)]
    if plan.of_warpgroup:
        (total,) = finish([begin_product(gemm, begin[0])])
        return [finished(total)]
    if plan.mma is None:
        return _in_order(plan, _brought_down(gemm, finish(_sum_over_k(gemm, plan, begin))))
    return finish(multiply_of_warp(gemm, plan, plan.mma, begin))


def vectorize_tiles(gemm: GemmOp) -> None:
    """Lower `gemm` to matrix tiles, whose sums epilogues read from a buffer; erases `gemm`."""
    accumulator = _in_registers(gemm)
    plan = plan_tiles(gemm)
    a, b = (
        _operand(before(gemm), value, dim, extent)[0]
        for value, dim, extent in ((gemm.a, 0, plan.rows), (gemm.b, 1, plan.columns))
    )
    buffer = multiply_tiles(gemm, a, b, plan)
    first = gemm.first
    gemm.detach()
    gemm.erase()
    erase_condition(first)
    _erase_accumulator(accumulator)
    users = [use.operation for use in buffer.uses]
    if all(isinstance(view, memref.SubviewOp) and not view.result.uses for view in users):
        _erase_accumulator(buffer)


def _begin_from(start: EpilogueOp, plan: GemmPlan) -> list[SSAValue]:
    """What the accumulators hold before a sum that goes on from C; erases `start`."""
    rows, columns = extents(start.output)
    found: list[SSAValue] = []
    for at in plan.starts:
        whole = rows == plan.rows, columns == plan.columns and at + plan.width <= plan.columns
        tile = Tile((0, at), (plan.rows, plan.width), whole)
        found.append(computed(before(start), start, tile, {}))
    start.detach()
    start.erase()
    return found


def _sum_over_k(gemm: GemmOp, plan: GemmPlan, begin: list[SSAValue]) -> list[SSAValue]:
    """A loop over k: a column of A, and rows of B.

    Where a tile has fewer rows than vectors across, each row of B is read right before its product,
    and the elements of A stay; otherwise all rows of B do, and an element of A is dead after its
    products.
    """
    builder = before(gemm)
    a, rows_in_bounds = _operand(builder, gemm.a, 0, plan.rows)
    b, columns_in_bounds = _operand(builder, gemm.b, 1, plan.columns)
    body = Block(arg_types=[INDEX, *[v.type for v in begin]])
    inner = at_end(body)
    k, *sums = body.args
    depth, summed = plan.depth, gemm.summed
    whole = _panel_of(gemm.a, 0) is not None or (isinstance(plan.k, int) and plan.k % depth == 0)
    column = read(inner, gemm, a, (0, k), (plan.rows, depth), (rows_in_bounds, depth == 1 or whole))
    column = converted(inner, column, summed) if depth == 1 else column

    def row_at(start: int) -> SSAValue:
        full = columns_in_bounds and start + plan.width <= plan.columns
        row = read(inner, gemm, b, (k, start), (depth, plan.width), (True, full))
        return converted(inner, row, summed, exponent=_exponent(gemm)) if depth == 1 else row

    by_columns = 1 < plan.rows < len(plan.starts) and not plan.dealt
    rows = _dealt_row(inner, gemm, plan, b, k) if plan.dealt else []
    rows = rows or ([] if by_columns else [row_at(start) for start in plan.starts])
    updated: list[SSAValue] = []
    for number, (start, total) in enumerate(zip(plan.starts, sums, strict=True)):
        row = row_at(start) if by_columns else rows[number]
        updated.append(inner.insert(OuterProductOp(column, row, total)).result)
    inner.insert(scf.YieldOp(*updated))
    lower, upper, by = (as_index(gemm, e) for e in (0, plan.k, depth))
    loop = scf.ForOp(lower, upper, by, begin, Region(body))
    loop.attributes[DIMENSION] = StringAttr("k")
    builder.insert(loop)
    return list(loop.results)


def _dealt_row(
    builder: Builder, gemm: GemmOp, plan: GemmPlan, b: SSAValue, k: SSAValue
) -> list[SSAValue]:
    """A row of B whose lanes are dealt, block by block, to vectors of its own order."""
    made: list[SSAValue] = []
    for start in range(0, plan.columns, plan.block):
        row = read(builder, gemm, b, (k, start), (1, plan.block), (True, True))
        parts = builder.insert(DealOp([row], plan.share)).outputs
        summed, exponent = gemm.summed, _exponent(gemm)
        made += [converted(builder, part, summed, exponent=exponent) for part in parts]
    return made


def _in_order(plan: GemmPlan, sums: list[SSAValue]) -> list[SSAValue]:
    """Sums of dealt columns, dealt once more: each vector has neighbours again.

    It has as many lanes as there were vectors, and there are as many as lanes were.
    """
    if not plan.dealt:
        return sums
    last = max((value.owner for value in sums), key=_place_of)
    assert isinstance(last, Operation)
    builder, made = Builder(InsertPoint.after(last)), list[SSAValue]()
    for first in range(0, len(sums), plan.share):
        made += builder.insert(DealOp(sums[first : first + plan.share], plan.width)).outputs
    return made


def _place_of(owner: Operation | Block) -> int:
    """Where an op stands in its block."""
    assert isinstance(owner, Operation) and owner.parent is not None
    return owner.parent.get_operation_index(owner)


def _exponent(gemm: GemmOp) -> int:
    """By which power of two elements of B are multiplied that have 4 bits: as the top of a word."""
    return TOP if memref_type(gemm.b).element_type == IntegerType(4) else 0


def _brought_down(gemm: GemmOp, sums: list[SSAValue]) -> list[SSAValue]:
    """The sums of products of an A by a B that was multiplied by a power of two."""
    exponent = _exponent(gemm)
    if not exponent:
        return sums
    loops = [sum_of.owner for sum_of in sums]
    end = loops[0]
    assert isinstance(end, Operation)
    factor = splat(gemm, 2.0**-exponent, cast("VectorType[Number]", sums[0].type))
    builder = Builder(InsertPoint.after(end))
    return [builder.insert(arith.MulfOp(total, factor)).result for total in sums]


@dataclass(frozen=True)
class Vectorize(KeywordPass):
    """Lower the GEMM, its copies and its epilogues to the unit `with`, `width` lanes wide.

    `shape` is m, n and k of the instruction of the tensor cores, where there are several. A
    warpgroup, wgmma, and the matrix unit of a TPU, mxu, take whole tiles and have neither. With
    along=k the lanes of fma and dot are products along k, added at the end. With `dealt` vectors
    of fma have every width-th of width * width columns, or every 8th where they are longer than
    that, and are put in order behind the sum.
    """

    name = "gemmir-vectorize"

    with_: str
    width: int | None = None
    shape: tuple[int, ...] | None = None
    along: str | None = None
    dealt: bool = False

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        products = require_gemms("vectorize", op, takes_factors=True)
        if self.with_ not in UNITS:
            raise ScheduleError(
                "GEM0370", f"vectorize: with={self.with_!r} is no unit", f"use {', '.join(UNITS)}"
            )
        if self.along is not None and (self.along != ALONG_K or self.with_ not in (FMA, DOT)):
            raise ScheduleError(
                "GEM1317",
                f"vectorize: along={self.along} with={self.with_}",
                "use along=k with=fma or with=dot, or leave along out",
            )
        if self.with_ in (MMA, WGMMA, MXU):
            require_one_type(products, self.with_)
        if self.with_ in (WGMMA, MXU):
            self._refuse_lanes()
        if self.with_ == MXU:
            vectorize_blocks([plan_blocks(gemm) for gemm in products])
            return
        if self.with_ == WGMMA:
            self._vectorize(op, products, COLUMN_STEP)
            return
        if self.width is None or self.width < 1:
            width = "no width" if self.width is None else f"width={self.width}"
            raise ScheduleError("GEM0371", f"vectorize: {width}", "use the lanes of a vector")
        self._vectorize(op, products, self.width)

    def _refuse_lanes(self) -> None:
        for name, value in (("width", self.width), ("shape", self.shape)):
            if value is not None:
                raise ScheduleError(
                    "GEM0365",
                    f"vectorize: {name} of with={self.with_}, which takes whole tiles",
                    f"leave {name} out",
                )

    def _dealt(self, products: Sequence[GemmOp], width: int) -> list[GemmOp]:
        """The products whose columns are dealt; `ScheduleError` GEM1385 where there are none."""
        if not self.dealt:
            return []
        found = [gemm for gemm in products if _can_deal(gemm, width)]
        if self.with_ != FMA or self.along is not None or not found:
            block = width * dealt_to(width)
            raise ScheduleError(
                "GEM1385",
                f"vectorize: dealt=true with={self.with_} width={width}, and no tile of C has "
                f"blocks of {block} neighbours in B whose sums begin at zero",
                f"use with=fma, tile n by {block}, and leave along and carry out",
            )
        return found

    def _vectorize(self, op: builtin.ModuleOp, products: Sequence[GemmOp], width: int) -> None:
        dealt = self._dealt(products, width)
        for gemm in products:
            if self.with_ == AMX:
                vectorize_tiles(gemm)
            else:
                self._product(op, gemm, width, dealt=gemm in dealt)
        for inner in list(op.walk()):
            _vectorize_other(inner, width)

    def _product(self, op: builtin.ModuleOp, gemm: GemmOp, width: int, *, dealt: bool) -> None:
        """Lower `gemm`, the running sums that it is added to, and the write-backs of these."""
        plan = replace(plan_gemm(gemm, self.with_, width, self.shape, self.along), dealt=dealt)
        if self.with_ == FMA:
            _require_whole_bytes(gemm, width, self.along)
        if self.along is None:
            sums = vectorize_gemm(gemm, plan)
            plan = replace(plan, width=plan.share) if plan.dealt else plan
        else:
            plan, sums = _lanes_along_k(gemm, plan, width)
        first = gemm.first
        gemm.detach()
        gemm.erase()
        erase_condition(first)
        while (running := adding(plan.accumulator)) is not None:
            sums = add_slices(running, plan, sums)
            whole = replace(plan, accumulator=chain(running.output)[0])
            running.detach()
            running.erase()
            _erase_accumulator(plan.accumulator)
            plan = whole
        for epilogue in _write_backs(op, plan):
            vectorize_write_back(epilogue, plan, sums)
        _erase_accumulator(plan.accumulator)


def _lanes_along_k(gemm: GemmOp, plan: GemmPlan, width: int) -> tuple[GemmPlan, list[SSAValue]]:
    """The sums of `gemm` with `width` lanes along k, in one accumulator, and the plan with that."""
    is_unsigned = read_unsigned(gemm)
    require_adjacent(gemm, width)
    total = sum_lanes(
        gemm,
        plan.accumulator,
        width,
        depth=plan.depth,
        exponent=_exponent(gemm),
        is_unsigned=is_unsigned,
    )
    return replace(plan, width=plan.columns), _brought_down(gemm, [total])


def _vectorize_other(op: Operation, width: int) -> None:
    """Lower a copy, sums of rows or columns, or an epilogue that was not fused."""
    if isinstance(op, PackOp) and is_shared(op.target):
        vectorize_share(op, plan_share(op, width))
    elif isinstance(op, PackOp):
        vectorize_pack(op, plan_pack(op, width))
    elif isinstance(op, ColumnSumOp):
        vectorize_sums(op, width)
    elif isinstance(op, RowSumOp):
        vectorize_row_sums(op, width)
    elif isinstance(op, EpilogueOp):
        _require_thread(op)
        vectorize_epilogue(op, width)


def _require_thread(epilogue: EpilogueOp) -> None:
    """`ScheduleError` GEM0389 where what was stored would be read again by other threads."""
    units = [o.over.data for o in enclosing_ops(epilogue) if isinstance(o, ForallOp)]
    if units and units[0] in (WARPS, WARPGROUPS):
        raise ScheduleError(
            "GEM0389",
            f"vectorize: an epilogue reads elements of C that other threads of the {units[0]} "
            "have stored",
            "put fuse-epilogue behind promote{operand=c to=registers}",
        )


def add_slices(running: EpilogueOp, plan: GemmPlan, parts: Sequence[SSAValue]) -> list[SSAValue]:
    """Add what `parts` hold of each slice to vectors that the loops over slices carry.

    What else is read, such as scales, is read before the product, so that loads overlap with it.
    """
    accumulator = chain(running.output)[0]
    start = beginning(accumulator)
    tiles = [Tile((0, at), (plan.rows, plan.width), (True, True)) for at in plan.starts]
    zeros = [computed(before(start), start, tile, {}) for tile in tiles]
    start.detach()
    start.erase()
    begin, finish = carry(loops_inside(running, accumulator), zeros)
    totals: list[SSAValue] = []
    for tile, part, old in zip(tiles, parts, begin, strict=True):
        known: dict[SSAValue, SSAValue] = {running.body.block.args[-1]: old}
        for argument, value in zip(running.body.block.args, running.inputs, strict=False):
            if chain(value)[0] is plan.accumulator:
                known[argument] = part
            else:
                known[argument] = _factor(running, plan, part, value, tile)
        totals.append(computed(before(running), running, tile, known))
    return finish(totals)


def _factor(
    running: EpilogueOp, plan: GemmPlan, part: SSAValue, value: SSAValue, tile: Tile
) -> SSAValue:
    """An operand of a running sum as a vector, read before a product that is one op."""
    owner = part.owner
    anchor = owner.acc.owner if isinstance(owner, WarpgroupWaitOp) else running
    assert isinstance(anchor, Operation)
    builder = before(anchor)
    whole = plan.rows, plan.starts[-1] + plan.width
    wide = widened(builder, value, whole[1])
    source = value if wide is None else wide
    rows, columns = (e == room for e, room in zip(extents(source), whole, strict=True))
    return read(builder, running, source, tile.at, tile.shape, (rows, columns))


def _write_backs(module: builtin.ModuleOp, plan: GemmPlan) -> list[EpilogueOp]:
    return [
        op
        for op in module.walk()
        if isinstance(op, EpilogueOp) and any(chain(v)[0] is plan.accumulator for v in op.inputs)
    ]


def _erase_accumulator(accumulator: SSAValue) -> None:
    for use in list(accumulator.uses):
        use.operation.detach()
        use.operation.erase()
    assert isinstance(accumulator.owner, memref.AllocaOp)
    accumulator.owner.detach()
    accumulator.owner.erase()
