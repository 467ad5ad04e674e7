"""Schedules for CPUs of any number of rows, where n and k are known.

Few rows have a version for each number of them, with the schedule of a problem of so many rows,
which reads B once. More rows are cut into full tiles and one of what remains, or with few registers
into tiles of even sizes. B is read where it lies: a sliver of it that is as wide as a tile stays in
L2 for all rows. Where its rows lie a power of two apart and fall into few sets of the cache, small
blocks of it are copied, and where vectors cannot read them larger ones.

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
from gemmir.schedule.cpu.copied import copied_any
from gemmir.schedule.cpu.model import (
    CACHE_LINE_BYTES,
    K_STEPS_PER_ITERATION,
    balanced,
    broadcasts_from_memory,
    bytes_of,
    bytes_of_row,
    item_bytes,
    lanes_used,
    rows_in_l1,
    with_size,
)
from gemmir.schedule.cpu.packed import packed_both
from gemmir.schedule.cpu.schedule_class import Microkernel
from gemmir.schedule.cpu.tiles import RegisterTile, has_even_rows, most_rows, packed_tile

EXACT_ROWS = 8
"""So few rows wait for B all of the time: each number of them has a version, which streams it."""

EVEN_STREAMS = (9, 12, 16)
"""Rows with a version of their own where a tile has 4 at most: a stream of them has no smaller last
tile. 3072 x 768 by 9 and 12 of them takes 0.86 and 0.9 of the time of blocks, and by 10 and 11 a
little more (measured on Zen 5 with AVX2)."""

UNPACKED_ROWS = 48
"""Up to this many rows copying a B costs more than its conflicts in L1, where a vector is a whole
cache line (measured on Zen 5: 48 rows of 3072 x 768 are 1.05 times as fast, 64 rows 0.82 times)."""

FEW_VECTORS = 4
"""Columns of a tile of up to `UNPACKED_ROWS` rows, in vectors: 6 x 64 of f32. On Zen 5, 3072 x 768
by 17 rows reaches 217 GFLOP/s so, where 8 x 48 with halves at the end had 167, and 64 rows 218
instead of 205; kernels for just so many rows have 216."""

LEAST_FEW_ROWS = 6
"""So many rows are such a tile where B is in L3: 6, 7 and 8 rows of 3072 x 768 take 0.81 to 0.92 of
the time of streaming B so. From memory they take longer: 8 rows of 4096 x 4096 1.3 times as long
(measured on Zen 5)."""

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
        if self._has_conflicts(part) and self._has_full_lines(part):
            yield f"version{{loops=m most={UNPACKED_ROWS}}}"
            yield from self._outer(whole)
            yield from self._carried([*self._few(part), *self.end(part, Microkernel())])
            yield "otherwise"
        yield from self._outer(whole)
        yield from self._carried([*self._loops(part), *self.end(part, Microkernel())])

    def _exact(self, rows: int, whole: Gemm) -> Iterator[str]:
        """All passes for so many rows: those of the problem, or wide tiles where B is in L3."""
        is_near = bytes_of(whole, "b") <= self.machine.l3_bytes // 2
        is_read = self._has_conflicts(whole) and self._has_full_lines(whole)
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
        is_streamed = has_even_rows(self.machine) and self._is_copied(self._share(gemm))
        return (*range(1, EXACT_ROWS + 1), *(EVEN_STREAMS if is_streamed else ()))

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
            yield from self._unpacked(gemm)
        elif gemm.element is not gemm.accumulator:
            yield from packed_both(gemm, self.machine)
        elif self._is_copied(gemm):
            yield from copied_any(gemm, self.machine)
        elif gemm.trans_b or self._has_conflicts(gemm):
            yield from self._packed(gemm)
        else:
            yield from self._unpacked(gemm)

    @property
    def _last_rows(self) -> str:
        """What becomes of rows that are no full tile."""
        return "even" if has_even_rows(self.machine) else "exact"

    def _tile(self, gemm: Gemm) -> RegisterTile:
        """Three vectors wide, where C has so many columns, so that A is read less often."""
        lanes = lanes_used(gemm, self.machine)
        vectors = max(min(3, gemm.n // lanes), 1)
        return RegisterTile(rows=most_rows(self.machine, vectors), vectors=vectors, lanes=lanes)

    def _unpacked(self, gemm: Gemm) -> Iterator[str]:
        """Slivers of B, which stay in L2 while all rows of A go by."""
        tile = self._tile(gemm)
        yield from self._slices(gemm, K_SLICE)
        yield f"tile{{loops=n sizes={tile.columns} edges=peel}}"
        yield f"tile{{loops=m sizes={tile.rows} edges={self._last_rows}}}"
        yield f"{ANCHOR}}}"

    def _few(self, gemm: Gemm, rows: int | None = None) -> Iterator[str]:
        """Wide tiles of few rows, which read A seldom: some slivers of B for a short slice of k.

        B comes from L3 or memory, row by row of a block, and is used from L1 by all rows, or by
        the one tile of so many `rows`.
        """
        lanes, machine = lanes_used(gemm, self.machine), self.machine
        fitting = [v for v in range(1, FEW_VECTORS + 1) if most_rows(machine, v) >= (rows or 1)]
        vectors = max(min(fitting[-1], gemm.n // lanes), 1)
        columns = vectors * lanes
        block = FEW_TILES * columns
        if gemm.n > block:
            yield f"tile{{loops=n sizes={block} edges=peel}}"
        yield from self._slices(gemm, machine.l1_bytes // 2 // (columns * item_bytes(gemm)))
        yield f"tile{{loops=n sizes={columns} edges=peel}}"
        last = " edges=exact" if rows is None else ""
        yield f"tile{{loops=m sizes={rows or most_rows(machine, vectors)}{last}}}"
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
