"""Let a fixed number of blocks stay, and take one tile after another.

    gemmir.forall %t = 0 to 1024 over blocks    ->    gemmir.forall %b = 0 to 132 over blocks
        the tile with the number %t                       scf.for %t = %b to 1024 step 132
                                                              the tile with the number %t

So a block is set up once, and copies for its next tile can begin while it still stores the last
one. Loops over blocks that are nested become one first, numbered with the innermost fastest;
`interchange` with `group` numbers them otherwise. Of clusters, whole ones stay: the loop over tiles
comes to stand inside the loops over the blocks of a cluster. How many tiles of rows the products of
a grouped GEMM have is counted when the blocks begin, so that none is taken that is empty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, builtin, scf
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from gemmir.errors import ScheduleError
from gemmir.ir.dialect import BLOCKS, CLUSTERS, EpilogueOp, ForallOp, GemmOp, enclosing_ops
from gemmir.ir.groups import RowTiles, count_tiles, row_tiles
from gemmir.ir.index import as_index, before, constant_of
from gemmir.ir.loops import TILES, dimension_of, move, open_loop, require_gemms, trips
from gemmir.ir.views import cut_from, follow


@dataclass(frozen=True, kw_only=True)
class PersistPlan:
    """The loops over tiles, outermost first, how many tiles each has, and how many blocks stay.

    `inner` are the loops over the blocks of a cluster. Of `rows`, the tiles of rows of all products
    of a grouped GEMM, the first count is the most that there can be.
    """

    loops: tuple[ForallOp, ...]
    counts: tuple[int, ...]
    inner: tuple[ForallOp, ...]
    blocks: int
    rows: RowTiles | None

    @property
    def unit(self) -> str:
        """What takes the tiles."""
        return self.loops[0].over.data


def plan(gemm: GemmOp, blocks: int) -> PersistPlan:
    """Decide which loops become one; `ScheduleError` (GEM1270 to GEM1272) where none can."""
    foralls = [o for o in enclosing_ops(gemm) if isinstance(o, ForallOp)][::-1]
    units = [o.over.data for o in foralls]
    if not foralls or foralls[0] not in _outermost(gemm) or set(units) - {CLUSTERS, BLOCKS}:
        raise ScheduleError(
            "GEM1270",
            f"persist: the tile is one of {', '.join(units) or 'no unit'}",
            "put it behind tile{… over=blocks} and interchange, before tiles inside a block",
        )
    if any(isinstance(o, scf.ForOp) and dimension_of(o) == TILES for o in enclosing_ops(gemm)):
        raise ScheduleError(
            "GEM1270", f"persist: the {units[0]} take tiles in turn already", "give one persist"
        )
    loops = tuple(o for o in foralls if o.over.data == units[0])
    inner = tuple(foralls[len(loops) :])
    rows = row_tiles(loops[0])
    nested = loops[:-1] if rows is None else loops[1:-1]
    if dimension_of(loops[-1]) is None or any(len(o.body.block.ops) != 2 for o in nested):
        raise ScheduleError(
            "GEM1271",
            f"persist: the loops over {units[0]} do not stand directly inside one another",
            "tile over them once, with all of their loops",
        )
    counts = tuple(map(trips, loops))
    if not 1 <= blocks < math.prod(counts):
        tiles = math.prod(counts)
        raise ScheduleError(
            "GEM1272",
            f"persist: blocks={blocks} for {tiles} tiles of {units[0]}",
            f"use 1 to {tiles - 1}" if tiles > 1 else "leave persist out",
        )
    return PersistPlan(loops=loops, counts=counts, inner=inner, blocks=blocks, rows=rows)


def _outermost(gemm: GemmOp) -> list[ForallOp]:
    """The loop that stands in the function itself."""
    around = enclosing_ops(gemm)
    return [o for o in around[-3:-2] if isinstance(o, ForallOp)]


def persist(plan: PersistPlan) -> None:
    """Write the loops of `plan` anew."""
    outer = plan.loops[0]

    def index(value: int) -> SSAValue:
        return as_index(outer, value)

    bounds = (index(0), index(plan.blocks), index(1))
    number, builder = open_loop(before(outer), TILES, bounds, plan.unit)
    number.name_hint = plan.unit.removesuffix("s")
    kept: list[tuple[ForallOp, SSAValue]] = []
    for loop in plan.inner:
        name = dimension_of(loop)
        assert name is not None
        same = (loop.lb, loop.ub, loop.step)
        variable, builder = open_loop(builder, name, same, loop.over.data)
        variable.name_hint = loop.body.block.args[0].name_hint
        kept.append((loop, variable))
    end = _count(builder, plan)
    turn, body = open_loop(builder, TILES, (number, end, index(plan.blocks)))
    turn.name_hint = "tile"
    for loop, value in zip(plan.loops, _places(body, plan, turn), strict=True):
        loop.body.block.args[0].replace_all_uses_with(value)
    for loop, variable in kept:
        loop.body.block.args[0].replace_all_uses_with(variable)
    move([op for op in _work(plan) if op not in {*plan.loops, *plan.inner}], body)
    if plan.rows is not None:
        _cut_epilogues(body)
    outer.detach()
    outer.erase()


def _work(plan: PersistPlan) -> list[Operation]:
    """What is done with a tile, in order."""
    found: list[Operation] = []
    if plan.rows is not None:
        branch = plan.rows.branch
        around = list(plan.rows.loop.body.block.ops)[:-1]
        found += [o for o in around if o not in (branch, branch.cond.owner)]
        found += plan.rows.work
    last = plan.loops[-1:] if plan.rows is None else plan.loops[1:]
    for loop in (*last, *plan.inner):
        found += list(loop.body.block.ops)[:-1]
    return found


def _cut_epilogues(body: Builder) -> None:
    """Let the epilogues of tiles of rows work on the tiles that a block takes."""
    block = body.insertion_point.block
    gemm = next(op for op in block.ops if isinstance(op, GemmOp))
    for epilogue in [op for op in block.ops if isinstance(op, EpilogueOp)]:
        views = cut_from(gemm.c, epilogue.output)
        assert views is not None
        epilogue.detach()
        inputs = [follow(before(gemm), value, views) for value in epilogue.inputs]
        body.insert(EpilogueOp(inputs, gemm.c, epilogue.detach_region(epilogue.body)))
        epilogue.erase()


def _count(builder: Builder, plan: PersistPlan) -> SSAValue:
    """How many tiles there are."""
    if plan.rows is None:
        return as_index(plan.loops[0], math.prod(plan.counts))
    others = as_index(plan.loops[0], math.prod(plan.counts[1:]))
    return builder.insert(arith.MuliOp(count_tiles(builder, plan.rows), others)).result


def _places(builder: Builder, plan: PersistPlan, number: SSAValue) -> Sequence[SSAValue]:
    """Where each of the loops is at the tile of this number, the innermost fastest."""
    found: list[SSAValue] = []
    rest = number
    for loop, count in list(zip(plan.loops, plan.counts, strict=True))[:0:-1]:
        extent = as_index(plan.loops[0], count)
        found.append(_scaled(builder, builder.insert(arith.RemUIOp(rest, extent)).result, loop))
        rest = builder.insert(arith.DivUIOp(rest, extent)).result
    return [_scaled(builder, rest, plan.loops[0]), *found[::-1]]


def _scaled(builder: Builder, place: SSAValue, loop: ForallOp) -> SSAValue:
    if constant_of(loop.step) == 1:
        return place
    scaled = builder.insert(arith.MuliOp(place, loop.step)).result
    scaled.name_hint = loop.body.block.args[0].name_hint
    return scaled


@dataclass(frozen=True)
class Persist(ModulePass):
    """Let `blocks` blocks, or clusters of them, take all tiles in turn."""

    name = "gemmir-persist"

    blocks: int

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        for gemm in require_gemms("persist", op, takes_scales=True):
            persist(plan(gemm, self.blocks))
