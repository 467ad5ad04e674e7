"""Cut the loops of a GEMM.

    gemmir.gemm  m x n x k     ->     scf.for %i = 0 to m step tm
                                          scf.for %j = 0 to n step tn
                                              gemmir.gemm  tm x tn x k   (on subviews)

Loops are opened in the order given, around the innermost `gemmir.gemm`, so that a second `tile`
cuts the tiles of the first. Where a size does not divide its extent, `edges` says what becomes of
the last tile: `clip` makes it smaller within the loop, so that all tiles have a size known only at
run time; `peel` gives it a loop of its own with its static size; `overlap` moves it back inside, so
that every tile is full and some elements are computed twice; `halve` cuts what remains by the
next smaller power of two, what then remains by half of that, and so on down to `least`; what then
still remains is one tile that is clipped; `exact` has a loop for each size that what remains may
have, so that it is one tile of a known size even where the extent is not known; `even` makes as
many tiles as there would be, all of one size or of two that differ by one element, the larger ones
first: 7 by 3 are 3 + 2 + 2. Moves no data, changes no layout.

An extent may be known at run time only. What `peel` leaves is then one tile that is clipped; `even`
has a loop for each size that tiles may have, of which two run at most; `overlap` needs an extent
that is at least one tile (`version`); a loop over k runs once where k is 0, so that C is written.

`over` gives every tile a unit of its own: the cores of a CPU, the blocks of a GPU, the warpgroups,
warps and threads of a block, or the steps of the grid of a TPU kernel. Blocks of Hopper may be
tiled as clusters first, whose blocks share what they copy. A block has the same threads everywhere
and a cluster the same blocks, so that at an edge some have an empty tile. Where an extent is known
only at run time there are as many units as its bound may need, and a block whose tile is empty does
nothing.
`per_sm` is how many blocks a multiprocessor shall hold at least: it limits the registers of a
thread.

With `loops=group,m` the rows of all products of a grouped GEMM are cut one after another, so that
hardly any block has none; each looks for the product that its tile is in. Over a grid, with
`loops=n,group,m`, tiles of rows begin at multiples of their size, and one that belongs to several
products is visited once for each (`gemmir.ir.visits`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, builtin
from xdsl.dialects.builtin import IntegerAttr, i64
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from gemmir.errors import ScheduleError
from gemmir.ir.dialect import (
    BLOCKS,
    BLOCKS_PER_SM,
    CLUSTERS,
    GRID,
    INSIDE_BLOCK,
    EpilogueOp,
    ForallOp,
    GemmOp,
    enclosing_ops,
)
from gemmir.ir.groups import group_loop, spread_rows
from gemmir.ir.index import (
    Extent,
    as_index,
    before,
    both,
    difference,
    enclosing_function,
    equals,
    upper_bound,
)
from gemmir.ir.loops import GROUP, conditional, open_loop, require_gemms
from gemmir.ir.scales import scales_of_tile
from gemmir.ir.segments import Segment, segments_of
from gemmir.ir.tile_plan import OUTERMOST, LoopPlan, TilePlan, is_masked, plan
from gemmir.ir.views import extents, subview
from gemmir.ir.visits import insert_visits, open_visits

COUNTED = (*OUTERMOST, *INSIDE_BLOCK)
"""Units of which there are as many as the largest extent needs."""

VARIABLES = {"batch": "s", "m": "i", "n": "j", "k": "p"}
"""What the induction variables are called in the text."""


def tile(gemm: GemmOp, plan: TilePlan) -> None:
    """Open the loops of `plan` around `gemm` and let it work on the tiles."""
    if any(loop.dimension == GROUP for loop in plan.loops):
        cut = _tile_visits if plan.over == GRID else _tile_groups
        cut(gemm, plan)
        return
    _open(before(gemm), gemm, plan, (), ())
    gemm.detach()
    gemm.erase()


def hold_blocks(gemm: GemmOp, count: int, over: str | None) -> None:
    """Note that a multiprocessor shall hold `count` blocks; `ScheduleError` GEM0352 otherwise."""
    if over != BLOCKS or count < 1:
        raise ScheduleError(
            "GEM0352",
            f"tile: per_sm={count} with over={over}",
            "it is 1 or more and goes with over=blocks",
        )
    function = enclosing_function(gemm)
    function.attributes[BLOCKS_PER_SM] = IntegerAttr(count, i64)


def _tile_groups(gemm: GemmOp, plan: TilePlan) -> None:
    """One loop over the tiles of rows of all products, and then the others of `plan`."""
    loop, rows = group_loop(gemm), extents(gemm.c)[0]
    assert loop is not None
    assert isinstance(rows, SSAValue)
    size, masked = plan.loops[1].size, is_masked(gemm)
    cuts: dict[str, tuple[Extent, Extent]] = {"m": spread_rows(loop, rows, size, masked=masked)}
    inner = _write_product(before(gemm), gemm, cuts, [])
    for use in list(gemm.c.uses):
        if isinstance(use.operation, EpilogueOp):
            _cut_epilogue(use.operation, inner, cuts)
    gemm.detach()
    gemm.erase()
    if plan.loops[2:]:
        tile(inner, TilePlan(loops=plan.loops[2:], over=plan.over))


def _tile_visits(gemm: GemmOp, plan: TilePlan) -> None:
    """A loop over columns where `plan` has one, and in it one over the visits of tiles of rows."""
    products = group_loop(gemm)
    assert products is not None
    builder, cuts = before(products), dict[str, tuple[Extent, Extent]]()
    *outer, _, rows = plan.loops
    visits = insert_visits(builder, gemm, products, rows.size)
    for loop in outer:
        bounds = [as_index(gemm, e) for e in (0, loop.extent, loop.size)]
        variable, builder = open_loop(
            builder, loop.dimension, (bounds[0], bounds[1], bounds[2]), plan.over
        )
        variable.name_hint = VARIABLES[loop.dimension]
        (segment,) = segments_of(builder, gemm, loop)
        cuts[loop.dimension] = _cut(builder, gemm, loop, variable, segment)
    visit = open_visits(builder, products, visits)

    def part(operand: SSAValue, dimensions: str) -> SSAValue:
        return _window(visit.builder, visit.part_of(operand), dimensions, cuts)

    a, b, c = (part(v, dims) for v, dims in ((gemm.a, "mk"), (gemm.b, "kn"), (gemm.c, "mn")))
    epilogues = [u.operation for u in gemm.c.uses if isinstance(u.operation, EpilogueOp)]
    inputs = [[part(v, "mn") for v in op.inputs] for op in epilogues]
    alpha, beta = gemm.alpha.value.data, gemm.beta.value.data
    visit.builder.insert(GemmOp(a, b, c, alpha=alpha, beta=beta, precision=gemm.precision))
    for op, own in zip(epilogues, inputs, strict=True):
        visit.builder.insert(EpilogueOp(own, c, op.detach_region(op.body)))
    products.detach()
    products.erase()


def _cut_epilogue(
    epilogue: EpilogueOp, gemm: GemmOp, cuts: dict[str, tuple[Extent, Extent]]
) -> None:
    """Let an epilogue of a whole product work on the tile that `gemm` computes."""
    builder = before(gemm)
    for number, value in enumerate(epilogue.inputs):
        epilogue.operands[number] = _window(builder, value, "mn", cuts)
    epilogue.operands[len(epilogue.inputs)] = gemm.c


def _open(
    builder: Builder,
    gemm: GemmOp,
    plan: TilePlan,
    variables: tuple[SSAValue, ...],
    segments: tuple[Segment, ...],
) -> None:
    """Open the loops that follow those of `variables`, and then write the tile."""
    if len(variables) == len(plan.loops):
        _write_tile(builder, gemm, plan, variables, segments)
        return
    loop = plan.loops[len(variables)]
    for segment in segments_of(builder, gemm, loop):
        end = upper_bound(segment.end) if plan.over in COUNTED else segment.end
        assert end is not None
        bounds = [as_index(gemm, e) for e in (segment.begin, end, segment.step)]
        made = (bounds[0], bounds[1], bounds[2])
        variable, inner = open_loop(builder, loop.dimension, made, plan.over)
        variable.name_hint = VARIABLES[loop.dimension]
        _open(inner, gemm, plan, (*variables, variable), (*segments, segment))


def _write_tile(
    builder: Builder,
    gemm: GemmOp,
    plan: TilePlan,
    variables: tuple[SSAValue, ...],
    segments: tuple[Segment, ...],
) -> None:
    first = [] if gemm.first is None else [gemm.first]
    cuts: dict[str, tuple[Extent, Extent]] = {}
    some: list[SSAValue] = []
    is_inside = plan.over in INSIDE_BLOCK or (plan.over == BLOCKS and _in_cluster(gemm))
    for loop, variable, segment in zip(plan.loops, variables, segments, strict=True):
        cuts[loop.dimension] = (
            _cut_for_unit(builder, gemm, loop, variable)
            if is_inside
            else _cut(builder, gemm, loop, variable, segment)
        )
        if plan.over == BLOCKS and not is_inside and not isinstance(loop.extent, int):
            size = as_index(gemm, cuts[loop.dimension][1])
            is_some = arith.CmpiOp(size, as_index(gemm, 0), "sgt")
            some.append(builder.insert(is_some).result)
        takes_beta = gemm.beta.value.data != 1 or gemm.beta_value is not None
        if loop.dimension == "k" and not loop.is_single and takes_beta:
            first.append(equals(builder, gemm, variable, 0))
    condition = both(builder, some)
    if condition is None:
        _write_product(builder, gemm, cuts, first)
        return
    builder.insert(
        conditional(
            condition,
            lambda then: _write_product(then, gemm, cuts, first),
            lambda otherwise: None,
        )
    )


def _in_cluster(gemm: GemmOp) -> bool:
    """Whether the loops to come are over the blocks of one cluster."""
    return any(isinstance(o, ForallOp) and o.over.data == CLUSTERS for o in enclosing_ops(gemm))


def _write_product(
    builder: Builder,
    gemm: GemmOp,
    cuts: dict[str, tuple[Extent, Extent]],
    first: Sequence[SSAValue],
) -> GemmOp:
    """The product on the tile that `cuts` describes; `first` are conditions on its beta."""
    a, b, c = (
        _window(builder, operand, dimensions, cuts)
        for operand, dimensions in ((gemm.a, "mk"), (gemm.b, "kn"), (gemm.c, "mn"))
    )
    alpha, beta = gemm.alpha.value.data, gemm.beta.value.data
    return builder.insert(
        GemmOp(
            a,
            b,
            c,
            alpha=alpha,
            beta=beta,
            first=both(builder, first),
            precision=gemm.precision,
            scales=scales_of_tile(builder, gemm, cuts),
            depth=gemm.depth,
            alpha_value=gemm.alpha_value,
            beta_value=gemm.beta_value,
        )
    )


def _cut(
    builder: Builder, gemm: GemmOp, loop: LoopPlan, variable: SSAValue, segment: Segment
) -> tuple[Extent, Extent]:
    """Offset and size of a tile at `variable`."""
    if loop.is_single:
        return 0, loop.extent
    if segment.size is not None:
        return variable, segment.size
    if loop.edges == "overlap":
        latest = as_index(gemm, difference(builder, gemm, loop.extent, loop.size))
        return builder.insert(arith.MinSIOp(variable, latest)).result, loop.size
    rest = builder.insert(arith.SubiOp(as_index(gemm, loop.extent), variable)).result
    return variable, builder.insert(arith.MinSIOp(as_index(gemm, segment.step), rest)).result


def _cut_for_unit(
    builder: Builder, gemm: GemmOp, loop: LoopPlan, variable: SSAValue
) -> tuple[Extent, Extent]:
    """Offset and size of a tile at `variable`, of size 0 where that lies past the extent."""
    if loop.is_single:
        return 0, loop.extent
    if loop.divides:
        return variable, loop.size
    extent = as_index(gemm, loop.extent)
    offset = builder.insert(arith.MinSIOp(variable, extent)).result
    rest = builder.insert(arith.SubiOp(extent, offset)).result
    return offset, builder.insert(arith.MinSIOp(as_index(gemm, loop.size), rest)).result


def _window(
    builder: Builder, operand: SSAValue, dimensions: str, cuts: dict[str, tuple[Extent, Extent]]
) -> SSAValue:
    whole = extents(operand)
    names = ["batch", *dimensions][-len(whole) :]
    if not cuts.keys() & set(names):
        return operand
    found = [cuts.get(name, (0, extent)) for name, extent in zip(names, whole, strict=True)]
    offsets, sizes = zip(*found, strict=True)
    batch = "batch" in cuts
    return subview(builder, operand, offsets, sizes, drop_batch=batch)


@dataclass(frozen=True)
class Tile(ModulePass):
    """Tile `loops` by `sizes`; `over` maps them onto cores, the units of a GPU, or a grid."""

    name = "gemmir-tile"

    loops: tuple[str, ...]
    sizes: tuple[int, ...]
    over: str | None = None
    edges: str = "clip"
    least: int | None = None
    per_sm: int | None = None

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        for gemm in require_gemms("tile", op, takes_scales=True, takes_factors=True):
            found = plan(gemm, self.loops, self.sizes, self.edges, self.over, self.least)
            if self.per_sm is not None:
                hold_blocks(gemm, self.per_sm, self.over)
            tile(gemm, found)
