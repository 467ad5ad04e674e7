"""Small plans and outcomes that tests share."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from gemmir.gemm import Gemm
from gemmir.search.experiments.plan import Candidate, Plan, Point, Settings, name_of, plan
from gemmir.search.experiments.records import Figure, Outcome, Sample, Status, Worker
from gemmir.search.experiments.state import Environment, State

SETTINGS = Settings(
    seed=3,
    repetitions=3,
    rounds=4,
    threads=1,
    cpus=(1,),
    warm_up_seconds=0.001,
    sample_seconds=0.02,
    limit_seconds=60.0,
)

WORKER = Worker(
    name="here",
    environment=Environment(
        host="h",
        cpu="a CPU",
        cpus=2,
        system="a system",
        versions={"gemmir": "1"},
        revision="abc",
        is_dirty=True,
        source="s",
    ),
)

STATE = State(
    load_average=0.5, mhz=None, celsius=40.0, governor=None, affinity=(1,), steal_seconds=1.5
)

CANDIDATES = (
    Candidate(name="default", kind="schedule"),
    Candidate(name="mr=6", kind="schedule", space="my.space", point={"mr": 6, "packing": ""}),
    Candidate(name="openblas", kind="peer"),
)


def points(*sizes: int) -> list[Point]:
    """Each size cubed for each of the candidates."""
    return [
        Point(
            problem=Gemm(m=size, n=size, k=size),
            target="cpu",
            candidate=candidate,
            objective="time",
            schedule="tile{loops=m sizes=2}" if candidate.point else None,
        )
        for size in sizes
        for candidate in CANDIDATES
    ]


def small_plan(spec: str = "name = 'a'\n") -> Plan:
    return plan("a", spec, SETTINGS, points(8, 16))


def outcome(status: Status = "ok", *seconds: float) -> Outcome:
    """A cell of those wall times; CPU times are half of them."""
    return Outcome(
        status=status,
        started="2026-01-01T00:00:00.000Z",
        ended="2026-01-01T00:00:01.000Z",
        before=STATE,
        after=STATE,
        detail=None if status == "ok" else "because",
        samples=tuple(Sample(wall=s, cpu=s / 2, calls=7) for s in seconds),
        figures={"registers": Figure(value=40.0, unit="registers")},
        took_seconds=0.25,
        error_ratio=0.5,
        steps=("tile{loops=m sizes=2}",),
        about={"version": "1.2"},
    )


class FakeBench:
    """Measures nothing: every cell takes `seconds` of sleep, and is written to a log."""

    def __init__(self, settings: Settings, cpus: Sequence[int]) -> None:
        self.settings, self.cpus = settings, tuple(cpus)
        self.log = os.environ.get("FAKE_LOG", "")
        self.seconds = float(os.environ.get("FAKE_SECONDS", "0"))

    def measure(self, point: Point) -> Outcome:
        time.sleep(self.seconds)
        if self.log:
            with open(self.log, "a", encoding="utf-8") as file:
                file.write(f"{os.getpid()} {name_of(point.problem)} {point.candidate.name}\n")
        speed = 1e-6 * (1 + len(point.candidate.name)) * point.problem.m
        seconds = [speed * (1 + 0.01 * number) for number in range(self.settings.rounds)]
        return outcome("ok", *seconds)

    def close(self) -> None:
        """Nothing is kept."""
