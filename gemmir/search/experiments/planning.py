"""From an experiment as it is written to every cell of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from gemmir.bench.contestants import PEAK, contestants
from gemmir.bench.race import cpus_for
from gemmir.errors import ParseError
from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine, GpuMachine, Machine, machine_for
from gemmir.machine.host import missing_features, require_runnable
from gemmir.schedule import Schedule
from gemmir.search.experiments.plan import Candidate, Objective, Plan, Point, Settings, plan
from gemmir.search.experiments.spec import Entry, Spec
from gemmir.search.spaces import Space
from gemmir.search.trials.places import gpu_for, missing_gpu

MOST_POINTS: Final = 4096
"""A space of more points is drawn from, and not taken as a whole."""


def plan_of(spec: Spec, cpus: Sequence[int] | None = None) -> Plan:
    """Every cell of an experiment; `cpus` are used where it does not say them;
    none at all are those of a cluster, whose workers choose theirs.

    Raises `ParseError` GEM1429 where there is nothing to measure by it, `MissingError` for targets
    that there are not or that cannot be timed here, and `ScheduleError` for texts that are no
    schedules.
    """
    machines = {target: machine_for(target) for target in spec.targets}
    objectives: dict[str, Objective] = {
        name: _objective(spec, machine) for name, machine in machines.items()
    }
    timed = [target for target, objective in objectives.items() if objective == "time"]
    cpus_timed = [name for name in timed if isinstance(machines[name], CpuMachine)]
    if spec.peers and not cpus_timed:
        raise ParseError(
            "GEM1429",
            f"the peers {', '.join(spec.peers)} are timed on a CPU, and no target that is timed is "
            "one",
            "add the target cpu, or leave the peers out",
        )
    if not any(isinstance(machine, CpuMachine) for machine in machines.values()):
        _require_no_cpus(spec, is_timed=bool(timed))
    if cpus == () and timed != cpus_timed:
        raise ParseError(
            "GEM1429",
            f"times on a GPU ({', '.join(t for t in timed if t not in cpus_timed)}) are taken by "
            "one process of one computer, and --workers are several",
            'leave --workers out, or use objective = "static"',
        )
    texts = {entry.name: str(Schedule.parse(entry.text)) for entry in spec.schedules if entry.text}
    spaces = {entry.name: Space.read(entry.space) for entry in spec.schedules if entry.space}
    points: list[Point] = []
    for target, machine in machines.items():
        objective = objectives[target]
        libraries = list(_libraries(spec, machine)) if target in cpus_timed else []
        for gemm in spec.problems:
            own = [
                (candidate, text)
                for entry in spec.schedules
                if entry.targets is None or target in entry.targets
                for candidate, text in _candidates(entry, gemm, target, texts, spaces)
            ]
            points += [
                Point(
                    problem=gemm,
                    target=target,
                    candidate=candidate,
                    objective=objective,
                    schedule=text,
                )
                for candidate, text in [*own, *libraries]
            ]
    _check_names(points)
    return plan(spec.name, spec.source, _settings(spec, cpus, bool(timed)), points)


def _require_no_cpus(spec: Spec, *, is_timed: bool) -> None:
    """`ParseError` GEM1429 where something is said of CPUs, and no target is one.

    Processes that time a GPU run on CPUs, too.
    """
    names = ("threads",) if is_timed else ("threads", "cpus")
    said = [name for name in names if getattr(spec, name) != getattr(Spec, name)]
    if said:
        raise ParseError(
            "GEM1429",
            f"{' and '.join(said)} are of a CPU, and no target is one",
            "leave them out, or add the target cpu",
        )


def _objective(spec: Spec, machine: Machine) -> Objective:
    """What `auto` means here; times are of CPUs whose code this computer runs, and of its GPU."""
    if spec.objective == "static":
        return "static"
    if isinstance(machine, CpuMachine):
        if spec.objective == "auto" and missing_features(machine):
            return "static"
        require_runnable(machine)
        return "time"
    if isinstance(machine, GpuMachine):
        if spec.objective == "auto" and missing_gpu(machine):
            return "static"
        gpu_for(machine)
        return "time"
    if spec.objective == "time":
        raise ParseError(
            "GEM1429",
            f'objective = "time" of {machine.target}: kernels for TPUs are not timed',
            'use "static" or "auto"',
        )
    return "static"


def _settings(spec: Spec, cpus: Sequence[int] | None, timed: bool) -> Settings:
    if spec.cpus is not None and cpus == ():
        raise ParseError(
            "GEM1429",
            f"cpus = {list(spec.cpus)} are of this computer, and --workers choose theirs",
            "leave one of the two out",
        )
    chosen = spec.cpus if spec.cpus is not None else cpus
    if chosen is None:
        chosen = cpus_for(spec.threads, None) if timed else ()
    for cpu in chosen if timed else ():
        cpus_for(1, cpu)
    return Settings(
        seed=spec.seed,
        repetitions=spec.repetitions,
        rounds=spec.rounds,
        threads=spec.threads,
        cpus=tuple(chosen),
        warm_up_seconds=spec.warm_up_seconds,
        sample_seconds=spec.sample_seconds,
        limit_seconds=spec.limit_seconds,
    )


def _libraries(spec: Spec, machine: Machine) -> Iterator[tuple[Candidate, None]]:
    """The peers, some of which have variants of their own, and the FMA peak of one thread."""
    assert isinstance(machine, CpuMachine)
    those = contestants(against=spec.peers, machine=machine, threads=spec.threads, schedules={})
    for contestant in those:
        if contestant.name != PEAK:
            yield Candidate(name=contestant.name, kind="peer"), None
        elif spec.peak:
            yield Candidate(name=contestant.name, kind="peak"), None


def _candidates(
    entry: Entry,
    gemm: Gemm,
    target: str,
    texts: Mapping[str, str],
    spaces: Mapping[str, Space],
) -> Iterator[tuple[Candidate, str | None]]:
    """The schedules of one entry for a problem, with their text."""
    if entry.space is None:
        yield Candidate(name=entry.name, kind="schedule"), texts.get(entry.name)
        return
    bound = spaces[entry.name].bind(gemm, target)
    if entry.count is None and bound.size > MOST_POINTS:
        raise ParseError(
            "GEM1429",
            f"the space {entry.name} has {bound.size} points for {gemm}",
            f"add a count, up to {MOST_POINTS}, and they are drawn",
        )
    drawn = bound.sample(entry.count, entry.seed) if entry.count else bound.points(lower=True)
    found = list(drawn)
    if not found:
        raise ParseError(
            "GEM1429",
            f"the space {entry.name} has no legal point for {gemm} on {target}",
            "gemmir space count says why",
        )
    for point in found:
        words = " ".join(f"{name}={value}" for name, value in point.items())
        yield (
            Candidate(
                name=f"{entry.name}: {words}", kind="schedule", space=entry.space.name, point=point
            ),
            str(bound.schedule(point)),
        )


def _check_names(points: Sequence[Point]) -> None:
    """No two contestants of a problem have one name."""
    seen: set[tuple[Gemm, str, str]] = set()
    for point in points:
        key = (point.problem, point.target, point.candidate.name)
        if key in seen:
            raise ParseError(
                "GEM1429",
                f"two contestants are called {point.candidate.name}",
                "give the schedule another name",
            )
        seen.add(key)
