"""Runs in the formats of other tools: CSV, Parquet, and the schema T4 of auto-tuning.

CSV and Parquet have a row for each sample, and one without a time for each cell that has none. T4
is the format in which Kernel Tuner and others exchange results (schema version 1.0.0): an entry for
each point of the run, with every sample in milliseconds, and a second file about the machine.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Literal

from gemmir.bench.results import given
from gemmir.search.experiments.modules import duckdb
from gemmir.search.experiments.plan import Point, name_of
from gemmir.search.experiments.records import Cell, Run, Session, Status, status_of
from gemmir.search.experiments.state import State

Form = Literal["csv", "parquet", "t4"]

T4_VERSION: Final = "1.0.0"
MILLISECONDS: Final = 1e3

INVALIDITY: Final[Mapping[Status, str]] = {
    "ok": "correct",
    "illegal": "constraints",
    "unable": "constraints",
    "wrong": "correctness",
    "impossible": "correctness",
    "timeout": "timeout",
    "crashed": "runtime",
}
"""T4's words for what became of a configuration."""

COLUMNS: Final[Mapping[str, str]] = {
    "run": "INTEGER",
    "experiment": "VARCHAR",
    "problem": "VARCHAR",
    "m": "INTEGER",
    "n": "INTEGER",
    "k": "INTEGER",
    "dtype": "VARCHAR",
    "gemm": "VARCHAR",
    "flops": "BIGINT",
    "target": "VARCHAR",
    "contestant": "VARCHAR",
    "kind": "VARCHAR",
    "objective": "VARCHAR",
    "schedule": "VARCHAR",
    "point": "VARCHAR",
    "repetition": "INTEGER",
    "position": "INTEGER",
    "status": "VARCHAR",
    "detail": "VARCHAR",
    "error_ratio": "DOUBLE",
    "round": "INTEGER",
    "seconds": "DOUBLE",
    "wall_seconds": "DOUBLE",
    "cpu_seconds": "DOUBLE",
    "calls": "BIGINT",
    "gflops": "DOUBLE",
    "figures": "VARCHAR",
    "started": "VARCHAR",
    "worker": "VARCHAR",
    "host": "VARCHAR",
    "cpu": "VARCHAR",
    **{
        f"{name}_{moment}": "VARCHAR" if name in ("governor", "affinity") else "DOUBLE"
        for moment in ("before", "after")
        for name in State.__dataclass_fields__
    },
}
"""Each column and its type in SQL; JSON is in gemm, point, figures and affinity."""


def csv_text(run: Run, cells: Sequence[Cell]) -> str:
    """A table with a head."""
    with tempfile.TemporaryFile("w+", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(COLUMNS), lineterminator="\n")
        writer.writeheader()
        for row in _rows(run, cells):
            writer.writerow({name: _plain(value) for name, value in row.items()})
        file.seek(0)
        return file.read()


def parquet(run: Run, cells: Sequence[Cell]) -> bytes:
    """The same table, with types; `MissingError` GEM1426 without DuckDB."""
    database = duckdb()
    types = ", ".join(f"'{name}': '{kind}'" for name, kind in COLUMNS.items())
    with tempfile.TemporaryDirectory(prefix="gemmir-export-") as folder:
        table, made = Path(folder, "cells.csv"), Path(folder, "cells.parquet")
        table.write_text(csv_text(run, cells), encoding="utf-8")
        with database.connect() as connection:
            connection.execute(
                f"COPY (SELECT * FROM read_csv('{table}', header = true, delim = ',', "
                f"quote = '\"', escape = '\"', columns = {{{types}}})) "
                f"TO '{made}' (FORMAT parquet)"
            )
        return made.read_bytes()


def t4_results(cells: Sequence[Cell]) -> dict[str, Any]:
    """The points of a run as results of auto-tuning."""
    by_point: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        by_point.setdefault(cell.point.words, []).append(cell)
    return {
        "schema_version": T4_VERSION,
        "results": [_t4_result(those) for those in by_point.values()],
    }


def t4_metadata(run: Run, sessions: Sequence[Session]) -> dict[str, Any]:
    """Where and with what it was measured."""
    workers = [worker for session in sessions for worker in session.workers]
    hardware = {
        (w.environment.host, w.environment.cpu): {
            "host": w.environment.host,
            "cpu": w.environment.cpu,
            "cpus": w.environment.cpus,
        }
        for w in workers
    }
    versions = sorted({item for w in workers for item in w.environment.versions.items()})
    systems = sorted({w.environment.system for w in workers})
    revisions = sorted({s.revision + ("+" if s.is_dirty else "") for s in sessions if s.revision})
    return {
        "schema_version": T4_VERSION,
        "metadata": {
            "zenodo": {"title": run.name, "description": f"gemmir experiment {run.name}"},
            "hardware": {
                "hardware_description": list(hardware.values()),
                "operating_system": ", ".join(systems),
            },
            "environment": {
                "device_query": {},
                "requirements": [f"{name}=={version}" for name, version in versions],
                "gemmir_revisions": revisions,
                "gemmir_settings": dict(run.settings),
            },
        },
    }


