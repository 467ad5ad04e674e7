"""Emitters of elements of 4 bits: how vectors of them are read, and made floats.

Two are in a byte of memory, the first one low. A vector of them is held as one of i32, of which
some bits count: on x86 with AVX-512 the low ones, which are the index into a table of 16 floats
(vpermps), elsewhere the high ones, which a shift takes down with their sign.

A row of 8 is one word, spread over 8 lanes; each lane is then shifted by another distance. Rows
that are columns of what lies in memory are words of 8 rows: a lane for each word, shifted alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from xdsl.dialects import arith, vector
from xdsl.dialects.builtin import IntegerType, VectorType, i8, i32
from xdsl.ir import Attribute

from gemmir.backends.llvm.arithmetic import to_float
from gemmir.backends.llvm.emitter import Emitter, Rows, Table, element_of, set_rows, shape_of
from gemmir.backends.llvm.memory import access_of, load_line, transfer_read
from gemmir.backends.llvm.text import is_literal, lanes_type, splat_literal
from gemmir.errors import BackendError

BITS: Final = 4
WORD_LANES: Final = 8
"""How many elements a word of 32 bits has."""

TOP: Final = 28
"""Where in a word the highest element begins."""

TABLE_LANES: Final = 16
"""Lanes of a vector of 512 bits, and floats in the table that 4 bits are an index into."""


def is_nibble(t: Attribute) -> bool:
    """Whether elements have 4 bits."""
    element = element_of(t)
    return isinstance(element, IntegerType) and element.bitwidth == BITS


def holds_low(e: Emitter) -> bool:
    """Whether the low bits of a lane are the element: they are looked up."""
    return "avx512f" in e.features


def _read(e: Emitter, op: vector.TransferReadOp) -> None:
    t = op.result.type
    assert isinstance(t, VectorType)
    if not is_nibble(t):
        transfer_read(e, op)
        return
    access, transposed = access_of(e, op.source, op.indices, t, op)
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
        line_stride=access.line_stride // 2,
        lane_limit=None if access.lane_limit is None else _half(e, access.lane_limit),
    )
    lines = [load_line(e, in_bytes, number, "0") for number in range(access.lines)]
    made = _columns if transposed else _rows
    e.values[op.result] = made(e, lines, access.lanes)


def _half(e: Emitter, limit: str) -> str:
    """So many bytes have `limit` elements, which is even."""
    if is_literal(limit):
        return str(int(limit) // 2)
    return e.text.value(f"ashr i64 {limit}, 1")


def _word(e: Emitter, line: str, lanes: int) -> str:
    """At most 8 elements, which were read as bytes, as an i32."""
    bits = BITS * lanes
    loaded = line
    if lanes > 2:
        loaded = e.text.value(f"bitcast {lanes_type(i8, lanes // 2)} {line} to i{bits}")
    return loaded if bits == 32 else e.text.value(f"zext i{bits} {loaded} to i32")


def _rows(e: Emitter, lines: Rows, lanes: int) -> Rows:
    """Lines that are rows: each of their elements in a lane."""
    if lanes == TABLE_LANES and {"avx512f", "avx512vbmi"} <= e.features:
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
    low = holds_low(e)
    distances = [place if low else TOP - place for place in places]
    if not any(distances):
        return words
    numbers = ", ".join(f"i32 {distance}" for distance in distances)
    return e.text.value(f"{'lshr' if low else 'shl'} {wide} {words}, <{numbers}>")


def _multishift(e: Emitter, line: str) -> str:
    """16 elements by one instruction, which takes any 8 bits of 64 to each byte."""
    text = e.text
    name = "@llvm.x86.avx512.pmultishift.qb.512"
    text.declare(f"<64 x i8> {name}(<64 x i8>, <64 x i8>)")
    whole = text.value(f"bitcast <8 x i8> {line} to i64")
    one = text.value(f"insertelement <8 x i64> poison, i64 {whole}, i64 0")
    spread = text.value(
        f"shufflevector <8 x i64> {one}, <8 x i64> poison, <8 x i32> zeroinitializer"
    )
    data = text.value(f"bitcast <8 x i64> {spread} to <64 x i8>")
    places = ", ".join(f"i8 {BITS * (byte // 4) if byte % 4 == 0 else 0}" for byte in range(64))
    found = text.value(f"call <64 x i8> {name}(<64 x i8> <{places}>, <64 x i8> {data})")
    return text.value(f"bitcast <64 x i8> {found} to <16 x i32>")


def _columns(e: Emitter, lines: Rows, lanes: int) -> Rows:
    """Lines that are columns: a lane for each, and rows of what is at one place in all of them."""
    wide = lanes_type(i32, len(lines))
    words = "poison"
    for number, line in enumerate(lines):
        word = _word(e, line, lanes)
        words = e.text.value(f"insertelement {wide} {words}, i32 {word}, i64 {number}")
    return [_shifted(e, words, wide, [BITS * place] * len(lines)) for place in range(lanes)]


def _to_float(e: Emitter, op: arith.SIToFPOp) -> None:
    if not is_nibble(op.input.type):
        to_float(e, op)
        return
    rows, lanes = e.rows(op.input), shape_of(op.input.type)[1]
    made = e.row_type(op.result.type)
    set_rows(e, op.result, [_number(e, row, lanes, made) for row in rows])


def _number(e: Emitter, row: str, lanes: int, made: str) -> str:
    """One row as floats."""
    text = e.text
    if holds_low(e) and made == f"<{TABLE_LANES} x float>":
        name = "@llvm.x86.avx512.permvar.sf.512"
        indices = f"<{TABLE_LANES} x i32>"
        text.declare(f"{made} {name}({made}, {indices})")
        numbers = (*range(8), *range(-8, 0))
        table = ", ".join(f"float {number}.0" for number in numbers)
        return text.value(f"call {made} {name}({made} <{table}>, {indices} {row})")
    wide = lanes_type(i32, lanes)
    top = splat_literal(str(TOP), "i32", lanes)
    if holds_low(e):
        row = text.value(f"shl {wide} {row}, {top}")
    whole = text.value(f"ashr {wide} {row}, {top}")
    return text.value(f"sitofp {wide} {whole} to {made}")


NIBBLES: Table = {arith.SIToFPOp.name: _to_float, vector.TransferReadOp.name: _read}
