"""gemmir experiment: problems x schedules x targets x repetitions, kept in one file."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemmir.cli.experiment_tables import put_comparison, put_head, put_points, run_dict
from gemmir.cli.options import Json
from gemmir.cli.output import note, put, put_json, put_table, write_file

if TYPE_CHECKING:
    from gemmir.search.experiments.records import Run
    from gemmir.search.experiments.running import Begun, Crew, Measured
    from gemmir.search.experiments.spec import Spec
    from gemmir.search.experiments.store import Store
    from gemmir.search.experiments.summary import Summary

INTERRUPTED = 128 + 2
"""What a shell sees of a process that SIGINT ended."""

Results = Annotated[
    Path, typer.Argument(help="What gemmir experiment run wrote.", metavar="FILE.db")
]
WhichRun = Annotated[
    str | None, typer.Option("--run", help="Its number or name; by default the last.")
]


class Form(StrEnum):
    """What a run can be exported to."""

    CSV = "csv"
    PARQUET = "parquet"
    T4 = "t4"


def init(
    *,
    file: Annotated[Path, typer.Argument(help="What is written.", metavar="SPEC.toml")] = Path(
        "experiment.toml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Also over a file that is there.")] = False,
    json: Json = False,
) -> None:
    """Write an experiment with every key and what it means, to be changed and run."""
    from gemmir.search.experiments.spec import EXAMPLE

    if file.exists() and not force:
        raise typer.BadParameter(f"{file} is there; name another file, or add --force")
    write_file(file, EXAMPLE.read_bytes())
    if json:
        put_json({"wrote": str(file)})
    else:
        note(f"wrote {file}; next: gemmir experiment run {file}")


def run(
    *,
    spec: Annotated[Path, typer.Argument(help="The experiment.", metavar="SPEC.toml")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file of results; SPEC.db by default."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Measure what the last run of the file lacks.")
    ] = False,
    append: Annotated[bool, typer.Option("--append", help="Add another run to the file.")] = False,
    workers: Annotated[
        str | None,
        typer.Option(
            help="Spread the cells: over a Dask cluster by the address of its scheduler, or over "
            "so many processes of this computer.",
            metavar="dask://HOST:PORT|N",
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what would be measured, and in which order.")
    ] = False,
    json: Json = False,
) -> None:
    """Measure every problem with every schedule and library, in random order, and keep it all.

    Each repetition has a process of its own, is compared with float64 before it is timed, and is in
    the file as a whole before the next begins: whatever ends this command, --resume goes on with
    what is left. The exit status is 3 where a result is further from the right one than its bound.
    """
    from gemmir.search.experiments.running import run_experiment
    from gemmir.search.experiments.spec import read_spec

    if resume and append:
        raise typer.BadParameter("--resume goes on with the last run, --append begins another one")
    given = {"--resume": resume, "--append": append, "--output": output, "--workers": workers}
    said = [name for name, value in given.items() if value]
    if plan and said:
        raise typer.BadParameter(f"--plan measures nothing, so {', '.join(said)} says nothing")
    chosen = read_spec(spec)
    path = Path(f"{spec.stem}.db") if output is None else output
    if plan:
        _put_plan(chosen, json)
        return
    spread = [] if workers is None else ["--workers", workers]
    words = ["gemmir", "experiment", "run", str(spec), "-o", str(path), "--resume", *spread]
    again = shlex.join(words)
    with _crew(workers) as crew, _progress() as progress, _interruptible(path, again):
        found = run_experiment(
            chosen,
            path,
            crew,
            mode="resume" if resume else "append" if append else "new",
            begun=progress.begin,
            done=progress.advance,
        )
    _put_run(path, found, json)


def show(
    *,
    file: Results,
    run: WhichRun = None,
    json: Json = False,
) -> None:
    """Say what a run found: medians, quartiles, GFLOP/s, per cent of the FMA peak, and failures."""
    from gemmir.search.experiments.store import Store

    with Store.reader(file) as store:
        found = store.run(run)
    _put_run(file, found, json, check=False)


def compare(
    *,
    file: Results,
    old: Annotated[
        str | None,
        typer.Argument(help="A run, by number or name: the last but one.", metavar="[OLD]"),
    ] = None,
    new: Annotated[
        str | None,
        typer.Argument(help="Another run, or a file, of the last: the last.", metavar="[NEW|FILE]"),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(help="Compare the contestants of one run with this one.", metavar="NAME"),
    ] = None,
    confidence: Annotated[
        float, typer.Option(min=0.5, max=0.9999, help="Of the intervals and verdicts.")
    ] = 0.95,
    json: Json = False,
) -> None:
    """Say what is faster in another run, by how much, and how sure that is.

    Of each contestant of a problem, in two runs: the ratio of the times, its interval, Cliff's
    delta, the chance of such a difference where there is none, corrected for the number of
    comparisons by Holm's method, and a verdict. In a file of one run, and with --baseline, the
    contestants are compared with one of them.
    """
    from gemmir.search.experiments.compare import compare_contestants, compare_runs, unlike
    from gemmir.search.experiments.store import Store

    differs: list[str] = []
    with Store.reader(file) as store:
        if baseline is None and (old is not None or len(store.runs()) > 1):
            before, after, where = _two_runs(store, old, new)
            with where() as other:
                title = f"{_titled(store, before)}, and then {_titled(other, after)}"
                sides = store.cells(before.number), other.cells(after.number)
                found = compare_runs(*sides, confidence=confidence)
                differs = unlike(before, sides[0], after, sides[1])
        else:
            if new is not None:
                raise typer.BadParameter("--baseline is of one run")
            only = store.run(old)
            cells = store.cells(only.number)
            name = _first_schedule(store, only) if baseline is None else baseline
            title = f"{_titled(store, only)}, beside {name}"
            found = compare_contestants(cells, name, confidence=confidence)
    if json:
        whole = {"compared": title, "confidence": confidence, "differs": differs}
        put_json({**whole, **found.to_dict()})
    else:
        put_comparison(title, found, confidence)
        if differs:
            put(f"  not of the schedules alone: {'; '.join(differs)}\n")


def export(
    *,
    file: Results,
    to: Annotated[Form, typer.Option(help="Tables, or auto-tuning's schema T4.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The file; by default csv goes to standard output, others beside FILE.",
        ),
    ] = None,
    run: WhichRun = None,
    json: Json = False,
) -> None:
    """Write a run for other tools: every sample as CSV or Parquet, or as T4 of Kernel Tuner.

    T4 is two files, the results and PATH-metadata.json.
    """
    from gemmir.search.experiments.export import bytes_of
    from gemmir.search.experiments.store import Store

    if to is Form.CSV and output is None and json:
        raise typer.BadParameter("--json leaves no room for the CSV on standard output; add -o")
    with Store.reader(file) as store:
        found = store.run(run)
        cells = store.cells(found.number)
        made = bytes_of(to.value, found, cells, store.sessions(found.number))
    if to is Form.CSV and output is None:
        put(made[""].decode())
        return
    ending = ".json" if to is Form.T4 else f".{to.value}"
    base = file.with_suffix(ending) if output is None else output
    names = {base.with_name(f"{base.stem}{more}{base.suffix}"): made[more] for more in made}
    for name, data in names.items():
        write_file(name, data)
        note(f"wrote {name}")
    if json:
        put_json({"wrote": [str(name) for name in names], "cells": len(cells)})


# Running ------------------------------------------------------------------------------------------


@contextmanager
def _crew(workers: str | None) -> Generator[Crew]:
    from gemmir.search.experiments.running import Alone

    if workers is None:
        yield Alone()
        return
    from gemmir.search.experiments.cluster import cluster

    with cluster(workers) as crew:
        yield crew


@contextmanager
def _interruptible(path: Path, again: str) -> Generator[None]:
    """Where Ctrl-C ends it, say how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        note(f"\nwhat is done is in {path}; to go on:\n  {again}")
        raise typer.Exit(INTERRUPTED) from None


