"""Emitters of what a warp does as a whole: fragments and their products on tensor cores."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from xdsl.dialects.builtin import FixedBitwidthType

from gemmir.backends.llvm.emitter import Emitter, Rows, Table
from gemmir.backends.llvm.text import scalar_type
from gemmir.backends.ptx.addresses import address_of, panels_of, swizzle_of
from gemmir.backends.ptx.instructions import instruction_of
from gemmir.backends.ptx.spread import BLOCK, OF_WARP, PAIR, QUAD
from gemmir.backends.ptx.threads import lane_of
from gemmir.errors import BackendError
from gemmir.ir.dialect import memref_type, static_strides
from gemmir.ir.nvgpu import LdMatrixOp, MmaSyncOp, matrix_shape

HALVES = 2
"""Registers along k that a fragment has at most: of one product, or of two of f64."""

REGISTER_BYTES = 4
"""A register of A or B, unless one element takes more."""

ROW_BYTES = 16
"""A row of the matrices that `ldmatrix` moves."""


def _ldmatrix(e: Emitter, op: LdMatrixOp) -> None:
    """The registers of a tile: those of A for 16 rows at a time, those of B for 8 columns.

    By `ldmatrix` where its rows of 16 bytes lie as they are needed, and otherwise by loads of each
    lane. PTX ISA 9.0, section "Warp-level matrix load instruction: ldmatrix".
    """
    tile = _tile_of(e, op)
    if tile.halves > HALVES:
        raise BackendError(
            "GEM0428",
            f"a fragment of {tile.depth} elements of k, {tile.depth * tile.item_bytes} bytes",
            f"use at most {HALVES * tile.quad} elements, which is what registers hold",
        )
    is_moved = tile.item_bytes == 2 or (tile.along_k and not tile.is_interleaved)
    if is_moved and tile.has_whole_rows:
        e.values[op.result] = _matrices(e, op, tile)
    elif tile.has_pairs:
        e.values[op.result] = _pairs(e, op, tile)
    else:
        e.values[op.result] = _gathered(e, op, tile)


@dataclass(frozen=True, kw_only=True)
class _Tile:
    """How the tile of an `nvgpu.ldmatrix` lies: `runs` is the dimension in which it is adjacent.

    `extent` is that of m or n. A register holds `elements` of k, and a quad of lanes `quad`; along
    k there are `halves` quads. `has_whole_rows` says that 16 bytes that are adjacent are aligned.
    """

    is_a: bool
    runs: int
    item_bytes: int
    extent: int
    depth: int
    has_whole_rows: bool

    @property
    def along_k(self) -> bool:
        """Whether elements are adjacent along k."""
        return self.runs == (1 if self.is_a else 0)

    @property
    def elements(self) -> int:
        """Elements of a register, which has 32 bits or one element."""
        return max(REGISTER_BYTES // self.item_bytes, 1)

    @property
    def quad(self) -> int:
        """Elements of k that 4 lanes hold in one register each."""
        return QUAD * self.elements

    @property
    def halves(self) -> int:
        """Registers along k."""
        return self.depth // self.quad

    @property
    def is_interleaved(self) -> bool:
        """Whether neighbours in k are of different products, so that a lane loads them together."""
        return self.item_bytes > REGISTER_BYTES

    @property
    def has_pairs(self) -> bool:
        """Whether a lane has two neighbours in k that are one load."""
        is_whole = self.along_k and self.has_whole_rows
        return self.is_interleaved and is_whole and self.halves == HALVES

    @property
    def rows(self) -> int:
        """Rows of A, or columns of B, of one product."""
        return 2 * BLOCK if self.is_a and self.item_bytes <= REGISTER_BYTES else BLOCK


def _tile_of(e: Emitter, op: LdMatrixOp) -> _Tile:
    source, pointer = memref_type(op.source), e.pointer(op.source)
    swizzle, panels = swizzle_of(op.source), panels_of(op.source)
    element = source.element_type
    assert isinstance(element, FixedBitwidthType)
    layout = swizzle or panels
    runs = layout.dim.data if layout is not None else static_strides(source).index(1)
    steps = [1] * 2 if layout is not None else list(static_strides(source))
    steps[runs] = 1
    if panels is not None:
        steps[1 - runs] = math.gcd(panels.pitch.data, panels.stride.data)
    if swizzle is not None:
        steps[1 - runs] = swizzle.width.data
    distances = [
        e.text.divisor(place) * step
        for places in (map(e.scalar, op.indices), pointer.origin)
        for place, step in zip(places, steps, strict=True)
    ]
    apart = math.gcd(steps[1 - runs], *distances) * element.size
    aligned = math.gcd(e.text.alignment(pointer.address, 0), apart) if apart else ROW_BYTES
    rows, columns = matrix_shape(op.result)
    is_a = op.fragment.data == "a"
    return _Tile(
        is_a=is_a,
        runs=runs,
        item_bytes=element.size,
        extent=rows if is_a else columns,
        depth=columns if is_a else rows,
        has_whole_rows=aligned % ROW_BYTES == 0,
    )


def _matrices(e: Emitter, op: LdMatrixOp, tile: _Tile) -> Rows:
    """4 matrices of 8 rows of 16 bytes at a time, each row read at the address of one lane.

    `trans` is for tiles whose rows do not run along k.
    """
    text = e.text
    slow, fast = _row_of_lane(e, tile)
    own = (slow, fast) if tile.runs == 1 else (fast, slow)
    found: Rows = []
    first = 0
    while first < tile.extent:
        blocks = _at_once((tile.extent - first) // BLOCK, 4 // tile.halves)
        place = (first, 0) if tile.is_a else (0, first)
        at = [
            text.binary("add", text.binary("add", own[d], str(place[d])), e.scalar(op.indices[d]))
            for d in (0, 1)
        ]
        address = address_of(e, op.source, at)
        found += _load_matrices(e, address, blocks * tile.halves, transposed=not tile.along_k)
        first += blocks * BLOCK
    return found


def _at_once(left: int, most: int) -> int:
    """The largest power of two in `left`, at most `most`: `ldmatrix` moves 1, 2 or 4 matrices."""
    return min(1 << (left.bit_length() - 1), most)


def _row_of_lane(e: Emitter, tile: _Tile) -> tuple[str, str]:
    """Which row this lane gives the address of: along the slow and the fast dimension.

    Matrices follow each other as registers do: of A first along m, of B first along k.
    """
    text, lane = e.text, lane_of(e)
    if tile.halves == 1:
        block = text.binary("mul", text.binary("udiv", lane, str(BLOCK)), str(BLOCK))
        return (lane, "0") if tile.along_k else (text.binary("urem", lane, str(BLOCK)), block)
    high, low = text.binary("udiv", lane, "16"), text.binary("urem", lane, "16")
    wide = tile.quad if tile.along_k else BLOCK
    if tile.is_a == tile.along_k:
        return low, text.binary("mul", high, str(wide))
    slow = text.binary(
        "add", text.binary("mul", high, str(BLOCK)), text.binary("urem", lane, str(BLOCK))
    )
    return slow, text.binary("mul", text.binary("udiv", low, str(BLOCK)), str(wide))


def _own_part(e: Emitter, op: LdMatrixOp, tile: _Tile) -> Callable[[int, int], str]:
    """Where this lane loads from, by rows and elements of k behind its first.

    Lane l has of each 8 rows the one l / 4, and of each quad the elements of l mod 4. Where
    products are interleaved those of all quads are neighbours: the order of a sum is free.
    """
    text, lane = e.text, lane_of(e)
    row = text.binary("udiv", lane, str(QUAD))
    wide = tile.elements * (tile.halves if tile.is_interleaved else 1)
    column = text.binary("mul", text.binary("urem", lane, str(QUAD)), str(wide))
    own = (row, column) if tile.is_a else (column, row)
    origin = [text.add(e.scalar(index), mine) for index, mine in zip(op.indices, own, strict=True)]

    def address(across: int, along: int) -> str:
        place = (across, along) if tile.is_a else (along, across)
        at = [text.add(i, str(p)) for i, p in zip(origin, place, strict=True)]
        return address_of(e, op.source, at)

    return address


def _pairs(e: Emitter, op: LdMatrixOp, tile: _Tile) -> Rows:
    """Two neighbours of k of each row in one load of 16 bytes."""
    address = _own_part(e, op, tile)
    found: Rows = []
    for first in range(0, tile.extent, BLOCK):
        pair = e.text.value(f"load <2 x double>, ptr {address(first, 0)}, align {ROW_BYTES}")
        found += [e.text.value(f"extractelement <2 x double> {pair}, i64 {n}") for n in range(2)]
    return found


def _gathered(e: Emitter, op: LdMatrixOp, tile: _Tile) -> Rows:
    """Every element that this lane has, loaded on its own."""
    address = _own_part(e, op, tile)
    scalar = scalar_type(memref_type(op.source).element_type)
    between = 1 if tile.is_interleaved else tile.quad

    def register(block: int, half: int) -> str:
        places = [address(block, half * between + element) for element in range(tile.elements)]
        loads = [f"load {scalar}, ptr {place}, align {tile.item_bytes}" for place in places]
        return _joined(e, op, list(map(e.text.value, loads)))

    return [
        register(first + block, half)
        for first in range(0, tile.extent, tile.rows)
        for half in range(tile.halves)
        for block in range(0, tile.rows, BLOCK)
    ]


def _joined(e: Emitter, op: LdMatrixOp, elements: Rows) -> str:
    """Adjacent elements of k as one register: 32 bits, or a double."""
    scalar = scalar_type(memref_type(op.source).element_type)
    if len(elements) > 1:
        wide = f"<{len(elements)} x {scalar}>"
        made = "poison"
        for number, element in enumerate(elements):
            made = e.text.value(f"insertelement {wide} {made}, {scalar} {element}, i64 {number}")
        return e.text.value(f"bitcast {wide} {made} to i32")
    return e.text.value(f"bitcast float {elements[0]} to i32") if scalar == "float" else elements[0]


def _load_matrices(e: Emitter, address: str, count: int, *, transposed: bool) -> Rows:
    text = e.text
    made = f"{{ {', '.join(['i32'] * count)} }}" if count > 1 else "i32"
    name = f"@llvm.nvvm.ldmatrix.sync.aligned.m8n8.x{count}{'.trans' if transposed else ''}.b16.p3"
    text.declare(f"{made} {name}(ptr addrspace(3)) convergent nounwind")
    shared = text.value(f"addrspacecast ptr {address} to ptr addrspace(3)")
    loaded = text.value(f"call {made} {name}(ptr addrspace(3) {shared})")
    if count == 1:
        return [loaded]
    return [text.value(f"extractvalue {made} {loaded}, {n}") for n in range(count)]


def _mma_sync(e: Emitter, op: MmaSyncOp) -> None:
    """One instruction for each tile of the sum, of 16 x 8 or 8 x 8 elements."""
    text, instruction = e.text, instruction_of(op)
    register, sums = instruction.register, instruction.sum
    lhs, rhs = (_registers(e, e.rows(v), register) for v in (op.lhs, op.rhs))
    if op.tf32 is not None:
        lhs, rhs = (_rounded_to_tf32(e, words) for words in (lhs, rhs))
    m, _, depth = instruction.shape
    halves = depth * instruction.item_bytes // (QUAD * instruction.register_bytes)
    of_a = halves * (m // BLOCK)
    steps = matrix_shape(op.lhs)[1] // depth
    result = f"{{ {', '.join([sums] * (2 * (m // BLOCK)))} }}"
    operands = [register] * (of_a + halves) + [sums] * (2 * (m // BLOCK))
    text.declare(f"{result} @{instruction.intrinsic}({', '.join(operands)}) convergent nounwind")
    shape = matrix_shape(op.result)
    total, places = e.rows(op.acc), {at: n for n, at in enumerate(OF_WARP.blocks(shape))}
    made = list(total)
    pair = f"<{PAIR} x {sums}>"
    for row in range(0, shape[0], m):
        for column in range(0, shape[1], BLOCK):
            own = [places[half, column] for half in range(row, row + m, BLOCK)]
            parts = [
                text.value(f"extractelement {pair} {total[place]}, i64 {n}")
                for place in own
                for n in range(PAIR)
            ]
            for step in range(steps):
                a = lhs[(row // m * steps + step) * of_a :][:of_a]
                b = rhs[(column // BLOCK * steps + step) * halves :][:halves]
                values = [*a, *b, *parts]
                listed = ", ".join(f"{t} {v}" for t, v in zip(operands, values, strict=True))
                found = text.value(f"call {result} @{instruction.intrinsic}({listed})")
                places_of = range(len(parts))
                parts = [text.value(f"extractvalue {result} {found}, {n}") for n in places_of]
            for number, place in enumerate(own):
                x, y = parts[PAIR * number :][:PAIR]
                first = text.value(f"insertelement {pair} poison, {sums} {x}, i64 0")
                made[place] = text.value(f"insertelement {pair} {first}, {sums} {y}, i64 1")
    e.values[op.result] = made


def _registers(e: Emitter, words: Rows, register: str) -> Rows:
    """What was read from shared memory, as the product takes it."""
    if register in ("i32", "double"):
        return words
    return [e.text.value(f"bitcast i32 {word} to {register}") for word in words]


def _rounded_to_tf32(e: Emitter, words: Rows) -> Rows:
    """The bits of f32 rounded to nearest, halves away from zero."""
    intrinsic = "@llvm.nvvm.f2tf32.rna"
    e.text.declare(f"i32 {intrinsic}(float)")
    floats = [e.text.value(f"bitcast i32 {word} to float") for word in words]
    return [e.text.value(f"call i32 {intrinsic}(float {x})") for x in floats]


FRAGMENTS: Table = {
    LdMatrixOp.name: _ldmatrix,
    MmaSyncOp.name: _mma_sync,
}
