"""Which objective a target has."""

from __future__ import annotations

from collections.abc import Sequence

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine, machine_for
from gemmir.search.trials import Limits, Trials
from gemmir.search.tuning.objective import CpuSeconds, Objective


def objective_for(
    gemm: Gemm,
    target: str,
    *,
    threads: int,
    cpus: Sequence[int],
    seed: int,
    limits: Limits,
) -> Objective:
    """Seconds on a CPU."""
    assert isinstance(machine_for(target), CpuMachine)
    return CpuSeconds(
        Trials(gemm, target=target, threads=threads, cpus=cpus, seed=seed, limits=limits)
    )
