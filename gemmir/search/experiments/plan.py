"""What an experiment will measure, cell by cell, decided before the first is.

A point is a problem, a target and a contestant; a cell is one repetition of a point. The order is a
randomised block design: within each repetition the problems come in random order, and of each all
contestants follow each other in random order, so that those that are compared meet the machine at
nearly the same time.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal

from gemmir.bench.report import spelled
from gemmir.bench.results import given
from gemmir.gemm import Gemm

Kind = Literal["schedule", "peer", "peak"]
Objective = Literal["time", "static"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What is compared: a schedule, a library or the FMA peak, by the name that tables give it.

    A point of a space has the file of the space and the values of its holes.
    """

    name: str
    kind: Kind
    space: str | None = None
    point: Mapping[str, int | str] | None = None


@dataclass(frozen=True, kw_only=True)
class Point:
    """A candidate for a problem on a target.

    `schedule` is its passes; None is the default schedule, or no schedule, as libraries have.
    """

    problem: Gemm
    target: str
    candidate: Candidate
    objective: Objective
    schedule: str | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """All that decides what is measured, as text."""
        gemm = json.dumps(given(self.problem))
        schedule = "" if self.schedule is None else self.schedule
        return (gemm, self.target, self.candidate.name, self.objective, schedule)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How every cell is measured."""

    seed: int
    repetitions: int
    rounds: int
    threads: int
    cpus: tuple[int, ...]
    warm_up_seconds: float
    sample_seconds: float
    limit_seconds: float


@dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """One repetition of a point, by its place in the plan's points."""

    point: int
    repetition: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every cell, in the order of measuring; `spec` is the text that it was made of."""

    name: str
    spec: str
    settings: Settings
    points: tuple[Point, ...]
    cells: tuple[PlannedCell, ...]

    @property
    def hash(self) -> str:
        """A hash of the settings, the points and the order."""
        settings = asdict(self.settings)
        order = [(cell.point, cell.repetition) for cell in self.cells]
        whole = json.dumps([settings, [p.words for p in self.points], order], sort_keys=True)
        return hashlib.sha256(whole.encode()).hexdigest()


def plan(name: str, spec: str, settings: Settings, points: Sequence[Point]) -> Plan:
    """Every repetition of `points` in the order that the seed gives; static figures have one."""
    order = random.Random(f"{settings.seed} {name}")
    cells: list[PlannedCell] = []
    problems = list(dict.fromkeys(json.dumps(given(p.problem)) for p in points))
    by_problem = {
        problem: [i for i, p in enumerate(points) if json.dumps(given(p.problem)) == problem]
        for problem in problems
    }
    for repetition in range(settings.repetitions):
        for problem in order.sample(problems, len(problems)):
            those = by_problem[problem]
            for number in order.sample(those, len(those)):
                if repetition == 0 or points[number].objective == "time":
                    cells.append(PlannedCell(point=number, repetition=repetition))
    return Plan(name=name, spec=spec, settings=settings, points=tuple(points), cells=tuple(cells))


def name_of(gemm: Gemm) -> str:
    """A problem in a few words, different for different problems."""
    rest = {n: v for n, v in given(gemm).items() if n not in SPELLED}
    return spelled(gemm) + "".join(f" {name}={value}" for name, value in rest.items())


SPELLED: Final = (
    *("m", "n", "k", "batch", "dtype", "dtype_b", "weight_group", "out", "trans_a", "trans_b"),
    *("lda", "ldb", "ldc", "beta", "epilogue"),
)
"""The fields that `spelled` tells."""
