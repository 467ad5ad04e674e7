"""Which objective a target has: times where they can be measured, otherwise what models say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, get_args

import numpy as np

from gemmir.closing import Closing
from gemmir.errors import ParseError
from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine, GpuMachine, Machine, TpuMachine, machine_for
from gemmir.search.trials import Limits, Outcome, Trials
from gemmir.search.trials.places import missing_gpu
from gemmir.search.trials.static_trials import StaticTrials, libtpu_is_here
from gemmir.search.tuning.objective import MeasuredSeconds, Objective, Rounds

Wish = Literal["auto", "time", "static"]
"""What may be asked for: `auto` takes times where this computer can be timed."""

WISHES: Final[tuple[Wish, ...]] = get_args(Wish)

BY_MODEL: Final = "predicted time, by the static cost model"
BY_LIBTPU: Final = "time by libtpu's static profile"


class StaticSeconds(Closing):
    """Seconds of a call that nobody has measured: the same each time that they are asked for."""

    unit = "s"
    is_measured = False
    device = ""

    def __init__(self, trials: StaticTrials) -> None:
        self._trials = trials
        self._known: dict[str, Outcome] = {}
        self.name = BY_LIBTPU if trials.profile else BY_MODEL

    def close(self) -> None:
        """End all processes."""
        self._trials.close()

    def trial(self, schedule: str, enough: float | None) -> Outcome:
        """In a process of its own, once."""
        if schedule not in self._known:
            self._known[schedule] = self._trials.run(schedule)
        return self._known[schedule]

    def race(
        self, schedules: Sequence[str], rounds: int, order: np.random.Generator
    ) -> tuple[Rounds, Mapping[str, Outcome]]:
        """What is known, once: more rounds would say the same."""
        found = {text: self.trial(text, None) for text in schedules}
        right = {text: outcome.seconds for text, outcome in found.items() if outcome.ok}
        return right, {text: outcome for text, outcome in found.items() if not outcome.ok}


def objective_for(
    gemm: Gemm,
    target: str,
    *,
    wish: Wish = "auto",
    threads: int,
    cpus: Sequence[int],
    seed: int,
    limits: Limits,
) -> Objective:
    """Seconds of a call: measured on a CPU, and on a GPU where there is one of this architecture;
    otherwise by the cost model, and on a TPU by libtpu where that is installed.

    Raises as `Trials` does where `time` is asked for, and `ParseError` GEM1462 where `static` is of
    a CPU.
    """
    machine = machine_for(target)
    if wish == "static" and isinstance(machine, CpuMachine):
        raise ParseError(
            "GEM1462",
            f"the objective static of {target}: trials for a CPU are timed",
            "leave --objective out; gemmir explain has the time that the cost model predicts",
        )
    if wish == "time" or (wish == "auto" and is_timed(machine)):
        return MeasuredSeconds(
            Trials(gemm, target=target, threads=threads, cpus=cpus, seed=seed, limits=limits)
        )
    profile = isinstance(machine, TpuMachine) and libtpu_is_here()
    return StaticSeconds(
        StaticTrials(gemm, target=target, seed=seed, limits=limits, profile=profile)
    )


def is_timed(machine: Machine) -> bool:
    """Whether `auto` takes times for a machine."""
    if isinstance(machine, GpuMachine):
        return not missing_gpu(machine)
    return isinstance(machine, CpuMachine)
