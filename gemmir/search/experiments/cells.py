"""Measuring one cell: a process of its own, a check against float64, and only then the samples."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Protocol

from gemmir.bench.contestants import Contestant, contestants
from gemmir.closing import Closing
from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine, machine_for
from gemmir.search.experiments.plan import Point, Settings
from gemmir.search.experiments.records import Figure, Outcome, Sample, Status
from gemmir.search.experiments.state import machine_state
from gemmir.search.experiments.store import now
from gemmir.search.trials import Limits, Trials
from gemmir.search.trials import Outcome as Tried
from gemmir.search.trials import Sample as TriedSample
from gemmir.search.trials.trials import KilledError, Templates, end_templates

FIGURES: Final = "gemmir.search.experiments.static_figures"


class Measure(Protocol):
    """What measures cells; tests put others in the place of `Bench`."""

    def measure(self, point: Point) -> Outcome: ...

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What came of a cell, before the machine's state is put around it."""

    status: Status
    detail: str | None = None
    samples: tuple[Sample, ...] = ()
    figures: dict[str, Figure] | None = None
    took_seconds: float | None = None
    error_ratio: float | None = None
    steps: tuple[str, ...] | None = None
    about: dict[str, Any] | None = None


class Bench(Closing):
    """Measures on `cpus`; the arrays and the right result of a problem stay until another comes."""

    def __init__(self, settings: Settings, cpus: Sequence[int]) -> None:
        self.settings = settings
        self.cpus = tuple(cpus)
        self._gemm: Gemm | None = None
        self._trials: dict[str, Trials] = {}
        self._templates: Templates = {}

    def close(self) -> None:
        """End all processes."""
        self._leave()
        end_templates(self._templates)

    def measure(self, point: Point) -> Outcome:
        """One repetition of a point."""
        started, before = now(), machine_state(self.cpus)
        found = self._timed(point) if point.objective == "time" else self._static(point)
        return Outcome(
            status=found.status,
            started=started,
            ended=now(),
            before=before,
            after=machine_state(self.cpus),
            detail=found.detail,
            samples=found.samples,
            figures=found.figures,
            took_seconds=found.took_seconds,
            error_ratio=found.error_ratio,
            steps=found.steps,
            about=found.about,
        )

    def _timed(self, point: Point) -> _Found:
        trials = self._trials_of(point)
        if point.candidate.kind == "schedule":
            mine = replace(trials.contestant(""), schedule=point.schedule)
            return _found(point, trials.run(mine))
        contestant = library(point, self.settings.threads)
        if contestant.barred:
            return _Found(status="unable", detail=contestant.barred)
        if point.candidate.kind == "peer":
            return _found(point, trials.run(contestant))
        try:
            return _found(point, self._peak(trials, contestant))
        except KilledError as error:
            return _Found(status="crashed", detail=str(error))

    def _peak(self, trials: Trials, contestant: Contestant) -> Tried:
        """As long as the multiply-adds of the problem would take a core that does nothing else.

        They compute nothing that could be compared.
        """
        started = time.monotonic()
        with trials.entry(contestant) as entry:
            prepared = entry.prepare()
            if not prepared.ok:
                return prepared
            samples: list[TriedSample] = []
            scale = trials.gemm.flops / prepared.flops
            for _ in range(self.settings.rounds):
                found = entry.sample()
                if isinstance(found, Tried):
                    return found
                samples.append(replace(found, cpu=scale * found.cpu, wall=scale * found.wall))
        return replace(prepared, samples=tuple(samples), took=time.monotonic() - started)

    def _trials_of(self, point: Point) -> Trials:
        if point.problem != self._gemm:
            self._leave()
            self._gemm = point.problem
        if point.target not in self._trials:
            settings = self.settings
            self._trials[point.target] = Trials(
                point.problem,
                target=point.target,
                threads=settings.threads,
                cpus=self.cpus,
                seed=settings.seed,
                templates=self._templates,
                limits=Limits(
                    seconds=settings.limit_seconds,
                    rounds=settings.rounds,
                    sample_seconds=settings.sample_seconds,
                    warm_up_seconds=settings.warm_up_seconds,
                ),
            )
        return self._trials[point.target]

    def _leave(self) -> None:
        """Give back what belongs to a problem."""
        for trials in self._trials.values():
            trials.close()
        self._trials.clear()
        self._gemm = None

    def _static(self, point: Point) -> _Found:
        is_cpu = isinstance(machine_for(point.target), CpuMachine)
        job = {
            "gemm": asdict(point.problem),
            "target": point.target,
            "schedule": point.schedule,
            "threads": self.settings.threads if is_cpu else None,
            "parent": os.getpid(),
        }
        limit = self.settings.limit_seconds
        try:
            status, out, errors = run([sys.executable, "-P", "-m", FIGURES], job, limit)
        except subprocess.TimeoutExpired:
            return _Found(status="timeout", detail=f"it has not ended within {limit:g} s")
        if status != 0:
            words = errors.strip().splitlines() or ["it said nothing"]
            ended = f"its process ended with status {status}: {words[-1]}"
            return _Found(status="crashed", detail=ended)
        answer = json.loads(out)
        if "illegal" in answer:
            return _Found(status="illegal", detail=answer["illegal"])
        figures = {n: Figure(value=v, unit=unit) for n, (v, unit) in answer["figures"].items()}
        missing = "; ".join(answer["missing"])
        steps = tuple(answer["steps"])
        return _Found(status="ok", detail=missing or None, figures=figures, steps=steps)


def run(command: Sequence[str], job: Mapping[str, Any], limit: float) -> tuple[int, str, str]:
    """The status and what was said of a command that is given JSON.

    Whatever ends it, also processes that it has started are ended. Raises
    `subprocess.TimeoutExpired`.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        start_new_session=True,
    ) as process:
        try:
            out, errors = process.communicate(json.dumps(job), timeout=limit)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return process.returncode, out, errors


def library(point: Point, threads: int) -> Contestant:
    """Who takes part in races under the name of a point's candidate."""
    machine = machine_for(point.target)
    assert isinstance(machine, CpuMachine)
    those = contestants(against=None, machine=machine, threads=threads, schedules={})
    (found,) = (contestant for contestant in those if contestant.name == point.candidate.name)
    return found


def _found(point: Point, tried: Tried) -> _Found:
    """A library that does not do a problem is unable; a schedule that does not fit is illegal."""
    status: Status = tried.status
    if status == "illegal" and point.candidate.kind != "schedule":
        status = "unable"
    about = dict(tried.about)
    steps = about.pop("schedule", None)
    return _Found(
        status=status,
        detail=tried.detail or None,
        samples=tuple(Sample(wall=s.wall, cpu=s.cpu, calls=s.calls) for s in tried.samples),
        took_seconds=tried.took,
        error_ratio=tried.error,
        steps=None if steps is None else tuple(steps),
        about=about or None,
    )
