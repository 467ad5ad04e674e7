"""Schedules for CPUs of a B that is stored n x k, multiplied where it lies: lanes go along k.

Rows of A and of B are both adjacent along k. A tile of C has a vector of sums for each element,
whose lanes are added up at the end; a copy of B in panels has each element of B turned instead,
and is worth it where many rows of A share it. An A that is stored k x m is copied into rows.
"""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.edges import peel
from gemmir.schedule.cpu.model import (
    CACHE_LINE_BYTES,
    balanced,
    broadcasts_from_memory,
    bytes_of,
    bytes_of_row,
    item_bytes,
    lanes_used,
    round_up,
)
from gemmir.schedule.cpu.schedule_class import ScheduleClass, microkernel_along_k
from gemmir.schedule.cpu.tiles import LOADS_PER_CYCLE, OVERLAP

COPIED_CYCLES = 0.4
"""Of an element that is turned on its way into a panel, or into a row. This, what adding up takes
and `REACHED` are fitted to 40 products of 1 to 256 rows on Zen 5 in f32 and f64: by a B that is in
L2 they take 0.26 and 0.43 cycles with AVX-512, and 0.4 and 0.68 with AVX2."""

ADDED_CYCLES = 0.3
ADDED_CYCLES_PER_LANE = 1 / 64
"""Of a vector whose lanes are added up: 0.58 and 0.44 cycles with AVX-512, 0.4 with AVX2."""

REACHED = 0.93
"""What is reached of two multiply-adds a cycle where the rows of both come from L2."""

SQUARE = 4
"""Rows of A and of B in a tile at most: each vector is then used four times, and the 16 sums are
added up together. 3 by 3 with 16 registers. On Zen 5 up to 1.15 times as fast as 5 by 4."""

FAR_ROWS = 5
"""Rows of the longer operand where all of the shorter one does not stay in L1 beside them, with 32
registers. What comes from L2 is used more often so: 1.08 to 1.2 times as fast where vectors lie in
two lines each, which 4 by 4 loads as fast as it multiplies, and otherwise up to 1.07 times."""

THIN = 16
"""Up to this many rows slices of k are so short that they all stay in L1: 12 x 32 x 768 is 1.15
times as fast so in f32, and 1.3 times in f64. The lanes of each slice are added up apart."""


def is_transposed(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether `gemm` is of this class: adding up lanes takes less than copies of B.

    Where one of A and B has few rows, the other is no larger than a quarter of L3: from memory it
    comes in streams of whole rows. So is an A that is copied.
    """
    is_plain = gemm.dtype in ("f32", "f64") and gemm.element_b == gemm.element is gemm.result
    lanes = machine.lanes(item_bytes(gemm))
    if not is_plain or not gemm.trans_b or gemm.k < 2 * lanes or 0 in (gemm.m, gemm.n):
        return False
    if not broadcasts_from_memory(machine) or min(gemm.n, gemm.k) <= 1:
        return False
    is_far = max(gemm.m, gemm.n) * gemm.k * item_bytes(gemm) > machine.l3_bytes // 4
    if is_far and (min(gemm.m, gemm.n) <= THIN or gemm.trans_a):
        return False
    across = lanes_used(gemm, machine)
    products = gemm.m * -(-gemm.n // across) * gemm.k / machine.fma_per_cycle
    return _cycles(gemm, machine) < products + COPIED_CYCLES * round_up(gemm.n, across) * gemm.k


def cycles_with_rows(gemm: Gemm, machine: CpuMachine) -> float:
    """What it takes if A is stored k x m, and copied into rows."""
    return _cycles(gemm, machine) + COPIED_CYCLES * gemm.m * gemm.k


def _cycles(gemm: Gemm, machine: CpuMachine) -> float:
    """What multiply-adds, loads and sums of lanes take."""
    rows, columns, _ = _tile(gemm, machine)
    lanes = machine.lanes(item_bytes(gemm))
    step = rows * columns / machine.fma_per_cycle
    loads = (rows + columns) * _lines(gemm, machine) / LOADS_PER_CYCLE
    longer = (1 + (loads / step) ** OVERLAP) ** (1 / OVERLAP) if min(rows, columns) > 1 else 1
    products = -(-gemm.k // lanes) / machine.fma_per_cycle * longer / REACHED
    return gemm.m * gemm.n * (products + ADDED_CYCLES + ADDED_CYCLES_PER_LANE * lanes)


def _lines(gemm: Gemm, machine: CpuMachine) -> float:
    """How many cache lines a vector lies in: more than one where rows are no whole lines."""
    is_cut = any(bytes_of_row(gemm, x) % CACHE_LINE_BYTES for x in "ab")
    return 1 + machine.vector_bytes / CACHE_LINE_BYTES if is_cut else 1


def _loops(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Slices of k, and in them rows of the longer operand, each of which meets all of the other."""
    rows, columns, depth = _tile(gemm, machine)
    if gemm.trans_a and gemm.leading("a") > 1:
        fits = bytes_of(gemm, "a") <= machine.l2_bytes // 2
        yield f"promote{{operand=a to={'l2' if fits else 'l3'} layout=panel:1}}"
    if depth < gemm.k:
        yield f"tile{{loops=k sizes={depth}}}"
    order = f"n,m sizes={columns},{rows}" if gemm.n >= gemm.m else f"m,n sizes={rows},{columns}"
    yield f"tile{{loops={order}{peel(gemm, rows, columns)}}}"
    yield "promote{operand=c to=registers}"


def _tile(gemm: Gemm, machine: CpuMachine) -> tuple[int, int, int]:
    """Rows and columns of a tile, and elements of k in a slice."""
    room, short, long = machine.vector_registers - 1, min(gemm.m, gemm.n), max(gemm.m, gemm.n)
    square = next(side for side in range(SQUARE, 0, -1) if side * (side + 2) <= room)
    inner = balanced(short, square, 1)
    outer = min(SQUARE, (room - inner) // (inner + 1))
    row_bytes = gemm.k * item_bytes(gemm)
    stays = short + 2 * outer
    if short > THIN and stays * row_bytes > machine.l1_bytes:
        outer = min(FAR_ROWS, (room - inner) // (inner + 1))
        stays = outer + 2 * inner
    depth = gemm.k
    if short > inner and machine.vector_bytes >= CACHE_LINE_BYTES:
        lanes = machine.lanes(item_bytes(gemm))
        most = machine.l1_bytes // (stays * item_bytes(gemm)) // lanes * lanes
        depth = balanced(gemm.k, most, lanes)
    outer = min(outer, long)
    return (inner, outer, depth) if gemm.n >= gemm.m else (outer, inner, depth)


TRANSPOSED = ScheduleClass(name="transposed", loops=_loops, microkernel=microkernel_along_k)
