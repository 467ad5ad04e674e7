"""Schedules for CPUs of few rows by a B of narrow elements: small pieces of it go to L1 in panels.

A few rows of B go by at a time, in the order in which they lie, and C is summed in a cache. A piece
of them is copied into panels for all rows of A, and the one after the next asked for meanwhile, a
share with each tile. Blocks that are copied for L2 read a short piece of as many rows as a slice of
k has, of all rows where a C that is narrower than its sums lets k not be cut: each of another page,
which no prefetcher follows.
"""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.edges import peel_loop
from gemmir.schedule.cpu.mixed import (
    FEW_ROWS,
    FEW_ROWS_OF_BYTES,
    factors_of,
    is_long_and_far,
    microkernel_of_panels,
    panel_tile,
    takes_sign,
)
from gemmir.schedule.cpu.model import (
    balanced,
    broadcasts_from_memory,
    bytes_of_row,
    is_n_x_k,
    rows_in_l2,
)
from gemmir.schedule.cpu.schedule_class import ScheduleClass

PIECE_COLUMNS = 128
"""Of a row of B at a time: where arrays begin within a line, it has a line in common with the one
before. On Zen 4 16 x 4096 x 4096 of bf16 takes 3.5 ms by 32 columns and by 128 where arrays begin
on a line, and else 4.8 and 3.6."""

AHEAD = 2
"""Pieces that B is asked for ahead: with one it takes 1.2 to 1.5 times as long."""

PIECE_K = 32
"""Rows of B at a time: each row of A reads and writes C once for all of them. On Zen 4 5 rows take
1.3 times as long by 64, and 16 rows 1.1 times by 64 and 1.04 by 16. L2 keeps a line of each, or
what was asked for is put out: 4 x 131072 x 512 of bytes takes 2.6 times as long."""

LEAST_K = 256
"""So long is k at least, in several slices."""

MOST_ROWS = 64
"""Up to this many rows of floats: on Zen 4 5, 16, 32, 64 and 128 rows by 4096 x 4096 of bf16 are
2.5, 1.8, 1.45, 1.2 and 1.1 times as fast where C is bf16, and 1.6, 1.3, 1.15, 1.03 and 0.95 times
where it is f32; f16 is 3.2, 2.0, 1.6, 1.3 and 1.15 times, and 4.8, 2.0, 1.3 and 1.3 times with
AVX2. By 1000 x 1000, which L2 nearly holds, 6, 17 and 30 rows are 1.08, 0.97 and 0.94 times as
fast, and 0.9 to 1.1, 0.7 and 0.8 with AVX2."""

ROWS_OF_BYTES, SIGNED_ROWS = 32, 8
"""Likewise of bytes, and of those that both have a sign where a CPU adds four, whose copies sum up
columns: on Zen 4 8 and 16 rows by 4096 x 4096 are 1.09 and 1.05 times as fast, and 1.08 and 0.92
times with signs."""


def goes_in_panels(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether `gemm` is of this class: a long B comes from afar, and rows of A are few."""
    in_order = broadcasts_from_memory(machine) and not is_n_x_k(gemm) and gemm.k >= LEAST_K
    few = _least_rows(gemm, machine) <= gemm.m <= _most_rows(gemm, machine)
    stays = rows_in_l2(bytes_of_row(gemm, "b"), machine) >= PIECE_K
    return in_order and few and stays and is_long_and_far(gemm, machine)


def _least_rows(gemm: Gemm, machine: CpuMachine) -> int:
    """Rows that are not better widened where they are read: of floats that the CPU adds, too, three
    are 1.05 to 1.3 times as fast in panels on Zen 4."""
    is_added = factors_of(gemm, machine).depth > 1
    return (FEW_ROWS_OF_BYTES if is_added else FEW_ROWS) + 1


def _most_rows(gemm: Gemm, machine: CpuMachine) -> int:
    if not gemm.accumulator.is_integer:
        return MOST_ROWS
    has_sign = takes_sign(gemm, machine, factors_of(gemm, machine).depth)
    return SIGNED_ROWS if has_sign else ROWS_OF_BYTES


def _loops(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    tile, factors = panel_tile(gemm, machine), factors_of(gemm, machine)
    how = f"{factors.layout}{factors.conversion}"
    slab = gemm.m * gemm.k * factors.item_bytes
    most = machine.l2_bytes // 2 // (gemm.m * gemm.accumulator.item_bytes)
    nc = balanced(gemm.n, max(most, PIECE_COLUMNS), PIECE_COLUMNS)
    space = "l2" if slab <= machine.l2_bytes // 4 else "l3"
    yield f"promote{{operand=a to={space} layout=panel:{tile.rows}{how}}}"
    if nc < gemm.n:
        yield f"tile{{loops=n sizes={nc}{peel_loop(gemm.n, nc)}}}"
    yield f"promote{{operand=c to=l2 layout=panel:{PIECE_COLUMNS}}}"
    yield f"tile{{loops=k sizes={PIECE_K}}}"
    yield f"tile{{loops=n sizes={PIECE_COLUMNS}{peel_loop(gemm.n, PIECE_COLUMNS)}}}"
    yield f"promote{{operand=b to=l1 layout=panel:{tile.columns}{how}}}"
    yield f"tile{{loops=m,n sizes={tile.rows},{tile.columns}}}"
    yield f"prefetch{{operand=b loop=n ahead={AHEAD} to=l2 during=m,n}}"
    yield "promote{operand=c to=registers}"


STREAMED_PANELS = ScheduleClass(
    name="streamed panels", loops=_loops, microkernel=microkernel_of_panels
)
