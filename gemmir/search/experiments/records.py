"""What the file of an experiment holds, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from gemmir.search.experiments.plan import Point
from gemmir.search.experiments.state import Environment, State

Status = Literal["ok", "illegal", "wrong", "unable", "timeout", "crashed", "impossible"]
STATUSES: Final[tuple[Status, ...]] = get_args(Status)
"""`illegal` schedules do not fit; `unable` are libraries that are not there or do not do this
problem; `impossible` times are shorter than the machine can be."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One timing: seconds of one call, over so many."""

    wall: float
    cpu: float
    calls: int


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number that is not a time: of compiled code, of a profile, of a model."""

    value: float
    unit: str


@dataclass(frozen=True, kw_only=True)
class Worker:
    """Who measured, and where."""

    name: str
    environment: Environment


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All that measuring a cell gave."""

    status: Status
    started: str
    ended: str
    before: State
    after: State
    detail: str | None = None
    samples: tuple[Sample, ...] = ()
    figures: Mapping[str, Figure] | None = None
    took_seconds: float | None = None
    error_ratio: float | None = None
    steps: tuple[str, ...] | None = None
    about: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run in a file, and how far it is."""

    number: int
    name: str
    created: str
    spec: str
    settings: Mapping[str, Any]
    plan: str
    threads: int
    cells: int
    done: int
    statuses: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Pending:
    """A cell that is yet to be measured: its row, its place in the order and what it is of."""

    row: int
    position: int
    repetition: int
    point: Point


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell that was measured; `seconds` are those that count, CPU time on one thread."""

    run: int
    position: int
    repetition: int
    point: Point
    outcome: Outcome
    worker: str
    host: str
    cpu: str
    seconds: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Session:
    """A process that measured; `ended` is None where it was killed or goes on."""

    number: int
    started: str
    ended: str | None
    command: str
    revision: str | None
    is_dirty: bool | None
    workers: tuple[Worker, ...]


def status_of(cells: Sequence[Cell]) -> Status:
    """Of the repetitions of a point: the first status that is not ok, or ok."""
    for cell in cells:
        if cell.outcome.status != "ok":
            return cell.outcome.status
    return "ok"
