"""Direct schedules for CPUs: register tiles read A and B where they lie."""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu_model import item_bytes
from gemmir.schedule.cpu_tiles import direct_tile, edges, packed_tile

DIRECT_K_STEPS = 16
"""Unrolling where nothing is packed: a k of 16 needs no loop at all."""


def direct(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Register tiles read A and B where they lie; the operand that stays in L1 is walked inside."""
    tile = direct_tile(gemm, machine, gemm.k)
    if gemm.n * gemm.k * item_bytes(gemm) <= machine.l1_bytes // 2:
        yield f"tile{{loops=m,n sizes={tile.rows},{tile.columns}{edges(gemm, tile)}}}"
    else:
        yield f"tile{{loops=n,m sizes={tile.columns},{tile.rows}{edges(gemm, tile)}}}"
    yield "promote{operand=c to=registers}"


def clipped(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Register tiles of rows whose number is known at run time."""
    tile = packed_tile(gemm, machine)
    yield f"tile{{loops=m,n sizes={tile.rows},{tile.columns}}}"
    yield "promote{operand=c to=registers}"
