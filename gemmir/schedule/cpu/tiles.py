"""Register tiles: which ones a CPU holds, what one costs, and which one a schedule uses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.model import (
    CACHE_LINE_BYTES,
    ROOMY_L1_BYTES,
    balanced,
    broadcasts_from_memory,
    bytes_of,
    bytes_of_row,
    has_half_pipes,
    has_masks,
    item_bytes,
    lanes_used,
    multiply_adds_per_cycle,
    round_up,
    rows_in_l1,
)

FMA_LATENCY_CYCLES = 4
"""Cycles until the sum of a fused multiply-add can be added to again: 4 on Intel since Skylake and
on AMD since Zen 3, and 5 before (uops.info, VFMADD231PS)."""

LOADS_PER_CYCLE = 2
"""Vector loads a cycle on the same CPUs."""

TILE_OVERHEAD_CYCLES = 16
"""Cycles a register tile costs beside its multiply-adds, where the next one can begin early."""

OVERLAP = 6
"""How well multiply-adds, loads and latencies hide each other. This and the overhead are fitted to
all tiles of 13 squares of 16 to 200 in f32 and f64, with AVX2 and AVX-512 on Zen 5: what the model
chooses is 1.2 % slower than the best of them on average, and 4.6 % at most."""

PACKED_ROWS = 8
"""Rows of A that are read where they lie: if they are pages apart, each takes a way of the same
sets of L1, which has 8 to 12 (on Zen 5, 8 x 32 is ahead of 10 and 12 x 32 from 1024 cubed on)."""

MOST_VECTORS = 3
"""With AVX-512. Tiles of 4 vectors have few rows and read B more often than the model knows, which
would take them for some squares: on Zen 5 up to 5 % slower at 128 cubed in f64."""

MASKED_ROW_CYCLES = 6
"""For a row of a last tile with masks where they are slow: with AVX2 on Zen 5 4 to 8 cycles. 152 x
38 x 344 in f32 is 1.07 times as fast with them as with tiles that begin earlier, 124 x 37 x 27 1.1,
and 300 x 29 x 64 0.97, which keeps those."""

MANY_REGISTERS = 32
"""Those of AVX-512 and AArch64."""

WIDE_VECTORS = 4
"""With 16 registers. 3 x 32 of f32 on AVX2 holds elements of A and takes one vector of B after
another, so that 12 sums, 3 elements and a vector fill all of them. Rows that remain have more sums
than those of 6 x 16: 32 cubed is 1.03 times as fast on Zen 5, and 1.04 times in f64. With AVX-512
where narrower tiles leave a single vector."""

LONE_ROWS = 10
"""With AVX-512 a single tile may have a few more: 9 and 10 rows by 2 vectors."""

SMALL_TILES = (4, 3, 5)
"""Rows of tiles of 12 sums with 16 registers, or of 10, those with the fewest loads first."""

STREAMS = 8
"""Rows of A that are read together: as many streams as the hardware prefetchers follow, and as many
lines as have room in a set of L1 beside others where rows are a power of two apart."""

FEW_ROWS = 6
FEW_ROWS_VECTORS = 8
"""With AVX-512: sums of up to so many rows are too few in narrower tiles, and wait for one another.
On Zen 5 1 to 4 rows by 64 and 256 columns and k of f32 and f64 are 1.02 to 1.7 times as fast, by
128 as fast or up to 1.03 times, and 5 and 6 rows up to 1.04 times."""


LINE_CYCLES = 2
"""Of a line that comes from L2 to an L1 that is not roomy. Fitted to 120 products of up to 135 rows
and columns with A as it is or stored k x m, in f32 and f64 on Zen 4, which have as many columns as
vectors of half a line or whole ones are better for: those that are chosen are 0.4 % slower than the
better ones on average, and were 1.5 % without. 25 x 117 x 96 with such an A is 1.08 times as fast,
115 x 119 x 250 1.15 and 26 x 59 x 100 in f64 1.24."""

HALF_VECTORS = 5
"""Vectors of half a line that a tile is wide, with 32 registers: 40 cubed in f32 is 1.08 times as
fast by 5 x 40 as by 8 x 24 on Zen 4."""

HALVES_GAIN = 1.04
"""By how much vectors of half a line have to be faster by the model: they are twice as many."""


@dataclass(frozen=True, kw_only=True)
class RegisterTile:
    """An accumulator tile of `rows` by `vectors` vectors of `lanes` elements."""

    rows: int
    vectors: int
    lanes: int

    @property
    def columns(self) -> int:
        """Elements of a row."""
        return self.vectors * self.lanes

    def cycles_per_k(self, per_cycle: int, loads_of_b: int, lines: float = 0) -> float:
        """Cycles for one step of k: multiply-adds, loads, or the latency of one sum.

        The longest decides, and those that are nearly as long delay it, as a norm of high degree
        has it. There are `per_cycle` multiply-adds a cycle. A vector of B takes `loads_of_b`, 2
        where it lies in two lines. So many `lines` come from L2.
        """
        products = self.rows * self.vectors / per_cycle
        loads = (self.rows + self.vectors * loads_of_b) / LOADS_PER_CYCLE
        parts = (products, loads, FMA_LATENCY_CYCLES, LINE_CYCLES * lines)
        return sum(part**OVERLAP for part in parts) ** (1 / OVERLAP)


def register_tiles(machine: CpuMachine, lanes: int, widest: int) -> Iterator[RegisterTile]:
    """Every tile of up to `widest` vectors that leaves room for a row of B and elements of A."""
    for vectors in range(1, widest + 1):
        for rows in range(1, most_rows(machine, vectors) + 1):
            yield RegisterTile(rows=rows, vectors=vectors, lanes=lanes)


def most_rows(machine: CpuMachine, vectors: int) -> int:
    """Rows of a tile `vectors` wide: its sums take three quarters of the registers at most.

    More would fit, but LLVM loads ahead and would spill them. Beside sums there are a row of B and
    an element of A, or where they are fewer the elements of a column of A and a vector of B.
    """
    registers = machine.vector_registers
    by_rows = (registers - 1 - vectors) // vectors
    by_columns = min((registers - 1) // (vectors + 1), vectors)
    return min(max(by_rows, by_columns), registers * 3 // 4 // vectors)


def most_vectors(machine: CpuMachine) -> int:
    """How many vectors wide tiles are at most."""
    return WIDE_VECTORS if machine.vector_registers < MANY_REGISTERS else MOST_VECTORS


def widest_tile(gemm: Gemm, machine: CpuMachine) -> RegisterTile:
    """As many vectors of a row as a tile may have, and as many rows as there is room for."""
    lanes = lanes_used(gemm, machine)
    vectors = min(most_vectors(machine), -(-gemm.n // lanes))
    return RegisterTile(rows=min(most_rows(machine, vectors), gemm.m), vectors=vectors, lanes=lanes)


def streaming_tile(gemm: Gemm, machine: CpuMachine) -> RegisterTile:
    """A tile whose rows of A are streams: at most `STREAMS`, and two vectors wide, or all of 3.

    One vector of 8 rows has as many sums as multiply-adds wait for, with none to spare. By an A
    that no prefetcher has to bring from memory it has more: with AVX-512 on Zen 5 n of 16 in f32 is
    1.1 to 1.3 times as fast by 12 to 24 rows, two of which are read several elements at a time.
    """
    lanes = lanes_used(gemm, machine)
    total = round_up(gemm.n, lanes) // lanes
    vectors = total if total <= 3 else 2
    is_near = bytes_of(gemm, "a") <= machine.l3_bytes // 2
    if vectors == 1 and is_near and has_masks(machine):
        return direct_tile(gemm, machine, gemm.k)
    rows = min(STREAMS, most_rows(machine, vectors), gemm.m)
    return RegisterTile(rows=rows, vectors=vectors, lanes=lanes)


def direct_tile(gemm: Gemm, machine: CpuMachine, kc: int) -> RegisterTile:
    """The tile that takes the fewest cycles for `kc` steps of k, with the tiles at the edges.

    Its vectors have half the lanes where that takes less time.
    """
    return _of_best_lanes(gemm, machine, kc)[1]


def direct_cycles(gemm: Gemm, machine: CpuMachine) -> float:
    """What a product with such tiles takes where A and B lie near."""
    return _of_best_lanes(gemm, machine, gemm.k)[0]


def lanes_of_direct(gemm: Gemm, machine: CpuMachine, tile: RegisterTile) -> int | None:
    """Lanes of the vectors of a direct `tile`, None for as many as others have."""
    return tile.lanes if fills_half(gemm, machine) else None


def fills_half(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether last columns fill half of a vector at most, and vectors of half of one are as fast.

    Then a row of those has a whole vector less to multiply.
    """
    lanes = machine.lanes(item_bytes(gemm))
    return has_half_pipes(machine) and gemm.n > lanes and 0 < gemm.n % lanes <= lanes // 2


