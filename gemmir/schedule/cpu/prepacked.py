"""The schedule for a CPU of a product whose B has been packed before the call.

Nothing is copied in a call, so that neither blocks of B nor slices of k pay for a copy: all of k
is summed in registers, in order, as long as a panel of B stays in L2 while all rows of A pass by.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.cores import shares_batch
from gemmir.schedule.cpu.edges import peel_loop
from gemmir.schedule.cpu.model import K_STEPS_PER_ITERATION, balanced, item_bytes, round_up
from gemmir.schedule.cpu.schedule_class import Microkernel
from gemmir.schedule.cpu.tiles import PACKED_ROWS, RegisterTile, most_rows, packed_tile

LEAST_SUMS = 8
"""Vectors of sums of a tile: they hide a latency of 4 cycles, 2 multiply-adds in each."""

MOST_VECTORS = 4
"""A tile of few rows is at most so wide."""

FEW_REGISTERS_VECTORS = 3
"""Vectors across where a tile of 8 rows has no room: on AVX2, 4 x 24 is 1.02 to 1.35 times as fast
as 6 x 16 (measured on Zen 5)."""


def prepacked_tile(gemm: Gemm, machine: CpuMachine) -> RegisterTile:
    """8 x 32 on AVX-512 and 4 x 24 on AVX2, both for f32, and wider for few rows."""
    tile = packed_tile(gemm, machine)
    m, n = max(gemm.m, 1), max(gemm.n, 1)
    narrow = most_rows(machine, FEW_REGISTERS_VECTORS)
    most = narrow if narrow < PACKED_ROWS else PACKED_ROWS
    vectors = FEW_REGISTERS_VECTORS if narrow < PACKED_ROWS else tile.vectors
    rows = balanced(m, most, 1)
    vectors = max(vectors, min(MOST_VECTORS, -(-LEAST_SUMS // rows)))
    return replace(tile, rows=rows, vectors=min(vectors, -(-n // tile.lanes)))


def prepacked_passes(gemm: Gemm, machine: CpuMachine, threads: int) -> Iterator[str]:
    """The passes for a product of one type, without scales, whose B is packed before the calls."""
    by_batch = shares_batch(gemm, threads)
    if gemm.batch is not None:
        yield f"tile{{loops=batch sizes=1{' over=cores' if by_batch else ''}}}"
    yield from _loops(gemm, machine, 1 if by_batch else threads)
    yield from Microkernel().passes(
        gemm, machine, fuse=bool(gemm.steps), expand=gemm.has_exponentials
    )


def _loops(gemm: Gemm, machine: CpuMachine, threads: int) -> Iterator[str]:
    """The loops inside that over a batch, with the copy of B before them."""
    tile = prepacked_tile(gemm, machine)
    columns = min(tile.columns, max(gemm.n, 1))
    by_rows = gemm.m >= gemm.n
    yield f"promote{{operand=b to=l3 layout=panel:{columns}}}"
    yield "prepack{operand=b}"
    if threads > 1 and by_rows:
        yield f"tile{{loops=m sizes={round_up(-(-gemm.m // threads), tile.rows)} over=cores}}"
    if threads > 1 and not by_rows:
        yield f"tile{{loops=n sizes={columns} over=cores}}"
    room = max(machine.l2_bytes // 2 // (columns * item_bytes(gemm)), K_STEPS_PER_ITERATION)
    kc = balanced(gemm.k, room, K_STEPS_PER_ITERATION)
    if kc < gemm.k:
        yield f"tile{{loops=k sizes={kc}}}"
    if threads == 1 or by_rows:
        yield f"tile{{loops=n sizes={columns}}}"
    yield f"tile{{loops=m sizes={tile.rows}{peel_loop(gemm.m, tile.rows)}}}"
    yield f"promote{{operand=c to=registers{' prefetch=true' if kc < gemm.k else ''}}}"
