"""Streamed schedules for CPUs: few rows of A, for which B is read once, in whole rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.edges import peel_loop
from gemmir.schedule.cpu.few_rows import (
    LEAST_WAITING,
    MANY_ROWS,
    SHORT_BYTES,
    SLICE_K,
    has_long_rows,
    is_far,
    is_near,
)
from gemmir.schedule.cpu.model import (
    CACHE_LINE_BYTES,
    K_STEPS_PER_ITERATION,
    balanced,
    broadcasts_from_memory,
    bytes_of_row,
    item_bytes,
    lanes_used,
    round_up,
    rows_in_l1,
    rows_in_l2,
    space_of_next_rows,
)
from gemmir.schedule.cpu.schedule_class import Microkernel, ScheduleClass
from gemmir.schedule.cpu.tiles import LONE_ROWS, even_rows, has_even_rows

STREAM_ROWS = 192
"""Up to this many rows of A, all of B goes by for each few rows of k (measured on Zen 5)."""

STREAM_K = 8
"""Rows of B that are streamed together: as many as prefetchers follow, and as have room in a set of
L1 where they are a power of two apart."""

COPY_K = 64
"""Rows of B that are copied together at most, where enough rows of A use a copy (measured on
Zen 5: with more, less of C stays in L1 from one slice of k to the next)."""

COPY_TILES = 5
"""Tiles of rows that use a copy of B in L1 often enough to pay for it (measured on Zen 5)."""

COPY_ROWS = 4
"""Rows of a tile that reads a copy: the tile is then four vectors wide, on AVX2 three, and rows of
B are copied in longer pieces (measured on Zen 5)."""

PANEL_ROWS = 4
"""From this many rows on, C is summed in panels: its rows, B's and A's share the ways of a set."""

AHEAD_BYTES, COPY_AHEAD_BYTES = 1024, 256
"""How far ahead of its use a row of B is asked for, where it is multiplied and where it is copied:
what goes by in the time that memory takes to answer, about 100 ns."""

NEXT_SLICES = 4
"""Slices of B that L2 has room for where the next one is asked for. On Zen 4 2 to 8 rows by 32768
columns of f32, of which a slice is all of L2, are up to 1.5 times as fast by pieces of the same
rows, by 8192 columns 0.9 times, and a single row by 11008 columns as fast by neither."""

ROW_VECTORS = 4
"""Of a tile of the one row of C that is in registers, where B goes by row by row."""

ROW_AHEAD_BYTES = 8192
"""How far ahead it is then asked for, in whole rows: two pages, so that a new page is no surprise
to the prefetchers (measured on Zen 5: 16 KiB gain half as much, and 4 KiB nothing)."""


@dataclass(frozen=True, kw_only=True)
class Stream:
    """How B goes by: `rows` x `columns` of C are in registers for `kc` rows of B."""

    rows: int
    columns: int
    kc: int
    block: int
    copies: bool
    ahead: int


def stream_of(gemm: Gemm, machine: CpuMachine) -> Stream:
    """The sizes for `gemm`: C takes half of L2, and what is asked for ahead half of its sets.

    Sums take three quarters of the registers, or half where rows of B come from memory: the longer
    a tile of C, the longer a wait for one of them.
    """
    item, lanes = item_bytes(gemm), lanes_used(gemm, machine)
    wide = _has_wide_tiles(gemm, machine)
    rows = balanced(gemm.m, machine.vector_registers // 4, 1)
    copies = -(-gemm.m // rows) >= COPY_TILES and not wide
    rows = balanced(gemm.m, COPY_ROWS, 1) if copies else rows
    rows = even_rows(gemm.m, machine) if wide else rows
    sums = machine.vector_registers * 3 // 4 if copies or wide else machine.vector_registers // 2
    columns = min(max(min(sums // rows, 4), 1) * lanes, round_up(gemm.n, lanes))
    room = max(rows_in_l2(bytes_of_row(gemm, "b"), machine) // 2, 2 * STREAM_K)
    kc = min(COPY_K, room) if copies else STREAM_K
    ahead = (COPY_AHEAD_BYTES if copies else AHEAD_BYTES) // (columns * item)
    return Stream(
        rows=rows,
        columns=columns,
        kc=min(kc, gemm.k),
        block=balanced(gemm.n, max(machine.l2_bytes // 2 // (gemm.m * item), columns), columns),
        copies=copies,
        ahead=max(min(ahead, gemm.n // columns - 1), 0),
    )


def _has_wide_tiles(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether tiles of even rows take three quarters of the registers, and nothing is copied.

    With AVX2 4 to 32 rows, also by a B from memory: on Zen 5 6 to 12 rows by 16 to 64 MiB are 1.1
    to 1.9 times as fast as in slices or narrower tiles, 24 and 32 rows 1.0 to 1.35 times as fast as
    by copies. With AVX-512 9 and 10 rows by a B from L3.
    """
    if not broadcasts_from_memory(machine) or gemm.m < PANEL_ROWS:
        return False
    if has_even_rows(machine):
        return gemm.m <= MANY_ROWS
    return gemm.m <= LONE_ROWS and is_near(gemm, machine)


