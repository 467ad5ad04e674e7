"""Schedules for CPUs of sizes that are known in a call only.

*Any m*, with n and k known: few rows have a version for each number of them, with the schedule of a
problem of so many rows, which reads B once; of more rows full tiles are taken, and what remains by
halves of one. *Any size*: see `cpu_any_size`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gemmir.errors import ScheduleError
from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu_any_size import LARGE, any_size
from gemmir.schedule.cpu_model import item_bytes, rows_in_l1, with_size
from gemmir.schedule.cpu_packed import K_STEPS_PER_ITERATION, packed
from gemmir.schedule.cpu_tiles import packed_tile

VERSION_ROWS = 8
"""Up to this many rows each number of them has a version, where B does not fit L2: with more, what
is gained by reading B once is less than what a call spends on rows that fill no tile."""


@dataclass(frozen=True, kw_only=True)
class RuntimeSchedule:
    """How a problem with unknown sizes is cut into versions.

    `static` gives all passes of a problem whose sizes are known, `end` those behind the loops and
    copies of one, of which so many steps of k are unrolled.
    """

    gemm: Gemm
    machine: CpuMachine
    threads: int
    static: Callable[[Gemm], Iterator[str]]
    end: Callable[[Gemm, int], Iterator[str]]

    def passes(self) -> Iterator[str]:
        """All passes; `ScheduleError` GEM1359 where cores cannot be dealt equal parts."""
        if self.gemm.unknown == ("m",) and not self.gemm.unknown_factors:
            yield from self._any_rows()
            return
        if self.threads > 1:
            raise ScheduleError(
                "GEM1359",
                f"threads={self.threads} of {', '.join(self.gemm.unknown)} known in a call only",
                "leave threads out, or give all sizes but m",
            )
        yield from any_size(self.gemm, self.machine, self.end)

    def _any_rows(self) -> Iterator[str]:
        whole = self.gemm.at(m=LARGE)
        few = VERSION_ROWS if self._is_streamed(whole) else 1
        for rows in range(1, few + 1):
            yield f"version{{loops=m sizes={rows}}}"
            yield from self.static(self.gemm.at(m=rows))
            yield "otherwise"
        part = whole
        if self.threads > 1 and whole.n:
            columns = packed_tile(whole, self.machine).columns
            size = -(-whole.n // (self.threads * columns)) * columns
            yield f"tile{{loops=n sizes={size} over=cores}}"
            part = with_size(whole, {"n": min(size, whole.n)})
        if 0 in (part.n, part.k) or self._is_direct(part):
            yield from self._direct(part)
        elif not self._is_streamed(part) and part.n % packed_tile(part, self.machine).columns == 0:
            yield from self._half_packed(part)
        else:
            yield from packed(part, self.machine)
        yield from self.end(part, K_STEPS_PER_ITERATION)

    def _is_streamed(self, gemm: Gemm) -> bool:
        """Whether B does not fit L2, so that a product of few rows waits for it."""
        return gemm.n * gemm.k * item_bytes(gemm) > self.machine.l2_bytes // 2

    def _is_direct(self, gemm: Gemm) -> bool:
        """Whether B is read where it lies: it fits L1, and vectors can read its rows."""
        item, machine = item_bytes(gemm), self.machine
        fits = gemm.n * gemm.k * item <= machine.l1_bytes // 2
        return fits and gemm.k <= rows_in_l1(gemm.leading("b") * item, machine) and not gemm.trans_b

    def _direct(self, gemm: Gemm) -> Iterator[str]:
        """Full tiles of columns and a clipped one; full tiles of rows and halves."""
        tile = packed_tile(gemm, self.machine)
        yield f"tile{{loops=n sizes={tile.columns} edges=peel}}"
        yield f"tile{{loops=m sizes={tile.rows} edges=halve}}"
        yield "promote{operand=c to=registers}"

    def _half_packed(self, gemm: Gemm) -> Iterator[str]:
        """All of B packed into L2, A read where it lies."""
        tile = packed_tile(gemm, self.machine)
        yield f"promote{{operand=b to=l2 layout=panel:{tile.columns}}}"
        yield f"tile{{loops=n sizes={tile.columns}}}"
        yield f"tile{{loops=m sizes={tile.rows} edges=halve}}"
        yield "promote{operand=c to=registers prefetch=true}"
