"""Direct schedules for CPUs: register tiles read A and B where they lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu_model import (
    CACHE_LINE_BYTES,
    L1_WAY_BYTES,
    broadcasts_from_memory,
    has_masks,
    item_bytes,
    rows_in_l1,
    rows_in_l2,
)
from gemmir.schedule.cpu_tiles import (
    RegisterTile,
    cuts_columns,
    direct_tile,
    last_rows,
    open_tiles,
    packed_tile,
)

TURNED_VECTORS = 3
TURNED_ROWS = 6
"""With AVX-512 8 x 3 vectors that are transposed before they are stored spill. On Zen 5 6 x 48 is
1.05 times as fast for 48 cubed in f32, 1.02 in f64, and 1.00 to 1.02 for 96 cubed."""

NEAR_L2 = 4
"""How many times L2 A and B are at most, where B is read in place with vectors of half a line."""


def is_close(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether a copy of B costs more than it saves, though A and B are larger than half of L2.

    Vectors of whole lines are read fast enough from L3 too, up to twice L2: on Zen 5 of 25 products
    in f32 and f64, of 128 to 768, 23 are 0.8 to 8 % faster than with a copy. Rows that are whole
    pages apart are copied.
    """
    item = item_bytes(gemm)
    if gemm.trans_a or not broadcasts_from_memory(machine):
        return False
    if 0 in (gemm.leading(x) * item % L1_WAY_BYTES for x in "ab"):
        return False
    bytes_read = (gemm.m + gemm.n) * gemm.k * item
    if machine.vector_bytes >= CACHE_LINE_BYTES:
        return bytes_read <= 2 * machine.l2_bytes
    rows = rows_in_l1(gemm.leading("b") * item, machine)
    return (bytes_read <= machine.l2_bytes and gemm.k <= 2 * rows) or _is_near(gemm, machine)


def _is_near(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether shorter vectors, too, read B fast enough from L2, which each row has a line in.

    With AVX2 on Zen 5 squares of 128 to 600 are up to 3 % faster so in f32 and 4 % in f64, and none
    is slower, while rows begin at half a vector: else some vectors are in two lines, and a last
    tile computes more again.
    """
    row_bytes = gemm.leading("b") * item_bytes(gemm)
    is_aligned = row_bytes % (machine.vector_bytes // 2) == 0
    bytes_read = (gemm.m + gemm.n) * gemm.k * item_bytes(gemm)
    stays = gemm.k <= rows_in_l2(row_bytes, machine)
    return is_aligned and stays and bytes_read <= NEAR_L2 * machine.l2_bytes


def is_swapped(gemm: Gemm) -> bool:
    """Whether A and B are both transposed, and C can be computed transposed instead.

    Then neither is copied. C is stored lane by lane, which is the lesser cost while C has fewer
    elements than A and B: 48 to 512 cubed take 3 to 12 % less time so on Zen 5.
    """
    alone = gemm.batch is None and gemm.groups is None and gemm.scale_block is None
    plain = not gemm.epilogue and gemm.beta == 0 and gemm.dtype_b is None
    one_type = gemm.element is gemm.accumulator is gemm.result
    transposed = gemm.trans_a and gemm.trans_b and min(gemm.m, gemm.n) > 1
    return (
        transposed
        and (alone and plain and one_type)
        and (gemm.m + gemm.n) * gemm.k >= gemm.m * gemm.n
    )


def swapped(gemm: Gemm) -> Gemm:
    """The product that gives the transpose of C: B and A as they lie."""
    return replace(
        gemm,
        m=gemm.n,
        n=gemm.m,
        trans_a=False,
        trans_b=False,
        lda=gemm.leading("b"),
        ldb=gemm.leading("a"),
        ldc=None,
    )


def direct(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Register tiles read A and B where they lie; the operand that stays in L1 is walked inside."""
    yield from _in_place(gemm, machine, direct_tile(gemm, machine, gemm.k))


def turned(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """The same where C is stored transposed: sums of three vectors leave room to turn them."""
    tile = direct_tile(gemm, machine, gemm.k)
    is_full = tile.vectors == TURNED_VECTORS and tile.rows > TURNED_ROWS
    if has_masks(machine) and is_full and gemm.m % TURNED_ROWS == 0:
        tile = replace(tile, rows=TURNED_ROWS)
    yield from _in_place(gemm, machine, tile)


def _in_place(gemm: Gemm, machine: CpuMachine, tile: RegisterTile) -> Iterator[str]:
    """Loops over `tile`, and the smaller ones at the edges."""
    columns = min(tile.columns, max(gemm.n, 1))
    down = ("m", tile.rows, last_rows(gemm.m, tile.rows, machine))
    across = ("n", columns, _last_columns(gemm, columns, machine))
    rows_first = _b_stays(gemm, machine, columns)
    yield from open_tiles(*((down, across) if rows_first else (across, down)))
    yield "promote{operand=c to=registers}"


def _b_stays(gemm: Gemm, machine: CpuMachine, columns: int) -> bool:
    """Whether rows of A are walked outside, each of which meets all of B.

    B is in L1 then, or in L2 where vectors are whole lines and not even the columns of a tile stay
    in L1: they come from L2 for each tile of rows anyway, and rows of A need not. Squares of 224 to
    256 in f32 and f64 are 0.2 to 1 % faster so on Zen 5, and with a larger B up to 2.5 % slower.
    """
    item = item_bytes(gemm)
    bytes_b = gemm.n * gemm.k * item
    if bytes_b <= machine.l1_bytes // 2:
        return True
    if machine.vector_bytes < CACHE_LINE_BYTES or bytes_b > machine.l2_bytes // 2:
        return False
    row_bytes = gemm.leading("b") * item
    is_cut = row_bytes % CACHE_LINE_BYTES != 0
    lines = -(-columns * item // CACHE_LINE_BYTES) + is_cut
    collides = gemm.k > rows_in_l1(row_bytes, machine)
    return collides or gemm.k * lines * CACHE_LINE_BYTES > machine.l1_bytes * 3 // 4


def _last_columns(gemm: Gemm, columns: int, machine: CpuMachine) -> str:
    """A last tile is narrower where it may be cut, and otherwise computes some elements again."""
    if gemm.n % columns == 0:
        return ""
    return " edges=peel" if cuts_columns(gemm, machine) else " edges=overlap"


def clipped(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Register tiles of rows whose number is known at run time."""
    tile = packed_tile(gemm, machine)
    yield f"tile{{loops=m,n sizes={tile.rows},{tile.columns}}}"
    yield "promote{operand=c to=registers}"
