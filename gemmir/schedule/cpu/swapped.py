"""Schedules for CPUs that compute the transpose of C, from B and A as they lie.

An A that is stored k x m is a second operand whose rows are adjacent along m, so that lanes go
along m and each element of B is used for all of them. C is then stored lane by lane. That is worth
it where B is stored n x k, and neither is copied, and where rows of C are too short for vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.direct import DIRECT, in_place
from gemmir.schedule.cpu.last_columns import CALL_CYCLES
from gemmir.schedule.cpu.model import (
    broadcasts_from_memory,
    bytes_of,
    has_masks,
    item_bytes,
    lanes_used,
    round_up,
    with_size,
)
from gemmir.schedule.cpu.schedule_class import ScheduleClass
from gemmir.schedule.cpu.tiles import direct_cycles, direct_tile, packed_tile
from gemmir.schedule.cpu.transposed import COPIED_CYCLES

SWAPPED_VECTORS = 3
SWAPPED_ROWS = 6
"""With AVX-512 8 x 3 vectors that are transposed before they are stored spill. On Zen 5 6 x 48 is
1.05 times as fast for 48 cubed in f32, 1.02 in f64, and 1.00 to 1.02 for 96 cubed."""

STORED_CYCLES = 0.3
"""Of an element of C that is stored so: on Zen 5 0.1 where k is 100, and 0.34 where it is 16."""

PADDED_SHARE = 3 / 4
"""Of L2, for A and B: up to here what a copy would fill its last panels with is counted, for that
is multiplied too. On Zen 4 all 20 of 150 drawn products that are swapped for it, of up to 200, are
faster with AVX-512, 1.05 to 1.5 times, and all but one of 29 with AVX2, 0.97 to 1.57 times. Larger
ones, in f64 with AVX2, are 0.83 and 0.93 times as fast."""

LEAST_GAIN = 1.05
"""By how much the model, whose error is about as large, has to prefer it where only A is
transposed."""


def is_faster_swapped(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether the transpose of C takes less time where what is read lies near."""
    if not _can_be_swapped(gemm):
        return False
    if not gemm.trans_b or gemm.n == 1:
        _, others = _best_cut(gemm, machine)
        return LEAST_GAIN * swapped_cycles(gemm, machine) < others
    lanes = lanes_used(gemm, machine)
    rows, columns = gemm.m, round_up(gemm.n, lanes)
    copies = COPIED_CYCLES * (rows + columns) * gemm.k
    if bytes_of(gemm, "ab") <= PADDED_SHARE * machine.l2_bytes:
        tile = packed_tile(gemm, machine)
        rows, columns = round_up(rows, tile.rows), round_up(gemm.n, tile.columns)
    products = rows * columns // lanes * gemm.k / machine.fma_per_cycle
    return swapped_cycles(gemm, machine) < products + copies


def _can_be_swapped(gemm: Gemm) -> bool:
    """Whether A is stored k x m, and nothing but products is asked for."""
    plain = not gemm.epilogue and gemm.beta == 0 and gemm.groups is None
    one_type = gemm.element is gemm.accumulator is gemm.result and gemm.dtype_b is None
    if not gemm.trans_a or not plain or not one_type or gemm.scale_block is not None:
        return False
    return gemm.m > 1 and 0 not in (gemm.n, gemm.k)


def swapped_columns(gemm: Gemm, machine: CpuMachine) -> int:
    """How many last columns of a direct product are computed as the transpose, 0 where none.

    Where whole vectors leave a few columns, lanes go along m for those, and none is wasted.
    """
    is_one = gemm.batch is None and not gemm.trans_b and gemm.leading("a") > 1
    if not is_one or not _can_be_swapped(gemm):
        return 0
    columns, cycles = _best_cut(gemm, machine)
    return columns if LEAST_GAIN * cycles < direct_cycles(gemm, machine) else 0


def _best_cut(gemm: Gemm, machine: CpuMachine) -> tuple[int, float]:
    """How many last columns to compute so, behind whole vectors or halves, and what all takes."""
    lanes = machine.lanes(item_bytes(gemm))
    found = [(0, direct_cycles(gemm, machine))]
    plain = gemm.batch is None and not gemm.trans_b and broadcasts_from_memory(machine)
    if plain and gemm.n > lanes:
        cuts = {gemm.n % lanes, gemm.n % (lanes // 2)} - {0}
        found += [(last, _cycles_of_parts(gemm, machine, last)) for last in cuts]
    return min(found, key=lambda cut: cut[1])


def _cycles_of_parts(gemm: Gemm, machine: CpuMachine, last: int) -> float:
    """What it takes if `last` columns are computed as the transpose, which are stored apart."""
    first, apart = (with_size(gemm, {"n": n}) for n in (gemm.n - last, last))
    products = direct_cycles(first, machine) + direct_cycles(swapped(apart), machine)
    stored = max(STORED_CYCLES * last, 1) * gemm.m
    return products + stored + CALL_CYCLES[has_masks(machine)]


def swapped_cycles(gemm: Gemm, machine: CpuMachine) -> float:
    """What the transpose of C takes where A and B lie near."""
    return direct_cycles(swapped(gemm), machine) + STORED_CYCLES * gemm.m * gemm.n


def has_few_columns(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether rows of C are no longer than a vector: then this is the way from wherever A comes."""
    return gemm.n <= machine.lanes(item_bytes(gemm))


def is_column(gemm: Gemm) -> bool:
    """Whether C is one column of adjacent elements, and B too: their transposes are rows."""
    in_place = gemm.trans_b or gemm.leading("b") == 1
    return gemm.n == 1 and in_place and gemm.leading("c") == 1


def swapped(gemm: Gemm) -> Gemm:
    """The product that gives the transpose of C: B and A as they lie."""
    is_row = is_column(gemm)
    return replace(
        gemm,
        m=gemm.n,
        n=gemm.m,
        trans_a=not gemm.trans_b and not is_row,
        trans_b=not gemm.trans_a,
        lda=None if is_row else gemm.leading("b"),
        ldb=gemm.leading("a"),
        ldc=None,
        batch_stride_a=gemm.batch_stride_b,
        batch_stride_b=gemm.batch_stride_a,
        batch_stride_c=None,
    )


def _loops(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Direct tiles of the transpose; sums of three vectors leave room to turn them."""
    tile = direct_tile(gemm, machine, gemm.k)
    is_full = tile.vectors == SWAPPED_VECTORS and tile.rows > SWAPPED_ROWS
    if has_masks(machine) and is_full and gemm.m % SWAPPED_ROWS == 0:
        tile = replace(tile, rows=SWAPPED_ROWS)
    yield from in_place(gemm, machine, tile)


SWAPPED = ScheduleClass(name="swapped", loops=_loops, microkernel=DIRECT.microkernel)
