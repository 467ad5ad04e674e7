"""Read the file of `gemmir experiment`: the speeds of a run, and its points of spaces."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from gemmir.bench.report import spelled
from gemmir.gemm import Gemm
from gemmir.measure import timing_of
from gemmir.search.experiments.records import Cell, Session
from gemmir.search.experiments.records import Run as StoredRun
from gemmir.search.experiments.store import Store
from gemmir.search.reports.bench_file import products_at_once
from gemmir.search.reports.measured import Case, Run, Speed, Static, Status, Study, Trial

DEFAULT: Final = "default"
"""What the schedule that gemmir chooses is called where an experiment names it."""

LEAST_POINTS: Final = 4
"""Fewer points of a space are no search."""

PEAK_IS: Final = "FMA peak, measured in the same run"
TIMES: Final = ", times {} products an instruction adds"


def read_experiment(path: Path, wanted: str | None) -> list[Run | Study]:
    """The speeds of a run, by default the last one, for each target; and what it has of spaces.

    Raises as the store does where the file is not one, or has no such run.
    """
    with Store.reader(path) as store:
        run = store.run(wanted)
        cells = [cell for cell in store.cells(run.number)]
        sessions = store.sessions(run.number)
        others = [f"{one.name} ({one.number})" for one in store.runs() if one.number != run.number]
    note = f"The file has other runs, which --run shows: {', '.join(others)}." if others else ""
    found: list[Run | Study] = []
    for target in dict.fromkeys(cell.point.target for cell in cells):
        those = [cell for cell in cells if cell.point.target == target]
        facts = tuple(_facts(run, sessions, those))
        command = sessions[0].command if sessions else ""
        found.append(
            Run(
                name=f"{path.stem}-{target}",
                title=f"Experiment {run.name} on {target}",
                target=target,
                command=command,
                facts=facts,
                classes={run.name: _cases(those)},
                statics=tuple(_statics(those)),
                note=note,
            )
        )
        found += _studies(run, path, target, those, facts, command)
    return found


def _facts(
    run: StoredRun, sessions: Sequence[Session], cells: Sequence[Cell]
) -> list[tuple[str, str]]:
    """What the numbers depend on."""
    facts = [
        ("run", f"{run.name} ({run.number})"),
        ("created", run.created),
        ("cells", f"{run.done} of {run.cells} done"),
        ("statuses", ", ".join(f"{count} {name}" for name, count in run.statuses.items())),
        ("threads", str(run.threads)),
        ("plan", run.plan[:16]),
    ]
    facts += [(name, str(run.settings[name])) for name in run.settings if name != "threads"]
    facts += [("cpu", cpu) for cpu in dict.fromkeys(cell.cpu for cell in cells)]
    for session in sessions:
        dirty = "+" if session.is_dirty else ""
        facts.append((f"session {session.number}", f"{session.started} to {session.ended or '…'}"))
        facts.append((f"git of session {session.number}", f"{session.revision or 'none'}{dirty}"))
        for worker in session.workers:
            told = worker.environment
            versions = ", ".join(f"{name} {v}" for name, v in told.versions.items())
            facts.append((f"worker {worker.name}", f"{told.host}, {told.system}: {versions}"))
    loads = [
        state.load_average
        for cell in cells
        for state in (cell.outcome.before, cell.outcome.after)
        if state.load_average is not None
    ]
    if loads:
        facts.append(("load average", f"{min(loads):.2f} to {max(loads):.2f}"))
    return facts


def _cases(cells: Sequence[Cell]) -> list[Case]:
    problems = sorted(dict.fromkeys(cell.point.problem for cell in cells), key=_size)
    return [_case(gemm, [c for c in cells if c.point.problem == gemm]) for gemm in problems]


def _statics(cells: Sequence[Cell]) -> Iterator[Static]:
    """Numbers of compiled code, of the first repetition: they are the same in all."""
    seen: set[tuple[Gemm, str]] = set()
    for cell in sorted(cells, key=lambda cell: _size(cell.point.problem)):
        place = (cell.point.problem, cell.point.candidate.name)
        if place in seen or not cell.outcome.figures:
            continue
        seen.add(place)
        label = spelled(cell.point.problem)
        for name, figure in cell.outcome.figures.items():
            yield Static(
                label=label,
                contestant=cell.point.candidate.name,
                name=name,
                value=figure.value,
                unit=figure.unit,
            )


def _size(gemm: Gemm) -> tuple[str, int]:
    return gemm.dtype, gemm.flops


def _case(gemm: Gemm, cells: Sequence[Cell]) -> Case:
    by_name: dict[str, list[Cell]] = {}
    for cell in _without_points(cells):
        by_name.setdefault(cell.point.candidate.name, []).append(cell)
    by_name |= {f"best of {space}": best for space, best in _best_points(cells).items()}
    speeds: dict[str, Speed] = {}
    missing: dict[str, str] = {}
    peers: list[str] = []
    schedules: list[str] = []
    limit: float | None = None
    for name, those in by_name.items():
        seconds = [s for cell in those if cell.outcome.status == "ok" for s in cell.seconds]
        kind = those[0].point.candidate.kind
        if kind == "peak":
            limit = timing_of(seconds).gflops(gemm.flops) if seconds else None
            continue
        if seconds:
            speeds[name] = _speed(name, gemm, those[0], seconds)
            (peers if kind == "peer" else schedules).append(name)
        else:
            last = those[-1].outcome
            missing[name] = f"{last.status}{f': {last.detail}' if last.detail else ''}"
    depth = max((products_at_once(speed.schedule) for speed in speeds.values()), default=1)
    fastest = min(schedules, key=lambda n: statistics.median(speeds[n].samples), default="")
    return Case(
        label=spelled(gemm),
        gemm=gemm,
        own=DEFAULT if DEFAULT in speeds else fastest,
        peers=tuple(peers),
        speeds=speeds,
        missing=missing,
        limit=None if limit is None else depth * limit,
        limit_is="" if limit is None else PEAK_IS + (TIMES.format(depth) if depth > 1 else ""),
    )


def _speed(name: str, gemm: Gemm, cell: Cell, seconds: Sequence[float]) -> Speed:
    timing = timing_of(seconds)
    steps = cell.outcome.steps
    return Speed(
        name=name,
        gflops=timing.gflops(gemm.flops),
        lower=gemm.flops / timing.upper / 1e9,
        upper=gemm.flops / timing.lower / 1e9,
        samples=tuple(seconds),
        schedule=",".join(steps) if steps else cell.point.schedule or "",
    )


def _without_points(cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.point.candidate.point is None]


def _best_points(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Of each space the cells of its fastest point: all of them are in a study of their own."""
    spaces: dict[str, dict[str, list[Cell]]] = {}
    for cell in cells:
        is_timed = cell.outcome.status == "ok" and bool(cell.seconds)
        if cell.point.candidate.point is not None and is_timed:
            space = Path(cell.point.candidate.space or "a space").stem
            points = spaces.setdefault(space, {})
            points.setdefault(cell.point.candidate.name, []).append(cell)
    return {space: min(points.values(), key=_median) for space, points in spaces.items()}