class _Lines:
    """Progress for a file or a pipe: a line for each cell."""

    def __init__(self) -> None:
        self.total = self.done = self.first = 0
        self.threads = 1
        self.started = time.monotonic()

    def begin(self, begun: Begun) -> None:
        """Say what there is to do."""
        self.total, self.first = begun.run.cells, begun.run.done
        self.done, self.threads = self.first, begun.settings.threads
        self.started = time.monotonic()
        note(_begun(begun))

    def advance(self, measured: Measured) -> None:
        """Say what was done, and how long the rest will take."""
        self.done += 1
        each = (time.monotonic() - self.started) / (self.done - self.first)
        left = (self.total - self.done) * each
        note(f"{self.done}/{self.total} {_said(measured, self.threads)}; {left:.0f} s left")


class _Bar:
    """Progress for a person at a terminal."""

    def __init__(self, bar: Any, task: Any) -> None:
        self._bar, self._task = bar, task
        self._threads = 1

    def begin(self, begun: Begun) -> None:
        """Show what there is to do."""
        note(_begun(begun))
        self._threads = begun.settings.threads
        self._bar.update(self._task, total=begun.run.cells, completed=begun.run.done)

    def advance(self, measured: Measured) -> None:
        """Show what was done."""
        self._bar.update(self._task, advance=1, description=_said(measured, self._threads))


