"""Emitters of the amx dialect: LLVM's intrinsics on its type `x86_amx`.

They carry the rows and the bytes of a row of each tile. LLVM's code generator assigns registers to
tiles, writes the configuration of all of them, once a function, and releases them at its end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from xdsl.dialects import memref
from xdsl.dialects.builtin import FixedBitwidthType
from xdsl.ir import SSAValue

from gemmir.backend import tiles_constant
from gemmir.backends.llvm.emitter import Emitter, Pointer, Table, no_instruction
from gemmir.backends.llvm.panels import place_of_group
from gemmir.backends.llvm.text import scalar_type
from gemmir.errors import BackendError
from gemmir.ir.amx import (
    ROW_BYTES,
    TileLoadOp,
    TileMulFOp,
    TileMulIOp,
    TileStoreOp,
    TileType,
    TileZeroOp,
    tile_type,
)
from gemmir.ir.attributes import PanelAttr, Space, SpaceAttr
from gemmir.ir.dialect import is_unsigned, memref_type

FEATURES = {"amx.tile_mulf": "amx-bf16", "amx.tile_muli": "amx-int8"}
"""LLVM's names of what a CPU must have for a product of tiles."""


def _shape(tile: TileType) -> str:
    """Rows and bytes of a row, as all intrinsics have them."""
    return f"i16 {tile.rows.data}, i16 {tile.row_bytes}"


def _zero(e: Emitter, op: TileZeroOp) -> None:
    e.text.declare("x86_amx @llvm.x86.tilezero.internal(i16, i16)")
    shape = _shape(tile_type(op.result))
    e.values[op.result] = e.text.value(f"call x86_amx @llvm.x86.tilezero.internal({shape})")


def _rows(e: Emitter, memory: SSAValue, indices: Sequence[SSAValue]) -> str:
    """The address of the first row, and how many bytes the next one is behind it, as operands."""
    of = memref_type(memory)
    element, layout = of.element_type, of.layout
    assert isinstance(element, FixedBitwidthType)
    if isinstance(layout, PanelAttr):
        depth = layout.depth.data
        apart = depth if layout.dim.data == 0 else depth * layout.width.data
        return f"ptr {place_of_group(e, memory, indices)}, i64 {apart * element.size}"
    terms = list(zip(map(e.scalar, indices), e.strides(memory), strict=True))
    address = e.text.address(e.pointer(memory).address, scalar_type(element), terms)
    stride = e.text.mul(str(e.strides(memory)[0]), str(element.size))
    return f"ptr {address}, i64 {stride}"


def _load(e: Emitter, op: TileLoadOp) -> None:
    name = "@llvm.x86.tileloadd64.internal"
    e.text.declare(f"x86_amx {name}(i16, i16, ptr, i64)")
    shape, rows = _shape(tile_type(op.result)), _rows(e, op.source, op.indices)
    e.values[op.result] = e.text.value(f"call x86_amx {name}({shape}, {rows})")


def _store(e: Emitter, op: TileStoreOp) -> None:
    name = "@llvm.x86.tilestored64.internal"
    e.text.declare(f"void {name}(i16, i16, ptr, i64, x86_amx)")
    shape, rows = _shape(tile_type(op.tile)), _rows(e, op.target, op.indices)
    e.text.line(f"call void {name}({shape}, {rows}, x86_amx {e.scalar(op.tile)})")


def _product(e: Emitter, op: TileMulFOp | TileMulIOp) -> None:
    """One instruction; of bytes its name says which have a sign."""
    if not e.has(FEATURES[op.name]):
        raise BackendError(
            "GEM1493",
            f"{op.name} is an instruction of CPUs with {FEATURES[op.name]}, which this target is "
            "not",
            "use vectorize{with=dot}",
        )
    lhs, rhs, acc = (tile_type(v) for v in (op.lhs, op.rhs, op.acc))
    kind = "bf16ps"
    if isinstance(op, TileMulIOp):
        kind = "b" + "".join("us"[not is_unsigned(t.element_type)] for t in (lhs, rhs)) + "d"
    name = f"@llvm.x86.tdp{kind}.internal"
    e.text.declarations.add(f"@{tiles_constant(e.entry)} = constant i32 1")
    e.text.declare(f"x86_amx {name}(i16, i16, i16, x86_amx, x86_amx, x86_amx)")
    shape = f"{_shape(acc)}, i16 {lhs.row_bytes}"
    tiles = ", ".join(f"x86_amx {e.scalar(v)}" for v in (op.acc, op.lhs, op.rhs))
    e.values[op.result] = e.text.value(f"call x86_amx {name}({shape}, {tiles})")


def _alloca(e: Emitter, op: memref.AllocaOp) -> None:
    """A buffer on the stack, in whole rows of tiles; what is in registers is for vectors."""
    of = memref_type(op.memref)
    if of.memory_space == SpaceAttr(Space.REGISTERS):
        raise no_instruction(op)
    kind = f"[{math.prod(of.get_shape())} x {scalar_type(of.element_type)}], align {ROW_BYTES}"
    address = e.text.reserve(kind)
    e.text.align(address, ROW_BYTES)
    e.values[op.memref] = Pointer(address, tuple(map(str, of.get_shape())))


TILES: Table = {
    memref.AllocaOp.name: _alloca,
    TileLoadOp.name: _load,
    TileMulFOp.name: _product,
    TileMulIOp.name: _product,
    TileStoreOp.name: _store,
    TileZeroOp.name: _zero,
}
