"""Emitters of elements of 4 bits: how vectors of them are read, and made floats.

Two are in a byte of memory, the first one low. A vector of them is held as one of i32, of which the
four highest bits are the element; what is below is anything.

A row of 8 is one word, spread over 8 lanes; each lane is then shifted by another distance. Rows
that are columns of what lies in memory are words of 8 rows: a lane for each word, shifted alike. A
float of it is made from the shifted word, or where an exponent of 28 is asked for from its four
highest bits alone: that saves one of two shifts, and x86 makes any operation on bits twice as often
in a cycle as a shift.

What is dealt to several vectors (`deals.py`) stays bytes until then. Where a register holds all 16
numbers as floats (`has_table`) a dealt element is the four lowest bits of its word, and `vpermps`,
which reads no others, looks it up: a shift and a lookup make 16 floats. Elsewhere it has zeros
below.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from xdsl.dialects import vector
from xdsl.dialects.builtin import IntegerType, VectorType, f32, i8, i32
from xdsl.ir import Attribute

from gemmir.backends.llvm.arithmetic import ARITHMETIC, widened
from gemmir.backends.llvm.emitter import Emitter, Rows, Table, element_of, set_rows, shape_of
from gemmir.backends.llvm.memory import Access, access_of, load_line, transfer_read
from gemmir.backends.llvm.text import (
    Stride,
    float_literal,
    is_literal,
    lanes_type,
    splat_literal,
)
from gemmir.errors import BackendError
from gemmir.ir.dialect import DealOp, ExtendOp

BITS: Final = 4
WORD_LANES: Final = 8
"""How many elements a word of 32 bits has."""

TOP: Final = 28
"""Where in a word the highest element begins."""

HIGHEST: Final = -1 << TOP
"""The four highest bits of a word."""

TABLE_LANES: Final = 16
"""Lanes of a vector of 512 bits: one for each number of 4 bits, as `vpermps` looks them up."""

MULTISHIFT_LANES: Final = 16
"""Lanes of i32 in a vector of 512 bits, which `vpmultishiftqb` fills."""


def has_table(e: Emitter, lanes: int) -> bool:
    """Whether numbers that are dealt to vectors of so many lanes are looked up in a register."""
    return lanes == TABLE_LANES and e.has("avx512f")


def is_nibble(t: Attribute) -> bool:
    """Whether elements have 4 bits."""
    element = element_of(t)
    return isinstance(element, IntegerType) and element.bitwidth == BITS


def _read(e: Emitter, op: vector.TransferReadOp) -> None:
    t = op.result.type
    assert isinstance(t, VectorType)
    if not is_nibble(t):
        transfer_read(e, op)
        return
    access, transposed = access_of(e, op.source, op.indices, t, op)
    is_dealt = all(isinstance(use.operation, DealOp) for use in op.result.uses)
    if access.lanes == 1 and access.line_stride == 1:
        access, transposed = _as_column(access), True
    if access.lanes % 2 or access.lane_stride != 1 or (transposed and access.lanes > WORD_LANES):
        raise BackendError(
            "GEM1335",
            f"{access.lanes} neighbours of 4 bits are read, {access.lane_stride} apart",
            "tile by an even number where they are adjacent, and use a width of 2 or more",
        )
    in_bytes = dataclasses.replace(
        access,
        element=i8,
        lanes=access.lanes // 2,
        line_stride=_half(e, access.line_stride),
        lane_limit=None if access.lane_limit is None else str(_half(e, access.lane_limit)),
    )
    lines = [load_line(e, in_bytes, number, "0") for number in range(access.lines)]
    if is_dealt and not transposed:
        e.values[op.result] = lines
        return
    made = _columns if transposed else _rows
    e.values[op.result] = made(e, lines, access.lanes)


def _as_column(access: Access) -> Access:
    """A vector of one column, whose elements are neighbours, as one line of all of them."""
    return dataclasses.replace(
        access,
        lines=1,
        lanes=access.lines,
        line_stride=access.lane_stride,
        lane_stride=1,
        line_limit=access.lane_limit,
        lane_limit=access.line_limit,
    )


def _half(e: Emitter, elements: Stride) -> Stride:
    """So many bytes have `elements`, an even number, which may be negative."""
    if isinstance(elements, int):
        return elements // 2
    return (
        str(int(elements) // 2) if is_literal(elements) else e.text.value(f"ashr i64 {elements}, 1")
    )


def _word(e: Emitter, line: str, lanes: int) -> str:
    """At most 8 elements, which were read as bytes, as an i32."""
    bits = BITS * lanes
    loaded = line
    if lanes > 2:
        loaded = e.text.value(f"bitcast {lanes_type(i8, lanes // 2)} {line} to i{bits}")
    return loaded if bits == 32 else e.text.value(f"zext i{bits} {loaded} to i32")


def _rows(e: Emitter, lines: Rows, lanes: int) -> Rows:
    """Lines that are rows: each of their elements in a lane."""
    if lanes == MULTISHIFT_LANES and e.has("avx512vbmi"):
        return [_multishift(e, line) for line in lines]
    wide = lanes_type(i32, lanes)
    places = [BITS * (lane % WORD_LANES) for lane in range(lanes)]
    rows: Rows = []
    for line in lines:
        if lanes <= WORD_LANES:
            spread = _splat(e, _word(e, line, lanes), lanes)
        else:
            words = lanes_type(i32, lanes // WORD_LANES)
            found = e.text.value(f"bitcast {lanes_type(i8, lanes // 2)} {line} to {words}")
            numbers = ", ".join(f"i32 {lane // WORD_LANES}" for lane in range(lanes))
            spread = e.text.value(
                f"shufflevector {words} {found}, {words} poison, <{lanes} x i32> <{numbers}>"
            )
        rows.append(_shifted(e, spread, wide, places))
    return rows


def _splat(e: Emitter, word: str, lanes: int) -> str:
    wide = lanes_type(i32, lanes)
    one = e.text.value(f"insertelement {wide} poison, i32 {word}, i64 0")
    return e.text.value(
        f"shufflevector {wide} {one}, {wide} poison, <{lanes} x i32> zeroinitializer"
    )


def _shifted(e: Emitter, words: str, wide: str, places: Sequence[int]) -> str:
    """Lanes with the element that begins at the bit `places` of each, where it is held."""
    distances = [TOP - place for place in places]
    if not any(distances):
        return words
    numbers = ", ".join(f"i32 {distance}" for distance in distances)
    counts = str(distances[0]) if len(distances) == 1 else f"<{numbers}>"
    return e.text.value(f"shl {wide} {words}, {counts}")


def _multishift(e: Emitter, line: str) -> str:
    """16 elements by one instruction, which takes any 8 bits of 64 to each byte.

    The highest byte of lane j is that whose high half is element j; the others may be anything.
    """
    text = e.text
    name = "@llvm.x86.avx512.pmultishift.qb.512"
    text.declare(f"<64 x i8> {name}(<64 x i8>, <64 x i8>)")
    whole = text.value(f"bitcast <8 x i8> {line} to i64")
    one = text.value(f"insertelement <8 x i64> poison, i64 {whole}, i64 0")
    spread = text.value(
        f"shufflevector <8 x i64> {one}, <8 x i64> poison, <8 x i32> zeroinitializer"
    )
    data = text.value(f"bitcast <8 x i64> {spread} to <64 x i8>")
    places = ", ".join(f"i8 {(BITS * (byte // 4) - BITS) % 64}" for byte in range(64))
    found = text.value(f"call <64 x i8> {name}(<64 x i8> <{places}>, <64 x i8> {data})")
    return text.value(f"bitcast <64 x i8> {found} to <16 x i32>")


def _columns(e: Emitter, lines: Rows, lanes: int) -> Rows:
    """Lines that are columns: a lane for each, and rows of what is at one place in all of them."""
    wide = lanes_type(i32, len(lines))
    words = "poison"
    for number, line in enumerate(lines):
        word = _word(e, line, lanes)
        if len(lines) == 1:
            words = word
        else:
            words = e.text.value(f"insertelement {wide} {words}, i32 {word}, i64 {number}")
    return [_shifted(e, words, wide, [BITS * place] * len(lines)) for place in range(lanes)]


def _extend(e: Emitter, op: ExtendOp) -> None:
    if not is_nibble(op.input.type):
        ARITHMETIC[op.name](e, op)
        return
    made, lanes, rows = op.result.type, shape_of(op.input.type)[1], e.rows(op.input)
    wide, exponent = lanes_type(i32, lanes), 0 if op.exponent is None else op.exponent.value.data
    is_dealt = isinstance(op.input.owner, DealOp)
    is_lowest = is_dealt and has_table(e, lanes)
    if is_lowest and element_of(made) == f32:
        set_rows(e, op.result, [_look_up(e, row, exponent) for row in rows])
        return
    if is_lowest:
        rows = [_shifted(e, row, wide, [0] * lanes) for row in rows]
    if exponent == TOP and is_dealt:
        exponent = 0
    elif exponent == TOP:
        mask = splat_literal(str(HIGHEST), "i32", lanes)
        rows, exponent = [e.text.value(f"and {wide} {row}, {mask}") for row in rows], 0
    else:
        top = splat_literal(str(TOP), "i32", lanes)
        rows = [e.text.value(f"ashr {wide} {row}, {top}") for row in rows]
    if isinstance(element_of(made), IntegerType):
        target = e.row_type(made)
        set_rows(e, op.result, [e.text.value(f"trunc {wide} {row} to {target}") for row in rows])
    else:
        set_rows(e, op.result, widened(e, rows, wide, made, exponent))


def _look_up(e: Emitter, words: str, exponent: int) -> str:
    """Floats of what the lowest bits of words are, times a power of two: of a table of all."""
    name = "@llvm.x86.avx512.permvar.sf.512"
    e.text.declare(f"<16 x float> {name}(<16 x float>, <16 x i32>)")
    numbers = [*range(TABLE_LANES // 2), *range(-TABLE_LANES // 2, 0)]
    table = ", ".join(f"float {float_literal(n * 2.0**exponent, f32)}" for n in numbers)
    return e.text.value(f"call <16 x float> {name}(<16 x float> <{table}>, <16 x i32> {words})")


NIBBLES: Table = {ExtendOp.name: _extend, vector.TransferReadOp.name: _read}
