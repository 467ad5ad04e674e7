"""Schedules for CPUs of a short k and a large C: what takes time is to write C."""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.edges import last_rows
from gemmir.schedule.cpu.model import (
    CACHE_LINE_BYTES,
    bytes_of,
    bytes_of_row,
    lanes_used,
    rows_in_l1,
)
from gemmir.schedule.cpu.schedule_class import ScheduleClass
from gemmir.schedule.cpu.tiles import MANY_REGISTERS, RegisterTile, streaming_tile, widest_tile

OUTER_K = 64
"""Up to this many products an element, C takes about as long to come and go as to compute: 8 bytes
of f32 in the time of 64 products at 256 GFLOP/s and 16 GB/s, what a core of Zen 5 copies."""


def is_outer(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether `gemm` is of this class: C fills L2, and B half of it at most."""
    fits = bytes_of(gemm, "b") <= machine.l2_bytes // 2
    return 0 < gemm.k <= OUTER_K and fits and bytes_of(gemm, "c") >= machine.l2_bytes


def _loops(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """B in panels, and C tile by tile along its rows, each asked for before it is written."""
    in_place = _reads_b(gemm, machine)
    tile = widest_tile(gemm, machine) if in_place else streaming_tile(gemm, machine)
    columns = min(tile.columns, gemm.n)
    if not in_place:
        yield f"promote{{operand=b to=l2 layout=panel:{columns}}}"
    yield f"tile{{loops=m sizes={tile.rows}{last_rows(gemm.m, tile.rows, machine)}}}"
    cut = in_place and gemm.n % columns
    yield f"tile{{loops=n sizes={columns}{' edges=peel' if cut else ''}}}"
    if _asks_for_rows(gemm, machine, tile):
        yield "prefetch{operand=a loop=m ahead=1 to=l1 during=n}"
    yield "promote{operand=c to=registers prefetch=true}"


def _asks_for_rows(gemm: Gemm, machine: CpuMachine, tile: RegisterTile) -> bool:
    """Whether the next rows of A are asked for, which a C that goes by pushes out of L2.

    With AVX-512 on Zen 5, while others used L3, 2048 x 2048 x 64 in f32 was 1 to 2 % faster so, and
    1500 x 1500 and 2048 x 1000 x 64 1 %. A C from memory takes longer than all else, and an A of a
    quarter of L2 stays.
    """
    leaves = bytes_of(gemm, "a") > machine.l2_bytes // 4
    in_l3 = bytes_of(gemm, "c") <= machine.l3_bytes * 3 // 4
    is_many = machine.vector_registers >= MANY_REGISTERS and gemm.m >= 2 * tile.rows
    return leaves and in_l3 and is_many and not gemm.trans_a


def _reads_b(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether all of B stays in L1 as it lies, and its rows are whole vectors.

    With AVX2 on Zen 5 that is up to 1.05 times as fast as a copy.
    """
    row_bytes = bytes_of_row(gemm, "b")
    fits = bytes_of(gemm, "b") <= machine.l1_bytes
    stays = gemm.k <= rows_in_l1(row_bytes, machine) and not gemm.trans_b
    whole = gemm.n % lanes_used(gemm, machine) == 0
    return fits and stays and whole and machine.vector_bytes < CACHE_LINE_BYTES


OUTER = ScheduleClass(name="outer", loops=_loops)
