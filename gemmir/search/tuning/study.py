"""A study on disk: every trial of a tune, as rows of an Optuna study in one SQLite file.

A row is written whole before its trial begins, and its outcome before it ends, each in one
transaction: a process that is killed leaves at most one row that has begun and not ended, which
`--resume` runs again under its number. So no trial is lost and none is there twice. Beside the file
lies a lock while a process has it open.

`optuna-dashboard sqlite:///FILE` shows it; the attributes of a row are `schedule`, `source`,
`asked`, `refused` and `outcome`, those of the study `plan` and, when all is done, `result`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gemmir.closing import Closing
from gemmir.errors import OutputError, ParseError
from gemmir.search.trials import Outcome
from gemmir.search.tuning.libraries import optuna, sqlalchemy_event

NAME: Final = "gemmir tune"

FORMAT: Final = 1

OPTUNA_TABLES: Final = frozenset({"studies", "version_info", "alembic_version"})
"""Those that Optuna makes first: a file that has others, and none of these, is not a study."""

Point = dict[str, int | str]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One trial: what is tried, who asked for it, and what came of it, None while it runs.

    `asked` counts the points that the sampler has been asked for up to this one, `refused` those of
    them that were illegal since the row before, by their reasons.
    """

    number: int
    point: Point
    schedule: str
    source: str
    asked: int
    refused: Mapping[str, int] = field(default_factory=dict[str, int])
    outcome: Outcome | None = None

    @property
    def value(self) -> float | None:
        """What was found, None where nothing was or it does not count."""
        return None if self.outcome is None else self.outcome.value


