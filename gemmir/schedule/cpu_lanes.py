"""Schedules for CPUs whose lanes go along k: C is thin, and its thin side shorter than a vector.

Where B is stored transposed and A has few rows, or C has few columns, what is read most lies along
k. A tile of C is then a vector for each element, which are added up at the end. Of an A from L3 and
from memory tiles stream rows; of a nearer one they are those that a model of cycles takes for the
fastest, which also decides whether lanes along n would be faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu_model import (
    CACHE_LINE_BYTES,
    balanced,
    broadcasts_from_memory,
    item_bytes,
)
from gemmir.schedule.cpu_tiles import LOADS_PER_CYCLE, OVERLAP, direct_cycles

THIN_ROWS = 16
"""Up to this many rows of A, a transposed B is used where it lies (measured on Zen 5: with more, a
copy in panels pays)."""

THIN_COLUMNS = 8
"""Up to this many columns a row of C is too short for a vector of f32 (measured on Zen 5)."""

LANE_VECTORS = 8
"""The least number of vectors along k: the sum of the lanes then costs less than the products."""

STREAMS = 5
"""Rows that are streamed at once from the long side (measured on Zen 5: with 8 and 12 prefetchers
reach less)."""

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
"""For an element of B that is copied into a column that lies along k."""

CALL_CYCLES = 30
"""For the room that the copy needs."""

FAR_LOADS = 2
"""A line of A from L2 is as many loads of L1."""

LEAST_GAIN = 1.05
"""By how much lanes along n have to be slower by the model, whose error is larger than that."""

ALONG_K = "k"
"""What the lanes go along, as `vectorize` calls it."""

LANE_STEPS = 2
"""Unrolling of the loop over k where A comes from afar: a step is a vector of each row, with up to
20 products. Near ones are as fast without."""


def is_along_k(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether `gemm` is of this class: thin, and A adjacent along k.

    It is too large for L2, or lanes along n take longer by the model.
    """
    lanes = machine.lanes(item_bytes(gemm))
    is_plain = gemm.dtype in ("f32", "f64") and gemm.element_b == gemm.element
    is_apart = gemm.trans_a and gemm.leading("a") > 1
    if not is_plain or is_apart:
        return False
    if not _is_large(gemm, machine):
        return _is_faster(gemm, machine)
    few_rows = gemm.m <= THIN_ROWS and gemm.trans_b and gemm.n > gemm.m
    few_columns = gemm.n <= min(THIN_COLUMNS, lanes) and gemm.m > gemm.n
    return gemm.k >= LANE_VECTORS * lanes and (few_rows or few_columns)


def _is_large(gemm: Gemm, machine: CpuMachine) -> bool:
    return (gemm.m + gemm.n) * gemm.k * item_bytes(gemm) > machine.l2_bytes


def _is_faster(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether a row of C is shorter than a vector, and its lanes are better used along k."""
    if gemm.n >= machine.lanes(item_bytes(gemm)) or not broadcasts_from_memory(machine):
        return False
    along = near_cycles(gemm, machine, *near_tile(gemm, machine))
    return LEAST_GAIN * along < direct_cycles(gemm, machine)


def near_tile(gemm: Gemm, machine: CpuMachine) -> tuple[int, int]:
    """Rows and columns of the tile that takes the fewest cycles for an A in L1 or L2."""
    is_bound = gemm.n <= FEWEST_COLUMNS and _far_loads(gemm, machine) > 1
    most = min(FEWEST_ROWS if is_bound else NEAR_ROWS, gemm.m)
    room = machine.vector_registers
    sizes = product(range(1, most + 1), range(1, gemm.n + 1))
    fitting = ((r, c) for r, c in sizes if r * c + r + c <= room)
    return min(fitting, key=lambda size: near_cycles(gemm, machine, *size))


def near_cycles(gemm: Gemm, machine: CpuMachine, rows: int, columns: int) -> float:
    """What tiles of `rows` by `columns` take by the model, with those at the edges.

    Of an A from L2 the first tile of a row of tiles reads lines from there, and others do where its
    rows do not stay in L1.
    """
    far_loads = _far_loads(gemm, machine)
    stays = rows * gemm.k * item_bytes(gemm) <= machine.l1_bytes // 2
    cycles = 0.0
    for height, down in ((rows, gemm.m // rows), (gemm.m % rows, 1)):
        for first in range(0, gemm.n, columns):
            loads_of_a = 1 if first and stays else far_loads
            width = min(columns, gemm.n - first)
            cycles += down * _tile_cycles(gemm, machine, height, width, loads_of_a)
    is_copied = not gemm.trans_b and gemm.leading("b") > 1
    return cycles + (CALL_CYCLES + COLUMN_CYCLES * gemm.n * gemm.k if is_copied else 0)


def _tile_cycles(
    gemm: Gemm, machine: CpuMachine, rows: int, columns: int, loads_of_a: float
) -> float:
    """Multiply-adds and loads hide each other, and the longer ones decide; sums of lanes do not."""
    if rows == 0:
        return 0.0
    lanes = machine.lanes(item_bytes(gemm))
    products = rows * columns / machine.fma_per_cycle
    loads = (rows * loads_of_a + columns) / LOADS_PER_CYCLE
    step = (products**OVERLAP + loads**OVERLAP) ** (1 / OVERLAP)
    halves = (2**power for power in range(1, lanes.bit_length()))
    additions = sum(-(-rows * columns // half) for half in halves)
    return -(-gemm.k // lanes) * step + SUM_CYCLES * additions


def _far_loads(gemm: Gemm, machine: CpuMachine) -> float:
    """How many loads from L1 a vector of A takes as long as: 1, or more where A is in L2."""
    is_far = gemm.m * gemm.k * item_bytes(gemm) > machine.l1_bytes * 3 // 4
    lines = machine.vector_bytes / CACHE_LINE_BYTES
    return max(FAR_LOADS * lines, 1) if is_far else 1


def lane_tile(gemm: Gemm, machine: CpuMachine) -> tuple[int, int]:
    """Rows and columns of a tile: the best ratio of products to loads that the registers hold."""
    long, short = max(gemm.m, gemm.n), min(gemm.m, gemm.n)
    room = machine.vector_registers - 2
    fitting = [
        (s, t)
        for s in range(1, STREAMS + 1)
        for t in range(1, short + 1)
        if s <= long and s * t + s + t <= room
    ]
    streamed, other = max(fitting, key=lambda f: (f[0] * f[1] / (f[0] + f[1]), f[0]))
    other = balanced(short, other, 1)
    return (streamed, other) if gemm.m > gemm.n else (other, streamed)


def lane_steps(gemm: Gemm, machine: CpuMachine) -> int:
    """How many vectors along k an iteration takes."""
    return LANE_STEPS if _is_large(gemm, machine) else 1


def along_k(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """The long side goes by once, and tiles of the thin one are taken in turn."""
    is_near = not _is_large(gemm, machine)
    rows, columns = (near_tile if is_near else lane_tile)(gemm, machine)
    is_packed = not gemm.trans_b and gemm.leading("b") > 1
    if is_packed:
        fits = gemm.n * gemm.k * item_bytes(gemm) <= machine.l2_bytes // 2
        yield f"promote{{operand=b to={'l2' if fits else 'l3'} layout=panel:1}}"
    order = f"m,n sizes={rows},{columns}" if gemm.m > gemm.n else f"n,m sizes={columns},{rows}"
    even = gemm.m % rows == 0 and gemm.n % columns == 0
    yield f"tile{{loops={order}{'' if even else ' edges=peel'}}}"
    yield "promote{operand=c to=registers}"
