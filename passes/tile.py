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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, builtin, scf
from xdsl.dialects.builtin import IndexType, IntegerAttr, IntegerType, i64
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from gemmir.errors import ScheduleError
from gemmir.ir.attributes import PanelAttr, Space, SpaceAttr
from gemmir.ir.dialect import (
    BLOCKS,
    BLOCKS_PER_SM,
    CLUSTERS,
    CORES,
    GRID,
    INSIDE_BLOCK,
    MAPPINGS,
    THREADS,
    EpilogueOp,
    ForallOp,
    GemmOp,
    enclosing_ops,
    memref_type,
    strides_of,
)
from gemmir.ir.groups import group_loop, products_of, spread_rows
from gemmir.ir.index import (
    Extent,
    as_index,
    before,
    both,
    enclosing_function,
    equals,
    lower_bound,
    round_down,
    upper_bound,
)
from gemmir.ir.loops import (
    DIMENSIONS,
    GROUP,
    TILES,
    Loop,
    conditional,
    dimension_of,
    open_loop,
    require_gemms,
)
from gemmir.ir.pallas import CallOp
from gemmir.ir.scales import block_sizes, scales_of_tile
from gemmir.ir.views import chain, extents, subview
from gemmir.ir.visits import insert_visits, open_visits

OUTERMOST = (CLUSTERS, BLOCKS, GRID)
"""Units that the outermost loops run over, with all else inside them."""

COUNTED = (*OUTERMOST, *INSIDE_BLOCK)
"""Units of which there are as many as the largest extent needs."""


DESCENDING = ("halve", "exact")
"""What remains is cut by ever smaller tiles: by powers of two, or by every size below."""

EDGES = ("clip", "overlap", "peel", "halve", "even", "exact")
VARIABLES = {"batch": "s", "m": "i", "n": "j", "k": "p"}
"""What the induction variables are called in the text."""


@dataclass(frozen=True, kw_only=True)
class LoopPlan:
    """One loop to open: over which dimension, its extent, and the size of its tiles."""

    dimension: str
    extent: Extent
    size: int
    edges: str
    least: int = 1

    @property
    def divides(self) -> bool:
        """Whether every tile has the same static size."""
        return isinstance(self.extent, int) and (
            self.extent % self.size == 0 or self.size >= self.extent
        )

    @property
    def shown(self) -> str:
        """The dimension and its extent, where that is known."""
        return f"{self.dimension}={self.extent}" if isinstance(self.extent, int) else self.dimension

    @property
    def is_single(self) -> bool:
        """Whether one tile holds the whole extent."""
        return isinstance(self.extent, int) and 0 < self.extent <= self.size


@dataclass(frozen=True, kw_only=True)
class TilePlan:
    """What will be built, decided from the op alone."""

    loops: tuple[LoopPlan, ...]
    over: str | None


def plan(
    gemm: GemmOp,
    loops: Sequence[str],
    sizes: Sequence[int],
    edges: str,
    over: str | None,
    least: int | None = None,
) -> TilePlan:
    """Check `loops` and `sizes` against `gemm`.

    Raises `ScheduleError` (GEM0320 to GEM0329, GEM1384) naming the numbers and the nearest legal
    choice.
    """
    if memref_type(gemm.c).memory_space == SpaceAttr(Space.REGISTERS) and tuple(loops) != ("k",):
        raise ScheduleError(
            "GEM0328",
            f"tile: loops={','.join(loops)} of a gemmir.gemm whose C is in registers",
            "put tile before promote{operand=c to=registers}",
        )
    found = _extents_by_dimension(gemm)
    _check_names(found, loops, sizes, edges, over)
    if least is not None:
        _check_least(sizes, edges, least)
    if GROUP in loops and over == GRID and _is_masked(gemm):
        raise ScheduleError(
            "GEM1292",
            "tile: over=grid of products with room for rows of their own",
            "give the rows of all products one after another, with offsets",
        )
    made = tuple(
        LoopPlan(dimension=d, extent=found[d], size=s, edges=edges, least=least or 1)
        for d, s in zip(loops, sizes, strict=True)
    )
    for loop in made:
        _check_loop(gemm, loop, made, over)
    if over is not None and any(isinstance(o, CallOp) for o in enclosing_ops(gemm)):
        raise ScheduleError(
            "GEM0319",
            f"tile: over={over} inside a step of a grid",
            "leave over out",
        )
    if over is not None and over != CORES:
        _check_unit(gemm, loops, over, edges)
    return TilePlan(loops=made, over=over)


