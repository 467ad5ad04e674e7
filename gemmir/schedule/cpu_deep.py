"""Deep schedules for CPUs: a small C and a long k, cut into slices that are summed into C."""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu_model import balanced, item_bytes
from gemmir.schedule.cpu_narrow import streaming_tile
from gemmir.schedule.cpu_tiles import peel

DEEP_STEPS = 16
"""The least slice of k, and what slices are multiples of: a cache line of f32."""


def is_deep(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether `gemm` is of this class: C is an eighth of L2 at most, and A and B are larger."""
    item = item_bytes(gemm)
    is_long = (gemm.m + gemm.n) * gemm.k * item > machine.l2_bytes // 2
    return is_long and gemm.m * gemm.n * item <= machine.l2_bytes // 8


def deep(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Small C and long k: slices of k, of which A and B take a quarter of L2, are summed into C."""
    most = machine.l2_bytes // 4 // ((gemm.m + gemm.n) * item_bytes(gemm))
    kc = min(balanced(gemm.k, max(most, DEEP_STEPS), DEEP_STEPS), gemm.k)
    tile = streaming_tile(gemm, machine)
    edges = peel(gemm, tile.rows, tile.columns)
    yield f"tile{{loops=k sizes={kc}}}"
    yield f"tile{{loops=m,n sizes={tile.rows},{tile.columns}{edges}}}"
    yield "promote{operand=c to=registers}"
