"""Emitters of memref, vector transfers and gemmir.prefetch: addresses, masks and transposition."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xdsl.dialects import memref, vector
from xdsl.dialects.builtin import FixedBitwidthType, VectorType
from xdsl.ir import SSAValue

from gemmir.backends.llvm.bf16 import BF16_BITS
from gemmir.backends.llvm.emitter import Columns, Emitter, Pointer, Table, shape_of
from gemmir.backends.llvm.panels import (
    GROUP_BYTES,
    depth_of,
    read_groups,
    read_words,
    write_groups,
)
from gemmir.backends.llvm.text import (
    Stride,
    is_literal,
    lanes_type,
    scalar_type,
    splat_literal,
    suffix,
    transposed,
)
from gemmir.errors import BackendError
from gemmir.ir.attributes import PanelAttr, Space
from gemmir.ir.dialect import Number, OuterProductOp, PrefetchOp, memref_type
from gemmir.ir.index import upper_bound
from gemmir.ir.transfers import EXCHANGED
from gemmir.ir.views import cast_strides, extents, offsets_of, sizes_of

CACHE_LINE_BYTES = 64

LOAD_BYTES = 16
"""The widest load and store of a GPU, which asks for an address that is a multiple of it."""


def buffer_bytes(op: memref.AllocOp) -> int:
    """Bytes of a buffer, a multiple of its alignment."""
    t = memref_type(op.memref)
    element = t.element_type
    assert isinstance(element, FixedBitwidthType)
    alignment = _alignment(op)
    count = math.prod(t.get_shape())
    if isinstance(t.layout, PanelAttr):
        panels = -(-t.get_shape()[t.layout.dim.data] // t.layout.width.data)
        count = panels * t.layout.stride.data
    return -(-element.size * count // alignment) * alignment


def _alignment(op: memref.AllocOp) -> int:
    assert op.alignment is not None
    return op.alignment.value.data


def allocate(e: Emitter, op: memref.AllocOp, size: str) -> None:
    """`size` bytes on the heap; where there is no memory left, free the others and return 1."""
    text = e.text
    alignment = _alignment(op)
    text.declare("noalias ptr @aligned_alloc(i64, i64)")
    text.declare("void @free(ptr)")
    address = text.value(f"call noalias ptr @aligned_alloc(i64 {alignment}, i64 {size})")
    missing, present = text.fresh("missing"), text.fresh("present")
    failed = text.value(f"icmp eq ptr {address}, null")
    text.line(f"br i1 {failed}, label %{missing}, label %{present}")
    text.start(missing)
    for buffer in e.buffers:
        text.line(f"call void @free(ptr {buffer})")
    text.line("ret i32 1")
    text.start(present)
    e.buffers.append(address)
    e.values[op.memref] = Pointer(address, tuple(map(str, memref_type(op.memref).get_shape())))


def _alloc(e: Emitter, op: memref.AllocOp) -> None:
    """A heap buffer; those of a thread are there before its team starts."""
    if op.memref not in e.values:
        allocate(e, op, str(buffer_bytes(op)))


def _dealloc(e: Emitter, op: memref.DeallocOp) -> None:
    """Frees a buffer; those of a thread stay until the function returns."""
    address = e.pointer(op.memref).address
    if address in e.buffers:
        e.text.line(f"call void @free(ptr {address})")
        e.buffers.remove(address)


def subview(e: Emitter, op: memref.SubviewOp) -> None:
    """The address of a window; nothing is loaded."""
    source = e.pointer(op.source)
    t = memref_type(op.source)
    offsets = [e.extent(o) for o in offsets_of(op)]
    terms = list(zip(offsets, _offset_strides(e, op.source), strict=True))
    address = e.text.address(source.address, scalar_type(t.element_type), terms)
    sizes = [e.extent(s) for s in sizes_of(op)]
    rank = len(memref_type(op.result).get_shape())
    made = tuple(sizes[len(sizes) - rank :])
    strides = source.strides[len(source.strides) - rank :] if source.strides else ()
    e.values[op.result] = Pointer(address, made, strides=strides)


def _offset_strides(e: Emitter, value: SSAValue) -> tuple[Stride, ...]:
    """Elements that one step of an offset moves; along panels offsets are multiples of a width."""
    layout = memref_type(value).layout
    if not isinstance(layout, PanelAttr):
        return e.strides(value)
    if layout.stride.data % layout.width.data or layout.pitch != layout.width:
        raise BackendError(
            "GEM0450",
            f"panels of {layout.width.data} elements that begin every {layout.stride.data}, with "
            f"rows of {layout.pitch.data}",
            "a CPU's are a whole number of rows apart: promote to l1, l2 or l3",
        )
    along, across = layout.stride.data // layout.width.data, layout.width.data
    return (along, across) if layout.dim.data == 0 else (across, along)


def _reinterpret_cast(e: Emitter, op: memref.ReinterpretCastOp) -> None:
    sizes = tuple(map(e.extent, sizes_of(op)))
    stated = cast_strides(op)
    strides = tuple(map(e.extent, stated)) if op.strides else ()
    e.values[op.result] = Pointer(e.pointer(op.source).address, sizes, strides=strides)


def _prefetch(e: Emitter, op: PrefetchOp) -> None:
    """Prefetch each cache line of each row; an address past the end is harmless.

    LLVM's locality 3 is all cache levels, 2 all but the first.
    """
    level = op.level
    how = "i32 1, i32 3" if level is None else f"i32 0, i32 {3 if level.data == Space.L1 else 2}"
    t = memref_type(op.source)
    element = t.element_type
    assert isinstance(element, FixedBitwidthType)
    rows, columns = (upper_bound(x) or 0 for x in extents(op.source))
    down, across = e.strides(op.source)
    if down == 1 and across != 1:
        rows, columns, down, across = columns, rows, across, down
    e.text.declare("void @llvm.prefetch.p0(ptr, i32, i32, i32)")
    base, scalar = e.pointer(op.source).address, scalar_type(element)
    for row in range(rows):
        for column in range(0, columns, CACHE_LINE_BYTES // element.size):
            address = e.text.address(base, scalar, [(str(row), down), (str(column), across)])
            e.text.line(f"call void @llvm.prefetch.p0(ptr {address}, {how}, i32 1)")


def _load(e: Emitter, op: memref.LoadOp) -> None:
    """One element."""
    t = memref_type(op.memref)
    scalar = scalar_type(t.element_type)
    terms = list(zip(map(e.scalar, op.indices), e.strides(op.memref), strict=True))
    address = e.text.address(e.pointer(op.memref).address, scalar, terms)
    e.values[op.res] = e.text.value(f"load {scalar}, ptr {address}")


@dataclass(frozen=True)
class Access:
    """A vector<rows x lanes> in memory: lines of adjacent elements, and which of them exist."""

    address: str
    element: Number
    line_stride: Stride
    lines: int
    lanes: int
    lane_stride: Stride
    line_limit: str | None
    lane_limit: str | None

    @property
    def line_type(self) -> str:
        """The LLVM type of one line."""
        return lanes_type(self.element, self.lanes)


def access_of(
    e: Emitter,
    memory: SSAValue,
    indices: Sequence[SSAValue],
    t: VectorType[Any],
    op: vector.TransferReadOp | vector.TransferWriteOp,
) -> tuple[Access, bool]:
    """How to reach a vector in memory, and whether its lines are the columns of the vector."""
    source = memref_type(memory)
    strides = e.strides(memory)
    scalar = scalar_type(source.element_type)
    at = [e.scalar(i) for i in indices]
    pointer = e.pointer(memory)
    address = e.text.address(pointer.address, scalar, list(zip(at, strides, strict=True)))
    found = zip(pointer.sizes, at, strict=True)
    if op.permutation_map.data == EXCHANGED:
        strides, found = strides[::-1], reversed(list(found))
    limits: list[str | None] = []
    for flag, (size, index) in zip(op.in_bounds.data, found, strict=True):
        inside = bool(flag.value.data)
        limits.append(None if inside else difference(e, size, index))
    shape = shape_of(t)
    by_columns = strides[0] == 1 and strides[1] != 1 and min(shape) > 1
    order = (1, 0) if by_columns else (0, 1)
    access = Access(
        address=address,
        element=e.stored(source.element_type),
        line_stride=strides[order[0]],
        lines=shape[order[0]],
        lanes=shape[order[1]],
        lane_stride=strides[order[1]],
        line_limit=limits[order[0]],
        lane_limit=limits[order[1]],
    )
    return access, by_columns


def difference(e: Emitter, x: str, y: str) -> str:
    """x - y of i64, a literal where both are."""
    if is_literal(x) and is_literal(y):
        return str(int(x) - int(y))
    return x if y == "0" else e.text.value(f"sub nsw i64 {x}, {y}")


def _mask(e: Emitter, access: Access, line: int) -> str | None:
    """The lanes of `line` that exist, None where all do."""
    if access.line_limit is None and access.lane_limit is None:
        return None
    lanes = access.lanes
    mask = f"<{lanes} x i1>"
    lane_flags = splat_literal("true", "i1", lanes) if lanes > 1 else "splat (i1 true)"
    if access.lane_limit is not None:
        lane_flags = _lane_flags(e, access.lane_limit, lanes)
    if access.line_limit is None:
        return lane_flags
    present = e.text.value(f"icmp sgt i64 {access.line_limit}, {line}")
    return e.text.value(f"select i1 {present}, {mask} {lane_flags}, {mask} zeroinitializer")


def _lane_flags(e: Emitter, limit: str, lanes: int) -> str:
    key = ("lanes", limit, lanes)
    if key not in e.text.addresses:
        wide = f"<{lanes} x i64>"
        one = e.text.value(f"insertelement {wide} poison, i64 {limit}, i64 0")
        spread = e.text.value(
            f"shufflevector {wide} {one}, {wide} poison, <{lanes} x i32> zeroinitializer"
        )
        numbers = ", ".join(f"i64 {n}" for n in range(lanes))
        e.text.addresses[key] = e.text.value(f"icmp sgt {wide} {spread}, <{numbers}>")
    return e.text.addresses[key]


def transfer_read(e: Emitter, op: vector.TransferReadOp) -> None:
    """Loads of the lines of a vector, with masks where it is past an edge."""
    t = op.result.type
    assert isinstance(t, VectorType)
    if depth_of(op.source) > 1:
        read_groups(e, op)
        return
    access, by_columns = access_of(e, op.source, op.indices, t, op)
    stride = access.line_stride
    if isinstance(stride, int) and _is_words(access, op):
        scalar = scalar_type(access.element)
        e.values[op.result] = read_words(e, access.address, scalar, access.lines, stride)
        return
    padding = e.scalar(op.padding)
    if access.element != memref_type(op.source).element_type:
        padding = str(int(padding, 16) >> 64 - BF16_BITS)
    lines = [_load_line(e, access, n, padding) for n in range(access.lines)]
    e.values[op.result] = Columns(lines) if by_columns else lines


def _is_words(access: Access, op: vector.TransferReadOp) -> bool:
    """Whether these are rows of a column of A for products of several columns and rows."""
    is_whole = access.line_limit is None and access.lane_limit is None
    has_words = access.lane_stride == 1 and access.lanes * access.element.size == GROUP_BYTES
    uses = [use.operation for use in op.result.uses]
    are_products = all(isinstance(u, OuterProductOp) and u.lhs is op.result for u in uses)
    return is_whole and has_words and access.lanes > 1 and are_products


def _load_line(e: Emitter, access: Access, line: int, padding: str) -> str:
    if access.line_stride == 0 and access.line_limit is None:
        key = ("line", access)
        if key not in e.text.addresses:
            e.text.addresses[key] = load_line(e, access, 0, padding)
        return e.text.addresses[key]
    return load_line(e, access, line, padding)


def load_line(e: Emitter, access: Access, line: int, padding: str) -> str:
    """Load one line of a vector, and `padding` where it is outside."""
    text = e.text
    scalar = scalar_type(access.element)
    size = access.element.size
    address = text.nth(access.address, scalar, line, access.line_stride)
    mask = _mask(e, access, line)
    if access.lanes > 1 and access.lane_stride != 1:
        return _gather(e, access, address, mask, padding)
    if mask is None:
        alignment = _known_alignment(e, access, address)
        return text.value(f"load {access.line_type}, ptr {address}, align {alignment}")
    wide = f"<{access.lanes} x {scalar}>"
    name = f"@llvm.masked.load.{suffix(access.element, access.lanes)}.p0"
    flags = f"<{access.lanes} x i1>"
    text.declare(f"{wide} {name}(ptr, {flags}, {wide})")
    pads = f"splat ({scalar} {padding})"
    loaded = text.value(
        f"call {wide} {name}(ptr align {size} {address}, {flags} {mask}, {wide} {pads})"
    )
    return text.value(f"extractelement {wide} {loaded}, i64 0") if access.lanes == 1 else loaded


def _gather(e: Emitter, access: Access, address: str, mask: str | None, padding: str) -> str:
    """Elements that are not adjacent, one by one."""
    text = e.text
    scalar = scalar_type(access.element)
    size = access.element.size
    made = "poison" if mask is None else f"splat ({scalar} {padding})"
    one = f"<1 x {scalar}>"
    for lane in range(access.lanes):
        at = text.nth(address, scalar, lane, access.lane_stride)
        if mask is None:
            value = text.value(f"load {scalar}, ptr {at}, align {size}")
        else:
            flag = text.value(f"extractelement <{access.lanes} x i1> {mask}, i64 {lane}")
            flags = text.value(f"insertelement <1 x i1> poison, i1 {flag}, i64 0")
            name = f"@llvm.masked.load.{suffix(access.element, 1)}.p0"
            text.declare(f"{one} {name}(ptr, <1 x i1>, {one})")
            loaded = text.value(
                f"call {one} {name}(ptr align {size} {at}, <1 x i1> {flags}, "
                f"{one} splat ({scalar} {padding}))"
            )
            value = text.value(f"extractelement {one} {loaded}, i64 0")
        made = text.value(f"insertelement {access.line_type} {made}, {scalar} {value}, i64 {lane}")
    return made


def transfer_write(e: Emitter, op: vector.TransferWriteOp) -> None:
    """Stores of the lines of a vector, with masks where it is past an edge."""
    t = op.vector.type
    assert isinstance(t, VectorType)
    if depth_of(op.source) > 1:
        write_groups(e, op)
        return
    access, by_columns = access_of(e, op.source, op.indices, t, op)
    lines = e.rows(op.vector)
    if by_columns:
        lines = transposed(e.text, scalar_type(access.element), lines, access.lines)
    for number, line in enumerate(lines):
        store_line(e, access, number, line)


def store_line(e: Emitter, access: Access, line: int, value: str) -> None:
    """Store one line of an access: whole, with a mask, or lane by lane where these lie apart."""
    text = e.text
    scalar = scalar_type(access.element)
    address = text.nth(access.address, scalar, line, access.line_stride)
    mask = _mask(e, access, line)
    if access.lanes > 1 and access.lane_stride != 1:
        _scatter(e, access, address, mask, value)
        return
    if mask is None:
        alignment = _known_alignment(e, access, address)
        text.line(f"store {access.line_type} {value}, ptr {address}, align {alignment}")
        return
    _masked_store(e, access, address, mask, value)


def _masked_store(e: Emitter, access: Access, address: str, mask: str, value: str) -> None:
    text = e.text
    scalar = scalar_type(access.element)
    size = access.element.size
    wide = f"<{access.lanes} x {scalar}>"
    if access.lanes == 1:
        value = text.value(f"insertelement {wide} poison, {scalar} {value}, i64 0")
    name = f"@llvm.masked.store.{suffix(access.element, access.lanes)}.p0"
    flags = f"<{access.lanes} x i1>"
    text.declare(f"void {name}({wide}, ptr, {flags})")
    text.line(f"call void {name}({wide} {value}, ptr align {size} {address}, {flags} {mask})")


def _scatter(e: Emitter, access: Access, address: str, mask: str | None, value: str) -> None:
    """Elements that are not adjacent, one by one."""
    text = e.text
    scalar = scalar_type(access.element)
    single = dataclasses.replace(access, lanes=1)
    for lane in range(access.lanes):
        at = text.nth(address, scalar, lane, access.lane_stride)
        one = text.value(f"extractelement {access.line_type} {value}, i64 {lane}")
        if mask is None:
            text.line(f"store {scalar} {one}, ptr {at}, align {access.element.size}")
            continue
        flag = text.value(f"extractelement <{access.lanes} x i1> {mask}, i64 {lane}")
        flags = text.value(f"insertelement <1 x i1> poison, i1 {flag}, i64 0")
        _masked_store(e, single, at, flags, one)


def _known_alignment(e: Emitter, access: Access, address: str) -> int:
    """What the address is known to be aligned to: an element at least, a vector at most."""
    size = access.element.size
    return max(size, math.gcd(e.text.alignment(address, 0), max(size * 4, LOAD_BYTES)))


MEMORY: Table = {
    PrefetchOp.name: _prefetch,
    memref.AllocOp.name: _alloc,
    memref.DeallocOp.name: _dealloc,
    memref.LoadOp.name: _load,
    memref.ReinterpretCastOp.name: _reinterpret_cast,
    memref.SubviewOp.name: subview,
    vector.TransferReadOp.name: transfer_read,
    vector.TransferWriteOp.name: transfer_write,
}
