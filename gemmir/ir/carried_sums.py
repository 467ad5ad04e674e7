"""Sums of slices of k that go on in registers from what the slice before has left in C.

    gemmir.gemm %a, %b, %c first %flag   ->   gemmir.epilogue ins(%c) outs(%acc) { first ? 0 : c }
                                              gemmir.gemm %a, %b, %acc beta 1.0
                                              gemmir.epilogue ins(%acc) outs(%c) { acc }

A sum that begins with 0 in each slice is added to C when it is complete: where k is cut shows in
the last bits. One that goes on is a single chain of multiply-adds in the order of k, whatever the
slices.
"""

from __future__ import annotations

from xdsl.dialects import arith, memref
from xdsl.ir import Block, Region, SSAValue

from gemmir.ir.build import number_attr
from gemmir.ir.dialect import (
    CORES,
    EpilogueOp,
    ForallOp,
    GemmOp,
    YieldOp,
    enclosing_ops,
    memref_type,
)
from gemmir.ir.partial_sums import in_registers
from gemmir.ir.views import chain


def is_carried_by(gemm: GemmOp) -> bool:
    """Whether C holds between slices of k what a sum goes on from, on a CPU."""
    plain = gemm.alpha.value.data == 1 and gemm.alpha_value is None and gemm.beta_value is None
    is_whole = memref_type(gemm.c).element_type == gemm.summed and not gemm.scales
    begins = gemm.first is not None and gemm.beta.value.data == 0
    goes_on = gemm.first is None and gemm.beta.value.data == 1
    units = [o.over.data for o in enclosing_ops(gemm) if isinstance(o, ForallOp)]
    return plain and is_whole and (begins or goes_on) and set(units) <= {CORES}


def begin_from(gemm: GemmOp, c: SSAValue, acc: SSAValue) -> EpilogueOp:
    """What sets the accumulator `acc` to 0 in the first slice, and to `c` in all others."""
    element = memref_type(c).element_type
    block = Block(arg_types=[element, element])
    found = block.args[0]
    if gemm.first is not None:
        zero = arith.ConstantOp(number_attr(0, element))
        chosen = arith.SelectOp(gemm.first, zero.result, found)
        block.add_ops([zero, chosen])
        found = chosen.result
    block.add_op(YieldOp(found))
    return EpilogueOp([c], acc, Region(block))


def carried_from(accumulator: SSAValue) -> EpilogueOp | None:
    """What sets `accumulator` from C before a slice; None where its sums begin with 0."""
    users = [use.operation for use in accumulator.uses]
    views = [user.result for user in users if isinstance(user, memref.SubviewOp)]
    for view in (accumulator, *views):
        for use in view.uses:
            op = use.operation
            is_start = isinstance(op, EpilogueOp) and op.output is view and len(op.inputs) == 1
            if is_start and isinstance(op, EpilogueOp) and not in_registers(chain(op.inputs[0])[0]):
                return op
    return None
