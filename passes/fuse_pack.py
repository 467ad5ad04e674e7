"""Fill panels while the first tiles that read them are multiplied.

    gemmir.pack %b into %panels          ->   for %j:                       (the first tile of m)
    for %i = 0 to m step 8:                       gemmir.pack %b[%j] into %panels[%j]
        for %j:                                   gemmir.gemm %a[0], %panels[%j], %c[0, %j]
            gemmir.gemm %a[%i], %panels[%j]   for %i = 8 to m step 8:
                                                  for %j:
                                                      gemmir.gemm %a[%i], %panels[%j], %c[%i, %j]

A copy of its own waits for loads and stores while the multipliers rest; beside multiply-adds that
take as long anyway it costs almost nothing. The first iteration of the loop over m, or over n for
the panels of A, is cut off, and each `gemmir.gemm` in it first copies what it reads: of a slice of
k where loops over k are inside, so that a row that has just been loaded is multiplied from
registers. Where a call tells whether there is one, it is in an `scf.if`, whose other side copies as
before. Changes no number and no order. Put it behind everything that tiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, builtin, memref, scf
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass

from gemmir.errors import ScheduleError
from gemmir.ir.attributes import PanelAttr
from gemmir.ir.dialect import GemmOp, PackOp, enclosing_ops, memref_type
from gemmir.ir.index import as_index, before, constant_of, upper_bound
from gemmir.ir.loops import Loop, conditional, dimension_of, require_gemms
from gemmir.ir.views import chain, cut_from, extents, follow, subview, total_offsets

OTHER: Final = {"a": "n", "b": "m"}
"""The dimension whose tiles all read the panels of an operand."""

USERS: Final = (GemmOp, PackOp, memref.SubviewOp, memref.DeallocOp)
"""What uses panels that are a copy and nothing else."""


@dataclass(frozen=True, kw_only=True)
class FusePackPlan:
    """A copy, and the loops whose first iterations make it, each of its own panels."""

    pack: PackOp
    operand: str
    loops: tuple[scf.ForOp, ...]


def plan(module: builtin.ModuleOp, operand: str) -> list[FusePackPlan]:
    """What fills which panels; `ScheduleError` (GEM1470 to GEM1473) where that cannot be."""
    if operand not in OTHER:
        raise ScheduleError("GEM1470", f"fuse-pack: operand={operand!r}", "use a or b")
    readers: dict[SSAValue, list[GemmOp]] = {}
    for gemm in require_gemms("fuse-pack", module, takes_factors=True):
        readers.setdefault(chain(_read(gemm, operand))[0], []).append(gemm)
    packs = [
        op
        for op in module.walk()
        if isinstance(op, PackOp) and isinstance(memref_type(op.target).layout, PanelAttr)
    ]
    plans = [
        _plan(pack, operand, readers[chain(pack.target)[0]])
        for pack in packs
        if chain(pack.target)[0] in readers
    ]
    if not plans:
        raise ScheduleError(
            "GEM1471",
            f"fuse-pack: no gemmir.gemm reads panels of {operand} that are packed before it",
            f"put promote{{operand={operand} to=l2 layout=panel:WIDTH}} before it, once",
        )
    return plans


def _read(gemm: GemmOp, operand: str) -> SSAValue:
    return gemm.a if operand == "a" else gemm.b


def _plan(pack: PackOp, operand: str, readers: Sequence[GemmOp]) -> FusePackPlan:
    layout = memref_type(pack.target).layout
    assert isinstance(layout, PanelAttr)
    users = [use.operation for view in _views(chain(pack.target)[0]) for use in view.uses]
    is_copy = pack.scales is None and layout.depth.data == 1
    if not is_copy or not all(isinstance(op, USERS) for op in users):
        raise ScheduleError(
            "GEM1472",
            f"fuse-pack: the panels of {operand} are no mere copy: they are scaled, hold several "
            "neighbours along k, or are summed up",
            "leave fuse-pack out",
        )
    along, width = "mn"[layout.dim.data], layout.width.data
    for gemm in readers:
        value = _read(gemm, operand)
        size = upper_bound(extents(value)[layout.dim.data])
        if size is None or size > width:
            raise ScheduleError(
                "GEM1472",
                f"fuse-pack: a tile has {size or 'an unknown number'} of {along}, and panels of "
                f"{operand} have {width}",
                f"put tile{{loops={along} sizes={width}}} before it",
            )
    loops = tuple(_first_loops(pack, readers, OTHER[operand]))
    if len(loops) > 1 and None in [_runs(loop) for loop in loops]:
        raise ScheduleError(
            "GEM1473",
            f"fuse-pack: {len(loops)} loops over {OTHER[operand]} fill panels of their own each, "
            "and whether they run is known in a call only",
            f"tile {OTHER[operand]} before {along}, so that one of them fills all",
        )
    return FusePackPlan(pack=pack, operand=operand, loops=loops)


def _views(value: SSAValue) -> Iterator[SSAValue]:
    """`value` and everything that is cut from it."""
    yield value
    for use in value.uses:
        if isinstance(use.operation, memref.SubviewOp):
            yield from _views(use.operation.result)


def _first_loops(pack: PackOp, readers: Sequence[GemmOp], dimension: str) -> Iterator[scf.ForOp]:
    """The loops over `dimension` that read panels first: of those in one block the first one."""
    seen: set[Block | None] = set()
    for gemm in readers:
        inside = takewhile(lambda op: op is not pack.parent_op(), enclosing_ops(gemm))
        loops = [op for op in inside if isinstance(op, Loop) and dimension_of(op) == dimension]
        if len(loops) != 1:
            raise ScheduleError(
                "GEM1473",
                f"fuse-pack: {len(loops)} loops over {dimension} go through the panels of a copy",
                f"tile {dimension} once behind promote, and before fuse-pack",
            )
        (loop,) = loops
        if not isinstance(loop, scf.ForOp) or _runs(loop) is False:
            raise ScheduleError(
                "GEM1473",
                f"fuse-pack: the loop over {dimension} is dealt to threads, or has no iteration",
                "leave fuse-pack out",
            )
        if loop.parent not in seen:
            seen.add(loop.parent)
            yield loop


def _runs(loop: scf.ForOp) -> bool | None:
    """Whether `loop` has an iteration; None where a call tells."""
    begin, end = constant_of(loop.lb), constant_of(loop.ub)
    return None if begin is None or end is None else begin < end


def fuse(plan: FusePackPlan) -> None:
    """Cut off the first iteration of each loop of `plan`, and let it make the copy."""
    first = [op for loop in plan.loops for op in _first_iteration(loop, plan.pack)]
    for gemm in [inner for op in first for inner in op.walk() if isinstance(inner, GemmOp)]:
        views = cut_from(_read(gemm, plan.operand), plan.pack.target)
        if views is not None:
            _copy_before(gemm, plan, views)
    plan.pack.detach()
    plan.pack.erase()


def _first_iteration(loop: scf.ForOp, pack: PackOp) -> list[Operation]:
    """Put the first iteration before `loop`, which begins with the second one.

    Where there may be none, `pack` is what is done instead.
    """
    ops = [op for op in loop.body.block.ops if not isinstance(op, scf.YieldOp)]
    copies: list[Operation] = []

    def iterate(builder: Builder) -> None:
        made: dict[SSAValue, SSAValue] = {loop.body.block.args[0]: loop.lb}
        copies.extend(builder.insert(op.clone(made)) for op in ops)

    builder = before(loop)
    begin, end, step = (constant_of(v) for v in (loop.lb, loop.ub, loop.step))
    if begin is None or end is None or step is None:
        runs = builder.insert(arith.CmpiOp(loop.lb, loop.ub, "slt")).result
        builder.insert(conditional(runs, iterate, lambda none: none.insert(pack.clone())))
        loop.operands[0] = builder.insert(arith.AddiOp(loop.lb, loop.step)).result
        return copies
    iterate(builder)
    if begin + step < end:
        loop.operands[0] = as_index(loop, begin + step)
    else:
        loop.detach()
        loop.erase()
    return copies


def _copy_before(gemm: GemmOp, plan: FusePackPlan, views: Sequence[memref.SubviewOp]) -> None:
    """Copy the tile that `views` cut right before `gemm` reads it, filled up to its full width."""
    builder = before(gemm)
    source = follow(builder, plan.pack.source, views)
    value = _read(gemm, plan.operand)
    buffer, whole = chain(value)
    layout = memref_type(buffer).layout
    assert isinstance(layout, PanelAttr)
    sizes = list(extents(value))
    width = upper_bound(sizes[layout.dim.data])
    assert width is not None
    sizes[layout.dim.data] = width
    target = subview(builder, buffer, total_offsets(builder, whole), sizes, one_panel=True)
    builder.insert(PackOp(source, target))


@dataclass(frozen=True)
class FusePack(ModulePass):
    """Fill the panels of `operand` in the first iteration of the loop whose tiles all read them."""

    name = "gemmir-fuse-pack"

    operand: str

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        for found in plan(op, self.operand):
            fuse(found)