def _of_best_lanes(gemm: Gemm, machine: CpuMachine, kc: int) -> tuple[float, RegisterTile]:
    whole = _fastest(gemm, machine, kc, cut=cuts_columns(gemm, machine))
    if not fills_half(gemm, machine):
        return whole
    halves = _fastest(gemm, machine, kc, cut=True, lanes=lanes_used(gemm, machine) // 2)
    return halves if HALVES_GAIN * halves[0] < whole[0] else whole


def _fastest(
    gemm: Gemm, machine: CpuMachine, kc: int, *, cut: bool, lanes: int | None = None
) -> tuple[float, RegisterTile]:
    """The tile with the fewest cycles, and those, where last columns are `cut` or not."""
    is_half = lanes is not None
    lanes = lanes or lanes_used(gemm, machine)
    columns = max(gemm.n, 1)
    widest = -(-columns // lanes) if cut else columns // lanes
    loads_of_b = lines_of_vector(gemm, machine, lanes)
    per_cycle = multiply_adds_per_cycle(machine, lanes * item_bytes(gemm))
    has_slow_masks = cut and columns % lanes != 0 and not has_masks(machine)
    masked = MASKED_ROW_CYCLES * gemm.m if has_slow_masks else 0

    def cycles(tile: RegisterTile) -> float:
        lines = _lines_from_l2(gemm, machine, tile, kc)
        return masked + sum(
            count * (kc * part.cycles_per_k(per_cycle, loads_of_b, lines) + TILE_OVERHEAD_CYCLES)
            for part, count in _parts(gemm, tile, cut=cut, even=has_even_rows(machine))
        )

    most = most_vectors(machine)
    if is_half:
        most = HALF_VECTORS
    elif has_masks(machine) and gemm.m <= FEW_ROWS:
        most = FEW_ROWS_VECTORS
    elif has_masks(machine) and _leaves_one(-(-columns // lanes)):
        most = WIDE_VECTORS
    tallest = min(max(gemm.m, 1), rows_apart(gemm, machine))
    fitting = (
        t
        for t in register_tiles(machine, lanes, most)
        if t.rows <= tallest and t.vectors <= max(widest, 1)
    )
    return min(((cycles(tile), tile) for tile in fitting), key=lambda found: found[0])


def _lines_from_l2(gemm: Gemm, machine: CpuMachine, tile: RegisterTile, kc: int) -> float:
    """Lines of A and B that a step of k takes from L2, on average, where they are multiplied whole.

    Those of A are of each step where it is stored k x m, and else of as many as they have elements.
    """
    room = machine.l1_bytes * 3 // 4
    is_between = room < bytes_of(gemm, "ab") <= machine.l2_bytes // 2
    if machine.l1_bytes >= ROOMY_L1_BYTES or not is_between:
        return 0
    item = item_bytes(gemm)
    of_a, of_b = (
        -(-size * item // CACHE_LINE_BYTES) + (bytes_of_row(gemm, name) % CACHE_LINE_BYTES != 0)
        for size, name in ((tile.rows, "a"), (tile.columns, "b"))
    )
    if not gemm.trans_a:
        of_a = tile.rows * item / CACHE_LINE_BYTES
    if bytes_of(gemm, "b") <= machine.l1_bytes // 2:
        return of_a / max(-(-gemm.n // tile.columns), 1)
    block = kc * of_b * CACHE_LINE_BYTES
    down = max(-(-gemm.m // tile.rows), 1)
    if bytes_of(gemm, "a") + block <= room:
        return of_b / down
    if tile.rows * kc * item + block <= room:
        return of_a + of_b / down
    return of_a + of_b


def rows_apart(gemm: Gemm, machine: CpuMachine) -> int:
    """How many rows of A a tile may read where they lie: each keeps a line in L1, beside B and C.

    With AVX-512 on Zen 5 64 x 16 x 1024 in f32, whose rows are 4096 bytes apart, is 2.3 times as
    fast by 8 rows as by 22; with AVX2 16 x 16 x 16384 is 1.1 times as fast by 6 rows as by 4. Zen 4
    has 8 ways, and multiplies longer by each line: 32 x 32 x 4096 in f32 is 1.025 times as fast by
    8 rows as by 4, 32 x 32 x 2048 in f64 1.025 to 1.06.
    """
    if gemm.trans_a:
        return machine.vector_registers
    most = -(-rows_in_l1(bytes_of_row(gemm, "a"), machine) * 2 // 3)
    return max(most, STREAMS) if has_half_pipes(machine) else most


def lines_of_vector(gemm: Gemm, machine: CpuMachine, lanes: int) -> int:
    """How many cache lines a vector of B lies in, and one of C: 2 where a line ends inside it."""
    whole = min(lanes * item_bytes(gemm), CACHE_LINE_BYTES)
    is_cut = bytes_of_row(gemm, "b") % whole != 0
    return 2 if is_cut and machine.vector_bytes >= CACHE_LINE_BYTES else 1


def _leaves_one(vectors: int) -> bool:
    """Whether tiles of 2 and of 3 vectors leave a single one of a row of C, and those of 4 do not.

    A tile of one vector waits for its elements of A. On Zen 5 with AVX-512, 100 cubed in f32 is 4 %
    faster with 6 x 64 than with 10 x 32.
    """
    return vectors % 2 == vectors % 3 == 1 and vectors % 4 != 1


def _parts(
    gemm: Gemm, tile: RegisterTile, *, cut: bool, even: bool
) -> Iterator[tuple[RegisterTile, int]]:
    """The tiles that C is cut into, those of the last rows and columns too, and how many.

    Last columns that are not `cut` take a whole tile.
    """
    across, last_columns = divmod(max(gemm.n, 1), tile.columns)
    last_vectors = -(-last_columns // tile.lanes) if cut or not last_columns else tile.vectors
    for rows, count in _rows(gemm, tile.rows, even=even):
        for vectors, times in ((tile.vectors, across), (last_vectors, 1)):
            if rows and vectors and count * times:
                yield replace(tile, rows=rows, vectors=vectors), count * times


def _rows(gemm: Gemm, most: int, *, even: bool) -> Iterator[tuple[int, int]]:
    """Of how many rows tiles are, and how many there are of each."""
    if even:
        least, larger = divmod(gemm.m, max(-(-gemm.m // most), 1))
        yield from ((least + 1, larger), (least, -(-gemm.m // most) - larger))
        return
    down, last = divmod(gemm.m, most)
    yield from ((most, down), (last, 1))


def has_even_rows(machine: CpuMachine) -> bool:
    """Whether tiles of rows get even sizes where they do not come out even.

    The last tile would otherwise have a few sums, which wait for one another: on AVX2 64 rows by 3
    leave one, and by 6 four. With many registers a tile of few rows can be wider.
    """
    return machine.vector_registers < MANY_REGISTERS


def even_rows(rows: int, machine: CpuMachine) -> int:
    """Rows of a tile that reads B from a cache, where the last one is not to be much smaller.

    Up to so many as two vectors of each have sums for they are a tile, that reads B once: with
    AVX-512 9 and 10 rows are 1.2 to 1.5 times as fast on Zen 5 as 8 and a last tile of 1 and 2.
    Others are equal, or nearly so: 18 rows are 3 times 6.
    """
    if machine.vector_registers >= MANY_REGISTERS:
        lone = LONE_ROWS if broadcasts_from_memory(machine) else PACKED_ROWS
        return rows if rows <= lone else balanced(rows, PACKED_ROWS, 1)
    most = most_rows(machine, 2)
    return rows if rows <= most else min(SMALL_TILES, key=lambda size: round_up(rows, size))


def cuts_columns(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether the last columns get a narrower tile: of whole vectors, or with masks.

    Where masks are slow a whole tile may be computed that begins earlier, unless beta C is added.
    """
    whole = gemm.n % lanes_used(gemm, machine) == 0
    if gemm.beta != 0 or whole or has_masks(machine):
        return True
    if not broadcasts_from_memory(machine):
        return False
    cut, uncut = (_fastest(gemm, machine, gemm.k, cut=cut)[0] for cut in (True, False))
    return cut < uncut


def packed_tile(gemm: Gemm, machine: CpuMachine, vectors: int | None = None) -> RegisterTile:
    """Two vectors and a cache line wide, and as many rows as the registers hold, up to 8.

    That is 6 x 16 for f32 on AVX2 and NEON, and 8 x 32 on AVX-512, or 8 x 48 where C is cut into
    whole tiles with no more left over: on Zen 5 it is 0 to 1.6 % faster at 768 and 1536 cubed.
    One vector more is a tile of fewer rows, rather than one of two and a single one. `vectors`
    decides the width where it is given.
    """
    lanes = lanes_used(gemm, machine)
    least = max(2, CACHE_LINE_BYTES // machine.vector_bytes)
    total = -(-max(gemm.n, 1) // lanes)
    widths = [v for v in (least, least + 1) if v * PACKED_ROWS <= machine.vector_registers * 3 // 4]
    if vectors is None and total == least + 1:
        vectors = total
    elif vectors is None:
        vectors = min(widths or [least], key=lambda v: (round_up(gemm.n, v * lanes), -v))
    vectors = min(vectors, total)
    rows = min(most_rows(machine, vectors), PACKED_ROWS, max(gemm.m, 1))
    return RegisterTile(rows=rows, vectors=vectors, lanes=lanes)