class Study(Closing):
    """The rows of a tune in a file, which no other process has open.

    `plan` says what is tuned and how. A file that is there is gone on with if `resume` says so, and
    only by the same plan. Raises `OutputError` GEM1412 where it may not be written, and
    `ParseError` GEM1413 where it is no study, or one by another plan.
    """

    def __init__(self, path: Path, plan: Mapping[str, Any], *, resume: bool) -> None:
        self.path = path
        self._lock = _Lock(path)
        try:
            self._begin(plan, resume=resume)
        except BaseException:
            self._lock.release()
            raise

    def _begin(self, plan: Mapping[str, Any], *, resume: bool) -> None:
        if self.path.exists() and not resume:
            raise OutputError(
                "GEM1412",
                f"{self.path} is there already, with trials of its own",
                "add --resume to go on with it, or name another file",
            )
        library = optuna()
        _require_own(self.path)
        try:
            self._storage = library.storages.RDBStorage(f"sqlite:///{self.path.absolute()}")
            sqlalchemy_event().listen(self._storage.engine, "connect", _without_waiting)
            self._storage.engine.dispose()
            self._study = library.create_study(
                storage=self._storage,
                study_name=NAME,
                sampler=library.samplers.RandomSampler(),
                load_if_exists=True,
            )
        except Exception as error:
            words = str(error).splitlines() or [type(error).__name__]
            raise _no_study(self.path, words[0]) from error
        self._check(plan)
        self._trial = library.trial
        self._rows = [_row(trial) for trial in self._study.trials]

    def _check(self, plan: Mapping[str, Any]) -> None:
        """Compare the plan of the file with `plan`, or put it there."""
        whole = {"format": FORMAT, **plan}
        kept = self._study.user_attrs.get("plan")
        if kept is None:
            self._study.set_user_attr("plan", whole)
            return
        for name in {**kept, **whole}:
            if kept.get(name) != whole.get(name):
                raise ParseError(
                    "GEM1413",
                    f"{self.path} is a study of {name} {_short(kept.get(name))}, and this is one "
                    f"of {_short(whole.get(name))}",
                    f"go on with what it was begun with ({name}), or name another file",
                )

    def close(self) -> None:
        """Let others write to the file."""
        self._storage.engine.dispose()
        self._lock.release()

    @property
    def rows(self) -> tuple[Row, ...]:
        """All of them, in the order of their numbers."""
        return tuple(self._rows)

    def begin(self, row: Row, values: Mapping[str, tuple[int | str, ...]]) -> None:
        """Write down that a trial begins; `values` are those that each hole may have."""
        kinds = optuna().distributions.CategoricalDistribution
        self._study.add_trial(
            self._trial.create_trial(
                state=self._trial.TrialState.RUNNING,
                params=row.point,
                distributions={name: kinds(some) for name, some in values.items()},
                user_attrs={
                    "schedule": row.schedule,
                    "source": row.source,
                    "asked": row.asked,
                    "refused": dict(row.refused),
                },
            )
        )
        self._rows.append(row)

    def finish(self, row: Row, outcome: Outcome) -> None:
        """Write down what came of a trial that has begun."""
        kept = self._study.trials[row.number]
        trial = self._trial.Trial(self._study, kept._trial_id)
        trial.set_user_attr("outcome", outcome.to_dict())
        states = self._trial.TrialState
        if outcome.value is None:
            self._study.tell(trial, state=states.FAIL)
        else:
            self._study.tell(trial, outcome.value)
        self._rows[row.number] = _row(self._study.trials[row.number])

    @property
    def result(self) -> dict[str, Any] | None:
        """What was declared at the end, if that was reached."""
        return self._study.user_attrs.get("result")

    def declare(self, result: Mapping[str, Any] | None) -> None:
        """Write down what was found, or that it has to be found anew."""
        if result is not None or self.result is not None:
            self._study.set_user_attr("result", None if result is None else dict(result))


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a file has: the plan of its tune, its trials, and the result if that was reached."""

    plan: Mapping[str, Any]
    rows: tuple[Row, ...]
    result: Mapping[str, Any] | None


def read_study(path: Path) -> Kept:
    """What is in a file, also while it is tuned; `ParseError` GEM1413 where it is no study."""
    library = optuna()
    try:
        storage = library.storages.RDBStorage(
            f"sqlite:///file:{path.absolute()}?mode=ro&uri=true", skip_table_creation=True
        )
        study = library.load_study(study_name=NAME, storage=storage)
        attrs = study.user_attrs
        rows = tuple(_row(trial) for trial in study.trials)
        storage.engine.dispose()
    except Exception as error:
        words = str(error).splitlines() or [type(error).__name__]
        raise _no_study(path, words[0]) from error
    return Kept(plan=attrs.get("plan", {}), rows=rows, result=attrs.get("result"))


def _require_own(path: Path) -> None:
    """Refuse a database of something else, into which Optuna would put its tables."""
    if not path.is_file():
        return
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as found:
            rows = found.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    except sqlite3.Error as error:
        raise _no_study(path, str(error)) from error
    tables = {name for (name,) in rows}
    if tables and not tables & OPTUNA_TABLES:
        raise _no_study(path, f"it has the tables {', '.join(sorted(tables))}")


def _no_study(path: Path, reason: str) -> ParseError:
    return ParseError("GEM1413", f"{path} is no study: {reason}", "name another file")


def _row(trial: Any) -> Row:
    """What a trial of Optuna says; one that has not ended has no outcome, whatever it has."""
    attrs = trial.user_attrs
    ended = trial.state.is_finished()
    return Row(
        number=trial.number,
        point=dict(trial.params),
        schedule=attrs["schedule"],
        source=attrs["source"],
        asked=attrs["asked"],
        refused=attrs["refused"],
        outcome=Outcome.from_dict(attrs["outcome"]) if ended else None,
    )


def _without_waiting(connection: Any, _: object) -> None:
    """Have SQLite wait for the disk less often: what is written outlives the process anyway."""
    connection.execute("PRAGMA synchronous=NORMAL")


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}…"


class _Lock:
    """A file beside the study that one process at a time has locked; it goes with that process."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f"{path.name}.lock")
        try:
            self._file = self._taken()
        except BlockingIOError:
            raise OutputError(
                "GEM1414",
                f"another process is tuning with {path}",
                "wait for it to end, or name another file",
            ) from None
        except OSError as error:
            raise OutputError(
                "GEM1415",
                f"{path} cannot be written: {error.strerror or error}",
                "name a file in a folder that can be",
            ) from error

    def _taken(self) -> int:
        """The lock, of the file that has the name now."""
        import fcntl

        while True:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(file), os.stat(self._path)):
                    return file
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(file)
                raise
            os.close(file)

    def release(self) -> None:
        """Let others have it. A file that is not empty is somebody else's, and stays."""
        with suppress(OSError):
            if os.fstat(self._file).st_size == 0:
                self._path.unlink()
        os.close(self._file)
