"""Emitters of what a warp does as a whole: products on tensor cores, and vectors spread over lanes.

Where a tile of r x c elements is summed, lane l has of each 8 x 8 block of it the elements (l / 4,
2 (l mod 4)) and the one right of that: one row of two lanes for each block, blocks by rows within
16 rows. PTX ISA 9.0, section "Matrix Fragments for mma.m16n8k16 with floating point type".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xdsl.dialects import vector
from xdsl.dialects.builtin import VectorType
from xdsl.ir import SSAValue

from gemmir.backends.llvm.emitter import Emitter, Rows, Table, shape_of
from gemmir.backends.llvm.memory import (
    Access,
    difference,
    load_line,
    store_line,
    transfer_read,
    transfer_write,
)
from gemmir.backends.llvm.text import scalar_type
from gemmir.backends.ptx.addresses import address_of, panels_of, swizzle_of
from gemmir.backends.ptx.launch import LANES
from gemmir.ir.attributes import PanelAttr
from gemmir.ir.dialect import memref_type, static_strides
from gemmir.ir.nvgpu import LdMatrixOp, MmaSyncOp, matrix_shape

BLOCK = 8
"""Rows and columns of the matrices that `ldmatrix` moves."""

PAIR = 2
"""Adjacent elements that one lane has of a block."""


def spread(shape: tuple[int, int]) -> tuple[int, int]:
    """Rows and lanes that one thread has of a tile that belongs to its warp."""
    rows, columns = shape
    return rows * columns // (LANES * PAIR), PAIR


def lane_of(e: Emitter) -> str:
    """The number of this thread in its warp."""
    intrinsic = "@llvm.nvvm.read.ptx.sreg.tid.x"
    e.text.declare(f"i32 {intrinsic}()")
    thread = e.text.early(f"zext i32 {e.text.early(f'call i32 {intrinsic}()')} to i64")
    return e.text.binary("urem", thread, str(LANES))


def _blocks(shape: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The first element of each 8 x 8 block of a tile, in the order of a thread's rows."""
    rows, columns = shape
    for row in range(0, rows, 2 * BLOCK):
        for column in range(0, columns, BLOCK):
            for half in range(row, min(row + 2 * BLOCK, rows), BLOCK):
                yield half, column


def _parts(
    e: Emitter,
    memory: SSAValue,
    indices: Sequence[SSAValue],
    shape: tuple[int, int],
    flags: Sequence[bool],
) -> Iterator[Access]:
    """How this thread reaches its part of each block of a tile at `indices` of `memory`."""
    text, of, pointer = e.text, memref_type(memory), e.pointer(memory)
    strides, scalar = static_strides(of), scalar_type(of.element_type)
    lane = lane_of(e)
    row = text.binary("udiv", lane, "4")
    column = text.binary("mul", text.binary("urem", lane, "4"), str(PAIR))
    at = [text.add(e.scalar(i), own) for i, own in zip(indices, (row, column), strict=True)]
    address = text.address(pointer.address, scalar, list(zip(at, strides, strict=True)))
    left = [
        None if inside else difference(e, size, index)
        for inside, size, index in zip(flags, pointer.sizes, at, strict=True)
    ]
    for first in _blocks(shape):
        place = sum(i * s for i, s in zip(first, strides, strict=True))
        limits = [
            None if n is None else difference(e, n, str(i))
            for n, i in zip(left, first, strict=True)
        ]
        yield Access(
            address=text.offset(address, scalar, place),
            element=of.element_type,
            line_stride=strides[0],
            lines=1,
            lanes=PAIR,
            lane_stride=strides[1],
            line_limit=limits[0],
            lane_limit=limits[1],
        )


def _read(e: Emitter, op: vector.TransferReadOp) -> None:
    t = op.result.type
    assert isinstance(t, VectorType)
    if e.spread is None:
        transfer_read(e, op)
        return
    flags = [bool(flag.value.data) for flag in op.in_bounds.data]
    padding = e.scalar(op.padding)
    parts = _parts(e, op.source, op.indices, shape_of(t), flags)
    e.values[op.result] = [load_line(e, access, 0, padding) for access in parts]


def _write(e: Emitter, op: vector.TransferWriteOp) -> None:
    t = op.vector.type
    assert isinstance(t, VectorType)
    if e.spread is not None:
        flags = [bool(flag.value.data) for flag in op.in_bounds.data]
        parts = _parts(e, op.source, op.indices, shape_of(t), flags)
        for access, value in zip(parts, e.rows(op.vector), strict=True):
            store_line(e, access, 0, value)
    elif (layout := swizzle_of(op.source) or panels_of(op.source)) is not None:
        shape = shape_of(t)
        runs_along = shape[1 - layout.dim.data] == 1
        assert runs_along or isinstance(layout, PanelAttr)
        access = Access(
            address=address_of(e, op.source, [e.scalar(i) for i in op.indices]),
            element=memref_type(op.source).element_type,
            line_stride=0,
            lines=1,
            lanes=max(shape),
            lane_stride=1 if runs_along else layout.width.data,
            line_limit=None,
            lane_limit=None,
        )
        store_line(e, access, 0, _as_row(e, t, e.rows(op.vector)))
    else:
        transfer_write(e, op)


