"""Run the iterations of a loop on several cores, on blocks of a GPU, or on a grid of a TPU.

    scf.for %i = 0 to m step tm { … }     ->     gemmir.forall %i = 0 to m step tm over cores { … }

Packed buffers that only the body uses become private to an iteration. Changes no order of
summation, so results do not depend on the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import builtin, memref, scf
from xdsl.passes import ModulePass

from gemmir.errors import ScheduleError
from gemmir.ir.dialect import BLOCKS, CORES, GRID, ForallOp, YieldOp, enclosing_ops
from gemmir.ir.loops import DIMENSION, Loop, dimension_of, tiles_overlap

UNITS = (CORES, BLOCKS, GRID)


def plan(module: builtin.ModuleOp, loop: str, over: str) -> scf.ForOp:
    """The outermost loop over `loop`; `ScheduleError` (GEM0360 to GEM0364) if it cannot be."""
    if over not in UNITS:
        raise ScheduleError(
            "GEM0360",
            f"parallelize: over={over!r} runs no whole loops",
            f"use {', '.join(UNITS)}",
        )
    if loop == "k":
        raise ScheduleError(
            "GEM0361", "parallelize: k carries the sum from one iteration to the next", "use m or n"
        )
    named = [o for o in module.walk() if isinstance(o, scf.ForOp) and dimension_of(o) is not None]
    found = [o for o in named if dimension_of(o) == loop]
    if not found:
        present = sorted({dimension_of(o) or "" for o in named} - {"k"})
        raise ScheduleError(
            "GEM0362",
            f"parallelize: there is no loop over {loop}",
            f"use {' or '.join(present)}" if present else "tile first",
        )
    _require_place(found[0], over)
    if tiles_overlap(found[0]):
        raise ScheduleError(
            "GEM0364",
            f"parallelize: tiles of {loop} overlap, and two {over} would write the same elements",
            "tile with edges=clip",
        )
    return found[0]


def _require_place(loop: scf.ForOp, over: str) -> None:
    """Cores are dealt one loop; blocks and a grid the outermost ones, with all else inside them."""
    around = [o for o in enclosing_ops(loop) if isinstance(o, Loop)]
    if over == CORES and any(isinstance(o, ForallOp) for o in (*around, *loop.walk())):
        raise ScheduleError("GEM0363", "parallelize: there is a loop over cores already")
    if over != CORES and any(not isinstance(o, ForallOp) or o.over.data != over for o in around):
        raise ScheduleError(
            "GEM0363",
            f"parallelize: over={over} inside another loop",
            f"run the outermost loops over {over}",
        )


def parallelize(loop: scf.ForOp, over: str) -> None:
    """Replace `loop` by a `gemmir.forall` and move its private buffers inside."""
    region = loop.detach_region(loop.body)
    end = region.block.last_op
    assert end is not None
    end.detach()
    end.erase()
    region.block.add_op(YieldOp())
    forall = ForallOp(loop.lb, loop.ub, loop.step, over, region)
    forall.attributes[DIMENSION] = loop.attributes[DIMENSION]
    block = loop.parent_block()
    assert block is not None
    block.insert_op_before(forall, loop)
    loop.detach()
    loop.erase()
    _privatize(forall)


def _privatize(forall: ForallOp) -> None:
    inside = set(forall.walk())
    function = enclosing_ops(forall)[-1]
    for alloc in [o for o in function.walk() if isinstance(o, memref.AllocOp) and o not in inside]:
        users = {use.operation for use in alloc.memref.uses}
        frees = [o for o in users if isinstance(o, memref.DeallocOp)]
        if users - inside - set(frees):
            continue
        body = forall.body.block
        assert body.first_op is not None and body.last_op is not None
        alloc.detach()
        body.insert_op_before(alloc, body.first_op)
        for free in frees:
            free.detach()
            body.insert_op_before(free, body.last_op)


@dataclass(frozen=True)
class Parallelize(ModulePass):
    """Run the outermost loop over dimension `loop` on cores, on blocks of a GPU or on a grid."""

    name = "gemmir-parallelize"

    loop: str
    over: str = CORES

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        parallelize(plan(op, self.loop, self.over), self.over)
