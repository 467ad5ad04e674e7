"""The scf dialect: loops with carried values, and branches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from xdsl.dialects import scf

from gemmir.evaluate.fault import FaultError
from gemmir.evaluate.frame import Frame, Meanings, Step


def iterations(lb: int, ub: int, step: int) -> range:
    """The values of a loop variable; faults with GEM0908 unless `step` is positive."""
    if step <= 0:
        raise FaultError("GEM0908", f"the step {step} is not positive")
    return range(lb, ub, step)


def _for(frame: Frame, op: scf.ForOp) -> Step:
    body = op.body.block

    def run(lb: int, ub: int, step: int, *carried: Any) -> Sequence[Any]:
        values: Sequence[Any] = carried
        for i in iterations(lb, ub, step):
            values = frame.run(body, (i, *values))
        return values

    return run


def _if(frame: Frame, op: scf.IfOp) -> Step:
    chosen, otherwise = op.true_region.blocks.first, op.false_region.blocks.first

    def run(condition: bool) -> Sequence[Any]:
        block = chosen if condition else otherwise
        return () if block is None else frame.run(block, ())

    return run


MEANINGS: Final[Meanings] = {scf.ForOp: _for, scf.IfOp: _if}
