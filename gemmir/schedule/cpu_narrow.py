"""Schedules for CPUs of a narrow B: A goes by once where it lies, slices of B stay in L2.

With vectors of whole cache lines a tile holds all of a row of C, and what a slice has of B stays in
L1 (`narrow_in_l1`).
"""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu_model import (
    CACHE_LINE_BYTES,
    balanced,
    item_bytes,
    lanes_used,
    round_up,
)
from gemmir.schedule.cpu_packed import K_STEPS_PER_ITERATION
from gemmir.schedule.cpu_tiles import RegisterTile, most_rows

NARROW_VECTORS = 4
"""Up to this many vectors of columns: each element of A is used so often, too seldom for a copy."""

STREAMS = 8
"""Rows of A that are read together: as many streams as the hardware prefetchers follow, and as many
lines as have room in a set of L1 beside others where rows are a power of two apart."""

SLICE_BYTES = 512
"""Of each row of A at a time, where B stays in L1: of 8 rows that are as many lines as a core asks
for at once. On Zen 5, 4096 x 32, 48 and 64 x 4096 in f32 are 1.14 to 1.21 times as fast as with B
in L2, and with twice the bytes hardly faster."""


def is_narrow(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether `gemm` is of this class: few columns, and an A that is larger than L2."""
    lanes = machine.lanes(item_bytes(gemm))
    large = gemm.m * gemm.k * item_bytes(gemm) > machine.l2_bytes
    fits = lanes <= gemm.n <= NARROW_VECTORS * lanes
    is_plain = not gemm.trans_a and not gemm.trans_b
    return large and fits and is_plain and gemm.m > 8 * gemm.n


def streaming_tile(gemm: Gemm, machine: CpuMachine) -> RegisterTile:
    """A tile whose rows of A are streams: at most `STREAMS`, and two vectors wide, or all of 3."""
    lanes = lanes_used(gemm, machine)
    total = round_up(gemm.n, lanes) // lanes
    vectors = total if total <= 3 else 2
    rows = min(STREAMS, most_rows(machine, vectors), gemm.m)
    return RegisterTile(rows=rows, vectors=vectors, lanes=lanes)


def narrow(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Slices of k, of which B takes half of L2; in them a few whole rows of A at a time."""
    if _stays_in_l1(gemm, machine):
        yield from narrow_in_l1(gemm, machine)
        return
    tile = streaming_tile(gemm, machine)
    rows, columns = tile.rows, tile.columns
    most = machine.l2_bytes // 2 // (gemm.n * item_bytes(gemm))
    kc = balanced(gemm.k, most, K_STEPS_PER_ITERATION)
    if kc < gemm.k:
        yield f"tile{{loops=k sizes={kc}}}"
    if gemm.n > columns:
        yield f"promote{{operand=b to=l2 layout=panel:{columns}}}"
    yield f"tile{{loops=m sizes={rows}{'' if gemm.m % rows == 0 else ' edges=peel'}}}"
    yield f"tile{{loops=n sizes={columns}}}"
    yield "promote{operand=c to=registers}"


def _stays_in_l1(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether B is cut into slices for L1: where A comes from memory, which bears no wait for L2.

    Each slice of k costs C, which comes and goes with it, so that where A stays in L3 this is 2 to
    5 % slower.
    """
    several = gemm.n > lanes_used(gemm, machine)
    from_memory = gemm.m * gemm.k * item_bytes(gemm) > machine.l3_bytes // 2
    return machine.vector_bytes >= CACHE_LINE_BYTES and several and from_memory


def narrow_in_l1(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Short slices of k: B in L1, and of A a few pieces of rows, asked for one tile ahead."""
    lanes = lanes_used(gemm, machine)
    vectors = -(-gemm.n // lanes)
    rows = min(STREAMS, most_rows(machine, vectors), gemm.m)
    kc = balanced(gemm.k, SLICE_BYTES // item_bytes(gemm), K_STEPS_PER_ITERATION)
    if kc < gemm.k:
        yield f"tile{{loops=k sizes={kc}}}"
    if gemm.leading("b") != vectors * lanes:
        yield f"promote{{operand=b to=l1 layout=panel:{vectors * lanes}}}"
    yield f"tile{{loops=m sizes={rows}{'' if gemm.m % rows == 0 else ' edges=peel'}}}"
    yield f"tile{{loops=n sizes={vectors * lanes}}}"
    if gemm.m >= 2 * rows:
        yield "prefetch{operand=a loop=m ahead=1}"
    yield "promote{operand=c to=registers prefetch=true}"
