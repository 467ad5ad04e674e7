"""The nvgpu dialect: products of a whole warp, and copies that land as late as waits allow.

Until it lands, the target of a copy is as new memory: what is read too early shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from xdsl.dialects.builtin import IntegerAttr, VectorType

from gemmir.evaluate.fault import FaultError
from gemmir.evaluate.frame import Frame, Meanings, Step
from gemmir.evaluate.products import multiply
from gemmir.evaluate.turns import BLOCK
from gemmir.evaluate.values import Array, dtype_of, never_written
from gemmir.evaluate.view import View
from gemmir.ir.nvgpu import (
    AsyncCopyOp,
    AsyncCreateGroupOp,
    AsyncWaitOp,
    LdMatrixOp,
    MmaSyncOp,
)


def _number(attribute: IntegerAttr) -> int:
    return attribute.value.data


def _ldmatrix(frame: Frame, op: LdMatrixOp) -> Step:
    made = op.result.type
    assert isinstance(made, VectorType)
    shape = made.get_shape()

    def step(source: View, *indices: int) -> tuple[Array]:
        return (source.read(indices, shape),)

    return step


def _mma_sync(frame: Frame, op: MmaSyncOp) -> Step:
    summed = dtype_of(op.acc.type)

    def step(lhs: Array, rhs: Array, acc: Array) -> tuple[Array]:
        return (acc + multiply(lhs, rhs, summed, op.precision),)

    return step


def begin_copy(frame: Frame, target: View, land: Callable[[], None]) -> None:
    """Let `land` happen when a wait asks for it; what is in `target` is lost now."""
    dtype, turn = target.buffer.data.dtype, frame.turn
    target.fill_from(np.full(target.sizes, never_written(dtype), dtype))
    thread = turn.thread

    def land_of_thread() -> None:
        turn.thread = thread
        land()
        turn.thread = BLOCK

    frame.fibers.current.begun.append(land_of_thread)


def _async_copy(frame: Frame, op: AsyncCopyOp) -> Step:
    count, along = _number(op.elements), _number(op.along)
    ranks = len(op.source_indices), len(op.target_indices)

    def step(source: View, *rest: object) -> tuple[()]:
        at, to, target, valid = _operands(rest, ranks)
        shape, there = [1, 1], [1, 1]
        shape[along], there[along] = count, min(max(valid, 0), count)
        elements: Array = np.zeros(shape, source.buffer.data.dtype)
        if there[along]:
            elements[: there[0], : there[1]] = source.read(at, (there[0], there[1]))
        window = target.window(to, (shape[0], shape[1]))
        begin_copy(frame, window, lambda: window.fill_from(elements))
        return ()

    return step


def _operands(
    rest: Sequence[object], ranks: tuple[int, int]
) -> tuple[tuple[int, ...], tuple[int, ...], View, int]:
    """Indices of the source, indices of the target, the target, and how much is valid."""
    first, second = ranks
    at, target, to, valid = rest[:first], rest[first], rest[first + 1 : -1], rest[-1]
    assert isinstance(target, View)
    assert isinstance(valid, int)
    assert len(to) == second
    return _indices(at), _indices(to), target, valid


def _indices(values: Sequence[object]) -> tuple[int, ...]:
    found = tuple([v for v in values if isinstance(v, int)])
    assert len(found) == len(values)
    return found


def _create_group(frame: Frame, op: AsyncCreateGroupOp) -> Step:
    def step() -> tuple[()]:
        fiber = frame.fibers.current
        fiber.groups.append(fiber.begun)
        fiber.begun = []
        return ()

    return step


def _wait(frame: Frame, op: AsyncWaitOp) -> Step:
    allowed = _number(op.groups)

    def step() -> tuple[()]:
        fiber = frame.fibers.current
        if fiber.begun:
            raise FaultError("GEM0911", f"{len(fiber.begun)} copies belong to no group")
        while len(fiber.groups) > allowed:
            for land in fiber.groups.pop(0):
                land()
        return ()

    return step


MEANINGS: Final[Meanings] = {
    AsyncCopyOp: _async_copy,
    AsyncCreateGroupOp: _create_group,
    AsyncWaitOp: _wait,
    LdMatrixOp: _ldmatrix,
    MmaSyncOp: _mma_sync,
}
