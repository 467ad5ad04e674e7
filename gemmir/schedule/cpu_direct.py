"""Direct schedules for CPUs: register tiles read A and B where they lie."""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu_model import item_bytes
from gemmir.schedule.cpu_tiles import cuts_columns, direct_tile, packed_tile

DIRECT_K_STEPS = 4
"""Unrolling where nothing is packed. With more, LLVM loads further ahead than 32 registers hold and
spills: of 64 cubed, 16 steps of 8 x 32 reach 80 % of the peak on Zen 5, and 4 reach it."""


def direct(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Register tiles read A and B where they lie; the operand that stays in L1 is walked inside."""
    tile = direct_tile(gemm, machine, gemm.k)
    columns = min(tile.columns, max(gemm.n, 1))
    down = ("m", tile.rows, _edges(gemm.m, tile.rows, cut=True))
    across = ("n", columns, _edges(gemm.n, columns, cut=cuts_columns(gemm, machine)))
    b_stays = gemm.n * gemm.k * item_bytes(gemm) <= machine.l1_bytes // 2
    outer, inner = (down, across) if b_stays else (across, down)
    edges = {outer[2], inner[2]} - {""}
    if len(edges) < 2:
        loops, sizes = f"{outer[0]},{inner[0]}", f"{outer[1]},{inner[1]}"
        yield f"tile{{loops={loops} sizes={sizes}{''.join(edges)}}}"
    else:
        for name, size, edges in (outer, inner):
            yield f"tile{{loops={name} sizes={size}{edges}}}"
    yield "promote{operand=c to=registers}"


def _edges(extent: int, size: int, *, cut: bool) -> str:
    """A last tile is smaller where it may be `cut`, and otherwise computes some elements again."""
    if extent % size == 0:
        return ""
    return " edges=peel" if cut else " edges=overlap"


def clipped(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Register tiles of rows whose number is known at run time."""
    tile = packed_tile(gemm, machine)
    yield f"tile{{loops=m,n sizes={tile.rows},{tile.columns}}}"
    yield "promote{operand=c to=registers}"
