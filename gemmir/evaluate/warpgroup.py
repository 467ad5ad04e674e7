"""The part of the nvgpu dialect that Hopper brought, made as adverse as it may be.

A load lands when nothing else can go on, a product reads its factors when a wait needs the sum, and
a store its source when one needs the room. Who touches shared memory without having waited for
those that touch it before is at fault, whatever the order in which things happen here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from xdsl.dialects.builtin import IntegerAttr, VectorType

from gemmir.evaluate.block import Block
from gemmir.evaluate.fault import FaultError
from gemmir.evaluate.fibers import Fiber, Threads
from gemmir.evaluate.frame import Frame, Meanings, Step
from gemmir.evaluate.memref import memref_of, new_view
from gemmir.evaluate.phases import Barrier, Barriers
from gemmir.evaluate.products import multiply
from gemmir.evaluate.shared import begin_read, begin_write
from gemmir.evaluate.sums import Sum
from gemmir.evaluate.values import Array, Element, dtype_of
from gemmir.evaluate.view import View
from gemmir.ir.tma import (
    ArriveExpectOp,
    ArriveOp,
    CreateBarriersOp,
    CreateDescriptorOp,
    ProxyFenceOp,
    TmaLoadOp,
    TmaStoreOp,
    TmaStoreWaitOp,
    WaitOp,
    box_of,
)
from gemmir.ir.warpgroup import (
    WARPS_OF_GROUP,
    WarpgroupBarrierOp,
    WarpgroupMmaOp,
    WarpgroupSliceOp,
    WarpgroupWaitOp,
    WarpSpecializeOp,
)


def _number(attribute: IntegerAttr) -> int:
    return attribute.value.data


@dataclass(eq=False, slots=True)
class Descriptor:
    """The value of a `!nvgpu.tensormap`: a tensor, of which boxes of `shape` are copied."""

    tensor: View
    shape: tuple[int, ...]

    def _cut(self, at: Sequence[int]) -> tuple[list[int], tuple[int, ...], tuple[slice, ...]]:
        """Where the box at `at` begins in the tensor, how much is there, and where in the box."""
        whole = (1,) * (len(at) - len(self.shape)) + self.shape
        starts = [max(i, 0) for i in at]
        ends = [min(i + n, size) for i, n, size in zip(at, whole, self.tensor.sizes, strict=True)]
        extents = tuple([max(e - s, 0) for s, e in zip(starts, ends, strict=True)])
        inside = [slice(s - i, s - i + n) for s, i, n in zip(starts, at, extents, strict=True)]
        return starts, extents, tuple(inside)

    def load(self, at: Sequence[int]) -> Array:
        """The box at `at`, with zeros outside the tensor."""
        starts, extents, inside = self._cut(at)
        whole = (1,) * (len(at) - len(self.shape)) + self.shape
        box: Array = np.zeros(whole, self.tensor.buffer.data.dtype)
        if 0 not in extents:
            box[inside] = self.tensor.read(starts, extents)
        return box.reshape(self.shape)

    def store(self, at: Sequence[int], box: Array) -> None:
        """Write the part of `box` at `at` that is inside the tensor."""
        starts, extents, inside = self._cut(at)
        if 0 not in extents:
            whole = box.reshape((1,) * (len(at) - len(self.shape)) + self.shape)
            self.tensor.write(starts, whole[inside])


def _create_descriptor(frame: Frame, op: CreateDescriptorOp) -> Step:
    shape = box_of(op.result).get_shape()

    def step(tensor: View) -> tuple[Descriptor]:
        return (Descriptor(tensor, shape),)

    return step


def _create_barriers(frame: Frame, op: CreateBarriersOp) -> Step:
    made, arrivals = memref_of(op.result), _number(op.arrivals)
    hint = op.result.name_hint or "barriers"

    def step() -> tuple[View]:
        view = new_view(made, made.get_shape(), on_heap=False)
        block = frame.fibers.current.block
        name = f"%{hint} of {block.name}"
        stages = [Barrier(f"%{hint}[{i}] of {block.name}", arrivals) for i in range(*view.sizes)]
        block.made[op] = view
        block.barriers[view.buffer] = Barriers(name, stages)
        return (view,)

    return step


def _barrier(block: Block, view: View, stage: Element, *, from_afar: bool = False) -> Barrier:
    if view.buffer not in block.barriers:
        raise FaultError("GEM0924", f"no barriers of {block.name} were created there")
    return block.barriers[view.buffer].at(int(stage), from_afar=from_afar)


def _require_blocks(block: Block, count: int) -> None:
    """Fault with GEM0929 unless the cluster of `block` has at least `count` blocks."""
    found = max(len(block.cluster.blocks), 1)
    if count > found:
        raise FaultError("GEM0929", f"block {count - 1} of a cluster of {found}")


def _peer(block: Block, number: int, view: View) -> tuple[Block, View]:
    """Block `number` of the cluster of `block`, and what is there where here is `view`.

    Faults with GEM0929 where that has not begun or is over.
    """
    peer = (block.cluster.blocks or [block])[number]
    if peer is block:
        return block, view
    op = next((op for op, made in block.made.items() if made.buffer is view.buffer), None)
    if op is None or op not in peer.made or peer.is_over:
        state = "is over" if peer.is_over else "has not come so far"
        raise FaultError("GEM0929", f"{peer.name} {state}")
    return peer, view.elsewhere(peer.made[op].buffer)


def _arrive(frame: Frame, op: ArriveOp) -> Step:
    blocks = 0 if op.cluster is None else _number(op.cluster)

    def step(barriers: View, stage: Element) -> tuple[()]:
        fiber = frame.fibers.current
        block = fiber.block
        count = 1 if fiber.threads is Threads.ONE else WARPS_OF_GROUP
        if blocks and blocks != len(block.cluster.blocks):
            raise FaultError("GEM0929", f"the cluster has {len(block.cluster.blocks)} blocks")
        for number in range(blocks):
            peer, there = _peer(block, number, barriers)
            barrier = _barrier(peer, there, stage, from_afar=True)
            if peer is not block:
                peer.touched[fiber.agent] = fiber.now
            _arrive_at(fiber, barrier, count)
        if not blocks:
            _arrive_at(fiber, _barrier(block, barriers, stage), count)
        return ()

    return step


def _arrive_at(fiber: Fiber, barrier: Barrier, count: int) -> None:
    fiber.tell(barrier.told)
    barrier.arrive(count)


def _arrive_expect(frame: Frame, op: ArriveExpectOp) -> Step:
    bytes_ = _number(op.bytes)

    def step(barriers: View, stage: Element) -> tuple[()]:
        fiber = frame.fibers.current
        barrier = _barrier(fiber.block, barriers, stage)
        barrier.expect(bytes_)
        _arrive_at(fiber, barrier, 1)
        return ()

    return step


def _wait(frame: Frame, op: WaitOp) -> Step:
    def step(barriers: View, stage: Element, parity: Element) -> tuple[()]:
        fiber = frame.fibers.current
        barrier = _barrier(fiber.block, barriers, stage)
        if parity not in (0, 1):
            raise FaultError("GEM0930", f"the parity {parity} is not 0 or 1")
        frame.fibers.wait(
            lambda: barrier.is_over(int(parity)), lambda: f"parity {parity}: {barrier}"
        )
        fiber.know(barrier.over)
        return ()

    return step


def _load(frame: Frame, op: TmaLoadOp) -> Step:
    mask = None if op.multicast is None else _number(op.multicast)
    numbers = [] if mask is None else [b for b in range(mask.bit_length()) if mask >> b & 1]

    def step(descriptor: Descriptor, *rest: Any) -> tuple[()]:
        *at, barriers, stage, target = rest
        block = frame.fibers.current.block
        _require_blocks(block, len(numbers) and numbers[-1] + 1)
        if mask is None:
            _begin_load(frame, descriptor, at, block, _barrier(block, barriers, stage), target)
        for number in numbers:
            peer, there = _peer(block, number, target)
            _, barriers_there = _peer(block, number, barriers)
            barrier = _barrier(peer, barriers_there, stage, from_afar=True)
            _begin_load(frame, descriptor, at, peer, barrier, there)
        return ()

    return step


def _begin_load(
    frame: Frame,
    descriptor: Descriptor,
    at: Sequence[int],
    block: Block,
    barrier: Barrier,
    target: View,
) -> None:
    """Let a load into `target`, of `block`, land later; until then nobody may touch it."""
    fiber = frame.fibers.current
    begin_write(target, barrier.loads, barrier.phase + 1, fiber.clock)
    count = math.prod(target.sizes) * target.buffer.data.itemsize
    barrier.begin(count)
    block.loads += 1

    def land() -> None:
        block.loads -= 1
        target.poke(descriptor.load(at))
        barrier.land(count)

    frame.fibers.loads.append(land)


def _store(frame: Frame, op: TmaStoreOp) -> Step:
    def step(source: View, descriptor: Descriptor, *at: int) -> tuple[()]:
        fiber = frame.fibers.current
        begin_read(source, fiber.stores.agent, fiber.stores.next, fiber.clock)
        fiber.stores.under_way.append(lambda: descriptor.store(at, source.peek()))
        return ()

    return step


def _store_wait(frame: Frame, op: TmaStoreWaitOp) -> Step:
    allowed = _number(op.groups)

    def step() -> tuple[()]:
        fiber = frame.fibers.current
        fiber.stores.finish(allowed)
        if fiber.threads is Threads.ONE:
            fiber.meet()
        return ()

    return step


def _fence(frame: Frame, op: ProxyFenceOp) -> Step:
    def step() -> tuple[()]:
        frame.fibers.current.fence()
        return ()

    return step


def _require_warpgroup(fiber: Fiber) -> None:
    if fiber.threads is not Threads.WARPGROUP:
        raise FaultError("GEM0927", f"{fiber.name} is {fiber.threads.value}, not a warpgroup")


def _warpgroup_barrier(frame: Frame, op: WarpgroupBarrierOp) -> Step:
    def step() -> tuple[()]:
        _require_warpgroup(frame.fibers.current)
        frame.fibers.current.meet()
        return ()

    return step


def _mma(frame: Frame, op: WarpgroupMmaOp) -> Step:
    summed = dtype_of(op.acc.type)

    def step(a: View, b: View, acc: Array | Sum) -> tuple[Sum]:
        fiber = frame.fibers.current
        _require_warpgroup(fiber)
        products, found = fiber.products, Sum(None)
        for factor in (a, b):
            begin_read(factor, products.agent, products.next, fiber.clock)

        def add() -> None:
            before = acc.value if isinstance(acc, Sum) else acc
            assert before is not None
            found.value = before + multiply(a.peek(), b.peek(), summed, op.precision)

        products.under_way.append(add)
        return (found,)

    return step


def _warpgroup_wait(frame: Frame, op: WarpgroupWaitOp) -> Step:
    allowed = _number(op.groups)

    def step(acc: Array | Sum) -> tuple[Array | Sum]:
        fiber = frame.fibers.current
        _require_warpgroup(fiber)
        fiber.products.finish(allowed)
        if allowed:
            return (acc if isinstance(acc, Sum) else Sum(acc),)
        value = acc.value if isinstance(acc, Sum) else acc
        assert value is not None
        return (value,)

    return step


def _slice(frame: Frame, op: WarpgroupSliceOp) -> Step:
    made = op.result.type
    assert isinstance(made, VectorType)
    window = tuple([slice(i, i + n) for i, n in zip(op.place, made.get_shape(), strict=True)])

    def step(source: Array) -> tuple[Array]:
        return (source[window],)

    return step


def _specialize(frame: Frame, op: WarpSpecializeOp) -> Step:
    producer, consumers = op.producer.block, op.consumers.block

    def step() -> tuple[()]:
        fibers = frame.fibers
        if fibers.current.threads is not Threads.BLOCK:
            raise FaultError("GEM0910", f"only {fibers.current.name} comes to {op.name}")
        block = fibers.current.block
        prefix = f"{block.name}: "
        roles = [fibers.child(f"{prefix}the producer", Threads.ONE, block)]
        roles += [
            fibers.child(f"{prefix}consumer {w}", Threads.WARPGROUP, block) for w in range(op.count)
        ]

        def act(role: Fiber, number: int) -> Callable[[], None]:
            def run() -> None:
                if number < 0:
                    frame.run(producer, ())
                else:
                    frame.run(consumers, (number,))
                role.end()

            return run

        fibers.run(roles, [act(role, i - 1) for i, role in enumerate(roles)])
        return ()

    return step


MEANINGS: Final[Meanings] = {
    ArriveExpectOp: _arrive_expect,
    ArriveOp: _arrive,
    CreateBarriersOp: _create_barriers,
    CreateDescriptorOp: _create_descriptor,
    ProxyFenceOp: _fence,
    TmaLoadOp: _load,
    TmaStoreOp: _store,
    TmaStoreWaitOp: _store_wait,
    WaitOp: _wait,
    WarpSpecializeOp: _specialize,
    WarpgroupBarrierOp: _warpgroup_barrier,
    WarpgroupMmaOp: _mma,
    WarpgroupSliceOp: _slice,
    WarpgroupWaitOp: _warpgroup_wait,
}
