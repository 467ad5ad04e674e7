"""Emitters of vectors that are read from memory and written to it, spread over threads or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from xdsl.dialects import vector
from xdsl.dialects.builtin import VectorType

from gemmir.backends.llvm.emitter import Emitter, Rows, Table, shape_of
from gemmir.backends.llvm.memory import (
    Access,
    access_of,
    difference,
    load_line,
    store_line,
    transfer_read,
    transfer_write,
)
from gemmir.backends.llvm.text import scalar_type
from gemmir.backends.ptx.addresses import address_of, panels_of, swizzle_of
from gemmir.backends.ptx.shared import item_bytes
from gemmir.backends.ptx.spread import BLOCK, OF_GROUP, PAIR, QUAD, ROWS, Spread, spread_of
from gemmir.backends.ptx.threads import CONVERGENT, lane_of
from gemmir.ir.attributes import PanelAttr
from gemmir.ir.dialect import memref_type, static_strides
from gemmir.ir.warpgroup import WarpgroupSliceOp

WORD_BYTES = 4
"""What a lane gives of each row of a matrix that `stmatrix` stores."""

Transfer = vector.TransferReadOp | vector.TransferWriteOp


def _places(
    e: Emitter, op: Transfer, spread: Spread, shape: tuple[int, int]
) -> Iterator[tuple[tuple[int, int], list[str], tuple[str | None, str | None]]]:
    """Each block of a tile: its place in that, the indices of this thread's part of the first
    block, and how many rows and columns are left from the block on; None where all are."""
    text, pointer = e.text, e.pointer(op.source)
    own = [
        text.add(e.scalar(i), mine) for i, mine in zip(op.indices, spread.origin(e), strict=True)
    ]
    left = [
        None if flag.value.data else difference(e, size, index)
        for flag, size, index in zip(op.in_bounds.data, pointer.sizes, own, strict=True)
    ]
    for first in spread.blocks(shape):
        rows, columns = (
            None if n is None else difference(e, n, str(i))
            for n, i in zip(left, first, strict=True)
        )
        yield first, own, (rows, columns)


def _parts(e: Emitter, op: Transfer, spread: Spread, shape: tuple[int, int]) -> Iterator[Access]:
    """How this thread reaches its part of each block of a tile."""
    text, of = e.text, memref_type(op.source)
    strides, scalar = static_strides(of), scalar_type(of.element_type)
    base = e.pointer(op.source).address
    for first, own, (rows, columns) in _places(e, op, spread, shape):
        address = text.address(base, scalar, list(zip(own, strides, strict=True)))
        place = sum(i * s for i, s in zip(first, strides, strict=True))
        yield Access(
            address=text.offset(address, scalar, place),
            element=of.element_type,
            line_stride=strides[0],
            lines=1,
            lanes=PAIR,
            lane_stride=strides[1],
            line_limit=rows,
            lane_limit=columns,
        )


def _swizzled_parts(
    e: Emitter, op: Transfer, spread: Spread, shape: tuple[int, int]
) -> Iterator[Access]:
    """The same in a swizzled buffer."""
    layout = swizzle_of(op.source)
    assert layout is not None
    for first, own, (rows, columns) in _places(e, op, spread, shape):
        at = [e.text.binary("add", mine, str(i)) for mine, i in zip(own, first, strict=True)]
        yield Access(
            address=address_of(e, op.source, at),
            element=memref_type(op.source).element_type,
            line_stride=0,
            lines=1,
            lanes=PAIR,
            lane_stride=1 if layout.dim.data == 1 else layout.width.data,
            line_limit=rows,
            lane_limit=columns,
        )


def parts(e: Emitter, op: Transfer, t: VectorType) -> list[tuple[Access, int]]:
    """How this thread reaches each row that it has of a vector: an access and the line of it."""
    spread = spread_of(e)
    if spread is None:
        access, _ = access_of(e, op.source, op.indices, t, op)
        return [(access, line) for line in range(access.lines)]
    if swizzle_of(op.source) is not None:
        return [(access, 0) for access in _swizzled_parts(e, op, spread, shape_of(t))]
    return [(access, 0) for access in _parts(e, op, spread, shape_of(t))]


def loads(e: Emitter, op: vector.TransferReadOp, t: VectorType) -> Callable[[int], str]:
    """What loads this thread's row of a vector; of elements that are the same, once for all."""
    padding, lines, known = e.scalar(op.padding), parts(e, op, t), dict[int, str]()
    alike = _alike(e, op, t)

    def load(row: int) -> str:
        first = alike[row] if alike else row
        if first not in known:
            known[first] = load_line(e, *lines[row], padding)
        return known[first]

    return load


