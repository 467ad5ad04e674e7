"""Products on the matrix tiles of a CPU: the accumulators of a tile of C are tile registers.

    gemmir.gemm %a, %b, %acc   ->   scf.for %k … step 32 iter_args(%x = 0, %y = 0)
      (16 x k, k x 32, 16 x 32)         %p = amx.tile_load %a[0, %k]    : !amx.tile<16x32xbf16>
                                        %q = amx.tile_load %b[%k, 0]    : !amx.tile<16x32xbf16>
                                        %z = amx.tile_mulf %p, %q, %x   : !amx.tile<16x16xf32>
                                        … of %b[%k, 16] and %y
                                    amx.tile_store %c[0, 0], …

Rows and columns are rounded up to whole tiles, and so is k: panels are filled up so far with
zeros. Accumulators have no lanes: whole tiles that are C as they are go there, and all others
through a buffer in L1 to their epilogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.dialects import memref, scf
from xdsl.dialects.builtin import MemRefType, StringAttr
from xdsl.ir import Block, Operation, Region, SSAValue

from gemmir.errors import ScheduleError
from gemmir.ir.amx import (
    TILE_ROWS,
    TileLoadOp,
    TileStoreOp,
    TileType,
    TileZeroOp,
    product_of,
    step_of,
)
from gemmir.ir.attributes import PanelAttr, Space, SpaceAttr
from gemmir.ir.carried_sums import carried_from
from gemmir.ir.dialect import (
    EpilogueOp,
    GemmOp,
    YieldOp,
    dot_depth,
    memref_type,
    strides_of,
)
from gemmir.ir.index import INDEX, Extent, as_index, at_end, before, both, equals
from gemmir.ir.loops import DIMENSION, carry, conditional
from gemmir.ir.partial_sums import adding, loops_inside, write_backs
from gemmir.ir.views import chain, extents, offsets_of, sizes_of, subview


@dataclass(frozen=True, kw_only=True)
class TilesPlan:
    """One GEMM on tiles: rows and columns in whole tiles, and `step` of k at once."""

    accumulator: SSAValue
    rows: int
    columns: int
    k: Extent
    step: int

    @property
    def corners(self) -> list[tuple[int, int]]:
        """Where the accumulators begin, row by row."""
        return [
            (row, column)
            for row in range(0, self.rows, TILE_ROWS)
            for column in range(0, self.columns, TILE_ROWS)
        ]


def plan_tiles(gemm: GemmOp) -> TilesPlan:
    """Check that `gemm` can go to tiles; `ScheduleError` (GEM1490 to GEM1492) if not."""
    factors = [memref_type(v).element_type for v in (gemm.a, gemm.b)]
    step = step_of(*factors)
    if step is None or gemm.precision is not None:
        raise ScheduleError(
            "GEM1490",
            f"vectorize: with=amx has no products of {factors[0]} and {factors[1]}",
            "use bf16, i8 or u8 as they are, or with=fma",
        )
    accumulator = chain(gemm.c)[0]
    if adding(accumulator) is not None:
        raise ScheduleError(
            "GEM1492",
            "vectorize: with=amx of slices of k that are added in registers",
            "promote c once",
        )
    rows, columns = (-(-size // TILE_ROWS) * TILE_ROWS for size in _shape(accumulator))
    depth = dot_depth(*factors)
    assert depth is not None
    for name, value, dim, wanted in (("a", gemm.a, 0, step), ("b", gemm.b, 1, depth)):
        layout = memref_type(chain(value)[0]).layout
        found = layout if isinstance(layout, PanelAttr) and layout.dim.data == dim else None
        if found is None or found.depth.data != wanted or found.step.data % step:
            lies = "no panels" if found is None else f"panels of depth {found.depth.data}"
            lies += f", filled up by {found.step.data}" if found is not None else ""
            suffix = f"x{wanted}" if wanted == step else f"x{wanted}x{step}"
            raise ScheduleError(
                "GEM1491",
                f"vectorize: with=amx takes {step} of k of {name} at once, and it lies in {lies}",
                f"promote {name} with layout=panel:{(rows, columns)[dim]}{suffix}",
            )
    return TilesPlan(
        accumulator=accumulator, rows=rows, columns=columns, k=extents(gemm.a)[1], step=step
    )


def _shape(accumulator: SSAValue) -> tuple[int, int]:
    rows, columns = memref_type(accumulator).get_shape()
    return rows, columns


def multiply_tiles(gemm: GemmOp, a: SSAValue, b: SSAValue, plan: TilesPlan) -> SSAValue:
    """Sum `a` by `b`, windows of whole panels, into tiles, over all loops over k.

    What reads the accumulator reads the buffer that is returned, where tiles are not stored into C
    themselves.
    """
    start = carried_from(plan.accumulator)
    outer = loops_inside(gemm, plan.accumulator)
    buffer = _buffer_for(plan)
    made = TileType(TILE_ROWS, TILE_ROWS, gemm.summed)
    builder = before(outer[0] if outer else gemm)
    first: list[SSAValue] = []
    for corner in plan.corners:
        if start is None:
            first.append(builder.insert(TileZeroOp(made)).result)
        else:
            at = [as_index(gemm, e) for e in corner]
            first.append(builder.insert(TileLoadOp(buffer, at, made)).result)
    begin, finish = carry(outer, first)
    sums = finish(_sum_over_k(gemm, a, b, plan, begin))
    for epilogue in write_backs(buffer):
        _write_back(epilogue, plan, buffer, sums)
    return buffer


def _write_back(
    epilogue: EpilogueOp, plan: TilesPlan, buffer: SSAValue, sums: Sequence[SSAValue]
) -> None:
    """Store `sums` where `epilogue` finds them, or where it would take them.

    What may be clipped at the edge of C has a version for whole tiles.
    """

    def store(builder: Builder, target: SSAValue) -> None:
        for corner, total in zip(plan.corners, sums, strict=True):
            at = [as_index(epilogue, e) for e in corner]
            builder.insert(TileStoreOp(target, at, total))

    def whole(builder: Builder) -> None:
        sizes = plan.rows, plan.columns
        views = [_window(builder, value, sizes) for value in epilogue.operands]
        if _is_plain(epilogue):
            store(builder, views[-1])
            return
        store(builder, buffer)
        builder.insert(EpilogueOp(views[:-1], views[-1], epilogue.body.clone()))

    def clipped(builder: Builder) -> None:
        store(builder, buffer)
        builder.insert(EpilogueOp(list(epilogue.inputs), epilogue.output, epilogue.body.clone()))

    builder = before(epilogue)
    found = list(zip(extents(epilogue.output), (plan.rows, plan.columns), strict=True))
    is_cut = any(isinstance(extent, int) and extent != size for extent, size in found)
    unknown = [(e, size) for e, size in found if not isinstance(e, int)]
    if is_cut or not unknown:
        (clipped if is_cut else whole)(builder)
    else:
        full = both(builder, [equals(builder, epilogue, e, size) for e, size in unknown])
        assert full is not None
        builder.insert(conditional(full, whole, clipped))
    epilogue.detach()
    epilogue.erase()


def _window(builder: Builder, value: SSAValue, sizes: tuple[int, int]) -> SSAValue:
    """`value` with extents that are known."""
    return value if extents(value) == sizes else subview(builder, value, (0, 0), sizes)


def _is_plain(epilogue: EpilogueOp) -> bool:
    """Whether `epilogue` stores its only input as it is, by rows."""
    block, of = epilogue.body.block, memref_type(epilogue.output)
    (last,) = block.ops if len(list(block.ops)) == 1 else (None,)
    is_same = isinstance(last, YieldOp) and last.value is block.args[0]
    is_rows = not isinstance(of.layout, PanelAttr) and strides_of(of)[1] == 1
    return is_same and len(epilogue.inputs) == 1 and is_rows


def _buffer_for(plan: TilesPlan) -> SSAValue:
    """A buffer in the place of the accumulator, of whole tiles."""
    owner = plan.accumulator.owner
    assert isinstance(owner, Operation)
    element = memref_type(plan.accumulator).element_type
    made = MemRefType(element, (plan.rows, plan.columns), memory_space=SpaceAttr(Space.L1))
    builder = before(owner)
    alloca = builder.insert(memref.AllocaOp(operands=[[], []], result_types=[made]))
    alloca.memref.name_hint = plan.accumulator.name_hint
    for view in [use.operation for use in plan.accumulator.uses]:
        assert isinstance(view, memref.SubviewOp)
        window = subview(before(view), alloca.memref, offsets_of(view), sizes_of(view))
        view.result.replace_all_uses_with(window)
        view.detach()
        view.erase()
    return alloca.memref


def _sum_over_k(
    gemm: GemmOp, a: SSAValue, b: SSAValue, plan: TilesPlan, begin: list[SSAValue]
) -> list[SSAValue]:
    """A loop over k, in which each tile is loaded right before the first product that takes it."""
    body = Block(arg_types=[INDEX, *[v.type for v in begin]])
    inner = at_end(body)
    k, *sums = body.args
    rows: dict[int, SSAValue] = {}
    columns: dict[int, SSAValue] = {}
    updated: list[SSAValue] = []
    for (row, column), total in zip(plan.corners, sums, strict=True):
        if row not in rows:
            rows[row] = _load(inner, gemm, a, (row, k), plan.step)
        if column not in columns:
            columns[column] = _load(inner, gemm, b, (k, column), plan.step)
        updated.append(inner.insert(product_of(rows[row], columns[column], total)).result)
    inner.insert(scf.YieldOp(*updated))
    lower, upper, by = (as_index(gemm, e) for e in (0, plan.k, plan.step))
    loop = scf.ForOp(lower, upper, by, begin, Region(body))
    loop.attributes[DIMENSION] = StringAttr("k")
    before(gemm).insert(loop)
    return list(loop.results)


def _load(
    builder: Builder,
    gemm: GemmOp,
    source: SSAValue,
    at: tuple[Extent, Extent],
    columns: int,
) -> SSAValue:
    """16 rows of 64 bytes of `source`."""
    made = TileType(TILE_ROWS, columns, memref_type(source).element_type)
    return builder.insert(TileLoadOp(source, [as_index(gemm, e) for e in at], made)).result
