"""Schedules for CPUs whose lanes go along k: C is thin, and its thin side shorter than a vector.

Where B is stored transposed and A has few rows, or C has few columns, what is read most lies along
k. A tile of C is then a vector for each element, which are added up at the end. Of few columns a
model of cycles chooses the tile, and decides whether lanes along n would be faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.deep import is_deep
from gemmir.schedule.cpu.edges import peel, peel_loop
from gemmir.schedule.cpu.last_columns import last_columns
from gemmir.schedule.cpu.model import (
    CACHE_LINE_BYTES,
    balanced,
    broadcasts_from_memory,
    bytes_of,
    item_bytes,
    space_of_next_rows,
    with_size,
)
from gemmir.schedule.cpu.narrow import LEAST_ASKED_BYTES
from gemmir.schedule.cpu.schedule_class import Microkernel, ScheduleClass
from gemmir.schedule.cpu.tiles import LOADS_PER_CYCLE, OVERLAP, direct_cycles

THIN_ROWS = 16
"""Up to this many rows of A, a transposed B is used where it lies (measured on Zen 5: with more, a
copy in panels pays)."""

MOST_VECTORS = 2
"""Columns are less than so many vectors: of more the last one wastes a smaller part."""

LANE_VECTORS = 8
"""The least number of vectors along k: the sum of the lanes then costs less than the products."""

STREAMS = 5
FEWEST_STREAMS = 3
"""Rows that are streamed at once from the long side, at most and where A comes from L3 or memory at
least (measured on Zen 5: with 8 and 12 prefetchers reach less, and with 2)."""

ASKED_PRODUCTS = 3
"""Vector multiply-adds for a line of A from memory, from which on its lines are asked for one by
one: with fewer the prefetchers of so many rows bring as much. On Zen 5 4096 x n x 2560 in f32 is
1.0 to 1.36 times as fast so by 3 to 12 columns with AVX-512, and 1.3 to 2 by 2 to 7 with AVX2.
Requests to L2, where L1 has no room, gain with any: on Zen 4 4096 x 1 x 4096 in f32 is 1.18 times
as fast with AVX-512, 4096 x 2 x 4096 1.22 to 1.27."""

ASKED_STREAMS = 8
"""Rows that are streamed at most where their lines are asked for to L2: on Zen 4 4096 x 1 x 4096 is
1.18 times as fast by 8 rows as by 5 without requests, by 4 1.08, and by 2 or one as fast."""

ASKING_TILES = 2
"""Tiles in a row of tiles that share these requests. By three some lines are asked for twice, and
6 columns in tiles of 4 x 2 take 1.8 times as long with AVX2."""

NEAR_ROWS = 8
"""Rows of a tile of a near A: with 16 registers they hold fewer."""

FEWEST_ROWS = 2
FEWEST_COLUMNS = 2
"""An A from L2 by so few columns is bound by how its lines come to L1, which they do fastest in the
order in which they lie: with AVX-512 on Zen 5 200 x 1 x 40 and 200 x 2 x 40 in f64 take 0.7 of the
time by 2 rows that they take by 8."""

SUM_CYCLES = 1.1
"""Cycles of an addition, and of two shuffles before it, when the lanes of two vectors are added.
With `COLUMN_CYCLES`, `CALL_CYCLES` and `FAR_LOADS` it is fitted to 1400 timings of all tiles of 1
to 12 columns, 48 and 200 rows and k of 8 to 512, in f32 and f64, with AVX2 and AVX-512 on Zen 5.
What the model chooses, these tiles or lanes along n, is 2.3 % slower than the best on average."""

COLUMN_CYCLES = 1.0
"""For an element of B that is copied into a column that lies along k. By squares it takes 0.2 on
Zen 4, and the sum over lanes more than the model says: of 68 products of 2 to 20 columns those of
the faster kind are found with 1.0 as often as with 0.7, and less often with 0.3."""

CALL_CYCLES = 30
"""For the room that the copy needs."""

FAR_LOADS = 3
"""A line from L2 takes as long as so many loads from L1."""

COPY_IN_L1 = 2
"""How many times L1 a copy of B of more than one vector of columns is at most, with vectors of
whole lines: of a longer one each tile reads its part from L2, and its rows of A too. On Zen 5 with
AVX-512 2000 x 20 x 1200 in f32 is 1.3 times as fast with lanes along k, and 2000 x 20 x 1500 and
768 x 20 x 2560 are 0.85 to 0.96 times."""

LEAST_GAIN = 1.05
"""By how much lanes along n have to be slower by the model, whose error is larger than that."""

LANE_STEPS = 2
"""Unrolling of the loop over k where A comes from afar: a step is a vector of each row, with up to
20 products. Near ones are as fast without."""


def is_along_k(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether `gemm` is of this class: A is adjacent along k, and C thin.

    It has few columns, and lanes along n take longer by the model; or few rows by a transposed B
    that is too large for L2.
    """
    is_plain = gemm.dtype in ("f32", "f64") and gemm.element_b == gemm.element
    is_apart = gemm.trans_a and gemm.leading("a") > 1
    if not is_plain or is_apart:
        return False
    is_long = gemm.k >= LANE_VECTORS * machine.lanes(item_bytes(gemm))
    has_few_rows = gemm.m <= THIN_ROWS and gemm.trans_b and gemm.n > gemm.m
    if has_few_rows and is_long and _is_large(gemm, machine):
        return True
    return _is_faster(gemm, machine)


