"""The blocks of a grid, one after the other, and those of a cluster at the same time.

Blocks run from the last to the first: they must not depend on each other. Those of a cluster run as
fibers where they have something to do with each other; they are numbered as the loops over them
are nested.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from xdsl.ir import Operation

from gemmir.evaluate.block import Block, Cluster
from gemmir.evaluate.fault import FaultError
from gemmir.evaluate.fibers import Fiber, Threads
from gemmir.evaluate.frame import Frame, Meanings, Step
from gemmir.evaluate.scf import iterations
from gemmir.ir.dialect import BLOCKS, CLUSTERS, ForallOp
from gemmir.ir.tma import ArriveOp, TmaLoadOp
from gemmir.ir.warpgroup import ClusterBarrierOp


def _is_over(op: Operation, units: str) -> bool:
    return isinstance(op, ForallOp) and op.over.data == units


def _inside(op: Operation) -> list[Operation]:
    return [inner for inner in op.walk() if inner is not op]


def _meets_others(op: Operation) -> bool:
    """Whether `op` has to do with other blocks of a cluster."""
    if isinstance(op, ClusterBarrierOp):
        return True
    if isinstance(op, ArriveOp):
        return op.cluster is not None
    return isinstance(op, TmaLoadOp) and op.multicast is not None


def grid_loop(frame: Frame, op: ForallOp) -> Step | None:
    """The meaning of a loop over blocks or clusters; None of any other."""
    if _is_over(op, CLUSTERS):
        return _clusters(frame, op)
    if not _is_over(op, BLOCKS):
        return None
    holds_blocks = any(_is_over(inner, BLOCKS) for inner in _inside(op))
    parent = op.parent_op()
    while parent is not None and not _is_over(parent, CLUSTERS):
        parent = parent.parent_op()
    if parent is not None and any(map(_meets_others, _inside(parent))):
        return _blocks_of_cluster(frame, op, is_block=not holds_blocks)
    return _blocks(frame, op)


def _clusters(frame: Frame, op: ForallOp) -> Step:
    body = op.body.block

    def run(lb: int, ub: int, step: int) -> tuple[()]:
        fiber = frame.fibers.current
        outer = fiber.block
        for i in reversed(iterations(lb, ub, step)):
            fiber.block = Block(name=f"cluster {i}", cluster=Cluster())
            frame.run(body, (i,))
        fiber.block = outer
        return ()

    return run


def _blocks(frame: Frame, op: ForallOp) -> Step:
    body = op.body.block

    def run(lb: int, ub: int, step: int) -> tuple[()]:
        fiber = frame.fibers.current
        outer = fiber.block
        for i in reversed(iterations(lb, ub, step)):
            fiber.block = Block(name=f"block {i}")
            frame.run(body, (i,))
            fiber.end()
            fiber.block.end(fiber.clock)
        fiber.block = outer
        return ()

    return run


def _blocks_of_cluster(frame: Frame, op: ForallOp, *, is_block: bool) -> Step:
    """A fiber for each iteration, which is a block unless there are more loops over blocks."""
    body = op.body.block

    def act(fiber: Fiber, i: int) -> Callable[[], None]:
        def run() -> None:
            frame.run(body, (i,))
            fiber.end()
            if is_block:
                fiber.block.end(fiber.clock)

        return run

    def run(lb: int, ub: int, step: int) -> tuple[()]:
        outer = frame.fibers.current.block
        numbers = iterations(lb, ub, step)
        fibers: list[Fiber] = []
        for _ in numbers:
            block = outer
            if is_block:
                blocks = outer.cluster.blocks
                block = Block(name=f"block {len(blocks)} of {outer.name}", cluster=outer.cluster)
                blocks.append(block)
            fibers.append(frame.fibers.child(block.name, Threads.BLOCK, block))
        frame.fibers.run(fibers, [act(f, i) for f, i in zip(fibers, numbers, strict=True)])
        return ()

    return run


def block_barrier(fiber: Fiber, name: str) -> None:
    """All threads of the block come to the barrier `name`; faults with GEM0910 where some do."""
    if fiber.threads is not Threads.BLOCK:
        raise FaultError("GEM0910", f"only {fiber.name} comes to {name}")
    fiber.meet()
    fiber.block.know_barriers()


def _cluster_barrier(frame: Frame, op: ClusterBarrierOp) -> Step:
    def step() -> tuple[()]:
        fiber = frame.fibers.current
        if fiber.threads is not Threads.BLOCK:
            raise FaultError("GEM0910", f"only {fiber.name} comes to {op.name}")
        cluster = fiber.block.cluster
        blocks = cluster.blocks or [fiber.block]
        fiber.tell(cluster.clock)
        turn = cluster.turn
        cluster.come += 1
        if cluster.come == len(blocks):
            cluster.come, cluster.turn = 0, turn + 1
            for block in blocks:
                block.know_barriers(in_cluster=True)
        frame.fibers.wait(
            lambda: cluster.turn > turn,
            lambda: f"{op.name}: {cluster.come} of {len(blocks)} blocks came",
        )
        fiber.know(cluster.clock)
        return ()

    return step


MEANINGS: Final[Meanings] = {ClusterBarrierOp: _cluster_barrier}
