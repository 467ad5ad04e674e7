"""The space around the default schedule of a problem: what a tuner searches when it is given none.

The first value of every hole is that of the default schedule, so that the first point is that
schedule, and a search begins where gemmir is without one.
"""

from __future__ import annotations

from gemmir.errors import ScheduleError
from gemmir.gemm import Gemm
from gemmir.machine import HOST, CpuMachine, Machine, TpuMachine, machine_for
from gemmir.passes.vectorize import WGMMA, Vectorize
from gemmir.schedule import Schedule, default_schedule
from gemmir.search.spaces.default_cpu import open_cpu
from gemmir.search.spaces.default_gpu import open_gpu
from gemmir.search.spaces.default_hopper import open_hopper
from gemmir.search.spaces.default_tpu import open_tpu
from gemmir.search.spaces.space import Space


def default_space(gemm: Gemm, target: str = HOST, threads: int = 1) -> Space:
    """The space around the default schedule for `gemm` on `threads` cores of `target`.

    Raises `ScheduleError` GEM1409 where a number of the problem is known in a call only, and what
    `default_schedule` raises.
    """
    unknown = (*gemm.unknown, *gemm.unknown_factors)
    if unknown:
        raise ScheduleError(
            "GEM1409",
            f"{', '.join(unknown)} of the problem are known in a call only: its default "
            "schedule has versions for several sizes, and there is no space around it",
            "give the numbers",
        )
    machine = machine_for(target)
    schedule = default_schedule(gemm, machine, threads)
    about = (
        f"Around the default schedule for {gemm.m} x {gemm.n} x {gemm.k} {gemm.dtype} on {target}"
    )
    return Space.parse(_opened(gemm, machine, schedule, about))


def _opened(gemm: Gemm, machine: Machine, schedule: Schedule, about: str) -> str:
    """The text of the space; that of the schedule where there is nothing to multiply."""
    if 0 in (gemm.m, gemm.n, gemm.k):
        return "\n".join((f"# {about}", *schedule.steps))
    if isinstance(machine, CpuMachine):
        return open_cpu(gemm, machine, schedule.passes, about)
    if isinstance(machine, TpuMachine):
        return open_tpu(gemm, machine, schedule.passes, about)
    has_warpgroups = any(isinstance(p, Vectorize) and p.with_ == WGMMA for p in schedule.passes)
    opened = open_hopper if has_warpgroups else open_gpu
    return opened(gemm, machine, schedule.passes, about)
