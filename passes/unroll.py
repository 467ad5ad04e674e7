"""Repeat the body of the innermost loops over a dimension.

    scf.for %k = 0 to kc step 1     ->     scf.for %k = 0 to kc / 4 * 4 step 4
        body(%k)                               body(%k) … body(%k + 3)
                                           scf.for %k = kc / 4 * 4 to kc step 1
                                               body(%k)

The second loop is left out where it would not run. Sums keep their order: each accumulator is
carried through the copies one after another.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, builtin, scf
from xdsl.ir import Block, Region, SSAValue
from xdsl.passes import ModulePass

from gemmir.errors import ScheduleError
from gemmir.ir.amx import TileProductOp, tile_type
from gemmir.ir.dialect import OuterProductOp, PairProductOp
from gemmir.ir.index import INDEX, as_index, at_end, before, constant_of, round_down
from gemmir.ir.loops import DIMENSION, dimension_of
from gemmir.ir.nvgpu import MmaSyncOp, matrix_shape


def plan(module: builtin.ModuleOp, loop: str, factor: int) -> list[scf.ForOp]:
    """The loops to unroll; `ScheduleError` (GEM0380 to GEM0382) where it would change nothing."""
    if factor < 2:
        raise ScheduleError("GEM0380", f"unroll: factor={factor} repeats nothing", "use 2 or more")
    found = [op for op in module.walk() if isinstance(op, scf.ForOp) and _is_innermost(op, loop)]
    if not found:
        raise ScheduleError(
            "GEM0381",
            f"unroll: no innermost loop over {loop} carries a sum",
            "unroll loop=k after vectorize",
        )
    if any(constant_of(op.step) != _step(op) for op in found):
        raise ScheduleError(
            "GEM0382", f"unroll: the loop over {loop} is unrolled already", "give one factor"
        )
    extents = [constant_of(op.ub) for op in found]
    trips = [-(-e // _step(op)) for e, op in zip(extents, found, strict=True) if e is not None]
    longest = max(trips, default=factor)
    if None not in extents and longest < factor:
        raise ScheduleError(
            "GEM0380",
            f"unroll: factor={factor} of a loop over {loop} of {longest} iterations "
            "repeats nothing",
            f"use 2 to {longest}" if longest > 1 else "leave unroll out",
        )
    return found


def _is_innermost(op: scf.ForOp, loop: str) -> bool:
    inner = any(isinstance(o, scf.ForOp | scf.IfOp) for o in op.body.block.ops)
    return dimension_of(op) == loop and not inner and bool(op.iter_args)


def _step(loop: scf.ForOp) -> int:
    """How much of k one copy of the body takes: that of its product, or 1."""
    kinds = MmaSyncOp | PairProductOp | OuterProductOp
    products = [op for op in loop.body.block.ops if isinstance(op, kinds)]
    tiles = [op for op in loop.body.block.ops if isinstance(op, TileProductOp)]
    if tiles:
        return tile_type(tiles[0].lhs).shape[1]
    return matrix_shape(products[0].lhs)[1] if products else 1


def unroll(loop: scf.ForOp, factor: int) -> None:
    """Replace `loop` from 0 by a loop of `factor` times its step and one for what remains."""
    builder = before(loop)
    step = _step(loop)
    extent = constant_of(loop.ub)
    end = round_down(builder, loop, loop.ub if extent is None else extent, factor * step)
    sums: list[SSAValue] = list(loop.iter_args)
    if end != 0:
        bounds = (loop.lb, as_index(loop, end), as_index(loop, factor * step))
        sums = _copies(builder, loop, bounds, sums, factor)
    if extent is None or end != extent:
        sums = _copies(builder, loop, (as_index(loop, end), loop.ub, loop.step), sums, 1)
    for old, new in zip(loop.results, sums, strict=True):
        old.replace_all_uses_with(new)
    loop.detach()
    loop.erase()


def _copies(
    builder: Builder,
    loop: scf.ForOp,
    bounds: tuple[SSAValue, SSAValue, SSAValue],
    sums: list[SSAValue],
    factor: int,
) -> list[SSAValue]:
    """A loop over `bounds` with `factor` copies of the body of `loop`; returns its results."""
    body = Block(arg_types=[INDEX, *[v.type for v in sums]])
    inner = at_end(body)
    carried: list[SSAValue] = list(body.args[1:])
    for number in range(factor):
        at: SSAValue = body.args[0]
        if number:
            at = inner.insert(arith.AddiOp(at, as_index(loop, number * _step(loop)))).result
        mapping = dict(zip(loop.body.block.args, [at, *carried], strict=True))
        for op in loop.body.block.ops:
            if isinstance(op, scf.YieldOp):
                carried = [mapping[v] for v in op.operands]
            else:
                inner.insert(op.clone(mapping))
    inner.insert(scf.YieldOp(*carried))
    made = scf.ForOp(*bounds, sums, Region(body))
    made.attributes[DIMENSION] = loop.attributes[DIMENSION]
    return list(builder.insert(made).results)


@dataclass(frozen=True)
class Unroll(ModulePass):
    """Unroll the innermost loops over dimension `loop` by `factor`."""

    name = "gemmir-unroll"

    loop: str
    factor: int

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        for found in plan(op, self.loop, self.factor):
            unroll(found, self.factor)
