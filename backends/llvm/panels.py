"""Vectors in panels of some depth: 32 bits of neighbours along k for each row or column.

Of a row of B, vector<d x w>, the d elements of each lane are adjacent, so that all of it is one
line in memory; only products of several columns and rows take it so. Of a column of A,
vector<r x d>, each row is 32 bits. Copies into panels bring neighbours together: where the source
lies along k by exchanging rows and columns of 32 bits, and otherwise by interleaving rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xdsl.dialects import vector
from xdsl.dialects.builtin import FixedBitwidthType, MemRefType, VectorType
from xdsl.ir import SSAValue

from gemmir.backends.llvm.emitter import Columns, Emitter, Rows, Words, shape_of
from gemmir.backends.llvm.text import ELEMENT_BYTES, lanes_type, scalar_type, transposed
from gemmir.errors import BackendError
from gemmir.ir.attributes import PanelAttr
from gemmir.ir.dialect import memref_type

GROUP_BYTES = 4
"""What one lane of a product takes: neighbours of 32 bits."""


def depth_of(value: SSAValue) -> int:
    """How many neighbours are adjacent in a memref; 1 where it has no such panels."""
    layout = memref_type(value).layout
    return layout.depth.data if isinstance(layout, PanelAttr) else 1


def read_groups(e: Emitter, op: vector.TransferReadOp) -> None:
    """A row of B as one line, or a column of A row by row."""
    t, place = op.result.type, place_of_group(e, op.source, op.indices)
    assert isinstance(t, VectorType)
    source = memref_type(op.source)
    layout, scalar = _layout(source), scalar_type(e.stored(source.element_type))
    rows, lanes = shape_of(t)
    depth = layout.depth.data
    if (lanes if layout.dim.data == 0 else rows) != depth:
        raise BackendError("GEM1326", f"{t} is not one group of {depth} of {source}")
    if layout.dim.data == 1:
        line = f"<{lanes * depth} x {scalar}>"
        e.values[op.result] = [e.text.value(f"load {line}, ptr {place}, align {GROUP_BYTES}")]
        return
    e.values[op.result] = read_words(e, place, scalar, rows, depth)


def read_words(e: Emitter, place: str, scalar: str, rows: int, stride: int) -> Words:
    """Rows of 32 bits that begin every `stride` elements."""
    found: Rows = []
    for row in range(rows):
        at = e.text.offset(place, scalar, row * stride)
        found.append(e.text.value(f"load i32, ptr {at}, align {ELEMENT_BYTES[scalar]}"))
    return Words(found)


def write_groups(e: Emitter, op: vector.TransferWriteOp) -> None:
    """Elements in groups: each line of the panel is stored whole."""
    t, target = op.vector.type, memref_type(op.source)
    assert isinstance(t, VectorType)
    layout, element = _layout(target), e.stored(target.element_type)
    assert isinstance(element, FixedBitwidthType)
    depth, width = layout.depth.data, layout.width.data
    shape = shape_of(t)
    along, across = shape if layout.dim.data == 0 else shape[::-1]
    if along != width or across % depth or depth * element.size % GROUP_BYTES:
        raise BackendError("GEM1326", f"{t} is no whole group of {depth} of {target}")
    if depth * element.size > GROUP_BYTES:
        _write_rows(e, op, depth, width)
        return
    value = e.values[op.vector]
    by_columns = isinstance(value, Columns)
    lines = value.lines if isinstance(value, Columns) else e.rows(op.vector)
    if by_columns == (layout.dim.data == 1):
        groups, stored = _exchanged(e, lines, element, across), lanes_type_of_words(width)
    else:
        groups = [
            interleaved(e, lines[at : at + depth], element, width) for at in range(0, across, depth)
        ]
        stored = f"<{width * depth} x {scalar_type(element)}>"
    place, scalar = place_of_group(e, op.source, op.indices), scalar_type(element)
    for number, group in enumerate(groups):
        at = e.text.offset(place, scalar, number * width * depth)
        e.text.line(f"store {stored} {group}, ptr {at}, align {GROUP_BYTES}")


def _write_rows(e: Emitter, op: vector.TransferWriteOp, depth: int, width: int) -> None:
    """Groups that are longer than a word: each row along k is stored piece by piece."""
    scalar = scalar_type(e.stored(memref_type(op.source).element_type))
    place = place_of_group(e, op.source, op.indices)
    across = shape_of(op.vector.type)[1]
    for number, row in enumerate(e.rows(op.vector)):
        for first in range(0, across, depth):
            piece = row
            if across > depth:
                lanes = ", ".join(f"i32 {first + lane}" for lane in range(depth))
                whole = f"<{across} x {scalar}>"
                piece = e.text.value(
                    f"shufflevector {whole} {row}, {whole} poison, <{depth} x i32> <{lanes}>"
                )
            at = e.text.offset(place, scalar, first * width + number * depth)
            e.text.line(f"store <{depth} x {scalar}> {piece}, ptr {at}, align {GROUP_BYTES}")


def lanes_type_of_words(lanes: int) -> str:
    """A row of 32-bit words."""
    return "i32" if lanes == 1 else f"<{lanes} x i32>"


def _layout(of: MemRefType[Any]) -> PanelAttr:
    assert isinstance(of.layout, PanelAttr)
    return of.layout


def place_of_group(e: Emitter, memory: SSAValue, indices: Sequence[SSAValue]) -> str:
    """The address of a group: along the panel each element takes `depth`, across each a width."""
    t = memref_type(memory)
    layout = _layout(t)
    strides = (layout.depth.data, layout.width.data)
    strides = strides if layout.dim.data == 0 else strides[::-1]
    terms = list(zip(map(e.scalar, indices), strides, strict=True))
    return e.text.address(e.pointer(memory).address, scalar_type(e.stored(t.element_type)), terms)


def _exchanged(e: Emitter, lines: Rows, element: FixedBitwidthType, across: int) -> Rows:
    """From lines along k, one row for each group, in which every line has a word."""
    words = across * element.size // GROUP_BYTES
    source, made = lanes_type(element, across), lanes_type_of_words(words)
    turned = [e.text.value(f"bitcast {source} {line} to {made}") for line in lines]
    return transposed(e.text, "i32", turned, words)


def interleaved(e: Emitter, rows: Rows, element: FixedBitwidthType, lanes: int) -> str:
    """One line in which the elements of each lane of some rows follow each other."""
    if len(rows) == 1:
        return rows[0]
    halves = [interleaved(e, rows[start::2], element, lanes) for start in (0, 1)]
    count = lanes * len(rows) // 2
    t = lanes_type(element, count)
    if count == 1:
        made = f"<2 x {scalar_type(element)}>"
        one = e.text.value(f"insertelement {made} poison, {t} {halves[0]}, i64 0")
        return e.text.value(f"insertelement {made} {one}, {t} {halves[1]}, i64 1")
    order = ", ".join(f"i32 {n}, i32 {count + n}" for n in range(count))
    x, y = halves
    return e.text.value(f"shufflevector {t} {x}, {t} {y}, <{2 * count} x i32> <{order}>")