@contextmanager
def _progress() -> Generator[_Lines | _Bar]:
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        MofNCompleteColumn(),
        BarColumn(bar_width=24),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Bar(bar, bar.add_task("", total=None))


def _begun(begun: Begun) -> str:
    run, settings = begun.run, begun.settings
    where = f" on CPU {', '.join(map(str, settings.cpus))}" if settings.cpus else ""
    done = f", {run.done} of them done" if run.done else ""
    return f"run {run.number} ({run.name}): {run.cells} cells{done}{where}"


def _said(measured: Measured, threads: int) -> str:
    from statistics import median

    from gemmir.bench.report import spelled

    point, outcome = measured.cell.point, measured.outcome
    what = f"{point.candidate.name}, {spelled(point.problem)}, {point.target}"
    if outcome.status != "ok":
        return f"{what}: {outcome.status}"
    if not outcome.samples:
        return f"{what}: {len(outcome.figures or {})} figures"
    seconds = median(s.cpu if threads == 1 else s.wall for s in outcome.samples)
    return f"{what}: {point.problem.flops / seconds / 1e9:.1f} GFLOP/s"


def _put_plan(spec: Spec, json: bool) -> None:
    from gemmir.search.experiments.plan import name_of
    from gemmir.search.experiments.planning import plan_of

    made = plan_of(spec)
    if json:
        cells = [
            {"position": at, "repetition": c.repetition, **_point(made.points[c.point])}
            for at, c in enumerate(made.cells)
        ]
        put_json({"plan": made.hash, "settings": asdict(made.settings), "cells": cells})
        return
    rows = [
        [
            name_of(point.problem),
            point.target,
            point.candidate.name,
            point.objective,
            str(sum(cell.point == number for cell in made.cells)),
        ]
        for number, point in enumerate(made.points)
    ]
    columns = ["problem", "target", "contestant", "objective", " repetitions"]
    put_table(f"{made.name}: {len(made.cells)} cells, plan {made.hash[:12]}", columns, rows)


def _point(point: Any) -> dict[str, Any]:
    from gemmir.search.experiments.plan import name_of

    return {
        "problem": name_of(point.problem),
        "target": point.target,
        "contestant": point.candidate.name,
        "objective": point.objective,
        "schedule": point.schedule,
    }


def _put_run(path: Path, found: Run, json: bool, *, check: bool = True) -> None:
    """What a run found; `check` raises `MismatchError` GEM1425 where something of it is wrong."""
    from gemmir.search.experiments.store import Store
    from gemmir.search.experiments.summary import summaries

    with Store.reader(path) as store:
        rows = summaries(store.cells(found.number))
        sessions = store.sessions(found.number)
        runs = store.runs()
    if json:
        put_json(
            {
                "file": str(path),
                "run": run_dict(found),
                "runs": [run_dict(run) for run in runs],
                "sessions": [asdict(session) for session in sessions],
                "points": [row.to_dict() for row in rows],
            }
        )
    else:
        put_head(path, found, sessions)
        put_points(rows)
    if check:
        _refuse(rows)


def _refuse(rows: Sequence[Summary]) -> None:
    from gemmir.errors import MismatchError
    from gemmir.search.experiments.plan import name_of

    for row in rows:
        if row.status == "wrong":
            raise MismatchError(
                "GEM1425",
                f"{row.point.candidate.name} of {name_of(row.point.problem)} on "
                f"{row.point.target} is wrong: {row.detail}",
                "gemmir check finds the pass that is at fault",
            )


def _two_runs(store: Store, old: str | None, new: str | None) -> tuple[Run, Run, Callable[[], Any]]:
    """Both runs, and how to open the file of the second."""
    from contextlib import nullcontext

    from gemmir.search.experiments.store import Store

    if new is not None and Path(new).is_file():
        with Store.reader(Path(new)) as other:
            return store.run(old), other.run(), lambda: Store.reader(Path(new))
    runs = store.runs()
    before, after = store.run(old) if old is not None else runs[-2], store.run(new)
    if before.number == after.number:
        raise typer.BadParameter(
            f"run {before.number} of {store.path} would be compared with itself: name two runs, "
            "or --baseline, which compares its contestants"
        )
    return before, after, lambda: nullcontext(store)


def _titled(store: Store, run: Run) -> str:
    return f"run {run.number} ({run.name}) of {store.path}"


def _first_schedule(store: Store, run: Run) -> str:
    points = store.points(run.number).values()
    return next(p.candidate.name for p in points if p.candidate.kind == "schedule")
