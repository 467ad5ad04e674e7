"""Schedules for CPUs of an A that is stored k x m and near: slices of k, and nothing is copied.

Rows of a tile are neighbours in memory, so that each step of k reads them from one line or two. Of
a slice of k those lines stay in L1 while all columns of B pass by.
"""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.edges import last_rows, peel_loop
from gemmir.schedule.cpu.model import (
    K_SLICE_BYTES,
    K_STEPS_PER_ITERATION,
    balanced,
    broadcasts_from_memory,
    bytes_of,
    bytes_of_row,
    has_lines,
    item_bytes,
    rows_in_l1,
)
from gemmir.schedule.cpu.schedule_class import ScheduleClass
from gemmir.schedule.cpu.tiles import packed_tile

NEAR_L2 = 2
"""How many times L2 A and B are at most."""

FEW_ROWS = 96
"""Up to this many rows a copy is not worth it where rows of B share sets of L1 either: with AVX2 32
to 96 x 256 x 256 are 1.0 to 1.1 times as fast without it, and 128 and more 0.9 times where arrays
do not begin on a line."""


def is_down(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether `gemm` is of this class: copies of A and B cost more than they save.

    With vectors of a line B is copied where its rows are whole lines: it is not known whether it
    begins on one, and on Zen 5 256 x 256 x 1000 is 1.07 times as fast so where it does, and 0.9
    times where it does not. Others are 1.03 to 1.18 times as fast, and up to 1.9 times with AVX2.
    """
    is_apart = gemm.trans_a and gemm.leading("a") > 1 and broadcasts_from_memory(machine)
    bytes_read = bytes_of(gemm, "ab")
    is_near = bytes_read <= NEAR_L2 * machine.l2_bytes
    row_bytes = bytes_of_row(gemm, "b")
    stays = gemm.m <= FEW_ROWS or _depth(gemm) <= rows_in_l1(row_bytes, machine)
    return is_apart and not gemm.trans_b and is_near and stays and not has_lines(gemm, machine)


def _loops(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Slices of k, tiles of rows, and in them all columns."""
    tile = packed_tile(gemm, machine)
    columns = min(tile.columns, gemm.n)
    kc = _depth(gemm)
    if kc < gemm.k:
        yield f"tile{{loops=k sizes={kc}}}"
    yield f"tile{{loops=m sizes={tile.rows}{last_rows(gemm.m, tile.rows, machine)}}}"
    yield f"tile{{loops=n sizes={columns}{peel_loop(gemm.n, columns)}}}"
    yield "promote{operand=c to=registers}"


def _depth(gemm: Gemm) -> int:
    return balanced(gemm.k, K_SLICE_BYTES // item_bytes(gemm), K_STEPS_PER_ITERATION)


DOWN = ScheduleClass(name="down", loops=_loops)
