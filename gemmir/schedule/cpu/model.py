"""What the schedules for CPUs reckon with: what the caches of a machine hold, and rounding."""

from __future__ import annotations

import math
from dataclasses import replace

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine

ROOMY_L1_BYTES = 48 * 1024
"""L1 of 12 ways."""

L1_WAY_BYTES = 4096
"""Addresses this far apart share a set of the L1 cache: 64 sets of 64-byte lines, on every CPU
whose L1 is indexed within a page."""

L2_WAY_BYTES = 64 * 1024
"""Likewise for the L2 cache: 1024 sets, on Zen 3 to 5 and on Intel's servers from Skylake to Ice
Lake, where 64 KiB are a way. Sapphire Rapids has 2048."""

CACHE_LINE_BYTES = 64
"""A cache line of every CPU that is shipped here."""

K_SLICE_BYTES = 1024
"""Of each row of A at a time: a quarter of a page, so that rows that lie pages apart share a
quarter of the sets of L1. On Zen 5 the best of 96 to 512 elements, for f32 and f64, with AVX2 and
with AVX-512."""

K_STEPS_PER_ITERATION = 4
"""Unrolling of the k loop: of the 84 instructions of a 6 x 16 tile, 4 are then loop control."""


def item_bytes(gemm: Gemm) -> int:
    """Bytes of an element of A and B."""
    return gemm.element.item_bytes


def has_narrow_c(gemm: Gemm) -> bool:
    """Whether C is narrower than its sums: each is complete before it is rounded to C."""
    return gemm.result.item_bytes < gemm.accumulator.item_bytes


def bytes_of(gemm: Gemm, operands: str) -> int:
    """Bytes of the matrices that are named: "ab" are those that are read, and "c" is C."""
    sizes = {"a": gemm.m * gemm.k, "b": gemm.n * gemm.k, "c": gemm.m * gemm.n}
    return sum(sizes[name] for name in operands) * item_bytes(gemm)


def bytes_of_row(gemm: Gemm, operand: str) -> int:
    """Bytes between the beginnings of two rows of A or B as they are stored."""
    return gemm.leading(operand) * item_bytes(gemm)


