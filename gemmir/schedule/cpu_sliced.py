"""Sliced schedules for CPUs: few rows of A, and rows of B that do not collide in the caches."""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu_model import item_bytes, lanes_used, round_up, rows_in_l2

SLICE_K = 256
"""Rows of B that a tile of columns takes at once: C is added to seldom, and the tile stays in L2
for the next rows of A (measured on Zen 5)."""

SLICE_ROWS = 4
"""From this many rows on, B is not what all of the time goes into (measured on Zen 5)."""

SLICE_AHEAD = 2
"""Tiles that B is asked for ahead where it comes from memory (measured on Zen 5)."""

MANY_ROWS = 32
"""From more rows on, there is time enough between two tiles of B to ask for one from memory."""


def is_sliced(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether `gemm` is of this class: L2 can keep two slices of B, and a quarter of it those of A.

    B comes from L3, or there are enough rows of A to wait for memory meanwhile.
    """
    item = item_bytes(gemm)
    keeps = rows_in_l2(gemm.leading("b") * item, machine) >= 2 * SLICE_K
    few = SLICE_ROWS <= gemm.m <= machine.l2_bytes // 4 // (SLICE_K * item)
    near = not _is_far(gemm, machine) or gemm.m > MANY_ROWS
    return keeps and few and near and not gemm.trans_a


def sliced(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Slices of k, in them tiles of columns, and all rows of A for each: nothing is copied."""
    lanes = lanes_used(gemm, machine)
    rows = min(machine.vector_registers // 4, gemm.m)
    vectors = min(machine.vector_registers * 3 // 4 // rows, 4)
    columns = min(vectors * lanes, round_up(gemm.n, lanes))
    yield f"tile{{loops=k sizes={min(SLICE_K, gemm.k)}}}"
    yield f"tile{{loops=n sizes={columns}{'' if gemm.n % columns == 0 else ' edges=peel'}}}"
    yield f"tile{{loops=m sizes={rows}{'' if gemm.m % rows == 0 else ' edges=peel'}}}"
    if _is_far(gemm, machine) and gemm.n // columns > SLICE_AHEAD:
        yield f"prefetch{{operand=b loop=n ahead={SLICE_AHEAD} to=l2 during=m}}"
    yield "promote{operand=c to=registers}"


def _is_far(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether B comes from memory: it is larger than L3."""
    return gemm.n * gemm.k * item_bytes(gemm) > machine.l3_bytes