def _is_masked(gemm: GemmOp) -> bool:
    """Whether each of several products has a matrix of rows of its own."""
    return len(memref_type(chain(gemm.c)[0]).get_shape()) == 3


def _extents_by_dimension(gemm: GemmOp) -> dict[str, Extent]:
    a, c = extents(gemm.a), extents(gemm.c)
    found: dict[str, Extent] = {"m": c[-2], "n": c[-1], "k": a[-1]}
    if len(c) == 3:
        found["batch"] = c[0]
    loop = group_loop(gemm)
    if loop is not None:
        found[GROUP] = products_of(loop)
    return found


def _check_names(
    found: dict[str, Extent],
    loops: Sequence[str],
    sizes: Sequence[int],
    edges: str,
    over: str | None,
) -> None:
    if len(loops) != len(sizes) or not loops:
        raise ScheduleError(
            "GEM0320", f"tile: {len(loops)} loops and {len(sizes)} sizes", "give one size a loop"
        )
    for name in loops:
        if name not in found or loops.count(name) > 1:
            known = ", ".join(d for d in (GROUP, *DIMENSIONS) if d in found)
            raise ScheduleError(
                "GEM0321",
                f"tile: loops={','.join(loops)} cannot name {name!r} here",
                f"name each of {known} at most once",
            )
    if edges not in EDGES:
        raise ScheduleError("GEM0322", f"tile: edges={edges!r}", f"use {' or '.join(EDGES)}")
    if over not in (None, *MAPPINGS):
        raise ScheduleError(
            "GEM0323", f"tile: over={over!r} is no unit", f"use one of {', '.join(MAPPINGS)}"
        )
    if over is not None and ("k" in loops or (over == CORES and len(loops) != 1)):
        raise ScheduleError(
            "GEM0324",
            f"tile: loops={','.join(loops)} cannot run over {over}",
            ("give one of" if over == CORES else "use") + " m, n or batch; k carries the sum",
        )
    if GROUP in loops and over == GRID:
        _check_visits(loops)
    elif GROUP in loops and (tuple(loops[:2]) != (GROUP, "m") or over != BLOCKS):
        raise ScheduleError(
            "GEM0396",
            f"tile: loops={','.join(loops)} over {over} cannot number the rows of all products",
            "use loops=group,m or group,m,n over=blocks, or loops=n,group,m over=grid",
        )
    if "batch" in found and loops[0] != "batch":
        raise ScheduleError(
            "GEM0325", f"tile: loops={','.join(loops)} of a batch", "open batch first, by 1"
        )


def _check_least(sizes: Sequence[int], edges: str, least: int) -> None:
    """What halving comes down to is a power of two that is smaller than a tile."""
    below = [1 << ((size - 1).bit_length() - 1) for size in sizes if size > 1]
    most = min(below, default=1)
    if edges == "halve" and 1 <= least <= most and least & (least - 1) == 0:
        return
    raise ScheduleError(
        "GEM1361",
        f"tile: least={least} with edges={edges} and sizes={','.join(map(str, sizes))}",
        f"it goes with edges=halve, and is a power of two of {most} at most",
    )


def _check_visits(loops: Sequence[str]) -> None:
    """A block of C that is visited for several products stays in VMEM from one to the next."""
    if tuple(loops) not in ((GROUP, "m"), ("n", GROUP, "m")):
        raise ScheduleError(
            "GEM0386",
            f"tile: loops={','.join(loops)} over grid, and visits of one tile of rows must follow "
            "one another",
            "use loops=n,group,m or group,m",
        )


