"""Runs blocks: looks up what each op means, once, and calls it for every visit.

A *meaning* turns an op into a *step*: it decodes the op's attributes once, and the step takes the
values of the operands to the values of the results. The meanings of a dialect are one table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from xdsl.dialects import func, scf
from xdsl.ir import Block, Operation, SSAValue

from gemmir.evaluate.fault import FaultError, error_in
from gemmir.evaluate.fibers import Fibers
from gemmir.evaluate.sums import require_finished
from gemmir.evaluate.turns import Turn
from gemmir.evaluate.view import Buffer
from gemmir.ir.dialect import YieldOp

Step: TypeAlias = Callable[..., Sequence[Any]]
"""From the values of the operands, in order, to the values of the results."""

Meaning: TypeAlias = "Callable[[Frame, Any], Step]"
Meanings: TypeAlias = Mapping[type[Operation], Meaning]

TERMINATORS: Final = (func.ReturnOp, scf.YieldOp, YieldOp)
"""Ops that end a block; their operands are what running the block gives."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One op of a block with its step, decoded."""

    op: Operation
    step: Step
    operands: tuple[SSAValue, ...]
    results: tuple[SSAValue, ...]


Plan: TypeAlias = "tuple[tuple[Visit, ...], tuple[SSAValue, ...]]"
"""The ops of a block, and the values that running it gives."""


class Frame:
    """One run of a function: who runs in it, and who made the heap buffers still in use.

    With `watched` there are fibers that may disturb each other in shared memory; otherwise a block
    is a team of threads, of which one has its `turn`.
    """

    def __init__(self, meanings: Meanings, *, watched: bool = False) -> None:
        self.heap: dict[Buffer, Operation] = {}
        self.fibers = Fibers()
        self.turn = Turn()
        self.watched = watched
        self._meanings = meanings
        self._plans: dict[Block, Plan] = {}

    @property
    def values(self) -> dict[SSAValue, Any]:
        """The values so far, of the fiber whose turn it is."""
        return self.fibers.current.values

    def run(self, block: Block, arguments: Sequence[Any]) -> Sequence[Any]:
        """Run `block` on `arguments`; returns the operands of its terminator.

        Raises `EvaluationError` with the innermost op that faulted.
        """
        visits, given = self.plan(block)
        values = self.values
        values.update(zip(block.args, arguments, strict=True))
        for visit in visits:
            try:
                found = visit.step(*[values[operand] for operand in visit.operands])
            except FaultError as fault:
                raise error_in(visit.op, fault) from None
            for result, value in zip(visit.results, found, strict=True):
                values[result] = value
        return [values[value] for value in given]

    def plan(self, block: Block) -> Plan:
        """The ops of `block`, decoded at the first visit, and the operands of its terminator."""
        found = self._plans.get(block)
        if found is None:
            found = self._plans[block] = self._decode(block)
        return found

    def _decode(self, block: Block) -> Plan:
        ops = list(block.ops)
        given: tuple[SSAValue, ...] = ()
        if ops and isinstance(ops[-1], TERMINATORS):
            given = tuple(ops.pop().operands)
        return tuple(map(self._visit, ops)), given

    def _visit(self, op: Operation) -> Visit:
        meaning = self._meanings.get(type(op))
        try:
            if meaning is None:
                raise FaultError("GEM0903", f"the evaluator has no meaning for {op.name}")
            step = meaning(self, op)
            if self.watched:
                step = require_finished(op, step)
            return Visit(op, step, tuple(op.operands), tuple(op.results))
        except FaultError as fault:
            raise error_in(op, fault) from None
