"""Schedules for CPUs of a narrow B: A goes by once where it lies, slices of B stay in L2."""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu_model import balanced, item_bytes, lanes_used, round_up
from gemmir.schedule.cpu_packed import K_STEPS_PER_ITERATION

NARROW_VECTORS = 4
"""Up to this many vectors of columns: each element of A is used so often, too seldom for a copy."""

NARROW_STREAMS = 8
"""Rows of A that are read together: as many streams as the hardware prefetchers follow."""


def is_narrow(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether `gemm` is of this class: few columns, and an A that is larger than L2."""
    lanes = machine.lanes(item_bytes(gemm))
    large = gemm.m * gemm.k * item_bytes(gemm) > machine.l2_bytes
    fits = lanes <= gemm.n <= NARROW_VECTORS * lanes
    return large and fits and not gemm.trans_a and not gemm.trans_b and gemm.m > 8 * gemm.n


def narrow(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Slices of k, of which B takes a quarter of L2; in them a few whole rows of A at a time."""
    lanes = lanes_used(gemm, machine)
    rows = min(NARROW_STREAMS, machine.vector_registers // 4)
    columns = min(2 * lanes, round_up(gemm.n, lanes))
    most = machine.l2_bytes // 4 // (gemm.n * item_bytes(gemm))
    kc = balanced(gemm.k, most, K_STEPS_PER_ITERATION)
    if kc < gemm.k:
        yield f"tile{{loops=k sizes={kc}}}"
    if gemm.n > columns:
        yield f"promote{{operand=b to=l2 layout=panel:{columns}}}"
    yield f"tile{{loops=m sizes={rows}{'' if gemm.m % rows == 0 else ' edges=peel'}}}"
    yield f"tile{{loops=n sizes={columns}}}"
    yield "promote{operand=c to=registers}"