def _check_unit(gemm: GemmOp, names: Sequence[str], over: str, edges: str) -> None:
    """Loops over blocks are the outermost, and what is inside a block is the same in all blocks."""
    cut = group_loop(gemm) if GROUP in names else None
    loops = [o for o in enclosing_ops(gemm) if isinstance(o, Loop) and o is not cut]
    around = [o.over.data if isinstance(o, ForallOp) else "" for o in loops if not _is_taken(o)]
    allowed = {over, CLUSTERS} if over == BLOCKS else {over}
    if over in OUTERMOST and (set(around) - allowed or len(around) < len(loops)):
        raise ScheduleError(
            "GEM0319",
            f"tile: over={over} inside another loop",
            _first_tile(gemm, loops),
        )
    if over in INSIDE_BLOCK and (BLOCKS not in around or "" in around or THREADS in around):
        raise ScheduleError(
            "GEM0319",
            f"tile: over={over} stands inside {', '.join(o or 'a loop' for o in around) or 'none'}",
            "tile over blocks, then over warpgroups or warps if at all, then over threads, and "
            "then other loops",
        )
    if edges != "clip":
        raise ScheduleError(
            "GEM0327", f"tile: over={over} cannot {edges}: every unit runs once", "use edges=clip"
        )


def _first_tile(gemm: GemmOp, loops: Sequence[Loop]) -> str:
    """How a tile comes to be the first."""
    if any(_is_taken(loop) for loop in loops):
        return "put persist behind it"
    return "make it the first tile" if group_loop(gemm) is None else "use loops=group,m,n"


def _is_taken(loop: Loop) -> bool:
    """Whether this is the loop in which one block takes several tiles, made by `persist`."""
    return isinstance(loop, scf.ForOp) and dimension_of(loop) == TILES


def _check_loop(gemm: GemmOp, loop: LoopPlan, made: Sequence[LoopPlan], over: str | None) -> None:
    name, size = loop.dimension, loop.size
    is_grouped = any(o.dimension == GROUP for o in made)
    if over in (GRID, CLUSTERS) and not is_grouped and not isinstance(loop.extent, int):
        raise ScheduleError(
            "GEM0319",
            f"tile: over={over} of {name}, which is cut already",
            f"tile it once over={over}",
        )
    if size < 1 or (name in ("batch", GROUP) and size != 1):
        raise ScheduleError("GEM0326", f"tile: {name} cannot be cut by {size}", "use 1")
    if name == "k" and loop.extent == 0:
        raise ScheduleError("GEM0326", "tile: k=0 has no slices", "leave k out")
    if not loop.is_single:
        _check_panels(gemm, loop)
        _check_scales(gemm, loop)
        _check_bytes(gemm, loop)
    if loop.edges == "clip" or loop.divides:
        return
    if loop.edges == "even":
        _check_even(gemm, loop, over)
        return
    if name == "k" or (over is not None and not isinstance(loop.extent, int)):
        reason = "carries the sum" if name == "k" else "has no fixed size here"
        raise ScheduleError(
            "GEM0327", f"tile: {name} {reason} and cannot {loop.edges}", "use edges=clip"
        )
    if loop.edges == "overlap" and lower_bound(loop.extent) < size:
        raise ScheduleError(
            "GEM1354",
            f"tile: {name} may be less than {size} at run time and cannot overlap",
            f"use edges=peel or halve, or version{{loop={name} most={size} …}} before it",
        )
    if loop.edges in DESCENDING and _panel_width(gemm, name) is not None:
        raise ScheduleError(
            "GEM1354",
            f"tile: {name} in packed panels with edges={loop.edges}: tiles are whole panels",
            "use edges=clip: panels are zero-filled to their full width",
        )
    if loop.edges == "overlap":
        _check_overlap(gemm, loop, made, over)


def _check_even(gemm: GemmOp, loop: LoopPlan, over: str | None) -> None:
    """Tiles of two sizes begin anywhere, and there are two loops of them."""
    name, is_byte = loop.dimension, memref_type(gemm.b).element_type != IntegerType(4)
    reasons = {
        "k carries the sum": name == "k",
        f"over={over} there would be one set of tiles after another": over is not None,
        "tiles would begin inside packed panels": _panel_width(gemm, name) is not None,
        "tiles would cut blocks that have one scale": block_sizes(gemm).get(name, 1) > 1,
        "tiles would cut bytes of B, which have two elements": name == "n" and not is_byte,
    }
    reason = next((text for text, is_so in reasons.items() if is_so), None)
    if reason is not None:
        raise ScheduleError(
            "GEM1384",
            f"tile: {loop.shown} by {loop.size} cannot be even: {reason}",
            "use edges=clip" if name == "k" or over is not None else "use edges=clip or peel",
        )


