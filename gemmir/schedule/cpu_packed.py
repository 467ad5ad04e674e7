"""Packed schedules for CPUs: all of B in L2, or panels of A in L3 and blocks of B in L2."""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu_model import balanced, item_bytes
from gemmir.schedule.cpu_tiles import packed_tile

HALF_PACKED_ROWS = 48
"""From this many rows of A on, packing a B that fits L2 pays (measured on Zen 3)."""

K_STEPS_PER_ITERATION = 4
"""Unrolling of the k loop: of the 86 instructions of a 6 x 16 tile, 2 are then loop control."""


def half_packed(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """All of B packed into L2, A read where it lies."""
    tile = packed_tile(gemm, machine)
    edges = "" if gemm.m % tile.rows == 0 else " edges=peel" if gemm.beta else " edges=overlap"
    columns = min(tile.columns, gemm.n)
    yield f"promote{{operand=b to=l2 layout=panel:{columns}}}"
    yield f"tile{{loops=n sizes={columns}}}"
    yield f"tile{{loops=m sizes={tile.rows}{edges}}}"
    yield "promote{operand=c to=registers prefetch=true}"


def packed(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Panels of A in L3 and blocks of B in L2; a sliver of B is as large as L1 and streams by."""
    tile = packed_tile(gemm, machine)
    item = item_bytes(gemm)
    kc = balanced(gemm.k, machine.l1_bytes // (tile.columns * item), K_STEPS_PER_ITERATION)
    mc = balanced(gemm.m, max(machine.l3_bytes // 8 // (kc * item), 1), tile.rows)
    columns = min(tile.columns, gemm.n)
    nc = balanced(gemm.n, max(machine.l2_bytes * 3 // 8 // (kc * item), 1), columns)
    yield f"tile{{loops=m,k sizes={mc},{kc}}}"
    yield f"promote{{operand=a to=l3 layout=panel:{tile.rows}}}"
    yield f"tile{{loops=n sizes={nc}}}"
    yield f"promote{{operand=b to=l2 layout=panel:{columns}}}"
    yield f"tile{{loops=m,n sizes={tile.rows},{columns}}}"
    yield "promote{operand=c to=registers prefetch=true}"
