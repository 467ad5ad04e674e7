"""Schedules for CPUs of a short k and a large C: what takes time is to write C."""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu_model import item_bytes
from gemmir.schedule.cpu_narrow import streaming_tile

OUTER_K = 64
"""Up to this many products an element, C takes about as long to come and go as to compute: 8 bytes
of f32 in the time of 64 products at 256 GFLOP/s and 16 GB/s, what a core of Zen 5 copies."""


def is_outer(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether `gemm` is of this class: C fills L2, and B half of it at most."""
    item = item_bytes(gemm)
    fits = gemm.n * gemm.k * item <= machine.l2_bytes // 2
    return 0 < gemm.k <= OUTER_K and fits and gemm.m * gemm.n * item >= machine.l2_bytes


def outer(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """B in panels, and C tile by tile along its rows, each asked for before it is written."""
    tile = streaming_tile(gemm, machine)
    columns = min(tile.columns, gemm.n)
    yield f"promote{{operand=b to=l2 layout=panel:{columns}}}"
    yield f"tile{{loops=m sizes={tile.rows}{'' if gemm.m % tile.rows == 0 else ' edges=peel'}}}"
    yield f"tile{{loops=n sizes={columns}}}"
    yield "promote{operand=c to=registers prefetch=true}"
