"""Sums to which the tensor cores still add products: what a warpgroup may not look at yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from xdsl.dialects import scf
from xdsl.dialects.builtin import VectorType
from xdsl.ir import Operation

from gemmir.evaluate.fault import FaultError
from gemmir.evaluate.values import Array
from gemmir.ir.warpgroup import WarpgroupMmaOp, WarpgroupWaitOp


@dataclass(eq=False, slots=True)
class Sum:
    """The value of a sum to which products are still added."""

    value: Array | None


def require_finished(
    op: Operation, step: Callable[..., Sequence[Any]]
) -> Callable[..., Sequence[Any]]:
    """`step`, which faults with GEM0921 where it is given a sum that is not finished."""
    if isinstance(op, WarpgroupMmaOp | WarpgroupWaitOp | scf.ForOp):
        return step
    if not any(isinstance(value.type, VectorType) for value in op.operands):
        return step

    def guarded(*operands: Any) -> Sequence[Any]:
        if any(isinstance(operand, Sum) for operand in operands):
            raise FaultError("GEM0921", "products are still under way that add to the operand")
        return step(*operands)

    return guarded
