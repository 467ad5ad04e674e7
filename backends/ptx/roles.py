"""Emitter of what only some warps of a block run: one thread that copies, and warpgroups that do
not."""

from __future__ import annotations

from gemmir.backends.llvm.emitter import Emitter, Table
from gemmir.backends.ptx.spread import OF_GROUP
from gemmir.backends.ptx.threads import CONVERGENT, OneThread, group_of, warp_of
from gemmir.ir.warpgroup import WarpSpecializeOp


def _specialize(e: Emitter, op: WarpSpecializeOp) -> None:
    """The first warpgroup copies, by one thread of its first warp; all come together afterwards."""
    text = e.text
    e.counts_in_32_bits = True
    copies, multiplies, done = (text.fresh(s) for s in ("producer", "consumers", "together"))
    is_first = text.early(f"icmp eq i32 {group_of(e)}, 0")
    text.line(f"br i1 {is_first}, label %{copies}, label %{multiplies}")
    fewer, more = op.registers
    text.start(copies)
    _keep(e, "dec", fewer)
    with OneThread(e, text.early(f"icmp eq i32 {warp_of(e)}, 0")), OneThread(e, _elected(e)):
        e.block(op.producer.block)
    text.line(f"br label %{done}")
    text.start(multiplies)
    _keep(e, "inc", more)
    number = text.early(f"sub i32 {group_of(e)}, 1")
    e.values[op.consumers.block.args[0]] = e.text.widened(number)
    before, e.spread = e.spread, OF_GROUP
    e.block(op.consumers.block)
    e.spread = before
    e.counts_in_32_bits = False
    text.line(f"br label %{done}")
    text.start(done)


def _keep(e: Emitter, change: str, registers: int) -> None:
    name = f"@llvm.nvvm.setmaxnreg.{change}.sync.aligned.u32"
    e.text.declare(f"void {name}(i32) {CONVERGENT}")
    e.text.line(f"call void {name}(i32 {registers})")


def _elected(e: Emitter) -> str:
    """Whether this is the one thread of its warp; the hardware knows it to be one."""
    made = "{ i32, i1 }"
    e.text.declare(f"{made} @llvm.nvvm.elect.sync(i32) {CONVERGENT}")
    found = e.text.value(f"call {made} @llvm.nvvm.elect.sync(i32 -1)")
    return e.text.value(f"extractvalue {made} {found}, 1")


ROLES: Table = {WarpSpecializeOp.name: _specialize}
