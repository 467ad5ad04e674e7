"""Deep schedules for CPUs: a small C and a long k, cut into slices that are summed into C."""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu_model import balanced, item_bytes
from gemmir.schedule.cpu_tiles import direct_tile, peel

DEEP_STEPS = 16
"""The least slice of k, and what slices are multiples of: a cache line of f32."""


def deep(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Small C and long k: slices of k, of which A and B take a quarter of L2, are summed into C."""
    item = item_bytes(gemm)
    most = machine.l2_bytes // 4 // ((gemm.m + gemm.n) * item)
    kc = min(balanced(gemm.k, max(most, DEEP_STEPS), DEEP_STEPS), gemm.k)
    tile = direct_tile(gemm, machine, kc)
    yield f"tile{{loops=k sizes={kc}}}"
    edges = peel(gemm, tile.rows, tile.columns)
    yield f"tile{{loops=m,n sizes={tile.rows},{tile.columns}{edges}}}"
    yield "promote{operand=c to=registers}"
