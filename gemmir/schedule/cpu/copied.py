"""Copied schedules for CPUs: small blocks of a B with long rows in L1, and the next one asked for.

A block is a few panels wide and as deep as half of L1 holds. All rows of A meet it, and meanwhile
each tile asks for its share of the lines of the next block, so that a copy reads from L2 what lies
in L3 or in memory. Requests that come together hold up the loads behind them: they are dealt to the
tiles of rows and of columns. Where vectors are a line, a block is copied by the first tile of rows
that meets it, while that is multiplied.
"""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.direct import is_close
from gemmir.schedule.cpu.edges import last_rows, peel_loop
from gemmir.schedule.cpu.few_rows import SLICE_K, has_long_rows, is_far
from gemmir.schedule.cpu.model import (
    CACHE_LINE_BYTES,
    K_STEPS_PER_ITERATION,
    ROOMY_L1_BYTES,
    balanced,
    broadcasts_from_memory,
    bytes_of_row,
    equal_slice,
    has_lines,
    item_bytes,
    lanes_used,
    round_up,
    rows_in_l1,
    streams_from_l3,
)
from gemmir.schedule.cpu.schedule_class import ScheduleClass
from gemmir.schedule.cpu.tiles import MANY_REGISTERS, PACKED_ROWS, RegisterTile, most_rows

COPIED_ROWS = 256
"""Up to this many rows of A. On Zen 5 4096 x 4096 by 128 and 256 rows are 1.05 times as fast with
AVX2 and 1.09 and 1.06 times with AVX-512; with 512 rows they are 0.98 to 1.01 times as fast."""

COPIED_ROWS_FROM_L3 = 192
"""Likewise where panels of B stream by from L3: on Zen 4 256 x 4096 x 4096 is 1.1 to 1.2 times as
fast by packed blocks there, 256 x 3072 x 768 and 256 x 1024 x 1024 1.08 times."""

LEAST_TILES = 5
"""Tiles of rows that use a copy often enough to pay for it, counted as streams have them (measured
on Zen 5: from 17 rows on with AVX2 and 33 with AVX-512). A stream whose last tile is clipped is
slow: with AVX2 13 to 15 rows of 3072 x 768 take 0.8 to 0.97 of its time."""

LEAST_TILES_FAR = 9
"""Likewise with tiles of 8 rows where B comes from memory, which fewer rows wait for: at 64 rows of
4096 x 4096 AVX-512 is 0.99 times as fast, at 96 rows 1.13 times."""

COLUMNS_A_ROW = 4
"""How many times as long as C is high its rows are at least: 256 x 512 x 512 loses 4 %."""

PANELS = 4
"""Of a block of B: a row of it is some lines long (measured on Zen 5: 3 to 6 are as fast)."""

FILLED_ROWS = 384
"""Up to this many rows, the first of which fill the blocks. On Zen 5 40 to 200 rows of f32 are 4 to
7 % faster so than blocks that are copied before, or sliced or packed B, 256 rows 2 to 6 %, f64 1 to
8 %; with 512 rows a packed B is as fast or 1 % faster."""

FILLED_ROWS_NARROW = 192
"""Likewise where L1 is no roomy one, whose blocks have fewer steps of k between a load and a store
of a tile of C: in f32 on Zen 4 48, 64 and 160 rows of 4096 x 4096 are 1.2, 1.15 and 1.03 times as
fast so as otherwise, 128 rows as fast, 256 x 2560 x 4096 0.78 times and 200 x 256 x 11008 0.67."""

FILLED_SLICES = 128
"""From more rows than this on blocks that are filled so outrun slices of a B that is not copied: on
Zen 5 64 x 768 x 3072 is 2 % slower so, 128 rows are 1 % faster and 256 rows 4 %."""

FILLED_TILE = 4
"""Rows of a tile that fills blocks, and vectors of a line: 4 x 64 of f32 is up to 6 % faster on
Zen 5 than 8 x 32, of which a row of B has half as many lines that lie side by side."""

FILLED_PANELS, FILLED_PANELS_FAR = 2, 4
"""Of a block that is filled so, in two thirds of L1; and of one by up to `FILLED_SLICES` rows where
B comes from memory, which has longer rows: 128 x 64, and 256 x 32 of f32, with 48 KiB. 48 to 128
rows of 4096 x 4096 differ by 2 % at most where arrays begin on a line; where they do not, as those
of NumPy, and others use memory, the longer ones were 1 to 12 % faster."""

FILLED_LEAST_SLICE = 1 / 2
"""Of the slice of k that such a block has, where a shorter one cuts k into whole iterations."""

FILLED_LEAST = 33
"""Rows from which on that pays: 32 rows of 3072 x 768 are as fast on Zen 5 as streams, and 40 are 6
to 11 % faster."""


