"""Emitters of asynchronous copies: `cp.async` and its groups."""

from __future__ import annotations

from xdsl.dialects.builtin import FixedBitwidthType

from gemmir.backends.llvm.emitter import Emitter, Table
from gemmir.backends.llvm.text import is_literal
from gemmir.backends.ptx.addresses import address_of
from gemmir.errors import BackendError
from gemmir.ir.dialect import memref_type
from gemmir.ir.nvgpu import AsyncCopyOp, AsyncCreateGroupOp, AsyncWaitOp


def _async_copy(e: Emitter, op: AsyncCopyOp) -> None:
    """16 bytes go past the first cache level, which 4 and 8 cannot."""
    text = e.text
    source = memref_type(op.source)
    element = source.element_type
    assert isinstance(element, FixedBitwidthType)
    count = op.elements.value.data
    moved = count * element.size
    origin = address_of(e, op.source, [e.scalar(i) for i in op.source_indices])
    target = address_of(e, op.target, [e.scalar(i) for i in op.target_indices])
    for name, address in (("source", origin), ("target", target)):
        if text.alignment(address, 0) % moved:
            raise BackendError(
                "GEM0425",
                f"an asynchronous copy of {moved} bytes, whose {name} is aligned to "
                f"{text.alignment(address, 0)}",
                "tile k, m and n by multiples of 16 bytes, or leave pipeline out",
            )
    kind = "cg" if moved == 16 else "ca"
    name = f"@llvm.nvvm.cp.async.{kind}.shared.global.{moved}"
    shared = text.value(f"addrspacecast ptr {target} to ptr addrspace(3)")
    there = text.value(f"addrspacecast ptr {origin} to ptr addrspace(1)")
    pointers = f"ptr addrspace(3) {shared}, ptr addrspace(1) {there}"
    valid = e.scalar(op.valid)
    if is_literal(valid) and int(valid) >= count:
        text.declare(f"void {name}(ptr addrspace(3), ptr addrspace(1))")
        text.line(f"call void {name}({pointers})")
        return
    size = _clamped(e, valid, count)
    bytes_ = text.value(f"trunc i64 {text.mul(size, str(element.size))} to i32")
    text.declare(f"void {name}.s(ptr addrspace(3), ptr addrspace(1), i32)")
    text.line(f"call void {name}.s({pointers}, i32 {bytes_})")


def _clamped(e: Emitter, valid: str, count: int) -> str:
    """`valid` from 0 to `count`."""
    e.text.declare("i64 @llvm.smin.i64(i64, i64)")
    e.text.declare("i64 @llvm.smax.i64(i64, i64)")
    least = e.text.value(f"call i64 @llvm.smax.i64(i64 {valid}, i64 0)")
    return e.text.value(f"call i64 @llvm.smin.i64(i64 {least}, i64 {count})")


def _create_group(e: Emitter, op: AsyncCreateGroupOp) -> None:
    e.text.declare("void @llvm.nvvm.cp.async.commit.group()")
    e.text.line("call void @llvm.nvvm.cp.async.commit.group()")


def _wait(e: Emitter, op: AsyncWaitOp) -> None:
    e.text.declare("void @llvm.nvvm.cp.async.wait.group(i32)")
    e.text.line(f"call void @llvm.nvvm.cp.async.wait.group(i32 {op.groups.value.data})")


COPIES: Table = {
    AsyncCopyOp.name: _async_copy,
    AsyncCreateGroupOp.name: _create_group,
    AsyncWaitOp.name: _wait,
}
