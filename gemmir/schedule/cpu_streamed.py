"""Streamed schedules for CPUs: few rows of A, for which B is read once."""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu_model import lanes_used, round_up
from gemmir.schedule.cpu_tiles import peel

STREAM_ROWS = 8
"""Up to this many rows of A, packing B costs more than it saves (measured on Zen 3)."""

STREAM_K = 8
"""Rows of B that are streamed together: as many streams as the prefetchers of Zen 3 follow."""


def streamed(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Few rows: B is read once, a few whole rows at a time, and C is summed in the cache."""
    lanes = lanes_used(gemm, machine)
    rows = gemm.m if gemm.m <= STREAM_ROWS // 2 + 2 else -(-gemm.m // 2)
    vectors = max(min((machine.vector_registers - 1) // (rows + 1), 4), 1)
    columns = min(vectors * lanes, round_up(gemm.n, lanes))
    yield f"tile{{loops=k sizes={min(STREAM_K, gemm.k)}}}"
    yield f"tile{{loops=n,m sizes={columns},{rows}{peel(gemm, rows, columns)}}}"
    yield "promote{operand=c to=registers}"
