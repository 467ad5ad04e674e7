"""Deep schedules for CPUs: a small C and a long k, cut into slices that are summed into C."""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu_model import balanced, item_bytes, lanes_used, round_up
from gemmir.schedule.cpu_narrow import streaming_tile
from gemmir.schedule.cpu_tiles import MANY_REGISTERS, RegisterTile, most_rows, most_vectors, peel

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
    tile = deep_tile(gemm, machine)
    yield f"tile{{loops=k sizes={kc}}}"
    if _is_fetched(gemm, machine, tile):
        for name, extent, size in (("m", gemm.m, tile.rows), ("n", gemm.n, tile.columns)):
            yield f"tile{{loops={name} sizes={size}{'' if extent % size == 0 else ' edges=peel'}}}"
        yield "prefetch{operand=a loop=m ahead=1 to=l1 during=n}"
    else:
        edges = peel(gemm, tile.rows, tile.columns)
        yield f"tile{{loops=m,n sizes={tile.rows},{tile.columns}{edges}}}"
    yield "promote{operand=c to=registers}"


def deep_tile(gemm: Gemm, machine: CpuMachine) -> RegisterTile:
    """The widest tile where registers are few and it cuts a row of C evenly, 3 x 32 on AVX2.

    It is up to 1.05 times as fast as 6 x 16 there (measured on Zen 5).
    """
    lanes, widest = lanes_used(gemm, machine), most_vectors(machine)
    total = round_up(gemm.n, lanes) // lanes
    is_even = total % widest == 0 and machine.vector_registers < MANY_REGISTERS
    if not is_even:
        return streaming_tile(gemm, machine)
    return RegisterTile(rows=min(most_rows(machine, widest), gemm.m), vectors=widest, lanes=lanes)


def _is_fetched(gemm: Gemm, machine: CpuMachine, tile: RegisterTile) -> bool:
    """Whether the next rows of A are asked for: A and B come from L3 or from farther away.

    Each row has a line or two in a slice, too few for a prefetcher to follow: with AVX2 on Zen 5
    64 x 64 x 65536 takes 5 % less time so, and 32 x 32 x 4096, which L2 holds, 3 % more.
    """
    is_far = (gemm.m + gemm.n) * gemm.k * item_bytes(gemm) > 2 * machine.l2_bytes
    few = machine.vector_registers < MANY_REGISTERS
    return few and is_far and gemm.m >= 2 * tile.rows and gemm.n > tile.columns
