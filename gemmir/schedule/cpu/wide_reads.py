"""Tiles of one vector on a CPU: which rows of A they read several elements at a time, and how far
k is unrolled."""

from __future__ import annotations

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.model import (
    CACHE_LINE_BYTES,
    has_half_pipes,
    has_shuffles_beside,
    item_bytes,
)
from gemmir.schedule.cpu.tiles import MANY_REGISTERS, RegisterTile, direct_tile, lines_of_vector

DIRECT_K_STEPS = 4
"""Unrolling where nothing is packed. With more, LLVM loads further ahead than 32 registers hold and
spills: of 64 cubed, 16 steps of 8 x 32 reach 80 % of the peak on Zen 5, and 4 reach it."""

MOST_UNROLLED_ROWS = 8
"""Of a tile of one vector in 16 registers: of 12 rows LLVM spills 14 registers in 4 steps, and
without them n of 8 in f32 is 1.05 to 1.33 times as fast with AVX2 on Zen 5, n of 4 in f64 1.06. So
it is with a k of 8 or 16 that is unrolled altogether for wide reads."""

MOST_K_STEPS = 16
"""Where rows are read so and k is no more than this, it is unrolled altogether: without a loop
16 cubed is 1 % faster on Zen 5."""

WIDE_BYTES = 16
"""Bytes of a row of A that are read at once: the elements of the shortest vectors are spread by one
or two shuffles."""

FEWEST_SPARE = 2
REGISTERS_OF_WIDE_ROW = 2
"""Registers beside one for each sum: a vector of B and an element, and what such a row has. With 12
of 24 rows sums were spilled: with AVX-512 on Zen 5 k of 8 to 16 by 5 to 10 columns is 1.15 to 1.3
times as fast in f32 with 2 to 4 of them, and 1.4 to 1.9 times in f64."""

LOADS_KEPT_UP = 0.97
"""Loads and stores for each multiply-add beside which a core multiplies as fast as it can, where it
has as many of one a cycle as of the other. With this, and half of the rows at most, the best number
or one that is 2.5 % slower at most is found for twelve products of 4 to 16 columns on Zen 5, which
are 4 to 35 % faster so."""


ROWS_FOR_A_WIDE_ONE = 8
"""With pipes of half a line, and vectors as long. A shuffle takes a pipe that multiplies: on Zen 4
8 cubed in f32 is 1.1 to 1.18 times as fast with 1 row as with 3, 16 x 8 x 32 1.03 to 1.06 with 2.
Whole lines gain nothing: a multiply-add takes one cycle, and its element of A half of one of the
loads; without, 13 cubed is 1.06 times as fast, 4 x 16 x 16 1.08, and 16 x 16 x 16384 1.05."""


def direct_steps(gemm: Gemm, machine: CpuMachine) -> int:
    """How many steps of k an iteration of a direct schedule has."""
    if gemm.k <= MOST_K_STEPS and wide_rows(gemm, machine) > 0:
        return gemm.k
    tile = direct_tile(gemm, machine, gemm.k)
    return 1 if _is_full(tile, machine) else DIRECT_K_STEPS


def _is_full(tile: RegisterTile, machine: CpuMachine) -> bool:
    """Whether sums leave no registers for what more than one step of k has."""
    has_few = machine.vector_registers < MANY_REGISTERS
    return has_few and tile.vectors == 1 and tile.rows > MOST_UNROLLED_ROWS


def wide_rows(gemm: Gemm, machine: CpuMachine) -> int:
    """How many rows of A are read several elements at a time where it is read in place."""
    tile = direct_tile(gemm, machine, gemm.k)
    if _is_full(tile, machine):
        return 0
    spare = machine.vector_registers - tile.rows - FEWEST_SPARE
    most = min(tile.rows // 2, spare // REGISTERS_OF_WIDE_ROW)
    return min(round(_rows_wanted(gemm, machine, tile)), most, _most_beside(gemm, machine, tile))


def wide_rows_of_slices(gemm: Gemm, machine: CpuMachine, tile: RegisterTile) -> int:
    """The same of a long k in slices: one row less where the number is between two.

    On Zen 5 one of 8 rows makes 16 x 16 x 16384 and four others 1.02 to 1.05 times as fast, two
    1.00 to 1.03, and three 0.98 to 1.01.
    """
    most = min(tile.rows // 2, _most_beside(gemm, machine, tile))
    return min(int(_rows_wanted(gemm, machine, tile)), most)


def _most_beside(gemm: Gemm, machine: CpuMachine, tile: RegisterTile) -> int:
    """Of how many rows elements are shuffled beside multiply-adds."""
    if not has_half_pipes(machine):
        return tile.rows
    is_whole = tile.lanes * item_bytes(gemm) >= CACHE_LINE_BYTES
    return 0 if is_whole else max(tile.rows // ROWS_FOR_A_WIDE_ONE, 1)


def _rows_wanted(gemm: Gemm, machine: CpuMachine, tile: RegisterTile) -> float:
    """How many rows bring loads and stores down to what a core does beside multiply-adds.

    A tile of one vector has a load for each multiply-add, and others for B and stores for C, which
    are more than a core can do beside. In a loop over k 16 registers are too few for it (up to 20 %
    slower with AVX2 on Zen 5).
    """
    width = WIDE_BYTES // item_bytes(gemm)
    is_adjacent = not gemm.trans_a and gemm.k >= width
    has_room = machine.vector_registers >= MANY_REGISTERS or gemm.k <= MOST_K_STEPS
    if tile.vectors > 1 or not (is_adjacent and has_room and has_shuffles_beside(machine)):
        return 0
    lines = lines_of_vector(gemm, machine, tile.lanes)
    moved = tile.rows + lines + tile.rows * lines / gemm.k
    return (moved - LOADS_KEPT_UP * tile.rows) / (1 - 1 / width)
