"""Emitters of copies by the TMA, and the tensor maps that they need as parameters of a kernel."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects import func, memref
from xdsl.ir import Operation, SSAValue

from gemmir.backends.llvm.emitter import Emitter, Table
from gemmir.backends.ptx.barriers import barrier_at
from gemmir.backends.ptx.shared import item_bytes
from gemmir.backends.ptx.threads import by_one
from gemmir.backends.ptx.windows import address, pointer, window_of
from gemmir.dtypes import BY_MLIR
from gemmir.errors import BackendError
from gemmir.ir.attributes import SwizzleAttr
from gemmir.ir.dialect import memref_type, static_strides
from gemmir.ir.tma import CreateDescriptorOp, TmaLoadOp, TmaStoreOp, TmaStoreWaitOp, box_of
from gemmir.ir.views import chain
from gemmir.ir.warpgroup import WarpgroupMmaOp
from gemmir.launch import TensorMap

PARAMETER = 'ptr byval([128 x i8]) align 64 "nvvm.grid_constant"'
"""A tensor map is read where the parameters are: it is never copied."""

STEP_BYTES = 16
"""What addresses and strides in global memory are multiples of: CUDA driver API,
cuTensorMapEncodeTiled."""


def descriptors_of(function: func.FuncOp, kernel: Operation) -> list[CreateDescriptorOp]:
    """The descriptors of `function` that `kernel` uses, in the order of the text."""
    found = [op for op in function.walk() if isinstance(op, CreateDescriptorOp)]
    return [op for op in found if any(kernel.is_ancestor(u.operation) for u in op.result.uses)]


def tensor_map(
    op: CreateDescriptorOp, pointers: Sequence[SSAValue], kernel: Operation
) -> TensorMap:
    """What the driver is to encode for `op`; `pointers` are the other parameters of `kernel`.

    Elements of f32 that are multiplied as tf32 are rounded to it when they are copied. Raises
    `BackendError` GEM0449 where the TMA cannot reach the matrix.
    """
    argument, offset = _origin(op.tensor, pointers)
    tensor, box = memref_type(op.tensor), box_of(op.result)
    shape, strides, item = tensor.get_shape(), static_strides(tensor), item_bytes(tensor)
    rank = len(shape)
    order = [rank - 2 + op.fast, rank - 1 - op.fast, *range(rank - 3, -1, -1)]
    lengths = [*box.get_shape()]
    of_box = [lengths[op.fast], lengths[1 - op.fast], *([1] * (rank - 2))]
    layout = box.layout
    swizzle = layout.width.data * item if isinstance(layout, SwizzleAttr) else 0
    distances = tuple(strides[dim] * item for dim in order[1:])
    _require_reachable(op, (offset * item, *distances))
    if (swizzle and of_box[0] * item != swizzle) or of_box[0] * item % STEP_BYTES:
        raise BackendError(
            "GEM0449",
            f"a box of {of_box[0]} adjacent elements of {item} bytes in rows of "
            f"{swizzle or STEP_BYTES} bytes",
            f"use boxes of {max(swizzle, STEP_BYTES) // item} elements along dimension {op.fast}",
        )
    ends = shape[order[0]] * item
    if ends % STEP_BYTES and any(isinstance(use.operation, TmaStoreOp) for use in op.result.uses):
        raise BackendError(
            "GEM0449",
            f"stores by the TMA to rows of {ends} bytes of {tensor}",
            f"rows end at a multiple of {STEP_BYTES}, or are stored by threads: leave "
            "promote{operand=c to=shared …} out",
        )
    if 0 in shape:
        raise BackendError("GEM0449", f"a copy of boxes of {tensor}", "leave pipeline out")
    return TensorMap(
        argument=argument,
        item=_item(op, kernel),
        extents=tuple(shape[dim] for dim in order),
        strides_bytes=distances,
        box=tuple(of_box),
        swizzle_bytes=swizzle,
        offset_bytes=offset * item,
    )


def _require_reachable(op: CreateDescriptorOp, distances: Sequence[int]) -> None:
    wrong = [n for n in distances if n % STEP_BYTES]
    if wrong:
        raise BackendError(
            "GEM0449",
            f"the TMA copies from {memref_type(op.tensor)}, and {wrong[0]} bytes are no multiple "
            f"of {STEP_BYTES}",
            "use leading dimensions of whole 16 bytes, or pipeline without with=tma",
        )


def _origin(value: SSAValue, pointers: Sequence[SSAValue]) -> tuple[int, int]:
    """Which of `pointers` a matrix is part of, and how many elements behind it."""
    offset = 0
    while value not in pointers:
        view = value.owner
        if not isinstance(view, memref.ReinterpretCastOp | memref.SubviewOp):
            raise BackendError(
                "GEM0449", f"a copy by the TMA from {value.type}, which is no array of the caller"
            )
        offset += _offset(view)
        value = view.source
    return list(pointers).index(value), offset


def _offset(view: memref.ReinterpretCastOp | memref.SubviewOp) -> int:
    """Elements that a view begins behind its source."""
    places = view.static_offsets.get_values()
    if view.offsets:
        raise BackendError(
            "GEM0449",
            f"a copy by the TMA from {view.results[0].type}, whose place is not static",
            "give the place to the copy, not to the descriptor",
        )
    if isinstance(view, memref.ReinterpretCastOp):
        return places[0]
    return sum(n * s for n, s in zip(places, static_strides(memref_type(view.source)), strict=True))


def _item(op: CreateDescriptorOp, kernel: Operation) -> str:
    loaded = [use.operation for use in op.result.uses if isinstance(use.operation, TmaLoadOp)]
    targets = [chain(load.target)[0] for load in loaded]
    for product in kernel.walk():
        if not isinstance(product, WarpgroupMmaOp) or product.precision is None:
            continue
        if any(chain(v)[0] in targets for v in (product.a, product.b)):
            return product.precision.data.value
    return BY_MLIR[str(memref_type(op.tensor).element_type)].name


def _descriptor(e: Emitter, op: CreateDescriptorOp) -> None:
    """A parameter of the kernels that use it, which one thread fetches while others begin.

    Inline assembly, since LLVM would fetch it twice: by its address among the parameters too.
    """
    if op.result in e.values:
        with by_one(e, op):
            place = e.scalar(op.result)
            e.text.line(f'call void asm sideeffect "prefetch.tensormap [$0];", "l"(ptr {place})')


def _places(e: Emitter, descriptor: SSAValue, indices: Sequence[SSAValue]) -> str:
    """Where the box is, the fastest dimension first."""
    op = descriptor.owner
    assert isinstance(op, CreateDescriptorOp)
    rank = len(indices)
    order = [rank - 2 + op.fast, rank - 1 - op.fast, *range(rank - 3, -1, -1)]
    return ", ".join(f"i32 {e.text.narrowed(e.scalar(indices[dim]))}" for dim in order)


def _load(e: Emitter, op: TmaLoadOp) -> None:
    """Of the form for clusters, which is the older one; its address of shared memory is the same.

    PTX ISA 9.0, section "Data movement and conversion instructions: cp.async.bulk.tensor".
    """
    text, rank = e.text, len(op.indices)
    intrinsic = f"@llvm.nvvm.cp.async.bulk.tensor.g2s.tile.{rank}d"
    types = ["ptr addrspace(7)", "ptr addrspace(3)", "ptr", *(["i32"] * rank)]
    text.declare(f"void {intrinsic}({', '.join(types)}, i16, i64, i1, i1, i32)")
    mask = 0 if op.multicast is None else op.multicast.value.data
    with by_one(e, op):
        bar = barrier_at(e, op.barriers, op.stage)
        begin = address(e, window_of(e, op.target))
        target = text.value(f"inttoptr i32 {begin} to ptr addrspace(7)")
        at = _places(e, op.descriptor, op.indices)
        text.line(
            f"call void {intrinsic}(ptr addrspace(7) {target}, ptr addrspace(3) {bar}, "
            f"ptr {e.scalar(op.descriptor)}, {at}, i16 {mask}, i64 0, i1 {int(mask > 0)}, i1 0, "
            "i32 0)"
        )


def _store(e: Emitter, op: TmaStoreOp) -> None:
    """A group of its own."""
    text, rank = e.text, len(op.indices)
    intrinsic = f"@llvm.nvvm.cp.async.bulk.tensor.s2g.tile.{rank}d"
    places = ", ".join(["i32"] * rank)
    text.declare(f"void {intrinsic}(ptr addrspace(3), ptr, {places}, i64, i1)")
    text.declare("void @llvm.nvvm.cp.async.bulk.commit.group()")
    with by_one(e, op):
        source = pointer(e, window_of(e, op.source))
        at = _places(e, op.descriptor, op.indices)
        text.line(
            f"call void {intrinsic}(ptr addrspace(3) {source}, ptr {e.scalar(op.descriptor)}, "
            f"{at}, i64 0, i1 0)"
        )
        text.line("call void @llvm.nvvm.cp.async.bulk.commit.group()")


def _store_wait(e: Emitter, op: TmaStoreWaitOp) -> None:
    e.text.declare("void @llvm.nvvm.cp.async.bulk.wait.group.read(i32)")
    with by_one(e, op):
        groups = op.groups.value.data
        e.text.line(f"call void @llvm.nvvm.cp.async.bulk.wait.group.read(i32 {groups})")


def finish_stores(e: Emitter, function: func.FuncOp) -> None:
    """The end of a kernel: a block must not end before its stores have read its shared memory."""
    if any(isinstance(op, TmaStoreOp) for op in function.walk()):
        e.text.declare("void @llvm.nvvm.cp.async.bulk.wait.group(i32)")
        e.text.line("call void @llvm.nvvm.cp.async.bulk.wait.group(i32 0)")


TMA: Table = {
    CreateDescriptorOp.name: _descriptor,
    TmaLoadOp.name: _load,
    TmaStoreOp.name: _store,
    TmaStoreWaitOp.name: _store_wait,
}
