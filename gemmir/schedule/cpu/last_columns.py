"""Last columns of C on a CPU that do not fill what the others do (`part`).

*Along k*: 100 columns are 6 vectors of 16 and 4 columns, which take a multiply-add for each element
of A as 16 do. With lanes along k they take one for each 4. A copy of so few columns of B is made
for that. *Wider*: 5 vectors are no tiles of 2, nor of 3, but one of 2 and one of 3.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.edges import peel_loop
from gemmir.schedule.cpu.model import (
    broadcasts_from_memory,
    bytes_of,
    has_masks,
    item_bytes,
    lanes_used,
    round_up,
)
from gemmir.schedule.cpu.schedule_class import ScheduleClass, microkernel_along_k
from gemmir.schedule.cpu.tiles import fills_half

LANE_SUM_PRODUCTS = 3
"""Multiply-adds that take as long as to add the lanes of an element of C, where those of several
are added at once."""

LEAST_SAVED = 1 / 4
"""Of the time of one vector of columns, so that calls and the copy are paid for as well. On Zen 5
last columns of 36 to 196 cubed in f32 and f64 take 0.25 to 0.75 of that time with AVX-512 where
these numbers say so, and 100 cubed is 1.09 (f32) and 1.05 (f64) times as fast; 1.11 with AVX2."""

CALL_CYCLES = {True: 94, False: 30}
"""That two functions and sums of lanes take more than one function does, beside masks and where
there are none, so that last columns are computed twice. With `COPY_CYCLES` the faster way or one
that is 7 % slower at most is found for 38 products of 4 to 33 rows in f32 and f64 with AVX-512, of
which 9 cubed in f64 would take 1.8 times as long apart, and for 14 of 15 with AVX2 (12 %)."""

COPY_CYCLES, COPY_CYCLES_FAR = 1 / 2, 1
"""For an element of B in last columns, and where L1 does not hold them: on Zen 4 7 x 22 x 2151 in
f32 is 1.24 times as fast whole, and 20 rows are 1.1 times as fast in parts."""

HALVES_LOSS = 0.05
"""Of the time of whole vectors, where all are halved for the last: on Zen 4 52 and 68 cubed in f32
are 1.01 to 1.15 times as fast with last columns apart, and 20 and 36 cubed are not."""

MOST_ROWS = 8
"""Rows of a tile of last columns: 8 x 1, 8 x 2, 4 x 3 and 4 x 4 were the fastest on Zen 5."""

FREE_REGISTERS = 2
"""Registers that are left for addresses and masks of such a tile."""

WIDER_VECTORS = 3
"""Of the last tile, where tiles of two vectors leave one over."""

PANEL: Final = re.compile(r"promote\{operand=b .*layout=panel:(\d+)")
"""How wide panels of B are."""


def last_columns(gemm: Gemm, machine: CpuMachine) -> int:
    """How many columns behind whole vectors are computed apart, 0 where none."""
    lanes = machine.lanes(gemm.accumulator.item_bytes)
    columns = gemm.n % lanes
    plain = gemm.batch is None and not gemm.trans_a and broadcasts_from_memory(machine)
    if not plain or gemm.n < lanes or lanes_used(gemm, machine) != lanes or not columns:
        return 0
    products = columns * (-(-gemm.k // lanes) + LANE_SUM_PRODUCTS)
    whole = 0.5 + HALVES_LOSS * (gemm.n // lanes) if fills_half(gemm, machine) else 1
    saved_cycles = gemm.m * (whole * gemm.k - products) / machine.fma_per_cycle
    copied = columns * gemm.k
    fits = copied * item_bytes(gemm) <= machine.l1_bytes
    copy_cycles = copied * (COPY_CYCLES if fits else COPY_CYCLES_FAR)
    is_paid = saved_cycles >= CALL_CYCLES[has_masks(machine)] + copy_cycles
    return columns if is_paid and products <= (1 - LEAST_SAVED) * gemm.k else 0


def in_panels_of(gemm: Gemm, passes: Iterable[str]) -> int:
    """Columns of all panels of B, as `passes` pack it: the last one is computed as a whole.

    On Zen 5 513 and 769 cubed are 1.03 and 1.025 times as fast without it, and 1537 cubed 1.01
    times. Where B is read in place no column is computed in vain.
    """
    widths = (int(found[1]) for found in map(PANEL.search, passes) if found)
    return round_up(gemm.n, next(widths, 1))


def is_copied_apart(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether the copy of last columns of B stays in L1, and is one of rows."""
    copied_bytes = last_columns(gemm, machine) * gemm.k * item_bytes(gemm)
    return not gemm.trans_b and copied_bytes <= machine.l1_bytes // 2


def wider_columns(gemm: Gemm, machine: CpuMachine) -> int:
    """How many last columns are a tile of their own if they are wider than others, 0 for none.

    On Zen 5 with AVX-512 2000 x 80 x 1500 is 1.21 times as fast so, 1000 x 112 x 1000 1.13, 1000 x
    400 x 1000 1.03 and 2000 x 1424 x 500 1.01.
    """
    lanes = lanes_used(gemm, machine)
    before = -(-gemm.n // lanes) - WIDER_VECTORS
    plain = gemm.batch is None and not gemm.trans_a and broadcasts_from_memory(machine)
    return gemm.n - before * lanes if plain and before > 0 else 0


def _loops(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Loops and copies for a product of so few columns."""
    room = machine.vector_registers - FREE_REGISTERS
    fitting = (r for r in (MOST_ROWS, 4, 2) if (r + 1) * (gemm.n + 1) - 1 <= room)
    rows = min(next(fitting, 1), gemm.m)
    fits = bytes_of(gemm, "b") <= machine.l1_bytes
    yield f"promote{{operand=b to={'l1' if fits else 'l2'} layout=panel:1}}"
    yield f"tile{{loops=m sizes={rows}{peel_loop(gemm.m, rows)}}}"
    yield "promote{operand=c to=registers}"


LAST_COLUMNS = ScheduleClass(name="last columns", loops=_loops, microkernel=microkernel_along_k)
