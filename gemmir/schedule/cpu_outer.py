"""Schedules for CPUs of a short k and a large C: what takes time is to write C."""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu_model import item_bytes
from gemmir.schedule.cpu_tiles import direct_tile, edges

OUTER_K = 32
"""Up to this many products an element, C takes longer to write than to compute: the 8 bytes of f32
that come and go take 32 products' time at 256 GFLOP/s and 32 GB/s, both measured on Zen 5."""


def is_outer(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether `gemm` is of this class: C is larger than L2, and A and B are not."""
    item = item_bytes(gemm)
    factors = (gemm.m + gemm.n) * gemm.k * item
    return (
        0 < gemm.k <= OUTER_K
        and not gemm.trans_b
        and gemm.m * gemm.n * item > machine.l2_bytes >= factors
    )


def outer(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """C is written row by row of tiles, as its rows lie, and B comes from L2 for each."""
    tile = direct_tile(gemm, machine, gemm.k)
    yield f"tile{{loops=m,n sizes={tile.rows},{tile.columns}{edges(gemm, tile)}}}"
    yield "promote{operand=c to=registers}"