def _alike(e: Emitter, op: vector.TransferReadOp, t: VectorType) -> list[int]:
    """For each block of a spread tile its row of blocks, if all in that have the same elements."""
    spread, are_all_there = spread_of(e), op.in_bounds.data[1].value.data
    if spread is None or swizzle_of(op.source) is not None or not are_all_there:
        return []
    if static_strides(memref_type(op.source))[1]:
        return []
    return [row for row, _ in spread.blocks(shape_of(t))]


def _read(e: Emitter, op: vector.TransferReadOp) -> None:
    t = op.result.type
    assert isinstance(t, VectorType)
    if e.spread is None:
        transfer_read(e, op)
        return
    load = loads(e, op, t)
    e.values[op.result] = [load(row) for row in range(e.shape(t)[0])]


def _write(e: Emitter, op: vector.TransferWriteOp) -> None:
    t = op.vector.type
    assert isinstance(t, VectorType)
    if e.spread is not None:
        if _has_matrices(e, op):
            _store_matrices(e, op, shape_of(t))
            return
        if (apart := _columns_apart(e, op, shape_of(t))) is not None:
            _store_in_turns(e, op, shape_of(t), apart)
            return
        for part, value in zip(parts(e, op, t), e.rows(op.vector), strict=True):
            store_line(e, *part, value)
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
            lane_stride=1 if runs_along else layout.pitch.data,
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


def _has_matrices(e: Emitter, op: vector.TransferWriteOp) -> bool:
    """Whether a tile goes there by `stmatrix`: whole, and in chunks of elements of 16 bits."""
    is_whole = all(flag.value.data for flag in op.in_bounds.data)
    layout = swizzle_of(op.source)
    has_rows = layout is not None and layout.chunk.data % BLOCK == 0
    has_words = PAIR * item_bytes(memref_type(op.source)) == WORD_BYTES
    return spread_of(e) == OF_GROUP and is_whole and has_rows and has_words


def _store_matrices(e: Emitter, op: vector.TransferWriteOp, shape: tuple[int, int]) -> None:
    """Four 8 x 8 matrices at a time, each of whose rows of 16 bytes one lane has the address of.

    The matrices are 16 rows and 16 columns, first down and then to the right, as the registers are.
    With `trans` their columns are stored where those are adjacent. The 8 rows of a matrix lie in
    different banks. PTX ISA 9.0, section "Warp-level matrix store instruction: stmatrix".
    """
    text, layout = e.text, swizzle_of(op.source)
    assert layout is not None
    by_columns = layout.dim.data == 0
    scalar = scalar_type(memref_type(op.source).element_type)
    rows = e.rows(op.vector)
    blocks = list(OF_GROUP.blocks(shape))
    lane, first = lane_of(e), OF_GROUP.first_row(e)
    right = text.binary("udiv", lane, str(ROWS))
    down = text.binary("urem", lane, str(ROWS))
    row, column = down, text.binary("mul", right, str(BLOCK))
    if by_columns:
        within = text.binary("urem", lane, str(BLOCK))
        column = text.binary("add", column, within)
        row = text.binary("mul", text.binary("udiv", down, str(BLOCK)), str(BLOCK))
    own = [text.binary("add", row, first), column]
    own = [text.binary("add", e.scalar(i), n) for i, n in zip(op.indices, own, strict=True)]
    number = 0
    while number < len(blocks):
        count = 4 if blocks[number][1] + 2 * BLOCK <= shape[1] else 2
        at = [
            text.binary("add", mine, str(place))
            for mine, place in zip(own, blocks[number], strict=True)
        ]
        address = address_of(e, op.source, at)
        words = [
            text.value(f"bitcast <{PAIR} x {scalar}> {value} to i32")
            for value in rows[number : number + count]
        ]
        _store_words(e, address, words, transposed=by_columns)
        number += count


