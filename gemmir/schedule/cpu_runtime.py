"""Schedules for CPUs of sizes that are known in a call only.

*Any m*, with n and k known: see `cpu_any_rows`. *Any size*: see `cpu_any_size`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gemmir.errors import ScheduleError
from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu_any_rows import AnyRows
from gemmir.schedule.cpu_any_size import any_size


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
            rows = AnyRows(
                gemm=self.gemm,
                machine=self.machine,
                threads=self.threads,
                static=self.static,
                end=self.end,
            )
            yield from rows.passes()
            return
        if self.threads > 1:
            unknown = (*self.gemm.unknown, *self.gemm.unknown_factors)
            raise ScheduleError(
                "GEM1359",
                f"threads={self.threads} of {', '.join(unknown)} known in a call only",
                "leave threads out, or give all numbers but m",
            )
        yield from any_size(self.gemm, self.machine, self.end)
