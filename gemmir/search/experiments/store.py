"""The file of an experiment: SQLite, whose tables and view `schema.sql` has.

A file has one or more runs. All cells of a run are in it before the first is measured, and each is
completed in one transaction with all that belongs to it: whatever ends a process leaves whole
cells and untouched ones. One process writes at a time; any number read, also while it does.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import sqlite3
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from gemmir.bench.results import given
from gemmir.errors import OutputError, ParseError
from gemmir.gemm import Gemm
from gemmir.search.experiments.plan import Candidate, Plan, Point, name_of
from gemmir.search.experiments.records import (
    STATUSES,
    Cell,
    Figure,
    Outcome,
    Pending,
    Run,
    Sample,
    Session,
    Worker,
)
from gemmir.search.experiments.state import Environment, State

SCHEMA: Final = Path(__file__).with_name("schema.sql")

APPLICATION: Final = 0x47454D58
"""GEMX in ASCII: by this, SQLite files of gemmir are known (PRAGMA application_id)."""

VERSION: Final = 1
"""Of the schema (PRAGMA user_version)."""

BUSY_SECONDS: Final = 30.0
"""So long is waited for one who reads or writes at the same time."""


class Store:
    """The file at `path`; `writer` and `reader` open one."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection

    @classmethod
    @contextmanager
    def writer(cls, path: Path, *, create: bool = False) -> Generator[Self]:
        """The file, which no other process writes meanwhile; `create` makes it where it is not.

        Raises `OutputError` GEM1424 where another writes it, and `ParseError` GEM1421 where the
        file is not of an experiment.
        """
        path = path.expanduser()
        flags = os.O_RDWR | (os.O_CREAT if create else 0)
        try:
            lock = os.open(path, flags, 0o666)
        except OSError as error:
            raise _not_one(path, f"cannot be opened: {error.strerror}") from error
        try:
            _take(lock, path)
            with _readable(path), closing(_connected(path)) as connection:
                _prepare(path, connection)
                yield cls(path, connection)
        finally:
            os.close(lock)

    @classmethod
    @contextmanager
    def reader(cls, path: Path) -> Generator[Self]:
        """The file as it is; `ParseError` GEM1421 where it is not of an experiment."""
        path = path.expanduser()
        if not path.is_file():
            raise _not_one(path, "is no file")
        with _readable(path), closing(_connected(path, read_only=True)) as connection:
            _check(path, connection)
            yield cls(path, connection)

    def runs(self) -> list[Run]:
        """Every run, in the order in which they were added."""
        return [self._run(row) for row in self._rows("SELECT * FROM runs ORDER BY id")]

    def run(self, wanted: int | str | None = None) -> Run:
        """The run of that number or name, the last one of several; by default the last of all.

        Raises `ParseError` GEM1428 where there is none.
        """
        runs = self.runs()
        found = [
            run for run in runs if wanted is None or str(wanted) in (str(run.number), run.name)
        ]
        if not found:
            names = ", ".join(f"{run.number} ({run.name})" for run in runs)
            raise ParseError(
                "GEM1428",
                f"{self.path} has no run {'at all' if wanted is None else wanted}",
                f"it has {names}" if names else "gemmir experiment run makes one",
            )
        return found[-1]

    def pending(self, run: int) -> list[Pending]:
        """The cells that are not done, in order."""
        query = (
            "SELECT id, position, repetition, point FROM cells "
            "WHERE run = ? AND status IS NULL ORDER BY position"
        )
        points = self.points(run)
        return [
            Pending(row=row, position=position, repetition=repetition, point=points[point])
            for row, position, repetition, point in self._rows(query, run)
        ]

    def points(self, run: int) -> dict[int, Point]:
        """The points of a run by the numbers of their rows."""
        query = (
            "SELECT points.id, problems.gemm, points.target, contestants.name, contestants.kind, "
            "contestants.space, contestants.point, points.objective, points.schedule FROM points "
            "JOIN problems ON problems.id = points.problem "
            "JOIN contestants ON contestants.id = points.contestant "
            "WHERE points.run = ? ORDER BY points.id"
        )
        return {
            number: Point(
                problem=Gemm(**json.loads(gemm)),
                target=target,
                candidate=Candidate(
                    name=name,
                    kind=kind,
                    space=space,
                    point=None if point is None else json.loads(point),
                ),
                objective=objective,
                schedule=schedule,
            )
            for number, gemm, target, name, kind, space, point, objective, schedule in self._rows(
                query, run
            )
        }

    def cells(self, run: int) -> list[Cell]:
        """Every cell that is done, in the order of measuring, as of one moment."""
        with self._moment():
            return self._cells(run)

    def _cells(self, run: int) -> list[Cell]:
        points, threads = self.points(run), self.run(run).threads
        samples: dict[int, list[Sample]] = {}
        for cell, wall, cpu, calls in self._rows(_of_cells("samples", SAMPLES, "round"), run):
            samples.setdefault(cell, []).append(Sample(wall=wall, cpu=cpu, calls=calls))
        figures: dict[int, dict[str, Figure]] = {}
        for cell, name, value, unit in self._rows(_of_cells("figures", FIGURES, "name"), run):
            figures.setdefault(cell, {})[name] = Figure(value=value, unit=unit)
        states: dict[int, dict[str, State]] = {}
        for cell, moment, *state in self._rows(_of_cells("states", STATES, "moment"), run):
            states.setdefault(cell, {})[moment] = _state(state)
        query = (
            f"SELECT cells.id, point, repetition, position, {', '.join(COLUMNS)}, "
            "workers.name, host, cpu FROM cells JOIN workers ON workers.id = cells.worker "
            "WHERE run = ? AND status IS NOT NULL ORDER BY position"
        )
        found: list[Cell] = []
        for row, point, repetition, position, *columns, name, host, cpu in self._rows(query, run):
            own = tuple(samples.get(row, []))
            outcome = _outcome(columns, own, figures.get(row), states[row])
            found.append(
                Cell(
                    run=run,
                    position=position,
                    repetition=repetition,
                    point=points[point],
                    outcome=outcome,
                    worker=name,
                    host=host,
                    cpu=cpu,
                    seconds=tuple(s.cpu if threads == 1 else s.wall for s in own),
                )
            )
        return found

    def sessions(self, run: int) -> list[Session]:
        """Every process that measured cells of a run, and its workers."""
        query = (
            "SELECT id, started, ended, command, revision, is_dirty FROM sessions "
            "WHERE run = ? ORDER BY id"
        )
        workers = (
            "SELECT workers.name, host, cpu, cpus, system, versions, source, revision, is_dirty "
            "FROM workers JOIN sessions ON sessions.id = session WHERE session = ? "
            "ORDER BY workers.id"
        )
        return [
            Session(
                number=number,
                started=started,
                ended=ended,
                command=command,
                revision=revision,
                is_dirty=None if is_dirty is None else bool(is_dirty),
                workers=tuple(_worker(row) for row in self._rows(workers, number)),
            )
            for number, started, ended, command, revision, is_dirty in self._rows(query, run)
        ]

    def add_run(self, plan: Plan) -> int:
        """Put a plan and all its cells into the file; the number of the run."""
        settings = plan.settings
        with self._whole():
            run = self._insert(
                "runs",
                name=plan.name,
                created=now(),
                spec=plan.spec,
                settings=json.dumps(asdict(settings)),
                plan=plan.hash,
                seed=settings.seed,
                repetitions=settings.repetitions,
                rounds=settings.rounds,
                threads=settings.threads,
                cpus=json.dumps(settings.cpus),
            )
            problems = {
                name_of(gemm): self._insert(
                    "problems",
                    run=run,
                    name=name_of(gemm),
                    gemm=json.dumps(given(gemm)),
                    flops=gemm.flops,
                    bytes=gemm.bytes_moved,
                )
                for gemm in dict.fromkeys(point.problem for point in plan.points)
            }
            contestants: dict[str, int] = {}
            points: list[int] = []
            for point in plan.points:
                who = point.candidate
                if who.name not in contestants:
                    contestants[who.name] = self._insert(
                        "contestants",
                        run=run,
                        name=who.name,
                        kind=who.kind,
                        space=who.space,
                        point=None if who.point is None else json.dumps(dict(who.point)),
                    )
                points.append(
                    self._insert(
                        "points",
                        run=run,
                        problem=problems[name_of(point.problem)],
                        target=point.target,
                        contestant=contestants[who.name],
                        objective=point.objective,
                        schedule=point.schedule,
                    )
                )
            self.connection.executemany(
                "INSERT INTO cells (run, point, repetition, position) VALUES (?, ?, ?, ?)",
                [(run, points[c.point], c.repetition, at) for at, c in enumerate(plan.cells)],
            )
        return run

    def begin(self, run: int, environment: Environment) -> int:
        """Write that this process measures now; the number of the session."""
        with self._whole():
            return self._insert(
                "sessions",
                run=run,
                started=now(),
                command=shlex.join(["gemmir", *sys.argv[1:]]),
                revision=environment.revision,
                is_dirty=environment.is_dirty,
            )

    def end(self, session: int) -> None:
        """Write that it does no more."""
        with self._whole():
            self.connection.execute("UPDATE sessions SET ended = ? WHERE id = ?", (now(), session))

    def finish(self, row: int, session: int, worker: Worker, outcome: Outcome) -> bool:
        """Complete a cell in one transaction; False, and nothing, where it is complete already."""
        with self._whole():
            changed = self.connection.execute(
                f"UPDATE cells SET worker = ?, {', '.join(f'{c} = ?' for c in COLUMNS)} "
                "WHERE id = ? AND status IS NULL",
                (self._worker(session, worker), *_columns(outcome), row),
            ).rowcount
            if not changed:
                return False
            for number, s in enumerate(outcome.samples):
                self.connection.execute(
                    "INSERT INTO samples VALUES (?, ?, ?, ?, ?)",
                    (row, number, s.wall, s.cpu, s.calls),
                )
            for name, figure in (outcome.figures or {}).items():
                self.connection.execute(
                    "INSERT INTO figures VALUES (?, ?, ?, ?)",
                    (row, name, figure.value, figure.unit),
                )
            for moment, state in (("before", outcome.before), ("after", outcome.after)):
                values = asdict(state) | {"affinity": json.dumps(state.affinity)}
                self._insert("states", cell=row, moment=moment, **values)
        return True

    def _worker(self, session: int, worker: Worker) -> int:
        there = self._rows(
            "SELECT id FROM workers WHERE session = ? AND name = ?", session, worker.name
        )
        for (number,) in there:
            return number
        of = worker.environment
        return self._insert(
            "workers",
            session=session,
            name=worker.name,
            host=of.host,
            cpu=of.cpu,
            cpus=of.cpus,
            system=of.system,
            versions=json.dumps(dict(of.versions)),
            source=of.source,
        )

    def _run(self, row: Sequence[Any]) -> Run:
        number, name, created, spec, settings, plan, _, _, _, threads, _ = row
        counts = dict(
            self._rows("SELECT status, COUNT(*) FROM cells WHERE run = ? GROUP BY status", number)
        )
        left = counts.pop(None, 0)
        done = sum(counts.values())
        return Run(
            number=number,
            name=name,
            created=created,
            spec=spec,
            settings=json.loads(settings),
            plan=plan,
            threads=threads,
            cells=done + left,
            done=done,
            statuses={status: counts[status] for status in STATUSES if status in counts},
        )

    def _insert(self, table: str, **values: Any) -> int:
        marks = ", ".join("?" * len(values))
        done = self.connection.execute(
            f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", tuple(values.values())
        )
        assert done.lastrowid is not None
        return done.lastrowid

    def _rows(self, query: str, *values: Any) -> Iterator[Any]:
        yield from self.connection.execute(query, values).fetchall()

    @contextmanager
    def _moment(self) -> Generator[None]:
        """What is read inside is of one moment, whatever another process writes meanwhile."""
        self.connection.execute("BEGIN")
        try:
            yield
        finally:
            self.connection.execute("COMMIT")

    @contextmanager
    def _whole(self) -> Generator[None]:
        """All or nothing of what is written inside."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")


COLUMNS: Final = (
    *("status", "detail", "started", "ended", "took_seconds", "error_ratio", "steps", "about"),
)
"""Of a cell, what measuring it gave."""

SAMPLES: Final = ("wall_seconds", "cpu_seconds", "calls")
FIGURES: Final = ("name", "value", "unit")
STATES: Final = (
    *("moment", "load_average", "mhz", "celsius", "governor", "affinity", "steal_seconds"),
)


def now() -> str:
    """The time of day, to a millisecond."""
    at = datetime.now(UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _of_cells(table: str, columns: Sequence[str], order: str) -> str:
    return (
        f"SELECT cell, {', '.join(f'{table}.{c}' for c in columns)} FROM {table} "
        f"JOIN cells ON cells.id = cell WHERE run = ? ORDER BY cell, {order}"
    )


def _columns(outcome: Outcome) -> tuple[Any, ...]:
    return (
        outcome.status,
        outcome.detail,
        outcome.started,
        outcome.ended,
        outcome.took_seconds,
        outcome.error_ratio,
        None if outcome.steps is None else json.dumps(outcome.steps),
        None if outcome.about is None else json.dumps(dict(outcome.about)),
    )


def _outcome(
    columns: Sequence[Any],
    samples: tuple[Sample, ...],
    figures: Mapping[str, Figure] | None,
    states: Mapping[str, State],
) -> Outcome:
    status, detail, started, ended, took_seconds, error_ratio, steps, about = columns
    return Outcome(
        status=status,
        started=started,
        ended=ended,
        before=states["before"],
        after=states["after"],
        detail=detail,
        samples=samples,
        figures=figures,
        took_seconds=took_seconds,
        error_ratio=error_ratio,
        steps=None if steps is None else tuple(json.loads(steps)),
        about=None if about is None else json.loads(about),
    )


def _state(row: Sequence[Any]) -> State:
    load_average, mhz, celsius, governor, affinity, steal_seconds = row
    return State(
        load_average=load_average,
        mhz=mhz,
        celsius=celsius,
        governor=governor,
        affinity=tuple(json.loads(affinity)),
        steal_seconds=steal_seconds,
    )


def _worker(row: Sequence[Any]) -> Worker:
    name, host, cpu, cpus, system, versions, source, revision, is_dirty = row
    environment = Environment(
        host=host,
        cpu=cpu,
        cpus=cpus,
        system=system,
        versions=json.loads(versions),
        revision=revision,
        is_dirty=None if is_dirty is None else bool(is_dirty),
        source=source,
    )
    return Worker(name=name, environment=environment)


def _take(lock: int, path: Path) -> None:
    """Keep others from writing. SQLite's own locks on the file are of another kind (fcntl)."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise OutputError(
            "GEM1424",
            f"another process is writing {path}",
            "wait for it, or write another file with -o",
        ) from error