def lanes_used(gemm: Gemm, machine: CpuMachine) -> int:
    """Lanes of the vectors of sums: those of the machine, or fewer where a row of C is shorter.

    With masks a vector may be longer than a row: one of 16 for 13 columns, not one of 8 and part
    of another.
    """
    lanes = machine.lanes(gemm.accumulator.item_bytes)
    while lanes > max(gemm.n, 1) and not (has_masks(machine) and gemm.n > lanes // 2):
        lanes //= 2
    return lanes


def lanes_of_sum(gemm: Gemm, machine: CpuMachine) -> int:
    """Likewise by weights, with which no vector is longer than a row of C."""
    lanes = machine.lanes(gemm.accumulator.item_bytes)
    while lanes > gemm.n:
        lanes //= 2
    return lanes


def has_masks(machine: CpuMachine) -> bool:
    """Whether part of a vector is loaded and stored as fast as all of it."""
    return "avx512vl" in machine.llvm_features


def has_half_pipes(machine: CpuMachine) -> bool:
    """Whether a vector of a cache line is multiplied in two halves, one multiply-add a cycle.

    So it is on Zen 4, where two vectors of half a line take as long as one of a line.
    """
    return machine.vector_bytes >= CACHE_LINE_BYTES and machine.fma_per_cycle == 1


def streams_from_l3(machine: CpuMachine) -> bool:
    """Whether panels of B stream by from L3 as fast as they are multiplied.

    8 rows take 8 cycles for a line where a core multiplies one in a cycle. On Zen 4 a line takes
    2.4 cycles from L3 beside multiply-adds, and 2 from L2 (measured). Zen 5 multiplies two lines in
    a cycle; cores with shorter vectors were not measured.
    """
    return has_half_pipes(machine)


def multiply_adds_per_cycle(machine: CpuMachine, vector_bytes: int) -> int:
    """How many multiply-adds of such vectors a core begins in a cycle."""
    is_half = has_half_pipes(machine) and 2 * vector_bytes <= machine.vector_bytes
    return machine.fma_per_cycle * (2 if is_half else 1)


def broadcasts_from_memory(machine: CpuMachine) -> bool:
    """Whether a multiply-add takes an element of A from memory, or each row of A a register.

    On x86-64 it is broadcast as it is loaded; AArch64 multiplies by a lane of a register, which
    holds several elements along a row.
    """
    return machine.llvm_triple.startswith("x86_64")


def has_shuffles_beside(machine: CpuMachine) -> bool:
    """Whether vectors are shuffled beside two multiply-adds a cycle.

    AMD multiplies on pipes 0 and 1 and shuffles on 1 and 2, and on Zen 5 12 multiply-adds with 12
    shuffles take as long as alone (measured). Intel shuffles on port 5, one of those that multiply
    (uops.info, VPERMILPS).
    """
    return machine.llvm_cpu.startswith("znver")


def round_up(value: int, step: int) -> int:
    """The least multiple of `step` that is not below `value`."""
    return -(-value // step) * step


def balanced(extent: int, most: int, step: int) -> int:
    """A tile of at most `most`, a multiple of `step`, that cuts `extent` into equal parts."""
    parts = max(-(-extent // most), 1)
    return max(min(round_up(-(-extent // parts), step), round_up(most, step)), 1)


def with_size(gemm: Gemm, size: dict[str, int]) -> Gemm:
    """A part of `gemm` with some sizes changed, whose rows lie as far apart as before."""
    return replace(
        gemm, **size, lda=gemm.leading("a"), ldb=gemm.leading("b"), ldc=gemm.leading("c")
    )


def rows_in_l2(row_bytes: int, machine: CpuMachine) -> int:
    """How many rows of a matrix can each keep a cache line in L2; see `rows_in_l1`."""
    return machine.l2_bytes // math.gcd(row_bytes, L2_WAY_BYTES)


def rows_in_l1(row_bytes: int, machine: CpuMachine) -> int:
    """How many rows of a matrix can each keep a cache line in L1: few if they are a power of 2
    apart, because the sets of the cache repeat every `L1_WAY_BYTES`."""
    return machine.l1_bytes // math.gcd(row_bytes, L1_WAY_BYTES)


def space_of_next_rows(machine: CpuMachine) -> str:
    """Where lines of the next rows of A are asked to, when each is asked for by itself.

    They take as many ways of L1 as the rows that are multiplied. Zen 5 has 12, and room for both;
    of 8 ways and 32 KiB they put out what is not used yet: with AVX-512 on Zen 4 4096 x 4 and 16 x
    4096 in f32 are 1.2 and 1.4 times as fast by L2.
    """
    return "l1" if machine.l1_bytes >= ROOMY_L1_BYTES else "l2"


def is_n_x_k(gemm: Gemm) -> bool:
    """Whether B is stored n x k, and is no row or column."""
    return gemm.trans_b and min(gemm.n, gemm.k) > 1


def has_lines(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether vectors are a line of the cache, and rows of B as it is stored whole lines long."""
    is_wide = machine.vector_bytes == CACHE_LINE_BYTES
    return is_wide and not gemm.trans_b and bytes_of_row(gemm, "b") % CACHE_LINE_BYTES == 0


def equal_slice(extent: int, most: int, least: float) -> int | None:
    """The largest whole iterations, of `least` of `most` at least, that cut `extent` into equal
    slices; None where there are none, or nothing to cut."""
    step = K_STEPS_PER_ITERATION
    sizes = range(most // step * step, max(math.ceil(most * least), step) - 1, -step)
    return next((size for size in sizes if size < extent and extent % size == 0), None)
