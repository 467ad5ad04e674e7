"""The threads of a block, run together: every op for all of them before the next op.

So a barrier has nothing to do but to be reached by all, and numbers are right without it: who
touches shared memory is watched (`gemmir.evaluate.turns`). A copy into it is made once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from xdsl.dialects import scf
from xdsl.ir import Block, Operation, SSAValue

from gemmir.evaluate.fault import FaultError, error_in
from gemmir.evaluate.frame import Frame, Visit
from gemmir.evaluate.scf import iterations
from gemmir.evaluate.turns import BLOCK
from gemmir.ir.dialect import INSIDE_BLOCK, BarrierOp, ForallOp, PackOp, is_shared
from gemmir.ir.nvgpu import AsyncCreateGroupOp, AsyncWaitOp

NESTED: Final = 1 << 32
"""What lies between the numbers of warps and those of the threads inside them."""


class Thread(dict[SSAValue, Any]):
    """The values that belong to one thread, or warp; all others are those of the block."""

    def __init__(self, values: Mapping[SSAValue, Any], number: int) -> None:
        super().__init__(values)
        self.number = number


class Team:
    """The threads of one block, numbered as the loops over them are nested."""

    def __init__(self, frame: Frame, threads: list[Thread]) -> None:
        self._frame = frame
        self._threads = threads

    def run(self, block: Block, threads: list[Thread]) -> list[Sequence[Any]]:
        """Run `block` for `threads`; returns the operands of its terminator for each of them."""
        visits, given = self._frame.plan(block)
        for visit in visits:
            run = _TOGETHER.get(type(visit.op), Team.each)
            try:
                run(self, visit, threads)
            except FaultError as fault:
                raise error_in(visit.op, fault) from None
        return [self._values(thread, given) for thread in threads]

    def _values(self, thread: Thread, values: Sequence[SSAValue]) -> list[Any]:
        shared = self._frame.values
        return [thread[v] if v in thread else shared[v] for v in values]

    def each(self, visit: Visit, threads: list[Thread]) -> None:
        """An op that every thread runs for itself."""
        turn = self._frame.turn
        for thread in threads:
            turn.thread = thread.number
            found = visit.step(*self._values(thread, visit.operands))
            thread.update(zip(visit.results, found, strict=True))
        turn.thread = BLOCK

    def _require_all(self, op: Operation, threads: list[Thread]) -> None:
        if len(threads) != len(self._threads):
            raise FaultError(
                "GEM0910", f"{len(threads)} of {len(self._threads)} threads come to {op.name}"
            )

    def barrier(self, visit: Visit, threads: list[Thread]) -> None:
        """All threads are here, or it is an error; what they touched is over."""
        self.once(visit, threads)
        self._frame.turn.barriers += 1

    def once(self, visit: Visit, threads: list[Thread]) -> None:
        """An op that all threads come to and that counts once for the block."""
        self._require_all(visit.op, threads)
        visit.step(*self._values(threads[0], visit.operands))

    def pack(self, visit: Visit, threads: list[Thread]) -> None:
        """A copy into shared memory is one act of the whole block; any other is each thread's."""
        if not is_shared(visit.op.operands[1]):
            self.each(visit, threads)
            return
        self.once(visit, threads)

    def forall(self, visit: Visit, threads: list[Thread]) -> None:
        """More threads: one for each iteration and each of those there are."""
        assert isinstance(visit.op, ForallOp)
        self._require_all(visit.op, threads)
        body = visit.op.body.block
        lb, ub, step = self._values(threads[0], visit.operands)
        first = (threads[0].number // NESTED + 1) * NESTED
        values = [{**t, body.args[0]: i} for t in threads for i in iterations(lb, ub, step)]
        inner = [Thread(own, number) for number, own in enumerate(values, first)]
        if inner:
            Team(self._frame, inner).run(body, inner)

    def loop(self, visit: Visit, threads: list[Thread]) -> None:
        """Threads whose loop has ended wait until those of all others have."""
        assert isinstance(visit.op, scf.ForOp)
        body = visit.op.body.block
        bounds = [self._values(thread, visit.operands) for thread in threads]
        turns = [list(iterations(*values[:3])) for values in bounds]
        for thread, values in zip(threads, bounds, strict=True):
            thread.update(zip(body.args[1:], values[3:], strict=True))
        for turn in range(max(map(len, turns), default=0)):
            active = [t for t, own in zip(threads, turns, strict=True) if turn < len(own)]
            for thread, own in zip(threads, turns, strict=True):
                if turn < len(own):
                    thread[body.args[0]] = own[turn]
            for thread, found in zip(active, self.run(body, active), strict=True):
                thread.update(zip(body.args[1:], found, strict=True))
        for thread in threads:
            results = [thread[argument] for argument in body.args[1:]]
            thread.update(zip(visit.results, results, strict=True))

    def branch(self, visit: Visit, threads: list[Thread]) -> None:
        """First those whose condition is true, then the others."""
        assert isinstance(visit.op, scf.IfOp)
        chosen = [bool(self._values(thread, visit.operands)[0]) for thread in threads]
        for region, wanted in ((visit.op.true_region, True), (visit.op.false_region, False)):
            active = [t for t, is_true in zip(threads, chosen, strict=True) if is_true == wanted]
            block = region.blocks.first
            if block is None or not active:
                continue
            for thread, found in zip(active, self.run(block, active), strict=True):
                thread.update(zip(visit.results, found, strict=True))


_TOGETHER: Final[Mapping[type[Operation], Callable[[Team, Visit, list[Thread]], None]]] = {
    AsyncCreateGroupOp: Team.once,
    AsyncWaitOp: Team.once,
    BarrierOp: Team.barrier,
    ForallOp: Team.forall,
    PackOp: Team.pack,
    scf.ForOp: Team.loop,
    scf.IfOp: Team.branch,
}


def run_team(frame: Frame, op: ForallOp, lb: int, ub: int, step: int) -> None:
    """Run the outermost loop over the warps or threads of a block."""
    body = op.body.block
    threads = [Thread({body.args[0]: i}, n) for n, i in enumerate(iterations(lb, ub, step))]
    if threads:
        Team(frame, threads).run(body, threads)


def is_team(op: ForallOp) -> bool:
    """Whether `op` runs over what is inside a block."""
    return op.over.data in INSIDE_BLOCK
