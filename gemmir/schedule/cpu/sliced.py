"""Sliced schedules for CPUs: few rows of A, and rows of B that do not collide in the caches."""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.edges import peel_loop
from gemmir.schedule.cpu.few_rows import (
    LEAST_ROW_BYTES,
    LEAST_WAITING,
    MANY_ROWS,
    SHORT_BYTES,
    SLICE_K,
    has_long_rows,
    is_far,
    is_near,
)
from gemmir.schedule.cpu.model import (
    CACHE_LINE_BYTES,
    K_STEPS_PER_ITERATION,
    ROOMY_L1_BYTES,
    balanced,
    broadcasts_from_memory,
    bytes_of,
    bytes_of_row,
    item_bytes,
    lanes_used,
    round_up,
    rows_in_l2,
)
from gemmir.schedule.cpu.schedule_class import Microkernel, ScheduleClass
from gemmir.schedule.cpu.tiles import PACKED_ROWS, even_rows

SLICE_ROWS = 4
"""From this many rows on, B is not what all of the time goes into (measured on Zen 5)."""

SLICE_AHEAD = 2
"""Tiles that B is asked for ahead where it comes from memory (measured on Zen 5)."""

L3_SHARE = 8
"""Of a B of less than that part of L3, 4 MiB, 64 rows are 0.98 times as fast if later tiles are
asked for (measured on Zen 4)."""

SLICE_STEPS = 2
"""Steps of k in an iteration of up to `MANY_ROWS` rows: prefetchers of L1 tell some 30 loads apart,
and with more a line of B is fetched twice. On Zen 5 with AVX-512 4 to 12 rows are up to 1.1 times
as fast so from L3 as with 4 steps, and 40 to 64 rows 0.96 to 1.0 times."""


def is_sliced(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether `gemm` is of this class: L2 can keep two slices of B, and a quarter of it those of A.

    B comes in time for so many rows of A, and its rows are long, or long enough for so few of A.
    """
    if not has_long_rows(gemm, machine) and not _has_short_rows(gemm, machine):
        return False
    few = SLICE_ROWS <= gemm.m <= machine.l2_bytes // 4 // (SLICE_K * item_bytes(gemm))
    row_bytes = bytes_of_row(gemm, "b")
    keeps = rows_in_l2(row_bytes, machine) >= 2 * SLICE_K or _bears_conflicts(gemm, machine)
    return keeps and few and _comes_in_time(gemm, machine) and not gemm.trans_a


def _has_short_rows(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether few rows meet a B that is long and not wide, and slices outrun those of a small C.

    All rows are a tile, or even ones: on Zen 5 5 to 28 rows by 96 to 210 columns in f32 are 1.0 to
    1.57 times as fast with AVX-512, and by 200 columns 1.0 to 1.1 times with AVX2, where 16 and 18
    rows by 96 and 128 columns are 0.92 to 0.99 times as fast.
    """
    few = gemm.m <= MANY_ROWS and broadcasts_from_memory(machine)
    is_full = machine.vector_bytes == CACHE_LINE_BYTES
    is_wide = gemm.n * item_bytes(gemm) >= (LEAST_ROW_BYTES if is_full else 2 * LEAST_ROW_BYTES)
    return few and is_wide and is_near(gemm, machine)


def _comes_in_time(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether B comes from L3, or there are enough rows of A to wait for memory meanwhile.

    Short rows of B come fast enough also from memory: 16 to 32 rows by 384 to 1000 columns in f32
    are 1.06 to 1.5 times as fast on Zen 5 with AVX-512 as streams, and by 2560 columns 0.8 to 1.0
    times. With up to 12 rows streams are 1.1 to 1.3 times as fast from 20 MiB on, of 32 of L3.
    """
    if is_near(gemm, machine) or gemm.m > MANY_ROWS:
        return True
    is_short = gemm.n * item_bytes(gemm) <= SHORT_BYTES
    return gemm.m > LEAST_WAITING and (is_short or not is_far(gemm, machine))


def _bears_conflicts(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether slices are fast where rows of B drive each other out of L2.

    Vectors are whole lines, and wait seldom enough: on Zen 5 12 to 32 rows are 1.0 to 1.25 times as
    fast as streams, and 4 to 8 rows 1.05 to 1.2 times where none of B is in L2 from a last call. A
    tile of 9 or 10 rows has half as many lines of each row of B.
    """
    is_wide = machine.vector_bytes == CACHE_LINE_BYTES and broadcasts_from_memory(machine)
    is_high = even_rows(gemm.m, machine) > PACKED_ROWS
    is_apart = gemm.m > PACKED_ROWS or bytes_of(gemm, "b") > 2 * machine.l2_bytes
    return is_wide and is_near(gemm, machine) and is_apart and not is_high and gemm.m <= MANY_ROWS


def _loops(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Slices of k, in them tiles of columns, and all rows of A for each: nothing is copied."""
    lanes = lanes_used(gemm, machine)
    near = is_near(gemm, machine)
    rows = even_rows(gemm.m, machine) if near else min(machine.vector_registers // 4, gemm.m)
    columns = min(machine.vector_registers * 3 // 4 // rows * lanes, round_up(gemm.n, lanes))
    last = "" if gemm.m % rows == 0 else f" edges={'even' if near else 'peel'}"
    yield f"tile{{loops=k sizes={_slice(gemm, machine, columns)}}}"
    yield f"tile{{loops=n sizes={columns}{peel_loop(gemm.n, columns)}}}"
    yield f"tile{{loops=m sizes={rows}{last}}}"
    if _is_asked_for(gemm, machine) and gemm.n // columns > SLICE_AHEAD:
        yield f"prefetch{{operand=b loop=n ahead={SLICE_AHEAD} to=l2 during=m}}"
    yield "promote{operand=c to=registers}"


def _is_asked_for(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether later tiles of B are asked for: from memory, or by many rows from L3.

    Nobody follows hundreds of rows of three lines each. On Zen 4 33 to 256 rows by a B of 6 to 10
    MiB are 1.0 to 1.2 times as fast so; with a roomy L1 that was not measured.
    """
    is_roomy = machine.l1_bytes >= ROOMY_L1_BYTES
    is_apart = bytes_of(gemm, "b") > machine.l3_bytes // L3_SHARE
    return is_far(gemm, machine) or (not is_roomy and is_apart and gemm.m > MANY_ROWS)


def _slice(gemm: Gemm, machine: CpuMachine, columns: int) -> int:
    """Rows of B at once: with vectors of whole lines as many as stay in L2, in equal slices.

    A tile of B takes a quarter of it, and a slice of A half. 10 to 96 rows by 1000 to 2761 columns
    and k are 1.0 to 1.09 times as fast on Zen 5 as with slices of 256.
    """
    item = item_bytes(gemm)
    if machine.vector_bytes < CACHE_LINE_BYTES or not is_near(gemm, machine):
        return min(SLICE_K, gemm.k)
    kept = rows_in_l2(bytes_of_row(gemm, "b"), machine) // 2
    tile, slab = machine.l2_bytes // 4 // (columns * item), machine.l2_bytes // 2 // (gemm.m * item)
    most = max(min(kept, tile, slab), SLICE_K)
    return min(balanced(gemm.k, most, K_STEPS_PER_ITERATION), gemm.k)


def _microkernel(gemm: Gemm, machine: CpuMachine) -> Microkernel:
    few = gemm.m <= MANY_ROWS and is_near(gemm, machine)
    return Microkernel(steps=SLICE_STEPS if few else K_STEPS_PER_ITERATION)


SLICED = ScheduleClass(name="sliced", loops=_loops, microkernel=_microkernel)
