"""What the rungs of a TPU's ladder cost, without one: by libtpu's static profile, or the model."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from gemmir.cache import ObjectCache, default_path
from gemmir.compiler import Lowered, lower
from gemmir.errors import ProfileError
from gemmir.explain_tpu import tpu_explanation
from gemmir.gemm import Gemm
from gemmir.machine import TpuMachine
from gemmir.schedule import Schedule
from gemmir.search.ladders.figure import Figure
from gemmir.tpu_profile import LABEL, compare

LIMIT_SECONDS = 150.0
"""Of libtpu for one kernel; it takes about 12 s for a million cycles."""


def profiled(
    gemm: Gemm,
    schedule: Schedule,
    machine: TpuMachine,
    *,
    say: Callable[[str], None],
    by_libtpu: bool = True,
) -> Figure:
    """The figure of one rung: libtpu's static profile where it is installed, or the model."""
    lowered = lower(gemm, machine.target, schedule)
    kernel = tpu_explanation(lowered).kernels[0]
    guess = kernel.prediction
    facts: dict[str, float | str] = {
        "steps": kernel.steps,
        "cycles of the matrix units a step": guess.mxu_cycles_per_step,
        "cycles of copies a step": guess.copy_cycles_per_step,
        "bytes of VMEM": kernel.vmem_bytes,
        "bytes of HBM": kernel.hbm_bytes,
        "bound by": guess.bound,
    }
    made = Figure(
        how="static",
        seconds=guess.cycles / machine.clock_hz,
        of_peak=guess.mxu_utilisation,
        facts=facts,
        note="the model of gemmir explain",
    )
    if not by_libtpu or importlib.util.find_spec("libtpu") is None:
        return made
    return _by_libtpu(lowered, machine, made, say)


def _by_libtpu(
    lowered: Lowered, machine: TpuMachine, guess: Figure, say: Callable[[str], None]
) -> Figure:
    try:
        found = compare(
            lowered, cache=ObjectCache(default_path()), say=say, limit_seconds=LIMIT_SECONDS
        ).ours
    except ProfileError as error:
        return Figure(
            how=guess.how,
            seconds=guess.seconds,
            of_peak=guess.of_peak,
            facts=guess.facts,
            note=f"{guess.note}; libtpu: {error.message}",
        )
    spills = "not known" if found.loop is None else found.loop.spills + found.loop.fills
    return Figure(
        how="static",
        seconds=found.cycles / machine.clock_hz,
        of_peak=found.mxu_utilisation,
        facts={**guess.facts, "spills and fills in the main loop": spills, "bound by": found.bound},
        note=f"{LABEL}, {found.method}",
    )
