"""Take the first iteration out of loops over a dimension, whose sums then begin with a product.

    scf.for %k = 0 to kc step s iter_args(%sum = 0)    ->    body(0) with a %sum of -0
        body(%k)                                             scf.for %k = s to kc step s
                                                                 body(%k)

Minus zero plus a product is that product, whatever its sign, so the backend multiplies where it
would add to zero: a core whose stores delay additions, but not products, then stores one tile while
it begins the next. The loop is left out where nothing remains of it. Sums keep their order; a sum
of nothing but negative zeros is one. Only loops that begin at zeros, and whose bounds are known,
are changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from xdsl.context import Context
from xdsl.dialects import arith, builtin, scf
from xdsl.dialects.builtin import AnyFloat, DenseIntOrFPElementsAttr, VectorType
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from gemmir.errors import ScheduleError
from gemmir.ir.dialect import OuterProductOp
from gemmir.ir.index import as_index, before, constant_of
from gemmir.ir.loops import dimension_of
from gemmir.ir.transfers import splat


def plan(module: builtin.ModuleOp, loop: str) -> list[scf.ForOp]:
    """The loops whose first iteration is taken out; `ScheduleError` (GEM1305) where none is."""
    found = [op for op in module.walk() if isinstance(op, scf.ForOp) and _begins_at_zero(op, loop)]
    if not found:
        raise ScheduleError(
            "GEM1305",
            f"peel: no loop over {loop} begins sums of floats at zero, with bounds that are known",
            "put it behind vectorize{with=fma …} of a product whose k is known, or leave it out",
        )
    return found


def _begins_at_zero(op: scf.ForOp, loop: str) -> bool:
    """Whether sums of `op` begin at zero, and its first iteration adds products of floats to them.

    Those of integers have no negative zero.
    """
    first, last = constant_of(op.lb), constant_of(op.ub)
    if dimension_of(op) != loop or first is None or last is None or first >= last:
        return False
    sums = zip(op.iter_args, op.body.block.args[1:], strict=True)
    return bool(op.iter_args) and all(_is_zero(x) and _is_summed(y) for x, y in sums)


def _is_zero(value: SSAValue) -> bool:
    """Whether `value` is a vector of zeros of a float type."""
    constant = value.owner.value if isinstance(value.owner, arith.ConstantOp) else None
    if not isinstance(constant, DenseIntOrFPElementsAttr):
        return False
    return isinstance(constant.get_element_type(), AnyFloat) and not any(constant.get_values())


def _is_summed(value: SSAValue) -> bool:
    """Whether `value` only has products of single factors added to it."""
    uses = [use.operation for use in value.uses]
    return all(isinstance(op, OuterProductOp) and op.depth == 1 and op.acc is value for op in uses)


def peel(loop: scf.ForOp) -> None:
    """Put the first iteration of `loop` before it."""
    builder, block = before(loop), loop.body.block
    sums: list[SSAValue] = [
        splat(loop, -0.0, cast("VectorType[AnyFloat]", v.type)) for v in loop.iter_args
    ]
    mapping: dict[SSAValue, SSAValue] = dict(zip(block.args, [loop.lb, *sums], strict=True))
    for op in block.ops:
        if isinstance(op, scf.YieldOp):
            sums = [mapping[v] for v in op.operands]
        else:
            builder.insert(op.clone(mapping))
    begin, step = constant_of(loop.lb), constant_of(loop.step)
    assert begin is not None and step is not None
    if begin + step < cast("int", constant_of(loop.ub)):
        loop.operands = [as_index(loop, begin + step), loop.ub, loop.step, *sums]
        return
    for old, new in zip(loop.results, sums, strict=True):
        old.replace_all_uses_with(new)
    loop.detach()
    loop.erase()


@dataclass(frozen=True)
class Peel(ModulePass):
    """Take the first iteration out of loops over dimension `loop` that begin sums at zero."""

    name = "gemmir-peel"

    loop: str

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        for found in plan(op, self.loop):
            peel(found)
