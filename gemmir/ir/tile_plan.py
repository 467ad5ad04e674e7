"""Which loops `tile` opens: decided from the op alone, and refused where they cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects import scf
from xdsl.dialects.builtin import IntegerType
from xdsl.ir import SSAValue

from gemmir.errors import ScheduleError
from gemmir.ir.attributes import PanelAttr, Space, SpaceAttr
from gemmir.ir.dialect import (
    BLOCKS,
    CLUSTERS,
    CORES,
    GRID,
    INSIDE_BLOCK,
    MAPPINGS,
    THREADS,
    ForallOp,
    GemmOp,
    enclosing_ops,
    is_shared,
    memref_type,
    strides_of,
)
from gemmir.ir.groups import group_loop, products_of
from gemmir.ir.index import Extent, lower_bound
from gemmir.ir.loops import DIMENSIONS, GROUP, TILES, Loop, dimension_of
from gemmir.ir.pallas import CallOp
from gemmir.ir.scales import block_sizes
from gemmir.ir.views import chain, extents

OUTERMOST = (CLUSTERS, BLOCKS, GRID)
"""Units that the outermost loops run over, with all else inside them."""

DESCENDING = ("halve", "exact")
"""What remains is cut by ever smaller tiles: by powers of two, or by every size below."""

EDGES = ("clip", "overlap", "peel", "halve", "even", "exact")
"""What becomes of a last tile where its size does not divide the extent."""


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
    if "k" in loops:
        _require_unshared(gemm)
    found = _extents_by_dimension(gemm)
    _check_names(found, loops, sizes, edges, over)
    if least is not None:
        _check_least(sizes, edges, least)
    if GROUP in loops and over == GRID and is_masked(gemm):
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


def is_masked(gemm: GemmOp) -> bool:
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


def _require_unshared(gemm: GemmOp) -> None:
    """What lies in shared memory is one slice of k, read as a whole behind the copy."""
    for name, value in (("a", gemm.a), ("b", gemm.b)):
        if is_shared(value):
            raise ScheduleError(
                "GEM0384",
                f"tile: k, and {name} is in shared memory in slices of it already",
                f"put it before promote{{operand={name} to=shared …}}",
            )


def _require_wide_sum(gemm: GemmOp) -> None:
    """A sum is rounded once: slices of k are not added in a type narrower than the sum."""
    stored = memref_type(gemm.c).element_type
    if stored != gemm.summed:
        raise ScheduleError(
            "GEM1388",
            f"tile: slices of k would be added in {stored}, and round a sum of {gemm.summed} each",
            "put promote{operand=c …} before it, or leave k whole",
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
        if name == "k":
            _require_wide_sum(gemm)
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


def _panel_depth(value: SSAValue) -> int:
    """How many neighbours along k are adjacent in panels."""
    layout = memref_type(value).layout
    return layout.depth.data if isinstance(layout, PanelAttr) else 1


def _panel_width(gemm: GemmOp, dimension: str) -> int | None:
    """The width of the panels in which the operand with m or n lies, None where it does not."""
    operand = {"m": gemm.a, "n": gemm.b}.get(dimension)
    layout = None if operand is None else memref_type(operand).layout
    return layout.width.data if isinstance(layout, PanelAttr) else None