def _as_row(e: Emitter, t: VectorType, rows: Rows) -> str:
    """The elements of a column or row vector as one row."""
    if len(rows) == 1:
        return rows[0]
    scalar = scalar_type(t.element_type)
    wide, made = f"<{len(rows)} x {scalar}>", "poison"
    for number, element in enumerate(rows):
        made = e.text.value(f"insertelement {wide} {made}, {scalar} {element}, i64 {number}")
    return made


def _ldmatrix(e: Emitter, op: LdMatrixOp) -> None:
    """Registers of 16 x 16 elements at a time: those of A by rows, those of B by columns.

    Each of 4 matrices of 8 rows of 16 bytes is read at the addresses of 8 lanes. `trans` is for
    tiles whose rows do not run along k.
    """
    source = memref_type(op.source)
    layout = swizzle_of(op.source) or panels_of(op.source)
    runs = layout.dim.data if layout is not None else static_strides(source).index(1)
    is_a = op.fragment.data == "a"
    along_k = runs == (1 if is_a else 0)
    text, lane = e.text, lane_of(e)
    high, low = text.binary("udiv", lane, "16"), text.binary("urem", lane, "16")
    if is_a == along_k:
        slow, fast = low, text.binary("mul", high, str(BLOCK))
    else:
        slow = text.binary(
            "add", text.binary("mul", high, str(BLOCK)), text.binary("urem", lane, str(BLOCK))
        )
        fast = text.binary("mul", text.binary("udiv", low, str(BLOCK)), str(BLOCK))
    own = (slow, fast) if runs == 1 else (fast, slow)
    rows, columns = matrix_shape(op.result)
    found: Rows = []
    for first in range(0, rows if is_a else columns, 2 * BLOCK):
        count = 4 if is_a or first + BLOCK < columns else 2
        place = (first, 0) if is_a else (0, first)
        at = [
            text.binary("add", text.binary("add", own[d], str(place[d])), e.scalar(op.indices[d]))
            for d in (0, 1)
        ]
        address = address_of(e, op.source, at)
        found += _load_matrices(e, address, count, transposed=not along_k)
    e.values[op.result] = found


def _load_matrices(e: Emitter, address: str, count: int, *, transposed: bool) -> Rows:
    text = e.text
    made = f"{{ {', '.join(['i32'] * count)} }}"
    name = f"@llvm.nvvm.ldmatrix.sync.aligned.m8n8.x{count}{'.trans' if transposed else ''}.b16.p3"
    text.declare(f"{made} {name}(ptr addrspace(3)) convergent nounwind")
    shared = text.value(f"addrspacecast ptr {address} to ptr addrspace(3)")
    loaded = text.value(f"call {made} {name}(ptr addrspace(3) {shared})")
    return [text.value(f"extractvalue {made} {loaded}, {n}") for n in range(count)]


@dataclass(frozen=True, kw_only=True)
class _Instruction:
    """One `mma.sync`: its intrinsic, and the type of a register of A and B in LLVM."""

    intrinsic: str
    register: str


_INSTRUCTIONS = {
    "bf16": _Instruction(intrinsic="llvm.nvvm.mma.m16n8k16.row.col.bf16", register="i32"),
    "f16": _Instruction(intrinsic="llvm.nvvm.mma.m16n8k16.row.col.f32.f32", register="<2 x half>"),
}
"""By the element type of A and B."""


def _mma_sync(e: Emitter, op: MmaSyncOp) -> None:
    """One instruction for each 16 x 8 block of the sum."""
    text = e.text
    lhs_type = op.lhs.type
    assert isinstance(lhs_type, VectorType)
    instruction = _INSTRUCTIONS[str(lhs_type.element_type)]
    register = instruction.register
    four = "{ float, float, float, float }"
    operands = [register] * 6 + ["float"] * 4
    text.declare(f"{four} @{instruction.intrinsic}({', '.join(operands)}) convergent nounwind")
    lhs, rhs = (_registers(e, e.rows(v), register) for v in (op.lhs, op.rhs))
    total = e.rows(op.acc)
    rows, columns = matrix_shape(op.result)
    made: Rows = []
    for row in range(rows // 16):
        for column in range(columns // BLOCK):
            pair = total[2 * (row * (columns // BLOCK) + column) :][:2]
            sums = [
                text.value(f"extractelement <2 x float> {half}, i64 {n}")
                for half in pair
                for n in range(PAIR)
            ]
            values = [*lhs[4 * row :][:4], *rhs[2 * column :][:2], *sums]
            listed = ", ".join(f"{t} {v}" for t, v in zip(operands, values, strict=True))
            result = text.value(f"call {four} @{instruction.intrinsic}({listed})")
            parts = [text.value(f"extractvalue {four} {result}, {n}") for n in range(4)]
            for half in (parts[:2], parts[2:]):
                first = text.value(f"insertelement <2 x float> poison, float {half[0]}, i64 0")
                made.append(
                    text.value(f"insertelement <2 x float> {first}, float {half[1]}, i64 1")
                )
    e.values[op.result] = made


def _registers(e: Emitter, words: Rows, register: str) -> Rows:
    """What `ldmatrix` has read, as the product takes it."""
    if register == "i32":
        return words
    return [e.text.value(f"bitcast i32 {word} to {register}") for word in words]


FRAGMENTS: Table = {
    LdMatrixOp.name: _ldmatrix,
    MmaSyncOp.name: _mma_sync,
    vector.TransferReadOp.name: _read,
    vector.TransferWriteOp.name: _write,
}
