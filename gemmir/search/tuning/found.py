"""What is asked of a tune, how far it is, and what it has found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from gemmir.bench.contestants import cpu_model
from gemmir.gemm import Gemm
from gemmir.lockfile import spelled
from gemmir.machine import HOST
from gemmir.search.spaces import Space
from gemmir.search.trials import STATUSES, Limits
from gemmir.search.tuning.final import ROUNDS, Verdict
from gemmir.search.tuning.objective import Objective
from gemmir.search.tuning.proposer import Sampler
from gemmir.search.tuning.study import Row

Ended = Literal["trials", "space", "budget", "interrupt"]
"""What ended the trials: all that were asked for are done, the space has no more points, the time
is over, or somebody interrupted them."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is tuned and how. `prior` says whether the first trials are those of the cost model.

    `budget` is the seconds that all trials may take together; the race of the best comes after, in
    so many rounds as `race` says.
    """

    gemm: Gemm
    space: Space
    target: str = HOST
    threads: int = 1
    trials: int = 64
    sampler: Sampler = "tpe"
    seed: int = 0
    prior: bool = True
    limits: Limits = field(default_factory=Limits)
    budget: float | None = None
    race: int = ROUNDS

    def plan(self, objective: Objective) -> dict[str, Any]:
        """What a study that is gone on with has to agree in."""
        return {
            "problem": spelled(self.gemm),
            "target": self.target,
            "cpu": cpu_model(),
            "threads": self.threads,
            "space": self.space.text,
            "sampler": self.sampler,
            "seed": self.seed,
            "prior": self.prior,
            "objective": objective.name,
        }


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a tune is: what it does, of how many steps so many, and the best value so far."""

    doing: str
    done: int
    wanted: int
    best: float | None
    row: Row | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a tune has found. `verdict` is None where it was interrupted before the race."""

    request: Request
    rows: tuple[Row, ...]
    verdict: Verdict | None
    default: str | None
    ended: Ended
    size: int

    @property
    def done(self) -> tuple[Row, ...]:
        """The trials that have ended."""
        return tuple(row for row in self.rows if row.outcome is not None)

    @property
    def outcomes(self) -> dict[str, int]:
        """How many trials came to what."""
        found = Counter(row.outcome.status for row in self.done if row.outcome is not None)
        return {status: found[status] for status in STATUSES if found[status]}

    @property
    def refused(self) -> dict[str, int]:
        """How many points were refused before they became trials, by the reason."""
        found: Counter[str] = Counter()
        for row in self.rows:
            found.update(row.refused)
        return dict(found.most_common())

    @property
    def best(self) -> Row | None:
        """The trial with the least value, before any race."""
        good = [row for row in self.done if row.value is not None]
        return min(good, key=lambda row: row.value or 0.0, default=None)

    def convergence(self) -> list[dict[str, Any]]:
        """Every trial with the best value up to it, in the order in which they were begun."""
        found: list[dict[str, Any]] = []
        best: float | None = None
        for row in self.done:
            assert row.outcome is not None
            value = row.outcome.value
            if value is not None:
                best = value if best is None else min(best, value)
            found.append(
                {
                    "number": row.number,
                    "value": value,
                    "best": best,
                    "status": row.outcome.status,
                    "detail": row.outcome.detail,
                    "source": row.source,
                    "point": row.point,
                    "schedule": row.schedule,
                }
            )
        return found