def _connected(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection; even one that only reads may have to undo what a killed writer has left."""
    mode = "ro" if read_only and not os.access(path, os.W_OK) else "rw"
    try:
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode={mode}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
        )
        connection.execute("PRAGMA foreign_keys = ON")
        if read_only:
            connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error as error:
        raise _not_one(path, f"cannot be opened: {error}") from error
    return connection


def _prepare(path: Path, connection: sqlite3.Connection) -> None:
    """Make the tables of a file that has none; check one that has."""
    try:
        (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        raise _not_one(path, f"is not SQLite: {error}") from error
    if tables:
        _check(path, connection)
        return
    connection.executescript(
        f"BEGIN EXCLUSIVE; {SCHEMA.read_text(encoding='utf-8')}"
        f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
    )


def _check(path: Path, connection: sqlite3.Connection) -> None:
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.DatabaseError as error:
        raise _not_one(path, f"is not SQLite: {error}") from error
    if application != APPLICATION:
        raise _not_one(path, "is a database of something else")
    if version != VERSION:
        raise _not_one(path, f"has version {version} of the tables, and this gemmir {VERSION}")


@contextmanager
def _readable(path: Path) -> Generator[None]:
    """A file of which a part is lost or overwritten is told where that part is read."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if type(error) is not sqlite3.DatabaseError:
            raise
        raise _not_one(path, f"is damaged: {error}") from error


def _not_one(path: Path, why: str) -> ParseError:
    return ParseError("GEM1421", f"{path} {why}", "give a file that gemmir experiment run wrote")
