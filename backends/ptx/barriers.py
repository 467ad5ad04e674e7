"""Emitters of barriers: those of a warpgroup and a cluster, and mbarriers in shared memory."""

from __future__ import annotations

from xdsl.ir import SSAValue

from gemmir.backends.llvm.emitter import Emitter, Pointer, Table
from gemmir.backends.ptx.launch import GROUP_THREADS
from gemmir.backends.ptx.threads import (
    CONVERGENT,
    OneThread,
    by_one,
    group_of,
    is_in_roles,
    lane_of,
    thread_of,
)
from gemmir.backends.ptx.windows import Sum, Window, pointer, sum_of
from gemmir.ir.dialect import memref_type
from gemmir.ir.tma import ArriveExpectOp, ArriveOp, CreateBarriersOp, ProxyFenceOp, WaitOp
from gemmir.ir.warpgroup import ClusterBarrierOp, WarpgroupBarrierOp


def _create(e: Emitter, op: CreateBarriersOp) -> None:
    """The first thread sets all of them up; others see them after the next barrier."""
    text = e.text
    (stages,) = memref_type(op.result).get_shape()
    e.values[op.result] = Pointer("", (str(stages),))
    text.declare("void @llvm.nvvm.mbarrier.init.shared(ptr addrspace(3), i32)")
    text.declare("void @llvm.nvvm.fence.mbarrier_init.release.cluster()")
    with OneThread(e, text.early(f"icmp eq i32 {thread_of(e)}, 0")):
        for stage in range(stages):
            at = pointer(e, Window(root=op.result, offsets=(Sum(stage),)))
            arrivals = op.arrivals.value.data
            text.line(
                f"call void @llvm.nvvm.mbarrier.init.shared(ptr addrspace(3) {at}, i32 {arrivals})"
            )
        text.line("call void @llvm.nvvm.fence.mbarrier_init.release.cluster()")


def barrier_at(e: Emitter, barriers: SSAValue, stage: SSAValue) -> str:
    """The address of one of `barriers`."""
    return pointer(e, Window(root=barriers, offsets=(sum_of(stage),)))


def _expect(e: Emitter, op: ArriveExpectOp) -> None:
    intrinsic = "@llvm.nvvm.mbarrier.arrive.expect.tx.scope.cta.space.cta"
    e.text.declare(f"i64 {intrinsic}(ptr addrspace(3), i32)")
    with by_one(e, op):
        at = barrier_at(e, op.barriers, op.stage)
        e.text.value(f"call i64 {intrinsic}(ptr addrspace(3) {at}, i32 {op.bytes.value.data})")


def _arrive(e: Emitter, op: ArriveOp) -> None:
    """One lane of each warp; in a cluster lane b does it for its block b.

    There the scope stays that of a block: a wider one would cost a fence of all memory.
    """
    text = e.text
    blocks = 1 if op.cluster is None else op.cluster.value.data
    condition = text.early(f"icmp ult i64 {lane_of(e)}, {blocks}")
    with OneThread(e, condition):
        at = barrier_at(e, op.barriers, op.stage)
        if op.cluster is None:
            intrinsic = "@llvm.nvvm.mbarrier.arrive.scope.cta.space.cta"
            text.declare(f"i64 {intrinsic}(ptr addrspace(3), i32)")
            text.value(f"call i64 {intrinsic}(ptr addrspace(3) {at}, i32 1)")
            return
        text.declare("ptr addrspace(7) @llvm.nvvm.mapa.shared.cluster(ptr addrspace(3), i32)")
        intrinsic = "@llvm.nvvm.mbarrier.arrive.scope.cta.space.cluster"
        text.declare(f"void {intrinsic}(ptr addrspace(7), i32)")
        block = text.narrowed(lane_of(e))
        there = text.value(
            "call ptr addrspace(7) @llvm.nvvm.mapa.shared.cluster"
            f"(ptr addrspace(3) {at}, i32 {block})"
        )
        text.line(f"call void {intrinsic}(ptr addrspace(7) {there}, i32 1)")


def _wait(e: Emitter, op: WaitOp) -> None:
    """Try until the phase is over; each try sleeps for a while."""
    text = e.text
    intrinsic = "@llvm.nvvm.mbarrier.try.wait.parity.scope.cta.space.cta"
    text.declare(f"i1 {intrinsic}(ptr addrspace(3), i32)")
    at = barrier_at(e, op.barriers, op.stage)
    again, done = text.fresh("wait"), text.fresh("over")
    text.line(f"br label %{again}")
    text.start(again)
    is_over = text.value(f"call i1 {intrinsic}(ptr addrspace(3) {at}, i32 {e.scalar(op.parity)})")
    text.line(f"br i1 {is_over}, label %{done}, label %{again}")
    text.start(done)


def _fence(e: Emitter, op: ProxyFenceOp) -> None:
    e.text.declare("void @llvm.nvvm.fence.proxy.async.shared_cta()")
    e.text.line("call void @llvm.nvvm.fence.proxy.async.shared_cta()")


def _group_barrier(e: Emitter, op: WarpgroupBarrierOp) -> None:
    """The named barrier of this warpgroup: number 0 is that of the block.

    Where warps have roles, the warpgroup 0 copies, and has none.
    """
    text = e.text
    number = group_of(e)
    if not is_in_roles(op):
        number = text.early(f"add i32 {number}, 1")
    intrinsic = "@llvm.nvvm.barrier.cta.sync.aligned.count"
    text.declare(f"void {intrinsic}(i32, i32) {CONVERGENT}")
    text.line(f"call void {intrinsic}(i32 {number}, i32 {GROUP_THREADS})")


def _cluster_barrier(e: Emitter, op: ClusterBarrierOp) -> None:
    """Not the form for warps that have come together: those with roles may have not."""
    for step in ("arrive", "wait"):
        e.text.declare(f"void @llvm.nvvm.barrier.cluster.{step}() {CONVERGENT}")
        e.text.line(f"call void @llvm.nvvm.barrier.cluster.{step}()")


BARRIERS: Table = {
    ArriveExpectOp.name: _expect,
    ArriveOp.name: _arrive,
    ClusterBarrierOp.name: _cluster_barrier,
    CreateBarriersOp.name: _create,
    ProxyFenceOp.name: _fence,
    WaitOp.name: _wait,
    WarpgroupBarrierOp.name: _group_barrier,
}
