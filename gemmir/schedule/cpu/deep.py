"""Deep schedules for CPUs: a small C and a long k, cut into slices that are summed into C."""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.edges import last_rows, open_tiles, peel_loop
from gemmir.schedule.cpu.model import (
    K_STEPS_PER_ITERATION,
    balanced,
    bytes_of,
    bytes_of_row,
    item_bytes,
    rows_in_l1,
)
from gemmir.schedule.cpu.schedule_class import Microkernel, ScheduleClass
from gemmir.schedule.cpu.tiles import (
    MANY_REGISTERS,
    RegisterTile,
    direct_tile,
    has_even_rows,
    lanes_of_direct,
    streaming_tile,
)
from gemmir.schedule.cpu.wide_reads import wide_rows_of_slices

DEEP_STEPS = 16
"""The least slice of k, and what slices are multiples of: a cache line of f32."""

FAR_SHARE = 3
"""A third of L3 is what A and B may have to be read as from L3: others use it too. On Zen 5 with
AVX-512 and 32 MiB of L3 slices that are asked for are 1.02 to 1.2 times as fast from 18 MiB on,
0.98 to 1.1 with 12 to 17 MiB, and 0.98 to 0.99 with 8 MiB."""

FAR_BYTES = 512
"""Of each row of A in a slice whose successor is asked for line by line, or half of it where B has
more than two thirds of L1 then: 128 x 128 x 32768 in f32 is 2 to 3 % slower with slices of 512
bytes than of 256, and 64 x 64 x 65536 1 % faster."""

FETCHED_BYTES = 128
"""Of each row of A in a slice whose successor is asked for meanwhile: two lines. With one, C comes
and goes too often; with four, B of 64 columns leaves too little of L1 for its next slice."""


