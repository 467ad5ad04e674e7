"""Direct schedules for CPUs: register tiles read A and B where they lie."""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.edges import last_rows, open_tiles
from gemmir.schedule.cpu.model import (
    CACHE_LINE_BYTES,
    L1_WAY_BYTES,
    broadcasts_from_memory,
    bytes_of,
    bytes_of_row,
    has_half_pipes,
    item_bytes,
    rows_in_l1,
    rows_in_l2,
)
from gemmir.schedule.cpu.schedule_class import Microkernel, ScheduleClass
from gemmir.schedule.cpu.tiles import (
    RegisterTile,
    cuts_columns,
    direct_tile,
    lanes_of_direct,
    packed_tile,
)
from gemmir.schedule.cpu.wide_reads import direct_steps, wide_rows

NEAR_L2 = 4
"""How many times L2 A and B are at most, where B is read in place with vectors of half a line."""


MOST_PEELED = 128
"""Steps of k whose first iteration is taken out of the loop with pipes of half a line. On Zen 4 a
vector of a line that is stored delays a multiply-add by 1.5 cycles, but no product, so that a tile
takes 15 cycles less if the next begins with products (16 multiply-adds of 16 steps and 16 stores
take 256 cycles and not 261, in assembly). f32 24 cubed is 1.05 times as fast, 16 and 32 cubed 1.03,
64 cubed 1.015, 128 cubed 1.006; longer sums gain less than what differs from run to run."""


def is_in_l2(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether A and B stay in half of L2, from where vectors are read fast enough.

    Those of half a line are where L1 holds a line of each row of B.
    """
    is_small = bytes_of(gemm, "ab") <= machine.l2_bytes // 2
    has_whole_lines = machine.vector_bytes >= CACHE_LINE_BYTES
    return is_small and (has_whole_lines or gemm.k <= rows_in_l1(bytes_of_row(gemm, "b"), machine))


def is_close(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether a copy of B costs more than it saves, though A and B are larger than half of L2.

    Vectors of whole lines are read fast enough from L3 too, up to twice L2: on Zen 5 of 25 products
    in f32 and f64, of 128 to 768, 23 are 0.8 to 8 % faster than with a copy. Rows that are whole
    pages apart are copied.
    """
    if gemm.trans_a or not broadcasts_from_memory(machine):
        return False
    if 0 in (bytes_of_row(gemm, x) % L1_WAY_BYTES for x in "ab"):
        return False
    bytes_read = bytes_of(gemm, "ab")
    if machine.vector_bytes >= CACHE_LINE_BYTES:
        return bytes_read <= 2 * machine.l2_bytes
    rows = rows_in_l1(bytes_of_row(gemm, "b"), machine)
    return (bytes_read <= machine.l2_bytes and gemm.k <= 2 * rows) or _is_near(gemm, machine)


def _is_near(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether shorter vectors, too, read B fast enough from L2, which each row has a line in.

    With AVX2 on Zen 5 squares of 128 to 600 are up to 3 % faster so in f32 and 4 % in f64, and none
    is slower, while rows begin at half a vector: else some vectors are in two lines, and a last
    tile computes more again.
    """
    row_bytes = bytes_of_row(gemm, "b")
    is_aligned = row_bytes % (machine.vector_bytes // 2) == 0
    bytes_read = bytes_of(gemm, "ab")
    stays = gemm.k <= rows_in_l2(row_bytes, machine)
    return is_aligned and stays and bytes_read <= NEAR_L2 * machine.l2_bytes


def _loops(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Register tiles read A and B where they lie; the operand that stays in L1 is walked inside."""
    yield from in_place(gemm, machine, direct_tile(gemm, machine, gemm.k))


def in_place(gemm: Gemm, machine: CpuMachine, tile: RegisterTile) -> Iterator[str]:
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
    bytes_b = bytes_of(gemm, "b")
    if bytes_b <= machine.l1_bytes // 2:
        return True
    if machine.vector_bytes < CACHE_LINE_BYTES or bytes_b > machine.l2_bytes // 2:
        return False
    row_bytes = bytes_of_row(gemm, "b")
    is_cut = row_bytes % CACHE_LINE_BYTES != 0
    lines = -(-columns * item // CACHE_LINE_BYTES) + is_cut
    collides = gemm.k > rows_in_l1(row_bytes, machine)
    return collides or gemm.k * lines * CACHE_LINE_BYTES > machine.l1_bytes * 3 // 4


def _last_columns(gemm: Gemm, columns: int, machine: CpuMachine) -> str:
    """A last tile is narrower where it may be cut, and otherwise computes some elements again."""
    if gemm.n % columns == 0:
        return ""
    return " edges=peel" if cuts_columns(gemm, machine) else " edges=overlap"


def _clipped(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Register tiles of rows whose number is known at run time."""
    tile = packed_tile(gemm, machine)
    yield f"tile{{loops=m,n sizes={tile.rows},{tile.columns}}}"
    yield "promote{operand=c to=registers}"


def _microkernel(gemm: Gemm, machine: CpuMachine) -> Microkernel:
    return Microkernel(
        steps=direct_steps(gemm, machine),
        wide_rows=wide_rows(gemm, machine),
        is_peeled=_is_peeled(gemm, machine),
        lanes=lanes_of_direct(gemm, machine, direct_tile(gemm, machine, gemm.k)),
    )


def _is_peeled(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether a sum begins with a product, so that stores of the tile before do not delay it."""
    return has_half_pipes(machine) and 0 < gemm.k <= MOST_PEELED and gemm.m * gemm.n > 0


DIRECT = ScheduleClass(name="direct", loops=_loops, microkernel=_microkernel)


CLIPPED = ScheduleClass(name="clipped", loops=_clipped)
