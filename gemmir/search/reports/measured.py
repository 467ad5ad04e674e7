"""What a report is made of, whatever file it was read from: speeds of a run, trials of a tune."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from gemmir.gemm import Gemm

Status = Literal["ok", "illegal", "wrong", "unable", "timeout", "crashed", "impossible"]
"""How a trial ended."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """One contestant on one problem: GFLOP/s at the median and at the quartiles of its times.

    `samples` are the seconds of a call of each timing, where they were kept.
    """

    name: str
    gflops: float
    lower: float
    upper: float
    samples: tuple[float, ...] = ()
    schedule: str = ""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One problem and everybody's speed on it.

    `own` is the contestant that is compared with the libraries in `peers`. `missing` says why
    others have no figure. `limit` is what no contestant can exceed, in GFLOP/s, and `limit_is` says
    what that is.
    """

    label: str
    gemm: Gemm | None
    own: str
    peers: tuple[str, ...]
    speeds: Mapping[str, Speed]
    missing: Mapping[str, str] = field(default_factory=dict[str, str])
    limit: float | None = None
    limit_is: str = ""

    @property
    def best_peer(self) -> str | None:
        """The fastest library, or None."""
        there = [name for name in self.peers if name in self.speeds]
        return max(there, key=lambda name: self.speeds[name].gflops, default=None)

    @property
    def ratio(self) -> float | None:
        """Time of the best peer over that of `own`: more than 1 means that `own` is faster."""
        best = self.best_peer
        if best is None or self.own not in self.speeds:
            return None
        return self.speeds[self.own].gflops / self.speeds[best].gflops

    @property
    def percent_of_limit(self) -> float | None:
        """The speed of `own` as a part of the limit."""
        if self.limit is None or self.own not in self.speeds:
            return None
        return 100 * self.speeds[self.own].gflops / self.limit


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A figure beside the bar that it has to reach, or, with `most`, may not exceed."""

    what: str
    value: float
    bar: float
    most: bool
    is_met: bool


@dataclass(frozen=True, kw_only=True)
class Static:
    """A number of a contestant on a problem that is no speed, in `unit`.

    Most are of compiled code, of its profile or of a model, and so not measured.
    """

    label: str
    contestant: str
    name: str
    value: float
    unit: str
    is_measured: bool = False


@dataclass(frozen=True, kw_only=True)
class Run:
    """Speeds that were measured together, in classes of problems.

    `facts` are what they depend on: machine, versions, seeds, revision. `command` makes them again.
    `note` says what else the file has.
    """

    name: str
    title: str
    target: str
    command: str
    facts: tuple[tuple[str, str], ...]
    classes: Mapping[str, Sequence[Case]]
    bars: tuple[Bar, ...] = ()
    statics: tuple[Static, ...] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One point of a space that was tried: `number` is its place in the order of the trials.

    `value` is what it came to in the unit of its study, None where it came to nothing; `detail`
    says why. `source` is who proposed it.
    """

    number: int
    point: Mapping[str, int | float | str]
    status: Status
    value: float | None
    schedule: str = ""
    detail: str = ""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """One schedule of the race of the best: its value with an interval, and that over the best."""

    schedule: str
    value: float
    interval: tuple[float, float]
    ratio: float
    ratio_interval: tuple[float, float]
    rounds: int
    is_winner: bool
    is_tied: bool
    is_default: bool


@dataclass(frozen=True, kw_only=True)
class Study:
    """The trials of a search for the best schedule, and what came of it.

    What is searched for is small and in `unit`, `s` for seconds of a call. `outcome` says in words
    what was declared; `baseline` is the value of the default schedule, where it was tried. Without
    `is_search` they are points of a space that were measured in an order of no meaning.
    """

    name: str
    title: str
    target: str
    command: str
    facts: tuple[tuple[str, str], ...]
    unit: str
    trials: tuple[Trial, ...]
    winner: Trial | None
    outcome: tuple[tuple[str, str], ...] = ()
    baseline: float | None = None
    finalists: tuple[Finalist, ...] = ()
    is_search: bool = True
    is_measured: bool = True


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One step of a ladder: a schedule that changes one thing in the one before, and what for.

    `how` says how `gflops` was found: timed, profiled or reckoned; None where it was not.
    """

    name: str
    title: str
    why: str
    edits: tuple[str, ...]
    schedule: str
    is_right: bool
    checked: str
    how: str
    gflops: float | None
    of_peak: float | None
    ratio: float | None
    note: str


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """The way from the naive loop to the shipped schedule."""

    name: str
    title: str
    target: str
    command: str
    facts: tuple[tuple[str, str], ...]
    rungs: tuple[Rung, ...]
