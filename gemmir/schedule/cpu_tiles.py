"""Register tiles: which ones a CPU holds, what one costs, and which one a schedule uses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu_model import CACHE_LINE_BYTES, lanes_used

FMA_LATENCY_CYCLES = 4
"""Cycles until the sum of a fused multiply-add can be added to again: 4 on every CPU of the last
ten years (uops.info, VFMADD231PS: Haswell 5, Skylake to Sapphire Rapids 4, Zen 2 to 4 4)."""

LOADS_PER_CYCLE = 2
"""Vector loads a cycle on the same CPUs."""

TILE_OVERHEAD_CYCLES = 8
"""Cycles a register tile costs beside its multiply-adds, where the next one can begin early:
fitted on Zen 3 to the best tiles of 16 to 127 cubed."""


@dataclass(frozen=True, kw_only=True)
class RegisterTile:
    """An accumulator tile of `rows` by `vectors` vectors of `lanes` elements."""

    rows: int
    vectors: int
    lanes: int

    @property
    def columns(self) -> int:
        """Elements of a row."""
        return self.vectors * self.lanes

    def cycles_per_k(self, machine: CpuMachine) -> float:
        """Cycles for one step of k: multiply-adds, loads, or the latency of one sum."""
        products = self.rows * self.vectors / machine.fma_per_cycle
        loads = (self.rows + self.vectors) / LOADS_PER_CYCLE
        return max(products, loads, FMA_LATENCY_CYCLES)


def register_tiles(machine: CpuMachine, lanes: int) -> Iterator[RegisterTile]:
    """Every tile that leaves room for a row of B and elements of A beside its sums."""
    for vectors in range(1, machine.vector_registers // 2):
        for rows in range(1, most_rows(machine, vectors) + 1):
            yield RegisterTile(rows=rows, vectors=vectors, lanes=lanes)


def most_rows(machine: CpuMachine, vectors: int) -> int:
    """Rows of a tile `vectors` wide: its sums take three quarters of the registers at most.

    More would fit, but LLVM loads ahead and would spill them.
    """
    registers = machine.vector_registers
    return min(registers - 1 - vectors, registers * 3 // 4) // vectors


def direct_tile(gemm: Gemm, machine: CpuMachine, kc: int) -> RegisterTile:
    """The tile that takes the fewest cycles for `kc` steps of k, last tiles counted whole."""
    lanes = lanes_used(gemm, machine)
    columns = max(gemm.n, 1)

    def cycles(tile: RegisterTile) -> float:
        tiles = -(-gemm.m // tile.rows) * -(-columns // tile.columns)
        return tiles * (kc * tile.cycles_per_k(machine) + TILE_OVERHEAD_CYCLES)

    fitting = (
        t
        for t in register_tiles(machine, lanes)
        if t.rows <= max(gemm.m, 1) and t.columns <= columns
    )
    return min(fitting, key=cycles)


def packed_tile(gemm: Gemm, machine: CpuMachine) -> RegisterTile:
    """Two vectors and a cache line wide, and as many rows as the registers hold.

    That is 6 x 16 for f32 on AVX2 and NEON, and 12 x 32 on AVX-512.
    """
    lanes = lanes_used(gemm, machine)
    vectors = min(max(2, CACHE_LINE_BYTES // machine.vector_bytes), -(-max(gemm.n, 1) // lanes))
    rows = min(most_rows(machine, vectors), max(gemm.m, 1))
    return RegisterTile(rows=rows, vectors=vectors, lanes=lanes)


def edges(gemm: Gemm, tile: RegisterTile) -> str:
    """Full tiles everywhere if elements may be computed twice, otherwise smaller last tiles."""
    if gemm.m % tile.rows == 0 and gemm.n % tile.columns == 0:
        return ""
    return " edges=peel" if gemm.beta != 0 else " edges=overlap"


def peel(gemm: Gemm, rows: int, columns: int) -> str:
    """Smaller last tiles where C is not cut into whole ones."""
    return "" if gemm.m % rows == 0 and gemm.n % columns == 0 else " edges=peel"