def _rows(run: Run, cells: Sequence[Cell]) -> Iterator[dict[str, Any]]:
    for cell in cells:
        shared = _of_cell(run, cell)
        if not cell.outcome.samples:
            yield shared
        for number, sample in enumerate(cell.outcome.samples):
            seconds = cell.seconds[number]
            yield shared | {
                "round": number,
                "seconds": seconds,
                "wall_seconds": sample.wall,
                "cpu_seconds": sample.cpu,
                "calls": sample.calls,
                "gflops": cell.point.problem.flops / seconds / 1e9,
            }


def _of_cell(run: Run, cell: Cell) -> dict[str, Any]:
    point, outcome = cell.point, cell.outcome
    gemm, figures = point.problem, outcome.figures
    states = {
        f"{name}_{moment}": json.dumps(value) if name == "affinity" else value
        for moment, state in (("before", outcome.before), ("after", outcome.after))
        for name, value in asdict(state).items()
    }
    return {
        "run": run.number,
        "experiment": run.name,
        "problem": name_of(gemm),
        "m": gemm.m,
        "n": gemm.n,
        "k": gemm.k,
        "dtype": gemm.dtype,
        "gemm": json.dumps(given(gemm)),
        "flops": gemm.flops,
        "target": point.target,
        "contestant": point.candidate.name,
        "kind": point.candidate.kind,
        "objective": point.objective,
        "schedule": schedule_of(cell),
        "point": None if point.candidate.point is None else json.dumps(dict(point.candidate.point)),
        "repetition": cell.repetition,
        "position": cell.position,
        "status": outcome.status,
        "detail": outcome.detail,
        "error_ratio": outcome.error_ratio,
        "figures": figures and json.dumps({n: [f.value, f.unit] for n, f in figures.items()}),
        "started": outcome.started,
        "worker": cell.worker,
        "host": cell.host,
        "cpu": cell.cpu,
        **states,
    }


def schedule_of(cell: Cell) -> str | None:
    """The passes that ran, or that were to run; None of a library."""
    if cell.outcome.steps is not None:
        return ",".join(cell.outcome.steps)
    return cell.point.schedule


def _plain(value: object) -> object:
    """Numbers with all of their digits, and what is not a number as nothing."""
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else None
    return value


def _t4_result(cells: Sequence[Cell]) -> dict[str, Any]:
    """One point, with the samples of all of its repetitions."""
    first = cells[0]
    status = status_of(cells)
    runtimes = [MILLISECONDS * s for cell in cells for s in cell.seconds]
    took = [cell.outcome.took_seconds or 0.0 for cell in cells]
    measured = list(_measurements(cells, runtimes))
    return {
        "timestamp": first.outcome.started,
        "configuration": _configuration(first.point, schedule_of(first)),
        "objectives": ["time"] if runtimes else [m["name"] for m in measured],
        "times": {"runtimes": runtimes, "benchmark": MILLISECONDS * sum(took)},
        "invalidity": INVALIDITY[status],
        "correctness": float(status in ("ok", "impossible")),
        "measurements": measured,
    }


def _configuration(point: Point, schedule: str | None) -> dict[str, Any]:
    return {
        **given(point.problem),
        "target": point.target,
        "contestant": point.candidate.name,
        **({} if schedule is None else {"schedule": schedule}),
        **(point.candidate.point or {}),
    }


def _measurements(cells: Sequence[Cell], runtimes: Sequence[float]) -> Iterator[dict[str, Any]]:
    def measured(name: str, value: float, unit: str) -> dict[str, Any]:
        return {"name": name, "value": value, "unit": unit}

    if runtimes:
        milliseconds = statistics.median(runtimes)
        yield measured("time", milliseconds, "ms")
        flops = cells[0].point.problem.flops
        yield measured("speed", flops / (milliseconds / MILLISECONDS) / 1e9, "GFLOP/s")
    errors = [c.outcome.error_ratio for c in cells if c.outcome.error_ratio is not None]
    if errors:
        yield measured("largest error over its bound", max(errors), "")
    for name, figure in (cells[0].outcome.figures or {}).items():
        yield measured(name, figure.value, figure.unit)


def bytes_of(
    form: Form, run: Run, cells: Sequence[Cell], sessions: Sequence[Session]
) -> dict[str, bytes]:
    """Every file of a format, by what is put behind the name: only T4 has a second one."""
    texts: Mapping[Form, Callable[[], dict[str, bytes]]] = {
        "csv": lambda: {"": csv_text(run, cells).encode()},
        "parquet": lambda: {"": parquet(run, cells)},
        "t4": lambda: {
            "": _json(t4_results(cells)),
            "-metadata": _json(t4_metadata(run, sessions)),
        },
    }
    return texts[form]()


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
