"""Deep schedules for CPUs: a small C and a long k, cut into slices that are summed into C."""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu_direct import DIRECT_K_STEPS
from gemmir.schedule.cpu_model import balanced, item_bytes, rows_in_l1
from gemmir.schedule.cpu_tiles import direct_tile, peel


def deep(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Small C and long k: slices of k, short enough for L1, are summed into C where it lies."""
    item = item_bytes(gemm)
    rows = min(
        rows_in_l1(gemm.leading("b") * item, machine), machine.l2_bytes // 4 // (gemm.n * item)
    )
    kc = min(balanced(gemm.k, max(rows, DIRECT_K_STEPS), DIRECT_K_STEPS), gemm.k)
    tile = direct_tile(gemm, machine, kc)
    yield f"tile{{loops=k sizes={kc}}}"
    edges = peel(gemm, tile.rows, tile.columns)
    yield f"tile{{loops=n,m sizes={tile.columns},{tile.rows}{edges}}}"
    yield "promote{operand=c to=registers}"
