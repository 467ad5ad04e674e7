"""Emitters of what is particular to a GPU: the indices of a thread, shared memory and barriers."""

from __future__ import annotations

import math

from xdsl.dialects import func, memref

from gemmir.backends.llvm.emitter import Emitter, Pointer, Table
from gemmir.backends.ptx.addresses import window
from gemmir.backends.ptx.fragments import spread
from gemmir.backends.ptx.launch import LANES, trips
from gemmir.backends.ptx.shared import shared_buffers, shared_memory
from gemmir.errors import BackendError
from gemmir.ir.dialect import (
    BLOCKS,
    WARPS,
    BarrierOp,
    ForallOp,
    PrefetchOp,
    YieldOp,
    enclosing_ops,
    is_shared,
    memref_type,
)
from gemmir.ir.index import constant_of

ALIGNMENT_BYTES = 16
"""The widest load and store of a thread: 128 bits."""


def _alloca(e: Emitter, op: memref.AllocaOp) -> None:
    """The address of a shared buffer; LLVM finds its address space again behind the cast."""
    if not is_shared(op.memref):
        raise BackendError("GEM0421", f"{op.name} outside shared memory has no instruction here")
    function = enclosing_ops(op)[-2]
    assert isinstance(function, func.FuncOp)
    number = shared_buffers(function).index(op)
    place = shared_memory(function).address(number)
    address = e.text.value(f"addrspacecast ptr addrspace(3) {place} to ptr")
    e.text.align(address, ALIGNMENT_BYTES)
    e.values[op.memref] = Pointer(address, tuple(map(str, memref_type(op.memref).get_shape())))


def _forall(e: Emitter, op: ForallOp) -> None:
    """One iteration: the unit that runs it reads its number and finds its index.

    Vectors inside a loop over warps belong to the whole warp, and are spread over its threads,
    unless a loop over the threads is inside that.
    """
    kind = "ctaid" if op.over.data == BLOCKS else "tid"
    index = _digit(e, kind, trips(op), _inner_trips(op))
    lb, step = constant_of(op.lb), constant_of(op.step)
    assert lb is not None and step is not None
    scaled = e.text.binary("mul", index, str(step))
    e.values[op.body.block.args[0]] = e.text.binary("add", scaled, str(lb))
    before = e.spread
    e.spread = spread if op.over.data == WARPS else None
    e.block(op.body.block)
    e.spread = before


def _inner_trips(op: ForallOp) -> int:
    """How many units of this kind the loops inside `op` take; a warp has always all its threads."""
    inner = [o for o in op.body.walk() if isinstance(o, ForallOp) and o.over == op.over]
    return math.prod(map(trips, inner)) * (LANES if op.over.data == WARPS else 1)


def _digit(e: Emitter, kind: str, count: int, weight: int) -> str:
    """number / weight % count, for the number of this block or thread."""
    if count == 1:
        return "0"
    text = e.text
    intrinsic = f"@llvm.nvvm.read.ptx.sreg.{kind}.x"
    text.declare(f"i32 {intrinsic}()")
    number = text.early(f"zext i32 {text.early(f'call i32 {intrinsic}()')} to i64")
    return text.binary("urem", text.binary("udiv", number, str(weight)), str(count))


def _barrier(e: Emitter, op: BarrierOp) -> None:
    e.text.declare("void @llvm.nvvm.barrier.cta.sync.aligned.all(i32) convergent nounwind")
    e.text.line("call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)")


def _return(e: Emitter, op: func.ReturnOp) -> None:
    e.text.line("ret void")


def _none(e: Emitter, op: YieldOp) -> None:
    """The end of a loop over units: each goes on alone."""


def _unsupported(e: Emitter, op: PrefetchOp | memref.AllocOp) -> None:
    raise BackendError(
        "GEM0421", f"{op.name} has no instruction on a GPU", "promote to shared, without prefetch"
    )


GPU: Table = {
    BarrierOp.name: _barrier,
    ForallOp.name: _forall,
    PrefetchOp.name: _unsupported,
    YieldOp.name: _none,
    func.ReturnOp.name: _return,
    memref.AllocOp.name: _unsupported,
    memref.AllocaOp.name: _alloca,
    memref.SubviewOp.name: window,
}