def outruns_others(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether a B that could be sliced or copied is streamed.

    Its rows fall into few sets of L1, or it comes from memory, and then they are long. C and A are
    in panels, and share no set with B: with tiles of 12 sums on AVX2 8 to 32 rows by 512 to 4096
    columns in f32 are 0.95 to 1.1 times as fast on Zen 5 as slices and copies where arrays begin on
    a line, and 1.0 to 1.5 times where they do not.
    """
    if not has_long_rows(gemm, machine):
        return False
    if not has_even_rows(machine) or not _has_wide_tiles(gemm, machine):
        return False
    if not is_near(gemm, machine) and gemm.m > LEAST_WAITING:
        return gemm.n * item_bytes(gemm) > SHORT_BYTES
    collides = rows_in_l1(bytes_of_row(gemm, "b"), machine) < SLICE_K
    return collides or not is_near(gemm, machine)


def is_streamed(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether `gemm` is of this class, where nothing else is better: few rows, and B's are long."""
    return has_long_rows(gemm, machine) and gemm.m <= STREAM_ROWS


def asks_for_slices(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether the next few rows of a B from memory are asked for into L2, and stay there.

    Requests into L1 hold up the loads behind them where it has no room to spare: a core of Zen 4
    reads 8 rows of 16 KiB side by side at 25 GB/s, at 17 with requests into L1, at 27 with the same
    ones into L2, and at 34 with requests for the next 8 rows. By 4096 x 4096 in f32 2 to 8 rows are
    1.4 to 1.6 times as fast as with requests into L1, with AVX-512 and AVX2, one row is 1.15 times
    as fast as without any, and 16 are 1.1 times. A B of a third of L3 comes as fast by itself.
    """
    if not _asks_into_l2(gemm, machine) or gemm.k <= STREAM_K:
        return False
    return STREAM_K * gemm.n * item_bytes(gemm) * NEXT_SLICES <= machine.l2_bytes


def _asks_into_l2(gemm: Gemm, machine: CpuMachine) -> bool:
    return space_of_next_rows(machine) == "l2" and not is_near(gemm, machine)


def goes_by_row(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether one row of A meets rows of B from memory one after the other, and C stays in L1.

    In the order in which it lies, B comes faster than in several streams: on Zen 5 with AVX2 one
    row by 4096 x 4096 is 1.07 times as fast, by 16384 x 2048 1.2 times and by 65536 x 512 1.4
    times. A C that is longer than half of L1 is 0.8 to 1.0 times as fast, and so are vectors of
    whole lines, which wait for half as many loads.
    """
    stays = gemm.n * item_bytes(gemm) <= machine.l1_bytes // 2
    is_dense = gemm.leading("b") == gemm.n and not gemm.trans_b
    cuts_lines = machine.vector_bytes < CACHE_LINE_BYTES and broadcasts_from_memory(machine)
    return gemm.m == 1 and is_far(gemm, machine) and stays and is_dense and cuts_lines


def _by_row(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """One row of B at a time, and a later one is asked for meanwhile."""
    columns = min(ROW_VECTORS * lanes_used(gemm, machine), gemm.n)
    ahead = max(ROW_AHEAD_BYTES // (gemm.n * item_bytes(gemm)), 1)
    yield "tile{loops=k sizes=1}"
    yield f"tile{{loops=n sizes={columns}{peel_loop(gemm.n, columns)}}}"
    yield f"prefetch{{operand=b loop=k ahead={ahead} during=n}}"
    yield "tile{loops=m sizes=1}"
    yield "promote{operand=c to=registers}"


def _microkernel(gemm: Gemm, machine: CpuMachine) -> Microkernel:
    """All of a slice is an iteration, or it is unrolled as for anything packed."""
    if goes_by_row(gemm, machine):
        return Microkernel(steps=1)
    copies = stream_of(gemm, machine).copies
    return Microkernel(steps=K_STEPS_PER_ITERATION if copies else STREAM_K)


def _loops(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Few rows of k at a time, all of B goes by once, and C is summed in a cache."""
    if goes_by_row(gemm, machine):
        yield from _by_row(gemm, machine)
        return
    stream = stream_of(gemm, machine)
    has_panels = gemm.m >= PANEL_ROWS
    if has_panels and stream.block < gemm.n:
        yield f"tile{{loops=n sizes={stream.block}{peel_loop(gemm.n, stream.block)}}}"
    if has_panels:
        yield f"promote{{operand=c to=l2 layout=panel:{stream.columns}}}"
    yield f"tile{{loops=k sizes={stream.kc}}}"
    if has_panels:
        slab = gemm.m * stream.kc * item_bytes(gemm)
        space = "l1" if slab <= machine.l1_bytes // 2 else "l2"
        yield f"promote{{operand=a to={space} layout=panel:{stream.rows}}}"
    yield f"tile{{loops=n sizes={stream.columns}{peel_loop(gemm.n, stream.columns)}}}"
    if not stream.copies:
        yield from _asked(gemm, machine, stream.ahead)
    if stream.copies:
        yield f"promote{{operand=b to=l1 layout=panel:{stream.columns}}}"
    yield f"tile{{loops=m sizes={stream.rows}}}"
    if stream.ahead and stream.copies:
        yield f"prefetch{{operand=b loop=n ahead={stream.ahead} to=l2 during=m}}"
    yield "promote{operand=c to=registers}"


def _asked(gemm: Gemm, machine: CpuMachine, ahead: int) -> Iterator[str]:
    """What of B is asked for where it is not copied: the next rows, or a piece of the same ones."""
    if asks_for_slices(gemm, machine):
        yield "prefetch{operand=b loop=k ahead=1 to=l2 during=n}"
    elif ahead and gemm.m > 1:
        space = " to=l2" if _asks_into_l2(gemm, machine) else ""
        yield f"prefetch{{operand=b loop=n ahead={ahead}{space}}}"


STREAMED = ScheduleClass(name="streamed", loops=_loops, microkernel=_microkernel)