def is_copied(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether `gemm` is of this class: rows enough to copy B for, and so few that C stays near."""
    if not has_long_rows(gemm, machine):
        return False
    if fills_blocks(gemm, machine):
        return gemm.m >= FILLED_LEAST
    tile, stream = copying_tile(gemm, machine), machine.vector_registers // 4
    is_high = tile.rows >= PACKED_ROWS
    least = LEAST_TILES_FAR if is_far(gemm, machine) and is_high else LEAST_TILES
    in_place = not gemm.trans_a and not gemm.trans_b and broadcasts_from_memory(machine)
    most = COPIED_ROWS_FROM_L3 if streams_from_l3(machine) else COPIED_ROWS
    few = gemm.m <= min(most, gemm.n // COLUMNS_A_ROW)
    rows = stream if gemm.m % stream == 0 else tile.rows
    return in_place and few and -(-gemm.m // rows) >= least


def fills_blocks(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether the first rows of A fill each block: vectors and rows of B are whole lines."""
    in_place = not gemm.trans_a and broadcasts_from_memory(machine) and has_lines(gemm, machine)
    few = gemm.m <= most_filled_rows(machine) and not is_close(gemm, machine)
    return in_place and few and _filled_slice(gemm, machine) is not None


def most_filled_rows(machine: CpuMachine) -> int:
    """Up to how many rows the first of them fill blocks."""
    return FILLED_ROWS if machine.l1_bytes >= ROOMY_L1_BYTES else FILLED_ROWS_NARROW


def _filled_columns(gemm: Gemm, machine: CpuMachine) -> int:
    """Columns of a block that the first rows fill."""
    is_long = gemm.m <= FILLED_SLICES and is_far(gemm, machine)
    panels = FILLED_PANELS_FAR if is_long else FILLED_PANELS
    return panels * FILLED_TILE * lanes_used(gemm, machine)


def _filled_slice(gemm: Gemm, machine: CpuMachine) -> int | None:
    """Of k at a time, in whole iterations; None where that cannot be."""
    row_bytes = _filled_columns(gemm, machine) * item_bytes(gemm)
    return equal_slice(gemm.k, machine.l1_bytes * 2 // 3 // row_bytes, FILLED_LEAST_SLICE)


def outruns_slices(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether `gemm` is of this class, and copies are better than slices of a B where it lies.

    Rows of B may drive each other out of L1, and tiles of few registers then wait for L2:
    128 x 768 x 3072 is 1.04 times as fast with AVX2 if B is copied. With more of them a load is
    used twice as often, and copies gain nothing, but those of many rows that fill blocks.
    """
    if not is_copied(gemm, machine):
        return False
    if fills_blocks(gemm, machine):
        return gemm.m > FILLED_SLICES
    is_small = machine.vector_registers < MANY_REGISTERS
    return is_small and rows_in_l1(bytes_of_row(gemm, "b"), machine) < SLICE_K


def copying_tile(gemm: Gemm, machine: CpuMachine) -> RegisterTile:
    """More than a cache line wide, two at most: with AVX2 3 x 32 or 4 x 24 of f32, else 8 x 32.

    Of the two it is that which leaves fewer columns over.
    """
    lanes = lanes_used(gemm, machine)
    most = max(2 * CACHE_LINE_BYTES // machine.vector_bytes, 1)
    total = -(-gemm.n // lanes)
    widths = range(most, CACHE_LINE_BYTES // machine.vector_bytes, -1)
    vectors = min(min(widths, key=lambda v: round_up(total, v)), total)
    rows = min(most_rows(machine, vectors), PACKED_ROWS, gemm.m)
    return RegisterTile(rows=rows, vectors=vectors, lanes=lanes)


def _loops(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Blocks of B one below the other, so that C stays near, each copied for all rows of A."""
    if fills_blocks(gemm, machine):
        yield from _filled(gemm, machine, last_rows(gemm.m, FILLED_TILE, machine))
        return
    rows = copying_tile(gemm, machine).rows
    yield from _blocks(gemm, machine, last_rows(gemm.m, rows, machine))


def filled_any(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Likewise for some rows whose number is known at run time only, the first of which fill."""
    yield from _filled(gemm.at(m=FILLED_SLICES), machine, " edges=exact")


def _filled(gemm: Gemm, machine: CpuMachine, last: str) -> Iterator[str]:
    columns, kc = FILLED_TILE * lanes_used(gemm, machine), _filled_slice(gemm, machine)
    nc = _filled_columns(gemm, machine)
    if nc < gemm.n:
        yield f"tile{{loops=n sizes={nc}{peel_loop(gemm.n, nc)}}}"
    yield f"tile{{loops=k sizes={kc}}}"
    yield f"promote{{operand=b to=l1 layout=panel:{columns}}}"
    yield f"tile{{loops=m sizes={FILLED_TILE}{last}}}"
    yield f"tile{{loops=n sizes={columns}}}"
    yield "prefetch{operand=b loop=k ahead=1 to=l2 during=m,n}"
    yield "promote{operand=c to=registers}"
    yield f"tile{{loops=k sizes={K_STEPS_PER_ITERATION}}}"
    yield "fuse-pack{operand=b}"


def copied_any(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Likewise for rows whose number is known at run time only, of which a part meets each block.

    The columns of C that a block has then take a quarter of L2.
    """
    columns = PANELS * copying_tile(gemm, machine).columns
    most = max(machine.l2_bytes // 4 // (columns * item_bytes(gemm)), 1)
    yield f"tile{{loops=m sizes={most}}}"
    yield from _blocks(gemm, machine, " edges=even")


def _blocks(gemm: Gemm, machine: CpuMachine, last: str) -> Iterator[str]:
    tile, item = copying_tile(gemm, machine), item_bytes(gemm)
    nc = PANELS * tile.columns
    kc = balanced(gemm.k, machine.l1_bytes // 2 // (nc * item), K_STEPS_PER_ITERATION)
    if nc < gemm.n:
        yield f"tile{{loops=n sizes={nc}{peel_loop(gemm.n, nc)}}}"
    if kc < gemm.k:
        yield f"tile{{loops=k sizes={kc}}}"
    yield f"promote{{operand=b to=l1 layout=panel:{tile.columns}}}"
    yield f"tile{{loops=m sizes={tile.rows}{last}}}"
    yield f"tile{{loops=n sizes={tile.columns}}}"
    if kc < gemm.k:
        yield "prefetch{operand=b loop=k ahead=1 to=l2 during=m,n}"
    yield "promote{operand=c to=registers prefetch=true}"


COPIED = ScheduleClass(name="copied", loops=_loops)