def _median(cells: Sequence[Cell]) -> float:
    return statistics.median(second for cell in cells for second in cell.seconds)


def _studies(
    run: StoredRun,
    path: Path,
    target: str,
    cells: Sequence[Cell],
    facts: tuple[tuple[str, str], ...],
    command: str,
) -> list[Study]:
    """Of each problem the points of spaces that were measured, as trials."""
    found: list[Study] = []
    problems = sorted(dict.fromkeys(cell.point.problem for cell in cells), key=_size)
    for number, gemm in enumerate(problems):
        those = [c for c in cells if c.point.problem == gemm and c.point.candidate.point]
        names = list(dict.fromkeys(cell.point.candidate.name for cell in those))
        if len(names) < LEAST_POINTS:
            continue
        trials = tuple(
            _trial(place, [c for c in those if c.point.candidate.name == name])
            for place, name in enumerate(names)
        )
        timed = [trial for trial in trials if trial.value is not None]
        found.append(
            Study(
                name=f"{path.stem}-{target}-space-{number}",
                title=f"Space of {run.name}: {spelled(gemm)}",
                target=target,
                command=command,
                facts=facts,
                unit="s",
                trials=trials,
                is_search=False,
                winner=min(timed, key=lambda t: t.value or 0.0, default=None),
            )
        )
    return found


def _trial(number: int, cells: Sequence[Cell]) -> Trial:
    seconds = [s for cell in cells if cell.outcome.status == "ok" for s in cell.seconds]
    point: Mapping[str, int | str] = cells[0].point.candidate.point or {}
    status: Status = "ok" if seconds else cells[-1].outcome.status
    return Trial(
        number=number,
        point=point,
        status=status,
        value=statistics.median(seconds) if seconds else None,
        schedule=cells[0].point.schedule or "",
        detail=cells[-1].outcome.detail or "",
    )
