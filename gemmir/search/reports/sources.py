"""Files that a report is made of, each read by what it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from gemmir.errors import ParseError, ProblemError
from gemmir.search.reports.bench_file import run_of
from gemmir.search.reports.experiment_file import read_experiment
from gemmir.search.reports.gpu_file import run_of_gpu
from gemmir.search.reports.ladders import ladder_of
from gemmir.search.reports.measured import Ladder, Run, Study
from gemmir.search.reports.study_file import holds_study, read_study, study_of
from gemmir.search.reports.tpu_file import run_of_tpu

SQLITE: Final = b"SQLite format 3\0"

KNOWN: Final = "give what gemmir bench -o, experiment run, tune or ladder --json has written"

Source = Run | Study | Ladder

T = TypeVar("T")

BROKEN: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What it comes to where a value is none that a file of this kind has."""


def read(path: Path, run: str | None = None) -> list[Source]:
    """What the file at `path` says; of a file of experiments the run called `run`, or the last.

    Raises `ParseError` GEM1431 where it cannot be read or is none of those that are known, and
    GEM1432 where it is one and is broken.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ParseError("GEM1431", f"{path} cannot be read: {error.strerror}", KNOWN) from error
    if content.startswith(SQLITE):
        return _database(path, run)
    try:
        found: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ParseError(
            "GEM1431", f"{path} is no results file: {_about(content)}", KNOWN
        ) from error
    return [_document(path, found)]


def holds_runs(path: Path) -> bool:
    """Whether a file is a database that may hold runs of experiments."""
    try:
        with path.open("rb") as file:
            return file.read(len(SQLITE)) == SQLITE and not holds_study(path)
    except OSError:
        return False


def _database(path: Path, run: str | None) -> list[Source]:
    if holds_study(path):
        return [_whole(path, lambda: read_study(path))]
    return list(_whole(path, lambda: read_experiment(path, run)))


def _document(path: Path, found: Any) -> Source:
    if not isinstance(found, dict):
        raise ParseError("GEM1431", f"{path} is JSON, and no object is in it", KNOWN)
    known = cast("Mapping[str, Any]", found)
    if "classes" in known:
        return _whole(path, lambda: run_of(known, path))
    if "rows" in known and "gpu" in known:
        return _whole(path, lambda: run_of_gpu(known, path))
    if "rows" in known and "label" in known:
        return _whole(path, lambda: run_of_tpu(known, path))
    if "rungs" in known:
        return _whole(path, lambda: ladder_of(known, path))
    if "convergence" in known:
        return _whole(path, lambda: study_of(known, path))
    keys = ", ".join(list(known)[:6]) or "nothing"
    raise ParseError("GEM1431", f"{path} is JSON of another kind: it has {keys}", KNOWN)


def _whole(path: Path, reading: Callable[[], T]) -> T:
    try:
        return reading()
    except (*BROKEN, ProblemError) as error:
        word = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ParseError("GEM1432", f"{path} is broken: {word}", "write it again") from error


def _about(content: bytes) -> str:
    if not content.strip():
        return "it is empty"
    try:
        content.decode()
    except UnicodeDecodeError:
        return "it is neither text nor a database"
    return "it is text, and not JSON"
