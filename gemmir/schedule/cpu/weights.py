"""Schedules for CPUs of weights: a B of small integers that have scales.

With few rows of A they are read where they lie and made floats in registers: slices of k that have
one scale are summed, and added to C times that. With more rows each weight would be converted more
than once, and B is made floats on the way into panels. So it is where B is stored n x k, too, for
rows of k are no vectors of n; but for very few rows of A, of which lanes go along k.

A C that is narrower than its sums is written once: slices of k are added to a running sum in
registers, and panels have all of k.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.edges import peel, peel_loop
from gemmir.schedule.cpu.model import (
    CACHE_LINE_BYTES,
    K_SLICE_BYTES,
    L1_WAY_BYTES,
    balanced,
    broadcasts_from_memory,
    has_half_pipes,
    has_narrow_c,
    is_n_x_k,
    lanes_of_sum,
    round_up,
    space_of_next_rows,
)
from gemmir.schedule.cpu.schedule_class import Microkernel, Rules, ScheduleClass, otherwise
from gemmir.schedule.cpu.tiles import FMA_LATENCY_CYCLES, MANY_REGISTERS, PACKED_ROWS, most_rows

FEW_ROWS = 64
"""Up to this many rows of A converting in registers is faster than packing B, whose elements are
then written and read once more (measured on Zen 5 at 16 to 128 rows, with AVX-512 and AVX2)."""

SLICE = 128
"""Elements of k that are summed before they are added to C (measured on Zen 5: 32 to 256 are within
3 %)."""

SHORT_SLICE_ROWS = 16
"""Up to this many rows short slices may pay."""

LEAST_SLICE = 16
"""Shorter slices read and write C too often."""

SPARE_REGISTERS = 4
"""Beside sums and a row of B: an element of A, distances of shifts, a mask, and what is shifted."""

CYCLES_PER_LOAD = 0.85
"""Of an element of A for all lanes, or of a row of B: what leaves the tiles in front that are the
fastest at 4 to 64 rows (measured on Zen 5: 8 x 48 with AVX-512, 5 x 16 and 3 x 24 with AVX2)."""

MOST_ROWS = 8
"""Rows of A that are a power of two apart share the sets of L1, which has 8 ways at least."""

THIN_ROWS = 16
THIN_ROWS_OF_NIBBLES = 8
"""Up to this many rows, weights that are stored n x k are read where they lie, the fewer ones for
4 bits and 16 registers. On Zen 5 with AVX-512 12 to 24 rows by 8 bits in groups of 128 are 1.2 to
1.5 times as fast so, by 4 bits 1.05 to 1.2 times; with AVX2 12 and 16 by 8 bits 2.6 and 1.1
times, and by 4 bits 0.8 and 1.0 times."""

ROWS_PER_VECTOR = 2
"""Up to so many rows for each vector of a slice along k, whose lanes are added up for each of them:
3 and 4 rows by groups of 2 vectors are 1.2 to 2.7 times as fast so, and 12 0.7 times."""

LEAST_VECTORS = 2
LEAST_VECTORS_OF_FEW = 4
"""Of a slice where there are several rows, with 32 registers and with 16. One row may have less."""

MOST_STREAMS = 4
"""Rows of a stored B that are read at once: prefetchers follow few streams."""

MOST_VECTORS = 8
"""Vectors of a row: 128 columns of 4 bits are a cache line with vectors of 16."""

PACKED_VECTORS = 3
"""Vectors across in panels: 8 x 48 with AVX-512 and 4 x 24 with AVX2 are up to 1.05 times as fast
as 8 x 32 and 6 x 16 (measured on Zen 5 at 128 and 512 rows)."""

DEALT_LANES = 8
"""Elements of 4 bits in a word, and lanes of the vectors to which those of words are dealt."""

TABLE_LANES = 16
"""Lanes of a vector that holds a float for each number of 4 bits."""

STEPS_OF_LOOKUPS = 4
"""Unrolling of the k loop where weights are looked up (on Zen 4 2 is up to 4 % slower)."""

ASKING_STEPS = 8
"""Rows of B between two requests for some of the next tile. On Zen 5 one row by 4096 x 11008 takes
0.4 of the time so by 4 bits with AVX-512, and 0.6 by 4 and 8 bits with AVX2; 16 rows are slower."""

ASKING_ROWS = 2
"""Up to so many rows have requests with 16 registers: tiles of more are so narrow that a line is
asked for several times (AVX2 code on Zen 4: 2 rows 1.5 to 2 times as fast, 4 to 16 rows 0.95 to
1.0)."""

WEIGHT_STEPS_PER_ITERATION = 2
"""Unrolling of the k loop (measured on Zen 5: 4 is 3 % slower, for what it gains in control it
loses in code)."""


def _are_along_k(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether few rows of A go by a B that is stored n x k, in vectors along k."""
    in_rows = is_n_x_k(gemm) and not gemm.trans_a
    return in_rows and _slice(gemm) <= gemm.k and gemm.m <= _thin_rows(gemm, machine)