def is_deep(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether `gemm` is of this class: C is an eighth of L2 at most, and A and B are larger."""
    is_long = bytes_of(gemm, "ab") > machine.l2_bytes // 2
    return is_long and bytes_of(gemm, "c") <= machine.l2_bytes // 8


def _loops(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Small C and long k: slices of k, of which A and B take a quarter of L2, are summed into C.

    With many registers they take half where both are read more than once. With few and one tile
    across B takes half of L1 at most: all tiles of rows read it. On Zen 5 with AVX2 16 x 16 x 16384
    is 1.01 to 1.02 times as fast, others within 0.5 %.
    """
    tile = deep_tile(gemm, machine)
    if _is_fetched(gemm, machine, tile):
        yield from _fetched(gemm, machine, tile)
        return
    if _is_far(gemm, machine, tile):
        yield from _asked(gemm, machine, tile)
        return
    if _stays(gemm, machine, tile):
        yield from _whole(gemm, machine, tile)
        return
    is_again = gemm.m > tile.rows and gemm.n > tile.columns
    share = 2 if is_again and machine.vector_registers >= MANY_REGISTERS else 4
    most = machine.l2_bytes // share // ((gemm.m + gemm.n) * item_bytes(gemm))
    if has_even_rows(machine) and gemm.n <= tile.columns:
        most = min(most, machine.l1_bytes // 2 // (gemm.n * item_bytes(gemm)))
    kc = min(balanced(gemm.k, max(most, DEEP_STEPS), DEEP_STEPS), gemm.k)
    yield f"tile{{loops=k sizes={kc}}}"
    yield from _whole(gemm, machine, tile)


def _whole(gemm: Gemm, machine: CpuMachine, tile: RegisterTile) -> Iterator[str]:
    """Register tiles of all of k, or of a slice, which B stays in a cache for."""
    across = peel_loop(gemm.n, tile.columns)
    rows = ("m", tile.rows, last_rows(gemm.m, tile.rows, machine))
    yield from open_tiles(rows, ("n", tile.columns, across))
    yield "promote{operand=c to=registers}"


def _asked(gemm: Gemm, machine: CpuMachine, tile: RegisterTile) -> Iterator[str]:
    """Slices whose successors are asked for, a line in each iteration over k.

    All tiles of a slice share the requests for the next one of B, which otherwise comes from memory
    while the first rows are multiplied, an eighth of the time at 64 rows. Of A the next rows are
    asked for, of which each has too few lines for a prefetcher.
    """
    across = peel_loop(gemm.n, tile.columns)
    stays = gemm.n * FAR_BYTES <= machine.l1_bytes * 2 // 3
    kc = (FAR_BYTES if stays else FAR_BYTES // 2) // item_bytes(gemm)
    yield f"tile{{loops=k sizes={kc}}}"
    yield f"tile{{loops=m sizes={tile.rows}{last_rows(gemm.m, tile.rows, machine)}}}"
    yield f"tile{{loops=n sizes={tile.columns}{across}}}"
    yield "promote{operand=c to=registers}"
    yield f"tile{{loops=k sizes={K_STEPS_PER_ITERATION}}}"
    yield "prefetch{operand=b loop=k ahead=1 to=l1 during=m,n,k}"
    if gemm.m >= 2 * tile.rows:
        yield "prefetch{operand=a loop=m ahead=1 to=l1 during=n,k}"


def _is_far(gemm: Gemm, machine: CpuMachine, tile: RegisterTile) -> bool:
    """Whether A and B come from memory, and there is time to ask for lines beside the sums.

    A tile of one vector loads as much as it can already: 20 x 16 x 100000 is 8 % slower so.
    """
    return _is_from_memory(gemm, machine) and tile.vectors > 1


def _is_from_memory(gemm: Gemm, machine: CpuMachine) -> bool:
    bytes_read = bytes_of(gemm, "ab")
    is_many = machine.vector_registers >= MANY_REGISTERS
    return is_many and bytes_read > machine.l3_bytes // FAR_SHARE


def _stays(gemm: Gemm, machine: CpuMachine, tile: RegisterTile) -> bool:
    """Whether B stays in L2 while A goes by once, and a tile takes whole rows of B.

    Then it is not cut: 16 to 64 rows by 16 to 48 columns in f32 are 0.5 to 2.3 % faster on Zen 5
    than in slices. With two tiles to a row they are up to 5 % slower.
    """
    near = bytes_of(gemm, "b") <= machine.l2_bytes // 2
    return near and bytes_of(gemm, "a") <= machine.l2_bytes and gemm.n <= tile.columns


def _fetched(gemm: Gemm, machine: CpuMachine, tile: RegisterTile) -> Iterator[str]:
    """Slices of two lines of each row of A, beside which the next slice of B comes to L1."""
    across = peel_loop(gemm.n, tile.columns)
    yield f"tile{{loops=k sizes={FETCHED_BYTES // item_bytes(gemm)}}}"
    yield f"tile{{loops=m sizes={tile.rows}{last_rows(gemm.m, tile.rows, machine)}}}"
    yield "prefetch{operand=b loop=k ahead=1 to=l1 during=m}"
    yield f"tile{{loops=n sizes={tile.columns}{across}}}"
    yield "prefetch{operand=a loop=m ahead=1 to=l1 during=n}"
    yield "promote{operand=c to=registers}"


def deep_tile(gemm: Gemm, machine: CpuMachine) -> RegisterTile:
    """The tile that they have where A and B are near, if lines of its rows fit into L1 together.

    On Zen 5 with AVX-512 12 x 192 x 4096 is 1.15 times as fast so as with tiles of 8 x 32, 100 x
    100 x 1500 1.07 and 128 x 128 x 8192 1.03 times; from memory 64 x 64 x 65536 is 3 % slower.
    Rows that fit into one tile are not cut: with AVX2 5 x 84 x 3000 is 1.1 times as fast so.
    """
    streams = streaming_tile(gemm, machine)
    if _is_from_memory(gemm, machine):
        return streams
    tile = direct_tile(gemm, machine, gemm.k)
    row_bytes = bytes_of_row(gemm, "a")
    fits = gemm.trans_a or tile.rows <= rows_in_l1(row_bytes, machine)
    return tile if fits and (tile.rows >= gemm.m or streams.rows < gemm.m) else streams


def _is_fetched(gemm: Gemm, machine: CpuMachine, tile: RegisterTile) -> bool:
    """Whether what is read next is asked for: A and B come from L3 or from farther away.

    Each row of A has a line or two in a slice, too few for a prefetcher to follow, and B is waited
    for by the first tile of a slice. With AVX2 on Zen 5 this is 1.03 to 1.2 times as fast for 48 to
    128 rows and columns.
    """
    is_far = bytes_of(gemm, "ab") > 2 * machine.l2_bytes
    fits = gemm.n * FETCHED_BYTES <= machine.l1_bytes
    few = machine.vector_registers < MANY_REGISTERS
    return few and is_far and fits and gemm.m >= 2 * tile.rows and gemm.n > tile.columns


def deep_microkernel(gemm: Gemm, machine: CpuMachine) -> Microkernel:
    """The usual one, which may read several elements of some rows of A at a time."""
    tile = deep_tile(gemm, machine)
    return Microkernel(
        wide_rows=wide_rows_of_slices(gemm, machine, tile),
        lanes=lanes_of_direct(gemm, machine, tile),
    )


DEEP = ScheduleClass(name="deep", loops=_loops, microkernel=deep_microkernel)
