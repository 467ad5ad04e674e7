"""Move the epilogue of a GEMM to where each tile of C is finished.

    loops: write back %acc to %tile       ->     loops: if last slice of k:
    gemmir.epilogue outs(%c) { f }                   write back f(%acc) to %tile
                                                 else:
                                                     write back %acc to %tile

If C has been promoted to registers its write-back takes the epilogue in, and C is touched once;
otherwise the epilogue follows the innermost `gemmir.gemm` on its tile.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, builtin, memref, scf
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass

from gemmir.errors import ScheduleError
from gemmir.ir.dialect import EpilogueOp, GemmOp, YieldOp, enclosing_ops
from gemmir.ir.index import before, both, enclosing_function
from gemmir.ir.loops import (
    GROUP,
    TILES,
    Loop,
    conditional,
    dimension_of,
    loops_around,
    runs_more_than_once,
)
from gemmir.ir.pallas import CallOp
from gemmir.ir.views import chain, cut_from, follow


@dataclass(frozen=True, kw_only=True)
class FusePlan:
    """The epilogue to move, and the ops that finish a tile of C on a last slice of k."""

    epilogue: EpilogueOp
    sites: tuple[EpilogueOp | GemmOp, ...]


def plan(module: builtin.ModuleOp) -> FusePlan:
    """Find the epilogue on a whole C and the ops that write its tiles.

    Raises `ScheduleError` (GEM0350, GEM0351) where there is no epilogue or nothing to fuse into.
    """
    epilogues = [op for op in module.walk() if isinstance(op, EpilogueOp)]
    whole = [op for op in epilogues if not _is_of_a_tile(op)]
    loose = [op for op in whole if not _has_registers(op)]
    has_call = any(isinstance(op, CallOp) for op in module.walk())
    if has_call and not all(any(isinstance(o, CallOp) for o in enclosing_ops(op)) for op in loose):
        raise ScheduleError(
            "GEM0350",
            "fuse-epilogue: the loops over tiles are the grid of a call already",
            "put fuse-epilogue before pipeline",
        )
    if len(loose) != 1:
        raise ScheduleError(
            "GEM0350",
            f"fuse-epilogue: {len(loose)} epilogues stand outside the loops",
            "leave fuse-epilogue out" if not loose else "fuse has one epilogue a GEMM",
        )
    root = loose[0].output
    writers = [
        op for op in epilogues if op is not loose[0] and cut_from(op.output, root) is not None
    ]
    gemms = [
        op for op in module.walk() if isinstance(op, GemmOp) and cut_from(op.c, root) is not None
    ]
    sites = tuple(op for op in (*writers, *gemms) if not _never_last(op))
    if not sites:
        raise ScheduleError("GEM0351", "fuse-epilogue: no gemmir.gemm writes its operand")
    return FusePlan(epilogue=loose[0], sites=sites)


def _is_of_a_tile(op: Operation) -> bool:
    """Whether `op` is inside loops over tiles.

    A loop over groups has a whole problem in it, and one over the tiles that a block takes in turn
    a tile of one.
    """
    whole = (GROUP, TILES)
    inside = itertools.takewhile(lambda o: dimension_of(o) not in whole, enclosing_ops(op))
    return any(isinstance(o, Loop) for o in inside)


def _has_registers(op: EpilogueOp) -> bool:
    return any(isinstance(chain(v)[0].owner, memref.AllocaOp) for v in op.operands)


def _never_last(site: Operation) -> bool:
    """Whether `site` runs only on a first slice of k that cannot be the last one."""
    parent = site.parent_op()
    first_only = isinstance(parent, scf.IfOp) and site.parent_region() is parent.true_region
    return first_only and any(runs_more_than_once(loop) for loop in loops_around(site, "k"))


def fuse(plan: FusePlan) -> None:
    """Apply the epilogue of `plan` at its sites, on the last slice of k, and erase it."""
    entry = enclosing_function(plan.epilogue).body.block
    for operand in plan.epilogue.inputs:
        _hoist(operand, entry)
    for site in plan.sites:
        _fuse_at(site, plan.epilogue)
    plan.epilogue.detach()
    plan.epilogue.erase()


def _hoist(value: SSAValue, entry: Block) -> None:
    """Move the cast that made `value` from an argument before everything that may use it.

    It stays behind the bounds of sizes that it depends on.
    """
    if not isinstance(value.owner, memref.ReinterpretCastOp):
        return
    cast = value.owner
    needed = {operand.owner for operand in cast.operands}
    cast.detach()
    ops = list(entry.ops)
    behind = max((number + 1 for number, op in enumerate(ops) if op in needed), default=0)
    first = next(op for op in ops[behind:] if not isinstance(op, arith.ConstantOp))
    entry.insert_op_before(cast, first)


def _fuse_at(site: EpilogueOp | GemmOp, epilogue: EpilogueOp) -> None:
    builder = before(site)
    last = _last_slice(builder, site)
    tile = site.output if isinstance(site, EpilogueOp) else site.c

    def finish(inner: Builder) -> None:
        views = cut_from(tile, epilogue.output) or []
        inputs = [follow(inner, v, views) for v in epilogue.inputs]
        if isinstance(site, EpilogueOp):
            inner.insert(_composed(site, epilogue, inputs))
        else:
            inner.insert(EpilogueOp(inputs, tile, epilogue.body.clone()))

    if isinstance(site, GemmOp):
        following = site.parent_block()
        assert following is not None and site.next_op is not None
        builder = before(site.next_op)
    if last is None:
        finish(builder)
    else:
        builder.insert(conditional(last, finish, lambda inner: _otherwise(inner, site)))
    if isinstance(site, EpilogueOp):
        site.detach()
        site.erase()


def _otherwise(inner: Builder, site: EpilogueOp | GemmOp) -> None:
    if isinstance(site, EpilogueOp):
        inner.insert(site.clone())


def _last_slice(builder: Builder, site: Operation) -> SSAValue | None:
    """Whether every loop over k around `site` is in its last iteration; None without such loops."""
    conditions: list[SSAValue] = []
    for loop in loops_around(site, "k"):
        after = builder.insert(arith.AddiOp(loop.body.block.args[0], loop.step)).result
        conditions.append(builder.insert(arith.CmpiOp(after, loop.ub, "sge")).result)
    return both(builder, conditions)


def _composed(inner: EpilogueOp, outer: EpilogueOp, inputs: Sequence[SSAValue]) -> EpilogueOp:
    """outer after inner as one op: what `inner` yields is what `outer` sees as the old element."""
    outputs, types = inner.body.block.arg_types, outer.body.block.arg_types
    block = Block(arg_types=[*outputs[:-1], *types[:-1], outputs[-1]])
    split = len(inner.inputs)
    stored = _inline(inner, [*block.args[:split], block.args[-1]], block)
    value = _inline(outer, [*block.args[split:-1], stored], block)
    block.add_op(YieldOp(value))
    _erase_if_unused(stored)
    return EpilogueOp([*inner.inputs, *inputs], inner.output, Region(block))


def _inline(op: EpilogueOp, arguments: Sequence[SSAValue], into: Block) -> SSAValue:
    """Copy the body of `op` to the end of `into`; returns what it yields.

    A sum that was rounded to the type of C only to be widened again stays as it was: C is rounded
    once.
    """
    mapping: dict[SSAValue, SSAValue] = dict(zip(op.body.block.args, arguments, strict=True))
    for inner in op.body.block.ops:
        if isinstance(inner, YieldOp):
            assert inner.value is not None
            return mapping[inner.value]
        source = mapping[inner.operands[0]] if isinstance(inner, arith.ExtFOp) else None
        if source is not None and isinstance(source.owner, arith.TruncFOp):
            mapping[inner.results[0]] = source.owner.input
        else:
            into.add_op(inner.clone(mapping))
    raise AssertionError("gemmir.epilogue ends in gemmir.yield")


def _erase_if_unused(value: SSAValue) -> None:
    if isinstance(value.owner, arith.TruncFOp) and not value.uses:
        op = value.owner
        op.detach()
        op.erase()


@dataclass(frozen=True)
class FuseEpilogue(ModulePass):
    """Fuse the epilogue of C into the write-back of its tiles."""

    name = "gemmir-fuse-epilogue"

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        fuse(plan(op))
