"""Schedules for CPUs of sizes that are known in a call only.

*Any m*, with n and k known: see `any_rows.py`. *Any size*: see `any_size.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gemmir.errors import ScheduleError
from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.any_rows import AnyRows
from gemmir.schedule.cpu.any_size import End, any_size


def runtime_passes(
    gemm: Gemm,
    machine: CpuMachine,
    threads: int,
    *,
    static: Callable[[Gemm], Iterator[str]],
    end: End,
) -> Iterator[str]:
    """All passes of a problem with unknown sizes; `static` gives those where all are known.

    Raises `ScheduleError` GEM1359 where cores cannot be dealt equal parts.
    """
    if gemm.unknown == ("m",) and not gemm.unknown_factors:
        rows = AnyRows(gemm=gemm, machine=machine, threads=threads, static=static, end=end)
        yield from rows.passes()
        return
    if threads > 1:
        unknown = (*gemm.unknown, *gemm.unknown_factors)
        raise ScheduleError(
            "GEM1359",
            f"threads={threads} of {', '.join(unknown)} known in a call only",
            "leave threads out, or give all numbers but m",
        )
    yield from any_size(gemm, machine, end)
