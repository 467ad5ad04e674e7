"""Schedules for CPUs of any number of rows, where n and k are known.

Few rows have a version for each number of them, with the schedule of a problem of so many rows,
which reads B once. More rows are cut into full tiles and one of what remains, or into tiles of even
sizes. Up to some dozens or hundreds B is read where it lies: a sliver of it that is as wide as a
tile stays in L2 for all rows. Where its rows lie a power of two apart and fall into few sets of the
cache, small blocks of it are copied, by the first tile of rows where vectors are a line. Many rows
meet larger blocks in L2, and so do all where vectors cannot read B as it lies.

Sums go on from one slice of k to the next (`carry`), so that a row has the same bits however many
there are, whichever version takes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.any_size import LARGE, End
from gemmir.schedule.cpu.classes import plain_class_of
from gemmir.schedule.cpu.copied import copied_any, filled_any, fills_blocks, most_filled_rows
from gemmir.schedule.cpu.model import (
    CACHE_LINE_BYTES,
    K_STEPS_PER_ITERATION,
    ROOMY_L1_BYTES,
    balanced,
    broadcasts_from_memory,
    bytes_of,
    bytes_of_row,
    item_bytes,
    lanes_used,
    rows_in_l1,
    with_size,
)
from gemmir.schedule.cpu.packed import asks_in_sums, block_of, packed_both, slice_of
from gemmir.schedule.cpu.schedule_class import Microkernel
from gemmir.schedule.cpu.sliced import SLICE_STEPS
from gemmir.schedule.cpu.streamed import STREAMED, asks_for_slices
from gemmir.schedule.cpu.tiles import (
    PACKED_ROWS,
    RegisterTile,
    has_even_rows,
    most_rows,
    packed_tile,
)

EXACT_ROWS = 8
"""So few rows wait for B all of the time: each number of them has a version, which streams it."""

EVEN_STREAMS = (9, 12, 16)
"""Rows with a version of their own where a tile has 4 at most: a stream of them has no smaller last
tile. 3072 x 768 by 9 and 12 of them takes 0.86 and 0.9 of the time of blocks, and by 10 and 11 a
little more (measured on Zen 5 with AVX2)."""

UNPACKED_ROWS = 48
"""Up to this many rows copying a B costs more than its conflicts in L1, where a vector is a whole
cache line (measured on Zen 5: 48 rows of 3072 x 768 are 1.05 times as fast, 64 rows 0.82 times)."""

UNFILLED_ROWS = 32
"""Likewise where the first rows fill the blocks: those by 33 and 48 rows of 3072 x 768 are 1.1 to
1.3 times as fast on Zen 4 as B where it lies."""

FILLED_ROWS = 256
"""Up to this many rows the first fill blocks in L1: on Zen 4 they take as long by 256 rows of 3072
x 768 as blocks in L2, and by 1000 rows 1.1 times as long."""

READ_ROWS = 256
"""Up to this many rows a B whose rows do not collide is read where it lies. On Zen 4 with AVX-512
1000 cubed takes 1.12 times as long so as by blocks in L2, and 257 rows as long."""

UNPACKED_EVEN_ROWS = 128
"""Up to this many rows B is read in place, or copied into L1, with 16 registers. On Zen 4 with AVX2
256 rows by 1000 x 1000 and by 3072 x 768 are 1.08 to 1.35 times as fast by blocks in L2, and 1000
rows 1.1 to 1.3 times."""

FEW_VECTORS = 4
"""Columns of a single tile of 6 to 8 rows, in vectors, where the registers hold so many."""

EXACT_SLICES = (*range(9, 17), 24, 32)
"""Rows with a version of their own where streams ask for the next rows of B: they hold C in panels,
which have to be of known size. On Zen 4 9, 16 and 32 rows by 4096 x 4096 take 2, 1.8 and 1.25 times
as long where B is read in place, and 1.9, 1.5 and 1.2 times by blocks that the first rows fill."""

LEAST_FEW_ROWS = 6
"""So many rows are such a tile where B is in L3: 6, 7 and 8 rows of 3072 x 768 take 0.81 to 0.92 of
the time of streaming B so. From memory they take longer: 8 rows of 4096 x 4096 1.3 times as long
(measured on Zen 5). On Zen 4 they take up to 1.08 times as long in f32, and in bf16 0.86 times."""

FEW_TILES = 4
"""Tiles across of which a slice of k is computed before the next: C stays near until then. Half and
twice as many are as fast."""

K_SLICE = 512
"""Elements of k of a sliver of B that is read where it lies, 96 KiB of f32 with 48 columns, and
twice those of a packed one (measured on Zen 5)."""

LEAST_ROWS_IN_L1 = 32
"""If L1 holds less rows of B at the same time, they drive each other out."""

ANCHOR = "promote{operand=c to=registers"
CARRIED = f"{ANCHOR} carry=true"


@dataclass(frozen=True, kw_only=True)
class AnyRows:
    """How products of any number of rows are cut into versions.

    `static` gives all passes of a problem whose sizes are known, `end` those behind the loops and
    copies of one.
    """

    gemm: Gemm
    machine: CpuMachine
    threads: int
    static: Callable[[Gemm], Iterator[str]]
    end: End

    def passes(self) -> Iterator[str]:
        """All passes."""
        whole = self.gemm.at(m=LARGE)
        for rows in self._exact_rows(whole):
            yield f"version{{loops=m sizes={rows}}}"
            yield from self._carried(self._exact(rows, whole))
            yield "otherwise"
        part = self._share(whole)
        for most, steps, loops in self._some_rows(part):
            yield f"version{{loops=m most={most}}}"
            yield from self._outer(whole)
            yield from self._carried([*loops, *self.end(part, Microkernel(steps=steps))])
            yield "otherwise"
        loops = self._in_l2(part) if self._is_packed(part) else self._loops(part)
        yield from self._outer(whole)
        yield from self._carried([*loops, *self.end(part, Microkernel())])

    def _some_rows(self, gemm: Gemm) -> Iterator[tuple[int, int, Iterator[str]]]:
        """Loops and copies of some rows, up to how many, and unrolling of k."""
        fills, collides = self._fills(gemm), self._has_conflicts(gemm)
        if collides and self._has_full_lines(gemm) and not (fills and self._waits(gemm)):
            most = UNFILLED_ROWS if fills else UNPACKED_ROWS
            yield most, SLICE_STEPS, self._unpacked(gemm, "even")
        if fills:
            yield self._filled_rows, K_STEPS_PER_ITERATION, filled_any(gemm, self.machine)
        elif self._asks(gemm) and not gemm.trans_b and not collides:
            yield READ_ROWS, K_STEPS_PER_ITERATION, self._unpacked(gemm, self._last_rows)
        elif self._is_packed(gemm):
            yield UNPACKED_EVEN_ROWS, K_STEPS_PER_ITERATION, self._loops(gemm)

    def _fills(self, gemm: Gemm) -> bool:
        """Whether some rows meet blocks that the first of them fill."""
        return self._is_copied(gemm) and fills_blocks(gemm.at(m=self._filled_rows), self.machine)

    @property
    def _filled_rows(self) -> int:
        """Up to how many rows they do, which is no more than where their number is known."""
        return min(FILLED_ROWS, most_filled_rows(self.machine))

    def _asks(self, gemm: Gemm) -> bool:
        """Whether sums of many rows by blocks in L2 ask for C, line by line."""
        if 0 in (gemm.n, gemm.k) or gemm.element is not gemm.accumulator:
            return False
        in_place = broadcasts_from_memory(self.machine) and not gemm.trans_a
        is_wide = gemm.n > packed_tile(gemm, self.machine).columns
        return (
            in_place and is_wide and asks_in_sums(gemm, self.machine, slice_of(gemm, self.machine))
        )

    def _is_packed(self, gemm: Gemm) -> bool:
        """Whether many rows meet blocks in L2 with few registers: B does not stay there by itself.

        C is asked for before each sum begins.
        """
        if gemm.trans_a or gemm.trans_b or gemm.element is not gemm.accumulator:
            return False
        machine = self.machine
        few = has_even_rows(machine) and broadcasts_from_memory(machine)
        is_large = bytes_of(gemm, "b") > machine.l2_bytes // 2
        return few and is_large and gemm.n > self._tile(gemm).columns

    def _exact(self, rows: int, whole: Gemm) -> Iterator[str]:
        """All passes for so many rows: those of the problem, or wide tiles where B is in L3."""
        is_near = bytes_of(whole, "b") <= self.machine.l3_bytes // 2
        is_read = self._has_conflicts(whole) and self._has_full_lines(whole)
        is_read &= self.machine.l1_bytes >= ROOMY_L1_BYTES or whole.element is not whole.accumulator
        if rows < LEAST_FEW_ROWS or not is_near or not is_read or self.threads > 1:
            yield from self.static(self.gemm.at(m=rows))
            return
        yield from self._few(whole, rows)
        yield from self.end(whole, Microkernel())

    def _exact_rows(self, gemm: Gemm) -> Sequence[int]:
        """Numbers of rows that have a version: few, where they wait for B.

        One row is a product of a vector in any case.
        """
        if bytes_of(gemm, "b") <= self.machine.l2_bytes // 2:
            return (1,)
        few, share = range(1, EXACT_ROWS + 1), self._share(gemm)
        if self._waits(share):
            return (*few, *EXACT_SLICES)
        is_streamed = has_even_rows(self.machine) and self._is_copied(share)
        return (*few, *(EVEN_STREAMS if is_streamed else ()))

    def _waits(self, gemm: Gemm) -> bool:
        """Whether so many rows are streams that ask for the next rows of B."""
        if gemm.element is not gemm.accumulator or not asks_for_slices(gemm, self.machine):
            return False
        return plain_class_of(gemm.at(m=EXACT_SLICES[-1]), self.machine) is STREAMED

    def _is_copied(self, gemm: Gemm) -> bool:
        """Whether many rows meet blocks of B that are copied into L1."""
        in_place = not gemm.trans_b and broadcasts_from_memory(self.machine)
        return in_place and gemm.element is gemm.accumulator and self._has_conflicts(gemm)

    def _outer(self, gemm: Gemm) -> Iterator[str]:
        """Each core has columns of its own: those are known."""
        if self.threads > 1 and gemm.n:
            yield f"tile{{loops=n sizes={self._columns_each(gemm)} over=cores}}"

    def _columns_each(self, gemm: Gemm) -> int:
        columns = packed_tile(gemm, self.machine).columns
        return -(-gemm.n // (self.threads * columns)) * columns

    def _share(self, gemm: Gemm) -> Gemm:
        """The problem of one core."""
        if self.threads == 1 or not gemm.n:
            return gemm
        return with_size(gemm, {"n": min(self._columns_each(gemm), gemm.n)})

    def _has_conflicts(self, gemm: Gemm) -> bool:
        """Whether rows of B fall into few sets of L1."""
        return rows_in_l1(bytes_of_row(gemm, "b"), self.machine) < LEAST_ROWS_IN_L1

    def _has_full_lines(self, gemm: Gemm) -> bool:
        """Whether a vector is a whole cache line, and rows of B can be read by vectors."""
        return self.machine.vector_bytes == CACHE_LINE_BYTES and not gemm.trans_b

    def _loops(self, gemm: Gemm) -> Iterator[str]:
        """Loops and copies for more rows than have versions."""
        if 0 in (gemm.n, gemm.k):
            yield from self._unpacked(gemm, self._last_rows)
        elif gemm.element is not gemm.accumulator:
            yield from packed_both(gemm, self.machine)
        elif self._asks(gemm) and (self._fills(gemm) or not self._is_copied(gemm)):
            yield from self._asking(gemm)
        elif self._is_copied(gemm):
            yield from copied_any(gemm, self.machine)
        elif gemm.trans_b or self._has_conflicts(gemm):
            yield from self._packed(gemm)
        else:
            yield from self._unpacked(gemm, self._last_rows)

    @property
    def _last_rows(self) -> str:
        """What becomes of rows that are no full tile."""
        return "even" if has_even_rows(self.machine) else "exact"

    def _tile(self, gemm: Gemm) -> RegisterTile:
        """Three vectors wide, where C has so many columns, so that A is read less often."""
        lanes = lanes_used(gemm, self.machine)
        vectors = max(min(3, gemm.n // lanes), 1)
        return RegisterTile(rows=most_rows(self.machine, vectors), vectors=vectors, lanes=lanes)

    def _unpacked(self, gemm: Gemm, last_rows: str) -> Iterator[str]:
        """Slivers of B, which stay in L2 while all rows of A go by."""
        tile = self._tile(gemm)
        yield from self._slices(gemm, K_SLICE)
        yield f"tile{{loops=n sizes={tile.columns} edges=peel}}"
        yield f"tile{{loops=m sizes={tile.rows} edges={last_rows}}}"
        yield f"{ANCHOR}}}"

    def _few(self, gemm: Gemm, rows: int) -> Iterator[str]:
        """One wide tile of so many `rows`: some slivers of B for a short slice of k.

        B comes from L3, row by row of a block.
        """
        lanes, machine = lanes_used(gemm, self.machine), self.machine
        fitting = [v for v in range(1, FEW_VECTORS + 1) if most_rows(machine, v) >= rows]
        vectors = max(min(fitting[-1], gemm.n // lanes), 1)
        columns = vectors * lanes
        block = FEW_TILES * columns
        if gemm.n > block:
            yield f"tile{{loops=n sizes={block} edges=peel}}"
        yield from self._slices(gemm, machine.l1_bytes // 2 // (columns * item_bytes(gemm)))
        yield f"tile{{loops=n sizes={columns} edges=peel}}"
        yield f"tile{{loops=m sizes={rows}}}"
        yield f"{ANCHOR}}}"

    def _packed(self, gemm: Gemm) -> Iterator[str]:
        """Blocks of B packed into L2, and rows of A read where they lie."""
        tile, machine = packed_tile(gemm, self.machine), self.machine
        slice_bytes = balanced(gemm.k, K_SLICE // 2, K_STEPS_PER_ITERATION) * item_bytes(gemm)
        columns = tile.columns
        block = balanced(gemm.n, machine.l2_bytes // 2 // slice_bytes, columns)
        yield from self._slices(gemm, K_SLICE // 2)
        yield f"tile{{loops=n sizes={block}}}"
        yield f"promote{{operand=b to=l2 layout=panel:{columns}}}"
        yield f"tile{{loops=m sizes={tile.rows} edges={self._last_rows}}}"
        yield f"tile{{loops=n sizes={columns}}}"
        is_even = self.gemm.n % max(gemm.n, 1) == 0
        if is_even and gemm.n % block == 0 and block % columns == 0 and block > columns:
            yield "prefetch{operand=c loop=n ahead=1}"
            yield f"{ANCHOR}}}"
        else:
            yield f"{ANCHOR} prefetch=true}}"

    def _in_l2(self, gemm: Gemm) -> Iterator[str]:
        """Such blocks for many rows, in panels of three vectors."""
        tile, kc = self._tile(gemm), balanced(gemm.k, K_SLICE // 2, K_STEPS_PER_ITERATION)
        columns = tile.columns
        block = balanced(gemm.n, self.machine.l2_bytes // 2 // (kc * item_bytes(gemm)), columns)
        if block < gemm.n:
            yield f"tile{{loops=n sizes={block} edges=peel}}"
        yield from self._slices(gemm, K_SLICE // 2)
        yield f"promote{{operand=b to=l2 layout=panel:{columns}}}"
        yield f"tile{{loops=m sizes={tile.rows} edges={self._last_rows}}}"
        yield f"tile{{loops=n sizes={columns}}}"
        yield f"{ANCHOR} prefetch=true}}"

    def _asking(self, gemm: Gemm) -> Iterator[str]:
        """Such blocks for many rows: a tile asks for what it writes, a line in each iteration."""
        columns, kc = packed_tile(gemm, self.machine).columns, slice_of(gemm, self.machine)
        block, level = block_of(gemm, self.machine, kc, columns)
        if block < gemm.n:
            yield f"tile{{loops=n sizes={block} edges=peel}}"
        if kc < gemm.k:
            yield f"tile{{loops=k sizes={kc}}}"
        yield f"promote{{operand=b to={level} layout=panel:{columns}}}"
        yield f"tile{{loops=m sizes={PACKED_ROWS} edges=exact}}"
        yield f"tile{{loops=n sizes={columns}}}"
        yield f"{ANCHOR}}}"
        yield f"tile{{loops=k sizes={K_STEPS_PER_ITERATION}}}"
        yield "prefetch{operand=c loop=n ahead=0 during=k}"

    def _slices(self, gemm: Gemm, most: int) -> Iterator[str]:
        if gemm.k > most:
            yield f"tile{{loops=k sizes={balanced(gemm.k, most, K_STEPS_PER_ITERATION)}}}"

    def _carried(self, passes: Iterable[str]) -> Iterator[str]:
        """`passes` where sums go on from slice to slice, if C holds what they go on from.

        It does not where lanes go along k.
        """
        gemm, texts = self.gemm, list(passes)
        plain = gemm.alpha == 1 and gemm.beta == 0 and gemm.result is gemm.accumulator
        plain &= not any("along=k" in text for text in texts)
        is_cut = False
        for text in texts:
            is_cut |= _cuts_k(text, gemm.k)
            yield text.replace(ANCHOR, CARRIED) if plain and is_cut else text


def _cuts_k(text: str, k: int) -> bool:
    """Whether a pass tiles k into several slices."""
    found = re.match(r"tile\{loops=([a-z,]+) sizes=([0-9,]+)", text)
    if found is None:
        return False
    sizes = dict(zip(found[1].split(","), map(int, found[2].split(",")), strict=True))
    return sizes.get("k", k) < k
