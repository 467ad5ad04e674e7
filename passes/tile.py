"""Cut the loops of a GEMM.

    gemmir.gemm  m x n x k     ->     scf.for %i = 0 to m step tm
                                          scf.for %j = 0 to n step tn
                                              gemmir.gemm  tm x tn x k   (on subviews)

Loops are opened in the order given, around the innermost `gemmir.gemm`, so that a second `tile`
cuts the tiles of the first. Where a size does not divide its extent, `edges=clip` makes the last
tile smaller and `edges=overlap` moves it back inside, so that every tile is full and some elements
are computed twice. Moves no data and changes no layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, builtin
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from gemmir.errors import ScheduleError
from gemmir.ir.attributes import PanelAttr
from gemmir.ir.dialect import CORES, GemmOp, memref_type
from gemmir.ir.index import Extent, as_index, before, both, equals
from gemmir.ir.loops import DIMENSIONS, open_loop, require_gemms
from gemmir.ir.views import extents, subview

EDGES = ("clip", "overlap")


@dataclass(frozen=True, kw_only=True)
class Loop:
    """One loop to open: over which dimension, its extent, and the size of its tiles."""

    dimension: str
    extent: Extent
    size: int
    overlap: bool

    @property
    def divides(self) -> bool:
        """Whether every tile has the same static size."""
        return isinstance(self.extent, int) and (
            self.extent % self.size == 0 or self.size >= self.extent
        )

    @property
    def is_single(self) -> bool:
        """Whether one tile holds the whole extent."""
        return isinstance(self.extent, int) and self.size >= self.extent


@dataclass(frozen=True, kw_only=True)
class TilePlan:
    """What will be built, decided from the op alone."""

    loops: tuple[Loop, ...]
    over: str | None


def plan(
    gemm: GemmOp, loops: Sequence[str], sizes: Sequence[int], edges: str, over: str | None
) -> TilePlan:
    """Check `loops` and `sizes` against `gemm`.

    Raises `ScheduleError` (GEM0320 to GEM0326) naming the numbers and the nearest legal choice.
    """
    found = _extents_by_dimension(gemm)
    _check_names(found, loops, sizes, edges, over)
    made = tuple(
        Loop(dimension=d, extent=found[d], size=s, overlap=edges == "overlap")
        for d, s in zip(loops, sizes, strict=True)
    )
    for loop in made:
        _check_loop(gemm, loop, made)
    return TilePlan(loops=made, over=over)


def _extents_by_dimension(gemm: GemmOp) -> dict[str, Extent]:
    a, c = extents(gemm.a), extents(gemm.c)
    found: dict[str, Extent] = {"m": c[-2], "n": c[-1], "k": a[-1]}
    if len(c) == 3:
        found["batch"] = c[0]
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
            known = ", ".join(d for d in DIMENSIONS if d in found)
            raise ScheduleError(
                "GEM0321",
                f"tile: loops={','.join(loops)} cannot name {name!r} here",
                f"name each of {known} at most once",
            )
    if edges not in EDGES:
        raise ScheduleError("GEM0322", f"tile: edges={edges!r}", f"use {' or '.join(EDGES)}")
    if over not in (None, CORES):
        raise ScheduleError("GEM0323", f"tile: over={over!r} is no unit of a CPU", f"use {CORES}")
    if over is not None and (len(loops) != 1 or loops[0] == "k"):
        raise ScheduleError(
            "GEM0324",
            f"tile: loops={','.join(loops)} cannot run over {over}",
            "give one of m, n or batch; k carries the sum",
        )
    if "batch" in found and loops[0] != "batch":
        raise ScheduleError(
            "GEM0325", f"tile: loops={','.join(loops)} of a batch", "open batch first, by 1"
        )


def _check_loop(gemm: GemmOp, loop: Loop, made: Sequence[Loop]) -> None:
    name, size = loop.dimension, loop.size
    if size < 1 or (name == "batch" and size != 1):
        raise ScheduleError("GEM0326", f"tile: {name} cannot be cut by {size}", "use 1")
    if name == "k" and loop.extent == 0:
        raise ScheduleError("GEM0326", "tile: k=0 has no slices", "leave k out")
    if not loop.overlap or loop.divides:
        return
    if name == "k" or not isinstance(loop.extent, int):
        raise ScheduleError(
            "GEM0327",
            f"tile: {name} cannot overlap; its tiles add or have no fixed size",
            "use clip",
        )
    if _is_packed_along(gemm, name):
        raise ScheduleError(
            "GEM0327",
            f"tile: {name}={loop.extent} by {size} would begin tiles inside packed panels",
            "use clip: panels are zero-filled to their full width",
        )
    if gemm.beta.value.data != 0 or gemm.first is not None or any(o.dimension == "k" for o in made):
        raise ScheduleError(
            "GEM0327",
            f"tile: {name}={loop.extent} by {size} would add to overlapping elements twice",
            "use clip, or beta=0 and no loop over k outside",
        )


def tile(gemm: GemmOp, plan: TilePlan) -> None:
    """Open the loops of `plan` around `gemm` and let it work on the tiles."""
    builder = before(gemm)
    zero = as_index(gemm, 0)
    variables: list[SSAValue] = []
    for loop in plan.loops:
        bounds = (zero, as_index(gemm, loop.extent), as_index(gemm, loop.size))
        variable, builder = open_loop(builder, loop.dimension, bounds, plan.over)
        variable.name_hint = {"m": "i", "n": "j", "k": "p"}.get(loop.dimension, loop.dimension)
        variables.append(variable)
    first = [] if gemm.first is None else [gemm.first]
    cuts: dict[str, tuple[Extent, Extent]] = {}
    for loop, variable in zip(plan.loops, variables, strict=True):
        cuts[loop.dimension] = _cut(builder, gemm, loop, variable)
        if loop.dimension == "k" and not loop.is_single and gemm.beta.value.data != 1:
            first.append(equals(builder, gemm, variable, 0))
    a, b, c = (
        _window(builder, operand, dimensions, cuts)
        for operand, dimensions in ((gemm.a, "mk"), (gemm.b, "kn"), (gemm.c, "mn"))
    )
    alpha, beta = gemm.alpha.value.data, gemm.beta.value.data
    builder.insert(GemmOp(a, b, c, alpha=alpha, beta=beta, first=both(builder, first)))
    gemm.detach()
    gemm.erase()


def _cut(builder: Builder, gemm: GemmOp, loop: Loop, variable: SSAValue) -> tuple[Extent, Extent]:
    """Offset and size of a tile at `variable`."""
    if loop.is_single:
        return 0, loop.extent
    if loop.divides:
        return variable, loop.size
    if loop.overlap and isinstance(loop.extent, int):
        latest = as_index(gemm, loop.extent - loop.size)
        return builder.insert(arith.MinSIOp(variable, latest)).result, loop.size
    rest = builder.insert(arith.SubiOp(as_index(gemm, loop.extent), variable)).result
    return variable, builder.insert(arith.MinSIOp(as_index(gemm, loop.size), rest)).result


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


def _is_packed_along(gemm: GemmOp, dimension: str) -> bool:
    """Whether the operand with `dimension` lies in panels along it."""
    operand, dim = (gemm.a, 0) if dimension == "m" else (gemm.b, 1)
    layout = memref_type(operand).layout
    return isinstance(layout, PanelAttr) and layout.dim.data == dim


@dataclass(frozen=True)
class Tile(ModulePass):
    """Tile `loops` by `sizes`; `over` maps the loop onto the cores."""

    name = "gemmir-tile"

    loops: tuple[str, ...]
    sizes: tuple[int, ...]
    over: str | None = None
    edges: str = "clip"

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        for gemm in require_gemms("tile", op):
            tile(gemm, plan(gemm, self.loops, self.sizes, self.edges, self.over))
