"""What a kernel needs and does: VMEM, operations, bytes between HBM and VMEM."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from xdsl.dialects import scf
from xdsl.ir import Operation
from xdsl.ir.affine import AffineSymExpr

from gemmir.backends.pallas.arrays import Axis, Operand
from gemmir.backends.pallas.emitter import element_of, shape_of
from gemmir.backends.pallas.types import item_bytes
from gemmir.errors import BackendError
from gemmir.ir.dialect import enclosing_ops, memref_type
from gemmir.ir.index import constant_of, upper_bound
from gemmir.ir.pallas import PARALLEL, BlockAttr, CallOp, DotOp
from gemmir.machine import TpuMachine

MIB: Final = 1024 * 1024

REGISTER_BITS: Final = 32
"""Bits of one element of a vector register; narrower types are packed into them by rows."""

LEAST_LIMIT: Final = 16 * MIB
"""What a kernel may use of VMEM where it does not say how much, on the smallest TPU."""

XLA_BYTES: Final = 16 * MIB
"""What XLA keeps of VMEM beside operands that it has put there, as libtpu 0.0.52 refuses kernels
that leave it less."""

TRANSCENDENTAL: Final = ("math.exp", "math.tanh")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What XLA is told of a kernel, to order it among other work."""

    flops: int
    bytes_accessed: int
    transcendentals: int


def padded_bytes(shape: Sequence[int], item: int, machine: TpuMachine) -> int:
    """Bytes of a matrix in VMEM, where it is cut into tiles of whole registers."""
    rows, columns = shape
    tile = machine.sublanes * (REGISTER_BITS // 8 // item)
    return _rounded(rows, tile) * _rounded(columns, machine.lanes) * item


def _rounded(extent: int, multiple: int) -> int:
    return -(-extent // multiple) * multiple


def in_vmem_before(operand: Operand, block: BlockAttr) -> bool:
    """Whether all of an operand is in VMEM before the first step, so that XLA copies it there."""
    return block.buffers.data == 1 and operand.is_whole


def vmem_limit(call: CallOp, operands: Sequence[Operand], machine: TpuMachine) -> int:
    """VMEM that the kernel may use: its blocks and scratch, and room for what it computes.

    That room is for each product and each vector it is made of, and for three matrices as large as
    the largest: the compiler keeps in registers what it can. Operands that are in VMEM before the
    kernel begins are not its own: XLA refuses to put them there where the limit leaves no room.
    Raises `BackendError` GEM0470 where
    the blocks and scratch alone are more than the machine has.
    """
    sizes = [
        (
            block.buffers.data * padded_bytes(operand.block, operand.item_bytes, machine),
            in_vmem_before(operand, block),
        )
        for operand, block in zip(operands, call.blocks, strict=True)
    ]
    held, before = sum(size for size, _ in sizes), sum(size for size, is_in in sizes if is_in)
    for buffer in call.scratch:
        held += padded_bytes(
            memref_type(buffer).get_shape(), item_bytes(memref_type(buffer).element_type), machine
        )
    room = machine.vmem_bytes_per_core - (XLA_BYTES if before else 0)
    if held > room:
        raise BackendError(
            "GEM0470",
            f"blocks and scratch buffers take {held} bytes of VMEM, and {machine.name} has {room}"
            + (" beside what XLA keeps" if before else ""),
            "tile m, n or k smaller",
        )
    wanted = _rounded(held - before + _temporaries(call, machine), MIB)
    return min(max(wanted, LEAST_LIMIT), room - before)


def _temporaries(call: CallOp, machine: TpuMachine) -> int:
    """Room for operands and results of products, and for three matrices of 32 bits."""
    values = [value for op in _dots(call) for value in (*op.operands, op.result)]
    sizes = [
        padded_bytes(shape_of(value), item_bytes(element_of(value)), machine)
        for value in dict.fromkeys(values)
    ]
    results = [result for op in call.body.walk() for result in op.results if shape_of(result)]
    wide = [padded_bytes(shape_of(result), REGISTER_BITS // 8, machine) for result in results]
    return sum(sizes) + 3 * max(wide, default=0)


def cost_of(call: CallOp, operands: Sequence[Operand]) -> Cost:
    """Operations of all steps on whole blocks, and the bytes that are copied."""
    return Cost(
        flops=sum(2 * _product_size(op) * _times(call, op) for op in _dots(call)),
        bytes_accessed=sum(copies(call, operand) * operand.item_bytes for operand in operands),
        transcendentals=sum(
            math.prod(shape_of(op.results[0])) * _times(call, op)
            for op in call.body.walk()
            if op.name in TRANSCENDENTAL
        ),
    )


def _dots(call: CallOp) -> list[DotOp]:
    return [op for op in call.body.walk() if isinstance(op, DotOp)]


def _product_size(op: DotOp) -> int:
    return math.prod(shape_of(op.lhs)) * shape_of(op.result)[1]


def _times(call: CallOp, op: Operation) -> int:
    """How often an op is run; under a condition once for all steps that are made in order.

    A step that visits a part of a product is taken to have rows, which is a condition too.
    """
    conditions = sum(isinstance(o, scf.IfOp) for o in enclosing_ops(op))
    is_conditional = conditions > (call.prefetched is not None)
    parts = math.prod(_parts(o) for o in enclosing_ops(op) if isinstance(o, scf.ForOp))
    return parts * math.prod(
        steps
        for dim, (steps, word) in enumerate(zip(call.extents, call.semantics, strict=True))
        if not is_conditional or word.data == PARALLEL or dim == visiting(call)
    )


def _parts(loop: scf.ForOp) -> int:
    """How often a loop inside of a step runs at most."""
    begin, end, step = constant_of(loop.lb), upper_bound(loop.ub), constant_of(loop.step)
    assert begin is not None and end is not None and step is not None
    return len(range(begin, end, step))


def visiting(call: CallOp) -> int | None:
    """The dimension of the grid whose steps visit what is prefetched for them."""
    return None if call.along is None else call.along.value.data


def copies(call: CallOp, operand: Operand) -> int:
    """Elements that are copied: a block that two steps in a row use is copied once."""
    used = set[int]().union(*(axis.index.used_dims() for axis in operand.axes))
    along = visiting(call)
    if along is not None and any(map(_is_prefetched, operand.axes)):
        used.add(along)
    moving = {dim for dim in used if call.extents[dim] > 1}
    last = max(moving, default=-1)
    again = [steps for dim, steps in enumerate(call.extents[: last + 1]) if dim not in moving]
    return math.prod(operand.shape) * math.prod(again)


def _is_prefetched(axis: Axis) -> bool:
    return any(isinstance(e, AffineSymExpr) for e in axis.index.dfs())