def _are_read_in_place(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether rows of B are vectors of n, and so few rows of A meet them that panels do not pay."""
    across = gemm.trans_b and (min(gemm.n, gemm.k) > 1 or gemm.element_b.per_byte > 1)
    return not across and gemm.m <= FEW_ROWS


def _are_in_running_sums(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether C is narrower than sums of slices, and panels of all of k pay less or do not fit."""
    is_cut = has_narrow_c(gemm) and _slice(gemm) < gemm.k
    return is_cut and (_are_read_in_place(gemm, machine) or not _fits_panels(gemm, machine))


def _microkernel_along_k(gemm: Gemm, machine: CpuMachine) -> Microkernel:
    """A slice may hold a single whole vector."""
    vectors = _slice(gemm) // machine.lanes(gemm.accumulator.item_bytes)
    return Microkernel(steps=min(max(vectors, 1), WEIGHT_STEPS_PER_ITERATION), along="k")


def _microkernel(gemm: Gemm, machine: CpuMachine) -> Microkernel:
    return Microkernel(steps=WEIGHT_STEPS_PER_ITERATION)


def _microkernel_of_dealt(gemm: Gemm, machine: CpuMachine) -> Microkernel:
    is_looked_up = lanes_of_sum(gemm, machine) == TABLE_LANES
    return Microkernel(steps=STEPS_OF_LOOKUPS if is_looked_up else 1, is_dealt=True)


def _thin_rows(gemm: Gemm, machine: CpuMachine) -> int:
    """How many rows of A are multiplied so."""
    vectors = _slice(gemm) // machine.lanes(gemm.accumulator.item_bytes)
    is_many = machine.vector_registers >= MANY_REGISTERS
    if vectors < (LEAST_VECTORS if is_many else LEAST_VECTORS_OF_FEW):
        return min(vectors, 1)
    most = THIN_ROWS if is_many or gemm.element_b.per_byte == 1 else THIN_ROWS_OF_NIBBLES
    return min(ROWS_PER_VECTOR * vectors, most)


def _are_dealt(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether a row of weights of 4 bits is dealt to 8 vectors, each with an element of a word.

    In vectors of 8 most weights then take a shuffle of bytes to become floats, and not a shift and
    a mask: on Zen 5 with AVX2 one row by 4096 x 4096 takes 0.85 of the time. More rows leave no
    registers. In vectors of 16 they take a shift and a lookup, instead of a shift, a mask and a
    conversion, which fill all pipes of Zen 4: there one row takes 0.75 of the time, and two take
    0.85. From three rows on multiply-adds take longer than either. On Zen 5 a lookup takes longer.
    """
    lanes = lanes_of_sum(gemm, machine)
    most_rows = {DEALT_LANES: 1, TABLE_LANES: 2 if has_half_pipes(machine) else 0}
    are_few = gemm.m <= most_rows.get(lanes, 0) and gemm.n >= DEALT_LANES * lanes
    in_place = not gemm.trans_b and gemm.element is gemm.accumulator
    return are_few and in_place and gemm.element_b.per_byte > 1


def _dealt(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Slices of k that have one scale, and in them as many columns as are dealt together, or two.

    Rows of 32 bytes are no stream that a prefetcher follows.
    """
    block = DEALT_LANES * lanes_of_sum(gemm, machine)
    fits = machine.vector_registers >= MANY_REGISTERS and gemm.m == 1
    columns = 2 * block if fits and gemm.n >= 2 * block else block
    yield f"tile{{loops=k sizes={_slice(gemm)}}}"
    yield f"tile{{loops=n,m sizes={columns},{gemm.m}{peel(gemm, gemm.m, columns)}}}"
    yield "promote{operand=c to=registers}"
    yield from _asked_for(gemm, machine, columns, _slice(gemm))


def _asked_for(gemm: Gemm, machine: CpuMachine, columns: int, depth: int) -> Iterator[str]:
    """Requests for later tiles of B, during a slice of `depth`.

    Where L1 has no room to spare, they bring into L2 what is not there, two tiles ahead, so that
    the line that a tile shares with the next one has come too where rows begin within a line. On
    Zen 4 1 to 16 rows by 4096 x 4096 are 1.4 to 2.5 times as fast so by 8 bits; by 4 bits 4 to 32
    rows 1.05 to 1.3 times, and 2 rows by 11008 x 4096 2.3 times as one tile ahead.

    Elsewhere they are for a B that others may push out of L3. On Zen 5 one row by 4096 x 4096 of 4
    bits, 8 MiB, is 6 % slower so where nothing else uses L3, and 1.5 times as fast in turns with
    programs that read 64 MiB.
    """
    space = space_of_next_rows(machine)
    ahead = 2 if space == "l2" else 1
    size = gemm.n * gemm.k // gemm.element_b.per_byte
    fits = gemm.n >= (ahead + 1) * columns and depth > ASKING_STEPS and depth % ASKING_STEPS == 0
    if not fits:
        return
    are_few = gemm.m <= ASKING_ROWS or machine.vector_registers >= MANY_REGISTERS
    if space == "l2" and are_few and size > machine.l2_bytes:
        yield f"tile{{loops=k sizes={ASKING_STEPS}}}"
        yield f"prefetch{{operand=b loop=n ahead={ahead} to=l2 during=m,k}}"
    elif space == "l1" and gemm.m == 1 and size >= machine.l3_bytes // 4:
        yield f"tile{{loops=k sizes={ASKING_STEPS}}}"
        yield "prefetch{operand=b loop=n ahead=1 to=l1 during=k}"


def _along_k(gemm: Gemm, machine: CpuMachine, *, even: bool) -> Iterator[str]:
    """A vector of sums for each element of C and slice of k, and one running sum of them all."""
    room = machine.vector_registers
    rows = balanced(gemm.m, 4 if room >= 32 else 2, 1)
    columns = min((room - rows) // (2 * rows + 1), MOST_STREAMS, gemm.n)
    edges = peel(gemm, rows, columns) if even else ""
    yield f"tile{{loops=n,m sizes={columns},{rows}{edges}}}"
    yield "promote{operand=c to=registers}"
    yield f"tile{{loops=k sizes={_slice(gemm)}}}"
    yield "promote{operand=c to=registers}"


def _slice(gemm: Gemm, most: int = SLICE) -> int:
    """Elements of k that have one scale, `most` of them at most where that leaves enough."""
    group = gemm.scale_depth
    divisors = (size for size in range(most, LEAST_SLICE - 1, -1) if group % size == 0)
    whole = group if group <= most else next((size for size in divisors if size % 2 == 0), group)
    return min(whole, round_up(gemm.k, 2))


def _in_registers(gemm: Gemm, machine: CpuMachine, *, even: bool) -> Iterator[str]:
    """Slices of k, then tiles that are converted as they are read."""
    rows, columns = _tile(gemm, machine)
    depth = _slice(gemm, LEAST_SLICE if _is_pushed_out(gemm, columns) else SLICE)
    yield f"tile{{loops=k sizes={depth}}}"
    edges = peel(gemm, rows, columns) if even else ""
    if gemm.element is not gemm.accumulator:
        yield f"promote{{operand=a to=l2 layout=panel:{rows} as={gemm.accumulator.name}}}"
        edges = "" if gemm.m % rows else edges  # the last panel of A is as wide as the others
    yield f"tile{{loops=n,m sizes={columns},{rows}{edges}}}"
    yield "promote{operand=c to=registers}"
    if even:
        yield from _asked_for(gemm, machine, columns, depth)


def _in_running_sums(gemm: Gemm, machine: CpuMachine, *, even: bool) -> Iterator[str]:
    """Register tiles of sums, to which those of slices of k are added: C is written once."""
    rows, columns = _tile(gemm, machine, sums=2)
    edges = peel(gemm, rows, columns) if even else ""
    item = gemm.accumulator.item_bytes
    if round_up(gemm.m, rows) * gemm.k * item <= machine.l3_bytes // 4:
        yield f"promote{{operand=a to=l3 layout=panel:{rows} as={gemm.accumulator.name}}}"
        edges = "" if gemm.m % rows else edges  # the last panel of A is as wide as the others
    yield f"tile{{loops=n,m sizes={columns},{rows}{edges}}}"
    yield "promote{operand=c to=registers}"
    yield f"tile{{loops=k sizes={_slice(gemm)}}}"
    yield "promote{operand=c to=registers}"


def _is_pushed_out(gemm: Gemm, columns: int) -> bool:
    """Whether rows of a slice of B share a set of L1, and the next tile needs their lines again.

    Short slices stay, which pays until C is read and written too often (measured on Zen 5 with
    AVX2: 1.2 times as fast at 4 and 8 rows, 1.05 times at 16, and slower at 64).
    """
    bits = gemm.element_b.bits
    is_shared = gemm.leading("b") * bits // 8 % L1_WAY_BYTES == 0
    is_half_line = columns * bits // 8 <= CACHE_LINE_BYTES // 2
    return is_shared and is_half_line and 1 < gemm.m <= SHORT_SLICE_ROWS


def _tile(gemm: Gemm, machine: CpuMachine, sums: int = 1) -> tuple[int, int]:
    """Rows and columns for which an element of C takes the fewest cycles; the widest of those.

    Each element of C has so many `sums`.
    """
    lanes = lanes_of_sum(gemm, machine)
    in_flight = 1 if gemm.element_b.per_byte > 1 else 0  # what is shifted, beside each sum
    room = (machine.vector_registers - SPARE_REGISTERS) // (sums + in_flight)
    widest = min(MOST_VECTORS, room, -(-gemm.n // lanes))

    def rows_of(vectors: int) -> int:
        most = (machine.vector_registers - vectors - SPARE_REGISTERS) // (sums * vectors)
        return balanced(gemm.m, min(max(most, 1), MOST_ROWS), 1)

    def cycles(vectors: int) -> tuple[float, int]:
        """Of one step of k: multiply-adds and a conversion of each vector, or loads."""
        rows = rows_of(vectors)
        products = (rows + 1) * vectors / machine.fma_per_cycle
        loads = (rows + vectors) * CYCLES_PER_LOAD
        tiles = -(-gemm.m // rows)
        return tiles * max(products, loads, FMA_LATENCY_CYCLES) / vectors, -vectors

    vectors = min(range(1, widest + 1), key=cycles)
    return rows_of(vectors), vectors * lanes


def _reads_a(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether A is multiplied where it lies: it is of the type of the sum, and not transposed."""
    in_rows = not gemm.trans_a or min(gemm.m, gemm.k) <= 1
    return gemm.element is gemm.accumulator and in_rows and broadcasts_from_memory(machine)


def _dequantised(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Blocks of B in L2 of the type of the sum, each multiplied by all rows of A where they lie.

    Columns come outside of k, so that C stays in L2 from slice to slice: slices outside of all
    columns read and write a C of 2 MiB from L3 each, which halved the speed at 128 rows.
    """
    lanes, item = lanes_of_sum(gemm, machine), gemm.accumulator.item_bytes
    vectors = min(PACKED_VECTORS, -(-gemm.n // lanes))
    columns, rows = vectors * lanes, min(most_rows(machine, vectors), PACKED_ROWS, gemm.m)
    kc = _depth(gemm, K_SLICE_BYTES // item)
    nc = balanced(gemm.n, max(machine.l2_bytes // 2 // (kc * item), 1), columns)
    if nc < gemm.n:
        yield f"tile{{loops=n sizes={nc}{peel_loop(gemm.n, nc)}}}"
    if kc < gemm.k:
        yield f"tile{{loops=k sizes={kc}}}"
    yield f"promote{{operand=b to=l2 layout=panel:{columns} as={gemm.accumulator.name}}}"
    yield f"tile{{loops=m sizes={rows}{peel_loop(gemm.m, rows)}}}"
    yield f"tile{{loops=n sizes={columns}}}"
    if gemm.m >= 2 * rows:
        yield "prefetch{operand=a loop=m ahead=1 to=l1 during=n}"
    yield "promote{operand=c to=registers prefetch=true}"


def _packed_tile(gemm: Gemm, machine: CpuMachine) -> tuple[int, int]:
    """Rows and columns of a register tile of panels of both."""
    lanes = lanes_of_sum(gemm, machine)
    vectors = min(2, -(-gemm.n // lanes))
    return balanced(gemm.m, most_rows(machine, vectors), 1), vectors * lanes


def _fits_panels(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether panels of all of k have room in the last cache."""
    widest = max(_packed_tile(gemm, machine))
    return widest * gemm.k * gemm.accumulator.item_bytes <= machine.l3_bytes // 4


def _packed_both(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Panels of A in L3 and blocks of B in L2, both of the type of the sum."""
    item = gemm.accumulator.item_bytes
    rows, columns = _packed_tile(gemm, machine)
    kc = gemm.k if has_narrow_c(gemm) else _depth(gemm, K_SLICE_BYTES // item)
    mc = balanced(gemm.m, max(machine.l3_bytes // 8 // (kc * item), 1), rows)
    nc = balanced(gemm.n, max(machine.l2_bytes // 2 // (kc * item), 1), columns)
    space = "l2" if nc * kc * item <= machine.l2_bytes // 2 else "l3"
    made = "" if gemm.element is gemm.accumulator else f" as={gemm.accumulator.name}"
    yield f"tile{{loops=m,k sizes={mc},{kc}}}"
    yield f"promote{{operand=a to=l3 layout=panel:{rows}{made}}}"
    yield f"tile{{loops=n sizes={nc}}}"
    yield f"promote{{operand=b to={space} layout=panel:{columns} as={gemm.accumulator.name}}}"
    yield f"tile{{loops=m,n sizes={rows},{columns}}}"
    yield "promote{operand=c to=registers prefetch=true}"


def _depth(gemm: Gemm, most: int) -> int:
    """Elements of k in a block of B, about `most`: whole groups, or a part of one."""
    size = _slice(gemm, most)
    count = max(most // size, 1) if size == gemm.scale_depth else 1
    return min(count * size, round_up(gemm.k, 2))


def _class_along_k(*, even: bool) -> ScheduleClass:
    loops = partial(_along_k, even=even)
    return ScheduleClass(name="weights along k", loops=loops, microkernel=_microkernel_along_k)


def _class_in_running_sums(*, even: bool) -> ScheduleClass:
    loops = partial(_in_running_sums, even=even)
    return ScheduleClass(name="weights in running sums", loops=loops, microkernel=_microkernel)


def _class_in_registers(*, even: bool) -> ScheduleClass:
    loops = partial(_in_registers, even=even)
    return ScheduleClass(name="weights in registers", loops=loops, microkernel=_microkernel)


DEALT = ScheduleClass(name="weights dealt", loops=_dealt, microkernel=_microkernel_of_dealt)


IN_BLOCKS = ScheduleClass(name="weights in blocks", loops=_dequantised, microkernel=_microkernel)


IN_PANELS = ScheduleClass(name="weights in panels", loops=_packed_both, microkernel=_microkernel)


EVEN_WEIGHTS: Final[Rules] = (
    (_class_along_k(even=True), _are_along_k),
    (DEALT, _are_dealt),
    (_class_in_running_sums(even=True), _are_in_running_sums),
    (_class_in_registers(even=True), _are_read_in_place),
    (IN_BLOCKS, _reads_a),
    (IN_PANELS, otherwise),
)
"""Weights where every core has as much as another."""

UNEVEN_WEIGHTS: Final[Rules] = (
    (_class_along_k(even=False), _are_along_k),
    (_class_in_running_sums(even=False), _are_in_running_sums),
    (_class_in_registers(even=False), _are_read_in_place),
    (IN_PANELS, otherwise),
)
"""Weights where some cores have fewer rows or columns than others."""
