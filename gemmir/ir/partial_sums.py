"""Sums in two levels: a sum of a slice of k that is added to a running one, both in registers.

    gemmir.epilogue outs(%acc) { 0 }               the running sum begins
    scf.for %p …:
        gemmir.gemm %a, %b, %part
        gemmir.epilogue ins(%part) outs(%acc) { acc + part }

The tensor cores of Hopper add products of 8-bit floats in fewer bits than f32 has; the running sum
is added to by threads. It is also where each slice gets scales of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

from xdsl.dialects import memref, scf
from xdsl.ir import Operation, SSAValue

from gemmir.ir.attributes import Space, SpaceAttr
from gemmir.ir.dialect import EpilogueOp, GemmOp, enclosing_ops, memref_type
from gemmir.ir.loops import dimension_of
from gemmir.ir.views import chain


def in_registers(value: SSAValue) -> bool:
    """Whether a memref is in registers."""
    return memref_type(value).memory_space == SpaceAttr(Space.REGISTERS)


def loops_inside(op: Operation, sum_of: SSAValue) -> list[scf.ForOp]:
    """The loops around `op` inside which the accumulator `sum_of` lives on, outermost first."""
    home = sum_of.owner.parent_op() if isinstance(sum_of.owner, Operation) else None
    found: list[scf.ForOp] = []
    for outer in enclosing_ops(op):
        if outer is home:
            break
        assert isinstance(outer, scf.ForOp)
        found.append(outer)
    return found[::-1]


def slices_of(gemm: GemmOp) -> list[scf.ForOp]:
    """The loops over k in which `gemm` adds to an accumulator in registers, outermost first."""
    if not in_registers(gemm.c):
        return []
    loops = loops_inside(gemm, chain(gemm.c)[0])
    return loops if all(dimension_of(loop) == "k" for loop in loops) else []


def adding(accumulator: SSAValue) -> EpilogueOp | None:
    """What adds the sum of a slice to a running one; None where it is itself the whole sum."""
    found = [op for op in _reading(accumulator) if in_registers(op.output)]
    return found[0] if found else None


def whole_sum(gemm: GemmOp) -> SSAValue:
    """The accumulator of the whole sum over k."""
    accumulator = chain(gemm.c)[0]
    while (op := adding(accumulator)) is not None:
        accumulator = chain(op.output)[0]
    return accumulator


def beginning(running: SSAValue) -> EpilogueOp:
    """What sets a running sum to 0 before the loop over slices."""
    for view in _views(running):
        for use in view.uses:
            op = use.operation
            if isinstance(op, EpilogueOp) and op.output is view and not op.inputs:
                return op
    raise AssertionError("a running sum begins at 0")


def _views(accumulator: SSAValue) -> Iterator[SSAValue]:
    yield accumulator
    for use in accumulator.uses:
        if isinstance(use.operation, memref.SubviewOp):
            yield use.operation.result


def _reading(accumulator: SSAValue) -> list[EpilogueOp]:
    """The epilogues that take `accumulator` as an input."""
    return [
        use.operation
        for view in _views(accumulator)
        for use in view.uses
        if isinstance(use.operation, EpilogueOp) and view in use.operation.inputs
    ]


def write_backs(accumulator: SSAValue) -> list[EpilogueOp]:
    """The epilogues that take the whole sum on to memory."""
    return [op for op in _reading(accumulator) if not in_registers(op.output)]
