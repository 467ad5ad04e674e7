"""Schedules for CPUs with matrix tiles: products of bf16 or of bytes, packed for whole tiles.

Of the 8 tiles of Intel's AMX four are sums, 32 x 32 elements of C, and each tile of A and of B that
is loaded is multiplied twice: 4 loads of 16 lines for 4 products of 16 cycles. Few rows have one
tile of A and up to four of B.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gemmir.gemm import Gemm
from gemmir.ir.amx import ROW_BYTES, TILE_ROWS, WORD_BYTES
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.model import balanced, has_narrow_c, is_n_x_k, round_up
from gemmir.schedule.cpu.schedule_class import Microkernel, ScheduleClass

LEAST_FILLED: Final = TILE_ROWS // 2 + 1
"""Rows and columns of C from which tiles are used: half of one is filled then."""

SUMS: Final = 4
"""Tiles that are sums."""

SUM_BYTES: Final = SUMS * TILE_ROWS * ROW_BYTES
"""All of them, as L1 holds them where they go to C, and in C."""


def step_of(gemm: Gemm) -> int:
    """How much of k one product of tiles takes."""
    return ROW_BYTES // gemm.element.item_bytes


def has_tiles(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether tiles are there for the factors of `gemm`, and are filled more than half.

    A whole one pays for turning a B that is stored n x k on its way into panels: 2/5 of a cycle an
    element, where 16 rows by vectors take 1/2.
    """
    rows = TILE_ROWS if is_n_x_k(gemm) else LEAST_FILLED
    is_filled = gemm.m >= rows and gemm.n >= LEAST_FILLED and gemm.k >= step_of(gemm)
    return is_filled and machine.multiplies_tiles(gemm.element.name, gemm.element_b.name)


def tile_of(gemm: Gemm) -> tuple[int, int]:
    """Rows and columns of C that are summed at once, in whole tiles."""
    rows = min(round_up(gemm.m, TILE_ROWS), 2 * TILE_ROWS)
    most = SUMS * TILE_ROWS * TILE_ROWS // rows
    return rows, min(round_up(gemm.n, TILE_ROWS), most)


def fits_tiles(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether tiles are filled, and panels of all of k, where it is not cut, fit the last cache."""
    widest = max(tile_of(gemm)) * gemm.k * gemm.element.item_bytes
    has_room = not has_narrow_c(gemm) or widest <= machine.l3_bytes // 4
    return has_room and has_tiles(gemm, machine)


def _in_tiles(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Panels of A in L3 and blocks of B in L2; a panel of each finds room in L1 beside the sums."""
    (rows, columns), step = tile_of(gemm), step_of(gemm)
    item = gemm.element.item_bytes
    depth = WORD_BYTES // item
    kc = gemm.k
    if not has_narrow_c(gemm):
        room = (machine.l1_bytes - 2 * SUM_BYTES) // ((rows + columns) * item)
        kc = min(balanced(gemm.k, max(room // step, 1) * step, step), gemm.k)
    kept = round_up(kc, step) * item
    mc = balanced(gemm.m, max(machine.l3_bytes // 8 // kept, 1), rows)
    nc = balanced(gemm.n, max(machine.l2_bytes * 3 // 8 // kept, 1), columns)
    space = "l2" if nc * kept <= machine.l2_bytes // 2 else "l3"
    yield f"tile{{loops=m,k sizes={mc},{kc}}}"
    yield f"promote{{operand=a to=l3 layout=panel:{rows}x{step}}}"
    yield f"tile{{loops=n sizes={nc}}}"
    yield f"promote{{operand=b to={space} layout=panel:{columns}x{depth}x{step}}}"
    yield f"tile{{loops=m,n sizes={rows},{columns}}}"
    yield "promote{operand=c to=registers prefetch=true}"


def _microkernel(gemm: Gemm, machine: CpuMachine) -> Microkernel:
    """Four products take 64 cycles, beside which a loop counts: k is not unrolled."""
    return Microkernel(steps=1, unit="amx", depth=step_of(gemm))


IN_TILES = ScheduleClass(name="in tiles", loops=_in_tiles, microkernel=_microkernel)
