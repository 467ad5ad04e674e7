"""The emitter of lanes that are dealt to vectors.

Vectors of numbers are exchanged in rounds: two of them a block apart swap blocks of lanes, of one
lane first, then of two, and so on. Vectors of 4 bits come from one line of memory, of which each
word of 32 bits has one element for each result. Where a vector holds a table of all 16 numbers, a
word is shifted until the element is its lowest. Otherwise the two halves of all bytes are taken
apart once, and a shuffle of bytes then brings a half to the top of its word, with zeros below. That
is one shuffle, and no shift and no mask, for most of 8 vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from xdsl.dialects.builtin import i8, i32

from gemmir.backends.llvm.emitter import Emitter, Rows, Table, element_of, set_rows, shape_of
from gemmir.backends.llvm.nibbles import BITS, HIGHEST, WORD_LANES, has_table, is_nibble
from gemmir.backends.llvm.text import lanes_type, scalar_type, splat_literal
from gemmir.errors import BackendError
from gemmir.ir.dialect import DealOp

WORD_BYTES: Final = 4

UPPER_HALF: Final = -16
"""A byte with its four highest bits, as LLVM writes it."""


def _deal(e: Emitter, op: DealOp) -> None:
    made = _dealt_nibbles(e, op) if is_nibble(op.inputs[0].type) else _dealt(e, op)
    for result, rows in zip(op.outputs, made, strict=True):
        set_rows(e, result, rows)


def _dealt(e: Emitter, op: DealOp) -> list[Rows]:
    """Of each result its rows."""
    given = [e.rows(value) for value in op.inputs]
    lanes, count = shape_of(op.inputs[0].type)[1], len(op.outputs)
    made: list[Rows] = [[] for _ in op.outputs]
    for lines in zip(*given, strict=True):
        scalar = scalar_type(e.stored(element_of(op.inputs[0].type)))
        are_powers = all(size & (size - 1) == 0 for size in (lanes, len(lines)))
        are_few = are_powers and len(lines) <= lanes == count
        how = _exchanged if are_few else _one_by_one
        for rows, line in zip(made, how(e, scalar, list(lines), lanes, count), strict=True):
            rows.append(line)
    return made


def _exchanged(e: Emitter, scalar: str, lines: Rows, lanes: int, count: int) -> Rows:
    """Vectors of `count` lanes: lane j of vector i becomes lane i of vector j."""
    wide, block, length = f"<{lanes} x {scalar}>", 1, len(lines)
    while block < length:
        low = [lane if not lane & block else lanes + lane - block for lane in range(lanes)]
        high = [lane + block if not lane & block else lanes + lane for lane in range(lanes)]
        for first in (n for n in range(length) if not n & block):
            pair = f"{wide} {lines[first]}, {wide} {lines[first + block]}"
            lines[first], lines[first + block] = (
                e.text.value(f"shufflevector {pair}, {_mask(places)}") for places in (low, high)
            )
        block *= 2
    if length == count:
        return lines
    return [
        e.text.value(
            f"shufflevector {wide} {line}, {wide} poison, {_mask(range(first, first + length))}"
        )
        for first in range(0, lanes, length)
        for line in lines
    ]


def _mask(places: Sequence[int]) -> str:
    """The lanes that a shuffle takes."""
    return f"<{len(places)} x i32> <{', '.join(f'i32 {place}' for place in places)}>"


def _one_by_one(e: Emitter, scalar: str, lines: Rows, lanes: int, count: int) -> Rows:
    """Any number of vectors of any number of lanes."""
    made: Rows = []
    total = len(lines) * lanes
    wide = f"<{total // count} x {scalar}>"
    for first in range(count):
        line = "poison"
        for place, lane in enumerate(range(first, total, count)):
            source = f"<{lanes} x {scalar}> {lines[lane // lanes]}"
            one = e.text.value(f"extractelement {source}, i64 {lane % lanes}")
            line = e.text.value(f"insertelement {wide} {line}, {scalar} {one}, i64 {place}")
        made.append(line)
    return made


def _dealt_nibbles(e: Emitter, op: DealOp) -> list[Rows]:
    """One vector, as many bytes as it has pairs of elements, dealt to the elements of a word."""
    lanes, count = shape_of(op.inputs[0].type)[1], len(op.outputs)
    if len(op.inputs) > 1 or count != WORD_LANES:
        raise BackendError(
            "GEM1386",
            f"{len(op.inputs)} vectors of 4 bits are dealt to {count}",
            f"deal one to {WORD_LANES}",
        )
    made: list[Rows] = [[] for _ in op.outputs]
    of_line = _lowest if has_table(e, lanes // count) else _tops
    for line in e.rows(op.inputs[0]):
        for number, row in enumerate(of_line(e, line, lanes)):
            made[number].append(row)
    return made


def _lowest(e: Emitter, line: str, lanes: int) -> Rows:
    """For each element of a word, words with that in their lowest bits, below anything."""
    wide = lanes_type(i32, lanes // WORD_LANES)
    words = e.text.value(f"bitcast {lanes_type(i8, lanes // 2)} {line} to {wide}")
    distances = [
        splat_literal(str(BITS * place), "i32", lanes // WORD_LANES)
        for place in range(1, WORD_LANES)
    ]
    return [words, *(e.text.value(f"lshr {wide} {words}, {count}") for count in distances)]


def _tops(e: Emitter, line: str, lanes: int) -> Rows:
    """For each element of a word, words with that in their highest bits and zeros below."""
    text, size, count = e.text, lanes // 2, lanes // WORD_LANES
    narrow, wide = lanes_type(i8, size), lanes_type(i32, count)
    mask = splat_literal(str(UPPER_HALF), "i8", size)
    words = text.value(f"bitcast {narrow} {line} to {wide}")
    shifted = text.value(f"shl {wide} {words}, {splat_literal(str(BITS), 'i32', count)}")
    moved = text.value(f"bitcast {wide} {shifted} to {narrow}")
    low, high = (text.value(f"and {narrow} {half}, {mask}") for half in (moved, line))
    made: Rows = []
    for byte in range(WORD_BYTES):
        for half in (low, high):
            made.append(_top_byte(e, half, byte, size, wide))
    return made


def _top_byte(e: Emitter, line: str, byte: int, size: int, wide: str) -> str:
    """Byte `byte` of each word as its highest one, and zeros below."""
    narrow = lanes_type(i8, size)
    if byte == WORD_BYTES - 1:
        words = e.text.value(f"bitcast {narrow} {line} to {wide}")
        top = splat_literal(str(HIGHEST), "i32", size // WORD_BYTES)
        return e.text.value(f"and {wide} {words}, {top}")
    places = (
        f"i32 {place // WORD_BYTES * WORD_BYTES + byte}"
        if place % WORD_BYTES == WORD_BYTES - 1
        else f"i32 {size}"
        for place in range(size)
    )
    shuffled = e.text.value(
        f"shufflevector {narrow} {line}, {narrow} zeroinitializer, "
        f"<{size} x i32> <{', '.join(places)}>"
    )
    return e.text.value(f"bitcast {narrow} {shuffled} to {wide}")


DEALS: Table = {DealOp.name: _deal}
