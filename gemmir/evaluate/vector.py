"""The vector dialect: transfers between a memref and a vector of the same rank.

Where a dimension is not in_bounds, elements past the extent of the memref read as the padding and
are not written; nor are those that a mask leaves out. A negative start is an error in any case.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

import numpy as np
from xdsl.dialects import vector
from xdsl.dialects.builtin import VectorType
from xdsl.ir import Attribute, SSAValue
from xdsl.ir.affine import AffineMap

from gemmir.evaluate.fault import FaultError
from gemmir.evaluate.frame import Frame, Meanings, Step
from gemmir.evaluate.values import Array, Element
from gemmir.evaluate.view import View
from gemmir.ir.transfers import EXCHANGED


def _shape(op: vector.TransferReadOp | vector.TransferWriteOp, of: SSAValue) -> tuple[int, ...]:
    shape = cast("VectorType[Attribute]", of.type).get_shape()
    is_exchanged = isinstance(op, vector.TransferReadOp) and op.permutation_map.data == EXCHANGED
    if op.permutation_map.data != AffineMap.identity(len(op.indices)) and not is_exchanged:
        raise FaultError("GEM0903", "a transfer has the identity map")
    if op.mask is not None and (isinstance(op, vector.TransferReadOp) or any(_may_end_early(op))):
        raise FaultError("GEM0903", "only writes that are in bounds have a mask")
    return shape


def _may_end_early(op: vector.TransferReadOp | vector.TransferWriteOp) -> tuple[bool, ...]:
    return tuple(not flag.value.data for flag in op.in_bounds.data)


def _inside(
    view: View, starts: tuple[int, ...], shape: tuple[int, ...], may_end_early: tuple[bool, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The start and extent of what lies in the memref, cut in dimensions that may end early."""
    if True not in may_end_early:
        return starts, shape
    cut = [
        (min(start, size), min(extent, max(size - start, 0))) if clips else (start, extent)
        for size, start, extent, clips in zip(view.sizes, starts, shape, may_end_early, strict=True)
    ]
    return tuple([start for start, _ in cut]), tuple([extent for _, extent in cut])


def _leading(extents: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple([slice(n) for n in extents])


def _transfer_read(frame: Frame, op: vector.TransferReadOp) -> Step:
    shape, clips = _shape(op, op.result), _may_end_early(op)
    if op.permutation_map.data != EXCHANGED:
        return _read(shape, clips)
    read = _read(shape[::-1], clips[::-1])

    def step(view: View, *rest: Element) -> tuple[Array]:
        return (read(view, *rest)[0].T,)

    return step


def _read(shape: tuple[int, ...], clips: tuple[bool, ...]) -> Callable[..., tuple[Array]]:

    def step(view: View, *rest: Element) -> tuple[Array]:
        starts, inside = _inside(view, rest[:-1], shape, clips)
        found = view.read(starts, inside)
        if inside == shape:
            return (found,)
        padded = np.full(shape, rest[-1], found.dtype)
        padded[_leading(inside)] = found
        return (padded,)

    return step


def _transfer_write(frame: Frame, op: vector.TransferWriteOp) -> Step:
    shape, clips = _shape(op, op.vector), _may_end_early(op)

    def write_some(elements: Array, view: View, *rest: Element) -> tuple[()]:
        *starts, mask = rest
        old = view.read(tuple(starts), shape)
        view.write(tuple(starts), np.where(mask, elements, old))
        return ()

    def step(elements: Array, view: View, *starts: int) -> tuple[()]:
        origin, inside = _inside(view, starts, shape, clips)
        view.write(origin, elements if inside == shape else elements[_leading(inside)])
        return ()

    return step if op.mask is None else write_some


def _create_mask(frame: Frame, op: vector.CreateMaskOp) -> Step:
    shape = cast("VectorType[Attribute]", op.mask_vector.type).get_shape()

    def step(*ends: int) -> tuple[Array]:
        mask = np.zeros(shape, np.bool_)
        mask[tuple([slice(max(end, 0)) for end in ends])] = True
        return (mask,)

    return step


def _broadcast(frame: Frame, op: vector.BroadcastOp) -> Step:
    """One scalar, or one row, everywhere."""
    shape = op.vector.type.get_shape()

    def step(value: Element) -> tuple[Array]:
        return (np.broadcast_to(np.asarray(value), shape),)

    return step


MEANINGS: Final[Meanings] = {
    vector.BroadcastOp: _broadcast,
    vector.CreateMaskOp: _create_mask,
    vector.TransferReadOp: _transfer_read,
    vector.TransferWriteOp: _transfer_write,
}