def _check_overlap(
    gemm: GemmOp, loop: LoopPlan, made: Sequence[LoopPlan], over: str | None
) -> None:
    """Elements that two tiles share must be computed whole both times, not added to twice."""
    size = loop.size
    if over is not None:
        raise ScheduleError(
            "GEM0327",
            f"tile: {loop.shown} by {size} would let two of the {over} write the same elements",
            "use clip or peel",
        )
    if _panel_width(gemm, loop.dimension) is not None:
        raise ScheduleError(
            "GEM0327",
            f"tile: {loop.shown} by {size} would begin tiles inside packed panels",
            "use clip: panels are zero-filled to their full width",
        )
    adds = gemm.beta.value.data != 0 or gemm.first is not None
    if adds or any(o.dimension == "k" for o in made):
        raise ScheduleError(
            "GEM0327",
            f"tile: {loop.shown} by {size} would add to overlapping elements twice",
            "use clip or peel, or beta=0 and no loop over k outside",
        )


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Part of a loop: its bounds, and the size of its tiles where that is known."""

    begin: Extent
    end: Extent
    step: int
    size: int | None


def _segments(builder: Builder, anchor: GemmOp, loop: LoopPlan) -> tuple[Segment, ...]:
    """The loops to open for one loop of the plan: several where the last tile is peeled off."""
    extent, step = loop.extent, loop.size
    if loop.edges == "even" and not loop.divides:
        if isinstance(extent, int):
            return _even_segments(extent, step)
        return tuple(_even_at_run_time(builder, anchor, extent, step))
    if loop.edges not in ("peel", *DESCENDING) or loop.divides:
        size = step if loop.divides else None
        return (Segment(begin=0, end=_at_least_once(builder, anchor, loop), step=step, size=size),)
    even = round_down(builder, anchor, extent, step)
    found = [Segment(begin=0, end=even, step=step, size=step)]
    if loop.edges == "peel":
        rest = extent - even if isinstance(extent, int) and isinstance(even, int) else None
        return (*found, Segment(begin=even, end=extent, step=step, size=rest))
    while step > loop.least:
        step = step - 1 if loop.edges == "exact" else 1 << ((step - 1).bit_length() - 1)
        begin = found[-1].end
        rest = _difference(builder, anchor, extent, begin)
        end = _sum(builder, anchor, begin, round_down(builder, anchor, rest, step))
        if begin != end:
            found.append(Segment(begin=begin, end=end, step=step, size=step))
    begin = found[-1].end
    if step > 1 and begin != extent:
        rest = extent - begin if isinstance(extent, int) and isinstance(begin, int) else None
        found.append(Segment(begin=begin, end=extent, step=step, size=rest))
    return tuple(found)


def _even_segments(extent: int, most: int) -> tuple[Segment, ...]:
    """As few tiles as possible of `most` elements or fewer; the first have one more than others."""
    least, larger = divmod(extent, -(-extent // most))
    end = larger * (least + 1)
    segments = (
        Segment(begin=0, end=end, step=least + 1, size=least + 1),
        Segment(begin=end, end=extent, step=least, size=least),
    )
    return segments if larger else segments[1:]


def _even_at_run_time(
    builder: Builder, anchor: GemmOp, extent: SSAValue, most: int
) -> Iterator[Segment]:
    """A loop for each size from `most` down to 1, of which at most two have any iterations.

    Of `count` tiles extent - (size - 1) count have `size` elements or more, but 0 at least and
    `count` at most.
    """
    wide = builder.insert(arith.AddiOp(extent, as_index(anchor, most - 1))).result
    count = builder.insert(arith.DivUIOp(wide, as_index(anchor, most))).result
    begin: Extent = 0
    larger: Extent = 0
    for size in range(most, 0, -1):
        below = builder.insert(arith.MuliOp(count, as_index(anchor, size - 1))).result
        over = builder.insert(arith.SubiOp(extent, below)).result
        some = builder.insert(arith.MaxSIOp(over, as_index(anchor, 0))).result
        tiles = builder.insert(arith.MinSIOp(some, count)).result
        own = as_index(anchor, _difference(builder, anchor, tiles, larger))
        length = builder.insert(arith.MuliOp(own, as_index(anchor, size))).result
        end = as_index(anchor, _sum(builder, anchor, begin, length))
        yield Segment(begin=begin, end=end, step=size, size=size)
        begin, larger = end, tiles


def _at_least_once(builder: Builder, anchor: GemmOp, loop: LoopPlan) -> Extent:
    """Where a loop ends: over a k that turns out to be 0 in a call there is one empty slice."""
    if loop.dimension != "k" or lower_bound(loop.extent) > 0 or isinstance(loop.extent, int):
        return loop.extent
    if not any(isinstance(x.type, IndexType) for x in enclosing_function(anchor).args):
        return loop.extent
    return builder.insert(arith.MaxSIOp(loop.extent, as_index(anchor, 1))).result


def _difference(builder: Builder, anchor: GemmOp, x: Extent, y: Extent) -> Extent:
    if isinstance(x, int) and isinstance(y, int):
        return x - y
    return builder.insert(arith.SubiOp(as_index(anchor, x), as_index(anchor, y))).result


def _sum(builder: Builder, anchor: GemmOp, x: Extent, y: Extent) -> Extent:
    if isinstance(x, int) and isinstance(y, int):
        return x + y
    return builder.insert(arith.AddiOp(as_index(anchor, x), as_index(anchor, y))).result


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
    size, masked = plan.loops[1].size, _is_masked(gemm)
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
        (segment,) = _segments(builder, gemm, loop)
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
    for segment in _segments(builder, gemm, loop):
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
        latest = as_index(gemm, _difference(builder, gemm, loop.extent, loop.size))
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


def _check_scales(gemm: GemmOp, loop: LoopPlan) -> None:
    """A tile begins where a block of scales does, or lies inside of one."""
    block, size = block_sizes(gemm).get(loop.dimension, 1), loop.size
    moves = loop.edges == "overlap" and not loop.divides and block > 1
    if moves or (size % block and block % size):
        near = max(size // block, 1) * block
        raise ScheduleError(
            "GEM1287",
            f"tile: {loop.dimension} by {size}{' with edges=overlap' if moves else ''} cuts blocks "
            f"of {block} that have one scale",
            f"use {near}" + (" and edges=clip or peel" if moves else ""),
        )


def _check_bytes(gemm: GemmOp, loop: LoopPlan) -> None:
    """A tile of a B that has two elements a byte begins where a byte does."""
    of = memref_type(gemm.b)
    if of.element_type != IntegerType(4) or loop.size % 2 == 0:
        return
    if loop.dimension == ("k" if strides_of(of)[-2] == 1 else "n"):
        raise ScheduleError(
            "GEM1338",
            f"tile: {loop.dimension} by {loop.size} cuts bytes of B, which have two elements",
            f"use {loop.size + 1}",
        )


def _check_panels(gemm: GemmOp, loop: LoopPlan) -> None:
    depth = max(_panel_depth(v) for v in (gemm.a, gemm.b)) if loop.dimension == "k" else 1
    if loop.size % depth:
        raise ScheduleError(
            "GEM1324",
            f"tile: k by {loop.size} would begin slices inside groups of {depth} in packed panels",
            f"tile k by {max(loop.size // depth, 1) * depth}",
        )
    width = _panel_width(gemm, loop.dimension)
    if width is not None and loop.size % width:
        raise ScheduleError(
            "GEM0329",
            f"tile: {loop.dimension} by {loop.size} would begin tiles inside panels of {width}",
            f"tile {loop.dimension} by {width}",
        )


def _panel_depth(value: SSAValue) -> int:
    """How many neighbours along k are adjacent in panels."""
    layout = memref_type(value).layout
    return layout.depth.data if isinstance(layout, PanelAttr) else 1


def _panel_width(gemm: GemmOp, dimension: str) -> int | None:
    """The width of the panels in which the operand with m or n lies, None where it does not."""
    operand = {"m": gemm.a, "n": gemm.b}.get(dimension)
    layout = None if operand is None else memref_type(operand).layout
    return layout.width.data if isinstance(layout, PanelAttr) else None


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