def _store_words(e: Emitter, address: str, words: Rows, *, transposed: bool) -> None:
    """The matrices whose registers these are; lanes beyond what they need give an address too."""
    count = len(words)
    name = f"@llvm.nvvm.stmatrix.sync.aligned.m8n8.x{count}{'.trans' if transposed else ''}.b16.p3"
    e.text.declare(f"void {name}(ptr addrspace(3), {', '.join(['i32'] * count)}) {CONVERGENT}")
    shared = e.text.value(f"addrspacecast ptr {address} to ptr addrspace(3)")
    listed = ", ".join(f"i32 {word}" for word in words)
    e.text.line(f"call void {name}(ptr addrspace(3) {shared}, {listed})")


def _columns_apart(e: Emitter, op: vector.TransferWriteOp, shape: tuple[int, int]) -> int | None:
    """How far apart the columns should be that neighbouring rows store at once; None for at all.

    Of elements of 4 bytes a lane has 8 bytes of each row of a block, and 16 lanes store at once: 32
    bytes of each of 4 rows. Of these, two that are permuted otherwise lie in the same banks.
    """
    layout = swizzle_of(op.source)
    is_whole = all(flag.value.data for flag in op.in_bounds.data)
    if layout is None or layout.dim.data != 1 or spread_of(e) != OF_GROUP or not is_whole:
        return None
    if item_bytes(memref_type(op.source)) != WORD_BYTES or layout.chunk.data != QUAD:
        return None
    apart = layout.chunks // QUAD * BLOCK
    begins_at = e.text.divisor(e.scalar(op.indices[1]))
    is_paired = apart and not shape[1] % (2 * apart) and not begins_at % (2 * apart)
    return apart if is_paired else None


def _store_in_turns(
    e: Emitter, op: vector.TransferWriteOp, shape: tuple[int, int], apart: int
) -> None:
    """Every other row stores first what is `apart` columns further on, and then what is here.

    So all 4 rows that store at once lie in different banks.
    """
    text, layout = e.text, swizzle_of(op.source)
    assert layout is not None
    of, t = memref_type(op.source), e.row_type(op.vector.type)
    row, column = OF_GROUP.origin(e)
    turn = text.binary("udiv", row, str(layout.rows_alike))
    turn = text.binary("urem", turn, "2")
    is_later = text.early(f"icmp ne i64 {turn}, 0")
    ahead = text.binary("mul", turn, str(apart))
    row, column = (
        text.binary("add", e.scalar(i), n) for i, n in zip(op.indices, (row, column), strict=True)
    )
    rows = e.rows(op.vector)
    places = {at: n for n, at in enumerate(OF_GROUP.blocks(shape))}
    for (down, right), number in places.items():
        other = rows[places[down, right ^ apart]]
        value = text.value(f"select i1 {is_later}, {t} {other}, {t} {rows[number]}")
        along = text.binary("add", column, text.binary("xor", ahead, str(right)))
        access = Access(
            address=address_of(e, op.source, [text.binary("add", row, str(down)), along]),
            element=of.element_type,
            line_stride=0,
            lines=1,
            lanes=PAIR,
            lane_stride=1,
            line_limit=None,
            lane_limit=None,
        )
        store_line(e, access, 0, value)


def _slice(e: Emitter, op: WarpgroupSliceOp) -> None:
    """The rows that this thread has of a part of a sum."""
    whole, part = shape_of(op.source.type), shape_of(op.result.type)
    rows, (row, column) = e.rows(op.source), op.place
    places = {at: n for n, at in enumerate(OF_GROUP.blocks(whole))}
    e.values[op.result] = [rows[places[i + row, j + column]] for i, j in OF_GROUP.blocks(part)]


TRANSFERS: Table = {
    WarpgroupSliceOp.name: _slice,
    vector.TransferReadOp.name: _read,
    vector.TransferWriteOp.name: _write,
}
