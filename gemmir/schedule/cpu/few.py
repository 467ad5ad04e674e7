"""Schedules for CPUs of the fewest rows by a B in a cache: nothing is copied or asked for.

A few rows of B go by at a time, in tiles of C that are as wide as registers hold. Where so few rows
of A use a line of B that L2 cannot keep up, these are many rows of B: more loads than the
prefetchers of L1 tell apart, which otherwise fetch each line a second time.
"""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.edges import peel_loop
from gemmir.schedule.cpu.few_rows import LEAST_ROW_BYTES, is_near
from gemmir.schedule.cpu.model import (
    CACHE_LINE_BYTES,
    L1_WAY_BYTES,
    broadcasts_from_memory,
    bytes_of,
    bytes_of_row,
    item_bytes,
    lanes_used,
)
from gemmir.schedule.cpu.schedule_class import Microkernel, ScheduleClass
from gemmir.schedule.cpu.tiles import even_rows

FEW_K = 8
"""Rows of B that go by together: as many as prefetchers follow."""

MANY_K = 32
"""Likewise where L2 cannot keep up: with 16 vectors of each row these are 512 loads. On Zen 5 one
row of f32 by 320 x 320 reads 52 bytes of B a cycle so, and 32 with 4 rows of B; from some 200
loads on it is fast, and with fewer than 30."""

MOST_VECTORS = 16
"""Columns of a tile of a single row, in vectors."""

LEAST_BYTES, LEAST_BYTES_FAR = 512, 1024
"""A row of B has so many at least with vectors of a line, in L2 and in L3: shorter ones are a tile,
for a long slice of k (on Zen 5 3 x 192 x 2393 takes 0.82 of the time so)."""

FEW_ROWS_WIDE, FEW_ROWS = 3, 7
"""Up to so many rows, with vectors of whole lines and without. On Zen 5 with AVX-512 2 and 3 rows
are 1.02 to 1.1 times as fast as streams from L3 and 1.2 to 1.7 times from L2; with AVX2 2 to 4 rows
1.0 to 1.25 times, 5 rows, of which 4 were a tile, 1.3 to 1.7 times, 6 and 7 rows 1.0 to 1.5."""

PAGE_ROWS = 4
"""Up to so many where rows of B are whole pages apart: those of C share a set of L1 with them, and
from 5 rows on panels of C are up to 1.3 times as fast if arrays do not begin on a line."""


def is_few(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether `gemm` is of this class: B is in L2 or L3, and rows of A are few."""
    is_wide = machine.vector_bytes >= CACHE_LINE_BYTES
    in_place = broadcasts_from_memory(machine) and not gemm.trans_b and not gemm.trans_a
    least = LEAST_BYTES if _is_in_l2(gemm, machine) else LEAST_BYTES_FAR
    least = least if is_wide else LEAST_ROW_BYTES
    is_long = gemm.n * item_bytes(gemm) >= least
    is_apart = machine.l1_bytes < bytes_of(gemm, "b") and is_near(gemm, machine)
    if not (in_place and is_long and is_apart):
        return False
    if is_wide:
        return gemm.m <= FEW_ROWS_WIDE and (gemm.m > 1 or _is_in_l2(gemm, machine))
    in_pages = bytes_of_row(gemm, "b") % L1_WAY_BYTES == 0
    return gemm.m <= (PAGE_ROWS if in_pages else FEW_ROWS)


def _loops(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Some rows of B at a time, and tiles of C that take three quarters of the registers."""
    rows = even_rows(gemm.m, machine)
    vectors = min(machine.vector_registers * 3 // 4 // rows, MOST_VECTORS)
    columns = min(vectors * lanes_used(gemm, machine), gemm.n)
    kc = _steps(gemm, machine)
    if kc < gemm.k:
        yield f"tile{{loops=k sizes={kc}}}"
    yield f"tile{{loops=n sizes={columns}{peel_loop(gemm.n, columns)}}}"
    yield f"tile{{loops=m sizes={rows}{'' if gemm.m % rows == 0 else ' edges=even'}}}"
    yield "promote{operand=c to=registers}"


def _steps(gemm: Gemm, machine: CpuMachine) -> int:
    """Rows of B at a time, all of which are an iteration.

    A load of L2 takes two cycles where a line of B is fetched twice, and one where it is not; in
    each cycle two rows of A are multiplied by a vector.
    """
    waits = gemm.m * CACHE_LINE_BYTES < 4 * machine.vector_bytes
    return min(MANY_K if waits and _is_in_l2(gemm, machine) else FEW_K, gemm.k)


def _is_in_l2(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether B is in L2, of which an eighth is left for what else there is."""
    return bytes_of(gemm, "b") <= machine.l2_bytes * 7 // 8


def _microkernel(gemm: Gemm, machine: CpuMachine) -> Microkernel:
    return Microkernel(steps=_steps(gemm, machine))


FEW = ScheduleClass(name="few", loops=_loops, microkernel=_microkernel)
