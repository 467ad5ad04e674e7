"""Emitters of what is particular to a GPU: the indices of a thread, shared memory and barriers."""

from __future__ import annotations

import math

from xdsl.dialects import func, memref
from xdsl.dialects.builtin import FixedBitwidthType

from gemmir.backends.llvm.emitter import Emitter, Pointer, Table
from gemmir.backends.ptx.addresses import window
from gemmir.backends.ptx.fragments import spread
from gemmir.backends.ptx.launch import LANES, kernel_of, trips
from gemmir.backends.ptx.shared import shared_buffers, shared_memory
from gemmir.errors import BackendError
from gemmir.ir.attributes import Space, SpaceAttr
from gemmir.ir.dialect import (
    BLOCKS,
    WARPS,
    BarrierOp,
    ForallOp,
    PrefetchOp,
    YieldOp,
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
    kernel = kernel_of(op)
    number = shared_buffers(kernel).index(op)
    place = shared_memory(kernel, e.symbol).address(number)
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


def _none(e: Emitter, op: YieldOp | memref.DeallocOp) -> None:
    """The end of a loop over units, after which each goes on alone, or of a workspace."""


def _unsupported(e: Emitter, op: PrefetchOp | memref.AllocOp) -> None:
    raise BackendError(
        "GEM0421", f"{op.name} has no instruction on a GPU", "promote to shared, without prefetch"
    )


def workspaces(op: func.FuncOp) -> list[memref.AllocOp]:
    """The buffers in global memory that live for the whole call, in the order of the text."""
    ops = [o for o in op.body.block.ops if isinstance(o, memref.AllocOp)]
    return [o for o in ops if memref_type(o.memref).memory_space == SpaceAttr(Space.GLOBAL)]


def workspace_bytes(op: memref.AllocOp) -> int:
    """Bytes of a workspace."""
    t = memref_type(op.memref)
    element = t.element_type
    assert isinstance(element, FixedBitwidthType)
    return math.prod(t.get_shape()) * element.size


def _alloc(e: Emitter, op: memref.AllocOp) -> None:
    """A workspace is an argument of the kernel, which is there before it starts."""
    if op.memref not in e.values:
        _unsupported(e, op)


GPU: Table = {
    BarrierOp.name: _barrier,
    ForallOp.name: _forall,
    PrefetchOp.name: _unsupported,
    YieldOp.name: _none,
    func.ReturnOp.name: _return,
    memref.AllocOp.name: _alloc,
    memref.AllocaOp.name: _alloca,
    memref.DeallocOp.name: _none,
    memref.SubviewOp.name: window,
}
