"""Emitters of what is particular to a GPU: the indices of a thread, shared memory and barriers."""

from __future__ import annotations

import math

from xdsl.dialects import func, memref
from xdsl.dialects.builtin import FixedBitwidthType

from gemmir.backends.llvm.emitter import Emitter, Pointer, Table
from gemmir.backends.ptx.addresses import window
from gemmir.backends.ptx.launch import THREADS_OF, kernel_of, trips
from gemmir.backends.ptx.shared import alignment_bytes, shared_buffers, shared_memory
from gemmir.backends.ptx.spread import OF_GROUP, OF_WARP
from gemmir.backends.ptx.threads import register, thread_of, warp_of
from gemmir.backends.ptx.tma import finish_stores
from gemmir.errors import BackendError
from gemmir.ir.attributes import Space, SpaceAttr
from gemmir.ir.dialect import (
    BLOCKS,
    CLUSTERS,
    WARPGROUPS,
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
from gemmir.ir.warpgroup import WARPS_OF_GROUP

ALIGNMENT_BYTES = 16
"""The widest load and store of a thread: 128 bits."""


def _alloca(e: Emitter, op: memref.AllocaOp) -> None:
    """The address of a shared buffer; LLVM finds its address space again behind the cast."""
    if not is_shared(op.memref):
        raise BackendError(
            "GEM0421",
            f"{op.name} outside shared memory has no instruction here",
            "vectorize what is in registers, and promote A and B to=shared",
        )
    kernel = kernel_of(op)
    number = shared_buffers(kernel).index(op)
    place = shared_memory(kernel, e.symbol).address(number)
    address = e.text.value(f"addrspacecast ptr addrspace(3) {place} to ptr")
    e.text.align(address, alignment_bytes(memref_type(op.memref)))
    e.values[op.memref] = Pointer(address, tuple(map(str, memref_type(op.memref).get_shape())))


def _forall(e: Emitter, op: ForallOp) -> None:
    """One iteration: the unit that runs it reads its number and finds its index.

    Vectors inside a loop over warps or warpgroups belong to the whole of one, and are spread over
    its threads, unless a loop over the threads is inside that.
    """
    index = _digit(e, op)
    lb, step = constant_of(op.lb), constant_of(op.step)
    assert lb is not None and step is not None
    scaled = e.text.binary("mul", index, str(step))
    e.values[op.body.block.args[0]] = e.text.binary("add", scaled, str(lb))
    before = e.spread
    e.spread = {WARPS: OF_WARP, WARPGROUPS: OF_GROUP}.get(op.over.data)
    e.block(op.body.block)
    e.spread = before


def _digit(e: Emitter, op: ForallOp) -> str:
    """Which iteration of `op` this block or thread runs, from 0."""
    if trips(op) == 1:
        return "0"
    over = op.over.data
    inner = [o for o in op.body.walk() if isinstance(o, ForallOp)]
    kinds = (CLUSTERS, BLOCKS) if over == CLUSTERS else (over,)
    weight = math.prod(trips(o) for o in inner if o.over.data in kinds)
    if over == WARPGROUPS:
        number, weight = warp_of(e), weight * WARPS_OF_GROUP
    elif over in (CLUSTERS, BLOCKS):
        number = register(e, "cluster.ctarank" if _is_in_cluster(op) else "ctaid.x")
    else:
        number, weight = thread_of(e), weight * THREADS_OF.get(over, 1)
    text = e.text
    quotient = text.binary("udiv", text.widened(number), str(weight))
    return text.binary("urem", quotient, str(trips(op)))


def _is_in_cluster(op: ForallOp) -> bool:
    around = (o for o in enclosing_ops(op) if isinstance(o, ForallOp))
    return op.over.data == BLOCKS and any(o.over.data == CLUSTERS for o in around)


def _barrier(e: Emitter, op: BarrierOp) -> None:
    e.text.declare("void @llvm.nvvm.barrier.cta.sync.aligned.all(i32) convergent nounwind")
    e.text.line("call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)")


def _return(e: Emitter, op: func.ReturnOp) -> None:
    function = op.parent_op()
    assert isinstance(function, func.FuncOp)
    finish_stores(e, function)
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
