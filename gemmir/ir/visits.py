"""The rows of a grouped GEMM in tiles that begin at multiples of their size, whatever is whose.

    scf.for %g (product) {                 %visits = gemmir.visits %offsets rows 1000 by 128
      gemmir.gemm on its rows       ->     gemmir.forall %v (visit) over grid {
    }                                        gemmir.gemm on the rows that product visits[0, v] has
                                                         in the tile visits[1, v]
                                           }

A tile in which one product ends and another begins is visited twice, one visit after the other. The
views of A, C and what has their rows are cut from the tile, not from the product: so it is seen
where in the tile the rows are.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.dialects import arith, memref, scf
from xdsl.ir import SSAValue

from gemmir.errors import ScheduleError
from gemmir.ir.dialect import GRID, GemmOp, Visit, VisitsOp, memref_type
from gemmir.ir.index import INDEX, Extent, as_index, constant_of
from gemmir.ir.loops import GROUP, open_loop
from gemmir.ir.views import chain, offsets_of, sizes_of, subview


@dataclass(frozen=True, kw_only=True)
class OpenVisit:
    """One visit: where its ops go, the product, the tile, and the rows of the tile to compute.

    `start` is the first row of the tile, `height` how many it has, `begin` and `rows` are in it.
    """

    builder: Builder
    loop: scf.ForOp
    product: SSAValue
    start: SSAValue
    height: Extent
    begin: SSAValue
    rows: SSAValue

    def part_of(self, value: SSAValue) -> SSAValue:
        """What the visit has of a view of the rows or of the matrix of one product.

        `ScheduleError` GEM0387 where `value` is cut otherwise than into products.
        """
        view = value.owner
        if not isinstance(view, memref.SubviewOp) or isinstance(
            view.source.owner, memref.SubviewOp
        ):
            raise _cut_already(value)
        offsets, sizes = list(offsets_of(view)), list(sizes_of(view))
        is_matrix = offsets[0] is self.loop.body.block.args[0]
        if is_matrix:
            offsets[0] = self.product
            if isinstance(sizes[1], SSAValue):
                sizes[1] = self.rows
        elif isinstance(offsets[0], SSAValue) and isinstance(sizes[0], SSAValue):
            rest, columns = offsets[1:], sizes[1:]
            sizes = [self.height, *columns]
            tile = subview(self.builder, view.source, [self.start, *rest], sizes)
            nowhere = [0] * len(rest)
            return subview(self.builder, tile, [self.begin, *nowhere], [self.rows, *columns])
        else:
            raise _cut_already(value)
        return subview(self.builder, view.source, offsets, sizes, drop_batch=True)


def _cut_already(value: SSAValue) -> ScheduleError:
    return ScheduleError(
        "GEM0387",
        f"tile: loops=group of {value.type}, which is not all that a product has of an array",
        "make it the first pass",
    )


def insert_visits(builder: Builder, gemm: GemmOp, loop: scf.ForOp, size: int) -> VisitsOp:
    """The visits of tiles of `size` rows, in place of the products of the loop around `gemm`."""
    offsets = next(op.memref for op in loop.body.block.ops if isinstance(op, memref.LoadOp))
    (rows, _) = memref_type(chain(gemm.c)[0]).get_shape()
    visits = builder.insert(VisitsOp(offsets, rows=rows, size=min(size, max(rows, 1))))
    visits.result.name_hint = "visits"
    return visits


def open_visits(builder: Builder, loop: scf.ForOp, visits: VisitsOp) -> OpenVisit:
    """A loop over `visits`, in place of `loop`."""
    count = memref_type(visits.result).get_shape()[1]
    bounds = [as_index(loop, n) for n in (0, count, 1)]
    number, inner = open_loop(builder, GROUP, (bounds[0], bounds[1], bounds[2]), GRID)
    number.name_hint = "v"

    product, tile, begin, end = (
        load_number(inner, visits, row, number)
        for row in (Visit.PRODUCT, Visit.TILE, Visit.BEGIN, Visit.END)
    )
    size = as_index(loop, visits.tile)
    start = inner.insert(arith.MuliOp(tile, size)).result
    length = inner.insert(arith.SubiOp(end, begin)).result
    rows = inner.insert(arith.MinSIOp(length, size)).result
    start.name_hint, rows.name_hint = "i", "rows"
    return OpenVisit(
        builder=inner,
        loop=loop,
        product=product,
        start=start,
        height=_height(inner, visits, start),
        begin=begin,
        rows=rows,
    )


def load_number(builder: Builder, visits: VisitsOp, row: Visit, number: SSAValue) -> SSAValue:
    """The number `row` of a visit."""
    at = [as_index(visits, row), number]
    found = builder.insert(memref.LoadOp.get(visits.result, at)).res
    index = builder.insert(arith.IndexCastOp(found, INDEX)).result
    index.name_hint = row.name.lower()
    return index


def _height(builder: Builder, visits: VisitsOp, start: SSAValue) -> Extent:
    """How many rows a tile has; the last may be cut off."""
    rows = visits.rows.value.data
    if rows % visits.tile == 0:
        return visits.tile
    left = builder.insert(arith.SubiOp(as_index(visits, rows), start)).result
    return builder.insert(arith.MinSIOp(as_index(visits, visits.tile), left)).result


def visit_number(value: Extent) -> tuple[VisitsOp, Visit] | None:
    """The visits of which `value` is a number, and which; None where it is none."""
    if not isinstance(value, SSAValue) or not isinstance(value.owner, arith.IndexCastOp):
        return None
    load = value.owner.input.owner
    if not isinstance(load, memref.LoadOp) or not isinstance(load.memref.owner, VisitsOp):
        return None
    row = constant_of(load.indices[0])
    return None if row is None else (load.memref.owner, Visit(row))


def visit_start(value: Extent) -> VisitsOp | None:
    """The visits of which `value` is the first row of a tile; None where it is not."""
    if not isinstance(value, SSAValue) or not isinstance(value.owner, arith.MuliOp):
        return None
    found = visit_number(value.owner.lhs)
    if found is None or found[1] != Visit.TILE or constant_of(value.owner.rhs) != found[0].tile:
        return None
    return found[0]


def place_in_tile(value: SSAValue) -> Extent:
    """The row of its tile at which what `value` shows begins: where it goes in a buffer for that.

    0 where it is no part of a tile that is visited.
    """
    for view in reversed(chain(value)[1]):
        offset = offsets_of(view)[-2]
        found = visit_number(offset)
        if found is not None and found[1] == Visit.BEGIN:
            return offset
    return 0
