"""The loop over the products of a grouped GEMM, whose sizes are known at run time.

scf.for %g = 0 to G
    %begin, %end = offsets[%g], offsets[%g + 1]
    %rows = min(%end - %begin, m)                  so that its bound is known
    … on A[%begin :][: %rows], B[%g], C[%begin :][: %rows]

Where each has room of its own for m rows, a count takes the place of both offsets:

    … on A[%g][: %rows], B[%g], C[%g][: %rows]
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.dialects import arith, memref, scf
from xdsl.ir import Block, Operation, Region, SSAValue

from gemmir.ir.dialect import BLOCKS, ForallOp, memref_type
from gemmir.ir.index import INDEX, Extent, as_index, at_end, before, constant_of, upper_bound
from gemmir.ir.loops import GROUP, conditional, dimension_of, open_loop
from gemmir.ir.views import subview


@dataclass(frozen=True, kw_only=True)
class Group:
    """One product: its number, its rows of A and C, and where its ops go."""

    builder: Builder
    number: SSAValue
    begin: Extent
    rows: SSAValue

    def part_of(self, array: SSAValue) -> SSAValue:
        """The rows of this product, in an array of those of all or with a matrix for each."""
        is_apart = len(memref_type(array).get_shape()) == 3
        return self.matrix_of(array, self.rows) if is_apart else self.rows_of(array)

    def rows_of(self, array: SSAValue) -> SSAValue:
        """The rows of this product in an array of those of all."""
        columns = memref_type(array).get_shape()[1]
        return subview(self.builder, array, (self.begin, 0), (self.rows, columns))

    def matrix_of(self, arrays: SSAValue, rows: Extent | None = None) -> SSAValue:
        """The matrix of this product, or its first `rows`, in an array with one for each."""
        _, most, columns = memref_type(arrays).get_shape()
        sizes = (1, most if rows is None else rows, columns)
        return subview(self.builder, arrays, (self.number, 0, 0), sizes, drop_batch=True)


def open_groups(end: Operation, offsets: SSAValue, most_rows: int) -> Group:
    """Insert the loop before `end`; group g has the rows from offsets[g] to offsets[g + 1]."""
    (bounds_count,) = memref_type(offsets).get_shape()
    zero, one = as_index(end, 0), as_index(end, 1)
    number, builder = open_loop(before(end), GROUP, (zero, as_index(end, bounds_count - 1), one))
    number.name_hint = "g"
    following = builder.insert(arith.AddiOp(number, one)).result
    begin, past = (_load(builder, offsets, at) for at in (number, following))
    length = builder.insert(arith.SubiOp(past, begin)).result
    rows = builder.insert(arith.MinSIOp(length, as_index(end, most_rows))).result
    begin.name_hint, rows.name_hint = "begin", "rows"
    return Group(builder=builder, number=number, begin=begin, rows=rows)


def open_masked_groups(end: Operation, counts: SSAValue, most_rows: int) -> Group:
    """Insert the loop before `end`; group g has the first counts[g] of `most_rows` rows."""
    (count,) = memref_type(counts).get_shape()
    bounds = [as_index(end, n) for n in (0, count, 1)]
    number, builder = open_loop(before(end), GROUP, (bounds[0], bounds[1], bounds[2]))
    found = _load(builder, counts, number)
    rows = builder.insert(arith.MinSIOp(found, as_index(end, most_rows))).result
    number.name_hint, rows.name_hint = "g", "rows"
    return Group(builder=builder, number=number, begin=0, rows=rows)


def _load(builder: Builder, array: SSAValue, at: SSAValue) -> SSAValue:
    found = builder.insert(memref.LoadOp.get(array, [at])).res
    return builder.insert(arith.IndexCastOp(found, INDEX)).result


def group_loop(op: Operation) -> scf.ForOp | None:
    """The loop over products whose body has `op`, None where there is none."""
    loop = op.parent_op()
    is_group = isinstance(loop, scf.ForOp) and dimension_of(loop) == GROUP
    return loop if isinstance(loop, scf.ForOp) and is_group else None


def products_of(loop: scf.ForOp) -> int:
    """How many products a loop over them has."""
    found = constant_of(loop.ub)
    assert found is not None
    return found


def most_row_tiles(products: int, rows: int, size: int, *, masked: bool) -> int:
    """The most tiles of `size` rows that so many products can need which have `rows` in all.

    If `masked` each may have so many.
    """
    if masked:
        return products * -(-rows // size)
    return (rows + min(products, rows) * (size - 1)) // size


def spread_rows(
    loop: scf.ForOp, rows: SSAValue, size: int, *, masked: bool
) -> tuple[SSAValue, SSAValue]:
    """Give a block to every tile of `size` rows of all products, and the body of `loop` to each.

    The tiles are numbered through all products; a block looks for the product that has its tile.
    `rows` is how many a product has, of as many as its bound for all together or, if `masked`, for
    each. Returns where the tile begins in it and how many rows it has.
    """
    most, count = upper_bound(rows), products_of(loop)
    assert most is not None
    tiles = most_row_tiles(count, most, size, masked=masked)
    zero, one, height = (as_index(loop, n) for n in (0, 1, size))
    tile, inner = open_loop(before(loop), GROUP, (zero, as_index(loop, tiles), one), BLOCKS)
    tile.name_hint = "t"
    total, group, first = _find_product(inner, loop, rows, tile, height)
    is_there = inner.insert(arith.CmpiOp(tile, total, "slt")).result
    found: list[SSAValue] = []

    def work(then: Builder) -> None:
        for op in list(loop.body.block.ops)[:-1]:
            op.detach()
            then.insert(op)
            if rows in op.results:
                within = then.insert(arith.SubiOp(tile, first)).result
                begin = then.insert(arith.MuliOp(within, height)).result
                begin.name_hint = "i"
                left = then.insert(arith.SubiOp(rows, begin)).result
                found.extend((begin, then.insert(arith.MinSIOp(height, left)).result))

    loop.body.block.args[0].replace_all_uses_with(group)
    inner.insert(conditional(is_there, work, lambda otherwise: None))
    loop.detach()
    loop.erase()
    return found[0], found[1]


def _find_product(
    builder: Builder, loop: scf.ForOp, rows: SSAValue, tile: SSAValue, height: SSAValue
) -> tuple[SSAValue, SSAValue, SSAValue]:
    """All tiles of the products, the product that has `tile`, and the tiles before that one."""
    block = Block(arg_types=[INDEX] * 4)
    inner = at_end(block)
    number, total, group, first = block.args
    own = _cloned(inner, loop, rows, {loop.body.block.args[0]: number})
    rounded = inner.insert(arith.AddiOp(own, as_index(loop, (constant_of(height) or 1) - 1))).result
    tiles = inner.insert(arith.DivUIOp(rounded, height)).result
    past = inner.insert(arith.AddiOp(total, tiles)).result
    is_before = inner.insert(arith.CmpiOp(past, tile, "sle")).result
    following = inner.insert(arith.AddiOp(number, as_index(loop, 1))).result
    group = inner.insert(arith.SelectOp(is_before, following, group)).result
    first = inner.insert(arith.SelectOp(is_before, past, first)).result
    inner.insert(scf.YieldOp(past, group, first))
    zero = as_index(loop, 0)
    scan = builder.insert(scf.ForOp(loop.lb, loop.ub, loop.step, [zero] * 3, Region(block)))
    return scan.results[0], scan.results[1], scan.results[2]


def _cloned(
    builder: Builder, loop: scf.ForOp, value: SSAValue, known: dict[SSAValue, SSAValue]
) -> SSAValue:
    """`value` of the body of `loop` where arguments are `known`: the ops that lead to it."""
    needed = {value}
    ops: list[Operation] = []
    for op in reversed(list(loop.body.block.ops)):
        if needed.intersection(op.results):
            needed.update(op.operands)
            ops.append(op)
    for op in reversed(ops):
        builder.insert(op.clone(known))
    return known[value]


@dataclass(frozen=True, kw_only=True)
class RowTiles:
    """A loop over the tiles of rows of all products, as `spread_rows` makes it.

    `scan` finds how many tiles there are and the product of one, and `branch` has what is done with
    it.
    """

    loop: ForallOp
    scan: scf.ForOp
    branch: scf.IfOp

    @property
    def work(self) -> list[Operation]:
        """What is done with a tile."""
        return list(self.branch.true_region.block.ops)[:-1]


def row_tiles(loop: ForallOp) -> RowTiles | None:
    """The parts of a loop over tiles of rows of all products; None for another loop."""
    if dimension_of(loop) != GROUP:
        return None
    ops = list(loop.body.block.ops)
    scan = next(o for o in ops if isinstance(o, scf.ForOp))
    branch = next(o for o in ops if isinstance(o, scf.IfOp))
    return RowTiles(loop=loop, scan=scan, branch=branch)


def count_tiles(builder: Builder, tiles: RowTiles) -> SSAValue:
    """How many tiles of rows all products have, found before one is taken."""
    scan = tiles.scan
    block = Block(arg_types=[INDEX] * 2)
    yielded = scan.body.block.last_op
    assert isinstance(yielded, scf.YieldOp)
    number, total = scan.body.block.args[:2]
    known: dict[SSAValue, SSAValue] = {number: block.args[0], total: block.args[1]}
    past = _cloned(at_end(block), scan, yielded.operands[0], known)
    block.add_op(scf.YieldOp(past))
    made = scf.ForOp(scan.lb, scan.ub, scan.step, scan.iter_args[:1], Region(block))
    return builder.insert(made).results[0]