def _is_large(gemm: Gemm, machine: CpuMachine) -> bool:
    return bytes_of(gemm, "ab") > machine.l2_bytes


def _is_faster(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether vectors of a row of C are filled so badly that lanes are better used along k."""
    lanes = machine.lanes(item_bytes(gemm))
    is_short = gemm.n < MOST_VECTORS * lanes and gemm.n % lanes
    if not is_short or gemm.m < gemm.n or not broadcasts_from_memory(machine):
        return False
    is_wide = gemm.n > lanes and machine.vector_bytes >= CACHE_LINE_BYTES
    if is_wide and bytes_of(gemm, "b") > COPY_IN_L1 * machine.l1_bytes:
        return False
    along = thin_cycles(gemm, machine, *thin_tile(gemm, machine))
    return LEAST_GAIN * along < _cycles_otherwise(gemm, machine)


def _cycles_otherwise(gemm: Gemm, machine: CpuMachine) -> float:
    """With lanes along n, or where B is read in place along k for last columns only."""
    cycles = direct_cycles(gemm, machine)
    last = last_columns(gemm, machine)
    is_small = bytes_of(gemm, "ab") <= machine.l2_bytes // 2
    if not last or _is_large(gemm, machine) or (not is_small and is_deep(gemm, machine)):
        return cycles
    first, apart = (with_size(gemm, {"n": n}) for n in (gemm.n - last, last))
    tile = thin_tile(apart, machine)
    return min(cycles, direct_cycles(first, machine) + thin_cycles(apart, machine, *tile))


def thin_tile(gemm: Gemm, machine: CpuMachine) -> tuple[int, int]:
    """Rows and columns of the tile that takes the fewest cycles by the model."""
    least, most = 1, NEAR_ROWS
    if _is_large(gemm, machine):
        least, most = min(FEWEST_STREAMS, gemm.m), _most_streams(gemm, machine)
    elif gemm.n <= FEWEST_COLUMNS and _waits_for_lines(gemm, machine):
        most = FEWEST_ROWS
    widest = range(_least_columns(gemm, machine), gemm.n + 1)
    sizes = product(range(least, min(most, gemm.m) + 1), widest)
    fitting = [(r, c) for r, c in sizes if r * c + r + c <= machine.vector_registers]
    return min(fitting, key=lambda size: thin_cycles(gemm, machine, *size))


def _least_columns(gemm: Gemm, machine: CpuMachine) -> int:
    """The least columns of a tile: more than a third of all where each line is asked for."""
    return gemm.n // (ASKING_TILES + 1) + 1 if _asks_for_lines(gemm, machine) else 1


def _asks_for_lines(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether the next rows of the long side are asked for line by line, beside the products.

    They come from memory, have whole lines, and there are products enough to wait for them. With
    AVX2 on Zen 5 100000 x 4 x 64 in f32 takes 1.5 times as long so, and with a k of 128 0.75 times.
    """
    item = item_bytes(gemm)
    line = CACHE_LINE_BYTES // item
    operand = "a" if gemm.m >= gemm.n else "b"
    is_far = bytes_of(gemm, operand) > machine.l3_bytes // 2
    is_whole = gemm.k % line == 0 and gemm.leading(operand) % line == 0
    is_long = gemm.k * item >= LEAST_ASKED_BYTES
    return is_far and is_whole and is_long and _pays_to_ask(gemm, machine)


def _pays_to_ask(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether few tiles share each request, and have products enough or ask to L2."""
    to_l2 = space_of_next_rows(machine) == "l2"
    if gemm.m < gemm.n:
        rows, _ = _tile_of_few_rows(gemm, machine, ASKED_STREAMS)
        return to_l2 and -(-gemm.m // rows) <= ASKING_TILES
    products = gemm.n * CACHE_LINE_BYTES // machine.vector_bytes
    columns = gemm.n // (ASKING_TILES + 1) + 1
    fits = (FEWEST_STREAMS + 1) * (columns + 1) - 1 <= machine.vector_registers
    return fits and (to_l2 or products >= ASKED_PRODUCTS)


def _most_streams(gemm: Gemm, machine: CpuMachine) -> int:
    """How many rows of the long side go by at once at most, where they come from afar."""
    to_l2 = space_of_next_rows(machine) == "l2"
    return ASKED_STREAMS if to_l2 and _asks_for_lines(gemm, machine) else STREAMS


def _waits_for_lines(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether an A that is not in L1 is read by vectors of whole lines."""
    is_far = bytes_of(gemm, "a") > machine.l1_bytes * 3 // 4
    return is_far and machine.vector_bytes >= CACHE_LINE_BYTES


def thin_cycles(gemm: Gemm, machine: CpuMachine, rows: int, columns: int) -> float:
    """What tiles of `rows` by `columns` take by the model, with those at the edges.

    Of an A from L2 the first tile of a row of tiles reads lines from there, and others do where its
    rows do not stay in L1.
    """
    item = item_bytes(gemm)
    far_a = _loads_of_vector(bytes_of(gemm, "a"), machine)
    far_b = _loads_of_vector(bytes_of(gemm, "b"), machine)
    stays = rows * gemm.k * item <= machine.l1_bytes // 2
    cycles = 0.0
    for height, down in ((rows, gemm.m // rows), (gemm.m % rows, 1)):
        for first in range(0, gemm.n, columns):
            width = min(columns, gemm.n - first)
            loads = height * (1 if first and stays else far_a) + width * far_b
            cycles += down * _tile_cycles(gemm, machine, height * width, loads)
    is_copied = not gemm.trans_b and gemm.leading("b") > 1
    return cycles + (CALL_CYCLES + COLUMN_CYCLES * gemm.n * gemm.k if is_copied else 0)


def _tile_cycles(gemm: Gemm, machine: CpuMachine, sums: int, loads: float) -> float:
    """Multiply-adds and loads hide each other, and the longer ones decide; sums of lanes do not."""
    if not sums:
        return 0.0
    lanes = machine.lanes(item_bytes(gemm))
    parts = (sums / machine.fma_per_cycle, loads / LOADS_PER_CYCLE)
    step = sum(part**OVERLAP for part in parts) ** (1 / OVERLAP)
    halves = (2**power for power in range(1, lanes.bit_length()))
    additions = sum(-(-sums // half) for half in halves)
    return -(-gemm.k // lanes) * step + SUM_CYCLES * additions


def _loads_of_vector(operand_bytes: int, machine: CpuMachine) -> float:
    """How many loads from L1 take as long as one of a vector: more where all do not stay there."""
    lines = machine.vector_bytes / CACHE_LINE_BYTES
    return max(FAR_LOADS * lines, 1) if operand_bytes > machine.l1_bytes * 3 // 4 else 1


def _tile_of_few_rows(gemm: Gemm, machine: CpuMachine, most: int) -> tuple[int, int]:
    """Of few rows: the best ratio of products to loads that the registers hold.

    At most `most` rows of B are streamed.
    """
    room = machine.vector_registers - 2
    fitting = [
        (s, t)
        for s in range(1, most + 1)
        for t in range(1, gemm.m + 1)
        if s <= gemm.n and s * t + s + t <= room
    ]
    streamed, other = max(fitting, key=lambda f: (f[0] * f[1] / (f[0] + f[1]), f[0]))
    return balanced(gemm.m, other, 1), streamed


def _microkernel(gemm: Gemm, machine: CpuMachine) -> Microkernel:
    is_asked = _asks_for_lines(gemm, machine)
    steps = LANE_STEPS if _is_large(gemm, machine) and not is_asked else 1
    return Microkernel(steps=steps, along="k")


def _loops(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """The long side goes by once, and tiles of the thin one are taken in turn."""
    if gemm.m >= gemm.n:
        rows, columns = thin_tile(gemm, machine)
    else:
        rows, columns = _tile_of_few_rows(gemm, machine, _most_streams(gemm, machine))
    is_packed = not gemm.trans_b and gemm.leading("b") > 1
    if is_packed:
        fits = bytes_of(gemm, "b") <= machine.l2_bytes // 2
        yield f"promote{{operand=b to={'l2' if fits else 'l3'} layout=panel:1}}"
    if _asks_for_lines(gemm, machine):
        yield from _asked(gemm, rows, columns, space_of_next_rows(machine))
        return
    order = f"m,n sizes={rows},{columns}" if gemm.m > gemm.n else f"n,m sizes={columns},{rows}"
    yield f"tile{{loops={order}{peel(gemm, rows, columns)}}}"
    yield "promote{operand=c to=registers}"


def _asked(gemm: Gemm, rows: int, columns: int, space: str) -> Iterator[str]:
    """Tiles that ask for a line of each of the next long rows, when they read one of these."""
    loops = [("m", gemm.m, rows, "a"), ("n", gemm.n, columns, "b")]
    if gemm.m < gemm.n:
        loops.reverse()
    (long, _, _, operand), (thin, extent, size, _) = loops
    for loop, of, by, _ in loops:
        yield f"tile{{loops={loop} sizes={by}{peel_loop(of, by)}}}"
    yield "promote{operand=c to=registers}"
    yield f"tile{{loops=k sizes={CACHE_LINE_BYTES // item_bytes(gemm)}}}"
    during = f"{thin},k" if extent > size else "k"
    yield f"prefetch{{operand={operand} loop={long} ahead=1 to={space} during={during}}}"


ALONG_K = ScheduleClass(name="lanes along k", loops=_loops, microkernel=_microkernel)
