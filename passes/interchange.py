"""Reorder the loops that stand directly inside one another around a GEMM.

    scf.for %i (m)                         scf.for %j (n)
        scf.for %j (n)            ->           scf.for %i (m)
            gemmir.gemm                            gemmir.gemm

Only a perfect nest can be reordered: a copy or a size computed between two loops ends it. The
loops over the grid of a TPU kernel are walked with the innermost fastest, and a block that does not
change from one step to the next is not copied again.

Loops over the blocks of a GPU, or over clusters of them, are numbered with the innermost fastest,
so that their order says which run at the same time and share what is in the L2 cache. With `group`
they go through the first dimension a few tiles at a time, and through all of the second for each of
those:

    0 2 4 6 8        order=m,n group=2 of 3 x 5 tiles, m downwards: 4 blocks in a row read 2 tiles
    1 3 5 7 9        of A and 2 of B, where row by row they would read 1 and 4
    a b c d e
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, builtin, scf
from xdsl.dialects.builtin import StringAttr
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from gemmir.errors import ScheduleError
from gemmir.ir.dialect import BLOCKS, CLUSTERS, GRID, ForallOp, GemmOp, enclosing_ops
from gemmir.ir.index import Extent, as_index, before
from gemmir.ir.loops import (
    DIMENSION,
    Loop,
    dimension_of,
    open_loop,
    require_gemms,
    tiles_overlap,
    trips,
)


def plan(gemm: GemmOp, order: Sequence[str]) -> list[Loop]:
    """The loops to reorder, outermost first; `ScheduleError` (GEM0340 to GEM0342) if illegal."""
    nest = _perfect_nest(gemm)
    names = [dimension_of(loop) or "" for loop in nest]
    window = names[: len(order)]
    if sorted(window) != sorted(order) or len(set(order)) != len(order) or len(order) < 2:
        raise ScheduleError(
            "GEM0340",
            f"interchange: order={','.join(order)} of the nest {','.join(names[::-1]) or 'none'}",
            f"name the innermost loops, as in order={','.join(names) or 'n,m'}",
        )
    loops = nest[: len(order)][::-1]
    units = {loop.over.data for loop in loops if isinstance(loop, ForallOp)}
    if units and not any(_are_over(unit, loops) for unit in (CLUSTERS, BLOCKS, GRID)):
        raise ScheduleError(
            "GEM0341", f"interchange: a loop over {' and '.join(units)} stays where it is"
        )
    if "k" in order and any(tiles_overlap(loop) for loop in loops):
        raise ScheduleError(
            "GEM0342",
            "interchange: k cannot move across tiles that overlap",
            "use edges=clip, or leave k where it is",
        )
    return loops


def _perfect_nest(gemm: GemmOp) -> list[Loop]:
    """The loops around `gemm` with nothing but one another in them, innermost first."""
    nest: list[Loop] = []
    for op in enclosing_ops(gemm):
        if isinstance(op, scf.IfOp) and not nest:
            continue
        if not isinstance(op, Loop) or (nest and len(op.body.block.ops) != 2):
            break
        nest.append(op)
    return nest


def _are_over(unit: str, loops: Sequence[Loop]) -> bool:
    return all(isinstance(loop, ForallOp) and loop.over.data == unit for loop in loops)


def interchange(loops: Sequence[Loop], order: Sequence[str]) -> None:
    """Give the nest `loops`, outermost first, the dimensions of `order`."""
    headers = {dimension_of(loop): (loop, tuple(loop.operands[:3])) for loop in loops}
    variables = {loop: loop.body.block.args[0] for loop in loops}
    uses = {name: list(variables[loop].uses) for name, (loop, _) in headers.items()}
    hints = {name: variables[loop].name_hint for name, (loop, _) in headers.items()}
    for loop, name in zip(loops, order, strict=True):
        for position, bound in enumerate(headers[name][1]):
            loop.operands[position] = bound
        loop.attributes[DIMENSION] = StringAttr(name)
        for use in uses[name]:
            use.operation.operands[use.index] = variables[loop]
        variables[loop].name_hint = hints[name]


@dataclass(frozen=True, kw_only=True)
class GroupPlan:
    """Two loops over blocks, the one to go through in groups first, and how many tiles each has."""

    loops: tuple[Loop, Loop]
    group: int
    tiles: tuple[int, int]


def plan_group(loops: Sequence[Loop], order: Sequence[str], group: int) -> GroupPlan:
    """Decide the grouping in `order`; `ScheduleError` (GEM0343, GEM0344) if there is none."""
    if len(loops) != 2 or not any(_are_over(unit, loops) for unit in (CLUSTERS, BLOCKS)):
        raise ScheduleError(
            "GEM0343",
            f"interchange: group={group} numbers the tiles of two loops over blocks or clusters",
            "put it behind tile{loops=m,n … over=blocks}, with an order of two",
        )
    if group < 2:
        raise ScheduleError(
            "GEM0344",
            f"interchange: groups of {group} tiles leave the order as it is",
            "use 2 or more, or leave group out",
        )
    tiles = {dimension_of(loop): trips(loop) for loop in loops}
    return GroupPlan(
        loops=(loops[0], loops[1]), group=group, tiles=(tiles[order[0]], tiles[order[1]])
    )


def rasterize(plan: GroupPlan) -> None:
    """Make one loop over the numbers of the blocks, and find from them the tiles they work on.

    The loops stand in their order already; without tiles they stay.
    """
    outer, inner = plan.loops
    rows, columns = plan.tiles
    if rows * columns == 0:
        return
    bounds = (as_index(outer, 0), as_index(outer, rows * columns), as_index(outer, 1))
    dimensions = f"{dimension_of(outer)},{dimension_of(inner)}"
    assert isinstance(outer, ForallOp)
    unit = outer.over.data
    number, builder = open_loop(before(outer), dimensions, bounds, unit)
    number.name_hint = unit.removesuffix("s")
    for loop, tile in zip(plan.loops, _tiles(builder, plan, number), strict=True):
        variable = loop.body.block.args[0]
        offset = builder.insert(arith.MuliOp(tile, loop.step)).result
        offset.name_hint = variable.name_hint
        variable.replace_all_uses_with(offset)
    for op in list(inner.body.block.ops)[:-1]:
        op.detach()
        builder.insert(op)
    outer.detach()
    outer.erase()


def _tiles(builder: Builder, plan: GroupPlan, number: SSAValue) -> tuple[SSAValue, SSAValue]:
    """The tile along each of the two dimensions that the block `number` works on."""
    outer = plan.loops[0]
    rows, columns = plan.tiles
    in_group = as_index(outer, plan.group * columns)
    turn = builder.insert(arith.DivUIOp(number, in_group)).result
    rest = builder.insert(arith.RemUIOp(number, in_group)).result
    first = builder.insert(arith.MuliOp(turn, as_index(outer, plan.group))).result
    size: Extent = plan.group
    if rows % plan.group:
        left = builder.insert(arith.SubiOp(as_index(outer, rows), first)).result
        size = builder.insert(arith.MinSIOp(as_index(outer, plan.group), left)).result
    height = as_index(outer, size)
    down = builder.insert(arith.RemUIOp(rest, height)).result
    across = builder.insert(arith.DivUIOp(rest, height)).result
    return builder.insert(arith.AddiOp(first, down)).result, across


@dataclass(frozen=True)
class Interchange(ModulePass):
    """Reorder the innermost loops to `order`, outermost first.

    `group` numbers the blocks of two loops so that they go through the first in groups.
    """

    name = "gemmir-interchange"

    order: tuple[str, ...]
    group: int | None = None

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        for gemm in require_gemms("interchange", op, takes_scales=True, takes_factors=True):
            loops = plan(gemm, self.order)
            groups = None if self.group is None else plan_group(loops, self.order, self.group)
            if groups is None and [dimension_of(loop) for loop in loops] == list(self.order):
                raise ScheduleError(
                    "GEM0344",
                    f"interchange: the loops are in the order {','.join(self.order)} already",
                    "leave interchange out",
                )
            interchange(loops, self.order)
            if groups is not None:
                rasterize(groups)
