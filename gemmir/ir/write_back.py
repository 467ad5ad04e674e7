"""Epilogues as vector arithmetic: accumulators on their way to C, and epilogues over all of C.

    gemmir.epilogue ins(%acc) outs(%c)   ->   %y = arith.addf %x, %bias   : vector<6x8xf32>
                                              vector.transfer_write %y, %c[0, 0]

Where a tile may be clipped there are two versions, one for full tiles and one with masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.dialects import arith, scf
from xdsl.ir import SSAValue

from gemmir.ir.accumulators import GemmPlan
from gemmir.ir.dialect import EpilogueOp
from gemmir.ir.index import Extent, as_index, before, both, constant_of, equals, upper_bound
from gemmir.ir.loops import conditional, open_loop
from gemmir.ir.transfers import Tile, store_tile
from gemmir.ir.views import chain, extents, sizes_of, subview, total_offsets
from gemmir.ir.warpgroup import COLUMN_STEP, WARPGROUP_ROWS, WarpgroupSliceOp


def vectorize_write_back(epilogue: EpilogueOp, plan: GemmPlan, sums: Sequence[SSAValue]) -> None:
    """Store the accumulators through the body of `epilogue`, clipped where the tile is."""
    builder = before(epilogue)
    piece = _piece_of(epilogue, plan)
    found = list(zip(extents(epilogue.output), piece.shape, strict=True))
    is_cut = _is_known_cut(epilogue) or any(
        isinstance(extent, int) and extent < whole for extent, whole in found
    )
    clipped = [
        equals(builder, epilogue, extent, whole)
        for extent, whole in found
        if not isinstance(extent, int) and not is_cut
    ]
    is_full = both(builder, clipped)
    starts, width, parts = list(plan.starts), plan.width, list(sums)
    if piece.shape != (plan.rows, plan.columns):
        starts, width = [0], piece.shape[1]
        parts = [builder.insert(WarpgroupSliceOp(sums[0], piece.place, piece.shape)).result]

    def store(inner: Builder, full: bool) -> None:
        for start, total in zip(starts, parts, strict=True):
            in_bounds = (full, full and start + width <= piece.shape[1])
            tile = Tile((0, start), (piece.shape[0], width), in_bounds)
            known: dict[SSAValue, SSAValue] = {
                argument: total
                for argument, value in zip(epilogue.body.block.args, epilogue.inputs, strict=False)
                if chain(value)[0] is plan.accumulator
            }
            store_tile(inner, epilogue, tile, known)

    if is_full is None:
        store(builder, not is_cut)
    else:
        builder.insert(conditional(is_full, lambda i: store(i, True), lambda i: store(i, False)))
    epilogue.detach()
    epilogue.erase()


def _is_known_cut(epilogue: EpilogueOp) -> bool:
    """Whether this is the branch for a tile whose rows are not all there."""
    branch = epilogue.parent_op()
    if not isinstance(branch, scf.IfOp) or epilogue.parent_region() is branch.true_region:
        return False
    compared = branch.cond.owner
    if not isinstance(compared, arith.CmpiOp):
        return False
    views = chain(epilogue.output)[1]
    return any(sizes_of(view)[0] in compared.operands for view in views)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of an accumulator that is written back on its own, in whole instructions."""

    place: tuple[int, int]
    shape: tuple[int, int]


def _piece_of(epilogue: EpilogueOp, plan: GemmPlan) -> Piece:
    """What `epilogue` takes of the accumulator of `plan`: all, or a piece of a warpgroup's."""
    views = next(views for root, views in map(chain, epilogue.inputs) if root is plan.accumulator)
    place = [constant_of(sum_of) for sum_of in total_offsets(before(epilogue), views)]
    assert place[0] is not None and place[1] is not None
    if not plan.of_warpgroup:
        return Piece(place=(0, 0), shape=(plan.rows, plan.columns))
    bounds = [upper_bound(e) or 0 for e in extents(epilogue.output)]
    steps = (WARPGROUP_ROWS, COLUMN_STEP)
    rows, columns = (-(-e // step) * step for e, step in zip(bounds, steps, strict=True))
    return Piece(place=(place[0], place[1]), shape=(rows, columns))


def vectorize_epilogue(epilogue: EpilogueOp, width: int) -> None:
    """Run an epilogue that was not fused over all of C, a row of `width` at a time.

    A narrower tile that a vector holds several of gets vectors of its own width.
    """
    builder = before(epilogue)
    output = extents(epilogue.output)
    own = constant_of(output[-1])
    if own and width % own == 0:
        width = own
    names = ("batch", "m", "n")[-len(output) :]
    at: list[Extent] = []
    for name, extent in zip(names, output, strict=True):
        step = width if name == "n" else 1
        bounds = [as_index(epilogue, e) for e in (0, extent, step)]
        variable, builder = open_loop(builder, name, (bounds[0], bounds[1], bounds[2]))
        at.append(variable)
    operands = list(epilogue.operands)
    if len(output) == 3:
        operands = [
            subview(builder, v, (at[0], 0, 0), (1, *output[1:]), drop_batch=True) for v in operands
        ]
    matrix = EpilogueOp(operands[:-1], operands[-1], epilogue.body.clone())
    builder.insert(matrix)
    columns = output[-1]
    full = isinstance(columns, int) and columns % width == 0
    store_tile(before(matrix), matrix, Tile((at[-2], at[-1]), (1, width), (True, full)), {})
    for op in (matrix, epilogue):
        op.detach()
        op.erase()
